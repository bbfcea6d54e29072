"""Every layer of one model with every layer of another: a grid of a representation measure, its permutation null, and
the best match of layers with the price of having looked for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from zoo.homogeneity.representation import MEASURES, Undefined, checked, same_length

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zoo.homogeneity.representation import Features


@dataclass(frozen=True)
class Grid:
    """A measure for every layer of one model with every layer of another, beside what chance gives.

    value, null_mean, null_high (95 % quantile), p: (layers of x, layers of y) float64; value NaN where undefined, and
    then reasons[i, j] says why. low, high: 95 % interval of the value by a jackknife over groups of examples, NaN
    without 4 examples for each group; it does not know that layers were chosen. n: examples; permutations: of the null.
    best: (i, j) of the largest value, None when all are undefined; best_value: that value; best_null_mean,
    best_null_high: of the largest value of the whole grid under the null; best_p: the share of permutations (with the
    data itself counted as one) whose largest value over the grid is as large, so that choosing the best layers is paid
    for.
    """

    measure: str
    x_layers: tuple[str, ...]
    y_layers: tuple[str, ...]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    null_mean: np.ndarray
    null_high: np.ndarray
    p: np.ndarray
    n: int
    permutations: int
    best: tuple[int, int] | None
    best_value: float
    best_null_mean: float
    best_null_high: float
    best_p: float
    reasons: Mapping[tuple[int, int], str]

    @property
    def adjusted(self) -> float:
        """The best value on a scale on which chance is 0 and identity is 1: (best − null mean) / (1 − null mean)."""
        return (self.best_value - self.best_null_mean) / (1 - self.best_null_mean)


@dataclass(frozen=True)
class Null:
    """How the null is made and the intervals. permutations: of the examples of y, 0 for none; seed: of the
    permutations; groups: of the jackknife, 0 for no interval."""

    permutations: int = 200
    seed: int = 0
    groups: int = 20


Name = Literal["cka", "biased_cka", "procrustes", "rsa", "mutual_knn", "svcca"]


def compare(
    x_layers: Mapping[str, Features], y_layers: Mapping[str, Features], measure: Name = "cka", null: Null | None = None
) -> Grid:
    """Every layer of one model with every layer of another by one measure, with a permutation null.

    x_layers, y_layers: name → (n, width), rows the same n examples in the same order. A layer on which the measure is
    undefined costs its row or column, with the reason; nothing is raised for it. Raises ValueError for an unknown
    measure, and for layers of differing length.
    """
    import numpy as np

    null = null or Null()
    if measure not in MEASURES:
        raise ValueError(f"no measure '{measure}'; there are {', '.join(MEASURES)}")
    xs, x_reasons = _prepared(measure, x_layers)
    ys, y_reasons = _prepared(measure, y_layers)
    shape = (len(x_layers), len(y_layers))
    reasons = {
        (i, j): x_reasons.get(i) or y_reasons[j]
        for i in range(shape[0])
        for j in range(shape[1])
        if i in x_reasons or j in y_reasons
    }
    n = same_length([*x_layers.values(), *y_layers.values()])
    drawn = np.full((1 + null.permutations, *shape), np.nan)
    if xs and ys:
        drawn[np.ix_(range(len(drawn)), list(xs), list(ys))] = _drawn(measure, xs, ys, _orders(n, null))
    low, high = _jackknife(measure, (x_layers, y_layers), drawn[0], null.groups)
    return _grid((measure, tuple(x_layers), tuple(y_layers), n), drawn, (low, high), reasons)


def _grid(
    told: tuple[str, tuple[str, ...], tuple[str, ...], int],
    drawn: np.ndarray,
    interval: tuple[np.ndarray, np.ndarray],
    reasons: Mapping[tuple[int, int], str],
) -> Grid:
    """drawn: (1 + permutations, layers of x, layers of y), the data first."""
    import numpy as np

    measure, x_names, y_names, n = told
    value, permuted = drawn[0], drawn[1:]
    defined = np.isfinite(value)
    best = np.unravel_index(np.where(defined, value, -np.inf).argmax(), value.shape) if defined.any() else None
    largest = np.where(defined, drawn, -np.inf).max(axis=(1, 2)) if best is not None else np.full(len(drawn), np.nan)
    known = len(permuted) > 0 and best is not None
    empty = np.full(value.shape, np.nan)
    return Grid(
        measure=measure,
        x_layers=x_names,
        y_layers=y_names,
        value=value,
        low=interval[0],
        high=interval[1],
        null_mean=permuted.mean(axis=0) if known else empty,
        null_high=np.quantile(permuted, 0.95, axis=0) if known else empty,
        p=np.where(defined, _p(drawn), np.nan) if known else empty,
        n=n,
        permutations=len(permuted),
        best=(int(best[0]), int(best[1])) if best is not None else None,
        best_value=float(largest[0]),
        best_null_mean=float(largest[1:].mean()) if known else math.nan,
        best_null_high=float(np.quantile(largest[1:], 0.95)) if known else math.nan,
        best_p=float(_p(largest)) if known else math.nan,
        reasons=reasons,
    )


def _p(drawn: np.ndarray) -> Any:
    """One-sided p-values, the data being one of the draws: never 0, and valid at every level."""
    # Rounding must not make a permutation that leaves the data as they are count as smaller than the data.
    return (drawn >= drawn[0] - 1e-12).mean(axis=0)


def _orders(n: int, null: Null) -> np.ndarray:
    """(1 + permutations, n) int64: the identity and the permutations."""
    import numpy as np

    random = np.random.default_rng(null.seed)
    return np.stack([np.arange(n), *(random.permutation(n) for _ in range(null.permutations))])


def _prepared(measure: str, layers: Mapping[str, Features]) -> tuple[dict[int, torch.Tensor], dict[int, str]]:
    prepared, reasons = {}, {}
    for index, (name, features) in enumerate(layers.items()):
        try:
            prepared[index] = MEASURES[measure].prepare(checked(features, MEASURES[measure].centred))
        except Undefined as error:
            reasons[index] = f"layer '{name}': {error}"
    return prepared, reasons


def _drawn(
    measure: str, xs: Mapping[int, torch.Tensor], ys: Mapping[int, torch.Tensor], orders: np.ndarray
) -> np.ndarray:
    import torch

    device = next(iter(ys.values())).device
    scored = MEASURES[measure].score(list(xs.values()), list(ys.values()), torch.from_numpy(orders).to(device))
    return scored.cpu().double().numpy()


def _jackknife(
    measure: str, sides: tuple[Mapping[str, Features], Mapping[str, Features]], value: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval by leaving out each of some groups of examples in turn (Efron & Tibshirani 1993, chapter 11).

    A bootstrap would draw examples twice, and two copies of one example are alike in every model."""
    import numpy as np

    n = same_length([features for side in sides for features in side.values()])
    if groups < 2 or n < 4 * groups:
        return np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    assigned = np.random.default_rng(0).permutation(n) % groups
    without = np.stack([_plain_grid(measure, sides, np.flatnonzero(assigned != group)) for group in range(groups)])
    spread = np.sqrt((groups - 1) / groups * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    reach = _student(groups - 1) * spread
    return value - reach, value + reach


def _plain_grid(
    measure: str, sides: tuple[Mapping[str, Features], Mapping[str, Features]], rows: np.ndarray
) -> np.ndarray:
    import numpy as np

    xs, ys = (_prepared(measure, {name: features[rows] for name, features in side.items()})[0] for side in sides)
    values = np.full((len(sides[0]), len(sides[1])), np.nan)
    if xs and ys:
        values[np.ix_(list(xs), list(ys))] = _drawn(measure, xs, ys, np.arange(len(rows))[None])[0]
    return values


def _student(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))
