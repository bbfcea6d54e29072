"""Examination of a task: its default dataset, what it refuses, its metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zoo.errors import Incompatible, ZooError
from zoo.testing.findings import Finding, Problem, Unavailable, describe, perform
from zoo.testing.synthetic import CASES, train_split, wrap

if TYPE_CHECKING:
    import numpy as np

    from zoo.data import Split, Splits
    from zoo.models import Modality
    from zoo.tasks import Metric, Task

BUILT_IN = ("accuracy", "macro_f1", "log_loss", "ece")
_SIZES = (2, 3, 5, 10)  # numbers of classes to try a task with


def examine(cls: type[Task], options: Mapping[str, Any]) -> list[Finding]:
    """Findings about a task made with these options."""
    task = cls(**options)
    findings = []
    for name, check in _CHECKS.items():
        findings += perform(name, "", check, task)
    return findings


def _names_a_dataset(task: Task) -> Iterator[Problem]:
    from zoo.plugins import registry

    name = getattr(task, "dataset", None)
    if not isinstance(name, str) or not name:
        yield Problem(f"dataset is {name!r}", "Name the dataset that task=<name> picks when none is given.")
    elif name not in registry().entries["dataset"]:
        yield Problem(
            f"no dataset called '{name}' is installed",
            "Bring it in the same plugin, or depend on its plugin.",
            "warning",
        )
    elif (modality := registry().find("dataset", name).cls.modality) != task.modality:
        yield Problem(f"its dataset '{name}' holds {modality}, and the task is about {task.modality}", "Pick another.")


def _refuses_other_modality(task: Task) -> Iterator[Problem]:
    other: Modality = "image" if task.modality == "text" else "text"
    try:
        task.check(_synthetic(other, 2))
    except Incompatible:
        return
    except Exception as error:
        yield Problem(f"given {other} examples, check() {describe(error)}", "Raise zoo.Incompatible with the reason.")
        return
    yield Problem(f"check() accepts {other} examples", "Call super().check(splits), which compares the modality.")


def _accepts_some_dataset(task: Task) -> Iterator[Problem]:
    if _acceptable(task) is None:
        yield Problem(
            f"check() refused 2, 3, 5 and 10 classes, and no default dataset '{task.dataset}' could be tried",
            "Install the default dataset to have the metrics checked as well.",
            "warning",
        )


def _measures(task: Task) -> Iterator[Problem]:
    import numpy as np

    metrics = task.metrics()
    classes = _acceptable(task)
    if metrics and classes is None:
        raise Unavailable("no data is known that the task accepts")
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(60) % (classes or 2))
    probabilities = rng.dirichlet(np.ones(classes or 2), size=60)
    weights = rng.integers(0, 3, 60).astype(np.float64)
    for name, metric in metrics.items():
        if name in BUILT_IN:
            yield Problem(f"metric '{name}' is the harness's own", "Choose another name.")
        for got, mend in _metric_problems(metric, labels, probabilities, weights):
            yield Problem(f"metric '{name}' {got}", mend)


def _metric_problems(
    metric: Metric, labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> Iterator[tuple[str, str]]:
    import numpy as np

    ones = np.ones(len(labels))
    repeated = np.repeat(np.arange(len(labels)), weights.astype(int))
    backwards = np.arange(len(labels))[::-1]
    try:
        plain, weighted = float(metric(labels, probabilities, ones)), float(metric(labels, probabilities, weights))
        drawn = float(metric(labels[repeated], probabilities[repeated], np.ones(len(repeated))))
        turned = float(metric(labels[backwards], probabilities[backwards], ones))
    except Exception as error:
        yield describe(error), "It takes labels (n,), probabilities (n, classes) and weights (n,)."
        return
    if not np.isfinite([plain, weighted]).all():
        yield f"is {plain} on ordinary data", "Return a finite number."
        return
    if not np.isclose(weighted, drawn):
        yield f"is {weighted:.4g} with weights and {drawn:.4g} with the examples repeated", "Weight each example."
    if not np.isclose(plain, turned):
        yield f"is {plain:.4g}, and {turned:.4g} in reverse order", "Let it not depend on the order of examples."


def _acceptable(task: Task) -> int | None:
    """A number of classes that the task accepts: of synthetic data, or else of its default dataset."""
    for classes in _SIZES:
        try:
            task.check(_synthetic(task.modality, classes))
        except Incompatible:
            continue
        return classes
    from zoo.data import load
    from zoo.plugins import find

    try:
        splits = load(find("dataset", task.dataset).cls())
        task.check(splits)
    except (ZooError, TypeError):
        return None
    return len(splits.classes)


def _synthetic(modality: Modality, classes: int) -> Splits:
    import numpy as np

    from zoo.data import Splits

    case = next(case for case in CASES if case.modality == modality)
    names = tuple(f"class_{index}" for index in range(classes))

    def split(name: Any) -> Split:
        made = train_split(case)
        return wrap(name, modality, made.examples, np.arange(len(made)) % classes, names)

    train, validation, test = (split(name) for name in ("train", "validation", "test"))
    return Splits(train, validation, test, test.fingerprint)


_CHECKS: Mapping[str, Callable[[Task], Iterator[Problem]]] = {
    "default dataset": _names_a_dataset,
    "other modality": _refuses_other_modality,
    "check": _accepts_some_dataset,
    "metrics": _measures,
}
