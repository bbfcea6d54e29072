"""What a user waits for: `python -m zoo.run model=bert task=sentiment` from its start to its end, beside a script with
transformers' Trainer (`whole_trainer.py`) that does the same work.

    python tests/benchmarks/whole.py [--pairs 5] [--epochs 2] [--quick]

Both fine-tune one checkpoint on rotten_tomatoes with one recipe: batch size, epochs, learning rate, schedule, clipping,
precision, device; evaluate on validation after each epoch; answer the test split with the best epoch's weights and
write these answers. A run keeps more than the script: answers of both splits in float32, layer outputs, intervals,
checksums. Each is a process of its own, its time is that of the clock from before the process until after it; they take
turns, and who goes first changes from pair to pair. The encoding cache is empty each time.

Prints each time, the accuracies, and the ratio with its interval and bar; exits with 1 when the bar is missed. Takes
some twenty minutes on two cores; `--quick` only shows that it works.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from turns import SEED, bootstrap, closed, verdict

import zoo
from zoo.data.packaged import RottenTomatoes

BAR = 1.2
SCRIPT = Path(__file__).with_name("whole_trainer.py")
# What `zoo.run` sets by itself: threads that spin while they wait cost either of them.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "passive"}


def timed(command: list[str], **further: str) -> tuple[float, str]:
    """Seconds on the clock of a command that ends well, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**ENVIRONMENT, **further})
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds, done.stdout


def of_zoo(folder: Path, words: list[str]) -> tuple[float, Path]:
    """A run with these words and an empty cache: its seconds and its folder."""
    command = [sys.executable, "-m", "zoo.run", "model=bert", "task=sentiment", f"runs_dir={folder}/runs", *words]
    seconds, _ = timed(command, ZOO_CACHE=f"{folder}/cache")
    (record,) = folder.glob("runs/*/*/*/*/run.json")
    return seconds, record.parent


def of_trainer(data: Path, folder: Path) -> tuple[float, float]:
    """The script: its seconds and its test accuracy."""
    seconds, printed = timed([sys.executable, str(SCRIPT), str(data), str(folder)])
    return seconds, float(json.loads(printed.strip().splitlines()[-1])["test_accuracy"])


def prepare(data: Path, record: Mapping[str, Any], steps: int) -> None:
    """Write the splits and the recipe of a run for the script."""
    from zoo_bert import DEFAULT_CHECKPOINT, find_checkpoint

    splits = zoo.load(RottenTomatoes())
    for split in (splits.train, splits.validation, splits.test):
        pairs = zip(split.examples, split.labels, strict=True)
        lines = [json.dumps({"text": str(text), "label": int(label)}) for text, label in pairs]
        (data / f"{split.name}.jsonl").write_text("\n".join(lines))
    trainer, training = record["config"]["trainer"], record["training"]
    named = ("epochs", "batch_size", "learning_rate", "weight_decay", "warmup", "clip")
    recipe = {name: trainer[name] for name in named} | {
        "checkpoint": str(find_checkpoint(DEFAULT_CHECKPOINT).folder),
        "max_length": record["config"]["model"]["max_length"],
        "bf16": training["precision"] == "bf16",
        "device": training["device"],
        "steps": steps,
        "seed": SEED,
    }
    (data / "recipe.json").write_text(json.dumps(recipe))


def main() -> int:
    """Exit code: 0, or 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few steps: shows that it works, measures nothing")
    asked = parser.parse_args()
    words = [f"trainer.epochs={asked.epochs}", f"seed={SEED}"]
    steps = ["trainer.steps=2"] if asked.quick else []
    names = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "accelerate"))
    print(f"Python {platform.python_version()}, {names}, zoo {zoo.__version__}", flush=True)
    taken: dict[str, list[float]] = {"zoo": [], "Trainer": []}
    right: dict[str, list[float]] = {"zoo": [], "Trainer": []}
    with tempfile.TemporaryDirectory() as given:
        data = Path(given, "data")
        data.mkdir()
        # The first of all fills the disk's cache and tells the recipe.
        _, folder = of_zoo(Path(given, "first"), [*words, "trainer.steps=1"])
        record = json.loads((folder / "run.json").read_text())
        hardware = record["hardware"]
        print(hardware.get("gpu", hardware["cpu"]), flush=True)
        prepare(data, record, 2 if asked.quick else -1)
        for pair in range(1 if asked.quick else asked.pairs):
            for name in ("zoo", "Trainer") if pair % 2 == 0 else ("Trainer", "zoo"):
                place = Path(given, f"{name}-{pair}")
                place.mkdir()
                if name == "zoo":
                    seconds, folder = of_zoo(place, [*words, *steps])
                    accuracy = json.loads((folder / "metrics.json").read_text())["accuracy"]["value"]
                else:
                    seconds, accuracy = of_trainer(data, place)
                taken[name].append(seconds)
                right[name].append(accuracy)
                print(f"pair {pair + 1}  {name:8}{seconds:8.1f} s   test accuracy {accuracy:.4f}", flush=True)
    ours, theirs = (np.array(taken[name]) for name in ("zoo", "Trainer"))
    print(f"median  zoo {np.median(ours):.1f} s, Trainer {np.median(theirs):.1f} s, n = {len(ours)} each")
    low, high = bootstrap(theirs, ours)
    met = verdict("seconds, Trainer / zoo.run", float(theirs.mean() / ours.mean()), f"95 % {low:.3f}–{high:.3f}", BAR)
    return closed(met, asked.quick)


if __name__ == "__main__":
    sys.exit(main())
