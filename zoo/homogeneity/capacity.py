"""The capacity of a channel, by Newton's method: what the Rashomon capacity of a set of models is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoo.homogeneity.bootstrap import tensor

if TYPE_CHECKING:
    import torch

_STEPS = 100
_TOLERANCE = 1e-7  # bits


def capacity(channels: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Capacity in bits of channels whose inputs are models and whose outputs are classes.

    channels: (n, M, C) float, rows summing to 1. Returns (n,) float64 in [0, log2 min(M, C)], within 1e-7 bits: the
    iteration ends when the bounds of Arimoto (1972), max_m D(p_m ‖ q) and its mean under the input, are that close.
    The steps are Newton's on the interior of the simplex (primal-dual, all channels at once) and not Blahut's, which
    may still be 1e-4 bits away after a thousand where an input hardly matters."""
    import torch

    rows = tensor(channels, device, torch.float64)
    negative = -torch.special.entr(rows).sum(dim=2)
    found = torch.zeros(len(rows), dtype=torch.float64, device=device)
    going, inputs = torch.arange(len(rows), device=device), torch.full_like(negative, 1 / max(rows.shape[1], 1))
    slack = torch.ones_like(inputs)
    for _ in range(_STEPS):
        far = _divergence_from_mean(rows, negative, inputs)
        lower = (inputs * far).sum(dim=1)
        found[going] = lower
        left = (far.max(dim=1).values - lower) / np.log(2) > _TOLERANCE
        if not left.any():
            break
        going, rows, negative, inputs, slack, far = (part[left] for part in (going, rows, negative, inputs, slack, far))
        inputs, slack = _newton(rows, inputs, slack, far)
    bits: np.ndarray = (found / np.log(2)).cpu().numpy()
    return bits


def _newton(
    rows: torch.Tensor, inputs: torch.Tensor, slack: torch.Tensor, far: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A step towards D_m + s_m = C, w_m s_m = μ, Σ w = 1, with μ a tenth of its present mean. All (n, M)."""
    import torch

    mixed = (inputs.unsqueeze(1) @ rows).squeeze(1)
    scaled = rows * mixed.where(mixed > 0, mixed.new_ones(())).rsqrt()[:, None]
    root = inputs.sqrt()
    curved = (root[:, :, None] * scaled) @ (root[:, :, None] * scaled).mT + torch.diag_embed(slack)
    goal = 0.1 * (inputs * slack).mean(dim=1, keepdim=True)
    sides = torch.stack([root * (far + goal / inputs), root], dim=2)
    solved = torch.linalg.solve(curved, sides) * root[:, :, None]
    level = solved[:, :, 0].sum(dim=1, keepdim=True) / solved[:, :, 1].sum(dim=1, keepdim=True)
    move = solved[:, :, 0] - level * solved[:, :, 1]
    slack_move = (goal - slack * move) / inputs - slack
    inputs, slack = (now + _inside(now, by) * by for now, by in ((inputs, move), (slack, slack_move)))
    return inputs / inputs.sum(dim=1, keepdim=True), slack


def _inside(now: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
    """The share of the move, at most 1, that leaves everything positive; (n, 1)."""
    room = (-now / move).where(move < 0, now.new_full((), 1e9))
    return (0.9 * room.amin(dim=1, keepdim=True)).clamp(max=1)


def _divergence_from_mean(rows: torch.Tensor, negative: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """D(p_m ‖ Σ w p) in nats, (n, M)."""
    mixed = (weights.unsqueeze(1) @ rows).squeeze(1)
    logs = mixed.log().where(mixed > 0, mixed.new_zeros(()))
    return negative - (rows @ logs.unsqueeze(2)).squeeze(2)
