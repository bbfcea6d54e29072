"""Which device, precision and number of threads a run uses."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.config import Device, Precision
from zoo.errors import ConfigError

if TYPE_CHECKING:
    import torch

# Both in multiply-adds of a step's mean matrix product (`flops.of_a_product`), on a CPU.
# From here on bfloat16 gains more than its conversions cost: squares of 128 to 1024 with 32 to 4096 rows break even at
# 4 to 8 million on one thread, at 8 to 32 million on two.
CPU_BF16_FROM = 16_000_000
# Below, a second thread costs more in waiting than it brings in work: at 5 to 13 million (mlp and cnn on small images)
# steps take 1.7 to 2 times as long with it. Two halves of one core break even at 30 to 80 million; full cores, and more
# of them, were not at hand and may do so earlier.
ONE_THREAD_BELOW = 16_000_000


@dataclass(frozen=True)
class Placement:
    """Where and how a module runs. precision is decided: never `auto`."""

    device: torch.device
    precision: Precision
    threads: int


def choose_device(wish: Device) -> torch.device:
    """The device wished for. Raises ConfigError when it is not there."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish is Device.auto:
        return torch.device(next(name for name in there if there[name]))
    if not there[wish.value]:
        usable = ", ".join(name for name in there if there[name])
        raise ConfigError(f"trainer.device={wish.value}: this machine has no such device. It has: {usable}.")
    return torch.device(wish.value)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 by itself."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in names)


def place(device: torch.device, precision: Precision, threads: int | None, product: Callable[[], float]) -> Placement:
    """Where and how a module runs, as wished. precision: `auto` for bfloat16 where the device computes with it natively
    and, on a CPU, gains; threads: None for one where a second does not pay, else torch's default; product: tells the
    multiply-adds of a step's mean matrix product, and is asked only where that decides."""
    import torch

    on_cpu, native = device.type == "cpu", computes_in_bf16(device)
    decides = on_cpu and (threads is None or (precision is Precision.auto and native))
    size = product() if decides else 0.0
    if precision is Precision.auto:
        precision = Precision.bf16 if native and (not on_cpu or size >= CPU_BF16_FROM) else Precision.fp32
    if threads is None:
        threads = 1 if on_cpu and size < ONE_THREAD_BELOW else torch.get_num_threads()
    return Placement(device, precision, threads)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """So many CPU threads within, and afterwards as many as before: the next model of a sweep chooses afresh."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """On a CPU, memory that is freed within stays with the process for the next step; elsewhere nothing.

    glibc hands blocks over 32 MiB back to the system when they are freed. The gradient of an embedding table is one:
    getting it anew in every step of a small BERT costs 11,000 page faults, 6 % of the step (60 steps, two cores).
    """
    mallopt, malloc_trim = _glibc()
    if device.type != "cpu" or mallopt is None or malloc_trim is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    try:
        yield
    finally:
        # The largest values that glibc comes to by itself: how it was before cannot be asked.
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        malloc_trim(0)


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Within it a module computes in this precision; its weights stay as they are."""
    import torch

    # Not `enabled=False`: a device without bfloat16 warns of an autocast even when that is off.
    if precision is Precision.bf16:
        return torch.autocast(device.type, torch.bfloat16)
    return _whole_float32() if device.type == "cuda" else contextlib.nullcontext()


@contextlib.contextmanager
def _whole_float32() -> Iterator[None]:
    """Within it, convolutions and recurrent layers of cuDNN keep the whole mantissa of float32. By default they round
    to the ten bits of TF32, where matrix products do not: stored answers would be others than on a CPU in the third
    digit."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def _glibc() -> tuple[Callable[[int, int], int] | None, Callable[[int], int] | None]:
    """glibc's mallopt and malloc_trim; None for both with another C library."""
    import ctypes

    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return None, None
    return library.mallopt, library.malloc_trim


def hardware(device: torch.device | None = None) -> dict[str, Any]:
    """What the run record says of the machine."""
    import os

    known: dict[str, Any] = {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
    }
    if device is not None:
        known["device"] = device.type
        if device.type == "cuda":
            import torch

            known["gpu"] = torch.cuda.get_device_name(device)
    return known


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(named, platform.processor())
    except OSError:
        return platform.processor()
