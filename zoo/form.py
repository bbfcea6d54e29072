"""The form of a JSON file, written as TypedDicts: holding a value against it, and telling it in words.

A field is `Annotated[type, "what it means"]`, around it `NotRequired[…]` where files written earlier lack it. Known
are TypedDicts, lists, objects of one type, literals, null beside one other type, and JSON's own plain types.
"""

from __future__ import annotations

import math
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

# `Literal[…] | None` is the older of the two.
_UNIONS = (UnionType, Union)
_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", NoneType: "null"}


def check(value: Any, hint: Any, path: str) -> None:
    """Nothing when the value has the form. Raises ValueError that names the first path that has not.

    path: what the value itself is called in the message."""
    if is_typeddict(hint):
        _check_fields(value, hint, path)
    elif get_origin(hint) is list:
        require(isinstance(value, list), path, "a list", value)
        for position, item in enumerate(value):
            check(item, get_args(hint)[0], f"{path}[{position}]")
    elif get_origin(hint) is dict:
        require(isinstance(value, dict) and all(isinstance(key, str) for key in value), path, "an object", value)
        for key, item in value.items():
            check(item, get_args(hint)[1], f"{path}[{key!r}]")
    elif get_origin(hint) in _UNIONS:
        # Only unions with null occur, so the other member is what a value that is not null must be.
        if value is not None:
            check(value, next(member for member in get_args(hint) if member is not NoneType), path)
    elif get_origin(hint) is Literal:
        require(value in get_args(hint), path, f"one of {', '.join(get_args(hint))}", value)
    else:
        require(_is_plain(value, hint), path, _WORDS[hint], value)


def require(fine: bool, path: str, wanted: str, got: Any) -> None:
    """Raise ValueError in the words of `check` unless it is fine."""
    if not fine:
        raise ValueError(f"{path} should be {wanted}, and it is {got!r:.80}")


def describe(whole: type) -> str:
    """A form and all that stands in it as Markdown: a table of fields for each part, in the order of the file."""
    shown: list[type] = []
    _collect(whole, shown)
    return "\n".join(_describe_part(part) for part in shown)


@cache
def _fields(part: Any) -> dict[str, tuple[Any, bool]]:
    """Name -> (type, whether it may be missing)."""
    kept = get_type_hints(part, include_extras=True)
    return {name: (kind, get_origin(kept[name]) is NotRequired) for name, kind in get_type_hints(part).items()}


def _check_fields(value: Any, hint: Any, path: str) -> None:
    require(isinstance(value, dict), path, "an object", value)
    fields = _fields(hint)
    for name, (kind, optional) in fields.items():
        if name in value:
            check(value[name], kind, f"{path}.{name}")
        elif not optional:
            raise ValueError(f"{path}.{name} is missing; it should be {_type_in_words(kind)}")
    if unknown := sorted(set(value) - set(fields)):
        raise ValueError(f"{path} has a field {unknown[0]!r} that is not in the schema")


def _is_plain(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _collect(part: type, shown: list[type]) -> None:
    if part in shown:
        return
    shown.append(part)
    for hint in get_type_hints(part).values():
        for inner in _parts_in(hint):
            _collect(inner, shown)


def _parts_in(hint: Any) -> list[type]:
    if is_typeddict(hint):
        return [hint]
    return [part for inner in get_args(hint) for part in _parts_in(inner)]


def _describe_part(part: type) -> str:
    lines = [
        f"### {part.__name__}",
        "",
        (part.__doc__ or "").strip(),
        "",
        "| field | type | meaning |",
        "|---|---|---|",
    ]
    for name, hint in get_type_hints(part, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        kind, meaning = get_args(get_args(hint)[0] if optional else hint)
        also = "; may be missing" if optional else ""
        lines.append(f"| `{name}` | {_type_in_words(kind)}{also} | {meaning.replace('|', '&#124;')} |")
    return "\n".join([*lines, ""])


def _type_in_words(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint]
    if is_typeddict(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is list:
        return f"list of {_type_in_words(arguments[0])}"
    if origin is dict:
        return f"object of {_type_in_words(arguments[1])}"
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    return " or ".join(_type_in_words(argument) for argument in arguments)
