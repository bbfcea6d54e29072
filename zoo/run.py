"""python -m zoo.run: train and evaluate one model on one dataset with one seed; with -m, every cell of a sweep."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

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
    from zoo import data, guard, overrides, records
    from zoo.phases import phase

    overrides.check_fit(config)
    with phase("reading the data"):
        splits = data.load(config.dataset)
    with records.keyed(config, splits, registry), guard.blamed(f"Task '{config.task.name}' failed in check"):
        config.task.check(splits)
    with phase("looking for a run that is complete"):
        plan = records.identify(config, splits, registry)
        if (kept := records.find(config, plan)) is not None:
            return kept
    with records.recording(config, plan, registry) as draft:
        with phase(f"fitting {config.label}"):
            from zoo.engine import fitting, metrics  # torch

            answers = fitting.fit(config, plan.trainer, splits, records.observers(plan, registry, screen))
        with phase("computing the metrics and their intervals"):
            scores = metrics.score(config.task, splits.test, answers.test)
        return records.write(draft, plan, splits, answers, scores)


def main() -> None:
    """The command. Exit codes: 0 fine, 1 something ran and failed, 2 the request was wrong, 130 Ctrl-C."""
    from zoo import guard

    guard.leave(guard.run(_command))


def _command() -> int:
    from zoo import launch

    code = launch.command(sys.argv[1:])
    gc.freeze()  # or Python looks through all that torch and transformers are for garbage, a second before it ends
    return code


if __name__ == "__main__":
    main()
