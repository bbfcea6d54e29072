"""Where a disguised run may go: not among the runs of the study that it was made from, whose answer would change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import RequestError, StoreError
from zoo.store.keys import RunPlace
from zoo.store.reading import read
from zoo.store.schema import PARENT

DEFAULT = "disguised"
"""The folder for disguised runs, beside `runs`: reports on the latter do not look into it."""


def root_of(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """The folder under which a run lies as task/dataset/model/key, as its record names them; None when it does not,
    because it was moved."""
    names = [record.get(part) for part in ("task", "dataset", "model", "key")]
    if not all(isinstance(name, str) and name for name in names):
        return None
    relative = RunPlace(*map(str, names)).relative
    folder = folder.resolve()
    return folder.parents[3] if folder.parts[-4:] == relative.parts and len(folder.parents) > 3 else None


def require_apart(run: Path, out: Path) -> None:
    """Refuse to write among the runs that a run was trained with. What was made out of another itself may have more
    made out of it beside it. Raises RequestError; what cannot be read is for the reader of the run to tell."""
    try:
        record = read(run, verify=False).record
    except (RequestError, StoreError, OSError):
        return
    root = None if record.get(PARENT) else root_of(run, record)
    if root is not None and out.resolve().is_relative_to(root):
        raise RequestError(
            f"out={out} is in {root}, where the run to be disguised is.\n"
            "A report on these runs would count the copy as one more model, and its headline would change.\n"
            f"Choose a folder outside, e.g. out={DEFAULT}; a report takes both: study={root},{DEFAULT}"
        )
