import subprocess
import sys

import numpy as np
import pytest
import torch
from zoo_mlp import MLP

import zoo
from zoo.testing import check_model

TEXTS = ["a good film", "a bad film, a very bad one", "good", "这部电影很好", "bad bad"]


def split(examples, modality):
    labels = np.arange(len(examples)) % 2
    ids = tuple(str(index) for index in range(len(examples)))
    return zoo.Split("train", modality, ("no", "yes"), examples, labels, ids, "fingerprint")


def texts():
    return split(TEXTS, "text")


def images(side, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (6, side, side, channels), dtype=np.uint8)
    return split(pixels, "image")


def pad(tokens, extra=0):
    lengths = np.diff(tokens.offsets)
    mask = np.arange(lengths.max() + extra) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = tokens.ids
    return torch.from_numpy(ids), torch.from_numpy(mask)


def test_it_keeps_the_contract():
    check_model(MLP, embedding=16, hidden=[8])


def test_the_text_vector_is_the_mean_over_real_tokens():
    model = MLP()
    encoder = model.encoder(texts())
    module = model.build(encoder.spec, 2).eval()
    ids, mask = pad(encoder.encode(TEXTS), extra=3)
    kept = module.words.weight[ids] * mask[..., None]
    expected = kept.sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(module.words(ids), expected)
    garbage = ids.masked_fill(~mask, 2)
    torch.testing.assert_close(module(garbage, mask), module(ids, mask))


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (28, 1), (64, 3)])
def test_images_of_any_size(side, channels):
    model = MLP(hidden=[16])
    encoder = model.encoder(images(side, channels))
    module = model.build(encoder.spec, 3)
    assert module(torch.randn(4, channels, side, side)).shape == (4, 3)
    assert list(model.layers(module)) == ["hidden1"]


def test_without_hidden_layers_it_is_linear():
    model = MLP(hidden=[])
    module = model.build(zoo.InputSpec("dense", (5,)), 2)
    assert sum(weight.numel() for weight in module.parameters()) == 5 * 2 + 2
    assert model.layers(module) == {"logits": module.head}


def test_the_seed_recipe_has_its_shape():
    module = MLP(features="sentence").build(zoo.InputSpec("dense", (768,)), 2)
    shapes = [tuple(weight.shape) for name, weight in module.named_parameters() if name.endswith("weight")]
    assert shapes == [(256, 768), (128, 256), (2, 128)]


def test_sentence_features_are_those_of_the_frozen_encoder():
    zoo_bert = pytest.importorskip("zoo_bert")
    encoder = MLP(features="sentence", max_length=16).encoder(texts())
    assert encoder.spec == zoo.InputSpec("dense", (768,))
    values = encoder.encode(TEXTS).values
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, zoo_bert.sentence_vectors(TEXTS, max_length=16))
    assert encoder.key != MLP(features="sentence", max_length=17).encoder(texts()).key


def test_sentence_features_without_zoo_bert_say_what_to_install():
    code = (
        "import sys; sys.modules['zoo_bert'] = None; import zoo, zoo_mlp; "
        "s = zoo.Split('train', 'text', ('a',), ['x'], [0], ('0',), '')\n"
        "try: zoo_mlp.MLP(features='sentence').encoder(s)\n"
        "except zoo.ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'zoo-mlp[sentence]'" in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"hidden": [8, 0]},
        {"features": "letters"},
        {"embedding": 0},
        {"max_length": 0},
        {"max_vocabulary": 0},
        {"min_count": 0},
        {"image_size": 0},
    ],
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(zoo.ConfigError, match=f"model.{next(iter(options))}="):
        MLP(**options)


def test_importing_it_is_light():
    code = "import sys, zoo_mlp; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
