"""The kinship scale: closed forms, an independent least-squares fit, and every way in which it is undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.stats import binom, fisher_exact, norm

from zoo.homogeneity import kinship as k
from zoo.homogeneity.behaviour import pairs
from zoo.homogeneity.bootstrap import Bootstrap
from zoo.homogeneity.results import FEW, FEW_RIGHT, NO_REPLICAS
from zoo.homogeneity.simulate import SimulatedPanel, Truth, simulate

PLAN = Bootstrap(draws=100)


def matrix(models: int, seed: int) -> np.ndarray:
    """A kinship matrix of one factor, a pair of its own, and noise."""
    random = np.random.default_rng(seed)
    loadings = random.uniform(0.4, 0.9, models)
    made = np.outer(loadings, loadings)
    made[0, 1] += 0.1
    made += random.normal(scale=0.03, size=made.shape)
    made = np.triu(made, 1) + np.triu(made, 1).T
    np.fill_diagonal(made, 1)
    return made


def test_attenuation_is_spearmans_formula():
    correlations = np.array([[0.5, 0.3, 0.1], [0.3, 0.8, -0.2], [0.1, -0.2, -0.05]])
    found = k.attenuation_corrected(correlations)
    assert found[0, 1] == pytest.approx(0.3 / np.sqrt(0.5 * 0.8))
    np.testing.assert_array_equal(np.diagonal(found)[:2], 1)
    assert np.isnan(found[2]).all()  # no reliability to divide by
    assert np.isnan(found[:, 2]).all()


@pytest.mark.parametrize("models", [4, 5, 8])
def test_excess_against_least_squares_of_scipy(models):
    """scipy's trust-region fit of the same residuals, pair by pair."""
    for seed in range(3):
        kinships = matrix(models, seed)
        found = k.excess(kinships)
        first, second = np.triu_indices(models, k=1)
        for a, b in [(0, 1), (0, models - 1), (2, 3)]:
            keep = (first != a) | (second != b)

            def residuals(x, i=first[keep], j=second[keep], kinships=kinships):
                return x[i] * x[j] - kinships[i, j]

            fit = least_squares(residuals, np.full(models, 0.6), xtol=1e-14, ftol=1e-14, gtol=1e-14)
            assert found[a, b] == pytest.approx(kinships[a, b] - fit.x[a] * fit.x[b], abs=1e-6)
            assert found[b, a] == found[a, b]


@pytest.mark.parametrize("models", [10, 20, 40])
def test_one_fit_for_all_pairs_is_close_to_a_fit_for_each(models):
    """The closer the more models there are; what a pair adds is found either way."""
    kinships = np.stack([matrix(models, seed) for seed in range(3)])
    slow, quick = k.excess(kinships), k.excess_of_many(kinships)
    pairs = np.triu_indices(models, k=1)
    apart = np.abs(slow - quick)[:, *pairs]
    assert apart.max() < 0.05 / models
    assert quick[:, 0, 1].min() > 0.03
    np.testing.assert_array_equal(np.isnan(quick), np.isnan(slow))
    loadings = np.linspace(0.3, 0.9, models)
    assert np.nanmax(np.abs(k.excess_of_many(np.outer(loadings, loadings)))) < 1e-6


def test_excess_of_many_with_a_gap_is_undefined_everywhere_and_of_nothing_is_0():
    gap = matrix(40, 0)
    gap[0, 4] = gap[4, 0] = np.nan
    found = k.excess_of_many(np.stack([gap, matrix(40, 0), np.eye(40)]))
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], k.excess_of_many(matrix(40, 0)), atol=1e-9)
    np.testing.assert_allclose(found[2], k.excess(np.eye(40)), atol=1e-12)


@pytest.mark.parametrize(("fitted", "draws"), [(100, 3), (3, 3)])
def test_draws_of_one_fit_lie_around_the_value(fitted, draws, monkeypatch):
    random = np.random.default_rng(0)
    value = matrix(12, 0)
    noise = random.normal(scale=0.02, size=(300, 12, 12))
    drawn = value + np.triu(noise, 1) + np.swapaxes(np.triu(noise, 1), 1, 2)
    exact, around = k.excess_and_draws(value, drawn)
    monkeypatch.setattr(k, "_FITTED", fitted)
    monkeypatch.setattr(k, "_FITTED_DRAWS", draws)
    quick, close = k.excess_and_draws(value, drawn)
    pairs = np.triu_indices(12, k=1)
    np.testing.assert_allclose(quick[pairs], exact[pairs], atol=1e-12 if fitted == 100 else 4e-3)
    spread = around[:, *pairs].std(axis=0)
    assert np.abs((close[:, *pairs].mean(axis=0) - quick[pairs]) / spread).max() < 0.3
    np.testing.assert_allclose(close[:, *pairs].std(axis=0), spread, rtol=0.05)


def test_excess_is_zero_for_one_factor_and_finds_what_a_pair_adds():
    loadings = np.array([0.9, 0.5, 0.7, 0.8, 0.3])
    one = np.outer(loadings, loadings)
    found = k.excess(one)
    assert np.abs(found[np.triu_indices(5, k=1)]).max() < 1e-6
    assert np.isnan(np.diagonal(found)).all()
    one[0, 1] += 0.2
    one[1, 0] += 0.2
    assert k.excess(one)[0, 1] == pytest.approx(0.2, abs=1e-6)


def test_excess_of_models_that_share_nothing_stays_finite():
    """Without a common factor two loadings would run to infinity against two near 0."""
    random = np.random.default_rng(0)
    noise = random.normal(scale=0.02, size=(300, 4, 4))
    noise = np.triu(noise, 1) + np.swapaxes(np.triu(noise, 1), 1, 2)
    found = k.excess(noise)
    off = found[:, *np.triu_indices(4, k=1)]
    assert np.isfinite(off).all()
    assert np.abs(off).max() < 1.25**2 + 0.1


def test_excess_with_a_gap_is_undefined_everywhere():
    gap = matrix(5, 0)
    gap[0, 4] = gap[4, 0] = np.nan
    found = k.excess(np.stack([gap, matrix(5, 0)]))
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], k.excess(matrix(5, 0)))


def test_vendi_score_closed_forms():
    """M for models that share nothing, 1 for one model M times, g for g groups of equal size; a 2 × 2 by hand."""
    assert k.vendi_score(np.eye(7)) == pytest.approx(7)
    assert k.vendi_score(np.ones((7, 7))) == pytest.approx(1)
    groups = np.kron(np.eye(3), np.ones((2, 2)))
    assert k.vendi_score(groups) == pytest.approx(3)
    up, down = 0.75, 0.25  # eigenvalues of K/2 at kinship .5
    by_hand = np.exp(-(up * np.log(up) + down * np.log(down)))
    assert k.vendi_score(np.array([[1, 0.5], [0.5, 1]])) == pytest.approx(by_hand)
    assert k.vendi_score(np.array([[1, 1.3], [1.3, 1]])) == pytest.approx(1)  # not positive: made so
    assert np.isnan(k.vendi_score(np.array([[1, np.nan], [np.nan, 1]])))


@given(st.integers(4, 6), st.integers(0, 1000), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_models_does_not_matter(models, seed, random):
    kinships = matrix(models, seed)
    order = list(range(models))
    random.shuffle(order)
    moved = kinships[np.ix_(order, order)]
    np.testing.assert_allclose(k.excess(moved), k.excess(kinships)[np.ix_(order, order)], atol=1e-6)
    assert k.vendi_score(moved) == pytest.approx(k.vendi_score(kinships))
    assert 1 - 1e-9 <= k.vendi_score(kinships) <= models + 1e-9


def test_kinship_has_reasons_without_replicas():
    single = simulate(Truth(models=2, replicas=1, examples=200), 0)
    found = k.kinship(single, PLAN)
    assert np.isnan(found.value).all()
    assert found.reasons == dict.fromkeys([(0, 0), (0, 1), (1, 1)], NO_REPLICAS)  # one reason, to be said once
    assert k.recipe_diversity(single, PLAN).reason == NO_REPLICAS
    assert "4 models at least" in k.excess_kinship(single, PLAN).reasons[0, 1]
    assert k.reliability(single, PLAN).reasons == {0: NO_REPLICAS, 1: NO_REPLICAS}
    claims = k.claims(single, PLAN)
    assert np.isnan(claims.more_than_replicas).all()
    assert np.isfinite(claims.less_than_independent[0, 1])  # φ needs no replicas


def test_one_model_without_replicas_spoils_only_its_own_pairs():
    whole = simulate(Truth(models=4, replicas=2, examples=400), 0)
    panel = SimulatedPanel(**{
        **vars(whole), "runs": whole.runs[:-1], "seeds": whole.seeds[:-1], "predictions": whole.predictions[:-1],
    })  # fmt: skip
    found = k.kinship(panel, PLAN)
    assert np.isfinite(found.value[:3, :3]).all()
    assert np.isnan(found.value[3]).all()
    assert found.reasons[0, 3] == NO_REPLICAS
    excess = k.excess_kinship(panel, PLAN)
    assert "there are 3" in excess.reasons[0, 1]
    assert excess.reasons[0, 3] == NO_REPLICAS
    assert k.recipe_diversity(panel, PLAN).reason == NO_REPLICAS


def test_excess_leaves_out_whom_it_cannot_measure_and_is_that_of_the_others():
    """A model without replicas has no excess kinship, a perfect one no excess of φ; the others' are as without it."""
    whole = simulate(Truth(models=5, replicas=2, examples=400, difficulty=0.3), 0)
    four = SimulatedPanel(**{
        **vars(whole), "models": whole.models[:4], "runs": whole.runs[:8], "seeds": whole.seeds[:8],
        "predictions": whole.predictions[:8],
    })  # fmt: skip
    lacking = SimulatedPanel(**{
        **vars(whole), "runs": whole.runs[:9], "seeds": whole.seeds[:9], "predictions": whole.predictions[:9],
    })  # fmt: skip
    predictions = whole.predictions.copy()
    predictions[8:] = whole.labels
    perfect = SimulatedPanel(**{**vars(whole), "predictions": predictions})
    for panel, measure, why in (
        (lacking, k.excess_kinship, NO_REPLICAS), (perfect, k.excess_error_correlation, k.ALWAYS),
    ):  # fmt: skip
        found, alone = measure(panel, Bootstrap(draws=50)), measure(four, Bootstrap(draws=50))
        np.testing.assert_allclose(found.value[:4, :4], alone.value, atol=1e-9)
        pairs = np.triu_indices(4, k=1)
        assert (found.low[pairs] < found.value[pairs]).all()
        assert (found.value[pairs] < found.high[pairs]).all()
        assert np.isnan(found.value[4]).all()
        assert {found.reasons[m, 4] for m in range(4)} == {why}
        assert (0, 1) not in found.reasons


def test_excess_of_the_error_correlation_needs_no_replicas():
    """It is the excess of φ, and in a large sample that of the true φ: a pair of its own stands out."""
    truth = Truth(models=5, replicas=1, examples=60_000, difficulty=0.25, pair=0.25, noise=0.2)
    panel = simulate(truth, 1)
    found = k.excess_error_correlation(panel, Bootstrap(draws=40))
    phi = np.corrcoef(panel.predictions != panel.labels)
    np.testing.assert_allclose(found.value, k.excess(phi), atol=1e-8)
    true = k.excess(truth.error_correlation())
    assert true[0, 1] > 0.1
    assert found.value[0, 1] == pytest.approx(true[0, 1], abs=0.02)
    assert found.low[0, 1] < found.value[0, 1] < found.high[0, 1]
    np.testing.assert_allclose(found.value, true, atol=0.02)
    assert found.reasons == {(m, m): k.NO_EXCESS_WITH_ITSELF for m in range(5)}
    assert "there are 3" in k.excess_error_correlation(simulate(Truth(models=3, replicas=1), 0), PLAN).reasons[0, 1]


def test_replicas_that_do_not_fail_together_are_flagged():
    noise = simulate(Truth(models=2, replicas=2, examples=300, difficulty=0.0, noise=1.0), 3)
    found = k.kinship(noise, PLAN)
    for (i, j), text in found.reasons.items():
        if np.isnan(found.value[i, j]):
            assert "do not fail together" in text
        else:
            assert "within noise" in text
    assert (0, 1) in found.reasons


def test_perfect_and_equal_models():
    panel = simulate(Truth(models=4, replicas=2, examples=300), 0)
    predictions = panel.predictions.copy()
    predictions[:2] = panel.labels
    perfect = SimulatedPanel(**{**vars(panel), "predictions": predictions})
    found = k.kinship(perfect, PLAN)
    assert "model_0 is always right or always wrong in each of its runs" in found.reasons[0, 2]
    assert np.isfinite(found.value[1, 2])
    predictions[1] = panel.predictions[1]
    assert "in all but one of its runs" in k.kinship(perfect, PLAN).reasons[0, 2]
    predictions = np.tile(panel.predictions[:2], (4, 1))  # every model is the first, replica by replica
    equal = SimulatedPanel(**{**vars(panel), "predictions": predictions})
    found = k.kinship(equal, PLAN)
    assert (found.value[np.triu_indices(4, k=1)] > 1).all()  # the same run in both: more than replicas of a recipe
    assert (k.claims(equal, PLAN).more_than_replicas_adjusted[np.triu_indices(4, k=1)] < 0.001).all()
    assert k.recipe_diversity(equal, PLAN).value == pytest.approx(1)


def test_identical_replicas_have_kinship_one():
    panel = simulate(Truth(models=4, replicas=2, examples=300), 0)
    same = SimulatedPanel(**{**vars(panel), "predictions": np.tile(panel.predictions[0], (8, 1))})
    found = k.kinship(same, PLAN)
    np.testing.assert_allclose(found.value, 1)
    np.testing.assert_allclose(found.parts["reliability"].value[np.diag_indices(4)], 1)
    assert k.recipe_diversity(same, PLAN).value == pytest.approx(1)
    claims = k.claims(same, PLAN)
    assert not (claims.more_than_replicas < 0.05).any()  # no spread to judge by: undefined, not significant


def test_without_draws_there_are_values_and_no_intervals():
    panel = simulate(Truth(models=4, replicas=2, examples=300), 0)
    plan = Bootstrap(draws=0)
    found = k.kinship(panel, plan)
    assert np.isfinite(found.value).all()
    assert np.isnan(found.low).all()
    effective = k.recipe_diversity(panel, plan)
    assert effective.low is None
    assert "no draws" in effective.reason
    assert np.isnan(k.claims(panel, plan).less_than_independent).all()
    with pytest.raises(ValueError, match="two draws"):
        k.claims(panel, Bootstrap(draws=1))


def test_recipe_diversity_is_the_corrected_score():
    panel = simulate(Truth(models=4, replicas=3, examples=500), 0)
    found = k.recipe_diversity(panel, PLAN)
    correlations = k.Correlations.of(panel, PLAN)
    score = k.vendi_score(k.attenuation_corrected(correlations.value))
    draws = k.vendi_score(k.attenuation_corrected(correlations.draws))
    assert found.parts["score"].value == pytest.approx(score)
    assert found.value == pytest.approx(2 * score - draws.mean())
    assert found.low < found.value < found.high
    assert found.n == 500


def test_one_example():
    single = simulate(Truth(models=4, replicas=2, examples=1), 0)
    for found in (k.kinship(single, PLAN), k.excess_kinship(single, PLAN)):
        assert np.isnan(found.value).all()
        assert "there are 1" in found.reasons[0, 1]
    assert "there are 1" in k.recipe_diversity(single, PLAN).reason
    assert "there are 1" in k.reliability(single, PLAN).reasons[0]
    assert np.isnan(k.claims(single, PLAN).less_than_independent).all()


@pytest.mark.parametrize(("accuracy", "few"), [(0.95, FEW), (0.6, ""), (0.05, FEW_RIGHT)])
def test_the_likeness_of_failures_has_no_interval_where_they_are_few(accuracy, few):
    """By one rule for all of its measures, and for the test that rests on such an interval."""
    panel = simulate(Truth(models=4, replicas=2, examples=200, accuracy=accuracy, difficulty=0.5, noise=0.2), 0)
    upper = np.triu_indices(4, k=1)
    named = [pairs(panel, name, PLAN) for name in ("error_correlation", "error_consistency", "capa_discrete")]
    on_kinship = [k.kinship(panel, PLAN), k.excess_kinship(panel, PLAN), k.excess_error_correlation(panel, PLAN)]
    for found in on_kinship + named:
        assert np.isfinite(found.value[upper]).all()
        assert (np.isnan(found.low[upper]) == bool(few)).all()
        assert (np.isnan(found.high[upper]) == bool(few)).all()
        told = [found.reasons.get(pair, "") for pair in zip(*upper, strict=True)]
        assert all(few in reason and bool(few) == ("for an interval" in reason) for reason in told)
        assert not few or not any("bootstrap draws" in reason for reason in told)  # no interval rests on any
        assert not found.note
    claims = k.claims(panel, PLAN)
    assert (np.isnan(claims.more_than_replicas[upper]) == bool(few)).all()
    assert np.isfinite(claims.less_than_independent[upper]).all()


def test_failures_that_are_seen_together_give_an_interval_though_chance_would_have_few():
    """Two models with 6 % failures each, of which most are common: 3.6 of 1,000 examples by chance, 40 seen."""
    wrong = np.zeros((4, 1000), dtype=bool)
    wrong[:, :40] = True
    for run in range(4):
        wrong[run, 100 * (run + 1) : 100 * (run + 1) + 20] = True
    labels = np.random.default_rng(7).integers(0, 3, size=1000)
    panel = SimulatedPanel(
        ("a", "b"), (0, 0, 1, 1), (0, 1, 0, 1), tuple(map(str, range(1000))), ("x", "y", "z"), labels,
        np.where(wrong, (labels + 1) % 3, labels), None,
    )  # fmt: skip
    found = pairs(panel, "error_correlation", PLAN)
    assert np.isfinite(found.low).all()
    assert np.isfinite(k.reliability(panel, PLAN).low).all()
    assert np.isfinite(k.claims(panel, PLAN).more_than_replicas[0, 1])


def test_the_likeness_of_own_replicas_follows_the_rule_of_pairs():
    """Independent runs of one model with 3 % failures: an interval from next to no common failure would not hold 0."""
    few = simulate(Truth(models=2, replicas=2, examples=200, accuracy=0.97), 0)
    own, inside = k.reliability(few, PLAN), k.kinship(few, PLAN).parts["reliability"]
    many = k.reliability(simulate(Truth(models=2, replicas=2, examples=200, accuracy=0.6), 0), PLAN)
    for m in range(2):
        assert np.isnan(own.low[m])
        assert np.isnan(inside.low[m, m])
        assert own.reasons[m] == inside.reasons[m, m] == FEW
        assert np.isfinite(many.low[m])


def test_fewer_failures_together_against_fishers_exact_test():
    random = np.random.default_rng(0)
    wrong = (random.random((5, 60)) < [[0.1], [0.3], [0.5], [0.9], [0.02]]).astype(float)
    found = k.fewer_together(wrong, np.ones(5, dtype=int))
    for i, j in zip(*np.triu_indices(5, k=1), strict=True):
        both, one, other = wrong[i] @ wrong[j], wrong[i].sum(), wrong[j].sum()
        table = [[both, one - both], [other - both, 60 - one - other + both]]
        assert found[i, j] == pytest.approx(fisher_exact(np.array(table).astype(int), "less").pvalue, abs=1e-9)
        assert found[i, j] == found[j, i]


@pytest.mark.parametrize(("accuracy", "examples"), [(0.95, 200), (0.9, 200), (0.97, 1000), (0.6, 200)])
def test_fewer_failures_together_of_several_runs_against_permutations(accuracy, examples):
    """In every place of the distribution, far out no smaller than it is."""
    random = np.random.default_rng(1)
    panel = simulate(Truth(models=2, replicas=3, examples=examples, accuracy=accuracy, difficulty=0.0), 4)
    counts = (panel.predictions != panel.labels).reshape(2, 3, examples).sum(axis=1).astype(float)
    drawn = np.array([counts[0] @ random.permutation(counts[1]) for _ in range(20_000)])
    for place in (0.001, 0.01, 0.05, 0.3, 0.7):
        joint = np.quantile(drawn, place, method="lower")
        # The examples of one model put in an order of which the joint failures are as many.
        while counts[0] @ counts[1] != joint:
            counts[1] = random.permutation(counts[1])
        share = (drawn <= joint).mean()
        found = k.fewer_together(counts, np.array([3, 3]))[0, 1]
        assert found == pytest.approx(share, abs=0.02)
        assert found > 0.6 * share


def strong(random: np.random.Generator, accuracy: float, examples: int, replicas: int, recipes: int) -> SimulatedPanel:
    """Three models with as many runs each, of three recipes that share nothing, or of one under three names."""
    own = np.repeat(random.normal(size=(recipes, examples)), 3 // recipes, axis=0).repeat(replicas, axis=0)
    wrong = np.sqrt(0.6) * own + np.sqrt(0.4) * random.normal(size=own.shape) > norm.ppf(accuracy)
    whole = simulate(Truth(models=3, replicas=replicas, examples=examples), 0)
    return SimulatedPanel(**{**vars(whole), "predictions": np.where(wrong, (whole.labels + 1) % 4, whole.labels)})


@pytest.mark.parametrize(("claim", "recipes"), [("less_than_independent", 3), ("more_than_replicas", 1)])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize(("accuracy", "examples"), [(0.6, 200), (0.9, 200), (0.95, 200), (0.97, 200), (0.97, 1000)])
def test_claims_about_strong_models_are_not_made_by_chance(accuracy, examples, replicas, claim, recipes):
    """Corrected p below .05 for any of three pairs of which none is what is claimed, in 60 panels."""
    found = 0
    for seed in range(60):
        panel = strong(np.random.default_rng(seed), accuracy, examples, replicas, recipes)
        claims = k.claims(panel, Bootstrap(60, seed))
        p = getattr(claims, f"{claim}_adjusted")[np.triu_indices(3, k=1)]
        found += bool((p < 0.05).any())
    assert found <= binom.ppf(0.999, 60, 0.05)
