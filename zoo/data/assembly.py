"""What all readers of the user's own data share: where the splits lie, how labels become classes, how one is cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.data import Data, Dataset, Labelled
from zoo.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

ALIASES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
"""The names a split may go by in files and folders."""

WHOLE = "whole"
"""Stands for a split when there is only one body of examples, to be cut in three."""


def option(default: Any, meaning: str) -> Any:
    """A dataclass field with the line that `--help` shows."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": meaning})
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class Raw:
    """One split as read: examples, the label of each as it is called, and where each stands."""

    examples: Sequence[str] | np.ndarray
    labels: Sequence[str]
    origins: Sequence[str]


@dataclass(kw_only=True)
class UserData(Dataset):
    """A dataset out of the user's own files: the options that say how one body of examples is cut in three.

    Raises ConfigError unless both fractions are in (0, 1) and something is left to train on.
    """

    validation_fraction: float = option(0.1, "part that becomes validation, when no splits are given")
    test_fraction: float = option(0.2, "part that becomes test, when no splits are given")
    split_seed: int = option(0, "picks which examples go where, when no splits are given")

    def __post_init__(self) -> None:
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"dataset.{name}={getattr(self, name)}: it must be between 0 and 1, e.g. 0.1.")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ConfigError(
                f"dataset.validation_fraction={self.validation_fraction} and dataset.test_fraction="
                f"{self.test_fraction} leave nothing to train on. Together they must be below 1."
            )

    def assemble(self, splits: Mapping[str, Raw], classes: Sequence[str]) -> Data:
        """Data out of what was read; one body of examples is cut in three, stratified, duplicates kept together.

        classes: the names in order. Empty: all labels that occur, sorted (by number when all are integers).
        Raises DataError for a label outside the classes.
        """
        names = list(classes) or _sorted_names({label for raw in splits.values() for label in raw.labels})
        labelled = {split: Labelled(raw.examples, _indices(raw, names), raw.origins) for split, raw in splits.items()}
        if WHOLE in labelled:
            return _cut(labelled[WHOLE], names, self)
        return Data(names, labelled["train"], labelled["test"], labelled.get("validation"))


def titled(name: str, path: str) -> str:
    """What runs on the user's data are filed under: `table-reviews` for data/reviews.csv or reviews/{split}.csv."""
    place = Path(path)
    told = place.parent.name if "{split}" in place.name else place.name.partition(".")[0]
    words = re.sub(r"[^\w-]+", "-", told).strip("-")
    return f"{name}-{words}" if words else name


def existing(path: str, option_name: str, example: str) -> Path:
    """The path that the user wrote, `~` expanded and relative to where the command was called.

    Raises DataError when none was given or nothing is there.
    """
    if not path.strip():
        raise DataError(f"No {option_name} was given. Say where the data lies, e.g. {option_name}={example}")
    found = Path(path).expanduser()
    if not found.exists():
        near = [item.name for item in found.parent.iterdir()] if found.parent.is_dir() else []
        raise DataError(
            f"No file or folder '{path}' (looked for {found.absolute()}).{did_you_mean(found.name, near)}\n"
            "A relative path counts from the folder in which the command is called."
        )
    return found


def locate(path: str, suffixes: Sequence[str], example: str) -> dict[str, Path]:
    """The files of a dataset, by split; under `WHOLE` when there is one file for all.

    path: one file; a folder with train.*, validation.* and test.*; or a pattern with `{split}` in it. Without a test
    file, validation is the test. Raises DataError for files that are missing or ambiguous.
    """
    if "{split}" in path:
        candidates = {
            split: [file for name in names if (file := Path(path.replace("{split}", name)).expanduser()).is_file()]
            for split, names in ALIASES.items()
        }
        where = f"the pattern '{path}'"
    else:
        found = existing(path, "path", example)
        if not found.is_dir():
            return {WHOLE: found}
        candidates = {
            split: [file for name in names for suffix in suffixes if (file := found / f"{name}{suffix}").is_file()]
            for split, names in ALIASES.items()
        }
        where = f"the folder '{path}'"
    for split, files in candidates.items():
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            raise DataError(f"In {where} more than one file could be the {split} split: {names}. Keep one of them.")
    files_by_split = {split: files[0] for split, files in candidates.items() if files}
    if "train" not in files_by_split:
        raise DataError(f"In {where} there is no train file.\n{_what_is_there(path, suffixes)}")
    return arranged(files_by_split)


def arranged(found: dict[str, T]) -> dict[str, T]:
    """The splits there are, so that there is a test: validation where it is missing, `WHOLE` where both are."""
    if "test" in found:
        return found
    if "validation" in found:
        return {"train": found["train"], "test": found["validation"]}
    return {WHOLE: found["train"]}


def _what_is_there(path: str, suffixes: Sequence[str]) -> str:
    folder = Path(path.partition("{split}")[0]).expanduser()
    folder = folder if folder.is_dir() else folder.parent
    files = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
    shown = f"It holds: {', '.join(files[:8])}{' …' if len(files) > 8 else ''}" if files else "Nothing is there"
    return f"{shown}. Expected: train, validation and test, each with one of {', '.join(suffixes)}; or name one file."


def _cut(whole: Labelled, classes: Sequence[str], options: UserData) -> Data:
    from zoo.data.loading import Cut, content_ids, split_three

    contents: dict[int, set[str]] = {label: set() for label in range(len(classes))}
    for content, label in zip(content_ids(whole.examples), whole.labels, strict=True):
        contents[int(label)].add(content)
    for label, name in enumerate(classes):
        if len(contents[label]) < 3:
            raise DataError(
                f"The class '{name}' has {len(contents[label])} distinct example(s) among {len(whole.labels)} in "
                f"{len(classes)} classes. To be cut into train, validation and test it needs three or more.\n"
                "Add examples, leave the class out, or check that the right label column is named."
            )
    cut = Cut(options.validation_fraction, options.test_fraction, options.split_seed)
    train, validation, test = split_three(whole, cut)
    return Data(classes, train, test, validation)


def kind(value: object) -> str:
    """The type of a value, for a message: `a str`, `an int`."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def label_name(value: object, where: Callable[[], str]) -> str:
    """The label as a class is called: a text without surrounding blanks, an integer, or a bool.

    Raises DataError for a missing one and for anything else.
    """
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where()}: the label is missing. Every example needs one; leave the example out otherwise.")
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of integers in which one is missing is read as floats
    raise DataError(
        f"{where()}: the label is {value!r}, {kind(value)}. It has to be a text or an integer; "
        "numbers to be predicted are no classes."
    )


def _indices(raw: Raw, classes: Sequence[str]) -> list[int]:
    index = {name: position for position, name in enumerate(classes)}
    try:
        return [index[label] for label in raw.labels]
    except KeyError:
        pass
    if all(label.isdecimal() for label in raw.labels):
        index = {label: int(label) for label in set(raw.labels) if int(label) < len(classes)}
        if len(index) == len(set(raw.labels)):
            return [index[label] for label in raw.labels]
    row, label = next((row, label) for row, label in enumerate(raw.labels) if label not in index)
    raise DataError(
        f"{raw.origins[row]}: the label '{label}' is outside the classes {', '.join(classes[:12])}"
        f"{' …' if len(classes) > 12 else ''}.{did_you_mean(label, classes)}\n"
        "Mend the label, or name every class: classes=[a,b,c] (integers count them from 0)."
    )


def _sorted_names(names: set[str]) -> list[str]:
    if all(name.removeprefix("-").isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)
