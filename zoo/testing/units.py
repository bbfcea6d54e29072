"""Examination of the units that a model declares: renumbered, they must leave every answer as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zoo.testing.calling import logits
from zoo.testing.findings import Inapplicable, Problem

if TYPE_CHECKING:
    import torch

    from zoo.testing.modules import Trial
    from zoo.units import Units

TOLERANCE = 1e-3  # of logits, relative above 1: sums run in another order through every layer


def declares_units(trial: Trial) -> Iterator[Problem]:
    """The groups fit the stored tensors, follow one another, and may be renumbered."""
    answer, module = trial.answer(), trial.module()
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    groups = tuple(trial.model().units(shapes))
    if not groups:
        raise Inapplicable
    if problem := _problem(groups, module, shapes):
        yield Problem(
            problem, "A group names stored tensors and comes after the groups that its rows are read through."
        )
        return
    difference = (answer - logits(_renumbered(module, groups), trial.batch())).abs() / answer.abs().clamp(min=1)
    if not float(difference.max()) <= TOLERANCE:
        yield Problem(
            f"with its units renumbered, logits differ by up to {float(difference.max()):.2g}",
            "Name every tensor that computes the units in `written`, and every one that reads them in `read`.",
        )


def _problem(groups: tuple[Units, ...], module: torch.nn.Module, shapes: Any) -> str:
    from zoo.lineage import rows
    from zoo.lineage.groups import problem_of

    if problem := problem_of(groups, shapes):
        return problem
    state = module.state_dict()
    every = rows.stored(groups)
    for place, group in enumerate(groups):
        before = {other.name: every[other.name] for other in groups[:place]}
        if rows.of_group(lambda name: state[name].float().numpy(), group, groups, before, shapes) is None:
            return f"group '{group.name}' comes before all groups through which its rows are read"
    return ""


def _renumbered(module: torch.nn.Module, groups: tuple[Units, ...]) -> torch.nn.Module:
    import numpy as np
    import torch

    from zoo.lineage.aligned import in_one_order
    from zoo.lineage.rows import Placed

    random = np.random.default_rng(0)
    placed = {group.name: Placed(random.permutation(group.count)) for group in groups}
    made = copy.deepcopy(module)
    made.load_state_dict(
        {
            name: torch.from_numpy(in_one_order(value.numpy(), name, groups, placed)) if value.ndim else value
            for name, value in module.state_dict().items()
        }
    )
    return made
