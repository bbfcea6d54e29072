"""No command writes over what it reads: folders and files that are being read are named here, and whatever publishes
asks first. Nor does a report go among the runs that it is of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import RequestError
from zoo.store.disk import chosen_option
from zoo.store.keys import RunPlace, escape


@dataclass(frozen=True)
class _Kept:
    path: Path
    whole: bool


_read: ContextVar[tuple[_Kept, ...]] = ContextVar("read", default=())

Identity = tuple[int, int]


@contextmanager
def kept(paths: Iterable[str | Path], whole: bool = True) -> Iterator[None]:
    """Within it nothing is published in the place of these folders and files, or in the place of a folder that holds
    one of them. whole: nor in them, either; without it something new may be made in a folder that is read."""
    token = _read.set((*_read.get(), *(_Kept(Path(path), whole) for path in paths)))
    try:
        yield
    finally:
        _read.reset(token)


def require_apart(place: Path) -> None:
    """Raise RequestError when a place that is to be written, a file or a folder with all that is in it, is, contains or
    lies inside something that is being read. Symbolic links are followed, and a name in other letters is the same name
    where the disk takes it so."""
    above = _identities(place)
    there = _identity(place)
    for entry in _read.get():
        known = _identity(entry.path)
        if known is not None and known == there:
            raise _refused(place, entry.path, "is")
        if known in above and entry.whole:
            raise _refused(place, entry.path, "lies in")
        if there is not None and there in _identities(entry.path):
            raise _refused(place, entry.path, "holds")


def root_of(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """The folder under which a run lies as task/dataset/model/key, as its record names them; None when it does not,
    because it was moved."""
    names = [record.get(part) for part in ("task", "dataset", "model", "key")]
    if not all(isinstance(name, str) and name for name in names):
        return None
    relative = RunPlace(*map(str, names)).relative
    folder = folder.resolve()
    return folder.parents[3] if folder.parts[-4:] == relative.parts and len(folder.parents) > 3 else None


def require_outside(place: Path, root: Path, tasks: Iterable[str]) -> None:
    """Raise RequestError when a place that is to be written is, or lies in, the folder of a task below the folder in
    which runs are kept, be it there or not. Beside the tasks anything may lie. tasks: their names."""
    real, above = Path(os.path.realpath(place)), _identities(place)
    for name in tasks:
        folder = root / escape(name)
        if _identity(folder) in above or Path(os.path.realpath(folder)) in (real, *real.parents):
            raise RequestError(
                f"A report in {place} would lie in {folder}, where the runs of task '{name}' are kept.\n"
                f"Choose another folder with {chosen_option()}"
            )


def _refused(place: Path, path: Path, how: str) -> RequestError:
    read = "is itself being read" if how == "is" else f"{how} {path}, which is being read"
    return RequestError(f"{place} {read}: nothing is written over it.\nChoose another folder with {chosen_option()}")


def _identity(path: Path) -> Identity | None:
    """What the disk knows a place by, links followed; None when there is nothing."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino


def _identities(path: Path) -> set[Identity]:
    """Of a place and of every folder above it, as far as they are there."""
    real = Path(os.path.realpath(path))
    return {found for place in (real, *real.parents) if (found := _identity(place)) is not None}
