"""Which units of a stored model may be renumbered: as its plugin declares, or as far as names and shapes tell."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from zoo import interrupts
from zoo.errors import ZooError
from zoo.models import TorchModel
from zoo.units import Shapes, Slots, Units, transformer_units

if TYPE_CHECKING:
    from zoo.lineage.weights import Weights

MOST_IN_A_CHAIN = 24
"""Layers that are put in order by their widths alone; with more, too many orders would fit."""

MOST_GROUPS = 1024
MOST_UNITS = 2**18
"""Groups of a model, and units of a group, that are compared: more than any model has, and the work stays bounded."""

MOST_TRIED = 20_000
"""Beginnings of an order that are tried: many layers of one width have more than can be."""

Origin = Literal["declared", "names", "shapes", "none"]


@dataclass(frozen=True)
class Layout:
    """The groups of one model, each after those whose units it reads.

    origin: whether its plugin declared them, or the tensors' names or shapes told them; reasons: what is unknown.
    """

    groups: tuple[Units, ...]
    origin: Origin
    reasons: tuple[str, ...] = ()

    @property
    def independent(self) -> bool:
        """Whether each group is known to have a numbering of its own, so that p-values multiply (Fisher)."""
        return self.origin in ("declared", "names")


@functools.lru_cache(maxsize=1024)
def layout(weights: Weights) -> Layout:
    """The groups of a model, found once. Nothing is raised: what cannot be told is a reason of the layout."""
    reasons: list[str] = []
    if weights.record is not None:
        declared, reason = _declared(weights)
        if declared:
            return Layout(declared, "declared")
        reasons += [reason] if reason else []
    heads = (weights.config or {}).get("num_attention_heads") or (weights.config or {}).get("n_heads")
    heads = heads if type(heads) is int and heads > 0 else None
    if groups := _fitting(transformer_units(weights.shapes, heads), weights.shapes, reasons):
        if not heads:
            reasons.append("the number of attention heads is unknown (no config.json), so heads are not compared")
        return Layout(groups, "names", tuple(reasons))
    chain = chain_units(weights.shapes)
    if isinstance(chain, str):
        return Layout((), "none", (*reasons, chain))
    found = _fitting(chain, weights.shapes, reasons)
    return Layout(found, "shapes" if found else "none", tuple(reasons))


def _fitting(groups: tuple[Units, ...], shapes: Shapes, reasons: list[str]) -> tuple[Units, ...]:
    """The groups, or none and one more reason when they do not fit the tensors."""
    if problem := problem_of(groups, shapes):
        reasons.append(f"the units that names and shapes tell do not fit: {problem}")
        return ()
    return groups


def _declared(weights: Weights) -> tuple[tuple[Units, ...], str]:
    """What the run's plugin declares, or why it declares nothing that can be used."""
    from zoo.data.reach import without_download

    try:
        model = without_download(model_of(weights.record or {}))
    except ZooError as error:
        return (), str(error).splitlines()[0]
    if not isinstance(model, TorchModel):
        return (), f"model '{model.name}' trains itself and says nothing of its units"
    try:
        groups = tuple(model.units(weights.shapes))
        problem = problem_of(groups, weights.shapes)
    except BaseException as caught:  # a plugin's code, on tensors that it may not expect
        fault = interrupts.not_users(caught)
        return (), f"model '{model.name}' cannot tell its units: {type(fault).__name__}: {fault}"
    return ((), f"the units that model '{model.name}' declares do not fit: {problem}") if problem else (groups, "")


def model_of(record: Mapping[str, Any]) -> Any:
    """The model of a run with its options, from `run.json`. Raises as `part_of`."""
    return part_of(record, "model")


def part_of(record: Mapping[str, Any], kind: str) -> Any:
    """The model, dataset or task of a run with its options, from `run.json`. Raises UnknownName when no plugin brings
    it, and ConfigError when the options are not those of the installed plugin."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from zoo.config import schema
    from zoo.errors import ConfigError
    from zoo.options import fields_of
    from zoo.plugins import find

    told = (record.get("config") or {}).get(kind) or {}
    entry = find(kind, str(told.get("name")))
    try:
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema(entry)), dict(told)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"The installed {entry.distribution} cannot read the run's options: {error}") from error
    values = {item.name: getattr(options, item.name) for item in fields_of(entry.cls)}
    try:
        return entry.cls(**values)
    except ZooError:
        raise
    except BaseException as caught:  # a plugin's code, on options that a reference may have made anything
        fault = interrupts.not_users(caught)
        raise ConfigError(f"The installed {entry.distribution} cannot take the run's options: {fault}") from fault


def problem_of(groups: Sequence[Units], shapes: Shapes) -> str:
    """Why groups do not fit the tensors; empty when they do."""
    if len(groups) > MOST_GROUPS:
        return f"there are {len(groups)} groups of them, and more than {MOST_GROUPS} are not compared"
    taken: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for group in groups:
        if group.count > MOST_UNITS:
            return f"group '{group.name}' has {group.count} units, and more than {MOST_UNITS} are not compared"
        for slots in (*group.written, *group.read):
            shape = shapes.get(slots.tensor, ())
            end = slots.start + group.count * slots.block
            if slots.tensor not in shapes:
                return f"group '{group.name}' names {slots.tensor}, which is not stored"
            if not 0 <= slots.axis < len(shape) or slots.start < 0 or end > shape[slots.axis]:
                return f"group '{group.name}' wants {end} places on axis {slots.axis} of {slots.tensor}, {shape}"
            taken[slots.tensor, slots.axis].append((slots.start, end))
    for (tensor, axis), spans in taken.items():
        for (_, end), (start, _) in pairwise(sorted(spans)):
            if start < end:
                return f"place {start} on axis {axis} of {tensor} belongs to two groups"
    return ""


def chain_units(shapes: Shapes) -> tuple[Units, ...] | str:
    """The groups of layers that follow one another, found by widths: what one puts out, the next takes in. shapes: of
    every tensor by its name. Returns the groups, or why there is no such chain or more than one."""
    layers = {name: shape for name, shape in shapes.items() if len(shape) in (2, 3, 4, 5)}
    if len(layers) < 2:
        return "its tensors form no chain of layers" if layers else "it holds no tensor of two dimensions"
    if len(layers) > MOST_IN_A_CHAIN:
        return f"it has {len(layers)} layers, too many to tell their order by widths; its plugin may declare its units"
    chains = _chains({name: _layer(name, shape) for name, shape in layers.items()})
    if chains is None:
        return "its layers can be put in too many orders by their widths; its plugin may declare its units"
    if not chains:
        return "its layers form no single chain by their widths; its plugin may declare its units"
    if len(chains) > 1:
        return "its layers can be put in more than one order by their widths; its plugin may declare its units"
    chain = chains[0]
    if _follows(_layer(chain[-1], layers[chain[-1]]), _layer(chain[0], layers[chain[0]])):
        return (
            "its layers can be put in more than one order by their widths, as the first takes what the last gives; "
            "its plugin may declare its units"
        )
    return tuple(_link(shapes, name, reader) for name, reader in pairwise(chain))


@dataclass(frozen=True)
class _Layer:
    """takes: 0 for a table, whose rows are looked up; mapped: whether it puts out a map, which may be flattened."""

    takes: int
    gives: int
    mapped: bool


def _layer(name: str, shape: tuple[int, ...]) -> _Layer:
    if _is_table(name, shape):
        return _Layer(0, shape[1], False)
    return _Layer(shape[1], shape[0], len(shape) > 2)


def _is_table(name: str, shape: tuple[int, ...]) -> bool:
    told = any(word in name.lower() for word in ("embed", "words", "tokens", "pieces", "vectors"))
    return len(shape) == 2 and told


def _chains(layers: Mapping[str, _Layer], most: int = 2) -> list[list[str]] | None:
    """Orders in which all layers follow one another, `most` at most; that of the names alone if it is among them. None
    when so many would have to be tried that it is not known."""
    names = sorted(layers, key=_natural)
    if all(_follows(layers[one], layers[two]) for one, two in pairwise(names)):
        return [names]
    found: list[list[str]] = []
    tried = 0

    def extend(chain: list[str], left: frozenset[str]) -> None:
        nonlocal tried
        tried += 1
        if len(found) >= most or tried > MOST_TRIED:
            return
        if not left:
            found.append(chain)
        for name in sorted(left):
            if not chain or _follows(layers[chain[-1]], layers[name]):
                extend([*chain, name], left - {name})

    extend([], frozenset(names))
    return found if len(found) >= most or tried <= MOST_TRIED else None


def _follows(one: _Layer, two: _Layer) -> bool:
    flattened = one.mapped and not two.mapped and two.takes % one.gives == 0
    return two.takes > 0 and (two.takes == one.gives or flattened)


def _link(shapes: Shapes, name: str, reader: str) -> Units:
    axis = 1 if _is_table(name, shapes[name]) else 0
    count = shapes[name][axis]
    into = shapes[reader][1]
    stem = name.removesuffix(".weight")
    written = [Slots(name, axis=axis)]
    if axis == 0 and shapes.get(f"{stem}.bias") == (count,):
        written.append(Slots(f"{stem}.bias"))
    return Units(stem, count, tuple(written), (Slots(reader, axis=1, block=into // count),), homogeneous=True)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Numbers by size: layer.2 before layer.10."""
    import re

    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]
