"""The module behind `bow`."""

import torch


class Bag(torch.nn.Module):
    """(batch, length) ids and mask → (batch, classes) logits."""

    def __init__(self, vocabulary: int, width: int, classes: int) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(vocabulary, width)
        self.out = torch.nn.Linear(width, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits of the mean word vector over real tokens."""
        weight = attention_mask[:, :, None].float()
        return self.out((self.words(input_ids) * weight).sum(1) / weight.sum(1))
