"""Tests whose p-values need no replicas: under independent initialisation and training every order of units (R1), or of
inputs that no training moved (R2), is as likely, whatever data both saw.

Exact in the sense of permutation tests. R2 draws orders, and its p-value holds whatever their number. R1 counts all
orders up to 14 units; with more its p-value is an approximation, which at 13 to 16 units, where both are known, is at
most 27 % too small anywhere, less with more units; its error rates at .05 and .01 are within a few percent. Where
groups may depend on each other they are combined by Cauchy's rule, which holds in the tail and else is approximate.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.lineage.rows import unit

EXACT_UP_TO = 14
"""Units for which the distribution of Spearman's coefficient is counted out; beyond, see `log_p_approximate`."""

GRID = 2048
"""Steps in which sums of logarithms of counted p-values are kept."""

MOST_COUNTED = 1000.0
"""-log p of a product, beyond which nothing is counted: p is small whatever else is known."""

FEWEST_UNITS = 4
FEWEST_DEAD = 7  # 7! orders are enough for p = .001; fewer coordinates could not reach it
MOST_DRAWS = 99_999  # of R2's null: with ten rejections, enough for the pairs of twenty models
ENOUGH_AS_LARGE = 50  # draws as large as what was observed, after which p is known well enough
MOST_AT_ONCE = 1000  # of these draws, for memory
MOST_DEAD = 400  # dead coordinates that R2 looks at: a part drawn by chance is as exact and far cheaper
MOST_UNITS = 1024  # of a group that R1 looks at: a fixed part of the units is as exact and far cheaper

# Kurtosis of Spearman's coefficient less that of the t approximation, over 24: the tail is heavier by exp(this x⁴/n).
_TAIL = 0.06
_MOST_CORRECTION = 0.35


@dataclass(frozen=True)
class Numbering:
    """R1 of one group. rho: Spearman's coefficient of the matching and the identity; log_p: natural logarithm."""

    group: str
    units: int
    rho: float
    log_p: float


def match(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one matching of rows with the largest sum of cosines (linear assignment). a, b: (units, width) float.

    Returns the row of b for each row of a, (units,) int64, and the cosines of the matched rows, (units,) float64; a
    row of zeros has cosine 0 with everything."""
    return assign(unit(a) @ unit(b).T)


def assign(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`match` of cosines that are known. cosines: (units of a, units of b)."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return np.asarray(columns, dtype=np.int64), cosines[rows, columns].astype(np.float64)


def index_order(name: str, a: np.ndarray, b: np.ndarray, seed: int = 0) -> Numbering:
    """R1: do the units of two groups have the same numbers? a, b: (units, width) float, rows in stored order.

    Under independent initialisation, and training that treats all units alike, the matching is a uniformly random
    permutation (Zhu et al. 2025). Blind when the units of one were renumbered: a large p says nothing then.
    Raises ValueError under 4 units."""
    if len(a) < FEWEST_UNITS:
        raise ValueError(f"{len(a)} units: R1 needs {FEWEST_UNITS}")
    a, b = a[:MOST_UNITS], b[:MOST_UNITS]
    # Rows that tie (dead units are all alike) are given away in the order in which they are shown: a random one.
    shown = np.random.default_rng(seed).permutation(len(a))
    order = np.empty(len(a), dtype=np.int64)
    order[shown] = match(a[shown], b)[0]
    return Numbering(name, len(a), spearman(order), log_p_of_order(order))


def spearman(order: np.ndarray) -> float:
    """Spearman's coefficient of a permutation and the identity, in [-1, 1]. order: (n,) a permutation of 0 … n-1."""
    count = len(order)
    return 1 - 6 * _distance(order) / (count**3 - count)


def _distance(order: np.ndarray) -> int:
    steps = order.astype(np.int64) - np.arange(len(order))
    return int(steps @ steps)


def log_p_of_order(order: np.ndarray) -> float:
    """log P(a random permutation is at least as near to the identity, in Spearman's coefficient). order: (n,), a
    permutation of 0 … n-1. Counted out up to 14 units, `log_p_approximate` beyond."""
    count, distance = len(order), _distance(order)
    return log_p_counted(count, distance) if count <= EXACT_UP_TO else log_p_approximate(count, distance)


def log_p_counted(count: int, distance: int) -> float:
    """log P(sum of squared steps of a random permutation of `count` ≤ distance), from all permutations."""
    return math.log(min(1.0, _distances(count)[: distance + 1].sum() / math.factorial(count)))


def log_p_approximate(count: int, distance: int) -> float:
    """The same without counting: the textbook's t approximation, made larger by the fourth-order term by which its tail
    is too light. Where that term is no longer small, the smaller of its last value and a bound that always holds
    (`log_volume_bound`). At 14 to 16 units p is at most a quarter too small, where t alone is too small by e^8; it is
    nearer with more."""
    from scipy.stats import t

    spread = math.sqrt(count - 1)
    normal = (1 - 6 * distance / (count**3 - count)) * spread
    edge = (_MOST_CORRECTION * count / _TAIL) ** 0.25
    near = min(normal, edge)
    rho = near / spread
    log_p = float(t.logsf(rho * math.sqrt((count - 2) / max(1 - rho**2, 1e-300)), count - 2))
    log_p += _TAIL * near**4 / count if near > 0 else 0.0
    return min(0.0, log_p) if normal <= edge else min(log_p, log_volume_bound(count, distance))


@functools.cache
def _distances(count: int) -> np.ndarray:
    """How many permutations of `count` have each sum of squared steps. Returns (largest sum + 1,) float64."""
    most = (count**3 - count) // 3
    start = np.zeros(most + 1)
    start[0] = 1
    layer = {0: start}
    for row in range(count):
        following: dict[int, np.ndarray] = {}
        for used, counts in layer.items():
            for column in range(count):
                if used >> column & 1:
                    continue
                step = (row - column) ** 2
                moved = following.setdefault(used | 1 << column, np.zeros(most + 1))
                moved[step:] += counts[: most + 1 - step]
        layer = following
    return layer[(1 << count) - 1]


def log_volume_bound(count: int, distance: int) -> float:
    """A bound on log P(sum of squared steps of a random permutation ≤ distance) that holds for every size.

    A permutation is told by its steps, integers whose squares add up to `distance` at most; there are no more such
    vectors than e^{s·distance} (Σ_k e^{-s k²})^count, for every s > 0 (Markov), and count! permutations."""
    from scipy.optimize import minimize_scalar

    squares = np.arange(1, count, dtype=np.float64) ** 2

    def log_vectors(log_s: float) -> float:
        s = math.exp(log_s)
        return s * distance + count * math.log1p(2 * float(np.exp(-s * squares).sum()))

    best = minimize_scalar(log_vectors, bounds=(-2 * math.log(count) - 5, math.log(50)), method="bounded")
    return min(0.0, float(best.fun) - math.lgamma(count + 1))


def fisher(log_ps: Sequence[float], units: Sequence[int]) -> float:
    """log p of several independent groups together (Fisher): the chance that the product of their p-values is as small.
    log_ps: of each group; units: in it. Of few units p takes few values, and its logarithm is no exponential: its true
    distribution is counted in, so that the result is exact and not merely safe. Raises ValueError without a group."""
    if not log_ps:
        raise ValueError("no p-values")
    half = -math.fsum(log_ps)
    if half <= 0:
        return 0.0
    counted = [count for count in units if count <= EXACT_UP_TO] if half < MOST_COUNTED else []
    sums, log_chances = _sums_of_counted(counted, half)
    others = len(log_ps) - len(counted)
    # Rounding may leave the sum that was observed a little above one that is the same.
    tails = _log_gamma_tail(others, half - sums - 1e-9 * half)
    return min(0.0, float(np.logaddexp.reduce(log_chances + tails)))


def _log_gamma_tail(terms: int, values: np.ndarray) -> np.ndarray:
    """log P(a sum of so many standard exponentials ≥ each value): the tail of chi² with 2k degrees of freedom at twice
    the value, in closed form, since scipy's logsf is -inf where p underflows. Of no terms the sum is 0."""
    above = values > 0
    if not terms:
        return np.where(above, -math.inf, 0.0)
    log_values = np.log(np.where(above, values, 1.0))
    parts = [order * log_values - math.lgamma(order + 1) for order in range(terms)]
    return np.where(above, np.logaddexp.reduce(parts) - values, 0.0)


def _sums_of_counted(counts: Sequence[int], largest: float) -> tuple[np.ndarray, np.ndarray]:
    """The distribution of -log p summed over groups of so many units each: values up to `largest`, where all beyond are
    counted, and log chances. Values are rounded up to a grid of `GRID` steps, which can only make p larger."""
    step = largest / GRID
    values = np.arange(GRID + 1) * step
    # Chances are kept multiplied by e^value: as they are, all but the first would vanish.
    chances = np.zeros(GRID + 1)
    chances[0] = 1.0
    for count in counts:
        following = np.zeros(GRID + 1)
        for place, chance in zip(*_counted(count, step), strict=True):
            stop = GRID + 1 - place
            following[place:] += chances[:stop] * chance
            following[GRID] += float(chances[stop:] @ np.exp(largest - values[stop:] - place * step)) * chance
        chances = following
    told = chances > 0
    return values[told], np.log(chances[told]) - values[told]


def _counted(count: int, step: float) -> tuple[list[int], list[float]]:
    """-log p of one group in whole steps, rounded up and at most GRID, each value once; its chance times e^value."""
    orders = _distances(count) / math.factorial(count)
    happens = orders > 0
    p = np.minimum(np.cumsum(orders)[happens], 1.0)
    places, which = np.unique(np.minimum(np.ceil(-np.log(p) / step - 1e-9), GRID).astype(np.int64), return_inverse=True)
    chances = np.bincount(which, weights=orders[happens]) * np.exp(places * step)
    return places.tolist(), chances.tolist()


def cauchy(log_ps: Sequence[float]) -> float:
    """log p of several tests together, however they depend on one another (Liu & Xie 2020).

    Raises ValueError without a test."""
    from scipy.stats import cauchy as distribution

    if not log_ps:
        raise ValueError("no p-values")
    # A p-value of 1, as discrete tests give, would outweigh all others: it counts as .99.
    capped = np.minimum(np.array(log_ps), math.log(0.99))
    if capped.min() < -20:  # 1 / (pi p) is the tangent to rounding, and neither overflows nor cancels as a logarithm
        return min(0.0, math.log(len(capped)) - float(np.logaddexp.reduce(-capped)))
    statistic = float(np.mean(np.tan((0.5 - np.exp(capped)) * math.pi)))
    return float(distribution.logsf(statistic))


@dataclass(frozen=True)
class DeadCoordinates:
    """R2. statistic: mean cosine of matched rows over dead coordinates; p: exact; draws: of the null that were made."""

    statistic: float
    p: float
    dead: int
    units: int
    draws: int


def dead_coordinates(
    a: np.ndarray, b: np.ndarray, classes: np.ndarray, draws: int = MOST_DRAWS, seed: int = 0
) -> DeadCoordinates:
    """R2: do two models share weights that no training moved? a, b: (units, dead) float, rows already matched on what
    is alive; classes: (dead,) int, dead coordinates with one number had one constant value in training.

    An input that is the same in every example moves all its weights alike, so that their differences keep the noise of
    the initialisation; only these are compared. The null exchanges coordinates of one class in a: within each network
    they were drawn alike and treated alike, so under independence every order is as likely, and p is exact.
    Orders are drawn until `ENOUGH_AS_LARGE` of them reach the observed value, `draws` at most (Besag & Clifford 1991):
    few where there is nothing to find, and many where p must be small enough for a whole zoo.
    Raises ValueError under 7 dead coordinates."""
    if a.shape != b.shape or a.shape[1] != len(classes):
        raise ValueError(f"shapes {a.shape}, {b.shape} and {len(classes)} classes")
    if len(classes) < FEWEST_DEAD:
        raise ValueError(f"{len(classes)} dead coordinates: R2 needs {FEWEST_DEAD}")
    random = np.random.default_rng(seed)
    if len(classes) > MOST_DEAD:
        kept = np.sort(random.choice(len(classes), MOST_DEAD, replace=False))
        a, b, classes = a[:, kept], b[:, kept], classes[kept]
    a, b = unit(_contrasts(a, classes)), unit(_contrasts(b, classes))
    # The cosine of every coordinate of a with every one of b, summed over units: an order is then a sum of its entries.
    products = a.T.astype(np.float64) @ b.astype(np.float64) / len(a)
    observed = float(products.trace())
    p, drawn = _p_of_orders(products, observed, classes, draws, random)
    return DeadCoordinates(observed, p, len(classes), len(a), drawn)


def _p_of_orders(
    products: np.ndarray, observed: float, classes: np.ndarray, draws: int, random: np.random.Generator
) -> tuple[float, int]:
    """p, and how many orders were drawn for it. products: (dead, dead); an order's value is the sum of its entries."""
    places = np.arange(len(classes))
    kinds = [places[classes == kind] for kind in np.unique(classes)]
    as_large = drawn = 0
    while drawn < draws:
        # Larger blocks as it goes on: most pairs need but a hundred orders.
        shuffled = np.tile(places, (min(max(100, drawn), MOST_AT_ONCE, draws - drawn), 1))
        for members in kinds:
            shuffled[:, members] = random.permuted(shuffled[:, members], axis=1)
        reached = products[shuffled, places].sum(axis=1) >= observed - 1e-12
        count = as_large + np.cumsum(reached)
        if count[-1] >= ENOUGH_AS_LARGE:
            drawn += int(np.searchsorted(count, ENOUGH_AS_LARGE)) + 1
            return ENOUGH_AS_LARGE / drawn, drawn
        as_large, drawn = int(count[-1]), drawn + len(shuffled)
    return (1 + as_large) / (1 + drawn), drawn


def _contrasts(rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
    centred = rows.astype(np.float64)
    for kind in np.unique(classes):
        centred[:, classes == kind] -= centred[:, classes == kind].mean(1, keepdims=True)
    return centred
