"""What `how=` says: transformations with commas between, each a name and perhaps a value behind a colon.

This module knows names, values and where each transformation is found; it imports none of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from zoo.errors import ConfigError, UnknownName, did_you_mean

Value = float | int | str | None

MOST_BITS = 16
LONGEST_NAME = 100


@dataclass(frozen=True)
class Kind:
    """One transformation. where: `module:function`; takes: what its value may be, in words, empty when it takes none;
    example: as it is written; read: the value from its text, ValueError when it is out of range; default: the value
    when none is said; needs: whether one must be said."""

    name: str
    where: str
    does: str
    example: str
    takes: str = ""
    read: Callable[[str], Value] | None = None
    default: Value = None
    needs: bool = False


@dataclass(frozen=True)
class Step:
    """One transformation as asked for. value: None for a kind that takes none, or for its own choice."""

    kind: Kind
    value: Value = None

    @property
    def text(self) -> str:
        """As it is written: `prune:0.5`."""
        return self.kind.name if self.value is None else f"{self.kind.name}:{_written(self.value)}"


def _number(text: str, low: float, high: float) -> float:
    value = float(text)
    if not low < value < high:
        raise ValueError(text)
    return value


def _epochs(text: str) -> float:
    return _number(text, 0, math.inf)


def _bits(text: str) -> int:
    value = int(text)
    if not 2 <= value <= MOST_BITS:
        raise ValueError(text)
    return value


def _student(text: str) -> Value:
    """`20`, `cnn` or `cnn:20`; a name may come with epochs."""
    name, _, epochs = text.rpartition(":")
    if re.fullmatch(r"[a-z][a-z0-9_]*", text):
        return text
    _epochs(epochs)
    if not name:
        return float(epochs)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(text)
    return text


def _layer(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


def _all(text: str) -> str:
    if text != "all":
        raise ValueError(text)
    return text


_EPOCHS = "a number of epochs above 0"

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("finetune", "learning:finetune", "train on, on the same data with another seed", "finetune:1",
             _EPOCHS, _epochs, 1.0),
        Kind("new_head", "learning:new_head", "replace the last layer by one fitted afresh", "new_head"),
        Kind("prune", "surface:prune", "zero the smallest weights of all layers together", "prune:0.5",
             "a share of the weights above 0 and below 1", lambda text: _number(text, 0, 1), needs=True),
        Kind("quantise", "surface:quantise", "round every weight to so many bits and back", "quantise:8",
             f"a whole number of bits from 2 to {MOST_BITS}", _bits, needs=True),
        Kind("noise", "surface:noise", "add noise, as a share of each tensor's own spread", "noise:0.1",
             "a share above 0", lambda text: _number(text, 0, math.inf), needs=True),
        Kind("permute", "symmetries:permute", "exchange hidden units and attention heads", "permute",
             "nothing, or 'all' to exchange the coordinates of a residual stream too", _all),
        Kind("rescale", "symmetries:rescale", "scale units up and what reads them down", "rescale:4",
             "a factor above 1, up to which units are scaled", lambda text: _number(text, 1, math.inf), 4.0),
        Kind("rotate_residual", "symmetries:rotate_residual", "rotate a transformer's residual stream",
             "rotate_residual"),
        Kind("scrub_dead", "surface:scrub_dead", "redraw weights that no training example reaches", "scrub_dead"),
        Kind("reinit_layer", "surface:reinit_layer", "redraw one layer", "reinit_layer:head",
             "the name of a layer", _layer, needs=True),
        Kind("distil", "learning:distil", "train a fresh model on the parent's answers", "distil:20",
             "epochs, a model's name, or both, as in distil:cnn:20", _student),
    )
}  # fmt: skip


def parse(text: str) -> tuple[Step, ...]:
    """The steps of a chain, in order. Raises UnknownName for a name that is none, ConfigError for a value that is
    missing, unwanted or out of range."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ConfigError(
            f"how= is empty. For example: how=prune:0.5,permute,quantise:8\nThere are: {', '.join(KINDS)}."
        )
    return tuple(_step(word) for word in words)


def _step(word: str) -> Step:
    name, colon, value = word.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        raise UnknownName(f"No transformation '{name}'.{did_you_mean(name, KINDS)} There are: {', '.join(KINDS)}.")
    if not colon:
        if kind.needs:
            raise ConfigError(f"{name} needs {kind.takes}, as in {kind.example}")
        return Step(kind, kind.default)
    if kind.read is None:
        raise ConfigError(f"'{word}': {name} takes no value. Write {name}")
    try:
        return Step(kind, kind.read(value))
    except (ValueError, OverflowError):
        raise ConfigError(f"'{word}': {name} takes {kind.takes}, as in {kind.example}") from None


def written(steps: Sequence[Step]) -> str:
    """The chain as it is written, defaults filled in."""
    return ",".join(step.text for step in steps)


def label(parent: str, steps: Sequence[Step]) -> str:
    """What the new model is called: `mlp-prune0.5-permute`. Very long ones end in the digest of the whole."""
    whole = "-".join([parent, *(_word(step) for step in steps)])
    if len(whole) <= LONGEST_NAME:
        return whole
    import hashlib

    return f"{whole[:LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _word(step: Step) -> str:
    if step.value is None:
        return step.kind.name
    between = "-" if isinstance(step.value, str) else ""
    return f"{step.kind.name}{between}{_written(step.value).replace(':', '-')}"


def _written(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def student(step: Step) -> tuple[str | None, float | None]:
    """Of a `distil` step: the name of the model that learns (None: the parent's own kind) and the epochs (None: as
    its recipe says)."""
    if isinstance(step.value, str):
        name, _, epochs = step.value.partition(":")
        return name, float(epochs) if epochs else None
    return None, None if step.value is None else float(step.value)
