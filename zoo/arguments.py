"""Words of a command line, `option=value`, as a dataclass whose fields are the options."""

from __future__ import annotations

import dataclasses
import os
import textwrap
from collections.abc import Sequence
from typing import Any, TypeVar

from zoo.errors import ConfigError, did_you_mean, shortened
from zoo.options import ANY_TEXT, EMPTY, Description, describe

COLUMNS = 80

T = TypeVar("T")


def parse(arguments: Sequence[str], kind: type[T], of_paths: str = "") -> T:
    """An object of the dataclass `kind`, every field of which has a default of its type: str, bool, int or float.

    of_paths: the option that a path which stands alone is meant for. Raises ConfigError for a word that is no option,
    or has a value of another type."""
    assert dataclasses.is_dataclass(kind)
    alone = [word for word in arguments if "=" not in word and (os.sep in word or os.path.lexists(word))]
    if of_paths and alone:
        raise ConfigError(
            f"'{shortened(alone[0])}' has no option before it. Write {of_paths}={shortened(','.join(alone))}"
        )
    known = {item.name: item for item in dataclasses.fields(kind)}
    said: dict[str, Any] = {}
    given: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in known:
            raise ConfigError(f"No option '{name}'.{did_you_mean(name, known)} Options: {', '.join(known)}.")
        if name in given:
            raise ConfigError(f"'{name}' is given twice: {given[name]} and {argument}. Write it once.")
        given[name] = argument
        try:
            said[name] = _value(value, type(known[name].default))
        except ValueError:
            takes = next(item.takes for item in describe(kind) if item.name == name)
            raise ConfigError(f"{argument}: it must be {takes}.") from None
    return kind(**said)


def _value(text: str, kind: type) -> Any:
    """Raises ValueError for a text that stands for no value of this type."""
    if kind is not bool:
        return kind(text)
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def described(kind: type[Any]) -> str:
    """The options of the dataclass for a help text of 80 columns: `name=default`, then meaning and what it takes."""
    options = describe(kind)
    margin = 2 + max(len(_assigned(item)) for item in options)
    return "\n".join(
        textwrap.fill(
            f"{_assigned(item):{margin}}{_told(item)}",
            COLUMNS,
            subsequent_indent=" " * margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in options
    )


def _assigned(item: Description) -> str:
    return f"{item.name}={'' if item.default in ('required', EMPTY) else item.default}"


def _told(item: Description) -> str:
    return item.meaning if item.takes == ANY_TEXT else f"{item.meaning} · {item.takes}"
