"""The facts of a run folder, schema version 1: file names, columns, statuses. Every other module takes them from here.

```
<root>/<task>/<dataset>/<model>/<key>/     a run; `<key>-failed` beside it when a later try of a complete run failed
<root>/.drafts/<key>-<pid>-<random>/       a run being written, and `….lock`, held locked by the process that writes it
```
"""

from __future__ import annotations

from typing import Literal

SCHEMA_VERSION = 1

Status = Literal["started", "complete", "failed", "skipped"]
"""started: being written; complete: everything is there; failed: `error` says why; skipped: the parts do not fit."""

RUN = "run.json"
METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
FEATURES = "features.safetensors"
WEIGHTS = "model.safetensors"
HISTORY = "history.parquet"
EVENTS = "events.log"
ERROR = "error.txt"

FILES = (RUN, METRICS, PREDICTIONS, FEATURES, WEIGHTS, HISTORY, EVENTS, ERROR)

DRAFTS = ".drafts"
LOCK_SUFFIX = ".lock"
PUBLISH_LOCK = "~publish.lock"
REPLACED_SUFFIX = "~old"  # no escaped name has a tilde, so the draft's own name can be told from it
FAILED_SUFFIX = "-failed"

SPLIT = "split"
EXAMPLE_ID = "example_id"
LABEL = "label"
PREDICTION = "prediction"
LOGITS = "logits"
PREDICTION_COLUMNS = (SPLIT, EXAMPLE_ID, LABEL, PREDICTION, LOGITS)

ASKED = "asked"
"""In runs that `zoo.ask` writes: the split of inputs that no data set holds, whose labels mean nothing; and in
`run.json` {run, inputs}: the key of the run that was asked, and how many inputs of each kind."""

PARENT = "parent"
"""In `run.json` of a run that was made out of another: {key, label, seed, weights_sha256, steps}. key, label, seed and
weights_sha256 are the other run's; steps: what was done to it, in order, each {step, …facts}."""

DISGUISE = "disguise"
"""In such a run's `config`: {how, seed, parent}. how: the steps as they are written; seed: of what they drew; parent:
the other run's key. Runs that were trained from the start have neither."""


def computed_on(device: str, precision: str, threads: int | None, *, processor_too: bool = False) -> str:
    """Where a model was trained or asked, in words, with what times depend on: `cpu, fp32, 2 threads`, `cuda, bf16`.

    threads: of the processor, None where nobody counted them. They tell nothing of what another device did, so that
    there they stand only where some of what is meant ran on the processor (processor_too): `cuda, bf16, 16 CPU
    threads`."""
    parts = [device, precision]
    if threads and (device == "cpu" or processor_too):
        parts.append(f"{threads} {'' if device == 'cpu' else 'CPU '}thread{'s' * (threads != 1)}")
    return ", ".join(part for part in parts if part)
