"""Intervals of shares: the reference, the edges, and that no number of a panel has an interval of no width."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from zoo import shares
from zoo.homogeneity import failures, kinship
from zoo.homogeneity.bootstrap import Bootstrap
from zoo.homogeneity.formulas import FORMULAS
from zoo.homogeneity.leaderboard import leaderboard
from zoo.homogeneity.measures import MEASURES
from zoo.homogeneity.results import Pairs, PerModel, Result, Scalar
from zoo.homogeneity.simulate import SimulatedPanel

PLAN = Bootstrap(draws=60)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (12, 12, 0.7575, 1),
        (0, 12, 0, 0.2425),
        (1, 1, 0.2065, 1),
        (29, 29, 0.8830, 1),
        (6, 12, 0.2538, 0.7462),
        (11, 12, 0.6461, 0.9979),
        (3, 200, 0.0031, 0.0432),
        (4, 200, 0.0078, 0.0503),
    ],
)
def test_wilson_at_known_counts(successes, trials, low, high):
    """Values of statsmodels 0.14, proportion_confint(successes, trials, method="wilson"); where 1 to 3 are of the rarer
    kind, its end is that of method="beta"."""
    found = shares.wilson(successes / trials, trials, shares.quantile(0.95))
    assert [float(end) for end in found] == pytest.approx([low, high], abs=1e-4)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.integers(1, 400), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_statsmodels(successes, trials, confidence):
    successes = min(successes, trials)
    found = shares.wilson(successes / trials, trials, shares.quantile(confidence))
    assert [float(end) for end in found] == pytest.approx(reference(successes, trials, confidence), abs=1e-9)
    assert found[0] < found[1]


def reference(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """statsmodels: Wilson's, with the exact end on the side of 1 to 3 events that are no more than half."""
    confint = pytest.importorskip("statsmodels.stats.proportion").proportion_confint
    low, high = confint(successes, trials, 1 - confidence, method="wilson")
    exact = confint(successes, trials, 1 - confidence, method="beta")
    if 1 <= successes <= min(3, trials / 2):
        low = min(low, exact[0])
    if 1 <= trials - successes <= min(3, trials / 2):
        high = max(high, exact[1])
    return low, high


@pytest.mark.parametrize("examples", [1, 4, 12, 200, 10_000])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_wilson_covers_shares_near_the_edge(examples, share):
    """The exact coverage of the truths whose most likely count is at the edge or next to it."""
    from scipy.stats import binom

    counts = np.arange(examples + 1)
    low, high = shares.wilson(counts / examples, examples, shares.quantile(0.95))
    truths = np.abs(share - np.linspace(0.05, 1, 20) * 3 / (examples + 3))
    covered = [binom.pmf(counts, examples, p)[(low <= p) & (p <= high)].sum() for p in truths]
    assert min(covered) > (0.9 if examples > 4 else 0.8)
    assert np.mean(covered) > 0.93


@pytest.mark.parametrize("examples", [50, 200, 1000])
def test_wilson_covers_rare_events(examples):
    """Without the exact ends the least of these is .838, at .18 expected events."""
    from scipy.stats import binom

    counts = np.arange(examples + 1)
    low, high = shares.wilson(counts / examples, examples, shares.quantile(0.95))
    truths = np.geomspace(0.02, 20, 200) / examples
    covered = [binom.pmf(counts, examples, p)[(low <= p) & (p <= high)].sum() for p in truths]
    assert min(covered) > 0.92


def test_effective_size_falls_back_on_the_examples():
    found = shares.effective_size([0.0, 1.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.25 / 40], 12)
    np.testing.assert_allclose(found, [12, 12, 12, 40])


def test_undefined_stays_undefined():
    low, high = shares.interval(math.nan, 0.1, 12, 0.95)
    assert np.isnan([low, high]).all()


# Every measure of a panel, at the edges


def panel_of(correct: np.ndarray, replicas: int, classes: int = 3, one_class: bool = False) -> SimulatedPanel:
    """correct: (R, N) bool; wrong answers are the next class. The probabilities are sure of the answer."""
    runs, examples = correct.shape
    labels = np.zeros(examples, np.int64) if one_class else np.arange(examples) % classes
    predictions = np.where(correct, labels, (labels + 1) % classes)
    owner = np.repeat(np.arange(runs // replicas), replicas)
    probabilities = np.eye(classes, dtype=np.float32)[predictions]
    return SimulatedPanel(
        tuple(f"m{m}" for m in range(runs // replicas)), tuple(owner.tolist()),
        tuple(range(replicas)) * (runs // replicas), tuple(f"{i:05d}" for i in range(examples)),
        tuple(f"c{k}" for k in range(classes)), labels, predictions, probabilities,
    )  # fmt: skip


def edges(examples: int, replicas: int) -> dict[str, SimulatedPanel]:
    runs = 4 * replicas
    some = np.random.default_rng(0).random((runs, examples)) < 0.6
    return {
        "all right": panel_of(np.ones((runs, examples), bool), replicas),
        "all wrong": panel_of(np.zeros((runs, examples), bool), replicas),
        "one class": panel_of(np.ones((runs, examples), bool), replicas, one_class=True),
        "two classes, all wrong": panel_of(np.zeros((runs, examples), bool), replicas, classes=2),
        "copies": panel_of(np.broadcast_to(some[0], some.shape), replicas),
        "a perfect model": panel_of(some | (np.arange(runs) < replicas)[:, None], replicas),
        "one wrong answer": panel_of(np.arange(runs * examples).reshape(runs, examples) != 1, replicas),
    }


def numbers(result: Result, name: str) -> Iterator[tuple[str, float, float, float, str, float]]:
    """Each number of a result: its name, value, low, high, reason and n."""
    if isinstance(result, Scalar):
        value, low, high = (math.nan if end is None else end for end in (result.value, result.low, result.high))
        yield name, value, low, high, result.reason, result.n
    elif isinstance(result, PerModel):
        for m, value in enumerate(result.value):
            yield f"{name} {m}", value, result.low[m], result.high[m], result.reasons.get(m, ""), result.n[m]
    else:
        for i, j in zip(*np.triu_indices(len(result.value)), strict=True):
            reason = result.reasons.get((i, j), "")
            yield f"{name} {i}-{j}", result.value[i, j], result.low[i, j], result.high[i, j], reason, result.n[i, j]
    for part, inner in result.parts.items():
        # parts of pairs are what the value is compared with, and the diagonal of a pair's measure is in the measure
        if not isinstance(inner, Pairs) and part != "at_least":  # which is an end itself
            yield from numbers(inner, f"{name}.{part}")


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("examples", [1, 2, 4, 12, 200])
@pytest.mark.parametrize("kind", edges(4, 1))
def test_no_interval_of_a_panel_is_empty(kind, examples, replicas):
    """Every measure and every part of it: undefined with a reason, or with an interval that has a width and holds the
    value, or without an interval and with the reason for that."""
    panel = edges(examples, replicas)[kind]
    shares_of_pairs = {name for name, formula in FORMULAS.items() if formula.share}
    for measure in MEASURES:
        if "features" in measure.needs:
            continue
        for name, value, low, high, reason, n in numbers(measure().compute(panel, PLAN), measure.name):
            about = (name, value, low, high, reason, n)
            assert np.isfinite(low) == np.isfinite(high), about
            if not np.isfinite(value):
                assert reason, about
            elif np.isfinite(low):
                assert high - low > 1e-6, about
                assert low - 1e-6 <= value <= high + 1e-6 or measure.scope != "pairs", about
            elif name != f"kinship {name.split()[-1]}" or len(set(name.split()[-1].split("-"))) > 1:
                assert reason, about
                assert measure.name not in shares_of_pairs, about


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("examples", [1, 2, 4, 12, 200])
@pytest.mark.parametrize("kind", edges(4, 1))
def test_no_share_of_the_first_page_is_empty(kind, examples, replicas):
    panel = edges(examples, replicas)[kind]
    board = leaderboard(panel)
    assert (board.high - board.low > 0.9 / (examples + 4)).all()
    assert (board.low <= board.accuracy).all()
    assert (board.accuracy <= board.high).all()
    counts = failures.failure_counts(panel, PLAN)
    assert (counts.high - counts.low > 0.9 / (examples + 4) / 4).all()
    assert (counts.low <= counts.observed + 1e-12).all()
    assert (counts.observed <= counts.high + 1e-12).all()


def test_twelve_of_twelve_in_a_report():
    panel = edges(12, 1)["all right"]
    board = leaderboard(panel)
    assert (board.low[0], board.high[0]) == pytest.approx((0.7575, 1), abs=1e-4)
    failed = failures.systemic_failure(panel, PLAN)
    assert (failed.low, failed.high) == pytest.approx((0, 0.2425), abs=1e-4)
    vote = failures.vote_gain(panel, PLAN)
    assert (vote.low, vote.high) == pytest.approx((-0.2425, 0.2425), abs=1e-4)
    assert (vote.parts["vote"].low, vote.parts["vote"].high) == pytest.approx((0.7575, 1), abs=1e-4)


def test_a_report_and_the_screen_say_the_same_of_one_run():
    from zoo.engine.metrics import Bootstrap as Plan
    from zoo.engine.metrics import evaluate

    panel = panel_of(np.random.default_rng(1).random((2, 57)) < 0.7, 1)
    board = leaderboard(panel)
    for run in range(2):
        told = evaluate(panel.labels, np.eye(3)[panel.predictions[run]], panel.classes, bootstrap=Plan(draws=5))
        assert (board.low[run], board.high[run]) == pytest.approx(
            (told["accuracy"]["low"], told["accuracy"]["high"]), abs=1e-7
        )


def test_kinship_of_copies_has_no_interval_and_says_why():
    panel = edges(200, 2)["copies"]
    found = kinship.kinship(panel, PLAN)
    assert found.value[0, 1] == 1
    assert np.isnan(found.low[0, 1])
    assert found.reasons[0, 1] == shares.UNSEEN


# On the screen


def shown(table: Table) -> str:
    screen = Console(width=160, file=io.StringIO())
    screen.print(table)
    return screen.file.getvalue()


def cell(examples: int, accuracy: dict[str, float | int | None]) -> dict[str, object]:
    metrics = {name: accuracy | {"n": examples} for name in ("accuracy", "macro_f1")}
    return {
        "model": "m", "dataset": "d", "task": "t", "seed": 0, "status": "complete", "seconds": 1.0, "metrics": metrics,
    }  # fmt: skip


@pytest.mark.parametrize("examples", [1, 12, 29, 30, 2000])
def test_the_screen_says_when_nothing_can_be_concluded(examples):
    from zoo import progress
    from zoo.engine.metrics import evaluate

    labels = np.arange(examples) % 2
    metrics = evaluate(labels, np.eye(2)[labels], ("a", "b"))
    record = {"data": {"classes": ["a", "b"]}}
    of_run = "".join(map(shown, progress.run_tables(record, metrics)))
    of_sweep = shown(progress.cell_table([cell(2000, metrics["accuracy"]), cell(examples, metrics["accuracy"])]))
    for text in (of_run, of_sweep):
        assert ("nothing can be concluded" in text) == (examples < shares.FEW_EXAMPLES)
        assert "1.000–1.000" not in text
    low, high = (metrics["accuracy"][end] for end in ("low", "high"))
    assert f"{low:.4f}–{high:.4f}" in of_run
    assert f"1.000 ({low:.3f}–1.000)" in of_sweep


def test_an_interval_reads_as_one_however_narrow():
    from zoo.progress import interval

    assert interval({"value": 0.99912, "low": 0.99904, "high": 0.99921}) == "0.9991 (0.9990–0.9992)"
    assert interval({"value": 0.5, "low": 0.4, "high": 0.6}) == "0.500 (0.400–0.600)"
    assert interval({"value": 0.0, "low": None, "high": None}) == "0.000"
    assert interval({"value": None, "low": None, "high": None}) == "–"
