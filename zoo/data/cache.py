"""The encoding cache: what an encoder made of a split, on disk, found again by content.

An entry is a folder `<cache>/encodings/<key>/` with `entry.json` and one .npy for each array; key is a sha256 over the
encoder's key, the split's fingerprint and the version of this format. What the frozen part of a module makes of a split
is kept likewise. An entry is written to a temporary folder beside it, fsynced and renamed, so that a reader never sees
half an entry and concurrent writers do no harm. A cache that cannot be used costs time and one warning, never the run.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from zoo.data.labels import kind
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
    entry = _entry(root, encoder.key, split.fingerprint)
    if (found := _find(entry, len(split))) is not None:
        return found
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


@dataclass(frozen=True)
class Kept:
    """Vectors in the cache. dense: a read-only map; seconds: what making them took, whenever it was; made: just now."""

    dense: Dense
    seconds: float
    made: bool


def vectors(
    identity: Sequence[str], split: Split, make: Callable[[], Iterator[np.ndarray]], cache: Path | None = None
) -> Kept | None:
    """Float32 vectors of a split's examples, from the cache, or made and written there block by block.

    identity: what makes them beside the data; its first item is what `python -m zoo.cache` shows. make: gives them in
    order, (some examples, *shape) float32 at a time, so that they never have to be in memory together. Returns None
    when the cache is off or cannot take them; whatever `make` raises, but an OSError, is raised."""
    root = cache or place()
    if root is None:
        return None
    entry = _entry(root, "vectors", *identity, split.fingerprint)
    made = (found := _find(entry, len(split))) is None
    if made:
        try:
            _write_vectors(entry, make(), {"encoder": identity[0], "split": split.name, "examples": len(split)})
        except OSError as error:
            _warn_once(root, error.strerror or str(error))
            return None
        found = _find(entry, len(split))
    try:
        return Kept(found, float(_record(entry).get("seconds", 0.0)), made) if isinstance(found, Dense) else None
    except (_Damaged, OSError):
        return None  # another process needed the room already


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


def _entry(root: Path, *identity: str) -> Path:
    return root / "encodings" / hashlib.sha256(json.dumps([FORMAT, *identity]).encode()).hexdigest()


def _find(entry: Path, examples: int) -> Encoded | None:
    """What an entry holds; None when there is none, or none that can be trusted, which is removed."""
    try:
        return _read(entry, examples)
    except FileNotFoundError:
        return None
    except (_Damaged, OSError) as error:
        logging.getLogger("zoo").info("cache entry %s is rebuilt: %s", entry, error)
        _discard(entry)
        return None


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
    arrays = _arrays(encoded)
    try:
        with _publishing(folder, sum(array.nbytes for array in arrays.values())) as draft:
            for name, array in arrays.items():
                with _synced(draft / f"{name}.npy") as file:
                    np.save(file, array, allow_pickle=False)
            _write_record(draft, "tokens" if isinstance(encoded, Tokens) else "dense", about)
    except ValueError as error:
        raise OSError(f"arrays of Python objects are not cached ({error})") from None


def _write_vectors(folder: Path, blocks: Iterator[np.ndarray], about: Mapping[str, Any]) -> None:
    """As `_write`, with one array whose rows come block by block."""
    began = time.perf_counter()
    block: np.ndarray | None = next(blocks)
    assert block is not None
    seconds, shape = time.perf_counter() - began, (about["examples"], *block.shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(block.dtype), "fortran_order": False, "shape": shape}
    with _publishing(folder, math.prod(shape) * block.itemsize) as draft:
        with _synced(draft / "values.npy") as file:
            np.lib.format.write_array_header_1_0(file, header)
            while block is not None:
                file.write(np.ascontiguousarray(block).data)
                began = time.perf_counter()
                block = next(blocks, None)
                seconds += time.perf_counter() - began
        _write_record(draft, "dense", {**about, "seconds": seconds})


@contextlib.contextmanager
def _publishing(folder: Path, size: int) -> Iterator[Path]:
    """A draft to fill with `size` bytes, which then is the entry. Raises OSError when there is no room for it."""
    bound = limit()
    if size > bound:
        raise OSError(f"an encoding of {size:,} bytes is over the limit of {bound:,} (ZOO_CACHE_LIMIT)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _make_room(folder.parent, bound - size)
    draft = _unused(folder.parent)
    draft.mkdir()
    try:
        yield draft
        _publish(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _write_record(draft: Path, kind: str, about: Mapping[str, Any]) -> None:
    record = {**about, "kind": kind, "arrays": {name: _crc(draft / f"{name}.npy") for name in _ARRAYS[kind]}}
    with _synced(draft / _RECORD) as file:
        file.write(json.dumps(record).encode())


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
