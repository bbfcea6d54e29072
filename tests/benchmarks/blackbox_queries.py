"""Models made for the validation of the black box: students that asked their teacher more, trainings on other data, and
what models answer to inputs that were made to be asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

QUERIES = 4  # mixtures that a student asks about, for each example of the training split


def quiet() -> Any:
    """A console that shows nothing."""
    from rich.console import Console

    return Console(quiet=True)


def mixtures(examples: Any, count: int, seed: int) -> Any:
    """Mixed images, or texts."""
    from zoo.lineage import probes

    mixed = probes.mixed_images if isinstance(examples, np.ndarray) else probes.mixed_texts
    return mixed(examples, count, seed)


def queried(wanted: tuple[str, int]) -> str:
    """A student that learns a teacher's probabilities for the training split and for mixtures of it, as whoever copies
    a model behind an API would. wanted: folder of the teacher, and mixtures an example. Returns the student's folder.
    """
    from zoo import records
    from zoo.config import Device, Loss, TrainerOptions
    from zoo.disguise import parent
    from zoo.engine import evaluation, fitting
    from zoo.plugins import registry
    from zoo.store.schema import DISGUISE, PARENT

    folder, times = Path(wanted[0]), wanted[1]
    origin = parent.open(folder, Device.cpu, registry())
    seed = int(folder.name[:7], 16)  # of its own for each teacher
    config = dataclasses.replace(
        origin.config, runs_dir=folder.parents[3], label=f"{origin.config.label}-queried", seed=seed,
        trainer=TrainerOptions(**vars(origin.trainer)),
    )  # fmt: skip
    how = {"how": f"queried:{times}", "seed": seed, "parent": origin.key}
    plan = records.identify(config, origin.splits, registry(), {DISGUISE: how})
    plan.record[PARENT] = {"key": origin.key, "label": origin.config.label, "steps": [{"step": how["how"]}]}
    if (kept := records.find(config, plan)) is not None:
        return str(kept.folder)
    watching = records.observers(plan, registry(), quiet())
    teacher = parent.rebuild(origin, registry(), watching)
    mixed = mixtures(origin.splits.train.examples, times * len(origin.splits.train), seed)
    train = origin.splits.train.examples
    asked_about = np.concatenate([train, mixed]) if isinstance(train, np.ndarray) else [*train, *mixed]
    student = fitting.prepare(config.model, origin.trainer, origin.splits, seed)
    size, classes = origin.trainer.batch_size, student.classes
    # Both through the encoder of the training split alone, which is the one that a stored run is restored with.
    answers = evaluation.logits(teacher.module, _batches(teacher.ready, origin.splits, asked_about), size, classes)
    batches = _batches(student, origin.splits, asked_about)
    batches.labels = _probabilities(answers)
    student = dataclasses.replace(student, batches={**student.batches, "train": batches})
    chosen = evaluation.logits(teacher.module, teacher.ready.batches["validation"], size, classes)
    student.batches["validation"].labels = _probabilities(chosen).argmax(1)
    with records.recording(config, plan, registry()) as draft:
        trainer = dataclasses.replace(origin.trainer, loss=Loss.cross_entropy)
        trained = fitting.train(student, trainer, seed, watching)
        told = fitting.answer(student, origin.splits, fitting.Kept(0, weights=True), size, trained)
        return str(records.write(draft, plan, origin.splits, told, {}).folder)


def _probabilities(logits: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(logits).softmax(1)


def _batches(ready: Any, splits: Any, examples: Any) -> Any:
    """Any examples as a model takes them. ready: of `fitting.prepare`."""
    from zoo.engine.batches import Batches

    encoder = ready.model.encoder(splits.train)
    labels = np.zeros(len(examples), np.int64)
    return Batches(encoder.encode(examples), labels, encoder.spec, ready.placement.device)


def elsewhere(dataset: Any) -> Any:
    """The same data set with every other training example only: other data, the same questions."""
    import zoo

    whole = dataset.read()
    train = zoo.Labelled(whole.train.examples[::2], whole.train.labels[::2], whole.train.origins[::2])
    part = dataclasses.replace(whole, train=train)

    @dataclasses.dataclass
    class Half(zoo.Dataset):
        name = f"{dataset.name}-half"
        modality = dataset.modality

        def read(self) -> Any:
            return part

    return Half()


def asked(wanted: tuple[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """What a run answers to inputs made to be asked. wanted: its folder, and inputs by the name of the probe. Returns
    logits (inputs, classes) float32 by the same names."""
    from zoo import records
    from zoo.config import Device
    from zoo.disguise import parent
    from zoo.engine import evaluation
    from zoo.plugins import registry

    origin = parent.open(Path(wanted[0]), Device.cpu, registry())
    subject = parent.rebuild(origin, registry(), records.Observers(lambda steps: None, lambda row: None))  # type: ignore[arg-type]
    size, classes = origin.trainer.batch_size, subject.ready.classes
    return {
        name: evaluation.logits(subject.module, _batches(subject.ready, origin.splits, inputs), size, classes)
        for name, inputs in wanted[1].items()
    }


def inputs(folder: str, count: int) -> dict[str, Any]:
    """Probe inputs for the data set of a run, the boundary points being this run's: one that is neither compared nor
    calibrates."""
    from zoo.config import Device
    from zoo.disguise import parent
    from zoo.lineage import probes
    from zoo.plugins import registry

    splits = parent.open(Path(folder), Device.cpu, registry()).splits
    examples, training = splits.test.examples, probes.some(splits.train.examples, count, 4)
    if not isinstance(examples, np.ndarray):
        return {
            "mixed": probes.mixed_texts(examples, count, 1),
            "shuffled": probes.shuffled_texts(examples, count, 2),
            "training": training,
        }

    def ask(images: np.ndarray) -> np.ndarray:
        return asked((folder, {"images": images}))["images"].argmax(1)

    return {
        "mixed": probes.mixed_images(examples, count, 1),
        "noise": probes.noise_images(examples, count, 2),
        "boundary": probes.boundary_images(examples, ask, count, 3),
        "training": training,
    }


def stacked(answers: Sequence[Mapping[str, np.ndarray]], name: str) -> np.ndarray:
    """(models, inputs, classes) of one probe."""
    return np.stack([one[name] for one in answers])
