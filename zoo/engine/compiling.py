"""How the module of a training is called: as it is, compiled, or (`auto`) as a measurement on its own steps decides."""

from __future__ import annotations

import contextlib
import logging
import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch

from zoo.config import Compile
from zoo.engine.cpu import CpuTraining
from zoo.engine.evaluation import is_out_of_memory
from zoo.errors import ConfigError, TrainingError, ZooError

log = logging.getLogger("zoo")

WORTH_TRYING = 300.0
"""Seconds of training left below which `auto` tries nothing: on two cores compiling takes half a minute to over two
minutes (`tests/benchmarks/compiling.py`), and of less time than this a third saved is not more."""

WARM = 3  # steps in a row that a way has to do without compiling before it is measured
ESTIMATED = 8  # eager steps that say how long the rest would take
ROUNDS = 24  # measured steps of each way
MOST = 200  # steps after which a way that still records graphs is given up
MOST_COMPILED = 4  # steps that may compile: more, and each length is compiled for itself; after eight torch gives up
RECORDED = 2  # calls with inputs of one shape that CUDA graphs take to record it: one to warm up, one to record
MANY_SHAPES = 8  # of inputs: with more, recording graphs takes a good part of a short training
DRAWS = 2000  # of the bootstrap

MODES = {Compile.default: None, Compile.graphs: "reduce-overhead"}


def require(wish: Compile, device: torch.device) -> None:
    """Raise ConfigError where the device has no such way."""
    if wish is Compile.graphs and device.type != "cuda":
        raise ConfigError(
            f"trainer.compile=graphs: CUDA graphs need a CUDA device, and this training is on {device.type}.\n"
            f"trainer.compile=default compiles there as well; auto finds out whether that pays."
        )


def compiled(module: torch.nn.Module, kind: Compile) -> torch.nn.Module:
    """The module in one of the ways, for inputs of any length; its weights are those of the module. Nothing is compiled
    before the first call."""
    if kind is Compile.none:
        return module
    made = torch.compile(module, dynamic=True, mode=MODES[kind])
    assert isinstance(made, torch.nn.Module)
    return made


def compilations() -> int:
    """How many graphs torch has compiled in this process."""
    loaded = sys.modules.get("torch._dynamo.utils")
    return 0 if loaded is None else int(loaded.counters["stats"]["unique_graphs"])


@contextlib.contextmanager
def _shapes_told_here() -> Iterator[None]:
    """Within it torch does not log that it records a graph for each shape, five sentences about its own settings, which
    would come once for each direction: `Caller` says it in a line. A torch that never did has no such limit."""
    import torch._inductor.config as config

    name = "cudagraph_dynamic_shape_warn_limit"
    before = getattr(config.triton, name, None)
    if before is None:
        yield
        return
    setattr(config.triton, name, None)
    try:
        yield
    finally:
        setattr(config.triton, name, before)


@dataclass(eq=False)
class Way:
    """One way to call the module. context: of each call; fresh: whether a call since it was last set to False recorded
    a graph."""

    kind: Compile
    module: torch.nn.Module
    context: contextlib.AbstractContextManager[object] = field(default_factory=contextlib.nullcontext)
    fresh: bool = False
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    made: torch.nn.Module | None = None

    def __call__(self, *inputs: torch.Tensor) -> object:
        """What the module returns. The first call may compile."""
        if self.made is None:
            self.made = compiled(self.module, self.kind)
        if self.kind is Compile.graphs:
            self.shapes[tuple(inputs[0].shape)] += 1
            self.fresh |= self.shapes[tuple(inputs[0].shape)] <= RECORDED
            # After a step that failed between forward and backward, torch would take the next for part of it.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with self.context:
            return self.made(*inputs)


@dataclass(frozen=True)
class Step:
    """A step of the training, as a trial is told of it. elements: of its first input; counts: False where it did more
    than its work; compiled: that was compiling; halved: its micro-batch is smaller than that of the steps before;
    failed: why it could not be done in this way."""

    seconds: float = 0.0
    elements: int = 1
    counts: bool = True
    compiled: bool = False
    halved: bool = False
    failed: str = ""

    @property
    def rate(self) -> float:
        """Seconds an element: batches are of different lengths."""
        return self.seconds / self.elements


@dataclass
class Tried:
    """What is known of a compiled way. compile_steps: in which it compiled; compile_seconds: of those and of the ones
    that recorded graphs, beyond what eager ones take; rounds: its measured steps, each with the eager one beside it."""

    kind: Compile
    compile_steps: int = 0
    compile_seconds: float = 0.0
    rounds: list[tuple[Step, Step]] = field(default_factory=list)
    given_up: str = ""

    def ratio(self) -> tuple[float, float, float]:
        """Median seconds an element over those of eager steps, and its 95 % interval (bootstrap over the steps)."""
        rates = np.array([[step.rate for step in pair] for pair in self.rounds])
        drawn = np.random.default_rng(0).integers(0, len(rates), (2, DRAWS, len(rates)))
        medians = [np.median(rates[rows, at], axis=1) for at, rows in enumerate(drawn)]
        low, high = np.quantile(medians[0] / medians[1], (0.025, 0.975))
        middle = np.median(rates, axis=0)
        return float(middle[0] / middle[1]), float(low), float(high)

    def told(self) -> str:
        """In words."""
        if self.given_up:
            return f"{self.kind.value} given up ({self.given_up})"
        ratio, low, high = self.ratio()
        return f"{self.kind.value} {ratio:.2f} ({low:.2f}–{high:.2f})"

    def facts(self) -> dict[str, Any]:
        """In JSON types. ratio, low, high: time ÷ eager time."""
        found: dict[str, Any] = {"compile": self.kind.value}
        found |= {"compile_steps": self.compile_steps, "compile_seconds": self.compile_seconds}
        if self.given_up:
            return found | {"n": len(self.rounds), "given_up": self.given_up}
        if not self.rounds:
            return found | {"n": 0}
        ours, eager = (
            1e3 * statistics.median(step.seconds for step in steps) for steps in zip(*self.rounds, strict=True)
        )
        ratio, low, high = self.ratio()
        times = {"ms_per_step": ours, "eager_ms_per_step": eager, "ratio": ratio, "low": low, "high": high}
        return found | times | {"n": len(self.rounds)}


class Trial:
    """The measurement behind `auto`. reason: of the decision, in words; tried: what was measured.

    others: the compiled ways to try; rest: seconds that the training will go on, from the seconds of a step.
    """

    def __init__(self, eager: Way, others: Sequence[Way], rest: Callable[[float], float]) -> None:
        self.reason = "the training ended before anything was decided"
        self.tried: list[Tried] = []
        self._eager, self._others, self._rest = eager, others, rest
        self._rate = 0.0

    def steps(self) -> Generator[Way, Step, Way]:
        """Gives the way in which each step is to be done, is sent how it went, and returns the way to stay with."""
        estimated = yield from self._counted(self._eager, WARM + ESTIMATED)
        left = self._rest(statistics.median(step.seconds for step in estimated[WARM:]))
        if left < WORTH_TRYING:
            self.reason = f"about {left:.0f} s of training were left; below {WORTH_TRYING:.0f} s nothing is tried"
            return self._eager
        self._rate = statistics.median(step.rate for step in estimated[WARM:])
        at_work: dict[Way, Tried] = {}
        for way in self._others:
            tried = Tried(way.kind)
            self.tried.append(tried)
            if (yield from self._warm(way, tried)):
                at_work[way] = tried
        yield from self._measure(at_work)
        return self._decide(at_work)

    def _counted(self, way: Way, count: int) -> Generator[Way, Step, list[Step]]:
        """So many steps in one way, those left out that do not count."""
        found: list[Step] = []
        while len(found) < count:
            step = yield way
            found += [step] if step.counts else []
        return found

    def _warm(self, way: Way, tried: Tried) -> Generator[Way, Step, bool]:
        """Have a way compile until it has no more to. Returns whether it can be measured."""
        calm = 0
        for _ in range(MOST):
            step = yield way
            if not self._note(step, tried):
                return False
            calm = calm + 1 if step.counts else 0
            if calm == WARM:
                return True
        tried.given_up = f"after {MOST} steps it still recorded graphs"
        return False

    def _note(self, step: Step, tried: Tried) -> bool:
        """Keep what a step says of a way. Returns whether it is still worth measuring."""
        tried.given_up = step.failed
        if not step.counts:
            tried.compile_seconds += max(0.0, step.seconds - self._rate * step.elements)
            tried.compile_steps += step.compiled
        if tried.compile_steps > MOST_COMPILED:
            tried.given_up = f"{tried.compile_steps} steps had to compile, as if for each length of the inputs"
        return not tried.given_up

    def _measure(self, at_work: dict[Way, Tried]) -> Generator[Way, Step, None]:
        """Rounds of one step in each way; one in which a step does not count is left out. A way that fails is out."""
        complete, left = 0, MOST
        while at_work and complete < ROUNDS and left:
            left -= 1
            eager = yield self._eager
            found = {}
            for way, tried in list(at_work.items()):
                found[way] = yield way
                if not self._note(found[way], tried):
                    del at_work[way]
                    break
            else:
                if any(step.halved for step in (eager, *found.values())):  # what came before was with other batches
                    complete = 0
                    for tried in at_work.values():
                        tried.rounds.clear()
                elif all(step.counts for step in (eager, *found.values())):
                    complete += 1
                    for way, tried in at_work.items():
                        tried.rounds.append((found[way], eager))
        if complete < ROUNDS:
            for tried in at_work.values():
                tried.given_up = f"in {MOST} rounds there were not {ROUNDS} without recording graphs"
            at_work.clear()

    def _decide(self, at_work: dict[Way, Tried]) -> Way:
        """The fastest of the ways that are faster than eager by more than the noise."""
        ratios = {way: tried.ratio() for way, tried in at_work.items()}
        faster = [way for way, (_, _, high) in ratios.items() if high < 1]
        chosen = min(faster, key=lambda way: ratios[way][0], default=self._eager)
        what = "fastest" if faster else "nothing was faster than eager by more than the noise"
        measured = f"{what}; time ÷ eager time (95 % interval, n = {ROUNDS} steps each): " if at_work else ""
        self.reason = measured + ", ".join(tried.told() for tried in self.tried)
        return chosen


class Caller:
    """Calls the module in training, and with `auto` has each step measured until that is decided.

    seed: of the random bits in eager training on a CPU; rest: see `Trial`. Close it at the end. Raises ConfigError
    where the device has no such way.
    """

    def __init__(
        self, module: torch.nn.Module, wish: Compile, device: torch.device, seed: int, rest: Callable[[float], float]
    ) -> None:
        require(wish, device)
        self._ours = CpuTraining(seed) if device.type == "cpu" else None
        self._device = device
        self._eager = Way(Compile.none, module, self._ours or contextlib.nullcontext())
        kinds = {
            Compile.none: (),
            Compile.auto: (Compile.default, Compile.graphs) if device.type == "cuda" else (Compile.default,),
        }
        self._others = [Way(kind, module) for kind in kinds.get(wish, (wish,))]
        self._way = self._others[0] if self._others else self._eager
        self._trial: Trial | None = None
        self._steps: Generator[Way, Step, Way] | None = None
        self._began, self._compiled, self._halved = 0.0, 0, False
        self._logged: set[str] = set()
        self._told = False
        self._quiet = contextlib.ExitStack()
        if wish is Compile.auto:
            self._trial = Trial(self._eager, self._others, rest)
            self._steps = self._trial.steps()
            self._way = next(self._steps)

    def __call__(self, *inputs: torch.Tensor) -> object:
        """What the module returns."""
        way = self._way
        if way.kind is not Compile.graphs:
            return way(*inputs)
        if way.made is None:
            self._quiet.enter_context(_shapes_told_here())
        answers = way(*inputs)
        if self._trial is None and not self._told and len(way.shapes) > MANY_SHAPES:
            self._told = True
            log.warning(
                "trainer.compile=graphs: inputs had %d shapes so far, and a CUDA graph is recorded for each, which "
                "takes time and memory. trainer.compile=default compiles once for all; auto measures what pays.",
                len(way.shapes),
            )
        return answers

    @contextlib.contextmanager
    def warnings_logged(self) -> Iterator[None]:
        """Around both directions through the module, which compile what is new to them. Where the module is compiled,
        warnings go to the run's log: torch warns of itself when its compiler loads, and a program that turns warnings
        into errors would take that for a compiler that fails."""
        if self._way is self._eager:
            yield
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            finally:
                for text in {f"{told.category.__name__}: {told.message}" for told in caught} - self._logged:
                    self._logged.add(text)
                    log.info("warning while a compiled module was called: %s", text)

    @contextlib.contextmanager
    def step(self, elements: int) -> Iterator[None]:
        """Around a step of the training. elements: of its first input."""
        if not self._deciding():
            yield
            return
        self._start()
        yield
        if not self._deciding():  # the last of the ways failed in this step
            return
        _wait(self._device)
        seconds, compiled = perf_counter() - self._began, compilations() > self._compiled
        counts = not (self._halved or self._way.fresh or compiled)
        self._tell(Step(seconds, elements, counts, compiled, self._halved))

    def failed(self, error: Exception) -> bool:
        """Whether a step that ended so is to be done again, in the way that is the module's now.

        Raises TrainingError when a compiled module that was asked for fails; memory that ended is not its failure."""
        if self._way is self._eager or isinstance(error, ZooError):
            return False
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        if self._deciding():
            self._tell(Step(failed=reason))
            self._start()
            return True
        if is_out_of_memory(error):
            return False
        if self._trial is None:
            raise TrainingError(
                f"trainer.compile={self._way.kind.value}: the compiled module failed ({reason}).\n"
                f"torch.compile needs a C++ compiler on a CPU (g++, or what CXX names), and Triton on CUDA.\n"
                f"trainer.compile=none trains without it; auto does so where it fails."
            ) from error
        self._trial.reason += f"; later it failed ({reason})"
        log.warning("trainer.compile=auto: the compiled module failed, and training goes on without: %s", reason)
        self._way = self._eager
        return True

    def settle(self) -> None:
        """After each backward pass."""
        if self._ours is not None:
            self._ours.tables.settle()

    def clear(self) -> None:
        """After a step: take the gradients whose memory the next one uses again. The others are left."""
        if self._ours is not None:
            self._ours.tables.clear()

    def drop(self) -> None:
        """After a step that failed: free what was kept for the next one."""
        if self._ours is not None:
            self._ours.tables.drop()

    def halved(self) -> None:
        """The micro-batch is smaller from now on."""
        self._halved = True

    def own(self, weights: Iterable[torch.Tensor]) -> None:
        """Take gradients that are to be added to out of the memory of a CUDA graph, whose next call overwrites them."""
        if self._way.kind is Compile.graphs:
            for weight in weights:
                weight.grad = None if weight.grad is None else weight.grad.clone()

    def facts(self) -> dict[str, Any]:
        """What the run's record says: `compile`, the way used; with graphs that were asked for `compile_shapes`, how
        many shapes of inputs have graphs of their own; with auto `compile_reason` and `compile_tried`."""
        if self._trial is None:
            shapes = {"compile_shapes": len(self._way.shapes)} if self._way.kind is Compile.graphs else {}
            return {"compile": self._way.kind.value} | shapes
        used = Compile.none if self._deciding() else self._way.kind
        tried = [each.facts() for each in self._trial.tried]
        return {"compile": used.value, "compile_reason": self._trial.reason, "compile_tried": tried}

    def close(self) -> None:
        """Forget what was compiled. torch keeps it while the process lives, memory of graphs included, and after eight
        modules of one class that differ in shape it leaves the ninth as it is; a sweep may have more."""
        self._quiet.close()
        if any(way.made is not None for way in self._others):
            torch.compiler.reset()

    def _deciding(self) -> bool:
        return self._steps is not None

    def _start(self) -> None:
        _wait(self._device)
        self._halved = self._way.fresh = False
        self._compiled, self._began = compilations(), perf_counter()

    def _tell(self, step: Step) -> None:
        assert self._steps is not None
        assert self._trial is not None
        try:
            self._way = self._steps.send(step)
        except StopIteration as stop:
            self._way, self._steps = stop.value, None
            log.info("trainer.compile=auto: %s (%s)", self._way.kind.value, self._trial.reason)
            if self._way is self._eager:
                self.close()


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
