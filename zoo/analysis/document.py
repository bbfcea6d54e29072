"""A study's folders to the whole document: opened, guarded, measured and put together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo import __version__, guard
from zoo.analysis import content, costs, first, lineage, sections
from zoo.analysis.convert import finite, from_models, from_scalar
from zoo.homogeneity import headline as numbers
from zoo.homogeneity import kinship
from zoo.homogeneity.bootstrap import Bootstrap
from zoo.homogeneity.layers import Grid, Null, compare
from zoo.homogeneity.leaderboard import Leaderboard, leaderboard
from zoo.homogeneity.macro_f1 import macro_f1
from zoo.homogeneity.results import UNDEFINED, Pairs, PerModel, Result, Scalar
from zoo.plugins import registry
from zoo.reporting import schema
from zoo.reporting.lineage_schema import Lineage
from zoo.reporting.schema import number, undefined
from zoo.store import guards, panel, probe, study
from zoo.store.recipes import Recipe
from zoo.store.schema import PARENT, computed_on

if TYPE_CHECKING:
    from zoo.homogeneity.measures import Measure
    from zoo.store.guards import Comparison
    from zoo.store.panel import Panel
    from zoo.store.probe import Probe

CONTENT_BYTES = 500_000
"""Texts and thumbnails that a report carries, so that its page stays small."""
MOST_GRIDS = 45
"""Pairs of models whose layers are compared: ten models."""


@dataclass(frozen=True)
class Options:
    """How a report is made. draws and permutations: of the bootstrap and of the null of the representations; seed: of
    both; examples: whether texts and images of the data may be in it; device: where the matrix products run; benches:
    whether what `zoo.bench` measured joins in, where it did; lineage: whether the runs' weights are compared; answers:
    and with them their answers, as reports of before did not."""

    draws: int = 1000
    permutations: int = 200
    seed: int = 0
    examples: bool = True
    device: str = "cpu"
    benches: bool = True
    lineage: bool = True
    answers: bool = True


Progress = Callable[[str], None]


def analyse(
    paths: Sequence[str | Path],
    options: Options,
    command: Sequence[str] = (),
    progress: Progress = lambda stage: None,
    left_out: Sequence[schema.LeftOut] | None = None,
) -> schema.Document:
    """The findings of a study. paths: as `zoo.store.study.open` takes them; command: the words that asked for it;
    left_out: what was left out, where that is known from before and the paths are of what was not.

    Raises RequestError when there is nothing to compare, DamagedRun when a file changes meanwhile."""
    progress("reading the runs")
    comparison = guards.compare(study.open([Path(path) for path in paths]))
    answers = panel.build(comparison)
    plan = Bootstrap(options.draws, options.seed, device=options.device)
    kinds = [entry.cls for entry in registry().entries["measure"].values()]
    kinds.sort(key=_core_order)
    counting = numbers.headline(answers, plan)
    counted, every, gap = counting.models, first.together(answers, counting.models), first.too_few(counting, answers)
    results: dict[str, Result] = {}
    for kind in kinds:
        progress(f"measuring likeness: {kind.title}")
        if kind.scope == "set" and gap:
            results[kind.name] = Scalar(None, None, None, len(answers.ids), gap)
        else:
            results[kind.name] = _measured(kind, every if kind.scope == "set" else answers, plan)
    board = leaderboard(answers)
    votes = sections.Votes.of(answers)
    progress("comparing representations")
    grids = _representations(answers, probe.build(comparison), options)
    kin = lineage.lineage(comparison, answers.models, progress, options.answers) if options.lineage else None
    progress("putting it together")
    gone = _left_out(comparison) if left_out is None else list(left_out)
    found = _Found(kinds, results, board, votes, grids, plan, kin, counted, every, gap, gone)
    return _document(comparison, answers, found, options, command)


def _measured(kind: type[Measure], answers: Panel, plan: Bootstrap) -> Result:
    with guard.blamed(f"Measure '{kind.name}' failed in compute"):
        return kind().compute(answers, plan)


def _core_order(kind: type[Measure]) -> tuple[int, str]:
    """The core's measures in their own order, others after them by name."""
    from zoo.homogeneity.measures import MEASURES

    return (MEASURES.index(kind), "") if kind in MEASURES else (len(MEASURES), kind.name)


@dataclass(frozen=True)
class _Found:
    kinds: list[type[Measure]]
    results: Mapping[str, Result]
    board: Leaderboard
    votes: sections.Votes
    grids: schema.Representations
    plan: Bootstrap
    lineage: Lineage | None
    counted: tuple[int, ...]
    every: Panel
    gap: str
    left_out: list[schema.LeftOut]

    def of_models(self) -> dict[str, PerModel]:
        return {name: result for name, result in self.results.items() if isinstance(result, PerModel)}

    def of_pairs(self) -> dict[str, Pairs]:
        return {name: result for name, result in self.results.items() if isinstance(result, Pairs)}


def _document(
    comparison: Comparison, answers: Panel, found: _Found, options: Options, command: Sequence[str]
) -> schema.Document:
    record = comparison.members[0].run.record
    of_pairs = found.of_pairs()
    replicas = not found.gap and np.bincount(found.every.runs).min() > 1
    together = (
        sections.failed(found.every, found.plan) if not found.gap else sections.nothing_failed(answers, found.gap)
    )
    origin = _provenance(comparison, answers, command)
    headline = first.headline(answers, found.plan, of_pairs, found.left_out, origin["runs"])
    told = first.as_in_the_headline(of_pairs, headline, found.plan)
    every = sections.pairs(answers, found.votes, told, kinship.claims(answers, found.plan))
    document = schema.Document(
        schema_version=schema.SCHEMA_VERSION,
        title=f"{record['task']} · {record['dataset']}",
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        zoo_version=__version__,
        command=list(command),
        examples_included=options.examples,
        study=_study(record, answers),
        headline=headline,
        models=_models(comparison, answers, found),
        measures=sections.measures(found.kinds, {**found.results, **told}),
        pairs=every,
        set_measures=_of_set(found),
        map=sections.picture(answers, of_pairs[headline["measure"]], found.counted),
        failures=together,
        diversity=sections.diversity(found.every, answers.models, found.board, found.plan)
        if not found.gap
        else sections.no_diversity(answers, found.plan, found.gap),
        representations=found.grids,
        examples=_examples(
            _of_the_data(comparison), answers, found.votes, _referred(together, every), options.examples
        ),
        left_out=found.left_out,
        method=schema.Method(
            draws=options.draws,
            confidence=found.plan.confidence,
            permutations=options.permutations,
            correction="Benjamini-Yekutieli",
            calibrated=answers.calibrated,
            seed=options.seed,
        ),
        provenance=origin,
    )
    if (
        replicas
        and len(found.every.models) > 1
        and isinstance(diverse := found.results.get("recipe_diversity"), Scalar)
    ):
        document["recipe_diversity"] = from_scalar(diverse)
    # Only where there are some: a report of a study without them is what it always was.
    if options.benches and (found_benches := costs.benches(comparison, answers.models, found.board, found.counted)):
        document["benches"] = found_benches
    if found.lineage is not None:
        document["lineage"] = found.lineage
    return schema.check(document)


def _of_the_data(comparison: Comparison) -> Mapping[str, Any]:
    """The record that says where the examples are: of a run that read them, where there is one."""
    records = [member.run.record for member in comparison.members]
    return next((record for record in records if not record.get("imported")), records[0])


def _study(record: Mapping[str, Any], answers: Panel) -> schema.Study:
    data = record.get("data", {})
    return schema.Study(
        task=str(record["task"]),
        dataset=str(record["dataset"]),
        modality="image" if data.get("modality") == "image" else "text",
        classes=list(answers.classes),
        examples=len(answers.ids),
        fingerprint=str(data.get("fingerprint", "")),
    )


_ELSEWHERE = frozenset({"effective_models", "effective_against_joint_failure", "recipe_diversity"})
"""Measures of the set that stand in the headline, or have a section of their own."""


def _of_set(found: _Found) -> dict[str, schema.Number]:
    return {
        name: from_scalar(result)
        for name, result in found.results.items()
        if isinstance(result, Scalar) and name not in _ELSEWHERE
    }


def _models(comparison: Comparison, answers: Panel, found: _Found) -> list[schema.Model]:
    told = []
    recipes = {member.model: Recipe.of(member.run.record).facts() for member in comparison.members}
    reliability, f1 = kinship.reliability(answers, found.plan), macro_f1(answers, found.plan)
    for index, name in enumerate(answers.models):
        runs = [member.run.record for member in comparison.members if member.model == name]
        backend = str((runs[0].get("config", {}).get("model") or {}).get("name", runs[0].get("model", name)))
        told.append(
            schema.Model(
                name=name,
                backend=backend,
                recipe=_differences(name, backend, recipes, comparison),
                seeds=[seed for run, seed in zip(answers.runs, answers.seeds, strict=True) if run == index],
                metrics={"accuracy": sections.accuracy_of(found.board, index), "macro_f1": from_models(f1, index)},
                rank=int(found.board.rank[index]),
                reliability=sections.reliability_of(reliability, answers, index),
                cost=_cost(runs),
                measures={name: from_models(result, index) for name, result in found.of_models().items()},
            )
        )
    return told


def _differences(
    name: str, backend: str, recipes: Mapping[str, Mapping[str, str]], comparison: Comparison
) -> dict[str, str]:
    """The options in which a model differs from the others of its kind."""
    kin = {
        member.model
        for member in comparison.members
        if (member.run.record.get("config", {}).get("model") or {}).get("name") == backend
    }
    mine = recipes[name]
    others = [recipes[other] for other in kin if other != name]
    return {key: value for key, value in mine.items() if any(other.get(key) != value for other in others)}


def _least(runs: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The least of what the runs recorded; None for nothing."""
    known = [float(value) for run in runs if isinstance(value := run.get(name), int | float)]
    return finite(min(known)) if known else None


def _cost(runs: Sequence[Mapping[str, Any]]) -> schema.Cost:
    """Medians over a model's runs; of memory the least, because a process that ran other models before holds some of
    theirs."""

    def median(name: str, of: str = "training") -> float | None:
        values = [(run.get(of) or {}).get(name) if of else run.get(name) for run in runs]
        known = [float(value) for value in values if isinstance(value, int | float)]
        return finite(statistics.median(known)) if known else None

    training = runs[0].get("training") or {}
    device, precision = (str(training.get(name) or "") for name in ("device", "precision"))
    parameters = median("param_count")
    return schema.Cost(
        param_count=None if parameters is None else int(parameters),
        train_seconds=median("train_seconds"),
        train_samples_per_sec=median("train_samples_per_sec"),
        infer_samples_per_sec=median("infer_samples_per_sec"),
        peak_memory_mib=_least(runs, "peak_memory_mib"),
        device=computed_on(device, precision, training.get("threads")) or None,
    )


def _representations(answers: Panel, probed: Probe, options: Options) -> schema.Representations:
    """Linear CKA, unbiased, of every two layers of every two models; each model by its first run."""
    first = {model: probed.runs.index(index) for index, model in enumerate(probed.models) if index in probed.runs}
    chosen = [model for model in answers.models if model in first and probed.layers[first[model]]]
    if len(chosen) < 2 or len(probed.ids) < 4:
        return schema.Representations(
            probe=len(probed.ids) or None, grids=[], reason="fewer than two models have stored layer outputs"
        )
    null = Null(permutations=options.permutations, seed=options.seed, groups=20)
    names = [(a, b) for place, a in enumerate(chosen) for b in chosen[place + 1 :]][:MOST_GRIDS]
    grids = [compare(probed.layers[first[a]], probed.layers[first[b]], "cka", null) for a, b in names]
    corrected = kinship.benjamini_yekutieli(np.array([grid.best_p for grid in grids]))
    told = [
        _grid(answers.models.index(a), answers.models.index(b), grid, float(p))
        for (a, b), grid, p in zip(names, grids, corrected, strict=True)
    ]
    pairs = len(chosen) * (len(chosen) - 1) // 2
    lacking = f"{len(told)} of {pairs} pairs of models, the first by name" if len(told) < pairs else None
    return schema.Representations(probe=len(probed.ids), grids=told, reason=lacking)


def _grid(a: int, b: int, grid: Grid, corrected: float) -> schema.LayerGrid:
    if grid.best is None:
        best, row, column = undefined(next(iter(grid.reasons.values()), UNDEFINED), grid.n), None, None
    else:
        row, column = grid.best
        best = number(grid.best_value, finite(grid.low[row, column]), finite(grid.high[row, column]), grid.n)
    return schema.LayerGrid(
        a=a,
        b=b,
        layers_a=list(grid.x_layers),
        layers_b=list(grid.y_layers),
        cka=[[finite(value) for value in values] for values in grid.value],
        best=best,
        best_a=row,
        best_b=column,
        null_quantile=finite(grid.best_null_high),
        p_value=finite(corrected),
    )


def _referred(together: schema.Failures, pairs: Sequence[schema.Pair]) -> list[str]:
    """Ids that the document names, those that every model fails first."""
    ids = [example["id"] for example in together["every_model_fails"]]
    ids += [example["id"] for example in together["against_label"]["listed"]] if "against_label" in together else []
    for pair in pairs:
        for listed in (pair["failed_together"], pair["differing"]):
            ids += listed["ids"] if listed else []
    return list(dict.fromkeys(ids))


def _examples(
    record: Mapping[str, Any], answers: Panel, votes: sections.Votes, ids: Sequence[str], with_content: bool
) -> dict[str, schema.Example]:
    """What is known of each example named; texts and thumbnails as far as their size allows."""
    held = content.shown(content.test_split(record), ids) if with_content else {}
    rows = {name: row for row, name in enumerate(answers.ids)}
    told, size = {}, 0
    for name in ids:
        row = rows[name]
        text, png = held.get(name, (None, None))
        size += len(text or "") + len(png or "")
        if size > CONTENT_BYTES:
            text = png = None
        told[name] = schema.Example(
            label=answers.classes[int(answers.labels[row])],
            predictions=[answers.classes[int(said)] for said in votes.answers[:, row]],
            text=text,
            png=png,
        )
    return told


def _left_out(comparison: Comparison) -> list[schema.LeftOut]:
    told = [
        schema.LeftOut(
            what=item.what,
            folder=None if item.folder is None else str(item.folder),
            code=item.code,
            why=item.why,
            reason=item.reason,
        )
        for item in comparison.left_out
    ]
    return told + [
        schema.LeftOut(what="note", folder=None, code="note", why="compared nevertheless", reason=note)
        for note in comparison.notes
    ]


def _provenance(comparison: Comparison, answers: Panel, command: Sequence[str]) -> schema.Provenance:
    environments: list[schema.Environment] = []
    runs = []
    for member in comparison.members:
        environment = _environment(member.run.record)
        if environment not in environments:
            environments.append(environment)
        runs.append(
            schema.RunOrigin(
                model=answers.models.index(member.model),
                seed=member.seed,
                key=str(member.run.record["key"]),
                folder=str(member.run.folder),
                environment=environments.index(environment),
                parent=_parent(member.run.record),
                imported=bool(member.run.record.get("imported")),
            )
        )
    made = [[str(word) for word in member.run.record.get("command") or []] for member in comparison.members]
    commands = [list(words) for words in dict.fromkeys(tuple(words) for words in made if words)]
    return schema.Provenance(
        runs=runs, environments=environments, commands=[*commands, list(command)] if command else commands
    )


def _parent(record: Mapping[str, Any]) -> str | None:
    """The key of the run that this one was made from, as its record says."""
    parent = record.get(PARENT)
    return str(parent.get("key", "")) if isinstance(parent, Mapping) else None


def _environment(record: Mapping[str, Any]) -> schema.Environment:
    versions = {str(name): str(version) for name, version in (record.get("versions") or {}).items()}
    plugins = {name: versions.pop(name) for name in list(versions) if name.startswith("zoo-")}
    hardware = {str(name): str(value) for name, value in (record.get("hardware") or {}).items()}
    return schema.Environment(
        zoo_version=plugins.pop("zoo-harness", None), versions=versions, plugins=plugins, hardware=hardware
    )
