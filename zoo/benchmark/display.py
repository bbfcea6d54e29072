"""The closing tables of a bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.p_values import scientific
from zoo.store.bench import FEWEST, FIGURES, TOO_NOISY, Figure, told_apart
from zoo.store.schema import computed_on

if TYPE_CHECKING:
    from rich.table import Table

    from zoo.store.bench import Bench, Measured, Model

COLUMNS = (
    "model",
    "p50 ms",
    "p95",
    "p99",
    "rank",
    "examples/s",
    "batch",
    "rank",
    "MiB",
    "GMAC",
    "of matmul",
    "÷ by hand",
)


BUSY = 0.5
"""Load a core above which the machine was not ours alone."""


def tables(bench: Bench) -> list[Table]:
    """What a model costs to ask, and what it cost to train. The title warns of too few repetitions."""
    from rich.table import Table
    from rich.text import Text

    protocol = bench["protocol"]
    few = f", a first look: {FEWEST} are for numbers and ranks to keep" if protocol["repetitions"] < FEWEST else ""
    where = computed_on(bench["device"], protocol["precision"], protocol["threads"], processor_too=True)
    title = f"{where}, {protocol['repetitions']} repetitions{few}"
    asked = Table(title=title, title_justify="left")
    for name in COLUMNS:
        asked.add_column(name, justify="left" if name == "model" else "right")
    for model in bench["models"]:
        asked.add_row(*(Text(cell) for cell in _asked(model)))
    return [asked]


def _asked(model: Model) -> list[str]:
    return [
        f"{model['model']}, seed {model['seed']}",
        number(model["latency_p50"], spread=True),
        number(model["latency_p95"]),
        number(model["latency_p99"]),
        str(model["latency_rank"] or "–"),
        number(model["infer_samples_per_sec"], spread=True),
        str(model["infer_batch_size"]),
        str(model["throughput_rank"] or "–"),
        number(
            model["device_memory_mib"] if model["device_memory_mib"]["value"] is not None else model["peak_memory_mib"]
        ),
        number(model["infer_gmacs"]),
        percent(model["matmul_share"]),
        number(model["throughput_vs_reference"]),
    ]


def lines(bench: Bench) -> list[str]:
    """What the table has no room for: the noise floor, what was not measured, what to mind."""
    told = _floor(bench)
    before, cores = bench["machine"]["load_before"], bench["machine"]["hardware"].get("cores", "")
    if before is not None and cores.isdecimal() and before > BUSY * int(cores):
        told.append(f"The machine was busy with something else: load {before:.1f} on {cores} cores before the start.")
    told += [f"The matrix product reaches {number(bench['matmul_peak'], spread=True)} GMAC/s."]
    if (accuracy := bench["target"]["accuracy"]) is not None:
        times = ", ".join(f"{model['model']} {_to_target(model)}" for model in bench["models"])
        told.append(f"Training to validation accuracy {accuracy:.3f} ({bench['target']['how']}): {times}.")
    told += _energy(bench)
    for model in bench["models"]:
        same = model["same_answers"]
        if (same["value"] or 0) < 1:
            share = f"{percent(same)} of {same['n']} examples"
            told.append(f"{model['model']}, {model['restored']}, answers {share} as its run did.")
    return told + [f"Not measured: {left['what']}: {left['why']}" for left in bench["left_out"]]


def _floor(bench: Bench) -> list[str]:
    """What counts as a difference, a line a figure."""
    if None in bench["floor"].values():
        return ["No noise floor: no process was measured twice to the end, so nothing is ranked."]
    return [_floor_of(bench, figure) for figure in FIGURES]


def _floor_of(bench: Bench, figure: Figure) -> str:
    floor, twins = bench["floor"][figure] or 1.0, ", ".join(noise["model"] for noise in bench["noise"])
    if floor >= TOO_NOISY:
        return (
            f"The {figure} was measured too noisily to tell any two models apart, so it is not ranked: two processes "
            f"of one model ({twins}) may differ by a factor of 2 or more."
        )
    if len(bench["models"]) > 1 and not told_apart(bench, figure):
        return (
            f"No two models are told apart by their {figure}, so it is not ranked: two processes of one model "
            f"({twins}) differ by up to {floor - 1:.1%}."
        )
    return (
        f"Differences of up to {floor - 1:.1%} in {figure} are noise: "
        f"two processes of one model ({twins}) differ by as much."
    )


def _energy(bench: Bench) -> list[str]:
    found = {model["model"]: model["energy_per_sample"] for model in bench["models"] if model["kind"] == "torch"}
    known = [f"{name} {digits(number['value'])}" for name, number in found.items() if number["value"] is not None]
    if known:
        return [f"Joules an example, the whole device's: {', '.join(known)}."]
    reasons = dict.fromkeys(str(number["reason"]) for number in found.values())
    return [f"No energy was measured: {reason}." for reason in reasons if bench["device"] == "cuda"]


def _to_target(model: Model) -> str:
    found = model["seconds_to_target"]
    if found["value"] is None:
        return f"– ({found['reason']})"
    return f"{found['value']:.1f} s" + ("" if model["train_here"] else " on other hardware")


def number(found: Measured, spread: bool = False) -> str:
    """Three digits, with the interval where asked; a dash when undefined."""
    if found["value"] is None:
        return "–"
    if not spread or found["low"] is None or found["high"] is None:
        return digits(found["value"])
    return f"{digits(found['value'])} ({digits(found['low'])}–{digits(found['high'])})"


def digits(value: float) -> str:
    """Three significant digits, thousands grouped: `0.0312`, `1.05`, `12,345`, `5.04 × 10⁻⁵`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else scientific(f"{value:.3g}")


def percent(found: Measured) -> str:
    """`41 %`, or a dash."""
    return "–" if found["value"] is None else f"{found['value'] * 100:.3g} %"
