"""All pairs of some models: evidence, one error rate, verdicts and the family tree."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from zoo.lineage.evidence import Evidence, against_replicas, examine, replica_scores
from zoo.lineage.multiple import adjusted
from zoo.lineage.tree import family_tree
from zoo.lineage.verdict import Verdict, judge
from zoo.lineage.weights import Weights

Indices = tuple[int, int]


@dataclass(frozen=True)
class Judged:
    """A pair. evidence: its own a and b may be the other way round; adjusted: p-values of its exact tests by name,
    over all tests of all pairs."""

    first: Weights
    second: Weights
    evidence: Evidence
    adjusted: Mapping[str, float]
    verdict: Verdict


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
    found = {pair: examine(models[pair[0]], models[pair[1]]) for pair in combinations(range(len(models)), 2)}
    if look is not None:
        found = {pair: look(evidence) for pair, evidence in found.items()}
    if replicas:
        scores = {one: replica_scores(models[one], replicas) for one in {pair[0] for pair in found}}
        found = {pair: _calibrated(models[pair[0]], one, scores[pair[0]]) for pair, one in found.items()}
    ps = _adjusted(found)
    verdicts = {pair: judge(one, ps[pair]) for pair, one in found.items()}
    near = {pair: found[pair].distance for pair, verdict in verdicts.items() if verdict.shares_weights}
    for pair in near:
        if between := _between(pair, near):
            verdicts[pair] = judge(found[pair], ps[pair], models[between[0]].label)
    pairs = [Judged(models[i], models[j], found[i, j], ps[i, j], verdicts[i, j]) for i, j in found]
    return Comparison(tuple(models), tuple(pairs), sum(map(len, ps.values())), _parents(len(models), near, pairs))


def _calibrated(first: Weights, found: Evidence, scores: Mapping[str, Mapping[str, float]] | str) -> Evidence:
    if isinstance(scores, str):
        return replace(found, reasons={**found.reasons, "calibration": scores})
    return against_replicas(found, first, scores)


def _adjusted(found: Mapping[Indices, Evidence]) -> dict[Indices, dict[str, float]]:
    """P-values of all exact tests, adjusted together."""
    tests: list[tuple[Indices, str, float]] = []
    for pair, one in found.items():
        if one.log_p_order is not None:
            tests.append((pair, "numbering", math.exp(one.log_p_order)))
        if one.dead is not None:
            tests.append((pair, "dead", one.dead.p))
    ps: dict[Indices, dict[str, float]] = {pair: {} for pair in found}
    for (pair, name, _), p in zip(tests, adjusted([p for _, _, p in tests]), strict=True):
        ps[pair][name] = p
    return ps


def _between(pair: Indices, near: Mapping[Indices, float]) -> list[int]:
    """Models that are nearer to both of a pair than these are to each other, the nearest first."""

    def distance(one: int, two: int) -> float:
        return near.get((min(one, two), max(one, two)), math.nan)

    models = {one for both in near for one in both} - set(pair)
    middle = [(max(distance(pair[0], one), distance(one, pair[1])), one) for one in models]
    return [one for farther, one in sorted(middle) if farther < near[pair]]


def _parents(models: int, near: Mapping[Indices, float], pairs: Sequence[Judged]) -> dict[int, int]:
    known = {pair: 0.0 if math.isnan(distance) else distance for pair, distance in near.items()}
    later = {}
    for pair, judged in zip(combinations(range(models), 2), pairs, strict=True):
        if pair in known and judged.verdict.later:
            later[pair] = judged.verdict.later == judged.second.label
    return family_tree(models, known, later)
