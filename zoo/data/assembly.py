"""What all readers of the user's own data share: where the splits lie, how labels become classes, how one is cut."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from zoo.data import Data, Dataset, Labelled
from zoo.data.labels import in_order, index_of, merged, mixed, one_spelling, outsider, readings, refuse_lookalikes
from zoo.data.litter import is_litter
from zoo.errors import ConfigError, DataError, did_you_mean
from zoo.options import option

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

ALIASES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "validate", "valid", "val", "dev", "development", "devel"),
    "test": ("test", "testing", "tst"),
}
"""The names a split may go by in files, folders, arrays and tables, in whatever capitals."""

EITHER = ("eval", "evaluation", "evaluate")
"""Names of the test where there is no other, and of validation beside a test."""

HELD = ("holdout", "heldout", "held")
"""Words in names by which a test may be meant, though no split is read by them."""

TEST_NAMES = ", ".join((*ALIASES["test"], *EITHER))

WHOLE = "whole"
"""Stands for a split when there is only one body of examples, to be cut in three."""


@dataclass(frozen=True)
class Raw:
    """One split as read: examples, the label of each as it is called, and where each stands."""

    examples: Sequence[str] | np.ndarray
    labels: Sequence[str]
    origins: Sequence[str]


@dataclass(kw_only=True)
class UserData(Dataset):
    """A dataset out of the user's own files: the options that say how one body of examples is cut in three.

    Raises ConfigError unless something is left to train on.
    """

    validation_fraction: float = option(0.1, "part that becomes validation, when no splits are given", gt=0, lt=1)
    test_fraction: float = option(0.2, "part that becomes test, when no splits are given", gt=0, lt=1)
    split_seed: int = option(0, "picks which examples go where, when no splits are given")

    def __post_init__(self) -> None:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ConfigError(
                f"dataset.validation_fraction={self.validation_fraction} and dataset.test_fraction="
                f"{self.test_fraction} leave nothing to train on. Together they must be below 1."
            )

    def assemble(self, splits: Mapping[str, Raw], classes: Sequence[str], notes: Sequence[str] = ()) -> Data:
        """Data out of what was read; one body of examples is cut in three, stratified, duplicates kept together.

        classes: the names in order. Empty: all labels that occur, sorted (by number when all are integers). notes: what
        was passed over. Raises DataError for a label outside the classes, and for two labels that differ in capitals
        or blanks alone unless classes names them.
        """
        written, splits = splits, _spelled(splits, classes)
        columns = [[label for raw in found.values() for label in raw.labels] for found in (written, splits)]
        names = list(classes)
        if not names:
            counts = Counter(label for raw in splits.values() for label in raw.labels)
            refuse_lookalikes(counts, self.title(), "name every class: classes=[a,b,c]")
            names = in_order(counts)
        notes = [*notes, *merged(*columns), *([] if classes else mixed(columns[1]))]
        indices = _indices(splits, names)
        labelled = {split: Labelled(raw.examples, indices[split], raw.origins) for split, raw in splits.items()}
        if WHOLE in labelled:
            return replace(_cut(labelled[WHOLE], names, self), notes=notes)
        return Data(names, labelled["train"], labelled["test"], labelled.get("validation"), notes)


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
            f"A relative path counts from the folder in which the command is called.{_comma(option_name, found, near)}"
        )
    return found


def _comma(option_name: str, found: Path, near: Sequence[str]) -> str:
    """The advice for a path that is a part of a name with commas: on the command line a comma begins another value."""
    for name in near:
        if "," in name and found.name in name.split(","):
            whole = found.parent / name
            return f"\nOn a command line a comma begins another value; say {option_name}=\"'{whole}'\""
    return ""


def locate(
    path: str, suffixes: Sequence[str], example: str, holds: Callable[[Path, Path], bool]
) -> tuple[dict[str, Path], list[str]]:
    """The files of a dataset, by split (`WHOLE` when there is one file for all), and notes of what was passed over.

    path: one file; a folder with train.*, validation.* and test.*; or a pattern with `{split}` in it. Without a test
    file, validation is the test. holds: whether a file has examples in it as the train file (the second) has, so that
    it may be the test; raises DataError for one that cannot be read, and MayBeExamples for one that begins so. Raises
    DataError for files that are missing or ambiguous, and where there is no test and one that cannot be read may be it:
    by what it begins with, or by a word in its name.
    """
    if "{split}" in path:
        where, files = f"the pattern '{path}'", _matching(path)
    else:
        found = existing(path, "path", example)
        if not found.is_dir():
            return {WHOLE: found}, []
        where = f"the folder '{path}'"
        files = [(name, file) for file in sorted(found.iterdir()) if (name := _stem(file, suffixes)) is not None]
    splits, others = by_split(files, where, lambda file: file.name)
    if "train" not in splits:
        raise DataError(f"In {where} there is no train file.\n{_what_is_there(path, suffixes)}")
    unread: dict[str, str] = {}
    examples = []
    for file in others if "test" not in splits else []:
        try:
            examples += [file.name] if holds(file, splits["train"]) else []
        except DataError as error:
            if isinstance(error, MayBeExamples) or names_test(file.name, splits):
                unread[file.name] = str(error)
    if "{split}" not in path:
        unread |= _of_no_kind(found, suffixes, splits, holds)
    return arranged(splits, Others([file.name for file in others], examples, unread), where)


class MayBeExamples(DataError):
    """A file begins as one of examples does, and cannot be read."""


def names_test(name: str, found: Iterable[str]) -> bool:
    """Whether a word in the name is that of a split that is missing and may be the test, or of held-out examples.
    found: the splits there are."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return not words.isdisjoint({*_missing(found), *HELD})


def _missing(found: Iterable[str]) -> set[str]:
    """The names of the splits that are missing."""
    names = {alias for split, aliases in ALIASES.items() if split not in found for alias in aliases}
    return names | (set() if "test" in found else set(EITHER))


DATA = (
    ".csv", ".tsv", ".tab", ".psv", ".txt", ".text", ".dat", ".data", ".json", ".jsonl", ".ndjson", ".xml", ".xls",
    ".xlsx", ".xlsm", ".ods", ".parquet", ".arrow", ".feather", ".orc", ".avro", ".pkl", ".pickle", ".npy", ".npz",
    ".mat", ".h5", ".hdf5", ".pt", ".pth", ".db", ".sqlite", ".sqlite3", ".tfrecord", ".zip", ".tar", ".tgz", ".gz",
    ".bz2", ".xz", ".zst", ".7z", ".rar", ".rds", ".rda", ".dta", ".sav", ".sas7bdat",
)  # fmt: skip
"""The suffixes of files that may hold data, whether they are read or not: `test.py` is no test split."""


def _of_no_kind(
    folder: Path, suffixes: Sequence[str], splits: Mapping[str, Path], holds: Callable[[Path, Path], bool]
) -> dict[str, str]:
    """What has the name of a split that is missing, and is data of a kind that is not read, or a folder with a file of
    examples in it: its name, and why it is not read."""
    told = {}
    for item in sorted(folder.iterdir()):
        stem = item.name.partition(".")[0].lower()
        if stem not in {*_missing(splits), *HELD} or is_litter(item.name):
            continue
        if item.is_dir() and _any_examples(item, suffixes, splits["train"], holds):
            told[item.name] = f"{item.name} is a folder. Expected: a file, one of {', '.join(suffixes)}."
        elif item.is_file() and _stem(item, suffixes) is None and item.suffix.lower() in ("", *DATA):
            told[item.name] = f"{item.name} is no file of a kind that is read. Expected: one of {', '.join(suffixes)}."
    return told


def _any_examples(folder: Path, suffixes: Sequence[str], train: Path, holds: Callable[[Path, Path], bool]) -> bool:
    """Whether a file right in a folder holds examples as the train file does."""
    try:
        files = sorted(folder.iterdir())
    except OSError:  # whoever cannot look into it cannot say
        return True
    for file in files:
        try:
            if _stem(file, suffixes) is not None and holds(file, train):
                return True
        except MayBeExamples:
            return True
        except DataError:
            continue
    return False


def _stem(file: Path, suffixes: Sequence[str]) -> str | None:
    """The file's name without its suffix, the longest that fits; None for other files and hidden ones."""
    lower = file.name.lower()
    fits = [suffix for suffix in suffixes if lower.endswith(suffix)]
    if file.name.startswith(".") or not fits or not file.is_file():
        return None
    return file.name[: -len(max(fits, key=len))]


def _matching(pattern: str) -> list[tuple[str, Path]]:
    """The files whose paths are the pattern with one name wherever it says `{split}`: that name, and the file."""
    whole = str(Path(pattern).expanduser())
    first, *rest = map(re.escape, whole.split("{split}"))
    wanted = re.compile(first + r"([^/\\]+)" + r"\1".join(rest))
    found = sorted(glob.glob(glob.escape(whole).replace("{split}", "*")))
    return [(match[1], Path(file)) for file in found if (match := wanted.fullmatch(file)) and Path(file).is_file()]


def by_split(named: Iterable[tuple[str, T]], where: str, shown: Callable[[T], str]) -> tuple[dict[str, T], list[T]]:
    """What goes by the name of a split, by split, and what goes by none.

    named: (name, thing). A name of `EITHER` fills the test, or validation beside a test, where nothing else does.
    Raises DataError when two things could be the same split."""
    role = {alias: split for split, aliases in ALIASES.items() for alias in aliases}
    candidates: dict[str, list[T]] = {}
    others: list[T] = []
    either: list[T] = []
    for name, thing in named:
        if name.lower() in EITHER:
            either.append(thing)
        elif name.lower() in role:
            candidates.setdefault(role[name.lower()], []).append(thing)
        else:
            others.append(thing)
    if "test" not in candidates and either:
        candidates["test"] = either
    elif "validation" not in candidates and len(either) == 1:
        candidates["validation"] = either
    else:
        others += either
    for split, things in candidates.items():
        if len(things) > 1:
            listed = " and ".join(map(shown, things))
            raise DataError(f"In {where} more than one could be the {split} split: {listed}. Keep one of them.")
    return {split: things[0] for split, things in candidates.items()}, others


@dataclass(frozen=True)
class Others:
    """What lies beside the splits and is none. names: as they are shown, of what goes by no split's name; examples:
    those of them that hold examples as a split does; unread: what cannot be read, by name, and why; advice: what to do
    when one of these is the test."""

    names: Sequence[str] = ()
    examples: Sequence[str] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    advice: str = f"rename it ({TEST_NAMES})"


def arranged(found: Mapping[str, T], others: Others, where: str) -> tuple[dict[str, T], list[str]]:
    """The splits there are, so that there is a test: validation where it is missing, `WHOLE` where both are; and notes
    of what was passed over.

    Raises DataError when there is no test and one of the others may be meant for it."""
    notes = [f"Not read, since its name is that of no split: {name}." for name in others.names]
    notes += [f"Not read: {why}" for name, why in others.unread.items() if name not in others.names]
    if "test" in found:
        return dict(found), notes
    if others.unread:
        name, why = next(iter(others.unread.items()))
        raise DataError(
            f"In {where} no test split can be read; {name} may be it:\n{why}\n"
            f"If it is the test, save it so that it can be read, as {TEST_NAMES}; else move it elsewhere."
        )
    if others.examples:
        raise DataError(
            f"In {where} nothing goes by the name of a test split, and there are examples also in: "
            f"{', '.join(others.examples[:8])}{' …' if len(others.examples) > 8 else ''}.\n"
            f"If one of them is the test, {others.advice}; else move it elsewhere."
        )
    if "validation" in found:
        return {"train": found["train"], "test": found["validation"]}, notes
    return {WHOLE: found["train"]}, notes


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
                f"Add examples{', leave the class out' * (len(classes) > 2)}, or check that the right label column is "
                "named."
            )
    cut = Cut(options.validation_fraction, options.test_fraction, options.split_seed)
    train, validation, test = split_three(whole, cut)
    return Data(classes, train, test, validation)


def _spelled(splits: Mapping[str, Raw], classes: Sequence[str]) -> dict[str, Raw]:
    """The labels of all splits as one column: what is a number in one split is the same number in the others."""
    together = one_spelling([label for raw in splits.values() for label in raw.labels], classes)
    found, start = {}, 0
    for split, raw in splits.items():
        found[split] = replace(raw, labels=together[start : start + len(raw.labels)])
        start += len(raw.labels)
    return found


def _indices(splits: Mapping[str, Raw], classes: Sequence[str]) -> dict[str, list[int]]:
    """The labels of each split as indices. Names or indices: decided once, for all splits together."""
    index = {name: position for position, name in enumerate(classes)}
    found = readings((label for raw in splits.values() for label in raw.labels), classes)
    if found:
        return {split: [index_of(label, index, found[0]) for label in raw.labels] for split, raw in splits.items()}
    column = [(origin, label) for raw in splits.values() for origin, label in zip(raw.origins, raw.labels, strict=True)]
    origin, label = column[outsider([label for _, label in column], classes)]
    raise DataError(
        f"{origin}: the label '{label:.80}' is outside the classes {', '.join(classes[:12])}"
        f"{' …' if len(classes) > 12 else ''}.{did_you_mean(label, classes)}\n"
        "Correct the label, or name every class: classes=[a,b,c]. The labels are names of classes, or all of them are "
        "integers that count the classes from 0."
    )
