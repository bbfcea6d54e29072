"""What a person sees of a run: closing tables at any width, the time that is left, and no silence."""

from __future__ import annotations

import errno
import io
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from zoo import phases, plugins, progress
from zoo.phases import phase

INTERVAL = {"value": 0.8123, "low": 0.7881, "high": 0.8342, "n": 500}
UNDEFINED = {"value": None, "n": 3, "reason": "one class only was predicted"}
LONG = "a_model_whose_name_is_much_longer_than_names_are"
VERY_LONG = "one_name_that_is_longer_than_any_line_of_the_screen_on_which_it_is_to_be_read_by_somebody"


def terminal(width: int) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=width, color_system=None, highlight=False), out


def cell(model: str, seed: int = 0, status: str = "complete", **more: Any) -> dict[str, Any]:
    names = {"model": model, "dataset": "rotten_tomatoes", "task": "text_classification", "seed": seed}
    if status != "complete":
        return {**names, "status": status, **more}
    return {
        **names,
        "status": status,
        "seconds": 12.34,
        "metrics": {"accuracy": INTERVAL, "macro_f1": INTERVAL},
        **more,
    }


SWEEPS = {
    "one model": [cell("mlp")],
    "seeds": [cell("mlp", seed) for seed in range(3)],
    "models": [cell(model, seed) for model in ("mlp", "transformer") for seed in range(2)],
    "statuses": [cell("mlp"), cell("cnn", reused=True), cell("bert", status="skipped"), cell("x", status="failed")],
    "long names": [cell(LONG), cell(f"{LONG}_2", 1), cell("mlp", 2, "skipped")],
    "datasets": [{**cell(LONG, seed), "dataset": f"{LONG}-{seed}"} for seed in range(2)],
    "very long names": [cell(VERY_LONG), cell(f"{VERY_LONG}_2", 1, reused=True)],
    "all skipped": [cell("mlp", seed, "skipped") for seed in range(2)],
    "undefined": [cell("mlp", seed, metrics={"accuracy": INTERVAL, "macro_f1": UNDEFINED}) for seed in (0, 1)],
}  # fmt: skip


def told(text: str) -> str:
    """What is read, without the lines of a table and the breaks of its cells."""
    return re.sub(r"[┃│━┏┓┗┛┡┩╇┳─└┘┴├┤┼┌┐┬\s]+", " ", text)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
@pytest.mark.parametrize("cells", SWEEPS.values(), ids=list(SWEEPS))
def test_no_name_and_no_interval_of_a_sweep_is_cut(cells: list[dict[str, Any]], width: int) -> None:
    screen, out = terminal(width)
    progress.show_cells(screen, cells)
    shown = out.getvalue()
    assert "…" not in shown
    assert f"{len(cells)} cells" in shown
    for each in cells:
        for name in ("model", "dataset", "task", "status"):
            assert each[name] in shown, "in one piece, or it cannot be searched for"
    complete = [each for each in cells if "metrics" in each]
    assert shown.count("(0.788–0.834)") == sum(
        metric["value"] is not None for each in complete for metric in each["metrics"].values()
    )
    longest = max(len(word) for line in shown.splitlines() for word in line.split())
    assert all(len(line.rstrip()) <= max(width, longest + 4 + len("dataset ")) for line in shown.splitlines())


def test_columns_that_say_the_same_go_first_and_are_said_once() -> None:
    screen, out = terminal(80)
    progress.show_cells(screen, SWEEPS["models"])
    shown = out.getvalue()
    assert shown.startswith("All cells: dataset rotten_tomatoes · task text_classification · status complete\n")
    assert shown.count("rotten_tomatoes") == 1
    assert "0.812 (0.788–0.834)" in shown, "intervals stay beside their values while there is room"
    assert re.search(r"┃ model +┃ seed ┃ accuracy", shown)


def test_a_screen_with_room_has_every_column() -> None:
    screen, out = terminal(160)
    progress.show_cells(screen, SWEEPS["models"])
    assert out.getvalue().count("rotten_tomatoes") == 4


def test_a_piped_table_has_every_column_however_long_the_names() -> None:
    out = io.StringIO()
    progress.show_cells(Console(file=out, width=progress.WIDE, highlight=False), SWEEPS["very long names"])
    rows = [line for line in out.getvalue().splitlines() if VERY_LONG in line]
    assert len(rows) == 2
    assert all("text_classification" in row and row.count("0.812 (0.788–0.834)") == 2 for row in rows)


CLASSES = ["neg", "a class whose name is a whole sentence about it", VERY_LONG]


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_no_class_and_no_interval_of_a_run_is_cut(width: int) -> None:
    metrics = dict.fromkeys(("accuracy", "macro_f1", "balanced_accuracy", "log_loss", "brier", "ece"), INTERVAL)
    kinds = ("precision", "recall", "f1")
    metrics |= {f"{kind}/{label}": INTERVAL for kind in kinds for label in CLASSES}
    for classes in (CLASSES[:1], CLASSES[:2], CLASSES):
        screen, out = terminal(width)
        progress.show_run(screen, {"data": {"classes": classes}}, metrics)
        shown = out.getvalue()
        assert "…" not in shown
        assert shown.count("(0.788–0.834)") == len(kinds) * len(classes)
        assert shown.count("0.7881–0.8342") == 6
        for label in classes:
            assert label in told(shown)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def first_estimate(took: list[float], limit: float | None = None) -> tuple[int, float, float]:
    """At which step a training with steps of so many seconds first says how long it takes, what it says, and what is
    true."""
    clock = Clock()
    left = progress.TimeLeft(len(took), limit, clock)
    for done, seconds in enumerate(took, 1):
        clock.now += seconds
        left.step(done)
        if (said := left.seconds()) is not None:
            return done, said, sum(took[done:])
    raise AssertionError("no estimate at all")


@pytest.mark.parametrize(
    "warm_up",
    [[], [5.0], [5.0, 5.0, 5.0], [3.0] * 10, [2.0, 1.5, 1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15], [0.01] * 20],
    ids=lambda warm_up: f"{warm_up[:1]}x{len(warm_up)}",
)
@pytest.mark.parametrize("steps", [200, 1000])
def test_the_first_estimate_of_the_time_left_comes_from_steps_that_tell(warm_up: list[float], steps: int) -> None:
    done, said, true = first_estimate([*warm_up, *[0.1] * steps])
    assert said == pytest.approx(true, rel=0.25)
    assert done <= len(warm_up) + max(40, steps // 10)


def test_steps_of_changing_length_are_averaged() -> None:
    done, said, true = first_estimate([5.0, *[0.1, 0.3] * 200])
    assert said == pytest.approx(true, rel=0.1)
    assert done < 60
    _, said, true = first_estimate([0.1 * 1.02**step for step in range(400)])
    assert said > 0, "a pace that never settles is told in the end"


def test_validation_between_the_epochs_counts_where_it_was_seen() -> None:
    clock = Clock()
    left = progress.TimeLeft(400, None, clock)
    for done in range(1, 201):
        clock.now += 0.1 + (10.0 if done % 50 == 0 else 0.0)
        left.step(done)
    assert left.seconds() == pytest.approx(200 * 0.1 + 4 * 10, rel=0.1)


def test_a_budget_in_seconds_bounds_the_estimate() -> None:
    _, said, _ = first_estimate([0.1] * 10_000, limit=30.0)
    assert 25 < said < 30


def test_a_training_of_few_steps_says_how_long_it_takes() -> None:
    done, said, true = first_estimate([1.0] * 12)
    assert (said, done <= 8) == (pytest.approx(true), True)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.9, "59 s"), (60, "1:00"), (605, "10:05"), (3723, "1:02:03")]
)
def test_durations(seconds: float, said: str) -> None:
    assert progress.duration(seconds) == said


def test_the_bar_says_nothing_of_the_time_left_before_it_can() -> None:
    screen, out = terminal(160)
    with progress.Bar(screen, 1000, refresh=0.0) as bar:
        clock = Clock()
        bar._left = progress.TimeLeft(1000, None, clock)
        for done in range(1, 100):
            clock.now += 0.1
            bar.step(done, 0.5, 10.0)
            bar._progress.refresh()
            assert (" left" in out.getvalue()) == (bar._left.seconds() is not None)
    assert "1:37 left" in out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_line_that_begins_a_cell_cuts_no_name(width: int) -> None:
    screen, out = terminal(width)
    progress.headline(
        screen, f"cell 1 of 2 · model {LONG} · dataset rotten_tomatoes · task text_classification · seed 0"
    )
    assert "…" not in out.getvalue()
    for name in (LONG, "rotten_tomatoes", "text_classification", "seed 0"):
        assert name in told(out.getvalue())


def test_what_is_done_is_said_from_the_whole_to_the_part() -> None:
    @phase("inner")
    def inner() -> list[str]:
        return phases.current()[0]

    with phase("outer"):
        assert inner() == ["outer", "inner"]
        assert phases.current()[0] == ["outer"]
        seen: list[list[str]] = []
        other = threading.Thread(target=lambda: seen.append(inner()))
        other.start()
        other.join()
        assert seen == [["outer"]], "another thread is not what the command is doing"
    assert phases.current() == ([], 0.0)


def test_the_line_of_activity_is_for_a_terminal_and_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out = terminal(40)
    monkeypatch.setattr(progress, "Console", lambda **_options: screen)
    with phase("a part with a very long name that no line has room for"), progress.activity():
        assert progress.console() is screen, "or lines are printed into it"
        with progress.reporter(screen, 3) as bar:
            bar.step(1, 0.5, 1.0)
        print("above it")
    shown = out.getvalue()
    assert "a part with a very lo" in shown
    assert "above it" in shown
    assert all(len(re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", line)) <= 40 for line in re.split(r"[\r\n]+", shown))


def test_the_activity_needs_no_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    screen, out = terminal(80)
    monkeypatch.setattr(progress, "Console", lambda **_options: screen)
    with phase("a part"), progress.activity():
        time.sleep(0.6)
    assert "a part, 0 s" in out.getvalue()


def speaking() -> progress._Standby:
    """A second process that has heard something."""
    standby = progress._Standby()
    assert standby._process is not None
    standby.hear("a part", 0.0)
    return standby


def ended(standby: progress._Standby, process: subprocess.Popen[bytes]) -> float:
    """How long it takes to close; afterwards nothing is left of the process."""
    began = time.monotonic()
    standby.close()
    took = time.monotonic() - began
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    standby.hear("too late", 1.0)
    standby.close()
    return took


def test_a_second_process_that_is_stopped_does_not_hold_up_the_first() -> None:
    standby = speaking()
    process = standby._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    for number in range(4000):  # more than its pipe holds
        standby.hear("a part of what the command is doing", float(number))
    assert time.monotonic() - began < 10
    assert ended(standby, process) < 10


def test_a_process_forked_meanwhile_does_not_hold_up_the_first() -> None:
    standby = speaking()
    process = standby._process
    assert process is not None
    assert process.stdin is not None
    held = os.dup(process.stdin.fileno())  # as a fork holds the end that is written to
    try:
        assert ended(standby, process) < 10
    finally:
        os.close(held)


AFTERWARDS = """
import ctypes, time
from zoo import progress
from zoo.phases import phase

with phase("a part"), progress.activity():
    ctypes.PyDLL(None).sleep(3)
print("DONE", flush=True)
time.sleep(2.5)
"""


def test_nothing_is_shown_once_the_activity_has_ended(tmp_path: Path) -> None:
    code, seen = on_a_terminal(("-c", AFTERWARDS), tmp_path, {**os.environ, "TERM": "xterm", "COLUMNS": "80"})
    text = "".join(shown for _, shown in seen)
    assert code == 0
    assert "a part, 2 s" in text, "the second process has spoken"
    assert text.rpartition("DONE")[2].strip() == ""


def test_nothing_is_shown_where_the_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with phase("a part"), progress.activity():
        time.sleep(0.6)
    assert capsys.readouterr() == ("", "")


def test_a_plugin_that_is_slow_to_load_is_named_while_it_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plugins, "PATIENCE", 0.1)
    with plugins._watched("zoo-slow"):
        time.sleep(0.5)
        assert capsys.readouterr().err.startswith("zoo-slow is still loading after 0.1 s. ZOO_PLUGINS=")
    with plugins._watched("zoo-fast"):
        pass
    time.sleep(0.3)
    assert capsys.readouterr() == ("", "")


SLOW = """
import ctypes
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import zoo

time.sleep(3.5)


@dataclass
class Sleeper(zoo.Predictor):
    \"\"\"Sleeps, then answers that all classes are alike.\"\"\"

    name: ClassVar[str] = "sleeper"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"image"})

    def fit(self, train, validation, seed):
        ctypes.PyDLL(None).sleep(4)  # lets no other thread run, as compiled code may
        self.classes = len(train.classes)

    def predict_proba(self, examples):
        return np.full((len(examples), self.classes), 1 / self.classes)


@zoo.hookimpl
def zoo_models():
    return [Sleeper]
"""


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, str]:
    """An environment with a plugin installed that takes its time to load and to fit."""
    (tmp_path / "site" / "zoo_slow-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "zoo_slow.py").write_text(SLOW)
    (tmp_path / "site" / "zoo_slow-1.0.dist-info" / "METADATA").write_text("Name: zoo-slow\nVersion: 1.0\n")
    (tmp_path / "site" / "zoo_slow-1.0.dist-info" / "entry_points.txt").write_text("[zoo]\nslow = zoo_slow\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZOO_", "HYDRA_"))}
    path = os.pathsep.join(filter(None, (str(tmp_path / "site"), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "ZOO_CACHE": str(tmp_path / "cache"), "TERM": "xterm", "COLUMNS": "80"}


RUN = ("-m", "zoo.run", "model=sleeper", "task=image_classification", "dataset=digits")


def on_a_terminal(words: tuple[str, ...], cwd: Path, env: dict[str, str]) -> tuple[int, list[tuple[float, str]]]:
    """Exit code, and what appeared on a terminal with the seconds at which it did."""
    ours, theirs = pty.openpty()
    ends = (errno.EIO,)  # how Linux says that nobody has the other end any more
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *words], cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen: list[tuple[float, str]] = []
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError as error:
            if error.errno not in ends:
                raise
            break
        if not read:
            break
        seen.append((time.monotonic() - began, read.decode(errors="replace")))
    os.close(ours)
    return process.wait(), seen


def test_a_terminal_is_never_silent_for_two_seconds(tmp_path: Path, slow: dict[str, str]) -> None:
    code, seen = on_a_terminal(RUN, tmp_path, slow)
    text = "".join(shown for _, shown in seen)
    assert code == 0, text
    silences = [later - sooner for (sooner, _), (later, _) in pairwise(seen)]
    assert max(silences) < 2, text
    assert "loading plugins · zoo-slow, 2 s" in text
    assert "zoo-slow is still loading after 3 s. " in text
    assert "fitting sleeper, 3 s" in text


def test_a_pipe_gets_no_line_of_activity(tmp_path: Path, slow: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, *RUN], cwd=tmp_path, env=slow, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "fitting" not in done.stdout
    assert done.stderr.startswith("zoo-slow is still loading after 3 s. ")
    assert len(done.stderr.splitlines()) == 1


SLOWED = """
import ctypes, importlib, sys
from zoo.errors import ConfigError

def slowly(*_words, **_named):
    ctypes.PyDLL(None).sleep(5)  # lets no other thread run, as compiled code may
    raise ConfigError("far enough")

start, where, *words = sys.argv[1:]
module, _, name = where.rpartition(".")
setattr(importlib.import_module(module), name, slowly)
module, _, name = start.rpartition(".")
sys.exit(getattr(importlib.import_module(module), name)(words))
"""

# command -> how it is started, a part of it that may take long, and with which words it comes there
SLOW_PARTS = {
    "report": ("zoo.report.command", "zoo.store.study.run_folders", ["study=x"]),
    "verify": ("zoo.report.command", "zoo.report.read", ["verify", "x"]),
    "bench": ("zoo.bench.command", "zoo.store.study.open", ["study=x"]),
    "lineage": ("zoo.lineage.command.command", "zoo.lineage.weights.open_weights", ["a", "b"]),
    "ask": ("zoo.ask.command", "zoo.ask.ask_all", [".", "out=y"]),
    "disguise": ("zoo.disguise.__main__.command", "zoo.disguise.parent.open", ["x", "how=permute"]),
    "import": ("zoo.importing.main", "zoo.importing.tables.read", ["x.csv"]),
    "check": ("zoo.check.main", "zoo.check._find", ["zoo-mlp"]),
    "ls": ("zoo.ls.main", "zoo.plugins.registry", []),
    "ls runs": ("zoo.ls.main", "zoo.store.reading.runs", ["runs", "--runs-dir", "."]),
    "cache": ("zoo.cache.main", "zoo.data.cache.entries", []),
    "cache clear": ("zoo.cache.main", "zoo.data.cache.clear", ["clear"]),
}
SLACK = 1.5  # seconds: on a busy machine the second process wakes up late


@pytest.mark.parametrize("name", SLOW_PARTS)
def test_no_command_is_silent_on_a_terminal(name: str, tmp_path: Path) -> None:
    start, where, words = SLOW_PARTS[name]
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    (tmp_path / "x.csv").write_text("model,example_id,label,prediction\n", encoding="utf-8")
    environment = {**os.environ, "ZOO_CACHE": str(tmp_path / "cache"), "TERM": "xterm", "COLUMNS": "80"}
    code, seen = on_a_terminal(("-c", SLOWED, start, where, *words), tmp_path, environment)
    text = "".join(shown for _, shown in seen)
    assert (code, "far enough" in text) == (2, True), text
    silences = [later - sooner for (sooner, _), (later, _) in pairwise(seen)]
    assert max(silences) < 2 + SLACK, text
    assert ", 2 s" in text, "it is said for how long"
    assert "Traceback" not in text
