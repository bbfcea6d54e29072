"""Memory of this process: how much a piece of work took, and what is given back. Importing it imports nothing heavy."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any, ClassVar, Self

MIB = 2**20

KEPT_BY_OTHERS = 0.1
LIBRARIES = 128
"""A peak is not known where earlier work in this process may hold more of it than this share, and than these MiB: as
much as the libraries that each run imports in its course."""


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Around imports that load torch, and around nothing else: no garbage is looked for. The import makes some hundred
    thousand objects that stay, and to look through them again and again takes a quarter of its time; nor are they
    looked through later, while plugins import more."""
    if "torch" in sys.modules:
        yield
        return
    before = gc.isenabled()
    gc.collect()  # what is garbage by now would be kept with the rest
    gc.disable()
    try:
        yield
        gc.freeze()
        Peak.bare = resident()
    finally:
        if before:
            gc.enable()


def release() -> None:
    """Give back memory that is free but kept for later: by CUDA's allocator where one is in use, and by glibc."""
    gc.collect()  # tensors in the frames of an error that refer to one another
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident(name: str = "VmRSS") -> float | None:
    """A size from /proc/self/status, MiB: `VmRSS`, the resident one, or `VmHWM`, its largest; None elsewhere than on
    Linux."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status", encoding="ascii") as lines:
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), None)
    return None


def forget_largest() -> bool:
    """Have the system forget how large this process was: `VmHWM` begins anew. Returns whether it did."""
    with contextlib.suppress(OSError):
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        return resident("VmHWM") is not None
    return False


def largest_ever() -> float | None:
    """Largest resident size of this process so far, MiB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / MIB if sys.platform == "darwin" else size / 1024  # macOS counts in bytes, others in KiB


class Peak:
    """The largest resident size of this process within a `with` block, MiB, what it began with included.

    Null rather than a wrong number: two blocks at once in one process (threads) know nothing of their own, and where
    the system cannot forget an older size, only a larger one is known. Nor is it where earlier work, such as another
    model of a sweep, still holds much: its libraries, and what allocators do not give back.

    shared: whether others' work is done within, as in a vectorised model that has other seeds too; nothing is known."""

    _lock = threading.Lock()
    _open: ClassVar[set[Peak]] = set()
    bare: ClassVar[float | None] = None
    """Resident size of this process with torch and before any work, MiB; None when it is not known."""

    def __init__(self, shared: bool = False) -> None:
        self._alone, self._forgot = not shared, False
        self._before: float | None = None
        self._held = 0.0
        self._allocated = 0

    def __enter__(self) -> Self:
        with self._lock:
            self._open.add(self)
            if len(self._open) > 1:
                for each in self._open:
                    each._alone = False
                return self
        release()  # what an earlier run left would count as this one's
        self._forgot = forget_largest()
        if "torch" in sys.modules and (size := resident()) is not None:
            Peak.bare = size if Peak.bare is None else Peak.bare
            self._held = size - Peak.bare
        self._before = largest_ever()
        if (cuda := _cuda()) is not None:
            cuda.reset_peak_memory_stats()
            self._allocated = cuda.memory_allocated()
        return self

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._open.discard(self)

    def mib(self) -> float | None:
        """So far; None when it is not known."""
        if not self._alone:
            return None
        if self._forgot:
            size = resident("VmHWM")
            return size if size is not None and self._held <= max(LIBRARIES, KEPT_BY_OTHERS * size) else None
        now = largest_ever()
        return now if now is not None and self._before is not None and now > self._before else None

    def device_mib(self) -> float | None:
        """Memory that torch has allocated at most on the CUDA device, MiB; None when it is not known or not in use.
        What an earlier run of the process left there, such as the workspace of cuBLAS, is no use of it."""
        cuda = _cuda()
        largest = 0 if cuda is None or not self._alone else cuda.max_memory_allocated()
        return largest / MIB if largest > self._allocated else None


def _cuda() -> Any:
    """torch.cuda where it is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
