"""Do two models answer more alike than independent trainings on the same data do? Pure functions of answers.

Answers are log-probabilities, (examples, classes) float, or logits: what is added to all classes of an example changes
nothing. They are compared as probabilities, which differ most where a model is undecided; how impossible it finds what
is impossible anyway is noise. References are independent trainings of one recipe on one data set. What every
such model has in common is taken out; what is left of two models is correlated, and the same of each reference tells
what such correlations are when neither comes from the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

FEWEST_EXAMPLES = 4
FEWEST_REFERENCES = 2
CONFIDENCE = 0.95
FLOOR = 0.1  # of the usual spread, under which no spread counts as small
RIDGE = 0.3
"""Both were chosen on development models: perceptrons on digits and on news, none of them in any report.

To compare probabilities was chosen on others: twenty parents and their students of each of three settings that the
validation reports on, with the same references but other seeds than its parents. Of ten ways to put answers, with some
floors and ridges, probabilities told 18, 7 and 7 students (p ≤ .05), logarithms 17 and 5 of the first two settings."""

_NOTHING_LEFT = 1e-9  # of the norm of the answers: what rounding leaves of a model that is exactly the mean


@dataclass(frozen=True)
class Repeated:
    """The trivial baseline. value: share in [0, 1] of the wrong answers of one model that another repeats, None without
    a wrong answer, and then `reason` says so; low, high: 95 % interval (Wilson); n: wrong answers."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str = ""


def repetitions(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many wrong answers of each model every other gives, too: the same wrong class. Published fingerprints of
    models hardly tell more than this does.

    labels: (examples,) int; predictions: (models, examples) int. Returns the wrong answers of each, (models,) int64,
    and how many of each row's the model of each column gives, too, (models, models) int64."""
    wrong = predictions != labels
    again = [
        (predictions[:, missed] == own[missed]).sum(axis=1) for own, missed in zip(predictions, wrong, strict=True)
    ]
    return wrong.sum(axis=1), np.array(again, dtype=np.int64).reshape(len(wrong), len(wrong))


def repeated(again: int, wrong: int, examples: int) -> Repeated:
    """The rate of so many among so many wrong answers, with Wilson's interval in its closed form: scipy's test of a
    proportion computes a p-value besides, which takes a hundred times as long."""
    if not wrong:
        return Repeated(None, None, None, 0, f"it makes no error on {examples} examples")
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = (2 * again + z * z) / (2 * (wrong + z * z))
    half = z / (2 * (wrong + z * z)) * math.sqrt(4 * again * (wrong - again) / wrong + z * z)
    low, high = 0.0 if again == 0 else middle - half, 1.0 if again == wrong else middle + half
    return Repeated(again / wrong, low, high, wrong)


def centred(answers: np.ndarray) -> np.ndarray:
    """Probabilities less what is equal for all classes, from log-probabilities or logits, at one scale for all models:
    (..., examples, classes) float64 of norm 1 over examples and classes; zero for answers that prefer no class."""
    values = np.asarray(answers, dtype=np.float64)
    values = np.exp(values - values.max(axis=-1, keepdims=True))
    values = values / values.sum(axis=-1, keepdims=True)
    values = values - values.mean(axis=-1, keepdims=True)
    norms = np.sqrt((values**2).sum(axis=(-2, -1), keepdims=True))
    return np.asarray(values / np.where(norms > 0, norms, 1))


@dataclass(frozen=True)
class Background:
    """What references have in common and how they differ. mean: (examples × classes,) float64 of their centred answers;
    spread: the same shape, how much a reference is off there, never zero; directions: (k, examples × classes)
    orthonormal, along which references differ together; weights: (k,) in (0, 1], what a difference there counts; ridge:
    what was added to each eigenvalue of their covariance, times the number of references."""

    mean: np.ndarray
    spread: np.ndarray
    directions: np.ndarray
    weights: np.ndarray
    ridge: float


def background(references: np.ndarray) -> Background:
    """What references have in common. references: (m, examples, classes) float, m ≥ 1.

    Every difference is measured in units of the spread of the references there, and counts the less the more of them
    differ in that way together: some classes are preferred by one training and not by the next, and two that prefer the
    same one are not kin for that. This is the inverse of their covariance, made regular by `RIDGE` times its mean
    eigenvalue (as in regularised discriminant analysis, Friedman 1989)."""
    values = centred(references).reshape(len(references), -1)
    mean = values.mean(axis=0)
    left = _off(values, mean)
    spread = np.sqrt((left**2).mean(axis=0))
    usual = float(np.sqrt((spread**2).mean()))
    spread = spread + FLOOR * usual if usual > 0 else np.ones_like(spread)
    directions, variance = _principal(_unit(left / spread))
    total = RIDGE * float(variance.sum())
    ridge = total / len(values)
    return Background(mean, spread, directions, np.sqrt(ridge / (variance + ridge)), total)


def _principal(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions, (k, width) orthonormal, along which rows differ from 0, and their mean square along each, (k,) > 0.
    From the small matrix of products: rows are few and wide, where a singular value decomposition takes ten times as
    long."""
    squares, vectors = np.linalg.eigh(rows @ rows.T)
    told = squares > _NOTHING_LEFT * max(float(squares[-1]), _NOTHING_LEFT)
    directions = (vectors[:, told] / np.sqrt(squares[told])).T @ rows
    return np.asarray(directions), np.asarray(squares[told] / len(rows))


def residuals(answers: np.ndarray, common: Background) -> np.ndarray:
    """What is left of answers without what all references have in common. answers: (models, examples, classes) float.

    Returns (models, examples × classes) float64 of norm 1: the centred answers less their projection on the mean of the
    references, weighed by the background; zero where nothing is left."""
    return _unit(_weighed(answers, common))


def _weighed(answers: np.ndarray, common: Background) -> np.ndarray:
    """Residuals of norm 1 before they are weighed, and less afterwards."""
    left = _unit(_off(centred(answers).reshape(len(answers), -1), common.mean) / common.spread)
    along = left @ common.directions.T
    return np.asarray(left - (along * (1 - common.weights)) @ common.directions)


def _off(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows of norm 1 less their projection on a mean; rows of zeros where that is all."""
    power = float(mean @ mean)
    left = values - np.outer(values @ mean / power, mean) if power > 0 else values
    norms = np.linalg.norm(left, axis=1, keepdims=True)
    return np.asarray(np.where(norms > _NOTHING_LEFT, left / np.where(norms > 0, norms, 1), 0.0))


def _unit(values: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(norms > 0, norms, 1))


def likeness(first: np.ndarray, second: np.ndarray, common: np.ndarray) -> float:
    """Correlation in [-1, 1] of what is left of two models' answers: 1 for the same answers, about 0 for independent
    trainings, 0 where nothing is left. first, second: (examples, classes) float; common: (m, examples, classes), the
    references whose background is taken out."""
    one, two = residuals(np.stack([first, second]), background(common))
    return float(np.clip(one @ two, -1, 1))


@dataclass(frozen=True)
class Residual:
    """Residual correlation of two models against references. score: as `scores` has it; p: conformal, in (0, 1];
    highest: the best score of a reference; references: how many; n: examples; kinds: of inputs."""

    score: float
    p: float
    highest: float
    references: int
    n: int
    kinds: int = 1


def scores(
    suspects: np.ndarray, trained: np.ndarray, references: np.ndarray, kinds: np.ndarray | None = None
) -> np.ndarray:
    """Residual correlations of each suspect with a model, then with each reference. suspects: (s, examples, classes);
    trained: (examples, classes); references: (m, examples, classes); kinds: (examples,) int, where there are several.
    Returns (s, 1 + m): in [-1, 1] for inputs of one kind; of several the mean over kinds, each in units of the spread
    of the suspect's correlations there: what tells nothing on one kind of inputs may be plain on another.

    No value depends on which of model and references is called the model."""
    same_kind = np.concatenate([trained[None], references])
    parts = [np.arange(len(trained))] if kinds is None else [np.flatnonzero(kinds == one) for one in np.unique(kinds)]
    found = [_correlations(suspects[:, part], same_kind[:, part]) for part in parts]
    return found[0] if len(found) == 1 else np.asarray(np.mean([_standard(one) for one in found], axis=0))


def _standard(correlations: np.ndarray) -> np.ndarray:
    """Each row less its mean, in units of its spread; zero where all are the same."""
    left = correlations - correlations.mean(axis=1, keepdims=True)
    spread = left.std(axis=1, keepdims=True)
    return np.asarray(left / np.where(spread > _NOTHING_LEFT, spread, 1))


def _correlations(suspects: np.ndarray, same_kind: np.ndarray) -> np.ndarray:
    """Residual correlations of each suspect with each of some trainings of one kind. Mean and spread are those of all
    of them, and a correlation with one of them is weighed by the covariance of all the others."""
    common = background(same_kind)
    own, others = _weighed(same_kind, common), _weighed(suspects, common)
    products, own_squares, squares = others @ own.T, (own**2).sum(axis=1), (others**2).sum(axis=1)[:, None]
    # Taken out of the covariance that it is part of, each gives a change of rank one (Sherman & Morrison 1950).
    apart = 1 / (1 - own_squares / common.ridge) if common.ridge > 0 else np.ones_like(own_squares)
    squares = squares + (products**2 * apart / common.ridge if common.ridge > 0 else 0)
    sizes = np.sqrt(own_squares * squares)
    found = np.divide(products * np.sqrt(apart), sizes, out=np.zeros_like(products), where=sizes > _NOTHING_LEFT)
    return np.asarray(np.clip(found, -1, 1))


def ranked(found: Sequence[float], place: int, n: int, kinds: int = 1) -> Residual:
    """One of a suspect's scores, as `scores` gives them, among the others, which are then its references'.

    Is the suspect more like one model than like others that were trained as that one was? p = (1 + #{r: S(suspect, r) ≥
    S(suspect, trained)}) / (m + 1). When `trained` was trained independently of the suspect, it is one more reference,
    and the scores treat it as one: its rank is uniform whatever the suspect is and wherever it comes from, so that p is
    exact (full conformal prediction, Vovk et al. 2005)."""
    others = [*found[:place], *found[place + 1 :]]
    return Residual(found[place], conformal(found[place], others), max(others), len(others), n, kinds)


def conformal(score: float, others: Sequence[float]) -> float:
    """(1 + others with at least this score) / (1 + others), in (0, 1]."""
    return (1 + sum(other >= score for other in others)) / (1 + len(others))


def needed(level: float, tests: int = 1) -> int:
    """References that the best p-value of one among so many tests needs to stay at or below a level after adjustment by
    Benjamini and Yekutieli (2001), when no other test rejects."""
    worst = tests * sum(1 / rank for rank in range(1, tests + 1))
    # A little slack, so that 1 / .05 = 20 is not 21 by rounding.
    return max(FEWEST_REFERENCES, math.ceil(worst / level - 1e-9) - 1)


def why_not(answers: np.ndarray | None, n: int, name: str) -> str:
    """Why the answers of one model do not tell anything of its past; empty when they may. answers: (examples, classes)
    float, None for a model of which only the classes it chose are known; n: examples; name: of the model."""
    if n < FEWEST_EXAMPLES:
        return f"{n} examples were answered by all, and {FEWEST_EXAMPLES} are needed"
    if answers is None or not np.isfinite(answers).all():
        return f"{name} gives no probabilities, only classes"
    values = centred(answers)
    if np.ptp(values, axis=0).max() <= _NOTHING_LEFT:
        return f"{name} answers the same whatever it is asked"
    return ""
