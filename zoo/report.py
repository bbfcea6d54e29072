"""python -m zoo.report: a study's runs written up; `verify` recomputes a report and compares every number."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import arguments as words
from zoo.config import REPORT_NAME, Language
from zoo.errors import ConfigError, RequestError, ZooError
from zoo.options import Configurable, option

if TYPE_CHECKING:
    from zoo.analysis.document import Options
    from zoo.reporting.schema import Document

USAGE = """python -m zoo.report study=runs/<task>/<dataset> [option=value …]
python -m zoo.report verify reports/<name>      recompute every number from the run folders

{options}"""

TOLERANCE = 1e-9
# What differs between two makings of one report although nothing of it changed.
_OF_THE_MAKING = frozenset({"created", "command", "zoo_version"})


@dataclass(frozen=True)
class Request(Configurable):
    """What the command line asks for."""

    study: str = option("", "a folder, a pattern such as 'runs/*/digits', or several with commas between them")
    out: str = option("reports", "where the report's folder is made")
    name: str = option("", "the report's name; without it <task>-<dataset>")
    language: str = option("en", "language of the report", choices=[language.value for language in Language])
    lineage: bool = option(True, "false leaves out who shares weights or answers")
    examples: bool = option(True, "false keeps every text and image of the data out")
    draws: int = option(1000, "draws of the bootstrap behind the intervals", ge=2)
    permutations: int = option(200, "permutations behind the null of the representations", ge=1)
    seed: int = option(0, "seed of the draws and permutations", ge=0)
    device: str = option("cpu", "device on which the matrix products run, e.g. cuda", empty=False)

    def options(self) -> Options:
        """What the analysis is told of it."""
        from zoo.analysis.document import Options

        return Options(self.draws, self.permutations, self.seed, self.examples, self.device, lineage=self.lineage)


def main() -> None:
    """The command. Exit codes: 0 fine, 1 a report does not verify, 2 the request was wrong, 130 Ctrl-C."""
    sys.exit(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Do what the command line asks for. Returns the exit code."""
    # Waiting threads of OpenMP burn the core that the others need; the variable counts only before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        return _command(list(arguments))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except ZooError as error:
        if os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0"):
            raise
        print(error, file=sys.stderr)
        return error.exit_code


def _command(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE.format(options=words.described(Request)))
        return 0 if arguments else RequestError.exit_code
    if arguments[0] == "verify":
        return verify(arguments[1:])
    request = parse(arguments)
    paths = [part for part in request.study.split(",") if part]
    folder = write(paths, request, ["python", "-m", "zoo.report", *arguments])
    print(f"Report: {folder / 'index.html'}")
    return 0


def parse(arguments: Sequence[str]) -> Request:
    """Options from the words of a command line. Raises ConfigError for one that is unknown or has a wrong value."""
    request = words.parse(arguments, Request)
    if not request.study:
        raise ConfigError("Which runs? For example: python -m zoo.report study=runs/sentiment/rotten_tomatoes")
    if request.name and not REPORT_NAME.fullmatch(request.name):
        raise ConfigError(f"name={request.name}: letters, digits, '_', '-' and '.' make a name.")
    return request


def write(paths: Sequence[str | Path], request: Request, words: Sequence[str], keep_larger: bool = False) -> Path:
    """Analyse the runs under some paths and write the report; words: the command. Returns its folder.

    keep_larger: raise RequestError instead of replacing a report that has other runs as well."""
    from zoo import reporting
    from zoo.analysis.document import analyse
    from zoo.plugins import registry

    document = analyse(paths, request.options(), words)
    studied = document["study"]
    name = request.name or re.sub(r"[^\w.-]+", "-", f"{studied['task']}-{studied['dataset']}")
    if request.name:
        document["title"] = f"{request.name} · {studied['dataset']}"
    folder = Path(request.out).expanduser() / name
    if keep_larger:
        _refuse_to_shrink(folder, document)
    reporting.write(document, folder, request.language)
    registry().notify("zoo_report_written", document=document, folder=folder)
    return folder


def _refuse_to_shrink(folder: Path, document: Document) -> None:
    if not (folder / "report.json").exists():
        return
    # By model and seed: the same command with another version of zoo makes runs of other keys.
    had, has = (
        {(one["models"][run["model"]]["name"], run["seed"]) for run in one["provenance"]["runs"]}
        for one in (read(folder), document)
    )
    if lost := len(had - has):
        raise RequestError(
            f"{folder} holds a report with {lost} runs that are not in this sweep; it was left as it is.\n"
            f"report_name=… gives this one a name of its own; python -m zoo.report study=… takes all runs together."
        )


def verify(arguments: Sequence[str]) -> int:
    """Recompute a report from its run folders and compare. Returns 0 when every number is the same, else 1."""
    from zoo.analysis.document import Options, analyse

    if len(arguments) != 1:
        raise ConfigError("Which report? For example: python -m zoo.report verify reports/sentiment-rotten_tomatoes")
    old = read(Path(arguments[0]))
    method = old["method"]
    options = Options(
        method["draws"],
        method["permutations"] or 1,
        method["seed"],
        old["examples_included"],
        benches="benches" in old,
        lineage="lineage" in old,
        answers="answers" in old.get("lineage", {}),
    )
    new = analyse([run["folder"] for run in old["provenance"]["runs"]], options, old["command"])
    # The title is the user's. Folders that could not be compared then are not looked for now: what was left out is the
    # former report's to say. Texts and images are the data set's, which need not be there any more.
    told = {"title": old["title"], "left_out": old["left_out"], "examples": _known(new["examples"], old["examples"])}
    found = difference({**new, **told}, old, "")
    if new["zoo_version"] != old["zoo_version"]:
        print(f"The report was written by zoo {old['zoo_version']}, and this is {new['zoo_version']}.", file=sys.stderr)
    if found is None:
        print(f"{arguments[0]}: every number is the same, recomputed from {len(old['provenance']['runs'])} runs.")
        return 0
    print(f"{arguments[0]}: the first that differs is {found}", file=sys.stderr)
    if found.startswith("lineage"):
        print("One of its tests (R2) reads the training data: without them its numbers are missing.", file=sys.stderr)
    return 1


def _known(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """The examples with their former text and image where there is none to compare with."""
    return {
        key: {**example, **{part: old[key][part] for part in ("text", "png") if key in old and example[part] is None}}
        for key, example in new.items()
    }


def read(folder: Path) -> Document:
    """The document of a report. Raises RequestError when there is none, or it is no report."""
    from zoo.reporting.schema import check

    file = folder if folder.name == "report.json" else folder / "report.json"
    try:
        return check(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise RequestError(f"{file} cannot be read: {error.strerror}. A report's folder holds report.json.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{file} is no report of this version: {error}") from error


def difference(new: Any, old: Any, path: str) -> str | None:
    """Where two documents first differ, in words; None when they do not. Numbers may differ by rounding."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        if new.keys() != old.keys():
            return f"{path or 'the document'}: fields {sorted(new.keys() ^ old.keys())}"
        inner = ((f"{path}.{key}".lstrip("."), key) for key in old if path or key not in _OF_THE_MAKING)
        return next((found for at, key in inner if (found := difference(new[key], old[key], at)) is not None), None)
    if isinstance(new, list) and isinstance(old, list):
        if len(new) != len(old):
            return f"{path}: {len(old)} entries in the report, {len(new)} recomputed"
        pairs = enumerate(zip(new, old, strict=True))
        return next((found for at, (n, o) in pairs if (found := difference(n, o, f"{path}[{at}]")) is not None), None)
    numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in (new, old))
    same = abs(new - old) <= TOLERANCE * max(1.0, abs(old)) if numbers else new == old
    return None if same else f"{path}: {old!r} in the report, {new!r} recomputed"


if __name__ == "__main__":
    main()
