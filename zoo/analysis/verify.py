"""Is a report what its runs say? Its numbers are computed again, and its files are written again and compared.

Aside stay the moment at which it was made, its command, and what nobody can compute again: times and memory of runs
that have been made again since. Files: `index.html`, `report.md`, charts and tables have to be what this program writes
of `report.json`. The version of the charting library and the fonts of the machine change how a chart is drawn, and
another version of this program how a thing is worded: then the files, and the fields of `report.json` that hold words,
are named, and nothing is concluded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from zoo import __version__, reporting
from zoo.analysis.document import Options, Progress, analyse
from zoo.errors import ConfigError, RequestError, StoreError, shortened
from zoo.reporting.replacing import DOCUMENT, MARKDOWN, PAGE, PARTS
from zoo.reporting.schema import Document
from zoo.store import reading

TOLERANCE = 1e-9
_OF_THE_MAKING = frozenset({"created", "command", "zoo_version"})
"""What differs between two makings of one report although nothing of it changed."""
_MEASURED = ("train_seconds", "train_samples_per_sec", "infer_samples_per_sec", "peak_memory_mib")
"""What a run that is made again measures again, of `zoo.reporting.schema.Cost`."""
_WORDED = frozenset(
    (
        "apart",
        "chance",
        "device",
        "formula",
        "note",
        "null",
        "on_record",
        "reason",
        "source",
        "statement",
        "title",
        "why",
    )
)
"""Fields in which a document says something in words, as another version of this program may word otherwise."""

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_POLICY = re.compile(r'(<meta http-equiv="Content-Security-Policy" content=")[^"]*')
_LANGUAGE = re.compile(r'<html lang="(\w+)')
_SAID = re.compile(r'(?<=>)[^<>]+(?=<)|aria-label="[^"]*"')
"""Texts of an SVG and the labels of its marks, which hold their numbers."""


@dataclass(frozen=True)
class Verified:
    """What came out. different: the first difference, in words; None: there is none. remarks: what was not compared,
    and why, each in a sentence."""

    different: str | None
    remarks: tuple[str, ...] = ()


def verify(folder: Path, old: Document, runs: Sequence[Path], moved: bool, progress: Progress) -> Verified:
    """Compare a report with its runs, and its files with its numbers.

    folder: of the report; old: its report.json; runs: where its runs lie, in its order; moved: whether that is
    elsewhere than it says. Raises RequestError for a run that is not there, DamagedRun naming run and file."""
    _require_runs(old, runs)
    new = analyse(runs, _options(old), old["command"], progress, old["left_out"])
    if moved:
        for run, before in zip(new["provenance"]["runs"], old["provenance"]["runs"], strict=False):
            run["folder"] = before["folder"]
    if len(new["provenance"]["runs"]) != len(old["provenance"]["runs"]):
        for place in runs:
            reading.read(place)  # raises for the one that was left out
    remarks = _measured_again(new, old, runs)
    # The title is the user's. Texts and images are the data set's, which need not be there any more.
    told = {"title": old["title"], "examples": _known(new["examples"], old["examples"])}
    worded: dict[str, None] | None = None if old["zoo_version"] == __version__ else {}
    found = difference({**new, **told}, old, "", worded)
    if worded:
        remarks.append(f"Zoo {__version__} words otherwise, and did not compare: {DOCUMENT}: {', '.join(worded)}.")
    if found is not None:
        return Verified(f"{DOCUMENT}: {found}", tuple(remarks))
    progress("comparing the files of the report")
    files = compare_files(folder, old)
    return Verified(files.different, (*remarks, *files.remarks))


def _options(old: Document) -> Options:
    method = old["method"]
    return Options(
        method["draws"],
        method["permutations"] or 1,
        method["seed"],
        old["examples_included"],
        benches="benches" in old,
        lineage="lineage" in old,
        answers="answers" in old.get("lineage", {}),
    )


def _require_runs(old: Document, runs: Sequence[Path]) -> None:
    """Raise RequestError for runs that are not there or not complete, DamagedRun for a file that is missing or has
    another size."""
    gone = [place for place, folder in enumerate(runs) if not folder.is_dir()]
    if gone:
        first = old["provenance"]["runs"][gone[0]]
        raise RequestError(
            f"{len(gone)} of the {len(runs)} runs of this report are not where it says. The first is "
            f"{old['models'][first['model']]['name']}, seed {first['seed']}: {runs[gone[0]]}\n"
            "If they were moved, runs=… names the folder below which all of them lie now; a relative path counts from "
            "the folder in which the command is called."
        )
    for folder in runs:
        run = reading.read(folder, verify=False)
        if run.status != "complete":
            raise RequestError(f"Run {folder} is not complete any more: {run.status}.\nMake the report again.")
        run.verify(contents=False)


def _known(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """The examples with their former text and image where there is none to compare with."""
    return {
        key: {**example, **{part: old[key][part] for part in ("text", "png") if key in old and example[part] is None}}
        for key, example in new.items()
    }


# What was measured again


def _measured_again(new: Document, old: Document, runs: Sequence[Path]) -> list[str]:
    """Put the former costs in the place of those of runs that were made after the report, and of benches; what was put
    there, in words. An older run says what it said when the report was made: its costs are compared."""
    created = _moment(old["created"])
    origins = old["provenance"]["runs"]
    fresh = {run["model"] for run, folder in zip(origins, runs, strict=True) if _ended_after(folder, created)}
    if fresh:
        new["provenance"]["commands"] = old["provenance"]["commands"]
    told = []
    for place in sorted(fresh):
        if place >= min(len(new["models"]), len(old["models"])):
            continue
        now, before = (cast("dict[str, Any]", found["models"][place]["cost"]) for found in (new, old))
        if difference(now, before, "") is not None:
            now |= {name: before[name] for name in _MEASURED}
            told.append(old["models"][place]["name"])
    remarks = [f"Measured again since, and not compared: times and memory of {', '.join(told)}."] if told else []
    if any(_is_after(bench["made"], created) for bench in new.get("benches", ())):
        new["benches"] = old["benches"]
        remarks.append("Measured again since, and not compared: what zoo.bench measured.")
    return remarks


def _ended_after(folder: Path, moment: datetime | None) -> bool:
    try:
        return _is_after(str(reading.read(folder, verify=False).record.get("ended")), moment)
    except StoreError:
        return False


def _is_after(text: str, moment: datetime | None) -> bool:
    told = _moment(text)
    return told is not None and moment is not None and told > moment


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


# Numbers


def difference(new: Any, old: Any, path: str, worded: dict[str, None] | None = None) -> str | None:
    """Where two documents first differ, in words; None when they do not. Numbers may differ by rounding.

    worded: takes up the fields of words that differ, which then are no difference; None where words are compared."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        if new.keys() != old.keys():
            return f"{path or 'the document'}: fields {sorted(new.keys() ^ old.keys())}"
        inner = ((f"{path}.{key}".lstrip("."), key) for key in old if path or key not in _OF_THE_MAKING)
        told = (difference(new[key], old[key], at, worded) for at, key in inner)
        return next((found for found in told if found is not None), None)
    if isinstance(new, list) and isinstance(old, list):
        if len(new) != len(old):
            return f"{path}: {len(old)} entries in the report, {len(new)} recomputed"
        pairs = enumerate(zip(new, old, strict=True))
        told = (difference(n, o, f"{path}[{at}]", worded) for at, (n, o) in pairs)
        return next((found for found in told if found is not None), None)
    numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in (new, old))
    same = abs(new - old) <= TOLERANCE * max(1.0, abs(old)) if numbers else new == old
    if not same and worded is not None and _is_worded(path, new, old):
        worded[re.sub(r"\[\d+\]", "[]", path)] = None
        return None
    return None if same else f"{path}: {old!r} in the report, {new!r} recomputed"


def _is_worded(path: str, new: Any, old: Any) -> bool:
    """Whether a field holds words, in one document at least."""
    return path.rpartition(".")[2] in _WORDED and all(item is None or isinstance(item, str) for item in (new, old))


# Files


def compare_files(folder: Path, document: Document) -> Verified:
    """Compare the files of a report with those that this program writes of its document."""
    try:
        parts = reporting.render(document, _language(folder))
    except ConfigError as error:
        return Verified(f"{PAGE}: {error}")
    stored = {name: _content(folder / name) for name in PARTS | parts.keys()}
    strange = sorted(name for name, content in stored.items() if content is not None and name not in parts)
    missing = [name for name in parts if stored[name] is None]
    if strange or missing:
        return Verified(f"{missing[0]}: it is missing" if missing else f"{strange[0]}: this report has no such file")
    files = {name: content for name, content in stored.items() if content is not None and name != DOCUMENT}
    other = sorted(name for name, content in files.items() if content != parts[name])
    if not other:
        return Verified(None)
    if document["zoo_version"] != __version__:
        return Verified(None, (f"Zoo {__version__} writes otherwise, and did not compare: {', '.join(other)}.",))
    return _compared(files, parts, other)


def _language(folder: Path) -> str:
    """Of the page; English where it says none."""
    found = _LANGUAGE.search((_content(folder / PAGE) or b"")[:1000].decode("utf-8", "replace"))
    return found[1] if found else "en"


def _content(file: Path) -> bytes | None:
    """None for what is no file. Raises OSError for one that cannot be read."""
    return file.read_bytes() if file.is_file() else None


def _compared(files: Mapping[str, bytes], parts: Mapping[str, bytes], other: Sequence[str]) -> Verified:
    """Of files that are not byte for byte what is written now. other: these, sorted."""
    remarks = []
    texts = {name: [kept[name].decode("utf-8", "replace") for kept in (files, parts)] for name in other}
    if PAGE in texts:
        texts[PAGE], library = _without_library(*texts[PAGE])
        remarks += [f"{PAGE} carries another charting library than this machine has: not compared."] if library else []
    charts = [name for name in other if name.startswith("figures/")]
    # One that is the same to the byte shows that charts are drawn here as they were there.
    elsewhere = len(charts) == sum(name.startswith("figures/") for name in files)
    for name in charts if elsewhere else ():
        texts[name] = ["\n".join(_SAID.findall(text)) for text in texts[name]]
    if elsewhere:
        remarks.append("The charts say the same and are drawn otherwise, as another charting library or font does.")
    order = sorted(texts, key=lambda name: (name != MARKDOWN, name != PAGE, name))
    found = (_first_line(name, *texts[name]) for name in order)
    different = next((told for told in found if told is not None), None)
    return Verified(different, tuple(remarks) if different is None else ())


def _without_library(old: str, new: str) -> tuple[list[str], bool]:
    """Two pages without the charting library, the first of their scripts, and the policy that names its checksum; and
    whether that library differs."""
    scripts = [_SCRIPT.search(text) for text in (old, new)]
    if scripts[0] is None or scripts[1] is None:
        return [old, new], False
    if scripts[0][1] == scripts[1][1]:
        return [old, new], False
    pages = [text.replace(found[1], "", 1) for text, found in zip((old, new), scripts, strict=True) if found]
    return [_POLICY.sub(r"\1", text) for text in pages], True


def _first_line(name: str, old: str, new: str) -> str | None:
    """Where two texts first differ, in words: the first line that does, or how many one has more than the other."""
    if old == new:
        return None
    lines = [text.split("\n") for text in (old, new)]
    at = next((at for at, (a, b) in enumerate(zip(*lines, strict=False)) if a != b), None)
    if at is None:
        more = len(lines[0]) - len(lines[1])
        counted = f"{abs(more)} line{'s' * (abs(more) > 1)} {'more' if more > 0 else 'fewer'}"
        return f"{name}: it ends with {counted} than by its numbers"
    said = [_around(each[at], other[at]) for each, other in (lines, lines[::-1])]
    return f"{name}, line {at + 1}: '{said[0]}' in the report, '{said[1]}' by its numbers"


def _around(text: str, other: str) -> str:
    """The part of a line in which it begins to differ from another."""
    at = next((at for at, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    begin = max(0, at - 20)
    return shortened(f"{'… ' if begin else ''}{text[begin : at + 40]}{' …' if len(text) > at + 40 else ''}", 80)
