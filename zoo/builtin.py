"""What the core itself brings, through the same hooks as everybody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from zoo.data import Dataset
    from zoo.homogeneity.measures import Measure
    from zoo.models import Model
    from zoo.tasks import Task


@hookimpl
def zoo_models() -> list[type[Model]]:
    """The floor of every table."""
    from zoo.baselines import Linear, Majority

    return [Majority, Linear]


@hookimpl
def zoo_datasets() -> list[type[Dataset]]:
    """Sets that come with the package index, and the user's own files."""
    from zoo.data.builtin import DATASETS

    return list(DATASETS)


@hookimpl
def zoo_tasks() -> list[type[Task]]:
    """The three tasks."""
    from zoo.tasks import ImageClassification, Sentiment, TextClassification

    return [TextClassification, ImageClassification, Sentiment]


@hookimpl
def zoo_measures() -> list[type[Measure]]:
    """Behaviour, failures, kinship."""
    from zoo.homogeneity.measures import MEASURES

    return list(MEASURES)
