"""What of a study can be compared: runs that answered the same examples with the same classes. The rest is left out,
and the reasons are kept for the report.

Examples are joined by id *and* name of the label, never by position: an example whose label differs between two runs
is two examples. Classes are joined by name, whatever their order in a run.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import RequestError, StoreError
from zoo.store.recipes import Recipe, names
from zoo.store.schema import PREDICTIONS
from zoo.store.study import Code, LeftOut, Study, describe

if TYPE_CHECKING:
    from zoo.store.reading import Run

SHARED = 0.5
"""A run joins when what is then common to all is still at least this share of what each of them answered."""


@dataclass(frozen=True)
class Member:
    """A run that is compared. model: its name in this study; classes: in the run's own order."""

    run: Run
    model: str
    seed: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What is compared with what.

    members: sorted by model and seed; classes: names, index = label; ids: of the examples that all members answered,
    in the order of the first member; left_out: runs and examples, with reasons; notes: what differs between the
    members although they are compared, in sentences.
    """

    members: tuple[Member, ...]
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def compare(study: Study) -> Comparison:
    """Keep the largest group of runs that can be compared, and say what was left out of it.

    Left out are runs without predictions, with repeated example ids, with other classes, with other test examples or
    labels (with them less than half of some run's examples would be common to all), and all but one of one recipe with
    one seed: the newest stays, or an older one that holds its answers and more. Of runs that share only part of the
    examples that part is kept. The largest group has the most runs, then models, then examples. Raises RequestError
    when no run remains.
    """
    candidates: list[_Answers] = []
    left_out = list(study.left_out)
    kept: dict[Any, Any] = {}
    for run in study.runs:
        read = _read(run, kept)
        if isinstance(read, LeftOut):
            left_out.append(read)
        else:
            candidates.append(read)
    if not candidates:
        raise RequestError(f"No run of this study can be compared.\nThe first: {_line(left_out[0])}")
    group = _largest(candidates)
    left_out += _outside(candidates, group)
    newest, repeated = _newest(group.answers)
    left_out += repeated
    named = names([(answers.label, answers.recipe) for answers in newest])
    together = sorted(zip(named, newest, strict=True), key=lambda pair: (pair[0], pair[1].seed, str(pair[1].folder)))
    members = tuple(Member(answers.run, name, answers.seed, answers.classes) for name, answers in together)
    first = together[0][1]
    # What the newest have in common, which may be more: an older answer sheet of the same model may have been shorter.
    common = frozenset.intersection(*(answers.block.keys for answers in newest))
    ids = tuple(item for item, label in first.block.rows if (item, label) in common)
    left_out += _examples_left_out([answers for _, answers in together], common)
    classes = Counter(answers.classes for _, answers in together).most_common(1)[0][0]
    return Comparison(members, classes, ids, tuple(left_out), tuple(_notes(together)))


# Reading


@dataclass(frozen=True, eq=False)
class _Block:
    """Test examples as (id, name of the label), in the order of the first run that has exactly these."""

    rows: tuple[tuple[str, str], ...]
    keys: frozenset[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class _Answers:
    run: Run
    label: str
    seed: int
    classes: tuple[str, ...]
    recipe: Recipe
    block: _Block
    digest: str

    @property
    def folder(self) -> Any:
        return self.run.folder

    @property
    def what(self) -> str:
        return describe(self.run.record, self.run.folder)


def _read(run: Run, kept: dict[Any, Any]) -> _Answers | LeftOut:
    """What a run answered on the test split. kept: equal rows are held once, however many runs there are."""

    def leave(code: Code, reason: str) -> LeftOut:
        return LeftOut(describe(run.record, run.folder), code, reason, run.folder)

    record = run.record
    data, files = record.get("data"), record.get("files")
    classes = data.get("classes") if isinstance(data, Mapping) else None
    seed = record.get("seed")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or type(seed) is not int:
        return leave("damaged", "run.json does not say which classes and which seed the run had")
    if not isinstance(files, Mapping) or PREDICTIONS not in files:
        return leave("no_predictions", f"it holds no {PREDICTIONS}")
    try:
        table = run.predictions().only("test")
    except StoreError as error:
        return leave("damaged", str(error).splitlines()[0])
    if len(set(classes)) < len(classes) or table.logits.shape[1] != len(classes):
        return leave("damaged", f"run.json names {len(classes)} classes and the answers have {table.logits.shape[1]}")
    if not len(table):
        return leave("no_test_examples", "its predictions hold no example of the test split")
    ids = table.ids.tolist()
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        return leave("repeated_ids", f"the example id '{twice}' stands more than once, so nothing can be joined by it")
    rows = tuple(zip(ids, (classes[label] for label in table.labels.tolist()), strict=True))
    answers = sorted(zip(ids, (classes[index] for index in table.predictions.tolist()), strict=True))
    label = str(record.get("label") or record.get("model") or "model")
    return _Answers(
        run, label, seed, tuple(classes), Recipe.of(record), _Block(rows, frozenset(rows)), _digest(answers)
    )


def _digest(rows: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256("\n".join(f"{one}\0{two}" for one, two in rows).encode(errors="surrogatepass")).hexdigest()


# Grouping


@dataclass(frozen=True)
class _Group:
    answers: list[_Answers]
    common: frozenset[tuple[str, str]]

    @property
    def size(self) -> tuple[int, int, int]:
        models = {(answers.label, answers.recipe) for answers in self.answers}
        return len(self.answers), len(models), len(self.common)


def _largest(candidates: Sequence[_Answers]) -> _Group:
    groups = []
    for alike in _by(candidates, lambda answers: frozenset(answers.classes)).values():
        blocks = list(_by(alike, lambda answers: answers.block.keys).items())
        groups += [_joined(start, blocks) for start, _ in blocks]
    return max(groups, key=lambda group: group.size)


def _joined(
    start: frozenset[tuple[str, str]], blocks: Sequence[tuple[frozenset[tuple[str, str]], list[_Answers]]]
) -> _Group:
    """The runs that answered `start`, and all that share enough with what is then common."""
    common, largest, together = start, len(start), []
    # The blocks that share most come first: one that shares little must not shrink the ground for the others.
    for keys, answers in sorted(blocks, key=lambda block: -len(start & block[0])):
        shared, most = common & keys, max(largest, len(keys))
        if len(shared) >= SHARED * most:
            common, largest = shared, most
            together += answers
    return _Group(together, common)


def _by(items: Iterable[_Answers], key: Any) -> dict[Any, list[_Answers]]:
    grouped: dict[Any, list[_Answers]] = defaultdict(list)
    for item in items:
        grouped[key(item)].append(item)
    return grouped


# Reasons


def _outside(candidates: Sequence[_Answers], group: _Group) -> list[LeftOut]:
    inside = {id(answers) for answers in group.answers}
    return [_why_outside(answers, group) for answers in candidates if id(answers) not in inside]


def _why_outside(answers: _Answers, group: _Group) -> LeftOut:
    wanted = group.answers[0].classes
    if set(answers.classes) != set(wanted):
        reason = f"its classes are {_few(answers.classes)}; the others have {_few(wanted)}"
        return LeftOut(answers.what, "other_classes", reason, answers.folder)
    shared = len(group.common & answers.block.keys)
    ids = {item for item, _ in group.common}
    relabelled = len(ids & {item for item, _ in answers.block.keys}) - shared
    reason = f"it has {shared:,} of the {len(group.common):,} test examples that the others have in common"
    if relabelled > shared:
        reason = f"{relabelled:,} of the test examples it shares with the others have another label there"
        return LeftOut(answers.what, "other_labels", reason, answers.folder)
    return LeftOut(answers.what, "other_examples", reason, answers.folder)


def _newest(group: Sequence[_Answers]) -> tuple[list[_Answers], list[LeftOut]]:
    """One run for each label, recipe and seed: the one that ended last, or one that holds all its answers and more."""
    kept, left_out = [], []
    for same in _by(group, lambda answers: (answers.label, answers.recipe, answers.seed)).values():
        *older, newest = sorted(same, key=lambda answers: (str(answers.run.record.get("ended")), str(answers.folder)))
        chosen = newest
        for answers in reversed(older):
            # A part of a sheet, imported after the whole, is no reason to forget the rest.
            if len(answers.block.keys) > len(chosen.block.keys) and _within(chosen, answers):
                chosen = answers
        kept.append(chosen)
        left_out += [_replaced(answers, chosen, newest) for answers in same if answers is not chosen]
    return kept, left_out


def _replaced(answers: _Answers, chosen: _Answers, newest: _Answers) -> LeftOut:
    """Why a run gives way to another of its recipe and seed: nothing is lost, or it says what the other does not."""
    code: Code = "replaced" if _within(answers, chosen) else "replaced_by_others"
    why = "is newer" if chosen is newest else "gives the same answers to these and to more examples"
    reason = f"{chosen.folder} has the same recipe and seed and {why}{_other_versions(answers, chosen)}"
    return LeftOut(answers.what, code, reason, answers.folder)


def _within(one: _Answers, other: _Answers) -> bool:
    """Whether a run says what another says, too: every example of it, with its label, is answered there alike."""
    if not one.block.keys <= other.block.keys:
        return False
    return one.digest == other.digest or _answered(one).items() <= _answered(other).items()


def _answered(answers: _Answers) -> dict[str, str]:
    """Example id -> the name of the class that was answered."""
    table = answers.run.predictions().only("test")
    said = (answers.classes[index] for index in table.predictions.tolist())
    return dict(zip(table.ids.tolist(), said, strict=True))


def _other_versions(one: _Answers, other: _Answers) -> str:
    old, new = _versions(one), _versions(other)
    changed = [f"{name} {old[name]} → {new[name]}" for name in old if name in new and old[name] != new[name]]
    return f" ({', '.join(changed[:3])})" if changed else ""


def _examples_left_out(members: Sequence[_Answers], common: frozenset[tuple[str, str]]) -> list[LeftOut]:
    """One entry for all examples that some run answered and another did not, however many sets of them there are."""
    sets = {answers.block.keys: answers for answers in reversed(members)}
    missing = len(frozenset.union(*sets) - common)
    if not missing:
        return []
    largest = max(sets, key=len)
    reason = f"{sets[largest].what} answered {len(largest):,}, and {len(common):,} of them all runs answered"
    return [LeftOut(f"{missing:,} test example{'' if missing == 1 else 's'}", "not_answered", reason)]


def _few(classes: Sequence[str]) -> str:
    return ", ".join(classes[:4]) + (f" … ({len(classes)})" if len(classes) > 4 else "")


def _line(left: LeftOut) -> str:
    return f"{left.what}: {left.why} ({left.reason})"


# Notes


def _notes(together: Sequence[tuple[str, _Answers]]) -> list[str]:
    members = [answers for _, answers in together]
    return [*_version_notes(members), *_data_notes(members), *_replica_notes(together)]


def _versions(answers: _Answers) -> dict[str, str]:
    versions = answers.run.record.get("versions")
    return {str(name): str(value) for name, value in versions.items()} if isinstance(versions, Mapping) else {}


def _version_notes(members: Sequence[_Answers]) -> list[str]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for answers in members:
        for name, version in _versions(answers).items():
            found[name][version] += 1
    notes = []
    for name, counts in found.items():
        if len(counts) > 1:
            listed = ", ".join(f"{version} ({count} runs)" for version, count in sorted(counts.items()))
            what = "the evaluator, zoo-harness," if name == "zoo-harness" else name
            notes.append(f"The runs were made with several versions of {what}: {listed}.")
    return notes


def _data_notes(members: Sequence[_Answers]) -> list[str]:
    notes = []
    trained = Counter(answers.recipe.data for answers in members if answers.recipe.data)
    if len(trained) > 1:
        listed = ", ".join(f"{data} ({count} runs)" for data, count in sorted(trained.items()))
        notes.append(f"The models were trained on different examples; fingerprints of the training splits: {listed}.")
    elsewhere = sum(bool(answers.run.record.get("imported")) for answers in members)
    if elsewhere:
        notes.append(f"{elsewhere} of {len(members)} runs were made elsewhere and imported; their training is unknown.")
    return notes


def _replica_notes(together: Sequence[tuple[str, _Answers]]) -> list[str]:
    """Replicas that answer alike are no measure of what another seed does."""
    notes = []
    for name in dict.fromkeys(name for name, _ in together):
        own = [answers for other, answers in together if other == name]
        if len(own) > 1 and len({answers.digest for answers in own}) == 1:
            notes.append(f"The {len(own)} runs of {name} answer every example alike.")
    return notes
