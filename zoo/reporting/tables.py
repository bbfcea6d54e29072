"""The findings as CSV tables. Text that a spreadsheet would run as a formula is preceded by an apostrophe."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from zoo.reporting import story
from zoo.reporting.lineage_schema import LineagePair, Verdict
from zoo.reporting.schema import Document, Number
from zoo.reporting.words import clean_lines

Cell = str | float | int | bool | None
Row = Iterable[Cell]

_NUMBER = ("value", "low", "high", "n", "reason")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def tables(document: Document) -> dict[str, str]:
    """File name to CSV text (UTF-8, a header row, `\\n` at line ends; an empty cell is an undefined number)."""
    return {
        "headline.csv": _text(_headline(document)),
        "models.csv": _text(_models(document)),
        "metrics.csv": _text(_metrics(document)),
        "pairs.csv": _text(_pairs(document)),
        "not_defined.csv": _text(_not_defined(document)),
        "claims.csv": _text(_claims(document)),
        "set_measures.csv": _text(_set_measures(document)),
        "failures.csv": _text(_failures(document)),
        "failed_examples.csv": _text(_failed_examples(document)),
        "contributions.csv": _text(_contributions(document)),
        "layers.csv": _text(_layers(document)),
        **({"bench.csv": _text(_bench(document))} if document.get("benches") else {}),
        **(_lineage_tables(document) if "lineage" in document else {}),
        "runs.csv": _text(_runs(document)),
        "left_out.csv": _text(_left_out(document)),
    }


def _text(rows: Iterator[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    return out.getvalue()


def _safe(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    text = clean_lines(cell)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA_STARTS) else text


def _number(number: Number) -> list[Cell]:
    return [number["value"], number["low"], number["high"], number["n"], number["reason"]]


def _names(document: Document) -> list[str]:
    return [model["name"] for model in document["models"]]


def _headline(document: Document) -> Iterator[Row]:
    yield ["number", *_NUMBER, "bound"]
    found = document["headline"]
    for name, estimate in (("effective_models", found["effective_models"]), ("joint_failure", found["joint_failure"])):
        ends = [estimate["value"], estimate["low"], estimate["high"], estimate["n"], estimate["reason"]]
        yield [name, *ends, estimate["bound"]]
    if "recipe_diversity" in document:
        yield ["recipe_diversity", *_number(document["recipe_diversity"]), None]


def _not_defined(document: Document) -> Iterator[Row]:
    """What `pairs.csv` and `claims.csv` have no rows of: its reason is said once here, and not once a pair."""
    yield ["measure", "reason"]
    yield from story.undefined_measures(document).items()
    yield from story.undefined_claims(document).items()


def _models(document: Document) -> Iterator[Row]:
    cost = (
        "param_count",
        "train_seconds",
        "train_samples_per_sec",
        "infer_samples_per_sec",
        "peak_memory_mib",
        "device",
    )
    yield [
        "model",
        "backend",
        "recipe",
        "replicas",
        "seeds",
        "rank",
        *(f"reliability_{part}" for part in _NUMBER),
        *cost,
    ]
    for model in document["models"]:
        recipe = " ".join(f"{key}={value}" for key, value in model["recipe"].items())
        seeds = " ".join(map(str, model["seeds"]))
        costs = [model["cost"][key] for key in cost]  # type: ignore[literal-required]
        yield [
            model["name"],
            model["backend"],
            recipe,
            len(model["seeds"]),
            seeds,
            model["rank"],
            *_number(model["reliability"]),
            *costs,
        ]


def _metrics(document: Document) -> Iterator[Row]:
    yield ["model", "metric", *_NUMBER]
    for model in document["models"]:
        for metric, number in model["metrics"].items():
            yield [model["name"], metric, *_number(number)]
        for measure, number in model["measures"].items():
            yield [model["name"], measure, *_number(number)]


def _pairs(document: Document) -> Iterator[Row]:
    names = _names(document)
    missing = story.undefined_measures(document)
    yield ["a", "b", "measure", *_NUMBER]
    for pair in document["pairs"]:
        for measure, number in pair["measures"].items():
            if measure in missing:
                continue
            yield [names[pair["a"]], names[pair["b"]], measure, *_number(number)]
        if (z := pair.get("z")) is not None:
            yield [names[pair["a"]], names[pair["b"]], "shared_wrong_answers_z", z, None, None, None, None]


def _claims(document: Document) -> Iterator[Row]:
    names = _names(document)
    missing = story.undefined_claims(document)
    yield ["a", "b", "claim", "p", "p_corrected", "reason"]
    for pair in document["pairs"]:
        claims = pair["p_values"]
        if claims is None:
            continue
        for name, claim in (
            ("more_alike_than_replicas", claims["more_alike_than_replicas"]),
            ("less_than_independent", claims["less_than_independent"]),
        ):
            if name in missing:
                continue
            yield [names[pair["a"]], names[pair["b"]], name, claim["raw"], claim["corrected"], claim["reason"]]


def _set_measures(document: Document) -> Iterator[Row]:
    yield ["measure", *_NUMBER]
    for measure, number in document["set_measures"].items():
        yield [measure, *_number(number)]


def _failures(document: Document) -> Iterator[Row]:
    yield ["models_that_fail", *_NUMBER, "expected"]
    for count in document["failures"]["distribution"]:
        yield [count["models"], *_number(count["observed"]), count["expected"]]


def _failed_examples(document: Document) -> Iterator[Row]:
    yield ["example", "label", "suspected_wrong_label", "suggested_label", "why", *_names(document)]
    for failed in document["failures"]["every_model_fails"]:
        example = document["examples"].get(failed["id"])
        label = example["label"] if example else None
        answers = example["predictions"] if example else []
        yield [
            failed["id"],
            label,
            failed["suspected_wrong_label"],
            failed["suggested_label"],
            failed["why"],
            *answers,
        ]


def _contributions(document: Document) -> Iterator[Row]:
    yield ["model", "loss_of", *_NUMBER]
    names = _names(document)
    for share in document["diversity"]["contributions"]:
        for what, number in (("oracle", share["oracle"]), ("vote", share["vote"]), ("effective", share["effective"])):
            yield [names[share["model"]], what, *_number(number)]


def _layers(document: Document) -> Iterator[Row]:
    names = _names(document)
    yield ["a", "b", "layer_a", "layer_b", "cka"]
    for grid in document["representations"]["grids"]:
        for layer_a, row in zip(grid["layers_a"], grid["cka"], strict=True):
            for layer_b, value in zip(grid["layers_b"], row, strict=True):
                yield [names[grid["a"]], names[grid["b"]], layer_a, layer_b, value]


def _bench(document: Document) -> Iterator[Row]:
    names = _names(document)
    entries = [(bench, entry) for bench in document["benches"] for entry in bench["models"]]
    kinds = {key: isinstance(value, dict) for key, value in entries[0][1].items() if key != "model"}
    header = [
        f"{key}_{part}" if split else key for key, split in kinds.items() for part in (_NUMBER if split else [""])
    ]
    yield ["device", "where", "made", "repetitions", "floor", "target", "apart", "model", *header]
    for bench, entry in entries:
        about = [bench[key] for key in ("device", "where", "made", "repetitions", "floor", "target", "apart")]
        cells: list[Cell] = []
        for key, split in kinds.items():
            found: Any = entry[key]  # type: ignore[literal-required]
            cells += _number(found) if split else [found]
        yield [*about, names[entry["model"]], *cells]


_EVIDENCE = ("test", "title", "kind", "null", "p", "log10_p", "corrected", "statistic", "n", "reason")
_ANSWERS = (
    "answers_compared",
    "answers_calibrated",
    "references",
    "uncalibrated_because",
    "wrong",
    "seed_wrong",
    "repeats",
    "seed_repeats",
    "repeated",
    "repeated_low",
    "repeated_high",
    "repeated_n",
    "repeated_mean",
)


def _lineage_tables(document: Document) -> dict[str, str]:
    return {
        "lineage.csv": _text(_lineage(document)),
        "lineage_runs.csv": _text(_lineage_runs(document)),
        "lineage_records.csv": _text(_lineage_records(document)),
    }


def _lineage_records(document: Document) -> Iterator[Row]:
    names, runs = _names(document), document["provenance"]["runs"]
    yield ["child", "seed_child", "parent", "seed_parent", "steps", "against", "parent_is_in_the_study"]
    for told in document["lineage"]["on_record"]:
        child = runs[told["child"]]
        yield [names[child["model"]], child["seed"], told["label"], told["seed"], ", ".join(told["steps"]),
               told["against"], told["parent"] is not None]  # fmt: skip


def _lineage(document: Document) -> Iterator[Row]:
    names, runs, verdicts = _names(document), document["provenance"]["runs"], get_args(Verdict)
    evidence = [f"strongest_{part}" for part in _EVIDENCE]
    compared = "answers" in document["lineage"]
    yield ["a", "b", "run_pairs", "tested", *verdicts, "seed_a", "seed_b", *evidence, "untested_because", "note",
           "on_record", "unexplained", *(_ANSWERS if compared else ())]  # fmt: skip
    for pair in document["lineage"]["pairs"]:
        counts = [pair["verdicts"].get(name, 0) for name in verdicts]
        seeds = [runs[run]["seed"] for run in pair["strongest_runs"] or []] or [None, None]
        row = pair["strongest"]
        about = [row[part] if row else None for part in _EVIDENCE]  # type: ignore[literal-required]
        notes = [pair[part] for part in ("reason", "note", "on_record", "unexplained")]
        yield [names[pair["a"]], names[pair["b"]], pair["run_pairs"], pair["tested"], *counts, *seeds, *about, *notes,
               *(_answers(pair, document) if compared else ())]  # fmt: skip


def _answers(pair: LineagePair, document: Document) -> list[Cell]:
    """The cells of `_ANSWERS`; empty ones where no two runs of the models were compared."""
    found, names = pair.get("answers"), _names(document)
    if found is None:
        return [None] * len(_ANSWERS)
    rate = found["repeated"]
    cells: list[Cell] = [None] * 8
    if rate is not None:
        both = [document["provenance"]["runs"][run] for run in (rate["wrong"], rate["repeats"])]
        cells = [cell for run in both for cell in (names[run["model"]], run["seed"])]
        cells += [rate["value"], rate["low"], rate["high"], rate["n"]]
    return [found["compared"], found["calibrated"], found["references"], found["reason"], *cells, found["mean"]]


def _lineage_runs(document: Document) -> Iterator[Row]:
    names, runs = _names(document), document["provenance"]["runs"]
    compared = "answers" in document["lineage"]
    header = ["a", "seed_a", "b", "seed_b", "verdict", "strength", "statement", "on_record", "explained", *_EVIDENCE]
    yield [*header, *(("low", "high") if compared else ())]
    for pair in document["lineage"]["listed"]:
        one, two = runs[pair["a"]], runs[pair["b"]]
        about = [names[one["model"]], one["seed"], names[two["model"]], two["seed"]]
        about += [pair["verdict"], pair["strength"], pair["statement"], pair["on_record"], pair["explained"]]
        for row in pair["evidence"]:
            told = [row[part] for part in _EVIDENCE]  # type: ignore[literal-required]
            yield [*about, *told, *((row.get("low"), row.get("high")) if compared else ())]


def _runs(document: Document) -> Iterator[Row]:
    names = _names(document)
    yield ["model", "seed", "key", "folder", "environment"]
    for run in document["provenance"]["runs"]:
        yield [names[run["model"]], run["seed"], run["key"], run["folder"], run["environment"]]


def _left_out(document: Document) -> Iterator[Row]:
    yield ["what", "folder", "why", "reason"]
    for item in document["left_out"]:
        yield [item["what"], item["folder"], item["why"], item["reason"]]
