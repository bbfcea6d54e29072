"""R3: how alike are two models once their units have been matched? Calibrated on replicas, it is the workhorse."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.lineage import rows
from zoo.lineage.exact import assign, match
from zoo.lineage.multiple import ENOUGH_REPLICAS
from zoo.lineage.rows import Load, Placed
from zoo.units import Units

MOST_MATCHED = 16_384
"""Units of a group that are matched; for more, time (cubic) and memory (a square of cosines) are not bounded."""

CHANCE_DRAWS = 99
CHANCE_UNITS = 128  # of a group, on which chance is estimated: a part is far cheaper
SAME = 1e-5
"""Rows nearer than this (1 - cosine) are the same numbers but for rounding to half precision (bfloat16: 2e-6)."""

MOST_SAME_BY_RANK = 8  # rows this short may be near each other without being the same


@dataclass(frozen=True)
class Aligned:
    """R3 of a pair. groups: name → mean cosine of matched rows; lowest: the smallest cosine of any matched row that is
    not zero, NaN when there is none; telling: groups with rows so long that they are not near each other by chance;
    chance: (draws,) mean over groups of such means when the columns of
    one are shuffled, part: the same without shuffling, both on the first 128 units of each group, None when they were
    not asked for; placed_a, placed_b: the numbering that was found; units: how many were matched."""

    groups: Mapping[str, float]
    lowest: float
    chance: np.ndarray | None
    part: float
    placed_a: Mapping[str, Placed]
    placed_b: Mapping[str, Placed]
    units: int
    telling: frozenset[str] = frozenset()

    @property
    def score(self) -> float:
        """Mean over groups, in [-1, 1]; NaN without a group."""
        return float(np.mean(list(self.groups.values()))) if self.groups else float("nan")

    @property
    def above_chance(self) -> bool:
        """Whether they are more alike than all 99 matchings of shuffled columns. A heuristic: shuffling undoes more
        than descent, so that a no tells more than a yes. False when chance was not asked for."""
        return self.chance is not None and bool(self.part > self.chance.max())


def align(load_a: Load, load_b: Load, groups: Sequence[Units], usable: Collection[str], chance: bool = True) -> Aligned:
    """Match the units of two models group by group, in the order of the groups. load_a, load_b: tensors by the names
    of a; usable: names that both have, in one shape and finite. Each matching orders the columns of the groups that
    follow; units that may be rescaled are brought to one size first. Groups of more than
    `MOST_MATCHED` units are left out."""
    placed_a: dict[str, Placed] = {}
    placed_b: dict[str, Placed] = {}
    scores: dict[str, float] = {}
    by_chance: list[tuple[np.ndarray, float]] = []
    lowest: list[float] = []
    telling: set[str] = set()
    for group in groups:
        if group.count > MOST_MATCHED:
            continue
        a = rows.of_group(load_a, group, groups, placed_a, usable)
        b = rows.of_group(load_b, group, groups, placed_b, usable)
        if a is None or b is None or a.shape != b.shape:
            continue
        order, cosines = match(a, b)
        scores[group.name] = float(cosines.mean())
        if (alive := a.any(axis=1)).any():
            lowest.append(float(cosines[alive].min()))
            telling |= {group.name} if a.shape[1] >= MOST_SAME_BY_RANK else set()
        if chance:
            by_chance.append(_chance(a, b))
        straight = np.arange(group.count)
        placed_a[group.name] = Placed(straight, _scale(load_a, group, a, straight, usable))
        placed_b[group.name] = Placed(order, _scale(load_b, group, b, order, usable))
    units = sum(group.count for group in groups if group.name in scores)
    draws = np.mean([shuffled for shuffled, _ in by_chance], axis=0) if by_chance else None
    part = float(np.mean([real for _, real in by_chance])) if by_chance else float("nan")
    least = min(lowest, default=float("nan"))
    return Aligned(scores, least, draws, part, placed_a, placed_b, units, frozenset(telling))


def _scale(load: Load, group: Units, a: np.ndarray, order: np.ndarray, usable: Collection[str]) -> np.ndarray | None:
    if not group.homogeneous:
        return None
    if group.scaled_by is not None and group.scaled_by in usable:
        return np.asarray(np.abs(load(group.scaled_by))[order])
    return np.asarray(rows.lengths(a)[order])


def _chance(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[np.ndarray, float]:
    """(mean cosine of each matching with shuffled columns, that without), on the first units of both."""
    # Shuffling columns leaves lengths as they are; of the transpose, it is whole rows that move.
    one, two = rows.unit(a[:CHANCE_UNITS]), np.ascontiguousarray(rows.unit(b[:CHANCE_UNITS]).T)
    random = np.random.default_rng(seed)
    shuffled = [assign(one @ two[random.permutation(len(two))])[1].mean() for _ in range(CHANCE_DRAWS)]
    return np.array(shuffled), float(assign(one @ two)[1].mean())


def in_one_order(tensor: np.ndarray, name: str, groups: Sequence[Units], placed: Mapping[str, Placed]) -> np.ndarray:
    """A whole tensor with the units on every axis in the numbering that was found, nothing rescaled."""
    for group in groups:
        for slots in (*group.written, *group.read):
            if slots.tensor == name and group.name in placed:
                tensor = rows.reorder(tensor, slots, group.count, Placed(placed[group.name].order))
    return tensor


@dataclass(frozen=True)
class Calibrated:
    """R3 against replicas. score: of the pair, over the groups that all replicas share; p: conformal, of this pair
    alone; highest: the best score of a replica; on_trust: what the p-value assumes and no record confirms, of the
    replicas or of the second model; empty when records confirm it all."""

    score: float
    p: float
    replicas: int
    highest: float
    on_trust: str = ""

    @property
    def as_high(self) -> int:
        """How many replicas score as high as the pair."""
        return round(self.p * (1 + self.replicas)) - 1

    @property
    def enough(self) -> bool:
        """Whether p could be small enough for one pair."""
        return self.replicas >= ENOUGH_REPLICAS


def calibrate(score: float, replicas: Sequence[float]) -> Calibrated:
    """Conformal p-value of a score among those of replicas, which were trained independently on the same data:
    (1 + replicas with at least this score) / (replicas + 1). Raises ValueError without replicas or for NaN."""
    if not len(replicas) or not np.isfinite([score, *replicas]).all():
        raise ValueError(f"score {score} among {len(replicas)} replicas")
    as_high = sum(other >= score for other in replicas)
    return Calibrated(score, (1 + as_high) / (1 + len(replicas)), len(replicas), max(replicas))
