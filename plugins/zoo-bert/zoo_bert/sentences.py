"""Vectors of whole texts from a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from zoo_bert.model import load_encoder
from zoo_bert.tokens import TokenEncoder

if TYPE_CHECKING:
    import zoo
    from zoo_bert.checkpoint import Checkpoint

TOKENS_A_BATCH = 8192  # with padding; enough to fill a processor, little enough for its memory


def embed(texts: Sequence[str], checkpoint: Checkpoint, max_length: int) -> np.ndarray:
    """(texts, 2 x width) float32: the first token's vector, then the mean over real tokens."""
    result = np.empty((len(texts), 2 * checkpoint.width), np.float32)
    if not len(texts):
        return result
    tokenizer = TokenEncoder(checkpoint, max_length)
    tokens, pad_id = tokenizer.encode(texts), tokenizer.spec.pad_id
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = load_encoder(checkpoint).eval().to(device)
    with torch.inference_mode():
        for rows in _batches(np.diff(tokens.offsets)):
            ids, mask = (tensor.to(device) for tensor in _pad(tokens, rows, pad_id))
            hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            kept = mask.unsqueeze(-1)
            mean = (hidden * kept).sum(1) / kept.sum(1)
            result[rows] = torch.cat([hidden[:, 0], mean], 1).float().cpu().numpy()
    return result


def _batches(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers of each batch, longest texts first, so that little is padded. lengths: (n,) int64."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, TOKENS_A_BATCH // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _pad(tokens: zoo.Tokens, rows: np.ndarray, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (rows, longest) int64 and mask (rows, longest) bool."""
    starts, ends = tokens.offsets[rows], tokens.offsets[rows + 1]
    mask = np.arange(int((ends - starts).max())) < (ends - starts)[:, None]
    ids = np.full(mask.shape, pad_id, np.int64)
    ids[mask] = np.concatenate([tokens.ids[start:end] for start, end in zip(starts, ends, strict=True)])
    return torch.from_numpy(ids), torch.from_numpy(mask)
