"""`python -m zoo.cache [list|clear]`: what the encoding cache holds, and emptying it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from zoo import guard
from zoo.errors import StoreError
from zoo.phases import phase


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 fine, 1 it could not be done, 2 the request was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.cache",
        description="The encoding cache: encoded splits, kept so that a second run need not encode again.",
        epilog="ZOO_CACHE names its folder, or is `off`. ZOO_CACHE_LIMIT bounds it, in bytes (default 4 GiB).",
    )
    parser.add_argument("command", nargs="?", default="list", choices=["list", "clear"], help="default: list")
    return guard.run(lambda: _command(guard.parsed(parser, arguments).command))


def _command(command: str) -> int:
    from zoo import progress
    from zoo.data.cache import place

    with progress.activity(), phase("looking for the cache"):
        root = place()
    if root is None:
        print("The cache is off (ZOO_CACHE=off).")
    elif command == "list":
        _list(root)
    else:
        _clear(root)
    return 0


def _list(root: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from zoo import progress
    from zoo.data.cache import entries, limit

    with progress.activity(), phase("reading the cache"):
        found = entries(root)
    total = f"{len(found)} entries, {_size(sum(entry.bytes for entry in found))} of {_size(limit())} in {root}"
    if found:
        table = Table("encoder", "split", "examples", "size", "last used", "key")
        for column in (2, 3):
            table.columns[column].justify = "right"
        for entry in reversed(found):
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
            key = entry.path.name[:12]
            table.add_row(entry.encoder, entry.split, f"{entry.examples:,}", _size(entry.bytes), used, key)
        Console().print(table)
    print(total)


def _clear(root: Path) -> None:
    from zoo import progress
    from zoo.data.cache import clear

    try:
        with progress.activity(), phase("clearing the cache"):
            freed = clear(root)
        print(f"Freed {_size(freed)} in {root}")
    except OSError as error:
        raise StoreError(f"The cache cannot be cleared: {error}") from error


def _size(count: float) -> str:
    """Bytes as people read them: 4.0 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


if __name__ == "__main__":
    guard.leave(main())
