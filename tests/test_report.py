"""`python -m zoo.report` on real runs: written, verified, tampered with, asked wrongly."""

import json
import re
import resource
import shutil
from pathlib import Path

import pytest

from zoo import report, reporting
from zoo.errors import ConfigError, RequestError, StoreError

REPORT = "image_classification-digits"
SWEEP = ["-m", "model=mlp,linear", "task=image_classification", "dataset=digits", "seed=0,1", "trainer.epochs=2"]


@pytest.fixture(scope="module")
def place(installed, tmp_path_factory):
    """A folder with a sweep's runs, and the sweep's own report."""
    folder = tmp_path_factory.mktemp("report")
    done = installed()("-m", "zoo.run", *SWEEP, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Report: reports/image_classification-digits/index.html" in done.stdout
    return folder


@pytest.fixture
def zoo_report(installed, place):
    """Runs `python -m zoo.report` in that folder."""
    return lambda *words: installed()("-m", "zoo.report", *words, cwd=place)


def test_a_sweep_ends_with_its_report(place):
    folder = place / "reports" / "image_classification-digits"
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in document["models"]] == ["linear", "mlp"]
    assert document["study"]["examples"] == 1097
    assert all(0 < model["metrics"]["macro_f1"]["low"] < 1 for model in document["models"])
    assert any(example["png"] for example in document["examples"].values())
    assert "digits" in (folder / "report.md").read_text(encoding="utf-8")


def test_report_off_writes_none(installed, place, tmp_path):
    runs = f"runs_dir={place / 'runs'}"
    done = installed()("-m", "zoo.run", *SWEEP, runs, "report=off", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "complete (kept)" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_names_its_report_and_keeps_the_data_out_of_it(installed, place, tmp_path):
    asked = ("report_name=mine", "language=zh", "examples=false")
    done = installed()("-m", "zoo.run", *SWEEP, f"runs_dir={place / 'runs'}", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Report: reports/mine/index.html\n")
    document = report.read(tmp_path / "reports" / "mine")
    assert document["examples_included"] is False
    assert document["command"][-1] == "examples=false"
    assert document["title"] == "mine · digits"
    assert report.command(["verify", str(tmp_path / "reports" / "mine")]) == 0
    assert 'lang="zh' in (tmp_path / "reports" / "mine" / "index.html").read_text(encoding="utf-8")


def test_a_full_disk_names_the_option_that_moves_the_report(place, tmp_path):
    request = report.Request(out=str(tmp_path / "reports"), draws=20, permutations=10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # writing then fails as on a full disk
    try:
        with pytest.raises(StoreError, match="choose another folder with out=… \\(in a sweep reports_dir=…\\)"):
            report.write([place / "runs"], request, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "reports").iterdir()) == []


SEEDS = [*SWEEP[:4], "seed={}", *SWEEP[5:]]


def swept(run, folder, seeds, *more):
    """The same sweep with other seeds; its report lies in the folder."""
    done = run("-m", "zoo.run", *(word.format(seeds) for word in SEEDS), *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def seeds_of(folder):
    document = report.read(folder)
    return {model["name"]: model["seeds"] for model in document["models"]}


def test_added_seeds_extend_the_report_of_a_sweep(installed, tmp_path):
    run, folder = installed(), tmp_path / "reports" / "image_classification-digits"
    swept(run, tmp_path, "0,1")
    both = swept(run, tmp_path, "2")
    assert "No report" not in both.stderr
    assert "Together with 4 runs of the report that was there.\nReport: " in both.stdout
    assert seeds_of(folder) == {"linear": [0, 1, 2], "mlp": [0, 1, 2]}
    assert "seed=2" in report.read(folder)["command"]
    # Fewer of the same leave nothing out, and another model joins.
    swept(run, tmp_path, "0")
    assert seeds_of(folder) == {"linear": [0, 1, 2], "mlp": [0, 1, 2]}
    single = ["-m", "model=cnn", *SWEEP[2:4], "seed=0,1", "trainer.epochs=1"]
    assert run("-m", "zoo.run", *single, cwd=tmp_path).returncode == 0
    assert seeds_of(folder) == {"cnn": [0, 1], "linear": [0, 1, 2], "mlp": [0, 1, 2]}


def test_a_sweep_of_another_recipe_or_without_the_earlier_runs_leaves_the_report_alone(installed, place, tmp_path):
    shutil.copytree(place / "reports", tmp_path / "reports")
    shutil.copytree(place / "runs", tmp_path / "runs")
    folder, before = tmp_path / "reports" / "image_classification-digits", seeds_of(place / "reports" / REPORT)
    other = swept(installed(), tmp_path, "4,5", "trainer.batch_size=7")
    assert "runs that are not in this sweep and were made by another recipe under the same name" in other.stderr
    assert seeds_of(folder) == before
    shutil.rmtree(tmp_path / "runs" / "image_classification" / "digits" / "linear")
    gone = swept(installed(), tmp_path, "7,8")
    assert "with 2 runs that are not in this sweep and are gone; it was left as it is." in gone.stderr
    assert seeds_of(folder) == before
    named = swept(installed(), tmp_path, "7,8", "report_name=fewer")
    assert named.stdout.endswith("Report: reports/fewer/index.html\n")


def test_the_screen_says_the_first_two_sentences_and_then_the_place(zoo_report, tmp_path):
    done = zoo_report("study=runs", f"out={tmp_path}", "name=said", "draws=50", "permutations=10")
    first, second, *cautions, place_ = done.stdout.splitlines()
    assert re.fullmatch(r"2 models count as \d\.\d\d\W.*independent ones\.", first)
    assert re.fullmatch(r"They all fail together as often as (at least )?\d\.\d\d\W.*independent ones\.", second)
    assert cautions == []
    assert place_ == f"Report: {tmp_path / 'said' / 'index.html'}"
    text = (tmp_path / "said" / "report.md").read_text(encoding="utf-8").replace("\\", "")
    assert text.index(first) < text.index(second)
    chinese = zoo_report("study=runs", f"out={tmp_path}", "name=said", "language=zh", "draws=50", "permutations=10")
    assert "2 个模型相当于" in chinese.stdout


def test_what_is_said_on_a_terminal_while_a_report_is_made(place, monkeypatch, tmp_path):
    from zoo import phases

    monkeypatch.chdir(place)
    said = []
    real = phases.phase

    def heard(stage):
        said.append(stage)
        return real(stage)

    monkeypatch.setattr(report, "phase", heard)
    report.write(["runs"], report.Request(out=str(tmp_path), draws=20, permutations=10), [])
    assert said[:2] == ["loading libraries", "reading the runs"]
    assert said[-1] == "drawing and writing the report"
    assert "measuring likeness: Kinship" in said


def test_moved_runs_are_found_below_a_folder(place, zoo_report, tmp_path):
    shutil.copytree(place / "reports" / REPORT, tmp_path / REPORT)
    document = json.loads((tmp_path / REPORT / "report.json").read_text(encoding="utf-8"))
    for run in document["provenance"]["runs"]:
        run["folder"] = f"nowhere/{run['folder']}"
    reporting.write(document, tmp_path / REPORT)
    lost = zoo_report("verify", str(tmp_path / REPORT))
    assert lost.returncode == 2
    assert "4 of the 4 runs of this report are not where it says" in lost.stderr
    assert "runs=… names the folder" in lost.stderr
    moved = tmp_path / "archive" / "of" / "runs"
    shutil.copytree(place / "runs", moved)
    fine = zoo_report("verify", str(tmp_path / REPORT), f"runs={tmp_path / 'archive'}")
    assert fine.returncode == 0, fine.stderr
    assert "recomputed from 4 runs" in fine.stdout
    shutil.rmtree(next((moved / "image_classification" / "digits" / "mlp").iterdir()))
    lacking = zoo_report("verify", str(tmp_path / REPORT), f"runs={moved}")
    assert lacking.returncode == 2
    assert "lacks 1 of the 4 runs of this report. The first is mlp, seed" in lacking.stderr
    assert zoo_report("verify", str(tmp_path / REPORT), "runs=").returncode == 2


def test_a_report_of_schema_version_1_is_named_as_such(tmp_path, capsys):
    (tmp_path / "report.json").write_text('{"schema_version": 1, "answer": {}}', encoding="utf-8")
    assert report.command(["verify", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "has schema version 1, and this program reads 2" in told
    assert "Make the report again from its runs" in told


def test_verify_bears_another_version_and_data_that_are_gone(place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(place)
    copy = tmp_path / "older"
    shutil.copytree(place / "reports" / "image_classification-digits", copy)
    document = json.loads((copy / "report.json").read_text(encoding="utf-8"))
    document["zoo_version"] = "0.0.1"
    for example in document["examples"].values():
        example["text"] = "what is recomputed has no text"
    (copy / "report.json").write_text(json.dumps(document), encoding="utf-8")
    assert report.command(["verify", str(copy)]) == 0
    assert "was written by zoo 0.0.1" in capsys.readouterr().err


def test_the_options_reach_the_page(place, zoo_report):
    done = zoo_report("study=runs/*/digits", "out=other", "name=chinese", "language=zh", "examples=false", "draws=50")
    assert done.returncode == 0, done.stderr
    document = report.read(place / "other" / "chinese")
    assert document["examples_included"] is False
    assert all(example["png"] is None for example in document["examples"].values())
    assert document["method"]["draws"] == 50
    assert 'lang="zh' in (place / "other" / "chinese" / "index.html").read_text(encoding="utf-8")


def test_verify_recomputes_every_number_and_names_the_first_that_differs(place, zoo_report, tmp_path):
    written = place / "reports" / "image_classification-digits"
    fine = zoo_report("verify", str(written))
    assert fine.returncode == 0, fine.stderr
    assert "every number is the same, recomputed from 4 runs" in fine.stdout
    copy = tmp_path / "tampered"
    shutil.copytree(written, copy)
    document = json.loads((copy / "report.json").read_text(encoding="utf-8"))
    document["models"][1]["metrics"]["accuracy"]["value"] += 0.001
    (copy / "report.json").write_text(json.dumps(document), encoding="utf-8")
    wrong = zoo_report("verify", str(copy))
    assert wrong.returncode == 1
    assert "models[1].metrics.accuracy.value" in wrong.stderr


def test_lineage_is_in_a_sweeps_report_verified_and_left_out_on_request(place, zoo_report, tmp_path):
    written = place / "reports" / "image_classification-digits"
    document = json.loads((written / "report.json").read_text(encoding="utf-8"))
    linear, mlp = (pair for pair in document["lineage"]["pairs"] if pair["a"] == pair["b"])
    assert linear["note"] == "all its runs hold the same weights: its seed changes nothing"
    assert mlp["verdicts"].keys() <= {"convergent", "independent", "undetermined"}
    assert mlp["strongest"]["kind"] == "exact"
    page = (written / "index.html").read_text("utf-8")
    assert "runs of linear with each other" in page
    assert "Shared weights: runs of linear" not in page  # so by construction, and no news
    copy = tmp_path / "tampered"
    shutil.copytree(written, copy)
    index = document["lineage"]["pairs"].index(mlp)
    mlp["strongest"]["p"] /= 2
    (copy / "report.json").write_text(json.dumps(document), encoding="utf-8")
    wrong = zoo_report("verify", str(copy))
    assert wrong.returncode == 1
    assert f"the first that differs is report.json: lineage.pairs[{index}].strongest.p" in wrong.stderr
    done = zoo_report("study=runs", f"out={tmp_path}", "name=without", "lineage=false", "draws=20", "permutations=10")
    assert done.returncode == 0, done.stderr
    assert "lineage" not in report.read(tmp_path / "without")
    assert zoo_report("verify", str(tmp_path / "without")).returncode == 0


def test_a_damaged_run_is_left_out_and_named(place, zoo_report, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(place / "runs", runs)
    damaged = next((runs / "image_classification" / "digits" / "mlp").iterdir())
    seed = json.loads((damaged / "run.json").read_text(encoding="utf-8"))["seed"]
    content = bytearray((damaged / "predictions.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "predictions.parquet").write_bytes(bytes(content))
    done = zoo_report(f"study={runs}", f"out={tmp_path}", "name=less", "draws=20", "permutations=10")
    assert done.returncode == 0, done.stderr
    told = f"Damaged, and left out of everything here: mlp, seed {seed} ({damaged})."
    assert told in done.stdout.splitlines()
    text = (tmp_path / "less" / "report.md").read_text(encoding="utf-8").replace("\\", "")
    assert text.index(told) < text.index("The two, ") < text.index("## Leaderboard")
    assert zoo_report("verify", str(tmp_path / "less")).returncode == 0
    left = report.read(tmp_path / "less")["left_out"]
    assert any(damaged.name in str(item["folder"]) and "predictions.parquet" in item["reason"] for item in left)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sudy=runs"], "Did you mean 'study'"),
        (["study=runs", "language=fr"], "language=fr: it must be en or zh"),
        (["study=runs", "draws=many"], "whole number"),
        (["study=runs", "draws=1"], "2 or more"),
        (["study=runs", "seed=-1"], "0 or more"),
        (["study=runs", "examples=perhaps"], "true or false"),
        (["study=runs", "lineage=maybe"], "true or false"),
        (["study=runs", "name=../up"], "make a name"),
        (["out=x"], "Which runs?"),
        (["runs/x"], "'runs/x' has no option before it. Write study=runs/x"),
        (["runs/x", "runs/y", "draws=3"], "Write study=runs/x,runs/y"),
        (["draws"], "No option 'draws'"),
    ],
)
def test_wrong_requests_say_what_would_be_right(words, message):
    with pytest.raises(ConfigError, match=message):
        report.parse(words)


def test_a_mistyped_report_is_answered_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports" / "digits").mkdir(parents=True)
    for asked in ("digts", "reports/digts", "reprts/digits"):
        with pytest.raises(RequestError, match="Did you mean 'reports/digits'"):
            report.read(Path(asked))


def test_nothing_to_read_is_said_and_exits_with_2(zoo_report):
    assert zoo_report("study=nowhere").returncode == 2
    assert zoo_report("verify", "nowhere").returncode == 2
    assert zoo_report().returncode == 2
    assert "study=" in zoo_report("--help").stdout


def test_a_file_that_is_no_report_is_refused(tmp_path):
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RequestError, match="is no report: "):
        report.read(tmp_path)
