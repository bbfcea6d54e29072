"""Failures of the set: enumeration by hand, closed forms of channels, and the values for independent models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from zoo.homogeneity import failures as f
from zoo.homogeneity.bootstrap import Bootstrap
from zoo.homogeneity.capacity import capacity
from zoo.homogeneity.headline import LEFT_OUT, TOO_FEW_LEFT, effective_models
from zoo.homogeneity.leaderboard import best_model
from zoo.homogeneity.simulate import SimulatedPanel, Truth, simulate

PLAN = Bootstrap(draws=200)


def panel_of(predictions: list[list[int]], labels: list[int], runs: tuple[int, ...], classes: int) -> SimulatedPanel:
    models = max(runs) + 1
    return SimulatedPanel(
        tuple(f"m{m}" for m in range(models)), runs, tuple(range(len(runs))), tuple(map(str, range(len(labels)))),
        tuple(f"c{c}" for c in range(classes)), np.array(labels), np.array(predictions), None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def panel() -> SimulatedPanel:
    truth = Truth(models=3, replicas=2, examples=300, classes=3, accuracy=(0.6, 0.7, 0.8))
    return simulate(truth, 0, probabilities=True)


def choices(panel: SimulatedPanel) -> list[tuple[int, ...]]:
    """Every way to take one run a model."""
    owner = np.asarray(panel.runs)
    return list(itertools.product(*(np.flatnonzero(owner == m) for m in range(len(panel.models)))))


def test_poisson_binomial_against_enumeration_and_the_binomial():
    shares = np.array([0.1, 0.5, 0.9, 0.3])
    expected = np.zeros(5)
    for outcome in itertools.product([0, 1], repeat=4):
        expected[sum(outcome)] += np.prod(np.where(outcome, shares, 1 - shares))
    np.testing.assert_allclose(f.poisson_binomial(shares), expected, atol=1e-15)
    np.testing.assert_allclose(f.poisson_binomial(np.full(9, 0.3)), binom.pmf(np.arange(10), 9, 0.3), atol=1e-14)


def test_systemic_failure_is_the_mean_over_all_choices_of_replicas(panel):
    found = f.systemic_failure(panel, PLAN)
    wrong = panel.predictions != panel.labels
    by_hand = np.mean([wrong[list(chosen)].all(axis=0).mean() for chosen in choices(panel)])
    assert found.value == pytest.approx(by_hand, abs=1e-12)
    rates = wrong.mean(axis=1).reshape(3, 2).mean(axis=1)
    assert found.parts["expected"].value == pytest.approx(rates.prod(), abs=1e-12)
    assert found.parts["log_ratio"].value == pytest.approx(np.log(by_hand / rates.prod()), abs=1e-12)
    assert found.low < found.value < found.high
    assert found.n == 300


def test_failure_counts_sum_to_one_and_end_in_systemic_failure(panel):
    found = f.failure_counts(panel, PLAN)
    assert found.observed.sum() == pytest.approx(1)
    assert found.expected.sum() == pytest.approx(1)
    assert found.observed[-1] == pytest.approx(f.systemic_failure(panel, PLAN).value)
    wrong = panel.predictions != panel.labels
    by_hand = np.mean(
        [np.bincount(wrong[list(chosen)].sum(axis=0), minlength=4) / 300 for chosen in choices(panel)], axis=0
    )
    np.testing.assert_allclose(found.observed, by_hand, atol=1e-12)
    assert (found.low <= found.observed).all()
    assert (found.observed <= found.high).all()
    assert (found.expected_low <= found.expected_high).all()


def test_ambiguity_and_discrepancy_by_hand():
    """The best is m0. It differs from m1 on one example of five, from m2 on two, from either on three."""
    panel = panel_of([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0]], [0] * 5, (0, 1, 2), 2)
    assert best_model(panel) == 0
    assert f.ambiguity(panel, PLAN).value == pytest.approx(3 / 5)
    assert f.discrepancy(panel, PLAN).value == pytest.approx(2 / 5)


def test_ambiguity_is_the_mean_over_all_choices_of_replicas(panel):
    best = best_model(panel)
    shares = [
        (panel.predictions[list(chosen)] != panel.predictions[chosen[best]]).any(axis=0).mean()
        for chosen in choices(panel)
    ]
    assert f.ambiguity(panel, PLAN).value == pytest.approx(np.mean(shares), abs=1e-12)


def test_oracle_gap_by_hand(panel):
    found = f.oracle_gap(panel, PLAN)
    wrong = panel.predictions != panel.labels
    rates = wrong.mean(axis=1).reshape(3, 2).mean(axis=1)
    together = np.mean([wrong[list(chosen)].all(axis=0).mean() for chosen in choices(panel)])
    assert found.value == pytest.approx(rates.min() - together, abs=1e-12)
    assert found.parts["independent"].value == pytest.approx(rates.min() - rates.prod(), abs=1e-12)
    assert found.parts["excess"].value == pytest.approx(rates.prod() - together, abs=1e-12)


def test_vote_credit_breaks_ties_by_lot():
    labels = np.array([0, 0, 0, 1])
    answers = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 2, 2]])
    np.testing.assert_allclose(f.vote_credit(answers, labels), [1, 0, 1 / 3, 0])


@pytest.mark.parametrize(("models", "classes"), [(1, 3), (2, 2), (3, 3), (4, 2), (4, 4), (5, 3), (6, 3)])
def test_vote_wins_against_enumeration(models, classes):
    found = f.vote_wins(models, classes)
    for right in range(models + 1):
        credits = [
            f.vote_credit(np.array([0] * right + list(rest))[:, None], np.array([0]))[0]
            for rest in itertools.product(range(1, classes), repeat=models - right)
        ]
        assert found[right] == pytest.approx(np.mean(credits), abs=1e-12)


def test_vote_gain_of_independent_models_is_the_one_expected():
    truth = Truth(models=5, replicas=1, examples=20_000, classes=3, difficulty=0.0, accuracy=(0.5, 0.55, 0.6, 0.6, 0.5))
    found = f.vote_gain(simulate(truth, 0), PLAN)
    assert found.low < found.parts["independent"].value < found.high
    assert found.value > 0.05


def test_vote_of_two_classes_is_the_binomial():
    """Condorcet: three independent models of accuracy a are right by majority with 3a² − 2a³."""
    wins = f.vote_wins(3, 2)
    a = 0.7
    assert wins @ f.poisson_binomial(np.full(3, a)) == pytest.approx(3 * a**2 - 2 * a**3)


def test_marginal_diversity_is_the_change_when_a_model_leaves(panel):
    found = f.marginal_diversity(panel, PLAN)
    wrong = panel.predictions != panel.labels
    for m in range(3):
        rest = [o for o in range(3) if o != m]
        with_all = np.mean([wrong[list(c)].all(axis=0).mean() for c in choices(panel)])
        without = np.mean([wrong[[c[o] for o in rest]].all(axis=0).mean() for c in choices(panel)])
        assert found.value[m] == pytest.approx(without - with_all, abs=1e-12)
        sets = [np.arange(3) * 2, np.arange(3) * 2 + 1]
        votes = [
            f.vote_credit(panel.predictions[s], panel.labels).mean()
            - f.vote_credit(panel.predictions[s[rest]], panel.labels).mean()
            for s in sets
        ]
        assert found.parts["vote"].value[m] == pytest.approx(np.mean(votes), abs=1e-12)
    assert np.isfinite(found.parts["effective"].value).all()
    assert (found.low < found.value).all()


def without(panel: SimulatedPanel, model: int) -> SimulatedPanel:
    kept = [run for run, owner in enumerate(panel.runs) if owner != model]
    return SimulatedPanel(
        tuple(name for i, name in enumerate(panel.models) if i != model),
        tuple(np.unique([panel.runs[run] for run in kept], return_inverse=True)[1].tolist()),
        tuple(panel.seeds[run] for run in kept), panel.ids, panel.classes, panel.labels,
        panel.predictions[kept], None,
    )  # fmt: skip


@pytest.mark.parametrize("replicas", [1, 3])
def test_what_a_model_adds_to_the_effective_number_is_the_difference_of_the_numbers(replicas):
    panel = simulate(Truth(models=4, replicas=replicas, examples=800, difficulty=0.05), 3)
    whole = effective_models(panel, PLAN).value
    found = f.marginal_diversity(panel, PLAN).parts["effective"]
    for m in range(4):
        assert found.value[m] == pytest.approx(whole - effective_models(without(panel, m), PLAN).value, abs=1e-9)
        assert found.low[m] < found.value[m] < found.high[m]
    assert found.reasons == {}


def test_a_model_that_does_not_count_adds_nothing_to_the_effective_number_and_takes_nothing():
    panel = simulate(Truth(models=4, replicas=1, examples=300), 3)
    alone = f.marginal_diversity(without(panel, 2), PLAN).parts["effective"]
    for answers, why in (
        (np.zeros_like(panel.labels), "constant"), (panel.labels, "perfect"),
        ((panel.labels + 1) % 4, "always_wrong"),
    ):  # fmt: skip
        panel.predictions[2] = answers
        found = f.marginal_diversity(panel, PLAN).parts["effective"]
        assert found.reasons == {2: LEFT_OUT[why]}
        np.testing.assert_allclose(found.value[[0, 1, 3]], alone.value, atol=1e-12)
        assert np.isnan(found.value[2])
    panel.predictions[:] = panel.labels
    assert f.marginal_diversity(panel, PLAN).parts["effective"].reasons == dict.fromkeys(range(4), TOO_FEW_LEFT)


def test_a_copy_adds_nothing():
    one = simulate(Truth(models=2, replicas=2, examples=300), 0)
    twice = panel_of([*one.predictions.tolist(), *one.predictions[2:].tolist()], one.labels.tolist(),
                     (0, 0, 1, 1, 2, 2), 4)  # fmt: skip
    only = panel_of(np.repeat(one.predictions[[0, 2, 2]], 2, axis=0).tolist(), one.labels.tolist(),
                    (0, 0, 1, 1, 2, 2), 4)  # fmt: skip
    found = f.marginal_diversity(only, PLAN)
    assert found.value[1] == found.value[2] == 0
    assert f.marginal_diversity(twice, PLAN).value[0] > 0


def test_capacity_of_textbook_channels():
    """Binary symmetric 1 − H(p), Z-channel log2(1 + (1 − p) p^{p/(1−p)}), erasure 1 − e, noiseless log2 of inputs."""
    p = 0.2
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    channels = np.array([
        [[1 - p, p, 0], [p, 1 - p, 0]],
        [[1, 0, 0], [p, 1 - p, 0]],
        [[1 - p, 0, p], [0, 1 - p, p]],
        [[1, 0, 0], [0, 1, 0]],
        [[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]],
    ])  # fmt: skip
    expected = [1 - entropy, np.log2(1 + (1 - p) * p ** (p / (1 - p))), 1 - p, 1, 0]
    np.testing.assert_allclose(capacity(channels), expected, atol=1e-6)


def test_capacity_against_plain_blahut_arimoto():
    """The algorithm of Blahut 1972 as its paper writes it, on channels that are easy for it."""
    channels = np.random.default_rng(0).dirichlet(np.full(4, 0.3), (20, 3))
    inputs = np.full((20, 3), 1 / 3)
    for _ in range(20_000):
        mixed = np.einsum("nm,nmc->nc", inputs, channels)
        far = (channels * np.log(channels / mixed[:, None])).sum(axis=2)
        inputs = inputs * np.exp(far)
        inputs /= inputs.sum(axis=1, keepdims=True)
    gap = far.max(axis=1) - (inputs * far).sum(axis=1)
    assert (gap < 1e-7).sum() >= 15  # where it has arrived
    expected = far.max(axis=1) / np.log(2)
    np.testing.assert_allclose(capacity(channels)[gap < 1e-7], expected[gap < 1e-7], atol=1e-6)


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_capacity_range_and_order(models, classes, seed):
    random = np.random.default_rng(seed)
    channels = random.dirichlet(np.ones(classes), (6, models))
    found = capacity(channels)
    assert ((found >= -1e-9) & (found <= np.log2(min(models, classes)) + 1e-9)).all()
    np.testing.assert_allclose(capacity(channels[:, ::-1]), found, atol=1e-6)
    again = np.concatenate([channels, channels[:, :1]], axis=1)  # a copy of a model adds no answer
    np.testing.assert_allclose(capacity(again), found, atol=1e-6)


def test_rashomon_capacity_and_its_sample(panel, monkeypatch):
    whole = f.rashomon_capacity(panel, PLAN)
    assert 1 < whole.value < 3
    assert whole.low < whole.value < whole.high
    monkeypatch.setattr(f, "_CAPACITY_WORK", 100 * 3 * 3 * 2)
    part = f.rashomon_capacity(panel, PLAN)
    assert part.n == 100
    assert "random sample of 100 of 300" in part.reason
    assert part.value == pytest.approx(whole.value, abs=0.1)
    without = SimulatedPanel(**{**vars(panel), "probabilities": None})
    assert "probabilities" in f.rashomon_capacity(without, PLAN).reason


def test_fleiss_kappa_by_hand_of_fleiss_table():
    """Fleiss 1971's formula on 4 subjects, 3 raters: P̄ = 2/3, P̄e from the shares of 7 and 5 of 12."""
    panel = panel_of([[0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 1, 0]], [0, 0, 1, 1], (0, 1, 2), 2)
    expected = (7 / 12) ** 2 + (5 / 12) ** 2
    assert f.fleiss_kappa(panel, PLAN).value == pytest.approx((2 / 3 - expected) / (1 - expected))
    constant = panel_of([[1] * 5] * 3, [1] * 5, (0, 1, 2), 2)
    assert "one and the same class" in f.fleiss_kappa(constant, PLAN).reason


def test_perfect_models_have_reasons_and_no_made_up_ratio():
    panel = panel_of([[0, 1, 0, 1, 1], [0, 1, 0, 0, 1]], [0, 1, 0, 1, 1], (0, 1), 2)
    found = f.systemic_failure(panel, PLAN)
    assert found.value == 0
    assert found.parts["expected"].value == 0
    assert found.parts["log_ratio"].value is None
    assert "no example is failed by every model" in found.parts["log_ratio"].reason
    assert f.oracle_gap(panel, PLAN).value == 0


@pytest.mark.parametrize("name", sorted(f.OF_SET))
def test_one_example_and_one_model_are_undefined(name):
    single = simulate(Truth(models=3, examples=1), 0, probabilities=True)
    found = f.OF_SET[name](single, PLAN)
    assert found.value is None
    assert "there are 1" in found.reason
    alone = simulate(Truth(models=1, examples=50, difficulty=0.2, pair=0.0), 0, probabilities=True)
    found = f.OF_SET[name](alone, PLAN)
    assert (found.value is None) == (found.reason != "")


def test_marginal_diversity_of_one_example_has_a_reason():
    found = f.marginal_diversity(simulate(Truth(models=3, examples=1), 0), PLAN)
    assert np.isnan(found.value).all()
    assert set(found.reasons) == {0, 1, 2}
