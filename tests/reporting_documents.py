"""Findings made up for the tests of the report: plausible numbers from a simulated panel, in the form of the schema."""

from __future__ import annotations

import base64
import io
import math
from itertools import combinations, combinations_with_replacement
from typing import Any, get_args

import numpy as np

from zoo.homogeneity.results import NO_REPLICAS
from zoo.reporting.schema import WarningCode, estimate, number, undefined

HOSTILE = (
    "<script>window.hacked=1</script>",
    "\"'><img src=x onerror=window.hacked=2>",
    "</script><script>window.hacked=3</script>",
    "{{7*7}}${7*7}{% raw %}{model}",
    "datum.value + toString(window) ; signal('x')",
    "\u202egnp.exe مرحبا بالعالم",
    "🦊🦊 ünïcödé 模型 \u2028\u2029\x00\ud83d",
    '=HYPERLINK("http://example.invalid","x")',
    "very_long_" * 60,
    "a|b`c`*d*[e](http://example.invalid)\n# heading",
    "__proto__",
)


def document(models: int = 4, seeds: int = 3, examples: int = 400, **options: Any) -> dict[str, Any]:
    """A whole document. options: `names`, `content` (`text`, `image` or None), `layers` (how many a model),
    `hostile` (a string put wherever text may stand)."""
    rng = np.random.default_rng(7)
    names = options.get("names") or (["mlp", "cnn", "transformer", "bert"] * 99)[:models]
    names = [name if names.index(name) == at else f"{name}-{at}" for at, name in enumerate(names)]
    hostile = options.get("hostile")
    classes = [hostile, "positive"] if hostile else ["negative", "positive"]
    hard = rng.normal(size=examples)
    own = rng.normal(size=(models, examples))
    level = np.linspace(0.6, 1.2, models)[:, None]
    right = 0.9 * hard + 0.55 * own + level > 0
    labels = rng.integers(0, 2, examples)
    answers = np.where(right, labels, 1 - labels)
    accuracy = right.mean(1)
    phi = np.clip(np.corrcoef(right), -1, 1) if models > 1 else np.ones((1, 1))
    kinship = np.clip(phi * 1.4, -0.1, 1.05)
    np.fill_diagonal(kinship, 1)
    replicas = seeds > 1 and models > 1

    def kin(a: int, b: int) -> dict[str, Any]:
        return interval(kinship[a, b], 0.06, examples) if replicas else undefined(NO_REPLICAS)

    wrong_in_both = {(a, b): np.flatnonzero(~right[a] & ~right[b]) for a, b in combinations(range(models), 2)}
    differing = {(a, b): np.flatnonzero(answers[a] != answers[b]) for a, b in combinations(range(models), 2)}
    all_fail = np.flatnonzero(~right.any(0))
    pairs = [
        {
            "a": a,
            "b": b,
            "measures": pair_numbers(a, b, right, answers, kin(a, b), seeds),
            "p_values": None if a == b else claims(kinship[a, b], replicas),
            "differing": None if a == b else listed(differing[a, b]),
            "failed_together": None if a == b else listed(wrong_in_both[a, b]),
        }
        for a, b in combinations_with_replacement(range(models), 2)
    ]
    used = {
        id_ for pair in pairs for kind in ("differing", "failed_together") if pair[kind] for id_ in pair[kind]["ids"]
    }
    used |= {example_id(index) for index in all_fail}
    content = options.get("content", "text")
    made = {
        "schema_version": 2,
        "title": hostile or "sentiment · rotten_tomatoes",
        "created": "2026-01-31T12:00:00Z",
        "zoo_version": "0.1.0",
        "command": [
            "python",
            "-m",
            "zoo.report",
            "study=runs/sentiment/rotten_tomatoes",
            *([hostile] if hostile else []),
        ],
        "examples_included": content is not None,
        "study": {
            "task": hostile or "sentiment",
            "dataset": hostile or "rotten_tomatoes",
            "modality": "image" if content == "image" else "text",
            "classes": classes,
            "examples": examples,
            "fingerprint": "3f" * 16,
        },
        "headline": the_headline(models, pairs, replicas, examples, len(all_fail)),
        "models": [model(at, names[at], float(accuracy[at]), models, seeds, examples) for at in range(models)],
        "measures": measures(hostile),
        "pairs": pairs,
        "set_measures": {
            "ambiguity": interval(0.31, 0.03, examples),
            "rashomon_capacity": undefined("it needs the probabilities of every run, and some run has none"),
        },
        "map": the_map(kinship if replicas else phi),
        "failures": the_failures(right, all_fail, hostile, classes),
        "diversity": the_diversity(right, accuracy, examples),
        "representations": the_layers(models, options.get("layers", 3), hostile),
        "examples": {
            example_id(index): {
                "label": classes[labels[index]],
                "predictions": [classes[answer] for answer in answers[:, index]],
                "text": (hostile or f"A film so dull that example {index} outlasts it, if only just.")
                if content == "text"
                else None,
                "png": picture(index) if content == "image" else None,
            }
            for index in range(examples)
            if example_id(index) in used
        },
        "left_out": [
            {
                "what": hostile or "mlp, seed 9",
                "folder": hostile or "runs/sentiment/rotten_tomatoes/mlp/0f3c",
                "code": "incomplete",
                "why": hostile or "not complete: failed",
                "reason": hostile or "TrainingError: the loss is not finite",
            }
        ],
        "method": {
            "draws": 1000,
            "confidence": 0.95,
            "permutations": 200,
            "correction": "Benjamini-Yekutieli",
            "calibrated": True,
            "seed": 0,
        },
        "provenance": {
            "runs": [
                {
                    "model": at,
                    "seed": seed,
                    "key": f"{at:04x}{seed:04x}" * 8,
                    "folder": hostile or f"runs/sentiment/rotten_tomatoes/{names[at]}/{seed}",
                    "environment": 0,
                    "parent": None,
                    "imported": False,
                }
                for at in range(models)
                for seed in range(seeds)
            ],
            "environments": [
                {
                    "zoo_version": "0.1.0",
                    "versions": {"torch": hostile or "2.13.0", "python": "3.12.3"},
                    "plugins": {hostile or "zoo-mlp": "0.1.0"},
                    "hardware": {"device": "cpu", "threads": "2"},
                }
            ],
            "commands": [
                ["python", "-m", "zoo.run", "-m", "model=mlp,cnn,transformer,bert", "task=sentiment", "seed=0,1,2"]
            ],
        },
    }
    if replicas:
        made["recipe_diversity"] = interval(1.4, 0.1, examples)
    return made


def the_headline(models: int, pairs: list[dict[str, Any]], replicas: bool, examples: int, joint: int) -> dict[str, Any]:
    """Both numbers, and the pairs at the ends of the scale."""
    measure = "kinship" if replicas else "error_correlation"
    others = [pair for pair in pairs if pair["a"] != pair["b"]]
    ranked = sorted(others, key=lambda pair: -(pair["measures"][measure]["value"] or 0))
    ends = [{"a": pair["a"], "b": pair["b"], "likeness": pair["measures"][measure]} for pair in ranked]
    votes, together = (
        (estimate(1.6, 1.48, 1.72, examples), estimate(2.1, 1.9, 2.3, examples))
        if models > 1
        else (estimate(None, n=examples, reason="two models at least are needed, and there is one"),) * 2
    )
    return {
        "models": models,
        "effective_models": votes,
        "joint_failure": together,
        "joint_failures": float(joint),
        "left_out": [],
        "warnings": [],
        "measure": measure,
        "most_alike": ends[0] if ends else None,
        "least_alike": ends[-1] if len(ends) > 1 else None,
    }


def warned(made: dict[str, Any], hostile: str | None = None) -> dict[str, Any]:
    """The document with every warning that there is, and two models that do not count."""
    names = [hostile or "mlp, seed 3 (runs/sentiment/rotten_tomatoes/mlp/0f3c)", "cnn, seed 5"]
    made["headline"]["warnings"] = [
        {
            "code": code,
            "count": None if code == "few_failures" else 12,
            "names": names if code in ("damaged", "replaced", "fewer_examples", "not_comparable") else [],
            "runs": [0, 4] if code in ("made_from", "imported") else [],
        }
        for code in get_args(WarningCode)
    ]
    reasons = ("constant", "perfect", "always_wrong")
    made["headline"]["left_out"] = [{"model": model, "why": why} for model, why in enumerate(reasons)]
    made["headline"]["models"] -= 3
    return made


def against_label(made: dict[str, Any]) -> dict[str, Any]:
    """The document with wrong answers that most models share."""
    listed = [{"id": item["id"], "answer": "positive", "models": 3} for item in made["failures"]["every_model_fails"]]
    made["failures"]["against_label"] = {"total": len(listed), "listed": listed}
    return made


def undefined_everywhere() -> dict[str, Any]:
    """Two models with one seed each on one example: nothing that may be undefined is defined."""
    found = document(models=2, seeds=1, examples=40)
    for pair in found["pairs"]:
        pair["measures"] = {name: undefined("it takes 4 examples and there are 1") for name in pair["measures"]}
    for model_ in found["models"]:
        model_["metrics"] = {"accuracy": undefined("no test example")}
        model_["cost"] = dict.fromkeys(model_["cost"])
    nothing = undefined("it takes 4 examples and there are 1")
    found["headline"] |= {
        "effective_models": {**nothing, "bound": None},
        "joint_failure": {**nothing, "bound": None},
        "most_alike": None,
        "least_alike": None,
    }
    found["map"] = {key: [] for key in found["map"]} | {"explained": None, "reason": "it takes 4 examples"}
    found["failures"] |= {
        "distribution": [],
        "observed": nothing,
        "expected": nothing,
        "log_ratio": nothing,
        "total": 0,
        "every_model_fails": [],
    }
    found["diversity"] |= {key: nothing for key in found["diversity"] if key not in ("best_model", "contributions")}
    found["diversity"]["contributions"] = []
    found["representations"] = {"probe": None, "grids": [], "reason": "no run kept features"}
    return found


def benched(made: dict[str, Any], hostile: str | None = None) -> dict[str, Any]:
    """The document with three benches: one with ties, one of other hardware, one without a noise floor."""

    def entry(at: int, front: bool | None) -> dict[str, Any]:
        opaque, ranked = undefined(hostile or "an opaque model"), front is not None
        return {
            "model": at,
            "seed": 0,
            "latency_ms": interval(0.2 * 4**at, 0.01, 400),
            "latency_p95_ms": interval(0.4 * 4**at, 0.02, 400),
            "latency_p99_ms": undefined("40 calls are too few: it needs 100", 40),
            "latency_rank": at + 1 if ranked else None,
            "samples_per_sec": interval(20_000 / 4**at, 50 / 4**at, 40),
            "batch_size": 64,
            "rank": max(1, at) if ranked else None,
            "front": front,
            "memory_mib": number(12.5 * (at + 1), n=1),
            "gmacs": opaque if at == 0 else number(0.003 * at, n=32),
            "matmul_share": opaque if at == 0 else interval(0.4, 0.02, 40),
            "energy_joules": undefined("the processor reports no energy to NVML"),
            "vs_reference": opaque if at == 0 else interval(1.02, 0.01, 40),
            "seconds_to_target": undefined("never reached: at best 0.731") if at == 1 else number(3.5, n=1),
        }

    models = range(len(made["models"]))
    first = {
        "device": hostile or "cpu, fp32, 2 threads",
        "where": hostile or "abacus, 2 cores",
        "made": "2026-01-31T12:00:00Z",
        "repetitions": 40,
        "floor": 1.03,
        "latency_floor": 1.05,
        "target": 0.8,
        "apart": None,
        "models": [entry(at, at != 1) for at in models],
    }
    other = {**first, "apart": hostile or "measured on other hardware", "models": [entry(0, True)]}
    untold = {**first, "apart": "measured on another device, or under other conditions", "floor": None, "target": None}
    made["benches"] = [first, other, {**untold, "models": [entry(at, None) for at in models]}]
    return made


def related(made: dict[str, Any], hostile: str | None = None) -> dict[str, Any]:
    """The document with a lineage: a copy, a tree of three, replicas that are alike, a run without weights."""
    runs, models = made["provenance"]["runs"], len(made["models"])
    owners = [run["model"] for run in runs]
    both: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for two in range(len(runs)):
        for one in range(two):
            both.setdefault((owners[one], owners[two]), []).append((one, two))
    verdicts = [{"copy": 1}, {"derived": 2, "undetermined": 1}, {"common ancestor": 3}, {"convergent": 2}, {}]

    def pair(place: int, a: int, b: int, of: list[tuple[int, int]]) -> dict[str, Any]:
        counts = {name: min(count, len(of)) for name, count in verdicts[min(place, 4)].items()}
        rest = len(of) - sum(counts.values())
        counts |= {"undetermined": counts.get("undetermined", 0) + rest} if rest > 0 else {}
        tested = place < 4
        return {
            "a": a,
            "b": b,
            "run_pairs": len(of),
            "tested": len(of) if tested else 0,
            "verdicts": counts,
            "strongest": tests(hostile)[place] if tested else None,
            "strongest_runs": list(of[0]) if tested else None,
            "reason": None if tested else hostile or "No tensor of the one has a counterpart in the other.",
            "note": (hostile or "all its runs hold the same weights: its seed changes nothing") if place == 0 else None,
            "on_record": 0,
            "unexplained": sum(counts.get(name, 0) for name in ("copy", "derived", "common ancestor")) if place else 0,
        }

    def listed_(a: int, b: int, verdict: str) -> dict[str, Any]:
        return {
            "a": a,
            "b": b,
            "verdict": verdict,
            "strength": "exact",
            "statement": hostile or "Every number is the other's, pruned. No test finds shared weights.",
            "later": b,
            "on_record": hostile,
            "child": None,
            "explained": "no randomness" if verdict == "copy" else None,
            "evidence": tests(hostile),
        }

    last = len(runs) - 1
    made["lineage"] = {
        "q": 0.05,
        "correction": "Benjamini-Yekutieli",
        "exact_tests": 12,
        "runs": len(runs),
        "run_pairs": len(runs) * last // 2,
        "tested": 9,
        "on_record": [],
        "pairs": [pair(place, *key, of) for place, (key, of) in enumerate(sorted(both.items()))],
        "listed": [listed_(0, 1, "copy"), listed_(1, 2, "derived"), listed_(0, last, "convergent")],
        "tree": [
            {"child": 1, "parent": 0, "verdict": "copy", "distance": 0.0, "direction": "unknown"},
            {"child": 2, "parent": 1, "verdict": "derived", "distance": 0.2, "direction": "information lost"},
        ],
        "lacking": [{"run": last, "reason": hostile or "the run keeps no weights"}],
    }
    assert models > 1
    return made


def answered(made: dict[str, Any], hostile: str | None = None, references: int | None = 4) -> dict[str, Any]:
    """The document with a lineage of weights and answers; the models of the fifth pair answer alike. references: of the
    pairs that these calibrate, None for no such pair."""
    found = related(made, hostile)["lineage"]
    found["answers"] = {
        "compared": found["run_pairs"] - 1,
        "calibrated": 0 if references is None else 20,
        "references": references or 0,
        "needed": 19,
        "needed_together": 1439,
    }
    runs = [run["model"] for run in made["provenance"]["runs"]]
    for place, pair in enumerate(found["pairs"]):
        two = [at for at, model in enumerate(runs) if model in (pair["a"], pair["b"])][::-1][:2]
        rate = {"wrong": two[0], "repeats": two[1], "value": 0.625, "low": 0.47, "high": 0.758, "n": 40}
        pair["answers"] = {
            "compared": pair["run_pairs"],
            "calibrated": 0 if references is None else 2,
            "references": references or 0,
            "repeated": None if place == 2 else rate,
            "mean": None if place == 2 else 0.5,
            "reason": hostile or "it is unknown on what data bert was trained" if references is None else None,
        }
    found["pairs"][4] |= {"verdicts": {"behaviourally derived": 1, "undetermined": 8}, "strongest": answers(hostile)[2]}
    alike = {**found["listed"][0], "a": 3, "b": 5, "verdict": "behaviourally derived", "strength": "conformal"}
    found["listed"].append({**alike, "statement": hostile or ALIKE, "later": None, "explained": None})
    for listed in found["listed"]:
        listed["evidence"] = [*tests(hostile), *answers(hostile)]
    return made


ALIKE = (
    "Their answers are more alike than 19 same-data references of mlp (residual correlation 0.800, highest of a "
    "reference 0.200, n = 400 examples, p = 0.05, 0.05 over all calibrated pairs). Weights do not decide it. No tensor "
    "of the one has a counterpart in the other."
)


def answers(hostile: str | None) -> list[dict[str, Any]]:
    """The rows of evidence of the black box."""
    plain = {"kind": "heuristic", "null": None, "p": None, "log10_p": None, "corrected": None}
    alone = hostile or "a rate alone, which shared data raise, too"
    rate = {**plain, "test": "B1", "statistic": 0.625, "low": 0.47, "high": 0.758, "n": 40, "reason": alone}
    none = {"statistic": None, "low": None, "high": None, "n": 0, "reason": "it makes no error on 400 examples"}
    residual = {
        "test": "B2",
        "title": hostile or "residual correlation of answers",
        "kind": "conformal",
        "null": hostile or "the one was trained on its data independently of the other",
        "p": 0.05,
        "log10_p": math.log10(0.05),
        "corrected": 0.05,
        "statistic": 0.8,
        "n": 400,
        "reason": hostile or "against 19 references of mlp, the most alike of which scores 0.200",
    }
    return [
        {**rate, "title": hostile or "wrong answers of the first that the second repeats"},
        {**rate, **none, "title": hostile or "wrong answers of the second that the first repeats"},
        residual,
    ]


def recorded(made: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """The document with a lineage in which the second run is on record to be made out of the first. changed: of what is
    recorded."""
    found = related(made)["lineage"]
    told = {"child": 1, "parent": 0, "label": "mlp", "seed": 0, "steps": ["prune:0.5", "permute"], "against": None}
    row = {**tests(None)[0], "test": "record", "title": "the record of the run", "kind": "on record", "n": None,
           "statistic": None, "reason": "prune:0.5, permute"}  # fmt: skip
    found["on_record"] = [told | changed]
    found["pairs"][0] |= {"on_record": 1, "strongest": row, "note": None}
    found["listed"][0] |= {"child": 1, "explained": "on record", "evidence": [row, *tests(None)]}
    found["tree"][0]["direction"] = "on record"
    return made


def unrelated(made: dict[str, Any], tested: int | None) -> dict[str, Any]:
    """The document with a lineage in which no weights are shared. tested: pairs of runs of different models, None for
    all; of a model's own runs all were, unless none was."""
    found, left = related(made)["lineage"], tested
    for pair in found["pairs"]:
        pair |= {"verdicts": {"undetermined": pair["run_pairs"]}, "note": None, "unexplained": 0}
        pair["tested"] = 0 if tested == 0 else pair["run_pairs"]
        if left is not None and pair["a"] != pair["b"]:
            pair["tested"] = min(left, pair["run_pairs"])
            left -= pair["tested"]
        pair |= {} if pair["tested"] else {"strongest": None, "strongest_runs": None}
        pair["reason"] = None if pair["tested"] else "No tensor of the one has a counterpart in the other."
    found |= {"listed": [], "tree": [], "lacking": [], "tested": sum(pair["tested"] for pair in found["pairs"])}
    return made


def tests(hostile: str | None) -> list[dict[str, Any]]:
    """One row of evidence for each test."""
    names = ("numbers", "R1", "R2", "R3")
    kinds, ps = ("exact", "exact", "exact", "conformal"), (None, 1e-30, 0.02, 0.2)
    return [
        {
            "test": hostile if hostile and name == "R3" else name,
            "title": hostile or "the same numbering of hidden units",
            "kind": kind,
            "null": None if p is None else hostile or "the two were initialised and trained independently",
            "p": p,
            "log10_p": None if p is None else math.log10(p),
            "corrected": p,
            "statistic": None if name == "R2" else 0.4321,
            "n": 96,
            "reason": hostile if name == "R3" else None,
        }
        for name, kind, p in zip(names, kinds, ps, strict=True)
    ]


def interval(value: float, half: float, n: int) -> dict[str, Any]:
    """A number with an interval of that half width."""
    return number(float(value), float(value) - half, float(value) + half, n)


def example_id(index: int) -> str:
    """The id of an example: like a hash."""
    return f"{index * 2654435761 % 2**32:08x}" * 4


def listed(indices: np.ndarray) -> dict[str, Any]:
    """An ExampleList of at most twelve."""
    return {"total": len(indices), "ids": [example_id(index) for index in indices[:12]]}


def picture(index: int) -> str:
    """A small PNG, base64."""
    from PIL import Image

    pixels = np.random.default_rng(index).integers(0, 255, (14, 14), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def claims(kinship: float, replicas: bool) -> dict[str, Any]:
    """P-values that fit a kinship."""
    p = float(min(1.0, math.exp(-8 * abs(kinship)))) if replicas else None
    reason = None if replicas else NO_REPLICAS
    return {
        "more_alike_than_replicas": {"raw": p, "corrected": p and min(1.0, p * 4), "reason": reason},
        "less_than_independent": {"raw": p and 1 - p, "corrected": p and 1.0, "reason": reason},
    }


def pair_numbers(
    a: int, b: int, right: np.ndarray, answers: np.ndarray, kin: dict[str, Any], seeds: int
) -> dict[str, Any]:
    """The measures of one pair, or of one model's replicas."""
    n = right.shape[1]
    if a == b:
        base = interval(0.6, 0.05, n) if seeds > 1 else undefined(NO_REPLICAS)
        return {"error_consistency": base, "error_correlation": base, "agreement": base}
    agreement, same = (answers[a] == answers[b]).mean(), (right[a] == right[b]).mean()
    expected = right[a].mean() * right[b].mean() + (1 - right[a].mean()) * (1 - right[b].mean())
    kappa = (same - expected) / (1 - expected)
    return {
        "kinship": kin,
        "excess_kinship": interval(kappa - 0.3, 0.08, n)
        if len(right) > 3 and seeds > 1
        else undefined("needs four models"),
        "error_consistency": interval(kappa, 0.05, n),
        "error_correlation": interval(kappa, 0.05, n),
        "excess_error_correlation": interval(kappa - 0.2, 0.05, n)
        if len(right) > 3
        else undefined("needs four models"),
        "shared_wrong_answers": undefined("of two classes, two wrong answers are always the same"),
        "agreement": interval(agreement, 0.03, n),
        "both_wrong_agreement": undefined("of two classes, two wrong answers are always the same"),
        "disagreement": interval(1 - agreement, 0.03, n),
        "js_divergence": number(0.11, 0.10, 0.12, n, "from a random sample of 200 of 400 examples"),
    }


def measures(hostile: str | None) -> list[dict[str, Any]]:
    """Descriptions of the measures above, and of a plugin's."""
    known = [
        (
            "kinship",
            "Kinship",
            "pairs",
            ["labels", "replicas"],
            "more alike",
            [None, None],
            "0",
            "mean φ / √(rel · rel)",
            "Spearman 1904",
        ),
        (
            "excess_kinship",
            "Excess kinship",
            "pairs",
            ["labels", "replicas"],
            "more alike",
            [None, None],
            "0",
            "K − λλ",
            "",
        ),
        (
            "error_consistency",
            "Error consistency κ",
            "pairs",
            ["labels"],
            "more alike",
            [-1, 1],
            "0",
            "(o − e) / (1 − e)",
            "Geirhos et al. 2020",
        ),
        (
            "error_correlation",
            "Error correlation φ",
            "pairs",
            ["labels"],
            "more alike",
            [-1, 1],
            "0",
            "Pearson of c",
            "",
        ),
        (
            "excess_error_correlation",
            "Excess error correlation",
            "pairs",
            ["labels"],
            "more alike",
            [None, None],
            "0",
            "φ − λλ",
            "",
        ),
        ("shared_wrong_answers", "Shared wrong answers", "pairs", ["labels"], "more alike", [None, 1], "0", "", ""),
        ("agreement", "Agreement", "pairs", [], "more alike", [0, 1], "depends on accuracy", "mean[ŷ = ŷ]", ""),
        (
            "both_wrong_agreement",
            "Same wrong answer",
            "pairs",
            ["labels"],
            "more alike",
            [0, 1],
            "1/(C − 1)",
            "P(ŷ = ŷ | both wrong)",
            "",
        ),
        ("disagreement", "Disagreement", "pairs", [], "less alike", [0, 1], None, "mean[ŷ ≠ ŷ]", ""),
        (
            "js_divergence",
            hostile or "Jensen-Shannon divergence",
            "pairs",
            ["probabilities"],
            "less alike",
            [0, 1],
            None,
            hostile or "bits",
            "",
        ),
        ("ambiguity", "Ambiguity", "set", ["labels"], "less alike", [0, 1], None, "share", "Marx et al. 2020"),
        (
            "rashomon_capacity",
            "Rashomon capacity",
            "set",
            ["probabilities"],
            "less alike",
            [1, None],
            "1",
            "2^capacity",
            "Hsu and Calmon 2022",
        ),
    ]
    keys = ("name", "title", "scope", "needs", "higher_is", "range", "chance", "formula", "source")
    return [
        {**dict(zip(keys, entry, strict=True)), "accuracy_adjusted": entry[8] != "", "note": hostile} for entry in known
    ]


def model(at: int, name: str, accuracy: float, models: int, seeds: int, examples: int) -> dict[str, Any]:
    """One model; the best has rank 1."""
    return {
        "name": name,
        "backend": name.split("-")[0][:20],
        "recipe": {"hidden": "[512]"} if at == 1 else {},
        "seeds": list(range(seeds)),
        "metrics": {
            "accuracy": interval(accuracy, 0.02, examples),
            "macro_f1": interval(accuracy - 0.01, 0.02, examples),
        },
        "rank": 1 + (models - 1 - at) // 2,
        "reliability": interval(0.62, 0.04, examples) if seeds > 1 else undefined(NO_REPLICAS),
        "cost": {
            "param_count": 200_000 * (at % 7 + 1) ** 2,
            "train_seconds": 4.2 * 3 ** (at % 7),
            "train_samples_per_sec": 9000 / 3 ** (at % 7),
            "infer_samples_per_sec": 30000 / 3 ** (at % 7),
            "peak_memory_mib": 512.0 + at,
            "device": "cpu, 2 threads",
        },
        "measures": {},
    }


def the_map(likeness: np.ndarray) -> dict[str, Any]:
    """Classical scaling and average linkage, or the reason why not."""
    empty = {"models": [], "coordinates": [], "explained": None, "merges": [], "leaf_order": []}
    if len(likeness) < 2:
        return {**empty, "reason": "two models at least are needed, and there is one"}
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = np.clip(1 - likeness, 0, None)
    np.fill_diagonal(distance, 0)
    centre = np.eye(len(distance)) - 1 / len(distance)
    values, vectors = np.linalg.eigh(-0.5 * centre @ distance**2 @ centre)
    points = vectors[:, ::-1][:, :2] * np.sqrt(np.clip(values[::-1][:2], 0, None))
    steps = linkage(squareform(distance, checks=False), "average")
    return {
        "models": list(range(len(likeness))),
        "coordinates": points.tolist(),
        "explained": 0.87,
        "merges": [
            {"left": int(left), "right": int(right), "height": float(height)} for left, right, height, _ in steps
        ],
        "leaf_order": leaves_list(steps).tolist(),
        "reason": None,
    }


def the_failures(right: np.ndarray, all_fail: np.ndarray, hostile: str | None, classes: list[str]) -> dict[str, Any]:
    """Failures together, and the binomial-like expectation by convolution."""
    models, examples = right.shape
    observed = np.bincount((~right).sum(0), minlength=models + 1) / examples
    expected = np.ones(1)
    for rate in 1 - right.mean(1):
        expected = np.convolve(expected, [1 - rate, rate])
    share = float(observed[-1])
    ratio = math.log(share / expected[-1]) if share else None
    return {
        "distribution": [
            {"models": k, "observed": interval(observed[k], 0.01, examples), "expected": float(expected[k])}
            for k in range(models + 1)
        ],
        "observed": interval(share, 0.01, examples),
        "expected": number(float(expected[-1]), None, None, examples),
        "log_ratio": number(ratio, None, None, examples, None if ratio is not None else "no example is failed by all"),
        "total": len(all_fail),
        "every_model_fails": [
            {
                "id": example_id(index),
                "suspected_wrong_label": at < 2,
                "suggested_label": classes[at % 2] if at < 2 else None,
                "why": hostile or (("all_agree", "all_agree_confident")[at] if at < 2 else None),
            }
            for at, index in enumerate(all_fail[:30])
        ],
    }


def the_diversity(right: np.ndarray, accuracy: np.ndarray, examples: int) -> dict[str, Any]:
    """Vote and oracle beside independence."""
    best, oracle = float(accuracy.max()), float(right.any(0).mean())
    vote = float((right.mean(0) > 0.5).mean())
    return {
        "best_model": int(accuracy.argmax()),
        "best": interval(best, 0.02, examples),
        "vote": interval(vote, 0.02, examples),
        "oracle": interval(oracle, 0.015, examples),
        "vote_independent": number(min(0.99, best + 0.06), None, None, examples),
        "oracle_independent": number(float(1 - np.prod(1 - accuracy)), None, None, examples),
        "vote_gain": interval(vote - best, 0.01, examples),
        "oracle_gap": interval(oracle - best, 0.01, examples),
        "contributions": [
            {
                "model": at,
                "oracle": interval(0.004 * at, 0.003, examples),
                "vote": interval(0.002 - 0.003 * at, 0.004, examples),
                "effective": interval(0.1 + 0.05 * (at % 5), 0.04, examples),
            }
            for at in range(len(right))
        ],
    }


def the_layers(models: int, layers: int, hostile: str | None) -> dict[str, Any]:
    """Grids that grow more alike with depth."""
    if models < 2 or not layers:
        return {"probe": None, "grids": [], "reason": "no run kept features"}
    names = [hostile or f"layer.{layer}" for layer in range(layers)]
    grids = [
        {
            "a": a,
            "b": b,
            "layers_a": names,
            "layers_b": names[: layers - 1] or names,
            "cka": [
                [round(0.9 - 0.25 * abs(i - j) - 0.03 * b, 3) for j in range(max(1, layers - 1))] for i in range(layers)
            ],
            "best": interval(0.9 - 0.03 * b, 0.03, 1000),
            "best_a": 0,
            "best_b": 0,
            "null_quantile": 0.06,
            "p_value": 0.005,
        }
        for a, b in combinations(range(models), 2)
    ]
    return {"probe": 1000, "grids": grids, "reason": None}
