"""Numbers of timings: medians and quantiles with bootstrap intervals over the repetitions, ratios, ties and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from zoo.store.bench import TOO_NOISY, Measured, measured

DRAWS = 2000
LEAST_FOR_P99 = 100
LEAST = 8  # repetitions under which an interval would be a guess

Statistic = Callable[[np.ndarray], np.ndarray]


class Bootstrap:
    """Draws of repetitions with replacement, the same for every number of a bench.

    Repetitions are drawn whole: what was timed in one turn shares its luck."""

    def __init__(self, seed: int, draws: int = DRAWS) -> None:
        self._seed, self._draws = seed, draws

    def __call__(self, rounds: np.ndarray, statistic: Statistic) -> Measured:
        """rounds: (rounds, timings) float64; statistic: (…, m) -> (…), of timings pooled on the last axis."""
        pooled = rounds.reshape(-1)
        q1, q3 = (float(end) for end in np.quantile(pooled, (0.25, 0.75)))
        low = high = None
        if len(rounds) >= LEAST:
            low, high = self._interval(rounds, statistic)
        reason = None if low is not None else f"{len(rounds)} repetitions are too few for an interval"
        return Measured(value=float(statistic(pooled)), low=low, high=high, q1=q1, q3=q3, n=pooled.size, reason=reason)

    def _interval(self, rounds: np.ndarray, statistic: Statistic) -> tuple[float, float]:
        rng = np.random.default_rng(self._seed)
        found = []
        for _ in range(0, self._draws, 200):  # in parts: 2,000 draws of a thousand calls are much memory
            drawn = rounds[rng.integers(0, len(rounds), (200, len(rounds)))]
            found.append(statistic(drawn.reshape(200, -1)))
        low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
        return float(low), float(high)


def median(values: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    return np.asarray(np.median(values, axis=-1))


def quantile(share: float) -> Statistic:
    """The quantile over the last axis, as a statistic."""
    return lambda values: np.asarray(np.quantile(values, share, axis=-1))


def scaled(number: Measured, factor: float) -> Measured:
    """The number in another unit. factor: positive."""
    changed = {end: None if number[end] is None else number[end] * factor for end in ENDS}  # type: ignore[literal-required]
    return Measured(**{**number, **changed})  # type: ignore[typeddict-item]


ENDS = ("value", "low", "high", "q1", "q3")


def share(count: int, n: int) -> Measured:
    """A share of n cases with its Wilson interval of 95 %."""
    if n < 1:
        return measured(None, n=0, reason="there are no cases")
    z, p = 1.959963984540054, count / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return measured(p, max(0.0, centre - half), min(1.0, centre + half), n)


def ratio(over: np.ndarray, under: np.ndarray, bootstrap: Bootstrap) -> Measured:
    """Median of over / under with its interval; both (rounds,) float64, timings of the same rounds."""
    return bootstrap((over / under)[:, None], median)


def farthest(ratios: Sequence[Measured]) -> float | None:
    """The noise floor: the farthest end of any interval from 1, as a factor of at least 1; None without intervals."""
    ends = [end for number in ratios for end in (number["low"], number["high"]) if end is not None and end > 0]
    return math.exp(max(abs(math.log(end)) for end in ends)) if ends else None


def differs(found: Measured, floor: float | None) -> bool | None:
    """Whether the whole interval of a ratio lies beyond the floor, a factor of at least 1; beyond one of `TOO_NOISY`
    or more nothing counts as lying. None without a floor."""
    if floor is None or found["low"] is None or found["high"] is None:
        return None
    return floor < TOO_NOISY and (found["low"] > floor or found["high"] < 1 / floor)


def ranks(models: int, clearly_better: set[tuple[int, int]]) -> list[int]:
    """1 + the number of models that are clearly better. clearly_better: (better, worse) pairs of positions."""
    return [1 + len({better for better, worse in clearly_better if worse == model}) for model in range(models)]
