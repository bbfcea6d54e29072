"""Do the 95 % intervals of a report's first page cover what is true?

`python tests/benchmarks/interval_coverage.py [--out reports/coverage]`

Panels are drawn from populations whose likeness is known (`coverage_panels.py`), and the numbers of the first page are
computed from each by the functions that a report calls. Counted is how often what the page says holds: its interval,
its bound "at least", or nothing, where it says that there are too few failures for an interval.

Every cell has seeds of its own and is kept in `--work` when it is done, until the plan changes: the same command again
does what is missing, and `--again NUMBER,...` what other code has measured.
The two numbers of classes share which answers are right, so that only the vote, which reads the answers, differs.
Exits with 1 when what the page says holds in less than .92 of a cell's panels or, of intervals, in more than .98.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from coverage_panels import KINDS, Population, panel_of, truths, wrong_answers

from zoo.homogeneity import failures, selection
from zoo.homogeneity.bootstrap import FEW_EVENTS, Bootstrap, mean_interval
from zoo.homogeneity.headline import Estimate, failure_shares, headline
from zoo.homogeneity.results import Pairs, Scalar
from zoo.homogeneity.simulate import SimulatedPanel

SCRIPT = "tests/benchmarks/interval_coverage.py"
OUT, WORK = Path("reports/coverage"), Path("runs/coverage")
LOW, HIGH = 0.92, 0.98
MORE = 4
EXAMPLES, ACCURACIES, RUNS, MODELS = (200, 1000), (0.6, 0.95), (1, 3, 5), (4, 10, 30)
NUMBERS = (
    "effective_models", "joint_failure", "most_alike", "least_alike", "best_accuracy", "failed_by_all",
    "one_is_right", "vote_gain_2", "vote_gain_10",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """panels: a cell; draws: of the bootstrap, an interval."""

    panels: int = 600
    draws: int = 400

    def key(self, population: Population) -> str:
        """A name for the cell that changes with anything that its numbers depend on but the code."""
        words = json.dumps([asdict(population), asdict(self)], sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()[:16]


def cells() -> list[Population]:
    """One a cell, of ten classes; the vote of two is taken from the same right and wrong."""
    found = itertools.product(KINDS, EXAMPLES, ACCURACIES, RUNS, MODELS)
    return [Population(kind, n, accuracy, runs, models) for kind, n, accuracy, runs, models in found]


def pairs_of(panel: SimulatedPanel, kinship: bool) -> Pairs:
    """The values of all pairs as the measure has them, without its draws, which the chosen pair does not need."""
    models, examples = len(panel.models), len(panel.labels)
    runs = selection._Runs.of(panel)
    first, second = np.triu_indices(models, k=1)
    value = np.full((models, models), np.nan)
    usable = runs.usable[first] & runs.usable[second]
    chosen = np.stack([first, second], axis=1)[usable]
    with np.errstate(divide="ignore", invalid="ignore"):
        top, _, bottom, _ = runs.ratios(chosen, kinship)
        value[first[usable], second[usable]] = top / bottom
    blank = np.full_like(value, np.nan)
    return Pairs(np.triu(value, 1) + np.triu(value, 1).T, blank, blank, np.full((models, models), examples))


Numbers = dict[str, Estimate | Scalar]


def _of_headline(panel: SimulatedPanel, plan: Bootstrap) -> Numbers:
    found = headline(panel, plan)
    return {"effective_models": found.effective_models, "joint_failure": found.joint_failure}


def _of_pairs(panel: SimulatedPanel, plan: Bootstrap) -> Numbers:
    kinship = len(panel.runs) > len(panel.models)
    with np.errstate(invalid="ignore"):
        found = selection.extreme_pairs(panel, pairs_of(panel, kinship), kinship, plan)
    nothing = Scalar(None, None, None, len(panel.labels))
    most, least = [*(pair.number for pair in found), nothing, nothing][:2]
    return {"most_alike": most, "least_alike": least}


def _of_best(panel: SimulatedPanel, plan: Bootstrap) -> Numbers:
    return {"best_accuracy": selection.best_accuracy(panel, plan)[1]}


def _of_all(panel: SimulatedPanel, plan: Bootstrap) -> Numbers:
    together = failure_shares(panel).prod(axis=0)
    low, high = (float(end) for end in mean_interval(together, plan))
    share, n = float(together.mean()), len(together)
    return {"failed_by_all": Scalar(share, low, high, n), "one_is_right": Scalar(1 - share, 1 - high, 1 - low, n)}


def measure(population: Population, plan: Plan, names: Sequence[str] = NUMBERS) -> dict[str, list[list[float | None]]]:
    """Number -> [value, low, high] of every panel; a bound has no high, and too few failures neither."""
    bootstrap = Bootstrap(draws=plan.draws)
    found: dict[str, list[list[float | None]]] = {name: [] for name in names}
    words = [KINDS.index(population.kind), population.examples, int(population.accuracy * 100)]
    random = np.random.default_rng([*words, population.runs, population.models])
    parts = [(_of_headline, NUMBERS[:2]), (_of_pairs, NUMBERS[2:4]), (_of_best, NUMBERS[4:5]), (_of_all, NUMBERS[5:7])]
    for _ in range(plan.panels):
        wrong = wrong_answers(population, random)
        panel = panel_of(wrong, population, random)
        fewer = panel_of(wrong, replace(population, classes=2), random)
        told: Numbers = {}
        for part, of in parts:
            told |= part(panel, bootstrap) if set(of) & found.keys() else {}
        for name, voters in (("vote_gain_2", fewer), ("vote_gain_10", panel)):
            told |= {name: failures.vote_gain(voters, bootstrap)} if name in found else {}
        for name in names:
            found[name].append([told[name].value, told[name].low, told[name].high])
    return found


def truth_of(name: str, population: Population) -> float:
    """What the interval should hold."""
    if name.startswith("vote_gain"):
        return truths(replace(population, classes=int(name.rpartition("_")[2]))).vote_gain
    true = truths(population)
    return {
        "effective_models": true.effective_models,
        "joint_failure": true.joint_failure,
        "most_alike": true.alike,
        "least_alike": true.alike,
        "best_accuracy": population.accuracy,
        "failed_by_all": true.together,
        "one_is_right": 1 - true.together,
    }[name]


def row(name: str, population: Population, found: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """One line of the table. covered: of the panels with an interval; held: of those with an interval or a bound;
    exact: whether the number is the true one in every panel, as some are of copies."""
    true = truth_of(name, population)
    value, low, high = np.array(found, dtype=np.float64).T
    bounded, shown = np.isfinite(low) & np.isnan(high), np.isfinite(low) & np.isfinite(high)
    if name in (
        "failed_by_all",
        "one_is_right",
        "best_accuracy",
    ):  # of few events the interval is wider than it need be
        few = shown & (np.minimum(value, 1 - value) * population.examples < FEW_EVENTS)
        bounded, shown = bounded | few, shown & ~few
    inside = (low - 1e-9 <= true) & (np.isnan(high) | (true <= high + 1e-9))
    known = value[np.isfinite(value)]
    exact = population.kind == "copies" and bool(len(known)) and bool(np.abs(known - true).max() < 1e-6)
    said = shown | bounded
    return {
        "number": name, "kind": population.kind, "n": population.examples, "accuracy": population.accuracy,
        "runs": population.runs, "models": population.models, "truth": true, "panels": len(value),
        "bias": float(known.mean() - true) if len(known) else None,
        "interval": float(shown.mean()), "bound": float(bounded.mean()), "none": float(1 - said.mean()),
        "covered": float(inside[shown].mean()) if shown.any() else None,
        "bound_holds": float(inside[bounded].mean()) if bounded.any() else None,
        "held": float(inside[said].mean()) if said.any() else None,
        "width": float((high - low)[shown].mean()) if shown.any() else None,
        "exact": exact,
    }  # fmt: skip


def missed(line: dict[str, Any]) -> bool:
    """Whether what the page says holds too rarely or, where it is an interval in most panels, too often. A bound may
    hold always: it is exact, and one-sided. What the page says in few panels only was chosen by their luck."""
    if line["exact"] or line["none"] > 0.5:
        return False
    return line["held"] < LOW or (line["interval"] > 0.5 and line["held"] > HIGH)


def commit() -> str:
    """Of the code that runs, with a word when it was changed since."""
    told = [
        subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "zoo", "tests/benchmarks"])
    ]
    return f"{told[0]} with changes" if told[1] else told[0]


def about(plan: Plan, command: Sequence[str], kept: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How the table came about. kept: what each cell left."""
    import platform

    import scipy
    import torch

    commits = {name: ", ".join(sorted({cell["commits"][name] for cell in kept})) for name in NUMBERS}
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    return {
        "command": " ".join(["python", SCRIPT, *command]), **asdict(plan),
        "commits": commits, "versions": versions | {"torch": torch.__version__},
        "processor_seconds": round(sum(cell["seconds"] for cell in kept)),
    }  # fmt: skip


def run(
    chosen: Sequence[Population], plan: Plan, work: Path, share: tuple[int, int] = (0, 1), again: Sequence[str] = ()
) -> None:
    """Measure the cells that are missing, and these numbers again where other code measured them. share: (i, n), every
    n-th cell from the i-th."""
    work.mkdir(parents=True, exist_ok=True)
    now = commit()
    for population in chosen[share[0] :: share[1]]:
        file = work / f"{plan.key(population)}.json"
        kept = json.loads(file.read_text()) if file.exists() else {"found": {}, "commits": {}, "seconds": 0.0}
        names = [
            name for name in NUMBERS if name not in kept["found"] or (name in again and kept["commits"][name] != now)
        ]
        if not names:
            continue
        start = time.process_time()
        kept["found"] |= measure(population, plan, names)
        kept["commits"] |= dict.fromkeys(names, now)
        kept["seconds"] += time.process_time() - start
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"population": asdict(population), **kept}))
        part.rename(file)
        print(f"{population}: {time.process_time() - start:.1f} s", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Run and write. Returns 1 when a bar is missed or a cell is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=WORK, help="where finished cells are kept")
    parser.add_argument("--panels", type=int, default=Plan.panels)
    parser.add_argument("--draws", type=int, default=Plan.draws)
    parser.add_argument("--again", default="", help="numbers that are measured again where other code measured them")
    parser.add_argument("--share", default="0/1", help="i/n: only every n-th cell from the i-th, and no table")
    asked = parser.parse_args(words)
    plan, (part, parts) = Plan(asked.panels, asked.draws), (int(word) for word in asked.share.split("/"))
    run(cells(), plan, asked.work, (part, parts), asked.again.split(","))
    if parts > 1:
        return 0
    import coverage_tables

    lines, kept = rows(cells(), plan, asked.work)
    # By chance alone some of a thousand rows are outside: there the same stream of panels goes on.
    doubtful = [cell for cell in cells() if any(missed(line) for line in lines if of_cell(line) == cell)]
    longer = replace(plan, panels=MORE * plan.panels)
    run(doubtful, longer, asked.work)
    more, others = rows(doubtful, longer, asked.work)
    lines = [line for cell in cells() for line in (more if cell in doubtful else lines) if of_cell(line) == cell]
    bad = [line for line in lines if missed(line)]
    told = about(plan, [f"--panels {plan.panels}", f"--draws {plan.draws}"], kept)
    told |= {"cells_with_more": [asdict(cell) for cell in doubtful], "more": longer.panels}
    told |= {"commits_of_more": about(longer, [], others)["commits"]} if others else {}
    coverage_tables.write(asked.out, lines, told, bad)
    print(f"{len(lines)} rows, {len(bad)} outside {LOW}-{HIGH}. Table: {asked.out}")
    return 1 if bad else 0


def rows(chosen: Sequence[Population], plan: Plan, work: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of the table of these cells, and what the cells left."""
    kept = [json.loads((work / f"{plan.key(cell)}.json").read_text()) for cell in chosen]
    found = zip(chosen, kept, strict=True)
    return [row(name, cell, left["found"][name]) for cell, left in found for name in NUMBERS], kept


def of_cell(line: dict[str, Any]) -> Population:
    """The cell of a line."""
    return Population(line["kind"], line["n"], line["accuracy"], line["runs"], line["models"])


if __name__ == "__main__":
    sys.exit(main())
