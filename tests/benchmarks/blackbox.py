"""The black box of `zoo.lineage` put to the test, bar (d): `python tests/benchmarks/blackbox.py`.

For each model and data set, references and parents are trained that differ in their seed only. Of each parent two
students learn: one by `zoo.disguise how=distil`, from its probabilities for the training split, and one that also asks
it about mixtures of training examples (`queried`), as whoever copies a model behind an API would.

- power: students against their parents, p ≤ .05 against the references of the parent's recipe, beside the trivial
  baseline (wrong answers repeated) calibrated in the same way;
- validity: the same of parents against each other, and against the students of others;
- answers to other inputs (mixtures, noise, boundary points, shuffled words, training examples) in place of the test
  split's, and to all of them together, as `zoo.ask` puts them;
- references that were trained on other data, which the command refuses: how many strangers they would make kin.

Runs are trained in processes of one thread each and are kept in `--runs`: the same command again does what is missing.
Nothing is tuned here: a p-value is a rank among references. Exits with 1 when the bar is missed. `--quick` only shows
that it works.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blackbox_queries as queries
import lineage
import lineage_about
import lineage_tables as tables
import numpy as np
from blackbox_tables import (
    EVERYTHING,
    KINDS,
    TEST,
    Answered,
    Made,
    barred,
    elsewhere,
    judged,
    page,
    with_baseline,
    write,
)
from lineage import QUICK as LINEAGE_QUICK
from lineage import SETTINGS, Row, Setting
from lineage_tables import INDEPENDENT


@dataclass(frozen=True)
class Size:
    """How much is done. references: of each setting; parents: others, each with its students; elsewhere: references
    that were trained on other data; inputs: of each made probe; queries: mixtures that a student asks about, for each
    example of the training split."""

    settings: tuple[Setting, ...]
    references: int = 120
    parents: int = 20
    elsewhere: int = 39
    inputs: int = 500
    queries: int = 4


QUICK = Size(LINEAGE_QUICK.settings, references=6, parents=3, elsewhere=4, inputs=20, queries=1)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small case without bars")
    parser.add_argument("--out", type=Path, default=Path("reports/lineage-validation"))
    parser.add_argument("--runs", type=Path, default=Path("runs/lineage-validation"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    parser.add_argument("--only", default="", help="settings whose names contain one of these, with commas between")
    options = parser.parse_args()
    chosen = tuple(one for one in SETTINGS if any(part in one.name for part in options.only.split(",")))
    size = QUICK if options.quick else Size(chosen)
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    began = time.perf_counter()
    found: dict[str, list[Row]] = {"power": [], "elsewhere": [], "models": []}
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for setting in size.settings:
            print(f"{setting.name} …", flush=True)
            for name, rows in measured(setting, size, options.runs, pool).items():
                found[name] += [{"setting": setting.name, **row} for row in rows]
    about = {**facts(options, size), "seconds": time.perf_counter() - began}
    write(found, about, options.out)
    print(page(found, about))
    missed = [row for rows in found.values() for row in rows if row.get("bar") == "MISSED"]
    return 1 if missed and not options.quick else 0


def measured(setting: Setting, size: Size, runs: Path, pool: ProcessPoolExecutor) -> dict[str, list[Row]]:
    """Everything of one setting: rows of each table."""
    began = time.perf_counter()
    made = trained(setting, size, runs, pool)
    seconds = time.perf_counter() - began
    of_test = pool.submit(answered, made).result()
    rows = judged(made, of_test, TEST)
    verdicts = verdicts_of(made, pool)
    for row in rows:
        row |= tables.named("verdict", verdicts.get(row["kind"], {"value": None, "low": None, "high": None, "n": 0}))
    folders = everything(made)
    inputs = pool.submit(queries.inputs, made.scout, size.inputs).result()
    asked = list(pool.map(queries.asked, [(folder, inputs) for folder in folders]))
    probes = {name: queries.stacked(asked, name) for name, examples in inputs.items() if len(examples) >= 4}
    for name, logits in probes.items():
        rows += judged(made, Answered(dict(zip(folders, logits, strict=True)), None), name)
    every = [np.stack([of_test.logits[folder] for folder in folders]), *probes.values()]
    kinds = np.repeat(np.arange(len(every)), [part.shape[1] for part in every])
    together = dict(zip(folders, np.concatenate(every, axis=1), strict=True))
    rows += judged(made, Answered(together, None, kinds), EVERYTHING)
    return {
        "power": [barred(row, size.references) for row in with_baseline(rows)],
        "elsewhere": elsewhere(made, of_test),
        "models": [{**lineage.described(made.references), "training_seconds": seconds}],
    }


# What the processes do


def trained(setting: Setting, size: Size, runs: Path, pool: ProcessPoolExecutor) -> Made:
    """All models of a setting, or what is there of them."""
    count = size.references + size.parents + 1
    folders = list(pool.map(functools.partial(lineage.trained, setting, runs), range(count)))
    parents, scout = folders[size.references : -1], folders[-1]
    others = pool.map(functools.partial(trained_elsewhere, setting, runs), range(count, count + size.elsewhere))
    students = {
        "distil": tuple(pool.map(lineage.disguised, [(parent, "distil") for parent in parents])),
        "queried": tuple(pool.map(queries.queried, [(parent, size.queries) for parent in parents])),
    }
    return Made(tuple(folders[: size.references]), tuple(parents), students, tuple(others), scout)


def trained_elsewhere(setting: Setting, runs: Path, seed: int) -> str:
    """A training of the same recipe on other data: half of the training split. Returns its folder."""
    from zoo.config import Device, RunConfig, TrainerOptions
    from zoo.plugins import registry
    from zoo.run import run

    lineage.one_thread()
    dataset, task = (registry().find(kind, getattr(setting, kind)).cls() for kind in ("dataset", "task"))
    model = registry().find("model", setting.model).cls(**setting.options)
    trainer = TrainerOptions(device=Device.cpu, threads=1, **setting.trainer)
    half = queries.elsewhere(dataset)
    config = RunConfig(model, half, task, trainer, model.name, seed=seed, runs_dir=runs, probe=0)
    return str(run(config, registry(), queries.quiet()).folder)


def everything(made: Made) -> list[str]:
    """All folders but those of references of other data."""
    return [*made.references, *made.parents, *(folder for kind in KINDS for folder in made.students[kind])]


def answered(made: Made) -> Answered:
    """What all runs answered on the test split, joined by example."""
    from zoo.lineage.answers import Answers, align, read_answers

    folders = [*everything(made), *made.elsewhere]
    read = [read_answers(folder) for folder in folders]
    joined = align([one for one in read if isinstance(one, Answers)])
    assert not isinstance(joined, str), joined
    return Answered(dict(zip(folders, joined.logits, strict=True)), joined.labels)


def verdicts_of(made: Made, pool: ProcessPoolExecutor) -> dict[str, dict[str, Any]]:
    """How many pairs the command would call behaviourally derived, each as if it were the only one, by kind."""
    parents = made.parents
    pairs = {kind: list(zip(parents, made.students[kind], strict=True)) for kind in KINDS}
    pairs[INDEPENDENT] = list(zip(parents, [*parents[1:], parents[0]], strict=True))
    wanted = [(kind, pair) for kind, own in pairs.items() for pair in own]
    derived = list(pool.map(functools.partial(is_derived, made.references), [pair for _, pair in wanted], chunksize=4))
    told: dict[str, list[bool]] = {}
    for (kind, _), one in zip(wanted, derived, strict=True):
        told.setdefault(kind, []).append(one)
    return {kind: tables.proportion(sum(outcomes), len(outcomes)) for kind, outcomes in told.items()}


def is_derived(references: tuple[str, ...], pair: tuple[str, str]) -> bool:
    """Whether the answers of a pair alone make it behaviourally derived."""
    from zoo.lineage.answers import compare_answers, read_answers
    from zoo.lineage.behaviour import judge_answers

    lineage.one_thread()
    found = compare_answers(read_answers(pair[0]), read_answers(pair[1]), _read(references))
    p = found.decisive.residual.p if found.decisive is not None else 1.0
    return judge_answers(found, p).name == "behaviourally derived"


@functools.lru_cache(maxsize=1)
def _read(folders: tuple[str, ...]) -> list[Any]:
    from zoo.lineage.answers import read_answers

    return [read_answers(folder) for folder in folders]


def facts(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Versions, hardware, and how much was done."""
    return {
        **lineage_about.about("tests/benchmarks/blackbox.py", sys.argv[1:]), "processes": options.jobs,
        "references": size.references, "parents": size.parents, "elsewhere": size.elsewhere, "inputs": size.inputs,
        "queries": size.queries,
        "recipes": {one.name: {"model": dict(one.options), "trainer": dict(one.trainer)} for one in size.settings},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
