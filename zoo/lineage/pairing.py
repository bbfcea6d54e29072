"""Two models side by side: which tensor of the one is which of the other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from zoo.lineage.weights import Weights


MOST_PARTS = 8
"""Parts of a prefix, with dots between: `base_model.model.model.` has three, and names of hundreds take long."""


@dataclass(frozen=True)
class Pair:
    """Two models. names: tensor of a → tensor of b, of one shape; tables: the same for matrices that differ in their
    number of rows only, of which the first that both have are loaded (a vocabulary that was extended, a layer that was
    widened); reshaped: the same name with shapes that do not go together; only_a, only_b: tensors without a
    counterpart."""

    a: Weights
    b: Weights
    names: Mapping[str, str]
    tables: Mapping[str, str]
    reshaped: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    def load_a(self, name: str) -> np.ndarray:
        """Tensor of a as float32."""
        return self._cut(name, self.a.load(name))

    def load_b(self, name: str) -> np.ndarray:
        """Tensor of b that goes with the one of a named here, as float32."""
        return self._cut(name, self.b.load(self.tables[name] if name in self.tables else self.names[name]))

    def _cut(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Of a table, the rows that both have; any other tensor whole."""
        if name not in self.tables:
            return tensor
        return tensor[: min(self.a.shapes[name][0], self.b.shapes[self.tables[name]][0])]


def pair_up(a: Weights, b: Weights) -> Pair:
    """Tensors are joined by name, whatever prefix one of the two has (`bert.` before every name); what has no namesake
    by its content, bit for bit."""
    prefix_a, prefix_b = _prefixes(a.tensors, b.tensors)
    called_b = {name.removeprefix(prefix_b): name for name in b.tensors if name.startswith(prefix_b)}
    same = {}
    for name in a.tensors:
        if name.startswith(prefix_a) and (other := called_b.get(name.removeprefix(prefix_a))) is not None:
            same[name] = other
    left_a, left_b = a.tensors.keys() - same.keys(), b.tensors.keys() - set(same.values())
    same |= _by_content(a, b, left_a, left_b)
    fitting = {name: other for name, other in same.items() if a.shapes[name] == b.shapes[other]}
    tables = {name: other for name, other in same.items() if _one_width(a.shapes[name], b.shapes[other])}
    return Pair(
        a,
        b,
        fitting,
        tables,
        tuple(sorted(same.keys() - fitting.keys() - tables.keys())),
        tuple(sorted(a.tensors.keys() - same.keys())),
        tuple(sorted(b.tensors.keys() - set(same.values()))),
    )


def _one_width(one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    return len(one) == len(two) == 2 and one[1] == two[1] and one[0] != two[0]


def _prefixes(a: Iterable[str], b: Iterable[str]) -> tuple[str, str]:
    """The prefixes without which most names are the same; one of the two is empty."""
    names_a, names_b = set(a), set(b)
    votes: Counter[tuple[str, str]] = Counter({("", ""): len(names_a & names_b)})
    for longer, shorter, swap in ((names_a, names_b, False), (names_b, names_a, True)):
        for name in longer:
            parts = name.split(".", MOST_PARTS)
            for cut in range(1, len(parts)):
                if ".".join(parts[cut:]) in shorter:
                    prefix = ".".join(parts[:cut]) + "."
                    votes[("", prefix) if swap else (prefix, "")] += 1
    return max(votes, key=lambda item: (votes[item], item == ("", "")))


def _by_content(a: Weights, b: Weights, left_a: Iterable[str], left_b: Iterable[str]) -> dict[str, str]:
    shapes = {b.shapes[name] for name in left_b}
    wanted = [name for name in sorted(left_a) if a.shapes[name] in shapes]
    if not wanted:
        return {}
    digests: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(left_b):
        digests[b.digest(name)].append(name)
    found = {}
    for name in wanted:
        # Several tensors may be alike (a norm's ones): each is given away once, in the order of the names.
        if others := digests.get(a.digest(name)):
            found[name] = others.pop(0)
    return found
