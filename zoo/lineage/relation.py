"""What became of each single tensor: is it the same, rounded, pruned, quantised, or simply another?

These relations are exact. A third model that was trained on from a common ancestor does not show them: not one of its
numbers would stay as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["identical", "rounded", "pruned", "quantised", "changed", "constant", "not finite"]
"""identical: the same numbers; rounded: to the other's storage type; pruned: zeros in the place of some numbers, the
others the same; quantised: each number within half a step of the other's grid; constant: both hold one repeated number,
as fresh biases and norms do, and tell nothing; not finite: NaN or infinity in one of them."""

Side = Literal["a", "b"]

BITS = (8, 4, 2, 3, 5, 6, 7)
FEWEST_ON_A_GRID = 16
FEWEST_ELSEWHERE = (
    4  # numbers that are not on the outermost step: norms' scales, hardly trained, are all near one number
)
_SAMPLE = 64
_OFF_GRID = 0.01  # of a step: what float32 leaves of a whole number …
_ROUNDED = 6e-4  # … and half precision, of the number
_MOST_STEPS = 128
_MOST_ROWS_OFF = 0.01  # clipped outliers put some rows off their grid


@dataclass(frozen=True)
class Relation:
    """One tensor of a pair. later: which side is the one that lost something, None when neither is told;
    numbers: how many it holds; finite: whether neither side has a NaN or an infinity."""

    name: str
    kind: Kind
    numbers: int
    later: Side | None = None
    finite: bool = True


def relate(name: str, a: np.ndarray, b: np.ndarray, types: tuple[str, str] = ("F32", "F32")) -> Relation:
    """How two tensors of one shape are related. a, b: float32; types: as stored, by safetensors' names."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        same = np.array_equal(a, b, equal_nan=True) and types[0] == types[1]
        return Relation(name, "identical" if same else "not finite", a.size, finite=False)
    if np.array_equal(a, b):
        constant = bool((a == a.reshape(-1)[0]).all())
        return Relation(name, "constant" if constant else "identical", a.size)
    # Steps and squares of numbers near the ends of float32 leave it: such a number is then on no grid.
    with np.errstate(all="ignore"):
        kind, later = _lost(a, b, types)
    return Relation(name, kind, a.size, later)


def _lost(a: np.ndarray, b: np.ndarray, types: tuple[str, str]) -> tuple[Kind, Side | None]:
    """What one of two differing tensors lost, and which one, the most exact relation first."""
    sides: tuple[tuple[Side, np.ndarray, np.ndarray], ...] = (
        ("b", _as_stored(a, types[1]), b),
        ("a", _as_stored(b, types[0]), a),
    )
    tests: tuple[tuple[Kind, Callable[[np.ndarray, np.ndarray], bool]], ...] = (
        ("rounded", np.array_equal),
        ("pruned", _is_pruned),
        ("quantised", _is_quantised),
    )
    for kind, holds in tests:
        for later, whole, lossy in sides:
            if holds(whole, lossy):
                return kind, later
    return "changed", None


def _as_stored(values: np.ndarray, kind: str) -> np.ndarray:
    """What a storage type keeps of float32 values, as float32."""
    import torch

    types = {"F16": torch.float16, "BF16": torch.bfloat16}
    if kind not in types:
        return values
    kept: np.ndarray = torch.from_numpy(values).to(types[kind]).to(torch.float32).numpy()
    return kept


def _is_pruned(whole: np.ndarray, pruned: np.ndarray) -> bool:
    kept = pruned != 0
    lost = int((~kept & (whole != 0)).sum())
    # A handful of numbers may agree by chance, as those of a short bias with one changed entry do.
    return lost > 0 and int(kept.sum()) >= FEWEST_ON_A_GRID and np.array_equal(whole[kept], pruned[kept])


def _is_quantised(whole: np.ndarray, grid: np.ndarray) -> bool:
    """Whether `grid` is `whole` rounded to a symmetric grid of 2 to 8 bits, one step a tensor or a row; of int8 numbers
    stored without their step, the step is 1."""
    if grid.size < FEWEST_ON_A_GRID:
        return False
    return any(_has_levels(rows[1]) and _on_a_grid(*rows) for rows in _views(whole, grid))


def _has_levels(grid: np.ndarray) -> bool:
    """Whether most rows have two levels but zero: one number, repeated, is a grid of anything."""
    present = grid != 0
    alive = present.any(axis=1)
    highest = np.where(present, grid, -np.inf).max(axis=1)[alive]
    lowest = np.where(present, grid, np.inf).min(axis=1)[alive]
    return bool(alive.any()) and float((highest > lowest).mean()) > 0.5


def _on_a_grid(whole: np.ndarray, grid: np.ndarray) -> bool:
    """whole, grid: (rows, width), each row with a step of its own."""
    largest = np.abs(grid).max(axis=1, keepdims=True)
    alive = np.flatnonzero(largest[:, 0] > 0)
    some_rows = (
        alive[np.linspace(0, len(alive) - 1, min(len(alive), _SAMPLE)).astype(np.int64)] if len(alive) else alive
    )
    some = slice(None, None, max(1, grid.shape[1] // _SAMPLE**2))
    # A few numbers rule out nearly every grid; all of them are looked at only for what is left.
    steps = [np.ones_like(largest), *(largest / (2 ** (bits - 1) - 1) for bits in BITS)]
    left = [
        step
        for step in steps
        if len(alive) and _fits_grid(whole[some_rows, some], grid[some_rows, some], step[some_rows]).any()
    ]
    on_grid, telling = np.zeros(len(alive), dtype=bool), np.zeros(len(alive), dtype=bool)
    for step in left:
        fits = _fits_grid(whole[alive], grid[alive], step[alive])
        on_grid |= fits
        telling |= fits & _uses_steps(grid[alive], step[alive])
    return bool(left) and float((~on_grid).mean()) <= _MOST_ROWS_OFF and float(telling.mean()) > 0.5


def _uses_steps(grid: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(rows,) bool: some of a row's numbers are on another step than the largest; otherwise its grid tells nothing."""
    nearest = np.round(grid / step)
    outermost = np.take_along_axis(nearest, np.abs(nearest).argmax(axis=1)[:, None], axis=1)
    return np.asarray((nearest != outermost).sum(axis=1) >= FEWEST_ELSEWHERE)


def _views(whole: np.ndarray, grid: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """As one row, and, where rows are long enough to tell, row by row."""
    yield whole.reshape(1, -1), grid.reshape(1, -1)
    if whole.ndim >= 2 and whole[0].size >= FEWEST_ON_A_GRID:
        yield whole.reshape(len(whole), -1), grid.reshape(len(grid), -1)


def _fits_grid(whole: np.ndarray, grid: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(rows,) bool: all of a row's numbers are whole steps, and no more than half a step from where they were."""
    places = grid / step
    nearest = np.round(places)
    off = np.abs(places - nearest) - _ROUNDED * np.abs(nearest)
    most = np.abs(nearest).max(axis=1)
    whole_steps = (off.max(axis=1) <= _OFF_GRID) & (most >= 1) & (most <= _MOST_STEPS)
    if not whole_steps.any():
        return np.asarray(whole_steps)
    # Where the step was not stored, the one that fits best stands for it.
    power = (grid * grid).sum(axis=1, keepdims=True)
    fitted = (whole * grid).sum(axis=1, keepdims=True) / np.where(power == 0, 1, power)
    near = np.abs(whole - grid).max(axis=1) <= (0.5 + _OFF_GRID) * step[:, 0]
    scaled = np.abs(whole - fitted * grid).max(axis=1) <= (0.5 + 2 * _OFF_GRID) * step[:, 0] * np.abs(fitted[:, 0])
    return np.asarray(whole_steps & (near | scaled))


@dataclass(frozen=True)
class Summary:
    """All tensors of a pair together. numbers: by kind; later: the side that every loss of information is on, None when
    there is none or they disagree; tensors: how many were compared."""

    numbers: dict[Kind, int]
    later: Side | None
    tensors: int

    def share(self, *kinds: Kind) -> float:
        """Of the numbers that tell something, the share in tensors of these kinds; NaN when nothing tells."""
        telling = sum(count for kind, count in self.numbers.items() if kind not in ("constant", "not finite"))
        return sum(self.numbers.get(kind, 0) for kind in kinds) / telling if telling else float("nan")


def summarise(relations: Iterable[Relation]) -> Summary:
    """Count the tensors of a pair by what became of them."""
    numbers: dict[Kind, int] = {}
    sides = set()
    tensors = 0
    for relation in relations:
        tensors += 1
        numbers[relation.kind] = numbers.get(relation.kind, 0) + relation.numbers
        if relation.later is not None:
            sides.add(relation.later)
    return Summary(numbers, sides.pop() if len(sides) == 1 else None, tensors)
