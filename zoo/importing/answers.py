"""Answers as they were read, and what is made of them: the checked answers of one model with one seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import DataError

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
        _check_labels(own, {name: index for index, name in enumerate(classes)})
        together: dict[tuple[str, int], list[tuple[Sheet, Row]]] = {}
        for sheet in own:
            for row in sheet.rows:
                together.setdefault((row.model, row.seed), []).append((sheet, row))
        answers += [_answers(pairs, classes) for pairs in together.values()]
    return answers


def _classes(sheets: Sequence[Sheet], options: Options) -> tuple[str, ...]:
    fixed = list(dict.fromkeys(sheet.classes for sheet in sheets if sheet.classes))
    classes = options.classes
    if not classes and fixed:
        if any(set(one) != set(fixed[0]) for one in fixed):
            names = "; ".join(", ".join(one) for one in fixed[:2])
            raise DataError(f"The files of '{sheets[0].dataset}' have different classes: {names}.\nImport them apart.")
        classes = fixed[0]
    if not classes:
        met = {name for sheet in sheets for row in sheet.rows for name in (row.label, row.prediction) if name}
        classes = tuple(sorted(met, key=int) if all(map(_is_integer, met)) else sorted(met))
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice or "" in classes:
        raise DataError(f"--classes: '{(*twice, '')[0]}' is empty or stands twice. Each class needs a name of its own.")
    if len(classes) < 2:
        raise DataError(
            f"{sheets[0].path} has one class only, '{classes[0]}'. Name all of them: --classes {classes[0]},…"
        )
    return classes


def _is_integer(name: str) -> bool:
    return name.isascii() and name.removeprefix("-").isdigit()


def _index(name: str, classes: Mapping[str, int], row: Row, what: str) -> int:
    """The class by its name, or by its number when no class is called so. classes: name → index."""
    if name in classes:
        return classes[name]
    if _is_integer(name) and 0 <= int(name) < len(classes):
        return int(name)
    known = ", ".join([*classes][:8]) + (" …" if len(classes) > 8 else "")
    raise DataError(f"{row.place}: the {what} is '{name:.80}', which is not one of the {len(classes)} classes: {known}")


def _check_labels(sheets: Sequence[Sheet], classes: Mapping[str, int]) -> None:
    """One example has one label, whoever answered."""
    first: dict[str, tuple[int, Row]] = {}
    for row in (row for sheet in sheets for row in sheet.rows):
        label = _index(row.label, classes, row, "label")
        known, where = first.setdefault(row.example_id, (label, row))
        if known != label:
            raise DataError(
                f"{row.place}: example '{row.example_id}' has the label '{row.label}', and '{where.label}' in "
                f"{where.place}.\nAn example has one label; give different examples different ids."
            )


def _answers(pairs: Sequence[tuple[Sheet, Row]], classes: tuple[str, ...]) -> Answers:
    import numpy as np

    sheet, first = pairs[0]
    rows = [row for _, row in pairs]
    places = {name: index for index, name in enumerate(classes)}
    _check_once(rows)
    probabilities = _probabilities(rows, classes)
    most = None if probabilities is None else probabilities.argmax(axis=1)
    predictions = np.empty(len(rows), np.int64)
    for number, row in enumerate(rows):
        if row.prediction is not None:
            predictions[number] = _index(row.prediction, places, row, "prediction")
        elif most is not None:
            predictions[number] = most[number]
    sources = dict.fromkeys(one.path for one, _ in pairs)
    notes = dict.fromkeys(note for one, _ in pairs for note in one.notes)
    if probabilities is not None and (other := _not_most_probable(predictions, probabilities)):
        notes[f"In {other:,} of {len(rows):,} answers the prediction is not the most probable class; it was kept."] = (
            None
        )
    return Answers(
        dataset=sheet.dataset,
        kind=sheet.kind,
        model=first.model,
        seed=first.seed,
        classes=classes,
        ids=tuple(row.example_id for row in rows),
        labels=np.array([_index(row.label, places, row, "label") for row in rows], dtype=np.int64),
        predictions=predictions,
        probabilities=probabilities,
        sources=tuple(sources),
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
