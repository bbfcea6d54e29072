"""The arithmetic of a module, as torch counts it."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from zoo.engine.batches import Batches

log = logging.getLogger("zoo")

EXAMPLES = 2
"""As many are counted: those of nearly the mean length."""


def multiply_adds(module: torch.nn.Module, inputs: Iterable[tuple[torch.Tensor, ...]]) -> list[float]:
    """Multiply-adds of one forward call for each of the inputs: matrix products and convolutions, as torch counts them.

    Attention, and on a CPU an LSTM, is computed from plain products meanwhile: torch does not count fused kernels."""
    return [float(sum(products)) for products in _counted(module, inputs)]


def of_a_product(module: torch.nn.Module, batches: Batches, batch_size: int) -> float:
    """Multiply-adds of the mean matrix product or convolution in the forward pass of a training step: what decides
    whether bfloat16 and a second thread pay on a CPU.

    Counted on a few examples of nearly the mean length, by a copy of the module in evaluation; Python's, numpy's and
    torch's random numbers go on as if nothing had been. batch_size: examples at once. 0, with a line in the log, when
    the module has no such product, or fails: training tells of that, with what helps.
    """
    from zoo.engine.fitting import generators_kept

    rows = _usual(batches)
    try:
        with generators_kept():
            twin = copy.deepcopy(module)
            twin.eval()
            (products,) = _counted(twin, [batches.take(rows).inputs])
    except Exception as error:
        log.info("its matrix products cannot be counted (%s): taken for small", type(error).__name__)
        return 0.0
    return sum(products) / len(products) / len(rows) * min(batch_size, len(batches)) if products else 0.0


def _counted(module: torch.nn.Module, inputs: Iterable[tuple[torch.Tensor, ...]]) -> Iterator[list[float]]:
    """For each of the inputs the multiply-adds of every product of a forward call."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils import flop_counter

    from zoo.engine.optimizers import without_compiler

    products: list[float] = []

    def noted(formula: Callable[..., Any]) -> Callable[..., Any]:
        def count(*shapes: Any, out_shape: Any = None, **named: Any) -> Any:
            flops = formula(*shapes, out_val=out_shape, **named)
            products.append(flops / 2)
            return flops

        return count

    formulas = {operation: noted(formula) for operation, formula in flop_counter.flop_registry.items()}
    mode = getattr(flop_counter, "_FlopCounterMode", flop_counter.FlopCounterMode)
    for one in inputs:
        products.clear()
        counter = flop_counter.FlopCounterMode(display=False, custom_mapping=formulas)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _without_fused_blocks(), without_compiler(mode), counter:
            module(*one)
        yield [flops for flops in products if flops]


@contextlib.contextmanager
def _without_fused_blocks() -> Iterator[None]:
    """torch's own Transformer layers have a fused path in evaluation that no counter looks into, and oneDNN's LSTM is
    one such operation."""
    import torch

    attention, onednn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(attention)
        torch.backends.mkldnn.enabled = onednn


def _usual(batches: Batches) -> np.ndarray:
    """Rows of a few examples whose lengths are nearest their mean."""
    if batches.lengths is None:
        return np.arange(min(EXAMPLES, len(batches)))
    return np.argsort(np.abs(batches.lengths - batches.lengths.mean()), kind="stable")[:EXAMPLES]
