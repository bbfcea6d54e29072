"""All pairs of some models: evidence, one error rate, verdicts and the family tree."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, cast

from zoo.lineage.evidence import Evidence, Replicas, against_replicas, examine, no_replica, replica_scores
from zoo.lineage.multiple import ALIGNED, adjusted_together
from zoo.lineage.tree import family_tree
from zoo.lineage.verdict import Verdict, judge
from zoo.lineage.weights import Weights
from zoo.store.schema import PARENT

if TYPE_CHECKING:
    from zoo.lineage.answers import Behaviour

Indices = tuple[int, int]


@dataclass(frozen=True)
class Judged:
    """A pair. evidence: its own a and b may be the other way round; adjusted: p-values by test, at one error rate over
    all exact tests of all pairs and R3 of all pairs that replicas calibrate; behaviour: what their answers say, None
    when these were not asked for (`behaviour.with_answers`)."""

    first: Weights
    second: Weights
    evidence: Evidence
    adjusted: Mapping[str, float]
    verdict: Verdict
    behaviour: Behaviour | None = None


@dataclass(frozen=True)
class Comparison:
    """Every pair of some models, in order. tests: how many exact tests share the error rate; parents: child → parent,
    as indices of models."""

    models: tuple[Weights, ...]
    pairs: tuple[Judged, ...]
    tests: int
    parents: Mapping[int, int] = field(default_factory=dict)


def compare(
    models: Sequence[Weights], replicas: Sequence[Weights] = (), look: Callable[[Evidence], Evidence] | None = None
) -> Comparison:
    """Compare every model with every other. replicas: independent trainings of the models' recipe, for R3; look: adds
    to the evidence what needs the models' data (R2)."""
    with one_thread():
        found = {pair: examine(models[pair[0]], models[pair[1]]) for pair in combinations(range(len(models)), 2)}
        if look is not None:
            found = {pair: look(evidence) for pair, evidence in found.items()}
        if replicas:
            scores = {one: replica_scores(models[one], replicas) for one in sorted({pair[0] for pair in found})}
            found = {pair: _calibrated(models, pair, one, scores[pair[0]]) for pair, one in found.items()}
    return _judged(models, found)


def one_thread() -> AbstractContextManager[object]:
    """The products are small: a second thread of BLAS waits more than it works, and on a busy machine it waits by
    turning in a circle."""
    from threadpoolctl import threadpool_limits

    return cast("AbstractContextManager[object]", threadpool_limits(1))


def compare_runs(
    runs: Sequence[Weights],
    look: Callable[[Evidence], Evidence],
    progress: Callable[[int, int], None] = lambda done, pairs: None,
) -> Comparison:
    """Compare every run of a study with every other. The replicas for R3 are the study's own: runs of one recipe on the
    same data with other seeds. look: as `compare` has it; progress: told how many of how many pairs are done."""
    pairs = list(combinations(range(len(runs)), 2))
    found: dict[Indices, Evidence] = {}
    with one_thread():
        for pair in pairs:
            found[pair] = look(examine(runs[pair[0]], runs[pair[1]]))
            progress(len(found), len(pairs))
    index = {run: place for place, run in enumerate(runs)}

    def look_up(one: Weights, two: Weights) -> Evidence:
        return found[min(index[one], index[two]), max(index[one], index[two])]

    @functools.cache
    def scores(place: int) -> Replicas | str:
        own = runs[place]
        replicas = [other for other in runs if other is not own and other.record and not no_replica(own, other)]
        return replica_scores(own, replicas, look_up)

    def calibrated(pair: Indices, one: Evidence) -> Evidence:
        if one.aligned is None:
            return one
        # What was made out of another run has no replicas of its own: those of the other side speak.
        made = [bool((runs[place].record or {}).get(PARENT)) for place in pair]
        first, second = pair[::-1] if made[0] and not made[1] else pair
        return _calibrated(runs, (first, second), one, scores(first))

    return _judged(runs, {pair: calibrated(pair, one) for pair, one in found.items()})


def _judged(models: Sequence[Weights], found: Mapping[Indices, Evidence]) -> Comparison:
    ps = one_error_rate(found)
    verdicts = {pair: judge(one, ps[pair]) for pair, one in found.items()}
    near = {pair: found[pair].distance for pair, verdict in verdicts.items() if verdict.shares_weights}
    for pair in near:
        if between := _between(pair, near):
            verdicts[pair] = judge(found[pair], ps[pair], models[between[0]].label)
    pairs = [Judged(models[i], models[j], found[i, j], ps[i, j], verdicts[i, j]) for i, j in found]
    tests = sum(name != ALIGNED for of_pair in ps.values() for name in of_pair)
    return Comparison(tuple(models), tuple(pairs), tests, _parents(len(models), near, pairs))


def _calibrated(models: Sequence[Weights], pair: Indices, found: Evidence, scores: Replicas | str) -> Evidence:
    if isinstance(scores, str):
        return replace(found, reasons={**found.reasons, "calibration": scores})
    return against_replicas(found, models[pair[0]], scores, models[pair[1]])


def one_error_rate(found: Mapping[Indices, Evidence]) -> dict[Indices, dict[str, float]]:
    """P-values by test of each pair, adjusted over all tests of all pairs (`multiple.adjusted_together`)."""
    return dict(zip(found, adjusted_together([_p_values(one) for one in found.values()]), strict=True))


def _p_values(found: Evidence) -> dict[str, float]:
    """Those of a pair alone, by test."""
    ps = {} if found.log_p_order is None else {"numbering": math.exp(found.log_p_order)}
    if found.dead is not None:
        ps["dead"] = found.dead.p
    if found.calibrated is not None:
        ps[ALIGNED] = found.calibrated.p
    return ps


def _between(pair: Indices, near: Mapping[Indices, float]) -> list[int]:
    """Models that share weights with both of a pair and are nearer to both than these are to each other, the nearest
    first."""

    def distance(one: int, two: int) -> float:
        found = near.get((min(one, two), max(one, two)), math.inf)
        return math.inf if math.isnan(found) else found  # of a NaN, max gives whichever it meets first

    models = {one for both in near for one in both} - set(pair)
    middle = [(max(distance(pair[0], one), distance(one, pair[1])), one) for one in models]
    return [one for farther, one in sorted(middle) if farther < near[pair]]


def _parents(models: int, near: Mapping[Indices, float], pairs: Sequence[Judged]) -> dict[int, int]:
    """Of pairs that may be parent and child: two that started from one ancestor by their records are
    siblings."""
    later = {}
    verdicts = dict(zip(combinations(range(models), 2), pairs, strict=True))
    known = {pair: 0.0 if math.isnan(distance) else distance for pair, distance in near.items()}
    siblings = {
        pair for pair in near if verdicts[pair].evidence.origin and verdicts[pair].verdict.name == "common ancestor"
    }
    for pair, judged in verdicts.items():
        if pair in known and judged.verdict.later:
            later[pair] = judged.verdict.later == judged.second.label
    return family_tree(models, known, later, siblings)
