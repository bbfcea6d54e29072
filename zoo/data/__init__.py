"""Datasets: what a plugin gives (`Dataset`, `Data`) and what the harness makes of it (`Split`, `Splits`).

The way: `Dataset.read()` → `Data` (examples and labels a split) → `load()` checks, hashes, drops duplicates across
splits and fingerprints → `Splits`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from zoo.models import Modality
from zoo.options import Configurable

if TYPE_CHECKING:
    import numpy as np

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Labelled:
    """Examples with their labels.

    examples: texts, or images (n, height, width, channels) uint8 with 1 or 3 channels.
    labels: n class indices.
    origins: where each example came from ("reviews.csv row 17"), for error messages; empty when unknown.
    """

    examples: Sequence[str] | np.ndarray
    labels: Sequence[int] | np.ndarray
    origins: Sequence[str] = ()


@dataclass(frozen=True)
class Data:
    """What `Dataset.read` returns. classes: names, index = label. Without `validation`, a tenth of `train` is taken
    for it (stratified, the same every time). notes: what was passed over, in words."""

    classes: Sequence[str]
    train: Labelled
    test: Labelled
    validation: Labelled | None = None
    notes: Sequence[str] = ()


@dataclass
class Dataset(Configurable, ABC):
    """Named examples with fixed splits. A dataclass: its fields are its options and its config schema."""

    name: ClassVar[str]
    modality: ClassVar[Modality]
    _section: ClassVar[str] = "dataset"

    @abstractmethod
    def read(self) -> Data:
        """Read everything. The result must be the same each time. Raises DataError naming file, row and value."""

    def title(self) -> str:
        """What runs on this dataset are filed under. Default: the name; a reader of files adds which file."""
        return self.name


@dataclass(frozen=True)
class Split:
    """One split as the models get it.

    examples: texts, or images (n, height, width, channels) uint8; labels: (n,) int64; ids: n content hashes, unique
    within the split (a repeat gets a suffix); fingerprint: hash over ids and labels in order.
    """

    name: SplitName
    modality: Modality
    classes: tuple[str, ...]
    examples: Sequence[str] | np.ndarray
    labels: np.ndarray
    ids: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Splits:
    """A loaded dataset. fingerprint: hash over classes and the three splits. notes: what was dropped, in words."""

    train: Split
    validation: Split
    test: Split
    fingerprint: str
    notes: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; index = label."""
        return self.test.classes

    @property
    def modality(self) -> Modality:
        """What the examples are."""
        return self.test.modality


def load(dataset: Dataset) -> Splits:
    """Read, check, hash and deduplicate a dataset.

    Exact duplicates across splits are dropped from training (and, between validation and test, from validation).
    Raises DataError for a class missing from a split, an empty text, a label outside the classes, and whatever
    `Dataset.read` raises.
    """
    from zoo.data.loading import prepare

    return prepare(dataset)
