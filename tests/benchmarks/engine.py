"""What the engine costs: its training step beside three other loops, and the start-up of the commands.

Four contenders fine-tune the same pretrained encoder on the training split of rotten_tomatoes for one epoch, in one
process, and take turns step by step, so that whatever else the machine does meets all of them alike:

- engine: `zoo.engine.training.train`, as a run calls it;
- by hand: the very same batches (made beforehand), precision, optimizer and clipping in the shortest loop there is;
- plain: random batches from a DataLoader, padded to the longest, float32, torch.optim.AdamW as it comes (it is the
  slowest and its batches are all alike, so it does every third step only);
- Trainer: transformers' own, bfloat16 and grouping by length.

Prints each ratio with n and its bar, and exits with 1 when a bar is missed. Takes some five minutes on two cores and
3 GiB of memory; `--quick` only shows that it works.
"""

from __future__ import annotations

import os
import sys

# Each contender has a thread of its own, to which glibc would give a heap of its own. By the luck of its layout one of
# them then gets its memory without page faults, which is 8 % of a step. Read when the process begins, so begin again.
if __name__ == "__main__" and os.environ.get("MALLOC_ARENA_MAX") != "1":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_ARENA_MAX": "1"})
# Threads that spin while they wait would take the cores from the contender whose turn it is. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import copy
import importlib.metadata
import platform
import resource
import statistics
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from zoo_bert import BERT

import zoo
from zoo.config import Device, Precision, Trainer, TrainerOptions, decide
from zoo.data import cache
from zoo.data.packaged import RottenTomatoes
from zoo.engine import devices, training
from zoo.engine.batches import Batches, plan_epoch
from zoo.engine.fitting import seed_everything

SEED = 0
PLAIN_EVERY = 3  # turns
STEP_BAR, PLAIN_BAR, TRAINER_BAR = 1.03, 2.0, 1.0
START_UP = {("-m", "zoo.ls"): 0.7, ("-m", "zoo.run", "--help"): 1.2}  # seconds of user and system time
HEAVY = ("torch", "transformers")


@dataclass(frozen=True)
class Bench:
    """What all contenders share. examples: one array of token ids for each."""

    job: training.Job
    module: torch.nn.Module
    examples: list[dict[str, Any]]
    pad_id: int

    @property
    def trainer(self) -> Trainer:
        return self.job.trainer

    @property
    def steps(self) -> int:
        return training.budget(self.job)


@dataclass(frozen=True)
class Times:
    """Seconds of each step, (steps,) float64: on the clock, and of the processor (all threads)."""

    clock: np.ndarray
    processor: np.ndarray


class Contender:
    """A loop in a thread of its own that runs one step whenever it is its turn.

    work: gets the bench and this contender; calls `ready` when it is set up, and `stepped` after each step.
    """

    def __init__(self, name: str, work: Callable[[Bench, Contender], None], bench: Bench) -> None:
        self.name = name
        self.seconds: list[tuple[float, float]] = []
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._since = (0.0, 0.0)
        threading.Thread(target=self._run, args=(work, bench), daemon=True, name=name).start()

    def advance(self) -> None:
        """Let it set itself up, the first time; then let it do one step; after the last step, let it end."""
        self._turn.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error

    def ready(self) -> None:
        """To be called before the first step."""
        self._done.release()
        self._wait()

    def stepped(self, *_ignored: object) -> None:
        """To be called after each step: the turn goes on to the next contender."""
        self.seconds.append((time.perf_counter() - self._since[0], time.process_time() - self._since[1]))
        self._done.release()
        self._wait()

    def restart_clock(self, *_ignored: object) -> None:
        """Leave out of the step what was done up to now."""
        self._since = time.perf_counter(), time.process_time()

    def _run(self, work: Callable[[Bench, Contender], None], bench: Bench) -> None:
        try:
            self._wait()
            work(bench, self)
        except BaseException as error:
            self._error = error
        self._done.release()

    def _wait(self) -> None:
        self._turn.acquire()
        self.restart_clock()


class Turns:
    """The engine's reporter: gives the turn away after each step, and leaves the evaluation out of the time."""

    def __init__(self, contender: Contender) -> None:
        self.step, self.epoch = contender.stepped, contender.restart_clock


def engine(bench: Bench, contender: Contender) -> None:
    """The code path of a run."""
    module = copy.deepcopy(bench.module)
    contender.ready()
    training.train(module, bench.job, Turns(contender))


def by_hand(bench: Bench, contender: Contender) -> None:
    """The batches of `engine`, made beforehand."""
    module, trainer = copy.deepcopy(bench.module).train(), bench.trainer
    train = bench.job.train
    plan = plan_epoch(train.lengths, len(train), trainer.batch_size, np.random.default_rng(SEED))
    batches = [train.take(rows) for rows in plan]
    weights = list(module.parameters())
    optimizer = torch.optim.AdamW(weights, trainer.learning_rate, weight_decay=trainer.weight_decay, fused=True)
    bf16 = bench.job.placement.precision is Precision.bf16
    contender.ready()
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            answers = module(*batch.inputs)
        loss = F.cross_entropy(answers.float(), batch.labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, trainer.clip)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        contender.stepped()


def plain(bench: Bench, contender: Contender) -> None:
    """The loop of a first script."""
    module, trainer = copy.deepcopy(bench.module).train(), bench.trainer
    loader = torch.utils.data.DataLoader(
        bench.examples, batch_size=trainer.batch_size, shuffle=True, collate_fn=_collate(bench.pad_id)
    )
    optimizer = torch.optim.AdamW(module.parameters(), trainer.learning_rate)
    contender.ready()
    for batch in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(module(batch["input_ids"], batch["attention_mask"]), batch["labels"])
        loss.backward()
        optimizer.step()
        loss.item()
        contender.stepped()


def hugging_face(bench: Bench, contender: Contender) -> None:
    """transformers' Trainer. The loading of its data belongs to its steps, its set-up does not."""
    import transformers

    class Told(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            contender.ready()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            contender.stepped()

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
    with tempfile.TemporaryDirectory() as folder:
        options = transformers.TrainingArguments(
            folder, use_cpu=True, bf16=bench.job.placement.precision is Precision.bf16, seed=SEED, num_train_epochs=1,
            per_device_train_batch_size=trainer.batch_size, learning_rate=trainer.learning_rate,
            weight_decay=trainer.weight_decay, max_grad_norm=trainer.clip, save_strategy="no", report_to="none",
            disable_tqdm=True, dataloader_pin_memory=False, remove_unused_columns=False, **grouped,
        )  # fmt: skip
        running = transformers.Trainer(
            WithLoss(copy.deepcopy(bench.module)), options, train_dataset=bench.examples,
            data_collator=_collate(bench.pad_id), callbacks=[Told()],
        )  # fmt: skip
        running.remove_callback(transformers.PrinterCallback)
        running.train()


def _collate(pad_id: int) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Pads to the longest of the batch; leaner than transformers' own collator."""

    def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        texts = [torch.tensor(item["input_ids"]) for item in items]
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=pad_id)
        lengths = torch.tensor([len(text) for text in texts])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([item["labels"] for item in items])}

    return collate


def prepare(quick: bool) -> Bench:
    """The model and data of the demo; when quick, only a few examples of it."""
    seed_everything(SEED)
    splits, model = zoo.load(RottenTomatoes()), BERT()
    encoder = model.encoder(splits.train)
    encoded = cache.encode(encoder, splits.train)
    assert isinstance(encoded, zoo.Tokens)
    count = 100 if quick else len(encoded)
    options = TrainerOptions(epochs=1, device=Device.cpu)
    trainer = decide(options, model.recipe("text"))
    module, device = model.build(encoder.spec, len(splits.classes)), torch.device("cpu")
    precision = devices.choose_precision(trainer.precision, device, module)
    placement = devices.Placement(device, precision, devices.choose_threads(trainer.threads, module))

    def first(rows: int) -> Batches:
        part = zoo.Tokens(encoded.ids, encoded.offsets[: rows + 1])
        return Batches(part, splits.train.labels[:rows], encoder.spec, device, trainer.resident_mib)

    job = training.Job(first(count), first(1), trainer, placement, len(splits.classes), SEED)
    starts = zip(encoded.offsets[:count], encoded.offsets[1:], strict=False)
    listed = [
        {"input_ids": encoded.ids[start:stop].tolist(), "labels": int(label)}
        for (start, stop), label in zip(starts, splits.train.labels, strict=False)
    ]
    return Bench(job, module, listed, encoder.spec.pad_id)


def warm_up(bench: Bench) -> None:
    """Let torch load and choose what it computes with, in both precisions."""
    module, batch = copy.deepcopy(bench.module), bench.job.train.take(np.arange(bench.trainer.batch_size))
    for bf16 in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            answers = module(*batch.inputs)
        answers.float().sum().backward()


def race(bench: Bench) -> dict[str, Times]:
    """What each step took. All of the epoch counts: the Trainer begins with the longest texts, the engine does not."""
    warm_up(bench)
    loops = {"engine": engine, "by hand": by_hand, "plain": plain, "Trainer": hugging_face}
    contenders = [Contender(name, work, bench) for name, work in loops.items()]
    for contender in contenders:
        contender.advance()
    order = np.random.default_rng(SEED)
    for turn in range(bench.steps):
        # Whose turn was last decides what the caches hold; in random order that is nobody's advantage.
        for index in order.permutation(len(contenders)):
            contender = contenders[index]
            if contender.name != "plain" or turn % PLAIN_EVERY == 0:
                contender.advance()
    for contender in contenders:
        if contender.name != "plain":
            contender.advance()
    return {contender.name: Times(*np.array(contender.seconds).T) for contender in contenders}


def bootstrap(over: np.ndarray, under: np.ndarray) -> tuple[float, float]:
    """95 % interval of mean(over) / mean(under), resampling the steps of each; both (steps,) float64."""
    rng = np.random.default_rng(SEED)
    means = [taken[rng.integers(0, len(taken), (2000, len(taken)))].mean(1) for taken in (over, under)]
    low, high = np.quantile(means[0] / means[1], (0.025, 0.975))
    return float(low), float(high)


def report_steps(bench: Bench, times: Mapping[str, Times]) -> bool:
    """Print the step times and their ratios. Returns whether every bar is met."""
    job = bench.job
    weights = sum(parameter.numel() for parameter in bench.module.parameters())
    print(
        f"bert, {weights:,} weights, {job.placement.precision.value}, {job.placement.threads} threads; "
        f"{len(job.train):,} reviews in batches of {job.trainer.batch_size}\n"
    )
    print(f"{'':10}{'ms a step':>12}{'quartiles':>18}{'examples/s':>14}{'n':>6}")
    seconds = {name: taken.clock for name, taken in times.items()}
    for name, taken in seconds.items():
        low, middle, high = np.quantile(taken * 1e3, (0.25, 0.5, 0.75))
        speed = job.trainer.batch_size / taken.mean()
        print(f"{name:10}{middle:12.1f}{f'{low:.1f}–{high:.1f}':>18}{speed:14.1f}{len(taken):6}")
    print()
    pairs = seconds["engine"] / seconds["by hand"]
    low, ratio, high = (float(value) for value in np.quantile(pairs, (0.25, 0.5, 0.75)))
    # Processor time says the same, with less of what else the machine did meanwhile.
    processor = float(np.median(times["engine"].processor / times["by hand"].processor))
    spread = f"quartiles {low:.3f}–{high:.3f}, of processor time {processor:.3f}"
    met = [verdict("step time, engine / by hand", ratio, spread, ratio <= STEP_BAR, f"≤ {STEP_BAR}")]
    for name, bar in (("plain", PLAIN_BAR), ("Trainer", TRAINER_BAR)):
        ratio = float(seconds[name].mean() / seconds["engine"].mean())
        low, high = bootstrap(seconds[name], seconds["engine"])
        met.append(
            verdict(f"examples/s, engine / {name}", ratio, f"95 % {low:.3f}–{high:.3f}", ratio >= bar, f"≥ {bar}")
        )
    return all(met)


def verdict(what: str, value: float, spread: str, holds: bool, bar: str) -> bool:
    """Print one line and give `holds` back."""
    print(f"{what:46}{value:8.3f}  {spread:50}bar {bar:8}{'met' if holds else 'MISSED'}")
    return holds


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
        met.append(verdict(f"{name}, user+system s", middle, spread, middle < bar and not heavy, f"< {bar}"))
        if heavy:
            print(f"{name} imports {' and '.join(heavy)}")
    return all(met)


def versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    for name in ("zoo-harness", "torch", "transformers", "numpy"):
        yield f"{name} {importlib.metadata.version(name)}"


def main() -> int:
    """Exit code: 0, or 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps: shows that everything runs, measures nothing")
    quick = parser.parse_args().quick
    # The Trainer and torch warn about each other's future; nothing of that is of use here.
    warnings.filterwarnings("ignore")
    known = devices.hardware()
    print(f"{', '.join(versions())}\n{known['cpu']}, {known['cores']} cores, {known['system']}", flush=True)
    bench = prepare(quick)
    met = report_steps(bench, race(bench))
    met = report_start_up(1 if quick else 5) and met
    if quick:
        print("\n--quick: too few steps to judge.")
        return 0
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
