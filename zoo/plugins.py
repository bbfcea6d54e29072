"""Discovery of plugins, and the registry of what they bring.

The loop over entry points is our own: pluggy's loader lets one broken plugin end the program, silently drops equal
entry-point names and does not report misspelt hooks. Here each plugin is loaded on its own; what fails is listed
with its reason, by `python -m zoo.ls plugins` and in every error about an unknown name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import inspect
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pluggy

from zoo import guard, hookspecs, interrupts
from zoo.data import Dataset
from zoo.errors import NameCollision, PluginError, RequestError, UnknownName, did_you_mean
from zoo.homogeneity.measures import Measure
from zoo.models import Modality, Predictor, TorchModel
from zoo.phases import phase
from zoo.tasks import Task

GROUP = "zoo"
CORE = "zoo-harness"
PATIENCE = 3.0  # seconds after which a plugin that is still loading is named
LONGEST_NAME = 100
"""Characters of a model's, dataset's, task's or measure's name: it becomes a folder's name."""
log = logging.getLogger("zoo")

# kind -> (hook that lists the classes, what such a class must be)
KINDS: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "model": ("zoo_models", (TorchModel, Predictor)),
    "dataset": ("zoo_datasets", (Dataset,)),
    "task": ("zoo_tasks", (Task,)),
    "measure": ("zoo_measures", (Measure,)),
}


@dataclass(frozen=True)
class Entry:
    """One registered class. kind: `"model"`, `"dataset"`, `"task"` or `"measure"`."""

    kind: str
    name: str
    cls: type[Any]
    distribution: str
    version: str

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.cls) or "").partition("\n")[0]


@dataclass(frozen=True)
class Plugin:
    """One loaded plugin. config_package: the importable package of its extra YAML, if it has one."""

    distribution: str
    version: str
    entry_point: str
    config_package: str | None = None


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    distribution: str
    version: str
    entry_point: str
    reason: str


@dataclass(frozen=True)
class Registry:
    """Everything installed. entries: kind -> name -> Entry, names sorted."""

    entries: Mapping[str, Mapping[str, Entry]]
    plugins: tuple[Plugin, ...]
    broken: tuple[Broken, ...]
    manager: pluggy.PluginManager

    def find(self, kind: str, name: str) -> Entry:
        """The entry of that name. Raises UnknownName with the nearest name and the broken plugins."""
        known = self.entries[kind]
        if name in known:
            return known[name]
        raise UnknownName(
            f"No {kind} '{name}'. Installed: {', '.join(known)}.{did_you_mean(name, known)}{self.broken_note()}"
        )

    def broken_note(self) -> str:
        """`" Broken plugins: zoo-foo (No module named 'x')."`, or an empty string."""
        if not self.broken:
            return ""
        return f" Broken plugins: {', '.join(f'{b.distribution} ({b.reason})' for b in self.broken)}."

    def versions(self) -> dict[str, str]:
        """Version of every distribution loaded, the core included."""
        return {plugin.distribution: plugin.version for plugin in self.plugins}

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call an observer hook, in pluggy's order: `tryfirst` ones, then the last registered first, then `trylast`
        ones. An observer that raises, whatever it is but the user's Ctrl-C, is reported and does not disturb the run.
        """
        for implementation in reversed(getattr(self.manager.hook, hook).get_hookimpls()):
            try:
                implementation.function(**{name: arguments[name] for name in implementation.argnames})
            except BaseException as caught:
                error = interrupts.not_users(caught)
                told = str(error) if isinstance(error, Exception) else type(error).__name__
                log.warning("plugin %s failed in %s: %s", implementation.plugin_name, hook, told, exc_info=error)


@functools.cache
def registry() -> Registry:
    """Load all plugins, once a process.

    `ZOO_PLUGINS=a,b` loads only those distributions (and the core); `ZOO_STRICT_PLUGINS=1` makes a broken plugin fatal.
    Raises NameCollision when two distributions claim one name.
    """
    manager = pluggy.PluginManager("zoo")
    manager.add_hookspecs(hookspecs)
    entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
    plugins: list[Plugin] = []
    broken: list[Broken] = []
    for point, distribution, version in _selected(_entry_points()):
        try:
            with _watched(distribution):
                brought, package = _load(manager, point, distribution, version)
        except BaseException as caught:
            error = interrupts.not_users(caught)
            if distribution == CORE:
                raise
            broken.append(Broken(distribution, version, point.name, _reason(error)))
            continue
        for entry in brought:
            _claim(entries[entry.kind], entry)
        plugins.append(Plugin(distribution, version, point.name, package))
    if broken and os.environ.get("ZOO_STRICT_PLUGINS", "") not in ("", "0"):
        reasons = "\n".join(f"  {b.distribution}: {b.reason}" for b in broken)
        raise PluginError(f"Broken plugins, and ZOO_STRICT_PLUGINS is set:\n{reasons}\nMend or uninstall them.")
    in_order = {kind: dict(sorted(named.items())) for kind, named in entries.items()}
    return Registry(in_order, tuple(plugins), tuple(broken), manager)


def find(kind: str, name: str) -> Entry:
    """The installed model, dataset, task or measure of that name. Raises UnknownName."""
    return registry().find(kind, name)


def _entry_points() -> Iterator[tuple[importlib.metadata.EntryPoint, str, str]]:
    """Entry points of our group with their distribution's name and version, the core first, then by name."""
    found: dict[tuple[str, str], tuple[importlib.metadata.EntryPoint, str]] = {}
    for distribution in importlib.metadata.distributions():
        for point in distribution.entry_points:
            if point.group == GROUP:
                # An editable install is seen twice when its folder is on the path as well: one is enough.
                found.setdefault((distribution.name, point.name), (point, distribution.version))
    core = importlib.metadata.EntryPoint(name="builtin", value="zoo.builtin", group=GROUP)
    from zoo import __version__

    yield core, CORE, __version__
    for (name, _), (point, version) in sorted(found.items(), key=lambda item: item[0]):
        yield point, name, version


def _selected(
    points: Iterator[tuple[importlib.metadata.EntryPoint, str, str]],
) -> list[tuple[importlib.metadata.EntryPoint, str, str]]:
    """Only the distributions named in `ZOO_PLUGINS`, when it is set."""
    every = list(points)
    if "ZOO_PLUGINS" not in os.environ:
        return every
    wanted = {_normal(name) for name in os.environ["ZOO_PLUGINS"].split(",") if name.strip()}
    installed = {_normal(distribution): distribution for _, distribution, _ in every}
    for name in sorted(wanted - installed.keys()):
        raise RequestError(
            f"ZOO_PLUGINS names '{name}', which is not installed. Installed plugins: "
            f"{', '.join(sorted(installed.values()))}.{did_you_mean(name, installed)}"
        )
    return [item for item in every if item[1] == CORE or _normal(item[1]) in wanted]


@contextlib.contextmanager
def _watched(distribution: str) -> Iterator[None]:
    """Within it one distribution is loaded: one that takes long is named on stderr, while it still does."""
    told = f"{distribution} is still loading after {PATIENCE:g} s. ZOO_PLUGINS=<name>,<name> loads only those named."
    timer = threading.Timer(PATIENCE, lambda: print(told, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        with phase(distribution):
            yield
    finally:
        timer.cancel()


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def _load(
    manager: pluggy.PluginManager, point: importlib.metadata.EntryPoint, distribution: str, version: str
) -> tuple[list[Entry], str | None]:
    """Import one plugin, register it under its distribution's name and collect what it brings."""
    name = distribution if not manager.has_plugin(distribution) else f"{distribution}:{point.name}"
    module = point.load()
    try:
        manager.register(module, name)
        _check_spelling(manager)
        if not manager.get_hookcallers(module):
            raise PluginError(f"'{point.value}' implements no hook; did you forget @zoo.hookimpl?")
        _refuse_wrappers(manager, module)
        brought = [
            entry_of(kind, cls, distribution, version)
            for kind, (hook, _) in KINDS.items()
            for classes in _call(manager, module, hook)
            for cls in classes or []
        ]
        packages = [package for package in _call(manager, module, "zoo_config_package") if package is not None]
        if len(packages) > 1:
            raise PluginError(f"'{point.value}' names {len(packages)} packages of YAML; zoo_config_package gives one")
    except BaseException:
        _unregister(manager, module)
        raise
    return brought, packages[0] if packages else None


def _check_spelling(manager: pluggy.PluginManager) -> None:
    """Raise PluginValidationError for a hook that no specification knows, with the nearest one that there is."""
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = re.search(r"unknown hook '(\w+)'", str(error))
        known = [name for name in vars(hookspecs) if name.startswith("zoo_")]
        near = did_you_mean(unknown[1], known) if unknown else ""
        raise pluggy.PluginValidationError(error.plugin, f"{error}{near}") from None


def _call(manager: pluggy.PluginManager, module: Any, hook: str) -> list[Any]:
    """What this one plugin returns from a hook, of each function that implements it, in pluggy's order."""
    return [implementation.function() for implementation in _implementations(manager, module, hook)]


def _implementations(manager: pluggy.PluginManager, module: Any, hook: str) -> list[pluggy.HookImpl]:
    every = reversed(getattr(manager.hook, hook).get_hookimpls())
    return [implementation for implementation in every if implementation.plugin is module]


def _refuse_wrappers(manager: pluggy.PluginManager, module: Any) -> None:
    """Each plugin is called on its own, so that one cannot stop another: there is nothing to wrap."""
    for caller in manager.get_hookcallers(module) or []:
        for implementation in _implementations(manager, module, caller.name):
            if implementation.wrapper or implementation.hookwrapper:
                option = "wrapper" if implementation.wrapper else "hookwrapper"
                raise PluginError(
                    f"{implementation.function.__name__} is marked {option}=True, and every plugin is called on its "
                    f"own: remove it; tryfirst=True and trylast=True say when it is called"
                )


def _unregister(manager: pluggy.PluginManager, module: Any) -> None:
    """Take a plugin out, with every function: pluggy takes one a hook, and nothing of one whose registration failed
    half-way."""
    for name, caller in vars(manager.hook).items():
        while not name.startswith("_") and _implementations(manager, module, name):
            caller._remove_plugin(module)
    if manager.is_registered(module):
        manager.unregister(module)


def entry_of(kind: str, cls: Any, distribution: str, version: str) -> Entry:
    """Check a class against the contract of its kind. Raises PluginError that says what to mend."""
    hook, bases = KINDS[kind]
    named = " or ".join(f"zoo.{base.__name__}" for base in bases)
    if not (isinstance(cls, type) and issubclass(cls, bases)):
        raise PluginError(f"{hook} returned {cls!r}, which is not a class derived from {named}")
    if not dataclasses.is_dataclass(cls) or "__dataclass_fields__" not in vars(cls):
        raise PluginError(f"{cls.__name__} is not a dataclass: write @dataclass above it")
    name = getattr(cls, "name", None)
    if isinstance(name, str) and len(name) > LONGEST_NAME:
        raise PluginError(f"{cls.__name__}.name has {len(name)} characters; it must have at most {LONGEST_NAME}")
    if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name)):
        raise PluginError(f"{cls.__name__}.name is {name!r}; it must be lower-case letters, digits and underscores")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise PluginError(f"{cls.__name__} does not define {', '.join(missing)}")
    stated = getattr(cls, "modalities", None) if kind == "model" else {getattr(cls, "modality", None)}
    if kind != "measure" and (not stated or not set(stated) <= set(get_args(Modality))):
        raise PluginError(f"{cls.__name__} states no modality out of {', '.join(get_args(Modality))}; got {stated!r}")
    if "name" in {field.name for field in dataclasses.fields(cls)}:
        raise PluginError(f"{cls.__name__}.name must be annotated as ClassVar[str], or it becomes an option")
    return Entry(kind, name, cls, distribution, version)


def _claim(known: dict[str, Entry], entry: Entry) -> None:
    if entry.name in known:
        other = known[entry.name]
        raise NameCollision(
            f"Two distributions bring a {entry.kind} named '{entry.name}': {other.distribution} {other.version} and "
            f"{entry.distribution} {entry.version}.\nUninstall one of them, or choose with ZOO_PLUGINS=<name>,<name>."
        )
    known[entry.name] = entry


def _reason(error: BaseException) -> str:
    """One line that says why a plugin is broken."""
    told = guard.described(error)
    plain = isinstance(error, ImportError | PluginError | pluggy.PluginValidationError)
    return told.partition(": ")[2] if plain else told
