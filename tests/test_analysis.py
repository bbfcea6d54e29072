"""From run folders to findings: hand-made runs whose answers can be counted by hand."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zoo.analysis import convert, sections
from zoo.analysis import lineage as on_weights
from zoo.analysis.document import Options, analyse
from zoo.errors import RequestError
from zoo.homogeneity.results import FEW, NO_REPLICAS, Scalar
from zoo.reporting.schema import check
from zoo.reporting.words import Words
from zoo.store.folder import Draft
from zoo.store.keys import RunPlace
from zoo.store.panel import Panel
from zoo.store.schema import FEATURES, METRICS, RUN, WEIGHTS
from zoo.store.tables import PredictionTable

CLASSES = ("cat", "dog", "eel")
QUICK = Options(draws=100, permutations=20)


def write_run(root: Path, model: str, seed: int, answers: np.ndarray, labels: np.ndarray, **more) -> Path:
    """A complete run whose test answers are given; its logits are 4 for the answer and 0 elsewhere."""
    ids = [f"{row:016x}" for row in range(len(labels))]
    logits = np.where(np.arange(len(CLASSES)) == answers[:, None], 4.0, 0.0).astype(np.float32)
    place = RunPlace("text_classification", more.get("dataset", "animals"), model, more.get("key", f"{model}{seed}"))
    record = {
        "config": {"model": {"name": more.get("backend", model)}, "dataset": {"name": "gone"}, "trainer": None},
        "seed": seed,
        "label": model,
        "command": ["zoo-run", f"model={model}", f"seed={seed}"],
        "versions": {"zoo-harness": "0.1.0", "zoo-mlp": "0.1.0", "torch": "2"},
        "hardware": {"cpu": "abacus", "cores": 2},
        "data": {"fingerprint": "f" * 16, "modality": "text", "classes": list(CLASSES), "notes": [], "splits": {}},
        "training": {"param_count": 10 * (seed + 1), "device": "cpu", "threads": 1},
        "probe_ids": ids[:30],
        "layers": list(more.get("features", ())),
        **more.get("record", {}),
    }
    with Draft.open(root, place, record) as draft:
        table = PredictionTable(np.full(len(ids), "test"), np.array(ids), labels, answers, logits)
        draft.write_predictions(table)
        draft.write_json(METRICS, {})
        if "features" in more:
            draft.write_tensors(FEATURES, more["features"])
        if "weights" in more:
            draft.write_tensors(WEIGHTS, more["weights"])
        return draft.publish(record, "complete")


@pytest.fixture
def study(tmp_path):
    """Three models with two replicas each on 200 examples: `twin` repeats most of what `first` says."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)

    def noisy(source: np.ndarray, share: float) -> np.ndarray:
        return np.where(rng.random(200) < share, rng.integers(0, 3, 200), source)

    hard = noisy(labels, 0.3)
    for seed in (0, 1):
        write_run(tmp_path, "first", seed, noisy(hard, 0.05), labels, features=_features(seed))
        write_run(tmp_path, "twin", seed, noisy(hard, 0.05), labels, features=_features(seed + 1))
        write_run(tmp_path, "other", seed, noisy(noisy(labels, 0.3), 0.05), labels)
    return tmp_path


def _features(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    base = rng.normal(size=(30, 6)).astype(np.float32)
    return {"low": base, "high": (base @ np.random.default_rng(seed).normal(size=(6, 4))).astype(np.float32)}


def test_the_document_has_the_form_of_the_schema_and_is_plain_json(study):
    document = analyse([study], QUICK, ["python", "-m", "zoo.report"])
    assert check(json.loads(json.dumps(document, allow_nan=False))) == document


def test_models_pairs_and_headline_say_what_the_answers_say(study):
    document = analyse([study], QUICK)
    names = [model["name"] for model in document["models"]]
    assert names == ["first", "other", "twin"]
    assert [model["seeds"] for model in document["models"]] == [[0, 1]] * 3
    told = document["headline"]
    alike = told["most_alike"]
    assert told["measure"] == "kinship"
    assert {names[alike["a"]], names[alike["b"]]} == {"first", "twin"}
    assert alike["likeness"]["value"] > 0.8
    assert (told["models"], told["left_out"], told["warnings"]) == (3, [], [])
    for number in (told["effective_models"], told["joint_failure"]):
        assert 1 < number["value"] < 3
        assert number["low"] < number["value"]
    assert 1 < document["recipe_diversity"]["value"] < 3
    assert len(document["pairs"]) == 6
    assert {model["cost"]["param_count"] for model in document["models"]} == {15}
    assert document["map"]["merges"][0]["height"] == pytest.approx(max(0.0, 1 - alike["likeness"]["value"]))


def test_agreement_of_a_pair_is_the_mean_over_pairs_of_runs(study):
    document = analyse([study], QUICK)
    from zoo.store import guards, panel
    from zoo.store import study as opening

    answers = panel.build(guards.compare(opening.open([study])))
    first, twin = (answers.predictions[[i for i, m in enumerate(answers.runs) if m == k]] for k in (0, 2))
    expected = np.mean([(a == b).mean() for a in first for b in twin])
    pair = next(pair for pair in document["pairs"] if (pair["a"], pair["b"]) == (0, 2))
    assert pair["measures"]["agreement"]["value"] == pytest.approx(expected, abs=1e-12)


def test_representations_are_compared_where_features_were_kept(study):
    found = analyse([study], QUICK)["representations"]
    assert found["probe"] == 30
    (grid,) = found["grids"]
    assert (grid["layers_a"], grid["layers_b"]) == (["low", "high"], ["low", "high"])
    assert grid["cka"][0][0] == pytest.approx(1)  # the same features on both sides
    assert (grid["best_a"], grid["best_b"]) == (0, 0)
    assert grid["p_value"] <= 0.05


def test_examples_that_every_model_fails_are_the_ones_counted_by_hand(study):
    document = analyse([study], QUICK)
    for failed in document["failures"]["every_model_fails"]:
        example = document["examples"][failed["id"]]
        assert all(said != example["label"] for said in example["predictions"])
        assert failed["suspected_wrong_label"] == (len(set(example["predictions"])) == 1)
    distribution = document["failures"]["distribution"]
    assert sum(count["observed"]["value"] for count in distribution) == pytest.approx(1)
    assert sum(count["expected"] for count in distribution) == pytest.approx(1)
    assert document["failures"]["total"] == len(document["failures"]["every_model_fails"]) > 0


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"device": "cpu", "precision": "fp32", "threads": 1}, "cpu, fp32, 1 thread"),
        ({"device": "cuda", "precision": "bf16", "threads": 16}, "cuda, bf16"),
        ({"device": "cpu"}, "cpu"),
        ({}, None),
    ],
)
def test_the_device_of_a_training_is_told_with_what_its_time_depends_on(tmp_path, training, told):
    labels = np.arange(40) % 3
    for name in ("one", "other"):
        write_run(tmp_path, name, 0, np.roll(labels, len(name)), labels, record={"training": training})
    assert [model["cost"]["device"] for model in analyse([tmp_path], QUICK)["models"]] == [told, told]


def test_a_dataset_that_is_gone_costs_the_texts_only(study, caplog):
    document = analyse([study], QUICK)
    assert document["examples"]
    assert all(example["text"] is None for example in document["examples"].values())
    assert "the examples are not shown: No dataset 'gone'" in caplog.text


def test_without_examples_nothing_is_even_looked_for(study, caplog):
    document = analyse([study], replace(QUICK, examples=False))
    assert document["examples_included"] is False
    assert "not shown" not in caplog.text


def test_the_texts_and_thumbnails_of_a_dataset_that_is_there():
    import zoo
    from zoo.data.builtin import DATASETS

    digits = next(kind for kind in DATASETS if kind.name == "digits")
    split = zoo.load(digits()).test
    record = {
        "config": {"dataset": {"name": "digits"}},
        "data": {"splits": {"test": {"fingerprint": split.fingerprint}}},
    }
    from zoo.analysis import content

    found = content.shown(content.test_split(record), [split.ids[3], "unknown"])
    assert found["unknown"] == (None, None)
    text, png = found[split.ids[3]]
    assert text is None
    import base64
    import io

    from PIL import Image

    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
    assert (picture == split.examples[3][:, :, 0]).all()
    record["data"]["splits"]["test"]["fingerprint"] = "another"
    assert content.test_split(record) is None


def untranslated(value, key=""):
    """Reasons anywhere in a document that the Chinese report would show in English."""
    if isinstance(value, str):
        return [value] if key == "reason" and Words("zh").translate(value) == value else []
    items = (
        value.items() if isinstance(value, dict) else ((key, item) for item in value) if isinstance(value, list) else ()
    )
    return [text for name, item in items for text in untranslated(item, name)]


def test_both_numbers_of_the_headline_are_those_counted_by_hand(study):
    document = analyse([study], QUICK)
    wrong = np.array([shares for _, shares in sorted(_failure_shares(study).items())])
    own = (wrong.mean(1) * (1 - wrong.mean(1))).sum()
    covariances = np.cov(wrong, bias=True)
    shared = covariances.sum() - np.trace(covariances)
    assert document["headline"]["effective_models"]["value"] == pytest.approx(3 * own / (own + shared))
    together, each = wrong.prod(0).mean(), wrong.mean(1)
    logs = np.log(each.min()), np.log(each.prod())
    expected = 1 + 2 * (logs[0] - np.log(together)) / (logs[0] - logs[1])
    assert document["headline"]["joint_failure"]["value"] == pytest.approx(expected)
    assert document["headline"]["joint_failures"] == pytest.approx(200 * together)


def _failure_shares(root: Path) -> dict[str, np.ndarray]:
    from zoo.store import guards, panel
    from zoo.store import study as opening

    answers = panel.build(guards.compare(opening.open([root])))
    wrong = answers.predictions != answers.labels
    return {name: wrong[np.asarray(answers.runs) == at].mean(0) for at, name in enumerate(answers.models)}


def test_one_model_alone_has_a_page_of_reasons(tmp_path):
    labels = np.arange(30) % 3
    write_run(tmp_path, "only", 0, np.roll(labels, 1) * (np.arange(30) % 2), labels)
    document = analyse([tmp_path], QUICK)
    assert document["headline"]["effective_models"]["reason"] == "two models at least are needed, and there is one"
    assert document["headline"]["most_alike"] is None
    assert document["map"]["reason"] == "two models at least are needed, and there is one"
    assert untranslated(document) == []
    assert document["representations"]["reason"] == "fewer than two models have stored layer outputs"


def one_run_each(root: Path, models: int = 5, examples: int = 200) -> Path:
    """A study of one run a model: `m0` and `m1` alike, the others on their own, all wrong on what is hard."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, examples)

    def noisy(source: np.ndarray, share: float) -> np.ndarray:
        return np.where(rng.random(examples) < share, (source + rng.integers(1, 3, examples)) % 3, source)

    hard = noisy(labels, 0.2)
    near = noisy(hard, 0.2)
    for at in range(models):
        write_run(root, f"m{at}", 0, noisy(near, 0.03) if at < 2 else noisy(hard, 0.2), labels)
    return root


def test_one_run_a_model_has_headline_heatmap_map_and_tree(tmp_path):
    document = analyse([one_run_each(tmp_path)], QUICK)
    told = document["headline"]
    assert told["measure"] == "error_correlation"
    assert (told["most_alike"]["a"], told["most_alike"]["b"]) == (0, 1)
    assert told["effective_models"]["low"] < told["effective_models"]["value"] < told["effective_models"]["high"]
    assert told["joint_failure"]["value"] > 1
    assert document["map"]["models"] == [0, 1, 2, 3, 4]
    assert (len(document["map"]["coordinates"]), len(document["map"]["merges"])) == (5, 4)
    first = document["map"]["merges"][0]
    assert {first["left"], first["right"]} == {0, 1}
    assert first["height"] == pytest.approx(1 - told["most_alike"]["likeness"]["value"])
    pair = next(pair for pair in document["pairs"] if (pair["a"], pair["b"]) == (0, 1))
    for measure in ("error_correlation", "excess_error_correlation", "shared_wrong_answers"):
        assert pair["measures"][measure]["value"] is not None, measure
    assert pair["z"] > 3
    assert "z" not in document["pairs"][0]
    assert pair["p_values"]["less_than_independent"]["corrected"] is not None
    assert "recipe_diversity" not in document
    assert untranslated(document) == []


def test_wrong_answers_that_most_models_share_are_listed_with_how_many_share_them(tmp_path):
    document = analyse([one_run_each(tmp_path)], QUICK)
    found = document["failures"]["against_label"]
    counted = 0
    for name, example in document["examples"].items():
        others = [said for said in example["predictions"] if said != example["label"]]
        most = max((others.count(said) for said in others), default=0)
        listed = [item for item in found["listed"] if item["id"] == name]
        assert [item["models"] for item in listed] == ([most] if most >= 3 else [])
        counted += most >= 3
    assert 0 < counted == found["total"]
    models = [item["models"] for item in found["listed"]]
    assert models == sorted(models, reverse=True)


def test_two_models_without_replicas_have_a_headline_and_one_reason_for_what_needs_more(tmp_path):
    document = analyse([one_run_each(tmp_path, 2)], QUICK)
    assert document["headline"]["effective_models"]["value"] is not None
    assert untranslated(document) == []
    pair = next(pair for pair in document["pairs"] if pair["a"] != pair["b"])
    assert pair["measures"]["kinship"] == {
        "value": None, "low": None, "high": None, "n": 200, "reason": "it needs two runs or more of each model",
    }  # fmt: skip


def test_a_model_with_one_run_moves_all_pairs_to_one_scale(study):
    for folder in study.rglob("other1"):
        shutil.rmtree(folder)
    document = analyse([study], QUICK)
    assert document["headline"]["measure"] == "error_correlation"
    assert len(document["map"]["models"]) == 3
    assert "recipe_diversity" not in document
    assert next(pair for pair in document["pairs"] if (pair["a"], pair["b"]) == (0, 2))["measures"]["kinship"]["value"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_models_that_do_not_count_are_named_and_change_nothing_that_is_about_all_together(tmp_path, seeds):
    alone = one_run_each(tmp_path / "alone")
    both = shutil.copytree(alone, tmp_path / "both")
    labels = np.random.default_rng(1).integers(0, 3, 200)
    for seed in range(seeds):
        write_run(both, "always_cat", seed, np.zeros(200, np.int64), labels)
        write_run(both, "knows", seed, labels, labels)
        write_run(both, "misses", seed, (labels + 1 + np.arange(200) % 2) % 3, labels)
    before, after = analyse([alone], QUICK), analyse([both], QUICK)
    names = [model["name"] for model in after["models"]]
    assert [(names[left["model"]], left["why"]) for left in after["headline"]["left_out"]] == [
        ("always_cat", "constant"), ("knows", "perfect"), ("misses", "always_wrong"),
    ]  # fmt: skip
    for key in ("models", "effective_models", "joint_failure", "warnings"):
        assert after["headline"][key] == before["headline"][key]
    assert [names[model] for model in after["map"]["models"]] == [f"m{at}" for at in range(5)]
    assert after["failures"] == before["failures"]
    assert after["set_measures"] == before["set_measures"]
    assert names[after["diversity"]["best_model"]].startswith("m")
    assert [names[share["model"]] for share in after["diversity"]["contributions"]] == [f"m{at}" for at in range(5)]
    from zoo.reporting import story

    assert story.first_lines(after, Words())[2:] == [
        "Left out of all numbers about the models together: always_cat (one answer to every example), "
        "knows (never wrong), misses (never right)."
    ]


def test_a_constant_model_makes_no_label_suspected(tmp_path):
    labels = np.arange(60) % 3
    wrong = (labels + 1 + np.arange(60) // 30) % 3
    for model in ("one", "two"):
        write_run(tmp_path, model, 0, np.where(np.arange(60) < 40, labels, wrong), labels)
    write_run(tmp_path, "always_dog", 0, np.ones(60, np.int64), labels)
    # Two models that agree may have a reason; a third one, which says the same whatever it is asked, is no third.
    assert not any(
        example["suspected_wrong_label"] and example["why"] == "all_agree"
        for example in analyse([tmp_path], QUICK)["failures"]["every_model_fails"]
    )


def test_a_constant_model_is_not_on_the_front_and_pushes_nobody_off_it():
    from zoo.analysis.costs import on_front
    from zoo.homogeneity.leaderboard import leaderboard

    labels = np.arange(300) % 3
    answers = np.stack(
        [np.where(np.arange(300) < 240, labels, 0), np.where(np.arange(300) < 150, labels, 1), labels * 0]
    )
    panel = Panel(
        ("slow", "fast", "constant"), (0, 1, 2), (0, 0, 0), tuple(map(str, range(300))), CLASSES, labels, answers, None,
        False,
    )  # fmt: skip
    faster = [{"figure": "throughput", "differs": True, "ratio": {"value": ratio}, "a": a, "b": b}
              for a, b, ratio in ((0, 1, 2.0), (0, 2, 4.0), (1, 2, 4.0))]  # fmt: skip
    keys = {"k0": 0, "k1": 1, "k2": 2}
    bench = {"floor": {"throughput": 1.1}, "models": [{"key": key} for key in keys], "comparisons": faster}
    board = leaderboard(panel)
    assert on_front(bench, keys, board, (0, 1)) == {"k0": True, "k1": True}
    bench["floor"]["throughput"] = 2.0  # so noisy that no speed is known
    assert on_front(bench, keys, board, (0, 1)) == {}


@pytest.mark.parametrize("examples", [1, 3, 12])
def test_a_perfect_model_and_few_examples_are_undefined_with_a_reason(tmp_path, examples):
    labels = np.arange(examples) % 3
    for seed in (0, 1):
        write_run(tmp_path, "perfect", seed, labels, labels)
        write_run(tmp_path, "constant", seed, np.zeros(examples, np.int64), labels)
    document = analyse([tmp_path], QUICK)
    assert document["headline"]["effective_models"]["value"] is None
    assert document["headline"]["effective_models"]["reason"]
    assert document["headline"]["warnings"] == [{"code": "few_examples", "count": examples, "names": [], "runs": []}]
    from zoo.reporting import story

    first, unknown = story.first_lines(document, Words())[:2]
    assert first == f"Nothing can be concluded from so few test examples ({examples})."
    assert unknown.startswith("How many independent models these count as cannot be said: ")
    assert Words()("answer.judge_none") not in story.verdict(document, Words())
    for pair in document["pairs"]:
        for number in pair["measures"].values():
            assert number["value"] is not None or number["reason"]
    assert untranslated(document) == []


def warnings_of(root: Path) -> dict[str, tuple[int, list[str]]]:
    """Code -> how many, and the names of what is left out or of the models of the runs that are told of."""
    document = analyse([root], QUICK)
    runs, models = document["provenance"]["runs"], document["models"]
    return {
        warning["code"]: (
            warning["count"],
            [*warning["names"], *(models[runs[run]["model"]]["name"] for run in warning["runs"])],
        )
        for warning in document["headline"]["warnings"]
    }


def test_a_flipped_byte_in_one_run_changes_the_headline_only_with_a_warning(study):
    before = analyse([study], QUICK)["headline"]
    assert before["warnings"] == []
    file = next(study.rglob("twin1")) / "predictions.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    after = analyse([study], QUICK)["headline"]
    assert after["effective_models"]["value"] != before["effective_models"]["value"]
    assert after["models"] == before["models"]
    (warning,) = after["warnings"]
    assert (warning["code"], warning["count"]) == ("damaged", 1)
    assert warning["names"][0].startswith("twin, seed 1 (")
    # Without that run one model has no replica: another measure is shown, and that is said as well.
    assert (before["measure"], after["measure"]) == ("kinship", "error_correlation")
    from zoo.reporting import story

    assert "with a single run: 1 of 3" in " ".join(story.verdict(analyse([study], QUICK), Words()))


def test_runs_that_join_or_leave_a_study_are_told_of(study):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    assert warnings_of(study) == {}
    write_run(study, "shell", 7, labels * 0 + rng.integers(0, 3, 200), labels, record={"parent": {"key": "first0"}})
    write_run(study, "elsewhere", 0, rng.integers(0, 3, 200), labels, record={"imported": {"file": "answers.csv"}})
    write_run(study, "relabelled", 0, labels, (labels + 1) % 3)
    write_run(study, "shorter", 0, rng.integers(0, 3, 150), labels[:150])
    told = warnings_of(study)
    assert told["made_from"] == (1, ["shell"])
    assert told["imported"] == (1, ["elsewhere"])
    assert told["not_comparable"] == (1, ["other labels"])
    assert told["fewer_examples"] == (1, ["50 test examples"])
    document = analyse([study], QUICK)
    assert [run["parent"] for run in document["provenance"]["runs"] if run["parent"]] == ["first0"]


def test_a_study_of_imported_runs_alone_has_no_warning_of_them(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, 200)
    for seed, model in enumerate(("one", "two")):
        answers = np.random.default_rng(seed + 1).integers(0, 3, 200)
        write_run(tmp_path, model, 0, answers, labels, record={"imported": {"file": "answers.csv"}})
    assert warnings_of(tmp_path) == {}


def test_runs_without_what_a_report_needs_are_not_called_damaged(study):
    labels = np.random.default_rng(0).integers(0, 3, 200)
    write_run(study, "silent", 0, labels[:0], labels[:0])
    told = warnings_of(study)
    assert told == {"not_comparable": (1, ["no test examples"])}
    (item,) = analyse([study], QUICK)["left_out"]
    assert (item["code"], item["why"]) == ("no_test_examples", "no test examples")


def test_a_run_that_another_with_other_answers_replaces_is_told_of(study):
    folder = next(study.rglob("first0"))
    again = shutil.copytree(folder, folder.with_name("copied"))
    later(again)
    assert warnings_of(study) == {}  # the same answers: either may go
    labels = np.random.default_rng(0).integers(0, 3, 200)
    other = write_run(study / "more", "first", 0, (labels + 1) % 3, labels)
    later(other, 9)
    code, (count, names) = warnings_of(study).popitem()
    assert (code, count) == ("replaced", 2)
    assert all(name.startswith("first, seed 0 (") for name in names)


def later(folder: Path, by: int = 1) -> None:
    """Let a run have ended later than the others."""
    record = json.loads((folder / RUN).read_text("utf-8"))
    record["ended"] = f"{2100 + by}-01-01T00:00:00Z"
    (folder / RUN).write_text(json.dumps(record), "utf-8")


def test_with_one_model_left_nothing_is_said_of_several(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, 200)
    write_run(tmp_path, "one", 0, np.where(np.arange(200) < 120, labels, (labels + 1) % 3), labels)
    write_run(tmp_path, "always_cat", 0, np.zeros(200, np.int64), labels)
    write_run(tmp_path, "knows", 0, labels, labels)
    document = analyse([tmp_path], QUICK)
    reason = document["headline"]["effective_models"]["reason"]
    assert document["headline"]["models"] == 1
    diversity = document["diversity"]
    together = [*document["set_measures"].values(), *(document["failures"][key] for key in ("observed", "log_ratio"))]
    together += [diversity[key] for key in ("vote", "oracle", "vote_gain", "oracle_gap", "vote_independent")]
    assert len(together) > 8
    assert {(number["value"], number["reason"]) for number in together} == {(None, reason)}
    assert (document["failures"]["total"], diversity["contributions"]) == (0, [])
    assert document["models"][diversity["best_model"]]["name"] == "knows"
    from zoo.reporting import story

    assert story.of_counted(document, "best") == "best"
    assert reason in story.no_failures(document, Words())
    assert untranslated(document) == []


def test_beside_a_perfect_model_the_tiles_are_of_the_others_and_say_so(tmp_path):
    labels = np.arange(300) % 2
    wrong = {"knows": [], "one": range(40), "two": range(20, 60)}
    for name, places in wrong.items():
        answers = labels.copy()
        answers[list(places)] ^= 1
        write_run(tmp_path, name, 0, answers, labels)
    document = analyse([tmp_path], QUICK)
    from zoo.reporting import story

    tiles = {tile.label: tile.value for tile in story.tiles(document, Words())}
    assert tiles[Words()("tiles.fail_counted")] == "6.7 %"
    assert tiles[Words()("tiles.oracle_counted")] == "93.3 %"
    assert len(tiles) == 4
    assert all("count" in label for label in tiles)
    assert "knows (never wrong)" in story.counted_note(document, Words())


def test_what_is_minded_of_joint_failures_is_minded_of_the_oracle(study):
    document = analyse([study], QUICK)
    assert document["diversity"]["oracle"]["reason"] == document["failures"]["observed"]["reason"]
    share = {"value": 0.01, "low": None, "high": None, "n": 9, "reason": "few"}
    assert sections._complement(share)["reason"] == "few"


def test_a_claim_that_is_untested_has_the_reason_of_its_measure(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, 200)
    rng = np.random.default_rng(1)
    for seed in (0, 1):
        write_run(tmp_path, "knows", seed, labels, labels)
        write_run(tmp_path, "one", seed, np.where(rng.random(200) < 0.3, (labels + 1) % 3, labels), labels)
    pair = next(pair for pair in analyse([tmp_path], QUICK)["pairs"] if pair["p_values"])
    claim = pair["p_values"]["less_than_independent"]
    assert claim["corrected"] is None
    assert claim["reason"] == pair["measures"]["error_correlation"]["reason"] != NO_REPLICAS
    assert pair["p_values"]["more_alike_than_replicas"]["reason"] == pair["measures"]["kinship"]["reason"]


def test_of_strong_models_one_claim_is_tested_exactly_and_the_other_says_why_not(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, 200)
    rng = np.random.default_rng(1)
    for name in ("one", "other"):
        hard = rng.random(200) < 0.05
        for seed in (0, 1):
            wrong = hard & (rng.random(200) < 0.8)
            write_run(tmp_path, name, seed, np.where(wrong, (labels + 1) % 3, labels), labels)
    pair = next(pair for pair in analyse([tmp_path], QUICK)["pairs"] if pair["p_values"])
    assert pair["measures"]["kinship"]["low"] is pair["measures"]["error_correlation"]["low"] is None
    assert pair["p_values"]["more_alike_than_replicas"]["corrected"] is None
    assert FEW in pair["p_values"]["more_alike_than_replicas"]["reason"]
    assert pair["p_values"]["less_than_independent"]["corrected"] > 0.05


def test_replicas_that_answer_the_same_are_said_to_do_so_here(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, 200)
    rng = np.random.default_rng(1)
    fixed = np.where(rng.random(200) < 0.3, (labels + 1) % 3, labels)
    for seed in (0, 1):
        write_run(tmp_path, "linear", seed, fixed, labels)
        write_run(tmp_path, "one", seed, np.where(rng.random(200) < 0.3, (labels + 1) % 3, labels), labels)
    document = analyse([tmp_path], QUICK)
    found = {model["name"]: model["reliability"] for model in document["models"]}
    assert found["linear"]["value"] == 1
    assert found["linear"]["reason"] == "its runs answer the same here"
    assert found["one"]["reason"] != "its runs answer the same here"
    assert untranslated(document) == []


def test_few_failures_are_told_of(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    for model in ("one", "two"):
        write_run(tmp_path, model, 0, np.where(rng.random(200) < 0.05, (labels + 1) % 3, labels), labels)
    assert warnings_of(tmp_path)["few_failures"] == (None, [])


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("models", [2, 4])
def test_what_the_first_page_refuses_an_interval_has_none_in_the_tables(tmp_path, models, seeds):
    """The models fail 7 % each, so that two of them would both fail 4.9 of 1,000 examples by chance; the last of four
    fails every other."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 1000)
    for at in range(models):
        hard = rng.random(1000)
        for seed in range(seeds):
            wrong = hard + 0.02 * rng.random(1000) < (0.5 if at == 3 else 0.08)
            write_run(tmp_path, f"m{at}", seed, np.where(wrong, (labels + 1 + at % 2) % 3, labels), labels)
    document = analyse([tmp_path], QUICK)
    told, pairs = document["headline"], {(pair["a"], pair["b"]): pair["measures"] for pair in document["pairs"]}
    measure = "kinship" if seeds > 1 else "error_correlation"
    assert told["measure"] == measure
    refused = [pair for pair in (told["most_alike"], told["least_alike"]) if pair and pair["likeness"]["low"] is None]
    assert refused
    for pair in refused:
        number = pairs[pair["a"], pair["b"]][measure]
        assert (number["low"], number["high"]) == (None, None)
        assert number["reason"] == pair["likeness"]["reason"]
    wrong = [1 - model["metrics"]["accuracy"]["value"] for model in document["models"]]
    for (a, b), measures in pairs.items():
        few = a != b and 1000 * wrong[a] * wrong[b] < 10
        for name in ("error_correlation", "error_consistency", "q_statistic"):
            if a != b and measures[name]["value"] is not None:
                assert (measures[name]["low"] is None) == few, (a, b, name)
        assert a == b or measures["agreement"]["low"] is not None
    assert any(1000 * wrong[a] * wrong[b] > 10 for a, b in pairs if a != b) == (models == 4)
    assert not [measure for measure in document["measures"] if "too narrow" in (measure["note"] or "")]
    assert untranslated(document) == []


def test_what_a_model_adds_has_no_interval_where_the_whole_has_none(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    for share, folder in ((0.03, "few"), (0.3, "many")):
        for model in ("one", "two", "three"):
            answers = np.where(rng.random(400) < share, (labels + 1) % 3, labels)
            write_run(tmp_path / folder, model, 0, answers, labels)
        document = analyse([tmp_path / folder], QUICK)
        whole = document["headline"]["effective_models"]
        assert (whole["low"] is None) == (folder == "few")
        for share_of in document["diversity"]["contributions"]:
            assert share_of["effective"]["value"] is not None
            assert (share_of["effective"]["low"] is None) == (folder == "few")
            assert share_of["effective"]["reason"] == whole["reason"]


def test_all_that_needs_four_models_says_so_in_the_same_words(tmp_path):
    document = analyse([one_run_each(tmp_path, 3)], QUICK)
    from zoo.reporting import story

    said = story.not_defined(document, Words())
    assert said.count("4 models at least are needed, and there are 3") == 1
    assert said.startswith("Not defined for any pair: ")
    titles = {measure["name"]: measure["title"] for measure in document["measures"]}
    needing = [titles[name] for name in ("excess_error_correlation", "shared_wrong_answers")]
    assert ", ".join(needing) in said


def test_nothing_there_is_a_wrong_request(tmp_path):
    with pytest.raises(RequestError, match="nowhere"):
        analyse([tmp_path / "nowhere"], QUICK)


def test_classical_scaling_gives_back_points_of_a_plane():
    points = np.random.default_rng(3).normal(size=(6, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    found, explained = sections.classical_scaling(distances)
    again = np.linalg.norm(found[:, None] - found[None], axis=2)
    assert np.allclose(again, distances)
    assert explained == pytest.approx(1)


def test_votes_take_the_answer_of_most_replicas():
    predictions = np.array([[0, 1], [2, 1], [2, 0], [1, 1]])
    panel = Panel(
        ("a", "b"), (0, 0, 0, 1), (0, 1, 2, 0), ("x", "y"), CLASSES, np.array([0, 1]), predictions, None, False
    )
    assert sections.Votes.of(panel).answers.tolist() == [[2, 1], [1, 1]]


def test_a_reason_beside_a_value_is_kept_and_none_is_invented():
    assert convert.from_scalar(Scalar(0.5, 0.4, 0.6, 9))["reason"] is None
    assert convert.from_scalar(Scalar(0.5, 0.4, 0.6, 9, "sampled"))["reason"] == "sampled"
    assert convert.from_scalar(Scalar(math.nan, None, None, 9))["reason"] == "it is undefined on these examples"


LAYERS = {"layers.0.weight": (32, 20), "layers.1.weight": (32, 32), "layers.2.weight": (3, 32)}


def drawn(seed: int) -> dict[str, np.ndarray]:
    """Fresh weights of a chain of three layers."""
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in LAYERS.items()}


def renumbered(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with the units of the first layer in another order, and half of the last layer zero."""
    order = np.random.default_rng(5).permutation(32)
    first, second, last = weights.values()
    kept = np.where(np.abs(last) < np.median(np.abs(last)), 0, last)
    return dict(zip(weights, (first[order], second[:, order], kept.astype(np.float32)), strict=True))


@pytest.fixture
def family(tmp_path):
    """`base` with three replicas; `shell`: the first of them in another order; `still`: its seed changes nothing;
    `told`: no weights."""
    labels = np.random.default_rng(0).integers(0, 3, 60)
    for seed in range(3):
        answers = np.random.default_rng(seed + 1).integers(0, 3, 60)
        write_run(tmp_path, "base", seed, answers, labels, weights=drawn(seed))
        write_run(tmp_path, "still", seed, answers, labels, weights={"weight": drawn(9)["layers.2.weight"]})
        write_run(tmp_path, "told", seed, answers, labels)
    made = {"parent": {"key": "base0"}}
    write_run(tmp_path, "shell", 7, np.zeros(60, np.int64), labels, weights=renumbered(drawn(0)), record=made)
    return tmp_path


def test_lineage_finds_the_shell_and_says_why_the_rest_is_not_tested(family):
    document = analyse([family], QUICK)
    found, names = document["lineage"], [model["name"] for model in document["models"]]
    runs = [(names[run["model"]], run["seed"]) for run in document["provenance"]["runs"]]
    pairs = {(names[pair["a"]], names[pair["b"]]): pair for pair in found["pairs"]}
    assert names == ["base", "shell", "still", "told"]
    assert (found["runs"], found["run_pairs"]) == (10, 45)
    shell = pairs["base", "shell"]
    assert shell["verdicts"]["derived"] == 1
    assert (shell["strongest"]["test"], shell["on_record"], shell["unexplained"]) == ("record", 1, 0)
    assert [runs[run] for run in shell["strongest_runs"]] == [("base", 0), ("shell", 7)]
    (listed,) = [pair for pair in found["listed"] if pair["verdict"] == "derived"]
    assert listed["statement"] == "Every number is the other's, renumbered and pruned."
    assert runs[listed["later"]] == ("shell", 7)
    assert listed["explained"] == "on record"
    assert [row["test"] for row in listed["evidence"]] == ["record", "numbers", "R1", "R2", "R3", "B1", "B1", "B2"]
    (arc,) = found["tree"]  # the runs of `still` are copies, and no family
    assert (runs[arc["parent"]], runs[arc["child"]], arc["direction"]) == (("base", 0), ("shell", 7), "on record")
    own = pairs["base", "base"]
    assert (own["tested"], own["note"]) == (3, None)
    assert not {"copy", "derived", "common ancestor"} & own["verdicts"].keys()
    assert pairs["still", "still"]["verdicts"] == {"copy": 3}
    assert pairs["still", "still"]["note"] == on_weights.SEED_CHANGES_NOTHING
    assert pairs["base", "told"]["verdicts"] == {"undetermined": 9}
    assert pairs["base", "told"]["reason"] == on_weights.NO_WEIGHTS
    assert [runs[run["run"]] for run in found["lacking"]] == [("told", seed) for seed in range(3)]
    assert sum(pair["tested"] for pair in found["pairs"]) == found["tested"]


def test_lineage_is_the_same_again_and_is_left_out_when_nobody_asks(family):
    assert analyse([family], QUICK)["lineage"] == analyse([family], QUICK)["lineage"]
    assert "lineage" not in analyse([family], replace(QUICK, lineage=False))


def test_without_weights_lineage_is_undetermined_with_that_reason(study):
    found = analyse([study], QUICK)["lineage"]
    assert (found["tested"], found["exact_tests"], found["listed"], found["tree"]) == (0, 0, [], [])
    assert {pair["reason"] for pair in found["pairs"]} == {on_weights.NO_WEIGHTS}
    assert len(found["lacking"]) == 6


def test_of_many_runs_the_first_seeds_of_each_model_are_compared(family, monkeypatch):
    monkeypatch.setattr(on_weights, "MOST_RUNS", 3)
    found = analyse([family], QUICK)["lineage"]
    reasons = [run["reason"] for run in found["lacking"]]
    assert reasons.count("the run is beyond the first 3 and was not looked at") == 4
    assert found["tested"] == 1  # base and shell; `still` has another shape


def test_damaged_weights_are_told_and_the_rest_is_compared(family):
    file = next(family.rglob("base2/")) / WEIGHTS
    content = file.read_bytes()
    record = json.loads((file.parent / "run.json").read_text())
    import hashlib

    broken = content[:8] + b"?" + content[9:]
    file.write_bytes(broken)
    record["files"][WEIGHTS]["sha256"] = hashlib.sha256(broken).hexdigest()
    (file.parent / "run.json").write_text(json.dumps(record))
    found = analyse([family], QUICK)["lineage"]
    assert any("no sound safetensors file" in run["reason"] for run in found["lacking"])
    assert any(pair["verdict"] == "derived" for pair in found["listed"])


def test_progress_counts_the_pairs(family):
    said: list[str] = []
    analyse([family], QUICK, progress=said.append)
    assert "comparing weights: pair 21 of 21" in said
