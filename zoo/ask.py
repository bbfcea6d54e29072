"""python -m zoo.ask: stored models answer more than their test split; kept beside their old answers as new runs.

`python -m zoo.lineage A B answers=true references=…` compares what they say there, too.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import arguments as words
from zoo import guard, progress
from zoo.data import reach
from zoo.errors import ConfigError, Incompatible, RequestError, StoreError
from zoo.options import Configurable, option
from zoo.phases import phase

if TYPE_CHECKING:
    import numpy as np

    from zoo.benchmark.restoring import Stored
    from zoo.data import Splits
    from zoo.store.keys import RunPlace

USAGE = """python -m zoo.ask RUN RUN … out=FOLDER [option=value …]

RUN  complete runs on one data set: folders, or patterns such as
     'runs/*/digits/mlp/*'
{options}

Models compute as they were stored; a model that fits itself (logistic
regression, say) is fitted again."""

BATCH = 256


@dataclass(frozen=True)
class Request(Configurable):
    """What the command line asks for."""

    out: str = option(
        "", "folder for new runs, which hold the answers alone: to be compared by python -m zoo.lineage … answers=true"
    )
    inputs: int = option(
        500,
        "inputs of each kind: mixtures of two test examples, noise (images) or shuffled words (texts), and examples of "
        "the first run's training split, on which a student has learned its teacher's answers",
        ge=1,
    )
    scout: str = option(
        "", "a run, on images, that is neither compared nor a reference: points between its classes are asked, too"
    )
    seed: int = option(0, "seed of everything that is drawn", ge=0)
    data: str = reach.declared()

    def __post_init__(self) -> None:
        if not self.out:
            raise ConfigError("Where to? For example: python -m zoo.ask 'runs/*/digits/mlp/*' out=asked")


def main() -> None:
    """The command. Exit codes: 0 fine, 1 a model could not be asked, 2 the request was wrong, 130 Ctrl-C."""
    guard.leave(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Do what the command line asks for. Returns the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    progress.log_on_screen()
    return guard.run(lambda: _command(list(arguments)), "Interrupted: what was asked so far is kept.")


def _command(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE.format(options=words.described(Request)))
        return 0 if arguments else RequestError.exit_code
    runs = [word for word in arguments if "=" not in word or os.path.isdir(word)]
    request = words.parse([word for word in arguments if word not in runs], Request)
    with progress.activity():
        asked = ask_all(_folders(runs), request)
    for folder in asked:
        print(folder)
    return 0


def _folders(patterns: Sequence[str]) -> list[Path]:
    """Run folders. Raises RequestError for a pattern that finds none."""
    from zoo.store.reading import near_folder
    from zoo.store.schema import RUN

    found: list[Path] = []
    for pattern in patterns:
        named = [Path(path) for path in sorted(glob.glob(os.path.expanduser(pattern)))]
        runs = [path for path in named if (path / RUN).is_file()]
        if not runs:
            told = f"There is no run folder {pattern}.{near_folder(pattern)}"
            raise RequestError(f"{told}\n`python -m zoo.ls runs` lists what there is.")
        found += runs
    if not found:
        raise RequestError("Which runs? For example: python -m zoo.ask 'runs/*/digits/mlp/*' out=asked")
    return list(dict.fromkeys(found))


def ask_all(folders: Sequence[Path], request: Request) -> list[Path]:
    """Ask every model the same inputs. Returns the new runs' folders, in order.

    Raises Incompatible when two runs have other test splits, StoreError for a run without weights, and what reading a
    run, its data and its model raise."""
    from zoo.store.disk import chosen_with, place_of
    from zoo.store.places import kept

    out = place_of(request.out, "out")
    with (
        chosen_with("out=…"),
        reach.allowing(reach.chosen(request.data)),
        kept([*folders, *([request.scout] if request.scout else [])]),
    ):
        for folder in folders:
            _require_room(out, folder)
        with phase("reading the data"):
            first = _stored(folders[0])
        with phase("making inputs"):
            made = made_inputs(first.splits, request)
        return [_asked(first, folder, made, out, f"run {number} of {len(folders)}")
                for number, folder in enumerate(folders, 1)]  # fmt: skip


def _asked(first: Stored, folder: Path, made: Mapping[str, Any], out: Path, which: str) -> Path:
    """The new run of one model. which: one of how many, for whoever waits."""
    with phase(which):
        with phase("reading its data"):
            stored = _same_questions(first, folder)
        with phase("answering"):
            return _publish(stored, made, out)


def _require_room(out: Path, folder: Path) -> None:
    """Refuse, before anything is asked, a place where a run lies that was not itself asked: the new run has answers
    alone, and would take the place of its weights."""
    from zoo.store import reading
    from zoo.store.places import require_apart
    from zoo.store.schema import ASKED, RUN

    place = out / _place(reading.read_record(folder)).relative
    require_apart(place)
    if (place / RUN).is_file() and ASKED not in reading.read_record(place):
        raise RequestError(f"In {place} lies a run that was not made by zoo.ask.\nChoose another folder with out=…")


def _place(record: Mapping[str, Any]) -> RunPlace:
    from zoo.store.keys import RunPlace

    try:
        return RunPlace(*(str(record[part]) for part in ("task", "dataset", "model", "key")))
    except KeyError as error:
        raise StoreError(f"A run's run.json does not say its {error.args[0]}, so it cannot be asked.") from error


def _stored(folder: Path) -> Stored:
    from zoo.benchmark import restoring
    from zoo.models import TorchModel
    from zoo.store.schema import WEIGHTS

    stored = restoring.load(folder, sample=0)
    if isinstance(stored.model, TorchModel) and not (folder / WEIGHTS).is_file():
        raise StoreError(f"Run {folder} keeps no weights, so its model cannot be asked.\n"
                         "Run it again with keep_weights=true rerun=true.")  # fmt: skip
    return stored


def _same_questions(first: Stored, folder: Path) -> Stored:
    stored = _stored(folder)
    one, two = first.splits.test, stored.splits.test
    if one.fingerprint != two.fingerprint or one.classes != two.classes:
        raise Incompatible(
            f"Runs {first.run.folder} and {folder} were tested on other examples, so that they are not asked the same."
        )
    return stored


def made_inputs(splits: Splits, request: Request) -> dict[str, Any]:
    """Inputs by kind, as a model takes them: texts, or images (n, height, width, channels) uint8."""
    import numpy as np

    from zoo.lineage import probes

    examples, count, seed = splits.test.examples, request.inputs, request.seed
    training = probes.some(splits.train.examples, count, seed + 3)
    if not isinstance(examples, np.ndarray):
        if request.scout:
            raise ConfigError(f"scout={request.scout}: between two texts there are no points to ask about.")
        return {
            "mixed": probes.mixed_texts(examples, count, seed),
            "shuffled": probes.shuffled_texts(examples, count, seed + 1),
            "training": training,
        }
    made = {
        "mixed": probes.mixed_images(examples, count, seed),
        "noise": probes.noise_images(examples, count, seed + 1),
        "training": training,
    }
    if request.scout:
        ask = asking(_stored(Path(request.scout).expanduser()))
        made["boundary"] = probes.boundary_images(examples, lambda images: ask(images).argmax(1), count, seed + 2)
    return made


def asking(stored: Stored) -> Callable[[Any], np.ndarray]:
    """The model of a run as a function of inputs, texts or images: logits, or log-probabilities of a model that fits
    itself, (inputs, classes) float32. Raises StoreError when the stored weights do not fit the model."""
    import numpy as np
    import torch

    from zoo.benchmark import restoring
    from zoo.benchmark.timing import Memory
    from zoo.engine import evaluation
    from zoo.engine.batches import Batches
    from zoo.engine.fitting import blame
    from zoo.models import Predictor

    if isinstance(stored.model, Predictor):
        fitted = restoring.fit_again(stored)

        def tell(inputs: Any) -> np.ndarray:
            with blame(fitted, "predict_proba"):
                told = np.asarray(fitted.predict_proba(inputs), dtype=np.float64)
            return np.log(np.maximum(told, np.finfo(np.float32).tiny)).astype(np.float32)

        return tell
    device = torch.device("cpu")
    restored = restoring.module_of(stored, device, Memory())
    with blame(stored.model, "encoder"):
        encoder = stored.model.encoder(stored.splits.train)

    def ask(inputs: Any) -> np.ndarray:
        with blame(stored.model, "encoder"):
            encoded = encoder.encode(inputs)
        batches = Batches(encoded, np.zeros(len(inputs), np.int64), encoder.spec, device)
        return evaluation.logits(restored.module, batches, BATCH, len(stored.splits.classes))

    return ask


def _publish(stored: Stored, made: Mapping[str, Any], out: Path) -> Path:
    """A new run: the record of the old one, its answers to the test split, and those to the made inputs."""
    import numpy as np

    from zoo.data.loading import content_ids
    from zoo.store.folder import Draft
    from zoo.store.schema import ASKED
    from zoo.store.tables import PredictionTable

    test = stored.run.predictions().only("test")
    ask = asking(stored)
    told = {kind: ask(inputs) for kind, inputs in made.items() if len(inputs)}
    ids = [f"{kind}:{name}" for kind in told for name in content_ids(made[kind])]
    logits = np.concatenate([test.logits, *told.values()])
    more = len(ids)
    table = PredictionTable(
        splits=np.concatenate([test.splits, np.full(more, ASKED)]),
        ids=np.concatenate([test.ids, np.array(ids, dtype=np.str_)]),
        labels=np.concatenate([test.labels, np.zeros(more, np.int64)]),  # they have no true class; nobody reads these
        predictions=np.concatenate([test.predictions, logits[len(test) :].argmax(1)]),
        logits=logits,
    )
    record = dict(stored.run.record)
    record[ASKED] = {"run": str(record.get("key")), "inputs": {kind: len(inputs) for kind, inputs in told.items()}}
    record.pop("files", None)
    with Draft.open(out, _place(record), record) as draft:
        draft.write_predictions(table)
        return draft.publish(record, "complete")


if __name__ == "__main__":
    main()
