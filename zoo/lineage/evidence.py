"""Everything that two models' weights say about a common past, before it is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zoo.lineage import exact, rows
from zoo.lineage.aligned import MOST_MATCHED, Aligned, Calibrated, align, calibrate, in_one_order
from zoo.lineage.exact import DeadCoordinates, Numbering
from zoo.lineage.groups import Layout, layout
from zoo.lineage.pairing import Pair, pair_up
from zoo.lineage.relation import Relation, Summary, relate, summarise
from zoo.lineage.rotated import RowNorms, row_norms
from zoo.lineage.weights import Weights
from zoo.store.recipes import Recipe
from zoo.store.schema import PARENT
from zoo.units import Units

CERTAIN = -40.0
"""log p of R1 that no correction over pairs lifts above q."""

_BETTER = {"declared": 0, "names": 1, "shapes": 2, "none": 3}


@dataclass(frozen=True)
class Evidence:
    """What was found about a pair. Of what could not be computed, `reasons` says why, by test.

    relations: of each tensor that both have; summary: of these; renumbered: the same after the matching of R3, None
    when that changed no numbering; numbering: R1 by group; log_p_order: of R1 over all groups; dead: R2; aligned:
    R3; calibrated: R3 against replicas; row_norms: of tables that feed a residual stream, `rotated.row_norms`;
    origin: what both are on record to have started from, empty when nothing is.
    """

    pair: Pair
    layout: Layout
    relations: tuple[Relation, ...]
    summary: Summary
    renumbered: Summary | None = None
    numbering: tuple[Numbering, ...] = ()
    log_p_order: float | None = None
    dead: DeadCoordinates | None = None
    aligned: Aligned | None = None
    calibrated: Calibrated | None = None
    row_norms: RowNorms | None = None
    origin: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def distance(self) -> float:
        """How far apart the aligned weights are, 1 - score, from 0 up; NaN when they could not be aligned."""
        return max(0.0, 1 - self.aligned.score) if self.aligned is not None else math.nan


def examine(a: Weights, b: Weights, chance: bool = True) -> Evidence:
    """All evidence of a pair that needs nothing else; chance: whether R3 is compared with shuffled columns, which is
    most of the work and matters for `independent` alone. The result does not depend on the order of a and b: the one
    whose units are better known, else the one with fewer of them, else the one whose path comes first, is `pair.a`."""
    known = [(layout(one), one) for one in (a, b)]
    known.sort(key=lambda item: (_BETTER[item[0].origin], _units(item[0]), str(item[1].path)))
    (chosen, first), (_, second) = known
    pair = pair_up(first, second)
    relations = tuple(_relations(pair))
    found = Evidence(pair, chosen, relations, summarise(relations), origin=origin(first, second))
    usable = _usable(pair, relations)
    groups = [group for group in chosen.groups if group.count >= exact.FEWEST_UNITS]
    reasons = {"numbering": _why_not(pair, chosen)} if not groups else {}
    if not groups:
        return replace(found, reasons=reasons)
    same = {relation.name for relation in relations if relation.kind in ("identical", "rounded", "constant")}
    numbering = tuple(_numbering(pair, groups, chosen.groups, usable - same))
    log_p = _together(numbering, chosen.independent) if numbering else None
    # Chance is the dear part. It tells nothing where R1 rejects whatever the number of pairs, nor of some units alone.
    chance = chance and (log_p is None or log_p > CERTAIN) and all_in_both(pair, chosen.groups)
    aligned = align(pair.load_a, pair.load_b, chosen.groups, usable, chance)
    if not numbering:
        reasons["numbering"] = _all_same(chosen.groups, same) or _why_not(pair, chosen)
    if large := [group.name for group in chosen.groups if group.count > MOST_MATCHED]:
        reasons["aligned"] = f"more than {MOST_MATCHED} units are not matched ({', '.join(large[:3])})"
    return replace(
        found,
        numbering=numbering,
        log_p_order=log_p,
        aligned=aligned if aligned.groups else None,
        row_norms=row_norms(pair.load_a, pair.load_b, chosen.groups, usable - same),
        renumbered=_renumbered(pair, chosen.groups, aligned),
        reasons=reasons,
    )


def all_in_both(pair: Pair, groups: Sequence[Units]) -> bool:
    """Whether all weights that compute units are in both, of extended vocabularies the rows that both have."""
    written = [slots for group in groups for slots in group.written if len(pair.a.shapes[slots.tensor]) > 1]
    return all(at.tensor in pair.names or (at.tensor in pair.tables and at.axis == 1) for at in written)


def _units(known: Layout) -> int:
    return sum(group.count for group in known.groups)


def _relations(pair: Pair) -> list[Relation]:
    found = []
    for name, other in pair.names.items():
        types = pair.a.tensors[name].dtype, pair.b.tensors[other].dtype
        found.append(relate(name, pair.load_a(name), pair.load_b(name), types))
    return found


def _usable(pair: Pair, relations: Sequence[Relation]) -> set[str]:
    """Tensors that may be matched: in both, of one shape, finite."""
    unsound = {relation.name for relation in relations if not relation.finite}
    tables = {name for name in pair.tables if _finite(pair, name)}
    return (pair.names.keys() - unsound) | tables


def _finite(pair: Pair, name: str) -> bool:
    return bool(np.isfinite(pair.load_a(name)).all() and np.isfinite(pair.load_b(name)).all())


def _numbering(pair: Pair, tested: Sequence[Units], groups: Sequence[Units], usable: set[str]) -> list[Numbering]:
    """R1 of every group, all in their stored numbering. Its null is that initialisation treats all units alike: a
    tensor that was computed, such as a table of sines, has the same numbering in all models and is evidence of nothing.
    Where that was kept, it is the same in both, so that usable is without what is the same in both."""
    found = []
    before: dict[str, rows.Placed] = {}
    for group in groups:
        a = rows.of_group(pair.load_a, group, groups, before, usable)
        b = rows.of_group(pair.load_b, group, groups, before, usable)
        before[group.name] = rows.Placed(np.arange(group.count))
        if group in tested and a is not None and b is not None and a.shape == b.shape and a.any() and b.any():
            found.append(exact.index_order(group.name, a, b))
    return found


def _together(numbering: Sequence[exact.Numbering], independent: bool) -> float:
    """log p of R1 over all groups."""
    log_ps = [one.log_p for one in numbering]
    return exact.fisher(log_ps, [one.units for one in numbering]) if independent else exact.cauchy(log_ps)


def _all_same(groups: Sequence[Units], same: set[str]) -> str:
    """Why R1 has nothing to look at, if that is because all that could tell is the same."""
    written = {slots.tensor for group in groups for slots in group.written}
    return "the tensors that could tell are the same in both, as computed tables are, too" if written & same else ""


def _why_not(pair: Pair, chosen: Layout) -> str:
    if not chosen.groups:
        return "; ".join(chosen.reasons) or "no units are known that could be matched"
    if not pair.names:
        return "no tensor of the one has a counterpart of its shape in the other"
    return "the tensors that compute the units differ in shape, are not in both, are not finite, or are zero"


def _renumbered(pair: Pair, groups: Sequence[Units], aligned: Aligned) -> Summary | None:
    """What became of the tensors, once both are in one numbering; None when the stored one is that."""
    if all((placed.order == np.arange(len(placed.order))).all() for placed in aligned.placed_b.values()):
        return None
    found = []
    for name, other in pair.names.items():
        types = pair.a.tensors[name].dtype, pair.b.tensors[other].dtype
        b = in_one_order(pair.load_b(name), name, groups, aligned.placed_b)
        found.append(relate(name, pair.load_a(name), b, types))
    return summarise(found)


def origin(a: Weights, b: Weights) -> str:
    """What both models are on record to have started from; empty when that is not known. Records may err."""
    if a.record is not None and b.record is not None:
        return _same_start(a.record, b.record)
    if a.config is not None and b.config is not None:
        named = a.config.get("_name_or_path")
        if named and named == b.config.get("_name_or_path"):
            return f"both name {named} as what they come from"
    return ""


def _same_start(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    one, two = (record.get("config") or {} for record in (a, b))
    if a.get(PARENT) or b.get(PARENT):  # made out of another run: its seed says nothing of its first weights
        return ""
    if not one.get("model") or not two.get("model"):
        return ""
    alike = one["model"] == two["model"]
    checkpoint = one.get("model_fingerprint")
    if checkpoint and checkpoint == two.get("model_fingerprint") and alike:
        return f"both runs started from the checkpoint {one['model'].get('checkpoint', checkpoint)}"
    if checkpoint or two.get("model_fingerprint") or a.get("seed") is None or a.get("seed") != b.get("seed"):
        return ""
    if alike:
        return f"both runs have the same model options and seed {a.get('seed')}, hence the same first weights"
    # Two models that begin with a table of one shape begin with the same one, whatever follows it.
    return f"both runs drew their first weights with seed {a.get('seed')}, the first of them alike where shapes agree"


@dataclass(frozen=True)
class Replicas:
    """What `replica_scores` found. scores: replica, by its path → group → mean cosine; digests: replica → that of its
    content; on_trust: what no record confirms of them, empty when records do."""

    scores: Mapping[str, Mapping[str, float]]
    digests: Mapping[str, str]
    on_trust: str = ""


def against_replicas(found: Evidence, first: Weights, replicas: Replicas, second: Weights) -> Evidence:
    """The evidence with R3 calibrated. first: the model whose replicas these are, as `replica_scores` gives them;
    second: the other of the pair, which is not compared with itself, should it be among the replicas."""
    if found.aligned is None:
        return found
    if problem := _other_recipe(first, second):
        reason = f"replicas of {first.label} say nothing of {second.label}: {problem}"
        return replace(found, reasons={**found.reasons, "calibration": reason})
    own = str(second.path.resolve()), second.content
    scores = {
        path: groups for path, groups in replicas.scores.items() if path != own[0] and replicas.digests[path] != own[1]
    }
    if not scores:
        reason = f"no run but {first.label} and {second.label} themselves was found"
        return replace(found, reasons={**found.reasons, "calibration": reason})
    common = set(found.aligned.groups).intersection(*(groups.keys() for groups in scores.values()))
    if not common:
        reason = f"no group of units could be matched with all replicas of {first.label}"
        return replace(found, reasons={**found.reasons, "calibration": reason})

    def mean(groups: Mapping[str, float]) -> float:
        return float(np.mean([groups[name] for name in sorted(common)]))

    calibrated = calibrate(mean(found.aligned.groups), [mean(groups) for groups in scores.values()])
    trusted = [replicas.on_trust] if replicas.on_trust else []
    if first.record is None or second.record is None:
        trusted.append(f"if {second.label} was trained by the recipe of {first.label} on the same data")
    return replace(found, calibrated=replace(calibrated, on_trust=" and ".join(trusted)))


def _other_recipe(first: Weights, second: Weights) -> str:
    """Why a training of its own is none of the first one's recipe, so that no replica is like it; empty otherwise. What
    was made out of another run has its recipe on record, and is what is asked about."""
    if second.record is None or second.record.get(PARENT):
        return ""
    return no_replica(first, second)


def replica_scores(
    first: Weights, replicas: Sequence[Weights], look_up: Callable[[Weights, Weights], Evidence] | None = None
) -> Replicas | str:
    """Scores of R3 between a model and its replicas, or why these do not calibrate: another recipe, other or unknown
    data, or one that shares weights with the model. The model itself is left out, and so is what is there twice.
    look_up: gives the evidence of a pair, where it has been found already; `examine` by default."""
    scores: dict[str, Mapping[str, float]] = {}
    digests: dict[str, str] = {}
    own = str(first.path.resolve()), first.content
    for replica in replicas:
        path, digest = str(replica.path.resolve()), replica.content
        if path == own[0] or digest == own[1] or path in scores or digest in digests.values():
            continue
        if problem := no_replica(first, replica):
            return f"{replica.label} is no replica of {first.label}: {problem}"
        found = look_up(first, replica) if look_up else examine(first, replica, chance=False)
        if _is_kin(found, len(replicas)):
            return f"{replica.label} is no replica of {first.label}: it shares weights with it"
        scores[path] = found.aligned.groups if found.aligned is not None else {}
        digests[path] = digest
    if not scores:
        return f"no run but {first.label} itself was found"
    unknown = first.record is None or any(replica.record is None for replica in replicas)
    trusted = f"if the replicas were trained by the recipe of {first.label} on the same data" if unknown else ""
    return Replicas(scores, digests, trusted)


def _is_kin(found: Evidence, replicas: int) -> bool:
    """Whether a replica shares weights with its model after all: one false alarm in a thousand calibrations."""
    if found.summary.share("identical", "rounded", "pruned", "quantised") > 0:
        return True
    return found.log_p_order is not None and found.log_p_order < math.log(0.001 / replicas)


def no_replica(first: Weights, replica: Weights) -> str:
    """Why a model is no replica of the first one, by their records; empty when it is one, or that is unknown."""
    if first.record is None or replica.record is None:
        return ""
    return unlike(first.record, replica.record)


def unlike(first: Mapping[str, Any], replica: Mapping[str, Any]) -> str:
    """Why by their records one run is no replica of another; empty when it is one."""
    one, two = Recipe.of(first).facts(), Recipe.of(replica).facts()
    if not one["data"] or not two["data"]:
        return "it is unknown on what data it was trained"
    if one["data"] != two["data"]:
        return "it was trained on other data"
    differing = [key for key in sorted(one.keys() | two.keys()) if one.get(key) != two.get(key)]
    return f"its recipe differs ({', '.join(differing[:3])})" if differing else ""
