"""A plugin that fails in any way, at any place: it is named, and nothing else is stopped by it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo import interrupts
from zoo.store import reading

SOURCE = '''
    import os
    from dataclasses import dataclass
    from typing import ClassVar

    import zoo

    FAULTS = {"key": KeyboardInterrupt, "exit": SystemExit, "generator": GeneratorExit, "value": ValueError}


    def fail_in(place):
        at, _, how = os.environ.get("FAULT", "").partition(":")
        if at == place:
            raise FAULTS[how]("hostile")


    fail_in("import")


    @dataclass
    class Hostile(zoo.Predictor):
        """Fails where it is told to."""

        width: int = 2
        name: ClassVar[str] = "hostile"
        modalities: ClassVar = frozenset({"image"})

        def __post_init__(self):
            fail_in("options")
            if self.width % 2:
                raise ValueError(f"width={self.width} is odd")

        def fit(self, train, validation, seed):
            fail_in("fit")

        def predict_proba(self, examples):
            import numpy as np

            fail_in("predict_proba")
            return np.full((len(examples), 10), 0.1)


    @zoo.hookimpl
    def zoo_models():
        fail_in("zoo_models")
        return [Hostile]


    @zoo.hookimpl
    def zoo_run_started(run):
        fail_in("zoo_run_started")


    @zoo.hookimpl
    def zoo_run_ended(run):
        fail_in("zoo_run_ended")
'''

RUN = ("zoo.run", "model=hostile", "task=image_classification", "dataset=digits")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command with the plugin installed."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "zoo_hostile.py").write_text(textwrap.dedent(SOURCE), encoding="utf-8")
    facts = folder / "zoo_hostile-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-hostile\nVersion: 1.0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text("[zoo]\nhostile = zoo_hostile\n", encoding="utf-8")

    def run(*words: str, fault: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "FAULT": fault, "ZOO_CACHE": "off"}
        return subprocess.run(
            [sys.executable, "-m", *words], capture_output=True, text=True, cwd=cwd, env=environment, timeout=120
        )

    return run


Hostile = Callable[..., subprocess.CompletedProcess[str]]
KINDS = {"key": "KeyboardInterrupt", "exit": "SystemExit", "generator": "GeneratorExit", "value": "ValueError"}


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("place", ["import", "zoo_models"])
def test_a_plugin_that_cannot_be_loaded_is_broken_and_no_more(
    hostile: Hostile, place: str, how: str, tmp_path: Path
) -> None:
    done = hostile("zoo.ls", "plugins", fault=f"{place}:{how}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"broken │ {KINDS[how]}: hostile" in done.stdout.replace("  ", " ")
    assert "zoo-harness" in done.stdout


@pytest.mark.parametrize("how", ["key", "exit", "value"])
@pytest.mark.parametrize("place", ["options", "fit", "predict_proba"])
def test_a_model_that_fails_is_named(hostile: Hostile, place: str, how: str, tmp_path: Path) -> None:
    done = hostile(*RUN, fault=f"{place}:{how}", cwd=tmp_path)
    refused = place == "options" and how == "value"
    assert done.returncode == (2 if refused else 1)
    assert "Traceback" not in done.stderr
    first = done.stderr.splitlines()[0]
    assert first.startswith("Model 'hostile'")
    assert f"{KINDS[how]}: hostile" in first
    if place == "options":
        assert "zoo-hostile 1.0" in first
        assert not (tmp_path / "runs").exists()
    else:
        (run,) = reading.runs(tmp_path / "runs")
        assert (run.status, run.record["interrupted"]) == ("failed", False)


@pytest.mark.parametrize("how", ["key", "exit"])
@pytest.mark.parametrize("place", ["zoo_run_started", "zoo_run_ended"])
def test_an_observer_that_fails_does_not_disturb_the_run(
    hostile: Hostile, place: str, how: str, tmp_path: Path
) -> None:
    done = hostile(*RUN, fault=f"{place}:{how}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"plugin zoo-hostile failed in {place}: " in done.stderr
    (run,) = reading.runs(tmp_path / "runs")
    assert run.status == "complete"


def test_a_sweep_goes_on_after_a_model_that_pretends_to_be_interrupted(hostile: Hostile, tmp_path: Path) -> None:
    words = ("zoo.run", "-m", "model=hostile,majority", *RUN[2:])
    done = hostile(*words, fault="fit:key", cwd=tmp_path)
    assert done.returncode == 1
    assert "Interrupted" not in done.stderr
    assert {run.record["model"]: run.status for run in reading.runs(tmp_path / "runs")} == {
        "hostile": "failed", "majority": "complete"
    }  # fmt: skip


def test_a_value_that_a_plugin_refuses_is_a_wrong_request(hostile: Hostile, tmp_path: Path) -> None:
    done = hostile(*RUN, "width=3", fault="", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "Model 'hostile' of zoo-hostile 1.0 refuses its options: ValueError: width=3 is odd\n"


def test_check_reports_a_model_that_fails(hostile: Hostile, tmp_path: Path) -> None:
    for how in ("key", "exit"):
        done = hostile("zoo.check", "zoo-hostile", fault=f"fit:{how}", cwd=tmp_path)
        assert done.returncode == 1
        assert f"raised {KINDS[how]}: hostile" in done.stdout


def test_the_users_key_is_known_from_a_plugins_exception() -> None:
    assert interrupts.is_users(KeyboardInterrupt())  # nobody watches: it may be the user's
    with interrupts.remembered():
        assert not interrupts.is_users(KeyboardInterrupt())
        assert not interrupts.is_users(SystemExit())
        with pytest.raises(SystemExit):
            raise interrupts.not_users(SystemExit())
