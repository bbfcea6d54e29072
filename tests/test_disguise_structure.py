"""Which units may be exchanged: found in every backend, wrong ones refused, and the logits stay where they were."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

import zoo
from zoo.config import Device, Trainer
from zoo.disguise import learning, surface, symmetries
from zoo.disguise.parent import Subject
from zoo.disguise.structure import Group, Tie, Trial, find, permuted, scaled
from zoo.engine import fitting
from zoo.errors import Incompatible
from zoo.testing.synthetic import CASES, probe_split, train_split

TEXT, IMAGE = CASES[0], CASES[1]


def splits_of(case: Any) -> zoo.Splits:
    train, test = train_split(case), probe_split(case)
    return zoo.Splits(train, replace(test, name="validation"), test, "fingerprint")


def unsettle(module: nn.Module) -> None:
    """Norms as training would leave them: fresh ones are the same for every unit, and would hide a wrong tie."""
    torch.manual_seed(5)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
                part.weight.uniform_(0.5, 2)
                part.bias.normal_()
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)


def subject_of(model: zoo.TorchModel, case: Any) -> Subject:
    trainer = Trainer(device=Device.cpu, threads=1, batch_size=16, epochs=1)
    ready = fitting.prepare(model, trainer, splits_of(case), seed=0)
    unsettle(ready.module)
    return Subject(ready, trainer, splits_of(case), observers=None, registry=None)  # type: ignore[arg-type]


def bert(folder: Path) -> zoo.TorchModel:
    """A checkpoint of two layers with random weights."""
    transformers = pytest.importorskip("transformers")
    zoo_bert = pytest.importorskip("zoo_bert")
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "and", "room", "splendid", "cold"]
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.AutoConfig.for_model("bert", vocab_size=len(words), max_position_embeddings=20, **shape)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizerFast"}))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    model: zoo.TorchModel = zoo_bert.BERT(checkpoint=str(folder), max_length=16)
    return model


def build(name: str, folder: Path) -> Subject:
    kind, _, modality = name.partition("/")
    case = TEXT if modality == "text" else IMAGE
    if kind == "bert":
        return subject_of(bert(folder), case)
    plugin = pytest.importorskip(f"zoo_{kind}")
    options: dict[str, dict[str, Any]] = {
        "mlp": {"hidden": [12, 10], "embedding": 14, "min_count": 1},
        "cnn": {"stages": [6, 8], "filters": 7, "embedding": 14, "min_count": 1},
        "transformer": {"width": 24, "vocabulary": 200, "max_length": 40},
    }
    (cls,) = plugin.zoo_models()
    return subject_of(cls(**options[kind]), case)


# The units of each backend, as its module's docstrings describe them: (kind, size).
UNITS: dict[str, list[tuple[str, int]]] = {
    "mlp/image": [("units", 12), ("units", 10)],
    "mlp/text": [("units", 14), ("units", 12), ("units", 10)],
    "cnn/image": [("units", 6)] * 3 + [("units", 8)] * 3,
    "cnn/text": [("units", 14), ("units", 7), ("units", 7), ("units", 7)],
    "transformer/image": [("heads", 4), ("heads", 4), ("units", 96), ("units", 96), ("stream", 24)],
    "transformer/text": [("heads", 4), ("heads", 4), ("units", 96), ("units", 96), ("stream", 24)],
    "bert/text": [("heads", 2), ("heads", 2), ("units", 24), ("units", 24), ("stream", 16)],
}


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """Each subject built once, with a cache of its own."""
    made: dict[str, Subject] = {}
    patch = pytest.MonkeyPatch()
    patch.setenv("ZOO_CACHE", "off")

    def get(name: str) -> Subject:
        if name not in made:
            made[name] = build(name, tmp_path_factory.mktemp("checkpoint"))
        return made[name]

    yield get
    patch.undo()


def answers(subject: Subject) -> np.ndarray:
    with torch.inference_mode():
        logits: torch.Tensor = subject.module.eval()(*subject.inputs())
    return logits.numpy()


@pytest.mark.parametrize("name", UNITS)
def test_every_group_of_every_backend_is_found(name: str, subjects: Callable[[str], Subject]) -> None:
    subject = subjects(name)
    groups = find(subject.module, subject.inputs())
    assert sorted((group.kind, group.size) for group in groups) == sorted(UNITS[name])


@pytest.mark.parametrize("name", UNITS)
def test_permute_moves_the_weights_and_leaves_the_logits(name: str, subjects: Callable[[str], Subject]) -> None:
    subject = subjects(name)
    before = {key: value.clone() for key, value in subject.module.state_dict().items()}
    changed, facts = symmetries.permute(subject, "all", torch.Generator().manual_seed(3))
    np.testing.assert_allclose(answers(changed), answers(subject), rtol=1e-4, atol=1e-5)
    assert facts["largest_change_of_a_logit"] < 1e-4
    moved = [key for key, value in changed.module.state_dict().items() if not torch.equal(value, before[key])]
    assert len(moved) > len(before) / 2
    assert all(torch.equal(value, before[key]) for key, value in subject.module.state_dict().items()), "a pure function"


def test_only_all_moves_a_residual_stream(subjects: Callable[[str], Subject]) -> None:
    subject = subjects("transformer/text")
    changed, facts = symmetries.permute(subject, None, torch.Generator().manual_seed(3))
    assert {group["kind"] for group in facts["groups"]} == {"units", "heads"}
    before, after = subject.module.state_dict(), changed.module.state_dict()
    assert torch.equal(before["pieces.weight"], after["pieces.weight"])
    assert not torch.equal(before["stack.blocks.0.feed.0.weight"], after["stack.blocks.0.feed.0.weight"])


@pytest.mark.parametrize(
    ("name", "rescaled"),
    [
        ("mlp/image", {"units"}),
        ("mlp/text", {"units"}),
        ("cnn/image", {"units"}),
        ("cnn/text", {"units"}),
        ("transformer/image", {"heads"}),
        ("bert/text", {"heads"}),
    ],
)
def test_rescale_is_exact_behind_relu_and_in_attention_only(
    name: str, rescaled: set[str], subjects: Callable[[str], Subject]
) -> None:
    subject = subjects(name)
    changed, facts = symmetries.rescale(subject, 4.0, torch.Generator().manual_seed(3))
    np.testing.assert_allclose(answers(changed), answers(subject), rtol=1e-3, atol=1e-4)
    assert {group["kind"] for group in facts["groups"]} == rescaled
    assert len(facts["groups"]) + len(facts["left"]) == len(UNITS[name])
    before, after = subject.module.state_dict(), changed.module.state_dict()
    assert any(not torch.allclose(before[key], after[key], rtol=0.05) for key in before)


@pytest.mark.parametrize("name", ["transformer/text", "transformer/image"])
def test_a_residual_stream_is_rotated_with_equal_logits(name: str, subjects: Callable[[str], Subject]) -> None:
    subject = subjects(name)
    changed, _ = symmetries.rotate_residual(subject, None, torch.Generator().manual_seed(3))
    np.testing.assert_allclose(answers(changed), answers(subject), rtol=1e-3, atol=1e-4)
    one, two = (part.module.state_dict()["positions"] for part in (subject, changed))
    cosine = torch.cosine_similarity(one, two).abs().mean()
    assert cosine < 0.6, "the coordinates are others"


def test_a_stream_that_norms_write_into_is_not_rotated(subjects: Callable[[str], Subject]) -> None:
    with pytest.raises(Incompatible, match="post-norm"):
        symmetries.rotate_residual(subjects("bert/text"), None, torch.Generator())
    with pytest.raises(Incompatible, match="no residual stream"):
        symmetries.rotate_residual(subjects("mlp/image"), None, torch.Generator())


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.double().reshape(-1) for value in tensors.values()])


@pytest.mark.parametrize("name", UNITS)
def test_every_step_changes_every_backend_and_only_the_copy(name: str, subjects: Callable[[str], Subject]) -> None:
    subject = subjects(name)
    before = {key: value.clone() for key, value in subject.module.state_dict().items()}
    rng = torch.Generator().manual_seed(3)
    head = [key for key, part in subject.module.named_modules() if isinstance(part, nn.Linear)][-1]
    for step in (
        surface.prune(subject, 0.3, rng),
        surface.quantise(subject, 4, rng),
        surface.noise(subject, 0.1, rng),
        surface.reinit_layer(subject, head, rng),
        learning.new_head(subject, None, rng),
    ):
        after = step[0].module.state_dict()
        assert after.keys() == before.keys()
        assert torch.isfinite(flat(after)).all()
        assert not torch.equal(flat({key: after[key] for key in before}), flat(before))
        assert np.isfinite(answers(step[0])).all()
        assert all(torch.equal(value, before[key]) for key, value in subject.module.state_dict().items())


@pytest.mark.parametrize("name", ["cnn/image", "cnn/text", "transformer/text"])
def test_pruning_agrees_with_that_of_torch(name: str, subjects: Callable[[str], Subject]) -> None:
    """torch.nn.utils.prune, on contiguous copies: it refuses convolutions in the channels-last format."""
    subject = subjects(name)
    layers = [part for _, part in surface.linear_layers(copy.deepcopy(subject.module))]
    for layer in layers:
        layer.weight = nn.Parameter(layer.weight.detach().clone(memory_format=torch.contiguous_format))
    named = [(layer, "weight") for layer in layers]
    prune.global_unstructured(named, pruning_method=prune.L1Unstructured, amount=0.4)
    changed, _ = surface.prune(subject, 0.4, torch.Generator())
    ours = [part.weight for _, part in surface.linear_layers(changed.module)]
    assert all(torch.equal(weight, layer.weight) for weight, layer in zip(ours, layers, strict=True))


def test_a_tie_too_few_is_noticed(subjects: Callable[[str], Subject]) -> None:
    for name in ("cnn/image", "transformer/text", "bert/text"):
        subject = subjects(name)
        trial = Trial(subject.module, subject.inputs())
        for group in find(subject.module, subject.inputs()):
            telling = [tie for tie in group.ties if trial.tensors[tie.tensor].abs().sum() > 0]
            short = replace(group, ties=tuple(tie for tie in group.ties if tie != telling[0]))
            assert trial.holds(group)
            assert not trial.holds(short), (name, group.name, telling[0])


class Flattened(nn.Module):
    """A convolution read by a linear layer over all its positions, with a tanh that no scale passes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(1, 5, 3)
        self.last = nn.Linear(5 * 36, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.convolve(inputs).tanh().flatten(1))
        return out


def test_a_model_nobody_foresaw() -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(6, 1, 8, 8),)
    (group,) = find(Flattened(), inputs)
    assert (group.kind, group.size) == ("units", 5)
    assert Tie("last.weight", 1, "in", 0, 36) in group.ties


class Mixed(nn.Module):
    """Each unit is weighted by its number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.first(inputs).relu() * torch.arange(6, dtype=inputs.dtype))
        return out


def test_units_that_the_code_tells_apart_are_no_group() -> None:
    torch.manual_seed(0)
    assert find(Mixed(), (torch.randn(6, 4),)) == ()


sizes = st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(0, 3))


@given(sizes, st.integers(0, 10_000))
def test_a_permutation_and_its_inverse_restore_every_tensor(shape: tuple[int, int, int], seed: int) -> None:
    count, block, offset = shape
    rng = torch.Generator().manual_seed(seed)
    tensors = {"w": torch.randn(3, offset + count * block + 1, generator=rng), "b": torch.randn(count, generator=rng)}
    group = Group("g", "units", count, (Tie("w", 1, "in", offset, block), Tie("b", 0, "out")))
    order = torch.randperm(count, generator=rng)
    there = permuted(tensors, group, order)
    back = permuted(there, group, torch.argsort(order))
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert torch.equal(there["w"][:, :offset], tensors["w"][:, :offset]), "what no unit holds stays"
    assert torch.equal(there["b"], tensors["b"][order])


@given(sizes, st.integers(0, 10_000))
def test_factors_and_their_inverses_restore_every_tensor(shape: tuple[int, int, int], seed: int) -> None:
    count, block, offset = shape
    rng = torch.Generator().manual_seed(seed)
    wide = torch.randn(3, offset + count * block, generator=rng, dtype=torch.float64)
    tensors = {"w": wide, "b": torch.randn(count, generator=rng, dtype=torch.float64)}
    group = Group("g", "units", count, (Tie("w", 1, "in", offset, block), Tie("b", 0, "out")))
    factors = torch.rand(count, generator=rng, dtype=torch.float64) + 0.5
    back = scaled(scaled(tensors, group, factors), group, 1 / factors)
    assert all(torch.allclose(back[name], tensors[name], rtol=1e-12) for name in tensors)
    product = scaled(tensors, group, factors)["b"][0] * scaled(tensors, group, factors)["w"][:, offset]
    assert torch.allclose(product, tensors["b"][0] * tensors["w"][:, offset]), "made larger, read smaller"


@given(st.integers(2, 12), st.integers(0, 10_000))
def test_a_rotation_is_orthogonal_and_keeps_the_vector_of_ones(size: int, seed: int) -> None:
    turn = symmetries.rotation(size, torch.Generator().manual_seed(seed)).numpy()
    np.testing.assert_allclose(turn @ turn.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(turn @ np.ones(size), np.ones(size), atol=1e-12)


@pytest.mark.parametrize("name", UNITS)
def test_what_a_plugin_declares_for_lineage_may_be_exchanged(name: str, subjects: Callable[[str], Subject]) -> None:
    """The detector's picture of a model against the one that was found by trial: they must not be told apart."""
    pytest.importorskip("zoo.units")
    subject = subjects(name)
    trial = Trial(subject.module, subject.inputs())
    shapes = {key: tuple(value.shape) for key, value in subject.module.state_dict().items()}
    model: Any = subject.ready.model
    declared = [
        Group(
            units.name,
            "units",
            units.count,
            tuple(Tie(at.tensor, at.axis, "carried", at.start, at.block) for at in (*units.written, *units.read)),
        )
        for units in model.units(shapes)
    ]
    assert sorted(group.size for group in declared) == sorted(size for _, size in UNITS[name])
    assert [group.name for group in declared if not trial.holds(group)] == []
