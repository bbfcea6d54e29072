"""What the command says to a wrong request: in a few plain lines, with an exit code, and with nothing half-written."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from zoo import launch
from zoo.store import reading, schema

IMAGES = ("task=image_classification", "dataset=digits")
QUICK = ("trainer.epochs=1", "trainer.threads=1")
WHOLE = "a list of whole numbers of 1 or more"


@dataclass(frozen=True)
class Told:
    """The end of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """The command itself, in this process, with an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def run(*arguments: str) -> Told:
        capsys.readouterr()
        code = launch.command(arguments)
        return Told(code, *capsys.readouterr())

    return run


def refused(told: Told, code: int = 2) -> str:
    """The message: on stderr alone, at most four lines, no traceback."""
    assert told.code == code, told
    assert told.out == ""
    assert "Traceback" not in told.err
    assert 1 <= len(told.err.splitlines()) <= 4, told.err
    return told.err


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model=brt", "No model 'brt'. Installed: bert, cnn, linear, majority, mlp, transformer. Did you mean 'bert'?"),
        ("-m model=mlp,brt", "No model 'brt'. Installed: bert, "),
        ("model=bert dataset=digts", "No dataset 'digts'. Installed: arrays, bbc_news, digits, "),
        ("model=bert task=sentimnt", "No task 'sentimnt'. Installed: image_classification, sentiment, text_cl"),
        ("experiment=mnist_dens", "No experiment 'mnist_dens'. There are: mnist_dense, text_mlp_768. Did you mean"),
        ("model=mlp trainer=fast", "No trainer 'fast'. There are: default."),
        ("model=mlp hydra/launcher=job", "No hydra/launcher 'job'. There are: basic, joblib. Did you mean 'joblib'?"),
        ("", "Which model? Installed: bert, cnn, linear, majority, mlp, transformer.\nFor example: python -m zoo.run"),
        ("-m task=sentiment", "Which model? Installed: bert, "),
        ("model=mlp model.hiden=3", "No option 'model.hiden'. model has: checkpoint, dropout, embedding, features, "),
        ("model=mlp trainer.hiden=3", "No option 'trainer.hiden'. trainer has: epochs, steps, seconds, "),
        ("model=mlp task.x=3", "No option 'task.x'. All options: python -m zoo.run --help"),
        ("model=mlp nothing.at=3", "No option 'nothing'"),
        ("model=mlp hydra.x=3", "No option 'hydra.x'. All options"),
        ("model=mlp hiden=3", "No option 'hiden'. Did you mean 'hidden'? All options"),
        ("model=mlp trainer.epochs=abc", "trainer.epochs=abc: it must be a number above 0, or null."),
        ("model=mlp trainer.precision=fp64", "trainer.precision=fp64: it must be auto, fp32 or bf16."),
        ("model=mlp seed=1.5", "seed=1.5: it must be a whole number from 0 to 4294967295."),
        ("model=mlp hidden=3", f"model.hidden=3: it must be {WHOLE}. Write model.hidden=[3]\n"),
        ("model=mlp hidden=3,4", f"model.hidden=3,4: it must be {WHOLE}. Write model.hidden=[3,4]\n"),
        ("-m model=mlp hidden=3,4", f"model.hidden=3,4: it must be {WHOLE}. Write model.hidden=[3],[4]\n"),
        ("model=mlp hidden=3,b", f"model.hidden=3,b: it must be {WHOLE}.\n"),
        ("model=mlp hidden=3.5", f"model.hidden=3.5: it must be {WHOLE}.\n"),
        ("model=mlp hidden=0", f"model.hidden=0: it must be {WHOLE}.\n"),
        ("model=linear C=.5", "model.C=.5: it must be a list of one or more numbers above 0. Write model.C=[.5]\n"),
        ("model=mlp hidden=[3],[4]", "'model.hidden=[3],[4]' names several values. Add -m to run each of them: "),
        ("-m model=mlp,bert hidden=3", "model.hidden=3: it must be a list of whole numbers of 1 or more, for mlp; or "),
        ("model=mlp hidden=[a]", "model.hidden=[a]: it must be a list of whole numbers of 1 or more.\n"),
        ("model=mlp hidden=a", "model.hidden=a: it must be a list of whole numbers of 1 or more.\n"),
        ("model=mlp hidden={a:1}", "model.hidden={a:1}: it must be a list of whole numbers of 1 or more.\n"),
        ("model=mlp dropout={a:1}", "model.dropout={a:1}: it must be a number from 0 to below 1.\n"),
        ("model=mlp trainer.device=null", "trainer.device=null: it must be auto, cpu, cuda or mps."),
        ("model=linear C=[x]", "model.C=[x]: it must be a list of one or mor"),
        ("model=mlp seed.x=3", "No option 'seed.x': 'seed' has no parts. Write seed=3"),
        ("model=mlp dropout=2", "model.dropout=2.0: it must be a number from 0 to below 1."),
        ("model=mlp trainer.steps=0", "trainer.steps=0: it must be a whole number of 1 or more, or null."),
        ("model=mlp features=${x}", "model.features: Interpolation key 'x' not found."),
        ("model=mlp +x=1", "'+x=1': options are neither added nor removed, since nothing would read them."),
        ("model=mlp seed", "'seed' has no value. Write seed=value"),
        ("model=mlp seed=1,2", "'seed=1,2' names several values. Add -m to run each of them: python -m zoo.run -m "),
        ("model=mlp seed=range(3)", "'seed=range(3)' names several values. Add -m to run each of them: "),
        ("model=mlp hidden=[3", "model.hidden=[3: it must be a list of whole numbers of 1 or more."),
        ("model=mlp --sweep", "There is no flag '--sweep'."),
        ("--config-dir=/no/such model=mlp", "Additional config directory '/no/such' not found"),
        ("model=mlp/", "'model=mlp/': a model is chosen by its name"),
    ],
)  # fmt: skip
def test_a_wrong_command_line(command: Callable[..., Told], tmp_path: Path, typed: str, message: str) -> None:
    said = refused(command(*typed.split()))
    assert said.startswith(message), said
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "multirun.yaml"] == []


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model=bert task=image_classification", "Model 'bert' takes text, and task 'image_classification' is about "),
        ("model=mlp task=sentiment dataset=digits", "Task 'sentiment' is about texts, and dataset 'digits' holds"),
        (
            "model=mlp task=image_classification dataset=table path=no/such.csv",
            "Task 'image_classification' is about images, and dataset 'table' holds texts.",
        ),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused_before_data_are_read(
    command: Callable[..., Told], tmp_path: Path, typed: str, message: str
) -> None:
    assert refused(command(*typed.split())).startswith(message)
    assert list(tmp_path.iterdir()) == []


TABLE = "\n".join(["text,label", *(f"a fine day number {number},{number % 2}" for number in range(60))]) + "\n"


def table(folder: Path, content: str, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content", "option", "parts"),
    [
        ("none.csv", None, "", ["No file or folder 'none.csv'"]),
        ("ragged.csv", TABLE + "one,two,three\n", "", ["ragged.csv line 62"]),
        ("open.csv", TABLE + '"never closed,1\n', "", ["open.csv", "62"]),
        ("column.csv", TABLE, "label=stars", ["column.csv", "'stars'", "text, label"]),
        ("empty.csv", TABLE + ",1\n", "", ["empty.csv line 62", "the text is empty"]),
        ("label.csv", TABLE + "well,\n", "", ["label.csv line 62", "the label is missing"]),
        ("nothing.csv", "", "", ["nothing.csv is empty"]),
        ("odd.xlsx", TABLE, "", ["odd.xlsx"]),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_line(
    command: Callable[..., Told], tmp_path: Path, name: str, content: str | None, option: str, parts: list[str]
) -> None:
    if content is not None:
        table(tmp_path, content, name)
    said = refused(command("model=majority", "dataset=table", f"path={name}", *option.split()))
    for part in parts:
        assert part in said
    assert not (tmp_path / "runs").exists()


def test_a_file_in_another_encoding_is_named(command: Callable[..., Told], tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(TABLE.encode() + "ein schöner Tag,1\n".encode("latin-1"))
    said = refused(command("model=majority", "dataset=table", "path=latin.csv"))
    assert "latin.csv" in said
    assert "utf-8" in said
    assert not (tmp_path / "runs").exists()


def test_a_corrupt_image_is_named(command: Callable[..., Told], tmp_path: Path) -> None:
    from PIL import Image

    for split, count in (("train", 12), ("test", 4)):
        for number in range(count):
            path = tmp_path / "pictures" / split / f"class_{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 40 * (number % 2), len(split))).save(path)
    (tmp_path / "pictures" / "train" / "class_1" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    arguments = ("model=majority", "task=image_classification", "dataset=image_folder", "root=pictures", "size=8")
    said = refused(command(*arguments))
    assert "torn.png" in said
    assert not (tmp_path / "runs").exists()


def failed_run(root: Path) -> reading.Run:
    """The only run under a root: failed, with checksums that fit and its traceback."""
    (run,) = reading.runs(root)
    assert run.status == "failed"
    run.verify()
    assert (run.folder / schema.ERROR).read_text(encoding="utf-8").startswith("Traceback")
    assert set(run.record["files"]) <= {schema.ERROR, schema.EVENTS}
    return run


def test_a_checkpoint_that_is_not_there(command: Callable[..., Told], tmp_path: Path) -> None:
    table(tmp_path, TABLE)
    said = refused(command("model=bert", "dataset=table", "path=mine.csv", "checkpoint=/no/such"))
    assert said == "There is no checkpoint folder '/no/such'. Check model.checkpoint.\n"
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_is_not_finite(command: Callable[..., Told], tmp_path: Path) -> None:
    told = command("model=mlp", *IMAGES, "learning_rate=1e30", "optimizer=sgd", "clip=0", *QUICK)
    assert told.code == 1
    assert told.err.startswith("The loss is nan at epoch 1, step ")
    assert "learning rate 1e+30" in told.err
    assert failed_run(tmp_path / "runs").record["error"]["type"] == "TrainingError"


@pytest.mark.parametrize("sweep", [(), ("-m",)])
def test_a_file_where_runs_are_to_be_kept(command: Callable[..., Told], tmp_path: Path, sweep: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("mine")
    said = refused(command(*sweep, "model=majority", *IMAGES, "runs_dir=file/runs"), 1)
    assert "'file' is a file where a folder is needed.\nMove it away or choose another folder with runs_dir=" in said
    assert (tmp_path / "file").read_text() == "mine"


def test_an_error_that_nobody_foresaw_has_no_traceback_either(
    command: Callable[..., Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout that lost its configuration."""
    from zoo import config

    (tmp_path / "run.yaml").write_text("defaults: [\n")
    monkeypatch.setattr(config, "conf_dir", lambda: tmp_path)
    said = refused(command("model=majority"), 1)
    assert said.endswith("HYDRA_FULL_ERROR=1 shows the traceback.\n")


def environment(folder: Path, **further: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZOO_", "HYDRA_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "ZOO_CACHE": str(folder / "cache"), **further}


def process(folder: Path, *arguments: str, before: Callable[[], None] | None = None, **further: str) -> Told:
    done = subprocess.run(
        [sys.executable, "-m", "zoo.run", *arguments],
        cwd=folder, env=environment(folder, **further), capture_output=True, text=True, timeout=120, preexec_fn=before,
    )  # fmt: skip
    return Told(done.returncode, done.stdout, done.stderr)


def test_the_process_itself_ends_with_the_code_and_the_message(tmp_path: Path) -> None:
    assert refused(process(tmp_path, "model=brt")).startswith("No model 'brt'. Installed: bert, ")


@pytest.mark.parametrize(
    "arguments", [["model=brt"], ["model=mlp", "seed"], ["model=bert", "task=image_classification"]]
)
def test_the_traceback_is_shown_when_it_is_asked_for(tmp_path: Path, arguments: list[str]) -> None:
    told = process(tmp_path, *arguments, HYDRA_FULL_ERROR="1")
    assert told.code == 1
    assert told.err.startswith("Traceback (most recent call last):\n")
    assert told.err.splitlines()[-1].startswith("zoo.errors.")


def without_roots_privilege() -> None:
    """Even root may write only where it is allowed to: CAP_DAC_OVERRIDE (1) leaves the process and what it starts."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


@pytest.mark.parametrize("sweep", [(), ("-m",)])
def test_no_permission_to_write(tmp_path: Path, sweep: tuple[str, ...]) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    runs.chmod(0o500)
    told = process(tmp_path, *sweep, "model=majority", *IMAGES, before=without_roots_privilege, ZOO_CACHE="off")
    said = refused(told, 1)
    assert said.startswith("No permission to write runs")
    assert said.endswith("\nGrant it or choose another folder with runs_dir=…\n")
    assert list(runs.iterdir()) == []


def in_a_small_disk(folder: Path, *arguments: str) -> Told:
    """The command with `folder/runs` on a real file system of 300 KiB, in a namespace of its own, and afterwards what
    lies on it. Where namespaces are not allowed, files of more than 100 KB are refused instead."""
    runs = folder / "runs"
    runs.mkdir()
    python = f'"{sys.executable}" -m'
    script = f'{python} zoo.run "$@"; code=$?; {python} zoo.ls runs; find runs -type f; exit $code'
    mount = f'mount -t tmpfs -o size=300k tmpfs "{runs}" && '
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    allowed = (
        shutil.which("unshare") is not None
        and subprocess.run([*inside, f'mount -t tmpfs tmpfs "{runs}"']).returncode == 0
    )
    shell = [*inside, mount + script] if allowed else ["sh", "-c", script]
    done = subprocess.run(
        [*shell, "sh", *arguments], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=120,
        preexec_fn=None if allowed else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    return Told(done.returncode, done.stdout, done.stderr)


def test_no_space_left(tmp_path: Path) -> None:
    told = in_a_small_disk(tmp_path, "model=mlp", *IMAGES, *QUICK)
    assert told.code == 1
    assert "Traceback" not in told.err
    what, way_out = told.err.splitlines()
    assert what.startswith(("No space left on the disk while writing runs/", "The file runs/"))
    assert "choose another folder with runs_dir=" in way_out
    assert "│ failed " in told.out
    left = {Path(line).name for line in told.out.splitlines() if line.startswith("runs/")}
    assert {schema.RUN, schema.ERROR} <= left
    assert not left & {schema.FEATURES, schema.WEIGHTS}, "the file that did not fit is gone"


def test_ascii_only_output_is_no_reason_to_fail(tmp_path: Path) -> None:
    told = process(tmp_path, "model=majority", *IMAGES, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (told.code, told.err) == (0, "")
    assert "accuracy" in told.out


def test_warnings_are_shown_and_less_is_not(command: Callable[..., Told]) -> None:
    assert command("model=majority", *IMAGES).code == 0
    assert logging.getLogger("zoo").level == logging.NOTSET, "the run's own level stays with the run"
