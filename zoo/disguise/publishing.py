"""From a stored run and a chain to a new run folder: every step applied, the result evaluated as any run is."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import guard
from zoo.config import Device, RunConfig, Trainer, TrainerOptions, decide
from zoo.data import reach
from zoo.data.reach import Reach
from zoo.disguise import chain, parent
from zoo.disguise.place import DEFAULT
from zoo.errors import Incompatible
from zoo.models import TorchModel
from zoo.phases import phase
from zoo.store.disk import chosen_with
from zoo.store.places import kept
from zoo.store.schema import DISGUISE, PARENT, WEIGHTS

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from zoo.disguise.parent import Parent, Subject
    from zoo.plugins import Registry
    from zoo.records import Outcome, Plan


@dataclass(frozen=True)
class Request:
    """What is asked for. run: the parent's folder; seed: of everything that is drawn; out: where runs are kept."""

    run: Path
    how: str
    seed: int = 0
    out: Path = Path(DEFAULT)
    device: Device = Device.auto
    data: Reach = "auto"


@dataclass(frozen=True)
class Job:
    """One step with what it needs beyond its value. model, trainer: of the student of a `distil`, else None."""

    step: chain.Step
    model: TorchModel | None = None
    trainer: Trainer | None = None


@dataclass(frozen=True)
class Disguised:
    """What came of it. parent: the parent's metrics; same: test examples with the parent's answer, of `examples`."""

    outcome: Outcome
    parent: Mapping[str, Mapping[str, Any]]
    same: int
    examples: int


def disguise(request: Request, registry: Registry, screen: Console) -> Disguised:
    """Make the new run, or find it when it is there already. Raises what reading, the steps and the store raise; once
    the parent is read a failure leaves a folder marked failed with the reason."""
    from zoo import records

    steps = chain.parse(request.how)
    with phase("reading the run and its data"), reach.allowing(request.data):
        origin = parent.open(request.run, request.device, registry)
    jobs, config = _planned(origin, steps, registry)
    config = dataclasses.replace(config, runs_dir=request.out, label=chain.label(config.label, steps))
    told = {"how": chain.written(steps), "seed": request.seed, "parent": origin.key}
    plan = records.identify(config, origin.splits, registry, {DISGUISE: told})
    with chosen_with("out=…"), kept([request.run]):
        outcome = records.find(config, plan) or _made(origin, jobs, (config, plan, request), registry, screen)
    return _compared(origin, outcome)


def _planned(origin: Parent, steps: Sequence[chain.Step], registry: Registry) -> tuple[list[Job], RunConfig]:
    """The steps with their students, and the configuration of what comes out: its model is the last student's."""
    jobs: list[Job] = []
    model, trainer = origin.config.model, origin.trainer
    assert isinstance(model, TorchModel)
    for step in steps:
        if step.kind.name != "distil":
            jobs.append(Job(step))
            continue
        name, epochs = chain.student(step)
        if name is not None:
            model = _student(name, origin, registry)
            recipe = model.recipe(origin.splits.modality)
            options = TrainerOptions(device=trainer.device, threads=trainer.threads)
            trainer = decide(options, recipe, len(origin.splits.train))
        if epochs is not None:
            trainer = dataclasses.replace(trainer, epochs=epochs, steps=None, seconds=None, patience=None)
        jobs.append(Job(step, model, trainer))
    return jobs, dataclasses.replace(origin.config, model=model, trainer=TrainerOptions(**vars(trainer)))


def _student(name: str, origin: Parent, registry: Registry) -> TorchModel:
    entry = registry.find("model", name)
    with guard.options_of(f"Model '{name}'", f"{entry.distribution} {entry.version}"):
        model = entry.cls()
    if not isinstance(model, TorchModel):
        raise Incompatible(f"distil:{name}: '{name}' fits itself and cannot learn from probabilities.")
    if origin.splits.modality not in model.modalities:
        raise Incompatible(
            f"distil:{name}: '{name}' takes {' and '.join(sorted(model.modalities))}, and the run is about "
            f"{origin.splits.modality}s."
        )
    return model


def _made(
    origin: Parent,
    jobs: Sequence[Job],
    what: tuple[RunConfig, Plan, Request],
    registry: Registry,
    screen: Console,
) -> Outcome:
    from zoo import records
    from zoo.engine import fitting, metrics

    config, plan, request = what
    plan.record["command"] = ["python", "-m", "zoo.disguise", str(request.run), f"how={request.how}",
                              f"seed={request.seed}"]  # fmt: skip
    plan.record[PARENT] = _lineage(origin)
    with records.recording(config, plan, registry) as draft:
        subject = parent.rebuild(origin, registry, records.observers(plan, registry, screen))
        for place, job in enumerate(jobs):
            with phase(job.step.text):
                subject, facts = apply(subject, job, generator(request.seed, place))
            plan.record[PARENT]["steps"].append({"step": job.step.text, **facts})
        kept = fitting.Kept(config.probe, weights=True)
        answers = fitting.answer(subject.ready, origin.splits, kept, subject.trainer.batch_size, subject.trained)
        answers = dataclasses.replace(answers, history=[dict(row) for row in subject.history])
        with phase("computing the metrics and their intervals"):
            scores = metrics.score(config.task, origin.splits.test, answers.test)
        return records.write(draft, plan, origin.splits, answers, scores)


def _lineage(origin: Parent) -> dict[str, Any]:
    record = origin.run.record
    return {
        "key": origin.key,
        "label": origin.config.label,
        "seed": origin.config.seed,
        "weights_sha256": record["files"][WEIGHTS]["sha256"],
        "steps": [],
    }


def apply(subject: Subject, job: Job, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """One step on a subject. Returns the changed subject and what was done, in JSON types."""
    from zoo.engine import devices

    module, _, function = job.step.kind.where.partition(":")
    made = getattr(importlib.import_module(f"zoo.disguise.{module}"), function)
    values = (job.step.value,) if job.model is None else (job.model, job.trainer)
    with devices.threads(subject.ready.placement.threads):
        changed: tuple[Subject, Mapping[str, Any]] = made(subject, *values, rng)
    return changed


def generator(seed: int, place: int) -> torch.Generator:
    """The generator of the step at a place of a chain: independent of the other steps, the same every time."""
    import numpy as np
    import torch

    state = np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


def _compared(origin: Parent, outcome: Outcome) -> Disguised:
    from zoo.store import reading

    ours, theirs = (run.predictions().only("test") for run in (reading.read(outcome.folder, verify=False), origin.run))
    same = int((ours.predictions == theirs.predictions).sum())
    return Disguised(outcome, origin.run.metrics(), same, len(ours))
