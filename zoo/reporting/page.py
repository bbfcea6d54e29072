"""The report as one HTML file: no network, no foreign script, readable by everybody, under two million bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from zoo.reporting import figures, kin, rows, story
from zoo.reporting.figures import Figure
from zoo.reporting.schema import Document, Example, Measure, Number, Pair
from zoo.reporting.words import Words, clean, clean_lines

if TYPE_CHECKING:
    from markupsafe import Markup

LIMIT = 2_000_000
"""The page is smaller than this, in bytes. What does not fit stays in report.json, and the page says so."""


@dataclass(frozen=True)
class Budget:
    """How much of a document the page carries. intervals: of all measures of each pair, or of the main ones only."""

    pair_examples: int = 20
    failed_examples: int = 100
    text_length: int = 1200
    intervals: bool = True
    grids: int = 200
    measures: int = 40
    images: bool = True


_BUDGETS = (
    Budget(),
    Budget(pair_examples=8, failed_examples=50, text_length=600, grids=60),
    Budget(pair_examples=4, failed_examples=30, text_length=400, grids=40, intervals=False),
    Budget(pair_examples=0, failed_examples=20, text_length=300, grids=20, intervals=False),
    Budget(pair_examples=0, failed_examples=10, text_length=200, grids=8, intervals=False, measures=8, images=False),
    Budget(pair_examples=0, failed_examples=0, text_length=0, grids=2, intervals=False, measures=3, images=False),
)

_PAIRS_IN_TABLE = 30
_AGAINST_LABEL = 20
_BUNDLE_END = re.compile(r"<(/script|!--)", re.IGNORECASE)
_WITH_INTERVAL = re.compile(r"(−?[\d.,]+(?: %)?\u00a0\([−\d.,]+[^()<>&]{1,4}[−\d.,]+\))")


def page(document: Document, words: Words, drawn: Mapping[str, Figure] | None = None) -> str:
    """The whole page. Names, texts and messages in it are escaped wherever they stand.

    drawn: the charts, when they have been made already."""
    drawn = figures.figures(document, words) if drawn is None else drawn
    charts: dict[str, Any] = {
        name: {
            "spec": figure.spec,
            "description": figure.description,
            "aspect": figure.aspect,
            "height": figure.height,
            "widest": figure.widest,
            "least": figure.least,
        }
        for name, figure in drawn.items()
    }
    # The page draws the heatmap and the grids from its own data, where all measures and pairs are.
    for name, data in (("pairs", "cells"), ("layers", "layers")):
        if name in charts:
            charts[name]["spec"]["datasets"] = {data: []}
    html = ""
    for step, budget in enumerate(_BUDGETS):
        html = _render(document, words, charts, budget, shortened=step > 0)
        if len(html.encode("utf-8", "replace")) < LIMIT:
            break
    return html


def script_json(value: Any) -> str:
    """JSON that is safe inside a <script> element: nothing in it can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def whole(sentence: str) -> Markup:
    """The sentence, escaped, with each number kept on one line with its interval."""
    from markupsafe import Markup, escape

    return Markup(_WITH_INTERVAL.sub(r'<span class="n">\1</span>', str(escape(sentence))))


def _render(document: Document, words: Words, charts: dict[str, Any], budget: Budget, shortened: bool) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_template),
    )
    environment.filters |= {"clean": clean, "lines": clean_lines, "whole": whole}
    scripts = [_vega(), _template("page.js")]
    data = _payload(document, words, budget)
    return environment.get_template("page.html").render(
        d=document,
        t=words,
        story=story,
        kin=kin,
        rows=rows,
        against_most=min(_AGAINST_LABEL, budget.failed_examples),
        names=story.names(document),
        charts=charts,
        shortened=shortened,
        policy=_policy(scripts),
        style=_template("page.css"),
        scripts=scripts,
        text=clean,
        data=script_json(
            {
                **data,
                "charts": charts,
                "themes": [{"config": figures.theme(dark), "palette": figures.palette(dark)} for dark in (False, True)],
            }
        ),
        pairs=story.pairs_by_likeness(document)[:_PAIRS_IN_TABLE],
        failed=document["failures"]["every_model_fails"][: budget.failed_examples],
        shown=_shown_examples(document, budget),
        commands=commands(document),
    )


def commands(document: Document) -> list[str]:
    """The commands that made the runs and this report, each as one line for a shell."""
    lines = [*document["provenance"]["commands"], document["command"]]
    return [clean(shlex.join(line)) for index, line in enumerate(lines) if line and line not in lines[:index]]


def _policy(scripts: list[str]) -> str:
    """The page may run these very scripts and show the images inside it, and may do nothing else."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    rest = "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {hashes}; {rest}"


def _template(name: str) -> str:
    return (files("zoo.reporting") / "templates" / name).read_text("utf-8")


@lru_cache(maxsize=1)
def _vega() -> str:
    import vl_convert

    # The bundle has been looked through for this, but a later version may differ.
    return _BUNDLE_END.sub(r"<\\\1", vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _shown_examples(document: Document, budget: Budget) -> dict[str, Example]:
    """The examples of the list of failures, shortened as the budget says."""
    failed = document["failures"]["every_model_fails"][: budget.failed_examples]
    return {
        item["id"]: _shorten(document["examples"][item["id"]], budget)
        for item in failed
        if item["id"] in document["examples"]
    }


def _shorten(example: Example, budget: Budget) -> Example:
    text = example["text"]
    if text is not None and len(text) > budget.text_length:
        text = text[: budget.text_length].rstrip() + " …"
    return Example(
        label=example["label"],
        predictions=example["predictions"],
        text=text,
        png=_only_base64(example["png"]) if budget.images else None,
    )


def _only_base64(png: str | None) -> str | None:
    try:
        return base64.b64encode(base64.b64decode(png, validate=True)).decode() if png else None
    except ValueError:
        return None


def _payload(document: Document, words: Words, budget: Budget) -> dict[str, Any]:
    """What the script needs: names, measures, and all pairs in columns, numbers with three decimals."""
    measures = story.defined_measures(document)
    main = story.main_measure(document)
    table = [measure["name"] for measure in story.table_measures(document)]
    kept = sorted(measures, key=lambda measure: (measure["name"] != main, measure["name"] not in table))[
        : budget.measures
    ]
    measures = [measure for measure in measures if measure in kept]
    pairs = document["pairs"]
    examples, positions = _examples(pairs, document, budget)
    return {
        "names": story.names(document),
        "order": figures.order_of(document),
        "main": main,
        "measures": [
            {
                "name": measure["name"],
                "title": words.measure(measure),
                "domain": figures.color_domain(measure, document),
                "alike": measure["higher_is"] == "more alike",
                "chance": _chance(document, measure, budget, words),
                **_columns(pairs, measure["name"], budget.intervals or measure["name"] == main, words),
                **({"z": [_rounded_z(pair) for pair in pairs]} if measure["name"] == "shared_wrong_answers" else {}),
            }
            for measure in measures
        ],
        "pairs": [[pair["a"], pair["b"]] for pair in pairs],
        "claims": [_claims(pair, words) for pair in pairs],
        "lists": [
            [_list(pair, kind, positions, budget) for kind in ("differing", "failed_together")] for pair in pairs
        ],
        "examples": examples,
        "grids": list(_grids(document, words, budget)),
        "classes": [clean(name) for name in document["study"]["classes"]],
        "start": next(([pair["a"], pair["b"]] for pair in story.pairs_by_likeness(document)), None),
        "words": {
            "comma": words("numbers.comma"),
            "colon": words("numbers.colon"),
            **{key: words(f"script.{key}") for key in _SCRIPT_WORDS},
        },
    }


_SCRIPT_WORDS = (
    "to",
    "none",
    "label",
    "more",
    "replicas",
    "value",
    "interval",
    "count",
    "measure",
    "chance",
    "caption",
    "differ",
    "fail",
    "further",
    "no_list",
    "best",
    "no_best",
    "chart_of",
    "copies",
    "apart",
    "wider",
)


def _chance(document: Document, measure: Measure, budget: Budget, words: Words) -> list[str] | str:
    """What a measure is by chance: a number for each pair, or one text where all are the same."""
    found = [story.by_chance(document, measure, pair, words) for pair in document["pairs"]] if budget.intervals else []
    return found if len(set(found)) > 1 else found[0] if found else "—"


def _columns(pairs: list[Pair], name: str, intervals: bool, words: Words) -> dict[str, Any]:
    """One measure of all pairs: value, low, high and n, each a column, or one item where all are the same."""
    numbers = [pair["measures"].get(name) for pair in pairs]
    reasons: list[str] = []
    indices = [
        _index(reasons, words.reason(number["reason"])) if number and number["reason"] else 0 for number in numbers
    ]
    column: dict[str, Any] = {"v": [_rounded(number, "value") for number in numbers]}
    if intervals:
        column |= {end[0]: [_rounded(number, end) for number in numbers] for end in ("low", "high")}
    counts = [number["n"] if number else None for number in numbers]
    column["n"] = counts if len(set(counts)) > 1 else counts[0] if counts else None
    return {**column, "r": indices if any(indices) else 0, "reasons": reasons}


def _index(known: list[str], text: str) -> int:
    """1 + the position of the text in the list, to which it is added when it is new."""
    if text not in known:
        known.append(text)
    return known.index(text) + 1


def _rounded(number: Number | None, end: str) -> float | None:
    value = None if number is None else number[end]  # type: ignore[literal-required]
    return None if value is None else round(value, 3)


def _rounded_z(pair: Pair) -> float | None:
    z = pair.get("z")
    return None if z is None else round(z, 1)


def _claims(pair: Pair, words: Words) -> list[str] | int:
    """What was tested of a pair, an empty text for what could not be, or 0 where nothing is tested."""
    claims = pair["p_values"]
    if claims is None:
        return 0
    both = (claims["more_alike_than_replicas"], claims["less_than_independent"])
    return ["" if claim["corrected"] is None else words.p_said(claim["corrected"]) for claim in both]


def _list(pair: Pair, kind: str, positions: dict[str, int], budget: Budget) -> list[Any] | int:
    """[how many there are in all, positions of those shown], or 0 where there is no list."""
    found = pair["differing"] if kind == "differing" else pair["failed_together"]
    if found is None:
        return 0
    return [found["total"], [positions[id_] for id_ in found["ids"][: budget.pair_examples] if id_ in positions]]


def _examples(pairs: list[Pair], document: Document, budget: Budget) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The examples that the lists of pairs refer to, and the position of each id."""
    examples: list[dict[str, Any]] = []
    positions: dict[str, int] = {}
    classes = {name: index for index, name in enumerate(document["study"]["classes"])}
    for pair in pairs:
        for found in (pair["differing"], pair["failed_together"]):
            for id_ in found["ids"][: budget.pair_examples] if found else ():
                if id_ in positions or id_ not in document["examples"]:
                    continue
                positions[id_] = len(examples)
                example = _shorten(document["examples"][id_], replace(budget, text_length=min(400, budget.text_length)))
                # Classes as positions, where they are of the study: names of classes may be long.
                answers = [
                    classes.get(answer, answer) if answer is not None else None for answer in example["predictions"]
                ]
                examples.append(
                    {
                        "id": clean(id_)[:12],
                        "label": classes.get(example["label"], example["label"]),
                        "answers": answers,
                        "text": None if example["text"] is None else clean_lines(example["text"]),
                        "png": example["png"],
                    }
                )
    return examples, positions


def _grids(document: Document, words: Words, budget: Budget) -> Iterator[dict[str, Any]]:
    def likeness(grid: Any) -> float:
        value = grid["best"]["value"]
        return -1.0 if value is None else -value

    for grid in sorted(document["representations"]["grids"], key=likeness)[: budget.grids]:
        yield {
            "a": grid["a"],
            "b": grid["b"],
            "rows": figures.numbered(grid["layers_a"]),
            "columns": figures.numbered(grid["layers_b"]),
            "cka": [[None if value is None else round(value, 3) for value in row] for row in grid["cka"]],
            "best": [grid["best_a"], grid["best_b"]],
            "text": words.number(grid["best"]),
            "quantile": words.value(grid["null_quantile"]),
            "p": words.p_said(grid["p_value"]),
            "reason": words.reason(grid["best"]["reason"]) if grid["best"]["value"] is None else "",
        }
