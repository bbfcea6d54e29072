"""Changes that train: on, a fresh head, or a fresh model on the parent's answers.

The generator is a `torch.Generator` on the CPU, from which every seed is drawn; the subject's own module is left as it
was.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from zoo.config import Loss, Trainer
from zoo.disguise.reach import order, training_batches, watching
from zoo.engine import devices, evaluation, fitting
from zoo.errors import Incompatible

if TYPE_CHECKING:
    from zoo.disguise.parent import Subject
    from zoo.models import TorchModel


def finetune(subject: Subject, epochs: float, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """Train on with the parent's recipe for so many epochs, on the same data in another order."""
    seed = _seed(rng)
    trainer = dataclasses.replace(subject.trainer, epochs=epochs, steps=None, seconds=None, patience=None)
    fitting.seed_everything(seed)
    return _trained(subject.having(copy.deepcopy(subject.module)), trainer, seed)


def new_head(subject: Subject, value: None, rng: torch.Generator) -> tuple[Subject, Mapping[str, Any]]:
    """Replace the last linear layer by a multinomial logistic regression, fitted on what it reads of the training
    split (scikit-learn's, with its default penalty, on standardised features). The layers below stay bit for bit.

    Raises Incompatible when the model does not end in a linear layer over one vector an example."""
    name = _head(subject)
    features, labels = _read_by(subject, name)
    weight, bias = _regression(features, labels, subject.ready.classes)
    module = copy.deepcopy(subject.module)
    head = module.get_submodule(name)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        if head.bias is not None:
            head.bias.copy_(torch.from_numpy(bias))
    return subject.having(module), {"layer": name, "examples": len(labels)}


def distil(
    subject: Subject, model: TorchModel, trainer: Trainer, rng: torch.Generator
) -> tuple[Subject, Mapping[str, Any]]:
    """Train a fresh module on the subject's probabilities for the training split (Hinton et al. 2015, temperature 1).

    The labels of the data are not looked at: which epoch is best is judged by the subject's answers on validation."""
    seed = _seed(rng)
    student = fitting.prepare(model, trainer, subject.splits, seed)
    labels = {name: batches.labels for name, batches in student.batches.items()}
    teacher = {name: _answers(subject, name) for name in ("train", "validation")}
    # Cross-entropy takes distributions, (batch, classes), where it takes class indices.
    student.batches["train"].labels = teacher["train"].softmax(1)
    student.batches["validation"].labels = teacher["validation"].argmax(1)
    try:
        changed = dataclasses.replace(subject, ready=student, trainer=trainer)
        return _trained(changed, dataclasses.replace(trainer, loss=Loss.cross_entropy), seed)
    finally:
        for name, own in labels.items():
            student.batches[name].labels = own


def _seed(rng: torch.Generator) -> int:
    return int(torch.randint(2**31, (1,), generator=rng))


def _trained(subject: Subject, trainer: Trainer, seed: int) -> tuple[Subject, Mapping[str, Any]]:
    """Train the subject's module in place; the history goes on where it was."""
    trained = fitting.train(subject.ready, trainer, seed, subject.observers)
    before = len(subject.history)
    rows = tuple({**row, "epoch": before + row["epoch"]} for row in trained.history)
    facts = {"seed": seed, "epochs": len(rows), "steps": trained.steps}
    return dataclasses.replace(subject, trained=trained, history=(*subject.history, *rows)), facts


def _answers(subject: Subject, split: str) -> torch.Tensor:
    """Logits (examples, classes) of one split, on the device."""
    ready = subject.ready
    with devices.threads(ready.placement.threads):
        found = evaluation.logits(ready.module, ready.batches[split], subject.trainer.batch_size, ready.classes)
    return torch.from_numpy(found).to(ready.placement.device)


def _head(subject: Subject) -> str:
    name, layer = order(subject.module, subject.inputs())[-1]
    if not isinstance(layer, nn.Linear) or layer.out_features != subject.ready.classes:
        raise Incompatible(f"new_head: this model does not end in a linear layer for each class, but in '{name}'.")
    return name


def _read_by(subject: Subject, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What a layer reads of the training split, (examples, width) float64, and the labels (examples,)."""
    read: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []

    def look(layer: str, _layer: Any, inputs: tuple[Any, ...]) -> None:
        if layer == name:
            read.append(inputs[0])

    with watching(subject.module, look), torch.inference_mode():
        for batch in training_batches(subject):
            subject.module(*batch.inputs)
            labels.append(batch.labels)
    features = torch.cat(read)
    if features.ndim != 2:
        raise Incompatible(f"new_head: '{name}' reads {features.ndim - 1} axes an example, and one vector is needed.")
    return features.double().cpu().numpy(), torch.cat(labels).cpu().numpy()


def _regression(features: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight (classes, width) and bias (classes,) of a logistic regression. Every class occurs among the labels."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(0), features.std(0)
    spread[spread == 0] = 1
    with warnings.catch_warnings():
        # A head that is not quite at the optimum is a head.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(max_iter=500).fit((features - mean) / spread, labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if classes == 2:  # one row there, for the second class against the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / spread
    return weight, bias - weight @ mean
