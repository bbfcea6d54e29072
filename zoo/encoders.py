"""Encoders that any plugin may use: words (or characters) of a text, pixels of an image."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from zoo.errors import ConfigError, DataError, Incompatible
from zoo.models import Dense, Encoder, InputSpec, Tokens

if TYPE_CHECKING:
    import numpy as np

    from zoo.data import Split

PAD, UNKNOWN = 0, 1
_SPECIALS = 2

# Kana, Han with its extensions and compatibility forms, Hangul excluded: Korean separates words by spaces.
_CJK = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[^\W{_CJK}]+(?:['’][^\W{_CJK}]+)*|[{_CJK}]|[^\w\s]")


class _Vocabulary(dict[str, int]):
    """Ids by token; a missing token is the unknown one. Kept a dict so that look-ups run at C speed under `map`."""

    def __missing__(self, token: str) -> int:
        return UNKNOWN


class WordEncoder(Encoder):
    """Words, punctuation marks and single Chinese or Japanese characters as ids: 0 is padding, 1 an unknown token.

    The vocabulary is learned from `train` alone: the `max_vocabulary` most frequent tokens that occur at least
    `min_count` times, in falling frequency, equals in code-point order. A text is cut after `max_length` tokens; one
    without any token (white space only) becomes the unknown token. `lower` ignores case.
    Raises Incompatible when `train` does not hold texts, ConfigError when an option is under 1.
    """

    def __init__(
        self,
        train: Split,
        max_length: int = 256,
        max_vocabulary: int = 30_000,
        min_count: int = 2,
        lower: bool = True,
    ):
        for option, value in (("max_length", max_length), ("max_vocabulary", max_vocabulary), ("min_count", min_count)):
            if value < 1:
                raise ConfigError(f"{option}={value} is out of range: a whole number of at least 1 is needed.")
        _require_modality(train, "text")
        self.max_length = max_length
        self.lower = lower
        tokens = _most_frequent(map(self.words, _texts(train.examples)), max_vocabulary, min_count)
        self._vocabulary = _Vocabulary(zip(tokens, range(_SPECIALS, _SPECIALS + len(tokens)), strict=True))
        digest = hashlib.sha256("\0".join(tokens).encode("utf-8", "surrogatepass")).hexdigest()
        self._key = f"words/1 max_length={max_length} lower={lower} vocabulary={digest}"

    @property
    def spec(self) -> InputSpec:
        """kind "tokens", pad_id 0, `vocab_size` with the two special ids."""
        return InputSpec("tokens", (self.max_length,), vocab_size=_SPECIALS + len(self._vocabulary), pad_id=PAD)

    @property
    def key(self) -> str:
        """Options and a hash of the vocabulary."""
        return self._key

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The learned tokens; the one at index i has the id i + 2."""
        return tuple(self._vocabulary)

    def words(self, text: str) -> list[str]:
        """The tokens of one text, uncut."""
        return _TOKEN.findall(text.lower() if self.lower else text)

    def encode(self, examples: Sequence[str] | np.ndarray) -> Tokens:
        """examples: texts. Returns one sequence of 1 to `max_length` ids for each."""
        import numpy as np

        ids: list[int] = []
        offsets = np.zeros(len(examples) + 1, np.int64)
        look_up = self._vocabulary.__getitem__
        for index, text in enumerate(_texts(examples), start=1):
            ids.extend(map(look_up, self.words(text)[: self.max_length]))
            if len(ids) == offsets[index - 1]:
                ids.append(UNKNOWN)
            offsets[index] = len(ids)
        return Tokens(np.array(ids, dtype=np.int32), offsets)


class PixelEncoder(Encoder):
    """Pixels as they are, channels first, with the mean and standard deviation of each channel over `train`.

    size: side in pixels to which every image is resized (bilinear, square); None keeps the images as they are.
    A channel that never varies counts as varying by one grey level, so that nothing divides by zero.
    Raises Incompatible when `train` does not hold images, ConfigError when `size` is under 1.
    """

    def __init__(self, train: Split, size: int | None = None):
        if size is not None and size < 1:
            raise ConfigError(f"size={size} is out of range: a side of at least 1 pixel is needed, or null to keep it.")
        _require_modality(train, "image")
        self.size = size
        examples = _images(train.examples)
        height, width, channels = examples.shape[1:]
        self._stored = (height, width, channels)
        self._shape = (channels, size or height, size or width)
        self._mean, self._std = _channel_moments(self.encode(examples).values)

    @property
    def spec(self) -> InputSpec:
        """kind "dense", shape (channels, height, width), mean and std in [0, 1] for each channel."""
        return InputSpec("dense", self._shape, mean=self._mean, std=self._std)

    @property
    def key(self) -> str:
        """Shape and the fitted moments."""
        return f"pixels/1 size={self.size} shape={self._shape} mean={self._mean} std={self._std}"

    def encode(self, examples: Sequence[str] | np.ndarray) -> Dense:
        """examples: (n, height, width, channels) uint8. Returns (n, channels, height, width) uint8.

        Raises DataError when the images differ in shape from those of the training split."""
        import numpy as np

        images = _images(examples)
        if images.shape[1:] != self._stored:
            raise DataError(
                f"Images of shape {images.shape[1:]} (height, width, channels) were given to an encoder fitted on "
                f"{self._stored}.\nAll splits must hold images of one shape: resize them in the dataset."
            )
        if self.size is not None:
            images = _resized(images, self.size)
        return Dense(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _require_modality(train: Split, modality: str) -> None:
    if train.modality != modality:
        raise Incompatible(
            f"This encoder takes {modality} examples and the training split holds {train.modality} examples."
        )


def _texts(examples: Sequence[str] | np.ndarray) -> Iterable[str]:
    return map(str, examples)


def _images(examples: Sequence[str] | np.ndarray) -> np.ndarray:
    import numpy as np

    if not isinstance(examples, np.ndarray) or examples.dtype != np.uint8 or examples.ndim != 4:
        got = f"{examples.dtype} {examples.shape}" if isinstance(examples, np.ndarray) else type(examples).__name__
        raise DataError(f"Images must be one array (n, height, width, channels) of uint8; got {got}.")
    return examples


def _most_frequent(texts: Iterable[list[str]], limit: int, min_count: int) -> list[str]:
    counts: Counter[str] = Counter()
    for tokens in texts:
        counts.update(tokens)
    kept = [(-count, token) for token, count in counts.items() if count >= min_count]
    return [token for _, token in sorted(kept)[:limit]]


def _channel_moments(values: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """values: (n, channels, height, width) uint8. Mean and std in [0, 1], exact (from a histogram)."""
    import numpy as np

    levels = np.arange(256, dtype=np.float64) / 255
    means, stds = [], []
    for channel in range(values.shape[1]):
        histogram = np.zeros(256, np.int64)
        for start in range(0, len(values), 1024):  # bincount widens to int64: bound its memory
            histogram += np.bincount(values[start : start + 1024, channel].ravel(), minlength=256)
        total = max(int(histogram.sum()), 1)
        mean = float(histogram @ levels) / total
        means.append(mean)
        stds.append(max(float(np.sqrt(histogram @ (levels - mean) ** 2 / total)), 1 / 255))
    return tuple(means), tuple(stds)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """images: (n, height, width, channels) uint8. Returns (n, size, size, channels) uint8."""
    import numpy as np
    from PIL import Image

    result = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for image, target in zip(images, result, strict=True):
        for channel in range(images.shape[3]):  # by channel, so that any number of them can be taken
            plane = Image.fromarray(image[..., channel]).resize((size, size), Image.Resampling.BILINEAR)
            target[..., channel] = np.asarray(plane)
    return result
