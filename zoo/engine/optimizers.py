"""torch's optimizers without its compiler, which they import only to tell it to leave them alone."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator

import torch

_MARK = "__dynamo_disable"  # where `torch._compile` remembers what to call instead


@contextlib.contextmanager
def without_compiler(cls: type = torch.optim.Optimizer) -> Iterator[None]:
    """Within it, making an optimizer and clearing its gradients do not import `torch._dynamo` (a second, 700 modules);
    nor does another class whose methods are wrapped like those.

    The methods are wrapped: when first called, they have the compiler make a version of themselves that it leaves
    alone. Here they find that each is such a version already, and so it stays where a module is compiled: they are no
    part of it. A torch that does this in another way does it as ever.
    """
    wrapped = [getattr(method, "__wrapped__", None) for method in vars(cls).values()]
    marked = [method for method in wrapped if callable(method) and not hasattr(method, _MARK)]
    for method in marked:
        setattr(method, _MARK, method)
    try:
        yield
    finally:
        for method in marked:
            delattr(method, _MARK)


def step_of(optimizer: torch.optim.Optimizer, clip: float = 0.0) -> Callable[[], object]:
    """One step of an optimizer as its class wrote it, without the wrappers that import the compiler, for the same
    reason. Hooks and `differentiable` are theirs; the engine uses neither.

    clip: largest norm of all gradients together; above it they are scaled down to it. 0: they are not."""
    step = inspect.unwrap(type(optimizer).step)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    fused = bool(optimizer.defaults.get("fused"))

    def plain() -> object:
        with torch.no_grad():
            if clip and fused:
                return scaled()
            if clip:
                torch.nn.utils.clip_grad_norm_(weights, clip)
            return step(optimizer)

    def scaled() -> object:
        """A fused optimizer divides by the scale of a `GradScaler` while it reads the gradients: a pass less over
        them, 2 % of a step of a small BERT on two cores."""
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        optimizer.grad_scale = (norm / clip).clamp(min=1.0)  # type: ignore[attr-defined]
        try:
            return step(optimizer)
        finally:
            del optimizer.grad_scale  # type: ignore[attr-defined]

    return plain
