"""Macro-F1 against scikit-learn, and its interval against its truth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from zoo.homogeneity.bootstrap import Bootstrap, replica_weights, tiles
from zoo.homogeneity.macro_f1 import macro_f1
from zoo.homogeneity.simulate import SimulatedPanel, Truth, simulate


def reference(panel: SimulatedPanel, run: int, weights: np.ndarray | None = None) -> float:
    seen = np.ones(len(panel.ids), bool) if weights is None else weights > 0
    chosen = None if weights is None else weights[seen]
    return float(
        f1_score(
            panel.labels[seen],
            panel.predictions[run][seen],
            average="macro",
            zero_division=np.nan,
            sample_weight=chosen,
        )
    )


def test_the_mean_over_replicas_is_scikit_learns():
    panel = simulate(Truth(models=3, replicas=2, examples=300, classes=5, accuracy=(0.5, 0.7, 0.9)), 0)
    found = macro_f1(panel, Bootstrap(draws=0))
    wanted = [(reference(panel, 2 * model) + reference(panel, 2 * model + 1)) / 2 for model in range(3)]
    np.testing.assert_allclose(found.value, wanted, atol=1e-12)
    assert np.isnan(found.low).all()  # no draws, no interval
    assert found.n.tolist() == [300] * 3


def test_a_class_that_nobody_has_does_not_count():
    panel = simulate(Truth(models=1, replicas=1, examples=200, classes=3), 0)
    wider = SimulatedPanel(**{**vars(panel), "classes": (*panel.classes, "never")})
    assert macro_f1(wider, Bootstrap(draws=0)).value[0] == pytest.approx(reference(panel, 0), abs=1e-12)


def test_the_interval_is_wilsons_at_the_variance_of_the_draws_of_examples_and_replicas():
    panel = simulate(Truth(models=2, replicas=2, examples=60, classes=3), 1)
    plan = Bootstrap(draws=40, seed=5)
    weights = np.concatenate(list(tiles(60, plan)))
    f1 = np.array([[reference(panel, run, row) for run in range(4)] for row in weights])
    drawn = (f1 * replica_weights(panel.runs, plan)).reshape(40, 2, 2).sum(2)
    proportion_confint = pytest.importorskip("statsmodels.stats.proportion").proportion_confint
    found = macro_f1(panel, plan)
    for model, value in enumerate(found.value):
        trials = value * (1 - value) / drawn[:, model].var()
        low, high = proportion_confint(value * trials, trials, method="wilson")
        assert (found.low[model], found.high[model]) == pytest.approx((low, high), abs=1e-9)


def test_the_interval_covers_the_truth():
    truth = Truth(models=1, replicas=3, examples=400, classes=3)
    # Classes are balanced and errors uniform over the others: every class has precision and recall equal to accuracy.
    covered = [
        bool(found.low[0] <= 0.7 <= found.high[0])
        for found in (macro_f1(simulate(truth, seed), Bootstrap(draws=300)) for seed in range(150))
    ]
    assert 0.89 <= np.mean(covered) <= 0.99  # 95 % within three standard errors of 150 panels


def test_three_examples_are_too_few():
    found = macro_f1(simulate(Truth(models=2, replicas=2, examples=3), 0), Bootstrap(draws=10))
    assert np.isnan(found.value).all()
    assert "4 test examples" in found.reasons[1]
