import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo

TEXTS = ["The film, the FILM!", "the plot isn't good", "酒店很好 ok", "酒店不好", "the end"]


def split(examples, modality="text"):
    labels = np.zeros(len(examples), np.int64)
    ids = tuple(str(index) for index in range(len(examples)))
    return zoo.Split("train", modality, ("a", "b"), examples, labels, ids, "fingerprint")


def sequences(tokens):
    return [tokens.ids[start:end].tolist() for start, end in zip(tokens.offsets, tokens.offsets[1:], strict=False)]


def test_words_are_words_marks_and_single_chinese_characters():
    encoder = zoo.WordEncoder(split(TEXTS))
    assert encoder.words("The film, isn't 很好ok!") == ["the", "film", ",", "isn't", "很", "好", "ok", "!"]
    assert encoder.words("カメラ 3.5 한국어 naïve") == ["カ", "メ", "ラ", "3", ".", "5", "한국어", "naïve"]


def test_vocabulary_is_ordered_by_count_then_token():
    encoder = zoo.WordEncoder(split(["b a c", "c b", "c d"]), min_count=1)
    assert encoder.vocabulary == ("c", "b", "a", "d")
    assert sequences(encoder.encode(["a b c d e"])) == [[4, 3, 2, 5, 1]]
    assert encoder.spec == zoo.InputSpec("tokens", (256,), vocab_size=6, pad_id=0)


def test_rare_words_and_words_beyond_the_limit_are_unknown():
    few = zoo.WordEncoder(split(["b a c", "c b", "c d"]), min_count=2, max_vocabulary=1)
    assert few.vocabulary == ("c",)
    assert sequences(few.encode(["a b c"])) == [[1, 1, 2]]


def test_a_text_is_cut_and_an_empty_one_is_one_unknown_token():
    encoder = zoo.WordEncoder(split(TEXTS), max_length=3, min_count=1)
    encoded = encoder.encode(["the film the film", " \n", "the"])
    assert [len(ids) for ids in sequences(encoded)] == [3, 1, 1]
    assert sequences(encoded)[1] == [1]
    assert encoded.ids.dtype == np.int32
    assert encoded.offsets.dtype == np.int64


def test_case_can_be_kept():
    assert "The" in zoo.WordEncoder(split(TEXTS), lower=False, min_count=1).vocabulary
    assert "The" not in zoo.WordEncoder(split(TEXTS), min_count=1).vocabulary


@pytest.mark.parametrize("change", [{"max_length": 9}, {"lower": False}, {"min_count": 1}, {"max_vocabulary": 2}])
def test_word_key_covers_options_and_vocabulary(change):
    plain = zoo.WordEncoder(split(TEXTS))
    assert plain.key == zoo.WordEncoder(split(list(TEXTS))).key
    assert plain.key != zoo.WordEncoder(split(TEXTS), **change).key
    assert plain.key != zoo.WordEncoder(split([*TEXTS, "another another"])).key


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_text_gives_one_to_max_length_known_ids(texts):
    encoder = zoo.WordEncoder(split(texts), max_length=7, min_count=1)
    encoded = encoder.encode(texts)
    lengths = np.diff(encoded.offsets)
    assert len(encoded) == len(texts)
    assert lengths.min() >= 1
    assert lengths.max() <= 7
    assert encoded.ids.min() >= 1
    assert encoded.ids.max() < encoder.spec.vocab_size


def test_a_corpus_of_half_a_million_words():
    rng = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(5_000)])
    texts = [" ".join(words[row]) for row in rng.integers(0, 5_000, (5_000, 100))]
    encoder = zoo.WordEncoder(split(texts), max_length=100)
    assert encoder.encode(texts).ids.size == 500_000


@pytest.mark.parametrize("option", ["max_length", "max_vocabulary", "min_count"])
def test_word_options_out_of_range_are_named(option):
    with pytest.raises(zoo.ConfigError, match=f"{option}=0"):
        zoo.WordEncoder(split(TEXTS), **{option: 0})


def images(shape=(6, 5, 4, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_pixels_are_channels_first_with_the_moments_of_the_training_split():
    train = images()
    encoder = zoo.PixelEncoder(split(train, "image"))
    values = encoder.encode(train).values
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, train.transpose(0, 3, 1, 2))
    assert encoder.spec.shape == (3, 5, 4)
    np.testing.assert_allclose(encoder.spec.mean, (train / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(encoder.spec.std, (train / 255).std((0, 1, 2)), rtol=1e-12)


def test_constant_images_do_not_divide_by_zero():
    encoder = zoo.PixelEncoder(split(np.full((3, 4, 4, 1), 7, np.uint8), "image"))
    assert encoder.spec.std == (1 / 255,)
    assert encoder.spec.mean == pytest.approx((7 / 255,))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_resized_and_measured_afterwards(channels):
    train = images((4, 12, 9, channels))
    encoder = zoo.PixelEncoder(split(train, "image"), size=6)
    values = encoder.encode(train).values
    assert values.shape == (4, channels, 6, 6)
    assert encoder.spec.shape == (channels, 6, 6)
    np.testing.assert_allclose(encoder.spec.mean, (values / 255).mean((0, 2, 3)), rtol=1e-12)


def test_pixel_key_covers_size_and_moments():
    keys = {
        zoo.PixelEncoder(split(images(), "image")).key,
        zoo.PixelEncoder(split(images(), "image"), size=5).key,
        zoo.PixelEncoder(split(images(seed=1), "image")).key,
    }
    assert len(keys) == 3
    assert zoo.PixelEncoder(split(images(), "image")).key in keys


def test_images_of_another_shape_or_type_are_refused():
    encoder = zoo.PixelEncoder(split(images(), "image"))
    with pytest.raises(zoo.DataError, match=r"\(5, 5, 3\).*fitted on \(5, 4, 3\)"):
        encoder.encode(images((2, 5, 5, 3)))
    with pytest.raises(zoo.DataError, match="float64"):
        encoder.encode(images() / 255)


def test_the_wrong_modality_is_refused():
    with pytest.raises(zoo.Incompatible, match=r"takes text examples.*holds image"):
        zoo.WordEncoder(split(images(), "image"))
    with pytest.raises(zoo.Incompatible, match=r"takes image examples.*holds text"):
        zoo.PixelEncoder(split(TEXTS))


def test_the_encoders_are_light_and_the_same_in_another_process():
    code = (
        "import sys, zoo; heavy = {'torch', 'numpy', 'PIL'} & set(sys.modules); assert not heavy, heavy;"
        f"s = zoo.Split('train', 'text', ('a',), {TEXTS!r}, [0] * 5, tuple('abcde'), '');"
        "print(zoo.WordEncoder(s).key)"
    )
    keys = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    }
    assert keys == {zoo.WordEncoder(split(TEXTS)).key}
