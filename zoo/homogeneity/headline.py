"""The headline: as how many independent models do these count, when they vote and when one of them should be right?

Both numbers are made of e_m(i), the share of model m's runs that fail example i (0 or 1 with one run), so they need no
replicas. One run a model is thought to be drawn at random, the runs of different models independently: products of
shares are then unbiased. Each number is a function of a handful of means over the examples (`Means`), so a draw of the
bootstrap is a handful of weighted means, and a value without one example is a closed form. Intervals come from those.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zoo.homogeneity.bootstrap import Bootstrap, jackknife_interval, too_few
from zoo.homogeneity.results import MIN_EXAMPLES, ONE_MODEL, ROUNDING, Scalar
from zoo.shares import UNSEEN

if TYPE_CHECKING:
    from zoo.store.panel import Panel

Why = Literal["constant", "perfect", "always_wrong"]

FEW_FAILURES = 30
"""With fewer failures a model than this, on average, there is no interval. What intervals cover with 50 and more: see
reports/coverage."""
FEW_OF_ONE = 5
"""With fewer failures than this of the model that fails most rarely there is none either: the mean says little where
one weak model fails most. Intervals of three models with 3 failures beside one with 120 hold the truth in 78 % of
samples; in fourteen kinds of one to five strong models beside a weak one those with 5 do in 93 %. Ten would keep a
fifth of them, which hold it in 89 %: of samples in which a strong model happened to fail often."""
FEW_SHARED_BY_PAIRS = 5
"""With fewer examples than this that two of the models fail, over all pairs, seen or expected by chance, there is none:
of two independent models with 3 % failures 1,000 examples hold one common failure or none, and what is seen of its
variance is luck. Without the rule such intervals held the truth in 28 % of samples. Right answers count alike, here and
in the other two rules: the variance of a vote does not know which is which."""
FEW_JOINT_FAILURES = 10
"""With fewer examples than this that all models fail, there is a bound in place of an interval."""

TOO_FEW_LEFT = "two models at least are needed that are neither constant nor always right nor always wrong"
LEFT_OUT: Mapping[Why, str] = {
    "constant": "it answers the same on every example, so it is left out",
    "perfect": "it is never wrong, so it is left out",
    "always_wrong": "it is never right, so it is left out",
}
AVOIDING = "the failures avoid each other so evenly that no number of independent models matches them"
NEVER_TOGETHER = f"no example is failed by all models: fewer than {FEW_JOINT_FAILURES}, so there is only a bound"
RARELY_TOGETHER = f"fewer than {FEW_JOINT_FAILURES} examples are failed by all models, so there is only a bound"
FEW = f"fewer than {FEW_FAILURES} failures a model are too few failures for an interval"
FEW_OF_SOME = f"fewer than {FEW_OF_ONE} failures of one of the models are too few failures for an interval"
FEW_SHARED = f"fewer than {FEW_SHARED_BY_PAIRS} failures that two models share are too few failures for an interval"
FEW_RIGHT = f"fewer than {FEW_FAILURES} right answers a model are too few right answers for an interval"
FEW_RIGHT_OF_SOME = (
    f"fewer than {FEW_OF_ONE} right answers of one of the models are too few right answers for an interval"
)
FEW_RIGHT_SHARED = (
    f"fewer than {FEW_SHARED_BY_PAIRS} right answers that two models share are too few right answers for an interval"
)
NOT_WITHOUT = "it is undefined without some of the examples, so there is no interval"

_ELEMENTS = 2**22  # means without one example that are held at a time
_EVEN = 1e-12  # variance of the number of failures, relative to that of independent ones, that is rounding


@dataclass(frozen=True)
class Estimate:
    """One number of the headline.

    value, low, high: None where undefined; n: the examples. reason: why it is undefined, or what to mind about it; ""
    for nothing. bound: `at_least` where there is no interval and `low` is a bound on one side; `high` is then None, and
    value is None where the sample has no joint failure at all.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str = ""
    bound: Literal["at_least"] | None = None


@dataclass(frozen=True)
class Headline:
    """The two numbers of the first two sentences.

    models: indices of the models that count, ascending; left_out: the others, and why. joint_failures: n·S, how many
    examples all of them fail (a share of runs counts as a part of an example). few_failures: fewer failures, or right
    answers, than `FEW_FAILURES` a model, `FEW_OF_ONE` of one of them, or `FEW_SHARED_BY_PAIRS` that two share.
    """

    models: tuple[int, ...]
    left_out: Mapping[int, Why]
    effective_models: Estimate
    joint_failure: Estimate
    joint_failures: float
    few_failures: bool


def failure_shares(panel: Panel) -> np.ndarray:
    """e_m(i): share of a model's runs that fail each example, (M, N) float64 in [0, 1]."""
    wrong = panel.predictions != panel.labels
    owner = np.asarray(panel.runs)
    return np.stack([wrong[owner == m].mean(axis=0) for m in range(len(panel.models))])


def left_out(panel: Panel) -> dict[int, Why]:
    """The models that do not count: `constant`, each of its runs gives one answer to every example; `perfect`, none of
    its runs is ever wrong; `always_wrong`, none is ever right. None of them can fail together with others more or less
    than chance has it: each would add a whole independent model, whatever the others are.

    Of fewer than `MIN_EXAMPLES` examples none is left out: any model answers one example the same."""
    if len(panel.labels) < MIN_EXAMPLES:
        return {}
    owner = np.asarray(panel.runs)
    found: dict[int, Why] = {}
    for m in range(len(panel.models)):
        answers = panel.predictions[owner == m]
        if (answers == answers[:, :1]).all():
            found[m] = "constant"
        elif (answers == panel.labels).all():
            found[m] = "perfect"
        elif (answers != panel.labels).all():
            found[m] = "always_wrong"
    return found


@dataclass(frozen=True)
class Means:
    """Means over the examples, for the sample, for draws or for samples without one example: arrays of one shape (...),
    failures (..., M).

    failures: 1 − a_m; squares: of Σ_m e_m, the number of failures; noise: of Σ_m e_m(1 − e_m), the variance between the
    runs of a model, 0 with one run each; together: of ∏_m e_m, S.
    """

    failures: np.ndarray
    squares: np.ndarray
    noise: np.ndarray
    together: np.ndarray

    @staticmethod
    def rows(shares: np.ndarray) -> np.ndarray:
        """What is averaged, (M + 3, N), from e (M, N)."""
        counts, noise = shares.sum(axis=0), (shares * (1 - shares)).sum(axis=0)
        return np.concatenate([shares, np.stack([counts**2, noise, shares.prod(axis=0)])])

    @classmethod
    def of(cls, averaged: np.ndarray) -> Means:
        """From the means of the `rows`, (..., M + 3)."""
        return cls(averaged[..., :-3], averaged[..., -3], averaged[..., -2], averaged[..., -1])


def effective_number(means: Means) -> np.ndarray:
    """M V/(V + C), V = Σ_m a_m(1 − a_m), C = Σ_{m≠k} cov(e_m, e_k): the design effect (Kish 1965) for votes. Returns
    (...) float64, above 0; NaN where the failures have no variance or avoid each other perfectly.

    The mean of M votes varies as much from example to example as that of so many independent models whose failures
    have the same mean variance. M for failures that are uncorrelated, 1 for M copies with one run each (more for copies
    with several, of which different ones are drawn), M/(1 + (M − 1)r) at equal variances and correlations r, and above
    M where failures avoid each other. V + C is the variance of the number of failures with one run a model drawn at
    random: Var(Σ_m e_m) + mean Σ_m e_m(1 − e_m).

    The n_eff of "Nine judges, two effective votes" (Kohli 2026, arXiv 2605.29800) is the same design effect. r is a
    pairwise measure of diversity of Kuncheva & Whitaker (2003). The ambiguity of Krogh & Vedelsby (1995), by which the
    mean of the votes is better than its members, is (V − (V + C)/M)/M plus the variance of the accuracies."""
    single = (means.failures * (1 - means.failures)).sum(axis=-1)
    whole = means.squares - means.failures.sum(axis=-1) ** 2 + means.noise
    return _design_effect(means.failures.shape[-1], single, whole)


def _design_effect(models: int, single: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """M V/(V + C) from V and V + C, (...); NaN where V + C is 0 but for rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        number: np.ndarray = np.where(whole > _EVEN * single, models * single / whole, np.nan)
    return number


def lost_rows(shares: np.ndarray) -> np.ndarray:
    """What `votes_lost` takes the means of, (3M + 2, N), from e (M, N)."""
    counts, noise = shares.sum(axis=0), shares * (1 - shares)
    return np.concatenate([shares, counts * shares, shares**2, np.stack([counts**2, noise.sum(axis=0)])])


def votes_lost(averaged: np.ndarray) -> np.ndarray:
    """What `effective_number` loses when each model leaves, (..., M), from the means of `lost_rows`, (..., 3M + 2).
    M ≥ 2; a single model left counts as 1."""
    models = (averaged.shape[-1] - 2) // 3
    failures, crossed, own = (averaged[..., k * models : (k + 1) * models] for k in range(3))
    squares, noise = averaged[..., -2, None], averaged[..., -1, None]
    single, total = failures * (1 - failures), failures.sum(axis=-1, keepdims=True)
    every = single.sum(axis=-1, keepdims=True)
    fewer = squares - 2 * crossed + own - (total - failures) ** 2 + noise - (failures - own)
    whole = _design_effect(models, every, squares - total**2 + noise)
    lost: np.ndarray = whole - _design_effect(models - 1, every - single, fewer)
    return lost


def against_joint_failure(means: Means, together: np.ndarray | None = None) -> np.ndarray:
    """1 + (M − 1)(ln S_max − ln S)/(ln S_max − ln S_ind): how many independent models fail together as rarely. Returns
    (...) float64; NaN where S is 0 or S_max = S_ind.

    S = mean ∏_m e_m; S_ind = ∏(1 − a_m), that of independent models; S_max = min(1 − a_m), that of a set of which
    the best covers all that the others do. 1 at S_max, M at S_ind, above M below it; at equal accuracies it is
    ln S/ln(1 − a). together: S, where it is another than that of the means, e.g. an end of its interval."""
    shared = means.together if together is None else together
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(means.failures)
        most, gap = logs.min(axis=-1), logs.min(axis=-1) - logs.sum(axis=-1)
        beyond = (most - np.log(shared)) / gap
    number: np.ndarray = 1 + (means.failures.shape[-1] - 1) * np.where(np.isfinite(beyond) & (gap > 0), beyond, np.nan)
    return number


def without_each(rows: np.ndarray, of: Callable[[Means], np.ndarray]) -> np.ndarray:
    """A function of the means of all examples but one, for each in turn: (N,) from the `Means.rows` (M + 3, N)."""
    examples, total = rows.shape[1], rows.sum(axis=1, keepdims=True)
    step = max(1, _ELEMENTS // len(rows))
    parts = [of(Means.of(((total - rows[:, i : i + step]) / (examples - 1)).T)) for i in range(0, examples, step)]
    return np.concatenate(parts)


_latest: list[tuple[weakref.ref[Any], Bootstrap, Headline]] = []


def headline(panel: Panel, plan: Bootstrap) -> Headline:
    """Both numbers of the panel, each with its interval, its bound, or a reason. The last result is kept, because the
    measures and the report ask for the same."""
    if _latest and _latest[0][0]() is panel and _latest[0][1] == plan:
        return _latest[0][2]
    made = _headline(panel, plan)
    _latest[:] = [(weakref.ref(panel), plan, made)]
    return made


def _headline(panel: Panel, plan: Bootstrap) -> Headline:
    gone, examples = left_out(panel), len(panel.labels)
    kept = tuple(m for m in range(len(panel.models)) if m not in gone)
    if examples < MIN_EXAMPLES or len(kept) < 2:
        reason = too_few(examples) if examples < MIN_EXAMPLES else TOO_FEW_LEFT if gone else ONE_MODEL
        nothing = Estimate(None, None, None, examples, reason)
        return Headline(kept, gone, nothing, nothing, 0.0, True)
    rows = Means.rows(failure_shares(panel)[list(kept)])
    found = _Found(Means.of(rows.mean(axis=1)), rows, examples, plan)
    together = float(found.point.together * examples)
    return Headline(kept, gone, _votes(found), _joint(found), together, bool(few_failures(found.point, examples)))


@dataclass(frozen=True)
class _Found:
    """What both numbers are made of: the means of the sample, and what they are means of."""

    point: Means
    rows: np.ndarray
    examples: int
    plan: Bootstrap

    def interval(self, of: Callable[[Means], np.ndarray], logs: float, back: Callable[[float], float]) -> Estimate:
        """With its interval, or with the reason for having none. of: the number on the scale on which the interval is
        made; logs: see `jackknife_interval`; back: from that scale to the number."""
        value = float(of(self.point))
        if few := few_failures(self.point, self.examples):
            return Estimate(back(value), None, None, self.examples, few)
        if not self.plan.draws:
            return Estimate(back(value), None, None, self.examples)
        without = without_each(self.rows, of)
        if not np.isfinite(without).all():
            return Estimate(back(value), None, None, self.examples, NOT_WITHOUT)
        low, high = jackknife_interval(value, without, logs, self.plan.confidence)
        if np.isnan(low):
            return Estimate(back(value), None, None, self.examples, UNSEEN)
        if not low <= value <= high:  # corrections larger than what they correct
            return Estimate(back(value), None, None, self.examples, FEW_SHARED)
        return Estimate(back(value), back(low), back(high), self.examples)


def few_failures(point: Means, examples: int) -> str:
    """Why the models that count fail too few examples for an interval, or answer too few of them right; empty where
    both are enough."""
    models, failures = point.failures.shape[-1], point.failures.sum()
    # Σ_{m≠k} mean e_m e_k, and the same of right answers 1 − e.
    both_fail = point.squares - failures + point.noise
    both_right = models * (models - 1) - 2 * (models - 1) * failures + both_fail
    return _few(point.failures, both_fail, examples, (FEW, FEW_OF_SOME, FEW_SHARED)) or _few(
        1 - point.failures, both_right, examples, (FEW_RIGHT, FEW_RIGHT_OF_SOME, FEW_RIGHT_SHARED)
    )


def _few(share: np.ndarray, both: np.ndarray, examples: int, reasons: tuple[str, str, str]) -> str:
    """share: (M,) of the examples; both: of every ordered pair of models, summed."""
    expected = share.sum() ** 2 - (share**2).sum()
    if share.mean() * examples < FEW_FAILURES - ROUNDING:
        return reasons[0]
    if share.min() * examples < FEW_OF_ONE - ROUNDING:
        return reasons[1]
    return reasons[2] if max(both, expected) / 2 * examples < FEW_SHARED_BY_PAIRS - ROUNDING else ""


def _votes(found: _Found) -> Estimate:
    if np.isnan(effective_number(found.point)):
        return Estimate(None, None, None, found.examples, AVOIDING)
    return found.interval(lambda means: np.log(effective_number(means)), 1.0, math.exp)


def _joint(found: _Found) -> Estimate:
    """The rule of few joint failures stands here and nowhere else."""
    point, examples = found.point, found.examples
    if point.together * examples >= FEW_JOINT_FAILURES:
        # 1 + (M − 1)(ln S_max − ln S)/(ln S_max − ln S_ind) falls by this much a unit of ln S.
        logs = np.log(point.failures)
        slope = (len(logs) - 1) / float(logs.min() - logs.sum())
        return found.interval(against_joint_failure, slope, float)
    known = float(against_joint_failure(point)) if point.together > 0 else None
    bound = against_joint_failure(point, joint_failure_end(point, examples, found.plan.confidence))
    reason = NEVER_TOGETHER if known is None else RARELY_TOGETHER
    # S never exceeds S_max in truth, so the bound may be held at 1; the value, which is an estimate, may not.
    return Estimate(known, max(float(bound), 1.0), None, examples, reason, "at_least")


def joint_failure_end(point: Means, examples: int, confidence: float) -> np.ndarray:
    """The upper end of S: Clopper & Pearson's (1934), for n·S failures of n, which need not be whole."""
    from scipy.special import betaincinv

    count = point.together * examples
    left = np.maximum(examples - count, 1e-9)
    upper: np.ndarray = betaincinv(count + 1, left, (1 + confidence) / 2)
    return upper


def effective_models(panel: Panel, plan: Bootstrap) -> Scalar:
    """As how many independent models these count in a vote; see `effective_number`. Undefined for fewer than two models
    that are neither constant nor always right nor always wrong.

    An exact copy lowers it a little, because it doubles one voice. Interval: over examples, the runs taken as they are,
    on the scale of the logarithm (`zoo.homogeneity.bootstrap.jackknife_interval`); there is none with few failures or
    few right answers (`few_failures`)."""
    return _scalar(headline(panel, plan).effective_models)


def effective_against_joint_failure(panel: Panel, plan: Bootstrap) -> Scalar:
    """How many independent models fail together as rarely as these; see `against_joint_failure`.

    Interval as that of `effective_models`. With fewer than `FEW_JOINT_FAILURES` joint failures there is none; the part
    `at_least` is then the bound, from the upper Clopper-Pearson end of S."""
    found = headline(panel, plan).joint_failure
    if found.bound is None:
        return _scalar(found)
    bound = Scalar(found.low, None, None, found.n)
    return Scalar(found.value, None, None, found.n, found.reason, {"at_least": bound})


def _scalar(found: Estimate) -> Scalar:
    return Scalar(found.value, found.low, found.high, found.n, found.reason)
