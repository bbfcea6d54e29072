"""Logits in the order of the examples, and features averaged over what is real."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.engine import evaluation
from zoo.engine.batches import Batches

CPU = torch.device("cpu")
VOCABULARY, WIDTH, CLASSES = 50, 6, 3


class Bag(nn.Module):
    """Embeds, then averages over real tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.unused = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        hidden = self.norm(self.table(input_ids))
        kept = attention_mask[:, :, None].float()
        answers: torch.Tensor = self.head(self.drop((hidden * kept).sum(1) / kept.sum(1)))
        return answers


class Model(zoo.TorchModel):
    """Only its `layers` are asked for."""

    name, modalities = "bag", frozenset({"text"})

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        raise NotImplementedError

    def build(self, inputs: zoo.InputSpec, classes: int) -> nn.Module:
        return Bag()


def texts(count: int = 150, resident_mib: int = 64) -> tuple[zoo.Tokens, Batches]:
    rng = np.random.default_rng(0)
    packed = zoo.Tokens.pack([rng.integers(1, VOCABULARY, rng.integers(1, 30)).tolist() for _ in range(count)])
    spec = zoo.InputSpec("tokens", (32,), vocab_size=VOCABULARY)
    return packed, Batches(packed, np.arange(count) % CLASSES, spec, CPU, resident_mib)


def one_by_one(module: Bag, packed: zoo.Tokens) -> tuple[np.ndarray, np.ndarray]:
    """Logits and the mean of `norm`, each example alone and without padding."""
    module.eval()
    logits, means = [], []
    with torch.no_grad():
        for start, stop in zip(packed.offsets, packed.offsets[1:], strict=False):
            ids = torch.from_numpy(packed.ids[start:stop]).long()[None]
            logits.append(module(ids, torch.ones_like(ids, dtype=torch.bool))[0].numpy())
            means.append(module.norm(module.table(ids)).mean(1)[0].numpy())
    return np.stack(logits), np.stack(means)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("resident_mib", [64, 0])
def test_logits_are_those_of_each_example_alone_in_order(training: bool, batch_size: int, resident_mib: int) -> None:
    module = Bag().train(training)
    packed, batches = texts(resident_mib=resident_mib)
    found = evaluation.logits(module, batches, batch_size, CLASSES)
    assert module.training == training, "the module is left as it was"
    assert (found.dtype, found.shape) == (np.float32, (150, CLASSES))
    np.testing.assert_allclose(found, one_by_one(module, packed)[0], rtol=1e-4, atol=1e-5)


def test_logits_in_half_precision_come_out_as_float32() -> None:
    class Half(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.bfloat16()

    batches = Batches(zoo.Dense(np.eye(3, dtype=np.float32)), np.arange(3), zoo.InputSpec("dense", (3,)), CPU)
    found = evaluation.logits(Half(), batches, 2, 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.eye(3))


def test_wrong_logits_leave_the_module_as_it_was_and_no_thread_behind() -> None:
    module = Bag().train()
    with pytest.raises(zoo.PluginError, match=r"of shape \(4, 3\) for a batch of 4; it must .* of shape \(4, 5\)"):
        evaluation.logits(module, texts(resident_mib=0)[1], 2, classes=5)
    assert module.training
    assert "zoo-batches" not in {thread.name for thread in threading.enumerate()}


def features(rows: np.ndarray, batch_size: int = 32) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
    """What is kept of the probe rows, and the mean of `norm` over each example alone."""
    module = Bag()
    packed, batches = texts()
    watched = evaluation.Watched(Model().layers(module), rows)
    evaluation.logits(module, batches, batch_size, CLASSES, watched=watched)
    return watched.features(), one_by_one(module, packed)[1]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_features_are_averaged_over_real_tokens(batch_size: int) -> None:
    rows = np.array([3, 7, 100, 5, 149])
    kept, means = features(rows, batch_size)
    np.testing.assert_allclose(kept["norm"], means[rows], rtol=1e-4, atol=1e-5)
    assert {array.dtype for array in kept.values()} == {np.dtype(np.float32)}


def test_features_come_in_the_order_of_computation_without_layers_that_are_never_called() -> None:
    kept, _ = features(np.arange(9))
    assert list(kept) == ["table", "norm", "drop", "head"]
    assert kept["head"].shape == (9, CLASSES)


def test_no_hook_is_left_behind() -> None:
    module = Bag()
    evaluation.logits(module, texts()[1], 8, CLASSES, watched=evaluation.Watched(Model().layers(module), np.arange(4)))
    assert not any(layer._forward_hooks for layer in module.modules())


def test_pooling_is_over_positions_and_over_real_tokens() -> None:
    rng = torch.Generator().manual_seed(0)
    flat, tokens, image = (torch.randn(shape, generator=rng) for shape in ((2, 5), (2, 4, 5), (2, 5, 3, 3)))
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    assert torch.equal(evaluation.pool(flat, None), flat)
    torch.testing.assert_close(evaluation.pool(tokens, None), tokens.mean(1))
    want = torch.stack([tokens[0, :2].mean(0), tokens[1].mean(0)])
    torch.testing.assert_close(evaluation.pool(tokens, mask), want)
    torch.testing.assert_close(evaluation.pool(image, None), image.mean((2, 3)))
