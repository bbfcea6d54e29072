"""Dropout and attention in training on a CPU, where torch's own are slow: the same functions, computed otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_STEPS = 1 << 16  # a share is compared with 16 random bits

MOST_TOKENS = 256
"""Without dropout, longer sequences are left to torch, whose kernel does not keep the whole matrix of weights."""


class CpuTraining(TorchFunctionMode):
    """Within it, `torch.nn.functional.dropout` and `scaled_dot_product_attention` are computed by this class.

    torch draws the bits of a dropout one by one from one thread, and with dropout or in bfloat16 its attention on a CPU
    takes about twice the time of the plain formula. Everything else, and both on another device, is torch's.
    The rate of a dropout is rounded to a multiple of 2^-16, and so is the scale that makes up for it.

    seed: of the bits, which come from a generator of their own (SFC64): they depend neither on torch's state nor on the
    number of threads.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._bits = np.random.SFC64(seed)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.dropout:
            return self._dropout(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(
        self, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        dropped = round(p * _STEPS)
        ours = training and not inplace and 0 < dropped < _STEPS and input.device.type == "cpu"
        if not (ours and input.is_floating_point()):
            return F.dropout(input, p, training, inplace)
        bits = self._bits.random_raw(math.ceil(input.numel() / 4)).view(np.int16)[: input.numel()]
        keep = torch.from_numpy(bits).view(input.shape) >= dropped - _STEPS // 2
        return input * keep.to(input.dtype).mul_(_STEPS / (_STEPS - dropped))

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        **rest: Any,
    ) -> torch.Tensor:
        """softmax(query · keyᵀ / √width) · value. rest: is_causal, scale, enable_gqa."""
        scale = rest.pop("scale", None)
        gains = dropout_p > 0 or (query.dtype is torch.bfloat16 and key.shape[-2] <= MOST_TOKENS)
        if query.device.type != "cpu" or not gains or any(rest.values()) or _empty_row(attn_mask):
            return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, scale=scale, **rest)
        scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
        if attn_mask is not None:
            ruled_out = attn_mask.dtype is torch.bool
            scores = scores.masked_fill(~attn_mask, -math.inf) if ruled_out else scores + attn_mask
        return self._dropout(scores.softmax(-1), dropout_p) @ value


def _empty_row(mask: torch.Tensor | None) -> bool:
    """Whether some query may look at nothing: torch gives it zeros, and the plain formula NaN."""
    if mask is None:
        return False
    seen = mask if mask.dtype is torch.bool else mask > -math.inf
    return not bool(seen.any(-1).all())
