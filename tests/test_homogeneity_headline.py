"""The headline: counting by hand, closed forms, another implementation of BCa, and every way to be undefined."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, t

from zoo.homogeneity import headline as h
from zoo.homogeneity.bootstrap import Bootstrap, jackknife_interval
from zoo.homogeneity.results import ONE_MODEL
from zoo.homogeneity.simulate import SimulatedPanel, Truth, simulate
from zoo.shares import UNSEEN

PLAN = Bootstrap(draws=200)
EXACT = Bootstrap(draws=0)


def panel_of(wrong: np.ndarray, runs: tuple[int, ...] | None = None) -> SimulatedPanel:
    """A panel whose runs fail where `wrong` (R, N) says so. Labels at random, so that no model is constant."""
    wrong = np.asarray(wrong, dtype=bool)
    labels = np.random.default_rng(7).integers(0, 3, size=wrong.shape[1])
    runs = runs or tuple(range(len(wrong)))
    return SimulatedPanel(
        tuple(f"m{m}" for m in range(max(runs) + 1)), runs, tuple(range(len(runs))),
        tuple(map(str, range(len(labels)))), ("a", "b", "c"), labels, np.where(wrong, (labels + 1) % 3, labels), None,
    )  # fmt: skip


def every_outcome(models: int, times: int) -> np.ndarray:
    """Failures of independent models that each fail half of the examples: every outcome once, over and over."""
    return np.tile(np.array(list(itertools.product([0, 1], repeat=models))).T, times)


def counted(panel: SimulatedPanel) -> tuple[float, float]:
    """Both numbers by counting: over every choice of one run a model, over every example."""
    models = len(panel.models)
    runs = [[r for r, m in enumerate(panel.runs) if m == model] for model in range(models)]
    wrong = panel.predictions != panel.labels
    sets = list(itertools.product(*runs))
    failures = np.array([[wrong[run].mean() for run in chosen] for chosen in sets]).mean(axis=0)
    together = np.mean([wrong[list(chosen)].all(axis=0).mean() for chosen in sets])
    total = np.concatenate([wrong[list(chosen)].sum(axis=0) for chosen in sets])
    single = sum(f * (1 - f) for f in failures)
    most, independent = failures.min(), math.prod(failures)
    joint = 1 + (models - 1) * (math.log(most) - math.log(together)) / (math.log(most) - math.log(independent))
    return models * single / total.var(), joint


def test_the_definition_in_the_docs_is_the_number():
    """M V / (V + C), V and C as docs/report.md defines them."""
    page = (Path(__file__).parent.parent / "docs" / "report.md").read_text(encoding="utf-8")
    assert "C the sum of the covariances of e over all ordered pairs of models (each pair twice)" in page
    wrong = np.random.default_rng(1).random((3, 200)) < [[0.2], [0.3], [0.4]]
    for failures in (wrong, wrong[[0, 1, 1]], wrong[[0, 0]]):
        covariances = np.cov(failures, bias=True)
        ordered = sum(covariances[a, b] for a, b in itertools.permutations(range(len(failures)), 2))
        variances = np.trace(covariances)
        value = len(failures) * variances / (variances + ordered)
        assert h.headline(panel_of(failures), EXACT).effective_models.value == pytest.approx(value)


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_both_numbers_are_what_counting_gives(replicas, seed):
    truth = Truth(models=3, replicas=replicas, examples=150, accuracy=(0.5, 0.6, 0.7), classes=3)
    panel = simulate(truth, seed)
    found = h.headline(panel, EXACT)
    effective, joint = counted(panel)
    assert found.effective_models.value == pytest.approx(effective, abs=1e-9)
    assert found.joint_failure.value == pytest.approx(joint, abs=1e-9)
    assert found.effective_models.n == found.joint_failure.n == 150
    assert found.models == (0, 1, 2)
    assert found.left_out == {}


def test_unequal_numbers_of_runs():
    whole = simulate(Truth(models=3, replicas=3, examples=150), 4)
    kept = [0, 1, 2, 3, 6, 7]
    panel = SimulatedPanel(**{
        **vars(whole), "runs": tuple(whole.runs[r] for r in kept), "seeds": tuple(whole.seeds[r] for r in kept),
        "predictions": whole.predictions[kept],
    })  # fmt: skip
    found = h.headline(panel, EXACT)
    effective, joint = counted(panel)
    assert found.effective_models.value == pytest.approx(effective, abs=1e-9)
    assert found.joint_failure.value == pytest.approx(joint, abs=1e-9)


@pytest.mark.parametrize("models", [2, 3, 5])
def test_independent_failures_count_as_all_the_models(models):
    found = h.headline(panel_of(every_outcome(models, 20)), PLAN)
    assert found.effective_models.value == pytest.approx(models, abs=1e-9)
    assert found.joint_failure.value == pytest.approx(models, abs=1e-9)
    assert found.effective_models.low < models < found.effective_models.high


@pytest.mark.parametrize("models", [2, 5])
def test_copies_count_as_one(models):
    one = simulate(Truth(models=1, replicas=1, examples=300), 0)
    found = h.headline(panel_of(np.repeat(one.predictions != one.labels, models, axis=0)), PLAN)
    for number in (found.effective_models, found.joint_failure):
        assert number.value == pytest.approx(1, abs=1e-9)
        assert (number.low, number.high, number.reason) == (None, None, UNSEEN)
        assert number.bound is None


def test_failures_that_avoid_each_other_count_as_more_than_the_models():
    wrong = np.zeros((3, 90), dtype=bool)
    for m in range(3):
        wrong[m, m * 20 : m * 20 + 20] = True
    found = h.headline(panel_of(wrong), PLAN)
    assert found.effective_models.value > 3
    assert found.effective_models.value == pytest.approx(counted_votes(wrong), abs=1e-9)
    evenly = h.headline(panel_of(np.array([[0, 1] * 20, [1, 0] * 20])), PLAN)
    assert evenly.effective_models.value is None
    assert evenly.effective_models.reason == h.AVOIDING


def counted_votes(wrong: np.ndarray) -> float:
    return float(len(wrong) * wrong.var(axis=1).sum() / wrong.sum(axis=0).var())


@pytest.mark.parametrize("r", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("models", [2, 4, 10])
def test_equal_correlations_are_the_design_effect(models, r):
    """Equal variances v and covariances r·v: M/(1 + (M − 1)r), which saturates at 1/r."""
    failures, spread = np.full(models, 0.3), 0.21
    variance = models * spread + models * (models - 1) * r * spread
    means = h.Means(failures, np.array(variance + (models * 0.3) ** 2), np.array(0.0), np.array(0.1))
    assert h.effective_number(means) == pytest.approx(models / (1 + (models - 1) * r))
    assert h.effective_number(means) < 1 / r


@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_the_ambiguity_of_krogh_and_vedelsby(seed):
    """Squared loss of the mean of the votes = mean loss − ambiguity, and the ambiguity is one of V and V + C."""
    panel = simulate(Truth(models=5, replicas=1, examples=200, accuracy=(0.5, 0.6, 0.7, 0.8, 0.9)), seed)
    wrong = (panel.predictions != panel.labels).astype(float)
    ambiguity = ((wrong - wrong.mean(axis=0)) ** 2).mean()
    accuracies = wrong.mean(axis=1)
    single = (accuracies * (1 - accuracies)).sum()
    number = h.headline(panel, EXACT).effective_models.value
    whole = 5 * single / number  # V + C
    assert ambiguity == pytest.approx((single - whole / 5) / 5 + accuracies.var())
    assert (wrong.mean(axis=0) ** 2).mean() == pytest.approx((wrong**2).mean() - ambiguity)


def test_an_exact_copy_lowers_the_number_of_votes_a_little():
    """It doubles one voice. Three independent models and one of them again: M V/(V + C) = 4·4v/(4v + 2v)."""
    wrong = every_outcome(3, 30)
    found = h.headline(panel_of(np.concatenate([wrong, wrong[:1]])), PLAN).effective_models
    assert found.value == pytest.approx(4 * 4 / 6, abs=1e-9)
    assert 2.6 < found.value < 3


def test_the_best_that_covers_all_the_others_do_is_one_model():
    """Nested failures: where the best fails, all fail."""
    wrong = np.zeros((3, 100), dtype=bool)
    wrong[0, :15] = wrong[1, :30] = wrong[2, :60] = True
    assert h.headline(panel_of(wrong), PLAN).joint_failure.value == pytest.approx(1, abs=1e-12)


def test_joint_failure_at_equal_accuracies_is_a_ratio_of_logarithms():
    wrong = np.zeros((3, 200), dtype=bool)
    wrong[:, :24] = True
    for m in range(3):
        wrong[m, 40 + 40 * m : 56 + 40 * m] = True
    found = h.headline(panel_of(wrong), PLAN).joint_failure
    assert found.value == pytest.approx(math.log(0.12) / math.log(0.2), abs=1e-12)
    assert found.low < found.value < found.high


@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 10_000), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_examples_models_and_runs_does_not_matter(models, replicas, seed, random):
    panel = simulate(Truth(models=models, replicas=replicas, examples=60, accuracy=0.6), seed)
    order, examples = list(range(models)), list(range(60))
    random.shuffle(order)
    random.shuffle(examples)
    runs = [m * replicas + r for m in order for r in reversed(range(replicas))]
    moved = SimulatedPanel(**{
        **vars(panel), "labels": panel.labels[examples], "predictions": panel.predictions[runs][:, examples],
    })  # fmt: skip
    before, after = h.headline(panel, EXACT), h.headline(moved, EXACT)
    for one, two in (
        (before.effective_models, after.effective_models), (before.joint_failure, after.joint_failure),
    ):  # fmt: skip
        assert (one.value is None) == (two.value is None)
        assert one.bound == two.bound
        if one.value is not None:
            assert one.value == pytest.approx(two.value, rel=1e-9)
            assert one.value > 0


@given(st.integers(0, 10_000), st.floats(0.3, 0.9), st.floats(0, 0.9))
@settings(max_examples=40, deadline=None)
def test_the_number_of_votes_of_two_models_is_read_off_their_correlation(seed, accuracy, difficulty):
    panel = simulate(
        Truth(models=2, replicas=1, examples=80, accuracy=accuracy, difficulty=difficulty, noise=0.1), seed
    )
    wrong = panel.predictions != panel.labels
    if (wrong.var(axis=1) == 0).any():
        return
    v, w = wrong.var(axis=1)
    r = np.corrcoef(wrong)[0, 1]
    found = h.headline(panel, EXACT).effective_models.value
    assert found == pytest.approx(2 * (v + w) / (v + w + 2 * r * math.sqrt(v * w)))


def test_the_value_without_one_example_is_the_value_of_the_others(monkeypatch):
    monkeypatch.setattr(h, "_ELEMENTS", 50)  # in tiles
    panel = simulate(Truth(models=3, replicas=2, examples=40, accuracy=0.5), 0)
    rows = h.Means.rows(h.failure_shares(panel))
    for of in (h.effective_number, h.against_joint_failure):
        expected = [of(h.Means.of(np.delete(rows, i, axis=1).mean(axis=1))) for i in range(40)]
        np.testing.assert_allclose(h.without_each(rows, of), expected, atol=1e-12)


class TestLeftOut:
    """Constant and perfect models."""

    def panel(self) -> SimulatedPanel:
        """m0, m1 and m3 with two runs each; m2 answers one class, m4 is never wrong."""
        plain = simulate(Truth(models=5, replicas=2, examples=300, classes=3), 0)
        predictions = plain.predictions.copy()
        predictions[4], predictions[5] = 1, 2
        predictions[8:] = plain.labels
        return SimulatedPanel(**{**vars(plain), "predictions": predictions})

    def test_they_are_named_and_change_nothing(self):
        panel = self.panel()
        found = h.headline(panel, PLAN)
        assert found.left_out == {2: "constant", 4: "perfect"} == h.left_out(panel)
        assert found.models == (0, 1, 3)
        kept = [0, 1, 2, 3, 6, 7]
        rest = SimulatedPanel(**{
            **vars(panel), "models": ("m0", "m1", "m3"), "runs": (0, 0, 1, 1, 2, 2), "seeds": (0, 1) * 3,
            "predictions": panel.predictions[kept],
        })  # fmt: skip
        alone = h.headline(rest, PLAN)
        assert alone.effective_models == found.effective_models
        assert alone.joint_failure == found.joint_failure

    def test_one_run_that_varies_or_fails_keeps_its_model(self):
        panel = self.panel()
        panel.predictions[4] = panel.predictions[0]
        panel.predictions[9] = panel.predictions[1]
        assert h.left_out(panel) == {}

    def test_fewer_than_two_models_left(self):
        panel = self.panel()
        panel.predictions[:4] = 0
        found = h.headline(panel, PLAN)
        assert found.models == (3,)
        assert found.effective_models.reason == found.joint_failure.reason == h.TOO_FEW_LEFT
        assert found.effective_models.value is None

    def test_all_perfect(self):
        panel = self.panel()
        panel.predictions[:] = panel.labels
        found = h.headline(panel, PLAN)
        assert found.left_out == dict.fromkeys(range(5), "perfect")
        assert found.effective_models.reason == h.TOO_FEW_LEFT

    def test_one_model(self):
        found = h.headline(simulate(Truth(models=1, replicas=2, examples=50), 0), PLAN)
        assert found.effective_models.reason == found.joint_failure.reason == ONE_MODEL


def test_too_few_examples():
    found = h.headline(simulate(Truth(models=3, replicas=1, examples=3, accuracy=0.5), 0), PLAN)
    assert "there are 3" in found.effective_models.reason
    assert "there are 3" in found.joint_failure.reason
    assert h.left_out(simulate(Truth(models=3, replicas=1, examples=1), 0)) == {}


class TestFewJointFailures:
    """n·S < 10."""

    def wrong(self, together: int) -> np.ndarray:
        wrong = np.zeros((2, 400), dtype=bool)
        wrong[0, :80] = True
        wrong[1, 80 - together : 160 - together] = True
        return wrong

    def test_the_bound_is_that_of_clopper_and_pearson(self):
        found = h.headline(panel_of(self.wrong(3)), PLAN)
        end = beta.ppf(0.975, 4, 397)
        assert found.joint_failures == 3
        assert found.joint_failure.bound == "at_least"
        assert found.joint_failure.low == pytest.approx(1 + (math.log(0.2) - math.log(end)) / -math.log(0.2))
        assert found.joint_failure.high is None
        assert found.joint_failure.value == pytest.approx(math.log(3 / 400) / math.log(0.2))
        assert found.joint_failure.low < found.joint_failure.value
        assert found.joint_failure.reason == h.RARELY_TOGETHER
        assert h.headline(panel_of(self.wrong(3)), EXACT).joint_failure == found.joint_failure  # it takes no draws

    def test_none_at_all(self):
        found = h.headline(panel_of(self.wrong(0)), PLAN).joint_failure
        assert found.value is None
        assert found.low == pytest.approx(math.log(beta.ppf(0.975, 1, 400)) / math.log(0.2))
        assert found.reason == h.NEVER_TOGETHER
        scalar = h.effective_against_joint_failure(panel_of(self.wrong(0)), PLAN)
        assert (scalar.value, scalar.low, scalar.high, scalar.reason) == (None, None, None, h.NEVER_TOGETHER)
        assert scalar.parts["at_least"].value == found.low

    def test_ten_have_an_interval(self):
        assert h.headline(panel_of(self.wrong(9)), PLAN).joint_failure.bound == "at_least"
        found = h.headline(panel_of(self.wrong(10)), PLAN).joint_failure
        assert found.bound is None
        assert found.low < found.value < found.high

    def test_a_bound_is_never_below_one(self):
        """Copies that fail rarely: the upper end of S lies above S_max, which S cannot."""
        wrong = np.zeros((2, 400), dtype=bool)
        wrong[:, :5] = True
        found = h.headline(panel_of(wrong), PLAN).joint_failure
        assert (found.value, found.low) == (pytest.approx(1), 1)


def test_with_few_failures_there_is_no_interval():
    few = h.headline(simulate(Truth(models=3, replicas=1, examples=200, accuracy=0.95), 0), PLAN)
    assert few.few_failures
    assert few.effective_models.reason == h.FEW
    assert few.effective_models.value is not None
    assert (few.effective_models.low, few.effective_models.high) == (None, None)
    many = h.headline(simulate(Truth(models=3, replicas=1, examples=200, accuracy=0.6), 0), PLAN)
    assert not many.few_failures
    assert many.effective_models.reason == ""
    assert many.effective_models.low < many.effective_models.value < many.effective_models.high


def test_one_weak_model_buys_no_interval_for_those_that_hardly_fail():
    rates = (np.arange(300) < 3, np.arange(300) % 100 == 0, np.arange(300) % 100 == 1, np.arange(300) % 5 < 2)
    found = h.headline(panel_of(np.array(rates)), PLAN)
    assert found.few_failures
    assert found.effective_models.reason == h.FEW_OF_SOME
    assert found.effective_models.value is not None
    assert found.effective_models.low is None


@pytest.mark.parametrize("seldom", [4, 5])
def test_five_failures_of_the_model_that_fails_most_rarely_are_enough(seldom):
    random = np.random.default_rng(0)
    wrong = np.array([random.permutation(1000) < count for count in (seldom, 100, 100)])
    found = h.headline(panel_of(wrong), PLAN)
    assert found.few_failures == (seldom < 5)
    assert (found.effective_models.low is None) == (seldom < 5)


def test_few_failures_that_two_share_give_no_interval():
    """Two independent models with 33 and 35 failures of 1,000 have one in common, as chance has it."""
    wrong = np.zeros((2, 1000), dtype=bool)
    wrong[0, :33] = wrong[1, 32:67] = True
    found = h.headline(panel_of(wrong), PLAN)
    assert found.few_failures
    assert found.effective_models.reason == h.FEW_SHARED
    assert (found.effective_models.low, found.effective_models.high) == (None, None)


@pytest.mark.parametrize("together", [4, 5])
def test_five_failures_that_two_share_are_enough(together):
    """Seen, though chance would have one."""
    wrong = np.zeros((2, 1000), dtype=bool)
    wrong[0, :33] = wrong[1, 33 - together : 66 - together] = True
    assert h.headline(panel_of(wrong), PLAN).few_failures == (together < 5)


def test_right_answers_count_as_failures_do():
    """The variance of votes does not know which is which, and so neither do the rules."""
    wrong = np.zeros((2, 1000), dtype=bool)
    wrong[0, :33] = wrong[1, 32:67] = True
    found = h.headline(panel_of(~wrong), PLAN)
    assert found.effective_models.reason == h.FEW_RIGHT_SHARED
    assert found.joint_failure.high is None
    rare = np.zeros((2, 1000), dtype=bool)
    rare[0, :4] = rare[1, :400] = True
    assert h.headline(panel_of(~rare), PLAN).effective_models.reason == h.FEW_RIGHT_OF_SOME
    assert h.headline(panel_of(~rare[:, :200] | ~wrong[:, :200]), PLAN).few_failures


@pytest.mark.parametrize("accuracy", [0.02, 0.05, 0.9, 0.97, 0.99])
@pytest.mark.parametrize("models", [2, 3, 4])
def test_an_interval_holds_its_own_value(models, accuracy):
    for seed in range(12):
        found = h.headline(simulate(Truth(models=models, replicas=1, examples=2000, accuracy=accuracy), seed), PLAN)
        for number in (found.effective_models, found.joint_failure):
            if number.high is not None:
                assert number.low <= number.value <= number.high


def intervals_of(accuracies: tuple[float, ...], examples: int) -> tuple[int, float]:
    """How many of 150 panels have an interval, and the share of those that hold the truth, that of a large sample."""
    truth = Truth(len(accuracies), 1, examples, 4, accuracies)
    true = h.headline(simulate(replace(truth, examples=400_000), 99), EXACT).effective_models.value
    found = [h.headline(simulate(truth, seed), PLAN).effective_models for seed in range(150)]
    held = [one.low <= true <= one.high for one in found if one.low is not None]
    return len(held), float(np.mean(held))


@pytest.mark.parametrize(
    ("accuracies", "examples"),
    [((0.99, 0.99, 0.99, 0.9), 1000), ((0.98, 0.97, 0.95, 0.6), 360), ((0.98,) * 5 + (0.5,), 600)],
)
def test_intervals_beside_a_weak_model_hold_the_truth(accuracies, examples):
    """.95 less what a binomial of 100 loses."""
    count, held = intervals_of(accuracies, examples)
    assert count >= 100
    assert held > 0.88


def test_where_strong_models_fail_three_times_next_to_no_panel_has_an_interval():
    """Without the rule 133 of 150 have one, and 73 % of those hold the truth."""
    assert intervals_of((0.99, 0.99, 0.99, 0.6), 300)[0] <= 5


@pytest.mark.parametrize("runs", [1, 2])
def test_a_model_that_is_never_right_is_left_out_and_changes_nothing(runs):
    """It added a whole model: the number of failures only ever rises by one."""
    plain = simulate(Truth(models=4, replicas=runs, examples=300), 1)
    never = SimulatedPanel(**{**vars(plain), "predictions": plain.predictions.copy()})
    never.predictions[3 * runs :] = (plain.labels + 1 + np.arange(300) % 3) % 4
    found = h.headline(never, PLAN)
    assert found.left_out == {3: "always_wrong"}
    alone = SimulatedPanel(**{
        **vars(plain), "models": plain.models[:3], "runs": plain.runs[: 3 * runs], "seeds": plain.seeds[: 3 * runs],
        "predictions": plain.predictions[: 3 * runs],
    })  # fmt: skip
    assert found.effective_models == h.headline(alone, PLAN).effective_models
    assert found.joint_failure == h.headline(alone, PLAN).joint_failure


def test_one_run_that_is_right_once_keeps_its_model():
    panel = simulate(Truth(models=3, replicas=2, examples=300), 1)
    panel.predictions[4:] = (panel.labels + 1) % 4
    panel.predictions[5, 7] = panel.labels[7]
    assert h.left_out(panel) == {}


def test_all_but_one_never_right():
    wrong = np.ones((3, 40), dtype=bool)
    wrong[0, :20] = False
    found = h.headline(panel_of(wrong), PLAN)
    assert found.left_out == {1: "always_wrong", 2: "always_wrong"}
    assert found.joint_failure.value is None
    assert found.joint_failure.reason == h.TOO_FEW_LEFT


def test_a_number_that_one_example_keeps_defined_has_no_interval():
    """Exactly one of two models fails every example but one: without that one their failures avoid each other."""
    wrong = np.array([np.arange(200) % 2, (np.arange(200) + 1) % 2], dtype=bool)
    wrong[:, 7] = True
    found = h.headline(panel_of(wrong), PLAN).effective_models
    assert found.value is not None
    assert (found.low, found.high, found.reason) == (None, None, h.NOT_WITHOUT)


def test_copies_with_several_runs_each_are_more_than_one_model():
    """One run of each is drawn independently, so that copies may stand for each other by different runs."""
    panel = simulate(Truth(models=1, replicas=2, examples=600), 0)
    for runs, bounds in ((1, (1 - 1e-9, 1 + 1e-9)), (2, (1.1, 1.6))):
        copies = SimulatedPanel(**{
            **vars(panel), "models": ("a", "b", "c"), "runs": tuple(np.repeat([0, 1, 2], runs).tolist()),
            "seeds": tuple(range(runs)) * 3, "predictions": np.tile(panel.predictions[:runs], (3, 1)),
        })  # fmt: skip
        assert bounds[0] < h.headline(copies, PLAN).effective_models.value < bounds[1]


class TestJackknifeInterval:
    def test_undefined_without_one_example_there_is_none(self):
        without = np.random.default_rng(0).normal(size=400)
        assert np.isfinite(jackknife_interval(0.0, without, 1e9, 0.95)).all()
        without[3] = np.nan
        assert np.isnan(jackknife_interval(0.0, without, 1e9, 0.95)).all()

    def test_of_a_mean_of_symmetric_values_it_is_students(self):
        """Kurtosis 1 + 2N/(N − 1): as many degrees of freedom as Student has. Values −1 and 1 have fewer tails."""
        data = np.random.default_rng(0).normal(size=400)
        data = np.concatenate([data, -data])
        without = (data.sum() - data) / (len(data) - 1)
        low, high = jackknife_interval(0.0, without, 1e9, 0.95)
        wanted = t.interval(0.95, len(data) - 1, loc=0, scale=data.std(ddof=1) / np.sqrt(len(data)))
        assert (low, high) == pytest.approx(wanted, rel=2e-3)

    def test_it_covers_the_logarithm_of_a_rare_share(self):
        """12 events expected of 400: the exact coverage over all counts, where Wald's on the same scale is no worse."""
        counts = np.arange(1, 60)
        chances = binom.pmf(counts, 400, 0.03)
        held = 0.0
        for count, chance in zip(counts, chances, strict=True):
            events = np.arange(400) < count
            without = -np.log((events.sum() - events) / 399) if count > 1 else np.full(400, np.nan)
            low, high = jackknife_interval(-np.log(count / 400), without, 1.0, 0.95)
            held += chance * (low <= -np.log(0.03) <= high)
        assert 0.93 <= held / chances.sum() <= 0.98

    def test_what_cannot_be_had(self):
        assert np.isnan(jackknife_interval(1.0, np.ones(50), 1.0, 0.95)).all()
        assert np.isnan(jackknife_interval(math.nan, np.arange(50.0), 1.0, 0.95)).all()
        assert np.isnan(jackknife_interval(1.0, np.full(50, np.nan), 1.0, 0.95)).all()
        assert np.isnan(jackknife_interval(1.0, np.append(np.arange(50.0) / 1000, np.nan), 1.0, 0.95)).all()


@pytest.mark.parametrize("replicas", [1, 3])
def test_values_without_one_example_are_counted(replicas):
    panel = simulate(Truth(models=3, replicas=replicas, examples=80, accuracy=(0.4, 0.5, 0.6)), 3)
    shares = h.failure_shares(panel)
    for of in (h.effective_number, h.against_joint_failure):
        found = h.without_each(h.Means.rows(shares), of)
        for i in range(0, 80, 13):
            rows = h.Means.rows(np.delete(shares, i, axis=1))
            assert found[i] == pytest.approx(float(of(h.Means.of(rows.mean(axis=1)))), abs=1e-9)


def test_intervals_hold_the_truth_of_a_large_draw():
    """95 % of 120 panels, less what a binomial loses in 1 of 1,000 cases. The whole table: see reports/coverage."""
    truth = Truth(models=4, replicas=2, examples=600, accuracy=0.6)
    whole = h.headline(simulate(Truth(**{**vars(truth), "examples": 400_000}), 99), EXACT)
    hits = np.zeros(2)
    for seed in range(120):
        found = h.headline(simulate(truth, seed), PLAN)
        for k, name in enumerate(("effective_models", "joint_failure")):
            number, true = getattr(found, name), getattr(whole, name).value
            hits[k] += number.low <= true <= number.high
    assert (hits >= 105).all()
    assert (hits <= 119).all()
