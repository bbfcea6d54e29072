"""Shared wrong answers: against a plain loop over examples, on panels that share them, and where undefined."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.homogeneity import wrong_answers as w
from zoo.homogeneity.behaviour import TWO_CLASSES
from zoo.homogeneity.bootstrap import Bootstrap, tiles
from zoo.homogeneity.results import FEW_MODELS, NONE_WRONG
from zoo.homogeneity.simulate import SimulatedPanel, Truth, simulate
from zoo.reporting.words import Words, languages
from zoo.shares import FEW_EXAMPLES, UNSEEN

PLAN = Bootstrap(draws=100)


def by_hand(labels, predictions, options, a: int, b: int) -> tuple[float, float, float, float]:
    """r, z, n and mean e of one pair, as the definition reads."""
    above = below = spread = chances = count = 0.0
    for i, (label, offered) in enumerate(zip(labels, options, strict=True)):
        given = [(m, answer) for m, answer in enumerate(predictions[:, i]) if 0 <= answer < offered]
        wrong = {m: answer for m, answer in given if answer != label}
        if a not in wrong or b not in wrong:
            continue
        others = [answer for m, answer in wrong.items() if m not in (a, b)]
        if len(others) < 2:
            continue
        coincide = [one == two for one, two in itertools.combinations(others, 2)]
        chance = sum(coincide) / len(coincide)
        above += (wrong[a] == wrong[b]) - chance
        below += 1 - chance
        spread += ((wrong[a] == wrong[b]) - chance) ** 2
        chances += chance
        count += 1
    likeness = above / below if below else math.nan
    return likeness, above / math.sqrt(spread) if spread else math.nan, count, chances / count if count else math.nan


def sheets(seed: int, models: int = 6, examples: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, answers and options: 2 to 6 options, popular wrong answers, some answers that are none."""
    random = np.random.default_rng(seed)
    options = random.integers(2, 7, size=examples)
    labels = random.integers(0, options)
    tempting = random.integers(0, options)
    said = random.integers(0, options, size=(models, examples))
    said = np.where(random.random(said.shape) < 0.3, tempting, said)
    said = np.where(random.random(said.shape) < 0.3, labels, said)
    said = np.where(random.random(said.shape) < 0.05, -1, said)
    return labels, np.where(random.random(said.shape) < 0.05, 6, said), options


@given(st.integers(0, 10_000), st.integers(3, 7))
@settings(max_examples=25, deadline=None)
def test_against_a_plain_loop(seed, models):
    labels, predictions, options = sheets(seed, models)
    found = w.sums(labels, predictions, options)
    r, z = found.likeness(), found.z()
    for a, b in ((0, 1), (1, models - 1)):
        expected = by_hand(labels, predictions, options, a, b)
        assert (r[a, b], z[a, b], found.both[a, b]) == pytest.approx(expected[:3], abs=1e-9, nan_ok=True)
        if models > 3:
            assert found.expected[a, b] / found.both[a, b] == pytest.approx(expected[3], abs=1e-9)
    np.testing.assert_allclose(r, r.T, atol=1e-12)
    np.testing.assert_allclose(z, z.T, atol=1e-9)


@pytest.mark.parametrize("language", languages())
def test_methods_print_what_is_computed(language):
    """The formulas of r and z on the page, evaluated as they stand, and how many examples the text says r needs."""
    labels, predictions, options = sheets(0, models=8, examples=200)
    found = w.sums(labels, predictions, options)
    part = w._examples(labels, predictions, options, "cpu")
    both = (part.wrong[0] * part.wrong[1]).numpy() > 0
    agree = (part.answers[0] == part.answers[1]).double()[None]
    values = {"agree": agree.numpy()[0][both], "e": part.chance([0], [1], agree).numpy()[0][both]}
    words = Words(language)
    formulas = dict(formula.split(" = ") for formula in re.split(r",\s+", words.formula("shared")))
    for name, computed in (("r", found.likeness()), ("z", found.z())):
        code = re.sub(r"Σ(\([^()]*\))²", r"Σ(\1**2)", formulas[name].replace("−", "-"))
        code = re.sub(r"√(Σ\(.*\))$", r"√(\1)", code).replace("√", "root").replace("Σ", "total")
        result = eval(code, {"root": np.sqrt, "total": np.sum, **values})
        assert result == pytest.approx(computed[0, 1])
    assert str(FEW_EXAMPLES) in words("methods.shared")


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_examples_models_and_options_does_not_matter(seed, random):
    labels, predictions, options = sheets(seed)
    r = w.sums(labels, predictions, options).likeness()
    examples, models = list(range(80)), list(range(6))
    random.shuffle(examples)
    random.shuffle(models)
    moved = w.sums(labels[examples], predictions[models][:, examples], options[examples]).likeness()
    between = ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(moved[between], r[np.ix_(models, models)][between], atol=1e-9)
    turned = np.where((predictions >= 0) & (predictions < options), options - 1 - predictions, -1)
    np.testing.assert_allclose(w.sums(options - 1 - labels, turned, options).likeness()[between], r[between], atol=1e-9)


def test_tiles_do_not_change_a_value(monkeypatch):
    whole = w.sums(*sheets(3))
    monkeypatch.setattr(w, "_ELEMENTS", 100)
    tiled = w.sums(*sheets(3))
    for name in ("both", "agree", "expected", "squares"):
        np.testing.assert_allclose(getattr(tiled, name), getattr(whole, name), atol=1e-9)


def test_a_measure_of_one_run_a_model_is_the_pure_function():
    panel = simulate(Truth(models=5, replicas=1, examples=1000, classes=6, accuracy=0.5), 0)
    found = w.shared_wrong_answers(panel, PLAN)
    options = np.full(1000, 6)
    for a, b in ((0, 1), (2, 4)):
        r, z, count, chance = by_hand(panel.labels, panel.predictions, options, a, b)
        assert found.value[a, b] == pytest.approx(r, abs=1e-9)
        assert found.parts["z"].value[a, b] == pytest.approx(z, abs=1e-9)
        assert found.parts["expected"].value[a, b] == pytest.approx(chance, abs=1e-9)
        assert found.n[a, b] == found.parts["n"].value[a, b] == count
        assert found.low[a, b] < found.value[a, b] < found.high[a, b]
    assert found.reasons == {(m, m): w.WITH_ITSELF for m in range(5)}


def test_a_draw_is_the_measure_of_the_resampled_table(monkeypatch):
    """With e of the whole set: an example drawn twice counts twice, and the others' answers to it stay."""
    panel = simulate(Truth(models=4, replicas=1, examples=120, classes=5, accuracy=0.4), 2)
    plan = Bootstrap(draws=3, seed=4)
    drawn = w._drawn(panel, np.full(120, 5), plan)
    (weights,) = tiles(120, plan)
    for draw in range(3):
        rows = np.repeat(np.arange(120), weights[draw].astype(int))
        again = w.sums(panel.labels[rows], panel.predictions[:, rows], np.full(120, 5)).likeness()
        np.testing.assert_allclose(drawn[draw], again[np.triu_indices(4, k=1)], atol=1e-6)
    monkeypatch.setattr(w, "_ELEMENTS", 240)
    np.testing.assert_allclose(w._drawn(panel, np.full(120, 5), plan), drawn, atol=1e-6)


def test_replicas_are_means_of_the_sums_over_sets_of_runs():
    panel = simulate(Truth(models=4, replicas=2, examples=200, classes=5, accuracy=0.4), 1)
    options = np.full(200, 5)
    sets = [w.sums(panel.labels, panel.predictions[t::2], options) for t in (0, 1)]
    above, below, spread, both = (
        sum(part(one) for one in sets) / 2
        for part in (
            lambda one: one.agree - one.expected, lambda one: one.both - one.expected,
            lambda one: one.squares, lambda one: one.both,
        )
    )  # fmt: skip
    found = w.shared_wrong_answers(panel, PLAN)
    pairs = np.triu_indices(4, k=1)
    np.testing.assert_allclose(found.value[pairs], above[pairs] / below[pairs], atol=1e-12)
    np.testing.assert_allclose(found.parts["z"].value[pairs], above[pairs] / np.sqrt(spread[pairs]), atol=1e-12)
    np.testing.assert_array_equal(found.n[pairs], np.rint(both[pairs]))


def test_a_pair_that_copies_stands_out_and_popular_answers_do_not():
    """Models 0 and 1 share half of their wrong answers; all models fall for one wrong answer half of the time."""
    random = np.random.default_rng(0)
    examples, models, options = 4000, 20, 8
    labels = np.zeros(examples, dtype=np.int64)
    said = random.integers(1, options, size=(models, examples))
    said = np.where(random.random(said.shape) < 0.5, random.integers(1, options, size=examples), said)
    said[1] = np.where(random.random(examples) < 0.5, said[0], said[1])
    found = w.sums(labels, said, np.full(examples, options))
    r, z = found.likeness(), found.z()
    assert r[0, 1] == pytest.approx(0.5, abs=0.05)
    assert z[0, 1] > 20
    rest = r[2:, 2:][np.triu_indices(models - 2, k=1)]
    assert np.abs(rest).max() < 0.08
    agree, both = (part[2:, 2:][np.triu_indices(models - 2, k=1)] for part in (found.agree, found.both))
    assert (agree / both).min() > 0.3  # far above 1/(C − 1) = .14, by popularity alone


# models, accuracy, examples: such that 30 to 250 examples count
CELLS = [(4, 0.5, 1000), (5, 0.65, 1500), (8, 0.8, 4000), (30, 0.8, 1000), (30, 0.95, 30_000)]


@pytest.mark.parametrize(("tempting", "options"), [(0.0, 10), (0.5, 3), (0.5, 10)])
@pytest.mark.parametrize(("models", "accuracy", "examples"), CELLS)
def test_of_unrelated_models_r_is_zero_and_z_standard(models, accuracy, examples, tempting, options):
    """All wrong options alike, or one of them for half of the answers. Also of strong models, most of which are right
    where two are wrong: nothing is made up for an example whose other answers do not tell what is popular. r is a ratio
    and so a little below 0."""
    r, z = [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        said = random.integers(1, options, size=(models, examples))
        said = np.where(random.random(said.shape) < tempting, random.integers(1, options, size=examples), said)
        said = np.where(random.random(said.shape) < accuracy, 0, said)
        found = w.sums(np.zeros(examples, dtype=np.int64), said, np.full(examples, options))
        r.append(found.likeness()[0, 1])
        z.append(found.z()[0, 1])
    noise = 3.5 * np.std(r) / np.sqrt(40)
    assert -0.05 - noise < np.mean(r) < noise
    assert abs(np.mean(z)) < 0.55  # 3.5 standard errors
    assert 0.6 < np.std(z) < 1.4


def test_examples_with_fewer_than_two_others_wrong_do_not_count():
    """Two models that copy each other where nobody else is wrong: nothing tells which answers are popular there."""
    labels, said = np.zeros(6, dtype=np.int64), np.array([[1] * 6, [1] * 6, [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 1]])
    found = w.sums(labels, said, np.full(6, 5))
    assert (found.both[0, 1], found.agree[0, 1], found.expected[0, 1], found.squares[0, 1]) == (1, 1, 0, 1)
    nothing = w.sums(labels[:5], said[:, :5], np.full(5, 5))
    assert nothing.both[0, 1] == 0
    assert np.isnan(nothing.likeness()).all()


def test_all_wrong_answers_shared_is_one():
    panel = simulate(Truth(models=5, replicas=1, examples=200, classes=5, accuracy=0.4), 0)
    panel.predictions[1] = panel.predictions[0]
    found = w.shared_wrong_answers(panel, PLAN)
    assert found.value[0, 1] == pytest.approx(1)
    assert np.isnan(found.low[0, 1])  # 1 in every draw
    assert found.reasons[0, 1] == UNSEEN


class TestUndefined:
    """Each with its reason."""

    def test_two_classes(self):
        found = w.shared_wrong_answers(simulate(Truth(models=5, replicas=1, examples=50, classes=2), 0), PLAN)
        assert np.isnan(found.value).all()
        assert set(found.reasons.values()) == {TWO_CLASSES}

    def test_examples_of_two_options_add_nothing(self):
        labels, predictions, options = sheets(1)
        few = options == 2
        with_them, without = (
            w.sums(labels, predictions, options),
            w.sums(labels[~few], predictions[:, ~few], options[~few]),
        )
        np.testing.assert_allclose(with_them.likeness(), without.likeness(), atol=1e-9)
        np.testing.assert_allclose(with_them.z(), without.z(), atol=1e-9)
        assert np.isnan(w.sums(labels[few], predictions[:, few], options[few]).likeness()).all()

    def test_three_models_cannot_tell_what_is_popular(self):
        found = w.shared_wrong_answers(simulate(Truth(models=3, replicas=1, examples=50), 0), PLAN)
        assert found.reasons[0, 1] == FEW_MODELS.format(least=4, models=3)

    def test_few_examples(self):
        found = w.shared_wrong_answers(simulate(Truth(models=5, replicas=1, examples=3), 0), PLAN)
        assert "there are 3" in found.reasons[0, 1]

    def test_a_perfect_model_shares_no_wrong_answer(self):
        panel = simulate(Truth(models=5, replicas=1, examples=500, accuracy=0.5), 0)
        panel.predictions[1] = panel.labels
        found = w.shared_wrong_answers(panel, PLAN)
        assert np.isnan(found.value[0, 1])
        assert found.reasons[0, 1] == NONE_WRONG
        assert found.n[0, 1] == 0
        assert np.isfinite(found.value[0, 2])

    def test_fewer_than_thirty_examples_that_count(self):
        """As many that both get wrong are not enough: two others have to be wrong as well."""
        panel = simulate(Truth(models=4, replicas=1, examples=400, classes=4, accuracy=0.75, difficulty=0.0), 0)
        found = w.shared_wrong_answers(panel, PLAN)
        first, second = np.triu_indices(4, k=1)
        assert ((found.n[first, second] > 0) & (found.n[first, second] < 30)).any()
        assert all(
            np.isnan([found.value[i, j], found.low[i, j], found.parts["z"].value[i, j]]).all()
            and found.reasons[i, j] == w.FEW_COUNTED
            for i, j in zip(first, second, strict=True)
        )

    def test_without_draws(self):
        panel = simulate(Truth(models=5, replicas=1, examples=500, accuracy=0.5), 0)
        found = w.shared_wrong_answers(SimulatedPanel(**vars(panel)), Bootstrap(draws=0))
        assert np.isfinite(found.value[0, 1])
        assert np.isnan(found.low).all()
