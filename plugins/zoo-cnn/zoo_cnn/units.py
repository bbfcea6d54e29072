"""Which filters and channels may be renumbered. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping

import zoo
from zoo_cnn import CNN

Shapes = Mapping[str, tuple[int, ...]]
_NORM = ("weight", "bias", "running_mean", "running_var")


def text_units(options: CNN, shapes: Shapes) -> list[zoo.Units]:
    """The coordinates of the word vectors, read by every convolution; then the filters of each convolution."""
    filters = options.filters
    convolutions = [f"pooled.convolutions.{index}.weight" for index in range(len(options.kernels))]
    readers = tuple(zoo.Slots(name, axis=1) for name in convolutions)
    width = shapes["words.weight"][1]
    groups = [zoo.Units("words", width, (zoo.Slots("words.weight", axis=1),), readers, homogeneous=True)]
    for index, name in enumerate(convolutions):
        # All filters are pooled into one vector: each convolution has a stretch of it.
        written = (zoo.Slots(name), zoo.Slots("pooled.bias", start=index * filters))
        read = (zoo.Slots("head.weight", axis=1, start=index * filters),)
        groups.append(zoo.Units(name.removesuffix(".weight"), filters, written, read, homogeneous=True))
    return groups


def image_units(options: CNN, shapes: Shapes) -> list[zoo.Units]:
    """Channels that shortcuts hand on share one numbering until a shortcut convolves; each block has its own inside."""
    written, groups = _slots("stem.0", "stem.1"), ["stem"]
    read: list[zoo.Slots] = []
    every = {"stem": (written, read)}
    stages = range(1, len(options.stages) + 1)
    for block in (f"stages.stage{stage}.{index}" for stage in stages for index in range(options.blocks)):
        first, second = f"{block}.first", f"{block}.second"
        read.append(zoo.Slots(f"{first}.weight", axis=1))
        every[first] = (_slots(first, f"{first}_norm"), [zoo.Slots(f"{second}.weight", axis=1)])
        groups.append(first)
        if f"{block}.shortcut.0.weight" in shapes:
            read.append(zoo.Slots(f"{block}.shortcut.0.weight", axis=1))
            written, read = _slots(f"{block}.shortcut.0", f"{block}.shortcut.1"), []
            every[block] = (written, read)
            groups.append(block)
        written += _slots(second, f"{second}_norm")
    read.append(zoo.Slots("head.weight", axis=1))
    return [_group(name, *every[name], shapes) for name in groups]


def _slots(convolution: str, norm: str) -> list[zoo.Slots]:
    """A convolution and the batch norm after it."""
    return [zoo.Slots(f"{convolution}.weight"), *(zoo.Slots(f"{norm}.{part}") for part in _NORM)]


def _group(name: str, written: list[zoo.Slots], read: list[zoo.Slots], shapes: Shapes) -> zoo.Units:
    # The norm decides how large a channel is, whatever the size of the convolution before it.
    return zoo.Units(name, shapes[written[0].tensor][0], tuple(written), tuple(read), True, written[1].tensor)
