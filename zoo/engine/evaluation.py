"""What a trained module answers: logits of every example, and layer outputs of a probe subset."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from zoo.engine.batches import Batches, plan_evaluation
from zoo.errors import PluginError

if TYPE_CHECKING:
    from zoo.models import TorchModel

Result = TypeVar("Result")


def within_memory(size: int, compute: Callable[[int], Result]) -> Result:
    """compute(size), with half the size for as long as memory does not suffice. Raises the error at a size of 1."""
    while True:
        try:
            return compute(size)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        size //= 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    # The CPU allocator raises a plain RuntimeError; its text is the only thing to tell it by.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@torch.inference_mode()
def logits(
    module: torch.nn.Module, batches: Batches, batch_size: int, classes: int, rows: np.ndarray | None = None
) -> np.ndarray:
    """(examples, classes) float32 in the order of rows, in eval mode and float32 whatever the training used.

    A batch without gradients needs less memory than one with; 2 × batch_size are taken at once.
    rows: (examples,) int64: which are answered; default: all.
    Raises PluginError when the module returns another shape."""
    training = module.training
    module.eval()
    try:
        rows = np.arange(len(batches)) if rows is None else rows
        answers = torch.empty(len(rows), classes, device=batches.device)
        lengths = None if batches.lengths is None else batches.lengths[rows]
        plan = plan_evaluation(lengths, len(rows), 2 * batch_size)
        done = 0
        with contextlib.closing(batches.follow([rows[some] for some in plan])) as following:
            for batch in following:
                answer = check_logits(module(*batch.inputs), len(batch), classes)
                answers[done : done + len(batch)] = answer.float()
                done += len(batch)
        return in_order(answers.cpu().numpy(), plan)
    finally:
        module.train(training)


def in_order(answers: np.ndarray, plan: Sequence[np.ndarray]) -> np.ndarray:
    """Answers that follow a plan, in the order of the rows that it numbers. answers: (examples, …). Put in order here,
    since an accelerator would have to be told the rows of every batch."""
    ordered = np.empty_like(answers)
    ordered[np.concatenate([np.empty(0, np.int64), *plan])] = answers
    return ordered


def check_logits(answer: object, examples: int, classes: int) -> torch.Tensor:
    """The module's answer. Raises PluginError when it is not a float tensor (examples, classes)."""
    if not isinstance(answer, torch.Tensor):
        raise PluginError(
            f"The module returned {type(answer).__name__}; it must return logits, a float tensor (batch, classes)."
        )
    if answer.shape != (examples, classes) or not answer.is_floating_point():
        raise PluginError(
            f"The module returned {str(answer.dtype).removeprefix('torch.')} of shape {tuple(answer.shape)} "
            f"for a batch of {examples}; it must return float logits of shape ({examples}, {classes}), one a class."
        )
    return answer


@torch.inference_mode()
def features(
    model: TorchModel, module: torch.nn.Module, batches: Batches, rows: np.ndarray, batch_size: int = 64
) -> dict[str, np.ndarray]:
    """Layer name -> (len(rows), width) float32: outputs of `model.layers`, averaged over tokens or positions."""
    layers = model.layers(module)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    caught: dict[str, torch.Tensor] = {}
    module.eval()
    hooks = [layer.register_forward_hook(_catch(caught, name)) for name, layer in layers.items()]
    try:
        for start in range(0, len(rows), batch_size):
            batch = batches.take(rows[start : start + batch_size])
            caught.clear()
            module(*batch.inputs)
            mask = batch.inputs[1] if len(batch.inputs) > 1 else None
            for name in list(kept):
                if name in caught:
                    kept[name].append(pool(caught[name], mask).float().cpu().numpy())
    finally:
        for hook in hooks:
            hook.remove()
    return {name: np.concatenate(parts) for name, parts in kept.items() if parts}


def _catch(caught: dict[str, torch.Tensor], name: str):  # type: ignore[no-untyped-def]
    def hook(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple | list) else output
        if isinstance(first, torch.Tensor):
            caught[name] = first

    return hook


def pool(output: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """(batch, width) from (batch, width), (batch, length, width) or (batch, channels, height, width).

    Tokens are averaged where mask, (batch, length) bool, is True; without a mask over all."""
    if output.ndim == 2:
        return output
    if output.ndim == 3:
        if mask is None or mask.shape != output.shape[:2]:
            return output.mean(1)
        weight = mask.to(output.dtype)[:, :, None]
        return (output * weight).sum(1) / weight.sum(1)
    return output.flatten(2).mean(2)
