"""A third-party plugin: a bag-of-words model, a synthetic dataset of messages, a task and an observer.

The observer writes a line a hook to the file that the environment variable ZOO_EXAMPLE_DIARY names.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import zoo

if TYPE_CHECKING:
    import numpy as np
    import torch

_HAM = ["lunch", "meeting", "report", "train", "garden", "letter", "monday", "thanks"]
_SPAM = ["prize", "winner", "free", "offer", "click", "money", "casino", "urgent"]
_EITHER = ["the", "a", "to", "please", "now", "we", "you", "today", "is", "for", "with", "at"]
_NOISE = 0.08  # share of words of the other class, so that some messages cannot be told


@dataclass
class BagOfWords(zoo.TorchModel):
    """The mean of learned word vectors and one linear layer."""

    width: int = zoo.option(16, "numbers in a word vector", ge=1)

    name: ClassVar[str] = "bow"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text"})

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        """Words of the training split."""
        if train.modality != "text":
            raise zoo.Incompatible(f"Model 'bow' reads texts, not {train.modality} examples.")
        return zoo.WordEncoder(train, max_length=64)

    def build(self, inputs: zoo.InputSpec, classes: int) -> torch.nn.Module:
        """Embedding, masked mean, linear."""
        from zoo_example.bag import Bag

        assert inputs.vocab_size is not None
        return Bag(inputs.vocab_size, self.width, classes)

    def recipe(self, modality: zoo.Modality) -> Mapping[str, Any]:
        """It is small enough for a high rate."""
        return {"epochs": 3, "learning_rate": 0.02}


@dataclass
class Messages(zoo.Dataset):
    """Synthetic short messages, ham or spam: 300 for training, 100 for validation, 200 for the test."""

    seed: int = zoo.option(0, "of the messages that are drawn")

    name: ClassVar[str] = "messages"
    modality: ClassVar[zoo.Modality] = "text"

    def read(self) -> zoo.Data:
        """Drawn anew each time from the same seed."""
        rng = random.Random(self.seed)
        train, validation, test = (_messages(rng, count) for count in (300, 100, 200))
        return zoo.Data(classes=("ham", "spam"), train=train, validation=validation, test=test)


@dataclass
class SpamDetection(zoo.Task):
    """Tell spam from other messages; also reports how much of the spam is found."""

    name: ClassVar[str] = "spam_detection"
    modality: ClassVar[zoo.Modality] = "text"
    dataset: ClassVar[str] = "messages"

    def check(self, splits: zoo.Splits) -> None:
        """There must be a class called spam."""
        super().check(splits)
        if tuple(splits.classes) != ("ham", "spam"):
            raise zoo.Incompatible(
                f"Task 'spam_detection' takes classes ham and spam; got {', '.join(splits.classes)}."
            )

    def metrics(self) -> Mapping[str, Any]:
        """Share of the spam that is called spam."""
        return {"spam_recall": spam_recall}


def spam_recall(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
    """Weighted recall of class 1. In [0, 1]; NaN when no spam was drawn."""
    spam = weights * (labels == 1)
    total = float(spam.sum())
    return float(spam @ (probabilities.argmax(axis=1) == 1)) / total if total else float("nan")


def _messages(rng: random.Random, count: int) -> zoo.Labelled:
    labels = [index % 2 for index in range(count)]
    texts = []
    for label in labels:
        own, other = (_SPAM, _HAM) if label else (_HAM, _SPAM)
        words = [
            rng.choice(_EITHER) if rng.random() < 0.7 else rng.choice(other if rng.random() < _NOISE * 3 else own)
            for _ in range(rng.randint(5, 12))
        ]
        texts.append(f"{' '.join(words)} {rng.randint(10_000, 99_999)}")
    return zoo.Labelled(examples=texts, labels=labels)


def _note(event: str, **details: object) -> None:
    if diary := os.environ.get("ZOO_EXAMPLE_DIARY"):
        with open(diary, "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **details}) + "\n")


@zoo.hookimpl
def zoo_models() -> list[type[zoo.TorchModel]]:
    """One model."""
    return [BagOfWords]


@zoo.hookimpl
def zoo_datasets() -> list[type[zoo.Dataset]]:
    """One dataset."""
    return [Messages]


@zoo.hookimpl
def zoo_tasks() -> list[type[zoo.Task]]:
    """One task."""
    return [SpamDetection]


@zoo.hookimpl
def zoo_config_package() -> str:
    """The variant `model=bow_wide`."""
    return "zoo_example.conf"


@zoo.hookimpl
def zoo_run_started(run: Mapping[str, Any]) -> None:
    """Into the diary."""
    _note("started", seed=run["seed"])


@zoo.hookimpl
def zoo_epoch_ended(epoch: Mapping[str, float]) -> None:
    """Into the diary. A hook may take fewer arguments than its specification names."""
    _note("epoch", epoch=epoch["epoch"])


@zoo.hookimpl
def zoo_run_ended(run: Mapping[str, Any], folder: Path) -> None:
    """Into the diary."""
    _note("ended", status=run["status"], folder=str(folder))
