"""What a person waits for: listing and help come at once, since neither imports a framework."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "sklearn", "scipy", "pyarrow", "datasets", "matplotlib"}


def seconds(arguments: list[str], folder: Path) -> float:
    """User and system time of the quickest of three: other work on the machine slows the rest."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", *arguments], cwd=folder, check=True, capture_output=True, env=plain())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def plain() -> dict[str, str]:
    """The environment without a coverage measurement, which takes its time."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE", "ZOO_"))}


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        (["zoo.ls"], 0.7),
        (["zoo.run", "--help"], 1.2),
        (["zoo.run", "model=mlp", "task=image_classification", "--help"], 1.2),
    ],
)
def test_it_comes_at_once(tmp_path: Path, arguments: list[str], most: float) -> None:
    assert seconds(arguments, tmp_path) < most


@pytest.mark.parametrize(
    "command",
    [
        "from zoo import ls; ls.main([])",
        "from zoo import launch; launch.command(['--help', 'model=mlp'])",
        "from zoo import launch; launch.command(['model=mlp', '--cfg', 'job'])",
        "from zoo import launch; launch.command(['model=brt'])",
        "from zoo import bench; bench.command(['--help']); from zoo.benchmark import contestants, turns, worker",
    ],
)
def test_no_framework_is_imported(tmp_path: Path, command: str) -> None:
    code = f"{command}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=plain())
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


def test_the_help_names_what_is_installed_and_every_option(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zoo.run", "--help", "model=cnn", "dataset=table"],
        cwd=tmp_path, capture_output=True, text=True, check=True, env=plain(),
    )  # fmt: skip
    assert done.stderr == ""
    for word in (
        "model      bert, cnn,",
        "mnist_dense",
        "trainer.epochs",
        "seed",
        "rerun",
        "adamw, adam or sgd",
        "--cfg job",
    ):
        assert word in done.stdout
    assert "Options of model cnn: " in done.stdout
    assert "model.kernels" in done.stdout
    assert "texts: words that a convolution spans, one convolution each" in done.stdout
    assert "dataset.path" in done.stdout
    assert "model.trainable_layers" not in done.stdout
    assert "\x1b" not in done.stdout
