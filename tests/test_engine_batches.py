"""Batches: what is in them, how little of it is padding, and that streamed ones are the resident ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.engine.batches import PAD_TO, Batch, Batches, plan_epoch, plan_evaluation

CPU = torch.device("cpu")
ELSEWHERE = torch.device("meta")  # shapes without values: any device but the CPU, where none is needed
PAD = 7

lengths_of_examples = st.lists(st.integers(1, 40), min_size=1, max_size=300).map(
    lambda found: np.array(found, np.int64)
)


def tokens(lengths: np.ndarray, seed: int = 0) -> zoo.Tokens:
    rng = np.random.default_rng(seed)
    return zoo.Tokens.pack([rng.integers(10, 1000, length).tolist() for length in lengths])


def text_batches(
    lengths: np.ndarray, max_length: int = 40, resident_mib: int = 64, device: torch.device = CPU
) -> Batches:
    spec = zoo.InputSpec("tokens", (max_length,), vocab_size=1000, pad_id=PAD)
    return Batches(tokens(lengths), np.arange(len(lengths)), spec, device, resident_mib)


def image_batches(values: np.ndarray, resident_mib: int = 64, **normalisation: tuple[float, ...]) -> Batches:
    spec = zoo.InputSpec("dense", values.shape[1:], **normalisation)  # type: ignore[arg-type]
    return Batches(zoo.Dense(values), np.arange(len(values)), spec, CPU, resident_mib)


def alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "zoo-batches"]


def assert_same(one: Batch, other: Batch) -> None:
    assert len(one.inputs) == len(other.inputs)
    for left, right in zip((*one.inputs, one.labels), (*other.inputs, other.labels), strict=True):
        assert left.dtype == right.dtype
        torch.testing.assert_close(left, right, rtol=0, atol=0)
    np.testing.assert_array_equal(one.rows, other.rows)


@given(lengths_of_examples, st.booleans(), st.integers(1, 64), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_every_row_once_in_batches_of_the_wanted_size(
    lengths: np.ndarray, grouped: bool, batch_size: int, seed: int
) -> None:
    plan = plan_epoch(lengths if grouped else None, len(lengths), batch_size, np.random.default_rng(seed))
    assert sorted(np.concatenate(plan)) == list(range(len(lengths)))
    sizes = sorted((len(rows) for rows in plan), reverse=True)
    alone = len(lengths) > batch_size > 2 and len(lengths) % batch_size == 1
    assert set(sizes[: -2 if alone else -1]) <= {batch_size}
    assert len(plan) == -(-len(lengths) // batch_size)
    assert not alone or sizes[-2:] == [batch_size - 1, 2], "batch norm cannot learn from a single example"


@given(lengths_of_examples, st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_an_evaluation_has_every_row_once_and_the_longest_first(lengths: np.ndarray, batch_size: int) -> None:
    plan = plan_evaluation(lengths, len(lengths), batch_size)
    assert sorted(np.concatenate(plan)) == list(range(len(lengths)))
    assert (np.diff(lengths[np.concatenate(plan)]) <= 0).all()


@pytest.mark.parametrize("grouped", [True, False])
def test_the_order_is_random_and_follows_from_the_seed(grouped: bool) -> None:
    lengths = np.random.default_rng(1).integers(1, 60, 3000) if grouped else None

    def order(seed: int) -> list[int]:
        return list(np.concatenate(plan_epoch(lengths, 3000, 32, np.random.default_rng(seed))))

    assert order(0) == order(0)
    assert order(0) != order(1)
    rng = np.random.default_rng(0)
    assert list(np.concatenate(plan_epoch(lengths, 3000, 32, rng))) == order(0)
    assert list(np.concatenate(plan_epoch(lengths, 3000, 32, rng))) != order(0), "the second epoch repeats the first"


def test_grouped_batches_do_not_come_by_length() -> None:
    lengths = np.random.default_rng(1).integers(1, 60, 3200)
    plan = plan_epoch(lengths, len(lengths), 32, np.random.default_rng(0))
    means = np.array([lengths[rows].mean() for rows in plan])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3
    assert means.std() > 10


def test_little_of_a_grouped_batch_is_padding_and_much_of_a_random_one() -> None:
    lengths = np.random.default_rng(2).integers(5, 60, 6400)
    batches = text_batches(lengths, max_length=64)

    def padded(plan: list[np.ndarray]) -> float:
        cells = sum(batch.inputs[0].numel() for batch in batches.follow(plan))
        return cells / lengths.sum() - 1

    rng = np.random.default_rng(0)
    assert padded(plan_epoch(lengths, len(lengths), 32, rng)) < 0.03
    assert padded(plan_epoch(None, len(lengths), 32, rng)) > 0.7


@given(lengths_of_examples, st.integers(1, 40), st.booleans())
@settings(max_examples=60, deadline=None)
def test_tokens_come_padded_to_the_longest_of_the_batch(lengths: np.ndarray, longest: int, resident: bool) -> None:
    lengths = np.minimum(lengths, longest)
    batches = text_batches(lengths, max_length=longest, resident_mib=64 if resident else 0)
    packed = tokens(lengths)
    for batch in batches.follow(plan_epoch(lengths, len(lengths), 16, np.random.default_rng(0))):
        ids, mask = batch.inputs
        width = ids.shape[1]
        assert ids.shape == mask.shape
        assert (ids.dtype, mask.dtype, batch.labels.dtype) == (torch.int64, torch.bool, torch.int64)
        assert width == lengths[batch.rows].max()
        for row, number in enumerate(batch.rows):
            start, stop = packed.offsets[number : number + 2]
            assert ids[row, : stop - start].tolist() == packed.ids[start:stop].tolist()
            assert set(ids[row, stop - start :].tolist()) <= {PAD}
            assert mask[row].tolist() == [at < stop - start for at in range(width)]
        assert batch.labels.tolist() == batch.rows.tolist()


@given(lengths_of_examples, st.integers(1, 40), st.booleans())
@settings(max_examples=25, deadline=None)
def test_accelerators_get_multiples_of_eight_within_the_limit(
    lengths: np.ndarray, longest: int, resident: bool
) -> None:
    lengths = np.minimum(lengths, longest)
    batches = text_batches(lengths, longest, 64 if resident else 0, ELSEWHERE)
    for batch in batches.follow(plan_epoch(lengths, len(lengths), 16, np.random.default_rng(0))):
        ids, mask = batch.inputs
        width, needed = ids.shape[1], lengths[batch.rows].max()
        assert mask.shape == ids.shape
        assert needed <= width < needed + PAD_TO
        assert width <= longest
        assert width % PAD_TO == 0 or width == longest


@pytest.mark.parametrize("kind", ["text", "uint8", "float32"])
def test_streamed_batches_are_the_resident_ones(kind: str) -> None:
    rng = np.random.default_rng(3)
    if kind == "text":
        lengths = rng.integers(1, 30, 100)
        resident, streamed = (text_batches(lengths, 30, mib) for mib in (64, 0))
    else:
        values = rng.integers(0, 256, (100, 3, 4, 4)).astype(kind)
        stated = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)} if kind == "uint8" else {}
        resident, streamed = (image_batches(values, mib, **stated) for mib in (64, 0))
    assert (resident.resident, streamed.resident) == (True, False)
    plan = plan_epoch(resident.lengths, 100, 16, rng)
    pairs = list(zip(resident.follow(plan), streamed.follow(plan), strict=True))
    assert len(pairs) == 7
    for one, other in pairs:
        assert_same(one, other)
        assert_same(one, streamed.take(one.rows))
    assert not alive()


@pytest.mark.parametrize("resident_mib", [64, 0])
def test_normalisation_is_the_formula_of_the_spec(resident_mib: int) -> None:
    values = np.random.default_rng(4).integers(0, 256, (9, 3, 5, 4)).astype(np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    batch = image_batches(values, resident_mib, mean=mean, std=std).take(np.array([8, 0, 3]))
    channels = (1, 3, 1, 1)
    want = (values[[8, 0, 3]] / 255 - np.reshape(mean, channels)) / np.reshape(std, channels)
    (inputs,) = batch.inputs
    assert inputs.dtype == torch.float32
    np.testing.assert_allclose(inputs.numpy(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("resident_mib", [64, 0])
def test_what_is_kept_is_not_changed_by_what_is_given_out(resident_mib: int) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    values.setflags(write=False)  # as it comes out of the cache
    batches = image_batches(values, resident_mib)
    batches.take(np.array([0, 1])).inputs[0].zero_()
    np.testing.assert_array_equal(batches.take(np.array([0, 1])).inputs[0].numpy(), values[:2])


def test_read_only_labels_are_taken() -> None:
    labels = np.array([1, 0, 2])
    labels.setflags(write=False)
    batches = Batches(zoo.Dense(np.zeros((3, 2), np.float32)), labels, zoo.InputSpec("dense", (2,)), CPU)
    assert batches.take(np.array([2, 0])).labels.tolist() == [2, 1]


def test_as_many_labels_as_examples_are_wanted() -> None:
    with pytest.raises(ValueError, match="3 encoded examples and 2 labels"):
        Batches(zoo.Dense(np.zeros((3, 2), np.float32)), np.zeros(2, np.int64), zoo.InputSpec("dense", (2,)), CPU)


def test_iterating_gives_every_example_in_order() -> None:
    rows = np.concatenate([batch.rows for batch in image_batches(np.zeros((300, 2), np.float32))])
    assert rows.tolist() == list(range(300))


def test_a_part_of_a_batch_is_a_view_of_it() -> None:
    batch = text_batches(np.array([3, 9, 2, 5])).take(np.arange(4))
    part = batch.part(1, 3)
    assert (len(part), part.rows.tolist(), part.labels.tolist()) == (2, [1, 2], [1, 2])
    assert part.inputs[0].data_ptr() == batch.inputs[0][1:].data_ptr()


def test_the_thread_ends_when_its_batches_are_not_wanted_any_more() -> None:
    batches = image_batches(np.zeros((1000, 2), np.float32), resident_mib=0)
    following = batches.follow(plan_evaluation(None, 1000, 10))
    next(following)
    assert len(alive()) == 1
    following.close()
    assert not alive()


def test_the_thread_is_only_a_little_ahead() -> None:
    asked: list[int] = []

    class Watched(np.ndarray):
        def __getitem__(self, rows: object) -> object:
            asked.append(len(asked))
            return super().__getitem__(rows)  # type: ignore[index]

    batches = image_batches(np.zeros((1000, 2), np.float32).view(Watched), resident_mib=0)
    asked.clear()
    following = batches.follow(plan_evaluation(None, 1000, 10))
    for _ in range(5):
        next(following)
    following.close()
    assert 5 <= len(asked) <= 5 + 4, "two wait in the queue, one waits for room, one may be in the making"


def test_an_error_in_the_thread_is_raised_where_the_batch_was_wanted() -> None:
    batches = image_batches(np.zeros((10, 2), np.float32), resident_mib=0)
    following = batches.follow([np.array([0, 1]), np.array([10])])
    assert next(following).rows.tolist() == [0, 1]
    with pytest.raises(IndexError, match="10"):
        next(following)
    assert not alive()


class Streams:
    """Stand-ins for CUDA's streams that note what is asked of them. current: by thread, as in torch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.noted: list[tuple[str, str]] = []
        self.current = threading.local()
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(self, "aside"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(self, "main"))
        monkeypatch.setattr(torch.cuda, "stream", self.entered)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: self.note("keeps", stream.name))

    def note(self, what: str, name: str) -> None:
        self.noted.append((what, name))

    @contextlib.contextmanager
    def entered(self, stream: Stream) -> Iterator[None]:
        self.current.name = stream.name
        yield
        self.current.name = "main"


class Stream:
    def __init__(self, streams: Streams, name: str) -> None:
        self.streams, self.name = streams, name

    def wait_stream(self, other: Stream) -> None:
        self.streams.note("waits", f"{self.name} for {other.name}")

    def record_event(self) -> str:
        return "there"

    def wait_event(self, event: str) -> None:
        self.streams.note("waits", f"{self.name} for {event}")


def test_on_cuda_batches_are_copied_on_a_stream_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = image_batches(np.arange(20, dtype=np.float32).reshape(10, 2), resident_mib=0)
    streams, fetch, fetched_on = Streams(monkeypatch), batches._fetch, []

    def fetching(rows: np.ndarray) -> Batch:
        fetched_on.append(streams.current.name)
        return fetch(rows)

    monkeypatch.setattr(batches, "_fetch", fetching)
    plan = plan_evaluation(None, 10, 4)
    found = list(batches._beside(plan))
    for one, rows in zip(found, plan, strict=True):
        assert_same(one, batches.take(rows) if batches.resident else fetch(rows))
    assert fetched_on == ["aside"] * 3
    each = [("waits", "main for there"), ("keeps", "main"), ("keeps", "main")]
    assert streams.noted == [("waits", "aside for main"), *each * 3]
    assert not alive()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["text", "image"])
def test_streamed_batches_are_the_resident_ones_on_cuda(kind: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    rng, device = np.random.default_rng(3), torch.device("cuda")
    if kind == "text":
        lengths = rng.integers(1, 30, 500)
        resident, streamed = (text_batches(lengths, 30, mib, device) for mib in (64, 0))
    else:
        values, spec = rng.integers(0, 256, (500, 3, 4, 4)).astype(np.uint8), zoo.InputSpec("dense", (3, 4, 4))
        resident, streamed = (Batches(zoo.Dense(values), np.arange(500), spec, device, mib) for mib in (64, 0))
    plan = plan_epoch(resident.lengths, 500, 16, rng)
    for one, other in zip(resident.follow(plan), streamed.follow(plan), strict=True):
        torch.cuda._sleep(10**6)  # the arithmetic is behind, and the copies may not overtake it
        assert_same(one, other)
