"""The measuring processes as their caller sees them, and the order in which they take turns."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.errors import ZooError

LOADING = 3600.0
"""Seconds in which a process must have its model; a predictor is fitted again in them."""
ANSWERING = 900.0
"""Seconds in which it must answer any other order."""


class Lost(ZooError):
    """A measuring process ended, does not answer, or says that it cannot."""


class Process:
    """One measuring process, idle unless it is asked. `start` it, `ask` it, `end` it."""

    def __init__(self, name: str, job: dict[str, Any]) -> None:
        self.name, self.job = name, job
        self._said = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "zoo.benchmark.worker", str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0,
            env=_environment(job["threads"]),
            start_new_session=True,  # Ctrl-C is for the caller, who ends the others in good order
        )  # fmt: skip
        self._tell(job)

    def answer(self, seconds: float = ANSWERING) -> dict[str, Any]:
        """What it says next. Raises Lost when it has ended, is silent for so long, or says that it failed."""
        told: dict[str, Any] = json.loads(self._line(seconds))
        if "error" in told:
            lost = Lost(str(told["error"]))
            lost.exit_code = int(told["exit_code"])
            raise lost
        return told

    def ask(self, order: str, **more: Any) -> dict[str, Any]:
        """Give an order and wait for the answer. Raises Lost."""
        self._tell({"do": order, **more})
        return self.answer()

    def end(self) -> None:
        """Let it go: its input ends, and soon it does. One that is in the middle of something is stopped."""
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()
        with contextlib.suppress(ProcessLookupError):
            if self._process.poll() is None:
                self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, and `answer` says why
            self._process.stdin.write((json.dumps(order) + "\n").encode())

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._said:
            left = until - time.monotonic()
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, left))
            if not ready:
                raise Lost(f"its process gave no answer for {seconds:.0f} seconds")
            said = os.read(self._process.stdout.fileno(), 1 << 16)
            if not said:
                raise Lost(self._how_it_ended())
            self._said += said
        line, _, self._said = self._said.partition(b"\n")
        return line

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        memory = " Memory may have run out." if code == -signal.SIGKILL else ""
        return f"its process ended with {how}.{memory}{' Its last words: ' + last[0] if last else ''}"


def _environment(threads: int) -> dict[str, str]:
    """Of a measuring process: threads pinned, and none that spins while another process has its turn."""
    pinned = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    quiet = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **pinned, **quiet}


@dataclass
class Turns:
    """What one process said. facts, search, close: its answers; rounds: round -> answer; lost: why it is out."""

    facts: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    rounds: dict[int, dict[str, Any]] = field(default_factory=dict)
    close: dict[str, Any] = field(default_factory=dict)
    lost: Lost | None = None

    def of(self, name: str) -> np.ndarray:
        """(rounds, …) float64: one number or list of every turn, in the order of the rounds."""
        return np.array([self.rounds[number][name] for number in sorted(self.rounds)], dtype=np.float64)


@dataclass(frozen=True)
class Plan:
    """How the turns go. warm_up: rounds that do not count; told: what is shown of the progress."""

    repetitions: int
    seed: int
    warm_up: int = 2
    told: Callable[[str], None] = lambda line: None


def take_turns(jobs: dict[str, dict[str, Any]], plan: Plan) -> dict[str, Turns]:
    """Start a process a job and let all of them take turns: each round has every process once, in random order, so
    that drift and what the last one left in the caches meet all alike. A process that is lost is left out of the rest.

    jobs: name -> what `zoo.benchmark.worker` is told first; one with `twin_of` comes after the job that it names.
    Raises Lost when already the first has nothing to measure with: the device is not there.
    """
    with _processes(jobs) as processes:
        table = _Table(processes, plan)
        plan.told(f"Loading {len(jobs)} processes …")
        for name in jobs:
            table.one(name, lambda process, turns: turns.facts.update(process.answer(LOADING)))
            if (lost := table.said[next(iter(jobs))].lost) is not None:
                raise lost
        plan.told("Warming up, looking for the best batch sizes …")
        table.all(lambda process, turns: turns.search.update(table.prepared(process)))
        table.rounds()
        table.all(lambda process, turns: turns.close.update(process.ask("close")))
        return table.said


class _Table:
    """The processes that take turns, and what each has said."""

    def __init__(self, processes: dict[str, Process], plan: Plan) -> None:
        self.processes, self.plan = processes, plan
        self.said = {name: Turns() for name in processes}

    def one(self, name: str, what: Callable[[Process, Turns], None]) -> None:
        """Unless the process is lost already; it may be lost in this."""
        if self.said[name].lost is None:
            try:
                what(self.processes[name], self.said[name])
            except Lost as lost:
                self.said[name].lost = lost
                self.plan.told(f"{name} is not measured: {lost}")

    def all(self, what: Callable[[Process, Turns], None]) -> None:
        """Every process, one after the other."""
        for name in self.processes:
            self.one(name, what)

    def prepared(self, process: Process) -> dict[str, Any]:
        """What the process does in a turn. A twin does what the other does, or it would be another measurement."""
        if (name := process.job.get("twin_of")) is None:
            return process.ask("search")
        if self.said[name].lost is not None:
            raise Lost(f"{name}, whose twin it is, was lost")
        return process.ask("adopt", search=self.said[name].search)

    def rounds(self) -> None:
        """The repetitions."""
        order, names = np.random.default_rng(self.plan.seed), list(self.processes)
        for number in range(-self.plan.warm_up, self.plan.repetitions):

            def turn(process: Process, turns: Turns, number: int = number) -> None:
                told = process.ask("turn", number=max(0, number))
                if number >= 0:
                    turns.rounds[number] = told

            for index in order.permutation(len(names)):
                self.one(names[index], turn)
            if number >= 0 and (number + 1) % 10 == 0:
                self.plan.told(f"{number + 1} of {self.plan.repetitions} repetitions")


@contextlib.contextmanager
def _processes(jobs: dict[str, dict[str, Any]]) -> Iterator[dict[str, Process]]:
    """All of them at once: what takes time in loading waits for the disk, or is the work of one core."""
    started: dict[str, Process] = {}
    try:
        for name, job in jobs.items():
            started[name] = Process(name, job)
        yield started
    finally:
        for process in started.values():
            process.end()
