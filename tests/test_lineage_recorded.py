"""What the record of a run says of its descent goes first, changes no verdict, and is contradicted aloud."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.lineage.comparison import Comparison, compare
from zoo.lineage.document import document, evidence_rows, told_of_record
from zoo.lineage.recorded import Parent, parent_of, recorded
from zoo.lineage.verdict import Verdict
from zoo.lineage.weights import Weights, of_run
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace
from zoo.store.schema import WEIGHTS

State = dict[str, np.ndarray]
RANDOM = np.random.default_rng(5)


def drawn(seed: int) -> State:
    random = np.random.default_rng(seed)
    shapes = ((40, 20), (40, 40), (3, 40))
    return {f"{at}.weight": random.normal(size=shape).astype(np.float32) for at, shape in enumerate(shapes)}


def hidden(state: State) -> State:
    """Units renumbered, and noise: nothing that weights without replicas could tell."""
    first, second = (np.random.default_rng(seed).permutation(40) for seed in (1, 2))
    made = {"0.weight": state["0.weight"][first], "1.weight": state["1.weight"][second][:, first],
            "2.weight": state["2.weight"][:, second]}  # fmt: skip
    return {name: value + 0.1 * RANDOM.normal(size=value.shape).astype(np.float32) for name, value in made.items()}


def run(root: Path, label: str, state: State, parent: dict[str, Any] | None = None) -> Weights:
    record: dict[str, Any] = {"seed": 0, "label": label, "config": {}, "data": {}, "key": f"key-of-{label}"}
    record |= {} if parent is None else {"parent": parent}
    with Draft.open(root, RunPlace("t", "d", label, record["key"]), record) as draft:
        draft.write_tensors(WEIGHTS, state)
        folder = draft.publish(record, "complete")
    return of_run(folder, json.loads((folder / "run.json").read_text()), label)


def made_from(parent: Weights, *steps: str, **changed: Any) -> dict[str, Any]:
    assert parent.record is not None
    told = {"key": parent.record["key"], "label": parent.label, "seed": 0, "steps": [{"step": step} for step in steps]}
    return told | {"weights_sha256": parent.record["files"][WEIGHTS]["sha256"]} | changed


def lines(found: Comparison) -> set[tuple[str, str, str]]:
    return {(found.models[child].label, found.models[parent].label, found.family.directions[child])
            for child, parent in found.parents.items()}  # fmt: skip


def test_a_record_is_first_where_weights_tell_nothing_and_leaves_their_verdict(tmp_path):
    parent = run(tmp_path, "parent", drawn(0))
    shell = run(tmp_path, "a-shell", hidden(drawn(0)), made_from(parent, "permute", "noise:0.1"))
    untold = run(tmp_path, "b-untold", hidden(drawn(0)))
    stranger = run(tmp_path, "stranger", drawn(1))
    for order in list(permutations([parent, shell, untold, stranger]))[::5]:
        found = compare(order)
        assert ("a-shell", "parent", "on record") in lines(found)
        by_labels = {frozenset((pair.first.label, pair.second.label)): pair for pair in found.pairs}
        of_shell, of_untold = by_labels[frozenset(("parent", "a-shell"))], by_labels[frozenset(("parent", "b-untold"))]
        assert of_shell.verdict.name == of_untold.verdict.name == "undetermined"
        assert of_untold.recorded is None
        assert of_shell.recorded is not None
        assert (of_shell.recorded.child, of_shell.recorded.parent) == ("a-shell", "parent")
        assert (of_shell.recorded.steps, of_shell.recorded.against) == (("permute", "noise:0.1"), None)
        first, *rest = evidence_rows(of_shell)
        assert (first["test"], first["kind"], first["p"]) == ("record", "on record", None)
        assert first["reason"] == "permute, noise:0.1"
        assert rest[0]["test"] == "numbers"
        assert evidence_rows(of_untold)[0]["test"] == "numbers"
    told = document(compare([shell, parent]))
    assert told["pairs"][0]["made_from"]["child"] == "a-shell"
    assert told["tree"] == [{"child": 0, "parent": 1, "direction": "on record"}]


def test_the_record_goes_before_the_nearest_weights(tmp_path):
    parent = run(tmp_path, "parent", drawn(0))
    near = run(tmp_path, "near", drawn(0))
    near_child = {name: value + 0.01 for name, value in drawn(0).items()}
    far = run(tmp_path, "far", {name: value + 0.5 * RANDOM.normal(size=value.shape).astype(np.float32)
                                for name, value in drawn(0).items()})  # fmt: skip
    child = run(tmp_path, "child", near_child, made_from(far, "finetune:1"))
    assert ("child", "far", "on record") in lines(compare([parent, near, far, child]))


@pytest.mark.parametrize(
    ("against", "state", "steps", "changed"),
    [
        ("unrelated weights", drawn(7), ["prune:0.5"], {}),
        (None, drawn(7), ["prune:0.5", "distil:cnn:20"], {}),  # it learned from answers: that is what to expect
        ("other weights", drawn(0), ["prune:0.5"], {"weights_sha256": "0" * 64}),
        (None, drawn(0), [], {}),
    ],
)
def test_what_weights_say_against_a_record_is_said(tmp_path, against, state, steps, changed):
    parent = run(tmp_path, "parent", drawn(0))
    child = run(tmp_path, "child", state, made_from(parent, *steps, **changed))
    (pair,) = compare([parent, child]).pairs
    assert pair.recorded is not None
    assert pair.recorded.against == against
    assert (", but " in told_of_record(pair.recorded)) == (against is not None)
    assert lines(compare([child, parent])) == {("child", "parent", "on record")}


def test_a_parent_that_lost_information_contradicts_the_record(tmp_path):
    whole = drawn(0)
    pruned = {name: np.where(np.abs(value) > 0.7, value, 0).astype(np.float32) for name, value in whole.items()}
    parent = run(tmp_path, "parent", pruned)
    child = run(tmp_path, "child", whole, made_from(parent, "finetune:1"))
    (pair,) = compare([parent, child]).pairs
    assert pair.verdict.later == "parent"
    assert pair.recorded is not None
    assert pair.recorded.against == "parent came later"


def test_of_two_runs_with_the_key_the_one_whose_weights_are_on_record_is_the_parent(tmp_path):
    parent, twin = run(tmp_path / "a", "parent", drawn(0)), run(tmp_path / "b", "parent", drawn(3))
    twin = of_run(twin.path, twin.record or {}, "another")
    child = run(tmp_path, "child", drawn(0), made_from(parent))
    for order in permutations([parent, twin, child]):
        assert ("child", "parent", "on record") in lines(compare(order))


@pytest.mark.parametrize("told", [None, "mlp", [], {}, {"key": 3}, {"key": ""}, {"steps": [{"step": "prune:0.5"}]}])
def test_what_names_no_parent_is_no_record(told):
    assert parent_of({"parent": told}) is None
    assert parent_of(None) is None


def test_a_record_in_a_strange_form_says_what_can_be_read():
    told = {"key": "k", "steps": [{"step": 3}, "permute", {"step": "prune:0.5"}], "seed": "x", "label": None}
    assert parent_of({"parent": told}) == Parent("k", "", None, ("prune:0.5",), "")
    assert parent_of({"parent": {"key": "k", "steps": "permute"}}) == Parent("k", "", None, (), "")


def test_two_that_name_each_other_say_nothing(tmp_path):
    one = Weights("one", tmp_path, {}, record={"key": "1", "parent": {"key": "2"}})
    two = Weights("two", tmp_path, {}, record={"key": "2", "parent": {"key": "1"}})
    assert recorded(one, two, Verdict("undetermined", "", "heuristic")) is None
    assert recorded(one, Weights("bare", tmp_path, {}), Verdict("undetermined", "", "heuristic")) is None
