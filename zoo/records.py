"""What a run leaves behind: its identity, the folder it is written to, and what `run.json` says."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import guard, interrupts
from zoo.config import Precision, Trainer, decide, plain
from zoo.data import reach
from zoo.engine.memory import Peak, importing
from zoo.errors import StoreError, ZooError
from zoo.models import Model, TorchModel
from zoo.phases import phase
from zoo.plugins import CORE
from zoo.store.folder import Draft, clear_leftovers
from zoo.store.keys import RunPlace, run_key
from zoo.store.places import kept
from zoo.store.retiring import retire
from zoo.store.schema import ERROR, FEATURES, METRICS, WEIGHTS

if TYPE_CHECKING:
    from rich.console import Console

    from zoo.config import RunConfig
    from zoo.data import Split, Splits
    from zoo.engine.fitting import Answers
    from zoo.engine.training import Reporter
    from zoo.plugins import Registry

log = logging.getLogger("zoo")

SEED = "zoo_seed"  # of a log entry that speaks of one seed

LIBRARIES = ("torch", "numpy", "scikit-learn", "transformers", "tokenizers", "hydra-core", "pyarrow", "safetensors")


@dataclass(frozen=True)
class Outcome:
    """What became of a run. metrics: name -> {value, low, high, n}; reused: it was complete already."""

    record: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    folder: Path
    reused: bool = False


@dataclass(frozen=True)
class Plan:
    """A run before it starts. trainer: all options decided, None for a `Predictor`; record: what `run.json` says;
    memory: of what is done while it is recorded."""

    place: RunPlace
    trainer: Trainer | None
    record: dict[str, Any]
    began: float = field(default_factory=time.perf_counter)
    memory: Peak = field(default_factory=Peak)


@dataclass(frozen=True)
class Observers:
    """Who watches a training: a progress display, made when the number of steps is known, and the plugins."""

    display: Callable[[int], AbstractContextManager[Reporter]]
    epoch: Callable[[Mapping[str, float]], None]


def identify(config: RunConfig, splits: Splits, registry: Registry, further: Mapping[str, Any] | None = None) -> Plan:
    """The run's place and record. The key covers what decides the result: model, resolved training options, task,
    seed, data and software; not where it is stored nor how the data was named. further: what else decides it."""
    trainer = _trainer(config, splits)
    decisive = {
        "model": plain(config.model),
        "model_fingerprint": _fingerprint(config.model),
        "dataset": config.dataset.name,
        "task": plain(config.task),
        "trainer": _decisive(trainer),
        "seed": config.seed,
        "probe": config.probe,
        "keep_weights": config.keep_weights,
        **(further or {}),
    }
    versions = registry.versions()
    key = run_key(decisive, splits.fingerprint, _versions_used(config, registry))
    place = RunPlace(config.task.name, config.dataset.title(), config.label, key)
    record = {
        "config": {**decisive, "dataset": plain(config.dataset), "trainer": plain(trainer)},
        "seed": config.seed,
        "request": request_of(config, further),
        "label": config.label,
        "command": ["python", "-m", "zoo.run", *config.overrides],
        "versions": {**versions, "python": platform.python_version(), **_libraries()},
        "hardware": _hardware(trainer),
        "data": _data(splits),
    }
    return Plan(place, trainer, record)


def identify_replicas(config: RunConfig, splits: Splits, registry: Registry) -> list[Plan]:
    """`identify` for each seed of a vectorised training, which decides the result: in another group the same seed meets
    other random numbers. What memory a seed took of what all took is not known, not even of one that is recorded alone
    because the others are complete."""
    seeds = range(config.seed, config.seed + config.replicas)
    plans = [identify(replace(config, seed=seed), splits, registry, _group(config)) for seed in seeds]
    return [replace(plan, memory=Peak(shared=True)) for plan in plans]


def _group(config: RunConfig) -> dict[str, Any]:
    """What a vectorised training adds to the identity of each of its runs."""
    return {"vectorised": {"replicas": config.replicas, "first_seed": config.seed}}


def request_of(config: RunConfig, further: Mapping[str, Any] | None = None) -> str:
    """What was asked for, as 16 hex digits: known before any data is read, and the same whatever the data and the
    software turn out to be. A try that fails early is filed under it, and found again by it once the request succeeds.

    further: as for `identify`."""
    trainer = {**plain(config.trainer), "resident_mib": None} if isinstance(config.model, TorchModel) else None
    asked = {
        **{kind: plain(getattr(config, kind)) for kind in ("model", "dataset", "task")},
        "foreign": plain(config.foreign),
        "trainer": trainer,
        **{name: getattr(config, name) for name in ("seed", "probe", "keep_weights")},
        **(further or {}),
    }
    return run_key(asked, "", {})


@contextlib.contextmanager
def keyed(config: RunConfig, splits: Splits, registry: Registry) -> Iterator[None]:
    """An error within, which comes once the data is read, is given the key of the run that it ends."""
    try:
        yield
    except ZooError as error:
        with contextlib.suppress(ZooError):
            further = _group(config) if config.replicas > 1 else None
            error.key = identify(config, splits, registry, further).place.key
        raise


def _versions_used(config: RunConfig, registry: Registry) -> dict[str, str]:
    """Versions of the core and of the distributions that this run's model, dataset and task are from: a plugin that is
    merely installed makes no other run of it."""
    parts = {"model": config.model, "dataset": config.dataset, "task": config.task}
    owners = {
        entry.distribution
        for kind, part in parts.items()
        for entry in registry.entries[kind].values()
        if entry.cls is type(part)
    }
    return {name: version for name, version in registry.versions().items() if name in owners | {CORE}}


def _trainer(config: RunConfig, splits: Splits) -> Trainer | None:
    if not isinstance(config.model, TorchModel):
        return None
    from zoo.engine.fitting import blame

    with blame(config.model, "recipe"):
        return decide(config.trainer, config.model.recipe(splits.modality), len(splits.train))


def _fingerprint(model: Model) -> str:
    from zoo.engine.fitting import blame

    with blame(model, "fingerprint"):
        return model.fingerprint()


def _decisive(trainer: Trainer | None) -> dict[str, Any] | None:
    """Training options that decide the result; the device as what it stands for on this machine, and what `auto` may
    choose there."""
    if trainer is None:
        return None
    with importing():
        from zoo.engine import compiling
    from zoo.engine.devices import choose_device, computes_in_bf16

    device = choose_device(trainer.device)
    compiling.require(trainer.compile, device)
    choice = computes_in_bf16(device) if trainer.precision is Precision.auto else None
    return {**plain(trainer), "device": device.type, "resident_mib": None, "bf16_to_choose": choice}


def _hardware(trainer: Trainer | None) -> dict[str, Any]:
    from zoo.engine.devices import choose_device, hardware

    return hardware(None if trainer is None else choose_device(trainer.device))


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _data(splits: Splits) -> dict[str, Any]:
    def told(split: Split) -> dict[str, Any]:
        return {"examples": len(split), "fingerprint": split.fingerprint}

    return {
        "fingerprint": splits.fingerprint,
        "modality": splits.modality,
        "classes": list(splits.classes),
        "splits": {split.name: told(split) for split in (splits.train, splits.validation, splits.test)},
        "notes": list(splits.notes),
    }


def find(config: RunConfig, plan: Plan) -> Outcome | None:
    """The complete run at the plan's place, checksums verified; None when there is none or `rerun` is set.

    A damaged run is reported and run again."""
    from zoo import store

    if config.rerun:
        return None
    try:
        kept = store.reading.find(config.runs_dir, plan.place, verify=True)
        if kept is None:
            return None
        retire(config.runs_dir, plan.place, plan.record["request"], kept.folder)
        return Outcome(kept.record, kept.metrics(), kept.folder, reused=True)
    except StoreError as error:
        log.warning("%s It is run again.", str(error).partition("\n")[0])  # without advice on what to do instead
        return None


@contextlib.contextmanager
def recording(config: RunConfig, plan: Plan, registry: Registry) -> Iterator[Draft]:
    """A draft of the run's folder. When the body fails the draft is published as failed, with the reason."""
    read = [place for part in (config.dataset, config.model) for place in reach.places_of(part)]
    clear_leftovers(config.runs_dir)
    with (
        kept(read, whole=False),
        interrupts.remembered(),
        plan.memory,
        Draft.open(config.runs_dir, plan.place, plan.record) as draft,
        _logging_to(draft, plan.record["seed"]),
    ):
        registry.notify("zoo_run_started", run=plan.record)
        try:
            yield draft
        except BaseException as caught:
            if not draft.is_open:  # published already: what is complete stays so, whatever came after
                raise
            error = interrupts.meant(caught)
            if isinstance(error, KeyboardInterrupt) and not interrupts.is_users(error):
                # Some plugin's own, in a training step, say: the run was not interrupted.
                error = ZooError(f"In the run of model '{config.label}' {guard.explained(error)}")
            folder = publish_failure(draft, plan.record, error)
            registry.notify("zoo_run_ended", run=_read_record(folder), folder=folder)
            if isinstance(error, KeyboardInterrupt):
                raise error from error.__cause__
            if isinstance(error, ZooError):
                error.folder = folder
                raise
            raise _unforeseen(error, folder) from error
        registry.notify("zoo_run_ended", run=_read_record(draft.folder), folder=draft.folder)


def _unforeseen(error: BaseException, folder: Path) -> ZooError:
    told = ZooError(f"{type(error).__name__}: {error}\nThe traceback stands in {folder / ERROR}")
    told.folder = folder
    return told


def publish_failure(draft: Draft, record: Mapping[str, Any], error: BaseException) -> Path:
    """Publish a draft as failed. On a full disk what was written so far makes room for the reason."""
    text = "".join(traceback.format_exception(error))
    try:
        folder = draft.publish_failure(record, error, text)
    except StoreError:
        draft.drop_files()
        folder = draft.publish_failure(record, error, text)
    retire(draft.root, draft.place, record["request"], folder)
    return folder


def _read_record(folder: Path) -> Mapping[str, Any]:
    from zoo.store.reading import read_record

    return read_record(folder)


@contextlib.contextmanager
def _logging_to(draft: Draft, seed: int) -> Iterator[None]:
    """What the harness and the plugins log goes to the run's `events.log` as well, but for what is said of the other
    seeds of a vectorised training."""

    class ToDraft(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            if draft.is_open and getattr(entry, SEED, seed) == seed:
                draft.log(f"{entry.levelname.lower()} {entry.getMessage()}")

    handler, before = ToDraft(logging.INFO), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


def observers(plan: Plan, registry: Registry, screen: Console) -> Observers:
    """The display on this screen, and the plugins' `zoo_epoch_ended`."""
    from zoo import progress

    def epoch(row: Mapping[str, float]) -> None:
        told = " ".join(f"{name}={value:.6g}" for name, value in row.items())
        log.info("epoch %s", told, extra={SEED: plan.record["seed"]})
        registry.notify("zoo_epoch_ended", run=plan.record, epoch=row)

    limit = plan.trainer.seconds if plan.trainer else None
    return Observers(lambda steps: progress.reporter(screen, steps, limit), epoch)


@phase("writing the run")
def write(
    draft: Draft, plan: Plan, splits: Splits, answers: Answers, scores: Mapping[str, Mapping[str, Any]]
) -> Outcome:
    """Fill the draft and publish it as complete."""
    draft.write_json(METRICS, scores)
    draft.write_predictions(_predictions(splits, answers))
    draft.write_history(answers.history)
    if answers.features:
        draft.write_tensors(FEATURES, answers.features)
    if answers.weights:
        draft.write_tensors(WEIGHTS, answers.weights)
    plan.record["training"] = dict(answers.facts)
    plan.record["layers"] = list(answers.features)
    plan.record["probe_ids"] = [splits.test.ids[row] for row in answers.probe_rows]
    plan.record["seconds"] = time.perf_counter() - plan.began
    plan.record["peak_memory_mib"] = plan.memory.mib()
    plan.record["peak_device_memory_mib"] = plan.memory.device_mib()
    folder = draft.publish(plan.record, "complete")
    retire(draft.root, draft.place, plan.record["request"], folder)
    return Outcome(_read_record(folder), scores, folder)


def write_failure(draft: Draft, plan: Plan, error: ZooError) -> Outcome:
    """Publish the draft as failed: an outcome without metrics."""
    error.folder = publish_failure(draft, plan.record, error)
    return Outcome(_read_record(error.folder), {}, error.folder)


def _predictions(splits: Splits, answers: Answers) -> Any:
    import numpy as np

    from zoo.store.tables import PredictionTable

    parts = ((splits.validation, answers.validation), (splits.test, answers.test))
    logits = np.concatenate([answer for _, answer in parts])
    return PredictionTable(
        splits=np.concatenate([np.full(len(split), split.name) for split, _ in parts]),
        ids=np.concatenate([np.array(split.ids) for split, _ in parts]),
        labels=np.concatenate([split.labels for split, _ in parts]),
        predictions=logits.argmax(1),
        logits=logits,
    )


def note(config: RunConfig, registry: Registry, error: ZooError, status: Any) -> Path:
    """A folder for a cell of a sweep that could not start: skipped or failed, with the reason. Returns where it is.

    It has the run's key when that was known, else the request's: a later success takes its place either way."""
    decisive = {"model": plain(config.model), "dataset": plain(config.dataset), "task": plain(config.task)}
    request = request_of(config, _group(config) if config.replicas > 1 else None)
    place = RunPlace(config.task.name, config.dataset.title(), config.label, error.key or request)
    record = {
        "config": decisive,
        "seed": config.seed,
        "request": request,
        "label": config.label,
        "command": ["python", "-m", "zoo.run", *config.overrides],
        "versions": registry.versions(),
    }
    with Draft.open(config.runs_dir, place, record) as draft:
        if status == "failed":
            return publish_failure(draft, record, error)
        reason = {"type": type(error).__name__, "message": str(error)}
        folder = draft.publish({**record, "error": reason}, "skipped")
        retire(config.runs_dir, place, request, folder)
        return folder
