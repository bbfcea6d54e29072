"""The validation of the black box: what it counts is right, and the script runs and writes its tables."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from zoo.data import load
from zoo.plugins import find
from zoo.store.reading import read

SCRIPT = Path(__file__).parent / "benchmarks" / "blackbox.py"
LABELS = np.arange(200) % 3
SHARED = 2 * np.eye(3)[LABELS] + np.random.default_rng(1).normal(size=(200, 3))


@pytest.fixture(name="tables")
def _tables(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("blackbox_tables")


def answered(random: np.random.Generator, shared: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    return {name: shared + random.normal(size=shared.shape) for name in names}


def test_students_are_told_and_strangers_are_not(tables):
    random = np.random.default_rng(2)
    references, parents = ([f"{kind}{number}" for number in range(count)] for kind, count in (("r", 99), ("p", 8)))
    logits = answered(random, SHARED, [*references, *parents])
    near = {f"near-{name}": logits[name] + 0.3 * random.normal(size=SHARED.shape) for name in parents}
    far = answered(random, SHARED, [f"far-{name}" for name in parents])
    other = answered(random, SHARED + 2 * random.normal(size=SHARED.shape), [f"o{number}" for number in range(40)])
    made = tables.Made(
        tuple(references), tuple(parents), {"distil": tuple(far), "queried": tuple(near)}, tuple(other), ""
    )
    answers = tables.Answered({**logits, **near, **far, **other}, LABELS)
    rows = {row["kind"]: tables.barred(row, 99) for row in tables.judged(made, answers, tables.TEST)}
    assert (rows["queried"]["b2"], rows["queried"]["b2_n"], rows["queried"]["b2_auc"]) == (1, 8, 1)
    assert rows["queried"]["same_answer"] > rows["distil"]["same_answer"]
    assert rows["distil"]["bar"] == "MISSED"
    assert (rows["independent"]["pairs"], rows["independent"]["b2_auc"]) == (56, None)
    assert rows["student of another"]["pairs"] == 8 * 7 * 2
    assert rows["independent"]["b2"] < 0.25
    same, half = tables.elsewhere(made, answers)
    assert (same["kin"], half["kin"]) == (rows["independent"]["b2"], 1)
    unknown = tables.judged(made, tables.Answered(answers.logits, None), "noise")
    assert all(row["b1"] is None and row["b1_n"] == 0 for row in unknown)
    assert all("bar" not in tables.barred(row, 99) for row in unknown)


def test_the_bar_wants_power_beyond_the_baseline_and_99_references(tables):
    row = {"probe": tables.TEST, "kind": "distil", "b2": 0.85, "b1": 0.8, "b2_auc": 0.9, "b1_auc": 0.95, "b2_low": 0.6}
    assert tables.barred(row, 99)["bar"] == "met"
    assert tables.barred(row, 98)["bar"] == "MISSED"
    assert tables.barred({**row, "b1": 0.85}, 99)["bar"] == "MISSED"
    assert tables.barred({**row, "b1": 0.85, "b2_auc": 0.96}, 99)["bar"] == "met"
    assert tables.barred({**row, "b2": 0.79}, 99)["bar"] == "MISSED"
    everything, noise = {**row, "probe": tables.EVERYTHING, "b1": None, "b1_auc": None}, {**row, "probe": "noise"}
    known = {"b1_low": 0.5, "b1_high": 0.9, "b1_n": 20}
    told = tables.with_baseline([{**row, **known}, everything, noise])
    assert (told[1]["b1"], told[1]["b1_n"], told[2]) == (0.8, 20, noise)
    assert ["bar" in tables.barred(one, 99) for one in told] == [True, True, False]
    strangers = {**row, "kind": "independent", "b2": 0.07}
    assert tables.barred({**strangers, "b2_low": 0.04}, 99)["bar"] == "met"
    assert tables.barred({**strangers, "b2_low": 0.051}, 99)["bar"] == "MISSED"


@pytest.mark.slow
def test_the_quick_validation_writes_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zoo_mlp")
    out = tmp_path / "out"
    words = [sys.executable, SCRIPT, "--quick", "--out", out, "--runs", tmp_path / "runs", "--jobs", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    names = {"blackbox.md", "blackbox.json", "blackbox_models.csv", "blackbox_power.csv", "blackbox_elsewhere.csv"}
    assert {path.name for path in out.iterdir()} == names
    found = json.loads((out / "blackbox.json").read_text(encoding="utf-8"))
    assert {row["probe"] for row in found["power"]} == {
        "test split", "mixed", "noise", "boundary", "training", "all together",
    }  # fmt: skip
    assert found["power"][0]["verdict_n"] == 3
    assert [row["references"] for row in found["elsewhere"]] == [6, 4]
    student = next((tmp_path / "runs").glob("*/*/mlp-queried/*"))
    test = load(find("dataset", "digits").cls()).test
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    again = importlib.import_module("blackbox_queries").asked((str(student), {"test": test.examples}))["test"]
    np.testing.assert_allclose(again, read(student).predictions().only("test").logits, atol=1e-6)
    with (out / "blackbox_power.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(found["power"])
