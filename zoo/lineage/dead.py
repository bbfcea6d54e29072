"""Which weights of a run no training ever moved: those of inputs that are the same in every training example.

A run's data set is read again for this, and its encoder fitted again; the fingerprint of the training split must be
the one on record.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo import interrupts
from zoo.lineage import exact, rows
from zoo.lineage.groups import model_of, part_of
from zoo.models import Dense, Tokens, TorchModel
from zoo.units import Slots, Units

if TYPE_CHECKING:
    from zoo.data import Split
    from zoo.lineage.evidence import Evidence
    from zoo.lineage.pairing import Pair
    from zoo.models import Encoded, InputSpec

MOST_EXAMPLES = 1000  # whose pre-activations match the units


@dataclass(frozen=True)
class Inputs:
    """What a model saw in training. key: of its encoder; spec: of what it makes; encoded: the training split."""

    key: str
    spec: InputSpec
    encoded: Encoded


@dataclass(frozen=True)
class Axis:
    """The inputs that one axis of a tensor stands for. dead: indices that no training moved; classes: (dead,) one
    number for all that were constant alike; seen: (inputs, examples) float32, what the living inputs were, centred,
    zero for the dead; pre-activations are rows of a weight times this."""

    dead: np.ndarray
    classes: np.ndarray
    seen: np.ndarray


def looking() -> Callable[[Evidence], Evidence]:
    """A function that adds R2 to evidence, or the reason why there is none. What a run saw in training is kept, so that
    a data set is read once for all pairs of a run."""
    read = functools.cache(lambda key: inputs(json.loads(key)))

    def look(found: Evidence) -> Evidence:
        result = _tested(found, lambda record: read(_deciding(record)))
        if isinstance(result, str):
            return replace(found, reasons={**found.reasons, "dead": result})
        return replace(found, dead=result)

    return look


def _deciding(record: Mapping[str, Any]) -> str:
    """The part of a record that decides what a model saw: replicas share it."""
    config = record.get("config") or {}
    kept = {"config": {part: config.get(part) for part in ("model", "dataset")}, "data": record.get("data")}
    return json.dumps(kept, sort_keys=True)


def _tested(found: Evidence, read: Callable[[Mapping[str, Any]], Inputs | str]) -> exact.DeadCoordinates | str:
    pair = found.pair
    records = [model.record for model in (pair.a, pair.b) if model.record is not None]
    if len(records) < 2:
        return "the data of a model that is no run are unknown"
    if any((record.get("config") or {}).get("model_fingerprint") for record in records):
        return "a run that started from a checkpoint has no fresh weights left that could be independent"
    if not found.layout.groups:
        return found.reasons.get("numbering", "no units are known")
    if not any(slots.tensor in pair.names for group in found.layout.groups for slots in group.written):
        return "no weights that compute hidden units are in both, in one shape"
    seen = [read(record) for record in records]
    told = [one for one in seen if isinstance(one, str)]
    if told:
        return told[0]
    one, two = (item for item in seen if isinstance(item, Inputs))
    if one.key != two.key:
        return "the two read their data through different encoders, so that no input of the one is one of the other"
    tests = [_test(pair, group, found.layout.groups, (one, two)) for group in found.layout.groups]
    known = [test for test in tests if test is not None]
    # One group alone reads the inputs in every model of ours; of several, each would be a test of its own.
    return max(known, key=lambda test: test.dead) if known else _NONE


_NONE = f"fewer than {exact.FEWEST_DEAD} inputs that reach weights of their own were the same in all training examples"


def inputs(record: Mapping[str, Any]) -> Inputs | str:
    """What the model of a run saw in training, or why that cannot be told."""
    from zoo.data import load, reach

    try:
        model = model_of(record)
        if not isinstance(model, TorchModel):
            return f"model '{model.name}' trains itself"
        dataset = part_of(record, "dataset")
        reach.require_allowed(dataset, model)
        train = load(dataset).train
        if train.fingerprint != _recorded(record):
            return "the training data are no longer those on record"
        return _encoded(model, train)
    except BaseException as caught:  # files that are gone, or a plugin's code on data that it does not expect
        error = interrupts.not_users(caught)
        return f"the training data cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def _recorded(record: Mapping[str, Any]) -> str | None:
    train = record.get("data", {}).get("splits", {}).get("train", {})
    told = train.get("fingerprint")
    return told if isinstance(told, str) else None


def _encoded(model: TorchModel, train: Split) -> Inputs:
    encoder = model.encoder(train)
    return Inputs(encoder.key, encoder.spec, encoder.encode(train.examples))


def _test(
    pair: Pair, group: Units, groups: Sequence[Units], seen: tuple[Inputs, Inputs]
) -> exact.DeadCoordinates | None:
    """R2 on the weights through which a group reads the inputs; None when they hold no dead ones."""
    for slots in group.written:
        if slots.tensor not in pair.names or rows.inputs_of(slots, groups) or len(pair.a.shapes[slots.tensor]) != 2:
            continue
        one, two = (axis(item, pair.a.shapes[slots.tensor][1 - slots.axis]) for item in seen)
        if one is None or two is None:
            continue
        dead, at_one, at_two = np.intersect1d(one.dead, two.dead, return_indices=True)
        if len(dead) < exact.FEWEST_DEAD:
            continue
        a, b = (_by_unit(load(slots.tensor), slots, group) for load in (pair.load_a, pair.load_b))
        if not (np.isfinite(a).all() and np.isfinite(b).all()) or not (a[:, dead].any() and b[:, dead].any()):
            continue
        # Matched on what the living inputs made of the units, so that the dead weights have no say in it.
        with np.errstate(over="ignore", invalid="ignore"):
            views = _centred(a @ one.seen), _centred(b @ two.seen[:, : one.seen.shape[1]])
        if not all(np.isfinite(view).all() for view in views):
            continue
        order, _ = exact.match(*views)
        classes = _joint(one.classes[at_one], two.classes[at_two])
        return exact.dead_coordinates(a[:, dead], b[order][:, dead], classes)
    return None


def _by_unit(tensor: np.ndarray, slots: Slots, group: Units) -> np.ndarray:
    return np.moveaxis(tensor, slots.axis, 0)[slots.start : slots.start + group.count]


def _centred(values: np.ndarray) -> np.ndarray:
    return np.asarray(values - values.mean(axis=1, keepdims=True))


def _joint(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Classes of coordinates that were constant alike in both."""
    return np.asarray(np.unique(np.stack([one, two]), axis=1, return_inverse=True)[1]).reshape(-1)


def axis(seen: Inputs, size: int) -> Axis | None:
    """What an axis of so many places stands for: the values of dense inputs, the vocabulary, or the positions; None
    when it is none of these."""
    if isinstance(seen.encoded, Dense):
        return _dense(seen, seen.encoded) if size == int(np.prod(seen.spec.shape)) else None
    if size == seen.spec.vocab_size:
        return _vocabulary(seen, seen.encoded, size)
    return _positions(seen.encoded, size) if size == seen.spec.shape[0] else None


def _dense(seen: Inputs, encoded: Dense) -> Axis:
    values = encoded.values.reshape(len(encoded), -1)
    constant = (values == values[0]).all(axis=0)
    dead = np.flatnonzero(constant)
    some: np.ndarray = values[:MOST_EXAMPLES].astype(np.float32)
    channels = np.arange(values.shape[1]) // int(np.prod(seen.spec.shape[1:]))
    if seen.spec.mean is not None and seen.spec.std is not None:
        mean, std = (np.array(numbers, dtype=np.float32)[channels] for numbers in (seen.spec.mean, seen.spec.std))
        some = (some / 255 - mean) / std
        alike = np.stack([values[0, dead].astype(np.float64), channels[dead]])
    else:
        alike = np.stack([values[0, dead].astype(np.float64), np.zeros(len(dead))])
    classes = np.unique(alike, axis=1, return_inverse=True)[1].reshape(-1)
    living = some - some.mean(axis=0)
    living[:, dead] = 0
    return Axis(dead, classes, np.ascontiguousarray(living.T))


def _vocabulary(seen: Inputs, encoded: Tokens, size: int) -> Axis:
    counts = np.bincount(encoded.ids, minlength=size)
    # The padding id is never an input, but may have been set apart when the weights were drawn.
    dead = np.setdiff1d(np.flatnonzero(counts == 0), [seen.spec.pad_id])
    return _looked_up(dead, counts)


def _positions(encoded: Tokens, size: int) -> Axis:
    lengths = np.diff(encoded.offsets)
    counts = (lengths[:, None] > np.arange(size)).sum(axis=0)
    return _looked_up(np.flatnonzero(counts == 0), counts)


def _looked_up(dead: np.ndarray, counts: np.ndarray) -> Axis:
    """One row at a time is looked up: as an input it is a one for the tokens of that row, so often as they occurred."""
    common = np.argsort(-counts, kind="stable")[:MOST_EXAMPLES]
    seen = np.zeros((len(counts), len(common)), dtype=np.float32)
    seen[common, np.arange(len(common))] = np.sqrt(counts[common])
    return Axis(dead, np.zeros(len(dead), dtype=np.int64), seen)
