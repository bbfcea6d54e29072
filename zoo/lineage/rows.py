"""The units of a group as rows of numbers, in the stored numbering or in one that was found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.units import Slots, Units

Load = Callable[[str], np.ndarray]

MOST_FEATURES = 8192
"""Numbers that a tensor gives for each unit: of longer rows (a vocabulary) as many, evenly spaced, are enough."""

MOST_NUMBERS = 2**27
"""Of a group, over all tensors that write it: half a GiB. Where there are more, every second column is left out, as
often as it takes."""

# A float32 number beyond these has a square that float32 does not hold.
_SMALLEST, _LARGEST = 1e-15, 1e15


@dataclass(frozen=True)
class Placed:
    """Where the units of a group are. order: (count,) int64, the stored index of each unit in the numbering that both
    models share; scale: (count,) float, by which readers are multiplied, in that numbering; None for 1."""

    order: np.ndarray
    scale: np.ndarray | None = None


def stored(groups: Sequence[Units]) -> dict[str, Placed]:
    """Every group in its stored numbering."""
    return {group.name: Placed(np.arange(group.count)) for group in groups}


def of_group(
    load: Load, group: Units, groups: Sequence[Units], placed: Mapping[str, Placed], usable: Collection[str]
) -> np.ndarray | None:
    """The units of a group by the weights that compute them, (count, width) float32, in stored order.

    A tensor whose inputs belong to a group that is not in `placed` is left out: its columns could not be put in order.
    That makes matchings of several groups independent, too: each is told by groups before it alone. placed: of the
    groups before; usable: names of the tensors that may be read. None when no tensor is left."""
    parts: list[np.ndarray] = []
    step = 1
    for slots in group.written:
        if slots.tensor not in usable:
            continue
        inputs = inputs_of(slots, groups)
        if any(other.name not in placed or other.name == group.name for other, _ in inputs):
            continue
        tensor = load(slots.tensor)
        if tensor.ndim < 2 or tensor.shape[slots.axis] < slots.start + group.count * slots.block:
            continue
        for other, at in inputs:
            tensor = reorder(tensor, at, other.count, placed[other.name])
        parts.append(_rows(tensor, slots, group.count)[:, ::step])
        while sum(part.size for part in parts) > MOST_NUMBERS and any(part.shape[1] > 1 for part in parts):
            step *= 2
            parts = [np.ascontiguousarray(part[:, ::2]) for part in parts]
    if not parts or not all(np.isfinite(part).all() for part in parts):  # a scale may have carried a number too far
        return None
    return np.concatenate(parts, axis=1)


def inputs_of(slots: Slots, groups: Sequence[Units]) -> list[tuple[Units, Slots]]:
    """The groups that stand on the other axes of a tensor, each with its places there."""
    return [
        (group, at)
        for group in groups
        for at in (*group.written, *group.read)
        if at.tensor == slots.tensor and at.axis != slots.axis
    ]


def reorder(tensor: np.ndarray, slots: Slots, count: int, placed: Placed) -> np.ndarray:
    """A tensor with the units on one of its axes put in order and, where they have one, multiplied by their scale."""
    index = np.arange(tensor.shape[slots.axis])
    within = placed.order[:, None] * slots.block + np.arange(slots.block)
    index[slots.start : slots.start + count * slots.block] = slots.start + within.reshape(-1)
    moved = np.take(tensor, index, axis=slots.axis)
    if placed.scale is None:
        return moved
    factors = np.ones(tensor.shape[slots.axis], dtype=tensor.dtype)
    with np.errstate(over="ignore"):
        factors[slots.start : slots.start + count * slots.block] = np.repeat(placed.scale, slots.block)
    shape = [1] * tensor.ndim
    shape[slots.axis] = -1
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(moved * factors.reshape(shape))


def _rows(tensor: np.ndarray, slots: Slots, count: int) -> np.ndarray:
    first = np.moveaxis(tensor, slots.axis, 0)[slots.start : slots.start + count * slots.block]
    first = first.reshape(len(first), -1)
    if first.shape[1] > MOST_FEATURES:
        first = first[:, np.linspace(0, first.shape[1] - 1, MOST_FEATURES).astype(np.int64)]
    return np.ascontiguousarray(first.reshape(count, -1), dtype=np.float32)


def lengths(rows: np.ndarray) -> np.ndarray:
    """Euclidean length of each row, (rows,), where its squares leave float32, too. rows: (rows, width) float."""
    with np.errstate(over="ignore"):
        found = np.linalg.norm(rows, axis=1)
    odd = (found < _SMALLEST) | (found > _LARGEST)
    if not odd.any():
        return np.asarray(found)
    found = found.astype(np.float64)
    found[odd] = np.linalg.norm(rows[odd].astype(np.float64), axis=1)
    return np.asarray(found)


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row divided by its length, in the type of `rows`; a row of zeros stays as it is."""
    norms = lengths(rows)[:, None]
    norms = np.where(norms == 0, 1, norms)
    if norms.dtype == rows.dtype:
        return np.asarray(rows / norms)
    made = np.empty_like(rows)
    np.divide(rows, norms, out=made, casting="same_kind")  # in float64, which holds both, a part at a time
    return made
