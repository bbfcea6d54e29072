"""How long the measures of behaviour take, and what memory: `python tests/benchmarks/measures.py`.

1. error consistency and CAPA a pair against lm-sim in the same process, and how far the values differ;
2. intervals for 50 models × 10,000 examples × 1,000 draws;
3. all pairs of 1,000 models × 100,000 examples × 10 classes.
`--calibrate 400` instead: coverage of the intervals and size of the tests on that many simulated panels a truth.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Callable, Collection

import numpy as np
import torch

from zoo.homogeneity import behaviour, kinship, simulate
from zoo.homogeneity.bootstrap import Bootstrap, interval
from zoo.homogeneity.formulas import FORMULAS

LM_SIM_MODELS = 200


def answers(models: int, examples: int, classes: int) -> behaviour.Answers:
    """Made run by run, so that nothing but the panel itself takes memory."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, examples)
    probabilities = np.empty((models, examples, classes), dtype=np.float32)
    predictions = np.empty((models, examples), dtype=np.int64)
    for run in range(models):
        scores = random.standard_exponential((examples, classes), dtype=np.float32)
        scores[np.arange(examples), labels] *= 4
        scores /= scores.sum(axis=1, keepdims=True)
        probabilities[run], predictions[run] = scores, scores.argmax(axis=1)
    return behaviour.Answers(labels, predictions, classes, np.arange(models), probabilities)


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def peak() -> float:
    """Highest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def between_runs(
    many: behaviour.Answers, device: str, names: Collection[str] = tuple(FORMULAS)
) -> dict[str, np.ndarray]:
    """These measures between every two runs, (R, R) each."""
    sums = behaviour.moments(many, Bootstrap(draws=0, device=device), divergence="js_divergence" in names)
    return {name: FORMULAS[name].of(sums).cpu().numpy() for name in names}


def against_lm_sim(examples: int, device: str) -> None:
    """The same pair by both, and ours for as many pairs as it is meant for."""
    from lmsim.metrics import CAPA, EC

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # lm-sim has one
    many = answers(LM_SIM_MODELS, examples, 10)
    names = ("error_consistency", "capa")
    turns = [timed(lambda: between_runs(many, device, names)) for _ in range(5)]
    spent, found = min(turns, key=lambda turn: turn[0])  # the first loads torch's kernels
    assert isinstance(found, dict)
    assert many.probabilities is not None
    torch.set_num_threads(threads)
    each = spent / (LM_SIM_MODELS * (LM_SIM_MODELS - 1) / 2)
    first, second = (list(many.probabilities[run].astype(np.float64)) for run in (0, 1))
    truth = many.labels.tolist()
    for name, theirs in (("error_consistency", EC()), ("capa", CAPA())):
        turns = [timed(lambda theirs=theirs: theirs.compute_k(first, second, truth)) for _ in range(5)]  # type: ignore[misc]
        slow, value = min(turns, key=lambda turn: turn[0])
        assert isinstance(value, float)
        apart = abs(value - found[name][0, 1])
        print(f"  {name}: lm-sim {slow:.3f} s a pair, both here {each:.2e} s a pair: {slow / each:,.0f} ×; "
              f"values differ by {apart:.1e}")  # fmt: skip


TRUTHS = {
    "independent": simulate.Truth(difficulty=0.0),
    "independent given difficulty": simulate.Truth(difficulty=0.36),
    "a pair that shares its own": simulate.Truth(difficulty=0.25, pair=0.2),
    "one recipe under two names": simulate.Truth(same=True),
    "differing accuracies": simulate.Truth(accuracy=(0.6, 0.7, 0.85, 0.9)),
    "few examples and replicas": simulate.Truth(examples=300, replicas=2),
}


def calibrate(panels: int) -> None:
    """Coverage of the 95 % intervals over all pairs, and how often each test rejects at 5 %."""
    plan = Bootstrap(draws=300)
    for name, truth in TRUTHS.items():
        pairs = np.triu_indices(truth.models, k=1)
        phi = truth.error_correlation()
        true = kinship.attenuation_corrected(phi)
        rows = []
        for seed in range(panels):
            panel = simulate.simulate(truth, seed)
            found = kinship.Correlations.of(panel, plan)  # type: ignore[arg-type]
            k, e = (measure(panel, plan) for measure in (kinship.kinship, kinship.excess_kinship))  # type: ignore[arg-type]
            low, high = interval(found.draws, plan.confidence)
            recipes = kinship.recipe_diversity(panel, plan)  # type: ignore[arg-type]
            claims = kinship.claims(panel, plan)  # type: ignore[arg-type]
            size = float(kinship.vendi_score(true))
            excess = kinship.excess(true)
            rows.append([
                ((low <= phi) & (phi <= high))[pairs].mean(),
                ((k.low <= true) & (true <= k.high))[pairs].mean(), (k.value - true)[pairs].mean(),
                ((e.low <= excess) & (excess <= e.high))[pairs].mean(), (e.value - excess)[pairs].mean(),
                (recipes.low or 0) <= size <= (recipes.high or 0), (recipes.value or 0) - size,
                claims.more_than_replicas[0, 1] < 0.05, (claims.less_than_independent[pairs] < 0.05).mean(),
            ])  # fmt: skip
        means = np.nanmean(np.array(rows, dtype=np.float64), axis=0)
        print(f"  {name} ({truth.models} models, {truth.replicas} replicas, {truth.examples} examples)\n"
              f"    φ covered {means[0]:.3f}; kinship {means[1]:.3f}, bias {means[2]:+.3f}; excess {means[3]:.3f}, "
              f"bias {means[4]:+.3f}; recipe diversity {means[5]:.3f}, bias {means[6]:+.3f}; "
              f"p < .05: replicas {means[7]:.3f}, independent {means[8]:.3f}", flush=True)  # fmt: skip


def main() -> None:
    """Print everything, with the machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--calibrate", type=int, default=0)
    options = parser.parse_args()
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine()
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, numpy {np.__version__}")
    if options.calibrate:
        calibrate(options.calibrate)
        return
    print("1. lm-sim")
    against_lm_sim(2000, options.device)
    few = answers(50, 10_000, 10)
    spent, _ = timed(lambda: behaviour.compute(few, Bootstrap(draws=1000, device=options.device)))
    print(f"2. 50 models × 10,000 examples × 1,000 draws, all measures: {spent:.1f} s, peak {peak():.2f} GiB")
    many = answers(options.models, options.examples, 10)
    spent, _ = timed(lambda: between_runs(many, options.device))
    print(f"3. all pairs of {options.models:,} models × {options.examples:,} examples × 10 classes: {spent:.1f} s, "
          f"peak {peak():.2f} GiB with the panel")  # fmt: skip


if __name__ == "__main__":
    main()
