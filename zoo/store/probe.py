"""A probe: layer outputs of a comparison's runs in memory, aligned by example."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.errors import StoreError
from zoo.store.schema import FEATURES
from zoo.store.study import LeftOut, describe

if TYPE_CHECKING:
    import numpy as np

    from zoo.store.guards import Comparison, Member
    from zoo.store.reading import Run


@dataclass(frozen=True)
class Probe:
    """Layer outputs of R runs on the n test examples that all of them were probed on.

    models, runs, seeds: as in a `Panel`, of the runs that kept features; ids: n;
    layers: for each run layer name → (n, width) float, from input to output; left_out: runs without features, and why.
    """

    models: tuple[str, ...]
    runs: tuple[int, ...]
    seeds: tuple[int, ...]
    ids: tuple[str, ...]
    layers: tuple[Mapping[str, np.ndarray], ...]
    left_out: tuple[LeftOut, ...]


def build(comparison: Comparison) -> Probe:
    """Read the features of a comparison. Examples outside the comparison are dropped. Without a single run that kept
    features the probe is empty; nothing is raised."""
    import numpy as np

    probed: list[tuple[Member, dict[str, int], dict[str, np.ndarray]]] = []
    left_out = []
    for member in comparison.members:
        try:
            found = _read(member.run)
        except StoreError as error:
            found = str(error).splitlines()[0]
        if isinstance(found, str):
            what = describe(member.run.record, member.run.folder)
            left_out.append(LeftOut(what, "no_features", found, member.run.folder))
        else:
            probed.append((member, *found))
    common = set(comparison.ids).intersection(*(places for _, places, _ in probed)) if probed else set()
    ids = tuple(item for item in comparison.ids if item in common)
    models = tuple(dict.fromkeys(member.model for member, _, _ in probed))
    layers = []
    for _, places, features in probed:
        rows = np.array([places[item] for item in ids], dtype=np.int64)
        layers.append({name: values[rows] for name, values in features.items()})
    return Probe(
        models=models,
        runs=tuple(models.index(member.model) for member, _, _ in probed),
        seeds=tuple(member.seed for member, _, _ in probed),
        ids=ids,
        layers=tuple(layers),
        left_out=tuple(left_out),
    )


def _read(run: Run) -> tuple[dict[str, int], dict[str, np.ndarray]] | str:
    """Row of each probed example and layer name → (examples, width); or why there are none."""
    files = run.record.get("files")
    if not isinstance(files, Mapping) or FEATURES not in files:
        return f"it holds no {FEATURES}"
    ids = run.record.get("probe_ids")
    features = run.features()
    if not isinstance(ids, list) or any(values.ndim != 2 or len(values) != len(ids) for values in features.values()):
        return "its features do not fit the examples that run.json names"
    return {str(item): row for row, item in enumerate(ids)}, {name: features[name] for name in _in_order(run, features)}


def _in_order(run: Run, features: Mapping[str, np.ndarray]) -> list[str]:
    """From input to output as the run recorded it; else by name, numbers by size (block.2 before block.10)."""
    told = run.record.get("layers")
    if isinstance(told, list) and set(told) == set(features):
        return told
    return sorted(features, key=lambda name: [(part.isdigit(), int(part) if part.isdigit() else 0, part)
                                              for part in re.split(r"(\d+)", name)])  # fmt: skip
