"""The command line of a run: short forms expanded, mistakes answered in plain words, and the help page.

`path=reviews.csv` is short for `dataset.path=reviews.csv`: a bare name that only one of the chosen model, dataset,
task and the trainer knows is taken for theirs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from zoo.config import LISTED_NULL, REPORT_NAME, RunSchema, TrainerOptions, base_of, chosen_by_experiment, variants
from zoo.errors import ConfigError, Incompatible, UnknownName, ZooError, did_you_mean
from zoo.options import describe, fields_of, takes_list
from zoo.store.disk import place_of

if TYPE_CHECKING:
    from zoo.config import RunConfig
    from zoo.plugins import Entry, Registry

GROUPS = ("model", "dataset", "task", "trainer", "experiment")
ROOT = tuple(item.name for item in dataclasses.fields(RunSchema))
DEFAULT_TASK = "sentiment"
COMPILE_WAS = {"true": "default", "false": "none"}
# Hydra's flags; those of the second kind take the next word as their value
FLAGS = frozenset({"-m", "--multirun", "-r", "--run", "--resolve", "--version", "--hydra-help"})
FLAGS_WITH_VALUE = frozenset(
    {"--cfg", "-c", "--package", "-p", "--info", "-i", "--config-dir", "-cd", "--shell-completion", "-sc"}
)


def expand(arguments: list[str], registry: Registry) -> list[str]:
    """Hydra's overrides from what was typed. Raises ConfigError for a name that nothing knows, for `+x=1`, and for an
    option that is given twice."""
    owners = _owners(arguments, registry)
    expanded: list[str] = []
    typed: dict[str, str] = {}
    for flag, argument in zip(["", *arguments], arguments, strict=False):
        if argument.startswith("-"):
            _check_flag(argument)
            expanded.append(argument)
        elif flag in FLAGS_WITH_VALUE:
            expanded.append(argument)
        else:
            expanded.append(_readable(_today(_expand(argument, owners, registry))))
            name = expanded[-1].partition("=")[0].lstrip("+~")
            if name in typed:
                raise ConfigError(_twice(name, typed[name], argument))
            typed[name] = argument
    return _seeds_outermost(expanded)


def _twice(name: str, first: str, second: str) -> str:
    values = [word.partition("=")[2] for word in (first, second)]
    several = f" To run both: -m {name}={','.join(values)}" if all(re.fullmatch(r"[\w.-]+", v) for v in values) else ""
    return f"'{name}' is given twice: {first} and {second}. Write it once.{several if values[0] != values[1] else ''}"


def parted(words: list[str]) -> tuple[list[str], list[str]]:
    """(overrides, flags with their values) of expanded words: Hydra reads no override behind a flag behind another."""
    options: list[str] = []
    flags: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        (flags if word.startswith("-") or before in FLAGS_WITH_VALUE else options).append(word)
    return options, flags


def is_sweep(words: list[str]) -> bool:
    """Whether expanded words ask for a sweep. Raises ConfigError when they ask for a single run as well."""
    options, flags = parted(words)
    if {"-m", "--multirun"} & set(flags) and {"-r", "--run"} & set(flags):
        raise ConfigError("-m runs every cell of a sweep, and -r a single run. Write one of them, or neither.")
    modes = [word.partition("=")[2] for word in options if word.lstrip("+").startswith("hydra.mode=")]
    return bool({"-m", "--multirun"} & set(flags)) or "MULTIRUN" in modes


def foreign(words: list[str], registry: Registry) -> dict[str, set[str]]:
    """Kind -> options given to a sweep that only some of its models, datasets or tasks have; see `config.register`."""
    found: dict[str, set[str]] = {}
    if not is_sweep(words):
        return found
    for kind in ("model", "dataset", "task"):
        own = [{item.name for item in fields_of(entry.cls)} for entry in chosen(words, kind, registry)]
        given = {_option_of(word, kind) for word in words}
        found[kind] = {name for name in given if any(name in names for names in own)}
        found[kind] -= own[0].intersection(*own)
    return found


def _option_of(word: str, kind: str) -> str:
    """`dropout` of `model.dropout=0.2`; an empty string when the word is no option of that kind."""
    section, _, option = word.partition("=")[0].partition(".")
    return option.partition(".")[0] if section == kind else ""


def for_each_cell(options: list[str]) -> list[str]:
    """A sweep's overrides with every option of a model, dataset or task as a list, if only of one value.

    Hydra composes the sweep as a whole before its cells, without what is a list: there is no model then, if the models
    are a list, and not the dataset of a cell, so that a single value would have no place."""
    return [_as_list(option) for option in options]


def _as_list(option: str) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    name, _, value = option.partition("=")
    parser = OverridesParser.create()
    if name.partition(".")[0] not in ("model", "dataset", "task") or "." not in name:
        return option
    given = parser.parse_override(option)
    if given.is_sweep_override():
        return option
    if given.value() is None:
        return f"{name}=choice({LISTED_NULL[0]})"
    for written in (value, given.get_value_element_as_str(), _quoted(value)):
        with contextlib.suppress(HydraException):
            wrapped = parser.parse_override(f"{name}=choice({written})")
            if list(wrapped.sweep_iterator()) == [given.value()]:
                return f"{name}=choice({written})"
    return option


def cells(options: list[str]) -> list[list[str]] | None:
    """The overrides of every cell of a sweep; None when only Hydra knows: with another sweeper, or with glob()."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if any(option.lstrip("+").startswith(("hydra/sweeper", "hydra.sweeper")) for option in options):
        return None
    try:
        (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(options), None)
    except HydraException:
        return None
    return batch


def _seeds_outermost(words: list[str]) -> list[str]:
    """The words with `seed=` before the other options: Hydra changes the last list of a sweep first, so that every
    round has each model with one seed. Killed early a sweep has something to compare, and of several processes none is
    left alone with all seeds of the slowest model."""
    seeds = [word for word in words if word.startswith("seed=")]
    others = [word for word in words if word not in seeds]
    options = [place for place, word in enumerate(others) if "=" in word and not word.startswith("-")]
    first = options[0] if options else len(others)
    return [*others[:first], *seeds, *others[first:]]


def _check_flag(argument: str) -> None:
    flag = argument.partition("=")[0]
    known = {"--help", *FLAGS, *FLAGS_WITH_VALUE}
    if flag not in known:
        raise ConfigError(
            f"There is no flag '{flag}'.{did_you_mean(flag, known)} Options have no dashes: seed=1. "
            f"All options: python -m zoo.run --help"
        )


def _today(override: str) -> str:
    """The override in today's words: up to 0.1 trainer.compile was true or false."""
    name, _, value = override.partition("=")
    if name != "trainer.compile":
        return override
    return f"{name}={','.join(COMPILE_WAS.get(word.strip().lower(), word) for word in value.split(','))}"


def _readable(override: str) -> str:
    """The override as Hydra can read it: a value with special characters, such as `;` or `it's.csv`, is quoted."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    name, _, value = override.partition("=")
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return f"{name}={_quoted(value)}"
    return override


def _quoted(value: str) -> str:
    """The text between Hydra's quotes, where a backslash counts only before a quote, and then it is doubled."""
    doubled = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + found[2].replace('"', '\\"'), value)
    return f'"{doubled}"'


def _expand(argument: str, owners: Mapping[str, set[str]], registry: Registry) -> str:
    match = re.fullmatch(r"(\+\+|\+|~)?([\w./@-]+)(=.*)?", argument, flags=re.DOTALL)
    if match is None:
        raise ConfigError(f"'{argument}' is not an override. Write name=value, e.g. model=bert or trainer.epochs=3.")
    sign, name, value = match[1], match[2], match[3]
    if name.split(".")[0].split("/")[0] == "hydra":
        return argument
    if sign is not None:
        raise ConfigError(
            f"'{argument}': options are neither added nor removed, since nothing would read them. Write {name}=value."
        )
    if value is None:
        raise ConfigError(f"'{argument}' has no value. Write {argument}=value, e.g. model=bert.")
    if name in GROUPS:
        return _group(name, value, argument)
    section, _, option = name.partition(".")
    if section in GROUPS and option == "name":
        raise ConfigError(f"'{argument}': a name is no option. Write {section}{value}")
    if name in ("runs_dir", "reports_dir"):
        return _folder(name, value)
    if name == "report_name" and not REPORT_NAME.fullmatch(value.removeprefix("=")):
        raise ConfigError(f"'{argument}': letters, digits, '_', '-' and '.' make a name.")
    if option and section in ROOT and section not in GROUPS:
        raise ConfigError(f"No option '{name}': '{section}' has no parts. Write {section}{value}")
    return argument if "." in name or name in ROOT else _short_form(name, value, owners, registry)


def _short_form(name: str, value: str, owners: Mapping[str, set[str]], registry: Registry) -> str:
    if name not in owners:
        # Where others have it the chosen parts may call it something else, so all that they have is named.
        having = _having(name, registry)
        further = _elsewhere(name, registry) + "".join(_chosen_has(kind, owners) for kind in having)
        further = further or did_you_mean(name, [*ROOT, *GROUPS, *owners])
        raise ConfigError(f"No option '{name}'.{further} All options: python -m zoo.run --help")
    if len(owners[name]) > 1:
        forms = " or ".join(f"{owner}.{name}{value}" for owner in sorted(owners[name]))
        raise ConfigError(f"'{name}' is an option of more than one part. Write {forms}.")
    return f"{next(iter(owners[name]))}.{name}{value}"


def _group(name: str, value: str, argument: str) -> str:
    names = [choice.strip() for choice in value.removeprefix("=").split(",")]
    if "(" not in value and not all(re.fullmatch(r"[A-Za-z_][\w./-]*(?<!/)", choice) for choice in names):
        raise ConfigError(
            f"'{argument}': a {name} is chosen by its name, several with -m and commas, as in -m {name}=a,b\n"
            f"`python -m zoo.ls` lists what there is."
        )
    if "null" in names:
        raise ConfigError(f"'{argument}': null is no {name}. Name one, or leave {name}= out.")
    return argument


def _folder(name: str, value: str) -> str:
    folder = value.removeprefix("=")
    if not folder.strip("'\" "):
        raise ConfigError(f"'{name}=' has no value. Write a folder, e.g. {name}={name.removesuffix('_dir')}")
    # Not every shell expands it behind the equals sign, and a sweep's notes go there as well as the runs.
    return f"{name}={place_of(folder, name)}" if folder.startswith("~") else f"{name}={folder}"


def _owners(arguments: list[str], registry: Registry) -> dict[str, set[str]]:
    """Option name -> the config sections that have it, given what was chosen."""
    owners: dict[str, set[str]] = {}
    for item in dataclasses.fields(TrainerOptions):
        owners.setdefault(item.name, set()).add("trainer")
    for kind in ("model", "dataset", "task"):
        for entry in chosen(arguments, kind, registry):
            for item in fields_of(entry.cls):
                owners.setdefault(item.name, set()).add(kind)
    return owners


def chosen(arguments: list[str], kind: str, registry: Registry) -> list[Entry]:
    """The entries of one kind that the command line picks, each once; all of them when it names one that is unknown."""
    names = _named(arguments, kind)
    if not names:
        picked = [chosen_by_experiment(registry, name, kind) for name in _named(arguments, "experiment")]
        names = [name for name in picked if name is not None]
        if None in picked or not picked:
            names += [DEFAULT_TASK] if kind == "task" else []
            names += [entry.cls.dataset for entry in chosen(arguments, "task", registry)] if kind == "dataset" else []
    bases = [base_of(registry, kind, name) for name in names]
    known = registry.entries[kind]
    if not bases or None in bases:
        return list(known.values())
    return [known[base] for base in dict.fromkeys(bases) if base is not None]


def _named(arguments: list[str], group: str) -> list[str]:
    """The names that a command line picks in one group, one by one where it lists several."""
    said = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{group}=")]
    values = [re.sub(r"^choice\((.*)\)$", r"\1", value.strip()) for value in said]
    return [name.strip().strip("'\"") for value in values for name in value.split(",")]


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
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if ours := next((item for item in chain if isinstance(item, ZooError)), None):
        return ours
    text = "\n".join(str(item) for item in chain)
    for pattern, answer in _PATTERNS:
        if found := re.search(pattern, text, flags=re.DOTALL):
            return answer(found, arguments, registry)
    return ConfigError(str(error).strip().split("\n\n")[0])


def _unknown_choice(found: re.Match[str], _arguments: list[str], registry: Registry) -> ZooError:
    group, _, name = found[1].rpartition("/")
    if group not in registry.entries:
        names = [*variants(registry, group), *(["default"] if group == "trainer" else [])]
        names = names or re.findall(r"^\t(\S+)$", found.string, flags=re.MULTILINE)  # one of Hydra's own groups
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
    further = _elsewhere(name, registry, section) or did_you_mean(name, known)
    return ConfigError(f"No option '{full}'.{listed}{further} All options: python -m zoo.run --help")


def _elsewhere(name: str, registry: Registry, section: str | None = None) -> str:
    """`" It is an option of model bert, mlp."`: which others have it, in one section or in all; empty when none has."""
    having = _having(name, registry, section)
    found = "; ".join(f"{kind} {', '.join(names)}" for kind, names in having.items())
    return f" It is an option of {found}." if found else ""


def _having(name: str, registry: Registry, section: str | None = None) -> dict[str, list[str]]:
    """Kind -> names of those of all that are installed that have the option; without kinds of which none has."""
    having = {
        kind: [entry.name for entry in entries.values() if name in (item.name for item in fields_of(entry.cls))]
        for kind, entries in registry.entries.items()
        if section in (None, kind) and kind != "measure"
    }
    return {kind: names for kind, names in having.items() if names}


def _chosen_has(kind: str, owners: Mapping[str, set[str]]) -> str:
    """`" The chosen dataset has: root, size."`: the options of what the command line chose of a kind."""
    names = [name for name, sections in owners.items() if kind in sections]
    return f" The chosen {kind} has: {', '.join(names) or 'no options'}."


def _options(section: str, arguments: list[str], registry: Registry) -> list[str]:
    """The options of a section of the config, of what the command line chose there; none for one of Hydra's own."""
    if section in registry.entries:
        entries = chosen(arguments, section, registry)
        return sorted({item.name for entry in entries for item in fields_of(entry.cls)})
    schema = {"trainer": TrainerOptions, "": RunSchema}.get(section)
    return [] if schema is None else [item.name for item in dataclasses.fields(schema)]


def _bad_value(found: re.Match[str], arguments: list[str], registry: Registry) -> ZooError:
    option = found[2].partition("[")[0]
    takes = _takes(option, arguments, registry)
    value = re.search(r"[Vv]alue '(.*?)'", found[1])
    typed = _typed(option, arguments)
    whole = not value or option != found[2] or (typed or "").startswith("{")  # else it is one of a sweep's values
    said = typed if whole or value is None else value[1]
    if takes and said is not None:
        return ConfigError(
            f"{option}={said}: it must be {takes}.{_as_a_list(option, typed or said, arguments, registry)}"
        )
    what = re.sub(r" of type '\w+'", "", found[1].strip().rstrip("."))
    what = re.sub(r"Invalid value '(.*?)', expected one of (\[.*?\])", r"'\1' is none of \2", what)
    return ConfigError(f"{found[2]}: {what}.{f' It takes {takes}.' if takes else ''}")


def _no_place(found: re.Match[str], arguments: list[str], registry: Registry) -> ZooError:
    """A value of a kind that cannot stand where it was put, such as a mapping in the place of a list."""
    takes = _takes(found[1], arguments, registry)
    return ConfigError(f"{found[1]}={found[2]}: it must be {takes or 'a value of another kind'}.")


def _typed(full: str, arguments: list[str]) -> str | None:
    """What the command line says of an option, in full or in short; None where it says nothing."""
    names = (full, full.rpartition(".")[2])
    said = [word.partition("=")[2] for word in arguments if "=" in word and word.partition("=")[0] in names]
    return said[-1] if said else None


def _as_a_list(option: str, typed: str, arguments: list[str], registry: Registry) -> str:
    """The advice for the items of a list that were written without its brackets, where the list would be taken; in a
    sweep each item is a list of its own."""
    sweep = bool({"-m", "--multirun"} & set(arguments))
    name, items = option.rpartition(".")[2], [item.strip() for item in typed.split(",")]
    lists = [[item] for item in items] if sweep else [items]
    parts = [part for _, part in _parts(option, arguments, registry)]
    if typed == "null" or not parts or not all(takes_list(part, name, each) for part in parts for each in lists):
        return ""
    written = ["[" + ",".join(each) + "]" for each in lists]
    return f" Write {option}={','.join(written)}"


def _parts(option: str, arguments: list[str], registry: Registry) -> list[tuple[str, type]]:
    """The classes in whose section an option stands, of those that the command line chose, each with its name; empty
    for the name of what is no plugin."""
    section, _, _ = option.partition("[")[0].rpartition(".")
    entries = chosen(arguments, section, registry) if section in registry.entries else []
    parts: list[tuple[str, type]] = [(entry.name, entry.cls) for entry in entries]
    return parts + [("", part) for place, part in (("", RunSchema), ("trainer", TrainerOptions)) if place == section]


def _takes(full: str, arguments: list[str], registry: Registry) -> str:
    """What the option takes, as it is declared; and whose, where the chosen parts declare different things."""
    name = full.partition("[")[0].rpartition(".")[2]
    whose: dict[str, list[str]] = {}
    for owner, part in _parts(full, arguments, registry):
        for item in describe(part):
            if item.name == name:
                whose.setdefault(item.takes, []).append(owner)
    if len(whose) < 2:
        return next(iter(whose), "")
    return "; or ".join(f"{takes}, for {', '.join(owners)}" for takes, owners in whose.items())


def _several(found: re.Match[str], arguments: list[str], registry: Registry) -> ZooError:
    option, _, values = found[1].partition("=")
    takes = _takes(option, arguments, registry)
    if takes.startswith("a list") and "[" not in values:
        return ConfigError(f"{found[1]}: it must be {takes}.{_as_a_list(option, values, arguments, registry)}")
    return ConfigError(
        f"'{found[1]}' names several values. Add -m to run each of them: python -m zoo.run -m {shlex.join(arguments)}\n"
        f"If it is one value with a comma in it, quote it twice: {option}=\"'{values}'\""
    )


_PATTERNS = (
    (r"Could not find '([^']*/[^']*)'", _unknown_choice),
    (r"You must specify '(\w+)'", _missing_choice),
    (r"Ambiguous value for argument '(.*?)'\n", _several),
    (r"Sweep parameters '(.*?)' requires", _several),
    (r"Key '[^']*' (?:is not in struct|not in '\w+')\s+full_key: ([\w.\[\]]+)", _unknown_option),
    (r"Could not override '([\w./@]+)'\.\s*(?:No match|To append)", _unknown_option),
    (
        r"((?:Value|Invalid value|Cannot convert|Incompatible|field|Non optional).*?)\s+full_key: ([\w.\[\]]+)",
        _bad_value,
    ),
    (r"Error merging override '?([\w./@]+)=(.*?)'?(?:\n|$)", _no_place),
)


def check_fit(config: RunConfig) -> None:
    """Raise Incompatible when the model or the dataset is of another modality than the task, or a part lacks an option
    that the sweep fixes; called before any data is read."""
    model, dataset, task = config.model, config.dataset, config.task
    if task.modality not in model.modalities:
        raise Incompatible(
            f"Model '{model.name}' takes {' and '.join(sorted(model.modalities))}, and task '{task.name}' is about "
            f"{task.modality}s. `python -m zoo.ls models` shows what each model takes."
        )
    if task.modality != dataset.modality:
        raise Incompatible(
            f"Task '{task.name}' is about {task.modality}s, and dataset '{dataset.name}' holds {dataset.modality}s. "
            f"`python -m zoo.ls datasets` shows what each dataset holds."
        )
    for option, value in config.foreign.items():
        kind, _, name = option.partition(".")
        part = getattr(config, kind)
        known = ", ".join(item.name for item in fields_of(type(part))) or "no options"
        said = f"{option}={'null' if value is None else value}"
        raise Incompatible(
            f"{kind.capitalize()} '{part.name}' has no option '{name}', which the sweep sets: {said}.\nIt has: {known}."
        )
