"""The chart of accuracy against speed, of models that were measured together."""

from __future__ import annotations

import math
from typing import Any

from zoo.reporting import story
from zoo.reporting.figures import Figure, Spec, ends, finished, label_places, labels
from zoo.reporting.schema import Bench, Document
from zoo.reporting.words import Words

LABELLED = 30  # more labels than that cover each other


def speed(document: Document, words: Words) -> Figure | None:
    """Each model of the first bench; those on the front are filled. None without a bench of two models."""
    import altair as alt

    benches = document.get("benches") or []
    rows = _rows(document, benches[0], words) if benches else []
    if len(rows) < 2:
        return None
    floor, ceiling = min(row["low"] for row in rows), max(row["high"] for row in rows)
    margin = max(0.01, 0.08 * (ceiling - floor))
    slowest, fastest = min(row["slow"] for row in rows), max(row["fast"] for row in rows)
    base = alt.Chart(alt.NamedData(name="speeds")).encode(
        x=alt.X(
            "speed:Q",
            title=words("bench.samples_per_sec"),
            scale=alt.Scale(type="log", domain=[slowest / 2, fastest * 3], nice=False),
            axis=alt.Axis(tickCount=6, format="~s"),
        ),
        y=alt.Y(
            "value:Q",
            title=words("metrics.accuracy"),
            scale=alt.Scale(domain=[floor - margin, ceiling + margin], zero=False, nice=False),
            axis=alt.Axis(format="%", tickCount=5),
        ),
    )
    front = alt.FieldEqualPredicate(field="front", equal=True)
    point: dict[str, Any] = {"size": 110, "opacity": 1, "strokeWidth": 2}
    parts = [
        base.mark_rule(stroke="@accent", strokeWidth=2).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_rule(stroke="@accent", strokeWidth=2).encode(x=alt.X("slow:Q"), x2="fast:Q"),
        base.mark_point(filled=True, fill="@paper", stroke="@accent", **point).encode(tooltip="text:N"),
        base.transform_filter(front)
        .mark_point(filled=True, fill="@accent", stroke="@accent", **point)
        .encode(tooltip="text:N"),
    ]
    if len(rows) <= LABELLED:
        parts += labels(base)
    return Figure(finished(alt.layer(*parts), {"speeds": rows}), words("bench.picture"), height=320)


def _rows(document: Document, bench: Bench, words: Words) -> list[Spec]:
    shown, rows = story.names(document), []
    for entry in bench["models"]:
        accuracy = document["models"][entry["model"]]["metrics"]["accuracy"]
        found = entry["samples_per_sec"]
        if accuracy["value"] is None or not found["value"]:
            continue
        slow, fast = (found["value"] if found[end] is None else found[end] for end in ("low", "high"))
        name = shown[entry["model"]]
        told = (name, words.number(accuracy, "percent"), f"{words.quantity(found)} {words('bench.samples_per_sec')}")
        row: dict[str, Any] = {"name": name, "speed": found["value"], "slow": slow, "fast": fast, **ends(accuracy)}
        rows.append({**row, "front": bool(entry["front"]), "text": " · ".join(told)})
    for row, place in zip(rows, _places(rows), strict=True):
        row["place"] = place
    return rows


def _places(rows: list[Spec]) -> list[str]:
    """Where each label goes, so that few overlap."""
    if not rows:
        return []
    across, up = [math.log(row["speed"]) for row in rows], [row["value"] for row in rows]

    def scaled(values: list[float]) -> list[float]:
        return [(value - min(values)) / ((max(values) - min(values)) or 1.0) for value in values]

    points = [(x, y * 0.5) for x, y in zip(scaled(across), scaled(up), strict=True)]
    return label_places(points, [row["name"] for row in rows], 1.3)
