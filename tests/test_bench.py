"""`python -m zoo.bench` on real runs, with real processes: measured, lost, interrupted, refused, and in the report."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from zoo import bench, launch, report
from zoo.analysis import costs
from zoo.benchmark import contestants, turns
from zoo.errors import ConfigError, RequestError, StoreError
from zoo.store import bench as store
from zoo.store.reading import Run
from zoo.store.tables import history_from_bytes

DIGITS = ["task=image_classification", "dataset=digits", "trainer.epochs=2", "report=off"]
STUDY = "runs/image_classification/digits"
WEIGHTS = 64 * 16 + 16 + 16 * 10 + 10  # of the mlp: 8 × 8 pixels, 16 hidden, 10 classes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a linear model, two perceptrons and a bench of them. The wider one's record has been changed, so
    that its weights do not fit any more."""
    folder = tmp_path_factory.mktemp("bench")
    with contextlib.chdir(folder):
        assert launch.command(["-m", "model=mlp", "model.hidden=[16],[24]", *DIGITS]) == 0
        assert launch.command(["model=linear", "model.C=[1.0]", *DIGITS]) == 0
    for file in (folder / STUDY / "mlp").glob("*/run.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["config"]["model"]["hidden"] == [24]:
            record["config"]["model"]["hidden"] = [25]
            file.write_text(json.dumps(record), encoding="utf-8")
    command = [sys.executable, "-m", "zoo.bench", f"study={STUDY}", "repetitions=8", "threads=1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    (folder / "said").write_text(f"{done.returncode}\n{done.stdout}\n{done.stderr}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def measured(place: Path) -> store.Bench:
    found = store.read(place / STUDY)
    assert found is not None, (place / "said").read_text(encoding="utf-8")
    return found["benches"][-1]


def by_kind(measured: store.Bench) -> tuple[store.Model, store.Model]:
    """The perceptron and the linear model."""
    models = {model["kind"]: model for model in measured["models"]}
    return models["torch"], models["predictor"]


def test_a_model_that_does_not_load_is_told_and_the_others_go_on(place: Path, measured: store.Bench) -> None:
    code, _, said = (place / "said").read_text(encoding="utf-8").partition("\n")
    assert code == "1"
    assert "do not fit the model that its configuration builds" in said
    assert "a first look: 40 are for numbers and ranks to keep" in " ".join(said.split())
    assert len(measured["models"]) == 2
    assert any("do not fit" in left["why"] for left in measured["left_out"])


def test_the_perceptron_is_the_stored_one_and_counted_by_hand(measured: store.Bench) -> None:
    mlp, _ = by_kind(measured)
    assert mlp["restored"] == "weights"
    assert mlp["same_answers"]["value"] == 1
    assert mlp["same_answers"]["n"] == 256
    assert mlp["param_count"] == pytest.approx(WEIGHTS / 1e6)
    assert mlp["infer_gmacs"]["value"] == pytest.approx((64 * 16 + 16 * 10) / 1e9)
    assert mlp["infer_img_size"] == [1, 8, 8]
    assert mlp["seconds_to_target"]["value"] is not None
    assert mlp["train_here"]
    assert mlp["train_batch_size"] > 0


def test_the_linear_model_is_fitted_again_and_says_what_it_said(measured: store.Bench) -> None:
    _, linear = by_kind(measured)
    assert linear["restored"] == "refitted"
    assert linear["same_answers"]["value"] == 1
    assert linear["precision"] == "own"
    for name in ("infer_gmacs", "throughput_vs_reference", "matmul_share", "seconds_to_target"):
        assert linear[name]["value"] is None  # type: ignore[literal-required]
        assert linear[name]["reason"]  # type: ignore[literal-required]


def test_every_number_has_its_interval_and_n_or_a_reason(measured: store.Bench) -> None:
    for model in measured["models"]:
        for name in ("latency_p50", "latency_p95", "latency_p99", "infer_samples_per_sec", "infer_step_time"):
            number = model[name]  # type: ignore[literal-required]
            assert number["low"] <= number["value"] <= number["high"]
        assert model["latency_p50"]["n"] >= 8
        assert model["infer_samples_per_sec"]["n"] == 8
        assert model["latency_p50"]["value"] <= model["latency_p95"]["value"] <= model["latency_p99"]["value"]
        rate, step = model["infer_samples_per_sec"]["value"], model["infer_step_time"]["value"]
        assert rate == pytest.approx(model["infer_batch_size"] / step * 1e3)
        best = max(model["batch_sizes"], key=lambda size: model["batch_sizes"][size])
        assert int(best) == model["infer_batch_size"]
        assert all(int(size).bit_count() == 1 for size in model["batch_sizes"])
        assert model["energy_per_sample"]["reason"]
        assert model["peak_memory_mib"]["value"] is not None or model["peak_memory_mib"]["reason"]
    assert measured["matmul_peak"]["value"] > 0
    assert 0 < by_kind(measured)[0]["matmul_share"]["value"] < 2


def test_the_conditions_are_recorded(measured: store.Bench) -> None:
    assert measured["protocol"]["repetitions"] == 8
    assert measured["protocol"]["threads"] == 1
    assert measured["protocol"]["precision"] == "fp32"
    assert measured["machine"]["hardware"]["device"] == "cpu"
    assert {"python", "torch", "numpy"} <= measured["versions"].keys()
    assert [noise["model"] for noise in measured["noise"]] == [by_kind(measured)[0]["model"]]
    assert measured["floor"]["latency"] >= 1


def test_the_columns_are_timms_and_every_repetition_is_kept(place: Path, measured: store.Bench) -> None:
    rows = history_from_bytes((place / STUDY / store.TIMINGS).read_bytes())
    assert {row["twin"] for row in rows} == {True, False}
    columns = {"infer_samples_per_sec", "infer_step_time", "infer_batch_size", "infer_gmacs", "param_count"}
    assert columns | {"train_samples_per_sec"} <= rows[0].keys()
    mlp = next(row for row in rows if row["kind"] == "torch")
    assert len(mlp["throughput_seconds"]) == len(mlp["throughput_reference_seconds"]) == 8
    assert len(mlp["latency_seconds"]) == by_kind(measured)[0]["latency_p50"]["n"]
    middle = sorted(mlp["throughput_seconds"])[3:5]
    assert mlp["infer_examples"] / (sum(middle) / 2) == pytest.approx(mlp["infer_samples_per_sec"])


def options(place: Path, *words: str) -> list[str]:
    return [f"study={place / STUDY}", f"out={place / 'reports'}", "draws=20", "permutations=5", *words]


def test_the_report_takes_the_bench_and_verifies(place: Path, measured: store.Bench) -> None:
    assert report.command(options(place, "name=en")) == 0
    folder = place / "reports" / "en"
    document = report.read(folder)
    (found,) = document["benches"]
    assert found["apart"] is None
    names = [document["models"][entry["model"]]["name"] for entry in found["models"]]
    assert names == [model["model"] for model in measured["models"]]
    assert "Measured together: cpu, fp32, 1 thread" in (folder / "report.md").read_text(encoding="utf-8")
    assert "speed" in (folder / "index.html").read_text(encoding="utf-8")
    assert (folder / "figures" / "speed.svg").exists()
    assert (folder / "tables" / "bench.csv").read_text(encoding="utf-8").count("\n") == 3
    assert report.verify([str(folder)]) == 0


def test_a_report_without_a_bench_stays_what_it_was(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "runs", tmp_path / "runs")
    (tmp_path / STUDY / store.BENCH).unlink()
    assert report.command(options(tmp_path, "name=bare")) == 0
    bare = tmp_path / "reports" / "bare"
    assert "benches" not in report.read(bare)
    shutil.copy(place / STUDY / store.BENCH, tmp_path / STUDY)
    assert report.verify([str(bare)]) == 0
    assert report.command(options(tmp_path, "name=with", "language=zh")) == 0
    document = report.read(tmp_path / "reports" / "with")
    assert document["benches"]
    other = json.loads((tmp_path / STUDY / store.BENCH).read_text(encoding="utf-8"))
    other["benches"][0]["models"][0]["infer_samples_per_sec"]["value"] *= 2
    (tmp_path / STUDY / store.BENCH).write_text(json.dumps(other), encoding="utf-8")
    assert report.verify([str(tmp_path / "reports" / "with")]) == 1


def test_benches_of_other_hardware_stand_apart_and_a_damaged_file_is_told(
    place: Path, measured: store.Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from zoo.analysis.document import Options, analyse

    shutil.copytree(place / "runs", tmp_path / "runs")
    elsewhere: store.Bench = json.loads(json.dumps(measured))
    elsewhere["id"], elsewhere["made"] = "0" * 12, "2020-01-01T00:00:00Z"
    elsewhere["machine"]["hardware"]["cpu"] = "abacus"
    warmer: store.Bench = json.loads(json.dumps(measured))
    warmer["id"], warmer["made"], warmer["protocol"]["threads"] = "1" * 12, "2020-01-01T00:00:00Z", 7
    for other in (elsewhere, warmer):
        store.write(tmp_path / STUDY, other, [])
    quick = Options(draws=20, permutations=5)
    found = analyse([tmp_path / "runs"], quick)["benches"]
    assert [item["apart"] for item in found].count(None) == 1
    assert found[0]["apart"] is None
    assert {item["apart"] for item in found[1:]} == {costs.OTHER_HARDWARE, costs.OTHER_CONDITIONS}
    (tmp_path / STUDY / store.BENCH).write_text("{}", encoding="utf-8")
    assert "benches" not in analyse([tmp_path / "runs"], quick)
    assert "costs are left out" in caplog.text


def test_the_committed_description_is_the_schema() -> None:
    assert store.describe() in (Path(__file__).parent.parent / "reports" / "BENCH.md").read_text(encoding="utf-8")


def test_measuring_again_replaces_the_bench_of_the_same_conditions(measured: store.Bench, tmp_path: Path) -> None:
    rows = [{"model": "a", "latency_seconds": [0.1, 0.2]}, {"model": "b", "latency_seconds": [0.3]}]
    store.write(tmp_path, measured, rows)
    other: store.Bench = {**measured, "id": "other"}
    store.write(tmp_path, other, rows[:1])
    store.write(tmp_path, measured, rows[1:])
    found = store.read(tmp_path)
    assert found is not None
    assert [item["id"] for item in found["benches"]] == ["other", measured["id"]]
    kept = history_from_bytes((tmp_path / store.TIMINGS).read_bytes())
    assert [(row["bench"], row["model"]) for row in kept] == [("other", "a"), (measured["id"], "b")]
    assert sorted(item.name for item in tmp_path.iterdir()) == [store.BENCH, store.TIMINGS]
    with pytest.raises(ValueError, match=r"benches\[1\]\.device"):
        store.write(tmp_path, {**measured, "device": 3}, [])  # type: ignore[typeddict-item]
    assert store.read(tmp_path) == found
    (tmp_path / store.BENCH).write_text('{"schema_version": 2}', encoding="utf-8")
    with pytest.raises(StoreError, match="schema version 2"):
        store.read(tmp_path)


def test_benches_written_at_the_same_time_are_all_kept(measured: store.Bench, tmp_path: Path) -> None:
    benches = [{**measured, "id": f"{number:012}"} for number in range(6)]
    with ThreadPoolExecutor(len(benches)) as pool:
        list(pool.map(lambda bench: store.write(tmp_path, bench, [{"role": bench["id"]}]), benches))
    found = store.read(tmp_path)
    assert found is not None
    assert {bench["id"] for bench in found["benches"]} == {bench["id"] for bench in benches}
    assert len(history_from_bytes((tmp_path / store.TIMINGS).read_bytes())) == len(benches)
    assert {file.name for file in tmp_path.iterdir()} == {store.BENCH, store.TIMINGS}


def test_a_process_that_dies_is_told_and_the_others_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, turns.Process] = {}

    class Watched(turns.Process):
        def __init__(self, name: str, job: dict[str, Any]) -> None:
            super().__init__(name, job)
            started[name] = self

    def told(line: str) -> None:
        if line.startswith("Warming up"):
            os.kill(started["victim"]._process.pid, signal.SIGKILL)

    monkeypatch.setattr(turns, "Process", Watched)
    field = contestants.choose([str(place / STUDY)], ["linear"])
    request = bench.Request(study="x", threads=1)
    product = bench.jobs_of(field, request, bench.protocol_of(request, "cpu"), "cpu")[bench.PRODUCT]
    jobs = {"product": product, "victim": product, "twin": {**product, "twin_of": "victim"}}
    said = turns.take_turns(jobs, turns.Plan(2, 0, told=told))
    assert "SIGKILL" in str(said["victim"].lost)
    assert "was lost" in str(said["twin"].lost)
    assert said["product"].lost is None
    assert sorted(said["product"].rounds) == [0, 1]
    assert not [child for child in psutil.Process().children() if "zoo.benchmark.worker" in child.cmdline()]


def test_a_process_that_is_silent_is_lost() -> None:
    process = turns.Process("slow", {"threads": 1, "what": "product", "device": "cpu", "precision": "fp32"})
    try:
        with pytest.raises(turns.Lost, match="no answer for 0 seconds"):
            process.answer(0.01)
    finally:
        process.end()


def test_ctrl_c_ends_every_process_and_keeps_what_was_there(place: Path) -> None:
    before = (place / STUDY / store.BENCH).read_bytes()
    command = [sys.executable, "-m", "zoo.bench", f"study={STUDY}", "models=linear"]
    running = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline().startswith("Loading")
    children = psutil.Process(running.pid).children()
    assert children
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert errors == "Interrupted: nothing of the bench that was under way is kept.\n"
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert (place / STUDY / store.BENCH).read_bytes() == before


def test_a_process_whose_caller_is_killed_ends_by_itself(place: Path) -> None:
    command = [sys.executable, "-m", "zoo.bench", f"study={STUDY}", "models=linear", "twins=none"]
    running = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    running.stdout.readline()
    children = psutil.Process(running.pid).children()
    running.kill()
    running.communicate()
    assert psutil.wait_procs(children, timeout=30)[1] == []


def test_a_device_that_is_not_there_is_refused(place: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("it is there")
    began = time.monotonic()
    words = ["-m", "zoo.bench", f"study={STUDY}", "device=cuda", "models=linear"]
    done = subprocess.run([sys.executable, *words], cwd=place, capture_output=True, text=True)
    assert done.returncode == 2
    assert "this machine has no such device" in done.stderr
    assert time.monotonic() - began < 60


@pytest.mark.gpu
def test_cuda_has_events_memory_and_a_product_in_bfloat16(place: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    shutil.copytree(place / "runs", tmp_path / "runs")
    words = [f"study={tmp_path / STUDY}", "device=cuda", "repetitions=8"]
    bench.command(words)
    found = store.read(tmp_path / STUDY)
    assert found is not None
    mlp = next(model for model in found["benches"][-1]["models"] if model["kind"] == "torch")
    assert mlp["precision"] == "bf16"
    assert mlp["device_memory_mib"]["value"] > 0
    energy = mlp["energy_per_sample"]
    assert energy["value"] is not None or "NVML" in energy["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Which runs"),
        (["study=x", "devise=cpu"], "Did you mean 'device'"),
        (["study=x", "device=tpu"], "cpu, cuda or cpu,cuda"),
        (["study=x", "precision=fp8"], "precision=fp8: it must be auto, fp32 or bf16"),
        (["study=x", "repetitions=0"], "1 or more"),
        (["study=x", "repetitions=many"], "whole number"),
        (["study=x", "seeds=a"], "whole numbers with commas"),
        (["study=x", "target=80"], "an accuracy from 0 to 1"),
        (["study=x", "compile=maybe"], "compile=maybe: it must be none, default or graphs"),
        (["study=x", "compile=graphs", "device=cpu,cuda"], "none or default where device is not cuda"),
        (["study=x", "threads=-1"], "0 or more"),
    ],
)
def test_wrong_requests_say_what_would_be_right(words: list[str], message: str) -> None:
    from zoo import arguments

    with pytest.raises(ConfigError, match=message):
        arguments.parse(words, bench.Request)


def test_models_and_seeds_are_chosen_by_name(place: Path) -> None:
    study = str(place / STUDY)
    every = contestants.choose([study])
    assert len(every.contestants) == 3
    assert every.folder == place / STUDY
    assert contestants.choose([study], ["linear"]).contestants[0].model == "linear"
    with pytest.raises(RequestError, match="Did you mean 'linear'"):
        contestants.choose([study], ["linaer"])
    with pytest.raises(RequestError, match="No run"):
        contestants.choose([study], seeds=[7])
    pattern = contestants.choose([str(place / "runs" / "*" / "digits" / "*")])
    assert pattern.folder == place / STUDY
    one = contestants.choose([str(every.contestants[0].run.folder)])
    assert one.folder == every.contestants[0].run.folder.parent


def test_a_run_without_weights_or_of_another_program_is_left_out(place: Path) -> None:
    run = contestants.choose([str(place / STUDY)], ["linear"]).contestants[0].run
    torch_run = next(
        item.run for item in contestants.choose([str(place / STUDY)]).contestants if item.model.startswith("mlp")
    )
    assert contestants.unfit(run) == contestants.unfit(torch_run) == ""
    without = {**torch_run.record, "files": {}}
    assert "keep_weights=false" in contestants.unfit(type(run)(run.folder, without))
    assert "imported" in contestants.unfit(type(run)(run.folder, {**run.record, "imported": {"from": "x"}}))


def test_of_a_model_the_first_run_that_can_be_measured_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def member(model: str, seed: int, weights: bool) -> Any:
        record = {
            "config": {"model": {"name": model}, "trainer": {}},
            "files": {"model.safetensors": {}} if weights else {},
        }
        return SimpleNamespace(model=model, seed=seed, run=Run(Path("runs") / model / str(seed), record))

    members = [member("mlp", 0, False), member("mlp", 2, True), member("mlp", 1, True), member("cnn", 3, False)]
    monkeypatch.setattr(contestants.study, "open", lambda paths: None)
    monkeypatch.setattr(contestants.guards, "compare", lambda _: SimpleNamespace(members=members, left_out=[]))
    found = contestants.choose(["runs"])
    assert [one.what for one in found.contestants] == ["mlp, seed 1"]
    assert [what for what, _ in found.left_out] == ["cnn, seed 3"]
    asked = contestants.choose(["runs"], ["mlp"], [0, 2])
    assert [one.seed for one in asked.contestants] == [2]
    assert [what for what, _ in asked.left_out] == ["mlp, seed 0"]
