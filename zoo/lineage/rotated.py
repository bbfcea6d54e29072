"""What a rotation of the residual stream leaves as it was.

A Transformer computes the same when its residual stream is rotated, its norms' scales having been moved into the layers
that follow (Ashkboos et al. 2024). No coordinate is then what it was, but each row of a table keeps its length.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.lineage.rows import Load, lengths
from zoo.units import Units

RESIDUAL = "residual"
"""The name of the group that is a residual stream."""

FEWEST_ROWS = 50
UNRELATED = 0.5
"""Rank correlation of row lengths up to which one table is not taken for the other rotated, which would have 1. Small
changes lower it: it is a heuristic."""


@dataclass(frozen=True)
class RowNorms:
    """rho: Spearman's coefficient of the lengths of the rows of the longest table; rows: how many; tensor: its name."""

    rho: float
    rows: int
    tensor: str

    @property
    def unrelated(self) -> bool:
        """Whether one is hardly the other rotated."""
        return self.rho <= UNRELATED


def row_norms(load_a: Load, load_b: Load, groups: Sequence[Units], usable: Collection[str]) -> RowNorms | None:
    """Compare the row lengths of the longest table that feeds a residual stream. load_a, load_b: as `align`; usable:
    names of tensors that both have and that are not the same in both. None without a table of 50 rows of different
    lengths."""
    names = [
        slots.tensor
        for group in groups
        for slots in group.written
        if group.name == RESIDUAL and slots.axis == 1 and slots.tensor in usable
    ]
    found = [one for name in dict.fromkeys(names) if (one := _compared(load_a(name), load_b(name), name))]
    return max(found, key=lambda one: one.rows, default=None)


def _compared(a: np.ndarray, b: np.ndarray, name: str) -> RowNorms | None:
    from scipy.stats import spearmanr

    if a.ndim != 2 or a.shape != b.shape or len(a) < FEWEST_ROWS:
        return None
    one, two = (lengths(table) for table in (a, b))
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return None
    return RowNorms(float(spearmanr(one, two).statistic), len(a), name)
