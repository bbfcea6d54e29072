"""Which data a stored run may make a command read.

A run folder may come from anybody, and its `run.json` names a dataset with options: a file anywhere on this machine, or
a name on the hub. Unasked, only what comes with the installation is read, and what lies below the current folder.
"""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, get_args

from zoo.data.assembly import UserData
from zoo.data.hub import Hub, HubImages
from zoo.errors import ConfigError, DataError
from zoo.options import choices_of, fields_of, option

Reach = Literal["auto", "true", "false"]

MEANING = "true reads whatever data the runs name, false none, auto those of the installation and below this folder"

_reach: ContextVar[Reach] = ContextVar("reach", default="auto")
_PLACES = ("path", "root")  # options of the user's own data that say where they lie
_FETCHES = "download"  # the option of a dataset or model that says whether something may be fetched


@contextmanager
def allowing(reach: Reach) -> Iterator[None]:
    """Within it stored runs may make us read as much as the option `data=` says; without it, `auto`."""
    token = _reach.set(reach)
    try:
        yield
    finally:
        _reach.reset(token)


def declared() -> str:
    """The option `data=` of a command's request."""
    return option("auto", MEANING, choices=get_args(Reach))


def chosen(text: str) -> Reach:
    """The value of `data=`. Raises ConfigError."""
    for value in get_args(Reach):
        if text.lower() == value:
            return value  # type: ignore[no-any-return]
    raise ConfigError(f"data={text}: it is one of {', '.join(get_args(Reach))}.\n{MEANING}.")


def require_allowed(*parts: object) -> None:
    """Raise DataError when a dataset or model, made from a stored run's record, would have something read that is not
    allowed here."""
    reach = _reach.get()
    if reach == "false":
        raise DataError("data=false: no data are read. Leave it out, or write data=true.")
    if reach == "auto":
        for part in parts:
            if (place := stranger(part)) is not None:
                raise DataError(f"run.json names {place!r}, {_where(part, place)}: it is read with data=true only.")


def _where(part: object, place: str) -> str:
    if place == f"{_FETCHES}=true":
        return "by which something may be fetched"
    if isinstance(part, Hub | HubImages) and not os.path.exists(place):
        return "which is a name on the hub"
    if isinstance(part, UserData) or _is_place(place):
        return "which is not below the current folder"
    return "which is no file below the current folder and may be a name on the hub"


def stranger(part: object) -> str | None:
    """The first place outside the current folder, or on the hub, that the options of a dataset or model name, or
    `download=true`; None when there is none.

    Of the user's own data it is known which options name a place. Of all others any text may name a model or data set
    on the hub, unless it is the option's default, which is the installation's own, one of its choices, or there."""
    assert dataclasses.is_dataclass(part)
    own, hub = isinstance(part, UserData), isinstance(part, Hub | HubImages)
    for item in fields_of(type(part)):
        value = getattr(part, item.name)
        if item.name == _FETCHES and value:
            return f"{_FETCHES}=true"
        if own and item.name not in _PLACES:
            continue
        known = {*_texts(_default(item)), *_texts(choices_of(item))}
        for text in _texts(value):
            if text and text not in known and not _is_below(text, must_exist=hub or not own):
                return text
    return None


def without_download(part: Any) -> Any:
    """A dataset or model of a stored run that fetches nothing, unless `data=true` allows it."""
    assert dataclasses.is_dataclass(part)
    assert not isinstance(part, type)
    if _reach.get() == "true" or not getattr(part, _FETCHES, False):
        return part
    return dataclasses.replace(part, **{_FETCHES: False})


def places_of(part: object) -> list[str]:
    """The files and folders that the options of a dataset or model name and that are there."""
    assert dataclasses.is_dataclass(part)
    texts = [text for item in fields_of(type(part)) for text in _texts(getattr(part, item.name))]
    return [place for text in texts if text and os.path.lexists(place := os.path.expanduser(text))]


def _default(item: dataclasses.Field[object]) -> object:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def _texts(value: object) -> list[str]:
    """Every text and path in the value of an option. Of the names in a mapping those that may be a place: the others
    say what stands there."""
    if isinstance(value, enum.Enum):  # one of few
        return []
    if isinstance(value, str | os.PathLike):
        return [str(value)]
    if isinstance(value, Mapping):
        names = [text for name in value for text in _texts(name) if _is_place(text)]
        return names + [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list | tuple | set | frozenset):
        return [text for part in value for text in _texts(part)]
    return []


def _is_place(text: str) -> bool:
    """Whether a text may be the name of a file, of a folder or of something on the net."""
    return any(sign in text for sign in ("/", "\\", "://")) or text.startswith("~") or os.path.lexists(text)


def _is_below(text: str, must_exist: bool) -> bool:
    """Whether a path, its links followed, lies below the current folder; a pattern with `{split}`, whatever stands for
    that."""
    if "://" in text or "\0" in text:
        return False
    fixed, split, rest = os.path.expanduser(text).partition("{split}")
    if ".." in rest.split(os.sep) or (must_exist and not os.path.exists(fixed)):
        return False
    here = os.path.realpath(os.curdir)
    there = os.path.realpath(os.path.dirname(fixed) if split else fixed)
    return os.path.commonpath([here, there]) == here
