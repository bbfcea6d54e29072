"""What records say of descent: the `run.json` of a run that was made out of another names it, and what was done.

A record is testimony and no test: it goes before all that weights and answers say, changes no verdict of theirs, and
where they speak against it, that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from zoo.store.schema import PARENT, WEIGHTS

if TYPE_CHECKING:
    from zoo.lineage.verdict import Verdict
    from zoo.lineage.weights import Weights

Contradiction = Literal["unrelated weights", "other weights", "parent came later"]
"""unrelated weights: all could be compared, and they are as unlike as those of strangers; other weights: the parent's
file is not the one that the record names; parent came later: it is the parent that lost information."""

_FROM_ANSWERS = ("distil", "queried")
"""Steps after which weights are those of a model that learned from answers: nothing of the parent's need be in them."""


@dataclass(frozen=True)
class Parent:
    """The parent that a record names. key: of its run; label and seed: what it was called then; steps: what was done,
    in order; weights: the digest of its file of weights, empty when the record does not say."""

    key: str
    label: str
    seed: int | None
    steps: tuple[str, ...]
    weights: str


@dataclass(frozen=True)
class Recorded:
    """Of two models, that one was made out of the other. child, parent: their labels; against: what weights say
    against it, None when they do not."""

    child: str
    parent: str
    steps: tuple[str, ...]
    against: Contradiction | None = None


def parent_of(record: Mapping[str, Any] | None) -> Parent | None:
    """The parent that `run.json` names; None when it names none, or not in the form that this program writes."""
    told = (record or {}).get(PARENT)
    if not isinstance(told, Mapping) or not isinstance(told.get("key"), str) or not told["key"]:
        return None
    steps = told.get("steps")
    names = [step.get("step") for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []
    seed, label, weights = told.get("seed"), told.get("label"), told.get("weights_sha256")
    return Parent(
        told["key"],
        label if isinstance(label, str) else "",
        seed if isinstance(seed, int) else None,
        tuple(name for name in names if isinstance(name, str)),
        weights if isinstance(weights, str) else "",
    )


def recorded(first: Weights, second: Weights, verdict: Verdict) -> Recorded | None:
    """Whether by their records one of two models was made out of the other. verdict: of their weights. None, too, when
    each names the other, which cannot be."""
    pairs = ((first, second), (second, first))
    found = [(child, parent, told) for child, parent in pairs if (told := _made_from(child, parent))]
    if len(found) != 1:
        return None
    child, parent, told = found[0]
    return Recorded(child.label, parent.label, told.steps, _against(told, parent, verdict))


def _made_from(child: Weights, parent: Weights) -> Parent | None:
    told = parent_of(child.record)
    return told if told is not None and told.key == (parent.record or {}).get("key") else None


def _against(told: Parent, parent: Weights, verdict: Verdict) -> Contradiction | None:
    files = (parent.record or {}).get("files")
    kept = files.get(WEIGHTS) if isinstance(files, Mapping) else None
    digest = kept.get("sha256") if isinstance(kept, Mapping) else None
    if told.weights and isinstance(digest, str) and digest != told.weights:
        return "other weights"
    if verdict.later == parent.label:
        return "parent came later"
    learned = any(step.partition(":")[0] in _FROM_ANSWERS for step in told.steps)
    return "unrelated weights" if verdict.name in ("independent", "convergent") and not learned else None
