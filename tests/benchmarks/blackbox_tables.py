"""What the validation of the black box counts, and how it is written. Pure functions over what models answered."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lineage_tables as tables
import numpy as np
from lineage_tables import INDEPENDENT

Row = dict[str, Any]

LEVEL = 0.05
POWER = 0.8
FEWEST_REFERENCES = 99
KINDS = ("distil", "queried")
ANOTHERS = "student of another"
TEST = "test split"
EVERYTHING = "all together"
BASELINE = ("b1", "b1_low", "b1_high", "b1_n", "b1_auc")


@dataclass(frozen=True)
class Made:
    """Folders of what was trained. students: kind → one for each parent, in their order; scout: one more reference,
    which is never compared: boundary points are its."""

    references: tuple[str, ...]
    parents: tuple[str, ...]
    students: Mapping[str, tuple[str, ...]]
    elsewhere: tuple[str, ...]
    scout: str


@dataclass(frozen=True)
class Answered:
    """logits: folder → (examples, classes); labels: (examples,), None where there is no truth; kinds: (examples,) int,
    where there are several."""

    logits: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    kinds: np.ndarray | None = None


# What is counted


def judged(made: Made, answers: Answered, probe: str) -> list[Row]:
    """A row for each kind of pair: rates of p ≤ .05 of the residual correlation (b2) and of the baseline (b1), AUCs."""
    pairs = {kind: list(zip(made.parents, made.students[kind], strict=True)) for kind in KINDS}
    pairs[INDEPENDENT] = [(one, two) for one in made.parents for two in made.parents if one != two]
    pairs[ANOTHERS] = [
        (parent, student) for place, parent in enumerate(made.parents) for kind in KINDS
        for other, student in enumerate(made.students[kind]) if other != place
    ]  # fmt: skip
    b2 = _tested(pairs, _residuals(answers, made.references))
    b1 = _tested(pairs, _repeats(answers, made.references))
    return [
        {
            "probe": probe, "kind": kind, "pairs": len(own), "same_answer": _agreement(own, answers),
            **tables.named("b2", _rejected(b2[kind])), **tables.named("b1", _rejected(b1[kind])),
            "b2_auc": _auc(b2, kind), "b1_auc": _auc(b1, kind),
        }
        for kind, own in pairs.items()
    ]  # fmt: skip


Scores = Callable[[str, Sequence[str]], Sequence[Sequence[float | None]]]
"""(trained, suspects) folders → for each suspect its likeness to the trained one, then to each reference; None where
there is none."""


def _residuals(answers: Answered, references: Sequence[str]) -> Scores:
    from zoo.lineage import blackbox

    known = np.stack([answers.logits[one] for one in references])

    def scores(trained: str, suspects: Sequence[str]) -> Sequence[Sequence[float | None]]:
        asked = np.stack([answers.logits[one] for one in suspects])
        found: list[list[float | None]] = blackbox.scores(asked, answers.logits[trained], known, answers.kinds).tolist()
        return found

    return scores


def _repeats(answers: Answered, references: Sequence[str]) -> Scores:
    from zoo.lineage import blackbox

    said = {folder: logits.argmax(1) for folder, logits in answers.logits.items()}

    @functools.cache
    def repeated(suspect: str, trained: str) -> float | None:
        if answers.labels is None:
            return None
        wrong, again = blackbox.repetitions(answers.labels, np.stack([said[trained], said[suspect]]))
        return blackbox.repeated(int(again[0, 1]), int(wrong[0]), len(answers.labels)).value

    def scores(trained: str, suspects: Sequence[str]) -> Sequence[Sequence[float | None]]:
        return [[repeated(suspect, one) for one in (trained, *references)] for suspect in suspects]

    return scores


def _tested(pairs: Mapping[str, Sequence[tuple[str, str]]], scores: Scores) -> dict[str, list[Row]]:
    """Score and p-value of each pair (trained, suspect), by kind; both are None where there is no score."""
    from zoo.lineage import blackbox

    found: dict[str, list[Row]] = {kind: [] for kind in pairs}
    for trained in dict.fromkeys(trained for own in pairs.values() for trained, _ in own):
        asked = [(kind, suspect) for kind, own in pairs.items() for one, suspect in own if one == trained]
        for (kind, _), (score, *others) in zip(asked, scores(trained, [one for _, one in asked]), strict=True):
            known = score is not None and None not in others
            found[kind].append({"score": score, "p": blackbox.conformal(score, others) if known else None})
    return found


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
        tested = _tested({INDEPENDENT: strangers}, _residuals(answers, references))[INDEPENDENT]
        rows.append({"references": len(references), "trained_on": data, **tables.named("kin", _rejected(tested))})
    return rows


def with_baseline(rows: Sequence[Row]) -> list[Row]:
    """The rows, those of everything with the baseline of the test split: it has no other."""
    of_test = {row["kind"]: row for row in rows if row["probe"] == TEST}
    return [
        {**row, **{name: of_test[row["kind"]][name] for name in BASELINE}} if row["probe"] == EVERYTHING else row
        for row in rows
    ]


def barred(row: Row, references: int) -> Row:
    """A row with the bar: TPR ≥ .8 at 5 % false positives with ≥ 99 references, and more than the baseline; false
    positives not above 5 % by more than chance explains."""
    if row["b2"] is None or row["probe"] not in (TEST, EVERYTHING):
        return row
    if row["kind"] in KINDS:
        met = (
            row["b2"] >= POWER
            and references >= FEWEST_REFERENCES
            and (row["b2"], row["b2_auc"]) > (row["b1"], row["b1_auc"])
        )
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
    "intervals (Clopper-Pearson, 95 %) do not know. Bars are of the test split, and of all inputs together, as "
    "`zoo.ask` puts them; the baseline beside these is that of the test split. Other inputs have no b1.",
    "elsewhere": "Independent parents called kin at p ≤ .05. The command refuses references of other data: this is "
    "why.",
}  # fmt: skip


def page(found: Mapping[str, Sequence[Row]], about: Mapping[str, Any]) -> str:
    """The write-up."""
    lines = [
        "# Validation of lineage: (d), the black box\n",
        tables.measured_with(about),
        f"{about['processes']} processes of one thread; {about['seconds'] / 60:.0f} minutes with what was already "
        "there.\n",
        f"{about['references']} references of each setting, and {about['parents']} "
        f"parents, all of one recipe and data with seeds of their own. A queried student asks about "
        f"{about['queries']} mixtures for each training example.\n",
    ]
    for name, head in HEADS.items():
        lines += [f"## {head}\n", tables.as_markdown(found[name])]
        lines += [NOTES[name] + "\n"] if name in NOTES else []
    return "\n".join(lines)


def write(found: Mapping[str, Sequence[Row]], about: Mapping[str, Any], out: Path) -> None:
    """blackbox.md, blackbox.json and a CSV for each table."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "blackbox.md").write_text(page(found, about), encoding="utf-8")
    text = json.dumps({"about": about, **found}, indent=2, ensure_ascii=False) + "\n"
    (out / "blackbox.json").write_text(text, encoding="utf-8")
    for name, rows in found.items():
        (out / f"blackbox_{name}.csv").write_text(tables.as_csv(rows), encoding="utf-8")
