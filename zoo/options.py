"""Options, declared once: `option(default, "meaning", ge=…, choices=…)` is a field of a dataclass.

From the declaration come the config schema, the check of values, the error about a wrong one and the help. The check is
made whenever an instance of a `Configurable` class is made, be it by a command line, YAML or Python.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import inspect
import math
import numbers
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack, overload

from zoo.errors import ConfigError, PluginError, did_you_mean

if typing.TYPE_CHECKING:
    from types import EllipsisType

T = TypeVar("T")

MEANING = "help"
ALLOWED = "allowed"
ANY_TEXT = "a text"
EMPTY = "''"
"""How a help text shows that the default is a text without a letter."""


@dataclass(frozen=True)
class Allowed:
    """Which values of its type an option takes. Bounds and choices hold for each element of a list."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    choices: tuple[Any, ...] = ()
    empty: bool = True

    def has(self, number: Any) -> bool:
        """Whether a finite number lies within the bounds."""
        return (
            (self.ge is None or number >= self.ge)
            and (self.gt is None or number > self.gt)
            and (self.le is None or number <= self.le)
            and (self.lt is None or number < self.lt)
        )

    @property
    def bounds(self) -> str:
        """`" from 0 to below 1"`, as it stands behind "a number"; empty without bounds."""
        low = f"of {self.ge} or more" if self.ge is not None else "" if self.gt is None else f"above {self.gt}"
        if self.le is None and self.lt is None:
            return f" {low}".rstrip()
        if self.ge is not None:
            return f" from {self.ge} to {self.le}" if self.le is not None else f" from {self.ge} to below {self.lt}"
        high = f"at most {self.le}" if self.le is not None else f"below {self.lt}"
        if low:
            return f" {low} and {high}"
        return f" of {high}" if self.le is not None else f" {high}"


class _Limits(TypedDict, total=False):
    """What `option` takes beside default and meaning."""

    ge: float | None
    gt: float | None
    le: float | None
    lt: float | None
    choices: Collection[Any]
    empty: bool


@overload
def option(default: EllipsisType, meaning: str, **limits: Unpack[_Limits]) -> Any: ...
@overload
def option(default: T, meaning: str, **limits: Unpack[_Limits]) -> T: ...
def option(default: Any, meaning: str, *, empty: bool = True, choices: Collection[Any] = (), **bounds: Any) -> Any:
    """A field of a dataclass with all that is to be said of it.

    default: of the field's type, a list or dict included, which every instance gets a copy of; `...` for none, so that
        the option has to be given.
    meaning: one plain sentence without a full stop; `--help` shows it, with what the option takes behind it.
    ge, gt, le, lt: what a number must be at least, above, at most, below. NaN and infinity are always refused.
    choices: the values that are taken, where they are few; the members of an enum need not be repeated.
    empty: whether an empty list or a text of white space only is taken.
    Of a list or dict, bounds and choices are those of each element. Where the type allows None, None is taken.

    A value that is not taken is a ConfigError when the object is made. Rules between options: see `require`.
    """
    metadata = {MEANING: meaning, ALLOWED: Allowed(choices=tuple(choices), empty=empty, **bounds)}
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, list | dict):
        return field(default_factory=functools.partial(copy.deepcopy, default), metadata=metadata)
    return field(default=default, metadata=metadata)


class Configurable:
    """Base of every dataclass of options: their values are checked when an instance is made.

    The check comes before a `__post_init__` of the class's own, which therefore may rely on ranges and need not call
    the one of its base for them. Raises ConfigError."""

    _section: ClassVar[str] = ""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        ends = cls.__post_init__  # a mixin's counts as the class's own
        if ends is not Configurable.__post_init__ and not hasattr(ends, "__wrapped__"):
            cls.__post_init__ = _checked_before(ends)  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        check(self)


def _checked_before(post_init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(post_init)
    def checked(self: Configurable, *arguments: Any) -> None:
        check(self)
        post_init(self, *arguments)

    return checked


def check(options: Configurable) -> None:
    """Raise ConfigError for the first declared option whose value is not one that it takes."""
    cls = type(options)
    for name, (hint, allowed) in _declared(cls).items():
        value = getattr(options, name)
        if not _takes(value, hint, allowed):
            finite = "" if _finite(value) else "finite: "
            near = did_you_mean(str(value), map(str, allowed.choices)) if allowed.choices else ""
            raise ConfigError(f"{_assigned(options, name)}: it must be {finite}{takes(hint, allowed)}.{near}")


def takes_list(cls: type[Any], name: str, items: Sequence[str]) -> bool:
    """Whether an option is a list that takes these items, each as it was typed: numbers or texts."""
    hint, allowed = _declared(cls).get(name, (None, Allowed()))
    hints = [one for one in (hint, *typing.get_args(hint)) if typing.get_origin(one) is list]
    kind = typing.get_args(hints[0])[0] if hints else None
    if kind not in (int, float, str) or not all(items) or any(set("[]{}()='\"") & set(item) for item in items):
        return False
    try:
        return _takes([kind(item) for item in items], hints[0], allowed)
    except ValueError:
        return False


def require(options: Configurable, name: str, holds: bool, wanted: str) -> None:
    """Raise ConfigError unless the rule holds: for what ranges cannot say, such as one option dividing another.

    name: the option that the message is about; wanted: what it should be, as in "a number that divides width=128"."""
    if not holds:
        raise ConfigError(f"{_assigned(options, name)}: it must be {wanted}.")


def _assigned(options: Configurable, name: str) -> str:
    section = f"{options._section}." if options._section else ""
    return f"{section}{name}={_shown(getattr(options, name))}"


def _declared(cls: type) -> dict[str, tuple[Any, Allowed]]:
    """Type and allowed values of the options made with `option`, by name."""
    items = [item for item in fields_of(cls) if ALLOWED in item.metadata]
    hints = field_types(cls) if items else {}
    return {item.name: (hints[item.name], item.metadata[ALLOWED]) for item in items}


def _takes(value: Any, hint: Any, allowed: Allowed) -> bool:
    inner = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_takes(value, one, allowed) for one in inner)
    if hint is type(None):
        return value is None
    if typing.get_origin(hint) is list:
        return (
            isinstance(value, list | tuple)
            and (bool(value) or allowed.empty)
            and all(_takes(item, inner[0], allowed) for item in value)
        )
    if typing.get_origin(hint) is dict:
        return (
            isinstance(value, Mapping)
            and (bool(value) or allowed.empty)
            and all(_takes(item, inner[1], allowed) for item in value.values())
        )
    return _is_one(value, hint, allowed) and (not allowed.choices or value in allowed.choices)


def _is_one(value: Any, hint: Any, allowed: Allowed) -> bool:
    """Whether one value is of a plain type and in range. What a config cannot hold has no type that is checked here."""
    if hint is int or hint is float:
        number = numbers.Integral if hint is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, number):
            return False
        return math.isfinite(typing.cast("float", value)) and allowed.has(value)
    if hint is str:
        return isinstance(value, str) and (allowed.empty or bool(value.strip()))
    if inspect.isclass(hint) and (hint is bool or issubclass(hint, enum.Enum)):
        return isinstance(value, hint)
    return True


def _finite(value: Any) -> bool:
    """Whether neither the value nor an element of it is NaN or infinite."""
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def takes(hint: Any, allowed: Allowed) -> str:
    """What an option of this type takes, in words: `"a number from 0 to below 1, or null"`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [one for one in typing.get_args(hint) if one is not type(None)]
        words = " or ".join(takes(one, allowed) for one in inner)
        return f"{words}, or null" if len(inner) < len(typing.get_args(hint)) else words
    if typing.get_origin(hint) is list:
        many = _plural(typing.get_args(hint)[0], allowed)
        return f"a list of {many}" if allowed.empty else f"a list of one or more {many}"
    if allowed.choices:
        return _either([_shown(choice) for choice in allowed.choices])
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return _either([member.name for member in hint])
    if hint is str and not allowed.empty:
        return "a text that is not empty"
    names = {int: "a whole number", float: "a number", str: ANY_TEXT, bool: "true or false"}
    return f"{names[hint]}{allowed.bounds}" if hint in names else getattr(hint, "__name__", str(hint))


def _plural(hint: Any, allowed: Allowed) -> str:
    words = {int: "whole numbers", float: "numbers", str: "texts"}
    if allowed.choices or hint not in words:
        return f"values, each {takes(hint, allowed)}"
    return f"{words[hint]}{allowed.bounds}"


def _either(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _shown(value: Any) -> str:
    """The value as a command line has it."""
    if value is None:
        return "null"
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value)


@dataclass(frozen=True)
class Description:
    """One option in words. default: as a command line has it, or `required`; meaning: empty where none is declared."""

    name: str
    default: str
    meaning: str
    takes: str


def fields_of(cls: type[Any]) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that are options: those that it is made with. The others are state."""
    return [item for item in dataclasses.fields(cls) if item.init]


def choices_of(item: dataclasses.Field[Any]) -> tuple[Any, ...]:
    """The values that an option is declared to take, where they are few; empty where they are not."""
    allowed = item.metadata.get(ALLOWED)
    return allowed.choices if isinstance(allowed, Allowed) else ()


def describe(cls: type[Any]) -> list[Description]:
    """The options of a dataclass, in order. Raises PluginError for a type that cannot be read."""
    hints = field_types(cls)
    return [
        Description(
            item.name,
            _default(item),
            item.metadata.get(MEANING, ""),
            takes(hints[item.name], item.metadata.get(ALLOWED, Allowed())),
        )
        for item in fields_of(cls)
    ]


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default_factory is not dataclasses.MISSING:
        return _shown(item.default_factory())
    if item.default is dataclasses.MISSING or item.default == "???":
        return "required"
    return EMPTY if item.default == "" else _shown(item.default)


def field_types(cls: type) -> dict[str, Any]:
    """The types of a dataclass's options, by name. Other annotations (ClassVar) may name what is not imported."""
    found: dict[str, Any] = {}
    for item in fields_of(cls):
        owner = next(base for base in cls.__mro__ if item.name in inspect.get_annotations(base))
        only = types.SimpleNamespace(__annotations__={item.name: inspect.get_annotations(owner)[item.name]})
        try:
            found |= typing.get_type_hints(only, vars(sys.modules[owner.__module__]))
        except NameError as error:
            raise PluginError(
                f"{cls.__module__}.{cls.__name__}.{item.name}: its type cannot be read ({error}). "
                f"Import it at the top of the module, not only under TYPE_CHECKING."
            ) from error
    return found
