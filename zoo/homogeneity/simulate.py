"""Panels whose true likeness is known: what the measures are calibrated on, here and in the documentation.

Every run is right where a normal latent is below the threshold of its accuracy. The latent of replica s of model m at
example i is D_i (difficulty) + G_i (a pair's own) + H_mi (the model's own) + e_msi (noise), independent normals whose
variances sum to 1; what replicas have in common is all but the noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Truth:
    """A population of models.

    models, replicas, examples, classes: sizes. accuracy: of every model, or one number each, in (0, 1).
    difficulty: variance all models share; noise: variance of one replica alone; pair: extra variance that models 0 and
    1 share; what is left of 1 is a model's own, shared by its replicas only.
    same: models 0 and 1 are one recipe under two names.
    """

    models: int = 4
    replicas: int = 3
    examples: int = 1500
    classes: int = 4
    accuracy: float | tuple[float, ...] = 0.7
    difficulty: float = 0.3
    noise: float = 0.4
    pair: float = 0.0
    same: bool = False
    sure: float = field(default=2.0)

    @property
    def accuracies(self) -> np.ndarray:
        """(M,) float64."""
        return np.broadcast_to(np.asarray(self.accuracy, dtype=np.float64), (self.models,))

    def latent_correlation(self) -> np.ndarray:
        """(M, M): correlation of the latents of runs of two models; the diagonal is that of two replicas."""
        full = np.full((self.models, self.models), self.difficulty)
        full[0, 1] = full[1, 0] = 1 - self.noise if self.same else self.difficulty + self.pair
        np.fill_diagonal(full, 1 - self.noise)
        return full

    def error_correlation(self) -> np.ndarray:
        """(M, M): the true φ of correctness between runs of two models, from the bivariate normal distribution."""
        from scipy.special import ndtri
        from scipy.stats import multivariate_normal

        latent, right = self.latent_correlation(), self.accuracies
        cut = ndtri(right)
        phi = np.empty_like(latent)
        for i, j in np.ndindex(*latent.shape):
            both = multivariate_normal.cdf([cut[i], cut[j]], cov=[[1, latent[i, j]], [latent[i, j], 1]])
            spread = np.sqrt(right[i] * (1 - right[i]) * right[j] * (1 - right[j]))
            phi[i, j] = (both - right[i] * right[j]) / spread
        return phi


@dataclass(frozen=True)
class SimulatedPanel:
    """A panel in memory with the attributes of `zoo.store.panel.Panel`."""

    models: tuple[str, ...]
    runs: tuple[int, ...]
    seeds: tuple[int, ...]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray | None
    calibrated: bool = False


def simulate(truth: Truth, seed: int, probabilities: bool = False) -> SimulatedPanel:
    """One panel drawn from the population. A wrong answer is uniform over the other classes."""
    from scipy.special import ndtri

    random = np.random.default_rng(seed)
    runs, n = truth.models * truth.replicas, truth.examples
    owner = np.repeat(np.arange(truth.models), truth.replicas)
    latent = _latent(truth, random, owner)
    correct = latent < ndtri(truth.accuracies)[owner, None]
    labels = random.integers(0, truth.classes, size=n)
    other = (labels + random.integers(1, truth.classes, size=(runs, n))) % truth.classes
    predictions = np.where(correct, labels, other)
    scores = None
    if probabilities:
        logits = random.normal(size=(runs, n, truth.classes))
        logits[np.arange(runs)[:, None], np.arange(n), predictions] += truth.sure + logits.max(axis=2)
        scores = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
        predictions = scores.argmax(axis=2)
        scores = scores.astype(np.float32)
    return SimulatedPanel(
        tuple(f"model_{m}" for m in range(truth.models)), tuple(owner.tolist()),
        tuple(list(range(truth.replicas)) * truth.models), tuple(f"{i:06d}" for i in range(n)),
        tuple(f"class_{k}" for k in range(truth.classes)), labels, predictions, scores,
    )  # fmt: skip


def _latent(truth: Truth, random: np.random.Generator, owner: np.ndarray) -> np.ndarray:
    """(R, N) standard normal with the truth's correlations."""
    n = truth.examples
    hard, shared = random.normal(size=n), random.normal(size=n)
    own = random.normal(size=(truth.models, n))
    if truth.same:
        own[1] = own[0]
    common = np.sqrt(truth.difficulty) * hard
    rest = np.full(truth.models, max(0.0, 1 - truth.difficulty - truth.noise))  # 1 − .9 − .1 is below 0
    latent = common + np.sqrt(truth.noise) * random.normal(size=(len(owner), n))
    if not truth.same:
        rest[:2] -= truth.pair
        latent[owner < 2] += np.sqrt(truth.pair) * shared
    mixed: np.ndarray = latent + np.sqrt(rest)[owner, None] * own[owner]
    return mixed
