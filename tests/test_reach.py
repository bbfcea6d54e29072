"""What a stored run may make a command read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from zoo_bert import BERT

import zoo
from zoo import ask, bench, data, launch, report
from zoo.data import reach
from zoo.data.hub import Hub
from zoo.data.images import Arrays, ImageFolder
from zoo.data.packaged import Digits
from zoo.data.tables import Table
from zoo.disguise import __main__ as disguise
from zoo.errors import ConfigError, DataError
from zoo.lineage import command as lineage
from zoo.lineage import groups
from zoo.store import schema


@dataclass
class Theirs(zoo.Dataset):
    """A dataset of somebody's plugin."""

    words: str = "some/default"
    files: list[str] = field(default_factory=list)
    further: dict[str, str] = field(default_factory=dict)
    language: str = "en"

    pooling: str = zoo.option("mean", "which of two", choices=("mean", "cls"))
    download: bool = False

    name: ClassVar[str] = "theirs"
    modality: ClassVar[zoo.Modality] = "text"

    def read(self) -> zoo.Data:
        raise NotImplementedError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with data in it and beside it."""
    folder = tmp_path / "here"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    for place in (folder / "data", folder, tmp_path / "beside"):
        (place / "mine.csv").write_text("text,label\n", encoding="utf-8")
    (folder / "link.csv").symlink_to(tmp_path / "beside" / "mine.csv")
    (folder / "out").symlink_to(tmp_path / "beside")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "part",
    [
        Digits(),
        Table(path="mine.csv"),
        Table(path="data/mine.csv", separator="/", text="and/or"),
        Table(path="data/{split}.csv"),
        Table(path="data"),
        ImageFolder(root="data"),
        Arrays(path="data/x.npz"),
        Hub(path="data"),
        Theirs(),
        Theirs(files=["data/mine.csv"], pooling="cls", further={"path": "mine.csv", "none": ""}),
        BERT(),
        BERT(checkpoint="data", pooling="cls"),
    ],
)
def test_what_is_read_unasked(part: object, here: Path) -> None:
    reach.require_allowed(part)


@pytest.mark.parametrize(
    "part",
    [
        Table(path="/etc/passwd"),
        Table(path="../beside/mine.csv"),
        Table(path="data/../../beside/mine.csv"),
        Table(path="~/mine.csv"),
        Table(path="link.csv"),
        Table(path="out/{split}.csv"),
        Table(path="data/{split}/../../../beside/mine.csv"),
        Table(path="{split}/../../beside/mine.csv"),
        Table(path=".."),
        Table(path="/"),
        Table(path="http://example.org/x.csv"),
        Table(path="x\0y"),
        ImageFolder(root="out"),
        Arrays(path="/srv/x.npz"),
        Hub(path="owner/name"),
        Hub(path="imdb"),
        Hub(path="../beside"),
        Theirs(words="/srv/words"),
        Theirs(files=["data/mine.csv", "../beside/mine.csv"]),
        Theirs(further={"path": "~/x"}),
        Theirs(further={"path": "out"}),
        Theirs(language="https://example.org"),
        Theirs(language="fr"),
        Theirs(words="data/not-there"),
        Theirs(download=True),
        BERT(checkpoint="someone/their-model"),
        BERT(checkpoint="bert-base-uncased"),
        BERT(checkpoint="someone/their-model", download=True),
        BERT(download=True),
        BERT(checkpoint="data", download=True),
    ],
)
def test_what_is_read_only_when_it_is_asked_for(part: object, here: Path) -> None:
    with pytest.raises(DataError, match=r"run.json names .*: it is read with data=true only\.$"):
        reach.require_allowed(part)
    with reach.allowing("true"):
        reach.require_allowed(part)
    with reach.allowing("false"), pytest.raises(DataError, match="data=false"):
        reach.require_allowed(Digits())


def test_a_stored_model_fetches_nothing_unasked() -> None:
    asked = BERT(checkpoint="someone/their-model", download=True)
    assert reach.without_download(asked) == BERT(checkpoint="someone/their-model")
    assert reach.without_download(Digits()) == Digits()
    with reach.allowing("true"):
        assert reach.without_download(asked) is asked


def test_the_units_of_a_stored_model_are_told_without_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lineage asks the model of a record for its units."""
    seen: list[bool] = []

    def find(_checkpoint: str, download: bool = False) -> None:
        seen.append(download)
        raise zoo.CheckpointError("not there")

    monkeypatch.setattr("zoo_bert.find_checkpoint", find)
    options = {"name": "bert", "checkpoint": "someone/their-model", "download": True}
    weights = SimpleNamespace(record={"config": {"model": options}}, shapes={})
    groups._declared(weights)  # type: ignore[arg-type]
    assert seen == [False]


def test_the_option_has_three_values() -> None:
    assert [reach.chosen(text) for text in ("auto", "True", "FALSE")] == ["auto", "true", "false"]
    with pytest.raises(ConfigError, match="data=perhaps: it is one of auto, true, false"):
        reach.chosen("perhaps")


# Commands


SECRET = "nobody outside may read this"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs` of two models on a file outside of it, in `private`."""
    folder = tmp_path_factory.mktemp("reach")
    (folder / "private").mkdir()
    (folder / "work").mkdir()
    rows = [f"{SECRET} {number} {'good' if number % 2 else 'bad'},{number % 2}" for number in range(80)]
    (folder / "private" / "mine.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "work")
        patch.setenv("ZOO_CACHE", "off")
        words = ["-m", "model=mlp,linear", "seed=0,1", "dataset=table", f"path={folder / 'private' / 'mine.csv'}"]
        assert launch.command([*words, "trainer.epochs=1", "trainer.threads=1"]) == 0
    return folder


@pytest.fixture
def work(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(foreign / "work")
    monkeypatch.setenv("ZOO_CACHE", "off")
    return foreign / "work"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The datasets that were read."""
    seen: list[object] = []
    load = data.load

    def watched(dataset: zoo.Dataset) -> zoo.Splits:
        seen.append(dataset)
        return load(dataset)

    monkeypatch.setattr(data, "load", watched)
    return seen


def run_folders(work: Path, model: str) -> list[str]:
    return sorted(str(path.parent) for path in work.glob(f"runs/*/*/{model}/*/{schema.RUN}"))


def test_a_sweeps_own_report_shows_the_texts(work: Path) -> None:
    (page,) = work.glob("reports/*/index.html")
    assert SECRET in page.read_text(encoding="utf-8")


WRITTEN = 1
"""Of so few texts one model is never wrong and the other says one thing: the report has nothing to compare."""


def test_a_report_shows_them_only_when_it_is_asked(
    work: Path, tmp_path: Path, opened: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    words = ["study=runs", f"out={tmp_path}", "draws=20", "permutations=10"]
    assert report.command([*words, "name=auto"]) == WRITTEN
    assert not opened
    told = [record.getMessage() for record in caplog.records if "not shown" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("which is not below the current folder: it is read with data=true only.")
    assert SECRET not in (tmp_path / "auto" / "index.html").read_text(encoding="utf-8")
    assert report.command(["verify", str(tmp_path / "auto")]) == 0
    assert report.command([*words, "name=none", "data=false"]) == WRITTEN
    assert not opened
    assert report.command([*words, "name=all", "data=true"]) == WRITTEN
    assert opened
    assert SECRET in (tmp_path / "all" / "index.html").read_text(encoding="utf-8")
    assert report.command(["verify", str(tmp_path / "all"), "data=true"]) == 0
    assert report.command(["verify", str(tmp_path / "all"), "data=maybe"]) == 2
    assert report.command([*words, "data=maybe"]) == 2


def test_a_run_whose_folder_was_changed_to_name_another_file(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[object]
) -> None:
    """A foreign run of the hub, of another file, of a default that an environment variable stands in."""
    shutil.copytree(work / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTSIDE", "/etc")
    for dataset in (
        {"name": "hub", "path": "owner/name"},
        {"name": "table", "path": "/etc/passwd"},
        {"name": "table", "path": "${oc.env:OUTSIDE}/passwd"},
        {"name": "arrays", "path": "/etc"},
        {"name": "nothing"},
        "odd",
        None,
    ):
        for record in tmp_path.rglob(schema.RUN):
            content = json.loads(record.read_text(encoding="utf-8"))
            content["config"]["dataset"] = dataset
            record.write_text(json.dumps(content), encoding="utf-8")
        words = ["study=runs", "out=reports", "name=x", "draws=20", "permutations=10"]
        assert report.command(words) == WRITTEN, dataset
        assert not opened, dataset


@pytest.mark.parametrize(
    "command",
    [
        lambda runs, out, *more: ask.command([*runs, f"out={out}", "inputs=2", *more]),
        lambda runs, out, *more: disguise.command([runs[0], "how=permute", f"out={out}", "device=cpu", *more]),
        lambda runs, out, *more: bench.command(
            [f"study={Path(runs[0]).parent}", "repetitions=1", "sample=8", "threads=1", "twins=none", *more]
        ),
    ],
    ids=["ask", "disguise", "bench"],
)
def test_commands_that_need_the_data_say_how_to_allow_it(
    command: Callable[..., int], work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work / "runs", tmp_path / "work" / "runs")
    runs = run_folders(tmp_path / "work", "mlp")
    assert command(runs, tmp_path / "new") in (1, 2)
    said = capsys.readouterr()
    assert "is read with data=true only" in said.err + said.out
    assert "Traceback" not in said.err
    assert command(runs, tmp_path / "new", "data=true") == 0


def test_a_lineage_reads_training_data_only_when_it_is_asked(work: Path, tmp_path: Path, opened: list[object]) -> None:
    runs = run_folders(work, "mlp")
    assert lineage.command([*runs, f"out={tmp_path / 'auto.json'}"]) == 0
    assert lineage.command([*runs, "data=false"]) == 0
    assert not opened
    assert "is read with data=true only" in (tmp_path / "auto.json").read_text(encoding="utf-8")
    assert lineage.command([*runs, "data=true"]) == 0
    assert opened
    assert lineage.command([*runs, "data=1"]) == 2
