"""What torch.compile makes of the engine's training step on this processor: `python tests/benchmarks/compiling.py`.

For each model two processes train on rotten_tomatoes with one seed, one with trainer.compile=none and one with default,
and take turns, step by step: whatever else the machine does meets both alike. A step has the same batch in both, so
steps are compared in pairs. The first ones, in which torch compiles (with an empty cache), are left out of the ratio
and told apart: what they took beyond the eager ones is the price.

Prints, for each model, the ratio with its interval and n, the price, how many graphs were compiled (torch gives a model
up when each length needs one of its own: after eight it is called as it is), and, where compiled steps are faster by
more than the noise, after how many seconds of eager training the price is earned back. There is no bar. Takes some ten
minutes on two cores; `--quick` only shows that it works.
"""

from __future__ import annotations

import os

# Threads that spin while they wait would take the cores from the contender whose turn it is. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from engine import Work, prepare, versions, warm_up
from turns import SEED, Entry, Turn, closed, race

from zoo.config import Compile
from zoo.engine import compiling, devices, training

MODELS = ("mlp", "cnn", "transformer", "bert")
SETTLED = 12  # steps after which nothing is compiled any more; batches of a second size come later, and are few
SETTLED_QUICK = 2
DRAWS = 2000
GRAPHS = "graphs"


class Turns:
    """The engine's reporter: gives the turn away after each step, leaves the evaluation out of the time, and notes in a
    file how many graphs were compiled."""

    def __init__(self, turn: Turn, noted: Path) -> None:
        self.turn, self.noted, self.graphs = turn, noted, 0

    def step(self, *_told: object) -> None:
        if (graphs := compiling.compilations()) > self.graphs:
            self.graphs = graphs
            self.noted.write_text(str(graphs), encoding="ascii")
        self.turn.done()

    def epoch(self, _row: Mapping[str, float]) -> None:
        self.turn.restart_clock()


def train(work: Work, turn: Turn, way: Compile) -> None:
    """The code path of a run."""
    bench = prepare(work)
    job = dataclasses.replace(bench.job, trainer=dataclasses.replace(bench.trainer, compile=way))
    with devices.threads(job.placement.threads):
        warm_up(bench)
        turn.ready()
        training.train(bench.module, job, Turns(turn, Path(work.folder, GRAPHS)))


def eager(work: Work, turn: Turn) -> None:
    """As it is."""
    train(work, turn, Compile.none)


def compiled(work: Work, turn: Turn) -> None:
    """With torch.compile."""
    train(work, turn, Compile.default)


def median_ratio(over: np.ndarray, under: np.ndarray) -> tuple[float, float, float]:
    """Median of over / under, pair by pair, and its 95 % interval (bootstrap over pairs); both (steps,) float64."""
    pairs = over / under
    rows = np.random.default_rng(SEED).integers(0, len(pairs), (DRAWS, len(pairs)))
    low, high = np.quantile(np.median(pairs[rows], axis=1), (0.025, 0.975))
    return float(np.median(pairs)), float(low), float(high)


def report(work: Work) -> None:
    """Race the two for one epoch and print what was found."""
    bench = prepare(work)
    times = race((Entry("eager", eager), Entry("compiled", compiled)), work, training.budget(bench.job))
    ours, theirs = times["compiled"].clock, times["eager"].clock
    settled = SETTLED_QUICK if work.quick else SETTLED
    price = float((ours[:settled] - theirs[:settled]).sum())
    ratio, low, high = median_ratio(ours[settled:], theirs[settled:])
    processor, _, _ = median_ratio(times["compiled"].processor[settled:], times["eager"].processor[settled:])
    earned = f"earned back after {price / (1 - ratio):.0f} s" if high < 1 else "not earned back"
    graphs = Path(work.folder, GRAPHS).read_text(encoding="ascii")
    placement = bench.job.placement
    print(
        f"{work.model:12}compiled / eager step {ratio:.3f} (95 % {low:.3f}–{high:.3f}), of processor time "
        f"{processor:.3f}, n = {len(ours) - settled}; eager {1e3 * np.median(theirs[settled:]):.1f} ms, compiling "
        f"{price:.1f} s, graphs {graphs}, {earned}; {placement.precision.value}, threads {placement.threads}",
        flush=True,
    )


def main() -> int:
    """Exit code: 0; nothing is judged here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps: shows that it works, measures nothing")
    quick = parser.parse_args().quick
    known = devices.hardware()
    print(f"{', '.join(versions())}\n{known['cpu']}, {known['cores']} cores, {known['system']}", flush=True)
    for model in MODELS[:1] if quick else MODELS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # the contenders' processes inherit it
            report(Work(model, folder, quick))
    return closed(True, quick)


if __name__ == "__main__":
    sys.exit(main())
