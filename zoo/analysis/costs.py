"""Quality against cost: what `zoo.bench` measured, joined to the models of a report by the keys of their runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import StoreError
from zoo.homogeneity.leaderboard import LEVEL, Leaderboard
from zoo.reporting import schema
from zoo.reporting.schema import number
from zoo.store import bench as store
from zoo.store.schema import computed_on

if TYPE_CHECKING:
    from zoo.store.guards import Comparison

log = logging.getLogger("zoo")

OTHER_HARDWARE = "measured on other hardware"
OTHER_TIME = "measured at another time"
OTHER_CONDITIONS = "measured on another device, or under other conditions"


def benches(
    comparison: Comparison, models: Sequence[str], board: Leaderboard, counted: Sequence[int]
) -> list[schema.Bench]:
    """Every bench with runs of this comparison. models: names, in the order of the report's indices; counted: the
    models that may be on the Pareto front: a constant answer is fast, and no choice.

    The first has the most of the models and is the newest of such; the others say why they stand apart from it. A
    bench.json that cannot be read is told and left out."""
    try:
        files = store.found_for([member.run.folder for member in comparison.members])
    except StoreError as error:
        log.warning("costs are left out: %s", error)
        return []
    index = {str(member.run.record["key"]): models.index(member.model) for member in comparison.members}
    known = [bench for _, found in files for bench in found["benches"] if _present(bench, index)]
    known.sort(key=lambda bench: (len({index[model["key"]] for model in _present(bench, index)}), bench["made"]))
    known.reverse()
    fronts = [on_front(bench, index, board, counted) for bench in known]
    return [
        _told(bench, index, front, None if bench is known[0] else _apart(bench, known[0]))
        for bench, front in zip(known, fronts, strict=True)
    ]


def _present(bench: store.Bench, index: Mapping[str, int]) -> list[store.Model]:
    return [model for model in bench["models"] if model["key"] in index]


def _apart(bench: store.Bench, first: store.Bench) -> str:
    if bench["id"] == first["id"]:
        return OTHER_TIME
    names = ("machine", "cpu", "cores", "system", "gpu")
    one, other = ([part["machine"]["hardware"].get(name) for name in names] for part in (bench, first))
    return OTHER_HARDWARE if one != other else OTHER_CONDITIONS


def _told(bench: store.Bench, index: Mapping[str, int], front: Mapping[str, bool], apart: str | None) -> schema.Bench:
    protocol, hardware = bench["protocol"], bench["machine"]["hardware"]
    where = [hardware[name] for name in ("gpu", "cpu", "system") if hardware.get(name)]
    ranked = {figure: store.told_apart(bench, figure) for figure in store.FIGURES}
    return schema.Bench(
        device=computed_on(bench["device"], protocol["precision"], protocol["threads"], processor_too=True),
        where=", ".join([*where, f"{hardware.get('cores', '?')} cores"]),
        made=bench["made"],
        repetitions=protocol["repetitions"],
        floor=bench["floor"]["throughput"],
        latency_floor=bench["floor"]["latency"],
        target=bench["target"]["accuracy"],
        apart=apart,
        models=[
            _model(model, index[model["key"]], front.get(model["key"]), ranked) for model in _present(bench, index)
        ],
    )


def _model(
    found: store.Model, index: int, front: bool | None, ranked: Mapping[store.Figure, bool]
) -> schema.BenchedModel:
    """ranked: by which figures there are ranks."""
    on_device = found["device_memory_mib"]["value"] is not None
    return schema.BenchedModel(
        model=index,
        seed=found["seed"],
        latency_ms=from_measured(found["latency_p50"]),
        latency_p95_ms=from_measured(found["latency_p95"]),
        latency_p99_ms=from_measured(found["latency_p99"]),
        latency_rank=found["latency_rank"] if ranked["latency"] else None,
        samples_per_sec=from_measured(found["infer_samples_per_sec"]),
        batch_size=found["infer_batch_size"],
        rank=found["throughput_rank"] if ranked["throughput"] else None,
        front=front,
        memory_mib=from_measured(found["device_memory_mib"] if on_device else found["peak_memory_mib"]),
        gmacs=from_measured(found["infer_gmacs"]),
        matmul_share=from_measured(found["matmul_share"]),
        energy_joules=from_measured(found["energy_per_sample"]),
        vs_reference=from_measured(found["throughput_vs_reference"]),
        seconds_to_target=from_measured(found["seconds_to_target"]),
    )


def from_measured(found: store.Measured) -> schema.Number:
    """A measured number as the report has numbers."""
    return number(found["value"], found["low"], found["high"], found["n"], found["reason"])


def on_front(
    bench: store.Bench, index: Mapping[str, int], board: Leaderboard, counted: Sequence[int]
) -> dict[str, bool]:
    """Key of a run of a model that counts -> whether it is on the Pareto front of accuracy and throughput. Empty
    without a noise floor, and with one from which no two models are told apart.

    Off the front is what another one clearly beats in one of the two without being clearly worse in the other."""
    floor = bench["floor"]["throughput"]
    if floor is None or floor >= store.TOO_NOISY:
        return {}
    faster = _faster(bench)
    better = (board.accuracy[:, None] > board.accuracy[None, :]) & (board.adjusted < LEVEL)
    known = [(at, index.get(model["key"])) for at, model in enumerate(bench["models"])]
    chosen = [(at, model) for at, model in known if model is not None and model in counted]

    def beats(one: tuple[int, int], other: tuple[int, int]) -> bool:
        wins = faster[one[0], other[0]] or better[one[1], other[1]]
        loses = faster[other[0], one[0]] or better[other[1], one[1]]
        return bool(wins and not loses)

    return {bench["models"][at]["key"]: not any(beats(other, (at, i)) for other in chosen) for at, i in chosen}


def _faster(bench: store.Bench) -> np.ndarray:
    """(models, models) bool: the row has clearly more examples a second than the column."""
    faster = np.zeros((len(bench["models"]), len(bench["models"])), dtype=bool)
    for found in bench["comparisons"]:
        if found["figure"] == "throughput" and found["differs"] and found["ratio"]["value"] is not None:
            a, b = found["a"], found["b"]
            faster[(a, b) if found["ratio"]["value"] < 1 else (b, a)] = True
    return faster
