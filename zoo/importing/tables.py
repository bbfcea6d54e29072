"""Tables of predictions: CSV, TSV, JSON Lines and Parquet, a row for each answer."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.data.labels import composed, kind, label_name
from zoo.data.tables import long_fields
from zoo.errors import DataError, did_you_mean
from zoo.importing import COLUMNS
from zoo.importing.answers import Row, Sheet

if TYPE_CHECKING:
    from zoo.importing import Options

PREFIX = "prob_"
"""A column `prob_<class>` holds the probability of that class."""

Record = Mapping[str, Any]


def read(path: Path, options: Options) -> Sheet:
    """The rows of one table. Only rows of the test split count when there is a column `split`.

    Raises DataError naming file, row and value."""
    readers = {".csv": _delimited, ".tsv": _delimited, ".jsonl": _json_lines, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: files of the kind '{path.suffix}' cannot be read. Known: {', '.join(readers)}.")
    columns = {name: options.columns.get(name, name) for name in COLUMNS}
    rows: list[Row] = []
    names: list[str] = []
    others = 0
    try:
        for place, record, names in reader(path):
            if not rows and not others:
                _check_header(path, names, columns, options)
            if _absent(record.get(columns["split"])) or record[columns["split"]] == "test":
                rows.append(_row(place, record, columns, options))
            else:
                others += 1
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not rows:
        raise DataError(f"{path} holds no answers on a test split ({others:,} rows of other splits).")
    notes = (f"{others:,} rows of {path.name} are of other splits than test and were left out.",) if others else ()
    classes = tuple(composed(name.removeprefix(PREFIX)) for name in names if name.startswith(PREFIX))
    return Sheet(path, "table", options.dataset or path.stem, rows, classes, notes)


def _check_header(path: Path, names: Sequence[str], columns: Mapping[str, str], options: Options) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: the column '{twice[0]}' stands more than once. Rename the others.")
    answer = any(name.startswith(PREFIX) for name in names) or columns["probabilities"] in names
    wanted = ["example_id", "label", *([] if options.model else ["model"]), *([] if answer else ["prediction"])]
    # A column that was named by hand has to be there.
    wanted += [name for name in options.columns if name not in wanted]
    for name in wanted:
        if columns[name] not in names:
            known = ", ".join(name if len(name) <= 40 else name[:37] + "..." for name in names[:20])
            way = f"--columns {name}=<column>" + (" or --model <name>" if name == "model" else "")
            raise DataError(
                f"{path} has no column '{columns[name]}'. Its columns: {known}.{did_you_mean(columns[name], names)}\n"
                f"Say what it is called: {way}"
            )
    if columns["probabilities"] in names and not options.classes:
        raise DataError(
            f"{path}: '{columns['probabilities']}' lists probabilities, and nothing says of which classes.\n"
            f"Name the classes in that order: --classes a,b,c. Columns {PREFIX}<class> need no such help."
        )


def _row(place: str, record: Record, columns: Mapping[str, str], options: Options) -> Row:
    def told(name: str) -> Any:
        return record.get(columns[name])

    prediction, probabilities = told("prediction"), _probabilities(record, columns, place)
    decided = probabilities is not None and columns["prediction"] not in record
    return Row(
        place=place,
        model=options.model if _absent(told("model")) and options.model else _text(told("model"), "model", place),
        seed=options.seed if _absent(told("seed")) else _integer(told("seed"), "seed", place),
        example_id=_text(told("example_id"), "example_id", place),
        label=_class(told("label"), "label", place),
        prediction=None if decided else _class(prediction, "prediction", place),
        probabilities=probabilities,
    )


def _probabilities(record: Record, columns: Mapping[str, str], place: str) -> dict[str, float] | list[float] | None:
    given = record.get(columns["probabilities"])
    if not _absent(given):
        return _list(given, place)
    named = {name: value for name, value in record.items() if name.startswith(PREFIX)}
    if not named or all(map(_absent, named.values())):
        return None
    return {composed(name.removeprefix(PREFIX)): _number(value, name, place) for name, value in named.items()}


def _list(given: Any, place: str) -> list[float]:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except json.JSONDecodeError:
            given = str(given)
    if not isinstance(given, list):
        raise DataError(f"{place}: the probabilities are {str(given)[:60]!r}; they have to be a list: [0.1, 0.9]")
    return [_number(value, "probabilities", place) for value in given]


def _absent(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _text(value: Any, name: str, place: str) -> str:
    if _absent(value):
        raise DataError(f"{place}: the {name} is missing. Every answer needs one; remove the row otherwise.")
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of integers in which one is missing is read as floats
    raise DataError(f"{place}: the {name} is {value!r}, {kind(value)}. It has to be a text or an integer.")


def _class(value: Any, name: str, place: str) -> str:
    _text(value, name, place)  # says which of the two is missing or of the wrong kind
    return label_name(value, lambda: place)


def _integer(value: Any, name: str, place: str) -> int:
    try:
        number = float(value) if isinstance(value, str | float) else value
        if isinstance(number, bool) or int(number) != number:
            raise ValueError
        return int(value) if isinstance(value, int | str) and str(value).strip().lstrip("-").isdigit() else int(number)
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"{place}: the {name} is {str(value)[:40]!r}. It has to be an integer.") from None


def _number(value: Any, name: str, place: str) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        return float(value)
    except ValueError:
        raise DataError(f"{place}: {name} is {str(value)[:40]!r}. It has to be a number from 0 to 1.") from None


def _delimited(path: Path) -> Iterator[tuple[str, Record, list[str]]]:
    tabs = path.suffix.lower() == ".tsv"
    line = 1
    with long_fields(), path.open(encoding="utf-8-sig", newline="") as file:
        # The registered format of tsv has no quotes.
        quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        rows = csv.reader(file, delimiter="\t" if tabs else ",", quoting=quoting, strict=True)
        try:
            names = [name.strip() for name in next(rows, [])]
            if not names:
                raise DataError(f"{path} is empty. The first line has to name the columns.")
            line = rows.line_num + 1
            for row in rows:
                if row and len(row) != len(names):
                    raise DataError(f"{path} line {line}: {len(row)} fields where the header names {len(names)}.")
                if row:
                    yield f"{path} line {line}", dict(zip(names, row, strict=True)), names
                line = rows.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path} line {line}: malformed CSV in the row that begins here ({error}).") from None


def _json_lines(path: Path) -> Iterator[tuple[str, Record, list[str]]]:
    names: dict[str, None] = {}
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                found = json_object(line, f"{path} line {number}")
                record = {name.strip(): value for name, value in found.items()}
                names.update(dict.fromkeys(record))
                yield f"{path} line {number}", record, list(names)


def json_object(line: str, place: str) -> dict[str, Any]:
    """The object in a line. Raises DataError when it is none."""
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({str(error)[:80]}). Each line has to be one object.") from None
    if not isinstance(record, dict):
        raise DataError(f"{place}: {kind(record)}, not an object with named values.")
    return record


def _parquet(path: Path) -> Iterator[tuple[str, Record, list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names, number = [name.strip() for name in file.schema_arrow.names], 0
            for batch in file.iter_batches():
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield f"{path} row {number}", dict(zip(names, values, strict=True)), names
    except pa.ArrowException as error:
        raise DataError(f"{path} is no whole Parquet file: {str(error).splitlines()[0]}") from None
