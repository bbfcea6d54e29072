"""A study: the complete, undamaged runs under some paths, and what was found there but cannot be used, and why."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.errors import DamagedRun, RequestError, StoreError
from zoo.store.reading import Run, near_folder, read
from zoo.store.schema import METRICS, PREDICTIONS, RUN

Code = Literal[
    "incomplete",
    "damaged",
    "unreadable",
    "no_predictions",
    "no_test_examples",
    "repeated_ids",
    "other_classes",
    "other_labels",
    "other_examples",
    "replaced",
    "replaced_by_others",
    "not_answered",
    "no_features",
]
"""Why something is not compared."""

WHY: Mapping[Code, str] = {
    "incomplete": "not complete: {status}",
    "damaged": "damaged",
    "unreadable": "unreadable",
    "no_predictions": "no predictions",
    "no_test_examples": "no test examples",
    "repeated_ids": "repeated ids",
    "other_classes": "other classes",
    "other_labels": "other labels",
    "other_examples": "other test examples",
    "replaced": "one model twice with one seed",
    "replaced_by_others": "one model twice with one seed, and with other answers or examples",
    "not_answered": "not answered by all",
    "no_features": "no features",
}
"""The same in a few words."""


@dataclass(frozen=True)
class LeftOut:
    """Something that is not compared. what: a run, or a number of examples, in words; code: why; reason: a sentence
    with the particulars; folder: of the run, None when it is about examples; status: of an incomplete run."""

    what: str
    code: Code
    reason: str
    folder: Path | None = None
    status: str = ""

    @property
    def why(self) -> str:
        """The code in a few words, the same for all of one kind."""
        return WHY[self.code].format(status=self.status)


@dataclass(frozen=True)
class Study:
    """What `open` found. paths: as given; runs: complete and verified, in the order of the folders; left_out: the
    rest."""

    paths: tuple[str, ...]
    runs: tuple[Run, ...]
    left_out: tuple[LeftOut, ...]


def open(paths: str | Path | Iterable[str | Path]) -> Study:
    """Find the runs under some paths and compare every file with its checksum.

    paths: run folders, folders with run folders anywhere below, or patterns such as `runs/*/digits`. A folder that is
    reached twice counts once. Runs that are not complete, or damaged, are left out with the reason. Raises RequestError
    for a path at which there is no run folder at all, and when not one run can be used.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise RequestError("A study needs at least one folder with runs, e.g. study=runs/sentiment/rotten_tomatoes")
    folders: dict[str, Path] = {}
    for path in given:
        for folder in run_folders(path):
            folders.setdefault(os.path.realpath(folder), folder)
    runs: list[Run] = []
    left_out: list[LeftOut] = []
    for folder in folders.values():
        found = _usable(folder)
        if isinstance(found, Run):
            runs.append(found)
        else:
            left_out.append(found)
    if not runs:
        raise RequestError(_nothing_usable(given, left_out))
    return Study(tuple(str(path) for path in given), tuple(runs), tuple(left_out))


def describe(record: Mapping[str, object], folder: Path) -> str:
    """A run in words: `mlp, seed 3 (runs/…/0f3c)`; one without a record by the name of its folder."""
    label = record.get("label") or record.get("model") or folder.name
    seed = record.get("seed")
    return f"{label}, seed {seed} ({folder})" if isinstance(seed, int) else f"{label} ({folder})"


def run_folders(path: str | Path) -> list[Path]:
    """The run folders at or below a path, sorted. Raises RequestError when there is none."""
    text = str(path)
    if os.path.isdir(text):
        roots = [text]
    elif os.path.exists(text):
        raise RequestError(f"{text} is a file, and a study is made of folders.\nName the run folder, or one above it.")
    else:
        roots = sorted(match for match in glob.glob(text, recursive=True) if os.path.isdir(match))
        if not roots:
            raise RequestError(
                f"There is no folder {text}.{near_folder(text)}\n"
                "`python -m zoo.ls runs` lists the runs; a pattern such as 'runs/*/digits' will do."
            )
    found = [folder for root in roots for folder in _walk(root)]
    if not found:
        raise RequestError(
            f"There are no runs below {text}\nMake one with `python -m zoo.run`, or name another folder."
        )
    return found


def _walk(root: str) -> Iterator[Path]:
    for folder, inner, files in os.walk(root):
        # Drafts lie in a hidden folder: a run that is still being written is no part of a study.
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if RUN in files or {METRICS, PREDICTIONS} & set(files):
            inner.clear()
            yield Path(folder)


def _usable(folder: Path) -> Run | LeftOut:
    run: Run | None = None
    try:
        run = read(folder, verify=False)
        if run.status != "complete":
            return LeftOut(describe(run.record, folder), "incomplete", _failure(run), folder, run.status)
        run.verify()
    except StoreError as error:
        code: Code = "damaged" if isinstance(error, DamagedRun) else "unreadable"
        return LeftOut(describe(run.record if run else {}, folder), code, str(error).splitlines()[0], folder)
    return run


def _failure(run: Run) -> str:
    error = run.record.get("error")
    if isinstance(error, Mapping):
        first = str(error.get("message", "")).strip().partition("\n")[0]
        return f"{error.get('type', 'Error')}: {first}" if first else str(error.get("type", "Error"))
    return f"its status is '{run.status}'"


def _nothing_usable(given: Sequence[str | Path], left_out: Sequence[LeftOut]) -> str:
    first = left_out[0]
    return (
        f"None of the {len(left_out)} runs below {', '.join(map(str, given))} can be used.\n"
        f"The first is {first.what}: {first.why} ({first.reason})"
    )
