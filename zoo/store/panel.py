"""A panel: the answers of a comparison's runs in memory, aligned by example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from zoo.store.guards import Comparison, Member
    from zoo.store.tables import PredictionTable

SHARPEST, SOFTEST = 1 / 64, 64.0
"""Bounds of a temperature: a model that is right on every validation example would be calibrated to 0."""


@dataclass(frozen=True)
class Panel:
    """What R runs of M models answered on N examples with C classes.

    models: M names; runs: (R,) model index of each run, ascending: a model's runs are its replicas; seeds: (R,);
    ids: N; classes: C names, index = label; labels: (N,) int64; predictions: (R, N) int64.
    probabilities: (R, N, C) float32, rows summing to 1; None when some run has none.
    calibrated: whether the probabilities are: then each run's logits were divided by its temperature, the one that
    minimises the log-loss on its validation split. Either all runs are calibrated or none is.
    """

    models: tuple[str, ...]
    runs: tuple[int, ...]
    seeds: tuple[int, ...]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray | None
    calibrated: bool


def build(comparison: Comparison) -> Panel:
    """Read the runs of a comparison. Raises DamagedRun when a file changed since the study was opened."""
    import numpy as np

    members = comparison.members
    models = tuple(dict.fromkeys(member.model for member in members))
    shape = (len(members), len(comparison.ids))
    labels = np.empty(shape[1], np.int64)
    predictions = np.empty(shape, np.int64)
    logits: np.ndarray | None = np.empty((*shape, len(comparison.classes)), np.float32)
    temperatures: list[float | None] = []
    for row, member in enumerate(members):
        table = member.run.predictions()
        test = _aligned(member, table, comparison)
        labels, predictions[row] = test.labels, test.predictions
        if logits is not None and np.isfinite(test.logits).all():
            logits[row] = test.logits
            validation = table.only("validation")
            known = len(validation) > 0 and bool(np.isfinite(validation.logits).all())
            temperatures.append(temperature(validation.logits, validation.labels) if known else None)
        else:
            logits = None
    calibrated = logits is not None and None not in temperatures
    if logits is not None:
        for row in range(shape[0]):
            _to_probabilities(logits[row], (temperatures[row] or 1.0) if calibrated else 1.0)
    return Panel(
        models=models,
        runs=tuple(models.index(member.model) for member in members),
        seeds=tuple(member.seed for member in members),
        ids=comparison.ids,
        classes=comparison.classes,
        labels=labels,
        predictions=predictions,
        probabilities=logits,
        calibrated=calibrated,
    )


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T in [1/64, 64] that minimises the log-loss of softmax(logits / T) (Guo et al. 2017).

    logits: (n, classes) float, finite, n ≥ 1; labels: (n,) int. 1 when no T changes the loss: equal logits.
    """
    import numpy as np

    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    wanted = scores[np.arange(len(labels)), labels].mean()

    def slope(sharpness: float) -> tuple[float, float]:
        """First and second derivative of the log-loss, which is convex in 1/T."""
        weights = np.exp(scores * sharpness)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * scores).sum(axis=1)
        spread = (weights * scores**2).sum(axis=1) - mean**2
        return float(mean.mean() - wanted), float(spread.mean())

    low, high, sharpness = 1 / SOFTEST, 1 / SHARPEST, 1.0
    if not scores.any() or slope(low)[0] == slope(high)[0] == 0:
        return 1.0
    if slope(high)[0] <= 0:
        return 1 / high
    if slope(low)[0] >= 0:
        return 1 / low
    for _ in range(100):  # Newton's steps, halving the bracket instead whenever one would leave it
        first, second = slope(sharpness)
        low, high = (sharpness, high) if first < 0 else (low, sharpness)
        step = sharpness - first / second if second > 0 else low
        step = step if low < step < high else (low + high) / 2
        if abs(step - sharpness) <= 1e-12 * sharpness:
            break
        sharpness = step
    return 1 / sharpness


def _aligned(member: Member, table: PredictionTable, comparison: Comparison) -> PredictionTable:
    """The test rows of the common examples, in the comparison's order of examples and classes."""
    import numpy as np

    from zoo.store.reading import damaged
    from zoo.store.tables import PredictionTable

    test = table.only("test")
    order = np.argsort(test.ids)
    wanted = np.array(comparison.ids, dtype=np.str_)
    places = np.searchsorted(test.ids, wanted, sorter=order).clip(max=len(test) - 1)
    rows = order[places]
    if not (test.ids[rows] == wanted).all():
        raise damaged(member.run.folder, "its predictions are others than when the study was opened")
    columns = np.array([member.classes.index(name) for name in comparison.classes])
    index = np.argsort(columns)
    return PredictionTable(
        test.splits[rows], test.ids[rows], index[test.labels[rows]], index[test.predictions[rows]],
        test.logits[rows][:, columns],
    )  # fmt: skip


def _to_probabilities(logits: np.ndarray, temperature: float) -> None:
    """Softmax of logits / temperature, in place. logits: (n, classes) float32."""
    import numpy as np

    logits -= logits.max(axis=1, keepdims=True)
    logits /= temperature
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
