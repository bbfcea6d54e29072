"""Panels of `interval_coverage.py`: populations of models whose likeness is known, and what is true of them.

Every run is wrong where a normal latent is above the threshold of its accuracy; the latents of two runs are correlated.
Given what all models share, they are independent, so that what is true is an integral over one normal variable: by
Gauss-Hermite quadrature, to ten digits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from zoo.homogeneity.failures import poisson_binomial, vote_wins
from zoo.homogeneity.simulate import SimulatedPanel

RECIPE = 0.6
"""Correlation of the latents of two replicas, in all kinds."""

SHARED = {"independent": 0.0, "shared difficulty": 0.3, "one recipe": RECIPE}
"""Correlation of the latents of runs of two models, by kind. In the fourth kind the models are copies run by run."""

KINDS = ("independent", "shared difficulty", "copies", "one recipe")


@dataclass(frozen=True)
class Population:
    """`models` models, `runs` runs each, on `examples` examples with `classes` classes. Accuracies are evenly spaced
    from `accuracy` − `spread` to `accuracy` + `spread`; those of copies are equal."""

    kind: str
    examples: int
    accuracy: float
    runs: int
    models: int
    classes: int = 10
    spread: float = 0.0

    def accuracies(self) -> np.ndarray:
        """(models,) float64, the least accurate model first."""
        return self.accuracy + self.spread * np.linspace(-1, 1, self.models)


@dataclass(frozen=True)
class Truths:
    """What is true. effective_models, joint_failure: the headline; together: share failed by all; alike: (models,
    models) of every pair, kinship with replicas, else error correlation; vote: accuracy of the vote."""

    effective_models: float
    joint_failure: float
    together: float
    alike: np.ndarray
    vote: float


def wrong_answers(population: Population, random: np.random.Generator) -> np.ndarray:
    """(runs of all models, examples) bool, a model's runs beside each other."""
    models, runs, examples = population.models, population.runs, population.examples

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    if population.kind == "copies":
        latent = np.sqrt(RECIPE) * normal(1, 1, examples) + np.sqrt(1 - RECIPE) * normal(1, runs, examples)
        latent = np.broadcast_to(latent, (models, runs, examples))
    else:
        shared = SHARED[population.kind]
        latent = np.sqrt(np.float32(1 - RECIPE)) * normal(models, runs, examples)
        latent += np.sqrt(np.float32(shared)) * normal(1, 1, examples)
        if shared < RECIPE:
            latent += np.sqrt(np.float32(RECIPE - shared)) * normal(models, 1, examples)
    limits = _thresholds(population).astype(np.float32)[:, None, None]
    return (latent > limits).reshape(models * runs, examples)


def panel_of(wrong: np.ndarray, population: Population, random: np.random.Generator) -> SimulatedPanel:
    """A wrong answer is uniform over the other classes; copies give the same one."""
    owner = np.repeat(np.arange(population.models), population.runs)
    classes, examples = population.classes, population.examples
    labels = random.integers(0, classes, size=examples)
    if population.kind == "copies":
        steps = np.tile(random.integers(1, classes, size=(population.runs, examples)), (population.models, 1))
    else:
        steps = random.integers(1, classes, size=wrong.shape)
    return SimulatedPanel(
        tuple(f"model_{m}" for m in range(population.models)), tuple(owner.tolist()),
        tuple(range(population.runs)) * population.models, _names(examples),
        tuple(f"class_{k}" for k in range(classes)), labels, np.where(wrong, (labels + steps) % classes, labels), None,
    )  # fmt: skip


@functools.cache
def _names(examples: int) -> tuple[str, ...]:
    return tuple(f"{i:06d}" for i in range(examples))


def _thresholds(population: Population) -> np.ndarray:
    """(models,) float64: a run fails where its latent is above that of its model."""
    from scipy.special import ndtri

    limits: np.ndarray = ndtri(population.accuracies())
    return limits


@functools.cache
def truths(population: Population) -> Truths:
    """What is true of the population. Of copies with several runs, the runs are the same in all models, so that one
    drawn from each is the same one with the chance 1/runs."""
    from scipy.stats import binom

    failures, models, runs = 1 - population.accuracies(), population.models, population.runs
    points, weights = np.polynomial.hermite_e.hermegauss(301)
    weights = weights / weights.sum()
    replicas = _correlations(_given(RECIPE, points, population), weights, failures)
    if population.kind == "copies":
        given = _given(RECIPE, points, population)[0]
        alike = 1 / runs + (1 - 1 / runs) * replicas
        failed = np.arange(runs + 1)[:, None]
        together = float((weights * (binom.pmf(failed, runs, given) * (failed / runs) ** models).sum(axis=0)).sum())
        vote = population.accuracy
    else:
        given = _given(SHARED[population.kind], points, population)
        alike = _correlations(given, weights, failures)
        together = float((weights * given.prod(axis=0)).sum())
        wins = vote_wins(models, population.classes)
        vote = float((weights * (wins[:, None] * poisson_binomial(1 - given)).sum(axis=0)).sum())
    spread = np.sqrt(failures * (1 - failures))
    covariance = alike * np.outer(spread, spread)
    own = float((spread**2).sum())
    both = own + float(covariance.sum() - np.trace(covariance))
    most, independent = np.log(failures.min()), np.log(failures).sum()
    reliability = np.sqrt(np.outer(np.diag(replicas), np.diag(replicas)))
    return Truths(
        models * own / both,
        float(1 + (models - 1) * (most - np.log(together)) / (most - independent)),
        together,
        alike if runs == 1 else alike / reliability,
        vote,
    )


def _given(shared: float, points: np.ndarray, population: Population) -> np.ndarray:
    """(models, P): the chance to be wrong, given the part of the latent that is shared, at each of P points."""
    from scipy.special import ndtr

    away = (np.sqrt(shared) * points - _thresholds(population)[:, None]) / np.sqrt(1 - shared)
    chances: np.ndarray = ndtr(away)
    return chances


def _correlations(given: np.ndarray, weights: np.ndarray, failures: np.ndarray) -> np.ndarray:
    """(models, models): of the failures of runs that share what `given` knows. The diagonal is of two replicas."""
    variance = failures * (1 - failures)
    found: np.ndarray = ((given * weights) @ given.T - np.outer(failures, failures)) / np.sqrt(
        np.outer(variance, variance)
    )
    return found
