"""python -m zoo.ls: what is installed and from where, what is broken and why, and which runs there are."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from zoo import guard
from zoo.errors import DamagedRun, RequestError, StoreError, UnknownName, did_you_mean
from zoo.phases import phase
from zoo.progress import activity, console, interval, show_rows

if TYPE_CHECKING:
    from rich.console import Console

    from zoo.plugins import Entry, Registry
    from zoo.store.reading import Run

MOST_NAMES = 6
NOTE_LENGTH = 120
PIPED_WIDTH = 1000  # a line a row, for grep; a table takes no more than it needs


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code: 0 fine, 1 something failed, 2 the request was wrong."""
    return guard.run(lambda: _command(guard.parsed(_parser(), arguments)))


def _command(options: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows ASCII only gets question marks, not an error
    subjects = _chosen(options.subject)
    with activity():
        screen = _screen()
        for subject in subjects:
            if subject == "runs":
                _show_runs(screen, options.runs_dir, options.verify)
            else:
                _show_installed(screen, subject)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo.ls", description="List what is installed, or the runs on disk."
    )
    parser.add_argument("subject", nargs="?", help=f"one of {', '.join(SUBJECTS)}; without it all but runs")
    parser.add_argument("--runs-dir", type=Path, help="the folder in which runs are kept (default: runs)")
    parser.add_argument(
        "--verify", action="store_true", help="of runs: read every file, too, and compare its checksum; else only sizes"
    )
    return parser


def _chosen(subject: str | None) -> list[str]:
    if subject is None:
        return [name for name in SUBJECTS if name != "runs"]
    if subject not in SUBJECTS:
        raise UnknownName(
            f"There is no list of '{subject}'.{did_you_mean(subject, SUBJECTS)}\nLists: {', '.join(SUBJECTS)}."
        )
    return [subject]


def _screen() -> Console:
    screen = console()
    if not screen.is_terminal:
        screen.width = PIPED_WIDTH
    return screen


def _show_installed(screen: Console, subject: str) -> None:
    from zoo.plugins import registry

    with phase("loading plugins"):
        found = registry()
    screen.print(_TABLES[subject](found))
    if found.broken and subject != "plugins":
        names = ", ".join(sorted({broken.distribution for broken in found.broken}))
        screen.print(f"Broken and left out: {names}. Why: python -m zoo.ls plugins", markup=False)


def _models(found: Registry) -> Table:
    entries = found.entries["model"].values()
    return _table(
        "models",
        ("name", "modality", "from", "what it is"),
        ((entry.name, ", ".join(sorted(entry.cls.modalities)), _origin(entry), entry.summary) for entry in entries),
    )


def _datasets(found: Registry) -> Table:
    entries = found.entries["dataset"].values()
    return _table(
        "datasets",
        ("name", "modality", "from", "what it is"),
        ((entry.name, entry.cls.modality, _origin(entry), entry.summary) for entry in entries),
    )


def _tasks(found: Registry) -> Table:
    entries = found.entries["task"].values()
    return _table(
        "tasks",
        ("name", "modality", "default dataset", "from", "what is asked"),
        ((entry.name, entry.cls.modality, entry.cls.dataset, _origin(entry), entry.summary) for entry in entries),
    )


def _measures(found: Registry) -> Table:
    entries = found.entries["measure"].values()
    return _table(
        "measures",
        ("name", "of", "higher is", "from", "what it tells"),
        ((entry.name, entry.cls.scope, entry.cls.higher_is, _origin(entry), entry.summary) for entry in entries),
    )


def _plugins(found: Registry) -> Table:
    rows = [(plugin.distribution, plugin.version, "ok", _brought(found, plugin.distribution))
            for plugin in found.plugins]  # fmt: skip
    rows += [(broken.distribution, broken.version, "broken", broken.reason) for broken in found.broken]
    return _table("plugins", ("distribution", "version", "state", "what it brings, or why it is broken"), rows)


def _brought(found: Registry, distribution: str) -> str:
    """`model bow; datasets spam, ham`, and a mere count where there are many."""
    parts = []
    for kind, entries in found.entries.items():
        names = [entry.name for entry in entries.values() if entry.distribution == distribution]
        if len(names) > MOST_NAMES:
            parts.append(f"{len(names)} {kind}s")
        elif names:
            parts.append(f"{kind}{'s' * (len(names) > 1)} {', '.join(names)}")
    return "; ".join(parts)


_TABLES: dict[str, Callable[[Registry], Table]] = {
    "models": _models,
    "datasets": _datasets,
    "tasks": _tasks,
    "measures": _measures,
    "plugins": _plugins,
}
SUBJECTS = (*_TABLES, "runs")


def _origin(entry: Entry) -> str:
    return f"{entry.distribution} {entry.version}"


def _show_runs(screen: Console, runs_dir: Path | None, verify: bool) -> None:
    from zoo.store.reading import runs

    root = runs_dir or Path("runs")
    if not root.is_dir():
        if runs_dir is not None:
            raise RequestError(
                f"There is no folder '{runs_dir}'.\nName the folder in which runs are kept: --runs-dir …"
            )
        screen.print("No runs yet in ./runs. Another folder: --runs-dir …", markup=False)
        return
    with phase(f"reading the runs in {root}"):
        rows = [_run(run, verify) for run in runs(root)]
    title, accuracy = f"{len(rows)} runs in {root}", "accuracy (95 %)"
    columns = ("task", "dataset", "model", "seed", "status", accuracy, "age", "key", "note")
    own = ("model", "seed", "status", accuracy, "key")
    show_rows(screen, lambda *table: _table(title, *table), columns, rows, own, (accuracy,))


def _run(run: Run, verify: bool = False) -> tuple[str, ...]:
    """The cells of a run. verify: compare its files with their checksums; else only with their sizes."""
    record = run.record
    status, note, accuracy = _state(run, verify)
    names = (str(record.get(part, "–")) for part in ("task", "dataset", "model", "seed"))
    return (*names, status, accuracy, _age(run), str(record.get("key", run.folder.name)), _begun(note))


def _begun(note: str) -> str:
    """The first line of a note, cut at its end: a reason begins with what is wrong and ends with advice."""
    line = " ".join(note.strip().partition("\n")[0].split())
    return line if len(line) <= NOTE_LENGTH else f"{line[: NOTE_LENGTH - 2].rstrip()} …"


def _state(run: Run, verify: bool) -> tuple[str, str, str]:
    """Status, what to note about it, and accuracy. A complete run of which a file is not what was written is damaged,
    and so is a folder whose record cannot be read."""
    if run.status == "complete":
        try:
            run.verify(contents=verify)
            return "complete", "", interval(run.metrics().get("accuracy", {}))
        except DamagedRun as error:
            return "damaged", error.what, ""
        except StoreError as error:
            return "complete", str(error), ""
    cause = run.record.get("error")
    told = cause if isinstance(cause, dict) else {}
    note = str(told.get("message", "") if told else run.record.get("reason", ""))
    if run.record.get("interrupted"):
        return "interrupted", note, ""
    return "damaged" if told.get("type") == DamagedRun.__name__ else run.status, note, ""


def _age(run: Run) -> str:
    """Time since the run ended, or began when it did not: `40 s`, `12 min`, `3 h`, `9 d`."""
    told = run.record.get("ended") or run.record.get("started")
    try:
        then = datetime.fromisoformat(str(told))
        seconds = (datetime.now(UTC) - then).total_seconds()
    except (ValueError, TypeError):
        return "–"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=False, style="bold" if index == 0 else "")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as text: a docstring's [brackets] are no markup
    return table


if __name__ == "__main__":
    guard.leave(main())
