"""Batches from encoded examples: grouped by length, padded to a multiple of eight or to the longest, resident or
streamed."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from zoo.models import Dense, InputSpec, Tokens

if TYPE_CHECKING:
    from zoo.models import Encoded

Item = TypeVar("Item")

PAD_TO = 8  # lengths that are no multiple of eight keep an accelerator from its fastest kernels …
CPU_PAD_TO = 1  # … while a CPU takes time by the token, and rounding up adds an eighth to texts of thirty tokens
CHUNK = 100  # batches sorted by length together: long enough to group well, short enough to keep the order random


@dataclass(frozen=True)
class Batch:
    """What one call of the module gets. inputs: its positional arguments; labels: (batch,) int64; rows: (batch,)."""

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> Batch:
        """A slice of the batch, as views."""
        inputs = tuple(tensor[start:stop] for tensor in self.inputs)
        return Batch(inputs, self.labels[start:stop], self.rows[start:stop])


def plan_epoch(
    lengths: np.ndarray | None, examples: int, batch_size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Row numbers of each batch of one epoch, every row once, in random order.

    With lengths, (examples,) int64, examples of like length share a batch and so little is padded.
    """
    order = rng.permutation(examples)
    if lengths is not None:
        span = batch_size * CHUNK
        chunks = [order[start : start + span] for start in range(0, examples, span)]
        order = np.concatenate([chunk[np.argsort(lengths[chunk], kind="stable")] for chunk in chunks])
    starts = list(range(0, examples, batch_size))
    if len(starts) > 1 and starts[-1] == examples - 1 and batch_size > 2:
        starts[-1] -= 1  # batch norm cannot learn from a single example
    batches = np.split(order, starts[1:])
    if lengths is not None:
        rng.shuffle(batches)
    return batches


def plan_evaluation(lengths: np.ndarray | None, examples: int, batch_size: int) -> list[np.ndarray]:
    """Row numbers of each batch of an evaluation, every row once, longest first (memory runs out at once or never)."""
    order = np.arange(examples) if lengths is None else np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, examples, batch_size)]


class Batches:
    """Encoded examples, ready to be asked for batches.

    Up to `resident_mib` they are kept as tensors on the device and a batch is one gather there; larger ones stay on
    the disk or in main memory and are fetched by a thread, two batches ahead.
    """

    def __init__(
        self, encoded: Encoded, labels: np.ndarray, spec: InputSpec, device: torch.device, resident_mib: int = 2048
    ) -> None:
        if len(encoded) != len(labels):
            raise ValueError(f"{len(encoded)} encoded examples and {len(labels)} labels")
        self.spec = spec
        self.device = device
        self.labels = torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
        self.lengths = np.diff(encoded.offsets) if isinstance(encoded, Tokens) else None
        self.resident_mib = resident_mib
        self._pad_to = CPU_PAD_TO if device.type == "cpu" else PAD_TO
        self._encoded = encoded
        self._scale, self._shift = _normalisation(spec, device)
        self._rows = torch.arange(len(encoded), device=device)
        self.resident = self._resident_bytes() <= resident_mib * 2**20
        if self.resident:
            self._values, self._lengths = self._place()

    def recoded(self, values: Dense) -> Batches:
        """The same examples as other values, (examples, *shape) float32. They keep their lengths, and so a plan groups
        them as before: what is learned from them in its order is what is learned from the examples themselves."""
        spec = InputSpec("dense", values.values.shape[1:])
        made = Batches(values, self.labels.cpu().numpy(), spec, self.device, self.resident_mib)
        made.lengths = self.lengths
        return made

    def __len__(self) -> int:
        return len(self._encoded)

    def __iter__(self) -> Iterator[Batch]:
        """Every example once, in order of rows, for callers that want no plan."""
        return self.follow(plan_evaluation(None, len(self), 256))

    def follow(self, plan: Sequence[np.ndarray]) -> Generator[Batch, None, None]:
        """The batches of a plan, in its order. Close it when it is not followed to the end: a thread may be behind."""
        if self.resident:
            return (self.take(rows) for rows in plan)
        if self.device.type == "cuda":
            return self._beside(plan)
        return _ahead(self._fetch(rows) for rows in plan)

    def take(self, rows: np.ndarray) -> Batch:
        """One batch of the given rows, (batch,) int64."""
        if not self.resident:
            return self._fetch(rows)
        index = sent(rows, self.device)
        if isinstance(self._encoded, Dense):
            return Batch((self._finish(self._values[index]),), self.labels[index], rows)
        width = self._width(rows)
        ids = self._values[:, :width].index_select(0, index).long()
        mask = torch.arange(width, device=self.device) < self._lengths[index, None]
        return Batch((ids, mask), self.labels[index], rows)

    def _resident_bytes(self) -> int:
        if isinstance(self._encoded, Tokens):
            return len(self) * self._width(np.arange(len(self))) * 4
        return self._encoded.values.nbytes

    def _place(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Everything on the device: padded ids and lengths, or dense values."""
        if isinstance(self._encoded, Tokens):
            ids, lengths = self._pad(np.arange(len(self)))
            return torch.from_numpy(ids).to(self.device), torch.from_numpy(lengths).to(self.device)
        # A map of a file is copied; an array that is in memory already is not held twice.
        values = torch.from_numpy(np.require(self._encoded.values, requirements=("C", "W")))
        return values.to(self.device), torch.empty(0, device=self.device)

    def _pad(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ids (rows, width) int32 padded with `pad_id`, and lengths (rows,) int64."""
        assert isinstance(self._encoded, Tokens)
        assert self.lengths is not None
        lengths, width = self.lengths[rows], self._width(rows)
        present = np.arange(width) < lengths[:, None]
        ids = np.full((len(rows), width), self.spec.pad_id, dtype=np.int32)
        starts = self._encoded.offsets[rows]
        ids[present] = self._encoded.ids[(starts[:, None] + np.arange(width))[present]]
        return ids, lengths

    def _fetch(self, rows: np.ndarray) -> Batch:
        """One batch of data that is not resident, on its way to the device."""
        labels = self.labels[sent(rows, self.device)]
        if isinstance(self._encoded, Dense):
            values = sent(np.ascontiguousarray(self._encoded.values[rows]), self.device)
            return Batch((self._finish(values),), labels, rows)
        ids, lengths = self._pad(rows)
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        return Batch((sent(ids, self.device).long(), sent(mask, self.device)), labels, rows)

    def _beside(self, plan: Sequence[np.ndarray]) -> Generator[Batch, None, None]:
        """The batches of a plan, copied to the device on a stream of their own: on the main one, a copy would wait for
        all the arithmetic that is queued before it."""
        aside = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(self.device))  # which may be placing the labels still

        def copied(rows: np.ndarray) -> tuple[Batch, torch.cuda.Event]:
            with torch.cuda.stream(aside):
                return self._fetch(rows), aside.record_event()

        with contextlib.closing(_ahead(copied(rows) for rows in plan)) as coming:
            for batch, there in coming:
                main = torch.cuda.current_stream(self.device)
                main.wait_event(there)
                for tensor in (*batch.inputs, batch.labels):
                    tensor.record_stream(main)  # or its memory might be given out before the main stream has read it
                yield batch

    def _finish(self, values: torch.Tensor) -> torch.Tensor:
        values = values.float()
        return values if self._scale is None else values.mul_(self._scale).add_(self._shift)

    def _width(self, rows: np.ndarray) -> int:
        """Tokens to which texts of these rows are padded: never more than `max_length`, where positions may end."""
        assert self.lengths is not None
        longest = int(self.lengths[rows].max())
        return max(longest, min(-(-longest // self._pad_to) * self._pad_to, self.spec.shape[0]))


def sent(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array on a device. To CUDA it goes from pinned memory, so that nobody waits until it is there."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _normalisation(spec: InputSpec, device: torch.device) -> tuple[torch.Tensor | None, torch.Tensor]:
    """(value / 255 - mean) / std as one multiplication and one addition a channel."""
    if spec.mean is None or spec.std is None:
        return None, torch.empty(0)
    mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in (spec.mean, spec.std))
    shape = (-1, *[1] * (len(spec.shape) - 1))
    scale, shift = 1 / (255 * std), -mean / std
    return scale.float().reshape(shape).to(device), shift.float().reshape(shape).to(device)


def _ahead(batches: Iterator[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same batches, made by a thread that is `depth` ahead. An error in the thread is raised here."""
    made: queue.Queue[Item | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Item | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(None)
        except BaseException as error:
            put(error)

    worker = threading.Thread(target=work, daemon=True, name="zoo-batches")
    worker.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        worker.join()
