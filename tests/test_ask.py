"""Inputs made to be asked, and stored models that answer them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from zoo.ask import command
from zoo.lineage import command as lineage
from zoo.lineage import probes
from zoo.lineage.answers import Overlaps, align, compare_answers, read_answers
from zoo.store.reading import read
from zoo.store.schema import ASKED

IMAGES = np.random.default_rng(0).integers(0, 256, size=(20, 6, 5, 1), dtype=np.uint8)


@given(arrays.arrays(np.uint8, (4, 3, 2, 1)), st.integers(1, 20), st.integers(0, 9))
def test_a_mixture_lies_between_two_images(images: np.ndarray, count: int, seed: int) -> None:
    mixed = probes.mixed_images(images, count, seed)
    assert (mixed.shape, mixed.dtype) == ((count, 3, 2, 1), np.uint8)
    means = {((one.astype(int) + two) // 2).tobytes() for one in images for two in images}
    assert {one.astype(int).tobytes() for one in mixed} <= means
    np.testing.assert_array_equal(mixed, probes.mixed_images(images, count, seed))


def test_noise_has_the_shape_of_the_images_and_every_brightness():
    noise = probes.noise_images(IMAGES, 200, 1)
    assert (noise.shape, noise.dtype) == ((200, 6, 5, 1), np.uint8)
    assert np.bincount(noise.reshape(-1), minlength=256).min() > 0


def test_boundary_points_are_where_a_known_model_changes_its_mind():
    """The model looks at the mean brightness: the boundary is 128, to within a step of the bisection."""

    def ask(images: np.ndarray) -> np.ndarray:
        return (images.reshape(len(images), -1).mean(axis=1) > 128).astype(np.int64)

    points = probes.boundary_images(IMAGES, ask, 200, 2)
    assert 50 < len(points) < 200
    np.testing.assert_allclose(points.reshape(len(points), -1).mean(axis=1), 128, atol=1)
    sure = probes.boundary_images(IMAGES, lambda images: np.zeros(len(images), np.int64), 200, 2)
    assert sure.shape == (0, 6, 5, 1)


def test_some_examples_are_drawn_once_each():
    assert sorted(probes.some(list("abcd"), 9, 0)) == list("abcd")
    assert len(set(probes.some([str(number) for number in range(50)], 20, 1))) == 20
    drawn = probes.some(IMAGES, 5, 2)
    assert isinstance(drawn, np.ndarray)
    assert {one.tobytes() for one in drawn} < {one.tobytes() for one in IMAGES}
    assert len({one.tobytes() for one in drawn}) == 5


@given(st.lists(st.text("ab ", min_size=1).filter(str.strip), min_size=1, max_size=5), st.integers(0, 9))
def test_texts_are_made_of_words_that_were_there(texts: list[str], seed: int) -> None:
    known = {character for text in texts for character in text}
    for made in (probes.mixed_texts(texts, 6, seed), probes.shuffled_texts(texts, 6, seed)):
        assert len(made) == 6
        assert all(text.strip() and set(text) <= known for text in made)
    contents = [sorted(text.replace(" ", "")) for text in texts]
    assert all(sorted(text.replace(" ", "")) in contents for text in made)


def test_the_beginning_of_a_mixed_text_is_of_both():
    texts = [" ".join(f"{letter}{place}" for place in range(40)) for letter in "xy"]
    mixed = probes.mixed_texts(texts, 20, 0)
    both = [text.split() for text in mixed if "x" in text and "y" in text]
    assert both
    for words in both:
        assert len(words) == 40
        assert {word[0] for word in words[:16]} == {"x", "y"}
        assert [int(word[1:]) for word in words] == list(range(40))
    (shuffled,) = probes.shuffled_texts(texts[:1], 1, 0)
    assert sorted(shuffled.split()) == sorted(texts[0].split())
    assert shuffled != texts[0]
    assert sorted(probes.shuffled_texts(["春眠不觉晓"], 1, 1)[0]) == sorted("春眠不觉晓")
    assert probes.mixed_texts(["春眠不觉晓处处闻啼鸟"], 1, 1) == ["春眠不觉晓处处闻啼鸟"]


# Runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Small models of digits: three perceptrons, one of them without weights, and a logistic regression."""
    from rich.console import Console

    from zoo.config import Device, RunConfig, TrainerOptions
    from zoo.plugins import registry
    from zoo.run import run

    root = tmp_path_factory.mktemp("ask") / "runs"

    def made(model: str, seed: int, keep: bool = True, **options: object) -> Path:
        dataset, task = (
            registry().find(kind, name).cls()
            for kind, name in (("dataset", "digits"), ("task", "image_classification"))
        )
        trainer = TrainerOptions(device=Device.cpu, threads=1, epochs=1)
        config = RunConfig(
            registry().find("model", model).cls(**options), dataset, task, trainer, model, seed=seed, runs_dir=root,
            probe=0, keep_weights=keep,
        )  # fmt: skip
        return run(config, registry(), Console(quiet=True)).folder

    return {
        "a": made("mlp", 0, hidden=[12]), "b": made("mlp", 1, hidden=[12]), "scout": made("mlp", 2, hidden=[12]),
        "bare": made("mlp", 3, False, hidden=[12]), "linear": made("linear", 0),
    }  # fmt: skip


def test_stored_models_are_asked_and_compared(runs, tmp_path, capsys):
    out = tmp_path / "asked"
    words = [str(runs[name]) for name in ("a", "b", "linear")]
    assert command([*words, f"out={out}", "inputs=30", f"scout={runs['scout']}"]) == 0
    folders = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [folder.relative_to(out) for folder in folders] == [
        runs[name].relative_to(runs["a"].parents[3]) for name in ("a", "b", "linear")
    ]
    run = read(folders[0])
    counts = run.record[ASKED]["inputs"]
    assert run.record["config"] == read(runs["a"]).record["config"]
    assert (counts["mixed"], counts["noise"], counts["training"]) == (30, 30, 30)
    assert 0 < counts["boundary"] <= 30
    # What it said of the test split stands beside it, and what it says of that when asked again is the same.
    was, test = read(runs["a"]).predictions().only("test"), run.predictions().only("test")
    np.testing.assert_array_equal(was.logits, test.logits)
    first, second, linear = map(read_answers, folders)
    joined = align([first, second, linear])  # type: ignore[list-item]
    assert not isinstance(joined, str)
    assert (joined.labels == -1).sum() == sum(counts.values())
    assert np.isfinite(joined.logits).all()
    kinds = Overlaps().of([first, second]).kinds(10**6)  # type: ignore[list-item]
    assert sorted(np.bincount(kinds).tolist()) == sorted([len(test), *counts.values()])
    found = compare_answers(first, second, [])
    assert found.n == len(test) + sum(counts.values())
    assert found.repeated[0].n == (was.predictions != was.labels).sum()  # of made inputs nobody knows what is right
    capsys.readouterr()
    assert lineage.command([*map(str, folders[:2]), "answers=true", f"out={tmp_path / 'x.json'}"]) == 0
    rows = json.loads((tmp_path / "x.json").read_text())["pairs"][0]["evidence"]
    assert rows[4]["examples"] == found.n


def test_an_asked_model_answers_the_test_split_as_it_did(runs):
    from zoo.ask import _stored, asking

    for name in ("a", "linear"):
        stored = _stored(runs[name])
        table = read(runs[name]).predictions().only("test")
        np.testing.assert_allclose(asking(stored)(stored.splits.test.examples), table.logits, atol=1e-5)


def test_what_cannot_be_asked_is_said(runs, tmp_path, capsys):
    out = f"out={tmp_path / 'asked'}"

    def refused(*words: str) -> str:
        assert command(words) in (1, 2)
        return capsys.readouterr().err

    assert "Where to?" in refused(str(runs["a"]))
    assert "Which runs?" in refused(out)
    assert "no run folder nowhere" in refused("nowhere", out)
    assert "keeps no weights" in refused(str(runs["bare"]), out)
    assert "inputs=0" in refused(str(runs["a"]), out, "inputs=0")
    assert "No option 'input'" in refused(str(runs["a"]), out, "input=3")
    assert not (tmp_path / "asked").exists()
    (tmp_path / "file").touch()
    told = refused(str(runs["a"]), f"out={tmp_path}/file/asked", "inputs=1")
    assert told.endswith("is a file where a folder is needed.\nMove it away or choose another folder with out=…\n")
    assert command(["--help"]) == 0
