"""What the validation of lineage counts, and how it is written: rates with intervals, thresholds, tables.

Pure functions over rows, which are dicts: `setting`, `kind` ("independent" or the chain that made b out of a), `a`,
`b`, `log_p_order` (natural logarithm, None when it could not be tested), `p_dead`, `score`, and for pairs that were
judged `verdict`, `shares` and `calibrated`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = Mapping[str, Any]

INDEPENDENT = "independent"
CONFIDENCE = 0.95
BAND = 0.99
ALPHAS = (0.05, 0.01)
FALSE_POSITIVES = 0.01
DRAWS = 1000


def proportion(count: int, of: int) -> dict[str, Any]:
    """A share with its 95 % interval (Clopper & Pearson); undefined of nothing."""
    from scipy.stats import binomtest

    if not of:
        return {"value": None, "low": None, "high": None, "n": 0}
    span = binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return {"value": count / of, "low": float(span.low), "high": float(span.high), "n": of}


def validity(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """False positives of each exact test on independent pairs, beside the 99 % band of a binomial distribution.

    Pairs share models, so their outcomes depend on each other somewhat and the band is a little too narrow."""
    from scipy.stats import binom

    found = []
    for test, p_of in (("R1", p_of_order), ("R2", _p_dead)):
        ps = [p for row in rows if row["kind"] == INDEPENDENT and (p := p_of(row)) is not None]
        for alpha in ALPHAS:
            count = sum(p <= alpha for p in ps)
            low, high = (int(edge) for edge in binom.interval(BAND, len(ps), alpha)) if ps else (0, 0)
            rate = proportion(count, len(ps))
            met = None if not ps else "met" if low <= count <= high else "below" if count < low else "MISSED"
            found.append({"test": test, "alpha": alpha, "false_positives": count, **named("rate", rate),
                          "band_low": low, "band_high": high, "bar": met})  # fmt: skip
    return found


def p_of_order(row: Row) -> float | None:
    """Of R1; None when it could not be tested."""
    return None if row["log_p_order"] is None else math.exp(row["log_p_order"])


def _p_dead(row: Row) -> float | None:
    value: float | None = row["p_dead"]
    return value


def threshold(rows: Iterable[Row]) -> float:
    """The score that one in a hundred independent pairs exceeds, at most. Raises ValueError without a pair."""
    scores = [row["score"] for row in rows if row["kind"] == INDEPENDENT and row["score"] is not None]
    if not scores:
        raise ValueError("no independent pair has a score")
    return float(np.quantile(scores, 1 - FALSE_POSITIVES, method="higher"))


def power(rows: Sequence[Row], above: float, seed: int = 0) -> list[dict[str, Any]]:
    """For each chain: AUC of the aligned score against the independent pairs, true positives above a threshold that
    was set on other models, those of the exact tests at .05, and verdicts that claim shared weights. The first row is
    of the independent pairs: there all of these are false positives."""
    independent = [row for row in rows if row["kind"] == INDEPENDENT]
    kinds = dict.fromkeys(row["kind"] for row in rows if row["kind"] != INDEPENDENT)
    chains: list[tuple[str, list[Row]]] = [(INDEPENDENT, independent)]
    chains += [(kind, [row for row in rows if row["kind"] == kind]) for kind in kinds]
    chains.append(("all chains", [row for row in rows if row["kind"] != INDEPENDENT]))
    return [_powers(kind, own, independent, above, seed) for kind, own in chains]


def _powers(kind: str, own: Sequence[Row], independent: Sequence[Row], above: float, seed: int) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": kind, "pairs": len(own)}
    undefined = {"value": None, "low": None, "high": None}
    told |= named("auc", undefined if kind == INDEPENDENT else auc_with_interval(own, independent, seed))
    told |= named("r3", _rate(own, lambda row: None if row["score"] is None else row["score"] > above))
    for name, p_of in (("r1", p_of_order), ("r2", _p_dead)):
        told |= named(name, _rate(own, lambda row, p_of=p_of: None if (p := p_of(row)) is None else p <= ALPHAS[0]))
    told |= named("verdict", _rate(own, lambda row: row.get("shares")))
    return told | {"calibrated": sum(bool(row.get("calibrated")) for row in own)}


def _rate(rows: Iterable[Row], holds: Callable[[Row], bool | None]) -> dict[str, Any]:
    outcomes = [outcome for row in rows if (outcome := holds(row)) is not None]
    return proportion(sum(outcomes), len(outcomes))


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a derived pair scores higher than an independent one, ties by half. NaN without one of each."""
    if not len(positive) or not len(negative):
        return math.nan
    order = np.sort(np.asarray(negative))
    below = np.searchsorted(order, positive, side="left")
    up_to = np.searchsorted(order, positive, side="right")
    return float((below + up_to).mean() / 2 / len(order))


def auc_with_interval(derived: Sequence[Row], independent: Sequence[Row], seed: int) -> dict[str, Any]:
    """AUC with a 95 % bootstrap interval over models: a draw takes models, each with all its pairs."""
    rows = [row for row in (*derived, *independent) if row["score"] is not None]
    scores = np.array([row["score"] for row in rows], dtype=np.float64)
    is_derived = np.array([row["kind"] != INDEPENDENT for row in rows], dtype=bool)
    models = sorted({row["a"] for row in rows} | {row["b"] for row in rows if row["kind"] == INDEPENDENT})
    place = {model: number for number, model in enumerate(models)}
    first = np.array([place[row["a"]] for row in rows], dtype=np.int64)
    # What was made out of a comes and goes with a.
    second = np.array([place[row["b" if row["kind"] == INDEPENDENT else "a"]] for row in rows], dtype=np.int64)
    value = auc(scores[is_derived], scores[~is_derived])
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        weight = np.bincount(rng.integers(0, len(models), len(models)), minlength=len(models))
        times = np.where(is_derived, weight[first], weight[first] * weight[second])
        drawn = auc(
            np.repeat(scores[is_derived], times[is_derived]), np.repeat(scores[~is_derived], times[~is_derived])
        )
        if not math.isnan(drawn):
            draws.append(drawn)
    if math.isnan(value) or not draws:
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"value": value, "low": float(low), "high": float(high)}


def named(name: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """`rate`, `rate_low`, `rate_high` … from value, low, high, n."""
    return {name if part == "value" else f"{name}_{part}": value for part, value in numbers.items()}


def as_csv(rows: Sequence[Row]) -> str:
    """A table for spreadsheets; columns of every row, in the order in which they first occur."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(rows: Sequence[Row]) -> str:
    """A table for people: a value, its interval and n in one cell."""
    if not rows:
        return "Nothing was measured.\n"
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = [name for name in names if not name.endswith(("_low", "_high", "_n")) or not _is_part(name, names)]
    lines = ["| " + " | ".join(name.replace("_", " ") for name in shown) + " |", "|---" * len(shown) + "|"]
    lines += ["| " + " | ".join(_cell(row, name) for name in shown) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _is_part(name: str, names: Sequence[str]) -> bool:
    return name.rpartition("_")[0] in names


def _cell(row: Row, name: str) -> str:
    value = row.get(name)
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    told = f"{value:.3g}"
    if row.get(f"{name}_low") is not None:
        told = f"{value:.3f} ({row[f'{name}_low']:.3f}–{row[f'{name}_high']:.3f})"
    return f"{told}, n = {row[f'{name}_n']}" if f"{name}_n" in row else told


HEADS = {
    "models": "Models",
    "validity": "(a) Validity: false positives of the exact tests on independent pairs",
    "power": "(b) Power: parents against what was made of them",
    "zoo": "(c) A zoo of families among strangers",
    "cost": "(e) Cost of a pair",
}
NOTES = {
    "validity": "`bar` compares with the 99 % band of a binomial distribution; \"below\" is conservative, not invalid. "
    "Pairs share models and so depend on each other, which the band does not know.",
    "power": "auc and r3 are of the aligned score (R3); `r3` is the share above the threshold that 1 % of the pairs of "
    "the calibrating half exceed. r1, r2: share with p ≤ .05 (R1 is blind to renumbered units by design). verdict: "
    "share judged to share weights, each pair as if it were the only one; of the independent pairs these "
    "are false positives. calibrated: pairs whose R3 has replicas to go by. Intervals: Clopper-Pearson, 95 %; of the "
    "AUC, bootstrap over models.",
    "zoo": "Edges are verdicts of shared weights, at one error rate (Benjamini-Yekutieli, q = .05): a tenth of it for "
    "the exact tests of all pairs, nine tenths for R3 of all calibrated pairs.",
    "cost": "Random weights in the shape of a BERT; weights only, no data read. The bar: 60 s and 2 GiB a pair.",
}  # fmt: skip


def measured_with(about: Mapping[str, Any]) -> str:
    """Command, versions, commit and hardware in two lines of Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    commit, mark, _ = about["commit"].partition("+")
    at = f"; commit {commit[:12]}{mark and ' with changes of its files'}" if commit else ""
    machine = about["hardware"]
    command = shlex.join(about["command"])
    return f"`{command}`\n\n{versions}{at}; {machine['cpu']}, {machine['cores']} cores, device {machine['device']}\n"


def page(found: Mapping[str, Sequence[Row]], about: Mapping[str, Any]) -> str:
    """The write-up."""
    lines = [
        "# Validation of lineage\n",
        measured_with(about),
        f"{about['processes']} processes of one thread, on the CPU; {about['seconds'] / 60:.0f} minutes with what was "
        "already there.\n",
        f"{about['replicas']} replicas of each setting, which differ in their seed only (seeds "
        f"{about['seeds']['replicas']}): {about['calibrating']} "
        f"calibrate, the others are reported on, {about['parents']} of them as parents. (d), the black box, is in "
        "blackbox.md.\n",
    ]
    for name, head in HEADS.items():
        lines += [f"## {head}\n", as_markdown(found[name])]
        lines += [NOTES[name] + "\n"] if name in NOTES else []
    return "\n".join(lines)


def write(found: Mapping[str, Sequence[Row]], about: Mapping[str, Any], out: Path) -> None:
    """validation.md, validation.json and a CSV for each table."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "validation.md").write_text(page(found, about), encoding="utf-8")
    document = {"about": about, **found}
    (out / "validation.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, rows in found.items():
        (out / f"{name}.csv").write_text(as_csv(rows), encoding="utf-8")
