"""Which parts of a Transformer may be renumbered. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping

import zoo
from zoo_transformer import Transformer

Shapes = Mapping[str, tuple[int, ...]]
_WRITE = ("attention.project_out", "feed.2")
_NORMS = ("attention_norm", "feed_norm")


def residual(options: Transformer, shapes: Shapes) -> zoo.Units:
    """The coordinates of the residual stream: one numbering from the embeddings to the last layer."""
    blocks = [f"stack.blocks.{index}" for index in range(options.depth)]
    norms = [f"{block}.{norm}" for block in blocks for norm in _NORMS] + ["stack.pooled.norm"]
    rows = [f"{block}.{part}" for block in blocks for part in _WRITE] + norms
    if "pieces.weight" in shapes:
        written = [zoo.Slots("pieces.weight", axis=1), zoo.Slots("positions", axis=1)]
    else:
        written = [*_slots("project"), zoo.Slots("positions", axis=1)]
    written += [slots for part in rows for slots in _slots(part)]
    read = [f"{block}.{part}.weight" for block in blocks for part in ("attention.project_in", "feed.0")]
    readers = tuple(zoo.Slots(name, axis=1) for name in [*read, "stack.head.weight"])
    return zoo.Units("residual", options.width, tuple(written), readers)


def block_units(options: Transformer, index: int) -> list[zoo.Units]:
    """The heads of a block, each with its rows of query, key and value, and its hidden units."""
    block, width, heads = f"stack.blocks.{index}", options.width, options.heads
    size = width // heads
    attention = tuple(
        zoo.Slots(f"{block}.attention.project_in.{part}", start=third * width, block=size)
        for third in range(3)
        for part in ("weight", "bias")
    )
    out = (zoo.Slots(f"{block}.attention.project_out.weight", axis=1, block=size),)
    feed = (zoo.Slots(f"{block}.feed.2.weight", axis=1),)
    return [
        zoo.Units(f"{block}.heads", heads, attention, out),
        zoo.Units(f"{block}.feed", options.expansion * width, tuple(_slots(f"{block}.feed.0")), feed),
    ]


def _slots(module: str) -> list[zoo.Slots]:
    return [zoo.Slots(f"{module}.weight"), zoo.Slots(f"{module}.bias")]
