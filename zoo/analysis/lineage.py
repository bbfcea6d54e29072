"""Who shares weights with whom, or answers: every two runs of a study compared, summed up by pairs of models."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, cast, get_args

from zoo.errors import ZooError
from zoo.lineage import blackbox
from zoo.lineage.answers import Answers, Behaviour, answers_of
from zoo.lineage.behaviour import NULL_ANSWERS, unweighted, with_answers
from zoo.lineage.comparison import Comparison as Compared
from zoo.lineage.comparison import Judged, compare_runs
from zoo.lineage.dead import looking
from zoo.lineage.document import evidence_rows
from zoo.lineage.multiple import METHOD, Q
from zoo.lineage.recorded import parent_of
from zoo.lineage.verdict import NULL_EXACT, NULL_REPLICAS
from zoo.lineage.weights import Weights, of_run
from zoo.reporting import lineage_schema as schema
from zoo.reporting.lineage_schema import Verdict
from zoo.store.schema import WEIGHTS

if TYPE_CHECKING:
    from zoo.store.guards import Comparison, Member

MOST_RUNS = 100
"""Runs whose weights are compared, which is 4,950 pairs: of more, the first seeds of each model. As many again that
keep none are compared on their answers."""

NO_WEIGHTS = "the run keeps no weights"
NOT_LOOKED_AT = "the run is beyond the first {most} and was not looked at"
SEED_CHANGES_NOTHING = "all its runs hold the same weights: its seed changes nothing"
ONE_CHECKPOINT = "all its runs started from one checkpoint: a common ancestor by construction"
ONE_START = "by their records these runs began with the same weights: a common ancestor by construction"

DERIVED_BEHAVIOUR = "behaviourally derived"

# The least related last. What is neither of the last two is listed in full.
ORDER = get_args(Verdict)
SHARING = frozenset(("copy", "derived", "common ancestor"))
_UNREMARKABLE = frozenset(("independent", "undetermined"))

Runs = tuple[int, int]


def lineage(
    comparison: Comparison, models: Sequence[str], progress: Callable[[str], None], answers: bool = True
) -> schema.Lineage:
    """What the weights and the answers of a study's runs say. models: names, in the order of the report's indices;
    progress: told what is being done; answers: whether these are looked at, too. Runs are told by their position among
    the members. Training data are read where R2 needs them, and nothing of them is kept."""
    members = comparison.members
    opened, lacking = _open(members)

    def told(done: int, pairs: int) -> None:
        progress(f"comparing weights: pair {done} of {pairs}")

    places = [place for place, model in opened.items() if model.tensors]
    compared = compare_runs([opened[place] for place in places], looking(), told)
    weighed = {(places[i], places[j]): pair for (i, j), pair in _by_indices(compared).items()}
    if answers:
        progress("comparing answers")
    found = _Found(opened, lacking, weighed, _answered(members, opened, weighed) if answers else weighed)
    owners = [models.index(member.model) for member in members]
    pairs = _pairs(owners, found)
    unseeded = {pair["a"] for pair in pairs if pair["note"] == SEED_CHANGES_NOTHING}
    records = _records(members, found)
    explained = _explained(members, owners, unseeded, found)
    news = Counter(
        _sorted(owners[runs[0]], owners[runs[1]])
        for runs, one in found.judged.items()
        if one.verdict.name in SHARING and runs not in explained
    )
    for pair in pairs:
        pair["unexplained"] = news[pair["a"], pair["b"]]
    document = schema.Lineage(
        q=Q,
        correction=METHOD,
        exact_tests=compared.tests,
        runs=len(members),
        run_pairs=math.comb(len(members), 2),
        tested=sum(map(_tested, weighed.values())),
        on_record=records,
        pairs=pairs,
        listed=[_listed(runs, pair, opened, explained.get(runs)) for runs, pair in _remarkable(found.judged)],
        tree=_tree(compared, places, records, _same_whatever_the_seed(owners, unseeded), found),
        lacking=[schema.LackingRun(run=run, reason=reason) for run, reason in sorted(lacking.items())],
    )
    if answers:
        document["answers"] = _all_answers(found.judged.values())
    return document


@dataclass(frozen=True)
class _Found:
    """opened: the runs that were compared, by position; lacking: why no weights of a run were; weighed: what the
    weights of two runs say; judged: what weights and answers say, also of runs without weights."""

    opened: Mapping[int, Weights]
    lacking: Mapping[int, str]
    weighed: Mapping[Runs, Judged]
    judged: Mapping[Runs, Judged]


def _open(members: Sequence[Member]) -> tuple[dict[int, Weights], dict[int, str]]:
    """Weights by position of the run, none of a run that has none to be compared, and why that is."""
    weights: dict[int, Weights] = {}
    without: dict[int, Weights] = {}
    lacking: dict[int, str] = {}
    for place in _seeds_first(members):
        run = members[place].run
        label = f"{members[place].model} seed {members[place].seed}"
        if not (run.folder / WEIGHTS).is_file():
            lacking[place] = NO_WEIGHTS
        elif len(weights) == MOST_RUNS:
            lacking[place] = NOT_LOOKED_AT.format(most=MOST_RUNS)
            continue
        else:
            try:
                weights[place] = of_run(run.folder, run.record, label)
                continue
            except ZooError as error:
                lacking[place] = str(error).splitlines()[0]
        if len(without) < MOST_RUNS:
            without[place] = Weights(label, run.folder, {}, record=run.record)
    return dict(sorted({**weights, **without}.items())), lacking


def _answered(
    members: Sequence[Member], opened: Mapping[int, Weights], weighed: Mapping[Runs, Judged]
) -> dict[Runs, Judged]:
    """What weights and answers say of every two runs that were opened. Whatever the study holds may be a reference."""
    kept: MutableMapping[Any, Any] = {}
    # References are told by their model: they are trainings of its recipe with any seed.
    answers = [answers_of(members[place].run, members[place].model, kept) for place in opened]
    pairs = list(combinations(opened, 2))
    judged = [weighed.get(pair) or unweighted(*(opened[place] for place in pair)) for pair in pairs]
    references = [one for one in answers if isinstance(one, Answers)]
    told = with_answers(Compared(tuple(opened.values()), tuple(judged), 0), answers, references)
    return dict(zip(pairs, told.pairs, strict=True))


def _seeds_first(members: Sequence[Member]) -> list[int]:
    """Positions in the order in which they are taken: the first run of each model, the second of each, …"""
    met: Counter[str] = Counter()
    turn = []
    for place, member in enumerate(members):
        turn.append((met[member.model], place))
        met[member.model] += 1
    return [place for _, place in sorted(turn)]


def _sorted(one: int, two: int) -> Runs:
    return min(one, two), max(one, two)


def _by_indices(compared: Compared) -> dict[Runs, Judged]:
    index = {model: place for place, model in enumerate(compared.models)}
    return {(index[pair.first], index[pair.second]): pair for pair in compared.pairs}


def _tested(pair: Judged) -> bool:
    """Whether weights were compared: by an exact test, aligned against replicas, or the numbers themselves."""
    found = pair.evidence
    return (
        pair.verdict.shares_weights
        or found.log_p_order is not None
        or found.dead is not None
        or found.calibrated is not None
    )


def _remarkable(judged: Mapping[Runs, Judged]) -> list[tuple[Runs, Judged]]:
    """The pairs that are listed: those on record first, then the most closely related."""
    listed = [item for item in judged.items() if item[1].recorded or item[1].verdict.name not in _UNREMARKABLE]
    return sorted(listed, key=lambda item: (not item[1].recorded, ORDER.index(item[1].verdict.name), item[0]))


def _pairs(owners: Sequence[int], found: _Found) -> list[schema.LineagePair]:
    """Each pair of models, and each model with itself where it has two runs."""
    together: defaultdict[Runs, list[Runs]] = defaultdict(list)
    for two in range(len(owners)):
        for one in range(two):
            together[_sorted(owners[one], owners[two])].append((one, two))
    return [_summed(models, runs, found) for models, runs in sorted(together.items())]


def _summed(models: Runs, runs: Sequence[Runs], found: _Found) -> schema.LineagePair:
    judged = {pair: found.judged[pair] for pair in runs if pair in found.judged}
    weighed = [found.weighed[pair] for pair in runs if pair in found.weighed]
    verdicts: Counter[Verdict] = Counter(pair.verdict.name for pair in judged.values())
    verdicts["undetermined"] += len(runs) - len(judged)
    lacking = found.lacking
    reasons = [lacking[one if one in lacking else two] for one, two in runs if (one, two) not in found.weighed]
    reasons += [pair.verdict.statement for pair in weighed if not _tested(pair)]
    strongest = min(judged.items(), key=lambda item: _strength(item[1]), default=None)
    evidence = _decisive(strongest[1]) if strongest is not None else None
    summed = schema.LineagePair(
        a=models[0],
        b=models[1],
        run_pairs=len(runs),
        tested=sum(map(_tested, weighed)),
        verdicts={str(name): verdicts[name] for name in ORDER if verdicts[name]},
        strongest=evidence,
        strongest_runs=list(strongest[0]) if strongest is not None and evidence is not None else None,
        reason=Counter(reasons).most_common(1)[0][0] if reasons else None,
        note=_note(list(judged.values()), models[0] == models[1]),
        on_record=sum(pair.recorded is not None for pair in judged.values()),
        unexplained=0,  # told once all pairs are known: others may explain it
    )
    behaviours = {pair: one.behaviour for pair, one in judged.items() if one.behaviour is not None}
    if behaviours:
        summed["answers"] = _answers(behaviours)
    return summed


def _answers(found: Mapping[Runs, Behaviour]) -> schema.LineageAnswers:
    """What the answers of two models say, by pairs of their runs."""
    rates = [
        schema.RepeatedErrors(wrong=wrong, repeats=repeats, value=rate.value, low=rate.low, high=rate.high, n=rate.n)
        for runs, behaviour in found.items()
        for rate, (wrong, repeats) in zip(behaviour.repeated, (runs, runs[::-1]), strict=False)
        if rate.value is not None and rate.low is not None and rate.high is not None
    ]
    reasons = Counter(one.reason for one in found.values() if one.reason)
    return schema.LineageAnswers(
        compared=sum(one.n > 0 for one in found.values()),
        calibrated=sum(one.decisive is not None for one in found.values()),
        references=max(map(_references, found.values()), default=0),
        # By the lower end: one of one error is no more than nine of ten.
        repeated=max(rates, key=lambda rate: (rate["low"], rate["value"]), default=None),
        mean=statistics.fmean(rate["value"] for rate in rates) if rates else None,
        reason=reasons.most_common(1)[0][0] if reasons else None,
    )


def _references(found: Behaviour) -> int:
    return 0 if found.decisive is None else found.decisive.residual.references


def _all_answers(judged: Collection[Judged]) -> schema.ComparedAnswers:
    found = [pair.behaviour for pair in judged if pair.behaviour is not None]
    calibrated = sum(one.decisive is not None for one in found)
    return schema.ComparedAnswers(
        compared=sum(one.n > 0 for one in found),
        calibrated=calibrated,
        references=max(map(_references, found), default=0),
        needed=blackbox.needed(Q),
        needed_together=blackbox.needed(Q, max(1, calibrated)),
    )


def _note(pairs: Sequence[Judged], own: bool) -> str | None:
    """What explains that runs of two models, or of one (own), share weights."""
    if own and pairs and all(pair.verdict.name == "copy" for pair in pairs):
        return SEED_CHANGES_NOTHING
    sharing = [pair for pair in pairs if pair.verdict.name in SHARING]
    if sharing and all(pair.verdict.name == "common ancestor" and pair.evidence.origin for pair in sharing):
        return ONE_CHECKPOINT if own and len(sharing) == len(pairs) else ONE_START
    return None


def _strength(pair: Judged) -> tuple[bool, int, bool, float, float, float]:
    """How much speaks for a common past; the smallest is the most. What a record tells comes first, and what answers
    tell after what weights do."""
    shares = ORDER.index(pair.verdict.name) if pair.verdict.name in (*SHARING, DERIVED_BEHAVIOUR) else len(ORDER)
    row = _decisive(pair)
    by_answers = row is not None and row["test"] == "B2"
    if row is None or row["corrected"] is None:  # what the numbers themselves tell comes before every p-value
        return pair.recorded is None, shares, row is None, 2.0 if row is None else -1.0, 0.0, 0.0
    return (pair.recorded is None, shares, by_answers, *_smallness(row))


def _decisive(pair: Judged) -> schema.LineageEvidence | None:
    """The record, where there is one; else the evidence that the verdict rests on; where no test rejects, that with the
    smallest p-value: of the weights, or where these could not be tested, of the answers. None where no test has one."""
    rows = _rows(pair)
    if "record" in rows:
        return rows["record"]
    if pair.verdict.name in SHARING and not pair.verdict.null:
        return rows["numbers"]
    shares = pair.verdict.null if pair.verdict.name in SHARING else ""
    wanted = {NULL_EXACT: ("R1", "R2"), NULL_REPLICAS: ("R3",)}.get(shares, ("R1", "R2", "R3"))
    decided = pair.verdict.name != "undetermined" and pair.verdict.null == NULL_ANSWERS
    if decided or not _tested(pair):
        wanted = ("B2",)
    with_p = [rows[name] for name in wanted if name in rows and rows[name]["p"] is not None]
    return min(with_p, key=_smallness) if with_p else None


def _smallness(row: schema.LineageEvidence) -> tuple[float, float, float]:
    """Of a p-value: corrected, then that of the pair alone, as a logarithm because many are 0 as floats. With few
    references most p-values of answers are the same: then the larger correlation comes first."""
    alike = (row["statistic"] or 0.0) if row["test"] == "B2" else 0.0
    return row["corrected"] or 0.0, row["log10_p"] if row["log10_p"] is not None else -math.inf, -alike


def _rows(pair: Judged) -> dict[str, schema.LineageEvidence]:
    return {row["test"]: cast(schema.LineageEvidence, row) for row in evidence_rows(pair)}


def _listed(
    runs: Runs, pair: Judged, opened: Mapping[int, Weights], explained: schema.Explained | None
) -> schema.LineageRunPair:
    later = [place for place, model in opened.items() if model.label == pair.verdict.later]
    made = [run for run in runs if pair.recorded is not None and opened[run].label == pair.recorded.child]
    return schema.LineageRunPair(
        a=runs[0],
        b=runs[1],
        verdict=pair.verdict.name,
        strength=pair.verdict.strength,
        statement=pair.verdict.statement,
        later=later[0] if later else None,
        on_record=pair.evidence.origin or None,
        child=made[0] if made else None,
        explained=explained,
        evidence=cast("list[schema.LineageEvidence]", evidence_rows(pair)),
    )


def _records(members: Sequence[Member], found: _Found) -> list[schema.LineageRecord]:
    """The runs that by their records were made out of others, whether or not these are among the members."""
    told = []
    for child, member in enumerate(members):
        named = parent_of(member.run.record)
        if named is None:
            continue
        parents = [place for place in _with_key(members, named.key) if place != child]
        pairs = [(place, found.judged.get(_sorted(child, place))) for place in parents]
        # Of several runs that have the key, one whose weights are those on record.
        sure = [(place, pair.recorded.against) for place, pair in pairs if pair is not None and pair.recorded]
        sure.sort(key=lambda item: item[1] == "other weights")
        parent, against = sure[0] if sure else (parents[0] if parents else None, None)
        told.append(
            schema.LineageRecord(
                child=child, parent=parent, label=named.label, seed=named.seed, steps=list(named.steps), against=against
            )
        )
    return told


def _with_key(members: Sequence[Member], key: str) -> list[int]:
    return [place for place, member in enumerate(members) if member.run.record.get("key") == key]


def _explained(
    members: Sequence[Member], owners: Sequence[int], unseeded: Collection[int], found: _Found
) -> dict[Runs, schema.Explained]:
    """Why weights or answers that two runs share are no news, by pairs of runs: because a record or the construction of
    the models says so, of the two or of others through which they are related. Records of one start explain a common
    ancestor, and neither a copy nor that one comes from the other."""
    told: dict[Runs, schema.Explained] = {}
    same: list[tuple[int, Any]] = []
    for child, member in enumerate(members):
        if named := parent_of(member.run.record):  # two children of one parent are related though it may be missing
            same += [(child, named.key), *((child, place) for place in _with_key(members, named.key))]
    started: list[tuple[int, Any]] = []
    for runs, pair in found.judged.items():
        if pair.recorded is not None:
            told[runs] = "on record"
        elif owners[runs[0]] == owners[runs[1]] and owners[runs[0]] in unseeded:
            told[runs] = "no randomness"
            same.append(runs)
        elif pair.verdict.name == "common ancestor" and pair.evidence.origin:
            config = members[runs[0]].run.record.get("config") or {}
            told[runs] = "one checkpoint" if config.get("model_fingerprint") else "one seed"
            started.append(runs)
    close, wide = _related(same), _related([*same, *started])
    for (one, two), pair in found.judged.items():
        related = wide if pair.verdict.name == "common ancestor" else close
        shared = pair.verdict.name in (*SHARING, DERIVED_BEHAVIOUR)
        if shared and (one, two) not in told and one in related and related[one] == related.get(two):
            told[one, two] = "through others"
    return told


def _related(links: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Of everything that is linked, one that stands for all that it is related to through any number of links."""
    first: dict[Any, Any] = {}

    def find(one: Any) -> Any:
        while first.setdefault(one, one) != one:
            one = first[one]
        return one

    for one, two in links:
        first[find(one)] = find(two)
    return {one: find(one) for one in list(first)}


def _same_whatever_the_seed(owners: Sequence[int], unseeded: Collection[int]) -> Callable[[int, int], bool]:
    return lambda one, two: owners[one] == owners[two] and owners[one] in unseeded


def _tree(
    compared: Compared,
    places: Sequence[int],
    records: Sequence[schema.LineageRecord],
    same: Callable[[int, int], bool],
    found: _Found,
) -> list[schema.LineageEdge]:
    """The arcs of the family tree: what records say, and below it what weights do. same: whether two runs are copies
    because a seed changes nothing, which is no family."""
    parents: dict[int, int] = {}
    directions: dict[int, Any] = {}
    arcs = [(record["child"], record["parent"], "on record") for record in records if record["parent"] is not None]
    for child, parent in sorted(compared.parents.items()):
        arcs.append((places[child], places[parent], compared.family.directions[child]))
    for child, parent, direction in arcs:
        if child not in parents and not same(child, parent) and child not in _line_of(parents, parent):
            parents[child], directions[child] = parent, direction
    return [_edge(child, parent, directions[child], found) for child, parent in sorted(parents.items())]


def _line_of(parents: Mapping[int, int], run: int) -> list[int]:
    """A run and all that it comes from."""
    line = [run]
    while line[-1] in parents:
        line.append(parents[line[-1]])
    return line


def _edge(child: int, parent: int, direction: Any, found: _Found) -> schema.LineageEdge:
    pair = found.judged.get(_sorted(child, parent))
    distance = math.nan if pair is None else pair.evidence.distance
    return schema.LineageEdge(
        child=child,
        parent=parent,
        verdict="undetermined" if pair is None else pair.verdict.name,
        # Rounded: the last digits depend on the order in which a processor adds.
        distance=None if math.isnan(distance) else round(distance, 4),
        direction=direction,
    )
