"""Examination of a dataset: read twice, loaded, read in another process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zoo.errors import DataError
from zoo.testing import fresh
from zoo.testing.contract import Candidate
from zoo.testing.findings import Finding, Problem, Unavailable, perform

if TYPE_CHECKING:
    from zoo.data import Data, Dataset, Labelled, Splits

FEW = 100  # test examples below which an accuracy's 95 % interval is wider than about ±10 points


class Reading:
    """One dataset, loaded once."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.first: Data | None = None
        self.splits: Splits | None = None

    def loaded(self) -> Splits:
        """What `zoo.load` made of it. Raises Unavailable when it could not."""
        if self.splits is None:
            raise Unavailable("'load' failed before")
        return self.splits


def examine(cls: type[Dataset], options: Mapping[str, Any]) -> list[Finding]:
    """Findings about the data that the class reads with these options."""
    reading = Reading(Candidate("dataset", cls, options))
    findings = []
    for name, check in _CHECKS.items():
        findings += perform(name, "", check, reading)
    return findings


def _reads_the_same(reading: Reading) -> Iterator[Problem]:
    from zoo.data import Data

    reading.first = reading.candidate.make().read()
    if not isinstance(reading.first, Data):
        yield Problem(f"read() returned a {type(reading.first).__name__}", "Return a zoo.Data.")
        return
    second = reading.candidate.make().read()
    if list(reading.first.classes) != list(second.classes):
        yield Problem("read twice, the classes differ", "Sort the classes; the order of a set is not fixed.")
    for name in ("train", "validation", "test"):
        if not _same(getattr(reading.first, name), getattr(second, name)):
            yield Problem(
                f"read twice, the {name} split differs", "Sort file listings; shuffle with a fixed seed only."
            )


def _loads(reading: Reading) -> Iterator[Problem]:
    from zoo.data import load

    if reading.first is None:
        raise Unavailable("'read' failed before")
    try:
        reading.splits = load(reading.candidate.make())
    except DataError as error:
        yield Problem(f"the harness refuses it: {error}", "Mend the data, or the way it is read.")
        return
    if reading.splits.modality != reading.candidate.cls.modality:
        yield Problem(f"it loads as {reading.splits.modality}", f"Its modality says {reading.candidate.cls.modality}.")


def _reads_the_same_elsewhere(reading: Reading) -> Iterator[Problem]:
    here = reading.loaded().fingerprint
    if here != fresh.dataset_fingerprint(reading.candidate.cls, reading.candidate.options):
        yield Problem(
            "another process reads other data",
            "Python's hash() and the order of a set change from process to process: use hashlib and sorted().",
        )


def _can_compare_models(reading: Reading) -> Iterator[Problem]:
    size = len(reading.loaded().test)
    if size < FEW:
        yield Problem(f"the test split has {size} examples", f"Under {FEW}, hardly any difference shows.", "warning")


def _same(one: Labelled | None, two: Labelled | None) -> bool:
    import numpy as np

    if one is None or two is None:
        return one is two
    return np.array_equal(np.asarray(one.labels), np.asarray(two.labels)) and (
        np.array_equal(one.examples, two.examples)
        if isinstance(one.examples, np.ndarray) and isinstance(two.examples, np.ndarray)
        else list(one.examples) == list(two.examples)
    )


_CHECKS: Mapping[str, Callable[[Reading], Iterator[Problem]]] = {
    "read": _reads_the_same,
    "load": _loads,
    "other process": _reads_the_same_elsewhere,
    "size": _can_compare_models,
}
