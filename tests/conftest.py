"""Shared fixtures: plugins installed for real, and commands run as a user runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# An example that takes long on a busy machine is no fault of the code.
settings.register_profile("zoo", deadline=None)
settings.load_profile("zoo")

# A shell that starts the suite in the background has it ignore Ctrl-C, and processes pass that on to their children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
CHECKOUT = TESTS.parent

Install = Callable[[Path], Path]


@dataclass(frozen=True)
class Shell:
    """Runs `python -m …` with some plugins installed beside those of the environment."""

    folders: tuple[Path, ...]

    def __call__(
        self, *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """The finished process, with its output as text. What ZOO_… the caller's environment has is left out."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ZOO_")}
        path = os.pathsep.join(map(str, self.folders))
        environment = {**inherited, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **(env or {})}
        return subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
        )


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Builds a plugin's folder with pip, once a session, and gives the folder that belongs on PYTHONPATH."""
    done: dict[Path, Path] = {}

    def install_once(source: Path) -> Path:
        if source not in done:
            target = tmp_path_factory.mktemp(source.name)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            pip += ["--no-index", "--no-build-isolation", "--no-compile", "--target", str(target), str(source)]
            finished = subprocess.run(pip, capture_output=True, text=True, timeout=120)
            assert finished.returncode == 0, finished.stderr
            done[source] = target
        return done[source]

    return install_once


@pytest.fixture(scope="session")
def installed(install: Install) -> Callable[..., Shell]:
    """`installed("example", folder)`: a Shell with tests/example_plugin and the plugin in `folder` installed."""

    def with_plugins(*plugins: str | Path) -> Shell:
        sources = (plugin if isinstance(plugin, Path) else TESTS / f"{plugin}_plugin" for plugin in plugins)
        return Shell(tuple(install(source) for source in sources))

    return with_plugins
