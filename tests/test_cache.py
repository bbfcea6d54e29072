"""The encoding cache on a real disk: hits, damage, eviction, concurrent and killed writers, and its command."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.data.cache import Entry, clear, encode, entries, place, vectors


@dataclass
class Counting(zoo.Encoder):
    """Lengths of words; counts how often it was asked."""

    asked: int = 0
    key_text: str = "one"
    kind: str = "tokens"

    @property
    def spec(self) -> zoo.InputSpec:
        return zoo.InputSpec(kind="tokens", shape=(64,), vocab_size=100)

    @property
    def key(self) -> str:
        return self.key_text

    def encode(self, examples):
        self.asked += 1
        if self.kind == "tokens":
            return zoo.Tokens.pack([[len(word) for word in text.split()] for text in examples])
        if self.kind == "objects":
            return zoo.Dense(np.array([{} for _ in examples], dtype=object))
        if self.kind == "short":
            return zoo.Dense(np.zeros((len(examples) - 1, 2), np.float32))
        return zoo.Dense(np.array([[len(text)] for text in examples], np.float32))


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch):
    monkeypatch.delenv("ZOO_CACHE", raising=False)
    monkeypatch.delenv("ZOO_CACHE_LIMIT", raising=False)


def split(count: int = 50, fingerprint: str = "f") -> zoo.Split:
    texts = [f"word number {'x' * (i % 7 + 1)}" for i in range(count)]
    ids = tuple(map(str, range(count)))
    return zoo.Split("train", "text", ("a", "b"), texts, np.arange(count) % 2, ids, fingerprint)


def only(root: Path) -> Entry:
    (entry,) = entries(root)
    return entry


@pytest.mark.parametrize("kind", ["tokens", "dense"])
def test_the_second_time_comes_from_the_disk_and_is_the_same(tmp_path, kind):
    encoder = Counting(kind=kind)
    fresh = encoder.encode(split().examples)
    first, second = encode(encoder, split(), tmp_path), encode(encoder, split(), tmp_path)
    assert encoder.asked == 2
    for name in ("ids", "offsets") if kind == "tokens" else ("values",):
        arrays = [getattr(encoded, name) for encoded in (fresh, first, second)]
        assert len({(array.dtype, array.shape, array.tobytes()) for array in arrays}) == 1
        assert not arrays[2].flags.writeable
    entry = only(tmp_path)
    assert (entry.encoder, entry.split, entry.examples) == ("Counting", "train", 50)
    assert entry.bytes == sum(path.stat().st_size for path in entry.path.iterdir())


def test_another_encoder_or_another_split_is_another_entry(tmp_path):
    for encoder, data in ((Counting(), split()), (Counting(key_text="two"), split()), (Counting(), split(50, "g"))):
        encode(encoder, data, tmp_path)
        assert encoder.asked == 1
    assert len(entries(tmp_path)) == 3


def test_an_encoder_that_loses_examples_is_named(tmp_path):
    with pytest.raises(zoo.PluginError, match=r"Counting.encode was given 50 examples and returned 49 of them"):
        encode(Counting(kind="short"), split(), tmp_path)
    assert entries(tmp_path) == []


def blocks(sizes, held):
    """Rows block by block; held: how many blocks are alive when the next one is made."""
    rows = np.arange(sum(sizes) * 3, dtype=np.float32).reshape(-1, 3)
    alive = []
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        held.append(sum(block() is not None for block in alive))
        block = rows[start : start + size].copy()
        alive.append(weakref.ref(block))
        yield block
        del block


def test_vectors_are_written_block_by_block_and_found_again(tmp_path):
    held = []
    made = vectors(("net", "body"), split(), lambda: blocks([20, 20, 10], held), tmp_path)
    assert made.made
    assert made.seconds > 0
    assert max(held) <= 1  # the one before, while it makes room for the next
    np.testing.assert_array_equal(made.dense.values, np.arange(150, dtype=np.float32).reshape(50, 3))
    again = vectors(("net", "body"), split(), lambda: pytest.fail("made twice"), tmp_path)
    assert (again.made, again.seconds, again.dense.values.flags.writeable) == (False, made.seconds, False)
    np.testing.assert_array_equal(again.dense.values, made.dense.values)
    entry = only(tmp_path)
    assert (entry.encoder, entry.split, entry.examples) == ("net", "train", 50)
    assert vectors(("net", "other"), split(), lambda: blocks([50], held), tmp_path).made
    assert vectors(("net", "body"), split(50, "g"), lambda: blocks([50], held), tmp_path).made


def test_vectors_that_cannot_be_kept_are_left_to_the_caller(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE_LIMIT", "599")  # 50 x 3 float32 are 600 bytes
    assert vectors(("net",), split(), lambda: blocks([50], []), tmp_path) is None
    monkeypatch.setenv("ZOO_CACHE_LIMIT", "6000")
    (tmp_path / "file").touch()
    assert vectors(("net",), split(), lambda: blocks([50], []), tmp_path / "file") is None
    monkeypatch.setenv("ZOO_CACHE", "off")
    assert vectors(("net",), split(), lambda: pytest.fail("made for nothing")) is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def truncate(entry: Path) -> None:
    content = (entry / "ids.npy").read_bytes()
    (entry / "ids.npy").write_bytes(content[:-20])


def flip(entry: Path) -> None:
    content = bytearray((entry / "ids.npy").read_bytes())
    content[-3] ^= 1
    (entry / "ids.npy").write_bytes(content)


def shorten(entry: Path) -> None:
    """A well-formed entry of fewer examples, checksums and all."""
    import zlib

    record = json.loads((entry / "entry.json").read_text())
    np.save(entry / "offsets.npy", np.array([0, 3, 6]))
    np.save(entry / "ids.npy", np.arange(6, dtype=np.int32))
    record["arrays"] = {name: zlib.crc32((entry / f"{name}.npy").read_bytes()) for name in ("ids", "offsets")}
    (entry / "entry.json").write_text(json.dumps(record))


def recount(entry: Path) -> None:
    record = json.loads((entry / "entry.json").read_text()) | {"examples": 49}
    (entry / "entry.json").write_text(json.dumps(record))


def no_npy(entry: Path) -> None:
    import zlib

    (entry / "ids.npy").write_bytes(b"no array")
    record = json.loads((entry / "entry.json").read_text())
    record["arrays"]["ids"] = zlib.crc32(b"no array")
    (entry / "entry.json").write_text(json.dumps(record))


DAMAGE = {
    "truncated": truncate,
    "flipped": flip,
    "shortened": shorten,
    "recounted": recount,
    "no npy": no_npy,
    "missing array": lambda entry: (entry / "offsets.npy").unlink(),
    "missing record": lambda entry: (entry / "entry.json").unlink(),
    "bad record": lambda entry: (entry / "entry.json").write_text("{"),
    "other record": lambda entry: (entry / "entry.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_rebuilt(tmp_path, damage):
    encoder = Counting()
    good = encode(encoder, split(), tmp_path).ids.tobytes()
    DAMAGE[damage](only(tmp_path).path)
    assert encode(encoder, split(), tmp_path).ids.tobytes() == good
    assert encoder.asked == 2
    assert encode(encoder, split(), tmp_path).ids.tobytes() == good
    assert encoder.asked == 2
    assert [path for path in (tmp_path / "encodings").iterdir() if path.name.startswith(".")] == []


def test_the_entry_not_used_for_longest_goes_first(tmp_path, monkeypatch):
    folders: dict[str, Path] = {}
    for age, name in enumerate("abc"):
        encode(Counting(key_text=name), split(), tmp_path)
        (folders[name],) = {entry.path for entry in entries(tmp_path)} - set(folders.values())
        os.utime(folders[name] / "entry.json", (1000 + age, 1000 + age))
    encode(Counting(key_text="a"), split(), tmp_path)
    monkeypatch.setenv("ZOO_CACHE_LIMIT", str(sum(entry.bytes for entry in entries(tmp_path))))
    encode(Counting(key_text="d"), split(), tmp_path)
    kept = {entry.path for entry in entries(tmp_path)}
    assert folders["b"] not in kept
    assert {folders["a"], folders["c"]} < kept
    assert len(kept) == 3


def test_an_encoding_over_the_limit_is_not_kept_and_evicts_nothing(tmp_path, monkeypatch, caplog):
    encode(Counting(), split(), tmp_path)
    monkeypatch.setenv("ZOO_CACHE_LIMIT", "900")
    assert len(encode(Counting(), split(500, "large"), tmp_path)) == 500
    assert only(tmp_path).examples == 50
    assert "over the limit of 900" in caplog.text
    monkeypatch.setenv("ZOO_CACHE_LIMIT", "4GB")
    with pytest.raises(zoo.ConfigError, match="ZOO_CACHE_LIMIT=4GB: it must be a number of bytes"):
        encode(Counting(key_text="new"), split(), tmp_path)


def test_off_means_off_and_the_place_is_chosen_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert place() is not None
    assert tmp_path in place().parents
    monkeypatch.setenv("ZOO_CACHE", "~/here")
    assert place() == tmp_path / "here"
    encode(Counting(), split())
    assert only(tmp_path / "here").examples == 50
    monkeypatch.setenv("ZOO_CACHE", "off")
    encoder = Counting()
    encode(encoder, split())
    encode(encoder, split())
    assert encoder.asked == 2


def test_a_place_that_cannot_be_used_costs_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    for name in ("one", "two"):
        assert len(encode(Counting(key_text=name), split(), tmp_path / "file")) == 50
    assert len(encode(Counting(kind="objects"), split(), tmp_path / "cache")) == 50
    lines = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 2
    assert "The encoding cache in" in lines[0].message
    assert "Python objects" in lines[1].message
    assert list((tmp_path / "cache" / "encodings").iterdir()) == []


SCRIPT = """
import importlib.util, logging, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("cases", {here!r})
cases = importlib.util.module_from_spec(spec); sys.modules["cases"] = cases; spec.loader.exec_module(cases)
logging.basicConfig(format="%(message)s")
root = Path(sys.argv[1])
"""


def process(root: Path, code: str, **options) -> subprocess.Popen[str]:
    full = SCRIPT.format(here=__file__) + code
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", full, str(root)], **pipes, **options)


def test_no_space_left_costs_one_warning_and_leaves_nothing_behind(tmp_path):
    # A limit on the size of files makes write() fail as a full disk does.
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
print(len(cases.encode(cases.Counting(), cases.split(5000), root)), cases.entries(root))
"""
    # Coverage could not write its own file under that limit, and would say so.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    out, err = process(tmp_path, code, env=env).communicate(timeout=60)
    assert out == "5000 []\n"
    assert len(err.splitlines()) == 1, err
    assert "is not used" in err
    assert list((tmp_path / "encodings").iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_costs_one_warning(tmp_path, caplog):
    tmp_path.chmod(0o500)
    assert len(encode(Counting(), split(), tmp_path)) == 50
    assert "Permission denied" in caplog.text


def test_a_cache_that_is_only_readable_still_serves(tmp_path):
    encode(Counting(), split(), tmp_path)
    code = "encoder = cases.Counting(); cases.encode(encoder, cases.split(), root); print(encoder.asked)"
    folder = only(tmp_path).path
    folder.chmod(0o500)
    (folder.parent).chmod(0o500)
    out, err = process(tmp_path, code).communicate(timeout=60)
    (folder.parent).chmod(0o700)
    assert (out, err) == ("0\n", "")


def test_writers_at_the_same_time_do_each_other_no_harm(tmp_path):
    code = """
for turn in range(40):
    encoded = cases.encode(cases.Counting(key_text=str(turn % 10)), cases.split(), root)
    assert len(encoded) == 50 and encoded.offsets[-1] == len(encoded.ids)
"""
    limit = {"env": {**os.environ, "ZOO_CACHE_LIMIT": "6000"}}
    for process_ in [process(tmp_path, code, **limit) for _ in range(3)]:
        out, err = process_.communicate(timeout=60)
        assert (process_.returncode, out, err) == (0, "", "")
    assert 1 <= len(entries(tmp_path)) <= 10
    assert [path for path in (tmp_path / "encodings").iterdir() if path.name.startswith(".")] == []


def test_a_killed_writer_leaves_nothing_that_is_read_and_its_rest_is_removed(tmp_path):
    code = """
import itertools
print("ready", flush=True)
for turn in itertools.count():
    cases.encode(cases.Counting(key_text=str(turn)), cases.split(3000), root)
"""
    for turn in range(6):
        writer = process(tmp_path, code)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.02 + 0.013 * turn)
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=60)
        for entry in entries(tmp_path):
            assert {path.name for path in entry.path.iterdir()} == {"entry.json", "ids.npy", "offsets.npy"}
    (tmp_path / "encodings" / ".draft-1-old").mkdir()
    for path in (tmp_path / "encodings").iterdir():
        if path.name.startswith(".draft-"):
            os.utime(path, (1000, 1000))
    count = len(entries(tmp_path))
    for turn in range(count):
        encoder = Counting(key_text=str(turn))
        encode(encoder, split(3000), tmp_path)
        assert encoder.asked == 0, "every entry that is listed is whole"
    encode(Counting(key_text="new"), split(), tmp_path)
    assert [path.name for path in (tmp_path / "encodings").iterdir() if path.name.startswith(".draft-")] == []


def command(root: Path | str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "ZOO_CACHE": str(root), "COLUMNS": "160", **env}
    return subprocess.run([sys.executable, "-m", "zoo.cache", *arguments], capture_output=True, text=True, env=full)


def test_the_command_lists_and_clears(tmp_path):
    empty = command(tmp_path)
    assert (empty.returncode, empty.stdout) == (0, f"0 entries, 0 B of 4.0 GiB in {tmp_path}\n")
    for fingerprint in "ab":
        encode(Counting(), split(1234, fingerprint), tmp_path)
    listed = command(tmp_path, "list", ZOO_CACHE_LIMIT="1048576")
    assert listed.returncode == 0
    assert listed.stdout.count("Counting") == 2
    for part in ("1,234", "train", "last used", "2 entries, 4", "of 1.0 MiB in"):
        assert part in listed.stdout
    size = sum(entry.bytes for entry in entries(tmp_path))
    cleared = command(tmp_path, "clear")
    assert (cleared.returncode, cleared.stdout) == (0, f"Freed {size / 1024:.1f} KiB in {tmp_path}\n")
    assert entries(tmp_path) == []
    assert clear(tmp_path) == 0


def test_the_command_says_what_is_wrong(tmp_path):
    assert command("off").stdout == "The cache is off (ZOO_CACHE=off).\n"
    wrong = command(tmp_path, "list", ZOO_CACHE_LIMIT="many")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("ZOO_CACHE_LIMIT=many: it must be a number of bytes")
    assert command(tmp_path, "burn").returncode == 2
