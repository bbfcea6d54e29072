"""What a report says first: the headline, the measure that pairs are shown in, and what to know before using either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from zoo.analysis.convert import from_scalar
from zoo.homogeneity import headline as numbers
from zoo.homogeneity.behaviour import without_intervals
from zoo.homogeneity.results import Pairs
from zoo.homogeneity.selection import extreme_pairs
from zoo.reporting import schema
from zoo.shares import FEW_EXAMPLES

if TYPE_CHECKING:
    from zoo.homogeneity.bootstrap import Bootstrap
    from zoo.store.panel import Panel

NAMED = 4
"""Runs that a warning names."""

KINSHIP: schema.Shown = "kinship"
ERRORS: schema.Shown = "error_correlation"

_NO_NEWS: frozenset[schema.LeftOutCode] = frozenset(("note", "incomplete", "replaced", "no_features"))
"""What was left out and says nothing new: a run that failed was reported where it was made, and of two runs with the
same answers either may go."""
_WARNED: Mapping[schema.LeftOutCode, schema.WarningCode] = {
    "damaged": "damaged",
    "replaced_by_others": "replaced",
    "not_answered": "fewer_examples",
}
"""What has a warning that names it; all others cannot be compared."""


def headline(
    panel: Panel,
    plan: Bootstrap,
    results: Mapping[str, Pairs],
    left_out: Sequence[schema.LeftOut],
    runs: Sequence[schema.RunOrigin],
) -> schema.Headline:
    """The two numbers and what belongs to them. results: measures of pairs by name; left_out, runs: of the document."""
    found = numbers.headline(panel, plan)
    measure = shown_measure(panel, results, found.models)
    most, least = _extremes(panel, results[measure], found.models, measure, plan)
    return schema.Headline(
        models=len(found.models),
        effective_models=_estimate(found.effective_models),
        joint_failure=_estimate(found.joint_failure),
        joint_failures=found.joint_failures,
        left_out=[schema.LeftOutModel(model=model, why=why) for model, why in sorted(found.left_out.items())],
        warnings=warnings(found, left_out, runs),
        measure=measure,
        most_alike=most,
        least_alike=least,
    )


def _estimate(found: numbers.Estimate) -> schema.Estimate:
    return schema.estimate(found.value, found.low, found.high, found.n, found.reason, found.bound)


def together(panel: Panel, counted: Sequence[int]) -> Panel:
    """The panel of the models that count alone, for what is about all models together: next to a model that is never
    wrong nothing is failed by all. It may have one model, or none: then what is about several is undefined."""
    if len(counted) == len(panel.models):
        return panel
    runs = [run for run, model in enumerate(panel.runs) if model in counted]
    return replace(
        panel,
        models=tuple(panel.models[model] for model in counted),
        runs=tuple(list(counted).index(panel.runs[run]) for run in runs),
        seeds=tuple(panel.seeds[run] for run in runs),
        predictions=panel.predictions[runs],
        probabilities=None if panel.probabilities is None else panel.probabilities[runs],
    )


def too_few(found: numbers.Headline, panel: Panel) -> str:
    """Why nothing can be said of the models that count together; empty where at least two do. For a single model that
    counts, what it fails is known, so there is no such reason."""
    return found.effective_models.reason if len(found.models) < 2 and len(found.models) < len(panel.models) else ""


def shown_measure(panel: Panel, results: Mapping[str, Pairs], counted: Sequence[int]) -> schema.Shown:
    """What all pairs are shown in: kinship where every two models that count have one, else the correlation of their
    errors, for all pairs alike: two scales on one map could not be read."""
    models = list(counted) if len(counted) > 1 else list(range(len(panel.models)))
    kinships = results[KINSHIP].value[np.ix_(models, models)]
    return KINSHIP if len(models) > 1 and np.isfinite(kinships).all() else ERRORS


def _extremes(
    panel: Panel, shown: Pairs, counted: Sequence[int], measure: schema.Shown, plan: Bootstrap
) -> tuple[schema.PairOfModels | None, schema.PairOfModels | None]:
    """The most and the least alike of the models that count, with intervals that allow for the choice."""
    if len(counted) < 2:
        return None, None
    found = extreme_pairs(together(panel, counted), _only(shown, counted), measure == KINSHIP, plan)
    told = [
        schema.PairOfModels(a=counted[pair.a], b=counted[pair.b], likeness=from_scalar(pair.number)) for pair in found
    ]
    return told[0] if told else None, told[1] if len(told) > 1 else None


def as_in_the_headline(results: Mapping[str, Pairs], told: schema.Headline, plan: Bootstrap) -> dict[str, Pairs]:
    """The measures of pairs, of which the most and the least alike pair have no interval in the measure that is shown
    where they have none in the headline."""
    measure = told["measure"]
    ends = [pair for pair in (told["most_alike"], told["least_alike"]) if pair and pair["likeness"]["low"] is None]
    last = {
        (pair["a"], pair["b"]): pair["likeness"]["reason"] or ""
        for pair in ends
        if np.isfinite(results[measure].low[pair["a"], pair["b"]])
    }
    return {**results, measure: without_intervals(results[measure], last, plan)}


def _only(found: Pairs, models: Sequence[int]) -> Pairs:
    """The pairs of some of the models."""
    places, taken = {model: place for place, model in enumerate(models)}, np.ix_(models, models)
    reasons = {
        (places[a], places[b]): reason for (a, b), reason in found.reasons.items() if a in places and b in places
    }
    return Pairs(found.value[taken], found.low[taken], found.high[taken], found.n[taken], reasons)


def warnings(
    found: numbers.Headline,
    left_out: Sequence[schema.LeftOut],
    runs: Sequence[schema.RunOrigin],
) -> list[schema.HeadlineWarning]:
    """What changes the headline or its meaning and cannot be seen in it. Empty for a study of nothing but sound runs of
    its own."""
    named: dict[schema.WarningCode, list[str]] = {code: [] for code in ("damaged", "replaced", "fewer_examples")}
    others: Counter[str] = Counter()
    for item in left_out:
        if code := _WARNED.get(item["code"]):
            named[code].append(item["what"])
        elif item["code"] not in _NO_NEWS:
            others[item["why"]] += 1
    made_from = [place for place, run in enumerate(runs) if run["parent"] is not None]
    imported = [place for place, run in enumerate(runs) if run["imported"]]
    told = [_warning(code, len(names), names=names) for code, names in named.items() if names]
    told += [_warning("not_comparable", others.total(), names=list(others))] if others else []
    told += [_warning("made_from", len(made_from), runs=made_from)] if made_from else []
    told += [_warning("imported", len(imported), runs=imported)] if 0 < len(imported) < len(runs) else []
    n = found.effective_models.n
    if n < FEW_EXAMPLES:
        told.append(_warning("few_examples", n))
    elif found.few_failures and found.effective_models.value is not None:
        told.append(_warning("few_failures", None))
    return told


def _warning(
    code: schema.WarningCode, count: int | None, names: Sequence[str] = (), runs: Sequence[int] = ()
) -> schema.HeadlineWarning:
    return schema.HeadlineWarning(code=code, count=count, names=list(names)[:NAMED], runs=list(runs)[:NAMED])
