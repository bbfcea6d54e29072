"""Run folders: keys and places, round trips, damage, replacement, leftovers."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from zoo.errors import DamagedRun, StoreError
from zoo.store import schema
from zoo.store.disk import Lock
from zoo.store.drafts import lock_of
from zoo.store.folder import Draft, clear_leftovers
from zoo.store.keys import RunPlace, escape, run_key
from zoo.store.reading import find, read, runs
from zoo.store.tables import PredictionTable

PLACE = RunPlace("sentiment", "rotten_tomatoes", "cnn", "0123456789abcdef")


def predictions(examples: int = 7, classes: int = 3, seed: int = 0) -> PredictionTable:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(examples, classes)).astype(np.float32)
    return PredictionTable(
        splits=np.array(["validation"] * 2 + ["test"] * (examples - 2)),
        ids=np.array([f"{number:016x}" for number in range(examples)]),
        labels=random.integers(0, classes, examples),
        predictions=logits.argmax(axis=1),
        logits=logits,
    )


def write(root: Path, place: RunPlace = PLACE, status: str = "complete", seed: int = 0) -> Path:
    """A run with every kind of file."""
    with Draft.open(root, place, {"seed": seed}) as draft:
        draft.log("begun")
        draft.write_json(schema.METRICS, {"accuracy": {"value": 0.5, "low": 0.25, "high": math.nan, "n": 5}})
        draft.write_predictions(predictions(seed=seed))
        draft.write_history([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "accuracy": 0.75}])
        draft.write_tensors(schema.FEATURES, {"block.0": np.arange(6, dtype=np.float32).reshape(2, 3)})
        draft.write_tensors(schema.WEIGHTS, {"weight": np.full((2, 2), float(seed))})
        return draft.publish({"seed": seed, "config": {"model": {"dropout": 0.5}}}, status)  # type: ignore[arg-type]


# Keys and places


def test_key_is_stated_and_stays():
    assert (
        run_key({"model": {"name": "cnn"}, "seed": 0}, "fp", {"zoo-harness": "0.1.0"}) == "5d6ce90d40aa0789"
    )  # sha256sum of the JSON text


def test_key_does_not_depend_on_the_order_of_mappings():
    assert run_key({"a": 1, "b": {"c": 2, "d": 3}}, "f", {"x": "1", "y": "2"}) == run_key(
        {"b": {"d": 3, "c": 2}, "a": 1}, "f", {"y": "2", "x": "1"}
    )


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    "other",
    [
        ({"a": 2}, "f", {"x": "1"}),
        ({"a": 1}, "g", {"x": "1"}),
        ({"a": 1}, "f", {"x": "2"}),
        ({"a": "1"}, "f", {"x": "1"}),
        ({"a": None}, "f", {"x": "1"}),
        ({"a": math.inf}, "f", {"x": "1"}),
        ({"a": math.nan}, "f", {"x": "1"}),
        ({"a": [1]}, "f", {"x": "1"}),
    ],
)
def test_key_tells_recipes_apart(other):
    assert run_key(*other) != run_key({"a": 1}, "f", {"x": "1"})
    assert re.fullmatch("[0-9a-f]{16}", run_key(*other))


def test_key_takes_paths_enums_and_numpy_values():
    plain = run_key({"p": "a/b", "e": "red", "n": 3, "l": [1.0, 2.0]}, "f", {})
    assert run_key({"p": Path("a/b"), "e": Colour.RED, "n": np.int64(3), "l": np.array([1.0, 2.0])}, "f", {}) == plain


def test_key_refuses_what_has_no_json_form():
    with pytest.raises(StoreError, match="type object has no JSON form"):
        run_key({"a": object()}, "f", {})


@given(st.text(min_size=1), st.text(min_size=1))
def test_escaped_names_are_one_folder_and_differ(one, other):
    for name in (one, other):
        folder = escape(name)
        assert Path(folder).name == folder
        assert not folder.startswith(".")
        assert "/" not in folder
        assert "\0" not in folder
    assert (escape(one) == escape(other)) == (one == other)


def test_common_names_stay_readable():
    assert RunPlace("sentiment", "hotel_reviews_zh", "bow-2.1", "0f").relative == Path(
        "sentiment/hotel_reviews_zh/bow-2.1/0f"
    )
    assert escape("评论") == "评论"


@pytest.mark.parametrize("name", ["../../../etc", "/etc/passwd", "..", ".", "a/../../b", ".drafts", "a\0b"])
def test_no_name_leaves_the_root(tmp_path, name):
    place = RunPlace(name, name, name, name)
    folder = write(tmp_path / "runs", place)
    assert len(folder.relative_to(tmp_path / "runs").parts) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    found = find(tmp_path / "runs", place, verify=True)
    assert found is not None
    assert found.record["dataset"] == name


def test_an_empty_name_is_refused():
    with pytest.raises(StoreError, match="needs a dataset"):
        RunPlace("sentiment", "", "cnn", "0")


# Round trips


def test_everything_comes_back(tmp_path):
    folder = write(tmp_path)
    assert folder == tmp_path / "sentiment/rotten_tomatoes/cnn/0123456789abcdef"
    run = find(tmp_path, PLACE, verify=True)
    assert run is not None
    assert run.status == "complete"
    assert run.record["seed"] == 0
    assert run.record["config"] == {"model": {"dropout": 0.5}}
    assert run.record["started"] <= run.record["ended"]
    assert run.metrics()["accuracy"] == {"value": 0.5, "low": 0.25, "high": None, "n": 5}
    wanted, got = predictions(), run.predictions()
    for column in ("splits", "ids", "labels", "predictions", "logits"):
        np.testing.assert_array_equal(getattr(got, column), getattr(wanted, column))
    assert got.logits.dtype == np.float32
    assert got.labels.dtype == np.int64
    assert run.history() == [
        {"epoch": 1, "loss": 0.5, "accuracy": None},
        {"epoch": 2, "loss": 0.25, "accuracy": 0.75},
    ]
    np.testing.assert_array_equal(run.features()["block.0"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(run.weights()["weight"], np.zeros((2, 2)))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z begun\n", (folder / schema.EVENTS).read_text())
    assert not list((tmp_path / ".drafts").glob("0*"))


def test_every_file_is_listed_with_its_checksum(tmp_path):
    folder = write(tmp_path)
    record = json.loads((folder / schema.RUN).read_text())
    names = {path.name for path in folder.iterdir()}
    assert names == set(record["files"]) | {schema.RUN}
    assert names == set(schema.FILES) - {schema.ERROR}
    for name, facts in record["files"].items():
        told = subprocess.run(["sha256sum", folder / name], capture_output=True, text=True, check=True).stdout
        assert facts == {"sha256": told.split()[0], "bytes": (folder / name).stat().st_size}


def test_predictions_are_parquet_as_the_schema_says(tmp_path):
    table = pq.read_table(write(tmp_path) / schema.PREDICTIONS)
    assert tuple(table.column_names) == schema.PREDICTION_COLUMNS
    assert table.schema.field("logits").type == pa.list_(pa.float32(), 3)
    assert table.schema.field("label").type == pa.int64()


def test_only_one_split():
    table = predictions().only("test")
    assert len(table) == 5
    assert set(table.splits) == {"test"}
    assert len(predictions().only("train")) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.array([0, 1])}, "differ in length"),
        ({"labels": np.array([0, 0, 3])}, "labels run from 0 to 3, beyond 2 classes"),
        ({"predictions": np.array([0, -1, 0])}, "predictions run from -1"),
        ({"logits": np.zeros(3)}, r"logits are \(examples, classes\)"),
    ],
)
def test_a_prediction_table_that_does_not_fit_is_refused(changed, message):
    zeros = np.zeros(3, np.int64)
    columns = {"splits": ["test"] * 3, "ids": ["a", "b", "c"], "labels": zeros, "predictions": zeros}
    with pytest.raises(ValueError, match=message):
        PredictionTable(**{**columns, "logits": np.zeros((3, 2)), **changed})


def test_an_empty_history(tmp_path):
    with Draft.open(tmp_path, PLACE) as draft:
        draft.write_history([])
        draft.publish({})
    assert read(tmp_path / PLACE.relative).history() == []


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "int32", "int8", "uint8", "bool"])
def test_numpy_tensors_are_read_by_the_official_library(tmp_path, kind):
    tensors = {
        "plain": np.arange(6).reshape(2, 3).astype(kind),
        "transposed": np.arange(6).reshape(2, 3).astype(kind).T,
        "scalar": np.array(1, dtype=kind),
        "empty": np.zeros((0, 4), dtype=kind),
        "名": np.ones(3, dtype=kind),
        "byte": np.ones(3, dtype=np.uint8),
    }
    with Draft.open(tmp_path, PLACE) as draft:
        draft.write_tensors("x.safetensors", tensors)
        back = load_file(draft.folder / "x.safetensors")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back[name], tensor)


def test_torch_tensors_are_read_by_the_official_library(tmp_path):
    shared = torch.arange(6, dtype=torch.float32).reshape(2, 3).requires_grad_()
    tensors = {
        "one": shared,
        "tied": shared,
        "view": shared.T,
        "half": torch.tensor([0.1, 1e30, -2.0], dtype=torch.bfloat16),
        "steps": torch.tensor(7),
    }
    with Draft.open(tmp_path, PLACE) as draft:
        draft.write_tensors("x.safetensors", tensors)
        back = load_torch(draft.folder / "x.safetensors")
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_a_tensor_type_that_the_format_lacks_is_refused_and_leaves_nothing(tmp_path):
    with Draft.open(tmp_path, PLACE) as draft:
        with pytest.raises(ValueError, match="tensor 'x' has type complex128"):
            draft.write_tensors(schema.WEIGHTS, {"x": np.zeros(2, complex)})
        assert not (draft.folder / schema.WEIGHTS).exists()


# Statuses


def test_a_failure_keeps_its_traceback(tmp_path):
    with Draft.open(tmp_path, PLACE) as draft:
        folder = draft.publish_failure({"seed": 1}, ZeroDivisionError("by zero"), "Traceback …\nby zero")
    run = read(folder)
    assert run.status == "failed"
    assert run.record["error"] == {"type": "ZeroDivisionError", "message": "by zero"}
    assert run.record["interrupted"] is False
    assert (folder / schema.ERROR).read_text() == "Traceback …\nby zero"
    assert find(tmp_path, PLACE) is None


def test_ctrl_c_is_an_interrupted_failure(tmp_path):
    with Draft.open(tmp_path, PLACE) as draft:
        draft.publish_failure({}, KeyboardInterrupt(), "…")
    (run,) = runs(tmp_path)
    assert run.record["interrupted"] is True
    assert run.record["error"] == {"type": "KeyboardInterrupt", "message": "interrupted from the keyboard"}


def test_a_draft_says_started_and_is_no_run_yet(tmp_path):
    with Draft.open(tmp_path, PLACE, {"seed": 5}) as draft:
        (run,) = runs(tmp_path)
        assert run.folder == draft.folder
        assert (run.status, run.record["seed"], run.record["pid"]) == ("started", 5, os.getpid())
        assert find(tmp_path, PLACE) is None
    assert list(runs(tmp_path)) == []
    assert list((tmp_path / ".drafts").iterdir()) == []


def test_the_facts_of_the_store_win_over_the_record(tmp_path):
    with Draft.open(tmp_path, PLACE) as draft:
        draft.publish({"status": "failed", "schema_version": 9, "task": "x", "files": {}, "note": "kept"})
    run = read(tmp_path / PLACE.relative)
    assert (run.status, run.record["task"], run.record["note"]) == ("complete", "sentiment", "kept")


def test_a_file_put_there_by_others_is_checksummed_too(tmp_path):
    with Draft.open(tmp_path, PLACE) as draft:
        (draft.folder / "extra").mkdir()
        (draft.folder / "extra" / "note.txt").write_text("hello")
        draft.publish({})
    folder = tmp_path / PLACE.relative
    (folder / "extra" / "note.txt").write_text("hallo")
    with pytest.raises(DamagedRun, match=r"extra/note\.txt"):
        read(folder)


@pytest.mark.parametrize("older", ["complete", "failed", "skipped"])
def test_a_complete_run_replaces_an_older_one(tmp_path, older):
    write(tmp_path, status=older, seed=1)
    write(tmp_path, seed=2)
    (run,) = runs(tmp_path)
    assert (run.status, run.record["seed"]) == ("complete", 2)
    assert not list((tmp_path / ".drafts").glob("0*"))


def test_a_failed_try_does_not_cost_the_complete_run(tmp_path):
    write(tmp_path, seed=1)
    folder = write(tmp_path, status="failed", seed=2)
    assert folder.name == PLACE.key + "-failed"
    assert [(run.status, run.record["seed"]) for run in runs(tmp_path)] == [("complete", 1), ("failed", 2)]
    write(tmp_path, status="failed", seed=3)
    assert [(run.status, run.record["seed"]) for run in runs(tmp_path)] == [("complete", 1), ("failed", 3)]
    write(tmp_path, seed=4)
    assert [(run.status, run.record["seed"]) for run in runs(tmp_path)] == [("complete", 4)]


def test_a_failed_run_replaces_a_failed_one(tmp_path):
    write(tmp_path, status="failed", seed=1)
    write(tmp_path, status="skipped", seed=2)
    assert [(run.status, run.record["seed"]) for run in runs(tmp_path)] == [("skipped", 2)]


def test_dropping_files_makes_room_for_the_reason(tmp_path):
    with Draft.open(tmp_path, PLACE) as draft:
        draft.log("begun")
        draft.write_tensors(schema.WEIGHTS, {"w": np.zeros(10)})
        draft.drop_files()
        assert draft.is_open
        folder = draft.publish_failure({}, OSError("full"), "…")
        assert not draft.is_open
    assert {path.name for path in folder.iterdir()} == {schema.RUN, schema.EVENTS, schema.ERROR}
    read(folder, verify=True)


@pytest.mark.parametrize("name", [schema.RUN, schema.WEIGHTS])
def test_a_damaged_run_is_replaced_by_whatever_comes(tmp_path, name):
    folder = write(tmp_path, seed=1)
    (folder / name).write_text("")
    write(tmp_path, seed=2)
    assert read(folder).record["seed"] == 2


# Damage


@pytest.mark.parametrize("name", sorted(set(schema.FILES) - {schema.RUN, schema.ERROR}))
@pytest.mark.parametrize("how", ["missing", "truncated", "changed"])
def test_damage_is_named(tmp_path, name, how):
    folder = write(tmp_path)
    content = (folder / name).read_bytes()
    if how == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content[:-1] if how == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))
    words = {"missing": "is missing", "truncated": "bytes where", "changed": "checksum differs"}[how]
    with pytest.raises(DamagedRun, match=words) as caught:
        read(folder)
    assert str(folder) in str(caught.value)
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4
    with pytest.raises(DamagedRun, match=re.escape(name)):
        find(tmp_path, PLACE, verify=True)
    assert find(tmp_path, PLACE) is not None


def test_a_damaged_file_is_found_when_it_is_read(tmp_path):
    folder = write(tmp_path)
    (folder / schema.PREDICTIONS).write_bytes(b"PAR1")
    run = read(folder, verify=False)
    assert run.metrics()
    with pytest.raises(DamagedRun, match=r"predictions\.parquet has 4 bytes"):
        run.predictions()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"schema_version": "1"}', '{"schema_version": 1, "files": {"a": 1}}', "\xff"]
)
def test_a_damaged_record(tmp_path, content):
    folder = write(tmp_path)
    (folder / schema.RUN).write_text(content, encoding="latin-1")
    with pytest.raises(DamagedRun, match=r"run\.json"):
        read(folder)
    with pytest.raises(DamagedRun, match=r"run\.json"):
        find(tmp_path, PLACE)
    (run,) = runs(tmp_path)
    assert (run.status, run.record["error"]["type"], run.record["model"]) == ("failed", "DamagedRun", "cnn")


def test_a_newer_schema_asks_for_an_upgrade(tmp_path):
    folder = write(tmp_path)
    record = json.loads((folder / schema.RUN).read_text())
    (folder / schema.RUN).write_text(json.dumps({**record, "schema_version": 2}))
    with pytest.raises(StoreError, match=r"(?s)version 2 .* version 1.*pip install --upgrade zoo-harness"):
        read(folder)
    (run,) = runs(tmp_path)
    assert run.status == "failed"


def test_what_is_not_there(tmp_path):
    with pytest.raises(StoreError, match="There is no run folder"):
        read(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DamagedRun, match=r"run\.json is missing"):
        read(tmp_path / "empty")
    assert find(tmp_path, PLACE) is None
    assert list(runs(tmp_path / "nothing")) == []
    with Draft.open(tmp_path, PLACE) as draft:
        draft.publish({}, "skipped")
    with pytest.raises(StoreError, match=r"holds no metrics\.json; its status is 'skipped'"):
        read(tmp_path / PLACE.relative).metrics()


def test_runs_come_in_order(tmp_path):
    places = [RunPlace(task, "d", model, "0") for task in "ba" for model in ("z", "m")]
    for place in places:
        with Draft.open(tmp_path, place) as draft:
            draft.publish({})
    (tmp_path / "a" / "d" / "m" / "not_a_run").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    told = [(run.record["task"], run.record["model"]) for run in runs(tmp_path)]
    assert told == [("a", "m"), ("a", "z"), ("b", "m"), ("b", "z")]


# Leftovers


def test_leftovers_of_dead_processes_go_and_those_of_the_living_stay(tmp_path):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from zoo.store.folder import Draft; from zoo.store.keys import RunPlace\n"
        "d = Draft.open(Path(sys.argv[1]), RunPlace('t', 'd', 'm', 'dead'), {'seed': 3}); d.log('x'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    with Draft.open(tmp_path, PLACE) as draft:
        told = {run.record["key"]: (run.status, run.record.get("interrupted", False)) for run in runs(tmp_path)}
        assert told == {"dead": ("failed", True), PLACE.key: ("started", False)}
        assert [path.name.split("-")[0] for path in clear_leftovers(tmp_path)] == ["dead"]
        assert draft.folder.is_dir()
        draft.publish({})
    assert [run.record["key"] for run in runs(tmp_path)] == [PLACE.key]
    assert clear_leftovers(tmp_path) == []


def test_a_recycled_pid_does_not_save_a_leftover(tmp_path):
    draft = Draft.open(tmp_path, PLACE)  # this very process lives, but it let go of the draft
    draft._lock.release(remove=False)
    assert clear_leftovers(tmp_path) == [draft.folder]
    assert list((tmp_path / ".drafts").iterdir()) == []


def test_drafts_of_another_machine_are_left_alone(tmp_path):
    draft = Draft.open(tmp_path, PLACE)
    draft._lock.release()
    lock_of(draft.folder).write_text("another-host\n00000000-0000-0000-0000-000000000000")
    assert clear_leftovers(tmp_path) == []
    (run,) = runs(tmp_path)
    assert run.status == "started"


def test_a_stray_lock_goes(tmp_path):
    (tmp_path / ".drafts").mkdir()
    (tmp_path / ".drafts" / "0-1-2.lock").touch()
    clear_leftovers(tmp_path)
    assert list((tmp_path / ".drafts").iterdir()) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_a_run_put_aside_by_a_dead_process_is_put_back_if_it_is_whole(tmp_path, damaged):
    folder = write(tmp_path, seed=1)
    aside = tmp_path / ".drafts" / f"{PLACE.key}-1-00000000~old1"
    folder.rename(aside)
    if damaged:
        (aside / schema.METRICS).unlink()
    cleared = clear_leftovers(tmp_path)
    run = find(tmp_path, PLACE, verify=True)
    assert (cleared, run is None) == (([aside], True) if damaged else ([], False))
    assert not aside.exists()


def test_a_run_put_aside_does_not_come_back_over_its_successor(tmp_path):
    write(tmp_path, seed=1).rename(tmp_path / "kept")
    write(tmp_path, seed=2)
    aside = tmp_path / ".drafts" / f"{PLACE.key}-1-00000000~old1"
    (tmp_path / "kept").rename(aside)
    assert clear_leftovers(tmp_path) == [aside]
    run = find(tmp_path, PLACE)
    assert run is not None
    assert run.record["seed"] == 2


def test_a_lock_is_taken_once(tmp_path):
    lock = Lock.try_acquire(tmp_path / "x.lock")
    assert lock is not None
    assert Lock.try_acquire(tmp_path / "x.lock") is None
    lock.release()
    lock.release()
    assert not (tmp_path / "x.lock").exists()


def test_looking_at_runs_needs_no_numpy(tmp_path):
    write(tmp_path)
    code = (
        "import sys; from pathlib import Path; from zoo.store.reading import runs\n"
        "print([run.metrics()['accuracy']['n'] for run in runs(Path(sys.argv[1]))])\n"
        "print(sorted({'numpy', 'torch', 'pyarrow', 'safetensors'} & sys.modules.keys()))"
    )
    told = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert told.stdout == "[5]\n[]\n"


@pytest.mark.parametrize(
    ("device", "precision", "threads", "run", "bench"),
    [
        ("cpu", "fp32", 1, "cpu, fp32, 1 thread", "cpu, fp32, 1 thread"),
        ("cpu", "bf16", 2, "cpu, bf16, 2 threads", "cpu, bf16, 2 threads"),
        ("cuda", "bf16", 16, "cuda, bf16", "cuda, bf16, 16 CPU threads"),
        ("cuda", "bf16", 1, "cuda, bf16", "cuda, bf16, 1 CPU thread"),
        ("cpu", "", None, "cpu", "cpu"),
        ("", "", None, "", ""),
    ],
)
def test_threads_of_the_processor_are_told_where_it_computed(device, precision, threads, run, bench):
    assert schema.computed_on(device, precision, threads) == run
    assert schema.computed_on(device, precision, threads, processor_too=True) == bench
