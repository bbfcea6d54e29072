"""Writing a run folder: a draft, published whole or not at all.

A draft is filled under `<root>/.drafts`, every file brought to the disk as it is written. `publish` writes the
checksums and moves the folder to its place by renaming. So at a run's place there is a whole run or none, whenever the
process or the machine dies.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from zoo.data.litter import is_litter
from zoo.errors import StoreError
from zoo.store.disk import FileFacts, Lock, file_facts, make_folders, sync, write_file, writing
from zoo.store.drafts import drafts_of, new_draft, remove, replaced_of, stray_locks, take_over
from zoo.store.keys import RunPlace, escape, finite, plain
from zoo.store.places import require_apart
from zoo.store.reading import read
from zoo.store.schema import (
    DRAFTS,
    ERROR,
    EVENTS,
    HISTORY,
    PREDICTIONS,
    PUBLISH_LOCK,
    REPLACED_SUFFIX,
    RUN,
    SCHEMA_VERSION,
    Status,
)
from zoo.store.tables import PredictionTable, history_to_bytes, predictions_to_bytes, tensors_to_chunks

if TYPE_CHECKING:
    import numpy as np
    import torch


class Draft:
    """A run being written. Make it with `Draft.open`; end it with `publish`, `publish_failure` or `discard`.

    As a context manager it discards itself when none of them was reached. Every method that writes raises StoreError
    (no space, no permission, a file where a folder is needed), and the half-written file is gone then.
    """

    def __init__(self, root: Path, place: RunPlace, folder: Path, lock: Lock) -> None:
        self.root = root
        self.place = place
        self.folder = folder
        self._lock = lock
        self._facts: dict[str, FileFacts] = {}
        self._started = _now()
        self._open = True

    @property
    def is_open(self) -> bool:
        """Whether it can still be written to: neither published nor discarded."""
        return self._open

    @classmethod
    def open(cls, root: Path, place: RunPlace, record: Mapping[str, Any] | None = None) -> Draft:
        """Begin a run. root: the runs folder, made when missing; record: what is known already (config, seed …), for
        whoever lists runs meanwhile. Raises StoreError, and RequestError where it would be written over what this
        command reads."""
        for relative in (place.relative, place.relative_failed):
            require_apart(root / relative)
        with writing(root):
            folder, lock = new_draft(root, escape(place.key))
        draft = cls(root, place, folder, lock)
        try:
            draft._write_record(record or {}, "started")
        except BaseException:
            draft.discard()
            raise
        return draft

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.discard()

    def write_json(self, name: str, value: Any) -> None:
        """A JSON file. NaN and infinities become null; numpy values, paths and enums are translated."""
        self._facts[name] = write_file(self.folder / name, [_json(value)])

    def write_text(self, name: str, text: str) -> None:
        """A text file in UTF-8."""
        self._facts[name] = write_file(self.folder / name, [text.encode(errors="backslashreplace")])

    def write_predictions(self, table: PredictionTable) -> None:
        """`predictions.parquet`: what the model answered on every example."""
        self._facts[PREDICTIONS] = write_file(self.folder / PREDICTIONS, [predictions_to_bytes(table)])

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """`history.parquet`: one row an epoch; a name that some rows lack is null there."""
        self._facts[HISTORY] = write_file(self.folder / HISTORY, [history_to_bytes(rows)])

    def write_tensors(self, name: str, tensors: Mapping[str, np.ndarray | torch.Tensor]) -> None:
        """A safetensors file, such as `model.safetensors`. Raises ValueError for a type the format does not know."""
        self._facts[name] = write_file(self.folder / name, tensors_to_chunks(tensors))

    def log(self, line: str) -> None:
        """Add a line with the time to `events.log`; it can be read at once."""
        path = self.folder / EVENTS
        with writing(path), path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{_now()} {line}\n")

    def publish(self, record: Mapping[str, Any], status: Literal["complete", "failed", "skipped"] = "complete") -> Path:
        """Write `run.json` and move the folder to its place; returns where it lies.

        An older run there is replaced, with one exception: a complete run is never replaced by one that is not; that
        goes to `<key>-failed` beside it, until the next complete one. Raises StoreError; the draft is still there
        then, and can be published as failed or discarded.
        """
        with writing(self.folder):
            for path in sorted(self.folder.rglob("*")):
                name = path.relative_to(self.folder).as_posix()
                litter = any(is_litter(part) for part in path.relative_to(self.folder).parts)
                if path.is_file() and name != RUN and name not in self._facts and not litter:
                    sync(path)
                    self._facts[name] = file_facts(path)
        self._write_record(record, status)
        with writing(self.root / self.place.relative):
            sync(self.folder)
            folder = self._move(status)
        self.folder = folder
        self._close()
        return folder

    def publish_failure(self, record: Mapping[str, Any], error: BaseException, traceback: str) -> Path:
        """Publish as failed: `error.txt` takes the traceback, `error` in the record the type and message of the
        error, and `interrupted` tells Ctrl-C from the rest. Returns and raises as `publish`."""
        self.write_text(ERROR, traceback)
        interrupted = isinstance(error, KeyboardInterrupt)
        message = str(error) or ("interrupted from the keyboard" if interrupted else "")
        cause = {"type": type(error).__name__, "message": message}
        return self.publish({**record, "error": cause, "interrupted": interrupted}, "failed")

    def drop_files(self) -> None:
        """Delete what was written so far, except the log: on a full disk that makes room for the reason."""
        for name in self._facts:
            with suppress(OSError):
                (self.folder / name).unlink()
        self._facts.clear()

    def discard(self) -> None:
        """Delete the draft. Nothing happens when it was published or discarded before."""
        if self._open:
            with suppress(OSError):
                remove(self.folder)
            self._close()

    def _close(self) -> None:
        self._open = False
        self._lock.release()

    def _write_record(self, record: Mapping[str, Any], status: Status) -> None:
        facts = {
            "schema_version": SCHEMA_VERSION,
            "status": status,
            **asdict(self.place),
            "started": self._started,
            "ended": None if status == "started" else _now(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "files": {name: asdict(self._facts[name]) for name in sorted(self._facts)},
        }
        further = {name: value for name, value in record.items() if name not in facts}
        write_file(self.folder / RUN, [_json({**facts, **further})])

    def _move(self, status: Status) -> Path:
        place = self.root / self.place.relative
        failed = self.root / self.place.relative_failed
        make_folders(place.parent)
        # Held for two renames: without it a failed run could slip over a complete one published at the same moment.
        turn = Lock.acquire(self.root / DRAFTS / PUBLISH_LOCK)
        try:
            if status != "complete" and _is_complete(place):
                place = failed
            elif failed.exists():
                os.rename(failed, self._aside())
            self._replace(place)
        finally:
            turn.release(remove=False)
        sync(place.parent)
        for folder in replaced_of(self.root):
            if folder.name.startswith(self.folder.name + REPLACED_SUFFIX):
                with suppress(OSError):
                    remove(folder)
        return place

    def _replace(self, place: Path) -> None:
        require_apart(place)
        while True:  # a machine that shares the disk but not the locks may put a run there between the two renames
            try:
                return os.rename(self.folder, place)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            with suppress(FileNotFoundError):
                os.rename(place, self._aside())

    def _aside(self) -> Path:
        number = 1
        while (folder := self.folder.with_name(f"{self.folder.name}{REPLACED_SUFFIX}{number}")).exists():
            number += 1
        return folder


def clear_leftovers(root: Path) -> list[Path]:
    """Delete the drafts of processes that are gone; returns the folders that were deleted. Drafts of living processes,
    and of other machines, are left alone.

    A run that a process had put aside when it died, before the new one was in its place, is put back.
    """
    cleared = []
    for folder in (*replaced_of(root), *drafts_of(root)):
        lock = take_over(folder)
        if lock is None:
            continue
        with suppress(OSError):
            if not (REPLACED_SUFFIX in folder.name and _put_back(root, folder)):
                remove(folder)
                cleared.append(folder)
        lock.release()
    for path in stray_locks(root):
        with suppress(OSError):
            stray = Lock.try_acquire(path)
            if stray is not None:
                stray.release()
    return cleared


def _is_complete(folder: Path) -> bool:
    try:
        return read(folder, verify=False).status == "complete"
    except StoreError:
        return False


def _put_back(root: Path, folder: Path) -> bool:
    try:
        run = read(folder, verify=True)
        place = RunPlace(*(str(run.record[part]) for part in RunPlace.__dataclass_fields__))
    except (StoreError, KeyError):
        return False
    if run.status != "complete":
        return False
    turn = Lock.acquire(root / DRAFTS / PUBLISH_LOCK)
    try:
        if (root / place.relative).exists():
            return False
        os.rename(folder, root / place.relative)
        sync((root / place.relative).parent)
    finally:
        turn.release(remove=False)
    return True


def _json(value: Any) -> bytes:
    text = json.dumps(finite(plain(value)), indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode(errors="backslashreplace")


def _now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
