"""The registry's own rules, without a plugin installed; installed ones: test_example_plugins.py."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pluggy
import pytest

import zoo
from zoo import hookspecs
from zoo.errors import NameCollision, PluginError, UnknownName
from zoo.plugins import Broken, Entry, Registry, _claim, entry_of, registry


class Fitted(zoo.Predictor):
    """Everything but what a case is about."""

    name: ClassVar[str] = "fitted"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text"})

    def fit(self, train: zoo.Split, validation: zoo.Split, seed: int) -> None: ...

    def predict_proba(self, examples: Any) -> np.ndarray:
        return np.empty(0)


@dataclass
class Good(Fitted):
    """A model."""


@dataclass
class Unfinished(zoo.TorchModel):
    name: ClassVar[str] = "unfinished"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text"})


@dataclass
class Shouting(Fitted):
    name: ClassVar[str] = "My Model"


@dataclass
class Blind(Fitted):
    modalities: ClassVar[frozenset[Any]] = frozenset()


@dataclass
class Hearing(Fitted):
    modalities: ClassVar[frozenset[Any]] = frozenset({"sound"})


@dataclass
class Renamable(Fitted):
    name: str = "renamable"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        ("a text", "zoo_models returned 'a text', which is not a class derived from zoo.TorchModel or zoo.Predictor"),
        (int, "which is not a class derived from"),
        (Good(), "which is not a class derived from"),
        (Fitted, "Fitted is not a dataclass: write @dataclass above it"),
        (Unfinished, "Unfinished does not define build, encoder"),
        (Shouting, "Shouting.name is 'My Model'; it must be lower-case letters, digits and underscores"),
        (Blind, "Blind states no modality out of text, image; got frozenset()"),
        (Hearing, "Hearing states no modality out of text, image; got frozenset({'sound'})"),
        (Renamable, "Renamable.name must be annotated as ClassVar[str], or it becomes an option"),
    ],
)
def test_a_class_that_breaks_the_contract_is_told_what_to_mend(cls: Any, message: str) -> None:
    with pytest.raises(PluginError) as refused:
        entry_of("model", cls, "zoo-test", "1.0")
    assert message in str(refused.value)


def test_a_class_that_keeps_the_contract_is_an_entry() -> None:
    assert entry_of("model", Good, "zoo-test", "1.0") == Entry("model", "fitted", Good, "zoo-test", "1.0")
    assert entry_of("model", Good, "zoo-test", "1.0").summary == "A model."


def test_one_name_for_two_is_a_collision_that_names_both() -> None:
    known: dict[str, Entry] = {}
    _claim(known, Entry("model", "fitted", Good, "zoo-one", "1.0"))
    with pytest.raises(NameCollision, match=r"'fitted': zoo-one 1\.0 and zoo-two 2\.0\.\n.*ZOO_PLUGINS"):
        _claim(known, Entry("model", "fitted", Good, "zoo-two", "2.0"))


def observed(*observers: Any) -> Registry:
    manager = pluggy.PluginManager("zoo")
    manager.add_hookspecs(hookspecs)
    for number, observer in enumerate(observers):
        manager.register(observer, f"zoo-{number}")
    return Registry(registry().entries, (), (Broken("zoo-bad", "1.0", "bad", "No module named 'x'"),), manager)


def test_an_unknown_name_is_answered_with_the_nearest_and_the_broken_plugins() -> None:
    with pytest.raises(UnknownName) as refused:
        observed().find("dataset", "digit")
    assert str(refused.value).startswith("No dataset 'digit'. Installed: arrays, bbc_news, digits, ")
    assert str(refused.value).endswith(" Did you mean 'digits'? Broken plugins: zoo-bad (No module named 'x').")
    with pytest.raises(UnknownName) as refused:
        observed().find("task", "zzz")
    assert "Did you mean" not in str(refused.value)


def test_an_observer_that_raises_is_reported_and_the_others_still_hear(caplog: pytest.LogCaptureFixture) -> None:
    heard = []

    class Failing:
        @zoo.hookimpl
        def zoo_epoch_ended(self, epoch: dict[str, float]) -> None:
            raise ZeroDivisionError("nobody home")

    class Listening:
        @zoo.hookimpl
        def zoo_epoch_ended(self, epoch: dict[str, float]) -> None:
            heard.append(epoch)

    for observers in ((Failing(), Listening()), (Listening(), Failing())):
        with caplog.at_level(logging.WARNING, "zoo"):
            observed(*observers).notify("zoo_epoch_ended", run={}, epoch={"epoch": 1.0})
    assert heard == [{"epoch": 1.0}] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "plugin zoo-0 failed in zoo_epoch_ended: nobody home",
        "plugin zoo-1 failed in zoo_epoch_ended: nobody home",
    ]
