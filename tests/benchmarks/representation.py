"""How long CKA takes beside torch_cka, and whether the values agree: `python tests/benchmarks/representation.py`.

Both get the same float32 features in the same batches, in one process and thread, taking turns: every layer of one
model with every layer of another. torch_cka runs through models whose layers look the features up. What is compared is
CPU time, which other processes disturb less than the clock. The values of both in float32 are compared with those of
torch_cka in float64. Exits with 1 when a bar is missed. `--quick` only shows that it works.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
import warnings
from dataclasses import dataclass

import torch

from zoo.homogeneity.representation import minibatch_cka_grid

TIMES_FASTER = 10
SAME = 1e-6


@dataclass(frozen=True)
class Case:
    """Layers of `widths` in both models, `examples` in batches of `batch`."""

    name: str
    examples: int
    batch: int
    widths: tuple[int, ...]


CASES = (
    Case("two encoders of 12 layers, all of a probe at once", 500, 500, (384,) * 12),
    Case("the same in batches", 1024, 256, (384,) * 12),
    Case("two networks of 6 narrow layers", 4096, 512, (64, 128, 128, 256, 256, 64)),
)
QUICK = (Case("quick", 64, 32, (8, 16)),)


class Layers(torch.nn.Module):
    """Layers that return given features of the examples that are asked for."""

    def __init__(self, features: list[torch.Tensor]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleDict({f"layer{number}": Table(values) for number, values in enumerate(features)})

    def forward(self, rows: torch.Tensor) -> None:
        """Look every layer up."""
        for part in self.parts.values():
            part(rows)


class Table(torch.nn.Module):
    """One such layer."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the features."""
        return self.values[rows]


def theirs(xs: list[torch.Tensor], ys: list[torch.Tensor], batch: int) -> torch.Tensor:
    """torch_cka's grid."""
    from torch_cka import CKA

    names = [f"parts.layer{number}" for number in range(len(xs))]
    rows = torch.utils.data.TensorDataset(torch.arange(len(xs[0])))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        measured = CKA(Layers(xs), Layers(ys), "x", "y", names, names)
        measured.compare(torch.utils.data.DataLoader(rows, batch))
    return measured.export()["CKA"]


def ours(xs: list[torch.Tensor], ys: list[torch.Tensor], batch: int) -> torch.Tensor:
    """The grid of the same batches."""
    starts = range(0, len(xs[0]), batch)
    rows = [slice(start, start + batch) for start in starts]
    return minibatch_cka_grid(([x[own] for x in xs], [y[own] for y in ys]) for own in rows)


def features(case: Case, seed: int) -> list[torch.Tensor]:
    """Layers that share three directions."""
    random = torch.Generator().manual_seed(seed)
    shared = torch.randn(case.examples, 3, generator=torch.Generator().manual_seed(0))
    return [
        shared @ torch.randn(3, width, generator=random) + torch.randn(case.examples, width, generator=random)
        for width in case.widths
    ]


def truth(xs: list[torch.Tensor], ys: list[torch.Tensor], batch: int) -> torch.Tensor:
    """torch_cka's grid in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        return theirs([x.double() for x in xs], [y.double() for y in ys], batch)
    finally:
        torch.set_default_dtype(torch.float32)


def measure(case: Case, repeats: int) -> bool:
    """Print one case; whether both bars are met."""
    xs, ys = features(case, 1), features(case, 2)
    seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
    grids = {}
    for _ in range(repeats + 1):  # the first turn warms up and does not count
        for name, way in (("theirs", theirs), ("ours", ours)):
            start = time.process_time()
            grids[name] = way(xs, ys, case.batch)
            seconds[name].append(time.process_time() - start)
    one, other = seconds["theirs"][1:], seconds["ours"][1:]
    ratios = sorted(slow / fast for slow, fast in zip(one, other, strict=True))
    exact = truth(xs, ys, case.batch)
    amiss = {name: float((grid.double() - exact).abs().max()) for name, grid in grids.items()}
    print(
        f"{case.name}: {len(xs)} × {len(ys)} layers of {min(case.widths)}–{max(case.widths)}, "
        f"n = {case.examples}, batches of {case.batch}\n"
        f"  torch_cka {statistics.median(one):.4g} s, zoo {statistics.median(other):.4g} s: "
        f"{statistics.median(ratios):.1f} times as fast "
        f"({ratios[0]:.1f}–{ratios[-1]:.1f}, {repeats} turns; bar {TIMES_FASTER})\n"
        f"  off the values in float64 by at most {amiss['ours']:.1e} (bar {SAME:.0e}; torch_cka {amiss['theirs']:.1e})"
    )
    return statistics.median(ratios) >= TIMES_FASTER and amiss["ours"] <= SAME


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small case without bars")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {torch.get_num_threads()} thread, torch {torch.__version__}")
    met = [measure(case, options.repeats) for case in (QUICK if options.quick else CASES)]
    return 0 if options.quick or all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
