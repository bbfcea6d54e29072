"""Tasks: what is asked of a dataset. The three that the core brings, and the contract for further ones."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from zoo.errors import Incompatible
from zoo.models import Modality
from zoo.options import Configurable

if TYPE_CHECKING:
    import numpy as np

    from zoo.data import Splits

    Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


@dataclass
class Task(Configurable, ABC):
    """Modality, label space and metrics. A dataclass: its fields are its options and its config schema.

    dataset: the name of the dataset that `task=<name>` picks when none is given.
    """

    name: ClassVar[str]
    modality: ClassVar[Modality]
    dataset: ClassVar[str]
    _section: ClassVar[str] = "task"

    def check(self, splits: Splits) -> None:
        """Raise Incompatible when the dataset cannot serve this task. Default: the modality must match."""
        if splits.modality != self.modality:
            raise Incompatible(
                f"Task '{self.name}' is about {self.modality} and the dataset holds {splits.modality} examples."
            )

    def metrics(self) -> Mapping[str, Metric]:
        """Further metrics beside accuracy, macro-F1, log-loss and ECE, by name.

        Each takes labels (n,) int64, probabilities (n, classes) float64 and weights (n,) float64 (how often the
        bootstrap drew each example), and returns a number."""
        return {}


@dataclass
class TextClassification(Task):
    """Assign a text to one of several topics."""

    name: ClassVar[str] = "text_classification"
    modality: ClassVar[Modality] = "text"
    dataset: ClassVar[str] = "bbc_news"


@dataclass
class ImageClassification(Task):
    """Assign an image to one of several classes."""

    name: ClassVar[str] = "image_classification"
    modality: ClassVar[Modality] = "image"
    dataset: ClassVar[str] = "mnist5k"


@dataclass
class Sentiment(Task):
    """Tell the polarity of a text; classes run from negative to positive."""

    name: ClassVar[str] = "sentiment"
    modality: ClassVar[Modality] = "text"
    dataset: ClassVar[str] = "rotten_tomatoes"

    def check(self, splits: Splits) -> None:
        """A polarity has two to seven degrees; more classes are topics."""
        super().check(splits)
        if not 2 <= len(splits.classes) <= 7:
            raise Incompatible(
                f"Task 'sentiment' takes 2 to 7 ordered classes and the dataset has {len(splits.classes)}: "
                f"{', '.join(splits.classes[:8])}… Use task=text_classification for topics."
            )
