"""Convolutional networks: parallel convolutions over word vectors, a small residual network over pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import zoo

if TYPE_CHECKING:
    import torch


@dataclass
class CNN(zoo.TorchModel):
    """Convolutions over word vectors with max-over-time pooling (Kim 2014), or a residual network over pixels.

    The strides over an image follow from its size.
    """

    kernels: list[int] = zoo.option(
        [3, 4, 5], "texts: words that a convolution spans, one convolution each", ge=1, empty=False
    )
    filters: int = zoo.option(100, "texts: outputs of each convolution", ge=1)
    embedding: int = zoo.option(128, "texts: width of a word vector", ge=1)
    dropout: float = zoo.option(0.5, "texts: share of the pooled features that training drops", ge=0, lt=1)
    max_length: int = zoo.option(256, "texts: words of a text that are read", ge=1)
    max_vocabulary: int = zoo.option(30_000, "texts: most words that are known", ge=1)
    min_count: int = zoo.option(2, "texts: times that a known word occurs in the training split", ge=1)
    stages: list[int] = zoo.option([16, 32, 64], "images: channels of the residual stages, in order", ge=1, empty=False)
    blocks: int = zoo.option(2, "images: residual blocks in each stage", ge=1)
    image_size: int | None = zoo.option(
        None, "images: side in pixels to which they are resized; null keeps them as they are", ge=1
    )

    name: ClassVar[str] = "cnn"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text", "image"})

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        """Words or pixels, by the split's modality."""
        if train.modality == "image":
            return zoo.PixelEncoder(train, self.image_size)
        return zoo.WordEncoder(train, self.max_length, self.max_vocabulary, self.min_count)

    def build(self, inputs: zoo.InputSpec, classes: int) -> torch.nn.Module:
        """`TextCNN` for tokens, `ImageCNN` for images."""
        from zoo_cnn.model import ImageCNN, TextCNN

        if inputs.kind == "tokens":
            return TextCNN(inputs, self, classes)
        return ImageCNN(inputs, self, classes)

    def recipe(self, modality: zoo.Modality) -> Mapping[str, Any]:
        """AdamW, a cosine schedule after a short warm-up, early stopping."""
        shared = {"optimizer": "adamw", "schedule": "cosine", "warmup": 0.05, "batch_size": 64, "patience": 3}
        if modality == "image":
            return {**shared, "epochs": 12, "learning_rate": 2e-3, "weight_decay": 0.01}
        return {**shared, "epochs": 8, "min_steps": 400, "learning_rate": 1e-3, "weight_decay": 0.01}

    def layers(self, module: torch.nn.Module) -> Mapping[str, torch.nn.Module]:
        """Text: the word vectors and the pooled features. Image: the stem, every residual stage and the pool."""
        from zoo_cnn.model import feature_layers

        return feature_layers(module)

    def units(self, shapes: Mapping[str, tuple[int, ...]]) -> Sequence[zoo.Units]:
        """Text: the coordinates of the word vectors and the filters of each width. Image: the channels that a shortcut
        hands on, and those within each block."""
        from zoo_cnn.units import image_units, text_units

        return text_units(self, shapes) if "words.weight" in shapes else image_units(self, shapes)


@zoo.hookimpl
def zoo_models() -> list[type[zoo.TorchModel]]:
    """The one model of this plugin."""
    return [CNN]
