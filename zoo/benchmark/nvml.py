"""What NVIDIA's management library says of a device: energy, power, clock, driver.

The library is part of the driver and is asked directly: torch does it through a package that few have installed.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LIBRARY = "libnvidia-ml.so.1"
SM_CLOCK = 1  # NVML_CLOCK_SM of nvml.h
LONGEST = 96  # characters of a version, and the terminating zero


class NoAnswer(Exception):
    """The library is not there, or does not know. Its text says why."""


def joules(device: torch.device) -> float:
    """Energy that the whole device has taken since its driver was loaded. Volta and later. Raises NoAnswer."""
    return _number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong, device) / 1e3


def watts(device: torch.device) -> float:
    """Power that the whole device takes, an average over up to a second. Raises NoAnswer."""
    return _number("nvmlDeviceGetPowerUsage", ctypes.c_uint, device) / 1e3


def megahertz(device: torch.device) -> float:
    """Clock of the multiprocessors right now. Raises NoAnswer."""
    return _number("nvmlDeviceGetClockInfo", ctypes.c_uint, device, ctypes.c_int(SM_CLOCK))


def driver() -> str:
    """Version of the driver. Raises NoAnswer."""
    text = ctypes.create_string_buffer(LONGEST)
    _call("nvmlSystemGetDriverVersion", text, ctypes.c_uint(LONGEST))
    return text.value.decode(errors="replace")


def _number(name: str, kind: Any, device: torch.device, *more: Any) -> float:
    value = kind()
    _call(name, _handle(_uuid(device)), *more, ctypes.byref(value))
    return float(value.value)


def _uuid(device: torch.device) -> str:
    """Not the index: CUDA_VISIBLE_DEVICES renumbers the devices of torch, and not those of the library."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


@functools.cache
def _handle(uuid: str) -> ctypes.c_void_p:
    found = ctypes.c_void_p()
    _call("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(found))
    return found


def _call(name: str, *values: Any) -> None:
    library = _library()
    try:
        code = getattr(library, name)(*values)
    except AttributeError:
        raise NoAnswer(f"{LIBRARY} has no {name}") from None
    if code:
        raise NoAnswer(f"{name} answers with error {code}")


@functools.cache
def _library() -> Any:
    """The library, ready to be asked."""
    try:
        library = ctypes.CDLL(LIBRARY)
        code = library.nvmlInit_v2()
    except (OSError, AttributeError) as error:
        raise NoAnswer(str(error)) from None
    if code:
        raise NoAnswer(f"nvmlInit_v2 answers with error {code}")
    return library
