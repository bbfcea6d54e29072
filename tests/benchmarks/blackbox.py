"""The black box of `zoo.lineage` put to the test, bar (d): `python tests/benchmarks/blackbox.py`.

For each model and data set, references and parents are trained that differ in their seed only. Of each parent two
students learn: one by `zoo.disguise how=distil`, from its probabilities for the training split, and one that also asks
it about mixtures of training examples (`queried`), as whoever copies a model behind an API would.

- power: students against their parents, p ≤ .05 against the references of the parent's recipe, beside the trivial
  baseline (wrong answers repeated) calibrated in the same way;
- validity: the same of parents against each other, and against the students of others;
- answers to made inputs (mixtures, noise, boundary points, shuffled words) in place of the test split's;
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
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blackbox_queries as queries
import lineage
import lineage_tables as tables
import numpy as np
from lineage import QUICK as LINEAGE_QUICK
from lineage import SETTINGS, Row, Setting
from lineage_tables import INDEPENDENT

LEVEL = 0.05
POWER = 0.8
KINDS = ("distil", "queried")
ANOTHERS = "student of another"


@dataclass(frozen=True)
class Size:
    """How much is done. references: of each setting; parents: others, each with its students; elsewhere: references
    that were trained on other data; inputs: of each made probe; queries: mixtures that a student asks about, for each
    example of the training split."""

    settings: tuple[Setting, ...]
    references: int = 120
    parents: int = 20
    elsewhere: int = 60
    inputs: int = 500
    queries: int = 4


@dataclass(frozen=True)
class Made:
    """Folders of what was trained. students: kind → one for each parent, in their order; scout: one more reference,
    which is never compared: boundary points are its."""

    references: tuple[str, ...]
    parents: tuple[str, ...]
    students: Mapping[str, tuple[str, ...]]
    elsewhere: tuple[str, ...]
    scout: str


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
    rows = judged(made, of_test, "test split")
    verdicts = verdicts_of(made, pool)
    for row in rows:
        row |= tables.named("verdict", verdicts.get(row["kind"], {"value": None, "low": None, "high": None, "n": 0}))
    folders = everything(made)
    inputs = pool.submit(queries.inputs, made.scout, size.inputs).result()
    asked = list(pool.map(queries.asked, [(folder, inputs) for folder in folders]))
    for name, examples in inputs.items():
        if len(examples) >= 4:
            answers = dict(zip(folders, queries.stacked(asked, name), strict=True))
            rows += judged(made, Answered(answers, None), name)
    return {
        "power": [barred(row, size) for row in rows],
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


@dataclass(frozen=True)
class Answered:
    """logits: folder → (examples, classes); labels: (examples,), None where there is no truth."""

    logits: Mapping[str, np.ndarray]
    labels: np.ndarray | None


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


# What is counted


def judged(made: Made, answers: Answered, probe: str) -> list[Row]:
    """A row for each kind of pair: rates of p ≤ .05 of the residual correlation (b2) and of the baseline (b1), AUCs."""
    pairs = {kind: list(zip(made.parents, made.students[kind], strict=True)) for kind in KINDS}
    pairs[INDEPENDENT] = [(one, two) for one in made.parents for two in made.parents if one != two]
    pairs[ANOTHERS] = [
        (parent, student) for place, parent in enumerate(made.parents) for kind in KINDS
        for other, student in enumerate(made.students[kind]) if other != place
    ]  # fmt: skip
    b2 = {kind: _tested(own, _residuals(answers, made.references), made.references) for kind, own in pairs.items()}
    b1 = {kind: _tested(own, _repeats(answers), made.references) for kind, own in pairs.items()}
    return [
        {
            "probe": probe, "kind": kind, "pairs": len(own), "same_answer": _agreement(own, answers),
            **tables.named("b2", _rejected(b2[kind])), **tables.named("b1", _rejected(b1[kind])),
            "b2_auc": _auc(b2, kind), "b1_auc": _auc(b1, kind),
        }
        for kind, own in pairs.items()
    ]  # fmt: skip


Likeness = Any
"""(suspect, trained) folders → a number, the higher the more alike; None where there is none."""


def _residuals(answers: Answered, references: Sequence[str]) -> Likeness:
    from zoo.lineage import blackbox

    common, _ = blackbox.halves(len(references))
    background = blackbox.background(np.stack([answers.logits[references[place]] for place in common]))
    left: dict[str, np.ndarray] = {}

    def likeness(suspect: str, trained: str) -> float:
        for one in (suspect, trained):
            if one not in left:
                left[one] = blackbox.residuals(answers.logits[one][None], background)[0]
        return float(left[suspect] @ left[trained])

    return likeness


def _repeats(answers: Answered) -> Likeness:
    from zoo.lineage import blackbox

    def repeated(suspect: str, trained: str) -> float | None:
        if answers.labels is None:
            return None
        classes = (answers.logits[one].argmax(1) for one in (trained, suspect))
        return blackbox.repeated_errors(answers.labels, *classes).value

    return functools.lru_cache(maxsize=None)(repeated)


def _tested(pairs: Sequence[tuple[str, str]], likeness: Likeness, references: Sequence[str]) -> list[Row]:
    """Score and p-value of each pair (trained, suspect); both are None where there is no score."""
    from zoo.lineage import blackbox

    _, calibrating = blackbox.halves(len(references))
    rows = []
    for trained, suspect in pairs:
        score = likeness(suspect, trained)
        others = [likeness(suspect, references[place]) for place in calibrating]
        known = score is not None and None not in others
        rows.append({"score": score, "p": blackbox.conformal(score, others) if known else None})
    return rows


def _rejected(rows: Sequence[Row]) -> Row:
    ps = [row["p"] for row in rows if row["p"] is not None]
    return tables.proportion(sum(p <= LEVEL for p in ps), len(ps))


def _auc(rows: Mapping[str, Sequence[Row]], kind: str) -> float | None:
    """Of the raw scores of parents and their students against those of all that are not."""
    positive = [row["score"] for row in rows[kind] if row["score"] is not None]
    negative = [row["score"] for other in (INDEPENDENT, ANOTHERS) for row in rows[other] if row["score"] is not None]
    return tables.auc(positive, negative) if kind in KINDS and positive and negative else None


def _agreement(pairs: Sequence[tuple[str, str]], answers: Answered) -> float:
    """Mean share of examples on which the two give one class."""
    said = {folder: logits.argmax(1) for folder, logits in answers.logits.items()}
    return float(np.mean([(said[one] == said[two]).mean() for one, two in pairs]))


def elsewhere(made: Made, answers: Answered) -> list[Row]:
    """How many parents, which never saw each other, would be kin by references of the same and of other data."""
    strangers = [(one, two) for one in made.parents for two in made.parents if one != two]
    rows = []
    for data, references in (("the same", made.references), ("half of it", made.elsewhere)):
        tested = _tested(strangers, _residuals(answers, references), references)
        rows.append({"references": len(references), "trained_on": data, **tables.named("kin", _rejected(tested))})
    return rows


def barred(row: Row, size: Size) -> Row:
    """A row with the bar: TPR ≥ .8 at 5 % false positives with ≥ 99 references, and more than the baseline; false
    positives not above 5 % by more than chance explains."""
    if row["b2"] is None or row["probe"] != "test split":
        return row
    if row["kind"] in KINDS:
        met = row["b2"] >= POWER and size.references >= 99 and (row["b2"], row["b2_auc"]) > (row["b1"], row["b1_auc"])
    else:
        met = row["b2_low"] <= LEVEL
    return {**row, "bar": "met" if met else "MISSED"}


# What is written

HEADS = {"models": "Models", "power": "Power and validity", "elsewhere": "References of other data"}
NOTES = {
    "power": "b2: share of pairs with p ≤ .05 by the residual correlation; b1: by the rate of wrong answers repeated, "
    "calibrated on the same references. same answer: mean share of examples on which the two agree, which tells how "
    "much of a copy a student is. AUC: of the raw numbers against those of all pairs that are no kin. verdict: share "
    "called behaviourally derived by `zoo.lineage answers=true`, each pair as if it were the only one. Independent "
    "pairs and students of others are false positives; such pairs share models and so depend on each other, which the "
    "intervals (Clopper-Pearson, 95 %) do not know. Bars are of the test split alone; made inputs have no true class, "
    "hence no b1.",
    "elsewhere": "Independent parents called kin at p ≤ .05. The command refuses references of other data: this is "
    "why.",
}  # fmt: skip


def facts(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Versions, hardware, and how much was done."""
    import platform

    import scipy
    import torch

    import zoo
    from zoo.engine.devices import hardware

    return {
        "command": ["python", "tests/benchmarks/blackbox.py", *sys.argv[1:]],
        "versions": {"python": platform.python_version(), "zoo-harness": zoo.__version__, "torch": torch.__version__,
                     "numpy": np.__version__, "scipy": scipy.__version__},
        "hardware": hardware(), "processes": options.jobs,
        "references": size.references, "parents": size.parents, "elsewhere": size.elsewhere, "inputs": size.inputs,
        "queries": size.queries,
        "recipes": {one.name: {"model": dict(one.options), "trainer": dict(one.trainer)} for one in size.settings},
    }  # fmt: skip


def page(found: Mapping[str, Sequence[Row]], about: Mapping[str, Any]) -> str:
    """The write-up."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    machine = about["hardware"]
    lines = [
        "# Validation of lineage: (d), the black box\n",
        f"`{' '.join(about['command'])}`\n",
        f"{versions}; {machine['cpu']}, {machine['cores']} cores, {about['processes']} processes of one thread; "
        f"{about['seconds'] / 60:.0f} minutes with what was already there.\n",
        f"{about['references']} references of each setting, one half of which calibrates, and {about['parents']} "
        f"parents, all of one recipe and data with seeds of their own. A queried student asks about "
        f"{about['queries']} mixtures for each training example.\n",
    ]
    for name, head in HEADS.items():
        lines += [f"## {head}\n", tables.as_markdown(found[name])]
        lines += [NOTES[name] + "\n"] if name in NOTES else []
    return "\n".join(lines)


def write(found: Mapping[str, Sequence[Row]], about: Mapping[str, Any], out: Path) -> None:
    """blackbox.md, blackbox.json and a CSV for each table."""
    import json

    out.mkdir(parents=True, exist_ok=True)
    (out / "blackbox.md").write_text(page(found, about), encoding="utf-8")
    text = json.dumps({"about": about, **found}, indent=2, ensure_ascii=False) + "\n"
    (out / "blackbox.json").write_text(text, encoding="utf-8")
    for name, rows in found.items():
        (out / f"blackbox_{name}.csv").write_text(tables.as_csv(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
