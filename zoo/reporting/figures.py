"""The charts as Vega-Lite specifications (made with Altair), and as SVG.

Names and other untrusted text enter a chart as data only: no expression, filter or sort is ever built from them.
Colours are not in the charts but in their theme, of which there is a light and a dark one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.reporting import story
from zoo.reporting.schema import Document, LayerGrid, Measure, Number
from zoo.reporting.words import Words, clean

Spec = dict[str, Any]

_LABELLED_POINTS = 30  # more labels than that on a map cover each other
_LABELLED_CELLS = 12
_LABEL_LIMIT = 150  # pixels
_FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans CJK SC', 'WenQuanYi Micro Hei', sans-serif"
)


@dataclass(frozen=True)
class Figure:
    """A chart: its specification without size and colours, what it shows in words, and its size in pixels.

    aspect: height over width; height: instead of it, pixels; least: the width below which it scrolls."""

    spec: Spec
    description: str
    aspect: float | None = None
    height: int | None = None
    widest: int = 720
    least: int = 260


def figures(document: Document, words: Words) -> dict[str, Figure]:
    """All charts that the document has data for, by name, in the order of the report."""
    from zoo.reporting.family import family
    from zoo.reporting.speed import speed

    made = {
        "pairs": heatmap(document, words),
        "map": model_map(document, words),
        "dendrogram": dendrogram(document, words),
        "lineage": family(document, words),
        "failures": failures(document, words),
        "diversity": diversity(document, words),
        "layers": layers(document, words),
        "speed": speed(document, words),
        "cost": cost(document, words),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def svg(figure: Figure) -> str:
    """The chart as a static SVG in the light theme."""
    import vl_convert

    width = max(figure.least, min(figure.widest, 640))
    height = figure.height or round(width * (figure.aspect or 0.6))
    spec = {**painted(figure.spec), "width": width, "height": height, "background": "white"}
    return _with_own_ids(str(vl_convert.vegalite_to_svg(spec)))


def _with_own_ids(drawn: str) -> str:
    """The ids in an SVG counted from 0: the converter counts them through the life of the process."""
    ids = {
        id_: f"{name}{count}" for count, (id_, name) in enumerate(re.findall(r' id="((clip|gradient_?)\d+)"', drawn))
    }
    return re.sub(
        r'(?<= id=")[a-z_]+\d+(?=")|(?<=url\(#)[a-z_]+\d+(?=\))', lambda found: ids.get(found[0], found[0]), drawn
    )


def painted(spec: Spec, dark: bool = False) -> Spec:
    """The specification with the configuration of a theme, and its colours in the place of `@name` in the marks."""
    colors = palette(dark)
    layers = [
        {**layer, "mark": {key: _paint(value, colors) for key, value in layer["mark"].items()}}
        for layer in spec["layer"]
    ]
    return {**spec, "layer": layers, "config": theme(dark)}


def _paint(value: Any, colors: Mapping[str, str]) -> Any:
    return colors[value[1:]] if isinstance(value, str) and value.startswith("@") else value


def palette(dark: bool) -> dict[str, str]:
    """The colours of a theme by what they are for. Blue and orange are told apart by colour-blind people too."""
    if dark:
        return {
            "ink": "#e8ecf1",
            "muted": "#a9b4c0",
            "grid": "#2f3842",
            "accent": "#79b3f0",
            "second": "#f2a65a",
            "paper": "#14181d",
        }
    return {
        "ink": "#1b2430",
        "muted": "#566170",
        "grid": "#e2e7ed",
        "accent": "#1f5fa8",
        "second": "#b8560f",
        "paper": "#ffffff",
    }


_RAMPS = {
    True: ["#1d2630", "#1d3f63", "#2a659f", "#5b9fdd", "#cfe6ff"],
    False: ["#eef3f9", "#c5d8ec", "#84afd8", "#3c7cbb", "#123f75"],
}


def theme(dark: bool) -> Spec:
    """The configuration of all charts: typography and scales."""
    colors = palette(dark)
    muted, grid = colors["muted"], colors["grid"]
    words = {
        "labelColor": muted,
        "titleColor": muted,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    }
    return {
        "background": None,
        "font": _FONT,
        "aria": False,
        "view": {"stroke": None},
        "axis": {**words, "gridColor": grid, "domainColor": grid, "tickColor": grid, "labelLimit": _LABEL_LIMIT},
        "legend": {**words, "labelLimit": 240, "titleLimit": 300},
        "text": {"fontSize": 12},
        "range": {"category": [colors["accent"], colors["second"]], "heatmap": _RAMPS[dark], "ramp": _RAMPS[dark]},
    }


def heatmap(document: Document, words: Words) -> Figure | None:
    """All pairs in the main measure; the page can fill in the others."""
    import altair as alt

    name = story.main_measure(document)
    if name is None or len(document["models"]) < 2:
        return None
    measure = next(measure for measure in document["measures"] if measure["name"] == name)
    shown = story.names(document)
    order = [shown[model] for model in order_of(document)]
    count = len(order)
    size = 12 if count <= 20 else 9
    axis: dict[str, Any] = {
        "title": None,
        "labels": count <= 60,
        "labelFontSize": size,
        "ticks": False,
        "domain": False,
        "labelLimit": 120,
    }
    position: dict[str, Any] = {"type": "nominal", "sort": None, "scale": alt.Scale(domain=order, padding=0)}
    base = alt.Chart(alt.NamedData(name="cells")).encode(
        tooltip="key:N",
        x=alt.X("column", axis=alt.Axis(labelAngle=0 if count <= 6 else -40, **axis), **position),
        y=alt.Y("row", axis=alt.Axis(**axis), **position),
    )
    defined, missing = (
        base.transform_filter(alt.FieldEqualPredicate(field="known", equal=flag)) for flag in (True, False)
    )
    low, high = color_domain(measure, document)
    color = alt.Color(
        "value:Q",
        title=words.measure(measure),
        scale=alt.Scale(domain=[low, high], clamp=True, reverse=measure["higher_is"] == "less alike"),
        legend=alt.Legend(orient="bottom", gradientLength=200, gradientThickness=10, format=".2~f"),
    )
    gap = 1 if count <= 40 else 0
    parts = [
        missing.mark_rect(fill="@grid", stroke="@paper", strokeWidth=gap),
        defined.mark_rect(stroke="@paper", strokeWidth=gap).encode(color=color),
    ]
    if count <= _LABELLED_CELLS:
        parts += [
            base.transform_filter(alt.FieldEqualPredicate(field="strong", equal=flag))
            .mark_text(fill=ink)
            .encode(text="label:N")
            for flag, ink in ((False, "@ink"), (True, "@paper"))
        ]
    spec = finished(alt.layer(*parts), {"cells": cells(document, measure, words)})
    return Figure(
        spec,
        words("pairs.picture", measure=words.measure(measure)),
        aspect=0.92,
        widest=min(720, 200 + 80 * count),
        least=max(260, 5 * count),
    )


def order_of(document: Document) -> list[int]:
    """The models in the order of the dendrogram's leaves, those that it lacks as they come."""
    leaves = list(document["map"]["leaf_order"])
    return leaves + [model for model in range(len(document["models"])) if model not in set(leaves)]


def color_domain(measure: Measure, document: Document) -> tuple[float, float]:
    """The values at the ends of the colour scale: a range of [0, 1] as it is, else what occurs, with 0."""
    values = [
        number["value"]
        for pair in document["pairs"]
        if (number := pair["measures"].get(measure["name"])) is not None and number["value"] is not None
    ]
    if measure["name"] in ("kinship", "error_correlation") or list(measure["range"]) == [0, 1] or not values:
        return 0.0, 1.0
    low, high = min(0.0, *values), max(0.0, *values)
    return (low, high) if high > low else (low, low + 1.0)


def cells(document: Document, measure: Measure, words: Words) -> list[Spec]:
    """The data of the heatmap: both triangles, and the replica baseline on the diagonal."""
    shown, (low, high) = story.names(document), color_domain(measure, document)
    rows = []
    for pair in document["pairs"]:
        number = pair["measures"].get(measure["name"])
        value = None if number is None else number["value"]
        share = 0.0 if value is None else (value - low) / (high - low)
        share = 1 - share if measure["higher_is"] == "less alike" else share
        cell = {"value": value, "known": value is not None, "strong": share > 0.55, "label": words.value(value)}
        for a, b in {(pair["a"], pair["b"]), (pair["b"], pair["a"])}:
            rows.append({"row": shown[a], "column": shown[b], "key": f"{a},{b}", **cell})
    return rows


def model_map(document: Document, words: Words) -> Figure | None:
    """Every model of the map a point; the distance between two is about 1 − likeness."""
    import altair as alt

    points = document["map"]["coordinates"]
    if len(points) < 3:
        return None
    shown = [story.names(document)[model] for model in document["map"]["models"]]
    (left, right), (bottom, top) = square([point[0] for point in points], [point[1] for point in points])
    places = label_places(points, shown, right - left)
    rows = [
        {"x": x, "y": y, "name": shown[index], "place": places[index], "key": str(document["map"]["models"][index])}
        for index, (x, y) in enumerate(points)
    ]
    base = alt.Chart(alt.NamedData(name="points")).encode(
        x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[left, right], nice=False, zero=False)),
        y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[bottom, top], nice=False, zero=False)),
    )
    parts: list[Any] = [
        base.mark_point(filled=True, fill="@accent", stroke="@paper", size=110, opacity=1).encode(tooltip="name:N")
    ]
    if len(points) <= _LABELLED_POINTS:
        parts += labels(base)
    spec = finished(
        alt.layer(*parts).properties(view=alt.ViewConfig(stroke="#8a94a0", strokeOpacity=0.4)), {"points": rows}
    )
    return Figure(spec, words("map.picture"), aspect=0.8, widest=560)


def labels(base: Any) -> list[Any]:
    """Text marks on the four sides of the points, as the field `place` says."""
    import altair as alt

    offsets: dict[str, dict[str, Any]] = {
        "right": {"align": "left", "dx": 9},
        "left": {"align": "right", "dx": -9},
        "above": {"align": "center", "dy": -13},
        "below": {"align": "center", "dy": 14},
    }
    return [
        base.transform_filter(alt.FieldEqualPredicate(field="place", equal=place))
        .mark_text(fill="@ink", baseline="middle", limit=_LABEL_LIMIT, **offset)
        .encode(text="name:N")
        for place, offset in offsets.items()
    ]


def square(xs: Sequence[float], ys: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Domains of x and y with equal span and a margin for labels, so that distances on paper are comparable."""
    span = max(max(xs) - min(xs), (max(ys) - min(ys)) / 0.8, 1e-6) * 1.5
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return (middle_x - span / 2, middle_x + span / 2), (middle_y - span * 0.4, middle_y + span * 0.4)


def label_places(points: Sequence[Sequence[float]], shown: Sequence[str], span: float) -> list[str]:
    """For each point the side on which its label covers the fewest others: greedy, the first of equals."""
    taken: list[tuple[float, float, float, float]] = []
    places = []
    for point, name in zip(points, shown, strict=True):
        width, height, gap = min(len(name), 22) * span / 75, span / 28, span / 55
        x, y = point
        boxes = {
            "right": (x + gap, y - height / 2, x + gap + width, y + height / 2),
            "left": (x - gap - width, y - height / 2, x - gap, y + height / 2),
            "above": (x - width / 2, y + gap, x + width / 2, y + gap + height),
            "below": (x - width / 2, y - gap - height, x + width / 2, y - gap),
        }
        dots = [(a - gap / 2, b - gap / 2, a + gap / 2, b + gap / 2) for a, b in points]
        place = min(boxes, key=lambda side: sum(_overlap(boxes[side], other) for other in (*taken, *dots)))
        taken.append(boxes[place])
        places.append(place)
    return places


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def dendrogram(document: Document, words: Words) -> Figure | None:
    """The models joined step by step, the most alike first."""
    import altair as alt

    merges, order = document["map"]["merges"], document["map"]["leaf_order"]
    if not merges:
        return None
    shown = story.names(document)
    count = len(order)
    widest = max(1.0, *(merge["height"] for merge in merges)) * 1.02
    across = alt.X(
        "x:Q",
        title=words("map.height", measure=story.likeness(document, words)),
        scale=alt.Scale(domain=[min(0.0, *(merge["height"] for merge in merges)), widest], reverse=True, nice=False),
        axis=alt.Axis(tickCount=5, grid=True),
    )
    lines = (
        alt.Chart(alt.NamedData(name="lines"))
        .mark_rule(stroke="@muted", strokeWidth=1.5)
        .encode(
            x=across,
            x2="x2",
            y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[-0.5, count - 0.5], reverse=True, nice=False)),
            y2="y2",
        )
    )
    axis = alt.Axis(orient="right", title=None, ticks=False, domain=False, labelFontSize=12 if count <= 30 else 8)
    names_ = alt.Scale(type="band", domain=[shown[model] for model in order], padding=0)
    leaves = (
        alt.Chart(alt.NamedData(name="leaves"))
        .mark_point(opacity=0)
        .encode(x=alt.X("x:Q"), y=alt.Y("name:N", sort=None, axis=axis, scale=names_))
    )
    data = {
        "lines": segments(document),
        "leaves": [{"name": shown[model], "x": 0.0} for model in order],
    }
    spec = finished(alt.layer(lines, leaves).resolve_scale(y="independent"), data)
    return Figure(spec, words("map.tree_picture"), height=90 + max(22 if count <= 30 else 11, 1) * count, widest=640)


def segments(document: Document) -> list[Spec]:
    """The lines of the dendrogram: for each merge one that joins its two clusters, and one out of each of them."""
    count, order = len(document["models"]), document["map"]["leaf_order"]
    places = {model: (float(place), 0.0) for place, model in enumerate(order)}
    lines = []
    for step, merge in enumerate(document["map"]["merges"]):
        height = merge["height"]
        ends = [places[merge["left"]], places[merge["right"]]]
        lines += [{"x": start, "x2": height, "y": place, "y2": place} for place, start in ends]
        lines.append({"x": height, "x2": height, "y": ends[0][0], "y2": ends[1][0]})
        places[count + step] = ((ends[0][0] + ends[1][0]) / 2, height)
    return lines


def failures(document: Document, words: Words) -> Figure | None:
    """How many models fail the same example: observed bars, and ticks where independent failures would end."""
    import altair as alt

    distribution = document["failures"]["distribution"]
    rows = [
        {
            "models": count["models"],
            "share": count["observed"]["value"],
            "expected": count["expected"],
            "low": count["observed"]["low"],
            "high": count["observed"]["high"],
            "observed_text": words.number(count["observed"], "percent"),
            "expected_text": words.value(count["expected"], "percent"),
            "seen": words("failures.seen"),
            "chance": words("failures.chance"),
        }
        for count in distribution
        if count["observed"]["value"] is not None
    ]
    if len(rows) < 2:
        return None
    color = alt.Color(
        "seen:N",
        title=None,
        scale=alt.Scale(domain=[words("failures.seen"), words("failures.chance")]),
        legend=alt.Legend(orient="top", symbolType="square"),
    )
    base = alt.Chart(alt.NamedData(name="counts")).encode(
        x=alt.X("models:O", title=words("failures.axis"), axis=alt.Axis(labelAngle=0, labelOverlap=True, grid=False))
    )
    share = alt.Y("share:Q", title=words("failures.share"), axis=alt.Axis(format="%", tickCount=5))
    bars = base.mark_bar(cornerRadiusEnd=2, opacity=1).encode(y=share, color=color, tooltip="observed_text:N")
    ticks = base.mark_tick(thickness=3, opacity=1).encode(
        y="expected:Q", color=alt.Color("chance:N"), tooltip="expected_text:N"
    )
    spec = finished(alt.layer(bars, ticks), {"counts": rows})
    return Figure(spec, words("failures.picture"), height=300)


def diversity(document: Document, words: Words) -> Figure | None:
    """Best model, vote and oracle, each beside its value for independent models."""
    import altair as alt

    found = document["diversity"]
    entries = [
        (words("diversity.best"), found["best"], None),
        (words("diversity.vote"), found["vote"], found["vote_independent"]),
        (words("diversity.oracle"), found["oracle"], found["oracle_independent"]),
    ]
    rows = [
        {
            "what": what,
            **ends(number),
            "text": words.number(number, "percent"),
            "independent": None if chance is None else chance["value"],
            "seen": words("diversity.seen"),
            "chance": words("diversity.chance"),
        }
        for what, number, chance in entries
        if number["value"] is not None
    ]
    if len(rows) < 2:
        return None
    values = [row[key] for row in rows for key in ("value", "low", "high", "independent") if row[key] is not None]
    bounds = [max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02)]
    across = alt.X(
        "value:Q",
        title=words("metrics.accuracy"),
        scale=alt.Scale(domain=bounds, zero=False),
        axis=alt.Axis(format="%", tickCount=5),
    )
    color = alt.Color(
        "seen:N",
        title=None,
        scale=alt.Scale(domain=[words("diversity.seen"), words("diversity.chance")]),
        legend=alt.Legend(orient="top"),
    )
    axis = alt.Axis(title=None, labelLimit=220, ticks=False, domain=False)
    base = alt.Chart(alt.NamedData(name="sets")).encode(y=alt.Y("what:N", sort=None, axis=axis))
    shape = alt.Scale(domain=[words("diversity.seen"), words("diversity.chance")], range=["circle", "diamond"])
    parts = [
        base.mark_rule(stroke="@accent", strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=110, opacity=1).encode(
            x=across, color=color, shape=alt.Shape("seen:N", title=None, scale=shape), tooltip="text:N"
        ),
        base.transform_filter(alt.FieldValidPredicate(field="independent", valid=True))
        .mark_point(filled=True, size=110, opacity=1)
        .encode(x=alt.X("independent:Q"), color=alt.Color("chance:N"), shape=alt.Shape("chance:N")),
    ]
    return Figure(finished(alt.layer(*parts), {"sets": rows}), words("diversity.picture"), height=190)


def layers(document: Document, words: Words) -> Figure | None:
    """Two models' layers against each other; the page can fill in the other pairs."""
    import altair as alt

    grid = first_grid(document)
    if grid is None:
        return None
    base = alt.Chart(alt.NamedData(name="layers")).encode(
        tooltip="label:N",
        x=alt.X(
            "column:N",
            sort=None,
            title=story.names(document)[grid["b"]],
            axis=alt.Axis(labelAngle=-40, ticks=False, domain=False),
        ),
        y=alt.Y("row:N", sort=None, title=story.names(document)[grid["a"]], axis=alt.Axis(ticks=False, domain=False)),
    )
    defined = base.transform_filter(alt.FieldEqualPredicate(field="known", equal=True))
    color = alt.Color(
        "value:Q",
        title="CKA",
        scale=alt.Scale(domain=[0, 1], clamp=True),
        legend=alt.Legend(orient="bottom", gradientLength=200, gradientThickness=10),
    )
    parts = [
        base.mark_rect(fill="@grid", stroke="@paper"),
        defined.mark_rect(stroke="@paper").encode(color=color),
    ]
    parts += [
        base.transform_filter(alt.FieldEqualPredicate(field="strong", equal=flag))
        .mark_text(fill=ink)
        .encode(text="label:N")
        for flag, ink in ((False, "@ink"), (True, "@paper"))
    ]
    parts.append(
        base.transform_filter(alt.FieldEqualPredicate(field="best", equal=True)).mark_rect(
            filled=False, stroke="@second", strokeWidth=3
        )
    )
    spec = finished(alt.layer(*parts), {"layers": layer_cells(grid, words)})
    return Figure(spec, words("layers.picture"), aspect=0.75, widest=560)


def first_grid(document: Document) -> LayerGrid | None:
    """The grid whose best match is greatest, which is what the static chart shows."""
    grids = [grid for grid in document["representations"]["grids"] if grid["cka"] and grid["layers_b"]]
    return max(
        grids, key=lambda grid: -math.inf if grid["best"]["value"] is None else grid["best"]["value"], default=None
    )


def layer_cells(grid: LayerGrid, words: Words) -> list[Spec]:
    """The data of one grid; the cell of the best match is marked."""
    rows = []
    for index, (row, values) in enumerate(zip(numbered(grid["layers_a"]), grid["cka"], strict=True)):
        for position, (column, value) in enumerate(zip(numbered(grid["layers_b"]), values, strict=True)):
            best = (index, position) == (grid["best_a"], grid["best_b"])
            cell = {"row": row, "column": column, "value": value, "known": value is not None, "best": best}
            rows.append({**cell, "strong": (value or 0) > 0.55, "label": words.value(value)})
    return rows


def numbered(names: Sequence[str]) -> list[str]:
    """Layer names as they are shown, with their position before them: they stay distinct and in order."""
    return [f"{index + 1} {clean(name)[:40]}" for index, name in enumerate(names)]


def cost(document: Document, words: Words) -> Figure | None:
    """Accuracy against what it costs: seconds of training, or parameters where no time was recorded."""
    import altair as alt

    shown = story.names(document)
    kind = next((kind for kind in ("train_seconds", "param_count") if len(_priced(document, kind)) > 1), None)
    if kind is None:
        return None
    priced = _priced(document, kind)
    places = label_places(*_on_paper(document, priced, shown))
    accuracy = [model["metrics"]["accuracy"] for model in document["models"]]
    rows = [
        {
            "cost": price,
            "name": shown[index],
            "place": place,
            **ends(accuracy[index]),
            "text": f"{shown[index]} · {words.number(accuracy[index], 'percent')} · {words.count(price)}",
        }
        for (index, price), place in zip(priced.items(), places, strict=True)
    ]
    low, high = min(priced.values()), max(priced.values())
    # Said outright: some layers below may be empty, and an empty one has no extent.
    floor, ceiling = min(row["low"] for row in rows), max(row["high"] for row in rows)
    margin = max(0.01, 0.08 * (ceiling - floor))
    base = alt.Chart(alt.NamedData(name="costs")).encode(
        x=alt.X(
            "cost:Q",
            title=words(f"cost.{kind}"),
            scale=alt.Scale(type="log", domain=[low / 2, high * 3], nice=False),
            axis=alt.Axis(tickCount=6, format="~s"),
        ),
        y=alt.Y(
            "value:Q",
            title=words("metrics.accuracy"),
            scale=alt.Scale(domain=[floor - margin, ceiling + margin], zero=False, nice=False),
            axis=alt.Axis(format="%", tickCount=5),
        ),
    )
    parts = [
        base.mark_rule(stroke="@accent", strokeWidth=2).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, fill="@accent", stroke="@paper", size=110, opacity=1).encode(tooltip="text:N"),
    ]
    if len(rows) <= _LABELLED_POINTS:
        parts += labels(base)
    return Figure(finished(alt.layer(*parts), {"costs": rows}), words("cost.picture"), height=320)


def _priced(document: Document, kind: str) -> dict[int, float]:
    """Model to its cost, for those that have one above zero (the axis is logarithmic) and an accuracy."""
    found: Mapping[int, Any] = {
        index: model["cost"][kind]  # type: ignore[literal-required]
        for index, model in enumerate(document["models"])
        if model["metrics"]["accuracy"]["value"] is not None
    }
    return {index: float(price) for index, price in found.items() if price is not None and price > 0}


def _on_paper(
    document: Document, priced: Mapping[int, float], shown: Sequence[str]
) -> tuple[list[tuple[float, float]], list[str], float]:
    """Where the points of the cost chart come to lie, both axes scaled to [0, 1], for placing labels."""
    across = {index: math.log(price) for index, price in priced.items()}
    up = {index: document["models"][index]["metrics"]["accuracy"]["value"] or 0.0 for index in priced}

    def scaled(values: Mapping[int, float]) -> dict[int, float]:
        low, high = min(values.values()), max(values.values())
        return {index: (value - low) / ((high - low) or 1.0) for index, value in values.items()}

    xs, ys = scaled(across), scaled(up)
    return [(xs[index], ys[index] * 0.5) for index in priced], [shown[index] for index in priced], 1.3


def ends(number: Number) -> Spec:
    """A number as fields of a row. Where there is no interval its ends are the value, and the whisker has no length."""
    value = number["value"]
    low, high = (value if number[end] is None else number[end] for end in ("low", "high"))
    return {"value": value, "low": low, "high": high}


def finished(chart: Any, data: Mapping[str, list[Spec]]) -> Spec:
    """The specification with its data inside and without a size."""
    spec: Spec = chart.properties(autosize={"type": "fit", "contains": "padding"}).to_dict()
    spec.pop("config", None)
    return {**spec, "datasets": dict(data)}
