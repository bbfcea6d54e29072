"""How the labels of a column become classes: one spelling for each, and names or indices, decided once for a column."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from zoo.errors import DataError

Reading = Literal["names", "indices"]

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WRITTEN_AS_FLOAT = re.compile(r"[.eE]")


def kind(value: object) -> str:
    """The type of a value, for a message: `a str`, `an int`."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def composed(name: str) -> str:
    """A name without surrounding blanks, its letters in Unicode's composed form."""
    return unicodedata.normalize("NFC", name.strip())


def label_name(value: object, where: Callable[[], str]) -> str:
    """The label as a class is called: a text without surrounding blanks (Unicode's composed form, so that two ways to
    store one letter are one name), an integer, or a bool.

    Raises DataError for a missing one and for anything else.
    """
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where()}: the label is missing. Every example needs one; leave the example out otherwise.")
    if isinstance(value, str):
        return composed(value)
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of integers in which one is missing is read as floats
    raise DataError(
        f"{where()}: the label is {value!r:.80}, {kind(value)}. It has to be a text or an integer; "
        "numbers to be predicted are no classes."
    )


def one_spelling(labels: Sequence[str], classes: Sequence[str] = ()) -> list[str]:
    """The labels of one column, each number in one spelling.

    Where all labels are numbers, one that is written as a float (`1.0`, `1e0`) becomes the shortest way to write it
    (`1`), or the class of that value. Codes such as `01` stay as they are, and so does a column of class names.
    classes: the names, where they are known."""
    met = set(labels)
    if met <= set(classes) or not all(map(_NUMBER.fullmatch, met)):
        return list(labels)
    called = {_shortest(name): name for name in reversed(classes) if _NUMBER.fullmatch(name)}
    spelled = {name: name if name in classes else called.get(_shortest(name), _shortest(name)) for name in met}
    return [spelled[name] for name in labels]


def _shortest(number: str) -> str:
    """A number that is written as a float in its shortest form; an integer as it is."""
    if not _WRITTEN_AS_FLOAT.search(number) or not math.isfinite(value := float(number)):
        return number
    return str(int(value)) if value.is_integer() else repr(value)


def in_order(names: Iterable[str]) -> list[str]:
    """Class names in an order that depends on nothing but the names: by number when all are integers (`1` after `01`,
    which is another name), else as texts."""
    met = set(names)
    if all(map(is_integer, met)):
        return sorted(met, key=lambda name: (int(name), name))
    return sorted(met)


def is_integer(name: str) -> bool:
    """Whether a label is an integer in digits of any script, with or without a minus."""
    return name.removeprefix("-").isdecimal()


def readings(labels: Iterable[str], classes: Sequence[str]) -> list[Reading]:
    """The ways in which a column can be read, as a whole: all its labels are names of the classes, or all are indices
    into them, 0 to C - 1. Empty: neither. Names come first."""
    met, names = set(labels), set(classes)
    found: list[Reading] = ["names"] if met <= names else []
    if all(name.isdecimal() and int(name) < len(classes) for name in met):
        found.append("indices")
    return found


def outsider(labels: Sequence[str], classes: Sequence[str]) -> int:
    """The position of the label to name in a message when a column has no reading: the first that is neither a name nor
    an index, else the first that is no name."""
    strange = [at for at, name in enumerate(labels) if name not in classes]
    worse = (at for at in strange if not (labels[at].isdecimal() and int(labels[at]) < len(classes)))
    return next(worse, strange[0])


def index_of(label: str, classes: dict[str, int], reading: Reading) -> int:
    """The index of a label. classes: name → index. The label has to fit the reading."""
    return classes[label] if reading == "names" else int(label)


def refuse_lookalikes(counts: Counter[str], where: str, way_out: str) -> None:
    """Raise DataError for two labels that differ in capitals or blanks alone: one class that was spelled twice, or two
    classes that somebody has to name. counts: label → how often; where: of the message; way_out: its advice."""
    first: dict[str, str] = {}
    for name in sorted(counts):
        before = first.setdefault(_folded(name), name)
        if before != name:
            raise DataError(
                f"{where}: the labels '{before:.80}' ({_times(counts[before])}) and '{name:.80}' "
                f"({_times(counts[name])}) differ in capitals or blanks only.\n"
                f"Spell the class in one way. If they are two classes, {way_out}"
            )


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
