"""Ctrl-C that nothing can swallow.

An interrupt is raised wherever Python happens to be, also below compiled code that takes any exception for an answer:
torch, asking an object for its shape, makes it a ValueError, or nothing at all. So it is remembered, too.

Before a command begins its modules are imported, and nothing is there yet to answer: then it ends the process at once.
This module is the first that `zoo` imports.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

_pressed = threading.Event()
_watching = threading.Event()


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Within it Ctrl-C is remembered besides being raised. Nothing happens in a thread that gets no signals, and where
    somebody else handles the signal, an outer `remembered` included."""
    ours = threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.SIG_IGN and not _watching.is_set():
        _watching.set()  # of a process in the background: the key does not reach it
        try:
            yield
        finally:
            _watching.clear()
        return
    if not ours or signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, _end):
        yield
        return
    _pressed.clear()
    _watching.set()
    signal.signal(signal.SIGINT, _remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _watching.clear()
        _pressed.clear()


def _remember(number: int, frame: FrameType | None) -> None:
    _pressed.set()
    signal.default_int_handler(number, frame)


def _end(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"Interrupted.\n")
    os._exit(130)  # nothing has been begun, so that nothing is left half-done


def _is_command(arguments: Sequence[str], first: str) -> bool:
    """Whether this process is one of our commands. arguments: of the interpreter; first: `sys.argv[0]`, which is "-m"
    as long as `python -m` looks for the module."""
    if os.path.basename(first) == "zoo-run":
        return first in arguments  # a worker that a launcher starts is told our `sys.argv`, and records what it leaves
    flags = [
        at for at, word in enumerate(arguments[:-1]) if word[:1] == "-" and word[-1:] == "m" and word[1:].isalpha()
    ]
    package, dot, module = arguments[flags[0] + 1].partition(".") if flags else ("", "", "")
    return first == "-m" and package == "zoo" and (module.isidentifier() or not dot)


def require_none() -> None:
    """Raise KeyboardInterrupt when Ctrl-C was pressed and yet we are here."""
    if _pressed.is_set():
        raise KeyboardInterrupt


def meant(error: BaseException) -> BaseException:
    """What an error means: KeyboardInterrupt, caused by it, when Ctrl-C was pressed; else itself."""
    if isinstance(error, KeyboardInterrupt) or not _pressed.is_set():
        return error
    interrupt = KeyboardInterrupt()
    interrupt.__cause__ = error
    return interrupt


def is_users(error: BaseException) -> bool:
    """Whether an error is the user's Ctrl-C. A KeyboardInterrupt that comes although we watch the key and it was not
    pressed was raised by somebody's code."""
    return isinstance(error, KeyboardInterrupt) and (_pressed.is_set() or not _watching.is_set())


def not_users(caught: BaseException) -> BaseException:
    """What an error means, for code that handles whatever a plugin raises; the user's Ctrl-C is raised on."""
    error = meant(caught)
    if is_users(error):
        raise error from error.__cause__
    return error


if (
    _is_command(sys.orig_argv, sys.argv[0] if sys.argv else "")
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _end)
