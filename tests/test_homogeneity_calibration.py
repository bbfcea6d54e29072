"""Do the intervals and p-values keep their word? On panels whose truth is known.

Numbers of panels are those a test can afford; `tests/benchmarks/measures.py --calibrate 400` does the same at length.
Bands: what a binomial with the stated coverage, less the 2 points that a percentile interval may lose, gives in 999
of 1,000 cases. The seeds are fixed, so a test that passes passes again.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import binom, kstest

from zoo.homogeneity import behaviour
from zoo.homogeneity import kinship as k
from zoo.homogeneity.bootstrap import Bootstrap, interval
from zoo.homogeneity.failures import systemic_failure
from zoo.homogeneity.formulas import FORMULAS
from zoo.homogeneity.simulate import Truth, simulate

PANELS = 100
PLAN = Bootstrap(draws=200)
TRUTHS = {
    "independent": Truth(examples=800, difficulty=0.0),
    "given_difficulty": Truth(examples=800, difficulty=0.36),
    "shared": Truth(examples=800, difficulty=0.25, pair=0.2),
    "one_recipe": Truth(examples=800, same=True),
    "two_replicas": Truth(examples=800, replicas=2, accuracy=(0.6, 0.7, 0.8, 0.85)),
}


@dataclass(frozen=True)
class Study:
    """Of PANELS panels: φ, kinship and excess of the pair (0, 1) and the recipe diversity, with bounds, (panels,) each;
    more: p-values of the pair being more alike than replicas."""

    true: dict[str, float]
    value: dict[str, np.ndarray]
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]
    more: np.ndarray


@contextlib.contextmanager
def only_phi() -> Iterator[None]:
    """The other measures of behaviour, which come along, would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behaviour, "FORMULAS", {"error_correlation": FORMULAS["error_correlation"]})
        yield


@pytest.fixture
def phi_only() -> Iterator[None]:
    with only_phi():
        yield


@functools.cache
def study(name: str) -> Study:
    truth = TRUTHS[name]
    phi = truth.error_correlation()
    kinships = k.attenuation_corrected(phi)
    true = {"phi": phi[0, 1], "kinship": kinships[0, 1], "excess": k.excess(kinships)[0, 1],
            "recipes": float(k.vendi_score(kinships))}  # fmt: skip
    rows, more = [], []
    with only_phi():
        for seed in range(PANELS):
            panel = simulate(truth, seed)
            found = k.Correlations.of(panel, PLAN)
            low, high = interval(found.draws, PLAN.confidence)
            pairs = [k.kinship(panel, PLAN), k.excess_kinship(panel, PLAN)]
            recipes = k.recipe_diversity(panel, PLAN)
            rows.append(
                [(found.value[0, 1], low[0, 1], high[0, 1])]
                + [(pair.value[0, 1], pair.low[0, 1], pair.high[0, 1]) for pair in pairs]
                + [(recipes.value, recipes.low, recipes.high)]
            )
            more.append(k.claims(panel, PLAN).more_than_replicas[0, 1])
    table = np.array(rows, dtype=np.float64)
    parts = [{key: table[:, i, part] for i, key in enumerate(true)} for part in range(3)]
    return Study(true, *parts, np.array(more))


def covered(found: Study, key: str) -> int:
    return int(((found.low[key] <= found.true[key]) & (found.true[key] <= found.high[key])).sum())


@pytest.mark.parametrize("key", ["phi", "kinship", "excess", "recipes"])
@pytest.mark.parametrize("name", TRUTHS)
def test_intervals_cover_the_truth_and_values_are_unbiased(name, key):
    found = study(name)
    assert covered(found, key) >= binom.ppf(1e-3, PANELS, 0.93)
    if (name, key) not in (("independent", "excess"), ("independent", "recipes")):
        # At these two the interval is wider than it need be: no factor to fit, and the edge of the scale.
        assert covered(found, key) <= binom.ppf(1 - 1e-3, PANELS, 0.97)
    error = found.value[key] - found.true[key]
    noise = found.value[key].std() / np.sqrt(PANELS)
    assert abs(error.mean()) < 3.3 * noise + 0.02


@pytest.mark.parametrize(
    ("claim", "truth"),
    [
        ("more_than_replicas", Truth(models=2, examples=800, same=True)),
        ("less_than_independent", Truth(models=2, examples=800, replicas=1, difficulty=0.0)),
    ],
)
def test_p_values_are_uniform_where_the_claim_is_just_not_true(claim, truth, phi_only):
    """Replicas of one recipe under two names; independent models. Panels other than those above."""
    p = [getattr(k.claims(simulate(truth, seed), PLAN), claim)[0, 1] for seed in range(1000, 1300)]
    assert kstest(p, "uniform").pvalue > 1e-3
    assert binom.ppf(1e-3, 300, 0.04) <= sum(value < 0.05 for value in p) <= binom.ppf(1 - 1e-3, 300, 0.06)


def test_the_tests_find_what_is_there():
    """Models that share difficulty are not replicas, and a pair that is one run twice is more than replicas."""
    assert (study("given_difficulty").more > 0.99).all()
    panel = simulate(Truth(models=2, replicas=2, examples=800), 0)
    panel.predictions[2:] = panel.predictions[:2]
    assert k.claims(panel, PLAN).more_than_replicas[0, 1] < 1e-6
    apart = simulate(Truth(models=2, replicas=1, examples=800, classes=2, accuracy=0.5), 0)
    apart.predictions[1, :700] = 1 - apart.predictions[0, :700]
    assert k.claims(apart, PLAN).less_than_independent[0, 1] < 1e-6


def test_kinship_does_not_depend_on_the_number_of_replicas_and_raw_agreement_does():
    """What the correction for attenuation is for: noisier recipes lower φ, and leave kinship where it is."""
    truths = [Truth(models=2, replicas=3, examples=20_000, difficulty=0.6 * (1 - noise), noise=noise, accuracy=0.5)
              for noise in (0.2, 0.6)]  # fmt: skip
    found = [k.Correlations.of(simulate(truth, 0), Bootstrap(draws=0)).value for truth in truths]
    assert found[0][0, 1] > 1.5 * found[1][0, 1]
    kinships = [k.attenuation_corrected(value)[0, 1] for value in found]
    assert kinships[0] == pytest.approx(kinships[1], abs=0.06)


def test_systemic_failure_covers_the_product_for_independent_models():
    truth = Truth(models=3, replicas=1, examples=800, difficulty=0.0, accuracy=0.6)
    hits = hits_ratio = 0
    for seed in range(PANELS):
        found = systemic_failure(simulate(truth, seed), PLAN)
        ratio = found.parts["log_ratio"]
        hits += found.low <= 0.4**3 <= found.high
        hits_ratio += ratio.low <= 0 <= ratio.high
    for count in (hits, hits_ratio):
        assert binom.ppf(1e-3, PANELS, 0.93) <= count <= binom.ppf(1 - 1e-3, PANELS, 0.97)
