"""One notation for p-values: what is written is true of the number, and is never 0 or 1."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.p_values import p_said, p_value

_PLAIN = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


@pytest.mark.parametrize(
    ("p", "log10_p", "said"),
    [
        (1.0, None, "> 0.99"),
        (0.995, None, "> 0.99"),
        (0.99, None, "0.99"),
        (0.3149, None, "0.31"),
        (0.0995, None, "0.10"),
        (0.0994, None, "0.099"),
        (0.0, -16671.2, "< 10⁻¹⁶⁶⁷¹"),
        (2.59e-216, None, "< 10⁻²¹⁵"),
        (0.0, None, "< 10⁻²⁹⁹"),
        (1e-3, None, "0.001"),
        (9.9e-4, None, "< 0.001"),
        (1e-4, None, "< 0.001"),
        (9e-5, None, "< 10⁻⁴"),
    ],
)
def test_as_people_write_them(p: float, log10_p: float | None, said: str) -> None:
    assert p_value(p, log10_p) == said


@given(st.one_of(st.floats(0, 1), st.floats(-30, 0).map(lambda power: 10.0**power)))
def test_what_is_written_is_true_and_neither_0_nor_1(p: float) -> None:
    said = p_value(p)
    assert re.fullmatch(r"(< |> )?\d[\d.]*(⁻[⁰¹²³⁴⁵⁶⁷⁸⁹]+)?", said)
    text = said.lstrip("<> ").translate(_PLAIN)
    number = 10.0 ** int(text[2:]) if text.startswith("10-") else float(text)
    assert 0 < number < 1
    if said.startswith("<"):
        assert p < number <= 1e-3
        assert p * 10 >= number * (1 - 1e-9) or number == 1e-299
    elif said.startswith(">"):
        assert p > number
    else:
        assert math.isclose(p, number, rel_tol=0.05)
    assert p_said(p) in (f"p {said}", f"p = {said}")
