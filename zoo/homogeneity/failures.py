"""What a set of models fails together: outcomes of the set beside those of independent models of the same accuracies.

Where models have replicas, every number is the mean over all ways to choose one run a model. For failures that mean is
exact: the product over models of each model's share of failing replicas. Votes are counted over the sets that take the
t-th replica of every model.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.homogeneity.behaviour import behaviour
from zoo.homogeneity.bootstrap import (
    FEW_EVENTS,
    Bootstrap,
    drawn_means,
    interval,
    mean_interval,
    scalar,
    share_scalar,
    signed_interval,
    signed_scalar,
    too_few,
    undefined,
    unseen_reasons,
    wide,
)  # fmt: skip
from zoo.homogeneity.capacity import capacity
from zoo.homogeneity.headline import AVOIDING, LEFT_OUT, TOO_FEW_LEFT, failure_shares, left_out, lost_rows, votes_lost
from zoo.homogeneity.leaderboard import best_model
from zoo.homogeneity.results import MIN_EXAMPLES, NO_PROBABILITIES, ONE_MODEL, UNDEFINED, PerModel, Scalar, sampled
from zoo.homogeneity.selection import highest_mean

if TYPE_CHECKING:
    from zoo.store.panel import Panel

OfSet = Callable[["Panel", Bootstrap], Scalar]
"""A measure of the set as a function."""

FEW_DIFFER = f"the vote and the best model differ on fewer than {FEW_EVENTS} examples: too few for an interval"
"""Why the gain of a vote has no interval."""

_CAPACITY_WORK = 1.5e7  # examples × models × max(models, classes) × replicas up to which all examples are taken


def _by_model(values: np.ndarray, panel: Panel) -> np.ndarray:
    """(R, ...) -> (M, ...), means over replicas."""
    owner = np.asarray(panel.runs)
    return np.stack([values[owner == m].mean(axis=0) for m in range(len(panel.models))])


def poisson_binomial(shares: np.ndarray) -> np.ndarray:
    """Distribution of the number of successes of independent trials. shares: (M, ...) success probabilities.
    Returns (M + 1, ...) float64, summing to 1 along the first axis."""
    models = len(shares)
    chances = np.zeros((models + 1, *shares.shape[1:]))
    chances[0] = 1
    for m, share in enumerate(shares):
        chances[1 : m + 2] = chances[1 : m + 2] * (1 - share) + chances[: m + 1] * share
        chances[0] *= 1 - share
    return chances


@dataclass(frozen=True)
class FailureCounts:
    """How many examples are failed by 0 … M models at once.

    observed, low, high: (M + 1,) float64 shares of the examples; expected: the same for independent models of these
    accuracies (Poisson-binomial), expected_low and expected_high under the draws; n examples. NaN intervals without
    draws."""

    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    expected: np.ndarray
    expected_low: np.ndarray
    expected_high: np.ndarray
    n: int


def failure_counts(panel: Panel, plan: Bootstrap) -> FailureCounts:
    """The whole distribution of failures per example against that of independent models."""
    shares = failure_shares(panel)
    every = poisson_binomial(shares)
    low, high = mean_interval(every, plan)
    below, above = interval(poisson_binomial(drawn_means(shares, plan).T).T, plan.confidence)
    expected = poisson_binomial(shares.mean(axis=1))
    return FailureCounts(every.mean(axis=1), low, high, expected, below, above, shares.shape[1])


@dataclass(frozen=True)
class _Drawn:
    """A quantity made of means over examples: its value and its draws (D,)."""

    value: float
    draws: np.ndarray

    def scalar(self, examples: int, plan: Bootstrap, reason: str = UNDEFINED) -> Scalar:
        return scalar(self.value, self.draws, examples, plan, reason)

    def share(self, examples: int, plan: Bootstrap) -> Scalar:
        """Of a mean of numbers in [0, 1]."""
        return share_scalar(self.value, self.draws, examples, plan, "")

    def signed(self, examples: int, plan: Bootstrap) -> Scalar:
        """Of a mean of numbers in [−1, 1]."""
        return signed_scalar(self.value, self.draws, examples, plan, "")


def _of_means(values: np.ndarray, plan: Bootstrap, functions: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> (
    dict[str, _Drawn]
):  # fmt: skip
    """Functions of the means over examples. values: (K, N); each function takes (K, ...) and returns (...)."""
    point, draws = values.mean(axis=1), drawn_means(values, plan).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: _Drawn(float(of(point)), of(draws)) for name, of in functions.items()}


def systemic_failure(panel: Panel, plan: Bootstrap) -> Scalar:
    """S, the share of examples that every model fails (Bommasani et al. 2022, Toups et al. 2023), in [0, 1].

    parts: `expected`, ∏(1 − a), that of independent models of these accuracies; `log_ratio`, ln(S/expected), above 0
    when failures are shared; undefined when either is 0."""
    examples = len(panel.labels)
    if examples < MIN_EXAMPLES:
        return undefined(examples, too_few(examples))
    shares = failure_shares(panel)
    rows = np.concatenate([shares.prod(axis=0, keepdims=True), shares])
    found = _of_means(rows, plan, {"expected": lambda m: m[1:].prod(axis=0), "log_ratio": _log_ratio})
    value = float(rows[0].mean())
    why = "no example is failed by every model" if value == 0 else "a model is never wrong"
    parts = {
        "expected": found["expected"].share(examples, plan),
        "log_ratio": found["log_ratio"].scalar(examples, plan, why),
    }
    low, high = (None if np.isnan(end) else float(end) for end in mean_interval(rows[0], plan))
    return Scalar(value, low, high, examples, wide(value, examples) if plan.draws else "", parts)


def _log_ratio(means: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.log(means[0] / means[1:].prod(axis=0))
    return ratio


def _joined(whole: Scalar, parts: Mapping[str, Scalar], note: str = "") -> Scalar:
    reason = "; ".join(text for text in (whole.reason, note) if text)
    return Scalar(whole.value, whole.low, whole.high, whole.n, reason, parts)


def _answer_shares(panel: Panel) -> np.ndarray:
    """Share of a model's replicas that give each answer, (M, N, C) float64."""
    return _by_model(panel.predictions[:, :, None] == np.arange(len(panel.classes)), panel)


def ambiguity(panel: Panel, plan: Bootstrap) -> Scalar:
    """Share of examples on which some model differs from the most accurate one (Marx et al. 2020), in [0, 1]."""
    examples = len(panel.labels)
    if (gap := _too_small(panel)) is not None:
        return gap
    shares = _answer_shares(panel)
    alike = shares.prod(axis=0).sum(axis=1)
    draws = drawn_means(1 - alike[None], plan)[:, 0]
    return share_scalar(float(1 - alike.mean()), draws, examples, plan, "")


def discrepancy(panel: Panel, plan: Bootstrap) -> Scalar:
    """Largest share of examples on which one model differs from the most accurate one (Marx et al. 2020), in [0, 1].
    The largest is sought anew in every draw."""
    examples = len(panel.labels)
    if (gap := _too_small(panel)) is not None:
        return gap
    shares, best = _answer_shares(panel), best_model(panel)
    others = [m for m in range(len(shares)) if m != best]
    apart = 1 - np.einsum("mnc,nc->mn", shares[others], shares[best])
    draws = drawn_means(apart, plan).max(axis=1)
    return share_scalar(float(apart.mean(axis=1).max()), draws, examples, plan, "")


def _too_small(panel: Panel) -> Scalar | None:
    examples, models = len(panel.labels), len(panel.models)
    if examples < MIN_EXAMPLES:
        return undefined(examples, too_few(examples))
    if models < 2:
        return undefined(examples, ONE_MODEL)
    return None


def oracle_gap(panel: Panel, plan: Bootstrap) -> Scalar:
    """How much choosing the right model for each example would gain: mean[some model is right] − best accuracy.

    parts: `independent`, the same for independent models of these accuracies; `excess`, the gap minus that."""
    examples = len(panel.labels)
    if (gap := _too_small(panel)) is not None:
        return gap
    shares = failure_shares(panel)
    rows = np.concatenate([shares.prod(axis=0, keepdims=True), shares])
    found = _of_means(rows, plan, {
        "value": lambda m: m[1:].min(axis=0) - m[0],
        "independent": lambda m: m[1:].min(axis=0) - m[1:].prod(axis=0),
        "excess": lambda m: m[1:].prod(axis=0) - m[0],
    })  # fmt: skip
    parts = {
        "independent": found["independent"].share(examples, plan),
        "excess": found["excess"].signed(examples, plan),
    }
    return _joined(found["value"].share(examples, plan), parts)


def vote_credit(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Chance that a majority vote is right, ties broken by lot. answers: (M, N) int64 classes, or (M, N, C) votes;
    labels: (N,). Returns (N,) float64: 0, 1, or 1/(number of tied classes)."""
    counts = answers.sum(axis=0) if answers.ndim == 3 else _counted(answers, int(max(answers.max(), labels.max())) + 1)
    return _credit(counts, labels)


def _counted(answers: np.ndarray, classes: int) -> np.ndarray:
    """(M, N) -> (N, C) votes."""
    examples = answers.shape[1]
    places = answers + np.arange(examples) * classes
    return np.bincount(places.reshape(-1), minlength=examples * classes).reshape(examples, classes).astype(np.float64)


def _credit(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(..., N, C) votes, (N,) labels -> (..., N)."""
    top = counts.max(axis=-1, keepdims=True)
    leading = counts == top
    mine = np.take_along_axis(leading, np.broadcast_to(labels[:, None], (*counts.shape[:-1], 1)), axis=-1)[..., 0]
    credit: np.ndarray = mine / leading.sum(axis=-1)
    return credit


def sets_of_runs(panel: Panel) -> list[np.ndarray]:
    """Sets of one run a model, (M,) run indices each: the t-th replica of every model, those with fewer going round."""
    owner = np.asarray(panel.runs)
    runs = [np.flatnonzero(owner == m) for m in range(len(panel.models))]
    return [np.array([of[t % len(of)] for of in runs]) for t in range(max(map(len, runs)))]


@functools.lru_cache(maxsize=256)
def vote_wins(models: int, classes: int) -> np.ndarray:
    """Chance that the right answer wins a vote, given k right votes of M, when wrong ones are uniform over the other
    classes and ties are broken by lot. Returns (M + 1,) float64 for k = 0 … M.

    Wrong votes a class are Poisson given their sum; with j classes level with k and none above, the share is
    1/(j + 1). Polynomials in place of enumeration."""
    wins = np.zeros(models + 1)
    wins[models] = 1
    others = classes - 1
    for right in range(1, models):
        wrong = models - right
        mean = wrong / others
        term = _poisson(mean, min(right, wrong + 1))
        level = _poisson(mean, right + 1)[right]
        whole = _poisson(float(wrong), wrong + 1)[wrong]
        for tied in range(min(others, wrong // right) + 1):
            rest = wrong - tied * right
            below = _power(term, others - tied, rest)
            wins[right] += _choose(others, tied) * level**tied * below / whole / (tied + 1)
    wins.flags.writeable = False  # kept for the next call
    return wins


def _poisson(mean: float, terms: int) -> np.ndarray:
    from scipy.stats import poisson

    chances: np.ndarray = poisson.pmf(np.arange(terms), mean)
    return chances


def _choose(n: int, k: int) -> float:
    from scipy.special import comb

    return float(comb(n, k))


def _power(term: np.ndarray, power: int, degree: int) -> float:
    """The coefficient of x^degree in term(x)^power, by repeated squaring."""
    product, square = np.ones(1), term[: degree + 1]
    while power:
        if power & 1:
            product = np.convolve(product, square)[: degree + 1]
        square, power = np.convolve(square, square)[: degree + 1], power >> 1
    return float(product[degree]) if degree < len(product) else 0.0


def vote_gain(panel: Panel, plan: Bootstrap) -> Scalar:
    """Accuracy of the majority vote − best accuracy; ties broken by lot. The upper end of the interval allows for the
    choice of the best model among all (`zoo.homogeneity.selection`).

    parts: `vote`, the accuracy of the vote; `independent`, the gain of independent models of these accuracies whose
    wrong answers are uniform over the other classes."""
    examples = len(panel.labels)
    if (gap := _too_small(panel)) is not None:
        return gap
    shares = failure_shares(panel)
    credit = np.mean([vote_credit(panel.predictions[chosen], panel.labels) for chosen in sets_of_runs(panel)], axis=0)
    wins = vote_wins(len(shares), len(panel.classes))
    found = _of_means(np.concatenate([credit[None], shares]), plan, {
        "vote": lambda m: m[0],
        "independent": lambda m: np.tensordot(wins, poisson_binomial(1 - m[1:]), axes=1) + m[1:].min(axis=0) - 1,
    })  # fmt: skip
    parts = {
        "vote": found["vote"].share(examples, plan),
        "independent": found["independent"].signed(examples, plan),
    }
    ahead, best = 1 - shares - credit, best_model(panel)
    low, high = (None if math.isnan(end) else -end for end in highest_mean(ahead, best, plan)[::-1])
    reason = FEW_DIFFER if low is None and plan.draws else ""
    return Scalar(-float(ahead[best].mean()), low, high, examples, reason, parts)


def marginal_diversity(panel: Panel, plan: Bootstrap) -> PerModel:
    """What the set's oracle accuracy loses when a model leaves, in [0, 1].

    parts: `vote`, what the accuracy of the majority vote loses; `effective`, what the effective number of models loses,
    undefined for those that do not count in it. Below 0: the set is better off without the model."""
    models, examples = len(panel.models), len(panel.labels)
    if (gap := _too_small(panel)) is not None:
        return _blank(models, examples, gap.reason)
    shares = failure_shares(panel)
    votes = np.mean([_vote_losses(panel, chosen) for chosen in sets_of_runs(panel)], axis=0)
    n = np.full(models, examples, dtype=np.int64)
    lost = PerModel(
        votes.mean(axis=1), *signed_interval(votes.mean(axis=1), drawn_means(votes, plan), examples, plan), n
    )
    parts = {"vote": lost, "effective": _effective_losses(panel, shares, plan)}
    alone = _others(shares) * (1 - shares)
    return PerModel(alone.mean(axis=1), *mean_interval(alone, plan), n, parts=parts)


def _others(shares: np.ndarray) -> np.ndarray:
    """(M, N) -> (M, N): the product over all other models. From both ends, since dividing by 0 would not do."""
    before = np.cumprod(np.concatenate([np.ones_like(shares[:1]), shares[:-1]]), axis=0)
    after = np.cumprod(np.concatenate([np.ones_like(shares[:1]), shares[:0:-1]]), axis=0)[::-1]
    product: np.ndarray = before * after
    return product


def _vote_losses(panel: Panel, chosen: np.ndarray) -> np.ndarray:
    """(M, N): the vote's chance of being right with all models, minus that without each."""
    answers, labels = panel.predictions[chosen], panel.labels
    counts = _counted(answers, len(panel.classes))
    whole, rows = _credit(counts, labels), np.arange(len(labels))
    losses = np.empty(answers.shape)
    for m, said in enumerate(answers):
        counts[rows, said] -= 1
        losses[m] = whole - _credit(counts, labels)
        counts[rows, said] += 1
    return losses


def _blank(models: int, examples: int, reason: str) -> PerModel:
    blank = np.full(models, np.nan)
    return PerModel(
        blank, blank, blank, np.full(models, examples, dtype=np.int64), dict.fromkeys(range(models), reason)
    )


def _effective_losses(panel: Panel, shares: np.ndarray, plan: Bootstrap) -> PerModel:
    models, examples = len(panel.models), len(panel.labels)
    gone = left_out(panel)
    kept = np.array([m for m in range(models) if m not in gone], dtype=np.int64)
    if len(kept) < 2:
        return _blank(models, examples, TOO_FEW_LEFT)
    rows = lost_rows(shares[kept])
    value, low, high = np.full((3, models), np.nan)
    value[kept] = votes_lost(rows.mean(axis=1))
    low[kept], high[kept] = interval(votes_lost(drawn_means(rows, plan)), plan.confidence)
    told = unseen_reasons(value, low, plan, np.ones(models, dtype=bool))
    told |= {m: LEFT_OUT[why] for m, why in gone.items()}
    told |= {int(m): AVOIDING for m in kept if np.isnan(value[m])}
    return PerModel(value, low, high, np.full(models, examples, dtype=np.int64), told)


def rashomon_capacity(panel: Panel, plan: Bootstrap) -> Scalar:
    """mean 2^capacity of the M answers to an example: how many different answers the set gives, in [1, C] (Hsu &
    Calmon 2022). Takes probabilities; a large panel is sampled, and then says so."""
    examples = len(panel.labels)
    if (gap := _too_small(panel)) is not None:
        return gap
    if panel.probabilities is None:
        return undefined(examples, NO_PROBABILITIES)
    sets = sets_of_runs(panel)
    models = len(panel.models)
    most = int(_CAPACITY_WORK / (models * max(models, len(panel.classes)) * len(sets)))
    taken = np.arange(examples)
    if examples > max(most, MIN_EXAMPLES):
        taken = np.sort(np.random.default_rng((plan.seed, 3)).choice(examples, max(most, MIN_EXAMPLES), replace=False))
    answers = np.zeros(len(taken))
    for chosen in sets:
        given = panel.probabilities[np.ix_(chosen, taken)].transpose(1, 0, 2).astype(np.float64)
        answers += 2 ** capacity(given / given.sum(axis=2, keepdims=True), plan.device) / len(sets)
    draws = drawn_means(answers[None], plan)[:, 0]
    note = sampled(len(taken), examples) if len(taken) < examples else ""
    return _joined(scalar(float(answers.mean()), draws, len(taken), plan, ""), {}, note)


def fleiss_kappa(panel: Panel, plan: Bootstrap) -> Scalar:
    """Fleiss' κ (1971) of the predicted labels of all models, at most 1; undefined when all say one class only.

    Mean agreement of pairs of models against Σ_k q_k², q the shares of the classes over all models. Not adjusted for
    accuracy."""
    examples = len(panel.labels)
    if (gap := _too_small(panel)) is not None:
        return gap
    found, models = behaviour(panel, plan), len(panel.models)
    first, second = np.triu_indices(models)
    between = first != second
    value = _fleiss(found.value["agreement"][first[between], second[between]].mean(), found.said_value)
    draws = _fleiss(found.draws["agreement"][:, between].astype(np.float64).mean(axis=1), found.said)
    return scalar(float(value), draws, examples, plan, "all models only ever answer one and the same class")


def _fleiss(agreement: np.ndarray, said: np.ndarray) -> np.ndarray:
    """(...,) agreement and (..., M, C) shares -> (...,)."""
    expected = (said.mean(axis=-2) ** 2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa: np.ndarray = np.where(expected < 1 - 1e-12, (agreement - expected) / (1 - expected), np.nan)
    return kappa


OF_SET: Mapping[str, OfSet] = {
    "fleiss_kappa": fleiss_kappa,
    "systemic_failure": systemic_failure,
    "ambiguity": ambiguity,
    "discrepancy": discrepancy,
    "rashomon_capacity": rashomon_capacity,
    "oracle_gap": oracle_gap,
    "vote_gain": vote_gain,
}
"""The measures of the set in this module, by name."""
