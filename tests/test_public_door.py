"""The public door: what `zoo` exports, that the backends go through it, and what opening it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import types
from pathlib import Path

import pytest

import zoo

PLUGINS = Path(__file__).parent.parent / "plugins"
SOURCES = sorted(file for file in PLUGINS.glob("zoo-*/zoo_*/**/*.py"))
# What one backend may take from another, as its pyproject.toml declares.
BORROWED = {"zoo_mlp": {"zoo_bert"}}


def test_all_is_sorted_and_complete() -> None:
    public = {
        name
        for name, value in vars(zoo).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert zoo.__all__ == sorted(zoo.__all__)
    assert set(zoo.__all__) == public


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_public_name_is_described(name: str) -> None:
    value = getattr(zoo, name)
    if isinstance(value, type):
        doc = vars(value).get("__doc__") or ""
        assert len(doc) > 20
        assert not doc.startswith(f"{name}(")  # what @dataclass writes by itself


def imported(source: Path) -> list[tuple[str, str]]:
    """(module, name) of every import statement, also inside functions; name is empty for `import module`."""
    found = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import"
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def strays(source: Path) -> list[str]:
    """Imports from the harness, or from another backend, that do not go through the public door."""
    own = source.relative_to(PLUGINS).parts[1]
    found = []
    for module, name in imported(source):
        top = module.partition(".")[0]
        if top == "zoo" and (module != "zoo" or (name and name not in zoo.__all__)):
            found.append(f"{module} {name}".strip())
        if top.startswith("zoo_") and top != own and (top not in BORROWED.get(own, ()) or module != top):
            found.append(f"{module} {name}".strip())
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(PLUGINS)))
def test_backends_use_only_the_public_door(source: Path) -> None:
    assert strays(source) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(PLUGINS)))
def test_attributes_of_zoo_that_backends_use_are_public(source: Path) -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "zoo"
    }
    assert used <= set(zoo.__all__)


def test_there_are_backends_to_look_at() -> None:
    assert {source.relative_to(PLUGINS).parts[0] for source in SOURCES} == {
        "zoo-bert",
        "zoo-cnn",
        "zoo-mlp",
        "zoo-transformer",
    }


HEAVY = "torch transformers tensorflow jax sklearn scipy pandas pyarrow matplotlib tokenizers"


@pytest.mark.parametrize("modules", ["zoo", "zoo_mlp, zoo_cnn, zoo_transformer, zoo_bert", "zoo.testing, zoo.check"])
def test_opening_the_door_is_cheap(modules: str) -> None:
    code = f"import sys, {modules}; print(sorted(set({HEAVY!r}.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
