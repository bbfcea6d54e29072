"""Vectorised replicas against trainings of their own, one by one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from test_engine_training import CLASSES, WIDTH, Recorder, data, job
from torch import nn

import zoo
from zoo.config import Loss, Optimizer, Schedule, Trainer
from zoo.engine import replicas
from zoo.engine.batches import Batches
from zoo.engine.replicas import Replica
from zoo.engine.training import Job, train

COUNT = 3


def perceptron(seed: int, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, CLASSES))


class Words(nn.Module):
    """A masked mean of word vectors and a linear layer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table, self.out = nn.Embedding(30, 6), nn.Linear(6, CLASSES)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weight = mask[:, :, None].float()
        return self.out((self.table(ids) * weight).sum(1) / weight.sum(1))  # type: ignore[no-any-return]


def words(examples: int, seed: int = 0) -> Batches:
    """Texts of differing length whose class shows in their first words."""
    rng = np.random.default_rng(seed)
    labels = np.arange(examples) % CLASSES
    texts = [[1 + label, *rng.integers(4, 30, rng.integers(0, 9)).tolist()] for label in labels]
    spec = zoo.InputSpec("tokens", (12,), vocab_size=30)
    return Batches(zoo.Tokens.pack(texts), labels, spec, torch.device("cpu"))


def together(modules: Sequence[nn.Module], work: Job) -> tuple[list[Replica], Recorder, list[int]]:
    recorder, told = Recorder(), []

    def tell(number: int, row: Mapping[str, float]) -> None:
        told.append(number)

    replicas.check(modules, work)
    return replicas.train(modules, work, recorder, tell), recorder, told


def assert_as_alone(make: Callable[[int], nn.Module], work: Callable[[int], Job]) -> list[Replica]:
    """Vectorised and one by one give the same weights, history and best epochs."""
    modules = [make(seed) for seed in range(COUNT)]
    found, _, _ = together(modules, work(0))
    for seed, (module, replica) in enumerate(zip(modules, found, strict=True)):
        alone = make(seed)
        trained = train(alone, work(seed), Recorder())
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-4, atol=1e-4)
        assert (replica.trained.best_epoch, replica.trained.stopped) == (trained.best_epoch, trained.stopped)
        assert (replica.trained.steps, len(replica.trained.history)) == (trained.steps, len(trained.history))
        for kind in ("step", "loss", "validation_loss", "validation_accuracy"):
            wanted = [row[kind] for row in trained.history]
            assert [row[kind] for row in replica.trained.history] == pytest.approx(wanted, abs=1e-4)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": Optimizer.sgd, "schedule": Schedule.cosine, "clip": 0.05, "weight_decay": 0.3},
        {"optimizer": Optimizer.adam, "loss": Loss.mse, "clip": 0.0, "steps": 7},
    ],
)
def test_without_dropout_each_replica_has_the_weights_of_a_training_of_its_own(options: dict[str, Any]) -> None:
    trainer = Trainer(**{"epochs": 3, "batch_size": 10, "learning_rate": 0.02} | options)
    found = assert_as_alone(perceptron, lambda seed: job(trainer, seed=seed))
    assert len({replica.trained.history[0]["loss"] for replica in found}) == COUNT


def test_texts_of_any_length_and_batches_of_any_size_fit_together() -> None:
    # 95 examples: the batch that is smaller stands somewhere else in each replica's order.
    trainer = Trainer(epochs=2, batch_size=10, learning_rate=0.02)
    assert_as_alone(Words, lambda seed: job(trainer, seed=seed, train=words(95), validation=words(40, seed=1)))


def test_each_replica_stops_by_itself_and_keeps_its_own_best_epoch() -> None:
    trainer = Trainer(epochs=12, batch_size=16, learning_rate=0.3, patience=2, schedule=Schedule.constant)
    found = assert_as_alone(perceptron, lambda seed: job(trainer, seed=seed))
    assert len({len(replica.trained.history) for replica in found}) > 1


def test_tied_weights_stay_tied_and_operations_without_a_vectorised_form_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Tied(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.words = nn.EmbeddingBag(30, 6, mode="mean", padding_idx=0)
            self.first, self.second, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
            self.second.weight = self.first.weight

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            mean = self.words(ids.masked_fill(~mask, 0))
            return self.out(self.second(torch.relu(self.first(mean))))  # type: ignore[no-any-return]

    trainer = Trainer(epochs=2, batch_size=10, learning_rate=0.02)
    with caplog.at_level("INFO", logger="zoo"):
        assert_as_alone(Tied, lambda seed: job(trainer, seed=seed, train=words(60), validation=words(40, seed=1)))
    assert "computed replica by replica: aten::embedding_bag" in caplog.text


def test_multipliers_and_frozen_weights_are_respected() -> None:
    def half(seed: int) -> nn.Module:
        module = perceptron(seed)
        module.get_submodule("0").requires_grad_(False)
        return module

    trainer = Trainer(epochs=1, batch_size=16)
    work = job(trainer, multipliers={"3": 0.0})
    modules = [half(seed) for seed in range(COUNT)]
    before = [copy.deepcopy(module.state_dict()) for module in modules]
    together(modules, work)
    for module, kept in zip(modules, before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())


def test_with_dropout_the_metrics_agree_within_the_noise_of_seeds() -> None:
    """Means of 12 seeds either way differ by less than three standard errors of that difference."""
    count, trainer = 12, Trainer(epochs=4, batch_size=16, learning_rate=0.02)
    hard = {"train": noisy(120), "validation": noisy(300, seed=1)}
    torch.manual_seed(0)
    found, _, _ = together([perceptron(seed, 0.3) for seed in range(count)], job(trainer, **hard))
    alone = [train(perceptron(seed, 0.3), job(trainer, seed=seed, **hard), Recorder()) for seed in range(count)]
    one, other = (
        np.array([max(row["validation_accuracy"] for row in trained.history) for trained in outcomes])
        for outcomes in ([replica.trained for replica in found], alone)
    )
    error = math.sqrt((one.var(ddof=1) + other.var(ddof=1)) / count)
    assert len(set(one)) > 1
    assert abs(one.mean() - other.mean()) < 3 * error


def noisy(examples: int, seed: int = 0) -> Batches:
    """`data`, of which three labels in ten are another's."""
    batches = data(examples, seed)
    wrong = np.random.default_rng(seed + 7).random(examples) < 0.3
    batches.labels[torch.from_numpy(wrong)] = (batches.labels[torch.from_numpy(wrong)] + 1) % CLASSES
    return batches


def test_dropout_differs_from_replica_to_replica() -> None:
    twins = [perceptron(0, 0.5) for _ in range(2)]
    work = job(Trainer(steps=1, batch_size=96))  # one batch of all examples: only dropout tells the two apart
    together(twins, work)
    assert not torch.equal(twins[0].state_dict()["3.weight"], twins[1].state_dict()["3.weight"])


def test_a_replica_that_diverges_leaves_the_others_as_they_are() -> None:
    trainer = Trainer(epochs=2, batch_size=16, learning_rate=0.02)
    modules = [perceptron(seed) for seed in range(COUNT)]
    with torch.no_grad():
        modules[1].get_submodule("3").weight.fill_(math.inf)  # type: ignore[operator,union-attr]
    found, recorder, told = together(modules, job(trainer))
    assert isinstance(found[1].error, zoo.TrainingError)
    assert "seed 1 is not finite in epoch 1" in str(found[1].error)
    assert told == [0, 2, 0, 2]
    assert [row["epoch"] for row in recorder.rows] == [1, 2]
    for seed in (0, 2):
        alone = perceptron(seed)
        train(alone, job(trainer, seed=seed), Recorder())
        torch.testing.assert_close(modules[seed].state_dict(), alone.state_dict(), rtol=1e-4, atol=1e-4)


class Branching(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs if bool((inputs > 0).all()) else inputs * 2)


class Remembering(nn.Linear):
    """Its answer depends on something that is no weight."""

    def __init__(self, factor: float) -> None:
        super().__init__(WIDTH, CLASSES)
        self.factor = factor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) * self.factor


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda seed: nn.Sequential(nn.BatchNorm1d(WIDTH), perceptron(seed)), "'0' is a batch norm"),
        (lambda seed: Branching(WIDTH, CLASSES), r"this module cannot be vectorised \(RuntimeError: vmap"),
        (lambda seed: Remembering(seed + 1.0), "vectorised, this module gives other logits"),
    ],
)
def test_what_cannot_be_vectorised_is_refused_with_another_way(make: Callable[[int], nn.Module], said: str) -> None:
    with pytest.raises(zoo.Incompatible, match=rf"(?s){said}.*-m 'seed=range\(2\)' hydra/launcher=joblib"):
        together([make(0), make(1)], job(Trainer(epochs=1, batch_size=16)))


def test_too_little_memory_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_rows: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(replicas._Together, "gather", full)
    with pytest.raises(zoo.TrainingError, match=r"(?s)for 2 replicas at once.*Ask for fewer"):
        together([perceptron(0), perceptron(1)], job(Trainer(epochs=1, batch_size=16)))
