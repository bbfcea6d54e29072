"""Results of measures as the numbers of a report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from zoo.homogeneity.results import UNDEFINED
from zoo.reporting.schema import Number, number

if TYPE_CHECKING:
    from zoo.homogeneity.results import Pairs, PerModel, Scalar

# Reasons are English clauses; `zoo/reporting/languages` has them in the other languages.
NO_PAIR = "no two models that are neither constant nor always right nor always wrong have a defined likeness"
NO_SPREAD = "the draws of the bootstrap leave no spread to judge by"
SAME_ANSWERS = "its runs answer the same here"
SOME_PAIR = "the likeness of some pair is undefined"


def from_scalar(found: Scalar) -> Number:
    """A measure of the set."""
    return _number((found.value, found.low, found.high), found.n, found.reason)


def from_pairs(found: Pairs, a: int, b: int) -> Number:
    """A measure of one pair."""
    values = (float(found.value[a, b]), float(found.low[a, b]), float(found.high[a, b]))
    return _number(values, int(found.n[a, b]), found.reasons.get((min(a, b), max(a, b)), ""))


def from_models(found: PerModel, model: int) -> Number:
    """A measure of one model."""
    values = (float(found.value[model]), float(found.low[model]), float(found.high[model]))
    return _number(values, int(found.n[model]), found.reasons.get(model, ""))


def _number(values: tuple[float | None, float | None, float | None], n: int, text: str) -> Number:
    """values: value, low, high. A text beside a value is something to mind, without one it is why."""
    value, low, high = values
    missing = value is None or not math.isfinite(value)
    return number(value, low, high, n, text or (UNDEFINED if missing else None))


def finite(value: Any) -> float | None:
    """A float, or None where it is undefined or unbounded."""
    return float(value) if value is not None and math.isfinite(value) else None
