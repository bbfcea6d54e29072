"""python -m zoo.report: a study's runs written up; `verify` recomputes a report and compares it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import __version__, guard, progress
from zoo import arguments as words
from zoo.config import REPORT_NAME, Language
from zoo.data import reach
from zoo.errors import ConfigError, RequestError, StoreError, ZooError, printable
from zoo.options import Configurable, option
from zoo.phases import phase

if TYPE_CHECKING:
    from zoo.analysis.document import Options
    from zoo.reporting.schema import Document

USAGE = """python -m zoo.report study=runs/<task>/<dataset> [option=value …]
python -m zoo.report verify reports/<name> [runs=FOLDER] [data=true]
    compute every number again from the run folders, and compare every file;
    runs=: the folder below which the runs lie now, where they were moved

{options}"""

NOTHING = (
    "Nothing to compare: each model here answers the same on every example, or is always right, or always wrong.\n"
    "Run other models on the same test examples, and make the report again."
)
"""What is said, on stderr, of a report of no model that can be compared: by this command, which fails, and by a sweep,
which does not, since its cells ran."""


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
    data: str = reach.declared()

    def options(self) -> Options:
        """What the analysis is told of it."""
        from zoo.analysis.document import Options

        return Options(self.draws, self.permutations, self.seed, self.examples, self.device, lineage=self.lineage)


@dataclass(frozen=True)
class Verification(Configurable):
    """What may be asked of `verify`."""

    runs: str = option("", "the folder below which the runs lie now, where they were moved")
    data: str = reach.declared()


def main() -> None:
    """The command. Exit codes: 0 fine, 1 a report does not verify or is of no model that can be compared, 2 the request
    was wrong, 130 Ctrl-C."""
    guard.leave(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Do what the command line asks for. Returns the exit code."""
    # Waiting threads of OpenMP burn the core that the others need; the variable counts only before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    progress.log_on_screen()
    return guard.run(lambda: _shown(list(arguments)))


def _shown(arguments: list[str]) -> int:
    """The command, with a line on a terminal that says what it is doing."""
    with progress.activity():
        return _command(arguments)


def _command(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE.format(options=words.described(Request)))
        return 0 if arguments else RequestError.exit_code
    if arguments[0] == "verify":
        return verify(arguments[1:])
    request = parse(arguments)
    paths = [part for part in request.study.split(",") if part]
    written = write(paths, request, ["python", "-m", "zoo.report", *arguments])
    tell(written)
    if not written.counted:
        raise ZooError(NOTHING)
    return 0


def parse(arguments: Sequence[str]) -> Request:
    """Options from the words of a command line. Raises ConfigError for one that is unknown or has a wrong value."""
    request = words.parse(arguments, Request, of_paths="study")
    if not request.study:
        raise ConfigError("Which runs? For example: python -m zoo.report study=runs/sentiment/rotten_tomatoes")
    if request.name and not REPORT_NAME.fullmatch(request.name):
        raise ConfigError(f"name={request.name}: letters, digits, '_', '-' and '.' make a name.")
    _require_device(request.device)
    return request


def _require_device(device: str) -> None:
    """Raise ConfigError for a device that this machine has not; torch is asked only where it is not the processor."""
    if device == "cpu":
        return
    import torch

    there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    there += ["cuda"] if len(there) > 1 else []
    there += ["mps"] if torch.backends.mps.is_available() else []
    if device not in there:
        raise ConfigError(f"device={device}: this machine has no such device. It has: {', '.join(there)}.")


@dataclass(frozen=True)
class Written:
    """A report that has been written. said: its first two sentences and what to know before using them, in its
    language; kept: runs that it has from the report it extends; lacks: what the report that it replaces had and it has
    not, in a line; counted: models that the first sentences are about; others: the studies of the runs that it leaves
    out, in a line."""

    folder: Path
    said: tuple[str, ...]
    kept: int = 0
    lacks: str = ""
    counted: int = 0
    others: str = ""


def tell(written: Written) -> None:
    """Say on the screen what a report says first, and where it is."""
    lines = list(written.said)
    if written.kept:
        lines.append(f"Together with {written.kept} run{'s' * (written.kept > 1)} of the report that was there.")
    if written.others:
        lines.append(printable(written.others))
    if written.lacks:
        lines.append(printable(written.lacks))
    screen = progress.console()
    for line in (*lines, f"Report: {written.folder / 'index.html'}"):
        screen.print(line, soft_wrap=True, markup=False, emoji=False)


def write(paths: Sequence[str | Path], request: Request, words: Sequence[str], extend: bool = False) -> Written:
    """Analyse the runs under some paths and write the report; words: the command.

    extend: the paths are run folders, to which those of the report that is there already are added; raises
    RequestError instead of replacing one whose runs cannot be."""
    from zoo.plugins import registry
    from zoo.store.disk import chosen_with
    from zoo.store.places import kept

    with stages() as begin:
        begin("loading libraries")
        from zoo import reporting
        from zoo.analysis import earlier
        from zoo.analysis.document import analyse
        from zoo.reporting import story
        from zoo.reporting.words import Words

        together: Sequence[str | Path] = paths
        if extend:
            there = _folder(request, *earlier.kind_of(paths[0]))
            reporting.restore(there)
            together = earlier.joined(paths, there)
        begin("reading the runs")
        with chosen_with(reporting.ELSEWHERE):
            _require_outside_runs(together, request)
        with reach.allowing(reach.chosen(request.data)):
            document = analyse(together, request.options(), words, begin)
        studied = document["study"]
        if request.name:
            document["title"] = f"{request.name} · {studied['dataset']}"
        folder = _folder(request, studied["task"], studied["dataset"])
        begin("drawing and writing the report")
        reporting.restore(folder)
        lacks = earlier.lacking(folder, document)
        with kept([run["folder"] for run in document["provenance"]["runs"]]):
            reporting.write(document, folder, request.language)
        registry().notify("zoo_report_written", document=document, folder=folder)
    said = tuple(story.first_lines(document, Words(request.language)))
    others = other_studies(document)
    return Written(folder, said, len(together) - len(paths), lacks, document["headline"]["models"], others)


def other_studies(document: Document) -> str:
    """The studies, by task and dataset, of the runs that were left out, with how many each; empty where all that was
    found is of one study."""
    from zoo.store import reading

    own = (document["study"]["task"], document["study"]["dataset"])
    found: Counter[tuple[str, str]] = Counter()
    folders: dict[tuple[str, str], Path] = {}
    for item in document["left_out"]:
        if item["folder"] is None:
            continue
        with contextlib.suppress(StoreError):
            record = reading.read_record(Path(item["folder"]))
            study = (str(record.get("task")), str(record.get("dataset")))
            if study != own:
                found[study] += 1
                folders.setdefault(study, Path(item["folder"]))
    if not found:
        return ""
    ran = len(document["provenance"]["runs"])
    listed = ", ".join(f"{'/'.join(study)} ({count} run{'s' * (count > 1)})" for study, count in found.items())
    return (
        f"Of the studies found this report is of {'/'.join(own)} ({ran} run{'s' * (ran > 1)}). "
        f"Left out: {listed}. For that: study={folders[next(iter(found))].parent.parent}"
    )


def _require_outside_runs(paths: Sequence[str | Path], request: Request) -> None:
    """Refuse, before the analysis, a report in a folder of a task. What cannot be read is left out later."""
    from zoo.plugins import registry
    from zoo.store import reading, study
    from zoo.store.places import require_outside, root_of

    for folder in (folder for path in paths for folder in study.run_folders(path)):
        with contextlib.suppress(StoreError):
            record = reading.read_record(folder)
            if root := root_of(folder, record):
                there = _folder(request, record["task"], record["dataset"])
                require_outside(there, root, {record["task"], *registry().entries["task"]})


def _folder(request: Request, task: str, dataset: str) -> Path:
    """Where the report of a study is written."""
    from zoo.store.disk import place_of
    from zoo.store.keys import shortened

    name = shortened(request.name or re.sub(r"[^\w.-]+", "-", f"{task}-{dataset}"))
    return place_of(request.out, "out") / name


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """What is called with the name of each stage as it begins, so that a terminal can show it."""
    with contextlib.ExitStack() as current:

        def begin(stage: str) -> None:
            current.close()
            current.enter_context(phase(stage))

        yield begin


def verify(arguments: Sequence[str]) -> int:
    """Recompute a report from its run folders and compare, its files too. Returns 0 when all is the same, else 1."""
    from zoo.analysis import earlier
    from zoo.analysis import verify as again

    places = [word for word in arguments if "=" not in word or Path(word).is_dir()]
    asked = words.parse([word for word in arguments if word not in places], Verification)
    if len(places) != 1:
        raise ConfigError("Which report? For example: python -m zoo.report verify reports/sentiment-rotten_tomatoes")
    folder = _folder_of(Path(places[0]))
    old = read(folder)
    origins = old["provenance"]["runs"]
    runs = earlier.found(old, Path(asked.runs)) if asked.runs else [Path(run["folder"]) for run in origins]
    with reach.allowing(reach.chosen(asked.data)), stages() as begin:
        # Folders that could not be compared then are not looked for now: what was left out is the report's to say.
        found = again.verify(folder, old, runs, bool(asked.runs), begin)
    if old["zoo_version"] != __version__:
        print(f"The report was written by zoo {old['zoo_version']}, and this is {__version__}.", file=sys.stderr)
    for remark in found.remarks:
        print(printable(remark), file=sys.stderr)
    if found.different is None:
        print(f"{places[0]}: every number is the same, recomputed from {len(runs)} runs, and so are its files.")
        return 0
    print(printable(f"{places[0]}: the first that differs is {found.different}"), file=sys.stderr)
    if found.different.startswith("report.json: lineage"):
        print("One of its tests (R2) reads the training data: without them its numbers are missing. data=true reads "
              "whatever data the runs name.", file=sys.stderr)  # fmt: skip
    return 1


def _folder_of(place: Path) -> Path:
    """The folder of a report, of which its report.json may be named."""
    return place.parent if place.name == "report.json" else place


def read(folder: Path) -> Document:
    """The document of a report. Raises RequestError when there is none, or it is no report."""
    from zoo.reporting import restore
    from zoo.reporting.schema import check
    from zoo.store.reading import near_folder

    file = _folder_of(folder) / "report.json"
    restore(file.parent)
    try:
        return check(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise  # the guard has words for it
        near = near_folder(file.parent, root="reports") if not file.parent.is_dir() else ""
        told = f"{file} cannot be read: {error.strerror}.{near}"
        raise RequestError(f"{told}\nA report's folder holds report.json.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(_no_report(file, error)) from error


def _no_report(file: Path, error: Exception) -> str:
    """What is wrong with a report.json: another schema version, or no report at all."""
    from zoo.reporting.schema import SCHEMA_VERSION

    try:
        version = json.loads(file.read_text(encoding="utf-8"))["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{file} is no report: {error}"
    if version == SCHEMA_VERSION:
        return f"{file} is no report of this version: {error}"
    return (
        f"{file} has schema version {version}, and this program reads {SCHEMA_VERSION}.\n"
        "Make the report again from its runs (python -m zoo.report study=…), or verify it with the zoo that wrote it."
    )


if __name__ == "__main__":
    main()
