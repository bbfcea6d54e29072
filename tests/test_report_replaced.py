"""`python -m zoo.report` where there is little to compare, and where another report is there already."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_analysis import CLASSES, write_run

from zoo import launch, report
from zoo.reporting.words import Words
from zoo.store.schema import RUN

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 60)


def noisy() -> np.ndarray:
    return np.where(RNG.random(60) < 0.4, RNG.integers(0, 3, 60), LABELS)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def reported(capsys, *words: str) -> tuple[int, list[str], str]:
    code = report.command(["study=runs", "draws=20", "permutations=5", "examples=false", "lineage=false", *words])
    told = capsys.readouterr()
    return code, told.out.splitlines(), told.err


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_report_of_one_model_is_fine_and_says_so_first(capsys, language):
    write_run(Path("runs"), "mlp", 0, noisy(), LABELS)
    code, lines, error = reported(capsys, f"language={language}")
    assert (code, error) == (0, "")
    assert lines[0] == Words(language)("answer.one_model")


@pytest.mark.parametrize(
    "answers", [{"one": np.zeros_like(LABELS), "two": np.zeros_like(LABELS)}, {"one": LABELS, "two": (LABELS + 1) % 3},
                {"one": LABELS}]
)  # fmt: skip
def test_a_report_without_a_model_that_can_be_compared_is_written_and_exits_with_1(capsys, answers):
    for name, said in answers.items():
        write_run(Path("runs"), name, 0, said, LABELS)
    code, lines, error = reported(capsys)
    assert code == 1
    assert error.startswith("Nothing to compare: each model here answers the same on every example, or is always right")
    assert len(error.splitlines()) == 2
    assert Path("reports/text_classification-animals/index.html").is_file()
    assert lines[-1].startswith("Report: ")
    next_step = Words()("answer.one_model_more")
    write_run(Path("runs"), "counts", 0, noisy(), LABELS)
    code, lines, _ = reported(capsys)
    assert code == 0, "one that counts beside others that do not is a report of one model"
    assert next_step in lines
    write_run(Path("runs"), "counts too", 0, noisy(), LABELS)
    code, lines, _ = reported(capsys)
    assert (code, next_step in lines) == (0, False)


@pytest.mark.parametrize(("models", "nothing"), [("majority", True), ("majority,linear", False)])
def test_a_sweep_says_too_that_there_is_nothing_to_compare(capsys, models, nothing):
    words = ["-m", f"model={models}", "seed=0,1", "task=image_classification", "dataset=digits"]
    assert launch.command(words) == 0, "all its cells ran"
    told = capsys.readouterr()
    assert (report.NOTHING in told.err) == nothing, told.err
    assert "Report: " in told.out


LACKS = "The report that was there had what this one lacks: "


def test_what_the_former_report_had_and_the_new_one_lacks_is_said_in_one_line(capsys):
    folders = {(model, seed): write_run(Path("runs"), model, seed, noisy(), LABELS)
               for model in ("cnn", "mlp") for seed in (0, 1)}  # fmt: skip
    assert not [line for line in reported(capsys)[1] if LACKS in line], "nothing was there"
    assert not [line for line in reported(capsys)[1] if LACKS in line], "nothing is lacking"
    record = json.loads((folders["mlp", 1] / RUN).read_text(encoding="utf-8"))
    record["data"]["classes"] = ["cat", "dog", "owl"]
    (folders["mlp", 1] / RUN).write_text(json.dumps(record), encoding="utf-8")
    (line,) = [line for line in reported(capsys)[1] if LACKS in line]
    assert line == f"{LACKS}mlp, seed 1 (other classes)."
    assert not [line for line in reported(capsys)[1] if LACKS in line], "said once, when it is replaced"
    code = report.command(["study=runs/*/*/cnn", "draws=20", "permutations=5", "examples=false", "lineage=false"])
    assert code == 0
    assert f"{LACKS}mlp, seed 0.\n" in capsys.readouterr().out


def with_width(width: int) -> dict[str, object]:
    return {"record": {"config": {"model": {"name": "mlp", "hidden": [width]}, "trainer": None}}}


def test_a_model_that_has_another_name_now_is_not_lacking(capsys):
    for model in ("mlp", "linear"):
        write_run(Path("runs"), model, 0, noisy(), LABELS)
    assert reported(capsys)[0] == 0
    write_run(Path("runs"), "mlp", 7, noisy(), LABELS, **with_width(32))
    code, lines, _ = reported(capsys)
    assert code == 0
    assert not [line for line in lines if LACKS in line], "mlp is there, as mlp (hidden=–)"


def moved_or_made_again(how: str, folder: Path) -> None:
    if how == "moved":
        folder.rename(folder.with_name("elsewhere"))
        return
    again = folder.with_name("again")  # as another version of the program keys it
    shutil.copytree(folder, again)
    record = json.loads((again / RUN).read_text(encoding="utf-8"))
    record |= {"key": "again", "started": "2999-01-01T00:00:00+00:00", "ended": "2999-01-01T00:00:00+00:00"}
    (again / RUN).write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize("how", ["moved", "made again"])
def test_a_run_that_lies_elsewhere_or_was_made_again_is_not_lacking(capsys, how):
    folders = [write_run(Path("runs"), model, 0, noisy(), LABELS) for model in ("mlp", "linear")]
    assert reported(capsys)[0] == 0
    moved_or_made_again(how, folders[0])
    code, lines, _ = reported(capsys)
    assert code == 0
    assert not [line for line in lines if LACKS in line]


def test_another_recipe_under_the_same_name_and_seed_does_not_hide_what_is_lacking(capsys):
    def swept(width: int) -> report.Written:
        folders = [write_run(Path("runs"), "mlp", seed, noisy(), LABELS, key=f"{width}{seed}", **with_width(width))
                   for seed in (0, 1)]  # fmt: skip
        asked = report.Request(name="r", draws=20, permutations=5, examples=False, lineage=False)
        return report.write(folders, asked, ["python"], extend=True)

    assert swept(256).lacks == ""
    assert swept(32).lacks == f"{LACKS}mlp, seed 0; mlp, seed 1."


def test_the_line_is_bounded_and_names_classes_and_another_subject(capsys):
    for model in "abcdefgh":
        write_run(Path("runs"), model, 0, noisy(), LABELS)
    write_run(Path("other"), "a", 0, noisy(), LABELS, record={"data": {"classes": ["cat", "dog", "owl"]}})
    assert reported(capsys, "name=x")[0] == 0
    words = ["draws=20", "permutations=5", "examples=false", "lineage=false", "name=x"]
    assert report.command(["study=other", *words]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if LACKS in line]
    assert line == f"{LACKS}b, seed 0; c, seed 0; d, seed 0; e, seed 0; f, seed 0; g, seed 0; 2 more."
    assert CLASSES[2] == "eel"
    assert report.command(["study=other", *words]) == 0
    capsys.readouterr()
    write_run(Path("third"), "a", 0, noisy(), LABELS)
    assert report.command(["study=third", *words]) == 0
    assert f"{LACKS}the class 'owl'.\n" in capsys.readouterr().out
    write_run(Path("fourth"), "a", 0, noisy(), LABELS, dataset="plants")
    assert report.command(["study=fourth", *words]) == 0
    assert "It replaces a report on animals, task text_classification, of 1 run.\n" in capsys.readouterr().out


def test_a_report_of_another_version_or_none_at_all_is_no_obstacle(capsys):
    write_run(Path("runs"), "mlp", 0, noisy(), LABELS)
    Path("reports/x").mkdir(parents=True)
    for content in ("{}", "no json", '{"study": {"task": "text_classification", "dataset": "animals"}, '
                    '"provenance": {"runs": [{"folder": "gone"}]}}'):  # fmt: skip
        Path("reports/x/report.json").write_text(content, encoding="utf-8")
        code, lines, _ = reported(capsys, "name=x")
        assert code == 0
        assert not [line for line in lines if LACKS in line]


def test_of_several_studies_the_one_that_is_written_up_and_the_others_are_named(capsys):
    for name in ("one", "two", "three"):
        write_run(Path("runs"), name, 0, noisy(), LABELS)
    code, lines, _ = reported(capsys)
    assert code == 0
    assert not any("studies" in line for line in lines), "there is one"
    for name in ("one", "two"):
        write_run(Path("runs"), name, 0, LABELS, (LABELS + 1) % 3, dataset="plants")
    code, lines, _ = reported(capsys)
    assert code == 0
    (told,) = (line for line in lines if "studies" in line)
    assert "this report is of text_classification/animals (3 runs)" in told
    assert "Left out: text_classification/plants (2 runs)" in told
    assert told.endswith("study=runs/text_classification/plants")
