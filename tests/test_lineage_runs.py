"""Runs of the harness compared: dead pixels, recorded starts, and descendants written as runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import RequestError
from zoo.lineage import dead, exact
from zoo.lineage.command import command, parse
from zoo.lineage.comparison import compare
from zoo.lineage.evidence import origin
from zoo.lineage.weights import Weights, open_weights
from zoo.models import Dense, InputSpec, Tokens
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace
from zoo.store.reading import read

CELL = ("model=mlp", "model.hidden=[24]", "task=image_classification", "dataset=mnist5k")
SWEEP = ("-m", "zoo.run", "-m", *CELL, "seed=0,1", "trainer.epochs=1", "trainer.threads=1", "report=off", "probe=0")


@pytest.fixture(scope="module")
def folders(installed, tmp_path_factory) -> list[Path]:
    """Two runs of one recipe with different seeds."""
    root = tmp_path_factory.mktemp("lineage")
    done = installed()(*SWEEP, cwd=root)
    assert done.returncode == 0, done.stderr
    return sorted(
        (root / "runs/image_classification/mnist5k/mlp").iterdir(), key=lambda folder: read(folder).record["seed"]
    )


def changed(
    folder: Path, root: Path, name: str, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> Weights:
    """A run like that in a folder, but with other weights."""
    run = read(folder)
    record = {**run.record, "parent": {"key": "told elsewhere"}}
    with Draft.open(root, RunPlace("image_classification", "mnist5k", name, "00"), record) as draft:
        draft.write_tensors("model.safetensors", change(run.weights()))
        return open_weights(draft.publish(record, "complete"))


def hidden(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renumbered, and everything that lives so much changed that no exact relation is left."""
    random = np.random.default_rng(0)
    order = random.permutation(24)
    made = {name: value.copy() for name, value in weights.items()}
    first = made["blocks.hidden1.0.weight"]
    living = np.ptp(first, axis=0) > 0
    first += 0.3 * first.std() * random.normal(size=first.shape).astype(np.float32) * _alive()
    assert living.any()
    made["blocks.hidden1.0.weight"] = first[order]
    made["blocks.hidden1.0.bias"] = made["blocks.hidden1.0.bias"][order]
    made["head.weight"] = made["head.weight"][:, order]
    return made


def _alive() -> np.ndarray:
    """(784,) 1 for pixels that are not the same in all training images."""
    from zoo.data import load
    from zoo.plugins import find

    images = np.asarray(load(find("dataset", "mnist5k").cls()).train.examples)
    return (np.ptp(images.reshape(len(images), -1), axis=0) > 0).astype(np.float32)


def test_dead_pixels_tell_a_renumbered_descendant_from_a_replica(folders, tmp_path):
    parent, replica = map(open_weights, folders)
    child = changed(folders[0], tmp_path, "hidden", hidden)
    comparison = compare([parent, replica, child], look=dead.looking())
    stranger, kin, other = comparison.pairs
    for pair in comparison.pairs:
        assert pair.evidence.dead is not None, pair.evidence.reasons
        assert pair.evidence.dead.dead == int((_alive() == 0).sum())
    assert kin.evidence.log_p_order is not None
    assert kin.evidence.log_p_order > np.log(0.001)  # R1 is blind to it
    assert kin.evidence.dead is not None
    assert kin.evidence.dead.p == pytest.approx(1 / (exact.MOST_DRAWS + 1))
    assert (kin.verdict.name, kin.verdict.strength) == ("derived", "exact")
    assert stranger.verdict.name == other.verdict.name == "undetermined"
    assert comparison.parents in ({2: 0}, {0: 2})


def test_the_command_reads_runs_and_writes_json(folders, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert command([str(folder) for folder in folders] + [f"out={out}"]) == 0
    (pair,) = json.loads(out.read_text())["pairs"]
    assert pair["units"]["known_from"] == "declared"
    assert pair["evidence"][1]["dead_coordinates"] > 100
    assert command([str(folder) for folder in folders] + [f"out={out}", "data=false"]) == 0
    assert json.loads(out.read_text())["pairs"][0]["evidence"][1]["p"] is None


def test_the_same_seed_on_record_is_a_common_ancestor(folders, tmp_path):
    run = read(folders[0])
    with Draft.open(tmp_path, RunPlace("t", "d", "twin", "00"), run.record) as draft:
        weights = run.weights()
        weights["blocks.hidden1.0.weight"] = weights["blocks.hidden1.0.weight"] + np.float32(0.01)
        draft.write_tensors("model.safetensors", weights)
        twin = open_weights(draft.publish(run.record, "complete"))
    verdict = compare([open_weights(folders[0]), twin]).pairs[0].verdict
    assert verdict.name == "common ancestor"
    assert "seed 0" in verdict.statement
    assert compare([open_weights(folders[0]), twin]).parents == {}  # siblings: neither came from the other


def test_one_seed_on_record_is_one_start_for_models_of_different_options(folders):
    one = open_weights(folders[0])
    config = {**(one.record or {})["config"], "model": {"name": "cnn"}}
    other = replace(one, record={**(one.record or {}), "config": config})
    assert "with seed 0, the first of them alike where shapes agree" in origin(one, other)
    assert origin(one, replace(other, record={**(other.record or {}), "seed": 1})) == ""
    assert origin(one, replace(other, record={**(other.record or {}), "parent": {"key": "0"}})) == ""


def test_replicas_of_another_recipe_calibrate_nothing(folders, tmp_path):
    one, two = map(open_weights, folders)
    record = {**read(folders[1]).record}
    record["config"] = {**record["config"], "trainer": {**record["config"]["trainer"], "epochs": 9}}
    with Draft.open(tmp_path, RunPlace("t", "d", "longer", "00"), record) as draft:
        draft.write_tensors("model.safetensors", read(folders[1]).weights())
        longer = open_weights(draft.publish(record, "complete"))
    reasons = compare([one, two], [longer]).pairs[0].evidence.reasons
    assert "trainer.epochs" in reasons["calibration"]
    # Nor is another recipe's model judged by replicas that it is none of.
    found = compare([one, longer], [two]).pairs[0].evidence
    assert found.calibrated is None
    assert "trainer.epochs" in found.reasons["calibration"]
    unknown = {**(two.record or {}), "data": {}}
    reasons = compare([one, longer], [replace(two, record=unknown)]).pairs[0].evidence.reasons
    assert "unknown on what data" in reasons["calibration"]


def test_of_texts_the_words_and_positions_that_never_occurred_are_dead():
    seen = dead.Inputs("key", InputSpec("tokens", (6,), vocab_size=9), Tokens.pack([[3, 4], [4, 5, 8, 3]]))
    words = dead.axis(seen, 9)
    assert words is not None
    assert words.dead.tolist() == [1, 2, 6, 7]  # 0 is the padding
    positions = dead.axis(seen, 6)
    assert positions is not None
    assert positions.dead.tolist() == [4, 5]
    assert dead.axis(seen, 7) is None


def test_of_images_the_pixels_that_never_vary_are_dead_each_with_its_own_value():
    values = np.random.default_rng(0).integers(0, 255, (20, 2, 2, 2), dtype=np.uint8)
    values[:, 0, 0, 0], values[:, 0, 1, 1], values[:, 1, 0, 0] = 7, 7, 7
    spec = InputSpec("dense", (2, 2, 2), mean=(0.1, 0.2), std=(1.0, 1.0))
    pixels = dead.axis(dead.Inputs("key", spec, Dense(values)), 8)
    assert pixels is not None
    assert pixels.dead.tolist() == [0, 3, 4]
    assert (
        pixels.classes[0] == pixels.classes[1] != pixels.classes[2]
    )  # of another channel: normalised to another value
    assert pixels.seen.shape == (8, 20)
    assert not pixels.seen[[0, 3, 4]].any()


def test_a_pattern_that_the_shell_left_is_looked_up_and_one_that_finds_nothing_said_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "runs" / "mlp" / name).mkdir(parents=True)
    assert parse(["runs/mlp/*"]).paths == ("runs/mlp/a", "runs/mlp/b")
    assert parse(["runs/mlp/[ab]", "out=x"]).paths == ("runs/mlp/a", "runs/mlp/b")
    for words in (["runs/mlpp/*"], ["runs/mlp/a", "runs/mlpp/*"]):
        with pytest.raises(RequestError, match=r"'runs/mlpp/\*' finds nothing: no file or folder has such a name"):
            parse(words)
    (tmp_path / "odd[1]").mkdir()
    assert parse(["odd[1]", "runs/mlp/a"]).paths == ("odd[1]", "runs/mlp/a")
