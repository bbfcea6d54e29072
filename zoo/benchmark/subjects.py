"""What a measuring process does in its turns: a stored module beside its reference loop, or an opaque predictor."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.benchmark import restoring
from zoo.benchmark.timing import MIB, Memory, clock_rate, energy, give_back, seconds_of
from zoo.engine.flops import multiply_adds
from zoo.models import Tokens

if TYPE_CHECKING:
    import torch

LATENCY = 0.25  # seconds of a turn that go to calls with one example …
MOST_CALLS = 25  # … which are at most this many
PASS = 0.5  # seconds that one pass should take at most
SHORTEST_PASS = 0.02  # what takes less is repeated within its repetition: clocks and interrupts blur it
LEAST_EXAMPLES = 32
COUNTED = 32  # examples of which the multiply-adds are counted
WORSE = 2  # sizes in a row that are no better end the search


class Subject(ABC):
    """A model being measured. examples: how many it has at hand; device: where it computes."""

    examples: int
    device: torch.device

    def __init__(self) -> None:
        self.batch, self.passes, self.calls, self.rows = 2, 1, 1, np.arange(0)

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What is known of the model before anything is timed."""

    @abstractmethod
    def call(self, row: int) -> None:
        """Answer one example, as the harness does."""

    @abstractmethod
    def use(self, rows: np.ndarray, batch: int) -> None:
        """From now on a pass is over these examples, so many at once."""

    @abstractmethod
    def predict(self) -> None:
        """One pass, as the harness does it."""

    @abstractmethod
    def reference(self) -> tuple[Callable[[int], object], Callable[[], object]] | None:
        """The same two by hand: one example, one pass. None for a model that is no module."""

    @abstractmethod
    def lengths(self) -> np.ndarray | None:
        """(examples,) tokens of each; None when all have one shape."""

    @abstractmethod
    def keep_passes(self) -> None:
        """No call and no loop by hand comes any more: what is at hand for them alone may go."""

    def seconds(self, work: Callable[[], object]) -> float:
        """What the work takes on this device."""
        return seconds_of(work, self.device)


def spaced(lengths: np.ndarray | None, examples: int, count: int) -> np.ndarray:
    """`count` rows evenly spaced by length, (count,) int64: as long on average as all of them are."""
    order = np.arange(examples) if lengths is None else np.argsort(lengths, kind="stable")
    return np.sort(order[((np.arange(count) + 0.5) * examples / count).astype(np.int64)])


class Measuring:
    """The turns of a subject. memory: begun before the model was there."""

    def __init__(self, subject: Subject, memory: Memory) -> None:
        self.subject, self.memory = subject, memory

    def facts(self) -> dict[str, Any]:
        """What is known of the model before anything is timed."""
        return self.subject.facts()

    def search(self) -> dict[str, Any]:
        """Warm up, choose how much a turn does, and find the batch size with the best throughput."""
        subject = self.subject
        for row in range(min(3, subject.examples)):
            subject.call(row)
        once = min(subject.seconds(lambda: subject.call(0)) for _ in range(3))
        subject.calls = max(1, min(MOST_CALLS, int(LATENCY / once)))
        subject.rows = self._sample()
        tried, limit = self._try_sizes()
        subject.batch = max(tried, key=lambda size: tried[size])
        subject.use(subject.rows, subject.batch)
        one_pass = subject.seconds(subject.predict)
        subject.passes = max(1, min(50, math.ceil(SHORTEST_PASS / one_pass)))
        give_back(subject.device)
        return {
            "batch": subject.batch,
            "tried": {str(size): rate for size, rate in tried.items()},
            "limit": limit,
            "examples": len(subject.rows),
            "calls": subject.calls,
            "passes": subject.passes,
        }

    def adopt(self, search: dict[str, Any]) -> dict[str, Any]:
        """Do in a turn what another process does, instead of searching. search: its answer."""
        subject = self.subject
        subject.calls, subject.passes = search["calls"], search["passes"]
        subject.rows = spaced(subject.lengths(), subject.examples, search["examples"])
        subject.use(subject.rows, search["batch"])
        for row in range(min(3, subject.examples)):
            subject.call(row)
        subject.predict()
        return search

    def _sample(self) -> np.ndarray:
        """As many examples as a pass can predict in its time: a power of two, or all."""
        subject = self.subject
        few = spaced(subject.lengths(), subject.examples, min(16, subject.examples))
        subject.use(few, 8)
        subject.predict()
        return self._enough(len(few) / subject.seconds(subject.predict))

    def _enough(self, rate: float) -> np.ndarray:
        """The rows of a pass at so many examples a second."""
        wanted = max(LEAST_EXAMPLES, 2 ** int(math.log2(max(1.0, rate * PASS))))
        return spaced(self.subject.lengths(), self.subject.examples, min(wanted, self.subject.examples))

    def _try_sizes(self) -> tuple[dict[int, float], str]:
        """Batch size -> examples a second, and why no larger one was tried."""
        from zoo.engine.evaluation import is_out_of_memory

        subject = self.subject
        tried: dict[int, float] = {}
        size, worse = 2, 0
        while True:
            if size > len(subject.rows):
                # A pass was measured with small batches: where large ones are far faster, it takes more examples.
                more = self._enough(max(tried.values(), default=0.0))
                if size > len(more):
                    break
                subject.rows = more
            try:
                subject.use(subject.rows, size)
                subject.predict()
                taken = min(subject.seconds(subject.predict) for _ in range(2))
            except (RuntimeError, MemoryError) as error:
                if not tried or not (is_out_of_memory(error) or "memory" in str(error).lower()):
                    raise
                return tried, f"memory ended at {size}"
            worse = worse + 1 if tried and len(subject.rows) / taken <= max(tried.values()) else 0
            tried[size] = len(subject.rows) / taken
            if worse == WORSE:
                return tried, f"the last {WORSE} were no better"
            size *= 2
        if not tried:  # fewer than two examples
            tried[1] = subject.examples / subject.seconds(subject.predict)
        return tried, f"a pass has {len(subject.rows)} examples"

    def turn(self, number: int) -> dict[str, Any]:
        """Seconds of single calls and of a pass: through the harness, and by hand in the same turn."""
        subject, reference = self.subject, self.subject.reference()
        rows = [(number * subject.calls + at) % subject.examples for at in range(subject.calls)]
        subject.call(rows[0])  # the caches are another process's after its turn
        ours, theirs = [], []
        for at, row in enumerate(rows):
            # Who comes second finds the example in the cache: so each is it every second time.
            for hand in ((at + number) % 2, (at + number + 1) % 2):
                if not hand:
                    ours.append(subject.seconds(lambda row=row: subject.call(row)))  # type: ignore[misc]
                elif reference:
                    theirs.append(subject.seconds(lambda row=row: reference[0](row)))  # type: ignore[misc]
        passes: dict[str, float] = {}
        for hand in (number % 2, (number + 1) % 2):
            if not hand:
                passes["pass"] = self._repeated(subject.predict)
            elif reference:
                passes["pass_reference"] = self._repeated(reference[1])
        told = {"calls": ours, **passes, "examples": len(subject.rows), "clock": clock_rate(subject.device)}
        return told | ({"calls_reference": theirs} if reference else {})

    def _repeated(self, work: Callable[[], object]) -> float:
        """Seconds of one pass, the mean over as many as one repetition has."""
        passes = self.subject.passes
        return self.subject.seconds(lambda: [work() for _ in range(passes)]) / passes

    def close(self) -> dict[str, Any]:
        """What is not timed against others: memory of a pass, energy."""
        subject = self.subject
        subject.keep_passes()
        cuda = subject.device.type == "cuda"
        if cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(subject.device)
        self.memory.restart()
        subject.predict()
        told: dict[str, Any] = {"memory": self.memory.peak()}
        if cuda:
            told["device_memory"] = torch.cuda.max_memory_allocated(subject.device) / MIB

        def work() -> int:
            subject.predict()
            return len(subject.rows)

        return told | {"energy": energy(work, subject.device)}


class Module(Subject):
    """A module through `zoo.engine.evaluation`, as every run is evaluated; the reference is the shortest loop."""

    def __init__(self, stored: restoring.Stored, job: dict[str, Any], memory: Memory) -> None:
        from zoo.config import Compile
        from zoo.engine import compiling
        from zoo.engine.batches import Batches

        super().__init__()
        self.device = restoring.place(job)
        self._stored, self._bf16 = stored, job["precision"] == "bf16"
        self._restored = restored = restoring.module_of(stored, self.device, memory)
        self._eager = restored.module
        self._module = compiling.compiled(self._eager, Compile(job["compile"]))
        self.examples, self._classes = len(stored.rows), len(stored.splits.classes)
        self._singles = [self._batches([row]) for row in range(self.examples)]
        self._inputs = [single.take(np.arange(1)).inputs for single in self._singles]
        self._sample: Batches = self._batches(range(self.examples))
        self._prepared: list[tuple[torch.Tensor, ...]] = []

    def _batches(self, rows: Sequence[int] | np.ndarray | range) -> Any:
        from zoo.engine.batches import Batches

        restored, chosen = self._restored, np.asarray(rows, dtype=np.int64)
        encoded = restoring.take(restored.encoded, chosen)
        return Batches(encoded, restored.labels[chosen], restored.spec, self.device)

    def facts(self) -> dict[str, Any]:
        """Weights, multiply-adds, length, and whether it says what its run said."""
        from zoo.engine import evaluation

        answers = evaluation.logits(self._eager, self._sample, 32, self._classes).argmax(1)
        some = spaced(self.lengths(), self.examples, min(COUNTED, self.examples))
        adds = multiply_adds(self._eager, [self._inputs[row] for row in some])
        lengths = self.lengths()
        return {
            "kind": "torch",
            "restored": "weights",
            "precision": "bf16" if self._bf16 else "fp32",
            "parameters": sum(weight.numel() for weight in self._eager.parameters()),
            "multiply_adds": adds,
            "lengths": None if lengths is None else lengths.tolist(),
            "shape": [] if lengths is not None else list(self._restored.spec.shape),
            "answers": restoring.same_answers(self._stored, answers),
        }

    def lengths(self) -> np.ndarray | None:
        """(examples,) tokens of each; None when all have one shape."""
        encoded = self._restored.encoded
        return np.diff(encoded.offsets) if isinstance(encoded, Tokens) else None

    def call(self, row: int) -> None:
        """One example through the harness."""
        from zoo.engine import evaluation

        with self._autocast():
            evaluation.logits(self._module, self._singles[row], 1, self._classes)

    def use(self, rows: np.ndarray, batch: int) -> None:
        """The same batches for both: `logits` takes twice its batch size at once."""
        from zoo.engine.batches import plan_evaluation

        self._sample, self.batch = self._batches(rows), batch
        plan = plan_evaluation(self._sample.lengths, len(rows), 2 * max(1, batch // 2))
        self._prepared = [self._sample.take(chosen).inputs for chosen in plan]

    def predict(self) -> None:
        """A pass through the harness."""
        from zoo.engine import evaluation

        with self._autocast():
            evaluation.logits(self._module, self._sample, max(1, self.batch // 2), self._classes)

    def keep_passes(self) -> None:
        """Otherwise the batches of single examples would count as memory of the model."""
        self._singles, self._inputs, self._prepared = [], [], []

    def reference(self) -> tuple[Callable[[int], object], Callable[[], object]]:
        """The shortest loops there are, over batches that lie on the device already."""
        return self._call_by_hand, self._predict_by_hand

    def _call_by_hand(self, row: int) -> object:
        import torch

        with torch.inference_mode(), self._autocast():
            return self._module(*self._inputs[row]).float().cpu()

    def _predict_by_hand(self) -> object:
        import torch

        with torch.inference_mode(), self._autocast():
            # A copy of each: the next call of a CUDA graph overwrites what the last one gave.
            answers = [self._module(*inputs).to(torch.float32, copy=True) for inputs in self._prepared]
            return torch.cat(answers).cpu()

    def _autocast(self) -> Any:
        from zoo.config import Precision
        from zoo.engine import devices

        return devices.autocast(self.device, Precision.bf16 if self._bf16 else Precision.fp32)


class Opaque(Subject):
    """A predictor, asked as it is."""

    def __init__(self, stored: restoring.Stored, job: dict[str, Any], memory: Memory) -> None:
        import torch

        super().__init__()
        restoring.place({**job, "device": "cpu"})
        self.device = torch.device("cpu")
        memory.begin()
        self._stored, self._model = stored, restoring.fit_again(stored)
        self.examples = len(stored.rows)
        self._all = restoring.examples_of(stored, stored.rows)
        self._chunks: list[Any] = []

    def facts(self) -> dict[str, Any]:
        """Weights, and whether it says what its run said; what it computes within is its own affair."""
        answers = self._model.predict_proba(self._all).argmax(1)
        images = isinstance(self._all, np.ndarray)
        return {
            "kind": "predictor",
            "restored": "refitted",
            "precision": "own",
            "parameters": sum(int(np.size(array)) for array in self._model.weights().values()),
            "multiply_adds": [],
            "lengths": None,
            "shape": list(self._all.shape[1:]) if images else [],
            "answers": restoring.same_answers(self._stored, answers),
        }

    def lengths(self) -> np.ndarray | None:
        """None for images; of texts the characters, by which they are spaced."""
        return None if isinstance(self._all, np.ndarray) else np.array([len(text) for text in self._all])

    def call(self, row: int) -> None:
        """One example."""
        self._model.predict_proba(self._all[row : row + 1])

    def use(self, rows: np.ndarray, batch: int) -> None:
        """Its examples in chunks, in their order: what an opaque model does with lengths is not known."""
        self.batch = batch
        starts = range(0, len(rows), batch)
        self._chunks = [restoring.examples_of(self._stored, self._stored.rows[rows[at : at + batch]]) for at in starts]

    def predict(self) -> None:
        """A pass, chunk by chunk."""
        for chunk in self._chunks:
            self._model.predict_proba(chunk)

    def keep_passes(self) -> None:
        """Nothing is at hand for calls alone."""

    def reference(self) -> None:
        """There is no loop under it that one could write by hand."""
