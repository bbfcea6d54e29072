"""Representation measures: against independent implementations, their invariances, their nulls.

References: ckatorch (`cka_batch`, `cka_base`) and torch_cka for CKA, scipy.spatial.procrustes for Procrustes,
rsatoolbox and scipy.stats.spearmanr for RSA, scikit-learn's NearestNeighbors for mutual k-NN, and the principal angles
of scipy.linalg.subspace_angles (and scikit-learn's CCA for one component) for SVCCA.
"""

from __future__ import annotations

import math
import warnings
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.distance import pdist
from scipy.stats import binomtest, kstest, spearmanr
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from zoo.homogeneity import representation
from zoo.homogeneity.layers import Grid, Name, Null, compare
from zoo.homogeneity.representation import Undefined

NAMES = get_args(Name)

SHAPES = [(60, 5, 8), (60, 40, 50), (30, 100, 20), (20, 64, 96)]
MEASURES = {
    "cka": representation.cka,
    "biased_cka": representation.biased_cka,
    "procrustes": representation.procrustes_similarity,
    "rsa": representation.rsa,
    "mutual_knn": representation.mutual_knn,
    "svcca": representation.svcca,
}


def related(n, p, q, seed=0):
    """Two feature matrices that share some directions, far from the origin."""
    random = np.random.default_rng(seed)
    shared = random.normal(size=(n, 3))
    x = shared @ random.normal(size=(3, p)) + random.normal(size=(n, p)) + 5
    y = shared @ random.normal(size=(3, q)) + random.normal(size=(n, q)) - 2
    return x, y


def rotation(width, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


# Against independent implementations


@pytest.mark.parametrize("shape", SHAPES)
def test_cka_is_ckatorchs(shape):
    from ckatorch import cka_batch

    x, y = related(*shape)
    wanted = float(cka_batch(torch.from_numpy(x)[None], torch.from_numpy(y)[None]))
    assert representation.cka(x, y) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_biased_cka_is_ckatorchs(shape):
    from ckatorch import cka_base

    x, y = related(*shape)
    wanted = float(cka_base(torch.from_numpy(x), torch.from_numpy(y)))
    assert representation.biased_cka(x, y) == pytest.approx(wanted, abs=1e-9)


def test_cka_is_the_estimate_over_distinct_quadruples():
    """Closed form: HSIC₁ is the mean of K_ij (L_ij + L_kl − 2 L_ik) over distinct i, j, k, l (Song et al. 2012)."""
    from itertools import permutations

    x, y = related(7, 3, 4)
    kernels = [x @ x.T, y @ y.T]

    def hsic(k, l):  # noqa: E741
        places = np.array(list(permutations(range(7), 4))).T
        i, j, q, r = places
        return (k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])).mean()

    k, l = kernels  # noqa: E741
    assert representation.cka(x, y) == pytest.approx(hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l)), abs=1e-10)


@pytest.mark.parametrize(("n", "width"), [(200, 8), (40, 90)])
def test_the_grid_is_the_same_by_features_and_by_gram_matrices(n, width, monkeypatch):
    xs = [related(n, width, 4, seed)[0] for seed in range(3)]
    ys = [related(n, 4, width + 1, seed)[1] for seed in range(2)]
    grids = []
    for way in (True, False):
        monkeypatch.setattr(representation, "_by_features", lambda x, y, way=way: way)
        grids.append(representation.cka_grid(xs, ys))
    torch.testing.assert_close(grids[0], grids[1], rtol=0, atol=1e-12)
    assert grids[0][1, 1] == pytest.approx(representation.cka(xs[1], ys[1]), abs=1e-12)


def test_float32_features_cost_less_than_a_millionth():
    xs, ys = ([related(300, 40, 700, seed)[side].astype(np.float32) for seed in range(2)] for side in (0, 1))
    wanted = representation.cka_grid([x.astype(float) for x in xs], [y.astype(float) for y in ys])
    np.testing.assert_allclose(representation.cka_grid(xs, ys), wanted, rtol=0, atol=1e-6)
    assert representation.cka_grid(xs, ys).dtype == torch.float64


def test_the_cheaper_way_is_taken():
    narrow, wide = [torch.zeros(1000, 8)], [torch.zeros(50, 4096)]
    assert representation._by_features(narrow, narrow)
    assert not representation._by_features(wide, wide)


def test_minibatch_cka_is_ckatorchs_and_torch_ckas():
    from ckatorch import cka_batch

    x, y = related(64, 12, 9)
    batches = [(x[start : start + 16], y[start : start + 16]) for start in range(0, 64, 16)]
    wanted = float(cka_batch(torch.from_numpy(np.stack([x for x, _ in batches])),
                             torch.from_numpy(np.stack([y for _, y in batches]))))  # fmt: skip
    assert representation.minibatch_cka(batches) == pytest.approx(wanted, abs=1e-9)
    xs, ys = [x, x[:, :5]], [y, y[:, 3:], x]
    told = representation.minibatch_cka_grid(
        ([layer[start : start + 16] for layer in xs], [layer[start : start + 16] for layer in ys])
        for start in range(0, 64, 16)
    )
    np.testing.assert_allclose(told, torch_cka(xs, ys, 16), rtol=0, atol=1e-9)


class Layers(torch.nn.Module):
    """A network whose layers return given features of the examples that it is asked for."""

    def __init__(self, layers):
        super().__init__()
        self.parts = torch.nn.ModuleDict({f"layer{number}": Table(layer) for number, layer in enumerate(layers)})

    def forward(self, rows):
        for part in self.parts.values():
            part(rows)


class Table(torch.nn.Module):
    def __init__(self, values):
        super().__init__()
        self.register_buffer("values", torch.as_tensor(values))

    def forward(self, rows):
        return self.values[rows]


def torch_cka(xs, ys, batch):
    """torch_cka's grid, in float64."""
    from torch_cka import CKA

    models = [Layers(xs), Layers(ys)]
    names = [[f"parts.layer{number}" for number in range(len(layers))] for layers in (xs, ys)]
    rows = torch.utils.data.TensorDataset(torch.arange(len(xs[0])))
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measured = CKA(*models, "x", "y", *names)
            measured.compare(torch.utils.data.DataLoader(rows, batch))
    finally:
        torch.set_default_dtype(torch.float32)
    return measured.export()["CKA"]


@pytest.mark.parametrize("shape", SHAPES)
def test_procrustes_is_scipys(shape):
    """scipy's disparity of matrices of one shape is 1 − (nuclear norm)²; narrower ones are filled up with zeros."""
    x, y = related(*shape)
    width = max(x.shape[1], y.shape[1])
    wide = [np.pad(z - z.mean(0), ((0, 0), (0, width - z.shape[1]))) for z in (x, y)]
    disparity = scipy_procrustes(*wide)[2]
    assert representation.procrustes_similarity(x, y) == pytest.approx(math.sqrt(1 - disparity), abs=1e-9)
    assert representation.procrustes(x, y) == pytest.approx(math.acos(math.sqrt(1 - disparity)), abs=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_rsa_is_scipys_and_rsatoolboxs(shape):
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare_spearman

    x, y = related(*shape)
    assert representation.rsa(x, y) == pytest.approx(spearmanr(pdist(x), pdist(y)).statistic, abs=1e-9)
    rdms = [calc_rdm(Dataset(z), method="euclidean") for z in (x, y)]
    assert representation.rsa(x, y) == pytest.approx(compare_spearman(*rdms).item(), abs=1e-9)


def test_rsa_ranks_ties_as_scipy_does():
    random = np.random.default_rng(0)
    x, y = random.integers(0, 3, (25, 2)).astype(float), random.integers(0, 2, (25, 3)).astype(float)
    wanted = spearmanr(pdist(x, "sqeuclidean"), pdist(y, "sqeuclidean")).statistic
    assert representation.rsa(x, y) == pytest.approx(wanted, abs=1e-9)
    assert representation.rsa(x @ rotation(2), y) == pytest.approx(wanted, abs=1e-9), "rounding makes no ranks"


@pytest.mark.parametrize("shape", SHAPES)
def test_mutual_knn_is_scikit_learns(shape):
    x, y = related(*shape)
    near = [NearestNeighbors(n_neighbors=10, metric="cosine").fit(z).kneighbors(return_distance=False) for z in (x, y)]
    wanted = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
    assert representation.mutual_knn(x, y) == pytest.approx(wanted, abs=1e-9)


def test_neighbours_that_are_equally_near_share_the_places():
    """Closed form: the mean over ways to break the ties."""
    x = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1.0]])
    # Example 0 has two duplicates and takes one of them at random, in each of two models on its own.
    wanted = (3 * 1 / 2 + 2) / 5
    assert representation.mutual_knn(x, 3 * x, k=1) == pytest.approx(wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_svcca_is_the_mean_cosine_of_the_principal_angles(shape):
    x, y = related(*shape)
    kept = [PCA(n_components=0.99, svd_solver="full").fit_transform(z) for z in (x, y)]
    wanted = np.cos(subspace_angles(*kept)).mean()
    assert representation.svcca(x, y) == pytest.approx(wanted, abs=1e-6)


def test_svcca_of_one_direction_is_scikit_learns_cca():
    x, y = related(200, 1, 4)
    y = y[:, :1]
    one, other = CCA(n_components=1).fit(x, y).transform(x, y)
    assert representation.svcca(x, y) == pytest.approx(abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]), abs=1e-9)


def test_biased_measures_are_far_from_zero_for_unrelated_features():
    """n = 200, width 512: CKA .72, Procrustes similarity .90, and the unbiased CKA about 0."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, 512)), random.normal(size=(200, 512))
    assert representation.biased_cka(x, y) == pytest.approx(0.72, abs=0.01)
    assert representation.procrustes_similarity(x, y) == pytest.approx(0.90, abs=0.01)
    assert representation.svcca(x, y) > 0.95
    assert abs(representation.cka(x, y)) < 0.01


# Properties

shapes = st.tuples(st.integers(13, 40), st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6))


# A single direction has two cosines only, so that its neighbours are all tied.
@given(shapes.filter(lambda shape: min(shape[1:3]) > 1), st.sampled_from(NAMES))
@settings(max_examples=60, deadline=None)
def test_symmetric_in_range_and_one_with_itself(shape, name):
    x, y = related(*shape)
    value = MEASURES[name](x, y)
    low = -1 if name in ("cka", "rsa") else 0
    assert low - 1e-9 <= value <= 1 + 1e-9
    assert MEASURES[name](y, x) == pytest.approx(value, abs=1e-9)
    assert MEASURES[name](x, x) == pytest.approx(1, abs=1e-9)


@given(shapes.filter(lambda shape: min(shape[1:3]) > 1), st.sampled_from(NAMES))
@settings(max_examples=40, deadline=None)
def test_the_order_of_examples_does_not_matter(shape, name):
    x, y = related(*shape)
    order = np.random.default_rng(0).permutation(len(x))
    assert MEASURES[name](x[order], y[order]) == pytest.approx(MEASURES[name](x, y), abs=1e-9)


def transformed(x):
    random = np.random.default_rng(5)
    width = x.shape[1]
    return {
        "rotation": x @ rotation(width),
        "scale": x * 37.5,
        "shift": x + random.normal(size=width) * 10,
        "linear": x @ (rotation(width) * np.geomspace(1, 30, width)),
    }


LEFT_ALONE = {
    "cka": {"rotation", "scale", "shift"},
    "biased_cka": {"rotation", "scale", "shift"},
    "procrustes": {"rotation", "scale", "shift"},
    "rsa": {"rotation", "scale", "shift"},
    "mutual_knn": {"rotation", "scale"},
    "svcca": {"rotation", "scale", "shift"},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", ["rotation", "scale", "shift", "linear"])
def test_what_a_measure_is_left_alone_by_and_what_not(name, change):
    x, y = related(60, 6, 9)
    before, after = MEASURES[name](x, y), MEASURES[name](transformed(x)[change], y)
    assert (abs(after - before) < 1e-9) == (change in LEFT_ALONE[name])


def test_svcca_is_left_alone_by_linear_maps_while_all_components_are_kept():
    x, y = related(60, 6, 9)
    mild = x @ (rotation(6) * np.linspace(1, 1.2, 6))
    assert representation.svcca(mild, y) == pytest.approx(representation.svcca(x, y), abs=1e-9)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_scales_do_not_matter(name, factor):
    x, y = related(40, 6, 9)
    assert MEASURES[name](x * factor, y) == pytest.approx(MEASURES[name](x, y), abs=1e-9)


def test_minibatch_cka_of_one_batch_is_cka_and_order_of_batches_does_not_matter():
    x, y = related(60, 6, 9)
    assert representation.minibatch_cka([(x, y)]) == pytest.approx(representation.cka(x, y), abs=1e-12)
    batches = [(x[:20], y[:20]), (x[20:30], y[20:30]), (x[30:], y[30:])]
    assert representation.minibatch_cka(batches) == pytest.approx(
        representation.minibatch_cka(batches[::-1]), abs=1e-12
    )


def test_unbiased_cka_is_zero_on_average_for_unrelated_features():
    random = np.random.default_rng(3)
    values = [representation.cka(random.normal(size=(20, 40)), random.normal(size=(20, 30))) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))
    assert min(values) < 0


# Undefined


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.ones((20, 3)), "the same features"),
        (np.random.default_rng(0).normal(size=(3, 3)), "takes 4 examples and there are 3"),
        (np.full((20, 3), np.nan), "not finite"),
        (np.full((20, 3), np.inf), "not finite"),
    ],
)
def test_undefined_says_why(name, x, reason):
    y = np.random.default_rng(1).normal(size=(len(x), 4))
    for pair in ((x, y), (y, x)):
        with pytest.raises(Undefined, match=reason):
            MEASURES[name](*pair)


@pytest.mark.parametrize("name", ["cka", "rsa"])
def test_examples_that_are_all_equally_far_apart_are_undefined(name):
    x = np.eye(12)
    with pytest.raises(Undefined, match="same distance apart"):
        MEASURES[name](x, related(12, 3, 3)[0])


def test_neighbours_need_examples_and_differences():
    x, y = related(12, 3, 3)
    with pytest.raises(Undefined, match="11 neighbours are asked for and there are 12"):
        representation.mutual_knn(x, y, k=11)
    with pytest.raises(Undefined, match="same distance apart"):
        representation.mutual_knn(np.eye(12), y, k=3)
    with pytest.raises(Undefined, match="no batches"):
        representation.minibatch_cka([])


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"have \[9, 10\]"):
        representation.cka(np.eye(9), np.eye(10))
    with pytest.raises(ValueError, match=r"are \(examples, width\), and these are \(9, 2, 2\)"):
        representation.cka(np.ones((9, 2, 2)), np.ones((9, 2)))
    with pytest.raises(ValueError, match="no measure 'cca'"):
        compare({}, {}, "cca")  # type: ignore[arg-type]


# Grids


def layers(seed, n=60, widths=(5, 40, 90)):
    random = np.random.default_rng(seed)
    shared = random.normal(size=(n, 3))
    return {
        f"layer{number}": shared @ random.normal(size=(3, width)) + random.normal(size=(n, width))
        for number, width in enumerate(widths)
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_grid_holds_the_measure_of_every_pair_of_layers(name):
    xs, ys = layers(0), layers(1, widths=(7, 30))
    grid = compare(xs, ys, name, Null(permutations=5, groups=0))
    assert grid.value.shape == (3, 2)
    for i, x in enumerate(xs.values()):
        for j, y in enumerate(ys.values()):
            assert grid.value[i, j] == pytest.approx(MEASURES[name](x, y), abs=1e-9)
    assert grid.best_value == np.nanmax(grid.value) == grid.value[grid.best]
    assert (grid.x_layers, grid.y_layers, grid.n) == (tuple(xs), tuple(ys), 60)


@pytest.mark.parametrize("name", NAMES)
def test_the_null_is_the_measure_on_permuted_examples(name):
    """Each draw is what the measure gives when the examples of y are really taken in that order."""
    xs, ys = layers(0), layers(1, widths=(7, 30))
    grid = compare(xs, ys, name, Null(permutations=3, seed=4, groups=0))
    random = np.random.default_rng(4)
    orders = [random.permutation(60) for _ in range(3)]
    wanted = np.array([[[MEASURES[name](x, y[order]) for y in ys.values()] for x in xs.values()] for order in orders])
    np.testing.assert_allclose(grid.null_mean, wanted.mean(0), atol=1e-9)
    assert grid.best_null_mean == pytest.approx(wanted.max((1, 2)).mean(), abs=1e-9)
    assert grid.best_p == (1 + (wanted.max((1, 2)) >= grid.best_value).sum()) / 4


def test_equal_layers_are_found_and_are_significant():
    xs = layers(0, n=100)
    grid = compare(xs, {"other": layers(5, n=100)["layer0"], "same": xs["layer1"] @ rotation(40)})
    assert grid.best == (1, 1)
    assert grid.best_value == pytest.approx(1, abs=1e-5)
    assert grid.best_p == 1 / 201
    assert grid.adjusted == pytest.approx(1, abs=1e-4)
    assert grid.low[1, 1] <= grid.value[1, 1] <= grid.high[1, 1]


def test_a_layer_without_a_value_costs_its_row_only():
    xs = {"dead": np.zeros((60, 4)), **layers(0)}
    grid = compare(xs, layers(1), null=Null(permutations=20, groups=5))
    assert np.isnan(grid.value[0]).all()
    assert np.isfinite(grid.value[1:]).all()
    assert np.isnan(grid.p[0]).all()
    assert set(grid.reasons) == {(0, 0), (0, 1), (0, 2)}
    assert grid.reasons[0, 1] == "layer 'dead': all examples have the same features"
    assert grid.best is not None
    assert grid.best[0] > 0


def test_a_grid_without_any_value_says_so():
    grid = compare({"a": np.zeros((9, 2))}, {"b": np.zeros((9, 2))})
    assert grid.best is None
    assert math.isnan(grid.best_value)
    assert math.isnan(grid.best_p)
    assert set(grid.reasons) == {(0, 0)}


def test_without_permutations_and_groups_there_is_the_value_alone():
    grid = compare(layers(0), layers(1), null=Null(permutations=0, groups=0))
    assert np.isfinite(grid.value).all()
    assert np.isnan(grid.p).all()
    assert np.isnan(grid.low).all()
    assert math.isnan(grid.best_p)


@pytest.mark.parametrize("name", ["cka", "biased_cka", "rsa", "mutual_knn", "procrustes", "svcca"])
def test_p_values_are_uniform_under_the_null_although_the_best_layers_were_chosen(name):
    """Unrelated models with layers of different width, which move the biased measures: 200 studies."""
    if name in ("procrustes", "svcca"):
        studies, widths = 60, (2, 6)
    else:
        studies, widths = 200, (2, 20)
    random = np.random.default_rng(11)
    found = []
    for _ in range(studies):
        xs, ys = ({f"{width}": random.normal(size=(16, width)) for width in widths} for _ in range(2))
        grid: Grid = compare(xs, ys, name, Null(permutations=39, seed=int(random.integers(1 << 30)), groups=0))
        found.append(grid.best_p)
    # A p-value of 39 permutations is a multiple of 1/40; spread over the step it is uniform, but for ties.
    spread = np.array(found) - random.uniform(0, 1 / 40, studies)
    assert kstest(spread, "uniform").pvalue > 0.001 or name == "mutual_knn"
    assert binomtest(int((np.array(found) <= 0.1).sum()), studies, 0.1).pvalue > 0.001 or name == "mutual_knn"
    assert (np.array(found) <= 0.1).mean() < 0.2


def test_the_interval_of_cka_holds_the_truth_at_about_its_rate():
    """Truth: the CKA of the population, from covariances: ‖Σxy‖² / (‖Σx‖ ‖Σy‖)."""
    random = np.random.default_rng(2)
    mix = random.normal(size=(3, 10))
    one, other = mix[:, :4], mix[:, 4:]
    cross, left, right = one.T @ other, one.T @ one + np.eye(4), other.T @ other + np.eye(6)
    truth = (cross**2).sum() / (np.linalg.norm(left) * np.linalg.norm(right))
    held = 0
    for _ in range(200):
        shared = random.normal(size=(150, 3))
        x = shared @ one + random.normal(size=(150, 4))
        y = shared @ other + random.normal(size=(150, 6))
        grid = compare({"x": x}, {"y": y}, null=Null(permutations=0))
        held += bool(grid.low[0, 0] <= truth <= grid.high[0, 0])
    assert 0.88 <= held / 200 <= 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_the_same_on_cuda(name):
    xs, ys = layers(0), layers(1)
    wanted = compare(xs, ys, name, Null(permutations=10))
    there = [{key: torch.from_numpy(value).cuda() for key, value in side.items()} for side in (xs, ys)]
    got = compare(*there, name, Null(permutations=10))
    np.testing.assert_allclose(got.value, wanted.value, atol=1e-9)
    np.testing.assert_allclose(got.null_mean, wanted.null_mean, atol=1e-9)
    np.testing.assert_allclose(got.high, wanted.high, atol=1e-8)
