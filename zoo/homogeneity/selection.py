"""Numbers chosen because they are the highest or the lowest of many, with intervals that allow for the choice.

The best of thirty equal models was lucky, and so was the most alike of 435 pairs: the interval of one number taken at
random holds the truth of the chosen one too rarely. The end on the side from which luck pushed is therefore that of all
candidates together, from the largest of their deviations in each draw of the bootstrap. How many compete is read off
the draws: copies of one model are one candidate, whatever their number. What intervals cover: see reports/coverage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo import shares
from zoo.homogeneity.behaviour import no_intervals, shared
from zoo.homogeneity.bootstrap import FEW_EVENTS, Bootstrap, drawn_means, tensor, tiles, wide
from zoo.homogeneity.leaderboard import Accuracies, freedom
from zoo.homogeneity.results import FEW_SHARED, ROUNDING, Pairs, Scalar

if TYPE_CHECKING:
    from zoo.store.panel import Panel

RIVALS = 50
"""Pairs: the most extreme of 435 whose models have 50 failures each, of which 18 are joint, had intervals that held the
truth in .89 of samples; of 45 in .93."""

CONTENDERS = 500
"""Pairs whose draws are taken. Of more, the most extreme are, and stand for all in proportion."""

FEW_OF_ALL = (
    f"fewer than {FEW_SHARED} examples that both would fail by chance are too few failures for the interval of a pair "
    "chosen among all"
)
FEW_RIGHT_OF_ALL = (
    f"fewer than {FEW_SHARED} examples that both would get right by chance are too few for the interval of a pair "
    "chosen among all"
)
UNBOUNDED = "the replicas of the two may not fail together at all, so there is no interval"
UNBOUNDED_ERRORS = "within noise one of the two may be always right or always wrong, so there is no interval"

_NO_WIDTH = 1e-6  # standard errors below it are rounding of float32


@dataclass(frozen=True)
class Reach:
    """How many standard errors an interval reaches from the highest of several numbers. below: on the side from which
    luck pushed; above: on the other. error: the chance of each end to fail; rivals: candidates in competition."""

    below: float
    above: float
    error: float
    rivals: float


def reach(deviations: np.ndarray, chosen: int, confidence: float, kept: float = 1.0) -> Reach:
    """For the candidate with the highest number. deviations: (D, K) float64, of K candidates in D draws, in standard
    errors; chosen: which was; kept: the share of all candidates that the K are.

    With k candidates in competition each end fails with the chance αk/(k + 1), where 1 − α is the confidence: for one
    candidate the usual α/2; of many the upper end fails next to never, because the highest was lucky."""
    alpha = 1 - confidence
    highest = deviations.max(axis=1)
    alone = float((deviations > np.quantile(highest, 1 - alpha * kept)).mean())
    rivals = float(np.clip(alpha * kept / alone, 1, deviations.shape[1])) / kept if alone > 0 else 1.0
    error = alpha * rivals / (rivals + 1)
    below = float(np.quantile(highest, 1 - error * kept))
    return Reach(below, float(np.quantile(-deviations[:, chosen], 1 - error)), error, rivals)


def best_accuracy(panel: Panel, plan: Bootstrap) -> tuple[int, Scalar]:
    """The most accurate model, the first of equals, and its accuracy.

    Interval: as in the leaderboard, over examples and seeds, but for the lower end, which allows for the choice."""
    from scipy.special import betaincinv
    from scipy.stats import norm, t

    found = Accuracies.of(panel)
    examples, best = found.per_example.shape[1], found.order[0]
    value = float(found.mean[best])
    if not plan.draws:
        return best, Scalar(value, None, None, examples)
    sampling = found.per_example.var(axis=1) / examples
    draws = drawn_means(found.per_example, plan)
    spread = draws.std(axis=0)
    ends = reach((draws - found.mean) / np.where(spread > 0, spread, 1.0), best, plan.confidence)
    size = shares.effective_size(value, sampling[best] + found.seeds[best], examples)
    degrees = freedom(sampling, found.seeds, found.replicas)[best]
    lucky = t.isf(ends.error / ends.rivals, degrees)
    low, _ = shares.wilson(value, size, lucky)
    if not (note := wide(value, examples)):
        # So far out on one side Wilson's is too wide, and Jeffreys's is not (Cai 2005).
        one_sided = betaincinv(size * value + 0.5, size * (1 - value) + 0.5, norm.sf(lucky))
        low = min(shares.wilson(value, size, t.isf((1 - plan.confidence) / 2, degrees))[0], one_sided)
    _, high = shares.wilson(value, size, t.isf(ends.error, degrees))
    return best, Scalar(value, float(low), float(high), examples, note)


def highest_mean(values: np.ndarray, chosen: int, plan: Bootstrap) -> tuple[float, float]:
    """Low and high of the highest of K means over examples of numbers in [−1, 1]. values: (K, N) float64; chosen:
    which is the highest. The ends are those of the studentised bootstrap (`reach`); where the numbers of the chosen one
    are all 0, as far around it as examples may move it of which none was seen. NaN for a plan without draws, and where
    the numbers that are not 0 add up to fewer than `FEW_EVENTS` examples."""
    examples, mine = values.shape[1], values[chosen]
    value, error = float(mine.mean()), float(mine.std()) / math.sqrt(examples)
    if not plan.draws:
        return math.nan, math.nan
    if np.abs(mine).max() <= _NO_WIDTH:
        beyond = shares.unseen(examples, plan.confidence)
        return -beyond, beyond
    if np.abs(mine).sum() < FEW_EVENTS or error <= _NO_WIDTH:
        return math.nan, math.nan
    ends = reach(studentised(values - values.mean(axis=1, keepdims=True), plan), chosen, plan.confidence)
    return max(value - ends.below * error, -1.0), min(value + ends.above * error, 1.0)


def studentised(influence: np.ndarray, plan: Bootstrap) -> np.ndarray:
    """Deviations of means over examples in each draw, in standard errors that are those of the draw itself.

    influence: (K, N) with mean 0. Returns (draws, K) float64, 0 where a draw has no spread."""
    import torch

    examples = influence.shape[1]
    columns = tensor(np.ascontiguousarray(influence.T, dtype=np.float32), plan.device)
    rows = [np.empty((0, len(influence)))]
    for weights in tiles(examples, plan):
        drawn = tensor(weights, plan.device) / examples
        mean = (drawn @ columns).to(torch.float64)
        spread = ((drawn @ columns**2).to(torch.float64) - mean**2).clamp(min=0).sqrt()
        floor = _NO_WIDTH * spread.max().clamp(min=1e-30)
        deviations = torch.where(spread > floor, mean / spread.clamp(min=floor), torch.zeros_like(mean))
        rows.append((deviations * math.sqrt(examples)).cpu().numpy())
    return np.concatenate(rows)


@dataclass(frozen=True)
class ChosenPair:
    """Two models a < b, and their likeness with an interval that allows for the choice among all pairs."""

    a: int
    b: int
    number: Scalar


def extreme_pairs(panel: Panel, found: Pairs, kinship: bool, plan: Bootstrap) -> tuple[ChosenPair, ...]:
    """The most and the least alike of all pairs that are defined: two, or as many as there are pairs.

    found: `kinship` of the panel (kinship=True) or its `error_correlation`. Interval: Fieller's (1954) of the ratio
    that both are, which stays right where the denominator is noisy, at the deviations of all pairs in the draws
    (`reach`). None where `behaviour.no_intervals` says so, and where what is seen tells of luck (`_no_interval`)."""
    first, second = np.triu_indices(len(panel.models), k=1)
    values = found.value[first, second]
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return ()
    order = known[np.argsort(-values[known], kind="stable")]
    pairs = np.stack([first[order], second[order]], axis=1)
    runs = _Runs.of(panel)
    ends = [(pairs[0], 1)] if len(pairs) == 1 else [(pairs[0], 1), (pairs[-1], -1)]
    told = [_no_interval(panel, found, pair, len(pairs), plan) for pair, _ in ends]
    contest = None if all(text is not None for text in told) else _Contest.of(runs, pairs, kinship, plan)
    return tuple(
        _without(found, pair, text)
        if text is not None or contest is None
        else _chosen(contest, found, pair, sign, kinship, plan)
        for (pair, sign), text in zip(ends, told, strict=True)
    )


def _no_interval(panel: Panel, found: Pairs, pair: np.ndarray, rivals: int, plan: Bootstrap) -> str | None:
    """Why the pair has no interval beside what is said of it already; None where it may have one.

    Stricter than for a pair taken at random: the extreme of many was lucky in what is seen, too. Where fewer than
    `FEW_SHARED` joint failures are expected by chance, so many must be seen in the mean pair, and half as many in this
    one; among more than `RIVALS` pairs what is seen does not count."""
    at = (int(pair[0]), int(pair[1]))
    if not plan.draws or found.reasons.get(at, "") == shares.UNSEEN:
        return ""
    if (reason := no_intervals(panel).get(at)) is not None:
        return reason
    upper = np.triu_indices(len(panel.models), k=1)
    for right, why in ((True, FEW_RIGHT_OF_ALL), (False, FEW_OF_ALL)):
        seen, expected = shared(panel, right)
        counts = rivals <= RIVALS and seen[upper].mean() >= FEW_SHARED and seen[at] >= FEW_SHARED / 2
        if expected[at] < FEW_SHARED - ROUNDING and not counts:
            return why
    return None


def _without(found: Pairs, pair: np.ndarray, reason: str | None) -> ChosenPair:
    a, b = int(pair[0]), int(pair[1])
    before = found.reasons.get((a, b), "")
    reasons = before if reason and reason in before else "; ".join(filter(None, [before, reason]))
    return ChosenPair(a, b, Scalar(float(found.value[a, b]), None, None, int(found.n[a, b]), reasons))


@dataclass(frozen=True)
class _Contest:
    """Pairs that compete to be the most or the least alike: the most extreme of those whose models have both kinds of
    answers in every run. pairs: (K, 2), most alike first; share: K over all; top, bottom: (K,) of the ratios, each with
    its influence (K, N); influence: of the ratios; deviations: (draws, K), see `studentised`."""

    pairs: np.ndarray
    share: float
    top: np.ndarray
    top_influence: np.ndarray
    bottom: np.ndarray
    bottom_influence: np.ndarray
    influence: np.ndarray
    deviations: np.ndarray

    @classmethod
    def of(cls, runs: _Runs, pairs: np.ndarray, kinship: bool, plan: Bootstrap) -> _Contest:
        """pairs: (P, 2), most alike first."""
        usable = pairs[runs.usable[pairs].all(axis=1)]
        kept = usable
        if len(usable) > CONTENDERS:
            kept = np.concatenate([usable[: CONTENDERS // 2], usable[-CONTENDERS // 2 :]])
        top, top_influence, bottom, bottom_influence = runs.ratios(kept, kinship)
        influence = (top_influence - (top / bottom)[:, None] * bottom_influence) / bottom[:, None]
        deviations = studentised(influence, plan)
        return cls(kept, len(kept) / len(usable), top, top_influence, bottom, bottom_influence, influence, deviations)


def _chosen(contest: _Contest, found: Pairs, pair: np.ndarray, sign: int, kinship: bool, plan: Bootstrap) -> ChosenPair:
    """sign: 1 where the pair is the most alike, −1 where it is the least; kinship: see `extreme_pairs`."""
    a, b = int(pair[0]), int(pair[1])
    value, n, told = float(found.value[a, b]), int(found.n[a, b]), found.reasons.get((a, b), "")
    place = int(np.flatnonzero((contest.pairs == pair).all(axis=1))[0])
    if contest.influence[place].std() <= _NO_WIDTH:
        return _without(found, pair, shares.UNSEEN)
    ends = reach(sign * contest.deviations, place, plan.confidence, contest.share)
    below, above = (ends.below, ends.above) if sign > 0 else (ends.above, ends.below)
    spread = np.cov(contest.top_influence[place], contest.bottom_influence[place]) / n
    low, high = (
        fieller(float(contest.top[place]), float(contest.bottom[place]), spread, errors) for errors in (-below, above)
    )
    if math.isinf(low) or math.isinf(high):
        return _without(found, pair, UNBOUNDED if kinship else UNBOUNDED_ERRORS)
    return ChosenPair(a, b, Scalar(value, low, high, n, told))


def fieller(top: float, bottom: float, spread: np.ndarray, errors: float) -> float:
    """The ratio θ at which top − θ·bottom is this many standard errors from 0: a lower end for errors < 0.

    spread: (2, 2) covariance of the two. ±inf where the bottom is not this far from 0 (Fieller 1954)."""
    square = errors**2
    quadratic = bottom**2 - square * spread[1, 1]
    if quadratic <= 0:
        return math.copysign(math.inf, errors)
    middle = top * bottom - square * spread[0, 1]
    inside = middle**2 - quadratic * (top**2 - square * spread[0, 0])
    return float((middle + math.copysign(math.sqrt(max(inside, 0.0)), errors)) / quadratic)


@dataclass(frozen=True)
class _Runs:
    """Failures of R runs, standardised. owner: (R,) model; centred: (R, N) float32, wrong less its mean; deviation:
    (R,) float32; usable: (M,) bool, whether every run has both kinds."""

    owner: np.ndarray
    centred: np.ndarray
    deviation: np.ndarray
    usable: np.ndarray

    @classmethod
    def of(cls, panel: Panel) -> _Runs:
        wrong = (panel.predictions != panel.labels).astype(np.float32)
        owner, models = np.asarray(panel.runs), len(panel.models)
        mean = wrong.mean(axis=1, dtype=np.float64)
        deviation = np.sqrt(mean * (1 - mean)).astype(np.float32)
        usable = np.array([bool((deviation[owner == m] > 0).all()) for m in range(models)])
        return cls(owner, wrong - mean[:, None].astype(np.float32), deviation, usable)

    def ratios(self, pairs: np.ndarray, kinship: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Numerator and denominator of each pair's likeness, (K,) float64, each followed by its influence function,
        (K, N) float32: what each example adds to its deviation. pairs: (K, 2).

        Error correlation of single runs: covariance over the product of the deviations. With replicas: mean φ over all
        pairs of runs, over 1 or, for kinship, over the root of the product of the reliabilities."""
        if not kinship and len(self.owner) == len(self.usable):
            return self._single(pairs)
        z = self.centred / np.where(self.deviation > 0, self.deviation, 1)[:, None]
        averaging = (self.owner[None, :] == np.arange(len(self.usable))[:, None]).astype(np.float32)
        averaging /= averaging.sum(axis=1, keepdims=True)
        mean, squares = averaging @ z, z**2
        partial = (z @ mean.T) / z.shape[1]  # (R, M): mean φ of a run with the runs of a model
        a, b = pairs.T
        held = averaging[a] * partial[:, b].T + averaging[b] * partial[:, a].T
        top = (mean @ mean.T / z.shape[1])[a, b].astype(np.float64)
        top_influence = mean[a] * mean[b] - held @ squares / 2
        if not kinship:
            return top, top_influence, np.ones(len(pairs)), np.zeros_like(top_influence)
        own, own_influence = self._reliabilities(mean, squares, averaging, partial)
        bottom = np.sqrt(own[a] * own[b])
        relative = own_influence / np.where(own > 0, own, 1)[:, None].astype(np.float32)
        return top, top_influence, bottom, (relative[a] + relative[b]) * (bottom[:, None] / 2).astype(np.float32)

    def _single(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        a, b = pairs.T
        product = self.centred[a] * self.centred[b]
        top = product.mean(axis=1, dtype=np.float64)
        bottom = (self.deviation[a] * self.deviation[b]).astype(np.float64)
        variance = np.where(self.deviation > 0, self.deviation, 1)[:, None] ** 2
        relative = self.centred**2 / variance - 1
        halved = (bottom / 2)[:, None].astype(np.float32)
        return top, product - top[:, None].astype(np.float32), bottom, (relative[a] + relative[b]) * halved

    def _reliabilities(
        self, mean: np.ndarray, squares: np.ndarray, averaging: np.ndarray, partial: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean φ between each model's runs, (M,), and its influence, (M, N); of models with one run not to be used."""
        replicas = np.bincount(self.owner, minlength=len(self.usable)).astype(np.float32)
        pairs = np.maximum(replicas * (replicas - 1), 1)
        own = (replicas**2 * (mean**2).mean(axis=1) - replicas) / pairs
        others = (replicas[self.owner] * partial[np.arange(len(self.owner)), self.owner] - 1) / np.maximum(
            replicas[self.owner] - 1, 1
        )
        summed = replicas[:, None] * (averaging @ squares)
        influence = (replicas[:, None] ** 2 * mean**2 - summed) / pairs[:, None] - (averaging * others) @ squares
        return own.astype(np.float64), influence
