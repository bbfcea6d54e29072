"""Dropout, attention, look-ups and casts in training on a CPU, where torch's own are slow: the same functions, computed
otherwise."""

from __future__ import annotations

import contextlib
import math
import platform
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_STEPS = 1 << 16  # a share is compared with 16 random bits

_LEAST_ROWS, _LEAST_LAYER, _LEAST_PRODUCT = 32, 1 << 12, 1 << 22  # multiply-adds: below, a call of oneDNN does not pay
_LARGE_TABLE = 1 << 20  # weights; the zeros of a smaller table are written at once

MOST_TOKENS = 256
"""Without dropout, longer sequences are left to torch, whose kernel does not keep the whole matrix of weights."""


class CpuTraining(TorchFunctionMode):
    """Within it, some functions of `torch.nn.functional` are computed by this class, each where torch's own is slow:

    - `dropout`: torch draws its bits one by one from one thread. The rate is rounded to a multiple of 2^-16, and so is
      the scale that makes up for it.
    - `scaled_dot_product_attention`: with dropout or in bfloat16 torch's takes about twice the time of the formula.
    - `embedding`: torch fills a gradient as large as the table in every step; `Tables` keeps one.
    - `linear`: under autocast, several layers that read one tensor (query, key and value) each have it cast anew. Here
      they share one cast, so the gradients that they send back to that tensor are added up in bfloat16, where torch
      adds them in float32.

    Everything else, and all of these on another device, is torch's. So are all of these without gradients, and where
    somebody else keeps the tensors that the way back needs (`_hooked`): activation checkpointing computes them once
    more on the way back, outside this mode and from torch's random bits, and must come to what it had.

    seed: of the bits, which come from a generator of their own (SFC64): they depend neither on torch's state nor on the
    number of threads.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.tables = Tables()
        self._bits = np.random.SFC64(seed)
        self._cast: _Cast | None = None

    def __exit__(self, *error: Any) -> None:
        self._cast = None
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _OURS or not torch.is_grad_enabled() or _hooked():
            return func(*args, **(kwargs or {}))
        if func is F.dropout:
            return self._dropout(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **(kwargs or {}))
        if func is F.embedding:
            return self.tables.look_up(*args, **(kwargs or {}))
        if func is F.linear and len(args) and isinstance(args[0], torch.Tensor):
            return func(self._once_cast(args[0]), *args[1:], **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(
        self, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        dropped = round(p * _STEPS)
        ours = training and not inplace and 0 < dropped < _STEPS and input.device.type == "cpu"
        if not (ours and input.is_floating_point()):
            return F.dropout(input, p, training, inplace)
        bits = self._bits.random_raw(math.ceil(input.numel() / 4)).view(np.int16)[: input.numel()]
        keep = np.greater_equal(bits, np.int16(dropped - _STEPS // 2))
        return input * _either(keep, _STEPS / (_STEPS - dropped), input.dtype).view(input.shape)

    def _once_cast(self, input: torch.Tensor) -> torch.Tensor:
        """The input as autocast would cast it; the same cast for as long as one layer after another reads it.

        A tensor made in inference mode is left alone: it does not count its versions."""
        if input.device.type != "cpu" or input.dtype is not torch.float32 or not torch.is_autocast_enabled("cpu"):
            return input
        if input.is_inference():
            return input
        state = input._version, input.requires_grad, torch.get_autocast_dtype("cpu")
        if self._cast is None or self._cast.source is not input or self._cast.state != state:
            self._cast = _Cast(input, state, input.to(state[-1]))
        return self._cast.made

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


_WHOLE = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def _either(which: np.ndarray, value: float, dtype: torch.dtype) -> torch.Tensor:
    """(n,) of a floating dtype: the value where `which`, (n,) bool, is true, else 0.

    By the bits of the value: numpy compares and masks small integers several times as fast as torch turns booleans
    into numbers."""
    sample = torch.tensor([value], dtype=torch.float64 if dtype is torch.float64 else torch.float32).to(dtype)
    kind = _WHOLE[dtype.itemsize]
    pattern = sample.view(torch.uint8).numpy().view(kind)[0]
    found: np.ndarray = np.bitwise_and(-which.view(np.int8), pattern, dtype=kind)
    return torch.from_numpy(found).view(dtype)


_OURS = (F.dropout, F.scaled_dot_product_attention, F.embedding, F.linear)


@dataclass(frozen=True)
class _Cast:
    """A tensor and its cast. state: what decides the cast beside the tensor: version, whether it wants a gradient,
    dtype."""

    source: torch.Tensor
    state: tuple[int, bool, torch.dtype]
    made: torch.Tensor


def _hooked() -> bool:
    """Whether somebody handles the tensors that are saved for the way back, as activation checkpointing does.

    Hooks cannot be forbidden where there are some already: the only public way to ask."""
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("asked for"):
            return False
    except RuntimeError:
        return True


class CpuAnswers(TorchFunctionMode):
    """Within it, and without gradients, large linear layers in float32 are computed by oneDNN instead of MKL: 2.2 times
    as fast on an AMD processor with AVX-512 (one thread, 64 to 2048 rows), in float32 like the other."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs and _pays(*args):
            input, weight, *bias = args
            return torch.ops.mkldnn._linear_pointwise(input, weight, bias[0] if bias else None, "none", [], "")
        return func(*args, **(kwargs or {}))


def answering(module: torch.nn.Module, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Around evaluation: `CpuAnswers` where a layer of the module gains by it, else nothing."""
    # A compiled module has oneDNN in its graph already, and would be compiled anew for the mode.
    compiled = "torch._dynamo" in sys.modules and isinstance(module, sys.modules["torch._dynamo"].OptimizedModule)
    if device.type != "cpu" or compiled or not _has_onednn():
        return contextlib.nullcontext()
    layers = (part for part in module.modules() if isinstance(part, torch.nn.Linear))
    return CpuAnswers() if any(layer.weight.numel() >= _LEAST_LAYER for layer in layers) else contextlib.nullcontext()


def _has_onednn() -> bool:
    """Whether this torch has oneDNN, and the operator with which its compiler calls it."""
    known = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    known = bool(known) and platform.machine() in ("x86_64", "AMD64")
    return known and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _pays(input: Any, weight: Any, bias: Any = None) -> bool:
    """Whether a linear layer is plain, in float32 and of enough multiply-adds for oneDNN's call to pay."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    for tensor in (input, weight) if bias is None else (input, weight, bias):
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.is_contiguous()
        if not plain or tensor.dtype is not torch.float32 or tensor.device.type != "cpu":
            return False
    rows = int(input.numel()) // max(1, int(input.shape[-1]))
    return rows >= _LEAST_ROWS and rows * int(weight.numel()) >= _LEAST_PRODUCT


class Tables:
    """Gradients of tables that are looked up in. One of each is kept from step to step, and only the rows that a step
    used are cleared: to fill a new one with zeros costs a small BERT 4 % of a step. A table that has a gradient from
    elsewhere as well, from tied weights or another micro-batch, is left to torch from then on.
    """

    def __init__(self) -> None:
        self._free: dict[torch.Tensor, torch.Tensor] = {}
        self._used: dict[torch.Tensor, _Used] = {}
        self._left: set[torch.Tensor] = set()

    def look_up(
        self, input: torch.Tensor, weight: torch.Tensor, padding_idx: int | None = None, *args: Any, **rest: Any
    ) -> torch.Tensor:
        """`torch.nn.functional.embedding`."""
        further = args or any(rest.get(option) for option in ("max_norm", "scale_grad_by_freq", "sparse"))
        if further or weight in self._left or not _is_trained_table(weight):
            return F.embedding(input, weight, padding_idx, *args, **rest)
        found: torch.Tensor = _LookUp.apply(weight, input, padding_idx, _Table(weight, self))  # type: ignore[no-untyped-call]
        return found

    def gradient(self, weight: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """(*weight.shape), zero but for the sums of these values, (n, width), in these rows, (n,) int64."""
        made = self._free.pop(weight, None)
        if made is None:
            made = torch.zeros_like(weight)
        made.index_add_(0, rows, values)
        self._used[weight] = _Used(rows, made.data_ptr(), made._version)
        return made

    def settle(self) -> None:
        """After each backward pass: find the tables whose gradient is not what `gradient` returned."""
        for weight, used in list(self._used.items()):
            if weight.grad is None or (weight.grad.data_ptr(), weight.grad._version) != (used.address, used.version):
                del self._used[weight]
                self._left.add(weight)

    def clear(self) -> None:
        """Take the gradients, as `zero_grad(set_to_none=True)` does, and keep them for the next step."""
        for weight, used in self._used.items():
            kept, weight.grad = weight.grad, None
            if kept is not None:
                self._free[weight] = kept.index_fill_(0, used.rows, 0)
        self._used.clear()

    def drop(self) -> None:
        """Forget all gradients: their memory is free."""
        self._free.clear()
        self._used.clear()


def _is_trained_table(weight: torch.Tensor) -> bool:
    """Whether its gradient is large, and of a kind that can be written row by row."""
    plain = weight.is_leaf and weight.requires_grad and torch.is_grad_enabled() and not weight._backward_hooks
    return plain and weight.numel() >= _LARGE_TABLE and weight.device.type == "cpu" and weight.is_contiguous()


@dataclass(frozen=True)
class _Used:
    """A gradient as it was made. rows: which are not zero."""

    rows: torch.Tensor
    address: int
    version: int


@dataclass(frozen=True)
class _Table:
    """A weight as a caller knows it, and where its gradient is kept."""

    weight: torch.Tensor
    home: Tables


class _LookUp(torch.autograd.Function):
    """`F.embedding` whose gradient is written into a table that is at hand."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ids: torch.Tensor, padding_idx: int | None, table: _Table) -> Any:
        ctx.save_for_backward(ids)
        ctx.padding_idx, ctx.table = padding_idx, table
        return F.embedding(ids, weight, padding_idx)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (ids,) = ctx.saved_tensors
        # A copy: the model may write other ids into its tensor before the rows are cleared.
        rows = ids.reshape(-1).to(torch.int64, copy=True)
        values = gradients[0].reshape(-1, ctx.table.weight.shape[1])
        if ctx.padding_idx is not None and (padding := rows == ctx.padding_idx % len(ctx.table.weight)).any():
            values = values.masked_fill(padding[:, None], 0)
        found = ctx.table.home.gradient(ctx.table.weight, rows, values)
        return found, None, None, None


def _empty_row(mask: torch.Tensor | None) -> bool:
    """Whether some query may look at nothing: torch gives it zeros, and the plain formula NaN."""
    if mask is None:
        return False
    seen = mask if mask.dtype is torch.bool else mask > -math.inf
    return not bool(seen.any(-1).all())
