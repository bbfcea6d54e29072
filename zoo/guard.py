"""One guard around every command, and one around every call of a plugin's code.

`run` turns whatever happens within a command into an exit code and a few plain lines; `blamed` makes an error out of
code that is not ours name whose it is. Together: no traceback, and a plugin's fault is not taken for the user's Ctrl-C.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn

from zoo import interrupts
from zoo.errors import ConfigError, PluginError, RequestError, ZooError, printable, shortened

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

FINE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
TRACEBACK = "HYDRA_FULL_ERROR=1 shows the traceback."


def run(command: Callable[[], int], interrupted: str = "Interrupted.") -> int:
    """Call a command. Returns its exit code: 0 fine, 1 something ran and failed, 2 the request was wrong, 130 Ctrl-C.

    What it raises is printed on stderr, in a few lines; `HYDRA_FULL_ERROR=1` raises it again, for the traceback.
    interrupted: what is said after Ctrl-C.
    """
    _patient_streams()
    try:
        with interrupts.remembered():
            try:
                return _flushed(command())
            except _Ended as end:
                return _flushed(end.code)
            except BaseException as caught:
                return _told(interrupts.meant(caught), interrupted)
    except KeyboardInterrupt:  # pressed once more, while the first was answered
        return INTERRUPTED


def _told(error: BaseException, interrupted: str) -> int:
    if interrupts.is_users(error):
        _say(interrupted)
        return INTERRUPTED
    if wants_traceback():
        if isinstance(error, KeyboardInterrupt):  # which would read as the user's
            raise explained(error) from error
        raise error
    told = explained(error)
    _say(printable(str(told)))
    return told.exit_code


def leave(code: int) -> NoReturn:
    """End the process. A second Ctrl-C, while Python tidies up, ends it at once and without a traceback."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def wants_traceback() -> bool:
    """Whether `HYDRA_FULL_ERROR` asks for it."""
    return os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0")


def explained(error: BaseException) -> ZooError:
    """The error in words for a user: itself when it is one of ours, else what it means and what may be done."""
    if isinstance(error, ZooError):
        return error
    if isinstance(error, MemoryError):
        return ZooError(
            f"Memory does not suffice ({_first_line(error, 'no more is given')}).\n"
            f"Take less at once, or a machine with more of it. {TRACEBACK}"
        )
    if isinstance(error, RecursionError):
        return ZooError(f"Something is nested too deeply to be read ({_first_line(error)}).\n{TRACEBACK}")
    if isinstance(error, KeyboardInterrupt):
        return ZooError(f"KeyboardInterrupt was raised by a plugin, and nobody pressed Ctrl-C.\n{TRACEBACK}")
    if isinstance(error, OSError) and error.errno is not None:
        return _of_the_system(error)
    return ZooError(f"{type(error).__name__}: {shortened(str(error), 600)}\n{TRACEBACK}")


def too_long(path: object) -> RequestError:
    """The error for a name that no disk takes."""
    return RequestError(
        f"A name in {shortened(str(path), 120)} is too long: a disk takes 255 bytes.\nChoose a shorter one."
    )


_ADVICE = {
    errno.ENOSPC: "Free some space, or choose another folder.",
    errno.EDQUOT: "Free some space, or choose another folder.",
    errno.EACCES: "Grant it, or choose another place.",
    errno.EPERM: "Grant it, or choose another place.",
    errno.EROFS: "Mount that disk writable, or choose another folder.",
    errno.EMFILE: "Raise the number of files that a process may open (ulimit -n).",
}


def _of_the_system(error: OSError) -> ZooError:
    """What the operating system refuses, with the file that it is about."""
    if error.errno == errno.ENAMETOOLONG:
        return too_long(error.filename)
    where = f"{shortened(str(error.filename), 300)}: " if error.filename is not None else ""
    advice = _ADVICE.get(error.errno or 0, "")
    return ZooError(f"{where}{error.strerror or error}.\n{advice} {TRACEBACK}".replace("\n ", "\n"))


def _first_line(error: BaseException, nothing: str = "no message") -> str:
    return shortened((str(error).strip() or nothing).splitlines()[0])


# Words of a command line


class _Ended(BaseException):
    """argparse has said what there is to say. code: what the process ends with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """What argparse makes of the words; where it would end the process, `run` returns the code. Raises ConfigError for
    `task=x` where the option is `--task` and no file is called so: other commands have options of that form."""
    values: str | int | None = 0  # that the option before takes: a number, "+" or "*", None for one
    for word in sys.argv[1:] if arguments is None else arguments:
        if (option := parser._option_string_actions.get(word)) is not None:
            values = option.nargs
            continue
        if values != 0:
            values = values if isinstance(values, str) else 0
            continue
        name, equals, value = word.partition("=")
        flag = f"--{name.replace('_', '-')}"
        if equals and flag in parser._option_string_actions and not os.path.lexists(word):
            raise ConfigError(f"'{word}': options of {parser.prog} have dashes. Write {flag} {value}".rstrip())
    with ending():
        return parser.parse_args(arguments)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Where argparse, or who else reads words of a command line, ends the process within, `run` returns the code. As
    Python does it: none is 0, and anything but a number is printed on stderr and means 1."""
    try:
        yield
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            raise _Ended(end.code or FINE) from None
        _say(printable(str(end.code)))
        raise _Ended(FAILED) from None


# Code that is not ours


@contextlib.contextmanager
def blamed(whose: str) -> Iterator[None]:
    """Errors out of a plugin's code name it, as a PluginError `<whose>: <type>: <first line>`. Errors of ours and the
    user's Ctrl-C stay what they are; KeyboardInterrupt, SystemExit and GeneratorExit of the plugin's own making do not.
    A MemoryError is the machine's."""
    try:
        yield
    except (ZooError, MemoryError):
        raise
    except BaseException as caught:
        error = interrupts.not_users(caught)
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # the user's, not the plugin's
            raise too_long(error.filename) from error
        raise PluginError(f"{whose}: {described(error)}") from error


@contextlib.contextmanager
def options_of(part: str, distribution: str) -> Iterator[None]:
    """A plugin's class takes its options. A ValueError or TypeError is how it refuses them: ConfigError; all else is
    its own fault."""
    with blamed(f"{part} of {distribution} failed while it took its options"):
        try:
            yield
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{part} of {distribution} refuses its options: {described(error)}") from error


def described(error: BaseException) -> str:
    """`ValueError: the first line of its message`."""
    return f"{type(error).__name__}: {_first_line(error)}"


# Streams


class _Patient(io.FileIO):
    """A stream whose reader may go away (`… | head -1`): what is written then is lost, and nothing fails. What else
    goes wrong (a full disk) is raised once."""

    def write(self, data: object) -> int:
        try:
            return super().write(data) or 0  # type: ignore[arg-type]
        except OSError as error:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            if not isinstance(error, BrokenPipeError):
                raise OSError(error.errno, error.strerror, "standard output") from error
            return memoryview(data).nbytes  # type: ignore[arg-type]


def _patient_streams() -> None:
    """Make stdout and stderr of this process patient, open where they were closed, and able to say in question marks
    what their encoding lacks. Streams that somebody put in their place are left alone."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and type(stream) is io.TextIOWrapper:
            setattr(sys, name, _patiently(stream))


def _patiently(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    raw = _Patient(stream.fileno(), "wb", closefd=False)
    buffered = isinstance(stream.buffer, io.BufferedWriter)
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if buffered else raw,
        encoding=stream.encoding,
        errors="replace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _flushed(code: int) -> int:
    """What was printed is written while an error can still be reported."""
    sys.stdout.flush()
    return code


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
