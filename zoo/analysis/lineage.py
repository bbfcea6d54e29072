"""Who shares weights with whom: every two runs of a study compared on their weights, summed up by pairs of models."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast, get_args

from zoo.errors import ZooError
from zoo.lineage.comparison import Comparison as Compared
from zoo.lineage.comparison import Judged, compare_runs
from zoo.lineage.dead import looking
from zoo.lineage.document import evidence_rows
from zoo.lineage.multiple import METHOD, Q
from zoo.lineage.verdict import NULL_EXACT, NULL_REPLICAS
from zoo.lineage.weights import Weights, of_run
from zoo.reporting import lineage_schema as schema
from zoo.reporting.lineage_schema import Verdict
from zoo.store.schema import WEIGHTS

if TYPE_CHECKING:
    from zoo.store.guards import Comparison, Member

MOST_RUNS = 100
"""Runs whose weights are compared, which is 4,950 pairs: of more, the first seeds of each model."""

NO_WEIGHTS = "the run keeps no weights"
NOT_LOOKED_AT = "the run is beyond the first {most} and was not looked at"
SEED_CHANGES_NOTHING = "all its runs hold the same weights: its seed changes nothing"
ONE_CHECKPOINT = "all its runs started from one checkpoint: a common ancestor by construction"
ONE_START = "by their records these runs began with the same weights: a common ancestor by construction"

# The least related last. What is neither of the last two is listed in full.
ORDER = get_args(Verdict)
SHARING = frozenset(("copy", "derived", "common ancestor"))
_UNREMARKABLE = frozenset(("independent", "undetermined"))

Runs = tuple[int, int]


def lineage(comparison: Comparison, models: Sequence[str], progress: Callable[[str], None]) -> schema.Lineage:
    """What the weights of a study's runs say. models: names, in the order of the report's indices; progress: told what
    is being done. Runs are told by their position among the members. Training data are read where R2 needs them, and
    nothing of them is kept."""
    members = comparison.members
    weights, lacking = _open(members)

    def told(done: int, pairs: int) -> None:
        progress(f"comparing weights: pair {done} of {pairs}")

    compared = compare_runs(list(weights.values()), looking(), told)
    places = list(weights)
    judged = {_sorted(places[i], places[j]): pair for (i, j), pair in _by_indices(compared).items()}
    owners = [models.index(member.model) for member in members]
    pairs = _pairs(owners, judged, lacking)
    unseeded = {pair["a"] for pair in pairs if pair["note"] == SEED_CHANGES_NOTHING}
    return schema.Lineage(
        q=Q,
        correction=METHOD,
        exact_tests=compared.tests,
        runs=len(members),
        run_pairs=math.comb(len(members), 2),
        tested=sum(map(_tested, judged.values())),
        pairs=pairs,
        listed=[_listed(runs, pair, places, weights) for runs, pair in _remarkable(judged)],
        tree=_tree(compared, places, owners, unseeded),
        lacking=[schema.LackingRun(run=run, reason=reason) for run, reason in sorted(lacking.items())],
    )


def _open(members: Sequence[Member]) -> tuple[dict[int, Weights], dict[int, str]]:
    """Weights by position of the run, and why there are none."""
    weights: dict[int, Weights] = {}
    lacking: dict[int, str] = {}
    for place in _seeds_first(members):
        run = members[place].run
        if not (run.folder / WEIGHTS).is_file():
            lacking[place] = NO_WEIGHTS
        elif len(weights) == MOST_RUNS:
            lacking[place] = NOT_LOOKED_AT.format(most=MOST_RUNS)
        else:
            try:
                weights[place] = of_run(run.folder, run.record, f"{members[place].model} seed {members[place].seed}")
            except ZooError as error:
                lacking[place] = str(error).splitlines()[0]
    return dict(sorted(weights.items())), lacking


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
    """Whether anything was compared: an exact test, aligned weights against replicas, or the numbers themselves."""
    found = pair.evidence
    return (
        pair.verdict.name != "undetermined"
        or found.log_p_order is not None
        or found.dead is not None
        or found.calibrated is not None
    )


def _remarkable(judged: Mapping[Runs, Judged]) -> list[tuple[Runs, Judged]]:
    """The pairs that are listed, the most closely related first."""
    listed = [item for item in judged.items() if item[1].verdict.name not in _UNREMARKABLE]
    return sorted(listed, key=lambda item: (ORDER.index(item[1].verdict.name), item[0]))


def _pairs(
    owners: Sequence[int], judged: Mapping[Runs, Judged], lacking: Mapping[int, str]
) -> list[schema.LineagePair]:
    """Each pair of models, and each model with itself where it has two runs."""
    together: defaultdict[Runs, list[Runs]] = defaultdict(list)
    for two in range(len(owners)):
        for one in range(two):
            together[_sorted(owners[one], owners[two])].append((one, two))
    return [_summed(models, runs, judged, lacking) for models, runs in sorted(together.items())]


def _summed(
    models: Runs, runs: Sequence[Runs], judged: Mapping[Runs, Judged], lacking: Mapping[int, str]
) -> schema.LineagePair:
    found = {pair: judged[pair] for pair in runs if pair in judged}
    verdicts: Counter[Verdict] = Counter(pair.verdict.name for pair in found.values())
    verdicts["undetermined"] += len(runs) - len(found)
    reasons = [lacking[one if one in lacking else two] for one, two in runs if (one, two) not in found]
    reasons += [pair.verdict.statement for pair in found.values() if not _tested(pair)]
    strongest = min(found.items(), key=lambda item: _strength(item[1]), default=None)
    evidence = _decisive(strongest[1]) if strongest is not None and _tested(strongest[1]) else None
    return schema.LineagePair(
        a=models[0],
        b=models[1],
        run_pairs=len(runs),
        tested=sum(map(_tested, found.values())),
        verdicts={str(name): verdicts[name] for name in ORDER if verdicts[name]},
        strongest=evidence,
        strongest_runs=list(strongest[0]) if strongest is not None and evidence is not None else None,
        reason=Counter(reasons).most_common(1)[0][0] if reasons else None,
        note=_note(list(found.values()), models[0] == models[1]),
    )


def _note(pairs: Sequence[Judged], own: bool) -> str | None:
    """What explains that runs of two models, or of one (own), share weights."""
    if own and pairs and all(pair.verdict.name == "copy" for pair in pairs):
        return SEED_CHANGES_NOTHING
    sharing = [pair for pair in pairs if pair.verdict.name in SHARING]
    if sharing and all(pair.verdict.name == "common ancestor" and pair.evidence.origin for pair in sharing):
        return ONE_CHECKPOINT if own and len(sharing) == len(pairs) else ONE_START
    return None


def _strength(pair: Judged) -> tuple[int, float, float]:
    """How much speaks for a common past; the smallest is the most."""
    shares = ORDER.index(pair.verdict.name) if pair.verdict.name in SHARING else len(SHARING)
    row = _decisive(pair) if _tested(pair) else None
    if row is None or row["corrected"] is None:  # what the numbers themselves tell comes before every p-value
        return shares, 2.0 if row is None else -1.0, 0.0
    return (shares, *_smallness(row))


def _decisive(pair: Judged) -> schema.LineageEvidence | None:
    """The evidence that the verdict rests on; where no test rejects, that with the smallest p-value."""
    rows = _rows(pair)
    if pair.verdict.name in SHARING and not pair.verdict.null:
        return rows["numbers"]
    shares = pair.verdict.null if pair.verdict.name in SHARING else ""
    wanted = {NULL_EXACT: ("R1", "R2"), NULL_REPLICAS: ("R3",)}.get(shares, ("R1", "R2", "R3"))
    with_p = [rows[name] for name in wanted if rows[name]["p"] is not None]
    return min(with_p, key=_smallness) if with_p else None


def _smallness(row: schema.LineageEvidence) -> tuple[float, float]:
    """Of a p-value: corrected, then that of the pair alone, as a logarithm because many are 0 as floats."""
    return row["corrected"] or 0.0, row["log10_p"] if row["log10_p"] is not None else -math.inf


def _rows(pair: Judged) -> dict[str, schema.LineageEvidence]:
    return {row["test"]: cast(schema.LineageEvidence, row) for row in evidence_rows(pair)}


def _listed(runs: Runs, pair: Judged, places: Sequence[int], weights: Mapping[int, Weights]) -> schema.LineageRunPair:
    later = [place for place in places if weights[place].label == pair.verdict.later]
    return schema.LineageRunPair(
        a=runs[0],
        b=runs[1],
        verdict=pair.verdict.name,
        strength=pair.verdict.strength,
        statement=pair.verdict.statement,
        later=later[0] if later else None,
        on_record=pair.evidence.origin or None,
        evidence=list(_rows(pair).values()),
    )


def _tree(
    compared: Compared, places: Sequence[int], owners: Sequence[int], unseeded: set[int]
) -> list[schema.LineageEdge]:
    """The arcs of the family tree. Runs that are copies because a seed changes nothing are no family."""
    judged = _by_indices(compared)
    arcs = []
    for child, parent in sorted(compared.parents.items()):
        if owners[places[child]] == owners[places[parent]] and owners[places[child]] in unseeded:
            continue
        pair = judged[_sorted(child, parent)]
        distance = pair.evidence.distance
        arcs.append(
            schema.LineageEdge(
                child=places[child],
                parent=places[parent],
                verdict=pair.verdict.name,
                # Rounded: the last digits depend on the order in which a processor adds.
                distance=None if math.isnan(distance) else round(distance, 4),
                told=pair.verdict.later == compared.models[child].label,
            )
        )
    return arcs
