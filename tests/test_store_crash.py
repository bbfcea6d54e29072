"""Run folders when things go wrong for real: killed writers, a full disk, no permission, two writers at once."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from zoo.errors import DamagedRun, StoreError
from zoo.store import schema
from zoo.store.folder import Draft, clear_leftovers
from zoo.store.keys import RunPlace
from zoo.store.reading import find, read, runs

PLACE = RunPlace("sentiment", "rotten_tomatoes", "cnn", "0123456789abcdef")
KILLS = 30

PRELUDE = """
import os, sys
from pathlib import Path
import numpy as np
import pyarrow.parquet
from zoo.errors import StoreError
from zoo.store import schema
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace
from zoo.store.tables import PredictionTable

def publish(root, key="0123456789abcdef", seed=0, status="complete", megabytes=0.2):
    with Draft.open(Path(root), RunPlace("sentiment", "rotten_tomatoes", "cnn", key), {"seed": seed}) as draft:
        draft.log("begun")
        n = 200
        zeros = np.zeros(n, np.int64)
        draft.write_json(schema.METRICS, {"accuracy": {"value": 1.0, "low": 1.0, "high": 1.0, "n": n}})
        draft.write_predictions(
            PredictionTable(["test"] * n, [str(i) for i in range(n)], zeros, zeros, np.zeros((n, 2), np.float32))
        )
        draft.write_tensors(schema.WEIGHTS, {"weight": np.full(int(megabytes * 250_000), seed, np.float32)})
        return draft.publish({"seed": seed}, status)
"""


def script(body: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(body)]


@contextmanager
def nursery(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has everything imported, and for every line on its input bears a child that publishes without
    end, the same run and new ones in turn. The child answers with its pid, and the nursery with `gone` in the end."""
    body = """
        publish(sys.argv[1])
        for line in sys.stdin:
            child = os.fork()
            if child == 0:
                os.write(1, f"{os.getpid()}\\n".encode())
                for number in range(10**9):
                    publish(sys.argv[1], seed=number)
                    publish(sys.argv[1], key=f"{os.getpid():08x}{number:08x}", seed=number)
            os.waitpid(child, 0)
            os.write(1, b"gone\\n")
    """
    process = subprocess.Popen([*script(body), root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=20)
        if process.stdout is not None:
            process.stdout.close()


def kill_at(process: subprocess.Popen[str], seconds: float) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    child = int(process.stdout.readline())
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert process.stdout.readline().strip() == "gone"


def seconds_of_one_publication(root: Path) -> float:
    names: dict[str, Any] = {}
    exec(PRELUDE, names)
    names["publish"](root)
    start = time.perf_counter()
    names["publish"](root)
    return time.perf_counter() - start


def test_kill_9_at_random_moments_never_leaves_half_a_run(tmp_path):
    """Whatever lies at a run's place is whole; listing, clearing and publishing go on as if nothing had been."""
    moments = random.Random(0)
    once = seconds_of_one_publication(tmp_path / "timing")
    interrupted = 0
    root = tmp_path / "runs"
    with nursery(root) as process:
        for number in range(KILLS):
            # Later ones get more time: on a machine that has become busy some are to finish, too.
            kill_at(process, moments.uniform(0, 4 * once * (1 + number // 10)))
            for run in runs(root):
                if schema.DRAFTS in run.folder.parts:
                    assert run.status == "failed"
                    assert run.record["interrupted"] is True
                    interrupted += 1
                else:
                    assert run.status == "complete"
            clear_leftovers(root)
            assert {path.name for path in (root / schema.DRAFTS).iterdir()} <= {schema.PUBLISH_LOCK}
    found = [read(run.folder, verify=True) for run in runs(root)]
    assert {run.status for run in found} == {"complete"}
    assert len(found) > 1
    assert interrupted >= KILLS // 4, "too few of the kills hit a run that was being written"
    with Draft.open(root, PLACE) as draft:
        draft.publish({"seed": -1})
    last = find(root, PLACE, verify=True)
    assert last is not None
    assert last.record["seed"] == -1


def test_a_run_that_is_there_survives_the_death_of_its_successor(tmp_path):
    """Killed between the two renames, the old run lies put aside: it comes back."""
    subprocess.run([*script("publish(sys.argv[1], seed=1)"), tmp_path], check=True)
    body = """
        real = os.rename
        def rename(a, b):
            real(a, b)
            if "~old" in str(b):
                os.kill(os.getpid(), 9)
        os.rename = rename
        publish(sys.argv[1], seed=2)
    """
    ended = subprocess.run([*script(body), tmp_path], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert find(tmp_path, PLACE) is None
    clear_leftovers(tmp_path)
    run = find(tmp_path, PLACE, verify=True)
    assert run is not None
    assert run.record["seed"] == 1


def test_on_a_disk_without_locks_nobodys_draft_is_taken_for_a_dead_one(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("zoo.store.disk.fcntl.flock", refused)
    with Draft.open(tmp_path, PLACE, {"seed": 0}) as draft:
        draft.write_json(schema.METRICS, {})
        assert clear_leftovers(tmp_path) == []
        folder = draft.publish({"seed": 0})
    assert find(tmp_path, PLACE, verify=True).folder == folder


def test_many_processes_publish_the_same_run_at_once(tmp_path):
    body = """
        for number in range(15):
            publish(sys.argv[1], seed=number, status=sys.argv[2])
    """
    statuses = ["complete", "complete", "failed"]
    writers = [
        subprocess.Popen([*script(body), tmp_path, status], stderr=subprocess.PIPE, text=True) for status in statuses
    ]
    seen_complete = False
    while any(writer.poll() is None for writer in writers):
        for run in runs(tmp_path):
            if run.status == "complete" and schema.DRAFTS not in run.folder.parts:
                seen_complete = True
                with_failures_of_replacement_only(run.folder)
    for writer in writers:
        _, errors = writer.communicate(timeout=30)
        assert writer.returncode == 0, errors
    assert seen_complete
    left = list(runs(tmp_path))
    assert [run.status for run in left if run.folder.name == PLACE.key] == ["complete"]
    assert find(tmp_path, PLACE, verify=True) is not None
    assert {path.name for path in (tmp_path / schema.DRAFTS).iterdir()} <= {schema.PUBLISH_LOCK}


def with_failures_of_replacement_only(folder: Path) -> None:
    """A reader may lose a run to its successor between two files; then files are missing or newer, and a second look
    finds the successor. What must not be is one folder that stays damaged."""
    for _ in range(200):
        try:
            read(folder, verify=True)
        except StoreError:
            time.sleep(0.01)
        else:
            return
    pytest.fail(f"{folder} stays damaged")


FULL = """
    try:
        publish(sys.argv[1], megabytes=float(sys.argv[2]))
    except StoreError as error:
        print(error)
        left = [p for p in Path(sys.argv[1]).rglob("*") if p.is_file() and ".drafts" not in p.parts]
        print("left:", left)
        sys.exit(3)
"""


def test_no_space_left(tmp_path):
    """A real file system of 256 KiB, mounted in a namespace of its own."""
    runs_dir = tmp_path / "small"
    runs_dir.mkdir()
    shell = f'mount -t tmpfs -o size=256k tmpfs "{runs_dir}" && exec "$0" "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    body = FULL.replace(
        "        sys.exit(3)",
        """
        with Draft.open(Path(sys.argv[1]), RunPlace("a", "b", "c", "d")) as draft:
            try:
                draft.write_tensors(schema.WEIGHTS, {"w": np.zeros(10**6)})
            except StoreError as again:
                print(draft.publish_failure({}, again, "…").name)
        sys.exit(3)
        """,
    )
    ended = subprocess.run([*inside, *script(body), runs_dir, "4"], capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    lines = ended.stdout.splitlines()
    assert re.fullmatch(r"No space left on the disk while writing .*model\.safetensors", lines[0])
    assert lines[1] == "Free some space or choose another folder with runs_dir=…"
    assert lines[2:] == ["left: []", "d"]


def test_a_size_limit(tmp_path):
    body = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    body += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    ended = subprocess.run(
        [*script(textwrap.dedent(body) + textwrap.dedent(FULL)), tmp_path, "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    assert "model.safetensors grew over the size limit" in ended.stdout
    assert "left: []" in ended.stdout
    assert not list((tmp_path / schema.DRAFTS).glob("0*"))


@pytest.mark.parametrize("depth", ["root", "task", "place"])
def test_a_file_where_a_folder_is_needed(tmp_path, depth):
    file = {
        "root": tmp_path / "runs",
        "task": tmp_path / "runs" / "sentiment",
        "place": tmp_path / "runs" / PLACE.relative,
    }[depth]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    with (
        pytest.raises(StoreError, match=rf"'{re.escape(str(file))}' is a file where a folder is needed"),
        Draft.open(tmp_path / "runs", PLACE) as draft,
    ):
        draft.publish({})
    assert file.read_text() == "mine"


def test_no_permission(tmp_path):
    """As a user who is not root, for root may write everywhere."""
    root = tmp_path / "runs"
    root.mkdir()
    root.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.geteuid() != 0:
        with pytest.raises(StoreError, match="No permission to write"):
            Draft.open(root, PLACE)
        return
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    body = """
        os.setgid(65534)
        os.setuid(65534)
        try:
            publish(sys.argv[1])
        except StoreError as error:
            print(error)
            sys.exit(3)
    """
    ended = subprocess.run([*script(body), root], capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    assert ended.stdout == f"No permission to write {root}\nGrant it or choose another folder with runs_dir=…\n"


def test_a_read_only_disk(tmp_path):
    shell = f'mount -t tmpfs -o ro tmpfs "{tmp_path}" && exec "$0" "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    ended = subprocess.run([*inside, *script(FULL), tmp_path, "0"], capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    assert "that disk is mounted read-only" in ended.stdout


def test_damage_after_the_fact_is_told_from_a_run_that_is_gone(tmp_path):
    with Draft.open(tmp_path, PLACE) as draft:
        draft.write_json(schema.METRICS, {})
        folder = draft.publish({})
    (folder / schema.METRICS).unlink()
    with pytest.raises(DamagedRun):
        read(folder)
    shutil.rmtree(folder)
    with pytest.raises(StoreError, match="There is no run folder"):
        read(folder)
