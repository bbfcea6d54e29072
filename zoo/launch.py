"""The command line around `zoo.run.run`: Hydra, one run or a sweep of cells, closing tables and exit codes."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

from zoo.errors import Incompatible, RequestError, StoreError, ZooError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from zoo.config import RunConfig
    from zoo.plugins import Registry
    from zoo.records import Outcome

FAILED, WRONG_REQUEST, INTERRUPTED = 1, 2, 130

Cell = dict[str, Any]


def command(arguments: Sequence[str]) -> int:
    """Run what the command line asks for. Returns the exit code."""
    # Waiting threads of OpenMP burn the core that the others need; the variable counts only before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Nothing here uses tokenizers in a process that forks afterwards; without the variable it warns of that.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    full = os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0")
    try:
        return _command(list(arguments))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except ZooError as error:
        if full:
            raise
        print(error, file=sys.stderr)
        return error.exit_code


def _command(arguments: list[str]) -> int:
    from zoo.plugins import registry

    installed = registry()
    if {"-h", "--help"} & set(arguments):
        from zoo import help_page

        help_page.show([argument for argument in arguments if not argument.startswith("-")], installed)
        return 0
    from zoo import config, overrides

    expanded = overrides.expand(arguments, installed)
    config.register(installed)
    with overrides.plain_errors(arguments, installed):
        return _hydra(expanded)


def _hydra(arguments: list[str]) -> int:
    """Hand over to Hydra, which composes the configuration and calls `cell`, once or, with -m, once a cell."""
    import hydra

    from zoo.config import conf_dir

    _sweep.clear()
    _failure.clear()
    # With this set Hydra raises instead of printing a traceback and ending the process: the answer is ours to give.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # One name for the sweep in this process and in those that a launcher starts.
    os.environ["ZOO_SWEEP"] = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}"
    given, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="run")(cell)()
    finally:
        sys.argv = given
        code = close_sweep(_sweep[0]) if _sweep else 0
    if _failure:
        raise _failure[0]
    return code


_sweep: list[Path] = []
_failure: list[ZooError] = []


class Watch(Callback):
    """Told by Hydra that a sweep begins, and where it keeps its notes."""

    def on_multirun_start(self, config: DictConfig, **_more: Any) -> None:
        """Remember the sweep's folder: its cells may run in other processes."""
        _sweep.append(Path(config.hydra.sweep.dir))


def cell(composed: DictConfig) -> None:
    """One composed configuration: the task function that Hydra calls, perhaps in a process of its own."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from zoo import config, plugins, progress

    hydra = HydraConfig.get()
    label = str(hydra.runtime.choices["model"])
    screen = progress.console()
    if hydra.mode == RunMode.MULTIRUN:
        told = sweep_cell(composed, label, screen)
        note = Path(hydra.sweep.dir) / f"cell-{hydra.job.num:04d}.json"
        note.write_text(json.dumps(told, indent=2), encoding="utf-8")
        return
    try:
        single(config.typed(composed, plugins.registry(), label), screen)
    except ZooError as error:
        _failure.append(error)  # raised once Hydra has come back, which would wrap it in words of its own


def single(settled: RunConfig, screen: Console) -> None:
    """One run and its closing table; what goes wrong is raised."""
    from zoo import plugins, progress

    outcome = guarded(settled, plugins.registry(), screen)
    record = outcome.record
    screen.print(
        f"{record['model']} on {record['dataset']}, task {record['task']}, seed {record['seed']}", markup=False
    )
    screen.print(*progress.run_tables(record, outcome.metrics), sep="\n")
    for line in progress.closing(record, outcome.folder, outcome.reused):
        screen.print(line, soft_wrap=True, markup=False)


def close_sweep(folder: Path) -> int:
    """Print the closing table of a sweep, from what each cell left. Returns the exit code."""
    from zoo import progress

    cells = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("cell-*.json"))]
    screen = progress.console()
    screen.print(progress.cell_table(cells))
    for line in progress.reasons(cells):
        screen.print(line, soft_wrap=True, markup=False)
    return FAILED if any(told["status"] == "failed" for told in cells) else 0


def guarded(settled: RunConfig, installed: Registry, screen: Console) -> Outcome:
    """A run whose unforeseen errors are ZooErrors too, so that the command line ends without a traceback."""
    from zoo.run import run

    try:
        return run(settled, installed, screen)
    except (ZooError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ZooError(
            f"{type(error).__name__}: {error}\nThe traceback stands in the run's error.txt; "
            f"HYDRA_FULL_ERROR=1 shows it here."
        ) from error


def sweep_cell(composed: DictConfig, label: str, screen: Console) -> Cell:
    """One cell of a sweep, in JSON types: what fails is told, and the sweep goes on."""
    from zoo import config, plugins, records

    installed, settled = plugins.registry(), None
    told: Cell = {
        "model": label,
        "dataset": composed.dataset.name,
        "task": composed.task.name,
        "seed": composed.seed,
    }
    screen.rule(" · ".join(f"{name} {value}" for name, value in told.items()), style="dim")
    try:
        settled = config.typed(composed, installed, label)
        told["dataset"] = settled.dataset.title()
        outcome = guarded(settled, installed, screen)
    except ZooError as error:
        status = "skipped" if isinstance(error, Incompatible) else "failed"
        screen.print(f"{status}: {error}", markup=False, soft_wrap=True)
        if settled is not None and isinstance(error, RequestError):  # other errors have left a folder already
            with suppress(StoreError):
                records.note(settled, installed, error, status)
        return {**told, "status": status, "message": str(error)}
    screen.print(outcome.folder, soft_wrap=True, markup=False)
    return {
        **told,
        "status": "complete",
        "reused": outcome.reused,
        "seconds": outcome.record.get("seconds"),
        "folder": str(outcome.folder),
        "metrics": {name: outcome.metrics[name] for name in ("accuracy", "macro_f1")},
    }
