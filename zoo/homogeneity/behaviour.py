"""How alike two models behave: chance-corrected agreement of answers, errors and probabilities, all pairs at once.

Each measure is a formula (`zoo.homogeneity.formulas`) over a few weighted sums; the sums of all pairs are matrix
products, tiled, and a draw of the bootstrap is the same product under other weights. So nothing loops over pairs.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.homogeneity.bootstrap import (
    Bootstrap,
    interval,
    minding,
    replica_weights,
    share_interval,
    tensor,
    tiles,
    too_few,
    unseen_reasons,
)  # fmt: skip
from zoo.homogeneity.formulas import FORMULAS, Formula, Moments
from zoo.homogeneity.results import (
    FEW,
    FEW_RIGHT,
    FEW_SHARED,
    MIN_EXAMPLES,
    NO_PROBABILITIES,
    NO_REPLICAS,
    NO_SPREAD,
    ROUNDING,
    Pairs,
    sampled,
)  # fmt: skip
from zoo.shares import UNSEEN

if TYPE_CHECKING:
    import torch

    from zoo.store.panel import Panel

_ELEMENTS = 2**24  # floats of one tile of features or one-hot columns: 64 MiB as float32
_BLOCK = 256  # rows of a block when only the upper triangle of a product is computed
_EXACT_WORK = 2e10  # multiplications up to which probabilities are summed in float64
_DIVERGENCE_WORK = 2e8  # (pairs × examples × classes) up to which the Jensen-Shannon divergence takes all examples
_NOISE_DRAWS = 200  # draws from which the noise in the differences between replicas is read: a mean, so few suffice

TWO_CLASSES = "of two classes, two wrong answers are always the same"


@dataclass(frozen=True)
class Answers:
    """What R runs answered. labels: (N,) int64; predictions: (R, N) int64; classes: C >= 2; probabilities: (R, N, C)
    float32 or None; owner: (R,) int64, the model of each run, non-decreasing from 0."""

    labels: np.ndarray
    predictions: np.ndarray
    classes: int
    owner: np.ndarray
    probabilities: np.ndarray | None = None

    @classmethod
    def of(cls, panel: Panel) -> Answers:
        """From a panel."""
        owner = np.asarray(panel.runs, dtype=np.int64)
        return cls(panel.labels, panel.predictions, len(panel.classes), owner, panel.probabilities)


def _formulas(answers: Answers) -> dict[str, Formula]:
    have = answers.probabilities is not None
    return {name: formula for name, formula in FORMULAS.items() if have or not formula.probabilities}


def _numpy(values: torch.Tensor) -> np.ndarray:
    array: np.ndarray = values.cpu().numpy()
    array[~np.isfinite(array)] = np.nan
    return array


def moments(answers: Answers, plan: Bootstrap, divergence: bool = True) -> Moments:
    """The sums of all pairs of runs, tensors (R, R), (R, 1) or (1, R) float64 on the plan's device.

    Counts are exact: a tile of float32 counts at most 2^24, and the tiles are added in float64. The overlap of
    probabilities is summed in float64 when the work is small, else in float32 within a tile. Needs about
    24 · R² bytes and one tile. divergence: without it the Jensen-Shannon divergence, the dearest, is left NaN."""
    import torch

    runs, examples = answers.predictions.shape
    right = torch.zeros(runs, dtype=torch.float64, device=plan.device)
    both, agree, overlap = (torch.zeros(runs, runs, dtype=torch.float64, device=plan.device) for _ in range(3))
    sure, said = torch.zeros_like(right), torch.zeros(runs, answers.classes, dtype=torch.float64, device=plan.device)
    exact = runs * runs * examples * answers.classes <= _EXACT_WORK
    step = max(1, min(examples, 2**24, _ELEMENTS // (runs * answers.classes)))
    for start in range(0, examples, step):
        tile = slice(start, min(start + step, examples))
        labels = tensor(answers.labels[tile], plan.device)
        predictions = tensor(answers.predictions[:, tile], plan.device)
        correct = (predictions == labels).to(torch.float32)
        right += correct.sum(dim=1)
        _add_gram(both, correct)
        chosen = _one_hot(predictions, answers.classes)
        said += chosen.sum(dim=1)
        _add_gram(agree, chosen.reshape(runs, -1))
        del chosen
        if answers.probabilities is not None:
            probable = tensor(answers.probabilities[:, tile], plan.device, torch.float64 if exact else torch.float32)
            sure += _of_label(probable, labels).sum(dim=1, dtype=torch.float64)
            _add_gram(overlap, probable.reshape(runs, -1))
        if plan.progress:
            plan.progress(tile.stop / examples)
    for product in (both, agree, overlap):
        _mirror(product)
    sums = _moments(float(examples), right, both, agree, said)
    if answers.probabilities is not None:
        sums = replace(sums, sure_a=sure[:, None], sure_b=sure[None, :], overlap=overlap)
        if divergence:
            sums = replace(sums, divergence=_divergences(answers, plan))
    return sums


def _moments(n: float, right: torch.Tensor, both: torch.Tensor, agree: torch.Tensor, said: torch.Tensor) -> Moments:
    nothing = both.new_full((1, 1), math.nan)
    chance = said @ said.T
    return Moments(
        n, said.shape[1], right[:, None], right[None, :], both, agree, chance, nothing, nothing, nothing, nothing
    )


def _add_gram(total: torch.Tensor, rows: torch.Tensor) -> None:
    """total += rows @ rows.T, of which only the blocks on and above the diagonal are computed: half the work."""
    for start in range(0, len(rows), _BLOCK):
        stop = start + _BLOCK
        total[start:stop, start:] += rows[start:stop] @ rows[start:].T


def _mirror(total: torch.Tensor) -> None:
    """Fill what `_add_gram` left out from what it computed; symmetric to the last bit."""
    upper = total.triu()
    total.copy_(upper + upper.triu(1).T)


def _one_hot(predictions: torch.Tensor, classes: int) -> torch.Tensor:
    """(R, n) -> (R, n, classes) float32."""
    import torch

    chosen = torch.zeros(*predictions.shape, classes, dtype=torch.float32, device=predictions.device)
    return chosen.scatter_(2, predictions.unsqueeze(2), 1.0)


def _of_label(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(R, n, C), (n,) -> (R, n), the probability of the true label."""
    return probabilities.gather(2, labels.expand(len(probabilities), -1).unsqueeze(2)).squeeze(2)


def divergence_sample(answers: Answers, plan: Bootstrap) -> np.ndarray:
    """The examples that the Jensen-Shannon divergence takes, sorted (n,) int64: all, or a random sample where all
    pairs of all examples would be too many logarithms."""
    runs, examples = answers.predictions.shape
    most = int(_DIVERGENCE_WORK / (runs * (runs + 1) / 2 * answers.classes))
    if examples <= max(most, MIN_EXAMPLES):
        return np.arange(examples)
    return np.sort(np.random.default_rng((plan.seed, 2)).choice(examples, max(most, MIN_EXAMPLES), replace=False))


def _divergences(answers: Answers, plan: Bootstrap) -> torch.Tensor:
    """Mean divergence of all pairs of runs, (R, R) float64."""
    import torch

    assert answers.probabilities is not None
    taken = divergence_sample(answers, plan)
    probable = tensor(answers.probabilities[:, taken], plan.device, torch.float64)
    entropy = torch.special.entr(probable).sum(dim=2)
    runs = len(probable)
    first, second = torch.triu_indices(runs, runs, offset=1, device=plan.device)
    total = torch.zeros(runs, runs, dtype=torch.float64, device=plan.device)
    step = max(1, _ELEMENTS // probable[0].numel())
    for start in range(0, len(first), step):
        a, b = first[start : start + step], second[start : start + step]
        total[a, b] = _divergence(probable, entropy, a, b).mean(dim=1)
    return total + total.T


def _divergence(probable: torch.Tensor, entropy: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of the pairs (a, b), example by example: (pairs, n), in bits. Rounding may leave −1e-16 where it is 0."""
    import torch

    mixed: torch.Tensor = torch.special.entr((probable[a] + probable[b]) / 2).sum(dim=2)
    return (mixed - (entropy[a] + entropy[b]) / 2) / math.log(2)


@dataclass(frozen=True)
class Behaviour:
    """All behaviour measures of a panel, by name.

    answers: what they were computed from. runs: (R, R) between runs, the diagonal NaN. value: (M, M), means over pairs
    of runs. draws: (D, Q) float32, the same under the bootstrap's weights, all replicas kept; Q runs over
    `numpy.triu_indices(M)`. seeds: (D, Q) float32, how far another choice of seeds would move it, to be added to a
    draw. said: (D, M, C) float64, share of answers that fall to each class, and `said_value` (M, C) without weights.
    both_wrong: (M, M), mean number of examples that both get wrong. sampled: examples the divergence rests on.
    """

    answers: Answers
    runs: Mapping[str, np.ndarray]
    value: Mapping[str, np.ndarray]
    draws: Mapping[str, np.ndarray]
    seeds: Mapping[str, np.ndarray]
    parts: Mapping[str, Mapping[str, np.ndarray]]
    said: np.ndarray
    said_value: np.ndarray
    both_wrong: np.ndarray
    sampled: int

    @property
    def models(self) -> int:
        """M."""
        return int(self.answers.owner.max()) + 1


_latest: list[tuple[weakref.ref[Any], Bootstrap, Behaviour]] = []


def behaviour(panel: Panel, plan: Bootstrap) -> Behaviour:
    """All behaviour measures of the panel. The last result is kept, because every measure asks for its part of it."""
    if _latest and _latest[0][0]() is panel and _latest[0][1] == plan:
        return _latest[0][2]
    made = compute(Answers.of(panel), plan)
    _latest[:] = [(weakref.ref(panel), plan, made)]
    return made


def compute(answers: Answers, plan: Bootstrap) -> Behaviour:
    """All behaviour measures, with their draws. Time grows with draws × pairs of runs × examples."""
    sums = moments(answers, plan)
    formulas = _formulas(answers)
    runs = {name: _numpy(formula.of(sums)) for name, formula in formulas.items()}
    for values in runs.values():
        np.fill_diagonal(values, np.nan)  # a run is no replica of itself
    parts = {
        name: {part: _model_mean(_numpy(of(sums)), answers.owner) for part, of in (formula.parts or {}).items()}
        for name, formula in formulas.items()
    }
    draws, noise, said = _drawn(answers, plan, formulas)
    shift = replica_weights(answers.owner, plan)
    answered = np.stack([(answers.predictions == k).mean(axis=1) for k in range(answers.classes)], axis=1)
    averaging = _averaging(answers.owner)
    return Behaviour(
        answers,
        runs,
        {name: _model_mean(values, answers.owner) for name, values in runs.items()},
        draws,
        {name: _seed_shift(runs[name], noise[name], answers.owner, shift) for name in runs},
        parts,
        np.einsum("mr,drc->dmc", averaging, said),
        averaging @ answered,
        _model_mean(_numpy(sums.both_wrong), answers.owner),
        len(divergence_sample(answers, plan)),
    )


def _averaging(owner: np.ndarray) -> np.ndarray:
    """(M, R): row m holds 1/S_m at the runs of model m."""
    members = (owner[None, :] == np.arange(owner.max() + 1)[:, None]).astype(np.float64)
    averaging: np.ndarray = members / members.sum(axis=1, keepdims=True)
    return averaging


def _model_mean(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(R, R) between runs -> (M, M), means over the pairs of distinct runs that are defined; NaN when none is."""
    members = _averaging(owner) > 0
    defined = np.isfinite(values)
    np.fill_diagonal(defined, False)
    total = members @ np.where(defined, values, 0.0) @ members.T
    count = members.astype(np.float64) @ defined @ members.T
    with np.errstate(invalid="ignore"):
        mean = total / count
    whole: np.ndarray = np.triu(mean) + np.triu(mean, 1).T  # the two sums differ in their last bit
    return whole


@dataclass(frozen=True)
class _Tile:
    """Some pairs of models whole. a, b: (p,) runs; pair: (p,) which of `pairs` (q,) it belongs to; count: (q,)."""

    a: torch.Tensor
    b: torch.Tensor
    pair: torch.Tensor
    pairs: slice
    count: torch.Tensor


def _tiles(owner: np.ndarray, most: int, device: str) -> Iterator[_Tile]:
    """All pairs of distinct runs, by pair of models, in tiles of about `most` runs. A pair within a model comes in both
    orders, so that the mean over a run's partners is a mean over the second of the pair."""
    import torch

    models = int(owner.max()) + 1
    a, b = np.nonzero((owner[:, None] <= owner[None, :]) & ~np.eye(len(owner), dtype=bool))
    number = np.zeros((models, models), dtype=np.int64)
    number[np.triu_indices(models)] = np.arange(models * (models + 1) // 2)
    pair = number[owner[a], owner[b]]
    order = np.argsort(pair, kind="stable")
    a, b, pair = a[order], b[order], pair[order]
    ends = np.searchsorted(pair, np.arange(models * (models + 1) // 2), side="right")
    first = start = 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, start + most, side="right")))
        stop = int(ends[last - 1])
        inside = torch.as_tensor(pair[start:stop] - first, device=device)
        yield _Tile(
            torch.as_tensor(a[start:stop], device=device),
            torch.as_tensor(b[start:stop], device=device),
            inside,
            slice(first, last),
            torch.bincount(inside, minlength=last - first),
        )
        first, start = last, stop


class _Weighted:
    """The sums of some pairs of runs under one tile of draws."""

    def __init__(self, answers: Answers, plan: Bootstrap) -> None:
        import torch

        self._answers, self._plan = answers, plan
        self._labels = tensor(answers.labels, plan.device)
        self._predictions = tensor(answers.predictions, plan.device)
        self._correct = (self._predictions == self._labels).to(torch.float32)
        self._taken = tensor(divergence_sample(answers, plan), plan.device)
        if answers.probabilities is not None:
            self._probable = tensor(answers.probabilities, plan.device, torch.float32)
            self._sampled = self._probable[:, self._taken]
            self._entropy = torch.special.entr(self._sampled).sum(dim=2)

    def under(self, weights: np.ndarray) -> None:
        """Take these draws, (d, N) float32, and the sums of single runs under them."""
        import torch

        self.weights = tensor(weights, self._plan.device)
        self._right = (self.weights @ self._correct.T).to(torch.float64)
        shares = [self.weights @ (self._predictions == k).to(torch.float32).T for k in range(self._answers.classes)]
        self.said = torch.stack(shares, dim=2).to(torch.float64)
        if self._answers.probabilities is not None:
            sure = _of_label(self._probable, self._labels)
            self._sure = (self.weights @ sure.T).to(torch.float64)
            self._fewer = self.weights[:, self._taken]

    def moments(self, a: torch.Tensor, b: torch.Tensor) -> Moments:
        """The sums of the pairs (a, b): tensors (d, pairs)."""
        import torch

        examples = self._answers.predictions.shape[1]
        width = self._answers.classes if self._answers.probabilities is not None else 1
        step = max(1, _ELEMENTS // (examples * width))
        chunks = [self._chunk(a[i : i + step], b[i : i + step]) for i in range(0, len(a), step)]
        both, agree, overlap, divergence = (torch.cat(column, dim=1) for column in zip(*chunks, strict=True))
        chance = torch.zeros_like(both)
        for k in range(self._answers.classes):
            chance += self.said[:, a, k] * self.said[:, b, k]
        nothing = both.new_full((1, 1), math.nan)
        known = self._answers.probabilities is not None
        sure = (self._sure[:, a], self._sure[:, b]) if known else (nothing, nothing)
        return Moments(
            float(examples), self._answers.classes, self._right[:, a], self._right[:, b], both, agree, chance,
            *sure, overlap, divergence,
        )  # fmt: skip

    def _chunk(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """both_right, agree, overlap and divergence, each (d, pairs) float64, from features (pairs, N)."""
        import torch

        def summed(feature: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            return (weights @ feature.T).to(torch.float64)

        both = summed(self._correct[a] * self._correct[b], self.weights)
        agree = summed((self._predictions[a] == self._predictions[b]).to(torch.float32), self.weights)
        if self._answers.probabilities is None:
            return both, agree, both * math.nan, both * math.nan
        overlap = summed((self._probable[a] * self._probable[b]).sum(dim=2), self.weights)
        apart = summed(_divergence(self._sampled, self._entropy, a, b), self._fewer)
        return both, agree, overlap, apart / self._fewer.sum(dim=1, dtype=torch.float64)[:, None]


def _drawn(
    answers: Answers, plan: Bootstrap, formulas: Mapping[str, Formula]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Name -> draws (D, Q) float32; name -> noise (2, Q), see `_seed_shift`; and said (D, R, C)."""
    models = int(answers.owner.max()) + 1
    pairs = models * (models + 1) // 2
    draws = {name: np.full((plan.draws, pairs), np.nan, dtype=np.float32) for name in formulas}
    noise = {name: np.zeros((2, pairs)) for name in formulas}
    said = np.empty((plan.draws, len(answers.owner), answers.classes))
    if not plan.draws:
        return draws, noise, said
    sums = _Weighted(answers, plan)
    start = 0
    for weights in tiles(len(answers.labels), plan):
        sums.under(weights)
        rows = slice(start, start + len(weights))
        said[rows] = sums.said.cpu().numpy() / len(answers.labels)
        for tile in _tiles(answers.owner, 512, plan.device):
            if not len(tile.a):
                continue
            together = sums.moments(tile.a, tile.b)
            for name, formula in formulas.items():
                values = formula.of(together)
                draws[name][rows, tile.pairs] = _grouped(values, tile.pair, len(tile.count)).cpu().numpy()
                if start == 0 and len(answers.owner) > models:
                    noise[name][:, tile.pairs] = _spread_in_draws(values[:_NOISE_DRAWS], tile)
            if plan.progress:
                plan.progress((start + len(weights) * tile.pairs.stop / pairs) / plan.draws)
        start = rows.stop
    return draws, noise, said


def _grouped(values: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """(d, p) -> (d, groups): means over the members that are defined; NaN when none is."""
    defined = values.isfinite()
    total = values.new_zeros(len(values), groups).index_add_(1, group, values.where(defined, values.new_zeros(())))
    count = values.new_zeros(len(values), groups).index_add_(1, group, defined.to(values.dtype))
    return total / count


def _spread_in_draws(values: torch.Tensor, tile: _Tile) -> np.ndarray:
    """(2, q): for the first and the second model of each pair, the mean over draws of the variance between the
    replicas of that model, each averaged over its partners."""
    import torch

    sides = []
    for run in (tile.a, tile.b):
        keys, key = torch.unique(torch.stack([tile.pair, run]), dim=1, return_inverse=True)
        means = _grouped(values, key, keys.shape[1])
        sides.append(_variance(means, keys[0], len(tile.count)).nanmean(dim=0))
    both: np.ndarray = torch.stack(sides).cpu().numpy()
    return both


def _variance(values: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """(d, p) -> (d, groups): the unbiased variance within each group; 0 for a group of one."""
    centred = values - _grouped(values, group, groups)[:, group]
    count = values.new_zeros(groups).index_add_(0, group, values.new_ones(len(group)))
    squares = values.new_zeros(len(values), groups).index_add_(1, group, centred**2)
    return squares / (count - 1).clamp(min=1)


def _seed_shift(values: np.ndarray, noise: np.ndarray, owner: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How far another choice of seeds moves the mean of each pair of models, draw by draw: (D, Q) float32.

    values: (R, R); noise: (2, Q), the variance between replicas in draws; weights: (D, R), replicas drawn.
    The variance v between a model's replicas holds the noise of the examples once, and in a draw of examples once
    more: 2v − (its mean over draws) is that of the seeds alone. A draw's deviation is scaled to it, and to nothing
    when it is not positive. Within a model the mean is a U-statistic of order two, hence the factor of its diagonal.
    """
    models = int(owner.max()) + 1
    first, second = np.triu_indices(models)
    if len(owner) == models or not len(weights):
        return np.zeros((len(weights), len(first)), dtype=np.float32)
    members = _averaging(owner)
    replicas = (members > 0).sum(axis=1)
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(defined, values, 0.0) @ (members > 0).T / (defined @ (members > 0).T.astype(np.float64))
        centred = np.nan_to_num(means - (members @ means)[owner])  # (R, M): run s against the replicas of model B
        variance = (members > 0) @ centred**2 / np.maximum(replicas - 1, 1)[:, None]
        in_draws = np.zeros((models, models))
        in_draws[first, second], in_draws[second, first] = noise[0], noise[1]
        scale = np.sqrt(np.clip(np.nan_to_num(2 - in_draws / variance), 0, 1))
        own = np.where(replicas > 2, 2 * (replicas - 1) / np.maximum(replicas - 2, 1), 0)
    scale[np.diag_indices(models)] *= own
    part = np.stack([weights[:, owner == m] @ centred[owner == m] for m in range(models)], axis=1)
    part *= scale
    shift = part[:, first, second] + np.where(first == second, 0.0, part[:, second, first])
    result: np.ndarray = shift.astype(np.float32)
    return result


def pairs(panel: Panel, name: str, plan: Bootstrap) -> Pairs:
    """One behaviour measure between all models of the panel, by its name in `FORMULAS`."""
    models, examples = len(panel.models), len(panel.labels)
    if FORMULAS[name].probabilities and panel.probabilities is None:
        return undefined_pairs(models, examples, NO_PROBABILITIES)
    if examples < MIN_EXAMPLES:
        return undefined_pairs(models, examples, too_few(examples))
    found = behaviour(panel, plan)
    n = np.full((models, models), examples, dtype=np.int64)
    note = ""
    if name == "both_wrong_agreement":
        n = np.nan_to_num(np.rint(found.both_wrong)).astype(np.int64)
    if name == "js_divergence" and found.sampled < examples:
        n[:] = found.sampled
        note = sampled(found.sampled, examples)
    if FORMULAS[name].probabilities and not panel.calibrated:
        note = "; ".join(filter(None, [note, "the probabilities are as the models gave them, not calibrated"]))
    value = found.value[name]
    low, high = (square(end, models) for end in _interval_of(found, name, n, plan))
    blank = np.full_like(value, np.nan)
    parts = {part: Pairs(values, blank, blank, n) for part, values in found.parts[name].items()}
    fixed = unseen_reasons(value, low, plan, np.triu(np.ones_like(value, dtype=bool)))
    without = no_intervals(panel) if FORMULAS[name].failing else {}
    whole = Pairs(value, low, high, n, fixed | _reasons(panel, found, name, low, without), note, parts)
    return without_intervals(whole, without, plan)


def no_intervals(panel: Panel) -> dict[tuple[int, int], str]:
    """(i, j), i <= j -> why the likeness in failing of two models, or of a model's own runs, has no interval: a run is
    always right or always wrong, or there are fewer than `FEW_SHARED` examples that both fail, or get right, seen or
    expected by chance, whichever is more. Of a model with one run, (i, i) is not there."""
    if _refused and _refused[0][0]() is panel:
        return dict(_refused[0][1])
    made = _no_intervals(panel)
    _refused[:] = [(weakref.ref(panel), made)]
    return dict(made)


_refused: list[tuple[weakref.ref[Any], dict[tuple[int, int], str]]] = []


def _no_intervals(panel: Panel) -> dict[tuple[int, int], str]:
    owner, rates = np.asarray(panel.runs), (panel.predictions != panel.labels).mean(axis=1)
    replicas = np.bincount(owner, minlength=len(panel.models))
    fixed = np.array([bool(np.isin(rates[owner == m], (0, 1)).any()) for m in range(len(panel.models))])
    why = np.full((len(fixed), len(fixed)), "", dtype=object)
    for right, reason in ((True, FEW_RIGHT), (False, FEW)):
        why[np.maximum(*shared(panel, right)) < FEW_SHARED - ROUNDING] = reason
    why[fixed] = why[:, fixed] = NO_SPREAD
    why[np.diag_indices(len(why))] = np.where(replicas > 1, np.diagonal(why), "")
    return {(int(i), int(j)): why[i, j] for i, j in zip(*np.nonzero(np.triu(why != "")), strict=True)}


def shared(panel: Panel, right: bool) -> tuple[np.ndarray, np.ndarray]:
    """Examples that a run of one model and a run of another both fail, or both get right: seen, and expected by chance,
    (M, M) float64 each. On the diagonal two different runs of one model, 0 seen where there is one."""
    owner = np.asarray(panel.runs)
    replicas = np.bincount(owner, minlength=len(panel.models))
    chosen = (panel.predictions == panel.labels) == right
    counts = np.stack([chosen[owner == m].sum(axis=0, dtype=np.float32) for m in range(len(panel.models))])
    shares = counts / replicas[:, None].astype(np.float32)
    seen = (shares @ shares.T).astype(np.float64)
    own = (counts.astype(np.float64) ** 2).sum(axis=1) - counts.sum(axis=1, dtype=np.float64)
    seen[np.diag_indices(len(seen))] = own / np.maximum(replicas * (replicas - 1), 1)
    rates = shares.mean(axis=1, dtype=np.float64)
    return seen, np.outer(rates, rates) * counts.shape[1]


def without_intervals(found: Pairs, why: Mapping[tuple[int, int], str], plan: Bootstrap) -> Pairs:
    """The pairs with the intervals of some left out, and the reason beside what is said of those already."""
    told, low, high = dict(found.reasons), found.low.copy(), found.high.copy()
    for (i, j), reason in why.items():
        for end in (low, high):
            end[i, j] = end[j, i] = np.nan
        before = told.get((i, j), "")
        if plan.draws and np.isfinite(found.value[i, j]) and before != UNSEEN:
            told[i, j] = reason if before in reason else f"{before}; {reason}"
    return replace(found, low=low, high=high, reasons=told)


def _interval_of(found: Behaviour, name: str, n: np.ndarray, plan: Bootstrap) -> tuple[np.ndarray, np.ndarray]:
    """Low and high over `numpy.triu_indices(M)`. n: (M, M) examples that a share rests on."""
    draws = found.draws[name].astype(np.float64) + found.seeds[name]
    if not FORMULAS[name].share:
        return interval(draws, plan.confidence)
    upper = np.triu_indices(found.models)
    return share_interval(found.value[name][upper], draws, n[upper], plan)


def square(upper: np.ndarray, models: int) -> np.ndarray:
    """(Q,) over `numpy.triu_indices(M)` -> (M, M), symmetric, float64."""
    full = np.full((models, models), np.nan)
    full[np.triu_indices(models)] = upper
    full.T[np.triu_indices(models)] = upper
    return full


def undefined_pairs(models: int, examples: int, reason: str) -> Pairs:
    """A Pairs of which no pair is defined, all for one reason."""
    blank = np.full((models, models), np.nan)
    every = {(int(i), int(j)): reason for i, j in zip(*np.triu_indices(models), strict=True)}
    return Pairs(blank, blank, blank, np.full((models, models), examples, dtype=np.int64), every)


def minded_shares(shares: np.ndarray, low: np.ndarray, without: Iterable[tuple[int, int]]) -> np.ndarray:
    """The shares of undefined draws, (M, M), but 0 where there would be an interval and is none: draws do not matter
    there. low: (M, M), of the intervals as the draws would have them."""
    minded = shares.copy()
    for i, j in without:
        if np.isfinite(low[i, j]):
            minded[i, j] = minded[j, i] = 0
    return minded


def _reasons(
    panel: Panel, found: Behaviour, name: str, low: np.ndarray, without: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], str]:
    """Why pairs are undefined, and what to mind where runs or draws were. low, without: see `minded_shares`."""
    owner, runs = found.answers.owner, found.runs[name]
    members = (_averaging(owner) > 0).astype(np.float64)
    total = members @ (1 - np.eye(len(owner))) @ members.T
    lost = total - members @ np.isfinite(runs) @ members.T
    draws = found.draws[name]
    shares = square(1 - np.isfinite(draws).mean(axis=0) if len(draws) else np.zeros(draws.shape[1]), len(panel.models))
    shares = minded_shares(shares, low, without)
    told = {}
    for i, j in zip(*np.nonzero(np.triu((lost > 0) | (total == 0) | (shares > 0))), strict=True):
        if total[i, j] == 0:
            text = NO_REPLICAS
        elif lost[i, j] == total[i, j]:
            two = name == "both_wrong_agreement" and found.answers.classes == 2
            text = TWO_CLASSES if two else FORMULAS[name].why
        elif lost[i, j]:
            text = f"{lost[i, j]:.0f} of {total[i, j]:.0f} pairs of runs are undefined and do not count"
        else:
            text = minding(float(shares[i, j]))
        told[int(i), int(j)] = text
    return told
