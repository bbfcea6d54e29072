"""Groups are what they say: units renumbered by them leave every answer as it is, in every backend and in BERT."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from zoo_cnn import CNN
from zoo_mlp import MLP
from zoo_transformer import Transformer

import zoo
from zoo.lineage import aligned, rows
from zoo.lineage.exact import match
from zoo.lineage.groups import chain_units, layout, problem_of
from zoo.lineage.rotated import row_norms
from zoo.lineage.weights import Stored, Weights
from zoo.units import Slots, Units, transformer_units

TOKENS = zoo.InputSpec("tokens", (12,), vocab_size=30)
IMAGES = zoo.InputSpec("dense", (3, 8, 8))

CASES = {
    "mlp, words": (MLP(hidden=[9, 7], embedding=6), TOKENS),
    "mlp, pixels": (MLP(hidden=[9, 7]), IMAGES),
    "mlp, linear": (MLP(hidden=[], embedding=6), TOKENS),
    "cnn, words": (CNN(kernels=[2, 3], filters=5, embedding=6), TOKENS),
    "cnn, pixels": (CNN(stages=[4, 6], blocks=2), IMAGES),
    "transformer, words": (Transformer(width=8, heads=4, depth=2, expansion=2), TOKENS),
    "transformer, pixels": (Transformer(width=8, heads=2, depth=2, expansion=2), IMAGES),
}


def inputs(spec: zoo.InputSpec) -> tuple[torch.Tensor, ...]:
    if spec.kind == "dense":
        return (torch.randn(5, *spec.shape),)
    mask = torch.arange(12)[None] < torch.tensor([12, 7, 1, 4])[:, None]
    return torch.randint(1, 30, (4, 12)), mask


def built(name: str) -> tuple[nn.Module, Sequence[Units], tuple[torch.Tensor, ...]]:
    """A module in evaluation, with every norm and bias away from where it began, its groups, and inputs."""
    model, spec = CASES[name]
    torch.manual_seed(0)
    module = model.build(spec, 3).eval()
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point() and value.ndim == 1:
                value.add_(torch.rand_like(value))
    return module, model.units(shapes(module)), inputs(spec)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def renumbered(module: nn.Module, groups: Sequence[Units], seed: int = 0) -> nn.Module:
    """A copy with the units of every group in a random order."""
    random = np.random.default_rng(seed)
    placed = {group.name: rows.Placed(random.permutation(group.count)) for group in groups}
    made = copy.deepcopy(module)
    made.load_state_dict(
        {
            name: torch.from_numpy(aligned.in_one_order(value.numpy(), name, groups, placed)) if value.ndim else value
            for name, value in module.state_dict().items()
        }
    )
    return made


def resized(module: nn.Module, groups: Sequence[Units], seed: int = 0) -> nn.Module:
    """A copy with every homogeneous unit larger or smaller, and what reads it by as much the other way."""
    random = np.random.default_rng(seed)
    state = {name: value.numpy().copy() for name, value in module.state_dict().items()}
    for group in groups:
        factor = np.exp(random.normal(size=group.count)).astype(np.float32)
        # What stands before a batch norm, and its statistics, stay: the norm's scale and bias make a unit larger.
        normed = group.scaled_by is not None
        written = [at for at in group.written if not (normed and (state[at.tensor].ndim > 1 or "running" in at.tensor))]
        if group.homogeneous:
            for slots, factors in [*((at, factor) for at in written), *((at, 1 / factor) for at in group.read)]:
                placed = rows.Placed(np.arange(group.count), factors)
                state[slots.tensor] = rows.reorder(state[slots.tensor], slots, group.count, placed)
    made = copy.deepcopy(module)
    made.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return made


def answers(module: nn.Module, batch: tuple[torch.Tensor, ...]) -> np.ndarray:
    with torch.no_grad():
        return module(*batch).numpy()


def loader(module: nn.Module):
    state = module.state_dict()
    return lambda name: state[name].float().numpy()


@pytest.mark.parametrize("name", CASES)
def test_renumbered_units_compute_the_same(name):
    module, groups, batch = built(name)
    assert groups
    assert problem_of(groups, shapes(module)) == ""
    other = renumbered(module, groups)
    both = zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    assert any(not torch.equal(one, two) for one, two in both)
    np.testing.assert_allclose(answers(other, batch), answers(module, batch), atol=2e-5)


@pytest.mark.parametrize("name", [name for name in CASES if "transformer" not in name])
def test_resized_units_compute_the_same(name):
    module, groups, batch = built(name)
    assert all(group.homogeneous for group in groups)
    np.testing.assert_allclose(answers(resized(module, groups), batch), answers(module, batch), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_a_group_comes_after_those_it_reads(name):
    module, groups, _ = built(name)
    known: dict[str, rows.Placed] = {}
    for group in groups:
        assert rows.of_group(loader(module), group, groups, known, shapes(module)) is not None
        known[group.name] = rows.Placed(np.arange(group.count))


@pytest.mark.parametrize("name", CASES)
def test_alignment_undoes_numbering_and_size(name):
    module, groups, _ = built(name)
    other = renumbered(resized(module, groups), groups, seed=4)
    found = aligned.align(loader(module), loader(other), groups, shapes(module), chance=False)
    assert set(found.groups) == {group.name for group in groups}
    assert found.score == pytest.approx(1, abs=1e-5)
    back = aligned.align(loader(other), loader(module), groups, shapes(module), chance=False)
    assert back.score == pytest.approx(found.score, abs=1e-5)


def test_chance_is_the_matching_of_shuffled_columns():
    random = np.random.default_rng(2)
    a, b = (random.normal(size=(12, 30)).astype(np.float32) for _ in range(2))
    shuffled, part = aligned._chance(a, b, seed=5)
    again = np.random.default_rng(5)
    plain = [match(a, b[:, again.permutation(30)])[1].mean() for _ in range(aligned.CHANCE_DRAWS)]
    np.testing.assert_allclose(shuffled, plain, atol=1e-5)
    assert part == pytest.approx(match(a, b)[1].mean(), abs=1e-5)


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_the_score_of_two_models_does_not_depend_on_numbering(seed):
    module, groups, _ = built("mlp, pixels")
    torch.manual_seed(seed)
    stranger = MLP(hidden=[9, 7]).build(IMAGES, 3)
    score = aligned.align(loader(module), loader(stranger), groups, shapes(module), chance=False).score
    moved = renumbered(stranger, groups, seed)
    assert aligned.align(loader(module), loader(moved), groups, shapes(module), chance=False).score == pytest.approx(
        score, abs=1e-5
    )


def test_bert_is_known_by_its_names():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=12
    )
    torch.manual_seed(0)
    module = transformers.BertModel(config, add_pooling_layer=False).eval()
    groups = transformer_units(shapes(module), 4)
    assert [group.name for group in groups if group.count == 4] == [
        f"encoder.layer.{index}.attention.self.heads" for index in range(2)
    ]
    assert problem_of(groups, shapes(module)) == ""
    ids = torch.randint(0, 30, (3, 7))
    with torch.no_grad():
        before, after = (one(ids).last_hidden_state.sort(-1).values for one in (module, renumbered(module, groups)))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    assert transformer_units(shapes(module)) == tuple(group for group in groups if group.count != 4)
    assert transformer_units({"a.weight": (3, 4)}) == ()


def test_a_chain_is_found_by_widths_whatever_the_names():
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4)
    ).eval()
    known = shapes(module)
    groups = chain_units(known)
    assert not isinstance(groups, str)
    assert [(group.count, group.read[0].block) for group in groups] == [(6, 1), (5, 16)]
    batch = (torch.randn(2, 3, 8, 8),)
    np.testing.assert_allclose(answers(renumbered(module, groups), batch), answers(module, batch), atol=1e-5)
    odd = dict(zip(("z.weight", "b", "y.weight", "c", "a.weight", "d"), known.values(), strict=True))
    renamed = chain_units(odd)
    assert not isinstance(renamed, str)
    assert [group.name for group in renamed] == ["z", "y"]


def test_a_table_is_read_by_its_columns():
    groups = chain_units({"words.weight": (100, 8), "hidden.weight": (6, 8), "hidden.bias": (6,), "out.weight": (2, 6)})
    assert not isinstance(groups, str)
    assert [(group.written[0].tensor, group.written[0].axis) for group in groups] == [
        ("words.weight", 1),
        ("hidden.weight", 0),
    ]


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"a.weight": (5,)}, "no tensor of two dimensions"),
        ({"a.weight": (5, 4)}, "no chain"),
        ({"a.weight": (5, 4), "b.weight": (7, 3)}, "no single chain"),
        ({"b.weight": (2, 7), "a.weight": (4, 4), "c.weight": (4, 4), "d.weight": (7, 4)}, "more than one order"),
        ({f"{n}.weight": (4, 4) for n in range(40)}, "too many"),
        ({"decode.weight": (64, 12), "encode.weight": (12, 64)}, "more than one order"),
    ],
)
def test_what_is_no_chain_is_said_to_be_none(known, reason):
    told = chain_units(known)
    assert isinstance(told, str)
    assert reason in told


def stored_as(known: dict[str, tuple[int, ...]], heads: object = None, record: object = None) -> Weights:
    tensors = {name: Stored(Path("none"), shape, "F32") for name, shape in known.items()}
    return Weights("w", Path("none"), tensors, {}, record, {"num_attention_heads": heads})


ATTENTION = {f"l.self_attn.{name}_proj.weight": (8, 8) for name in ("q", "k", "v", "out")}
FEED = {"l.fc1.weight": (16, 8), "l.fc2.weight": (8, 16)}


@pytest.mark.parametrize("heads", [-2, 0, True, "2", None])
def test_heads_that_are_none_are_not_compared(heads):
    found = layout(stored_as({**ATTENTION, **FEED}, heads))
    assert [group.name for group in found.groups] == ["residual", "l.fc1"]
    assert "heads is unknown" in found.reasons[0]


def test_names_that_tell_groups_which_do_not_fit_are_refused():
    """Two layers of different widths: no one residual stream."""
    other = {"m.fc1.weight": (16, 6), "m.fc2.weight": (6, 16)}
    found = layout(stored_as({**FEED, **other}))
    assert found.origin == "none"
    assert "do not fit" in found.reasons[0]


def test_a_plugin_that_fails_to_tell_its_units_is_a_reason(monkeypatch):
    def fails(self: object, known: object) -> None:
        raise KeyError("0.weight")

    monkeypatch.setattr(MLP, "units", fails)
    record = {"config": {"model": {"name": "mlp", "hidden": [9]}}}
    found = layout(stored_as({"x.weight": (3, 4)}, record=record))
    assert found.origin == "none"
    assert "cannot tell its units: KeyError" in found.reasons[0]


@pytest.mark.parametrize("rotate", [True, False])
def test_row_lengths_tell_a_rotated_residual_stream(rotate):
    random = np.random.default_rng(0)
    a = random.normal(size=(200, 8)).astype(np.float32)
    turn = np.linalg.qr(random.normal(size=(8, 8)))[0].astype(np.float32)
    b = a @ turn if rotate else random.normal(size=(200, 8)).astype(np.float32)
    groups = [Units("residual", 8, (Slots("embed", axis=1),))]
    found = row_norms(lambda _: a, lambda _: b, groups, {"embed"})
    assert found is not None
    assert (found.rows, found.unrelated) == (200, not rotate)
    assert row_norms(lambda _: a[:20], lambda _: b[:20], groups, {"embed"}) is None


@pytest.mark.parametrize(
    ("slots", "reason"),
    [
        ((Slots("b"),), "not stored"),
        ((Slots("a", axis=2),), "axis 2"),
        ((Slots("a", start=3),), "wants 6 places"),
        ((Slots("a"), Slots("a", start=1)), "two groups"),
    ],
)
def test_groups_that_do_not_fit_are_told(slots, reason):
    assert reason in problem_of([Units("u", 3, slots)], {"a": (4, 4)})
