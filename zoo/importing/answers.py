"""Answers as they were read, and what is made of them: the checked answers of one model with one seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.data.labels import (
    in_order,
    index_of,
    is_integer,
    merged,
    mixed,
    one_spelling,
    outsider,
    readings,
    refuse_lookalikes,
)
from zoo.errors import DataError, did_you_mean
from zoo.importing.two_ways import suspicion

if TYPE_CHECKING:
    import numpy as np

    from zoo.importing import Options

SUM_TOLERANCE = 1e-3
"""Probabilities were often written with few digits; what they sum to may be off by this much."""


@dataclass(frozen=True)
class Row:
    """One answer. place: where it stands, for messages; prediction: None when the probabilities decide;
    probabilities: class name → probability, or in the order of the classes, or None."""

    place: str
    model: str
    seed: int
    example_id: str
    label: str
    prediction: str | None
    probabilities: Mapping[str, float] | Sequence[float] | None


@dataclass(frozen=True)
class Sheet:
    """The rows of one file. classes: their names where the file fixes them, else empty; notes: what was left out."""

    path: Path
    kind: str
    dataset: str
    rows: list[Row]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answers:
    """What one model with one seed answered on the test split of a dataset.

    classes: names, index = label; ids: n; labels, predictions: (n,) int64; probabilities: (n, classes) float64, rows
    summing to 1, None when there are none; sources: the files; notes: in words.
    """

    dataset: str
    kind: str
    model: str
    seed: int
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray | None
    sources: tuple[Path, ...]
    notes: tuple[str, ...]


def gather(sheets: Sequence[Sheet], options: Options) -> list[Answers]:
    """The answers of each dataset, model and seed, in the order in which they are met.

    Raises DataError for an example answered twice by one model and seed, one with two labels, a class that is not one
    of the classes, and probabilities that are no distribution.
    """
    answers = []
    for dataset in dict.fromkeys(sheet.dataset for sheet in sheets):
        own = [sheet for sheet in sheets if sheet.dataset == dataset]
        classes = _classes(own, options)
        named = bool(options.classes) or any(sheet.classes for sheet in own)
        spelled = [_noted(sheet, _one_spelling(sheet, classes), named) for sheet in own]
        warnings = {} if named else _two_ways(spelled, classes)
        coded = [_coded(sheet, classes) for sheet in spelled]
        _check_labels(coded)
        together: dict[tuple[str, int], list[_Answer]] = {}
        for answer in (answer for sheet in coded for answer in sheet):
            together.setdefault((answer.row.model, answer.row.seed), []).append(answer)
        answers += [_answers(parts, classes, warnings.get(run)) for run, parts in together.items()]
    return answers


@dataclass(frozen=True)
class _Answer:
    """A row with its classes as indices. prediction: None when the probabilities decide."""

    sheet: Sheet
    row: Row
    label: int
    prediction: int | None


def _one_spelling(sheet: Sheet, classes: Sequence[str] = ()) -> Sheet:
    """Each column of classes with one spelling for each number in it."""
    labels = one_spelling([row.label for row in sheet.rows], classes)
    told = iter(one_spelling([row.prediction for row in sheet.rows if row.prediction is not None], classes))
    rows = [
        replace(row, label=label, prediction=None if row.prediction is None else next(told))
        for row, label in zip(sheet.rows, labels, strict=True)
    ]
    return replace(sheet, rows=rows)


def _noted(sheet: Sheet, spelled: Sheet, named: bool) -> Sheet:
    """The second with notes of how its classes were read from the first. named: whether the classes were given."""
    written, read = (
        [name for row in one.rows for name in (row.label, row.prediction) if name is not None]
        for one in (sheet, spelled)
    )
    warning = [] if named else mixed(row.label for row in spelled.rows)
    return replace(spelled, notes=(*sheet.notes, *merged(written, read), *warning))


def _classes(sheets: Sequence[Sheet], options: Options) -> tuple[str, ...]:
    fixed = list(dict.fromkeys(sheet.classes for sheet in sheets if sheet.classes))
    classes = options.classes
    if not classes and fixed:
        if any(set(one) != set(fixed[0]) for one in fixed):
            names = "; ".join(", ".join(one) for one in fixed[:2])
            raise DataError(f"The files of '{sheets[0].dataset}' have different classes: {names}.\nImport them apart.")
        classes = fixed[0]
    classes = classes or _met([_one_spelling(sheet) for sheet in sheets])
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice or "" in classes:
        raise DataError(f"--classes: '{(*twice, '')[0]}' is empty or stands twice. Each class needs a name of its own.")
    if len(classes) < 2:
        raise DataError(
            f"{sheets[0].path} has one class only, '{classes[0]}'. Name all of them: --classes {classes[0]},…"
        )
    return classes


def _met(sheets: Sequence[Sheet]) -> tuple[str, ...]:
    """The classes that occur, in order. Where the one column holds names only and the other integers only, the integers
    are indices, and the names are all there is. Raises DataError for columns that hold both."""
    labels = Counter(row.label for sheet in sheets for row in sheet.rows)
    predictions = Counter(row.prediction for sheet in sheets for row in sheet.rows if row.prediction is not None)
    for one, other, what in ((labels, predictions, "prediction"), (predictions, labels, "label")):
        numbers = [name for name in other if is_integer(name)]
        if not numbers or not one or any(map(is_integer, one)):
            continue
        if len(numbers) == len(other):
            refuse_lookalikes(one, str(sheets[0].path), _WAY_OUT)
            return tuple(in_order(one))
        count = sum(other[name] for name in numbers)
        example = next(name for name in other if not is_integer(name))
        raise DataError(
            f"{sheets[0].path}: in {count:,} rows the {what} is an integer such as '{numbers[0]:.40}', in "
            f"{sum(other.values()) - count:,} a name such as '{example:.40}'.\n"
            f"A column holds names of classes or indices. Write it in one way; or, if these are all names, {_WAY_OUT}"
        )
    refuse_lookalikes(labels + predictions, str(sheets[0].path), _WAY_OUT)
    return tuple(in_order(labels | predictions))


def _two_ways(sheets: Sequence[Sheet], classes: Sequence[str]) -> dict[tuple[str, int], str]:
    """A warning for each run, by model and seed, whose predictions may name the classes otherwise than the labels do.
    Each is looked at by itself. Raises DataError for one of which that is certain."""
    rows = [row for sheet in sheets for row in sheet.rows]
    labels = {row.label for row in rows}
    runs: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for row in rows:
        if row.prediction is not None:
            runs.setdefault((row.model, row.seed), []).append((row.label, row.prediction))
    told = {run: {said for _, said in pairs} for run, pairs in runs.items()}
    if not labels.union(*told.values()) <= set(classes):
        return {}  # one of the columns holds indices into the other
    known = labels.union(*(said for said in told.values() if said & labels))
    warnings = {}
    for (model, seed), pairs in runs.items():
        found = suspicion(pairs, labels, known)
        if found is None:
            continue
        text = f"the predictions of model '{model:.80}', seed {seed}, {found.text}"
        if found.certain:
            raise DataError(
                f"{sheets[0].path}: {text}\nWrite them as the labels are; or, if these are all names, {_WAY_OUT}"
            )
        warnings[model, seed] = f"Warning: {text} They were read as they are written."
    return warnings


_WAY_OUT = "name every class: --classes a,b,c"


def _coded(sheet: Sheet, classes: Sequence[str]) -> list[_Answer]:
    """The rows of a sheet with their classes as indices: each column is read as names or as indices, as a whole, and
    both in the same way where that is possible."""
    index = {name: place for place, name in enumerate(classes)}
    columns = {
        "label": [row.label for row in sheet.rows],
        "prediction": [row.prediction for row in sheet.rows if row.prediction is not None],
    }
    ways = {what: readings(column, classes) for what, column in columns.items()}
    for what in columns:
        if not ways[what]:
            raise DataError(_outside(sheet, what, classes))
    shared = [way for way in ways["label"] if way in ways["prediction"]]
    chosen = {what: (shared or ways[what])[0] for what in columns}
    known = ", ".join(classes[:8]) + (" …" if len(classes) > 8 else "")
    notes = [
        f"{sheet.path.name}: every {what} was read as an index into the classes {known}."
        for what, column in columns.items()
        if chosen[what] == "indices" and column
    ]
    noted = replace(sheet, notes=(*sheet.notes, *notes))
    return [
        _Answer(
            noted,
            row,
            index_of(row.label, index, chosen["label"]),
            None if row.prediction is None else index_of(row.prediction, index, chosen["prediction"]),
        )
        for row in sheet.rows
    ]


def _outside(sheet: Sheet, what: str, classes: Sequence[str]) -> str:
    """The message for a column that is neither names nor indices: the first that is not a name."""
    column = [(row.place, row.label if what == "label" else row.prediction) for row in sheet.rows]
    told = [(place, name) for place, name in column if name is not None]
    place, name = told[outsider([name for _, name in told], classes)]
    known = ", ".join(classes[:8]) + (" …" if len(classes) > 8 else "")
    return (
        f"{place}: the {what} is '{name:.80}', which is not one of the {len(classes)} classes: {known}."
        f"{did_you_mean(name, classes)}\nA column holds names of classes, or in all its rows indices from 0 to "
        f"{len(classes) - 1}."
    )


def _check_labels(sheets: Sequence[Sequence[_Answer]]) -> None:
    """One example has one label, whoever answered."""
    first: dict[str, _Answer] = {}
    for answer in (answer for sheet in sheets for answer in sheet):
        known = first.setdefault(answer.row.example_id, answer)
        if known.label != answer.label:
            raise DataError(
                f"{answer.row.place}: example '{answer.row.example_id:.80}' has the label '{answer.row.label:.80}', "
                f"and '{known.row.label:.80}' in {known.row.place}.\n"
                "An example has one label; give different examples different ids."
            )


def _answers(parts: Sequence[_Answer], classes: tuple[str, ...], warning: str | None) -> Answers:
    import numpy as np

    first, rows = parts[0], [part.row for part in parts]
    _check_once(rows)
    probabilities = _probabilities(rows, classes)
    most = np.full(len(rows), -1) if probabilities is None else probabilities.argmax(axis=1)
    told = [int(best) if part.prediction is None else part.prediction for part, best in zip(parts, most, strict=True)]
    predictions = np.array(told, dtype=np.int64)
    notes = dict.fromkeys(note for part in parts for note in part.sheet.notes)
    notes |= {} if warning is None else {warning: None}
    if probabilities is not None and (other := _not_most_probable(predictions, probabilities)):
        notes[f"In {other:,} of {len(rows):,} answers the prediction is not the most probable class; it was kept."] = (
            None
        )
    return Answers(
        dataset=first.sheet.dataset,
        kind=first.sheet.kind,
        model=first.row.model,
        seed=first.row.seed,
        classes=classes,
        ids=tuple(row.example_id for row in rows),
        labels=np.array([part.label for part in parts], dtype=np.int64),
        predictions=predictions,
        probabilities=probabilities,
        sources=tuple(dict.fromkeys(part.sheet.path for part in parts)),
        notes=tuple(notes),
    )


def _not_most_probable(predictions: np.ndarray, probabilities: np.ndarray) -> int:
    import numpy as np

    return int((probabilities[np.arange(len(predictions)), predictions] < probabilities.max(axis=1)).sum())


def _check_once(rows: Iterable[Row]) -> None:
    seen: dict[str, Row] = {}
    for row in rows:
        before = seen.setdefault(row.example_id, row)
        if before is not row:
            raise DataError(
                f"{row.place}: model '{row.model}' with seed {row.seed} answers example '{row.example_id}' again; the "
                f"first time is {before.place}.\nGive repeated runs seeds of their own, or remove the row."
            )


def _probabilities(rows: Sequence[Row], classes: Sequence[str]) -> np.ndarray | None:
    import numpy as np

    given = sum(row.probabilities is not None for row in rows)
    if not given:
        return None
    if given < len(rows):
        bare = next(row for row in rows if row.probabilities is None)
        raise DataError(
            f"{bare.place}: no probabilities, and {given:,} of the {len(rows):,} answers of model '{bare.model}' have "
            "some.\nGive them for every answer of a model, or for none."
        )
    table = np.array([_distribution(row, classes) for row in rows], dtype=np.float64)
    return np.asarray(table / table.sum(axis=1, keepdims=True))


def _distribution(row: Row, classes: Sequence[str]) -> list[float]:
    given = row.probabilities
    if isinstance(given, Mapping):
        values = [given.get(name, 0.0) for name in classes]
        strange = next((name for name in given if name not in classes), None)
        if strange is not None:
            raise DataError(f"{row.place}: there is a probability of '{strange}', which is not one of the classes.")
    else:
        values = list(given or ())
    if len(values) != len(classes):
        raise DataError(f"{row.place}: {len(values)} probabilities where there are {len(classes)} classes.")
    wrong = next((value for value in values if not (math.isfinite(value) and value >= 0)), None)
    if wrong is not None:
        raise DataError(f"{row.place}: a probability is {wrong}. It has to be a number from 0 to 1.")
    if abs(sum(values) - 1) > SUM_TOLERANCE:
        raise DataError(
            f"{row.place}: the probabilities sum to {sum(values):.6g}, not to 1.\n"
            "Logits and percentages are no probabilities: convert them first."
        )
    return values
