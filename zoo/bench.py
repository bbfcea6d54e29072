"""python -m zoo.bench: what the models of a study cost, measured together; kept in the study's folder."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import arguments as words
from zoo import guard, progress
from zoo.data import reach
from zoo.errors import ConfigError, RequestError, ZooError
from zoo.options import Configurable, option, require
from zoo.phases import phase
from zoo.store.bench import FEWEST

if TYPE_CHECKING:
    from zoo.benchmark.contestants import Contestant, Field
    from zoo.benchmark.turns import Turns
    from zoo.store.bench import Bench, Protocol

USAGE = """python -m zoo.bench study=runs/<task>/<dataset> [option=value …]

Every stored model in a process of its own, one of them twice (what differs
between the two is noise), taking turns. Written: bench.json and bench.parquet
in the study's folder; the next report of the study shows them.

{options}"""

SAMPLES = {"cpu": 256, "cuda": 4096}
PRECISIONS = {"cpu": "fp32", "cuda": "bf16"}
PRODUCT = "matrix product"
TWIN = "twin of "


@dataclass(frozen=True)
class Request(Configurable):
    """What the command line asks for."""

    study: str = option("", "a folder, a pattern such as 'runs/*/digits', or several with commas between them")
    device: str = option("cpu", "cpu, cuda, or both as cpu,cuda: one bench each")
    repetitions: int = option(FEWEST, f"turns of each process; fewer than {FEWEST} are for a first look", ge=1)
    models: str = option("", "only these, by the names that the report has, with commas")
    seeds: str = option("", "the runs with these seeds, with commas; without it one run of each model")
    sample: int = option(0, "test examples to draw from; 0: 256 on the processor, 4096 on CUDA", ge=0)
    threads: int = option(0, "CPU threads of every process; 0: as many as there are cores", ge=0)
    precision: str = option(
        "auto", "bf16 is autocast; auto: fp32 on the processor, bf16 on CUDA", choices=("auto", "fp32", "bf16")
    )
    compile: str = option(
        "none",
        "default: torch.compile the modules; graphs: with CUDA graphs",
        choices=("none", "default", "graphs"),
    )
    twins: str = option(
        "one",
        "all: every model is measured twice; none: no noise is measured",
        choices=("one", "all", "none"),
    )
    target: str = option("", "validation accuracy that training times are taken to; without it 98 % of the best")
    seed: int = option(0, "seed of the order of the turns", ge=0)
    data: str = reach.declared()

    def __post_init__(self) -> None:
        if not self.study:
            raise ConfigError("Which runs? For example: python -m zoo.bench study=runs/sentiment/rotten_tomatoes")
        known = bool(self.devices) and set(self.devices) <= {"cpu", "cuda"}
        require(self, "device", known, "cpu, cuda or cpu,cuda")
        graphs = self.compile != "graphs" or self.devices == ["cuda"]
        require(self, "compile", graphs, "none or default where device is not cuda: CUDA graphs need it")
        numbers = [part for part in self.seeds.split(",") if part]
        require(self, "seeds", all(part.isdecimal() for part in numbers), "whole numbers with commas")
        fine = not self.target or (re.fullmatch(r"0?\.\d+|1|0", self.target) is not None)
        require(self, "target", fine, "an accuracy from 0 to 1, e.g. 0.8")

    @property
    def devices(self) -> list[str]:
        """One bench each, in this order."""
        return _parts(self.device)


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def main() -> None:
    """The command. Exit codes: 0 fine, 1 a model could not be measured, 2 the request was wrong, 130 Ctrl-C."""
    guard.leave(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Do what the command line asks for. Returns the exit code."""
    progress.log_on_screen()
    interrupted = "Interrupted: nothing of the bench that was under way is kept."
    return guard.run(lambda: _command(list(arguments)), interrupted)


def _command(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE.format(options=words.described(Request)))
        return 0 if arguments else RequestError.exit_code
    with progress.activity():
        return _measure(words.parse(arguments, Request, of_paths="study"), arguments)


def _measure(request: Request, arguments: list[str]) -> int:
    with phase("loading libraries"):
        from zoo.benchmark import contestants, display

    screen = progress.console()
    told: Callable[[str], None] = lambda line: screen.print(line, markup=False, soft_wrap=True)  # noqa: E731
    seeds = [int(part) for part in _parts(request.seeds)]
    with phase("reading the study"):
        field = contestants.choose(_parts(request.study), _parts(request.models), seeds)
    code = 0
    for device in request.devices:
        with phase(f"measuring on {device}"):
            bench, file = measure(field, request, device, ["python", "-m", "zoo.bench", *arguments], told)
        for table in display.tables(bench):
            screen.print(table)
        for line in display.lines(bench):
            told(line)
        told(f"Results: {file}")
        code = 1 if len(bench["models"]) < len(field.contestants) else code
    return code


def measure(
    field: Field, request: Request, device: str, command: list[str], told: Callable[[str], None]
) -> tuple[Bench, Path]:
    """Measure on one device and write the files. told: gets a line now and then. Returns the bench and its path.

    Raises ConfigError when the device is not there, ZooError when not one model could be measured, StoreError."""
    from zoo.benchmark import summary
    from zoo.benchmark.timing import load
    from zoo.benchmark.turns import Lost, Plan, take_turns
    from zoo.store import bench as store
    from zoo.store.disk import chosen_with
    from zoo.store.places import kept

    protocol = protocol_of(request, device)
    jobs = jobs_of(field, request, protocol, device)
    before = load()
    try:
        said = take_turns(jobs, Plan(request.repetitions, request.seed, told=told))
    except Lost as lost:
        raise (RequestError if lost.exit_code == RequestError.exit_code else ZooError)(str(lost)) from lost
    names = {contestant.what: contestant for contestant in field.contestants}
    left_out = [*field.left_out, *((name, str(said[name].lost)) for name in names if said[name].lost)]
    measured = [(contestant, said[name]) for name, contestant in names.items() if said[name].lost is None]
    if not measured:
        raise ZooError(f"Not one model could be measured on {device}.\n{left_out[-1][0]}: {left_out[-1][1]}")
    found = summary.Measurement(measured, _twins(measured, said), said[PRODUCT], protocol, device, before, load())
    target = float(request.target) if request.target else None
    bench = {**summary.summarise(found, target, left_out), "command": command}
    runs = [contestant.run.folder for contestant in field.contestants]
    with chosen_with("study=… (a copy of this one)"), kept(runs):
        return bench, store.write(field.folder, bench, summary.rows(found, bench))  # type: ignore[arg-type, return-value]


def protocol_of(request: Request, device: str) -> Protocol:
    """What the request leaves open, decided for a device."""
    from zoo.store.bench import Protocol

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Protocol(
        repetitions=request.repetitions,
        sample=request.sample or SAMPLES[device],
        precision=PRECISIONS[device] if request.precision == "auto" else request.precision,
        compile=request.compile,
        threads=request.threads or cores,
        seed=request.seed,
        order="every process once a round, in random order",
    )


def jobs_of(field: Field, request: Request, protocol: Protocol, device: str) -> dict[str, dict[str, Any]]:
    """What each process is told: the matrix product first, then the models, then the twins."""
    common = {
        "device": device,
        "data": reach.chosen(request.data),
        **{name: protocol[name] for name in ("precision", "compile", "threads", "sample")},
    }
    jobs: dict[str, dict[str, Any]] = {PRODUCT: {**common, "what": "product"}}
    for contestant in field.contestants:
        jobs[contestant.what] = {**common, "what": "run", "folder": str(contestant.run.folder)}
    for contestant in doubled(field.contestants, request.twins):
        jobs[TWIN + contestant.what] = {**jobs[contestant.what], "twin_of": contestant.what}
    return jobs


def doubled(contestants: Sequence[Contestant], twins: str) -> list[Contestant]:
    """Whose process has a twin. `one` takes the smallest module: noise, as a share, is largest on what takes least."""
    if twins == "all":
        return list(contestants)

    def size(contestant: Contestant) -> tuple[bool, int]:
        opaque = contestant.record.get("config", {}).get("trainer") is None
        return opaque, int((contestant.record.get("training") or {}).get("param_count") or 0)

    return [min(contestants, key=size)] if twins == "one" else []


def _twins(measured: Sequence[tuple[Contestant, Turns]], said: dict[str, Turns]) -> dict[int, Turns]:
    """Position in measured -> what the twin said, where both were measured to the end."""
    found = {at: said.get(TWIN + contestant.what) for at, (contestant, _) in enumerate(measured)}
    return {at: turns for at, turns in found.items() if turns is not None and turns.lost is None}


if __name__ == "__main__":
    main()
