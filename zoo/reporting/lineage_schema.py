"""The part of a report's document that says who shares weights with whom, or answers. Described as the rest, in
`schema`.

Runs are referred to by their position in `provenance.runs`. A further test is a further row of evidence. What answers
say is missing from documents of before they were compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired, TypedDict

from zoo import form

Verdict = Literal[
    "copy", "derived", "common ancestor", "behaviourally derived", "convergent", "independent", "undetermined"
]


class LineageEvidence(TypedDict):
    """What one test says of two runs."""

    test: Annotated[
        str,
        "`record` (what the record of the one says), `numbers` (the stored numbers themselves), `R1` (index order), "
        "`R2` (dead inputs), `R3` (aligned weights), `B1` (repeated errors, once each way), `B2` (residual correlation "
        "of answers) …",
    ]
    title: Annotated[str, "what it looks at, in English"]
    kind: Annotated[
        Literal["on record", "exact", "conformal", "heuristic"],
        "on record; exact; calibrated on replicas; or neither, only a score",
    ]
    null: Annotated[str | None, "the null hypothesis, in English; null without a p-value"]
    p: Annotated[float | None, "p-value of this pair alone; 0 where a float holds none so small"]
    log10_p: Annotated[float | None, "its decimal logarithm"]
    corrected: Annotated[float | None, "p-value corrected over all pairs of runs"]
    statistic: Annotated[
        float | None,
        "share of the numbers that are the same but for pruning and rounding; largest rank correlation of the numbers "
        "of units; mean cosine over dead inputs; mean cosine of matched units; share of the wrong answers that are "
        "repeated; correlation of what answers have beyond references",
    ]
    low: NotRequired[Annotated[float | None, "lower end of the 95 % interval (Wilson) of a `B1`; others have none"]]
    high: NotRequired[Annotated[float | None, "its upper end"]]
    n: Annotated[
        int | None, "numbers, units, dead inputs or units that were compared; wrong answers (`B1`) or examples (`B2`)"
    ]
    reason: Annotated[str | None, "why there is no p-value, or what to mind, in English"]


class RepeatedErrors(TypedDict):
    """How many of the wrong answers of one run another gives, too: the same wrong class."""

    wrong: Annotated[int, "the run whose wrong answers these are, as position in `provenance.runs`"]
    repeats: Annotated[int, "the run that may repeat them"]
    value: Annotated[float, "the share that it repeats"]
    low: Annotated[float, "lower end of the 95 % interval of these two runs (Wilson)"]
    high: Annotated[float, "upper end"]
    n: Annotated[int, "wrong answers"]


class LineageAnswers(TypedDict):
    """What the answers of two models say, over pairs of their runs."""

    compared: Annotated[int, "pairs of runs that answered examples in common"]
    calibrated: Annotated[int, "those that references calibrate: other runs of the recipe of one on the same data"]
    references: Annotated[int, "references of a pair, the most there are; 0 when none is calibrated"]
    repeated: Annotated[
        RepeatedErrors | None,
        "of all pairs of runs and both directions, the rate of repeated errors whose interval begins highest; null "
        "when no run made an error",
    ]
    mean: Annotated[float | None, "mean of all these rates"]
    reason: Annotated[str | None, "why pairs of runs were not calibrated: the most frequent reason, in English"]


class LineagePair(TypedDict):
    """Two models, or one with itself: a self-pair compares its own replicas, which is a check of the tests."""

    a: Annotated[int, "index of a model"]
    b: Annotated[int, "index of a model, at least `a`"]
    run_pairs: Annotated[int, "pairs of their runs"]
    tested: Annotated[int, "those whose weights could be compared"]
    answers: NotRequired[Annotated[LineageAnswers, "what answers say; missing when they were not compared"]]
    verdicts: Annotated[dict[str, int], "verdict to the number of pairs of runs, the most closely related first"]
    strongest: Annotated[
        LineageEvidence | None,
        "the strongest evidence of any pair of runs: a record first; of answers only where they decide, or weights "
        "could not be compared; null when there is none",
    ]
    strongest_runs: Annotated[list[int] | None, "the two runs it is of, as positions in `provenance.runs`"]
    reason: Annotated[str | None, "why weights were not tested: the most frequent reason, in English"]
    note: Annotated[str | None, "what explains that runs share weights, in English"]
    on_record: Annotated[int, "pairs of runs of which one by its record was made out of the other"]
    unexplained: Annotated[int, "pairs of runs that share weights, and no record or construction explains it"]


Explained = Literal["on record", "one seed", "one checkpoint", "no randomness", "through others"]


class LineageRunPair(TypedDict):
    """Two runs whose verdict is neither independent nor undetermined, or of which one is on record to come from the
    other."""

    a: Annotated[int, "position in `provenance.runs`"]
    b: Annotated[int, "position of another, greater than `a`"]
    verdict: Annotated[Verdict, "what is said of them"]
    strength: Annotated[Literal["exact", "conformal", "heuristic"], "what the verdict rests on"]
    statement: Annotated[str, "why, in English"]
    later: Annotated[int | None, "the run that lost information and so came later; null when that cannot be told"]
    on_record: Annotated[str | None, "what both are on record to have started from, in English"]
    child: Annotated[int | None, "of the two, the run that by its record was made out of the other"]
    explained: Annotated[
        Explained | None,
        "what makes shared weights or answers no news: the record of the one names the other; records name one seed or "
        "one checkpoint; all runs of the model are the same whatever the seed; both are so related to others; null "
        "when nothing does, or nothing is shared",
    ]
    evidence: Annotated[list[LineageEvidence], "all tests, also those that say nothing"]


class LineageEdge(TypedDict):
    """An arc of the family tree."""

    child: Annotated[int, "position in `provenance.runs`"]
    parent: Annotated[int, "position of the run it may come from"]
    verdict: Annotated[Verdict, "of the two"]
    distance: Annotated[float | None, "1 − mean cosine of matched units; null when they were not matched"]
    direction: Annotated[
        Literal["on record", "information lost", "heuristic", "unknown"],
        "how it is known which came later: the record of the one names the other; it lost information; its parent is "
        "nearer to all their kin, a heuristic; or nothing tells, and the line might as well lead the other way",
    ]


class LineageRecord(TypedDict):
    """A run that by its record was made out of another."""

    child: Annotated[int, "position in `provenance.runs`"]
    parent: Annotated[int | None, "position of the other run; null when it is not among them"]
    label: Annotated[str, "what the other was called, as the record has it"]
    seed: Annotated[int | None, "its seed, as the record has it"]
    steps: Annotated[list[str], "what was done, in order, such as `prune:0.5`"]
    against: Annotated[
        Literal["unrelated weights", "other weights", "parent came later"] | None,
        "what weights say against it: they are as unlike as those of strangers; the other's are not those that the "
        "record names; it is the other that lost information; null when they do not",
    ]


class LackingRun(TypedDict):
    """A run whose weights were not compared; its answers may have been."""

    run: Annotated[int, "position in `provenance.runs`"]
    reason: Annotated[str, "why, in English"]


class ComparedAnswers(TypedDict):
    """How many answers were compared, and what they could tell."""

    compared: Annotated[int, "pairs of runs that answered examples in common"]
    calibrated: Annotated[int, "those that references calibrate; their p-values share one error rate"]
    references: Annotated[int, "references of a pair, the most there are; 0 when none is calibrated"]
    needed: Annotated[int, "references with which one pair alone can reach p ≤ `q`"]
    needed_together: Annotated[
        int, "references with which one of all calibrated pairs can reach it, when no other does"
    ]


class Lineage(TypedDict):
    """Who shares weights with whom, or answers."""

    q: Annotated[float, "the expected share of false rejections among all"]
    correction: Annotated[str, "of the p-values over pairs of runs: `Benjamini-Yekutieli`"]
    exact_tests: Annotated[int, "exact tests (R1, R2) that share one error rate"]
    runs: Annotated[int, "number of runs"]
    run_pairs: Annotated[int, "number of pairs of runs"]
    tested: Annotated[int, "those whose weights could be compared"]
    answers: NotRequired[Annotated[ComparedAnswers, "what answers could tell; missing when they were not compared"]]
    on_record: Annotated[list[LineageRecord], "runs that by their records were made out of others"]
    pairs: Annotated[list[LineagePair], "pairs of models with a ≤ b that have a pair of runs"]
    listed: Annotated[list[LineageRunPair], "pairs of runs that are on record, or neither independent nor undetermined"]
    tree: Annotated[
        list[LineageEdge], "arcs of the family tree: records, then the minimum arborescence over 1 − mean cosine"
    ]
    lacking: Annotated[list[LackingRun], "runs whose weights were not compared: answers alone tell of them"]


def check_positions(lineage: Lineage, models: int, runs: int) -> None:
    """Raise ValueError for the first position that points nowhere. models, runs: how many there are."""
    for place, pair in enumerate(lineage["pairs"]):
        positions, path = (pair["a"], pair["b"]), f"document.lineage.pairs[{place}]"
        form.require(0 <= pair["a"] <= pair["b"] < models, path, f"a pair of models below {models}", positions)
        told = pair["strongest_runs"] or [0, 1]
        form.require(_two(told, runs), f"{path}.strongest_runs", f"two runs below {runs}", told)
        if repeated := pair.get("answers", {}).get("repeated"):
            told = [repeated["wrong"], repeated["repeats"]]
            form.require(_two(sorted(told), runs), f"{path}.answers.repeated", f"two runs below {runs}", told)
    for place, listed in enumerate(lineage["listed"]):
        path = f"document.lineage.listed[{place}]"
        form.require(_two([listed["a"], listed["b"]], runs), path, f"two runs below {runs}", (listed["a"], listed["b"]))
        for key in ("later", "child"):
            form.require((listed[key] or 0) < runs, f"{path}.{key}", f"a run below {runs}", listed[key])
    for place, arc in enumerate(lineage["tree"]):
        ends, path = [arc["child"], arc["parent"]], f"document.lineage.tree[{place}]"
        form.require(_two(sorted(ends), runs), path, f"two runs below {runs}", ends)
    for place, told_ in enumerate(lineage["on_record"]):
        child, parent = told_["child"], told_["parent"]
        good = 0 <= child < runs if parent is None else _two(sorted((child, parent)), runs)
        path = f"document.lineage.on_record[{place}]"
        form.require(good, path, f"a run below {runs}, and another or none", (child, parent))
    for place, lacking in enumerate(lineage["lacking"]):
        path = f"document.lineage.lacking[{place}]"
        form.require(0 <= lacking["run"] < runs, path, f"a run below {runs}", lacking["run"])


def _two(runs: Sequence[int], below: int) -> bool:
    return len(runs) == 2 and 0 <= runs[0] < runs[1] < below
