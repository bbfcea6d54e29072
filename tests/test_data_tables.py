"""dataset=table on real files: formats, layouts, labels, and every message."""

import gzip
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import zoo
from zoo.data.tables import Table

ROWS = [(f"text number {i}, with a comma", ["bad", "good"][i % 2]) for i in range(60)]


def csv(rows, header="text,label", quote='"') -> str:
    return "\n".join([header, *(f"{quote}{text}{quote},{label}" for text, label in rows)]) + "\n"


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def sizes(splits: zoo.Splits) -> tuple[int, ...]:
    return tuple(len(split) for split in (splits.train, splits.validation, splits.test))


def message(**options) -> str:
    with pytest.raises(zoo.DataError) as caught:
        zoo.load(Table(**options))
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 4
    return text


def jsonl(rows) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n\n" for text, label in rows)


def tsv(rows) -> str:
    return "\n".join(["label\ttext", *(f"{label}\t{text}" for text, label in rows)])


def as_parquet(path: Path, rows) -> None:
    pq.write_table(pa.table({"text": [row[0] for row in rows], "label": [row[1] for row in rows]}), path)


def test_every_format_gives_the_same_splits(tmp_path):
    files = [
        write(tmp_path / "a.csv", csv(ROWS)),
        write(tmp_path / "a.tsv", tsv(ROWS)),
        write(tmp_path / "a.jsonl", jsonl(ROWS)),
        write(tmp_path / "a.ndjson", jsonl(ROWS)),
        write(tmp_path / "crlf.csv", csv(ROWS).replace("\n", "\r\n")),
        write(tmp_path / "bom.csv", b"\xef\xbb\xbf" + csv(ROWS).encode()),
        write(tmp_path / "a.csv.gz", gzip.compress(csv(ROWS).encode())),
        write(tmp_path / "a.jsonl.gz", gzip.compress(jsonl(ROWS).encode())),
        write(tmp_path / "reversed.CSV", csv(ROWS[::-1])),
    ]
    as_parquet(tmp_path / "a.parquet", ROWS)
    all_splits = [zoo.load(Table(path=path)) for path in [*files, str(tmp_path / "a.parquet")]]
    assert {splits.fingerprint for splits in all_splits} == {all_splits[0].fingerprint}
    assert sizes(all_splits[0]) == (42, 6, 12)
    assert all_splits[0].classes == ("bad", "good")


def test_blanks_around_the_names_of_columns_do_not_count(tmp_path):
    plain = zoo.load(Table(path=write(tmp_path / "plain.csv", csv(ROWS))))
    spaced = csv(ROWS, header=" text ,\tlabel ").replace("\n", "\r\n")
    tabbed = tsv(ROWS).replace("label\ttext", " label\t text ", 1)
    lines = jsonl(ROWS).replace('"text":', '" text":').replace('"label":', '"label ":')
    files = [
        write(tmp_path / "spaced.csv", "\ufeff" + spaced),
        write(tmp_path / "spaced.tsv", tabbed),
        write(tmp_path / "spaced.jsonl", lines),
        str(tmp_path / "spaced.parquet"),
    ]
    pq.write_table(pa.table({" text ": [row[0] for row in ROWS], "label ": [row[1] for row in ROWS]}), files[-1])
    for path in files:
        assert zoo.load(Table(path=path)).fingerprint == plain.fingerprint, path
        assert zoo.load(Table(path=path, text=" text ")).fingerprint == plain.fingerprint, path
    twice = write(tmp_path / "twice.csv", csv([("a,b", "good")], header="text, text,label", quote=""))
    assert "'text' stands 2 times" in message(path=twice)


def test_fractions_and_seed_are_the_users(tmp_path):
    path = write(tmp_path / "a.csv", csv(ROWS))
    assert sizes(zoo.load(Table(path, validation_fraction=0.2, test_fraction=0.5))) == (18, 12, 30)
    assert zoo.load(Table(path)).test.ids != zoo.load(Table(path, split_seed=1)).test.ids
    for options in (
        {"test_fraction": 0.0},
        {"validation_fraction": 1.5},
        {"validation_fraction": 0.5, "test_fraction": 0.5},
    ):
        with pytest.raises(zoo.ConfigError, match="_fraction="):
            Table(path, **options)


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev"])
def test_a_folder_and_a_pattern_hold_one_file_a_split(tmp_path, validation):
    write(tmp_path / "train.csv", csv(ROWS[:40]))
    write(tmp_path / f"{validation}.tsv", tsv(ROWS[40:48]))
    write(tmp_path / "test.jsonl", jsonl(ROWS[48:]))
    write(tmp_path / "README.md", "hello")
    assert sizes(zoo.load(Table(str(tmp_path)))) == (40, 8, 12)
    for split, rows in (("train", ROWS[:40]), (validation, ROWS[40:48]), ("test", ROWS[48:])):
        write(tmp_path / "b" / f"my-{split}.csv", csv(rows))
    assert sizes(zoo.load(Table(str(tmp_path / "b" / "my-{split}.csv")))) == (40, 8, 12)


def test_without_a_test_file_validation_is_the_test_and_without_both_train_is_cut(tmp_path):
    write(tmp_path / "train.csv", csv(ROWS[:50]))
    assert sizes(zoo.load(Table(str(tmp_path)))) == (35, 5, 10)
    write(tmp_path / "dev.csv", csv(ROWS[50:]))
    splits = zoo.load(Table(str(tmp_path)))
    assert sizes(splits) == (45, 5, 10)
    assert "No validation split was given" in splits.notes[0]


def test_paths_are_relative_to_the_working_directory_or_to_home(tmp_path, monkeypatch):
    write(tmp_path / "a.csv", csv(ROWS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert zoo.load(Table("a.csv")).fingerprint == zoo.load(Table("~/a.csv")).fingerprint


def test_labels_name_classes_or_index_them(tmp_path):
    numbers = [(text, {"bad": 2, "good": 10}[label]) for text, label in ROWS]
    path = write(tmp_path / "n.csv", csv(numbers))
    assert zoo.load(Table(path)).classes == ("2", "10")
    zero_one = [(text, int(label == "good")) for text, label in ROWS]
    path = write(tmp_path / "z.csv", csv(zero_one))
    named, plain = zoo.load(Table(path, classes=["no", "yes"])), zoo.load(Table(path))
    assert (named.classes, plain.classes) == (("no", "yes"), ("0", "1"))
    assert named.test.labels.tolist() == plain.test.labels.tolist()
    path = write(tmp_path / "w.csv", csv([(text, f"  {label} ") for text, label in ROWS]))
    swapped = zoo.load(Table(path, classes=["good", "bad"]))
    assert swapped.classes == ("good", "bad")
    truth = dict(ROWS)
    for text, label in zip(swapped.test.examples, swapped.test.labels, strict=True):
        assert swapped.classes[label] == truth[text]
    path = write(tmp_path / "b.jsonl", jsonl([(text, label == "good") for text, label in ROWS]))
    assert zoo.load(Table(path)).classes == ("false", "true")
    as_parquet(tmp_path / "f.parquet", [(text, float(label)) for text, label in zero_one])
    assert zoo.load(Table(str(tmp_path / "f.parquet"))).classes == ("0", "1")


def test_quotes_lines_and_long_fields_survive(tmp_path):
    odd = ['He said "no".\nAnd left.', "x" * 200_000, 'tail "']
    rows = [(text.replace('"', '""'), "good") for text in odd] + ROWS
    splits = zoo.load(Table(write(tmp_path / "a.csv", csv(rows))))
    assert set(odd) <= {*splits.train.examples, *splits.validation.examples, *splits.test.examples}
    lone = [('a lone " mark', "good"), ('"begins so', "bad"), *ROWS]
    splits = zoo.load(Table(write(tmp_path / "a.tsv", tsv(lone))))
    assert sum(sizes(splits)) == 62


def test_other_separators_columns_and_encodings(tmp_path):
    content = "id;评论;类别\n" + "".join(f"{i};评论 {i};{['差', '好'][i % 2]}\n" for i in range(40))
    path = write(tmp_path / "a.csv", content.encode("gb18030"))
    splits = zoo.load(Table(path, text="评论", label="类别", separator=";", encoding="gb18030"))
    assert splits.classes == ("好", "差")
    assert splits.test.examples[0].startswith("评论 ")


GOOD = csv(ROWS)


@pytest.mark.parametrize(
    ("name", "content", "options", "parts"),
    [
        ("a.csv", GOOD, {"text": "txt"}, ["no column 'txt'", "text, label", "Did you mean 'text'?"]),
        ("a.csv", GOOD.replace(",label", ";label", 1), {}, ["no column 'text'", "separator=';'"]),
        ("a.csv", GOOD + "one,two,three\n", {}, ["a.csv line 62", "3 fields", "'one'", "2 columns: text, label"]),
        ("a.csv", GOOD + "alone\n", {}, ["line 62", "1 fields"]),
        ("a.csv", GOOD + '"open,good\nmore\n', {}, ["line 62", "malformed CSV", '""yes""']),
        ("a.csv", GOOD + '"a"b,good\n', {}, ["line 62", "malformed CSV"]),
        ("a.csv", GOOD + '"two\nlines",good\n"  ",good\n', {}, ["a.csv line 64", "the text is empty ('  ')"]),
        ("a.csv", GOOD + "fine, \n", {}, ["a.csv line 62", "label is missing"]),
        ("a.csv", GOOD + "fine,goood\n", {"classes": ["bad", "good"]}, ["line 62", "'goood'", "Did you mean 'good'?"]),
        (
            "a.csv",
            csv([(t, i % 2 + 1) for i, (t, _) in enumerate(ROWS)]),
            {"classes": ["a", "b"]},
            ["label '2'", "from 0"],
        ),
        ("a.csv", GOOD + "fine,other\n", {}, ["'other' has 1 distinct", "needs three"]),
        ("a.csv", GOOD.replace("text,", "label,", 1), {}, ["no column 'text'"]),
        ("a.csv", GOOD.replace("text,", "label,", 1), {"text": "label"}, ["'label' stands 2 times"]),
        ("a.csv", "", {}, ["is empty", "first line"]),
        ("a.csv", "text,label\n", {}, ["holds no examples"]),
        (
            "a.csv",
            GOOD.encode() + "größe,good\n".encode("cp1252"),
            {},
            ["a.csv line 62", "0xf6 is not utf-8", "cp1252"],
        ),
        ("a.csv", GOOD.encode("utf-16"), {}, ["encoding=utf-16"]),
        ("a.csv", GOOD, {"encoding": "utf-9"}, ["No encoding 'utf-9'"]),
        ("a.csv", GOOD, {"encoding": "utf-16"}, ["utf-16"]),
        ("a.csv", GOOD, {"separator": "||"}, ["separator='||'"]),
        ("a.csv.gz", GOOD, {}, ["no whole gzip file"]),
        ("a.csv.gz", gzip.compress(GOOD.encode())[:-20], {}, ["no whole gzip file"]),
        ("a.jsonl", jsonl(ROWS) + '{"text": "x"', {}, ["a.jsonl line 121", "not JSON"]),
        ("a.jsonl", jsonl(ROWS) + "[1]", {}, ["line 121", "a list"]),
        (
            "a.jsonl",
            jsonl(ROWS) + '{"text": "x", "lable": 1}',
            {},
            ["line 121 has no 'label'", "Did you mean 'lable'?"],
        ),
        ("a.jsonl", jsonl(ROWS) + '{"text": 5, "label": 1}', {}, ["line 121", "5, an int"]),
        ("a.jsonl", jsonl(ROWS) + '{"text": "x", "label": null}', {}, ["line 121", "label is missing"]),
        ("a.jsonl", jsonl(ROWS) + '{"text": "x", "label": 0.5}', {}, ["line 121", "0.5, a float"]),
        ("a.parquet", GOOD, {}, ["no whole Parquet file"]),
        ("a.xlsx", GOOD, {}, ["'.xlsx' cannot be read", "Save a spreadsheet as CSV"]),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, options, parts):
    text = message(path=write(tmp_path / name, content), **options)
    assert [part for part in parts if part not in text] == [], text


def test_bad_parquet_values_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    as_parquet(path, [*ROWS, (None, "good")])
    assert "a.parquet row 61: the text is None" in message(path=str(path))
    as_parquet(path, [*ROWS, ("x", None)])
    assert "a.parquet row 61: the label is missing" in message(path=str(path))
    assert "no column 'body'" in message(path=str(path), text="body")


def test_bad_places_are_named(tmp_path):
    assert "path=reviews.csv" in message()
    write(tmp_path / "reviews.csv", GOOD)
    text = message(path=str(tmp_path / "review.csv"))
    assert "No file or folder" in text
    assert "Did you mean 'reviews.csv'?" in text
    assert "It holds: reviews.csv. Expected: train" in message(path=str(tmp_path))
    assert "It holds: reviews.csv" in message(path=str(tmp_path / "{split}.csv"))
    write(tmp_path / "train.csv", GOOD)
    write(tmp_path / "train.tsv", GOOD)
    assert "more than one could be the train split: train.csv and train.tsv" in message(path=str(tmp_path))


def test_a_class_missing_from_one_file_is_named(tmp_path):
    write(tmp_path / "train.csv", csv(ROWS[:40]))
    write(tmp_path / "test.csv", csv(row for row in ROWS[40:] if row[1] == "good"))
    assert "the test split (10 examples) has no example of 'bad'" in message(path=str(tmp_path))


def test_the_options_are_a_schema_that_hydra_takes():
    config = OmegaConf.merge(OmegaConf.structured(Table), {"path": "a.csv", "classes": ["x", "y"]})
    table = OmegaConf.to_object(config)
    assert table == Table("a.csv", classes=["x", "y"])


LAYOUTS = [("train", "test"), ("training", "testing"), ("Train", "Test"), ("TRAIN", "EVAL"), ("train", "evaluation"),
           ("train", "dev"), ("Training", "Validate")]  # fmt: skip


@pytest.mark.parametrize(("train", "test"), LAYOUTS)
@pytest.mark.parametrize("pattern", [False, True])
def test_split_files_go_by_several_names_in_any_capitals(tmp_path, train, test, pattern):
    write(tmp_path / f"{train}.csv", csv(ROWS[:40]))
    write(tmp_path / f"{test}.csv", csv(ROWS[40:]))
    splits = zoo.load(Table(str(tmp_path / "{split}.csv") if pattern else str(tmp_path)))
    assert sizes(splits) == (36, 4, 20)


def test_eval_is_validation_beside_a_test(tmp_path):
    for name, rows in {"train": ROWS[:40], "eval": ROWS[40:46], "test": ROWS[46:]}.items():
        write(tmp_path / name / f"{name}.csv", csv(rows))
    assert sizes(zoo.load(Table(str(tmp_path / "{split}" / "{split}.csv")))) == (40, 6, 14)


@pytest.mark.parametrize("pattern", [False, True])
def test_a_file_that_may_be_the_test_is_refused_by_name_and_beside_a_test_noted(tmp_path, pattern):
    path = str(tmp_path / "{split}.csv") if pattern else str(tmp_path)
    write(tmp_path / "train.csv", csv(ROWS[:30]))
    write(tmp_path / "holdout.csv", csv(ROWS[30:40]))
    assert "there are examples also in: holdout.csv" in message(path=path)
    write(tmp_path / "dev.csv", csv(ROWS[40:50]))
    assert "there are examples also in: holdout.csv" in message(path=path)
    write(tmp_path / "test.csv", csv(ROWS[50:]))
    assert "Not read, since its name is that of no split: holdout.csv." in zoo.load(Table(path)).notes


HELD = csv(ROWS[40:])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("holdout.csv", HELD.replace("number", "größe").encode("cp1252"), "0xf6 is not utf-8"),
        ("holdout.csv", HELD.encode("utf-16"), "encoding=utf-16"),
        ("holdout.csv.gz", HELD, "no whole gzip file"),
        ("holdout.parquet", HELD, "no whole Parquet file"),
        ("holdout.jsonl", "no json", "not JSON"),
        ("holdout.csv", HELD.replace("text,label", "text,label,label"), "stands 2 times"),
        ("test.xlsx", HELD, "no file of a kind that is read"),
        ("Test.json", HELD, "no file of a kind that is read"),
        ("dev.txt", HELD, "no file of a kind that is read"),
        ("eval/eval.csv", HELD, "is a folder"),
    ],
)
def test_a_file_that_cannot_be_read_and_may_be_the_test_is_refused_by_name(tmp_path, name, content, told):
    write(tmp_path / "train.csv", csv(ROWS[:40]))
    write(tmp_path / name, content)
    text = message(path=str(tmp_path))
    assert (told in text, name.partition("/")[0] in text, len(text.splitlines()) <= 4) == (True, True, True), text
    write(tmp_path / "test.csv", HELD)
    assert sizes(zoo.load(Table(str(tmp_path)))) == (36, 4, 20)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("holdout.csv", HELD.replace("text,label", " Text,Label ")),
        ("holdout.csv", HELD.replace("text,label", "id,text,LABEL")),
        ("holdout.csv", HELD.replace(",", ";")),
        ("holdout.tsv", HELD),
        ("holdout.jsonl", jsonl(ROWS[40:]).replace('"label"', '"Label"')),
    ],
)
def test_a_file_whose_header_is_spelled_otherwise_may_be_the_test(tmp_path, name, content):
    write(tmp_path / "train.csv", csv(ROWS[:40]))
    write(tmp_path / name, content)
    assert f"there are examples also in: {name}" in message(path=str(tmp_path))


@pytest.mark.parametrize("name", ["holdout.xlsx", "test", "test.rds", "held.dta"])
@pytest.mark.parametrize("beside", ["", "validation.csv"])
def test_data_that_cannot_be_read_under_the_name_of_a_test_is_refused(tmp_path, name, beside):
    write(tmp_path / "train.csv", csv(ROWS[:40]))
    write(tmp_path / name, "?")
    if beside:
        write(tmp_path / beside, HELD)
    assert name in message(path=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evaluate.py", "print()"),
        ("test.py", "print()"),
        ("test.ipynb", "{}"),
        ("eval/README.md", "how it was evaluated"),
        ("eval/results.csv", "metric,value\naccuracy,0.9\n"),
        ("test/results.csv", "metric,größe\naccuracy,0.9\n".encode("cp1252")),
        ("authors.csv", "name,org\nJosé,x\n".encode("latin-1")),
        ("held.csv", "name,org\nJosé,x\n".encode("latin-1")),
        ("authors.csv", "größe,org\nJosé,x\n".encode("latin-1")),
        ("authors.csv", "name,org\nJosé,x\n".encode("utf-16")),
        ("notes.jsonl", "not json\n"),
        ("notes.parquet", "no parquet"),
        ("notes.csv.gz", "no gzip"),
        ("notes.csv", ""),
    ],
)
@pytest.mark.parametrize("beside", ["", "validation.csv"])
def test_what_is_no_data_or_shows_that_it_is_no_split_is_passed_over(tmp_path, name, content, beside):
    write(tmp_path / "train.csv", csv(ROWS[:40]))
    write(tmp_path / name, content)
    if beside:
        write(tmp_path / beside, HELD)
    splits = zoo.load(Table(str(tmp_path)))
    assert sizes(splits) == ((36, 4, 20) if beside else (28, 4, 8))
    told = [note for note in splits.notes if note.startswith("Not read")]
    read = name.endswith((".csv", ".jsonl", ".parquet", ".gz")) and "/" not in name
    assert told == ([f"Not read, since its name is that of no split: {name}."] if read else [])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("unseen.csv", HELD.replace("number", "größe").encode("cp1252"), "0xf6 is not utf-8"),
        ("unseen.csv", HELD.replace("text,", "größe;text;").replace(",", ";").encode("cp1252"), "0xf6 is not utf-8"),
        ("unseen.jsonl", jsonl(ROWS[40:]).replace("number", "größe").encode("cp1252"), "0xf6 is not utf-8"),
        ("old_test.parquet", HELD, "no whole Parquet file"),
        ("test-2.jsonl", "no json", "not JSON"),
        ("test/part-0.csv", HELD, "test is a folder"),
        ("test/part-0.csv", HELD.replace("number", "größe").encode("cp1252"), "test is a folder"),
        ("test.tar.gz", "", "no file of a kind that is read"),
    ],
)
def test_a_file_that_cannot_be_read_may_be_the_test_by_its_beginning_or_its_name(tmp_path, name, content, told):
    write(tmp_path / "train.csv", csv(ROWS[:40]))
    write(tmp_path / "validation.csv", csv(ROWS[40:50]))
    write(tmp_path / name, content)
    text = message(path=str(tmp_path))
    assert (told in text, "may be it" in text, len(text.splitlines()) <= 4) == (True, True, True), text


def test_of_a_missing_validation_a_file_of_another_kind_is_noted(tmp_path):
    write(tmp_path / "train.csv", csv(ROWS[:40]))
    write(tmp_path / "test.csv", HELD)
    write(tmp_path / "validation.xlsx", "")
    write(tmp_path / "test.csv.md5", "")
    notes = [note for note in zoo.load(Table(str(tmp_path))).notes if "Not read" in note]
    assert len(notes) == 1
    assert "validation.xlsx is no file of a kind that is read" in notes[0]


def test_what_holds_no_examples_is_no_reason_to_refuse(tmp_path):
    write(tmp_path / "train.csv", csv(ROWS[:40]))
    write(tmp_path / "val.csv", csv(ROWS[40:]))
    write(tmp_path / "labels.csv", "id,name\n0,bad\n")
    write(tmp_path / "README.csv", "")
    splits = zoo.load(Table(str(tmp_path)))
    assert sizes(splits) == (36, 4, 20)
    assert "Not read, since its name is that of no split: labels.csv." in splits.notes


def test_eval_fills_an_empty_role_only(tmp_path):
    for name, rows in {"train": ROWS[:30], "validation": ROWS[30:40], "eval": ROWS[40:50], "test": ROWS[50:]}.items():
        write(tmp_path / f"{name}.csv", csv(rows))
    splits = zoo.load(Table(str(tmp_path)))
    assert sizes(splits) == (30, 10, 10)
    assert "Not read, since its name is that of no split: eval.csv." in splits.notes


ORDERS = """
import sys, zoo
from zoo.data.tables import Table
print(*zoo.load(Table(sys.argv[1])).classes)
"""


def test_the_order_of_classes_does_not_depend_on_the_hash_seed(tmp_path):
    rows = [(f"text number {i}", ["01", "1", "2", "02", "-0", "0"][i % 6]) for i in range(60)]
    path = write(tmp_path / "codes.csv", csv(rows))
    told = {
        subprocess.run(
            [sys.executable, "-c", ORDERS, path],
            env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in range(4)
    }  # fmt: skip
    assert told == {"-0 0 01 1 02 2\n"}


@pytest.mark.parametrize(
    ("labels", "options", "classes"),
    [
        (("0.0", "1.0"), {}, ("0", "1")),
        (("0.50", "1.0"), {}, ("0.50", "1.0")),
        (("3.1", "3.10"), {}, ("3.1", "3.10")),
        (("1e5", "100000"), {}, ("100000", "1e5")),
        (("TRUE", "false "), {"classes": ["True", "False"]}, ("True", "False")),
        (("1.0", "2.0"), {"classes": ["1.0", "2.0"]}, ("1.0", "2.0")),
        (("1", "2"), {"classes": ["1.0", "2.0"]}, ("1.0", "2.0")),
        (("1.0", "0.0"), {"classes": ["bad", "good"]}, ("bad", "good")),
        (("v1.0", "1.0"), {}, ("1.0", "v1.0")),
        (("1.0", "1", "good"), {}, ("1", "good")),
        (("1.0", "1", "1.1", "beta"), {}, ("1", "1.0", "1.1", "beta")),
        (("1.0", "1", "good"), {"classes": ["1.0", "1", "good"]}, ("1.0", "1", "good")),
        (("e\u0301t\u00e9", "hiver"), {}, ("hiver", "\u00e9t\u00e9")),
    ],
)
def test_a_label_has_one_spelling(tmp_path, labels, options, classes):
    path = write(tmp_path / "a.csv", csv((f"text {i}", labels[i % len(labels)]) for i in range(40)))
    assert zoo.load(Table(path, **options)).classes == classes


@pytest.mark.parametrize(
    ("labels", "options", "notes"),
    [
        (("1", "0"), {}, []),
        (("1.0", "0.0"), {}, []),
        (("good", "bad 1"), {}, []),
        (("1", "0", "1.0"), {}, ["Read as one class: '1' (20 times) and '1.0' (20 times)."]),
        (("y", "Y", "n"), {"classes": ["y", "n"]}, ["Read as one class: 'y' (20 times) and 'Y' (20 times)."]),
        (
            ("1", "0", "good"),
            {},
            [
                "Warning: some labels are numbers, '1' (20 times), '0' (20 times), and some are words, "
                "'good' (20 times): each is a class of its own."
            ],
        ),
        (("1", "0", "good"), {"classes": ["good", "1", "0"]}, []),
        (("2.5", "-1", "n/a"), {}, ["numbers, '2.5' (20 times), '-1' (20 times), and some are words, 'n/a' (20"]),
    ],
)
def test_merged_spellings_and_numbers_beside_words_are_noted_with_counts(tmp_path, labels, options, notes):
    path = write(tmp_path / "a.csv", csv((f"text {i}", labels[i % len(labels)]) for i in range(20 * len(labels))))
    found = zoo.load(Table(path, **options)).notes
    assert len(found) == len(notes)
    assert all(expected in note for expected, note in zip(notes, found, strict=True))


def test_a_note_on_many_spellings_is_short(tmp_path):
    labels = [f"{number}{end}" for number in range(12) for end in ("", ".0")] * 3
    path = write(tmp_path / "a.csv", csv((f"text {i}", label) for i, label in enumerate(labels)))
    (note,) = zoo.load(Table(path)).notes
    assert note.endswith("; 8 more.")
    assert len(note) < 250


def test_names_or_indices_is_decided_once_for_all_splits(tmp_path):
    write(tmp_path / "train.csv", csv((f"text {i}", str(1 + i % 3)) for i in range(30)))
    write(tmp_path / "test.csv", csv((f"more {i}", str(i % 2)) for i in range(10)))
    # The test file alone could be read as indices, or as names without 0.
    assert "label '3' is outside the classes" in message(path=str(tmp_path), classes=["0", "1", "2"])
    write(tmp_path / "test.csv", csv((f"more {i}", ["a", "b", "c"][i % 3]) for i in range(10)))
    assert "names of classes, or all of them are integers" in message(path=str(tmp_path), classes=["a", "b", "c"])


def test_two_spellings_of_a_class_are_refused_with_their_counts(tmp_path):
    path = write(tmp_path / "a.csv", csv((f"text {i}", ["Good", "good", "bad"][i % 3]) for i in range(30)))
    text = message(path=path)
    assert "'Good' (10 times) and 'good' (10 times) differ in capitals or blanks only" in text
    assert text.endswith("name every class: classes=[a,b,c]")
    assert zoo.load(Table(path, classes=["Good", "bad", "good"])).classes == ("Good", "bad", "good")


def test_the_advice_for_a_path_with_a_comma_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a,b.csv", csv(ROWS))
    advised = message(path="b.csv").splitlines()[-1].partition("say ")[2]
    (word,) = shlex.split(advised)
    parsed = OverridesParser.create().parse_overrides([f"dataset.{word}"])
    assert parsed[0].value() == "a,b.csv"


def test_fields_of_any_length_are_read(tmp_path):
    rows = [(f"{'long ' * 40_000}{i}", "ab"[i % 2]) for i in range(10)]
    assert len(zoo.load(Table(write(tmp_path / "a.csv", csv(rows)))).train) > 0
