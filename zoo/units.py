"""Which hidden units of a network may be renumbered, and where each of them stands in the weights.

A network computes the same when the hidden units of a layer change places, provided that every tensor that computes
them and every tensor that reads them follows. Whoever compares weights has to undo that first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Slots:
    """Where the units of a group stand in one tensor: unit u takes the indices `start + u * block` and the
    `block - 1` that follow, along `axis`. A head of an attention layer is a block of rows."""

    tensor: str
    axis: int = 0
    start: int = 0
    block: int = 1


@dataclass(frozen=True)
class Units:
    """Hidden units, `count` of them, that may be renumbered together without changing what the network computes.

    Initialisation has to treat all units of a group alike (drawn, or one number): the test of numberings rests on it. A
    table that was computed, such as one of sines, does not; where it is the same in two models it is left out there.

    written: the tensors that compute the units (rows of a weight, a bias, a norm's scale); read: those that read them.
    homogeneous: a unit times c > 0 with its readers divided by c computes the same (ReLU does, GELU does not);
    scaled_by: the vector that sets the size of homogeneous units, such as a batch norm's scale; without it they are as
        large as their weights.
    """

    name: str
    count: int
    written: tuple[Slots, ...]
    read: tuple[Slots, ...] = ()
    homogeneous: bool = False
    scaled_by: str | None = None


# Feed-forward layers as published architectures name them: what computes the hidden units, and what reads them.
_FEEDS = (
    (("intermediate.dense",), "output.dense"),
    (("ffn.lin1",), "ffn.lin2"),
    (("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
    (("fc1",), "fc2"),
    (("linear1",), "linear2"),
    (("wi_0", "wi_1"), "wo"),
    (("wi",), "wo"),
)
_HEADS = (
    (("attention.self.query", "attention.self.key", "attention.self.value"), "attention.output.dense"),
    (("attention.q_lin", "attention.k_lin", "attention.v_lin"), "attention.out_lin"),
    (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.out_proj"),
    (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.o_proj"),
)


def transformer_units(shapes: Shapes, heads: int | None = None) -> tuple[Units, ...]:
    """The groups of a Transformer whose tensors have the names of a published architecture (BERT, RoBERTa, DistilBERT,
    BART, Llama …): the residual stream, then the hidden units of each feed-forward layer and the heads of each
    attention. shapes: of every tensor by its name; heads: of each attention layer, without which there are no groups of
    heads. Returns no groups at all when no feed-forward layer is recognised."""
    feeds = list(_found(shapes, _FEEDS))
    if not feeds:
        return ()
    attentions = list(_found(shapes, _HEADS))
    width = shapes[f"{feeds[0][1]}.weight"][0]
    groups = [_feed(shapes, written, read) for written, read in feeds]
    if heads:
        into = {read: shapes[f"{read}.weight"][1] for _, read in attentions}
        groups += [_attention(shapes, written, read, heads) for written, read in attentions if into[read] % heads == 0]
    return (_residual(shapes, feeds + attentions, width), *sorted(groups, key=lambda group: _natural(group.name)))


def _found(shapes: Shapes, table: tuple[tuple[tuple[str, ...], str], ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(modules that compute the units, module that reads them), with shapes that fit."""
    taken: set[str] = set()
    for written, read in table:
        for name in shapes:
            prefix = name.removesuffix(f"{written[0]}.weight")
            if prefix == name or prefix + written[0] in taken:
                continue
            modules = tuple(prefix + part for part in written)
            if _fits(shapes, modules, prefix + read):
                taken.update(modules)
                yield modules, prefix + read


def _fits(shapes: Shapes, modules: tuple[str, ...], read: str) -> bool:
    weights = [shapes.get(f"{module}.weight", ()) for module in modules]
    into = shapes.get(f"{read}.weight", ())
    return len(into) == 2 and all(shape == (into[1], into[0]) for shape in weights)


def _feed(shapes: Shapes, written: tuple[str, ...], read: str) -> Units:
    slots = tuple(Slots(name) for module in written for name in _parts(shapes, module))
    return Units(written[0], shapes[f"{written[0]}.weight"][0], slots, (Slots(f"{read}.weight", axis=1),))


def _attention(shapes: Shapes, written: tuple[str, ...], read: str, heads: int) -> Units:
    block = shapes[f"{read}.weight"][1] // heads
    slots = tuple(Slots(name, block=block) for module in written for name in _parts(shapes, module))
    name = written[0].rpartition(".")[0] + ".heads"
    return Units(name, heads, slots, (Slots(f"{read}.weight", axis=1, block=block),))


def _residual(shapes: Shapes, layers: list[tuple[tuple[str, ...], str]], width: int) -> Units:
    """One group for all that is added up: its basis is the same in every layer."""
    tables = [name for name, shape in shapes.items() if "embed" in name and len(shape) == 2 and shape[1] == width]
    norms = [name for name, shape in shapes.items() if "norm" in name.lower() and shape == (width,)]
    written = [Slots(name, axis=1) for name in tables] + [Slots(name) for name in norms]
    written += [Slots(name) for _, read in layers for name in _parts(shapes, read)]
    read = [Slots(f"{module}.weight", axis=1) for modules, _ in layers for module in modules]
    read += [Slots(name, axis=1) for name, shape in shapes.items() if name.endswith("pooler.dense.weight")]
    return Units("residual", width, tuple(written), tuple(read))


def _parts(shapes: Shapes, module: str) -> list[str]:
    return [name for name in (f"{module}.weight", f"{module}.bias") if name in shapes]


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Numbers by size: layer.2 before layer.10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split(".")]
