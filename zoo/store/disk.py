"""The few things that touch the disk: durable writes with their checksum, locks, and errors in plain words."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ConfigError, StoreError
from zoo.guard import too_long

Chunk = bytes | bytearray | memoryview

_BLOCK = 1 << 20

# Some network disks are mounted without locks; then a draft can be written, and is never taken for a dead one.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class FileFacts:
    """What `run.json` says about one file. sha256: 64 hex digits; bytes: its size."""

    sha256: str
    bytes: int


_chosen_with: ContextVar[str] = ContextVar("chosen_with", default="runs_dir=…")


@contextmanager
def chosen_with(option: str) -> Iterator[None]:
    """Within it, errors advise this option, such as `out=…`, to choose another folder."""
    token = _chosen_with.set(option)
    try:
        yield
    finally:
        _chosen_with.reset(token)


def chosen_option() -> str:
    """How the user chooses another folder here: `runs_dir=…` unless `chosen_with` says otherwise."""
    return _chosen_with.get()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError raised inside into a StoreError that names `path`, the reason and the way out, which may be
    another folder: `chosen_with` says how the user chooses it, by `runs_dir=…` if nothing else. A name that no disk
    takes is a RequestError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise too_long(path) from error
        raise StoreError(_explain(path, error)) from error


def _explain(path: Path, error: OSError) -> str:
    elsewhere = f"choose another folder with {_chosen_with.get()}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"No space left on the disk while writing {path}\nFree some space or {elsewhere}"
    if error.errno == errno.EFBIG:
        return f"The file {path} grew over the size limit of this process or disk.\nRaise it (ulimit -f) or {elsewhere}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"No permission to write {path}\nGrant it or {elsewhere}"
    if error.errno == errno.EROFS:
        return f"Cannot write {path}: that disk is mounted read-only.\nMount it writable or {elsewhere}"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        file = next((parent for parent in (path, *path.parents) if parent.exists() and not parent.is_dir()), path)
        return f"Cannot write {path}: '{file}' is a file where a folder is needed.\nMove it away or {elsewhere}"
    return f"Cannot write {path}: {error.strerror or error}\nFix that or {elsewhere}"


def write_file(path: Path, chunks: Iterable[Chunk]) -> FileFacts:
    """Write a new file (or replace one) and bring it to the disk. The checksum is of what was meant to be written.

    When it cannot be finished nothing of it stays, so that there is room to record the failure. Raises StoreError.
    """
    digest, size = hashlib.sha256(), 0
    with writing(path):
        try:
            with path.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                    size += memoryview(chunk).nbytes
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise
    return FileFacts(digest.hexdigest(), size)


def place_of(text: str, option: str) -> Path:
    """Where an option says that something is to be written, its ~ replaced. Raises ConfigError for the home of nobody:
    a folder of that name would be made instead."""
    place = Path(os.path.expanduser(text))
    if place.parts and place.parts[0].startswith("~"):
        raise ConfigError(f"{option}={text}: there is no user '{place.parts[0][1:]}'. Write ./~… for a folder's name.")
    return place


def replace_file(path: Path, content: Chunk) -> FileFacts:
    """Write a file beside its place and rename it: a reader sees the former or the new one, whatever happens meanwhile.

    Raises StoreError."""
    draft = path.with_name(f".{path.name[:200]}-{os.getpid()}")
    try:
        facts = write_file(draft, [content])
        with writing(path):
            os.replace(draft, path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return facts


def file_facts(path: Path) -> FileFacts:
    """Checksum and size of a file as it lies there. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return FileFacts(digest.hexdigest(), size)


def sync(path: Path) -> None:
    """fsync a file, or a folder (its list of names). Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(path: Path) -> None:
    """Create a folder and those above it, durably. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


class Lock:
    """A lock file that this process holds until `release` or its end, however that comes: the kernel lets go of it.

    A pid would not do: it may be given to another process. `try_acquire` and `acquire` return None where the file
    vanished meanwhile or is held elsewhere.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def try_acquire(cls, path: Path, create: bool = True, pretend: bool = False) -> Lock | None:
        """Take the lock if it is free. Raises OSError when the file cannot be opened, or the disk has no locks and we
        do not `pretend` to have it: who writes may, who wants to delete what another writes may not."""
        return cls._take(path, fcntl.LOCK_EX | fcntl.LOCK_NB, create, pretend)

    @classmethod
    def acquire(cls, path: Path) -> Lock:
        """Take the lock, waiting for it; on a disk without locks, pretend. Raises OSError when it cannot be opened."""
        while (lock := cls._take(path, fcntl.LOCK_EX, create=True, pretend=True)) is None:
            pass
        return lock

    @classmethod
    def _take(cls, path: Path, how: int, create: bool, pretend: bool) -> Lock | None:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        try:
            fcntl.flock(descriptor, how)
            # Between open and flock its last holder may have deleted the file; then this is a lock on nothing.
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return cls(path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError as error:
            if pretend and error.errno in _NO_LOCKS:
                return cls(path, descriptor)
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def write(self, text: str) -> None:
        """Say who holds it, once. Raises OSError."""
        os.pwrite(self._descriptor, text.encode(), 0)

    def read(self) -> str:
        """What its holder, perhaps a former one, wrote. Raises OSError."""
        return os.pread(self._descriptor, 4096, 0).decode(errors="replace")

    def release(self, remove: bool = True) -> None:
        """Let go; with `remove` the file is deleted first, while it is still ours. Calling it twice is harmless."""
        if self._descriptor < 0:
            return
        if remove:
            with suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1
