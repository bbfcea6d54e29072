"""The coverage of the first page's intervals: the truths are true, what is counted is right, and the script runs."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from zoo.homogeneity import behaviour, failures, headline, kinship, leaderboard
from zoo.homogeneity.bootstrap import Bootstrap

with mock.patch.object(sys, "path", [str(Path(__file__).parent / "benchmarks"), *sys.path]):
    panels, c, tables = map(importlib.import_module, ("coverage_panels", "interval_coverage", "coverage_tables"))

EXACT = Bootstrap(draws=0)
KINDS, Population, panel_of = panels.KINDS, panels.Population, panels.panel_of
truths, wrong_answers = panels.truths, panels.wrong_answers
UNEQUAL = [kind for kind in KINDS if kind != "copies"]


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize(("kind", "spread"), [*((kind, 0.0) for kind in KINDS), *((kind, 0.1) for kind in UNEQUAL)])
def test_the_truths_are_those_of_a_large_draw(kind, spread, runs):
    population = Population(kind, 200_000, 0.6, runs, 4, classes=3, spread=spread)
    random = np.random.default_rng(0)
    panel = panel_of(wrong_answers(population, random), population, random)
    true = truths(population)
    found = headline.headline(panel, EXACT)
    assert found.effective_models.value == pytest.approx(true.effective_models, rel=0.02)
    assert found.joint_failure.value == pytest.approx(true.joint_failure, rel=0.02)
    assert failures.systemic_failure(panel, EXACT).value == pytest.approx(true.together, abs=0.004)
    best = population.accuracies()[leaderboard.best_model(panel)]
    assert failures.vote_gain(panel, EXACT).value == pytest.approx(true.vote - best, abs=0.006)
    alike = kinship.kinship(panel, EXACT) if runs > 1 else behaviour.pairs(panel, "error_correlation", EXACT)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(alike.value[off], true.alike[off], atol=0.02)
    right = (panel.predictions == panel.labels).reshape(4, runs, -1).mean(axis=(1, 2))
    np.testing.assert_allclose(right, population.accuracies(), atol=0.004)


def test_truths_in_closed_form():
    independent = truths(Population("independent", 200, 0.95, 1, 30))
    assert independent.effective_models == pytest.approx(30)
    assert independent.joint_failure == pytest.approx(30)
    assert independent.together == pytest.approx(0.05**30)
    copies = truths(Population("copies", 200, 0.6, 1, 10))
    assert (copies.effective_models, copies.joint_failure) == (pytest.approx(1), pytest.approx(1))
    assert (copies.together, copies.vote) == (pytest.approx(0.4), 0.6)
    np.testing.assert_allclose(truths(Population("one recipe", 200, 0.6, 3, 4)).alike, 1)
    two = truths(Population("independent", 200, 0.6, 1, 2, classes=2, spread=0.1))
    assert two.together == pytest.approx(0.5 * 0.3)
    assert two.vote == pytest.approx(0.6)  # by lot where the two differ


@pytest.mark.parametrize("runs", [1, 3])
def test_the_values_of_pairs_are_those_of_the_measure(runs):
    """The script leaves out the draws of all pairs, which the chosen one does not need."""
    population = Population("shared difficulty", 150, 0.6, runs, 5)
    random = np.random.default_rng(1)
    panel = panel_of(wrong_answers(population, random), population, random)
    wanted = kinship.kinship(panel, EXACT) if runs > 1 else behaviour.pairs(panel, "error_correlation", EXACT)
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(c.pairs_of(panel, runs > 1).value[off], wanted.value[off], atol=1e-5)


def test_a_row_counts_what_holds():
    population = Population("independent", 200, 0.6, 1, 4)
    true = truths(population).effective_models
    found = [[4.0, true - 1, true + 1], [4.0, true + 0.1, true + 1], [4.0, true - 1, None], [4.0, true + 1, None]]
    line = c.row("effective_models", population, [[*said, true] for said in [*found, [None, None, None]]])
    assert (line["interval"], line["bound"], line["none"]) == (0.4, 0.4, pytest.approx(0.2))
    assert (line["covered"], line["bound_holds"], line["held"]) == (0.5, 0.5, 0.5)
    assert line["width"] == pytest.approx((2 + 0.9) / 2)
    assert line["bias"] == pytest.approx(4 - true)
    assert not line["exact"]


def test_a_share_of_few_examples_counts_as_few():
    population = Population("independent", 200, 0.6, 1, 4)
    line = c.row("failed_by_all", population, [[9 / 200, 0.0, 0.1, 0.05], [11 / 200, 0.0, 0.1, 0.05]])
    assert (line["interval"], line["bound"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("interval", "covered", "bound", "bound_holds", "held", "exact", "missed", "lucky"),
    [
        (1.0, 0.95, 0.0, None, 0.95, False, False, False),
        (1.0, 0.91, 0.0, None, 0.91, False, True, False),
        (1.0, 0.99, 0.0, None, 0.99, False, True, False),
        (0.6, 0.90, 0.4, 1.0, 0.94, False, True, False),  # bounds that always hold do not make up for intervals
        (0.4, 1.0, 0.6, 0.90, 0.94, False, True, False),  # nor intervals for bounds
        (0.2, 0.99, 0.8, 0.99, 0.99, False, False, True),
        (0.05, 0.80, 0.95, 1.0, 0.99, False, False, False),  # of thirty panels
        (0.2, 0.80, 0.8, 0.93, 0.90, False, True, False),
        (0.2, 0.10, 0.0, None, 0.10, False, False, True),  # said in few panels
        (1.0, 1.0, 0.0, None, 1.0, True, False, False),
        (0.0, None, 0.0, None, None, False, False, False),
    ],
)
def test_the_bar(interval, covered, bound, bound_holds, held, exact, missed, lucky):
    line = {"interval": interval, "covered": covered, "bound": bound, "bound_holds": bound_holds, "held": held}
    line |= {"number": "joint_failure", "none": 1 - interval - bound, "exact": exact}
    assert (c.missed(line), c.lucky(line)) == (missed, lucky)


@pytest.mark.parametrize(
    ("interval", "covered", "held", "missed"),
    [(0.55, 0.91, 0.95, False), (0.55, 0.91, 0.91, True), (0.55, 1.0, 0.99, True), (0.4, 1.0, 0.99, False)],
)
def test_all_intervals_of_a_share_count(interval, covered, held, missed):
    line = {"number": "best_accuracy", "interval": interval, "covered": covered, "bound": 1 - interval}
    line |= {"bound_holds": 0.99, "held": held, "none": 0.0, "exact": False}
    assert (c.missed(line), c.lucky(line)) == (missed, False)


def test_every_cell_is_there_once():
    cells = c.cells()
    assert len(cells) == len(set(cells)) == 4 * 2 * 2 * 3 * 5 + 4 * 2 * 2 * 2 + 3 * 2 * 2 * 2 * 3
    assert len({c.Plan().key(cell) for cell in cells}) == len(cells)


def test_the_truth_of_what_is_chosen_is_that_of_what_is_named():
    """Of two models of .5 and .7, the better one is named in nearly every panel of 200 examples."""
    population = Population("independent", 200, 0.6, 1, 2, spread=0.1)
    found = c.measure(population, c.Plan(panels=30, draws=20), ["best_accuracy", "vote_gain_10"])
    right = np.array(found["best_accuracy"], dtype=float)
    assert set(right[:, 3].round(6)) <= {0.5, 0.7}
    assert np.median(right[:, 3]) == pytest.approx(0.7)
    vote = truths(population).vote
    gains = np.array(found["vote_gain_10"], dtype=float)[:, 3]
    np.testing.assert_allclose(gains, vote - right[:, 3])


@pytest.fixture
def few_cells(monkeypatch):
    chosen = [Population(kind, 200, 0.6, runs, 3) for kind in ("independent", "copies") for runs in (1, 2)]
    monkeypatch.setattr(c, "cells", lambda: chosen)
    return chosen


def test_a_small_table(few_cells, tmp_path: Path, capsys):
    """Two panels a cell: every number is measured, written and, with the same command again, not measured again."""
    words = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--panels", "3", "--draws", "50"]
    code = c.main(words)
    assert code in (0, 1)
    rows = list(csv.DictReader((tmp_path / "out" / "coverage.csv").read_text().splitlines()))
    assert len(rows) == len(few_cells) * len(c.NUMBERS)
    exact = [row for row in rows if row["kind"] == "copies" and row["runs"] == "1" and row["exact"] == "True"]
    assert {row["number"] for row in exact} == {
        "effective_models", "joint_failure", "most_alike", "least_alike", "vote_gain_2", "vote_gain_10",
    }  # fmt: skip
    document = json.loads((tmp_path / "out" / "coverage.json").read_text())
    assert document["about"]["panels"] == 3
    assert document["about"]["command"] == "python tests/benchmarks/interval_coverage.py --panels 3 --draws 50"
    page = (tmp_path / "out" / "README.md").read_text()
    assert all(title in page for title in tables.TITLES.values())
    capsys.readouterr()
    assert c.main(words) == code
    assert "Population" not in capsys.readouterr().out


def test_shares_of_the_work_are_the_whole(few_cells, tmp_path: Path):
    plan = c.Plan(panels=1, draws=20)
    for part in range(2):
        c.run(few_cells, plan, tmp_path, (part, 2))
    kept = {json.loads(file.read_text())["population"]["kind"] for file in tmp_path.glob("*.json")}
    assert len(list(tmp_path.glob("*.json"))) == len(few_cells)
    assert kept == {"independent", "copies"}


def test_a_cell_is_the_same_again():
    population = replace(c.cells()[0], models=3)
    plan = c.Plan(panels=2, draws=20)
    assert c.measure(population, plan) == c.measure(population, plan)


def test_the_committed_table_is_whole_and_names_what_is_outside_its_bar():
    """Of 2,307 rows seven are outside, six of which hold more often than they should."""
    document = json.loads((Path(__file__).parents[1] / "reports" / "coverage" / "coverage.json").read_text())
    rows = document["rows"]
    wanted = {(name, cell) for name in c.NUMBERS for cell in c.cells()}
    assert {(row["number"], c.of_cell(row)) for row in rows} == wanted
    assert len(rows) == len(wanted)
    assert document["about"]["panels"] >= 600
    assert {row["panels"] for row in rows} <= {document["about"]["panels"], document["about"]["more"]}
    assert not any("changes" in commit for commit in document["about"]["commits"].values())
    outside = [row for row in rows if c.missed(row)]
    assert len(outside) <= 7
    assert sum(row["held"] < 0.92 for row in outside) <= 1
    assert all(0.915 < row["held"] < 0.99 for row in outside)
    page = (Path(__file__).parents[1] / "reports" / "coverage" / "README.md").read_text()
    assert tables._named(outside) in page
