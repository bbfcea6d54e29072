"""A transformer encoder from scratch, over word pieces of a text or patches of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import zoo

if TYPE_CHECKING:
    import torch


@dataclass
class Transformer(zoo.TorchModel):
    """Pre-norm transformer encoder with fresh weights; mean over real tokens, then a linear layer.

    width, depth, heads: of the encoder; `heads` must divide `width`. expansion: width of the feed-forward layer as a
    multiple of `width`. dropout: on embeddings and on each residual branch, in [0, 1).
    Text: word pieces learned on the training split; vocabulary: how many at most; max_length: pieces of a text that
    are read. Image: patch: side of a patch in pixels, null to fit the image (about eight patches a side);
    image_size: side to which images are resized, null keeps them.
    """

    width: int = 128
    depth: int = 2
    heads: int = 4
    expansion: int = 4
    dropout: float = 0.2
    vocabulary: int = 8_000
    max_length: int = 256
    patch: int | None = None
    image_size: int | None = None

    name: ClassVar[str] = "transformer"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text", "image"})

    def __post_init__(self) -> None:
        for option in ("width", "depth", "heads", "expansion", "max_length"):
            _require(option, getattr(self, option), getattr(self, option) >= 1, "a whole number of at least 1")
        divides = self.width % self.heads == 0
        _require("heads", self.heads, divides, f"a number that divides model.width={self.width}")
        _require("dropout", self.dropout, 0 <= self.dropout < 1, "a share from 0 up to, not including, 1")
        _require("vocabulary", self.vocabulary, self.vocabulary >= 3, "at least 3: padding, unknown and one piece")
        for option in ("patch", "image_size"):
            value = getattr(self, option)
            _require(option, value, value is None or value >= 1, "null or a whole number of at least 1")

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        """Word pieces or pixels, by the split's modality."""
        if train.modality == "image":
            return zoo.PixelEncoder(train, self.image_size)
        from zoo_transformer.pieces import PieceEncoder

        return PieceEncoder(train, self.max_length, self.vocabulary)

    def build(self, inputs: zoo.InputSpec, classes: int) -> torch.nn.Module:
        """`TextTransformer` for tokens, `ImageTransformer` for images."""
        from zoo_transformer.model import ImageTransformer, TextTransformer

        if inputs.kind == "tokens":
            return TextTransformer(inputs, self, classes)
        return ImageTransformer(inputs, self, classes)

    def recipe(self, modality: zoo.Modality) -> Mapping[str, Any]:
        """AdamW with warm-up and a cosine schedule, early stopping."""
        shared = {"optimizer": "adamw", "schedule": "cosine", "warmup": 0.1, "batch_size": 64}
        if modality == "image":
            return {**shared, "epochs": 20, "learning_rate": 1e-3, "weight_decay": 0.05, "patience": 5}
        few = {"epochs": 6, "min_steps": 100, "patience": 2}
        return {**shared, **few, "learning_rate": 1e-3, "weight_decay": 0.05}

    def layers(self, module: torch.nn.Module) -> Mapping[str, torch.nn.Module]:
        """The embeddings, every block and the pooled vector."""
        from zoo_transformer.model import feature_layers

        return feature_layers(module)

    def units(self, shapes: Mapping[str, tuple[int, ...]]) -> Sequence[zoo.Units]:
        """The residual stream, which every block shares, then the heads and the hidden units of each block."""
        from zoo_transformer.units import block_units, residual

        return [residual(self, shapes), *(group for index in range(self.depth) for group in block_units(self, index))]


def _require(option: str, got: object, holds: bool, want: str) -> None:
    if not holds:
        raise zoo.ConfigError(f"model.{option}={got} is out of range for transformer: it takes {want}.")


@zoo.hookimpl
def zoo_models() -> list[type[zoo.TorchModel]]:
    """The one model of this plugin."""
    return [Transformer]
