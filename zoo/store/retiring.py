"""What failed or was skipped leaves the list once the same request has come further."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from zoo.errors import RequestError, StoreError
from zoo.store.disk import Lock, make_folders, sync
from zoo.store.drafts import remove
from zoo.store.keys import RunPlace, escape
from zoo.store.places import require_apart
from zoo.store.reading import read_record
from zoo.store.schema import DRAFTS, FAILED_SUFFIX, PUBLISH_LOCK, REPLACED_SUFFIX

log = logging.getLogger("zoo")


def retire(root: Path, place: RunPlace, request: str, keep: Path) -> list[Path]:
    """Delete the failed and skipped runs of a request but for `keep`, the run that the request has now. Returns the
    folders that are gone.

    place: of the request's runs, all of one task, dataset and model. A cell that failed before its data could be read
    has another key than its later success, and so has one that failed with an older plugin: they are found by the
    `request` of their records. The failed try of a repetition, `<key>-failed` beside a complete run, stays until the
    next complete one. Each folder is renamed before it is deleted: a process that is killed leaves it among the
    leftovers, which the next run clears. A folder that cannot be moved is logged.
    """
    gone = []
    for folder in list(_of_request(root / place.relative.parent, request)):
        if folder.name in (keep.name, keep.name + FAILED_SUFFIX):
            continue
        try:
            require_apart(folder)
            name = f"{escape(place.key)}-{os.getpid()}-{secrets.token_hex(4)}{REPLACED_SUFFIX}1"
            deleted = _delete(root, folder, request, name)
        except (OSError, RequestError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            log.warning("The failed run %s is out of date and cannot be deleted: %s", folder, why)
        else:
            gone += [folder] if deleted else []
    return gone


def _of_request(parent: Path, request: str) -> Iterator[Path]:
    """The runs of a request in a model's folder that did not complete."""
    with suppress(OSError):
        for folder in sorted(parent.iterdir()):
            if not folder.name.startswith(".") and _did_not_complete(folder, request):
                yield folder


def _did_not_complete(folder: Path, request: str) -> bool:
    """Whether a run of this request lies there that failed or was skipped. Its files do not tell: a run may fail after
    its predictions were written."""
    with suppress(StoreError):
        record = read_record(folder)
        return record.get("status") in ("failed", "skipped") and record.get("request") == request
    return False


def _delete(root: Path, folder: Path, request: str, name: str) -> bool:
    """Whether the folder was there to be deleted still: another process may have put a complete run in its place."""
    make_folders(root / DRAFTS)  # not there where runs were copied
    # Held as for a publication, so that no run is put there between the look and the renaming.
    turn = Lock.acquire(root / DRAFTS / PUBLISH_LOCK)
    try:
        if not _did_not_complete(folder, request):
            return False
        os.rename(folder, root / DRAFTS / name)
    finally:
        turn.release(remove=False)
    sync(folder.parent)
    with suppress(OSError):
        remove(root / DRAFTS / name)
    return True
