"""The perceptrons. Imported only when one is built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

import zoo


class Perceptron(nn.Module):
    """Linear layers with ReLU and dropout between. inputs: (batch, *shape) float. Returns logits (batch, classes)."""

    def __init__(self, inputs: zoo.InputSpec, hidden: Sequence[int], dropout: float, classes: int):
        super().__init__()
        self.blocks, width = hidden_blocks(math.prod(inputs.shape), hidden, dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs: (batch, *shape) float. Returns (batch, classes)."""
        logits: torch.Tensor = self.head(self.blocks(inputs.flatten(1)))
        return logits


class WordPerceptron(nn.Module):
    """A perceptron over the mean of learned word vectors. The mean runs over real tokens only."""

    def __init__(self, inputs: zoo.InputSpec, embedding: int, hidden: Sequence[int], dropout: float, classes: int):
        super().__init__()
        if inputs.vocab_size is None:
            raise ValueError("token inputs need a vocab_size")
        self.pad_id = inputs.pad_id
        # EmbeddingBag leaves padding out of its mean and never holds the (batch, length, width) tensor.
        self.words = nn.EmbeddingBag(inputs.vocab_size, embedding, mode="mean", padding_idx=inputs.pad_id)
        # Far below the default of 1: rare words, hardly trained, then say little instead of something random.
        nn.init.normal_(self.words.weight, std=0.1)
        self.blocks, width = hidden_blocks(embedding, hidden, dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids: (batch, length) int64; attention_mask: (batch, length) bool. Returns (batch, classes)."""
        mean = self.words(input_ids.masked_fill(~attention_mask, self.pad_id))
        logits: torch.Tensor = self.head(self.blocks(mean))
        return logits


def hidden_blocks(width: int, hidden: Sequence[int], dropout: float) -> tuple[nn.Sequential, int]:
    """The hidden layers over inputs of `width`, and the width that comes out of them."""
    blocks = nn.Sequential()
    for index, out in enumerate(hidden):
        blocks.add_module(f"hidden{index + 1}", nn.Sequential(nn.Linear(width, out), nn.ReLU()))
        blocks.add_module(f"dropout{index + 1}", nn.Dropout(dropout))
        width = out
    return blocks, width


def feature_layers(module: nn.Module) -> Mapping[str, nn.Module]:
    """What is kept as features: the mean of the word vectors, where there is one, and each hidden layer."""
    assert isinstance(module, Perceptron | WordPerceptron)
    layers: dict[str, nn.Module] = {"words": module.words} if isinstance(module, WordPerceptron) else {}
    layers.update((name, block) for name, block in module.blocks.named_children() if name.startswith("hidden"))
    return layers or {"logits": module.head}
