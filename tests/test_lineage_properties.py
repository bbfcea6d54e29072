"""What a verdict must not depend on: the order of the models, how their units are numbered, and the type of storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from zoo.lineage.comparison import Judged, compare
from zoo.lineage.weights import Weights, open_weights

State = dict[str, torch.Tensor]
WIDTHS = (20, 24, 16, 5)
TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
EXAMPLES = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 10**6)


def network(generator: torch.Generator) -> State:
    made: State = {}
    for place, (into, out) in enumerate(pairwise(WIDTHS)):
        made[f"{place}.weight"] = torch.randn(out, into, generator=generator) * into**-0.5
        made[f"{place}.bias"] = torch.randn(out, generator=generator) * 0.1
    return made


def noisy(state: State, generator: torch.Generator) -> State:
    return {
        name: value + 0.2 * value.std() * torch.randn(value.shape, generator=generator) for name, value in state.items()
    }


def pruned(state: State, generator: torch.Generator) -> State:
    return {
        name: torch.where(value.abs() > value.abs().median(), value, 0.0) if value.ndim > 1 else value
        for name, value in state.items()
    }


def int8(state: State, generator: torch.Generator) -> State:
    made = dict(state)
    for name, value in state.items():
        if value.ndim > 1:
            step = value.abs().amax(1, keepdim=True) / 127
            made[name] = torch.round(value / step) * step
    return made


def renumbered(state: State, generator: torch.Generator) -> State:
    made = dict(state)
    for place, count in enumerate(WIDTHS[1:-1]):
        order = torch.randperm(count, generator=generator)
        for name in (f"{place}.weight", f"{place}.bias"):
            made[name] = made[name][order]
        made[f"{place + 1}.weight"] = made[f"{place + 1}.weight"][:, order]
    return made


def stranger(state: State, generator: torch.Generator) -> State:
    return network(generator)


def same(state: State, generator: torch.Generator) -> State:
    return state


Change = Callable[[State, torch.Generator], State]
CHANGES: Mapping[str, Change] = {
    change.__name__: change for change in (same, noisy, pruned, int8, renumbered, stranger)
}
# Whose relation is exact, number by number: renumbering hides none of it. R1 is blind to it by design.
KEPT_WHATEVER_THE_NUMBERS: Mapping[str, Change] = {
    name: CHANGES[name] for name in ("same", "pruned", "int8", "stranger")
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Weights]:
    def keep(name: str, state: State, kind: str = "float32") -> Weights:
        file = tmp_path / f"{name}.safetensors"
        save_file({key: value.to(TYPES[kind]).contiguous() for key, value in state.items()}, file)
        return open_weights(file)

    return keep


def judged(one: Weights, two: Weights) -> Judged:
    return compare([one, two]).pairs[0]


@pytest.mark.parametrize("how", CHANGES)
@EXAMPLES
@given(seed=seeds)
def test_the_order_of_two_models_changes_nothing(how: str, seed: int, kept: Any) -> None:
    drawn = generator(seed)
    parent = network(drawn)
    one, two = kept("one", parent), kept("two", CHANGES[how](parent, drawn))
    forth, back = judged(one, two), judged(two, one)
    assert forth.verdict == back.verdict
    assert forth.evidence.log_p_order == back.evidence.log_p_order
    assert forth.evidence.distance == pytest.approx(back.evidence.distance, abs=1e-6, nan_ok=True)


@settings(EXAMPLES, max_examples=12)
@given(seed=seeds, order=st.permutations(range(5)))
# By chance the first stranger's units have the parent's order (p = .002), and it is no kin of the parent's child.
@example(seed=178331, order=[1, 2, 3, 0, 4])
# By chance the strangers' units have one order (p = .004), and nothing tells which of the two was first.
@example(seed=501, order=[0, 1, 2, 4, 3])
def test_the_order_of_many_models_changes_no_verdict_and_no_line(seed: int, order: list[int], kept: Any) -> None:
    drawn = generator(seed)
    parent = network(drawn)
    # Every second time two are equally near to all others: what weighs the same is decided without regard to order.
    last = network(drawn) if seed % 2 else dict(parent)
    children = [noisy(parent, drawn), pruned(parent, drawn), network(drawn), last]
    models = [kept(f"m{place}", state) for place, state in enumerate([parent, *children])]

    def found(given_order: list[int]) -> tuple[dict[frozenset[str], tuple[str, str]], set[tuple[str, str, str]]]:
        comparison = compare([models[place] for place in given_order])
        names = {frozenset((pair.first.label, pair.second.label)): (pair.verdict.name, pair.verdict.statement)
                 for pair in comparison.pairs}  # fmt: skip
        lines = {(comparison.models[child].label, comparison.models[own].label, comparison.family.directions[child])
                 for child, own in comparison.parents.items()}  # fmt: skip
        return names, lines

    verdicts, lines = found(list(range(5)))
    assert found(order) == (verdicts, lines)
    kin = {frozenset((models[a].label, models[b].label)) for a, b in combinations(range(3), 2)}
    assert kin <= {pair for pair, (name, _) in verdicts.items() if name in ("copy", "derived", "common ancestor")}


@pytest.mark.parametrize("how", KEPT_WHATEVER_THE_NUMBERS)
@EXAMPLES
@given(seed=seeds)
def test_units_of_other_numbers_change_neither_score_nor_kinship(how: str, seed: int, kept: Any) -> None:
    drawn = generator(seed)
    parent = network(drawn)
    child = KEPT_WHATEVER_THE_NUMBERS[how](parent, drawn)
    one, straight = kept("one", parent), kept("two", child)
    before, after = judged(one, straight), judged(one, kept("three", renumbered(child, drawn)))
    assert after.evidence.distance == pytest.approx(before.evidence.distance, abs=1e-5)
    if how == "stranger":  # R1 errs in one of twenty, before or after
        return
    assert after.verdict.shares_weights
    # A copy whose units have other numbers is no copy any more, number by number.
    assert after.verdict.name == ("derived" if how == "same" else before.verdict.name)


@EXAMPLES
@given(seed=seeds)
def test_a_changed_descendant_with_other_numbers_is_not_taken_for_independent(seed: int, kept: Any) -> None:
    """R1 does not see it, and says so: alignment does, and replicas would tell how sure that is."""
    drawn = generator(seed)
    parent = network(drawn)
    found = judged(kept("one", parent), kept("two", renumbered(noisy(parent, drawn), drawn)))
    if found.verdict.shares_weights:  # a numbering that happened to stay
        assert found.evidence.log_p_order is not None
        assert found.evidence.log_p_order < -2.9
    else:
        assert found.verdict.name == "undetermined"
        assert "renumbering would explain" in found.verdict.statement


@pytest.mark.parametrize("how", CHANGES)
@EXAMPLES
@given(seed=seeds, types=st.permutations(list(TYPES)).map(lambda names: names[:2]))
def test_the_type_of_storage_changes_no_verdict(how: str, types: list[str], seed: int, kept: Any) -> None:
    drawn = generator(seed)
    parent = network(drawn)
    child = CHANGES[how](parent, drawn)
    whole = judged(kept("one", parent), kept("two", child))
    found = judged(kept("one", parent, types[0]), kept("two", child, types[1]))
    assert found.evidence.distance == pytest.approx(whole.evidence.distance, abs=0.01)
    if how == "same" and set(types) == {"float16", "bfloat16"}:  # neither is the other rounded, as each lost something
        assert found.verdict.name == "derived"
    elif how != "stranger":  # of strangers, a p-value or a score next to its threshold may change sides
        assert found.verdict.name == whole.verdict.name
