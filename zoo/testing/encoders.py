"""Checks of an encoder: its spec, its numbers, its key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zoo.models import Dense, Encoder, Tokens
from zoo.testing import fresh
from zoo.testing.calling import lengths
from zoo.testing.findings import Problem
from zoo.testing.synthetic import probe_split, stranger_to, train_split

if TYPE_CHECKING:
    import numpy as np

    from zoo.models import Encoded
    from zoo.testing.modules import Trial


def is_encoder(trial: Trial) -> Iterator[Problem]:
    """`encoder(train)` works and gives an Encoder."""
    encoder: object = trial.encoder()
    if not isinstance(encoder, Encoder):
        yield Problem(f"encoder() returned a {type(encoder).__name__}", "Return an instance of a zoo.Encoder subclass.")
        trial.break_off("encoder")


def has_sane_spec(trial: Trial) -> Iterator[Problem]:
    """The spec can be acted upon."""
    spec = trial.encoder().spec
    sound = True
    for got, mend in [*_shape_problems(spec.kind, spec.shape), *_normalisation_problems(spec)]:
        sound = False
        yield Problem(got, mend)
    if spec.kind == "tokens":
        size = spec.vocab_size
        if size is None or size < 1 or not 0 <= spec.pad_id < size:
            sound = False
            yield Problem(
                f"vocab_size is {size} and pad_id {spec.pad_id}", "Give vocab_size, and a pad_id from 0 below it."
            )
    if not sound:
        trial.break_off("spec")


def encodes(trial: Trial) -> Iterator[Problem]:
    """The result has the promised type, count, range and shape."""
    encoder, probe = trial.encoder(), probe_split(trial.case)
    encoded = trial.encoded()
    spec = encoder.spec
    wanted = Tokens if spec.kind == "tokens" else Dense
    if not isinstance(encoded, wanted):
        yield Problem(
            f"encode() returned {type(encoded).__name__}", f"A spec of '{spec.kind}' goes with zoo.{wanted.__name__}."
        )
        trial.break_off("encode")
        return
    problems = list(_token_problems(encoded, trial) if isinstance(encoded, Tokens) else _dense_problems(encoded, trial))
    if len(encoded) != len(probe):
        problems.append(Problem(f"{len(probe)} examples became {len(encoded)}", "Return one result an example."))
    if problems:
        trial.break_off("encode")
    yield from problems


def encodes_alone(trial: Trial) -> Iterator[Problem]:
    """An example is encoded the same whatever stands next to it, and encoding leaves the encoder as it was."""
    trial.require("same fit")
    encoder, examples = trial.encoder(), probe_split(trial.case).examples
    key, whole = encoder.key, trial.encoded()
    for row in range(0, len(examples), 3):
        if not _same(_rows(encoder.encode(examples[row : row + 1]), [0]), _rows(whole, [row])):
            trial.break_off("encode alone")
            yield Problem(
                f"example {row} is encoded differently alone than among {len(examples)}",
                "Pad and normalise in the module, not in the encoder; fit nothing in encode().",
            )
            return
    if encoder.key != key or not _same(encoder.encode(examples), whole):
        trial.break_off("encode alone")
        yield Problem("encoding changed the encoder", "Fit everything in encoder(train); encode() only reads.")


def is_repeatable(trial: Trial) -> Iterator[Problem]:
    """Two encoders fitted alike have one key and one result, in this process and in the next."""
    first, again, probe = trial.encoder(), trial.fit(), probe_split(trial.case)
    if not isinstance(first.key, str) or not first.key:
        yield Problem(f"key is {first.key!r}", "Return a text, e.g. a hash over options and vocabulary.")
        return
    if first.key != again.key or first.spec != again.spec or not _same(trial.encoded(), again.encode(probe.examples)):
        trial.break_off("same fit")
        yield Problem(
            "two encoders fitted on the same split differ",
            "Sort before you number; draw nothing at random in encoder().",
        )
        return
    if trial.elsewhere.digest(trial.case) != fresh.digest(first.key, trial.encoded()):
        yield Problem(
            "the key or the result differs in another process",
            "Python's hash() and the order of a set change from process to process: use hashlib and sorted().",
        )


def key_tells_fits_apart(trial: Trial) -> Iterator[Problem]:
    """The cache is addressed by the key: equal keys must mean equal results."""
    trial.require("same fit", "encode alone", "encode")
    first, other = trial.encoder(), trial.model().encoder(train_split(trial.case, shifted=True))
    if first.key != other.key:
        return
    examples = train_split(trial.case, shifted=True).examples
    if not _same(first.encode(examples), other.encode(examples)):
        yield Problem(
            "encoders fitted on different texts or images have one key and different results",
            "Put all that was fitted into the key: otherwise the cache hands out another fit's numbers.",
        )


def refuses_other_modality(trial: Trial) -> Iterator[Problem]:
    """Handed a modality that it does not claim, the model raises instead of training on nonsense."""
    case = stranger_to(trial.cls.modalities)
    split = train_split(case)
    try:
        trial.model().encoder(split).encode(split.examples)
    except Exception:
        return
    yield Problem(
        f"it took {case.label} examples although its modalities are {', '.join(sorted(trial.cls.modalities))}",
        f"Raise zoo.Incompatible in encoder() when train.modality is '{case.modality}', or claim the modality.",
    )


def _shape_problems(kind: str, shape: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    if kind not in ("tokens", "dense"):
        yield f"spec.kind is {kind!r}", "Say 'tokens' or 'dense'."
    whole = isinstance(shape, tuple) and bool(shape) and all(isinstance(size, int) and size > 0 for size in shape)
    if not whole or (kind == "tokens" and len(shape) != 1):
        yield f"spec.shape is {shape!r}", "Give a tuple of positive ints; for tokens it is (max_length,)."


def _normalisation_problems(spec: object) -> Iterator[tuple[str, str]]:
    mean, std, shape = (getattr(spec, name) for name in ("mean", "std", "shape"))
    if (mean is None) != (std is None):
        yield "only one of spec.mean and spec.std is given", "Give both, or neither."
    elif mean is not None and not (len(mean) == len(std) == shape[0]):
        yield f"{len(mean)} means and {len(std)} deviations for {shape[0]} channels", "Give one number a channel."
    elif std is not None and not all(0 < value < float("inf") for value in std):
        yield f"spec.std is {std}", "Keep it above 0: a constant channel needs a floor."


def _token_problems(encoded: Tokens, trial: Trial) -> Iterator[Problem]:
    import numpy as np

    spec = trial.encoder().spec
    if encoded.ids.dtype != np.int32 or encoded.offsets.dtype != np.int64:
        yield Problem(
            f"ids are {encoded.ids.dtype} and offsets {encoded.offsets.dtype}", "Use zoo.Tokens.pack (int32 and int64)."
        )
    sizes = lengths(encoded)
    if min(sizes, default=1) < 1:
        yield Problem(
            f"example {sizes.index(min(sizes))} became no tokens", "Give a text of unknown signs an unknown token."
        )
    if max(sizes, default=0) > spec.shape[0]:
        yield Problem(f"an example became {max(sizes)} tokens, and max_length is {spec.shape[0]}", "Cut in encode().")
    low, high = (int(encoded.ids.min()), int(encoded.ids.max())) if len(encoded.ids) else (0, 0)
    if low < 0 or high >= (spec.vocab_size or 0):
        yield Problem(
            f"ids run from {low} to {high}, and vocab_size is {spec.vocab_size}", "Map unseen words to an id."
        )


def _dense_problems(encoded: Dense, trial: Trial) -> Iterator[Problem]:
    import numpy as np

    spec, values = trial.encoder().spec, encoded.values
    wanted = np.uint8 if spec.mean is not None else np.float32
    if values.dtype != wanted:
        yield Problem(
            f"values are {values.dtype}",
            f"Give {wanted.__name__}: uint8 goes with spec.mean and spec.std, else float32.",
        )
    if values.shape[1:] != spec.shape:
        yield Problem(
            f"values have shape (n, {', '.join(map(str, values.shape[1:]))}), and spec.shape is {spec.shape}",
            "Make them equal; images are (channels, height, width).",
        )
    if not np.isfinite(values).all():
        yield Problem("some values are not finite", "Guard divisions and logarithms.")


def _rows(encoded: Encoded, rows: list[int]) -> list[np.ndarray]:
    if isinstance(encoded, Tokens):
        return [encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]] for row in rows]
    return [encoded.values[row] for row in rows]


def _same(one: Encoded | list[np.ndarray], two: Encoded | list[np.ndarray]) -> bool:
    """Equal integers; floats, which a network may have made, within 1e-4."""
    import numpy as np

    first, second = (item if isinstance(item, list) else _rows(item, list(range(len(item)))) for item in (one, two))
    return len(first) == len(second) and all(
        a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-4, atol=1e-4 if a.dtype.kind == "f" else 0))
        for a, b in zip(first, second, strict=True)
    )
