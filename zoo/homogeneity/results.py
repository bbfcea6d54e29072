"""What a measure returns. An estimate stands with its interval and n, or it is undefined and says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FEW_SHARED = 10
"""With fewer examples than this that two models both fail, or both get right, seen or expected by chance, the likeness
of their errors has no interval. Of independent models those of φ held 0 in .40 of 360 pairs with half an
example expected, in .58 with one, in .90 with 2.5, in .93 with ten. For the most and the least alike pair: see
reports/coverage."""

ROUNDING = 1e-9
"""Examples: 10 failures of 1,000 are a share that may be a little below .01, and .1 · .1 · 1,000 a little below 10."""

MIN_EXAMPLES = 4
"""With fewer test examples every measure is undefined: nothing about likeness can be told from three answers."""

# Reasons that several measures have, once each, so that a page can say them once.
UNDEFINED = "it is undefined on these examples"
ONE_MODEL = "two models at least are needed, and there is one"
FEW_MODELS = "{least} models at least are needed, and there are {models}"
NONE_WRONG = "no example is wrong in both models"
NO_PROBABILITIES = "it needs the probabilities of every run, and some run has none"
ALWAYS = "one of the models is always right or always wrong"
NO_REPLICAS = "it needs two runs or more of each model"
"""Why a number that is measured against replicas is undefined."""
FEW = f"fewer than {FEW_SHARED} examples that both fail are too few failures for an interval"
FEW_RIGHT = f"fewer than {FEW_SHARED} examples that both get right are too few for an interval"
NO_SPREAD = "one of the models is always right or always wrong in some run, so there is no interval"


def sampled(taken: int, examples: int) -> str:
    """What to mind about a number that was computed from some of the examples."""
    return f"from a random sample of {taken} of {examples} examples"


@dataclass(frozen=True)
class Pairs:
    """One number for each pair of models.

    value, low, high: (M, M) float64, symmetric, NaN where undefined (low and high also where there are no draws). The
        diagonal is the replica baseline: the mean over pairs of distinct replicas of the model.
    n: (M, M) int64, the examples each value rests on.
    reasons: (i, j) with i <= j -> why the value is undefined, or what to mind about it; every NaN of value has one.
    note: what holds for all pairs, e.g. that examples were sampled.
    parts: further numbers for the same pairs by name, e.g. `chance`, `maximum`.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    reasons: Mapping[tuple[int, int], str] = field(default_factory=dict)
    note: str = ""
    parts: Mapping[str, Pairs] = field(default_factory=dict)


@dataclass(frozen=True)
class PerModel:
    """One number for each model: as `Pairs`, with arrays (M,) and reasons by model index."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    reasons: Mapping[int, str] = field(default_factory=dict)
    note: str = ""
    parts: Mapping[str, PerModel] = field(default_factory=dict)


@dataclass(frozen=True)
class Scalar:
    """One number for the set of models.

    value, low, high: None where undefined; then `reason` says why. A reason beside a value is something to mind.
    n: the examples it rests on. parts: further numbers by name, e.g. `expected`.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str = ""
    parts: Mapping[str, Scalar] = field(default_factory=dict)


Result = Pairs | PerModel | Scalar
