"""Which units of a module may be exchanged without changing what it computes.

A group is a set of units (hidden units, channels, attention heads, coordinates of a residual stream) with every axis
of every tensor that is indexed by them. Candidates come from the order of execution and from shapes; each is then
tried: a candidate stays only if an arbitrary permutation of it leaves the logits alone in float64. So nothing here
knows a model by name, and whatever is found is right for the inputs it was tried on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from zoo.disguise.reach import order
from zoo.errors import Incompatible

SAME = 1e-9
"""Largest change of a logit in float64, as a share of the largest logit, that counts as none."""

FEW = 2
"""Examples on which a candidate is tried first."""

MOST_READERS = 8
"""Layers tried together as readers of one layer's output."""

Role = Literal["out", "in", "query", "key", "carried"]
"""out: what makes a unit's value, in: what reads it, query and key: the two sides of attention's product, carried:
what follows the unit without a say in its size (statistics of a norm, a convolution before one)."""


@dataclass(frozen=True)
class Tie:
    """An axis of a tensor that is indexed by units: unit u holds the positions from offset + u · block on, `block` of
    them. tensor: its name in the module's state."""

    tensor: str
    axis: int
    role: Role
    offset: int = 0
    block: int = 1


@dataclass(frozen=True)
class Group:
    """Units that may be exchanged. kind: "stream" when layer norms read it, "heads", or "units"."""

    name: str
    kind: Literal["units", "heads", "stream"]
    size: int
    ties: tuple[Tie, ...]


Tensors = Mapping[str, torch.Tensor]


def permuted(tensors: Tensors, group: Group, permutation: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of a group with its units in the order of `permutation`, (size,) int64. Others are not returned."""
    changed: dict[str, torch.Tensor] = {}
    for tie in group.ties:
        tensor = changed.get(tie.tensor, tensors[tie.tensor])
        index = torch.arange(tensor.shape[tie.axis], device=tensor.device)
        own = index[tie.offset : tie.offset + group.size * tie.block].reshape(group.size, tie.block)
        index[tie.offset : tie.offset + group.size * tie.block] = own[permutation.to(tensor.device)].reshape(-1)
        changed[tie.tensor] = tensor.index_select(tie.axis, index)
    return changed


def scaled(tensors: Tensors, group: Group, factors: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of a group with unit u larger by `factors[u]` where it is made and smaller where it is read."""
    power = {"out": 1.0, "in": -1.0, "query": 1.0, "key": -1.0, "carried": 0.0}
    changed: dict[str, torch.Tensor] = {}
    for tie in group.ties:
        tensor = changed.get(tie.tensor, tensors[tie.tensor])
        along = torch.ones(tensor.shape[tie.axis], dtype=tensor.dtype, device=tensor.device)
        own = (factors.to(tensor) ** power[tie.role]).repeat_interleave(tie.block)
        along[tie.offset : tie.offset + group.size * tie.block] = own
        shape = [-1 if axis == tie.axis else 1 for axis in range(tensor.ndim)]
        changed[tie.tensor] = tensor * along.reshape(shape)
    return changed


class Trial:
    """Tells whether a change of some tensors changes the logits. Everything is held in float64."""

    def __init__(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.module = copy.deepcopy(module).double().eval()
        self.inputs = tuple(item.double() if item.is_floating_point() else item for item in inputs)
        self.tensors: dict[str, torch.Tensor] = {
            name: value.detach() for name, value in self.module.state_dict(keep_vars=True).items()
        }
        self.few = tuple(item[:FEW] for item in self.inputs)
        self.logits, self.few_logits = self._call({}, self.inputs), self._call({}, self.few)

    def _call(self, changed: Tensors, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        try:
            with torch.inference_mode():
                answers: torch.Tensor = torch.func.functional_call(self.module, dict(changed), inputs)
        except RuntimeError as error:
            raise Incompatible(
                f"This model does not run in float64, in which exchanges are tried: {str(error).splitlines()[0]}"
            ) from error
        return answers

    def keeps(self, changed: Tensors) -> bool:
        """Whether the logits stay as they are. Most changes fail on a few examples, which saves the others."""
        few = _same(self._call(changed, self.few), self.few_logits)
        return few and _same(self._call(changed, self.inputs), self.logits)

    def holds(self, group: Group) -> bool:
        """Whether the units of a group may be exchanged: two orders are tried, one of which moves every unit."""
        one = torch.roll(torch.arange(group.size), 1)
        other = torch.randperm(group.size, generator=torch.Generator().manual_seed(group.size))
        return all(self.keeps(permuted(self.tensors, group, order)) for order in (one, other))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    moved = float((one - other).abs().max())
    return math.isfinite(moved) and moved <= SAME * max(1.0, float(other.abs().max()))


def find(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[Group, ...]:
    """Every group of at least two units, those found first first. inputs: what the module gets for some examples.

    Raises Incompatible when the module does not run in float64."""
    trial = Trial(module, inputs)
    layers = order(module, inputs)
    groups: list[Group] = list(_heads(trial, layers))
    taken = {(tie.tensor, tie.axis) for group in groups for tie in group.ties}
    for position, (name, layer) in enumerate(layers[:-1]):
        if _width(layer) < 2 or (f"{name}.weight", _out_axis(layer)) in taken:
            continue
        group = next((group for group in _after(layers, position, trial.tensors) if trial.holds(group)), None)
        if group is not None:
            groups.append(group)
            taken |= {(tie.tensor, tie.axis) for tie in group.ties}
    groups += [group for group in _left(layers, trial.tensors, taken) if trial.holds(group)]
    return tuple(groups)


Layers = Sequence[tuple[str, nn.Module]]


def _width(layer: nn.Module) -> int:
    """Units that a linear, convolution or embedding layer makes; 0 for any other."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, _ConvNd):
        return layer.out_channels
    return layer.embedding_dim if isinstance(layer, nn.Embedding | nn.EmbeddingBag) else 0


def _reads(layer: nn.Module) -> int:
    """Inputs of a linear or convolution layer; 0 for any other."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return layer.in_channels if isinstance(layer, _ConvNd) and layer.groups == 1 else 0


def _out_axis(layer: nn.Module) -> int:
    return 1 if isinstance(layer, nn.Embedding | nn.EmbeddingBag) else 0


def _norm(layer: nn.Module) -> int:
    """Features of a batch or layer norm; 0 for any other."""
    if isinstance(layer, _BatchNorm):
        return layer.num_features
    return layer.normalized_shape[0] if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1 else 0


def _made(name: str, layer: nn.Module, tensors: Tensors, role: Role = "out") -> list[Tie]:
    """The ties of whatever a layer makes: its weight's rows (a table's columns) and its bias."""
    ties = [Tie(f"{name}.weight", _out_axis(layer), role)]
    return [*ties, Tie(f"{name}.bias", 0, role)] if f"{name}.bias" in tensors else ties


def _normed(name: str, layer: nn.Module, tensors: Tensors) -> list[Tie]:
    """The ties of a norm: its scale and shift make the unit's size, its statistics are carried."""
    ties = [Tie(f"{name}.{own}", 0, "out") for own in ("weight", "bias")]
    ties += [Tie(f"{name}.{own}", 0, "carried") for own in ("running_mean", "running_var")]
    return [tie for tie in ties if tie.tensor in tensors]


def _after(layers: Layers, position: int, tensors: Tensors) -> Iterator[Group]:
    """Candidates for the units that the layer at `position` makes, read by the layers behind it."""
    name, layer = layers[position]
    size, rest = _width(layer), list(layers[position + 1 :])
    norms = []
    while rest and _norm(rest[0][1]) == size:
        norms.append(rest.pop(0))
    behind_norm = any(isinstance(norm, _BatchNorm) for _, norm in norms)
    made = _made(name, layer, tensors, "carried" if behind_norm else "out")
    made += [tie for norm in norms for tie in _normed(*norm, tensors)]
    ahead = [(other, reader) for other, reader in rest if _reads(reader)]
    readers: list[Tie] = []
    for other, reader in ahead[:MOST_READERS]:
        if _reads(reader) != size:
            break
        readers.append(Tie(f"{other}.weight", 1, "in"))
        yield Group(name, "units", size, (*made, *readers))
    bare = [tensor for tensor in _own(layers, tensors) if tensors[tensor].ndim == 1]
    for other, reader in ahead[:MOST_READERS]:
        weight, parts = f"{other}.weight", _reads(reader) // size
        if parts < 2 or _reads(reader) % size:
            continue
        if other == ahead[0][0]:  # flattened: a unit's positions lie side by side
            yield Group(name, "units", size, (*made, Tie(weight, 1, "in", 0, parts)))
        joined = [tensor for tensor in bare if len(tensors[tensor]) == parts * size]
        behind = [_width(before) for _, before in layers[: layers.index((other, reader))] if _width(before)][-parts:]
        if behind != [size] * parts:
            continue
        for part in range(parts):  # concatenated: layers of one width, the units of each in a stretch of their own
            ties = [Tie(tensor, 0, "out", part * size) for tensor in joined]
            yield Group(name, "units", size, (*made, *ties, Tie(weight, 1, "in", part * size)))


def _own(layers: Layers, tensors: Tensors) -> list[str]:
    """Parameters that belong to no layer with a width: those that a module of its own kind holds."""
    known = {name for name, layer in layers if _width(layer) or _norm(layer)}
    return [tensor for tensor in tensors if tensor.rpartition(".")[0] not in known]


def _heads(trial: Trial, layers: Layers) -> Iterator[Group]:
    """Attention heads: query, key and value as one layer or three, and the layer that reads what they mix. As many
    heads as may be exchanged: the count is found by trying the divisors of the width, most heads first."""
    known: list[int] = []
    for made, reader, width in _attention(layers):
        counts = [*known, *(width // block for block in range(2, width // 2 + 1) if width % block == 0)]
        for count in dict.fromkeys(count for count in counts if width % count == 0 and count > 1):
            group = _as_heads(made, reader, (count, width // count), trial.tensors)
            if trial.holds(group):
                known = [count]
                yield group
                break


Made = list[tuple[str, Role, int]]


def _attention(layers: Layers) -> Iterator[tuple[Made, str, int]]:
    """(layers that make query, key and value with the role and the offset of each, the reader, its width)."""
    linear = [(name, layer) for name, layer in layers if isinstance(layer, nn.Linear)]
    roles: tuple[Role, ...] = ("query", "key", "out")
    for at, (name, layer) in enumerate(linear):
        width = _reads(layer)
        if _width(layer) == 3 * width and at + 1 < len(linear) and _reads(linear[at + 1][1]) == width:
            yield [(name, role, number * width) for number, role in enumerate(roles)], linear[at + 1][0], width
        four = linear[at : at + 4]
        if len(four) == 4 and all(_reads(part) == _width(part) == width for _, part in four):
            yield [(four[number][0], role, 0) for number, role in enumerate(roles)], four[3][0], width


def _as_heads(made: Made, reader: str, shape: tuple[int, int], tensors: Tensors) -> Group:
    count, block = shape
    ties = [
        Tie(f"{name}.{own}", 0, role, offset, block)
        for name, role, offset in made
        for own in ("weight", "bias")
        if f"{name}.{own}" in tensors
    ]
    return Group(f"{made[0][0]} heads", "heads", count, (*ties, Tie(f"{reader}.weight", 1, "in", 0, block)))


def _left(layers: Layers, tensors: Tensors, taken: set[tuple[str, int]]) -> Iterator[Group]:
    """For each width: all axes of that size which belong to no group yet, as one group. That is what residual sums tie
    together: channels of a stage, or a transformer's stream."""
    last = layers[-1][0]
    widths = dict.fromkeys(_width(layer) for name, layer in layers if name != last)
    for width in widths:
        if width < 2:
            continue
        free = [tie for tie in _free(layers, width, tensors) if (tie.tensor, tie.axis) not in taken]
        if any(tie.role == "in" for tie in free) and any(tie.role == "out" for tie in free):
            stream = any(isinstance(layer, nn.LayerNorm) and _norm(layer) == width for _, layer in layers)
            yield Group(f"all of width {width}", "stream" if stream else "units", width, tuple(free))


def _free(layers: Layers, width: int, tensors: Tensors) -> Iterator[Tie]:
    first, last = layers[0][0], layers[-1][0]
    before_norm = {name for (name, _), (_, norm) in pairwise(layers) if isinstance(norm, _BatchNorm)}
    for name, layer in layers:
        if _norm(layer) == width:
            yield from _normed(name, layer, tensors)
        if _width(layer) == width and name != last:
            yield from _made(name, layer, tensors, "carried" if name in before_norm else "out")
        if _reads(layer) == width and name != first:
            yield Tie(f"{name}.weight", 1, "in")
    for tensor in _own(layers, tensors):
        if tensors[tensor].ndim and tensors[tensor].shape[-1] == width:
            yield Tie(tensor, tensors[tensor].ndim - 1, "out")
