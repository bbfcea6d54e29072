"""A multi-layer perceptron: over averaged word vectors, a frozen encoder's sentence vectors, or flattened pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import zoo

if TYPE_CHECKING:
    import torch


@dataclass
class MLP(zoo.TorchModel):
    """Multi-layer perceptron over averaged word vectors, sentence vectors or flattened pixels.

    Texts become the mean of word vectors that are learned along, or the first-token and mean-pooled vectors of a frozen
    encoder, end to end. Each hidden layer is followed by ReLU and dropout.
    """

    hidden: list[int] = zoo.option([256, 128], "widths of the hidden layers; empty for a linear model", ge=1)
    dropout: float = zoo.option(0.5, "share of hidden units that training drops", ge=0, lt=1)
    features: str = zoo.option(
        "words",
        "what a text becomes: the mean of learned word vectors, or a frozen encoder's vectors (zoo-mlp[sentence])",
        choices=("words", "sentence"),
    )
    embedding: int = zoo.option(128, "width of a word vector (words)", ge=1)
    max_length: int = zoo.option(256, "tokens of a text that are read", ge=1)
    max_vocabulary: int = zoo.option(30_000, "most words that are known (words)", ge=1)
    min_count: int = zoo.option(2, "times that a known word occurs in the training split (words)", ge=1)
    checkpoint: str | None = zoo.option(
        None, "the frozen encoder, named as for model=bert; null for the default of bert (sentence)"
    )
    image_size: int | None = zoo.option(
        None, "side in pixels to which images are resized; null keeps them as they are", ge=1
    )

    name: ClassVar[str] = "mlp"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text", "image"})

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


@zoo.hookimpl
def zoo_models() -> list[type[zoo.TorchModel]]:
    """The one model of this plugin."""
    return [MLP]
