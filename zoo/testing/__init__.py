"""The conformance kit: learn in plain words what is wrong with a model, a dataset or a task.

```
from zoo.testing import check_model

def test_my_model_keeps_its_contract():
    check_model(MyModel, hidden=[8])
```

`check_…` raises ConformanceError, an AssertionError that lists every failure; `examine_…` returns the findings.
`python -m zoo.check PLUGIN` does the same for everything that an installed plugin brings.
Nothing here is loaded by pytest on its own: these are plain functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.testing.findings import ConformanceError, Finding, conclude

if TYPE_CHECKING:
    from zoo.data import Dataset
    from zoo.models import Predictor, TorchModel
    from zoo.tasks import Task

__all__ = [
    "ConformanceError",
    "Finding",
    "check_dataset",
    "check_model",
    "check_task",
    "examine_dataset",
    "examine_model",
    "examine_task",
]


def check_model(cls: type[TorchModel] | type[Predictor], **options: Any) -> list[Finding]:
    """Examine a model made as `cls(**options)`. Returns the findings when none failed; warnings are among them.

    Raises ConformanceError otherwise."""
    return conclude(cls.__name__, examine_model(cls, **options))


def check_dataset(cls: type[Dataset], **options: Any) -> list[Finding]:
    """Examine a dataset made as `cls(**options)`; it is really read. Raises ConformanceError when a check failed."""
    return conclude(cls.__name__, examine_dataset(cls, **options))


def check_task(cls: type[Task], **options: Any) -> list[Finding]:
    """Examine a task made as `cls(**options)`. Raises ConformanceError when a check failed."""
    return conclude(cls.__name__, examine_task(cls, **options))


def examine_model(cls: type[TorchModel] | type[Predictor], **options: Any) -> list[Finding]:
    """All findings about a model: one a check and kind of input, "ok" included.

    The model is tried with tiny splits of each modality that it claims: English and Chinese texts from one word to 700,
    images of 8×8×1, 28×28×1 and 32×32×3. A `TorchModel` is encoded, built, seeded, stepped, saved, loaded and batched;
    a `Predictor` is fitted and asked. A model that lacks a modality must raise when it is given that modality all the
    same: any exception will do, as the harness refuses such a run beforehand. Raises nothing on its own.
    """
    from zoo.models import Predictor
    from zoo.testing import modules, predictors
    from zoo.testing.contract import examine_class

    findings = examine_class("model", cls, options)
    if any(finding.verdict == "failed" for finding in findings):
        return findings
    if issubclass(cls, Predictor):
        return findings + predictors.examine(cls, options)
    return findings + modules.examine(cls, options)


def examine_dataset(cls: type[Dataset], **options: Any) -> list[Finding]:
    """All findings about a dataset: is it a valid schema, light to import, read the same each time, and loadable?"""
    from zoo.testing import datasets
    from zoo.testing.contract import examine_class

    findings = examine_class("dataset", cls, options)
    if any(finding.verdict == "failed" for finding in findings):
        return findings
    return findings + datasets.examine(cls, options)


def examine_task(cls: type[Task], **options: Any) -> list[Finding]:
    """All findings about a task: a valid schema, its default dataset, what it refuses, and its metrics.

    A metric must be a finite number, not depend on the order of examples, and take a weight of 2 as "drawn twice"."""
    from zoo.testing import tasks
    from zoo.testing.contract import examine_class

    findings = examine_class("task", cls, options)
    if any(finding.verdict == "failed" for finding in findings):
        return findings
    return findings + tasks.examine(cls, options)
