"""Measures of behaviour: against independent implementations and closed forms, as draws, and where undefined."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_of_runs import between_runs
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef

from zoo.homogeneity import behaviour as b
from zoo.homogeneity import formulas
from zoo.homogeneity.bootstrap import Bootstrap, replica_weights, tiles
from zoo.homogeneity.formulas import FORMULAS
from zoo.homogeneity.results import NO_REPLICAS, NO_SPREAD
from zoo.homogeneity.simulate import SimulatedPanel, Truth, simulate

EXACT = Bootstrap(draws=0)
PAIRS = [(0, 1), (0, 5), (2, 7)]


@pytest.fixture(scope="module")
def panel() -> SimulatedPanel:
    truth = Truth(models=4, replicas=2, examples=400, classes=5, accuracy=(0.5, 0.6, 0.7, 0.9))
    return simulate(truth, 0, probabilities=True)


@pytest.fixture(scope="module")
def runs(panel) -> dict[str, np.ndarray]:
    return between_runs(b.Answers.of(panel))


@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_against_scikit_learn_and_scipy(panel, runs, i, j):
    one, two = panel.predictions[i], panel.predictions[j]
    right, also = one == panel.labels, two == panel.labels
    assert runs["label_kappa"][i, j] == pytest.approx(cohen_kappa_score(one, two), abs=1e-12)
    assert runs["error_correlation"][i, j] == pytest.approx(matthews_corrcoef(right, also), abs=1e-12)
    assert runs["agreement"][i, j] == pytest.approx((one == two).mean(), abs=1e-12)
    assert runs["disagreement"][i, j] == pytest.approx((one != two).mean(), abs=1e-12)
    apart = jensenshannon(panel.probabilities[i], panel.probabilities[j], base=2, axis=1) ** 2
    assert runs["js_divergence"][i, j] == pytest.approx(apart.mean(), abs=1e-6)
    both = ~right & ~also
    assert runs["both_wrong_agreement"][i, j] == pytest.approx((one == two)[both].mean(), abs=1e-12)
    assert runs["double_fault"][i, j] == pytest.approx(both.mean(), abs=1e-12)


def test_kappa_maximum_of_the_textbook_case():
    """Accuracies .9 and .7: e = .66 and the most that correctness can agree is .8, so κ ≤ .14/.34."""
    labels = np.zeros(1000, np.int64)
    nested = np.ones((2, 1000), np.int64)
    nested[0, :900] = nested[1, :700] = 0  # whatever the second gets right the first does too: the maximum is met
    moments = b.moments(b.Answers(labels, nested, 3, np.arange(2)), EXACT)
    assert formulas.error_consistency_maximum(moments)[0, 1] == pytest.approx(0.14 / 0.34, abs=1e-12)
    assert formulas.error_consistency(moments)[0, 1] == pytest.approx(0.14 / 0.34, abs=1e-12)
    assert formulas.agreement_chance(moments)[0, 1] == pytest.approx(0.63 + 0.03 / 2, abs=1e-12)


def test_label_kappa_of_independent_models_grows_with_accuracy_and_error_consistency_does_not():
    """The values the methods' text warns of: .24, .48, .81 for accuracies .5, .7, .9 and 100 classes."""
    for accuracy, kappa in ((0.5, 0.24), (0.7, 0.48), (0.9, 0.81)):
        truth = Truth(models=2, replicas=1, examples=40_000, classes=100, accuracy=accuracy, difficulty=0.0)
        found = between_runs(b.Answers.of(simulate(truth, 1)))
        assert found["label_kappa"][0, 1] == pytest.approx(kappa, abs=0.02)
        assert abs(found["error_consistency"][0, 1]) < 0.02
        assert abs(found["capa_discrete"][0, 1]) < 0.02


def test_tiles_do_not_change_a_value(panel, runs, monkeypatch):
    monkeypatch.setattr(b, "_ELEMENTS", 300)
    monkeypatch.setattr(b, "_BLOCK", 3)
    tiled = between_runs(b.Answers.of(panel))
    for name, values in runs.items():
        np.testing.assert_allclose(tiled[name], values, atol=1e-12)
    plan = Bootstrap(draws=5)
    whole = b.compute(b.Answers.of(panel), plan)
    monkeypatch.undo()
    for name, draws in b.compute(b.Answers.of(panel), plan).draws.items():
        np.testing.assert_allclose(draws, whole.draws[name], atol=1e-5)


def test_single_precision_of_large_panels_is_close_enough(panel, runs, monkeypatch):
    monkeypatch.setattr(b, "_EXACT_WORK", 0)
    single = between_runs(b.Answers.of(panel))
    np.testing.assert_allclose(single["capa"], runs["capa"], atol=1e-6)
    np.testing.assert_array_equal(single["agreement"], runs["agreement"])


def test_a_draw_is_the_measure_of_the_resampled_table(panel):
    """Every draw, under its weights, equals what the formulas give when the rows are really repeated."""
    plan = Bootstrap(draws=3, seed=5)
    found = b.compute(b.Answers.of(panel), plan)
    (weights,) = tiles(len(panel.labels), plan)
    for draw in range(3):
        rows = np.repeat(np.arange(len(panel.labels)), weights[draw].astype(int))
        again = b.Answers(
            panel.labels[rows], panel.predictions[:, rows], 5, np.asarray(panel.runs), panel.probabilities[:, rows]
        )
        whole = b.compute(again, EXACT)
        for name, values in whole.value.items():
            expected = values[np.triu_indices(4)]
            np.testing.assert_allclose(found.draws[name][draw], expected, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(found.said[draw], whole.said_value, atol=1e-12)


def test_a_pair_of_models_is_the_mean_over_pairs_of_runs(panel, runs):
    found = b.pairs(panel, "error_consistency", EXACT)
    own = runs["error_consistency"]
    assert found.value[0, 2] == pytest.approx(own[0:2, 4:6].mean(), abs=1e-12)
    assert found.value[1, 1] == pytest.approx(own[2, 3], abs=1e-12)
    assert np.isnan(found.low).all()
    assert found.reasons == {}


def test_unequal_numbers_of_replicas():
    answers = b.Answers.of(simulate(Truth(models=3, replicas=3, examples=200), 2))
    kept = np.array([0, 1, 2, 3, 6, 7])  # three, one and two replicas
    found = b.compute(
        b.Answers(answers.labels, answers.predictions[kept], 4, np.array([0, 0, 0, 1, 2, 2])), Bootstrap(draws=20)
    )
    own = found.runs["agreement"]
    assert found.value["agreement"][0, 0] == pytest.approx(np.mean([own[0, 1], own[0, 2], own[1, 2]]))
    assert np.isnan(found.value["agreement"][1, 1])
    assert found.value["agreement"][0, 2] == pytest.approx(own[:3, 4:].mean())
    assert np.isnan(found.draws["agreement"][:, 3]).all()  # (1, 1) has no pair of replicas
    assert np.isfinite(np.delete(found.draws["agreement"], 3, axis=1)).all()


def test_replica_weights_have_the_unbiased_variance_of_a_mean():
    """Rao & Wu 1988: drawing S − 1 of S gives s²/S, and a single replica stays."""
    weights = replica_weights([0, 0, 0, 1, 2, 2], Bootstrap(draws=40_000))
    values = np.array([0.0, 1.0, 5.0, 9.0, 2.0, 4.0])
    means = weights[:, :3] @ values[:3]
    assert means.var() == pytest.approx(values[:3].var(ddof=1) / 3, rel=0.03)
    assert (weights[:, 4:] @ values[4:]).var() == pytest.approx(1.0, rel=0.03)  # s² = 2 of two replicas
    assert (weights[:, 3] == 1).all()


def test_seeds_that_differ_widen_the_interval_and_seeds_that_do_not_hardly_do():
    quiet = simulate(Truth(models=2, replicas=4, examples=3000), 3)
    loud = SimulatedPanel(**{**vars(quiet), "predictions": quiet.predictions.copy()})
    random = np.random.default_rng(0)
    for run, spoilt in zip((0, 1, 4, 5), (0.1, 0.3, 0.2, 0.4), strict=True):
        hit = random.random(3000) < spoilt
        loud.predictions[run, hit] = random.integers(0, 4, hit.sum())
    plan = Bootstrap(draws=400)
    for panel, least, most in ((quiet, 1.0, 1.5), (loud, 2.0, 40.0)):
        found = b.behaviour(panel, plan)
        alone = found.draws["agreement"][:, 1].std()
        assert least <= (found.draws["agreement"] + found.seeds["agreement"])[:, 1].std() / alone <= most


def perfect(panel: SimulatedPanel, run: int) -> SimulatedPanel:
    predictions = panel.predictions.copy()
    predictions[run] = panel.labels
    return SimulatedPanel(**{**vars(panel), "predictions": predictions, "probabilities": None})


def test_a_perfect_model_has_no_error_correlation_and_says_so():
    panel = perfect(simulate(Truth(models=3, replicas=1, examples=200), 0), 1)
    plan = Bootstrap(draws=50)
    phi = b.pairs(panel, "error_correlation", plan)
    assert np.isnan(phi.value[0, 1])
    assert "always right" in phi.reasons[0, 1]
    assert np.isnan(phi.low[0, 1])
    assert np.isfinite(phi.value[0, 2])
    assert (0, 2) not in phi.reasons
    assert phi.reasons[0, 0] == NO_REPLICAS
    q = b.pairs(panel, "q_statistic", plan)
    assert "0/0" in q.reasons[0, 1]
    kappa = b.pairs(panel, "error_consistency", plan)
    assert kappa.value[0, 1] == 0  # defined: as much agreement as chance
    wrong = b.pairs(panel, "both_wrong_agreement", plan)
    assert wrong.n[0, 1] == 0
    assert wrong.n[0, 2] == ((panel.predictions[[0, 2]] != panel.labels).all(axis=0)).sum()


def test_one_perfect_replica_leaves_the_others_to_count():
    panel = perfect(simulate(Truth(models=2, replicas=2, examples=50), 0), 1)
    phi = b.pairs(panel, "error_correlation", Bootstrap(draws=10))
    assert np.isfinite(phi.value[0, 1])
    assert phi.reasons[0, 1] == f"2 of 4 pairs of runs are undefined and do not count; {NO_SPREAD}"
    assert np.isnan(phi.low[0, 1])
    assert "always right" in phi.reasons[0, 0]


def test_two_classes_one_answer_and_few_examples():
    plan = Bootstrap(draws=20)
    two = simulate(Truth(models=2, replicas=2, examples=60, classes=2), 0)
    assert "two classes" in b.pairs(two, "both_wrong_agreement", plan).reasons[0, 1]
    one_answer = SimulatedPanel(**{**vars(two), "predictions": np.zeros_like(two.predictions)})
    kappa = b.pairs(one_answer, "label_kappa", plan)
    assert np.isnan(kappa.value).all()
    assert "one and the same class" in kappa.reasons[0, 1]
    assert b.pairs(one_answer, "agreement", plan).value[0, 1] == 1
    single = simulate(Truth(models=2, replicas=2, examples=1), 0)
    for name in FORMULAS:
        found = b.pairs(single, name, plan)
        assert np.isnan(found.value).all()
        assert set(found.reasons) == {(0, 0), (0, 1), (1, 1)}
    assert "there are 1" in b.pairs(single, "agreement", plan).reasons[0, 1]


def test_without_probabilities_their_measures_say_so():
    panel = simulate(Truth(models=2, examples=30), 0)
    assert "probabilities" in b.pairs(panel, "capa", EXACT).reasons[0, 1]


def test_uncalibrated_probabilities_are_said(panel):
    assert "not calibrated" in b.pairs(panel, "capa", EXACT).note
    assert b.pairs(panel, "agreement", EXACT).note == ""


def test_the_divergence_says_that_it_sampled(panel, monkeypatch):
    whole = b.pairs(panel, "js_divergence", EXACT)
    monkeypatch.setattr(b, "_DIVERGENCE_WORK", 200 * 5 * 8 * 9 / 2)
    plan = Bootstrap(draws=50, seed=1)
    found = b.pairs(panel, "js_divergence", plan)
    assert (found.n == 200).all()
    assert "random sample of 200 of 400" in found.note
    assert (abs(found.value - whole.value) < 0.05).all()
    assert ((found.low < found.value) & (found.value < found.high)).all()
    assert (b.pairs(panel, "capa", plan).n == 400).all()


def test_the_last_result_is_kept_and_belongs_to_its_panel(panel):
    plan = Bootstrap(draws=2)
    first = b.behaviour(panel, plan)
    assert b.behaviour(panel, plan) is first
    assert b.behaviour(panel, Bootstrap(draws=3)) is not first
    other = simulate(Truth(models=2, examples=30), 0)
    assert b.behaviour(other, plan).models == 2


def test_progress_ends_at_one(panel):
    seen: list[float] = []
    b.compute(b.Answers.of(panel), Bootstrap(draws=4, progress=seen.append))
    assert seen[-1] == 1
    assert all(0 < share <= 1 for share in seen)


@st.composite
def answer_tables(draw) -> b.Answers:
    runs, n, classes = draw(st.integers(2, 4)), draw(st.integers(4, 30)), draw(st.integers(2, 4))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    easy = draw(st.sampled_from([0.0, 0.5, 0.95, 1.0]))
    labels = random.integers(0, classes, n)
    said = np.where(random.random((runs, n)) < easy, labels, random.integers(0, classes, (runs, n)))
    scores = random.dirichlet(np.ones(classes), (runs, n)).astype(np.float32)
    return b.Answers(labels, said, classes, np.arange(runs), scores)


RANGES = {"agreement": (0, 1), "disagreement": (0, 1), "both_wrong_agreement": (0, 1), "double_fault": (0, 1),
          "js_divergence": (0, 1), "label_kappa": (-1, 1), "error_consistency": (-1, 1), "error_correlation": (-1, 1),
          "q_statistic": (-1, 1), "capa": (-np.inf, 1), "capa_discrete": (-np.inf, 1)}  # fmt: skip
SELF = {"agreement": 1, "label_kappa": 1, "error_consistency": 1, "error_correlation": 1, "capa_discrete": 1,
        "both_wrong_agreement": 1, "q_statistic": 1, "disagreement": 0, "js_divergence": 0}  # fmt: skip


@given(answer_tables(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_symmetry_range_self_likeness_and_order(answers, random):
    found = between_runs(answers)
    order = list(range(len(answers.labels)))
    random.shuffle(order)
    assert answers.probabilities is not None
    shuffled = between_runs(
        b.Answers(answers.labels[order], answers.predictions[:, order], answers.classes, answers.owner,
                  answers.probabilities[:, order])
    )  # fmt: skip
    assert found.keys() == RANGES.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, values.T, err_msg=name)
        np.testing.assert_allclose(values, shuffled[name], atol=1e-12, err_msg=name)
        low, high = RANGES[name]
        known = values[np.isfinite(values)]
        assert ((known >= low - 1e-9) & (known <= high + 1e-9)).all(), name
        own = np.diagonal(values)
        if name in SELF:
            assert np.allclose(own[np.isfinite(own)], SELF[name], atol=1e-12), name


@given(answer_tables())
@settings(max_examples=40, deadline=None)
def test_against_counting_by_hand(answers):
    """Q, φ and κ from the four cells, as the textbook writes them; undefined exactly where those divide by 0."""
    found = between_runs(answers)
    right = answers.predictions == answers.labels
    for i, j in itertools.combinations(range(len(right)), 2):
        n11, n00 = (right[i] & right[j]).sum(), (~right[i] & ~right[j]).sum()
        n10, n01 = (right[i] & ~right[j]).sum(), (~right[i] & right[j]).sum()
        bottom = int(n11 * n00 + n01 * n10)
        if bottom:
            assert found["q_statistic"][i, j] == pytest.approx((n11 * n00 - n01 * n10) / bottom)
        else:
            assert np.isnan(found["q_statistic"][i, j])
        spread = int((n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00))
        if spread:
            assert found["error_correlation"][i, j] == pytest.approx((n11 * n00 - n01 * n10) / spread**0.5)
        else:
            assert np.isnan(found["error_correlation"][i, j])
        if n11 == right.shape[1] or n00 == right.shape[1]:
            assert np.isnan(found["error_consistency"][i, j])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_cuda(panel, runs):
    there = between_runs(b.Answers.of(panel), "cuda")
    for name, values in runs.items():
        np.testing.assert_allclose(there[name], values, atol=1e-6, err_msg=name)
    plan = Bootstrap(draws=10)
    here = b.compute(b.Answers.of(panel), plan)
    away = b.compute(b.Answers.of(panel), Bootstrap(draws=10, device="cuda"))
    for name in here.draws:
        np.testing.assert_allclose(away.draws[name], here.draws[name], atol=1e-5, err_msg=name)
