"""The arithmetic of a module, as torch counts it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from zoo.engine.batches import Batches

EXAMPLES = 2
"""As many are counted: those whose lengths are in the middle."""


def multiply_adds(module: torch.nn.Module, inputs: Iterable[tuple[torch.Tensor, ...]]) -> list[float]:
    """Multiply-adds of one forward call for each of the inputs: matrix products and convolutions, as torch counts them.

    Attention and LSTMs are computed from plain products meanwhile: the counter does not know every fused kernel."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counted = []
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _without_fused_blocks():
        for one in inputs:
            with FlopCounterMode(display=False) as counter:
                module(*one)
            counted.append(counter.get_total_flops() / 2)
    return counted


@contextlib.contextmanager
def _without_fused_blocks() -> Iterator[None]:
    """torch's own Transformer layers have a fused path in evaluation that no counter looks into, and oneDNN's LSTM is
    one such operation."""
    import torch

    attention, onednn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(attention)
        torch.backends.mkldnn.enabled = onednn


def of_a_product(module: torch.nn.Module, batches: Batches, batch_size: int) -> float:
    """Multiply-adds of the mean matrix product or convolution in the forward pass of a training step: what decides
    whether bfloat16 and a second thread pay on a CPU.

    Counted on a few examples of middle length, in evaluation, and for as many weight matrices as the module has outside
    embedding tables. The module, its mode and torch's random numbers stay as they are. 0 on other devices, where it
    decides nothing, and for a module that has no such matrix or fails: training is about to tell of that, with what
    helps.
    """
    import torch

    if batches.device.type != "cpu":
        return 0.0
    matrices = sum(parameter.ndim > 1 for parameter in outside_tables(module))
    rows = _middle(batches)
    if not matrices or not len(rows):
        return 0.0
    modes = [(part, part.training) for part in module.modules()]
    try:
        with torch.random.fork_rng(devices=[]):
            (counted,) = multiply_adds(module.eval(), [batches.take(rows).inputs])
    except Exception:
        return 0.0
    finally:
        for part, mode in modes:
            part.training = mode
    return counted / len(rows) * batch_size / matrices


def outside_tables(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that are no embedding table: what the arithmetic of a step grows with."""
    import torch

    tables = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding | torch.nn.EmbeddingBag)}
    return [parameter for parameter in module.parameters() if id(parameter) not in tables]


def _middle(batches: Batches) -> np.ndarray:
    if batches.lengths is None:
        return np.arange(min(EXAMPLES, len(batches)))
    start = max(len(batches) // 2 - EXAMPLES // 2, 0)
    return np.argsort(batches.lengths, kind="stable")[start : start + EXAMPLES]
