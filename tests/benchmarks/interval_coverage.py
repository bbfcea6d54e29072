"""Do the 95 % intervals of a report's first page cover what is true?

`python tests/benchmarks/interval_coverage.py [--out reports/coverage]`

Panels are drawn from populations whose likeness is known (`coverage_panels.py`), and the numbers of the first page are
computed from each by the functions that a report calls. Counted is how often what the page says holds: its interval,
its bound "at least", or nothing, where it says that there are too few failures for an interval.

Every cell has seeds of its own and is kept in `--work` when it is done, until the plan changes: the same command again
does what is missing, and `--again NUMBER,...` what other code has measured.
The two numbers of classes share which answers are right, so that only the vote, which reads the answers, differs.
Exits with 1 when a row misses its bar (`missed`).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from coverage_panels import KINDS, Population, Truths, panel_of, truths, wrong_answers

from zoo.homogeneity import failures, leaderboard, selection
from zoo.homogeneity.bootstrap import FEW_EVENTS, Bootstrap, mean_interval
from zoo.homogeneity.headline import Estimate, failure_shares, headline
from zoo.homogeneity.results import Pairs, Scalar
from zoo.homogeneity.simulate import SimulatedPanel

SCRIPT = "tests/benchmarks/interval_coverage.py"
OUT, WORK = Path("reports/coverage"), Path("runs/coverage")
LOW, HIGH = 0.92, 0.98
FEW = 0.5
MORE = 4
EXAMPLES, ACCURACIES, RUNS, MODELS = (200, 1000), (0.6, 0.95), (1, 3, 5), (2, 3, 4, 10, 30)
SPREADS = {0.6: 0.1, 0.95: 0.04}
"""Accuracy in the middle -> how far the best and the worst model are from it where models differ."""
UNEQUAL = (1, 3), (2, 4, 10)
"""Runs and models of the cells where they differ."""
WEAK = (0.1,), (1, 3), (2, 4)
"""Accuracies, runs and models of the cells where right answers are rare."""
NUMBERS = (
    "effective_models", "joint_failure", "most_alike", "least_alike", "best_accuracy", "failed_by_all",
    "one_is_right", "vote_gain_2", "vote_gain_10",
)  # fmt: skip


SHARES = ("best_accuracy", "failed_by_all", "one_is_right")
"""Numbers with two ends in every panel: of few events they are wider than need be, and the page says so beside them."""


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
    unequal = [kind for kind in KINDS if kind != "copies"]
    found = [
        *itertools.product(KINDS, EXAMPLES, ACCURACIES, RUNS, MODELS, [0.0]),
        *itertools.product(KINDS, EXAMPLES, *WEAK, [0.0]),
        *((*cell, SPREADS[cell[2]]) for cell in itertools.product(unequal, EXAMPLES, SPREADS, *UNEQUAL)),
    ]
    return [
        Population(kind, n, accuracy, runs, models, spread=spread) for kind, n, accuracy, runs, models, spread in found
    ]


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


Numbers = dict[str, tuple[Estimate | Scalar, float]]
"""Name -> what is said, and what is true of it: of the pair or the model that is named, where one is."""


def _of_headline(panel: SimulatedPanel, true: Truths, plan: Bootstrap) -> Numbers:
    found = headline(panel, plan)
    return {
        "effective_models": (found.effective_models, true.effective_models),
        "joint_failure": (found.joint_failure, true.joint_failure),
    }


def _of_pairs(panel: SimulatedPanel, true: Truths, plan: Bootstrap) -> Numbers:
    kinship = len(panel.runs) > len(panel.models)
    with np.errstate(invalid="ignore"):
        found = selection.extreme_pairs(panel, pairs_of(panel, kinship), kinship, plan)
    nothing = Scalar(None, None, None, len(panel.labels)), math.nan
    most, least = [*((pair.number, float(true.alike[pair.a, pair.b])) for pair in found), nothing, nothing][:2]
    return {"most_alike": most, "least_alike": least}


def _of_best(panel: SimulatedPanel, population: Population, plan: Bootstrap) -> Numbers:
    best, number = selection.best_accuracy(panel, plan)
    return {"best_accuracy": (number, float(population.accuracies()[best]))}


def _of_all(panel: SimulatedPanel, true: Truths, plan: Bootstrap) -> Numbers:
    together = failure_shares(panel).prod(axis=0)
    low, high = (float(end) for end in mean_interval(together, plan))
    share, n = float(together.mean()), len(together)
    return {
        "failed_by_all": (Scalar(share, low, high, n), true.together),
        "one_is_right": (Scalar(1 - share, 1 - high, 1 - low, n), 1 - true.together),
    }


def _of_vote(panel: SimulatedPanel, population: Population, plan: Bootstrap) -> Numbers:
    best = population.accuracies()[leaderboard.best_model(panel)]
    name = f"vote_gain_{population.classes}"
    return {name: (failures.vote_gain(panel, plan), truths(population).vote - float(best))}


Found = dict[str, list[list[float | None]]]
"""Number -> [value, low, high, truth] of every panel; a bound has no high, and too few failures neither."""


def measure(population: Population, plan: Plan, names: Sequence[str] = NUMBERS) -> Found:
    """These numbers of every panel of the cell."""
    bootstrap = Bootstrap(draws=plan.draws)
    found: Found = {name: [] for name in names}
    words = [KINDS.index(population.kind), population.examples, int(population.accuracy * 100)]
    random = np.random.default_rng([*words, population.runs, population.models, *([1] if population.spread else [])])
    fewer, true = replace(population, classes=2), truths(population)
    for _ in range(plan.panels):
        wrong = wrong_answers(population, random)
        panel = panel_of(wrong, population, random)
        of_two = panel_of(wrong, fewer, random)
        parts: list[tuple[tuple[str, ...], Callable[..., Numbers], tuple[Any, ...]]] = [
            (NUMBERS[:2], _of_headline, (panel, true)),
            (NUMBERS[2:4], _of_pairs, (panel, true)),
            (NUMBERS[4:5], _of_best, (panel, population)),
            (NUMBERS[5:7], _of_all, (panel, true)),
            (NUMBERS[7:8], _of_vote, (of_two, fewer)),
            (NUMBERS[8:9], _of_vote, (panel, population)),
        ]
        said: Numbers = {}
        for part, of, given in parts:
            said |= of(*given, bootstrap) if set(part) & found.keys() else {}
        for name in names:
            number, truth = said[name]
            found[name].append([number.value, number.low, number.high, truth])
    return found


def row(name: str, population: Population, found: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """One line of the table. covered: of the panels with an interval; held: of those with an interval or a bound;
    truth: their mean, which differ where the pair or the model named does; exact: whether the number is the true one
    in every panel, as some are of copies."""
    value, low, high, true = np.array(found, dtype=np.float64).T
    bounded, shown = np.isfinite(low) & np.isnan(high), np.isfinite(low) & np.isfinite(high)
    if name in SHARES:  # of few events the interval is wider than it need be
        few = shown & (np.minimum(value, 1 - value) * population.examples < FEW_EVENTS)
        bounded, shown = bounded | few, shown & ~few
    inside = (low - 1e-9 <= true) & (np.isnan(high) | (true <= high + 1e-9))
    away = (value - true)[np.isfinite(value)]
    exact = population.kind == "copies" and bool(len(away)) and bool(np.abs(away).max() < 1e-6)
    said = shown | bounded
    return {
        "number": name, "kind": population.kind, "n": population.examples, "accuracy": population.accuracy,
        "spread": population.spread, "runs": population.runs, "models": population.models,
        "truth": float(true[np.isfinite(true)].mean()) if np.isfinite(true).any() else None,
        "panels": len(value), "bias": float(away.mean()) if len(away) else None,
        "interval": float(shown.mean()), "bound": float(bounded.mean()), "none": float(1 - said.mean()),
        "covered": float(inside[shown].mean()) if shown.any() else None,
        "bound_holds": float(inside[bounded].mean()) if bounded.any() else None,
        "held": float(inside[said].mean()) if said.any() else None,
        "width": float((high - low)[shown].mean()) if shown.any() else None,
        "exact": exact,
    }  # fmt: skip


def missed(line: dict[str, Any]) -> bool:
    """Whether intervals cover, or bounds hold, too rarely, or intervals too often.

    Of all that is said, intervals and bounds together, at least .92 must hold. Where most panels have an interval, .92
    to .98 of these must cover, and where most have a bound, .92 of these must hold; a bound may hold always: it is
    one-sided. What the page says in few panels only was chosen by their luck (`lucky`). A share has an interval in
    every panel, and so all of them count."""
    if line["exact"] or line["none"] > FEW:
        return False
    if line["number"] in SHARES:
        return line["held"] < LOW or (line["interval"] > FEW and line["held"] > HIGH)
    covers = line["interval"] <= FEW or LOW <= line["covered"] <= HIGH
    holds = line["bound"] <= FEW or line["bound_holds"] >= LOW
    return not (covers and holds and line["held"] >= LOW)


def lucky(line: dict[str, Any]) -> bool:
    """Whether intervals, or bounds, that a tenth of the panels to half of them have are outside: on the page, not
    judged. Which panels have one depends on the number itself: where an interval is shown from ten failures on and
    eight are expected, a count that is too high by chance is among those shown more often than .05."""
    if line["exact"] or line["number"] in SHARES or missed(line):
        return False
    covers = line["interval"] < 0.1 or LOW <= line["covered"] <= HIGH
    holds = line["bound"] < 0.1 or line["bound_holds"] >= LOW
    return not (covers and holds)


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
    coverage_tables.write(asked.out, lines, told, bad, [line for line in lines if lucky(line)])
    print(f"{len(lines)} rows, {len(bad)} outside {LOW}-{HIGH}. Table: {asked.out}")
    return 1 if bad else 0


def rows(chosen: Sequence[Population], plan: Plan, work: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of the table of these cells, and what the cells left."""
    kept = [json.loads((work / f"{plan.key(cell)}.json").read_text()) for cell in chosen]
    found = zip(chosen, kept, strict=True)
    return [row(name, cell, left["found"][name]) for cell, left in found for name in NUMBERS], kept


def of_cell(line: dict[str, Any]) -> Population:
    """The cell of a line."""
    return Population(line["kind"], line["n"], line["accuracy"], line["runs"], line["models"], spread=line["spread"])


if __name__ == "__main__":
    sys.exit(main())
