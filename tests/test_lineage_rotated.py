"""Trained Transformers: one with its residual stream rotated, and runs of different tasks against each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.lineage import dead
from zoo.lineage.command import command
from zoo.lineage.comparison import Judged, compare
from zoo.lineage.weights import open_weights

SMALL = ("model.width=16", "model.heads=2", "model.depth=1", "trainer.steps=40", "trainer.threads=1", "report=off",
         "probe=0", "seed=0,1")  # fmt: skip
TEXT = ("task=text_classification", "dataset=bbc_news", "model.vocabulary=300", "model.max_length=24")
IMAGE = ("task=image_classification", "dataset=digits")


@pytest.fixture(scope="module")
def root(installed, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rotated")
    for what in (TEXT, IMAGE):
        done = installed()("-m", "zoo.run", "-m", "model=transformer", *what, *SMALL, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def runs(root: Path, dataset: str, label: str = "transformer") -> list[Path]:
    from zoo.store.reading import read

    return sorted(root.glob(f"*/*/{dataset}/{label}/*"), key=lambda folder: read(folder).record["seed"])


def rotated(root: Path, run: Path, how: str) -> Path:
    from zoo.disguise.__main__ import command as disguise

    assert disguise([str(run), f"how={how}", f"out={root / 'disguised'}", "device=cpu"]) == 0
    (made,) = runs(root, run.parents[1].name, f"transformer-{how}".replace(",", "-"))
    return made


def judged(one: Path, two: Path, data: bool = True) -> Judged:
    return compare([open_weights(one), open_weights(two)], look=dead.looking() if data else None).pairs[0]


def test_a_rotated_residual_stream_is_undetermined_by_the_weights_and_derived_by_words_never_seen(root):
    """No coordinate is what it was, so neither numbering nor alignment see it; the rows of words keep their length."""
    first, second = runs(root, "bbc_news")
    turned = rotated(root, first, "rotate_residual")
    found = judged(first, turned, data=False)
    assert found.verdict.name == "undetermined"
    assert found.evidence.log_p_order is not None
    assert found.evidence.log_p_order > -6
    assert found.evidence.row_norms is not None
    assert found.evidence.row_norms.rho == pytest.approx(1, abs=1e-3)
    assert found.evidence.distance > 0.3
    assert judged(first, second, data=False).verdict.name == "independent"
    with_data = judged(first, turned)
    assert with_data.evidence.dead is not None
    assert with_data.verdict.name == ("derived" if with_data.evidence.dead.p <= 0.025 else "undetermined")


def test_a_rotated_residual_stream_of_images_is_never_called_independent(root):
    """Patches are read by no table of rows, so there is not even their length to go by; a stranger looks the same."""
    first, second = runs(root, "digits")
    assert judged(first, rotated(root, first, "rotate_residual")).verdict.name == "undetermined"
    assert judged(first, second).verdict.name == "undetermined"


def test_runs_of_different_tasks_are_undetermined_with_the_reason(root, capsys):
    text, image = runs(root, "bbc_news")[0], runs(root, "digits")[0]
    found = judged(text, image)
    assert found.verdict.name == "undetermined"
    assert "Only part of the units" in found.verdict.statement
    assert "different encoders" in found.evidence.reasons["dead"]
    replica = runs(root, "bbc_news")[1]
    calibrated = compare([open_weights(text), open_weights(image)], [open_weights(replica)]).pairs[0].evidence
    assert calibrated.calibrated is None
    assert "say nothing of" in calibrated.reasons["calibration"]
    same_task = compare([open_weights(text), open_weights(replica)], [open_weights(replica)]).pairs[0].evidence
    assert "themselves was found" in same_task.reasons["calibration"], "two trainings are not taken for kin"
    assert command([str(text), str(image), f"replicas={replica}"]) == 0
    assert "undetermined" in capsys.readouterr().out
