"""Every command, whatever happens in it: an exit code and a few plain lines, never a traceback."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from zoo import ask, bench, cache, check, guard, importing, interrupts, launch, ls, report
from zoo.disguise import __main__ as disguise
from zoo.errors import ConfigError, PluginError, RequestError, StoreError, ZooError
from zoo.lineage import command as lineage

# command -> (what is called, with which words, what it calls first)
COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], list[str], str]] = {
    "run": (launch.command, ["model=majority"], "zoo.plugins.registry"),
    "sweep": (launch.command, ["-m", "model=majority,linear"], "zoo.plugins.registry"),
    "report": (report.command, ["study=x"], "zoo.store.study.run_folders"),
    "verify": (report.command, ["verify", "x"], "zoo.report.read"),
    "bench": (bench.command, ["study=x"], "zoo.store.study.open"),
    "lineage": (lineage.command, ["a", "b"], "zoo.lineage.command.compare_paths"),
    "ask": (ask.command, ["x", "out=y"], "zoo.ask._folders"),
    "disguise": (disguise.command, ["x", "how=permute"], "zoo.disguise.__main__.parse"),
    "import": (importing.main, ["x.csv"], "zoo.importing.read"),
    "check": (check.main, ["zoo-mlp"], "zoo.check.examine_plugin"),
    "ls": (ls.main, [], "zoo.plugins.registry"),
    "ls runs": (ls.main, ["runs", "--runs-dir", "."], "zoo.store.reading.runs"),
    "cache": (cache.main, [], "zoo.data.cache.place"),
}


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):  # Python looks for signals between instructions
        pass


def exit_with(code: object) -> Callable[[], None]:
    return lambda: sys.exit(code)  # type: ignore[arg-type]


def raising(error: BaseException) -> Callable[[], None]:
    def fault() -> None:
        raise error

    return fault


def recursing() -> None:
    recursing()


FAULTS: dict[str, tuple[Callable[[], None], int, str]] = {
    "Ctrl-C": (press, 130, "Interrupted"),
    "KeyboardInterrupt of its own": (raising(KeyboardInterrupt()), 1, "nobody pressed Ctrl-C"),
    "exit": (exit_with("no licence"), 1, "SystemExit: no licence"),
    "exit as if all were well": (exit_with(0), 1, "SystemExit: 0"),
    "generator": (raising(GeneratorExit()), 1, "GeneratorExit"),
    "value": (raising(ValueError("bad value")), 1, "ValueError: bad value"),
    "memory": (raising(MemoryError()), 1, "Memory does not suffice"),
    "recursion": (recursing, 1, "nested too deeply"),
    "disk full": (raising(OSError(errno.ENOSPC, "No space left on device", "f")), 1, "f: No space left on device"),
    "permission": (raising(PermissionError(errno.EACCES, "Permission denied", "f")), 1, "f: Permission denied"),
    "long name": (raising(OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300)), 2, "is too long"),
    "no file": (raising(FileNotFoundError(errno.ENOENT, "No such file", "f")), 1, "f: No such file"),
    "request": (raising(ConfigError("it is wrong")), 2, "it is wrong"),
    "store": (raising(StoreError("it is broken")), 1, "it is broken"),
    "control characters": (raising(RequestError("red \x1b[31m")), 2, "red \N{REPLACEMENT CHARACTER}[31m"),
    "half a surrogate pair": (raising(ZooError("odd \udc80")), 1, "odd "),
}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(tmp_path)


def failing(monkeypatch: pytest.MonkeyPatch, where: str, fault: Callable[[], None]) -> None:
    """Let a function, by its full name, do something else than it should."""
    module, _, name = where.rpartition(".")
    monkeypatch.setattr(importlib.import_module(module), name, lambda *_words, **_named: fault())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_happens_there_is_a_code_and_a_few_lines(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, words, called = COMMANDS[name]
    happens, code, told = FAULTS[fault]
    failing(monkeypatch, called, happens)
    assert command(words) == code
    said = capsys.readouterr()
    assert told in said.err
    assert 1 <= len(said.err.splitlines()) <= 4
    assert "Traceback" not in said.out + said.err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", COMMANDS)
def test_the_traceback_is_there_for_who_asks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command, words, called = COMMANDS[name]
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    for error in (ValueError("bad"), ConfigError("wrong")):
        failing(monkeypatch, called, raising(error))
        with pytest.raises(type(error)):
            command(words)
    failing(monkeypatch, called, raising(KeyboardInterrupt()))
    with pytest.raises(ZooError, match="nobody pressed") as raised:
        command(words)
    assert isinstance(raised.value.__cause__, KeyboardInterrupt)
    failing(monkeypatch, called, press)
    assert command(words) == 130


@pytest.mark.parametrize("name", ["import", "check", "ls", "cache"])
def test_words_that_argparse_refuses_or_answers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[name][0]
    assert command(["--no-such-option"]) == 2
    assert command(["--help"]) == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "ends", "said"),
    [(None, 0, ""), (0, 0, ""), (3, 3, ""), ("no licence", 1, "no licence\n"), (["a"], 1, "['a']\n"), ("", 1, "\n")],
)
def test_who_ends_the_process_within_a_command_ends_it_as_python_does(
    code: object, ends: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        with guard.ending():
            sys.exit(code)  # type: ignore[arg-type]

    assert guard.run(command) == ends
    assert capsys.readouterr().err == said


def test_every_command_is_under_the_guard() -> None:
    """A module with a `main` that a user starts, other than those tried above, is one that was forgotten."""
    package = Path(guard.__file__).parent
    started = {
        path.relative_to(package.parent).with_suffix("").as_posix()
        for path in package.rglob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    by_the_program = {"zoo/benchmark/worker", "zoo/testing/fresh", "zoo/help_page"}
    tried = {"run", "report", "bench", "lineage/__main__", "ask", "disguise/__main__", "import", "check", "ls", "cache"}
    assert started - by_the_program == {f"zoo/{name}" for name in tried}


# Code that is not ours


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit("bye"), GeneratorExit(), ValueError("no\nmore")])
def test_an_error_of_a_plugin_names_it(error: BaseException) -> None:
    told = f"^Model 'x' failed: {type(error).__name__}: "
    with interrupts.remembered(), pytest.raises(PluginError, match=told), guard.blamed("Model 'x' failed"):
        raise error


def test_what_is_no_fault_of_a_plugin_is_not_blamed_on_it() -> None:
    for error in (ConfigError("refused"), MemoryError()):
        with pytest.raises(type(error)), guard.blamed("x"):
            raise error
    with interrupts.remembered():
        with pytest.raises(KeyboardInterrupt), guard.blamed("x"):
            press()
        with pytest.raises(KeyboardInterrupt), guard.blamed("x"):  # swallowed by the plugin, and turned into another
            raise ValueError("no shape")
    with pytest.raises(KeyboardInterrupt), guard.blamed("x"):  # nobody watches the key: it may be the user's
        raise KeyboardInterrupt
    with pytest.raises(RequestError, match="too long"), guard.blamed("x"):
        Path("a" * 300).read_bytes()


def test_a_model_that_fails_in_a_method_is_named() -> None:
    from zoo.baselines import Majority
    from zoo.engine.fitting import blame

    told = "Model 'majority' failed in build: KeyboardInterrupt: no message"
    with interrupts.remembered(), pytest.raises(PluginError, match=told), blame(Majority(), "build"):
        raise KeyboardInterrupt


# Streams


def process(*words: str, shell: str = "", cwd: Path) -> subprocess.CompletedProcess[str]:
    line = f'"{sys.executable}" -m {" ".join(words)} {shell}'
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZOO_")}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=120,
    )


@pytest.mark.parametrize("words", [["zoo.ls"], ["zoo.ls", "--help"], ["zoo.run", "--help"], ["zoo.report", "--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_goes_away_is_no_error(
    words: list[str], unbuffered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = process(*words, shell="| true", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_goes_on_when_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    done = process(
        "zoo.run", "model=majority", "task=image_classification", "dataset=digits", shell="| true", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(tmp_path.rglob("run.json"))) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    done = process("zoo.ls", shell="> /dev/full", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("standard output: No space left on device.")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed: str, tmp_path: Path) -> None:
    assert process("zoo.ls", shell=closed, cwd=tmp_path).returncode == 0
    assert process("zoo.report", "study=x", shell=closed, cwd=tmp_path).returncode == 2


def test_what_an_output_cannot_say_is_a_question_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONUTF8", "0")
    done = process("zoo.report", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[option=value ?]" in done.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (launch.command, ["model=majority", "task=image_classification", "dataset=digits", "runs_dir=~nobody-here/x"]),
        (launch.command, ["-m", "model=majority", "seed=0,1", "reports_dir=~nobody-here/x"]),
        (ask.command, ["x", "out=~nobody-here/x"]),
        (disguise.command, ["x", "how=permute", "out=~nobody-here/x"]),
        (lineage.command, ["a", "b", "out=~nobody-here/x"]),
    ],
)
def test_the_home_of_nobody(
    command: Callable[[Sequence[str]], int], words: list[str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ask, "_folders", lambda _patterns: [Path()])
    assert command(words) == 2
    assert "there is no user 'nobody-here'" in capsys.readouterr().err


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device in ("cuda", "cuda:1", "tpu"):
        assert report.command(["study=x", f"device={device}"]) == 2
        assert f"device={device}: this machine has no such device. It has: cpu" in capsys.readouterr().err
