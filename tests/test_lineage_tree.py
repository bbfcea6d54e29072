"""The cheapest tree is that of brute force and of networkx; families are told apart and drawn from their middle."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.lineage.tree import arborescence, family_tree, undirected

Costs = dict[tuple[int, int], float]


def cheapest(nodes: int, costs: Costs) -> float:
    """Cost of the cheapest tree from node 0, of all trees there are; infinite when there is none."""

    def reaches(parents: dict[int, int], node: int) -> bool:
        for _ in range(nodes):
            if node == 0:
                return True
            node = parents[node]
        return False

    best = float("inf")
    for chosen in itertools.product(range(nodes), repeat=nodes - 1):
        parents = dict(enumerate(chosen, start=1))
        arcs = [(parent, child) for child, parent in parents.items()]
        if all(arc in costs for arc in arcs) and all(reaches(parents, node) for node in parents):
            best = min(best, sum(costs[arc] for arc in arcs))
    return best


def graphs(most: int):
    def arcs(nodes: int):
        every = [(a, b) for a in range(nodes) for b in range(nodes) if a != b]
        return st.tuples(st.just(nodes), st.dictionaries(st.sampled_from(every), st.integers(0, 20)))

    return st.integers(2, most).flatmap(arcs)


@given(graphs(5))
def test_no_tree_is_cheaper(graph):
    nodes, costs = graph
    best = cheapest(nodes, costs)
    if best == float("inf"):
        with pytest.raises(ValueError, match="no parent"):
            arborescence(nodes, costs, 0)
        return
    parents = arborescence(nodes, costs, 0)
    assert set(parents) == set(range(1, nodes))
    assert sum(costs[parent, child] for child, parent in parents.items()) == best


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.floats(0, 1), min_size=n * n, max_size=n * n))
    )
)
def test_a_full_graph_costs_what_networkx_says(graph):
    networkx = pytest.importorskip("networkx")
    nodes, numbers = graph
    costs = {(a, b): numbers[a * nodes + b] for a in range(nodes) for b in range(nodes) if a != b}
    reference = networkx.DiGraph()
    reference.add_weighted_edges_from((a, b, cost) for (a, b), cost in costs.items() if b != 0)
    expected = networkx.minimum_spanning_arborescence(reference).size(weight="weight")
    parents = arborescence(nodes, costs, 0)
    assert sum(costs[parent, child] for child, parent in parents.items()) == pytest.approx(expected)


def test_a_family_begins_with_its_middle_and_strangers_stay_apart():
    # 1 was the parent of 0, 2 and 3; 4 has no kin.
    near = {(0, 1): 0.1, (1, 2): 0.1, (1, 3): 0.1, (0, 2): 0.2, (0, 3): 0.2, (2, 3): 0.2}
    assert family_tree(5, near, {}) == {0: 1, 2: 1, 3: 1}


def test_siblings_have_no_line_but_a_middle():
    """0 is the start of 1, 2 and 3, on record as siblings; 1 is nearest to it, and to nobody else."""
    near = {(0, 1): 0.01, (0, 2): 0.1, (0, 3): 0.1, (1, 2): 0.11, (1, 3): 0.11, (2, 3): 0.2}
    assert family_tree(4, near, {}, {(1, 2), (1, 3), (2, 3)}) == {1: 0, 2: 0, 3: 0}
    assert family_tree(4, {pair: near[pair] for pair in [(1, 2), (1, 3), (2, 3)]}, {}, {(1, 2), (1, 3), (2, 3)}) == {}


def test_what_lost_information_came_later():
    assert family_tree(2, {(0, 1): 0.3}, {(0, 1): True}) == {1: 0}
    assert family_tree(2, {(0, 1): 0.3}, {(0, 1): False}) == {0: 1}
    assert family_tree(3, {(0, 1): 0.1, (1, 2): 0.1, (0, 2): 0.3}, {(0, 1): True, (1, 2): True}) == {1: 0, 2: 1}


def test_no_kin_no_tree():
    assert family_tree(3, {}, {}) == {}
    assert family_tree(0, {}, {}) == {}


def test_of_two_that_nothing_tells_apart_the_direction_is_unknown():
    near = {(0, 1): 0.3}
    assert undirected(family_tree(2, near, {}), 2, near, {}) == {1}
    assert undirected(family_tree(2, near, {(0, 1): False}), 2, near, {(0, 1): False}) == set()


def test_the_middle_of_a_family_gives_its_lines_a_direction():
    near = {(0, 1): 0.1, (1, 2): 0.1, (1, 3): 0.1, (0, 2): 0.2, (0, 3): 0.2, (2, 3): 0.2}
    assert undirected(family_tree(4, near, {}), 4, near, {}) == set()
    # Two in the middle, each with a child of its own: only the line between them may lead either way.
    near = {(0, 1): 0.1, (0, 2): 0.2, (1, 3): 0.2, (1, 2): 0.3, (0, 3): 0.3, (2, 3): 0.4}
    assert family_tree(4, near, {}) == {1: 0, 2: 0, 3: 1}
    assert undirected(family_tree(4, near, {}), 4, near, {}) == {1}


def test_a_record_goes_before_distances_directions_and_kinship():
    near = {(0, 1): 0.1, (1, 2): 0.1, (0, 2): 0.3}
    assert family_tree(3, near, {(0, 2): True}, recorded={0: 2})[0] == 2
    assert family_tree(3, {}, {}, recorded={1: 0}) == {1: 0}  # weights that show nothing of it
    assert undirected({1: 0}, 3, {}, {}, recorded={1: 0}) == set()
    chain = family_tree(4, near, {}, {(0, 1)}, recorded={0: 1, 1: 3})
    assert (chain[0], chain[1]) == (1, 3)


def test_records_in_a_circle_end_nothing():
    assert family_tree(3, {}, {}, recorded={0: 1, 1: 2, 2: 0}) in ({1: 2, 2: 0}, {0: 1, 2: 0}, {0: 1, 1: 2})


distances = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: pair[0] < pair[1]), st.sampled_from([0, 1, 2])
)


@given(distances, st.dictionaries(st.integers(1, 5), st.integers(0, 4), max_size=2))
def test_every_recorded_child_stands_below_its_parent_and_no_line_is_of_strangers(near, recorded):
    recorded = {child: parent for child, parent in recorded.items() if parent < child}
    found = family_tree(6, near, {}, recorded=recorded)
    assert {child: found.get(child) for child in recorded} == recorded
    lines = {(min(line), max(line)) for line in found.items()}
    assert lines <= near.keys() | {(parent, child) for child, parent in recorded.items()}
    assert undirected(found, 6, near, {}, recorded=recorded) <= found.keys() - recorded.keys()
