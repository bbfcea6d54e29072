"""Whether what a run predicts and the labels are two ways to name the same classes: by how many answers would be right.

A name that is no label is no evidence: a class may be absent from the test examples, and a weak model may know nothing
of those that are there."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)

_SHIFTS = {
    0: "be written with other zeros or signs than",
    1: "count from one higher than",
    -1: "count from one lower than",
}
"""What the predictions do where they are the labels plus so much."""

_TIMES = 4
"""So many times as many answers as are right as written, and one, have to be right the other way. A weak model that is
often beside the label, and right one time in four, is read; a shifted one that is right in 7 of 10, of two classes, is
found."""

_ROWS_A_LABEL = 4
"""With fewer answers to each label, that each goes with a prediction of its own may be chance."""


@dataclass(frozen=True)
class Suspicion:
    """text: a sentence that follows "the predictions of …" and what differs; certain: whether it is to be refused, and
    not only warned of."""

    text: str
    certain: bool


def suspicion(pairs: Sequence[tuple[str, str]], labels: Set[str], known: Set[str]) -> Suspicion | None:
    """What one run's predictions may be instead of labels; None where nothing speaks for it.

    pairs: (label, prediction) of each answer. labels: all that occur. known: these, and what runs predict that use
    them."""
    told = {said for _, said in pairs}
    if told <= labels:
        return None
    found = _numbered(pairs, labels) or _renamed(pairs, known)
    if found is None:
        return None
    differs = [
        f"{_listed(names)} only in the {where}"
        for names, where in ((told - labels, "predictions"), ({label for label, _ in pairs} - told, "labels"))
        if names
    ]
    return Suspicion(f"{'seem to' if found.certain else 'may'} {found.text} ({'; '.join(differs)}).", found.certain)


def _numbered(pairs: Sequence[tuple[str, str]], labels: Set[str]) -> Suspicion | None:
    """Integers that are shifted by one, or spelled otherwise."""
    if not all(_INTEGER.fullmatch(name) for pair in pairs for name in pair):
        return None
    written = sum(label == said for label, said in pairs)
    numbers = [(int(label), int(said)) for label, said in pairs]
    asked, told = (set(column) for column in zip(*numbers, strict=True))
    right = {
        by: 0 if end in told else sum(said == label + by for label, said in numbers)
        for by, end in ((1, min(asked)), (-1, max(asked)))  # a shift takes one end of the classes away
    }
    # Of names that are equal as numbers only those count that are no label: `1` beside the label `01` may be another.
    right[0] = sum(int(said) == int(label) for label, said in pairs if said not in labels)
    by = max(right, key=right.__getitem__)
    against = written if by else 0
    if right[by] <= against:
        return None
    total = right[by] if by else right[by] + written
    text = f"{_SHIFTS[by]} the labels: {total:,} of {len(pairs):,} answers are right that way, {written:,} as written"
    # A model that always says one thing that is no label is right by a shift, too, but on one label only.
    covered = {label for label, said in numbers if said == label + by}
    return Suspicion(text, right[by] >= _TIMES * (against + 1) and (by == 0 or len(covered) > 1))


def _renamed(pairs: Sequence[tuple[str, str]], known: Set[str]) -> Suspicion | None:
    """Several names of which none is known: certain where most answers to each label are a name of its own."""
    told = {said for _, said in pairs}
    if len(told) < 2 or told & known:
        return None
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, said in pairs:
        answers[label][said] += 1
    most = [counts.most_common(1)[0] for counts in answers.values()]
    apart = len(most) > 1 and len({said for said, _ in most}) == len(most)
    explained = sum(count for _, count in most)
    certain = apart and len(pairs) >= _ROWS_A_LABEL * len(most) and 3 * explained >= 2 * len(pairs)
    text = "be other names of the same classes: none is a label"
    text += f", and {explained:,} of {len(pairs):,} go with one label each" if certain else ""
    return Suspicion(text, certain)


def _listed(names: Iterable[str]) -> str:
    """The first names, in the order of numbers where all are integers."""
    met = set(names)
    integers = all(map(_INTEGER.fullmatch, met))
    ordered = sorted(met, key=lambda name: (int(name) if integers else 0, name))
    return ", ".join(f"{name:.40}" for name in ordered[:8]) + (" …" if len(met) > 8 else "")
