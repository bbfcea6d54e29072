"""The words of a report: one catalogue a language, numbers and reasons as people read them, and names made harmless."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from zoo.errors import ConfigError, did_you_mean
from zoo.p_values import p_said, p_value, scientific
from zoo.reporting.schema import Measure, Number

# Controls, and the characters that turn the direction of the text around them: in a name they can only mislead.
_MISLEADING = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)
_MINUS = "−"
_MOST_DIGITS = 4
_LEAST = 1e-6
"""The smallest share that is shown, with `_MOST_DIGITS` after the point of its percentage, and the largest below 1."""

_FORMULAS = {
    "agreement": "mean[ŷ₁ = ŷ₂]",
    "disagreement": "mean[ŷ₁ ≠ ŷ₂]",
    "label_kappa": "(o − e) / (1 − e),   o = mean[ŷ₁ = ŷ₂],   e = Σₖ P(ŷ₁ = k) P(ŷ₂ = k)",
    "error_consistency": "(o − e) / (1 − e),   o = mean[c₁ = c₂],   e = a₁a₂ + (1 − a₁)(1 − a₂)",
    "error_correlation": "φ = (P(c₁c₂) − a₁a₂) / √(a₁(1 − a₁) a₂(1 − a₂))",
    "capa": "(o − e) / (1 − e),   o = mean Σₖ p₁ₖp₂ₖ,   e = p̄₁p̄₂ + (1 − p̄₁)(1 − p̄₂)/(C − 1)",
    "capa_discrete": "(o − e) / (1 − e),   o = mean[ŷ₁ = ŷ₂],   e = a₁a₂ + (1 − a₁)(1 − a₂)/(C − 1)",
    "both_wrong_agreement": "P(ŷ₁ = ŷ₂ | c₁ = c₂ = 0)",
    "double_fault": "mean[c₁ = c₂ = 0]",
    "q_statistic": "(N₁₁N₀₀ − N₀₁N₁₀) / (N₁₁N₀₀ + N₀₁N₁₀)",
    "js_divergence": "mean (H((p₁ + p₂)/2) − (H(p₁) + H(p₂))/2), in bits",
    "excess_kinship": "K(A, B) − λ(A) · λ(B)",
    "reliability": "rel(A) = mean φ(Aₛ, Aₜ) over s ≠ t",
    "systemic_failure": "S = mean Πₘ (1 − cₘ)",
    "ambiguity": "mean[some ŷₘ ≠ ŷ of the best model]",
    "discrepancy": "max over m of mean[ŷₘ ≠ ŷ of the best model]",
    "rashomon_capacity": "mean 2^capacity of the channel from model to answer",
    "oracle_gap": "mean[some cₘ = 1] − max a",
    "vote_gain": "accuracy of the majority vote − max a",
    "effective_models": "M V / (V + C),   V = Σₘ aₘ(1 − aₘ),   C = Σₘ≠ₖ cov(eₘ, eₖ)",
    "effective_against_joint_failure": "1 + (M − 1)(ln S_max − ln S) / (ln S_max − ln S_ind)",
    "recipe_diversity": "exp(−Σ λᵢ log λᵢ),   λ the eigenvalues of K / M",
    "excess_error_correlation": "φ(A, B) − λ(A) · λ(B)",
    "shared_wrong_answers": "Σ(agree − e) / Σ(1 − e)",
    "fleiss_kappa": "(P̄ − P̄ₑ) / (1 − P̄ₑ)",
    "marginal_diversity": "oracle of all − oracle without the model",
    "kinship": "kinship(A, B) = mean φ(Aₛ, Bₜ) / √(rel(A) · rel(B)),   rel(A) = mean φ(Aₛ, Aₜ) over s ≠ t",
    "excess": "excess(A, B) = K(A, B) − λ(A) · λ(B),   K(i, j) ≈ λ(i) · λ(j) fitted without the pair (A, B)",
    "effective": "M V / (V + C),   V = Σₘ aₘ(1 − aₘ),   C = Σₘ≠ₖ cov(eₘ, eₖ)",
    "joint": "1 + (M − 1)(ln S_max − ln S) / (ln S_max − ln S_ind),   S = mean Πₘ eₘ,   S_ind = Πₘ(1 − aₘ),   "
    "S_max = minₘ(1 − aₘ)",
    "recipes": "exp(−Σ λᵢ log λᵢ),   λ the eigenvalues of K / M",
    "shared": "r = Σ(agree − e) / Σ(1 − e),   z = Σ(agree − e) / √Σ(agree − e)²",
    "failures": "S = mean over examples of Πₘ (1 − cₘ),   log ratio = log(S / S expected)",
    "layers": "CKA(X, Y) = HSIC₁(X, Y) / √(HSIC₁(X, X) · HSIC₁(Y, Y))",
    "lineage": "BY: reject the k smallest p with p₍ₖ₎ ≤ k q / (m · Σ 1/i),   q = .05, m tests of all pairs",
    "lineage_order": "r = Spearman(π, 1 … h),   p = P(Spearman of a random permutation ≥ r)",
    "lineage_dead": "T = meanⱼ cos(A[j, dead], B[π(j), dead]),   p = (1 + #{T of permuted inputs ≥ T}) / (draws + 1)",
    "lineage_aligned": "S = meanⱼ cos(A[j], B[π(j)]),   p = (1 + #{r: S(A, Rᵣ) ≥ S(A, B)}) / (m + 1)",
    "lineage_answers": "B1 = #{both give the same wrong class} / #{the one is wrong},   B2: S = cos(Σ^(−½)(z₁ − z̄), "
    "Σ^(−½)(z₂ − z̄)),   p = (1 + #{r: S(B, Rᵣ) ≥ S(B, A)}) / (m + 1)",
    "lineage_tree": "min Σ (1 − S) over all trees that lead from one root to every run",
}
_REFERENCES = (
    "Benjamini, Yekutieli 2001. The control of the false discovery rate in multiple testing under dependency.",
    "Bommasani et al. 2022. Picking on the same person: does algorithmic monoculture lead to outcome homogenization?",
    "Chu, Liu 1965. On the shortest arborescence of a directed graph.",
    "Clopper, Pearson 1934. The use of confidence or fiducial limits illustrated in the case of the binomial.",
    "Edmonds 1967. Optimum branchings.",
    "Fieller 1954. Some problems in interval estimation.",
    "Friedman, Dieng 2023. The Vendi score: a diversity evaluation metric for machine learning.",
    "Geirhos, Meding, Wichmann 2020. Beyond accuracy: quantifying trial-by-trial behaviour of CNNs and humans by "
    "measuring error consistency.",
    "Goel et al. 2025. Great models think alike and this undermines AI oversight.",
    "Hall 1992. On the removal of skewness by transformation.",
    "Hsu, Calmon 2022. Rashomon capacity: a metric for predictive multiplicity in classification.",
    "Johnson 1978. Modified t tests and confidence intervals for asymmetrical populations.",
    "Kish 1965. Survey sampling.",
    "Kornblith et al. 2019. Similarity of neural network representations revisited.",
    "Krogh, Vedelsby 1995. Neural network ensembles, cross validation, and active learning.",
    "Kuncheva, Whitaker 2003. Measures of diversity in classifier ensembles and their relationship with the ensemble "
    "accuracy.",
    "Liu, Xie 2020. Cauchy combination test: a powerful test with analytic p-value calculation under arbitrary "
    "dependency structures.",
    "Marx, Calmon, Ustun 2020. Predictive multiplicity in classification.",
    "Mielke, Berry 2007. Permutation methods: a distance function approach.",
    "Nine judges, two effective votes, 2026.",
    "Song et al. 2012. Feature selection via dependence maximization.",
    "Spearman 1904. The proof and measurement of association between two things.",
    "Toups et al. 2023. Ecosystem-level analysis of deployed machine learning reveals homogeneous outcomes.",
    "Vovk, Gammerman, Shafer 2005. Algorithmic learning in a random world.",
    "Wilson 1927. Probable inference, the law of succession, and statistical inference.",
    "Zhu, Ahmed, Kuditipudi, Liang 2025. Independence tests for language models.",
)


class Words:
    """The fixed text of one language. language: `en`, `zh`, … Raises ConfigError for one there is no catalogue of."""

    def __init__(self, language: str = "en") -> None:
        known = languages()
        if language not in known:
            raise ConfigError(
                f"There is no report in language={language}. "
                f"Written: {', '.join(known)}.{did_you_mean(language, known)}"
            )
        self.language = language
        self._texts = catalogue(language)
        self._translations = [(_pattern(english), translation) for english, translation in translations(language)]

    def __call__(self, key: str, **values: object) -> str:
        """The text of `key` with its {placeholders} filled. The values are never searched for placeholders."""
        text = self._texts[key]
        return text.format(**values) if values else text

    def reason(self, reason: str | None) -> str:
        """Why a number is undefined, or what to mind about it. Translated when the catalogue knows the clause."""
        return self.translate(reason or "") or self._texts["numbers.not_recorded"]

    def translate(self, clause: str) -> str:
        """An English clause of the analysis in this language, or as it is when the catalogue does not know it."""
        # Two things to mind about one number stand as two clauses, and a {placeholder} would take both for one.
        parts = [self._known(part) for part in clause.split("; ")]
        joint = self._texts["table.semicolon"]
        if whole := joint.join(parts) if all(parts) else self._known(clause):
            return whole
        first, semicolon, rest = clause.partition("; ")
        return f"{self.translate(first)}{joint}{self.translate(rest)}" if semicolon else clean(clause)

    def _known(self, clause: str) -> str:
        """The translation of a clause; empty when the catalogue has none."""
        for pattern, translation in self._translations:
            if found := pattern.fullmatch(clause):
                return clean(translation.format(**found.groupdict()))
        return ""

    def formula(self, key: str) -> str:
        """The formula of a measure of the core or of a section on methods; empty where none is known."""
        return _FORMULAS.get(key, "")

    def references(self) -> list[str]:
        """The publications that the methods are from."""
        return list(_REFERENCES)

    def measure(self, measure: Measure) -> str:
        """The title of a measure: translated when the catalogue has it, else its own."""
        return self._texts.get(f"measures.{measure['name']}") or clean(measure["title"])

    def number(self, number: Number, style: str = "plain", digits: int = 2) -> str:
        """`0.41 (0.35–0.47)`, `82.1 % (80.3–83.9)` with style `percent`, or a dash when it is undefined; a share that
        is too small to be shown has its interval, too: `less than 0.0001 % (0.0–0.4)`."""
        if number["value"] is None:
            return "—"
        percent = style == "percent"
        if number["low"] is None or number["high"] is None:
            return self.value(number["value"], style, digits)
        digits = _shared_digits(number["value"], number["low"], number["high"]) if percent else digits
        rounded = percent and not _is_at_the_edge(number["value"])
        text = self._percent(number["value"], digits) if rounded else self.value(number["value"], style, digits)
        scale = 100 if percent else 1
        low, high = (_fixed(end * scale, digits) for end in (number["low"], number["high"]))
        # A dash between negative numbers reads as another minus.
        dash = "–" if not low.startswith(_MINUS) and not high.startswith(_MINUS) else self._texts["numbers.to"]
        return f"{text}\u00a0({low}{dash}{high})"

    def quantity(self, number: Number) -> str:
        """A measurement of any magnitude with three digits: `0.0312 (0.0305–0.0320)`, or a dash."""
        if number["value"] is None or number["low"] is None or number["high"] is None:
            return self.count(number["value"])
        return f"{self.count(number['value'])}\u00a0({self.count(number['low'])}–{self.count(number['high'])})"

    def value(self, value: float | None, style: str = "plain", digits: int = 2) -> str:
        """A number alone: `0.41`, `82.1 %`, or a dash."""
        if value is None:
            return "—"
        if style == "percent":
            if _is_at_the_edge(value):
                key, edge = ("less", _LEAST) if value < 0.5 else ("more", 1 - _LEAST)
                return self._texts[f"numbers.{key}"].format(value=self._percent(edge, _MOST_DIGITS))
            return self._percent(value, _percent_digits(value))
        return _fixed(value, digits)

    def _percent(self, share: float, digits: int) -> str:
        return self._texts["numbers.percent"].format(value=_fixed(share * 100, digits))

    def count(self, value: float | None) -> str:
        """A count, or three significant digits of a measurement, with thousands grouped: `1,234`, `0.512`, or
        `5.04 × 10⁻⁵`."""
        if value is None:
            return "—"
        if value == int(value) or abs(value) >= 1000:
            return f"{value:,.0f}".replace("-", _MINUS)
        return scientific(f"{value:.3g}").replace("-", _MINUS).replace(" ", "\u00a0")

    def p_value(self, value: float | None) -> str:
        """`0.03`, `< 0.001`, `< 10⁻²¹⁵`, or a dash: for a cell under a heading that says what it is."""
        return "—" if value is None else p_value(value)

    def p_said(self, value: float | None) -> str:
        """`p = 0.03`, `p < 0.001`, or `p: —`: for a sentence."""
        return "p: —" if value is None else p_said(value)


def languages() -> list[str]:
    """The languages there is a catalogue of, sorted."""
    return sorted(entry.name[: -len(".toml")] for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def catalogue(language: str) -> dict[str, str]:
    """All texts of a language by dotted key, e.g. `leaderboard.title`."""
    return dict(_flat({key: value for key, value in _read(language).items() if key != "translations"}))


def translations(language: str) -> list[tuple[str, str]]:
    """What the analysis may say, in English, and the same in that language; both may have {placeholders}."""
    return list(_read(language).get("translations", {}).items())


def clean(text: str) -> str:
    """A name or a message for one line of text: white space collapsed, misleading characters made visible."""
    return _MISLEADING.sub("�", " ".join(text.split()))


def clean_lines(text: str) -> str:
    """As `clean`, with line breaks kept: the text of an example."""
    return _MISLEADING.sub("�", text)


def _folder() -> Any:
    return files("zoo.reporting") / "languages"


def _read(language: str) -> dict[str, Any]:
    return tomllib.loads((_folder() / f"{language}.toml").read_text("utf-8"))


def _pattern(english: str) -> re.Pattern[str]:
    """`it takes {least} examples` as an expression that matches any number or name in the place of {least}."""
    parts = re.split(r"\{(\w+)\}", english)
    return re.compile("".join(f"(?P<{part}>.+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)))


def _flat(table: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    entries: list[tuple[str, str]] = []
    for key, value in table.items():
        entries += _flat(value, f"{before}{key}.") if isinstance(value, dict) else [(f"{before}{key}", value)]
    return entries


def _is_at_the_edge(share: float) -> bool:
    """Whether a share is neither 0 nor 1 and yet nearer to it than all that is shown of it."""
    return 0 < share < _LEAST or 1 - _LEAST < share < 1


def _percent_digits(share: float) -> int:
    """Digits after the point of a share in percent: one, and of a share within 0.1 % of 0 or of 100 % so many that it
    is not shown as that: `4 %, by chance 0.0 %` would not agree with how many times the one is the other."""
    percent = round(min(abs(share), abs(1 - share)) * 100, 9)
    return 1 if percent == 0 or percent >= 0.1 else min(_MOST_DIGITS, 1 - math.floor(math.log10(percent)))


def _shared_digits(share: float, low: float, high: float) -> int:
    """Digits of a share and both ends of its interval: those of the share; of 0 and 1, and of what is too near to them
    to be shown, those of the ends; and more where two ends that differ would be shown as one number."""
    ends = share in (0, 1) or _is_at_the_edge(share)
    digits = max(map(_percent_digits, (low, high) if ends else (share,)))
    while low != high and digits < _MOST_DIGITS and _fixed(low * 100, digits) == _fixed(high * 100, digits):
        digits += 1
    return digits


def _fixed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    # −0.00 would claim a sign that the digits shown do not have.
    return text.lstrip("-") if float(text) == 0 else text.replace("-", _MINUS)
