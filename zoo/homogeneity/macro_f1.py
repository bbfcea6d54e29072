"""Macro-F1 of each model, with an interval over examples and replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoo.homogeneity.bootstrap import Bootstrap, replica_weights, share_interval, tiles, too_few
from zoo.homogeneity.results import MIN_EXAMPLES, PerModel

if TYPE_CHECKING:
    from zoo.store.panel import Panel


def macro_f1(panel: Panel, plan: Bootstrap) -> PerModel:
    """The macro-F1 of each model, in [0, 1]: the mean over its replicas, each the mean of the F1 of the classes that
    occur as label or as answer (scikit-learn's `zero_division=nan`).

    Wilson's interval at the variance of the draws over examples and replicas (`zoo.shares`), so that it has a width
    for a perfect model, too. Undefined under 4 test examples."""
    models, examples = len(panel.models), len(panel.ids)
    n = np.full(models, examples, dtype=np.int64)
    if examples < MIN_EXAMPLES:
        blank = np.full(models, np.nan)
        return PerModel(blank, blank, blank, n, dict.fromkeys(range(models), too_few(examples)))
    everything = np.ones((1, examples), dtype=np.float32)
    value = _of_models(_of_runs(panel, everything), np.ones((1, len(panel.runs))), panel)[0]
    drawn = np.concatenate([np.empty((0, len(panel.runs))), *(_of_runs(panel, draw) for draw in tiles(examples, plan))])
    low, high = share_interval(value, _of_models(drawn, replica_weights(panel.runs, plan), panel), n, plan)
    return PerModel(value, low, high, n)


def _of_runs(panel: Panel, weights: np.ndarray) -> np.ndarray:
    """The macro-F1 of each run in each draw. weights: (draws, N). Returns (draws, R) float64."""
    columns = np.ascontiguousarray(weights.T, dtype=np.float64)
    support = _sums(panel.labels, len(panel.classes), columns)
    found = np.empty((columns.shape[1], len(panel.runs)))
    for run, answers in enumerate(panel.predictions):
        hits = np.where(answers == panel.labels, answers, -1)
        predicted = _sums(answers, len(panel.classes), columns)
        with np.errstate(invalid="ignore"):
            f1 = 2 * _sums(hits, len(panel.classes), columns) / (support + predicted)
        found[:, run] = np.nanmean(f1, axis=0)
    return found


def _sums(groups: np.ndarray, size: int, columns: np.ndarray) -> np.ndarray:
    """The weights of each group. groups: (N,) int, -1 counts nowhere; columns: (N, draws). Returns (size, draws)."""
    from scipy.sparse import csr_array

    rows = np.flatnonzero(groups >= 0)
    members = csr_array((np.ones(len(rows)), (groups[rows], rows)), shape=(size, len(groups)))
    sums: np.ndarray = members @ columns
    return sums


def _of_models(f1: np.ndarray, replicas: np.ndarray, panel: Panel) -> np.ndarray:
    """Means over each model's replicas. f1: (draws, R); replicas: (draws, R) weights. Returns (draws, M)."""
    owner = np.asarray(panel.runs)
    columns = [
        (f1 * replicas)[:, owner == model].sum(1) / replicas[:, owner == model].sum(1)
        for model in range(len(panel.models))
    ]
    return np.stack(columns, axis=1)
