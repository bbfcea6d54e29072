"""Reading run folders. Importing this module and looking at `run.json` and `metrics.json` needs no numpy."""

from __future__ import annotations

import difflib
import glob
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.errors import DamagedRun, StoreError, shortened
from zoo.store.disk import file_facts
from zoo.store.drafts import drafts_of, is_living
from zoo.store.keys import RunPlace
from zoo.store.schema import FEATURES, FILES, HISTORY, METRICS, PREDICTIONS, RUN, SCHEMA_VERSION, WEIGHTS

if TYPE_CHECKING:
    import numpy as np

    from zoo.store.tables import PredictionTable

T = TypeVar("T")

MOST_RECORD_BYTES = 2**26
"""A `run.json` that is larger than this is not read."""


@dataclass(frozen=True)
class Run:
    """One run folder. record: what `run.json` says. The files are read when they are asked for, and each time their
    checksum is compared: the methods raise DamagedRun naming the file, and StoreError when the run has no such file.
    """

    folder: Path
    record: Mapping[str, Any]

    @property
    def status(self) -> str:
        """started, complete, failed or skipped."""
        return str(self.record.get("status"))

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Metric name → {value, low, high, n} and perhaps `reason`."""
        return self._load(METRICS, json.loads)

    def predictions(self) -> PredictionTable:
        """The answer on every example, in the order in which it was written."""
        from zoo.store.tables import predictions_from_bytes

        return self._load(PREDICTIONS, predictions_from_bytes)

    def features(self) -> dict[str, np.ndarray]:
        """Layer name → (examples, width)."""
        from zoo.store.tables import tensors_from_bytes

        return self._load(FEATURES, tensors_from_bytes)

    def weights(self) -> dict[str, np.ndarray]:
        """Parameter name → array. bfloat16 needs torch: read the file with `safetensors.torch` then."""
        from zoo.store.tables import tensors_from_bytes

        return self._load(WEIGHTS, tensors_from_bytes)

    def history(self) -> list[dict[str, Any]]:
        """One row an epoch."""
        from zoo.store.tables import history_from_bytes

        return self._load(HISTORY, history_from_bytes)

    def verify(self, contents: bool = True) -> None:
        """Compare every file with its checksum; without `contents` only its size, which reads no file. Raises
        DamagedRun for the first that is missing or differs."""
        for name in self._files():
            self._check(name, contents)

    def _files(self) -> Mapping[str, Any]:
        files = self.record.get("files")
        return files if isinstance(files, Mapping) else {}

    def _check(self, name: str, contents: bool = True) -> None:
        wanted = self._files()[name]
        try:
            # A pipe or a device has no end: neither is opened.
            size = _size(self.folder / name)
            if size is None:
                raise damaged(self.folder, f"{name} is no file")
            if size != wanted["bytes"]:
                raise damaged(self.folder, f"{name} has {size} bytes where {wanted['bytes']} were written")
            if not contents:
                return
            got = file_facts(self.folder / name)
        except FileNotFoundError:
            raise damaged(self.folder, f"{name} is missing") from None
        except (OSError, ValueError) as error:
            raise damaged(self.folder, f"{name} cannot be read ({getattr(error, 'strerror', error)})") from error
        if got.sha256 != wanted["sha256"]:
            raise damaged(self.folder, f"{name} is not what was written (its checksum differs)")

    def _load(self, name: str, parse: Callable[[bytes], T]) -> T:
        if name not in self._files():
            raise StoreError(f"Run {self.folder} holds no {name}; its status is '{self.status}'.")
        self._check(name)
        try:
            return parse((self.folder / name).read_bytes())
        except (ValueError, KeyError, OSError, RecursionError) as error:
            raise damaged(self.folder, f"{name} cannot be read ({error})") from error


def _size(file: Path) -> int | None:
    """Bytes of a file; None for what is no plain file. Raises OSError, and ValueError for no name of a file."""
    facts = file.stat()
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None


def damaged(folder: Path, what: str) -> DamagedRun:
    """The error for a folder whose content is not what was written."""
    what = shortened(what)
    error = DamagedRun(f"Run {folder} is damaged: {what}.\nRestore the file, or delete the folder and run it again.")
    error.what = what
    return error


def near_folder(place: str | Path, root: str = "runs") -> str:
    """`" Did you mean 'runs/sentiment'?"` for a path at which there is nothing, or an empty string: the nearest name
    where the path leaves what is there, else what has nearly this name, or this path, in the root or in its folders."""
    path = Path(place)
    there = next((folder for folder in path.parents if os.path.isdir(folder)), None)
    if there is None or glob.has_magic(str(place)):
        return ""
    lost, *rest = path.parts[len(there.parts) :]
    near = difflib.get_close_matches(lost, [folder.name for folder in _visible(there)], n=1, cutoff=0.6)
    if near:
        whole = there.joinpath(near[0], *rest)
        return f" Did you mean '{whole if os.path.isdir(whole) else there / near[0]}'?"
    above = _visible(Path(root))
    inner = [one for folder in above for one in _visible(folder)]
    named = {one.name: one for one in [*inner, *above]} | {str(one.relative_to(root)): one for one in inner}
    asked = str(path.relative_to(root) if path.parts[0] == root else path)
    near = difflib.get_close_matches(asked, named, n=1, cutoff=_NEARLY)
    return f" Did you mean '{named[near[0]]}'?" if near else ""


_NEARLY = 0.75
"""How alike a name elsewhere must be: `imbd` is `imdb` (.75), and `disguised` is no `digits` (.67)."""


def _visible(folder: Path) -> list[Path]:
    """The folders in a folder, without hidden ones; none where it cannot be read."""
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        return []


def read_record(folder: Path) -> dict[str, Any]:
    """`run.json` of a folder. Raises DamagedRun when it is missing or unreadable, StoreError for a schema version
    that this program does not know."""
    try:
        size = _size(folder / RUN)
        if size is None or size > MOST_RECORD_BYTES:
            what = "no file" if size is None else f"{size / 2**20:.0f} MiB large, which no record is"
            raise damaged(folder, f"{RUN} is {what}")
        record = json.loads((folder / RUN).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if not folder.is_dir():
            raise StoreError(
                f"There is no run folder {folder}.{near_folder(folder)}\n`python -m zoo.ls runs` lists what there is."
            ) from None
        raise damaged(folder, f"{RUN} is missing") from None
    except OSError as error:
        raise StoreError(f"Cannot read {folder / RUN}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise damaged(folder, f"{RUN} is not JSON ({error})") from error
    version = record.get("schema_version") if isinstance(record, dict) else None
    if type(version) is not int or not _files_are_sane(record.get("files", {})):
        raise damaged(folder, f"{RUN} does not hold the record of a run")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"Run {folder} has schema version {version} and this program reads version {SCHEMA_VERSION}.\n"
            "Upgrade it: pip install --upgrade zoo-harness"
        )
    return dict(record)


def _files_are_sane(files: Any) -> bool:
    return isinstance(files, dict) and all(
        _is_inside(name) and isinstance(facts, dict) and {"sha256", "bytes"} <= facts.keys()
        for name, facts in files.items()
    )


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def read(folder: Path, verify: bool = True) -> Run:
    """The run in a folder, whatever its status. `verify` compares every file with its checksum. Raises DamagedRun
    naming folder and file, StoreError when there is none or its schema version is unknown."""
    run = Run(folder, read_record(folder))
    if verify:
        run.verify()
    return run


def find(root: Path, place: RunPlace, verify: bool = False) -> Run | None:
    """The complete run at a place; None when there is none or it is not complete. `verify` also compares every
    checksum. Raises DamagedRun when it would have to be run again because of damage, StoreError for an unknown schema
    version."""
    folder = root / place.relative
    if not folder.is_dir():
        return None
    run = read(folder, verify=False)
    if run.status != "complete":
        return None
    if verify:
        run.verify()
    return run


def runs(root: Path) -> Iterator[Run]:
    """Every run under a root, in the order of the paths, then the drafts. Nothing is raised for a bad one:

    - a folder that cannot be read has status failed, and `error` says why;
    - a draft whose process lives has status started;
    - a draft whose process is gone has status failed, and `interrupted` is true.

    Checksums are not compared. Raises StoreError when the root cannot be read.
    """
    for folder in _run_folders(root):
        try:
            yield read(folder, verify=False)
        except StoreError as error:
            place = dict(zip(("task", "dataset", "model", "key"), folder.parts[-4:], strict=True))
            yield Run(folder, {**place, "status": "failed", "error": _error(error)})
    for folder in drafts_of(root):
        yield _draft(folder)


def _run_folders(root: Path) -> Iterator[Path]:
    level = [root]
    for _ in RunPlace.__dataclass_fields__:
        level = [folder for parent in level for folder in _subfolders(parent)]
    return (folder for folder in level if any((folder / name).exists() for name in FILES))


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"Cannot read {folder}: {error.strerror}\nChoose another folder with runs_dir=…") from error
    return [folder / name for name in names]


def _draft(folder: Path) -> Run:
    try:
        record = read_record(folder)
    except StoreError:
        record = {}
    if is_living(folder):
        return Run(folder, {**record, "status": "started"})
    error = {"type": "Interrupted", "message": "the process ended before the run was published"}
    return Run(folder, {**record, "status": "failed", "interrupted": True, "error": error})


def _error(error: Exception) -> dict[str, str]:
    said = error.what if isinstance(error, DamagedRun) and error.what else str(error)
    return {"type": type(error).__name__, "message": said}
