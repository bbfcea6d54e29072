"""What a command is doing: said where it is done, and shown by whoever has a screen (`zoo.progress.activity`)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

_open: list[tuple[str, float]] = []
_main = threading.main_thread()


@contextlib.contextmanager
def phase(what: str) -> Iterator[None]:
    """Within it, or within the function that it decorates, the command is doing `what`, e.g. "reading the data", as a
    part of what it was doing before. Said in other threads than the main one it does not count."""
    if threading.current_thread() is not _main:
        yield
        return
    _open.append((what, time.monotonic()))
    try:
        yield
    finally:
        _open.pop()


def current() -> tuple[list[str], float]:
    """What is being done, the whole first and the part last, and the seconds for which that part has been going on."""
    every = list(_open)
    return [what for what, _ in every], time.monotonic() - every[-1][1] if every else 0.0
