"""The training loop: one for every `TorchModel`."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from zoo import interrupts
from zoo.config import Loss, Optimizer, Precision, Schedule, Trainer
from zoo.engine import devices, evaluation, memory, metrics
from zoo.engine.batches import Batch, Batches, plan_epoch
from zoo.engine.compiling import Caller
from zoo.engine.optimizers import clip_of, step_of, without_compiler
from zoo.errors import PluginError, TrainingError
from zoo.phases import phase

if TYPE_CHECKING:
    from zoo.engine.devices import Placement

log = logging.getLogger("zoo")

CHECK_EVERY = 16  # steps between looks at the loss on an accelerator; each look makes the device wait


class Reporter(Protocol):
    """Who shows how training goes on."""

    def step(self, done: int, loss: float | None, examples_per_second: float) -> None:
        """After a step. loss is None where fetching it would make the device wait."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """After an epoch, with its row of the history."""


@dataclass
class Trained:
    """The outcome. history: one row an epoch; the module holds the best weights; compile: whether it was compiled, as
    the run's record says it; validation: what those weights answer, (examples, classes) float32, None where they were
    validated in a lower precision (`validating_in`), and the answers that are stored are still to be computed."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    seconds: float = 0.0
    examples_per_second: float = 0.0
    micro_batch: int = 0
    stopped: str = "budget"
    compile: Mapping[str, Any] = field(default_factory=lambda: {"compile": "none"})
    validation: np.ndarray | None = None


@dataclass(frozen=True)
class Job:
    """Everything the loop needs beside the module."""

    train: Batches
    validation: Batches
    trainer: Trainer
    placement: Placement
    classes: int
    seed: int
    multipliers: Mapping[str, float] = field(default_factory=dict)


def train(module: torch.nn.Module, job: Job, reporter: Reporter) -> Trained:
    """Train in place and leave the weights of the best epoch in the module.

    Best is the highest validation accuracy, then the lowest validation loss. Raises TrainingError when the loss is
    not finite, memory does not suffice for one example at a time or a module that is to be compiled cannot be,
    PluginError when the logits have a wrong shape.
    """
    with devices.kept_memory(job.placement.device), without_compiler():
        loop = _Loop(module, job, reporter)
        with contextlib.closing(loop.call):
            loop.run()
    return loop.outcome


def budget(job: Job) -> int:
    """The largest number of steps that the job may take."""
    # Rounded, or 1.1 epochs of ten steps would be twelve steps.
    steps = max(1, math.ceil(round(job.trainer.epochs * _epoch_steps(job), 6)))
    return steps if job.trainer.steps is None else min(steps, job.trainer.steps)


def _epoch_steps(job: Job) -> int:
    return math.ceil(len(job.train) / job.trainer.batch_size)


def optimizer_for(
    module: torch.nn.Module, trainer: Trainer, device: torch.device, multipliers: Mapping[str, float]
) -> torch.optim.Optimizer:
    """The optimizer over all weights that want a gradient; no decay on biases and norms (one-dimensional weights)."""
    named = [(name, weight, weight.ndim > 1) for name, weight in module.named_parameters()]
    return optimizer_over(named, trainer, device, multipliers)


def optimizer_over(
    named: Iterable[tuple[str, torch.Tensor, bool]],
    trainer: Trainer,
    device: torch.device,
    multipliers: Mapping[str, float],
) -> torch.optim.Optimizer:
    """The same over weights by name, each with whether it decays."""
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for name, parameter, decays in named:
        if parameter.requires_grad:
            multiplier = next((value for prefix, value in multipliers.items() if name.startswith(prefix)), 1.0)
            groups.setdefault((multiplier, trainer.weight_decay if decays else 0.0), []).append(parameter)
    if not groups:
        raise PluginError("The module has no parameter that wants a gradient, so there is nothing to train.")
    options: list[dict[str, Any]] = [
        {"params": group, "weight_decay": decay, "lr": trainer.learning_rate * multiplier, "multiplier": multiplier}
        for (multiplier, decay), group in groups.items()
    ]
    # lr is stated again for the optimizer as a whole: torch 2.7 wants it positive even where each group has its own.
    if trainer.optimizer is Optimizer.sgd:
        return torch.optim.SGD(options, lr=trainer.learning_rate, momentum=0.9)
    kind = torch.optim.AdamW if trainer.optimizer is Optimizer.adamw else torch.optim.Adam
    return kind(options, lr=trainer.learning_rate, fused=device.type in ("cpu", "cuda"))


def rate(schedule: Schedule, warmup: float, progress: float) -> float:
    """Learning rate as a share of its peak. progress: share of the budget spent, in [0, 1]."""
    if progress < warmup:
        return progress / warmup
    rest = (progress - warmup) / (1 - warmup)
    if schedule is Schedule.linear:
        return max(0.0, 1 - rest)
    if schedule is Schedule.cosine:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
    return 1.0


def loss_of(kind: Loss, answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean loss over a batch, in float32. answers: (batch, classes); labels: (batch,) int64."""
    answers = answers.float()
    if kind is Loss.cross_entropy:
        return F.cross_entropy(answers, labels)
    return F.mse_loss(answers.softmax(1), F.one_hot(labels, answers.shape[1]).float())


def validating_in(job: Job, last: bool) -> Precision:
    """What an epoch is validated in: what it is trained in, which is enough to choose one and in bfloat16 up to twice
    as fast; the last of the budget in float32, since its answers are those that are stored where it is the best."""
    return Precision.fp32 if last else job.placement.precision


def judged(answers: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy and mean log-loss of logits, (examples, classes), for labels, (examples,) int64."""
    chosen = metrics.softmax(answers)[np.arange(len(labels)), labels]
    loss = float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())
    return float((answers.argmax(1) == labels).mean()), loss


class _Loop:
    """State of one training: counters, optimizer, best weights."""

    def __init__(self, module: torch.nn.Module, job: Job, reporter: Reporter) -> None:
        self.module, self.job, self.reporter = module, job, reporter
        self.trainer = job.trainer
        self.device = job.placement.device
        self.optimizer = optimizer_for(module, self.trainer, self.device, job.multipliers)
        self.clip, self.step = clip_of(self.optimizer, self.trainer.clip), step_of(self.optimizer)
        self.trained_weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self.rng = np.random.default_rng(job.seed)
        self.micro_batch = self.trainer.micro_batch or self.trainer.batch_size
        self.epoch_steps = _epoch_steps(job)
        self.budget_steps = budget(job)
        self.outcome = Trained(micro_batch=self.micro_batch)
        self.pending: list[tuple[int, float, torch.Tensor]] = []
        self.losses: list[float] = []
        self.last_rate = 0.0
        self.best: tuple[float, float] | None = None
        self.best_weights: dict[str, torch.Tensor] = {}
        self.since_best = 0
        self.training_seconds = 0.0
        self.since: float | None = None
        self.examples = 0
        self.call = Caller(module, self.trainer.compile, self.device, job.seed, self.rest)

    def run(self) -> None:
        while not self.spent():
            self.since = time.perf_counter()
            self.module.train()
            self.one_epoch()
            self.training_seconds, self.since = self.elapsed(), None
            self.judge()
            if self.trainer.patience is not None and self.since_best >= self.trainer.patience:
                self.outcome.stopped = f"no better validation accuracy for {self.since_best} epochs"
                break
        if self.outcome.best_epoch != len(self.outcome.history):
            self.module.load_state_dict(self.best_weights)
        self.outcome.seconds = self.training_seconds
        self.outcome.examples_per_second = self.speed()
        self.outcome.compile = self.call.facts()

    def elapsed(self) -> float:
        """Seconds of training, without those of evaluation."""
        return self.training_seconds + (0.0 if self.since is None else time.perf_counter() - self.since)

    def speed(self) -> float:
        """Examples a second of training."""
        return self.examples / max(self.elapsed(), 1e-9)

    def spent(self) -> bool:
        return self.progress() >= 1

    def progress(self) -> float:
        """Share of the budget spent, by whichever of steps and seconds is nearer its end."""
        by_steps = self.outcome.steps / self.budget_steps
        return by_steps if self.trainer.seconds is None else max(by_steps, self.elapsed() / self.trainer.seconds)

    def rest(self, step: float) -> float:
        """Seconds that the training goes on at most, with steps of so many seconds."""
        by_steps = (self.budget_steps - self.outcome.steps) * step
        return by_steps if self.trainer.seconds is None else min(by_steps, self.trainer.seconds - self.elapsed())

    def one_epoch(self) -> None:
        plan = plan_epoch(self.job.train.lengths, len(self.job.train), self.trainer.batch_size, self.rng)
        left = plan[: self.budget_steps - self.outcome.steps]
        with contextlib.closing(self.job.train.follow(left)) as batches:
            for batch in batches:
                self.one_step(batch)
                if self.spent():
                    break
        self.look()

    def one_step(self, batch: Batch) -> None:
        interrupts.require_none()
        # The middle of the step, so that neither the first nor the last one has a rate of 0.
        middle = self.progress() + 0.5 / self.budget_steps
        share = rate(self.trainer.schedule, self.trainer.warmup, middle)
        for group in self.optimizer.param_groups:
            group["lr"] = self.trainer.learning_rate * group["multiplier"] * share
        with self.call.step(batch.inputs[0].numel()):
            loss = self.descend(batch)
        self.outcome.steps += 1
        self.examples += len(batch)
        self.pending.append((self.outcome.steps, self.trainer.learning_rate * share, loss))
        shown = None
        if self.device.type == "cpu" or len(self.pending) >= CHECK_EVERY:
            self.look()
            shown = self.losses[-1]
        self.reporter.step(self.outcome.steps, shown, self.speed())

    def descend(self, batch: Batch) -> torch.Tensor:
        """One optimizer step; halves the micro-batch for as long as memory does not suffice."""
        while True:
            in_another_way = False
            try:
                loss = self.gradients(batch)
            except Exception as error:
                in_another_way = self.call.failed(error)
                if not in_another_way and not evaluation.is_out_of_memory(error):
                    raise
            else:
                if self.update():
                    break
            self.call.drop()
            self.optimizer.zero_grad(set_to_none=True)
            if not in_another_way:
                self.halve(batch)
        self.call.clear()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def update(self) -> bool:
        """Clip, and let the optimizer take its step. Returns False when memory did not suffice for clipping, or for the
        state that the first step of an optimizer makes; weights and state are then as they were.

        Raises TrainingError where a step that ran out of memory has moved weights: again it would move them twice."""
        try:
            before = None if self.optimizer.state else self.sums()
            divisor = self.clip()
        except Exception as error:
            if not evaluation.is_out_of_memory(error):
                raise
            return False
        try:
            self.step(divisor)
            return True
        except Exception as error:
            if not evaluation.is_out_of_memory(error):
                raise
            if before is None or before != self.sums():
                raise TrainingError(
                    "Memory ran out amid a step of the optimizer, when weights may have been moved already.\n"
                    "Use a smaller model or batch (trainer.batch_size), or an optimizer with less of a state "
                    "(trainer.optimizer=sgd)."
                ) from error
            self.optimizer.state.clear()  # of some weights it may be there in part
            return False

    def sums(self) -> list[float]:
        """Of each trained weight: whether one was moved. A fused step does not show in a tensor's version."""
        found = torch.stack([weight.detach().sum(dtype=torch.float64) for weight in self.trained_weights])
        values: list[float] = found.tolist()
        return values

    def gradients(self, batch: Batch) -> torch.Tensor:
        """Accumulate the gradient of the batch's mean loss in parts of the micro-batch's size. Returns that loss."""
        if len(batch) <= self.micro_batch:
            return self.backward(batch, 1.0)
        count = math.ceil(len(batch) / self.micro_batch)
        edges = [len(batch) * at // count for at in range(count + 1)]  # of even size, so that none is left with one
        parts = [batch.part(start, stop) for start, stop in pairwise(edges)]
        losses = []
        for part in parts:
            losses.append(self.backward(part, len(part) / len(batch)))
            self.call.own(self.trained_weights)
        return torch.stack(losses).sum()

    def backward(self, part: Batch, share: float) -> torch.Tensor:
        with self.call.warnings_logged():
            with devices.autocast(self.device, self.job.placement.precision):
                answers = self.call(*part.inputs)
            answers = evaluation.check_logits(answers, len(part), self.job.classes)
            loss = loss_of(self.trainer.loss, answers, part.labels) * share
            loss.backward()  # type: ignore[no-untyped-call]
        self.call.settle()
        return loss.detach()

    def halve(self, batch: Batch) -> None:
        size = min(self.micro_batch, len(batch))
        if size == 1:
            raise TrainingError(evaluation.NO_MEMORY)
        self.micro_batch = self.outcome.micro_batch = size // 2
        self.call.halved()
        memory.release()
        log.warning("out of memory: going on with micro-batches of %d (batch size unchanged)", self.micro_batch)

    def look(self) -> None:
        """Fetch the losses not yet looked at. Raises TrainingError at the first that is not finite."""
        values = torch.stack([loss for *_, loss in self.pending]).tolist() if self.pending else []
        for (step, learning_rate, _), value in zip(self.pending, values, strict=True):
            self.require_finite("loss", value, step, learning_rate)
            self.losses.append(value)
            self.last_rate = learning_rate
        self.pending.clear()

    def require_finite(self, what: str, value: float, step: int, learning_rate: float) -> None:
        if not math.isfinite(value):
            epoch = (step - 1) // self.epoch_steps + 1
            raise TrainingError(
                f"The {what} is {value} at epoch {epoch}, step {step}, learning rate {learning_rate:.3g}.\n"
                f"Try a smaller trainer.learning_rate, trainer.clip=1, or trainer.precision=fp32."
            )

    def keep_weights(self) -> None:
        """Copy the module's weights: on their device, or in main memory where that has no room for another copy."""
        state = {name: value.detach() for name, value in self.module.state_dict().items()}
        try:
            for name, value in state.items():
                if name in self.best_weights:
                    self.best_weights[name].copy_(value)
                else:
                    self.best_weights[name] = value.clone()
            return
        except Exception as error:
            if not evaluation.is_out_of_memory(error):
                raise
            if self.device.type == "cpu":
                raise TrainingError(
                    "Memory does not suffice for a copy of the weights of the best epoch.\n"
                    "Use a smaller model, or train one epoch (trainer.epochs=1), which needs no copy."
                ) from error
        self.best_weights = {name: value.to("cpu", copy=True) for name, value in state.items()}

    @phase("validating")
    def answers(self) -> np.ndarray:
        """Logits of the validation split, (examples, classes) float32."""
        # What memory sufficed for in training is enough for twice as many without gradients.
        size = min(self.micro_batch, self.trainer.batch_size)
        precision, split = validating_in(self.job, self.spent()), self.job.validation

        def answered(size: int) -> np.ndarray:
            return evaluation.logits(self.module, split, size, self.job.classes, precision=precision)

        return evaluation.within_memory(size, answered)

    def judge(self) -> None:
        """Evaluate on validation, write the history's row and keep the weights when they are the best so far, and with
        them what is stored of their answers where these are in float32."""
        answers = self.answers()
        labels = self.job.validation.labels.cpu().numpy()
        accuracy, loss = judged(answers, labels)
        # The last step's weights have no further loss to betray them.
        self.require_finite("validation loss", loss, self.outcome.steps, self.last_rate)
        self.outcome.history.append(
            {
                "epoch": len(self.outcome.history) + 1,
                "step": self.outcome.steps,
                "loss": float(np.mean(self.losses)) if self.losses else math.nan,
                "validation_loss": loss,
                "validation_accuracy": accuracy,
                "seconds": self.training_seconds,
                "examples_per_second": self.speed(),
            }
        )
        self.losses.clear()
        self.since_best += 1
        if self.best is None or (accuracy, -loss) > self.best:
            self.best, self.since_best = (accuracy, -loss), 0
            self.outcome.best_epoch = len(self.outcome.history)
            if validating_in(self.job, self.spent()) is Precision.fp32:
                self.outcome.validation = answers
            if not self.spent():
                self.keep_weights()
        self.reporter.epoch(self.outcome.history[-1])
