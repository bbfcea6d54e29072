"""In a measuring process: how long, how much memory, how many multiply-adds, how fast the clock."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoo.benchmark import nvml
from zoo.engine import memory

if TYPE_CHECKING:
    import torch

MIB = 2**20


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that the work takes: between two events of a CUDA device, else on the clock of the machine."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Memory:
    """The largest resident size of this process since `restart`. Linux alone can forget an older one."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """What comes from now on counts: the size that the process has is its base."""
        self.restart()
        self._base = memory.resident()

    def restart(self) -> None:
        """Give back what is free, which would count as the model's, and forget how large the process was."""
        memory.release()
        self._forgets = memory.forget_largest()

    def peak(self) -> dict[str, Any]:
        """`mib` over the base, or the reason why it is not known."""
        high = memory.resident("VmHWM")
        if high is None or self._base is None or not self._forgets:
            return {"mib": None, "reason": "the system does not let a process forget its largest size"}
        return {"mib": max(0.0, high - self._base), "reason": ""}


def clock_rate(device: torch.device) -> float | None:
    """MHz right now: of the accelerator, or the median of the processor's cores; None where nobody says."""
    if device.type == "cuda":
        with contextlib.suppress(nvml.NoAnswer):
            return nvml.megahertz(device)
        return None
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        rates = [float(rate) for rate in re.findall(r"^cpu MHz\s*: ([\d.]+)$", lines.read(), re.MULTILINE)]
        return statistics.median(rates) if rates else None
    return None


def energy(work: Callable[[], int], device: torch.device, seconds: float = 3.0) -> dict[str, Any]:
    """Joules an example, of the whole device; or the reason why they are not known.

    work: predicts, and returns how many examples. What the device counts is taken where it counts energy, else the
    power that it reports meanwhile."""
    if device.type != "cuda":
        return {"joules": None, "reason": "the processor reports no energy to NVML"}
    reason = ""
    for measure in (_counted_energy, _reported_power):
        try:
            return measure(work, device, seconds)
        except nvml.NoAnswer as error:
            reason = f"NVML does not answer: {error}"
    return {"joules": None, "reason": reason}


def _counted_energy(work: Callable[[], int], device: torch.device, seconds: float) -> dict[str, Any]:
    """From the device's own count. n: passes. Raises NoAnswer."""
    import torch

    before, began, examples, passes = nvml.joules(device), time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds:
        examples += work()
        torch.cuda.synchronize(device)
        passes += 1
    taken = nvml.joules(device) - before
    if taken <= 0:
        raise nvml.NoAnswer("its count of energy stands still")
    return {"joules": taken / examples, "n": passes, "reason": ""}


def _reported_power(work: Callable[[], int], device: torch.device, seconds: float) -> dict[str, Any]:
    """From the power that the device reports. That is an average over about a second, so the first second is not
    counted. n: reports. Raises NoAnswer."""
    import torch

    nvml.watts(device)
    began, watts, examples, counted = time.perf_counter(), [], 0, 0.0
    while (passed := time.perf_counter() - began) < seconds + 1:
        done = work()
        torch.cuda.synchronize(device)
        if passed >= 1:
            watts.append(nvml.watts(device))
            examples += done
            counted += time.perf_counter() - began - passed
    joules = statistics.fmean(watts) * counted / examples if examples else None
    return {"joules": joules, "n": len(watts), "reason": "" if examples else "one pass takes longer than the stretch"}


def driver() -> str | None:
    """Version of NVIDIA's driver; None where there is none."""
    with contextlib.suppress(nvml.NoAnswer):
        return nvml.driver()
    with contextlib.suppress(OSError), open("/proc/driver/nvidia/version", encoding="utf-8") as lines:
        found = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", lines.readline())
        return found.group(1) if found else None
    return None


def give_back(device: torch.device) -> None:
    """Let the other processes have what this one has tried and keeps in store of the device's memory."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


def load() -> float | None:
    """Load of the machine over the last minute; None where it is not known."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
