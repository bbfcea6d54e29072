"""Which run is which: the key of a recipe, and the place of a run under the root."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

from zoo.errors import StoreError
from zoo.store.schema import FAILED_SUFFIX

KEY_DIGITS = 16


def run_key(config: Mapping[str, Any], fingerprint: str, versions: Mapping[str, str]) -> str:
    """The key of a run: 16 hex digits that are equal exactly when recipe, data and versions are.

    config: the resolved configuration (JSON types, paths and enums; not the options that leave the result alone, such
    as where it is stored). fingerprint: of the data. versions: distribution name → version. The order of mappings does
    not matter. Raises StoreError for a value that has no JSON form.
    """
    content = {"config": config, "fingerprint": fingerprint, "versions": versions}
    # Infinity and NaN keep their own spelling here, so that an option of inf and one of null are two recipes.
    text = json.dumps(plain(content), sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


@dataclass(frozen=True)
class RunPlace:
    """Where a run belongs: names as the registry knows them, and the key from `run_key`.

    Raises StoreError when one of them is empty.
    """

    task: str
    dataset: str
    model: str
    key: str

    def __post_init__(self) -> None:
        for part in ("task", "dataset", "model", "key"):
            if not getattr(self, part):
                raise StoreError(f"A run needs a {part}, and this one has an empty name there.")

    @property
    def relative(self) -> Path:
        """`task/dataset/model/key`, each escaped so that it stays one folder below the one before."""
        return Path(*(escape(part) for part in (self.task, self.dataset, self.model, self.key)))

    @property
    def relative_failed(self) -> Path:
        """Where a failed try goes while a complete run stands at `relative`."""
        return self.relative.with_name(self.relative.name + FAILED_SUFFIX)


def escape(name: str) -> str:
    """One safe folder name, different for different names: letters and digits of any script, `_`, `-` and inner dots
    stay; everything else, and a leading dot, becomes `%XX`; a long one is `shortened`."""
    kept = [
        c if c.isalnum() or c in "_-." else "".join(f"%{byte:02X}" for byte in c.encode(errors="surrogatepass"))
        for c in name
    ]
    if kept and kept[0] == ".":
        kept[0] = "%2E"
    return shortened("".join(kept))


MOST_BYTES = 200
"""Of a name: disks take 255, and what is written beside it has a longer one."""


def shortened(name: str) -> str:
    """A name of at most 200 bytes in UTF-8: a longer one keeps its beginning and gets 16 digits of its hash, so that
    different names stay different."""
    content = name.encode(errors="surrogatepass")
    if len(content) <= MOST_BYTES:
        return name
    digest = hashlib.sha256(content).hexdigest()[:16]
    return f"{content[: MOST_BYTES - 17].decode(errors='ignore')}-{digest}"


def plain(value: Any) -> Any:
    """The value in JSON types: mappings, sequences, sets (sorted), paths, enums, numpy numbers and arrays are
    translated. Raises StoreError for anything else."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    raise StoreError(f"A value of type {type(value).__name__} has no JSON form: {value!r:.80}")


def finite(value: Any) -> Any:
    """A value from `plain` with NaN and infinities replaced by None: JSON has no spelling for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return value
