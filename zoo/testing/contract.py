"""What every class of a plugin must be, whatever its kind: a dataclass that Hydra takes, light to import."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.errors import PluginError
from zoo.testing import fresh
from zoo.testing.findings import Finding, Problem, describe, perform


@dataclass(frozen=True)
class Candidate:
    """A class to examine and the options to make it with. kind: "model", "dataset" or "task"."""

    kind: str
    cls: type[Any]
    options: Mapping[str, Any]

    def make(self) -> Any:
        """A new instance."""
        return self.cls(**self.options)


def examine_class(kind: str, cls: type[Any], options: Mapping[str, Any]) -> list[Finding]:
    """Findings about the class itself. Later checks make no sense when one of these failed."""
    candidate = Candidate(kind, cls, options)
    findings = []
    for name, check in _CHECKS.items():
        findings += perform(name, "", check, candidate)
        if findings[-1].verdict == "failed" and name != "light import":
            break
    return findings


def _is_registrable(candidate: Candidate) -> Iterator[Problem]:
    """The harness's own check at registration."""
    from zoo.plugins import entry_of

    try:
        entry_of(candidate.kind, candidate.cls, "this plugin", "")
    except PluginError as error:
        yield Problem(str(error), "The harness would list the whole plugin as broken.")


def _is_summarised(candidate: Candidate) -> Iterator[Problem]:
    doc = inspect.getdoc(candidate.cls) or ""
    if "__doc__" not in vars(candidate.cls) or not doc or doc.startswith(f"{candidate.cls.__name__}("):
        yield Problem(
            "it has no docstring", "Its first line is what `python -m zoo.ls` shows; say what it is.", "warning"
        )


def _is_schema(candidate: Candidate) -> Iterator[Problem]:
    """Hydra's own view of the fields."""
    from zoo.config import schema
    from zoo.plugins import entry_of

    try:
        schema(entry_of(candidate.kind, candidate.cls, "this plugin", ""))
    except Exception as error:
        yield Problem(
            str(error) if isinstance(error, PluginError) else describe(error),
            "Type each field as int, float, bool, str, an Enum, a list or dict of these, or one of them | None.",
        )


def _has_meanings(candidate: Candidate) -> Iterator[Problem]:
    """Every option says what it means, or `--help` shows a name and nothing else."""
    from zoo.options import describe

    if silent := [item for item in describe(candidate.cls) if not item.meaning.strip()]:
        names = ", ".join(item.name for item in silent)
        yield Problem(
            f"the help cannot say what {names} {'means' if len(silent) == 1 else 'mean'}",
            f'Declare it with its meaning and range, e.g. {silent[0].name}: int = zoo.option(8, "width of …", ge=1).',
            "warning",
        )


def _can_be_made(candidate: Candidate) -> Iterator[Problem]:
    try:
        candidate.make()
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in candidate.options.items())
        yield Problem(
            f"{candidate.cls.__name__}({given}) {describe(error)}",
            "Give each field a default, or pass the option to this check; refuse bad values with zoo.ConfigError.",
        )


def _is_light(candidate: Candidate) -> Iterator[Problem]:
    """Importing the module in a new interpreter must not pull in a framework."""
    heavy = fresh.imports(candidate.cls.__module__)
    mend = "Move the import into the function that needs it; annotations may stand under `if TYPE_CHECKING:`."
    fatal = [name for name in heavy if name in fresh.FRAMEWORKS]
    if fatal:
        yield Problem(f"importing {candidate.cls.__module__} imports {', '.join(fatal)}", mend)
    elif heavy:
        yield Problem(f"importing {candidate.cls.__module__} imports {', '.join(heavy)}", mend, "warning")


_CHECKS = {
    "class": _is_registrable,
    "docstring": _is_summarised,
    "options": _is_schema,
    "meanings": _has_meanings,
    "defaults": _can_be_made,
    "light import": _is_light,
}
