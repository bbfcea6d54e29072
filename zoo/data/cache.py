"""The encoding cache: what an encoder made of a split, on disk, found again by content.

An entry is a folder `<cache>/encodings/<key>/` with `entry.json` and one .npy for each array; key is a sha256 over the
encoder's key, the split's fingerprint and the version of this format. It is written to a temporary folder beside it,
fsynced and renamed, so that a reader never sees half an entry and concurrent writers do no harm. A cache that cannot
be used costs time and one warning, never the run.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.assembly import kind
from zoo.errors import ConfigError, PluginError
from zoo.models import Dense, Encoded, Encoder, Tokens

if TYPE_CHECKING:
    from zoo.data import Split

FORMAT = 1
LIMIT = 4 * 2**30
"""Bytes the cache may take when ZOO_CACHE_LIMIT says nothing else."""

STALE = 3600.0
"""Seconds after which a temporary folder is taken for one of a killed writer."""

_DRAFT = ".draft-"
_RECORD = "entry.json"
_ARRAYS: Mapping[str, tuple[str, ...]] = {"tokens": ("ids", "offsets"), "dense": ("values",)}


@dataclass(frozen=True)
class Entry:
    """One cached encoding. bytes: size on disk; used: when it was last used, in seconds since 1970."""

    path: Path
    encoder: str
    split: str
    examples: int
    bytes: int
    used: float


class _Damaged(Exception):
    """An entry that cannot be trusted."""


def encode(encoder: Encoder, split: Split, cache: Path | None = None) -> Encoded:
    """The encoded examples of a split, from the cache when they are there. Arrays from the cache are read-only maps.

    cache: a folder; default: where `place()` says. Raises PluginError when the encoder returns something else than one
    encoded example for each example.
    """
    root = cache or place()
    if root is None:
        return _encoded(encoder, split)
    key = hashlib.sha256(json.dumps([FORMAT, encoder.key, split.fingerprint]).encode()).hexdigest()
    entry = root / "encodings" / key
    try:
        return _read(entry, len(split))
    except FileNotFoundError:
        pass
    except (_Damaged, OSError) as error:
        logging.getLogger("zoo").info("cache entry %s is rebuilt: %s", entry, error)
        _discard(entry)
    encoded = _encoded(encoder, split)
    try:
        _write(entry, encoded, {"encoder": type(encoder).__qualname__, "split": split.name, "examples": len(split)})
    except OSError as error:
        _warn_once(root, error.strerror or str(error))
        return encoded
    try:
        return _read(entry, len(split))
    except (_Damaged, OSError):
        return encoded  # another process needed the room already


def place() -> Path | None:
    """The folder of the cache: ZOO_CACHE, or the user's cache folder; None when ZOO_CACHE is `off`."""
    chosen = os.environ.get("ZOO_CACHE", "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("zoo"))


def limit() -> int:
    """Bytes the cache may take: ZOO_CACHE_LIMIT or 4 GiB. Raises ConfigError when that is no number of bytes."""
    chosen = os.environ.get("ZOO_CACHE_LIMIT", "")
    if not chosen:
        return LIMIT
    if not chosen.isdecimal():
        raise ConfigError(f"ZOO_CACHE_LIMIT={chosen}: it must be a number of bytes, e.g. {LIMIT} (the default, 4 GiB).")
    return int(chosen)


def entries(root: Path) -> list[Entry]:
    """All whole entries of a cache, the one not used for longest first."""
    found = []
    for folder in _folders(root / "encodings"):
        if folder.name.startswith("."):
            continue
        try:
            record = _record(folder)
            size, used = _size(folder), (folder / _RECORD).stat().st_mtime
        except (_Damaged, OSError):
            continue
        found.append(Entry(folder, record["encoder"], record["split"], record["examples"], size, used))
    return sorted(found, key=lambda entry: (entry.used, entry.path.name))


def clear(root: Path) -> int:
    """Remove everything from a cache. Returns the bytes that were freed. Raises OSError."""
    freed = sum(_size(folder) for folder in _folders(root / "encodings"))
    if (root / "encodings").exists():
        shutil.rmtree(root / "encodings")
    return freed


def _encoded(encoder: Encoder, split: Split) -> Encoded:
    encoded = encoder.encode(split.examples)
    if not isinstance(encoded, Tokens | Dense) or len(encoded) != len(split):
        got = f"{len(encoded)} of them" if isinstance(encoded, Tokens | Dense) else kind(encoded)
        raise PluginError(
            f"{type(encoder).__qualname__}.encode was given {len(split)} examples and returned {got}. "
            "It has to return zoo.Tokens or zoo.Dense with one for each."
        )
    return encoded


def _arrays(encoded: Encoded) -> dict[str, np.ndarray]:
    if isinstance(encoded, Tokens):
        return {"ids": encoded.ids, "offsets": encoded.offsets}
    return {"values": encoded.values}


def _read(folder: Path, examples: int) -> Encoded:
    """The arrays of an entry, mapped. Raises FileNotFoundError when there is none and _Damaged for a bad one."""
    record = _record(folder)
    if record["examples"] != examples:
        raise _Damaged(f"{record['examples']} examples instead of {examples}")
    arrays = {name: _mapped(folder / f"{name}.npy", crc) for name, crc in record["arrays"].items()}
    encoded = Tokens(**arrays) if record["kind"] == "tokens" else Dense(**arrays)
    if len(encoded) != examples:
        raise _Damaged(f"arrays for {len(encoded)} examples instead of {examples}")
    if isinstance(encoded, Tokens) and (encoded.offsets[0] != 0 or encoded.offsets[-1] != len(encoded.ids)):
        raise _Damaged("offsets that do not fit the ids")
    with contextlib.suppress(OSError):  # a cache that may only be read is still of use
        os.utime(folder / _RECORD)
    return encoded


def _record(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise FileNotFoundError(folder)
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        kept = set(record["arrays"]) == set(_ARRAYS[record["kind"]]) and isinstance(record["examples"], int)
        if kept and isinstance(record["encoder"], str) and isinstance(record["split"], str):
            return dict(record)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise _Damaged(f"{_RECORD}: {error}") from None
    raise _Damaged(f"{_RECORD} is not as it should be")


def _mapped(path: Path, crc: int) -> np.ndarray:
    # A flipped bit would be a different token, and nothing later would notice: so every byte is checked on each use.
    try:
        if _crc(path) != crc:
            raise _Damaged(f"{path.name} is not as it was written")
        mapped: np.ndarray = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise _Damaged(f"{path.name}: {error}") from None
    return mapped


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            crc = zlib.crc32(block, crc)
    return crc


def _write(folder: Path, encoded: Encoded, about: Mapping[str, Any]) -> None:
    """Publish an entry. Raises OSError when that is not possible; nothing half-written stays behind."""
    bound = limit()
    arrays = _arrays(encoded)
    size = sum(array.nbytes for array in arrays.values())
    if size > bound:
        raise OSError(f"an encoding of {size:,} bytes is over the limit of {bound:,} (ZOO_CACHE_LIMIT)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _make_room(folder.parent, bound - size)
    draft = _unused(folder.parent)
    draft.mkdir()
    try:
        for name, array in arrays.items():
            with (draft / f"{name}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        kind = "tokens" if isinstance(encoded, Tokens) else "dense"
        record = {**about, "kind": kind, "arrays": {name: _crc(draft / f"{name}.npy") for name in arrays}}
        with (draft / _RECORD).open("w", encoding="utf-8") as text:
            json.dump(record, text)
            text.flush()
            os.fsync(text.fileno())
        _publish(draft, folder)
    except ValueError as error:
        raise OSError(f"arrays of Python objects are not cached ({error})") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish(draft: Path, folder: Path) -> None:
    _sync_folder(draft)
    try:
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        return  # another process was first with the same content
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _make_room(folder: Path, bound: int) -> None:
    """Remove what killed writers left, then the entries not used for longest, until the rest takes `bound` bytes."""
    for draft in _folders(folder):
        with contextlib.suppress(OSError):  # its writer may finish at this very moment
            if draft.name.startswith(_DRAFT) and time.time() - draft.stat().st_mtime > STALE:
                shutil.rmtree(draft, ignore_errors=True)
    kept = entries(folder.parent)
    total = sum(entry.bytes for entry in kept)
    for entry in kept:
        if total <= bound:
            break
        _discard(entry.path)
        total -= entry.bytes


def _discard(folder: Path) -> None:
    """Remove an entry. It is renamed first, so that nobody reads it while it goes."""
    doomed = _unused(folder.parent)
    try:
        folder.rename(doomed)
    except OSError:
        return  # gone already, or not ours to remove
    shutil.rmtree(doomed, ignore_errors=True)


def _unused(folder: Path) -> Path:
    return folder / f"{_DRAFT}{os.getpid()}-{secrets.token_hex(8)}"


def _folders(folder: Path) -> Iterator[Path]:
    try:
        yield from [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@functools.cache
def _warn_once(root: Path, reason: str) -> None:
    logging.getLogger("zoo").warning("The encoding cache in %s is not used: %s. The run goes on without.", root, reason)
