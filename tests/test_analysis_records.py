"""What a report knows of descent on record and of what is so by construction, from run folders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo import report, reporting
from zoo.analysis import lineage as analysis
from zoo.analysis.document import Options, analyse
from zoo.lineage.command import command
from zoo.reporting import kin
from zoo.reporting.words import Words
from zoo.store import guards, reading, study
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace
from zoo.store.schema import METRICS, WEIGHTS
from zoo.store.tables import PredictionTable

State = dict[str, np.ndarray]
EXAMPLES = 90
LABELS = np.random.default_rng(3).integers(0, 3, EXAMPLES)
QUICK = Options(draws=20, permutations=5)


def drawn(seed: int) -> State:
    random = np.random.default_rng(seed)
    shapes = ((40, 20), (40, 40), (3, 40))
    return {f"{at}.weight": random.normal(size=shape).astype(np.float32) for at, shape in enumerate(shapes)}


def moved(state: State, seed: int, by: float = 0.1) -> State:
    """Trained on, as far as tests of numbering can see."""
    random = np.random.default_rng(seed)
    return {name: value + by * random.normal(size=value.shape).astype(np.float32) for name, value in state.items()}


def renumbered(state: State) -> State:
    first, second = (np.random.default_rng(seed).permutation(40) for seed in (1, 2))
    return {"0.weight": state["0.weight"][first], "1.weight": state["1.weight"][second][:, first],
            "2.weight": state["2.weight"][:, second]}  # fmt: skip


def stored(root: Path, model: str, seed: int, state: State | None, **changed: Any) -> Path:
    """A complete run. changed: of its record."""
    key = f"{model}{seed}"
    config = {"model": {"name": model}, "trainer": {"epochs": 3}} | changed.pop("config", {})
    data = {"classes": ["a", "b", "c"], "splits": {"train": {"fingerprint": "feed"}}}
    record = {"seed": seed, "label": model, "config": config, "data": data, "key": key} | changed
    logits = 2 * np.eye(3)[LABELS] + np.random.default_rng([len(model), seed]).normal(size=(EXAMPLES, 3))
    ids = np.array([f"{number:04}" for number in range(EXAMPLES)])
    with Draft.open(root, RunPlace("t", "d", model, key), record) as draft:
        draft.write_predictions(PredictionTable(np.full(EXAMPLES, "test"), ids, LABELS, logits.argmax(1), logits))
        draft.write_json(METRICS, {})
        if state is not None:
            draft.write_tensors(WEIGHTS, state)
        return draft.publish(record, "complete")


def parent(folder: Path, *steps: str, **changed: Any) -> dict[str, Any]:
    record = reading.read(folder).record
    weights = record["files"].get(WEIGHTS, {}).get("sha256", "")
    told = {"key": record["key"], "label": record["label"], "seed": record["seed"], "weights_sha256": weights}
    return told | {"steps": [{"step": step} for step in steps]} | changed


def looked(*roots: Path) -> tuple[Any, list[str]]:
    comparison = guards.compare(study.open(list(roots)))
    models = list(dict.fromkeys(member.model for member in comparison.members))
    names = [f"{member.model} {member.seed}" for member in comparison.members]
    return analysis.lineage(comparison, models, lambda text: None, answers=False), names


def arcs(found: Any, names: list[str]) -> set[tuple[str, str, str]]:
    return {(names[arc["child"]], names[arc["parent"]], arc["direction"]) for arc in found["tree"]}


def explained(found: Any, names: list[str]) -> dict[tuple[str, str], str | None]:
    return {(names[pair["a"]], names[pair["b"]]): pair["explained"] for pair in found["listed"]}


def test_a_disguise_that_weights_cannot_see_through_is_first_on_record(tmp_path: Path) -> None:
    for seed in range(2):
        origin = stored(tmp_path / "runs", "base", seed, drawn(seed))
    hidden = moved(renumbered(drawn(1)), 5)
    stored(tmp_path / "disguised", "shell", 1, hidden, parent=parent(origin, "permute", "noise:0.1"))
    found, names = looked(tmp_path / "runs", tmp_path / "disguised")
    assert found["on_record"] == [
        {"child": 2, "parent": 1, "label": "base", "seed": 1, "steps": ["permute", "noise:0.1"], "against": None}
    ]
    first = found["listed"][0]
    assert (names[first["a"]], names[first["b"]], first["child"], first["explained"]) == (
        "base 1",
        "shell 1",
        2,
        "on record",
    )
    assert first["verdict"] == "undetermined"  # the record changes no verdict of the weights
    assert first["evidence"][0]["test"] == "record"
    (pair,) = [pair for pair in found["pairs"] if pair["on_record"]]
    assert (pair["strongest"]["test"], pair["strongest_runs"], pair["unexplained"]) == ("record", [1, 2], 0)
    assert arcs(found, names) == {("shell 1", "base 1", "on record")}


def test_the_report_says_it_first_in_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        origin = stored(tmp_path / "runs", "base", seed, drawn(seed))
        stored(tmp_path / "runs", "other", seed, drawn(seed + 50))
    made = stored(tmp_path / "disguised", "shell", 1, moved(renumbered(drawn(1)), 5), parent=parent(origin, "permute"))
    document = analyse([tmp_path / "runs", tmp_path / "disguised"], QUICK, ["python", "-m", "zoo.report"])
    said = "On record: shell, seed 1 was made from base, seed 1 (permute)."
    assert kin.verdict(document, Words())[0] == said
    reporting.write(document, tmp_path / "written")
    assert said in (tmp_path / "written" / "report.md").read_text("utf-8")
    assert said in (tmp_path / "written" / "index.html").read_text("utf-8")
    assert report.command(["verify", str(tmp_path / "written")]) == 0
    capsys.readouterr()
    assert command([str(origin), str(made), f"out={tmp_path / 'out.json'}"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.index("On record: d/shell/shell1" if "d/shell" in told else "On record: shell/shell1") < told.index(
        "Lineage"
    )
    assert "(direction: on record)" in told
    written = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert written["pairs"][0]["made_from"]["steps"] == ["permute"]


def test_a_parent_that_is_not_there_is_named_and_its_children_are_no_news(tmp_path: Path) -> None:
    origin = stored(tmp_path / "gone", "base", 0, drawn(0))
    for name, by in (("first", 0.05), ("second", 0.1)):
        stored(tmp_path / "runs", name, 0, moved(drawn(0), len(name), by), parent=parent(origin, "finetune:1"))
    found, names = looked(tmp_path / "runs")
    assert [(names[told["child"]], told["parent"], told["label"]) for told in found["on_record"]] == [
        ("first 0", None, "base"), ("second 0", None, "base"),
    ]  # fmt: skip
    assert explained(found, names) == {("first 0", "second 0"): "through others"}
    assert [pair["unexplained"] for pair in found["pairs"]] == [0]


def test_runs_without_weights_stand_in_the_tree_by_their_records(tmp_path: Path) -> None:
    origin = stored(tmp_path, "base", 0, drawn(0))
    silent = stored(tmp_path, "silent", 0, None, parent=parent(origin, "distil:20"))
    stored(tmp_path, "last", 0, moved(drawn(0), 1), parent=parent(silent, "finetune:1"))
    found, names = looked(tmp_path)
    assert arcs(found, names) == {("silent 0", "base 0", "on record"), ("last 0", "silent 0", "on record")}


def test_construction_explains_a_common_ancestor_and_no_copy(tmp_path: Path) -> None:
    for seed in range(3):
        stored(tmp_path, "still", seed, drawn(100))  # whose seed changes nothing
        stored(tmp_path, "base", seed, moved(drawn(seed), 1), config={"model": {"name": "base"}})
        stored(tmp_path, "wide", seed, moved(drawn(seed), 2), config={"model": {"name": "wide"}})
        tuned = {"model": {"name": "tuned", "checkpoint": "public"}, "model_fingerprint": "f00d"}
        stored(tmp_path, "tuned", seed, moved(drawn(200), 3 + seed), config=tuned)
    stored(tmp_path, "tuned", 3, moved(drawn(200), 3), config=tuned)  # the very weights of seed 0
    found, names = looked(tmp_path)
    told = explained(found, names)
    assert told["still 0", "still 1"] == "no randomness"
    assert {told[f"base {seed}", f"wide {seed}"] for seed in range(3)} == {"one seed"}
    assert told["tuned 0", "tuned 1"] == "one checkpoint"
    assert told["tuned 0", "tuned 3"] is None
    news = {(pair["a"], pair["b"]): pair["unexplained"] for pair in found["pairs"] if pair["unexplained"]}
    assert list(news.values()) == [1]
    assert arcs(found, names) & {("still 0", "still 1", "unknown")} == set()


def test_what_weights_say_against_a_record_stands_beside_it(tmp_path: Path) -> None:
    origin = stored(tmp_path, "base", 0, drawn(0))
    stored(tmp_path, "liar", 0, drawn(9), parent=parent(origin, "prune:0.5"))
    stored(tmp_path, "changed", 0, moved(drawn(0), 1), parent=parent(origin, "finetune:1", weights_sha256="0" * 64))
    found, names = looked(tmp_path)
    assert {names[told["child"]]: told["against"] for told in found["on_record"]} == {
        "liar 0": "unrelated weights", "changed 0": "other weights",
    }  # fmt: skip


def test_records_in_a_circle_or_without_form_end_nothing(tmp_path: Path) -> None:
    stored(tmp_path, "one", 0, drawn(0), parent={"key": "two0", "label": "two", "seed": 0, "steps": []})
    stored(tmp_path, "two", 0, drawn(1), parent={"key": "one0", "label": "one", "seed": 0, "steps": []})
    stored(tmp_path, "self", 0, drawn(2), parent={"key": "self0", "label": "self", "seed": 0, "steps": []})
    stored(tmp_path, "odd", 0, drawn(3), parent=["x"])
    found, names = looked(tmp_path)
    told = {names[one["child"]]: None if one["parent"] is None else names[one["parent"]] for one in found["on_record"]}
    assert told == {"one 0": "two 0", "two 0": "one 0", "self 0": None}
    assert len(found["tree"]) == 1  # one of the two that name each other has to be first


def test_what_is_said_of_pairs_on_record_is_said_in_chinese(tmp_path: Path) -> None:
    for seed in range(4):
        origin = stored(tmp_path, "base", seed, drawn(seed))
    stored(tmp_path, "shell", 3, moved(renumbered(drawn(3)), 5), parent=parent(origin, "permute"))
    stored(tmp_path, "liar", 3, drawn(9), parent=parent(origin, "prune:0.5"))
    stored(tmp_path, "learned", 3, None, parent=parent(origin, "distil:2"))
    comparison = guards.compare(study.open([tmp_path]))
    models = list(dict.fromkeys(member.model for member in comparison.members))
    found: Any = analysis.lineage(comparison, models, lambda text: None)
    shown = [row for pair in found["listed"] for row in pair["evidence"] if row["p"] is not None]
    said = [pair["statement"] for pair in found["listed"]] + [row["reason"] for row in shown if row["reason"]]
    told = {kin.translated(text, Words("zh")) for text in said}
    assert len(told) > 4
    english = {text for text in told if re.search(r"[a-z]+ [a-z]+ [a-z]+", text)}
    assert english == set()
