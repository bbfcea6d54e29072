"""A stored run brought back to life: its data, and its model with the stored weights or fitted again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import ConfigError, DataError, PluginError, StoreError
from zoo.models import Dense, Predictor, Tokens, TorchModel
from zoo.store.schema import WEIGHTS

if TYPE_CHECKING:
    import torch

    from zoo.benchmark.timing import Memory
    from zoo.data import Splits
    from zoo.models import Encoded, InputSpec
    from zoo.store.reading import Run


@dataclass(frozen=True)
class Stored:
    """A run with its data. model: as it was configured, not fitted; rows: of the test examples that are measured;
    said: id -> class that the run answered, of the test split."""

    run: Run
    model: TorchModel | Predictor
    splits: Splits
    rows: np.ndarray
    said: Mapping[str, int]


@dataclass(frozen=True)
class Restored:
    """A module with its weights, on its device, and the encoded examples of `Stored.rows` in their order."""

    module: torch.nn.Module
    spec: InputSpec
    encoded: Encoded
    labels: np.ndarray


def place(job: Mapping[str, Any]) -> torch.device:
    """The device of a job, its threads set. Raises ConfigError when it is not there or has not the precision."""
    import torch

    from zoo.config import Device
    from zoo.engine.devices import choose_device

    torch.set_num_threads(job["threads"])
    device = choose_device(Device(job["device"]))
    bf16 = device.type == "cuda" and job["precision"] == "bf16"
    if bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):  # which would be slower than float32
        raise ConfigError("precision=bf16: this device does not compute in bfloat16. Measure with precision=fp32.")
    return device


def load(folder: Path, sample: int) -> Stored:
    """The run in a folder, verified, with its data. sample: how many test examples are measured.

    Raises DataError when the data are no longer those of the run, DamagedRun, StoreError, and what plugins raise."""
    from zoo import data
    from zoo.config import from_record
    from zoo.data import reach
    from zoo.plugins import registry
    from zoo.store.reading import read

    run = read(folder)
    config = run.record["config"]
    model = from_record("model", config["model"], registry())
    dataset = from_record("dataset", config["dataset"], registry())
    reach.require_allowed(dataset, model)
    splits = data.load(dataset)
    known = run.record.get("data", {}).get("fingerprint")
    if splits.fingerprint != known:
        raise DataError(f"The data are other data now: fingerprint {splits.fingerprint[:12]}, not {str(known)[:12]}.")
    # Ids are hashes: those that sort first are a random sample, and the same one for every model.
    order = sorted(range(len(splits.test)), key=lambda row: splits.test.ids[row])
    table = run.predictions().only("test")
    said = dict(zip(table.ids.tolist(), table.predictions.tolist(), strict=True))
    return Stored(run, model, splits, np.array(order[:sample], dtype=np.int64), said)


def module_of(stored: Stored, device: torch.device, memory: Memory) -> Restored:
    """The module of a run with its stored weights. What it takes counts from the moment before it is built.

    Raises StoreError when the weights do not fit the module."""
    from zoo.data import cache
    from zoo.engine.fitting import blame, seed_everything

    model, splits = stored.model, stored.splits
    assert isinstance(model, TorchModel)
    seed_everything(int(stored.run.record["seed"]))
    with blame(model, "encoder"):
        encoder = model.encoder(splits.train)
        encoded = take(cache.encode(encoder, splits.test), stored.rows)
    memory.begin()
    with blame(model, "build"):
        module = model.build(encoder.spec, len(splits.classes))
    _load_weights(module, stored.run.folder)
    return Restored(module.to(device).eval(), encoder.spec, encoded, splits.test.labels[stored.rows])


def _load_weights(module: torch.nn.Module, folder: Path) -> None:
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise StoreError(
            f"The weights of {folder} do not fit the model that its configuration builds: {first}"
        ) from error


def fit_again(stored: Stored) -> Predictor:
    """A predictor fitted as its run recorded it: its own arrays are not all that it needs to answer."""
    from zoo.engine.fitting import blame, seed_everything

    model, seed = stored.model, int(stored.run.record["seed"])
    assert isinstance(model, Predictor)
    seed_everything(seed)
    with blame(model, "fit"):
        model.fit(stored.splits.train, stored.splits.validation, seed)
    return model


def take(encoded: Encoded, rows: np.ndarray | Sequence[int]) -> Encoded:
    """Some of the encoded examples, in the order of rows."""
    if isinstance(encoded, Dense):
        return Dense(np.ascontiguousarray(encoded.values[rows]))
    return Tokens.pack([encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]].tolist() for row in rows])


def examples_of(stored: Stored, rows: np.ndarray) -> Any:
    """Test examples as a predictor takes them: a list of texts, or an array of images."""
    examples = stored.splits.test.examples
    return examples[rows] if isinstance(examples, np.ndarray) else [examples[row] for row in rows]


def same_answers(stored: Stored, said: np.ndarray) -> dict[str, Any]:
    """On how many of the measured examples the model says what its run recorded.

    said: (len(rows),) int64, the class answered. Raises PluginError when there is no such share."""
    names = (stored.splits.test.ids[row] for row in stored.rows)
    known = stored.said
    pairs = [(known[name], int(answer)) for name, answer in zip(names, said, strict=True) if name in known]
    if not pairs:
        raise PluginError(f"The run {stored.run.folder} recorded no answer on the examples that are measured.")
    return {"same": sum(one == other for one, other in pairs), "n": len(pairs)}
