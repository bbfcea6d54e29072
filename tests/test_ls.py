"""python -m zoo.ls, run as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from zoo import ls
from zoo.plugins import registry
from zoo.store import schema
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace


def run_ls(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ZOO_", "COLUMNS"))}
    return subprocess.run(
        [sys.executable, "-m", "zoo.ls", *map(str, arguments)],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def distribution(folder: Path, name: str, code: str) -> Path:
    """A plugin as an installer leaves it: a module and its metadata in a folder for PYTHONPATH."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    info = folder / f"{module}-2.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(f"[zoo]\n{module} = {module}\n")
    return folder


TASK = """
    from dataclasses import dataclass
    from typing import ClassVar
    import zoo

    @dataclass
    class Irony(zoo.Task):
        \"\"\"Tell irony from earnest [really].\"\"\"
        name: ClassVar[str] = "irony"
        modality: ClassVar[str] = "text"
        dataset: ClassVar[str] = "rotten_tomatoes"

    @zoo.hookimpl
    def zoo_tasks():
        return [Irony]
"""


def publish(root: Path, model: str, key: str, status: str = "complete", **record: object) -> Path:
    with Draft.open(root, RunPlace("sentiment", "rotten_tomatoes", model, key)) as draft:
        if status == "complete":
            draft.write_json(schema.METRICS, {"accuracy": {"value": 0.8123, "low": 0.789, "high": 0.8355, "n": 1066}})
        return draft.publish({"seed": 3, **record}, status)  # type: ignore[arg-type]


def row_of(output: str, name: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if re.search(rf"[│|] {re.escape(name)} ", line)]
    return [cell.strip() for cell in re.split(r"[│|]", line)[1:-1]]


def test_all_but_runs_without_an_argument():
    told = run_ls()
    assert told.returncode == 0
    assert told.stderr == ""
    titles = [line.strip() for line in told.stdout.splitlines() if line.strip() in ls.SUBJECTS]
    assert titles == ["models", "datasets", "tasks", "measures", "plugins"]
    for kind in registry().entries.values():
        for entry in kind.values():
            assert entry.name in told.stdout
            assert entry.summary in told.stdout, "cut off or wrapped"
    assert "\x1b" not in told.stdout


def test_one_list():
    told = run_ls("models")
    assert row_of(told.stdout, "linear")[:3] == [
        "linear",
        "image, text",
        f"zoo-harness {registry().versions()['zoo-harness']}",
    ]
    assert "datasets" not in told.stdout


def test_a_third_party_task_and_a_broken_plugin(tmp_path):
    distribution(tmp_path, "zoo-irony", TASK)
    distribution(tmp_path, "zoo-broken", "import not_there_at_all")
    told = run_ls("tasks", PYTHONPATH=str(tmp_path))
    assert told.returncode == 0
    assert row_of(told.stdout, "irony") == [
        "irony", "text", "rotten_tomatoes", "zoo-irony 2.5", "Tell irony from earnest [really].",
    ]  # fmt: skip
    assert told.stdout.splitlines()[-1] == "Broken and left out: zoo-broken. Why: python -m zoo.ls plugins"
    told = run_ls("plugins", PYTHONPATH=str(tmp_path))
    assert told.returncode == 0
    assert row_of(told.stdout, "zoo-irony") == ["zoo-irony", "2.5", "ok", "task irony"]
    assert row_of(told.stdout, "zoo-broken") == ["zoo-broken", "2.5", "broken", "No module named 'not_there_at_all'"]


def test_strict_and_colliding_plugins_end_with_an_error_and_no_traceback(tmp_path):
    distribution(tmp_path, "zoo-irony", TASK)
    distribution(tmp_path, "zoo-irony-too", TASK)
    told = run_ls("tasks", PYTHONPATH=str(tmp_path))
    assert told.returncode == 2
    assert "zoo-irony 2.5" in told.stderr
    assert "zoo-irony-too 2.5" in told.stderr
    assert "Traceback" not in told.stderr
    told = run_ls("tasks", ZOO_PLUGINS="no-such-plugin")
    assert told.returncode == 2
    assert len(told.stderr.splitlines()) <= 4


@pytest.mark.parametrize(("wrong", "near"), [("modles", "models"), ("run", "runs"), ("plugin", "plugins")])
def test_an_unknown_list(wrong, near):
    told = run_ls(wrong)
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr == (
        f"There is no list of '{wrong}'. Did you mean '{near}'?\n"
        "Lists: models, datasets, tasks, measures, plugins, runs.\n"
    )


def test_runs(tmp_path):
    publish(tmp_path, "cnn", "00000000000000aa")
    publish(tmp_path, "bert", "00000000000000bb", "skipped", error={"type": "Incompatible", "message": "no pixels\nx"})
    publish(tmp_path, "mlp", "00000000000000cc", "failed", error={"type": "TrainingError", "message": "loss is nan"})
    broken = publish(tmp_path, "zzz", "00000000000000dd")
    (broken / schema.METRICS).write_text("{}")
    draft = Draft.open(tmp_path, RunPlace("sentiment", "rotten_tomatoes", "now", "00000000000000ee"), {"seed": 9})
    told = run_ls("runs", "--runs-dir", tmp_path)
    draft.discard()
    assert told.returncode == 0, told.stderr
    assert "5 runs in" in told.stdout
    rows = {name: row_of(told.stdout, f"000000000000{name}") for name in ("00aa", "00bb", "00cc", "00dd", "00ee")}
    assert rows["00aa"][:6] == ["sentiment", "rotten_tomatoes", "cnn", "3", "complete", "0.812 (0.789–0.836)"]
    assert re.fullmatch(r"\d+ s", rows["00aa"][6])
    assert (rows["00bb"][4], rows["00bb"][8]) == ("skipped", "no pixels")
    assert (rows["00cc"][4], rows["00cc"][8]) == ("failed", "loss is nan")
    assert (rows["00dd"][4], rows["00dd"][8][:24]) == ("damaged", "metrics.json has 2 bytes")
    assert rows["00ee"][2:5] == ["now", "9", "started"]


def test_interrupted_runs_say_so(tmp_path):
    draft = Draft.open(tmp_path, RunPlace("sentiment", "rotten_tomatoes", "cnn", "00000000000000aa"))
    draft._lock.release(remove=False)  # as the kernel does when the process dies
    assert row_of(run_ls("runs", "--runs-dir", tmp_path).stdout, "cnn")[4] == "interrupted"


def test_no_runs_yet(tmp_path):
    told = run_ls("runs", cwd=tmp_path)
    assert (told.returncode, told.stdout) == (0, "No runs yet in ./runs. Another folder: --runs-dir …\n")
    told = run_ls("runs", "--runs-dir", "elsewhere", cwd=tmp_path)
    assert told.returncode == 2
    assert told.stderr.startswith("There is no folder 'elsewhere'.\n")
    publish(tmp_path / "runs", "cnn", "0a")
    assert "cnn" in run_ls("runs", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("seconds", "words"), [(-5, "0 s"), (59, "59 s"), (3599, "59 min"), (86399, "23 h"), (86400 * 9, "9 d")]
)
def test_ages(seconds, words):
    from datetime import UTC, datetime, timedelta

    from zoo.store.reading import Run

    ended = (datetime.now(UTC) - timedelta(seconds=seconds + 0.2)).isoformat()
    assert ls._age(Run(Path("x"), {"ended": ended})) == words
    assert ls._age(Run(Path("x"), {"ended": "yesterday"})) == "–"


def test_it_is_quick_and_imports_nothing_heavy():
    code = (
        "import json, sys; from zoo import ls; ls.main([]); ls.main(['runs'])\n"
        "heavy = {'torch', 'transformers', 'hydra', 'omegaconf', 'sklearn', 'scipy', 'pyarrow', 'numpy', 'PIL'}\n"
        "print(json.dumps(sorted(heavy & sys.modules.keys())))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout.splitlines()[-1]) == []
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_ls()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.7, spent


def on_a_terminal(columns: int, *arguments: str) -> str:
    """What `zoo.ls` prints on a real pseudo-terminal that many columns wide, without its control sequences."""
    code = (
        "import fcntl, struct, sys, termios; from zoo import ls\n"
        f"fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 24, {columns}, 0, 0))\n"
        f"sys.exit(ls.main({list(arguments)!r}))"
    )
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**environment, "TERM": "xterm"},
    )
    os.close(follower)
    shown = b""
    try:
        while block := os.read(leader, 65536):
            shown += block
    except OSError:  # Linux ends a pseudo-terminal so
        pass
    os.close(leader)
    assert process.wait(timeout=60) == 0
    return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()


@pytest.mark.parametrize("columns", [1, 8, 20, 60])
def test_a_narrow_terminal(columns):
    plain = on_a_terminal(columns)
    assert "Traceback" not in plain
    assert max(len(line) for line in plain.splitlines()) <= max(columns, 8)


@pytest.mark.parametrize(("columns", "failed"), [(200, False), (80, False), (80, True), (30, False)])
def test_no_name_no_key_and_no_interval_of_a_run_is_cut_at_any_width(tmp_path, columns, failed):
    keys = [f"{number:016x}" for number in (10**15, 2 * 10**15, 3 * 10**15)]
    for key, model in zip(keys, ("linear", "transformer", "mlp"), strict=True):
        publish(tmp_path, model, key)
    if failed:
        publish(tmp_path, "cnn", "f" * 16, "failed", error={"type": "X", "message": "the loss is not finite " * 4})
    plain = on_a_terminal(columns, "runs", "--runs-dir", str(tmp_path))
    for whole in (*keys, "sentiment", "rotten_tomatoes", "transformer", "complete"):
        assert whole in plain, plain
    assert plain.count("(0.789–0.836)") == 3
    assert max(len(line) for line in plain.splitlines() if "runs in" not in line) <= max(columns, 32)


def test_ascii_only_output(tmp_path):
    publish(tmp_path, "模型", "0a")
    told = run_ls("runs", "--runs-dir", tmp_path, PYTHONIOENCODING="ascii")
    assert told.returncode == 0
    assert "sentiment" in told.stdout


def test_a_run_with_a_file_that_is_missing_or_of_another_size_is_damaged(tmp_path):
    for model in ("mlp", "cnn", "bert"):
        folder = publish(tmp_path, model, f"{model}key")
        assert row_of(run_ls("runs", "--runs-dir", tmp_path).stdout, model)[4] == "complete"
        if model == "mlp":
            (folder / schema.METRICS).unlink()
        elif model == "cnn":
            (folder / schema.METRICS).write_bytes((folder / schema.METRICS).read_bytes() + b" ")
        else:
            content = (folder / schema.METRICS).read_bytes()
            (folder / schema.METRICS).write_bytes(content[:-2] + b" }")
    told = run_ls("runs", "--runs-dir", tmp_path).stdout
    assert (row_of(told, "mlp")[4], row_of(told, "mlp")[8]) == ("damaged", "metrics.json is missing")
    assert row_of(told, "cnn")[4] == "damaged"
    assert "bytes where" in row_of(told, "cnn")[8]


def test_only_a_full_check_reads_files_and_finds_a_flipped_byte(tmp_path):
    with Draft.open(tmp_path, RunPlace("sentiment", "rotten_tomatoes", "mlp", "0a")) as draft:
        draft.write_json(schema.METRICS, {})
        draft.write_text("note.txt", "some")
        folder = draft.publish({"seed": 3}, "complete")
    (folder / "note.txt").write_text("same")
    assert row_of(run_ls("runs", "--runs-dir", tmp_path).stdout, "mlp")[4] == "complete"
    row = row_of(run_ls("runs", "--runs-dir", tmp_path, "--verify").stdout, "mlp")
    assert (row[4], row[8]) == ("damaged", "note.txt is not what was written (its checksum differs)")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"{}" * 200, b'{"schema_version": "' + b"1" * 900 + b'"}'])
def test_a_broken_record_has_a_short_note_and_the_names_of_its_folders(tmp_path, content):
    folder = publish(tmp_path, "mlp", "0123456789abcdef")
    (folder / schema.RUN).write_bytes(content)
    told = run_ls("runs", "--runs-dir", tmp_path).stdout
    row = row_of(told, "mlp")
    assert row[:5] == ["sentiment", "rotten_tomatoes", "mlp", "–", "damaged"]
    assert row[7] == "0123456789abcdef"
    assert row[8].startswith("run.json ")
    assert max(map(len, told.splitlines())) < 260


def test_a_failed_run_has_a_short_note(tmp_path):
    publish(tmp_path, "mlp", "0a", "failed", error={"type": "TrainingError", "message": "no " * 400})
    assert len(row_of(run_ls("runs", "--runs-dir", tmp_path).stdout, "mlp")[8]) <= ls.NOTE_LENGTH


@pytest.mark.parametrize("more", ["", " `python -m zoo.ls datasets` shows what there is." * 3, "\nA second line."])
def test_a_note_is_cut_at_its_end(tmp_path, more):
    reason = "Model 'bert' takes texts, and dataset 'digits' holds images."
    publish(tmp_path, "mlp", "0a", "skipped", reason=reason + more)
    note = row_of(run_ls("runs", "--runs-dir", tmp_path).stdout, "mlp")[8]
    assert note.startswith(reason)
    assert (note == reason, note.endswith(" …"), len(note) <= ls.NOTE_LENGTH) == (len(more) < 40, len(more) > 40, True)
