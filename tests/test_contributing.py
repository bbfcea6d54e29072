"""CONTRIBUTING.md says the truth: its plugin works as printed, its hooks are all the hooks, its paths exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo import hookspecs

CHECKOUT = Path(__file__).parent.parent
TEXT = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")

Shell = Callable[..., subprocess.CompletedProcess[str]]
Installed = Callable[..., Shell]


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the template's two files, under the names that the page gives them."""
    folder = tmp_path_factory.mktemp("smallest")
    for name, text in zip(re.findall(r"^`([\w.]+)`:$", TEXT, flags=re.MULTILINE), template(), strict=True):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def template() -> tuple[str, str]:
    """The text of the two files."""
    return blocks("toml")[0], blocks("python")[0]


def test_the_template_is_two_files_under_forty_lines() -> None:
    assert sum(len(text.splitlines()) for text in template()) < 40


def test_the_commands_on_the_page_work_with_the_template(installed: Installed, smallest: Path, tmp_path: Path) -> None:
    shell = installed(smallest)
    install, *commands = [line.split() for line in blocks("sh")[0].splitlines()]
    assert install == ["python", "-m", "pip", "install", "."]
    assert [command[2] for command in commands] == ["zoo.check", "zoo.run"]
    for command in commands:
        done = shell(*command[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stdout
    (record,) = tmp_path.glob("runs/image_classification/digits/shallow/*/run.json")
    accuracy = json.loads((record.parent / "metrics.json").read_text())["accuracy"]["value"]
    assert json.loads(record.read_text())["status"] == "complete"
    assert accuracy > 0.8  # ten classes: chance is .1, and logistic regression on these digits is above .9


def test_the_test_on_the_page_passes_on_the_template(installed: Installed, smallest: Path, tmp_path: Path) -> None:
    (tmp_path / "test_shallow.py").write_text(blocks("python")[1], encoding="utf-8")
    done = installed(smallest)("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shallow.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_every_hook_is_documented_with_its_arguments() -> None:
    documented = dict(re.findall(r"^\| `(zoo_\w+)\(([^)]*)\)` \|", TEXT, flags=re.MULTILINE))
    specified = {
        name: ", ".join(function.__code__.co_varnames[: function.__code__.co_argcount])
        for name, function in vars(hookspecs).items()
        if name.startswith("zoo_")
    }
    assert documented == specified


def test_every_linked_path_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert len(links) >= 8
    assert [link for link in links if not (CHECKOUT / link).exists()] == []


def test_every_make_target_on_the_page_exists() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    wanted = set(re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE))
    assert wanted >= {"test", "lint", "demo"}
    assert wanted <= set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))
