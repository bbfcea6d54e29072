"""Residual correlation of answers: closed forms, what it must not depend on, and a p-value that is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pairs_of_runs import against_references, repeated_errors
from scipy.special import softmax
from scipy.stats import kstest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from zoo.lineage import blackbox

EXAMPLES, CLASSES = 30, 3


def trained(random: np.random.Generator, count: int, shared: np.ndarray, own: float = 1.0) -> np.ndarray:
    """Answers of independent trainings, (count, examples, classes): what all share, and noise of each."""
    return shared + own * random.normal(size=(count, *shared.shape))


@pytest.fixture(name="panel")
def _panel() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A model, a copy of it with little noise, and 39 references."""
    random = np.random.default_rng(0)
    shared = 3 * random.normal(size=(200, CLASSES))
    models = trained(random, 40, shared)
    return models[0], models[0] + 0.3 * random.normal(size=shared.shape), models[1:]


def test_a_model_is_like_itself_and_a_copy_is_told_from_references(panel):
    first, copy, references = panel
    assert blackbox.likeness(first, first, references) == pytest.approx(1)
    found = against_references(copy, first, references)
    assert (found.references, found.n) == (39, 200)
    assert found.p == 1 / 40
    # The noise of the copy is .3 of the own part: among logits a cosine of 1 / sqrt(1 + .09), of probabilities less.
    assert 0.85 < found.score < 1 / np.sqrt(1.09)
    assert abs(found.highest) < 0.2


def test_the_likeness_is_a_correlation_under_the_inverse_of_a_regular_covariance(panel):
    """With numpy's least squares and a whole inverse matrix, which the code never makes."""
    first, copy, references = (part[..., :40, :] for part in panel)
    first, copy, references = (softmax(part, axis=-1) for part in (first, copy, references))
    unit = [(one - one.mean(1, keepdims=True)).reshape(-1) for one in references]
    mean = np.mean([one / np.linalg.norm(one) for one in unit], axis=0)[:, None]

    def left(model: np.ndarray) -> np.ndarray:
        own = (model - model.mean(1, keepdims=True)).reshape(-1)
        rest = own - mean[:, 0] * np.linalg.lstsq(mean, own, rcond=None)[0]
        return np.asarray(rest / np.linalg.norm(rest))

    off = np.array([left(one) for one in references])
    spread = np.sqrt((off**2).mean(0))
    spread += blackbox.FLOOR * np.sqrt((spread**2).mean())
    scaled = off / spread
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    covariance = scaled.T @ scaled / len(scaled)
    ridge = blackbox.RIDGE * np.trace(covariance) / len(scaled)
    inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
    one, two = left(first) / spread, left(copy) / spread
    expected = one @ inverse @ two / np.sqrt((one @ inverse @ one) * (two @ inverse @ two))
    assert blackbox.likeness(*map(np.log, (first, copy, references))) == pytest.approx(expected)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_order_of_examples_and_constants_change_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    shared = random.normal(size=(EXAMPLES, CLASSES))
    models = trained(random, 8, shared)
    first, second, references = models[0], models[1], models[2:]
    score = blackbox.likeness(first, second, references)
    assert blackbox.likeness(second, first, references) == pytest.approx(score)
    order, classes = random.permutation(EXAMPLES), random.permutation(CLASSES)
    moved = models[:, order][:, :, classes]
    assert blackbox.likeness(moved[0], moved[1], moved[2:]) == pytest.approx(score)
    shift = 100 * random.normal(size=(EXAMPLES, 1))
    assert blackbox.likeness(first + shift, second, references) == pytest.approx(score)
    assert blackbox.likeness(first, second, references - shift) == pytest.approx(score)
    log_probabilities = models - np.log(np.exp(models).sum(-1, keepdims=True))
    again = blackbox.likeness(log_probabilities[0], log_probabilities[1], log_probabilities[2:])
    assert again == pytest.approx(score)


@given(arrays.arrays(np.float64, (5, EXAMPLES, CLASSES), elements=st.floats(-50, 50)))
def test_a_score_is_a_correlation(models: np.ndarray) -> None:
    score = blackbox.likeness(models[0], models[1], models[2:])
    assert -1 <= score <= 1
    assert blackbox.likeness(models[0], models[0], models[2:]) in (0, pytest.approx(1))


@pytest.mark.parametrize("own", [1.0, 0.1])
def test_of_independent_trainings_the_p_value_is_uniform(own):
    """On the grid 1/20 … 1; the suspect is of another kind than the references, and far from them."""
    random = np.random.default_rng(3)
    ranks = []
    for _ in range(400):
        models = trained(random, 20, random.normal(size=(12, CLASSES)), own)
        suspect = random.normal(size=models[0].shape) * random.exponential(size=(12, 1))
        ranks.append(against_references(suspect, models[0], models[1:]).p * 20)
    # Ranks 1 … 20; spread evenly within each step they are continuous.
    spread = (np.array(ranks) - random.uniform(size=len(ranks))) / 20
    assert kstest(spread, "uniform").pvalue > 0.01


def test_kinds_of_inputs_weigh_alike_whatever_their_number():
    """A copy shows on four examples of one kind only, among two hundred of another."""
    random = np.random.default_rng(7)
    kinds = np.repeat([0, 1], [200, 12])
    shared = 2 * random.normal(size=(212, CLASSES))
    models = trained(random, 40, shared)
    noise = random.normal(size=shared.shape)
    copy = np.where(kinds[:, None] == 1, models[0] + 0.2 * noise, shared + noise)
    found = blackbox.scores(np.stack([copy, models[5]]), models[0], models[1:], kinds)
    parts = [blackbox.scores(copy[None, kinds == kind], models[0, kinds == kind], models[1:, kinds == kind])[0]
             for kind in (0, 1)]  # fmt: skip
    expected = np.mean([(part - part.mean()) / part.std() for part in parts], axis=0)
    assert found[0] == pytest.approx(expected)
    assert found[0].argmax() == 0
    assert found[1].argmax() == 5
    one_kind = blackbox.scores(copy[None], models[0], models[1:], np.zeros(212, dtype=int))
    np.testing.assert_array_equal(one_kind, blackbox.scores(copy[None], models[0], models[1:]))


def test_references_of_other_data_make_strangers_kin():
    """What the refusal is for: a stranger shares with the model what its data gave both, and the references lack."""
    random = np.random.default_rng(5)
    ours, theirs = (3 * random.normal(size=(100, CLASSES)) for _ in range(2))
    kin = [
        against_references(*trained(random, 2, ours), trained(random, 39, data)).p <= 0.05
        for data in (ours, theirs)
        for _ in range(20)
    ]
    assert sum(kin[:20]) <= 4
    assert sum(kin[20:]) == 20


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=40))
def test_the_baseline_counts_repeated_errors_with_wilson_s_interval(rows: list[tuple[int, int, int]]) -> None:
    labels, first, second = np.array(rows).T
    found = repeated_errors(labels, first, second)
    wrong = [(one, two) for label, one, two in rows if one != label]
    assert found.n == len(wrong)
    if not wrong:
        assert found.value is None
        assert "no error" in found.reason
        return
    count = sum(one == two for one, two in wrong)
    assert found.value == count / len(wrong)
    assert (found.low, found.high) == pytest.approx(proportion_confint(count, len(wrong), method="wilson"), abs=1e-9)
    assert repeated_errors(labels, first, first).value == 1


@given(st.integers(1, 30), st.sampled_from([0.01, 0.05, 0.1]))
def test_so_many_references_as_are_needed_are_enough_and_one_fewer_is_not(tests: int, level: float) -> None:
    """statsmodels' adjustment as the independent one: one test rejects, the others have p = 1."""
    count = blackbox.needed(level, tests)

    def best(references: int) -> float:
        ps = [1 / (references + 1)] + [1.0] * (tests - 1)
        return float(multipletests(ps, method="fdr_by")[1][0])

    assert best(count) <= level + 1e-12
    if count > blackbox.FEWEST_REFERENCES:
        assert best(count - 1) > level


def test_a_score_is_weighed_by_the_covariance_of_all_others(panel):
    """With the whole inverse of that covariance, which the code never makes."""
    first, copy, references = (part[..., :30, :] for part in panel)
    kind = np.concatenate([first[None], references])
    common = blackbox.background(kind)

    def rows(models: np.ndarray) -> np.ndarray:
        left = blackbox.centred(models).reshape(len(models), -1)
        left = left - np.outer(left @ common.mean / (common.mean @ common.mean), common.mean)
        left = left / np.linalg.norm(left, axis=1, keepdims=True) / common.spread
        return np.asarray(left / np.linalg.norm(left, axis=1, keepdims=True))

    own, suspects = rows(kind), rows(np.stack([copy, first]))
    found = blackbox.scores(np.stack([copy, first]), first, references)
    assert found[1, 0] == pytest.approx(1)
    for place in (0, 1, 17):
        others = np.delete(own, place, axis=0)
        inverse = np.linalg.inv((others.T @ others + blackbox.RIDGE * np.eye(own.shape[1])) / len(own))
        one, two = own[place], suspects[0]
        expected = one @ inverse @ two / np.sqrt((one @ inverse @ one) * (two @ inverse @ two))
        assert found[0, place] == pytest.approx(expected)


def test_no_score_depends_on_which_of_the_trainings_is_the_model(panel):
    """What makes the p-value exact."""
    first, copy, references = panel
    scores = blackbox.scores(copy[None], first, references)[0]
    swapped = references.copy()
    swapped[4] = first
    again = blackbox.scores(copy[None], references[4], swapped)[0]
    moved = scores.copy()
    moved[0], moved[5] = scores[5], scores[0]
    assert again == pytest.approx(moved, abs=1e-9)


def test_what_tells_nothing_is_named(panel):
    first, copy, references = panel
    assert blackbox.why_not(first, len(first), "a") == ""
    assert "4 are needed" in blackbox.why_not(first[:3], 3, "a")
    assert blackbox.why_not(None, 200, "a").startswith("a gives no probabilities")
    assert "no probabilities" in blackbox.why_not(np.full_like(first, np.nan), 200, "a")
    constant = np.tile([2.0, 0.5, 0.1], (200, 1))
    assert "whatever it is asked" in blackbox.why_not(constant + first[:, :1], 200, "a")
    assert blackbox.likeness(np.zeros_like(first), copy, references) == 0


@given(
    arrays.arrays(np.int64, (4, 9), elements=st.integers(0, 2)), arrays.arrays(np.int64, 9, elements=st.integers(0, 2))
)
def test_repeated_errors_of_all_pairs_are_those_of_each(predictions: np.ndarray, labels: np.ndarray) -> None:
    wrong, again = blackbox.repetitions(labels, predictions)
    for one in range(4):
        for two in range(4):
            missed = [place for place in range(9) if predictions[one, place] != labels[place]]
            assert wrong[one] == len(missed)
            assert again[one, two] == sum(predictions[one, place] == predictions[two, place] for place in missed)


def test_without_an_error_none_can_be_repeated():
    labels = np.array([0, 1])
    assert repeated_errors(labels, labels, 1 - labels) == blackbox.Repeated(
        None, None, None, 0, "it makes no error on 2 examples"
    )
