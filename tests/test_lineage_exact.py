"""R1 and R2: uniform p-values when nothing is shared, small ones when something is, and tails not too light."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from zoo.lineage import exact
from zoo.lineage.multiple import ALIGNED, CALIBRATED_SHARE, ENOUGH_REPLICAS, Q, adjusted, adjusted_together


def distances(count: int) -> list[int]:
    """Sums of squared steps of every permutation, by writing all of them down."""
    return [sum((a - b) ** 2 for a, b in enumerate(order)) for order in itertools.permutations(range(count))]


@pytest.mark.parametrize("count", [4, 5, 7])
def test_the_counted_distribution_is_that_of_all_permutations(count):
    every = np.array(distances(count))
    for distance in sorted(set(every.tolist())):
        expected = (every <= distance).mean()
        assert math.exp(exact.log_p_counted(count, distance)) == pytest.approx(expected)


def test_p_is_that_of_scipy_where_the_t_approximation_is_good():
    random = np.random.default_rng(0)
    for _ in range(20):
        order = random.permutation(200)
        expected = stats.spearmanr(np.arange(200), order, alternative="greater")
        assert exact.spearman(order) == pytest.approx(expected.statistic)
        assert math.exp(exact.log_p_of_order(order)) == pytest.approx(expected.pvalue, rel=0.02)


@pytest.mark.parametrize("count", [13, 14])
def test_the_approximation_is_hardly_ever_below_what_is_counted(count):
    ratios = [
        exact.log_p_approximate(count, distance) - exact.log_p_counted(count, distance)
        for distance in range(0, (count**3 - count) // 6, 2)
    ]
    assert min(ratios) > math.log(0.7)
    assert max(ratios) < 10  # and of use: not merely 1


@given(st.integers(15, 300), st.floats(0, 1))
@settings(max_examples=60)
def test_the_approximation_never_falls_with_the_distance(count, share):
    most = (count**3 - count) // 3
    one = int(share * most) // 2 * 2
    two = min(most, one + 2 * count)
    assert exact.log_p_approximate(count, one) <= exact.log_p_approximate(count, two) + 1e-9


@pytest.mark.parametrize("count", [5, 8])
def test_the_volume_bound_holds(count):
    every = np.array(distances(count))
    for distance in sorted(set(every.tolist())):
        assert exact.log_volume_bound(count, distance) >= math.log((every <= distance).mean()) - 1e-9


def test_the_identity_is_as_rare_as_one_permutation_of_all():
    for count in (9, 40, 500):
        assert exact.log_p_of_order(np.arange(count)) == pytest.approx(-math.lgamma(count + 1), rel=1e-3)


def likely(ps: np.ndarray, level: float) -> bool:
    """Whether as many p-values are up to a level as chance makes, in the 99.9 % band."""
    low, high = stats.binom.interval(0.999, len(ps), level)
    return bool(low <= (ps <= level).sum() <= high)


def independents(units: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two networks that learned much the same from the same data, each with its units in an order of its own."""
    learned = random.normal(size=(units, 20))
    one, two = (learned[random.permutation(units)] + random.normal(size=(units, 20)) for _ in range(2))
    return one, two


@pytest.mark.parametrize("units", [8, 30])
def test_numbering_of_independent_networks_is_uniform_however_alike_they_are(units):
    random = np.random.default_rng(units)
    ps = np.array([math.exp(exact.index_order("", *independents(units, random)).log_p) for _ in range(1500)])
    assert likely(ps, 0.05)
    assert likely(ps, 0.01)
    assert stats.kstest(ps, "uniform").pvalue > 0.001 or units == 8  # few units: p-values have few values


def test_units_that_are_all_alike_are_not_matched_in_their_order():
    """Rows of zeros tie with everything; a matching that gave them away in order would find the same numbering."""
    random = np.random.default_rng(3)
    ps = []
    for seed in range(300):
        one, two = (random.normal(size=(20, 5)) for _ in range(2))
        one[random.permutation(20)[5:]] = 0
        two[:] = 0 if seed % 2 else two
        ps.append(math.exp(exact.index_order("", one, two, seed).log_p))
    assert likely(np.array(ps), 0.05)


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=25)
def test_a_descendant_has_the_numbering_of_its_parent(seed, noise):
    random = np.random.default_rng(seed)
    parent = random.normal(size=(64, 100))
    child = parent + noise * random.normal(size=parent.shape)
    assert exact.index_order("", parent, child).log_p < math.log(1e-20)
    assert exact.index_order("", parent, child * np.exp(random.normal(size=(64, 1)))).log_p < math.log(1e-20)


@given(st.integers(0, 10**6))
@settings(max_examples=25)
def test_the_order_of_two_networks_does_not_matter(seed):
    one, two = independents(20, np.random.default_rng(seed))
    forth, back = exact.index_order("", one, two), exact.index_order("", two, one)
    assert forth.log_p == pytest.approx(back.log_p, abs=1e-9)


def test_too_few_units_are_refused():
    with pytest.raises(ValueError, match="3 units"):
        exact.index_order("", np.eye(3), np.eye(3))


def test_fisher_is_that_of_scipy_and_goes_where_it_underflows():
    for ps in ([0.3, 0.02], [0.9], [1e-5, 0.5, 0.04, 0.7]):
        expected = stats.combine_pvalues(ps, method="fisher").pvalue
        assert math.exp(exact.fisher([math.log(p) for p in ps], [100] * len(ps))) == pytest.approx(expected)
    assert exact.fisher([-5000.0, -3000.0], [100, 200]) == pytest.approx(-8000 + math.log1p(8000))
    assert exact.fisher([0.0, 0.0], [4, 100]) == 0
    with pytest.raises(ValueError, match="no p-values"):
        exact.fisher([], [])


@pytest.mark.parametrize("counts", [(4, 4), (4, 5, 6)])
def test_fisher_of_few_units_is_counted_out(counts):
    """By writing all orders of all groups down: no order is more likely to be called unusual than p says."""
    log_ps = {
        count: np.array([exact.log_p_counted(count, distance) for distance in distances(count)]) for count in counts
    }
    products = functools.reduce(np.add.outer, [log_ps[count] for count in counts]).reshape(-1)
    for place in np.random.default_rng(0).choice(len(products), 25):
        expected = (products <= products[place] + 1e-9).mean()
        orders = np.unravel_index(place, [len(log_ps[count]) for count in counts])
        found = exact.fisher([log_ps[count][at] for count, at in zip(counts, orders, strict=True)], counts)
        assert expected - 1e-12 <= math.exp(found) <= expected * 1.02 + 1e-12


def test_fisher_of_few_and_many_units_is_uniform():
    """Where chi² is far too careful: heads of an attention are four."""
    random = np.random.default_rng(0)
    fours = np.array([exact.log_p_counted(4, distance) for distance in distances(4)])
    drawn = [[*random.choice(fours, 3), math.log(random.uniform())] for _ in range(3000)]
    ps = np.exp([exact.fisher(log_ps, [4, 4, 4, 100]) for log_ps in drawn])
    for level in (0.01, 0.05, 0.3):
        assert abs((ps <= level).mean() - level) < 3.3 * math.sqrt(level * (1 - level) / 3000)
    as_if_continuous = np.exp([exact.fisher(log_ps, [100] * 4) for log_ps in drawn])
    assert (as_if_continuous <= 0.05).mean() < 0.04


def test_cauchy_is_its_formula_and_goes_where_it_underflows():
    ps = np.array([0.2, 0.03, 0.9])
    expected = 0.5 - math.atan(float(np.mean(np.tan((0.5 - ps) * math.pi)))) / math.pi
    assert math.exp(exact.cauchy(np.log(ps).tolist())) == pytest.approx(expected)
    assert exact.cauchy([-29.0, -1.0]) == pytest.approx(-29 + math.log(2), abs=1e-6)
    assert exact.cauchy([-4000.0, -1.0]) == pytest.approx(-4000 + math.log(2))


def layer(random: np.random.Generator, classes: np.ndarray, pull: float = 0.0) -> np.ndarray:
    """Fresh weights of dead inputs; `pull` moved all inputs of one constant value together."""
    fresh = random.uniform(-1, 1, size=(24, len(classes)))
    return fresh * 0.9 + pull * random.normal(size=(24, 1)) * (1 + classes)


def test_dead_coordinates_of_independent_networks_are_uniform():
    random = np.random.default_rng(0)
    classes = np.array([0] * 9 + [1] * 5)
    tests = [
        exact.dead_coordinates(layer(random, classes, 3), layer(random, classes, 3), classes, 199, seed)
        for seed in range(600)
    ]
    ps = np.array([test.p for test in tests])
    assert likely(ps, 0.05)
    assert likely(ps, 0.01)
    assert stats.kstest(ps, "uniform").pvalue > 0.001


def test_dead_coordinates_of_a_descendant_are_the_same():
    random = np.random.default_rng(1)
    classes = np.zeros(12, dtype=int)
    parent = layer(random, classes)
    child = 0.7 * parent + 2 * random.normal(size=(24, 1))  # weight decay, and a pull on all of them alike
    found = exact.dead_coordinates(parent, child, classes)
    assert found.p == pytest.approx(1 / (exact.MOST_DRAWS + 1))
    assert found.statistic == pytest.approx(1)


def test_too_few_dead_coordinates_are_refused():
    with pytest.raises(ValueError, match="6 dead"):
        exact.dead_coordinates(np.ones((5, 6)), np.ones((5, 6)), np.zeros(6, dtype=int))


def test_error_rate_is_that_of_benjamini_and_yekutieli():
    statsmodels = pytest.importorskip("statsmodels.stats.multitest")
    ps = [0.001, 0.3, 0.02, 0.9, 0.0004]
    assert adjusted(ps) == pytest.approx(statsmodels.multipletests(ps, method="fdr_by")[1].tolist())
    assert adjusted([]) == []


def test_all_tests_share_one_error_rate():
    pairs = [{"numbering": 1e-9, "dead": 0.5, ALIGNED: 0.04}, {"numbering": 0.3}, {}]
    found = adjusted_together(pairs)
    exact_ones = adjusted([1e-9, 0.5, 0.3])
    assert found[0]["numbering"] == pytest.approx(exact_ones[0] / (1 - CALIBRATED_SHARE))
    assert found[0]["dead"] == 1  # no p-value is more
    assert found[0][ALIGNED] == pytest.approx(0.04 / CALIBRATED_SHARE)
    assert found[2] == {}
    assert adjusted_together([{"numbering": 0.02, "dead": 0.3}]) == [
        dict(zip(("numbering", "dead"), adjusted([0.02, 0.3]), strict=True))
    ]
    assert adjusted_together([{ALIGNED: 0.05}]) == [{ALIGNED: 0.05}]  # alone it has all of q
    assert 1 / (ENOUGH_REPLICAS + 1) <= CALIBRATED_SHARE * Q < 1 / ENOUGH_REPLICAS


def test_the_error_rate_of_all_tests_of_one_pair_is_kept():
    """Three independent tests of nothing: at most one pair in twenty is called kin (5,000 pairs; 99.9 % band)."""
    random = np.random.default_rng(0)
    rejected = 0
    for _ in range(5000):
        numbering, dead = random.uniform(size=2)
        conformal = random.integers(1, ENOUGH_REPLICAS + 2) / (ENOUGH_REPLICAS + 1)
        (ps,) = adjusted_together([{"numbering": numbering, "dead": dead, ALIGNED: conformal}])
        rejected += min(ps.values()) <= Q
    assert 0.03 < rejected / 5000 < 0.05 + 3.3 * math.sqrt(0.05 * 0.95 / 5000)


def test_orders_are_drawn_until_the_answer_is_known():
    """Besag & Clifford: few draws where nothing is to be found, and a uniform p."""
    random = np.random.default_rng(1)
    classes = np.repeat([0, 1], 10)
    ps, drawn = [], []
    for seed in range(400):
        found = exact.dead_coordinates(layer(random, classes), layer(random, classes), classes, 9999, seed)
        ps.append(found.p)
        drawn.append(found.draws)
    assert np.median(drawn) < 200
    for level in (0.05, 0.2, 0.5):
        assert abs(np.mean(np.array(ps) <= level) - level) < 3.3 * math.sqrt(level * (1 - level) / 400)


def test_of_many_dead_coordinates_a_part_is_looked_at():
    random = np.random.default_rng(2)
    classes = np.zeros(2000, dtype=int)
    parent = random.normal(size=(8, 2000))
    found = exact.dead_coordinates(parent, parent + random.normal(size=parent.shape), classes, 999)
    assert found.dead == exact.MOST_DEAD
    assert found.p == pytest.approx(1 / 1000)
