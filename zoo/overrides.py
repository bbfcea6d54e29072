"""The command line of a run: short forms expanded, mistakes answered in plain words, and the help page.

`path=reviews.csv` is short for `dataset.path=reviews.csv`: a bare name that only one of the chosen model, dataset,
task and the trainer knows is taken for theirs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zoo.config import RunSchema, TrainerOptions, variants
from zoo.errors import ConfigError, Incompatible, UnknownName, ZooError, did_you_mean

if TYPE_CHECKING:
    from zoo.plugins import Entry, Registry

GROUPS = ("model", "dataset", "task", "trainer", "experiment")
ROOT = tuple(item.name for item in dataclasses.fields(RunSchema))
DEFAULT_TASK = "sentiment"
# Hydra's flags whose next word is their value
FLAGS_WITH_VALUE = frozenset({"--cfg", "-c", "--package", "-p", "--info", "-i", "--config-dir", "-cd"})


def expand(arguments: list[str], registry: Registry) -> list[str]:
    """Hydra's overrides from what was typed. Raises ConfigError for a name that nothing knows, or for `+x=1`."""
    owners = _owners(arguments, registry)
    before = ["", *arguments]
    return [
        argument if argument.startswith("-") or flag in FLAGS_WITH_VALUE else _expand(argument, owners)
        for flag, argument in zip(before, arguments, strict=False)
    ]


def _expand(argument: str, owners: Mapping[str, set[str]]) -> str:
    match = re.fullmatch(r"(\+\+|\+|~)?([\w./@-]+)(=.*)?", argument, flags=re.DOTALL)
    if match is None:
        raise ConfigError(f"'{argument}' is not an override. Write name=value, e.g. model=bert or trainer.epochs=3.")
    sign, name, value = match[1], match[2], match[3]
    if name.split(".")[0].split("/")[0] == "hydra" or name == "experiment":
        return argument
    if sign is not None:
        raise ConfigError(
            f"'{argument}': options are neither added nor removed, since nothing would read them. Write {name}=value."
        )
    if value is None:
        raise ConfigError(f"'{argument}' has no value. Write {argument}=value, e.g. model=bert.")
    if "." in name or name in ROOT or name in GROUPS:
        return argument
    if name not in owners:
        raise ConfigError(
            f"No option '{name}'.{did_you_mean(name, [*ROOT, *GROUPS, *owners])} All options: python -m zoo.run --help"
        )
    if len(owners[name]) > 1:
        forms = " or ".join(f"{owner}.{name}{value}" for owner in sorted(owners[name]))
        raise ConfigError(f"'{name}' is an option of more than one part. Write {forms}.")
    return f"{next(iter(owners[name]))}.{name}{value}"


def _owners(arguments: list[str], registry: Registry) -> dict[str, set[str]]:
    """Option name -> the config sections that have it, given what was chosen."""
    owners: dict[str, set[str]] = {}
    for item in dataclasses.fields(TrainerOptions):
        owners.setdefault(item.name, set()).add("trainer")
    for kind in ("model", "dataset", "task"):
        for entry in chosen(arguments, kind, registry):
            for item in dataclasses.fields(entry.cls):
                owners.setdefault(item.name, set()).add(kind)
    return owners


def chosen(arguments: list[str], kind: str, registry: Registry) -> list[Entry]:
    """The entries of one kind that the command line picks; all of them when it names one that is a YAML variant."""
    said = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{kind}=")]
    names = [name.strip() for value in said for name in value.split(",")]
    if not names and kind == "task":
        names = [DEFAULT_TASK]
    if not names and kind == "dataset":
        tasks = chosen(arguments, "task", registry)
        names = [entry.cls.dataset for entry in tasks]
    known = registry.entries[kind]
    if not names or any(name not in known for name in names):
        return list(known.values())
    return [known[name] for name in names]


@contextlib.contextmanager
def plain_errors(arguments: list[str], registry: Registry) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise about a wrong command line into errors that say what to do."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, arguments, registry) from error


def explain(error: BaseException, arguments: list[str], registry: Registry) -> ZooError:
    """The error in our words. An error of ours that Hydra wrapped is given back as it was."""
    from hydra.errors import OverrideParseException

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if ours := next((item for item in chain if isinstance(item, ZooError)), None):
        return ours
    if unread := next((item for item in chain if isinstance(item, OverrideParseException)), None):
        name, _, value = str(unread.override).partition("=")
        return ConfigError(
            f"'{unread.override}' cannot be read as an override. A value with special characters is quoted twice, "
            f"once for the shell and once for us:\n  '{name}=\"{value}\"'"
        )
    text = "\n".join(str(item) for item in chain)
    for pattern, answer in _PATTERNS:
        if found := re.search(pattern, text, flags=re.DOTALL):
            return answer(found, arguments, registry)
    return ConfigError(str(error).strip().split("\n\n")[0])


def _unknown_choice(found: re.Match[str], _arguments: list[str], registry: Registry) -> ZooError:
    group, name = found[1], found[2]
    if group not in registry.entries:
        names = [*variants(registry, group), *(["default"] if group == "trainer" else [])]
        return UnknownName(f"No {group} '{name}'. There are: {', '.join(names)}.{did_you_mean(name, names)}")
    extra = variants(registry, group)
    names = sorted([*registry.entries[group], *extra])
    return UnknownName(
        f"No {group} '{name}'. Installed: {', '.join(names)}.{did_you_mean(name, names)}{registry.broken_note()}"
    )


def _missing_choice(found: re.Match[str], _arguments: list[str], registry: Registry) -> ZooError:
    group = found[1]
    names = sorted([*registry.entries.get(group, {}), *variants(registry, group)])
    return ConfigError(
        f"Which {group}? Installed: {', '.join(names)}.{registry.broken_note()}\n"
        f"For example: python -m zoo.run {group}={names[0]} · all options: python -m zoo.run --help"
    )


def _unknown_option(found: re.Match[str], arguments: list[str], registry: Registry) -> ZooError:
    full = found[1]
    section, _, name = full.rpartition(".")
    known = _options(section, arguments, registry)
    listed = f" {section} has: {', '.join(known)}." if known and section else ""
    return ConfigError(f"No option '{full}'.{listed}{did_you_mean(name, known)} All options: python -m zoo.run --help")


def _options(section: str, arguments: list[str], registry: Registry) -> list[str]:
    """The options of a section of the config, of what the command line chose there; none for one of Hydra's own."""
    if section in registry.entries:
        entries = chosen(arguments, section, registry)
        return sorted({item.name for entry in entries for item in dataclasses.fields(entry.cls)})
    schema = {"trainer": TrainerOptions, "": RunSchema}.get(section)
    return [] if schema is None else [item.name for item in dataclasses.fields(schema)]


def _bad_value(found: re.Match[str], _arguments: list[str], _registry: Registry) -> ZooError:
    what = found[1].strip().rstrip(".")
    what = re.sub(r" of type '\w+'", "", what)
    what = re.sub(r"Invalid value '(.*?)', expected one of (\[.*?\])", r"'\1' is none of \2", what)
    return ConfigError(f"{found[2]}: {what}.")


def _several(found: re.Match[str], _arguments: list[str], _registry: Registry) -> ZooError:
    return ConfigError(
        f"'{found[1]}' names several values. Add -m to run each of them: python -m zoo.run -m {found[1]}"
    )


_PATTERNS = (
    (r"Could not find '(\w+)/([^']*)'", _unknown_choice),
    (r"You must specify '(\w+)'", _missing_choice),
    (r"Ambiguous value for argument '(.*?)'\n", _several),
    (r"Key '[^']*' (?:is not in struct|not in '\w+')\s+full_key: ([\w.\[\]]+)", _unknown_option),
    (r"Could not override '([\w./@]+)'\.\s*(?:No match|To append)", _unknown_option),
    (
        r"((?:Value|Invalid value|Cannot convert|Incompatible|field|Non optional).*?)\s+full_key: ([\w.\[\]]+)",
        _bad_value,
    ),
)


def check_fit(model: Any, task: Any) -> None:
    """Raise Incompatible when the model cannot take the task's modality; called before any data is read."""
    if task.modality not in model.modalities:
        raise Incompatible(
            f"Model '{model.name}' takes {' and '.join(sorted(model.modalities))}, and task '{task.name}' is about "
            f"{task.modality}s. `python -m zoo.ls models` shows what each model takes."
        )
