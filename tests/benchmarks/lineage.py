"""Does `zoo.lineage` keep what it promises? `python tests/benchmarks/lineage.py [--out reports/lineage-validation]`.

For each model and data set, replicas are trained that differ in their seed only. One half of them calibrates (the
threshold of the aligned score, and the replicas that its p-value needs), the other half is reported on:

(a) validity: false positives of the exact tests over all pairs of replicas;
(b) power: parents of the reported half against what `zoo.disguise` makes of them;
(c) a zoo of twenty: families of two among strangers of like accuracy, judged together;
(e) cost: seconds and memory for a pair of 100 million parameters. (d), the black box, is `blackbox.py`.

Runs are trained in processes of one thread each and are kept in `--runs`, and so is what was measured of each model and
data set, until a line of the code changes: the same command again does what is missing.
Exits with 1 when a bar is missed. `--quick` only shows that it works, and writes to a folder of its own.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import lineage_about
import lineage_cost
import lineage_tables as tables
from lineage_tables import INDEPENDENT

Row = dict[str, Any]
SCRIPT = "tests/benchmarks/lineage.py"
OUT, QUICK_OUT = Path("reports/lineage-validation"), Path("runs/lineage-quick")

CHAINS = (
    "finetune:1", "new_head", "permute,rescale", "prune:0.5", "quantise:8", "quantise:4", "noise:0.1",
    "finetune:1,new_head,prune:0.5,quantise:8,permute,rescale",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A model on a data set, with a recipe that takes seconds."""

    model: str
    dataset: str
    task: str
    options: Mapping[str, Any]
    trainer: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`mlp on digits`."""
        return f"{self.model} on {self.dataset}"


# Both have inputs that no training example moves (black corners, rare words): R2 needs some.
IMAGE, TEXT = ("mnist5k", "image_classification"), ("bbc_news", "text_classification")
WORDS = {"dropout": 0.1, "embedding": 32, "max_vocabulary": 2000, "max_length": 64}
SETTINGS = (
    Setting("mlp", *IMAGE, {"hidden": [64, 32]}, {"epochs": 10, "learning_rate": 5e-3}),
    Setting("cnn", *IMAGE, {"stages": [16, 32], "blocks": 1}, {"epochs": 6, "learning_rate": 5e-3}),
    Setting("transformer", *IMAGE, {"width": 48, "heads": 4}, {"epochs": 10, "learning_rate": 3e-3}),
    Setting("mlp", *TEXT, {"hidden": [64, 32], **WORDS}, {"epochs": 20, "learning_rate": 0.02}),
    Setting("cnn", *TEXT, {"filters": 32, **WORDS}, {"epochs": 12, "learning_rate": 0.01}),
    Setting("transformer", *TEXT, {"width": 48, "heads": 4, "vocabulary": 2000, "max_length": 64},
            {"epochs": 8, "learning_rate": 3e-3}),
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How much is done. replicas: of each setting, the first half for calibration; parents: of the other half;
    strangers, families: of the zoo; width, layers: of the encoder whose pair is timed."""

    settings: tuple[Setting, ...] = SETTINGS
    replicas: int = 46
    parents: int = 20
    chains: tuple[str, ...] = CHAINS
    strangers: int = 10
    families: int = 5
    shape: Mapping[str, int] = field(default_factory=lambda: {"width": 768, "layers": 12, "vocabulary": 32000})


QUICK = Size(
    (Setting("mlp", "digits", IMAGE[1], {"hidden": [16, 8]}, {"epochs": 1, "learning_rate": 0.01}),),
    replicas=6, parents=2, chains=("permute,rescale", "finetune:1"), strangers=1, families=2,
    shape={"width": 24, "layers": 2, "vocabulary": 100},
)  # fmt: skip


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small case without bars")
    parser.add_argument("--out", type=Path, help=f"for the tables: {OUT}, or {QUICK_OUT} with --quick")
    parser.add_argument("--runs", type=Path, default=Path("runs/lineage-validation"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    options = parser.parse_args()
    size = QUICK if options.quick else Size(tuple(one for one in SETTINGS if options.only in one.name))
    if not size.settings:
        parser.error(f"--only {options.only}: there are {', '.join(one.name for one in SETTINGS)}")
    # Before any process is made: each takes the variables over, and numpy reads them when it is imported.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    found: dict[str, list[Row]] = {"validity": [], "power": [], "zoo": [], "models": []}
    seconds = 0.0
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for setting in size.settings:
            kept = kept_or_measured(setting, size, options.runs, pool)
            seconds += kept["seconds"]
            for name, rows in kept["tables"].items():
                found[name] += rows
    found["cost"] = [lineage_cost.timed(size.shape, kin) for kin in (True, False)]
    about = facts(options, size, seconds)
    tables.write(found, about, options.out or (QUICK_OUT if options.quick else OUT))
    print(tables.page(found, about))
    missed = [row for rows in found.values() for row in rows if row.get("bar") == "MISSED"]
    return 1 if missed and not options.quick else 0


def kept_or_measured(setting: Setting, size: Size, runs: Path, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """tables: of one setting, measured by this very code or now; seconds: that it took then."""
    asked = json.dumps([asdict(setting), {**asdict(size), "settings": None}, code()], sort_keys=True)
    file = runs / "measured" / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
    if file.is_file():
        print(f"{setting.name}: as measured before", flush=True)
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    print(f"{setting.name} …", flush=True)
    began = time.perf_counter()
    found = {"tables": measured(setting, size, runs, pool), "seconds": time.perf_counter() - began}
    file.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is whole: a process that is killed leaves no half of it behind.
    part = file.with_suffix(".part")
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(file)
    print(f"{setting.name}: {found['seconds'] / 60:.1f} minutes", flush=True)
    return found


@functools.cache
def code() -> str:
    """sha256 of the harness and of this validation, whose every line may change what is measured."""
    import zoo

    folders = [Path(zoo.__file__).parent, Path(__file__).parent]
    whole = hashlib.sha256()
    for file in sorted(file for folder in folders for file in folder.rglob("*.py")):
        whole.update(file.name.encode() + file.read_bytes())
    return whole.hexdigest()


def measured(setting: Setting, size: Size, runs: Path, pool: ProcessPoolExecutor) -> dict[str, list[Row]]:
    """Everything of one setting: rows of each table, with the setting's name in front."""
    train = functools.partial(trained, setting, runs)
    folders = list(pool.map(train, range(size.replicas)))
    half = size.replicas // 2
    calibrating, reported = folders[:half], folders[half:]
    parents = reported[: size.parents]
    wanted = [(parent, how) for parent in parents for how in size.chains]
    made = dict(zip(wanted, pool.map(disguised, wanted), strict=True))
    families = [(parent, made[parent, how])
                for parent, how in zip(parents, size.chains[::-1], strict=False)][: size.families]  # fmt: skip
    # One process judges the whole zoo, and for long: it begins while the others still have pairs to compare.
    zoo = pool.submit(zoo_judged, families, strangers(families, reported, size.strangers), calibrating)
    independent = list(pool.map(compared, combinations(folders, 2), chunksize=16))
    known = set(calibrating)
    threshold = tables.threshold(row for row in independent if {row["a"], row["b"]} <= known)
    cases = [
        (parent, [(made[parent, how], how) for how in size.chains]
         + [(other, INDEPENDENT) for other in reported[place + 1 :]], calibrating)
        for place, parent in enumerate(parents)
    ]  # fmt: skip
    judged = [row for rows in pool.map(judged_with, cases) for row in rows]
    named = {"setting": setting.name}
    return {
        "models": [{**named, **described(folders)}],
        "validity": [{**named, **row} for row in tables.validity(independent)],
        "power": [{**named, **barred(row), "threshold": threshold} for row in tables.power(judged, threshold)],
        "zoo": [{**named, **zoo.result()}],
    }


def barred(row: Row) -> Row:
    """A row of the power table with the bar: AUC ≥ .99 and ≥ .95 of the derived pairs at 1 % false positives."""
    if row["kind"] == INDEPENDENT or row["auc"] is None:
        return row
    return {**row, "bar": "met" if row["auc"] >= 0.99 and (row["r3"] or 0) >= 0.95 else "MISSED"}


# What the processes do


def trained(setting: Setting, runs: Path, seed: int) -> str:
    """Train a replica, or find it. Returns its folder."""
    from rich.console import Console

    from zoo.config import Device, RunConfig, TrainerOptions
    from zoo.plugins import registry
    from zoo.run import run

    one_thread()
    dataset, task = (registry().find(kind, getattr(setting, kind)).cls() for kind in ("dataset", "task"))
    model = registry().find("model", setting.model).cls(**setting.options)
    trainer = TrainerOptions(device=Device.cpu, threads=1, **setting.trainer)
    config = RunConfig(model, dataset, task, trainer, model.name, seed=seed, runs_dir=runs, probe=0)
    return str(run(config, registry(), Console(quiet=True)).folder)


def disguised(wanted: tuple[str, str]) -> str:
    """What a chain makes of a run. Returns its folder."""
    from rich.console import Console

    from zoo.config import Device
    from zoo.disguise.publishing import Request, disguise
    from zoo.plugins import registry

    one_thread()
    folder, how = Path(wanted[0]), wanted[1]
    seed = int(folder.name[:8], 16)  # of its own for each parent, and the same every time
    request = Request(folder, how, seed, folder.parents[3], Device.cpu)
    return str(disguise(request, registry(), Console(quiet=True)).outcome.folder)


def compared(pair: tuple[str, str]) -> Row:
    """The evidence of two independent runs."""
    return row_of(evidence(*pair), pair, INDEPENDENT)


def judged_with(case: tuple[str, list[tuple[str, str]], list[str]]) -> list[Row]:
    """A run against others, each pair judged as if it were the only one, calibrated on replicas."""
    from zoo.lineage.comparison import one_error_rate
    from zoo.lineage.evidence import against_replicas, replica_scores
    from zoo.lineage.verdict import judge
    from zoo.lineage.weights import open_weights

    parent, others, replicas = case
    first = open_weights(parent)
    scores = replica_scores(first, [open_weights(path) for path in replicas])
    rows = []
    for other, kind in others:
        found = evidence(parent, other)
        if not isinstance(scores, str):
            found = against_replicas(found, first, scores, open_weights(other))
        row = row_of(found, (parent, other), kind)
        verdict = judge(found, one_error_rate({(0, 1): found})[0, 1])
        judged = {"verdict": verdict.name, "shares": verdict.shares_weights}
        rows.append({**row, **judged, "calibrated": found.calibrated is not None})
    return rows


def zoo_judged(families: Sequence[tuple[str, str]], strangers: Sequence[str], replicas: Sequence[str]) -> Row:
    """All models of a zoo against each other, one error rate over all pairs."""
    from zoo.lineage.comparison import compare
    from zoo.lineage.weights import open_weights

    kin = {frozenset(family) for family in families}
    folders = [*(folder for family in families for folder in family), *strangers]
    models = [open_weights(folder) for folder in folders]
    found = compare(models, [open_weights(path) for path in replicas], looking())
    edges = {
        frozenset((str(one.first.path), str(one.second.path))) for one in found.pairs if one.verdict.shares_weights
    }
    accuracies = [accuracy(folder) for folder in folders]
    false = len(edges - kin)
    return {
        "models": len(folders), "pairs": len(found.pairs), "families": len(kin), "families_found": len(edges & kin),
        "false_edges": false, "accuracy_from": min(accuracies), "accuracy_to": max(accuracies),
        "bar": "MISSED" if false else "met",
    }  # fmt: skip


def one_thread() -> None:
    """Leave the other cores to the other processes."""
    import torch

    torch.set_num_threads(1)


@functools.cache
def looking() -> Callable[[Any], Any]:
    """Adds R2; what was read of a data set stays in the process."""
    from zoo.lineage.dead import looking as made

    return made()


def evidence(one: str, other: str) -> Any:
    """Everything about a pair that needs no replicas, but for what tells `independent` from `undetermined`, which no
    table counts and which takes most of the time."""
    from zoo.lineage.evidence import examine
    from zoo.lineage.weights import open_weights

    one_thread()
    return looking()(examine(open_weights(one), open_weights(other), chance=False))


def row_of(found: Any, pair: tuple[str, str], kind: str) -> Row:
    """What the tables need of the evidence."""
    score = None if found.aligned is None or math.isnan(found.aligned.score) else found.aligned.score
    dead = None if found.dead is None else found.dead.p
    return {"kind": kind, "a": pair[0], "b": pair[1], "log_p_order": found.log_p_order, "p_dead": dead, "score": score}


# The zoo's strangers, and the models in a line


def accuracy(folder: str) -> float:
    """On the test split."""
    from zoo.store.reading import read

    return float(read(Path(folder), verify=False).metrics()["accuracy"]["value"])


def strangers(families: Sequence[tuple[str, str]], runs: Iterable[str], count: int) -> list[str]:
    """The runs outside the families whose accuracy is nearest to the middle of their parents'."""
    parents = [parent for parent, _ in families]
    middle = sorted(map(accuracy, parents))[len(parents) // 2]
    others = [run for run in runs if run not in parents]
    return sorted(others, key=lambda run: (abs(accuracy(run) - middle), run))[:count]


def described(folders: Sequence[str]) -> Row:
    """What the replicas of a setting are."""
    from zoo.store.reading import read

    record = read(Path(folders[0]), verify=False).record
    accuracies = sorted(map(accuracy, folders))
    return {
        "replicas": len(folders), "parameters": record["training"]["param_count"],
        "accuracy_from": accuracies[0], "accuracy_median": accuracies[len(accuracies) // 2],
        "accuracy_to": accuracies[-1], "test_examples": record["data"]["splits"]["test"]["examples"],
    }  # fmt: skip


# What is written


def facts(options: argparse.Namespace, size: Size, seconds: float) -> dict[str, Any]:
    """Versions, hardware, seeds, and how much was done. seconds: of all settings, whenever they were measured."""
    return {
        **lineage_about.about(SCRIPT, sys.argv[1:]),
        "seeds": {"replicas": f"0 to {size.replicas - 1}", "disguises": "of their parent's key"},
        "processes": options.jobs,
        "seconds": seconds,
        "replicas": size.replicas, "calibrating": size.replicas // 2, "parents": size.parents,
        "chains": list(size.chains),
        "recipes": {one.name: {"model": dict(one.options), "trainer": dict(one.trainer)} for one in size.settings},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
