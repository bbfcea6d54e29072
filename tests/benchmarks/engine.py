"""What the engine costs: its training step and its inference beside other loops, and the start-up of the commands.

The contenders of a race do the same work on the training split of rotten_tomatoes, each in a process of its own, and
take turns, step by step, so that whatever else the machine does meets all of them alike. Training, for one epoch:

- engine: `zoo.engine.training.train`, as a run calls it;
- by hand: the very same batches (made beforehand), precision, optimizer and clipping in the shortest loop there is;
- plain: random batches from a DataLoader, padded to the longest, float32, torch.optim.AdamW as it comes (of a
  pretrained encoder it does every third step only: it is the slowest, and its batches are all alike);
- Trainer: transformers' own, bfloat16, grouping by length, fused AdamW; for the pretrained encoder.

Inference, the whole test split a turn: `zoo.engine.evaluation.logits` beside a DataLoader, float32 and the same number
of examples in a batch.

Prints each ratio with n and its bar, and exits with 1 when a bar is missed. Takes some ten minutes on two cores and
5 GiB of memory; `--quick` only shows that it works. `--device cuda` races the same loops there, where each step is
waited for, and leaves out the start-up; the bars are those of a CPU. `--models bert` races the loops of these alone.
"""

from __future__ import annotations

import os

# Threads that spin while they wait would take the cores from the contender whose turn it is. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import importlib.metadata
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from turns import SEED, Entry, Times, Turn, bootstrap, closed, race, verdict

import zoo
from zoo import plugins
from zoo.config import Device, Precision, Trainer, TrainerOptions, decide
from zoo.data import cache
from zoo.data.packaged import RottenTomatoes
from zoo.engine import devices, evaluation, training
from zoo.engine.batches import Batches, plan_epoch
from zoo.engine.fitting import placed, seed_everything

STEP_BAR = 1.03
START_UP = {("-m", "zoo.ls"): 0.7, ("-m", "zoo.run", "--help"): 1.2}  # seconds of user and system time
FIRST_STEP = {"bert": 6.0, "mlp": 3.0, "cnn": 3.0, "transformer": 3.0}  # seconds on the clock
HEAVY = ("torch", "transformers")


@dataclass(frozen=True)
class Work:
    """What a contender gets. folder: for what it writes; quick: only a few examples; device: where all of them compute,
    `cpu` or `cuda`."""

    model: str
    folder: str
    quick: bool
    device: str = "cpu"


@dataclass(frozen=True)
class Bench:
    """A model with its data, as a run has them. examples, test_examples: of training and test, one dictionary with the
    array of token ids for each."""

    job: training.Job
    test: Batches
    module: torch.nn.Module
    examples: list[dict[str, Any]]
    test_examples: list[dict[str, Any]]
    pad_id: int

    @property
    def trainer(self) -> Trainer:
        return self.job.trainer

    @property
    def bf16(self) -> bool:
        return self.job.placement.precision is Precision.bf16

    @property
    def device(self) -> torch.device:
        return self.job.placement.device


class Turns:
    """The engine's reporter: gives the turn away after each step, and leaves the evaluation out of the time."""

    def __init__(self, turn: Turn, device: torch.device) -> None:
        self._turn, self._device, self.epoch = turn, device, turn.restart_clock

    def step(self, *_ignored: object) -> None:
        finish(self._device)
        self._turn.done()


def finish(device: torch.device) -> None:
    """Wait for what an accelerator was given: else it would be done in another's turn."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def engine(work: Work, turn: Turn) -> None:
    """The code path of a run."""
    bench = prepare(work)
    with devices.threads(bench.job.placement.threads):
        warm_up(bench)
        turn.ready()
        training.train(bench.module, bench.job, Turns(turn, bench.device))


def by_hand(work: Work, turn: Turn) -> None:
    """The batches of `engine`, made beforehand."""
    bench = prepare(work)
    module, trainer, train = bench.module.train(), bench.trainer, bench.job.train
    plan = plan_epoch(train.lengths, len(train), trainer.batch_size, np.random.default_rng(SEED))
    batches = [train.take(rows) for rows in plan]
    weights = list(module.parameters())
    optimizer = torch.optim.AdamW(weights, trainer.learning_rate, weight_decay=trainer.weight_decay, fused=True)
    with devices.threads(bench.job.placement.threads):
        warm_up(bench)
        turn.ready()
        for batch in batches:
            with devices.autocast(bench.device, bench.job.placement.precision):
                answers = module(*batch.inputs)
            loss = F.cross_entropy(answers.float(), batch.labels)
            loss.backward()
            if trainer.clip:
                torch.nn.utils.clip_grad_norm_(weights, trainer.clip)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            turn.done()


def plain(work: Work, turn: Turn) -> None:
    """The loop of a first script."""
    bench = prepare(work)
    module, trainer = bench.module.train(), bench.trainer
    loader = torch.utils.data.DataLoader(
        bench.examples, batch_size=trainer.batch_size, shuffle=True, collate_fn=_collate(bench.pad_id)
    )
    optimizer = torch.optim.AdamW(module.parameters(), trainer.learning_rate)
    warm_up(bench)
    turn.ready()
    for batch in loader:
        batch = {name: tensor.to(bench.device) for name, tensor in batch.items()}
        optimizer.zero_grad()
        loss = F.cross_entropy(module(batch["input_ids"], batch["attention_mask"]), batch["labels"])
        loss.backward()
        optimizer.step()
        loss.item()
        turn.done()


def hugging_face(work: Work, turn: Turn) -> None:
    """transformers' Trainer. The loading of its data belongs to its steps, its set-up does not."""
    import transformers

    bench = prepare(work)
    warm_up(bench)

    class Told(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            turn.ready()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            finish(bench.device)
            turn.done()

    class WithLoss(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
        ) -> dict[str, torch.Tensor]:
            answers = self.inner(input_ids, attention_mask)
            return {"loss": F.cross_entropy(answers.float(), labels), "logits": answers}

    # transformers 5 renamed the option.
    renamed = "train_sampling_strategy" in transformers.TrainingArguments.__dataclass_fields__
    grouped = {"train_sampling_strategy": "group_by_length"} if renamed else {"group_by_length": True}
    trainer = bench.trainer
    options = transformers.TrainingArguments(
        work.folder, use_cpu=work.device == "cpu", bf16=bench.bf16, seed=SEED, num_train_epochs=1,
        per_device_train_batch_size=trainer.batch_size, learning_rate=trainer.learning_rate,
        weight_decay=trainer.weight_decay, max_grad_norm=trainer.clip, save_strategy="no", report_to="none",
        disable_tqdm=True, dataloader_pin_memory=False, remove_unused_columns=False, **grouped,
    )  # fmt: skip
    running = transformers.Trainer(
        WithLoss(bench.module), options, train_dataset=bench.examples,
        data_collator=_collate(bench.pad_id), callbacks=[Told()],
    )  # fmt: skip
    running.remove_callback(transformers.PrinterCallback)
    running.train()


def engine_answers(work: Work, turn: Turn) -> None:
    """Inference as a run does it."""
    bench = prepare(work)
    classes, size = bench.job.classes, bench.trainer.batch_size
    with devices.threads(bench.job.placement.threads):
        evaluation.logits(bench.module, bench.test, size, classes)
        turn.ready()
        while True:
            evaluation.logits(bench.module, bench.test, size, classes)
            turn.done()


def loader_answers(work: Work, turn: Turn) -> None:
    """Inference of a first script."""
    bench = prepare(work)
    module = bench.module.eval()

    @torch.inference_mode()
    def answer() -> torch.Tensor:
        loader = torch.utils.data.DataLoader(
            bench.test_examples, batch_size=2 * bench.trainer.batch_size, collate_fn=_collate(bench.pad_id)
        )
        where = bench.device
        return torch.cat(
            [module(batch["input_ids"].to(where), batch["attention_mask"].to(where)) for batch in loader]
        ).cpu()

    answer()
    turn.ready()
    while True:
        answer()
        turn.done()


def _collate(pad_id: int) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Pads to the longest of the batch; leaner than transformers' own collator."""

    def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        texts = [torch.tensor(item["input_ids"]) for item in items]
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=pad_id)
        lengths = torch.tensor([len(text) for text in texts])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([item["labels"] for item in items])}

    return collate


def prepare(work: Work) -> Bench:
    """The model with fresh weights and the data of the demo; when quick, only a few examples of them."""
    # The Trainer and torch warn about each other's future; nothing of that is of use here.
    warnings.filterwarnings("ignore")
    seed_everything(SEED)
    splits, model = zoo.load(RottenTomatoes()), plugins.find("model", work.model).cls()
    encoder = model.encoder(splits.train)
    trainer = decide(TrainerOptions(epochs=1, device=Device(work.device)), model.recipe("text"))
    count = 4 * trainer.batch_size if work.quick else len(splits.train)
    encoded = [(_first(cache.encode(encoder, split), count), split.labels[:count]) for split in
               (splits.train, splits.validation, splits.test)]  # fmt: skip
    device = devices.choose_device(trainer.device)
    batches = [Batches(part, labels, encoder.spec, device, trainer.resident_mib) for part, labels in encoded]
    seed_everything(SEED)
    module = model.build(encoder.spec, len(splits.classes)).to(device)
    placement = placed(module, batches[0], trainer)
    job = training.Job(*batches[:2], trainer, placement, len(splits.classes), SEED)
    return Bench(job, batches[2], module, _listed(*encoded[0]), _listed(*encoded[2]), encoder.spec.pad_id)


def _first(encoded: zoo.Encoded, count: int) -> zoo.Tokens:
    assert isinstance(encoded, zoo.Tokens)
    return zoo.Tokens(encoded.ids, encoded.offsets[: count + 1])


def _listed(encoded: zoo.Tokens, labels: np.ndarray) -> list[dict[str, Any]]:
    starts = zip(encoded.offsets, encoded.offsets[1:], strict=False)
    return [
        {"input_ids": encoded.ids[start:stop].tolist(), "labels": int(label)}
        for (start, stop), label in zip(starts, labels, strict=True)
    ]


def warm_up(bench: Bench) -> None:
    """Let torch load and choose what it computes with, in both precisions."""
    batch = bench.job.train.take(np.arange(bench.trainer.batch_size))
    for precision in (Precision.bf16, Precision.fp32):
        with devices.autocast(bench.device, precision):
            answers = bench.module(*batch.inputs)
        answers.float().sum().backward()
    bench.module.zero_grad()


TRAINING = {
    "bert": (Entry("engine", engine), Entry("by hand", by_hand), Entry("plain", plain, every=3),
             Entry("Trainer", hugging_face)),
    "cnn": (Entry("engine", engine), Entry("by hand", by_hand), Entry("plain", plain)),
    "transformer": (Entry("engine", engine), Entry("by hand", by_hand), Entry("plain", plain)),
}  # fmt: skip
# Examples a second, over those of another loop.
TRAINING_BARS = {
    "bert": {"plain": 2.0, "Trainer": 1.15},
    "cnn": {"plain": 1.5},
    "transformer": {"plain": 1.5},
}
INFERENCE = (Entry("engine", engine_answers), Entry("DataLoader", loader_answers))
INFERENCE_BAR = 1.3
PASSES = {"bert": 8, "mlp": 40, "cnn": 40, "transformer": 40}


def train_bars(work: Work) -> bool:
    """Race the training loops of a model. Returns whether every bar is met."""
    bench = prepare(work)
    job, size = bench.job, bench.trainer.batch_size
    times = race(TRAINING[work.model], work, training.budget(job))
    weights = sum(parameter.numel() for parameter in bench.module.parameters())
    print(
        f"\n{work.model}, training: {weights:,} weights, {job.placement.precision.value}, "
        f"threads {job.placement.threads}; {len(job.train):,} reviews in batches of {size}"
    )
    table(times, size)
    met = [True]
    if work.model == "bert":
        pairs = times["engine"].clock / times["by hand"].clock
        low, ratio, high = (float(value) for value in np.quantile(pairs, (0.25, 0.5, 0.75)))
        # Processor time says the same, with less of what else the machine did meanwhile.
        processor = float(np.median(times["engine"].processor / times["by hand"].processor))
        spread = f"quartiles {low:.3f}–{high:.3f}, of processor time {processor:.3f}"
        met.append(verdict("step time, engine / by hand", ratio, spread, STEP_BAR, at_most=True))
    return all([*met, *(faster(times, name, bar) for name, bar in TRAINING_BARS[work.model].items())])


def inference_bars(work: Work) -> bool:
    """Race the inference of a model. Returns whether its bar is met."""
    bench = prepare(work)
    times = race(INFERENCE, work, 2 if work.quick else PASSES[work.model])
    print(f"\n{work.model}, inference: {len(bench.test):,} reviews in batches of {2 * bench.trainer.batch_size}")
    table(times, len(bench.test))
    return faster(times, "DataLoader", INFERENCE_BAR)


def table(times: Mapping[str, Times], examples: int) -> None:
    """Print what the turns took. examples: in each of them."""
    print(f"{'':10}{'ms a turn':>12}{'quartiles':>18}{'examples/s':>14}{'n':>6}")
    for name, taken in times.items():
        low, middle, high = np.quantile(taken.clock * 1e3, (0.25, 0.5, 0.75))
        speed = examples / taken.clock.mean()
        print(f"{name:10}{middle:12.1f}{f'{low:.1f}–{high:.1f}':>18}{speed:14.1f}{len(taken.clock):6}")


def faster(times: Mapping[str, Times], name: str, bar: float) -> bool:
    """Print how many times as fast as another the engine was."""
    ours, theirs = times["engine"].clock, times[name].clock
    low, high = bootstrap(theirs, ours)
    spread = f"95 % {low:.3f}–{high:.3f}"
    return verdict(f"examples/s, engine / {name}", float(theirs.mean() / ours.mean()), spread, bar)


def start_up(command: tuple[str, ...], repeats: int) -> list[float]:
    """User and system seconds of `python <command>`, after one run that fills the disk's cache."""
    taken = []
    for _ in range(repeats + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=120)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return taken[1:]


def imported(command: tuple[str, ...]) -> list[str]:
    """Which of the heavy libraries `python <command>` imports."""
    finished = subprocess.run(
        [sys.executable, "-X", "importtime", *command], check=True, capture_output=True, text=True, timeout=120
    )
    names = {line.rpartition("|")[2].strip() for line in finished.stderr.splitlines()}
    return [name for name in HEAVY if name in names]


def report_start_up(repeats: int) -> bool:
    """Print what the commands take to start. Returns whether every bar is met."""
    print()
    met = []
    for command, bar in START_UP.items():
        taken = start_up(command, repeats)
        heavy = imported(command)
        name = "python " + " ".join(command)
        spread = f"{min(taken):.2f}–{max(taken):.2f} s, n = {len(taken)}"
        middle = statistics.median(taken)
        met.append(verdict(f"{name}, user+system s", middle, spread, bar, at_most=True) and not heavy)
        if heavy:
            print(f"{name} imports {' and '.join(heavy)}")
    return all(met)


# Ends at the first step that is done; what comes before it is what `python -m zoo.run` does.
_ONE_STEP = """
import os, sys
from zoo.engine import training
step = training._Loop.one_step
def first(loop, batch):
    step(loop, batch)
    os._exit(0)
training._Loop.one_step = first
from zoo import launch
sys.exit(launch.command(sys.argv[1:]) or 99)
"""


def report_first_steps(folder: str, repeats: int) -> bool:
    """Print the seconds from the start of `python -m zoo.run` to its first step's end. Returns whether bars are met."""
    print()
    met = []
    for model, bar in FIRST_STEP.items():
        taken = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            words = [f"model={model}", "task=sentiment", f"runs_dir={folder}/runs"]
            subprocess.run([sys.executable, "-c", _ONE_STEP, *words], check=True, capture_output=True, timeout=300)
            taken.append(time.perf_counter() - began)
        spread = f"{min(taken[1:]):.2f}–{max(taken[1:]):.2f} s, n = {repeats}; the first of all {taken[0]:.2f} s"
        what = f"first step of zoo.run model={model}, s"
        met.append(verdict(what, statistics.median(taken[1:]), spread, bar, at_most=True))
    return all(met)


def versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    for name in ("torch", "transformers", "numpy"):
        yield f"{name} {importlib.metadata.version(name)}"
    yield f"zoo {zoo.__version__}"


def main() -> int:
    """Exit code: 0, or 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps: shows that everything runs, measures nothing")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the loops compute")
    parser.add_argument("--models", default=",".join(PASSES), help="with commas between them")
    asked = parser.parse_args()
    quick, device, models = asked.quick, asked.device, asked.models.split(",")
    if unknown := sorted(set(models) - set(PASSES)):
        parser.error(f"--models: no {', '.join(unknown)}; there are {', '.join(PASSES)}")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no such device")
    known = devices.hardware(torch.device(device))
    where = ", ".join(str(known[name]) for name in ("gpu", "cpu") if name in known)
    print(f"{', '.join(versions())}\n{where}, {known['cores']} cores, {known['system']}", flush=True)
    met = []
    with tempfile.TemporaryDirectory() as folder:
        met += [train_bars(Work(model, folder, quick, device)) for model in TRAINING if model in models]
        met += [inference_bars(Work(model, folder, quick, device)) for model in PASSES if model in models]
        if device == "cpu":
            met.append(report_start_up(1 if quick else 5))
            met.append(report_first_steps(folder, 1 if quick else 5))
    return closed(all(met), quick)


if __name__ == "__main__":
    sys.exit(main())
