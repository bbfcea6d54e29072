"""Resampling as weights: a draw of the bootstrap is a row of weights over the examples, many draws are a matrix.

The draws depend on the number of examples and the seed alone, so that all measures of one panel see the same draws and
differences may be taken draw by draw.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo import shares
from zoo.homogeneity.results import MIN_EXAMPLES, Scalar

if TYPE_CHECKING:
    import torch

_TILE = 2**25  # weights held at a time, as float32: 128 MiB

_KEPT = 2**22  # weights that are kept until others are asked for: 16 MiB
_NO_WIDTH = 1e-7  # draws are kept as float32 in places: what differs by less is one number

FEW_EVENTS = 10
"""With fewer examples than this of the rarer kind the interval of a share covers more than it says."""
WIDE = f"there are fewer than {FEW_EVENTS} such examples, so the interval is wider than it need be"

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
    if 0 < plan.draws * examples <= _KEPT:
        yield _small_tile(examples, plan.draws, plan.seed)
        return
    random = np.random.default_rng(plan.seed)
    most = max(1, _TILE // max(examples, 1))
    for start in range(0, plan.draws, most):
        yield _drawn(random, min(most, plan.draws - start), examples)


def _drawn(random: np.random.Generator, draws: int, examples: int) -> np.ndarray:
    weights = np.empty((draws, examples), dtype=np.float32)
    for row in weights:
        row[:] = np.bincount(random.integers(0, examples, size=examples), minlength=examples)
    return weights


@functools.lru_cache(maxsize=2)
def _small_tile(examples: int, draws: int, seed: int) -> np.ndarray:
    """Kept, because every measure asks for the same draws, and read-only for that reason."""
    weights = _drawn(np.random.default_rng(seed), draws, examples)
    weights.flags.writeable = False
    return weights


def drawn_means(values: np.ndarray, plan: Bootstrap) -> np.ndarray:
    """The mean over examples in every draw. values: (..., N) float64. Returns (draws, ...) float64."""
    import torch

    flat = values.reshape(-1, values.shape[-1])
    columns = torch.as_tensor(np.ascontiguousarray(flat.T), dtype=torch.float64, device=plan.device)
    rows = [np.empty((0, len(flat)))]
    for weights in tiles(values.shape[-1], plan):
        # float64: differences between near-equal means (what a model adds) are read off these
        product = tensor(weights, plan.device, torch.float64) @ columns
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

    Where the numbers add up to fewer than `FEW_EVENTS`, or to fewer below N, they count as so many whole examples: of
    products of shares most are next to 0, and the few that make the mean may not be among the examples.
    values: (..., N) float64. Returns low and high, (...) float64, NaN for a plan without draws."""
    mean, examples = values.mean(axis=-1), values.shape[-1]
    if not plan.draws:
        return np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
    size = shares.effective_size(mean, values.var(axis=-1) / examples, examples)
    few = examples * np.minimum(mean, 1 - mean) < FEW_EVENTS
    return shares.wilson(mean, np.where(few, np.minimum(size, examples), size), shares.quantile(plan.confidence))


def wide(share: float, examples: int) -> str:
    """What to mind about the interval of a share that rests on few examples of the rarer kind, or an empty string."""
    return WIDE if examples * min(share, 1 - share) < FEW_EVENTS else ""


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


def jackknife_interval(value: float, without: np.ndarray, logs: float, confidence: float) -> tuple[float, float]:
    """The interval of a smooth function x of means over examples, from its values without each example: no draws.

    value: x; without: (N,) float64, NaN where undefined; confidence: in (0, 1). logs: B where x
    moves as −B ln(mean) with the mean that matters most, such as the share of examples that fail together.

    x ± standard error × t, with two corrections for few failures, whose influence is skewed. The degrees of freedom are
    those of the variance itself, 2N/(kurtosis − 1) (after Satterthwaite 1946); both ends are moved by how the error
    of x goes with that of its variance, skewness/6 × (1 + 2t²)/√N (Johnson 1978, Hall 1992), and by the bend of the
    logarithm. Returns NaN where x without one example is always the same, or undefined for any example.
    What it covers: see reports/coverage."""
    from scipy.stats import t

    examples = len(without)
    if examples < 2 or not np.isfinite(without).all():
        return np.nan, np.nan
    influence = (examples - 1) * (without.mean() - without)
    spread = float((influence**2).mean())
    if not np.isfinite(value) or np.sqrt(spread) <= _NO_WIDTH * max(1.0, abs(value)):
        return np.nan, np.nan
    error = np.sqrt(spread / (examples - 1))
    quantile = t.ppf((1 + confidence) / 2, 2 * examples / max(float((influence**4).mean()) / spread**2 - 1, 1e-9))
    skewness = float((influence**3).mean()) / spread**1.5 / np.sqrt(examples)
    moved = skewness / 6 * (1 + 2 * quantile**2) + quantile**2 * error / (2 * logs)
    return float(value - error * (quantile - moved)), float(value + error * (quantile + moved))


def undefined_share(draws: np.ndarray) -> np.ndarray:
    """The share of draws that are undefined, (...) float64; 0 without draws."""
    if not len(draws):
        return np.zeros(draws.shape[1:])
    share: np.ndarray = (~np.isfinite(draws)).mean(axis=0)
    return share


def minding(share: float) -> str:
    """The words for a share of undefined draws, or an empty string."""
    return f"it is undefined in {share * 100:.1f} % of the bootstrap draws, which do not count" if share > 0 else ""


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
