"""Texts out of the user's own tables: CSV, TSV, JSON Lines and Parquet."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

from zoo.data import Data
from zoo.data.assembly import MayBeExamples, Raw, UserData, locate, titled
from zoo.data.labels import folded, kind, label_name
from zoo.errors import DataError, did_you_mean
from zoo.models import Modality
from zoo.options import option

PLAIN = (".csv", ".tsv", ".jsonl", ".ndjson")
SUFFIXES = (*PLAIN, *(f"{suffix}.gz" for suffix in PLAIN), ".parquet")
SEPARATORS = ";\t|,"
LONGEST_HEADER = 65_536
"""So many characters of a first line are looked at: binary files have no lines."""


@dataclass
class Table(UserData):
    """Your own texts: a csv, tsv, jsonl or parquet file (also .gz), or one file for each split.

    `path` is one file, which is cut in three by the two fractions (stratified, duplicates kept together, the same every
    time for one `split_seed`); or a folder with train.*, validation.* (valid, val, dev …) and test.* (testing, eval …),
    in any capitals; or a pattern such as `data/{split}.csv`. Without a validation file a tenth of train serves; without
    a test file validation is the test. The first line of a csv or tsv names the columns. Tsv fields are taken as they
    are, with no quoting.
    """

    path: str = option("", "a file, a folder with train.* validation.* test.*, or a pattern such as data/{split}.csv")
    text: str = option("text", "column that holds the text")
    label: str = option("label", "column that holds the label")
    classes: list[str] = option([], "class names in order; default: all labels, sorted. Integer labels may index it")
    encoding: str = option("utf-8", "encoding of the file; with utf-8 a byte order mark is fine")
    separator: str = option("", "one character between columns; default: by the file's extension")

    name: ClassVar[str] = "table"
    modality: ClassVar[Modality] = "text"

    def title(self) -> str:
        """The name and what the files are called."""
        return titled(self.name, self.path)

    def read(self) -> Data:
        """Read every file. Raises DataError naming file, line (or row) and value."""
        columns = Columns(self.text, self.label, self.encoding, self.separator)
        found, notes = locate(self.path, SUFFIXES, "reviews.csv", lambda file, _: holds_examples(file, columns))
        return self.assemble({split: read_file(file, columns) for split, file in found.items()}, self.classes, notes)


@dataclass(frozen=True)
class Columns:
    """What to look for in a file, and how to read it."""

    text: str = "text"
    label: str = "label"
    encoding: str = "utf-8"
    separator: str = ""


def read_file(path: Path, columns: Columns) -> Raw:
    """The texts, labels and line numbers of one file. Raises DataError."""
    texts: list[str] = []
    labels: list[str] = []
    origins: list[str] = []
    with _plainly(path, columns):
        for place, text, label in _rows(path, columns):
            origin = f"{path.name} {place}"
            texts.append(_text(text, origin))
            labels.append(label_name(label, lambda origin=origin: origin))  # type: ignore[misc]
            origins.append(origin)
    if not texts:
        raise DataError(
            f"{path} holds no examples. Expected are rows with the columns {columns.text}, {columns.label}."
        )
    return Raw(texts, labels, origins)


def _rows(path: Path, columns: Columns) -> Iterator[tuple[str, Any, Any]]:
    """Rows of a file of any kind: (line or row, text, label)."""
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    readers = {"csv": _delimited, "tsv": _delimited, "jsonl": _json_lines, "ndjson": _json_lines, "parquet": _parquet}
    if suffix not in readers or (suffix == "parquet" and path.name.lower().endswith(".gz")):
        raise DataError(
            f"{path}: files of the kind '.{suffix}' cannot be read. Known: {', '.join(SUFFIXES)}.\n"
            "Save a spreadsheet as CSV."
        )
    return readers[suffix](path, columns)


class _NoColumns(DataError):
    """A file that can be read and lacks a column that was asked for. names: those it has."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


def holds_examples(path: Path, columns: Columns) -> bool:
    """Whether a file begins as one of examples does: with the columns, in whatever capitals and blanks and between
    whatever separators, and a row. Raises MayBeExamples for one that does and cannot be read, and DataError for one
    whose beginning cannot be read."""
    try:
        with _plainly(path, columns):
            return next(_rows(path, columns), None) is not None
    except _NoColumns as error:
        headers = (error.names, *(error.names[0].split(mark) for mark in SEPARATORS if len(error.names) == 1))
        return any(_has_columns(header, columns) for header in headers)
    except DataError as error:
        line = _first_line(path, columns)
        if any(_has_columns(header, columns) for header in _as_headers(line)):
            raise MayBeExamples(str(error)) from None
        if _is_delimited(path) and line.strip() and "\ufffd" not in line:
            return False
        raise


def _has_columns(header: Iterable[str], columns: Columns) -> bool:
    return {folded(columns.text), folded(columns.label)} <= {folded(name) for name in header}


def _first_line(path: Path, columns: Columns) -> str:
    """The first line, with marks for the bytes that are not in the encoding; empty where there is none to be read."""
    try:
        with _plainly(path, columns), _lines(path, columns.encoding, errors="replace") as lines:
            return lines.readline(LONGEST_HEADER)
    except DataError:
        return ""


def _as_headers(line: str) -> Iterator[list[str]]:
    """The names in a first line: the keys of an object, or what stands between each of the separators."""
    with contextlib.suppress(ValueError):
        row = json.loads(line)
        yield list(row) if isinstance(row, Mapping) else []
    for mark in SEPARATORS:
        yield [name.strip().strip('"') for name in line.split(mark)]


def _is_delimited(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))


def _text(value: object, origin: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{origin}: the text is {value!r}, {kind(value)}. It has to be a text.")
    if not value or value.isspace():
        raise DataError(f"{origin}: the text is empty ({value!r}). Fill it in, or remove the row.")
    return value


@contextlib.contextmanager
def _plainly(path: Path, columns: Columns) -> Iterator[None]:
    """What can go wrong below the rows, in plain words."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(_undecodable(path, columns.encoding, error)) from None
    except UnicodeError as error:
        raise DataError(f"{path} is not {columns.encoding}: {error}. Name its encoding, e.g. encoding=utf-8.") from None
    except LookupError as error:
        if "encoding" not in str(error):
            raise
        raise DataError(f"No encoding '{columns.encoding}'. Common ones: utf-8, gb18030, cp1252, utf-16.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no whole gzip file: {error}. Compress it again, or unpack it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _undecodable(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    """The message for bytes that are not in the encoding; the file is read again to find the line."""
    with _binary(path) as file:
        content = file.read()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"{path} is not in {encoding}; it begins like UTF-16. Say encoding=utf-16."
    line, byte = "", error.object[error.start : error.start + 1]
    try:
        content.decode(encoding)
    except UnicodeDecodeError as whole:
        before = content[: whole.start].decode(encoding, errors="replace")
        line = f" line {before.count(chr(10)) + 1}"
        byte = content[whole.start : whole.start + 1]
    return (
        f"{path}{line}: the byte 0x{byte.hex()} is not {encoding}.\n"
        "Save the file as UTF-8 or name its encoding, e.g. encoding=gb18030 (Chinese) or encoding=cp1252 (Western)."
    )


def _binary(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


@contextlib.contextmanager
def _lines(path: Path, encoding: str, errors: str = "strict") -> Iterator[IO[str]]:
    import io

    # utf-8-sig reads UTF-8 with and without the byte order mark that spreadsheets put in front.
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    with _binary(path) as file, io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="") as lines:
        yield lines


def _delimited(path: Path, columns: Columns) -> Iterator[tuple[str, Any, Any]]:
    """Rows of a csv or tsv: (line where the row begins, text, label)."""
    import csv

    tabs = path.name.lower().removesuffix(".gz").endswith(".tsv")
    separator = columns.separator or ("\t" if tabs else ",")
    if len(separator) != 1:
        raise DataError(f"separator='{separator}' is not one character. Examples: separator=';' or separator='|'")
    line = 1
    try:
        with long_fields(), _lines(path, columns.encoding) as lines:
            # The registered format of tsv has no quotes: a lone quotation mark must not swallow the rows after it.
            quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
            rows = csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)
            header = next(rows, [])
            text, label = (_column(path, header, wanted, separator) for wanted in (columns.text, columns.label))
            line = rows.line_num + 1
            for row in rows:
                if row and len(row) != len(header):
                    raise DataError(_ragged(path, line, row, header))
                if row:
                    yield f"line {line}", row[text], row[label]
                line = rows.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path} line {line}: malformed CSV in the row that begins here ({error}).\n"
            'A text with a quotation mark in it stands in quotation marks, and the mark in it twice: "say ""yes"""'
        ) from None


@contextlib.contextmanager
def long_fields() -> Iterator[None]:
    """Within it csv reads fields of any length; its own limit is 128 KiB."""
    import csv

    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _ragged(path: Path, line: int, row: Sequence[str], header: Sequence[str]) -> str:
    start = row[0] if len(row[0]) <= 40 else row[0][:37] + "..."
    return (
        f"{path} line {line}: {len(row)} fields (the first is '{start}'), and the header names {len(header)} columns: "
        f"{', '.join(header)}.\nPut a text that holds the separator in quotation marks, or choose another separator."
    )


def _column(path: Path, header: Sequence[str], wanted: str, separator: str = "") -> int:
    """The position of a column; blanks around names do not count. Raises DataError for one that is missing or stands
    twice."""
    header = [name.strip() for name in header]
    count = header.count(wanted.strip())
    if count == 1:
        return header.index(wanted.strip())
    if count:
        raise DataError(f"{path}: the column '{wanted}' stands {count} times in the header. Rename the others.")
    if not header:
        raise _NoColumns(f"{path} is empty. The first line has to name the columns.", [])
    other = next((mark for mark in SEPARATORS if len(header) == 1 and mark != separator and mark in header[0]), "")
    hint = f"\nIt looks as if the columns were separated by {other!r}: say separator='{other}'" if other else ""
    names = ", ".join(name if len(name) <= 40 else name[:37] + "..." for name in header[:20])
    raise _NoColumns(
        f"{path} has no column '{wanted}'. Its columns: {names}.{did_you_mean(wanted, header)} "
        f"Name the columns: text=<column> label=<column>{hint}",
        header,
    )


def _json_lines(path: Path, columns: Columns) -> Iterator[tuple[str, Any, Any]]:
    """Rows of a jsonl file: (line, text, label). Empty lines are skipped."""
    with _lines(path, columns.encoding) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path} line {number}: not JSON ({error.msg} at character {error.pos + 1}). "
                    'Each line has to be one object, e.g. {"text": "good", "label": "positive"}'
                ) from None
            if not isinstance(row, Mapping):
                raise _NoColumns(f"{path} line {number}: {kind(row)}, not an object with named values.", [])
            row = {name.strip(): value for name, value in row.items()}
            text, label = columns.text.strip(), columns.label.strip()
            for wanted in (text, label):
                if wanted not in row:
                    raise _NoColumns(
                        f"{path} line {number} has no '{wanted}'. It has: {', '.join(row)}.{did_you_mean(wanted, row)} "
                        "Name the columns: text=<name> label=<name>",
                        list(row),
                    )
            yield f"line {number}", row[text], row[label]


def _parquet(path: Path, columns: Columns) -> Iterator[tuple[str, Any, Any]]:
    """Rows of a parquet file: (row, counted from 1, text, label)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = [names[_column(path, names, name)] for name in (columns.text, columns.label)]
            row = 0
            for batch in file.iter_batches(columns=list(dict.fromkeys(wanted))):
                texts, labels = (batch.column(name).to_pylist() for name in wanted)
                for text, label in zip(texts, labels, strict=True):
                    row += 1
                    yield f"row {row}", text, label
    except pa.ArrowException as error:
        raise DataError(f"{path} is no whole Parquet file: {str(error).splitlines()[0]}") from None
