"""Convolutional networks: parallel convolutions over word vectors, a small residual network over pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import zoo

if TYPE_CHECKING:
    import torch


@dataclass
class CNN(zoo.TorchModel):
    """Convolutions over word vectors with max-over-time pooling (Kim 2014), or a residual network over pixels.

    Text: kernels: words that a convolution spans, one convolution each; filters: outputs of each; embedding: width
    of a word vector; max_length, max_vocabulary, min_count: see `zoo.WordEncoder`; dropout: on the pooled features.
    Image: stages: channels of the residual stages, in order; blocks: residual blocks in each stage; image_size: side
    to which images are resized, null keeps them. The strides follow from the size of the images.
    """

    kernels: list[int] = field(default_factory=lambda: [3, 4, 5])
    filters: int = 100
    embedding: int = 128
    dropout: float = 0.5
    max_length: int = 256
    max_vocabulary: int = 30_000
    min_count: int = 2
    stages: list[int] = field(default_factory=lambda: [16, 32, 64])
    blocks: int = 2
    image_size: int | None = None

    name: ClassVar[str] = "cnn"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text", "image"})

    def __post_init__(self) -> None:
        for option in ("kernels", "stages"):
            values = getattr(self, option)
            _require(option, values, bool(values) and min(values) >= 1, "one or more whole numbers of at least 1")
        _require("dropout", self.dropout, 0 <= self.dropout < 1, "a share from 0 up to, not including, 1")
        for option in ("filters", "embedding", "max_length", "max_vocabulary", "min_count", "blocks"):
            _require(option, getattr(self, option), getattr(self, option) >= 1, "a whole number of at least 1")
        _require("image_size", self.image_size, self.image_size is None or self.image_size >= 1, "null or at least 1")

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


def _require(option: str, got: object, holds: bool, want: str) -> None:
    if not holds:
        raise zoo.ConfigError(f"model.{option}={got} is out of range for cnn: it takes {want}.")


@zoo.hookimpl
def zoo_models() -> list[type[zoo.TorchModel]]:
    """The one model of this plugin."""
    return [CNN]
