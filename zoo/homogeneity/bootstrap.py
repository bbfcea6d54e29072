"""Resampling as weights: a draw of the bootstrap is a row of weights over the examples, many draws are a matrix.

The draws depend on the number of examples and the seed alone, so that all measures of one panel see the same draws and
differences may be taken draw by draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo import shares
from zoo.homogeneity.results import MIN_EXAMPLES, Scalar

if TYPE_CHECKING:
    import torch

_TILE = 2**25  # weights held at a time, as float32: 128 MiB

_NO_WIDTH = 1e-7  # draws are kept as float32 in places: what differs by less is one number

MOST_UNDEFINED = 0.5
"""An interval from fewer than this share of the draws would speak about other samples than ours: there is none."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made, and where.

    draws: resamples of the examples (0: no intervals); seed: of the draws; confidence: of the intervals, in (0, 1);
    device: where the matrix products run, as torch names it; progress: called with a share in [0, 1].
    """

    draws: int = 1000
    seed: int = 0
    confidence: float = 0.95
    device: str = "cpu"
    progress: Callable[[float], None] | None = field(default=None, compare=False)


def tiles(examples: int, plan: Bootstrap) -> Iterator[np.ndarray]:
    """The draws as weights, (draws in this tile, examples) float32: how often each example was drawn. A row sums to
    `examples`. float32 holds counts exactly up to 2^24."""
    random = np.random.default_rng(plan.seed)
    most = max(1, _TILE // max(examples, 1))
    for start in range(0, plan.draws, most):
        draws = min(most, plan.draws - start)
        weights = np.empty((draws, examples), dtype=np.float32)
        for row in weights:
            row[:] = np.bincount(random.integers(0, examples, size=examples), minlength=examples)
        yield weights


def drawn_means(values: np.ndarray, plan: Bootstrap) -> np.ndarray:
    """The mean over examples in every draw. values: (..., N) float64. Returns (draws, ...) float64."""
    import torch

    flat = values.reshape(-1, values.shape[-1])
    columns = torch.as_tensor(np.ascontiguousarray(flat.T), dtype=torch.float64, device=plan.device)
    rows = [np.empty((0, len(flat)))]
    for weights in tiles(values.shape[-1], plan):
        # float64: differences between near-equal means (what a model adds) are read off these
        product = torch.as_tensor(weights, device=plan.device).to(torch.float64) @ columns
        rows.append((product / values.shape[-1]).cpu().numpy())
    return np.concatenate(rows).reshape(plan.draws, *values.shape[:-1])


def interval(draws: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the draws that are defined. draws: (D, ...) float64, NaN where undefined.

    Returns low and high, (...) float64: NaN with no draws, when more than half of them are undefined, and when all are
    the same number: resampling cannot change it, which says nothing about other examples."""
    shape = draws.shape[1:]
    if not len(draws):
        return np.full(shape, np.nan), np.full(shape, np.nan)
    flat = draws.reshape(len(draws), -1)
    usable = np.isfinite(flat).mean(axis=0) >= MOST_UNDEFINED
    bounds = np.full((2, flat.shape[1]), np.nan)
    tail = (1 - confidence) / 2
    whole = usable & np.isfinite(flat).all(axis=0)  # the quick way; nanquantile sorts column by column
    if whole.any():
        bounds[:, whole] = np.quantile(flat[:, whole], [tail, 1 - tail], axis=0)
    if (usable & ~whole).any():
        partly = np.where(np.isfinite(flat), flat, np.nan)[:, usable & ~whole]
        bounds[:, usable & ~whole] = np.nanquantile(partly, [tail, 1 - tail], axis=0)
    bounds[:, bounds[1] - bounds[0] <= _NO_WIDTH * np.maximum(1, np.abs(bounds[1]))] = np.nan
    low, high = bounds.reshape(2, *shape)
    return low, high


def share_interval(value: Any, draws: np.ndarray, examples: Any, plan: Bootstrap) -> tuple[np.ndarray, np.ndarray]:
    """The interval of a share, which has a width at 0 and 1, too: `zoo.shares.interval` at the variance of the draws.

    value: (...) in [0, 1], NaN where undefined; draws: (D, ...) float64; examples: (...) that the value rests on.
    Returns low and high, (...) float64, NaN with no draws or when more than half of them are undefined."""
    value = np.asarray(value, dtype=np.float64)
    if not len(draws):
        return np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    defined = np.isfinite(draws)
    count = np.maximum(defined.sum(axis=0), 1)
    mean = np.where(defined, draws, 0.0).sum(axis=0) / count
    variance = (np.where(defined, draws - mean, 0.0) ** 2).sum(axis=0) / count
    usable = np.where(defined.mean(axis=0) >= MOST_UNDEFINED, value, np.nan)
    return shares.interval(usable, variance, np.maximum(examples, 1), plan.confidence)


def mean_interval(values: np.ndarray, plan: Bootstrap) -> tuple[np.ndarray, np.ndarray]:
    """The interval of a mean over examples of numbers in [0, 1], with the variance of the mean in closed form.

    values: (..., N) float64. Returns low and high, (...) float64, NaN for a plan without draws."""
    mean, examples = values.mean(axis=-1), values.shape[-1]
    if not plan.draws:
        return np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
    return shares.interval(mean, values.var(axis=-1) / examples, examples, plan.confidence)


def signed_interval(value: Any, draws: np.ndarray, examples: int, plan: Bootstrap) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval of a mean over examples of numbers in [−1, 1]; where all draws are the same number, as
    far around it as examples may move it of which none was seen among these. As `share_interval`."""
    value = np.asarray(value, dtype=np.float64)
    low, high = interval(draws, plan.confidence)
    if len(draws):
        beyond = shares.unseen(examples, plan.confidence)
        fixed = np.isnan(low) & (undefined_share(draws) == 0)
        low = np.where(fixed, np.maximum(value - beyond, -1.0), low)
        high = np.where(fixed, np.minimum(value + beyond, 1.0), high)
    return low, high


def bca(
    value: np.ndarray, draws: np.ndarray, jackknife: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bias-corrected and accelerated interval (Efron 1987): the quantiles of the draws that are read are shifted by how
    far the draws lie beside the value, and by how its standard error changes with it.

    value: (...) float64; draws: (D, ...), NaN where undefined; jackknife: (N, ...), the value without each example, NaN
    where undefined, which does not count. confidence: in (0, 1). Returns low and high, (...) float64: NaN with no
    draws, where more than half of them are undefined, and where the value is. What it covers: see reports/coverage."""
    shape = np.shape(value)
    points = np.reshape(value, -1)
    bounds = np.full((2, len(points)), np.nan)
    many = draws.reshape(len(draws), len(points))
    usable = np.isfinite(points)
    if len(draws):
        usable &= np.isfinite(many).mean(axis=0) >= MOST_UNDEFINED
    if not len(draws) or not usable.any():
        return bounds[0].reshape(shape), bounds[1].reshape(shape)
    speed = _acceleration(jackknife.reshape(len(jackknife), len(points))[:, usable])
    levels = _bca_levels(points[usable], many[:, usable], speed, confidence)
    for column, level in zip(np.flatnonzero(usable), levels.T, strict=True):
        drawn = many[:, column]
        bounds[:, column] = np.quantile(drawn[np.isfinite(drawn)], level)
    return bounds[0].reshape(shape), bounds[1].reshape(shape)


def _acceleration(jackknife: np.ndarray) -> np.ndarray:
    """Skewness of the jackknife over six, (K,): 0 where nothing changes with any example. jackknife: (N, K)."""
    defined = np.isfinite(jackknife)
    kept = np.where(defined, jackknife, 0.0)
    below = kept.sum(axis=0) / np.maximum(defined.sum(axis=0), 1) - kept
    below[~defined] = 0
    squares = (below**2).sum(axis=0)
    skew: np.ndarray = (below**3).sum(axis=0) / np.where(squares > 0, 6 * squares**1.5, 1.0)
    return skew


def _bca_levels(value: np.ndarray, draws: np.ndarray, acceleration: np.ndarray, confidence: float) -> np.ndarray:
    """The shares of the draws below the two ends, (2, K)."""
    from scipy.special import ndtr, ndtri

    count = np.isfinite(draws).sum(axis=0)
    below = ((draws < value).sum(axis=0) + (draws <= value).sum(axis=0)) / (2 * count)
    # A value beyond all draws: as far as that many draws can tell, since the normal quantile of 0 is infinite.
    bias = ndtri(np.clip(below, 0.5 / count, 1 - 0.5 / count))
    far = bias + ndtri((1 - confidence) / 2 * np.array([[1.0], [-1.0]]) + np.array([[0.0], [1.0]]))
    left = 1 - acceleration * far
    shifted = np.where(left > 0, bias + far / np.where(left > 0, left, 1.0), np.sign(far) * np.inf)
    levels: np.ndarray = ndtr(shifted)
    return levels


def undefined_share(draws: np.ndarray) -> np.ndarray:
    """The share of draws that are undefined, (...) float64; 0 without draws."""
    if not len(draws):
        return np.zeros(draws.shape[1:])
    share: np.ndarray = (~np.isfinite(draws)).mean(axis=0)
    return share


def minding(share: float) -> str:
    """The words for a share of undefined draws, or an empty string."""
    return f"undefined in {share:.1%} of the bootstrap draws, which do not count" if share > 0 else ""


def unseen_reasons(value: np.ndarray, low: np.ndarray, plan: Bootstrap, places: np.ndarray) -> dict[Any, str]:
    """Index -> the words for a number that has no interval because all its draws are the same. value, low: (...);
    places: (...) bool, where to look. Indices are ints of a vector and pairs of ints of a matrix."""
    if not plan.draws:
        return {}
    found = np.argwhere(places & np.isfinite(value) & np.isnan(low)).tolist()
    return {tuple(at) if len(at) > 1 else at[0]: shares.UNSEEN for at in found}


def minding_fixed(low: float, draws: np.ndarray) -> str:
    """The words for a number that has no interval because all its draws (D,) are the same, or an empty string."""
    return shares.UNSEEN if np.isnan(low) and len(draws) and np.isfinite(draws).all() else ""


def scalar(value: float, draws: np.ndarray, examples: int, plan: Bootstrap, reason: str) -> Scalar:
    """A Scalar from its value and draws (D,). reason: why it is undefined, when the value is not finite."""
    if examples < MIN_EXAMPLES:
        return undefined(examples, too_few(examples))
    if not np.isfinite(value):
        return undefined(examples, reason)
    return _bounded(value, interval(draws, plan.confidence), draws, examples)


def share_scalar(value: float, draws: np.ndarray, examples: int, plan: Bootstrap, reason: str) -> Scalar:
    """As `scalar`, of a share: see `share_interval`."""
    if examples < MIN_EXAMPLES or not np.isfinite(value):
        return scalar(value, draws, examples, plan, reason)
    return _bounded(value, share_interval(value, draws, examples, plan), draws, examples)


def signed_scalar(value: float, draws: np.ndarray, examples: int, plan: Bootstrap, reason: str) -> Scalar:
    """As `scalar`, of a mean of numbers in [−1, 1]: see `signed_interval`."""
    if examples < MIN_EXAMPLES or not np.isfinite(value):
        return scalar(value, draws, examples, plan, reason)
    return _bounded(value, signed_interval(value, draws, examples, plan), draws, examples)


def _bounded(value: float, bounds: tuple[Any, Any], draws: np.ndarray, examples: int) -> Scalar:
    low, high = (float(end) if np.isfinite(end) else None for end in bounds)
    reason = minding(float(undefined_share(draws))) or minding_fixed(float(bounds[0]), draws)
    return Scalar(float(value), low, high, examples, reason)


def undefined(examples: int, reason: str) -> Scalar:
    """A Scalar that is not defined, with its reason."""
    return Scalar(None, None, None, examples, reason)


def too_few(examples: int) -> str:
    """Why a measure of so few examples is undefined."""
    return f"{MIN_EXAMPLES} test examples at least are needed, and there are {examples}"


def replica_weights(models: Sequence[int] | np.ndarray, plan: Bootstrap) -> np.ndarray:
    """Resampled replicas, (draws, R) float64: rows of weights that sum to 1 within each model.

    models: (R,) model of each run. Of S replicas S − 1 are drawn with replacement: the variance of their mean is then
    the unbiased s²/S, where drawing S gives (S − 1)/S of it, half for two replicas (Rao & Wu 1988)."""
    random = np.random.default_rng((plan.seed, 1))
    owner = np.asarray(models)
    weights = np.ones((plan.draws, len(owner)))
    for model in np.unique(owner):
        runs = np.flatnonzero(owner == model)
        if len(runs) > 1:
            counts = random.multinomial(len(runs) - 1, np.full(len(runs), 1 / len(runs)), size=plan.draws)
            weights[:, runs] = counts / (len(runs) - 1)
    return weights


def tensor(array: Any, device: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The array on the device, copied only where it must be: torch takes no negative strides, and warns of memory that
    may not be written."""
    import torch

    if isinstance(array, np.ndarray) and not (array.flags.writeable and min(array.strides, default=0) >= 0):
        array = array.copy()
    return torch.as_tensor(array, device=device, dtype=dtype)
