"""One error rate over all pairs of a zoo.

Two families of tests speak of shared weights: the exact ones (R1, R2) and R3 against replicas. Each is corrected by
itself, at a share of q: the expected share of false rejections among all is then at most the sum, q. As p-values
divided by their share, all are compared with one q (weighted tests, Genovese, Roeder & Wasserman 2006).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

METHOD = "Benjamini-Yekutieli"

Q = 0.05
"""The expected share of false claims of shared weights among all such claims, at most."""

ALIGNED = "aligned"
"""R3 among the tests: the one that is no exact test."""

CALIBRATED_SHARE = 0.9
"""Of q, for R3 where replicas calibrate it; the rest is for the exact tests. Weights that are shared make exact
p-values of less than a millionth, so that a tenth of q costs them nothing, while the p-values of replicas are steps of
1 / (replicas + 1). Where only one family tests anything, it has all of q."""

ENOUGH_REPLICAS = math.ceil(1 / (CALIBRATED_SHARE * Q)) - 1
"""With fewer, the smallest p-value of R3 is above its share of q, for one pair already."""


def adjusted(ps: Sequence[float]) -> list[float]:
    """P-values adjusted by Benjamini and Yekutieli (2001): rejecting those up to q keeps the expected share of false
    rejections at q however the tests depend on one another, as those of pairs with a model in common do.
    ps: in [0, 1]. Returns as many, in the same order."""
    from scipy.stats import false_discovery_control

    if not len(ps):
        return []
    return [float(p) for p in false_discovery_control(list(ps), method="by")]


def adjusted_together(pairs: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The p-values of all tests of all pairs under one error rate: rejecting those up to q keeps it at q.
    pairs: for each, p by test, in [0, 1]. Returns the same, adjusted, in [0, 1]."""
    exact = [(place, name, p) for place, ps in enumerate(pairs) for name, p in ps.items() if name != ALIGNED]
    calibrated = [(place, ALIGNED, ps[ALIGNED]) for place, ps in enumerate(pairs) if ALIGNED in ps]
    both = bool(exact and calibrated)
    found: list[dict[str, float]] = [{} for _ in pairs]
    for family, share in ((exact, 1 - CALIBRATED_SHARE), (calibrated, CALIBRATED_SHARE)):
        for (place, name, _), p in zip(family, adjusted([p for _, _, p in family]), strict=True):
            found[place][name] = min(1.0, p / share) if both else p
    return found
