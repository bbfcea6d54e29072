"""The same values as other people's implementations (extra `reference`): lm-sim, DESlib, statsmodels, vendi-score."""

from __future__ import annotations

import numpy as np
import pytest
from pairs_of_runs import between_runs

from zoo.homogeneity import behaviour as b
from zoo.homogeneity.bootstrap import Bootstrap
from zoo.homogeneity.failures import fleiss_kappa
from zoo.homogeneity.kinship import benjamini_yekutieli, vendi_score
from zoo.homogeneity.leaderboard import paired_p_values
from zoo.homogeneity.simulate import Truth, simulate

PANEL = simulate(Truth(models=5, replicas=1, examples=300, accuracy=(0.5, 0.6, 0.7, 0.8, 0.9)), 0, probabilities=True)
RUNS = between_runs(b.Answers.of(PANEL))
PAIRS = [(0, 1), (1, 4), (2, 3)]


@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_lm_sim(i, j):
    metrics = pytest.importorskip("lmsim.metrics")
    labels = PANEL.labels.tolist()
    one, two = (list(PANEL.probabilities[run].astype(np.float64)) for run in (i, j))
    hot, also = (list(np.eye(4)[PANEL.predictions[run]]) for run in (i, j))
    assert RUNS["capa"][i, j] == pytest.approx(metrics.CAPA().compute_k(one, two, labels), abs=1e-6)
    assert RUNS["capa_discrete"][i, j] == pytest.approx(metrics.CAPA(prob=False).compute_k(hot, also, labels), abs=1e-6)
    assert RUNS["error_consistency"][i, j] == pytest.approx(metrics.EC().compute_k(one, two, labels), abs=1e-6)


@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_deslib(i, j):
    diversity = pytest.importorskip("deslib.util.diversity")
    told = (PANEL.labels, PANEL.predictions[i], PANEL.predictions[j])
    assert RUNS["double_fault"][i, j] == pytest.approx(diversity.double_fault(*told), abs=1e-6)
    assert RUNS["q_statistic"][i, j] == pytest.approx(diversity.Q_statistic(*told), abs=1e-6)
    assert RUNS["error_correlation"][i, j] == pytest.approx(diversity.correlation_coefficient(*told), abs=1e-6)


def test_statsmodels_fleiss_kappa():
    rater = pytest.importorskip("statsmodels.stats.inter_rater")
    table, _ = rater.aggregate_raters(PANEL.predictions.T)
    found = fleiss_kappa(PANEL, Bootstrap(draws=50))
    assert found.value == pytest.approx(rater.fleiss_kappa(table), abs=1e-6)
    assert found.low < found.value < found.high


def test_statsmodels_multipletests():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    random = np.random.default_rng(0)
    for size in (1, 2, 10, 300):
        p = random.random(size) ** 3
        expected = multitest.multipletests(p, method="fdr_by")[1]
        np.testing.assert_allclose(benjamini_yekutieli(p), expected, atol=1e-12)
    with_gap = benjamini_yekutieli(np.array([0.01, np.nan, 0.02]))
    np.testing.assert_allclose(with_gap[[0, 2]], multitest.multipletests([0.01, 0.02], method="fdr_by")[1])
    assert np.isnan(with_gap[1])


def test_statsmodels_mcnemar():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    found = paired_p_values(PANEL)
    right = PANEL.predictions == PANEL.labels
    for i, j in PAIRS:
        cells = [[(right[i] & right[j]).sum(), (right[i] & ~right[j]).sum()],
                 [(~right[i] & right[j]).sum(), (~right[i] & ~right[j]).sum()]]  # fmt: skip
        exact = tables.mcnemar(cells, exact=True).pvalue
        half = exact_point(cells[0][1], cells[1][0])
        assert found[i, j] == pytest.approx(exact - half, abs=1e-9)


def exact_point(one: int, two: int) -> float:
    from scipy.stats import binom

    return float(binom.pmf(min(one, two), one + two, 0.5))


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # the package's own imports of scipy
def test_vendi_score():
    vendi = pytest.importorskip("vendi_score.vendi")
    random = np.random.default_rng(0)
    for size in (2, 4, 9):
        points = random.normal(size=(size, size + 2))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        similar = points @ points.T
        assert vendi_score(similar) == pytest.approx(vendi.score_K(similar), abs=1e-6)
