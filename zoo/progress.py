"""What a person sees of a run: a bar on a terminal, plain lines when piped, and a closing table."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from zoo.engine.training import Reporter

VECTORS = {
    "cache": "all from the encoding cache",
    "made": "computed once and kept in the encoding cache",
    "memory": "computed once for this run",
}
WIDE = 160  # columns when the output is no terminal: a file has no edge


def console() -> Console:
    """The terminal, or a wide plain page when the output is piped."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=WIDE)


class PlainLines:
    """One line an epoch."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen

    def step(self, done: int, loss: float | None, examples_per_second: float) -> None:
        """Steps are not shown: a log would be full of them."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """The epoch's row in words."""
        self._screen.print(
            f"epoch {row['epoch']:.0f}  step {row['step']:.0f}  loss {row['loss']:.4f}  "
            f"validation loss {row['validation_loss']:.4f}  accuracy {row['validation_accuracy']:.4f}  "
            f"{row['examples_per_second']:.0f} examples/s  {row['seconds']:.1f} s",
            markup=False,
        )


class Bar:
    """A progress bar with loss, validation accuracy, examples a second and time left."""

    def __init__(self, screen: Console, steps: int, refresh: float = 0.1) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._lines = PlainLines(screen)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[state]}"), TimeRemainingColumn(), console=screen, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("training", total=steps, state="")
        self._refresh, self._shown, self._loss, self._accuracy = refresh, 0.0, "", ""

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def step(self, done: int, loss: float | None, examples_per_second: float) -> None:
        """Move the bar, at most ten times a second."""
        self._loss = self._loss if loss is None else f"loss {loss:.3f}"
        if time.monotonic() - self._shown >= self._refresh:
            self._shown = time.monotonic()
            state = f"{self._loss}  {self._accuracy}  {examples_per_second:.0f} examples/s"
            self._progress.update(self._task, completed=done, state=state)

    def epoch(self, row: Mapping[str, float]) -> None:
        """A line above the bar."""
        self._accuracy = f"accuracy {row['validation_accuracy']:.3f}"
        self._lines.epoch(row)


def reasons(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why cells were skipped or failed, each reason once, with how many cells it met."""
    told: dict[str, int] = {}
    for cell in cells:
        if cell.get("message"):
            line = f"{cell['model']} on {cell['dataset']} {cell['status']}: {cell['message']}"
            told[line] = told.get(line, 0) + 1
    return [line if count == 1 else f"{line} ({count} cells)" for line, count in told.items()]


@contextlib.contextmanager
def reporter(screen: Console, steps: int) -> Iterator[Reporter]:
    """A bar on a terminal, plain lines otherwise."""
    if not screen.is_terminal:
        yield PlainLines(screen)
        return
    with Bar(screen, steps) as bar:
        yield bar


def interval(metric: Mapping[str, Any], digits: int = 3) -> str:
    """`0.812 (0.788–0.834)`, or a dash when the metric is undefined."""
    if metric.get("value") is None:
        return "–"
    if metric.get("low") is None:
        return f"{metric['value']:.{digits}f}"
    return f"{metric['value']:.{digits}f} ({metric['low']:.{digits}f}–{metric['high']:.{digits}f})"


def run_tables(record: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """The closing tables of one run: the metrics with 95 % intervals and n, then the same for each class."""
    whole = {name: metric for name, metric in metrics.items() if "/" not in name}
    first = Table()
    for name in ("metric", "test", "95 % interval", "n"):
        first.add_column(name, justify="left" if name == "metric" else "right")
    for name, metric in whole.items():
        value, _, span = interval(metric, 4).partition(" ")
        first.add_row(Text(name), value, Text(span.strip("()") or metric.get("reason", "–")), str(metric["n"]))
    kinds = ("precision", "recall", "f1")
    second = Table("class", *kinds, "n")
    for label in record["data"]["classes"]:
        row = [metrics.get(f"{kind}/{label}", {}) for kind in kinds]
        second.add_row(Text(label), *(interval(metric) for metric in row), str(row[1].get("n", "")))
    return [first, second]


def cell_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """The closing table of a sweep: one row a cell, whatever became of it."""
    table = Table(title=f"{len(cells)} cells", title_justify="left")
    for name in ("model", "dataset", "task", "seed", "status", "accuracy", "macro-F1", "seconds"):
        table.add_column(name, justify="right" if name in ("seed", "seconds") else "left")
    for cell in cells:
        metrics = cell.get("metrics") or {}
        seconds = cell.get("seconds")
        status = str(cell["status"]) + (" (kept)" if cell.get("reused") else "")
        told = [interval(metrics[name]) if metrics else "" for name in ("accuracy", "macro_f1")]
        row = [cell["model"], cell["dataset"], cell["task"], cell["seed"], status, *told]
        table.add_row(*(Text(str(item)) for item in row), "" if seconds is None else f"{seconds:.1f}")
    return table


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def closing(record: Mapping[str, Any], folder: Path, reused: bool) -> list[str]:
    """What it took and where it lies, a line each."""
    training = record.get("training", {})
    lines = list(record["data"]["notes"])
    if reused:
        lines.append("This run was complete already and was not repeated; rerun=true repeats it.")
    else:
        facts = [f"{record['seconds']:.1f} s in all"]
        if record["peak_memory_mib"] is not None:
            facts.append(f"peak memory {record['peak_memory_mib']:.0f} MiB")
        facts.append(f"{training['param_count']:,} weights")
        if "threads" in training:
            facts.append(f"{training['device']}, {training['precision']}, {_count(training['threads'], 'thread')}")
        lines.append(", ".join(facts))
        if "compile_reason" in training:
            lines.append(f"trainer.compile=auto: {training['compile']} ({training['compile_reason']}).")
        if "vectors" in training:
            lines.append(f"Trained on vectors of the frozen part, {VECTORS[training['vectors']]}.")
    return [*lines, f"Results: {folder}"]
