"""Which runs of a study are measured: of every model the seeds asked for, under the names that a report gives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import RequestError, did_you_mean
from zoo.store import guards, study
from zoo.store.reading import Run
from zoo.store.schema import WEIGHTS


@dataclass(frozen=True)
class Contestant:
    """A run that is measured. model: its name in the study."""

    model: str
    seed: int
    run: Run

    @property
    def record(self) -> Mapping[str, Any]:
        """What `run.json` says."""
        return self.run.record

    @property
    def what(self) -> str:
        """In words: `mlp, seed 3`."""
        return f"{self.model}, seed {self.seed}"


@dataclass(frozen=True)
class Field:
    """Who takes part. left_out: (run in words, why) of those that cannot; folder: where the bench is kept."""

    contestants: tuple[Contestant, ...]
    left_out: tuple[tuple[str, str], ...]
    folder: Path


def choose(paths: Sequence[str], models: Sequence[str] = (), seeds: Sequence[int] = ()) -> Field:
    """The runs of a study that are measured.

    paths: as `zoo.store.study.open` takes them; models: names, none for all; seeds: none for each model's first that
    can be measured.
    Raises RequestError when no run can be used, or a name or seed is not there.
    """
    comparison = guards.compare(study.open(list(paths)))
    names = list(dict.fromkeys(member.model for member in comparison.members))
    for name in models:
        if name not in names:
            raise RequestError(f"models={name}: no such model here. The study has {_listed(names, name)}")
    found, left_out = [], [(item.what, f"{item.why}: {item.reason}") for item in comparison.left_out if item.folder]
    for name in models or names:
        own = {member.seed: member for member in comparison.members if member.model == name}
        fit = [seed for seed in sorted(own) if not unfit(own[seed].run)]
        for seed in [seed for seed in seeds if seed in own] if seeds else fit[:1] or [min(own)]:
            contestant = Contestant(name, seed, own[seed].run)
            if why := unfit(contestant.run):
                left_out.append((contestant.what, why))
            else:
                found.append(contestant)
    if not found:
        first = f"\n{left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise RequestError(f"No run of this study can be measured.{first}")
    return Field(tuple(found), tuple(left_out), place(paths, [member.run.folder for member in comparison.members]))


def unfit(run: Run) -> str:
    """Why a run cannot be brought back to life, or an empty text."""
    config = run.record.get("config")
    if run.record.get("imported") or not isinstance(config, Mapping) or not isinstance(config.get("model"), Mapping):
        return "its answers were imported, and there is no model to measure"
    if config.get("trainer") is not None and WEIGHTS not in run.record.get("files", {}):
        return f"it holds no {WEIGHTS}: it was run with keep_weights=false"
    return ""


def place(paths: Sequence[str], runs: Sequence[Path]) -> Path:
    """The study's folder: the one that was named, or the lowest that holds all its runs and is no run itself."""
    if len(paths) == 1 and os.path.isdir(paths[0]) and Path(paths[0]) not in runs:
        return Path(paths[0])
    return Path(os.path.commonpath([folder.parent for folder in runs]))


def _listed(names: Sequence[str], name: str) -> str:
    return f"{', '.join(names)}.{did_you_mean(name, names)}"
