"""The checkpoint's own tokenizer as an `Encoder`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zoo
from zoo_bert.quiet import quiet

if TYPE_CHECKING:
    import numpy as np

    from zoo_bert.checkpoint import Checkpoint

# transformers makes up an empty tokenizer where none of these lies.
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_CHUNK = 4096  # texts a call: bounds what the tokenizer holds at a time


class TokenEncoder(zoo.Encoder):
    """A pretrained tokenizer: ids with the special tokens, cut after `max_length` or the checkpoint's positions.

    What looks like a special token in a text ("[SEP]") is read as plain text. Raises CheckpointError when the
    checkpoint has no tokenizer that the `tokenizers` library can run.
    """

    def __init__(self, checkpoint: Checkpoint, max_length: int):
        tokenizer = _load(checkpoint)
        bounds = (max_length, checkpoint.positions, tokenizer.model_max_length)
        self.max_length = min(int(bound) for bound in bounds if bound)
        self._pad_id = tokenizer.pad_token_id or 0
        self._vocab_size = len(tokenizer)
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_length)
        self._tokenizer.encode_special_tokens = True
        self._digest = hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    @property
    def spec(self) -> zoo.InputSpec:
        """kind "tokens", with the tokenizer's padding id."""
        return zoo.InputSpec("tokens", (self.max_length,), vocab_size=self._vocab_size, pad_id=self._pad_id)

    @property
    def key(self) -> str:
        """A hash over the whole tokenizer with the length it cuts at."""
        return f"pretrained/1 pad_id={self._pad_id} {self._digest}"

    def encode(self, examples: Sequence[str] | np.ndarray) -> zoo.Tokens:
        """examples: texts. Returns one sequence of 1 to `max_length` ids for each."""
        texts = [str(text) for text in examples]
        sequences: list[list[int]] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = self._tokenizer.encode_batch_fast(texts[start : start + _CHUNK])
            # Without special tokens an empty text has no token at all, and a model needs one.
            sequences.extend(encoding.ids or [self._pad_id] for encoding in chunk)
        return zoo.Tokens.pack(sequences)


def _load(checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    if not any((checkpoint.folder / file).is_file() for file in _FILES):
        raise zoo.CheckpointError(
            f"Checkpoint {checkpoint.folder} has no tokenizer: there is none of {', '.join(_FILES[:3])} …\n"
            f"Save the tokenizer that belongs to the weights beside them: tokenizer.save_pretrained(folder)."
        )
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                str(checkpoint.folder), use_fast=True, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # from a damaged file to a converter's failure, each a class of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise zoo.CheckpointError(
            f"The tokenizer of checkpoint {checkpoint.folder} cannot be loaded: {reason}"
        ) from error
    _check(tokenizer, checkpoint)
    return tokenizer


def _check(tokenizer: Any, checkpoint: Checkpoint) -> None:
    if not tokenizer.is_fast:
        raise zoo.CheckpointError(
            f"The tokenizer of checkpoint {checkpoint.folder} has no fast form.\n"
            f"Save one beside the weights: a tokenizer.json of the `tokenizers` library."
        )
    highest, rows = max(tokenizer.get_vocab().values(), default=0), checkpoint.config.get("vocab_size")
    if rows is not None and highest >= rows:
        raise zoo.CheckpointError(
            f"The tokenizer of checkpoint {checkpoint.folder} does not belong to its weights: ids go up to {highest} "
            f"and the embeddings have {rows} rows."
        )
