"""The training loop, each property on a module small enough to know the answer by another way."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo.config import Loss, Optimizer, Precision, Schedule, Trainer
from zoo.engine import evaluation, training
from zoo.engine.batches import Batches
from zoo.engine.devices import Placement
from zoo.engine.training import Job, Trained, budget, loss_of, optimizer_for, rate, train

CLASSES = 3
WIDTH = 8
CPU = torch.device("cpu")

Make = Callable[[], nn.Module]


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self, after_step: Callable[[int], None] = lambda done: None) -> None:
        self.steps: list[tuple[int, float | None, float]] = []
        self.rows: list[dict[str, float]] = []
        self.after_step = after_step

    def step(self, done: int, loss: float | None, examples_per_second: float) -> None:
        self.steps.append((done, loss, examples_per_second))
        self.after_step(done)

    def epoch(self, row: Mapping[str, float]) -> None:
        self.rows.append(dict(row))

    @property
    def losses(self) -> list[float | None]:
        return [loss for _, loss, _ in self.steps]


def data(examples: int, seed: int = 0, resident_mib: int = 64, device: torch.device = CPU) -> Batches:
    """Three classes that a linear model tells apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(examples) % CLASSES
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH)) * 2
    values = (centres[labels] + rng.normal(size=(examples, WIDTH))).astype(np.float32)
    return Batches(zoo.Dense(values), labels, zoo.InputSpec("dense", (WIDTH,)), device, resident_mib)


def job(trainer: Trainer, examples: int = 96, seed: int = 0, **options: Any) -> Job:
    placement = Placement(CPU, options.pop("precision", Precision.fp32), 1)
    batches = {"train": data(examples), "validation": data(60, seed=1)} | options
    return Job(trainer=trainer, placement=placement, classes=CLASSES, seed=seed, **batches)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, CLASSES)


def perceptron(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, CLASSES))


def fit(module: nn.Module, work: Job) -> tuple[Trained, Recorder]:
    recorder = Recorder()
    return train(module, work, recorder), recorder


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_close(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance)


# --- the schedule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Schedule.linear, [0.0, 0.5, 1.0, 0.75, 0.5, 0.0]),
        (Schedule.cosine, [0.0, 0.5, 1.0, 0.5 + math.sqrt(0.125), 0.5, 0.0]),
        (Schedule.constant, [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_rate_rises_to_its_peak_and_then_follows_the_schedule(schedule: Schedule, values: list[float]) -> None:
    found = [rate(schedule, 0.2, progress) for progress in (0, 0.1, 0.2, 0.4, 0.6, 1.0)]
    assert found == pytest.approx(values)


@pytest.mark.parametrize("schedule", list(Schedule))
def test_without_warm_up_the_rate_begins_at_its_peak_and_is_never_negative(schedule: Schedule) -> None:
    assert rate(schedule, 0.0, 0.0) == 1
    assert all(0 <= rate(schedule, 0.1, share) <= 1 for share in np.linspace(0, 1.3, 50))


def test_each_step_has_the_rate_of_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    original = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *rest: Any) -> Any:
        used.append(self.param_groups[0]["lr"])
        return original(self, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    fit(linear(), job(Trainer(steps=5, batch_size=32, learning_rate=0.5, warmup=0.2)))
    assert used == pytest.approx([0.25, 0.5 * (1 - 0.1 / 0.8), 0.5 * (1 - 0.3 / 0.8), 0.5 * 3 / 8, 0.5 / 8])


# --- the optimizers, against torch's own used by hand -----------------------------------------------------------------


def by_hand(module: nn.Module, make: Callable[[Any], torch.optim.Optimizer], steps: int, clip: float = 0.0) -> None:
    """Whole-batch descent with a constant rate."""
    batch = next(iter(data(96)))
    optimizer = make(module.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(*batch.inputs), batch.labels).backward()
        if clip:
            total = math.sqrt(sum(float(p.grad.square().sum()) for p in module.parameters() if p.grad is not None))
            for parameter in module.parameters():
                assert parameter.grad is not None
                parameter.grad *= min(1.0, clip / total)
        optimizer.step()


OPTIMIZERS: dict[Optimizer, Callable[[Any], torch.optim.Optimizer]] = {
    Optimizer.sgd: lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    Optimizer.adam: lambda parameters: torch.optim.Adam(parameters, 0.1, foreach=False, fused=False),
    Optimizer.adamw: lambda parameters: torch.optim.AdamW(parameters, 0.1, weight_decay=0, foreach=False, fused=False),
}


@pytest.mark.parametrize("optimizer", list(Optimizer))
@pytest.mark.parametrize("clip", [0.0, 0.05, 100.0])
def test_training_is_what_the_optimizer_does_by_hand(optimizer: Optimizer, clip: float) -> None:
    ours, theirs = perceptron(), perceptron()
    options = {"weight_decay": 0, "warmup": 0, "schedule": Schedule.constant, "clip": clip}
    trainer = Trainer(epochs=4, batch_size=96, learning_rate=0.1, optimizer=optimizer, **options)  # type: ignore[arg-type]
    # An epoch is one step here, and what is left is the best epoch's weights.
    trained, _ = fit(ours, job(trainer))
    by_hand(theirs, OPTIMIZERS[optimizer], trained.best_epoch, clip)
    assert trained.steps == 4
    assert_close(weights_of(ours), weights_of(theirs), 1e-4)


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_weight_decay_is_for_matrices_only(optimizer: Optimizer) -> None:
    module = nn.Sequential(nn.Linear(WIDTH, 4), nn.LayerNorm(4), nn.Linear(4, CLASSES))
    found = optimizer_for(module, Trainer(weight_decay=0.3, optimizer=optimizer), CPU, {})
    decays = {id(p): group["weight_decay"] for group in found.param_groups for p in group["params"]}
    assert {name: decays[id(p)] for name, p in module.named_parameters()} == {
        "0.weight": 0.3, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.3, "2.bias": 0.0,
    }  # fmt: skip


def test_adamw_is_fused_where_there_is_a_fused_one() -> None:
    for optimizer in (Optimizer.adamw, Optimizer.adam):
        assert optimizer_for(linear(), Trainer(optimizer=optimizer), CPU, {}).defaults["fused"]


def test_multipliers_scale_the_rate_by_prefix_and_zero_leaves_weights_alone() -> None:
    module = perceptron()
    before = weights_of(module)
    trainer = Trainer(steps=1, batch_size=96, optimizer=Optimizer.sgd, schedule=Schedule.constant, warmup=0, clip=0)
    fit(module, job(trainer, multipliers={"0.": 0.0, "3.bias": 10.0}))
    plainly = perceptron()
    fit(plainly, job(trainer))
    moved, reference = weights_of(module), weights_of(plainly)
    assert torch.equal(moved["0.weight"], before["0.weight"])
    torch.testing.assert_close(moved["3.weight"], reference["3.weight"])
    torch.testing.assert_close(
        moved["3.bias"] - before["3.bias"], 10 * (reference["3.bias"] - before["3.bias"]), rtol=1e-3, atol=1e-6
    )


def test_frozen_weights_stay_and_have_no_state_in_the_optimizer() -> None:
    module = perceptron()
    module[0].requires_grad_(False)  # type: ignore[index]
    before = weights_of(module)
    fit(module, job(Trainer(epochs=2, batch_size=32)))
    after = weights_of(module)
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["3.weight"], before["3.weight"])
    held = {id(p) for group in optimizer_for(module, Trainer(), CPU, {}).param_groups for p in group["params"]}
    assert held == {id(p) for p in module[3].parameters()}  # type: ignore[index]


def test_a_module_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(zoo.PluginError, match="no parameter that wants a gradient"):
        fit(linear().requires_grad_(False), job(Trainer()))


# --- the losses -------------------------------------------------------------------------------------------------------


def test_cross_entropy_and_squared_error_are_their_formulas() -> None:
    answers, labels = torch.randn(7, CLASSES, dtype=torch.float64), torch.arange(7) % CLASSES
    raised = np.exp(answers.numpy())
    shares = raised / raised.sum(1, keepdims=True)
    cross_entropy = -np.log(shares[np.arange(7), labels.numpy()]).mean()
    squared = ((shares - np.eye(CLASSES)[labels.numpy()]) ** 2).mean()
    assert float(loss_of(Loss.cross_entropy, answers, labels)) == pytest.approx(cross_entropy, rel=1e-5)
    assert float(loss_of(Loss.mse, answers, labels)) == pytest.approx(squared, rel=1e-5)
    assert loss_of(Loss.mse, answers.bfloat16(), labels).dtype == torch.float32


def test_both_losses_train() -> None:
    for loss in Loss:
        trained, recorder = fit(perceptron(), job(Trainer(epochs=5, batch_size=16, learning_rate=0.02, loss=loss)))
        assert trained.history[-1]["validation_accuracy"] > 0.8
        assert recorder.rows[-1]["loss"] < recorder.rows[0]["loss"]


# --- budgets, early stop, best weights --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "steps", "rows"),
    [
        ({"epochs": 2}, 20, 2),
        ({"epochs": 0.5}, 5, 1),
        ({"epochs": 1.1}, 11, 2),
        ({"epochs": 1e-9}, 1, 1),
        ({"epochs": 2, "steps": 13}, 13, 2),
        ({"epochs": 1, "steps": 1000}, 10, 1),
    ],
)
def test_the_first_budget_that_is_reached_ends_training(options: dict[str, Any], steps: int, rows: int) -> None:
    work = job(Trainer(batch_size=10, **options), examples=95)
    trained, recorder = fit(linear(), work)
    assert budget(work) == trained.steps == steps
    assert [done for done, *_ in recorder.steps] == list(range(1, steps + 1))
    assert len(recorder.rows) == rows
    assert [row["epoch"] for row in trained.history] == list(range(1, rows + 1))
    assert trained.history[-1]["step"] == steps
    assert trained.stopped == "budget"


def test_a_budget_in_seconds_is_held() -> None:
    class Slow(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if self.training:
                time.sleep(0.02)
            return super().forward(inputs)

    trained, recorder = fit(Slow(WIDTH, CLASSES), job(Trainer(epochs=1000, seconds=0.3, batch_size=32)))
    assert 1 <= trained.steps <= 15
    assert trained.seconds >= 0.3
    assert recorder.steps[-1][2] == pytest.approx(trained.examples_per_second, rel=0.5)


def test_a_budget_below_one_step_still_is_one_step() -> None:
    trained, _ = fit(linear(), job(Trainer(epochs=3, seconds=1e-9, batch_size=32)))
    assert trained.steps == 1
    assert math.isfinite(trained.history[0]["loss"])


class Scripted(nn.Module):
    """Right about a given share of the validation examples in each epoch, whatever it is taught."""

    def __init__(self, shares: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.shares = shares
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.epoch += 1  # one step an epoch
            return self.weight.expand(len(inputs), CLASSES)
        right = torch.arange(len(inputs)) < self.shares[int(self.epoch) - 1] * len(inputs)
        labels = torch.arange(len(inputs)) % CLASSES
        return F.one_hot(torch.where(right, labels, (labels + 1) % CLASSES), CLASSES).float()


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    module = Scripted([0.2, 0.6, 0.9, 0.4, 0.5])
    trained, _ = fit(module, job(Trainer(epochs=5, batch_size=96)))
    assert [row["validation_accuracy"] for row in trained.history] == pytest.approx([0.2, 0.6, 0.9, 0.4, 0.5])
    assert trained.best_epoch == 3
    assert int(module.epoch) == 3
    assert trained.stopped == "budget"


def test_of_equal_accuracies_the_lower_loss_is_best_and_of_equal_losses_the_earlier() -> None:
    class Surer(Scripted):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) * ([1, 2, 2][int(self.epoch) - 1])

    module = Surer([0.9, 0.9, 0.9])
    trained, _ = fit(module, job(Trainer(epochs=3, batch_size=96)))
    assert (trained.best_epoch, int(module.epoch)) == (2, 2)


def test_patience_ends_training_and_says_why() -> None:
    module = Scripted([0.3, 0.5, 0.5, 0.4, 0.9])
    trained, _ = fit(module, job(Trainer(epochs=5, batch_size=96, patience=2)))
    assert len(trained.history) == 4
    assert trained.best_epoch == int(module.epoch) == 2
    assert trained.stopped == "no better validation accuracy for 2 epochs"


def test_the_history_tells_loss_and_accuracy_as_measured_another_way() -> None:
    module = perceptron()
    trained, recorder = fit(module, job(Trainer(epochs=1, batch_size=32)))
    validation = next(iter(data(60, seed=1)))
    with torch.no_grad():
        answers = module.eval()(*validation.inputs)
    (row,) = trained.history
    assert row["validation_loss"] == pytest.approx(float(F.cross_entropy(answers, validation.labels)), rel=1e-5)
    assert row["validation_accuracy"] == pytest.approx(float((answers.argmax(1) == validation.labels).float().mean()))
    assert row["loss"] == pytest.approx(np.mean(recorder.losses))
    assert row["examples_per_second"] > 0
    assert recorder.rows == [row]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_rate() -> None:
    class Bursting(nn.Linear):
        steps = 0

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.steps += self.training
            return super().forward(inputs) * (math.nan if self.steps == 5 else 1.0)

    trainer = Trainer(epochs=3, batch_size=32, learning_rate=0.25, warmup=0, schedule=Schedule.constant)
    with pytest.raises(zoo.TrainingError) as caught:
        fit(Bursting(WIDTH, CLASSES), job(trainer))
    assert str(caught.value).splitlines() == [
        "The loss is nan at epoch 2, step 5, learning rate 0.25.",
        "Try a smaller trainer.learning_rate, trainer.clip=1, or trainer.precision=fp32.",
    ]


def test_weights_that_burst_in_the_last_step_are_found_by_the_validation() -> None:
    trainer = Trainer(steps=1, batch_size=32, learning_rate=1e38, optimizer=Optimizer.sgd, clip=0, warmup=0)
    with pytest.raises(zoo.TrainingError, match=r"The validation loss is nan at epoch 1, step 1, learning rate 5e\+37"):
        fit(linear(), job(trainer))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda inputs: inputs[:, :2],
            r"float32 of shape \(32, 2\) for a batch of 32; .* float logits of shape \(32, 3\)",
        ),
        (lambda inputs: inputs.sum(), r"float32 of shape \(\) for a batch of 32"),
        (lambda inputs: inputs[:, :3].long(), r"int64 of shape \(32, 3\)"),
        (lambda inputs: {"logits": inputs}, r"returned dict; it must return logits, a float tensor \(batch, classes\)"),
    ],
)
def test_logits_of_a_wrong_kind_are_the_plugins_fault(answer: Callable[..., Any], message: str) -> None:
    class Wrong(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = answer(super().forward(inputs))
            return found

    with pytest.raises(zoo.PluginError, match=message):
        fit(Wrong(WIDTH, WIDTH), job(Trainer(batch_size=32)))


def out_of_memory_on_device() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def out_of_memory_on_cpu() -> Exception:
    """The error that torch's allocator really raises."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


class Greedy(nn.Linear):
    """Has memory for so many examples with gradients."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__(WIDTH, CLASSES)
        self.room, self.error = room, error

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training and len(inputs) > self.room:
            raise self.error
        return super().forward(inputs)


@pytest.mark.parametrize("error", [out_of_memory_on_device, out_of_memory_on_cpu, MemoryError])
def test_out_of_memory_halves_the_micro_batch_and_says_so(
    error: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    module, reference = Greedy(10, error()), Greedy(1000, error())
    reference.load_state_dict(module.state_dict())
    with caplog.at_level(logging.WARNING, "zoo"):
        trained, _ = fit(module, job(Trainer(steps=4, batch_size=32)))
    assert trained.micro_batch == 8
    assert [record.message for record in caplog.records] == [
        "out of memory: going on with micro-batches of 16 (batch size unchanged)",
        "out of memory: going on with micro-batches of 8 (batch size unchanged)",
    ]
    fit(reference, job(Trainer(steps=4, batch_size=32)))
    assert_close(weights_of(module), weights_of(reference), 1e-5)


class HungryBackwards(torch.autograd.Function):
    """The identity; going back it has memory for so many examples."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, room: int, error: Exception) -> torch.Tensor:
        ctx.room, ctx.error = room, error
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        if len(gradients[0]) > ctx.room:
            raise ctx.error
        return gradients[0], None, None


class GreedyBackwards(Greedy):
    """Has memory for as many going forwards as one likes."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = HungryBackwards.apply(F.linear(inputs, self.weight, self.bias), self.room, self.error)  # type: ignore[no-untyped-call]
        return answers


MEMORY_ERRORS = [out_of_memory_on_device, out_of_memory_on_cpu, MemoryError]


@pytest.mark.parametrize("error", MEMORY_ERRORS)
def test_out_of_memory_going_back_halves_the_micro_batch_too(error: Callable[[], Exception]) -> None:
    module, reference = GreedyBackwards(10, error()), GreedyBackwards(1000, error())
    reference.load_state_dict(module.state_dict())
    assert fit(module, job(Trainer(steps=4, batch_size=32)))[0].micro_batch == 8
    fit(reference, job(Trainer(steps=4, batch_size=32)))
    assert_close(weights_of(module), weights_of(reference), 1e-5)


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, error: Exception) -> list[int]:
    """Have the optimizer's request of this number for a tensor of its state fail; it asks for two a weight, in groups
    of the weights that decay and of the others. Returns the requests so far, which go on growing."""
    real, asked = torch.zeros_like, []

    def refused_once(*args: Any, **options: Any) -> torch.Tensor:
        asked.append(len(asked))
        if len(asked) == number:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(torch, "zeros_like", refused_once)
    return asked


@pytest.mark.parametrize("error", MEMORY_ERRORS)
@pytest.mark.parametrize("number", [1, 2])
def test_out_of_memory_in_the_first_optimizer_step_halves_the_micro_batch_too(
    monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], number: int
) -> None:
    """Nothing of that step is left."""
    module, reference = linear(), linear()
    asked = refuse(monkeypatch, number, error())
    trained, _ = fit(module, job(Trainer(steps=4, batch_size=32)))
    assert (len(asked), trained.micro_batch) == (number + 4, 16)
    monkeypatch.undo()
    fit(reference, job(Trainer(steps=4, batch_size=32)))
    assert_close(weights_of(module), weights_of(reference), 1e-5)


@pytest.mark.parametrize("number", [3, 4])
def test_a_step_that_moved_weights_before_memory_ran_out_is_not_taken_again(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse(monkeypatch, number, MemoryError())
    with pytest.raises(zoo.TrainingError, match=r"amid a step of the optimizer.*\n.*trainer.optimizer=sgd"):
        fit(linear(), job(Trainer(steps=4, batch_size=32)))


def test_a_later_step_that_runs_out_of_memory_is_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = training.step_of

    def third_fails(optimizer: torch.optim.Optimizer) -> Callable[[torch.Tensor | None], object]:
        step, done = real(optimizer), []

        def counted(divisor: torch.Tensor | None) -> None:
            done.append(step(divisor))
            if len(done) == 3:
                raise MemoryError

        return counted

    monkeypatch.setattr(training, "step_of", third_fails)
    with pytest.raises(zoo.TrainingError, match="amid a step of the optimizer"):
        fit(linear(), job(Trainer(steps=4, batch_size=32)))


@pytest.mark.parametrize("error", MEMORY_ERRORS)
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("optimizer", Optimizer)
def test_out_of_memory_in_clipping_halves_the_micro_batch_whatever_the_step(
    monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], number: int, optimizer: Optimizer
) -> None:
    """No weight has moved yet."""
    module, reference = linear(), linear()
    trainer = Trainer(steps=4, batch_size=32, clip=0.01, optimizer=optimizer)
    fused = optimizer_for(module, trainer, CPU, {}).defaults.get("fused")
    name = "get_total_norm" if fused else "clip_grad_norm_"
    real, asked = getattr(torch.nn.utils, name), []

    def refused_once(*args: Any) -> torch.Tensor:
        found: torch.Tensor = real(*args)  # gradients may be scaled already
        asked.append(found)
        if len(asked) == number:
            raise error()
        return found

    monkeypatch.setattr(torch.nn.utils, name, refused_once)
    trained, _ = fit(module, job(trainer))
    assert (len(asked), trained.micro_batch) == (5, 16)
    monkeypatch.undo()
    fit(reference, job(trainer))
    assert_close(weights_of(module), weights_of(reference), 1e-5)


def test_other_errors_of_the_optimizer_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(optimizer: torch.optim.Optimizer) -> Callable[[torch.Tensor | None], object]:
        def step(divisor: torch.Tensor | None) -> None:
            raise RuntimeError("something else")

        return step

    monkeypatch.setattr(training, "step_of", broken)
    with pytest.raises(RuntimeError, match="something else"):
        fit(linear(), job(Trainer(steps=4, batch_size=32)))


@pytest.mark.parametrize("error", MEMORY_ERRORS)
def test_out_of_memory_in_validation_takes_smaller_batches_and_gives_the_same(error: Callable[[], Exception]) -> None:
    class GreedyInValidation(nn.Linear):
        largest = 0

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if not self.training and len(inputs) > 10:
                raise error()
            self.largest = max(self.largest, 0 if self.training else len(inputs))
            return super().forward(inputs)

    module, reference = GreedyInValidation(WIDTH, CLASSES), nn.Linear(WIDTH, CLASSES)
    reference.load_state_dict(module.state_dict())
    trained, _ = fit(module, job(Trainer(epochs=2, batch_size=32)))
    expected, _ = fit(reference, job(Trainer(epochs=2, batch_size=32)))
    assert (module.largest, trained.micro_batch) == (8, 32)
    for ours, theirs in zip(trained.history, expected.history, strict=True):
        assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"])


def test_where_there_is_no_memory_for_the_best_weights_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch.Tensor, "clone", refused)
    with pytest.raises(zoo.TrainingError, match=r"a copy of the weights of the best epoch.*\n.*trainer.epochs=1"):
        fit(linear(), job(Trainer(epochs=2, batch_size=32)))


def test_where_one_example_is_too_much_training_ends_with_advice() -> None:
    with pytest.raises(zoo.TrainingError, match=r"(?s)even for one example at a time.*max_length.*trainer.device=cpu"):
        fit(Greedy(0, out_of_memory_on_device()), job(Trainer(batch_size=4)))


def test_other_errors_of_the_module_pass() -> None:
    with pytest.raises(RuntimeError, match="something else"):
        fit(Greedy(0, RuntimeError("something else")), job(Trainer(batch_size=4)))


def test_a_thread_behind_the_batches_ends_with_the_training() -> None:
    import threading

    broken = job(Trainer(batch_size=4, epochs=2), train=data(96, resident_mib=0))
    with pytest.raises(RuntimeError, match="something else"):
        fit(Greedy(0, RuntimeError("something else")), broken)
    assert "zoo-batches" not in {thread.name for thread in threading.enumerate()}


# --- micro-batches, precision, reproducibility ------------------------------------------------------------------------


def test_no_part_of_a_batch_is_left_with_one_example() -> None:
    module = nn.Sequential(nn.Linear(WIDTH, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    trained, _ = fit(module, job(Trainer(epochs=1, batch_size=32, micro_batch=31), examples=65))
    assert trained.steps == 3


@pytest.mark.parametrize("micro_batch", [1, 5, 32])
def test_micro_batches_give_the_gradient_of_the_whole(micro_batch: int) -> None:
    whole, parts = perceptron(), perceptron()
    options = {"steps": 5, "batch_size": 32, "optimizer": Optimizer.sgd, "learning_rate": 0.1}
    _, one = fit(whole, job(Trainer(**options)))  # type: ignore[arg-type]
    trained, other = fit(parts, job(Trainer(**options, micro_batch=micro_batch)))  # type: ignore[arg-type]
    assert trained.micro_batch == micro_batch
    assert other.losses == pytest.approx(one.losses, rel=1e-5)
    assert_close(weights_of(whole), weights_of(parts), 1e-5)


def test_bf16_computes_in_bfloat16_and_keeps_weights_in_float32() -> None:
    seen: list[tuple[bool, torch.dtype]] = []
    module = perceptron()
    module[0].register_forward_hook(lambda _m, _i, output: seen.append((module.training, output.dtype)))  # type: ignore[index]
    work = job(Trainer(epochs=5, batch_size=16, learning_rate=0.02), precision=Precision.bf16)
    trained, recorder = fit(module, work)
    # The last epoch is validated in float32.
    assert {dtype for training, dtype in seen if training} == {torch.bfloat16}
    validated = [dtype for training, dtype in seen if not training]
    assert validated == sorted(validated, key=lambda dtype: dtype is torch.float32)
    assert validated.count(torch.bfloat16) == 4 * validated.count(torch.float32) > 0
    assert (trained.validation is None) == (trained.best_epoch < 5), "what is stored is computed in float32"
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32}
    assert trained.history[-1]["validation_accuracy"] > 0.8
    _, exact = fit(perceptron(), job(Trainer(epochs=5, batch_size=16, learning_rate=0.02)))
    assert recorder.losses == pytest.approx(exact.losses, abs=0.05)


@pytest.mark.parametrize("best", [1, 3])
def test_answers_are_kept_of_the_last_epoch_alone_where_the_others_are_in_bfloat16(
    best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an earlier epoch that was the best are computed anew."""
    accuracies = iter([(float(epoch == best), 1.0) for epoch in range(1, 4)])
    monkeypatch.setattr(training, "judged", lambda answers, labels: next(accuracies))
    module, work = perceptron(), job(Trainer(epochs=3, batch_size=16), precision=Precision.bf16)
    trained, _ = fit(module, work)
    assert trained.best_epoch == best
    assert (trained.validation is None) == (best != 3)
    if trained.validation is not None:
        found = evaluation.logits(module, work.validation, 16, CLASSES)
        np.testing.assert_array_equal(trained.validation, found)


@pytest.mark.parametrize("resident_mib", [64, 0])
def test_one_thread_gives_bitwise_the_same_twice_with_dropout_too(resident_mib: int) -> None:
    def once(seed: int) -> tuple[list[float | None], dict[str, torch.Tensor]]:
        module = perceptron(dropout=0.5)
        torch.manual_seed(seed)
        work = job(Trainer(epochs=3, batch_size=16), seed=seed, train=data(96, resident_mib=resident_mib))
        _, recorder = fit(module, work)
        return recorder.losses, weights_of(module)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second, other = once(0), once(0), once(1)
    finally:
        torch.set_num_threads(threads)
    assert first[0] == second[0] != other[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_in_bf16_trains_as_the_cpu_does() -> None:
    cuda = torch.device("cuda")

    def on(device: torch.device, precision: Precision) -> tuple[Trained, Recorder]:
        placement, trainer = Placement(device, precision, 1), Trainer(epochs=3, batch_size=32, learning_rate=0.01)
        training, validation = data(960, device=device), data(60, seed=1, device=device)
        return fit(perceptron().to(device), Job(training, validation, trainer, placement, CLASSES, seed=0))

    (exact, reference), (trained, recorder) = on(CPU, Precision.fp32), on(cuda, Precision.bf16)
    for ours, theirs in zip(trained.history, exact.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=0.03)
        assert ours["validation_accuracy"] == pytest.approx(theirs["validation_accuracy"], abs=0.05)
    assert None not in reference.losses
    assert recorder.losses[:15] == [None] * 15, "looking at each loss makes the device wait"
    assert recorder.losses[15] is not None
