"""How a module is called: seeded, on a padded batch, in eval or train mode. As the engine does it, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from zoo.models import Encoded, InputSpec, Tokens

Batch = tuple["torch.Tensor", ...]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All global generators start from `seed` inside, and are put back afterwards."""
    from zoo.engine.fitting import generators_kept, seed_everything

    with generators_kept():
        seed_everything(seed)
        yield


def batch(encoded: Encoded, spec: InputSpec, rows: Sequence[int], extra: int = 0) -> Batch:
    """What the engine calls the module with. extra: so many more padding tokens, as far as `spec.shape` allows."""
    import numpy as np
    import torch

    from zoo.engine.batches import Batches

    labels = np.zeros(len(encoded), dtype=np.int64)
    inputs = Batches(encoded, labels, spec, torch.device("cpu")).take(np.array(rows, dtype=np.int64)).inputs
    if spec.kind == "dense" or not extra:
        return inputs
    ids, mask = inputs
    room = (0, min(extra, spec.shape[0] - ids.shape[1]))
    return torch.nn.functional.pad(ids, room, value=spec.pad_id), torch.nn.functional.pad(mask, room)


def lengths(encoded: Tokens) -> list[int]:
    """Tokens of each example."""
    return [int(after - before) for before, after in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)]


def logits(module: torch.nn.Module, inputs: Batch, training: bool = False) -> torch.Tensor:
    """The module's answer, detached. training: in train mode."""
    import torch

    module.train(training)
    with torch.no_grad():
        return torch.as_tensor(module(*inputs)).detach()
