"""What weights and answers say of a common past, in sentences and cells: for the page and for Markdown alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from zoo.reporting import story
from zoo.reporting.lineage_schema import ComparedAnswers, Lineage, LineageEvidence, LineagePair, LineageRunPair
from zoo.reporting.schema import Document, number
from zoo.reporting.words import Words, clean

SHARING = ("copy", "derived", "common ancestor")
"""The verdicts that claim shared weights, the closest first."""

ALIKE = "behaviourally derived"
"""The verdict that claims it of answers alone."""

MOST_ROWS = 30
"""Rows of a table; all are in the CSV tables."""

COLUMNS = ("verdicts", "tested", "repeated", "strongest", "grounds")
"""Of the table of pairs of models, after their names."""

_METHODS = ("effective", "joint", "relate", "kinship", "excess", "recipes", "shared", "claims", "ties", "failures",
            "layers")  # fmt: skip
_METHODS_OF_WEIGHTS = ("lineage", "lineage_order", "lineage_dead", "lineage_aligned", "lineage_answers", "lineage_tree")
_OF_ANSWERS = frozenset(("lineage_answers", "repeated"))
_MOST_NAMED = 4
_SENTENCES = re.compile(r"(?<=\.) (?=[A-Z])")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def verdict(document: Document, words: Words) -> list[str]:
    """The answer explained, and what weights and answers say of it: first where any are shared that nothing
    explains."""
    said = story.verdict(document, words)
    if "lineage" not in document:
        return said
    told = headline(document, words)
    alike = _alike(document, words)
    first = [alike] if alike else []
    unexplained = any(shares(pair) and not pair["note"] for pair in document["lineage"]["pairs"])
    return [told, *first, *said] if unexplained else [*first, *said, told]


def methods(document: Document) -> tuple[str, ...]:
    """The methods that are told of, by their keys in the catalogue."""
    return (*_METHODS, *_known(document, _METHODS_OF_WEIGHTS)) if "lineage" in document else _METHODS


def columns(document: Document) -> tuple[str, ...]:
    """Those of the table of pairs of models that the document has something for."""
    return _known(document, COLUMNS)


def _known(document: Document, keys: Sequence[str]) -> tuple[str, ...]:
    """Without what is about answers, where these were not compared."""
    return tuple(key for key in keys if "answers" in document["lineage"] or key not in _OF_ANSWERS)


def how(document: Document, words: Words) -> str:
    """How to read the section."""
    return words("lineage.how_answers" if "answers" in document["lineage"] else "lineage.how")


def answers(document: Document, words: Words) -> list[str]:
    """What the answers say, a sentence or two an entry; none where they were not compared."""
    found = document["lineage"].get("answers")
    if found is None:
        return []
    told = _alike(document, words) or _none_alike(document["lineage"], found, words)
    return [told, words("lineage.repeated_how")] if found["compared"] else [told]


def _alike(document: Document, words: Words) -> str:
    """Whose answers are more alike than independent trainings make them; empty when nobody's are."""
    pairs = [pair for pair in by_kin(document["lineage"]) if ALIKE in pair["verdicts"]]
    return words("lineage.answers", list=_list(document, pairs, (ALIKE,), words)) if pairs else ""


def _none_alike(found: Lineage, told: ComparedAnswers, words: Words) -> str:
    if not told["calibrated"]:
        reasons = Counter(reason for pair in found["pairs"] if (reason := pair.get("answers", {}).get("reason")))
        why = reasons.most_common(1)[0][0] if reasons else "there is no pair of runs"
        return words("lineage.answers_untested", reason=words.translate(why))
    numbers = {name: words.count(count) for name, count in told.items()}  # type: ignore[arg-type]
    key = "lineage.answers_few" if told["references"] < told["needed"] else "lineage.answers_many"
    return words(key, q=_q(found), **numbers)


def headline(document: Document, words: Words) -> str:
    """Whether two different models share weights, in one sentence; of one model's own runs, only what nothing explains
    (a checkpoint that all started from, a seed that changes nothing). The document has a lineage."""
    found = document["lineage"]
    others = [pair for pair in found["pairs"] if pair["a"] != pair["b"]]
    kin = [pair for pair in by_kin(found) if shares(pair) and not (pair["a"] == pair["b"] and pair["note"])]
    if not others:
        return sentence(document, words)
    return _shared(document, kin, words) if kin else _none(found, others, words)


def sentence(document: Document, words: Words) -> str:
    """Whether any two runs share weights, in one sentence. The document has a lineage."""
    found = document["lineage"]
    kin = [pair for pair in by_kin(found) if shares(pair)]
    return _shared(document, kin, words) if kin else _none(found, found["pairs"], words)


def _shared(document: Document, kin: Sequence[LineagePair], words: Words) -> str:
    return words("lineage.shared", list=_list(document, kin, SHARING, words))


def _list(document: Document, pairs: Sequence[LineagePair], verdicts: Sequence[str], words: Words) -> str:
    told = [_named(document, pair, verdicts, words) for pair in pairs[:_MOST_NAMED]]
    if len(pairs) > _MOST_NAMED:
        told.append(words("lineage.further", count=len(pairs) - _MOST_NAMED))
    return words("lineage.semicolon").join(told)


def _none(found: Lineage, among: Sequence[LineagePair], words: Words) -> str:
    tested, pairs = (sum(pair[of] for pair in among) for of in ("tested", "run_pairs"))
    if not tested:
        reasons = Counter(pair["reason"] for pair in among if pair["reason"])
        why = reasons.most_common(1)[0][0] if reasons else "there is no pair of runs"
        return words("lineage.untested", reason=translated(why, words).rstrip(".。"))
    key = "lineage.none" if tested == pairs else "lineage.none_of_tested"
    kind = words("lineage.of_runs" if any(pair["a"] == pair["b"] for pair in among) else "lineage.models")
    return words(key, kind=kind, tested=words.count(tested), pairs=words.count(pairs), q=_q(found))


def shares(pair: LineagePair) -> bool:
    """Whether some runs of two models share weights."""
    return any(name in pair["verdicts"] for name in SHARING)


def _named(document: Document, pair: LineagePair, among: Sequence[str], words: Words) -> str:
    names = story.names(document)
    told = [
        words("lineage.counted", verdict=words.translate(name), count=pair["verdicts"][name], pairs=pair["run_pairs"])
        for name in among
        if name in pair["verdicts"]
    ]
    verdicts = words("lineage.comma").join(told)
    note = words("lineage.noted", note=words.translate(pair["note"])) if pair["note"] and among == SHARING else ""
    if pair["a"] == pair["b"]:
        return words("lineage.own", a=names[pair["a"]], verdicts=verdicts) + note
    return words("lineage.both", a=names[pair["a"]], b=names[pair["b"]], verdicts=verdicts) + note


def by_kin(found: Lineage) -> list[LineagePair]:
    """The pairs of models: those that share weights first, then those that share answers, then each model with itself,
    then as they come."""
    closest = (*SHARING, ALIKE)

    def place(pair: LineagePair) -> tuple[bool, bool, int]:
        own = pair["a"] == pair["b"]
        least = min((closest.index(name) for name in pair["verdicts"] if name in closest), default=len(closest))
        related = least < len(closest)
        return not related, own == related, least

    return sorted(found["pairs"], key=place)


def counts(pair: LineagePair, words: Words) -> str:
    """`derived 1 · undetermined 24`: verdicts on the pairs of runs of two models."""
    return " · ".join(f"{words.translate(name)} {words.count(count)}" for name, count in pair["verdicts"].items())


def listed(document: Document, kind: str) -> list[LineageRunPair]:
    """The pairs of runs that are listed: those that share weights (`weights`), those whose answers are more alike than
    independent trainings make them (`answers`), or all others (`alike`); runs of one model among each other last."""
    owners = [run["model"] for run in document["provenance"]["runs"]]
    kinds = {**dict.fromkeys(SHARING, "weights"), ALIKE: "answers"}
    chosen = [pair for pair in document["lineage"]["listed"] if kinds.get(pair["verdict"], "alike") == kind]
    return sorted(chosen, key=lambda pair: owners[pair["a"]] == owners[pair["b"]])


def run_name(document: Document, run: int, words: Words) -> str:
    """`mlp, seed 3`: a run by its position in `provenance.runs`."""
    told = document["provenance"]["runs"][run]
    seed = "—" if told["seed"] is None else told["seed"]
    return words("lineage.run", model=story.names(document)[told["model"]], seed=seed)


def evidence(row: LineageEvidence, words: Words) -> str:
    """One test in a line: what it looks at, p and the corrected p or the score, of what kind, from how much."""
    title = words.translate(row["title"]) + ("" if row["test"] == "numbers" else f" ({clean(row['test'])})")
    facts = [words.translate(row["kind"])]
    if row["p"] is not None:
        facts.append(words("lineage.p", p=p_text(row), corrected=words.p_value(row["corrected"])))
    if (rate := _rate(row, words)) is not None:
        facts.append(rate)
    elif row["statistic"] is not None:
        facts.append(words("lineage.score", score=words.value(row["statistic"], digits=3)))
    if row["n"] is not None:
        facts.append(f"n = {words.count(row['n'])}")
    if row["p"] is not None and row["reason"]:
        facts.append(words.translate(row["reason"]))
    return words("lineage.evidence", title=title, facts=words("lineage.comma").join(facts))


def _rate(row: LineageEvidence, words: Words) -> str | None:
    """`62.5 % (47.0–75.8)`: a statistic with an interval of its own."""
    if row["statistic"] is None or row.get("low") is None:
        return None
    return words.number(number(row["statistic"], row.get("low"), row.get("high"), row["n"]), "percent")


def repeated(pair: LineagePair, words: Words) -> str:
    """`62.5 % (47.0–75.8) of 40`: the clearest rate of repeated errors of two models, or a dash."""
    found = pair["answers"]["repeated"] if "answers" in pair else None
    if found is None:
        return "—"
    rate = words.number(number(found["value"], found["low"], found["high"], found["n"]), "percent")
    return words("lineage.rate", rate=rate, count=words.count(found["n"]))


def why(pair: LineagePair, words: Words) -> str:
    """The null hypothesis of the strongest evidence, or why nothing was tested, and what explains shared weights."""
    row, answers = pair["strongest"], pair.get("answers")
    untested = answers["reason"] if answers is not None and not answers["calibrated"] and row is None else None
    told = [
        words("lineage.null", null=words.translate(row["null"])) if row and row["null"] else "",
        translated(pair["reason"], words) if pair["reason"] else "",
        words("lineage.no_references", reason=words.translate(untested)) if untested else "",
        words.translate(pair["note"]) if pair["note"] else "",
    ]
    return words("bench.space").join(_ended(text, words) for text in told if text)


def said(pair: LineageRunPair, words: Words) -> list[str]:
    """The tests of two runs that have something to say, a line each."""
    return [evidence(row, words) for row in pair["evidence"] if row["statistic"] is not None or row["p"] is not None]


def p_text(row: LineageEvidence) -> str:
    """`0.03`, or `10⁻³¹²` below a ten-thousandth."""
    logarithm = row["log10_p"]
    if logarithm is not None and logarithm < -4:
        return "10" + str(round(logarithm)).translate(_RAISED)
    return "—" if row["p"] is None else f"{row['p']:.2g}"


def translated(statement: str, words: Words) -> str:
    """A statement of the analysis, sentence by sentence in the words' language where the catalogue knows it."""
    return words("bench.space").join(words.translate(part) for part in _SENTENCES.split(statement))


def caption(found: Lineage, words: Words) -> str:
    """What was compared, how much of it could be tested, and the error rate."""
    return words(
        "lineage.table_caption",
        runs=words.count(found["runs"]),
        pairs=words.count(found["run_pairs"]),
        tested=words.count(found["tested"]),
        tests=words.count(found["exact_tests"]),
        q=_q(found),
        correction=found["correction"],
    )


def lacking(found: Lineage, words: Words) -> list[str]:
    """Why runs were not compared, with how many they are."""
    reasons = Counter(run["reason"] for run in found["lacking"])
    return [words("lineage.lacking", count=count, reason=words.translate(why)) for why, count in reasons.items()]


def shown(rows: Sequence[LineageRunPair], words: Words) -> str:
    """How many rows of how many a table shows."""
    return words("lineage.shown", shown=min(len(rows), MOST_ROWS), count=words.count(len(rows)))


def _ended(text: str, words: Words) -> str:
    """A clause as a sentence."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "。")) else text + words("lineage.stop")


def _q(found: Lineage) -> str:
    return f"{found['q']:g}"
