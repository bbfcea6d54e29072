"""python -m zoo.run -m: every cell is run, what fails does not stop the others, and the same command does the rest."""

from __future__ import annotations

import errno
import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from zoo import launch, ls
from zoo.errors import ConfigError, DataError
from zoo.store import reading, retiring, schema

Shell = Callable[..., subprocess.CompletedProcess[str]]

CELLS = ("model=mlp,bert,linear", "task=image_classification", "dataset=digits", "seed=0,1")
SWEEP = ("-m", "zoo.run", "-m", *CELLS, "trainer.epochs=1", "trainer.threads=1", "report=off")


@dataclass(frozen=True)
class Swept:
    """A sweep that has ended: rows of its closing table by (model, seed), and the folder of its runs."""

    code: int
    out: str
    err: str
    root: Path

    @property
    def rows(self) -> dict[tuple[str, str], list[str]]:
        """(model, seed) -> the other columns: dataset, task, status, accuracy, macro-F1, seconds."""
        lines = self.out.rpartition(" cells\n")[2].splitlines()
        cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
        return {(row[0], row[3]): [*row[1:3], *row[4:]] for row in cells}

    def runs(self, status: str) -> list[reading.Run]:
        return [found for found in reading.runs(self.root) if found.status == status]


def sweep(shell: Shell, cwd: Path, *arguments: str, root: str = "runs", **env: str) -> Swept:
    cwd.mkdir(exist_ok=True)
    done = shell(*arguments, cwd=cwd, env={"ZOO_CACHE": str(cwd / "cache"), **env})
    assert "Traceback" not in done.stderr
    return Swept(done.returncode, done.stdout, done.stderr, cwd / root)


@pytest.fixture(scope="module")
def swept(installed: Callable[..., Shell], tmp_path_factory: pytest.TempPathFactory) -> Swept:
    return sweep(installed(), tmp_path_factory.mktemp("sweep"), *SWEEP)


def test_every_cell_stands_in_the_closing_table(swept: Swept) -> None:
    assert (swept.code, swept.err) == (0, "")
    assert "\x1b" not in swept.out
    assert list(swept.rows) == [(model, seed) for model in ("mlp", "bert", "linear") for seed in ("0", "1")]
    for (model, _), (dataset, task, status, accuracy, macro_f1, seconds) in swept.rows.items():
        assert (dataset, task) == ("digits", "image_classification")
        if model == "bert":
            assert (status, accuracy, macro_f1, seconds) == ("skipped", "", "", "")
        else:
            assert status == "complete"
            assert re.fullmatch(r"0\.\d{3} \(0\.\d{3}–0\.\d{3}\)", accuracy)
            assert float(seconds) > 0


def test_a_cell_whose_parts_do_not_fit_is_skipped_with_its_reason(swept: Swept) -> None:
    reason = "Model 'bert' takes text, and task 'image_classification' is about images."
    assert swept.out.splitlines()[-1].startswith(f"bert on digits skipped: {reason}")
    assert swept.out.splitlines()[-1].endswith("(2 cells)"), "said once"
    skipped = swept.runs("skipped")
    assert sorted(found.record["seed"] for found in skipped) == [0, 1]
    for found in skipped:
        assert found.folder.parts[-4:-1] == ("image_classification", "digits", "bert")
        assert found.record["error"]["type"] == "Incompatible"
        assert found.record["error"]["message"].startswith(reason)


def test_every_cell_has_its_folder_and_its_note(swept: Swept) -> None:
    assert len(list(reading.runs(swept.root))) == len(swept.rows)
    complete = swept.runs("complete")
    assert sorted((found.record["model"], found.record["seed"]) for found in complete) == [
        ("linear", 0), ("linear", 1), ("mlp", 0), ("mlp", 1),
    ]  # fmt: skip
    for found in complete:
        found.verify()
        value = found.metrics()["accuracy"]["value"]
        assert swept.rows[found.record["model"], str(found.record["seed"])][3].startswith(f"{value:.3f} ")
    (notes,) = (swept.root / ".sweeps").iterdir()
    told = [json.loads(note.read_text(encoding="utf-8")) for note in sorted(notes.glob("cell-*.json"))]
    # Every model with one seed, then with the next: a sweep that is killed has something to compare.
    assert [(cell["model"], cell["seed"]) for cell in told] == [
        (model, seed) for seed in (0, 1) for model in ("mlp", "bert", "linear")
    ]
    for cell in told:
        assert (swept.root.parent / cell["folder"] / schema.RUN).is_file()


def test_the_same_command_again_does_only_what_is_missing(swept: Swept, installed: Callable[..., Shell]) -> None:
    lost = next(found for found in swept.runs("complete") if found.record["model"] == "mlp")
    seed = str(lost.record["seed"])
    wanted = {found.folder: (found.folder / schema.METRICS).read_bytes() for found in swept.runs("complete")}
    ended = {found.folder: found.record["ended"] for found in swept.runs("complete")}
    shutil.rmtree(lost.folder)
    again = sweep(installed(), swept.root.parent, *SWEEP)
    assert again.code == 0
    statuses = {cell: row[2] for cell, row in again.rows.items()}
    assert statuses.pop(("mlp", seed)) == "complete"
    assert statuses == {
        cell: "skipped" if cell[0] == "bert" else "complete (kept)" for cell in swept.rows if cell != ("mlp", seed)
    }
    assert again.out.count("epoch 1 ") == 1
    assert {found.folder: (found.folder / schema.METRICS).read_bytes() for found in again.runs("complete")} == wanted
    newer = {found.folder for found in again.runs("complete") if found.record["ended"] != ended[found.folder]}
    assert newer == {lost.folder}
    assert len(again.runs("skipped")) == 2, "one folder a cell, however often it is skipped"


def test_two_processes_give_what_one_gives(swept: Swept, installed: Callable[..., Shell], tmp_path: Path) -> None:
    parallel = sweep(installed(), tmp_path, *SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert (parallel.code, "Traceback" in parallel.out) == (0, False)
    assert {cell: row[:5] for cell, row in parallel.rows.items()} == {cell: row[:5] for cell, row in swept.rows.items()}
    alone = {found.folder.name: found for found in swept.runs("complete")}
    together = parallel.runs("complete")
    assert sorted(found.folder.name for found in together) == sorted(alone)
    (notes,) = (parallel.root / ".sweeps").iterdir()
    launcher = int(notes.name.rpartition("-")[2])
    assert launcher not in {found.record["pid"] for found in together}, "in processes of their own"
    for found in together:
        assert found.metrics() == alone[found.folder.name].metrics()


@pytest.fixture(scope="module")
def failing(installed: Callable[..., Shell], tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Two models that break their contract before three that are well; the runs are kept in the home folder, which not
    every shell puts in for `~` behind an equals sign."""
    cwd = tmp_path_factory.mktemp("failing")
    cells = ("model=exploding,lopsided,bow,bow_wide,majority", "task=spam_detection", "trainer.threads=1")
    command = ("-m", "zoo.run", "-m", *cells, "runs_dir=~/kept", "report=off")
    return sweep(installed("example", "faulty"), cwd, *command, root="kept", HOME=str(cwd))


def test_a_cell_that_fails_does_not_stop_the_others(failing: Swept) -> None:
    assert failing.code == 1
    assert {model: row[2] for (model, _), row in failing.rows.items()} == {
        "exploding": "failed",
        "lopsided": "failed",
        "bow": "complete",
        "bow_wide": "complete",
        "majority": "complete",
    }


def test_the_reasons_stand_under_the_table(failing: Swept) -> None:
    exploding, lopsided = failing.out.rpartition("┘\n")[2].splitlines()
    assert exploding.startswith("exploding on messages failed: Model 'exploding' failed in build: ZeroDivisionError: ")
    assert lopsided.startswith("lopsided on messages failed: ")
    assert "(64, 3)" in lopsided
    assert "(64, 2)" in lopsided


def test_a_failed_cell_has_one_folder_with_the_traceback(failing: Swept) -> None:
    failed = {found.record["model"]: found for found in failing.runs("failed")}
    assert sorted(failed) == ["exploding", "lopsided"]
    assert len(failing.runs("failed")) == 2
    for found in failed.values():
        found.verify()
        assert found.record["error"]["type"] == "PluginError"
        assert found.record["interrupted"] is False
    assert "ZeroDivisionError: the width is divided" in (failed["exploding"].folder / schema.ERROR).read_text()


def test_a_variant_is_filed_under_its_own_name_and_runs_its_own_options(failing: Swept) -> None:
    by_label = {found.record["label"]: found for found in failing.runs("complete")}
    assert sorted(by_label) == ["bow", "bow_wide", "majority"]
    wide, plain = by_label["bow_wide"], by_label["bow"]
    assert (wide.folder.parent.name, plain.folder.parent.name) == ("bow_wide", "bow")
    assert wide.record["config"]["model"] == {"name": "bow", "width": 64}
    assert wide.folder.name != plain.folder.name


def test_the_home_folder_is_one_for_runs_and_notes(failing: Swept) -> None:
    assert {path.name for path in failing.root.iterdir()} == {".sweeps", schema.DRAFTS, "spam_detection"}
    assert not (failing.root.parent / "~").exists()


def test_a_request_that_turns_out_wrong_late_leaves_one_folder_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"day number {row} {'fine' if row % 2 else 'foul'},{row % 2}" for row in range(60)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    table = ("dataset=table", "path=mine.csv,none.csv", "trainer.threads=1")
    assert launch.command(["-m", "model=bert", "report=off", *table, "checkpoint=/no/such,/nor/this"]) == 1
    out = capsys.readouterr().out
    assert out.count("│ failed ") == 4
    assert "(2 cells)" in out, "the same reason is told once"
    failed = list(reading.runs(tmp_path / "runs"))
    assert [found.status for found in failed] == ["failed"] * 4
    kinds = sorted(found.record["error"]["type"] for found in failed)
    assert kinds == ["CheckpointError", "CheckpointError", "DataError", "DataError"]


def test_cells_are_named_by_the_options_they_were_asked_for(swept: Swept) -> None:
    rules = [line for line in swept.out.splitlines() if line.startswith("─")]
    assert len(rules) == 6
    assert "model mlp · dataset digits · task image_classification · seed 0" in rules[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small table, `mine.csv`."""
    lines = [f"day number {row} {'fine' if row % 2 else 'foul'},{row % 2}" for row in range(60)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path


TABLE = ("task=text_classification", "dataset=table", "path=mine.csv", "trainer.threads=1", "report=off")


def statuses(root: Path) -> dict[str, list[str]]:
    """Model -> the status of each of its runs."""
    found: dict[str, list[str]] = {}
    for run in reading.runs(root):
        found.setdefault(run.record["model"], []).append(run.status)
    return found


@pytest.mark.parametrize("option", ["model.dropout=0.2", "dropout=0.2"])
def test_a_value_fixed_for_the_swept_models_that_have_the_option(
    here: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert launch.command(["-m", "model=mlp,linear,cnn", *TABLE, option, "steps=1"]) == 0
    assert statuses(here / "runs") == {"mlp": ["complete"], "cnn": ["complete"], "linear": ["skipped"]}
    for run in reading.runs(here / "runs"):
        if run.status == "complete":
            assert run.record["config"]["model"]["dropout"] == 0.2
            assert "model.dropout=0.2" in run.record["command"]
        else:
            assert run.record["error"]["type"] == "Incompatible"
    reason = (
        "linear on table-mine skipped: Model 'linear' has no option 'dropout', which the sweep sets: model.dropout="
    )
    assert reason in capsys.readouterr().out


def test_a_swept_value_skips_only_the_cells_of_those_that_lack_it(here: Path) -> None:
    assert launch.command(["-m", "model=majority,linear", *TABLE, "min_df=1,2"]) == 0
    assert statuses(here / "runs") == {"majority": ["skipped", "skipped"], "linear": ["complete", "complete"]}
    values = [
        run.record["config"]["model"]["min_df"] for run in reading.runs(here / "runs") if run.status == "complete"
    ]
    assert sorted(values) == [1, 2]


def test_a_skipped_cell_does_not_take_the_place_of_the_run_without_that_option(here: Path) -> None:
    assert launch.command(["-m", "model=majority", *TABLE]) == 0
    assert launch.command(["-m", "model=majority,linear", *TABLE, "min_df=1"]) == 0
    found = statuses(here / "runs")
    assert {model: sorted(kinds) for model, kinds in found.items()} == {
        "majority": ["complete", "skipped"],
        "linear": ["complete"],
    }


def test_a_value_fixed_for_the_swept_datasets_that_have_the_option(here: Path) -> None:
    datasets = ("task=text_classification,image_classification", "dataset=table,digits")
    assert launch.command(["-m", "model=majority", *datasets, "path=mine.csv", "report=off"]) == 0
    found = {run.folder.relative_to(here / "runs").parts[:2]: run.status for run in reading.runs(here / "runs")}
    assert found == {
        ("text_classification", "table-mine"): "complete",
        ("text_classification", "digits"): "skipped",
        ("image_classification", "table-mine"): "skipped",
        ("image_classification", "digits"): "skipped",
    }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.dropuot=0.2", "No option 'model.dropuot'. model has: "),
        ("model.hidden=[3]", "No option 'model.hidden'. model has: "),
        ("hidden=[3]", "No option 'hidden'. It is an option of model bert, mlp."),
        ("dropuot=0.2", "No option 'dropuot'. Did you mean 'dropout'?"),
        ("model.dropout=much", "model.dropout=much: it must be a number"),
    ],
)
def test_an_option_that_no_swept_model_has_or_a_wrong_value_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    assert launch.command(["-m", "model=cnn,transformer", *TABLE, option]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not list(reading.runs(here / "runs"))


CHANGED = [
    ("hydra.job.chdir=true",),
    ("hydra.job.chdir=true", "hydra.sweep.subdir=${hydra.job.num}"),
    ("hydra.job.chdir=true", "hydra.sweep.dir=elsewhere", "hydra.sweep.subdir=${hydra.job.num}"),
    ("hydra.sweep.dir=elsewhere",),
    ("hydra.job.chdir=true", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
]


@pytest.mark.parametrize("changed", CHANGED, ids=" ".join)
def test_paths_count_from_where_the_command_was_given(
    here: Path, capsys: pytest.CaptureFixture[str], changed: tuple[str, ...]
) -> None:
    options = [option for option in TABLE if option != "report=off"]
    command = ["-m", "model=majority", *options, "seed=0,1", "runs_dir=kept", "reports_dir=told", *changed]
    assert launch.command(command) == 0
    assert statuses(here / "kept") == {"majority": ["complete", "complete"]}
    notes = here / "elsewhere" if "hydra.sweep.dir=elsewhere" in changed else next((here / "kept/.sweeps").iterdir())
    assert len(list(notes.glob("cell-*.json"))) == 2
    assert (here / "told" / "text_classification-table-mine" / "index.html").is_file()
    assert not list(here.rglob("**/kept/**/kept"))
    assert Path.cwd() == here


@pytest.mark.parametrize("changed", [("hydra.job.chdir=true",), ("hydra.run.dir=else", "hydra.job.chdir=true")])
def test_paths_of_a_single_run_do_so_too(here: Path, changed: tuple[str, ...]) -> None:
    assert launch.command(["model=majority", *TABLE, "runs_dir=kept", *changed]) == 0
    assert statuses(here / "kept") == {"majority": ["complete"]}


def test_a_folder_of_notes_that_is_used_again_holds_the_last_sweep(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-m", "model=majority", *TABLE, "hydra.sweep.dir=notes")
    assert launch.command([*words, "seed=0,1,2"]) == 0
    assert launch.command([*words, "seed=3,4"]) == 0
    assert "\n2 cells" in capsys.readouterr().out
    seeds = [json.loads(note.read_text())["seed"] for note in sorted((here / "notes").glob("cell-*.json"))]
    assert seeds == [3, 4]


USERS = {
    "cell-lines.json": "{}",
    "cell-1-2.json": "{}",
    "cell-0000-0000.json.bak": "{}",
    "cell-0007-0000.json": '{"model": "mine"}',
    "cell-0008-0000.json": "[]",
    "cell-0009-0000.json": "no json",
}


def test_files_of_the_users_in_the_folder_of_notes_stay(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "notes").mkdir()
    for name, content in USERS.items():
        (here / "notes" / name).write_text(content)
    words = ("-m", "model=majority", *TABLE, "hydra.sweep.dir=notes")
    for seeds in ("seed=0,1,2", "seed=3,4"):
        assert launch.command([*words, seeds]) == 0
    assert "\n2 cells" in capsys.readouterr().out
    kept = {path.name: path.read_text() for path in (here / "notes").glob("cell-*")}
    assert USERS.items() <= kept.items()
    assert kept.keys() - USERS.keys() == {"cell-0000-0000.json", "cell-0001-0000.json"}


@pytest.mark.parametrize("name", ["cell-0000-0000", "cell-0001-0000", "cell-0003-0002"])
@pytest.mark.parametrize("more", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")])
def test_a_note_does_not_replace_a_file_of_the_users(
    here: Path, capfd: pytest.CaptureFixture[str], name: str, more: tuple[str, ...]
) -> None:
    (here / "notes").mkdir()
    (here / "notes" / f"{name}.json").write_text("mine")
    assert launch.command(["-m", "model=majority", *TABLE, "hydra.sweep.dir=notes", "seed=0,1,2,3", *more]) == 2
    assert [(path.name, path.read_text()) for path in (here / "notes").iterdir()] == [(f"{name}.json", "mine")]
    assert not (here / "runs").exists(), "it is told before the first cell"
    out, err = capfd.readouterr()
    first, second = err.splitlines()
    assert first == f"{Path('notes') / name}.json has the name of a sweep's note and is none."
    assert second.startswith("Move it away")
    assert "cell" not in out


def test_a_folder_that_takes_no_notes_is_told_before_the_first_cell(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(note: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(note))

    words = ["-m", "model=majority", *TABLE, "hydra.sweep.dir=notes", "seed=0,1"]
    assert launch.command([*words, "runs_dir=first"]) == 0
    monkeypatch.setattr(Path, "unlink", full)
    capfd.readouterr()
    assert launch.command([*words, "runs_dir=second"]) == 1
    assert "Cannot write" in capfd.readouterr().err
    assert not (here / "second").exists()


def test_the_flag_of_a_sweep_may_stand_anywhere(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["model=majority", "-m", "seed=0,1"], ["seed=0,1", "model=majority", "--multirun"]):
        assert launch.command([words[0], *TABLE, *words[1:]]) == 0
        out = capsys.readouterr().out
        assert out.startswith("Sweep of 2 cells.\n")
        assert "cell 1 of 2 · model majority" in out
        assert "cell 2 of 2 · model majority" in out


def test_the_configuration_of_every_cell(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["seed=0,1", "--cfg", "job", "-m"], ["-m", "-c", "job", "seed=0,1"]):
        assert launch.command(["model=majority", *TABLE, *words]) == 0
        out = capsys.readouterr().out
        assert out.count("# cell ") == 2
        assert [line for line in out.splitlines() if line.startswith("seed:")] == ["seed: 0", "seed: 1"]
    assert not (here / "runs").exists()


def table(path: Path, rows: int = 60) -> None:
    lines = [f"day number {row} {'fine' if row % 2 else 'foul'},{row % 2}" for row in range(rows)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")


def broken_data(here: Path) -> Callable[[], None]:
    """The data cannot be read; then they can."""
    (here / "mine.csv").rename(here / "gone.csv")
    return lambda: (here / "gone.csv").rename(here / "mine.csv") and None


def unfit_data(here: Path) -> Callable[[], None]:
    """The data have one class only; then they have two."""
    (here / "mine.csv").write_text("text,label\n" + "".join(f"day {row},0\n" for row in range(60)))
    return lambda: table(here / "mine.csv")


def unfit_fingerprint(here: Path) -> Callable[[], None]:
    """The model cannot say what it is, once the data are read; then it can."""
    patch = pytest.MonkeyPatch()

    def refuse(self: object) -> str:
        raise ConfigError("weights are missing")

    patch.setattr("zoo.baselines.Majority.fingerprint", refuse, raising=False)
    return patch.undo


def unfit_task(here: Path) -> Callable[[], None]:
    """The task refuses the data; then it does not."""
    patch = pytest.MonkeyPatch()

    def refuse(self: object, splits: object) -> None:
        raise DataError("not these data")

    patch.setattr("zoo.tasks.Task.check", refuse)
    return patch.undo


def unfit_model(here: Path) -> Callable[[], None]:
    """The model fails to fit the data; then it does not."""
    patch = pytest.MonkeyPatch()

    def refuse(*_arguments: object) -> None:
        raise ZeroDivisionError

    patch.setattr("zoo.baselines.Majority.fit", refuse)
    return patch.undo


def unfit_model_on_other_data(here: Path) -> Callable[[], None]:
    """The model fails to fit the data, and is given others by the same name."""
    undo = unfit_model(here)

    def fix() -> None:
        undo()
        table(here / "mine.csv", 80)

    return fix


MISTAKES = [broken_data, unfit_data, unfit_fingerprint, unfit_task, unfit_model, unfit_model_on_other_data]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_cell_that_failed_is_not_listed_once_it_has_succeeded(
    here: Path, capsys: pytest.CaptureFixture[str], mistake: Callable[[Path], Callable[[], None]]
) -> None:
    command = ["-m", "model=majority", *TABLE, "seed=0,1"]
    fix = mistake(here)
    try:
        for _ in range(2):
            assert launch.command(command) == 1
            assert statuses(here / "runs") == {"majority": ["failed", "failed"]}, "one folder a cell"
    finally:
        fix()
    assert launch.command(command) == 0
    assert statuses(here / "runs") == {"majority": ["complete", "complete"]}
    assert ls.main(["runs"]) == 0
    assert "failed" not in capsys.readouterr().out.rpartition("runs in")[2]
    assert not [path for path in (here / "runs" / schema.DRAFTS).iterdir() if path.is_dir()]


def test_a_try_that_fails_once_the_data_are_read_has_the_key_of_its_success(here: Path) -> None:
    fix = unfit_task(here)
    assert launch.command(["-m", "model=majority", *TABLE, "seed=0,1"]) == 1
    fix()
    failed = {run.folder.name for run in reading.runs(here / "runs")}
    assert launch.command(["-m", "model=majority", *TABLE, "seed=0,1"]) == 0
    assert {run.folder.name for run in reading.runs(here / "runs")} == failed


def test_a_cell_that_failed_after_its_answers_were_written_is_retired_too(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["-m", "model=majority", *TABLE, "seed=0,1"]
    with monkeypatch.context() as patch:
        patch.setattr("zoo.store.folder.Draft.write_history", lambda *_arguments: 1 // 0, raising=True)
        assert launch.command(command) == 1
    failed = [run.folder for run in reading.runs(here / "runs")]
    assert len(failed) == 2
    assert all((folder / schema.PREDICTIONS).exists() for folder in failed), "or this is another case"
    for folder in failed:  # as by a plugin of an earlier version, whose runs have other keys
        folder.rename(folder.with_name(f"{folder.name[:-1]}{'0' if folder.name[-1] != '0' else '1'}"))
    assert launch.command(command) == 0
    assert statuses(here / "runs") == {"majority": ["complete", "complete"]}


def test_a_run_that_was_completed_meanwhile_is_not_retired(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fix = broken_data(here)
    assert launch.command(["-m", "model=majority", *TABLE]) == 1
    fix()
    delete = retiring._delete

    def late(root: Path, folder: Path, request: str, name: str) -> bool:
        record = json.loads((folder / schema.RUN).read_text())
        (folder / schema.RUN).write_text(json.dumps({**record, "status": "complete"}))
        return delete(root, folder, request, name)

    monkeypatch.setattr(retiring, "_delete", late)
    assert launch.command(["-m", "model=majority", *TABLE]) == 0
    assert len(list((here / "runs").rglob(schema.RUN))) == 2


def test_what_failed_is_retired_in_a_copy_without_its_hidden_folder(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["-m", "model=majority", *TABLE]
    assert launch.command(command) == 0
    fix = broken_data(here)
    assert launch.command(command) == 1
    fix()
    shutil.rmtree(here / "runs" / schema.DRAFTS)
    assert launch.command(command) == 0
    assert statuses(here / "runs") == {"majority": ["complete"]}
    assert not [record for record in caplog.records if "cannot be deleted" in record.getMessage()]


def test_what_failed_for_another_request_stays_listed(here: Path) -> None:
    assert launch.command(["-m", "model=majority", *TABLE, "seed=0,1"]) == 0
    assert launch.command(["-m", "model=majority", *TABLE[:2], "path=mine.csv", "label=none", "report=off"]) == 1
    assert launch.command(["-m", "model=majority", *TABLE, "seed=2,3"]) == 0
    assert sorted(statuses(here / "runs")["majority"]) == ["complete"] * 4 + ["failed"]


def test_a_failed_try_of_a_complete_cell_is_retired_when_the_cell_is_found_complete(here: Path) -> None:
    command = ["-m", "model=majority", *TABLE]
    assert launch.command(command) == 0
    fix = broken_data(here)
    assert launch.command(command) == 1
    assert sorted(statuses(here / "runs")["majority"]) == ["complete", "failed"]
    fix()
    assert launch.command(command) == 0
    assert statuses(here / "runs") == {"majority": ["complete"]}


def test_a_process_killed_while_it_retires_leaves_nothing_that_is_listed(here: Path) -> None:
    """Killed between the renaming and the deletion, and before the renaming: the same command again does the rest."""
    command = ["-m", "model=majority", *TABLE]
    for step in ("remove", "_delete"):
        fix = broken_data(here)
        assert launch.command([*command, "rerun=true"]) == 1
        fix()
        script = [sys.executable, "-c", textwrap.dedent(KILLED), step, *command]
        assert subprocess.run(script, cwd=here, capture_output=True, timeout=120).returncode == -signal.SIGKILL
        assert launch.command(command) == 0
        assert statuses(here / "runs") == {"majority": ["complete"]}
        assert launch.command([*command, "seed=7,8"]) == 0, "clears what is left over"
        assert not [path for path in (here / "runs" / schema.DRAFTS).iterdir() if path.is_dir()]
        shutil.rmtree(here / "runs")


KILLED = """
    import os, signal, sys
    from zoo import launch
    from zoo.store import retiring

    setattr(retiring, sys.argv[1], lambda *_words: os.kill(os.getpid(), signal.SIGKILL))
    launch.command(sys.argv[2:])
"""
