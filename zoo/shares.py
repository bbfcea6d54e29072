"""Intervals of shares: of means of numbers from 0 to 1, such as an accuracy. They have a width at 0 and at 1, too.

A resample of twelve right answers holds twelve right answers, so a bootstrap's interval of 12 of 12 is 1 to 1. Wilson's
score interval (1927) asks which true shares would make the observed one a surprise, and says .76 to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_RARE = 3

FEW_EXAMPLES = 30
"""With fewer test examples nothing can be concluded: 29 of 29 right may be a model that fails one example in nine."""

UNSEEN = "it is the same whichever of these examples are taken, which says nothing about other examples"
"""Why a number that is no share has no interval where neither draws nor leaving examples out can change it."""


def quantile(confidence: float) -> float:
    """Of the standard normal distribution, for a two-sided interval. confidence: in (0, 1)."""
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(share: Any, size: Any, deviates: Any) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval (1927), low and high, float64, in [0, 1]; 0 is the low end of 0 and 1 the high end of 1.

    With 1 to 3 events on one side its end there is too far from the edge, and is Clopper & Pearson's (1934) instead, as
    Brown, Cai & DasGupta (2001) have it: of rare events the interval would hold the truth in 84 % of samples, and so it
    holds it in 91 % at least. share: in [0, 1], NaN where undefined; size: independent trials it rests on, above 0;
    deviates: the quantile, see `quantile`. Arrays that broadcast."""
    import numpy as np

    share, size, deviates = np.broadcast_arrays(
        *(np.asarray(item, dtype=np.float64) for item in (share, size, deviates))
    )
    square = np.square(deviates) / size
    centre = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    # Exactly at the ends, where centre and half are the same number but for its last bit.
    low = np.where(share <= 0, 0.0, np.maximum(centre - half, 0.0))
    high = np.where(share >= 1, 1.0, np.minimum(centre + half, 1.0))
    low, high = np.minimum(low, _rare(share, size, deviates)), np.maximum(high, 1 - _rare(1 - share, size, deviates))
    return np.where(np.isnan(share), np.nan, low), np.where(np.isnan(share), np.nan, high)


def _rare(share: np.ndarray, size: np.ndarray, deviates: np.ndarray) -> np.ndarray:
    """Clopper and Pearson's lower end where there are events, but no more than 3 and in no more than half of the
    trials; elsewhere 1."""
    import numpy as np

    events = share * size
    rare = (events > 1e-9) & (events <= _RARE + 1e-9) & (share <= 0.5)
    ends = np.ones(share.shape)
    if rare.any():
        from scipy.special import betaincinv, ndtr  # here: most results have no such share, and it takes 50 ms to load

        ends[rare] = betaincinv(events[rare], size[rare] - events[rare] + 1, ndtr(-deviates[rare]))
    return ends


def effective_size(share: Any, variance: Any, examples: Any) -> np.ndarray:
    """How many independent trials would give this variance, a(1 − a)/variance; the number of examples where there is
    nothing to judge the variance by: at 0, at 1, and where it is 0. Arrays that broadcast; returns float64."""
    import numpy as np

    share, variance = np.asarray(share, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    inside = (share > 1e-12) & (share < 1 - 1e-12) & (variance > 1e-15)
    size: np.ndarray = np.where(
        inside, share * (1 - share) / np.where(inside, variance, 1.0), np.asarray(examples, dtype=np.float64)
    )
    return size


def interval(share: Any, variance: Any, examples: Any, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval at the effective number of examples: low and high, float64.

    share: a mean over examples of numbers in [0, 1]; variance: of that mean, over examples and whatever else was drawn;
    examples: the number it rests on, 1 or more. For answers that are right or wrong it is `wilson` of their number."""
    return wilson(share, effective_size(share, variance, examples), quantile(confidence))


def unseen(examples: int, confidence: float) -> float:
    """The largest share of examples of a kind of which none was seen in so many: Wilson's upper end of 0."""
    _, high = wilson(0.0, examples, quantile(confidence))
    return float(high)
