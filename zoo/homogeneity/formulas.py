"""The measures of pairs as formulas over a few weighted sums (`Moments`).

They are written once: for point estimates of shape (R, R) and for draws of shape (draws, pairs). A formula says
"undefined" by 0/0, which is NaN; the sums are kept as counts so that 0/0 is met exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.homogeneity.results import ALWAYS, NONE_WRONG, UNDEFINED

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Moments:
    """Weighted sums over the examples for pairs of runs (a, b). Tensors of float64 that broadcast to the pairs' shape.

    n: sum of weights; classes: C; right_a, right_b: correct answers; both_right: correct together; agree: same answer;
    chance: sum over classes of (answers of a) × (answers of b); sure_a, sure_b: sum of the probabilities of the true
    label; overlap: sum of Σ_k p_a p_b; divergence: mean Jensen-Shannon divergence in bits. The last four are NaN
    without probabilities.
    """

    n: float
    classes: int
    right_a: torch.Tensor
    right_b: torch.Tensor
    both_right: torch.Tensor
    agree: torch.Tensor
    chance: torch.Tensor
    sure_a: torch.Tensor
    sure_b: torch.Tensor
    overlap: torch.Tensor
    divergence: torch.Tensor

    @property
    def both_wrong(self) -> torch.Tensor:
        """Examples that both get wrong (N00)."""
        return self.n - self.right_a - self.right_b + self.both_right


def agreement(m: Moments) -> torch.Tensor:
    """mean[ŷ_a = ŷ_b], in [0, 1]."""
    return m.agree / m.n


def agreement_chance(m: Moments) -> torch.Tensor:
    """Agreement of independent models of these accuracies whose wrong answers are uniform over the other classes:
    a_a a_b + (1 − a_a)(1 − a_b)/(C − 1)."""
    return _chance(m.right_a / m.n, m.right_b / m.n, m.classes)


def disagreement(m: Moments) -> torch.Tensor:
    """mean[ŷ_a ≠ ŷ_b], in [0, 1]."""
    return (m.n - m.agree) / m.n


def label_kappa(m: Moments) -> torch.Tensor:
    """Cohen's κ of the predicted labels, at most 1 (Cohen 1960). Undefined when both only ever say the same class."""
    return (m.n * m.agree - m.chance) / (m.n * m.n - m.chance)


def error_consistency(m: Moments) -> torch.Tensor:
    """κ = (o − e)/(1 − e) of correctness, e = a_a a_b + (1 − a_a)(1 − a_b) (Geirhos et al. 2020), in [−1, 1]."""
    same = m.n * (m.both_right + m.both_wrong)
    expected = _expected_same(m)
    return (same - expected) / (m.n * m.n - expected)


def error_consistency_maximum(m: Moments) -> torch.Tensor:
    """The highest κ that two models of these accuracies can have: below 1 when the accuracies differ."""
    same = m.n * (m.n - abs(m.right_a - m.right_b))
    expected = _expected_same(m)
    return (same - expected) / (m.n * m.n - expected)


def error_correlation(m: Moments) -> torch.Tensor:
    """Pearson's φ of correctness, in [−1, 1]. Undefined when one of the two is always right or always wrong."""
    spread = m.right_a * (m.n - m.right_a) * m.right_b * (m.n - m.right_b)
    return (m.n * m.both_right - m.right_a * m.right_b) / spread**0.5


def capa(m: Moments) -> torch.Tensor:
    """Chance-adjusted probabilistic agreement: o = mean Σ_k p_a p_b against independent models of these mean
    probabilities of the true label (Goel et al. 2025), at most 1. Equal models reach 1 only when they are certain."""
    expected = _chance(m.sure_a / m.n, m.sure_b / m.n, m.classes)
    return (m.overlap / m.n - expected) / (1 - expected)


def capa_discrete(m: Moments) -> torch.Tensor:
    """CAPA of the labels alone: agreement against independent models of these accuracies, at most 1."""
    expected = agreement_chance(m)
    return (m.agree / m.n - expected) / (1 - expected)


def both_wrong_agreement(m: Moments) -> torch.Tensor:
    """P(ŷ_a = ŷ_b given that both are wrong), in [0, 1]; chance is 1/(C − 1). Undefined for two classes."""
    share = (m.agree - m.both_right) / m.both_wrong
    return share if m.classes > 2 else share * math.nan


def double_fault(m: Moments) -> torch.Tensor:
    """Share of examples that both get wrong, N00/N, in [0, 1] (Giacinto & Roli 2001)."""
    return m.both_wrong / m.n


def q_statistic(m: Moments) -> torch.Tensor:
    """Yule's Q of correctness, (N11 N00 − N01 N10)/(N11 N00 + N01 N10), in [−1, 1]; 0/0 for a perfect model."""
    alike = m.both_right * m.both_wrong
    apart = (m.right_a - m.both_right) * (m.right_b - m.both_right)
    return (alike - apart) / (alike + apart)


def js_divergence(m: Moments) -> torch.Tensor:
    """Mean Jensen-Shannon divergence of the predicted distributions in bits, in [0, 1] (Lin 1991)."""
    return m.divergence


def _chance(a: torch.Tensor, b: torch.Tensor, classes: int) -> torch.Tensor:
    return a * b + (1 - a) * (1 - b) / (classes - 1)


def _expected_same(m: Moments) -> torch.Tensor:
    """n² (a_a a_b + (1 − a_a)(1 − a_b)), in whole numbers."""
    return m.right_a * m.right_b + (m.n - m.right_a) * (m.n - m.right_b)


@dataclass(frozen=True)
class Formula:
    """One measure of pairs. why: the reason when it is undefined; parts: formulas shown beside it; share: whether it
    is a mean over examples of numbers in [0, 1], whose interval has a width at 0 and at 1, too; failing: whether it is
    a likeness in failing beyond chance, whose interval takes as many failures as `results.FEW_SHARED` says."""

    of: Callable[[Moments], Any]
    why: str = UNDEFINED
    probabilities: bool = False
    parts: Mapping[str, Callable[[Moments], Any]] | None = None
    share: bool = False
    failing: bool = False


FORMULAS: Mapping[str, Formula] = {
    "agreement": Formula(agreement, parts={"chance": agreement_chance}, share=True),
    "disagreement": Formula(disagreement, share=True),
    "label_kappa": Formula(label_kappa, "both models only ever answer one and the same class"),
    "error_consistency": Formula(
        error_consistency,
        "both models are always right or both always wrong, so agreement is certain",
        parts={"maximum": error_consistency_maximum},
        failing=True,
    ),
    "error_correlation": Formula(error_correlation, ALWAYS, failing=True),
    "capa": Formula(capa, "both models are certain and always right", probabilities=True, failing=True),
    "capa_discrete": Formula(capa_discrete, "the agreement expected by chance is 1", failing=True),
    "both_wrong_agreement": Formula(both_wrong_agreement, NONE_WRONG, share=True),
    "double_fault": Formula(double_fault, share=True),
    "q_statistic": Formula(q_statistic, "0/0: one of the models is always right, or always wrong", failing=True),
    "js_divergence": Formula(js_divergence, probabilities=True, share=True),
}
