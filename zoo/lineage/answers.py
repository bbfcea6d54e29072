"""What runs answered on the same examples, and what that says of a pair. Needs no weights: only stored predictions.

A model is one of a reference's kind when its record names the recipe and the training data of the reference. Others are
no references for it, whatever they answer: with references of other data, strangers look like kin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import DamagedRun
from zoo.lineage import blackbox
from zoo.lineage.blackbox import Repeated, Residual
from zoo.lineage.evidence import unlike
from zoo.lineage.weights import expanded
from zoo.store.reading import read
from zoo.store.schema import ASKED, PREDICTIONS, RUN

MOST_NUMBERS = 2**24
"""Of the answers that are in memory at once, as float64 128 MiB; of more examples a part is taken, the same for all."""

Key = tuple[str, str | None]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one run answered on its test split, and to inputs made to be asked. label: how the run is called; classes:
    names, index = prediction; rows: place of each (example id, name of the true class, None of a made input);
    predictions: (n,) int64; logits: (n, classes) float32, NaN where the run knows none; digest: of both, equal for the
    same answers."""

    label: str
    path: Path
    record: Mapping[str, Any]
    classes: tuple[str, ...]
    rows: Mapping[Key, int]
    predictions: np.ndarray
    logits: np.ndarray
    digest: str


@dataclass(frozen=True)
class Calibration:
    """The residual test of a pair, one of its two being of the references' kind. of: that one's label."""

    of: str
    residual: Residual


@dataclass(frozen=True)
class Behaviour:
    """What the answers of a pair say. repeated: of each model's wrong answers those that the other repeats, empty when
    they answered nothing in common; calibrations: one for each of the two that is of the references' kind; n: examples
    that both answered; reason: why there is no calibration."""

    repeated: tuple[Repeated, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    n: int = 0
    reason: str = ""

    @property
    def decisive(self) -> Calibration | None:
        """The calibration with the larger p-value: with both, each of the two must reject."""
        return max(self.calibrations, key=lambda one: one.residual.p, default=None)


def read_answers(path: str | Path, label: str = "") -> Answers | str:
    """The answers that a run folder stores, or why there are none. Raises DamagedRun for a run that is not what was
    written, StoreError for one that this program cannot read."""
    folder = expanded(path)
    if not (folder / RUN).is_file():
        return "it is no run, so that no answers of it are stored"
    run = read(folder, verify=False)
    record, data = run.record, run.record.get("data")
    classes = data.get("classes") if isinstance(data, Mapping) else None
    files = record.get("files")
    if not isinstance(files, Mapping) or PREDICTIONS not in files:
        return f"the run stores no answers; its status is '{run.status}'"
    whole = run.predictions()
    table = whole.rows(np.isin(whole.splits, ("test", ASKED)))
    if not isinstance(classes, list) or len(set(map(str, classes))) != table.logits.shape[1]:
        raise DamagedRun(f"Run {folder} is damaged: its answers are not over the classes that {RUN} names.")
    names = tuple(map(str, classes))
    true = [names[label] if split == "test" else None
            for split, label in zip(table.splits.tolist(), table.labels.tolist(), strict=True)]  # fmt: skip
    rows = {key: place for place, key in enumerate(zip(table.ids.tolist(), true, strict=True))}
    told = label or f"{record.get('model')}/{record.get('key')}"
    digest = hashlib.sha256(table.predictions.tobytes() + table.logits.tobytes()).hexdigest()
    return Answers(told, folder, record, names, rows, table.predictions, table.logits, digest)


@dataclass(frozen=True, eq=False)
class Aligned:
    """Answers of several models on what all of them answered. labels: (n,) int64, -1 of made inputs; predictions:
    (models, n) int64; logits: (models, n, classes) float32."""

    labels: np.ndarray
    predictions: np.ndarray
    logits: np.ndarray


def align(models: Sequence[Answers], most: int = MOST_NUMBERS) -> Aligned | str:
    """Join answers by example and class, both by name; or why that cannot be done. most: numbers in `logits`."""
    first = models[0]
    for other in models[1:]:
        if set(other.classes) != set(first.classes):
            return f"{first.label} and {other.label} answer with different classes"
    common = set(first.rows).intersection(*(model.rows for model in models[1:]))
    if not common:
        return f"{first.label} and {models[1].label} answered no example in common"
    # Ids are hashes, so that those which sort first are a random part.
    keys = sorted(common, key=_by_hash)[: max(1, most // (len(models) * len(first.classes)))]
    labels = np.array([-1 if name is None else first.classes.index(name) for _, name in keys], dtype=np.int64)
    predictions = np.empty((len(models), len(keys)), dtype=np.int64)
    logits = np.empty((len(models), len(keys), len(first.classes)), dtype=np.float32)
    for place, model in enumerate(models):
        rows = np.array([model.rows[key] for key in keys], dtype=np.int64)
        order = [model.classes.index(name) for name in first.classes]
        predictions[place] = np.argsort(order)[model.predictions[rows]]
        logits[place] = model.logits[rows][:, order]
    return Aligned(labels, predictions, logits)


def _by_hash(key: Key) -> tuple[str, str]:
    """Ids of made inputs are `kind:hash`."""
    return key[0].rpartition(":")[2], str(key)


def compare_answers(first: Answers | str, second: Answers | str, references: Sequence[Answers]) -> Behaviour:
    """What the answers of two models say of a common past. references: of any kind; each of the two models takes those
    that its record shows to be of its recipe and data. Without any the reason is told and nothing is calibrated."""
    for model in (first, second):
        if isinstance(model, str):
            return Behaviour(reason=model)
    assert isinstance(first, Answers) and isinstance(second, Answers)  # noqa: PT018
    both = align([first, second])
    if isinstance(both, str):
        return Behaviour(reason=both)
    n = len(both.labels)
    labels, (one, two) = both.labels[both.labels >= 0], both.predictions[:, both.labels >= 0]
    found = Behaviour((blackbox.repeated_errors(labels, one, two), blackbox.repeated_errors(labels, two, one)), n=n)
    for model, logits in zip((first, second), both.logits, strict=True):
        if problem := blackbox.why_not(logits, n):
            return _without(found, f"{problem} ({model.label})" if n >= blackbox.FEWEST_EXAMPLES else problem)
    told = [_calibrated(trained, suspect, references) for trained, suspect in ((first, second), (second, first))]
    calibrations = tuple(one for one in told if isinstance(one, Calibration))
    if calibrations:
        return Behaviour(found.repeated, calibrations, n)
    return _without(found, "; ".join(dict.fromkeys(one for one in told if isinstance(one, str))))


def _without(found: Behaviour, reason: str) -> Behaviour:
    return Behaviour(found.repeated, (), found.n, reason)


def _calibrated(trained: Answers, suspect: Answers, references: Sequence[Answers]) -> Calibration | str:
    """The test with the references of one of the two, or why there is none."""
    chosen = references_of(trained, suspect, references)
    if isinstance(chosen, str):
        return chosen
    if len(chosen) < blackbox.FEWEST_REFERENCES:
        return f"{len(chosen)} references of {trained.label} were found, and {blackbox.FEWEST_REFERENCES} are the least"
    all_of = align([suspect, trained, *chosen])
    if isinstance(all_of, str):
        return all_of
    for model, logits in zip(chosen, all_of.logits[2:], strict=True):
        if problem := blackbox.why_not(logits, len(all_of.labels)):
            return f"reference {model.label}: {problem}"
    tested = blackbox.against_references(all_of.logits[0], all_of.logits[1], all_of.logits[2:])
    return Calibration(trained.label, tested)


def references_of(trained: Answers, suspect: Answers, references: Sequence[Answers]) -> list[Answers] | str:
    """Those that are trainings of a model's own recipe on its own data, without the two that are compared and without
    what is there twice; or why none is, as the first of them tells."""
    chosen: list[Answers] = []
    reasons: list[str] = []
    seen = _marks(trained) | _marks(suspect)
    for reference in references:
        if _marks(reference) & seen:
            continue
        if problem := unlike(trained.record, reference.record):
            reasons.append(f"{reference.label} is no reference for {trained.label}: {problem}")
            continue
        seen |= _marks(reference)
        chosen.append(reference)
    if chosen:
        return chosen
    if not references:
        return "no references were given (references=)"
    return reasons[0] if reasons else f"no reference but {trained.label} and {suspect.label} themselves was found"


def _marks(model: Answers) -> set[str]:
    """What two folders of one run have in common: the key, or the answers."""
    return {model.digest, str(model.record.get("key") or model.path.resolve())}
