"""What a person sees of a run: a bar on a terminal, plain lines when piped, and a closing table."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from zoo import phases
from zoo.shares import FEW_EXAMPLES
from zoo.store.schema import computed_on

if TYPE_CHECKING:
    from zoo.engine.training import Reporter

VECTORS = {
    "cache": "all from the encoding cache",
    "made": "computed once and kept in the encoding cache",
    "memory": "computed once for this run",
}
_MOST_DIGITS = 9
WIDEST = 100_000
WITH_INTERVAL = ("accuracy", "macro-F1", "precision", "recall", "f1")  # columns of the closing tables
WIDE = 160  # columns when the output is no terminal: a file has no edge


def console() -> Console:
    """The terminal, or a wide plain page when the output is piped."""
    if _activity:
        return _activity[-1][0].console  # what is printed elsewhere would end up in the middle of its line
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=WIDE)


def log_on_screen() -> None:
    """Show warnings and errors of the log on stderr, above a line of activity. What is less than a warning may still go
    elsewhere, to a run's events.log."""
    shown = _Shown()
    shown.setLevel(logging.WARNING)
    logging.basicConfig(format="%(levelname)s: %(message)s", handlers=[shown])


class _Shown(logging.StreamHandler[TextIO]):
    """Shows what is logged on stderr, whatever stands for it at the time: a line of activity must make way."""

    @property
    def stream(self) -> TextIO:
        """Where it goes."""
        return sys.stderr

    @stream.setter
    def stream(self, _given: TextIO) -> None:
        """Set by the handler's own making, and of no effect."""


# Some calls let no other thread of Python run for seconds: loading a large library, drawing a chart. So a process of
# its own speaks where this one has not been heard of for a second, with what it heard last. It has the same terminal,
# and ends with this process, or when its input does.
STANDBY = r"""
import os, select, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
parent, line, base, heard = os.getppid(), b"", 0.0, time.monotonic()
while os.getppid() == parent:
    if select.select([0], [], [], 1.0)[0]:
        got = os.read(0, 65536)
        if not got:
            break
        base, line = got.splitlines()[-1].split(b" ", 1)
        base, heard = float(base), time.monotonic()
    elif line:
        os.write(1, b"\r\x1b[2K\x1b[2m%s, %d s\x1b[0m" % (line, base + time.monotonic() - heard))
"""


class _Standby:
    """The process that speaks when this one cannot. Nothing depends on it: where it cannot be started nobody does."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            command = [sys.executable, "-I", "-S", "-c", STANDBY]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)  # it may be stopped, and its pipe full

    def hear(self, line: str, seconds: float) -> None:
        """What is being done, and for how long. An empty line: somebody else speaks."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it is gone, or closed
                self._process.stdin.write(f"{seconds:.1f} {line}\n".encode())

    def close(self) -> None:
        """End it. Afterwards it prints nothing, and nothing is left of it.

        It is killed: a process that was forked meanwhile holds its input open, so that it would see no end, and it may
        itself be stopped."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.kill()
            process.wait()
            with contextlib.suppress(OSError):
                process.stdin.close()


_activity: list[tuple[Live, _Standby]] = []


@contextlib.contextmanager
def activity() -> Iterator[None]:
    """Within it the last line of a terminal says what is being done and for how long, twice a second: see
    `zoo.phases`. Nothing where the output is no terminal, and nothing within another one."""
    screen = console()
    if not screen.is_terminal or screen.is_dumb_terminal or _activity:
        yield
        return
    with contextlib.closing(_Standby()) as standby:
        live = Live(_Doing(standby), console=screen, transient=True, refresh_per_second=2)
        _activity.append((live, standby))
        try:
            with live, contextlib.closing(standby):  # in this order: what it printed last is cleared with the line
                yield
        finally:
            _activity.pop()


@contextlib.contextmanager
def _without_activity() -> Iterator[None]:
    """Within it the line is not there: a bar stands in its place."""
    for live, standby in _activity:
        live.stop()
        standby.hear("", 0.0)
    try:
        yield
    finally:
        for live, _ in _activity:
            live.start()


class _Doing:
    """`cell 2 of 6 · reading the data, 3 s`, as the screen needs it."""

    def __init__(self, standby: _Standby) -> None:
        self._standby, self._began = standby, time.monotonic()

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        doing, seconds = phases.current()
        if not doing:
            doing, seconds = ["working"], time.monotonic() - self._began
        line = Text(" · ".join(doing), style="dim", no_wrap=True, overflow="ellipsis")
        line.truncate(max(options.max_width - 12, 1), overflow="ellipsis")
        self._standby.hear(line.plain, seconds)
        yield line.append(f", {duration(seconds)}")


def duration(seconds: float) -> str:
    """`7 s`, `3:07` or `2:03:07`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes.removeprefix("0")


class TimeLeft:
    """How long a training still takes, from steps that tell.

    The first steps do not: they fill caches, tune kernels, compile. So nothing is said before the pace has settled:
    until two seconds of steps were seen, and the typical one of their later half, on which the estimate is built, takes
    about as long as that of the earlier half. Where it never does, a tenth of all steps is enough.

    steps: of the whole training; limit: its budget in seconds, if it has one; clock: in seconds.
    """

    FEWEST, WARM_UP, SEEN, ALIKE, SECONDS = 16, 3, 512, 1.25, 2.0

    def __init__(self, steps: int, limit: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps, self._limit, self._clock = steps, limit, clock
        self._began = clock()
        self._marks: deque[tuple[float, int]] = deque(maxlen=self.SEEN)
        self._settled = False
        self._watched: float | None = None

    def step(self, done: int) -> None:
        """After a step. done: steps so far."""
        now = self._clock()
        if done >= min(self.WARM_UP, self._steps // 10):
            self._marks.append((now, done))
            self._watched = now if self._watched is None else self._watched
        fewest = max(4, min(self.FEWEST, self._steps // 8))
        if self._settled or self._watched is None or now - self._watched < self.SECONDS or len(self._marks) <= fewest:
            return
        took = [later - sooner for (sooner, _), (later, _) in pairwise(self._marks)]
        earlier, later = median(took[: len(took) // 2]), median(took[len(took) // 2 :])
        if max(earlier, later) <= self.ALIKE * min(earlier, later) or done * 10 >= self._steps + fewest * 10:
            self._settled = True
            self._keep(len(took) - len(took) // 2 + 1)
        elif len(took) >= 2 * fewest:
            self._keep(fewest)

    def _keep(self, most: int) -> None:
        while len(self._marks) > most:
            self._marks.popleft()

    def seconds(self) -> float | None:
        """Seconds that are left, validation between the epochs included as far as it was seen; None while nothing
        tells."""
        if not self._settled:
            return None
        (first, at_first), (last, at_last) = self._marks[0], self._marks[-1]
        left = (self._steps - at_last) * (last - first) / max(at_last - at_first, 1)
        return left if self._limit is None else max(0.0, min(left, self._limit - (last - self._began)))


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
    """A progress bar with loss, validation accuracy, examples a second and time left. limit: as for `TimeLeft`."""

    def __init__(self, screen: Console, steps: int, limit: float | None = None, refresh: float = 0.1) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._lines = PlainLines(screen)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[state]}"), console=screen, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("training", total=steps, state="")
        self._left = TimeLeft(steps, limit)
        self._refresh, self._shown, self._loss, self._accuracy = refresh, 0.0, "", ""

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def step(self, done: int, loss: float | None, examples_per_second: float) -> None:
        """Move the bar, at most ten times a second."""
        self._loss = self._loss if loss is None else f"loss {loss:.3f}"
        self._left.step(done)
        if time.monotonic() - self._shown >= self._refresh:
            self._shown = time.monotonic()
            parts = [self._loss, self._accuracy, f"{examples_per_second:.0f} examples/s"]
            if (left := self._left.seconds()) is not None:
                parts.append(f"{duration(left)} left")
            self._progress.update(self._task, completed=done, state="  ".join(filter(None, parts)))

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
def reporter(screen: Console, steps: int, limit: float | None = None) -> Iterator[Reporter]:
    """A bar on a terminal, plain lines otherwise. limit: seconds after which the training ends, whatever its steps."""
    if not screen.is_terminal:
        yield PlainLines(screen)
        return
    with _without_activity(), Bar(screen, steps, limit) as bar:
        yield bar


def headline(screen: Console, words: str) -> None:
    """A line that begins a part of the output; broken between words where the screen is narrower."""
    if len(words) + 4 <= screen.width:
        screen.rule(Text(words), style="dim")
    else:
        _print_wrapped(screen, f"── {words}")


def interval(metric: Mapping[str, Any], digits: int = 3) -> str:
    """`0.812 (0.788–0.834)`; the value alone without an interval, a dash when the metric is undefined.

    digits: after the point; more where the ends would read alike, since an interval is never empty."""
    value, low, high = metric.get("value"), metric.get("low"), metric.get("high")
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{value:.{digits}f}"
    while low < high and f"{low:.{digits}f}" == f"{high:.{digits}f}" and digits < _MOST_DIGITS:
        digits += 1
    return f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def few_examples(examples: int) -> str:
    """What to say of a result on so few test examples; empty where there are enough."""
    if examples >= FEW_EXAMPLES:
        return ""
    return f"{_count(examples, 'test example')}: nothing can be concluded from fewer than {FEW_EXAMPLES}."


def show_run(screen: Console, record: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the closing tables of one run so that no name and no interval is cut."""
    first, second = run_tables(record, metrics)
    if not _print_fitting(screen, [first], wrapped=True):
        _print_stacked(screen, METRIC_COLUMNS, _metric_rows(metrics))
        if first.caption:
            _print_wrapped(screen, str(first.caption))
    narrow = run_tables(record, metrics, in_lines=True)[1]
    if not _print_fitting(screen, [second, narrow]):
        _print_stacked(screen, ["class", "precision", "recall", "f1", "n"], _class_rows(record, metrics))


def run_tables(
    record: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]], in_lines: bool = False
) -> list[Table]:
    """The closing tables of one run: the metrics with 95 % intervals and n, then the same for each class.

    in_lines: each interval of a class stands below its value."""
    first = Table()
    for name in METRIC_COLUMNS:
        first.add_column(name, justify="left" if name == "metric" else "right", no_wrap=name != METRIC_COLUMNS[2])
    for row in _metric_rows(metrics):
        first.add_row(*map(Text, row))
    second = Table("class", "precision", "recall", "f1", "n")
    for row in _class_rows(record, metrics):
        second.add_row(*(Text(_in_lines(item) if in_lines and place else item) for place, item in enumerate(row)))
    if few := few_examples(int(metrics.get("accuracy", {}).get("n", FEW_EXAMPLES))):
        first.caption, first.caption_justify = few, "left"
    return [first, second]


def _metric_rows(metrics: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Of each metric of the whole test split its name, value, interval or the reason for none, and n."""
    rows = []
    for name, metric in metrics.items():
        if "/" not in name:
            value, _, span = interval(metric, 4).partition(" ")
            rows.append([name, value, span.strip("()") or metric.get("reason", "–"), str(metric["n"])])
    return rows


def _class_rows(record: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Of each class its name, precision, recall and F1 with intervals, and n."""
    rows = []
    for label in record["data"]["classes"]:
        row = [metrics.get(f"{kind}/{label}", {}) for kind in ("precision", "recall", "f1")]
        rows.append([label, *(interval(metric) for metric in row), str(row[1].get("n", ""))])
    return rows


METRIC_COLUMNS = ("metric", "test", "95 % interval", "n")
CELL_COLUMNS = ("model", "dataset", "task", "seed", "status", "accuracy", "macro-F1", "seconds")


def show_cells(screen: Console, cells: Sequence[Mapping[str, Any]]) -> None:
    """Print the closing table of a sweep so that no name and no interval is cut, however narrow the screen.

    Where it is too wide, columns that say the same in every row are said once above it; then intervals go below their
    values; then each cell has lines of its own."""
    whole = cell_table(cells)
    same = _constant(cells)
    narrow = [cell_table(cells, leave_out=same), cell_table(cells, leave_out=same, in_lines=True)]
    if _print_fitting(screen, [whole]):
        return
    if said := " · ".join(f"{name} {value}" for name, value in same.items() if value):
        _print_wrapped(screen, f"All cells: {said}")
    if not _print_fitting(screen, narrow):
        kept = [name for name in CELL_COLUMNS if name not in same]
        rows = [[row[CELL_COLUMNS.index(name)] for name in kept] for row in map(_cell_row, cells)]
        screen.print(whole.title or "")
        _print_stacked(screen, kept, rows)
        if whole.caption:
            _print_wrapped(screen, str(whole.caption))


def cell_table(cells: Sequence[Mapping[str, Any]], leave_out: Container[str] = (), in_lines: bool = False) -> Table:
    """The closing table of a sweep: one row a cell, whatever became of it.

    leave_out: columns that it does not have; in_lines: each interval stands below its value."""
    table = Table(title=f"{len(cells)} cells", title_justify="left")
    kept = [(place, name) for place, name in enumerate(CELL_COLUMNS) if name not in leave_out]
    for _, name in kept:
        table.add_column(name, justify="right" if name in ("seed", "seconds") else "left")
    for row in map(_cell_row, cells):
        if in_lines:
            row = [
                _in_lines(item) if name in WITH_INTERVAL else item for name, item in zip(CELL_COLUMNS, row, strict=True)
            ]
        table.add_row(*(Text(row[place]) for place, _ in kept))
    fewest = min((int(cell["metrics"]["accuracy"]["n"]) for cell in cells if cell.get("metrics")), default=FEW_EXAMPLES)
    if few := few_examples(fewest):
        table.caption, table.caption_justify = few, "left"
    return table


def _cell_row(cell: Mapping[str, Any]) -> list[str]:
    metrics = cell.get("metrics") or {}
    seconds = cell.get("seconds")
    status = str(cell["status"]) + (" (kept)" if cell.get("reused") else "")
    told = [interval(metrics[name]) if metrics else "" for name in ("accuracy", "macro_f1")]
    names = [str(cell[name]) for name in ("model", "dataset", "task", "seed")]
    return [*names, status, *told, "" if seconds is None else f"{seconds:.1f}"]


def _constant(cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The columns that say the same of every cell, with what they say; the model stays where nothing tells the cells
    apart."""
    values = dict(zip(CELL_COLUMNS, zip(*map(_cell_row, cells), strict=True), strict=True))
    same = {name: column[0] for name, column in values.items() if len(set(column)) == 1}
    kept = {"seconds", *WITH_INTERVAL} & {name for name, value in same.items() if value}
    if same.keys() >= {"model", "dataset", "task", "seed"}:
        kept.add("model")
    return {name: value for name, value in same.items() if name not in kept}


def _in_lines(text: str) -> str:
    """`0.812 (0.788–0.834)` with the interval below the value."""
    return text.replace(" (", "\n(")


def _print_fitting(screen: Console, tables: Sequence[Table], wrapped: bool = False) -> bool:
    """Print the first of the tables that the screen has room for, without a line broken; wrapped: between words they
    may be. Returns whether there is one; where the output is no terminal the first: a file has no edge."""
    for table in tables:
        measured = Measurement.get(screen, screen.options.update(max_width=WIDEST), table)
        needed = measured.minimum if wrapped else measured.maximum
        if not screen.is_terminal:
            screen.width = max(screen.width, needed)
        if needed <= screen.width:
            screen.print(table)
            return True
    return False


def show_rows(
    screen: Console,
    made: Callable[[Sequence[str], Sequence[Sequence[str]]], Table],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    own: Container[str],
    intervals: Container[str],
) -> None:
    """Print a table so that no cell is cut, as `show_cells` does. made: a table of columns and rows; own: the columns
    that stay although they say the same in every row; intervals: those that hold them."""
    if _print_fitting(screen, [made(columns, rows)]):
        return
    values = dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {}
    same = {name: cells[0] for name, cells in values.items() if len(set(cells)) == 1 and name not in own}
    if said := " · ".join(f"{name} {value}" for name, value in same.items() if value):
        _print_wrapped(screen, f"In all rows: {said}")
    kept = [place for place, name in enumerate(columns) if name not in same]
    names, cells = [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]
    lines = [
        [_in_lines(text) if name in intervals else text for name, text in zip(names, row, strict=True)]
        for row in (names, *cells)
    ]
    if not _print_fitting(screen, [made(names, cells), made(lines[0], lines[1:])]):
        screen.print(made(names, cells).title or "")
        _print_stacked(screen, names, cells)


def _print_stacked(screen: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose rows have lines of their own: the names first, then each value with its interval."""
    for row in rows:
        items = list(zip(columns, row, strict=True))
        long = [(name, text) for name, text in items[1:] if text and name in WITH_INTERVAL]
        short = [f"{name} {text}" for name, text in items[1:] if text and name not in WITH_INTERVAL]
        _print_wrapped(screen, " · ".join([f"{columns[0]} {row[0]}", *short]))
        width = max((len(name) for name, _ in long), default=0)
        for name, text in long:
            screen.print(f"    {name:<{width}}  {text}", markup=False, soft_wrap=True)


def _print_wrapped(screen: Console, line: str) -> None:
    """A line broken between words only: a name that is longer than the screen is not cut."""
    broken = textwrap.wrap(line, screen.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    screen.print("\n".join(broken), markup=False, soft_wrap=True)


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
            facts.append(computed_on(training["device"], training["precision"], training["threads"]))
        lines.append(", ".join(facts))
        if "compile_reason" in training:
            lines.append(f"trainer.compile=auto: {training['compile']} ({training['compile_reason']}).")
        if "vectors" in training:
            lines.append(f"Trained on vectors of the frozen part, {VECTORS[training['vectors']]}.")
    return [*lines, f"Results: {folder}"]
