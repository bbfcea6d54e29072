"""What a sweep saves: `python tests/benchmarks/sweeps.py [--seeds 5] [--quick]`.

Three small models with several seeds each on rotten_tomatoes, trained

- separately: one command a run, one after the other, as they come;
- sweep: one command with -m, in this process;
- parallel: the same in as many processes as there are cores, one thread each (Hydra's joblib launcher).

Half of the separate runs go first and half last, so that a machine that slows down meets both alike. Prints the seconds
and the share, and exits with 1 when the better of the sweeps takes more than half the time of the separate runs. Beside
it stands what as many processes as there are cores compute at once, in multiples of one alone: cores of a virtual
machine may be two halves of one, and no sweep is faster than they are. Takes some ten minutes on two cores; `--quick`
only shows that it works.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from turns import closed, verdict

MODELS = ("mlp", "cnn", "transformer")
BAR = 0.5
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "passive"}


def seconds(folder: Path, words: Sequence[str]) -> float:
    """What `python -m zoo.run` with these words takes on the clock. folder: for its runs."""
    command = [sys.executable, "-m", "zoo.run", *words, "task=sentiment", "report=off", f"runs_dir={folder}"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - began


PRODUCTS = """
import sys, time, torch
torch.set_num_threads(1)
a, b, count, end = torch.randn(2000, 128), torch.randn(128, 512), 0, time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    a @ b
    count += 1
print(count)
"""


def capacity(processes: int, given: float) -> float:
    """How many times the matrix products of one process, alone for so many seconds, as many compute at once."""

    def products(count: int) -> int:
        command = [sys.executable, "-c", PRODUCTS, str(given)]
        at_work = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        return sum(int(one.communicate()[0]) for one in at_work)

    return products(processes) / products(1)


def accuracy(folder: Path, model: str) -> list[float]:
    """Test accuracy of each run of a model."""
    found = []
    for file in folder.glob(f"*/*/{model}/*/predictions.parquet"):
        table = pq.read_table(file, columns=["split", "label", "prediction"]).to_pydict()
        right = [
            label == said
            for split, label, said in zip(table["split"], table["label"], table["prediction"], strict=True)
            if split == "test"
        ]
        found.append(statistics.mean(right))
    return found


def main() -> int:
    """Exit code: 0, or 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few steps: shows that it works, measures nothing")
    asked = parser.parse_args()
    few = ["trainer.steps=2"] if asked.quick else []
    seeds = range(2 if asked.quick else asked.seeds)
    models = MODELS[:1] if asked.quick else MODELS
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    all_of_them = ["-m", f"model={','.join(models)}", f"seed={','.join(map(str, seeds))}", *few]
    processes = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={cores}", "trainer.threads=1"]
    with tempfile.TemporaryDirectory() as given:
        folders = {name: Path(given, name) for name in ("first", "separately", "sweep", "parallel")}
        for model in models:  # fills the cache of encoded texts, for all
            seconds(folders["first"], [f"model={model}", "trainer.steps=1"])
        cells = [[f"model={model}", f"seed={seed}", *few] for seed in seeds for model in models]
        half = len(cells) // 2
        separately = [seconds(folders["separately"], cell) for cell in cells[:half]]
        sweep = seconds(folders["sweep"], all_of_them)
        parallel = seconds(folders["parallel"], [*all_of_them, *processes])
        separately += [seconds(folders["separately"], cell) for cell in cells[half:]]
        taken = {"separately": sum(separately), "sweep": sweep, "parallel": parallel}
        many = capacity(cores, 1.0 if asked.quick else 10.0)
        print(f"{', '.join(models)} x {len(seeds)} seeds on {cores} cores; n = 1 of each way")
        print(
            f"{cores} processes at once compute {many:.2f} times what one does alone (matrix products, one thread each)"
        )
        for name, value in taken.items():
            found = {model: accuracy(folders[name], model) for model in models}
            means = ", ".join(f"{model} {statistics.mean(each):.3f} (n = {len(each)})" for model, each in found.items())
            print(f"{name:12}{value:8.1f} s   mean accuracy: {means}")
    best = min(sweep, parallel) / taken["separately"]
    spread = f"sweep {sweep / taken['separately']:.3f}, parallel {parallel / taken['separately']:.3f}"
    met = verdict("seconds, sweep / separately", best, spread, BAR, at_most=True)
    return closed(met, asked.quick)


if __name__ == "__main__":
    sys.exit(main())
