"""A report's folder changes from the old report to the new one, whatever happens meanwhile.

The new one is written beside it, in `.<name>.new-<pid>-<random>`. Then the old one is renamed to
`.<name>.former-<pid>-<random>`, the new one to its place, and the old one is deleted. A process that dies between the
two renames leaves no report in place: then the next one that writes or reads this report puts the old one back
(`restore`). A lock file, `.<name>.lock`, is held meanwhile, so that what lies in such folders while nobody holds it was
left behind. Their names are nobody else's: a folder `.<name>.new` of the user's stays. An earlier version named its
folders so, without the numbers: both together, each a whole report, are what it left between the two renames.

A whole report never gives way to a part of one: `report.json` is the first file that is deleted of a report, so that
what a deletion leaves is known as a part.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
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
    tables of the user's. Raises RequestError when something else than a report lies there or no disk takes its name,
    StoreError when it cannot be written; then the old one stays.
    """
    target = Path(os.path.realpath(target))
    with disk.writing(target):
        disk.make_folders(target.parent)
        lock = disk.Lock.acquire(_lock_of(target))
        try:
            _settle(target)
            refuse_foreign(target, parts)
            draft = _beside(target, "new")
            _write(parts, draft)
            _swap(draft, target)
        finally:
            with suppress(OSError):
                _settle(target, parts)
            _release(lock)


def restore(target: Path) -> None:
    """Put the old report back where a process died while it replaced it. Nothing happens while one is at it, and where
    it may not be done."""
    target = Path(os.path.realpath(target))
    with suppress(OSError):
        left = _lock_of(target).exists() or _left(target, "former") or _left(target, "new") or _left_before(target)
        if not left:
            return
        lock = disk.Lock.try_acquire(_lock_of(target))
        if lock is not None:
            try:
                _settle(target)
            finally:
                _release(lock)


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
    """What lies in a report's folder; of the folders that a report has, what lies in these. A link to a folder is not
    looked into: what lies there is the user's, and so is the link."""
    names = os.listdir(folder)
    inner = [name for name in names if name in _KINDS and (folder / name).is_dir() and not (folder / name).is_symlink()]
    return [name for name in names if name not in inner] + [
        f"{name}/{file}" for name in inner for file in os.listdir(folder / name)
    ]


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _release(lock: disk.Lock) -> None:
    """Ours is empty; a file of the user's by that name stays."""
    lock.release(remove=not lock.read())


def _beside(target: Path, what: str) -> Path:
    """A name beside a report that nobody has: what is "new" or "former"."""
    return target.with_name(f".{target.name}.{what}-{os.getpid()}-{secrets.token_hex(4)}")


def _left(target: Path, what: str) -> list[Path]:
    """The folders that `_beside` named, sorted."""
    ours = re.compile(rf"{re.escape(f'.{target.name}.{what}')}-\d+-[0-9a-f]{{8}}")
    found = (path for path in target.parent.iterdir() if ours.fullmatch(path.name))
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def _write(parts: Mapping[str, bytes], draft: Path) -> None:
    draft.mkdir()
    for name, content in parts.items():
        (draft / name).parent.mkdir(exist_ok=True)
        disk.write_file(draft / name, [content])
    for written in (*{(draft / name).parent for name in parts}, draft):
        disk.sync(written)


def _swap(draft: Path, target: Path) -> None:
    if target.exists():
        os.rename(target, _beside(target, "former"))
    os.rename(draft, target)
    disk.sync(target.parent)


def _settle(target: Path, parts: Mapping[str, bytes] | None = None) -> None:
    """Leave one report in place, an old one where the new one is not there yet, and nothing beside it."""
    if target.exists() and not target.is_dir():
        return
    own = frozenset(parts or ())
    formers = sorted([*_left_before(target), *_left(target, "former")], key=_standing, reverse=True)
    if formers and not _is_whole(target) and (_is_whole(formers[0]) or not target.exists()):
        best, *formers = formers
        if target.exists():
            _take_over(target, best, own)
            _delete(target)
        os.rename(best, target)
        disk.sync(target.parent)
    for former in formers:
        _take_over(former, target, own)
        _delete(former)
    for draft in _left(target, "new"):
        shutil.rmtree(draft)


def _is_whole(folder: Path) -> bool:
    return (folder / DOCUMENT).is_file()


def _standing(former: Path) -> tuple[bool, int, str]:
    """Of several old reports the greatest is put back: a whole one, and of these the newest."""
    whole = _is_whole(former)
    return whole, (former / DOCUMENT if whole else former).stat().st_mtime_ns, former.name


def _delete(folder: Path) -> None:
    (folder / DOCUMENT).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _left_before(target: Path) -> list[Path]:
    """The old report that an earlier version put aside and did not replace. The new one beside it, which tells it from
    a copy of the user's, stays."""
    former, draft = (target.with_name(f".{target.name}.{what}") for what in ("former", "new"))
    if target.exists() or not (_is_report(former) and _is_report(draft)):
        return []
    return [former]


def _is_report(folder: Path) -> bool:
    """Whether a folder holds a whole report and nothing else."""
    if folder.is_symlink() or not all((folder / name).is_file() for name in (PAGE, MARKDOWN, DOCUMENT)):
        return False
    return not _foreign(folder, frozenset())


def _take_over(former: Path, target: Path, parts: frozenset[str]) -> None:
    """Move what is not the report's own from the old folder to the new one: litter, the user's charts and tables, and
    what was put there after it was looked at."""
    for name in _within(former):
        if name not in PARTS | parts and not os.path.lexists(target / name):
            (target / name).parent.mkdir(exist_ok=True)
            _move(former / name, target / name)


def _move(old: Path, new: Path) -> None:
    """Rename, or copy and delete where a folder of the old report is on a disk of its own. Raises OSError."""
    try:
        os.rename(old, new)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(old, new)
