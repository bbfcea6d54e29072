"""One error rate over all pairs of a zoo."""

from __future__ import annotations

from collections.abc import Sequence

METHOD = "Benjamini-Yekutieli"


def adjusted(ps: Sequence[float]) -> list[float]:
    """P-values adjusted by Benjamini and Yekutieli (2001): rejecting those up to q keeps the expected share of false
    rejections at q however the tests depend on one another, as those of pairs with a model in common do.
    ps: in [0, 1]. Returns as many, in the same order."""
    from scipy.stats import false_discovery_control

    if not len(ps):
        return []
    return [float(p) for p in false_discovery_control(list(ps), method="by")]
