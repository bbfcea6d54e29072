"""What makes two runs replicas of one model: the same label and the same recipe. And names for models that differ."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Self

from zoo.store.schema import DISGUISE

LEAVES_THE_RESULT = frozenset({"device", "resident_mib", "threads", "micro_batch", "compile"})
"""Training options that say where and how fast, not what is learned."""

MOST_CHARACTERS = 40


@dataclass(frozen=True)
class Recipe:
    """How a model was made. options: (dotted name, JSON value) of every option of the model, then of its training,
    sorted; data: the first digits of the training split's fingerprint, empty when it is unknown."""

    options: tuple[tuple[str, str], ...]
    data: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(sorted(dict(self.options).items())))

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """The recipe of a run, from what its `run.json` says."""
        config = _mapping(record.get("config"))
        trainer = _mapping(config.get("trainer"))
        decisive = {name: value for name, value in trainer.items() if name not in LEAVES_THE_RESULT}
        options = [*_flat("model", config.get("model")), *_flat("trainer", decisive)]
        # Not which run it was made from: what was done alike to two replicas makes two replicas.
        disguise = _mapping(config.get(DISGUISE))
        options += [item for name in ("how", "seed") if name in disguise
                    for item in _flat(f"{DISGUISE}.{name}", disguise[name])]  # fmt: skip
        train = _mapping(_mapping(_mapping(record.get("data")).get("splits")).get("train"))
        return cls(tuple(options), str(train.get("fingerprint") or "")[:8])

    def facts(self) -> dict[str, str]:
        """Every option by its dotted name, as JSON, and the data as `data`."""
        return {**dict(self.options), "data": self.data}


def names(models: Sequence[tuple[str, Recipe]]) -> list[str]:
    """A name for each (label, recipe), equal exactly when both are.

    A label with one recipe is the name; with several, the options that tell them apart follow:
    `mlp (hidden=[512])`.
    """
    recipes: dict[str, list[Recipe]] = defaultdict(list)
    for label, recipe in models:
        if recipe not in recipes[label]:
            recipes[label].append(recipe)
    named: dict[tuple[str, Recipe], str] = {}
    for label, variants in recipes.items():
        for recipe, told in zip(variants, _told_apart(variants), strict=True):
            named[label, recipe] = f"{label} ({told})" if told else label
    # Options cut short may read alike, and a label may be spelled like another's name, number included.
    shared, used = Counter(named.values()), set(named.values())
    for number, (model, name) in enumerate(named.items(), 1):
        if shared[name] > 1:
            named[model] = next(told for more in count(number) if (told := f"{name} #{more}") not in used)
            used.add(named[model])
    return [named[model] for model in models]


def _told_apart(variants: Sequence[Recipe]) -> list[str]:
    if len(variants) == 1:
        return [""]
    facts = [variant.facts() for variant in variants]
    keys = list(dict.fromkeys(key for fact in facts for key in fact))
    chosen: list[str] = []

    def told(keys: Sequence[str]) -> int:
        return len({tuple(fact.get(key) for key in keys) for fact in facts})

    while told(chosen) < len(variants):
        chosen.append(max(keys, key=lambda key: told([*chosen, key])))
    chosen.sort(key=keys.index)
    last = Counter(key.rpartition(".")[2] for key in chosen)
    shown = {key: key if last[key.rpartition(".")[2]] > 1 else key.rpartition(".")[2] for key in chosen}
    return [", ".join(f"{shown[key]}={_short(fact.get(key))}" for key in chosen) for fact in facts]


def _short(value: str | None) -> str:
    if not value:
        return "–"
    told = value[1:-1] if value.startswith('"') else value
    return told if len(told) <= MOST_CHARACTERS else f"{told[: MOST_CHARACTERS - 1]}…"


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    else:
        yield name, json.dumps(value, ensure_ascii=False, sort_keys=True)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
