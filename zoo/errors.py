"""Every error the program raises on purpose.

```
ZooError                    exit code 1: something ran and failed
├── RequestError            exit code 2: the request was wrong; nothing ran
│   ├── UnknownName         no model, dataset, task … of that name
│   ├── ConfigError         an override that is unknown, mistyped or out of range
│   ├── Incompatible        the parts exist but do not fit together (a sweep skips such a cell)
│   └── DataError           a file, a row or a value that cannot be used
│       └── CheckpointError pretrained weights that are missing or refused
├── PluginError             a plugin cannot be loaded or breaks its contract
│   └── NameCollision       two distributions claim one name
├── TrainingError           the loss is not finite, memory ran out at the smallest batch …
└── StoreError              a run folder cannot be written or read
    └── DamagedRun          a file of a run is missing or its checksum is wrong
```

A message says what, what was got, what would have been right and the next step, in one to four lines.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class ZooError(Exception):
    """Base of all errors raised on purpose. `exit_code` is what a command line ends with.

    folder: where the run that failed is recorded, once it is; key: the key of that run, where it was known by then.
    """

    exit_code = 1
    folder: Path | None = None
    key: str | None = None


class RequestError(ZooError):
    """The request was wrong; nothing ran."""

    exit_code = 2


class UnknownName(RequestError):
    """No model, dataset, task … of that name."""


class ConfigError(RequestError):
    """An override that is unknown, mistyped or out of range."""


class Incompatible(RequestError):
    """The parts exist but do not fit together, e.g. a text model and an image task."""


class DataError(RequestError):
    """A file, a row or a value that cannot be used."""


class CheckpointError(DataError):
    """Pretrained weights that are missing, or refused because loading them would run code."""


class PluginError(ZooError):
    """A plugin cannot be loaded or breaks its contract."""


class NameCollision(PluginError):
    """Two distributions claim one name."""

    exit_code = 2


class TrainingError(ZooError):
    """Training cannot go on."""


class StoreError(ZooError):
    """A run folder cannot be written or read."""


class DamagedRun(StoreError):
    """A file of a run is missing or its checksum is wrong. what: the file and what is wrong with it."""

    what: str = ""


def printable(text: str) -> str:
    """The text without what would steer a terminal: a file from outside may name its parts as it likes."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def shortened(text: str, most: int = 240) -> str:
    """One line of it, begin and end, of `most` characters: what another program says may quote megabytes of a file."""
    line = " ".join(text.split()) if len(text) <= most else text
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'bert'?"` for the nearest known name, or an empty string when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
