"""What a bench makes of timings: against scipy, closed forms and simulations; and what measures in a process."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from zoo.benchmark import intervals, subjects, summary, timing
from zoo.benchmark.turns import Turns
from zoo.store.bench import Floor, measured

SECONDS = st.floats(1e-6, 10, allow_nan=False)


def noisy(rng: np.random.Generator, scale: float, rounds: int = 40, spread: float = 0.05) -> np.ndarray:
    return scale * np.exp(spread * rng.normal(size=rounds))


def test_a_median_and_its_interval_are_scipys() -> None:
    values = noisy(np.random.default_rng(0), 0.02)
    found = intervals.Bootstrap(1)(values[:, None], intervals.median)
    other = bootstrap((values,), np.median, n_resamples=5000, method="percentile", rng=np.random.default_rng(2))
    assert found["value"] == np.median(values)
    assert found["low"] == pytest.approx(other.confidence_interval.low, rel=0.005)
    assert found["high"] == pytest.approx(other.confidence_interval.high, rel=0.005)
    assert (found["q1"], found["q3"]) == tuple(np.quantile(values, (0.25, 0.75)))


def test_timings_of_one_turn_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    shared = noisy(rng, 1.0)
    apart = intervals.Bootstrap(0)(noisy(rng, 1.0, 400)[:, None], intervals.median)
    together = intervals.Bootstrap(0)(np.repeat(shared[:, None], 10, axis=1), intervals.median)
    assert apart["n"] == together["n"] == 400
    assert width(together) > 1.5 * width(apart)


def width(number: intervals.Measured) -> float:
    assert number["low"] is not None
    assert number["high"] is not None
    return number["high"] - number["low"]


def test_few_repetitions_have_no_interval_and_say_so() -> None:
    found = intervals.Bootstrap(0)(np.ones((3, 1)), intervals.median)
    assert (found["value"], found["low"]) == (1, None)
    assert "3 repetitions are too few" in str(found["reason"])


@given(st.integers(0, 300), st.integers(1, 300))
def test_a_share_has_wilsons_interval(right: int, wrong: int) -> None:
    n = right + wrong
    expected = binomtest(right, n).proportion_ci(method="wilson")
    found = intervals.share(right, n)
    assert found["value"] == right / n
    assert found["low"] == pytest.approx(expected.low, abs=1e-9)
    assert found["high"] == pytest.approx(expected.high, abs=1e-9)


@given(st.lists(SECONDS, min_size=8, max_size=20), st.floats(0.1, 10))
def test_ratios_do_not_depend_on_the_unit_and_a_model_is_as_fast_as_itself(times: list[float], unit: float) -> None:
    taken, plan = np.array(times), intervals.Bootstrap(0, draws=200)
    itself = intervals.ratio(taken, taken, plan)
    assert (itself["low"], itself["value"], itself["high"]) == (1, 1, 1)
    assert intervals.differs(itself, 1.0) is False
    twice = intervals.ratio(2 * unit * taken, unit * taken, plan)
    assert twice["value"] == pytest.approx(2)
    assert intervals.differs(twice, 1.5) is True
    assert intervals.differs(twice, 2.5) is False
    assert intervals.differs(twice, None) is None


@given(st.floats(0.5, 2), st.floats(1, 1.5))
def test_the_floor_is_symmetric_and_at_least_one(middle: float, spread: float) -> None:
    number = measured(middle, middle / spread, middle * spread, 40)
    turned = measured(1 / middle, 1 / (middle * spread), spread / middle, 40)
    floor = intervals.farthest([number])
    assert floor == pytest.approx(intervals.farthest([turned]))
    assert floor >= 1
    assert intervals.differs(number, floor * (1 + 1e-12)) is False  # which is rounded
    assert intervals.farthest([]) is None


def test_equal_models_are_ties_and_different_ones_are_not() -> None:
    rng, plan = np.random.default_rng(3), intervals.Bootstrap(0, draws=400)
    equal, apart = [], []
    for _ in range(100):
        drift = noisy(rng, 1.0, spread=0.3)  # what the machine does to all of them in a round
        a, twin, b, slower = (drift * noisy(rng, scale) for scale in (1.0, 1.0, 1.0, 1.15))
        floor = intervals.farthest([intervals.ratio(a, twin, plan)])
        equal.append(intervals.differs(intervals.ratio(a, b, plan), floor))
        apart.append(intervals.differs(intervals.ratio(a, slower, plan), floor))
    assert np.mean(equal) <= 0.02
    assert np.mean(apart) >= 0.95


@given(st.permutations(range(5)))
def test_ranks_count_who_is_clearly_better(order: list[int]) -> None:
    place = {model: position for position, model in enumerate(order)}
    strict = {(a, b) for a, b in itertools.permutations(range(5), 2) if place[a] < place[b]}
    assert intervals.ranks(5, strict) == [place[model] + 1 for model in range(5)]
    assert intervals.ranks(5, set()) == [1] * 5


def turns_of(seconds: np.ndarray, examples: int = 64) -> Turns:
    made = Turns(search={"examples": examples, "batch": 32})
    made.rounds = {at: {"calls": [taken / examples] * 3, "pass": taken} for at, taken in enumerate(seconds)}
    return made


def test_models_are_compared_by_the_example_and_ranked_beyond_the_floor() -> None:
    rng = np.random.default_rng(0)
    every = [turns_of(noisy(rng, 1.0)), turns_of(noisy(rng, 2.0), 128), turns_of(noisy(rng, 3.0))]
    found = summary._compare(every, Floor(latency=1.1, throughput=1.1), intervals.Bootstrap(0))
    told = {(item["a"], item["b"], item["figure"]): item for item in found}
    assert told[0, 1, "throughput"]["differs"] is False
    assert told[0, 1, "throughput"]["ratio"]["value"] == pytest.approx(1, rel=0.05)
    assert told[0, 2, "throughput"]["differs"] is True
    assert len(found) == 6
    models = [{"throughput_rank": None} for _ in every]
    summary._rank(models, found, "throughput")  # type: ignore[arg-type]
    assert [model["throughput_rank"] for model in models] == [1, 1, 3]
    untold = summary._compare(every, Floor(latency=None, throughput=None), intervals.Bootstrap(0))
    models = [{"throughput_rank": None} for _ in every]
    summary._rank(models, untold, "throughput")  # type: ignore[arg-type]
    assert [model["throughput_rank"] for model in models] == [None] * 3


def test_p99_of_few_calls_is_undefined() -> None:
    found = summary._p99(np.ones((9, 11)), intervals.Bootstrap(0))
    assert (found["value"], found["n"]) == (None, 99)
    assert summary._p99(np.ones((10, 10)), intervals.Bootstrap(0))["value"] == 1e3


def test_an_inverse_turns_its_ends() -> None:
    number = {**measured(2.0, 1.0, 4.0, 9), "q1": 1.6, "q3": 2.5}
    found = summary._inverse(number)  # type: ignore[arg-type]
    assert [found[end] for end in ("low", "q1", "value", "q3", "high")] == [0.25, 0.4, 0.5, 0.625, 1.0]  # type: ignore[literal-required]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=300), st.data())
def test_a_sample_spaced_by_length_is_as_long_as_the_whole(lengths: list[int], data: st.DataObject) -> None:
    every = np.array(lengths)
    count = data.draw(st.integers(1, len(lengths)))
    rows = subjects.spaced(every, len(every), count)
    assert len(set(rows.tolist())) == len(rows) == count
    assert (np.diff(rows) > 0).all()
    assert abs(every[rows].mean() - every.mean()) <= (every.max() - every.min()) / count + 1e-9
    assert subjects.spaced(None, 10, 10).tolist() == list(range(10))


class TestInAProcess:
    def test_seconds_are_seconds(self) -> None:
        taken = timing.seconds_of(lambda: time.sleep(0.05), torch.device("cpu"))
        assert 0.05 <= taken < 1

    def test_memory_that_was_given_back_still_counts_and_older_does_not(self) -> None:
        older = np.ones(40 * 2**17)
        del older
        memory = timing.Memory()
        if memory.peak()["mib"] is None:
            pytest.skip(memory.peak()["reason"])
        large = np.ones(64 * 2**17)  # 64 MiB
        del large
        assert 60 < memory.peak()["mib"] < 90
        memory.restart()
        assert memory.peak()["mib"] < 30

    @pytest.mark.parametrize("length", [5, 12])
    def test_multiply_adds_of_known_modules(self, length: int) -> None:
        inputs = [(torch.zeros(1, length, 8),)]
        attention = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        # query, key, value and output; two products with the length squared; two layers of the feed-forward part
        expected = 4 * length * 64 + 2 * length**2 * 8 + 2 * length * 8 * 16
        assert timing.multiply_adds(attention, inputs) == [expected]
        assert torch.backends.mha.get_fastpath_enabled()
        convolution = torch.nn.Conv1d(length, 6, 3)
        assert timing.multiply_adds(convolution, inputs) == [6 * 3 * length * 6]
        assert timing.multiply_adds(torch.nn.Embedding(9, 4), [(torch.zeros(1, 3, dtype=torch.long),)]) == [0]

    def test_a_processor_has_no_energy_and_says_so(self) -> None:
        found = timing.energy(lambda: 1, torch.device("cpu"))
        assert found["joules"] is None
        assert "NVML" in found["reason"]


def test_hardware_is_the_same_where_a_predictors_names_no_device() -> None:
    now = {"machine": "x86_64", "cpu": "abacus", "cores": "2", "device": "cpu"}
    assert summary.trained_here({"machine": "x86_64", "cpu": "abacus", "cores": 2}, now)
    assert not summary.trained_here({"machine": "x86_64", "cpu": "abacus", "cores": 4}, now)
    assert not summary.trained_here({"machine": "x86_64", "cpu": "abacus", "cores": 2, "device": "cuda"}, now)
    assert math.isclose(intervals.scaled(measured(2.0, n=1), 1e3)["value"] or 0, 2000)
