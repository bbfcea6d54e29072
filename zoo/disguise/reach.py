"""What the training data reaches: which layers run in which order, which rows are looked up, which inputs vary."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo.engine.batches import plan_evaluation

if TYPE_CHECKING:
    from zoo.disguise.parent import Subject
    from zoo.engine.batches import Batch

Look = Callable[[str, Any, tuple[Any, ...]], None]


@contextlib.contextmanager
def watching(module: torch.nn.Module, look: Look) -> Iterator[None]:
    """Within, `look(name, layer, inputs)` is called before each layer that has weights of its own runs."""

    def hook(name: str) -> Callable[..., None]:
        def before(layer: Any, inputs: tuple[Any, ...]) -> None:  # what a hook returns would replace the inputs
            look(name, layer, inputs)

        return before

    leaves = {name: part for name, part in module.named_modules() if any(True for _ in part.parameters(recurse=False))}
    hooks = [part.register_forward_pre_hook(hook(name)) for name, part in leaves.items()]
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
        for handle in hooks:
            handle.remove()


def order(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[tuple[str, Any]]:
    """Name and layer of everything with weights of its own, in the order of execution, each once."""
    ran: dict[str, Any] = {}

    def look(name: str, layer: Any, _inputs: tuple[Any, ...]) -> None:
        ran.setdefault(name, layer)

    with watching(module, look), torch.inference_mode():
        module(*inputs)
    return list(ran.items())


def training_batches(subject: Subject) -> Iterator[Batch]:
    """Every training example once."""
    batches = subject.ready.batches["train"]
    plan = plan_evaluation(batches.lengths, len(batches), subject.trainer.batch_size)
    with contextlib.closing(batches.follow(plan)) as following:
        yield from following


def padding_rows(module: torch.nn.Module) -> Mapping[str, int]:
    """Table name -> the row that stands for padding, which the model may count on."""
    tables = ((name, part) for name, part in module.named_modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag))
    return {f"{name}.weight": part.padding_idx for name, part in tables if part.padding_idx is not None}


def untouched_rows(subject: Subject) -> dict[str, list[int]]:
    """Parameter name -> rows of a table that no training example looks up, and rows of a parameter of two axes outside
    any layer (such as positions) whose gradient is exactly zero over the training split. Padding rows do not count."""
    module = subject.module
    seen: dict[str, torch.Tensor] = {}
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag):
            seen[f"{name}.weight"] = torch.zeros(part.num_embeddings, dtype=torch.bool, device=part.weight.device)
    bare = bare_tables(module)
    for name, weight in bare.items():
        seen[name] = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)

    def look(name: str, layer: Any, inputs: tuple[Any, ...]) -> None:
        if f"{name}.weight" in seen and inputs:
            seen[f"{name}.weight"][inputs[0].reshape(-1)] = True

    with watching(module, look):
        for batch in training_batches(subject):
            if not bare:
                with torch.inference_mode():
                    module(*batch.inputs)
                continue
            loss = nn.functional.cross_entropy(module(*batch.inputs).float(), batch.labels)
            for name, gradient in zip(bare, torch.autograd.grad(loss, list(bare.values())), strict=True):
                seen[name] |= (gradient != 0).any(1)
    for name, row in padding_rows(module).items():
        seen[name][row] = True
    rows = {name: torch.nonzero(~mask).flatten().tolist() for name, mask in seen.items()}
    return {name: found for name, found in rows.items() if found}


def bare_tables(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Parameters of two axes that belong to no layer of torch: positions, mostly."""
    ours = (part for part in module.named_modules() if not type(part[1]).__module__.startswith("torch.nn"))
    found: dict[str, torch.nn.Parameter] = {}
    for name, part in ours:
        if callable(getattr(part, "reset_parameters", None)):
            continue  # derived from a layer of torch
        for own, weight in part.named_parameters(recurse=False):
            if weight.ndim == 2 and weight.requires_grad:
                found[f"{name}.{own}".lstrip(".")] = weight
    return found


def constant_inputs(subject: Subject) -> tuple[str, torch.Tensor, torch.Tensor] | None:
    """When the first layer is linear: its name, the input columns that have one value in all training examples, and
    those values. None when the first layer is of another kind, or every input varies."""
    first, layer = order(subject.module, subject.inputs())[0]
    if not isinstance(layer, nn.Linear):
        return None
    low = torch.full((layer.in_features,), torch.inf, device=layer.weight.device)
    high = -low

    def look(name: str, _layer: Any, inputs: tuple[Any, ...]) -> None:
        if name == first:
            rows = inputs[0].reshape(-1, layer.in_features)
            torch.minimum(low, rows.amin(0), out=low)
            torch.maximum(high, rows.amax(0), out=high)

    with watching(subject.module, look), torch.inference_mode():
        for batch in training_batches(subject):
            subject.module(*batch.inputs)
    columns = torch.nonzero(low == high).flatten()
    return (first, columns, low[columns]) if len(columns) else None
