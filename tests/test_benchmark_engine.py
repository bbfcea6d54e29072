"""The benchmark runs and says what it measured. What it measures is not judged here: a test machine is busy."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from benchmarks import turns

FOLDER = Path(__file__).parent / "benchmarks"
LINE = re.compile(r"^(\S.*?) +[\d.]+ .*bar (\S [\d.]+) +(?:met|MISSED)$", re.M)


def run(script: str) -> str:
    done = subprocess.run([sys.executable, FOLDER / script, "--quick"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_benchmark_runs_and_states_versions_hardware_and_each_ratio_with_its_bar() -> None:
    for needed in ("transformers", "accelerate", "zoo_bert", "zoo_cnn", "zoo_mlp", "zoo_transformer"):
        pytest.importorskip(needed)
    told = run("engine.py")
    first, second, *_ = told.splitlines()
    assert re.fullmatch(r"Python [\d.]+, torch \S+, transformers \S+, numpy \S+, zoo \S+", first)
    assert " cores, " in second
    assert re.findall(r"^(\w+), (training|inference): .* in batches of \d+$", told, re.M) == [
        *[(model, "training") for model in ("bert", "cnn", "transformer")],
        *[(model, "inference") for model in ("bert", "mlp", "cnn", "transformer")],
    ]
    rows = re.findall(r"^(engine|by hand|plain|Trainer|DataLoader) +[\d.]+ +\S+–\S+ +[\d.]+ +(\d)$", told, re.M)
    assert rows[:4] == [("engine", "4"), ("by hand", "4"), ("plain", "2"), ("Trainer", "4")]
    assert rows[-2:] == [("engine", "2"), ("DataLoader", "2")]
    assert LINE.findall(told) == [
        ("step time, engine / by hand", "≤ 1.03"),
        ("examples/s, engine / plain", "≥ 2.0"),
        ("examples/s, engine / Trainer", "≥ 1.15"),
        *[("examples/s, engine / plain", "≥ 1.5")] * 2,
        *[("examples/s, engine / DataLoader", "≥ 1.3")] * 4,
        ("python -m zoo.ls, user+system s", "≤ 0.7"),
        ("python -m zoo.run --help, user+system s", "≤ 1.2"),
        ("first step of zoo.run model=bert, s", "≤ 6.0"),
        *[(f"first step of zoo.run model={model}, s", "≤ 3.0") for model in ("mlp", "cnn", "transformer")],
    ]


@pytest.mark.slow
def test_a_sweep_is_measured_beside_separate_runs() -> None:
    for needed in ("zoo_cnn", "zoo_mlp", "zoo_transformer", "hydra_plugins.hydra_joblib_launcher"):
        pytest.importorskip(needed)
    told = run("sweeps.py")
    assert re.findall(r"^(separately|sweep|parallel) .*mlp \S+ \(n = (\d)\)", told, re.M) == [
        ("separately", "2"), ("sweep", "2"), ("parallel", "2"),
    ]  # fmt: skip
    assert LINE.findall(told) == [("seconds, sweep / separately", "≤ 0.5")]


@pytest.mark.slow
def test_a_whole_run_is_measured_beside_a_trainer_script() -> None:
    for needed in ("transformers", "accelerate", "zoo_bert"):
        pytest.importorskip(needed)
    told = run("whole.py")
    seconds = re.findall(r"^pair 1  (zoo|Trainer) +[\d.]+ s   test accuracy 0\.\d{4}$", told, re.M)
    assert seconds == ["zoo", "Trainer"]
    assert LINE.findall(told) == [("seconds, Trainer / zoo.run", "≥ 1.2")]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_the_compiled_step_is_measured_beside_the_eager_one() -> None:
    for needed in ("transformers", "zoo_mlp"):
        pytest.importorskip(needed)
    told = run("compiling.py")
    figures = r"[\d.]+ \(95 % [\d.]+–[\d.]+\), of processor time [\d.]+, n = (\d+); eager [\d.]+ ms, compiling [\d.]+ s"
    assert re.findall(rf"^(\w+) +compiled / eager step {figures}, graphs \d, ", told, re.M) == [("mlp", "2")]


def work(job: int, turn: turns.Turn) -> None:
    if job < 0:
        raise ValueError("no such job")
    turn.ready()
    for _ in range(job):
        time.sleep(0.01)
        turn.done()


def test_contenders_take_turns_in_processes_of_their_own() -> None:
    taken = turns.race((turns.Entry("each", work), turns.Entry("second", work, every=2)), 5, 4)
    assert [len(taken[name].clock) for name in ("each", "second")] == [4, 2]
    assert all((times.clock >= 0.01).all() and (times.processor < times.clock).all() for times in taken.values())


@pytest.mark.parametrize(("job", "told"), [(-1, "ValueError: no such job"), (1, "it had no more to do")])
def test_a_contender_that_fails_ends_the_race(job: int, told: str) -> None:
    with pytest.raises(RuntimeError, match=told):
        turns.race((turns.Entry("broken", work),), job, 3)


def test_the_interval_of_a_ratio_holds_it() -> None:
    rng = np.random.default_rng(1)
    over, under = rng.gamma(50, 2 / 50, 400), rng.gamma(50, 1 / 50, 400)
    low, high = turns.bootstrap(over, under)
    assert low < over.mean() / under.mean() < high
    assert 1.9 < low < high < 2.1
