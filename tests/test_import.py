"""Predictions made elsewhere: tables and lm-evaluation-harness logs become run folders; bad rows are named."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from zoo.errors import DataError
from zoo.importing import Options, main, read
from zoo.store import guards, panel, reading, study

HEADER = ("model", "seed", "example_id", "label", "prediction")
ROWS = [
    (model, seed, f"e{number}", ("neg", "pos")[number % 2], ("neg", "pos")[(number + seed + (model == "b")) % 3 % 2])
    for model in "ab"
    for seed in (0, 1)
    for number in range(10)
]


def table(path: Path, header=HEADER, rows=ROWS) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(zip(header, row, strict=True)) for row in rows]), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows))
    else:
        with path.open("w", newline="") as file:
            tabs = csv.excel_tab if path.suffix == ".tsv" else csv.excel
            csv.writer(file, tabs).writerows([header, *rows])
    return path


def soft(size=12, classes=("neg", "pos", "so so"), seed=0):
    """Header and rows with a probability column for each class."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(len(classes)), size)
    rows = [
        ("a", 0, f"e{number}", classes[random.integers(len(classes))], *(float(share) for share in row))
        for number, row in enumerate(shares)
    ]
    return ("model", "seed", "example_id", "label", *(f"prob_{name}" for name in classes)), rows, shares


# Tables


def answered(path: Path, labels, predictions, **options):
    rows = [("a", 0, f"e{i}", *pair) for i, pair in enumerate(zip(labels, predictions, strict=True))]
    (done,) = read([table(path, rows=rows)], path.parent / "runs", Options(**options))
    return list(done.notes)


def test_merged_spellings_and_numbers_beside_words_are_noted(tmp_path):
    assert answered(tmp_path / "a.csv", ["1", "0", "1"], ["1", "0", "0"]) == []
    assert answered(tmp_path / "b.csv", ["1", "0", "1"], ["1.0", "0", "0"]) == [
        "Read as one class: '1' (2 times) and '1.0' (once)."
    ]
    assert answered(tmp_path / "c.csv", ["1", "0", "good"], ["1", "0", "0"]) == [
        "Warning: some labels are numbers, '1' (once), '0' (once), and some are words, 'good' (once): "
        "each is a class of its own."
    ]
    merged, _ = answered(tmp_path / "f.csv", ["1", "0", "good", "1.0"], ["1", "0", "1", "1"])
    assert merged == "Read as one class: '1' (4 times) and '1.0' (once)."
    assert answered(tmp_path / "d.csv", ["1", "0", "good"], ["1", "0", "0"], classes=("0", "1", "good")) == []
    (note,) = answered(tmp_path / "e.csv", ["bad", "good"], ["0", "1"])
    assert "every prediction was read as an index" in note


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_becomes_a_run_for_each_model_and_seed(tmp_path, suffix):
    done = read([table(tmp_path / f"reviews{suffix}")], tmp_path / "runs")
    assert [(one.model, one.seed, one.examples) for one in done] == [
        ("a", 0, 10),
        ("a", 1, 10),
        ("b", 0, 10),
        ("b", 1, 10),
    ]
    found = panel.build(guards.compare(study.open(tmp_path / "runs")))
    assert (found.models, found.runs, found.seeds) == (("a", "b"), (0, 0, 1, 1), (0, 1, 0, 1))
    assert (found.classes, found.probabilities) == (("neg", "pos"), None)
    wanted = {(model, seed, item): prediction for model, seed, item, _, prediction in ROWS}
    for row, (model, seed) in enumerate(zip(found.runs, found.seeds, strict=True)):
        told = [found.classes[index] for index in found.predictions[row]]
        assert told == [wanted[found.models[model], seed, item] for item in found.ids]


def test_probabilities_come_through_and_the_metrics_are_scikit_learns(tmp_path):
    header, rows, shares = soft()
    (done,) = read([table(tmp_path / "r.csv", header, rows)], tmp_path / "runs")
    found = panel.build(guards.compare(study.open(tmp_path / "runs")))
    np.testing.assert_allclose(found.probabilities[0], shares, rtol=1e-5)
    assert found.classes == ("neg", "pos", "so so"), "the order of the columns"
    assert not found.calibrated, "an import has no validation split"
    metrics = study.open(done.folder).runs[0].metrics()
    truth, told = found.labels, shares.argmax(1)
    assert metrics["accuracy"]["value"] == pytest.approx(accuracy_score(truth, told))
    assert metrics["macro_f1"]["value"] == pytest.approx(f1_score(truth, told, average="macro"))
    assert metrics["log_loss"]["value"] == pytest.approx(log_loss(truth, shares, labels=range(3)))
    assert metrics["accuracy"]["n"] == 12


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_probabilities_may_be_a_list(tmp_path, suffix):
    _, rows, shares = soft()
    told = [(*row[:4], list(row[4:]) if suffix != ".csv" else json.dumps(row[4:])) for row in rows]
    path = table(tmp_path / f"r{suffix}", (*HEADER[:4], "probabilities"), told)
    with pytest.raises(DataError, match="nothing says of which classes"):
        read([path], tmp_path / "runs")
    read([path], tmp_path / "runs", Options(classes=("neg", "pos", "so so")))
    found = panel.build(guards.compare(study.open(tmp_path / "runs")))
    np.testing.assert_allclose(found.probabilities[0], shares, rtol=1e-5)


def test_a_prediction_that_is_not_the_most_probable_is_kept_and_told(tmp_path):
    header, rows, shares = soft()
    told = [(*row, "pos") for row in rows]
    (done,) = read([table(tmp_path / "r.csv", (*header, "prediction"), told)], tmp_path / "runs")
    other = int((shares.argmax(1) != 1).sum())
    assert any(f"In {other} of 12 answers" in note for note in done.notes)
    found = panel.build(guards.compare(study.open(tmp_path / "runs")))
    assert (found.predictions == 1).all()
    wanted = accuracy_score(found.labels, np.ones(12))
    assert study.open(done.folder).runs[0].metrics()["accuracy"]["value"] == pytest.approx(wanted)


def test_without_probabilities_what_needs_them_is_undefined(tmp_path):
    done = read([table(tmp_path / "r.csv")], tmp_path / "runs")
    metrics = study.open(done[0].folder).runs[0].metrics()
    for name in ("log_loss", "ece"):
        assert metrics[name]["value"] is None
        assert "no probabilities" in metrics[name]["reason"]


def test_importing_again_changes_nothing_and_other_answers_are_another_run(tmp_path):
    path = table(tmp_path / "r.csv")
    first = read([path], tmp_path / "runs")
    assert not any(one.reused for one in first)
    again = read([path], tmp_path / "runs")
    assert [one.folder for one in again] == [one.folder for one in first]
    assert all(one.reused for one in again)
    (first[0].folder / "predictions.parquet").unlink()
    assert [one.reused for one in read([path], tmp_path / "runs")] == [False, True, True, True], (
        "a damaged one is rewritten"
    )
    changed = [(*row[:4], "neg") for row in ROWS]
    read([table(tmp_path / "r.csv", rows=changed)], tmp_path / "runs")
    found = guards.compare(study.open(tmp_path / "runs"))
    assert len(found.members) == 4
    assert {left.code for left in found.left_out} == {"replaced_by_others"}


def test_columns_may_have_other_names_and_the_rest_be_said(tmp_path):
    path = table(tmp_path / "r.csv", ("uid", "gold", "answer"), [(number, number % 2, 1) for number in range(6)])
    options = Options(model="gpt", seed=3, columns={"example_id": "uid", "label": "gold", "prediction": "answer"},
                      classes=("no", "yes"), dataset="boolean")  # fmt: skip
    (done,) = read([path], tmp_path / "runs", options)
    assert (done.model, done.seed, done.accuracy) == ("gpt", 3, 0.5)
    assert done.folder.parent.parent.name == "boolean"
    assert panel.build(guards.compare(study.open(done.folder))).classes == ("no", "yes"), "numbers index the classes"


def test_integer_labels_are_sorted_as_numbers(tmp_path):
    rows = [("a", 0, f"e{number}", number, 11 - number) for number in range(12)]
    read([table(tmp_path / "r.csv", rows=rows)], tmp_path / "runs")
    found = panel.build(guards.compare(study.open(tmp_path / "runs")))
    assert found.classes == tuple(map(str, range(12)))
    assert found.predictions[0].tolist() == list(range(11, -1, -1))


def test_only_the_test_split_counts(tmp_path):
    rows = [(*row, "test" if int(row[2][1:]) < 6 else "train") for row in ROWS]
    done = read([table(tmp_path / "r.csv", (*HEADER, "split"), rows)], tmp_path / "runs")
    assert {one.examples for one in done} == {6}
    assert any("16 rows of r.csv are of other splits" in note for note in done[0].notes)


def test_one_dataset_may_come_in_several_files(tmp_path):
    files = [table(tmp_path / f"{model}.csv", rows=[row for row in ROWS if row[0] == model]) for model in "ab"]
    done = read(files, tmp_path / "runs", Options(dataset="reviews"))
    assert len({one.folder.parent.parent for one in done}) == 1
    assert panel.build(guards.compare(study.open(tmp_path / "runs"))).models == ("a", "b")


def test_an_import_is_compared_with_runs_of_the_same_examples(tmp_path):
    """A model that never ran here joins those that did."""
    command = [sys.executable, "-m", "zoo.run", "model=majority", "task=image_classification", "dataset=digits"]
    subprocess.run([*command, f"runs_dir={tmp_path / 'runs'}"], check=True, capture_output=True, cwd=tmp_path)
    own = panel.build(guards.compare(study.open(tmp_path / "runs")))
    rows = [("api", 0, item, own.classes[label], own.classes[(label + 1) % 10 if label < 5 else label])
            for item, label in zip(own.ids, own.labels, strict=True)]  # fmt: skip
    read([table(tmp_path / "digits.csv", rows=rows[::-1])], tmp_path / "runs")
    found = guards.compare(study.open(tmp_path / "runs"))
    both = panel.build(found)
    assert (both.models, len(both.ids)) == (("api", "majority"), len(own.ids))
    assert not found.left_out
    assert any("1 of 2 runs were made elsewhere" in note for note in found.notes)
    assert (both.predictions[0] == both.labels).mean() == pytest.approx((own.labels >= 5).mean())


def broken(index, column, value):
    rows = [list(row) for row in ROWS]
    rows[index][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (broken(3, 1, "two"), r"line 5: the seed is 'two'. It has to be an integer"),
        (broken(3, 1, "1.5"), r"line 5: the seed is '1.5'"),
        (broken(3, 2, ""), r"line 5: the example_id is missing"),
        (broken(3, 3, " "), r"line 5: the label is missing"),
        (broken(3, 4, ""), r"line 5: the prediction is missing"),
        (broken(3, 0, ""), r"line 5: the model is missing"),
        (broken(3, 2, "e1"), r"line 5: model 'a' with seed 0 answers example 'e1' again; the first time is .*line 3"),
        (broken(13, 3, "neg"), r"line 15: example 'e3' has the label 'neg', and 'pos' in .*line 5"),
        ([(*row[:3], "neg", "neg") for row in ROWS], r"one class only, 'neg'"),
        ([], "holds no answers"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, message):
    path = table(tmp_path / "r.csv", rows=rows)
    with pytest.raises(DataError, match=message) as caught:
        read([path], tmp_path / "runs")
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4
    assert not (tmp_path / "runs").exists(), "nothing is written before everything is checked"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("a", 0, "e1", "neg", 0.5, 0.6), r"line 3: the probabilities sum to 1.1"),
        (("a", 0, "e1", "neg", -0.1, 1.1), r"line 3: a probability is -0.1"),
        (("a", 0, "e1", "neg", "nan", 1), r"line 3: a probability is nan"),
        (("a", 0, "e1", "neg", "", 1), r"line 3: prob_neg is ''"),
        (("a", 0, "e1", "neg", "half", 1), r"line 3: prob_neg is 'half'"),
        (
            ("a", 0, "e1", "other", 0.5, 0.5),
            r"line 3: the label is 'other', which is not one of the 2 classes: neg, pos",
        ),
        (("a", 0, "e1", "neg", "", ""), r"line 3: the prediction is missing"),
    ],
)
def test_bad_probabilities_are_named(tmp_path, values, message):
    header = ("model", "seed", "example_id", "label", "prob_neg", "prob_pos")
    path = table(tmp_path / "r.csv", header, [("a", 0, "e0", "pos", 0.25, 0.75), values])
    with pytest.raises(DataError, match=message):
        read([path], tmp_path / "runs")


def test_probabilities_of_some_answers_only_are_refused(tmp_path):
    header = (*HEADER, "prob_neg", "prob_pos")
    rows = [("a", 0, "e0", "pos", "pos", 0.25, 0.75), ("a", 0, "e1", "pos", "neg", "", "")]
    with pytest.raises(DataError, match=r"line 3: no probabilities, and 1 of the 2 answers"):
        read([table(tmp_path / "r.csv", header, rows)], tmp_path / "runs")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("model", "seed", "example_id", "labels", "prediction"), r"no column 'label'.*Did you mean 'labels'"),
        (("system", "seed", "example_id", "label", "prediction"), r"no column 'model'(.|\n)*--model <name>"),
        (("model", "seed", "example_id", "label", "answer"), r"no column 'prediction'"),
        (("model", "seed", "example_id", "label", "label"), r"'label' stands more than once"),
    ],
)
def test_a_bad_header_is_named(tmp_path, header, message):
    with (tmp_path / "r.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *ROWS])
    with pytest.raises(DataError, match=message):
        read([tmp_path / "r.csv"], tmp_path / "runs")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", b"", "is empty"),
        ("r.csv", b"model,seed,example_id,label,prediction\na,0,e", "line 2: 3 fields where the header names 5"),
        ("r.csv", b'model,seed,example_id,label,prediction\na,0,e0,"x', "line 2: malformed CSV"),
        ("r.csv", "model,seed,example_id,label,prediction\na,0,e,é,b".encode("latin-1"), "is not UTF-8"),
        ("r.parquet", b"PAR1 and no more", "no whole Parquet file"),
        ("r.jsonl", b"{", "line 1: not JSON"),
        ("r.jsonl", b"[1]", "line 1: a list, not an object"),
        ("r.xlsx", b"PK", "files of the kind '.xlsx' cannot be read"),
        ("r.csv", None, "cannot be read: No such file"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read([tmp_path / name], tmp_path / "runs")
    assert str(tmp_path / name) in str(caught.value)


HOSTILE = ["../../../etc/passwd", "/etc", "..", "<script>", "a\nb", "\x1b[31m", "评论😀", "org/model-7b"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_below_the_runs_folder(tmp_path, name):
    rows = [(name, 0, f"e{number}", name, (name, "other")[number % 2]) for number in range(4)]
    (done,) = read([table(tmp_path / "r.parquet", rows=rows)], tmp_path / "runs", Options(dataset=name, task=name))
    assert len(done.folder.relative_to(tmp_path / "runs").parts) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.parquet", "runs"]
    found = panel.build(guards.compare(study.open(tmp_path / "runs")))
    assert found.models == (name.strip(),)
    assert name.strip() in found.classes


def test_names_too_long_for_a_folder_are_shortened_there_and_stay_apart(tmp_path, capsys):
    long = ["a" * 300, "a" * 301, "评" * 100]
    path = table(tmp_path / "r.csv", rows=[(name, *row[1:]) for name in long for row in ROWS[:10]])
    words = [str(path), "--runs-dir", str(tmp_path / "runs"), "--dataset", "d" * 300]
    assert main(words) == 0
    assert {run.record["model"] for run in reading.runs(tmp_path / "runs")} == set(long)
    assert main(words) == 0
    assert capsys.readouterr().out.count("there already") == 3


# lm-evaluation-harness


def log(path: Path, size=12, **options) -> Path:
    """A log of a multiple-choice task, as lm-evaluation-harness writes it (numbers are texts, requests have names)."""
    random = np.random.default_rng(options.get("seed", 0))
    choices = options.get("choices", ["no", "yes"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for number in range(size):
            scores = random.normal(-5, 1, len(choices))
            target = int(number % len(choices))
            right = float(scores.argmax() == target)
            record = {
                "doc_id": number,
                "doc": {"question": f"Is it {number}?"},
                "target": options.get("target", str)(target),
                "arguments": {
                    f"gen_args_{i}": {"arg_0": f"Q: {number}", "arg_1": f" {c}"} for i, c in enumerate(choices)
                },
                "resps": [[[str(score), "False"]] for score in scores],
                "filtered_resps": [[str(score), "False"] for score in scores],
                "filter": "none",
                "metrics": ["acc"],
                "doc_hash": options.get("hash", lambda n: f"{n:064x}")(number),
                "acc": right,
            }
            file.write(json.dumps({**record, **options.get("change", {})}) + "\n")
    return path


NAME = "samples_boolq_2026-01-02T03-04-05.678901.jsonl"


@pytest.mark.parametrize("target", [str, lambda index: ("no", "yes")[index], int])
def test_a_log_becomes_a_run(tmp_path, target):
    path = log(tmp_path / "org__model-7b" / NAME, target=target)
    (done,) = read([path], tmp_path / "runs")
    assert done.model == "org/model-7b"
    assert done.folder.parent.parent.name == "boolq"
    found = panel.build(guards.compare(study.open(tmp_path / "runs")))
    assert found.classes == ("no", "yes")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert (found.predictions[0] == found.labels).tolist() == [bool(record["acc"]) for record in records]
    scores = np.array([[float(pair[0]) for pair in record["filtered_resps"]] for record in records])
    wanted = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities[0], wanted, rtol=1e-5)


def test_the_results_file_beside_a_log_names_the_model(tmp_path):
    path = log(tmp_path / "somewhere" / NAME)
    (path.parent / "results_2026-01-02T03-04-05.678901.json").write_text('{"model_name": "org/own"}')
    assert read([path], tmp_path / "runs")[0].model == "org/own"
    assert read([path], tmp_path / "runs", Options(model="said"))[0].model == "said"


def test_logs_of_several_models_and_tasks_are_told_apart(tmp_path):
    files = [log(tmp_path / model / NAME, seed=seed) for seed, model in enumerate("ab")]
    files.append(log(tmp_path / "a" / "samples_arc_easy_2026-01-02T03-04-05.678901.jsonl", choices=["w", "x", "y"]))
    done = read(files, tmp_path / "runs")
    assert [(one.folder.parent.parent.name, one.model) for one in done] == [
        ("boolq", "a"),
        ("boolq", "b"),
        ("arc_easy", "a"),
    ]
    assert panel.build(guards.compare(study.open(tmp_path / "runs/imported/boolq"))).models == ("a", "b")


def test_choices_that_differ_from_row_to_row_are_numbered(tmp_path):
    first = log(tmp_path / "m" / "one", choices=["p", "q"])
    second = log(tmp_path / "m" / "two", 6, choices=["r", "s", "t"], hash=lambda number: f"other {number}")
    path = tmp_path / "m" / NAME
    path.write_text(first.read_text() + second.read_text())
    read([path], tmp_path / "runs")
    found = panel.build(guards.compare(study.open(tmp_path / "runs")))
    assert found.classes == ("choice 1", "choice 2", "choice 3")
    assert found.probabilities[0][:12, 2].max() < 1e-30, "a choice that was not offered"


def test_a_document_that_stands_twice_gets_ids_of_its_own(tmp_path):
    read(
        [log(tmp_path / "m" / NAME, hash=lambda number: "same" if number in (2, 5) else f"h{number}")],
        tmp_path / "runs",
    )
    found = panel.build(guards.compare(study.open(tmp_path / "runs")))
    assert (found.ids[2], found.ids[5]) == ("same", "same-1")


def test_generated_answers_are_right_or_wrong(tmp_path):
    path = tmp_path / "m" / "samples_gsm8k_2026-01-02T03-04-05.678901.jsonl"
    path.parent.mkdir()
    rows = [
        {"doc_id": number, "target": "4", "filtered_resps": [text], "filter": name, "metrics": ["exact_match"],
         "doc_hash": f"h{number}", "exact_match": float(number % 3 == 0)}
        for number in range(9) for name, text in (("strict-match", "4"), ("flexible-extract", "x"))
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="2 filters: strict-match, flexible-extract"):
        read([path], tmp_path / "runs")
    with pytest.raises(DataError, match="Did you mean 'strict-match'"):
        read([path], tmp_path / "runs", Options(filter="strict"))
    (done,) = read([path], tmp_path / "runs", Options(filter="strict-match"))
    assert (done.examples, done.accuracy) == (9, pytest.approx(1 / 3))
    found = panel.build(guards.compare(study.open(tmp_path / "runs")))
    assert found.classes == ("wrong", "right")
    assert found.probabilities is None
    with pytest.raises(DataError, match="no metric 'exact'"):
        read([path], tmp_path / "runs", Options(filter="strict-match", metric="exact"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": lambda index: "maybe"}, r"line 1: the target is 'maybe'"),
        ({"target": lambda index: str(1 - index)}, r"the log's own metric is not what target and likelihoods say"),
        ({"change": {"filtered_resps": [["nan", "False"], ["0", "True"]], "acc": None}}, "they have to be numbers"),
        ({"change": {"filtered_resps": ["a text"], "acc": 0.5}}, r"neither likelihoods of choices nor a metric"),
    ],
)
def test_a_log_that_is_not_understood_is_refused(tmp_path, options, message):
    path = log(tmp_path / "m" / NAME, **options)
    with pytest.raises(DataError, match=message) as caught:
        read([path], tmp_path / "runs")
    assert str(path) in str(caught.value)


def test_mutual_information_asks_each_choice_twice(tmp_path):
    path = log(tmp_path / "m" / NAME)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["filtered_resps"] += [["0.0", "False"]] * 2
        record["acc_mutual_info"] = 0.0
    path.write_text("\n".join(map(json.dumps, records)))
    (done,) = read([path], tmp_path / "runs")
    assert done.accuracy == pytest.approx(np.mean([record["acc"] for record in records]))


# The command


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zoo.import", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_command_writes_and_lists(tmp_path):
    table(tmp_path / "reviews.csv")
    done = command("reviews.csv", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("10 examples") == 4
    assert "runs/imported/reviews/a/" in done.stdout
    assert command("reviews.csv", cwd=tmp_path).stdout.count("there already") == 4
    listed = subprocess.run(
        [sys.executable, "-m", "zoo.ls", "runs"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert listed.stdout.count("complete") == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.csv"], "cannot be read"),
        (["r.csv", "--columns", "uid"], "is not name=column"),
        (["r.csv", "--columns", "lable=gold"], "Did you mean 'label'"),
        (["r.csv", "--columns", "label=gold"], "no column 'gold'"),
        (["r.csv", "--classes", "neg,neg"], "stands twice"),
        (["r.csv", "--task", ""], "--task is empty"),
    ],
)
def test_a_wrong_request_ends_with_2_and_a_plain_message(tmp_path, arguments, message, monkeypatch, capsys):
    table(tmp_path / "r.csv")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_numbers_that_are_not_finite_never_reach_the_metrics(tmp_path):
    header, rows, _ = soft()
    rows = [(*row[:4], 0.0, 0.0, 1.0) for row in rows]
    (done,) = read([table(tmp_path / "r.csv", header, rows)], tmp_path / "runs")
    run = study.open(done.folder).runs[0]
    assert np.isfinite(run.predictions().logits).all(), "a probability of 0 has a finite logit"
    assert math.isfinite(run.metrics()["log_loss"]["value"])


# What a column of classes means


def graded(path: Path, labels, predictions, header=HEADER) -> Path:
    rows = [("m", 0, f"e{i}", label, said) for i, (label, said) in enumerate(zip(labels, predictions, strict=True))]
    return table(path, header, rows)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("labels", "predictions", "classes"),
    [
        (["0.0", "1.0"] * 10, ["1", "1", "0", "1"] * 5, ("0", "1")),
        (["neg", "pos"] * 10, ["1", "1", "0", "1"] * 5, ("neg", "pos")),
        (["0", "1"] * 10, ["pos", "pos", "neg", "pos"] * 5, ("neg", "pos")),
        (["0", "1"] * 10, ["1.0", "1.0", "0.0", "1.0"] * 5, ("0", "1")),
        (
            ["e\u0301t\u00e9", "hiver"] * 10,
            ["hiver", "hiver", "\u00e9te\u0301", "hiver"] * 5,
            ("hiver", "\u00e9t\u00e9"),
        ),
    ],
)
def test_a_column_holds_names_or_indices_in_whatever_spelling(tmp_path, suffix, labels, predictions, classes):
    (done,) = read([graded(tmp_path / f"a{suffix}", labels, predictions)], tmp_path / "runs")
    assert done.accuracy == 0.75
    assert panel.build(guards.compare(study.open(tmp_path / "runs"))).classes == classes


def test_integer_classes_named_by_columns_may_be_indexed_by_the_labels(tmp_path):
    header = ("model", "example_id", "label", "prob_1", "prob_2", "prob_3")
    rows = [("m", f"e{i}", i % 3, *(0.8 if place == i % 3 else 0.1 for place in range(3))) for i in range(12)]
    (done,) = read([table(tmp_path / "a.csv", header, rows)], tmp_path / "runs")
    assert done.accuracy == 1.0
    assert any("every label was read as an index into the classes 1, 2, 3" in note for note in done.notes)


def test_predictions_follow_the_labels_where_they_could_be_both(tmp_path):
    path = graded(tmp_path / "a.csv", ["0", "1", "2", "1"], ["1", "1", "2", "1"])
    (done,) = read([path], tmp_path / "runs", Options(classes=("1", "2", "3")))
    assert done.accuracy == 0.75


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        (
            ["Positive", "Negative"] * 4,
            ["positive", "negative"] * 4,
            r"'Negative' \(4 times\) and 'negative' \(4 times\)",
        ),
        (["a b", "c"] * 4, ["a  b", "c"] * 4, r"differ in capitals or blanks only"),
        (["neg", "pos"] * 4, ["neg", "pos", "0", "1"] * 2, "in 4 rows the prediction is an integer such as '0'"),
        (["neg", "0"] * 4, ["neg", "pos"] * 4, "in 4 rows the label is an integer such as '0'"),
        (["1", "2", "3"] * 4, ["0", "1", "2"] * 4, r"one lower .* \(0 only in the predictions; 3 only in the labels\)"),
        (
            ["01", "02"] * 4,
            ["1", "2"] * 4,
            "other zeros or signs than the labels: 8 of 8 answers are right that way, 0 as",
        ),
        (
            ["+1", "-1"] * 4,
            ["1", "-1"] * 4,
            "other zeros or signs than the labels: 8 of 8 answers are right that way, 4 as",
        ),
        (["True", "False"] * 4, ["true", "false"] * 4, "differ in capitals or blanks only"),
    ],
)
def test_columns_that_mix_spellings_are_refused(tmp_path, labels, predictions, message):
    with pytest.raises(DataError, match=message):
        read([graded(tmp_path / "a.csv", labels, predictions)], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (lambda label: str(label + 1), "one higher than the labels: 12 of 12 answers are right that way, 0 as written"),
        (lambda label: f"0{label}", "other zeros or signs than the labels: 12 of 12"),
        (lambda label: f"class {label}", "none is a label, and 12 of 12 go with one label each"),
    ],
)
@pytest.mark.parametrize("which", [("odd", 0), ("sound", 1)])
def test_a_run_that_names_the_classes_otherwise_is_refused_beside_others_that_do_not(tmp_path, odd, message, which):
    labels = [i % 3 for i in range(12)]
    sound = [("sound", 0, f"e{i}", label, (label, 0)[i == 4]) for i, label in enumerate(labels)]
    rows = [*sound, *((*which, f"e{i}", label, odd(label)) for i, label in enumerate(labels))]
    with pytest.raises(DataError, match=f"of model '{which[0]}', seed {which[1]}, .*{message}"):
        read([table(tmp_path / "a.csv", HEADER, rows)], tmp_path / "runs")
    files = [table(tmp_path / f"{name}.csv", HEADER, part) for name, part in (("b", rows[:12]), ("c", rows[12:]))]
    with pytest.raises(DataError, match=message):
        read(files, tmp_path / "runs", Options(dataset="d"))


STARS = ["2", "4", "3", "1", "2", "3", "4", "2", "1", "3"] * 3


@pytest.mark.parametrize(
    ("labels", "predictions", "accuracy", "warned"),
    [
        (["0", "1", "2"] * 10, ["0", "1", "3"] * 10, 2 / 3, False),
        (["0", "1"] * 10, ["1", "0"] * 9 + ["2", "1"], 0.05, False),
        (["1", "2", "3", "4"] * 6, ["2", "2", "4", "5"] * 6, 0.25, True),
        (STARS, [{"1": "2", "2": "2", "3": "4", "4": "5"}[star] for star in STARS], 0.3, True),
        (["1", "01", "02", "2", "3"] * 4, ["1", "1", "2", "2", "4"] * 4, 0.4, False),
        (["A", "B", "A", "B", "A"], ["C", "D", "C", "D", "D"], 0, True),
        (["A", "B"] * 20, ["C", "D", "D", "C"] * 10, 0, True),
        (["A", "B"] * 20, ["C"] * 40, 0, False),
        (["yes"] * 20 + ["no"] * 20, ["timeout", "unparsed"] * 20, 0, True),
        (["yes"] * 20 + ["no"] * 20, ["timeout", "timeout", "timeout", "unparsed"] * 10, 0, True),
        (["A"] * 20, ["C"] * 15 + ["D"] * 5, 0, True),
        (["0", "1"] * 20, ["2"] * 40, 0, True),
        (["1", "2"] * 20, ["0"] * 40, 0, True),
        ([str(i) for i in range(40)], [str((7 * i) % 61) for i in range(40)], None, False),
    ],
)
def test_a_weak_model_may_predict_what_is_no_label(tmp_path, labels, predictions, accuracy, warned):
    (done,) = read([graded(tmp_path / "a.csv", labels, predictions)], tmp_path / "runs")
    right = np.mean([label == said for label, said in zip(labels, predictions, strict=True)])
    assert done.accuracy == pytest.approx(right if accuracy is None else accuracy)
    assert [note.startswith("Warning: the predictions of model 'm', seed 0, may ") for note in done.notes] == (
        [True] if warned else []
    )


def test_of_many_classes_some_may_be_missing_from_the_labels(tmp_path):
    random = np.random.default_rng(0)
    labels = random.integers(0, 95, 300)
    rows = []
    for model, share in (("a", 0.76), ("b", 0.58), ("chance", 0.01)):
        said = np.where(random.random(300) < share, labels, random.integers(3, 100, 300))
        rows += [(model, 0, f"e{i}", *pair) for i, pair in enumerate(zip(labels, said, strict=True))]
        assert set(said) - set(labels)
    done = read([table(tmp_path / "a.csv", HEADER, rows)], tmp_path / "runs")
    assert [one.notes for one in done] == [()] * 3


@pytest.mark.parametrize("shares", [(0.7, 2), (0.6, 5), (0.3, 100)])
@pytest.mark.parametrize("by", [1, -1])
def test_a_shift_is_found_in_weak_models_too(tmp_path, shares, by):
    random, (share, classes) = np.random.default_rng(0), shares
    labels = random.integers(1, classes + 1, 300)
    said = np.where(random.random(300) < share, labels, random.integers(1, classes + 1, 300))
    read([graded(tmp_path / "a.csv", labels, said)], tmp_path / "runs")
    with pytest.raises(DataError, match=f"count from one {'higher' if by == 1 else 'lower'} than the labels"):
        read([graded(tmp_path / "b.csv", labels, said + by)], tmp_path / "runs")


def test_names_that_other_models_use_beside_the_labels_are_known(tmp_path):
    labels = ["A", "B"] * 10
    rows = [("k", 0, f"e{i}", label, {"A": "C", "B": "D"}[label]) for i, label in enumerate(labels)]
    with pytest.raises(DataError, match=r"20 of 20 go with one label each \(C, D only in the predictions; A, B only"):
        read([table(tmp_path / "a.csv", HEADER, rows)], tmp_path / "runs")
    rows += [("m", 0, f"e{i}", label, label if i else "C") for i, label in enumerate(labels)]
    done = read([table(tmp_path / "b.csv", HEADER, rows)], tmp_path / "runs")
    assert [(one.accuracy, one.notes) for one in done] == [(0, ()), (0.95, ())]


def test_a_run_that_answers_some_of_the_examples_may_predict_any_label(tmp_path):
    rows = [("m", 0, f"e{i}", i % 3, i % 3) for i in range(12)]
    rows += [("k", 0, f"e{i}", i % 3, (0, 2)[i % 3]) for i in range(12) if i % 3 < 2]
    assert [done.accuracy for done in read([table(tmp_path / "a.csv", HEADER, rows)], tmp_path / "runs")] == [1, 0.5]


@pytest.mark.parametrize(
    ("labels", "predictions", "accuracy"),
    [
        (["1", "0", "good", "1.0"], ["1", "0", "1", "1"], 0.75),
        (["1.0", "0.0", "good"], ["1", "0", "1"], 2 / 3),
        (["1.0", "1", "1.1"], ["1", "1", "1.1"], 2 / 3),
    ],
)
def test_a_number_has_one_spelling_with_words_beside_it_and_a_version_stays(tmp_path, labels, predictions, accuracy):
    (done,) = read([graded(tmp_path / "a.csv", labels, predictions)], tmp_path / "runs")
    assert done.accuracy == pytest.approx(accuracy)


def test_versions_are_no_numbers(tmp_path):
    path = graded(tmp_path / "a.csv", ["3.1", "3.10", "3.9", "3.1"], ["3.10", "3.1", "3.9", "3.1"])
    assert read([path], tmp_path / "runs")[0].accuracy == 0.5


@pytest.mark.parametrize(
    ("labels", "predictions", "classes", "accuracy"),
    [
        (["True", "False"] * 4, ["true", "true"] * 4, ("True", "False"), 0.5),
        (["1", "2", "3"] * 4, ["0", "1", "1"] * 4, ("1", "2", "3"), 2 / 3),
    ],
)
def test_the_advice_to_name_every_class_works(tmp_path, labels, predictions, classes, accuracy):
    path = graded(tmp_path / "a.csv", labels, predictions)
    with pytest.raises(DataError, match="name every class: --classes"):
        read([path], tmp_path / "runs")
    (done,) = read([path], tmp_path / "runs", Options(classes=classes))
    assert done.accuracy == pytest.approx(accuracy)


def test_names_with_numbers_among_them_are_names(tmp_path):
    (done,) = read([graded(tmp_path / "a.csv", ["0", "1", "2+"], ["0", "2+", "2+"])], tmp_path / "runs")
    assert done.accuracy == pytest.approx(2 / 3)


def test_the_order_of_codes_does_not_depend_on_the_hash_seed(tmp_path):
    path = graded(tmp_path / "a.csv", ["01", "1", "2", "02"] * 3, ["1", "1", "2", "02"] * 3)
    code = "import sys; from zoo.importing import main; sys.exit(main([sys.argv[1], '--runs-dir', sys.argv[2]]))"
    told = []
    for seed in range(4):
        command = [sys.executable, "-c", code, str(path), str(tmp_path / "runs")]
        ran = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True, text=True)
        told.append(ran.stdout.split()[0])
    assert len(set(told)) == 1


def test_fields_of_any_length_are_read(tmp_path):
    rows = [(*row, "x" * 200_000) for row in ROWS]
    assert len(read([table(tmp_path / "a.csv", (*HEADER, "prompt"), rows)], tmp_path / "runs")) == 4


def generated(path: Path, answers, **change) -> Path:
    """A log of a generative task, a row for each (document, whether it is right), as versions without filters wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"doc_id": doc, "doc": {}, "target": "42", "arguments": [["q", {}]], "resps": [["x"]], "filtered_resps": ["x"],
         "exact_match": float(right), "doc_hash": f"{doc:064x}", **change}
        for doc, right in answers
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_two_filters_without_a_name_are_told_apart_by_order_only(tmp_path):
    strict, flexible = [(doc, doc % 2) for doc in range(6)], [(doc, 1) for doc in range(6)]
    path = generated(tmp_path / "m" / NAME, strict + flexible)
    with pytest.raises(DataError, match="2 answers to each of its 6 documents") as caught:
        read([path], tmp_path / "runs")
    advised = str(caught.value).partition("task: ")[2].split(" or ")
    found = [read([path], tmp_path / "runs", Options(filter=way.split()[1]))[0] for way in advised]
    assert [(one.examples, one.accuracy) for one in found] == [(6, 0.5), (6, 1.0)]
    with pytest.raises(DataError, match="--filter 3 is none of them"):
        read([path], tmp_path / "runs", Options(filter="3"))
    with pytest.raises(DataError, match="answered 2 times, others 1"):
        read([generated(path, [*strict, (0, 1)])], tmp_path / "runs")


def test_a_document_answered_twice_under_one_filter_is_refused(tmp_path):
    path = generated(tmp_path / "m" / NAME, [(0, 1), (1, 1), (0, 0)], filter="strict-match")
    with pytest.raises(DataError, match="line 3: document 0 is answered a second time"):
        read([path], tmp_path / "runs")


def test_a_log_that_has_acc_norm_alone_is_read_by_it(tmp_path):
    path = tmp_path / "m" / NAME
    log(path, choices=["no", "a much longer continuation"])
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        del record["acc"]
        scores = [float(score) for score, _ in record["filtered_resps"]]
        norm = [scores[0] / len("no"), scores[1] / len("a much longer continuation")]
        record |= {"metrics": ["acc_norm"], "acc_norm": float(norm.index(max(norm)) == int(record["target"]))}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    (done,) = read([path], tmp_path / "runs")
    assert done.accuracy == np.mean([record["acc_norm"] for record in records])
    assert any("acc_norm" in note for note in done.notes)


@pytest.mark.parametrize("right", [0.7, 1.0])
def test_advice_about_a_metric_works_when_followed(tmp_path, right):
    path = log(tmp_path / "m" / NAME, target=lambda index: [1, 0], change={"acc": right})
    with pytest.raises(DataError, match="neither the number nor the text of a choice") as caught:
        read([path], tmp_path / "runs")
    advised = str(caught.value).partition("--metric ")[2]
    assert bool(advised) == (right == 1.0)
    if advised:
        assert read([path], tmp_path / "runs", Options(metric=advised.strip()))[0].accuracy == 1.0


def test_a_report_of_imported_answers_looks_for_no_data(tmp_path, monkeypatch, capsys, caplog):
    from zoo import report

    guide = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answers.csv").write_text(guide.partition("<<'END'\n")[2].partition("END\n")[0], encoding="utf-8")
    assert main(["answers.csv"]) == 0
    assert report.command(["study=runs/imported/answers", "draws=20", "permutations=5"]) == 0
    assert caplog.records == []
    assert "answers'" not in capsys.readouterr().err


def test_texts_come_from_a_run_that_read_them_beside_imported_answers(tmp_path):
    from zoo.analysis import document

    records = [{"imported": {"kind": "table"}}, {"label": "trained"}]
    members = [guards.Member(reading.Run(tmp_path, record), "m", 0, ("a", "b")) for record in records]
    both = guards.Comparison(tuple(members), ("a", "b"), (), (), ())
    assert document._of_the_data(both) == records[1]
    assert document._of_the_data(guards.Comparison((members[0],), ("a", "b"), (), (), ())) == records[0]


@pytest.mark.parametrize("word", ["task=foo", "runs_dir=elsewhere", "dataset="])
def test_an_option_without_its_dashes_is_told_from_a_file(tmp_path, capsys, word):
    answers = table(tmp_path / "answers.csv")
    assert main([str(answers), word, "--runs-dir", str(tmp_path / "runs")]) == 2
    name, _, value = word.partition("=")
    assert f"Write --{name.replace('_', '-')} {value}".rstrip() in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_what_an_option_takes_may_be_spelled_like_an_option(tmp_path):
    """A column called `system` holds the models."""
    answers = table(tmp_path / "answers.csv")
    lines = answers.read_text().splitlines()
    header = lines[0].split(",")
    assert "model" in header
    answers.write_text("\n".join([lines[0].replace("model", "system", 1), *lines[1:]]) + "\n")
    assert main([str(answers), "--columns", "model=system", "--runs-dir", str(tmp_path / "runs")]) == 0


def test_a_file_may_be_called_like_an_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "task=foo.csv")
    assert main(["task=foo.csv"]) == 0


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_blanks_around_the_names_of_columns_do_not_count(tmp_path, suffix):
    spaced = tuple(f" {name} " for name in HEADER)
    plain = read([table(tmp_path / f"plain{suffix}")], tmp_path / "runs", Options(dataset="one"))
    again = read([table(tmp_path / f"spaced{suffix}", header=spaced)], tmp_path / "runs", Options(dataset="one"))
    assert [done.folder for done in again] == [done.folder for done in plain]
    assert all(done.reused for done in again)
