"""What a study's models cost when they are measured together: `bench.json`, and `bench.parquet` with every timing.

Both lie in the study's folder. `bench.json` holds one bench for each machine, device, precision and number of threads;
measuring again under the same conditions replaces that bench and leaves the others. Numbers are compared within one
bench only. `bench.parquet` has one row a process (a model's twin has a row too), named as timm names its columns, and
the seconds of every repetition as lists.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, cast

from zoo import form
from zoo.errors import StoreError
from zoo.store.disk import Lock, make_folders, replace_file, writing
from zoo.store.places import require_apart

SCHEMA_VERSION = 1
BENCH = "bench.json"
TIMINGS = "bench.parquet"

Figure = Literal["latency", "throughput"]
FIGURES: tuple[Figure, ...] = ("latency", "throughput")
FEWEST = 40
"""Repetitions of a bench that is worth keeping; fewer are for a first look, and table and report say so."""
TOO_NOISY = 2.0
"""A noise floor from which no two models are told apart: of two processes of one model one may take twice as long."""


class Measured(TypedDict):
    """A measured number, or the reason why there is none."""

    value: Annotated[float | None, "the median over the repetitions, or the quantile asked for; null when undefined"]
    low: Annotated[float | None, "lower end of the 95 % interval (bootstrap over the repetitions)"]
    high: Annotated[float | None, "upper end"]
    q1: Annotated[float | None, "lower quartile of what was measured"]
    q3: Annotated[float | None, "upper quartile"]
    n: Annotated[int | None, "how many timings it is from"]
    reason: Annotated[str | None, "why there is no value; beside a value, something to mind about it"]


class Model(TypedDict):
    """One stored run as it was measured."""

    model: Annotated[str, "its name in the study"]
    key: Annotated[str, "key of the run"]
    folder: Annotated[str, "where the run lay"]
    seed: Annotated[int, "seed of the run"]
    kind: Annotated[Literal["torch", "predictor"], "a module, or an opaque model that answers for itself"]
    restored: Annotated[Literal["weights", "refitted"], "its stored weights, or fitted again as its run recorded"]
    same_answers: Annotated[Measured, "share of the sample on which it answers as the run did; n examples"]
    precision: Annotated[str, "`fp32`, `bf16` (autocast), or `own` where an opaque model decides"]
    param_count: Annotated[float | None, "millions of parameters"]
    infer_gmacs: Annotated[Measured, "billions of multiply-adds an example: matrix products and convolutions"]
    infer_length: Annotated[Measured, "tokens an example, unpadded; undefined for images"]
    infer_img_size: Annotated[list[int], "shape of an example of another kind, e.g. channels, height, width"]
    latency_p50: Annotated[Measured, "milliseconds of one example alone, encoded already"]
    latency_p95: Annotated[Measured, "95 % of the calls take at most that long"]
    latency_p99: Annotated[Measured, "99 % of the calls; undefined under 100 calls"]
    latency_vs_reference: Annotated[Measured, "time through the harness ÷ plain PyTorch loop, same examples"]
    infer_batch_size: Annotated[int, "the batch size with the best throughput found"]
    batch_sizes: Annotated[dict[str, float], "examples a second at every batch size tried, one short trial each"]
    batch_limit: Annotated[str, "why no larger batch was tried"]
    infer_samples_per_sec: Annotated[Measured, "examples a second at that batch size"]
    infer_step_time: Annotated[Measured, "milliseconds a batch"]
    infer_examples: Annotated[int, "examples a repetition predicts, evenly spaced by length"]
    throughput_vs_reference: Annotated[Measured, "time through the harness ÷ plain PyTorch loop, same batches"]
    peak_memory_mib: Annotated[Measured, "largest resident size while predicting less that before the model was there"]
    device_memory_mib: Annotated[Measured, "torch.cuda.max_memory_allocated while predicting"]
    matmul_share: Annotated[Measured, "multiply-adds a second as a share of what the device's matrix product reaches"]
    energy_per_sample: Annotated[Measured, "joules an example, the whole device's"]
    train_samples_per_sec: Annotated[float | None, "examples a second when the run was trained"]
    train_batch_size: Annotated[int | None, "of that training"]
    train_here: Annotated[bool, "whether the run was trained on hardware like this"]
    seconds_to_target: Annotated[Measured, "seconds of training until the bench's target was first reached"]
    latency_rank: Annotated[
        int | None, "1 + the number of models that are clearly faster; null where no two are told apart"
    ]
    throughput_rank: Annotated[int | None, "likewise"]


class Comparison(TypedDict):
    """Two models, by their positions in `models`."""

    a: Annotated[int, "position of a model"]
    b: Annotated[int, "position of another"]
    figure: Annotated[Literal["latency", "throughput"], "what is compared"]
    ratio: Annotated[Measured, "time of a ÷ time of b, the median over pairs of neighbouring turns"]
    differs: Annotated[
        bool | None,
        "whether the whole interval lies outside the noise floor, which it never does of a floor of 2 or more; null "
        "without a floor",
    ]


class Noise(TypedDict):
    """A model against itself in a second process: what differs although nothing differs."""

    model: Annotated[str, "its name"]
    latency: Annotated[Measured, "time ÷ time of the twin"]
    throughput: Annotated[Measured, "likewise"]


class Floor(TypedDict):
    """Ratios up to this factor are no difference; null when no twin was measured."""

    latency: Annotated[float | None, "at least 1: the farthest end of any twin's interval from 1"]
    throughput: Annotated[float | None, "likewise"]


class Protocol(TypedDict):
    """How it was measured."""

    repetitions: Annotated[int, "turns of each process"]
    sample: Annotated[int, "test examples that calls and passes draw from"]
    precision: Annotated[str, "asked of modules: `fp32` or `bf16`"]
    compile: Annotated[str, "`none`, `default` (torch.compile) or `graphs` (with CUDA graphs)"]
    threads: Annotated[int, "CPU threads of every process"]
    seed: Annotated[int, "of the order of turns and of the bootstrap"]
    order: Annotated[str, "how the turns follow each other"]


class Target(TypedDict):
    """What `seconds_to_target` waits for."""

    accuracy: Annotated[float | None, "validation accuracy; null when no run has a history"]
    how: Annotated[str, "where it comes from"]


class Machine(TypedDict):
    """Where it was measured. Benches are comparable when `hardware` is the same."""

    hardware: Annotated[dict[str, str], "processor, cores, system, device, accelerator"]
    driver: Annotated[str | None, "version of the accelerator's driver"]
    clocks: Annotated[Measured, "MHz seen during the turns"]
    load_before: Annotated[float | None, "load of the machine over the minute before"]
    load_after: Annotated[float | None, "and over the last minute, this bench included"]


class LeftOut(TypedDict):
    """A run that was not measured."""

    what: Annotated[str, "the run, in words"]
    why: Annotated[str, "the reason"]


class Bench(TypedDict):
    """Models measured together on one device."""

    id: Annotated[str, "equal for benches under equal conditions"]
    made: Annotated[str, "ISO 8601, UTC"]
    zoo_version: Annotated[str, "version of the program"]
    command: Annotated[list[str], "the command, word by word"]
    device: Annotated[str, "`cpu` or `cuda`"]
    machine: Annotated[Machine, "where"]
    protocol: Annotated[Protocol, "how"]
    versions: Annotated[dict[str, str], "of Python and the libraries"]
    matmul_peak: Annotated[Measured, "billions of multiply-adds a second of the device's matrix product"]
    matmul_size: Annotated[int | None, "rows and columns of that product"]
    target: Annotated[Target, "what training times are taken to"]
    noise: Annotated[list[Noise], "one for each twin"]
    floor: Annotated[Floor, "what counts as no difference"]
    models: Annotated[list[Model], "in the order of the study"]
    comparisons: Annotated[list[Comparison], "all pairs of models, a < b"]
    left_out: Annotated[list[LeftOut], "runs that were not measured"]


class Benches(TypedDict):
    """The whole file."""

    schema_version: Annotated[int, "1"]
    timings: Annotated[str, "sha256 of bench.parquet as it was written"]
    benches: Annotated[list[Bench], "the newest last"]


def told_apart(bench: Bench, figure: Figure) -> bool:
    """Whether some two models differ by more than the noise of a figure: without that none is ranked by it. Earlier
    programs ranked all the same, and by a floor of any height."""
    floor = bench["floor"][figure]
    compared = [found for found in bench["comparisons"] if found["figure"] == figure]
    return floor is not None and floor < TOO_NOISY and any(found["differs"] for found in compared)


def measured(
    value: float | None, low: float | None = None, high: float | None = None, n: int | None = None, reason: str = ""
) -> Measured:
    """A number without quartiles. Raises ValueError when there is neither value nor reason."""
    if value is None and not reason:
        raise ValueError("an undefined number needs a reason")
    return Measured(value=value, low=low, high=high, q1=None, q3=None, n=n, reason=reason or None)


def identity(conditions: Mapping[str, Any]) -> str:
    """12 hex digits, equal exactly when the conditions (JSON types) are."""
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:12]


def describe() -> str:
    """The form of bench.json as Markdown."""
    return form.describe(Benches)


def read(folder: Path) -> Benches | None:
    """`bench.json` of a folder; None when there is none. Raises StoreError when it is not what this program writes."""
    file = folder / BENCH
    try:
        content = json.loads(file.read_bytes())
        version = content.get("schema_version") if isinstance(content, dict) else None
        if type(version) is int and version != SCHEMA_VERSION:
            raise StoreError(f"{file} has schema version {version}, and this program reads {SCHEMA_VERSION}.")
        form.check(content, Benches, BENCH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise StoreError(f"{file} is not what zoo.bench wrote: {error}\nDelete it and measure again.") from error
    return cast(Benches, content)


def write(folder: Path, bench: Bench, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Add a bench to the files of a folder, in place of one with the same id. Each file changes in one step; another
    process that adds one waits.

    rows: what `bench.parquet` holds of it. Returns the path of bench.json. Raises StoreError when it cannot be written
    or what lies there cannot be read, ValueError when the bench has not the form of the schema."""
    require_apart(folder / BENCH)
    with writing(folder):
        make_folders(folder)
        lock = Lock.acquire(folder / f".{BENCH}.lock")
    try:
        _add(folder, bench, rows)
    finally:
        lock.release()
    return folder / BENCH


def _add(folder: Path, bench: Bench, rows: Sequence[Mapping[str, Any]]) -> None:
    from zoo.store.tables import history_to_bytes

    before = read(folder)
    kept = [other for other in (before["benches"] if before else []) if other["id"] != bench["id"]]
    former = [row for row in _rows(folder) if row.get("bench") in {other["id"] for other in kept}]
    every = [*former, *({"bench": bench["id"], **row} for row in rows)]
    with writing(folder):
        digest = replace_file(folder / TIMINGS, history_to_bytes(every)).sha256
        content = Benches(schema_version=SCHEMA_VERSION, timings=digest, benches=[*kept, bench])
        form.check(content, Benches, BENCH)
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
        replace_file(folder / BENCH, text.encode(errors="backslashreplace"))


def _rows(folder: Path) -> list[dict[str, Any]]:
    from zoo.store.tables import history_from_bytes

    try:
        return history_from_bytes((folder / TIMINGS).read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / TIMINGS} cannot be read: {error}\nDelete it and measure again.") from error


def found_for(folders: Sequence[Path]) -> list[tuple[Path, Benches]]:
    """Every bench.json that lies above some run folders, up to the folder of all runs, the nearest first.

    Raises StoreError for one that cannot be read."""
    places = {parent: None for folder in folders for parent in list(folder.absolute().parents)[:LEVELS]}
    nearest_first = sorted(places, key=lambda place: (-len(place.parts), str(place)))
    return [(place, found) for place in nearest_first if (found := read(place)) is not None]


LEVELS = 4
"""Folders above a run in which its bench may lie: model, dataset, task, all runs."""
