"""Who shares weights or answers, from run folders: answers made elsewhere, few references and enough of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from zoo import report, reporting
from zoo.analysis import lineage as analysis
from zoo.analysis.document import Options, analyse
from zoo.lineage import behaviour
from zoo.lineage.command import command
from zoo.reporting.words import Words
from zoo.store import guards, study
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace
from zoo.store.schema import METRICS, WEIGHTS
from zoo.store.tables import PredictionTable

CLASSES = ("cat", "dog", "owl")
EXAMPLES = 120
RANDOM = np.random.default_rng(11)
LABELS = RANDOM.integers(0, 3, EXAMPLES)
SHARED = 2 * np.eye(3)[LABELS] + RANDOM.normal(size=(EXAMPLES, 3))
QUICK = Options(draws=20, permutations=5)


def own(seed: int) -> np.ndarray:
    """Answers of one training: what every training on the data learns, and noise of its own."""
    return SHARED + np.random.default_rng(seed).normal(size=SHARED.shape)


def copied(logits: np.ndarray) -> np.ndarray:
    """Answers of what learned from answers."""
    return logits + 0.3 * np.random.default_rng(99).normal(size=logits.shape)


def drawn(seed: int, name: str) -> dict[str, np.ndarray]:
    """Fresh weights of a chain of three layers."""
    random = np.random.default_rng(seed)
    shapes = ((32, 20), (32, 32), (3, 32))
    return {f"{name}.{at}.weight": random.normal(size=shape).astype(np.float32) for at, shape in enumerate(shapes)}


def stored(root: Path, model: str, seed: int, logits: np.ndarray, **changed: Any) -> Path:
    """A complete run. changed: weights; data: fingerprint of the training split; imported: made elsewhere."""
    predictions = np.nan_to_num(logits).argmax(1)
    config = {"model": {"name": model}, "trainer": {"epochs": 3}}
    data = {"classes": list(CLASSES), "splits": {"train": {"fingerprint": changed.get("data", "feed")}}}
    record: dict[str, Any] = {"seed": seed, "label": model, "config": config, "data": data}
    if changed.get("imported"):
        record |= {"config": {}, "data": {"classes": list(CLASSES)}, "imported": {"file": "answers.csv"}}
    ids = np.array([f"{number:04}" for number in range(EXAMPLES)])
    with Draft.open(root, RunPlace("t", "d", model, f"{model}{seed}"), record) as draft:
        draft.write_predictions(PredictionTable(np.full(EXAMPLES, "test"), ids, LABELS, predictions, logits))
        draft.write_json(METRICS, {})
        if "weights" in changed:
            draft.write_tensors(WEIGHTS, changed["weights"])
        return draft.publish(record, "complete")


def few(root: Path, hostile: str = "vendor") -> Path:
    """Two models of five seeds with weights, another without, and an imported copy of the first."""
    for seed in range(5):
        stored(root, "base", seed, own(seed), weights=drawn(seed, "layers"))
        stored(root, "other", seed, own(seed + 10), weights=drawn(seed + 10, "blocks"))
        stored(root, "lost", seed, own(seed + 20))
    stored(root, hostile, 0, copied(own(3)), imported=True)
    return root


def looked(root: Path, answers: bool = True) -> tuple[dict[str, Any], list[str]]:
    """The lineage of the runs under a folder, and the names of its models."""
    comparison = guards.compare(study.open([root]))
    models = list(dict.fromkeys(member.model for member in comparison.members))
    said: list[str] = []
    found: Any = analysis.lineage(comparison, models, said.append, answers)
    assert ("comparing answers" in said) == answers
    return found, models


def by_names(found: Mapping[str, Any], models: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(models[pair["a"]], models[pair["b"]]): pair for pair in found["pairs"]}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return few(tmp_path_factory.mktemp("few"))


def test_few_references_leave_every_pair_the_verdict_of_its_weights(small):
    found, models = looked(small)
    before, _ = looked(small, answers=False)
    assert [pair["verdicts"] for pair in found["pairs"]] == [pair["verdicts"] for pair in before["pairs"]]
    assert [pair["tested"] for pair in found["pairs"]] == [pair["tested"] for pair in before["pairs"]]
    assert [pair["reason"] for pair in found["pairs"]] == [pair["reason"] for pair in before["pairs"]]
    told = found["answers"]
    # The imported one has no references of its own, but in each of its pairs the other has.
    assert (told["compared"], told["calibrated"], told["references"]) == (120, 120, 4)
    assert (told["needed"], told["needed_together"]) == (
        19,
        int(120 * sum(1 / k for k in range(1, 121)) / 0.05),
    )
    pairs = by_names(found, models)
    assert pairs["base", "other"]["strongest"]["test"] == "B2"
    assert pairs["base", "other"]["strongest"]["p"] >= 1 / 5
    assert pairs["base", "other"]["strongest"]["corrected"] == 1
    assert "against 4 references of" in pairs["base", "other"]["strongest"]["reason"]
    assert pairs["base", "base"]["strongest"]["test"] == "R1"  # what weights tell comes first
    assert (pairs["base", "lost"]["tested"], pairs["base", "lost"]["reason"]) == (0, analysis.NO_WEIGHTS)
    assert pairs["lost", "vendor"]["answers"]["calibrated"] == 5
    assert [run["reason"] for run in found["lacking"]] == [analysis.NO_WEIGHTS] * 6


def test_repeated_errors_are_those_counted_by_hand(small):
    found, models = looked(small)
    vendor, base = copied(own(3)).argmax(1), [own(seed).argmax(1) for seed in range(5)]
    rates = []
    for one in base:
        for first, second in ((one, vendor), (vendor, one)):
            wrong = first != LABELS
            again = int((second[wrong] == first[wrong]).sum())
            span = binomtest(again, int(wrong.sum())).proportion_ci(method="wilson")
            rates.append((span.low, again / wrong.sum(), span.high, int(wrong.sum())))
    told = by_names(found, models)["base", "vendor"]["answers"]
    low, value, high, n = max(rates)
    assert told["repeated"]["n"] == n
    assert [told["repeated"][key] for key in ("low", "value", "high")] == pytest.approx([low, value, high])
    assert told["mean"] == pytest.approx(np.mean([rate[1] for rate in rates]))
    # The run that was copied, and the imported one, which comes last.
    assert {told["repeated"]["wrong"], told["repeated"]["repeats"]} == {3, 15}
    assert by_names(found, models)["base", "vendor"]["strongest_runs"] == [3, 15]


def test_answers_are_compared_as_the_command_compares_them(small, tmp_path):
    found, models = looked(small)
    words = [f"{small}/t/d/base/base3", f"{small}/t/d/vendor/vendor0", f"references={small}/t/d/*"]
    assert command([*words, f"out={tmp_path / 'out.json'}"]) == 0
    (pair,) = json.loads((tmp_path / "out.json").read_text())["pairs"]
    baseline, residual = pair["evidence"][3:]
    row = by_names(found, models)["base", "vendor"]["strongest"]
    assert (row["p"], row["n"]) == (residual["p"], residual["examples"])
    assert row["statistic"] == pytest.approx(residual["calibrations"][0]["score"], abs=1e-4)
    told = by_names(found, models)["base", "vendor"]["answers"]["repeated"]
    assert told["value"] in [baseline[key]["value"] for key in ("first_repeated_by_second", "second_repeated_by_first")]


def test_references_of_other_data_are_refused_and_reasons_are_told(tmp_path):
    for seed in range(3):
        stored(tmp_path, "base", seed, own(seed), data="beef" if seed else "feed")
        stored(tmp_path, "still", seed, own(9))
    stored(tmp_path, "once", 0, own(5))
    stored(tmp_path, "vendor", 0, copied(own(1)), imported=True)
    found, models = looked(tmp_path)
    assert models[:2] == ["base (data=beef)", "base (data=feed)"]
    assert (found["answers"]["compared"], found["answers"]["calibrated"]) == (28, 0)
    reasons = {names: pair["answers"]["reason"] for names, pair in by_names(found, models).items()}
    unknown = "it is unknown on what data vendor was trained"
    assert reasons["once", "vendor"] == f"no reference of once but the two themselves was found; {unknown}"
    still = "other runs of still answer exactly as it does"
    assert reasons["still", "vendor"] == f"{still}; {unknown}"
    refused = "base (data=beef) is no reference for base (data=feed): it was trained on other data"
    assert reasons["base (data=feed)", "vendor"] == f"{refused}; {unknown}"
    assert reasons["base (data=beef)", "vendor"] == f"references of base (data=beef): 1, and 2 are the least; {unknown}"
    assert [reason for reason in reasons.values() if Words("zh").translate(reason) == reason] == []


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Forty-two seeds of a model that keeps no weights, a copy of the first by answers alone, a stranger."""
    root = tmp_path_factory.mktemp("many")
    for seed in range(42):
        stored(root, "base", seed, own(100 + seed))
    stored(root, "copy", 0, copied(own(100)), imported=True)
    stored(root, "stranger", 0, own(7), imported=True)
    return root


def test_with_enough_references_shared_data_explain_what_they_explain(many):
    found, models = looked(many)
    pairs = by_names(found, models)
    assert set(pairs["base", "stranger"]["verdicts"]) <= {"convergent", "undetermined"}
    assert pairs["base", "stranger"]["verdicts"]["convergent"] > 30
    listed = Counter(pair["verdict"] for pair in found["listed"])
    assert set(listed) == {"convergent"}
    assert {pair["strength"] for pair in found["listed"]} == {"conformal"}
    assert all("shared data explains it" in pair["statement"] for pair in found["listed"])
    assert [row["test"] for row in found["listed"][0]["evidence"]][-3:] == ["B1", "B1", "B2"]
    # The copy's parent alone stands out; over so many pairs that does not suffice, and it is said to be open.
    assert (0, 42) not in [(pair["a"], pair["b"]) for pair in found["listed"]]
    assert pairs["base", "copy"]["strongest_runs"] == [0, 42]
    assert pairs["base", "copy"]["strongest"]["p"] == pytest.approx(1 / 42)
    assert pairs["base", "copy"]["answers"]["references"] == 41


def test_what_answers_alone_show_is_never_called_derived(many, monkeypatch):
    monkeypatch.setattr(behaviour, "adjusted", list)  # as if the pair had been named beforehand
    found, models = looked(many)
    kin = [(pair["a"], pair["b"]) for pair in found["listed"] if pair["verdict"] == "behaviourally derived"]
    assert (0, 42) in kin
    assert not {"derived", "copy", "common ancestor"} & {pair["verdict"] for pair in found["listed"]}
    pair = by_names(found, models)["base", "copy"]
    assert pair["verdicts"]["behaviourally derived"] >= 1
    assert (pair["strongest"]["test"], pair["strongest_runs"]) == ("B2", [0, 42])
    assert found["tree"] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_report_is_written_verified_and_named_without_harm(tmp_path, language, capsys, monkeypatch):
    root = few(tmp_path / "runs", "<script>alert(1)</script>|**x**; [y](http://z)")
    document = analyse([root], QUICK, ["python", "-m", "zoo.report"])
    reporting.write(document, tmp_path / "written", language)
    text = (tmp_path / "written" / "report.md").read_text(encoding="utf-8")
    page = (tmp_path / "written" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in text + page
    assert "B2" in text
    assert report.command(["verify", str(tmp_path / "written")]) == 0
    told = json.loads((tmp_path / "written" / "report.json").read_text(encoding="utf-8"))
    told["lineage"]["pairs"][0]["answers"]["repeated"]["value"] += 0.01
    (tmp_path / "written" / "report.json").write_text(json.dumps(told), encoding="utf-8")
    assert report.command(["verify", str(tmp_path / "written")]) == 1
    assert "lineage.pairs[0].answers.repeated.value" in capsys.readouterr().err


def test_a_report_of_before_answers_were_compared_verifies(small, tmp_path, capsys):
    document = analyse([small], Options(draws=20, permutations=5, answers=False), [])
    assert "answers" not in json.dumps(document["lineage"])
    reporting.write(document, tmp_path / "old")
    assert report.command(["verify", str(tmp_path / "old")]) == 0
    assert "every number is the same" in capsys.readouterr().out


def test_of_many_runs_without_weights_the_first_seeds_are_compared(small, monkeypatch):
    monkeypatch.setattr(analysis, "MOST_RUNS", 3)
    found, models = looked(small)
    assert found["answers"]["compared"] == 6 * 5 // 2  # three with weights, three without
    assert by_names(found, models)["base", "lost"]["answers"]["compared"] == 2 * 2
    assert found["run_pairs"] == 120
