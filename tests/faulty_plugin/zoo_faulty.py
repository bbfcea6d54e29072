"""Models that break the contract: one raises in `build`, one answers with the wrong shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import zoo

if TYPE_CHECKING:
    import torch


@dataclass
class Exploding(zoo.TorchModel):
    """Raises while its module is built."""

    name: ClassVar[str] = "exploding"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text"})

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        """Words of the training split."""
        return zoo.WordEncoder(train)

    def build(self, inputs: zoo.InputSpec, classes: int) -> torch.nn.Module:
        """Raises ZeroDivisionError."""
        raise ZeroDivisionError("the width is divided by the number of heads, which is 0")


@dataclass
class Lopsided(zoo.TorchModel):
    """Gives one logit too many."""

    name: ClassVar[str] = "lopsided"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text"})

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        """Words of the training split."""
        return zoo.WordEncoder(train)

    def build(self, inputs: zoo.InputSpec, classes: int) -> torch.nn.Module:
        """An embedding bag over every token, with a column more than there are classes."""
        import torch

        class Bag(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = torch.nn.Embedding(inputs.vocab_size or 1, classes + 1)

            def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
                weight = attention_mask[:, :, None].float()
                return (self.table(input_ids) * weight).sum(1) / weight.sum(1)

        return Bag()


@zoo.hookimpl
def zoo_models() -> list[type[zoo.TorchModel]]:
    """Both."""
    return [Exploding, Lopsided]
