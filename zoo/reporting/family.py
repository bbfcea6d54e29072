"""The family tree: who came from whom, on record or as far as weights tell, a run a line, each below its parent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from zoo.reporting import kin
from zoo.reporting.figures import Figure, Spec, finished
from zoo.reporting.lineage_schema import LineageEdge
from zoo.reporting.schema import Document
from zoo.reporting.words import Words

MOST_RUNS = 60
"""Lines that are drawn; report.json has all."""

_LINE = 26  # pixels
_DASHES = {"on record": [1, 0], "information lost": [1, 0], "heuristic": [4, 3], "unknown": [1, 3]}
_DEPTHS = 8  # how far the page is cut into steps to the right; the names stand in what is left


def family(document: Document, words: Words) -> Figure | None:
    """The arcs as an indented tree; None where no run may come from another."""
    import altair as alt

    arcs = document["lineage"]["tree"] if "lineage" in document else []
    placed = list(_in_order(arcs))[:MOST_RUNS]
    if not placed:
        return None
    row_of = {run: row for row, (run, _, _) in enumerate(placed)}
    depths = {run: depth for run, depth, _ in placed}
    runs: list[Spec] = []
    lines: list[Spec] = []
    for run, depth, leading in placed:
        name = kin.run_name(document, run, words)
        if leading is not None:
            recorded = leading["direction"] == "on record"
            name = words(
                "lineage.child", run=name, verdict=words.translate("on record" if recorded else leading["verdict"])
            )
            start = {"x": depths[leading["parent"]], "y": row_of[leading["parent"]], "told": leading["direction"]}
            lines += [
                {**start, "x2": start["x"], "y2": row_of[run]},
                {**start, "x2": depth, "y": row_of[run], "y2": row_of[run]},
            ]
        runs.append({"x": depth, "y": row_of[run], "name": name})
    across = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.3, _room(depths)], nice=False, zero=False))
    down = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[-0.6, len(placed) - 0.4], reverse=True, nice=False))
    drawn = alt.Chart(alt.NamedData(name="arcs")).encode(x=across, x2="x2", y=down, y2="y2")
    nodes = alt.Chart(alt.NamedData(name="runs")).encode(x=across, y=down)
    parts = [
        drawn.transform_filter(alt.FieldEqualPredicate(field="told", equal=told)).mark_rule(
            stroke="@accent" if told == "on record" else "@muted", strokeWidth=1.5, strokeDash=dashes
        )
        for told, dashes in _DASHES.items()
    ]
    parts += [
        nodes.mark_point(filled=True, fill="@accent", stroke="@paper", size=90, opacity=1).encode(tooltip="name:N"),
        nodes.mark_text(fill="@ink", align="left", baseline="middle", dx=9, limit=300).encode(text="name:N"),
    ]
    spec = finished(alt.layer(*parts), {"arcs": lines, "runs": runs})
    return Figure(spec, words("lineage.tree_picture"), height=20 + _LINE * len(placed), widest=640)


def _room(depths: Mapping[int, int]) -> float:
    deepest = max(depths.values())
    return max(_DEPTHS, deepest + _DEPTHS / 2)


def _in_order(arcs: Sequence[LineageEdge]) -> Iterator[tuple[int, int, LineageEdge | None]]:
    """(run, how deep, the arc that leads to it or None), each run after its parent and its elder siblings' children."""
    children: defaultdict[int, list[LineageEdge]] = defaultdict(list)
    for arc in arcs:
        children[arc["parent"]].append(arc)
    firsts = sorted(children.keys() - {arc["child"] for arc in arcs})
    left: list[tuple[int, int, LineageEdge | None]] = [(run, 0, None) for run in reversed(firsts)]
    while left:
        run, depth, leading = left.pop()
        yield run, depth, leading
        left += [(below["child"], depth + 1, below) for below in sorted(children[run], key=_child, reverse=True)]


def _child(arc: LineageEdge) -> int:
    return arc["child"]
