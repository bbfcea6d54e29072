"""What runs answered on the same examples, and what that says of a pair. Needs no weights: only stored predictions.

A model is one of a reference's kind when its record names the recipe and the training data of the reference. Others are
no references for it, whatever they answer: with references of other data, strangers look like kin.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import DamagedRun
from zoo.lineage import blackbox
from zoo.lineage.blackbox import Repeated, Residual
from zoo.lineage.evidence import unlike
from zoo.lineage.weights import expanded
from zoo.store.reading import read
from zoo.store.recipes import Recipe
from zoo.store.schema import ASKED, PREDICTIONS, RUN

if TYPE_CHECKING:
    from zoo.store.reading import Run

MOST_NUMBERS = 2**24
"""Of the answers that are in memory at once, as float64 128 MiB; of more examples a part is taken, the same for all."""

Key = tuple[str, str | None]
Rows = Mapping[Key, int]
Indices = tuple[int, int]
Side = tuple[Indices, int]
"""A pair, and which of its two is the one whose references are asked for."""


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
    rows: Rows
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


# Reading


def read_answers(path: str | Path, label: str = "") -> Answers | str:
    """The answers that a run folder stores, or why there are none. Raises DamagedRun for a run that is not what was
    written, StoreError for one that this program cannot read."""
    folder = expanded(path)
    if not (folder / RUN).is_file():
        return "it is no run, so that no answers of it are stored"
    return answers_of(read(folder, verify=False), label)


def answers_of(run: Run, label: str = "", kept: MutableMapping[tuple[Key, ...], Rows] | None = None) -> Answers | str:
    """The same of a run that has been found already. kept: equal rows are held once, however many runs there are."""
    record, data = run.record, run.record.get("data")
    classes = data.get("classes") if isinstance(data, Mapping) else None
    files = record.get("files")
    if not isinstance(files, Mapping) or PREDICTIONS not in files:
        return f"the run stores no answers; its status is '{run.status}'"
    whole = run.predictions()
    table = whole.rows(np.isin(whole.splits, ("test", ASKED)))
    if not isinstance(classes, list) or len(set(map(str, classes))) != table.logits.shape[1]:
        raise DamagedRun(f"Run {run.folder} is damaged: its answers are not over the classes that {RUN} names.")
    names = tuple(map(str, classes))
    true = [names[label] if split == "test" else None
            for split, label in zip(table.splits.tolist(), table.labels.tolist(), strict=True)]  # fmt: skip
    keys = tuple(zip(table.ids.tolist(), true, strict=True))
    rows: Rows = {key: place for place, key in enumerate(keys)}
    rows = rows if kept is None else kept.setdefault(keys, rows)
    told = label or f"{record.get('model')}/{record.get('key')}"
    digest = hashlib.sha256(table.predictions.tobytes() + table.logits.tobytes()).hexdigest()
    return Answers(told, run.folder, record, names, rows, table.predictions, table.logits, digest)


# Joining


@dataclass(frozen=True, eq=False)
class Common:
    """Examples that some models all answered. keys: in the order of the hashes; places: of each set of rows, by its
    identity, where they are; held: those sets, so that an identity stays theirs."""

    keys: Sequence[Key]
    places: Mapping[int, np.ndarray]
    held: tuple[Rows, ...]

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """(n,) int64, -1 of made inputs."""
        return np.array([-1 if name is None else classes.index(name) for _, name in self.keys], dtype=np.int64)

    def kinds(self, n: int) -> np.ndarray:
        """(n,) int64, 0 of the test split, and a number for each kind of made inputs of which there are enough."""
        names = [key[0].rpartition(":")[0] if key[1] is None else "" for key in self.keys[:n]]
        counts = Counter(names)
        known = sorted(name for name in counts if name and counts[name] >= blackbox.FEWEST_EXAMPLES)
        number = {name: place for place, name in enumerate(known, start=1)}
        return np.array([number.get(name, 0) for name in names], dtype=np.int64)

    def predictions(self, model: Answers, classes: Sequence[str]) -> np.ndarray:
        """(n,) int64, the classes numbered as they are here."""
        return np.asarray(np.argsort(_order(model, classes))[model.predictions[self.places[id(model.rows)]]])

    def logits(self, model: Answers, classes: Sequence[str], most: int) -> np.ndarray:
        """(most or fewer, classes) float32, the classes in this order."""
        return np.asarray(model.logits[self.places[id(model.rows)][:most]][:, _order(model, classes)])


def _order(model: Answers, classes: Sequence[str]) -> np.ndarray:
    return np.array([model.classes.index(name) for name in classes], dtype=np.int64)


class Overlaps:
    """Which examples models have in common, and who tells nothing on them. Runs of one study were mostly asked the
    same: it is found once for each combination of sets, not for each of thousands of pairs."""

    def __init__(self) -> None:
        self._known: dict[frozenset[int], Common] = {}
        self._problems: dict[tuple[Common, Answers, int], str] = {}

    def of(self, models: Iterable[Answers]) -> Common:
        """What all of these answered, which may be nothing."""
        sets = {id(model.rows): model.rows for model in models}
        if (whole := frozenset(sets)) not in self._known:
            first, *others = sets.values()
            # Ids are hashes, so that those which sort first are a random part.
            keys = sorted(set(first).intersection(*others), key=_by_hash)
            places = {name: np.array([rows[key] for key in keys], dtype=np.int64) for name, rows in sets.items()}
            self._known[whole] = Common(keys, places, tuple(sets.values()))
        return self._known[whole]

    def why_not(self, model: Answers, common: Common, n: int) -> str:
        """Why its answers to the first n of these examples do not tell anything; empty when they may."""
        if (model_there := (common, model, n)) not in self._problems:
            logits = common.logits(model, model.classes, n)
            self._problems[model_there] = blackbox.why_not(logits, n, model.label)
        return self._problems[model_there]


def _by_hash(key: Key) -> tuple[str, str]:
    """Ids of made inputs are `kind:hash`."""
    return key[0].rpartition(":")[2], str(key)


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
    if problem := _other_classes(models):
        return problem
    common = Overlaps().of(models)
    if not common.keys:
        return f"{first.label} and {models[1].label} answered no example in common"
    n = _examples(most, len(models), common, first)
    return Aligned(
        common.labels(first.classes)[:n],
        np.stack([common.predictions(model, first.classes)[:n] for model in models]),
        np.stack([common.logits(model, first.classes, n) for model in models]),
    )


def _other_classes(models: Sequence[Answers]) -> str:
    """Why the classes of some models cannot be joined; empty when they can."""
    first = models[0]
    others = (model.label for model in models[1:] if set(model.classes) != set(first.classes))
    return next((f"{first.label} and {other} answer with different classes" for other in others), "")


def _examples(most: int, models: int, common: Common, one: Answers) -> int:
    """How many of the examples are taken, so that there are no more numbers than `most` in the logits of so many
    models."""
    return min(len(common.keys), max(1, most // (models * len(one.classes))))


# Comparing


def compare_answers(first: Answers | str, second: Answers | str, references: Sequence[Answers]) -> Behaviour:
    """What the answers of two models say of a common past. references: of any kind; each of the two models takes those
    that its record shows to be of its recipe and data. Without any the reason is told and nothing is calibrated."""
    return compare_all([first, second], references)[0]


def compare_all(models: Sequence[Answers | str], references: Sequence[Answers]) -> list[Behaviour]:
    """What `compare_answers` says of every two models, in the order of `combinations`. What several pairs have in
    common is made once: the examples, who has which references, and what these references have in common."""
    overlaps, kinds = Overlaps(), References(references)
    order = {model: place for place, model in enumerate([*models, *references])}
    found = dict(_baselines(models, overlaps))
    told: dict[Side, Calibration | str] = {}
    alike: defaultdict[tuple[frozenset[int], tuple[Answers, ...]], list[_Test]] = defaultdict(list)
    for pair, (one, two) in zip(combinations(range(len(models)), 2), combinations(models, 2), strict=True):
        if found[pair].reason or isinstance(one, str) or isinstance(two, str):
            continue
        for side, (trained, suspect) in enumerate(((one, two), (two, one))):
            chosen = kinds.of(trained, suspect)
            if isinstance(chosen, str):
                told[pair, side] = chosen
            else:
                kind = tuple(sorted((trained, *chosen), key=order.__getitem__))
                sets = frozenset(id(model.rows) for model in (suspect, *kind))
                alike[sets, kind].append(_Test((pair, side), suspect, trained))
    for (_, same_kind), tests in alike.items():
        told.update(_calibrations(tests, same_kind, overlaps))
    return [
        _whole(found[pair], [told[pair, side] for side in (0, 1) if (pair, side) in told]) for pair in sorted(found)
    ]


def _whole(found: Behaviour, told: Sequence[Calibration | str]) -> Behaviour:
    calibrations = tuple(one for one in told if isinstance(one, Calibration))
    reason = "" if calibrations else "; ".join(dict.fromkeys(one for one in told if isinstance(one, str)))
    return replace(found, calibrations=calibrations, reason=found.reason or reason)


Both = tuple[Indices, Answers, Answers]


def _baselines(models: Sequence[Answers | str], overlaps: Overlaps) -> Iterator[tuple[Indices, Behaviour]]:
    """Every pair with its repeated errors, and with the reason where no reference could calibrate its answers."""
    alike: defaultdict[tuple[Common, frozenset[str]], list[Both]] = defaultdict(list)
    for pair, (one, two) in zip(combinations(range(len(models)), 2), combinations(models, 2), strict=True):
        if isinstance(one, str) or isinstance(two, str):
            yield pair, Behaviour(reason=one if isinstance(one, str) else str(two))
        elif problem := _other_classes([one, two]):
            yield pair, Behaviour(reason=problem)
        elif not (common := overlaps.of([one, two])).keys:
            yield pair, Behaviour(reason=f"{one.label} and {two.label} answered no example in common")
        else:
            alike[common, frozenset(one.classes)].append((pair, one, two))
    for (shared, _), pairs in alike.items():
        yield from _repeated(pairs, shared, overlaps)


def _repeated(pairs: Sequence[Both], common: Common, overlaps: Overlaps) -> Iterator[tuple[Indices, Behaviour]]:
    """The same of pairs that have these examples in common, all of them over the same classes."""
    models = list(dict.fromkeys(model for _, *both in pairs for model in both))
    classes, n = models[0].classes, _examples(MOST_NUMBERS, 2, common, models[0])
    labels = common.labels(classes)[:n]
    known = labels >= 0
    predictions = np.stack([common.predictions(model, classes)[:n][known] for model in models])
    wrong, again = blackbox.repetitions(labels[known], predictions)
    row_of = {model: row for row, model in enumerate(models)}

    def rate(one: Answers, two: Answers) -> Repeated:
        missed = int(wrong[row_of[one]])
        return blackbox.repeated(int(again[row_of[one], row_of[two]]), missed, int(known.sum()))

    for pair, *both in pairs:
        problem = next(filter(None, (overlaps.why_not(model, common, n) for model in both)), "")
        yield pair, Behaviour((rate(*both), rate(*both[::-1])), n=n, reason=problem)


@dataclass(frozen=True)
class _Test:
    """Is the suspect more like the trained one than references are? at: where the result belongs."""

    at: Side
    suspect: Answers
    trained: Answers


def _calibrations(
    tests: Sequence[_Test], kind: Sequence[Answers], overlaps: Overlaps
) -> Iterator[tuple[Side, Calibration | str]]:
    """The results of tests with the same examples in common, or why there are none. kind: the trained one of each test
    and its references, the same models in all of them: which of these is asked about, the scores need not know."""
    first, classes = tests[0].suspect, kind[0].classes
    common = overlaps.of([first, *kind])
    n = _examples(MOST_NUMBERS, 1 + len(kind), common, kind[0])
    problem = _other_classes([first, *kind])
    problem = problem or ("" if n else f"{first.label} and the references answered no example in common")
    unfit = () if problem else (overlaps.why_not(one, common, n) for one in kind)
    if problem := problem or next(filter(None, unfit), ""):
        yield from ((test.at, problem) for test in tests)
        return
    theirs, kinds = np.stack([common.logits(model, classes, n) for model in kind]), common.kinds(n)
    suspects = list(dict.fromkeys(test.suspect for test in tests))
    # As many at once as fit beside the references.
    step = max(1, MOST_NUMBERS // (n * len(classes)))
    found: dict[Answers, list[float]] = {}
    for some in (suspects[begin : begin + step] for begin in range(0, len(suspects), step)):
        answers = np.stack([common.logits(model, classes, n) for model in some])
        found |= zip(some, blackbox.scores(answers, theirs[0], theirs[1:], kinds).tolist(), strict=True)
    for test in tests:
        residual = blackbox.ranked(found[test.suspect], kind.index(test.trained), n, len(np.unique(kinds)))
        yield test.at, Calibration(test.trained.label, residual)


class References:
    """Who of some runs is a reference for whom. The records of every two are compared once."""

    def __init__(self, references: Sequence[Answers]) -> None:
        self._all = [(reference, _marks(reference)) for reference in references]
        self._problems: dict[Answers, list[str]] = {}

    def of(self, trained: Answers, suspect: Answers) -> list[Answers] | str:
        """Those that are trainings of a model's own recipe on its own data, without the two that are compared and
        without what is there twice; or why they are too few."""
        chosen: list[Answers] = []
        refused: list[tuple[Answers, str]] = []
        seen = _marks(trained) | _marks(suspect)
        for (reference, marks), problem in zip(self._all, self._told(trained), strict=True):
            if marks & seen:
                continue
            if problem:
                refused.append((reference, problem))
                continue
            seen |= marks
            chosen.append(reference)
        if len(chosen) >= blackbox.FEWEST_REFERENCES:
            return chosen
        if chosen:
            return f"references of {trained.label}: {len(chosen)}, and {blackbox.FEWEST_REFERENCES} are the least"
        return self._why_none(trained, suspect, refused)

    def _told(self, trained: Answers) -> list[str]:
        if trained not in self._problems:
            self._problems[trained] = [unlike(trained.record, reference.record) for reference, _ in self._all]
        return self._problems[trained]

    def _why_none(self, trained: Answers, suspect: Answers, refused: Sequence[tuple[Answers, str]]) -> str:
        if not self._all:
            return "no references were given (references=)"
        own = Recipe.of(trained.record)
        if not own.data:
            return f"it is unknown on what data {trained.label} was trained"
        themselves = {_key(trained), _key(suspect)}
        if any(one.digest == trained.digest and _key(one) not in themselves for one, _ in self._all):
            return f"other runs of {trained.label} answer exactly as it does"
        # Where the two themselves were among them, that others are of other recipes is no news.
        news = refused if len(refused) == len(self._all) else [
            one for one in refused if Recipe.of(one[0].record).options == own.options]  # fmt: skip
        told = (f"{reference.label} is no reference for {trained.label}: {problem}" for reference, problem in news)
        return next(told, f"no reference of {trained.label} but the two themselves was found")


def _marks(model: Answers) -> set[str]:
    """What two folders of one run have in common: the key, or the answers."""
    return {model.digest, _key(model)}


def _key(model: Answers) -> str:
    return str(model.record.get("key") or model.path.resolve())
