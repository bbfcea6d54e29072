"""`python -m zoo.check PLUGIN`: the conformance kit run on everything that an installed plugin brings.

PLUGIN is a distribution (`zoo-mlp`) or an import name (`zoo_mlp`). Exit codes: 0 nothing failed, 1 something failed or
the plugin cannot be loaded, 2 no such plugin.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from zoo import guard, interrupts, progress
from zoo.config import check_yaml
from zoo.errors import PluginError, UnknownName, did_you_mean
from zoo.phases import phase
from zoo.plugins import CORE, GROUP, Entry, registry
from zoo.testing import Finding, examine_dataset, examine_model, examine_task, fresh
from zoo.testing.findings import Problem, Verdict, describe, perform

if TYPE_CHECKING:
    from zoo.plugins import Plugin

_EXAMINE = {"model": examine_model, "dataset": examine_dataset, "task": examine_task}
_STYLES: Mapping[str, str] = {"ok": "green", "warning": "yellow", "failed": "bold red", "not checked": "dim"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check one plugin, print a table, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m zoo.check", description="Check a plugin against its contract.")
    parser.add_argument("plugin", help="distribution or import name of an installed plugin, e.g. zoo-mlp")
    return guard.run(lambda: _report(_examined(guard.parsed(parser, arguments).plugin)))


def _examined(name: str) -> dict[str, list[Finding]]:
    """What `examine_plugin` yields, with a line on a terminal that says what is being examined."""
    with progress.activity():
        return dict(examine_plugin(name))


def examine_plugin(name: str) -> Iterator[tuple[str, list[Finding]]]:
    """Yields (item, findings), e.g. `("model mlp", [...])`, as each item is done.

    Raises UnknownName when no such plugin is installed, PluginError when it cannot be loaded."""
    with phase("loading plugins"):
        plugin = _find(name)
    with phase(f"examining plugin {plugin.distribution}"):
        findings = perform("package", "", _package_problems, plugin)
    yield f"plugin {plugin.distribution}", findings
    for kind, entries in registry().entries.items():
        for entry in entries.values():
            if entry.distribution == plugin.distribution:
                with phase(f"examining {kind} {entry.name}"):
                    findings = examine_entry(entry)
                yield f"{kind} {entry.name}", findings


def examine_entry(entry: Entry) -> list[Finding]:
    """Findings about one registered class with its defaults; "not checked" when it needs an option to do anything."""
    if missing := _needed(entry):
        return [_not_checked(missing)]
    try:
        findings = _EXAMINE[entry.kind](entry.cls)
    except BaseException as caught:
        error = interrupts.not_users(caught)
        return [Finding("examination", "failed", got=describe(error), mend="Nothing may be raised here.")]
    if entry.kind == "dataset" and (asked := _asked_for(entry, findings)):
        return [finding for finding in findings if finding.verdict == "ok"] + [_not_checked(asked)]
    return findings


def _find(name: str) -> Plugin:
    """The loaded plugin of that distribution or import name."""
    known = registry()
    broken = [item for item in known.broken if _is_called(name, item.distribution)]
    if broken:
        reasons = "\n".join(f"  {item.entry_point}: {item.reason}" for item in broken)
        raise PluginError(
            f"{broken[0].distribution} {broken[0].version} cannot be loaded; entry point and reason:\n{reasons}\n"
            f"Mend it, then check again: python -m zoo.check {name}"
        )
    for plugin in known.plugins:
        if _is_called(name, plugin.distribution):
            return plugin
    names = [plugin.distribution for plugin in known.plugins] + [broken.distribution for broken in known.broken]
    raise UnknownName(f"No plugin '{name}'. Installed: {', '.join(names)}.{did_you_mean(name, names)}")


def _is_called(name: str, distribution: str) -> bool:
    return _normal(name) == _normal(distribution) or name in _modules(distribution)


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _modules(distribution: str) -> list[str]:
    """The modules behind a distribution's entry points."""
    if distribution == CORE:
        return ["zoo"]
    points = importlib.metadata.distribution(distribution).entry_points
    return [point.module for point in points if point.group == GROUP]


def _package_problems(plugin: Plugin) -> Iterator[Problem]:
    """The distribution as a whole: its metadata, its YAML, the weight of its import."""
    if plugin.distribution == CORE:
        return
    required = importlib.metadata.requires(plugin.distribution) or []
    if not any(re.match(rf"{CORE}\b", _normal(item)) for item in required):
        yield Problem(
            f"{plugin.distribution} does not depend on {CORE}",
            f"Put '{CORE}' among the dependencies in pyproject.toml.",
            "warning",
        )
    for module in _modules(plugin.distribution):
        if heavy := [name for name in fresh.imports(module) if name in fresh.FRAMEWORKS]:
            yield Problem(
                f"importing {module} imports {', '.join(heavy)}", "Move the import into the function that needs it."
            )
    try:
        check_yaml(registry())
    except PluginError as error:
        yield Problem(str(error), "Every run would stop with this message.")


def _needed(entry: Entry) -> list[str]:
    """Options without a default."""
    return [
        item.name
        for item in dataclasses.fields(entry.cls)
        if item.init
        and item.default_factory is dataclasses.MISSING
        and (item.default is dataclasses.MISSING or item.default == "???")
    ]


def _asked_for(entry: Entry, findings: Sequence[Finding]) -> list[str]:
    """Options with an empty default that reading asked for: a reader of the user's own files has nothing to read."""
    failed = " ".join(finding.got for finding in findings if finding.verdict == "failed")
    empty = [item.name for item in dataclasses.fields(entry.cls) if item.default in ("", None)]
    return [name for name in empty if re.search(rf"\b{name}=", failed)]


def _not_checked(options: Sequence[str]) -> Finding:
    return Finding("examination", "not checked", got=f"needs {', '.join(f'{name}=' for name in options)}")


def _report(results: Mapping[str, Sequence[Finding]]) -> int:
    """Print the table and what it comes to. Returns the exit code."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # A pipe has no width; 80 columns would break every sentence.
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table("item", "check", "result", title="Conformance")
    for item, findings in results.items():
        for row, (check, verdict, text) in enumerate(_lines(findings)):
            table.add_row(item if row == 0 else "", check, Text(text, style=_STYLES[verdict]))
        table.add_section()
    console.print(table)
    counts: Counter[str] = Counter(finding.verdict for findings in results.values() for finding in findings)
    console.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in _STYLES if counts[verdict]))
    return 1 if counts["failed"] else 0


def _lines(findings: Sequence[Finding]) -> Iterator[tuple[str, Verdict, str]]:
    """(check, verdict, text), a check's like outcomes on several inputs as one line."""
    merged: dict[tuple[str, Verdict, str, str], list[str]] = {}
    for finding in findings:
        merged.setdefault((finding.check, finding.verdict, finding.got, finding.mend), []).append(finding.on)
    for (check, verdict, got, mend), places in merged.items():
        on = f" ({', '.join(places)})" if any(places) else ""
        detail = f": {got}" if got else ""
        yield check, verdict, f"{verdict}{on}{detail}" + (f"\n→ {mend}" if mend else "")


if __name__ == "__main__":
    guard.leave(main())
