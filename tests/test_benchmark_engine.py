"""The benchmark runs and says what it measured. What it measures is not judged here: a test machine is busy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "engine.py"


@pytest.mark.slow
def test_the_benchmark_runs_and_states_versions_hardware_and_each_ratio_with_its_bar() -> None:
    for needed in ("transformers", "accelerate", "zoo_bert"):
        pytest.importorskip(needed)
    done = subprocess.run([sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    first, second, model, *_ = done.stdout.splitlines()
    assert re.fullmatch(r"Python [\d.]+, zoo-harness \S+, torch \S+, transformers \S+, numpy \S+", first)
    assert " cores, " in second
    assert model.endswith("reviews in batches of 32")
    assert re.findall(r"^(engine|by hand|plain|Trainer) +[\d.]+ +\S+–\S+ +[\d.]+ +(\d)$", done.stdout, re.M) == [
        ("engine", "4"), ("by hand", "4"), ("plain", "2"), ("Trainer", "4"),
    ]  # fmt: skip
    verdicts = re.findall(r"^(\S.*?) +[\d.]+ .*bar (\S \S+) +(?:met|MISSED)$", done.stdout, re.M)
    assert verdicts == [
        ("step time, engine / by hand", "≤ 1.03"),
        ("examples/s, engine / plain", "≥ 2.0"),
        ("examples/s, engine / Trainer", "≥ 1.0"),
        ("python -m zoo.ls, user+system s", "< 0.7"),
        ("python -m zoo.run --help, user+system s", "< 1.2"),
    ]
