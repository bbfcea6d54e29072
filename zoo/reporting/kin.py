"""What weights and answers say of a common past, in sentences and cells: for the page and for Markdown alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from zoo.p_values import p_said
from zoo.reporting import cells, story
from zoo.reporting.cells import DASH, Cell, Column, Kind, Table
from zoo.reporting.lineage_schema import (
    ComparedAnswers,
    Explained,
    Lineage,
    LineageEvidence,
    LineagePair,
    LineageRecord,
    LineageRunPair,
)
from zoo.reporting.schema import Document, number
from zoo.reporting.words import Words, clean

SHARING = ("copy", "derived", "common ancestor")
"""The verdicts that claim shared weights, the closest first."""

ALIKE = "behaviourally derived"
"""The verdict that claims it of answers alone."""

MOST_ROWS = 30
"""Rows of a table; all are in the CSV tables."""

KINDS = ("record", "weights", "answers")
"""Of tables of pairs of runs, in their order: on record; weights, or answers, that are shared and nothing explains."""

_METHODS = ("effective", "joint", "relate", "kinship", "excess", "recipes", "shared", "claims", "ties", "failures",
            "layers")  # fmt: skip
_METHODS_OF_WEIGHTS = (
    "lineage",
    "lineage_tests",
    "lineage_order",
    "lineage_dead",
    "lineage_aligned",
    "lineage_answers",
    "lineage_tree",
)
_PLAIN = ("record", "numbers")
_NAMED = ("R1", "R2", "R3", "B1", "B2")
_MOST_NAMED = 4
_MOST_APART = 12
_SENTENCES = re.compile(r"(?<=\.) (?=[A-Z])")


def cautions(document: Document, words: Words) -> list[str]:
    """What to know before the two numbers are used, as `story.cautions` has it; that runs are made from others is left
    to the sentence of the records, which begins what follows, where there is one: it says from which, and how."""
    return story.cautions(document, words, without=("made_from",) if _records_say_it(document) else ())


def _records_say_it(document: Document) -> bool:
    """Whether all runs of the warning of what was made from others have a record that the lineage tells of."""
    told = {record["child"] for record in document["lineage"]["on_record"]} if "lineage" in document else set()
    warned = [run for warning in document["headline"]["warnings"] if warning["code"] == "made_from"
              for run in warning["runs"]]  # fmt: skip
    return bool(warned) and told.issuperset(warned)


def verdict(document: Document, words: Words) -> list[str]:
    """The answer explained. Before it, what weights, answers and records say that is news: descent on record, weights
    or answers that are shared and nothing explains. What is so by construction is no news."""
    said = story.verdict(document, words)
    if "lineage" not in document:
        return said
    news = [sentence(document, words)] if any(pair["unexplained"] for pair in document["lineage"]["pairs"]) else []
    counted = words("lineage.recorded_counted") if _records_say_it(document) else ""
    return [*(told for told in (record(document, words), counted, *news, _alike(document, words)) if told), *said]


def methods(document: Document) -> tuple[str, ...]:
    """The methods that are told of, by their keys in the catalogue."""
    if "lineage" not in document:
        return _METHODS
    known = [key for key in _METHODS_OF_WEIGHTS if "answers" in document["lineage"] or key != "lineage_answers"]
    return (*_METHODS, *known)


def how(document: Document, words: Words) -> str:
    """How to read the section."""
    about = words("lineage.how_answers" if "answers" in document["lineage"] else "lineage.how")
    return words("bench.space").join((about, words("lineage.check")))


def answers(document: Document, words: Words) -> list[str]:
    """What the answers say, a sentence or two an entry; none where they were not compared."""
    found = document["lineage"].get("answers")
    if found is None:
        return []
    told = _alike(document, words) or _none_alike(document["lineage"], found, words)
    return [told, words("lineage.repeated_how")] if found["compared"] else [told]


def _alike(document: Document, words: Words) -> str:
    """Whose answers are more alike than independent trainings make them, though no record explains it; empty when
    nobody's are."""
    owners = _owners(document)
    models = {_models(pair, owners) for pair in listed(document, "answers")}
    pairs = [
        pair for pair in by_kin(document["lineage"]) if (pair["a"], pair["b"]) in models and ALIKE in pair["verdicts"]
    ]
    return words("lineage.answers", list=_list(document, pairs, (ALIKE,), words)) if pairs else ""


def _none_alike(found: Lineage, told: ComparedAnswers, words: Words) -> str:
    if not told["calibrated"]:
        reasons = Counter(reason for pair in found["pairs"] if (reason := pair.get("answers", {}).get("reason")))
        why = reasons.most_common(1)[0][0] if reasons else "there is no pair of runs"
        return words("lineage.answers_untested", reason=words.translate(why))
    numbers = {name: words.count(count) for name, count in told.items()}  # type: ignore[arg-type]
    key = "lineage.answers_few" if told["references"] < told["needed"] else "lineage.answers_many"
    return words(key, q=_q(found), **numbers)


def record(document: Document, words: Words) -> str:
    """Which runs are on record to have been made out of others, what weights say against it first; empty for none."""
    records = sorted(document["lineage"]["on_record"], key=lambda told: told["against"] is None)
    told = [_record(document, one, words) for one in records[:_MOST_NAMED]]
    if len(records) > _MOST_NAMED:
        told.append(words("lineage.further_runs", count=words.count(len(records) - _MOST_NAMED)))
    return words("lineage.recorded", list=words("lineage.semicolon").join(told)) if told else ""


def _record(document: Document, told: LineageRecord, words: Words) -> str:
    """`mlp-prune0.5, seed 0 was made from mlp, seed 0 (prune:0.5)`."""
    if told["parent"] is not None:
        parent = run_name(document, told["parent"], words)
    else:
        seed = "—" if told["seed"] is None else told["seed"]
        parent = words("lineage.run", model=clean(told["label"]) or "—", seed=seed)
    made = words("lineage.made", child=run_name(document, told["child"], words), parent=parent)
    steps = clean(", ".join(told["steps"]))
    made += words("lineage.steps", steps=steps) if steps else ""
    made += words("lineage.absent") if told["parent"] is None else ""
    against = {
        None: "", "unrelated weights": "unrelated", "other weights": "changed", "parent came later": "later",
    }[told["against"]]  # fmt: skip
    return made + (words(f"lineage.against_{against}") if against else "")


def sentence(document: Document, words: Words) -> str:
    """Whether any two runs share weights that no record or construction explains, in one sentence. The document has a
    lineage."""
    found = document["lineage"]
    kin = [pair for pair in by_kin(found) if pair["unexplained"]]
    if kin:
        return words("lineage.shared", list=_list(document, kin, SHARING, words))
    return _none(found, words)


def constructed(document: Document, words: Words) -> str:
    """What is shared by construction, in one line: by pairs of models, how many pairs of runs and why; empty for
    nothing."""
    owners, names = _owners(document), story.names(document)
    counts = Counter(
        (_models(pair, owners), pair["explained"])
        for pair in document["lineage"]["listed"]
        if pair["explained"] not in (None, "on record")
    )
    if not counts:
        return ""
    of = {(pair["a"], pair["b"]): pair["run_pairs"] for pair in document["lineage"]["pairs"]}
    told = []
    for ((a, b), why), count in list(counts.items())[:_MOST_NAMED]:
        among = story.shown_of("lineage.of_run_pairs", count, of[a, b], words)
        said = words("lineage.constructed_count", pairs=among, why=_construction(why, words))
        told.append(
            words("lineage.own", a=names[a], verdicts=said)
            if a == b
            else words("lineage.both", a=names[a], b=names[b], verdicts=said)
        )
    if len(counts) > _MOST_NAMED:
        told.append(words("lineage.further", count=len(counts) - _MOST_NAMED))
    total = words.count(sum(counts.values()))
    return words("lineage.constructed", count=total, list=words("lineage.semicolon").join(told))


def _construction(why: Explained | None, words: Words) -> str:
    return words(f"lineage.why_{(why or '').replace(' ', '_')}")


def _owners(document: Document) -> list[int]:
    return [run["model"] for run in document["provenance"]["runs"]]


def _models(pair: LineageRunPair, owners: Sequence[int]) -> tuple[int, int]:
    """The models of two runs, as `LineagePair` has them."""
    one, two = owners[pair["a"]], owners[pair["b"]]
    return min(one, two), max(one, two)


def _list(document: Document, pairs: Sequence[LineagePair], verdicts: Sequence[str], words: Words) -> str:
    told = [_named(document, pair, verdicts, words) for pair in pairs[:_MOST_NAMED]]
    if len(pairs) > _MOST_NAMED:
        told.append(words("lineage.further", count=len(pairs) - _MOST_NAMED))
    return words("lineage.semicolon").join(told)


def _none(found: Lineage, words: Words) -> str:
    tested, pairs = (sum(pair[of] for pair in found["pairs"]) for of in ("tested", "run_pairs"))
    if not tested:
        reasons = Counter(pair["reason"] for pair in found["pairs"] if pair["reason"])
        why = reasons.most_common(1)[0][0] if reasons else "there is no pair of runs"
        return words("lineage.untested", reason=translated(why, words).rstrip(".。"))
    explained = any(pair["explained"] for pair in found["listed"])
    key = "none_beyond" if explained else "none" if tested == pairs else "none_of_tested"
    return words(f"lineage.{key}", tested=words.count(tested), pairs=words.count(pairs), q=_q(found))


def _named(document: Document, pair: LineagePair, among: Sequence[str], words: Words) -> str:
    """How many pairs of runs of two models have each of some verdicts, and nothing explains it."""
    names, owners = story.names(document), _owners(document)
    known = Counter[str](
        one["verdict"]
        for one in document["lineage"]["listed"]
        if one["explained"] is not None and _models(one, owners) == (pair["a"], pair["b"])
    )
    news = {name: pair["verdicts"].get(name, 0) - known[name] for name in among}
    told = [
        words(
            "lineage.counted",
            verdict=words.translate(name),
            pairs=story.shown_of("lineage.of_run_pairs", count, pair["run_pairs"], words),
        )
        for name, count in news.items()
        if count > 0
    ]
    verdicts = words("lineage.comma").join(told)
    if pair["a"] == pair["b"]:
        return words("lineage.own", a=names[pair["a"]], verdicts=verdicts)
    return words("lineage.both", a=names[pair["a"]], b=names[pair["b"]], verdicts=verdicts)


def by_kin(found: Lineage) -> list[LineagePair]:
    """The pairs of models: those on record first, then those that share weights, first where nothing explains it, then
    those that share answers, then each model with itself, then as they come."""
    closest = (*SHARING, ALIKE)

    def place(pair: LineagePair) -> tuple[bool, bool, bool, bool, int]:
        own = pair["a"] == pair["b"]
        least = min((closest.index(name) for name in pair["verdicts"] if name in closest), default=len(closest))
        related = least < len(closest)
        return not pair["on_record"], not related, not pair["unexplained"] and related, own == related, least

    return sorted(found["pairs"], key=place)


def counts(pair: LineagePair, words: Words) -> str:
    """`derived 1 · undetermined 24`: verdicts on the pairs of runs of two models."""
    return " · ".join(f"{words.translate(name)} {words.count(count)}" for name, count in pair["verdicts"].items())


def listed(document: Document, kind: str) -> list[LineageRunPair]:
    """The pairs of runs that are listed: those on record (`record`); those that share weights (`weights`), or whose
    answers are more alike than independent trainings make them (`answers`), and nothing explains it; or those that are
    alike and share nothing (`alike`). Runs of one model among each other last."""
    owners = _owners(document)
    kinds = {**dict.fromkeys(SHARING, "weights"), ALIKE: "answers"}

    def kind_of(pair: LineageRunPair) -> str:
        if pair["child"] is not None:
            return "record"
        return "construction" if pair["explained"] else kinds.get(pair["verdict"], "alike")

    chosen = [pair for pair in document["lineage"]["listed"] if kind_of(pair) == kind]
    return sorted(chosen, key=lambda pair: owners[pair["a"]] == owners[pair["b"]])


def run_name(document: Document, run: int, words: Words) -> str:
    """`mlp, seed 3`: a run by its position in `provenance.runs`."""
    told = document["provenance"]["runs"][run]
    seed = "—" if told["seed"] is None else told["seed"]
    return words("lineage.run", model=story.names(document)[told["model"]], seed=seed)


def evidence(row: LineageEvidence, words: Words) -> str:
    """One test in a line: of what kind, p and the corrected p or the score, from how much. What the test looks at
    stands once, in the `legend`."""
    facts = []
    if row["p"] is not None:
        facts.append(words("lineage.p", p=p_said(row["p"], row["log10_p"]), corrected=words.p_value(row["corrected"])))
    if (rate := _rate(row, words)) is not None:
        facts.append(rate)
    elif row["statistic"] is not None:
        facts.append(words("lineage.score", score=words.value(row["statistic"], digits=3)))
    if row["n"] is not None:
        facts.append(f"n = {words.count(row['n'])}")
    if (row["p"] is not None or row["test"] == "record") and row["reason"]:
        facts.append(words.translate(row["reason"]))
    about = _test(row, words)
    about += "" if row["test"] == "record" else words("lineage.comma") + words.translate(row["kind"])
    return words("lineage.evidence", title=about, facts=words("lineage.comma").join(facts)) if facts else about


def _test(row: LineageEvidence, words: Words) -> str:
    """A test by its plain name, with the short one by which the methods have it: `numbering of units (R1)`."""
    test = row["test"]
    if test in _PLAIN:
        return words(f"lineage.test_{test}")
    return words("lineage.test_named", name=words(f"lineage.test_{test}"), test=test) if test in _NAMED else clean(test)


def legend(document: Document, words: Words) -> list[str]:
    """What the tests look at that stand in the tables, and their null hypotheses, a line each."""
    found = document["lineage"]
    rows = [pair["strongest"] for pair in _rows(found)[:MOST_ROWS] if pair["strongest"]]
    rows += [row for kind in (*KINDS, "alike") for pair in listed(document, kind)[:MOST_ROWS] for row in _told(pair)]
    told: dict[tuple[str, str | None], str] = {}
    for row in rows:
        title = words.translate(row["title"])
        null = words("lineage.null", null=words.translate(row["null"])) if row["null"] else ""
        told.setdefault(
            (row["test"], row["title"] if row["test"] == "B1" else None),
            words("lineage.test", test=clean(row["test"]), title=title, null=null),
        )
    return [text for (test, _), text in told.items() if test not in ("record", "numbers")]


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


def _note(document: Document, pair: LineagePair, words: Words) -> str:
    """Why some runs of two models were not tested, and what explains that they share weights."""
    owners, models = _owners(document), (pair["a"], pair["b"])
    known = [one["explained"] for one in document["lineage"]["listed"] if _models(one, owners) == models]
    told = [_construction(code, words) for code in dict.fromkeys(known) if code not in (None, "on record")]
    reason = [translated(pair["reason"], words)] if pair["reason"] else []
    return words("bench.space").join(_ended(text, words) for text in [*told, *reason])


def _told(pair: LineageRunPair) -> list[LineageEvidence]:
    """The tests of two runs that have something to say, and the record."""
    return [
        row
        for row in pair["evidence"]
        if row["test"] == "record" or row["statistic"] is not None or row["p"] is not None
    ]


def _rows(found: Lineage) -> list[LineagePair]:
    """The pairs of models that have a row: of which something is known."""
    return [pair for pair in by_kin(found) if not _unknown(pair, found)]


def _unknown(pair: LineagePair, found: Lineage) -> bool:
    """Whether nothing tells of two models: no record, no weights that could be tested, and no references with which
    answers could reach q."""
    if pair["on_record"] or pair["tested"] or not set(pair["verdicts"]) <= {"undetermined"}:
        return False
    told = found.get("answers")
    return pair["strongest"] is None or (told is not None and told["references"] < told["needed"])


def table(document: Document, words: Words) -> Table | None:
    """The pairs of models of which something is known, at most `MOST_ROWS`; None for none."""
    names, pairs = story.names(document), _rows(document["lineage"])[:MOST_ROWS]
    if not pairs:
        return None
    strongest = [evidence(pair["strongest"], words) if pair["strongest"] else DASH for pair in pairs]
    told: dict[str, tuple[Kind, list[str]]] = {
        "verdicts": ("prose", [counts(pair, words) for pair in pairs]),
        "tested": ("number", [f"{pair['tested']} / {pair['run_pairs']}" for pair in pairs]),
        "repeated": ("number", [repeated(pair, words) for pair in pairs]),
        "strongest": ("prose", strongest),
        "note": ("prose", [_note(document, pair, words) or DASH for pair in pairs]),
    }
    heads = [
        Column(words(f"pairs.{key}"), [Cell(names[pair[end]]) for pair in pairs], "name")  # type: ignore[literal-required]
        for key, end in (("first", "a"), ("second", "b"))
    ]
    return cells.table([*heads, *_columns(told, words)], words)


def runs_table(document: Document, kind: str, words: Words) -> Table:
    """The pairs of runs of a kind (`listed`), at most `MOST_ROWS`; sentences that explain every verdict stand once."""
    pairs = listed(document, kind)[:MOST_ROWS]
    statements = [[words.translate(part) for part in _SENTENCES.split(pair["statement"])] for pair in pairs]
    everywhere = [part for part in statements[0] if all(part in one for one in statements)] if len(pairs) > 1 else []
    space = words("bench.space")
    why = [space.join(part for part in parts if part not in everywhere) or DASH for parts in statements]
    tests = ["\n".join(evidence(row, words) for row in _told(pair)) or DASH for pair in pairs]
    told: dict[str, tuple[Kind, list[str]]] = {
        "verdict": ("text", [words.translate(pair["verdict"]) for pair in pairs]),
        "why": ("prose", why),
        "tests": ("prose", tests),
    }
    runs = ["\n".join(run_name(document, run, words) for run in (pair["a"], pair["b"])) for pair in pairs]
    head = Column(words("lineage.runs"), [Cell(both) for both in runs], "name")
    made = cells.table([head, *_columns(told, words)], words)
    return replace(made, said=(*made.said, space.join(everywhere))) if everywhere else made


def _columns(told: Mapping[str, tuple[Kind, list[str]]], words: Words) -> list[Column]:
    """The columns with a text in some row, under their titles."""
    return [
        Column(words(f"lineage.{key}"), [Cell(text) for text in texts], kind)
        for key, (kind, texts) in told.items()
        if any(text != DASH for text in texts)
    ]


def apart(document: Document, words: Words) -> list[str]:
    """The pairs of models of which nothing is known, in one line a reason, with the rate of repeated errors of each."""
    names, found = story.names(document), document["lineage"]
    by_reason: dict[str, list[str]] = {}
    rates = False
    for pair in by_kin(found):
        if not _unknown(pair, found):
            continue
        models = (names[pair["a"]], names[pair["b"]])
        both = words("lineage.own_pair", a=models[0]) if pair["a"] == pair["b"] else " – ".join(models)
        rate = pair["answers"]["repeated"] if "answers" in pair else None
        if rate is not None:
            rates = True
            both += "\u00a0" + words("lineage.rate", rate=words.value(rate["value"], "percent"), count=rate["n"])
        by_reason.setdefault(translated(pair["reason"] or "", words), []).append(both)
    told = []
    for reason, pairs in by_reason.items():
        shown = words("lineage.comma").join(pairs[:_MOST_APART])
        more = len(pairs) - _MOST_APART
        shown += words("lineage.comma") + words("lineage.further", count=more) if more > 0 else ""
        told.append(words("lineage.apart", count=words.count(len(pairs)), list=shown, reason=_ended(reason, words)))
    return [*told, words("lineage.apart_rates")] if rates else told


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
    return story.shown_of("lineage.shown", min(len(rows), MOST_ROWS), len(rows), words)


def shown_models(document: Document, words: Words) -> str:
    """How many pairs of models of how many the table shows."""
    rows = _rows(document["lineage"])
    pairs = len(document["lineage"]["pairs"])
    return story.shown_of("lineage.shown_models", min(len(rows), MOST_ROWS), pairs, words)


def _ended(text: str, words: Words) -> str:
    """A clause as a sentence."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "。")) else text + words("lineage.stop")


def _q(found: Lineage) -> str:
    return f"{found['q']:g}"
