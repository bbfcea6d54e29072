"""The command line around `zoo.run.run`: Hydra, one run or a sweep of cells, closing tables and exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

from zoo import guard, interrupts, progress
from zoo.config import Report
from zoo.errors import ConfigError, Incompatible, RequestError, StoreError, ZooError
from zoo.phases import phase
from zoo.store.disk import chosen_with, place_of, replace_file, writing

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from zoo.config import RunConfig
    from zoo.plugins import Registry
    from zoo.records import Outcome

CELLS = "ZOO_SWEEP_CELLS"  # the environment variable that says how many cells a sweep has
NOTE = re.compile(r"cell-(\d{4,})-(\d{4,})\.json")  # what each cell leaves in the sweep's folder
NOTE_KEYS = frozenset({"model", "dataset", "task", "seed", "status"})

Cell = dict[str, Any]


def command(arguments: Sequence[str]) -> int:
    """Run what the command line asks for. Returns the exit code."""
    # Waiting threads of OpenMP burn the core that the others need; the variable counts only before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Nothing here uses tokenizers in a process that forks afterwards; without the variable it warns of that.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    progress.log_on_screen()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an output that knows ASCII only is no reason to fail
    return guard.run(lambda: _with_activity(list(arguments)))


def _with_activity(arguments: list[str]) -> int:
    with progress.activity():
        return _command(arguments)


def _command(arguments: list[str]) -> int:
    with phase("loading plugins"):
        from zoo.plugins import registry

        installed = registry()
    if {"-h", "--help"} & set(arguments):
        from zoo import help_page

        help_page.show([argument for argument in arguments if not argument.startswith("-")], installed)
        return 0
    from zoo import config, overrides

    with phase("reading the command"):
        expanded = overrides.expand(arguments, installed)
        config.register(installed, overrides.foreign(expanded, installed))
    with overrides.plain_errors(arguments, installed):
        return _composed(expanded)


def _composed(words: list[str]) -> int:
    """One run or a sweep; for a sweep of which only the configuration is asked, that of each cell."""
    from zoo import overrides

    options, flags = overrides.parted(words)
    if not overrides.is_sweep(words):
        return _hydra([*options, *flags])
    cells = overrides.cells(options)
    shown = [flag for flag in flags if flag not in ("-m", "--multirun")]
    if not shown:
        return _hydra([*overrides.for_each_cell(options), *flags], options, cells)
    if cells is None:
        raise ConfigError(f"-m with {shown[0]} shows every cell, and these are only known when the sweep runs.")
    for number, cell_options in enumerate(cells, 1):
        print(f"# cell {number} of {len(cells)}: {' '.join(cell_options)}")
        if code := _hydra([*cell_options, *shown]):
            return code
    return 0


def _hydra(arguments: list[str], asked: Sequence[str] = (), cells: Sequence[Sequence[str]] | None = None) -> int:
    """Hand over to Hydra, which composes the configuration and calls `cell`, once or, with -m, once a cell.

    asked: a sweep's overrides as they were given; cells: those of each, where they are known."""
    import hydra

    from zoo.config import conf_dir

    _sweep.clear()
    _failure.clear()
    _asked[:] = asked
    given, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        with _environment(len(cells or ())), guard.ending():
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="run")(cell)()
    except _Refused as refused:
        raise refused.error from None
    except OSError as error:
        if error.errno is None:  # a config that is not there: Hydra counts it among these
            raise
        with writing(Path(error.filename or ".")):  # of Hydra's own files, which are those of a sweep
            raise
    finally:
        sys.argv = given
        code = close_sweep(_sweep[0]) if _sweep else 0
    if _failure:
        raise _failure[0]
    if _sweep:
        report_sweep(_sweep[0])
    return code


@contextlib.contextmanager
def _environment(cells: int) -> Iterator[None]:
    """Variables that Hydra and the cells of a sweep read, here and in the processes that a launcher starts. cells: how
    many a sweep has, 0 where that is not known."""
    ours = {
        # With this set Hydra raises instead of printing a traceback and ending the process: the answer is ours to give.
        "HYDRA_FULL_ERROR": "1",
        # One name for the sweep in all its processes.
        "ZOO_SWEEP": f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}",
        CELLS: str(cells),
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class Sweep:
    """What Hydra said of a sweep before it began. folder: of its notes; report: what is asked of its report, as options
    of `zoo.report`, None for none; words: the command; cells: how many it has, 0 where that is not known."""

    folder: Path
    report: Mapping[str, Any] | None
    words: tuple[str, ...]
    cells: int = 0


_sweep: list[Sweep] = []
_failure: list[ZooError] = []
_asked: list[str] = []


class _Refused(BaseException):
    """A sweep must not begin. No Exception, of which Hydra would make a warning and begin."""

    def __init__(self, error: ZooError) -> None:
        super().__init__(error)
        self.error = error


class Watch(Callback):
    """Told by Hydra that a sweep begins, and where it keeps its notes."""

    def on_multirun_start(self, config: DictConfig, **_more: Any) -> None:
        """Make room for its notes, and remember it here: its cells may run in other processes."""
        try:
            self._begin(config)
        except ZooError as error:
            raise _Refused(error) from error

    def _begin(self, config: DictConfig) -> None:
        asked = {
            "out": str(Path(config.reports_dir).expanduser()),
            "name": config.report_name,
            "language": config.language.value,
            "examples": config.examples,
            "data": "true",  # of this very command, which has read them
        }
        if config.report is Report.auto:
            _require_place(config)
        words = ("python", "-m", "zoo.run", "-m", *_asked)
        folder = Path(config.hydra.sweep.dir)
        cells = int(os.environ.get(CELLS, "0"))
        with writing(folder):
            _require_room(folder, range(cells) if cells else None)
            for note in _notes(folder):  # of an earlier sweep, in a folder that hydra.sweep.dir chose
                note.unlink()
        _sweep.append(Sweep(folder, asked if config.report is Report.auto else None, words, cells))


def _require_place(config: DictConfig) -> None:
    """Raise RequestError where the report of a sweep would lie among its runs: before the first cell."""
    from zoo.plugins import registry
    from zoo.store.places import require_outside

    place = place_of(config.reports_dir, "reports_dir") / config.report_name
    with chosen_with("reports_dir=…"):
        require_outside(place, place_of(config.runs_dir, "runs_dir"), registry().entries["task"])


def cell(composed: DictConfig) -> None:
    """One composed configuration: the task function that Hydra calls, perhaps in a process of its own.

    Paths count from where the command was given, also with `hydra.job.chdir=true`. A process of its own has an activity
    of its own, or it would print into that of the sweep."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    with contextlib.chdir(hydra.runtime.cwd if hydra.job.chdir else "."), progress.activity():
        _cell(composed)


def _cell(composed: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from zoo import config, plugins

    hydra = HydraConfig.get()
    label = str(hydra.runtime.choices["model"])
    screen = progress.console()
    if hydra.mode == RunMode.MULTIRUN:
        if hydra.job.num == 0 and (cells := int(os.environ.get(CELLS, "0"))):  # each was found to be right by now
            screen.print(f"Sweep of {cells} cell{'s' * (cells > 1)}.")
        names = {"model": label, "dataset": composed.dataset.name, "task": composed.task.name, "seed": composed.seed}
        told: list[Cell] = [{**names, "status": "interrupted"}]
        _require_room(Path(hydra.sweep.dir), [hydra.job.num])  # as before the sweep, for what came since
        try:
            told = sweep_cell(composed, names, screen)
        finally:
            for number, each in enumerate(told):
                note = Path(hydra.sweep.dir) / f"cell-{hydra.job.num:04d}-{number:04d}.json"
                replace_file(note, json.dumps(each, indent=2).encode())
        return
    try:
        single(config.typed(composed, plugins.registry(), label), screen)
    except ZooError as error:
        _failure.append(error)  # raised once Hydra has come back, which would wrap it in words of its own


def _numbers(file: Path) -> tuple[int, ...] | None:
    """Cell and replica, where a file has the name of a note."""
    named = NOTE.fullmatch(file.name)
    return None if named is None else tuple(map(int, named.groups()))


def _note(file: Path) -> Cell | None:
    """What a file with the name of a note says; None where it is not of a sweep's making."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and told.keys() >= NOTE_KEYS else None


def _notes(folder: Path) -> dict[Path, Cell]:
    """The notes of a sweep in its folder, in the order of the cells. Everything else there is the user's."""
    files = {file: numbers for file in folder.glob("*.json") if (numbers := _numbers(file)) is not None}
    told = {file: _note(file) for file in sorted(files, key=files.__getitem__)}
    return {file: cell for file, cell in told.items() if cell is not None}


def _require_room(folder: Path, cells: Collection[int] | None) -> None:
    """Raise RequestError where the note of a cell would replace a file of the user's. cells: their numbers, None for
    any."""
    for file in sorted(folder.glob("cell-*.json")):
        numbers = _numbers(file)
        if numbers is not None and (cells is None or numbers[0] in cells) and _note(file) is None:
            raise RequestError(
                f"{file} has the name of a sweep's note and is none.\nMove it away, or choose another hydra.sweep.dir."
            )


def single(settled: RunConfig, screen: Console) -> None:
    """One run and its closing table, or several of one vectorised model; what goes wrong is raised."""
    from zoo import plugins

    outcomes = guarded(settled, plugins.registry(), screen)
    if settled.replicas > 1:
        _close_replicas(settled.label, outcomes, screen)
        return
    (outcome,) = outcomes
    record = outcome.record
    screen.print(
        f"{record['model']} on {record['dataset']}, task {record['task']}, seed {record['seed']}", markup=False
    )
    progress.show_run(screen, record, outcome.metrics)
    for line in progress.closing(record, outcome.folder, outcome.reused):
        screen.print(line, soft_wrap=True, markup=False)


def _close_replicas(label: str, outcomes: Sequence[Outcome], screen: Console) -> None:
    cells = [_told(outcome, {"model": label}) for outcome in outcomes]
    progress.show_cells(screen, cells)
    screen.print(f"One vectorised model. Results: {outcomes[0].folder.parent}", soft_wrap=True, markup=False)
    if failed := [told for told in cells if told["status"] == "failed"]:
        raise ZooError("\n".join([f"{len(failed)} of {len(cells)} replicas failed.", *progress.reasons(failed)]))


def cells_of(sweep: Sweep) -> list[Cell]:
    """What each cell of a sweep left, model by model, each in the order of its cells."""
    cells = list(_notes(sweep.folder).values())
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    return sorted(cells, key=lambda cell: models.index(cell["model"]))


def report_sweep(sweep: Sweep) -> None:
    """Write up the complete cells, one report for each dataset and task with more than one. A report that cannot be
    written, or has nothing to compare, does not make the runs less complete: it is told, and no more."""
    from zoo import report

    together: dict[tuple[str, str], list[str]] = {}
    for told in cells_of(sweep):
        if told["status"] == "complete":
            together.setdefault((told["task"], told["dataset"]), []).append(told["folder"])
    for (task, dataset), folders in together.items():
        if sweep.report is None or len(folders) < 2:
            continue
        asked = dict(sweep.report)
        if asked["name"] and len(together) > 1:  # each needs a name of its own
            asked["name"] += f"-{task}-{dataset}"
        try:
            with phase(f"writing the report on {dataset}"):
                written = report.write(folders, report.Request(**asked), sweep.words, extend=True)
        except BaseException as caught:
            error = interrupts.not_users(caught)
            print(f"No report: {guard.explained(error)}", file=sys.stderr)
            continue
        report.tell(written)
        if not written.counted:
            print(report.NOTHING, file=sys.stderr)


def close_sweep(sweep: Sweep) -> int:
    """Print the closing table of a sweep, from what each cell left. Returns the exit code."""
    cells = cells_of(sweep)
    if not cells:  # the request was wrong, and no cell began
        return 0
    screen = progress.console()
    progress.show_cells(screen, cells)
    for line in progress.reasons(cells):
        screen.print(line, soft_wrap=True, markup=False)
    left = sweep.cells - len({file.name.split("-")[1] for file in _notes(sweep.folder)})  # a cell may leave several
    if left > 0:
        told = f"{left} of the {sweep.cells} cells {'was' if left == 1 else 'were'} not begun."
        screen.print(f"{told} The same command again runs what is missing.", soft_wrap=True, markup=False)
    return guard.FAILED if any(told["status"] == "failed" for told in cells) else 0


def guarded(settled: RunConfig, installed: Registry, screen: Console) -> list[Outcome]:
    """A run, or a vectorised group of them, whose unforeseen errors are ZooErrors too, so that the command line ends
    without a traceback."""
    from zoo import replicas
    from zoo.run import run

    try:
        if settled.replicas > 1:
            return replicas.run(settled, installed, screen)
        return [run(settled, installed, screen)]
    except ZooError:
        raise
    except BaseException as caught:
        error = interrupts.not_users(caught)
        raise guard.explained(error) from error


def sweep_cell(composed: DictConfig, names: Cell, screen: Console) -> list[Cell]:
    """One cell of a sweep, in JSON types, or one for each replica: what fails is told, and the sweep goes on."""
    from zoo import config, plugins, records

    turn = _turn()
    installed, settled, told = plugins.registry(), None, dict(names)
    progress.headline(screen, " · ".join([*turn, *(f"{name} {value}" for name, value in names.items())]))
    try:
        settled = config.typed(composed, installed, names["model"])
        told["dataset"] = settled.dataset.title()
        with phase(f"{' '.join(turn) or 'a cell'}: {names['model']}"):
            outcomes = guarded(settled, installed, screen)
    except ZooError as error:
        status = "skipped" if isinstance(error, Incompatible) else "failed"
        screen.print(f"{status}: {error}", markup=False, soft_wrap=True)
        if settled is not None and error.folder is None:
            with contextlib.suppress(StoreError):
                error.folder = records.note(settled, installed, error, status)
        folder = None if error.folder is None else str(error.folder)
        return [{**told, "status": status, "message": str(error), "folder": folder}]
    for outcome in outcomes:
        screen.print(outcome.folder, soft_wrap=True, markup=False)
    return [_told(outcome, told) for outcome in outcomes]


def _turn() -> list[str]:
    """`["cell 3 of 6"]` within a sweep whose number of cells is known."""
    from hydra.core.hydra_config import HydraConfig

    cells = int(os.environ.get(CELLS, "0"))
    return [f"cell {HydraConfig.get().job.num + 1} of {cells}"] if cells else []


def _told(outcome: Outcome, names: Cell) -> Cell:
    """A run that has ended, for the closing table and the sweep's notes. names: what is known before it begins."""
    record = outcome.record
    own = {name: record[name] for name in ("dataset", "task", "seed")}
    told = {**own, **names, "seed": record["seed"], "status": record["status"], "folder": str(outcome.folder)}
    if record["status"] != "complete":
        return {**told, "message": record["error"]["message"]}
    return {
        **told,
        "reused": outcome.reused,
        "seconds": record.get("seconds"),
        "metrics": {name: outcome.metrics[name] for name in ("accuracy", "macro_f1")},
    }
