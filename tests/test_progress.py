"""What a person sees of a run: closing tables at any width, the time that is left, and no silence."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from zoo import progress

INTERVAL = {"value": 0.8123, "low": 0.7881, "high": 0.8342, "n": 500}
UNDEFINED = {"value": None, "n": 3, "reason": "one class only was predicted"}
LONG = "a_model_whose_name_is_much_longer_than_names_are"
VERY_LONG = "one_name_that_is_longer_than_any_line_of_the_screen_on_which_it_is_to_be_read_by_somebody"


def terminal(width: int) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=width, color_system=None, highlight=False), out


def cell(model: str, seed: int = 0, status: str = "complete", **more: Any) -> dict[str, Any]:
    names = {"model": model, "dataset": "rotten_tomatoes", "task": "text_classification", "seed": seed}
    if status != "complete":
        return {**names, "status": status, **more}
    return {
        **names,
        "status": status,
        "seconds": 12.34,
        "metrics": {"accuracy": INTERVAL, "macro_f1": INTERVAL},
        **more,
    }


SWEEPS = {
    "one model": [cell("mlp")],
    "seeds": [cell("mlp", seed) for seed in range(3)],
    "models": [cell(model, seed) for model in ("mlp", "transformer") for seed in range(2)],
    "statuses": [cell("mlp"), cell("cnn", reused=True), cell("bert", status="skipped"), cell("x", status="failed")],
    "long names": [cell(LONG), cell(f"{LONG}_2", 1), cell("mlp", 2, "skipped")],
    "datasets": [{**cell(LONG, seed), "dataset": f"{LONG}-{seed}"} for seed in range(2)],
    "very long names": [cell(VERY_LONG), cell(f"{VERY_LONG}_2", 1, reused=True)],
    "all skipped": [cell("mlp", seed, "skipped") for seed in range(2)],
    "undefined": [cell("mlp", seed, metrics={"accuracy": INTERVAL, "macro_f1": UNDEFINED}) for seed in (0, 1)],
}  # fmt: skip


def told(text: str) -> str:
    """What is read, without the lines of a table and the breaks of its cells."""
    return re.sub(r"[┃│━┏┓┗┛┡┩╇┳─└┘┴├┤┼┌┐┬\s]+", " ", text)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
@pytest.mark.parametrize("cells", SWEEPS.values(), ids=list(SWEEPS))
def test_no_name_and_no_interval_of_a_sweep_is_cut(cells: list[dict[str, Any]], width: int) -> None:
    screen, out = terminal(width)
    progress.show_cells(screen, cells)
    shown = out.getvalue()
    assert "…" not in shown
    assert f"{len(cells)} cells" in shown
    for each in cells:
        for name in ("model", "dataset", "task", "status"):
            assert each[name] in shown, "in one piece, or it cannot be searched for"
    complete = [each for each in cells if "metrics" in each]
    assert shown.count("(0.788–0.834)") == sum(
        metric["value"] is not None for each in complete for metric in each["metrics"].values()
    )
    longest = max(len(word) for line in shown.splitlines() for word in line.split())
    assert all(len(line.rstrip()) <= max(width, longest + 4 + len("dataset ")) for line in shown.splitlines())


def test_columns_that_say_the_same_go_first_and_are_said_once() -> None:
    screen, out = terminal(80)
    progress.show_cells(screen, SWEEPS["models"])
    shown = out.getvalue()
    assert shown.startswith("All cells: dataset rotten_tomatoes · task text_classification · status complete\n")
    assert shown.count("rotten_tomatoes") == 1
    assert "0.812 (0.788–0.834)" in shown, "intervals stay beside their values while there is room"
    assert re.search(r"┃ model +┃ seed ┃ accuracy", shown)


def test_a_screen_with_room_has_every_column() -> None:
    screen, out = terminal(160)
    progress.show_cells(screen, SWEEPS["models"])
    assert out.getvalue().count("rotten_tomatoes") == 4


def test_a_piped_table_has_every_column_however_long_the_names() -> None:
    out = io.StringIO()
    progress.show_cells(Console(file=out, width=progress.WIDE, highlight=False), SWEEPS["very long names"])
    rows = [line for line in out.getvalue().splitlines() if VERY_LONG in line]
    assert len(rows) == 2
    assert all("text_classification" in row and row.count("0.812 (0.788–0.834)") == 2 for row in rows)


CLASSES = ["neg", "a class whose name is a whole sentence about it", VERY_LONG]


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_no_class_and_no_interval_of_a_run_is_cut(width: int) -> None:
    metrics = dict.fromkeys(("accuracy", "macro_f1", "balanced_accuracy", "log_loss", "brier", "ece"), INTERVAL)
    kinds = ("precision", "recall", "f1")
    metrics |= {f"{kind}/{label}": INTERVAL for kind in kinds for label in CLASSES}
    for classes in (CLASSES[:1], CLASSES[:2], CLASSES):
        screen, out = terminal(width)
        progress.show_run(screen, {"data": {"classes": classes}}, metrics)
        shown = out.getvalue()
        assert "…" not in shown
        assert shown.count("(0.788–0.834)") == len(kinds) * len(classes)
        assert shown.count("0.7881–0.8342") == 6
        for label in classes:
            assert label in told(shown)
