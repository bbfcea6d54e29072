"""dataset=hub and dataset=hub_images on local folders in the hub's layout, each in a process without network."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

pytest.importorskip("datasets", reason="the extra 'hub' is not installed")

CODE = """
import sys, warnings
warnings.simplefilter("ignore")  # what the package and its dependencies warn of is not ours
import zoo
from zoo.data.hub import Hub, HubImages
for options in {calls}:
    try:
        splits = zoo.load(options)
        print(len(splits.train), len(splits.validation), len(splits.test), *splits.classes, sep=",")
    except zoo.ZooError as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


def outcomes(folder: Path, *calls: str, blocked: bool = False) -> list[str]:
    """One line for each expression, run in a fresh process with no way to the network."""
    code = CODE.format(calls=f"[{', '.join(calls)}]")
    if blocked:
        code = "import sys; sys.modules['datasets'] = None\n" + code
    env = {**os.environ, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def table(path: Path, start: int, count: int, labels=(0, 1), names=("bad", "good")) -> None:
    """A parquet file as the hub has it: with the names of the classes in its metadata."""
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"sentence": [f"text {i}" for i in range(start, start + count)]}
    rows["label"] = [labels[i % len(labels)] for i in range(count)]
    features = {
        "sentence": {"dtype": "string", "_type": "Value"},
        "label": {"names": list(names), "_type": "ClassLabel"},
    }
    schema = pa.schema({"sentence": pa.string(), "label": pa.int64()})
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(pa.table(rows, schema=schema), path)


def test_texts_from_a_local_folder(tmp_path):
    table(tmp_path / "set" / "train.parquet", 0, 40)
    table(tmp_path / "set" / "validation.parquet", 100, 10)
    table(tmp_path / "set" / "test.parquet", 200, 6, labels=(-1,))
    table(tmp_path / "whole" / "train.parquet", 0, 40)
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("open('ran', 'w')")
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "train.xml").write_text("<a/>")
    got = outcomes(
        tmp_path,
        "Hub('set', text='sentence', test='validation')",
        "Hub('set', text='sentence', test='validation', classes=['no', 'yes'])",
        "Hub('whole', text='sentence')",
        "Hub('set', text='sentence')",
        "Hub('set')",
        "Hub('set', text='sentence', test='tset')",
        "Hub('script')",
        "Hub('pandas')",
        "Hub('pickles')",
        "Hub('no/such')",
        "Hub('')",
    )
    assert got[:3] == ["36,4,10,bad,good", "36,4,10,no,yes", "28,4,8,bad,good"]
    assert "test row 1: the label is -1" in got[3]
    assert "say test=validation" in got[3]
    assert "no column 'text'. Its columns: sentence, label." in got[4]
    assert "has no split 'tset'" in got[5]
    assert "brings code of its own, which is not run" in got[6]
    assert not (tmp_path / "ran").exists()
    assert "comes as 'pandas', which is not read" in got[7]
    assert "comes as 'xml', which is not read" in got[8]
    assert "could not be loaded" in got[9]
    assert "No path was given" in got[10]
    assert all(line.startswith("DataError") for line in got[3:])


def test_images_from_a_local_folder(tmp_path):
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for kind in ("ant", "bee"):
            (tmp_path / "set" / split / kind).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (12, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / kind / f"{index}.png")
    got = outcomes(tmp_path, "HubImages('set', size=8)", "HubImages('set', image='label')")
    assert got[0] == "36,4,8,ant,bee"
    assert "the column 'label' holds an int, not a picture" in got[1]


def test_without_the_extra_the_way_to_it_is_told(tmp_path):
    assert "pip install 'zoo-harness[hub]'" in outcomes(tmp_path, "Hub('imdb')", blocked=True)[0]
