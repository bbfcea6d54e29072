"""From a model and loaded data to its answers: the same frame for what the engine trains and for what fits itself."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo import guard
from zoo.engine.memory import importing
from zoo.errors import Incompatible, PluginError, TrainingError
from zoo.models import Model, Predictor, TorchModel
from zoo.phases import phase

if TYPE_CHECKING:
    import torch

    from zoo.config import RunConfig, Trainer
    from zoo.data import Split, Splits
    from zoo.engine.batches import Batches
    from zoo.engine.devices import Placement
    from zoo.engine.evaluation import Watched
    from zoo.engine.frozen import Head
    from zoo.engine.training import Job, Reporter, Trained
    from zoo.models import InputSpec
    from zoo.records import Observers

TIMED = 256
"""Test examples on which the speed of a whole module is taken, where its answers come from stored vectors."""


@dataclass(frozen=True)
class Answers:
    """What a fitted model says, and what it took.

    validation, test: logits (examples, classes) float32 (log-probabilities for a `Predictor`); features: layer name ->
    (probe examples, width), of the test examples `probe_rows`; weights: what to store; facts: device, precision,
    threads, steps, seconds, cost …; of a trained module also `compile`: whether it was compiled, and how. With
    trainer.compile=graphs `compile_shapes` counts the shapes of inputs that graphs were recorded for, with
    trainer.compile=auto `compile_reason` says why, and `compile_tried` what was measured: of each way compile_steps
    and compile_seconds, ms_per_step and eager_ms_per_step (medians), ratio, low and high (time ÷ eager time an element,
    95 %), n steps each, and given_up: why it was.
    """

    validation: np.ndarray
    test: np.ndarray
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    probe_rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    weights: Mapping[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)


def fit(config: RunConfig, trainer: Trainer | None, splits: Splits, observers: Observers) -> Answers:
    """Fit the model on the training split and let it answer validation and test.

    trainer: None for a `Predictor`. Raises what the engine and the model raise; a model that breaks its contract is
    named in a PluginError.
    """
    seed_everything(config.seed)
    if isinstance(config.model, Predictor):
        return _fit_predictor(config.model, config.seed, splits)
    assert trainer is not None
    return _fit_torch(config, trainer, splits, observers)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy's global generator and torch on every device."""
    with importing():
        import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """What is drawn within, by Python, numpy's global generator and torch on the CPU, has not been drawn afterwards."""
    import torch

    kept = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])


@contextlib.contextmanager
def blame(model: Model, method: str) -> Iterator[None]:
    """Errors out of a model's own methods name the model and the method."""
    with guard.blamed(f"Model '{model.name}' failed in {method}"):
        yield


@dataclass(frozen=True)
class Ready:
    """A module with its data, on the device where it runs. batches: by the split's name; multipliers: of the learning
    rate, by prefix of a parameter's name; classes: how many; encoder_key: of what made the batches; head: what is
    trained instead of the whole, where the rest is frozen."""

    model: TorchModel
    module: torch.nn.Module
    batches: Mapping[str, Batches]
    placement: Placement
    multipliers: Mapping[str, float]
    classes: int
    encoder_key: str
    head: Head | None = None


@dataclass(frozen=True)
class Kept:
    """What of a run is stored. probe: test examples whose layer outputs are; weights: whether those are."""

    probe: int
    weights: bool


def _fit_torch(config: RunConfig, trainer: Trainer, splits: Splits, observers: Observers) -> Answers:
    from zoo.engine import frozen

    assert isinstance(config.model, TorchModel)
    ready = prepare(config.model, trainer, splits, config.seed)
    ready = replace(ready, head=frozen.head_of(ready, trainer, parts(splits)))
    trained = train(ready, trainer, config.seed, observers)
    return answer(ready, splits, Kept(config.probe, config.keep_weights), trainer.batch_size, trained)


def prepare(model: TorchModel, trainer: Trainer, splits: Splits, seed: int) -> Ready:
    """Encode the splits, build a module with fresh weights and place both where the trainer's options say."""
    from zoo.data import cache
    from zoo.engine import devices
    from zoo.engine.batches import Batches

    device = devices.choose_device(trainer.device)
    with phase("encoding the examples"), blame(model, "encoder"):
        encoder = model.encoder(splits.train)
        encoded = {split.name: cache.encode(encoder, split) for split in parts(splits)}
    # Encoding may have drawn random numbers, or none when the cache had it already.
    seed_everything(seed)
    with phase("building the module"):
        module, multipliers = _build(model, encoder.spec, len(splits.classes))
    module.to(device)
    batches: dict[str, Batches] = {
        split.name: Batches(encoded[split.name], split.labels, encoder.spec, device, trainer.resident_mib)
        for split in parts(splits)
    }
    placement = placed(module, batches["train"], trainer)
    key = f"{encoder.key} {encoder.spec}"
    return Ready(model, module, batches, placement, multipliers, len(splits.classes), key)


def placed(module: torch.nn.Module, train: Batches, trainer: Trainer) -> Placement:
    """Where and how a module learns these examples; where the options leave that open, by the size of its products."""
    from zoo.engine import devices, flops

    size = min(trainer.batch_size, trainer.micro_batch or trainer.batch_size)
    return devices.place(
        train.device, trainer.precision, trainer.threads, lambda: flops.of_a_product(module, train, size)
    )


def _job(ready: Ready, trainer: Trainer, seed: int) -> tuple[torch.nn.Module, Job]:
    """What is trained, and how."""
    from zoo.engine.training import Job

    learner = ready.head or ready
    train, validation = learner.batches["train"], learner.batches["validation"]
    job = Job(train, validation, trainer, learner.placement, ready.classes, seed, learner.multipliers)
    return learner.module, job


def train(ready: Ready, trainer: Trainer, seed: int, observers: Observers) -> Trained:
    """Train the module in place, or its head alone; see `training.train`."""
    from zoo.engine import devices, training

    module, job = _job(ready, trainer, seed)
    with devices.threads(ready.placement.threads), observers.display(training.budget(job)) as reporter:
        return training.train(module, job, _Observed(reporter, observers))


def prepare_replicas(config: RunConfig, trainer: Trainer | None, splits: Splits) -> list[Ready]:
    """`prepare` for each seed from `config.seed` on, data and device in common.

    Raises Incompatible when the model cannot be trained as one vectorised model."""
    from zoo.engine import frozen, replicas

    model = config.model
    if trainer is None or not isinstance(model, TorchModel):
        raise Incompatible(
            f"replicas={config.replicas}: '{model.name}' fits itself, so its seeds are runs of their own."
        )
    first = prepare(model, trainer, splits, config.seed)
    group = [first]
    for seed in range(config.seed + 1, config.seed + config.replicas):
        seed_everything(seed)
        module, _ = _build(model, first.batches["train"].spec, first.classes)
        group.append(replace(first, module=module.to(first.placement.device)))
    group = frozen.share_head(group, frozen.head_of(first, trainer, parts(splits)))
    jobs = [_job(ready, trainer, config.seed) for ready in group]
    replicas.check([module for module, _ in jobs], jobs[0][1])
    return group


def fit_replicas(
    group: Sequence[Ready], config: RunConfig, trainer: Trainer, splits: Splits, observers: Sequence[Observers]
) -> list[Answers | TrainingError]:
    """Train a group from `prepare_replicas` as one model; what each seed answers, or why it failed."""
    from zoo.engine import devices, replicas, training

    jobs = [_job(ready, trainer, config.seed) for ready in group]
    seed_everything(config.seed)
    with (
        devices.threads(group[0].placement.threads),
        observers[0].display(training.budget(jobs[0][1])) as reporter,
    ):
        trained = replicas.train(
            [module for module, _ in jobs], jobs[0][1], reporter, lambda number, row: observers[number].epoch(row)
        )
    kept = Kept(config.probe, config.keep_weights)
    return [
        replica.error or answer(ready, splits, kept, trainer.batch_size, replica.trained)
        for ready, replica in zip(group, trained, strict=True)
    ]


def answer(ready: Ready, splits: Splits, kept: Kept, batch_size: int, trained: Trained | None = None) -> Answers:
    """Let the module answer validation and test, in float32 whatever it was trained in.

    trained: what it took to train it; None when nothing was trained. Layer outputs of the probe are taken while the
    test split is answered. Raises TrainingError when memory does not suffice for one example at a time."""
    from zoo.engine import devices

    rows = probe_rows(splits.test.ids, kept.probe)
    size = batch_size if trained is None else min(trained.micro_batch, batch_size)
    learner = ready.head or ready
    with devices.threads(ready.placement.threads), devices.kept_memory(ready.placement.device):
        validation = None if trained is None else trained.validation
        if validation is None:
            validation = _answered(learner, "validation", ready.classes, size)[0]
        if ready.head is None:
            test, speed, features = _watched(ready, size, np.arange(len(splits.test)), rows)
        else:
            test, _ = _answered(learner, "test", ready.classes, size)
            # The vectors were at hand: layer outputs and speed are those of the whole module.
            timed = probe_rows(splits.test.ids, max(kept.probe, TIMED))
            _, speed, features = _watched(ready, size, timed, rows)
    return Answers(
        validation=validation,
        test=test,
        features=features,
        probe_rows=rows,
        weights=_separate(ready.module.state_dict()) if kept.weights else {},
        history=[] if trained is None else trained.history,
        facts=_facts(ready, trained, size) | {"infer_samples_per_sec": speed},
    )


def _watched(
    ready: Ready, size: int, rows: np.ndarray, probe: np.ndarray
) -> tuple[np.ndarray, float, dict[str, np.ndarray]]:
    """What the whole module answers to these rows of the test split, at how many examples a second, and the layer
    outputs of the probe, which is among them."""
    from zoo.engine.evaluation import Watched

    if not len(probe):
        return *_answered(ready, "test", ready.classes, size, rows), {}
    with blame(ready.model, "layers"):
        watched = Watched(ready.model.layers(ready.module), probe)
    answers, speed = _answered(ready, "test", ready.classes, size, rows, watched)
    return answers, speed, watched.features()


def _answered(
    learner: Ready | Head,
    split: str,
    classes: int,
    batch_size: int,
    rows: np.ndarray | None = None,
    watched: Watched | None = None,
) -> tuple[np.ndarray, float]:
    """Logits of a split, or of some rows of it, in float32, and how many examples a second were answered."""
    from zoo.engine import evaluation

    @phase(f"answering the {split} split")
    def answered(size: int) -> tuple[np.ndarray, float]:
        began = time.perf_counter()
        found = evaluation.logits(learner.module, learner.batches[split], size, classes, rows, watched=watched)
        return found, len(found) / max(time.perf_counter() - began, 1e-9)

    return evaluation.within_memory(batch_size, answered)


def parts(splits: Splits) -> tuple[Split, Split, Split]:
    """Training, validation and test split."""
    return splits.train, splits.validation, splits.test


def _build(model: TorchModel, spec: InputSpec, classes: int) -> tuple[torch.nn.Module, Mapping[str, float]]:
    import torch

    with blame(model, "build"):
        module = model.build(spec, classes)
    if not isinstance(module, torch.nn.Module):
        raise PluginError(f"Model '{model.name}': build returned {type(module).__name__}, not a torch.nn.Module.")
    with blame(model, "parameter_groups"):
        return module, model.parameter_groups(module)


def _facts(ready: Ready, trained: Trained | None, micro_batch: int) -> dict[str, Any]:
    """Column names as timm has them where timm has one."""
    facts: dict[str, Any] = {
        "device": ready.placement.device.type,
        "precision": (ready.head or ready).placement.precision.value,
        "threads": ready.placement.threads,
        "param_count": sum(p.numel() for p in ready.module.parameters()),
    }
    if trained is None:
        return facts
    seconds, speed = trained.seconds, trained.examples_per_second
    if ready.head is not None:
        # What the training of this model costs, whoever made the vectors: a second seed is not a cheaper model.
        facts |= {"vectors": ready.head.source, "vectors_seconds": ready.head.seconds}
        speed *= seconds / max(seconds + ready.head.seconds, 1e-9)
        seconds += ready.head.seconds
    return facts | {
        "trained_param_count": sum(p.numel() for p in ready.module.parameters() if p.requires_grad),
        "steps": trained.steps,
        "epochs": len(trained.history),
        "best_epoch": trained.best_epoch,
        "stopped": trained.stopped,
        "micro_batch": micro_batch,
        **trained.compile,
        "train_seconds": seconds,
        "train_samples_per_sec": speed,
    }


class _Observed:
    """A reporter whose epochs are also told to observers."""

    def __init__(self, reporter: Reporter, observers: Observers) -> None:
        self.step = reporter.step
        self._reporter, self._observers = reporter, observers

    def epoch(self, row: Mapping[str, float]) -> None:
        self._reporter.epoch(row)
        self._observers.epoch(row)


def _fit_predictor(model: Predictor, seed: int, splits: Splits) -> Answers:
    started = time.perf_counter()
    with phase("fitting on the training split"), blame(model, "fit"):
        model.fit(splits.train, splits.validation, seed)
    seconds = time.perf_counter() - started
    with blame(model, "weights"):
        weights = dict(model.weights())
    validation = _log_probabilities(model, splits.validation)
    began = time.perf_counter()
    test = _log_probabilities(model, splits.test)
    facts = {
        "device": "cpu",
        "param_count": sum(int(np.size(array)) for array in weights.values()),
        "train_seconds": seconds,
        "train_samples_per_sec": len(splits.train) / max(seconds, 1e-9),
        "infer_samples_per_sec": len(test) / max(time.perf_counter() - began, 1e-9),
    }
    return Answers(validation=validation, test=test, weights=weights, facts=facts)


def _log_probabilities(model: Predictor, split: Any) -> np.ndarray:
    with phase(f"answering the {split.name} split"), blame(model, "predict_proba"):
        found = np.asarray(model.predict_proba(split.examples), dtype=np.float64)
    want = (len(split), len(split.classes))
    if found.shape != want:
        raise PluginError(f"Model '{model.name}': predict_proba returned shape {found.shape}; it must be {want}.")
    if not np.isfinite(found).all() or found.min() < 0 or abs(found.sum(1) - 1).max() > 1e-3:
        raise PluginError(
            f"Model '{model.name}': predict_proba returned rows that are no distributions "
            f"(smallest value {found.min():.3g}, sums from {found.sum(1).min():.4f} to {found.sum(1).max():.4f})."
        )
    # A probability of exactly 0 would be a logit of minus infinity; float32's smallest normal number stands in.
    return np.log(np.maximum(found, np.finfo(np.float32).tiny)).astype(np.float32)


def probe_rows(ids: tuple[str, ...], count: int) -> np.ndarray:
    """Rows of the `count` examples whose ids sort first: ids are hashes, so a random subset, and the same for all."""
    order = sorted(range(len(ids)), key=lambda row: ids[row])
    return np.array(sorted(order[:count]), dtype=np.int64)


def _separate(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights on the CPU, each with memory of its own: a tied weight is stored under each of its names."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
