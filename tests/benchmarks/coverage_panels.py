"""Panels of `interval_coverage.py`: populations of models whose likeness is known, and what is true of them.

Every run is wrong where a normal latent is above the threshold of its accuracy; the latents of two runs are correlated.
Given what all models share, they are independent, so that what is true is an integral over one normal variable: by
Gauss-Hermite quadrature, to ten digits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from zoo.homogeneity.failures import vote_wins
from zoo.homogeneity.simulate import SimulatedPanel

RECIPE = 0.6
"""Correlation of the latents of two replicas, in all kinds."""

SHARED = {"independent": 0.0, "shared difficulty": 0.3, "one recipe": RECIPE}
"""Correlation of the latents of runs of two models, by kind. In the fourth kind the models are copies run by run."""

KINDS = ("independent", "shared difficulty", "copies", "one recipe")


@dataclass(frozen=True)
class Population:
    """`models` models of equal accuracy, `runs` runs each, on `examples` examples with `classes` classes."""

    kind: str
    examples: int
    accuracy: float
    runs: int
    models: int
    classes: int = 10


@dataclass(frozen=True)
class Truths:
    """What is true. effective_models, joint_failure: the headline; together: share failed by all; alike: of every pair
    of models, kinship with replicas, else error correlation; vote_gain: accuracy of the vote less that of a model."""

    effective_models: float
    joint_failure: float
    together: float
    alike: float
    vote_gain: float


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
    return (latent > _threshold(population.accuracy)).reshape(models * runs, examples)


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


def _threshold(accuracy: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(accuracy))


@functools.cache
def truths(population: Population) -> Truths:
    """What is true of the population. Of copies with several runs, the runs are the same in all models, so that one
    drawn from each is the same one with the chance 1/runs."""
    from scipy.stats import binom

    failure, models, runs = 1 - population.accuracy, population.models, population.runs
    points, weights = np.polynomial.hermite_e.hermegauss(301)
    weights = weights / weights.sum()
    replicas = _correlation(_given(RECIPE, points, population), weights, failure)
    if population.kind == "copies":
        given = _given(RECIPE, points, population)
        alike = 1 / runs + (1 - 1 / runs) * replicas
        failed = np.arange(runs + 1)[:, None]
        together = float((weights * (binom.pmf(failed, runs, given) * (failed / runs) ** models).sum(axis=0)).sum())
        gain = 0.0
    else:
        given = _given(SHARED[population.kind], points, population)
        alike = _correlation(given, weights, failure)
        together = float((weights * given**models).sum())
        wins = vote_wins(models, population.classes)
        right = binom.pmf(np.arange(models + 1)[:, None], models, 1 - given)
        gain = float((weights * (wins[:, None] * right).sum(axis=0)).sum()) - population.accuracy
    most, independent = np.log(failure), models * np.log(failure)
    return Truths(
        models / (1 + (models - 1) * alike),
        float(1 + (models - 1) * (most - np.log(together)) / (most - independent)),
        together,
        alike if runs == 1 else alike / replicas,
        gain,
    )


def _given(shared: float, points: np.ndarray, population: Population) -> np.ndarray:
    """The chance to be wrong, given the part of the latent that is shared."""
    from scipy.special import ndtr

    away = (np.sqrt(shared) * points - _threshold(population.accuracy)) / np.sqrt(1 - shared)
    chances: np.ndarray = ndtr(away)
    return chances


def _correlation(given: np.ndarray, weights: np.ndarray, failure: float) -> float:
    return float(((weights * given**2).sum() - failure**2) / (failure * (1 - failure)))
