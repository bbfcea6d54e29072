"""The report as Markdown that a code host renders: the same order as the page, with the charts as SVG files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zoo.reporting import kin, story
from zoo.reporting.escaping import escape
from zoo.reporting.page import commands
from zoo.reporting.schema import Bench, Document, Example, FailedExample, Number
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
        [
            *_title("map", words),
            *_picture("map", words("map.caption"), drawn),
            *_picture("dendrogram", words("map.tree_caption"), drawn),
        ]
        if {"map", "dendrogram"} & drawn
        else [*_title("map", words), words("map.none")],
        *([_lineage(document, words, drawn)] if "lineage" in document else []),
        _failures(document, words, drawn),
        _diversity(document, words, drawn),
        [*_title("layers", words), *_picture("layers", words("layers.caption"), drawn)]
        if "layers" in drawn
        else [*_title("layers", words), words("layers.none")],
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


def _number(number: Number | None, words: Words, style: str = "plain") -> str:
    if number is None:
        return "—"
    reason = f" {escape(words.reason(number['reason']))}" if number["reason"] else ""
    return words.number(number, style) + reason


def _names(document: Document) -> list[str]:
    return [escape(name) for name in story.names(document)]


def _head(document: Document, words: Words) -> list[str]:
    study = document["study"]
    facts = [
        f"{words('page.study')} {escape(study['task'])} · {escape(study['dataset'])}",
        words("page.examples", count=words.count(study["examples"])),
        words("page.classes", count=words.count(len(study["classes"]))),
    ]
    tiles = [
        (tile.label, f"{tile.value} {tile.interval}", escape(tile.detail)) for tile in story.tiles(document, words)
    ]
    return [
        f"# {escape(document['title'])}",
        " · ".join(facts),
        f"**{escape(story.headline(document, words))}**",
        *(escape(sentence) for sentence in kin.verdict(document, words)),
        table(["", "", ""], tiles),
    ]


def _leaderboard(document: Document, words: Words) -> list[str]:
    names = _names(document)
    header = ["leaderboard.rank", "leaderboard.model", "metrics.accuracy", "metrics.macro_f1", "leaderboard.replicas"]
    rows = [
        [
            str(model["rank"]),
            names[index],
            _number(model["metrics"]["accuracy"], words, "percent"),
            _number(model["metrics"].get("macro_f1"), words),
            str(len(model["seeds"])),
            _number(model["reliability"], words),
        ]
        for index in story.by_rank(document)
        for model in [document["models"][index]]
    ]
    return [
        *_title("leaderboard", words),
        words("leaderboard.how"),
        table([words(key) for key in (*header, "leaderboard.reliability")], rows),
        *([words("leaderboard.single", models=once)] if (once := story.run_once(document, names)) else []),
    ]


def _pairs(document: Document, words: Words, drawn: set[str]) -> list[str]:
    if len(document["models"]) < 2:
        return [*_title("pairs", words), words("pairs.one_model")]
    names, measures = _names(document), story.table_measures(document)
    header = [words("pairs.first"), words("pairs.second"), *(escape(words.measure(measure)) for measure in measures)]
    rows = []
    pairs = story.pairs_by_likeness(document)
    for pair in pairs[:_PAIRS]:
        claims = pair["p_values"]
        numbers = [_number(pair["measures"].get(measure["name"]), words) for measure in measures]
        p_values = (
            [
                words.p_value(claims["more_alike_than_replicas"]["corrected"]),
                words.p_value(claims["less_than_independent"]["corrected"]),
            ]
            if claims
            else ["—", "—"]
        )
        rows.append([names[pair["a"]], names[pair["b"]], *numbers, *p_values])
    return [
        *_title("pairs", words),
        words("pairs.how"),
        *_picture("pairs", words("pairs.table"), drawn),
        words("pairs.table_caption", shown=len(rows), count=len(pairs)),
        table([*header, words("pairs.p_copies"), words("pairs.p_apart")], rows),
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
        *(_kin_table(pairs, kin.caption(found, words)) if pairs.rows else []),
        *([escape(kin.shown_models(document, words))] if pairs.rows else []),
        *map(escape, kin.apart(document, words)),
        *_listed_runs(document, words),
        *(["\n".join(f"- {escape(line)}" for line in legend)] if (legend := kin.legend(document, words)) else []),
        f"### {words('lineage.tree')}",
        *([*tree, words("lineage.tree_caption")] if tree else [words("lineage.no_tree")]),
    ]


def _kin_table(made: kin.Table, caption: str) -> list[str]:
    rows = [["<br>".join(escape(line) for line in cell) for cell in cells] for cells in made.rows]
    told = " ".join(text for text in (caption, made.common) if text)
    return [escape(told), table([escape(title) for title in made.header], rows)]


def _listed_runs(document: Document, words: Words) -> list[str]:
    told = []
    for kind in kin.KINDS:
        if listed := kin.listed(document, kind):
            made = kin.runs_table(document, kind, words)
            told += [f"### {words(f'lineage.listed_{kind}')}", *_kin_table(made, kin.shown(listed, words))]
    alike = kin.listed(document, "alike")
    return [*told, words("lineage.alike", count=words.count(len(alike)))] if alike else told


def _failures(document: Document, words: Words, drawn: set[str]) -> list[str]:
    found = document["failures"]
    row = [
        _number(found["observed"], words, "percent"),
        _number(found["expected"], words, "percent"),
        story.times_chance(document, words),
    ]
    listed = found["every_model_fails"][:_EXAMPLES]
    examples = [_failed_example(item, document["examples"].get(item["id"]), document, words) for item in listed]
    how = words("failures.list_how", total=words.count(found["total"]), shown=len(listed))
    return [
        *_title("failures", words),
        words("failures.how"),
        table([words("failures.seen"), words("failures.chance"), words("failures.ratio")], [row]),
        *_picture("failures", words("failures.caption"), drawn),
        f"### {words('failures.list')}",
        how if found["total"] else words("failures.nothing"),
        *(["\n".join(examples)] if examples else []),
    ]


def _failed_example(item: FailedExample, example: Example | None, document: Document, words: Words) -> str:
    if example is None:
        return f"- {escape(item['id'][:12])}"
    text = item["id"][:12] if example["text"] is None else example["text"]
    text = text if len(text) <= _EXAMPLE_LENGTH else text[:_EXAMPLE_LENGTH] + " …"
    answers = " · ".join(f"{escape(who)}: {escape(what)}" for who, what in story.answers(document, example, words))
    flag = f" — **{words('failures.suspected')}**" if item["suspected_wrong_label"] else ""
    return f"- {escape(text)}<br>{words('failures.labelled')} {escape(example['label'])} · {answers}{flag}"


def _diversity(document: Document, words: Words, drawn: set[str]) -> list[str]:
    if len(document["models"]) < 2:
        return [*_title("diversity", words), words("pairs.one_model")]
    found, names = document["diversity"], _names(document)
    rows = [
        [
            f"{words('diversity.best')}: {names[found['best_model']]}",
            _number(found["best"], words, "percent"),
            "—",
            "—",
        ],
        *(
            [
                words(f"diversity.{key}"),
                _number(seen, words, "percent"),
                _number(chance, words, "percent"),
                story.points(gain, words),
            ]
            for key, seen, chance, gain in (
                ("vote", found["vote"], found["vote_independent"], found["vote_gain"]),
                ("oracle", found["oracle"], found["oracle_independent"], found["oracle_gap"]),
            )
        ),
    ]
    header = [words(f"diversity.{key}") for key in ("what", "seen", "chance", "gain")]
    sections = [
        *_title("diversity", words),
        words("diversity.how"),
        *_picture("diversity", words("diversity.caption"), drawn),
        table(header, rows),
    ]
    if found["contributions"]:
        shares = [
            [
                names[share["model"]],
                story.points(share["vote"], words),
                story.points(share["oracle"], words),
                _number(share["effective"], words),
            ]
            for share in found["contributions"]
        ]
        header = [
            words("leaderboard.model"),
            *(words(f"diversity.loss_{key}") for key in ("vote", "oracle", "effective")),
        ]
        sections += [f"### {words('diversity.each')}", words("diversity.each_how"), table(header, shares)]
    return sections


def _cost(document: Document, words: Words, drawn: set[str]) -> list[str]:
    keys = ("param_count", "train_seconds", "train_samples_per_sec", "infer_samples_per_sec", "peak_memory_mib")
    rows = [
        [
            name,
            words.value(model["metrics"]["accuracy"]["value"], "percent"),
            *(words.count(model["cost"][key]) for key in keys),  # type: ignore[literal-required]
            escape(model["cost"]["device"] or "—"),
        ]
        for name, model in zip(_names(document), document["models"], strict=True)
    ]
    header = [
        words("leaderboard.model"),
        words("metrics.accuracy"),
        *(words(f"cost.{key}") for key in (*keys, "device")),
    ]
    benches = document.get("benches", [])
    together = [text for bench in benches for text in _bench(document, words, bench, drawn)]
    return [
        *_title("cost", words),
        *together,
        *([f"### {words('bench.training')}"] if together else []),
        words("cost.how"),
        *_picture("cost", words("cost.caption"), drawn),
        table(header, rows),
    ]


_BENCH = (
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


def _bench(document: Document, words: Words, bench: Bench, drawn: set[str]) -> list[str]:
    """What was measured together on one device: a title, what to mind, the chart of the first, the table."""
    names = _names(document)
    rows = [
        [
            names[entry["model"]],
            _number(document["models"][entry["model"]]["metrics"]["accuracy"], words, "percent"),
            story.front_of(entry, words),
            *(_cost_cell(entry[key], key, words) for key in _BENCH),  # type: ignore[literal-required]
            _cost_cell(entry["seconds_to_target"], "", words),
        ]
        for entry in bench["models"]
    ]
    header = ["leaderboard.model", "metrics.accuracy", "bench.front", *(f"bench.{key}" for key in _BENCH)]
    first = bench["apart"] is None
    return [
        f"### {words('bench.title', device=escape(bench['device']))}",
        escape(story.bench_note(bench, words)),
        *(_picture("speed", words("bench.caption"), drawn) if first else []),
        table([*(words(key) for key in header), story.target_title(bench, words)], rows),
    ]


def _cost_cell(found: Number | int | None, key: str, words: Words) -> str:
    if found is None or isinstance(found, int):
        return words.count(found)
    if key in ("matmul_share", "vs_reference"):
        return _number(found, words, "percent" if key == "matmul_share" else "plain")
    return words.quantity(found) + (f" {escape(words.reason(found['reason']))}" if found["reason"] else "")


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
    rows = [
        [escape(item["what"]), escape(f"{words.translate(item['why'])}: {words.translate(item['reason'])}")]
        for item in left_out[:_ROWS]
    ]
    sections += [f"### {words('compared.left_out')}", table([words("compared.what"), words("compared.why")], rows)]
    return [*sections, words("compared.more", count=len(left_out) - _ROWS)] if len(left_out) > _ROWS else sections


def _methods(document: Document, words: Words) -> list[str]:
    sections = _title("methods", words)
    for key in kin.methods(document):
        sections += [f"### {words(f'methods.{key}_title')}", words(f"methods.{key}")]
        sections += [f"`{words.formula(key)}`"] if words.formula(key) else []
    rows = [
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
        table([words("script.measure"), "", words("methods.references")], rows),
        f"### {words('methods.references')}",
        "\n".join(f"- {escape(reference)}" for reference in words.references()),
    ]


def _provenance(document: Document, words: Words) -> list[str]:
    how = words("provenance.how", version=escape(document["zoo_version"]), created=escape(document["created"]))
    lines = "\n".join(f"    {line}" for line in commands(document))
    names = _names(document)
    rows = [
        [
            names[run["model"]],
            "—" if run["seed"] is None else str(run["seed"]),
            escape(run["key"]),
            escape(run["folder"]),
        ]
        for run in document["provenance"]["runs"][:_ROWS]
    ]
    header = [words(key) for key in ("leaderboard.model", "provenance.seed", "provenance.key", "provenance.folder")]
    return [
        *_title("provenance", words),
        f"{how} {words('provenance.fingerprint')} {escape(document['study']['fingerprint'])}",
        f"### {words('provenance.commands')}",
        lines,
        f"### {words('provenance.runs', count=len(document['provenance']['runs']))}",
        table(header, rows),
    ]
