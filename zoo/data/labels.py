"""How the labels of a column become classes: one spelling for each, and names or indices, decided once for a column."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from zoo.errors import DataError

Reading = Literal["names", "indices"]

_WHOLE = re.compile(r"(-?\d+)(\.0+)?", re.ASCII)
"""An integer, perhaps as a float is written: a column of integers in which one was missing is read as floats."""


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
    """The labels of one column, each class in one spelling.

    Where classes are known, capitals and blanks do not matter as long as one class alone can be meant. Integers that
    are written as floats (`1.0`) become integers (`1`), or the class of that value, also with words among them; unless
    a label has another fraction: `3.1` and `3.10` may be versions, and so may `1.0` beside them. `01` may be a code.
    classes: the names, where they are known."""
    called = {name: meant(name, classes) for name in set(labels)}
    labels = [called[name] for name in labels]
    met = set(labels)
    if met <= set(classes) or any(_FRACTION.search(name) and not _WHOLE.fullmatch(name) for name in met):
        return list(labels)
    numbers = {_integer(name): name for name in reversed(classes) if _WHOLE.fullmatch(name)}
    spelled = {name: name if name in classes else numbers.get(_integer(name), _integer(name)) for name in met}
    return [spelled[name] for name in labels]


def merged(written: Sequence[str], spelled: Sequence[str]) -> list[str]:
    """What was read as one class, in a line; empty where no class has two spellings. written, spelled: the labels
    before and after `one_spelling`."""
    together: dict[str, Counter[str]] = {}
    for (before, after), count in Counter(zip(written, spelled, strict=True)).items():
        together.setdefault(after, Counter())[before] = count
    told = [" and ".join(_counted(found)) for found in together.values() if len(found) > 1]
    return [f"Read as one class: {_some(told, '; ')}."] if told else []


def mixed(labels: Iterable[str]) -> list[str]:
    """A warning, in a line, of labels of which some are numbers and some are words, so that either may be a slip;
    empty for others."""
    counts = Counter(labels)
    numbers = Counter({name: count for name, count in counts.items() if _NUMBER.fullmatch(name)})
    words = counts - numbers
    if not numbers or not words:
        return []
    return [
        f"Warning: some labels are numbers, {_some(_counted(numbers))}, and some are words, {_some(_counted(words))}: "
        "each is a class of its own."
    ]


_FRACTION = re.compile(r"\d[.,]\d")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
_SHOWN = 4


def _counted(counts: Counter[str]) -> list[str]:
    return [f"'{name:.40}' ({_times(count)})" for name, count in counts.most_common()]


def _some(parts: Sequence[str], mark: str = ", ") -> str:
    """The first of them, and how many more there are."""
    more = [f"{len(parts) - _SHOWN:,} more"] if len(parts) > _SHOWN else []
    return mark.join([*parts[:_SHOWN], *more])


def _integer(name: str) -> str:
    """An integer without the `.0` of a float; its digits as they are."""
    whole = _WHOLE.fullmatch(name)
    return name if whole is None else whole[1]


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
        before = first.setdefault(folded(name), name)
        if before != name:
            raise DataError(
                f"{where}: the labels '{before:.80}' ({_times(counts[before])}) and '{name:.80}' "
                f"({_times(counts[name])}) differ in capitals or blanks only.\n"
                f"Spell the class in one way. If they are two classes, {way_out}"
            )


def folded(name: str) -> str:
    """A name as it is compared where capitals and blanks do not matter."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def meant(name: str, classes: Sequence[str]) -> str:
    """The class that a name can only mean: itself, or the one class that differs in capitals or blanks alone."""
    if name in classes or not classes:
        return name
    alike = [known for known in classes if folded(known) == folded(name)]
    return alike[0] if len(alike) == 1 else name


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
