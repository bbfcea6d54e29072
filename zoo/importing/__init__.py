"""Predictions made elsewhere, read into run folders: `python -m zoo.import`.

The way: a file → rows (`tables`, `samples`) → checked answers of each model and seed (`answers`) → run folders
(`publishing`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import guard, progress
from zoo.errors import DataError, RequestError, did_you_mean
from zoo.phases import phase

if TYPE_CHECKING:
    from zoo.importing.publishing import Imported

COLUMNS = ("model", "seed", "example_id", "label", "prediction", "probabilities", "split")


@dataclass(frozen=True)
class Options:
    """What the files do not say themselves.

    model, seed: of rows that name none; classes: names, index = label (empty: all that occur, sorted); columns: what a
    table calls the columns of `COLUMNS`; filter, metric: which of an lm-evaluation-harness log; task, dataset: where
    the runs are filed (dataset empty: the file's name, or the log's task).
    """

    model: str = ""
    seed: int = 0
    classes: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    filter: str = ""
    metric: str = ""
    task: str = "imported"
    dataset: str = ""


def read(files: Sequence[Path], runs_dir: Path, options: Options | None = None) -> list[Imported]:
    """Read files of predictions and write a run folder for each dataset, model and seed in them.

    All files are checked before the first folder is written. The same answers once more leave the folder as it is.
    Raises DataError naming file, row and value, and StoreError when a folder cannot be written.
    """
    from zoo.importing import answers, publishing, samples, tables
    from zoo.store.disk import chosen_with
    from zoo.store.places import kept

    options = options or Options()
    sheets = []
    for path in files:
        with phase(f"reading {path.name}"):
            reader = samples if samples.is_log(path) else tables
            sheets.append(reader.read(path, options))
    with chosen_with("--runs-dir"), kept(files), phase("writing the runs"):
        return [publishing.publish(one, runs_dir, options.task) for one in answers.gather(sheets, options)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code: 0 fine, 1 it could not be done, 2 the request was wrong."""
    return guard.run(lambda: _command(guard.parsed(_parser(), arguments)))


def _command(given: argparse.Namespace) -> int:
    from zoo.data.labels import composed

    options = Options(
        model=given.model,
        seed=given.seed,
        classes=tuple(composed(name) for name in given.classes.split(",")) if given.classes else (),
        columns=_columns(given.columns),
        filter=given.filter,
        metric=given.metric,
        task=_named("--task", given.task),
        dataset=given.dataset,
    )
    with progress.activity():
        imported = read(given.files, given.runs_dir, options)
    for done in imported:
        state = "there already" if done.reused else "written"
        print(f"{done.folder}  {done.examples:,} examples, accuracy {done.accuracy:.3f}, {state}")
        for note in done.notes:
            print(f"  {note}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo.import",
        description="Read predictions that were made elsewhere into run folders, one for each model and seed.",
        epilog=(
            f"A table (csv, tsv, jsonl, parquet) has a row for each answer and the columns {', '.join(COLUMNS)}; "
            "seed, probabilities and split may be missing, and prob_<class> columns do instead of probabilities. "
            "A samples_*.jsonl log of lm-evaluation-harness is known by what stands in it."
        ),
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="tables and logs of predictions")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="folder in which runs are kept")
    parser.add_argument("--task", default="imported", help="task the runs are filed under (default: imported)")
    parser.add_argument("--dataset", default="", help="dataset they are filed under (default: the file's name)")
    parser.add_argument("--model", default="", help="name of the model, when the file does not say")
    parser.add_argument("--seed", type=int, default=0, help="seed, when the file does not say (default: 0)")
    parser.add_argument("--classes", default="", help="class names in order, a,b,c; integer labels may index them")
    parser.add_argument("--columns", default="", help="what the columns are called: example_id=uid,label=gold")
    parser.add_argument(
        "--filter",
        default="",
        help="which filter of a log, when it has several: its name, or 1, 2 … by order where the log names none",
    )
    parser.add_argument("--metric", default="", help="which metric of a log tells right from wrong, without choices")
    return parser


def _named(option: str, value: str) -> str:
    if not value:
        raise RequestError(f"{option} is empty. Give it a name, or leave it out.")
    return value


def _columns(text: str) -> dict[str, str]:
    columns = {}
    for part in filter(None, text.split(",")):
        name, equals, called = (piece.strip() for piece in part.partition("="))
        if not equals or not called:
            raise DataError(f"--columns '{part}' is not name=column, e.g. --columns example_id=uid,label=gold")
        if name not in COLUMNS:
            raise DataError(
                f"--columns: there is no '{name}' to name.{did_you_mean(name, COLUMNS)}\n"
                f"Names: {', '.join(COLUMNS)}; what stands after = is the column in your file."
            )
        columns[name] = called
    return columns
