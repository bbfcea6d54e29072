"""replicas=k: a run folder for each seed of one vectorised training, as a user meets it."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from test_run import environment
from torch import nn

import zoo
from zoo import launch, plugins, progress, run
from zoo import replicas as vectorised
from zoo.config import Compile, RunConfig, TrainerOptions
from zoo.data.builtin import DATASETS
from zoo.records import Outcome
from zoo.store import reading, schema
from zoo.store.recipes import Recipe
from zoo.tasks import ImageClassification

COUNT = 5
OPTIONS = TrainerOptions(epochs=3, batch_size=25, learning_rate=0.01, threads=1)
ARGUMENTS = ("task=image_classification", "dataset=digits", "trainer.epochs=2", "trainer.threads=1")


@dataclass
class Perceptron(zoo.TorchModel):
    """Over pixels, with dropout, and a first layer that is frozen and the same for all seeds if `frozen_first`. Weights
    of seed `broken` are infinite."""

    dropout: float = 0.2
    frozen_first: bool = False
    broken: int = -1

    name: ClassVar[str] = "perceptron"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"image"})

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        return zoo.PixelEncoder(train)

    def build(self, inputs: zoo.InputSpec, classes: int) -> nn.Module:
        module = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(inputs.shape), 32), nn.ReLU(), nn.Dropout(self.dropout),
            nn.Linear(32, classes),
        )  # fmt: skip
        if self.frozen_first:
            first = module.get_submodule("1").requires_grad_(False)
            with torch.no_grad():
                for weight in first.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)) / 8)
        if torch.initial_seed() == self.broken:
            nn.init.constant_(module.get_submodule("4").weight, math.inf)  # type: ignore[arg-type]
        return module

    def layers(self, module: nn.Module) -> Mapping[str, nn.Module]:
        return {"hidden": module.get_submodule("2")}

    def frozen(self, module: nn.Module) -> zoo.FrozenPart | None:
        if not self.frozen_first:
            return None
        assert isinstance(module, nn.Sequential)
        return zoo.FrozenPart(module[:3], module[3:], "perceptron/1")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def config(tmp_path: Path, model: Any = None, **options: Any) -> RunConfig:
    digits = next(cls for cls in DATASETS if cls.name == "digits")()
    given = {"runs_dir": tmp_path / "runs", "probe": 10, **options}
    return RunConfig(model or Perceptron(), digits, ImageClassification(), OPTIONS, "perceptron", **given)


def replicas(asked: RunConfig) -> list[Outcome]:
    return vectorised.run(asked, plugins.registry(), progress.console())


def accuracy(outcome: Outcome) -> float:
    return float(outcome.metrics["accuracy"]["value"])


def test_each_seed_is_a_run_whose_record_and_key_say_how_it_was_made(tmp_path: Path) -> None:
    outcomes = replicas(config(tmp_path, replicas=COUNT, seed=3))
    alone = run.run(config(tmp_path, seed=3), plugins.registry(), progress.console())
    assert [outcome.record["seed"] for outcome in outcomes] == [3, 4, 5, 6, 7]
    for outcome in outcomes:
        found = reading.read(outcome.folder)
        found.verify()
        assert found.record["config"]["vectorised"] == {"replicas": COUNT, "first_seed": 3}
        assert found.record["training"].keys() >= alone.record["training"].keys()
        assert sorted(path.name for path in outcome.folder.iterdir()) == sorted(
            path.name for path in alone.folder.iterdir()
        )
        log = (outcome.folder / schema.EVENTS).read_text()
        assert log.count("validation_accuracy") == 3
    assert "vectorised" not in alone.record["config"]
    assert len({outcome.folder for outcome in [*outcomes, alone]}) == COUNT + 1
    # However they were trained, they are replicas of one recipe to a study.
    assert len({Recipe.of(outcome.record) for outcome in [*outcomes, alone]}) == 1


def test_auto_does_not_compile_a_vectorised_model_and_says_so(tmp_path: Path) -> None:
    asked = config(tmp_path, replicas=2)
    asked = dataclasses.replace(asked, trainer=dataclasses.replace(asked.trainer, compile=Compile.auto))
    for outcome in replicas(asked):
        facts = outcome.record["training"]
        assert (facts["compile"], facts["compile_tried"]) == ("none", [])
        assert facts["compile_reason"] == "seeds that are trained as one vectorised model are not compiled"


def test_metrics_are_those_of_single_runs_within_the_noise_of_seeds(tmp_path: Path) -> None:
    together = [accuracy(outcome) for outcome in replicas(config(tmp_path, replicas=COUNT))]
    single = [
        accuracy(run.run(config(tmp_path, seed=seed), plugins.registry(), progress.console())) for seed in range(COUNT)
    ]
    error = math.sqrt((np.var(together, ddof=1) + np.var(single, ddof=1)) / COUNT)
    assert abs(np.mean(together) - np.mean(single)) < 3 * error
    assert min(single) > 0.8


def test_without_dropout_the_answers_are_those_of_single_runs(tmp_path: Path) -> None:
    model = Perceptron(dropout=0.0)
    for seed, outcome in enumerate(replicas(config(tmp_path, model, replicas=2))):
        alone = run.run(config(tmp_path, model, seed=seed), plugins.registry(), progress.console())
        one, other = (reading.read(found.folder).predictions() for found in (outcome, alone))
        np.testing.assert_allclose(one.logits, other.logits, rtol=1e-3, atol=1e-3)


def test_what_is_complete_is_kept_and_what_is_missing_is_made(tmp_path: Path) -> None:
    import shutil

    first = replicas(config(tmp_path, replicas=3))
    assert [outcome.reused for outcome in replicas(config(tmp_path, replicas=3))] == [True] * 3
    shutil.rmtree(first[1].folder)
    again = replicas(config(tmp_path, replicas=3))
    assert [outcome.reused for outcome in again] == [True, False, True]
    assert again[1].folder == first[1].folder
    assert accuracy(again[1]) == accuracy(first[1])
    for outcome in [*first, *again]:
        assert outcome.record["peak_memory_mib"] is outcome.record["peak_device_memory_mib"] is None, (
            "that of all three"
        )
    other = replicas(config(tmp_path, replicas=2))  # another group: other random numbers
    assert {outcome.folder for outcome in other}.isdisjoint(outcome.folder for outcome in first)


def test_one_seed_that_diverges_fails_alone(tmp_path: Path) -> None:
    outcomes = replicas(config(tmp_path, Perceptron(broken=1), replicas=3))
    assert [outcome.record["status"] for outcome in outcomes] == ["complete", "failed", "complete"]
    assert "seed 1 is not finite" in outcomes[1].record["error"]["message"]
    assert min(accuracy(outcomes[number]) for number in (0, 2)) > 0.7
    with pytest.raises(
        zoo.ZooError, match=r"1 of 3 replicas failed\.\nperceptron on digits failed: The loss of seed 1"
    ):
        launch.single(config(tmp_path, Perceptron(broken=1), replicas=3), progress.console())


def test_heads_on_one_frozen_part_are_trained_on_its_vectors(tmp_path: Path) -> None:
    outcomes = replicas(config(tmp_path, Perceptron(frozen_first=True), replicas=3))
    assert {outcome.record["training"]["vectors"] for outcome in outcomes} == {"made"}
    weights = [reading.read(outcome.folder).weights() for outcome in outcomes]
    assert all(np.array_equal(weights[0]["1.weight"], other["1.weight"]) for other in weights[1:])
    assert not np.array_equal(weights[0]["4.weight"], weights[1]["4.weight"])
    assert min(map(accuracy, outcomes)) > 0.7


def command(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "zoo.run", *arguments]
    return subprocess.run(words, cwd=cwd, env=environment(cwd / "cache"), capture_output=True, text=True, timeout=120)


def test_the_command_shows_all_of_them_and_a_sweep_counts_each(tmp_path: Path) -> None:
    done = command(tmp_path, "model=mlp", *ARGUMENTS, "replicas=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 cells" in done.stdout
    assert "One vectorised model. Results: runs/image_classification/digits/mlp" in done.stdout
    swept = command(tmp_path, "-m", *ARGUMENTS, "model=mlp,linear", "replicas=2", "report=off")
    assert (swept.returncode, swept.stderr) == (0, "")
    assert "3 cells" in swept.stdout
    assert swept.stdout.count("complete (kept)") == 2
    assert "'linear' fits itself, so its seeds are runs of their own" in swept.stdout
    (notes,) = (tmp_path / "runs" / ".sweeps").iterdir()
    told = [json.loads(note.read_text()) for note in sorted(notes.glob("cell-*.json"))]
    assert [(cell["model"], cell["seed"], cell["status"]) for cell in told] == [
        ("mlp", 0, "complete"), ("mlp", 1, "complete"), ("linear", 0, "skipped"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replicas=0", "model=mlp"), "replicas=0: it must be a whole number of 1 or more"),
        (("replicas=2", "model=cnn"), "batch norm, whose running statistics cannot be vectorised"),
        (
            ("replicas=2", "model=mlp", "trainer.compile=default"),
            "goes with neither trainer.compile nor trainer.micro_batch",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_no_run(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = command(tmp_path, *ARGUMENTS, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.rglob("run.json"))
