"""What a step's arithmetic is counted as: by hand for known modules, and without a trace in the module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.engine import flops
from zoo.engine.batches import Batches

CPU = torch.device("cpu")


def images(count: int = 6, size: int = 9) -> Batches:
    values = np.random.default_rng(0).normal(size=(count, 3, size, size)).astype(np.float32)
    return Batches(zoo.Dense(values), np.zeros(count, np.int64), zoo.InputSpec("dense", values.shape[1:]), CPU)


def texts(*lengths: int) -> Batches:
    spec = zoo.InputSpec("tokens", (64,), vocab_size=50, pad_id=0)
    return Batches(zoo.Tokens.pack([[1] * length for length in lengths]), np.zeros(len(lengths), np.int64), spec, CPU)


class Flat(nn.Sequential):
    """Modules get their batch as separate arguments: the values, and for texts the mask."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = super().forward(inputs[0])
        return answers


class Reader(nn.Module):
    """A table and one matrix that is used at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.matrix = nn.Embedding(50, 8), nn.Linear(8, 5)

    def forward(self, ids: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.matrix(self.table(ids)).mean(1)
        return answers


@pytest.mark.parametrize("length", [5, 12])
def test_multiply_adds_of_known_modules(length: int) -> None:
    inputs = [(torch.zeros(1, length, 8),)]
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    # query, key, value and output; two products with the length squared; two layers of the feed-forward part
    expected = 4 * length * 64 + 2 * length**2 * 8 + 2 * length * 8 * 16
    assert flops.multiply_adds(attention, inputs) == [expected]
    assert torch.backends.mha.get_fastpath_enabled()
    convolution = nn.Conv1d(length, 6, 3)
    assert flops.multiply_adds(convolution, inputs) == [6 * 3 * length * 6]
    assert flops.multiply_adds(nn.Embedding(9, 4), [(torch.zeros(1, 3, dtype=torch.long),)]) == [0]


@pytest.mark.parametrize("batch_size", [1, 64])
def test_a_matrix_meets_each_example_once_and_a_convolution_each_place(batch_size: int) -> None:
    flat = Flat(nn.Flatten(), nn.Linear(243, 10), nn.ReLU(), nn.Linear(10, 2))
    assert flops.of_a_product(flat, images(), batch_size) == batch_size * (243 * 10 + 10 * 2) / 2
    places = Flat(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 49, 2))
    assert flops.of_a_product(places, images(), batch_size) == batch_size * (49 * 8 * 27 + 8 * 49 * 2) / 2


def test_texts_are_counted_at_their_middle_length_and_tables_not_at_all() -> None:
    found = flops.of_a_product(Reader(), texts(2, 60, 16, 16, 2, 60), 4)
    assert found == 4 * 16 * 8 * 5
    assert [parameter.numel() for parameter in flops.outside_tables(Reader())] == [40, 5]


def test_recurrent_layers_are_counted_though_one_operation_computes_them() -> None:
    found = flops.multiply_adds(nn.LSTM(3, 4, batch_first=True).eval(), [(torch.ones(2, 5, 3),)])
    assert found == [2 * 5 * 4 * 4 * (3 + 4)]
    assert torch.backends.mkldnn.enabled == torch.backends.mkldnn.is_available()


def test_counting_leaves_no_trace() -> None:
    module = Flat(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(196, 2))
    module[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert flops.of_a_product(module, images(), 8) > 0
    assert torch.equal(torch.rand(2), expected)
    assert [part.training for part in module] == [True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


class Random(nn.Linear):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs[0].flatten(1) + torch.rand(1))


def test_a_module_that_draws_in_evaluation_draws_the_same_in_training() -> None:
    module = Random(243, 2)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert flops.of_a_product(module, images(), 1) == 243 * 2
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    "module",
    [nn.Linear(7, 2), Flat(nn.Flatten()), nn.EmbeddingBag(4, 2)],
    ids=["fails", "no weights", "only a table"],
)
def test_what_cannot_be_counted_is_nothing_and_left_to_the_training(module: nn.Module) -> None:
    assert flops.of_a_product(module, images(), 64) == 0
    assert module.training


def test_one_example_and_none_are_enough() -> None:
    assert flops.of_a_product(Reader(), texts(16), 4) == 4 * 16 * 8 * 5
    assert flops.of_a_product(Flat(nn.Flatten(), nn.Linear(243, 2)), images(1), 1) == 243 * 2
