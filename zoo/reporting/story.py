"""What the numbers say, in sentences: the answer, how sure it is, and the few figures beside it."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from zoo.reporting.schema import (
    CONFIDENT,
    Bench,
    BenchedModel,
    Claim,
    Document,
    Estimate,
    Example,
    FailedExample,
    HeadlineWarning,
    Measure,
    Model,
    Number,
    Pair,
    PairOfModels,
    Shown,
    WarningCode,
)
from zoo.reporting.words import Words, clean
from zoo.store.bench import FEWEST, TOO_NOISY

_NAME_LENGTH = 60
_NAMED_ANSWERS = 8
_NAMED_MODELS = 8
_TEXT_LENGTH = 120

# By chance, from the accuracies of the two and the number of wrong classes. Two that are independent agree where both
# are right, and where both are wrong in the same way.
_BY_CHANCE: dict[str, Callable[[float, float, int], float]] = {
    "agreement": lambda one, other, wrong: one * other + (1 - one) * (1 - other) / wrong,
    "disagreement": lambda one, other, wrong: 1 - one * other - (1 - one) * (1 - other) / wrong,
    "both_wrong_agreement": lambda one, other, wrong: 1 / wrong,
    "double_fault": lambda one, other, wrong: (1 - one) * (1 - other),
}

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

# The first that is defined for some pair is what the heatmap shows at first, after that of the headline.
_MAIN_MEASURES = ("error_correlation", "error_consistency", "agreement")
_TABLE_MEASURES = (
    "kinship",
    "excess_kinship",
    "error_correlation",
    "excess_error_correlation",
    "shared_wrong_answers",
    "agreement",
    "both_wrong_agreement",
)
_OF_ERRORS = frozenset(("error_correlation", "excess_error_correlation"))
_MOST_TIMES = 1000
_ALIKE, _APART = 0.25, 0.75  # shares of the way from 1 to M: below it all of the interval, or above it
_TELLS = 1.05  # a bound of 1 holds whatever the models are, and one so near to it tells next to nothing
_WIDEST = 1.0  # width of an interval of kinship, as wide as the scale from independent to replicas
_NEEDS_MORE = 0.5  # width of the interval, as a share of all that it could be, beyond which nothing is said


@dataclass(frozen=True)
class Tile:
    """One figure that stands beside the answer: what it is, the figure, its interval or that there is none, what it
    means, and what to mind about it, or nothing."""

    label: str
    value: str
    interval: str
    detail: str
    minding: str


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


def defined_measures(document: Document) -> list[Measure]:
    """The measures that some pair, or some model's replicas, have a value of."""
    missing = undefined_measures(document)
    return [measure for measure in pair_measures(document) if measure["name"] not in missing]


def undefined_measures(document: Document) -> dict[str, str]:
    """The measures that no pair has a value of, and the reason of most pairs of two models, in English."""
    found = {}
    for measure in pair_measures(document):
        both = [(pair, pair["measures"].get(measure["name"])) for pair in document["pairs"]]
        if all(number is None or number["value"] is None for _, number in both):
            reasons = Counter(number["reason"] or "" for pair, number in both if number and pair["a"] != pair["b"])
            found[measure["name"]] = reasons.most_common(1)[0][0] if reasons else ""
    return found


def undefined_claims(document: Document) -> dict[str, str]:
    """The claims that could be tested for no pair, and why not for most, in English."""
    found = {}
    for name in ("more_alike_than_replicas", "less_than_independent"):
        claims: list[Claim] = [pair["p_values"][name] for pair in document["pairs"] if pair["p_values"]]
        if claims and all(claim["corrected"] is None for claim in claims):
            found[name] = Counter(claim["reason"] or "" for claim in claims).most_common(1)[0][0]
    return found


def not_defined(document: Document, words: Words) -> str:
    """Which measures no pair has, and why, each reason once; empty for none."""
    told: dict[str, list[str]] = {}
    titles = {measure["name"]: words.measure(measure) for measure in document["measures"]}
    needs = {measure["name"]: measure["needs"] for measure in document["measures"]}
    said = without_kinship(document, words)  # which is of them
    for name, reason in undefined_measures(document).items():
        if said and "replicas" in needs[name]:
            continue
        told.setdefault(words.reason(reason), []).append(titles[name])
    comma = words("numbers.comma")
    listed = [words("pairs.undefined_for", titles=comma.join(names), reason=why) for why, names in told.items()]
    return words("pairs.not_defined", list=words("table.semicolon").join(listed)) if listed else ""


def main_measure(document: Document) -> str | None:
    """The name of the measure that the heatmap begins with: that of the headline, or the next best that is defined."""
    defined = _defined(document)
    known = [measure["name"] for measure in pair_measures(document)]
    first = (document["headline"]["measure"], *_MAIN_MEASURES, *known)
    return next((name for name in first if name in defined and name in known), None)


def likeness(document: Document, words: Words) -> str:
    """What pairs, map and tree are shown in, as it is called."""
    name = document["headline"]["measure"]
    return next((words.measure(measure) for measure in document["measures"] if measure["name"] == name), name)


def not_on_map(document: Document, words: Words) -> str:
    """The models that are not on the map; empty for none."""
    known, shown = document["map"]["models"], names(document)
    missing = [name for index, name in enumerate(shown) if index not in known]
    return words("map.without", models=words("numbers.comma").join(missing)) if missing and known else ""


def recipes(document: Document, words: Words) -> list[str]:
    """What is left once the noise between seeds is divided out, and what that is not; empty without replicas."""
    found = document.get("recipe_diversity")
    if found is None:
        return []
    models = document["headline"]["models"]
    if found["value"] is None:
        return [words("recipes.unknown", reason=words.reason(found["reason"])), words("recipes.how", models=models)]
    said = words("recipes.sentence", models=models, value=words.number(found))
    minding = [words("answer.caution", caution=words.reason(found["reason"]))] if found["reason"] else []
    return [said, *minding, words("recipes.how", models=models), words("recipes.caution")]


def how_pairs(document: Document, words: Words) -> list[str]:
    """How to read the heatmap, and why it is not of kinship where it is not."""
    without = without_kinship(document, words)
    return [words(f"pairs.how_{document['headline']['measure']}"), *([without] if without else [])]


def why_no_pair(document: Document, words: Words) -> str:
    """The reason why no measure is defined for any pair: the one of most numbers."""
    reasons = Counter(number["reason"] for pair in true_pairs(document) for number in pair["measures"].values())
    return words.reason(reasons.most_common(1)[0][0] if reasons else None)


def _defined(document: Document) -> set[str]:
    """The measures that some pair of two models has a value of."""
    return {
        name
        for pair in true_pairs(document)
        for name, number in pair["measures"].items()
        if number["value"] is not None
    }


def table_measures(document: Document) -> list[Measure]:
    """The few measures that have a column in the table of pairs, of those defined for some pair: kinship and what is
    beyond the common factor, or without kinship the same of the errors."""
    wanted = _defined(document).intersection(_TABLE_MEASURES)
    if document["headline"]["measure"] == "kinship":
        wanted -= _OF_ERRORS
    return [measure for measure in pair_measures(document) if measure["name"] in wanted]


def by_rank(document: Document) -> list[int]:
    """The models as the leaderboard has them: by rank, then by accuracy."""

    def place(index: int) -> tuple[int, float]:
        model = document["models"][index]
        accuracy = model["metrics"]["accuracy"]["value"]
        return model["rank"], 1.0 if accuracy is None else -accuracy

    return sorted(range(len(document["models"])), key=place)


def run_once(document: Document, words: Words) -> str:
    """That some models, or all, have one run only; empty for none."""
    shown = names(document)
    once = [name for name, model in zip(shown, document["models"], strict=True) if len(model["seeds"]) == 1]
    if len(once) == len(shown) > 1:
        return words("leaderboard.single_all")
    more = words("numbers.and_more") if len(once) > _NAMED_MODELS else ""
    listed = words("numbers.comma").join(once[:_NAMED_MODELS]) + more
    return words("leaderboard.single", models=listed) if once else ""


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


def opening(document: Document, words: Words) -> list[str]:
    """The sentences that come before all others, at least one: that nothing can be concluded, where that is so, and
    the two numbers."""
    few = [_caution(document, warning, (), words) for warning in document["headline"]["warnings"] if _is_few(warning)]
    return [said for said in (*few, _votes(document, words), _joint(document, words)) if said]


def _is_few(warning: HeadlineWarning) -> bool:
    """Whether it says that nothing can be concluded from so few examples."""
    return warning["code"] == "few_examples"


def _votes(document: Document, words: Words) -> str:
    """As how many independent models they count in a vote; or in the same place why that is not known, and that nothing
    else is known of all of them either, where no other sentence says so."""
    found = document["headline"]
    if len(document["models"]) < 2:
        return words("answer.one_model")
    if found["effective_models"]["value"] is None:
        known = found["joint_failure"]["value"] is not None or found["joint_failure"]["bound"] is not None
        nothing = not known and not _warned(document, "few_examples")
        reason = words.reason(found["effective_models"]["reason"])
        return words("answer.nothing" if nothing else "answer.unknown", reason=reason)
    effective, tail = _effective(document, "effective_models", words)
    return words("answer.sentence", models=words.count(found["models"]), effective=effective, tail=tail)


def _joint(document: Document, words: Words) -> str:
    """How many independent models all fail together as often; what to do next where only one model counts. Empty where
    the first number is unknown for the same reason."""
    found = document["headline"]["joint_failure"]
    if len(document["models"]) < 2 or document["headline"]["models"] == 1:
        return words("answer.one_model_more")
    if found["bound"] == "at_least":
        if found["low"] is None or found["low"] < _TELLS:
            return words("answer.together_nothing")
        return words("answer.together_at_least", effective=words.value(found["low"]))
    if found["value"] is not None:
        effective, tail = _effective(document, "joint_failure", words)
        return words("answer.together", effective=effective, tail=tail)
    if found["reason"] == document["headline"]["effective_models"]["reason"]:
        return ""
    return words("answer.together_unknown", reason=words.reason(found["reason"]))


def _effective(document: Document, key: Literal["effective_models", "joint_failure"], words: Words) -> tuple[str, str]:
    """`1.62 (1.41–1.87)`, and what ends the sentence where there is no interval."""
    number: Estimate = document["headline"][key]
    low, high = number["low"], number["high"]
    plain = Number(value=number["value"], low=low, high=high, n=number["n"], reason=number["reason"])
    text = words.number(plain)
    if low is not None and high is not None:
        return text, ""
    if not _warned(document, "few_failures"):
        return text, words("answer.no_interval")
    right = "right answers" in (number["reason"] or "")
    return text, words("answer.few_right_for_interval" if right else "answer.few_for_interval")


def cautions(document: Document, words: Words, without: Sequence[WarningCode] = ()) -> list[str]:
    """What to know before the two numbers are used, a sentence each: runs that are missing or are no models of their
    own, models that do not count and why. That nothing can be concluded stands before them, in the `opening`. without:
    warnings that are given elsewhere."""
    found = document["headline"]
    shown = names(document)
    told = [_caution(document, warning, shown, words) for warning in found["warnings"]
            if not _is_few(warning) and warning["code"] not in without]  # fmt: skip
    others = (_other_data(document, words), _left_out(document, words))
    return [*told, *(said for said in others if said)]


def _other_data(document: Document, words: Words) -> str:
    """The models that are one and the same but for the data that they were trained on; empty for none."""
    models, shown = document["models"], names(document)

    def differ(one: Model, other: Model) -> set[str]:
        return {key for key, _ in one["recipe"].items() ^ other["recipe"].items()}

    def known(model: Model) -> bool:
        return bool(model["recipe"].get("data"))

    counted = set(range(len(models))) - {left["model"] for left in document["headline"]["left_out"]}
    pairs = [
        pair
        for pair in itertools.combinations(sorted(counted), 2)
        if models[pair[0]]["backend"] == models[pair[1]]["backend"]
        and all(known(models[place]) for place in pair)
        and differ(models[pair[0]], models[pair[1]]) == {"data"}
    ]
    groups: list[set[int]] = []
    for pair in pairs:  # sorted, so that whoever is alike with a member comes while the group is known
        near = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in near] + [set(pair).union(*near)]

    def say(group: set[int]) -> str:
        more = words("numbers.and_more") if len(group) > _NAMED_MODELS else ""
        listed = words("numbers.comma").join(shown[place] for place in sorted(group)[:_NAMED_MODELS]) + more
        return words("warnings.other_data", names=listed)

    return words("bench.space").join(say(group) for group in sorted(groups, key=min)[:_NAMED_MODELS])


def _caution(document: Document, warning: HeadlineWarning, shown: Sequence[str], words: Words) -> str:
    runs = [document["provenance"]["runs"][place] for place in warning["runs"]]
    named = [words.translate(name) for name in warning["names"]]
    named += [words("lineage.run", model=shown[run["model"]], seed=run["seed"]) for run in runs]
    listed = words("numbers.comma").join(named)
    if (warning["count"] or 0) > len(named) > 0 and warning["code"] != "not_comparable":
        listed += words("numbers.and_more")
    return words(f"warnings.{warning['code']}", count=words.count(warning["count"]), names=listed)


def first_lines(document: Document, words: Words) -> list[str]:
    """What a screen says of a report: its opening and the cautions."""
    return [line.replace("\u00a0", " ") for line in (*opening(document, words), *cautions(document, words))]


def verdict(document: Document, words: Words) -> list[str]:
    """The headline explained to somebody who decides: one sentence an entry, honest about what is not known."""
    if len(document["models"]) < 2:
        return []
    minded = _minded(document)
    judged = (_judgement(document, words), _insurance(document, words))
    told = [said for said in judged if said]
    told += [words("answer.caution", caution=words.reason(reason)) for reason in minded]
    # Where replicas are lacking altogether it is no news; where some are, the scale is not what one expects.
    replicas = any(len(model["seeds"]) > 1 for model in document["models"])
    without = without_kinship(document, words) if replicas else ""
    return [*told, *([without] if without else []), *_extremes(document, minded, words)]


def _minded(document: Document) -> list[str]:
    """What to mind about either number, each thing once."""
    found = document["headline"]
    reasons = [found[key]["reason"] for key in ("effective_models", "joint_failure") if found[key]["value"] is not None]
    return [reason for reason in dict.fromkeys(reasons) if reason and not _warned(document, "few_failures")]


def _judgement(document: Document, words: Words) -> str:
    """What the first number means, that of a vote; empty where nothing on the page could help."""
    found = document["headline"]
    models, effective = found["models"], found["effective_models"]
    if effective["value"] is None:
        return _below(document, words)
    few = _warned(document, "few_examples") or _warned(document, "few_failures")
    if effective["low"] is None or effective["high"] is None:
        # Exact copies: no example could be drawn that tells them apart, so nothing varies.
        copies = math.isclose(effective["value"], 1) and not few
        return words("answer.judge_alike") if copies else _doubt(document, "answer.judge_no_interval", words)
    if few:
        return _doubt(document, "answer.judge_wide", words)
    placed = _placed(effective["low"], effective["high"], models)
    return _doubt(document, "answer.judge_wide", words) if placed == "wide" else words(f"answer.judge_{placed}")


def _placed(low: float, high: float, models: int) -> Literal["alike", "apart", "between", "wide"]:
    """Where an interval lies on the way from 1 to the number of models, two or more; `wide` where that is open. The
    place comes before the width: the interval may pass the number of models, and then it is wide on one side only."""
    low, high = ((end - 1) / (models - 1) for end in (low, high))
    if high < _ALIKE:
        return "alike"
    if low > _APART:
        return "apart"
    return "wide" if high - low > _NEEDS_MORE else "between"


def _insurance(document: Document, words: Words) -> str:
    """What the second number means, that of the hope that one of them is right. Empty where it has no interval, which
    the sentence of the number says: of a lower bound only what it is sure of is said."""
    found = document["headline"]
    joint, models = found["joint_failure"], found["models"]
    if joint["low"] is None or models < 2 or _warned(document, "few_examples"):
        return ""
    if joint["bound"] == "at_least":
        placed = _placed(joint["low"], math.inf, models)
        return words("answer.insure_apart") if placed == "apart" else ""
    if joint["high"] is None or _warned(document, "few_failures"):
        return ""
    placed = _placed(joint["low"], joint["high"], models)
    return _doubt(document, "answer.insure_wide", words) if placed == "wide" else words(f"answer.insure_{placed}")


def _below(document: Document, words: Words) -> str:
    """Where the first number is undefined, what of the rest is defined further down; empty where not even pairs are, or
    where nothing can be concluded."""
    if not _defined(document) or _warned(document, "few_examples"):
        return ""
    failures = document["failures"]["observed"]["value"] is not None
    return words("answer.judge_none" if failures else "answer.judge_none_pairs")


def _doubt(document: Document, key: str, words: Words) -> str:
    """That it is open whether they are alike; empty where the records of all that count say that they are."""
    return "" if _are_of_one_origin(document) else words(key)


def _are_of_one_origin(document: Document) -> bool:
    """Whether every model that counts is on record to be made from another of them, or another from it, so that all are
    of one origin. A record that the weights contradict does not count."""
    runs, gone = document["provenance"]["runs"], {left["model"] for left in document["headline"]["left_out"]}
    contested = {told["child"] for told in document.get("lineage", {}).get("on_record", []) if told["against"]}
    family = {model: model for model in range(len(document["models"])) if model not in gone}
    owner = {run["key"]: run["model"] for run in runs}
    for place, run in enumerate(runs):
        ends = (run["model"], owner.get(run["parent"] or ""))
        if place not in contested and ends[0] in family and ends[1] in family:
            first, second = (family[end] for end in ends if end is not None)
            family = {model: first if name == second else name for model, name in family.items()}
    return len(set(family.values())) == 1 < len(family)


def _warned(document: Document, code: WarningCode) -> bool:
    """Whether there is such a warning."""
    return any(warning["code"] == code for warning in document["headline"]["warnings"])


def _extremes(document: Document, minded: Sequence[str], words: Words) -> list[str]:
    """The most and the least alike pair. What to mind about a figure follows its sentence; what holds for both, the
    second. minded: what the reader has been told to mind just before."""
    shown, found = names(document), document["headline"]
    most, least = found["most_alike"], found["least_alike"]
    if most and found["models"] == 2:
        said = words(f"answer.the_pair_{found['measure']}", a=shown[most["a"]], b=shown[most["b"]],
                     likeness=words.number(most["likeness"]))  # fmt: skip
        return [words("bench.space").join((said, *_minding_figures([most], found["measure"], minded, words)))]
    pairs = {"most": most} if most else {}
    if most and least and (most["a"], most["b"]) != (least["a"], least["b"]):
        pairs["least"] = least
    each = [_minding_figures([pair], found["measure"], minded, words) for pair in pairs.values()]
    alike = len(each) == 2 and each[0] == each[1]

    def say(end: str, pair: PairOfModels) -> str:
        likeness = words.number(pair["likeness"])
        said = [
            words(f"answer.{end}_alike_{found['measure']}", a=shown[pair["a"]], b=shown[pair["b"]], likeness=likeness)
        ]
        minding = [pairs["most"], pair] if alike else [pair]
        said += [] if alike and end == "most" else _minding_figures(minding, found["measure"], minded, words)
        return words("bench.space").join(said)

    return [say(end, pair) for end, pair in pairs.items()]


def _minding_figures(pairs: Sequence[PairOfModels], measure: Shown, minded: Sequence[str], words: Words) -> list[str]:
    """What to mind about the figure of a pair, or about those of two pairs that have the same to be minded, but for
    what is minded already."""
    one, many = pairs[0]["likeness"], len(pairs) > 1
    said = [words("answer.figures" if many else "answer.figure", caution=words.reason(one["reason"]))]
    said = said if one["reason"] and one["reason"] not in minded else []
    if measure == "kinship" and one["low"] is not None and one["high"] is not None:
        beyond = one["high"] - one["low"] > _WIDEST
        said += [words("answer.off_scale_both" if many else "answer.off_scale")] if beyond else []
    return said


def without_kinship(document: Document, words: Words) -> str:
    """Why pairs are not shown in kinship, in one sentence; empty where they are."""
    if document["headline"]["measure"] == "kinship" or len(document["models"]) < 2:
        return ""
    once, models = sum(len(model["seeds"]) == 1 for model in document["models"]), len(document["models"])
    if once == models:
        return words("pairs.all_once")
    return words("pairs.some_once", count=once, models=models) if once else words("pairs.no_kinship")


def tiles(document: Document, words: Words) -> list[Tile]:
    """The few figures beside the headline, those that are defined. What is to be minded about several of them is in
    `minded_tiles`."""
    found = _tiles(document, words)
    shared = _shared_minding(found)
    return [replace(tile, minding="") if tile.minding in shared else tile for tile in found]


def _tiles(document: Document, words: Words) -> list[Tile]:
    """The same, each with all that is to be minded about it."""
    diversity, failures = document["diversity"], document["failures"]
    best = names(document)[diversity["best_model"]]
    found = []
    if diversity["best"]["value"] is not None:
        chosen = document["headline"]["models"] > 1 and diversity["best"]["low"] is not None
        best = words("tiles.best_more", model=best) if chosen else best
        found.append(_tile(of_counted(document, "best"), diversity["best"], words, best))
    if len(document["models"]) < 2:
        return found
    if failures["observed"]["value"] is not None:
        chance = words.value(failures["expected"]["value"], "percent")
        found.append(
            _tile(of_counted(document, "fail"), failures["observed"], words, words("tiles.fail_more", chance=chance))
        )
    if diversity["vote_gain"]["value"] is not None:
        vote = words.value(diversity["vote"]["value"], "percent")
        more = "vote_of_two" if document["headline"]["models"] == 2 else "vote_more"
        found.append(
            _tile(of_counted(document, "vote"), diversity["vote_gain"], words, words(f"tiles.{more}", vote=vote))
        )
    if diversity["oracle"]["value"] is not None:
        found.append(_tile(of_counted(document, "oracle"), diversity["oracle"], words, words("tiles.oracle_more")))
    return found


def minded_tiles(document: Document, words: Words) -> list[str]:
    """What to mind about several of the tiles, each thing once."""
    told = _shared_minding(_tiles(document, words))
    comma = words("numbers.comma")
    return [words("tiles.minding", labels=comma.join(labels), reason=reason) for reason, labels in told.items()]


def _shared_minding(found: Sequence[Tile]) -> dict[str, list[str]]:
    """What has to be minded about more than one tile, and the labels of these."""
    told: dict[str, list[str]] = {}
    for tile in found:
        told.setdefault(tile.minding, []).append(tile.label)
    return {minding: labels for minding, labels in told.items() if minding and len(labels) > 1}


def _tile(key: str, number: Number, words: Words, detail: str) -> Tile:
    told = points(number, words) if key.startswith("vote") else words.number(number, "percent")
    value, _, interval = told.partition("\u00a0(")
    minding = words.reason(number["reason"]) if number["reason"] else ""
    interval = f"({interval}" if interval else words("tiles.no_interval")
    return Tile(words(f"tiles.{key}"), value, interval, detail, minding)


def of_counted(document: Document, key: str) -> str:
    """The key of a text about the models together: where some are left out, the one that says so. The best of those
    that count need not be the best of all, and what they all fail a model that is left out may get right."""
    return f"{key}_counted" if _some_left_out(document) else key


def _some_left_out(document: Document) -> bool:
    """Whether numbers about the models together are of some of them only. Where fewer than two count there are no such
    numbers, and the best is that of all."""
    found = document["headline"]
    return bool(found["left_out"]) and found["models"] > 1


def counted_note(document: Document, words: Words) -> str:
    """Of whom a section on the models together does not speak; empty where it speaks of all."""
    return _left_out(document, words) if _some_left_out(document) else ""


def _left_out(document: Document, words: Words) -> str:
    """Which models do not count, and why; empty for none."""
    shown = names(document)
    gone = [words(f"answer.{left['why']}", model=shown[left["model"]]) for left in document["headline"]["left_out"]]
    more = words("numbers.and_more") if len(gone) > _NAMED_MODELS else ""
    listed = words("numbers.comma").join(gone[:_NAMED_MODELS]) + more
    return words("answer.left_out", models=listed) if gone else ""


def failed_by_all(document: Document, shown: int, words: Words) -> str:
    """How many examples every model fails, how many are listed, and when a label is suspected."""
    total, sure = words.count(document["failures"]["total"]), words("numbers.percent", value=round(CONFIDENT * 100))
    return words("failures.list_how", total=total, shown=shown, sure=sure)


def shown_of(key: str, shown: int, count: int, words: Words) -> str:
    """That so many of so many are meant, or all of them: `3 of 3` says it twice. key: of a text with both numbers,
    beside which there is one of all that ends in `_all`."""
    if shown < count:
        return words(key, shown=words.count(shown), count=words.count(count))
    return words(f"{key}_all", count=words.count(count))


def why_suspected(example: FailedExample, words: Words) -> str:
    """Why a label is suspected, in brackets."""
    why = example["why"] or ""
    known = why in ("all_agree", "all_agree_confident")
    return words("numbers.aside", text=words(f"failures.{why}") if known else words.translate(why))


def no_layers(document: Document, words: Words) -> str:
    """Why no layers are compared."""
    return words("layers.none", reason=words.reason(document["representations"]["reason"]))


def by_chance(document: Document, measure: Measure, pair: Pair, words: Words) -> str:
    """The value that a measure of a pair has for models that are independent: a number, from the accuracies of the two
    where it depends on them; a dash where no number is known."""
    if formula := _BY_CHANCE.get(measure["name"]):
        one, other = (document["models"][pair[end]]["metrics"]["accuracy"]["value"] for end in ("a", "b"))
        classes = len(document["study"]["classes"])
        return "—" if one is None or other is None or classes < 2 else words.value(formula(one, other, classes - 1))
    # The rest of the words on it, such as `0, also for models …`, stands in Methods.
    number = re.match(r"[-−]?\d+(\.\d+)?(?=$|[,;])", measure["chance"] or "")
    return number[0] if number else "—"


def no_failures(document: Document, words: Words) -> str:
    """Why no example is listed that every model fails: there is none, or nothing to say it of."""
    found = document["failures"]["observed"]
    if found["value"] is not None:
        return words("failures.nothing")
    return words("failures.undefined", reason=words.reason(found["reason"]))


def points(number: Number, words: Words) -> str:
    """A difference of accuracies in percentage points with its sign: `+0.6 (−0.2 to 1.4)`."""
    scaled: Number = {**number}
    for end in ("value", "low", "high"):
        item = number[end]
        scaled[end] = None if item is None else item * 100
    sign = "+" if (scaled["value"] or 0) > 0 else ""
    return sign + words.number(scaled, digits=1)


def times_chance(document: Document, words: Words) -> str:
    """How many times as many examples are failed by every model as by chance: `4.2 (3.1–5.6)`, or `more than 1,000`."""
    found: Number = {**document["failures"]["log_ratio"]}
    if found["value"] is not None and found["value"] > math.log(_MOST_TIMES):
        return words("numbers.more", value=words.count(_MOST_TIMES))
    for end in ("value", "low", "high"):
        logarithm = found[end]
        found[end] = None if logarithm is None else math.exp(min(logarithm, 700.0))
    return words.number(found, digits=1)


def shortened(text: str) -> str:
    """A text that fits into a cell."""
    return text if len(text) <= _TEXT_LENGTH else text[: _TEXT_LENGTH - 1] + "…"


def answers(document: Document, example: Example, words: Words) -> list[tuple[str, str]]:
    """Who of the models that count answered what: each model; or of many models, how many gave each answer, the most
    frequent first."""
    gone = {left["model"] for left in document["headline"]["left_out"]}
    counted = [index for index in range(len(document["models"])) if index not in gone]
    given = [example["predictions"][index] for index in counted]
    said = [words("numbers.no_answer") if answer is None else clean(answer) for answer in given]
    if len(said) <= _NAMED_ANSWERS:
        shown = names(document)
        return [(shown[index], answer) for index, answer in zip(counted, said, strict=True)]
    return [(words("failures.models", count=count), answer) for answer, count in Counter(said).most_common()]


def bench_note(bench: Bench, words: Words) -> str:
    """How it was measured and where, what counts as a tie, and why it stands apart, if it does."""
    sentences = [words("bench.how", repetitions=bench["repetitions"], where=clean(bench["where"]), made=bench["made"])]
    if bench["repetitions"] < FEWEST:
        sentences.append(words("bench.first_look", least=FEWEST))
    if bench["floor"] is None:
        sentences.append(words("bench.untold"))
    else:
        sentences += [_floor(bench, key, floor, words) for key, floor in _floors(bench)]
    if bench["apart"] is not None:
        sentences.append(words("bench.apart", why=words.reason(bench["apart"])))
    return words("bench.space").join(sentences)


def _floors(bench: Bench) -> list[tuple[Literal["rank", "latency_rank"], float]]:
    """What ranks rest on, and the factor by which a model differs from itself in it; none where nothing is compared."""
    found: list[tuple[Literal["rank", "latency_rank"], float | None]] = [
        ("rank", bench["floor"]),
        ("latency_rank", bench.get("latency_floor")),
    ]
    return [(key, floor) for key, floor in found if floor is not None and len(bench["models"]) > 1]


def _floor(bench: Bench, key: Literal["rank", "latency_rank"], floor: float, words: Words) -> str:
    """Which differences are noise, and that nothing is ranked where all are."""
    ranked = any(entry[key] is not None for entry in bench["models"])
    told = "noisy" if floor >= TOO_NOISY else "ties" if ranked else "level"
    return words(f"bench.{told}", what=words(f"bench.of_{key}"), floor=words.value(floor - 1, "percent"))


def target_title(bench: Bench, words: Words) -> str:
    """The heading of the times to a target, with the target."""
    return words("bench.to_target", target=words.value(bench["target"], "percent"))


def front_of(entry: BenchedModel, words: Words) -> str:
    """Whether a model is on the front of accuracy and speed; a dash where speeds cannot be told apart."""
    if entry["front"] is None:
        return "—"
    return words("bench.on_front") if entry["front"] else words("bench.off_front")
