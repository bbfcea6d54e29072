"""Every hook a plugin may implement, with its contract. Hooks return values; none is handed a registry to mutate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from zoo.data import Dataset
    from zoo.homogeneity.measures import Measure
    from zoo.models import Model
    from zoo.tasks import Task

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_models() -> list[type[Model]]:  # type: ignore[empty-body]
    """The model classes of this plugin: subclasses of `zoo.TorchModel` or `zoo.Predictor`."""


@hookspec
def zoo_datasets() -> list[type[Dataset]]:  # type: ignore[empty-body]
    """The dataset classes of this plugin: subclasses of `zoo.Dataset`."""


@hookspec
def zoo_tasks() -> list[type[Task]]:  # type: ignore[empty-body]
    """The task classes of this plugin: subclasses of `zoo.Task`."""


@hookspec
def zoo_measures() -> list[type[Measure]]:  # type: ignore[empty-body]
    """The measure classes of this plugin: subclasses of `zoo.Measure`."""


@hookspec
def zoo_config_package() -> str:  # type: ignore[empty-body]
    """An importable package of extra YAML, e.g. `"zoo_mlp.conf"`: its folders are config groups.

    The package and each folder in it need an `__init__.py`. A file that stands in the core or in another plugin
    already is an error that names both."""


@hookspec
def zoo_run_started(run: Mapping[str, Any]) -> None:
    """A run begins. run: what `run.json` holds so far (config, seed, versions, hardware, data)."""


@hookspec
def zoo_epoch_ended(run: Mapping[str, Any], epoch: Mapping[str, float]) -> None:
    """An epoch ended. epoch: the row of `history.parquet` (epoch, step, loss, metrics, seconds)."""


@hookspec
def zoo_run_ended(run: Mapping[str, Any], folder: Path) -> None:
    """A run ended, whatever its status. run: the final `run.json`; folder: where it lies now."""


@hookspec
def zoo_report_written(document: Mapping[str, Any], folder: Path) -> None:
    """A report was written. document: what `report.json` holds; folder: where index.html and the rest lie."""
