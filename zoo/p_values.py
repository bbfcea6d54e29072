"""How a p-value and any power of ten is written, everywhere: on the screen, in sentences, on the page, in Markdown."""

from __future__ import annotations

import math

LARGEST = 0.99
"""Above this only that is said: a p-value of 1.00 would claim what rounding made."""

SMALLEST = 1e-3
"""Below this only the power of ten is said that it stays under: its digits mean nothing."""

_LEAST = -300  # a float of 0 is a p-value that no float holds, or nearly
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def p_value(p: float, log10_p: float | None = None) -> str:
    """`0.31`, `0.0042`, `< 10⁻²¹⁵` (or `< 0.001`, the first power) and `> 0.99`; never 0 and never 1.

    p: in [0, 1]; log10_p: its decimal logarithm, where a float of p may be 0."""
    if p > LARGEST:
        return f"> {LARGEST}"
    if p >= SMALLEST:
        return f"{p:.2g}" if p < 0.0995 else f"{p:.2f}"
    power = _power(math.log10(p) if p > 0 else _LEAST if log10_p is None else log10_p)
    return f"< {SMALLEST}" if power == -3 else "< 10" + str(power).translate(_RAISED)


def p_said(p: float, log10_p: float | None = None) -> str:
    """`p = 0.31`, `p < 10⁻²¹⁵`: the same in a sentence."""
    text = p_value(p, log10_p)
    return f"p {text}" if text[0] in "<>" else f"p = {text}"


def scientific(text: str) -> str:
    """A number that Python writes as `5.04e-05` with its power of ten as people write it, `5.04 × 10⁻⁵`. The minus
    before the number and all other numbers stay."""
    digits, exponent, power = text.partition("e")
    return f"{digits} × 10{str(int(power)).translate(_RAISED)}" if exponent else text


def _power(logarithm: float) -> int:
    """The least power of ten that is above 10 to the logarithm."""
    return min(-3, math.floor(logarithm) + 1)
