"""What the numbers say, in sentences: the answer, how sure it is, and the few figures beside it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zoo.reporting.schema import Bench, BenchedModel, Document, Example, Measure, Number, Pair, PairOfModels
from zoo.reporting.words import Words, clean

_NAME_LENGTH = 60
_NAMED_ANSWERS = 8

_KEYS_OF_OBJECTS = frozenset(
    (
        "__proto__",
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
    )
)

# The first that is defined for some pair is what the heatmap shows at first.
_MAIN_MEASURES = ("kinship", "error_correlation", "error_consistency", "agreement")
_TABLE_MEASURES = ("kinship", "excess_kinship", "error_consistency", "agreement", "both_wrong_agreement")


@dataclass(frozen=True)
class Tile:
    """One figure that stands beside the answer: what it is, the figure, its interval or nothing, and what it means."""

    label: str
    value: str
    interval: str
    detail: str


def names(document: Document) -> list[str]:
    """The models' names as they are shown: harmless, at most 60 characters, and still distinct."""
    shown: list[str] = []
    for model in document["models"]:
        name = clean(model["name"]) or "—"
        # The charts' library keeps names as keys of plain objects, which have these already.
        name = f"{name}\u200b" if name in _KEYS_OF_OBJECTS else name
        name = name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
        copies = 1
        candidate = name
        while candidate in shown:
            copies += 1
            candidate = f"{name} ({copies})"
        shown.append(candidate)
    return shown


def true_pairs(document: Document) -> Iterator[Pair]:
    """The pairs of two different models."""
    return (pair for pair in document["pairs"] if pair["a"] != pair["b"])


def pair_measures(document: Document) -> list[Measure]:
    """The measures that some pair has a number for, in the order of the document."""
    present = {name for pair in document["pairs"] for name in pair["measures"]}
    return [measure for measure in document["measures"] if measure["scope"] == "pairs" and measure["name"] in present]


def main_measure(document: Document) -> str | None:
    """The name of the measure that the heatmap begins with: kinship, or the next best that is defined."""
    defined = {
        name
        for pair in true_pairs(document)
        for name, number in pair["measures"].items()
        if number["value"] is not None
    }
    known = [measure["name"] for measure in pair_measures(document)]
    return next((name for name in (*_MAIN_MEASURES, *known) if name in defined and name in known), None)


def table_measures(document: Document) -> list[Measure]:
    """The few measures that have a column in the table of pairs: kinship, and of the others those defined somewhere."""
    defined = {
        name
        for pair in true_pairs(document)
        for name, number in pair["measures"].items()
        if number["value"] is not None or name == "kinship"
    }
    wanted = defined.intersection(_TABLE_MEASURES)
    return [measure for measure in pair_measures(document) if measure["name"] in wanted]


def by_rank(document: Document) -> list[int]:
    """The models as the leaderboard has them: by rank, then by accuracy."""

    def place(index: int) -> tuple[int, float]:
        model = document["models"][index]
        accuracy = model["metrics"]["accuracy"]["value"]
        return model["rank"], 1.0 if accuracy is None else -accuracy

    return sorted(range(len(document["models"])), key=place)


def run_once(document: Document, names: Sequence[str]) -> str:
    """Which models have one run only, in one string; empty for none. names: how each model is called."""
    once = [name for name, model in zip(names, document["models"], strict=True) if len(model["seeds"]) == 1]
    return ", ".join(once)


def pairs_by_likeness(document: Document) -> list[Pair]:
    """The pairs of two models, most alike first, as the main measure has it; undefined ones last."""
    name = main_measure(document)
    direction = -1
    for measure in document["measures"]:
        if measure["name"] == name and measure["higher_is"] == "less alike":
            direction = 1

    def place(pair: Pair) -> tuple[bool, float]:
        number = pair["measures"].get(name or "")
        value = None if number is None else number["value"]
        return value is None, 0.0 if value is None else direction * value

    return sorted(true_pairs(document), key=place)


def headline(document: Document, words: Words) -> str:
    """The answer in one sentence, with its interval; or in the same place why there is none."""
    models, effective = document["answer"]["models"], document["answer"]["effective"]
    if models < 2:
        return words("answer.one_model")
    if effective["value"] is None:
        return words("answer.unknown", models=models)
    return words("answer.sentence", models=models, effective=effective_number(effective, words))


def effective_number(number: Number, words: Words) -> str:
    """`1.6 (1.4–1.9)`; with two decimals where one would hide the interval."""
    low, high = number["low"], number["high"]
    narrow = low is not None and high is not None and high - low < 0.15
    return words.number(number, digits=2 if narrow else 1)


def verdict(document: Document, words: Words) -> list[str]:
    """The answer explained to somebody who decides: one sentence an entry, honest about what is not known."""
    if document["answer"]["models"] < 2:
        return [words("answer.one_model_more")]
    effective = document["answer"]["effective"]
    sentences = [_judgement(document, words)]
    if effective["value"] is None:
        sentences.append(words("answer.reason", reason=words.reason(effective["reason"])))
    elif effective["reason"]:
        sentences.append(words("answer.caution", caution=words.reason(effective["reason"])))
    sentences += _extremes(document, words)
    return sentences


def _judgement(document: Document, words: Words) -> str:
    models, effective = document["answer"]["models"], document["answer"]["effective"]
    if effective["value"] is None:
        return words("answer.judge_none")
    ends = [effective[end] if effective[end] is not None else effective["value"] for end in ("low", "high")]
    low, high = ((float(end or 0) - 1) / (models - 1) for end in ends)
    if high - low > 0.5:
        return words("answer.judge_wide")
    if high < 0.25:
        return words("answer.judge_alike")
    return words("answer.judge_apart" if low > 0.75 else "answer.judge_between")


def _extremes(document: Document, words: Words) -> list[str]:
    shown = names(document)
    most, least = document["answer"]["most_alike"], document["answer"]["least_alike"]

    def say(key: str, pair: PairOfModels) -> str:
        kinship = words.number(pair["kinship"])
        return words(key, a=shown[pair["a"]], b=shown[pair["b"]], kinship=kinship)

    sentences = [say("answer.most_alike", most)] if most else []
    if most and least and (most["a"], most["b"]) != (least["a"], least["b"]):
        sentences.append(say("answer.least_alike", least))
    return sentences


def tiles(document: Document, words: Words) -> list[Tile]:
    """The few figures beside the answer, those that are defined."""
    diversity, failures = document["diversity"], document["failures"]
    best = words.number(diversity["best"], "percent")
    found = []
    if diversity["best"]["value"] is not None:
        found.append(_tile(words("tiles.best"), best, names(document)[diversity["best_model"]]))
    if document["answer"]["models"] < 2:
        return found
    if failures["observed"]["value"] is not None:
        chance = words.value(failures["expected"]["value"], "percent")
        value = words.number(failures["observed"], "percent")
        found.append(_tile(words("tiles.fail"), value, words("tiles.fail_more", chance=chance)))
    if diversity["vote_gain"]["value"] is not None:
        vote = words.value(diversity["vote"]["value"], "percent")
        found.append(
            _tile(words("tiles.vote"), points(diversity["vote_gain"], words), words("tiles.vote_more", vote=vote))
        )
    if diversity["oracle"]["value"] is not None:
        oracle = words.number(diversity["oracle"], "percent")
        found.append(_tile(words("tiles.oracle"), oracle, words("tiles.oracle_more")))
    return found


def _tile(label: str, number: str, detail: str) -> Tile:
    value, _, interval = number.partition("\u00a0(")
    return Tile(label, value, f"({interval}" if interval else "", detail)


def points(number: Number, words: Words) -> str:
    """A difference of accuracies in percentage points with its sign: `+0.6 (−0.2 to 1.4)`."""
    scaled: Number = {**number}
    for end in ("value", "low", "high"):
        item = number[end]
        scaled[end] = None if item is None else item * 100
    sign = "+" if (scaled["value"] or 0) > 0 else ""
    return sign + words.number(scaled, digits=1)


def times_chance(document: Document, words: Words) -> str:
    """How many times as many examples are failed by every model as by chance: `4.2 (3.1–5.6)`, or `> 1,000`."""
    found: Number = {**document["failures"]["log_ratio"]}
    if found["value"] is not None and found["value"] > math.log(1000):
        return f"> {words.count(1000)}"
    for end in ("value", "low", "high"):
        logarithm = found[end]
        found[end] = None if logarithm is None else math.exp(min(logarithm, 700.0))
    return words.number(found, digits=1)


def answers(document: Document, example: Example, words: Words) -> list[tuple[str, str]]:
    """Who answered what: each model; or of many models, how many gave each answer, the most frequent first."""
    said = [words("numbers.no_answer") if answer is None else clean(answer) for answer in example["predictions"]]
    if len(said) <= _NAMED_ANSWERS:
        return list(zip(names(document), said, strict=True))
    return [(words("failures.models", count=count), answer) for answer, count in Counter(said).most_common()]


def bench_note(bench: Bench, words: Words) -> str:
    """How it was measured and where, what counts as a tie, and why it stands apart, if it does."""
    sentences = [words("bench.how", repetitions=bench["repetitions"], where=clean(bench["where"]), made=bench["made"])]
    if bench["floor"] is None:
        sentences.append(words("bench.untold"))
    else:
        sentences.append(words("bench.ties", floor=words.value(bench["floor"] - 1, "percent")))
    if bench["apart"] is not None:
        sentences.append(words("bench.apart", why=words.reason(bench["apart"])))
    return words("bench.space").join(sentences)


def target_title(bench: Bench, words: Words) -> str:
    """The heading of the times to a target, with the target."""
    return words("bench.to_target", target=words.value(bench["target"], "percent"))


def front_of(entry: BenchedModel, words: Words) -> str:
    """Whether a model is on the front of accuracy and speed; a dash where speeds cannot be told apart."""
    if entry["front"] is None:
        return "—"
    return words("bench.on_front") if entry["front"] else words("bench.off_front")
