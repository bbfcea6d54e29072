"""`python -m zoo.run --help`: made from what is installed, without Hydra and so at once."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from zoo import overrides, progress
from zoo.config import RunSchema, TrainerOptions, field_types, variants

if TYPE_CHECKING:
    from rich.console import Console

    from zoo.plugins import Entry, Registry

USAGE = """python -m zoo.run model=NAME [task=NAME] [dataset=NAME] [option=value …]
python -m zoo.run -m model=a,b seed=0,1,2      every combination; the same command again does what is missing

For example
  python -m zoo.run model=bert task=sentiment
  python -m zoo.run model=linear task=sentiment dataset=table path=reviews.csv text=review label=stars
  python -m zoo.run model=bert --help            with the options of bert

--cfg job prints the composed configuration, --hydra-help what Hydra itself can do."""


def show(arguments: list[str], installed: Registry) -> None:
    """Print the page; the options of every model, dataset and task named in `arguments` are on it."""
    screen = progress.console()
    screen.print(USAGE, markup=False)
    for kind, entries in installed.entries.items():
        names = sorted({*entries, *variants(installed, kind)})
        screen.print(f"\n{kind:<10} {', '.join(names)}", markup=False)
    screen.print(f"{'experiment':<10} {', '.join(variants(installed, 'experiment'))}", markup=False)
    if installed.broken:
        screen.print(installed.broken_note().strip(), markup=False)
    _show_options(screen, "Options", _options("", RunSchema, ("model", "dataset", "task", "trainer")))
    _show_options(screen, "Training options", _options("trainer.", TrainerOptions))
    for entry in _named(arguments, installed):
        title = f"Options of {entry.kind} {entry.name}: {entry.summary}"
        _show_options(screen, title, _options(f"{entry.kind}.", entry.cls))


def _named(arguments: list[str], installed: Registry) -> Iterable[Entry]:
    for kind in installed.entries:
        if any(argument.startswith(f"{kind}=") for argument in arguments):
            yield from overrides.chosen(arguments, kind, installed)


def _show_options(screen: Console, title: str, table: Table) -> None:
    screen.print(f"\n{title}", markup=False)  # not as the table's own title, which breaks at the table's edge
    if table.row_count:
        screen.print(table)


def _options(prefix: str, schema: type[Any], leave_out: tuple[str, ...] = ()) -> Table:
    table = Table("option", "type", "default", "meaning", box=None)
    hints, described = field_types(schema), _described(schema)
    for item in dataclasses.fields(schema):
        if item.name not in leave_out:
            meaning = item.metadata.get("help") or described.get(item.name, "")
            table.add_row(
                *(Text(cell) for cell in (prefix + item.name, _type(hints[item.name]), _default(item), meaning))
            )
    return table


def _described(schema: type[Any]) -> dict[str, str]:
    """What a docstring says of the options, in lines such as `hidden: widths of the layers`, by name."""
    names = {item.name for item in dataclasses.fields(schema)}
    told: dict[str, str] = {}
    current = ""
    for line in (inspect.getdoc(schema) or "").splitlines():
        head, colon, rest = line.partition(": ")
        if colon and head in names:
            current, told[head] = head, rest
        elif current and line.startswith(" "):
            told[current] += " " + line.strip()
        else:
            current = ""
    return told


def _type(hint: Any) -> str:
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return "|".join(member.name for member in hint)
    if args := typing.get_args(hint):
        inner = " | ".join("null" if arg is type(None) else _type(arg) for arg in args)
        return f"list[{inner}]" if typing.get_origin(hint) is list else inner
    return getattr(hint, "__name__", str(hint))


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default_factory is not dataclasses.MISSING:
        return str(item.default_factory())
    if item.default is dataclasses.MISSING:
        return "required"
    if item.default is None:
        return "null"
    if isinstance(item.default, enum.Enum):
        return item.default.name
    return str(item.default).lower() if isinstance(item.default, bool) else str(item.default)
