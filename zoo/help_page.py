"""`python -m zoo.run --help`: made from what is installed, without Hydra and so at once.

`python -m zoo.help_page` prints the same options as Markdown; docs/options.md is that of the core and its backends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from zoo import overrides, progress
from zoo.config import PARTS, RunSchema, Trainer, TrainerOptions, variants
from zoo.options import Description, describe
from zoo.plugins import registry

if TYPE_CHECKING:
    from rich.console import Console

    from zoo.plugins import Entry, Registry

USAGE = """python -m zoo.run model=NAME [task=NAME] [dataset=NAME] [option=value …]
python -m zoo.run -m model=a,b seed=0,1,2
    every combination; the same command again does what is missing

For example
  python -m zoo.run model=bert task=sentiment
  python -m zoo.run model=linear task=sentiment \\
    dataset=table path=reviews.csv text=review label=stars
  python -m zoo.run model=bert --help            with the options of bert

--cfg job prints the composed configuration, --hydra-help what Hydra can do."""

TRAINING = "Training (null: what the model's recipe suggests, or else the value in brackets)"

KINDS = ("model", "dataset", "task")
WRITTEN = """Made from the declarations by `python -m zoo.help_page`; `python -m zoo.run model=NAME --help` shows the
same of what is installed. A bare name will do where only one of the chosen model, dataset, task and the trainer has it:
`hidden=[64]` is `model.hidden=[64]`."""


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
    for title, options in _of_every_run().items():
        _show_options(screen, title, options)
    for entry in _named(arguments, installed):
        title = f"Options of {entry.kind} {entry.name}: {entry.summary}"
        _show_options(screen, title, _options(f"{entry.kind}.", entry.cls))


def markdown(installed: Registry) -> str:
    """Every option of everything installed as a page of Markdown tables."""
    parts = [f"# The options of a run\n\n{WRITTEN}"]
    parts += [_markdown_table(title, options) for title, options in _of_every_run().items()]
    for kind in KINDS:
        for entry in installed.entries[kind].values():
            if options := _options(f"{kind}.", entry.cls):
                parts.append(_markdown_table(f"`{kind}={entry.name}`", options, entry.summary))
    return "\n\n".join(parts) + "\n"


def _markdown_table(title: str, options: Sequence[Description], summary: str = "") -> str:
    rows = ((f"`{item.name}`", f"`{item.default}`", item.meaning.replace("<", "&lt;"), item.takes) for item in options)
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    heading = "| option | default | meaning | takes |\n|---|---|---|---|"
    return "\n\n".join(filter(None, [f"## {title}", summary, "\n".join([heading, *table])]))


def _of_every_run() -> dict[str, list[Description]]:
    """The options that every run has, by the heading they stand under."""
    return {"Every run": _options("", RunSchema, PARTS), TRAINING: _training_options()}


def _named(arguments: list[str], installed: Registry) -> Iterable[Entry]:
    for kind in installed.entries:
        if any(argument.startswith(f"{kind}=") for argument in arguments):
            yield from overrides.chosen(arguments, kind, installed)


def _show_options(screen: Console, title: str, options: Sequence[Description]) -> None:
    """A table of three columns that fits 80: what does not fit a line goes on in the next one, nothing is cut."""
    screen.print(f"\n{title}", markup=False)  # not as the table's own title, which breaks at the table's edge
    if not options:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("option", overflow="fold", min_width=min(40, max(len(item.name) for item in options)))
    table.add_column("default", overflow="fold", max_width=20)
    table.add_column("meaning · what it takes", overflow="fold")
    for item in options:
        table.add_row(*map(Text, (item.name, item.default, " · ".join(filter(None, (item.meaning, item.takes))))))
    screen.print(table)


def _options(prefix: str, schema: type[Any], leave_out: Sequence[str] = ()) -> list[Description]:
    described = (item for item in describe(schema) if item.name not in leave_out)
    return [replace(item, name=prefix + item.name) for item in described]


def _training_options() -> list[Description]:
    """With the value that counts where neither the user nor the recipe says one."""
    decided = {f"trainer.{item.name}": item.default for item in describe(Trainer)}
    return [
        replace(item, default=f"null ({decided[item.name]})") if item.default == "null" != decided[item.name] else item
        for item in _options("trainer.", TrainerOptions)
    ]


if __name__ == "__main__":
    print(markdown(registry()), end="")
