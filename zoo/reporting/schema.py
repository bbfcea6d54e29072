"""The findings: one plain, JSON-able document, and the only thing that a report is written from. It is `report.json`.

Every field is described where it stands; `describe()` turns that into the table that users read, and `check` holds a
document against it. Only JSON's own types occur: no NaN (an undefined number is `null` with a reason), no tuples.

Positions: a model is referred to by its index in `models`, a measure by its name, an example by its id.
Shares and probabilities are fractions in [0, 1], never percentages. Intervals are 95 % intervals. Reasons, notes and
the titles of measures are English here; the report translates those that its catalogue of the language knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

from zoo import form
from zoo.reporting import lineage_schema
from zoo.reporting.lineage_schema import Lineage
from zoo.store import study

SCHEMA_VERSION = 2

Shown = Literal["kinship", "error_correlation"]
"""The measures that pairs, map and tree may be shown in."""

CONFIDENT = 0.9
"""The probability from which a model is sure of its answer: of two classes or two models, a label is suspected only
where all are."""

WarningCode = Literal[
    "damaged", "replaced", "fewer_examples", "not_comparable", "made_from", "imported", "few_examples", "few_failures"
]
"""What may have to be known before the headline is used."""

LeftOutCode = Literal["note", study.Code]
"""Why something is not compared, and `note` for what is compared nevertheless."""


class Number(TypedDict):
    """A number with its interval, or the reason why there is none. Where one is not asked for, it may be null."""

    value: Annotated[float | None, "the estimate; null when undefined"]
    low: Annotated[float | None, "lower end of the 95 % interval; null when there is none"]
    high: Annotated[float | None, "upper end of the 95 % interval"]
    n: Annotated[int | None, "how many examples (or pairs, or cases) it was computed from"]
    reason: Annotated[
        str | None,
        "why the value is undefined, as a short English clause; beside a value, something to mind about it",
    ]


class Study(TypedDict):
    """What the models were asked."""

    task: Annotated[str, "e.g. `sentiment`"]
    dataset: Annotated[str, "e.g. `rotten_tomatoes`"]
    modality: Annotated[Literal["text", "image"], "what an example is"]
    classes: Annotated[list[str], "the names of the classes, in order"]
    examples: Annotated[int, "number of test examples that all models answered"]
    fingerprint: Annotated[str, "hash of the data"]


class PairOfModels(TypedDict):
    """Two models and how alike they are."""

    a: Annotated[int, "index of a model"]
    b: Annotated[int, "index of another"]
    likeness: Annotated[Number, "in the headline's `measure`"]


class Estimate(TypedDict):
    """A number of the headline with its interval, or the reason why there is none."""

    value: Annotated[float | None, "the estimate; null when undefined"]
    low: Annotated[float | None, "lower end of the 95 % interval, or the bound; null when there is none"]
    high: Annotated[float | None, "upper end of the 95 % interval; null when there is none"]
    n: Annotated[int | None, "how many examples it was computed from"]
    reason: Annotated[str | None, "why it is undefined, or what to mind about it, as a short English clause"]
    bound: Annotated[Literal["at_least"] | None, "`at_least`: too few events for an interval; `low` is a lower bound"]


class LeftOutModel(TypedDict):
    """A model that does not count in the headline."""

    model: Annotated[int, "index of the model"]
    why: Annotated[
        Literal["constant", "perfect", "always_wrong"],
        "it answers the same on every example, it is never wrong, or it is never right",
    ]


class HeadlineWarning(TypedDict):
    """Something to know before the headline is used."""

    code: Annotated[
        WarningCode,
        "runs left out as damaged; runs left out because a newer one of the same recipe and seed has other answers or "
        "lacks some; examples left out that some run did not answer; runs left out as not comparable; runs that count "
        "and were made from another run, by their own record; runs that count and were made elsewhere, beside others "
        "that were not; fewer than 30 test examples; too few failures for an interval to be relied on",
    ]
    count: Annotated[int | None, "how many runs or examples; null for `few_failures`"]
    names: Annotated[list[str], "what was left out, or of `not_comparable` why: a bounded number of them"]
    runs: Annotated[list[int], "of `made_from` and `imported`: indices in `provenance.runs`, a bounded number of them"]


class Headline(TypedDict):
    """What the report says first. The two numbers are of the models that count: those that are neither constant nor
    always right nor always wrong."""

    models: Annotated[int, "M, the number of models that count"]
    effective_models: Annotated[
        Estimate, "votes: how many independent models have as noisy a mean vote; M when failures are independent"
    ]
    joint_failure: Annotated[Estimate, "how many independent models all fail together as often"]
    joint_failures: Annotated[float, "number of examples that all of them fail, a mean over the choice of runs"]
    left_out: Annotated[list[LeftOutModel], "models that do not count"]
    warnings: Annotated[list[HeadlineWarning], "what changes these numbers or their meaning"]
    measure: Annotated[
        Shown,
        "what pairs, map and tree are shown in: kinship where it is defined for all models that count, which needs two "
        "runs of each",
    ]
    most_alike: Annotated[PairOfModels | None, "of the models that count; null when no pair is defined"]
    least_alike: Annotated[PairOfModels | None, "null when fewer than two pairs are defined"]


class Cost(TypedDict):
    """What a model costs: the median over its runs; null where it was not recorded."""

    param_count: Annotated[int | None, "number of parameters"]
    train_seconds: Annotated[float | None, "seconds of one training"]
    train_samples_per_sec: Annotated[float | None, "examples a second while training"]
    infer_samples_per_sec: Annotated[float | None, "examples a second while predicting"]
    peak_memory_mib: Annotated[float | None, "peak memory of the process, the least of its runs, MiB"]
    device: Annotated[
        str | None,
        "where it was measured, e.g. `cpu, fp32, 2 threads` or `cuda, bf16`; times compare only within a device",
    ]


class Model(TypedDict):
    """One model: all runs of one recipe."""

    name: Annotated[str, "distinguishes it within the study"]
    backend: Annotated[str, "the kind of model, e.g. `cnn`"]
    recipe: Annotated[dict[str, str], "the options in which it differs from the other models of its kind"]
    seeds: Annotated[list[int], "one a replica, in order"]
    metrics: Annotated[dict[str, Number], "`accuracy` always; `macro_f1`, `log_loss`, `ece` … where known"]
    rank: Annotated[int, "1 is best; models that a corrected paired test cannot tell apart share a rank"]
    reliability: Annotated[Number, "mean error correlation between its replicas"]
    cost: Annotated[Cost, "time, memory and size"]
    measures: Annotated[dict[str, Number], "further measures of scope `models`, by name; may be empty"]


class Measure(TypedDict):
    """One measure that was computed, and how to read it."""

    name: Annotated[str, "as in `pairs[].measures`, `models[].measures`, `set_measures` or `headline`"]
    title: Annotated[str, "English title"]
    scope: Annotated[
        Literal["pairs", "models", "set"], "a number for each pair, for each model, or one for all together"
    ]
    needs: Annotated[list[str], "of `labels`, `probabilities`, `features`, `replicas`"]
    higher_is: Annotated[Literal["more alike", "less alike"], "its direction"]
    range: Annotated[list[float | None], "two numbers: least and greatest possible value; null for unbounded"]
    chance: Annotated[str | None, "the value for independent models: a number or a formula as text"]
    accuracy_adjusted: Annotated[bool, "whether independent models of any accuracy get the same value"]
    source: Annotated[str, "publication, e.g. `Geirhos et al. 2020`"]
    formula: Annotated[str, "the definition as plain text; empty where the report knows it or the source must do"]
    note: Annotated[str | None, "anything to mind, e.g. that examples were sampled"]


class Claim(TypedDict):
    """A test over a pair."""

    raw: Annotated[float | None, "p-value before correction; null when undefined"]
    corrected: Annotated[float | None, "p-value corrected over all pairs"]
    reason: Annotated[str | None, "why undefined: as in `Number.reason`"]


class PValues(TypedDict):
    """The two claims that are tested for each pair."""

    more_alike_than_replicas: Annotated[Claim, "the two models are more alike than replicas of one recipe"]
    less_than_independent: Annotated[Claim, "the two models are less alike than independent ones"]


class ExampleList(TypedDict):
    """Some of the examples with a property."""

    total: Annotated[int, "how many there are in all"]
    ids: Annotated[list[str], "a bounded number of them; each may be a key of `examples`"]


class Pair(TypedDict):
    """Two models, or one with itself: a self-pair (a = b) compares its replicas, the baseline."""

    a: Annotated[int, "index of a model"]
    b: Annotated[int, "index of a model, at least `a`"]
    measures: Annotated[dict[str, Number], "name of the measure to number; one that is missing was not computed"]
    z: NotRequired[
        Annotated[
            float,
            "of `shared_wrong_answers`: agreements beyond the expected, in standard errors; "
            "missing where that measure is undefined",
        ]
    ]
    p_values: Annotated[PValues | None, "null for self-pairs"]
    differing: Annotated[ExampleList | None, "examples on which the two answer differently; null for self-pairs"]
    failed_together: Annotated[ExampleList | None, "examples on which both are wrong; null for self-pairs"]


class Merge(TypedDict):
    """One step of the clustering: two clusters become one."""

    left: Annotated[int, "a model's index when below M, else M + the position of an earlier merge"]
    right: Annotated[int, "likewise"]
    height: Annotated[float, "1 − likeness at which they join"]


class Map(TypedDict):
    """Two pictures of all pairs at once, in the headline's `measure`; empty lists and a reason when it is not defined
    for all pairs."""

    models: Annotated[list[int], "the models in the pictures: those that count and whose pairs are all defined"]
    coordinates: Annotated[list[list[float]], "x and y for each of them: classical scaling of 1 − likeness"]
    explained: Annotated[float | None, "share of the squared distances that the plane shows, in [0, 1]"]
    merges: Annotated[list[Merge], "one step less than models, of average linkage"]
    leaf_order: Annotated[list[int], "the models as the dendrogram's leaves, which is the heatmap's order as well"]
    reason: Annotated[str | None, "why there is none: as in `Number.reason`"]


class Example(TypedDict):
    """One test example and what the models said. `content` is null in a document without examples."""

    label: Annotated[str, "name of the class it is labelled with"]
    predictions: Annotated[list[str | None], "for each model the class that most of its replicas answered"]
    text: Annotated[str | None, "the (shortened) text, or null"]
    png: Annotated[str | None, "a thumbnail: PNG, base64, or null"]


class FailureCount(TypedDict):
    """How many examples are failed by exactly that many models."""

    models: Annotated[int, "number of models that fail, 0 to M"]
    observed: Annotated[Number, "share of the examples"]
    expected: Annotated[float, "that share if failures were independent"]


class FailedExample(TypedDict):
    """An example that every model fails."""

    id: Annotated[str, "a key of `examples`"]
    suspected_wrong_label: Annotated[bool, "whether the label, rather than the models, may be wrong"]
    suggested_label: Annotated[str | None, "what the models say instead"]
    why: Annotated[str | None, "the grounds of the suspicion as a short English clause"]


class SharedAnswer(TypedDict):
    """An example on which more than half of the models give one and the same answer that is not its label."""

    id: Annotated[str, "a key of `examples`"]
    answer: Annotated[str, "what they say"]
    models: Annotated[int, "how many of the models that count say it"]


class AgainstLabel(TypedDict):
    """Wrong answers that most models share: a kinship of errors, or labels that are wrong."""

    total: Annotated[int, "how many examples there are"]
    listed: Annotated[list[SharedAnswer], "a bounded number of them, those that most models agree on first"]


class Failures(TypedDict):
    """Failures of the models that count together, against chance."""

    distribution: Annotated[list[FailureCount], "from no model to all that count"]
    observed: Annotated[Number, "share of examples that every model fails"]
    expected: Annotated[Number, "that share if failures were independent"]
    log_ratio: Annotated[Number, "natural logarithm of observed over expected"]
    against_label: NotRequired[
        Annotated[AgainstLabel, "where most models agree on another answer; missing for two classes"]
    ]
    total: Annotated[int, "how many examples every model fails"]
    every_model_fails: Annotated[list[FailedExample], "a bounded number of them, suspected labels first"]


class Contribution(TypedDict):
    """What is lost when one model leaves the set."""

    model: Annotated[int, "index of the model"]
    oracle: Annotated[Number, "loss of oracle accuracy"]
    vote: Annotated[Number, "loss of vote accuracy; negative when the vote is better without it"]
    effective: Annotated[Number, "loss of `effective_models`"]


class Diversity(TypedDict):
    """What having several models is worth, of those that count in the headline."""

    best_model: Annotated[int, "index of the most accurate of them"]
    best: Annotated[Number, "its accuracy"]
    vote: Annotated[Number, "accuracy of the majority vote"]
    oracle: Annotated[Number, "share of the examples that some model answers rightly"]
    vote_independent: Annotated[Number, "accuracy of the vote if these models failed independently"]
    oracle_independent: Annotated[Number, "the oracle if these models failed independently"]
    vote_gain: Annotated[Number, "vote − best"]
    oracle_gap: Annotated[Number, "oracle − best"]
    contributions: Annotated[list[Contribution], "one for each model that counts"]


class LayerGrid(TypedDict):
    """The representations of two models, layer by layer."""

    a: Annotated[int, "index of a model: the rows"]
    b: Annotated[int, "index of a model: the columns"]
    layers_a: Annotated[list[str], "names of the layers of `a`, from the input on"]
    layers_b: Annotated[list[str], "names of the layers of `b`"]
    cka: Annotated[list[list[float | None]], "rows × columns: linear CKA, unbiased"]
    best: Annotated[Number, "the best match of layers"]
    best_a: Annotated[int | None, "its row"]
    best_b: Annotated[int | None, "its column"]
    null_quantile: Annotated[float | None, "95 % quantile of the best match when examples are shuffled"]
    p_value: Annotated[float | None, "permutation p-value of the best match, corrected over all pairs"]


class Representations(TypedDict):
    """Layer-by-layer likeness; no grids and a reason when features were not kept."""

    probe: Annotated[int | None, "number of test examples whose features were kept"]
    grids: Annotated[list[LayerGrid], "one for each pair of models with features"]
    reason: Annotated[str | None, "why there is none: as in `Number.reason`"]


class BenchedModel(TypedDict):
    """What it costs to ask one model, as `zoo.bench` measured it beside the others."""

    model: Annotated[int, "index of the model"]
    seed: Annotated[int, "of the run that was measured"]
    latency_ms: Annotated[Number, "milliseconds of one example alone: the median"]
    latency_p95_ms: Annotated[Number, "95 % of the calls take at most that long"]
    latency_p99_ms: Annotated[Number, "99 % of the calls"]
    latency_rank: Annotated[
        int | None, "1 + the models of this bench that are clearly faster; null where no two are told apart"
    ]
    samples_per_sec: Annotated[Number, "examples a second at the best batch size found"]
    batch_size: Annotated[int, "that batch size"]
    rank: Annotated[int | None, "1 + the models of this bench with clearly more examples a second; null likewise"]
    front: Annotated[
        bool | None,
        "whether no other model is clearly better in accuracy or speed without being clearly worse in the other; "
        "null when speeds cannot be told apart, and for a model that does not count in the headline",
    ]
    memory_mib: Annotated[Number, "what predicting takes: of the device, or else of the process"]
    gmacs: Annotated[Number, "billions of multiply-adds an example"]
    matmul_share: Annotated[Number, "of the device's measured matrix product, in [0, 1]"]
    energy_joules: Annotated[Number, "joules an example"]
    vs_reference: Annotated[Number, "time of a pass through the harness ÷ the same batches in a plain PyTorch loop"]
    seconds_to_target: Annotated[Number, "seconds of training until `target` was first reached"]


class Bench(TypedDict):
    """Models measured together on one device, taking turns."""

    device: Annotated[str, "device, precision and threads of the processor, e.g. `cpu, fp32, 2 threads`"]
    where: Annotated[str, "the hardware"]
    made: Annotated[str, "ISO 8601, UTC"]
    repetitions: Annotated[int, "turns of each model"]
    floor: Annotated[
        float | None,
        "examples a second that differ by at most this factor are not told apart: so a model differs from itself; with "
        "2 or more no two models are",
    ]
    latency_floor: NotRequired[Annotated[float | None, "the same of one example; missing from earlier documents"]]
    target: Annotated[float | None, "validation accuracy of `seconds_to_target`"]
    apart: Annotated[str | None, "why its numbers are not compared with the first bench's; null for the first"]
    models: Annotated[list[BenchedModel], "those of this report, in the order of the bench"]


class LeftOut(TypedDict):
    """Something that was found and is not compared."""

    what: Annotated[str, "a run, or some examples, in words"]
    folder: Annotated[str | None, "of the run"]
    code: Annotated[LeftOutCode, "why"]
    why: Annotated[str, "the same in a few words"]
    reason: Annotated[str, "the particulars, in a sentence"]


class RunOrigin(TypedDict):
    """Where one run came from."""

    model: Annotated[int, "index of its model"]
    seed: Annotated[int | None, "its seed"]
    key: Annotated[str, "its content-addressed key"]
    folder: Annotated[str, "where it lay when the report was made"]
    environment: Annotated[int, "index in `environments`"]
    parent: Annotated[str | None, "key of the run that it was made from, as its own record says; null for none"]
    imported: Annotated[bool, "whether it was made elsewhere, and only its answers were imported"]


class Environment(TypedDict):
    """Versions and hardware that some of the runs share."""

    zoo_version: Annotated[str | None, "version of the program"]
    versions: Annotated[dict[str, str], "library to version"]
    plugins: Annotated[dict[str, str], "distribution to version"]
    hardware: Annotated[dict[str, str], "e.g. `device`, `cpu`, `threads`, `memory`"]


class Provenance(TypedDict):
    """All that is needed to repeat it."""

    runs: Annotated[list[RunOrigin], "every run that was compared"]
    environments: Annotated[list[Environment], "the distinct environments of those runs"]
    commands: Annotated[list[list[str]], "the commands that made the runs, then the report; one list of words each"]


class Method(TypedDict):
    """Settings of the analysis."""

    draws: Annotated[int, "bootstrap draws"]
    confidence: Annotated[float, "of the intervals: 0.95"]
    permutations: Annotated[int | None, "permutations of the null of representations"]
    correction: Annotated[str, "of the p-values over pairs: `Benjamini-Yekutieli`"]
    calibrated: Annotated[bool, "whether probabilities were temperature-scaled on the validation split first"]
    seed: Annotated[int, "of the bootstrap and the permutations"]


class Document(TypedDict):
    """The whole report."""

    schema_version: Annotated[int, "2"]
    title: Annotated[str, "title of the report"]
    created: Annotated[str, "ISO 8601, UTC, e.g. `2026-01-31T12:00:00Z`"]
    zoo_version: Annotated[str, "version of the program that wrote it"]
    command: Annotated[list[str], "the command that made this report, word by word"]
    examples_included: Annotated[bool, "false: no text and no image of the data is in it"]
    study: Annotated[Study, "what the models were asked"]
    headline: Annotated[Headline, "what the report says first"]
    models: Annotated[list[Model], "the models, in the order in which indices refer to them"]
    measures: Annotated[list[Measure], "the measures, in the order in which they are shown"]
    pairs: Annotated[list[Pair], "all pairs with a ≤ b"]
    set_measures: Annotated[
        dict[str, Number],
        "of the models that count: measures of scope `set` that stand nowhere else, e.g. `rashomon_capacity`",
    ]
    recipe_diversity: NotRequired[
        Annotated[
            Number,
            "what is left once the noise between seeds is divided out: Vendi score of the kinships; it does not say "
            "how many models one has; missing unless all models have replicas",
        ]
    ]
    map: Annotated[Map, "map and dendrogram"]
    failures: Annotated[Failures, "failures together"]
    diversity: Annotated[Diversity, "what each further model buys"]
    representations: Annotated[Representations, "layer by layer"]
    benches: NotRequired[Annotated[list[Bench], "costs measured together; missing when nothing was"]]
    lineage: NotRequired[Annotated[Lineage, "who shares weights with whom; missing when that was not asked for"]]
    examples: Annotated[dict[str, Example], "example id to example: all that are referred to and could be kept"]
    left_out: Annotated[list[LeftOut], "what was found and not compared"]
    method: Annotated[Method, "settings of the analysis"]
    provenance: Annotated[Provenance, "where all of it came from"]


def number(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    n: int | None = None,
    reason: str | None = None,
) -> Number:
    """A `Number` from floats that may be NaN or infinite: they become null.

    reason: why there is no value, or what to mind about it. Raises ValueError when there is neither value nor reason.
    """
    cleaned = [None if item is None or not math.isfinite(item) else float(item) for item in (value, low, high)]
    if cleaned[0] is None and not reason:
        raise ValueError("an undefined number needs a reason")
    return Number(
        value=cleaned[0],
        low=cleaned[1],
        high=cleaned[2],
        n=None if n is None else int(n),
        reason=reason or None,
    )


def estimate(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    n: int | None = None,
    reason: str | None = None,
    bound: Literal["at_least"] | None = None,
) -> Estimate:
    """An `Estimate`, as `number` makes a `Number`. bound: `low` is one, and there need be no value."""
    if value is None and not reason and bound is None:
        raise ValueError("an undefined number needs a reason")
    ends = [None if item is None or not math.isfinite(item) else float(item) for item in (value, low, high)]
    return Estimate(
        value=ends[0],
        low=ends[1],
        high=ends[2],
        n=None if n is None else int(n),
        reason=reason or None,
        bound=bound,
    )


def undefined(reason: str, n: int | None = None) -> Number:
    """A number that is not defined. reason: a short English clause."""
    return number(None, n=n, reason=reason)


def check(document: Mapping[str, Any]) -> Document:
    """The document, when it has the form described here. Raises ValueError that names the first path that has not."""
    form.require(isinstance(document, Mapping), "document", "an object", document)
    version = document.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        # First: whatever else differs follows from it.
        raise ValueError(f"document.schema_version is {version}, and {SCHEMA_VERSION} is understood")
    form.check(document, Document, "document")
    checked = cast(Document, document)
    _check_positions(checked)
    return checked


def describe() -> str:
    """The whole schema as Markdown: a table of fields for each part, in the order of the document."""
    return form.describe(Document)


def _check_positions(document: Document) -> None:
    """Indices that point nowhere, and lists that should have one entry a model."""
    models = len(document["models"])
    for number_, pair in enumerate(document["pairs"]):
        path = f"document.pairs[{number_}]"
        positions = (pair["a"], pair["b"])
        form.require(0 <= pair["a"] <= pair["b"] < models, path, f"a pair of models below {models}", positions)
    for number_, bench in enumerate(document.get("benches", [])):
        for place, entry in enumerate(bench["models"]):
            path = f"document.benches[{number_}].models[{place}].model"
            form.require(0 <= entry["model"] < models, path, f"a model below {models}", entry["model"])
    if "lineage" in document:
        lineage_schema.check_positions(document["lineage"], models, len(document["provenance"]["runs"]))
    for id_, example in document["examples"].items():
        path = f"document.examples[{id_!r}].predictions"
        form.require(len(example["predictions"]) == models, path, f"{models} answers", example["predictions"])
    shown = document["map"]["models"]
    form.require(all(0 <= model < models for model in shown), "document.map.models", f"models below {models}", shown)
    for name, items in (("coordinates", document["map"]["coordinates"]), ("leaf_order", document["map"]["leaf_order"])):
        form.require(len(items) == len(shown), f"document.map.{name}", f"{len(shown)} entries", items)
    order = document["map"]["leaf_order"]
    form.require(sorted(order) == sorted(shown), "document.map.leaf_order", "the models of the map", order)
    runs = len(document["provenance"]["runs"])
    for place, warning in enumerate(document["headline"]["warnings"]):
        path = f"document.headline.warnings[{place}].runs"
        form.require(all(0 <= run < runs for run in warning["runs"]), path, f"runs below {runs}", warning["runs"])
    for place, left in enumerate(document["headline"]["left_out"]):
        path = f"document.headline.left_out[{place}].model"
        form.require(0 <= left["model"] < models, path, f"a model below {models}", left["model"])
    if not document["examples_included"]:
        for id_, example in document["examples"].items():
            path = f"document.examples[{id_!r}]"
            form.require(example["text"] is None and example["png"] is None, path, "without text and image", "one with")
