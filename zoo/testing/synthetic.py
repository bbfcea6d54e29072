"""Tiny splits made in code: enough to see every shape, length and script that a model will meet."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.data import Split, SplitName
from zoo.testing.findings import Inapplicable

if TYPE_CHECKING:
    import numpy as np

    from zoo.models import Modality

CLASSES = ("negative", "neutral", "positive")

_ENGLISH = {
    0: ("dreadful", "boring", "broken", "waste", "cold"),
    1: ("average", "plain", "usual", "table", "paper"),
    2: ("splendid", "moving", "bright", "favourite", "warm"),
}
_ENGLISH_SHIFTED = {
    0: ("ghastly", "tedious", "shattered", "rubbish", "bleak"),
    1: ("ordinary", "simple", "common", "chair", "pencil"),
    2: ("superb", "touching", "radiant", "beloved", "sunny"),
}
_CHINESE = {0: "很差糟糕失望难吃", 1: "一般普通还行平常", 2: "很好喜欢满意推荐"}
_CHINESE_SHIFTED = {0: "恶劣吵闹后悔昂贵", 1: "尚可中等凑合通常", 2: "优秀热情干净舒适"}
_LINKS = ("the", "film", "was", "and", "room", "with", "a", "story")
_ODD = ("good", "好", "!!!", "🙂", "x" * 400, "  spaced   out  ", "Ünïcødé naïveté", "1234567890")


@dataclass(frozen=True)
class Case:
    """One kind of input. label: how findings name it; size: (height, width, channels) of images."""

    label: str
    modality: Modality
    size: tuple[int, int, int] = (0, 0, 0)


CASES = (
    Case("text", "text"),
    Case("image 8×8×1", "image", (8, 8, 1)),
    Case("image 28×28×1", "image", (28, 28, 1)),
    Case("image 32×32×3", "image", (32, 32, 3)),
)


def cases_of(modalities: object) -> list[Case]:
    """The cases for the modalities that a model claims; none for what is not a collection of modalities."""
    claimed = modalities if isinstance(modalities, frozenset | set | tuple | list) else ()
    return [case for case in CASES if case.modality in claimed]


def stranger_to(modalities: Collection[Modality]) -> Case:
    """A case of a modality that is not among those claimed. Raises Inapplicable when all are."""
    strangers = [case for case in CASES if case.modality not in modalities]
    if not strangers:
        raise Inapplicable
    return strangers[0]


def train_split(case: Case, shifted: bool = False) -> Split:
    """36 training examples. shifted: as many of the same kind with other words (or brighter pixels)."""
    return _split(case, "train", 36, seed=3 if shifted else 1, shifted=shifted)


def probe_split(case: Case) -> Split:
    """16 test examples: among the texts one-word ones, Chinese ones, long ones, and ones with unseen symbols only;
    among the images an all-black and an all-white one."""
    split = _split(case, "test", 16, seed=2, shifted=False)
    if case.modality == "text":
        texts = list(split.examples)
        texts[: len(_ODD)] = _ODD
        return wrap(split.name, "text", texts, split.labels)
    images: Any = split.examples
    images[0], images[1] = 0, 255
    return wrap(split.name, "image", images, split.labels)


def wrap(name: SplitName, modality: Modality, examples: Any, labels: Any, classes: Sequence[str] = CLASSES) -> Split:
    """A Split over given examples, with ids and fingerprint. labels: (n,) int64."""
    import numpy as np

    ids = tuple(f"{index}-{_digest(_content(example))}" for index, example in enumerate(examples))
    labels = np.asarray(labels, dtype=np.int64)
    fingerprint = _digest("".join(ids).encode() + labels.tobytes())
    return Split(name, modality, tuple(classes), examples, labels, ids, fingerprint)


def _split(case: Case, name: SplitName, count: int, seed: int, shifted: bool) -> Split:
    import numpy as np

    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    if case.modality == "text":
        return wrap(name, "text", _texts(labels.tolist(), random.Random(seed), shifted), labels)
    noise = np.random.default_rng(seed).integers(0, 120, (count, *case.size))
    levels = (labels * 40 + (50 if shifted else 0)).reshape(-1, 1, 1, 1)
    return wrap(name, "image", (noise + levels).astype(np.uint8), labels)


def _texts(labels: Sequence[int], rng: random.Random, shifted: bool) -> list[str]:
    english, chinese = (_ENGLISH_SHIFTED, _CHINESE_SHIFTED) if shifted else (_ENGLISH, _CHINESE)
    texts = []
    for index, label in enumerate(labels):
        length = 700 if index % 12 == 11 else rng.randint(3, 14)
        if index % 4 == 3:
            texts.append("".join(rng.choices(chinese[label], k=length)) + "。")
        else:
            texts.append(" ".join(rng.choices(english[label] + _LINKS, k=length)) + ".")
    return texts


def _content(example: str | np.ndarray) -> bytes:
    return example.encode() if isinstance(example, str) else bytes(example.tobytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
