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

    A text is word pieces, learned on the training split; an image is a grid of patches.
    """

    width: int = zoo.option(128, "width of the encoder: numbers in a token's vector", ge=1)
    depth: int = zoo.option(2, "blocks of attention and feed-forward layer", ge=1)
    heads: int = zoo.option(4, "attention heads of a block; they divide the width", ge=1)
    expansion: int = zoo.option(4, "width of the feed-forward layer, as a multiple of the encoder's", ge=1)
    dropout: float = zoo.option(
        0.2, "share that training drops of the embeddings and of each residual branch", ge=0, lt=1
    )
    vocabulary: int = zoo.option(
        8_000, "texts: most word pieces that are learned, with those for padding and unknown", ge=3
    )
    max_length: int = zoo.option(256, "texts: pieces of a text that are read", ge=1)
    patch: int | None = zoo.option(None, "images: side of a patch in pixels; null for about eight patches a side", ge=1)
    image_size: int | None = zoo.option(
        None, "images: side in pixels to which they are resized; null keeps them as they are", ge=1
    )

    name: ClassVar[str] = "transformer"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text", "image"})

    def __post_init__(self) -> None:
        divides = self.width % self.heads == 0
        zoo.require(self, "heads", divides, f"a number that divides model.width={self.width}")

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


@zoo.hookimpl
def zoo_models() -> list[type[zoo.TorchModel]]:
    """The one model of this plugin."""
    return [Transformer]
