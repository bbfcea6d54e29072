"""The convolutional networks. Imported only when one is built."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo_cnn import CNN

STEM_TARGET = 32  # pixels of the shorter side that the stem may leave: keeps 224 x 224 near the cost of 28 x 28
SMALLEST_MAP = 4  # no stage halves its map below this side


class WordVectors(nn.Embedding):
    """Word vectors in which whatever the mask leaves out is zero."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """input_ids: (batch, length) int64; attention_mask: (batch, length) bool. Returns (batch, length, width)."""
        vectors: torch.Tensor = super().forward(input_ids.masked_fill(~attention_mask, self.padding_idx or 0))
        return vectors


class MaxOverTime(nn.Module):
    """Parallel convolutions over word vectors, each pooled to its largest response (Kim 2014), then ReLU.

    Every real token is the centre of one window, so a text shorter than a kernel has windows too. Beyond the text all
    is zero, whether it is padding of the batch or of the convolution: the batch a text comes in does not matter.
    """

    def __init__(self, width: int, kernels: list[int], filters: int):
        super().__init__()
        self.kernels = tuple(kernels)
        self.filters = filters
        # Two-dimensional over a height of one: (batch, length, width) is channels-last already, no copy is needed,
        # and on CPU it runs about a fifth faster than Conv1d. The bias comes after the maximum, where it is smaller.
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, filters, (1, kernel), padding=(0, kernel // 2), bias=False) for kernel in kernels
        )
        self.bias = nn.Parameter(torch.zeros(len(kernels) * filters))

    def forward(self, vectors: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """vectors: (batch, length, width), zero outside the mask. Returns (batch, filters x kernels), none negative."""
        length = vectors.shape[1]
        images = vectors.transpose(1, 2).unsqueeze(2)
        beyond = ~attention_mask[:, None, :]
        pooled = [
            convolve(images)[:, :, 0, :length].masked_fill(beyond, -torch.inf).max(2).values
            for convolve in self.convolutions
        ]
        return F.relu(torch.cat(pooled, 1) + self.bias)


class TextCNN(nn.Module):
    """Word vectors, parallel convolutions with max-over-time pooling, dropout, a linear layer."""

    def __init__(self, inputs: zoo.InputSpec, options: CNN, classes: int):
        super().__init__()
        if inputs.vocab_size is None:
            raise ValueError("token inputs need a vocab_size")
        self.words = WordVectors(inputs.vocab_size, options.embedding, padding_idx=inputs.pad_id)
        # Far below the default of 1: rare words, hardly trained, then say little instead of something random.
        nn.init.normal_(self.words.weight, std=0.1)
        with torch.no_grad():
            self.words.weight[inputs.pad_id].zero_()
        self.pooled = MaxOverTime(options.embedding, options.kernels, options.filters)
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(options.filters * len(options.kernels), classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids: (batch, length) int64; attention_mask: (batch, length) bool. Returns (batch, classes)."""
        features = self.pooled(self.words(input_ids, attention_mask), attention_mask)
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm around a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: (batch, channels, height, width). Returns (batch, out, height / stride, width / stride)."""
        hidden = F.relu(self.first_norm(self.first(images)), inplace=True)
        return F.relu(self.second_norm(self.second(hidden)) + self.shortcut(images), inplace=True)


class ImageCNN(nn.Module):
    """A residual network whose strides follow from the size of the images (8 x 8 to 224 x 224 and beyond)."""

    def __init__(self, inputs: zoo.InputSpec, options: CNN, classes: int):
        super().__init__()
        channels, height, width = inputs.shape
        side = min(height, width)
        stride, side = stem_stride(side)
        first = options.stages[0]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, first, 2 * stride + 1, stride, padding=stride, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential()
        channels = first
        for index, out in enumerate(options.stages):
            halve = index > 0 and side >= 2 * SMALLEST_MAP
            side = (side + 1) // 2 if halve else side
            stage = [ResidualBlock(channels, out, 2 if halve else 1)]
            stage += [ResidualBlock(out, out, 1) for _ in range(options.blocks - 1)]
            self.stages.add_module(f"stage{index + 1}", nn.Sequential(*stage))
            channels = out
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(channels, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs: (batch, channels, height, width) float. Returns (batch, classes)."""
        images = self.stem(inputs.contiguous(memory_format=torch.channels_last))
        logits: torch.Tensor = self.head(self.pooled(self.stages(images)))
        return logits


def stem_stride(side: int) -> tuple[int, int]:
    """The stem's stride (a power of two) for images of a shorter side, and the side that it leaves."""
    stride = 1
    while side / stride > STEM_TARGET * 1.5:
        stride *= 2
    return stride, -(-side // stride)


def feature_layers(module: nn.Module) -> Mapping[str, nn.Module]:
    """What is kept as features, in the order of computation."""
    if isinstance(module, TextCNN):
        return {"words": module.words, "pooled": module.pooled}
    assert isinstance(module, ImageCNN)
    return {"stem": module.stem, **dict(module.stages.named_children()), "pooled": module.pooled}
