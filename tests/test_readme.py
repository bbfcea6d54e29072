"""Every command that the README and the pages of docs/ show, run as it stands there, one after the other, in an
environment of its own."""

import json
import os
import re
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from zoo.reporting import story
from zoo.reporting.words import Words

CHECKOUT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```bash\n(.*?)```", (CHECKOUT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
DOCS = sorted((CHECKOUT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory):
    """A folder that looks like the checkout, and a virtual environment in which zoo is installed."""
    folder = tmp_path_factory.mktemp("readme")
    venv.create(folder / ".venv", symlinks=True, with_pip=True)
    inside = next((folder / ".venv" / "lib").glob("python*")) / "site-packages"
    # What is installed where the tests run is installed here as well, editable packages included.
    (inside / "outer.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n", encoding="utf-8"
    )
    (folder / "tests").symlink_to(CHECKOUT / "tests")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE", "ZOO_"))}
    env |= {
        "PATH": f"{folder / '.venv' / 'bin'}:{env['PATH']}",
        "ZOO_CACHE": str(folder / "cache"),
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as «no isolation»: the build backend is installed already
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "VIRTUAL_ENV": str(folder / ".venv"),
    }

    def run(block: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=env, text=True, capture_output=True, timeout=300
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def test_the_readme_shows_a_csv_a_sweep_a_plugin_and_where_results_lie():
    text = "\n".join(BLOCKS)
    for shown in ("dataset=table path=", "zoo.run -m model=", "pip install ./tests/example_plugin", "zoo.ls runs"):
        assert shown in text


def test_every_command_of_the_readme_and_then_of_the_docs_runs(shell):
    printed = {block: shell(block) for block in BLOCKS}
    for page in DOCS:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            if block not in printed:
                shell(block)
    runs = printed["python -m zoo.ls runs\n"]
    for expected in ("table-reviews", "digits", "rotten_tomatoes", "bow", "complete"):
        assert expected in runs, runs


def test_the_readme_names_only_what_is_there():
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (CHECKOUT / target).exists(), target
    make = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", text, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", make, flags=re.MULTILINE), target
    assert "@" not in re.sub(r"\S+@\S+\.\S+", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_a_page_of_the_docs_links_only_what_is_there(page: Path):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_is_short():
    assert len((CHECKOUT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_readme_and_the_committed_report_say_the_same_two_numbers():
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    document = json.loads((CHECKOUT / "reports" / "sentiment" / "report.json").read_text(encoding="utf-8"))
    for line in story.first_lines(document, Words())[:2]:
        assert line.replace("\u00a0", " ") in text
