"""Verdicts on networks that were really trained: small perceptrons on digits, with descendants of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from zoo.lineage.comparison import Judged, compare
from zoo.lineage.relation import relate
from zoo.lineage.weights import Weights, open_weights

REPLICAS = 22
State = dict[str, torch.Tensor]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10))


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def train(module: nn.Sequential, seed: int, epochs: int, shift: int = 0, layers: slice = slice(None)) -> State:
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits()
    labels = (labels + shift) % 10
    optimizer = torch.optim.Adam(module[layers].parameters(), lr=3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(module(images[rows]), labels[rows]).backward()
            optimizer.step()
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def trained(seed: int) -> State:
    torch.manual_seed(seed)
    return train(network(), seed, epochs=8)


def taken_on(state: State, seed: int, epochs: int = 4, shift: int = 0, new_head: bool = False) -> State:
    """Fine-tuned, perhaps to other names of the digits; with a new head, on which alone is trained."""
    module = network()
    fresh = dict(module[4].state_dict())
    module.load_state_dict(state)
    if new_head:
        module[4].load_state_dict(fresh)
    return train(module, seed, epochs, shift, slice(4, None) if new_head else slice(None))


def pruned(state: State, share: float) -> State:
    made = dict(state)
    for name in ("0.weight", "2.weight"):
        edge = state[name].abs().flatten().kthvalue(int(share * state[name].numel())).values
        made[name] = torch.where(state[name].abs() > edge, state[name], 0.0)
    return made


def quantised(state: State, bits: int) -> State:
    made = dict(state)
    for name in ("0.weight", "2.weight", "4.weight"):
        step = state[name].abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        made[name] = torch.round(state[name] / step) * step
    return made


def disguised(state: State, seed: int, most: float = 3.0) -> State:
    """Units in another order and of another size; the network computes the same."""
    generator = torch.Generator().manual_seed(seed)
    made = dict(state)
    for one, two, count in (("0", "2", 32), ("2", "4", 24)):
        order = torch.randperm(count, generator=generator)
        size = torch.exp((2 * torch.rand(count, generator=generator) - 1) * np.log(most))
        made[f"{one}.weight"] = made[f"{one}.weight"][order] * size[:, None]
        made[f"{one}.bias"] = made[f"{one}.bias"][order] * size
        made[f"{two}.weight"] = made[f"{two}.weight"][:, order] / size
    return made


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Callable[..., Weights]:
    """Writes a state to a file, once a name."""
    folder = tmp_path_factory.mktemp("weights")

    def keep(name: str, state: Mapping[str, torch.Tensor]) -> Weights:
        file = folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, file)
        return open_weights(file)

    return keep


@pytest.fixture(scope="module")
def parent() -> State:
    return trained(0)


@pytest.fixture(scope="module")
def replicas(kept) -> list[Weights]:
    return [kept(f"replica{seed}", trained(seed)) for seed in range(1, REPLICAS + 1)]


def judged(one: Weights, two: Weights, replicas: list[Weights] | None = None) -> Judged:
    return compare([one, two], replicas or []).pairs[0]


DESCENDANTS: Mapping[str, Callable[[State], State]] = {
    "finetune": lambda state: taken_on(state, 7),
    "new_head": lambda state: taken_on(state, 7, new_head=True),
    "prune": lambda state: pruned(state, 0.5),
    "int8": lambda state: quantised(state, 8),
    "int4": lambda state: quantised(state, 4),
    "permute and rescale": lambda state: disguised(state, 3),
    "permute": lambda state: disguised(state, 3, most=1.0),
    "prune, permute": lambda state: disguised(pruned(state, 0.5), 3, most=1.0),
    "finetune, prune, int8": lambda state: quantised(pruned(taken_on(state, 7), 0.5), 8),
}


@pytest.mark.parametrize("how", DESCENDANTS)
def test_a_descendant_is_derived_in_either_order(how, parent, kept):
    one, two = kept("parent", parent), kept(how.replace(" ", "-"), DESCENDANTS[how](parent))
    forth, back = judged(one, two), judged(two, one)
    assert forth.verdict.name == "derived", forth.verdict.statement
    assert forth.verdict.strength == "exact"
    assert forth.verdict == back.verdict
    assert forth.evidence.log_p_order == back.evidence.log_p_order


def test_what_lost_information_came_later(parent, kept):
    one, two = kept("parent", parent), kept("prune", pruned(parent, 0.5))
    assert judged(one, two).verdict.later == judged(two, one).verdict.later == two.label
    assert compare([two, one]).parents == {0: 1}


def test_a_copy_is_a_copy_in_half_precision_and_under_other_names(parent, kept):
    one = kept("parent", parent)
    assert judged(one, kept("half", {name: value.half() for name, value in parent.items()})).verdict.name == "copy"
    assert judged(one, kept("same", {f"body.{name}": value for name, value in parent.items()})).verdict.name == "copy"
    renamed = {f"t{place}": value for place, value in enumerate(parent.values())}
    assert judged(one, kept("renamed", renamed)).verdict.name == "copy"


@pytest.mark.parametrize("how", ["finetune", "permute and rescale"])
def test_storage_in_half_precision_changes_no_verdict(how, parent, kept):
    descendant = DESCENDANTS[how](parent)
    half = {name: value.to(torch.float16) for name, value in descendant.items()}
    assert judged(kept("parent", parent), kept("half", half)).verdict.name == "derived"


def test_disguised_and_trained_on_needs_replicas(parent, kept, replicas):
    """Renumbered and trained on: nothing exact is left, and without replicas that is said."""
    one, two = kept("parent", parent), kept("hidden", disguised(taken_on(parent, 7), 3))
    alone = judged(one, two)
    assert alone.verdict.name == "undetermined"
    assert f"{REPLICAS} replicas" in alone.verdict.statement
    few = judged(one, two, replicas[:5])
    assert few.verdict.name == "undetermined"
    assert f"fewer than {REPLICAS}" in few.verdict.statement
    enough = judged(one, two, replicas)
    assert enough.verdict.name == "derived"
    assert enough.verdict.strength == "heuristic"  # no record says how these files were made
    assert "if hidden.safetensors was trained by the recipe of parent.safetensors" in enough.verdict.statement
    assert enough.evidence.calibrated is not None
    assert enough.evidence.calibrated.p == pytest.approx(1 / (REPLICAS + 1))


def test_another_training_of_the_recipe_is_no_kin(parent, kept, replicas):
    one, two = kept("parent", parent), kept("another", trained(100))
    assert judged(one, two).verdict.name == "undetermined"
    with_replicas = judged(one, two, replicas)
    assert with_replicas.verdict.name == "convergent"
    assert not with_replicas.verdict.shares_weights


def test_many_pairs_at_once_need_more_replicas(parent, kept, replicas):
    one, two = kept("parent", parent), kept("hidden", disguised(taken_on(parent, 7), 3))
    comparison = compare([one, two, kept("another", trained(100))], replicas)
    found = comparison.pairs[0]
    assert found.evidence.calibrated is not None
    assert found.evidence.calibrated.p == pytest.approx(1 / (REPLICAS + 1))
    # Three calibrated pairs, the smallest p: 3 (1 + 1/2 + 1/3) p at most, at nine tenths of q.
    assert found.adjusted["aligned"] == pytest.approx(1 / (REPLICAS + 1) * 3 * (1 + 1 / 2 + 1 / 3) / 0.9)
    assert found.verdict.name == "undetermined"
    assert "over all tests of all pairs" in found.verdict.statement
    assert comparison.tests == 3


def test_no_model_is_a_replica_of_itself_and_none_counts_twice(parent, kept, replicas):
    one, two = kept("parent", parent), kept("another", trained(100))
    again = [kept("again", parent), kept("other", trained(100)), kept("twice", trained(1)), replicas[0], one, two]
    found = judged(one, two, [*replicas[:3], *again])
    assert found.evidence.calibrated is not None, found.evidence.reasons
    assert found.evidence.calibrated.replicas == 3


def test_fresh_weights_are_independent(parent, kept):
    torch.manual_seed(5)
    verdict = judged(kept("parent", parent), kept("fresh", network().state_dict())).verdict
    assert verdict.name == "independent"


def test_a_replica_that_is_kin_calibrates_nothing(parent, kept, replicas):
    one, child = kept("parent", parent), kept("child", taken_on(parent, 7))
    found = judged(one, kept("another", trained(100)), [*replicas[:3], child])
    assert "shares weights" in found.evidence.reasons["calibration"]
    assert found.evidence.calibrated is None
    assert found.verdict.name == "undetermined"


def test_no_false_edge_among_independent_models(kept, replicas):
    comparison = compare(replicas[:12])
    assert not [pair.verdict for pair in comparison.pairs if pair.verdict.shares_weights]
    assert comparison.parents == {}
    assert comparison.tests == 66


def test_a_family_among_strangers(parent, kept, replicas):
    siblings = [kept(f"sibling{seed}", taken_on(parent, seed, epochs=2, shift=seed)) for seed in (11, 12)]
    comparison = compare([kept("parent", parent), *siblings, *replicas[:3]])
    assert comparison.parents == {1: 0, 2: 0}
    names = {(pair.first.label, pair.second.label): pair.verdict.name for pair in comparison.pairs}
    assert names["parent.safetensors", "sibling11.safetensors"] == "derived"
    assert names["sibling11.safetensors", "sibling12.safetensors"] == "common ancestor"


def test_weights_that_are_not_finite_decide_nothing(parent, kept):
    broken = {name: value.clone() for name, value in parent.items()}
    for value in broken.values():
        value.view(-1)[0] = float("nan")
    found = judged(kept("another", trained(100)), kept("broken", broken))
    assert found.verdict.name == "undetermined"
    assert "NaN" in found.verdict.statement


def test_other_widths_are_undetermined_with_the_reason(parent, kept):
    torch.manual_seed(50)
    other = nn.Sequential(nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 10))
    found = judged(kept("parent", parent), kept("other", other.state_dict()))
    assert found.verdict.name == "undetermined"
    assert "differ in shape" in found.verdict.statement
    deep = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 20), nn.ReLU(), nn.Linear(20, 10))
    found = judged(kept("parent", parent), kept("deep", deep.state_dict()))
    assert found.verdict.name == "undetermined"
    assert "Only part of the units" in found.verdict.statement


def test_a_computed_table_in_both_is_no_evidence(kept):
    """Random networks over one table of sines: the columns of a table are units, and their numbering is the table's."""
    table = torch.sin(torch.arange(40.0)[:, None] * torch.linspace(0.1, 2, 32))
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        layers = {"hidden.weight": torch.randn(24, 32), "out.weight": torch.randn(5, 24)}
        states.append({"embed_positions.weight": table, **layers})
    found = judged(kept("sines0", states[0]), kept("sines1", states[1]))
    assert found.evidence.layout.origin == "shapes"
    assert "embed_positions" not in {one.group for one in found.evidence.numbering}
    assert found.evidence.log_p_order is None or found.evidence.log_p_order > np.log(0.001)
    assert found.verdict.name == "undetermined"


@pytest.mark.parametrize("width", [4, 12])
def test_narrow_units_beside_a_computed_table_are_not_taken_for_the_same(width, kept):
    """All that both have of rows long enough to tell is the table."""
    table = torch.arange(40.0 * width).reshape(40, width)
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        states.append({"embed.weight": table, "b": torch.randn(6, width), "c": torch.randn(3, 6)})
    found = judged(kept("narrow0", states[0]), kept("narrow1", states[1]))
    assert found.evidence.layout.origin == "shapes"
    assert not found.verdict.shares_weights, found.verdict.statement


def test_a_group_too_large_to_match_is_left_out_with_the_reason(kept, monkeypatch):
    monkeypatch.setattr("zoo.lineage.aligned.MOST_MATCHED", 30)
    monkeypatch.setattr("zoo.lineage.evidence.MOST_MATCHED", 30)
    found = judged(kept("large0", trained(0)), kept("large1", trained(100)))
    assert found.evidence.aligned is None or "0" not in found.evidence.aligned.groups
    assert "more than 30 units" in found.evidence.reasons["aligned"]
    assert found.verdict.name == "undetermined"
    assert "more than 30 units" in found.verdict.statement


def test_one_repeated_number_is_no_grid():
    a = np.random.default_rng(0).uniform(0.6, 1.4, (40, 30)).astype(np.float32)
    assert relate("w", a, np.ones_like(a)).kind == "changed"
    assert relate("w", a, np.full_like(a, 1) * (np.arange(30) % 2)).kind == "changed"
    assert relate("w", a - 1, np.round((a - 1) / 0.4) * np.float32(0.4)).kind == "quantised"


@pytest.mark.parametrize("spread", [1e-4, 1e-3, 3e-3])
def test_numbers_that_are_all_near_one_are_on_no_grid(spread):
    """Scales of norms that were hardly trained: each is within a step of any other's, whatever the grid."""
    random = np.random.default_rng(0)
    for _ in range(200):
        a, b = (1 + spread * random.normal(size=16).astype(np.float32) for _ in range(2))
        assert relate("norm.weight", a, b).kind == "changed"


def test_one_table_in_common_makes_no_copy(parent, kept):
    table = {"positions": torch.sin(torch.arange(200.0)).reshape(50, 4)}
    one, two = ({f"{name}{place}.w": torch.randn(20, 30) for place in range(3)} for name in ("left", "right"))
    found = judged(kept("left", {**one, **table}), kept("right", {**two, **table}))
    assert found.evidence.pair.names == {"positions": "positions"}
    assert found.verdict.name == "undetermined"


def test_a_trunk_without_its_head_is_derived(parent, kept):
    trunk = {name: value for name, value in parent.items() if not name.startswith("4")}
    verdict = judged(kept("parent", parent), kept("trunk", trunk)).verdict
    assert verdict.name == "derived"
    assert "2 more are in parent.safetensors only" in verdict.statement


def test_a_widened_layer_is_compared_in_the_part_that_both_have(parent, kept):
    torch.manual_seed(50)
    wide = nn.Linear(64, 50)
    with torch.no_grad():
        wide.weight[:32] = parent["0.weight"] + 0.05 * torch.randn(32, 64)
    state = {"0.weight": wide.weight.detach(), "0.bias": wide.bias.detach(), "2.weight": torch.randn(24, 50)}
    state |= {name: torch.randn_like(parent[name]) for name in ("2.bias", "4.weight", "4.bias")}
    assert judged(kept("parent", parent), kept("wide", state)).verdict.name == "derived"


def test_other_names_without_a_counterpart_are_undetermined(parent, kept):
    strange = {f"x{place}": value + 1 for place, value in enumerate(parent.values())}
    assert judged(kept("parent", parent), kept("strange", strange)).verdict.name == "undetermined"


@pytest.mark.parametrize(
    ("change", "kind", "later"),
    [
        (lambda x: x, "identical", None),
        (lambda x: np.where(np.abs(x) > 0.7, x, 0), "pruned", "b"),
        (lambda x: np.round(x * 16) / 16 * 1.0, "quantised", "b"),
        (lambda x: x + 1e-4, "changed", None),
        (lambda x: x * np.inf, "not finite", None),
    ],
)
def test_what_became_of_a_tensor(change, kind, later):
    a = np.clip(np.random.default_rng(0).normal(size=(40, 30)), -2, 2).astype(np.float32)
    a[0, 0] = 127 / 16
    with np.errstate(invalid="ignore"):
        b = change(a).astype(np.float32)
    found = relate("w", a, b)
    assert (found.kind, found.later) == (kind, later)
    back = relate("w", b, a)
    assert (back.kind, back.later) == (kind, {"b": "a", None: None}[later])


def test_numbers_too_small_for_half_precision_are_rounded_not_quantised():
    a = (np.random.default_rng(0).normal(size=384) * 1e-8).astype(np.float32)
    b = a.astype(np.float16).astype(np.float32)
    for types, values in ((("F32", "F16"), (a, b)), (("F16", "F32"), (b, a))):
        assert relate("key.bias", *values, types).kind == "rounded"
    assert relate("key.bias", a, a[::-1].copy()).kind == "changed"


def test_int8_numbers_without_their_step_are_quantised():
    a = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    b = np.round(a / (np.abs(a).max() / 100)).astype(np.float32)
    assert (relate("w", a, b, ("F32", "I8")).kind, relate("w", a, b, ("F32", "I8")).later) == ("quantised", "b")
    assert relate("w", a, b[::-1].copy(), ("F32", "I8")).kind == "changed"


def test_everything_found_is_written(parent, kept, tmp_path: Path, capsys):
    from zoo.lineage.command import command

    one, two = kept("parent", parent), kept("prune", pruned(parent, 0.5))
    out = tmp_path / "new" / "lineage.json"
    assert command([str(one.path), str(two.path), f"out={out}"]) == 0
    assert "derived" in capsys.readouterr().out
    found = json.loads(out.read_text(encoding="utf-8"))
    (pair,) = found["pairs"]
    assert pair["verdict"] == "derived"
    assert [test["test"] for test in pair["evidence"]] == ["R1", "R2", "R3"]
    for test in pair["evidence"]:
        assert test["p"] is not None or test["reason"]
        assert test["kind"] in ("exact", "conformal", "heuristic")
    assert found["tree"] == [{"child": 1, "parent": 0, "direction": "information lost"}]
