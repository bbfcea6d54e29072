"""The texts and images of examples, read again from the dataset when it is still there."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    import numpy as np

    from zoo.data import Split

log = logging.getLogger("zoo")

LONGEST = 600
"""Characters of a text that a report shows."""
THUMBNAIL = 64
"""Pixels of a thumbnail's longer side."""


def test_split(record: Mapping[str, Any]) -> Split | None:
    """The test split of a run's dataset; None when it is not to be had any more, is another one now, or may not be read
    unasked (`zoo.data.reach`). Answers that were imported name a dataset that need not exist: of theirs nothing is said
    where it does not."""
    from zoo import data
    from zoo.config import from_record
    from zoo.data import reach
    from zoo.plugins import registry

    config = record.get("config")
    options = config.get("dataset") if isinstance(config, Mapping) else None
    told = logging.DEBUG if record.get("imported") else logging.WARNING
    try:
        dataset = from_record("dataset", options if isinstance(options, Mapping) else {}, registry())
        reach.require_allowed(dataset)
        split = data.load(dataset).test
    except ZooError as error:
        log.log(told, "the examples are not shown: %s", str(error).splitlines()[0])
        return None
    known = record.get("data", {}).get("splits", {}).get("test", {}).get("fingerprint")
    if split.fingerprint != known:
        log.log(told, "the examples are not shown: the dataset's test split is another one now")
        return None
    return split


def shown(split: Split | None, ids: Iterable[str]) -> dict[str, tuple[str | None, str | None]]:
    """Example id -> (text, PNG as base64); what the split does not hold is (None, None)."""
    wanted = set(ids)
    found: dict[str, tuple[str | None, str | None]] = dict.fromkeys(wanted, (None, None))
    if split is None:
        return found
    for row, name in enumerate(split.ids):
        if name in wanted:
            example = split.examples[row]
            found[name] = (_short(example), None) if isinstance(example, str) else (None, thumbnail(example))
    return found


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def thumbnail(image: np.ndarray) -> str:
    """A PNG of at most 64 pixels a side, base64. image: (height, width, 1 or 3) uint8."""
    from PIL import Image

    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
