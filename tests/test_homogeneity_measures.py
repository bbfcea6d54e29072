"""The contract of measures: what each declares, that they come through the hook, and that none fakes a number."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from zoo.errors import PluginError
from zoo.homogeneity.bootstrap import Bootstrap
from zoo.homogeneity.measures import MEASURES, Kinship, Measure
from zoo.homogeneity.results import Pairs, PerModel, Result, Scalar
from zoo.homogeneity.simulate import SimulatedPanel, Truth, simulate
from zoo.plugins import entry_of, registry

PLAN = Bootstrap(draws=60)


def changed(panel: SimulatedPanel, **parts: object) -> SimulatedPanel:
    return SimulatedPanel(**{**vars(panel), **parts})


def hard_cases() -> dict[str, SimulatedPanel]:
    """The panels on which a careless measure divides by zero or makes something up."""
    plain = simulate(Truth(models=4, replicas=2, examples=120), 0, probabilities=True)
    right = plain.predictions.copy()
    right[2:4] = plain.labels
    rare = np.where(np.arange(120) < 117, 0, 1)
    return {
        "plain": plain,
        "imbalance": changed(plain, labels=rare, predictions=np.where(np.arange(8)[:, None] % 2, rare, 0)),
        "two_classes": simulate(Truth(models=3, replicas=2, examples=120, classes=2), 0, probabilities=True),
        "perfect": changed(plain, predictions=right),
        "all_perfect": changed(plain, predictions=np.tile(plain.labels, (8, 1))),
        "all_equal": changed(plain, predictions=np.tile(plain.predictions[0], (8, 1))),
        "one_example": simulate(Truth(models=3, replicas=2, examples=1), 0, probabilities=True),
        "no_replicas": simulate(Truth(models=2, replicas=1, examples=120), 0, probabilities=True),
        "one_model": simulate(Truth(models=1, replicas=2, examples=120), 0, probabilities=True),
        "no_probabilities": simulate(Truth(models=3, replicas=2, examples=120), 0),
    }


CASES = hard_cases()


def check(result: Result, models: int) -> None:
    """A value, or a reason; an interval only around a value; the right shapes."""
    if isinstance(result, Scalar):
        assert (result.value is not None and np.isfinite(result.value)) or (result.value is None and result.reason)
        assert (result.low is None) == (result.high is None)
        if result.low is not None and result.high is not None:
            assert result.value is not None
            assert result.low <= result.high
    else:
        shape = (models, models) if isinstance(result, Pairs) else (models,)
        assert result.value.shape == result.low.shape == result.high.shape == result.n.shape == shape
        undefined = np.isnan(result.value)
        keys = {key if isinstance(key, tuple) else (key,) for key in result.reasons}
        for place in zip(*np.nonzero(np.triu(undefined) if len(shape) == 2 else undefined), strict=True):
            assert tuple(map(int, place)) in keys, place
        assert all(result.reasons.values())
        assert np.isnan(result.low[undefined]).all()
        known = np.isfinite(result.low)
        assert (result.low[known] <= result.high[known]).all()
        assert not np.isinf(result.value).any()
        if isinstance(result, Pairs):
            np.testing.assert_array_equal(result.value, result.value.T)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cls", MEASURES, ids=lambda cls: cls.name)
def test_every_measure_of_every_hard_panel_is_a_value_or_a_reason(cls, case):
    panel = CASES[case]
    result = cls().compute(panel, PLAN)
    assert isinstance(result, {"pairs": Pairs, "models": PerModel, "set": Scalar}[cls.scope])
    check(result, len(panel.models))
    low, high = cls.range
    values = np.atleast_1d(np.asarray(result.value, dtype=np.float64))
    known = values[np.isfinite(values)]
    assert ((known >= low - 1e-9) & (known <= high + 1e-9)).all()


@pytest.mark.parametrize("cls", MEASURES, ids=lambda cls: cls.name)
def test_measures_do_not_depend_on_the_order_of_examples(cls):
    panel = CASES["plain"]
    order = np.random.default_rng(0).permutation(120)
    moved = changed(
        panel, labels=panel.labels[order], predictions=panel.predictions[:, order],
        probabilities=panel.probabilities[:, order],
    )  # fmt: skip
    plan = Bootstrap(draws=0)  # the correction for bias is made of draws, which do
    np.testing.assert_allclose(
        np.asarray(cls().compute(moved, plan).value), np.asarray(cls().compute(panel, plan).value), atol=1e-8
    )


@pytest.mark.parametrize("cls", MEASURES, ids=lambda cls: cls.name)
def test_measures_leave_the_panel_alone_and_take_one_that_cannot_be_written(cls):
    panel = simulate(Truth(models=3, replicas=2, examples=50), 1, probabilities=True)
    for array in (panel.labels, panel.predictions, panel.probabilities):
        array.flags.writeable = False
    check(cls().compute(panel, PLAN), 3)


@pytest.mark.parametrize("cls", MEASURES, ids=lambda cls: cls.name)
def test_declarations(cls):
    assert cls.needs <= {"labels", "probabilities", "features", "replicas"}
    assert cls.higher_is in ("more alike", "less alike")
    assert cls.range[0] < cls.range[1]
    for text in (cls.title, cls.chance, cls.source, cls.__doc__):
        assert text
    entry_of("measure", cls, "zoo-harness", "1")


def test_the_core_brings_its_measures_through_the_hook():
    assert {cls.name for cls in MEASURES} <= set(registry().entries["measure"])
    assert registry().find("measure", "kinship").cls is Kinship
    assert registry().find("measure", "kinship").summary.startswith("Where a pair stands")


def test_a_plugin_brings_a_measure_of_its_own():
    @dataclass
    class Boldness(Measure):
        """Mean number of classes a model uses."""

        name = "boldness"
        least: int = 1

        def compute(self, panel, bootstrap):
            return Scalar(float(self.least), None, None, len(panel.labels))

    assert entry_of("measure", Boldness, "zoo-bold", "1").summary == "Mean number of classes a model uses."

    @dataclass
    class Empty(Measure):
        """Forgets what matters."""

        name = "empty"

    with pytest.raises(PluginError, match="does not define compute"):
        entry_of("measure", Empty, "zoo-bold", "1")


def test_listing_the_measures_is_cheap():
    code = (
        "import sys, zoo.plugins as p; p.registry().entries['measure']; "
        "print(sorted({'torch', 'scipy', 'sklearn', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={"ZOO_PLUGINS": "", "PATH": "/usr/bin"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
