"""No command writes over what it reads, wherever it is told to write."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from zoo import ask, bench, importing, launch, report
from zoo.data.litter import is_litter
from zoo.disguise import __main__ as disguise
from zoo.errors import RequestError
from zoo.lineage import command as lineage
from zoo.store import reading, schema, study
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace, escape, shortened
from zoo.store.places import kept, require_apart
from zoo.store.reading import read


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder, with its checksum."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`runs` with two perceptrons."""
    from rich.console import Console

    from zoo.config import Device, RunConfig, TrainerOptions
    from zoo.plugins import registry
    from zoo.run import run

    root = tmp_path_factory.mktemp("places") / "runs"
    found = registry()
    for seed in (0, 1):
        parts = found.find("model", "mlp").cls(hidden=[8]), found.find("dataset", "digits").cls()
        trainer = TrainerOptions(device=Device.cpu, threads=1, epochs=1)
        task = found.find("task", "image_classification").cls()
        run(RunConfig(*parts, task, trainer, "mlp", seed=seed, runs_dir=root, probe=0), found, Console(quiet=True))
    return root


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The two run folders, copied into an empty working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "runs")
    return sorted(path.parent for path in (tmp_path / "runs").rglob(schema.RUN))


# Where the output is to go: from a run folder.
PLACES: dict[str, Callable[[Path], Path]] = {
    "the run": lambda run: run,
    "in the run": lambda run: run / "new",
    "the folder of the model": lambda run: run.parent,
    "the runs root": lambda run: run.parents[3],
    "above the runs root": lambda run: run.parents[4],
    "a way round": lambda run: run / ".." / ".." / ".." / ".." / ".." / "runs",
    "relative": lambda run: Path(os.path.relpath(run.parents[3])),
    "a link to the root": lambda run: linked(run.parents[3]),
    "a link to the run": lambda run: linked(run),
    "elsewhere": lambda run: Path("elsewhere"),
}


def linked(folder: Path) -> Path:
    link = Path("link")
    link.symlink_to(folder)
    return link


Command = Callable[[Sequence[Path], Path], int]
QUICK = ("draws=20", "permutations=10", "examples=false", "lineage=false")
COMMANDS: dict[str, Command] = {
    "ask": lambda runs, out: ask.command([*map(str, runs), f"out={out}", "inputs=2"]),
    "disguise": lambda runs, out: disguise.command([str(runs[0]), "how=permute", f"out={out}", "device=cpu"]),
    "report": lambda runs, out: report.command([f"study={runs[0].parent}", f"out={out}", "name=x", *QUICK]),
    "report named as a folder": lambda runs, out: report.command(
        [f"study={runs[0].parent}", f"out={out.parent}", f"name={out.name}", *QUICK]
    ),
    "lineage": lambda runs, out: lineage.command([*map(str, runs), f"out={out / 'model.safetensors'}"]),
    "lineage into the folder itself": lambda runs, out: lineage.command([*map(str, runs), f"out={out}"]),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_read_stays_as_it_is(
    name: str, place: str, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = [listing(run) for run in runs]
    code = COMMANDS[name](runs, PLACES[place](runs[0]))
    assert [listing(run) for run in runs] == before
    said = capsys.readouterr().err
    assert code in (0, 2), said
    if code == 2:
        assert 1 <= len(said.splitlines()) <= 4
    if "the run" in place.replace("the runs root", "") and name != "lineage into the folder itself":
        assert code == 2, "neither a run nor what is in it is a place to write to"
    if place == "elsewhere":
        assert code == 0, said


def test_asked_answers_do_not_take_the_place_of_the_run(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    for out in (runs[0].parents[3], Path("runs"), linked(runs[0].parents[3])):
        assert ask.command([str(runs[0]), f"out={out}", "inputs=2"]) == 2
        assert "is itself being read: nothing is written over it.\nChoose another folder with out=…" in (
            capsys.readouterr().err
        )
    # Nor that of a copy of it, which nobody reads just now.
    shutil.copytree("runs", "copy")
    before = listing(Path("copy"))
    assert ask.command([str(runs[0]), "out=copy", "inputs=2"]) == 2
    assert "lies a run that was not made by zoo.ask" in capsys.readouterr().err
    assert listing(Path("copy")) == before
    assert ask.command([str(runs[0]), "out=asked", "inputs=2"]) == 0
    assert ask.command([str(runs[0]), "out=asked", "inputs=3"]) == 0, "former answers are replaced"


def test_a_scout_is_read_too(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = listing(runs[1])
    out = runs[1] / "new"
    assert ask.command([str(runs[0]), f"scout={runs[1]}", f"out={out}", "inputs=2"]) == 2
    assert listing(runs[1]) == before


@pytest.mark.parametrize("replica", ["replicas", "references"])
def test_replicas_and_references_of_a_lineage_are_read_too(replica: str, runs: list[Path]) -> None:
    before = listing(runs[1])
    target = runs[1] / schema.WEIGHTS
    pair = [str(runs[0]), str(runs[0])]
    assert lineage.command([*pair, f"{replica}={runs[1].parent}", f"out={target}"]) == 2
    assert listing(runs[1]) == before


def test_a_bench_of_a_run_is_not_written_into_it(runs: list[Path]) -> None:
    """Named by another way, so that the names alone do not tell that the study's folder is the run."""
    before = listing(runs[0])
    around = runs[0] / ".." / runs[0].name
    bench.command([f"study={around}", "repetitions=1", "sample=8", "threads=1", "twins=none"])
    assert listing(runs[0]) == before


def test_an_import_does_not_replace_the_folder_of_the_file_that_it_reads(tmp_path: Path) -> None:
    rows = ["model,seed,example_id,label,prediction", *(f"m,0,e{number},a,{'ab'[number % 2]}" for number in range(9))]
    (tmp_path / "answers.csv").write_text("\n".join(rows), encoding="utf-8")
    words = ["--runs-dir", str(tmp_path / "runs"), "--dataset", "d"]
    assert importing.main([str(tmp_path / "answers.csv"), *words]) == 0
    (folder,) = (path.parent for path in tmp_path.rglob(schema.RUN))
    inside = shutil.copy(tmp_path / "answers.csv", folder)
    (folder / schema.METRICS).unlink()  # damaged, it would be written again
    before = listing(folder)
    assert importing.main([inside, *words]) == 2
    assert listing(folder) == before


def test_a_run_does_not_replace_the_folder_that_its_data_lie_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "\n".join(["text,label", *(f"day {number},{number % 2}" for number in range(60))])
    Path("mine.csv").write_text(text, encoding="utf-8")
    words = ["model=majority", "dataset=table", "runs_dir=runs"]
    assert launch.command([*words, "path=mine.csv"]) == 0
    (folder,) = (path.parent for path in tmp_path.rglob(schema.RUN))
    shutil.move("mine.csv", folder)
    before = listing(folder)
    assert launch.command([*words, f"path={folder / 'mine.csv'}", "rerun=true"]) == 2
    assert "which is being read: nothing is written over it." in capsys.readouterr().err
    assert listing(folder) == before


# The mechanism


def test_what_is_is_apart_and_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with kept([tmp_path / "a" / "b"]):
        for place in ("a", "a/b", "a/b/c", "a/b/c/d/e", "a/b/new", "link", "link/b", "link/b/new", "a/x/../b", "."):
            with pytest.raises(RequestError, match="being read"):
                require_apart(tmp_path / place)
        for place in ("a/x", "x", "link/x", "a/bb", "a/b/../x"):
            require_apart(tmp_path / place)
    with kept([tmp_path / "a"], whole=False):
        require_apart(tmp_path / "a" / "new")
        for place in ("a", "link", "."):
            with pytest.raises(RequestError):
                require_apart(tmp_path / place)
    with kept([tmp_path / "absent"]):
        require_apart(tmp_path / "x")
    require_apart(tmp_path / "a" / "b")


def test_a_draft_is_not_even_begun_where_it_could_not_end(tmp_path: Path) -> None:
    place = RunPlace("t", "d", "m", "k")
    with Draft.open(tmp_path, place) as draft:
        draft.publish({})
    folder = tmp_path / place.relative
    before = listing(tmp_path)
    for root in (tmp_path, folder, folder / "deep"):
        with kept([folder]), pytest.raises(RequestError):
            Draft.open(root, place)
    assert listing(tmp_path) == before


# Names


@pytest.mark.parametrize("name", ["a" * 255, "a" * 5000, "评" * 90, "%" * 100, "." * 300, "\0" * 90])
def test_a_long_name_is_shortened_and_stays_apart(name: str, tmp_path: Path) -> None:
    assert len(escape(name).encode()) <= 200
    assert escape(name) != escape(name + name[-1])
    with Draft.open(tmp_path, RunPlace(name, name, name, name), {"seed": 0}) as draft:
        folder = draft.publish({})
    assert read(folder).record["model"] == name
    assert shortened("short") == "short"


@pytest.mark.parametrize("option", ["runs_dir", "report_name", "reports_dir"])
def test_long_names_on_the_command_line(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-m", "model=majority", "seed=0,1", "task=image_classification", "dataset=digits", f"{option}={'n' * 300}"]
    code = launch.command(words)
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    assert code == (2 if option == "runs_dir" else 0)  # without a place for its notes no sweep begins
    if option == "report_name":
        assert len(list(tmp_path.glob("reports/n*/index.html"))) == 1
    else:
        assert "is too long: a disk takes 255 bytes" in said.err + said.out


# Litter


LITTER = [".DS_Store", "._run.json", "Thumbs.db", "desktop.ini", ".gitkeep", ".ipynb_checkpoints", "run.json~",
          "#run.json#", ".#run.json", ".run.json.swp", "report.md.bak", ".nfs0001"]  # fmt: skip


@pytest.mark.parametrize("name", LITTER)
def test_litter_in_a_draft_is_no_file_of_the_run(name: str, tmp_path: Path) -> None:
    with Draft.open(tmp_path, RunPlace("t", "d", "m", "k")) as draft:
        draft.write_text("note.txt", "mine")
        (draft.folder / name).write_text("litter", encoding="utf-8")
        folder = draft.publish({})
    assert list(read(folder).record["files"]) == ["note.txt"]
    (folder / name).write_text("another", encoding="utf-8")
    read(folder)
    assert is_litter(name)


def test_litter_in_a_study_changes_nothing(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = runs[0].parents[3]
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for name in LITTER:
            (folder / name).write_text("litter", encoding="utf-8")
        (folder / ".ipynb").mkdir()
    found = study.open(root)
    assert ([run.folder for run in found.runs], found.left_out) == (runs, ())
    assert [run.folder for run in reading.runs(root)] == runs
    assert report.command([f"study={root}", "out=reports", "name=x", *QUICK]) == 0
    assert lineage.command([*map(str, runs), f"replicas={root}"]) == 0


def test_what_is_no_litter() -> None:
    names = ["run.json", "report.md", "notes.txt", ".hidden", "figures", "model.safetensors", "a.b", ".env"]
    assert not [name for name in names if is_litter(name)]
    assert np.all([is_litter(name) for name in LITTER])


@pytest.mark.parametrize(
    ("out", "name"), [("runs/image_classification", "x"), ("runs/image_classification/new", "x"),
                      ("runs/sentiment/digits", "x"), ("runs", "sentiment"), ("../*/runs/image_classification", "x")]
)  # fmt: skip
def test_a_report_goes_in_no_folder_of_a_task(runs, capsys, monkeypatch, out, name):
    from zoo.analysis import document

    monkeypatch.setattr(document, "analyse", lambda *_, **__: pytest.fail("refused before the analysis, not after"))
    before = listing(Path("runs"))
    out = out.replace("*", Path.cwd().name)
    assert report.command(["study=runs", f"out={out}", f"name={name}", *QUICK]) == 2
    told = capsys.readouterr().err
    assert f"would lie in {Path.cwd() / 'runs'}" in told
    assert "out=…" in told
    assert listing(Path("runs")) == before
    assert sorted(os.listdir("runs")) == [".drafts", "image_classification"]


@pytest.mark.parametrize(
    ("options", "code"),
    [("runs_dir=kept reports_dir=kept/reports", 0), ("runs_dir=. reports_dir=kept", 0),
     ("runs_dir=kept reports_dir=kept/image_classification", 2), ("runs_dir=. reports_dir=sentiment/new", 2),
     ("runs_dir=kept reports_dir=kept report_name=sentiment", 2),
     ("runs_dir=kept reports_dir=kept/sentiment report=off", 0)]
)  # fmt: skip
def test_a_sweep_is_told_before_its_first_cell_that_its_report_would_lie_among_the_runs(
    options, code, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    sweep = ["-m", "model=majority,linear", "task=image_classification", "dataset=digits"]
    assert launch.command([*sweep, *options.split()]) == code
    told = capsys.readouterr()
    assert ("where the runs of task" in told.err) == (code == 2), told.err
    assert ("reports_dir=…" in told.err) == (code == 2)
    runs = list(tmp_path.rglob("run.json"))
    assert len(runs) == (0 if code else 2), "refused before anything ran"
    assert len(list(tmp_path.rglob("kept/**/index.html"))) == (code == 0 and "report=off" not in options)


def test_a_report_may_lie_beside_the_tasks_from_everywhere(runs, capsys):
    for name in ("one", "two"):  # the second is read past the first
        assert report.command(["study=runs", "out=runs/reports", f"name={name}", *QUICK]) == 0
        assert Path(f"runs/reports/{name}/index.html").is_file()
    assert not capsys.readouterr().err
    assert len(study.open("runs").runs) == 2
    assert len(list(reading.runs(Path("runs")))) == 2


def test_a_report_may_lie_beside_the_tasks_of_the_folder_in_which_the_user_works(runs, monkeypatch):
    monkeypatch.chdir("runs")
    assert report.command(["study=image_classification", "name=x", *QUICK]) == 0
    assert Path("reports/x/index.html").is_file()
    assert report.command(["study=image_classification", "out=image_classification", "name=x", *QUICK]) == 2
