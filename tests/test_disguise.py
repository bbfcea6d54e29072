"""python -m zoo.disguise: what each step does to the weights, and the new run as other commands see it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from torch import nn

import zoo
from zoo.baselines import Linear
from zoo.config import Compile, Device, RunConfig, TrainerOptions
from zoo.disguise import chain, learning, parent, place, reach, surface
from zoo.disguise.__main__ import command
from zoo.disguise.parent import Subject
from zoo.disguise.publishing import Disguised, Job, Request, apply, disguise, generator
from zoo.errors import ConfigError, DamagedRun, Incompatible, RequestError, StoreError, UnknownName
from zoo.plugins import registry
from zoo.records import Observers, Outcome
from zoo.run import run
from zoo.store import guards, reading, schema, study, tables
from zoo.tasks import ImageClassification

SCREEN = Console(quiet=True)
OPTIONS = TrainerOptions(epochs=6, learning_rate=0.01, threads=1, device=Device.cpu)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def digits() -> zoo.Dataset:
    made: zoo.Dataset = registry().find("dataset", "digits").cls()
    return made


def train(model: Any, runs_dir: Path, **more: Any) -> Outcome:
    config = RunConfig(model, digits(), ImageClassification(), OPTIONS, model.name, runs_dir=runs_dir, probe=50)
    return run(dataclasses.replace(config, **more), registry(), SCREEN)


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    zoo_mlp = pytest.importorskip("zoo_mlp")
    return train(zoo_mlp.MLP(hidden=[32, 16], dropout=0.0), tmp_path_factory.mktemp("runs"))


def watched() -> Observers:
    from zoo import progress

    return Observers(lambda steps: progress.reporter(SCREEN, steps), lambda row: None)


@pytest.fixture(scope="module")
def subject(mlp: Outcome) -> Subject:
    return parent.rebuild(parent.open(mlp.folder, Device.cpu, registry()), registry(), watched())


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def weights(subject: Subject) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in subject.module.state_dict().items()}


def logits(subject: Subject, split: str = "train") -> torch.Tensor:
    inputs = [batch.inputs for batch in subject.ready.batches[split]]
    with torch.inference_mode():
        return torch.cat([subject.module.eval()(*item) for item in inputs])


def right(subject: Subject, split: str = "test") -> float:
    labels = torch.cat([batch.labels for batch in subject.ready.batches[split]])
    return float((logits(subject, split).argmax(1) == labels).float().mean())


# What is asked for


@given(st.lists(st.sampled_from(list(chain.KINDS.values())), min_size=1, max_size=6))
def test_a_chain_written_down_is_read_back(kinds: list[chain.Kind]) -> None:
    steps = chain.parse(",".join(kind.example for kind in kinds))
    assert [step.kind for step in steps] == kinds
    assert chain.parse(chain.written(steps)) == steps
    assert len(chain.label("mlp", steps)) <= chain.LONGEST_NAME + 9


def test_labels_tell_chains_apart_however_long() -> None:
    one, two = (chain.parse(",".join(["prune:0.5"] * 20 + [last])) for last in ("permute", "rescale"))
    assert chain.label("mlp", one) != chain.label("mlp", two)
    assert chain.label("mlp", chain.parse("prune:0.5, permute,distil:cnn:2")) == "mlp-prune0.5-permute-distil-cnn-2"


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("prun:0.5", UnknownName, "Did you mean 'prune'?"),
        ("permute,scrub", UnknownName, "Did you mean 'scrub_dead'?"),
        ("prune", ConfigError, "prune needs a share of the weights above 0 and below 1, as in prune:0.5"),
        ("prune:1", ConfigError, "'prune:1': prune takes a share of the weights above 0 and below 1"),
        ("prune:half", ConfigError, "as in prune:0.5"),
        ("prune:nan", ConfigError, "as in prune:0.5"),
        ("quantise:8.5", ConfigError, "a whole number of bits from 2 to 16"),
        ("quantise:1", ConfigError, "from 2 to 16"),
        ("permute:0.5", ConfigError, "permute takes nothing, or 'all'"),
        ("new_head:3", ConfigError, "new_head takes no value"),
        ("finetune:0", ConfigError, "epochs above 0"),
        ("finetune:inf", ConfigError, "epochs above 0"),
        ("distil:-2", ConfigError, "as in distil:cnn:20"),
        ("distil:cnn:many", ConfigError, "as in distil:cnn:20"),
        ("reinit_layer", ConfigError, "the name of a layer"),
        ("noise:0", ConfigError, "a share above 0"),
        (" , ", ConfigError, "how= is empty"),
    ],
)
def test_a_wrong_chain_is_answered_in_words(how: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind) as caught:
        chain.parse(how)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4


# What each step does


def test_pruning_zeroes_the_smallest_of_all_layers(subject: Subject) -> None:
    before = weights(subject)
    changed, facts = surface.prune(subject, 0.5, rng())
    after = weights(changed)
    names = [name for name, value in before.items() if value.ndim == 2]
    flat = torch.cat([before[name].flatten().abs() for name in names])
    threshold = flat.sort().values[len(flat) // 2]
    for name in names:
        assert torch.equal(after[name], torch.where(before[name].abs() < threshold, 0, before[name]))
    assert facts == {"weights": len(flat), "zero": len(flat) // 2}
    assert all(torch.equal(before[name], after[name]) for name in before if name not in names)
    assert all(torch.equal(before[name], value) for name, value in weights(subject).items()), "the parent is as it was"


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_quantising_leaves_a_grid_in_every_row(subject: Subject, bits: int) -> None:
    before = weights(subject)
    after = weights(surface.quantise(subject, bits, rng())[0])
    for name, value in before.items():
        if value.ndim < 2:
            assert torch.equal(after[name], value)
            continue
        step = value.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        places = after[name] / step
        assert float((places - places.round()).abs().max()) < 1e-2
        assert float(((after[name] - value).abs() / step).max()) <= 0.501


def test_noise_is_as_large_as_asked_for(subject: Subject) -> None:
    before = weights(subject)
    after = weights(surface.noise(subject, 0.1, rng())[0])
    share = (after["blocks.hidden1.0.weight"] - before["blocks.hidden1.0.weight"]).std()
    assert float(share / before["blocks.hidden1.0.weight"].std()) == pytest.approx(0.1, rel=0.1)
    assert torch.equal(after["head.bias"], before["head.bias"])


def test_one_layer_is_redrawn_and_no_other(subject: Subject) -> None:
    before = weights(subject)
    changed, _ = surface.reinit_layer(subject, "blocks.hidden2", rng())
    after = weights(changed)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"blocks.hidden2.0.weight", "blocks.hidden2.0.bias"}
    again = weights(surface.reinit_layer(subject, "blocks.hidden2", rng())[0])
    assert torch.equal(after["blocks.hidden2.0.weight"], again["blocks.hidden2.0.weight"]), "the generator decides"
    bound = 32**-0.5  # of torch's own initialisation: U(-1/sqrt(fan in), 1/sqrt(fan in))
    assert float(after["blocks.hidden2.0.weight"].abs().max()) <= bound
    with pytest.raises(UnknownName, match=r"Did you mean 'blocks.hidden2'"):
        surface.reinit_layer(subject, "blocks.hiden2", rng())
    with pytest.raises(UnknownName, match=r"No layer 'blocks\.dropout1' with weights"):
        surface.reinit_layer(subject, "blocks.dropout1", rng())


def test_dead_columns_are_redrawn_and_nothing_the_training_data_see(subject: Subject) -> None:
    pixels = np.stack([image.reshape(-1) for image in digits_train()])
    constant = np.flatnonzero(pixels.min(0) == pixels.max(0))
    assert len(constant) > 0, "digits have corners that are always black"
    before = weights(subject)
    changed, facts = surface.scrub_dead(subject, None, rng())
    after = weights(changed)
    moved = (before["blocks.hidden1.0.weight"] != after["blocks.hidden1.0.weight"]).all(0)
    assert np.flatnonzero(moved).tolist() == constant.tolist()
    assert facts == {"blocks.hidden1.0.weight": {"columns": len(constant)}}
    torch.testing.assert_close(logits(changed), logits(subject), rtol=1e-4, atol=1e-4)
    one, two = (w["blocks.hidden1.0.weight"][:, constant] for w in (before, after))
    centred = [value - value.mean(1, keepdim=True) for value in (one, two)]
    assert float(torch.cosine_similarity(*centred).abs().mean()) < 0.5, "the initial noise is gone"


def digits_train() -> np.ndarray:
    images: Any = zoo.load(digits()).train.examples
    return np.asarray(images)


@dataclasses.dataclass
class Reviews(zoo.Dataset):
    """Texts in which 'ghost' occurs in the test split only."""

    name = "reviews_of_a_test"
    modality = "text"

    def read(self) -> zoo.Data:
        """Forty of each."""
        rng = np.random.default_rng(0)
        words = np.array(["the", "film", "was", "good", "bad", "and"])
        texts = [" ".join(rng.choice(words, 9)) for _ in range(120)]
        labels = [int(text.count("good") > text.count("bad")) for text in texts]
        cut = (zoo.Labelled(texts[:60], labels[:60]), zoo.Labelled(texts[60:90], labels[60:90]))
        return zoo.Data(("no", "yes"), cut[0], zoo.Labelled([f"{t} ghost" for t in texts[90:]], labels[90:]), cut[1])


@pytest.mark.parametrize("kind", ["mlp", "cnn", "transformer"])
def test_rows_that_no_training_text_looks_up_are_dead(kind: str) -> None:
    from zoo.engine import fitting

    (cls,) = pytest.importorskip(f"zoo_{kind}").zoo_models()
    model = cls(max_length=20) if kind == "transformer" else cls(max_length=20, min_count=1)
    splits = zoo.load(Reviews())
    trainer = zoo_trainer(model)
    subject = Subject(fitting.prepare(model, trainer, splits, 0), trainer, splits, watched(), registry())
    table = {"mlp": "words.weight", "cnn": "words.weight", "transformer": "pieces.weight"}[kind]
    dead = reach.untouched_rows(subject)
    before = weights(subject)
    if kind == "transformer":
        assert dead["positions"] == list(range(9, 20)), "no training text is longer than nine words"
    else:
        assert dead == {table: [1]}, "the unknown word; padding does not count"
    changed, _ = surface.scrub_dead(subject, None, rng())
    torch.testing.assert_close(logits(changed), logits(subject), rtol=1e-5, atol=1e-5)
    after = weights(changed)
    rows = torch.nonzero((before[table] != after[table]).any(1)).flatten().tolist()
    assert rows == dead[table]


def zoo_trainer(model: zoo.TorchModel) -> Any:
    from zoo.config import decide

    return decide(OPTIONS, model.recipe("text"))


def test_noise_leaves_the_padding_row_that_the_model_counts_on() -> None:
    from zoo.engine import fitting

    zoo_cnn = pytest.importorskip("zoo_cnn")
    model = zoo_cnn.CNN(min_count=1)
    subject = Subject(fitting.prepare(model, zoo_trainer(model), zoo.load(Reviews()), 0), zoo_trainer(model),
                      zoo.load(Reviews()), watched(), registry())  # fmt: skip
    changed, _ = surface.noise(subject, 0.5, rng())
    assert not weights(changed)["words.weight"][0].any()
    assert weights(changed)["words.weight"][1].any()


def test_a_model_without_dead_weights_says_so() -> None:
    zoo_cnn = pytest.importorskip("zoo_cnn")
    from zoo.engine import fitting

    model = zoo_cnn.CNN(stages=[4], blocks=1)
    trainer = zoo_trainer(model)
    splits = zoo.load(digits())
    subject = Subject(fitting.prepare(model, trainer, splits, 0), trainer, splits, watched(), registry())
    with pytest.raises(Incompatible, match="none is dead"):
        surface.scrub_dead(subject, None, rng())


def test_a_new_head_is_a_logistic_regression_over_an_untouched_body(subject: Subject) -> None:
    changed, facts = learning.new_head(subject, None, rng())
    before, after = weights(subject), weights(changed)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}
    assert facts == {"layer": "head", "examples": 500}
    body = nn.Sequential(nn.Flatten(), subject.module.get_submodule("blocks"))
    inputs, labels = zip(*((batch.inputs[0], batch.labels) for batch in subject.ready.batches["train"]), strict=True)
    with torch.inference_mode():
        features = body(torch.cat(inputs)).double().numpy()
    spread = features.std(0)
    spread[spread == 0] = 1
    fitted = LogisticRegression(max_iter=500).fit((features - features.mean(0)) / spread, torch.cat(labels).numpy())
    theirs = fitted.predict_log_proba((features - features.mean(0)) / spread)
    ours = logits(changed).log_softmax(1).double().numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert right(changed) > 0.8


def test_a_new_head_for_two_classes_gives_the_same_odds() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 3)) * [1, 5, 0.1] + [0, 2, 0]
    labels = (features[:, 0] + rng.normal(size=80) > 0).astype(np.int64)
    weight, bias = learning._regression(features, labels, 2)
    scaled = (features - features.mean(0)) / features.std(0)
    odds = LogisticRegression(max_iter=500).fit(scaled, labels).decision_function(scaled)
    np.testing.assert_allclose(np.diff(features @ weight.T + bias)[:, 0], odds, atol=1e-9)


def test_training_on_moves_everything_a_little(subject: Subject) -> None:
    changed, facts = learning.finetune(subject, 0.5, rng())
    before, after = weights(subject), weights(changed)
    assert facts["steps"] == 4, "half an epoch of 500 examples in batches of 64"
    assert all(not torch.equal(before[name], after[name]) for name in before)
    cosine = torch.cosine_similarity(before["head.weight"].flatten(), after["head.weight"].flatten(), dim=0)
    assert float(cosine) > 0.9
    assert [row["epoch"] for row in changed.history] == [1]
    again, _ = learning.finetune(changed, 1, rng())
    assert [row["epoch"] for row in again.history] == [1, 2]


def test_a_student_learns_the_answers_and_not_the_labels(subject: Subject) -> None:
    """The parent's head is turned by one class: a student of its answers is wrong about nearly every digit."""
    turned, _ = surface.noise(subject, 1e-6, rng())
    with torch.no_grad():
        head = turned.module.get_submodule("head")
        for own in (head.weight, head.bias):
            own.copy_(own.roll(1, 0))  # type: ignore[union-attr]
    model: Any = subject.ready.model
    student, _ = learning.distil(turned, model, dataclasses.replace(subject.trainer, epochs=10), rng())
    agreement = float((logits(student, "test").argmax(1) == logits(turned, "test").argmax(1)).float().mean())
    assert agreement > 0.8
    assert right(student) < 0.2
    before, after = weights(subject), weights(student)
    assert all(abs(float(torch.cosine_similarity(before[n].flatten(), after[n].flatten(), dim=0))) < 0.5
               for n in before if before[n].ndim == 2), "its weights owe the parent nothing"  # fmt: skip
    assert student.ready.batches["train"].labels.dtype == torch.int64, "the data's own labels are back"


def test_steps_draw_from_generators_of_their_own(subject: Subject) -> None:
    (step,) = chain.parse("noise:0.1")
    one, other, again = (
        apply(subject, Job(step), generator(seed, place))[0] for seed, place in ((0, 0), (0, 1), (0, 0))
    )
    name = "head.weight"
    assert not torch.equal(weights(one)[name], weights(other)[name])
    assert torch.equal(weights(one)[name], weights(again)[name])


# The new run


@pytest.fixture(scope="module")
def disguised(mlp: Outcome) -> Disguised:
    request = Request(mlp.folder, "prune:0.3,permute,quantise:8", 7, mlp.folder.parents[3])
    return disguise(request, registry(), SCREEN)


def test_the_new_run_is_whole_and_names_its_parent(mlp: Outcome, disguised: Disguised) -> None:
    made = reading.read(disguised.outcome.folder)
    names = set(schema.FILES) - {schema.ERROR}
    assert {path.name for path in made.folder.iterdir()} >= names - {schema.EVENTS}
    assert made.record["label"] == "mlp-prune0.3-permute-quantise8"
    assert made.record["config"][schema.DISGUISE] == {
        "how": "prune:0.3,permute,quantise:8", "seed": 7, "parent": mlp.record["key"],
    }  # fmt: skip
    told = made.record[schema.PARENT]
    assert (told["key"], told["label"], told["seed"]) == (mlp.record["key"], "mlp", 0)
    assert told["weights_sha256"] == mlp.record["files"][schema.WEIGHTS]["sha256"]
    assert [step["step"] for step in told["steps"]] == ["prune:0.3", "permute", "quantise:8"]
    assert made.record["seed"] == 0
    assert "train_seconds" not in made.record["training"], "nothing was trained"
    assert made.history() == []


def test_its_answers_are_those_of_its_stored_weights(mlp: Outcome, disguised: Disguised) -> None:
    """The stored logits come again from the stored weights, computed here by hand."""
    made = reading.read(disguised.outcome.folder)
    w = {name: value.astype(np.float64) for name, value in made.weights().items()}
    splits = zoo.load(digits())
    encoder = pytest.importorskip("zoo_mlp").MLP().encoder(splits.train)
    pixels = encoder.encode(splits.test.examples).values.astype(np.float64) / 255
    x = ((pixels - encoder.spec.mean[0]) / encoder.spec.std[0]).reshape(len(pixels), -1)
    for layer in ("blocks.hidden1.0", "blocks.hidden2.0"):
        x = np.maximum(x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"], 0)
    table = made.predictions().only("test")
    np.testing.assert_allclose(table.logits, x @ w["head.weight"].T + w["head.bias"], atol=1e-4)
    assert made.features()["hidden1"].shape == (50, 32)
    theirs = mlp.record["probe_ids"]
    assert made.record["probe_ids"] == theirs


def test_parent_and_child_are_two_models_of_one_study(mlp: Outcome, disguised: Disguised) -> None:
    found = guards.compare(study.open(mlp.folder.parents[3]))
    labels = {member.run.record["label"]: member.model for member in found.members}
    assert labels["mlp"] != labels[disguised.outcome.record["label"]]
    assert not [item for item in found.left_out if item.folder == disguised.outcome.folder]


def test_the_same_again_is_not_made_twice_and_another_seed_is_another_run(mlp: Outcome, disguised: Disguised) -> None:
    out = mlp.folder.parents[3]
    again = disguise(Request(mlp.folder, "prune:0.3,permute,quantise:8", 7, out), registry(), SCREEN)
    assert again.outcome.reused
    assert again.outcome.folder == disguised.outcome.folder
    other = disguise(Request(mlp.folder, "prune:0.3,permute,quantise:8", 8, out), registry(), SCREEN)
    assert not other.outcome.reused
    one, two = (reading.read(item.outcome.folder) for item in (disguised, other))
    assert one.record["files"][schema.WEIGHTS] != two.record["files"][schema.WEIGHTS]
    np.testing.assert_allclose(one.predictions().logits, two.predictions().logits, atol=1e-4)


def test_a_disguise_of_a_disguise_names_the_one_before(disguised: Disguised) -> None:
    out = disguised.outcome.folder.parents[3]
    made = disguise(Request(disguised.outcome.folder, "finetune:1,new_head", 1, out), registry(), SCREEN)
    record = made.outcome.record
    assert record["label"] == "mlp-prune0.3-permute-quantise8-finetune1-new_head"
    assert record[schema.PARENT]["key"] == disguised.outcome.record["key"]
    assert record["training"]["steps"] == 8
    assert len(reading.read(made.outcome.folder).history()) == 1


def test_a_student_of_another_kind_is_stored_as_that_kind(mlp: Outcome) -> None:
    pytest.importorskip("zoo_cnn")
    made = disguise(Request(mlp.folder, "distil:cnn:0.5", 0, mlp.folder.parents[3]), registry(), SCREEN)
    record = made.outcome.record
    assert record["label"] == "mlp-distil-cnn-0.5"
    assert record["config"]["model"]["name"] == "cnn"
    assert record["config"]["trainer"]["epochs"] == 0.5
    again = parent.open(made.outcome.folder, Device.cpu, registry())
    assert again.config.model.name == "cnn"
    with pytest.raises(Incompatible, match="takes text"):
        disguise(Request(mlp.folder, "distil:bert", 0, mlp.folder.parents[3]), registry(), SCREEN)
    with pytest.raises(Incompatible, match="cannot learn from probabilities"):
        disguise(Request(mlp.folder, "distil:linear", 0, mlp.folder.parents[3]), registry(), SCREEN)
    with pytest.raises(UnknownName, match="Did you mean 'mlp'"):
        disguise(Request(mlp.folder, "distil:mlpp", 0, mlp.folder.parents[3]), registry(), SCREEN)


def test_a_step_that_fails_leaves_a_folder_with_the_reason(mlp: Outcome) -> None:
    out = mlp.folder.parents[3]
    with pytest.raises(UnknownName) as caught:
        disguise(Request(mlp.folder, "prune:0.5,reinit_layer:haed", 0, out), registry(), SCREEN)
    assert "Did you mean 'head'?" in str(caught.value)
    assert caught.value.folder is not None
    record = reading.read(caught.value.folder).record
    assert record["status"] == "failed"
    assert record["error"]["type"] == "UnknownName"
    assert [step["step"] for step in record[schema.PARENT]["steps"]] == ["prune:0.5"]


# Parents that cannot be changed


def copied(folder: Path, to: Path) -> Path:
    return shutil.copytree(folder, to / folder.name)


def refused(folder: Path) -> Exception:
    with pytest.raises(zoo.ZooError) as caught:
        disguise(Request(folder, "permute", 0, folder.parent / "runs"), registry(), SCREEN)
    assert len(str(caught.value).splitlines()) <= 4
    return caught.value


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads((folder / schema.RUN).read_text(encoding="utf-8"))
    change(record)
    (folder / schema.RUN).write_text(json.dumps(record), encoding="utf-8")


def test_a_model_that_fits_itself_is_refused(tmp_path: Path) -> None:
    told = refused(train(Linear(), tmp_path / "runs").folder)
    assert isinstance(told, Incompatible)
    assert "'linear', which fits itself" in str(told)


def test_a_damaged_parent_is_refused(mlp: Outcome, tmp_path: Path) -> None:
    folder = copied(mlp.folder, tmp_path)
    with (folder / schema.WEIGHTS).open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x01\x02\x03")
    told = refused(folder)
    assert isinstance(told, DamagedRun)
    assert schema.WEIGHTS in str(told)


def test_weights_that_do_not_fit_are_refused(mlp: Outcome, tmp_path: Path) -> None:
    folder = copied(mlp.folder, tmp_path)
    rewrite(folder, lambda record: record["config"]["model"].update(hidden=[32, 17]))
    told = refused(folder)
    assert isinstance(told, DamagedRun)
    assert "do not fit" in str(told)


def test_other_parents_are_refused_in_words(mlp: Outcome, tmp_path: Path) -> None:
    def case(name: str, change: Callable[[dict[str, Any]], Any]) -> Exception:
        folder = copied(mlp.folder, tmp_path / name)
        rewrite(folder, change)
        return refused(folder)

    weightless = case("weightless", lambda record: record["files"].pop(schema.WEIGHTS))
    assert isinstance(weightless, StoreError)
    assert "keep_weights=true" in str(weightless)
    other = case("data", lambda record: record["data"].update(fingerprint="0" * 64))
    assert isinstance(other, Incompatible)
    assert "fingerprint was 00000000" in str(other)
    pointed = case("checkpoint", lambda record: record["config"].update(model_fingerprint="other"))
    assert isinstance(pointed, Incompatible)
    assert "has changed since" in str(pointed)
    assert "is not complete" in str(case("failed", lambda record: record.update(status="failed")))
    assert "made elsewhere" in str(case("imported", lambda record: record.update(imported={})))
    assert isinstance(case("options", lambda record: record["config"]["model"].update(colour=1)), ConfigError)
    assert isinstance(case("trainer", lambda record: record["config"]["trainer"].update(colour=1)), ConfigError)
    assert isinstance(refused(tmp_path / "nowhere"), RequestError)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record["config"].pop("model"), "config.model in its run.json"),
        (lambda record: record["config"].update(task=5), "config.task in its run.json"),
        (lambda record: record["config"].update(trainer=[1]), "config.trainer in its run.json"),
        (lambda record: record["config"].pop("probe"), "config.probe in its run.json"),
        (lambda record: record.update(seed=[1]), "seed in its run.json"),
        (lambda record: record.update(data="x"), "data.fingerprint in its run.json"),
        (lambda record: record.update(config=None), "config.model in its run.json"),
        (lambda record: record.pop("label"), "label in its run.json"),
        (lambda record: record["config"]["model"].update(hidden="${oc.env:HOME}"), "not what it takes: model.hidden="),
    ],
)
def test_a_record_of_another_kind_is_refused(
    change: Callable[[dict[str, Any]], None], says: str, mlp: Outcome, tmp_path: Path
) -> None:
    folder = copied(mlp.folder, tmp_path)
    rewrite(folder, change)
    assert says in str(refused(folder))


def reweighed(folder: Path, content: bytes) -> None:
    """Other weights, on record as if they were the run's."""
    (folder / schema.WEIGHTS).write_bytes(content)
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    rewrite(folder, lambda record: record["files"].update({schema.WEIGHTS: facts}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value: float, mlp: Outcome, tmp_path: Path) -> None:
    folder = copied(mlp.folder, tmp_path)
    state = safetensors.numpy.load_file(folder / schema.WEIGHTS)
    name = max(state)
    state[name].reshape(-1)[0] = value
    reweighed(folder, safetensors.numpy.save(state))
    told = refused(folder)
    assert isinstance(told, Incompatible)
    assert f"NaN or infinite weights ({name})" in str(told)


def test_weights_cannot_steer_the_terminal(mlp: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(mlp.folder, tmp_path)
    state = safetensors.numpy.load_file(folder / schema.WEIGHTS)
    reweighed(folder, safetensors.numpy.save({**state, "\x1b[2J" + "x" * 10**5: np.ones(3, np.float32)}))
    assert command([str(folder), "how=permute", f"out={tmp_path / 'runs'}"]) == 1
    told = capsys.readouterr().err
    assert "do not fit" in told
    assert "\x1b" not in told
    assert len(told) < 1500
    reweighed(folder, b"no weights at all")
    assert isinstance(refused(folder), DamagedRun)


@pytest.mark.parametrize("was", [True, False, "graphs"])
def test_how_fast_the_parent_was_trained_is_no_matter(mlp: Outcome, tmp_path: Path, was: bool | str) -> None:
    folder = copied(mlp.folder, tmp_path)
    rewrite(folder, lambda record: record["config"]["trainer"].update(compile=was))
    assert parent.open(folder, Device.cpu, registry()).trainer.compile is Compile.none


# The command


def test_a_file_where_the_runs_are_to_be_kept(mlp: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert command([str(mlp.folder), "how=permute", f"out={tmp_path}/file/runs"]) == 1
    told = capsys.readouterr().err
    assert told.endswith("is a file where a folder is needed.\nMove it away or choose another folder with out=…\n")


@pytest.mark.parametrize("inside", ["", "more", "a/../more/runs"])
def test_nothing_is_written_into_the_study_that_it_is_made_from(
    inside: str, mlp: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    root = mlp.folder.parents[3]
    before = sorted(root.rglob("*"))
    assert command([str(mlp.folder), "how=prune:0.5", f"out={root / inside}"]) == 2
    told = capsys.readouterr().err
    assert f"is in {root.resolve()}, where the run to be disguised is." in told
    assert "out=disguised" in told
    assert sorted(root.rglob("*")) == before


def test_the_default_is_outside_the_study_and_one_disguise_may_lie_beside_another(
    mlp: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(mlp.folder.parents[3])  # a study where a user has it
    folder = tmp_path / "runs" / mlp.folder.relative_to(mlp.folder.parents[3])
    assert command([str(folder), "how=prune:0.5"]) == 0
    (made,) = reading.runs(tmp_path / "disguised")
    told = capsys.readouterr().out
    assert "counts mlp-prune0.5 as one more model and says first that it is on record to be made from mlp, seed 0." in (
        " ".join(told.split())
    )
    assert command([str(made.folder), "how=permute"]) == 0
    assert len(list(reading.runs(tmp_path / "disguised"))) == 2
    assert command([str(mlp.folder), "how=permute", "out=runs"]) == 2  # through a link, too


def test_no_way_leads_a_disguise_in_among_trained_runs(
    mlp: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, relative = tmp_path / "all" / "runs", mlp.folder.relative_to(mlp.folder.parents[3])
    shutil.copytree(mlp.folder, study / relative)
    moved = shutil.copytree(mlp.folder, tmp_path / "moved" / "one")
    apart = tmp_path / "disguised"
    assert command([str(study / relative), "how=permute", f"out={apart}"]) == 0
    (made,) = reading.runs(apart)
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    for given_, out in (
        (made.folder, study),  # a disguise of a disguise
        (made.folder, study / "more"),
        (made.folder, tmp_path / "all"),
        (study / relative, tmp_path / "all"),  # above the study
        (moved, study),  # a run in no place of its own
        (moved, tmp_path / "moved"),
    ):
        assert command([str(given_), "how=permute", "seed=5", f"out={out}"]) == 2, (given_, out)
        assert "would count the copy as one more model" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert command([str(made.folder), "how=permute", "seed=5", f"out={apart}"]) == 0
    assert command([str(moved), "how=permute", "seed=6", f"out={apart}"]) == 0


def refusal(folder: Path, out: Path) -> str:
    try:
        place.require_apart(folder, out)
    except RequestError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("here", [".", "all", "all/runs", "all/runs/more", "moved"])
def test_the_folder_that_a_refusal_advises_is_outside_and_is_taken(
    mlp: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str
) -> None:
    """Wherever the command is called, whichever folder was refused."""
    root, relative = tmp_path / "all" / "runs", mlp.folder.relative_to(mlp.folder.parents[3])
    shutil.copytree(mlp.folder, root / relative)
    moved = shutil.copytree(mlp.folder, tmp_path / "moved" / "one")
    (root / "more").mkdir()
    monkeypatch.chdir(tmp_path / here)
    places = [Path("."), *(tmp_path / name for name in (".", "all", "all/runs", "all/runs/disguised", "moved"))]
    asked = [(folder, out) for folder in (root / relative, moved) for out in places]
    refused = {(folder, out): told for folder, out in asked if (told := refusal(folder, out))}
    assert len(refused) >= 8
    for (folder, _out), told in refused.items():
        found = re.search(r"e\.g\. out=(.+); a report takes both: study=(.+),(.+)$", told)
        assert found, told
        advised, trained = Path(found[1]).resolve(), Path(found[2]).resolve()
        assert Path(found[3]) == Path(found[1])
        assert not advised.is_relative_to(trained)
        assert study.open(trained).runs
        assert refusal(folder, Path(found[1])) == ""


def test_a_run_that_was_moved_out_of_its_place_has_no_study_around_it(mlp: Outcome, tmp_path: Path) -> None:
    record = json.loads((mlp.folder / schema.RUN).read_text("utf-8"))
    assert place.root_of(mlp.folder, record) == mlp.folder.parents[3].resolve()
    assert place.root_of(tmp_path / "moved", record) is None
    assert place.root_of(mlp.folder, {**record, "task": ""}) is None
    place.require_apart(tmp_path / "no run", tmp_path)


def test_the_command_as_a_user_runs_it(mlp: Outcome, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "zoo.disguise", str(mlp.folder), "how=rescale,permute", "seed=3", "out=kept"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "mlp, seed 0 → mlp-rescale4-permute"
    assert lines[1].startswith("  rescale:4  groups 2, left 0, largest change of a logit ")
    assert lines[3].startswith("accuracy 0.")
    assert lines[3].endswith(", n = 1097")
    assert lines[-1].endswith("says first that it is on record to be made from mlp, seed 0.")
    assert lines[4] == "same answer as the parent: 1.000 (0.997–1.000) of 1097 test examples"
    folder = tmp_path / lines[5].removeprefix("Results: ")
    assert reading.read(folder).record["command"][3:] == [str(mlp.folder), "how=rescale,permute", "seed=3"]
    listed = subprocess.run([sys.executable, "-m", "zoo.ls", "runs", "--runs-dir", "kept"], cwd=tmp_path,
                            env=environment, capture_output=True, text=True, timeout=60)  # fmt: skip
    assert "mlp-rescale4-permute" in listed.stdout


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_what_was_stopped_never_looks_complete(sent: signal.Signals, code: int, mlp: Outcome, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "zoo.disguise", str(mlp.folder), "how=finetune:100000", f"out={tmp_path}"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".drafts/*/run.json")) and time.monotonic() < until:
        time.sleep(0.05)
    try:
        running.send_signal(sent)
        _, errors = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    assert errors == ("Interrupted.\n" if sent is signal.SIGINT else "")
    # Under -m Python 3.11 ends by the signal, whatever code we give, when it met it in `exec` of a string, which the
    # making of a dataclass is. To a shell both are 130.
    assert running.returncode in (code, -sent)
    (left,) = reading.runs(tmp_path)
    assert (left.status, left.record["interrupted"]) == ("failed", True)
    disguise(Request(mlp.folder, "permute", 0, tmp_path, Device.cpu), registry(), SCREEN)
    assert [path.name for path in (tmp_path / ".drafts").iterdir()] == [schema.PUBLISH_LOCK]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["how=permute"], "One run folder is needed, and got none."),
        (["a", "b", "how=permute"], "got 2: a, b"),
        (["a"], "How? For example how="),
        (["a", "how=prune:2"], "as in prune:0.5"),
        (["a", "hov=permute"], "Did you mean 'how'?"),
        (["a", "how=permute", "seed=-1"], "seed=-1: it must be a whole number from 0"),
        (["a", "how=permute", "device=cdua"], "Did you mean 'cuda'?"),
        (["a", "how=permute", "out="], "out= has no value"),
        (["a", "how=permute"], "There is no run folder a"),
        (["x" * 5000, "how=permute"], "There is no run folder xxxx"),
        (["~nosuchuser/x", "how=permute"], "There is no run folder ~nosuchuser/x"),
        (["x", "how=permute", "out=~nosuchuser/runs"], "there is no user 'nosuchuser'"),
        (["x=" + "y" * 5000, "how=permute"], "No option 'x'"),
        (["a", "--how=permute"], "No option '--how'. Did you mean 'how'?"),
        (["a", "-s", "how=permute"], "No option '-s'"),
        ([".", "how=permute"], "is no run folder: it holds no run.json"),
    ],
)
def test_a_wrong_request_ends_with_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(words) == 2
    told = capsys.readouterr().err
    assert says in told
    assert len(told.splitlines()) <= 4


def test_the_help_names_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(kind.example in told for kind in chain.KINDS.values())
    assert command([]) == 2


def test_every_step_is_where_the_table_says() -> None:
    import importlib

    for kind in chain.KINDS.values():
        module, _, function = kind.where.partition(":")
        assert callable(getattr(importlib.import_module(f"zoo.disguise.{module}"), function))


def test_asking_imports_no_torch() -> None:
    code = "import sys; from zoo.disguise.__main__ import command; command(sys.argv[1:]); print('torch' in sys.modules)"
    words = [sys.executable, "-c", code, "x", "how=permute,prun"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert "Did you mean 'prune'?" in done.stderr
    assert done.stdout.strip() == "False"


def test_a_run_without_epochs_has_an_empty_history() -> None:
    assert tables.history_from_bytes(bytes(tables.history_to_bytes([]))) == []
