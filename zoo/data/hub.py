"""Datasets of the Hugging Face hub, or local folders in its layout, through the `datasets` package (an extra)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.data import Data
from zoo.data.assembly import ALIASES, WHOLE, Others, Raw, UserData, arranged, by_split, titled
from zoo.data.images import to_pixels
from zoo.data.labels import kind, label_name
from zoo.errors import DataError, did_you_mean
from zoo.models import Modality
from zoo.options import option

if TYPE_CHECKING:
    import numpy as np

BUILDERS = frozenset({"arrow", "csv", "imagefolder", "json", "parquet", "text"})
"""The formats that are read. Others could run code that comes with the data (pickled tables, archives)."""


@dataclass
class Hub(UserData):
    """Texts of a Hugging Face dataset. Needs the extra: pip install 'zoo-harness[hub]'.

    `path` is a name on the hub (owner/name) or a local folder. Splits are taken by their names (validation also as
    valid, val, dev …; test as testing, eval …). Without validation a tenth of train serves; without test, validation is
    the test. What was downloaded once is read offline (HF_HUB_OFFLINE=1). Datasets that bring code are refused. Name a
    `revision` if the result is to be the same for ever.
    """

    path: str = option("", "name on the hub (owner/name) or a local folder")
    config: str = option("", "which configuration (subset) of the dataset")
    revision: str = option("", "commit or tag on the hub")
    test: str = option("", "which of the splits is the test; default: test, or else validation")
    text: str = option("text", "column that holds the text")
    label: str = option("label", "column that holds the label")
    classes: list[str] = option([], "class names in order; default: those of the dataset")

    name: ClassVar[str] = "hub"
    modality: ClassVar[Modality] = "text"

    def title(self) -> str:
        """The name and what the files are called."""
        return titled(self.name, self.path)

    def read(self) -> Data:
        """Load every split. Raises DataError."""
        tables, notes = _load(Place(self.path, self.config, self.revision, self.test))
        splits = {split: _rows(table, self.text, self.label, self.classes) for split, table in tables.items()}
        return self.assemble(splits, self.classes or _class_names(tables, self.label), notes)


@dataclass
class HubImages(UserData):
    """Images of a Hugging Face dataset. Needs the extra: pip install 'zoo-harness[hub]'.

    As `hub`, with a column of pictures, each brought to `size` × `size` as `image_folder` does.
    """

    path: str = option("", "name on the hub (owner/name) or a local folder")
    config: str = option("", "which configuration (subset) of the dataset")
    revision: str = option("", "commit or tag on the hub")
    test: str = option("", "which of the splits is the test; default: test, or else validation")
    image: str = option("image", "column that holds the picture")
    label: str = option("label", "column that holds the label")
    size: int = option(64, "height and width in pixels to which every picture is brought", ge=1, le=4096)
    channels: int = option(3, "3 for colour, 1 for grey", choices=(1, 3))
    classes: list[str] = option([], "class names in order; default: those of the dataset")

    name: ClassVar[str] = "hub_images"
    modality: ClassVar[Modality] = "image"

    def title(self) -> str:
        """The name and what the files are called."""
        return titled(self.name, self.path)

    def read(self) -> Data:
        """Load every split. Raises DataError."""
        tables, notes = _load(Place(self.path, self.config, self.revision, self.test))
        splits = {}
        for split, table in tables.items():
            raw = _rows(table, self.image, self.label, self.classes)
            splits[split] = Raw(self._pixels(raw), raw.labels, raw.origins)
        return self.assemble(splits, self.classes or _class_names(tables, self.label), notes)

    def _pixels(self, raw: Raw) -> np.ndarray:
        import numpy as np
        from PIL import Image

        pixels = np.empty((len(raw.examples), self.size, self.size, self.channels), np.uint8)
        for index, picture in enumerate(raw.examples):
            if not isinstance(picture, Image.Image):
                raise DataError(
                    f"{raw.origins[index]}: the column '{self.image}' holds {kind(picture)}, not a picture."
                )
            pixels[index] = to_pixels(picture, self.size, self.channels)
        return pixels


@dataclass(frozen=True)
class Place:
    """Where a dataset is to be had, and which of its splits is the test (empty: the one of that name)."""

    path: str
    config: str
    revision: str
    test: str


def _load(place: Place) -> tuple[dict[str, Any], list[str]]:
    """The tables of a dataset, by split, and notes of those passed over.

    Raises DataError when it cannot be had or would run code."""
    path = place.path
    if not path.strip():
        raise DataError("No path was given. Name the dataset, e.g. path=owner/name or a local folder.")
    try:
        import datasets
    except ImportError:
        raise DataError("The datasets of the hub need the package 'datasets': pip install 'zoo-harness[hub]'") from None
    with _plainly(path), _no_progress(datasets):
        builder = datasets.load_dataset_builder(path, name=place.config or None, revision=place.revision or None)
        if builder.name not in BUILDERS:
            raise DataError(
                f"Dataset '{path}' comes as '{builder.name}', which is not read: it may run code.\n"
                f"Known formats: {', '.join(sorted(BUILDERS))}."
            )
        builder.download_and_prepare()
        tables: Mapping[str, Any] = builder.as_dataset()
    if place.test and place.test not in tables:
        raise DataError(f"Dataset '{path}' has no split '{place.test}'. Its splits: {', '.join(tables)}.")
    found, others = by_split([(_called(name, place.test), name) for name in tables], f"dataset '{path}'", str)
    if "train" not in found:
        raise DataError(f"Dataset '{path}' has no split 'train' beside the test. Its splits: {', '.join(tables)}.")
    names, notes = arranged(found, Others(others, others, advice="say so: test=<split>"), f"dataset '{path}'")
    return {split: tables[name] for split, name in names.items()}, notes


def _called(name: str, test: str) -> str:
    """What a split goes by when another, or none (empty), was chosen as the test: then none else is the test."""
    if name == test:
        return "test"
    return "" if test and name.lower() in ALIASES["test"] else name


@contextlib.contextmanager
def _plainly(path: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the package raises a score of kinds, and its dependencies more
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        if "script" in reason or "trust_remote_code" in reason:
            raise DataError(
                f"Dataset '{path}' brings code of its own, which is not run: {reason}.\n"
                "Look for a copy of it in Parquet (most have one at the revision refs/convert/parquet)."
            ) from None
        raise DataError(
            f"Dataset '{path}' could not be loaded: {reason}.\n"
            "Check the name (owner/name), the config and the network; what was downloaded once can be read offline."
        ) from None


@contextlib.contextmanager
def _no_progress(datasets: Any) -> Iterator[None]:
    """Without the package's own progress bars; afterwards as they were."""
    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _rows(table: Any, example: str, label: str, classes: Sequence[str]) -> Raw:
    """Examples and label names of one split: by the dataset's own names, unless the user renames its classes."""
    for wanted in (example, label):
        if wanted not in table.column_names:
            raise DataError(
                f"The dataset has no column '{wanted}'. Its columns: {', '.join(table.column_names)}."
                f"{did_you_mean(wanted, table.column_names)} Name them: text=<column> (or image=<column>) "
                "label=<column>"
            )
    names = getattr(table.features[label], "names", None)
    if names and classes and set(names) != set(classes):
        names = None  # the integers then index the user's names
    origins = [f"{table.split} row {row}" for row in range(1, len(table) + 1)]
    labels = [_label(value, names, origin) for value, origin in zip(table[label], origins, strict=True)]
    return Raw(list(table[example]), labels, origins)


def _label(value: Any, names: Sequence[str] | None, origin: str) -> str:
    if names is None or not isinstance(value, int):
        return label_name(value, lambda: origin)
    if not 0 <= value < len(names):
        raise DataError(
            f"{origin}: the label is {value}, and the dataset names {len(names)} classes from 0. "
            "Published test splits often come without labels; say test=validation to use another one."
        )
    return names[value]


def _class_names(tables: Mapping[str, Any], label: str) -> list[str]:
    """The names that the dataset itself gives to its classes; none when it has plain labels."""
    return list(getattr(tables["train" if "train" in tables else WHOLE].features[label], "names", []))
