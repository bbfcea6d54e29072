"""Lineage from stored answers: real run folders without weights, the command, and every reason to abstain."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs_of_runs import against_references

from zoo.errors import DamagedRun
from zoo.lineage import answers
from zoo.lineage.answers import Behaviour, Calibration, compare_all, compare_answers, read_answers
from zoo.lineage.behaviour import judge_answers
from zoo.lineage.blackbox import Residual
from zoo.lineage.command import command
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace
from zoo.store.reading import read
from zoo.store.tables import PredictionTable

CLASSES = ("cat", "dog", "owl")
EXAMPLES = 120
RANDOM = np.random.default_rng(11)
LABELS = RANDOM.integers(0, 3, EXAMPLES)
SHARED = 2 * np.eye(3)[LABELS] + RANDOM.normal(size=(EXAMPLES, 3))
"""What every training on the data learns alike."""


def own(seed: int, shared: np.ndarray = SHARED) -> np.ndarray:
    """Answers of one training."""
    return shared + np.random.default_rng(seed).normal(size=shared.shape)


def copied(logits: np.ndarray) -> np.ndarray:
    """Answers of what learned from answers."""
    return logits + 0.3 * np.random.default_rng(99).normal(size=logits.shape)


def stored(root: Path, key: str, logits: np.ndarray, **changed: Any) -> Path:
    """A run folder with answers and without weights. changed: width of the hidden layer, data, parent, ids, classes,
    labels."""
    classes = changed.get("classes", CLASSES)
    labels = changed.get("labels", LABELS[: len(logits)])
    config = {"model": {"name": "net", "width": changed.get("width", 8)}, "trainer": {"epochs": 3}}
    record: dict[str, Any] = {
        "config": config, "seed": 0, "label": "net",
        "data": {"classes": list(classes), "splits": {"train": {"fingerprint": changed.get("data", "feed")}}},
    }  # fmt: skip
    if "parent" in changed:
        record["parent"] = {"key": changed["parent"]}
        config["disguise"] = {"how": "distil", "seed": 1, "parent": changed["parent"]}
    predictions = np.nan_to_num(logits).argmax(1)
    ids = changed.get("ids", [f"{number:04}" for number in range(len(logits))])
    table = PredictionTable(np.full(len(logits), "test"), np.array(ids), labels, predictions, logits)
    with Draft.open(root, RunPlace("t", "d", "net", key), record) as draft:
        draft.write_predictions(table)
        return draft.publish(record, "complete")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """Two trainings, a copy of the first, and 79 references, of one recipe and data."""
    root = tmp_path_factory.mktemp("answers")
    stored(root / "asked", "a", own(1))
    stored(root / "asked", "b", own(2))
    stored(root / "asked", "c", copied(own(1)), parent="a")
    for seed in range(100, 179):
        stored(root / "references", f"r{seed}", own(seed))
    return root


def asked(root: Path, *keys: str) -> list[str]:
    return [str(root / "asked/t/d/net" / key) for key in keys]


def documented(root: Path, tmp_path: Path, *words: str) -> list[dict[str, Any]]:
    out = tmp_path / "out.json"
    assert command([*words, f"out={out}"]) == 0
    pairs: list[dict[str, Any]] = json.loads(out.read_text())["pairs"]
    return pairs


def test_the_command_tells_a_copy_from_a_replica_by_answers_alone(zoo, tmp_path, capsys):
    words = (f"references={zoo}/references",)
    (kin,), (strangers,) = (documented(zoo, tmp_path, *asked(zoo, "a", other), *words) for other in "cb")
    assert (kin["verdict"], kin["strength"]) == ("behaviourally derived", "conformal")
    assert "more alike than 79 same-data references of net/a" in kin["statement"]
    assert (strangers["verdict"], strangers["strength"]) == ("convergent", "conformal")
    assert "shared data explains it" in strangers["statement"]
    baseline, residual = kin["evidence"][3:]
    assert (baseline["test"], residual["test"], residual["kind"]) == ("B1", "B2", "conformal")
    (calibration,) = residual["calibrations"]  # the copy has another recipe: only the first one's kind is referred to
    assert (calibration["references_of"], calibration["references"]) == ("net/a", 79)
    assert residual["p"] == residual["p_adjusted"] == pytest.approx(1 / 80)
    assert residual["null_hypothesis"] == kin["null_hypothesis"]
    rate = baseline["first_repeated_by_second"]
    wrong = own(1).argmax(1) != LABELS
    assert rate["n"] == wrong.sum()
    assert rate["value"] == (copied(own(1)).argmax(1)[wrong] == own(1).argmax(1)[wrong]).mean()
    # Both of the two trainings have references: the larger p-value counts.
    two = strangers["evidence"][4]
    assert len(two["calibrations"]) == 2
    assert two["p"] == max(one["p"] for one in two["calibrations"])
    printed = capsys.readouterr().out
    assert "behaviourally derived" in printed
    assert "errors repeated" in printed


def test_all_pairs_share_one_error_rate(zoo, tmp_path):
    pairs = documented(zoo, tmp_path, *asked(zoo, "a", "b", "c"), f"references={zoo}/references")
    kin = next(pair for pair in pairs if (pair["first"], pair["second"]) == ("net/a", "net/c"))
    assert kin["evidence"][4]["p_adjusted"] == pytest.approx(1 / 80 * 3 * (1 + 1 / 2 + 1 / 3))  # BY, the least of three
    assert kin["verdict"] == "undetermined"
    assert "over 3 pairs; 109 are needed" in kin["statement"]
    assert [pair["verdict"] for pair in pairs if pair is not kin] == ["convergent", "convergent"]


def test_the_order_of_the_two_does_not_matter(zoo, tmp_path):
    words = (f"references={zoo}/references",)
    (one,) = documented(zoo, tmp_path, *asked(zoo, "a", "c"), *words)
    (two,) = documented(zoo, tmp_path, *asked(zoo, "c", "a"), *words)
    assert one["verdict"] == two["verdict"]
    assert one["statement"] == two["statement"]
    assert one["evidence"][4] == two["evidence"][4]


def test_without_references_the_baseline_is_all_that_is_said(zoo, tmp_path):
    (pair,) = documented(zoo, tmp_path, *asked(zoo, "a", "c"), "answers=true")
    assert (pair["verdict"], pair["strength"]) == ("undetermined", "heuristic")
    assert "no references were given" in pair["statement"]
    assert pair["evidence"][3]["first_repeated_by_second"]["n"] > 0
    assert pair["evidence"][4]["p"] is None


def test_runs_without_weights_need_answers_to_be_asked_for(zoo, capsys):
    assert command(asked(zoo, "a", "b")) == 2
    assert "keeps no weights" in capsys.readouterr().err
    assert command([*asked(zoo, "a", "b"), "answers=yes"]) == 2
    assert "true or false" in capsys.readouterr().err
    assert command([*asked(zoo, "a", "b"), "references=nowhere/*"]) == 2
    assert "no run with answers" in capsys.readouterr().err


def test_a_file_of_weights_has_no_answers(zoo, tmp_path):
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    shapes = {"one.weight": (8, 6), "two.weight": (3, 8)}
    save_file({name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
              tmp_path / "w.safetensors")  # fmt: skip
    words = (*asked(zoo, "a"), str(tmp_path / "w.safetensors"), f"references={zoo}/references")
    (pair,) = documented(zoo, tmp_path, *words)
    assert pair["verdict"] == "undetermined"
    assert "it is no run" in pair["statement"]


def test_a_damaged_run_ends_with_its_name(tmp_path, capsys):
    folders = [stored(tmp_path, key, own(seed)) for seed, key in enumerate("ab")]
    file = folders[0] / "predictions.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    assert command([*map(str, folders), "answers=true"]) == 1
    assert "predictions.parquet" in capsys.readouterr().err
    strange = stored(tmp_path, "c", own(3), classes=("cat", "dog"), labels=LABELS % 2)
    with pytest.raises(DamagedRun, match="classes"):
        read_answers(strange)


# Abstention


Made = Callable[..., answers.Answers]


@pytest.fixture(name="made")
def _made(tmp_path) -> Made:
    """Stores answers and reads them again."""
    count = iter(range(1000))

    def make(logits: np.ndarray, **changed: Any) -> answers.Answers:
        read = read_answers(stored(tmp_path, f"k{next(count)}", logits, **changed))
        assert not isinstance(read, str), read
        return read

    return make


def test_references_of_other_data_calibrate_nothing(made):
    first, second = made(own(1)), made(copied(own(1)), parent="a")
    elsewhere = [made(own(seed), data="beef") for seed in range(4, 12)]
    found = compare_answers(first, second, elsewhere)
    assert found.calibrations == ()
    assert "trained on other data" in found.reason
    assert found.repeated[0].n > 0
    wider = [made(own(seed), width=9) for seed in range(4, 12)]
    assert "model.width" in compare_answers(first, second, wider).reason
    unknown = [made(own(seed), data="") for seed in range(4, 12)]
    assert "unknown on what data" in compare_answers(first, second, unknown).reason
    # Among others, those of the right kind are taken, each once, and neither of the two.
    mixed = [*elsewhere, first, *(made(own(seed)) for seed in (20, 21, 21, 22)), made(copied(own(1)))]
    (calibration,) = compare_answers(first, second, mixed).calibrations
    assert calibration.residual.references == 3
    elsewhere_kept = replace(first, path=Path("moved"), digest="of more answers")
    assert "themselves" in compare_answers(first, second, [elsewhere_kept, second]).reason
    assert "themselves" in compare_answers(first, second, [first, second]).reason


def test_what_cannot_be_told_from_answers_is_said(made):
    first = made(own(1))
    references = [made(own(seed)) for seed in range(4, 8)]

    def reason(other: answers.Answers | str, of: answers.Answers = first) -> str:
        found = compare_answers(of, other, references)
        assert found.calibrations == ()
        verdict = judge_answers(found, 1.0)
        assert verdict.name == "undetermined"
        assert found.reason in verdict.statement
        return found.reason

    assert "no probabilities" in reason(made(np.full((EXAMPLES, 3), np.nan)))
    assert "whatever it is asked" in reason(made(np.tile([1.0, 2, 3], (EXAMPLES, 1))))
    assert "no example in common" in reason(made(own(2), ids=[f"x{number}" for number in range(EXAMPLES)]))
    assert "no example in common" in reason(made(own(2), labels=(LABELS + 1) % 3))
    assert "3 examples" in reason(made(own(2)[:3]))
    assert "different classes" in reason(made(own(2), classes=("cat", "dog", "eel")))
    assert "it is no run" in reason(read_or_reason())
    assert "2 are the least" in compare_answers(first, made(own(2), parent="x"), references[:1]).reason


def read_or_reason() -> str:
    read = read_answers(Path(__file__))
    assert isinstance(read, str)
    return read


def test_a_perfect_model_has_no_errors_to_repeat_and_can_still_be_compared(made):
    perfect = made(own(1) + 50 * np.eye(3)[LABELS])
    found = compare_answers(perfect, made(own(2), parent="x"), [made(own(seed)) for seed in range(4, 8)])
    assert found.repeated[0].value is None
    assert "no error" in found.repeated[0].reason
    assert len(found.calibrations) == 1


def test_examples_and_classes_are_joined_by_name(made):
    """A run that stores them in another order, with more examples, answers the same."""
    first, second = made(own(1)), made(copied(own(1)), parent="a")
    references = [made(own(seed)) for seed in range(4, 24)]
    order, classes = np.random.default_rng(0).permutation(EXAMPLES), [2, 0, 1]
    moved = made(
        copied(own(1))[order][:, classes],
        ids=[f"{number:04}" for number in order],
        classes=[CLASSES[place] for place in classes],
        labels=np.argsort(classes)[LABELS[order]],
        parent="a",
    )
    one, two = (compare_answers(first, other, references) for other in (second, moved))
    assert one.repeated == two.repeated
    assert two.decisive is not None
    assert one.decisive is not None
    assert two.decisive.residual.score == pytest.approx(one.decisive.residual.score)
    assert two.decisive.residual.p == one.decisive.residual.p
    part = answers.align([first, moved], most=60)
    assert not isinstance(part, str)
    assert part.logits.shape == (2, 10, 3)
    np.testing.assert_array_equal(part.labels, LABELS[:10])


def test_all_pairs_at_once_are_told_what_each_is_told_alone(made, tmp_path):
    """Runs of two recipes, a shorter one, one in another order, one of other classes, one that knows no probabilities
    and one that cannot be read."""
    order = np.random.default_rng(1).permutation(EXAMPLES)
    models: list[answers.Answers | str] = [
        *(made(own(seed)) for seed in range(4)),
        *(made(own(seed), width=9) for seed in range(4, 8)),
        made(own(8)[:90]),
        made(own(9)[order], ids=[f"{number:04}" for number in order], labels=LABELS[order]),
        made(own(10), classes=("cat", "dog", "eel")),
        made(np.full((EXAMPLES, 3), np.nan)),
        "it is gone",
    ]
    references = [one for one in models if isinstance(one, answers.Answers)]
    found = compare_all(models, references)
    assert len(found) == 13 * 12 // 2
    for (first, second), told in zip(combinations(models, 2), found, strict=True):
        alone = compare_answers(first, second, references)
        assert (told.repeated, told.n, told.reason) == (alone.repeated, alone.n, alone.reason)
        assert len(told.calibrations) == len(alone.calibrations)
        for one, two in zip(told.calibrations, alone.calibrations, strict=True):
            assert (one.of, one.residual.p, one.residual.n) == (two.of, two.residual.p, two.residual.n)
            assert one.residual.score == pytest.approx(two.residual.score)
    assert sum(bool(told.calibrations) for told in found) > 20
    # And what the formula says of the arrays, of two of the second recipe with its two others as references.
    joined = answers.align(references[4:8])
    assert isinstance(joined, answers.Aligned)
    formula = against_references(joined.logits[1], joined.logits[0], joined.logits[2:])
    residual = found[list(combinations(range(13), 2)).index((4, 5))].calibrations[0].residual
    assert (residual.p, residual.references) == (formula.p, formula.references)
    assert residual.score == pytest.approx(formula.score)
    assert len({told.n for told in found}) == 3


def test_many_at_once_are_taken_in_parts_when_they_do_not_fit_together(made, monkeypatch):
    models = [made(own(seed)) for seed in range(5)] + [made(own(seed), width=9) for seed in range(5, 9)]
    whole = compare_all(models, models)
    monkeypatch.setattr(answers, "MOST_NUMBERS", 6 * 3 * EXAMPLES)  # the pair and four references
    parts = compare_all(models, models)
    for one, two in zip(whole, parts, strict=True):
        assert [told.residual.p for told in one.calibrations] == [told.residual.p for told in two.calibrations]


def test_runs_that_answer_the_same_are_no_references(made):
    models = [made(own(1)) for _ in range(4)] + [made(own(2), width=9)]
    reason = compare_answers(models[0], models[4], models).reason
    assert reason.startswith("other runs of net/k0 answer exactly as it does; no reference of")
    elsewhere = made(own(3), data="")
    assert "unknown on what data net/k5 was trained" in compare_answers(models[0], elsewhere, models).reason


def test_equal_rows_are_held_once(tmp_path):
    kept: dict[Any, Any] = {}
    folders = [stored(tmp_path, f"k{seed}", own(seed)[: 120 - seed // 2]) for seed in range(3)]
    read_ones = [answers.answers_of(read(folder), kept=kept) for folder in folders]
    one, two, shorter = (found.rows for found in read_ones if isinstance(found, answers.Answers))
    assert one is two
    assert shorter is not one


TEST = Residual(score=0.8, p=1 / 20, highest=0.2, references=19, n=100)


def told(residual: Residual, p: float, tests: int = 1) -> tuple[str, str, str]:
    verdict = judge_answers(Behaviour(calibrations=(Calibration("A", residual),), n=100), p, tests)
    return verdict.name, verdict.strength, verdict.statement


def test_verdicts_need_references_enough_for_their_level():
    assert told(TEST, 0.05)[:2] == ("behaviourally derived", "conformal")
    name, strength, why = told(replace(TEST, p=1 / 19, references=18), 1 / 19)
    assert (name, strength) == ("undetermined", "heuristic")
    assert "18 references are too few" in why
    assert "19 are needed" in why
    name, _, why = told(TEST, 0.15, tests=2)
    assert name == "undetermined"
    assert "over 2 pairs" in why
    assert "59 are needed" in why  # 2 (1 + 1/2) = 3 times as small: 1 / 60
    name, _, why = told(replace(TEST, p=2 / 100, references=99), 0.06, tests=2)
    assert name == "undetermined"
    assert "fewer pairs at once" in why
    assert told(replace(TEST, p=2 / 20), 0.1)[:2] == ("convergent", "conformal")
    # Of three none could have told: neither the best rank nor the worst is news.
    for p in (1 / 4, 2 / 4, 1.0):
        name, strength, why = told(replace(TEST, p=p, references=3), p)
        assert (name, strength) == ("undetermined", "heuristic")
        assert "3 references are too few to reach p ≤ 0.05; 19 are needed" in why
    assert "no more alike than any of 19" in told(replace(TEST, p=1.0), 1.0)[2]
