"""Optimizers that leave torch's compiler unloaded, and do what they always did."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

import pytest
import torch

from zoo.engine.optimizers import clip_of, step_of, without_compiler

KINDS = [(torch.optim.AdamW, {"fused": True}), (torch.optim.Adam, {}), (torch.optim.SGD, {"momentum": 0.9})]

TRAIN = """
import sys, torch
from zoo.engine.optimizers import step_of, without_compiler
module = torch.nn.Linear(4, 2)
for kind in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD):
    with without_compiler():
        optimizer = kind([{"params": list(module.parameters()), "weight_decay": 0.0}], lr=0.1)
        module(torch.ones(1, 4)).sum().backward()
        step_of(optimizer)(None)
        optimizer.zero_grad(set_to_none=True)
sys.exit("torch._dynamo" in sys.modules)
"""


def test_training_does_not_load_the_compiler() -> None:
    assert subprocess.run([sys.executable, "-c", TRAIN], timeout=120).returncode == 0


def trained(kind: Any, options: dict[str, Any], ours: bool, clip: float = 0.0) -> list[torch.Tensor]:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    inputs = torch.randn(16, 4)
    with without_compiler() if ours else contextlib.nullcontext():
        optimizer = kind(module.parameters(), lr=0.05, **options)
        clipped, step = clip_of(optimizer, clip), step_of(optimizer)
        for _ in range(5):
            module(inputs).square().sum().backward()
            if ours:
                step(clipped())
            else:
                if clip:
                    torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            assert all(weight.grad is None for weight in module.parameters())
    return [weight.detach() for weight in module.parameters()]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_step_is_the_optimizers_own(kind: Any, options: dict[str, Any]) -> None:
    for one, other in zip(trained(kind, options, ours=True), trained(kind, options, ours=False), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("clip", [0.1, 1e6])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_clipped_step_is_that_after_torchs_clipping(kind: Any, options: dict[str, Any], clip: float) -> None:
    ours, theirs = (trained(kind, options, ours, clip) for ours in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    unclipped = trained(kind, options, ours=True)
    assert all(torch.equal(one, other) for one, other in zip(ours, unclipped, strict=True)) == (clip > 1)


@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_clipping_moves_no_weight(kind: Any, options: dict[str, Any], clip: float) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = kind([weight], lr=0.5, **options)
    weight.square().sum().backward()
    clip_of(optimizer, clip)()
    assert weight.tolist() == [1.0, 1.0]
    assert not optimizer.state


def test_a_step_is_no_part_of_the_graph() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    weight.sum().backward()
    step_of(optimizer)(None)
    assert weight.tolist() == [0.5, 0.5]
    assert weight.grad_fn is None


def test_optimizers_outside_are_as_they_were() -> None:
    def marked() -> list[str]:
        methods = vars(torch.optim.Optimizer).items()
        return [name for name, method in methods if "__dynamo_disable" in vars(getattr(method, "__wrapped__", list))]

    before = marked()
    with pytest.raises(KeyError), without_compiler():
        raise KeyError
    assert marked() == before
