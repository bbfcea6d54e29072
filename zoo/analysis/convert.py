"""Results of measures as the numbers of a report."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from zoo.reporting.schema import Number, number

if TYPE_CHECKING:
    from zoo.homogeneity.results import Pairs, PerModel, Scalar

# What a measure says of its own accord, in the report's codes, which exist in every language. What matches none is
# shown as it is.
_CODES = (
    (r"has one run|replicas? needs two|needs two", "needs_replicas"),
    (r"^two models at least", "needs_two_models"),
    (r"^\d+ models at least", "needs_four_models"),
    (r"probabilities of every run", "needs_probabilities"),
    (r"of two classes", "needs_more_classes"),
    (r"test examples?\b.*too few|too few", "too_few_examples"),
    (r"never wrong", "no_errors"),
    (r"no example is failed by every model", "no_errors"),
    (r"do not fail together", "unreliable"),
)


def reason(text: str) -> str:
    """The report's code for a reason, or the text itself."""
    return next((code for pattern, code in _CODES if re.search(pattern, text)), text)


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
    return number(value, low, high, n, reason(text) or ("no_variation" if missing else None))


def finite(value: Any) -> float | None:
    """A float, or None where it is undefined or unbounded."""
    return float(value) if value is not None and math.isfinite(value) else None
