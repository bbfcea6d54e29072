"""The registry's own rules, without a plugin installed; installed ones: test_example_plugins.py."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pluggy
import pytest

import zoo
from zoo import hookspecs, interrupts
from zoo.errors import NameCollision, PluginError, UnknownName
from zoo.plugins import Broken, Entry, Registry, _claim, _load, entry_of, registry


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


# The options of pluggy's marker


def module(**functions: Any) -> ModuleType:
    """A plugin's module."""
    made = ModuleType("made_for_the_test")
    for name, function in functions.items():
        setattr(made, name, function)
    return made


def loaded(made: ModuleType, monkeypatch: pytest.MonkeyPatch, manager: pluggy.PluginManager) -> Any:
    """What `_load` makes of a module that an entry point names."""
    monkeypatch.setitem(sys.modules, "made_for_the_test", made)
    point = importlib.metadata.EntryPoint("made", "made_for_the_test", "zoo")
    return _load(manager, point, "zoo-made", "1.0")


@pytest.fixture
def manager() -> pluggy.PluginManager:
    made = pluggy.PluginManager("zoo")
    made.add_hookspecs(hookspecs)
    return made


def wrapping() -> Any:
    return (yield)


@pytest.mark.parametrize("option", ["wrapper", "hookwrapper"])
@pytest.mark.parametrize("hook", ["zoo_models", "zoo_run_started", "zoo_config_package"])
def test_a_wrapper_is_refused_and_nothing_of_it_stays(
    option: str, hook: str, monkeypatch: pytest.MonkeyPatch, manager: pluggy.PluginManager
) -> None:
    marked = zoo.hookimpl(specname=hook, **{option: True})(wrapping)
    listening = zoo.hookimpl(specname="zoo_epoch_ended")(lambda: None)
    with pytest.raises(PluginError, match=f"wrapping is marked {option}=True, and every plugin is called on its own"):
        loaded(module(zoo_first=listening, wrapping=marked), monkeypatch, manager)
    assert not manager.get_plugins()
    assert not any(getattr(manager.hook, name).get_hookimpls() for name in (hook, "zoo_epoch_ended"))


def test_a_wrapper_that_is_no_generator_is_refused_and_nothing_of_it_stays(
    monkeypatch: pytest.MonkeyPatch, manager: pluggy.PluginManager
) -> None:
    """pluggy finds it in the middle of the registration, when the functions before it are in already."""
    listening = zoo.hookimpl(specname="zoo_epoch_ended")(lambda: None)
    marked = zoo.hookimpl(specname="zoo_run_ended", wrapper=True)(lambda: None)
    with pytest.raises(pluggy.PluginValidationError):
        loaded(module(a_first=listening, b_second=marked), monkeypatch, manager)
    assert not manager.get_plugins()
    assert not manager.hook.zoo_epoch_ended.get_hookimpls()


def test_a_function_may_implement_a_hook_under_another_name(
    monkeypatch: pytest.MonkeyPatch, manager: pluggy.PluginManager
) -> None:
    @zoo.hookimpl(specname="zoo_models")
    def what_i_bring() -> list[Any]:
        return [Good]

    @zoo.hookimpl(specname="zoo_models", tryfirst=True)
    def and_nothing_more() -> None:
        return None

    brought, package = loaded(module(one=what_i_bring, two=and_nothing_more), monkeypatch, manager)
    assert [entry.name for entry in brought] == ["fitted"]
    assert package is None


def test_two_packages_of_yaml_are_refused(monkeypatch: pytest.MonkeyPatch, manager: pluggy.PluginManager) -> None:
    one = zoo.hookimpl(specname="zoo_config_package")(lambda: "a")
    two = zoo.hookimpl(specname="zoo_config_package")(lambda: "b")
    with pytest.raises(PluginError, match="names 2 packages of YAML"):
        loaded(module(one=one, two=two), monkeypatch, manager)
    assert not manager.hook.zoo_config_package.get_hookimpls()


def test_a_hook_that_is_not_known_is_misspelt_unless_it_is_optional(
    monkeypatch: pytest.MonkeyPatch, manager: pluggy.PluginManager
) -> None:
    def zoo_of_tomorrow() -> None: ...

    bring = zoo.hookimpl(specname="zoo_models")(lambda: [Good])
    brought, _ = loaded(
        module(zoo_of_tomorrow=zoo.hookimpl(optionalhook=True)(zoo_of_tomorrow), bring=bring), monkeypatch, manager
    )
    assert [entry.name for entry in brought] == ["fitted"]
    with pytest.raises(pluggy.PluginValidationError, match="unknown hook 'zoo_of_tomorrow'"):
        loaded(module(zoo_of_tomorrow=zoo.hookimpl(zoo_of_tomorrow)), monkeypatch, manager)


def test_a_misspelt_hook_is_answered_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, manager: pluggy.PluginManager
) -> None:
    def zoo_run_start(run: object) -> None: ...

    with pytest.raises(pluggy.PluginValidationError, match=r"'zoo_run_start'.* Did you mean 'zoo_run_started'\?$"):
        loaded(module(zoo_run_start=zoo.hookimpl(zoo_run_start)), monkeypatch, manager)


def test_observers_are_called_in_pluggys_order() -> None:
    """Of the same functions, registered in the same order, pluggy itself calls them as we do."""
    heard: list[str] = []

    def observer(name: str, **options: bool) -> Any:
        class Observer:
            @zoo.hookimpl(**options)
            def zoo_epoch_ended(self) -> None:
                heard.append(name)

        return Observer()

    made = observed(
        observer("one"), observer("first", tryfirst=True), observer("last", trylast=True), observer("two"),
        observer("very first", tryfirst=True), observer("very last", trylast=True),
    )  # fmt: skip
    made.notify("zoo_epoch_ended", run={}, epoch={})
    ours, heard[:] = list(heard), []
    made.manager.hook.zoo_epoch_ended(run={}, epoch={})
    assert ours == heard == ["very first", "first", "two", "one", "last", "very last"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), RecursionError()])
def test_an_observer_that_pretends_to_be_ctrl_c_stops_nobody(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    heard = []

    class Failing:
        @zoo.hookimpl(tryfirst=True)
        def zoo_run_started(self) -> None:
            raise error

    class Listening:
        @zoo.hookimpl
        def zoo_run_started(self) -> None:
            heard.append(1)

    with interrupts.remembered():
        observed(Failing(), Listening()).notify("zoo_run_started", run={})
    assert heard == [1]
    assert "plugin zoo-0 failed in zoo_run_started: " in caplog.text


def test_a_name_too_long_for_a_folder_makes_a_plugin_broken() -> None:
    @dataclass
    class Long(Fitted):
        name: ClassVar[str] = "x" * 101

    with pytest.raises(PluginError, match=r"Long.name has 101 characters; it must have at most 100"):
        entry_of("model", Long, "zoo-test", "1.0")
