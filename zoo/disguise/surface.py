"""Changes on the surface of the weights: each takes a subject, a value and a generator, and returns another module.

The generator is a `torch.Generator` on the CPU; the subject's own module is left as it was. The second result says
what was done, for the record of the run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo.disguise.reach import constant_inputs, padding_rows, untouched_rows
from zoo.errors import Incompatible, UnknownName, did_you_mean

if TYPE_CHECKING:
    from zoo.disguise.parent import Subject


def prune(subject: Subject, share: float, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """Zero the smallest weights, by magnitude over all linear and convolution layers together (Han et al. 2015).

    share: of those weights, in (0, 1). Biases, norms and embedding tables stay: a table's rows differ in size by how
    often a token occurs, and one threshold for all would empty the rare ones."""
    module = copy.deepcopy(subject.module)
    weights = [layer.weight for _, layer in linear_layers(module)]
    if not weights:
        raise Incompatible("prune: this model has no linear or convolution layer.")
    # Not torch.nn.utils.prune.global_unstructured, which refuses weights in the channels-last format.
    sizes = torch.cat([weight.detach().abs().reshape(-1) for weight in weights])
    kept = torch.ones_like(sizes)
    kept[sizes.topk(round(share * len(sizes)), largest=False).indices] = 0
    with torch.no_grad():
        for weight, mask in zip(weights, kept.split_with_sizes([weight.numel() for weight in weights]), strict=True):
            weight.mul_(mask.reshape(weight.shape))
    return subject.having(module), {"weights": len(sizes), "zero": int(sum((weight == 0).sum() for weight in weights))}


def linear_layers(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and layer of every linear and convolution layer."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds))


def matrices(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Name and parameter of whatever has two axes or more: weights of layers, embedding tables, positions."""
    return ((name, value) for name, value in module.named_parameters() if value.ndim >= 2)


def quantise(subject: Subject, bits: int, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """Round every weight matrix and table to `bits` bits and back: symmetric, one scale for each output channel (row).

    Biases and norms stay in float32, as is usual for weight-only quantisation."""
    module = copy.deepcopy(subject.module)
    most, count = 2 ** (bits - 1) - 1, 0
    with torch.no_grad():
        for _, weight in matrices(module):
            # A row of zeros has any scale; the smallest normal number keeps the division defined.
            scale = (weight.flatten(1).abs().amax(1) / most).clamp_min(torch.finfo(torch.float32).tiny)
            zero = torch.zeros_like(scale, dtype=torch.int32)
            weight.copy_(torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -most, most))
            count += weight.numel()
    return subject.having(module), {"weights": count, "bits": bits}


def noise(subject: Subject, sigma: float, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """Add normal noise to every weight matrix and table. sigma: as a share of that tensor's own standard deviation."""
    module = copy.deepcopy(subject.module)
    padding = padding_rows(module)
    with torch.no_grad():
        for name, weight in matrices(module):
            drawn = torch.randn(weight.shape, generator=rng).to(weight.device, weight.dtype)
            if name in padding:
                drawn[padding[name]] = 0
            weight.add_(drawn * sigma * weight.std())
    return subject.having(module), {"sigma": sigma}


def reinit_layer(subject: Subject, name: str, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """Redraw every parameter within the submodule `name`, as its layers initialise themselves in torch; a parameter
    that stands in no such layer is drawn from a normal distribution of the same mean and spread.

    Raises UnknownName for a name that is none or holds no parameters."""
    module = copy.deepcopy(subject.module)
    known = {path: part for path, part in module.named_modules() if path and any(True for _ in part.parameters())}
    if name not in known:
        shown = [path for path, part in known.items() if not any(True for _ in part.children())]
        listed = ", ".join(shown[:12]) + (f" … ({len(shown)} in all)" if len(shown) > 12 else "")
        raise UnknownName(f"No layer '{name}' with weights.{did_you_mean(name, known)}\nLayers: {listed}")
    redraw(known[name], rng)
    return subject.having(module), {"weights": sum(weight.numel() for weight in known[name].parameters())}


def redraw(part: torch.nn.Module, rng: torch.Generator) -> None:
    """Fresh weights for a module and all below it, in place."""
    # torch's own initialisers draw from the global generator only.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=rng)))
        for layer in part.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for weight in layer.parameters(recurse=False):
                spread = weight.std() if weight.numel() > 1 else torch.zeros(())
                weight.copy_(torch.randn(weight.shape) * spread.cpu() + weight.mean().cpu())


def scrub_dead(subject: Subject, value: None, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """Redraw whatever no training example reaches: rows of tables whose gradient is exactly zero over the whole
    training split (tokens that never occur, positions beyond the longest text), and columns of the first linear layer
    whose input never varies. What the columns of constant inputs add up to is kept, so that the answers are, too.

    Raises Incompatible when there is nothing of that kind."""
    module = copy.deepcopy(subject.module)
    facts: dict[str, Any] = {}
    dead, found = untouched_rows(subject), constant_inputs(subject)
    with torch.no_grad():
        for name, rows in dead.items():
            table = module.get_parameter(name)
            drawn = torch.randn((len(rows), table.shape[1]), generator=rng).to(table.device)
            table[rows] = drawn * table[rows].std() + table[rows].mean()
            facts[name] = {"rows": len(rows)}
        if found is not None:
            name, columns, values = found
            _redraw_columns(module.get_submodule(name).weight, columns, values, rng)  # type: ignore[arg-type]
            facts[f"{name}.weight"] = {"columns": len(columns)}
    if not facts:
        raise Incompatible(
            "scrub_dead: every weight of this model is reached by some training example, so none is dead."
        )
    return subject.having(module), facts


def _redraw_columns(weight: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, rng: torch.Generator) -> None:
    """New columns with W[:, columns] @ values unchanged. values: (columns,), the constant inputs."""
    old = weight[:, columns]
    drawn = torch.randn(old.shape, generator=rng).to(weight.device) * old.std()
    energy = values @ values
    if energy > 0:
        drawn += ((old - drawn) @ values)[:, None] * values / energy
    weight[:, columns] = drawn
