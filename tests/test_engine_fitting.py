"""From a model and loaded data to its answers: what is kept, what is the same twice, and whose fault an error is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.config import Device, Precision, RunConfig, Trainer, TrainerOptions
from zoo.engine import evaluation, fitting
from zoo.engine.batches import Batches
from zoo.engine.fitting import Answers
from zoo.records import Observers
from zoo.tasks import ImageClassification

SIDE = 6


@dataclass
class Stripes(zoo.Dataset):
    """Noisy images whose class is the row that is bright."""

    name: ClassVar[str] = "stripes"
    modality: ClassVar[zoo.Modality] = "image"

    def read(self) -> zoo.Data:
        def part(count: int, seed: int) -> zoo.Labelled:
            rng = np.random.default_rng(seed)
            labels = np.arange(count) % 3
            images = rng.integers(0, 120, (count, SIDE, SIDE, 1), dtype=np.uint8)
            images[np.arange(count), labels] += 70
            return zoo.Labelled(images, labels)

        return zoo.Data(("top", "middle", "low"), part(240, 0), part(90, 1), part(60, 2))


@dataclass
class Net(zoo.TorchModel):
    """A perceptron over pixels with dropout. draws: random numbers that its encoder takes while it encodes."""

    draws: int = 0

    name: ClassVar[str] = "net"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"image"})

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        torch.rand(self.draws)
        return zoo.PixelEncoder(train)

    def build(self, inputs: zoo.InputSpec, classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(int(np.prod(inputs.shape)), 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, classes)
        )

    def layers(self, module: nn.Module) -> Mapping[str, nn.Module]:
        return {"hidden": module.get_submodule("2"), "logits": module.get_submodule("4")}


@dataclass
class Oracle(zoo.Predictor):
    """Answers what it is given."""

    rows: Any = None
    seen: list[Any] = field(default_factory=list)

    name: ClassVar[str] = "oracle"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"image"})

    def fit(self, train: zoo.Split, validation: zoo.Split, seed: int) -> None:
        self.seen.append((train.name, validation.name, seed))

    def predict_proba(self, examples: Sequence[str] | np.ndarray) -> np.ndarray:
        found: np.ndarray = self.rows if isinstance(self.rows, np.ndarray) else np.tile(self.rows, (len(examples), 1))
        return found

    def weights(self) -> Mapping[str, np.ndarray]:
        return {"bias": np.zeros(7)}


class Watcher:
    """Observers, and what they were told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.shown: list[Mapping[str, float]] = []
        self.told: list[Mapping[str, float]] = []
        self.budget = 0

    @contextlib.contextmanager
    def display(self, steps: int) -> Iterator[Watcher]:
        self.budget = steps
        yield self

    def step(self, done: int, loss: float | None, examples_per_second: float) -> None:
        self.steps.append(done)

    def epoch(self, row: Mapping[str, float]) -> None:
        self.shown.append(row)


@pytest.fixture(scope="module")
def splits() -> zoo.Splits:
    return zoo.load(Stripes())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def run(splits: zoo.Splits, model: Any = None, watcher: Watcher | None = None, **options: Any) -> Answers:
    """One run; options are the trainer's, or else those of the run."""
    watcher = watcher or Watcher()
    own = {name: options.pop(name) for name in ("seed", "probe", "keep_weights") if name in options}
    model = model or Net()
    config = RunConfig(model, Stripes(), ImageClassification(), TrainerOptions(), "net", **own)
    trainer = Trainer(**{"epochs": 6, "batch_size": 16, "learning_rate": 0.01, "threads": 1} | options)
    given = trainer if isinstance(model, zoo.TorchModel) else None
    return fitting.fit(config, given, splits, Observers(watcher.display, watcher.told.append))


def test_a_torch_model_learns_and_everything_later_analysis_needs_is_kept(splits: zoo.Splits) -> None:
    watcher = Watcher()
    found = run(splits, watcher=watcher, probe=25)
    assert (found.test.shape, found.validation.shape) == ((90, 3), (60, 3))
    assert found.test.dtype == found.validation.dtype == np.float32
    assert (found.test.argmax(1) == splits.test.labels).mean() > 0.9
    assert {name: kept.shape for name, kept in found.features.items()} == {"hidden": (25, 16), "logits": (25, 3)}
    # The features are those of the probe rows: the last layer's are the logits themselves.
    np.testing.assert_allclose(found.features["logits"], found.test[found.probe_rows], rtol=1e-4, atol=1e-4)
    assert watcher.shown == watcher.told == found.history
    assert watcher.budget == len(watcher.steps) == 90


def test_the_facts_of_a_run_are_told(splits: zoo.Splits) -> None:
    facts = run(splits, epochs=1.5, device=Device.cpu).facts
    weights = SIDE * SIDE * 16 + 16 + 16 * 3 + 3
    assert facts["param_count"] == facts["trained_param_count"] == weights
    assert (facts["device"], facts["precision"], facts["threads"], facts["micro_batch"]) == ("cpu", "fp32", 1, 16)
    assert (facts["steps"], facts["epochs"], facts["stopped"]) == (23, 2, "budget")
    assert facts["train_samples_per_sec"] * facts["train_seconds"] == pytest.approx(240 + 8 * 16)


def test_stored_weights_give_the_stored_logits(splits: zoo.Splits) -> None:
    found = run(splits)
    encoder = zoo.PixelEncoder(splits.train)
    module = Net().build(encoder.spec, 3)
    module.load_state_dict(dict(found.weights))
    module.eval()
    spec = encoder.spec
    assert spec.mean is not None
    assert spec.std is not None
    pixels = np.moveaxis(np.asarray(splits.test.examples), 3, 1) / 255
    inputs = torch.from_numpy((pixels - spec.mean[0]) / spec.std[0]).float()
    with torch.no_grad():
        np.testing.assert_allclose(module(inputs).numpy(), found.test, rtol=1e-3, atol=1e-3)
    assert run(splits, keep_weights=False).weights == {}


def test_tied_weights_are_stored_under_each_of_their_names(splits: zoo.Splits) -> None:
    class Tied(Net):
        def build(self, inputs: zoo.InputSpec, classes: int) -> nn.Module:
            module = nn.Sequential(nn.Flatten(), nn.Linear(36, 36), nn.Linear(36, 36), nn.Linear(36, classes))
            module[2].weight = module[1].weight
            return module

        def layers(self, module: nn.Module) -> Mapping[str, nn.Module]:
            return {}

    weights = run(splits, Tied(), epochs=1).weights
    assert torch.equal(weights["1.weight"], weights["2.weight"])
    assert weights["1.weight"].data_ptr() != weights["2.weight"].data_ptr()


def test_one_thread_gives_bitwise_the_same_twice_and_another_seed_something_else(splits: zoo.Splits) -> None:
    first, second, other = run(splits), run(splits), run(splits, seed=1)
    assert np.array_equal(first.test, second.test)
    assert np.array_equal(first.validation, second.validation)
    assert not np.array_equal(first.test, other.test)


def test_streamed_data_gives_bitwise_the_same(splits: zoo.Splits) -> None:
    assert np.array_equal(run(splits).test, run(splits, resident_mib=0).test)


def test_what_an_encoder_draws_does_not_change_the_result(splits: zoo.Splits) -> None:
    # The second time the encoding comes from the cache, and what it drew the first time is not drawn.
    assert np.array_equal(run(splits, Net(draws=0)).test, run(splits, Net(draws=5)).test)


def test_the_number_of_threads_is_the_runs_own(splits: zoo.Splits) -> None:
    before = torch.get_num_threads()
    seen = []

    class Noting(Net):
        def layers(self, module: nn.Module) -> Mapping[str, nn.Module]:
            seen.append(torch.get_num_threads())
            return {}

    run(splits, Noting(), epochs=1, threads=before + 2)
    run(splits, Noting(), epochs=1, threads=None)
    assert seen == [before + 2, 1]
    assert torch.get_num_threads() == before


def test_out_of_memory_in_training_makes_evaluation_smaller_too(splits: zoo.Splits) -> None:
    largest = {True: 0, False: 0}

    class Modest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(SIDE * SIDE, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if self.training and len(inputs) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            largest[self.training] = max(largest[self.training], len(inputs))
            answers: torch.Tensor = self.head(inputs.flatten(1))
            return answers

    class Heavy(Net):
        def build(self, inputs: zoo.InputSpec, classes: int) -> nn.Module:
            return Modest()

        def layers(self, module: nn.Module) -> Mapping[str, nn.Module]:
            return {}

    assert run(splits, Heavy(), epochs=1, probe=0).facts["micro_batch"] == 4
    assert largest == {True: 4, False: 8}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
@pytest.mark.parametrize("place", ["validation", "test", "features"])
def test_out_of_memory_while_answering_takes_smaller_batches_and_gives_the_same(
    splits: zoo.Splits, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    wanted = run(splits, epochs=1)
    sizes: list[int] = []

    def greedy(real: Callable[..., Any]) -> Callable[..., Any]:
        def answered(given: Any, *more: Any) -> Any:
            size = given.shape[0] if isinstance(given, torch.Tensor) else len(given)
            sizes.append(size)
            if size > 5:
                raise error
            return real(given, *more)

        return answered

    if place == "features":
        monkeypatch.setattr(evaluation, "pool", greedy(evaluation.pool))
    else:
        follow = Batches.follow

        def followed(batches: Batches, plan: Any) -> Any:
            rows = [len(part) for part in plan]
            sizes.extend(rows)
            if len(batches) == len(getattr(splits, place)) and max(rows) > 5:
                raise error
            return follow(batches, plan)

        monkeypatch.setattr(Batches, "follow", followed)
    found = run(splits, epochs=1)
    assert max(sizes) > 5 >= min(sizes)
    np.testing.assert_allclose(found.validation, wanted.validation, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.test, wanted.test, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.features["hidden"], wanted.features["hidden"], rtol=1e-4, atol=1e-5)


def test_memory_that_does_not_suffice_for_one_example_is_said_with_advice(
    splits: zoo.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(evaluation, "pool", refused)
    with pytest.raises(zoo.TrainingError, match=r"even for one example at a time.*\n.*trainer.device=cpu"):
        run(splits, Net(), epochs=1)


@pytest.mark.parametrize("rate", [0.02, 3.0])
def test_validation_answers_of_the_best_epoch_are_those_computed_anew(splits: zoo.Splits, rate: float) -> None:
    """In float32 they are kept from the training, be the last epoch the best or an earlier one."""
    trainer = Trainer(epochs=4, batch_size=16, learning_rate=rate, precision=Precision.fp32, threads=1)
    watcher, nothing = Watcher(), fitting.Kept(probe=0, weights=False)
    ready = fitting.prepare(Net(), trainer, splits, 0)
    trained = fitting.train(ready, trainer, 0, Observers(watcher.display, watcher.told.append))
    assert (trained.best_epoch < 4) == (rate == 3.0)
    kept = fitting.answer(ready, splits, nothing, 16, trained)
    assert kept.validation is trained.validation
    np.testing.assert_array_equal(kept.validation, fitting.answer(ready, splits, nothing, 16).validation)


def test_stored_answers_are_computed_in_float32_whatever_was_trained_in(splits: zoo.Splits) -> None:
    seen: dict[bool, list[torch.dtype]] = {True: [], False: []}

    class Noting(Net):
        def build(self, inputs: zoo.InputSpec, classes: int) -> nn.Module:
            module = super().build(inputs, classes)
            last = module.get_submodule("4")
            last.register_forward_hook(lambda part, _, output: seen[part.training].append(output.dtype))
            return module

    found = run(splits, Noting(), epochs=2, precision=Precision.bf16, probe=0)
    assert set(seen[True]) == {torch.bfloat16}
    # Batches of 32: 60 and 90 examples. The last epoch is validated in float32, and kept where it is the best.
    epochs = [torch.bfloat16] * 2 + [torch.float32] * 2
    best_is_last = found.facts["best_epoch"] == 2
    assert seen[False] == epochs + [torch.float32] * (3 if best_is_last else 5)
    assert found.validation.dtype == found.test.dtype == np.float32


def test_the_probe_is_the_same_examples_whatever_their_order() -> None:
    ids = tuple(f"{number * 7919 % 1000:03d}" for number in range(200))
    rows = fitting.probe_rows(ids, 20)
    assert (np.diff(rows) > 0).all()
    assert {ids[row] for row in rows} == set(sorted(ids)[:20])
    shuffled = tuple(np.random.default_rng(0).permutation(ids))
    assert {shuffled[row] for row in fitting.probe_rows(shuffled, 20)} == {ids[row] for row in rows}
    assert len(fitting.probe_rows(ids, 1000)) == 200
    assert len(fitting.probe_rows(ids, 0)) == 0


def test_without_a_probe_no_features_are_kept(splits: zoo.Splits) -> None:
    found = run(splits, epochs=1, probe=0)
    assert (found.features, len(found.probe_rows)) == ({}, 0)


# --- whose fault it is ------------------------------------------------------------------------------------------------


def failing(method: str) -> zoo.TorchModel:
    def fail(*_arguments: object) -> Any:
        raise KeyError("no such thing\nand more")

    return type("Failing", (Net,), {method: fail})()  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["encoder", "build", "layers", "parameter_groups"])
def test_an_error_in_a_method_of_the_model_names_model_and_method(splits: zoo.Splits, method: str) -> None:
    with pytest.raises(zoo.PluginError) as caught:
        run(splits, failing(method), epochs=0.1)
    assert str(caught.value) == f"Model 'net' failed in {method}: KeyError: 'no such thing\\nand more'"
    assert isinstance(caught.value.__cause__, KeyError)


def test_errors_made_on_purpose_and_lack_of_memory_pass_through_as_they_are() -> None:
    for error in (zoo.Incompatible("does not fit"), MemoryError()):
        with pytest.raises(type(error)), fitting.blame(Net(), "build"):
            raise error


def test_an_error_without_a_message_is_told_as_such() -> None:
    with (
        pytest.raises(zoo.PluginError, match=r"^Model 'net' failed in build: ValueError: no message$"),
        fitting.blame(Net(), "build"),
    ):
        raise ValueError


def test_build_must_return_a_module(splits: zoo.Splits) -> None:
    class Wrong(Net):
        def build(self, inputs: zoo.InputSpec, classes: int) -> Any:
            return [nn.Linear(1, 1)]

    with pytest.raises(zoo.PluginError, match=r"Model 'net': build returned list, not a torch\.nn\.Module\."):
        run(splits, Wrong())


def test_logits_of_a_wrong_shape_are_told(splits: zoo.Splits) -> None:
    class Wrong(Net):
        def build(self, inputs: zoo.InputSpec, classes: int) -> nn.Module:
            return super().build(inputs, classes + 1)

    with pytest.raises(zoo.PluginError, match=r"shape \(16, 4\) for a batch of 16; it must return .* \(16, 3\)"):
        run(splits, Wrong())


# --- predictors -------------------------------------------------------------------------------------------------------


def test_a_predictor_fits_itself_and_its_logits_are_log_probabilities(splits: zoo.Splits) -> None:
    model = Oracle([0.5, 0.5, 0.0])
    found = run(splits, model, seed=4)
    assert model.seen == [("train", "validation", 4)]
    assert (found.test.shape, found.validation.shape, found.test.dtype) == ((90, 3), (60, 3), np.float32)
    assert np.isfinite(found.test).all()
    np.testing.assert_allclose(np.exp(found.test[0]), [0.5, 0.5, 0], atol=1e-7)
    assert found.facts["param_count"] == 7
    assert list(found.weights) == ["bias"]
    assert (found.features, found.history) == ({}, [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones((60, 2)) / 2, r"predict_proba returned shape \(60, 2\); it must be \(60, 3\)"),
        ([0.5, 0.6, 0.0], r"no distributions \(smallest value 0, sums from 1\.1000 to 1\.1000\)"),
        ([1.5, -0.5, 0.0], r"no distributions \(smallest value -0\.5,"),
        ([np.nan, 0.5, 0.5], r"no distributions \(smallest value nan,"),
    ],
)
def test_what_is_no_distribution_is_refused(splits: zoo.Splits, rows: Any, message: str) -> None:
    with pytest.raises(zoo.PluginError, match=f"^Model 'oracle': .*{message}"):
        run(splits, Oracle(rows))


@pytest.mark.parametrize("method", ["fit", "predict_proba", "weights"])
def test_an_error_in_a_predictor_names_the_method(splits: zoo.Splits, method: str) -> None:
    def fail(*_arguments: object) -> Any:
        raise OSError("the service is down")

    broken = type("Failing", (Oracle,), {method: fail})([1.0, 0.0, 0.0])
    with pytest.raises(zoo.PluginError, match=f"^Model 'oracle' failed in {method}: OSError: the service is down$"):
        run(splits, broken)


def test_the_order_of_the_test_examples_changes_nothing_but_the_order(splits: zoo.Splits) -> None:
    turned = np.arange(90)[::-1].copy()
    test = splits.test
    other = replace(
        test, examples=test.examples[turned], labels=test.labels[turned],
        ids=tuple(test.ids[row] for row in turned), fingerprint="turned",
    )  # fmt: skip
    one, two = run(splits, probe=10), run(replace(splits, test=other), probe=10)
    np.testing.assert_allclose(one.test[turned], two.test, rtol=1e-4, atol=1e-5)
    assert {test.ids[row] for row in one.probe_rows} == {other.ids[row] for row in two.probe_rows}
