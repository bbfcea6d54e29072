"""python -m zoo.run -m: every cell is run, what fails does not stop the others, and the same command does the rest."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from zoo import launch
from zoo.store import reading, schema

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
