"""Single pairs, for tests: measures between runs, and two models by their answers, as the package has them of many."""

from __future__ import annotations

import numpy as np

from zoo.homogeneity import behaviour
from zoo.homogeneity.bootstrap import Bootstrap
from zoo.homogeneity.formulas import FORMULAS
from zoo.lineage import blackbox


def between_runs(answers: behaviour.Answers, device: str = "cpu") -> dict[str, np.ndarray]:
    """Every measure between every two runs: name -> (R, R) float64, NaN where undefined; the diagonal is a run with
    itself. Measures of probabilities are left out when there are none."""
    sums = behaviour.moments(answers, Bootstrap(draws=0, device=device), divergence=answers.probabilities is not None)
    found = {
        name: formula.of(sums).cpu().numpy()
        for name, formula in FORMULAS.items()
        if answers.probabilities is not None or not formula.probabilities
    }
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()}


def repeated_errors(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> blackbox.Repeated:
    """How many of the wrong answers of the first model the second gives, too. labels, first, second: (examples,)."""
    wrong, again = blackbox.repetitions(labels, np.stack([first, second]))
    return blackbox.repeated(int(again[0, 1]), int(wrong[0]), len(labels))


def against_references(suspect: np.ndarray, trained: np.ndarray, references: np.ndarray) -> blackbox.Residual:
    """Is the suspect more like one model than like its references? suspect, trained: (examples, classes);
    references: (m, examples, classes)."""
    return blackbox.ranked(blackbox.scores(suspect[None], trained, references)[0].tolist(), 0, len(suspect))
