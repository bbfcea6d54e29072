"""python -m zoo.lineage: do these models share weights?"""

from __future__ import annotations

import glob
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ConfigError, RequestError, StoreError, ZooError, did_you_mean

if TYPE_CHECKING:
    from zoo.lineage.comparison import Comparison
    from zoo.lineage.weights import Weights

USAGE = """python -m zoo.lineage A B … [option=value …]

A, B, …      two or more: run folders, .safetensors files or Hugging Face folders with safetensors
replicas=    runs of A's recipe and data with other seeds, to calibrate on: folders or patterns with commas between
             them; 19 are the fewest that can reach p ≤ .05 for one pair, and more pairs at once need more
out=         a JSON file for everything that was found
data=true    false reads weights only, never the runs' data (which the test of dead inputs needs)

Nothing is trained and nothing is fetched. Exit codes: 0 fine, 1 a run is damaged, 2 the request was wrong."""

OPTIONS = ("replicas", "out", "data")


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    paths: tuple[str, ...]
    replicas: tuple[str, ...] = ()
    out: str = ""
    data: bool = True


def main() -> None:
    """The command. Exit codes: 0 fine, 1 a run is damaged, 2 the request was wrong, 130 Ctrl-C."""
    sys.exit(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Do what the command line asks for. Returns the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # A run's data set may be one of the hub's: it is read from the cache or not at all.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        return _command(list(arguments))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except ZooError as error:
        if os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0"):
            raise
        print(printable(str(error)), file=sys.stderr)
        return error.exit_code


def printable(text: str) -> str:
    """The text without what would steer a terminal: a file from outside may name its tensors as it likes."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _command(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else RequestError.exit_code
    request = parse(arguments)
    out = Path(request.out).expanduser() if request.out else None
    if out is not None:
        _require_room(out)
    comparison = compare_paths(request)
    show(comparison)
    if out is not None:
        write(comparison, out)
    return 0


def _require_room(file: Path) -> None:
    """Refuse before the comparison, which may take long, what cannot be written after it."""
    there = next((folder for folder in file.parents if folder.exists()), file)
    if file.is_dir():
        raise ConfigError(f"out={file} is a folder. Give a file, e.g. out={file / 'lineage.json'}")
    if not there.is_dir():
        raise ConfigError(f"out={file}: {there} is no folder. Choose another with out=…")


def parse(arguments: Sequence[str]) -> Request:
    """Paths and options from the words of a command line. Raises ConfigError for an option that is unknown or has a
    wrong value, RequestError for fewer than two models."""
    paths: list[str] = []
    said: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name in OPTIONS:
            said[name] = value
        elif equals and name.isidentifier() and not Path(argument).exists():
            raise ConfigError(f"No option '{name}'.{did_you_mean(name, OPTIONS)} Options: {', '.join(OPTIONS)}.")
        else:
            paths.append(argument)
    if len(paths) < 2:
        raise RequestError(
            f"{len(paths)} model{'' if len(paths) == 1 else 's'} given; two or more are compared.\n"
            "For example: python -m zoo.lineage runs/<task>/<dataset>/<model>/<key> model.safetensors"
        )
    if said.get("data", "true").lower() not in ("true", "false"):
        raise ConfigError(f"data={said['data']}: it is true or false.")
    patterns = tuple(part for part in said.get("replicas", "").split(",") if part)
    return Request(tuple(paths), patterns, said.get("out", ""), said.get("data", "true").lower() == "true")


def compare_paths(request: Request) -> Comparison:
    """Open everything that is asked for and compare it. Raises what `open_weights` raises, and RequestError for a
    pattern of replicas that finds no run."""
    from zoo.lineage.comparison import compare
    from zoo.lineage.dead import looking
    from zoo.lineage.weights import open_weights

    models = _told_apart([open_weights(path) for path in request.paths])
    replicas = [open_weights(path) for pattern in request.replicas for path in _replica_paths(pattern)]
    return compare(models, replicas, looking() if request.data else None)


def _replica_paths(pattern: str) -> list[str]:
    """What a pattern names; of a folder that is no run itself, the runs in it."""
    found = sorted(glob.glob(os.path.expanduser(pattern)))
    paths = [path for one in found for path in ([one] if _is_model(Path(one)) else _inside(Path(one)))]
    if not paths:
        raise RequestError(f"replicas={pattern}: there is no run, no safetensors file and no folder with one.")
    return paths


def _is_model(path: Path) -> bool:
    return path.is_file() or (path / "run.json").is_file() or bool(list(path.glob("model.safetensors*")))


def _inside(folder: Path) -> list[str]:
    return sorted(str(file.parent) for file in folder.rglob("model.safetensors"))


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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from zoo.lineage.document import told

    screen = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=160)
    table = Table(
        "pair", "verdict", "rests on", "numbering (R1)", "aligned (R3)", "why", title="Lineage", show_lines=True
    )
    for judged in comparison.pairs:
        aligned = judged.evidence.aligned
        score = f"{aligned.score:.3f}, n = {aligned.units}" if aligned is not None else "–"
        cells = (f"{judged.first.label}\n{judged.second.label}", judged.verdict.name, judged.verdict.strength,
                 told(judged), score, judged.verdict.statement)  # fmt: skip
        table.add_row(*(Text(printable(cell)) for cell in cells))
    screen.print(table)
    for child, parent in sorted(comparison.parents.items()):
        line = (
            f"{comparison.models[child].label} may come from {comparison.models[parent].label} (direction: heuristic)"
        )
        screen.print(printable(line), markup=False)


def write(comparison: Comparison, file: Path) -> None:
    """Everything that was found as JSON. Raises StoreError when it cannot be written."""
    from zoo.lineage.document import document
    from zoo.store.keys import finite

    text = json.dumps(finite(document(comparison)), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"Cannot write {file}: {error.strerror}. Choose another with out=…") from error
    print(f"Written: {file}")
