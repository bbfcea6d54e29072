"""The frozen part of a module, computed once: the cache keeps what it gives, and the head is trained on that."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from zoo.config import Precision
from zoo.data import cache
from zoo.engine import cpu, devices
from zoo.engine.evaluation import logits, within_memory
from zoo.errors import PluginError
from zoo.models import Dense, FrozenPart
from zoo.phases import phase

if TYPE_CHECKING:
    from zoo.config import Trainer
    from zoo.data import Split
    from zoo.engine.batches import Batches
    from zoo.engine.fitting import Ready

log = logging.getLogger("zoo")

ROWS = 4096  # examples a block: enough to group texts by length in it, and what of the vectors is in memory at a time
AT_ONCE = 64  # examples a call, whatever the run's batch size: which examples share a call shows in the last bits
SAMPLE = 8  # examples of each split on which the two ways are compared
TOLERANCE = 1e-2  # of their logits, relative above 1: TF32 in other sums may differ by 1e-3, other vectors by far more


@dataclass(frozen=True)
class Head:
    """What is trained of a module. module: of its own parameters; batches: vectors, by the split's name; multipliers:
    of the learning rate, by its own names; placement: precision is chosen for the head alone; seconds: what making the
    vectors of the training split took, in this run or an earlier one; source: `cache`, `made` or `memory`."""

    module: torch.nn.Module
    batches: Mapping[str, Batches]
    multipliers: Mapping[str, float]
    placement: devices.Placement
    seconds: float
    source: str


def head_of(ready: Ready, trainer: Trainer, splits: tuple[Split, ...]) -> Head | None:
    """The head on the vectors of all splits; None when the model names no frozen part, or when neither the cache nor
    the memory meant for data takes the vectors: then the whole module is trained as any other.

    The vectors are float32, as in every evaluation; the precision of the head's training is chosen for the head.
    Raises PluginError when the two parts are not the module."""
    from zoo.engine.fitting import blame, placed

    with blame(ready.model, "frozen"):
        part = ready.model.frozen(ready.module)
    if part is None:
        return None
    check_parts(ready.model.name, ready.module, part)
    part.body.eval()
    identity = _identity(ready, part)
    made: dict[str, _Vectors] = {}
    for split in splits:
        told = phase(f"computing the frozen part once, {split.name} split")
        with told, blame(ready.model, "frozen"), devices.threads(ready.placement.threads):
            found = _vectors(part.body, ready.batches[split.name], split, identity)
        if found is None:
            log.warning("The vectors of the frozen part fit neither the cache nor trainer.resident_mib: no shortcut.")
            return None
        made[split.name] = found
    batches = {name: ready.batches[name].recoded(found.dense) for name, found in made.items()}
    for name in batches:
        _compare(ready, part, batches[name], ready.batches[name])
    sources = {found.source for found in made.values()}
    source = next(name for name in ("memory", "made", "cache") if name in sources)
    log.info("the frozen part is computed once: vectors of %d splits (%s)", len(made), source)
    placement = placed(part.head, batches["train"], replace(trainer, threads=ready.placement.threads))
    multipliers = _multipliers(ready.module, part.head, ready.multipliers)
    return Head(part.head, batches, multipliers, placement, made["train"].seconds, source)


def share_head(group: Sequence[Ready], head: Head | None) -> list[Ready]:
    """The same group, each with its own head on the vectors of the first; as it is when there is no head, or when the
    frozen parts are not the same weights in all, and so would give other vectors."""
    if head is None:
        return list(group)
    shared: list[Ready] = []
    wanted: str | None = None
    for ready in group:
        part = ready.model.frozen(ready.module)
        assert part is not None
        wanted = wanted or digest(part.body)
        if digest(part.body) != wanted:
            return list(group)
        part.body.eval()
        shared.append(replace(ready, head=replace(head, module=part.head)))
    return shared


def check_parts(name: str, module: torch.nn.Module, part: object) -> None:
    """Raise PluginError unless it is a frozen body and a head with all that is trained. name: the model's."""
    if not isinstance(part, FrozenPart):
        raise PluginError(f"Model '{name}': frozen returned {type(part).__name__}, not a zoo.FrozenPart.")
    if not isinstance(part.key, str):
        raise PluginError(f"Model '{name}': FrozenPart.key is {type(part.key).__name__}; it must be a text.")
    if trained := [label for label, weight in part.body.named_parameters() if weight.requires_grad]:
        raise PluginError(f"Model '{name}': '{trained[0]}' of the frozen part's body wants a gradient.")
    held = {id(weight) for weight in part.head.parameters()}
    lost = [label for label, weight in module.named_parameters() if weight.requires_grad and id(weight) not in held]
    if lost:
        raise PluginError(f"Model '{name}': '{lost[0]}' wants a gradient and is not in the frozen part's head.")


@dataclass(frozen=True)
class _Vectors:
    dense: Dense
    seconds: float
    source: str


def _vectors(body: torch.nn.Module, batches: Batches, split: Split, identity: tuple[str, ...]) -> _Vectors | None:
    kept = cache.vectors(identity, split, lambda: _blocks(body, batches))
    if kept is not None:
        return _Vectors(kept.dense, kept.seconds, "made" if kept.made else "cache")
    began = time.perf_counter()
    values: np.ndarray | None = None
    done = 0
    for block in _blocks(body, batches):
        if values is None:
            if block[0].nbytes * len(batches) > batches.resident_mib * 2**20:
                return None
            values = np.empty((len(batches), *block.shape[1:]), np.float32)
        values[done : done + len(block)] = block
        done += len(block)
    return None if values is None else _Vectors(Dense(values), time.perf_counter() - began, "memory")


def _blocks(body: torch.nn.Module, batches: Batches) -> Iterator[np.ndarray]:
    """The body's outputs in the order of the examples, (up to ROWS, *shape) float32 at a time."""
    shape: tuple[int, ...] | None = None
    for start in range(0, len(batches), ROWS):
        rows = np.arange(start, min(start + ROWS, len(batches)))
        order = rows if batches.lengths is None else rows[np.argsort(-batches.lengths[rows], kind="stable")]
        block: np.ndarray | None = None
        for first in range(0, len(order), AT_ONCE):
            some = order[first : first + AT_ONCE]
            with cpu.answering(body, batches.device), devices.autocast(batches.device, Precision.fp32):
                values = within_memory(len(some), lambda size, some=some: _outputs(body, batches, some, size))  # type: ignore[misc]
            shape = values.shape[1:] if shape is None else shape
            if values.shape != (len(some), *shape):
                raise ValueError(f"its body gave shape {values.shape} where {(len(some), *shape)} was due")
            if block is None:
                block = np.empty((len(rows), *shape), np.float32)
            block[some - start] = values
        assert block is not None
        yield block


@torch.inference_mode()
def _outputs(body: torch.nn.Module, batches: Batches, rows: np.ndarray, size: int) -> np.ndarray:
    """(rows, *shape) float32, `size` examples a call."""
    found = []
    for first in range(0, len(rows), size):
        values = body(*batches.take(rows[first : first + size]).inputs)
        if not isinstance(values, torch.Tensor) or not values.is_floating_point() or values.ndim < 2:
            raise TypeError("its body must give one float tensor, (batch, *shape)")
        found.append(values.float().cpu().numpy())
    return np.concatenate(found)


def _compare(ready: Ready, part: FrozenPart, vectors: Batches, inputs: Batches) -> None:
    """Raise PluginError where the head on these vectors and the whole module do not give the same logits."""
    rows = np.unique(np.linspace(0, len(inputs) - 1, SAMPLE).astype(np.int64))
    whole, short = (
        logits(module, batches, len(rows), ready.classes, rows)
        for module, batches in ((ready.module, inputs), (part.head, vectors))
    )
    difference = float((np.abs(whole - short) / np.maximum(1, np.abs(whole))).max())
    if not difference <= TOLERANCE:
        raise PluginError(
            f"Model '{ready.model.name}': its frozen part and head give logits that differ from the module's by up to "
            f"{difference:.2g}.\nEither head(body(inputs)) is not the module in eval mode, or FrozenPart.key leaves "
            f"something out that the vectors depend on.\n`python -m zoo.cache clear` has it compute them afresh."
        )


def _identity(ready: Ready, part: FrozenPart) -> tuple[str, ...]:
    """What the vectors depend on beside the data, the name that lists show first. Device, threads and versions count
    because sums in another order differ in their last bits, and a run with one thread is repeated bit by bit."""
    device = ready.placement.device
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    where = f"{device.type} {kind} threads={ready.placement.threads} torch={torch.__version__} answers/2"
    body = type(part.body)
    called = f"{body.__module__}.{body.__qualname__} {part.key}"
    return (f"{ready.model.name} (frozen)", called, digest(part.body), ready.encoder_key, where)


def digest(module: torch.nn.Module) -> str:
    """sha256 over names, types, shapes and values of all parameters and buffers, stored or not; 64 hex digits."""
    whole = hashlib.sha256()
    for named in (module.named_parameters(), module.named_buffers()):
        for name, value in sorted(named, key=lambda item: item[0]):
            flat = value.detach().cpu().contiguous()
            whole.update(f"{name}\0{flat.dtype}\0{tuple(flat.shape)}\0".encode())
            whole.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _multipliers(module: torch.nn.Module, head: torch.nn.Module, given: Mapping[str, float]) -> dict[str, float]:
    """The module's multipliers by the head's names, longest first: each is looked up as a beginning of a name."""
    within = {id(weight): name for name, weight in module.named_parameters()}
    found = {
        name: next((value for prefix, value in given.items() if within.get(id(weight), "").startswith(prefix)), 1.0)
        for name, weight in head.named_parameters()
    }
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))
