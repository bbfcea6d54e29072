"""Studies: runs found and verified, what can be compared, the panel and the probe aligned by example."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from zoo.errors import DamagedRun, RequestError, StoreError
from zoo.store import guards, panel, probe, reading, schema, study
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace, run_key
from zoo.store.recipes import Recipe, names
from zoo.store.tables import PredictionTable

IDS = tuple(f"{number:016x}" for number in range(40))
CLASSES = ("bad", "fair", "good")
TRUTH = dict(zip(IDS, np.random.default_rng(7).integers(0, 3, len(IDS)).tolist(), strict=True))


def write(root: Path, label="mlp", seed=0, ids=IDS, classes=CLASSES, **options) -> Path:
    """A run that answers `ids` in that order.

    options: model (its options), trainer, train (fingerprint), truth (id → class name), logits (False: unknown),
    validation (rows), probed (ids), versions, status, answers (seed of the logits), said (id → answered class).
    """
    random = np.random.default_rng(options.get("answers", zlib.crc32(f"{label} {seed}".encode())))
    truth = options.get("truth") or {item: CLASSES[TRUTH[item]] for item in ids}
    rows = [*(f"v{number}" for number in range(options.get("validation", 6))), *ids]
    own = {item: random.normal(size=len(classes)) for item in sorted(rows)}
    logits = np.array([own[item] for item in rows], np.float32)
    labels = [classes.index(truth.get(item, classes[0])) for item in rows]
    logits[np.arange(len(rows)), labels] += 1
    for row, item in enumerate(rows):
        logits[row, options.get("said", {}).get(item, 0)] += 9 * (item in options.get("said", {}))
    predictions = logits.argmax(1)
    if options.get("logits") is False:
        logits[:] = np.nan
    splits = ["validation" if item.startswith("v") else "test" for item in rows]
    config = {
        "model": {"name": "mlp", "hidden": [256], **options.get("model", {})},
        "trainer": {"epochs": 3, "device": "auto", **options.get("trainer", {})},
    }
    train = {"train": {"fingerprint": options.get("train", "aaaaaaaabbbb")}}
    record = {
        "config": config,
        "seed": seed,
        "label": label,
        "versions": {"zoo-harness": "0.1.0", **options.get("versions", {})},
        "data": {"classes": list(classes), "splits": train},
        **(
            {"error": {"type": "TrainingError", "message": "the loss is nan\nat step 3"}}
            if options.get("status")
            else {}
        ),
    }
    key = run_key({**config, "seed": seed, "ids": list(ids), "at": options.get("versions", {})}, str(train), {})
    with Draft.open(root, RunPlace("sentiment", "reviews", label, key), record) as draft:
        draft.write_json(schema.METRICS, {})
        draft.write_predictions(PredictionTable(splits, rows, labels, predictions, logits))
        if probed := options.get("probed"):
            record["probe_ids"] = list(probed)
            values = np.array([[int(item, 16), seed] for item in probed], np.float32)
            draft.write_tensors(schema.FEATURES, {"block.10": values, "block.2": -values})
        return draft.publish(record, options.get("status", "complete"))


def compared(root: Path) -> guards.Comparison:
    return guards.compare(study.open(root))


# Finding runs


def test_a_study_is_named_by_folders_above_runs_by_runs_and_by_patterns(tmp_path, monkeypatch):
    first, second = write(tmp_path / "runs", seed=0), write(tmp_path / "runs", seed=1)
    monkeypatch.chdir(tmp_path)
    assert [run.folder.name for run in study.open("runs").runs] == sorted([first.name, second.name])
    assert [run.folder for run in study.open(first).runs] == [first]
    assert len(study.open("runs/*/reviews").runs) == 2
    assert len(study.open(["runs", first, "runs/**/mlp"]).runs) == 2, "a folder reached twice counts once"


def test_a_folder_with_brackets_in_its_name_is_no_pattern(tmp_path):
    write(tmp_path / "a[1]")
    assert len(study.open(str(tmp_path / "a[1]")).runs) == 1


def test_a_path_without_runs_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for path, message in (("nowhere", "There is no folder"), ("empty", "no runs below"), ("file", "is a file")):
        with pytest.raises(RequestError, match=message) as caught:
            study.open(tmp_path / path)
        assert str(tmp_path / path) in str(caught.value)
    with pytest.raises(RequestError, match="at least one folder"):
        study.open([])


def test_runs_that_are_not_complete_are_left_out_with_the_reason(tmp_path):
    write(tmp_path)
    failed = write(tmp_path, seed=1, status="failed")
    found = study.open(tmp_path)
    assert len(found.runs) == 1
    (left,) = found.left_out
    assert (left.folder, left.why, left.reason) == (failed, "not complete: failed", "TrainingError: the loss is nan")
    assert "mlp, seed 1" in left.what


def test_drafts_are_no_part_of_a_study(tmp_path):
    write(tmp_path)
    with Draft.open(tmp_path, RunPlace("t", "d", "m", "k"), {}):
        found = study.open(tmp_path)
    assert len(found.runs) == 1
    assert not found.left_out


def spoil_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [schema.PREDICTIONS, schema.METRICS, schema.FEATURES])
@pytest.mark.parametrize("spoil", [spoil_a_byte, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_named_and_the_rest_compared(tmp_path, name, spoil):
    write(tmp_path)
    folder = write(tmp_path, label="cnn", probed=IDS[:5])
    spoil(folder / name)
    found = study.open(tmp_path)
    (left,) = found.left_out
    assert left.why == "damaged"
    assert name in left.reason
    assert str(folder) in left.reason
    assert panel.build(guards.compare(found)).models == ("mlp",)


@pytest.mark.parametrize("content", ["", "[]", '{"schema_version": 1, "files": 3}', '{"schema_version": 99}', None])
def test_a_run_without_a_record_is_left_out(tmp_path, content):
    write(tmp_path)
    folder = write(tmp_path, label="cnn")
    (folder / schema.RUN).unlink()
    if content is not None:
        (folder / schema.RUN).write_text(content)
    (left,) = study.open(tmp_path).left_out
    assert left.folder == folder
    assert left.why == ("unreadable" if content and "99" in content else "damaged")


def test_nothing_usable_is_an_error_that_names_the_first(tmp_path):
    write(tmp_path, status="failed")
    with pytest.raises(RequestError, match=r"None of the 1 runs.*\n.*the loss is nan"):
        study.open(tmp_path)


# What can be compared


def test_replicas_are_runs_of_one_recipe_and_the_panel_is_joined_by_id(tmp_path):
    folders = {}
    for label in ("mlp", "cnn"):
        for seed in (1, 0):
            # Every run has its own order of examples: a join by position would mix them up.
            order = np.random.default_rng(zlib.crc32(f"{label} {seed}".encode())).permutation(len(IDS))
            folders[label, seed] = write(tmp_path, label, seed, ids=tuple(np.array(IDS)[order]))
    found = panel.build(compared(tmp_path))
    assert found.models == ("cnn", "mlp")
    assert (found.runs, found.seeds) == ((0, 0, 1, 1), (0, 1, 0, 1))
    assert found.classes == CLASSES
    assert set(found.ids) == set(IDS)
    assert found.labels.tolist() == [TRUTH[item] for item in found.ids]
    for row, (model, seed) in enumerate(zip(found.runs, found.seeds, strict=True)):
        table = study.open(folders[found.models[model], seed]).runs[0].predictions()
        own = dict(zip(table.ids.tolist(), table.predictions.tolist(), strict=True))
        assert found.predictions[row].tolist() == [own[item] for item in found.ids]
    assert found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, atol=1e-6)
    assert (found.probabilities.argmax(-1) == found.predictions).all()
    assert found.calibrated


def test_classes_are_joined_by_name_whatever_their_order(tmp_path):
    write(tmp_path, "a", 0)
    write(tmp_path, "b", 0)
    write(tmp_path, "c", 0, classes=("good", "bad", "fair"))
    found = panel.build(compared(tmp_path))
    assert found.classes == CLASSES
    own = study.open(tmp_path / "sentiment/reviews/c").runs[0].predictions().only("test")
    named = dict(zip(own.ids.tolist(), np.array(("good", "bad", "fair"))[own.predictions].tolist(), strict=True))
    assert [CLASSES[index] for index in found.predictions[2]] == [named[item] for item in found.ids]
    assert (found.probabilities.argmax(-1) == found.predictions).all()


def test_two_recipes_of_one_label_are_two_models_named_by_what_differs(tmp_path):
    for hidden in ([256], [512]):
        for seed in (0, 1):
            write(tmp_path, "mlp", seed, model={"hidden": hidden})
    assert panel.build(compared(tmp_path)).models == ("mlp (hidden=[256])", "mlp (hidden=[512])")


def test_where_and_how_fast_is_no_part_of_a_recipe(tmp_path):
    write(tmp_path, seed=0, trainer={"device": "cuda", "threads": 4})
    write(tmp_path, seed=1, trainer={"device": "cpu", "compile": True})
    assert panel.build(compared(tmp_path)).models == ("mlp",)


def test_another_training_split_makes_another_model_and_is_told(tmp_path):
    write(tmp_path, seed=0)
    write(tmp_path, seed=0, train="ccccccccdddd")
    found = compared(tmp_path)
    assert sorted(member.model for member in found.members) == ["mlp (data=aaaaaaaa)", "mlp (data=cccccccc)"]
    assert any("trained on different examples" in note for note in found.notes)


def test_one_model_twice_with_one_seed_counts_once_the_newest(tmp_path):
    older = write(tmp_path, versions={"torch": "2.7"})
    newer = write(tmp_path, versions={"torch": "2.8"})
    found = compared(tmp_path)
    assert [member.run.folder for member in found.members] == [newer]
    (left,) = found.left_out
    assert (left.folder, left.why) == (older, "one model twice with one seed")
    assert "torch 2.7 → 2.8" in left.reason


def test_an_older_shorter_answer_sheet_costs_no_examples(tmp_path):
    write(tmp_path, ids=IDS[10:], versions={"torch": "2.7"})
    newer = write(tmp_path, versions={"torch": "2.8"})
    write(tmp_path, "cnn")
    found = compared(tmp_path)
    assert newer in [member.run.folder for member in found.members]
    assert set(found.ids) == set(IDS)
    assert [left.code for left in found.left_out] == ["replaced_by_others"]


def test_a_shorter_sheet_with_the_same_answers_has_no_other_answers(tmp_path):
    older = write(tmp_path, ids=IDS[:30], versions={"torch": "2.7"})
    write(tmp_path, versions={"torch": "2.8"})
    assert [(left.folder, left.code) for left in compared(tmp_path).left_out] == [(older, "replaced")]


def overlapping(tmp_path, first: slice, second: slice, others: int = 0, relabelled: int = 0) -> list[Path]:
    """Two runs of one recipe and seed, one after the other, with the same answers where both answered, but for `others`
    answers and `relabelled` labels of the second."""
    said = {item: int(item, 16) % 3 for item in IDS}
    truth = {item: CLASSES[TRUTH[item]] for item in IDS}
    now = {**said, **{item: (said[item] + 1) % 3 for item in IDS[:others]}}
    labels = {**truth, **{item: CLASSES[(TRUTH[item] + 1) % 3] for item in IDS[:relabelled]}}
    return [
        write(tmp_path, ids=IDS[first], said=said, truth=truth, versions={"torch": "2.7"}),
        write(tmp_path, ids=IDS[second], said=now, truth=labels, versions={"torch": "2.8"}),
    ]


def test_a_newer_sheet_that_holds_less_of_the_same_does_not_replace_the_whole(tmp_path):
    whole, part = overlapping(tmp_path, slice(None), slice(30))
    write(tmp_path, "cnn")
    found = compared(tmp_path)
    assert [member.run.folder for member in found.members if member.model == "mlp"] == [whole]
    assert set(found.ids) == set(IDS)
    assert [(left.folder, left.code) for left in found.left_out] == [(part, "replaced")]
    assert "more examples" in found.left_out[0].reason


@pytest.mark.parametrize(
    ("first", "second", "options", "code"),
    [
        (slice(0, 30), slice(10, None), {}, "replaced_by_others"),  # each has examples of its own
        (slice(0, 20), slice(20, None), {}, "other_examples"),  # none in common: nothing says they answer alike
        (slice(None), slice(0, 30), {"others": 5}, "replaced_by_others"),
        (slice(None), slice(None), {"relabelled": 5}, "replaced_by_others"),
    ],
)
def test_answers_that_a_newer_sheet_does_not_hold_are_told_of(tmp_path, first, second, options, code):
    runs = overlapping(tmp_path, first, second, **options)
    (left,) = [left for left in compared(tmp_path).left_out if left.folder]
    assert left.code == code
    assert left.folder == runs[0] or code == "other_examples"


def test_other_classes_are_left_out(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b")
    other = write(tmp_path, "c", classes=("bad", "good"), truth=dict.fromkeys(IDS, "good"))
    found = compared(tmp_path)
    (left,) = found.left_out
    assert (left.folder, left.why) == (other, "other classes")
    assert "bad, good" in left.reason


def test_what_can_be_compared_in_part_is_compared_in_part(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b")
    write(tmp_path, "c", ids=IDS[10:])
    found = compared(tmp_path)
    assert {member.model for member in found.members} == {"a", "b", "c"}
    assert set(found.ids) == set(IDS[10:])
    (left,) = found.left_out
    assert (left.what, left.why) == ("10 test examples", "not answered by all")


@pytest.mark.parametrize(
    ("others", "what"),
    [((IDS[1:],), "1 test example"), ((IDS[1:], IDS[:-1]), "2 test examples"), ((IDS[10:], IDS), "10 test examples")],
)
def test_what_not_all_answered_is_counted_once(tmp_path, others, what):
    write(tmp_path, "a")
    for name, ids in zip("bc", others, strict=False):
        write(tmp_path, name, ids=ids)
    (left,) = compared(tmp_path).left_out
    assert left.what == what


def test_a_run_with_few_of_the_examples_is_left_out(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b")
    few = write(tmp_path, "c", ids=IDS[:5])
    found = compared(tmp_path)
    assert len(found.ids) == len(IDS)
    (left,) = found.left_out
    assert (left.folder, left.why) == (few, "other test examples")
    assert "5 of the 40" in left.reason


def test_the_largest_group_is_kept_wherever_it_stands(tmp_path):
    other = tuple(f"{number:016x}" for number in range(100, 190))
    truth = dict.fromkeys(other, "good")
    write(tmp_path, "a", ids=other, truth=truth)
    for label in ("x", "y"):
        write(tmp_path, label)
    assert {member.model for member in compared(tmp_path).members} == {"x", "y"}
    for seed in (1, 2):
        write(tmp_path, "a", seed, ids=other, truth=truth)
    assert [member.model for member in compared(tmp_path).members] == ["a", "a", "a"]


def test_examples_with_another_label_are_other_examples(tmp_path):
    truth = {item: CLASSES[TRUTH[item]] for item in IDS}
    some = {**truth, **{item: CLASSES[(TRUTH[item] + 1) % 3] for item in IDS[:3]}}
    every = {item: CLASSES[(TRUTH[item] + 1) % 3] for item in IDS}
    for label in ("a", "b"):
        write(tmp_path, label, truth=truth)
    write(tmp_path, "c", truth=some)
    wrong = write(tmp_path, "d", truth=every)
    found = compared(tmp_path)
    assert {member.model for member in found.members} == {"a", "b", "c"}
    assert set(found.ids) == set(IDS[3:])
    assert [left.folder for left in found.left_out if left.why == "other labels"] == [wrong]


def test_runs_that_cannot_be_joined_are_left_out(tmp_path):
    write(tmp_path, "a")
    twice = write(tmp_path, "b", ids=(*IDS, IDS[0]))
    none = write(tmp_path, "c", ids=())
    found = compared(tmp_path)
    assert {(left.folder, left.why) for left in found.left_out} == {(twice, "repeated ids"), (none, "no test examples")}
    shutil.rmtree(tmp_path / "sentiment/reviews/a")
    with pytest.raises(RequestError, match="No run of this study can be compared"):
        compared(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"data": None},
        {"data": {"classes": "bad"}},
        {"data": {"classes": ["bad", "good"]}},
        {"data": {"classes": ["bad", "bad", "good"]}},
        {"seed": None},
        {"seed": True},
    ],
)
def test_a_record_that_does_not_fit_its_answers_is_left_out(tmp_path, change):
    write(tmp_path, "a")
    folder = write(tmp_path, "b")
    record = json.loads((folder / schema.RUN).read_text())
    (folder / schema.RUN).write_text(json.dumps({**record, **change}))
    (left,) = compared(tmp_path).left_out
    assert (left.folder, left.why) == (folder, "damaged")


def test_versions_and_seeds_without_effect_are_told(tmp_path):
    write(tmp_path, "a", 0, versions={"zoo-harness": "0.1.0"}, answers=1)
    write(tmp_path, "a", 1, versions={"zoo-harness": "0.2.0"}, answers=1)
    write(tmp_path, "b", 0)
    notes = compared(tmp_path).notes
    assert any("evaluator, zoo-harness,: 0.1.0 (2 runs), 0.2.0 (1 runs)" in note for note in notes)
    assert any("2 runs of a answer every example alike" in note for note in notes)


HOSTILE = [
    "<script>alert(1)</script>",
    "../../../etc",
    "a\nb",
    "\x1b[31mred",
    "'; DROP TABLE",
    "评论 😀",
    "=cmd()",
    "%s{}",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_through_as_they_are(tmp_path, name):
    classes = (name, "fair", "good")
    write(tmp_path, name, classes=classes, truth=dict.fromkeys(IDS, name), model={"hidden": name})
    write(tmp_path, name, classes=classes, truth=dict.fromkeys(IDS, name), model={"hidden": "other"})
    found = panel.build(compared(tmp_path))
    assert found.classes == classes
    assert len(found.models) == 2
    assert all(model.startswith(f"{name} (hidden=") for model in found.models)


# Names


def recipe(data="", **options) -> Recipe:
    return Recipe(tuple((name, json.dumps(value)) for name, value in options.items()), data)


def test_names_say_the_least_that_tells_models_apart():
    one, two, three = recipe(a=1, b="x", c=0), recipe(a=1, b="y", c=1), recipe(a=2, b="x", c=2)
    assert names([("m", one), ("m", two), ("n", three), ("m", one)]) == ["m (b=x)", "m (b=y)", "n", "m (b=x)"]
    assert names([("m", one), ("m", two), ("m", three)]) == ["m (c=0)", "m (c=1)", "m (c=2)"]
    assert names([("m", recipe(**{"model.p": 1})), ("m", recipe(**{"trainer.p": 1}))])[0] == "m (p=1)"


values = st.one_of(st.integers(0, 2), st.sampled_from(["x", "x" * 60 + "1", "x" * 60 + "2", "m (a=0)"]))
recipes = st.builds(lambda options, data: recipe(data, **options), st.dictionaries(st.sampled_from("abc"), values),
                    st.sampled_from(["", "f1", "f2"]))  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(["m", "m (a=0)", "m (a=1)", "m (a=0) #1"]), recipes), min_size=1, max_size=8))
@example([("m", recipe(a=0)), ("m", recipe()), ("m (a=0)", recipe()), ("m (a=0) #1", recipe())])
@settings(deadline=None)
def test_names_are_equal_exactly_when_models_are(models):
    named = names(models)
    for one, its in zip(models, named, strict=True):
        for other, others in zip(models, named, strict=True):
            assert (its == others) == (one == other)


# Probabilities


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 3.0])
def test_the_temperature_minimises_the_log_loss(sharpness):
    """Reference: scipy's bounded scalar minimiser on scikit-learn's log_loss."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(400, 4))
    labels = np.array([random.choice(4, p=row) for row in softmax(logits)])

    def loss(logarithm: float) -> float:
        return log_loss(labels, softmax(logits * sharpness / np.exp(logarithm)), labels=range(4))

    wanted = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    got = panel.temperature((logits * sharpness).astype(np.float32), labels)
    assert np.log(got) == pytest.approx(wanted.x, abs=1e-5)
    assert got == pytest.approx(sharpness, rel=0.25), "the labels were drawn at temperature 1"


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_temperatures_at_the_edges():
    right = np.eye(3, dtype=np.float32)
    assert panel.temperature(right, np.arange(3)) == 1 / 64
    assert panel.temperature(right, np.array([1, 2, 0])) == 64
    assert panel.temperature(np.ones((3, 3), np.float32), np.arange(3)) == 1
    assert panel.temperature(np.array([[80.0, 0.0], [0.0, 9e4]], np.float32), np.array([0, 1])) == 1 / 64


def test_without_validation_in_one_run_none_is_calibrated(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b", validation=0)
    found = panel.build(compared(tmp_path))
    assert not found.calibrated
    table = study.open(tmp_path / "sentiment/reviews/a").runs[0].predictions().only("test")
    np.testing.assert_allclose(found.probabilities[0], softmax(table.logits.astype(float)), atol=1e-6)


def test_calibrated_probabilities_are_the_logits_over_the_temperature(tmp_path):
    folder = write(tmp_path, "a", validation=30)
    found = panel.build(compared(tmp_path))
    table = study.open(folder).runs[0].predictions()
    held = table.only("validation")
    wanted = softmax(table.only("test").logits / panel.temperature(held.logits, held.labels))
    np.testing.assert_allclose(found.probabilities[0], wanted, atol=1e-6)


def test_a_run_without_probabilities_leaves_the_panel_without(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b", logits=False)
    found = panel.build(compared(tmp_path))
    assert found.probabilities is None
    assert not found.calibrated
    assert found.predictions.shape == (2, len(IDS))


def test_a_file_that_changes_after_the_study_was_opened_is_noticed(tmp_path):
    folder = write(tmp_path, "a")
    found = compared(tmp_path)
    spoil_a_byte(folder / schema.PREDICTIONS)
    with pytest.raises(DamagedRun, match=schema.PREDICTIONS):
        panel.build(found)


@given(st.permutations(range(len(IDS))), st.integers(21, len(IDS)))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_panel_does_not_depend_on_the_order_of_examples(tmp_path_factory, order, size):
    root = tmp_path_factory.mktemp("runs")
    ids = tuple(np.array(IDS)[order])[:size]
    write(root, "a", answers=1)
    write(root, "b", ids=ids, answers=2)
    found = panel.build(compared(root))
    assert set(found.ids) == set(ids)
    assert found.ids == tuple(item for item in IDS if item in ids), "the order of the first member"
    table = study.open(root / "sentiment/reviews/b").runs[0].predictions()
    own = dict(zip(table.ids.tolist(), table.predictions.tolist(), strict=True))
    assert found.predictions[1].tolist() == [own[item] for item in found.ids]


# Probes


def test_features_are_aligned_by_id_and_layers_ordered(tmp_path):
    write(tmp_path, "a", 0, probed=IDS[:20])
    write(tmp_path, "a", 1, probed=tuple(reversed(IDS[5:25])))
    bare = write(tmp_path, "b")
    found = probe.build(compared(tmp_path))
    assert (found.models, found.runs, found.seeds) == (("a",), (0, 0), (0, 1))
    assert found.ids == IDS[5:20]
    for layers in found.layers:
        assert list(layers) == ["block.2", "block.10"]
        assert layers["block.10"][:, 0].tolist() == [int(item, 16) for item in found.ids]
    assert [left.folder for left in found.left_out] == [bare]


def test_without_features_the_probe_is_empty(tmp_path):
    write(tmp_path)
    found = probe.build(compared(tmp_path))
    assert (found.models, found.ids, found.layers) == ((), (), ())


def test_features_that_do_not_fit_their_examples_are_left_out(tmp_path):
    folder = write(tmp_path, probed=IDS[:5])
    record = json.loads((folder / schema.RUN).read_text())
    (folder / schema.RUN).write_text(json.dumps({**record, "probe_ids": list(IDS[:4])}))
    (left,) = probe.build(compared(tmp_path)).left_out
    assert "do not fit" in left.reason


# Real runs


def test_real_runs_become_a_panel(tmp_path):
    command = [sys.executable, "-m", "zoo.run", "-m", "model=linear,majority", "task=image_classification"]
    command += ["dataset=digits", "seed=0,1", f"runs_dir={tmp_path / 'runs'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, env=environment)
    comparison = compared(tmp_path / "runs")
    found = panel.build(comparison)
    assert found.models == ("linear", "majority")
    assert found.runs == (0, 0, 1, 1)
    assert found.calibrated
    for member, predictions in zip(comparison.members, found.predictions, strict=True):
        assert (predictions == found.labels).mean() == pytest.approx(member.run.metrics()["accuracy"]["value"])


def test_listing_needs_no_heavy_import():
    code = "import sys, zoo.store.study, zoo.store.guards, zoo.store.panel, zoo.store.probe, zoo.importing; " + (
        "print([name for name in ('numpy', 'torch', 'pyarrow', 'scipy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("sentimentt", "runs/sentiment"),
        ("runs/sentimentt", "runs/sentiment"),
        ("runs/sentimentt/reviews", "runs/sentiment/reviews"),
        ("runs/sentiment/reviws", "runs/sentiment/reviews"),
        ("reviews", "runs/sentiment/reviews"),
        ("rns", "runs"),
        ("runs/reviews", "runs/sentiment/reviews"),
        ("sentiment/revews", "runs/sentiment/reviews"),
        ("runs/nothing_like_it", None),
        ("experiments", None),
        ("disguised", None),
        ("data/reviews", None),
        ("runs/other/reviews", None),
        ("runs/*/revews", None),
        ("x" * 300 + "/y", None),
    ],
)
def test_a_mistyped_folder_is_answered_with_the_nearest(tmp_path, monkeypatch, asked, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "sentiment" / "reviews").mkdir(parents=True)
    (tmp_path / "runs" / "images" / "digits").mkdir(parents=True)
    expected = "" if meant is None else f" Did you mean '{meant}'?"
    assert reading.near_folder(asked) == expected
    if len(asked) < 256:
        with pytest.raises(RequestError, match=re.escape(f"There is no folder {asked}.{expected}\n")):
            study.open(asked)
        if "*" not in asked:
            with pytest.raises(StoreError, match=re.escape(f"There is no run folder {asked}.{expected}\n")):
                reading.read(Path(asked))
