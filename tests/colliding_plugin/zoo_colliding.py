"""A plugin that names its model as zoo-example names one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import zoo

if TYPE_CHECKING:
    import torch


@dataclass
class OtherBag(zoo.TorchModel):
    """Another model called bow."""

    name: ClassVar[str] = "bow"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text"})

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        """Words."""
        return zoo.WordEncoder(train)

    def build(self, inputs: zoo.InputSpec, classes: int) -> torch.nn.Module:
        """Never reached."""
        raise NotImplementedError


@zoo.hookimpl
def zoo_models() -> list[type[zoo.TorchModel]]:
    """The colliding one."""
    return [OtherBag]
