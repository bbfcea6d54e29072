"""`python -m zoo.check PLUGIN` on plugins that are installed for real: sound, faulty, broken and absent ones."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.check import examine_entry
from zoo.plugins import find

Shell = Callable[..., subprocess.CompletedProcess[str]]
Installed = Callable[..., Shell]


@pytest.mark.parametrize("name", ["zoo-mlp", "zoo-cnn", "zoo-transformer", "zoo_bert"])
def test_the_backends_keep_the_contract(name: str, installed: Installed) -> None:
    done = installed()("-W", "error", "-m", "zoo.check", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not checked" not in done.stdout
    assert "warning" not in done.stdout
    for check in ("determinism", "gradient", "save and load", "batch size", "padding", "light import"):
        assert check in done.stdout


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("model", "linear"),
        ("model", "majority"),
        ("dataset", "digits"),
        ("task", "sentiment"),
        ("task", "text_classification"),
        ("task", "image_classification"),
    ],
)
def test_the_core_keeps_the_contract(kind: str, name: str) -> None:
    findings = examine_entry(find(kind, name))
    assert {finding.verdict for finding in findings} == {"ok"}, findings


@pytest.mark.parametrize(("name", "option"), [("table", "path"), ("arrays", "path"), ("image_folder", "root")])
def test_a_reader_of_files_is_not_checked_without_a_file(name: str, option: str) -> None:
    findings = examine_entry(find("dataset", name))
    assert {finding.verdict for finding in findings[:-1]} == {"ok"}, findings
    assert (findings[-1].verdict, findings[-1].got) == ("not checked", f"needs {option}=")


def test_the_example_keeps_the_contract(installed: Installed) -> None:
    done = installed("example")("-W", "error", "-m", "zoo.check", "zoo-example")
    assert done.returncode == 0, done.stdout + done.stderr
    for item in ("plugin zoo-example", "model bow", "dataset messages", "task spam_detection"):
        assert item in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" ok")


def test_a_faulty_plugin_fails_with_each_fault_and_the_way_to_mend_it(installed: Installed) -> None:
    done = installed("faulty")("-m", "zoo.check", "zoo_faulty")
    assert done.returncode == 1
    words = " ".join(done.stdout.replace("│", " ").split())
    assert "raised ZeroDivisionError: the width is divided by the number of heads, which is 0 (zoo_faulty.py" in words
    assert "logits have shape (16, 4); wanted (16, 3), (batch, classes)" in words
    assert "→ Return one logit a class and example" in words
    assert "2 failed" in done.stdout.splitlines()[-1]


def test_a_broken_plugin_says_why_it_cannot_be_loaded(installed: Installed) -> None:
    done = installed("broken")("-m", "zoo.check", "zoo-broken")
    assert done.returncode == 1
    assert done.stderr.startswith("zoo-broken 0.1.0 cannot be loaded; entry point and reason:\n")
    assert "  absent: No module named 'a_module_that_nobody_installed'\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_plugin_is_answered_with_the_nearest_name(installed: Installed) -> None:
    done = installed("example")("-m", "zoo.check", "zoo-exmaple")
    assert done.returncode == 2
    assert done.stderr.startswith("No plugin 'zoo-exmaple'. Installed: zoo-harness, ")
    assert done.stderr.rstrip().endswith("Did you mean 'zoo-example'?")


HEAVY = """
import torch
from dataclasses import dataclass
from typing import ClassVar

import zoo


@dataclass
class Cards(zoo.Dataset):
    deck: str
    limit: int = 10

    name: ClassVar[str] = "cards"
    modality: ClassVar[zoo.Modality] = "text"

    def read(self):
        raise zoo.DataError("there is no deck")


@zoo.hookimpl
def zoo_datasets():
    return [Cards]
"""

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "zoo-heavy"
version = "1.0"

[project.entry-points.zoo]
heavy = "zoo_heavy"

[tool.hatch.build.targets.wheel]
include = ["*.py"]
"""


def test_the_package_as_a_whole_is_checked(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "zoo_heavy.py").write_text(HEAVY)
    done = installed(tmp_path)("-m", "zoo.check", "zoo-heavy")
    assert done.returncode == 1
    words = " ".join(done.stdout.replace("│", " ").split())
    assert "warning: zoo-heavy does not depend on zoo-harness" in words
    assert "failed: importing zoo_heavy imports torch" in words
    assert "not checked: needs deck=" in words
