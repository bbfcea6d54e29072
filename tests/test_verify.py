"""`python -m zoo.report verify`: what it compares, what it leaves aside and says so, and which run it names."""

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from test_analysis import write_run

from zoo import report, reporting
from zoo.analysis.verify import compare_files, difference
from zoo.store.schema import PREDICTIONS, RUN

COSTS = {"train_seconds": 3.0, "infer_samples_per_sec": 100.0, "param_count": 10, "device": "cpu", "threads": 1}


def trained(root: Path, model: str, seed: int, **more: float) -> Path:
    """A run with costs; the same answers each time for one model and seed."""
    rng = np.random.default_rng([*model.encode(), seed])
    labels = np.random.default_rng(0).integers(0, 3, 60)
    answers = np.where(rng.random(60) < 0.4, rng.integers(0, 3, 60), labels)
    record = {"training": COSTS | more, "peak_memory_mib": 50.0 + more.get("train_seconds", 0)}
    return write_run(root, model, seed, answers, labels, record=record)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with four runs and a report of them."""
    place = tmp_path_factory.mktemp("verify")
    for model in ("alpha", "beta"):
        for seed in (0, 1):
            trained(place / "runs", model, seed)
    asked = report.Request(study=str(place / "runs"), out=str(place), name="written", draws=20, permutations=5)
    report.write([place / "runs"], asked, ["python", "-m", "zoo.report"])
    return place


@pytest.fixture
def place(first, tmp_path, monkeypatch):
    """A copy of it, whose report names the runs by the path below the current folder."""
    for name in ("runs", "written"):
        shutil.copytree(first / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    document = report.read(tmp_path / "written")
    for run in document["provenance"]["runs"]:
        run["folder"] = str(Path(run["folder"]).relative_to(first))
    reporting.write(document, tmp_path / "written")
    return tmp_path


def verified(capsys, *more: str) -> tuple[int, str]:
    code = report.command(["verify", "written", *more])
    told = capsys.readouterr()
    return code, told.out + told.err


def aged(place: Path, by: timedelta) -> None:
    """Have the report be made at another time than it was."""
    document = report.read(place / "written")
    made = datetime.fromisoformat(document["created"]) + by
    document["created"] = made.isoformat().replace("+00:00", "Z")
    reporting.write(document, place / "written")


def test_an_untouched_report_verifies(place, capsys):
    code, told = verified(capsys)
    assert (code, told) == (0, "written: every number is the same, recomputed from 4 runs, and so are its files.\n")
    assert report.command(["verify", "written/report.json"]) == 0


FILES = ["report.md", "index.html", "tables/metrics.csv", "tables/runs.csv", "figures/pairs.svg"]


@pytest.fixture
def compared(place, monkeypatch):
    """Compares the files of the report, which are written again once: (the first difference, remarks)."""
    document = report.read(place / "written")
    parts = reporting.render(document)
    monkeypatch.setattr(reporting, "render", lambda *_: parts)

    def compare():
        found = compare_files(place / "written", document)
        return found.different, found.remarks

    assert compare() == (None, ())
    return compare


@pytest.mark.parametrize("name", FILES)
def test_a_number_changed_in_any_file_is_found_and_the_file_named(place, compared, name):
    file = place / "written" / name
    text = file.read_text(encoding="utf-8")
    number = re.findall(r"0\.\d\d+" if name != "tables/runs.csv" else r"alpha0", text)[-1]
    file.write_text(text[::-1].replace(number[::-1], f"{number[:-1]}77"[::-1], 1)[::-1], encoding="utf-8")
    assert compared()[0].startswith(f"{name}, line ")
    assert len(compared()[0]) < 300


def test_an_edited_file_fails_the_command(place, capsys):
    file = place / "written" / "report.md"
    file.write_text(file.read_text(encoding="utf-8").replace("2 models count as", "2 models count for"), "utf-8")
    code, told = verified(capsys)
    assert code == 1
    assert re.search(r"^written: the first that differs is report.md, line \d+: '.*for.*' in the report, '.*as", told)


@pytest.mark.parametrize(
    ("end", "told"),
    [("\n", "1 line more"), ("\n\n", "2 lines more"), (None, "1 line fewer")],
)
def test_a_text_that_only_ends_later_or_earlier_is_told_so(place, compared, end, told):
    file = place / "written" / "tables" / "metrics.csv"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.rstrip("\n") if end is None else text + end, encoding="utf-8")
    assert compared()[0] == f"tables/metrics.csv: it ends with {told} than by its numbers"


def test_the_data_within_the_page_are_compared(place, compared):
    page = place / "written" / "index.html"
    head, begin, rest = page.read_text(encoding="utf-8").partition('<script type="application/json" id="data">')
    data, end, tail = rest.partition("</script>")
    changed = data.replace('"v":[', '"v":[0.5,', 1)
    assert changed != data
    page.write_text(head + begin + changed + end + tail, encoding="utf-8")
    assert compared()[0].startswith("index.html, line ")


def test_every_file_is_compared_a_missing_and_a_foreign_one_named(place, compared):
    names = [path.relative_to(place / "written").as_posix() for path in (place / "written").rglob("*.*")]
    assert {"report.json", *FILES} <= set(names)
    for name in sorted(set(names) - {"report.json"}):
        file = place / "written" / name
        content = file.read_bytes()
        file.unlink()
        assert compared() == (f"{name}: it is missing", ())
        file.write_bytes(content + b"more\n")
        assert compared()[0].startswith(f"{name}, line ")
        file.write_bytes(content)
    (place / "written" / "tables" / "bench.csv").write_text("model\n")
    assert compared() == ("tables/bench.csv: this report has no such file", ())
    (place / "written" / "tables" / "bench.csv").rename(place / "written" / "tables" / "of_my_own.csv")
    assert compared() == (None, ())


def test_another_charting_library_and_fonts_are_said_and_are_no_difference(place, compared):
    page = place / "written" / "index.html"
    page.write_text(page.read_text(encoding="utf-8").replace("<script>", "<script>/*other*/", 1), encoding="utf-8")
    charts = sorted((place / "written" / "figures").iterdir())
    for chart in charts:
        chart.write_text(chart.read_text(encoding="utf-8").replace("<svg ", '<svg data-other="1" '), encoding="utf-8")
    different, remarks = compared()
    assert different is None
    assert "index.html carries another charting library" in remarks[0]
    assert "The charts say the same and are drawn otherwise" in remarks[1]
    drawn = charts[0].read_text("utf-8")
    charts[0].write_text(re.sub(r">(\w+)</text>", ">another</text>", drawn, count=1), encoding="utf-8")
    assert compared()[0].startswith(f"figures/{charts[0].name}, line ")
    charts[0].write_text(drawn, encoding="utf-8")
    page.write_text(page.read_text(encoding="utf-8").replace("</h1>", "!</h1>", 1), encoding="utf-8")
    assert compared()[0].startswith("index.html, line ")


def test_a_chart_redrawn_beside_others_that_are_the_same_is_found(place, compared):
    chart = place / "written" / "figures" / "pairs.svg"
    chart.write_text(chart.read_text(encoding="utf-8").replace("<svg ", '<svg data-other="1" '), encoding="utf-8")
    assert compared()[0].startswith("figures/pairs.svg, line 1: ")


def test_the_files_of_another_version_are_named_and_not_compared(place, capsys):
    file = place / "written" / "report.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["zoo_version"] = "0.0.1"
    file.write_text(json.dumps(document), encoding="utf-8")
    code, told = verified(capsys)
    assert code == 0
    assert "writes otherwise, and did not compare: index.html, report.md." in told
    assert "The report was written by zoo 0.0.1" in told


def reworded(place: Path, version: str | None) -> None:
    """The report with other words for a measure and for what is undefined."""
    document = report.read(place / "written")
    document["measures"][0] |= {"chance": "by luck", "note": "mind the gap"}
    document["pairs"][0]["measures"] = {
        name: {**number, "reason": "it is otherwise"} for name, number in document["pairs"][0]["measures"].items()
    }
    if version is not None:
        document["zoo_version"] = version
    reporting.write(document, place / "written")


def test_words_of_another_version_are_named_and_its_numbers_are_compared(place, capsys):
    reworded(place, "0.0.1")
    code, told = verified(capsys)
    assert code == 0, told
    (line,) = [line for line in told.splitlines() if "words otherwise" in line]
    assert "report.json: measures[].chance, measures[].note, pairs[].measures." in line
    document = report.read(place / "written")
    document["models"][0]["metrics"]["accuracy"]["value"] += 0.01
    reporting.write(document, place / "written")
    code, told = verified(capsys)
    assert code == 1
    assert "the first that differs is report.json: models[0].metrics.accuracy.value" in told


def test_words_of_this_version_are_compared(place, capsys):
    reworded(place, None)
    code, told = verified(capsys)
    assert code == 1
    assert "report.json: measures[0].chance: 'by luck' in the report" in told


def test_a_run_made_again_differs_in_its_costs_alone_and_that_is_one_line(place, capsys):
    aged(place, timedelta(hours=-1))
    for seed in (0, 1):
        trained(place / "runs", "beta", seed, train_seconds=9.0, infer_samples_per_sec=77.0)
    code, told = verified(capsys)
    assert code == 0, told
    assert "Measured again since, and not compared: times and memory of beta." in told.splitlines()
    assert len(told.splitlines()) == 2


def test_the_costs_of_runs_that_are_older_than_the_report_are_compared(place, capsys):
    aged(place, timedelta(hours=1))
    document = report.read(place / "written")
    document["models"][1]["cost"]["train_seconds"] = 1.0
    reporting.write(document, place / "written")
    code, told = verified(capsys)
    assert code == 1
    assert "report.json: models[1].cost.train_seconds: 1.0 in the report, 3.0 recomputed" in told


def test_parameters_are_no_measured_cost(place, capsys):
    aged(place, timedelta(hours=-1))
    for seed in (0, 1):
        trained(place / "runs", "beta", seed, train_seconds=9.0, param_count=11)
    code, told = verified(capsys)
    assert "cost.param_count: 10 in the report, 11 recomputed" in told
    assert code == 1


def test_a_damaged_run_is_named_with_its_file(place, capsys):
    run = place / "runs" / "text_classification" / "animals" / "beta" / "beta1"
    content = bytearray((run / PREDICTIONS).read_bytes())
    content[len(content) // 2] ^= 1
    (run / PREDICTIONS).write_bytes(bytes(content))
    code, told = verified(capsys)
    assert code == 1
    assert "beta/beta1 is damaged: predictions.parquet is not what was written" in told
    (run / PREDICTIONS).unlink()
    code, told = verified(capsys)
    assert code == 1
    assert "beta/beta1 is damaged: predictions.parquet is missing" in told


def test_runs_that_are_not_where_the_report_says_are_named_and_runs_suggested(place, capsys, monkeypatch):
    gone = "runs/text_classification/animals/beta/beta1"
    (place / "kept").mkdir()
    shutil.move(place / gone, place / "kept" / "beta1")
    code, told = verified(capsys)
    assert code == 2
    assert f"1 of the 4 runs of this report are not where it says. The first is beta, seed 1: {gone}" in told
    assert "runs=" in told
    shutil.move(place / "runs", place / "kept" / "runs")
    assert "4 of the 4 runs" in verified(capsys)[1]
    assert verified(capsys, "runs=kept")[0] == 0
    failed = place / "kept" / "beta1" / RUN
    record = json.loads(failed.read_text(encoding="utf-8")) | {"status": "failed"}
    failed.write_text(json.dumps(record), encoding="utf-8")
    code, told = verified(capsys, "runs=kept")
    assert code == 2
    assert "is not complete any more: failed" in told


def test_difference_finds_the_first_place_and_allows_for_rounding():
    assert difference({"a": [1.0]}, {"a": [1.0 + 1e-13]}, "") is None
    assert "a[0]: 2 in the report, 1 recomputed" in str(difference({"a": [1]}, {"a": [2]}, ""))
    assert "fields ['b']" in str(difference({"a": 1}, {"a": 1, "b": 2}, ""))
    assert "2 entries" in str(difference([1], [1, 2], "x"))
    assert difference({"created": datetime.now(UTC)}, {"created": 2}, "") is None
