"""Where a disguised run may go: not among the runs of the study that it was made from, whose answer would change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import RequestError, StoreError
from zoo.store.keys import escape
from zoo.store.places import root_of
from zoo.store.reading import read
from zoo.store.schema import PARENT
from zoo.store.study import run_folders

DEFAULT = "disguised"
"""The folder for disguised runs, beside `runs`: reports on the latter do not look into it."""


def require_apart(run: Path, out: Path) -> None:
    """Refuse to write among runs that were trained, of the task and dataset of the run to be disguised: in a folder
    that such runs lie in, or one above them. Runs that were made out of others themselves may have more made out of
    them beside them. Raises RequestError; what cannot be read is for the reader of the run to tell."""
    record = _record(run)
    clash = None if record is None else _clash(run, record, out)
    if record is None or clash is None:
        return
    first, study = clash
    raise RequestError(
        f"{first}\n"
        "A report on these runs would count the copy as one more model, and its headline would change.\n"
        f"Choose a folder outside{_advice(run, record, study)}"
    )


def _clash(run: Path, record: Mapping[str, Any], out: Path) -> tuple[str, Path] | None:
    """How a folder for disguised runs meets trained ones, and the folder of the latter; None: it does not."""
    out = out.resolve()
    root = None if record.get(PARENT) else root_of(run, record)
    if root is not None and out.is_relative_to(root):
        return f"out={out} is in {root}, where the run to be disguised is.", root
    data = (record.get("task"), record.get("dataset"))
    above, below = _around(out, *map(str, data)), [run.resolve()] if out in run.resolve().parents else []
    for folder in (*above, *below, *_below(out)):
        found = _record(folder)
        if found is not None and not found.get(PARENT) and (found.get("task"), found.get("dataset")) == data:
            study = root_of(folder, found) or folder
            if out in folder.parents:
                return f"out={out} has a trained run of the same data in it: {folder}", study
            return f"out={out} is in {folder.parents[3]}, beside a trained run: {folder}", study
    return None


def _advice(run: Path, record: Mapping[str, Any], study: Path) -> str:
    """A folder that is not refused, and the study that takes both; empty where none of the usual names will do."""
    for place in (Path(DEFAULT), study.parent / DEFAULT, study.parent.parent / DEFAULT):
        if not place.resolve().is_relative_to(study) and _clash(run, record, place) is None:
            return f", e.g. out={place}; a report takes both: study={study},{place}"
    return f" {study}."


def _around(out: Path, task: str, dataset: str) -> Iterator[Path]:
    """The runs of a task and dataset in the stores that a folder lies in, its own included."""
    if task and dataset:
        for place in (out, *out.parents):
            yield from sorted((place / escape(task) / escape(dataset)).glob("*/*"))


def _below(out: Path) -> list[Path]:
    """The runs that a report on a folder would find."""
    try:
        return run_folders(out) if out.is_dir() else []
    except RequestError:  # there is none
        return []


def _record(run: Path) -> Mapping[str, Any] | None:
    try:
        return read(run, verify=False).record
    except (RequestError, StoreError, OSError):
        return None
