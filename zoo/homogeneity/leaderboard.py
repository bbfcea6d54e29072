"""Who is ahead, and who cannot be told apart: accuracies with intervals over examples and seeds, paired tests, ties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo import shares
from zoo.homogeneity.kinship import adjusted_pairs
from zoo.homogeneity.results import MIN_EXAMPLES

if TYPE_CHECKING:
    from zoo.store.panel import Panel

MOST_LETTERED = 100

LEVEL = 0.05
"""Of the tests whether two models are equally accurate, after correction over all pairs."""


@dataclass(frozen=True)
class Leaderboard:
    """order: (M,) model indices, best first. accuracy, low, high: (M,) float64 by model index, in [0, 1]; n examples,
    replicas (M,). difference: (M, M) accuracy of row minus column; p, adjusted: (M, M) two-sided paired p-values that
    the two are equally accurate, plain and Benjamini-Yekutieli over all pairs, NaN where untestable.
    rank: (M,) 1 + the number of models that are significantly better. groups: (M,) letters: two models can be told
    apart exactly when they share none; empty for more than 100 models, whose groups would be countless.
    note: what could not be done, and why.
    """

    order: tuple[int, ...]
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int
    replicas: np.ndarray
    difference: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    rank: np.ndarray
    groups: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Accuracies:
    """What the tests rest on. mean: (M,); per_example: (M, N) mean correctness over replicas; seeds: (M,) variance of
    the mean that comes from the choice of seeds alone; replicas: (M,)."""

    mean: np.ndarray
    per_example: np.ndarray
    seeds: np.ndarray
    replicas: np.ndarray

    @classmethod
    def of(cls, panel: Panel) -> Accuracies:
        """From a panel."""
        correct = (panel.predictions == panel.labels).astype(np.float64)
        owner, models = np.asarray(panel.runs), len(panel.models)
        replicas = np.bincount(owner, minlength=models)
        per_example = np.stack([correct[owner == m].mean(axis=0) for m in range(models)])
        seeds = np.array([_seed_variance(correct[owner == m]) for m in range(models)])
        # Of the answers, a whole number over a whole number: equal accuracies are then equal to the last bit.
        mean = np.array([correct[owner == m].mean() for m in range(models)])
        return cls(mean, per_example, seeds, replicas)

    @property
    def order(self) -> tuple[int, ...]:
        """The models, the most accurate first; of equals the first."""
        return tuple(int(m) for m in np.argsort(-self.mean, kind="stable"))


def best_model(panel: Panel) -> int:
    """The most accurate model, the first of equals."""
    return Accuracies.of(panel).order[0]


def _seed_variance(correct: np.ndarray) -> float:
    """Variance of the mean accuracy of S replicas that comes from their seeds. correct: (S, N).

    The accuracies of replicas differ also because of the noise of single answers, which the examples' variance holds
    already; what is beyond that is the seeds'."""
    replicas, examples = correct.shape
    if replicas < 2 or examples < 2:
        return 0.0
    between = correct.mean(axis=1).var(ddof=1)
    residual = correct - correct.mean(axis=0) - correct.mean(axis=1, keepdims=True) + correct.mean()
    noise = (residual**2).sum() / ((replicas - 1) * (examples - 1)) / examples
    return max(0.0, float(between - noise)) / float(replicas)


def leaderboard(panel: Panel, level: float = LEVEL, confidence: float = 0.95) -> Leaderboard:
    """The leaderboard of a panel. level: of the tests, after correction over all pairs; confidence: of the intervals.

    Interval: Wilson's score interval (1927), of one run as on the screen after it; with replicas at the effective
    number of examples a(1 − a)/variance, where the variance is that of the examples plus that of the seeds, with t in
    place of the normal for the seeds' (Welch-Satterthwaite). It has a width for a perfect model too (`zoo.shares`)."""
    found = Accuracies.of(panel)
    models, examples = found.per_example.shape
    low, high = _intervals(found, confidence)
    p = paired_p_values(panel, found)
    adjusted = adjusted_pairs(p)
    better = (found.mean[:, None] > found.mean[None, :]) & (adjusted < level)
    order = found.order
    tied = letters(better | better.T, order) if models <= MOST_LETTERED else ("",) * models
    note = "" if examples >= MIN_EXAMPLES else f"{examples} test examples: too few to tell any models apart"
    return Leaderboard(
        order, found.mean, low, high, examples, found.replicas, found.mean[:, None] - found.mean[None, :], p, adjusted,
        1 + better.sum(axis=0), tied, note,
    )  # fmt: skip


def _intervals(found: Accuracies, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy.stats import t

    examples = found.per_example.shape[1]
    sampling = found.per_example.var(axis=1) / examples
    size = shares.effective_size(found.mean, sampling + found.seeds, examples)
    return shares.wilson(found.mean, size, t.ppf((1 + confidence) / 2, freedom(sampling, found.seeds, found.replicas)))


def freedom(sampling: np.ndarray, seeds: np.ndarray, replicas: np.ndarray) -> np.ndarray:
    """Welch-Satterthwaite degrees of freedom of the sum of two variances, of which only the seeds' is an estimate that
    a score interval has to allow for; large where the seeds add nothing, as with one run."""
    parts = seeds**2 / np.maximum(replicas - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom: np.ndarray = np.where(parts > 0, (sampling + seeds) ** 2 / parts, 1e9)
    return freedom


def paired_p_values(panel: Panel, found: Accuracies | None = None) -> np.ndarray:
    """Two-sided p-values that two models are equally accurate, (M, M) symmetric; NaN on the diagonal and with fewer
    than four examples. Models that answer alike have p = 1.

    Models of one run each: McNemar's test on the examples that one alone gets right, exact with mid-p (Fagerland et
    al. 2013). With replicas: the mean difference over its standard error from examples and seeds, against t."""
    found = found or Accuracies.of(panel)
    models, examples = found.per_example.shape
    if examples < MIN_EXAMPLES:
        return np.full((models, models), np.nan)
    products = found.per_example @ found.per_example.T
    single = found.replicas == 1
    p = np.where(single[:, None] & single[None, :], _mcnemar(products), _welch(found, products))
    np.fill_diagonal(p, np.nan)
    return p


def _mcnemar(products: np.ndarray) -> np.ndarray:
    """(M, M) from the numbers of examples both get right, those of one model on the diagonal."""
    from scipy.stats import binom

    right = np.diagonal(products)
    alone = np.rint(right[:, None] - products)
    fewer, discordant = np.minimum(alone, alone.T), alone + alone.T
    p = 2 * binom.cdf(fewer, discordant, 0.5) - binom.pmf(fewer, discordant, 0.5)
    result: np.ndarray = np.where(discordant > 0, np.minimum(p, 1.0), 1.0)
    return result


def _welch(found: Accuracies, products: np.ndarray) -> np.ndarray:
    from scipy.stats import t

    examples = found.per_example.shape[1]
    difference = found.mean[:, None] - found.mean[None, :]
    squares = np.diagonal(products)
    spread = np.maximum(squares[:, None] + squares[None, :] - 2 * products - examples * difference**2, 0)
    sampling = spread / (examples - 1) / examples
    seeds = found.seeds[:, None] + found.seeds[None, :]
    bottom = np.maximum(found.replicas - 1, 1)
    parts = sampling**2 / (examples - 1) + (found.seeds**2 / bottom)[:, None] + (found.seeds**2 / bottom)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(parts > 0, (sampling + seeds) ** 2 / parts, 1e9)
        value = np.abs(difference) / np.sqrt(sampling + seeds)
    # no spread: every example says the same difference, which is no difference or a certain one
    value = np.where(sampling + seeds > 1e-18, value, np.where(np.abs(difference) > 1e-12, np.inf, 0.0))
    p: np.ndarray = np.minimum(2 * t.sf(value, freedom), 1.0)
    return p


def letters(apart: np.ndarray, order: tuple[int, ...]) -> tuple[str, ...]:
    """Compact letters (Piepho 2004): two models share a letter exactly when they cannot be told apart.

    apart: (M, M) bool symmetric; order: model indices, best first: `a` goes to the group of the best."""
    groups = [frozenset(order)]
    for i, j in zip(*np.nonzero(np.triu(apart)), strict=True):
        split = [group - {out} for group in groups for out in (i, j) if {i, j} <= group]
        groups = [group for group in groups if not {i, j} <= group] + split
        groups = [group for group in dict.fromkeys(groups) if not any(group < other for other in groups)]
    place = {model: position for position, model in enumerate(order)}
    groups.sort(key=lambda group: sorted(place[model] for model in group))
    return tuple("".join(_letter(g) for g, group in enumerate(groups) if m in group) for m in range(len(order)))


def _letter(number: int) -> str:
    """a … z, then a1 … z1, a2 …"""
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")
