"""A family tree: who may have come from whom, drawn over the pairs that share weights. Directions are a heuristic."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

Arc = tuple[int, int]

_SAME_COST = 1e-9  # what rounding leaves of distances from 0 to 2


def arborescence(nodes: int, costs: Mapping[Arc, float], root: int) -> dict[int, int]:
    """The cheapest tree that leads from a root to every node (Chu & Liu 1965, Edmonds 1967).

    nodes: numbered from 0; costs: (parent, child) → cost, any finite number. Returns child → parent, without the root.
    Raises ValueError when some node cannot be reached."""
    entering = {
        child: min((costs[arc], arc[0]) for arc in costs if arc[1] == child and arc[0] != child)
        for child in range(nodes)
        if child != root and any(arc[1] == child and arc[0] != child for arc in costs)
    }
    if missing := [child for child in range(nodes) if child != root and child not in entering]:
        raise ValueError(f"node {missing[0]} has no parent")
    parents = {child: parent for child, (_, parent) in entering.items()}
    cycle = _cycle(parents)
    if not cycle:
        return parents
    return _unfold(nodes, costs, root, cycle)


def _cycle(parents: Mapping[int, int]) -> list[int]:
    """Nodes of one cycle, each followed by its parent; empty when there is none."""
    for start in parents:
        path: list[int] = []
        node = start
        while node in parents and node not in path:
            path.append(node)
            node = parents[node]
        if node in path:
            return path[path.index(node) :]
    return []


def _unfold(nodes: int, costs: Mapping[Arc, float], root: int, cycle: Sequence[int]) -> dict[int, int]:
    """Solve with the cycle as one node, then open it where the tree enters."""
    inside = set(cycle)
    parent_in = {child: cycle[(place + 1) % len(cycle)] for place, child in enumerate(cycle)}
    outside = [node for node in range(nodes) if node not in inside]
    number = {node: place for place, node in enumerate(outside)} | dict.fromkeys(inside, len(outside))
    merged: dict[Arc, float] = {}
    real: dict[Arc, Arc] = {}
    for (parent, child), cost in costs.items():
        if parent in inside and child in inside:
            continue
        # Entering the cycle at a child spares the arc that enters it within.
        spared = costs[parent_in[child], child] if child in inside else 0.0
        arc = number[parent], number[child]
        if arc not in merged or cost - spared < merged[arc]:
            merged[arc], real[arc] = cost - spared, (parent, child)
    solved = arborescence(len(outside) + 1, merged, number[root])
    chosen = [real[parent, child] for child, parent in solved.items()]
    opened = {child: parent for parent, child in chosen}
    return {**{child: parent for child, parent in parent_in.items() if child not in opened}, **opened}


def family_tree(
    models: int,
    distances: Mapping[Arc, float],
    later: Mapping[Arc, bool],
    siblings: Collection[Arc] = (),
    recorded: Mapping[int, int] | None = None,
) -> dict[int, int]:
    """child → parent over models that share weights; a model without kin, and the first of each family, have none.

    distances: (i, j), i < j → distance of a pair that shares weights, not negative; later: (i, j) → True when j is the
    one that lost information (zeros, steps), False when i is; pairs of which nothing is known are left out; siblings:
    pairs of which neither came from the other: no line is drawn, but their distance tells who is in the middle;
    recorded: child → parent by the child's record, which goes before all that weights say. Where
    nothing tells the direction, the model that is nearest to all its kin is taken for the first, and where that does
    not tell either, the one with the smaller index (`undirected`). Heuristic."""
    costs, firsts = _costs(models, distances, later, siblings, recorded or {})
    root = {(models, node): cost for node, cost in enumerate(firsts)}
    found = arborescence(models + 1, {**costs, **root}, models)
    return {child: parent for child, parent in found.items() if parent != models}


def undirected(
    parents: Mapping[int, int],
    models: int,
    distances: Mapping[Arc, float],
    later: Mapping[Arc, bool],
    siblings: Collection[Arc] = (),
    recorded: Mapping[int, int] | None = None,
) -> set[int]:
    """The children of a `family_tree`, made of the same, whose line might as well lead the other way: the tree with
    another member for the first of the family costs as much."""
    costs, firsts = _costs(models, distances, later, siblings, recorded or {})
    found: set[int] = set()
    for node in parents:
        path, turned, at = [], 0.0, node
        while at in parents:
            path.append(at)
            turned += costs.get((at, parents[at]), math.inf) - costs[parents[at], at]
            at = parents[at]
        if abs(turned + firsts[node] - firsts[at]) <= _SAME_COST:
            found.update(path)
    return found


def _costs(
    models: int,
    distances: Mapping[Arc, float],
    later: Mapping[Arc, bool],
    siblings: Collection[Arc],
    recorded: Mapping[int, int],
) -> tuple[dict[Arc, float], list[float]]:
    """Of each arc, and of each model as the first of a family."""
    costs: dict[Arc, float] = {}
    most = 1 + 2 * sum(distances.values())
    kin: dict[int, list[float]] = {node: [] for node in range(models)}
    for (one, two), distance in distances.items():
        kin[one].append(distance)
        kin[two].append(distance)
        if (one, two) in siblings:
            continue
        against = later.get((one, two))
        costs[one, two] = distance + (most if against is False else 0.0)
        costs[two, one] = distance + (most if against is True else 0.0)
        kin[one][-1], kin[two][-1] = costs[one, two], costs[two, one]
    for child, parent in recorded.items():
        costs = {arc: cost for arc, cost in costs.items() if arc[1] != child and arc != (child, parent)}
    costs |= {(parent, child): 0.0 for child, parent in recorded.items()}
    # From a root of no model to each: so high that no family is split, lowest for its middle.
    high = most * 2 * (models + 1)
    return costs, [high + (sum(kin[node]) / len(kin[node]) if kin[node] else 0.0) for node in range(models)]
