"""python -m zoo.run: train and evaluate one model on one dataset with one seed; with -m, every cell of a sweep."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from zoo.errors import TrainingError

if TYPE_CHECKING:
    from rich.console import Console

    from zoo.config import RunConfig
    from zoo.plugins import Registry
    from zoo.records import Outcome


def run(config: RunConfig, registry: Registry, screen: Console) -> Outcome:
    """One run, from its configuration to its folder on disk.

    A run that is complete already is not repeated. Raises ZooError; whatever fails once the data is read leaves a
    folder marked failed with the reason, and Ctrl-C one marked interrupted.
    """
    from zoo import data, overrides, records
    from zoo.engine import fitting, metrics

    overrides.check_fit(config)
    splits = data.load(config.dataset)
    config.task.check(splits)
    plan = records.identify(config, splits, registry)
    if (kept := records.find(config, plan)) is not None:
        return kept
    with records.recording(config, plan, registry) as draft:
        answers = fitting.fit(config, plan.trainer, splits, records.observers(plan, registry, screen))
        scores = metrics.score(config.task, splits.test, answers.test)
        return records.write(draft, plan, splits, answers, scores)


def run_replicas(config: RunConfig, registry: Registry, screen: Console) -> list[Outcome]:
    """Seeds `config.seed` on, trained as one vectorised model: a run folder for each, as `run` writes it.

    Their keys say so, because the same seed alone draws other random numbers: results agree within the noise of seeds.
    When any is missing all are trained, and what is complete stays. A seed that diverges is a failed outcome. Raises as
    `run`, and Incompatible when the model cannot be vectorised."""
    from zoo import data, overrides, records
    from zoo.engine import fitting, metrics

    overrides.check_fit(config)
    splits = data.load(config.dataset)
    config.task.check(splits)
    plans = records.identify_replicas(config, splits, registry)
    kept = [records.find(config, plan) for plan in plans]
    if all(kept):
        return [outcome for outcome in kept if outcome is not None]
    trainer = plans[0].trainer
    group = fitting.prepare_replicas(config, trainer, splits)
    assert trainer is not None
    with contextlib.ExitStack() as stack:
        drafts = [
            None if outcome else stack.enter_context(records.recording(config, plan, registry))
            for outcome, plan in zip(kept, plans, strict=True)
        ]
        watching = [records.observers(plan, registry, screen) for plan in plans]
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


def main() -> None:
    """The command. Exit codes: 0 fine, 1 something ran and failed, 2 the request was wrong, 130 Ctrl-C."""
    from zoo import launch

    sys.exit(launch.command(sys.argv[1:]))


if __name__ == "__main__":
    main()
