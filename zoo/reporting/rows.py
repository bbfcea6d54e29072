"""The tables of a report, cell by cell, for the page and the Markdown alike. Those of lineage are in `kin`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from zoo.reporting import story
from zoo.reporting.cells import DASH, Cell, Column, Table, table
from zoo.reporting.schema import Bench, Claim, Document, Number, Pair
from zoo.reporting.words import Words, clean

_ELSEWHERE = frozenset(("reliability", "marginal_diversity"))  # in the leaderboard, and in what each model adds
COSTS = ("param_count", "train_seconds", "train_samples_per_sec", "infer_samples_per_sec", "peak_memory_mib")
BENCHED = (
    "samples_per_sec",
    "batch_size",
    "rank",
    "latency_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "latency_rank",
    "memory_mib",
    "gmacs",
    "matmul_share",
    "energy_joules",
    "vs_reference",
)


def cell(number: Number | None, words: Words, style: str = "plain") -> Cell:
    """A number with its interval, and what to mind about it."""
    if number is None:
        return Cell(DASH)
    return Cell(words.number(number, style), words.reason(number["reason"]) if number["reason"] else "")


def _made(cell_of: Callable[..., Cell], *numbers: Sequence[Any]) -> list[Cell]:
    return [cell_of(*row) for row in zip(*numbers, strict=True)]


def leaderboard(document: Document, words: Words) -> Table:
    """Who is ahead; a group begins where the rank changes."""
    order = story.by_rank(document)
    models = [document["models"][index] for index in order]
    shown = story.names(document)
    accuracies = [model["metrics"]["accuracy"] for model in models]
    recipes = [" ".join(f"{clean(key)}={clean(value)}" for key, value in model["recipe"].items()) for model in models]
    columns = [
        Column(words("leaderboard.rank"), [Cell(str(model["rank"])) for model in models]),
        Column(
            words("leaderboard.model"),
            [Cell(shown[index], detail=recipe) for index, recipe in zip(order, recipes, strict=True)],
            "name",
        ),
        Column(words("metrics.accuracy"), [cell(number, words, "percent") for number in accuracies]),
        Column(words("leaderboard.interval"), _spans(accuracies), "strip"),
        Column(words("metrics.macro_f1"), [cell(model["metrics"].get("macro_f1"), words) for model in models]),
    ]
    if any(len(model["seeds"]) > 1 for model in models):
        columns.append(Column(words("leaderboard.replicas"), [Cell(str(len(model["seeds"]))) for model in models]))
        reliability = [cell(model["reliability"], words) for model in models]
        columns.append(Column(words("leaderboard.reliability"), reliability))
    changes = [at for at in range(1, len(models)) if models[at]["rank"] != models[at - 1]["rank"]]
    return table(columns, words, changes)


def _spans(numbers: Sequence[Number]) -> list[Cell]:
    """Values with their intervals on a common scale from 0 to 100."""
    known = [end for number in numbers for end in (number["value"], number["low"], number["high"]) if end is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    margin = max(0.01, (high - low) * 0.08)

    def place(value: float) -> float:
        return 100 * (value - low + margin) / (high - low + 2 * margin)

    return [
        Cell("")
        if (value := number["value"]) is None
        else Cell(
            "",
            span=(
                None if number["low"] is None else place(number["low"]),
                place(value),
                None if number["high"] is None else place(number["high"]),
            ),
        )
        for number in numbers
    ]


def pairs(document: Document, words: Words, shown: Sequence[Pair]) -> Table:
    """Pairs of models, with what they are tested for where anything could be."""
    names = story.names(document)
    columns = [
        Column(words("pairs.first"), [Cell(names[pair["a"]]) for pair in shown], "name"),
        Column(words("pairs.second"), [Cell(names[pair["b"]]) for pair in shown], "name"),
    ]
    for measure in story.table_measures(document):
        numbers = [cell(pair["measures"].get(measure["name"]), words) for pair in shown]
        if measure["name"] == "shared_wrong_answers":
            numbers = [_with_z(number, pair, words) for number, pair in zip(numbers, shown, strict=True)]
        columns.append(Column(words.measure(measure), numbers))
    for title, key in (("p_copies", "more_alike_than_replicas"), ("p_apart", "less_than_independent")):
        claims: list[Claim | None] = [pair["p_values"][key] if pair["p_values"] else None for pair in shown]  # type: ignore[literal-required]
        if any(claim and claim["corrected"] is not None for claim in claims):
            columns.append(Column(words(f"pairs.{title}"), [_claim(claim, words) for claim in claims]))
    return table(columns, words)


def _with_z(number: Cell, pair: Pair, words: Words) -> Cell:
    return number if pair.get("z") is None or number.reason else replace(number, reason=f"z = {words.count(pair['z'])}")


def _claim(claim: Claim | None, words: Words) -> Cell:
    if claim is None or claim["corrected"] is None:
        return Cell(DASH, words.reason(claim["reason"]) if claim and claim["reason"] else "")
    return Cell(words.p_value(claim["corrected"]))


def against_label(document: Document, words: Words, most: int) -> Table:
    """Wrong answers that most models share."""
    found = document["failures"]["against_label"]["listed"][:most]
    examples = [document["examples"].get(item["id"]) for item in found]
    texts = [
        clean(example["text"]) if example and example["text"] is not None else clean(item["id"])[:12]
        for item, example in zip(found, examples, strict=True)
    ]
    columns = [
        Column(words("pairs.example"), [Cell(story.shortened(text)) for text in texts], "name"),
        Column(
            words("pairs.label"), [Cell(clean(example["label"]) if example else DASH) for example in examples], "text"
        ),
        Column(words("pairs.said"), [Cell(clean(item["answer"])) for item in found], "text"),
        Column(words("pairs.by"), [Cell(str(item["models"])) for item in found]),
    ]
    return table(columns, words)


def failures(document: Document, words: Words) -> Table:
    """Examples that every model fails, beside chance."""
    found = document["failures"]
    reason = found["log_ratio"]["reason"]
    columns = [
        Column(words("failures.seen"), [cell(found["observed"], words, "percent")]),
        Column(words("failures.chance"), [cell(found["expected"], words, "percent")]),
        Column(
            words("failures.ratio"),
            [Cell(story.times_chance(document, words), words.reason(reason) if reason else "")],
        ),
    ]
    return table(columns, words)


def distribution(document: Document, words: Words) -> Table:
    """How many models fail the same example."""
    counts = document["failures"]["distribution"]
    columns = [
        Column(words("failures.axis"), [Cell(str(count["models"])) for count in counts], "name"),
        Column(words("failures.seen"), [cell(count["observed"], words, "percent") for count in counts]),
        Column(words("failures.chance"), [Cell(words.value(count["expected"], "percent")) for count in counts]),
    ]
    return table(columns, words)


def diversity(document: Document, words: Words) -> Table:
    """The best model, the vote and the oracle."""
    found, names = document["diversity"], story.names(document)
    best = words("numbers.colon").join(
        (words(story.of_counted(document, "diversity.best")), names[found["best_model"]])
    )
    columns = [
        Column(
            words("diversity.what"),
            [Cell(best), Cell(words("diversity.vote")), Cell(words("diversity.oracle"))],
            "name",
        ),
        Column(words("diversity.seen"), [cell(found[key], words, "percent") for key in ("best", "vote", "oracle")]),
        Column(
            words("diversity.chance"),
            [Cell(""), *(cell(found[key], words, "percent") for key in ("vote_independent", "oracle_independent"))],
        ),
        Column(
            words("diversity.gain"),
            [Cell(""), *(_points(found[key], words) for key in ("vote_gain", "oracle_gap"))],
        ),
    ]
    return table(columns, words)


def _points(number: Number, words: Words) -> Cell:
    return Cell(story.points(number, words), words.reason(number["reason"]) if number["reason"] else "")


def contributions(document: Document, words: Words) -> Table:
    """What is lost when a model leaves."""
    shares, names = document["diversity"]["contributions"], story.names(document)
    columns = [
        Column(words("leaderboard.model"), [Cell(names[share["model"]]) for share in shares], "name"),
        Column(words("diversity.loss_vote"), [_points(share["vote"], words) for share in shares]),
        Column(words("diversity.loss_oracle"), [_points(share["oracle"], words) for share in shares]),
        Column(words("diversity.loss_effective"), [cell(share["effective"], words) for share in shares]),
    ]
    return table(columns, words)


def of_models(document: Document, words: Words) -> Table | None:
    """Measures of each model that are in no other table; None where there are none."""
    measures = [
        measure
        for measure in document["measures"]
        if measure["scope"] == "models" and measure["name"] not in _ELSEWHERE
    ]
    models = document["models"]
    if not any(measure["name"] in model["measures"] for measure in measures for model in models):
        return None
    columns = [Column(words("leaderboard.model"), [Cell(name) for name in story.names(document)], "name")]
    for measure in measures:
        numbers = [cell(model["measures"].get(measure["name"]), words) for model in models]
        columns.append(Column(words.measure(measure), numbers))
    return table(columns, words)


def of_set(document: Document, words: Words) -> Table | None:
    """Measures of the set; None where there are none."""
    found = document["set_measures"]
    measures = [measure for measure in document["measures"] if measure["scope"] == "set" and measure["name"] in found]
    if not measures:
        return None
    numbers = [found[measure["name"]] for measure in measures]
    columns = [
        Column(words("script.measure"), [Cell(words.measure(measure)) for measure in measures], "name"),
        Column(words("script.value"), [cell(number, words) for number in numbers]),
        Column("n", [Cell(words.count(number["n"])) for number in numbers]),
    ]
    return table(columns, words)


def costs(document: Document, words: Words) -> Table:
    """What training and size were."""
    models = document["models"]
    columns = [
        Column(words("leaderboard.model"), [Cell(name) for name in story.names(document)], "name"),
        Column(
            words("metrics.accuracy"),
            [Cell(words.value(model["metrics"]["accuracy"]["value"], "percent")) for model in models],
        ),
        *(
            Column(words(f"cost.{key}"), [Cell(words.count(model["cost"][key])) for model in models])  # type: ignore[literal-required]
            for key in COSTS
        ),
        Column(
            words("cost.device"), [Cell(words.translate(model["cost"]["device"] or DASH)) for model in models], "text"
        ),
    ]
    return table(columns, words)


def bench(document: Document, words: Words, found: Bench) -> Table:
    """What was measured together on one device."""
    names, entries = story.names(document), found["models"]
    accuracies = [document["models"][entry["model"]]["metrics"]["accuracy"] for entry in entries]
    # Why there is no rank or no front is said above the table.
    untold = {key for key in ("rank", "latency_rank", "front") if all(entry[key] is None for entry in entries)}
    front = Column(words("bench.front"), [Cell(story.front_of(entry, words)) for entry in entries])
    columns = [
        Column(words("leaderboard.model"), [Cell(names[entry["model"]]) for entry in entries], "name"),
        Column(words("metrics.accuracy"), [cell(number, words, "percent") for number in accuracies]),
        *([] if "front" in untold else [front]),
        *(
            Column(words(f"bench.{key}"), [_cost(entry[key], key, words) for entry in entries])  # type: ignore[literal-required]
            for key in BENCHED
            if key not in untold
        ),
        Column(story.target_title(found, words), [_cost(entry["seconds_to_target"], "", words) for entry in entries]),
    ]
    return table(columns, words)


def _cost(found: Number | int | None, key: str, words: Words) -> Cell:
    if found is None or isinstance(found, int):
        return Cell(words.count(found))
    if key in ("matmul_share", "vs_reference"):
        return cell(found, words, "percent" if key == "matmul_share" else "plain")
    return Cell(words.quantity(found), words.reason(found["reason"]) if found["reason"] else "")


def left_out(document: Document, words: Words, most: int) -> Table:
    """What was found and is not compared."""
    items = document["left_out"][:most]
    columns = [
        Column(
            words("compared.what"),
            [Cell(clean(item["what"]), detail=clean(item["folder"] or "")) for item in items],
            "name",
        ),
        Column(words("compared.why"), [Cell(words.translate(item["why"])) for item in items], "text"),
        Column(words("compared.reason"), [Cell(words.translate(item["reason"])) for item in items], "text"),
    ]
    return table(columns, words)


def runs(document: Document, words: Words, most: int, digits: int = 64) -> Table:
    """Where the runs came from. digits: of their keys."""
    names, found = story.names(document), document["provenance"]["runs"][:most]
    columns = [
        Column(words("leaderboard.model"), [Cell(names[run["model"]]) for run in found], "name"),
        Column(words("provenance.seed"), [Cell(DASH if run["seed"] is None else str(run["seed"])) for run in found]),
        Column(words("provenance.key"), [Cell(clean(run["key"])[:digits]) for run in found], "text"),
        Column(words("provenance.folder"), [Cell(clean(run["folder"])) for run in found], "text"),
        Column(words("provenance.environment"), [Cell(str(run["environment"] + 1)) for run in found]),
    ]
    return table(columns, words)
