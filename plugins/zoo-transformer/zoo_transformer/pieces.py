"""Word pieces learned on the training split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import zoo

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer, models

PAD, UNKNOWN = "[PAD]", "[UNK]"
_PREFIX = "##"  # marks a piece that does not begin its word
_CHUNK = 4096  # texts a call: bounds what the tokenizer holds at a time


class PieceEncoder(zoo.Encoder):
    """Word pieces as ids, vocabulary learned from `train` alone; case and accents are ignored.

    Chinese and Japanese characters are words by themselves. A text is cut after `max_length` pieces; one without any
    piece becomes the unknown one. vocabulary: pieces at most, padding (0) and unknown (1) among them.
    Raises Incompatible when `train` does not hold texts.
    """

    def __init__(self, train: zoo.Split, max_length: int, vocabulary: int):
        if train.modality != "text":
            raise zoo.Incompatible(f"Word pieces are for texts and the training split holds {train.modality} examples.")
        self.max_length = max_length
        self._tokenizer = _learn([str(text) for text in train.examples], vocabulary)
        self._tokenizer.enable_truncation(max_length)
        self._size = self._tokenizer.get_vocab_size()
        self._digest = hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    @property
    def spec(self) -> zoo.InputSpec:
        """kind "tokens", pad_id 0."""
        return zoo.InputSpec("tokens", (self.max_length,), vocab_size=self._size, pad_id=0)

    @property
    def key(self) -> str:
        """A hash over the whole tokenizer: normaliser, pieces and the length it cuts at."""
        return f"pieces/1 {self._digest}"

    def encode(self, examples: Sequence[str] | np.ndarray) -> zoo.Tokens:
        """examples: texts. Returns one sequence of 1 to `max_length` ids for each."""
        texts = [str(text) for text in examples]
        sequences: list[list[int]] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = self._tokenizer.encode_batch_fast(texts[start : start + _CHUNK])
            sequences.extend(encoding.ids or [1] for encoding in chunk)
        return zoo.Tokens.pack(sequences)


def _learn(texts: Sequence[str], size: int) -> Tokenizer:
    """A WordPiece tokenizer of at most `size` pieces, the same one every time for the same texts."""
    from tokenizers import models, trainers

    learner = _bare(models.WordPiece(unk_token=UNKNOWN))
    alphabet = _alphabet(_words(texts, learner), size - 2)
    # The trainer numbers "##x" in the order of a randomly seeded hash table and breaks ties between merges by number.
    # Handed over as special tokens, the pieces of one character have the same numbers every time.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[PAD, UNKNOWN, *alphabet],
        initial_alphabet=[piece for piece in alphabet if len(piece) == 1],
        limit_alphabet=sum(len(piece) == 1 for piece in alphabet),
        show_progress=False,
        continuing_subword_prefix=_PREFIX,
    )
    learner.train_from_iterator(texts, trainer)
    # Special tokens would be matched anywhere in a text: the tokenizer in use has the same pieces as plain ones.
    return _bare(models.WordPiece(learner.get_vocab(), unk_token=UNKNOWN))


def _bare(model: models.Model) -> Tokenizer:
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _words(texts: Sequence[str], tokenizer: Tokenizer) -> Counter[str]:
    """How often each word occurs, as the tokenizer cuts words."""
    # Normalised text between white space is cut on its own, so each different stretch need be cut but once.
    stretches: Counter[str] = Counter()
    for text in texts:
        stretches.update(tokenizer.normalizer.normalize_str(text).split())
    words: Counter[str] = Counter()
    for stretch, count in stretches.items():
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(stretch):
            words[word] += count
    return words


def _alphabet(words: Counter[str], limit: int) -> list[str]:
    """Pieces of one character, frequent characters first: "x", and "##x" where x stands inside a word. limit: most."""
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        for character in word:
            counts[character] += count
        inside.update(word[1:])
    pieces: list[str] = []
    for character, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        forms = [character, _PREFIX + character] if character in inside else [character]
        if len(pieces) + len(forms) > limit:
            break
        pieces.extend(forms)
    return pieces
