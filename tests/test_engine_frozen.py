"""A frozen part is computed once: the same results as with the whole module, and how little the body is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from test_engine_fitting import Net, Stripes, Watcher
from torch import nn

import zoo
from zoo.config import Loss, Precision, RunConfig, Trainer, TrainerOptions
from zoo.data.cache import entries
from zoo.engine import fitting, frozen
from zoo.engine.fitting import Answers
from zoo.records import Observers
from zoo.tasks import ImageClassification

seen: list[int] = []


class Body(nn.Module):
    """A layer that is the same whatever the seed, with dropout that must never drop. Notes how many it is asked."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.layer, self.dropout, self.scale = nn.Linear(36, 24), nn.Dropout(0.5), scale
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(24, 36, generator=torch.Generator().manual_seed(3)) / 6)
            self.layer.bias.zero_()
        self.requires_grad_(False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        seen.append(len(inputs))
        return self.dropout(torch.relu(self.layer(inputs.flatten(1)))) * self.scale  # type: ignore[no-any-return]


class Whole(nn.Module):
    def __init__(self, scale: float, dropout: float, classes: int) -> None:
        super().__init__()
        self.body = Body(scale)
        self.top = nn.Sequential(nn.Linear(24, 12), nn.ReLU(), nn.Dropout(dropout))
        self.out = nn.Linear(12, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.out(self.top(self.body(inputs)))  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Whole:
        super().train(mode)
        self.body.eval()
        return self


@dataclass
class Half(Net):
    """Half of it is frozen. named: whether it says so; told: whether its key says what its scale is."""

    named: bool = True
    told: bool = True
    scale: float = 1.0
    dropout: float = 0.3

    name: ClassVar[str] = "half"

    def build(self, inputs: zoo.InputSpec, classes: int) -> nn.Module:
        return Whole(self.scale, self.dropout, classes)

    def layers(self, module: nn.Module) -> Mapping[str, nn.Module]:
        return {"body": module.get_submodule("body"), "logits": module.get_submodule("out")}

    def parameter_groups(self, module: nn.Module) -> Mapping[str, float]:
        return {"top": 0.5}

    def frozen(self, module: nn.Module) -> zoo.FrozenPart | None:
        assert isinstance(module, Whole)
        head = nn.Sequential(module.top, module.out)
        return zoo.FrozenPart(module.body, head, f"scale={self.scale}" if self.told else "") if self.named else None


@pytest.fixture(scope="module")
def splits() -> zoo.Splits:
    return zoo.load(Stripes())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    seen.clear()
    return tmp_path / "cache"


EXACT: dict[str, Any] = {"precision": Precision.fp32, "threads": 1}  # else device and processor choose them


def run(splits: zoo.Splits, model: zoo.TorchModel, seed: int = 0, **options: Any) -> Answers:
    config = RunConfig(model, Stripes(), ImageClassification(), TrainerOptions(), "half", seed=seed, probe=20)
    trainer = Trainer(**{"epochs": 4, "batch_size": 16, "learning_rate": 0.01} | EXACT | options)
    watcher = Watcher()
    return fitting.fit(config, trainer, splits, Observers(watcher.display, watcher.told.append))


def assert_same(one: Answers, other: Answers) -> None:
    np.testing.assert_allclose(one.test, other.test, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one.validation, other.validation, rtol=1e-5, atol=1e-5)
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        torch.testing.assert_close(value, other.weights[name], rtol=1e-5, atol=1e-5)
    for name, layer in one.features.items():
        np.testing.assert_allclose(layer, other.features[name], rtol=1e-5, atol=1e-5)
    for kind in ("step", "loss", "validation_loss", "validation_accuracy"):
        assert [row[kind] for row in one.history] == pytest.approx([row[kind] for row in other.history], abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"loss": Loss.mse, "micro_batch": 5, "patience": 1, "resident_mib": 0}])
def test_the_results_are_those_of_the_whole_module(splits: zoo.Splits, options: dict[str, Any]) -> None:
    whole = run(splits, Half(named=False), **options)
    short, again = run(splits, Half(), **options), run(splits, Half(), **options)
    assert_same(whole, short)
    assert np.array_equal(short.test, again.test)
    assert [answers.facts.get("vectors") for answers in (whole, short, again)] == [None, "made", "cache"]
    same = (
        "param_count",
        "trained_param_count",
        "steps",
        "epochs",
        "best_epoch",
        "stopped",
        "precision",
        "micro_batch",
    )
    assert {name: whole.facts[name] for name in same} == {name: short.facts[name] for name in same}
    assert (whole.test.argmax(1) == splits.test.labels).mean() > 0.8


def test_in_bfloat16_the_vectors_stay_float32_and_the_results_are_near(splits: zoo.Splits) -> None:
    """The whole module in training rounds what its body computes, the shortcut does not: not a rounding more."""
    exact = run(splits, Half())
    whole, short = (run(splits, Half(named=named), precision=Precision.bf16) for named in (False, True))
    assert (short.facts["vectors"], short.facts["precision"], whole.facts["precision"]) == ("cache", "bf16", "bf16")
    for answers in (whole, short):
        assert not np.allclose(answers.test, exact.test, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(answers.test, exact.test, rtol=0.05, atol=0.05)
    assert (whole.test.argmax(1) == short.test.argmax(1)).mean() > 0.97


def test_the_body_is_asked_once_for_all_seeds_and_heads(splits: zoo.Splits, cache: Path) -> None:
    run(splits, Half())
    whole = 3 * 8 + 90  # samples, and features with speed; its arithmetic is counted only where that decides anything
    assert sum(seen) == 240 + 60 + 90 + whole  # and each split
    assert max(seen) == 64
    for model, seed in ((Half(), 1), (Half(dropout=0.1), 2)):
        seen.clear()
        run(splits, model, seed)
        assert sum(seen) == whole
    assert sorted(entry.split for entry in entries(cache) if "frozen" in entry.encoder) == [
        "test",
        "train",
        "validation",
    ]


def test_another_body_has_vectors_of_its_own(splits: zoo.Splits, cache: Path) -> None:
    for model in (Half(), Half(scale=2.0)):
        assert run(splits, model, epochs=1).facts["vectors"] == "made"
    assert len([entry for entry in entries(cache) if "frozen" in entry.encoder]) == 6


def test_a_key_that_leaves_something_out_is_found_out(splits: zoo.Splits) -> None:
    run(splits, Half(told=False), epochs=1)
    with pytest.raises(zoo.PluginError, match=r"(?s)'half'.*differ from the module's by up to .*FrozenPart.key"):
        run(splits, Half(told=False, scale=3.0), epochs=1)


@pytest.mark.parametrize("variables", [{"ZOO_CACHE": "off"}, {"ZOO_CACHE": "small", "ZOO_CACHE_LIMIT": "20000"}])
def test_without_room_in_the_cache_memory_takes_them_or_the_whole_module_is_trained(
    splits: zoo.Splits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str]
) -> None:
    kept = run(splits, Half())
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)  # 240 x 24 float32 are 23,040 bytes
    short, whole = run(splits, Half()), run(splits, Half(), resident_mib=0)
    assert (short.facts["vectors"], whole.facts.get("vectors")) == ("memory", None)
    assert_same(kept, short)
    assert_same(kept, whole)


def test_vectors_of_many_blocks_are_those_of_one(splits: zoo.Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = run(splits, Half())
    monkeypatch.setattr(frozen, "ROWS", 50)
    monkeypatch.setenv("ZOO_CACHE", "off")
    assert_same(kept, run(splits, Half()))


def test_making_the_vectors_counts_as_training_whoever_made_them(splits: zoo.Splits) -> None:
    made, cached = run(splits, Half()).facts, run(splits, Half(), seed=1).facts
    assert made["vectors_seconds"] == cached["vectors_seconds"] > 0
    for facts in (made, cached):
        assert facts["train_seconds"] > facts["vectors_seconds"]
        assert facts["train_samples_per_sec"] * facts["train_seconds"] == pytest.approx(4 * 240)


def body_wants_gradient(module: Whole) -> Any:
    module.body.requires_grad_(True)
    return zoo.FrozenPart(module.body, nn.Sequential(module.top, module.out), "")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (lambda module: (module.body, module.out), r"frozen returned tuple, not a zoo\.FrozenPart"),
        (lambda module: zoo.FrozenPart(module.body, module.out, ""), r"'top\.0\.weight' wants a gradient and is not"),
        (body_wants_gradient, r"'layer\.weight' of the frozen part's body wants a gradient"),
        (lambda module: zoo.FrozenPart(nn.Flatten(0), module, ""), "failed in frozen: TypeError: its body must give"),
        (lambda module: 1 / 0, "Model 'half' failed in frozen: ZeroDivisionError"),
    ],
)
def test_parts_that_are_none_are_refused(splits: zoo.Splits, parts: Any, said: str) -> None:
    model = type("Wrong", (Half,), {"frozen": lambda _self, module: parts(module)})()
    with pytest.raises(zoo.PluginError, match=said):
        run(splits, model, epochs=0.1)
