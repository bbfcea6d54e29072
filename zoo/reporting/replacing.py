"""A report's folder changes from the old report to the new one, whatever happens meanwhile.

The new one is written beside it, in `.<name>.new`. Then the old one is renamed to `.<name>.former`, the new one to its
place, and the old one is deleted. A process that dies between the two renames leaves no report in place: then the next
one that writes or reads this report puts the old one back (`restore`). A lock file, `.<name>.lock`, is held meanwhile,
so that what lies in the two folders while nobody holds it was left behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from zoo.data.litter import is_litter
from zoo.errors import RequestError
from zoo.store import disk

PAGE, MARKDOWN, DOCUMENT = "index.html", "report.md", "report.json"

# Every file that a version of this program has put in the folders of a report. What else lies there may be the user's:
# another chart or table is taken over, and anything else is a reason to refuse.
_FIGURES = frozenset(
    {"pairs", "map", "dendrogram", "lineage", "failures", "diversity", "layers", "speed", "cost"}
)  # fmt: skip
_TABLES = frozenset(
    {"models", "metrics", "pairs", "claims", "set_measures", "failures", "failed_examples", "contributions", "layers",
     "bench", "headline", "lineage", "lineage_records", "lineage_runs", "not_defined", "runs", "left_out"}
)  # fmt: skip
PARTS = frozenset(
    {PAGE, MARKDOWN, DOCUMENT}
    | {f"figures/{name}.svg" for name in _FIGURES}
    | {f"tables/{name}.csv" for name in _TABLES}
)
_KINDS = {"figures": ".svg", "tables": ".csv"}


def replace(parts: Mapping[str, bytes], target: Path) -> None:
    """Put the files of a report, by their path within it, in the place of the one that is there.

    What a file manager or an editor left in the old folder (`zoo.data.litter`) is taken over, and so are charts and
    tables of the user's. Raises RequestError when something else than a report lies there, OSError and StoreError when
    it cannot be written; then the old one stays.
    """
    target = Path(os.path.realpath(target))
    disk.make_folders(target.parent)
    lock = disk.Lock.acquire(_beside(target, "lock"))
    try:
        _settle(target)
        refuse_foreign(target, parts)
        _write(parts, _beside(target, "new"))
        _swap(target, parts)
    finally:
        with suppress(OSError):
            _settle(target, parts)
        lock.release()


def restore(target: Path) -> None:
    """Put the old report back where a process died while it replaced it. Nothing happens while one is at it, and where
    it may not be done."""
    target = Path(os.path.realpath(target))
    with suppress(OSError):
        if not any(_beside(target, what).exists() for what in ("former", "new", "lock")):
            return
        lock = disk.Lock.try_acquire(_beside(target, "lock"))
        if lock is not None:
            try:
                _settle(target)
            finally:
                lock.release()


def refuse_foreign(target: Path, parts: Mapping[str, bytes] | None = None) -> None:
    """Raise RequestError when what lies at the place of a report is not one, or holds files that no report has."""
    if os.path.lexists(target) and not target.is_dir():
        raise RequestError(f"{target} is a file, and a report is a folder.\nName another, or move it away.")
    if foreign := _foreign(target, frozenset(parts or ())):
        raise RequestError(
            f"{target} holds something that is no part of a report: {foreign[0]}\n"
            "A report replaces the whole folder. Name another, or move that away."
        )


def _foreign(folder: Path, parts: frozenset[str]) -> list[str]:
    """Files and folders, by their path within a report's folder, that are no parts of one, no further charts or tables,
    and no litter."""
    if not folder.is_dir():
        return []
    unknown = [Path(name) for name in _within(folder) if name not in PARTS | parts]
    return sorted(
        path.as_posix()
        for path in unknown
        if not is_litter(path.name) and path.suffix != _KINDS.get(path.parent.as_posix(), "no kind")
    )


def _within(folder: Path) -> list[str]:
    """What lies in a report's folder; of the folders that a report has, what lies in these."""
    names = os.listdir(folder)
    inner = [name for name in names if name in _KINDS and (folder / name).is_dir()]
    return [name for name in names if name not in inner] + [
        f"{name}/{file}" for name in inner for file in os.listdir(folder / name)
    ]


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}")


def _write(parts: Mapping[str, bytes], draft: Path) -> None:
    draft.mkdir()
    for name, content in parts.items():
        (draft / name).parent.mkdir(exist_ok=True)
        disk.write_file(draft / name, [content])
    for written in (*{(draft / name).parent for name in parts}, draft):
        disk.sync(written)


def _swap(target: Path, parts: Mapping[str, bytes]) -> None:
    if target.exists():
        os.rename(target, _beside(target, "former"))
    os.rename(_beside(target, "new"), target)
    disk.sync(target.parent)


def _settle(target: Path, parts: Mapping[str, bytes] | None = None) -> None:
    """Leave one report in place, the old one where the new one is not there yet, and nothing beside it."""
    former, draft = _beside(target, "former"), _beside(target, "new")
    if former.is_dir():
        if target.exists():
            _take_over(former, target, frozenset(parts or ()))
            shutil.rmtree(former)
        else:
            os.rename(former, target)
            disk.sync(target.parent)
    if draft.is_dir():
        shutil.rmtree(draft)


def _take_over(former: Path, target: Path, parts: frozenset[str]) -> None:
    """Move what is not the report's own from the old folder to the new one: litter, the user's charts and tables, and
    what was put there after it was looked at."""
    for name in _within(former):
        if name not in PARTS | parts and not os.path.lexists(target / name):
            (target / name).parent.mkdir(exist_ok=True)
            os.rename(former / name, target / name)
