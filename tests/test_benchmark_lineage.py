"""The validation of lineage: what it counts is right, and the script runs and writes its tables."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import lineage_about
from benchmarks import lineage_tables as tables
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

SCRIPT = Path(__file__).parent / "benchmarks" / "lineage.py"
CHAIN = "permute,rescale"

scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


def row(kind: str, a: str, b: str, score: float | None, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "a": a, "b": b, "score": score, "log_p_order": None, "p_dead": None, **more}


@given(scores, scores)
def test_auc_is_that_of_scikit_learn(derived: list[float], independent: list[float]) -> None:
    labels = [1] * len(derived) + [0] * len(independent)
    assert tables.auc(derived, independent) == pytest.approx(roc_auc_score(labels, derived + independent))


def test_an_interval_of_a_proportion_has_its_closed_form_at_the_ends() -> None:
    """Clopper and Pearson: of none among n the upper end is 1 - (alpha / 2)^(1 / n)."""
    assert tables.proportion(0, 20)["high"] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert tables.proportion(20, 20)["low"] == pytest.approx(0.025 ** (1 / 20))
    assert tables.proportion(0, 0) == {"value": None, "low": None, "high": None, "n": 0}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300))
def test_at_most_one_independent_pair_in_a_hundred_is_above_the_threshold(drawn: list[float]) -> None:
    rows = [row(tables.INDEPENDENT, "a", "b", score) for score in drawn]
    above = tables.threshold([*rows, row(CHAIN, "a", "c", 2.0), row(tables.INDEPENDENT, "a", "d", None)])
    assert sum(score > above for score in drawn) <= len(drawn) / 100
    assert above in drawn


def test_validity_counts_independent_pairs_alone() -> None:
    ps = np.linspace(0.0005, 0.9995, 1000)
    rows = [row(tables.INDEPENDENT, "a", "b", 0.0, log_p_order=float(np.log(p)), p_dead=float(p**4)) for p in ps]
    rows.append(row(CHAIN, "a", "c", 0.0, log_p_order=-50.0, p_dead=0.001))
    uniform, small = tables.validity(rows)[0], tables.validity(rows)[2]
    assert (uniform["test"], uniform["false_positives"], uniform["rate_n"], uniform["bar"]) == ("R1", 50, 1000, "met")
    assert (uniform["band_low"], uniform["band_high"]) == (33, 69)  # of 1,000 at .05; qbinom(c(.005, .995), 1000, .05)
    assert (small["test"], small["bar"]) == ("R2", "MISSED")
    assert small["false_positives"] == (ps**4 <= 0.05).sum()


def test_power_tells_false_positives_from_true_ones() -> None:
    models = [f"m{number}" for number in range(8)]
    rows = [row(tables.INDEPENDENT, a, b, 0.2, shares=False) for a in models for b in models if a < b]
    rows += [row(CHAIN, model, f"{model}'", 0.9, shares=True, log_p_order=-0.1, p_dead=0.001) for model in models]
    rows += [row("noise:9", model, f"{model}*", 0.1, shares=False) for model in models]
    none, permuted, noisy, every = tables.power(rows, above=0.3)
    assert (none["kind"], none["r3"], none["verdict"], none["auc"], none["verdict_n"]) == (
        "independent",
        0,
        0,
        None,
        28,
    )
    assert (permuted["auc"], permuted["auc_low"], permuted["r3"], permuted["verdict"]) == (1, 1, 1, 1)
    assert (permuted["r1"], permuted["r2"]) == (0, 1)
    assert (noisy["auc"], noisy["r1"], noisy["r1_n"]) == (0, None, 0)
    assert (every["auc"], every["pairs"]) == (0.5, 16)


def test_a_cell_shows_value_interval_and_n() -> None:
    text = tables.as_markdown([{"rate": 0.5, "rate_low": 0.25, "rate_high": 0.75, "rate_n": 8, "bar": None}])
    assert text.splitlines() == ["| rate | bar |", "|---|---|", "| 0.500 (0.250–0.750), n = 8 | – |"]
    assert tables.as_csv([{"a": 1}, {"b": 2.5}]) == "a,b\n1,\n,2.5\n"


def test_what_a_table_was_measured_with_names_no_folder() -> None:
    words = ["--quick", "--out", "/home/me/out", "--jobs", "2", "--runs=/home/me/runs", "--only", "mlp"]
    assert lineage_about.without_folders(words) == ["--quick", "--jobs", "2", "--only", "mlp"]
    facts = {**lineage_about.about("tests/benchmarks/lineage.py", words), "commit": "0123456789abcdef+"}
    text = tables.measured_with(facts)
    assert "home" not in text + json.dumps(facts)
    assert "commit 0123456789ab with changes" in text
    assert "device cpu" in text


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("lineage_real")


def test_of_published_weights_every_pair_has_a_right_verdict(real: Any) -> None:
    tuned, other = (one.label for one in real.TUNINGS[:2])
    assert len({one.label for one in real.TUNINGS}) == 5
    assert len({one.dataset for one in real.TUNINGS}) > 1
    right = {
        ("the checkpoint", "its other package"): ("copy",), ("the checkpoint", tuned): ("derived",),
        ("its other package", "int8"): ("derived",), ("pruned", "fresh weights"): ("independent",),
        (tuned, other): real.KIN, ("half precision", "the checkpoint"): ("copy",), (tuned, "int8"): real.KIN,
    }  # fmt: skip
    assert {pair: real.expected(*pair) for pair in right} == right


def test_both_packages_hold_one_checkpoint(real: Any) -> None:
    if not all(map(real._is_installed, (real.CHECKPOINT, real.OTHER))):
        pytest.skip(f"{real.CHECKPOINT} or {real.OTHER} is not installed")
    one, two = (real.files_of(name) for name in (real.CHECKPOINT, real.OTHER))
    assert len(one["model.safetensors"]) > 2**26
    assert one == two


@pytest.mark.slow
def test_the_quick_validation_writes_every_table(tmp_path: Path) -> None:
    pytest.importorskip("zoo.lineage")
    pytest.importorskip("zoo_mlp")
    out = tmp_path / "out"
    words = [sys.executable, SCRIPT, "--quick", "--out", out, "--runs", tmp_path / "runs", "--jobs", "2"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    names = {"validation.md", "validation.json", "models.csv", "validity.csv", "power.csv", "zoo.csv", "cost.csv"}
    assert {path.name for path in out.iterdir()} == names
    found = json.loads((out / "validation.json").read_text(encoding="utf-8"))
    assert found["about"]["replicas"] == 6
    assert {"python", "zoo-harness", "torch", "numpy", "scipy", "safetensors"} <= set(found["about"]["versions"])
    assert set(found["about"]) >= {"commit", "seeds", "hardware", "recipes"}
    for file in out.iterdir():
        assert str(tmp_path) not in file.read_text(encoding="utf-8"), "no folder of the machine"
    assert found["validity"][0]["rate_n"] == 15, "every pair of six"
    assert [one["kind"] for one in found["power"]] == ["independent", CHAIN, "finetune:1", "all chains"]
    assert found["zoo"][0]["pairs"] == 10
    with (out / "power.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    assert "## (e) Cost of a pair" in (out / "validation.md").read_text(encoding="utf-8")
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stderr
    assert "as measured before" in again.stdout
    assert json.loads((out / "validation.json").read_text(encoding="utf-8"))["power"] == found["power"]
