"""Files and folders made to break a comparison: each gets a verdict or an error of a few lines, in bounded memory."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from zoo.errors import DamagedRun, DataError, StoreError, printable, shortened
from zoo.lineage import groups, rows, weights
from zoo.lineage.command import command
from zoo.lineage.comparison import compare
from zoo.lineage.groups import chain_units, problem_of
from zoo.lineage.pairing import pair_up
from zoo.lineage.weights import INDEX, Weights, open_weights
from zoo.store import disk, reading
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace
from zoo.units import Slots, Units

State = dict[str, np.ndarray]


def network(seed: int = 0, **more: np.ndarray) -> State:
    random = np.random.default_rng(seed)
    shapes = {"0.weight": (16, 8), "0.bias": (16,), "1.weight": (4, 16)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} | more


@pytest.fixture
def kept(tmp_path) -> Callable[[str, State], Weights]:
    def keep(name: str, state: State) -> Weights:
        save_file(state, tmp_path / f"{name}.safetensors")
        return open_weights(tmp_path / f"{name}.safetensors")

    return keep


def forged(file: Path, header: str, data: bytes = b"") -> Path:
    text = header.encode("utf-8", "surrogatepass")
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return file


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


ONE = json.dumps(entry([1], 0, 4))
TWO = json.dumps(entry([1], 4, 8))
HEADERS = {
    "a name twice": (f'{{"a": {ONE}, "a": {TWO}}}', 8),
    "no JSON": ("{" * 40, 4),
    "too deep": ('{"a":' * 50_000 + "1" + "}" * 50_000, 4),
    "half a character": (f'{{"\\ud800": {ONE}}}', 4),
    "no Unicode": (f'{{"\ud800": {ONE}}}', 4),
    "a gap": (json.dumps({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}), 12),
    "beyond the end": (json.dumps({"a": entry([1], 2**40, 2**40 + 4)}), 4),
    "empty": ("{}", 0),
    "not a number": ('{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', 4),
    "a megabyte where a tensor should be": (f'{{"a": "{"x" * 2**20}"}}', 4),
    "a shape of fractions": ('{"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}', 4),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_lies_is_an_error_of_a_few_lines(case, tmp_path, capsys):
    header, size = HEADERS[case]
    file = forged(tmp_path / "bad.safetensors", header, bytes(size))
    with pytest.raises(DataError, match=r"bad\.safetensors"):
        open_weights(file)
    assert command([str(file), str(file)]) == 2
    told = capsys.readouterr().err
    assert 1 <= len(told.strip().splitlines()) <= 4
    assert len(told) < 1000


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, 1100), flips=st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 255)), max_size=4))
def test_a_file_cut_or_changed_anywhere_is_read_or_refused(cut, flips, tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file(network(), whole)
    content = bytearray(whole.read_bytes())
    for place, value in flips:
        content[place % len(content)] = value
    file = tmp_path / "changed.safetensors"
    file.write_bytes(content[: len(content) - cut])
    try:
        changed = open_weights(file)
    except DataError:
        return
    # Any other error, and any warning, fails the test.
    assert compare([open_weights(whole), changed]).pairs[0].verdict.statement


def test_one_number_beside_the_weights_does_no_harm(kept):
    """A scalar, such as the temperature of CLIP."""
    one, two = (kept(name, network(0, scale=np.array(seed, np.float32))) for name, seed in (("one", 1), ("two", 2)))
    assert compare([one, two]).pairs[0].verdict.name == "derived"
    assert compare([one, one]).pairs[0].verdict.name == "copy"


def test_tensors_of_strange_shapes_are_left_out_with_the_reason(tmp_path):
    parts: dict[str, object] = {
        "many": entry([1] * 70, 0, 4),
        "w": entry([2, 2], 4, 20),
        "none": entry([0, 2**62], 4, 4),
    }
    parts["n" * 2000] = entry([1], 20, 24)
    weights = open_weights(forged(tmp_path / "m.safetensors", json.dumps(parts), bytes(24)))
    assert set(weights.tensors) == {"w"}
    assert weights.left_out["none"] == "it is empty"
    assert "70 dimensions" in weights.left_out["many"]
    assert any("2000 characters" in reason for reason in weights.left_out.values())


@pytest.mark.parametrize("size", [3e38, 1e-40])
def test_numbers_whose_squares_leave_float32_are_compared(size, kept):
    with np.errstate(over="ignore"):
        parent = {name: np.sign(value) * np.float32(size) * abs(np.tanh(value)) for name, value in network().items()}
    noise = np.random.default_rng(1)
    child = {name: (value * noise.uniform(0.9, 1, value.shape)).astype(np.float32) for name, value in parent.items()}
    stranger = {name: np.float32(size / 9) * value for name, value in network(7).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compare([kept("parent", parent), kept("child", child)]).pairs[0].verdict.name == "derived"
        found = compare([kept("parent", parent), kept("stranger", stranger)]).pairs[0]
    assert not found.verdict.shares_weights
    assert found.evidence.aligned is not None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_without_a_number_decide_nothing_unless_they_are_the_same(value, kept):
    broken = {name: np.full_like(tensor, value) for name, tensor in network().items()}
    found = compare([kept("broken", broken), kept("sound", network())]).pairs[0].verdict
    assert (found.name, "NaN or infinite" in found.statement) == ("undetermined", True)
    assert compare([kept("one", broken), kept("two", broken)]).pairs[0].verdict.name == "copy"


def test_nothing_but_zeros_and_whole_numbers_of_other_types_are_told(kept, tmp_path):
    zeros = {name: np.zeros_like(tensor) for name, tensor in network().items()}
    assert compare([kept("zeros", zeros), kept("sound", network())]).pairs[0].verdict.name == "undetermined"
    whole = {name: np.ones(tensor.shape, np.int64) for name, tensor in network().items()}
    with pytest.raises(DataError, match="type I64 holds no weights"):
        kept("whole", whole)


@pytest.mark.parametrize(("inner", "heads"), [(6, 12), (18, 12), (24, 12), (24, 10**30)])
def test_heads_that_do_not_fit_the_width_are_not_compared(inner, heads, tmp_path):
    random = np.random.default_rng(0)
    shapes = {f"l.attention.self.{name}.weight": (inner, 24) for name in ("query", "key", "value")}
    shapes |= {"l.attention.output.dense.weight": (24, inner)}
    shapes |= {"l.intermediate.dense.weight": (30, 24), "l.output.dense.weight": (24, 30)}
    models = []
    for name in "ab":
        (tmp_path / name).mkdir()
        state = {key: random.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
        save_file(state, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps({"num_attention_heads": heads}))
        models.append(open_weights(tmp_path / name))
    found = compare(models).pairs[0]
    assert ("l.attention.self.heads" in {group.name for group in found.evidence.layout.groups}) == (
        inner == 24 and heads == 12
    )
    assert not found.verdict.shares_weights


@pytest.mark.parametrize("content", ["[" * 200_000, "[1]", "{", '{"weight_map": 5}', '{"weight_map": {}}'])
def test_an_index_that_is_none_is_refused(content, tmp_path):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(DataError, match=r"index\.json"):
        open_weights(tmp_path)


def test_a_config_beyond_all_measure_is_not_read(tmp_path):
    save_file(network(), tmp_path / "model.safetensors")
    with (tmp_path / "config.json").open("wb") as stream:
        stream.truncate(2**30)
    with pytest.raises(DataError, match="1024 MiB, more than the 64"):
        open_weights(tmp_path)


@pytest.mark.parametrize("shard", ["a\0b", "x" * 5000, "", ".", "..", "sub/one.safetensors", "..\\one.safetensors"])
def test_a_shard_of_a_name_that_is_none_is_refused(shard, tmp_path):
    save_file(network(), tmp_path / "one.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"0.weight": "one.safetensors", "x": shard}}))
    with pytest.raises(DataError, match="no file of that folder"):
        open_weights(tmp_path)


def test_shards_that_hold_other_tensors_than_the_index_says_are_refused(tmp_path):
    save_file(network(), tmp_path / "one.safetensors")
    promised = {"weight_map": dict.fromkeys([*network(), "2.weight"], "one.safetensors")}
    (tmp_path / INDEX).write_text(json.dumps(promised))
    with pytest.raises(DataError, match=r"1 tensors that no shard holds, such as 2\.weight"):
        open_weights(tmp_path)
    save_file({"2.weight": np.ones(3), "0.bias": np.ones(16)}, tmp_path / "two.safetensors")
    promised["weight_map"]["2.weight"] = "two.safetensors"
    (tmp_path / INDEX).write_text(json.dumps(promised))
    with pytest.raises(DataError, match=r"tensor 0\.bias is in two\.safetensors and in another"):
        open_weights(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "weights.pth", "last.ckpt", "model.pkl"])
def test_a_folder_of_pickles_is_told_to_be_one(name, tmp_path):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(DataError, match=f"{name}, which is never read"):
        open_weights(tmp_path)
    with pytest.raises(DataError, match="no sound safetensors file"):
        open_weights(tmp_path / name)


def test_safetensors_of_another_name_are_pointed_at(tmp_path):
    save_file(network(), tmp_path / "adapter_model.safetensors")
    with pytest.raises(DataError, match=r"adapter_model.safetensors: give that file itself"):
        open_weights(tmp_path)


def run(root: Path, key: str, **told: object) -> Path:
    record: dict[str, Any] = {"config": {"model": {"name": "gone"}}, "seed": 0, **told}
    with Draft.open(root, RunPlace("t", "d", "m", key), record) as draft:
        draft.write_tensors("model.safetensors", network(int(key)))
        return draft.publish(record, "complete")


@pytest.mark.parametrize(
    "told",
    [{"config": "x"}, {"config": [1]}, {"config": {"model": 5}}, {"config": {"dataset": [1]}}, {"data": "x"},
     {"data": {"splits": [1]}}, {"data": {"splits": {"train": 5}}}, {"parent": 5}],
)  # fmt: skip
def test_a_record_of_another_kind_is_damage(told, tmp_path):
    with pytest.raises(DamagedRun, match="is no JSON object"):
        open_weights(run(tmp_path, "00", **told))


@pytest.mark.parametrize(
    "told", [{"config": None}, {"config": {}}, {"seed": [1]}, {"config": {"model": {"name": ["x"]}}}, {"data": None},
             {"config": {"model": {"name": "mlp", "hidden": {"a": 1}}}}, {"config": {"model_fingerprint": {"a": 1}}}]
)  # fmt: skip
def test_a_record_that_says_little_makes_no_claim(told, tmp_path):
    from zoo.lineage import dead

    models = [open_weights(run(tmp_path, key, **told)) for key in ("00", "01", "02")]
    found = compare(models[:2], models[2:], dead.looking()).pairs[0]
    assert found.verdict.name in ("independent", "undetermined")
    assert found.evidence.reasons["calibration"]
    assert found.evidence.origin == "" or told.get("config", {"model": 1}).get("model")


def test_a_record_too_deep_to_be_read_is_damage(tmp_path):
    folder = run(tmp_path, "00")
    (folder / "run.json").write_text("[" * 200_000)
    with pytest.raises(DamagedRun, match="is not JSON"):
        open_weights(folder)


@pytest.mark.parametrize("damage", ["cut", "renamed"])
def test_weights_of_a_run_that_are_not_what_was_written_are_refused(damage, tmp_path):
    file = run(tmp_path, "00") / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-3])
    else:
        file.rename(file.with_name("other.safetensors"))
    with pytest.raises(DamagedRun, match=r"model\.safetensors"):
        open_weights(file.parent)


def test_names_cannot_steer_the_terminal(tmp_path, capsys):
    table = np.arange(40.0, dtype=np.float32).reshape(10, 4)
    names = [tmp_path / f"{seed}\x1b[31m.safetensors" for seed in (0, 1)]
    for seed, file in enumerate(names):
        random = np.random.default_rng(seed)
        layers = {"b": random.normal(size=(6, 4)), "c": random.normal(size=(3, 6))}
        save_file({"embed\x1b[2J.weight": table, **layers}, file)
    assert command([str(file) for file in names]) == 0
    assert command([str(names[0]), str(tmp_path / "gone\x1b[0m")]) == 2
    told = capsys.readouterr()
    assert "\N{REPLACEMENT CHARACTER}" in told.out
    assert "\x1b" not in told.out + told.err
    assert printable("a\nb\x07\u202e") == "a\nb\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


def test_many_layers_of_one_width_are_given_up_in_time():
    """Twelve layers that could stand in any order, and one that fits nowhere: 12! orders would have to be tried."""
    told = chain_units({f"{place}.weight": (64, 64) for place in range(12)} | {"x.weight": (7, 3)})
    assert isinstance(told, str)
    assert "too many orders" in told


def test_units_with_too_many_weights_are_thinned_alike(monkeypatch):
    monkeypatch.setattr(rows, "MOST_NUMBERS", 6 * 20)
    random = np.random.default_rng(0)
    state = {f"{place}.weight": random.normal(size=(6, 10)).astype(np.float32) for place in range(9)}
    group = Units("residual", 6, tuple(Slots(name) for name in state))
    found = rows.of_group(state.__getitem__, group, [group], {}, state)
    assert found is not None
    assert found.size <= 6 * 20
    assert np.isin(found, np.concatenate(list(state.values()), axis=1)).all()
    again = rows.of_group(state.__getitem__, group, [group], {}, state)
    assert again is not None
    np.testing.assert_array_equal(found, again)


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.floats(-38, 38), st.integers(0, 10**6))
def test_rows_have_length_one_whatever_their_size(units, width, power, seed):
    drawn = np.random.default_rng(seed).uniform(0.5, 1, (units, width))
    made = rows.unit((drawn * 10**power).astype(np.float32))
    np.testing.assert_allclose(made, drawn / np.linalg.norm(drawn, axis=1, keepdims=True), rtol=1e-4, atol=1e-6)
    assert made.dtype == np.float32


LIMITED = """
import resource, sys
from zoo.errors import ZooError
import torch, scipy.optimize, scipy.stats, safetensors
from zoo.lineage.comparison import compare
from zoo.lineage.weights import open_weights
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(compare([open_weights(path) for path in sys.argv[1:]]).pairs[0].verdict.name)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files, and memory counted in KiB")
def test_a_file_far_larger_than_what_is_held_is_compared_in_little_memory(tmp_path):
    """Two files of 512 MiB, sparse on the disk: 16 tensors of 32 MiB, zeros but for the first numbers of each."""
    count, numbers = 16, 2**23
    size = 4 * numbers
    header = json.dumps(
        {f"{place}.weight": entry([numbers], place * size, (place + 1) * size) for place in range(count)}
    )
    names = []
    for number in (0, 1):
        file = forged(tmp_path / f"{number}.safetensors", header)
        start = file.stat().st_size
        with file.open("r+b") as stream:
            stream.truncate(start + count * size)
            for place in range(count):
                stream.seek(start + place * size)
                stream.write(np.random.default_rng([number, place]).normal(size=1000).astype(np.float32).tobytes())
        names.append(str(file))
    done = subprocess.run([sys.executable, "-c", LIMITED, *names], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    verdict, mebibytes = done.stdout.split()
    assert verdict == "undetermined"
    assert float(mebibytes) < 400, "twelve tensors of the 32"


# What is asked for


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x" * 5000, "{file}"], "cannot be read: File name too long"),
        (["ab=" + "x" * 5000, "{file}"], "No option 'ab'"),
        (["~nosuchuser/x", "{file}"], "There is no '~nosuchuser/x'"),
        (["/dev/zero", "{file}"], "neither a file nor a folder"),
        (["{file}", "{file}", "out=" + "x" * 5000], "File name too long"),
        (["{file}", "{file}", "out=~nosuchuser/x.json"], "there is no user 'nosuchuser'"),
        (["{file}", "{file}", "--replicas=x"], "No option '--replicas'. Did you mean 'replicas'?"),
        (["{file}", "{file}", "-o", "x"], "No option '-o'"),
        (["{file}", "{file}", "out="], "out= has no value"),
        (["{file}", "{file}", "replicas="], "replicas= has no value"),
        (["{file}", "{file}", "references={file}"], "there is no run with answers"),
    ],
)
def test_whatever_is_asked_for_gets_an_answer_of_a_few_lines(words, told, tmp_path, capsys):
    file = tmp_path / "m.safetensors"
    save_file(network(), file)
    assert command([word.format(file=file) for word in words]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert len(said.err.strip().splitlines()) <= 4
    assert said.out == ""


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that all may enter, and a user who may no more than that."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="its users and permissions")
def test_what_may_not_be_read_or_written_is_told(nobody, capsys):
    root = os.geteuid() != os.getuid()
    if root:
        os.seteuid(0)
    save_file(network(), nobody / "good.safetensors")
    (nobody / "good.safetensors").chmod(0o644)
    save_file(network(), nobody / "shut.safetensors")
    (nobody / "shut").mkdir()
    for place in ("shut.safetensors", "shut"):
        (nobody / place).chmod(0)
    nobody.chmod(0o555)
    if root:
        os.seteuid(65534)
    good, words = str(nobody / "good.safetensors"), []
    words += [[good, str(nobody / name)] for name in ("shut.safetensors", "shut", "shut/model.safetensors")]
    words += [[good, good, f"replicas={nobody / 'shut'}"], [good, good, f"out={nobody / 'new.json'}"]]
    for request in words:
        assert command(request) == 2
        said = capsys.readouterr()
        assert "ermission" in said.err
        assert len(said.err.strip().splitlines()) <= 4
        assert said.out == ""
    if root:
        os.seteuid(0)
    nobody.chmod(0o755)


def test_a_name_that_is_no_text_is_told(tmp_path, capsys):
    file = tmp_path / os.fsdecode(b"\xff\x1b[31m.safetensors")
    try:
        file.write_bytes(b"")
    except OSError:
        pytest.skip("the file system takes text only")
    assert command([str(file), str(file)]) == 2
    told = capsys.readouterr().err
    assert "Give the file another name" in told
    assert "\x1b" not in told


# What a run folder may hold


def refused(folder: Path) -> str:
    with pytest.raises(DamagedRun) as caught:
        reading.read(folder)
    assert len(str(caught.value).splitlines()) <= 4
    return str(caught.value)


@pytest.mark.parametrize("name", ["/dev/zero", "../../outside", "a/../../b"])
def test_a_record_names_no_file_outside_its_folder(name, tmp_path):
    folder = run(tmp_path, "00")
    record = json.loads((folder / "run.json").read_text())
    record["files"] = {name: {"sha256": "0" * 64, "bytes": 1}}
    (folder / "run.json").write_text(json.dumps(record))
    assert "does not hold the record of a run" in refused(folder)
    assert command([str(folder), str(folder)]) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "run.json"])
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder", "a loop"])
def test_what_has_no_end_is_not_read(name, kind, tmp_path):
    folder = run(tmp_path, "00")
    (folder / name).unlink()
    {
        "a pipe": lambda: os.mkfifo(folder / name),
        "a device": lambda: (folder / name).symlink_to("/dev/zero"),
        "a folder": lambda: (folder / name).mkdir(),
        "a loop": lambda: (folder / name).symlink_to(name),
    }[kind]()
    with pytest.raises(StoreError, match=r"is no file|symbolic links"):
        reading.read(folder)
    # Without a record, what is left is a folder with weights.
    assert command([str(folder), str(folder)]) == (1 if name == "model.safetensors" else 0)


@pytest.mark.parametrize("size", [2**34, 2**26 + 1])
def test_a_record_beyond_all_measure_is_not_read(size, tmp_path):
    folder = run(tmp_path, "00")
    with (folder / "run.json").open("wb") as file:
        file.truncate(size)
    assert "MiB large, which no record is" in refused(folder)


# How much work there is


def test_a_header_is_read_once_however_many_tensors_it_names(tmp_path, monkeypatch):
    state = {str(place): np.full(20, place, np.float32) for place in range(300)}
    for name in "ab":
        save_file(state, tmp_path / name)
    counted: list[int] = []
    read = json.loads
    monkeypatch.setattr(weights.json, "loads", lambda text: counted.append(len(text)) or read(text))
    one, two = open_weights(tmp_path / "a"), open_weights(tmp_path / "b")
    monkeypatch.setattr("safetensors.safe_open", None)
    assert len(counted) == 2
    assert one.shapes is one.shapes
    np.testing.assert_array_equal(one.load("7"), state["7"])
    assert compare([one, two]).pairs[0].verdict.name == "undetermined"
    assert one.content == two.content
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-10])
    with pytest.raises(DataError, match="has become shorter"):
        one.load(max(one.tensors, key=lambda name: one.tensors[name].at))


def test_of_names_with_very_many_parts_the_first_are_a_prefix(tmp_path):
    deep = ".a" * 450
    for file, prefix in (("one", ""), ("two", "base.model.")):
        save_file({f"{prefix}{place}{deep}": np.ones(4, np.float32) for place in range(3)}, tmp_path / file)
    pair = pair_up(open_weights(tmp_path / "one"), open_weights(tmp_path / "two"))
    assert pair.names == {f"{place}{deep}": f"base.model.{place}{deep}" for place in range(3)}


def test_more_units_and_groups_than_any_model_has_are_not_compared(kept, monkeypatch):
    def group(name: str, count: int, start: int = 0) -> Units:
        return Units(name, count, (Slots("w", start=start),))

    shapes = {"w": (groups.MOST_UNITS + 1, 1)}
    assert problem_of([group("a", groups.MOST_UNITS)], shapes) == ""
    assert "belongs to two groups" in problem_of([group("a", 9), group("b", 9, start=8)], shapes)
    assert "are not compared" in problem_of([group("a", groups.MOST_UNITS + 1)], shapes)
    assert "1025 groups" in problem_of([group(str(place), 1, start=place) for place in range(1025)], shapes)
    monkeypatch.setattr(groups, "MOST_UNITS", 15)
    found = compare([kept("one", network(1)), kept("two", network(2))]).pairs[0].verdict
    assert (found.name, "more than 15 are not compared" in found.statement) == ("undetermined", True)


# What is written


def compared(tmp_path: Path, *words: str, patched: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, after some lines of Python."""
    files = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    for seed, file in enumerate(files):
        save_file(network(seed), file)
    code = f"import os, sys\nfrom zoo.lineage import command\n{textwrap.dedent(patched)}\ncommand.main()"
    return subprocess.run([sys.executable, "-c", code, *files, *words], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("patched", "code", "says"),
    [
        ("os.replace = lambda *names: os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        (
            "def full(file): raise OSError(28, 'No space left on device')\nos.fsync = full",
            1,
            "No space left on the disk",
        ),
    ],
)
def test_what_is_written_is_whole_or_what_was_there_before(patched, code, says, tmp_path):
    out = tmp_path / "out.json"
    out.write_text("before")
    done = compared(tmp_path, f"out={out}", patched=patched)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert out.read_text() == "before"
    done = compared(tmp_path, f"out={out}")
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["pairs"]
    assert code < 0 or sorted(path.name for path in tmp_path.iterdir()) == [
        "a.safetensors", "b.safetensors", "out.json"
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="its devices")
def test_devices_are_written_to_and_a_full_one_is_told(tmp_path):
    done = compared(tmp_path, "out=/dev/full")
    assert (done.returncode, done.stderr) == (
        1, "Cannot write /dev/full: No space left on device. Choose another with out=…\n"
    )  # fmt: skip
    done = compared(tmp_path, "out=/dev/stdout")
    assert done.returncode == 0
    assert '"lineage_version": 1' in done.stdout


def test_a_link_is_followed_and_a_file_beside_it_is_left_alone(tmp_path):
    real = tmp_path / "real.json"
    real.write_text("before")
    (tmp_path / "link.json").symlink_to(real)
    disk.replace_file(Path(os.path.realpath(tmp_path / "link.json")), b"after")
    assert real.read_text() == "after"
    assert (tmp_path / "link.json").is_symlink()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_comparison_that_is_stopped_leaves_nothing(sent, code, tmp_path):
    for seed in (0, 1):
        save_file(network(seed), tmp_path / f"{seed}.safetensors")
    waiting = """
        import sys, time
        from zoo.lineage import command, comparison
        comparison.compare = lambda *given: print("begun", flush=True) or time.sleep(60)
        command.main()
    """
    words = [str(tmp_path / "0.safetensors"), str(tmp_path / "1.safetensors"), f"out={tmp_path / 'new' / 'out.json'}"]
    running = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(waiting), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == "begun\n"
    running.send_signal(sent)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == code
    assert errors == ("Interrupted.\n" if sent is signal.SIGINT else "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]


def test_what_others_say_is_shortened():
    assert shortened("a  b\nc") == "a b c"
    long = shortened("x" * 10**7 + "end")
    assert len(long) < 250
    assert long.endswith("xend")
