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


def clip_of(optimizer: torch.optim.Optimizer, clip: float) -> Callable[[], torch.Tensor | None]:
    """What scales all gradients down to this norm where it is larger together; no weight moves. 0: it does nothing.

    It returns by what the step is to divide them, or None: a fused optimizer divides by the scale of a `GradScaler`
    while it reads the gradients, a pass less over them, 2 % of a step of a small BERT on two cores."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    fused = bool(optimizer.defaults.get("fused"))

    def clipped() -> torch.Tensor | None:
        with torch.no_grad():
            if fused:
                norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
                return (norm / clip).clamp(min=1.0)
            torch.nn.utils.clip_grad_norm_(weights, clip)
            return None

    return clipped if clip else lambda: None


def step_of(optimizer: torch.optim.Optimizer) -> Callable[[torch.Tensor | None], object]:
    """One step of an optimizer as its class wrote it, without the wrappers that import the compiler, for the same
    reason. Hooks and `differentiable` are theirs; the engine uses neither. It takes what `clip_of` found."""
    step = inspect.unwrap(type(optimizer).step)

    def plain(divisor: torch.Tensor | None) -> object:
        with torch.no_grad():
            if divisor is None:
                return step(optimizer)
            optimizer.grad_scale = divisor  # type: ignore[attr-defined]
            try:
                return step(optimizer)
            finally:
                del optimizer.grad_scale  # type: ignore[attr-defined]

    return plain
