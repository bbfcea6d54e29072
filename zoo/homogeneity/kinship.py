"""The kinship scale: where a pair of models stands between independent errors (0) and replicas of one recipe (1).

All of it is built on φ, the correlation of errors, averaged over the replicas of the two models, and on its draws
under the bootstrap's weights with all replicas kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.homogeneity.behaviour import behaviour, minded_shares, no_intervals, undefined_pairs, without_intervals
from zoo.homogeneity.bootstrap import (
    Bootstrap,
    interval,
    minding,
    scalar,
    too_few,
    undefined,
    undefined_share,
    unseen_reasons,
)  # fmt: skip
from zoo.homogeneity.headline import failure_shares
from zoo.homogeneity.results import ALWAYS, FEW_MODELS, MIN_EXAMPLES, NO_REPLICAS, Pairs, PerModel, Scalar

if TYPE_CHECKING:
    from zoo.store.panel import Panel

MIN_FOR_EXCESS = 4
_SWEEPS = 500
_MOST = 1.25
_TOLERANCE = 1e-9
_NOT_SKEWED = 1e-4  # skewness below which a distribution of type III is normal but for rounding
_ELEMENTS = 2**22  # loadings held at a time
_FITTED = 100  # models up to which every pair is left out by a fit of its own
_FITTED_DRAWS = 32  # the same for the draws, of which there are a thousand

NO_EXCESS_WITH_ITSELF = "a model has no excess with itself"
_NO_RELIABILITY = "the replicas of {} do not fail together, so there is nothing to measure its kinship against"


@dataclass(frozen=True)
class Correlations:
    """φ between models. value: (M, M), the diagonal is the reliability (mean φ of pairs of replicas); draws: (D, M, M);
    seeds: (D, M, M), what another choice of seeds would add to a draw; replicas: (M,); mixed: (M,), how many of
    them are neither always right nor always wrong. NaN where undefined."""

    value: np.ndarray
    draws: np.ndarray
    seeds: np.ndarray
    replicas: np.ndarray
    mixed: np.ndarray

    @classmethod
    def of(cls, panel: Panel, plan: Bootstrap) -> Correlations:
        """From a panel."""
        found = behaviour(panel, plan)
        models = len(panel.models)
        draws, seeds = (
            _squares(upper["error_correlation"].astype(np.float64), models) for upper in (found.draws, found.seeds)
        )
        right = (panel.predictions == panel.labels).mean(axis=1)
        counts = [np.bincount(panel.runs, kinds, minlength=models) for kinds in (None, (right > 0) & (right < 1))]
        return cls(found.value["error_correlation"], draws, seeds, *counts)


def _squares(upper: np.ndarray, models: int) -> np.ndarray:
    """(D, Q) -> (D, M, M)."""
    first, second = np.triu_indices(models)
    full = np.empty((len(upper), models, models))
    full[:, first, second] = upper
    full[:, second, first] = upper
    return full


def attenuation_corrected(correlations: np.ndarray) -> np.ndarray:
    """φ_AB / sqrt(rel_A rel_B), Spearman's correction for attenuation (1904). correlations: (..., M, M) with the
    reliabilities on the diagonal. Returns (..., M, M) with ones on the diagonal, and NaN in rows and columns whose
    reliability is not positive. Values above 1 and below 0 occur and are kept."""
    reliability = np.diagonal(correlations, axis1=-2, axis2=-1)
    root = np.sqrt(np.where(reliability > 0, reliability, np.nan))
    scaled: np.ndarray = correlations / (root[..., :, None] * root[..., None, :])
    index = np.arange(scaled.shape[-1])
    scaled[..., index, index] = np.where(np.isnan(root), np.nan, 1.0)
    return scaled


def kinship(panel: Panel, plan: Bootstrap) -> Pairs:
    """Kinship of every two models: 0 for independent errors at these accuracies, 1 for replicas of one recipe.

    The diagonal is 1 where the model has replicas that fail together, by definition and without an interval. The part
    `reliability` (as Pairs, on its diagonal) is the mean φ between a model's replicas. Undefined with one run a model.
    """
    models, examples = len(panel.models), len(panel.labels)
    if examples < MIN_EXAMPLES:
        return undefined_pairs(models, examples, too_few(examples))
    found = Correlations.of(panel, plan)
    value, draws = attenuation_corrected(found.value), attenuation_corrected(found.draws)
    low, high = interval(draws, plan.confidence)
    for bound in (low, high):
        np.fill_diagonal(bound, np.nan)
    n = np.full((models, models), examples, dtype=np.int64)
    own, own_low, own_high = _only_diagonal(found, plan)
    refused = no_intervals(panel)
    without = {at: reason for at, reason in refused.items() if at[0] != at[1]}
    reliability = Pairs(own, own_low, own_high, n)
    told = unseen_reasons(value, low, plan, np.triu(np.ones_like(value, dtype=bool), 1))
    told |= _reasons(panel, found, value, minded_shares(undefined_share(draws), low, without), reliability)
    alone = without_intervals(reliability, {at: refused[at] for at in refused.keys() - without.keys()}, plan)
    return without_intervals(Pairs(value, low, high, n, told, "", {"reliability": alone}), without, plan)


def _only_diagonal(found: Correlations, plan: Bootstrap) -> list[np.ndarray]:
    """Value, low and high of the reliabilities, NaN off the diagonal."""
    keep = np.eye(len(found.value), dtype=bool)
    return [np.where(keep, part, np.nan) for part in (found.value, *interval(found.draws, plan.confidence))]


def _reasons(
    panel: Panel, found: Correlations, value: np.ndarray, shares: np.ndarray, reliability: Pairs
) -> dict[tuple[int, int], str]:
    troubles = [_trouble(panel.models[m], found, m) for m in range(len(panel.models))]
    doubtful = {m for m in range(len(panel.models)) if reliability.low[m, m] <= 0 < found.value[m, m]}
    told = {}
    for i, j in zip(*np.triu_indices(len(panel.models)), strict=True):
        if np.isnan(value[i, j]):
            text = troubles[i] or troubles[j] or "φ between the two is undefined: one is always right or always wrong"
        elif shown := sorted(doubtful & {int(i), int(j)}):
            names = " and ".join(panel.models[m] for m in shown)
            text = f"within noise the replicas of {names} may not fail together at all: do not lean on this value"
        else:
            text = minding(float(shares[i, j]))
        if text:
            told[int(i), int(j)] = text
    return told


def _trouble(name: str, found: Correlations, model: int) -> str:
    """Why this model has no kinship to any, or an empty string."""
    if found.replicas[model] < 2:
        return NO_REPLICAS
    if np.isnan(found.value[model, model]):
        runs = "all but one" if found.mixed[model] else "each"
        return f"{name} is always right or always wrong in {runs} of its runs, so its errors cannot be compared"
    return _NO_RELIABILITY.format(name) if found.value[model, model] <= 0 else ""


def excess(kinships: np.ndarray) -> np.ndarray:
    """What a pair shares beyond the one factor that all share. kinships: (..., M, M), M >= 4, symmetric; the diagonal
    is not looked at. Returns (..., M, M), NaN on the diagonal and where any entry that the pair needs is NaN.

    For each pair (a, b): K_ij ≈ λ_i λ_j by least squares over i ≠ j without (a, b); K_ab − λ_a λ_b. This is the tetrad
    idea of factor analysis. The alternating update λ_i = Σ_j K_ij λ_j / Σ_j λ_j², for all i at once and averaged with
    the old value (without that it swings between c·λ and λ/c for ever), to a change below 1e-9. |λ| is held at 1.25: a
    population's loadings are at most 1, and where models share nothing two of them would run off to infinity against
    two near 0 (a Heywood case); a bound of 1 would bias the excess of near-replicas."""
    models = kinships.shape[-1]
    flat = kinships.reshape(-1, models, models)
    pairs = models * (models - 1) // 2
    step = max(1, _ELEMENTS // (pairs * models))
    parts = [_excess(flat[start : start + step]) for start in range(0, len(flat), step)]
    joined = np.concatenate(parts) if parts else np.empty((0, models, models))
    return joined.reshape(kinships.shape)


def _excess(kinships: np.ndarray) -> np.ndarray:
    models = kinships.shape[-1]
    first, second = np.triu_indices(models, k=1)
    off = kinships.copy()
    off[:, np.arange(models), np.arange(models)] = 0
    loadings = _loadings(np.nan_to_num(off), first, second)
    found = np.full_like(kinships, np.nan)
    left = off[:, first, second] - _take(loadings, first) * _take(loadings, second)
    left[~np.isfinite(off).all(axis=(1, 2))] = np.nan
    found[:, first, second] = found[:, second, first] = left
    return found


def _take(loadings: np.ndarray, models: np.ndarray) -> np.ndarray:
    """(D, P, M), (P,) -> (D, P): the loading of one model of each pair."""
    taken: np.ndarray = loadings[:, np.arange(len(models)), models]
    return taken


def _loadings(off: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """λ of every model with one pair left out, (D, P, M). off: (D, M, M) with a zero diagonal; first, second: (P,)."""
    draws, models = off.shape[:2]
    pairs, rows = len(first), np.arange(len(first))
    missing = off[:, first, second]
    total = off.sum(axis=2)
    start = total / np.sqrt(np.maximum(np.abs(total.sum(axis=1, keepdims=True)), 1e-12))
    loadings = np.broadcast_to(start[:, None, :], (draws, pairs, models)).copy()
    going = np.arange(draws)
    for _ in range(_SWEEPS):
        now = loadings[going]
        a, b = _take(now, first), _take(now, second)
        above, squares = now @ off[going], now**2
        below = squares.sum(axis=2, keepdims=True) - squares
        above[:, rows, first] -= missing[going] * b
        above[:, rows, second] -= missing[going] * a
        below[:, rows, first] -= b**2
        below[:, rows, second] -= a**2
        fresh = np.clip((now + above / np.maximum(below, 1e-12)) / 2, -_MOST, _MOST)
        loadings[going] = fresh
        going = going[np.abs(fresh - now).max(axis=(1, 2)) > _TOLERANCE]
        if not len(going):
            break
    return loadings


def excess_of_many(kinships: np.ndarray) -> np.ndarray:
    """As `excess`, with one fit to all pairs: (..., M, M). What leaving a pair out changes is residual/(1 − leverage),
    as in linear least squares. The leverage is that of the fit's tangent, whose normal matrix diag(Σλ² − 2λ_i²) + λλᵀ
    has a closed inverse (Sherman-Morrison).

    A fit for each pair costs M² times as much. In simulations of 17 to 29 models the ends of the intervals were off by
    .01 standard errors on average, and by .1 to .2 where models share nothing, so that there is no factor to fit."""
    models = kinships.shape[-1]
    flat = kinships.reshape(-1, models, models)
    step = max(1, _ELEMENTS // models**2)
    parts = [_excess_of_many(flat[start : start + step]) for start in range(0, len(flat), step)]
    joined = np.concatenate(parts) if parts else np.empty((0, models, models))
    return joined.reshape(kinships.shape)


def _excess_of_many(kinships: np.ndarray) -> np.ndarray:
    off, index = kinships.copy(), np.arange(kinships.shape[-1])
    off[:, index, index] = 0
    whole = np.isfinite(off).all(axis=(1, 2))
    loadings = _one_fit(np.nan_to_num(off))
    slack = (loadings**2).sum(axis=1, keepdims=True) - 2 * loadings**2
    inverse = np.where(np.abs(slack) > 1e-12, 1 / np.where(slack == 0, 1, slack), 0)
    scaled = loadings * inverse
    total = 1 + (loadings * scaled).sum(axis=1, keepdims=True)
    own = inverse - scaled**2 / total
    row, column = loadings[:, :, None], loadings[:, None, :]
    crossed = -scaled[:, :, None] * scaled[:, None, :] / total[:, :, None]
    leverage = column**2 * own[:, :, None] + row**2 * own[:, None, :] + 2 * row * column * crossed
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = (off - row * column) / (1 - leverage)
    found[~whole] = np.nan
    found[:, index, index] = np.nan
    return found


def _one_fit(off: np.ndarray) -> np.ndarray:
    """λ of all pairs together, (D, M). off: (D, M, M) with a zero diagonal; the update of `_loadings`."""
    total = off.sum(axis=2)
    loadings: np.ndarray = total / np.sqrt(np.maximum(np.abs(total.sum(axis=1, keepdims=True)), 1e-12))
    for _ in range(_SWEEPS):
        squares = loadings**2
        below = np.maximum(squares.sum(axis=1, keepdims=True) - squares, 1e-12)
        fresh = np.clip((loadings + (off @ loadings[:, :, None])[:, :, 0] / below) / 2, -_MOST, _MOST)
        moved, loadings = np.abs(fresh - loadings).max(initial=0), fresh
        if moved <= _TOLERANCE:
            break
    return loadings


def excess_and_draws(value: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The excess of (M, M) and of its draws (D, M, M). Beyond `_FITTED_DRAWS` models the draws are those of one fit,
    moved by what that differs from the excess of the value; beyond `_FITTED` the value is, too."""
    models = len(value)
    if models <= _FITTED_DRAWS:
        return excess(value), excess(draws)
    quick = excess_of_many(value)
    found = excess(value) if models <= _FITTED else quick
    return found, excess_of_many(draws) + (found - quick)


def excess_kinship(panel: Panel, plan: Bootstrap) -> Pairs:
    """Kinship of a pair beyond what all models find hard: 0 for models that are independent given the difficulty.
    Models without any kinship are left out; undefined with fewer than four others."""
    if (gap := _no_excess(panel)) is not None:
        return gap
    found = Correlations.of(panel, plan)
    troubles = [_trouble(panel.models[m], found, m) for m in range(len(panel.models))]
    return _beyond_all(panel, attenuation_corrected(found.value), attenuation_corrected(found.draws), troubles, plan)


def excess_error_correlation(panel: Panel, plan: Bootstrap) -> Pairs:
    """φ of a pair beyond what all models find hard: as `excess_kinship`, of the error correlation itself, so that it
    needs no replicas. Models that are always right or always wrong are left out; undefined with fewer than four others.
    """
    if (gap := _no_excess(panel)) is not None:
        return gap
    found = Correlations.of(panel, plan)
    return _beyond_all(panel, found.value, found.draws + found.seeds, [""] * len(panel.models), plan)


def _no_excess(panel: Panel) -> Pairs | None:
    """Undefined for a reason that the panel's size gives, or None."""
    models, examples = len(panel.models), len(panel.labels)
    if models < MIN_FOR_EXCESS:
        return undefined_pairs(models, examples, FEW_MODELS.format(least=MIN_FOR_EXCESS, models=models))
    return undefined_pairs(models, examples, too_few(examples)) if examples < MIN_EXAMPLES else None


def _beyond_all(panel: Panel, value: np.ndarray, draws: np.ndarray, troubles: list[str], plan: Bootstrap) -> Pairs:
    """The excess of (M, M) and its draws (D, M, M) among the models that are alike to some degree with all the others.
    troubles: (M,), why a model is not, where that is known."""
    models = len(value)
    kept, without = _all_defined(value), no_intervals(panel)
    n = np.full((models, models), len(panel.labels), dtype=np.int64)
    full, low, high = np.full((3, models, models), np.nan)
    shares = np.zeros((models, models))
    if len(kept) >= MIN_FOR_EXCESS:
        inside = np.ix_(kept, kept)
        full[inside], drawn = excess_and_draws(value[inside], draws[:, kept[:, None], kept])
        low[inside], high[inside] = interval(drawn, plan.confidence)
        shares[inside] = undefined_share(drawn)
        shares = minded_shares(shares, low, without)
    told = unseen_reasons(full, low, plan, np.triu(np.ones_like(full, dtype=bool), 1))
    for i, j in zip(*np.triu_indices(models), strict=True):
        if i == j:
            told[int(i), int(j)] = NO_EXCESS_WITH_ITSELF
        elif np.isnan(full[i, j]):
            alone = {int(i), int(j)} - set(kept.tolist())
            causes = [troubles[m] or ALWAYS for m in sorted(alone)]
            few = FEW_MODELS.format(least=MIN_FOR_EXCESS, models=len(kept))
            told[int(i), int(j)] = causes[0] if causes else few
        elif text := minding(float(shares[i, j])):
            told[int(i), int(j)] = text
    return without_intervals(Pairs(full, low, high, n, told), without, plan)


def _all_defined(value: np.ndarray) -> np.ndarray:
    """The largest set of models found, (k,) indices, all pairs of which are defined: whoever has most gaps goes first.
    value: (M, M); the diagonal is not looked at."""
    gaps = ~np.isfinite(value)
    np.fill_diagonal(gaps, False)
    kept = np.arange(len(value))
    while len(kept) and (count := gaps[np.ix_(kept, kept)].sum(axis=1)).any():
        kept = np.delete(kept, count.argmax())
    return kept


def _first_gap(panel: Panel, found: Correlations, kinships: np.ndarray) -> str:
    """Why some kinship is undefined, or an empty string when all are defined."""
    if (found.replicas < 2).any():
        return NO_REPLICAS
    for i, j in zip(*np.nonzero(np.isnan(kinships)), strict=True):
        cause = _trouble(panel.models[i], found, i) or _trouble(panel.models[j], found, j)
        return cause or f"the kinship of {panel.models[i]} and {panel.models[j]} is undefined"
    return ""


def vendi_score(similarity: np.ndarray) -> np.ndarray:
    """exp of the entropy of the eigenvalues of K/M, the Vendi score (Friedman & Dieng 2023), in [1, M].

    similarity: (..., M, M) symmetric. An estimated K need not be positive semi-definite: negative eigenvalues are set
    to 0 and the rest is rescaled to a diagonal of 1. NaN where K holds a NaN."""
    whole = np.isfinite(similarity).all(axis=(-2, -1))
    found = np.full(similarity.shape[:-2], np.nan)
    values, vectors = np.linalg.eigh(similarity[whole])
    positive = (vectors * np.clip(values, 0, None)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    root = np.sqrt(np.diagonal(positive, axis1=-2, axis2=-1))
    unit = positive / (root[..., :, None] * root[..., None, :])
    shares = np.clip(np.linalg.eigvalsh(unit) / similarity.shape[-1], 0, None)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    found[whole] = np.exp(-(shares * logs).sum(axis=-1))
    return found


def recipe_diversity(panel: Panel, plan: Bootstrap) -> Scalar:
    """How many recipes that share nothing would be as diverse: the Vendi score of the kinship matrix, corrected for
    bias. Undefined unless all models have replicas, and where any kinship is undefined.

    It is what is left once the noise between seeds is divided out, and *not* how many models one has: it grows with M
    even at equal kinship, and three noisy models of one recipe have 1 though they insure each other. What a vote has of
    its members is `zoo.homogeneity.headline.effective_models`.

    Noise in K spreads its eigenvalues and so lowers their entropy, most for independent models, where every estimate
    falls below M. The draws tell by how much: value = 2·score − mean(draws), and the interval is that of the draws
    shifted to it. It may pass M by its noise.
    parts: `score`, the score without the correction and with the percentile interval."""
    examples = len(panel.labels)
    if examples < MIN_EXAMPLES:
        return undefined(examples, too_few(examples))
    found = Correlations.of(panel, plan)
    kinships = attenuation_corrected(found.value)
    if gap := _first_gap(panel, found, kinships):
        return undefined(examples, gap)
    value, draws = vendi_score(kinships), vendi_score(attenuation_corrected(found.draws))
    score = scalar(float(value), draws, examples, plan, "")
    if not np.isfinite(draws).any():
        return Scalar(score.value, score.low, score.high, examples, "not corrected for bias: there are no draws")
    bias = float(np.nanmean(draws) - value)
    corrected = scalar(float(value) - bias, draws - 2 * bias, examples, plan, "")
    return Scalar(corrected.value, corrected.low, corrected.high, examples, corrected.reason, {"score": score})


@dataclass(frozen=True)
class Claims:
    """Tests of claims about pairs, one-sided; p-values (M, M), symmetric, NaN where undefined and on the diagonal.

    more_than_replicas: that a pair is *not* more alike than replicas (kinship ≤ 1; small p: more alike).
    less_than_independent: that a pair is *not* less alike than independent models (φ ≥ 0; small p: less alike).
    Each with its `_adjusted`: Benjamini-Yekutieli over all pairs, since pairs share models.
    """

    more_than_replicas: np.ndarray
    more_than_replicas_adjusted: np.ndarray
    less_than_independent: np.ndarray
    less_than_independent_adjusted: np.ndarray


def claims(panel: Panel, plan: Bootstrap) -> Claims:
    """Tests of φ_AB − sqrt(rel_A rel_B) > 0 and φ_AB < 0.

    The first: the estimate over its bootstrap standard error, normal, and not by counting draws, whose smallest p of
    1/(D + 1) would not survive the correction over many pairs. Undefined where too few failures are known for an
    interval (`behaviour.no_intervals`): of replicas of one recipe under two names it would claim to be more alike in
    .13 of pairs with half an example that both would fail by chance, and not in .05.
    The second: `fewer_together`, which holds however few failures there are; where one of the two has several runs, and
    other seeds might fail elsewhere, no smaller than the normal one that minds seeds, too.
    All undefined without draws. Raises ValueError for a plan of 1 draw."""
    if plan.draws == 1:
        raise ValueError("a standard error needs two draws at least; the plan has 1")
    models = len(panel.models)
    blank = np.full((models, models), np.nan)
    if len(panel.labels) < MIN_EXAMPLES or not plan.draws:
        return Claims(blank, blank, blank, blank)
    found = Correlations.of(panel, plan)
    above = _upper_tail(_beyond_replicas(found.value), _beyond_replicas(found.draws))
    for i, j in no_intervals(panel):
        above[i, j] = above[j, i] = np.nan
    below = fewer_together(np.rint(failure_shares(panel) * found.replicas[:, None]), found.replicas)
    seeds = np.maximum.outer(found.replicas, found.replicas) > 1
    below = np.where(seeds, np.fmax(below, _upper_tail(-found.value, -(found.draws + found.seeds))), below)
    below[np.isnan(found.value) | np.eye(models, dtype=bool)] = np.nan
    return Claims(above, adjusted_pairs(above), below, adjusted_pairs(below))


def fewer_together(counts: np.ndarray, replicas: np.ndarray) -> np.ndarray:
    """P(two models that fail independently of each other fail together as rarely as these do, or more rarely), given
    how often each fails. counts: (M, N), how many of a model's runs fail each example, N ≥ 4; replicas: (M,). Returns
    (M, M) in [0, 1], symmetric; the diagonal has no meaning.

    J = Σ_i counts_a(i) counts_b(i), with the examples of one model in random order. With one run each the number of
    joint failures is hypergeometric (Fisher's exact test). With several the distribution is Pearson's type III with
    the mean, variance and skewness of J (Mielke & Berry 2007), half a failure added because J is whole, and never
    below the chance that no example is failed by both, which is hypergeometric again."""
    examples = counts.shape[1]
    joint = counts @ counts.T
    once = np.maximum.outer(replicas, replicas) == 1
    exact = _hypergeometric_tail(joint, counts.sum(axis=1), examples) if once.any() else np.ones_like(joint)
    if once.all():
        return exact
    never = _hypergeometric_tail(np.zeros_like(joint), (counts > 0).sum(axis=1), examples)
    several = np.where(joint == 0, never, np.fmax(_permuted_tail(counts, joint + 0.5), never))
    return np.where(once, exact, several)


def _hypergeometric_tail(joint: np.ndarray, failed: np.ndarray, examples: int) -> np.ndarray:
    """P(no more than so many examples failed by both), (M, M). joint: (M, M); failed: (M,) examples each fails."""
    from scipy.stats import hypergeom

    first, second = np.triu_indices(len(failed))
    tail = np.empty(joint.shape)
    tail[first, second] = hypergeom.cdf(joint[first, second], examples, failed[first], failed[second])
    tail[second, first] = tail[first, second]
    return tail


def _permuted_tail(counts: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """P(J < limit) for examples in random order, by three moments: (M, M); NaN where J does not vary."""
    from scipy.special import gammainc, gammaincc, ndtr

    examples = counts.shape[1]
    means = counts.mean(axis=1)
    centred = counts - means[:, None]
    squares, cubes = (np.multiply.outer(sums, sums) for sums in ((centred**2).sum(axis=1), (centred**3).sum(axis=1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(squares / (examples - 1))
        away = (limits - examples * np.multiply.outer(means, means)) / np.where(error > 0, error, np.nan)
        skewness = cubes * examples / ((examples - 1) * (examples - 2) * error**3)
        shape = 4 / skewness**2
        at = np.maximum(shape + 2 * away / skewness, 0.0)
        skewed = np.where(skewness > 0, gammainc(shape, at), gammaincc(shape, at))
    tail: np.ndarray = np.where(np.abs(skewness) > _NOT_SKEWED, skewed, ndtr(away))
    return tail


def _beyond_replicas(correlations: np.ndarray) -> np.ndarray:
    reliability = np.diagonal(correlations, axis1=-2, axis2=-1)
    root = np.sqrt(np.where(reliability > 0, reliability, np.nan))
    beyond: np.ndarray = correlations - root[..., :, None] * root[..., None, :]
    return beyond


def _upper_tail(value: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """P(normal > value / standard error), NaN on the diagonal and where there is no spread to judge by.

    The value is corrected for its bias as the draws tell it: the root of two noisy reliabilities is too low on average,
    by .07 standard errors for three replicas and 800 examples."""
    from scipy.special import ndtr

    defined = np.isfinite(draws)
    count = np.maximum(defined.sum(axis=0), 2)
    kept = np.where(defined, draws, 0.0)
    mean = kept.sum(axis=0) / count
    error = np.sqrt((np.where(defined, draws - mean, 0.0) ** 2).sum(axis=0) / (count - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        p: np.ndarray = ndtr((mean - 2 * value) / np.where(error > 0, error, np.nan))
    np.fill_diagonal(p, np.nan)
    return p


def adjusted_pairs(p: np.ndarray) -> np.ndarray:
    """Benjamini-Yekutieli over the pairs i < j that are defined. p: (M, M) symmetric. Returns (M, M)."""
    models = len(p)
    first, second = np.triu_indices(models, k=1)
    corrected = np.full((models, models), np.nan)
    corrected[first, second] = corrected[second, first] = benjamini_yekutieli(p[first, second])
    return corrected


def benjamini_yekutieli(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values, valid under any dependence (Benjamini & Yekutieli 2001). p: (n,), NaN stays NaN and does not
    count. Returns (n,) in [0, 1]."""
    found = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    tests = len(known)
    if tests:
        order = known[np.argsort(p[known], kind="stable")]
        ranks = np.arange(1, tests + 1)
        raised = p[order] * tests * (1 / ranks).sum() / ranks
        found[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return found


def reliability(panel: Panel, plan: Bootstrap) -> PerModel:
    """Mean φ between pairs of a model's replicas: how much of its errors another seed repeats. Undefined with one."""
    models, examples = len(panel.models), len(panel.labels)
    n = np.full(models, examples, dtype=np.int64)
    blank = np.full(models, np.nan)
    if examples < MIN_EXAMPLES:
        return PerModel(blank, blank, blank, n, dict.fromkeys(range(models), too_few(examples)))
    found = Correlations.of(panel, plan)
    value, low, high = (np.diagonal(part).copy() for part in _only_diagonal(found, plan))
    told = {m: _trouble(panel.models[m], found, m) for m in range(models)}
    fixed = unseen_reasons(value, low, plan, np.ones(models, dtype=bool))
    for (i, j), reason in no_intervals(panel).items():
        if i == j:
            low[i] = high[i] = np.nan
            if plan.draws and i not in fixed and np.isfinite(value[i]):
                fixed[i] = reason
    return PerModel(value, low, high, n, fixed | {m: text for m, text in told.items() if text})
