"""Several seeds of one recipe trained as one vectorised model: the pipeline of `zoo.run` for a group of runs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from zoo import guard
from zoo.errors import TrainingError
from zoo.phases import phase

if TYPE_CHECKING:
    from rich.console import Console

    from zoo.config import RunConfig
    from zoo.plugins import Registry
    from zoo.records import Outcome


def run(config: RunConfig, registry: Registry, screen: Console) -> list[Outcome]:
    """Seeds `config.seed` on, trained as one vectorised model: a run folder for each, as `run` writes it.

    Their keys say so, because the same seed alone draws other random numbers: results agree within the noise of seeds.
    When any is missing all are trained, and what is complete stays. A seed that diverges is a failed outcome. Raises as
    `run`, and Incompatible when the model cannot be vectorised."""
    from zoo import data, overrides, records
    from zoo.engine import fitting, metrics

    overrides.check_fit(config)
    with phase("reading the data"):
        splits = data.load(config.dataset)
    with records.keyed(config, splits, registry), guard.blamed(f"Task '{config.task.name}' failed in check"):
        config.task.check(splits)
    plans = records.identify_replicas(config, splits, registry)
    kept = [records.find(config, plan) for plan in plans]
    if all(kept):
        return [outcome for outcome in kept if outcome is not None]
    trainer = plans[0].trainer
    with records.keyed(config, splits, registry), phase(f"preparing {config.label}"):
        group = fitting.prepare_replicas(config, trainer, splits)
    assert trainer is not None
    with contextlib.ExitStack() as stack:
        drafts = [
            None if outcome else stack.enter_context(records.recording(config, plan, registry))
            for outcome, plan in zip(kept, plans, strict=True)
        ]
        watching = [records.observers(plan, registry, screen) for plan in plans]
        with phase(f"fitting {config.label}"):
            answers = fitting.fit_replicas(group, config, trainer, splits, watching)
        for number, (draft, plan, answer) in enumerate(zip(drafts, plans, answers, strict=True)):
            if draft is None:
                continue
            if isinstance(answer, TrainingError):
                kept[number] = records.write_failure(draft, plan, answer)
            else:
                scores = metrics.score(config.task, splits.test, answer.test)
                kept[number] = records.write(draft, plan, splits, answer, scores)
    return [outcome for outcome in kept if outcome is not None]
