"""Sentence vectors of a frozen pretrained encoder, as an `Encoder`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import zoo

if TYPE_CHECKING:
    import numpy as np


class SentenceEncoder(zoo.Encoder):
    """The first-token and the mean-pooled vector of a frozen encoder, end to end and not scaled.

    Nothing is fitted on the data. checkpoint: as the model `bert` takes it, None for its default; max_length: tokens
    of a text that are read. Raises ConfigError when `zoo-bert` is not installed, CheckpointError as `bert` does.
    """

    def __init__(self, checkpoint: str | None, max_length: int):
        try:
            import zoo_bert
        except ModuleNotFoundError as error:
            if error.name != "zoo_bert":
                raise
            raise zoo.ConfigError(
                "model.features=sentence needs the plugin zoo-bert, which is not installed.\n"
                "Install it with: pip install 'zoo-mlp[sentence]', or use model.features=words."
            ) from None
        self._checkpoint = zoo_bert.find_checkpoint(checkpoint or zoo_bert.DEFAULT_CHECKPOINT)
        self._max_length = max_length

    @property
    def spec(self) -> zoo.InputSpec:
        """kind "dense", shape (2 x the encoder's width,)."""
        return zoo.InputSpec("dense", (2 * self._checkpoint.width,))

    @property
    def key(self) -> str:
        """The length that is read and a hash over the checkpoint's files."""
        return f"sentence/1 max_length={self._max_length} checkpoint={self._checkpoint.digest()}"

    def encode(self, examples: Sequence[str] | np.ndarray) -> zoo.Dense:
        """examples: texts. Returns (n, 2 x width) float32."""
        from zoo_bert import sentence_vectors

        return zoo.Dense(
            sentence_vectors([str(text) for text in examples], str(self._checkpoint.folder), self._max_length)
        )
