"""What a model is to the harness: `TorchModel` (the engine trains it) or `Predictor` (opaque).

A model is a dataclass: its fields are its options (see `zoo.options`), and they are its config schema at the same time.
Importing this module, like importing a model plugin, must not import torch; annotations may name it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from zoo.options import Configurable

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zoo.data import Split
    from zoo.units import Shapes, Units

Modality = Literal["text", "image"]


@dataclass(frozen=True)
class InputSpec:
    """What one encoded example looks like, and so how the engine calls the module.

    kind `"tokens"`: `module(input_ids, attention_mask)`, both (batch, length): int64 ids padded with `pad_id`, and
        a bool mask that is True on real tokens. `shape` is `(max_length,)`. Length differs from batch to batch.
    kind `"dense"`: `module(inputs)`, (batch, *shape) float32. Images are (channels, height, width).
        When `mean` and `std` (one number a channel) are given, the engine turns the stored uint8 values into
        `(value / 255 - mean) / std` before the call.
    """

    kind: Literal["tokens", "dense"]
    shape: tuple[int, ...]
    vocab_size: int | None = None
    pad_id: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Tokens:
    """Encoded texts of differing length, end to end. ids: (total,) int32; offsets: (examples + 1,) int64."""

    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def pack(cls, sequences: Sequence[Sequence[int]]) -> Tokens:
        """From one list of ids per example. An empty sequence is refused with ValueError: a model needs a token."""
        import numpy as np

        lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
        if len(lengths) and lengths.min() == 0:
            raise ValueError(f"example {int(lengths.argmin())} was encoded to no tokens at all")
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        ids = np.fromiter((token for sequence in sequences for token in sequence), dtype=np.int32, count=offsets[-1])
        return cls(ids, offsets)


@dataclass(frozen=True)
class Dense:
    """Encoded examples of one shape. values: (examples, *shape), uint8 (with `InputSpec.mean`) or float32."""

    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)


Encoded = Tokens | Dense


class Encoder(ABC):
    """Turns examples into numbers. Fitted (vocabulary, channel means) when it is made, on the training split only."""

    @property
    @abstractmethod
    def spec(self) -> InputSpec:
        """What one encoded example looks like."""

    @property
    @abstractmethod
    def key(self) -> str:
        """A text that is equal exactly when two encoders give equal results: options and everything fitted.

        The encoding cache is addressed by it, so leave nothing out (a hash of a vocabulary will do)."""

    @abstractmethod
    def encode(self, examples: Sequence[str] | np.ndarray) -> Encoded:
        """examples: texts, or (n, height, width, channels) uint8. Returns n encoded examples in the same order."""


@dataclass(frozen=True)
class FrozenPart:
    """A module taken in two. In eval mode `module(*inputs) == head(body(*inputs))`.

    body: no parameter of it wants a gradient, it draws nothing at random, in train mode of the module neither, and
        gives (batch, *shape) float, of one shape for all examples. It is called in eval mode.
    head: holds every parameter that wants a gradient. It gets the body's output as float32.
    key: a text that is equal exactly when two bodies with equal weights give equal outputs: the options that shape
        them, the versions of what computes them. The cache of outputs is addressed by it, by the encoder's key, by the
        data and by the body's weights; options of the head have no place in it.
    """

    body: torch.nn.Module
    head: torch.nn.Module
    key: str


@dataclass
class Model(Configurable, ABC):
    """What every model states about itself. Plugins subclass `TorchModel` or `Predictor`, not this."""

    name: ClassVar[str]
    modalities: ClassVar[frozenset[Modality]]
    _section: ClassVar[str] = "model"

    def fingerprint(self) -> str:
        """A hash of what the options only point at, such as the weights in a checkpoint folder; part of a run's key.

        Default: empty, for a model that its options describe completely."""
        return ""


@dataclass
class TorchModel(Model):
    """A model that the engine trains: an encoder, a module, and perhaps a recipe."""

    @abstractmethod
    def encoder(self, train: Split) -> Encoder:
        """The encoder, fitted on the training split. Must be deterministic."""

    @abstractmethod
    def build(self, inputs: InputSpec, classes: int) -> torch.nn.Module:
        """A module with fresh weights that returns logits, (batch, classes) float. Seeded by the engine beforehand."""

    def recipe(self, modality: Modality) -> Mapping[str, Any]:
        """Training options this model suggests, by their names in `trainer`. What the user says wins.

        One name more: `min_steps`, below which no training is one. Where a small training split makes fewer steps of
        the recipe's epochs, epochs and patience are stretched alike, unless the user sets a budget."""
        return {}

    def layers(self, module: torch.nn.Module) -> Mapping[str, torch.nn.Module]:
        """The submodules whose outputs are kept as features for representation measures, by name, in order.

        Outputs may be (batch, width), (batch, length, width) (averaged over real tokens) or
        (batch, channels, height, width) (averaged over positions). Default: the direct children."""
        return dict(module.named_children())

    def parameter_groups(self, module: torch.nn.Module) -> Mapping[str, float]:
        """Learning-rate multipliers by prefix of the parameter name; parameters not named have 1. Default: none."""
        return {}

    def frozen(self, module: torch.nn.Module) -> FrozenPart | None:
        """The part of the module that is not trained, where all that is trained comes after it; None for none.

        The engine computes the body's outputs once for every split, keeps them in the encoding cache for all seeds and
        heads, and trains the head on them. Both are made of the module's own submodules: what the head learns, the
        module has learned. Default: None."""
        return None

    def units(self, shapes: Shapes) -> Sequence[Units]:
        """The groups of hidden units that may be renumbered without changing the answers, for `python -m zoo.lineage`.

        shapes: of every stored tensor by its name; the module is not built for this. A group comes after those whose
        units it reads, and holds no unit that another group holds. Output units, which are the classes, are no group.
        Default: none, and they are derived from names and shapes as far as that goes."""
        return ()


@dataclass
class Predictor(Model):
    """An opaque model: scikit-learn, a remote API, an ONNX file. It fits itself."""

    @abstractmethod
    def fit(self, train: Split, validation: Split, seed: int) -> None:
        """Learn from `train`; `validation` may be used to choose options."""

    @abstractmethod
    def predict_proba(self, examples: Sequence[str] | np.ndarray) -> np.ndarray:
        """(examples, classes) float, each row a distribution, columns in the order of the dataset's classes."""

    def weights(self) -> Mapping[str, np.ndarray]:
        """Fitted arrays to keep with the run, by name. Default: none."""
        return {}
