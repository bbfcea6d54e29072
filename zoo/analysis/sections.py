"""The sections of a report that rest on answers alone, one function each: a panel in, a part of the document out."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.analysis.convert import (
    NO_PAIR,
    NO_SPREAD,
    SAME_ANSWERS,
    SOME_PAIR,
    finite,
    from_models,
    from_pairs,
    from_scalar,
)
from zoo.homogeneity import failures, kinship
from zoo.homogeneity.bootstrap import Bootstrap, too_few
from zoo.homogeneity.headline import Estimate, headline
from zoo.homogeneity.leaderboard import Leaderboard
from zoo.homogeneity.results import ONE_MODEL
from zoo.homogeneity.selection import best_accuracy
from zoo.reporting import schema
from zoo.reporting.schema import CONFIDENT, number, undefined

if TYPE_CHECKING:
    from zoo.homogeneity.measures import Measure
    from zoo.homogeneity.results import Pairs, PerModel, Result
    from zoo.store.panel import Panel

LISTED = 12
"""Examples listed for a pair."""
LISTED_IN_ALL = 4000
"""Examples listed for all pairs together: a page of a hundred models must stay small."""
FAILED_LISTED = 60


@dataclass(frozen=True)
class Votes:
    """What each model says as one. answers: (M, N) the class that most of its replicas answered, the first of equals;
    probabilities: (M, N, C) means over replicas, or None."""

    answers: np.ndarray
    probabilities: np.ndarray | None

    @classmethod
    def of(cls, panel: Panel) -> Votes:
        """From a panel."""
        owner, classes = np.asarray(panel.runs), np.arange(len(panel.classes))
        answers, means = [], []
        for model in range(len(panel.models)):
            said = panel.predictions[owner == model]
            answers.append((said[:, :, None] == classes).sum(0).argmax(1))
            if panel.probabilities is not None:
                means.append(panel.probabilities[owner == model].mean(0))
        return cls(np.stack(answers), np.stack(means) if means else None)


def measures(kinds: Sequence[type[Measure]], results: Mapping[str, Result]) -> list[schema.Measure]:
    """How to read each measure."""
    return [
        schema.Measure(
            name=kind.name,
            title=kind.title,
            scope=kind.scope,
            needs=sorted(kind.needs),
            higher_is=kind.higher_is,
            range=[finite(bound) for bound in kind.range],
            chance=kind.chance,
            accuracy_adjusted=kind.accuracy_adjusted,
            source=kind.source,
            formula=(inspect.getdoc(kind) or "").partition("\n")[0],
            note=getattr(results[kind.name], "note", "") or None,
        )
        for kind in kinds
    ]


def pairs(panel: Panel, votes: Votes, results: Mapping[str, Pairs], claims: kinship.Claims) -> list[schema.Pair]:
    """All pairs with a ≤ b; a self-pair compares a model's replicas."""
    found = []
    models = len(panel.models)
    listed = min(LISTED, max(1, LISTED_IN_ALL // max(1, models * (models - 1))))
    wrong = votes.answers != panel.labels
    for a, b in itertools.combinations_with_replacement(range(models), 2):
        apart, both = votes.answers[a] != votes.answers[b], wrong[a] & wrong[b]
        numbers = {name: from_pairs(result, a, b) for name, result in results.items()}
        pair = schema.Pair(
            a=a,
            b=b,
            measures=numbers,
            p_values=None if a == b else _p_values(claims, numbers, a, b),
            differing=None if a == b else _listed(panel, apart, listed),
            failed_together=None if a == b else _listed(panel, both, listed),
        )
        if (z := _z(results.get("shared_wrong_answers"), a, b)) is not None:
            pair["z"] = z
        found.append(pair)
    return found


def _z(shared: Pairs | None, a: int, b: int) -> float | None:
    """How surprising it is that two models share so many wrong answers; None where that is undefined."""
    part = shared.parts.get("z") if shared is not None else None
    return None if part is None or a == b else finite(part.value[a, b])


def _listed(panel: Panel, chosen: np.ndarray, most: int) -> schema.ExampleList:
    rows = np.flatnonzero(chosen)
    return schema.ExampleList(total=len(rows), ids=[panel.ids[row] for row in rows[:most]])


def _p_values(claims: kinship.Claims, numbers: Mapping[str, schema.Number], a: int, b: int) -> schema.PValues:
    """numbers: the measures of the pair, which know why a test of it is undefined."""

    def claim(raw: np.ndarray, corrected: np.ndarray, measure: str) -> schema.Claim:
        value, tested = finite(raw[a, b]), numbers.get(measure)
        # Beside a value with an interval a reason is something to mind, and does not say why nothing could be tested.
        known = tested and (tested["value"] is None or tested["low"] is None)
        reason = (tested["reason"] if tested and known else None) or NO_SPREAD
        return schema.Claim(raw=value, corrected=finite(corrected[a, b]), reason=reason if value is None else None)

    more, less = claims.more_than_replicas, claims.less_than_independent
    return schema.PValues(
        more_alike_than_replicas=claim(more, claims.more_than_replicas_adjusted, "kinship"),
        less_than_independent=claim(less, claims.less_than_independent_adjusted, "error_correlation"),
    )


def picture(panel: Panel, likeness: Pairs, counted: Sequence[int]) -> schema.Map:
    """Map and dendrogram of 1 − likeness. likeness: kinship, or the correlation of errors; counted: the models that
    count in the headline, of which those are drawn that have a likeness to any other."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    empty = schema.Map(models=[], coordinates=[], explained=None, merges=[], leaf_order=[], reason=None)
    models = [m for m in counted if np.isfinite(likeness.value[m, [k for k in counted if k != m]]).any()]
    if len(models) < 2:
        return {**empty, "reason": ONE_MODEL if len(panel.models) < 2 else NO_PAIR}
    distances = np.clip(1 - likeness.value[np.ix_(models, models)], 0, None)
    np.fill_diagonal(distances, 0)
    if not np.isfinite(distances).all():
        return {**empty, "reason": SOME_PAIR}
    flat = squareform(distances, checks=False)
    tree = linkage(flat, "average")
    order = leaves_list(optimal_leaf_ordering(tree, flat))
    coordinates, explained = classical_scaling(distances)

    def cluster(index: float) -> int:
        """A model's index, or M + the position of a merge."""
        return models[int(index)] if index < len(models) else int(index) - len(models) + len(panel.models)

    return schema.Map(
        models=models,
        coordinates=[[float(x), float(y)] for x, y in coordinates],
        explained=explained,
        merges=[schema.Merge(left=cluster(row[0]), right=cluster(row[1]), height=float(row[2])) for row in tree],
        leaf_order=[models[leaf] for leaf in order],
        reason=None,
    )


def classical_scaling(distances: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Points in a plane whose distances come near the given ones (Torgerson 1952).

    distances: (M, M). Returns (M, 2) and the share of the positive eigenvalues that the plane holds. The sign of an
    axis is set so that its largest coordinate is positive: the same matrix gives the same picture everywhere."""
    models = len(distances)
    centring = np.eye(models) - 1 / models
    values, vectors = np.linalg.eigh(-0.5 * centring @ distances**2 @ centring)
    values, vectors = values[::-1][:2], vectors[:, ::-1][:, :2]
    points = vectors * np.sqrt(np.clip(values, 0, None))
    if points.shape[1] < 2:
        points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    points *= np.where(points[np.abs(points).argmax(0), np.arange(2)] < 0, -1, 1)
    total = np.clip(np.linalg.eigvalsh(-0.5 * centring @ distances**2 @ centring), 0, None).sum()
    return points, finite(np.clip(values, 0, None).sum() / total) if total > 0 else None


def failed(panel: Panel, plan: Bootstrap) -> schema.Failures:
    """Failures together against chance, and the examples that every model fails. panel: of the models that count, since
    one that answers the same whatever it is asked says nothing of a label."""
    votes = Votes.of(panel)
    found = failures.failure_counts(panel, plan)
    systemic = failures.systemic_failure(panel, plan)
    n = found.n
    every = np.flatnonzero((votes.answers != panel.labels).all(0))
    told = sorted((_failed_example(panel, votes, int(row)) for row in every), key=_suspected_first)
    none = undefined(too_few(n), n)
    section = schema.Failures(
        distribution=[
            schema.FailureCount(
                models=count,
                observed=number(float(found.observed[count]), finite(found.low[count]), finite(found.high[count]), n),
                expected=float(found.expected[count]),
            )
            for count in range(len(found.observed))
        ],
        observed=from_scalar(systemic),
        expected=from_scalar(systemic.parts["expected"]) if systemic.parts else none,
        log_ratio=from_scalar(systemic.parts["log_ratio"]) if systemic.parts else none,
        total=len(every),
        every_model_fails=told[:FAILED_LISTED],
    )
    if len(panel.classes) > 2 and len(panel.models) > 2:
        section["against_label"] = against_label(panel, votes)
    return section


def nothing_failed(panel: Panel, reason: str) -> schema.Failures:
    """The same where fewer than two models count. panel: of all."""
    none = undefined(reason, len(panel.ids))
    return schema.Failures(distribution=[], observed=none, expected=none, log_ratio=none, total=0, every_model_fails=[])


def against_label(panel: Panel, votes: Votes) -> schema.AgainstLabel:
    """The examples on which more than half of the models give one and the same wrong answer, most models first."""
    counts = np.stack([(votes.answers == answer).sum(0) for answer in range(len(panel.classes))])
    counts[panel.labels, np.arange(len(panel.labels))] = 0
    said, most = counts.argmax(0), counts.max(0)
    rows = np.flatnonzero(2 * most > len(votes.answers))
    rows = rows[np.argsort(-most[rows], kind="stable")]
    return schema.AgainstLabel(
        total=len(rows),
        listed=[
            schema.SharedAnswer(id=panel.ids[row], answer=panel.classes[int(said[row])], models=int(most[row]))
            for row in rows[:FAILED_LISTED]
        ],
    )


def _suspected_first(example: schema.FailedExample) -> tuple[bool, bool, str]:
    return not example["suspected_wrong_label"], example["why"] != "all_agree_confident", example["id"]


def _failed_example(panel: Panel, votes: Votes, row: int) -> schema.FailedExample:
    """One example that all models fail. Its label is suspected when several models give one and the same other answer:
    with two models, or of two classes, that says little, so they have to be sure of it as well."""
    said = votes.answers[:, row]
    agree = len(said) > 1 and bool((said == said[0]).all())
    sure = agree and votes.probabilities is not None and bool((votes.probabilities[:, row, said[0]] >= CONFIDENT).all())
    suspected = agree and (sure or (len(panel.classes) > 2 and len(said) > 2))
    return schema.FailedExample(
        id=panel.ids[row],
        suspected_wrong_label=suspected,
        suggested_label=panel.classes[int(said[0])] if suspected else None,
        why=None if not suspected else "all_agree_confident" if sure else "all_agree",
    )


def diversity(panel: Panel, models: Sequence[str], board: Leaderboard, plan: Bootstrap) -> schema.Diversity:
    """What having several models is worth. panel: of the models that count; models, board: of all."""
    indices = [models.index(name) for name in panel.models]
    n, (chosen, number_of_best) = len(panel.ids), best_accuracy(panel, plan)
    best, accuracy = indices[chosen], from_scalar(number_of_best)
    vote, oracle = failures.vote_gain(panel, plan), failures.oracle_gap(panel, plan)
    systemic, adds = failures.systemic_failure(panel, plan), failures.marginal_diversity(panel, plan)
    none = from_scalar(vote) if vote.value is None else undefined(ONE_MODEL, n)
    number_of_votes = headline(panel, plan).effective_models
    top = float(board.accuracy[best])

    def independent(gain: Any) -> schema.Number:
        return none if gain is None or gain.value is None else number(top + gain.value, n=n)

    return schema.Diversity(
        best_model=best,
        best=accuracy,
        vote=from_scalar(vote.parts["vote"]) if vote.parts else none,
        oracle=_complement(from_scalar(systemic)),
        vote_independent=independent(vote.parts.get("independent")),
        oracle_independent=independent(oracle.parts.get("independent")),
        vote_gain=from_scalar(vote),
        oracle_gap=from_scalar(oracle),
        contributions=[
            schema.Contribution(
                model=index,
                oracle=from_models(adds, model),
                vote=from_models(adds.parts["vote"], model) if adds.parts else none,
                effective=_as_sure_as(number_of_votes, from_models(adds.parts["effective"], model))
                if adds.parts
                else none,
            )
            for model, index in enumerate(indices)
        ],
    )


def _as_sure_as(whole: Estimate, part: schema.Number) -> schema.Number:
    """What a model adds to a number, without an interval where the number itself has none, and for its reason."""
    if whole.low is not None or part["low"] is None:
        return part
    return number(part["value"], n=part["n"], reason=part["reason"] or whole.reason or None)


def no_diversity(panel: Panel, plan: Bootstrap, reason: str) -> schema.Diversity:
    """The same where fewer than two models count: the best is that of all. panel: of all."""
    best, accuracy = best_accuracy(panel, plan)
    none = undefined(reason, len(panel.ids))
    return schema.Diversity(
        best_model=best,
        best=from_scalar(accuracy),
        vote=none,
        oracle=none,
        vote_independent=none,
        oracle_independent=none,
        vote_gain=none,
        oracle_gap=none,
        contributions=[],
    )


def reliability_of(found: PerModel, panel: Panel, model: int) -> schema.Number:
    """How alike the replicas of a model are; of replicas that answer the same, that they do: whether another seed
    would change anything, answers to these examples do not tell."""
    told = from_models(found, model)
    answers = panel.predictions[np.asarray(panel.runs) == model]
    if told["value"] is not None and len(answers) > 1 and (answers == answers[:1]).all():
        told["reason"] = SAME_ANSWERS
    return told


def accuracy_of(board: Leaderboard, model: int) -> schema.Number:
    """A model's accuracy with its interval over examples and seeds."""
    return number(float(board.accuracy[model]), finite(board.low[model]), finite(board.high[model]), board.n)


def _complement(share: schema.Number) -> schema.Number:
    if share["value"] is None:
        return share
    low, high = (None if bound is None else 1 - bound for bound in (share["high"], share["low"]))
    return number(1 - share["value"], low, high, share["n"], share["reason"])
