"""What a table of the validation of lineage was measured with. Nothing of it names a folder of the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MEASURED_WITH = ("zoo-harness", "torch", "numpy", "scipy", "safetensors", "transformers")
_FOLDERS = ("--out", "--runs")


def about(script: str, words: Sequence[str]) -> dict[str, Any]:
    """command, versions, commit and hardware. script: as it is called from the repository's root; words: what follows
    it, of which folders are left out."""
    from zoo.engine.devices import hardware

    versions = {"python": platform.python_version(), **{name: version(name) for name in MEASURED_WITH}}
    return {
        "command": ["python", script, *without_folders(words)],
        "versions": {name: told for name, told in versions.items() if told},
        "commit": commit(),
        "hardware": {"device": "cpu", **hardware()},
    }


def version(distribution: str) -> str:
    """Of an installed distribution; empty when it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def commit() -> str:
    """Of the checkout that this file lies in, with `+` when tracked files differ from it; empty when git knows none."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def without_folders(words: Sequence[str]) -> list[str]:
    """The words of a command line but for options that name a folder, written as two words or as one."""
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and not word.startswith(tuple(f"{name}=" for name in _FOLDERS)) and word not in _FOLDERS:
            kept.append(word)
        skip = not skip and word in _FOLDERS
    return kept
