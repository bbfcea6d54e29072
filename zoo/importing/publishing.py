"""Answers made elsewhere, written as a run folder like any other."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import DamagedRun
from zoo.store import reading
from zoo.store.folder import Draft, clear_leftovers
from zoo.store.keys import RunPlace, run_key
from zoo.store.schema import METRICS

if TYPE_CHECKING:
    import numpy as np

    from zoo.importing.answers import Answers
    from zoo.store.tables import PredictionTable

NO_PROBABILITIES = "the import has no probabilities"


@dataclass(frozen=True)
class Imported:
    """A run folder made from answers. reused: it was there already; accuracy: in [0, 1]."""

    folder: Path
    model: str
    seed: int
    examples: int
    accuracy: float
    reused: bool
    notes: tuple[str, ...]


def publish(answers: Answers, runs_dir: Path, task: str) -> Imported:
    """Write one run folder. The key covers the answers, so the same ones once more find the folder as it is.

    Raises StoreError when it cannot be written."""
    import zoo

    fingerprint = _fingerprint(answers)
    config = {"model": {"name": answers.model}, "dataset": {"name": answers.dataset}, "task": {"name": task},
              "trainer": None, "seed": answers.seed}  # fmt: skip
    decisive = {**config, "imported": _digest(answers), "classes": list(answers.classes)}
    versions = {"zoo-harness": zoo.__version__}
    place = RunPlace(task, answers.dataset, answers.model, run_key(decisive, fingerprint, versions))
    accuracy = float((answers.labels == answers.predictions).mean())
    facts = (answers.model, answers.seed, len(answers.ids), accuracy)
    if (there := _there(runs_dir, place)) is not None:
        return Imported(there, *facts, reused=True, notes=answers.notes)
    test = {"examples": len(answers.ids), "fingerprint": fingerprint}
    record = {
        "config": config,
        "seed": answers.seed,
        "label": answers.model,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions,
        "data": {"fingerprint": fingerprint, "modality": None, "classes": list(answers.classes),
                 "splits": {"test": test}, "notes": list(answers.notes)},
        "imported": {
            "kind": answers.kind,
            "files": [path.name for path in answers.sources],
            "sha256": [hashlib.sha256(path.read_bytes()).hexdigest() for path in answers.sources],
            "probabilities": answers.probabilities is not None,
        },
    }  # fmt: skip
    clear_leftovers(runs_dir)
    with Draft.open(runs_dir, place, record) as draft:
        draft.write_json(METRICS, _metrics(answers))
        draft.write_predictions(_table(answers))
        return Imported(draft.publish(record), *facts, reused=False, notes=answers.notes)


def _there(runs_dir: Path, place: RunPlace) -> Path | None:
    try:
        found = reading.find(runs_dir, place, verify=True)
    except DamagedRun:
        return None
    return None if found is None else found.folder


def _fingerprint(answers: Answers) -> str:
    """Of the test split, as a dataset's own is: ids and labels in order."""
    content = "\n".join(answers.ids).encode(errors="surrogatepass") + answers.labels.astype("<i8").tobytes()
    return hashlib.sha256(content).hexdigest()


def _digest(answers: Answers) -> str:
    digest = hashlib.sha256(json.dumps([answers.kind, len(answers.ids)]).encode())
    digest.update(answers.predictions.astype("<i8").tobytes())
    if answers.probabilities is not None:
        digest.update(answers.probabilities.astype("<f8").tobytes())
    return digest.hexdigest()


def _table(answers: Answers) -> PredictionTable:
    """Log-probabilities stand for logits. Without probabilities they are NaN: unknown, not made up."""
    import numpy as np

    from zoo.store.tables import PredictionTable

    if answers.probabilities is None:
        logits = np.full((len(answers.ids), len(answers.classes)), np.nan, np.float32)
    else:
        # A probability of exactly 0 would be minus infinity; float32's smallest normal number stands in.
        logits = np.log(np.maximum(answers.probabilities, np.finfo(np.float32).tiny)).astype(np.float32)
    splits = np.full(len(answers.ids), "test")
    return PredictionTable(splits, np.array(answers.ids), answers.labels, answers.predictions, logits)


def _metrics(answers: Answers) -> dict[str, dict[str, Any]]:
    """Accuracy and F1 by the predictions; log-loss and calibration by the probabilities, undefined without any."""
    import numpy as np

    from zoo.engine.metrics import evaluate

    certain: np.ndarray = np.eye(len(answers.classes))[answers.predictions]
    metrics = evaluate(answers.labels, certain, answers.classes)
    nothing = {"value": None, "low": None, "high": None, "n": len(answers.ids), "reason": NO_PROBABILITIES}
    soft = {} if answers.probabilities is None else evaluate(answers.labels, answers.probabilities, answers.classes)
    return metrics | {name: soft.get(name, nothing) for name in ("log_loss", "ece")}
