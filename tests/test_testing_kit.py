"""The conformance kit finds nothing in sound classes, and each fault that it promises to find."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.testing import (
    ConformanceError,
    Finding,
    check_dataset,
    check_model,
    check_task,
    examine_dataset,
    examine_model,
    examine_task,
)

TEXT: frozenset[zoo.Modality] = frozenset({"text"})
IMAGE: frozenset[zoo.Modality] = frozenset({"image"})
BOTH = TEXT | IMAGE


def problems(findings: Sequence[Finding], verdict: str = "failed") -> dict[str, str]:
    """check -> what was got, of the findings with that verdict."""
    return {finding.check: finding.got for finding in findings if finding.verdict == verdict}


# a sound encoder, module and model, of which the faulty ones differ in one thing


class Bytes(zoo.Encoder):
    """Texts as bytes, shifted by 1 so that 0 is padding; images as they are."""

    def __init__(self, train: zoo.Split, modality: zoo.Modality = "text") -> None:
        if train.modality != modality:
            raise zoo.Incompatible(f"only {modality}")
        self.train = train

    @property
    def spec(self) -> zoo.InputSpec:
        return zoo.InputSpec("tokens", (64,), vocab_size=257)

    @property
    def key(self) -> str:
        return "bytes-64"

    def encode(self, examples: Sequence[str] | np.ndarray) -> zoo.Encoded:
        return zoo.Tokens.pack([[byte + 1 for byte in text.encode()[:64]] for text in examples])


class Mean(nn.Module):
    """Masked mean of embeddings, a hidden layer, a linear layer."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, 8)
        self.hidden = nn.Linear(8, 8)
        self.out = nn.Linear(8, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.hidden(self.pooled(input_ids, attention_mask))))

    def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weight = mask[:, :, None].float()
        return (self.table(ids) * weight).sum(1) / weight.sum(1)


class Pixels(nn.Module):
    """Flattened pixels, dropout, one linear layer."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(int(np.prod(shape)), classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.out(self.drop(self.flat(inputs)))


@dataclass
class Sound(zoo.TorchModel):
    """Keeps the contract."""

    width: int = zoo.option(8, "numbers in the one hidden layer", ge=1)

    name: ClassVar[str] = "sound"
    modalities: ClassVar[frozenset[zoo.Modality]] = BOTH

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        return Bytes(train) if train.modality == "text" else zoo.PixelEncoder(train)

    def build(self, inputs: zoo.InputSpec, classes: int) -> nn.Module:
        return Mean(inputs.vocab_size, classes) if inputs.kind == "tokens" else Pixels(inputs.shape, classes)

    def recipe(self, modality: zoo.Modality) -> Mapping[str, Any]:
        return {"epochs": 2, "learning_rate": 0.01, "optimizer": "adam"}

    def parameter_groups(self, module: nn.Module) -> Mapping[str, float]:
        return {"out": 0.5}


def faulty(**changes: Any) -> type[zoo.TorchModel]:
    """A text model that is sound but for `changes`, which replace methods or class attributes."""
    kept = {"modalities": TEXT, "__doc__": "Faulty in one respect.", "__annotations__": {}}
    kept["encoder"] = lambda self, train: Bytes(train)
    return dataclass(type("Faulty", (Sound,), kept | changes))


def with_encoder(**changes: Any) -> type[zoo.TorchModel]:
    """A text model with a sound encoder but for `changes`."""
    cls = type("OddBytes", (Bytes,), changes)
    return faulty(encoder=lambda self, train: cls(train))


def with_module(**changes: Any) -> type[zoo.TorchModel]:
    """A text model with a sound module but for `changes`."""
    cls = type("OddMean", (Mean,), changes)
    return faulty(build=lambda self, inputs, classes: cls(inputs.vocab_size, classes))


def test_a_sound_model_passes_every_check_on_every_input() -> None:
    findings = check_model(Sound, width=4)
    per_input = [finding for finding in findings if finding.on]
    assert {finding.on for finding in per_input} == {"text", "image 8×8×1", "image 28×28×1", "image 32×32×3"}
    assert len({finding.check for finding in per_input}) >= 17
    # This module is not importable by name from a new interpreter, and the kit says so instead of guessing.
    assert problems(findings, "not checked").keys() <= {"light import", "same fit, same key"}
    assert not problems(findings, "warning")


# the class


def test_a_class_that_is_no_dataclass_is_named_before_anything_runs() -> None:
    class Plain(Sound):
        """Forgot @dataclass."""

    assert problems(examine_model(Plain)) == {"class": "Plain is not a dataclass: write @dataclass above it"}


def test_an_option_that_hydra_cannot_type_is_found() -> None:
    @dataclass
    class Odd(Sound):
        """An option of a type that no config knows."""

        labels: frozenset[int] = frozenset()

    (got,) = problems(examine_model(Odd)).values()
    assert "frozenset" in got


def test_defaults_that_the_class_itself_refuses_are_found() -> None:
    @dataclass
    class Odd(Sound):
        """Its own default is out of range."""

        depth: int = 0

        def __post_init__(self) -> None:
            if self.depth < 1:
                raise zoo.ConfigError(f"depth={self.depth}: it must be 1 or more.")

    assert "raised ConfigError: depth=0: it must be 1 or more." in problems(examine_model(Odd))["defaults"]
    assert not problems(examine_model(Odd, depth=1))


def test_a_missing_docstring_is_only_a_warning() -> None:
    @dataclass
    class Silent(Sound):
        name: ClassVar[str] = "silent"

    findings = check_model(Silent)
    assert problems(findings, "warning") == {"docstring": "it has no docstring"}


@pytest.mark.parametrize("declared", [5, zoo.option(5, ""), zoo.option(5, " "), field(default=5)])
def test_an_option_without_a_meaning_is_a_warning_that_names_it(declared: Any) -> None:
    odd = dataclass(type("Mute", (Sound,), {"__doc__": "Mute.", "__annotations__": {"depth": int}, "depth": declared}))
    (warned,) = [finding for finding in check_model(odd) if finding.verdict == "warning"]
    assert (warned.check, warned.got) == ("meanings", "the help cannot say what depth means")
    assert warned.mend == 'Declare it with its meaning and range, e.g. depth: int = zoo.option(8, "width of …", ge=1).'


def test_what_is_no_option_needs_no_meaning() -> None:
    @dataclass
    class Stateful(Sound):
        """Keeps something from call to call."""

        seen: int = field(init=False, default=0)

    assert not problems(check_model(Stateful), "warning")


MODULE = """
from __future__ import annotations
import {heavy}
from dataclasses import dataclass
from typing import ClassVar
import zoo

class Words(zoo.Encoder):
    def __init__(self, train):
        if train.modality != "text":
            raise zoo.Incompatible("only texts")
        self.words = {order}({{word for text in train.examples for word in text.split()}})
        self.ids = {{word: number for number, word in enumerate(self.words, 1)}}

    @property
    def spec(self):
        return zoo.InputSpec("tokens", (64,), vocab_size=len(self.words) + 1)

    @property
    def key(self):
        return " ".join(self.words)

    def encode(self, examples):
        return zoo.Tokens.pack([[self.ids.get(word, 0) for word in text.split()[:64]] for text in examples])

@dataclass
class Model(zoo.TorchModel):
    "A model in a module of its own."
    name: ClassVar[str] = "model"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({{"text"}})

    def encoder(self, train):
        return Words(train)

    def build(self, inputs, classes):
        import torch
        class Bag(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.table = torch.nn.Embedding(inputs.vocab_size, classes)
            def forward(self, ids, mask):
                weight = mask[:, :, None].float()
                return (self.table(ids) * weight).sum(1) / weight.sum(1)
        return Bag()
"""


@pytest.fixture
def model_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., type[zoo.TorchModel]]:
    """Writes a module with a model in it, imports it and gives the class."""

    def make(name: str, heavy: str = "json", order: str = "sorted") -> type[zoo.TorchModel]:
        import importlib

        (tmp_path / f"{name}.py").write_text(MODULE.format(heavy=heavy, order=order))
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        cls: type[zoo.TorchModel] = importlib.import_module(name).Model
        return cls

    return make


def test_a_model_in_a_module_is_checked_in_a_new_interpreter_too(model_from: Callable[..., Any]) -> None:
    findings = check_model(model_from("kit_sound_module"))
    assert {finding.verdict for finding in findings} == {"ok"}


def test_a_framework_imported_by_the_module_is_found(model_from: Callable[..., Any]) -> None:
    assert problems(examine_model(model_from("kit_heavy_module", heavy="torch"))) == {
        "light import": "importing kit_heavy_module imports torch"
    }


def test_another_large_library_imported_by_the_module_is_a_warning(model_from: Callable[..., Any]) -> None:
    findings = check_model(model_from("kit_slow_module", heavy="pyarrow"))
    assert problems(findings, "warning") == {"light import": "importing kit_slow_module imports pyarrow"}


def test_a_vocabulary_in_the_order_of_a_set_is_found(model_from: Callable[..., Any]) -> None:
    found = problems(examine_model(model_from("kit_unordered_module", order="list")))
    assert found == {"same fit, same key": "the key or the result differs in another process"}


# the encoder


def _grows(self: Any, examples: Sequence[str]) -> zoo.Encoded:
    self.seen = getattr(self, "seen", 0) + len(examples)
    return zoo.Tokens.pack([[1 + self.seen % 250] for _ in examples])


def _tires(self: Any, examples: Sequence[str]) -> zoo.Encoded:
    self.calls = getattr(self, "calls", 0) + 1
    return Bytes.encode(self, examples if self.calls < 8 else [text[::-1] for text in examples])


def _longest(self: Any, examples: Sequence[str]) -> zoo.Encoded:
    width = max(len(text.encode()[:64]) for text in examples)
    return zoo.Tokens.pack([([byte + 1 for byte in text.encode()[:64]] + [0] * width)[:width] for text in examples])


def _random_bytes(self: Any, examples: Sequence[str]) -> zoo.Encoded:
    return zoo.Tokens.pack([[random.randrange(257) for _ in range(3)] for _ in examples])


def _ranked(self: Any, examples: Sequence[str]) -> zoo.Encoded:
    common = sorted(set("".join(self.train.examples)), key="".join(self.train.examples).count, reverse=True)
    ranks = {sign: 2 + rank for rank, sign in enumerate(common[:250])}
    return zoo.Tokens.pack([[ranks.get(sign, 1) for sign in text[:64]] for text in examples])


def _dense(self: Any, examples: Sequence[str]) -> zoo.Encoded:
    return zoo.Dense(np.zeros((len(examples), 4), dtype=np.float64))


def _spec(*arguments: Any, **named: Any) -> property:
    return property(lambda self: zoo.InputSpec(*arguments, **named))


ENCODER_FAULTS = {
    "raises": (
        faulty(encoder=lambda self, train: train.no_such_thing),
        {"encoder": "raised AttributeError: 'Split' object has no attribute 'no_such_thing' (test_testing_kit.py"},
    ),
    "no encoder": (faulty(encoder=lambda self, train: str), {"encoder": "encoder() returned a type"}),
    "shape of tokens": (with_encoder(spec=_spec("tokens", (), vocab_size=257)), {"spec": "spec.shape is ()"}),
    "kind": (with_encoder(spec=_spec("words", (64,), vocab_size=257)), {"spec": "spec.kind is 'words'"}),
    "vocabulary": (with_encoder(spec=_spec("tokens", (64,))), {"spec": "vocab_size is None and pad_id 0"}),
    "ids too large": (
        with_encoder(spec=_spec("tokens", (64,), vocab_size=99)),
        {"encode": "and vocab_size is 99"},
    ),
    "too long": (
        with_encoder(spec=_spec("tokens", (9,), vocab_size=257)),
        {"encode": "an example became 64 tokens, and max_length is 9"},
    ),
    "empty": (
        with_encoder(encode=lambda self, texts: zoo.Tokens.pack([[ord(s) for s in t if s.isalpha()] for t in texts])),
        {"encode": "was encoded to no tokens at all"},
    ),
    "other container": (with_encoder(encode=_dense), {"encode": "encode() returned Dense"}),
    "double floats": (
        with_encoder(encode=_dense, spec=_spec("dense", (4,))),
        {"encode": "values are float64"},
    ),
    "shape of values": (
        with_encoder(encode=_dense, spec=_spec("dense", (5,))),
        {"encode": "values have shape (n, 4), and spec.shape is (5,)"},
    ),
    "one mean for no deviation": (
        with_encoder(encode=_dense, spec=_spec("dense", (4,), mean=(0.5,))),
        {"spec": "only one of spec.mean and spec.std is given"},
    ),
    "deviation of zero": (
        with_encoder(encode=_dense, spec=_spec("dense", (1, 2, 2), mean=(0.5,), std=(0.0,))),
        {"spec": "spec.std is (0.0,)"},
    ),
    "one example lost": (
        with_encoder(encode=lambda self, texts: Bytes.encode(self, texts[1:])),
        {"encode": "16 examples became 15"},
    ),
    "pads in encode": (
        with_encoder(encode=_longest),
        {"encode alone": "example 0 is encoded differently alone than among 16"},
    ),
    "fits in encode": (with_encoder(encode=_grows), {"encode alone": "example 0 is encoded differently alone"}),
    "random": (with_encoder(encode=_random_bytes), {"same fit, same key": "two encoders fitted on the same split"}),
    "random key": (
        with_encoder(key=property(lambda self: str(random.random()))),
        {"same fit, same key": "two encoders fitted on the same split differ"},
    ),
    "empty key": (with_encoder(key=property(lambda self: "")), {"same fit, same key": "key is ''"}),
    "tires": (with_encoder(encode=_tires), {"encode alone": "encoding changed the encoder"}),
    "key without vocabulary": (
        with_encoder(encode=_ranked),
        {"other fit, other key": "encoders fitted on different texts or images have one key and different results"},
    ),
    "takes images as texts": (
        with_encoder(
            __init__=lambda self, train: None,
            encode=lambda self, examples: zoo.Tokens.pack([[1, 2] for _ in examples]),
        ),
        {"other modality": "it took image 8×8×1 examples although its modalities are text"},
    ),
}


@pytest.mark.parametrize("fault", ENCODER_FAULTS)
def test_a_fault_of_the_encoder_is_found(fault: str) -> None:
    cls, wanted = ENCODER_FAULTS[fault]
    found = problems(examine_model(cls))
    assert found.keys() == wanted.keys(), found
    for check, text in wanted.items():
        assert text in found[check]


def test_what_depends_on_a_failed_step_is_not_checked_and_says_why() -> None:
    findings = examine_model(faulty(encoder=lambda self, train: train.no_such_thing))
    skipped = problems(findings, "not checked")
    assert skipped["logits"] == "'encoder' failed before"
    assert {finding.check for finding in findings if finding.on and finding.verdict == "failed"} == {"encoder"}


# the module


def _no_seed(self: nn.Module, vocabulary: int, classes: int) -> None:
    Mean.__init__(self, vocabulary, classes)  # type: ignore[arg-type]
    own = torch.Generator()
    own.seed()
    nn.init.normal_(self.out.weight, generator=own)  # type: ignore[union-attr, arg-type]


def _constant(self: nn.Module, vocabulary: int, classes: int) -> None:
    Mean.__init__(self, vocabulary, classes)  # type: ignore[arg-type]
    for number, parameter in enumerate(self.parameters()):
        values = torch.linspace(-1, 1, parameter.numel()) * (number + 1)
        parameter.data = values.reshape(parameter.shape)


class _Hidden(Mean):
    """A weight that is no parameter."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__(vocabulary, classes)
        self.scale = torch.randn(8)

    def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return super().pooled(ids, mask) * self.scale


class _Unused(Mean):
    """A layer that forward never calls, and one whose gradient is cut."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__(vocabulary, classes)
        self.spare = nn.Linear(3, 3)

    def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return super().pooled(ids, mask).detach()


class _Root(Mean):
    """The gradient of a square root at 0."""

    def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        pooled = super().pooled(ids, mask)
        return pooled + (pooled - pooled).sqrt()


class _Dead(Mean):
    """A layer multiplied by 0."""

    def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return super().pooled(ids, mask) * 0


class _Tied(Mean):
    """Two names for one Parameter: legitimate."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__(vocabulary, classes)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.hidden.weight

    def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.again(super().pooled(ids, mask))


class _Frozen(Mean):
    """Parameters that are frozen openly: legitimate."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__(vocabulary, classes)
        self.table.requires_grad_(False)


class _Counting(Mean):
    """Counts in eval mode as well."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__(vocabulary, classes)
        self.register_buffer("calls", torch.zeros(()))

    def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().pooled(ids, mask)


class _OwnNoise(Mean):
    """Dropout from a generator of its own."""

    def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        pooled = super().pooled(ids, mask)
        return pooled + torch.from_numpy(np.random.default_rng().normal(size=8)).float() if self.training else pooled


class _Lazy(Mean):
    """Makes a weight on the first call."""

    def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(torch.ones(8))
        return super().pooled(ids, mask) * self.scale


class _Talkative(Mean):
    """Keeps its options in the state."""

    def get_extra_state(self) -> dict[str, int]:
        return {"width": 8}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


class _Pair(nn.Module):
    """A layer that returns what no measure can use."""

    def __init__(self, change: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.change = change

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.change(inputs)


def _with_layer(change: Callable[[torch.Tensor], Any]) -> type[zoo.TorchModel]:
    """A sound model with one layer more, which returns `change` of the pooled words to nobody."""

    class Layered(Mean):
        def __init__(self, vocabulary: int, classes: int) -> None:
            super().__init__(vocabulary, classes)
            self.extra = _Pair(change)

        def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            pooled = super().pooled(ids, mask)
            self.extra(pooled)
            return pooled

    return _build(Layered)


def _logits(change: Callable[[torch.Tensor], Any]) -> Callable[..., Any]:
    return lambda self, ids, mask: change(Mean.forward(self, ids, mask))


def _unmasked(self: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return self.table(ids).mean(1)


def _build(cls: type[Mean]) -> type[zoo.TorchModel]:
    return faulty(build=lambda self, inputs, classes: cls(inputs.vocab_size, classes))


def _explode(self: Any, inputs: zoo.InputSpec, classes: int) -> nn.Module:
    raise RuntimeError("out of ideas")


MODULE_FAULTS = {
    "raises in build": (faulty(build=_explode), {"build": "raised RuntimeError: out of ideas (test_testing_kit.py"}),
    "no module": (faulty(build=lambda self, inputs, classes: len), {"build": "build() returned a builtin_function"}),
    "nothing to train": (
        faulty(build=lambda self, inputs, classes: Mean(inputs.vocab_size, classes).requires_grad_(False)),
        {"build": "no parameter has requires_grad"},
    ),
    "one class for all": (
        faulty(build=lambda self, inputs, classes: Mean(inputs.vocab_size, 3)),
        {"logits": "logits have shape (16, 3); wanted (16, 2), (batch, classes)"},
    ),
    "a tuple": (with_module(forward=_logits(lambda logits: (logits,))), {"logits": "the module returned a tuple"}),
    "labels": (with_module(forward=_logits(lambda logits: logits.long())), {"logits": "logits are torch.int64"}),
    "not finite": (
        with_module(forward=_logits(lambda x: x.abs().neg().log())),
        {"logits": "some logits are not finite"},
    ),
    "unseeded weights": (
        with_module(__init__=_no_seed),
        {"seed": "two modules built under one seed differ (out.weight)"},
    ),
    "noise in eval": (
        with_module(forward=_logits(lambda logits: logits + torch.randn(()))),
        {"determinism": "in eval mode the same batch gave two answers"},
    ),
    "state in eval": (_build(_Counting), {"determinism": "evaluating changed the module's state"}),
    "noise of its own": (_build(_OwnNoise), {"determinism": "in train mode, under one seed"}),
    "unreached parameters": (
        _build(_Unused),
        {
            "gradient": "no gradient reaches table.weight, spare.weight, spare.bias",
            "layers": "layer 'spare' is never called",
        },
    ),
    "wild gradient": (_build(_Root), {"gradient": "the gradient of table.weight is not finite"}),
    "weights outside the state": (
        _build(_Hidden),
        {"save and load": "saved and loaded again, its logits differ by up to"},
    ),
    "weights made on the way": (
        _build(_Lazy),
        {"logits": "its first call added or removed scale"},
    ),
    "options in the state": (_build(_Talkative), {"build": "things that are no tensors: _extra_state"}),
    "a layer that returns a dict": (_with_layer(lambda x: {"x": x}), {"layers": "layer 'extra' returns a dict"}),
    "a layer without a batch": (
        _with_layer(lambda x: x.sum(0)),
        {"layers": "layer 'extra' returns shape (8,) for 16 examples"},
    ),
    "a layer that is not finite": (
        _with_layer(lambda x: x / 0),
        {"layers": "layer 'extra' returns numbers that are not finite"},
    ),
    "statistics of the batch": (
        with_module(forward=_logits(lambda logits: logits - logits.mean(0))),
        {"batch size": "in eval mode, logits alone and in a batch of 16 differ by up to"},
    ),
    "padding counts": (with_module(pooled=_unmasked), {"padding": "13 more padding tokens changed the logits"}),
    "a layer never called": (
        faulty(layers=lambda self, module: {"table": module.table, "spare": nn.Linear(1, 1)}),
        {"layers": "spare is no part of the module"},
    ),
    "a layer of another shape": (
        faulty(layers=lambda self, module: {"flat": module.register_module("f", nn.Identity()) or module.f}),
        {"layers": "layer 'flat' is never called"},
    ),
    "unknown recipe": (
        faulty(recipe=lambda self, modality: {"learning_rat": 0.1}),
        {"recipe": "learning_rat"},
    ),
    "recipe out of range": (
        faulty(recipe=lambda self, modality: {"batch_size": 0}),
        {"recipe": "trainer.batch_size=0: it must be a whole number of 1 or more."},
    ),
    "unknown optimizer": (
        faulty(recipe=lambda self, modality: {"optimizer": "adamax"}),
        {"recipe": "'adamax' is not a valid Optimizer"},
    ),
    "group without parameters": (
        faulty(parameter_groups=lambda self, module: {"head.": 2.0}),
        {"parameter groups": "no parameter begins with 'head.'"},
    ),
    "negative multiplier": (
        faulty(parameter_groups=lambda self, module: {"out": -1.0}),
        {"parameter groups": "the multiplier of 'out' is -1.0"},
    ),
    "units that are not stored": (
        faulty(units=lambda self, shapes: [zoo.Units("words", 8, (zoo.Slots("gone"),))]),
        {"units": "group 'words' names gone, which is not stored"},
    ),
    "units without their readers": (
        faulty(units=lambda self, shapes: [zoo.Units("words", self.width, (zoo.Slots("table.weight", axis=1),))]),
        {"units": "with its units renumbered, logits differ by up to"},
    ),
}


@pytest.mark.parametrize("fault", MODULE_FAULTS)
def test_a_fault_of_the_module_is_found(fault: str) -> None:
    cls, wanted = MODULE_FAULTS[fault]
    found = problems(examine_model(cls))
    assert found.keys() == wanted.keys(), found
    for check, text in wanted.items():
        assert text in found[check]


@pytest.mark.parametrize(
    ("cls", "check", "text"),
    [
        (with_module(__init__=_constant), "seed", "another seed gives the same weights"),
        (_build(_Dead), "gradient", "the gradient of table.weight, hidden.weight is 0 throughout"),
        (faulty(layers=lambda self, module: {}), "layers", "layers() names no layer"),
    ],
)
def test_what_may_be_meant_is_a_warning(cls: type[zoo.TorchModel], check: str, text: str) -> None:
    assert text in problems(check_model(cls), "warning")[check]


@pytest.mark.parametrize("module", [_Tied, _Frozen])
def test_tied_and_frozen_weights_are_legitimate(module: type[Mean]) -> None:
    check_model(_build(module))


def test_a_layer_that_returns_a_tuple_is_taken_by_its_first_item() -> None:
    check_model(_with_layer(lambda x: (x, None)))


def test_many_faults_are_listed_together_with_what_mends_them() -> None:
    cls = faulty(
        build=lambda self, inputs, classes: _Unused(inputs.vocab_size, classes),
        recipe=lambda self, modality: {"speed": 1},
        parameter_groups=lambda self, module: {"head": 1.0},
    )
    with pytest.raises(ConformanceError) as caught:
        check_model(cls)
    message = str(caught.value)
    assert isinstance(caught.value, AssertionError)
    assert message.startswith("Faulty: 4 of ")
    for part in ("gradient [text]", "layers [text]", "recipe [text]", "parameter groups [text]", "→ Use the parameter"):
        assert part in message
    assert {finding.check for finding in caught.value.findings if finding.verdict == "ok"} >= {"logits", "padding"}


def test_the_kit_leaves_the_random_generators_as_they_were() -> None:
    torch.manual_seed(123)
    random.seed(123)
    np.random.seed(123)
    expected = float(torch.rand(())), random.random(), float(np.random.rand())
    torch.manual_seed(123)
    random.seed(123)
    np.random.seed(123)
    check_model(faulty())
    assert (float(torch.rand(())), random.random(), float(np.random.rand())) == expected


# predictors


@dataclass
class Frequencies(zoo.Predictor):
    """Class frequencies, tilted by a hash of the example."""

    name: ClassVar[str] = "frequencies"
    modalities: ClassVar[frozenset[zoo.Modality]] = BOTH

    shares: Any = field(init=False, repr=False, default=None)

    def fit(self, train: zoo.Split, validation: zoo.Split, seed: int) -> None:
        self.shares = np.bincount(train.labels, minlength=len(train.classes)) / len(train)

    def predict_proba(self, examples: Sequence[str] | np.ndarray) -> np.ndarray:
        contents = [example.encode() if isinstance(example, str) else example.tobytes() for example in examples]
        tilt = np.array([[1 + hashlib.sha256(content).digest()[k] / 255 for k in range(3)] for content in contents])
        rows = self.shares * tilt
        return rows / rows.sum(1, keepdims=True)

    def weights(self) -> Mapping[str, np.ndarray]:
        return {"shares": self.shares}


def predictor(**changes: Any) -> type[zoo.Predictor]:
    """Frequencies but for `changes`."""
    kept = {"__doc__": "Faulty in one respect.", "__annotations__": {}, "modalities": TEXT}
    return dataclass(type("FaultyPredictor", (Frequencies,), kept | changes))


def _only_text(self: Any, train: zoo.Split, validation: zoo.Split, seed: int) -> None:
    if train.modality != "text":
        raise zoo.Incompatible("only texts")
    Frequencies.fit(self, train, validation, seed)


def _answer(change: Callable[[np.ndarray], Any]) -> Callable[..., Any]:
    return lambda self, examples: change(Frequencies.predict_proba(self, examples))


def _unseeded(self: Any, train: zoo.Split, validation: zoo.Split, seed: int) -> None:
    self.shares = np.random.default_rng().dirichlet(np.ones(3))


# the frozen part


class Upper(nn.Module):
    """What comes before the last layer of `Mean`, frozen. dropout: in train mode; scale: of what it gives."""

    def __init__(self, whole: Mean, dropout: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.table, self.hidden, self.pooled = whole.table, whole.hidden, whole.pooled
        self.dropout, self.scale = nn.Dropout(dropout), scale
        self.requires_grad_(False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.dropout(torch.tanh(self.hidden(self.pooled(ids, mask)))) * self.scale


class HalfFrozen(Mean):
    """`Mean`, of which all but the last layer is frozen."""

    def __init__(self, vocabulary: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__(vocabulary, classes)
        self.upper = Upper(self, dropout)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.out(self.upper(input_ids, attention_mask))


def part(found: Callable[[Any], Any], dropout: float = 0.0) -> type[zoo.TorchModel]:
    return faulty(
        build=lambda self, inputs, classes: HalfFrozen(inputs.vocab_size, classes, dropout),
        frozen=lambda self, module: found(module),
    )


def test_a_sound_frozen_part_is_examined_and_passes() -> None:
    found = examine_model(part(lambda module: zoo.FrozenPart(module.upper, module.out, "upper/1")))
    assert [finding.verdict for finding in found if finding.check == "frozen part"] == ["ok"]
    assert "frozen part" not in {finding.check for finding in check_model(Sound, width=4)}


FROZEN_FAULTS = {
    "a pair": (part(lambda module: (module.upper, module.out)), "frozen returned tuple, not a zoo.FrozenPart"),
    "learns": (
        part(lambda module: zoo.FrozenPart(module.upper.requires_grad_(True), module.out, "")),
        "of the frozen part's body wants a gradient",
    ),
    "forgets": (
        part(lambda module: zoo.FrozenPart(module.upper, nn.Linear(8, 2), "")),
        "wants a gradient and is not in",
    ),
    "other sums": (
        part(lambda module: zoo.FrozenPart(Upper(module, scale=1.01), module.out, "")),
        "head(body(inputs)) differs from the module's logits by up to",
    ),
    "whole numbers": (
        part(
            lambda module: zoo.FrozenPart(type("Ids", (nn.Module,), {"forward": lambda s, i, m: i})(), module.out, "")
        ),
        "its body gives torch.int64 (16, ",
    ),
    "drops": (
        part(lambda module: zoo.FrozenPart(module.upper, module.out, ""), dropout=0.5),
        "in train mode of the module the body gives something else",
    ),
    "raises": (part(lambda module: module.no_such_layer), "raised AttributeError"),
}


@pytest.mark.parametrize("fault", FROZEN_FAULTS)
def test_each_fault_of_a_frozen_part_is_found(fault: str) -> None:
    cls, wanted = FROZEN_FAULTS[fault]
    assert wanted in problems(examine_model(cls))["frozen part"]


PREDICTOR_FAULTS = {
    "raises": ({"fit": lambda self, train, validation, seed: 1 / 0}, "fit", "raised ZeroDivisionError"),
    "a column short": ({"predict_proba": _answer(lambda p: p[:, :2])}, "probabilities", "(16, 2); wanted (16, 3)"),
    "a list": ({"predict_proba": _answer(lambda p: p.tolist())}, "probabilities", "gave list"),
    "logits": ({"predict_proba": _answer(lambda p: np.log(p))}, "probabilities", "rows are no distributions"),
    "unnormalised": ({"predict_proba": _answer(lambda p: p * 2)}, "probabilities", "a row sums to 2"),
    "not a number": ({"predict_proba": _answer(lambda p: p * np.nan)}, "probabilities", "or not finite"),
    "unseeded": ({"fit": _unseeded}, "seed", "fitted twice under one seed, it gives two answers"),
    "neighbours": (
        {"predict_proba": _answer(lambda p: (p + p.mean(0) * p[:1]) / (p + p.mean(0) * p[:1]).sum(1, keepdims=True))},
        "order and batch size",
        "it answers otherwise",
    ),
    "objects": ({"weights": lambda self: {"words": np.array(["a"], dtype=object)}}, "weights", "weights()['words']"),
    "takes images": ({}, "other modality", "it took image 8×8×1 examples although its modalities are text"),
}


def test_a_sound_predictor_passes() -> None:
    assert not problems(check_model(Frequencies), "warning")
    check_model(predictor(fit=_only_text))


@pytest.mark.parametrize("fault", PREDICTOR_FAULTS)
def test_a_fault_of_a_predictor_is_found(fault: str) -> None:
    changes, check, text = PREDICTOR_FAULTS[fault]
    found = problems(examine_model(predictor(**changes)))
    assert text in found.get(check, "nothing"), found


# datasets


def _reviews(count: int, start: int = 0) -> zoo.Labelled:
    rows = range(start, start + count)
    return zoo.Labelled([f"review number {row}" for row in rows], [row % 2 for row in rows])


@dataclass
class Reviews(zoo.Dataset):
    """Numbered reviews."""

    test_examples: int = zoo.option(120, "how many examples to test with")
    classes: list[str] = zoo.option(["bad", "good"], "names of the classes")

    name: ClassVar[str] = "reviews"
    modality: ClassVar[zoo.Modality] = "text"

    def read(self) -> zoo.Data:
        return zoo.Data(self.classes, train=_reviews(100), test=_reviews(self.test_examples, start=1000))


def dataset(**changes: Any) -> type[zoo.Dataset]:
    """Reviews but for `changes`."""
    return dataclass(type("FaultyReviews", (Reviews,), {"__doc__": "Faulty.", "__annotations__": {}} | changes))


def _shuffled(self: Any) -> zoo.Data:
    rows = random.sample(range(100), 100)
    return zoo.Data(
        ["bad", "good"],
        train=zoo.Labelled([f"review number {row}" for row in rows], [row % 2 for row in rows]),
        test=_reviews(120, start=1000),
    )


DATASET_FAULTS = {
    "raises": (lambda self: Path("/no/such/file").read_text(), "read", "raised FileNotFoundError"),
    "no data": (lambda self: [], "read", "read() returned a list"),
    "shuffled": (_shuffled, "read", "read twice, the train split differs"),
    "unsorted classes": (
        lambda self: zoo.Data(random.sample([f"class {k}" for k in range(99)], 99), _reviews(100), _reviews(120, 1000)),
        "read",
        "read twice, the classes differ",
    ),
    "label outside": (
        lambda self: zoo.Data(["only", "these"], _reviews(100), zoo.Labelled(["a", "b", "c"], [0, 1, 2])),
        "load",
        "the harness refuses it",
    ),
    "other modality": (
        lambda self: zoo.Data(
            ["dark", "light"],
            *(
                zoo.Labelled(
                    np.arange(n * 64, dtype=np.uint32).reshape(n, 8, 8, 1).astype(np.uint8) * k, [0, 1] * (n // 2)
                )
                for n, k in ((100, 1), (120, 3))
            ),
        ),
        "load",
        "",
    ),
}


def test_a_sound_dataset_passes_and_a_small_test_split_is_a_warning() -> None:
    assert not problems(check_dataset(Reviews), "warning")
    assert problems(check_dataset(Reviews, test_examples=40), "warning") == {"size": "the test split has 40 examples"}


@pytest.mark.parametrize("fault", DATASET_FAULTS)
def test_a_fault_of_a_dataset_is_found(fault: str) -> None:
    read, check, text = DATASET_FAULTS[fault]
    found = problems(examine_dataset(dataset(read=read)))
    assert text in found.get(check, "nothing"), found
    assert check in found


DATASET_MODULE = """
from dataclasses import dataclass
from typing import ClassVar
import zoo

@dataclass
class Topics(zoo.Dataset):
    "Its classes are in the order of a set."
    name: ClassVar[str] = "topics"
    modality: ClassVar[zoo.Modality] = "text"

    def read(self) -> zoo.Data:
        topics = {order}({{"art", "sport", "science", "travel", "food", "music", "law"}})
        labels = [row % len(topics) for row in range(300)]
        texts = [f"{{topics[label]}} story {{row}}" for row, label in enumerate(labels)]
        return zoo.Data(topics, zoo.Labelled(texts[:150], labels[:150]), zoo.Labelled(texts[150:], labels[150:]))
"""


@pytest.mark.parametrize("order", ["sorted", "list"])
def test_a_dataset_is_read_in_another_process_too(order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    name = f"kit_topics_{order}"
    (tmp_path / f"{name}.py").write_text(DATASET_MODULE.format(order=order))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    findings = examine_dataset(importlib.import_module(name).Topics)
    wanted = {} if order == "sorted" else {"other process": "another process reads other data"}
    assert problems(findings) == wanted
    assert not problems(findings, "not checked")


# tasks


def _weighted_error(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
    return float(weights @ (probabilities.argmax(1) != labels) / weights.sum())


@dataclass
class Polarity(zoo.Task):
    """Good or bad."""

    name: ClassVar[str] = "polarity"
    modality: ClassVar[zoo.Modality] = "text"
    dataset: ClassVar[str] = "rotten_tomatoes"

    def metrics(self) -> Mapping[str, Any]:
        return {"error": _weighted_error}


def task(**changes: Any) -> type[zoo.Task]:
    """Polarity but for `changes`."""
    return dataclass(type("FaultyPolarity", (Polarity,), {"__doc__": "Faulty.", "__annotations__": {}} | changes))


def _wrong_check(self: Any, splits: zoo.Splits) -> None:
    raise KeyError("text")


TASK_FAULTS = {
    "no dataset": (task(dataset=""), "default dataset", "dataset is ''"),
    "dataset of images": (task(dataset="digits"), "default dataset", "its dataset 'digits' holds image"),
    "takes everything": (task(check=lambda self, splits: None), "other modality", "check() accepts image examples"),
    "another error": (task(check=_wrong_check), "other modality", "given image examples, check() raised KeyError"),
    "name taken": (
        task(metrics=lambda self: {"accuracy": _weighted_error}),
        "metrics",
        "metric 'accuracy' is the harness's own",
    ),
    "unweighted": (
        task(metrics=lambda self: {"error": lambda y, p, w: float((p.argmax(1) != y).mean())}),
        "metrics",
        "with weights and",
    ),
    "in order": (
        task(metrics=lambda self: {"first": lambda y, p, w: float(p[0, 0])}),
        "metrics",
        "in reverse order",
    ),
    "without weights": (
        task(metrics=lambda self: {"error": lambda y, p: 0.0}),
        "metrics",
        "metric 'error' raised TypeError",
    ),
    "not a number": (
        task(metrics=lambda self: {"error": lambda y, p, w: float("nan")}),
        "metrics",
        "is nan on ordinary",
    ),
}


def test_a_sound_task_passes() -> None:
    assert {finding.verdict for finding in check_task(Polarity)} <= {"ok", "not checked"}


def test_a_dataset_that_is_not_installed_is_a_warning() -> None:
    assert problems(check_task(task(dataset="absent")), "warning") == {
        "default dataset": "no dataset called 'absent' is installed"
    }


@pytest.mark.parametrize("fault", TASK_FAULTS)
def test_a_fault_of_a_task_is_found(fault: str) -> None:
    cls, check, text = TASK_FAULTS[fault]
    found = problems(examine_task(cls))
    assert text in found.get(check, "nothing"), found
