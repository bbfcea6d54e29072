"""What `interval_coverage.py` writes: all rows as CSV and JSON, and a page that sums them up."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coverage_panels import KINDS

Row = Mapping[str, Any]

TITLES = {
    "effective_models": "Effective models",
    "joint_failure": "Effective models against joint failure",
    "most_alike": "The most alike pair: kinship with replicas, error correlation without",
    "least_alike": "The least alike pair",
    "best_accuracy": "Accuracy of the best model",
    "failed_by_all": "Failed by every model",
    "one_is_right": "At least one model is right",
    "vote_gain_2": "Vote minus best model, two classes",
    "vote_gain_10": "Vote minus best model, ten classes",
}

INTRODUCTION = """\
# What the intervals of the first page cover

Panels are drawn from populations whose likeness is known, and a report's numbers are computed from each. Counted is how
often the 95 % interval holds what is true of the population, and where it is left out.

- **Populations.** Every run is wrong where a normal latent is above the threshold of its accuracy. Latents of runs of
  two models are correlated by 0 (independent), .3 (shared difficulty) or .6 (one recipe), those of two replicas by .6.
  Copies are the same runs under several names. Models are equally accurate, which is hardest for a number that is
  chosen among them, such as the best accuracy; or, where the table says ±, their accuracies are evenly spaced that far
  around the middle. A wrong answer is uniform over the other classes.
- **Truth.** Given what all models share they are independent, so that every truth is an integral over one normal
  variable, by quadrature. Of copies with several runs, one run drawn of each model is the same with the chance 1/runs.
  Of the best model and the most and least alike pair, the truth is that of the model or the pair that is named.
- **Cells.** 4 kinds, 200 and 1,000 examples, accuracy .6 and .95, 1, 3 and 5 runs a model, 2, 3, 4, 10 and 30 models, 2
  and 10 classes; unequal accuracies with all kinds but copies, 1 and 3 runs and 2, 4 and 10 models; accuracy .1 with 1
  and 3 runs and 2 and 4 models. The numbers of classes share which answers are right, so that only the vote differs
  between them.
- **What is said.** *Interval*: two ends. *Few*: fewer than 10 examples of the rarer kind, so that the number has a
  bound (joint failure) or an interval that is wider than it need be (shares); it may hold always. *None*: too few
  failures or right answers for an interval, and the report says so: fewer than 30 of either a model, than 5 of one of
  the models, or than 5 that two models share (effective models, joint failure), fewer than 10 examples that two
  models both fail, or both get right, seen or expected by chance (pairs), fewer than 10 on which the vote and the best
  model differ.
- **The bar.** *Covers* is the share of the intervals, *holds* that of intervals and bounds, that hold the truth; the
  standard error of either is .009 for 600 panels. Where most panels have an interval, .92 to .98 of these must cover;
  where most have a bound, .92 of these must hold; and where most say anything, .92 of what they say. An interval that
  fewer panels have is shown because of their luck, and not judged: rows outside are named below. A share has an
  interval in every panel, and all of them count.
- **Exact**: the number is the true one in every panel. Copies with one run each have effective models 1, likeness 1 and
  a vote equal to the best model, whatever is drawn: these have no interval, or one that holds always.
"""


def write(
    out: Path, lines: Sequence[Row], about: Mapping[str, Any], bad: Sequence[Row], lucky: Sequence[Row] = ()
) -> None:
    """coverage.csv, coverage.json and README.md. bad: rows that miss their bar; lucky: rows outside, not judged."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "coverage.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
        table.writeheader()
        table.writerows({name: _plain(value) for name, value in line.items()} for line in lines)
    rows = ",\n".join(json.dumps({name: _rounded(value) for name, value in line.items()}) for line in lines)
    document = f'{{"about": {json.dumps(about, indent=1)},\n"rows": [\n{rows}\n]}}\n'
    (out / "coverage.json").write_text(document, encoding="utf-8")
    (out / "README.md").write_text(page(lines, about, bad, lucky), encoding="utf-8")


def page(lines: Sequence[Row], about: Mapping[str, Any], bad: Sequence[Row], lucky: Sequence[Row]) -> str:
    """The page: how, what is outside the bar, and for each number a line a kind, size, accuracy and spread of it."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    parts = [INTRODUCTION]
    parts.append(
        f"{about['panels']} panels a cell, {about['draws']} draws of the bootstrap, {about['processor_seconds']:,}\n"
        f"seconds of one processor. Code: {_code(about['commits'])}; {versions}.\n"
        f"{_more(about)}[coverage.csv](coverage.csv) has every cell.\n"
        f"Made by `{about['command']}`.\n"
    )
    parts.append(_outside(lines, bad))
    if lucky:
        parts.append(
            f"Not judged, since fewer than half of the panels have them: {len(lucky)} rows.\n\n{_named(lucky)}"
        )
    for name, title in TITLES.items():
        parts.append(f"## {title}\n")
        parts.append(_table([line for line in lines if line["number"] == name]))
    return "\n".join(parts)


def _code(commits: Mapping[str, str]) -> str:
    """Which commit measured what: the most frequent for all but those that are named."""
    of: dict[str, list[str]] = {}
    for name, commit in commits.items():
        of.setdefault(commit, []).append(name)
    most, *others = sorted(of, key=lambda commit: -len(of[commit]))
    return "; ".join([most, *(f"{commit} for {', '.join(of[commit])}" for commit in others)])


def _more(about: Mapping[str, Any]) -> str:
    """Which cells have more panels, and the code that measured them."""
    cells = about["cells_with_more"]
    if not cells:
        return ""
    named = "; ".join(", ".join(f"{name} {value}" for name, value in cell.items()) for cell in cells)
    code = ", ".join(sorted(set(about["commits_of_more"].values())))
    return (
        f"A row was outside its bar in {len(cells)} of the cells ({named}), as chance has it in a few of so many:\n"
        f"there the same stream of panels went on to {about['more']:,} (code: {code}).\n"
    )


def _outside(lines: Sequence[Row], bad: Sequence[Row]) -> str:
    judged = sum(line["none"] <= 0.5 and not line["exact"] for line in lines)
    exact = sum(line["exact"] for line in lines)
    if not bad:
        return (
            f"All {judged} rows that are judged meet the bar. {exact} rows are exact; of the others, too few panels\n"
            "say anything.\n"
        )
    return f"{len(bad)} of the {judged} rows that are judged miss the bar ({exact} others are exact):\n\n{_named(bad)}"


def _named(lines: Sequence[Row]) -> str:
    """A table of single rows."""
    names = ("number", "kind", "n", "accuracy", "spread", "runs", "models")
    shares = ("interval", "covered", "bound", "bound_holds", "held")
    told = ["| " + " | ".join([*names, *shares]) + " |", "|---" * (len(names) + len(shares)) + "|"]
    for line in lines:
        rounded = ["–" if line[name] is None else f"{line[name]:.3f}" for name in shares]
        told.append("| " + " | ".join([*(str(line[name]) for name in names), *rounded]) + " |")
    return "\n".join(told) + "\n"


def _table(lines: Sequence[Row]) -> str:
    """Over runs and models: lowest and highest of what holds, of bias and width; how many panels say what."""
    told = [
        "| kind | n | accuracy | interval | covers | few | none | holds | bias | width |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    keys = lambda line: (line["kind"], line["n"], line["accuracy"], line["spread"])  # noqa: E731
    for (kind, n, accuracy, spread), group in itertools.groupby(sorted(lines, key=_order), keys):
        cells = list(group)
        judged = [line for line in cells if not line["exact"] and line["none"] <= 0.5]
        exact = all(line["exact"] for line in cells)
        covers = _span([line["covered"] for line in judged if line["interval"] > 0.5], 3)
        holds = "exact" if exact else _span([line["held"] for line in judged if line["held"] is not None], 3)
        interval, few, none = (
            f"{100 * sum(line[name] for line in cells) / len(cells):.0f} %" for name in ("interval", "bound", "none")
        )
        bias = _span([line["bias"] for line in cells if line["bias"] is not None], 3)
        width = _span([line["width"] for line in cells if line["width"] is not None], 3)
        around = f"{accuracy} ± {spread}" if spread else str(accuracy)
        told.append("| " + " | ".join([kind, str(n), around, interval, covers, few, none, holds, bias, width]) + " |")
    return "\n".join(told) + "\n"


def _order(line: Row) -> tuple[int, int, float, float]:
    """Rows that are summed up together stand together, in the order of the cells."""
    return KINDS.index(line["kind"]), line["n"], line["accuracy"], line["spread"]


def _span(values: Sequence[float], digits: int) -> str:
    """`lowest to highest`, or one number where they read alike; a dash for none."""
    if not values:
        return "–"
    low, high = (f"{0.0 if abs(end) < 0.5 * 10**-digits else end:.{digits}f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _plain(value: Any) -> Any:
    return "" if value is None else _rounded(value)
