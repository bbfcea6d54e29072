"""What a trained module answers: logits of every example, and layer outputs of a probe subset."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch

from zoo import interrupts
from zoo.config import Precision
from zoo.engine import cpu, devices, memory
from zoo.engine.batches import Batch, Batches, plan_evaluation, sent
from zoo.errors import PluginError, TrainingError

Result = TypeVar("Result")

NO_MEMORY = (
    "Memory does not suffice even for one example at a time.\n"
    "Use a smaller model or shorter inputs (model.max_length), or another device (trainer.device=cpu)."
)


def within_memory(size: int, compute: Callable[[int], Result]) -> Result:
    """compute(size), with half the size for as long as memory does not suffice. Raises TrainingError when it does not
    at a size of 1."""
    while True:
        try:
            return compute(size)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise TrainingError(NO_MEMORY) from error
        size //= 2
        memory.release()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    # The CPU allocator raises a plain RuntimeError; its text is the only thing to tell it by.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


class Watched:
    """Outputs of a module's layers, kept of some examples while `logits` answers all of them.

    layers: by name, in the order in which they are to be kept; rows: (kept,) int64: of which examples, each at most
    once. What `logits` answers is the same whether layers are watched or not."""

    def __init__(self, layers: Mapping[str, torch.nn.Module], rows: np.ndarray) -> None:
        self._layers, self._rows = layers, rows
        self._caught: dict[str, torch.Tensor] = {}
        self._kept: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
        self._order: dict[str, list[np.ndarray]] = {name: [] for name in layers}

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within it the layers tell what they give. What was kept before is forgotten."""
        for name in self._layers:
            self._kept[name], self._order[name] = [], []
        hooks = [layer.register_forward_hook(_catch(self._caught, name)) for name, layer in self._layers.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self._caught.clear()

    def keep(self, batch: Batch) -> None:
        """After the module has answered a batch: pool what its layers gave for the examples that are kept."""
        here = np.flatnonzero(np.isin(batch.rows, self._rows))
        if len(here):
            index = sent(here, batch.labels.device)
            mask = batch.inputs[1][index] if len(batch.inputs) > 1 else None
            for name, output in self._caught.items():
                if len(output) != len(batch):
                    raise PluginError(
                        f"Layer '{name}' gave shape {tuple(output.shape)} for a batch of {len(batch)}.\n"
                        f"`layers` must name modules whose outputs have the batch as their first axis."
                    )
                self._kept[name].append(pool(output[index], mask).float())
                self._order[name].append(batch.rows[here])
        self._caught.clear()

    def features(self) -> dict[str, np.ndarray]:
        """Layer name -> (kept, width) float32 in the order of the rows, averaged over tokens or positions; without
        layers that were not called for all of them."""
        found: dict[str, np.ndarray] = {}
        for name, parts in self._kept.items():
            order = np.concatenate([np.empty(0, np.int64), *self._order[name]])
            if len(order) == len(self._rows) > 0:
                sorted_order = np.argsort(order)
                places = sorted_order[np.searchsorted(order, self._rows, sorter=sorted_order)]
                found[name] = torch.cat(parts).cpu().numpy()[places]
        return found


@torch.inference_mode()
def logits(
    module: torch.nn.Module,
    batches: Batches,
    batch_size: int,
    classes: int,
    rows: np.ndarray | None = None,
    *,
    precision: Precision = Precision.fp32,
    watched: Watched | None = None,
) -> np.ndarray:
    """(examples, classes) float32 in the order of rows, in eval mode.

    A batch without gradients needs less memory than one with; 2 × batch_size are taken at once.
    rows: (examples,) int64: which are answered; default: all. precision: what is computed in, float32 for whatever is
    stored. watched: keeps outputs of layers on the way.
    Raises PluginError when the module returns another shape."""
    training = module.training
    module.eval()
    try:
        rows = np.arange(len(batches)) if rows is None else rows
        answers = torch.empty(len(rows), classes, device=batches.device)
        lengths = None if batches.lengths is None else batches.lengths[rows]
        plan = plan_evaluation(lengths, len(rows), 2 * batch_size)
        done = 0
        with (
            devices.autocast(batches.device, precision),
            cpu.answering(module, batches.device),
            contextlib.nullcontext() if watched is None else watched.listening(),
            contextlib.closing(batches.follow([rows[some] for some in plan])) as following,
        ):
            for batch in following:
                interrupts.require_none()
                answer = check_logits(module(*batch.inputs), len(batch), classes)
                answers[done : done + len(batch)] = answer.float()
                done += len(batch)
                if watched is not None:
                    watched.keep(batch)
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
