"""A stored run back in memory: its model, task and data from `run.json`, its weights from `model.safetensors`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.config import Compile, Device, RunConfig, Trainer, TrainerOptions, from_record
from zoo.errors import ConfigError, DamagedRun, Incompatible, RequestError, StoreError, shortened
from zoo.models import Model, TorchModel
from zoo.store.reading import damaged, near_folder
from zoo.store.schema import RUN, WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from zoo.data import Splits
    from zoo.engine.fitting import Ready
    from zoo.engine.training import Trained
    from zoo.plugins import Registry
    from zoo.records import Observers
    from zoo.store.reading import Run


@dataclass(frozen=True)
class Parent:
    """A stored run, not yet rebuilt. config: as the run had it, with the device asked for now; trainer: all decided."""

    run: Run
    config: RunConfig
    trainer: Trainer
    splits: Splits

    @property
    def key(self) -> str:
        """The run's key."""
        return str(self.run.record["key"])


@dataclass(frozen=True)
class Subject:
    """What is being changed: a rebuilt module with all that belongs to it. trained: the last training it went through
    since it was rebuilt; history: the rows of all of them."""

    ready: Ready
    trainer: Trainer
    splits: Splits
    observers: Observers
    registry: Registry
    trained: Trained | None = None
    history: tuple[Mapping[str, float], ...] = ()

    @property
    def module(self) -> torch.nn.Module:
        """The module."""
        return self.ready.module

    def having(self, module: torch.nn.Module) -> Subject:
        """The same with another module."""
        return dataclasses.replace(self, ready=dataclasses.replace(self.ready, module=module))

    def inputs(self, examples: int = 16) -> tuple[torch.Tensor, ...]:
        """What the module gets for the first validation examples."""
        import numpy as np

        batches = self.ready.batches["validation"]
        return batches.take(np.arange(min(examples, len(batches)))).inputs


def open(folder: Path, device: Device, registry: Registry) -> Parent:
    """Read a run folder, checksums compared, and load its data.

    Raises RequestError for a folder that is none or whose run is not complete, Incompatible for a run that holds no
    module to change or whose data or checkpoint is not what is here now, and what the store and the data raise.
    """
    from zoo import data
    from zoo.data import reach
    from zoo.store import reading

    if not os.path.isdir(folder):
        told = f"There is no run folder {folder}.{near_folder(folder)}"
        raise RequestError(f"{told}\n`python -m zoo.ls runs` lists what there is.")
    if not os.path.lexists(folder / RUN) and os.access(folder, os.X_OK):
        raise RequestError(
            f"{folder} is no run folder: it holds no {RUN}. Only stored runs can be changed.\n"
            "`python -m zoo.ls runs` lists what there is."
        )
    run = reading.read(folder)
    if run.status != "complete":
        raise RequestError(f"Run {folder} is not complete (its status is '{run.status}'). Run it again first.")
    _require_record(run)
    config = _config(run, registry)
    trainer = _trainer(run, device)
    _require_weights(run)
    reach.require_allowed(config.dataset, config.model)
    splits = data.load(config.dataset)
    _require_same(run, splits, config.model)
    options = TrainerOptions(**vars(trainer))
    return Parent(run, dataclasses.replace(config, trainer=options), trainer, splits)


def _require_record(run: Run) -> None:
    """What is looked up below must be there, in its kind: a folder may come from anywhere."""
    if "imported" in run.record:
        raise Incompatible(f"Run {run.folder} holds answers that were made elsewhere: there is no model to change.")
    config, data = run.record.get("config"), run.record.get("data")
    config = config if isinstance(config, Mapping) else {}
    kinds: dict[str, tuple[Any, type]] = {
        **{f"config.{name}": (config.get(name), Mapping) for name in ("model", "dataset", "task")},
        "config.trainer": (config.get("trainer") or {}, Mapping),  # null where the model fits itself
        "config.probe": (config.get("probe"), int),
        "data.fingerprint": (data.get("fingerprint") if isinstance(data, Mapping) else None, str),
        "key": (run.record.get("key"), str),
        "label": (run.record.get("label"), str),
        "seed": (run.record.get("seed"), int),
    }
    if wrong := [name for name, (value, kind) in kinds.items() if not isinstance(value, kind)]:
        raise damaged(run.folder, f"{wrong[0]} in its {RUN} is missing or of another kind")


def _config(run: Run, registry: Registry) -> RunConfig:
    stored = run.record["config"]
    parts = {kind: from_record(kind, stored[kind], registry) for kind in ("model", "dataset", "task")}
    if not isinstance(parts["model"], TorchModel):
        raise Incompatible(
            f"Run {run.folder} is of '{parts['model'].name}', which fits itself and is opaque to the harness: "
            f"it has no layers to change.\nTake a run of a model that the engine trains, such as mlp or cnn."
        )
    return RunConfig(
        **parts,
        trainer=TrainerOptions(),
        label=run.record["label"],
        seed=run.record["seed"],
        probe=stored["probe"],
    )


def _trainer(run: Run, device: Device) -> Trainer:
    """The options that the run was trained with, on the device asked for now."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    # How fast it was trained is no matter here, and 0.1 said it in other words.
    stored = {**run.record["config"]["trainer"], "compile": Compile.none.value}
    try:
        trainer = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Trainer), stored))
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"The training options of run {run.folder} are not those of this version: {str(error).splitlines()[0]}\n"
            f"Install the version that its run.json names."
        ) from error
    assert isinstance(trainer, Trainer)
    return dataclasses.replace(trainer, device=device)


def _require_weights(run: Run) -> None:
    if WEIGHTS not in run.record.get("files", {}):
        raise StoreError(
            f"Run {run.folder} holds no {WEIGHTS}, so there is nothing to change.\n"
            f"Train it again with keep_weights=true rerun=true."
        )


def _require_same(run: Run, splits: Splits, model: Model) -> None:
    record = run.record
    if splits.fingerprint != record["data"]["fingerprint"]:
        raise Incompatible(
            f"The dataset of run {run.folder} is not what it was: its fingerprint was "
            f"{record['data']['fingerprint'][:8]}… and is {splits.fingerprint[:8]}… now.\n"
            f"Bring the data back as it was, or train a run on what is there."
        )
    from zoo.engine.fitting import blame

    with blame(model, "fingerprint"):
        now = model.fingerprint()
    if now != record["config"].get("model_fingerprint", now):
        raise Incompatible(
            f"What the options of run {run.folder} point at has changed since (such as a checkpoint's files).\n"
            f"Bring it back as it was, or train a run with what is there."
        )


def rebuild(parent: Parent, registry: Registry, observers: Observers) -> Subject:
    """The parent's module with its stored weights, on the device. Raises DamagedRun when they do not fit."""
    from zoo.engine import fitting

    assert isinstance(parent.config.model, TorchModel)
    ready = fitting.prepare(parent.config.model, parent.trainer, parent.splits, parent.config.seed)
    load_weights(ready.module, parent.run)
    return Subject(ready, parent.trainer, parent.splits, observers, registry)


def load_weights(module: torch.nn.Module, run: Run) -> None:
    """Put a run's stored weights into a module, in place. Raises DamagedRun when names or shapes differ, Incompatible
    for weights that no answers follow from."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(run.folder / WEIGHTS)
        module.load_state_dict(stored)
    except (RuntimeError, SafetensorError) as error:
        first = shortened(" ".join(line.strip() for line in str(error).splitlines()[:2]))
        raise DamagedRun(
            f"The weights of run {run.folder} do not fit the model that its options build: {first}\n"
            f"Was it made with other versions? Its run.json names them."
        ) from error
    if broken := sorted(name for name, value in stored.items() if not bool(value.isfinite().all())):
        raise Incompatible(
            f"Run {run.folder} holds NaN or infinite weights ({broken[0]}), of which no step makes a model.\n"
            f"Take a run whose training went well."
        )
