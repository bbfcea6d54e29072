"""What an examination yields: findings in plain words, and the error that lists them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from zoo import interrupts

Verdict = Literal["ok", "warning", "failed", "not checked"]
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Finding:
    """One check and how it came out.

    check: what was looked at, e.g. `"logits"`; on: with which input, e.g. `"image 8×8×1"`, empty when it does not
    depend on the input; got: what was wrong, or why it was not checked; mend: what to change. Both are empty for "ok".
    """

    check: str
    verdict: Verdict
    on: str = ""
    got: str = ""
    mend: str = ""

    def __str__(self) -> str:
        place = f"{self.check} [{self.on}]" if self.on else self.check
        return "\n".join(
            [f"{place}: {self.got or self.verdict}", *([f"   → {self.mend}"] if self.mend else [])],
        )


@dataclass(frozen=True)
class Problem:
    """What a check yields for each thing that it does not like. Warnings do not fail the examination."""

    got: str
    mend: str
    verdict: Verdict = "failed"


class Unavailable(Exception):
    """A check cannot be made, because what it needs failed before. Carries the reason."""


class Inapplicable(Exception):
    """A check has no meaning for this input, e.g. padding of images: there is no finding at all."""


class ConformanceError(AssertionError):
    """A model, dataset or task breaks its contract. The message lists all failures; `findings` holds every finding."""

    def __init__(self, subject: str, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        failed = [finding for finding in findings if finding.verdict == "failed"]
        skipped = sorted({finding.check for finding in findings if finding.verdict == "not checked"})
        lines = [f"{subject}: {len(failed)} of {len(findings)} checks failed."]
        lines += [f"{number}. {finding}" for number, finding in enumerate(failed, 1)]
        if skipped:
            lines.append(f"Not checked: {', '.join(skipped)}.")
        super().__init__("\n".join(lines))


def perform(name: str, on: str, check: Callable[[Subject], Iterator[Problem]], subject: Subject) -> list[Finding]:
    """Run one check: a generator of problems. What it raises becomes a finding; no problem is an "ok"."""
    found = []
    try:
        for problem in check(subject):
            found.append(Finding(name, problem.verdict, on, problem.got, problem.mend))
    except Inapplicable:
        return []
    except Unavailable as reason:
        found.append(Finding(name, "not checked", on, str(reason)))
    except BaseException as caught:
        error = interrupts.not_users(caught)
        found.append(Finding(name, "failed", on, describe(error), "Nothing may be raised here."))
    return found or [Finding(name, "ok", on)]


def conclude(subject: str, findings: Sequence[Finding]) -> list[Finding]:
    """The findings, or ConformanceError when one of them has failed."""
    if any(finding.verdict == "failed" for finding in findings):
        raise ConformanceError(subject, findings)
    return list(findings)


def describe(error: BaseException) -> str:
    """`"raised ValueError: bad width (model.py, line 12, in build)"`: the innermost frame outside the kit and torch."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _foreign(frame.filename)]
    own = [frame for frame in frames if Path(frame.filename).parent != Path(__file__).parent]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name})" if own else ""
    text = str(error).strip() or "no message"
    lines = text.splitlines()
    return f"raised {type(error).__name__}: {' '.join(line.strip() for line in lines[:6])}{where}"


def _foreign(filename: str) -> bool:
    parts = Path(filename).parts
    return "site-packages" in parts and ("torch" in parts or "numpy" in parts or "omegaconf" in parts)
