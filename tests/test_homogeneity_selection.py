"""Numbers chosen among many: influence functions against the numbers without each example, and what intervals hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from zoo import shares
from zoo.homogeneity import behaviour, failures, kinship, results, selection
from zoo.homogeneity.bootstrap import WIDE, Bootstrap
from zoo.homogeneity.leaderboard import best_model, leaderboard
from zoo.homogeneity.simulate import SimulatedPanel, Truth, simulate

PLAN = Bootstrap(draws=300)
EXACT = Bootstrap(draws=0)


def pairs_of(panel: SimulatedPanel, related: bool):
    measure = kinship.kinship if related else (lambda p, plan: behaviour.pairs(p, "error_correlation", plan))
    return measure(panel, Bootstrap(draws=2))


def chosen(panel: SimulatedPanel, related: bool, plan: Bootstrap = PLAN):
    return selection.extreme_pairs(panel, pairs_of(panel, related), related, plan)


def without(panel: SimulatedPanel, row: int) -> SimulatedPanel:
    return SimulatedPanel(**{
        **vars(panel), "labels": np.delete(panel.labels, row), "predictions": np.delete(panel.predictions, row, axis=1),
        "ids": panel.ids[:-1],
    })  # fmt: skip


@pytest.mark.parametrize(("replicas", "related"), [(1, False), (3, False), (3, True), (2, True)])
def test_influence_is_what_leaving_an_example_out_changes(replicas, related):
    """The jackknife is the independent reference: θ without an example is lower by influence/(n − 1), but for 1/n²."""
    panel = simulate(Truth(models=3, replicas=replicas, examples=400, accuracy=(0.5, 0.6, 0.7)), 2)
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    top, top_influence, bottom, bottom_influence = selection._Runs.of(panel).ratios(pairs, related)
    wanted = pairs_of(panel, related).value[pairs[:, 0], pairs[:, 1]]
    np.testing.assert_allclose(top / bottom, wanted, atol=1e-5)
    influence = (top_influence - (top / bottom)[:, None] * bottom_influence) / bottom[:, None]
    np.testing.assert_allclose(influence.mean(axis=1), 0, atol=1e-4)
    for row in range(0, 400, 57):
        fewer = pairs_of(without(panel, row), related).value[pairs[:, 0], pairs[:, 1]]
        np.testing.assert_allclose((wanted - fewer) * 399, influence[:, row], atol=0.03 * np.abs(influence).max())


def test_unequal_numbers_of_runs():
    whole = simulate(Truth(models=3, replicas=3, examples=300), 4)
    kept = [0, 1, 2, 3, 4, 6, 7]
    panel = SimulatedPanel(**{
        **vars(whole), "runs": tuple(whole.runs[r] for r in kept), "seeds": tuple(whole.seeds[r] for r in kept),
        "predictions": whole.predictions[kept],
    })  # fmt: skip
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    for related in (True, False):
        top, _, bottom, _ = selection._Runs.of(panel).ratios(pairs, related)
        wanted = pairs_of(panel, related).value[pairs[:, 0], pairs[:, 1]]
        np.testing.assert_allclose(top / bottom, wanted, atol=1e-5)


@pytest.mark.parametrize("related", [True, False])
def test_the_ends_are_the_highest_and_the_lowest(related):
    panel = simulate(Truth(models=5, replicas=2 if related else 1, examples=600, pair=0.2), 0)
    found = pairs_of(panel, related)
    most, least = chosen(panel, related)
    values = found.value[np.triu_indices(5, 1)]
    assert most.number.value == found.value[most.a, most.b] == values.max()
    assert least.number.value == found.value[least.a, least.b] == values.min()
    for pair in (most, least):
        assert pair.a < pair.b
        assert pair.number.low < pair.number.value < pair.number.high
        assert pair.number.n == 600
    # luck pushed the highest up and the lowest down: there the intervals reach further
    assert most.number.value - most.number.low > most.number.high - most.number.value
    assert least.number.high - least.number.value > least.number.value - least.number.low


def test_of_two_models_there_is_one_pair_and_no_choice():
    panel = simulate(Truth(models=2, replicas=1, examples=2000), 0)
    (only,) = chosen(panel, False, Bootstrap(draws=2000))
    plain = behaviour.pairs(panel, "error_correlation", Bootstrap(draws=2000))
    assert only.number.low == pytest.approx(plain.low[0, 1], abs=0.01)
    assert only.number.high == pytest.approx(plain.high[0, 1], abs=0.01)


def test_pairs_without_an_interval_say_why():
    rare = simulate(Truth(models=4, replicas=1, examples=200, accuracy=0.95), 0)
    table = behaviour.pairs(rare, "error_correlation", Bootstrap())
    for pair in chosen(rare, False):
        assert (pair.number.low, pair.number.reason) == (None, results.FEW)
        assert np.isnan(table.low[pair.a, pair.b])
        assert table.reasons[pair.a, pair.b] == results.FEW
    # Twelve models with 9 % failures, of which two fail together: 8.1 by chance, and many pairs to choose among.
    random = np.random.default_rng(0)
    wrong = np.stack([random.permutation(1000) < 90 for _ in range(12)])
    wrong[1] = np.roll(wrong[0], 1) & wrong[0] | wrong[0]
    wrong[1, np.flatnonzero(wrong[0])[:30]] = False
    labels = random.integers(0, 3, 1000)
    many = SimulatedPanel(
        tuple("abcdefghijkl"), tuple(range(12)), (0,) * 12, tuple(map(str, range(1000))), ("x", "y", "z"), labels,
        np.where(wrong, (labels + 1) % 3, labels), None,
    )  # fmt: skip
    most, _ = chosen(many, False)
    assert (most.a, most.b) == (0, 1)
    assert (most.number.low, most.number.reason) == (None, selection.FEW_OF_ALL)
    assert np.isfinite(behaviour.pairs(many, "error_correlation", Bootstrap()).low[0, 1])
    one = simulate(Truth(models=3, replicas=1, examples=200, accuracy=0.6), 0)
    copies = SimulatedPanel(**{**vars(one), "predictions": np.repeat(one.predictions[:1], 3, axis=0)})
    for pair in chosen(copies, False):
        assert (pair.number.value, pair.number.low) == (1, None)
        assert shares.UNSEEN in pair.number.reason
    assert chosen(one, False, Bootstrap(draws=0))[0].number.low is None
    perfect = SimulatedPanel(**{**vars(one), "predictions": np.repeat(one.labels[None], 3, axis=0)})
    assert chosen(perfect, False) == ()


def test_the_choice_among_many_pairs_is_that_of_the_most_extreme(monkeypatch):
    """Fewer contenders stand for all in proportion: the interval hardly changes."""
    panel = simulate(Truth(models=12, replicas=1, examples=500, accuracy=0.6), 0)
    whole = chosen(panel, False, Bootstrap(draws=2000))
    monkeypatch.setattr(selection, "CONTENDERS", 20)
    for few, all_ in zip(chosen(panel, False, Bootstrap(draws=2000)), whole, strict=True):
        assert (few.a, few.b) == (all_.a, all_.b)
        assert few.number.low == pytest.approx(all_.number.low, abs=0.05)
        assert few.number.high == pytest.approx(all_.number.high, abs=0.05)


def test_reach_of_one_candidate_is_the_usual_interval():
    deviations = np.random.default_rng(0).normal(size=(20_000, 1))
    found = selection.reach(deviations, 0, 0.95)
    assert found.rivals == pytest.approx(1)
    assert found.error == pytest.approx(0.025)
    assert (found.below, found.above) == (pytest.approx(1.96, abs=0.05), pytest.approx(1.96, abs=0.05))
    copies = selection.reach(np.repeat(deviations, 9, axis=1), 3, 0.95)
    assert copies.rivals == pytest.approx(1)
    assert copies.below == found.below


@pytest.mark.parametrize("candidates", [4, 30, 435])
def test_reach_of_many_is_that_of_their_maximum(candidates):
    deviations = np.random.default_rng(1).normal(size=(20_000, candidates))
    found = selection.reach(deviations, 0, 0.95)
    assert found.rivals == pytest.approx(candidates, rel=0.15)
    error = 0.05 * candidates / (candidates + 1)
    assert found.error == pytest.approx(error, rel=0.02)
    assert found.below == pytest.approx(norm.isf(1 - (1 - error) ** (1 / candidates)), abs=0.08)
    assert found.above == pytest.approx(norm.isf(error), abs=0.06)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-1, 1), st.floats(0.2, 1), st.floats(0.001, 0.05), st.floats(0.001, 0.02), st.floats(-0.9, 0.9),
    st.floats(0.5, 3),
)  # fmt: skip
def test_fieller_solves_its_equation(top, bottom, error, other, correlation, errors):
    spread = np.array([[error**2, correlation * error * other], [correlation * error * other, other**2]])
    for sign in (-1, 1):
        end = selection.fieller(top, bottom, spread, sign * errors)
        variance = spread[0, 0] - 2 * end * spread[0, 1] + end**2 * spread[1, 1]
        assert (end * bottom - top) / math.sqrt(variance) == pytest.approx(sign * errors, rel=1e-6)
    assert selection.fieller(top, errors * other / 2, spread, errors) == math.inf
    assert selection.fieller(top, errors * other / 2, spread, -errors) == -math.inf


def test_studentised_deviations_are_those_of_resamples():
    values = np.random.default_rng(2).normal(size=(3, 40))
    values -= values.mean(axis=1, keepdims=True)
    plan = Bootstrap(draws=25, seed=3)
    found = selection.studentised(values, plan)
    from zoo.homogeneity.bootstrap import tiles

    (weights,) = tiles(40, plan)
    for row, weight in enumerate(weights):
        drawn = np.repeat(values, weight.astype(int), axis=1)
        np.testing.assert_allclose(found[row], drawn.mean(axis=1) / drawn.std(axis=1) * math.sqrt(40), rtol=1e-4)


# The best model and the vote


def test_the_best_of_one_model_has_the_leaderboards_interval():
    panel = simulate(Truth(models=1, replicas=1, examples=200), 0)
    best, found = selection.best_accuracy(panel, Bootstrap(draws=2000))
    board = leaderboard(panel)
    assert best == 0
    assert (found.low, found.high) == (pytest.approx(board.low[0], abs=2e-3), pytest.approx(board.high[0], abs=2e-3))


def test_the_best_of_many_reaches_further_down():
    panel = simulate(Truth(models=20, replicas=1, examples=300, difficulty=0.0), 0)
    best, found = selection.best_accuracy(panel, PLAN)
    board = leaderboard(panel)
    assert best == board.order[0]
    assert found.value == board.accuracy[best]
    assert found.low < board.low[best] - 0.01
    assert found.value < found.high <= board.high[best]
    assert found.reason == ""


@pytest.mark.parametrize("examples", [1, 12, 29])
def test_the_best_of_perfect_models_is_wilsons(examples):
    labels = np.arange(examples) % 2
    panel = SimulatedPanel(
        ("a", "b", "c"), (0, 1, 2), (0, 0, 0), tuple(map(str, range(examples))), ("x", "y"), labels,
        np.repeat(labels[None], 3, axis=0), None,
    )  # fmt: skip
    _, found = selection.best_accuracy(panel, PLAN)
    low, high = shares.wilson(1.0, examples, shares.quantile(0.95))
    assert (found.value, found.low, found.high) == (1, pytest.approx(float(low), abs=1e-4), float(high))
    assert found.reason == WIDE
    assert selection.best_accuracy(panel, Bootstrap(draws=0))[1].low is None


def test_of_equally_accurate_models_all_take_the_first():
    """Means of shares of three runs may differ in the last bit where the numbers of right answers are the same."""
    differ = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        wrong = np.stack([random.permutation(3 * 101) < 80 for _ in range(4)]).reshape(4, 3, 101)
        panel = SimulatedPanel(
            ("a", "b", "c", "d"), tuple(np.repeat(range(4), 3).tolist()), (0, 1, 2) * 4, tuple(map(str, range(101))),
            ("x", "y"), np.zeros(101, np.int64), wrong.reshape(12, 101).astype(np.int64), None,
        )  # fmt: skip
        differ += len(set(wrong.mean(axis=1).mean(axis=1))) > 1
        assert best_model(panel) == leaderboard(panel).order[0] == selection.best_accuracy(panel, EXACT)[0] == 0
    assert differ > 0


def test_errors_of_a_model_that_is_nearly_always_wrong_have_a_correlation_without_interval():
    """One right answer of thirty: its standard deviation is hardly known, and there are no replicas to blame."""
    wrong = np.stack([np.arange(30) != 3, np.arange(30) % 3 > 0])
    panel = SimulatedPanel(
        ("a", "b"), (0, 1), (0, 0), tuple(map(str, range(30))), ("x", "y"), np.zeros(30, np.int64),
        wrong.astype(np.int64), None,
    )  # fmt: skip
    (only,) = chosen(panel, related=False)
    assert only.number.low is None
    assert only.number.reason.endswith(results.FEW_RIGHT)


def test_the_vote_of_few_differences_has_no_interval():
    labels = np.zeros(100, np.int64)
    predictions = np.zeros((3, 100), np.int64)
    predictions[0, :3] = predictions[1, 10:20] = predictions[2, 20:30] = 1
    panel = SimulatedPanel(
        ("a", "b", "c"), (0, 1, 2), (0, 0, 0), tuple(map(str, range(100))), ("x", "y"), labels, predictions, None
    )
    found = failures.vote_gain(panel, PLAN)
    assert found.value == pytest.approx(0.03)
    assert (found.low, found.high, found.reason) == (None, None, failures.FEW_DIFFER)
    predictions[0, 30:60] = 1
    predictions[1, 60:90] = 1
    more = failures.vote_gain(panel, PLAN)
    assert more.low < more.value < more.high


@pytest.mark.parametrize("related", [True, False])
def test_the_chosen_hold_the_truth(related):
    """90 panels of six models, all pairs alike, and a binomial of .95 less what it loses. See reports/coverage."""
    truth = Truth(models=6, replicas=2 if related else 1, examples=300, accuracy=0.6)
    correlation = truth.error_correlation()
    alike = correlation[0, 1] / correlation[0, 0] if related else correlation[0, 1]
    held = np.zeros(3)
    for seed in range(90):
        panel = simulate(truth, seed)
        most, least = chosen(panel, related)
        _, best = selection.best_accuracy(panel, PLAN)
        held += [most.number.low <= alike <= most.number.high, least.number.low <= alike <= least.number.high,
                 best.low <= 0.6 <= best.high]  # fmt: skip
    assert (held >= 78).all()
