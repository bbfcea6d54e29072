"""No command writes over what it reads: folders and files that are being read are named here, and whatever publishes
asks first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import RequestError
from zoo.store.disk import chosen_option


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
