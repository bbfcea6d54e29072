"""zoo.load on datasets made here: checks, hashes, duplicates across splits, and the cut in three."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.data.loading import Cut, assign, content_ids, distinct, split_three

CLASSES = ["negative", "positive"]


@dataclass
class Given(zoo.Dataset):
    """Whatever it is given."""

    data: Any = None

    name: ClassVar[str] = "given"
    modality: ClassVar[zoo.Modality] = "text"

    def read(self) -> zoo.Data:
        return self.data


@dataclass
class GivenImages(Given):
    name: ClassVar[str] = "pictures"
    modality: ClassVar[zoo.Modality] = "image"


@dataclass
class Sounds(Given):
    modality: ClassVar[Any] = "imag"


def texts(prefix: str, count: int) -> zoo.Labelled:
    return zoo.Labelled([f"{prefix} {i}" for i in range(count)], [i % 2 for i in range(count)])


def data(**parts: Any) -> zoo.Data:
    return zoo.Data(
        **{"classes": CLASSES, "train": texts("a", 40), "validation": texts("b", 6), "test": texts("c", 10)} | parts
    )


def message(given: Any, dataset: type[Given] = Given, error: type[Exception] = zoo.DataError) -> str:
    with pytest.raises(error) as caught:
        zoo.load(dataset(given))
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 4
    return text


def images(count: int, seed: int = 0, shape: tuple[int, ...] = (4, 5, 1)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_a_clean_dataset_comes_through_as_it_was_given():
    splits = zoo.load(Given(data()))
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [40, 6, 10]
    assert splits.classes == ("negative", "positive")
    assert splits.train.examples[3] == "a 3"
    assert splits.train.labels.dtype == np.int64
    assert splits.train.labels.tolist()[:4] == [0, 1, 0, 1]
    assert (splits.notes, dict(splits.dropped)) == ((), {"train": 0, "validation": 0})


def test_an_id_is_the_hash_of_the_content_and_a_repeat_gets_a_suffix():
    test = zoo.Labelled(["gut", "böse", "gut", "gut"], [1, 0, 1, 1])
    ids = zoo.load(Given(data(test=test))).test.ids
    gut, boese = (hashlib.sha256(text.encode()).hexdigest()[:16] for text in ("gut", "böse"))
    assert ids == (gut, boese, f"{gut}-1", f"{gut}-2")


def test_images_of_the_same_bytes_and_another_shape_are_other_images():
    flat = np.arange(24, dtype=np.uint8)
    wide, high = flat.reshape(1, 4, 6, 1), flat.reshape(1, 6, 4, 1)
    assert content_ids(wide) != content_ids(high)
    assert content_ids(wide) == content_ids(np.asfortranarray(wide))


def test_the_fingerprint_follows_content_labels_order_and_class_names():
    same = zoo.load(Given(data())).fingerprint
    assert zoo.load(Given(data())).fingerprint == same
    others = [
        data(test=zoo.Labelled([f"c {i}" for i in range(9)] + ["c x"], [i % 2 for i in range(10)])),
        data(test=zoo.Labelled([f"c {i}" for i in range(10)], [(i + 1) % 2 for i in range(10)])),
        data(test=zoo.Labelled([f"c {i}" for i in reversed(range(10))], [i % 2 for i in range(10)])),
        data(classes=["bad", "good"]),
    ]
    assert len({same, *(zoo.load(Given(other)).fingerprint for other in others)}) == 5


def test_duplicates_across_splits_are_dropped_from_training_and_counted():
    train = zoo.Labelled([f"a {i}" for i in range(36)] + ["b 0", "b 1", "c 0", "c 0"], [i % 2 for i in range(40)])
    validation = zoo.Labelled([f"b {i}" for i in range(6)] + ["c 5"], [0, 1, 0, 1, 0, 1, 1])
    splits = zoo.load(Given(data(train=train, validation=validation)))
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [36, 6, 10]
    assert dict(splits.dropped) == {"train": 4, "validation": 1}
    assert splits.notes == (
        "1 text stands under more than one label: 3 of the 57 examples.",
        "1 validation example was dropped: it also stands in test.",
        "4 training examples were dropped: they also stand in validation or test.",
    )


def test_duplicates_within_a_split_and_contents_under_several_labels_are_noted_with_both_counts():
    test = zoo.Labelled([f"c {i // 2}" for i in range(20)], [i // 2 % 2 for i in range(20)])
    (note,) = zoo.load(Given(data(test=test))).notes
    assert note.startswith(
        "Exact duplicates of others in their split: 10 of 20 in test. Intervals take every test exam"
    )
    test = zoo.Labelled([f"c {i // 2}" for i in range(20)], [i % 2 for i in range(20)])
    notes = zoo.load(Given(data(test=test))).notes
    assert notes[0] == "10 texts stand under more than one label: 20 of the 66 examples."
    assert len(notes) == 2


@pytest.mark.parametrize("classes", [2, 3])
def test_the_advice_for_a_class_that_a_split_lacks_can_be_followed(classes):
    names = ["a", "b", "c"][:classes]

    def split(name: str, size: int, present: int) -> zoo.Labelled:
        return zoo.Labelled([f"{name} {i}" for i in range(size)], [i % present for i in range(size)])

    parts = [split("train", 30, classes), split("test", 10, classes - 1), split("validation", 9, classes)]
    text = message(zoo.Data(names, *parts))
    assert f"no example of '{names[-1]}'" in text
    assert ("leave the class out" in text) is (classes > 2), "of two classes one would remain"
    assert "give all examples\nas one" in text


def test_a_missing_validation_split_is_a_tenth_of_train_with_duplicates_together():
    repeated = [f"a {i // 4 * 4 + i % 2}" for i in range(400)]
    splits = zoo.load(Given(data(train=zoo.Labelled(repeated, [i % 2 for i in range(400)]), validation=None)))
    assert len(splits.validation) == 40
    assert np.bincount(splits.validation.labels).tolist() == [20, 20]
    assert not {i[:16] for i in splits.validation.ids} & {i[:16] for i in splits.train.ids}
    assert splits.notes == (
        "No validation split was given: 40 training examples serve as one.",
        "Exact duplicates of others in their split: 180 of 360 in train, 20 of 40 in validation.",
    )
    again = zoo.load(Given(data(train=zoo.Labelled(repeated, [i % 2 for i in range(400)]), validation=None)))
    assert again.fingerprint == splits.fingerprint


def test_no_validation_can_be_carved_from_one_example_of_a_class():
    train = zoo.Labelled([*(f"a {i}" for i in range(20)), "z", "z"], [0] * 20 + [1, 1])
    text = message(data(train=train, validation=None))
    assert "1 distinct example of the class 'positive'" in text


def test_every_shape_of_images_that_is_allowed_loads():
    for shape in ((4, 5, 1), (4, 5, 3), (1, 1, 1)):
        parts = {
            name: zoo.Labelled(images(count, seed, shape), np.arange(count) % 2)
            for seed, (name, count) in enumerate({"train": 8, "validation": 4, "test": 4}.items())
        }
        splits = zoo.load(GivenImages(zoo.Data(CLASSES, **parts)))
        assert splits.test.examples.shape == (4, *shape)
        assert splits.test.examples.flags.c_contiguous


ORIGINS = [f"reviews.csv line {i + 2}" for i in range(10)]
TEN = [f"c {i}" for i in range(10)]


@pytest.mark.parametrize(
    ("parts", "parts_of_the_message"),
    [
        ({"test": zoo.Labelled([*TEN[:9], " \n"], [0, 1] * 5, ORIGINS)}, ["example 10 (reviews.csv line 11)", "empty"]),
        ({"test": zoo.Labelled([*TEN[:9], None], [0, 1] * 5)}, ["test split, example 10 is None", "a NoneType"]),
        ({"test": zoo.Labelled([*TEN[:9], "\ud800"], [0, 1] * 5)}, ["example 10", "not valid Unicode"]),
        (
            {"test": zoo.Labelled(TEN, [0, 1, 2, 1, 0, 1, 0, 1, 0, 7], ORIGINS)},
            ["line 4)", "label 2 is", "such a label: 2"],
        ),
        ({"test": zoo.Labelled(TEN, [0, -1] * 5)}, ["example 2", "label -1 is outside", "from 0 to 1"]),
        ({"test": zoo.Labelled(TEN, [0, 1] * 4 + [0, 10**30])}, ["example 10", "outside"]),
        ({"test": zoo.Labelled(TEN, [0, 1] * 4 + [0, 0.5])}, ["label 0.5 is a float", "int from 0 to 1"]),
        ({"test": zoo.Labelled(TEN, ["positive"] * 10)}, ["label 'positive' is a str"]),
        ({"test": zoo.Labelled(TEN, np.ones(10))}, ["np.float64(1.0) is a float64"]),
        ({"test": zoo.Labelled(TEN, [0, 1])}, ["test split", "10 examples and 2 labels"]),
        ({"test": zoo.Labelled(TEN, [0, 1] * 5, ["x"])}, ["10 examples and 10 labels and 1 origins"]),
        ({"test": zoo.Labelled([], [])}, ["the test split is empty"]),
        ({"test": zoo.Labelled(TEN, [0] * 10)}, ["test split (10 examples) has no example of 'positive'"]),
        ({"train": zoo.Labelled(["a", "b", "c 1"], [0, 0, 1])}, ["train split", "after 1 duplicates", "'positive'"]),
        ({"classes": ["one"]}, ["1 class(es): 'one'", "two or more"]),
        ({"classes": []}, ["0 class(es): none"]),
        ({"classes": ["a", "b", "a"]}, ["'a' stands twice"]),
        ({"classes": ["a", 5]}, ["class name 5 is not a text"]),
    ],
)
def test_bad_data_is_named(parts, parts_of_the_message):
    text = message(data(**parts))
    assert [part for part in parts_of_the_message if part not in text] == []
    assert "'given'" in text


@pytest.mark.parametrize(
    ("pixels", "hint"),
    [
        (images(10).astype(np.float32) / 255, "float32, from 0.0 to"),
        (images(10)[..., 0], "images[..., None]"),
        (images(10, shape=(3, 8, 8)), "transpose(0, 2, 3, 1)"),
        (images(10, shape=(8, 8, 4)), "shape (10, 8, 8, 4)"),
        ([[0]] * 10, "come as a list"),
        (np.array(["x"] * 10), "<U1"),
        (images(10, shape=(6, 6, 1)), "different shapes"),
    ],
)
def test_bad_images_are_named(pixels, hint):
    parts = {name: zoo.Labelled(images(10, i), [0, 1] * 5) for i, name in enumerate(("train", "validation"))}
    assert hint in message(zoo.Data(CLASSES, test=zoo.Labelled(pixels, [0, 1] * 5), **parts), GivenImages)


def test_a_dataset_that_breaks_its_contract_is_a_plugin_error():
    assert "returned a dict" in message({}, error=zoo.PluginError)
    assert "its test split is a list" in message(data(test=["a"]), error=zoo.PluginError)
    assert "one text" in message(data(test=zoo.Labelled("ab", [0, 1])), error=zoo.PluginError)
    assert "Did you mean 'image'?" in message(data(), Sounds, zoo.PluginError)


def test_labels_may_be_bools_or_any_integers():
    for labels in ([False, True] * 5, np.array([0, 1] * 5, np.uint8), [np.int16(0), np.int16(1)] * 5):
        assert zoo.load(Given(data(test=zoo.Labelled(TEN, labels)))).test.labels.tolist() == [0, 1] * 5


@dataclass
class Body:
    """Labelled contents, some repeated, as hypothesis draws them."""

    contents: list[str]
    labels: list[int]
    strata: dict[int, set[str]] = field(default_factory=dict)


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    labels = draw(st.lists(st.integers(0, 3), min_size=1, max_size=60))
    repeats = draw(st.lists(st.integers(0, 30), min_size=len(labels), max_size=len(labels)))
    contents = [f"{label}:{repeat}" for label, repeat in zip(labels, repeats, strict=True)]
    strata: dict[int, set[str]] = {}
    for label, content in zip(labels, contents, strict=True):
        strata.setdefault(label, set()).add(content)
    return Body(contents, labels, strata)


cuts = st.builds(Cut, st.floats(0.01, 0.45), st.floats(0.01, 0.45), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(bodies(), cuts)
def test_the_cut_is_a_partition_that_keeps_duplicates_together_and_every_class_everywhere(body, cut):
    parts = split_three(zoo.Labelled(body.contents, body.labels, [str(i) for i in range(len(body.labels))]), cut)
    origins = sorted(int(origin) for part in parts for origin in part.origins)
    assert origins == list(range(len(body.labels)))
    for part in parts:
        for text, label, origin in zip(part.examples, part.labels, part.origins, strict=True):
            assert (text, label) == (body.contents[int(origin)], body.labels[int(origin)])
    sets = [set(part.examples) for part in parts]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    for label, contents in body.strata.items():
        if len(contents) >= 3:
            assert all(label in part.labels for part in parts)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=30, max_size=120), cuts, st.randoms(use_true_random=False))
def test_the_cut_is_stratified_and_does_not_depend_on_the_order(labels, cut, random):
    contents = [f"text {i}" for i in range(len(labels))]
    places = assign(content_ids(contents), np.array(labels), cut)
    order = list(range(len(labels)))
    random.shuffle(order)
    shuffled = assign(content_ids([contents[i] for i in order]), np.array(labels)[order], cut)
    assert shuffled.tolist() == places[order].tolist()
    for label in set(labels):
        own = places[np.array(labels) == label]
        if len(own) >= 6:
            assert abs((own == 2).sum() - cut.test * len(own)) <= 1.5
            assert abs((own == 1).sum() - cut.validation * len(own)) <= 1.5


def test_counts_are_met_exactly_and_the_seed_matters():
    body = zoo.Labelled([f"t {i}" for i in range(1000)], [int(i % 10 == 0) for i in range(1000)])
    train, validation, test = split_three(body, Cut(validation=100, test=333))
    assert [len(part.labels) for part in (train, validation, test)] == [567, 100, 333]
    assert sum(test.labels) == 33
    other = split_three(body, Cut(validation=100, test=333, seed=1))[2]
    assert set(other.examples) != set(test.examples)
    assert 0 < sum(test.labels[:100]) < 33, "classes come mixed"


def test_distinct_keeps_the_first_and_leaves_contradictions_out():
    body = zoo.Labelled(["a", "b", "a", "c", "b", "d"], [0, 1, 0, 1, 0, 1], list("123456"))
    left = distinct(body)
    assert (list(left.examples), list(left.labels), list(left.origins)) == (["a", "c", "d"], [0, 1, 1], ["1", "4", "6"])


def test_a_large_dataset_loads_in_about_a_second():
    import time

    body = {name: texts(f"{name} " + "word " * 200, 12_000) for name in ("train", "validation", "test")}
    dataset = Given(zoo.Data(CLASSES, **body))
    start = time.process_time()
    zoo.load(dataset)
    assert time.process_time() - start < 2.0
