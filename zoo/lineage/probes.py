"""Inputs to be asked of models: mixtures, noise, shuffled words, points where a model is undecided, training examples.

No data set holds the first four, so that no training told any model what to answer: what they answer is their own. Of
training examples every model was told the class, but how sure it is of each is its own; a student that learned another
model's probabilities learned them there (Hinton et al. 2015). The same inputs must be asked of all models that are
compared, and nothing about them may depend on the model whose training is in question, or its rank among the references
would not be uniform: boundary points are those of another reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Ask = Callable[[np.ndarray], np.ndarray]
"""Images (n, height, width, channels) uint8 → classes (n,) int64."""

STEPS = 8  # of a bisection: 2^-8 is one step of uint8
RUN = 8  # words, or characters, of one text before the other has its turn


def some(examples: np.ndarray | Sequence[str], count: int, seed: int) -> np.ndarray | list[str]:
    """Examples drawn at random, none twice; all of them, in another order, where there are no more than count."""
    rows = np.random.default_rng(seed).permutation(len(examples))[:count]
    return examples[rows] if isinstance(examples, np.ndarray) else [examples[row] for row in rows]


def mixed_images(images: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Means of two images drawn at random. images: (n, height, width, channels) uint8, n ≥ 1. Returns (count, …) uint8.
    After the mixtures of Zhang et al. (2018), with equal parts."""
    first, second = np.random.default_rng(seed).integers(len(images), size=(2, count))
    return np.asarray((images[first].astype(np.uint16) + images[second]) // 2, dtype=np.uint8)


def noise_images(images: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Images of independent uniform pixels in the shape of those given."""
    return np.random.default_rng(seed).integers(0, 256, size=(count, *images.shape[1:]), dtype=np.uint8)


def boundary_images(images: np.ndarray, ask: Ask, count: int, seed: int) -> np.ndarray:
    """Points between two images at which a model's answer changes, by bisection. Fewer than count, perhaps none, when
    the model answers many of the drawn pairs alike."""
    first, second = np.random.default_rng(seed).integers(len(images), size=(2, count))
    low, high = images[first].astype(np.float32), images[second].astype(np.float32)
    answers = ask(images[first])
    apart = answers != ask(images[second])
    low, high, answers = low[apart], high[apart], answers[apart]
    for _ in range(STEPS if len(low) else 0):
        middle = (low + high) / 2
        same = (ask(np.rint(middle).astype(np.uint8)) == answers)[:, None, None, None]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.asarray(np.rint(low), dtype=np.uint8)


def mixed_texts(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Half of each of two texts drawn at random: runs of `RUN` words, the first of the one, the second of the other,
    and so on, so that models that read only a beginning get a mixture, too. Texts without spaces, as Chinese ones, are
    cut by characters."""
    pairs = np.random.default_rng(seed).integers(len(texts), size=(count, 2))
    return [_mixed(texts[first], texts[second]) for first, second in pairs]


def _mixed(first: str, second: str) -> str:
    between = " " if " " in first.strip() or " " in second.strip() else ""
    both = [text.split() if between else list(text) for text in (first, second)]
    starts = range(0, max(map(len, both)), RUN)
    return between.join(word for turn, start in enumerate(starts) for word in both[turn % 2][start : start + RUN])


def shuffled_texts(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Texts drawn at random with their words, or without spaces their characters, in random order."""
    random = np.random.default_rng(seed)
    return [_shuffled(texts[place], random) for place in random.integers(len(texts), size=count)]


def _shuffled(text: str, random: np.random.Generator) -> str:
    between = " " if " " in text.strip() else ""
    words = text.split() if between else list(text)
    return between.join(words[place] for place in random.permutation(len(words)))
