"""Changes that leave what a model computes as it is: units exchanged, units rescaled, a residual stream rotated.

Each is tried in float64 before it is made, and refused with the reason when the logits would change. The generator is
a `torch.Generator` on the CPU; the subject's own module is left as it was.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo.config import Precision
from zoo.disguise.reach import order
from zoo.disguise.structure import Group, Tensors, Trial, find, permuted, scaled
from zoo.engine import devices
from zoo.errors import Incompatible

if TYPE_CHECKING:
    from zoo.disguise.parent import Subject


def permute(subject: Subject, which: str | None, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """Exchange hidden units, channels and attention heads, each group by a random permutation of its own.

    which: "all" to exchange the coordinates of a transformer's residual stream as well.
    Raises Incompatible when nothing can be exchanged."""
    found = find(subject.module, subject.inputs())
    chosen = [group for group in found if group.kind != "stream" or which == "all"]
    if not chosen:
        raise Incompatible("permute: no units of this model could be exchanged without changing its answers.")
    state = dict(subject.module.state_dict())
    for group in chosen:
        state |= permuted(state, group, _shuffled(group.size, rng))
    return _changed(subject, state, {"groups": _told(chosen)})


def _shuffled(size: int, rng: torch.Generator) -> torch.Tensor:
    """A random permutation other than the identity; size is at least 2."""
    while True:
        drawn = torch.randperm(size, generator=rng)
        if not torch.equal(drawn, torch.arange(size)):
            return drawn


def rescale(subject: Subject, most: float, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """Make each unit larger by a factor of its own, and what reads it smaller by the same.

    most: factors are drawn between 1 / most and most, uniformly in their logarithm. That is exact where the unit goes
    through nothing but ReLU, averages and maxima; in attention it is the values against the output and the queries
    against the keys, a factor a head. Groups behind a GELU or a layer norm are left as they are and named in the
    record. Raises Incompatible when no group can be rescaled."""
    inputs = subject.inputs()
    trial = Trial(subject.module, inputs)
    state, chosen, left = dict(subject.module.state_dict()), [], []
    for group in find(subject.module, inputs):
        factors = torch.exp((2 * torch.rand(group.size, generator=rng, dtype=torch.float64) - 1) * math.log(most))
        if trial.keeps(scaled(trial.tensors, group, factors)):
            state |= scaled(state, group, factors)
            chosen.append(group)
        else:
            left.append(group)
    if not chosen:
        raise Incompatible(
            "rescale: every unit of this model goes through something that sizes matter to (such as GELU), "
            "so none can be rescaled without changing its answers."
        )
    return _changed(subject, state, {"groups": _told(chosen), "left": _told(left)})


def rotate_residual(subject: Subject, value: None, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """Rotate the residual stream of a pre-norm transformer by a random orthogonal matrix.

    The scale and shift of each layer norm are folded into the layers that read it. What is left of the norm subtracts
    the mean and divides by the spread; a rotation that keeps the vector of ones commutes with both, so it is drawn from
    those (Ashkboos et al. 2024 rotate after turning the norms into RMS norms, which such a rotation does not need).
    Raises Incompatible without such a stream, or where norms write into it (post-norm, as in BERT)."""
    inputs = subject.inputs()
    stream = next((group for group in find(subject.module, inputs) if group.kind == "stream"), None)
    if stream is None:
        raise Incompatible("rotate_residual: this model has no residual stream that layer norms read.")
    trial = Trial(subject.module, inputs)
    layers = order(subject.module, inputs)
    folded = _fold(layers, stream, trial.tensors)
    if not trial.keeps(folded):
        raise Incompatible(
            "rotate_residual: the layer norms of this model write into the residual stream (post-norm, as in BERT). "
            "Their scale differs by coordinate, and no rotation passes it."
        )
    rotated = dict(folded)
    turn = rotation(stream.size, rng).to(trial.logits.device)
    norms = {name for name, layer in layers if isinstance(layer, nn.LayerNorm)}
    for tie in stream.ties:
        if tie.tensor.rpartition(".")[0] not in norms:
            tensor = rotated.get(tie.tensor, trial.tensors[tie.tensor])
            rotated[tie.tensor] = torch.tensordot(tensor, turn, dims=([tie.axis], [1])).movedim(-1, tie.axis)
    if not trial.keeps(rotated):
        raise Incompatible("rotate_residual: the stream of this model cannot be rotated without changing its answers.")
    state = dict(subject.module.state_dict())
    state |= {name: tensor.to(state[name].dtype) for name, tensor in rotated.items()}
    return _changed(subject, state, {"width": stream.size})


def rotation(size: int, rng: torch.Generator) -> torch.Tensor:
    """A random orthogonal matrix (size, size), float64, that leaves the vector of ones where it is; size is at least 2.
    Uniform among those: Haar on the rest, by the QR decomposition with positive diagonal (Mezzadri 2007)."""
    ones = torch.full((size, 1), size**-0.5, dtype=torch.float64)
    drawn = torch.randn(size, size - 1, generator=rng, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, drawn], 1)).Q[:, 1:]
    other, upper = torch.linalg.qr(torch.randn(size - 1, size - 1, generator=rng, dtype=torch.float64))
    turned: torch.Tensor = ones @ ones.T + basis @ (other * upper.diagonal().sign()) @ basis.T
    return turned


def _fold(layers: Sequence[tuple[str, nn.Module]], stream: Group, tensors: Tensors) -> dict[str, torch.Tensor]:
    """Scale and shift of the stream's norms moved into the layers that read them; what changes, by name."""
    readers = {tie.tensor.removesuffix(".weight") for tie in stream.ties if tie.role == "in"}
    changed: dict[str, torch.Tensor] = {}
    norm = ""
    for name, layer in layers:
        if isinstance(layer, nn.LayerNorm):
            norm = name
            for own, plain in (("weight", 1.0), ("bias", 0.0)):
                if f"{name}.{own}" in tensors:
                    changed[f"{name}.{own}"] = torch.full_like(tensors[f"{name}.{own}"], plain)
        elif name in readers and norm:
            weight = tensors[f"{name}.weight"]
            if not isinstance(layer, nn.Linear):
                raise Incompatible(f"rotate_residual: {name} reads the stream and is no linear layer.")
            if (scale := tensors.get(f"{norm}.weight")) is not None:
                changed[f"{name}.weight"] = weight * scale
            shift = tensors.get(f"{norm}.bias")
            if shift is None or not shift.any():
                continue
            if layer.bias is None:
                raise Incompatible(f"rotate_residual: {name} has no bias that could take the shift of {norm}.")
            changed[f"{name}.bias"] = tensors[f"{name}.bias"] + weight @ shift
    return changed


def _changed(subject: Subject, state: Tensors, facts: Mapping[str, Any]) -> tuple[Subject, Mapping[str, Any]]:
    """The subject with another state. Facts get the largest change of a logit, as float32 rounding leaves it."""
    module = copy.deepcopy(subject.module)
    module.load_state_dict(state)
    inputs = subject.inputs()
    moved = (_logits(module, inputs) - _logits(subject.module, inputs)).abs().max()
    return subject.having(module), {**facts, "largest_change_of_a_logit": float(moved)}


def _logits(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    training = module.training
    module.eval()
    with torch.inference_mode(), devices.autocast(inputs[0].device, Precision.fp32):
        answers: torch.Tensor = module(*inputs)
    module.train(training)
    return answers


def _told(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [{"name": group.name, "kind": group.kind, "size": group.size} for group in groups]
