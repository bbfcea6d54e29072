"""Drafts: where runs lie while they are written, and how to tell one that is being written from one left behind."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from zoo.store.disk import Lock, make_folders
from zoo.store.schema import DRAFTS, LOCK_SUFFIX, PUBLISH_LOCK, REPLACED_SUFFIX, RUN


def new_draft(root: Path, key: str) -> tuple[Path, Lock]:
    """An empty draft folder and the lock that says it is being written. Raises OSError."""
    drafts = root / DRAFTS
    make_folders(drafts)
    lock = None
    while lock is None:  # somebody looking for leftovers may hold the new lock for a moment
        folder = drafts / f"{key}-{os.getpid()}-{secrets.token_hex(4)}"
        lock = Lock.try_acquire(lock_of(folder), pretend=True)
    try:
        lock.write("\n".join(sorted(_this_machine())))
        folder.mkdir()
    except BaseException:
        lock.release()
        raise
    return folder, lock


def lock_of(folder: Path) -> Path:
    """The lock file of a draft, or of a replaced run put aside by it."""
    return folder.with_name(folder.name.partition(REPLACED_SUFFIX)[0] + LOCK_SUFFIX)


def drafts_of(root: Path) -> list[Path]:
    """The draft folders under a root, sorted; replaced runs are not among them."""
    return [folder for folder in _folders(root) if REPLACED_SUFFIX not in folder.name]


def replaced_of(root: Path) -> list[Path]:
    """Runs put aside by a process that was to put another in their place, sorted."""
    return [folder for folder in _folders(root) if REPLACED_SUFFIX in folder.name]


def stray_locks(root: Path) -> list[Path]:
    """Lock files without a folder: their process died before it made one, or just after."""
    with suppress(OSError):
        names = {path.name for path in (root / DRAFTS).iterdir()} - {PUBLISH_LOCK}
        locks = [name for name in names if name.endswith(LOCK_SUFFIX) and name.removesuffix(LOCK_SUFFIX) not in names]
        return [root / DRAFTS / name for name in sorted(locks)]
    return []


def _folders(root: Path) -> list[Path]:
    with suppress(OSError):
        # No draft is hidden: a file manager or a notebook may have left a folder that is.
        return sorted(path for path in (root / DRAFTS).iterdir() if path.is_dir() and not path.name.startswith("."))
    return []


def is_living(folder: Path) -> bool:
    """Whether the process that writes a draft is there, or may be: on another machine nobody can tell."""
    if not lock_of(folder).exists():
        return False
    # Not created: its process may have removed it just now, and a lock made by somebody who only looks would stay.
    lock = take_over(folder, create=False)
    if lock is None:
        return True
    lock.release(remove=False)
    return False


def take_over(folder: Path, create: bool = True) -> Lock | None:
    """The lock of a draft whose process is gone. None when it lives, or when its locks mean nothing here.

    create: whether a lock that is not there is made."""
    try:
        lock = Lock.try_acquire(lock_of(folder), create)
    except OSError:
        return None
    if lock is None:
        return None
    holder = set(lock.read().split())
    if holder and not holder & _this_machine():
        lock.release(remove=False)
        return None
    return lock


def _this_machine() -> set[str]:
    """Names by which this machine's locks are known: its host name, and its kernel's boot (containers on one machine
    have names of their own and share the kernel, thus the locks)."""
    names = {socket.gethostname()}
    with suppress(OSError):
        names.add(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    return names


def remove(folder: Path) -> None:
    """Delete a folder. `run.json` goes first: what is left of a deletion cut short is not a run. Raises OSError."""
    (folder / RUN).unlink(missing_ok=True)
    shutil.rmtree(folder)
