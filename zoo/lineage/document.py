"""A comparison as plain data, for `out=file.json` and for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.lineage.behaviour import RATE_ALONE, baseline, row
from zoo.lineage.exact import EXACT_UP_TO
from zoo.lineage.multiple import ALIGNED, CALIBRATED_SHARE, METHOD, Q
from zoo.lineage.verdict import NULL_EXACT, NULL_REPLICAS, p_text

if TYPE_CHECKING:
    from zoo.lineage.aligned import Calibrated
    from zoo.lineage.answers import Behaviour
    from zoo.lineage.comparison import Comparison, Judged
    from zoo.lineage.evidence import Evidence
    from zoo.lineage.recorded import Recorded
    from zoo.lineage.relation import Summary
    from zoo.lineage.weights import Weights

VERSION = 1


def document(comparison: Comparison) -> dict[str, Any]:
    """Everything that was found, in JSON types. Numbers that do not exist are null, with a reason beside them."""
    return {
        "lineage_version": VERSION,
        "method": {
            "q": Q,
            "error_rate": f"{METHOD}, over all exact tests of all pairs at {1 - CALIBRATED_SHARE:.0%} of q and over R3 "
            f"of all calibrated pairs at {CALIBRATED_SHARE:.0%} of it, either at all of it where the other is missing; "
            "what answers say is a claim of its own, over all pairs with references at q",
            "exact_tests": comparison.tests,
            "tree": "records first; then the minimum arborescence over 1 - aligned score",
        },
        "models": [_model(model) for model in comparison.models],
        "pairs": [_pair(judged) for judged in comparison.pairs],
        "tree": [
            {"child": child, "parent": parent, "direction": comparison.family.directions[child]}
            for child, parent in sorted(comparison.parents.items())
        ],
    }


def _model(model: Weights) -> dict[str, Any]:
    return {
        "label": model.label,
        "path": str(model.path),
        "tensors": len(model.tensors),
        "numbers": sum(math.prod(stored.shape) for stored in model.tensors.values()),
        "types": sorted({stored.dtype for stored in model.tensors.values()}),
        "left_out": dict(model.left_out),
        "task": model.record.get("task") if model.record else None,
        "dataset": model.record.get("dataset") if model.record else None,
    }


def _pair(judged: Judged) -> dict[str, Any]:
    found, verdict = judged.evidence, judged.verdict
    return {
        "first": judged.first.label,
        "second": judged.second.label,
        "verdict": verdict.name,
        "strength": verdict.strength,
        "statement": verdict.statement,
        "null_hypothesis": verdict.null or None,
        "later": verdict.later or None,
        "on_record": found.origin or None,
        "made_from": _made_from(judged),
        "units": {"known_from": found.layout.origin, "reasons": list(found.layout.reasons)},
        "tensors": _tensors(found),
        "evidence": [_numbering(judged), _dead(judged), _aligned(judged), *_answers(judged)],
    }


def _made_from(judged: Judged) -> dict[str, Any] | None:
    """What the record of one says of its descent from the other: first of all that is known of a pair."""
    told = judged.recorded
    if told is None:
        return None
    return {"child": told.child, "parent": told.parent, "steps": list(told.steps), "against": told.against}


def _answers(judged: Judged) -> list[dict[str, Any]]:
    """The rows of the black box, when it was asked for."""
    return [] if judged.behaviour is None else [baseline(judged), row(judged)]


def _tensors(found: Evidence) -> dict[str, Any]:
    renumbered = found.renumbered
    return {
        "shared": len(found.pair.names),
        "of_another_shape": sorted([*found.pair.reshaped, *found.pair.tables]),
        "only_in_one": len(found.pair.only_a) + len(found.pair.only_b),
        "numbers_by_relation": dict(found.summary.numbers),
        "numbers_by_relation_renumbered": dict(renumbered.numbers) if renumbered is not None else None,
    }


def _numbering(judged: Judged) -> dict[str, Any]:
    found = judged.evidence
    log_p = found.log_p_order
    return {
        "test": "R1",
        "name": "the same numbering of hidden units",
        "kind": "exact",
        "null_hypothesis": NULL_EXACT,
        "p": None if log_p is None else math.exp(log_p),
        "log10_p": None if log_p is None else log_p / math.log(10),
        "p_adjusted": judged.adjusted.get("numbering"),
        "units": sum(one.units for one in found.numbering),
        "groups": [
            {
                "group": one.group,
                "units": one.units,
                "rho": one.rho,
                "log10_p": one.log_p / math.log(10),
                "p_from": "all orders" if one.units <= EXACT_UP_TO else "approximation",
            }
            for one in found.numbering
        ],
        "combined_by": "Fisher" if found.layout.independent else "Cauchy",
        "reason": None if log_p is not None else found.reasons.get("numbering"),
    }


def _dead(judged: Judged) -> dict[str, Any]:
    dead = judged.evidence.dead
    facts: Mapping[str, Any] = {} if dead is None else vars(dead)
    return {
        "test": "R2",
        "name": "the same weights of inputs that no training moved",
        "kind": "exact",
        "null_hypothesis": NULL_EXACT,
        "p": facts.get("p"),
        "p_adjusted": judged.adjusted.get("dead"),
        "statistic": facts.get("statistic"),
        "dead_coordinates": facts.get("dead"),
        "units": facts.get("units"),
        "draws": facts.get("draws"),
        "reason": None if dead is not None else judged.evidence.reasons.get("dead"),
    }


def _aligned(judged: Judged) -> dict[str, Any]:
    found = judged.evidence
    aligned, calibrated = found.aligned, found.calibrated
    return {
        "test": "R3",
        "name": "aligned weights",
        "kind": "conformal" if calibrated is not None and not calibrated.on_trust else "heuristic",
        "null_hypothesis": NULL_REPLICAS if calibrated is not None else None,
        "p": None if calibrated is None else calibrated.p,
        "p_adjusted": judged.adjusted.get(ALIGNED),
        "holds": None if calibrated is None else calibrated.on_trust or None,
        "replicas": 0 if calibrated is None else calibrated.replicas,
        "highest_replica": None if calibrated is None else calibrated.highest,
        "score": None if aligned is None else aligned.score,
        "above_chance": None if aligned is None or aligned.chance is None else aligned.above_chance,
        "units": 0 if aligned is None else aligned.units,
        "groups": {} if aligned is None else dict(aligned.groups),
        "row_norms_rho": None if found.row_norms is None else found.row_norms.rho,
        "reason": _why_not_aligned(found),
    }


def evidence_rows(judged: Judged) -> list[dict[str, Any]]:
    """The evidence of a pair in one form, a row each, as a report's document has it.
    What a record tells comes first, then what the numbers themselves do: an exact relation, which needs no p-value."""
    found = judged.evidence
    kept = found.summary if found.renumbered is None else max(found.summary, found.renumbered, key=_kept)
    share = _kept(kept)
    count = sum(kept.numbers.values())
    why = {"name": "the stored numbers themselves", "reason": None if count else "no tensor is in both, in one shape"}
    rows = [*_of_record(judged), _row("numbers", "exact", why, share, count)]
    numbering, dead, aligned = _numbering(judged), _dead(judged), _aligned(judged)
    rhos = {one.group: one.rho for one in found.numbering}
    rows.append(
        {
            **_row("R1", "exact", numbering, max(rhos.values(), default=None), numbering["units"] or None),
            "log10_p": numbering["log10_p"],
        }
    )
    rows.append(_row("R2", "exact", dead, dead["statistic"], dead["dead_coordinates"]))
    told = {"reason": _against(found.calibrated)} if found.calibrated is not None else {}
    rows.append(_row("R3", aligned["kind"], {**aligned, **told}, aligned["score"], aligned["units"] or None))
    return rows if judged.behaviour is None else [*rows, *_repeated(judged.behaviour), _residual(judged)]


RECORD = "the record of the run"


def _of_record(judged: Judged) -> list[dict[str, Any]]:
    """That one was made out of the other, and by which steps; no row where no record says so."""
    if judged.recorded is None:
        return []
    return [
        _row("record", "on record", {"name": RECORD, "reason": ", ".join(judged.recorded.steps) or None}, None, None)
    ]


REPEATED = ("wrong answers of the first that the second repeats", "wrong answers of the second that the first repeats")


def _repeated(found: Behaviour) -> list[dict[str, Any]]:
    """The baseline each way; its interval stands beside it, since there is no p-value."""
    rows = []
    for title, rate in zip(REPEATED, found.repeated or (None, None), strict=True):
        reason = found.reason if rate is None else rate.reason or RATE_ALONE
        row = _row("B1", "heuristic", {"name": title, "reason": reason}, None, rate.n if rate else None)
        ends = {"statistic": rate.value, "low": rate.low, "high": rate.high} if rate else {"low": None, "high": None}
        rows.append(row | ends)
    return rows


def _residual(judged: Judged) -> dict[str, Any]:
    known = row(judged)
    decisive = judged.behaviour.decisive if judged.behaviour else None
    if decisive is None:
        return _row("B2", known["kind"], known, None, known["examples"] or None)
    test = decisive.residual
    told = f"against {test.references} references of {decisive.of}, the most alike of which scores {test.highest:.3f}"
    return _row("B2", known["kind"], {**known, "reason": told}, test.score, test.n)


def _against(calibrated: Calibrated) -> str:
    told = f"against {calibrated.replicas} replicas, the most alike of which scores {calibrated.highest:.3f}"
    return f"{told}; it holds {calibrated.on_trust}" if calibrated.on_trust else told


def _kept(summary: Summary) -> float:
    """The share of the numbers that the one has from the other, but for pruning and rounding."""
    return summary.share("identical", "rounded", "pruned", "quantised")


def _row(test: str, kind: str, known: Mapping[str, Any], statistic: float | None, n: int | None) -> dict[str, Any]:
    p = known.get("p")
    return {
        "test": test,
        "title": known["name"],
        "kind": kind,
        "null": known.get("null_hypothesis") if p is not None else None,
        "p": p,
        "log10_p": math.log10(p) if p else None,
        "corrected": known.get("p_adjusted"),
        # Rounded: the last digits depend on the order in which a processor adds.
        "statistic": None if statistic is None or math.isnan(statistic) else round(statistic, 4),
        "n": n,
        "reason": known.get("reason"),
    }


def _why_not_aligned(found: Evidence) -> str | None:
    if reasons := [found.reasons[name] for name in ("aligned", "calibration") if name in found.reasons]:
        return "; ".join(reasons)
    return None if found.calibrated is not None else "no replicas were given"


def told_of_answers(judged: Judged) -> str:
    """Baseline and residual correlation of a pair in a few words: `repeats .4 of 10 errors; .82, n = 100`."""
    found = judged.behaviour
    if found is None or not found.repeated:
        return "–"
    first, decisive = found.repeated[0], found.decisive
    rate = f"{first.value:.2f} ({first.low:.2f}–{first.high:.2f})" if first.value is not None else "none"
    errors = f"errors repeated: {rate}, n = {first.n}"
    return (
        errors if decisive is None else f"{errors}\nresidual {decisive.residual.score:.3f}, n = {decisive.residual.n}"
    )


AGAINST = {
    "unrelated weights": "but their weights are as unlike as those of strangers",
    "other weights": "but the parent's weights are not those that the record names",
    "parent came later": "but by the weights the parent is the later one",
}
"""What weights say against a record."""


def told_of_record(found: Recorded) -> str:
    """`On record: b was made from a (prune:0.5, permute).`, with what weights say against it."""
    how = f" ({', '.join(found.steps)})" if found.steps else ""
    against = f", {AGAINST[found.against]}" if found.against else ""
    return f"On record: {found.child} was made from {found.parent}{how}{against}."


def told(judged: Judged) -> str:
    """The exact p-values of a pair in a few words: `p = 0.4`, or `not tested`."""
    if judged.evidence.log_p_order is None:
        return "not tested"
    return p_text(judged.evidence.log_p_order)
