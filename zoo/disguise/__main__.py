"""python -m zoo.disguise: a stored run changed so that its descent is harder to see, as a new run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import guard, progress
from zoo.disguise import chain
from zoo.disguise.place import DEFAULT, require_apart
from zoo.errors import ConfigError, RequestError, did_you_mean, printable
from zoo.phases import phase

if TYPE_CHECKING:
    from zoo.disguise.publishing import Disguised, Request

OPTIONS = ("how", "seed", "out", "device", "data")
SEEDS = 2**32


def usage() -> str:
    """The help text."""
    width = max(len(kind.example) for kind in chain.KINDS.values())
    kinds = "\n".join(f"  {kind.example:{width}}  {kind.does}" for kind in chain.KINDS.values())
    return f"""python -m zoo.disguise RUN how=step,step,… [option=value …]

RUN            the folder of a complete run of a model that the engine trains
how=           steps from left to right, such as prune:0.5,permute,quantise:8
seed=0         of everything that is drawn
out={DEFAULT}  folder in which the new run is kept; not the one that holds the
               runs it is made from, since a report on these would then count
               it, too
device=auto    cpu, cuda or mps
data=auto      true reads whatever data the run names; auto: those of the
               installation and below this folder

A report on both, study=runs,{DEFAULT}, counts the new run as one more model.
It says first, from the new run's record and before any test, which run it was
made from and by which steps, and whether the weights speak against that.

Steps:
{kinds}"""


def main() -> None:
    """The command. Exit codes: 0 fine, 1 something failed, 2 the request was wrong, 130 Ctrl-C."""
    guard.leave(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Do what the command line asks for. Returns the exit code."""
    # Waiting threads of OpenMP burn the core that the others need; the variable counts only before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    progress.log_on_screen()
    return guard.run(lambda: _command(list(arguments)))


def _command(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(usage())
        return 0 if arguments else RequestError.exit_code
    with progress.activity():
        _show(parse(arguments))
    return 0


def parse(arguments: Sequence[str]) -> Request:
    """The request from the words of a command line. Raises ConfigError and UnknownName."""
    from zoo.config import Device
    from zoo.data import reach
    from zoo.disguise.publishing import Request
    from zoo.store.disk import place_of

    runs = [word for word in arguments if os.path.isdir(word) or not ("=" in word or word.startswith("-"))]
    said = {name: value for name, _, value in (word.partition("=") for word in arguments if word not in runs)}
    for name in said:
        if name not in OPTIONS:
            meant = did_you_mean(name.lstrip("-"), OPTIONS)
            raise ConfigError(f"No option '{name}'.{meant} Options: {', '.join(OPTIONS)}, each as {OPTIONS[0]}=….")
    if len(runs) != 1:
        got = f"got {len(runs)}: {', '.join(runs)}" if runs else "got none"
        raise ConfigError(f"One run folder is needed, and {got}.\nFor example: python -m zoo.disguise "
                          "runs/sentiment/rotten_tomatoes/mlp/<key> how=prune:0.5,permute")  # fmt: skip
    if "how" not in said:
        raise ConfigError(f"How? For example how=prune:0.5,permute,quantise:8\nThere are: {', '.join(chain.KINDS)}.")
    chain.parse(said["how"])
    device = said.get("device", "auto")
    devices = [item.value for item in Device]
    if device not in devices:
        raise ConfigError(f"device={device}: it is one of {', '.join(devices)}.{did_you_mean(device, devices)}")
    out = said.get("out", DEFAULT)
    if not out.strip():
        raise ConfigError(f"out= has no value. Write a folder, e.g. out={DEFAULT}")
    seed, place = _seed(said.get("seed", "0")), place_of(out, "out")
    require_apart(Path(runs[0]), place)
    return Request(Path(runs[0]), said["how"], seed, place, Device(device), reach.chosen(said.get("data", "auto")))


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= SEEDS:
        raise ConfigError(f"seed={text}: it must be a whole number from 0 to {SEEDS - 1}.")
    return int(text)


def _show(request: Request) -> None:
    from zoo import plugins

    with phase("loading libraries"):
        from zoo.disguise.publishing import disguise

        installed = plugins.registry()
    screen = progress.console()
    made = disguise(request, installed, screen)
    for line in told(made):
        screen.print(printable(line), soft_wrap=True, markup=False)


def told(made: Disguised) -> list[str]:
    """What was done and what it did to the answers, a line each."""
    from scipy.stats import binomtest

    record, metrics = made.outcome.record, made.outcome.metrics
    lines = [f"{record['parent']['label']}, seed {record['seed']} → {record['label']}"]
    lines += [_step(step) for step in record["parent"]["steps"]]
    n = metrics["accuracy"]["n"]
    lines.append(
        f"accuracy {progress.interval(made.parent['accuracy'])} → {progress.interval(metrics['accuracy'])}, n = {n}"
    )
    span = binomtest(made.same, made.examples).proportion_ci(method="wilson")
    share = {"value": made.same / made.examples, "low": span.low, "high": span.high}
    lines.append(f"same answer as the parent: {progress.interval(share)} of {made.examples} test examples")
    if made.outcome.reused:
        lines.append("This run was complete already and was not made again.")
    lines.append(f"Results: {made.outcome.folder}")
    lines.append(
        f"A report with this run among its runs counts {record['label']} as one more model and says first that it is "
        f"on record to be made from {record['parent']['label']}, seed {record['parent']['seed']}."
    )
    return lines


def _step(step: dict[str, object]) -> str:
    """`prune:0.5  weights 1,000, zero 500`."""

    def shown(value: object) -> str:
        if isinstance(value, list):
            return str(len(value))
        if isinstance(value, float):
            return f"{value:.2g}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    facts = (f"{name.replace('_', ' ')} {shown(value)}" for name, value in step.items() if name != "step")
    return f"  {step['step']}  {', '.join(facts)}"


if __name__ == "__main__":
    main()
