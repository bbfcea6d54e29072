"""Runs that are stopped: Ctrl-C, a polite end, and kill -9 at random moments. Nothing half-done reads as complete."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zoo.errors import StoreError
from zoo.store import reading, schema

KILLS = 20
IMAGES = ("task=image_classification", "dataset=digits", "trainer.threads=1")
ENDLESS = ("trainer.epochs=1000000", "trainer.patience=1000000")


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZOO_", "HYDRA_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "ZOO_CACHE": str(folder / "cache"), "COLUMNS": "200"}


def finished(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@contextmanager
def training(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run that would not end, in its third epoch."""
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo.run", *arguments, *IMAGES, *ENDLESS],
        cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("epoch 2 "):
            assert line, process.communicate()[1]
        yield process
    finally:
        process.kill()
        process.communicate()


def stop(process: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str, str]:
    """Exit code, the rest of stdout, and stderr."""
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_control_c_ends_a_run_with_130_and_marks_it(tmp_path: Path) -> None:
    with training(tmp_path, "model=mlp") as process:
        code, _, err = stop(process, signal.SIGINT)
    assert (code, err) == (130, "Interrupted.\n")
    (run,) = reading.runs(tmp_path / "runs")
    run.verify()
    assert (run.status, run.record["interrupted"]) == ("failed", True)
    assert run.record["error"] == {"type": "KeyboardInterrupt", "message": "interrupted from the keyboard"}
    assert set(run.record["files"]) == {schema.ERROR, schema.EVENTS}
    assert re.search(r"^\S+Z info epoch epoch=1 ", (run.folder / schema.EVENTS).read_text(), flags=re.MULTILINE)
    listed = finished(tmp_path, "zoo.ls", "runs")
    assert listed.returncode == 0
    assert "│ interrupted │" in listed.stdout


def test_control_c_ends_a_sweep_with_130_and_a_table_of_what_was_done(tmp_path: Path) -> None:
    with training(tmp_path, "-m", "model=majority,mlp,linear", "report=off") as process:
        code, out, err = stop(process, signal.SIGINT)
    assert code == 130
    assert err.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [(row[0], row[4]) for row in rows] == [("majority", "complete"), ("mlp", "interrupted")]
    assert "1 of the 3 cells was not begun. The same command again runs what is missing." in out
    told = {run.record["model"]: (run.status, run.record.get("interrupted")) for run in reading.runs(tmp_path / "runs")}
    assert told == {"majority": ("complete", None), "mlp": ("failed", True)}
    whole = finished(tmp_path, "zoo.run", "-m", "model=majority,linear", *IMAGES, "report=off")
    assert (whole.returncode, "not begun" in whole.stdout) == (0, False)


def test_a_run_that_is_terminated_is_listed_as_interrupted_and_swept_up_by_the_next(tmp_path: Path) -> None:
    with training(tmp_path, "model=mlp") as process:
        (living,) = reading.runs(tmp_path / "runs")
        assert living.status == "started"
        code, _, _ = stop(process, signal.SIGTERM)
    assert code == -signal.SIGTERM
    (left,) = reading.runs(tmp_path / "runs")
    assert (left.status, left.record["interrupted"]) == ("failed", True)
    assert "│ interrupted │" in finished(tmp_path, "zoo.ls", "runs").stdout
    after = finished(tmp_path, "zoo.run", "model=mlp", "trainer.epochs=1", *IMAGES)
    assert (after.returncode, after.stderr) == (0, "")
    (run,) = reading.runs(tmp_path / "runs")
    assert run.status == "complete"


# One process imports everything, reads the data and makes a first run; it tells how long a run takes once that is done,
# and for every line on its input bears a child that trains and stores runs without end, the same and new ones in turn.
NURSERY = """
    import os, sys, time
    from pathlib import Path
    from zoo import data, plugins, progress, run
    from zoo.config import RunConfig, TrainerOptions

    tell = lambda text: os.write(int(sys.argv[1]), f"{text}\\n".encode())
    installed, screen = plugins.registry(), progress.console()
    parts = [installed.find(kind, name).cls() for kind, name in (
        ("model", "mlp"), ("dataset", "digits"), ("task", "image_classification"))]
    parts[0].hidden = [512]
    splits = data.load(parts[1])
    data.load = lambda dataset: splits
    options = TrainerOptions(epochs=1, threads=1)

    def again(seed, rerun):
        run.run(RunConfig(*parts, options, "mlp", seed=seed, runs_dir=Path("runs"), rerun=rerun), installed, screen)

    again(0, rerun=True)
    started = time.perf_counter()
    again(0, rerun=True)
    tell(time.perf_counter() - started)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            tell(os.getpid())
            for number in range(10**9):
                again(number % 3, rerun=True)
                again(int(line) * 1000 + number, rerun=False)
        os.waitpid(child, 0)
        tell("gone")
"""


def test_kill_9_at_random_moments_never_leaves_a_run_that_only_looks_complete(tmp_path: Path) -> None:
    told, telling = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(NURSERY), str(telling)],
        cwd=tmp_path, env=environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        pass_fds=[telling], text=True,
    )  # fmt: skip
    os.close(telling)
    assert process.stdin is not None
    rng, left_behind = random.Random(20), 0
    with os.fdopen(told) as answers:
        one_run = float(answers.readline())
        for number in range(KILLS):
            process.stdin.write(f"{number + 1}\n")
            process.stdin.flush()
            child = int(answers.readline())
            time.sleep(rng.uniform(0.0, 3 * one_run))
            os.kill(child, signal.SIGKILL)
            assert answers.readline() == "gone\n"
            left_behind += check_what_is_left(tmp_path / "runs")
        process.stdin.close()
    assert process.wait(timeout=20) == 0
    assert left_behind >= KILLS / 4, "hardly any was killed in the middle of a run"
    assert sum(run.status == "complete" for run in reading.runs(tmp_path / "runs")) > 1, "new runs were published"

    listed = finished(tmp_path, "zoo.ls", "runs")
    assert (listed.returncode, listed.stderr) == (0, "")
    after = finished(tmp_path, "zoo.run", "model=mlp", "hidden=[512]", "trainer.epochs=1", *IMAGES, "rerun=true")
    assert (after.returncode, after.stderr) == (0, "")
    assert {run.status for run in reading.runs(tmp_path / "runs")} == {"complete"}
    assert {path.name for path in (tmp_path / "runs" / schema.DRAFTS).iterdir()} <= {schema.PUBLISH_LOCK}


def check_what_is_left(root: Path) -> int:
    """Everything that reads as complete is whole. Returns the number of drafts left behind."""
    interrupted = 0
    for run in reading.runs(root):
        if run.folder.parent.name == schema.DRAFTS:
            assert (run.status, run.record["interrupted"]) == ("failed", True)
            interrupted += 1
            continue
        assert run.status == "complete", run.record.get("error")
        try:
            run.verify()
            assert len(run.predictions()) == 200 + 1097
        except StoreError as error:
            pytest.fail(str(error))
    return interrupted
