"""The runs of a report that was written before: found where they lie now, and joined by those of a sweep."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import RequestError, StoreError
from zoo.reporting.schema import Document
from zoo.store import reading, study
from zoo.store.reading import Run
from zoo.store.recipes import Recipe

APART = "report_name=… gives this one a name of its own; python -m zoo.report study=… takes all runs together."


@dataclass(frozen=True)
class Former:
    """A run as a report names it. key: of its content, empty where the report says none."""

    folder: str
    model: str
    seed: int
    key: str


@dataclass(frozen=True)
class Earlier:
    """What a report was of. kind: task and dataset; runs: folders; told: of each what the report says of it; classes:
    of the study. The latter two are empty where a report of an old version has them elsewhere."""

    kind: tuple[str, str]
    runs: tuple[str, ...]
    told: tuple[Former, ...] = ()
    classes: tuple[str, ...] = ()


def kind_of(folder: str | Path) -> tuple[str, str]:
    """Task and dataset of a run, as a report of it has them."""
    record = reading.read(Path(folder), verify=False).record
    return str(record["task"]), str(record["dataset"])


def earlier(folder: Path) -> Earlier | None:
    """Of the report in a folder, whatever its schema version; None where there is none. Raises RequestError for a
    report.json that is no report."""
    file = folder / "report.json"
    try:
        told: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        runs = tuple(str(run["folder"]) for run in told["provenance"]["runs"])
        return Earlier((str(told["study"]["task"]), str(told["study"]["dataset"])), runs, *_told(told))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise  # the guard of the command has words for it
        raise RequestError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{file} is no report: {error!r}\nMove it away, or name another folder.") from error


def _told(document: Mapping[str, Any]) -> tuple[tuple[Former, ...], tuple[str, ...]]:
    """What a report says of its runs, and its classes."""
    try:
        names = [str(model["name"]) for model in document["models"]]
        runs = tuple(
            Former(str(run["folder"]), names[run["model"]], int(run["seed"]), str(run.get("key") or ""))
            for run in document["provenance"]["runs"]
        )
        return runs, tuple(map(str, document["study"]["classes"]))
    except (KeyError, TypeError, IndexError, ValueError):
        return (), ()


def lacking(folder: Path, document: Document) -> str:
    """What the report in a folder has and the one that is to replace it lacks, in a line; empty where that is nothing:
    another subject, runs with the reason why they are left out now, and classes. Runs are told by the names that they
    had, but these depend on the company: what is compared is folder, key, or recipe and seed."""
    try:
        before = earlier(folder)
    except RequestError:  # no report: whether it may be replaced is for the writer to say
        return ""
    if before is None:
        return ""
    studied = document["study"]
    if before.kind != (studied["task"], studied["dataset"]):
        count = f"{len(before.runs)} run{'s' * (len(before.runs) != 1)}"
        return f"It replaces a report on {before.kind[1]}, task {before.kind[0]}, of {count}."
    why = {os.path.realpath(item["folder"]): item["why"] for item in document["left_out"] if item["folder"]}
    told = []
    for run in _gone(before.told, document):
        reason = why.get(os.path.realpath(run.folder))
        told.append(f"{run.model}, seed {run.seed}{f' ({reason})' if reason else ''}")
    told += [f"the class '{name:.40}'" for name in before.classes if name not in studied["classes"]]
    more = [f"{len(told) - LISTED} more"] if len(told) > LISTED else []
    return f"The report that was there had what this one lacks: {'; '.join([*told[:LISTED], *more])}." if told else ""


def _gone(before: Sequence[Former], document: Document) -> list[Former]:
    """The runs that a report has not: neither itself nor another of the same recipe and seed."""
    here = document["provenance"]["runs"]
    folders = {os.path.realpath(run["folder"]) for run in here}
    keys = {(run["key"], run["seed"]) for run in here}
    gone = [run for run in before if os.path.realpath(run.folder) not in folders and (run.key, run.seed) not in keys]
    made = {_made_as(run["folder"]) for run in here} if gone else set()
    return [run for run in gone if (how := _made_as(run.folder)) is None or how not in made]


def _made_as(folder: str) -> tuple[str, Recipe, Any] | None:
    """Label, recipe and seed of a run; None where its record cannot be read."""
    try:
        record = reading.read(Path(folder), verify=False).record
    except StoreError:
        return None
    return _label(record), Recipe.of(record), record.get("seed")


LISTED = 6


def joined(paths: Sequence[str | Path], folder: Path) -> list[Path]:
    """The runs of a sweep, and with them those of the report in the folder, which the sweep extends: so that added
    seeds or models add to a report in place of replacing it. paths: run folders.

    A run of before gives way to one of the sweep with the same label and seed. Raises RequestError where some run of
    before can neither join nor give way: it is of another dataset, of another recipe under the same label, or gone."""
    fresh = [reading.read(Path(path), verify=False) for path in paths]
    before = earlier(folder)
    if before is None:
        return [run.folder for run in fresh]
    if {kind_of(run.folder) for run in fresh} != {before.kind}:
        raise RequestError(
            f"{folder} holds a report on {before.kind[1]}, task {before.kind[0]}; it was left as it is.\n{APART}"
        )
    here = {os.path.realpath(run.folder) for run in fresh}
    others = [Path(place) for place in before.runs if os.path.realpath(place) not in here]
    known = {(_label(run.record), run.record.get("seed")) for run in fresh}
    kept, lost = [], 0
    for place in others:
        run = _complete(place)
        if run is None:
            lost += 1
        elif (_label(run.record), run.record.get("seed")) not in known:
            kept.append(run)
    if lost or (apart := [run for run in kept if not _joins(run, fresh)]):
        count = lost or len(apart)
        why = "are gone" if lost else "were made by another recipe under the same name"
        raise RequestError(
            f"{folder} holds a report with {count} runs that are not in this sweep and {why}; "
            f"it was left as it is.\n{APART}"
        )
    return [run.folder for run in (*kept, *fresh)]


def _label(record: Mapping[str, Any]) -> str:
    return str(record.get("label") or record.get("model"))


def _complete(folder: Path) -> Run | None:
    try:
        run = reading.read(folder, verify=False)
    except StoreError:
        return None
    return run if run.status == "complete" else None


def _joins(run: Run, fresh: Sequence[Run]) -> bool:
    """Whether it is a model of its own, or a replica of one of the sweep's."""
    alike = [other for other in fresh if _label(other.record) == _label(run.record)]
    return not alike or Recipe.of(run.record) in [Recipe.of(other.record) for other in alike]


def found(document: Document, root: Path) -> list[Path]:
    """Where the runs of a report lie below a folder to which they have been moved, in the order of the report: by key
    and seed. Raises RequestError that names the first that is missing."""
    there: dict[tuple[str, Any], Path] = {}
    for folder in study.run_folders(root):
        try:
            record = reading.read(folder, verify=False).record
        except StoreError:
            continue
        there.setdefault((str(record.get("key")), record.get("seed")), folder)
    runs = document["provenance"]["runs"]
    missing = [run for run in runs if (run["key"], run["seed"]) not in there]
    if missing:
        first, models = missing[0], document["models"]
        raise RequestError(
            f"{root} lacks {len(missing)} of the {len(runs)} runs of this report. "
            f"The first is {models[first['model']]['name']}, seed {first['seed']}, key {first['key']}.\n"
            "runs= names the folder below which all of them lie."
        )
    return [there[run["key"], run["seed"]] for run in runs]
