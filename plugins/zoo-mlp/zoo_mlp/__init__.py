"""A multi-layer perceptron: over averaged word vectors, a frozen encoder's sentence vectors, or flattened pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import zoo

if TYPE_CHECKING:
    import torch


@dataclass
class MLP(zoo.TorchModel):
    """Multi-layer perceptron over averaged word vectors, sentence vectors or flattened pixels.

    hidden: widths of the hidden layers, each followed by ReLU and dropout; empty for a linear model.
    dropout: share of hidden units that is dropped in training, in [0, 1).
    features: what a text is turned into. "words": the mean of word vectors that are learned along. "sentence": the
        first-token and mean-pooled vectors of a frozen encoder end to end (needs `zoo-mlp[sentence]`).
    embedding: width of a word vector ("words").
    max_length: tokens of a text that are read; max_vocabulary, min_count: see `zoo.WordEncoder` ("words").
    checkpoint: the frozen encoder ("sentence"), as for the model `bert`; null for that model's default.
    image_size: side to which images are resized; null keeps them as they are.
    """

    hidden: list[int] = field(default_factory=lambda: [256, 128])
    dropout: float = 0.5
    features: str = "words"
    embedding: int = 128
    max_length: int = 256
    max_vocabulary: int = 30_000
    min_count: int = 2
    checkpoint: str | None = None
    image_size: int | None = None

    name: ClassVar[str] = "mlp"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text", "image"})

    def __post_init__(self) -> None:
        _require("hidden", self.hidden, all(width >= 1 for width in self.hidden), "widths of at least 1, as in [256]")
        _require("dropout", self.dropout, 0 <= self.dropout < 1, "a share from 0 up to, not including, 1")
        _require("features", self.features, self.features in ("words", "sentence"), "'words' or 'sentence'")
        for option in ("embedding", "max_length", "max_vocabulary", "min_count"):
            _require(option, getattr(self, option), getattr(self, option) >= 1, "a whole number of at least 1")
        _require("image_size", self.image_size, self.image_size is None or self.image_size >= 1, "null or at least 1")

    def fingerprint(self) -> str:
        """The frozen encoder's files, when one is used."""
        if self.features != "sentence":
            return ""
        from zoo_mlp.sentence import SentenceEncoder

        return SentenceEncoder(self.checkpoint, self.max_length).key

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        """Words, sentence vectors or pixels, by the split's modality and `features`."""
        if train.modality == "image":
            return zoo.PixelEncoder(train, self.image_size)
        if self.features == "sentence":
            from zoo_mlp.sentence import SentenceEncoder

            return SentenceEncoder(self.checkpoint, self.max_length)
        return zoo.WordEncoder(train, self.max_length, self.max_vocabulary, self.min_count)

    def build(self, inputs: zoo.InputSpec, classes: int) -> torch.nn.Module:
        """`WordPerceptron` for tokens, `Perceptron` for anything dense."""
        from zoo_mlp.model import Perceptron, WordPerceptron

        if inputs.kind == "tokens":
            return WordPerceptron(inputs, self.embedding, self.hidden, self.dropout, classes)
        return Perceptron(inputs, self.hidden, self.dropout, classes)

    def recipe(self, modality: zoo.Modality) -> Mapping[str, Any]:
        """Adam at 1e-3 in batches of 64; more epochs where a small training split would make few steps of them."""
        return {
            "epochs": 10,
            "min_steps": 500 if modality == "text" else 1,
            "batch_size": 64,
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "optimizer": "adam",
            "schedule": "constant",
            "warmup": 0.0,
            "patience": 3,
        }

    def layers(self, module: torch.nn.Module) -> Mapping[str, torch.nn.Module]:
        """The averaged word vector ("words" only) and every hidden layer after its ReLU."""
        from zoo_mlp.model import feature_layers

        return feature_layers(module)

    def units(self, shapes: Mapping[str, tuple[int, ...]]) -> Sequence[zoo.Units]:
        """The coordinates of the word vectors ("words" only), then the units of every hidden layer. A mean, ReLU and
        dropout in between: all may be rescaled."""
        groups = []
        layers = [f"blocks.hidden{index + 1}.0" for index in range(len(self.hidden))] + ["head"]
        if "words.weight" in shapes:
            words = (zoo.Slots("words.weight", axis=1),)
            count = shapes["words.weight"][1]
            groups.append(zoo.Units("words", count, words, (zoo.Slots(f"{layers[0]}.weight", axis=1),), True))
        for layer, reader in pairwise(layers):
            slots = (zoo.Slots(f"{layer}.weight"), zoo.Slots(f"{layer}.bias"))
            count = shapes[f"{layer}.weight"][0]
            groups.append(zoo.Units(layer, count, slots, (zoo.Slots(f"{reader}.weight", axis=1),), True))
        return groups


def _require(option: str, got: object, holds: bool, want: str) -> None:
    if not holds:
        raise zoo.ConfigError(f"model.{option}={got} is out of range for mlp: it takes {want}.")


@zoo.hookimpl
def zoo_models() -> list[type[zoo.TorchModel]]:
    """The one model of this plugin."""
    return [MLP]
