"""Wrong answers that two models share, beyond what popular wrong answers explain. Needs no replicas.

Some wrong answers tempt everybody, so that two models give the same one without being kin. Which ones do is read off
the other models' wrong answers to the same example, and where fewer than two others are wrong nothing tells: such
examples do not count. All sums of pairs are matrix products, as in `behaviour`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from zoo.homogeneity.behaviour import TWO_CLASSES, square, undefined_pairs
from zoo.homogeneity.bootstrap import (
    Bootstrap,
    interval,
    minding,
    tensor,
    tiles,
    too_few,
    undefined_share,
    unseen_reasons,
)
from zoo.homogeneity.failures import sets_of_runs
from zoo.homogeneity.results import FEW_MODELS, MIN_EXAMPLES, NONE_WRONG, Pairs
from zoo.shares import FEW_EXAMPLES

if TYPE_CHECKING:
    import torch

    from zoo.store.panel import Panel

MIN_FOR_POPULAR = 4
WITH_ITSELF = "a model shares all its wrong answers with itself"
NOTHING_TO_SHARE = "the other models' wrong answers leave nothing that only two could share"
FEW_COUNTED = (
    f"fewer than {FEW_EXAMPLES} examples are wrong in both models and in two others, which tell what wrong answers are "
    "popular"
)
"""With so few r, a ratio, is below 0 on average: among unrelated models that fall for one wrong answer in eight of ten
cases by .15 with 34 examples of three options. z is standard with 10 and more."""

_ELEMENTS = 2**24  # floats of one tile


@dataclass(frozen=True)
class Sums:
    """Over the examples that count for a pair: those that both models and two others at least answer wrongly. (M, M)
    float64, the diagonal 0.

    both: their number; agree: how many get the same wrong answer; expected: Σ e; squares: Σ (agree − e)²."""

    both: np.ndarray
    agree: np.ndarray
    expected: np.ndarray
    squares: np.ndarray

    def likeness(self) -> np.ndarray:
        """r = Σ(agree − e)/Σ(1 − e), at most 1; NaN where there is nothing to share."""
        return _ratio(self.agree - self.expected, self.both - self.expected)

    def z(self) -> np.ndarray:
        """Σ(agree − e)/√Σ(agree − e)²: in standard errors, of which those of e are a part: of independent answers its
        mean is 0 and its deviation 1. √Σ e(1 − e) would leave them out: with two other wrong answers e is 0 or 1. NaN
        where nothing has a spread."""
        return _ratio(self.agree - self.expected, np.sqrt(np.where(self.squares > 1e-9, self.squares, 0.0)))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN where the lower one is 0 but for rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: np.ndarray = np.where(below > 1e-9, above / below, np.nan)
    return ratio


@dataclass(frozen=True)
class _Examples:
    """Examples that four models or more answer wrongly; c_k: wrong answers k of all models, T: their sum but two, the
    wrong answers of the models outside a pair that is wrong both.

    rows: (n,), their places; wrong: (M, n) 0 or 1; answers: (M, n) int64, 0 where not wrong; pairs: (n,),
    Σ_k c_k(c_k − 1); popular: (M, n), c − 1 of a model's wrong answer; scale: (n,), 1/(T(T − 1)). Float64 but for rows
    and answers."""

    rows: torch.Tensor
    wrong: torch.Tensor
    answers: torch.Tensor
    pairs: torch.Tensor
    popular: torch.Tensor
    scale: torch.Tensor

    def chance(self, a: torch.Tensor, b: torch.Tensor, agree: torch.Tensor) -> torch.Tensor:
        """e of the pairs (a, b), (p, n): Σ_k t_k(t_k − 1)/(T(T − 1)), t the others' wrong answers. Taking one answer
        out of c_k lowers c_k(c_k − 1) by 2(c_k − 1), and taking two out of one c_k by 2 less than twice that."""
        return (self.pairs - 2 * (self.popular[a] + self.popular[b]) + 2 * agree) * self.scale


def _examples(labels: np.ndarray, predictions: np.ndarray, options: np.ndarray, device: str) -> _Examples:
    import torch

    truth, said, offered = (tensor(array, device) for array in (labels, predictions, options))
    wrong = (said >= 0) & (said < offered) & (said != truth)
    rows = torch.nonzero(wrong.sum(dim=0) >= MIN_FOR_POPULAR).squeeze(1)
    wrong = wrong[:, rows].to(torch.float64)
    answers = said[:, rows].where(wrong > 0, torch.zeros_like(said[:, rows]))
    counts = torch.zeros(len(rows), int(options.max()), dtype=torch.float64, device=device)
    counts.scatter_add_(1, answers.T.contiguous(), wrong.T.contiguous())
    others = wrong.sum(dim=0) - 2
    popular = (counts.gather(1, answers.T).T - 1) * wrong
    pairs = (counts * (counts - 1)).sum(dim=1)
    return _Examples(rows, wrong, answers, pairs, popular, 1 / (others * (others - 1)))


def _tiled(labels: np.ndarray, predictions: np.ndarray, options: np.ndarray, device: str) -> Iterator[_Examples]:
    step = max(1, _ELEMENTS // (len(predictions) * int(options.max())))
    for start in range(0, len(labels), step):
        tile = slice(start, start + step)
        yield _examples(labels[tile], predictions[:, tile], options[tile], device)


def sums(labels: np.ndarray, predictions: np.ndarray, options: np.ndarray, device: str = "cpu") -> Sums:
    """The sums of all pairs of M models with one run each.

    labels: (N,) int64; predictions: (M, N) int64, of which those outside [0, options) are no answer and so neither
    right nor a shared wrong one; options: (N,) int64 ≥ 2, how many answers each example offers. e is the chance that
    two different ones of the wrong answers that the models outside the pair gave to the example coincide. With fewer
    than two of them the example does not count: whatever stands for e there is above or below what unrelated models
    share. An example of two options adds nothing: its only wrong answer is shared for sure."""
    import torch

    models = len(predictions)
    found = torch.zeros(4, models, models, dtype=torch.float64, device=device)
    for part in _tiled(labels, predictions, options, device):
        found += _products(part, int(options.max()))
    found *= 1 - torch.eye(models, dtype=torch.float64, device=device)
    return Sums(*found.cpu().numpy())


def _products(part: _Examples, classes: int) -> torch.Tensor:
    """both, agree, Σ e and Σ (agree − e)² of these examples, (4, M, M): e = x + 2 h agree, x = h(A − 2 g_a − 2 g_b),
    multiplied out; h, A and g are `scale`, `pairs` and `popular`."""
    import torch

    w, h, a, g = part.wrong, part.scale, part.pairs, part.popular
    hot = torch.zeros(*w.shape, classes, dtype=torch.float64, device=w.device)
    hot.scatter_(2, part.answers.unsqueeze(2), w.unsqueeze(2))

    def alike(factor: torch.Tensor) -> torch.Tensor:
        """Σ factor·agree, the factor (n,) or (M, n) of the first model."""
        return (hot * factor.unsqueeze(-1)).flatten(1) @ hot.flatten(1).T

    def one(feature: torch.Tensor) -> torch.Tensor:
        """Σ (feature of the first + feature of the second) where both are wrong."""
        product = feature @ w.T
        return product + product.T

    expected = (w * h * a) @ w.T - 2 * one(g * h) + 2 * alike(h)
    squares = (w * h**2 * a**2) @ w.T + one(4 * h**2 * g * (g - a)) + 8 * (g * h) @ (g * h).T
    # So far Σ x². Where the two agree g is the same, and x = h(A − 4g).
    same = h * (a - 4 * g)
    squares += alike((1 - same - 2 * h) ** 2 - same**2)
    return torch.stack([w @ w.T, alike(torch.ones_like(h)), expected, squares])


def _drawn(panel: Panel, options: np.ndarray, plan: Bootstrap) -> np.ndarray:
    """Draws of r, (D, Q) float64 over the pairs a < b, from the sums over the sets of runs."""
    import torch

    if not plan.draws:
        return np.empty((0, len(panel.models) * (len(panel.models) - 1) // 2))
    first, second = (torch.as_tensor(side, device=plan.device) for side in np.triu_indices(len(panel.models), k=1))
    whole = [_examples(panel.labels, panel.predictions[runs], options, plan.device) for runs in sets_of_runs(panel)]
    step = max(1, _ELEMENTS // len(panel.labels))
    rows = []
    for weights in tiles(len(panel.labels), plan):
        drawn = tensor(weights, plan.device)
        columns = []
        for start in range(0, len(first), step):
            a, b = first[start : start + step], second[start : start + step]
            above, below = (drawn @ part.T for part in _features(whole, a, b, len(panel.labels)))
            columns.append(_ratio(above.double().cpu().numpy(), below.double().cpu().numpy()))
        rows.append(np.concatenate(columns, axis=1))
    return np.concatenate(rows)


def _features(
    whole: list[_Examples], a: torch.Tensor, b: torch.Tensor, examples: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """agree − e and 1 − e of the pairs (a, b) at the examples that count, else 0: (p, examples) float32, summed over
    sets."""
    import torch

    above, below = torch.zeros(2, len(a), examples, dtype=torch.float32, device=a.device)
    for part in whole:
        both = part.wrong[a] * part.wrong[b]
        agree = both * (part.answers[a] == part.answers[b])
        chance = part.chance(a, b, agree)
        above[:, part.rows] += (both * (agree - chance)).float()
        below[:, part.rows] += (both * (1 - chance)).float()
    return above, below


def shared_wrong_answers(panel: Panel, plan: Bootstrap) -> Pairs:
    """r of every two models, at most 1, with the bootstrap's interval over examples; n: examples that count, which both
    and two others get wrong.

    parts: `z`, r in standard errors; `expected`, the mean of e; `n`, the examples again. Where models have replicas,
    the sums are means over the sets that take the t-th run of every model, and z is that of one set. Undefined for two
    classes, for fewer than four models, and where fewer than 30 examples count.

    z of models that are unrelated given which answers are popular has mean 0 and deviation 1, and r is near 0, slightly
    below: in simulations of 4 to 30 models z by up to .2, its deviation .85 to 1.2. Families among the others raise e,
    and so lower r. Strong models share wrong answers also because labels are wrong."""
    models, examples = len(panel.models), len(panel.labels)
    if (cause := _why_not(panel)) is not None:
        return undefined_pairs(models, examples, cause)
    options = np.full(examples, len(panel.classes), dtype=np.int64)
    every = [sums(panel.labels, panel.predictions[runs], options, plan.device) for runs in sets_of_runs(panel)]
    mean = Sums(*(np.mean([getattr(one, field.name) for one in every], axis=0) for field in fields(Sums)))
    draws = _drawn(panel, options, plan)
    upper = np.full((len(draws), models, models), np.nan)
    upper[:, *np.triu_indices(models, k=1)] = draws
    low, high = (square(end[np.triu_indices(models)], models) for end in interval(upper, plan.confidence))
    n = np.rint(mean.both).astype(np.int64)
    blank = np.full((models, models), np.nan)
    few = mean.both < FEW_EXAMPLES
    value, z, expected = (
        np.where(few, np.nan, part) for part in (mean.likeness(), mean.z(), _ratio(mean.expected, mean.both))
    )
    low, high = (np.where(few, np.nan, end) for end in (low, high))
    parts = {
        name: Pairs(part, blank, blank, n) for name, part in (("z", z), ("expected", expected), ("n", n.astype(float)))
    }
    told = unseen_reasons(value, low, plan, np.triu(np.ones_like(value, dtype=bool), 1))
    told |= _reasons(value, mean, _wrong_together(panel), undefined_share(upper))
    return Pairs(value, low, high, n, told, parts=parts)


def _wrong_together(panel: Panel) -> np.ndarray:
    """Whether any example is wrong in both models, (M, M) bool; no answer is no wrong answer."""
    found = np.zeros((len(panel.models), len(panel.models)), dtype=bool)
    for runs in sets_of_runs(panel):
        said = panel.predictions[runs]
        wrong = ((said >= 0) & (said != panel.labels)).astype(np.float32)
        found |= wrong @ wrong.T > 0
    return found


def _why_not(panel: Panel) -> str | None:
    if len(panel.labels) < MIN_EXAMPLES:
        return too_few(len(panel.labels))
    if len(panel.classes) < 3:
        return TWO_CLASSES
    few = len(panel.models) < MIN_FOR_POPULAR
    return FEW_MODELS.format(least=MIN_FOR_POPULAR, models=len(panel.models)) if few else None


def _reasons(value: np.ndarray, mean: Sums, together: np.ndarray, shares: np.ndarray) -> dict[tuple[int, int], str]:
    told = {}
    for i, j in zip(*np.triu_indices(len(value)), strict=True):
        if i == j:
            told[int(i), int(j)] = WITH_ITSELF
        elif np.isnan(value[i, j]):
            few = FEW_COUNTED if together[i, j] else NONE_WRONG
            told[int(i), int(j)] = few if mean.both[i, j] < FEW_EXAMPLES else NOTHING_TO_SHARE
        elif text := minding(float(shares[i, j])):
            told[int(i), int(j)] = text
    return told
