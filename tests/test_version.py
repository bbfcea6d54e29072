"""The version stands in two places, because what lists plugins must not import what reads metadata."""

from __future__ import annotations

import tomllib
from pathlib import Path

import zoo


def test_the_version_of_the_package_is_that_of_the_distribution() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["version"] == zoo.__version__
