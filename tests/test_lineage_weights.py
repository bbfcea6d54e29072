"""What is read and what is refused: damaged and hostile safetensors, folders of other kinds, tensors of absurd size."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from zoo.errors import DamagedRun, DataError, RequestError
from zoo.lineage.command import command
from zoo.lineage.pairing import pair_up
from zoo.lineage.weights import open_weights
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace

RANDOM = np.random.default_rng(0)
SMALL = {"0.weight": RANDOM.normal(size=(6, 4)).astype(np.float32), "0.bias": np.arange(6, dtype=np.float32)}


def saved(file: Path, tensors: dict[str, np.ndarray] | None = None) -> Path:
    save_file(SMALL if tensors is None else tensors, file)
    return file


def forged(file: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A file with this header, however untrue."""
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return file


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_tensors_come_back_as_float32(tmp_path):
    values = torch.tensor([[1.5, -2.25], [0.125, 3.0]])
    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    save_torch({name: values.to(kind) for name, kind in types.items()}, tmp_path / "m.safetensors")
    weights = open_weights(tmp_path / "m.safetensors")
    assert {name: stored.dtype for name, stored in weights.tensors.items()} == {name: name for name in types}
    for name in types:
        got = weights.load(name)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, values.numpy())
    assert len({weights.digest(name) for name in types}) == 4
    again = open_weights(saved(tmp_path / "n.safetensors", {"x": values.numpy()}))
    assert again.digest("x") == weights.digest("F32")


def test_int8_is_read_and_counters_are_not(tmp_path):
    tensors = {"w": np.array([[-127, 5]], np.int8), "steps": np.array([3]), "mask": np.array([True])}
    weights = open_weights(saved(tmp_path / "m.safetensors", tensors))
    assert weights.load("w").tolist() == [[-127.0, 5.0]]
    assert set(weights.left_out) == {"steps", "mask"}


HEADERS = {
    "truncated data": ({"a": entry("F32", [2], 0, 8)}, b"1234", None),
    "more data than told": ({"a": entry("F32", [1], 0, 4)}, b"12345678", None),
    "header beyond the file": ({"a": entry("F32", [1], 0, 4)}, b"1234", 10**6),
    "header of absurd length": ({"a": entry("F32", [1], 0, 4)}, b"1234", 2**62),
    "another shape than bytes": ({"a": entry("F32", [3], 0, 4)}, b"1234", None),
    "absurd shape": ({"a": entry("F32", [2**40, 2**40], 0, 4)}, b"1234", None),
    "overlap": ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 2, 6)}, b"123456", None),
    "backwards": ({"a": entry("F32", [1], 4, 0)}, b"1234", None),
    "negative shape": ({"a": entry("F32", [-1], 0, 4)}, b"1234", None),
    "unknown type": ({"a": entry("F31", [1], 0, 4)}, b"1234", None),
    "no object": ([1, 2], b"", None),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_does_not_fit_is_refused(case, tmp_path, capsys):
    header, data, length = HEADERS[case]
    file = forged(tmp_path / "bad.safetensors", header, data, length)
    with pytest.raises(DataError, match=r"bad\.safetensors is no sound safetensors file"):
        open_weights(file)
    assert command([str(file), str(saved(tmp_path / "good.safetensors"))]) == 2
    assert 1 <= len(capsys.readouterr().err.strip().splitlines()) <= 4


@pytest.mark.parametrize("content", [b"", b"\x00", b"no tensors at all, only text in a file", b"\x80\x04\x95pickle"])
def test_what_is_no_safetensors_is_refused(content, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(DataError):
        open_weights(tmp_path / "x.safetensors")


def test_a_tensor_too_large_for_memory_is_left_out_unread(tmp_path):
    """The file is sparse: it claims 8 GiB and takes no room on the disk."""
    size = 8 * 2**30
    file = forged(tmp_path / "large.safetensors", {"a": entry("F32", [size // 4], 0, size)})
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size + size)
    with pytest.raises(DataError, match=r"8\.0 GiB as float32"):
        open_weights(file)
    kept = open_weights(saved(tmp_path / "m.safetensors"), most_bytes=40)
    assert set(kept.tensors) == {"0.bias"}
    assert "0.weight" in kept.left_out


def test_a_hugging_face_folder_in_shards(tmp_path):
    saved(tmp_path / "one.safetensors", {"a": np.ones((2, 2), np.float32)})
    saved(tmp_path / "two.safetensors", {"b": np.ones((3, 2), np.float32)})
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2}')
    weights = open_weights(tmp_path)
    assert weights.shapes == {"a": (2, 2), "b": (3, 2)}
    assert weights.config == {"num_attention_heads": 2}


@pytest.mark.parametrize("shard", ["../outside.safetensors", "gone.safetensors", "/etc/passwd"])
def test_a_shard_outside_its_folder_is_refused(shard, tmp_path):
    saved(tmp_path / "outside.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(DataError, match="no file of that folder"):
        open_weights(folder)


def test_a_pickled_checkpoint_is_named_and_not_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(DataError, match=r"pytorch_model\.bin, which is never read"):
        open_weights(tmp_path)


def run(root: Path, key: str, weights: bool = True) -> Path:
    record = {"config": {"model": {"name": "gone"}}, "seed": 0}
    with Draft.open(root, RunPlace("t", "d", "m", key), record) as draft:
        if weights:
            draft.write_tensors("model.safetensors", SMALL)
        return draft.publish(record, "complete")


def test_a_run_is_verified(tmp_path):
    folder = run(tmp_path, "00")
    assert open_weights(folder).label == "m/00"
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(DamagedRun, match=r"model\.safetensors is not what was written"):
        open_weights(folder)


def test_a_run_without_weights_says_so(tmp_path):
    with pytest.raises(DataError, match="keep_weights=true"):
        open_weights(run(tmp_path, "00", weights=False))


def test_a_path_that_is_not_there_and_one_that_holds_nothing(tmp_path):
    with pytest.raises(DataError, match="There is no"):
        open_weights(tmp_path / "gone")
    with pytest.raises(DataError, match="holds no"):
        open_weights(tmp_path)


def test_tensors_are_joined_whatever_the_prefix(tmp_path):
    one = open_weights(saved(tmp_path / "1.safetensors", {"a.w": np.ones((2, 2)), "b.w": np.zeros((3, 2))}))
    two = open_weights(
        saved(tmp_path / "2.safetensors", {"m.a.w": np.ones((2, 2)), "m.b.w": np.zeros((4, 3)), "h": np.ones(3)})
    )
    pair = pair_up(one, two)
    assert pair.names == {"a.w": "m.a.w"}
    assert (pair.reshaped, pair.only_a, pair.only_b) == (("b.w",), (), ("h",))
    assert pair_up(two, one).names == {"m.a.w": "a.w"}


def test_renamed_tensors_are_joined_by_their_content(tmp_path):
    one = open_weights(saved(tmp_path / "1.safetensors"))
    two = open_weights(saved(tmp_path / "2.safetensors", {"x": SMALL["0.bias"], "y": SMALL["0.weight"]}))
    assert pair_up(one, two).names == {"0.bias": "x", "0.weight": "y"}


def test_of_two_vocabularies_the_rows_that_both_have_are_read(tmp_path):
    table = RANDOM.normal(size=(9, 4)).astype(np.float32)
    one = open_weights(saved(tmp_path / "1.safetensors", {"embed.weight": table}))
    two = open_weights(saved(tmp_path / "2.safetensors", {"embed.weight": table[:7]}))
    pair = pair_up(one, two)
    assert pair.tables == {"embed.weight": "embed.weight"}
    np.testing.assert_array_equal(pair.load_a("embed.weight"), pair.load_b("embed.weight"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ""),
        (["a.safetensors"], "two or more"),
        (["a", "b", "ouy=x.json"], "Did you mean 'out'?"),
        (["a", "b", "data=perhaps"], "auto, true, false"),
        (["a", "b", "replicas=nowhere*"], "There is no 'a'"),
    ],
)
def test_a_wrong_request_is_told_in_a_few_lines(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(words) == RequestError.exit_code
    assert told in capsys.readouterr().err


def test_a_pattern_without_replicas_is_told(tmp_path, capsys):
    files = [str(saved(tmp_path / f"{n}.safetensors")) for n in range(2)]
    assert command([*files, f"replicas={tmp_path}/none*"]) == 2
    assert "there is no run" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_told_before_anything_is_compared(tmp_path, capsys):
    files = [str(saved(tmp_path / f"{n}.safetensors")) for n in range(2)]
    assert command([*files, f"out={tmp_path}"]) == RequestError.exit_code
    assert command([*files, f"out={files[0]}/new/out.json"]) == RequestError.exit_code
    told = capsys.readouterr()
    assert told.out == ""
    assert "is a folder. Give a file" in told.err
    assert "is no folder" in told.err
