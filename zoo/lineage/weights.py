"""Weights as stored: safetensors only, checked before a tensor is touched, one tensor in memory at a time."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import DamagedRun, DataError, shortened
from zoo.store.reading import near_folder, read
from zoo.store.schema import PARENT, RUN, WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    import torch

INDEX = "model.safetensors.index.json"
MOST_BYTES = 2**31
"""A tensor that is larger than this as float32 is left out: memory stays bounded whatever a header claims."""

MOST_TENSORS = 2**18
MOST_DIMENSIONS = 8
LONGEST_NAME = 1000
MOST_JSON_BYTES = 2**26
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

# Safetensors' and torch's names of what can hold weights. Counters, masks and positions are other types and never
# compared.
_WEIGHTS_ARE = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
}


@dataclass(frozen=True)
class Stored:
    """One tensor as the header describes it. dtype: safetensors' name, e.g. `"BF16"`; at: its first byte in the
    file."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    at: int = 0


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of one model on disk. Two are equal only when they are one object.

    label: how it is called in tables; path: what was asked for; tensors: by name, in the order of the names;
    left_out: tensors that are not compared, with the reason; record: `run.json` of a run; config: `config.json` of a
    Hugging Face folder.
    """

    label: str
    path: Path
    tensors: Mapping[str, Stored]
    left_out: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by its name."""
        return {name: stored.shape for name, stored in self.tensors.items()}

    def load(self, name: str) -> np.ndarray:
        """One tensor as float32 (float64 is rounded, int8 keeps its whole numbers). May hold NaN."""
        import torch

        values: np.ndarray = self._tensor(name).to(torch.float32).numpy()
        return values

    def digest(self, name: str) -> str:
        """sha256 of type, shape and bytes of one tensor: equal exactly when it is stored alike. Computed once."""
        if name not in self._digests:
            self._digests[name] = self._digest(name)
        return self._digests[name]

    @functools.cached_property
    def content(self) -> str:
        """sha256 of all tensors, whatever their names: equal when two files hold the same weights. Computed once."""
        whole = hashlib.sha256()
        for digest in sorted(self.digest(name) for name in self.tensors):
            whole.update(digest.encode())
        return whole.hexdigest()

    def _digest(self, name: str) -> str:
        import torch

        stored, tensor = self.tensors[name], self._tensor(name).contiguous()
        whole = hashlib.sha256(f"{stored.dtype}{stored.shape}".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return whole.hexdigest()

    def _tensor(self, name: str) -> torch.Tensor:
        """Read from its place in the file: the library would read the whole header again, for each of the tensors."""
        import math

        import numpy as np
        import torch

        stored = self.tensors[name]
        kind: torch.dtype = getattr(torch, _WEIGHTS_ARE[stored.dtype])
        content = np.empty(math.prod(stored.shape) * kind.itemsize, np.uint8)
        try:
            with stored.file.open("rb") as file:
                file.seek(stored.at)
                if file.readinto(content.data) != len(content):
                    raise OSError("the file has become shorter")
        except OSError as error:
            raise DataError(f"{stored.file}: tensor {name} cannot be read ({error.strerror or error}).") from error
        return torch.from_numpy(content).view(kind).reshape(stored.shape)


def open_weights(path: str | Path, most_bytes: int = MOST_BYTES) -> Weights:
    """The weights at a path: a run folder, a safetensors file, or a Hugging Face folder. Nothing but headers is read,
    except that a run's checksums are compared.

    Raises DataError for a path without safetensors, a header that does not fit its file, a shard outside the folder or
    other than the index says, more tensors than any model has, or a file without weights; DamagedRun for a run that is
    not what was written."""
    path = expanded(path)
    try:
        return _opened(path, most_bytes)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.\nGive {WHAT}.") from error


WHAT = "a run folder, a .safetensors file or a Hugging Face folder with safetensors"


def expanded(path: str | Path) -> Path:
    """The path with its ~ replaced; one of nobody stays."""
    return Path(os.path.expanduser(path))


def _opened(path: Path, most_bytes: int) -> Weights:
    if path.is_file():
        return _made(path.name, path, [path], most_bytes)
    if not path.is_dir():
        if os.path.lexists(path):
            raise DataError(f"'{path}' is neither a file nor a folder. Give {WHAT}.")
        raise DataError(f"There is no '{path}'.{near_folder(path)} Give {WHAT}.")
    if (path / RUN).is_file():
        return _of_run(path, most_bytes)
    config = _json(path / "config.json") if (path / "config.json").is_file() else None
    found = _made(path.name, path, _shards(path), most_bytes, config=config)
    if lost := sorted(_promised(path) - found.tensors.keys() - found.left_out.keys()):
        raise DataError(
            f"{path / INDEX} names {len(lost)} tensors that no shard holds, such as {lost[0]}.\n"
            "The folder is not complete: fetch it again."
        )
    return found


def _of_run(folder: Path, most_bytes: int) -> Weights:
    record = read(folder).record
    _require_objects(folder, record)
    return of_run(folder, record, f"{record.get('model')}/{record.get('key')}", most_bytes)


def of_run(folder: Path, record: Mapping[str, Any], label: str, most_bytes: int = MOST_BYTES) -> Weights:
    """The weights of a run whose checksums have been compared already. record: its `run.json`; label: how it is called.
    Raises DataError for a run that keeps none, or none that can be compared."""
    if not (folder / WEIGHTS).is_file():
        raise DataError(
            f"Run {folder} keeps no weights; its status is '{record.get('status')}'.\n"
            "Run it again with keep_weights=true."
        )
    return _made(label, folder, [folder / WEIGHTS], most_bytes, record=record)


def without_weights(path: str | Path) -> Weights | None:
    """A run that keeps no weights, as a model of which only the answers can be compared; None for anything else.
    Raises DamagedRun for a run that is not what was written."""
    folder = expanded(path)
    if not _is_file(folder / RUN) or _is_file(folder / WEIGHTS):
        return None
    record = read(folder).record
    _require_objects(folder, record)
    return Weights(f"{record.get('model')}/{record.get('key')}", folder, {}, record=record)


def _require_objects(folder: Path, record: Mapping[str, Any]) -> None:
    """What lineage looks up in a record may be missing, but must not be of another kind."""
    config, data = record.get("config"), record.get("data")
    parts = {"config": config, "data": data, PARENT: record.get(PARENT)}
    if isinstance(config, Mapping):
        parts |= {f"config.{name}": config.get(name) for name in ("model", "dataset", "task", "trainer")}
    if isinstance(data, Mapping):
        parts["data.splits"] = data.get("splits")
        splits = data.get("splits")
        parts["data.splits.train"] = splits.get("train") if isinstance(splits, Mapping) else None
    if wrong := [name for name, part in parts.items() if part is not None and not isinstance(part, Mapping)]:
        raise DamagedRun(
            f"Run {folder} is damaged: {wrong[0]} in its {RUN} is no JSON object.\n"
            "Restore the file, or delete the folder and run it again."
        )


def _shards(folder: Path) -> list[Path]:
    """The safetensors files of a Hugging Face folder."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        names = _weight_map(folder)
        files = sorted({str(name) for name in names.values()})
        if strange := [name for name in files if Path(name).name != name or not _is_file(folder / name)]:
            raise DataError(
                f"{folder / INDEX} names '{strange[0]}', which is no file of that folder.\n"
                "Fetch the folder again; every shard lies beside its index."
            )
        return [folder / name for name in files]
    pickled = sorted(file.name for pattern in _PICKLED for file in folder.glob(pattern))
    told = f" It holds {pickled[0]}, which is never read: that may run code." if pickled else ""
    if others := sorted(file.name for file in folder.glob("*.safetensors")):
        told = f" It holds {others[0]}: give that file itself."
    raise DataError(f"'{folder}' holds no {RUN}, no {WEIGHTS} and no {INDEX}.{told}\nGive {WHAT}.")


def _weight_map(folder: Path) -> Mapping[str, Any]:
    names = _json(folder / INDEX).get("weight_map")
    if not isinstance(names, Mapping) or not names:
        raise DataError(f"{folder / INDEX} names no shards: it should hold a 'weight_map'.")
    return names


def _promised(folder: Path) -> set[str]:
    """The tensors that an index names, where one is read; those whose name is too long are not looked for."""
    if (folder / WEIGHTS).is_file():
        return set()
    return {name for name in _weight_map(folder) if len(name) <= LONGEST_NAME}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name that the file system takes
        return False


def _json(file: Path) -> dict[str, Any]:
    try:
        if (size := file.stat().st_size) > MOST_JSON_BYTES:
            raise DataError(f"{file} has {size / 2**20:.0f} MiB, more than the {MOST_JSON_BYTES / 2**20:.0f} allowed.")
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON: {shortened(str(error))}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds no JSON object.")
    return content


def _made(label: str, path: Path, files: Sequence[Path], most_bytes: int, **known: Any) -> Weights:
    tensors: dict[str, Stored] = {}
    for file in files:
        held = _header(file)
        if twice := tensors.keys() & held.keys():
            raise DataError(f"{path}: tensor {min(twice)} is in {file.name} and in another shard, too.")
        tensors |= held
    weights, left_out = _sorted_out(tensors.items(), most_bytes)
    if not weights:
        why = next((f" ({name}: {reason})" for name, reason in left_out.items()), "")
        raise DataError(f"{path} holds no weights that can be compared{why}.")
    return Weights(label, path, dict(sorted(weights.items())), left_out, **known)


def _header(file: Path) -> dict[str, Stored]:
    """What a file says of its tensors. The library refuses headers that do not fit the file to the byte: truncated,
    overlapping, of an unknown type, or with a shape of another size than the bytes it names."""
    from safetensors import SafetensorError, safe_open

    if _no_text(str(file)):
        raise DataError(f"{file}: the library takes no name that is not UTF-8. Give the file another name.")
    try:
        with file.open("rb"):  # the library calls every file that it cannot open one that is not there
            pass
        with safe_open(file, framework="pt") as opened:
            count = len(opened.keys())
        if count > MOST_TENSORS:
            raise DataError(f"{file} holds {count} tensors; more than {MOST_TENSORS} are not compared.")
        return _entries(file)
    except PermissionError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.\nGrant the permission, or give {WHAT}.") from error
    except (OSError, SafetensorError, ValueError, OverflowError, LookupError, TypeError, RecursionError) as error:
        reason = shortened(str(error).removeprefix("Error while deserializing header: "))
        step = "Fetch it again, or convert it with safetensors' save_file."
        raise DataError(f"{file} is no sound safetensors file: {reason}.\n{step}") from error


def _no_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def _entries(file: Path) -> dict[str, Stored]:
    """A header that the library has found sound."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return {
        name: Stored(file, tuple(told["shape"]), told["dtype"], 8 + length + told["data_offsets"][0])
        for name, told in header.items()
    }


def _sorted_out(tensors: Iterable[tuple[str, Stored]], most_bytes: int) -> tuple[dict[str, Stored], dict[str, str]]:
    from math import prod

    weights, left_out = {}, {}
    for name, stored in tensors:
        size = 4 * prod(stored.shape)
        if stored.dtype not in _WEIGHTS_ARE:
            left_out[name] = f"type {stored.dtype} holds no weights"
        elif size == 0:
            left_out[name] = "it is empty"
        elif len(name) > LONGEST_NAME or len(stored.shape) > MOST_DIMENSIONS:
            left_out[name[:LONGEST_NAME]] = f"{len(stored.shape)} dimensions and a name of {len(name)} characters"
        elif size > most_bytes:
            left_out[name] = f"{size / 2**30:.1f} GiB as float32, more than the {most_bytes / 2**30:.1f} allowed"
        else:
            weights[name] = stored
    return weights, left_out
