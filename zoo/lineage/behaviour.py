"""Verdicts from answers, beside those from weights: never more than `behaviourally derived`.

Weights that are shared say more than answers can, so that such a verdict stands. Otherwise the two are `behaviourally
derived` when their answers are more alike than those of independent trainings on the same data, at q = .05 over all
pairs that references calibrate (Benjamini-Yekutieli). Where weights left a pair `undetermined`, it is `convergent` when
its answers are no more alike than such trainings are, provided that a test of this pair alone could have told: with so
few references that no answers whatever reach p ≤ .05, that none was told is no news of the pair. Everything else stays
as the weights have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from zoo.lineage import blackbox
from zoo.lineage.answers import Answers, Behaviour, Calibration, compare_all
from zoo.lineage.blackbox import Residual
from zoo.lineage.comparison import Comparison, Judged, one_thread
from zoo.lineage.evidence import Evidence
from zoo.lineage.groups import Layout
from zoo.lineage.multiple import Q, adjusted
from zoo.lineage.pairing import Pair
from zoo.lineage.recorded import recorded
from zoo.lineage.relation import summarise
from zoo.lineage.verdict import Verdict, judge
from zoo.lineage.weights import Weights
from zoo.p_values import p_said

ANSWERS = "answers"
"""The residual correlation of answers among the adjusted p-values."""

NULL_ANSWERS = "the one was trained on its data independently of the other"
RESIDUAL = "residual correlation of answers"
RATE_ALONE = "a rate alone, which shared data raise, too"
WEIGHTS_TOO = "Weights do not decide it."


def with_answers(
    comparison: Comparison, answers: Sequence[Answers | str], references: Sequence[Answers] = ()
) -> Comparison:
    """The comparison with what the models answered. answers: one for each model, in their order, or why it has none;
    references: trainings of one or more of the models' recipes with other seeds."""
    with one_thread():
        found = compare_all(answers, references)
    ps = iter(adjusted([one.decisive.residual.p for one in found if one.decisive is not None]))
    tests = sum(one.decisive is not None for one in found)
    return replace(
        comparison,
        pairs=tuple(
            _judged(pair, one, None if one.decisive is None else next(ps), tests)
            for pair, one in zip(comparison.pairs, found, strict=True)
        ),
    )


def unweighted(first: Weights, second: Weights) -> Judged:
    """Two models of which one keeps no weights, so that only answers can be compared."""
    pair = Pair(first, second, {}, {}, (), tuple(sorted(first.tensors)), tuple(sorted(second.tensors)))
    found = Evidence(pair, Layout((), "none"), (), summarise(()))
    verdict = judge(found, {})
    return Judged(first, second, found, {}, verdict, recorded=recorded(first, second, verdict))


def _judged(pair: Judged, found: Behaviour, p: float | None, tests: int) -> Judged:
    ps = pair.adjusted if p is None else {**pair.adjusted, ANSWERS: p}
    verdict = judge_answers(found, 1.0 if p is None else p, tests)
    return replace(pair, behaviour=found, adjusted=ps, verdict=_together(pair, verdict))


def judge_answers(found: Behaviour, p: float, tests: int = 1) -> Verdict:
    """The verdict of the answers alone. p: of this pair, adjusted over all `tests` pairs.

    Four references, say, give p = 1/5 at best, also to a copy: that some pair has 2/5 shows nothing, and it is
    `undetermined`. From 19 references on a pair alone can reach .05. Then one that is above is `convergent`, whatever
    the correction over pairs would have asked for: the rank itself is what is told of it."""
    decisive = found.decisive
    if decisive is None:
        return Verdict("undetermined", f"Their answers tell nothing: {found.reason}.", "heuristic")
    told = _told(decisive, p)
    if p <= Q:
        return Verdict("behaviourally derived", f"{told}.", "conformal", NULL_ANSWERS)
    if _can_tell(decisive.residual) and decisive.residual.p > Q:
        return Verdict("convergent", f"{told}: shared data explains it.", "conformal", NULL_ANSWERS)
    why = _not_enough(decisive.residual, p, tests)
    return Verdict("undetermined", f"{told}; {why}.", "heuristic", NULL_ANSWERS)


def _can_tell(test: Residual) -> bool:
    """Whether the smallest p-value that so many references give, one pair alone, is small enough."""
    return 1 / (test.references + 1) <= Q


def _not_enough(test: Residual, p: float, tests: int) -> str:
    """Why nothing is concluded from answers."""
    if _can_tell(test) and _as_high(test):
        return f"over {tests} pairs that is {p_said(p)}: fewer pairs at once or more references could tell"
    over = f" over {tests} pairs" if tests > 1 else ""
    return f"{test.references} references are too few to reach p ≤ {Q:g}{over}; {blackbox.needed(Q, tests)} are needed"


def _as_high(test: Residual) -> int:
    """References that are as like as the pair."""
    return round(test.p * (test.references + 1)) - 1


def _told(decisive: Calibration, p: float) -> str:
    test = decisive.residual
    higher = _as_high(test)
    than = "no more alike than any of" if higher == test.references else "more alike than"
    than += f" all but {higher} of" if 0 < higher < test.references else ""
    over = "" if p == test.p else f", {p_said(p)} over all calibrated pairs"
    over_kinds = "" if test.kinds == 1 else f" over {test.kinds} kinds of inputs, in units of its spread,"
    return (
        f"Their answers are {than} {test.references} same-data references of {decisive.of} "
        f"(residual correlation{over_kinds} {test.score:.3f}, highest of a reference {test.highest:.3f}, "
        f"n = {test.n} examples, {p_said(test.p)}{over})"
    )


def _together(pair: Judged, answered: Verdict) -> Verdict:
    """What weights and answers say of a pair."""
    weights = pair.verdict
    untested = not pair.evidence.pair.names and not pair.evidence.pair.tables
    if weights.shares_weights:
        return weights
    if answered.name != "behaviourally derived" and weights.name != "undetermined":
        return weights
    statement = answered.statement if untested else f"{answered.statement} {WEIGHTS_TOO} {weights.statement}"
    return replace(answered, statement=statement)


def row(judged: Judged) -> dict[str, Any]:
    """The answers of a pair as a row of evidence, in JSON types. Raises ValueError for a pair without."""
    found = judged.behaviour
    if found is None:
        raise ValueError(f"the answers of {judged.first.label} and {judged.second.label} were not compared")
    decisive = found.decisive
    return {
        "test": "B2",
        "name": RESIDUAL,
        "kind": "heuristic" if decisive is None else "conformal",
        "null_hypothesis": None if decisive is None else NULL_ANSWERS,
        "p": None if decisive is None else decisive.residual.p,
        "p_adjusted": judged.adjusted.get(ANSWERS),
        "examples": found.n,
        "calibrations": [{"references_of": one.of, **vars(one.residual)} for one in found.calibrations],
        "reason": found.reason or None,
    }


def baseline(judged: Judged) -> dict[str, Any]:
    """The trivial baseline of a pair as a row of evidence: a rate each way, and no p-value."""
    found = judged.behaviour
    told = found.repeated if found is not None else ()
    rates: list[Mapping[str, Any]] = [vars(one) | {"reason": one.reason or None} for one in told]
    return {
        "test": "B1",
        "name": "wrong answers repeated",
        "kind": "heuristic",
        "null_hypothesis": None,
        "p": None,
        "first_repeated_by_second": rates[0] if rates else None,
        "second_repeated_by_first": rates[1] if rates else None,
        "reason": RATE_ALONE if rates else (found.reason if found else None),
    }
