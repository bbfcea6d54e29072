"""Metrics against scikit-learn and against definitions written out, and what the intervals are worth."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from zoo import shares
from zoo.data import Split
from zoo.engine import metrics
from zoo.engine.metrics import Bootstrap, Measured, evaluate, score, softmax, tiles
from zoo.errors import PluginError
from zoo.tasks import Sentiment

NONE = Bootstrap(draws=0)


def answers(examples: int, classes: int, seed: int = 0, strength: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, examples)
    logits = random.normal(size=(examples, classes))
    logits[np.arange(examples), labels] += strength
    return labels, softmax(logits)


def names(classes: int) -> list[str]:
    return [f"c{index}" for index in range(classes)]


def guo(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
    """Guo et al. 2017, equation 3, written as it stands: bins ((m−1)/15, m/15]."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for m in range(1, 16):
        inside = [i for i in range(len(labels)) if (m - 1) / 15 < confidence[i] <= m / 15]
        if inside and weights[inside].sum():
            weight = weights[inside]
            gap = (weight * correct[inside]).sum() / weight.sum() - (weight * confidence[inside]).sum() / weight.sum()
            error += weight.sum() / weights.sum() * abs(gap)
    return error


def reference(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """scikit-learn, with the conventions of the docstring."""
    size = probabilities.shape[1]
    predictions = probabilities.argmax(axis=1)
    common = {"sample_weight": weights, "zero_division": np.nan}
    every = {"labels": range(size), "average": None, **common}
    told = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predictions, sample_weight=weights),
        "macro_f1": sklearn_metrics.f1_score(labels, predictions, labels=range(size), average="macro", **common),
        "log_loss": sklearn_metrics.log_loss(labels, probabilities, sample_weight=weights, labels=range(size)),
        "ece": guo(labels, probabilities, weights),
    }
    for kind in ("precision", "recall", "f1"):
        values = getattr(sklearn_metrics, f"{kind}_score")(labels, predictions, **every)
        told |= {f"{kind}/c{index}": value for index, value in enumerate(values)}
    return told


@pytest.mark.parametrize(("examples", "classes"), [(1, 2), (7, 2), (50, 3), (400, 10), (60, 40)])
def test_values_equal_scikit_learn(examples, classes):
    labels, probabilities = answers(examples, classes)
    got = evaluate(labels, probabilities, names(classes), bootstrap=NONE)
    wanted = reference(labels, probabilities, np.ones(examples))
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        if math.isnan(value):
            assert got[name]["value"] is None
            assert got[name]["reason"]
        else:
            assert got[name]["value"] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("examples", "classes"), [(40, 2), (60, 3), (30, 12)])
def test_draws_equal_scikit_learn_with_sample_weights(examples, classes):
    labels, probabilities = answers(examples, classes)
    measured = Measured(labels, probabilities, tuple(names(classes)), {})
    (weights,) = tiles(examples, Bootstrap(draws=12, seed=3))
    got = measured.metrics(weights)
    for row, weight in enumerate(weights):
        for name, value in reference(labels, probabilities, weight).items():
            assert got[name][row] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 10**6))
def test_properties(examples, classes, seed):
    labels, probabilities = answers(examples, classes, seed)
    got = evaluate(labels, probabilities, names(classes), bootstrap=Bootstrap(draws=20))
    for name, entry in got.items():
        if entry["value"] is not None:
            assert entry["value"] >= 0
            assert name == "log_loss" or entry["value"] <= 1
            assert entry["low"] is None or entry["low"] <= entry["high"]
    order = np.random.default_rng(seed).permutation(examples)
    again = evaluate(labels[order], probabilities[order], names(classes), bootstrap=NONE)
    for name, entry in got.items():
        assert again[name]["value"] == pytest.approx(entry["value"], abs=1e-12)


def test_confidence_on_the_edge_of_a_bin_belongs_to_the_bin_below():
    edges = np.arange(8, 16) / 15
    probabilities = np.column_stack([edges, 1 - edges])
    labels = np.zeros(8, np.int64)
    for count in range(1, 9):
        got = evaluate(labels[:count], probabilities[:count], names(2), bootstrap=NONE)["ece"]["value"]
        assert got == pytest.approx(1 - edges[:count].mean(), abs=1e-12)
    together = evaluate(np.array([0, 1]), np.array([[0.6, 0.4], [0.55, 0.45]]), names(2), bootstrap=NONE)
    assert together["ece"]["value"] == pytest.approx(abs(0.5 - 0.575), abs=1e-12)  # both in (8/15, 9/15]


def test_log_loss_is_clipped_and_finite():
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    got = evaluate(np.array([0, 0]), sure, names(2), bootstrap=NONE)["log_loss"]["value"]
    assert got == pytest.approx(-math.log(np.finfo(float).eps) / 2, abs=1e-12)
    assert got == pytest.approx(sklearn_metrics.log_loss([0, 0], sure, labels=[0, 1]), abs=1e-12)


def test_what_is_undefined_says_so():
    probabilities = np.tile([0.7, 0.2, 0.1], (5, 1))
    got = evaluate(np.array([0, 0, 1, 1, 0]), probabilities, names(3))
    assert got["precision/c1"] == {
        "value": None, "low": None, "high": None, "reason": "undefined on these examples", "n": 0,
    }  # fmt: skip
    assert got["recall/c1"]["value"] == 0
    assert got["recall/c1"]["n"] == 2
    assert (got["recall/c1"]["low"], got["recall/c1"]["high"]) == pytest.approx((0, 3.8415 / 5.8415), abs=1e-4)
    assert got["f1/c2"]["value"] is None
    assert got["precision/c0"]["n"] == 5
    assert got["macro_f1"]["value"] == pytest.approx((0.75 + 0) / 2)


# The edges: all right, all wrong, one class, few examples


KINDS = {
    "all right": lambda n: (np.arange(n) % 2, np.arange(n) % 2),
    "all wrong": lambda n: (np.arange(n) % 2, 1 - np.arange(n) % 2),
    "one class": lambda n: (np.zeros(n, np.int64), np.zeros(n, np.int64)),
    "one class, all wrong": lambda n: (np.zeros(n, np.int64), np.ones(n, np.int64)),
    "a constant": lambda n: (np.arange(n) % 2, np.zeros(n, np.int64)),
}


@pytest.mark.parametrize("sure", [1.0, 0.9])
@pytest.mark.parametrize("examples", [1, 2, 12, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_no_interval_is_empty_at_the_edge(kind, examples, sure):
    """Every metric is undefined, or has an interval with a width that holds it, or says why it has none."""
    labels, predictions = KINDS[kind](examples)
    probabilities = np.full((examples, 3), (1 - sure) / 2)
    probabilities[np.arange(examples), predictions] = sure
    extra = {"further": weighted_accuracy}
    for name, entry in evaluate(labels, probabilities, names(3), extra, Bootstrap(draws=60)).items():
        if entry["low"] is None:
            assert entry["high"] is None
            assert entry["reason"]
            assert entry["value"] is None or name in ("log_loss", "further")
        else:
            assert entry["low"] <= entry["value"] <= entry["high"]
            assert entry["high"] - entry["low"] > 1 / (examples + 4) / 4
            assert name == "log_loss" or 0 <= entry["low"] <= entry["high"] <= 1


@pytest.mark.parametrize("right", [True, False])
def test_twelve_of_twelve(right):
    """Wilson's interval of 12 of 12 is .757 to 1; statsmodels' proportion_confint(12, 12, method="wilson") agrees."""
    labels = np.arange(12) % 2
    probabilities = np.eye(2)[labels if right else 1 - labels]
    got = evaluate(labels, probabilities, names(2))
    wanted = (0.7575, 1.0) if right else (0.0, 0.2425)
    for name in ("accuracy", "macro_f1"):
        assert (got[name]["low"], got[name]["high"]) == pytest.approx(wanted, abs=1e-4), name
    assert (got["recall/c0"]["low"], got["recall/c0"]["high"]) == pytest.approx(
        (0.6097, 1) if right else (0, 0.3903), abs=1e-4
    )
    assert got["ece"]["high"] - got["ece"]["low"] == pytest.approx(0.2425, abs=1e-4)
    assert got["log_loss"]["low"] is None
    assert ("wrong one" if right else "right one") in got["log_loss"]["reason"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 40))
def test_shares_of_a_class_have_wilsons_interval(hits, missed, false):
    """statsmodels has the reference (test_shares.py); of F1 it is that of the share of hits in either set."""

    def confint(successes, trials):
        return [float(end) for end in shares.wilson(successes / trials, trials, shares.quantile(0.95))]

    labels = np.array([0] * (hits + missed) + [1] * false)
    predictions = np.array([0] * hits + [1] * missed + [0] * false)
    got = evaluate(labels, np.eye(2)[predictions], names(2), bootstrap=Bootstrap(draws=2))
    either = confint(hits, hits + missed + false)
    wanted = {
        "accuracy": confint(hits, hits + missed + false),
        "recall/c0": confint(hits, hits + missed),
        "f1/c0": tuple(2 * end / (1 + end) for end in either),
    }
    if hits + false:
        wanted["precision/c0"] = confint(hits, hits + false)
    for name, ends in wanted.items():
        assert (got[name]["low"], got[name]["high"]) == pytest.approx(ends, abs=1e-9), name


def test_macro_f1_covers_the_truth_near_the_edge():
    """400 samples of 40 examples, of which 2 are wrong on average: the percentile interval holds it in 86 %."""
    labels = np.arange(40) % 2
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        wrong = random.random(40) < 0.05
        got = evaluate(labels, np.eye(2)[np.where(wrong, 1 - labels, labels)], names(2), bootstrap=Bootstrap(draws=100))
        held += got["macro_f1"]["low"] <= 0.95 <= got["macro_f1"]["high"]
    assert 0.91 <= held / 400 <= 0.995


# The bootstrap


def test_draws_are_resamples_and_the_same_for_every_model():
    drawn = np.concatenate(list(tiles(50, Bootstrap(draws=30, seed=1))))
    assert drawn.shape == (30, 50)
    assert (drawn.sum(axis=1) == 50).all()
    np.testing.assert_array_equal(drawn, np.concatenate(list(tiles(50, Bootstrap(draws=30, seed=1)))))
    assert (drawn != np.concatenate(list(tiles(50, Bootstrap(draws=30, seed=2))))).any()


def test_the_size_of_a_tile_changes_nothing(monkeypatch):
    labels, probabilities = answers(60, 3)
    whole = evaluate(labels, probabilities, names(3))
    monkeypatch.setattr(metrics, "_TILE", 7 * 60 + 1)
    tiled = evaluate(labels, probabilities, names(3))
    for name, entry in whole.items():
        for key in ("value", "low", "high"):
            assert tiled[name][key] == pytest.approx(entry[key], abs=1e-12)


def test_a_further_metric_has_the_percentile_interval_of_resampled_examples():
    labels, probabilities = answers(80, 3)
    plan = Bootstrap(draws=200, seed=5, confidence=0.9)
    got = evaluate(labels, probabilities, names(3), {"mine": weighted_accuracy}, plan)
    (weights,) = tiles(80, plan)
    scores = []
    for row in weights:
        chosen = np.repeat(np.arange(80), row.astype(int))
        scores.append(sklearn_metrics.accuracy_score(labels[chosen], probabilities[chosen].argmax(axis=1)))
    low, high = np.quantile(scores, [0.05, 0.95])
    assert (got["mine"]["low"], got["mine"]["high"]) == pytest.approx((low, high), abs=1e-12)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """300 samples of 200 examples each; with a true coverage of 93 to 95 % the chance to fall outside is under 1e-4."""
    held = {"accuracy": 0, "macro_f1": 0, "log_loss": 0}
    truth_labels, truth = answers(200_000, 3, seed=99)
    whole = evaluate(truth_labels, truth, names(3), bootstrap=NONE)
    for seed in range(300):
        labels, probabilities = answers(200, 3, seed)
        got = evaluate(labels, probabilities, names(3), bootstrap=Bootstrap(draws=300))
        for name in held:
            held[name] += got[name]["low"] <= whole[name]["value"] <= got[name]["high"]
    for name, count in held.items():
        assert 0.88 <= count / 300 <= 0.985, name


def test_the_interval_of_the_calibration_error_is_reflected():
    """An over-confident model: the percentile interval holds its true error in about half of such samples."""
    random = np.random.default_rng(0)

    def sample(examples):
        logit = 2 * random.normal(size=examples)
        labels = (random.random(examples) < 1 / (1 + np.exp(-logit))).astype(np.int64)
        return labels, softmax(np.column_stack([np.zeros(examples), 1.5 * logit]))

    truth = evaluate(*sample(500_000), names(2), bootstrap=NONE)["ece"]["value"]
    entries = [evaluate(*sample(200), names(2), bootstrap=Bootstrap(draws=300))["ece"] for _ in range(150)]
    assert all(0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1 for entry in entries)
    assert np.mean([entry["low"] <= truth <= entry["high"] for entry in entries]) > 0.85


def test_an_error_of_nothing_on_these_examples_is_not_certain():
    """Always 0.5 and right half of the time: the calibration error is 0 here, and need not be elsewhere."""
    got = evaluate(np.arange(400) % 2, np.full((400, 2), 0.5), names(2))["ece"]
    assert (got["value"], got["low"]) == (0, 0)
    assert 0.02 < got["high"] < 0.1


def test_25000_examples_take_little_time_and_memory():
    labels, probabilities = answers(25_000, 10)
    start = time.process_time()
    got = evaluate(labels, probabilities, names(10))
    assert time.process_time() - start < 5
    assert got["accuracy"]["n"] == 25_000
    tracemalloc.start()
    evaluate(labels, probabilities, names(10), bootstrap=Bootstrap(draws=120))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


# Further metrics


def weighted_accuracy(labels, probabilities, weights):
    return np.average(probabilities.argmax(axis=1) == labels, weights=weights)


def test_a_further_metric_gets_the_same_draws():
    labels, probabilities = answers(40, 2)
    got = evaluate(labels, probabilities, names(2), {"mine": weighted_accuracy}, Bootstrap(draws=50))
    for key in ("value", "n"):
        assert got["mine"][key] == pytest.approx(got["accuracy"][key], abs=1e-12)
    measured = Measured(labels, probabilities, tuple(names(2)), {"mine": weighted_accuracy})
    (weights,) = tiles(40, Bootstrap(draws=50))
    drawn = measured.metrics(weights)
    np.testing.assert_allclose(drawn["mine"], drawn["accuracy"], atol=1e-12)


def test_a_further_metric_that_is_not_defined():
    labels, probabilities = answers(40, 2)
    got = evaluate(labels, probabilities, names(2), {"mine": lambda *_: math.nan}, Bootstrap(draws=5))
    assert got["mine"] == {"value": None, "low": None, "high": None, "reason": "undefined on these examples", "n": 40}


def test_a_further_metric_that_raises_is_named():
    def broken(labels, probabilities, weights):
        raise IndexError("out of range")

    with pytest.raises(PluginError, match="metric 'mine' raised IndexError: out of range"):
        evaluate(*answers(5, 2), names(2), {"mine": broken})


def test_a_further_metric_with_a_name_that_is_taken():
    with pytest.raises(PluginError, match="has a metric 'accuracy'"):
        evaluate(*answers(5, 2), names(2), {"accuracy": weighted_accuracy})


# What does not fit


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.full((3, 3), 1 / 3), r"gave probabilities \(3, 3\) where \(examples, classes\) is \(3, 2\)"),
        (np.full((3, 2), 1.0), "of 3 of 3 examples are not distributions"),
        (np.array([[0.5, 0.5], [math.nan, 0.5], [0.5, 0.5]]), "(?s)of 1 of 3 examples.*first is example 1"),
        (np.array([[0.5, 0.5], [0.5, 0.5], [-0.5, 1.5]]), "(?s)first is example 2.*-0.5"),
    ],
)
def test_probabilities_that_are_none(probabilities, message):
    with pytest.raises(PluginError, match=message):
        evaluate(np.array([0, 1, 0]), probabilities, names(2))


@pytest.mark.parametrize("labels", [np.array([0, 2]), np.array([-1, 0]), np.array([0.0, 1.0]), np.zeros((0,), int)])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(ValueError, match="labels"):
        evaluate(labels, np.full((len(labels), 2), 0.5), names(2))


def test_float32_probabilities_are_fine():
    labels, probabilities = answers(30, 4)
    evaluate(labels, probabilities.astype(np.float32), names(4), bootstrap=NONE)


def test_softmax():
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0], [-math.inf, 0.0]])), [[0.5, 0.5], [0, 1]])
    assert softmax(np.zeros((2, 3), np.float32)).dtype == np.float64


def test_score_adds_the_metrics_of_the_task():
    class Mine(Sentiment):
        def metrics(self):
            return {"mine": weighted_accuracy}

    split = Split("test", "text", ("bad", "good"), ["a", "b"], np.array([0, 1]), ("1", "2"), "f")
    got = score(Mine(), split, np.array([[2.0, 0.0], [1.0, 0.0]], np.float32), Bootstrap(draws=10))
    assert got["mine"]["value"] == got["accuracy"]["value"] == 0.5
    assert got["recall/good"]["value"] == 0


def test_logits_of_a_diverged_model_are_refused():
    split = Split("test", "text", ("bad", "good"), ["a"], np.array([0]), ("1",), "f")
    with pytest.raises(PluginError, match="not distributions"):
        score(Sentiment(), split, np.full((1, 2), -math.inf))
