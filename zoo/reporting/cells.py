"""Tables as the page and the Markdown both show them: what all rows have in common stands above the table, once.

A column that says the same in every row is dropped and its value said above; a reason that stands in several cells is
numbered there and said above. So nothing is said a hundred times in a table of a hundred models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from zoo.reporting.words import Words

DASH = "—"
Kind = Literal["name", "number", "text", "prose", "strip"]
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """One cell, in the language of the report. text: one line, or several with a line break between them; reason: why
    there is no value, or what to mind about it; detail: a second, smaller line; span: (low, value, high) in [0, 100]
    for a cell that is drawn; mark: of a reason that is said above the table, such as `¹`."""

    text: str
    reason: str = ""
    detail: str = ""
    span: tuple[float | None, float, float | None] | None = None
    mark: str = ""

    @property
    def lines(self) -> list[str]:
        """The lines of the text."""
        return self.text.split("\n")


@dataclass(frozen=True)
class Column:
    """A column and its cells, one a row. kind: `name` begins a row and is never dropped, `number` is kept on one line,
    `text` may be long, `prose` is sentences or several lines, `strip` is drawn on the page and is not in the Markdown.
    """

    title: str
    cells: Sequence[Cell]
    kind: Kind = "number"


@dataclass(frozen=True)
class Table:
    """What is left. said: sentences for above the table; groups: rows with which a group begins, drawn with a line."""

    columns: tuple[Column, ...]
    said: tuple[str, ...]
    groups: frozenset[int] = frozenset()

    def rows(self) -> Iterator[list[tuple[Column, Cell]]]:
        """Row by row, each cell with its column."""
        for place in range(len(self.columns[0].cells) if self.columns else 0):
            yield [(column, column.cells[place]) for column in self.columns]


def table(columns: Iterable[Column], words: Words, groups: Iterable[int] = ()) -> Table:
    """The table without what all its rows have in common, which is said above it. The columns have equally many cells;
    of a single row nothing is taken out."""
    kept: list[Column] = []
    same: list[str] = []
    missing: dict[str, list[str]] = {}
    for column in columns:
        if column.kind in ("name", "strip") or len(column.cells) < 2 or len(set(column.cells)) > 1:
            kept.append(column)
            continue
        (cell,) = set(column.cells)
        if cell.text == DASH:
            missing.setdefault(cell.reason or words("numbers.not_recorded"), []).append(column.title)
        else:
            text = words("table.semicolon").join(cell.lines)
            text += words("numbers.aside", text=cell.reason) if cell.reason else ""
            same.append(words("numbers.colon").join((column.title, text)))
    said = [words("table.same", list=words("table.semicolon").join(same))] if same else []
    for reason, titles in missing.items():
        said.append(words("table.missing", titles=words("numbers.comma").join(titles), reason=reason))
    marked, notes = _marked(kept)
    return Table(tuple(marked), (*said, *notes), frozenset(groups))


def _marked(columns: Sequence[Column]) -> tuple[list[Column], list[str]]:
    """Reasons of several cells as marks, and what the marks stand for."""
    counts = Counter(cell.reason for column in columns for cell in column.cells if cell.reason)
    marks = {
        reason: str(number).translate(_RAISED)
        for number, reason in enumerate((reason for reason, count in counts.items() if count > 1), 1)
    }

    def marked(cell: Cell) -> Cell:
        return replace(cell, reason="", mark=marks[cell.reason]) if cell.reason in marks else cell

    return (
        [replace(column, cells=[marked(cell) for cell in column.cells]) for column in columns],
        [f"{mark} {reason}" for reason, mark in marks.items()],
    )
