"""All pairs of some models: evidence, one error rate, verdicts and the family tree."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal, cast

from zoo.lineage.evidence import Evidence, Replicas, against_replicas, examine, no_replica, replica_scores
from zoo.lineage.multiple import ALIGNED, adjusted_together
from zoo.lineage.recorded import Recorded, recorded
from zoo.lineage.tree import family_tree, undirected
from zoo.lineage.verdict import Verdict, judge
from zoo.lineage.weights import Weights
from zoo.store.schema import PARENT

if TYPE_CHECKING:
    from zoo.lineage.answers import Behaviour

Indices = tuple[int, int]

Direction = Literal["on record", "information lost", "heuristic", "unknown"]
"""How it is known which of two models came later: the record of the one names the other; it lost information; its
parent is nearer to all their kin; or nothing tells."""


@dataclass(frozen=True)
class Judged:
    """A pair. evidence: its own a and b may be the other way round; adjusted: p-values by test, at one error rate over
    all exact tests of all pairs and R3 of all pairs that replicas calibrate; behaviour: what their answers say, None
    when these were not asked for (`behaviour.with_answers`); recorded: that by the record of one it was made out of
    the other, which changes no verdict."""

    first: Weights
    second: Weights
    evidence: Evidence
    adjusted: Mapping[str, float]
    verdict: Verdict
    behaviour: Behaviour | None = None
    recorded: Recorded | None = None


@dataclass(frozen=True)
class Family:
    """Who may have come from whom. parents: child → parent, as indices of models; directions: by child, how it is known
    which of the two came later."""

    parents: Mapping[int, int] = field(default_factory=dict)
    directions: Mapping[int, Direction] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Every pair of some models, in order. tests: how many exact tests share the error rate; family: the tree of those
    that share weights, or whose records name one another."""

    models: tuple[Weights, ...]
    pairs: tuple[Judged, ...]
    tests: int
    family: Family = Family()

    @property
    def parents(self) -> Mapping[int, int]:
        """child → parent, as indices of models."""
        return self.family.parents


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
    ranks = _in_names_order(models)
    for pair in near:
        if between := _between(pair, near, ranks):
            verdicts[pair] = judge(found[pair], ps[pair], models[between[0]].label)
    pairs = [
        Judged(models[i], models[j], found[i, j], ps[i, j], verdicts[i, j],
               recorded=recorded(models[i], models[j], verdicts[i, j]))
        for i, j in found
    ]  # fmt: skip
    tests = sum(name != ALIGNED for of_pair in ps.values() for name in of_pair)
    return Comparison(tuple(models), tuple(pairs), tests, _family(models, near, pairs))


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


def _between(pair: Indices, near: Mapping[Indices, float], ranks: Sequence[int]) -> list[int]:
    """Models that share weights with both of a pair and are nearer to both than these are to each other, the nearest
    first, of equally near ones that of the smallest rank."""

    def distance(one: int, two: int) -> float:
        found = near.get((min(one, two), max(one, two)), math.inf)
        return math.inf if math.isnan(found) else found  # of a NaN, max gives whichever it meets first

    models = {one for both in near for one in both} - set(pair)
    middle = [(max(distance(pair[0], one), distance(one, pair[1])), ranks[one], one) for one in models]
    return [one for farther, _, one in sorted(middle) if farther < near[pair]]


def _in_names_order(models: Sequence[Weights]) -> list[int]:
    """Where each model comes when all are sorted by name: what weighs the same is decided by that and not by the order
    in which they were given."""
    order = sorted(range(len(models)), key=lambda place: (models[place].label, str(models[place].path)))
    ranks = [0] * len(models)
    for rank, place in enumerate(order):
        ranks[place] = rank
    return ranks


def _family(models: Sequence[Weights], near: Mapping[Indices, float], pairs: Sequence[Judged]) -> Family:
    """The tree over pairs that may be parent and child: two that started from one ancestor by their records are
    siblings. All is done on ranks by name, so that the order of the models changes nothing."""
    ranks = _in_names_order(models)
    places = {rank: place for place, rank in enumerate(ranks)}

    def ranked(pair: Indices) -> Indices:
        return min(ranks[pair[0]], ranks[pair[1]]), max(ranks[pair[0]], ranks[pair[1]])

    judged_at = {ranked(pair): one for pair, one in zip(combinations(range(len(models)), 2), pairs, strict=True)}
    known = {ranked(pair): 0.0 if math.isnan(distance) else distance for pair, distance in near.items()}
    known = dict(sorted(known.items()))  # sums of floats depend on their order
    siblings = {pair for pair in known if judged_at[pair].evidence.origin
                and judged_at[pair].verdict.name == "common ancestor"}  # fmt: skip
    later = {
        pair: judged_at[pair].verdict.later == models[places[pair[1]]].label
        for pair in known
        if judged_at[pair].verdict.later
    }
    recorded = _on_record(judged_at, ranks, models)
    told = (len(models), known, later, siblings, recorded)
    parents = family_tree(*told)
    untold = undirected(parents, *told)
    directions: dict[int, Direction] = {}
    for child, parent in parents.items():
        lost = later.get((min(child, parent), max(child, parent)))
        if recorded.get(child) == parent:
            directions[places[child]] = "on record"
        elif lost is not None and lost == (child > parent):
            directions[places[child]] = "information lost"
        else:
            directions[places[child]] = "unknown" if child in untold else "heuristic"
    return Family({places[child]: places[parent] for child, parent in parents.items()}, directions)


def _on_record(judged_at: Mapping[Indices, Judged], ranks: Sequence[int], models: Sequence[Weights]) -> dict[int, int]:
    """child → parent as ranks. Of several runs that have the key of the parent, one whose weights are those on record,
    the first by name."""
    rank = {model.label: ranks[place] for place, model in enumerate(models)}
    told = [one.recorded for _, one in sorted(judged_at.items(), key=lambda item: item[0]) if one.recorded is not None]
    told.sort(key=lambda one: one.against == "other weights")
    found: dict[int, int] = {}
    for one in told:
        found.setdefault(rank[one.child], rank[one.parent])
    return found
