"""From what a dataset read to checked, hashed and deduplicated splits, and how one body of examples is cut in three."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from zoo import guard
from zoo.data import Data, Dataset, Labelled, Split, SplitName, Splits
from zoo.data.labels import kind
from zoo.errors import DataError, PluginError, did_you_mean
from zoo.models import Modality

if TYPE_CHECKING:
    Examples = Sequence[str] | np.ndarray

DIGITS = 16
"""Hexadecimal digits of a content hash: 64 bits, so that a collision among a million examples has odds of 1 in 10⁷."""

CARVED = 0.1
"""The part of the training split that becomes validation when none is given."""

_ADJECTIVES: Mapping[SplitName, str] = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Cut:
    """How large validation and test are: an int is a number of examples, a float in [0, 1) a fraction of all.

    `seed` picks which examples go where; the same seed gives the same cut on every machine.
    """

    validation: float
    test: float
    seed: int = 0


@dataclass(frozen=True)
class _Part:
    """One split on its way: checked examples, labels (n,) int64 and content hashes that may still repeat."""

    dataset: str
    name: SplitName
    modality: Modality
    classes: tuple[str, ...]
    examples: Examples
    labels: np.ndarray
    origins: Sequence[str]
    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)


def _read(dataset: Dataset) -> Data:
    """What the dataset gives. An error that it did not foresee names it."""
    with guard.blamed(f"Dataset '{dataset.name}' failed in read"):
        return dataset.read()


def prepare(dataset: Dataset) -> Splits:
    """Read, check, hash and deduplicate a dataset; see `zoo.load`, which is this function's public name."""
    modality = _modality(dataset)
    data = _read(dataset)
    if not isinstance(data, Data):
        raise PluginError(
            f"Dataset '{dataset.name}': read() returned {kind(data)}. It has to return zoo.Data(classes, train, test)."
        )
    classes = _classes(dataset.name, data.classes)
    given: dict[SplitName, Labelled | None] = {"train": data.train, "validation": data.validation, "test": data.test}
    parts = {
        name: _checked(_Part(dataset.name, name, modality, classes, (), np.empty(0, np.int64), (), []), labelled)
        for name, labelled in given.items()
        if labelled is not None
    }
    _check_one_shape(list(parts.values()))
    notes: list[str] = [*data.notes, *_contradictions(list(parts.values()))]
    dropped: dict[str, int] = {"train": 0, "validation": 0}
    for name, others in (("validation", ("test",)), ("train", ("validation", "test"))):
        if name in parts:
            parts[name], dropped[name] = _without(parts[name], [parts[other] for other in others if other in parts])
            notes.extend(_drop_note(name, [other for other in others if other in parts], dropped[name]))
    if "validation" not in parts:
        _check_complete(parts["train"], dropped["train"])
        parts["train"], parts["validation"] = _carve(parts["train"])
        notes.append(f"No validation split was given: {len(parts['validation'])} training examples serve as one.")
    for name, part in parts.items():
        _check_complete(part, dropped.get(name, 0))
    notes.extend(_repetitions(parts))
    splits = {name: _split(part) for name, part in parts.items()}
    return Splits(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        fingerprint=_hash(json.dumps([classes, *(splits[name].fingerprint for name in given)]).encode()),
        notes=tuple(notes),
        dropped=dropped,
    )


def content_ids(examples: Examples) -> list[str]:
    """One hash an example: 16 hexadecimal digits of sha256, equal exactly when the content is.

    A text counts by its UTF-8 bytes, an image by its shape and bytes. Raises UnicodeEncodeError for half a surrogate
    pair, whose `object` is the text.
    """
    sha256 = hashlib.sha256
    if isinstance(examples, np.ndarray) and examples.dtype.kind not in "UO":
        shape = repr(examples.shape[1:]).encode()
        return [sha256(shape + image.tobytes()).hexdigest()[:DIGITS] for image in examples]
    return [sha256(text.encode()).hexdigest()[:DIGITS] for text in examples]


def distinct(labelled: Labelled) -> Labelled:
    """Each content once, where it stands first; a content that stands under two labels is left out altogether."""
    first: dict[str, int] = {}
    contradicted: set[str] = set()
    for index, content in enumerate(content_ids(labelled.examples)):
        if labelled.labels[first.setdefault(content, index)] != labelled.labels[index]:
            contradicted.add(content)
    return take(labelled, [index for content, index in first.items() if content not in contradicted])


def take(labelled: Labelled, indices: Sequence[int]) -> Labelled:
    """The examples at `indices`, in that order, with labels and origins."""
    labels = labelled.labels
    return Labelled(
        examples=_pick(labelled.examples, indices),
        labels=labels[list(indices)] if isinstance(labels, np.ndarray) else [labels[i] for i in indices],
        origins=[labelled.origins[i] for i in indices] if labelled.origins else (),
    )


def split_three(labelled: Labelled, cut: Cut) -> tuple[Labelled, Labelled, Labelled]:
    """Train, validation and test of one body of examples: stratified by class, exact duplicates kept together.

    Which split an example falls in, and its place there, depend only on its content, on what else is there and on the
    seed, not on the order of the file. Sizes are met exactly when no content repeats and every class has an example
    for each split; the examples of each split come in a mixed order.
    """
    ids = content_ids(labelled.examples)
    places = assign(ids, np.asarray(labelled.labels), cut)
    order = sorted(range(len(ids)), key=lambda i: (_rank(cut.seed, ids[i]), i))
    train, validation, test = ([i for i in order if places[i] == place] for place in range(3))
    return take(labelled, train), take(labelled, validation), take(labelled, test)


def assign(ids: Sequence[str], labels: np.ndarray, cut: Cut) -> np.ndarray:
    """The place of each example, (n,) int8: 0 train, 1 validation, 2 test.

    ids: content hashes, equal ones get one place. labels: (n,) integers. Stratified: each class is cut in the same
    proportion, and each part that is wanted gets at least one content of each class as long as there are enough.
    """
    groups: dict[str, list[int]] = {}
    for index, content in enumerate(ids):
        groups.setdefault(content, []).append(index)
    strata: dict[int, list[list[int]]] = {}
    for content in sorted(groups, key=lambda content: _rank(cut.seed, content)):
        # The smallest label of a contradicted content, because the first would depend on the order of the file.
        strata.setdefault(min(int(labels[i]) for i in groups[content]), []).append(groups[content])
    sizes = {label: sum(map(len, members)) for label, members in strata.items()}
    tests, validations = _quotas(sizes, cut.test), _quotas(sizes, cut.validation)
    places = np.zeros(len(ids), dtype=np.int8)
    for label, members in strata.items():
        spare = 2 if validations[label] else 1
        chosen, rest = _fill(members, tests[label], spare)
        places[[i for group in chosen for i in group]] = 2
        chosen, _ = _fill(rest, validations[label], 1)
        places[[i for group in chosen for i in group]] = 1
    return places


def _quotas(sizes: Mapping[int, int], part: float) -> dict[int, int]:
    """How many examples of each class a part gets, by largest remainder; at least one when any are wanted."""
    total = sum(sizes.values())
    if not part:
        return dict.fromkeys(sizes, 0)
    wanted = part if isinstance(part, int) else max(1, round(part * total))
    shares = {label: wanted * size / total for label, size in sizes.items()}
    quotas = {label: int(share) for label, share in shares.items()}
    by_remainder = sorted(shares, key=lambda label: (quotas[label] - shares[label], label))
    for label in by_remainder[: wanted - sum(quotas.values())]:
        quotas[label] += 1
    return {label: max(1, quota) for label, quota in quotas.items()}


def _fill(groups: list[list[int]], quota: int, spare: int) -> tuple[list[list[int]], list[list[int]]]:
    """Take groups of duplicates up to `quota` examples, but leave `spare` groups. Returns (taken, left)."""
    if not quota or len(groups) <= spare:
        return [], groups
    taken: list[list[int]] = []
    left: list[list[int]] = []
    size = 0
    for group in groups:
        fits = size + len(group) <= quota and len(groups) - len(taken) > spare
        (taken if fits else left).append(group)
        size += len(group) if fits else 0
    if not taken:
        smallest = min(range(len(groups)), key=lambda i: len(groups[i]))
        return [groups[smallest]], groups[:smallest] + groups[smallest + 1 :]
    return taken, left


def _rank(seed: int, content: str) -> bytes:
    return hashlib.sha256(f"{seed}:{content}".encode()).digest()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _modality(dataset: Dataset) -> Modality:
    modality = getattr(dataset, "modality", None)
    if modality not in get_args(Modality):
        raise PluginError(
            f"Dataset '{dataset.name}': its modality is {modality!r}.{did_you_mean(str(modality), get_args(Modality))} "
            f"Known: {', '.join(get_args(Modality))}."
        )
    return cast(Modality, modality)


def _classes(dataset: str, classes: Sequence[str]) -> tuple[str, ...]:
    for name in classes:
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"Dataset '{dataset}': the class name {name!r} is not a text. Class names are texts.")
    repeated = [name for name, count in Counter(classes).items() if count > 1]
    if repeated:
        raise DataError(f"Dataset '{dataset}': the class name '{repeated[0]}' stands twice among {_listed(classes)}.")
    if len(classes) < 2:
        raise DataError(
            f"Dataset '{dataset}' has {len(classes)} class(es): {_listed(classes) or 'none'}. "
            "A classification needs two or more."
        )
    return tuple(classes)


def _checked(part: _Part, labelled: Labelled) -> _Part:
    """`part` filled with the examples of `labelled`, after every check that looks at one split alone."""
    if not isinstance(labelled, Labelled):
        raise PluginError(
            f"Dataset '{part.dataset}': its {part.name} split is {kind(labelled)}. It has to be zoo.Labelled."
        )
    counts = {"examples": len(labelled.examples), "labels": len(labelled.labels)}
    if len(labelled.origins):
        counts["origins"] = len(labelled.origins)
    if len(set(counts.values())) > 1:
        raise DataError(
            f"Dataset '{part.dataset}', {part.name} split: "
            f"{' and '.join(f'{count} {what}' for what, count in counts.items())}. "
            "There has to be one for each example."
        )
    if not counts["examples"]:
        raise DataError(f"Dataset '{part.dataset}': the {part.name} split is empty.")
    part = replace(part, examples=labelled.examples, origins=labelled.origins)
    part = replace(part, labels=_labels(part, labelled.labels))
    if part.modality == "image":
        _check_images(part)
        return replace(part, ids=content_ids(part.examples))
    part = replace(part, examples=_texts(part))
    try:
        return replace(part, ids=content_ids(part.examples))
    except UnicodeEncodeError as error:
        raise DataError(
            f"{_at(part, list(part.examples).index(error.object))}: the text is not valid Unicode "
            f"({error.object[error.start : error.end]!r} at character {error.start}). "
            "Read the file in its own encoding."
        ) from None


def _at(part: _Part, index: int) -> str:
    """Where an example stands, for the head of a message."""
    origin = f" ({part.origins[index]})" if len(part.origins) else ""
    return f"Dataset '{part.dataset}', {part.name} split, example {index + 1}{origin}"


def _labels(part: _Part, labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """(n,) int64 in [0, classes). Bools count as 0 and 1."""
    try:
        array = np.asarray(labels)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.ndim != 1 or array.dtype.kind not in "iub" or array.dtype.itemsize > 8:
        for index, label in enumerate(labels):
            if not isinstance(label, (int, np.integer, np.bool_)):
                raise DataError(
                    f"{_at(part, index)}: the label {_shown(label)} is {kind(label)}. "
                    f"It has to be an int from 0 to {len(part.classes) - 1}, an index into the classes."
                )
        array = np.asarray([int(label) for label in labels], dtype=object)
    outside = np.flatnonzero((array < 0) | (array >= len(part.classes)))
    if len(outside):
        raise DataError(
            f"{_at(part, int(outside[0]))}: the label {array[outside[0]]} is outside the classes.\n"
            f"With the {len(part.classes)} classes {_listed(part.classes)} it has to be from 0 to "
            f"{len(part.classes) - 1}. Examples with such a label: {len(outside)}."
        )
    return array.astype(np.int64)


def _texts(part: _Part) -> list[str]:
    if isinstance(part.examples, str):
        raise PluginError(
            f"Dataset '{part.dataset}', {part.name} split: its examples are one text, not a list of texts."
        )
    texts: list[str] = []
    for index, text in enumerate(part.examples):
        if not isinstance(text, str):
            raise DataError(f"{_at(part, index)} is {_shown(text)}, {kind(text)}. It has to be a text.")
        if not text or text.isspace():
            raise DataError(f"{_at(part, index)}: the text is empty ({text!r}). Leave such examples out of the data.")
        texts.append(str(text))
    return texts


def _check_images(part: _Part) -> None:
    images: Any = part.examples
    where = f"Dataset '{part.dataset}', {part.name} split"
    wanted = "Images have to be one array (n, height, width, channels) of uint8, 0 to 255, with 1 or 3 channels."
    if not isinstance(images, np.ndarray):
        raise DataError(f"{where}: the images come as {kind(images)}.\n{wanted}")
    if images.dtype != np.uint8:
        raise DataError(
            f"{where}: the images are {images.dtype}, from {images.min()} to {images.max()}.\n{wanted}"
            if images.dtype.kind in "iufb"
            else f"{where}: the images are {images.dtype}.\n{wanted}"
        )
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        mend = ""
        if images.ndim == 3:
            mend = " For grey images add the last axis: images[..., None]."
        elif images.ndim == 4 and images.shape[1] in (1, 3):
            mend = " The channels come last: images.transpose(0, 2, 3, 1)."
        raise DataError(f"{where}: the images have the shape {images.shape}.\n{wanted}{mend}")


def _check_one_shape(parts: list[_Part]) -> None:
    if parts[0].modality != "image":
        return
    shapes = {part.name: cast(np.ndarray, part.examples).shape[1:] for part in parts}
    if len(set(shapes.values())) > 1:
        raise DataError(
            f"Dataset '{parts[0].dataset}': the splits hold images of different shapes "
            f"({', '.join(f'{name} {shape}' for name, shape in shapes.items())}). They have to be the same."
        )


def _check_complete(part: _Part, dropped: int) -> None:
    """Every class has an example, also after duplicates have been dropped."""
    counts = np.bincount(part.labels, minlength=len(part.classes))
    missing = [name for name, count in zip(part.classes, counts, strict=True) if not count]
    if missing:
        why = f", after {dropped} duplicates of other splits were dropped" if dropped else ""
        left = len(part.classes) - len(missing)
        leave = ", leave the class out of all splits" if left > 1 else ""
        raise DataError(
            f"Dataset '{part.dataset}': the {part.name} split ({len(part)} examples{why}) has no example of "
            f"{_listed(missing)}.\nEvery split needs every class ({_listed(part.classes)}). "
            f"Add examples of it{leave}, or give all examples\nas one, without splits: it is cut so that each split "
            "has some of every class."
        )


def _pick(examples: Examples, indices: Sequence[int]) -> Examples:
    return examples[list(indices)] if isinstance(examples, np.ndarray) else [examples[i] for i in indices]


def _subset(part: _Part, indices: Sequence[int]) -> _Part:
    return replace(
        part,
        examples=_pick(part.examples, indices),
        labels=part.labels[list(indices)],
        origins=[part.origins[i] for i in indices] if len(part.origins) else (),
        ids=[part.ids[i] for i in indices],
    )


def _without(part: _Part, others: list[_Part]) -> tuple[_Part, int]:
    """`part` without the contents of `others`, and how many examples that were."""
    taken = {content for other in others for content in other.ids}
    kept = [index for index, content in enumerate(part.ids) if content not in taken]
    return (part, 0) if len(kept) == len(part) else (_subset(part, kept), len(part) - len(kept))


def _drop_note(name: SplitName, others: list[SplitName], count: int) -> list[str]:
    if not count:
        return []
    were, stand = ("example was", "it also stands") if count == 1 else ("examples were", "they also stand")
    return [f"{count} {_ADJECTIVES[name]} {were} dropped: {stand} in {' or '.join(others)}."]


def _contradictions(parts: Sequence[_Part]) -> list[str]:
    """A note of how many contents stand under more than one label, and how many examples these are."""
    labels: dict[str, set[int]] = {}
    for part in parts:
        for content, label in zip(part.ids, part.labels.tolist(), strict=True):
            labels.setdefault(content, set()).add(label)
    contradicted = {content for content, several in labels.items() if len(several) > 1}
    if not contradicted:
        return []
    count = sum(content in contradicted for part in parts for content in part.ids)
    what, total = parts[0].modality, sum(map(len, parts))
    stand = f"{what} stands" if len(contradicted) == 1 else f"{what}s stand"
    return [f"{len(contradicted):,} {stand} under more than one label: {count:,} of the {total:,} examples."]


def _repetitions(parts: Mapping[SplitName, _Part]) -> list[str]:
    """A note of how many examples of each split are exact duplicates of others of the same split."""
    repeated = {name: len(part) - len(set(part.ids)) for name, part in parts.items()}
    told = [f"{count:,} of {len(parts[name]):,} in {name}" for name, count in repeated.items() if count]
    if not told:
        return []
    warning = " Intervals take every test example as independent." if repeated["test"] else ""
    return [f"Exact duplicates of others in their split: {', '.join(told)}.{warning}"]


def _carve(train: _Part) -> tuple[_Part, _Part]:
    """Training and validation out of a training split, each in the order it was given."""
    for label, name in enumerate(train.classes):
        contents = {content for content, own in zip(train.ids, train.labels, strict=True) if own == label}
        if len(contents) < 2:
            raise DataError(
                f"Dataset '{train.dataset}': the train split has {len(contents)} distinct example of the class "
                f"'{name}'.\nNo validation split is given, so a tenth of train has to serve: that takes two or more."
            )
    places = assign(train.ids, train.labels, Cut(validation=CARVED, test=0))
    train_indices, indices = (np.flatnonzero(places == place).tolist() for place in (0, 1))
    return _subset(train, train_indices), replace(_subset(train, indices), name="validation")


def _split(part: _Part) -> Split:
    ids = _unique(part.ids)
    examples = part.examples
    if isinstance(examples, np.ndarray):
        examples = np.ascontiguousarray(examples)
    content = "\n".join(ids).encode() + part.labels.astype("<i8").tobytes()
    return Split(part.name, part.modality, part.classes, examples, part.labels, tuple(ids), _hash(content))


def _unique(ids: list[str]) -> list[str]:
    """The same hashes, a repeat with "-1", "-2" … behind it."""
    seen: Counter[str] = Counter()
    unique = []
    for content in ids:
        unique.append(f"{content}-{seen[content]}" if seen[content] else content)
        seen[content] += 1
    return unique


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
