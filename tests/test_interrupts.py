"""Ctrl-C is not lost where compiled code swallows it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from zoo import interrupts
from zoo.store import reading


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):  # Python looks for signals between instructions
        pass


def test_a_swallowed_interrupt_is_remembered_until_the_end():
    with interrupts.remembered():
        interrupts.require_none()
        with pytest.raises(KeyboardInterrupt):
            press()
        with pytest.raises(KeyboardInterrupt):
            interrupts.require_none()
        swallowed = ValueError("could not determine the shape")
        meant = interrupts.meant(swallowed)
        assert isinstance(meant, KeyboardInterrupt)
        assert meant.__cause__ is swallowed
        told = KeyboardInterrupt()
        assert interrupts.meant(told) is told
        with interrupts.remembered(), pytest.raises(KeyboardInterrupt):
            interrupts.require_none()  # the inner one does not forget what the outer one knows
    interrupts.require_none()
    assert interrupts.meant(swallowed) is swallowed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_handlers_of_others_and_other_threads_are_left_alone():
    def other(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGINT, other)
    try:
        with interrupts.remembered():
            assert signal.getsignal(signal.SIGINT) is other
    finally:
        signal.signal(signal.SIGINT, before)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with interrupts.remembered():
                interrupts.require_none()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


@pytest.mark.parametrize("answer", ["raise ValueError('no shape')", "pass"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_training_ends_as_interrupted_whatever_became_of_ctrl_c(answer: str, replicas: int, tmp_path: Path) -> None:
    """The loss stands for compiled code that asks Python something and takes any exception for an answer."""
    training = f"""
        import os, signal, sys
        from zoo.engine import replicas, training
        from zoo.launch import command

        def swallowing(compute):
            def computed(*given):
                count.append(1)
                if len(count) == 5:
                    try:
                        os.kill(os.getpid(), signal.SIGINT)
                        for _ in range(1000):
                            pass
                    except KeyboardInterrupt:
                        {answer}
                return compute(*given)
            return computed

        count = []
        training.loss_of, replicas._losses = swallowing(training.loss_of), swallowing(replicas._losses)
        sys.exit(command(sys.argv[1:]))
    """
    words = ["model=mlp", "dropout=0", "task=image_classification", "dataset=digits", "epochs=50", "patience=null"]
    words += [f"replicas={replicas}"] if replicas > 1 else []
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(training), *words], cwd=tmp_path,
        env={**os.environ, "ZOO_CACHE": str(tmp_path / "cache")}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stderr == "Interrupted.\n"
    assert done.returncode in (130, -signal.SIGINT)
    runs = list(reading.runs(tmp_path / "runs"))
    assert len(runs) == replicas
    for run in runs:
        assert (run.status, run.record["interrupted"]) == ("failed", True)
        assert run.record["error"]["type"] == "KeyboardInterrupt"


# While a command's modules are imported

COMMANDS = ("report", "ls", "ask", "bench", "cache", "check", "import", "lineage", "disguise", "run")
WATCHING = """
import os, sys, time

class Watch:
    '''Says when a module is about to be imported, and waits there.'''
    seen = 0

    def find_spec(self, name, path=None, target=None):
        Watch.seen += name == "zoo.data" or Watch.seen > 0
        if Watch.seen == int(os.environ["AT_MODULE"]):
            open(os.environ["MARK"], "w").close()
            time.sleep(float(os.environ["FOR_SECONDS"]))

sys.meta_path.insert(0, Watch())
"""


def interrupted(folder: Path, command: str, module: int, delay: float) -> tuple[int, str]:
    """Press Ctrl-C `delay` seconds after so many modules were imported, counted from `zoo.data`, which is the first
    behind `zoo.interrupts`."""
    mark = folder / f"{command}-{module}-{delay}"
    (folder / "sitecustomize.py").write_text(WATCHING, encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    # Not measured: a process that is killed while it starts leaves half a file of coverage.
    outer = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment = {**outer, "PYTHONPATH": path, "MARK": str(mark), "AT_MODULE": str(module)}
    environment["FOR_SECONDS"] = "0" if delay else "10"
    process = subprocess.Popen(
        [sys.executable, "-m", f"zoo.{command}", "--help"], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(3000):
            if mark.exists() or process.poll() is not None:
                break
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_while_modules_are_imported_ends_without_a_traceback(command: str, tmp_path: Path) -> None:
    for module in (1, 12, 30):
        assert interrupted(tmp_path, command, module, 0) == (130, "Interrupted.\n")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("delay", [0.02, 0.08, 0.2])
def test_ctrl_c_in_the_first_tenths_of_a_second_shows_no_traceback(command: str, delay: float, tmp_path: Path) -> None:
    code, said = interrupted(tmp_path, command, 1, delay)
    assert code in (130, -signal.SIGINT, 0)  # the last of a command that was done by then
    # A command that has begun says what it keeps.
    assert said == "" if code <= 0 else re.fullmatch(r"Interrupted(\.|: .*)\n", said)


@pytest.mark.parametrize(
    ("arguments", "first", "ours"),
    [
        (["python", "-m", "zoo.ls", "models"], "-m", True),
        (["python", "-X", "dev", "-Im", "zoo.import"], "-m", True),
        (["python", "/usr/bin/zoo-run", "model=mlp"], "/usr/bin/zoo-run", True),
        (["python", "-m", "zoo.benchmark.worker"], "-m", False),
        (["python", "-m", "zoological.ls"], "-m", False),
        (["python", "-m", "pytest", "-m", "zoo.ls"], "/lib/pytest/__main__.py", False),
        (["python", "-m", "other", "-m", "zoo.ls"], "-m", False),
        (["python", "-m", "zoo"], "-m", True),
        (["python", "-c", "from multiprocessing.spawn import spawn_main"], "/usr/bin/zoo-run", False),
        (["python"], "", False),
    ],
)
def test_only_our_commands_end_at_once(arguments: list[str], first: str, ours: bool) -> None:
    """Who imports the package keeps the Ctrl-C that Python has."""
    assert interrupts._is_command(arguments, first) is ours
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
