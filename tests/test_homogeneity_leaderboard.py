"""The leaderboard: intervals and tests that hold what they promise, letters that say exactly who is tied."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kstest

from zoo.homogeneity import leaderboard as lb
from zoo.homogeneity.simulate import SimulatedPanel, Truth, simulate


def with_seed_effects(seed: int, spread: float, accuracies: tuple[float, float] = (0.7, 0.7)) -> SimulatedPanel:
    """Two models, four replicas each, whose accuracies vary from seed to seed by `spread`; 400 examples."""
    random = np.random.default_rng(seed)
    rates = np.repeat(accuracies, 4) + random.normal(scale=spread, size=8) if spread else np.repeat(accuracies, 4)
    hard = random.normal(scale=0.1, size=400)
    correct = random.random((8, 400)) < np.clip(rates[:, None] + hard, 0, 1)
    return SimulatedPanel(
        ("a", "b"), (0, 0, 0, 0, 1, 1, 1, 1), (0, 1, 2, 3) * 2, tuple(map(str, range(400))), ("x", "y"),
        np.zeros(400, np.int64), np.where(correct, 0, 1), None,
    )  # fmt: skip


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.05])
def test_intervals_cover_and_p_values_are_uniform_over_examples_and_seeds(spread):
    boards = [lb.leaderboard(with_seed_effects(seed, spread)) for seed in range(400)]
    covered = sum(bool(board.low[0] <= 0.7 <= board.high[0]) for board in boards)
    assert binom.ppf(1e-3, 400, 0.92) <= covered <= binom.ppf(1 - 1e-3, 400, 0.97)
    p = [board.p[0, 1] for board in boards]
    assert kstest(p, "uniform").pvalue > 1e-3
    assert sum(value < 0.05 for value in p) <= binom.ppf(1 - 1e-3, 400, 0.06)


def test_without_the_seeds_the_test_would_claim_too_much():
    """What the seeds' variance is for: an ordinary paired test of the same panels rejects far too often."""
    rejected = 0
    for seed in range(100):
        found = lb.Accuracies.of(with_seed_effects(seed, 0.05))
        blind = lb.Accuracies(found.mean, found.per_example, np.zeros(2), found.replicas)
        p = lb._welch(blind, blind.per_example @ blind.per_example.T)[0, 1]
        rejected += p < 0.05
    assert rejected > 20


def test_single_runs_have_uniform_p_values():
    truth = Truth(models=2, replicas=1, examples=500)
    p = [lb.paired_p_values(simulate(truth, seed))[0, 1] for seed in range(300)]
    assert kstest(p, "uniform").pvalue > 1e-3


def test_order_ranks_and_groups():
    truth = Truth(models=4, replicas=3, examples=2000, accuracy=(0.6, 0.9, 0.75, 0.75))
    board = lb.leaderboard(simulate(truth, 0))
    assert board.order[0] == 1
    assert board.order[-1] == 0
    assert board.rank.tolist() == [4, 1, 2, 2]
    assert board.groups[1] == "a"
    assert board.groups[2] == board.groups[3] == "b"
    assert board.groups[0] == "c"
    assert (board.low < board.accuracy).all()
    assert (board.accuracy < board.high).all()
    assert board.difference[1, 0] == pytest.approx(board.accuracy[1] - board.accuracy[0])
    assert (board.n, board.note) == (2000, "")
    off = ~np.eye(4, dtype=bool)
    assert (board.adjusted[off] >= board.p[off]).all()


def test_a_perfect_model_has_an_interval_with_a_width():
    panel = simulate(Truth(models=2, replicas=1, examples=100), 0)
    predictions = panel.predictions.copy()
    predictions[0] = panel.labels
    board = lb.leaderboard(SimulatedPanel(**{**vars(panel), "predictions": predictions}))
    assert board.high[0] == 1
    square = 1.959964**2 / 100
    assert board.low[0] == pytest.approx(1 / (1 + square), abs=1e-4)  # Wilson 1927 at n of n
    assert board.rank.tolist() == [1, 2]


def test_models_that_answer_alike_are_tied_for_certain():
    panel = simulate(Truth(models=3, replicas=2, examples=100), 0)
    equal = SimulatedPanel(**{**vars(panel), "predictions": np.tile(panel.predictions[0], (6, 1))})
    board = lb.leaderboard(equal)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(board.p[off], 1)
    assert board.rank.tolist() == [1, 1, 1]
    assert board.groups == ("a", "a", "a")


def test_one_example_tells_nobody_apart():
    board = lb.leaderboard(simulate(Truth(models=2, replicas=2, examples=1), 0))
    assert np.isnan(board.p).all()
    assert board.rank.tolist() == [1, 1]
    assert "too few" in board.note
    assert (board.high - board.low > 0.5).all()


def test_one_model():
    board = lb.leaderboard(simulate(Truth(models=1, replicas=2, examples=50), 0))
    assert board.rank.tolist() == [1]
    assert board.groups == ("a",)


@given(st.integers(1, 7), st.integers(0, 10**6), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_letters_are_shared_exactly_by_those_that_cannot_be_told_apart(models, seed, share):
    random = np.random.default_rng(seed)
    apart = np.triu(random.random((models, models)) < share, 1)
    apart = apart | apart.T
    order = tuple(int(m) for m in random.permutation(models))
    groups = lb.letters(apart, order)
    for i in range(models):
        for j in range(models):
            if i != j:
                assert bool(set(groups[i]) & set(groups[j])) == (not apart[i, j])
    assert "a" in groups[order[0]]
