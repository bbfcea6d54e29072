"""What a step's arithmetic is counted as: by hand for known modules, and without a trace in the module."""

from __future__ import annotations

import logging
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.engine import fitting, flops
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


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm, self.head = nn.Embedding(50, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head(self.lstm(self.table(ids))[0][:, -1])
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


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_matrix_meets_each_example_once_and_a_convolution_each_place(batch_size: int) -> None:
    flat = Flat(nn.Flatten(), nn.Linear(243, 10), nn.ReLU(), nn.Linear(10, 2))
    assert flops.of_a_product(flat, images(), batch_size) == batch_size * (243 * 10 + 10 * 2) / 2
    places = Flat(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 49, 2))
    assert flops.of_a_product(places, images(), batch_size) == batch_size * (49 * 8 * 27 + 8 * 49 * 2) / 2


def test_a_batch_is_no_larger_than_the_split() -> None:
    assert flops.of_a_product(Flat(nn.Flatten(), nn.Linear(243, 2)), images(6), 1000) == 6 * 243 * 2


@pytest.mark.parametrize("lengths", [(16, 2, 30, 16), (60, 16, 16, 4, 4, 4, 4, 16)], ids=["even", "mostly short"])
def test_texts_are_counted_at_about_their_mean_length_and_tables_not_at_all(lengths: tuple[int, ...]) -> None:
    assert flops.of_a_product(Reader(), texts(*lengths), 4) == 4 * 16 * 8 * 5


def test_what_is_computed_in_many_small_products_is_not_one_large_one() -> None:
    recurrent = flops.of_a_product(Recurrent(), texts(16, 16), 2)
    inputs, step, head = 2 * 16 * 4 * 8 * 8, 2 * 4 * 8 * 8, 2 * 8 * 2
    assert recurrent == (inputs + 16 * step + head) / 18
    shared = Flat(nn.Flatten(), *[layer := nn.Linear(243, 243, bias=False), *[layer] * 5])
    assert flops.of_a_product(shared, images(), 4) == 4 * 243 * 243


def test_attention_counts_its_own_products() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    values = np.zeros((4, 5, 8), np.float32)
    batches = Batches(zoo.Dense(values), np.zeros(4, np.int64), zoo.InputSpec("dense", (5, 8)), CPU)
    total = 4 * 5 * 64 + 2 * 5**2 * 8 + 2 * 5 * 8 * 16
    # Query, key and value are one product.
    assert flops.of_a_product(layer, batches, 3) == pytest.approx(3 * total / 6)


def test_recurrent_layers_are_counted_though_one_operation_computes_them() -> None:
    before = torch.backends.mkldnn.enabled
    found = flops.multiply_adds(nn.LSTM(3, 4, batch_first=True).eval(), [(torch.ones(2, 5, 3),)])
    assert found == [2 * 5 * 4 * 4 * (3 + 4)]
    assert torch.backends.mkldnn.enabled == before


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


class Odd(nn.Linear):
    """Draws in evaluation, counts its calls, begins with what it meets first, and forgets what `train` returns."""

    def __init__(self) -> None:
        super().__init__(243, 2)
        self.register_buffer("scale", torch.zeros(1))
        self.generator = torch.Generator().manual_seed(1)
        self.calls = 0

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        with torch.no_grad():
            self.weight += 1e-3

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if not self.scale.item():
            self.scale.copy_(inputs[0].std())
        noise = torch.rand(1) + random.random() + np.random.rand() + torch.rand(1, generator=self.generator)
        return super().forward(inputs[0].flatten(1) / self.scale + noise.float())


def draws() -> tuple[float, ...]:
    return torch.rand(1).item(), random.random(), np.random.rand()


def test_whatever_a_module_does_when_it_is_called_it_has_not_been() -> None:
    module = Odd()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fitting.seed_everything(3)
    expected = draws()
    fitting.seed_everything(3)
    assert flops.of_a_product(module, images(), 1) == 243 * 2
    assert draws() == expected
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.calls == 0
    assert torch.equal(torch.rand(1, generator=module.generator), torch.rand(1, generator=torch.manual_seed(1)))


@pytest.mark.parametrize(
    ("module", "told"),
    [(nn.Linear(7, 2), "RuntimeError"), (Flat(nn.Flatten()), ""), (nn.EmbeddingBag(4, 2), "ValueError")],
    ids=["fails", "no weights", "takes no pixels"],
)
def test_what_cannot_be_counted_is_nothing_and_left_to_the_training(
    module: nn.Module, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zoo")
    assert flops.of_a_product(module, images(), 64) == 0
    assert module.training
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)


LOADED = """
import sys, torch
from zoo.engine import flops
assert flops.multiply_adds(torch.nn.LSTM(3, 4), [(torch.ones(2, 3),)])[0] > 0
sys.exit("torch._dynamo" in sys.modules)
"""


def test_counting_does_not_load_the_compiler() -> None:
    assert subprocess.run([sys.executable, "-c", LOADED], timeout=120).returncode == 0


def test_one_example_is_enough() -> None:
    assert flops.of_a_product(Reader(), texts(16), 4) == 16 * 8 * 5
    assert flops.of_a_product(Flat(nn.Flatten(), nn.Linear(243, 2)), images(1), 1) == 243 * 2
