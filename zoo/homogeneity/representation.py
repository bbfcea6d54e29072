"""How alike two models represent the same examples: pairs of layers, on the probe subset.

Features are (n examples, width) tensors, rows in the same order of examples; arrays are taken too. Everything is
computed in float64 on the device of the features (on the CPU for a device without float64); only the large products of
`cka_grid` and `minibatch_cka_grid` keep float32 for features that are float32, and are added up in float64.

Each measure prepares a layer once; a pair of layers is then an inner product of what was prepared, and permuting the
examples of one layer permutes what was prepared. So the layer grid and its permutation null are matrix products.

| measure | unrelated features give | left alone by |
|---|---|---|
| `cka` | 0 on average, also below | rotation, scale and shift of either side |
| `biased_cka` | far above 0 when width is not small beside n | the same |
| `procrustes` | a similarity far above 0 when width is not small beside n | the same |
| `rsa` | 0 on average, also below | the same |
| `mutual_knn` | k / (n − 1) | rotation and scale; not shift |
| `svcca` | far above 0 when the components kept are not few beside n | the same as `cka` |

None is left alone by every invertible linear map: directions of large variance count most. `svcca` is as long as the
map does not change which components are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    Features = torch.Tensor | np.ndarray

NEIGHBOURS = 10
VARIANCE_KEPT = 0.99

FEWEST = 4
"""Examples below which the unbiased HSIC₁ has no value."""

EQUIDISTANT = "all examples are the same distance apart"

_MOST = 1 << 25  # numbers held at a time beside the prepared layers: 256 MiB of float64


class Undefined(ValueError):
    """A measure has no value on these features; the message is the reason."""


# One number a pair of layers


def cka(x: Features, y: Features) -> float:
    """Linear CKA with the unbiased HSIC₁ (Song et al. 2012; Kornblith et al. 2019; Nguyen et al. 2021).

    x: (n, p), y: (n, q), n ≥ 4. Returns a value in [−1, 1], about 0 for unrelated features whatever their width; it is
    not clamped. Raises Undefined for fewer than 4 examples, numbers that are not finite, and features in which all
    examples are (almost) the same distance apart.
    """
    return float(cka_grid([x], [y])[0, 0])


def cka_grid(x_layers: Sequence[Features], y_layers: Sequence[Features]) -> torch.Tensor:
    """`cka` of every layer of one model with every layer of another: (layers of x, layers of y) float64.

    By way of the features, O(n · width²), where the layers are narrow, and of the Gram matrices, O(n² · width), where
    they are wide: whichever takes fewer operations, and fits in memory. float32 features cost an error below 1e-6.
    Raises as `cka`, and ValueError for layers of differing length."""
    same_length([*x_layers, *y_layers])
    sides = ([_checked(layer, True, True, single=True) for layer in layers] for layers in (x_layers, y_layers))
    return _ratio(_hsic(*sides))


def biased_cka(x: Features, y: Features) -> float:
    """Linear CKA with the biased HSIC₀, for reference: in [0, 1], and far above 0 for unrelated features when width is
    not small beside n (n = 200, width 512: .72). x: (n, p), y: (n, q). Raises Undefined as `cka`."""
    return _one("biased_cka", x, y)


def minibatch_cka(batches: Iterable[tuple[Features, Features]]) -> float:
    """`cka` from batches: HSIC₁ is averaged over the batches, and only then the ratio is taken (Nguyen et al. 2021).

    batches: ((n, p), (n, q)) features of the same examples, n ≥ 4 in each; sizes may differ, and each batch counts
    once. With all examples in one batch this is `cka`. Raises as `cka`, and Undefined without batches.
    """
    return float(minibatch_cka_grid(([x], [y]) for x, y in batches)[0, 0])


def minibatch_cka_grid(batches: Iterable[tuple[Sequence[Features], Sequence[Features]]]) -> torch.Tensor:
    """`minibatch_cka` of every layer of one model with every layer of another: (layers of x, layers of y) float64.

    batches: the layers of x and those of y, the same layers in each batch. One batch is held at a time."""
    total: _Hsic | None = None
    for x_layers, y_layers in batches:
        same_length([*x_layers, *y_layers])
        # No scaling here: each batch has to stay on the scale of the others.
        sides = ([_checked(layer, True, False, single=True) for layer in layers] for layers in (x_layers, y_layers))
        own = _hsic(*sides)
        total = own if total is None else total + own
    if total is None:
        raise Undefined("there are no batches")
    return _ratio(total)


def procrustes(x: Features, y: Features) -> float:
    """Angular Procrustes distance in radians, [0, π/2]: arccos of the nuclear norm of XᵀY, both centred and of unit
    Frobenius norm (Williams et al. 2021). 0: equal up to rotation, scale and shift. x: (n, p), y: (n, q). Raises
    Undefined as `cka`.

    Near 0 the arccos magnifies rounding: equal features are up to 1e-7 apart."""
    return math.acos(min(1.0, procrustes_similarity(x, y)))


def procrustes_similarity(x: Features, y: Features) -> float:
    """The cosine of `procrustes`, in [0, 1]. Far above 0 for unrelated features when width is not small beside n."""
    return _one("procrustes", x, y)


def rsa(x: Features, y: Features) -> float:
    """Representational similarity: Spearman's ρ between the distances of all pairs of examples (Kriegeskorte et al.
    2008), in [−1, 1]. Distances are Euclidean; equal ones share their mean rank. x: (n, p), y: (n, q), n ≥ 4. Raises
    Undefined as `cka`."""
    return _one("rsa", x, y)


def mutual_knn(x: Features, y: Features, k: int = NEIGHBOURS) -> float:
    """Share of the k nearest neighbours that an example has in both, by cosine, in [0, 1] (Huh et al. 2024).

    An example is not its own neighbour, by index: a duplicate of it may be one. Neighbours that are equally near share
    the places that are left between them, so the result is the mean over all ways to break the ties. Chance is
    k / (n − 1). x: (n, p), y: (n, q), n > k + 1. Raises Undefined as `cka`, and for k ≥ n − 1.
    """
    x, y = _pair(x, y, centre=False)
    return float((_neighbours(x, k) * _neighbours(y, k)).sum())


def svcca(x: Features, y: Features) -> float:
    """Mean canonical correlation of the leading principal components that keep 99 % of the variance of each (Raghu et
    al. 2017), in [0, 1]. x: (n, p), y: (n, q). 1 for any features when they keep n − 1 components. Raises Undefined as
    `cka`."""
    return _one("svcca", x, y)


# What is prepared, and how two of them are compared


@dataclass(frozen=True)
class Kind:
    """A measure as the grids need it.

    prepare: (n, width), checked → what the score needs; score: (layers of x, layers of y, orders (b, n)) →
    (b, layers, layers), the examples of y taken in each order; centred: whether prepare wants centred features."""

    prepare: Callable[[torch.Tensor], torch.Tensor]
    score: Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], torch.Tensor], torch.Tensor]
    centred: bool = True


def _matrix_scores(xs: Sequence[torch.Tensor], ys: Sequence[torch.Tensor], orders: torch.Tensor) -> torch.Tensor:
    """Inner products of (n, n) matrices, rows and columns of y permuted together."""
    import torch

    if len(xs) < len(ys):  # permuting one side is permuting the other the other way round, and fewer are cheaper
        return _matrix_scores(ys, xs, orders.argsort(1)).transpose(1, 2)
    n = orders.shape[1]
    left = torch.stack([x.reshape(-1) for x in xs])
    right = torch.stack([y.reshape(-1) for y in ys], dim=1)
    scores = [left @ right.index_select(0, (order[:, None] * n + order).reshape(-1)) for order in orders]
    return torch.stack(scores)


def _nuclear_scores(xs: Sequence[torch.Tensor], ys: Sequence[torch.Tensor], orders: torch.Tensor) -> torch.Tensor:
    """Nuclear norms of XᵀPY."""
    import torch

    scores = torch.empty(len(orders), len(xs), len(ys), dtype=xs[0].dtype, device=xs[0].device)
    for j, y in enumerate(ys):
        for i, x in enumerate(xs):
            step = max(1, _MOST // (y.numel() + x.shape[1] * y.shape[1]))
            for start in range(0, len(orders), step):
                crossed = x.T @ y[orders[start : start + step]]
                scores[start : start + step, i, j] = torch.linalg.svdvals(crossed).sum(-1)
    return scores


def _canonical_scores(xs: Sequence[torch.Tensor], ys: Sequence[torch.Tensor], orders: torch.Tensor) -> torch.Tensor:
    """Mean canonical correlations of orthonormal bases."""
    import torch

    ranks = torch.tensor([[min(x.shape[1], y.shape[1]) for y in ys] for x in xs])
    return _nuclear_scores(xs, ys, orders) / ranks.to(xs[0].device)


def _unbiased_gram(x: torch.Tensor) -> torch.Tensor:
    """The U-centred Gram matrix of unit norm: the inner product of two is the unbiased CKA (Székely & Rizzo 2014)."""
    n = len(x)
    gram = x @ x.T
    gram.fill_diagonal_(0)
    rows = gram.sum(1)
    gram -= rows[:, None] / (n - 2)
    gram -= rows[None, :] / (n - 2)
    gram += rows.sum() / ((n - 1) * (n - 2))
    return _unit(gram.fill_diagonal_(0), x)


def _biased_gram(x: torch.Tensor) -> torch.Tensor:
    """The Gram matrix of centred features, of unit norm."""
    return _unit(x @ x.T, x)


def _unit(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Of unit Frobenius norm. Raises Undefined when nothing but rounding of the features' scale is left."""
    import torch

    norm = torch.linalg.norm(matrix)
    if not norm > 1e-9 * x.square().sum():
        raise Undefined(EQUIDISTANT)
    unit: torch.Tensor = matrix / norm
    return unit


def _scaled(x: torch.Tensor) -> torch.Tensor:
    import torch

    # A rotation changes no nuclear norm: when width exceeds n, n columns say the same as all.
    if x.shape[1] > x.shape[0]:
        vectors, values, _ = torch.linalg.svd(x, full_matrices=False)
        x = vectors * values
    scaled: torch.Tensor = x / torch.linalg.norm(x)
    return scaled


def _leading(x: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis (n, r) of the principal components that keep 99 % of the variance."""
    import torch

    vectors, values, _ = torch.linalg.svd(x, full_matrices=False)
    kept = values.square().cumsum(0) / values.square().sum()
    basis: torch.Tensor = vectors[:, : int((kept < VARIANCE_KEPT).sum()) + 1]
    return basis


def _distance_ranks(x: torch.Tensor) -> torch.Tensor:
    """Ranks of the distances between examples, centred and of unit norm, 0 on the diagonal: (n, n)."""
    import torch

    n = len(x)
    above = torch.triu_indices(n, n, 1, device=x.device)
    squares = x.square().sum(1)
    distances = (squares[:, None] + squares[None, :] - 2 * x @ x.T)[above[0], above[1]]
    distances = _rounded(distances, squares.max())
    _, place, counts = torch.unique(distances, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0)
    ranks = (ends - (counts - 1) / 2).to(x.dtype)[place]
    ranks -= ranks.mean()
    if not ranks.any():
        raise Undefined(EQUIDISTANT)
    matrix = torch.zeros(n, n, dtype=x.dtype, device=x.device)
    matrix[above[0], above[1]] = ranks / (math.sqrt(2) * torch.linalg.norm(ranks))
    return matrix + matrix.T


def _rounded(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """To 1e-11 of the scale: distances that are equal but for rounding are equal."""
    return (values / (scale * 1e-11)).round()


def _neighbours(x: torch.Tensor, k: int = NEIGHBOURS) -> torch.Tensor:
    """(n, n): how much j is one of the k nearest of i, in [0, 1], over √(n·k); each row sums to √(k/n)."""
    import torch

    n = len(x)
    if not 1 <= k < n - 1:
        raise Undefined(f"{k} neighbours are asked for and there are {n} examples")
    norms = torch.linalg.norm(x, dim=1, keepdim=True)
    directions = x / norms.clamp(min=torch.finfo(x.dtype).tiny)
    near = _rounded(directions @ directions.T, x.new_ones(()))
    near.fill_diagonal_(-math.inf)
    edge = near.topk(k, dim=1).values[:, -1:]
    closer, level = near > edge, near == edge
    if bool((level.sum(1) == n - 1).all()):
        raise Undefined(EQUIDISTANT)
    left = (k - closer.sum(1, keepdim=True)) / level.sum(1, keepdim=True)
    return (closer.to(x.dtype) + level * left) / math.sqrt(n * k)


MEASURES: dict[str, Kind] = {
    "cka": Kind(_unbiased_gram, _matrix_scores),
    "biased_cka": Kind(_biased_gram, _matrix_scores),
    "procrustes": Kind(_scaled, _nuclear_scores),
    "rsa": Kind(_distance_ranks, _matrix_scores),
    "mutual_knn": Kind(_neighbours, _matrix_scores, centred=False),
    "svcca": Kind(_leading, _canonical_scores),
}


def _one(measure: str, x: Features, y: Features) -> float:
    import torch

    x, y = _pair(x, y)
    order = torch.arange(len(x), device=x.device)[None]
    prepare = MEASURES[measure].prepare
    return float(MEASURES[measure].score([prepare(x)], [prepare(y)], order)[0, 0, 0])


# HSIC


@dataclass(frozen=True)
class _Hsic:
    """HSIC₁, or a sum of it over batches. xy: (layers of x, layers of y); xx, yy: (layers,); x_size, y_size: (layers,),
    what xx and yy would be if nothing cancelled."""

    xy: torch.Tensor
    xx: torch.Tensor
    yy: torch.Tensor
    x_size: torch.Tensor
    y_size: torch.Tensor

    def __add__(self, other: _Hsic) -> _Hsic:
        return _Hsic(*(own + its for own, its in zip(vars(self).values(), vars(other).values(), strict=True)))


def _hsic(x: Sequence[torch.Tensor], y: Sequence[torch.Tensor]) -> _Hsic:
    """HSIC₁ of every layer with every layer and with itself; layers centred.

    With K = XXᵀ, L = YYᵀ, their diagonals k and l, and centred features (every row of K sums to 0), equation 5 of Song
    et al. (2012) for the matrices without their diagonals becomes
    n (n − 3) HSIC₁ = ⟨K, L⟩ − n / (n − 2) k·l + Σk Σl / ((n − 1) (n − 2)), and ⟨K, L⟩ = ‖XᵀY‖².
    """
    import torch

    n = len(x[0])
    k, l = (torch.stack([torch.linalg.vecdot(layer, layer).double() for layer in layers]) for layers in (x, y))  # noqa: E741
    kl, xx, yy = _inner(x, y)

    def corrected(inner: torch.Tensor, diagonals: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = (inner - n / (n - 2) * diagonals + sums / ((n - 1) * (n - 2))) / (n * (n - 3))
        return result

    return _Hsic(
        xy=corrected(kl, k @ l.T, torch.outer(k.sum(1), l.sum(1))),
        xx=corrected(xx, k.square().sum(1), k.sum(1).square()),
        yy=corrected(yy, l.square().sum(1), l.sum(1).square()),
        x_size=xx / (n * (n - 3)),
        y_size=yy / (n * (n - 3)),
    )


def _inner(x: Sequence[torch.Tensor], y: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """⟨K, L⟩ for all pairs of layers, ⟨K, K⟩ and ⟨L, L⟩."""
    import torch

    if _by_features(x, y):
        crossed = torch.stack([torch.stack([_squares(one.T @ other) for other in y]) for one in x])
        xx, yy = (torch.stack([_squares(layer.T @ layer) for layer in own]) for own in (x, y))
        return crossed, xx, yy
    k, l = (_grams(layers) for layers in (x, y))  # noqa: E741
    # Each row on its own, and the rows added up in float64: a float32 sum over all n² numbers would lose digits.
    crossed = (k.permute(1, 0, 2) @ l.permute(1, 2, 0)).double().sum(0)
    xx, yy = (torch.linalg.vecdot(own, own).double().sum(1) for own in (k, l))
    return crossed, xx, yy


def _grams(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """(layers, n, n)."""
    import torch

    grams = layers[0].new_empty(len(layers), len(layers[0]), len(layers[0]))
    for layer, gram in zip(layers, grams, strict=True):
        torch.mm(layer, layer.T, out=gram)
    return grams


def _squares(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.double().square().sum()


def _by_features(x: Sequence[torch.Tensor], y: Sequence[torch.Tensor]) -> bool:
    n = len(x[0])
    widths = [[layer.shape[1] for layer in layers] for layers in (x, y)]
    features = n * (sum(widths[0]) * sum(widths[1]) + sum(width**2 for own in widths for width in own))
    grams = n**2 * (sum(widths[0]) + sum(widths[1]) + len(x) * len(y))
    return features <= grams or n**2 * (len(x) + len(y)) > _MOST


def _ratio(hsic: _Hsic) -> torch.Tensor:
    for own, size in ((hsic.xx, hsic.x_size), (hsic.yy, hsic.y_size)):
        if not bool((own > 1e-12 * size).all()):
            raise Undefined(EQUIDISTANT)
    ratio: torch.Tensor = hsic.xy / (hsic.xx.sqrt()[:, None] * hsic.yy.sqrt()[None, :])
    return ratio


# Checks


def same_length(layers: Iterable[Features]) -> int:
    """The number of examples. Raises ValueError when it differs between layers."""
    lengths = sorted({len(layer) for layer in layers})
    if len(lengths) != 1:
        raise ValueError(f"features of the same examples have one length, and these have {lengths}")
    return lengths[0]


def checked(features: Features, centre: bool = True, scale: bool = True) -> torch.Tensor:
    """Features as float64, centred, and not far from 1 in size when `scale` is set.

    features: (n, width). Raises Undefined for fewer than 4 examples, numbers that are not finite and features that are
    the same for all examples; ValueError for another shape."""
    return _checked(features, centre, scale, single=False)


def _checked(features: Features, centre: bool, scale: bool, single: bool) -> torch.Tensor:
    """single: float32 features stay what they are, unless their squares would leave its range."""
    import torch

    x = torch.as_tensor(features)
    if x.ndim != 2:
        raise ValueError(f"features are (examples, width), and these are {tuple(x.shape)}")
    if len(x) < FEWEST:
        raise Undefined(f"it takes {FEWEST} examples and there are {len(x)}")
    size = max(abs(float(bound)) for bound in torch.aminmax(x))
    if not math.isfinite(size):
        raise Undefined("some features are not finite")
    fits = 1e-3 <= size <= 1e3
    if not (single and fits and x.dtype == torch.float32):
        x = (x.cpu() if x.device.type == "mps" else x).to(torch.float64)
    if scale and not fits and size:
        x, size = x / size, 1.0
    centred = x - x.mean(0, dtype=torch.float64).to(x.dtype)
    # Equal numbers and their mean may differ by rounding.
    rounding = 4 * torch.finfo(x.dtype).eps * size
    if not torch.dot(centred.reshape(-1), centred.reshape(-1)) > rounding**2 * x.numel():
        raise Undefined("all examples have the same features")
    return centred if centre else x


def _pair(x: Features, y: Features, centre: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    same_length([x, y])
    return checked(x, centre), checked(y, centre)
