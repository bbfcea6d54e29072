"""Contenders that take turns: each in a process of its own, one at work at a time."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

SEED = 0


@dataclass(frozen=True)
class Entry:
    """Who takes part. work: a function at the top of a module, called in the contender's process with `job` and its
    `Turn`; every: it takes each so-many-th turn only."""

    name: str
    work: Callable[[Any, Turn], None]
    every: int = 1


@dataclass(frozen=True)
class Times:
    """Seconds of each turn taken, (turns,) float64: on the clock, and of the processor (all threads)."""

    clock: np.ndarray
    processor: np.ndarray


@dataclass
class Turn:
    """A contender's side: `ready` when it is set up, then `done` after each piece of work that counts."""

    connection: Connection
    since: tuple[float, float] = field(default=(0.0, 0.0))

    def ready(self) -> None:
        """To be called before the first piece of work; comes back when it is this contender's turn."""
        self._give_away(None)

    def done(self, *_ignored: object) -> None:
        """To be called after each piece of work; comes back at the next turn."""
        self._give_away((time.perf_counter() - self.since[0], time.process_time() - self.since[1]))

    def restart_clock(self, *_ignored: object) -> None:
        """Leave out what was done up to now."""
        self.since = time.perf_counter(), time.process_time()

    def _give_away(self, told: tuple[float, float] | None) -> None:
        self.connection.send(told)
        self.connection.recv()
        self.restart_clock()


def race(entries: Sequence[Entry], job: Any, turns: int) -> Mapping[str, Times]:
    """What each contender's turns took, by name. job: anything that can be pickled, the same for all.

    They set themselves up one after the other. Raises RuntimeError when one fails, with what it printed."""
    seconds: dict[str, list[tuple[float, float]]] = {entry.name: [] for entry in entries}
    with ExitStack() as stack:
        at_work = [stack.enter_context(_Process(entry, job)) for entry in entries]
        for process in at_work:
            process.hear()
        order = np.random.default_rng(SEED)
        for turn in range(turns):
            # Whose turn was last decides what the caches hold; in random order that is nobody's advantage.
            for index in order.permutation(len(at_work)):
                process = at_work[index]
                if turn % process.entry.every == 0:
                    process.connection.send("go")
                    seconds[process.entry.name].append(process.hear())
    return {name: Times(*np.array(taken).T) for name, taken in seconds.items()}


class _Process:
    """A contender's process, ended on leaving."""

    def __init__(self, entry: Entry, job: Any) -> None:
        self.entry = entry
        context = multiprocessing.get_context("spawn")  # a forked process would share the parent's memory and threads
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, entry.work, job), daemon=True, name=entry.name)

    def __enter__(self) -> _Process:
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()

    def hear(self) -> Any:
        """What it says next: None when it is set up, the seconds of a turn afterwards."""
        while not self.connection.poll(1):
            if not self.process.is_alive():
                raise RuntimeError(f"{self.entry.name} ended with code {self.process.exitcode}")
        told = self.connection.recv()
        if isinstance(told, str):
            raise RuntimeError(f"{self.entry.name}: {told}")
        return told


def _serve(connection: Connection, work: Callable[[Any, Turn], None], job: Any) -> None:
    try:
        work(job, Turn(connection))
        connection.send("it had no more to do")
    except BaseException:
        connection.send(traceback.format_exc())


def bootstrap(over: np.ndarray, under: np.ndarray) -> tuple[float, float]:
    """95 % interval of mean(over) / mean(under), resampling the turns of each; both (turns,) float64."""
    rng = np.random.default_rng(SEED)
    means = [taken[rng.integers(0, len(taken), (2000, len(taken)))].mean(1) for taken in (over, under)]
    low, high = np.quantile(means[0] / means[1], (0.025, 0.975))
    return float(low), float(high)


def verdict(what: str, value: float, spread: str, bar: float, at_most: bool = False) -> bool:
    """Print a figure beside its bar; returns whether that is met."""
    holds = value <= bar if at_most else value >= bar
    sign = "≤" if at_most else "≥"
    print(f"{what:46}{value:8.3f}  {spread:50}bar {f'{sign} {bar}':8}{'met' if holds else 'MISSED'}", flush=True)
    return holds


def closed(met: bool, quick: bool) -> int:
    """The exit code: 0 where the bar is met, or cannot be judged, which is said, because the trial was a quick one."""
    if quick:
        print("--quick: too few steps to judge.")
    return 0 if met or quick else 1
