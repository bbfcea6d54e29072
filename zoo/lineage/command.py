"""python -m zoo.lineage: do these models share weights?"""

from __future__ import annotations

import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import guard, progress
from zoo.data import reach
from zoo.data.reach import Reach
from zoo.errors import ConfigError, RequestError, StoreError, did_you_mean, printable
from zoo.lineage.multiple import ENOUGH_REPLICAS
from zoo.phases import phase
from zoo.store.disk import chosen_with, place_of
from zoo.store.places import kept, require_apart
from zoo.store.schema import PREDICTIONS, RUN

if TYPE_CHECKING:
    from zoo.lineage.comparison import Comparison
    from zoo.lineage.weights import Weights

USAGE = f"""python -m zoo.lineage A B … [option=value …]

A, B, …      two or more: run folders, .safetensors files or Hugging Face
             folders with safetensors, or patterns
replicas=    runs of A's recipe and data with other seeds, to calibrate on:
             folders or patterns with commas between them; {ENOUGH_REPLICAS} are the fewest
             that can tell of one pair, and more pairs at once need more
out=         a JSON file for everything that was found
data=auto    of the runs' data, which the test of dead inputs needs, those of
             the installation and below this folder; true reads whatever data
             the runs name, false reads weights only
answers=     true compares what the runs answered on their test split, too,
             and takes runs that keep no weights
references=  runs of A's or B's recipe and data with other seeds, to calibrate
             answers on (default: replicas=)

Nothing is trained and nothing is fetched.
Exit codes: 0 fine, 1 a run is damaged, 2 the request was wrong."""

OPTIONS = ("replicas", "out", "data", "answers", "references")


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    paths: tuple[str, ...]
    replicas: tuple[str, ...] = ()
    out: str = ""
    data: Reach = "auto"
    answers: bool = False
    references: tuple[str, ...] = ()


def main() -> None:
    """The command. Exit codes: 0 fine, 1 a run is damaged, 2 the request was wrong, 130 Ctrl-C."""
    guard.leave(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Do what the command line asks for. Returns the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # A run's data set may be one of the hub's: it is read from the cache or not at all.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    progress.log_on_screen()
    return guard.run(lambda: _command(list(arguments)))


def _command(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else RequestError.exit_code
    with progress.activity():
        return _compare(parse(arguments))


def _compare(request: Request) -> int:
    out = place_of(request.out, "out") if request.out else None
    with chosen_with("out=…"), kept(_read_by(request)):
        if out is not None:
            _require_room(out)
            require_apart(out)
        comparison = compare_paths(request)
        show(comparison)
        if out is not None:
            write(comparison, out)
    return 0


def _read_by(request: Request) -> list[str]:
    """Every run and file that is read, which out= must not be written over."""
    patterns = (*request.replicas, *request.references)
    return [*request.paths, *(path for pattern in patterns for path in _runs_of(pattern))]


def _runs_of(pattern: str) -> list[str]:
    """What a pattern names; of a folder that is no run itself, the runs in it: beside them a file may be written."""
    return [
        path
        for one in _matching(pattern)
        for path in ([one] if _is_model(Path(one)) else [*_inside(Path(one)), *_answered_in(Path(one))])
    ]


def _require_room(file: Path) -> None:
    """Refuse before the comparison, which may take long, what cannot be written after it."""
    try:
        there = next((folder for folder in file.parents if folder.exists()), file)
        if file.is_dir():
            raise ConfigError(f"out={file} is a folder. Give a file, e.g. out={file / 'lineage.json'}")
        if not there.is_dir():
            raise ConfigError(f"out={file}: {there} is no folder. Choose another with out=…")
        if not _may(there if not file.exists() or file.is_file() else file, os.W_OK):
            raise ConfigError(f"out={file}: no permission to write there. Choose another with out=…")
    except OSError as error:
        raise ConfigError(f"out={file}: {error.strerror}. Choose another with out=…") from error


def _may(path: str | Path, mode: int) -> bool:
    """Whether this process may, by the user that it acts as."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def parse(arguments: Sequence[str]) -> Request:
    """Paths and options from the words of a command line. Raises ConfigError for an option that is unknown or has a
    wrong value, RequestError for fewer than two models."""
    paths: list[str] = []
    said: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name in OPTIONS:
            if not value:
                raise ConfigError(f"{name}= has no value. Leave it out, or write what it is to be.")
            said[name] = value
        elif (name.startswith("-") or (equals and name.isidentifier())) and not os.path.lexists(argument):
            meant = did_you_mean(name.lstrip("-"), OPTIONS)
            raise ConfigError(f"No option '{name}'.{meant} Options: {', '.join(OPTIONS)}, each as {OPTIONS[0]}=….")
        else:
            paths += _given(argument)
    if len(paths) < 2:
        raise RequestError(
            f"{len(paths)} model{'' if len(paths) == 1 else 's'} given; two or more are compared.\n"
            "For example: python -m zoo.lineage runs/<task>/<dataset>/<model>/<key> model.safetensors"
        )
    replicas, references = (_patterns(said.get(name, "")) for name in ("replicas", "references"))
    return Request(
        tuple(paths), replicas, said.get("out", ""), reach.chosen(said.get("data", "auto")),
        _is_true(said, "answers", bool(references)), references or replicas,
    )  # fmt: skip


def _given(argument: str) -> list[str]:
    """A path, or what a pattern finds that the shell left as it was, because it was quoted or found nothing. Raises
    RequestError for one that finds nothing."""
    if os.path.lexists(argument) or not glob.has_magic(argument):
        return [argument]
    found = _matching(argument)
    if not found:
        raise RequestError(f"'{argument}' finds nothing: no file or folder has such a name.{_LISTS}")
    return found


_LISTS = "\n`python -m zoo.ls runs` lists the runs."


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _is_true(said: Mapping[str, str], name: str, default: bool) -> bool:
    told = said.get(name, str(default)).lower()
    if told not in ("true", "false"):
        raise ConfigError(f"{name}={said[name]}: it is true or false.")
    return told == "true"


def compare_paths(request: Request) -> Comparison:
    """Open everything that is asked for and compare it. Raises what `open_weights` raises, and RequestError for a
    pattern of replicas that finds no run."""
    with phase("loading libraries"):
        from zoo.lineage.comparison import compare
        from zoo.lineage.dead import looking
        from zoo.lineage.weights import open_weights, without_weights

    with phase("reading the weights"):
        unweighted = [without_weights(path) if request.answers else None for path in request.paths]
        opened = [one or open_weights(path) for one, path in zip(unweighted, request.paths, strict=True)]
        models = _told_apart(opened)
        replicas = [open_weights(path) for pattern in request.replicas for path in _replica_paths(pattern)]
    with phase(f"comparing {len(models)} models"), reach.allowing(request.data):
        comparison = compare(models, replicas, None if request.data == "false" else looking())
    return _with_answers(comparison, request) if request.answers else comparison


@phase("comparing the answers")
def _with_answers(comparison: Comparison, request: Request) -> Comparison:
    from zoo.lineage.answers import read_answers
    from zoo.lineage.behaviour import with_answers

    paths = dict.fromkeys(path for pattern in request.references for path in _reference_paths(pattern))
    read = [read_answers(path) for path in paths]
    answers = [read_answers(model.path, model.label) for model in comparison.models]
    return with_answers(comparison, answers, [one for one in read if not isinstance(one, str)])


def _reference_paths(pattern: str) -> list[str]:
    """The runs that a pattern names; of a folder that is no run itself, those in it that store answers."""
    found = _matching(pattern)
    paths = [path for one in found for path in ([one] if (Path(one) / RUN).is_file() else _answered_in(Path(one)))]
    if not paths:
        raise RequestError(f"references={pattern}: there is no run with answers.")
    return paths


def _matching(pattern: str) -> list[str]:
    """Raises RequestError for what may not be looked into."""
    found = sorted(glob.glob(os.path.expanduser(pattern)))
    for path in found:
        if not _may(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
            raise RequestError(f"'{path}' cannot be read: no permission. Grant it, or give another pattern.")
    return found


def _answered_in(folder: Path) -> list[str]:
    return sorted(str(file.parent) for file in folder.rglob(PREDICTIONS) if not _is_hidden(file, folder))


def _is_hidden(file: Path, folder: Path) -> bool:
    """Whether it lies in a hidden folder below: drafts are runs that are still being written."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _replica_paths(pattern: str) -> list[str]:
    """What a pattern names; of a folder that is no run itself, the runs in it."""
    found = _matching(pattern)
    paths = [path for one in found for path in ([one] if _is_model(Path(one)) else _inside(Path(one)))]
    if not paths:
        raise RequestError(f"replicas={pattern}: there is no run, no safetensors file and no folder with one.")
    return paths


def _is_model(path: Path) -> bool:
    return path.is_file() or (path / "run.json").is_file() or bool(list(path.glob("model.safetensors*")))


def _inside(folder: Path) -> list[str]:
    return sorted(str(file.parent) for file in folder.rglob("model.safetensors") if not _is_hidden(file, folder))


def _told_apart(models: Sequence[Weights]) -> list[Weights]:
    """The models with labels that differ: where two would be the same, the paths."""
    labels = Counter(model.label for model in models)
    named = [replace(model, label=str(model.path)) if labels[model.label] > 1 else model for model in models]
    paths = Counter(model.label for model in named)
    return [
        replace(model, label=f"{model.label} ({place + 1})") if paths[model.label] > 1 else model
        for place, model in enumerate(named)
    ]


def show(comparison: Comparison) -> None:
    """Print a verdict for each pair, and the tree."""
    from rich.table import Table
    from rich.text import Text

    from zoo.lineage.document import told, told_of_answers, told_of_record

    screen = progress.console()
    answered = any(judged.behaviour is not None for judged in comparison.pairs)
    more = ("answers (B1, B2)",) if answered else ()
    table = Table(
        "pair", "verdict", "rests on", "numbering (R1)", "aligned (R3)", *more, "why", title="Lineage", show_lines=True
    )
    for judged in comparison.pairs:
        aligned = judged.evidence.aligned
        score = f"{aligned.score:.3f}, n = {aligned.units}" if aligned is not None else "–"
        answers = (told_of_answers(judged),) if answered else ()
        cells = (f"{judged.first.label}\n{judged.second.label}", judged.verdict.name, judged.verdict.strength,
                 told(judged), score, *answers, judged.verdict.statement)  # fmt: skip
        table.add_row(*(Text(printable(cell)) for cell in cells))
    for judged in comparison.pairs:
        if judged.recorded is not None:
            screen.print(printable(told_of_record(judged.recorded)), markup=False)
    screen.print(table)
    for child, parent in sorted(comparison.parents.items()):
        screen.print(printable(_line(comparison, child, parent)), markup=False)


def _line(comparison: Comparison, child: int, parent: int) -> str:
    """A line of the family tree."""
    one, two = comparison.models[child].label, comparison.models[parent].label
    direction = comparison.family.directions[child]
    if direction == "unknown":
        return f"{one} and {two}: one may come from the other, and nothing tells which was first"
    if direction == "on record":
        return f"{one} comes from {two} (direction: on record)"
    return f"{one} may come from {two} (direction: {direction})"


def write(comparison: Comparison, file: Path) -> None:
    """Everything that was found as JSON, whole or not at all. Raises StoreError when it cannot be written."""
    from zoo.lineage.document import document
    from zoo.store.disk import replace_file
    from zoo.store.keys import finite

    text = json.dumps(finite(document(comparison)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    content = text.encode(errors="backslashreplace")
    try:
        if file.exists() and not file.is_file():  # /dev/stdout, say
            file.write_bytes(content)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(Path(os.path.realpath(file)), content)
    except OSError as error:
        raise StoreError(f"Cannot write {file}: {error.strerror}. Choose another with out=…") from error
    progress.console().print(printable(f"Written: {file}"), soft_wrap=True, markup=False, emoji=False)
