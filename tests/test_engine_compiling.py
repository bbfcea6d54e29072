"""Compiled training: when it is tried, what decides, what happens where it fails, and what the record says."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from test_engine_fitting import Stripes
from test_engine_frozen import Half
from test_engine_frozen import run as frozen_run
from test_engine_training import (
    CLASSES,
    CPU,
    WIDTH,
    Greedy,
    assert_close,
    data,
    fit,
    job,
    out_of_memory_on_cpu,
    perceptron,
    weights_of,
)  # fmt: skip
from test_run import ARGUMENTS, environment
from torch import nn

import zoo
from zoo import launch
from zoo.config import Compile, Precision, Trainer
from zoo.engine import compiling, cpu
from zoo.engine.compiling import ESTIMATED, ROUNDS, WARM, WORTH_TRYING, Caller, Step, Trial, Way
from zoo.engine.devices import Placement
from zoo.engine.training import Job

compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
LONG: dict[str, Any] = {"epochs": 20, "batch_size": 20, "learning_rate": 0.01}  # 100 steps, some with 16 examples


# --- the measurement, told of steps that nobody did -------------------------------------------------------------------


def drive(trial: Trial, did: Callable[[Way], Step]) -> tuple[Compile, list[Compile]]:
    """The way that a trial decides for, and those in which it had the steps done."""
    steps, done = trial.steps(), []
    way = next(steps)
    while True:
        done.append(way.kind)
        try:
            way = steps.send(did(way))
        except StopIteration as stop:
            return stop.value.kind, done


def trial(*others: Compile, left: float = 1000.0) -> Trial:
    eager, *ways = [Way(kind, nn.Identity()) for kind in (Compile.none, *others)]
    return Trial(eager, ways, lambda step: left)


def taking(seed: int = 0, noise: float = 0.02, **seconds: float) -> Callable[[Way], Step]:
    """Steps of batches that differ in length, with seconds an element by the way's name."""
    rng = np.random.default_rng(seed)

    def did(way: Way) -> Step:
        elements = int(rng.integers(100, 1000))
        return Step(seconds[way.kind.value] * elements * rng.lognormal(0, noise), elements)

    return did


def test_what_is_soon_over_is_not_compiled() -> None:
    short = trial(Compile.default, left=WORTH_TRYING - 1)
    assert drive(short, taking(none=1)) == (Compile.none, [Compile.none] * (WARM + ESTIMATED))
    told = f"about {WORTH_TRYING - 1:.0f} s of training were left; below {WORTH_TRYING:.0f} s nothing is tried"
    assert short.reason == told
    assert short.tried == []


def test_the_rest_is_estimated_from_the_steps_after_the_first() -> None:
    asked = []
    steps = iter([Step(50.0)] * WARM + [Step(2.0), Step(9.0)] + [Step(3.0)] * (ESTIMATED - 2))
    short = Trial(Way(Compile.none, nn.Identity()), [], lambda step: asked.append(step) or 0.0)  # type: ignore[func-returns-value]
    drive(short, lambda way: next(steps))
    assert asked == [3.0]


def test_the_faster_way_stays() -> None:
    found = trial(Compile.default)
    kind, done = drive(found, taking(none=1.0, default=0.8))
    assert kind is Compile.default
    assert done == [
        *[Compile.none] * (WARM + ESTIMATED), *[Compile.default] * WARM, *[Compile.none, Compile.default] * ROUNDS,
    ]  # fmt: skip
    facts = found.tried[0].facts()
    assert facts["low"] < 0.8 < facts["high"] < 1
    assert facts["ratio"] == pytest.approx(0.8, rel=0.03)
    assert (facts["compile"], facts["n"], facts["compile_seconds"]) == ("default", ROUNDS, 0)
    assert found.reason.startswith("fastest; time ÷ eager time (95 % interval, n = 24 steps each): default 0.")


@pytest.mark.parametrize("seconds", [1.0, 1.3])
def test_what_is_not_faster_goes(seconds: float) -> None:
    found = trial(Compile.default)
    assert drive(found, taking(none=1.0, default=seconds))[0] is Compile.none
    assert found.reason.startswith("nothing was faster than eager by more than the noise; time ÷ eager time")


def test_noise_decides_for_the_compiled_way_in_few_of_many_trials() -> None:
    kinds = [drive(trial(Compile.default), taking(seed, 0.2, none=1.0, default=1.0))[0] for seed in range(200)]
    assert binomtest(kinds.count(Compile.default), len(kinds), 0.05, alternative="greater").pvalue > 1e-3


def test_of_two_that_are_faster_the_fastest_stays() -> None:
    found = trial(Compile.default, Compile.graphs)
    kind, done = drive(found, taking(none=1.0, default=0.8, graphs=0.5))
    assert kind is Compile.graphs
    assert done[-3:] == [Compile.none, Compile.default, Compile.graphs]
    assert "graphs 0.5" in found.reason
    assert "default 0." in found.reason


def test_steps_that_compile_are_left_out_and_their_seconds_told() -> None:
    found, seconds = trial(Compile.default), iter([5.0, 3.0])
    exact = taking(noise=0.0, none=1.0, default=0.5)

    def did(way: Way) -> Step:
        step = exact(way)
        extra = next(seconds, 0.0) if way.kind is Compile.default else 0.0
        return replace(step, seconds=step.elements + extra, counts=False, compiled=True) if extra else step

    kind, done = drive(found, did)
    assert kind is Compile.default
    facts = found.tried[0].facts()
    assert (facts["ratio"], facts["n"]) == (pytest.approx(0.5), ROUNDS)
    assert (facts["compile_steps"], facts["compile_seconds"]) == (2, pytest.approx(8.0))
    assert done.count(Compile.default) == 2 + WARM + ROUNDS


@pytest.mark.parametrize(("compiles", "steps"), [(True, 5), (False, 200)])
@pytest.mark.parametrize("calm", [0, WARM])
def test_what_compiles_or_records_for_ever_is_given_up(compiles: bool, steps: int, calm: int) -> None:
    found, did, count = trial(Compile.graphs), taking(none=1.0, graphs=0.1), iter(range(10**6))

    def restless(way: Way) -> Step:
        if way.kind is Compile.none or next(count) < calm:
            return did(way)
        return replace(did(way), counts=False, compiled=compiles)

    kind, done = drive(found, restless)
    assert kind is Compile.none
    told = "5 steps had to compile" if compiles else "still recorded graphs" if calm == 0 else "in 200 rounds"
    assert told in found.reason
    assert done.count(Compile.graphs) == calm + steps


@pytest.mark.parametrize("at", [0, WARM + 5])
def test_a_way_that_fails_is_out_and_another_may_win(at: int) -> None:
    found = trial(Compile.default, Compile.graphs)
    did, count = taking(none=1.0, default=0.5, graphs=0.8), iter(range(10**6))

    def failing(way: Way) -> Step:
        if way.kind is Compile.default and next(count) == at:
            return Step(failed="no compiler")
        return did(way)

    assert drive(found, failing)[0] is Compile.graphs
    assert "default given up (no compiler), graphs 0.8" in found.reason
    assert [tried.facts()["n"] for tried in found.tried] == [max(0, at - WARM), ROUNDS]
    assert found.tried[0].facts()["given_up"] == "no compiler"


def test_smaller_micro_batches_begin_the_measurement_anew() -> None:
    found, count = trial(Compile.default), iter(range(10**6))
    did = taking(none=1.0, default=0.5)

    def halving(way: Way) -> Step:
        step = did(way)
        return replace(step, counts=False, halved=True) if next(count) == WARM + ESTIMATED + WARM + 20 else step

    kind, done = drive(found, halving)
    assert kind is Compile.default
    assert done.count(Compile.default) == WARM + 11 + ROUNDS
    assert found.tried[0].facts()["n"] == ROUNDS


# --- training, with torch's compiler ----------------------------------------------------------------------------------


class Costs:
    """A clock that only calls of the module move, each by what its way costs."""

    def __init__(self, patch: pytest.MonkeyPatch, **costs: float) -> None:
        self.now, call = 0.0, Way.__call__

        def costly(way: Way, *inputs: torch.Tensor) -> object:
            self.now += costs[way.kind.value]
            return call(way, *inputs)

        patch.setattr(Way, "__call__", costly)
        patch.setattr(compiling, "perf_counter", lambda: self.now)
        patch.setattr(compiling, "WORTH_TRYING", 0.0)


@compiler
@pytest.mark.slow
@pytest.mark.parametrize("wish", [Compile.default, Compile.auto])
def test_a_compiled_module_trains_alike(wish: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    Costs(monkeypatch, none=1.0, default=0.5)
    plainly, compiled = perceptron(), perceptron()
    _, one = fit(plainly, job(Trainer(**LONG)))
    trained, other = fit(compiled, job(Trainer(**LONG, compile=wish)))
    assert trained.compile["compile"] == "default"
    assert trained.steps == 100
    assert other.losses == pytest.approx(one.losses, rel=1e-3)
    assert list(weights_of(compiled)) == list(weights_of(plainly))
    assert_close(weights_of(compiled), weights_of(plainly), 1e-3)


def test_a_compiled_module_answers_without_the_functions_that_stand_in_for_torchs() -> None:
    large = nn.Linear(256, 128)
    assert isinstance(cpu.answering(large, CPU), cpu.CpuAnswers)
    caller = Caller(large, Compile.default, CPU, 0, lambda step: 0.0)
    with caller.warnings_logged():
        made = compiling.compiled(large, Compile.default)
    assert not isinstance(cpu.answering(made, CPU), cpu.CpuAnswers)


@compiler
@pytest.mark.slow
def test_what_was_tried_in_vain_leaves_the_training_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    Costs(monkeypatch, none=1.0, default=1.0)
    plainly, tried = perceptron(), perceptron()
    _, one = fit(plainly, job(Trainer(**LONG)))
    trained, other = fit(tried, job(Trainer(**LONG, compile=Compile.auto)))
    assert trained.compile["compile"] == "none"
    assert [(each["compile"], each["n"]) for each in trained.compile["compile_tried"]] == [("default", ROUNDS)]
    assert other.losses == pytest.approx(one.losses, rel=1e-3)


@compiler
@pytest.mark.slow
def test_compiled_dropout_drops_as_many_and_is_repeated_by_the_seed() -> None:
    def dropped() -> torch.Tensor:
        torch.manual_seed(3)
        caller = Caller(nn.Dropout(0.3), Compile.default, CPU, 0, lambda step: 0.0)
        with caller.warnings_logged():
            found = torch.stack([caller(torch.ones(400, 50)) for _ in range(2)])  # type: ignore[misc]
        caller.close()
        return found

    first, again = dropped(), dropped()
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    zeros = int((first == 0).sum())
    assert binomtest(zeros, first.numel(), 0.3).pvalue > 1e-3
    torch.testing.assert_close(first[first != 0].unique(), torch.tensor([1 / 0.7]))


def test_auto_that_does_not_try_is_training_as_ever_with_its_own_dropout_bits() -> None:
    plainly, automatic = perceptron(dropout=0.5), perceptron(dropout=0.5)
    fit(plainly, job(Trainer(**LONG)))
    trained, _ = fit(automatic, job(Trainer(**LONG, compile=Compile.auto)))
    assert trained.compile["compile"] == "none"
    assert trained.compile["compile_tried"] == []
    assert_close(weights_of(plainly), weights_of(automatic), 0.0)
    trained, _ = fit(perceptron(), job(Trainer(steps=3, compile=Compile.auto)))
    assert trained.compile["compile_reason"] == "the training ended before anything was decided"


def test_the_rest_of_a_training_ends_with_its_seconds() -> None:
    asked = []

    class Asking(Trial):
        def __init__(self, eager: Way, others: Any, rest: Callable[[float], float]) -> None:
            super().__init__(eager, others, lambda step: asked.append((rest(1e9), rest(1e-9))) or 0.0)  # type: ignore[func-returns-value]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "Trial", Asking)
        fit(linear := perceptron(), job(Trainer(**LONG, seconds=1e6, compile=Compile.auto)))
    assert linear is not None
    ((most, least),) = asked
    assert 1e6 - 100 < most < 1e6
    assert 0 < least < 1e-6


# --- where it fails ---------------------------------------------------------------------------------------------------


class Stand(nn.Module):
    """What `compiled` gives instead of a compiled module: the module itself, until it fails."""

    def __init__(self, module: nn.Module, error: Exception, after: int) -> None:
        super().__init__()
        self.inner, self.error, self.left = [module], error, after

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.inner[0](inputs)  # type: ignore[no-any-return]


def standing(patch: pytest.MonkeyPatch, error: Exception, after: int) -> None:
    whole = compiling.compiled

    def stand(module: nn.Module, kind: Compile) -> nn.Module:
        return whole(module, kind) if kind is Compile.none else Stand(module, error, after)

    patch.setattr(compiling, "compiled", stand)


@pytest.mark.parametrize("error", [RuntimeError("no\ncompiler"), out_of_memory_on_cpu()])
@pytest.mark.parametrize("after", [0, 10])
def test_auto_goes_on_without_a_compiled_module_that_fails(
    after: int, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    Costs(monkeypatch, none=1.0, default=0.5)
    standing(monkeypatch, error, after)
    plainly, tried = perceptron(dropout=0.0), perceptron(dropout=0.0)
    _, one = fit(plainly, job(Trainer(**LONG)))
    trained, other = fit(tried, job(Trainer(**LONG, compile=Compile.auto)))
    assert other.losses == one.losses
    assert (trained.compile["compile"], trained.micro_batch) == ("none", 20)
    told = f"RuntimeError: {' '.join(str(error).split())}"
    assert trained.compile["compile_tried"][0]["given_up"] == told
    assert f"default given up ({told})" in trained.compile["compile_reason"]


class Warns(nn.Module):
    """A compiled module that warns, in both directions, as torch's compiler does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = [module]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        warnings.warn("`torch.something` is deprecated.", DeprecationWarning, stacklevel=1)
        answers: torch.Tensor = self.inner[0](inputs)
        answers.register_hook(lambda _: warnings.warn("going back", FutureWarning, stacklevel=1))
        return answers


@pytest.mark.parametrize("wish", [Compile.default, Compile.auto])
def test_a_warning_of_the_compiler_is_no_failure_where_warnings_are_errors(
    wish: Compile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Costs(monkeypatch, none=1.0, default=0.5)
    whole = compiling.compiled
    monkeypatch.setattr(
        compiling, "compiled", lambda module, kind: whole(module, kind) if kind is Compile.none else Warns(module)
    )
    plainly, warned = perceptron(), perceptron()
    _, one = fit(plainly, job(Trainer(**LONG)))
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, "zoo"):
        warnings.simplefilter("error")
        trained, other = fit(warned, job(Trainer(**LONG, compile=wish)))
    assert trained.compile["compile"] == "default"
    assert other.losses == pytest.approx(one.losses, rel=1e-3)
    told = [record.getMessage() for record in caplog.records if "warning while" in record.getMessage()]
    assert sorted(line.partition("called: ")[2] for line in told) == [
        "DeprecationWarning: `torch.something` is deprecated.",
        "FutureWarning: going back",
    ]


def test_a_warning_of_a_module_that_is_not_compiled_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Warner(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            warnings.warn("mine", UserWarning, stacklevel=1)
            return super().forward(inputs)

    with pytest.warns(UserWarning, match="mine"):
        fit(Warner(WIDTH, CLASSES), job(Trainer(steps=1)))


def test_auto_goes_on_without_a_compiled_module_that_fails_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Costs(monkeypatch, none=1.0, default=0.5)
    standing(monkeypatch, ValueError("another shape"), WARM + ROUNDS + 5)
    with caplog.at_level(logging.WARNING, "zoo"):
        trained, recorder = fit(perceptron(), job(Trainer(**LONG, compile=Compile.auto)))
    assert "goes on without: ValueError: another shape" in caplog.text
    assert len(recorder.losses) == 100
    assert trained.compile["compile"] == "none"
    assert trained.compile["compile_reason"].endswith("; later it failed (ValueError: another shape)")


def test_a_compiled_module_that_was_asked_for_and_fails_ends_the_training_with_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    standing(monkeypatch, RuntimeError("no g++"), 3)
    with pytest.raises(zoo.TrainingError, match=r"(?s)compile=default.*no g\+\+.*C\+\+ compiler.*compile=none.*auto"):
        fit(perceptron(), job(Trainer(**LONG, compile=Compile.default)))


@pytest.mark.parametrize("wish", [Compile.default, Compile.auto])
def test_memory_that_ends_halves_the_micro_batch_of_a_compiled_module_too(
    wish: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    Costs(monkeypatch, none=1.0, default=0.4)
    standing(monkeypatch, RuntimeError(), 10**6)
    trained, _ = fit(Greedy(10, out_of_memory_on_cpu()), job(Trainer(**LONG, compile=wish)))
    assert (trained.micro_batch, trained.compile["compile"]) == (10, "default")


def test_gradients_that_are_added_to_leave_the_memory_of_a_cuda_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "require", lambda wish, device: None)
    weight = nn.Parameter(torch.ones(3))
    for wish, stays in ((Compile.graphs, False), (Compile.default, True), (Compile.none, True)):
        weight.grad = torch.arange(3.0)
        before = weight.grad
        Caller(nn.Identity(), wish, CPU, 0, lambda step: 0.0).own([weight, nn.Parameter(torch.ones(1))])
        assert (weight.grad is before) is stays
        assert torch.equal(weight.grad, before)


@pytest.mark.parametrize(("lengths", "said"), [(8, False), (30, True)])
def test_that_graphs_are_recorded_for_each_of_many_shapes_is_said_once_and_by_us(
    lengths: int, said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch._inductor.config as config

    monkeypatch.setattr(compiling, "require", lambda wish, device: None)
    limits = []
    monkeypatch.setattr(compiling, "compiled", lambda module, kind: module)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    before = config.triton.cudagraph_dynamic_shape_warn_limit
    caller = Caller(nn.Identity(), Compile.graphs, CPU, 0, lambda step: 0.0)
    with caplog.at_level(logging.WARNING, "zoo"):
        for length in [*range(1, lengths + 1)] * 2:
            caller(torch.ones(4, length))
            limits.append(config.triton.cudagraph_dynamic_shape_warn_limit)
    told = [record.getMessage() for record in caplog.records]
    assert [line.startswith("trainer.compile=graphs: inputs had 9 shapes so far") for line in told] == [True] * said
    assert set(limits) == {None}
    assert caller.facts() == {"compile": "graphs", "compile_shapes": lengths}
    caller.close()
    assert config.triton.cudagraph_dynamic_shape_warn_limit == before is not None


def test_of_a_module_with_a_frozen_part_the_head_alone_is_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    standing(monkeypatch, RuntimeError(), 10**6)
    whole, called = compiling.compiled, []
    monkeypatch.setattr(compiling, "compiled", lambda module, kind: called.append(module) or whole(module, kind))
    splits = zoo.load(Stripes())
    answers = frozen_run(splits, Half(dropout=0.0), compile=Compile.default)
    assert (answers.facts["vectors"], answers.facts["compile"]) == ("made", "default")
    assert [len(module) for module in called] == [2]
    plainly = frozen_run(splits, Half(dropout=0.0))
    assert plainly.facts["compile"] == "none"
    np.testing.assert_allclose(plainly.test, answers.test, rtol=1e-5, atol=1e-5)


def test_a_wrong_shape_is_the_modules_fault_compiled_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    standing(monkeypatch, RuntimeError(), 10**6)
    with pytest.raises(zoo.PluginError, match="float32 of shape"):
        fit(nn.Linear(WIDTH, CLASSES + 1), job(Trainer(compile=Compile.default)))


# --- through the command ----------------------------------------------------------------------------------------------

COMMAND = """
import sys
from zoo import launch
from zoo.engine import compiling
compiling.WORTH_TRYING = float(sys.argv[1])
code = launch.command(sys.argv[2:])
print("the compiler is loaded:", "torch._dynamo" in sys.modules)
sys.exit(code)
"""


def command(
    folder: Path, limit: float, *words: str, **further: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """The command, with another limit below which nothing is tried; and what training facts the run's record has."""
    env = environment(folder / "cache", TORCHINDUCTOR_CACHE_DIR=str(folder / "inductor"), **further)
    given = ("trainer.epochs=12" if word.startswith("trainer.epochs=") else word for word in ARGUMENTS)
    call = [sys.executable, "-c", COMMAND, str(limit), *given, *words]
    done = subprocess.run(call, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    (record,) = folder.glob("runs/*/*/*/*/run.json")
    return done, json.loads(record.read_text())


def test_the_record_says_why_nothing_was_compiled_and_the_compiler_is_not_loaded(tmp_path: Path) -> None:
    done, record = command(tmp_path, 60.0, "trainer.compile=auto")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the compiler is loaded: False" in done.stdout
    assert record["config"]["trainer"]["compile"] == "auto"
    facts = record["training"]
    assert (facts["compile"], facts["compile_tried"]) == ("none", [])
    assert facts["compile_reason"] == "about 0 s of training were left; below 60 s nothing is tried"
    assert f"trainer.compile=auto: none ({facts['compile_reason']})." in " ".join(done.stdout.split())


@compiler
@pytest.mark.slow
def test_the_record_says_what_was_measured(tmp_path: Path) -> None:
    done, record = command(tmp_path, 0.0, "trainer.compile=auto")
    assert (done.returncode, done.stderr) == (0, "")
    facts = record["training"]
    (tried,) = facts["compile_tried"]
    assert (tried["compile"], tried["n"]) == ("default", ROUNDS)
    assert tried["low"] <= tried["ratio"] <= tried["high"]
    assert min(tried[name] for name in ("compile_seconds", "ms_per_step", "eager_ms_per_step")) > 0
    assert facts["compile"] == ("default" if tried["high"] < 1 else "none")
    assert facts["steps"] == 96


@pytest.mark.slow
def test_a_missing_compiler_is_told_and_auto_does_without(tmp_path: Path) -> None:
    done, record = command(tmp_path, 0.0, "trainer.compile=auto", CXX="no-such-compiler")
    assert (done.returncode, done.stderr) == (0, "")
    assert record["training"]["compile"] == "none"
    assert "no-such-compiler" in record["training"]["compile_tried"][0]["given_up"]
    (tmp_path / "asked").mkdir()
    done, record = command(tmp_path / "asked", 0.0, "trainer.compile=true", CXX="no-such-compiler")
    assert done.returncode == 1
    assert "trainer.compile=default: the compiled module failed" in done.stderr
    assert "trainer.compile=none trains without it" in done.stderr
    assert "Traceback" not in done.stderr
    assert (record["status"], record["error"]["type"]) == ("failed", "TrainingError")


def test_cuda_graphs_are_refused_elsewhere_and_leave_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert launch.command([*ARGUMENTS, "trainer.compile=graphs", "trainer.device=cpu"]) == 2
    told = capsys.readouterr().err
    assert "trainer.compile=graphs: CUDA graphs need a CUDA device, and this training is on cpu." in told
    assert "trainer.compile=default compiles there as well" in told
    assert not list(tmp_path.rglob("run.json"))


# --- CUDA -------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [None, 7])
@pytest.mark.parametrize("wish", [Compile.default, Compile.graphs, Compile.auto])
def test_on_cuda_the_losses_are_those_of_eager_training(
    wish: Compile, micro_batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches add gradients, which lie in memory that the next call of a graph overwrites."""
    Costs(monkeypatch, none=1.0, default=0.9, graphs=0.5)
    cuda = torch.device("cuda")

    def losses(kind: Compile) -> tuple[list[float], str]:
        trainer = Trainer(**LONG | {"epochs": 40}, micro_batch=micro_batch, compile=kind)
        batches = data(96, device=cuda), data(60, seed=1, device=cuda)
        module = perceptron().to(cuda)
        trained, _ = fit(module, Job(*batches, trainer, Placement(cuda, Precision.fp32, 1), CLASSES, seed=0))
        return [row["loss"] for row in trained.history], trained.compile["compile"]

    found, used = losses(wish)
    assert used == ("graphs" if wish is Compile.auto else wish.value)
    assert found == pytest.approx(losses(Compile.none)[0], rel=1e-2)
