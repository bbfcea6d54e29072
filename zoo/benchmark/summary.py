"""From what the processes said to a bench: every number with its interval, ties under the noise floor, ranks."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from zoo import __version__
from zoo.benchmark.contestants import Contestant
from zoo.benchmark.intervals import (
    LEAST_FOR_P99,
    Bootstrap,
    differs,
    farthest,
    median,
    quantile,
    ranks,
    ratio,
    scaled,
    share,
)
from zoo.benchmark.turns import Turns
from zoo.store import bench as store
from zoo.store.bench import FIGURES, Figure, Measured, measured

NO_REFERENCE = "an opaque model: there is no loop under it to write by hand"
RANKED = {"latency": "latency_rank", "throughput": "throughput_rank"}


@dataclass(frozen=True)
class Measurement:
    """All of one device. runs: what was measured, with what its process said; twins: of some of them, by position in
    runs; product: of the matrix product."""

    runs: Sequence[tuple[Contestant, Turns]]
    twins: Mapping[int, Turns]
    product: Turns
    protocol: store.Protocol
    device: str
    load_before: float | None
    load_after: float | None


def seconds(turns: Turns, figure: Figure) -> np.ndarray:
    """(rounds,) float64: what a turn took, the median of its calls or its pass."""
    return np.asarray(np.median(turns.of("calls"), axis=1)) if figure == "latency" else turns.of("pass")


def summarise(found: Measurement, accuracy: float | None, left_out: Sequence[tuple[str, str]]) -> store.Bench:
    """The bench of one device. accuracy: target of the training times, None for the default."""
    bootstrap = Bootstrap(found.protocol["seed"])
    target = choose_target([contestant for contestant, _ in found.runs], accuracy)
    peak = _matmul_peak(found, bootstrap)
    hardware = {str(name): str(value) for name, value in found.product.facts["hardware"].items()}
    models = [_model(contestant, turns, found, (bootstrap, target, hardware)) for contestant, turns in found.runs]
    noise = [_noise(found.runs[at], twin, bootstrap) for at, twin in found.twins.items()]
    floor = store.Floor(
        latency=farthest([n["latency"] for n in noise]), throughput=farthest([n["throughput"] for n in noise])
    )
    comparisons = _compare([turns for _, turns in found.runs], floor, bootstrap)
    for figure in FIGURES:
        _rank(models, comparisons, figure)
    return store.Bench(
        id=store.identity(_conditions(found, hardware)),
        made=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        zoo_version=__version__,
        command=[],
        device=found.device,
        machine=_machine(found, hardware),
        protocol=found.protocol,
        versions={str(name): str(version) for name, version in found.product.facts["versions"].items()},
        matmul_peak=peak,
        matmul_size=found.product.search.get("size"),
        target=target,
        noise=noise,
        floor=floor,
        models=models,
        comparisons=comparisons,
        left_out=[store.LeftOut(what=what, why=why) for what, why in left_out],
    )


def _conditions(found: Measurement, hardware: Mapping[str, str]) -> dict[str, Any]:
    protocol = found.protocol
    named = {name: protocol[name] for name in ("precision", "compile", "threads")}
    return {"hardware": dict(hardware), "device": found.device, **named}


def _machine(found: Measurement, hardware: dict[str, str]) -> store.Machine:
    rates = [
        rate
        # An opaque model computes on the processor, whatever the others do.
        for turns in (found.product, *(turns for _, turns in found.runs if turns.facts["kind"] == "torch"))
        for told in turns.rounds.values()
        if (rate := told.get("clock")) is not None
    ]
    return store.Machine(
        hardware=hardware,
        driver=found.product.facts["driver"],
        clocks=_spread(rates) if rates else measured(None, reason="nobody says how fast the clock is"),
        load_before=found.load_before,
        load_after=found.load_after,
    )


def _spread(values: Sequence[float]) -> Measured:
    """Median, quartiles, and in place of an interval the least and the greatest that was seen."""
    q1, q3 = (float(end) for end in np.quantile(values, (0.25, 0.75)))
    low, high = min(values), max(values)
    return Measured(
        value=statistics.median(values),
        low=low,
        high=high,
        q1=q1,
        q3=q3,
        n=len(values),
        reason="low and high: extremes",
    )


def _matmul_peak(found: Measurement, bootstrap: Bootstrap) -> Measured:
    if found.product.lost is not None:
        return measured(None, reason=f"not measured: {found.product.lost}")
    return scaled(bootstrap(found.product.of("rate")[:, None], median), 1e-9)


# One model


def _model(
    contestant: Contestant, turns: Turns, found: Measurement, shared: tuple[Bootstrap, store.Target, Mapping[str, str]]
) -> store.Model:
    bootstrap, target, hardware = shared
    record, facts, search = contestant.record, turns.facts, turns.search
    training = record.get("training") or {}
    trainer = record.get("config", {}).get("trainer") or {}
    passes, calls = turns.of("pass")[:, None], turns.of("calls")
    rate = _inverse(scaled(bootstrap(passes, median), 1 / search["examples"]))
    return store.Model(
        model=contestant.model,
        key=str(record["key"]),
        folder=str(contestant.run.folder),
        seed=contestant.seed,
        kind=facts["kind"],
        restored=facts["restored"],
        same_answers=share(facts["answers"]["same"], facts["answers"]["n"]),
        precision=facts["precision"],
        param_count=facts["parameters"] / 1e6 if facts["parameters"] else None,
        infer_gmacs=_gmacs(facts),
        infer_length=_length(facts),
        infer_img_size=list(facts["shape"]),
        latency_p50=scaled(bootstrap(calls, median), 1e3),
        latency_p95=scaled(bootstrap(calls, quantile(0.95)), 1e3),
        latency_p99=_p99(calls, bootstrap),
        latency_vs_reference=_against_reference(turns, "calls", bootstrap),
        infer_batch_size=search["batch"],
        batch_sizes=search["tried"],
        batch_limit=search["limit"],
        infer_samples_per_sec=rate,
        infer_step_time=scaled(bootstrap(passes, median), 1e3 * search["batch"] / search["examples"]),
        infer_examples=search["examples"],
        throughput_vs_reference=_against_reference(turns, "pass", bootstrap),
        peak_memory_mib=_memory(turns.close["memory"], facts["kind"]),
        device_memory_mib=_device_memory(turns.close, found.device),
        matmul_share=_matmul_share(turns, found, bootstrap),
        energy_per_sample=_energy(turns.close["energy"]),
        train_samples_per_sec=training.get("train_samples_per_sec"),
        train_batch_size=trainer.get("batch_size"),
        train_here=trained_here(record.get("hardware") or {}, hardware),
        seconds_to_target=_to_target(contestant, target),
        latency_rank=None,
        throughput_rank=None,
    )


def trained_here(then: Mapping[str, Any], now: Mapping[str, str]) -> bool:
    """Whether two records of hardware name the same machine and device. A predictor's has no device: the processor."""
    names = ("machine", "cpu", "cores", "gpu", "device")
    return all(str(then.get(name, _ABSENT.get(name))) == str(now.get(name, _ABSENT.get(name))) for name in names)


_ABSENT = {"device": "cpu"}


def _inverse(number: Measured) -> Measured:
    """1 / number; its ends change places."""
    turned = {"value": "value", "low": "high", "high": "low", "q1": "q3", "q3": "q1"}
    changed = {mine: 1 / number[other] if number[other] else None for mine, other in turned.items()}  # type: ignore[literal-required]
    return Measured(**{**number, **changed})  # type: ignore[typeddict-item]


def _gmacs(facts: Mapping[str, Any]) -> Measured:
    counted = facts["multiply_adds"]
    if not counted or not any(counted):
        why = "an opaque model" if facts["kind"] == "predictor" else "no operation of it that torch counts"
        return measured(None, reason=why)
    return measured(statistics.fmean(counted) / 1e9, n=len(counted))


def _length(facts: Mapping[str, Any]) -> Measured:
    if not facts["lengths"]:
        return measured(None, reason="an example has a shape, not a length" if facts["shape"] else "an opaque model")
    lengths = np.array(facts["lengths"])
    q1, q3 = (float(end) for end in np.quantile(lengths, (0.25, 0.75)))
    low, high = float(lengths.min()), float(lengths.max())
    return Measured(
        value=float(lengths.mean()), low=low, high=high, q1=q1, q3=q3, n=len(lengths), reason="low and high: extremes"
    )


def _p99(calls: np.ndarray, bootstrap: Bootstrap) -> Measured:
    if calls.size < LEAST_FOR_P99:
        return measured(None, n=calls.size, reason=f"{calls.size} calls are too few: it needs {LEAST_FOR_P99}")
    return scaled(bootstrap(calls, quantile(0.99)), 1e3)


def _against_reference(turns: Turns, what: str, bootstrap: Bootstrap) -> Measured:
    if f"{what}_reference" not in turns.rounds[min(turns.rounds)]:
        return measured(None, reason=NO_REFERENCE)
    ours, theirs = turns.of(what), turns.of(f"{what}_reference")
    if ours.ndim == 2:
        ours, theirs = ours.sum(1), theirs.sum(1)
    return ratio(ours, theirs, bootstrap)


def _memory(told: Mapping[str, Any], kind: str) -> Measured:
    libraries = "with the libraries that it imports" if kind == "predictor" else ""
    return measured(told["mib"], n=1, reason=told["reason"] or libraries)


def _device_memory(told: Mapping[str, Any], device: str) -> Measured:
    if "device_memory" in told:
        return measured(float(told["device_memory"]), n=1)
    return measured(None, reason="it computes on the processor" if device == "cuda" else "no accelerator is used")


def _energy(told: Mapping[str, Any]) -> Measured:
    return measured(told["joules"], n=told.get("n"), reason=told["reason"])


def _matmul_share(turns: Turns, found: Measurement, bootstrap: Bootstrap) -> Measured:
    counted = _gmacs(turns.facts)
    if counted["value"] is None or found.product.lost is not None:
        return measured(None, reason=counted["reason"] or "the matrix product was not measured")
    each = counted["value"] * 1e9 * turns.search["examples"]
    return bootstrap((each / turns.of("pass") / found.product.of("rate"))[:, None], median)


# Training


def choose_target(contestants: Sequence[Contestant], accuracy: float | None) -> store.Target:
    """The validation accuracy that training times are taken to: what was asked for, or 98 % of the best that any of
    the runs reached."""
    if accuracy is not None:
        return store.Target(accuracy=accuracy, how="as asked for")
    best = [max(known) for contestant in contestants if (known := [right for right, _ in history(contestant)])]
    if not best:
        return store.Target(accuracy=None, how="no run has a history of its training")
    return store.Target(accuracy=0.98 * max(best), how="98 % of the best validation accuracy of any run here")


def history(contestant: Contestant) -> list[tuple[float, float]]:
    """(validation accuracy, seconds of training until then) of each epoch; empty for a model that fits itself."""
    if "history.parquet" not in contestant.record.get("files", {}):
        return []
    rows = contestant.run.history()
    return [
        (float(row["validation_accuracy"]), float(row["seconds"]))
        for row in rows
        if row.get("validation_accuracy") is not None and row.get("seconds") is not None
    ]


def _to_target(contestant: Contestant, target: store.Target) -> Measured:
    """The vectors of a frozen part are made before the first epoch, and count."""
    wanted, epochs = target["accuracy"], history(contestant)
    before = float((contestant.record.get("training") or {}).get("vectors_seconds") or 0.0)
    if wanted is None or not epochs:
        return measured(None, reason="no history of its training")
    reached = [taken for right, taken in epochs if right >= wanted]
    if not reached:
        return measured(None, n=len(epochs), reason=f"never reached: at best {max(right for right, _ in epochs):.3f}")
    return measured(before + reached[0], n=1)


# Models against each other


def _noise(run: tuple[Contestant, Turns], twin: Turns, bootstrap: Bootstrap) -> store.Noise:
    contestant, turns = run
    found = {figure: ratio(seconds(turns, figure), seconds(twin, figure), bootstrap) for figure in FIGURES}
    return store.Noise(model=contestant.model, latency=found["latency"], throughput=found["throughput"])


def _compare(every: Sequence[Turns], floor: store.Floor, bootstrap: Bootstrap) -> list[store.Comparison]:
    found = []
    for figure in FIGURES:
        for a, b in itertools.combinations(range(len(every)), 2):
            over, under = (_for_one(every[index], figure) for index in (a, b))
            number = ratio(over, under, bootstrap)
            found.append(
                store.Comparison(a=a, b=b, figure=figure, ratio=number, differs=differs(number, floor[figure]))
            )
    return found


def _for_one(turns: Turns, figure: Figure) -> np.ndarray:
    """Seconds an example: passes of different models have different numbers of them."""
    return seconds(turns, figure) / (turns.search["examples"] if figure == "throughput" else 1)


def _rank(models: Sequence[store.Model], comparisons: Sequence[store.Comparison], figure: Figure) -> None:
    """Set the ranks of a figure, where any two models are told apart; else they stay null."""
    of_figure = [found for found in comparisons if found["figure"] == figure]
    if any(found["differs"] is None for found in of_figure) or not any(found["differs"] for found in of_figure):
        return
    better = set()
    for found in of_figure:
        if found["differs"]:
            faster_first = (found["ratio"]["value"] or 0) < 1
            better.add((found["a"], found["b"]) if faster_first else (found["b"], found["a"]))
    for model, rank in zip(models, ranks(len(models), better), strict=True):
        model[RANKED[figure]] = rank  # type: ignore[literal-required]


def rows(found: Measurement, bench: store.Bench) -> list[dict[str, Any]]:
    """What bench.parquet holds: a row a process, numbers in timm's columns and the seconds of every repetition."""
    made = []
    for at, ((_, turns), model) in enumerate(zip(found.runs, bench["models"], strict=True)):
        plain = {name: value for name, value in model.items() if isinstance(value, str | int | float | None)}
        numbers = {name: value for name, value in model.items() if isinstance(value, dict) and "value" in value}
        flat: dict[str, Any] = {"device": bench["device"], "twin": False, **plain}
        for name, number in numbers.items():
            assert isinstance(number, dict)
            flat |= {name: number["value"], f"{name}_low": number["low"], f"{name}_high": number["high"]}
        made.append(flat | _timings(turns))
        if at in found.twins:
            named = {name: flat[name] for name in ("device", "model", "key", "seed", "infer_examples")}
            twin = found.twins[at]
            made.append({**named, "twin": True, "infer_batch_size": twin.search["batch"], **_timings(twin)})
    return made


def _timings(turns: Turns) -> dict[str, Any]:
    """Seconds, in the order of the rounds: calls flat, a pass a round."""
    names = {"calls": "latency_seconds", "calls_reference": "latency_reference_seconds"}
    names |= {"pass": "throughput_seconds", "pass_reference": "throughput_reference_seconds"}
    present = turns.rounds[min(turns.rounds)]
    return {column: turns.of(name).reshape(-1).tolist() for name, column in names.items() if name in present}
