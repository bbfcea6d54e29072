import subprocess
import sys

import numpy as np
import pytest
import torch
from zoo_cnn import CNN
from zoo_cnn.model import stem_stride

import zoo
from zoo.testing import check_model

TEXTS = ["good", "a bad film, a very bad one", "a good film", "这部电影很好", "bad bad"]


def text_module(**options):
    labels = np.arange(len(TEXTS)) % 2
    train = zoo.Split("train", "text", ("no", "yes"), TEXTS, labels, tuple("01234"), "fingerprint")
    model = CNN(embedding=12, filters=7, min_count=1, **options)
    encoder = model.encoder(train)
    torch.manual_seed(0)
    return model, model.build(encoder.spec, 2).eval(), pad(encoder.encode(TEXTS))


def pad(tokens, extra=2):
    lengths = np.diff(tokens.offsets)
    mask = np.arange(lengths.max() + extra) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = tokens.ids
    return torch.from_numpy(ids), torch.from_numpy(mask)


def test_it_keeps_the_contract():
    check_model(CNN, embedding=16, filters=8, stages=[4, 8])


def test_pooled_features_are_the_largest_response_of_each_filter():
    _, module, (ids, mask) = text_module()
    pooled = module.pooled(module.words(ids, mask), mask)
    assert pooled.shape == (len(TEXTS), 21)
    for row in range(len(TEXTS)):
        vectors = module.words.weight[ids[row, mask[row]]]
        expected = []
        for convolution in module.pooled.convolutions:
            kernel = convolution.weight[:, :, 0]  # (filters, width, span)
            span = kernel.shape[2]
            padded = torch.cat([torch.zeros(span // 2, 12), vectors, torch.zeros(span, 12)])
            windows = torch.stack([padded[start : start + span] for start in range(len(vectors))])
            expected.append(torch.einsum("nsw,fws->nf", windows, kernel).max(0).values)
        torch.testing.assert_close(pooled[row], torch.relu(torch.cat(expected) + module.pooled.bias))


def test_what_stands_in_the_padding_does_not_matter():
    _, module, (ids, mask) = text_module()
    torch.testing.assert_close(module(ids.masked_fill(~mask, 3), mask), module(ids, mask))
    alone = torch.cat(
        [
            module(ids[row : row + 1, : mask[row].sum()], mask[row : row + 1, : mask[row].sum()])
            for row in range(len(TEXTS))
        ]
    )
    torch.testing.assert_close(alone, module(ids, mask))


@pytest.mark.parametrize("kernels", [[1], [2], [9], [2, 3, 4, 5]])
def test_kernels_longer_than_the_text(kernels):
    _, module, (ids, mask) = text_module(kernels=kernels)
    one = module(ids[:1, :1], mask[:1, :1])
    assert one.shape == (1, 2)
    torch.testing.assert_close(one, module(ids, mask)[:1])


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(8, 8, 1), (28, 28, 1), (32, 48, 3), (65, 65, 3), (224, 224, 3)]
)
def test_images_of_any_size(height, width, channels):
    model = CNN(stages=[8, 8, 16])
    module = model.build(zoo.InputSpec("dense", (channels, height, width)), 4)
    seen = {}
    for name, layer in model.layers(module).items():
        layer.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output.shape}))
    logits = module(torch.randn(2, channels, height, width))
    assert logits.shape == (2, 4)
    assert list(seen) == ["stem", "stage1", "stage2", "stage3", "pooled"]
    assert 4 <= min(seen["stage3"][2:]) <= 12
    logits.sum().backward()
    assert all(weight.grad is not None for weight in module.parameters())


def test_the_stem_keeps_small_images_and_shrinks_large_ones():
    assert [stem_stride(side) for side in (8, 28, 48, 64, 224)] == [(1, 8), (1, 28), (1, 48), (2, 32), (8, 28)]


def test_one_image_can_be_trained_on():
    module = CNN(stages=[4, 4]).build(zoo.InputSpec("dense", (1, 8, 8)), 2).train()
    assert torch.isfinite(module(torch.randn(1, 1, 8, 8))).all()


@pytest.mark.parametrize(
    "options",
    [
        {"kernels": []},
        {"kernels": [0]},
        {"stages": []},
        {"filters": 0},
        {"embedding": 0},
        {"dropout": 1.5},
        {"max_length": 0},
        {"blocks": 0},
        {"image_size": 0},
    ],
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(zoo.ConfigError, match=f"model.{next(iter(options))}="):
        CNN(**options)


def test_importing_it_is_light():
    code = "import sys, zoo_cnn; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
