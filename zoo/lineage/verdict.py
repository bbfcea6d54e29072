"""From evidence to a verdict. The rules, in this order; none of their numbers was chosen on models of known descent.

1. copy: every number that both hold is the same, or the same once rounded to the other's storage type.
2. derived: the numbers of one are those of the other after pruning or rounding to a grid, renumbering or rescaling of
   units; or the hidden layers are the same bit for bit and only others differ. Exact relations, no p-value is needed.
3. An exact test (R1, R2) rejects independence, or R3 does against replicas, at q = .05 over all tests of all pairs
   (`multiple`). R3 speaks of trainings by one recipe on the same data: what records refute is not calibrated, what they
   leave open makes it a heuristic. Then the two share weights. common ancestor: when records name one start for both,
   or a third model lies between them; derived otherwise. Weights cannot tell a descendant from a sibling whose ancestor
   is not at hand, and this is said.
4. convergent: no test rejects, no weight of the units is the same in both, and against at least one replica the
   aligned weights are no more alike than those of a replica, though more than chance. independent: no more
   alike than chance; with a residual stream, only when the lengths of a table's rows, which a rotation keeps, are
   unrelated, too.
5. undetermined: everything else; above all, R1 is blind to renumbered units, and nothing else could be calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from zoo.lineage.aligned import SAME, Calibrated
from zoo.lineage.evidence import Evidence, all_in_both
from zoo.lineage.multiple import ALIGNED, ENOUGH_REPLICAS, Q
from zoo.lineage.relation import Summary
from zoo.lineage.rotated import RESIDUAL
from zoo.p_values import p_said

Name = Literal[
    "copy", "derived", "common ancestor", "behaviourally derived", "convergent", "independent", "undetermined"
]
Strength = Literal["exact", "conformal", "heuristic"]

MOST_ELSEWHERE = 0.5
"""What is the same in both tells of a copy, or of kept hidden layers, only when less than this share of the numbers is
elsewhere: a fixed table of positions, say, may be the same in models that have nothing else in common."""

NULL_EXACT = "the two were initialised and trained independently"
NULL_REPLICAS = "the second is one more independent training of the first one's recipe"


@dataclass(frozen=True)
class Verdict:
    """What is said of a pair. statement: why, in a sentence or two; null: the hypothesis that a p-value speaks of,
    empty without one; strength: what the verdict rests on: an exact test or relation, replicas, or a heuristic;
    later: the label of the model that came later, empty when that cannot be told."""

    name: Name
    statement: str
    strength: Strength
    null: str = ""
    later: str = ""

    @property
    def shares_weights(self) -> bool:
        """Whether the pair is an edge of the family tree."""
        return self.name in ("copy", "derived", "common ancestor")


def judge(found: Evidence, adjusted: Mapping[str, float], between: str = "") -> Verdict:
    """The verdict on a pair. adjusted: p-values by test, adjusted over all pairs; R3's (`ALIGNED`) is that of
    the pair alone where it is left out; between: a third
    model that is nearer to both than they are to each other, if there is one."""
    if not found.pair.names and not found.pair.tables:
        return Verdict("undetermined", "No tensor of the one has a counterpart in the other.", "heuristic")
    return (
        _copied(found)
        or _transformed(found)
        or _shared(found, adjusted, between)
        or _alike(found)
        or Verdict("undetermined", _why_undetermined(found, adjusted), "heuristic")
    )


def _copied(found: Evidence) -> Verdict | None:
    summary, pair = found.summary, found.pair
    same = summary.share("identical", "rounded")
    if not _most_is_shared(found):
        return None
    if same != 1 or pair.reshaped or pair.tables or _not_finite(summary):
        return None
    missing = len(pair.only_a) + len(pair.only_b)
    what = f"{'The shared' if missing else 'All'} {summary.tensors} tensors are the same"
    how = " bit for bit" if not summary.numbers.get("rounded") else " once rounded to the other's storage type"
    if not missing:
        return Verdict("copy", what + how + ".", "exact", later=_later(found, summary))
    if pair.only_a and pair.only_b:
        return _kept(found, f"{what}{how}; {missing} are in one of the two only.")
    fuller, part = (pair.a, pair.b) if pair.only_a else (pair.b, pair.a)
    return _kept(found, f"{what}{how}; {missing} more are in {fuller.label} only, not in {part.label}.")


def _kept(found: Evidence, statement: str) -> Verdict:
    """Part of the weights is the same bit for bit."""
    if found.origin:
        return Verdict("common ancestor", f"{statement} By their records {found.origin}.", "exact")
    return Verdict("derived", statement, "exact")


def _most_is_shared(found: Evidence) -> bool:
    """Whether the tensors that both have hold most numbers of the smaller model."""
    shared = sum(relation.numbers for relation in found.relations)
    sizes = [sum(math.prod(shape) for shape in model.shapes.values()) for model in (found.pair.a, found.pair.b)]
    return shared > (1 - MOST_ELSEWHERE) * min(sizes)


def _later(found: Evidence, summary: Summary) -> str:
    """The side that lost information, which the other cannot have got back."""
    return {"a": found.pair.a.label, "b": found.pair.b.label}.get(summary.later or "", "")


def _not_finite(summary: Summary) -> bool:
    return bool(summary.numbers.get("not finite"))


def _transformed(found: Evidence) -> Verdict | None:
    for summary, renumbered in ((found.summary, ""), (found.renumbered, "renumbered")):
        if summary is None or not _most_is_shared(found):
            continue
        if summary.share("identical", "rounded", "pruned", "quantised") == 1:
            done = [kind for kind in ("pruned", "quantised") if summary.numbers.get(kind)]
            how = " and ".join([*([renumbered] if renumbered else []), *done]) or "kept"
            return Verdict("derived", f"Every number is the other's, {how}.", "exact", later=_later(found, summary))
    if _units_kept(found):
        return _kept(found, "Every hidden unit is the other's to within rounding, but for its number and size.")
    if _hidden_kept(found):
        return _kept(found, "The hidden layers are the same bit for bit; only what follows them differs.")
    return None


def _units_kept(found: Evidence) -> bool:
    """What is the same as it is stored is no sign: a computed table is, too, and `_hidden_kept` looks at the rest."""
    if found.aligned is None or not _whole(found) or not found.aligned.lowest >= 1 - SAME:
        return False
    same = {one.name for one in found.relations if one.kind in ("identical", "rounded", "constant")}
    moved = {group.name for group in found.layout.groups if any(at.tensor not in same for at in group.written)}
    return bool(moved & found.aligned.telling)


def _whole(found: Evidence) -> bool:
    """Whether every unit could be compared, of extended vocabularies by the rows that both have."""
    groups = found.layout.groups
    return found.aligned is not None and len(found.aligned.groups) == len(groups) and all_in_both(found.pair, groups)


def _hidden_kept(found: Evidence) -> bool:
    computing = {slots.tensor for group in found.layout.groups for slots in group.written}
    kinds = {relation.name: relation.kind for relation in found.relations}
    told = [kinds[name] for name in computing if name in kinds and kinds[name] != "constant"]
    return (
        bool(told)
        and all(name in kinds for name in computing)
        and all(kind in ("identical", "rounded") for kind in told)
        and found.summary.share("identical", "rounded") > MOST_ELSEWHERE
    )


def _shared(found: Evidence, adjusted: Mapping[str, float], between: str) -> Verdict | None:
    rejected = [name for name, p in adjusted.items() if p <= Q and name != ALIGNED]
    kind: Strength
    if rejected:
        why, null, kind = _exactly(found, rejected), NULL_EXACT, "exact"
    elif found.calibrated is not None and _conformal_p(found.calibrated, adjusted) <= Q:
        why, null = _conformally(found, found.calibrated, adjusted), NULL_REPLICAS
        kind = "heuristic" if found.calibrated.on_trust else "conformal"
    else:
        return None
    if found.origin:
        return Verdict("common ancestor", f"{why} By their records {found.origin}.", kind, null)
    if between:
        told = (
            f"{why} {between} is nearer to both than they are to each other: they come from it, or it stands between."
        )
        return Verdict("common ancestor", told, kind, null)
    told = f"{why} That both come from a third model which is not among those compared cannot be excluded."
    return Verdict("derived", told, kind, null)


def _conformal_p(calibrated: Calibrated, adjusted: Mapping[str, float]) -> float:
    return adjusted.get(ALIGNED, calibrated.p)


def _conformally(found: Evidence, against: Calibrated, adjusted: Mapping[str, float]) -> str:
    than = f"all but {against.as_high} of" if against.as_high else "any of"
    told = (
        f"Aligned, they are more alike (score {_score(found)}) than {than} {against.replicas} replicas (highest "
        f"{against.highest:.3f}), {p_said(against.p)}, and {p_said(_conformal_p(against, adjusted))} over all "
        "tests of all pairs"
    )
    return f"{told}; that holds {against.on_trust}." if against.on_trust else f"{told}."


def _exactly(found: Evidence, rejected: list[str]) -> str:
    told = []
    if "numbering" in rejected and found.log_p_order is not None:
        units = sum(one.units for one in found.numbering)
        told.append(f"Their {units} hidden units carry the same numbers ({p_text(found.log_p_order)})")
    if "dead" in rejected and found.dead is not None:
        told.append(f"{found.dead.dead} inputs that no training moved have the same weights ({p_said(found.dead.p)})")
    return "; ".join(told) + "."


def _alike(found: Evidence) -> Verdict | None:
    """No test rejects. That is said of models only when all their layers could be compared, and none is the same."""
    if _some_same(found):
        return None
    if found.aligned is None or found.aligned.chance is None or found.log_p_order is None or not _whole(found):
        return None
    if not found.aligned.above_chance:
        if _may_be_rotated(found):
            return None
        told = f"No test finds shared weights, and aligned they are as unlike as shuffled ones ({_score(found)})."
        if norms := found.row_norms:
            told += (
                f" Nor is one the other with its residual stream rotated: the lengths of {norms.rows} rows of "
                f"{norms.tensor} are unrelated (rank correlation {norms.rho:.2f})."
            )
        return Verdict("independent", told, "heuristic", NULL_EXACT)
    against = found.calibrated
    if against is None or against.score > against.highest:
        return None
    told = (
        f"No test finds shared weights. Aligned they are alike (score {_score(found)}), but not more than a replica "
        f"(highest of {against.replicas}: {against.highest:.3f}, {p_said(against.p)})."
    )
    sure = against.enough and not against.on_trust
    return Verdict("convergent", told, "conformal" if sure else "heuristic", NULL_REPLICAS)


def _some_same(found: Evidence) -> bool:
    """Whether a weight of the units is the same in both, which may be a computed table or may have been kept."""
    return bool(_same_tensors(found))


def _same_tensors(found: Evidence) -> list[str]:
    written = {slots.tensor for group in found.layout.groups for slots in group.written}
    return [
        one.name
        for one in found.relations
        if one.name in written and one.kind in ("identical", "rounded") and len(found.pair.a.shapes[one.name]) > 1
    ]


def _may_be_rotated(found: Evidence) -> bool:
    if all(group.name != RESIDUAL for group in found.layout.groups):
        return False
    return found.row_norms is None or not found.row_norms.unrelated


def _why_undetermined(found: Evidence, adjusted: Mapping[str, float]) -> str:
    if _not_finite(found.summary):
        return "Some weights are NaN or infinite; what is left decides nothing."
    if found.log_p_order is None:
        return f"Nothing could be tested: {found.reasons.get('numbering', 'no units in common')}."
    if same := _same_tensors(found):
        return (
            f"{len(same)} tensors are the same in both ({', '.join(same[:3])}): computed tables are, and so is what "
            f"was kept. In all others no test finds shared weights ({p_text(found.log_p_order)})."
        )
    if reason := found.reasons.get("aligned"):
        return f"The units are numbered differently ({p_text(found.log_p_order)}), and {reason}."
    if found.aligned is not None and _whole(found) and not found.aligned.above_chance and _may_be_rotated(found):
        norms = found.row_norms
        why = "no table tells whether it was" if norms is None else f"{norms.rows} rows of {norms.tensor} have lengths "
        why += "" if norms is None else f"alike (rank correlation {norms.rho:.2f})"
        return f"No test finds shared weights, but a residual stream that was rotated would look the same, and {why}."
    if not _whole(found):
        return (
            "Only part of the units has the same shape in both; there no test finds shared weights "
            f"({p_text(found.log_p_order)}, n = {sum(one.units for one in found.numbering)} units), and of the rest "
            "nothing can be said."
        )
    told = f"The units are numbered differently ({p_text(found.log_p_order)}), which renumbering would explain, too. "
    if found.calibrated is not None and not found.calibrated.enough:
        return (
            f"{told}Aligned they are more alike (score {_score(found)}) than all {found.calibrated.replicas} replicas, "
            f"but fewer than {ENOUGH_REPLICAS} replicas cannot reach p ≤ {Q:g}."
        )
    if found.calibrated is not None:
        return (
            f"{told}Aligned they are more alike (score {_score(found)}) than all {found.calibrated.replicas} replicas "
            f"({p_said(found.calibrated.p)}), but over all tests of all pairs that is "
            f"{p_said(_conformal_p(found.calibrated, adjusted))}: fewer pairs at once or more replicas could reach "
            f"p ≤ {Q:g}."
        )
    reason = found.reasons.get("calibration", "")
    missing = (
        reason or f"whether that is more than training alone makes, {ENOUGH_REPLICAS} replicas would tell (replicas=)"
    )
    return f"{told}Aligned they are alike beyond chance (score {_score(found)}); {missing}."


def _score_of(found: Evidence) -> float:
    return found.aligned.score if found.aligned is not None else math.nan


def _score(found: Evidence) -> str:
    units = found.aligned.units if found.aligned is not None else 0
    return f"{_score_of(found):.3f}, n = {units} units"


def p_text(log_p: float) -> str:
    """A p-value from its natural logarithm: `p = 0.03`, `p < 10⁻³¹²`."""
    return p_said(math.exp(log_p), log_p / math.log(10))
