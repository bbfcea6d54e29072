"""The transformer encoder. Imported only when one is built."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo_transformer import Transformer

PIECE_STD = 0.05  # small against the steps of the optimizer, so that what a piece means is learned soon
PATCH_STD = 0.5  # as large as a projected patch, so that where it stands is not drowned by what it shows
PATCHES_A_SIDE = 8  # what the patch size aims at when none is given


class Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(d) + mask) V, with d the width of a head."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """hidden: (batch, length, width); mask: (batch, 1, 1 or length, length), added, or None. Shape of `hidden`."""
        batch, length, width = hidden.shape
        heads = self.project_in(hidden).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        # No dropout on the attention weights: it would cost the fused kernel on CPU.
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: torch.Tensor = self.project_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class Block(nn.Module):
    """Attention and a feed-forward layer, each normalised before and added after (Xiong et al. 2020)."""

    def __init__(self, options: Transformer):
        super().__init__()
        width = options.width
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, options.heads)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, options.expansion * width),
            nn.GELU(approximate="tanh"),  # the fused tanh form, about twice as fast as erf on CPU
            nn.Linear(options.expansion * width, width),
        )
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """hidden: (batch, length, width); mask as in `Attention`. Returns the shape of `hidden`."""
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), mask))
        out: torch.Tensor = hidden + self.dropout(self.feed(self.feed_norm(hidden)))
        return out


class MeanPool(nn.Module):
    """Mean over the positions that the mask keeps, (batch, length, width) to (batch, width), after a last norm."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """attention_mask: (batch, length) bool, or None when every position is real."""
        hidden = self.norm(hidden)
        if attention_mask is None:
            return hidden.mean(1)
        kept = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * kept).sum(1) / kept.sum(1)


class Stack(nn.Module):
    """The blocks, the pool and the linear layer, over embedded positions."""

    def __init__(self, options: Transformer, classes: int):
        super().__init__()
        self.embedded = nn.Dropout(options.dropout)
        self.blocks = nn.ModuleList(Block(options) for _ in range(options.depth))
        self.pooled = MeanPool(options.width)
        self.head = nn.Linear(options.width, classes)
        self.apply(_initialise)

    def forward(self, embedded: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """embedded: (batch, length, width); attention_mask: (batch, length) bool or None. Returns (batch, classes)."""
        hidden = self.embedded(embedded)
        mask = None if attention_mask is None else _additive(attention_mask, hidden)
        for block in self.blocks:
            hidden = block(hidden, mask)
        logits: torch.Tensor = self.head(self.pooled(hidden, attention_mask))
        return logits


class TextTransformer(nn.Module):
    """Word pieces with learned positions through the stack."""

    def __init__(self, inputs: zoo.InputSpec, options: Transformer, classes: int):
        super().__init__()
        if inputs.vocab_size is None:
            raise ValueError("token inputs need a vocab_size")
        self.pieces = nn.Embedding(inputs.vocab_size, options.width)
        self.positions = nn.Parameter(torch.randn(inputs.shape[0], options.width) * PIECE_STD)
        self.stack = Stack(options, classes)
        nn.init.normal_(self.pieces.weight, std=PIECE_STD)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids: (batch, length) int64; attention_mask: (batch, length) bool. Returns (batch, classes)."""
        # A batch may be padded beyond the longest text there is: those positions are masked, any vector will do.
        length = input_ids.shape[1]
        positions = self.positions[:length]
        if length > len(positions):
            positions = F.pad(positions, (0, 0, 0, length - len(positions)))
        embedded = self.pieces(input_ids) + positions
        logits: torch.Tensor = self.stack(embedded, None if _all_real(attention_mask) else attention_mask)
        return logits


class ImageTransformer(nn.Module):
    """Square patches, zero-padded where the image does not divide, with learned positions through the stack."""

    def __init__(self, inputs: zoo.InputSpec, options: Transformer, classes: int):
        super().__init__()
        channels, height, width = inputs.shape
        self.patch = options.patch or patch_size(min(height, width))
        rows, columns = -(-height // self.patch), -(-width // self.patch)
        self.margin = (0, columns * self.patch - width, 0, rows * self.patch - height)
        self.project = nn.Linear(channels * self.patch**2, options.width)
        self.positions = nn.Parameter(torch.randn(rows * columns, options.width) * PATCH_STD)
        self.stack = Stack(options, classes)
        _initialise(self.project)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs: (batch, channels, height, width) float. Returns (batch, classes)."""
        patches = F.pixel_unshuffle(F.pad(inputs, self.margin), self.patch).flatten(2).transpose(1, 2)
        logits: torch.Tensor = self.stack(self.project(patches) + self.positions, None)
        return logits


def patch_size(side: int) -> int:
    """The patch for images of a shorter side: about eight a side, and two pixels at least where there are two."""
    return min(side, max(2, round(side / PATCHES_A_SIDE)))


def feature_layers(module: nn.Module) -> Mapping[str, nn.Module]:
    """What is kept as features, in the order of computation."""
    assert isinstance(module, TextTransformer | ImageTransformer)
    blocks = {f"block{index + 1}": block for index, block in enumerate(module.stack.blocks)}
    return {"embedded": module.stack.embedded, **blocks, "pooled": module.stack.pooled}


def _additive(attention_mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(batch, 1, 1, length): 0 on real tokens, -inf elsewhere. Made once, not by every block from a bool mask."""
    dtype = torch.get_autocast_dtype(like.device.type) if torch.is_autocast_enabled(like.device.type) else like.dtype
    mask = torch.zeros(attention_mask.shape, dtype=dtype, device=like.device)
    return mask.masked_fill(~attention_mask, -torch.inf)[:, None, None, :]


def _all_real(attention_mask: torch.Tensor) -> bool:
    """Whether nothing is padding. Asked on CPU only: elsewhere the answer would stall the device, or break a graph."""
    if attention_mask.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return bool(attention_mask.all())


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
