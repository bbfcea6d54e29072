"""python -m zoo.run, run as a user runs it: what it prints, what it leaves, what it does not do twice."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

import zoo
from zoo import launch, plugins, progress, records
from zoo import run as zoo_run
from zoo.baselines import Majority
from zoo.config import Precision, RunConfig, TrainerOptions
from zoo.data.builtin import DATASETS
from zoo.engine import devices, memory
from zoo.store import reading, schema
from zoo.tasks import ImageClassification

ARGUMENTS = ("model=mlp", "task=image_classification", "dataset=digits", "trainer.epochs=2", "trainer.threads=1")
EXAMPLES = {"train": 500, "validation": 200, "test": 1097}


@dataclass(frozen=True)
class Done:
    """A command that ended well, and the run it left."""

    out: str
    folder: Path
    record: dict[str, Any]


def environment(cache: Path, **further: str) -> dict[str, str]:
    left_out = ("ZOO_", "HYDRA_", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, "OMP_NUM_THREADS": "1", "ZOO_CACHE": str(cache), **further}


def results(cwd: Path, out: str) -> Done:
    (named,) = re.findall(r"^Results: (.+)$", out, flags=re.MULTILINE)
    folder = cwd / named
    return Done(out, folder, json.loads((folder / schema.RUN).read_text(encoding="utf-8")))


def run(cwd: Path, *command: str) -> Done:
    done = subprocess.run(command, cwd=cwd, env=environment(cwd / "cache"), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return results(cwd, done.stdout)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run(tmp_path_factory.mktemp("first"), sys.executable, "-m", "zoo.run", *ARGUMENTS)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The same by the console script, from another working directory, with another order and another runs folder."""
    cwd = tmp_path_factory.mktemp("second")
    script = str(Path(sys.executable).with_name("zoo-run"))
    return run(cwd, script, f"runs_dir={cwd}/a folder/kept", *reversed(ARGUMENTS))


def test_a_plugin_that_the_run_does_not_use_makes_no_other_run(first: Done) -> None:
    cwd = first.folder.parents[4]
    command = (sys.executable, "-m", "zoo.run", *ARGUMENTS)
    only = environment(cwd / "cache", ZOO_PLUGINS="zoo-mlp")
    done = subprocess.run(command, cwd=cwd, env=only, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "was complete already" in done.stdout
    assert results(cwd, done.stdout).folder == first.folder


def test_what_goes_wrong_after_a_run_is_published_leaves_it_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(records, "_read_record", interrupted)
    assert launch.command(["model=majority", *ARGUMENTS[1:3]]) == 130
    assert [found.status for found in reading.runs(tmp_path / "runs")] == ["complete"]


def test_the_folder_stands_where_the_architecture_says_with_every_file(first: Done) -> None:
    assert first.folder.parts[-5:-1] == ("runs", "image_classification", "digits", "mlp")
    assert re.fullmatch(r"[0-9a-f]{16}", first.folder.name)
    assert {path.name for path in first.folder.iterdir()} == set(schema.FILES) - {schema.ERROR}
    root = first.folder.parents[3]
    assert {path.name for path in root.iterdir()} == {"image_classification", schema.DRAFTS}
    assert {path.name for path in (root / schema.DRAFTS).iterdir()} <= {schema.PUBLISH_LOCK}
    assert {path.name for path in root.parent.iterdir()} == {"runs", "cache"}, "nothing lies about"


def test_the_checksums_are_those_of_the_files(first: Done) -> None:
    facts = first.record["files"]
    assert set(facts) == set(schema.FILES) - {schema.ERROR, schema.RUN}
    for name, fact in facts.items():
        content = (first.folder / name).read_bytes()
        assert fact == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_the_record_says_what_was_run_on_what_with_what(first: Done) -> None:
    record = first.record
    assert (record["schema_version"], record["status"], record["seed"], record["label"]) == (1, "complete", 0, "mlp")
    assert (record["task"], record["dataset"], record["model"]) == ("image_classification", "digits", "mlp")
    assert record["key"] == first.folder.name
    assert record["config"]["model"]["hidden"] == [256, 128]
    assert record["config"]["trainer"]["epochs"] == 2
    assert None not in (record["config"]["trainer"][name] for name in ("batch_size", "learning_rate", "optimizer"))
    assert record["config"]["dataset"] == {"name": "digits"}
    assert {"zoo-harness", "zoo-mlp", "python", "torch", "numpy", "hydra-core"} <= set(record["versions"])
    assert {"cpu", "cores", "device"} <= set(record["hardware"])
    assert {name: split["examples"] for name, split in record["data"]["splits"].items()} == EXAMPLES
    assert record["data"]["classes"] == [str(digit) for digit in range(10)]
    assert re.fullmatch(r"[0-9a-f]{64}", record["data"]["fingerprint"])
    assert (record["training"]["steps"], record["training"]["epochs"], record["training"]["threads"]) == (16, 2, 1)
    assert record["training"]["param_count"] == 64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10
    assert 0 < record["training"]["train_seconds"] < record["seconds"]
    assert 50 < record["peak_memory_mib"] < 2048
    assert record["started"] < record["ended"]


LARGE = 300  # MiB


def allocate() -> None:
    np.ones(LARGE * 2**20, np.uint8).sum()


def test_a_run_after_one_with_more_memory_does_not_inherit_its_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells of a sweep share a process."""
    real = Majority.fit

    def fit(model: Majority, train: zoo.Split, validation: zoo.Split, seed: int) -> None:
        if seed == 1:
            allocate()
        real(model, train, validation, seed)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Majority, "fit", fit)
    words = ["-m", "model=majority", *ARGUMENTS[1:3], "report=off"]
    peaks = {}
    for seeds in ("seed=0", "seed=1,2"):  # the first also imports what all need
        assert launch.command([*words, seeds]) == 0
    for found in reading.runs(tmp_path / "runs"):
        peaks[found.record["seed"]] = found.record["peak_memory_mib"]
    assert set(peaks) == {0, 1, 2}
    if peaks[0] is None:
        assert peaks[2] is None, "where the system cannot forget, nothing is said"
    else:
        assert peaks[1] > peaks[2] + LARGE * 2 / 3
        assert peaks[1] > peaks[0] + LARGE * 2 / 3


def test_runs_at_once_in_one_process_know_no_peak_of_their_own() -> None:
    with memory.Peak() as first:
        with memory.Peak() as second:
            allocate()
        assert first.mib() is second.mib() is None
    with memory.Peak() as third:
        allocate()
        assert third.mib() is None or third.mib() > LARGE  # type: ignore[operator]


def test_garbage_is_looked_for_while_others_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it drops is then gone, and no part of the run's peak."""
    digits, model = next(cls for cls in DATASETS if cls.name == "digits"), plugins.find("model", "mlp").cls
    seen: dict[str, bool] = {}

    def watch(cls: type, method: str) -> None:
        real = getattr(cls, method)

        def watched(*args: Any) -> Any:
            seen[method] = seen.get(method, True) and gc.isenabled()
            return real(*args)

        monkeypatch.setattr(cls, method, watched)

    asked = {digits: ["read"], ImageClassification: ["check"]}
    asked[model] = ["recipe", "fingerprint", "encoder", "build", "parameter_groups", "layers"]
    for cls, methods in asked.items():
        for method in methods:
            watch(cls, method)
    monkeypatch.setenv("ZOO_CACHE", "off")
    options = TrainerOptions(epochs=1, threads=1)
    config = RunConfig(model(), digits(), ImageClassification(), options, "mlp", runs_dir=tmp_path, probe=10)
    zoo_run.run(config, plugins.registry(), progress.console())
    assert seen == {method: True for methods in asked.values() for method in methods}


IMPORTING = """
import gc, sys
from zoo.engine.memory import importing
looked = []
gc.callbacks.append(lambda phase, info: looked.append("torch" in sys.modules))
with importing():
    import torch
    within = sum(looked)
frozen = gc.get_freeze_count()
with importing():
    import json
    assert gc.isenabled()
print(within, frozen > 100_000, gc.get_freeze_count() == frozen, gc.isenabled())
"""


def test_no_garbage_is_looked_for_while_torch_is_imported_nor_in_it_later() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["0", "True", "True", "True"], done.stderr


def test_a_peak_that_others_hold_a_part_of_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"VmRSS": 1200.0, "VmHWM": 1300.0}
    monkeypatch.setattr(memory, "forget_largest", lambda: True)
    monkeypatch.setattr(memory, "resident", lambda name="VmRSS": sizes[name])
    monkeypatch.setattr(memory.Peak, "bare", 400.0)
    with memory.Peak() as peak:
        assert peak.mib() is None, "800 of 1,300 were there before"
        sizes["VmHWM"] = 9000.0
        assert peak.mib() == 9000.0


@pytest.mark.parametrize(("largest", "known"), [(40 * memory.MIB, 40.0), (32 * memory.MIB, None)])
def test_what_an_earlier_run_left_on_the_device_is_no_use_of_it(
    monkeypatch: pytest.MonkeyPatch, largest: int, known: float | None
) -> None:
    cuda = SimpleNamespace(
        memory_allocated=lambda: 32 * memory.MIB,
        reset_peak_memory_stats=lambda: None,
        max_memory_allocated=lambda: largest,
    )
    monkeypatch.setattr(memory, "_cuda", lambda: cuda)
    with memory.Peak() as peak:
        assert peak.device_mib() == known


@pytest.mark.parametrize("grows", [True, False])
def test_where_the_system_forgets_no_size_only_a_larger_one_is_known(
    monkeypatch: pytest.MonkeyPatch, grows: bool
) -> None:
    sizes = iter([500.0, 800.0 if grows else 500.0])
    monkeypatch.setattr(memory, "forget_largest", lambda: False)
    monkeypatch.setattr(memory, "largest_ever", lambda: next(sizes))
    with memory.Peak() as peak:
        assert peak.mib() == (800.0 if grows else None)


def test_what_auto_may_choose_on_a_machine_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    digits, model = next(cls for cls in DATASETS if cls.name == "digits")(), plugins.find("model", "mlp").cls()
    splits = zoo.load(digits)

    def key(precision: Precision, native: bool) -> str:
        monkeypatch.setattr(devices, "computes_in_bf16", lambda device: native)
        config = RunConfig(model, digits, ImageClassification(), TrainerOptions(precision=precision), "mlp")
        return records.identify(config, splits, plugins.registry()).place.key

    assert key(Precision.auto, True) != key(Precision.auto, False)
    assert key(Precision.fp32, True) == key(Precision.fp32, False)


def test_the_answers_on_validation_and_test_are_kept_with_their_logits(first: Done) -> None:
    table = pyarrow.parquet.read_table(first.folder / schema.PREDICTIONS)
    assert table.column_names == list(schema.PREDICTION_COLUMNS)
    assert str(table.schema.field(schema.LOGITS).type) == "fixed_size_list<element: float>[10]"
    splits, logits = table[schema.SPLIT].to_pylist(), np.array(table[schema.LOGITS].to_pylist())
    assert splits == ["validation"] * EXAMPLES["validation"] + ["test"] * EXAMPLES["test"]
    assert np.array_equal(logits.argmax(1), table[schema.PREDICTION].to_numpy())
    ids = table[schema.EXAMPLE_ID].to_pylist()
    assert len(set(ids)) == len(ids)
    test = np.array(splits) == "test"
    hits = (table[schema.PREDICTION].to_numpy() == table[schema.LABEL].to_numpy())[test]
    metrics = json.loads((first.folder / schema.METRICS).read_text(encoding="utf-8"))
    assert metrics["accuracy"]["value"] == pytest.approx(hits.mean())
    assert metrics["accuracy"]["n"] == EXAMPLES["test"]
    history = pyarrow.parquet.read_table(first.folder / schema.HISTORY).to_pylist()
    best = history[first.record["training"]["best_epoch"] - 1]
    hits = (table[schema.PREDICTION].to_numpy() == table[schema.LABEL].to_numpy())[~test]
    assert best["validation_accuracy"] == pytest.approx(hits.mean())


def test_metrics_have_intervals_and_counts(first: Done) -> None:
    metrics = json.loads((first.folder / schema.METRICS).read_text(encoding="utf-8"))
    assert {"accuracy", "macro_f1", "log_loss", "ece", "recall/0", "f1/9"} <= set(metrics)
    for metric in metrics.values():
        assert {"value", "low", "high", "n"} <= set(metric)
        if metric["value"] is not None and metric["low"] is not None:
            assert metric["low"] <= metric["value"] <= metric["high"]


def test_the_weights_and_features_are_kept(first: Done) -> None:
    kept = reading.read(first.folder)
    weights = kept.weights()
    assert sum(array.size for array in weights.values()) == first.record["training"]["param_count"]
    features = kept.features()
    assert {array.shape for array in features.values()} == {(500, 256), (500, 128)}
    probed = first.record["probe_ids"]
    table = kept.predictions().only("test")
    assert set(probed) == set(sorted(table.ids.tolist())[:500])


def test_the_history_has_a_row_an_epoch_and_the_log_a_line(first: Done) -> None:
    history = reading.read(first.folder).history()
    assert [row["epoch"] for row in history] == [1, 2]
    assert [row["step"] for row in history] == [8, 16]
    assert history[1]["loss"] < history[0]["loss"]
    lines = (first.folder / schema.EVENTS).read_text(encoding="utf-8").splitlines()
    assert [re.sub(r"^\S+Z ", "", line).split()[:3] for line in lines] == [
        ["info", "epoch", "epoch=1"],
        ["info", "epoch", "epoch=2"],
    ]


def test_piped_output_is_plain_lines_and_a_closing_table(first: Done) -> None:
    assert "\x1b" not in first.out
    lines = first.out.splitlines()
    assert re.match(r"epoch 1  step 8  loss \d\.\d{4}  validation loss \d\.\d{4}  accuracy 0\.\d{4}  \d+ ex", lines[0])
    assert lines[1].startswith("epoch 2  step 16  loss ")
    assert lines[2] == "mlp on digits, task image_classification, seed 0"
    metrics = json.loads((first.folder / schema.METRICS).read_text(encoding="utf-8"))
    told = metrics["accuracy"]
    (row,) = [line for line in lines if line.startswith("│ accuracy ")]
    value, span, n = (cell.strip() for cell in row.split("│")[2:5])
    assert (value, span, n) == (f"{told['value']:.4f}", f"{told['low']:.4f}–{told['high']:.4f}", "1097")
    assert re.fullmatch(r"\d+\.\d s in all, peak memory \d+ MiB, 50,826 weights, cpu, fp32, 1 thread", lines[-2])
    assert lines[-1] == f"Results: {first.folder.relative_to(first.folder.parents[4])}"


def test_one_thread_gives_bitwise_the_same_and_the_key_depends_on_neither_place_nor_order(
    first: Done, second: Done
) -> None:
    assert second.folder != first.folder
    assert second.folder.name == first.folder.name
    for name in (schema.METRICS, schema.PREDICTIONS, schema.FEATURES, schema.WEIGHTS):
        assert (second.folder / name).read_bytes() == (first.folder / name).read_bytes(), name


def test_a_complete_run_is_kept_and_not_repeated(second: Done) -> None:
    root = second.folder.parents[3]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    again = run(root.parents[1], sys.executable, "-m", "zoo.run", *ARGUMENTS, f"runs_dir={root}")
    assert again.folder == second.folder
    assert "This run was complete already and was not repeated; rerun=true repeats it." in again.out
    assert "epoch " not in again.out
    assert "│ accuracy " in again.out
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def on_a_terminal(cwd: Path, *command: str) -> str:
    """What a command writes to a real pseudo-terminal, 120 columns wide."""
    leader, follower = pty.openpty()
    env = environment(cwd / "cache", TERM="xterm-256color", COLUMNS="120")
    process = subprocess.Popen(command, cwd=cwd, stdin=follower, stdout=follower, stderr=follower, env=env)
    os.close(follower)
    shown = b""
    try:
        while block := os.read(leader, 65536):
            shown += block
    except OSError:  # Linux ends a pseudo-terminal so
        pass
    os.close(leader)
    assert process.wait(timeout=60) == 0, shown.decode()
    return shown.decode()


def test_a_terminal_gets_a_bar_and_rerun_repeats(second: Done) -> None:
    root = second.folder.parents[3]
    arguments = (*ARGUMENTS[:3], "trainer.epochs=2", "trainer.threads=1", f"runs_dir={root}", "rerun=true")
    shown = on_a_terminal(root.parents[1], sys.executable, "-m", "zoo.run", *arguments)
    assert "\x1b[" in shown
    assert re.search(r"training .*━.* % .*loss \d\.\d{3}.*examples/s", shown)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "epoch 2  step 16  loss" in plain
    assert "│ accuracy │" in plain
    record = json.loads((second.folder / schema.RUN).read_text(encoding="utf-8"))
    assert record["ended"] > second.record["ended"]
    assert record["files"][schema.METRICS] == second.record["files"][schema.METRICS]
    assert len(list(reading.runs(root))) == 1


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command in this process, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        assert launch.command(arguments) == 0
        return results(tmp_path, capsys.readouterr().out)

    return call


def write_table(path: Path, rows: range = range(60), odd_one: str = "word") -> None:
    lines = ["text,label", *(f"day number {row} {'fine' if row % 2 else 'foul'},{row % 2}" for row in rows)]
    path.write_text("\n".join([*lines, f"one more {odd_one},1"]) + "\n", encoding="utf-8")


def test_the_key_follows_seed_options_and_data_and_not_their_names(
    command: Callable[..., Done], tmp_path: Path
) -> None:
    write_table(tmp_path / "one.csv")
    write_table(tmp_path / "copy.csv")
    write_table(tmp_path / "other.csv", odd_one="sword")
    table = ("model=linear", "dataset=table")
    one = command(*table, "path=one.csv")
    assert one.folder.parts[-4:-1] == ("sentiment", one.record["dataset"], "linear")
    assert one.record["dataset"] != "table", "two files do not fall into one folder"
    keys = {
        "one": one.folder.name,
        "seed": command(*table, "path=one.csv", "seed=1").folder.name,
        "option": command(*table, "path=one.csv", "min_df=1").folder.name,
        "data": command(*table, "path=other.csv").folder.name,
        "task": command(*table, "path=one.csv", "task=text_classification").folder.name,
        "model": command("model=majority", "dataset=table", "path=one.csv").folder.name,
    }
    assert len(set(keys.values())) == len(keys), keys
    assert command(*table, "path=copy.csv").folder.name == keys["one"]
    assert command(*table, f"path={tmp_path}/one.csv", "min_df=2").folder == one.folder


def test_what_was_done_to_the_data_is_said_aloud(command: Callable[..., Done], tmp_path: Path) -> None:
    for split, rows in (("train", range(60)), ("validation", range(60, 80)), ("test", range(80, 100))):
        write_table(tmp_path / f"{split}.csv", rows)
    done = command("model=majority", "dataset=table", "path={split}.csv")
    assert len(done.record["data"]["notes"]) == 2, "the line that is in all three left two of them"
    for note in done.record["data"]["notes"]:
        assert note in done.out


def test_a_damaged_run_is_reported_and_run_again(
    command: Callable[..., Done], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ("model=majority", *ARGUMENTS[1:3])
    done = command(*arguments)
    metrics = (done.folder / schema.METRICS).read_bytes()
    (done.folder / schema.METRICS).write_bytes(metrics.replace(b"0.1", b"0.9"))
    again = command(*arguments)
    assert again.folder == done.folder
    assert "was not repeated" not in again.out
    assert (done.folder / schema.METRICS).read_bytes() == metrics
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "metrics.json is not what was written" in warning
    assert warning.endswith("(its checksum differs). It is run again.")
    assert "\n" not in warning, "one next step, and no other advice"


def test_weights_and_features_may_be_left_out(command: Callable[..., Done]) -> None:
    done = command(*ARGUMENTS, "keep_weights=false", "probe=0")
    names = {path.name for path in done.folder.iterdir()}
    assert not names & {schema.WEIGHTS, schema.FEATURES}
    assert schema.PREDICTIONS in names


def test_a_reader_that_goes_away_leaves_nothing_half_done(tmp_path: Path) -> None:
    """As in `python -m zoo.run … | head -1`: the run goes on to its end."""
    long = ("trainer.threads=1", "trainer.epochs=200", "trainer.patience=200")
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo.run", *ARGUMENTS[:3], *long],
        cwd=tmp_path, env=environment(tmp_path / "cache"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("epoch 1 ")
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert told == ""
    (left,) = reading.runs(tmp_path / "runs")
    assert left.status == "complete"
    left.verify()
