import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from zoo_transformer import Transformer
from zoo_transformer.model import Attention, patch_size

import zoo
from zoo.testing import check_model

TEXTS = ["good", "a bad film, a very bad one", "a good film", "这部电影很好", "unbelievably bad", "", "été [PAD] 日本"]


def split(examples, modality="text"):
    labels = np.arange(len(examples)) % 2
    ids = tuple(str(index) for index in range(len(examples)))
    return zoo.Split("train", modality, ("no", "yes"), examples, labels, ids, "fingerprint")


def small(**options):
    return Transformer(**{"width": 16, "depth": 2, "heads": 2, "vocabulary": 60, "max_length": 24, **options})


def pad(tokens, extra=0):
    lengths = np.diff(tokens.offsets)
    mask = np.arange(lengths.max() + extra) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = tokens.ids
    return torch.from_numpy(ids), torch.from_numpy(mask)


def test_it_keeps_the_contract():
    check_model(Transformer, width=16, depth=1, heads=2, vocabulary=300)


def test_attention_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    attention = Attention(12, 3)
    hidden = torch.randn(2, 5, 12)
    mask = torch.zeros(2, 1, 1, 5)
    mask[1, ..., 3:] = -torch.inf
    query, key, value = (part.view(2, 5, 3, 4).transpose(1, 2) for part in attention.project_in(hidden).chunk(3, -1))
    weights = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(4) + mask, -1)
    expected = attention.project_out((weights @ value).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(attention(hidden, mask), expected)


def test_padding_and_company_do_not_matter():
    model = small()
    encoder = model.encoder(split(TEXTS))
    module = model.build(encoder.spec, 2).eval()
    encoded = encoder.encode(TEXTS)
    ids, mask = pad(encoded)
    together = module(ids, mask)
    wide_ids, wide_mask = pad(encoded, extra=30)  # beyond the positions there are
    torch.testing.assert_close(module(wide_ids.masked_fill(~wide_mask, 3), wide_mask), together)
    for row in range(len(TEXTS)):
        length = int(mask[row].sum())
        alone = module(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(alone, together[row : row + 1])


def test_every_weight_learns():
    model = small(dropout=0.0)
    encoder = model.encoder(split(TEXTS))
    module = model.build(encoder.spec, 3)
    torch.nn.functional.cross_entropy(module(*pad(encoder.encode(TEXTS))), torch.arange(7) % 3).backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in module.parameters())


def test_pieces_cover_case_accents_chinese_and_nothing():
    encoder = small(vocabulary=200).encoder(split(TEXTS))
    ids = encoder.encode(["Good", "good", "电影", "ete", "été", "   ", "☃"])
    parts = [ids.ids[start:end].tolist() for start, end in zip(ids.offsets, ids.offsets[1:], strict=False)]
    assert parts[0] == parts[1]
    assert len(parts[2]) == 2
    assert 1 not in parts[2]
    assert parts[3] == parts[4]
    assert parts[5] == [1]
    assert parts[6] == [1]
    assert encoder.spec.vocab_size <= 200


def test_a_special_token_in_a_text_is_plain_text():
    encoder = small(vocabulary=200).encoder(split(TEXTS))
    assert 0 not in encoder.encode(["a [PAD] b", "[UNK]"]).ids


def test_texts_are_cut():
    encoder = small(max_length=4).encoder(split(TEXTS))
    assert np.diff(encoder.encode(TEXTS).offsets).max() == 4


@pytest.mark.parametrize("size", [3, 10, 40, 300])
def test_the_vocabulary_is_never_larger_than_asked(size):
    encoder = small(vocabulary=size).encoder(split(TEXTS))
    assert encoder.spec.vocab_size <= size
    assert encoder.encode(TEXTS).ids.max() < encoder.spec.vocab_size


def test_pieces_are_the_same_in_every_process_and_with_any_number_of_threads():
    # Many words that occur equally often: ties in every choice that the trainer makes.
    code = (
        "import random, zoo, zoo_transformer; r = random.Random(0); "
        "t = [' '.join(''.join(r.choices('abcdefghij电影很好', k=6)) for _ in range(30)) for _ in range(60)]; "
        "s = zoo.Split('train', 'text', ('a',), t, [0] * 60, tuple(map(str, range(60))), ''); "
        "print(zoo_transformer.Transformer(vocabulary=400).encoder(s).key)"
    )
    keys = set()
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        keys.add(done.stdout)
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(8, 8, 1), (28, 28, 1), (30, 45, 3), (64, 64, 3), (224, 224, 3), (1, 1, 1)]
)
def test_images_of_any_size(height, width, channels):
    model = small()
    module = model.build(zoo.InputSpec("dense", (channels, height, width)), 4)
    assert module(torch.randn(2, channels, height, width)).shape == (2, 4)
    assert len(module.positions) <= 150
    assert list(model.layers(module)) == ["embedded", "block1", "block2", "pooled"]


def test_patches_fit_the_image():
    assert [patch_size(side) for side in (1, 2, 8, 28, 64, 224)] == [1, 2, 2, 4, 8, 28]


def test_a_patch_is_a_square_of_the_image():
    module = small(patch=2).build(zoo.InputSpec("dense", (1, 4, 4)), 2).eval()
    seen = []
    module.project.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    module(torch.arange(16.0).view(1, 1, 4, 4))
    assert seen[0][0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 3},
        {"heads": 0},
        {"width": 0},
        {"depth": 0},
        {"expansion": 0},
        {"dropout": 1.0},
        {"vocabulary": 2},
        {"max_length": 0},
        {"patch": 0},
        {"image_size": 0},
    ],
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(zoo.ConfigError, match=f"model.{next(iter(options))}="):
        Transformer(**options)


def test_images_have_no_word_pieces():
    from zoo_transformer.pieces import PieceEncoder

    with pytest.raises(zoo.Incompatible, match="image"):
        PieceEncoder(split(np.zeros((2, 4, 4, 1), np.uint8), "image"), 8, 100)


def test_importing_it_is_light():
    code = "import sys, zoo_transformer; sys.exit(bool({'torch', 'numpy', 'tokenizers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
