"""Several seeds of one small model trained at once, as one vectorised model (`torch.func`)."""

from __future__ import annotations

import copy
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call, stack_module_state, vmap

from zoo import interrupts
from zoo.config import Compile, Loss, Precision
from zoo.engine import devices
from zoo.engine.batches import Batch, plan_epoch, plan_evaluation, sent
from zoo.engine.evaluation import check_logits, in_order, is_out_of_memory
from zoo.engine.training import Job, Reporter, Trained, budget, judged, optimizer_over, rate, validating_in
from zoo.errors import Incompatible, TrainingError

log = logging.getLogger("zoo")

SLOW = "performance drop"  # what torch warns of where it has no vectorised form of an operation

NOT_COMPILED: Mapping[Compile, Mapping[str, Any]] = {
    Compile.none: {"compile": "none"},
    Compile.auto: {
        "compile": "none",
        "compile_reason": "seeds that are trained as one vectorised model are not compiled",
        "compile_tried": [],
    },
}
"""What can be asked of a vectorised model, and what its seeds' records say of it."""

INSTEAD = "Train the seeds side by side instead: -m 'seed=range({count})' hydra/launcher=joblib"


@dataclass
class Replica:
    """One seed of a vectorised training. trained: as of a training of its own, its seconds a share of those of all;
    error: why it failed, while the others went on."""

    trained: Trained = field(default_factory=Trained)
    error: TrainingError | None = None
    best: tuple[float, float] | None = None
    since_best: int = 0
    done: bool = False
    losses: list[float] = field(default_factory=list)


Told = Callable[[int, Mapping[str, float]], None]
"""Called after an epoch with a replica's number and its row of the history."""


def train(modules: Sequence[torch.nn.Module], job: Job, reporter: Reporter, told: Told) -> list[Replica]:
    """Train all modules in place and leave the weights of its own best epoch in each.

    modules: equal but for their weights; that at i is trained as by `training.train` with `job.seed + i`, in the order
    of examples that a run of that seed has, with its own clipping, best epoch and early stopping. Random numbers of the
    modules (dropout) come from torch's global generator, so a result is that of the seed within noise, not bit by bit.
    Batches of one step are padded to the longest of all replicas, a shorter one filled with examples of weight 0.

    Ask `check` first. Raises TrainingError when memory does not suffice for all.
    """
    together = _Together(modules, job, reporter, told)
    with devices.kept_memory(job.placement.device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", f".*{SLOW}", UserWarning)
        try:
            together.run()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"Memory does not suffice for {len(modules)} replicas at once.\nAsk for fewer, or take a smaller "
                f"trainer.batch_size. {INSTEAD.format(count=len(modules))}"
            ) from error
    return together.replicas


def check(modules: Sequence[torch.nn.Module], job: Job) -> None:
    """Raise Incompatible when `vmap` does not take the modules (batch norm, control flow that depends on data), or when
    they give other logits in it."""
    instead = INSTEAD.format(count=len(modules))
    norms = [
        name for name, part in modules[0].named_modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)
    ]
    if norms:
        raise Incompatible(
            f"replicas={len(modules)}: '{norms[0]}' is a batch norm, whose running statistics cannot be vectorised.\n"
            f"{instead}"
        )
    if job.trainer.compile not in NOT_COMPILED or job.trainer.micro_batch:
        raise Incompatible(f"replicas={len(modules)} goes with neither trainer.compile nor trainer.micro_batch.")
    stacked = _Stacked(modules)
    batch = job.train.take(np.arange(min(2, len(job.train))))
    inputs = tuple(tensor.expand(len(modules), *tensor.shape) for tensor in batch.inputs)
    training = [module.training for module in modules]
    exact = devices.autocast(job.placement.device, Precision.fp32)
    try:
        with warnings.catch_warnings(record=True) as warned, exact:
            warnings.simplefilter("always")
            stacked.call(inputs, 0, training=True).float().sum().backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                found = stacked.call(batch.inputs, None, training=False)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise Incompatible(
            f"replicas={len(modules)}: this module cannot be vectorised ({type(error).__name__}: {reason}).\n{instead}"
        ) from error
    for text in sorted({str(warning.message) for warning in warned if SLOW in str(warning.message)}):
        log.info("computed replica by replica: %s", text.partition("batching rule for ")[2].split(". ")[0])
    with torch.no_grad(), devices.autocast(job.placement.device, Precision.fp32):
        alone = torch.stack([module.eval()(*batch.inputs) for module in modules])
    for module, mode in zip(modules, training, strict=True):
        module.train(mode)
    if not torch.allclose(found.float(), alone.float(), rtol=1e-3, atol=1e-3, equal_nan=True):
        raise Incompatible(f"replicas={len(modules)}: vectorised, this module gives other logits.\n{instead}")


class _Stacked:
    """The weights of all replicas, one replica a row, and the module that they are called with."""

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        self.params, self.buffers = stack_module_state(list(modules))
        # Not on the meta device, where weights that are tied would be two.
        self.module = copy.deepcopy(modules[0])

    def call(self, inputs: tuple[torch.Tensor, ...], at: int | None, training: bool) -> torch.Tensor:
        """(replicas, batch, classes). at: 0 when the inputs have a row a replica as well, None for the same for all."""
        self.module.train(training)

        def one(params: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], *row: torch.Tensor) -> torch.Tensor:
            answers: torch.Tensor = functional_call(self.module, (params, buffers), row)
            return answers

        dims = (0, 0, *[at] * len(inputs))
        random = "different" if training else "error"
        answers: torch.Tensor = vmap(one, in_dims=dims, randomness=random)(self.params, self.buffers, *inputs)
        return answers

    def state(self) -> dict[str, torch.Tensor]:
        """Weights and buffers by name, (replicas, *shape), detached."""
        return {name: value.detach() for name, value in {**self.params, **self.buffers}.items()}


class _Together:
    """State of one vectorised training."""

    def __init__(self, modules: Sequence[torch.nn.Module], job: Job, reporter: Reporter, told: Told) -> None:
        self.modules, self.job, self.reporter, self.told = modules, job, reporter, told
        self.trainer, self.device = job.trainer, job.placement.device
        size, told_of = job.trainer.batch_size, NOT_COMPILED[job.trainer.compile]
        self.replicas = [Replica(Trained(micro_batch=size, compile=told_of)) for _ in modules]
        self.stacked = _Stacked(modules)
        named = [(name, weight, weight.ndim > 2) for name, weight in self.stacked.params.items()]
        self.optimizer = optimizer_over(named, self.trainer, self.device, job.multipliers)
        self.rngs = [np.random.default_rng(job.seed + number) for number in range(len(modules))]
        self.best = {name: value.clone() for name, value in self.stacked.state().items()}
        self.steps, self.budget_steps, self.examples, self.seconds = 0, budget(job), 0, 0.0

    def run(self) -> None:
        while self.progress() < 1 and not all(replica.done for replica in self.replicas):
            began = time.perf_counter()
            self.one_epoch(began)
            self.seconds += time.perf_counter() - began
            self.judge()
        for number, module in enumerate(self.modules):
            kept = dict(module.named_parameters()) | dict(module.named_buffers())
            with torch.no_grad():
                for name, value in kept.items():
                    value.copy_(self.best[name][number])

    def progress(self, running: float = 0.0) -> float:
        by_steps = self.steps / self.budget_steps
        seconds = self.trainer.seconds
        return by_steps if seconds is None else max(by_steps, (self.seconds + running) / seconds)

    def one_epoch(self, began: float) -> None:
        train = self.job.train
        plans = [plan_epoch(train.lengths, len(train), self.trainer.batch_size, rng) for rng in self.rngs]
        losses = []
        for rows in list(zip(*plans, strict=True))[: self.budget_steps - self.steps]:
            losses.append(self.one_step(rows, self.progress(time.perf_counter() - began)))
            running = time.perf_counter() - began
            self.reporter.step(self.steps, None, self.examples / max(self.seconds + running, 1e-9))
            if self.progress(running) >= 1:
                break
        for replica, values in zip(self.replicas, torch.stack(losses, 1).tolist(), strict=True):
            replica.losses = values

    def one_step(self, rows: Sequence[np.ndarray], progress: float) -> torch.Tensor:
        """One step of every replica, (replicas,) losses; a replica that is done takes steps that nobody reads."""
        interrupts.require_none()
        share = rate(self.trainer.schedule, self.trainer.warmup, progress + 0.5 / self.budget_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.trainer.learning_rate * group["multiplier"] * share
        batch, weight = self.gather(rows)
        inputs = tuple(tensor.view(*weight.shape, *tensor.shape[1:]) for tensor in batch.inputs)
        with devices.autocast(self.device, self.job.placement.precision):
            answers = self.stacked.call(inputs, 0, training=True)
        check_logits(answers.flatten(0, 1), len(batch), self.job.classes)
        each = _losses(self.trainer.loss, answers.float(), batch.labels.view(weight.shape))
        losses = (each * weight).sum(1) / weight.sum(1)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self.clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self.examples += sum(len(some) for some in rows)
        return losses.detach()

    def gather(self, rows: Sequence[np.ndarray]) -> tuple[Batch, torch.Tensor]:
        """The examples of all replicas end to end, each part filled up to the largest, and (replicas, size) weights."""
        size = max(len(some) for some in rows)
        index = np.stack([np.resize(some, size) for some in rows])
        weight = np.stack([np.arange(size) < len(some) for some in rows]).astype(np.float32)
        return self.job.train.take(index.reshape(-1)), sent(weight, self.device)

    def clip(self) -> None:
        """Each replica's gradient to the largest norm, as `clip_grad_norm_` does."""
        grads = [weight.grad for group in self.optimizer.param_groups for weight in group["params"]]
        present = [grad for grad in grads if grad is not None]
        if not self.trainer.clip or not present:
            return
        norms = torch.stack([grad.flatten(1).norm(dim=1) for grad in present]).norm(dim=0)
        factor = (self.trainer.clip / (norms + 1e-6)).clamp(max=1.0)
        for grad in present:
            grad.mul_(factor.reshape(-1, *[1] * (grad.ndim - 1)))

    @torch.no_grad()
    def logits(self) -> np.ndarray:
        """(replicas, validation examples, classes) float32, computed in `validating_in`."""
        batches, precision = self.job.validation, validating_in(self.job, self.progress() >= 1)
        found = torch.empty(len(batches), len(self.modules), self.job.classes, device=self.device)
        plan = plan_evaluation(batches.lengths, len(batches), 2 * self.trainer.batch_size)
        done = 0
        for rows in plan:
            with devices.autocast(self.device, precision):
                answers = self.stacked.call(batches.take(rows).inputs, None, training=False)
            found[done : done + len(rows)] = answers.float().transpose(0, 1)
            done += len(rows)
        return in_order(found.cpu().numpy(), plan).transpose(1, 0, 2)

    def judge(self) -> None:
        """Evaluate on validation; of each replica that is not done write the row and keep the weights when they are its
        best so far."""
        labels = self.job.validation.labels.cpu().numpy()
        rows = []
        for number, (replica, answers) in enumerate(zip(self.replicas, self.logits(), strict=True)):
            if replica.done:
                continue
            accuracy, loss = judged(answers, labels)
            if not all(map(math.isfinite, [*replica.losses, loss])):
                replica.done = True
                replica.error = TrainingError(
                    f"The loss of seed {self.job.seed + number} is not finite in epoch "
                    f"{len(replica.trained.history) + 1}.\nTry a smaller trainer.learning_rate or trainer.clip=1."
                )
                continue
            rows.append(self.note(replica, accuracy, loss))
            self.told(number, rows[-1])
            if replica.since_best == 0:
                for name, value in self.stacked.state().items():
                    self.best[name][number] = value[number]
        if rows:
            self.reporter.epoch({name: float(np.mean([row[name] for row in rows])) for name in rows[0]})

    def note(self, replica: Replica, accuracy: float, loss: float) -> dict[str, float]:
        """A replica's row of the history, and what follows from it."""
        trained, count = replica.trained, len(self.modules)
        trained.steps, trained.seconds = self.steps, self.seconds / count
        trained.examples_per_second = self.examples / max(self.seconds, 1e-9)
        row = {
            "epoch": len(trained.history) + 1,
            "step": self.steps,
            "loss": float(np.mean(replica.losses)),
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "seconds": trained.seconds,
            "examples_per_second": trained.examples_per_second,
        }
        trained.history.append(row)
        replica.since_best += 1
        if replica.best is None or (accuracy, -loss) > replica.best:
            replica.best, replica.since_best, trained.best_epoch = (accuracy, -loss), 0, len(trained.history)
        if self.trainer.patience is not None and replica.since_best >= self.trainer.patience:
            replica.done = True
            trained.stopped = f"no better validation accuracy for {replica.since_best} epochs"
        return row


def _losses(kind: Loss, answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(replicas, batch) from (replicas, batch, classes); its mean over a batch is `training.loss_of`."""
    if kind is Loss.cross_entropy:
        return F.cross_entropy(answers.transpose(1, 2), labels, reduction="none")
    return (answers.softmax(2) - F.one_hot(labels, answers.shape[2])).square().mean(2)
