"""What a bench makes of timings: against scipy, closed forms and simulations; and what measures in a process."""

from __future__ import annotations

import ctypes
import io
import itertools
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from zoo.benchmark import display, intervals, nvml, product, restoring, subjects, summary, timing, worker
from zoo.benchmark.turns import Turns
from zoo.engine import devices
from zoo.errors import ConfigError
from zoo.store.bench import Floor, Target, measured, told_apart

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
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


@pytest.mark.parametrize(
    ("floor", "said"),
    [(None, "No noise floor"), (1.5, "No two models are told apart by their throughput"), (2.005, "too noisily")],
)
def test_nothing_is_ranked_where_noise_is_above_the_differences(floor: float | None, said: str) -> None:
    rng = np.random.default_rng(0)
    # Beyond a floor of 2 no difference counts, however great.
    every = [turns_of(noisy(rng, 1.0)), turns_of(noisy(rng, 1.2)), turns_of(noisy(rng, 9.0 if floor == 2.005 else 1.1))]
    found = summary._compare(every, Floor(latency=floor, throughput=floor), intervals.Bootstrap(0))
    models = [{"model": name, "throughput_rank": None, "latency_rank": None} for name in "abc"]
    for figure in ("latency", "throughput"):
        summary._rank(models, found, figure)  # type: ignore[arg-type]
        assert [model[f"{figure}_rank"] for model in models] == [None] * 3
    bench: Any = {"floor": {"latency": floor, "throughput": floor}, "models": models, "comparisons": found}
    bench["noise"] = [{"model": "a"}]
    told = " ".join(display._floor(bench))
    assert said in told
    assert "100.5%" not in told
    assert not told_apart(bench, "throughput")


def test_ranks_that_noise_did_not_allow_are_not_taken_from_earlier_benches() -> None:
    found = [{"figure": "throughput", "differs": True, "ratio": measured(9.0), "a": 0, "b": 1}]
    bench: Any = {"floor": {"latency": 1.1, "throughput": 1.1}, "comparisons": found}
    assert told_apart(bench, "throughput")
    assert not told_apart(bench, "latency")
    bench["floor"]["throughput"] = 2.0
    assert not told_apart(bench, "throughput")


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


class Paced(subjects.Subject):
    """A model that takes so many seconds a batch, whatever its size, up to a size that memory does not suffice for."""

    def __init__(self, examples: int, a_batch: float, most: int, device: torch.device = CPU) -> None:
        super().__init__()
        self.examples, self.a_batch, self.most, self.device = examples, a_batch, most, device
        self.kept_passes = False

    def facts(self) -> dict[str, Any]:
        return {}

    def call(self, row: int) -> None:
        assert not self.kept_passes

    def use(self, rows: np.ndarray, batch: int) -> None:
        self.rows, self.batch = rows, batch

    def predict(self) -> None:
        if self.batch > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def reference(self) -> None:
        pass

    def lengths(self) -> None:
        pass

    def keep_passes(self) -> None:
        self.kept_passes = True

    def seconds(self, work: Callable[[], object]) -> float:
        work()
        return self.a_batch * max(1, math.ceil(len(self.rows) / self.batch))


class TestBestBatchSize:
    def test_a_pass_grows_with_the_speed_of_large_batches(self) -> None:
        """With 10 ms a batch, batches of 8 leave room for 256 examples: 4,096 in one batch take as long as 8."""
        paced = Paced(4096, 0.01, 10**6)
        found = subjects.Measuring(paced, timing.Memory()).search()
        assert (found["batch"], found["examples"]) == (4096, 4096)
        assert found["limit"] == "a pass has 4096 examples"
        assert found["tried"]["4096"] == pytest.approx(4096 / 0.01)

    def test_memory_ends_the_search_and_is_given_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given_back: list[int] = []
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(1))
        found = subjects.Measuring(Paced(4096, 0.01, 64, CUDA), timing.Memory()).search()
        assert (found["batch"], found["limit"]) == (64, "memory ended at 128")
        assert given_back, "or the next process would find no memory"

    @pytest.mark.parametrize("examples", [1, 2, 3])
    def test_of_a_few_examples_all_are_taken(self, examples: int) -> None:
        found = subjects.Measuring(Paced(examples, 0.01, 10**6), timing.Memory()).search()
        assert (found["batch"], found["examples"]) == (min(examples, 2), examples)


def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """Time that stands still but for `sleep`."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda taken: now.__setitem__(0, now[0] + taken))
    while True:
        yield now[0]


class TestOnCuda:
    """What is asked of torch and of NVML there, with stand-ins for both."""

    def test_seconds_are_between_two_events_once_all_before_is_done(self, monkeypatch: pytest.MonkeyPatch) -> None:
        done: list[str] = []

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                done.append("event")

            def synchronize(self) -> None:
                done.append("wait")

            def elapsed_time(self, end: Event) -> float:
                return 250.0  # milliseconds

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("all"))
        assert timing.seconds_of(lambda: done.append("work"), CUDA) == 0.25
        assert done == ["all", "event", "work", "event", "wait"]

    def test_bfloat16_that_is_emulated_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "choose_device", lambda wish: CUDA)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
        job = {"device": "cuda", "precision": "bf16", "threads": torch.get_num_threads()}
        with pytest.raises(ConfigError, match="Measure with precision=fp32"):
            restoring.place(job)
        assert restoring.place({**job, "precision": "fp32"}) == CUDA

    def test_energy_is_what_the_device_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        time_now = clock(monkeypatch)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        monkeypatch.setattr(nvml, "joules", lambda device: 1e6 + 300.0 * next(time_now))  # 300 W
        found = timing.energy(lambda: time.sleep(0.25) or 50, CUDA)
        assert found == {"joules": pytest.approx(300 * 0.25 / 50), "n": 12, "reason": ""}

    def test_where_energy_is_not_counted_it_is_power_times_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        time_now = clock(monkeypatch)

        def uncounted(device: torch.device) -> float:
            raise nvml.NoAnswer("error 3")

        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        monkeypatch.setattr(nvml, "joules", uncounted)
        monkeypatch.setattr(nvml, "watts", lambda device: 20.0 if next(time_now) < 1 else 300.0)
        found = timing.energy(lambda: time.sleep(0.25) or 50, CUDA)
        assert found == {"joules": pytest.approx(300 * 0.25 / 50), "n": 12, "reason": ""}

    def test_without_nvml_there_is_a_reason_and_no_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvml, "LIBRARY", "libnothing-of-that-name.so.1")
        monkeypatch.setattr(nvml, "_uuid", lambda device: "GPU-1")
        nvml._library.cache_clear()
        nvml._handle.cache_clear()
        found = timing.energy(lambda: 1, CUDA)
        assert found["joules"] is None
        assert found["reason"].startswith("NVML does not answer: libnothing-of-that-name.so.1")
        assert timing.clock_rate(CUDA) is None

    def test_memory_is_that_of_passes_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        paced = Paced(64, 0.01, 10**6, CUDA)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
        monkeypatch.setattr(subjects, "energy", lambda work, device: {"joules": None, "reason": work() and ""})
        told = subjects.Measuring(paced, timing.Memory()).close()
        assert told["device_memory"] == 3
        assert paced.kept_passes

    def test_the_largest_product_that_memory_holds_is_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = product.MatrixProduct({"device": "cpu", "precision": "fp32", "threads": torch.get_num_threads()})
        monkeypatch.setattr(product, "SIZES", {"cpu": (8, 16, 32)})
        place = made._set

        def limited(size: int) -> None:
            if size > 16:
                raise torch.OutOfMemoryError("CUDA out of memory")
            place(size)

        monkeypatch.setattr(made, "_set", limited)
        assert made.search()["size"] in (8, 16)
        assert made.turn(0)["rate"] > 0


class Library:
    """NVML's functions as C has them: numbers through pointers, 0 for success."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        self.asked.append(uuid.decode())
        handle._obj.value = 7
        return 0 if uuid == b"GPU-aa-bb" else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: ctypes.c_void_p, value: Any) -> int:  # noqa: N802
        assert handle.value == 7
        value._obj.value = 5_000_000_123  # millijoules, more than 32 bits
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: ctypes.c_void_p, value: Any) -> int:  # noqa: N802
        value._obj.value = 71_500
        return 0

    def nvmlDeviceGetClockInfo(self, handle: ctypes.c_void_p, kind: ctypes.c_int, value: Any) -> int:  # noqa: N802
        value._obj.value = 1980
        return 0 if kind.value == 1 else 2

    def nvmlSystemGetDriverVersion(self, text: Any, length: ctypes.c_uint) -> int:  # noqa: N802
        assert length.value == len(text)
        text.value = b"580.65.06"
        return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    made, properties = Library(), SimpleNamespace(uuid="aa-bb")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: made if name == nvml.LIBRARY else None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    for kept in (nvml._library, nvml._handle):
        kept.cache_clear()
    yield made
    for kept in (nvml._library, nvml._handle):
        kept.cache_clear()


def test_nvml_is_asked_by_uuid_and_answers_in_plain_units(library: Library) -> None:
    assert nvml.joules(CUDA) == pytest.approx(5_000_000.123)
    assert nvml.watts(CUDA) == 71.5
    assert timing.clock_rate(CUDA) == nvml.megahertz(CUDA) == 1980
    assert timing.driver() == nvml.driver() == "580.65.06"
    assert library.asked == ["GPU-aa-bb"]


def test_a_device_that_nvml_does_not_know_has_no_energy(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="other"))
    with pytest.raises(nvml.NoAnswer, match="nvmlDeviceGetHandleByUUID answers with error 6"):
        nvml.joules(CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="aa-bb"))
    monkeypatch.delattr(Library, "nvmlDeviceGetTotalEnergyConsumption")
    with pytest.raises(nvml.NoAnswer, match="has no nvmlDeviceGetTotalEnergyConsumption"):
        nvml.joules(CUDA)


@pytest.mark.parametrize(
    ("value", "reason", "told"),
    [(0.00125, None, "Joules an example, the whole device's: mlp 0.00125."), (None, "x", "No energy was measured: x.")],
)
def test_energy_is_told_beside_the_table(value: float | None, reason: str | None, told: str) -> None:
    number = {"value": value, "reason": reason}
    bench = {"device": "cuda", "models": [{"model": "mlp", "kind": "torch", "energy_per_sample": number}]}
    assert display._energy(bench) == [told]  # type: ignore[arg-type]
    assert display._energy({**bench, "device": "cpu"}) == ([told] if value else [])  # type: ignore[arg-type]


@pytest.mark.parametrize(("vectors", "seconds"), [(None, 3.0), (40.0, 43.0)])
def test_the_time_to_a_target_counts_the_vectors_of_a_frozen_part(vectors: float | None, seconds: float) -> None:
    rows = [{"validation_accuracy": right, "seconds": taken} for right, taken in ((0.5, 1.5), (0.8, 3.0), (0.9, 4.5))]
    record = {"files": {"history.parquet": {}}, "training": {"vectors_seconds": vectors}}
    trained: Any = SimpleNamespace(record=record, run=SimpleNamespace(history=lambda: rows))
    assert summary._to_target(trained, Target(accuracy=0.8, how="as asked for"))["value"] == seconds
    assert summary._to_target(trained, Target(accuracy=0.95, how="as asked for"))["value"] is None


# The measuring process


def answered(monkeypatch: pytest.MonkeyPatch, turn: Callable[[int], Any]) -> list[dict[str, Any]]:
    """What a measuring process answers to its job and to one turn, in which this is called."""
    orders = [{"what": "a run"}, {"do": "turn", "number": 1}]
    answers = io.StringIO()
    streams = io.StringIO("".join(json.dumps(order) + "\n" for order in orders)), answers
    measuring = SimpleNamespace(facts=lambda: {"ready": True}, turn=turn)
    monkeypatch.setattr("sys.argv", ["worker", "0"])
    monkeypatch.setattr(worker, "_end_with_caller", lambda caller: None)
    monkeypatch.setattr(worker, "_own_streams", lambda: streams)
    monkeypatch.setattr(worker, "prepare", lambda job: measuring)
    worker.main()
    return [json.loads(line) for line in answers.getvalue().splitlines()]


@pytest.mark.parametrize("error", [ValueError("none"), SystemExit("bye"), KeyboardInterrupt("mine"), ConfigError("no")])
def test_whatever_a_model_raises_is_answered(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def turn(number: int) -> None:
        raise error

    ready, told = answered(monkeypatch, turn)
    assert ready == {"ready": True}
    assert str(error) in told["error"]
    assert told["exit_code"] == getattr(error, "exit_code", 1)


@pytest.mark.parametrize("swallowed", [False, True])
def test_ctrl_c_in_a_measuring_process_is_no_error_of_the_model(
    monkeypatch: pytest.MonkeyPatch, swallowed: bool
) -> None:
    def turn(number: int) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            if swallowed:
                raise ValueError("no shape") from error
            raise

    with pytest.raises(KeyboardInterrupt):
        answered(monkeypatch, turn)
