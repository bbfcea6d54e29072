"""The report as Markdown that a code host renders: the same order as the page, with the charts as SVG files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zoo.reporting import kin, rows, story
from zoo.reporting.cells import Cell, Column, Table
from zoo.reporting.escaping import escape
from zoo.reporting.page import commands
from zoo.reporting.schema import Bench, Document, Example, FailedExample
from zoo.reporting.words import Words

_EXAMPLES = 10
_EXAMPLE_LENGTH = 300
_PAIRS = 30
_ROWS = 100


def markdown(document: Document, words: Words, figures: Iterable[str]) -> str:
    """The text of report.md. figures: names of the charts that lie beside it as figures/<name>.svg."""
    drawn = set(figures)
    sections = [
        _head(document, words),
        _leaderboard(document, words),
        _pairs(document, words, drawn),
        _map(document, words, drawn),
        *([[*_title("recipes", words), *map(escape, told)]] if (told := story.recipes(document, words)) else []),
        *([_lineage(document, words, drawn)] if "lineage" in document else []),
        _failures(document, words, drawn),
        _diversity(document, words, drawn),
        [*_title("layers", words), *_picture("layers", words("layers.caption"), drawn)]
        if "layers" in drawn
        else [*_title("layers", words), escape(story.no_layers(document, words))],
        _cost(document, words, drawn),
        _compared(document, words),
        _methods(document, words),
        _provenance(document, words),
    ]
    return "\n\n".join("\n\n".join(section) for section in sections) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells that are escaped already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)


def _title(key: str, words: Words) -> list[str]:
    return [f"## {words(f'sections.{key}')}"]


def _picture(name: str, caption: str, drawn: set[str]) -> list[str]:
    return [f"![{caption}](figures/{name}.svg)"] if name in drawn else []


def _shown(found: Table | None) -> list[str]:
    """What all rows have in common, a paragraph a sentence, and the table."""
    if found is None or not found.columns:
        return []
    columns = [column for column in found.columns if column.kind != "strip"]
    lines = [[_cell(column, cell) for column, cell in row if column.kind != "strip"] for row in found.rows()]
    return [*map(escape, found.said), table([escape(column.title) for column in columns], lines)]


def _cell(column: Column, cell: Cell) -> str:
    # What the report itself made of numbers has nothing to escape.
    text = cell.text if column.kind == "number" else "<br>".join(map(escape, cell.lines))
    return " ".join(part for part in (f"{text}{cell.mark}", escape(cell.reason)) if part)


def _names(document: Document) -> list[str]:
    return [escape(name) for name in story.names(document)]


def _head(document: Document, words: Words) -> list[str]:
    study = document["study"]
    facts = [
        f"{words('page.study')}{words('numbers.colon')}{escape(study['task'])} · {escape(study['dataset'])}",
        words("page.examples", count=words.count(study["examples"])),
        words("page.classes", count=words.count(len(study["classes"]))),
    ]
    tiles = [
        (
            tile.label,
            f"{tile.value} {tile.interval}",
            "<br>".join(escape(text) for text in (tile.detail, tile.minding) if text),
        )
        for tile in story.tiles(document, words)
    ]
    return [
        f"# {escape(document['title'])}",
        " · ".join(facts),
        *(f"**{escape(said)}**" for said in story.opening(document, words)),
        *(f"> {escape(caution)}" for caution in kin.cautions(document, words)),
        *(escape(sentence) for sentence in kin.verdict(document, words)),
        *([table(["", "", ""], tiles)] if tiles else []),
        *map(escape, story.minded_tiles(document, words)),
    ]


def _leaderboard(document: Document, words: Words) -> list[str]:
    return [
        *_title("leaderboard", words),
        words("leaderboard.how"),
        *([escape(once)] if (once := story.run_once(document, words)) else []),
        *_shown(rows.leaderboard(document, words)),
    ]


def _pairs(document: Document, words: Words, drawn: set[str]) -> list[str]:
    if len(document["models"]) < 2:
        return [*_title("pairs", words), words("pairs.one_model")]
    pairs = story.pairs_by_likeness(document)
    return [
        *_title("pairs", words),
        *story.how_pairs(document, words),
        *_picture("pairs", words("pairs.table"), drawn),
        *([] if "pairs" in drawn else [words("pairs.undefined", reason=escape(story.why_no_pair(document, words)))]),
        story.shown_of("pairs.table_caption", min(len(pairs), _PAIRS), len(pairs), words),
        *_shown(rows.pairs(document, words, pairs[:_PAIRS])),
        *([escape(gaps)] if "pairs" in drawn and (gaps := story.not_defined(document, words)) else []),
        *_against_label(document, words),
    ]


def _against_label(document: Document, words: Words) -> list[str]:
    found = document["failures"].get("against_label")
    if found is None:
        return []
    title = f"### {words('pairs.against')}"
    if not found["total"]:
        return [title, words("pairs.against_none")]
    shown = min(len(found["listed"]), _EXAMPLES)
    how = words("pairs.against_how", total=words.count(found["total"]), shown=shown)
    return [title, how, *_counted(document, words), *_shown(rows.against_label(document, words, _EXAMPLES))]


def _map(document: Document, words: Words, drawn: set[str]) -> list[str]:
    if not {"map", "dendrogram"} & drawn:
        return [*_title("map", words), words("map.none", reason=escape(words.reason(document["map"]["reason"])))]
    likeness = story.likeness(document, words)
    missing = story.not_on_map(document, words)
    return [
        *_title("map", words),
        *([escape(missing)] if missing else []),
        *_picture("map", words("map.caption", measure=likeness), drawn),
        *_picture("dendrogram", words("map.tree_caption"), drawn),
    ]


def _lineage(document: Document, words: Words, drawn: set[str]) -> list[str]:
    found = document["lineage"]
    told = [kin.record(document, words), kin.sentence(document, words), kin.constructed(document, words)]
    pairs = kin.table(document, words)
    tree = _picture("lineage", words("lineage.tree_picture"), drawn)
    return [
        *_title("lineage", words),
        kin.how(document, words),
        *(escape(line) for line in told if line),
        *map(escape, kin.answers(document, words)),
        *map(escape, kin.lacking(found, words)),
        *([escape(kin.caption(found, words)), *_shown(pairs)] if pairs else []),
        *([escape(kin.shown_models(document, words))] if pairs else []),
        *map(escape, kin.apart(document, words)),
        *_listed_runs(document, words),
        *(["\n".join(f"- {escape(line)}" for line in legend)] if (legend := kin.legend(document, words)) else []),
        f"### {words('lineage.tree')}",
        *([*tree, words("lineage.tree_caption")] if tree else [words("lineage.no_tree")]),
    ]


def _listed_runs(document: Document, words: Words) -> list[str]:
    told = []
    for kind in kin.KINDS:
        if listed := kin.listed(document, kind):
            told += [f"### {words(f'lineage.listed_{kind}')}", escape(kin.shown(listed, words))]
            told += _shown(kin.runs_table(document, kind, words))
    alike = kin.listed(document, "alike")
    return [*told, words("lineage.alike", count=words.count(len(alike)))] if alike else told


def _counted(document: Document, words: Words) -> list[str]:
    """Of whom the section does not speak, where it does not speak of all."""
    return [escape(note)] if (note := story.counted_note(document, words)) else []


def _failures(document: Document, words: Words, drawn: set[str]) -> list[str]:
    found = document["failures"]
    listed = found["every_model_fails"][:_EXAMPLES]
    examples = [_failed_example(item, document["examples"].get(item["id"]), document, words) for item in listed]
    how = story.failed_by_all(document, len(listed), words)
    return [
        *_title("failures", words),
        words("failures.how"),
        *_counted(document, words),
        *_shown(rows.failures(document, words)),
        *_picture("failures", words("failures.caption"), drawn),
        f"### {words('failures.list')}",
        how if found["total"] else escape(story.no_failures(document, words)),
        *(["\n".join(examples)] if examples else []),
    ]


def _failed_example(item: FailedExample, example: Example | None, document: Document, words: Words) -> str:
    if example is None:
        return f"- {escape(item['id'][:12])}"
    text = item["id"][:12] if example["text"] is None else example["text"]
    text = text if len(text) <= _EXAMPLE_LENGTH else text[:_EXAMPLE_LENGTH] + " …"
    colon = words("numbers.colon")
    answers = " · ".join(f"{escape(who)}{colon}{escape(what)}" for who, what in story.answers(document, example, words))
    flag = f" — **{words('failures.suspected')}**" if item["suspected_wrong_label"] else ""
    return f"- {escape(text)}<br>{words('failures.labelled')}{colon}{escape(example['label'])} · {answers}{flag}"


def _diversity(document: Document, words: Words, drawn: set[str]) -> list[str]:
    if len(document["models"]) < 2:
        return [*_title("diversity", words), words("pairs.one_model")]
    sections = [
        *_title("diversity", words),
        words("diversity.how"),
        *_counted(document, words),
        *_picture("diversity", words("diversity.caption"), drawn),
        *_shown(rows.diversity(document, words)),
    ]
    if document["diversity"]["contributions"]:
        sections += [f"### {words('diversity.each')}", words("diversity.each_how")]
        sections += _shown(rows.contributions(document, words))
    for title, found in (("of_models", rows.of_models(document, words)), ("set", rows.of_set(document, words))):
        sections += [f"### {words(f'diversity.{title}')}", *_shown(found)] if found else []
    return sections


def _cost(document: Document, words: Words, drawn: set[str]) -> list[str]:
    together = [text for bench in document.get("benches", []) for text in _bench(document, words, bench, drawn)]
    return [
        *_title("cost", words),
        *together,
        *([f"### {words('bench.training')}"] if together else []),
        words("cost.how"),
        *_picture("cost", words("cost.caption"), drawn),
        *_shown(rows.costs(document, words)),
    ]


def _bench(document: Document, words: Words, bench: Bench, drawn: set[str]) -> list[str]:
    """What was measured together on one device: a title, what to mind, the chart of the first, the table."""
    first = bench["apart"] is None
    return [
        f"### {words('bench.title', device=escape(words.translate(bench['device'])))}",
        escape(story.bench_note(bench, words)),
        *(_picture("speed", words("bench.caption"), drawn) if first else []),
        *_shown(rows.bench(document, words, bench)),
    ]


def _compared(document: Document, words: Words) -> list[str]:
    runs = len(document["provenance"]["runs"])
    examples = words.count(document["study"]["examples"])
    sections = [
        *_title("compared", words),
        words("compared.how", models=len(document["models"]), runs=runs, examples=examples),
    ]
    left_out = document["left_out"]
    if not left_out:
        return [*sections, words("compared.nothing")]
    sections += [f"### {words('compared.left_out')}", *_shown(rows.left_out(document, words, _ROWS))]
    return [*sections, words("compared.more", count=len(left_out) - _ROWS)] if len(left_out) > _ROWS else sections


def _methods(document: Document, words: Words) -> list[str]:
    sections = _title("methods", words)
    for key in kin.methods(document):
        sections += [f"### {words(f'methods.{key}_title')}", words(f"methods.{key}")]
        sections += [f"`{words.formula(key)}`"] if words.formula(key) else []
    measures = [
        [
            escape(words.measure(measure)),
            escape(measure["formula"] or words.formula(measure["name"])),
            escape(measure["source"]),
        ]
        for measure in document["measures"]
    ]
    return [
        *sections,
        f"### {words('methods.measures')}",
        table([words("script.measure"), "", words("methods.references")], measures),
        f"### {words('methods.references')}",
        "\n".join(f"- {escape(reference)}" for reference in words.references()),
    ]


def _provenance(document: Document, words: Words) -> list[str]:
    how = words("provenance.how", version=escape(document["zoo_version"]), created=escape(document["created"]))
    lines = "\n".join(f"    {line}" for line in commands(document))
    return [
        *_title("provenance", words),
        f"{how} {words('provenance.fingerprint')}{words('numbers.colon')}{escape(document['study']['fingerprint'])}",
        f"### {words('provenance.commands')}",
        lines,
        f"### {words('provenance.runs', count=len(document['provenance']['runs']))}",
        *_shown(rows.runs(document, words, _ROWS)),
    ]
