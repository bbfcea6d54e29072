"""Examination of the frozen part that a model names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zoo.errors import ZooError
from zoo.testing.calling import Batch, logits, seeded
from zoo.testing.findings import Inapplicable, Problem

if TYPE_CHECKING:
    import torch

    from zoo.models import FrozenPart
    from zoo.testing.modules import Trial

TOLERANCE = 1e-5  # of logits, relative above 1: the same sums in the same batch, taken in two calls


def is_frozen_in_part(trial: Trial) -> Iterator[Problem]:
    """Problems with `frozen`: the two parts are the module, and the body is a fixed function, in train mode too."""
    from zoo.engine.frozen import check_parts

    answer, module = trial.answer(), trial.module()
    part = trial.model().frozen(module)
    if part is None:
        raise Inapplicable
    try:
        check_parts(trial.cls.name, module, part)
    except ZooError as error:
        yield Problem(str(error), "Return zoo.FrozenPart(body, head, key), made of the module's own submodules.")
        return
    vectors = logits(part.body, trial.batch())
    if not vectors.is_floating_point() or vectors.dim() < 2 or len(vectors) != len(answer):
        yield Problem(f"its body gives {vectors.dtype} {tuple(vectors.shape)}", "Give floats, (batch, *shape).")
        return
    if not (difference := _largest(answer, logits(part.head, (vectors.float(),)))) <= TOLERANCE:
        yield Problem(
            f"head(body(inputs)) differs from the module's logits by up to {difference:.2g}",
            "The body is everything up to the head, and the head everything after the body.",
        )
    if not _is_fixed(trial, module, part, vectors):
        yield Problem(
            "in train mode of the module the body gives something else",
            "Override train() so that what is frozen stays in eval mode: no dropout, no statistics of the batch.",
        )


def _is_fixed(trial: Trial, module: torch.nn.Module, part: FrozenPart, vectors: torch.Tensor) -> bool:
    import torch

    def drawn(inputs: Batch, seed: int) -> torch.Tensor:
        module.train()
        with seeded(seed), torch.no_grad():
            return torch.as_tensor(part.body(*inputs))

    found = [drawn(trial.batch(), seed) for seed in (7, 8)]
    module.eval()
    return torch.equal(*found) and _largest(vectors, found[0]) <= TOLERANCE


def _largest(one: torch.Tensor, two: torch.Tensor) -> float:
    return float(((one - two).abs() / one.abs().clamp(min=1)).max())
