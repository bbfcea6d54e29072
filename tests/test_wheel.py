"""The wheels: built, installed away from the checkout, and run from a folder that knows nothing of it."""

from __future__ import annotations

import email
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
PLUGINS = ("zoo-mlp", "zoo-cnn", "zoo-transformer", "zoo-bert")
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Distribution name -> its wheel, of the core and each plugin."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = [str(CHECKOUT), *(str(CHECKOUT / "plugins" / name) for name in PLUGINS)]
    how = ("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder))
    built = subprocess.run([sys.executable, *PIP, *how, *sources], capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    return {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def target(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all wheels installed."""
    folder = tmp_path_factory.mktemp("target")
    how = ("install", "--no-deps", "--no-index", "--no-compile", "--target", str(folder))
    files = map(str, wheels.values())
    done = subprocess.run([sys.executable, *PIP, *how, *files], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def python(target: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    left_out = ("ZOO_", "HYDRA_", "COV_", "COVERAGE")  # coverage would look for the sources where they are not
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    env = {**kept, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1", "ZOO_CACHE": str(cwd / "cache")}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as content:
        return content.namelist()


def test_there_is_a_wheel_of_each(wheels: dict[str, Path]) -> None:
    assert sorted(wheels) == sorted(["zoo-harness", *PLUGINS])


@pytest.mark.parametrize("distribution", ["zoo-harness", *PLUGINS])
def test_a_wheel_holds_its_package_and_nothing_beside_it(wheels: dict[str, Path], distribution: str) -> None:
    package = "zoo" if distribution == "zoo-harness" else distribution.replace("-", "_")
    found = names(wheels[distribution])
    tops = {name.partition("/")[0] for name in found}
    assert tops == {package, f"{distribution.replace('-', '_')}-{wheels[distribution].name.split('-')[1]}.dist-info"}
    assert f"{package}/py.typed" in found
    assert not [name for name in found if re.search(r"(^|/)tests?/|__pycache__|\.pyc$", name)]


def test_the_core_carries_every_config_of_the_checkout(wheels: dict[str, Path]) -> None:
    wanted = {f"zoo/conf/{file.relative_to(CHECKOUT / 'conf')}" for file in (CHECKOUT / "conf").rglob("*.yaml")}
    assert wanted
    assert {name for name in names(wheels["zoo-harness"]) if name.endswith(".yaml")} == wanted


def test_a_plugin_asks_for_the_core_and_stands_in_its_group(wheels: dict[str, Path]) -> None:
    for name in PLUGINS:
        with zipfile.ZipFile(wheels[name]) as content:
            info = f"{wheels[name].name.rpartition('-py3')[0]}.dist-info"
            metadata = email.message_from_bytes(content.read(f"{info}/METADATA"))
            points = content.read(f"{info}/entry_points.txt").decode()
        assert any(wanted.startswith("zoo-harness") for wanted in metadata.get_all("Requires-Dist", []))
        assert re.search(rf"\[zoo\]\n\w+ = {name.replace('-', '_')}$", points, flags=re.MULTILINE)


def test_a_run_from_the_wheels_anywhere(target: Path, tmp_path: Path) -> None:
    arguments = ("model=mlp", "dataset=digits", "task=image_classification", "trainer.epochs=1")
    code = (
        "import json, sys, zoo, zoo_mlp, zoo.config\n"
        "from zoo import launch\n"
        "print(json.dumps([zoo.__file__, zoo_mlp.__file__, str(zoo.config.conf_dir())]))\n"
        "sys.exit(launch.command(sys.argv[1:]))"
    )
    done = python(target, tmp_path, "-c", code, *arguments)
    for place in json.loads(done.stdout.splitlines()[0]):
        assert Path(place).is_relative_to(target), place
    (named,) = re.findall(r"^Results: (runs/\S+)$", done.stdout, flags=re.MULTILINE)
    record = json.loads((tmp_path / named / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "complete"
    assert "│ accuracy │" in done.stdout
    assert python(target, tmp_path, "-m", "zoo.run", *arguments).stdout.count("was not repeated") == 1


def test_the_lists_and_an_experiment_from_the_wheels(target: Path, tmp_path: Path) -> None:
    listed = python(target, tmp_path, "-m", "zoo.ls", "plugins").stdout
    for name in ("zoo-harness", *PLUGINS):
        assert re.search(rf"│ {name} +│ [\d.]+ +│ ok ", listed)
    composed = python(target, tmp_path, "-m", "zoo.run", "experiment=mnist_dense", "--cfg", "job", "-p", "model")
    assert "name: mlp\nhidden:\n- 128\n" in composed.stdout


def test_what_is_installed_here_brings_no_package_beside_zoo() -> None:
    """An editable install, as the tests run in, is told from a wheel by its path file alone."""
    files = importlib.metadata.files("zoo-harness")
    assert files is not None
    tops = {file.parts[0] for file in files}
    assert {top for top in tops if not top.endswith((".dist-info", ".pth", ".py")) and top != ".."} <= {"zoo"}
