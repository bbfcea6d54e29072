"""The files of a report: their form, their texts, and that nothing untrusted gets out of its place in any of them."""

from __future__ import annotations

import copy
import csv
import html
import io
import json
import math
import os
import re
import stat
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from reporting_documents import (
    HOSTILE,
    against_label,
    answered,
    benched,
    document,
    recorded,
    related,
    undefined_everywhere,
    unrelated,
    warned,
)

import zoo.reporting
from zoo.errors import ConfigError, RequestError, StoreError
from zoo.homogeneity.headline import FEW_RIGHT
from zoo.homogeneity.results import NO_REPLICAS
from zoo.reporting import kin, story
from zoo.reporting.cells import Cell, Column, table
from zoo.reporting.figures import figures, painted
from zoo.reporting.markdown import markdown
from zoo.reporting.page import LIMIT, Budget, page, script_json
from zoo.reporting.rows import bench as bench_table
from zoo.reporting.schema import check, describe, estimate, number, undefined
from zoo.reporting.words import Words, catalogue, clean, languages, translations
from zoo.shares import UNSEEN

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def four() -> dict[str, bytes]:
    return zoo.reporting.render(document())


@pytest.fixture(scope="module")
def hostile() -> dict[str, bytes]:
    made = document(len(HOSTILE), names=list(HOSTILE), hostile=HOSTILE[2])
    return zoo.reporting.render(answered(benched(made, HOSTILE[2]), HOSTILE[2]))


class TestSchema:
    @pytest.mark.parametrize(
        "made",
        [
            document(),
            document(1),
            document(2, seeds=1),
            undefined_everywhere(),
            document(content=None),
            benched(document()),
            related(document()),
            answered(document()),
        ],
        ids=["four", "one", "two", "undefined", "without examples", "with benches", "of weights", "of answers"],
    )
    def test_documents_survive_json_and_the_check(self, made: dict[str, Any]) -> None:
        assert check(json.loads(json.dumps(made, allow_nan=False))) == made

    @pytest.mark.parametrize(
        ("path", "value", "told"),
        [
            (("title",), 3, "document.title should be text, and it is 3"),
            (("models", 1, "rank"), 1.5, "document.models[1].rank should be integer"),
            (("models", 0, "metrics", "accuracy", "value"), float("nan"), "metrics['accuracy'].value should be number"),
            (("study", "modality"), "sound", "should be one of text, image"),
            (("pairs", 0, "b"), 9, "document.pairs[0] should be a pair of models below 4"),
            (("schema_version",), 1, "schema_version is 1, and 2 is understood"),
            (("map", "leaf_order"), [0], "document.map.leaf_order should be 4 entries"),
            (("map", "models"), [0, 1, 2, 4], "document.map.models should be models below 4"),
            (("map", "leaf_order"), [0, 0, 1, 2], "document.map.leaf_order should be the models of the map"),
            (("headline", "surprise"), 1, "document.headline has a field 'surprise'"),
            (("headline", "effective_models", "bound"), "at_most", "effective_models.bound should be one of at_least"),
            (
                ("headline", "warnings"),
                [{"code": "made_from", "count": 1, "names": [], "runs": [12]}],
                "warnings[0].runs",
            ),
            (("headline", "left_out"), [{"model": 4, "why": "perfect"}], "left_out[0].model should be a model below 4"),
            (("examples_included",), False, "should be without text and image"),
        ],
    )
    def test_the_first_thing_wrong_is_named(self, path: tuple[Any, ...], value: Any, told: str) -> None:
        made = document()
        place: Any = made
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(ValueError, match=re.escape(told)):
            check(made)

    def test_benches_may_be_missing_but_not_half_there(self) -> None:
        made = benched(document())
        made["benches"][1]["models"][0]["model"] = 4
        with pytest.raises(
            ValueError, match=r"benches\[1\]\.models\[0\]\.model should be a model below 4, and it is 4"
        ):
            check(made)
        del made["benches"][0]["floor"]
        with pytest.raises(ValueError, match=r"document\.benches\[0\]\.floor is missing; it should be number or null"):
            check(made)
        assert "| `benches` | list of [Bench](#bench); may be missing |" in describe()

    @pytest.mark.parametrize(
        ("path", "value", "told"),
        [
            (("pairs", 0, "b"), 9, "lineage.pairs[0] should be a pair of models below 4"),
            (("pairs", 0, "strongest_runs"), [1, 1], "lineage.pairs[0].strongest_runs should be two runs below 12"),
            (("listed", 1, "b"), 12, "lineage.listed[1] should be two runs below 12"),
            (("listed", 0, "later"), 12, "lineage.listed[0].later should be a run below 12"),
            (("tree", 0, "child"), 0, "lineage.tree[0] should be two runs below 12"),
            (("lacking", 0, "run"), -1, "lineage.lacking[0] should be a run below 12"),
            (("listed", 0, "verdict"), "kin", "listed[0].verdict should be one of copy, derived"),
            (("pairs", 0, "answers", "repeated", "repeats"), 12, "pairs[0].answers.repeated should be two runs below"),
            (("pairs", 0, "answers", "repeated", "wrong"), 1, "pairs[0].answers.repeated should be two runs below 12"),
        ],
    )
    def test_a_lineage_points_at_models_and_runs_that_there_are(
        self, path: tuple[Any, ...], value: Any, told: str
    ) -> None:
        made = answered(document())
        place: Any = made["lineage"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(ValueError, match=re.escape(told)):
            check(made)

    def test_a_missing_field_is_named_with_its_type(self) -> None:
        made = document()
        del made["failures"]["total"]
        with pytest.raises(ValueError, match=r"document\.failures\.total is missing; it should be integer"):
            check(made)

    def test_numbers_from_nan_become_null_and_need_a_reason(self) -> None:
        assert number(float("nan"), reason="0/0") == undefined("0/0")
        assert number(0.5, float("-inf"), 1.0, 3)["low"] is None
        with pytest.raises(ValueError, match="needs a reason"):
            number(None)

    def test_the_committed_description_is_the_schema(self) -> None:
        assert describe() in (CHECKOUT / "reports" / "README.md").read_text("utf-8")


class Recording(dict[str, str]):
    """A catalogue that remembers what was asked of it."""

    def __init__(self, texts: dict[str, str]) -> None:
        super().__init__(texts)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> str:
        self.asked.add(key)
        return super().__getitem__(key)


def every_kind() -> Iterator[dict[str, Any]]:
    """Documents that together make the report say everything that it can say."""
    for low, high, caution in ((1.2, 3.9, "within noise"), (3.8, 4.0, None), (2.2, 2.6, None)):
        made = document()
        made["headline"]["effective_models"] = estimate((low + high) / 2, low, high, 400, caution)
        made["headline"]["joint_failure"] = estimate(None, low, None, 400, "only a bound", "at_least")
        made["left_out"] *= 101
        yield made
        made = document()
        made["headline"]["joint_failure"] = estimate((low + high) / 2, low, high, 400)
        yield made
    told = warned(against_label(document(5)))
    told["headline"]["effective_models"] = estimate(2.5, None, None, 400)
    told["headline"]["joint_failure"] = estimate(None, n=400, reason="nothing to cover")
    merges = [{"left": 2, "right": 3, "height": 0.1}, {"left": 5, "right": 4, "height": 0.4}]
    told["map"] |= {"models": [2, 3, 4], "coordinates": [[0, 0], [1, 1], [0, 2]], "leaf_order": [3, 2, 4]}
    told["map"]["merges"] = merges
    told["diversity"]["best"] = number(0.9, n=400)
    told["failures"]["expected"] = number(3e-8, n=400)
    told["failures"]["log_ratio"] = number(20.0, n=400)
    told["recipe_diversity"] = undefined("a kinship is undefined")
    yield told
    unknown = document(4)
    unknown["headline"]["effective_models"] = estimate(None, n=400, reason="the failures avoid each other")
    yield unknown
    alone = document(4)
    alone["headline"]["effective_models"] = estimate(None, n=400, reason="one model counts")
    alone["failures"]["observed"] = undefined("one model counts")
    yield alone
    told = document(4)
    told["headline"]["effective_models"] = estimate(2.5, None, None, 400)
    told["headline"]["most_alike"]["likeness"] = number(0.5, n=400, reason="no spread")
    yield told
    both = warned(document(4))
    for end in ("most_alike", "least_alike"):
        both["headline"][end]["likeness"] = number(0.5, n=400, reason="no spread")
    both["headline"]["warnings"] = [{"code": "few_failures", "count": None, "names": [], "runs": []}]
    both["headline"]["effective_models"] = estimate(2.5, None, None, 400)
    yield both
    noisy = benched(document(3))
    noisy["benches"][0] |= {"floor": 2.5, "latency_floor": 1.9, "repetitions": 10}
    for entry in noisy["benches"][0]["models"]:
        entry |= {"rank": None, "latency_rank": None}
    yield noisy
    unlike = document(4)
    unlike["headline"]["measure"] = "error_correlation"
    unlike["headline"]["effective_models"] = estimate(1.6, n=9, reason=FEW_RIGHT)
    unlike["headline"]["warnings"] = [{"code": "few_failures", "count": None, "names": [], "runs": []}]
    yield unlike
    unlike = against_label(document(4))
    unlike["failures"]["against_label"] = {"total": 0, "listed": []}
    unlike["headline"]["measure"] = "error_correlation"
    unlike["models"][0]["seeds"] = [0]
    unlike["recipe_diversity"] = number(1.5, 1.4, 1.6, 400, "not corrected for bias: there are no draws")
    yield unlike
    bare = document(content=None)
    bare["left_out"] = []
    bare["failures"] |= {"total": 0, "every_model_fails": []}
    bare["method"]["calibrated"] = False
    for model in bare["models"]:
        model["cost"]["train_seconds"] = None
        model["measures"] = {"spread": number(0.1)}
    bare["measures"].append({**bare["measures"][0], "name": "spread", "scope": "models"})
    bare["pairs"][1]["p_values"]["less_than_independent"] = {"raw": None, "corrected": None, "reason": None}
    yield bare
    silent = document(content=None)
    for example in silent["examples"].values():
        example["predictions"][0] = None
    yield silent
    yield benched(document())
    yield related(document())
    yield answered(document())
    for references in (None, 4, 50):
        silent = answered(document(), references=references)
        silent["lineage"]["pairs"][4] |= {"verdicts": {"undetermined": 9}, "strongest": None}
        yield silent
    crowded = related(document())
    for pair in crowded["lineage"]["pairs"]:
        pair |= {"verdicts": {"derived": pair["run_pairs"]}, "unexplained": pair["run_pairs"]}
    crowded["lineage"]["listed"] += [{**crowded["lineage"]["listed"][1], "a": 4, "b": 5}] * (kin.MOST_ROWS + 1)
    yield crowded
    constructed = unrelated(document(), 5)
    constructed["lineage"]["listed"] = related(document())["lineage"]["listed"][:1]
    yield constructed
    for against in (None, "unrelated weights", "other weights", "parent came later"):
        made = recorded(document(), {"against": against, "parent": None if against is None else 0})
        made["lineage"]["on_record"] *= 9 if against is None else 1
        for place, why in enumerate(("one seed", "one checkpoint", "no randomness", "through others")):
            explained = {"verdict": "common ancestor", "explained": why, "a": place, "b": place + 1}
            made["lineage"]["listed"].append({**made["lineage"]["listed"][-1], **explained})
        yield made
    made = document(2)
    made["headline"]["joint_failure"] = estimate(None, 1.0, None, 400, "only a bound", "at_least")
    made["headline"]["most_alike"]["likeness"] = number(1.2, 0.23, 2.12, 400)
    for key in ("oracle", "vote_gain"):
        made["diversity"][key] = number(0.9, n=400, reason="few")
    yield made
    made = document()
    for end in ("most_alike", "least_alike"):
        made["headline"][end]["likeness"] = number(1.2, 0.23, 2.12, 400)
    yield made
    made = recorded(document(), {})
    made["headline"]["warnings"] = [{"code": "made_from", "count": 1, "names": [], "runs": [1]}]
    yield made
    made = document()
    for model, data in zip(made["models"], "abcd", strict=True):
        model |= {"backend": "linear", "recipe": {"data": data}}
    yield made
    yield from (unrelated(document(), tested) for tested in (None, 5, 0))
    yield from (document(content="image"), document(10), document(1), document(2, seeds=1), undefined_everywhere())


def plain(markdown_: str) -> str:
    """Markdown without its escapes, one kind of space."""
    return re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", markdown_).replace("\u00a0", " ")


def unmarked(html_: str) -> str:
    """The text of a page."""
    without = re.sub(r"(?s)<(script|style).*?</\1>", "", html_)
    return html.unescape(re.sub(r"<[^>]+>", "", without)).replace("\u00a0", " ")


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


class TestLanguages:
    def test_every_text_is_used_and_none_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        words = Words("en")
        words._texts = recording = Recording(catalogue("en"))
        for made in every_kind():
            checked = check(made)
            page(checked, words)
            markdown(checked, words, figures(checked, words))
        monkeypatch.setattr("zoo.reporting.page.LIMIT", 1)
        page(check(document(2)), words)
        assert set(catalogue("en")) - recording.asked == set()

    @pytest.mark.parametrize("language", [language for language in languages() if language != "en"])
    def test_all_catalogues_have_the_same_texts_with_the_same_placeholders(self, language: str) -> None:
        english, other = catalogue("en"), catalogue(language)
        fixed = {key: text for key, text in other.items() if not key.startswith("measures.")}
        assert set(fixed) == set(english)
        assert {key for key in fixed if placeholders(fixed[key]) != placeholders(english[key])} == set()
        assert all(placeholders(text) == placeholders(clause) for clause, text in translations(language))

    def test_the_measures_of_the_core_have_a_chinese_title(self) -> None:
        import zoo.homogeneity.measures as core

        names = {found.name for found in core.MEASURES}
        assert len(names) > 10
        assert {name for name in names if f"measures.{name}" not in catalogue("zh")} == set()

    def test_chinese_is_written_throughout(self) -> None:
        made = zoo.reporting.render(document(names=["甲", "乙", "丙", "丁"]), "zh")
        text = made["report.md"].decode()
        assert "**4 个模型相当于 1.60 (1.48–1.72) 个相互独立的模型。**" in plain(text)
        assert "它们一同失败的频率，相当于 2.10 (1.90–2.30) 个相互独立的模型一同失败的频率。" in plain(text)
        assert '<html lang="zh-Hans">' in made["index.html"].decode()
        english = {text for key, text in catalogue("en").items() if len(text) > 12}
        assert not [sentence for sentence in english if sentence in text]

    def test_a_chinese_page_has_no_colon_of_another_script_and_no_space_after_its_own(self) -> None:
        made, words = document(names=["甲", "乙", "丙", "丁"]), Words("zh")
        made["failures"]["every_model_fails"][0]["why"] = "all_agree_confident"
        for text in (plain(markdown(check(made), words, ())), unmarked(page(made, words, {}))):
            assert not re.findall(r"： .{9}", text)
            assert not re.findall(r".{9}[\u4e00-\u9fff]: ?.{9}", text)
            assert "研究：sentiment" in text
            assert "标签：negative" in text
            assert "all_agree" not in text
            assert "出错" not in text

    def test_reasons_are_translated_with_what_stands_in_them(self) -> None:
        words = Words("zh")
        said = words.reason("from a random sample of 5 of 9 examples; a model is never wrong")
        assert said == "取自 9 个样本中随机抽取的 5 个；有一个模型从未答错"
        assert words.reason("something nobody foresaw") == "something nobody foresaw"
        assert words.reason("a model is never wrong; nobody foresaw") == "有一个模型从未答错；nobody foresaw"

    def test_no_chinese_text_has_the_commas_or_the_spaces_of_another_script(self) -> None:
        texts = {**catalogue("zh"), **{text: text for _, text in translations("zh")}}
        assert not [text for text in texts.values() if re.search(r"[，。；：）」”] |\d,[A-Z]|[\u4e00-\u9fff],", text)]
        made = document()
        for given in (estimate(1.5, n=9), estimate(1.5, 1.2, 1.9, 9)):
            made["headline"] |= {"effective_models": given, "joint_failure": given}
            for line in story.first_lines(check(made), Words("zh")):
                assert "） " not in line
                assert "1.5" in line

    def test_statements_on_weights_are_translated_sentence_by_sentence(self) -> None:
        said = "Every number is the other's, renumbered and pruned. Nobody foresaw this. No test finds shared weights."
        told = kin.translated(said, Words("zh"))
        assert told == "每个数字都来自另一个，单元重新编号并经过剪枝。Nobody foresaw this.没有检验发现共享的权重。"
        assert kin.translated(said, Words()) == said

    def test_what_the_verdicts_say_has_a_chinese_wording(self) -> None:
        from typing import get_args

        from zoo.analysis import lineage as analysis
        from zoo.lineage import behaviour, verdict
        from zoo.lineage.document import REPEATED

        clauses = [verdict.NULL_EXACT, verdict.NULL_REPLICAS, *get_args(verdict.Name), *get_args(verdict.Strength)]
        clauses += [behaviour.NULL_ANSWERS, behaviour.RESIDUAL, behaviour.RATE_ALONE, behaviour.WEIGHTS_TOO]
        clauses += [*REPEATED]
        clauses += [analysis.NO_WEIGHTS, analysis.SEED_CHANGES_NOTHING, analysis.ONE_CHECKPOINT, analysis.ONE_START]
        assert [clause for clause in clauses if Words("zh").translate(clause) == clause] == []

    def test_what_the_measures_say_has_a_chinese_wording(self) -> None:
        from zoo import shares
        from zoo.analysis import convert
        from zoo.homogeneity import bootstrap, headline, results, selection, wrong_answers

        clauses = [headline.FEW, headline.FEW_OF_SOME, headline.FEW_SHARED, headline.FEW_RIGHT]
        clauses += [headline.FEW_RIGHT_OF_SOME, headline.FEW_RIGHT_SHARED, headline.NOT_WITHOUT]
        clauses += [headline.AVOIDING, headline.TOO_FEW_LEFT]
        clauses += [*headline.LEFT_OUT.values(), headline.NEVER_TOGETHER, headline.RARELY_TOGETHER, shares.UNSEEN]
        clauses += [results.FEW, results.FEW_RIGHT, results.NO_SPREAD, selection.UNBOUNDED]
        clauses += [selection.UNBOUNDED_ERRORS, selection.FEW_OF_ALL, selection.FEW_RIGHT_OF_ALL]
        clauses += [results.UNDEFINED, results.ONE_MODEL, results.NONE_WRONG, results.ALWAYS, results.NO_REPLICAS]
        clauses += [convert.NO_PAIR, convert.SOME_PAIR, convert.NO_SPREAD, convert.SAME_ANSWERS, bootstrap.WIDE]
        clauses += [wrong_answers.FEW_COUNTED, wrong_answers.NOTHING_TO_SHARE, wrong_answers.WITH_ITSELF]
        clauses += [f"a is always right or always wrong in {runs} of its runs, so its errors cannot be compared"
                    for runs in ("each", "all but one")]  # fmt: skip
        clauses += ["a gives no probabilities, only classes", "a answers the same whatever it is asked"]
        assert [clause for clause in clauses if Words("zh").translate(clause) == clause] == []

    def test_no_reason_is_written_twice(self) -> None:
        """Reasons are told apart by their words, so that what is written twice sooner or later differs."""
        import ast

        written = [
            node.value
            for path in [*(CHECKOUT / "zoo" / "homogeneity").glob("*.py"), CHECKOUT / "zoo" / "analysis" / "convert.py"]
            if path.name != "measures.py"  # it declares what each measure is, each in words of its own
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(" ") >= 4
        ]
        assert len(written) > 100
        assert sorted({text for text in written if written.count(text) > 1}) == []

    @pytest.mark.parametrize(
        ("language", "once"), [("en", "1 for copies with one run each"), ("zh", "各只有一次运行的副本")]
    )
    def test_copies_are_one_model_only_where_each_has_one_run(self, language: str, once: str) -> None:
        words = Words(language)
        assert once in words("methods.effective")
        assert once in words("methods.relate")

    def test_an_unknown_language_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(ConfigError, match=r"language=de\. Written: en, zh\."):
            Words("de")

    def test_placeholders_in_values_stay_as_they_are(self) -> None:
        assert "{b} and {0}" in Words()("answer.least_alike_kinship", a="{b}", b="{0}", likeness="0.1")


class TestWords:
    @pytest.mark.parametrize(
        ("given", "style", "said"),
        [
            (number(0.412, 0.35, 0.468), "plain", "0.41\u00a0(0.35–0.47)"),
            (number(-0.1, -0.2, 0.0), "plain", "−0.10\u00a0(−0.20 to 0.00)"),
            (number(0.8214, 0.8031, 0.8387), "percent", "82.1 %\u00a0(80.3–83.9)"),
            (number(-0.001), "plain", "0.00"),
            (number(0.9999, 0.99977, 0.99996), "percent", "99.990 %\u00a0(99.977–99.996)"),
            (number(0.0001, 0.00004, 0.00023), "percent", "0.010 %\u00a0(0.004–0.023)"),
            (number(0.0, 0.0, 0.0004), "percent", "0.000 %\u00a0(0.000–0.040)"),
            (number(1.0, 0.9996, 1.0), "percent", "100.000 %\u00a0(99.960–100.000)"),
            (number(0.5, 0.49999, 0.50001), "percent", "50.000 %\u00a0(49.999–50.001)"),
            (number(0.021, 0.0003, 0.06), "percent", "2.1 %\u00a0(0.0–6.0)"),
            (number(1 - 1e-7), "percent", "more than 99.9999 %"),
            (number(1e-7), "percent", "less than 0.0001 %"),
            (number(1e-7, 0.0, 0.004), "percent", "less than 0.0001 %\u00a0(0.0–0.4)"),
            (number(3e-7, 0.0, 0.00004), "percent", "less than 0.0001 %\u00a0(0.0000–0.0040)"),
            (number(1 - 1e-7, 0.996, 1.0), "percent", "more than 99.9999 %\u00a0(99.6–100.0)"),
            (number(1.0), "percent", "100.0 %"),
            (undefined("0/0"), "plain", "—"),
        ],
    )
    def test_numbers_read_as_people_write_them(self, given: Any, style: str, said: str) -> None:
        assert Words().number(given, style) == said

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (5.04e-05, "5.04\u00a0×\u00a010⁻⁵"),
            (-2e-12, "−2\u00a0×\u00a010⁻¹²"),
            (0.000504, "0.000504"),
            (0.512, "0.512"),
            (1234567, "1,234,567"),
        ],
    )
    def test_a_power_of_ten_is_no_program_text(self, given: float, said: str) -> None:
        from zoo.benchmark.display import digits

        assert Words().count(given) == said
        assert digits(given).replace("-", "−").replace(" ", "\u00a0") == said

    @pytest.mark.parametrize(
        ("threads", "said"), [(1, "cpu, fp32，1 个线程"), (8, "cpu, fp32，8 个线程"), (None, "cpu, fp32")]
    )
    def test_threads_are_translated(self, threads: int | None, said: str) -> None:
        from zoo.store.schema import computed_on

        assert Words("zh").translate(computed_on("cpu", "fp32", threads)) == said
        assert "CPU 线程" in Words("zh").translate(computed_on("cuda", "bf16", 16, processor_too=True))
        assert Words().translate(computed_on("cpu", "fp32", threads)) == computed_on("cpu", "fp32", threads)

    @pytest.mark.parametrize("language", languages())
    def test_all_of_so_many_are_all(self, language: str) -> None:
        words = Words(language)
        for key in ("pairs.table_caption", "lineage.shown", "lineage.shown_models", "lineage.of_run_pairs"):
            assert story.shown_of(key, 2, 3, words) == words(key, shown=2, count=3)
            assert story.shown_of(key, 3, 3, words).count("3") == 1

    def test_misleading_characters_become_visible(self) -> None:
        assert clean("a\u202eb\n\tc\x00\ud800") == "a�b c��"

    def test_names_stay_distinct_when_they_are_shortened(self) -> None:
        made = document(3, names=["x" * 80 + "1", "x" * 80 + "2", "__proto__"])
        shown = story.names(check(made))
        assert len(set(shown)) == 3
        assert max(map(len, shown)) < 70
        assert "__proto__" not in shown


class TestHeadline:
    @pytest.mark.parametrize(
        ("effective", "sentence"),
        [
            (estimate(1.6, 1.4, 1.9, 9), "4 models count as 1.60\u00a0(1.40–1.90) independent ones."),
            (estimate(1.04, 1.01, 1.06, 9), "4 models count as 1.04\u00a0(1.01–1.06) independent ones."),
            (estimate(1.6, n=9), "4 models count as 1.60 independent ones, without an interval."),
            (
                estimate(None, n=9, reason="no failure"),
                "How many independent models these count as cannot be said: no failure.",
            ),
        ],
    )
    def test_the_first_sentence_is_of_votes(self, effective: Any, sentence: str) -> None:
        made = document()
        made["headline"]["effective_models"] = effective
        assert story.opening(check(made), Words())[0] == sentence

    @pytest.mark.parametrize(
        ("joint", "sentence"),
        [
            (estimate(2.1, 1.9, 2.4, 9), "They all fail together as often as 2.10\u00a0(1.90–2.40) independent ones."),
            (
                estimate(4.6, 3.2, None, 9, "few", "at_least"),
                "They all fail together as often as at least 3.20 independent ones.",
            ),
            (
                estimate(None, 3.2, None, 9, "none", "at_least"),
                "They all fail together as often as at least 3.20 independent ones.",
            ),
            (
                estimate(None, n=9, reason="nothing to cover"),
                "How many independent models fail together as often cannot be said: nothing to cover.",
            ),
        ],
    )
    def test_the_second_sentence_is_of_failing_together(self, joint: Any, sentence: str) -> None:
        made = document()
        made["headline"]["joint_failure"] = joint
        assert story.opening(check(made), Words())[1] == sentence

    def test_where_neither_is_known_nothing_can_be_concluded_which_is_said_first_with_the_reason_once(self) -> None:
        made = check(undefined_everywhere())
        (said,) = story.opening(made, Words())
        assert said.startswith("Nothing can be concluded about all of these models together: ")
        assert "4 examples and there are 1" in said

    def test_where_one_is_known_something_can_be_concluded(self) -> None:
        made = document()
        made["headline"]["effective_models"] = estimate(None, n=9, reason="the failures avoid each other")
        made["headline"]["joint_failure"] = estimate(None, 3.2, None, 9, "none", "at_least")
        assert "Nothing" not in " ".join(story.opening(check(made), Words()))

    @pytest.mark.parametrize("language", languages())
    def test_every_warning_and_who_is_left_out_stand_right_below_the_two_sentences(self, language: str) -> None:
        made, words = check(warned(document(5))), Words(language)
        told = story.cautions(made, words)
        # One warning is the opening, and who is left out is no warning.
        assert len(told) == len(made["headline"]["warnings"])
        assert "mlp, seed 3" in told[0]
        made_from = next(line for line in told if line.startswith(words("warnings.made_from", names="").rstrip(".。")))
        assert words("lineage.run", model="cnn", seed=1) in made_from
        assert all(name in told[-1] for name in ("mlp", "cnn", words("answer.always_wrong", model="").strip()))
        drawn = figures(made, words)
        for text in (plain(markdown(made, words, drawn)), unmarked(page(made, words, drawn))):
            places = [text.index(line.replace("\u00a0", " ")) for line in story.first_lines(made, words)]
            assert places == sorted(places)
            assert places[-1] < text.index(words("tiles.best_counted"))
            assert not [
                line for line in story.verdict(made, words) if text.index(line.replace("\u00a0", " ")) < places[-1]
            ]

    def test_too_few_failures_for_an_interval_is_said_where_the_interval_would_stand(self) -> None:
        made = document()
        none = estimate(1.6, n=9, reason="fewer than 30 failures a model are too few failures for an interval")
        made["headline"] |= {"effective_models": none, "joint_failure": none}
        made["headline"]["warnings"] = [{"code": "few_failures", "count": None, "names": [], "runs": []}]
        made["headline"]["most_alike"]["likeness"] = number(0.5, n=9, reason="too few failures for an interval")
        made["diversity"]["best"] = number(0.9, n=9, reason="the model is never wrong in some draws")
        told = story.first_lines(check(made), Words())
        end = " independent ones, with too few failures for an interval."
        assert told[0] == "4 models count as 1.60" + end
        assert told[1] == "They all fail together as often as 1.60" + end
        made["headline"]["effective_models"]["reason"] = FEW_RIGHT
        told = story.first_lines(check(made), Words())
        assert told[0] == "4 models count as 1.60 independent ones, with too few right answers for an interval."
        tile = story.tiles(made, Words())[0]
        assert (tile.interval, tile.minding) == ("(no interval)", "the model is never wrong in some draws")

    @pytest.mark.parametrize("language", languages())
    def test_what_to_mind_of_a_pair_follows_its_sentence_and_is_said_once_for_both(self, language: str) -> None:
        made, words = document(), Words(language)
        few, other = "a model is never wrong", "no example is failed by every model"
        for reasons, key in (((few, few), "figures"), ((few, None), "figure"), ((None, few), "figure")):
            for end, reason in zip(("most", "least"), reasons, strict=True):
                made["headline"][f"{end}_alike"]["likeness"] = number(0.5, n=9, reason=reason)
            said = " ".join(story.verdict(check(made), words))
            assert said.count(words(f"answer.{key}", caution=words.reason(few))) == 1
            assert said.count(words.reason(few)) == 1
        made["headline"]["most_alike"]["likeness"] = number(0.5, n=9, reason=other)
        *_, most, least = story.verdict(check(made), words)
        assert most.endswith(words("answer.figure", caution=words.reason(other)))
        assert least.endswith(words("answer.figure", caution=words.reason(few)))

    @pytest.mark.parametrize("language", languages())
    def test_one_model_trained_on_two_sets_of_data_is_said_to_be_one(self, language: str) -> None:
        made, words = document(4), Words(language)
        for model, data in ((0, "455c746b"), (2, "9e107d9d")):
            made["models"][model] |= {"backend": "linear", "recipe": {"data": data}}
        told = words("warnings.other_data", names=words("numbers.comma").join(story.names(check(made))[::2]))
        assert told in story.first_lines(made, words)
        for text in (plain(markdown(made, words, ())), unmarked(page(made, words, {}))):
            assert text.count(told) == 1
        # Another option as well, another model, or data that nothing is known of: nothing to be said.
        for wrong in (
            {"recipe": {"data": "9e107d9d", "model.C": "2.0"}},
            {"backend": "mlp"},
            {"recipe": {"data": ""}},
            {"recipe": {"data": "455c746b"}},
        ):
            other = copy.deepcopy(made)
            other["models"][2] |= wrong
            assert told not in story.first_lines(check(other), words)

    def test_two_models_on_two_sets_of_data_are_two_and_what_is_left_out_is_none(self) -> None:
        made = document(5)
        for model, backend, data in (
            (0, "mlp", "a"),
            (1, "cnn", "a"),
            (2, "mlp", "b"),
            (3, "cnn", "b"),
            (4, "mlp", "c"),
        ):
            made["models"][model] |= {"backend": backend, "recipe": {"data": data}}
        made["headline"]["left_out"] = [{"model": 4, "why": "constant"}]
        shown, words = story.names(check(made)), Words()
        told = [
            words("warnings.other_data", names=", ".join(shown[place] for place in pair)) for pair in ((0, 2), (1, 3))
        ]
        assert " ".join(told) in story.first_lines(made, words)

    def test_a_study_of_nothing_but_sound_runs_has_no_warning(self) -> None:
        assert story.cautions(check(document()), Words()) == []

    @pytest.mark.parametrize(
        ("low", "high", "judged"),
        [
            (1.1, 1.5, "fail much alike"),
            (3.6, 4.0, "almost independently"),
            (1.2, 3.9, "does not suffice"),
            (2, 3, "good part"),
        ],
    )
    def test_the_judgement_follows_the_interval_not_the_estimate(self, low: float, high: float, judged: str) -> None:
        made = document()
        made["headline"]["effective_models"] = estimate((low + high) / 2, low, high, 400)
        assert judged in story.verdict(check(made), Words())[0]

    @pytest.mark.parametrize("language", languages())
    @pytest.mark.parametrize(
        ("votes", "joint", "told"),
        [
            (estimate(1.84, 1.75, 1.92, 400), estimate(1.93, 1.80, 2.08, 400), ("judge_alike", "insure_between")),
            (estimate(2.35, 2.20, 2.48, 400), estimate(1.78, 1.60, 1.98, 400), ("judge_between", "insure_alike")),
            (estimate(4.5, 4.2, 4.8, 400), estimate(3.0, 1.5, 4.5, 400), ("judge_apart", "insure_wide")),
            (estimate(4.5, 4.2, 4.8, 400), estimate(4.6, 4.3, 5.2, 400), ("judge_apart", "insure_apart")),
            # A lower bound says only that it is at least so much, and an estimate without an interval nothing.
            (
                estimate(3, 1.2, 4.8, 400),
                estimate(5.0, 4.3, None, 400, "few", "at_least"),
                ("judge_wide", "insure_apart"),
            ),
            (estimate(2.35, 2.20, 2.48, 400), estimate(5.0, 2.3, None, 400, "few", "at_least"), ("judge_between",)),
            (estimate(2.35, 2.20, 2.48, 400), estimate(2.0, n=400), ("judge_between",)),
        ],
    )
    def test_a_vote_is_judged_by_the_first_number_and_insurance_by_the_second(
        self, votes: Any, joint: Any, told: Any, language: str
    ) -> None:
        made, words = document(5), Words(language)
        made["headline"] |= {"effective_models": votes, "joint_failure": joint}
        said = story.verdict(check(made), words)
        kinds = ("alike", "apart", "between", "wide")
        keys = [f"{what}_{kind}" for what in ("judge", "insure") for kind in kinds]
        assert [key for line in said for key in keys if line == words(f"answer.{key}")] == list(told)

    @pytest.mark.parametrize(
        ("effective", "judged"),
        [
            # Above M failures avoid each other; how far is nothing that has to be known.
            (estimate(3.7, 3.2, 4.3, 400), "almost independently"),
            # Copies: nothing varies, so there is no interval, and no doubt either.
            (estimate(1.0, None, None, 400, UNSEEN), "fail much alike"),
            (estimate(1.4, None, None, 400, UNSEEN), "Without an interval"),
        ],
    )
    def test_of_two_models_the_judgement_is_of_where_the_number_lies(self, effective: Any, judged: str) -> None:
        made = document(2)
        made["headline"]["effective_models"] = effective
        assert judged in story.verdict(check(made), Words())[0]

    def test_what_to_mind_is_said_once(self) -> None:
        made = document(2)
        made["headline"]["effective_models"] = estimate(1.0, None, None, 400, UNSEEN)
        made["headline"]["most_alike"]["likeness"] = number(1.0, n=400, reason=UNSEEN)
        assert " ".join(story.verdict(check(made), Words())).count(UNSEEN) == 1
        made["headline"]["most_alike"]["likeness"]["reason"] = "another reason"
        told = " ".join(story.verdict(check(made), Words()))
        assert (told.count(UNSEEN), told.count("another reason")) == (1, 1)

    @pytest.mark.parametrize("code", ["few_failures", "few_examples"])
    @pytest.mark.parametrize("language", languages())
    def test_without_an_interval_none_is_promised_to_narrow(self, code: str, language: str) -> None:
        """Copies that fail too seldom are not judged, and what is said of it knows that there is no interval."""
        made, words = document(2), Words(language)
        made["headline"]["warnings"] = [{"code": code, "count": 9, "names": [], "runs": []}]
        for effective in (estimate(1.0, n=400, reason="too few failures"), estimate(1.4, n=400, reason="too few")):
            made["headline"]["effective_models"] = effective
            told = story.verdict(check(made), words)
            assert told[0] == words("answer.judge_no_interval")
            assert words("answer.judge_wide") not in told
        made["headline"]["effective_models"] = estimate(1.4, 1.0, 2.0, 400)
        assert story.verdict(check(made), words)[0] == words("answer.judge_wide")

    @pytest.mark.parametrize(
        "effective", [estimate(1.2, n=400, reason="too few failures"), estimate(1.5, 1.0, 2.6, 400)]
    )
    def test_what_is_on_record_is_in_no_doubt(self, effective: Any) -> None:
        made = related(document(3))
        made["headline"] |= {"effective_models": effective, "warnings": []}
        runs, doubts = made["provenance"]["runs"], [Words()(f"answer.judge_{key}") for key in ("wide", "no_interval")]
        made["lineage"]["on_record"] = []

        def doubted() -> bool:
            return bool({*doubts} & {*story.verdict(check(made), Words())})

        first = {model: next(place for place, run in enumerate(runs) if run["model"] == model) for model in range(3)}
        assert doubted()
        runs[first[1]]["parent"] = runs[first[0]]["key"]
        assert doubted(), "of the third nothing is on record"
        made["headline"] |= {"models": 2, "left_out": [{"model": 2, "why": "constant"}]}
        assert not doubted(), "which does not matter where it does not count"
        made["headline"] |= {"models": 3, "left_out": []}
        runs[first[2]]["parent"] = runs[first[1]]["key"]
        assert not doubted(), "made from what was made from the first"
        record = {"child": first[1], "parent": first[0], "label": "x", "seed": 0, "steps": [], "against": None}
        made["lineage"]["on_record"] = [record]
        assert not doubted()
        record["against"] = "unrelated weights"
        assert doubted(), "the weights contradict the record"

    def test_what_is_below_is_announced_where_something_is_below(self) -> None:
        made = check(undefined_everywhere())
        assert Words()("answer.judge_none") not in story.verdict(made, Words())
        made = document()
        made["headline"]["effective_models"] = estimate(None, n=400, reason="nothing")
        assert story.verdict(check(made), Words())[0] == Words()("answer.judge_none")

    @pytest.mark.parametrize("language", languages())
    def test_only_what_is_defined_is_announced(self, language: str) -> None:
        words = Words(language)
        made = document()
        made["headline"]["effective_models"] = estimate(None, n=400, reason="nothing")
        made["failures"]["observed"] = undefined("one model counts")
        told = story.verdict(check(made), words)
        assert told[0] == words("answer.judge_none_pairs")
        assert words("tiles.fail") not in [tile.label for tile in story.tiles(made, words)]
        for pair in made["pairs"]:
            pair["measures"] = {name: undefined("nothing") for name in pair["measures"]}
        assert words("answer.judge_none_pairs") not in story.verdict(check(made), words)

    def test_recipes_are_of_the_models_that_count(self) -> None:
        made = document(5)
        made["headline"] |= {"models": 4, "left_out": [{"model": 0, "why": "constant"}]}
        told = story.recipes(check(made), Words())
        assert told[0].startswith("4 models have a recipe diversity")
        assert "4 when no two are alike" in " ".join(told)

    @pytest.mark.parametrize("language", languages())
    @pytest.mark.parametrize("share", [1e-12, 3e-7, 2e-6, 0.5, 1 - 1e-7])
    def test_a_tile_has_no_interval_only_where_there_is_none(self, share: float, language: str) -> None:
        made, words = document(), Words(language)
        made["failures"]["observed"] = number(share, share / 2, (1 + share) / 2, 400)
        (tile,) = [tile for tile in story.tiles(check(made), words) if tile.label == words("tiles.fail")]
        assert tile.interval.startswith("(")
        assert tile.interval != words("tiles.no_interval")
        assert "(" not in tile.value
        made["failures"]["observed"] = number(share, n=400)
        (tile,) = [tile for tile in story.tiles(check(made), words) if tile.label == words("tiles.fail")]
        assert tile.interval == words("tiles.no_interval")

    def test_a_tile_says_what_to_mind_about_its_number(self) -> None:
        made = document()
        made["diversity"]["oracle"] = number(0.99, 0.98, 0.999, 400, "this interval is wider")
        made["diversity"]["vote_gain"] = number(0.01, n=400, reason="the two differ on few examples")
        *_, vote, oracle = story.tiles(check(made), Words())
        assert (vote.interval, vote.minding) == ("(no interval)", "the two differ on few examples")
        assert (oracle.interval, oracle.minding) == ("(98.0–99.9)", "this interval is wider")
        for text in (plain(markdown(made, Words(), ())), unmarked(page(made, Words(), {}))):
            assert "the two differ on few examples" in text
            assert "this interval is wider" in text

    @pytest.mark.parametrize("language", languages())
    def test_what_to_mind_about_several_tiles_is_said_once(self, language: str) -> None:
        made, words = document(), Words(language)
        few = "there are fewer than 10 such examples, so the interval is wider than it need be"
        for found, key in ((made["failures"], "observed"), (made["diversity"], "oracle")):
            found[key] |= {"reason": few}
        made["diversity"]["best"] |= {"reason": "not recorded"}
        best, *others = story.tiles(check(made), words)
        assert best.minding == words.reason("not recorded")
        assert not [tile.minding for tile in others if tile.minding]
        (told,) = story.minded_tiles(made, words)
        assert words("tiles.fail") in told
        assert words("tiles.oracle") in told
        assert words("tiles.vote") not in told
        for text in (plain(markdown(made, words, ())), unmarked(page(made, words, {}))):
            assert text[: text.index(words("leaderboard.how"))].count(words.reason(few)) == 1
            assert told in text

    @pytest.mark.parametrize("language", languages())
    def test_the_tiles_say_why_the_best_has_another_interval_and_who_decides_a_vote_of_two(self, language: str) -> None:
        words = Words(language)
        for models, key in ((2, "vote_of_two"), (3, "vote_more")):
            made = check(document(models))
            best, _, vote, _ = story.tiles(made, words)
            name = story.names(made)[made["diversity"]["best_model"]]
            assert best.detail == words("tiles.best_more", model=name)
            assert vote.detail == words(f"tiles.{key}", vote=words.value(made["diversity"]["vote"]["value"], "percent"))
        alone = document(1)
        assert story.tiles(check(alone), words)[0].detail == story.names(alone)[0]

    @pytest.mark.parametrize("language", languages())
    def test_a_bound_that_always_holds_is_no_news(self, language: str) -> None:
        made, words = document(2), Words(language)
        made["headline"]["joint_failure"] = estimate(None, 1.0, None, 400, "only a bound", "at_least")
        assert story.opening(check(made), words)[1] == words("answer.together_nothing")
        assert words("answer.insure_apart") not in story.verdict(made, words)
        made["headline"]["joint_failure"] = estimate(None, 1.2, None, 400, "only a bound", "at_least")
        assert "1.2" in story.opening(check(made), words)[1]

    @pytest.mark.parametrize("language", languages())
    @pytest.mark.parametrize("seeds", [1, 3])
    def test_one_pair_is_not_called_the_most_alike(self, seeds: int, language: str) -> None:
        made, words = document(3, seeds=seeds), Words(language)
        start = words(f"answer.the_pair_{made['headline']['measure']}", a="mlp", b="cnn", likeness="").split("{")[0][
            :14
        ]
        assert not [said for said in story.verdict(check(made), words) if said.startswith(start)]
        made["headline"] |= {"models": 2, "left_out": [{"model": 2, "why": "constant"}], "least_alike": None}
        made["headline"]["most_alike"] |= {"a": 0, "b": 1}
        made["headline"]["most_alike"]["likeness"] = number(0.5, 0.4, 0.6, 400, "a model is never wrong")
        *_, last = story.verdict(check(made), words)
        assert last.startswith(start)
        assert last.endswith(words("answer.figure", caution=words.reason("a model is never wrong")))

    @pytest.mark.parametrize("language", languages())
    def test_an_interval_beyond_the_scale_of_kinship_is_said_to_be(self, language: str) -> None:
        made, words = document(3), Words(language)
        once, both = words("answer.off_scale"), words("answer.off_scale_both")

        def told(most: Any, least: Any) -> tuple[int, int]:
            for end, span in (("most_alike", most), ("least_alike", least)):
                made["headline"][end]["likeness"] = number(1.0, *span, 400)
            said = " ".join(story.verdict(check(made), words))
            return said.count(once), said.count(both)

        assert told((0.7, 1.05), (0.1, 0.3)) == (0, 0)
        assert told((0.23, 2.12), (0.1, 0.3)) == (1, 0)
        assert told((0.23, 2.12), (-0.4, 0.8)) == (0, 1)
        made["headline"]["measure"] = "error_correlation"
        assert told((-0.6, 0.6), (-0.7, 0.7)) == (0, 0)

    @pytest.mark.parametrize("language", languages())
    def test_a_run_made_from_another_is_announced_once(self, language: str) -> None:
        words = Words(language)
        made = recorded(document(), {})
        made["headline"]["warnings"] = [{"code": "made_from", "count": 1, "names": [], "runs": [1]}]
        warning = words("warnings.made_from", names=words("lineage.run", model="cnn", seed=0)[:0])[:8]
        drawn = (plain(markdown(check(made), words, ())), unmarked(page(made, words, {})))
        for text in drawn:
            head = text[: text.index(words("leaderboard.how"))]
            assert kin.record(made, words) in head
            assert words("lineage.recorded_counted") in head
            assert warning not in head
        # A screen has no lineage, nor has a report whose weights were not compared.
        assert [line for line in story.first_lines(made, words) if line.startswith(warning)]
        del made["lineage"]
        assert [line for line in kin.cautions(check(made), words) if line.startswith(warning)]

    def test_of_models_that_are_left_out_nothing_is_said_of_the_set(self) -> None:
        made = document(4)
        assert story.of_counted(check(made), "best") == "best"
        assert story.counted_note(made, Words()) == ""
        made["headline"] |= {"models": 3, "left_out": [{"model": 0, "why": "perfect"}]}
        example = next(iter(check(made)["examples"].values()))
        assert [who for who, _ in story.answers(made, example, Words())] == story.names(made)[1:]
        for text in (plain(markdown(made, Words(), ())), unmarked(page(made, Words(), {}))):
            assert "Best of the models that count" in text
            assert "Best single model" not in text

    @pytest.mark.parametrize("language", languages())
    def test_all_tiles_are_of_one_set_of_models_and_say_of_which(self, language: str) -> None:
        """What all models that count fail, a perfect model that is left out does not fail."""
        made, words = document(4), Words(language)
        keys = ("best", "fail", "vote", "oracle")
        assert [tile.label for tile in story.tiles(check(made), words)] == [words(f"tiles.{key}") for key in keys]
        made["headline"] |= {"models": 3, "left_out": [{"model": 0, "why": "perfect"}]}
        labels = [words(f"tiles.{key}_counted") for key in keys]
        assert [tile.label for tile in story.tiles(check(made), words)] == labels
        assert not {*labels} & {words(f"tiles.{key}") for key in keys}
        # Below the two sentences, and in both sections on the models together.
        for text in (plain(markdown(made, words, ())), unmarked(page(made, words, {}))):
            assert text.count(story.counted_note(made, words)) == 3

    @pytest.mark.parametrize("language", languages())
    @pytest.mark.parametrize("models", [1, 4])
    def test_that_nothing_can_be_concluded_of_few_examples_is_said_first(self, models: int, language: str) -> None:
        made, words = document(models), Words(language)
        made["headline"]["warnings"] = [
            {"code": "damaged", "count": 1, "names": ["mlp, seed 3"], "runs": []},
            {"code": "few_examples", "count": 12, "names": [], "runs": []},
        ]
        first, *others = story.first_lines(check(made), words)
        assert first == words("warnings.few_examples", count=12)
        assert len(others) == 3
        assert first not in others
        html = page(made, words, {})
        assert f"<h1>{first}</h1>" in html
        assert html.count(first) == 1
        text = markdown(made, words, ())
        assert text.index(f"**{first}**") < text.index(others[0][:8])
        if models > 1:
            assert story.verdict(made, words)[0] == words("answer.judge_wide")

    def test_pairs_are_told_of_in_the_measure_that_is_shown(self) -> None:
        kinship, errors = (" ".join(story.verdict(check(document(4, seeds=seeds)), Words())) for seeds in (3, 1))
        assert "kinship" in kinship
        assert "kinship" not in errors
        assert "their errors correlate by" in errors


class TestOneRun:
    """A study of one run a model lacks nothing but kinship, and says so once."""

    @pytest.mark.parametrize("language", languages())
    def test_it_has_every_picture_and_says_once_what_it_lacks(self, language: str) -> None:
        made, words = check(document(12, seeds=1)), Words(language)
        drawn = figures(made, words)
        assert {"pairs", "map", "dendrogram"} <= drawn.keys()
        for text in (markdown(made, words, drawn), unmarked(page(made, words, drawn))):
            # Once above the leaderboard, once above the pairs; in no cell of a table.
            assert plain(text).count(words("leaderboard.single_all")) == 1
            assert plain(text).count(words("pairs.all_once")) == 1
            assert words.reason(NO_REPLICAS) not in plain(text)

    def test_the_tables_for_programs_say_once_what_no_pair_has(self) -> None:
        tables = zoo.reporting.render(document(12, seeds=1))
        missing = {
            row["measure"]: row["reason"]
            for row in csv.DictReader(io.StringIO(tables["tables/not_defined.csv"].decode()))
        }
        assert missing["kinship"] == missing["more_alike_than_replicas"] == NO_REPLICAS
        assert "kinship," not in tables["tables/pairs.csv"].decode().replace("excess_", "")
        assert NO_REPLICAS not in tables["tables/claims.csv"].decode()

    def test_shared_wrong_answers_stand_with_how_surprising_they_are(self) -> None:
        made = document(5, seeds=1)
        for pair in made["pairs"]:
            pair["measures"]["shared_wrong_answers"] = number(0.47, 0.4, 0.5, 90)
        made["pairs"][1]["z"] = 41.2
        assert "0.47 (0.40–0.50) z = 41.2" in plain(markdown(check(made), Words(), ()))
        rows = list(csv.DictReader(io.StringIO(zoo.reporting.render(made)["tables/pairs.csv"].decode())))
        assert [row["value"] for row in rows if row["measure"] == "shared_wrong_answers_z"] == ["41.2"]

    def test_some_models_with_one_run_move_all_pairs_to_one_scale_and_that_is_said(self) -> None:
        made = document(5)
        made["headline"]["measure"] = "error_correlation"
        made["models"][1]["seeds"] = [0]
        assert "with a single run: 1 of 5" in " ".join(story.how_pairs(check(made), Words()))
        assert story.main_measure(check(made)) == "error_correlation"


class TestTablesForReaders:
    def test_a_column_that_says_the_same_in_every_row_stands_above_the_table(self) -> None:
        cells = [Cell("3"), Cell("3")]
        columns = [
            Column("Model", [Cell("a"), Cell("b")], "name"),
            Column("Seeds", cells),
            Column("n", [Cell("1"), Cell("2")]),
        ]
        made = table(columns, Words())
        assert [column.title for column in made.columns] == ["Model", "n"]
        assert made.said == ("In every row, Seeds: 3.",)

    def test_what_no_row_has_is_said_with_its_reason_and_names_all_such_columns(self) -> None:
        none = [Cell("—", "one run"), Cell("—", "one run")]
        columns = [Column("Model", [Cell("a"), Cell("b")], "name"), Column("K", none), Column("E", none)]
        assert table(columns, Words()).said == ("K, E: one run.",)

    def test_a_reason_of_several_cells_is_a_mark_that_is_explained_once(self) -> None:
        cells = [Cell("—", "one run"), Cell("0.5"), Cell("—", "one run"), Cell("0.1", "few")]
        made = table([Column("Model", [Cell(name) for name in "abcd"], "name"), Column("K", cells)], Words())
        assert [cell.mark for cell in made.columns[1].cells] == ["¹", "", "¹", ""]
        assert [cell.reason for cell in made.columns[1].cells] == ["", "", "", "few"]
        assert made.said == ("¹ one run",)

    def test_a_table_of_one_row_keeps_everything(self) -> None:
        made = table([Column("Model", [Cell("a")], "name"), Column("K", [Cell("—", "one run")])], Words())
        assert (len(made.columns), made.said) == (2, ())

    @pytest.mark.parametrize(
        "made",
        [document(12, seeds=1), document(12), benched(document()), answered(document()), unrelated(document(), None)],
        ids=["1", "3", "bench", "lineage", "unrelated"],
    )
    def test_no_column_of_any_table_says_the_same_in_every_row(self, made: dict[str, Any]) -> None:
        from markdown_it import MarkdownIt

        text = zoo.reporting.render(made)["report.md"].decode()
        tokens = MarkdownIt("commonmark").enable("table").parse(text[text.index("## Leaderboard") :])
        for rows in tables_of(tokens):
            for title, *cells in zip(*rows, strict=True):
                assert len(cells) < 2 or len(set(cells)) > 1, title


def tables_of(tokens: list[Any]) -> Iterator[list[list[str]]]:
    """The tables of a Markdown text, row by row."""
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            rows[-1].append(token.content)
        elif token.type == "table_close":
            yield rows
            rows = []


class TestChance:
    @pytest.mark.parametrize(
        ("expected", "said"),
        [(0.012, "1.2 %"), (0.00097, "0.097 %"), (2.1e-5, "0.0021 %"), (3e-8, "less than 0.0001 %"), (0.0, "0.0 %")],
    )
    def test_a_small_chance_is_not_shown_as_none(self, expected: float, said: str) -> None:
        assert Words().value(expected, "percent") == said
        assert Words().number(number(expected), "percent") == said

    @pytest.mark.parametrize(("observed", "expected"), [(0.039, 2.1e-5), (0.039, 0.0004), (0.039, 0.02), (0.039, 3e-8)])
    def test_times_chance_and_by_chance_agree(self, observed: float, expected: float) -> None:
        made = document()
        made["failures"] |= {
            "observed": number(observed, n=400),
            "expected": number(expected, n=400),
            "log_ratio": number(math.log(observed / expected), n=400),
        }
        shown = [Words().value(value, "percent") for value in (observed, expected)]
        first, second = (float(re.findall(r"[\d.]+", text)[0]) for text in shown)
        times = story.times_chance(check(made), Words())
        told = float(re.findall(r"[\d.]+", times.replace(",", ""))[0])
        if times.startswith("more than"):
            assert first / second > told
        else:
            assert first / second == pytest.approx(told, rel=0.05)


class TestPair:
    """The table of one pair."""

    def test_by_chance_stands_a_number(self) -> None:
        """Whatever the core says of chance in words or as a formula stands in Methods."""
        import zoo.homogeneity.measures as core

        made = check(document(2))
        for model, accuracy in zip(made["models"], (0.9, 0.8), strict=True):
            model["metrics"]["accuracy"]["value"] = accuracy
        pair = next(story.true_pairs(made))

        def told(name: str) -> str:
            (kind,) = [kind for kind in core.MEASURES if kind.name == name]
            measure = {**made["measures"][0], "name": name, "chance": kind.chance}
            return story.by_chance(made, measure, pair, Words())

        assert {told(name) for name in ("agreement", "disagreement", "double_fault")} == {"0.74", "0.26", "0.02"}
        assert (told("agreement"), told("both_wrong_agreement")) == ("0.74", "1.00")
        made["study"]["classes"] = ["a", "b", "c"]
        assert (told("agreement"), told("both_wrong_agreement")) == ("0.73", "0.50")
        assert told("kinship") == told("excess_kinship") == told("error_correlation") == "0"
        assert told("js_divergence") == told("label_kappa") == "—"  # κ is .48 of independent models of .9 and .8
        for kind in core.MEASURES:
            if kind.scope == "pairs":
                assert re.fullmatch(r"[\d.]+|—", told(kind.name)), kind.name

    @pytest.mark.parametrize(
        ("chance", "said"), [("0.5", "0.5"), ("1/(C − 1)", "—"), ("−0.2, or so", "−0.2"), ("", "—")]
    )
    def test_of_a_plugin_a_number_is_taken_where_it_is_one(self, chance: str, said: str) -> None:
        made = check(document(2))
        measure = {**made["measures"][0], "name": "theirs", "chance": chance}
        assert story.by_chance(made, measure, next(story.true_pairs(made)), Words()) == said

    def test_the_page_has_it_for_each_pair(self) -> None:
        made = check(document(3))
        found = json.loads(re.search(r'id="data">(.*?)</script>', page(made, Words(), {}), re.DOTALL)[1])
        (agreement,) = [measure for measure in found["measures"] if measure["name"] == "agreement"]
        assert len(agreement["chance"]) == len(made["pairs"])
        assert all(re.fullmatch(r"0\.\d\d", text) for text in agreement["chance"])


class TestPage:
    @pytest.mark.parametrize("language", languages())
    def test_why_no_layers_are_compared_is_said(self, language: str) -> None:
        made, words = document(3, layers=0), Words(language)
        made["representations"]["reason"] = "fewer than two models have stored layer outputs"
        told = words("layers.none", reason=words.reason(made["representations"]["reason"]))
        for text in (plain(markdown(check(made), words, ())), unmarked(page(made, words, {}))):
            assert told in text

    @pytest.mark.parametrize("language", languages())
    def test_the_list_of_failures_says_when_a_label_is_suspected(self, language: str) -> None:
        made, words = check(document(3)), Words(language)
        for text in (plain(markdown(made, words, ())), unmarked(page(made, words, {}))):
            shown = min(made["failures"]["total"], 10 if text.startswith("#") else 30)
            assert story.failed_by_all(made, shown, words) in text
        assert words("numbers.percent", value=90) in story.failed_by_all(made, 1, words)

    @pytest.mark.parametrize("language", languages())
    def test_few_repetitions_are_a_first_look(self, language: str) -> None:
        made, words = benched(document(3)), Words(language)
        for repetitions, said in ((10, True), (40, False)):
            made["benches"][0]["repetitions"] = repetitions
            told = story.bench_note(check(made)["benches"][0], words)
            assert (words("bench.first_look", least=40) in told) is said

    def test_it_holds_all_sections_and_no_address(self, four: dict[str, bytes]) -> None:
        html = four["index.html"].decode()
        ids = re.findall(r'<section id="(\w+)"', html)
        assert ids == [
            "leaderboard",
            "pairs",
            "map",
            "recipes",
            "failures",
            "diversity",
            "layers",
            "cost",
            "compared",
            "methods",
            "provenance",
        ]
        addresses = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)""", re.sub(r"(?s)<script.*?</script>", "", html))
        assert len(addresses) > 10
        assert all(address.startswith(("#", "data:")) for address in addresses)

    def test_models_measured_together_have_a_table_a_chart_and_their_ties(self) -> None:
        made = zoo.reporting.render(benched(document()))
        text = made["report.md"].decode()
        cost = text[text.index("## Cost against quality") : text.index("## What was compared")]
        assert cost.count("Examples per second: models that differ by no more than 3.0 % share a rank") == 1
        assert "not recorded" not in cost[: cost.index("### As the runs were trained")]
        assert cost.count("### Measured together") == 3
        assert cost.count("figures/speed.svg") == 1
        assert "Not to be compared with the numbers above: measured on other hardware" in cost
        assert "no speed is ranked" in cost
        row = next(line for line in cost.splitlines() if line.startswith("| cnn "))
        assert "beaten" in row
        assert "5,000 (4,988–5,012)" in row.replace("\u00a0", " ")
        assert "never reached" in row
        rows = list(csv.DictReader(io.StringIO(made["tables/bench.csv"].decode())))
        assert [line["front"] for line in rows] == ["True", "False", "True", "True", "True", "", "", "", ""]
        assert float(rows[1]["samples_per_sec_low"]) == 4987.5
        assert rows[4]["apart"] == "measured on other hardware"
        assert '<div class="chart" id="chart-speed"' in made["index.html"].decode()
        assert "speed" not in figures(check(document()), Words())

    @pytest.mark.parametrize("language", languages())
    @pytest.mark.parametrize(
        ("floor", "ranks", "told"),
        [(1.03, (1, 1, 3), "ties"), (1.9, (None, None, None), "level"), (2.0, (None,) * 3, "noisy"),
         (41.0, (None,) * 3, "noisy")],
    )  # fmt: skip
    @pytest.mark.parametrize(("of", "rank"), [("floor", "rank"), ("latency_floor", "latency_rank")])
    def test_what_no_noise_allows_is_not_ranked_and_that_is_said_in_words(
        self, of: str, rank: str, floor: float, ranks: tuple[int | None, ...], told: str, language: str
    ) -> None:
        made, words = benched(document(3)), Words(language)
        bench = made["benches"][0]
        bench[of] = floor
        for entry, place in zip(bench["models"], ranks, strict=True):
            entry[rank] = place
        note = story.bench_note(check(made)["benches"][0], words)
        percent = words.value(floor - 1, "percent")
        assert words(f"bench.{told}", what=words(f"bench.of_{rank}"), floor=percent) in note
        assert (percent in note) == (told != "noisy")
        titles = [column.title for column in bench_table(made, words, bench).columns]
        assert (words(f"bench.{rank}") in titles) == (told == "ties")

    def test_shared_weights_are_said_first_and_shown_in_table_tree_and_csv(self) -> None:
        made = zoo.reporting.render(related(document()))
        text = made["report.md"].decode()
        said = text.index("Shared weights: mlp and cnn: derived (2 of 9 pairs of runs); mlp and transformer")
        assert text.index("4 models count as") < said < text.index("Most alike are")
        section = text[text.index("## Shared weights") : text.index("## Failing together")]
        assert "expected (pairs of runs: 1): runs of mlp with each other: 1 of 3 pairs of runs – its seed" in section
        assert "numbering of units (R1), exact: p < 10⁻²⁹, corrected < 10⁻²⁹, score 0.432, n = 96" in section
        assert section.count("figures/lineage.svg") == 1
        assert "| mlp, seed 1<br>mlp, seed 2 | derived | Every number is the other's, pruned." in section
        assert "| copy |" not in section
        assert section.index("### Pairs of runs that share weights") < section.index("### Family tree")
        assert section.count("No tensor of the one has a counterpart in the other.") == 1
        assert "Pairs of models about which nothing is known (6): " in section
        assert "- R1: the same numbering of hidden units. Null hypothesis: the two were initialised" in section
        assert section.count("the two were initialised and trained independently") == 3  # R1, R2, R3, once each
        assert "the run keeps no weights" in section
        assert "R2: inputs that no training moved" in text
        tree = made["figures/lineage.svg"].decode()
        places = [tree.index(f"mlp, seed {seed}") for seed in (0, 1, 2)]
        assert places == sorted(places)
        assert tree.count('stroke-dasharray="1,3"') == 2  # of the arc whose direction nothing tells
        assert '<div class="chart" id="chart-lineage"' in made["index.html"].decode()
        rows = list(csv.DictReader(io.StringIO(made["tables/lineage.csv"].decode())))
        assert len(rows) == 10
        assert (rows[1]["a"], rows[1]["b"], rows[1]["derived"], rows[1]["undetermined"]) == ("mlp", "cnn", "2", "7")
        runs = list(csv.DictReader(io.StringIO(made["tables/lineage_runs.csv"].decode())))
        assert len(runs) == 12
        assert [row["test"] for row in runs[:4]] == ["numbers", "R1", "R2", "R3"]
        assert float(runs[1]["p"]) == 1e-30

    @pytest.mark.parametrize(
        ("tested", "said"),
        [
            (None, "No pair of runs shares weights, as far as the weights can tell (66 pairs of runs tested"),
            (5, "No pair of runs that could be tested shares weights, as far as the weights can tell (17 of 66"),
            (0, "could not be tested: No tensor of the one has a counterpart in the other."),
        ],
    )
    def test_without_shared_weights_the_section_alone_says_so_and_there_is_no_tree(
        self, tested: int | None, said: str
    ) -> None:
        made = check(unrelated(document(), tested))
        assert said in kin.sentence(made, Words())
        assert kin.verdict(made, Words()) == story.verdict(made, Words())
        assert "lineage" not in figures(made, Words())
        assert Words()("lineage.no_tree") in page(made, Words())

    def test_what_is_so_by_construction_is_one_line_of_the_section_and_no_news(self) -> None:
        made = unrelated(document(), None)
        listed = related(document())["lineage"]["listed"][0]
        start = {"verdict": "common ancestor", "explained": "one seed"}
        made["lineage"]["listed"] = [listed, *({**listed, **start, "a": 0, "b": b} for b in (3, 4, 5))]
        for pair, count in zip(made["lineage"]["pairs"], (1, 3), strict=False):
            pair |= {"verdicts": {"common ancestor": count, "undetermined": pair["run_pairs"] - count}}
        checked = check(made)
        assert kin.verdict(checked, Words()) == story.verdict(checked, Words())
        assert kin.sentence(checked, Words()).startswith(
            "Apart from what is on record or shared by construction, no pair"
        )
        line = kin.constructed(checked, Words())
        assert line == (
            "Shared by construction, as expected (pairs of runs: 4): runs of mlp with each other: 1 of 3 pairs of runs "
            "– its seed changes nothing; mlp and cnn: 3 of 9 pairs of runs – the same seed drew their initial weights."
        )
        text = zoo.reporting.render(made)["report.md"].decode()
        assert "\n\n" + line + "\n\n" in text
        assert "### Pairs of runs that share weights" not in text
        html = page(checked, Words())
        assert f"<details><summary>{line}</summary>" in html
        assert "<bdi>mlp, seed 0</bdi><br>" not in html
        made["lineage"]["listed"][1]["explained"] = None
        made["lineage"]["pairs"][1]["unexplained"] = 1
        assert kin.verdict(check(made), Words())[0].startswith("Shared weights: mlp and cnn: common ancestor (1 of 9")

    def test_siblings_are_not_counted_with_what_nothing_explains(self) -> None:
        made = related(document())
        pair, runs = made["lineage"]["pairs"][2], [run["model"] for run in made["provenance"]["runs"]]
        one, two = runs.index(pair["a"]), len(runs) - 1 - runs[::-1].index(pair["b"])
        pair |= {"verdicts": {"common ancestor": 3}, "run_pairs": 3, "unexplained": 1}
        like = made["lineage"]["listed"][0]
        siblings = [(one, two), (one, two - 1)]
        made["lineage"]["listed"] += [
            {**like, "a": a, "b": b, "verdict": "common ancestor", "explained": "one seed"} for a, b in siblings
        ]
        told = kin.sentence(check(made), Words())
        names = story.names(made)
        among = f"{names[pair['a']]} and {names[pair['b']]}"
        among = f"runs of {names[pair['a']]} with each other" if pair["a"] == pair["b"] else among
        assert f"{among}: common ancestor (1 of 3 pairs of runs)" in told

    def test_the_methods_give_the_formula_of_each_test_of_weights_and_name_what_is_published(self) -> None:
        text = zoo.reporting.render(recorded(document(), {}))["report.md"].decode()
        methods = dict(part.split("\n", 1) for part in text.split("\n### "))
        for key, source in (("order", "Zhu et al. 2025"), ("dead", ""), ("aligned", "Vovk et al. 2005")):
            about = methods[Words()(f"methods.lineage_{key}_title")]
            assert source in about
            assert re.search(r"^`[TrS] = .*p = .*`$", about, flags=re.MULTILINE)

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({}, "On record: mlp, seed 1 was made from mlp, seed 0 (prune:0.5, permute)."),
            ({"parent": None, "label": "gone", "seed": None, "steps": []},
             "On record: mlp, seed 1 was made from gone, seed —, a run that is not among these."),
            ({"parent": None, "label": "gone", "seed": 4, "steps": ["noise:0.3"]},
             "On record: mlp, seed 1 was made from gone, seed 4 (noise:0.3), a run that is not among these."),
            ({"against": "unrelated weights"}, "but their weights are no more alike than those of unrelated models."),
            ({"against": "other weights"}, "but the weights that the record names are not the ones stored now."),
            ({"against": "parent came later"}, "but the weights show the opposite order."),
        ],
    )  # fmt: skip
    def test_records_come_first_in_sentence_table_and_tree(self, changed: dict[str, Any], said: str) -> None:
        made = recorded(document(), changed)
        told = kin.verdict(check(made), Words())
        assert told[0].endswith(said.removeprefix("On record: "))
        assert told[0].startswith("On record: mlp, seed 1 was made from")
        assert told[1].startswith("Shared weights: mlp and cnn: derived")
        text = zoo.reporting.render(made)["report.md"].decode()
        section = text[text.index("## Shared weights") : text.index("## Failing together")]
        assert section.index("On record: ") < section.index("Shared weights: ") < section.index("| First model")
        first = next(line for line in section.splitlines() if line.startswith("| mlp | mlp |"))
        assert "| on record: prune:0.5, permute |" in first
        assert section.index("| mlp | mlp |") < section.index("| mlp | cnn |")
        assert section.index("### Pairs of runs on record") < section.index("### Pairs of runs that share weights")
        assert "| mlp, seed 0<br>mlp, seed 1 | copy |" in section
        tree = figures(check(made), Words())["lineage"].spec
        assert "mlp, seed 1 – on record" in json.dumps(tree, ensure_ascii=False)
        zh = zoo.reporting.render(made, "zh")["report.md"].decode()
        assert "有记录可查：mlp（种子 1）由" in zh

    def test_of_many_records_those_that_weights_contradict_are_named(self) -> None:
        made = recorded(document(), {})
        told = made["lineage"]["on_record"][0]
        made["lineage"]["on_record"] = [told] * 9 + [{**told, "child": 5, "against": "unrelated weights"}]
        said = kin.record(check(made), Words())
        assert said.startswith(
            "On record: cnn, seed 2 was made from mlp, seed 0 (prune:0.5, permute), but their weights"
        )
        assert said.endswith("; 6 more runs.")

    def test_no_column_says_the_same_in_every_row(self) -> None:
        made = unrelated(document(), None)
        table = kin.table(check(made), Words())
        assert table is not None
        assert len(list(table.rows())) == 10
        # There is nothing to note in any row, which is not worth a sentence.
        assert "Note" not in [column.title for column in table.columns] + " ".join(table.said).split()
        assert all(len(set(column.cells)) > 1 for column in table.columns if column.kind != "name")
        listed = related(document())["lineage"]["listed"][1]
        other = "Every number is the other's, kept. No test finds shared weights."
        made["lineage"]["listed"] = [listed, {**listed, "a": 4, "b": 5, "statement": other}]
        table = kin.runs_table(check(made), "weights", Words())
        assert [column.title for column in table.columns] == ["Runs", "Why"]
        assert [row[1][1].text for row in table.rows()] == [
            "Every number is the other's, pruned.", "Every number is the other's, kept.",
        ]  # fmt: skip
        assert table.said[0].startswith("In every row, Verdict: derived; Evidence: ")
        assert "\n" not in table.said[0]
        assert table.said[1:] == ("No test finds shared weights.",)
        made["lineage"]["listed"].pop()
        whole = kin.runs_table(check(made), "weights", Words())
        assert [column.title for column in whole.columns] == ["Runs", "Verdict", "Why", "Evidence"]

    def test_answers_that_are_alike_are_said_first_and_shown_in_table_and_csv(self) -> None:
        made = zoo.reporting.render(answered(document()))
        text = made["report.md"].decode()
        said = text.index("Answers more alike than those of independent trainings on the same data: runs of cnn with")
        assert text.index("4 models count as") < said < text.index("Most alike are")
        section = text[text.index("## Shared weights") : text.index("## Failing together")]
        assert "so it decides nothing" in section
        assert "Errors repeated, at most" in section
        assert "| 62.5 % (47.0–75.8) of 40 |" in section.replace("\u00a0", " ")
        assert "### Pairs of runs that answer more alike than independent trainings" in section
        assert "| behaviourally derived | Their answers are more alike than 19 same-data" in section
        assert "repeated errors (B1), heuristic: 62.5 % (47.0–75.8), n = 40" in section.replace("\u00a0", " ")
        assert "residual correlation (B2), conformal: p = 0.05, corrected 0.05, score 0.800, n = 400, a" in section
        assert "- B2: residual correlation of answers. Null hypothesis: the one was trained on its data" in section
        assert "B1, B2: answers" in text
        assert '<th scope="col">Errors repeated, at most</th>' in made["index.html"].decode()
        rows = list(csv.DictReader(io.StringIO(made["tables/lineage.csv"].decode())))
        assert rows[4]["behaviourally derived"] == "1"
        assert [rows[0][key] for key in ("repeated", "repeated_low", "repeated_high", "repeated_n")] == [
            "0.625", "0.47", "0.758", "40",
        ]  # fmt: skip
        assert (rows[0]["wrong"], rows[0]["seed_wrong"], rows[0]["repeats"], rows[0]["seed_repeats"]) == (
            "mlp", "2", "mlp", "1",
        )  # fmt: skip
        assert (rows[2]["repeated"], rows[2]["wrong"], rows[2]["repeated_mean"]) == ("", "", "")
        runs = list(csv.DictReader(io.StringIO(made["tables/lineage_runs.csv"].decode())))
        assert [row["test"] for row in runs[:7]] == ["numbers", "R1", "R2", "R3", "B1", "B1", "B2"]
        assert (runs[4]["statistic"], runs[4]["low"], runs[4]["high"]) == ("0.625", "0.47", "0.758")
        assert (runs[3]["low"], runs[5]["low"]) == ("", "")

    @pytest.mark.parametrize(
        ("references", "said"),
        [
            (None, "could not be tested: it is unknown on what data bert was trained."),
            (4, "but at most 4 each, and a single pair needs at least 19 to reach p ≤ 0.05."),
            (
                50,
                "For one of so many pairs to stand out, 1,439 references would be needed. A pair chosen in advance can",
            ),
        ],
    )
    def test_what_answers_could_tell_is_said_in_the_section_alone(self, references: int | None, said: str) -> None:
        made = answered(document(), references=references)
        made["lineage"]["pairs"][4] |= {"verdicts": {"undetermined": 9}, "strongest": None}
        told = kin.answers(check(made), Words())
        assert said in told[0]
        assert told[0] not in kin.verdict(check(made), Words())
        # Without references that suffice, nothing is known of what weights do not tell, but for the repeated errors.
        residual = next(row for row in made["lineage"]["listed"][-1]["evidence"] if row["test"] == "B2")
        made["lineage"]["pairs"][5]["strongest"] = residual
        found = kin.table(check(made), Words())
        assert found is not None
        rows = [tuple(cell.text for _, cell in row[:2]) for row in found.rows()]
        assert (("cnn", "transformer") in rows) == (references == 50)
        apart = kin.apart(check(made), Words())
        assert apart[-1].startswith("The figure after a pair is the largest share")
        listed = " ".join(apart[:-1])
        assert "bert\u00a062.5 % of 40" in listed
        assert len(rows) + listed.count("–") + listed.count("with itself") == 10

    def test_a_document_of_before_answers_were_compared_reads_as_it_did(self) -> None:
        made = zoo.reporting.render(related(document()))
        text = made["report.md"].decode()
        assert "This section rests on the stored weights alone" in text
        assert not [word for word in ("Errors repeated", "B1", "B2") if word in text]
        assert "Errors repeated" not in made["index.html"].decode()
        assert not {"low", "repeated", "references"} & set(
            made["tables/lineage.csv"].decode().split("\n")[0].split(",")
        )
        assert "low" not in made["tables/lineage_runs.csv"].decode().split("\n")[0].split(",")

    def test_chinese_tells_of_answers_throughout(self) -> None:
        made = answered(document(names=["甲", "乙", "丙", "丁"]))
        for pair in made["lineage"]["listed"]:
            pair["statement"] = pair["statement"].replace("references of mlp", "references of 甲")
        text = zoo.reporting.render(made, "zh")["report.md"].decode()
        section = text[text.index("## 共享权重") : text.index("## 共同失败")]
        assert "它们的回答比 甲 的 19 个同数据参照都更相像" in section
        assert "权重不足以判定。其中一个的张量在另一个中都没有对应。" in section
        assert "- B1：第一个的错误答案中第二个也给出的。" in section
        assert "40 个中的 62.5 %" in section

    def test_one_model_alone_is_told_of_its_own_runs(self) -> None:
        made = unrelated(document(), None)
        made["lineage"]["pairs"] = [pair for pair in made["lineage"]["pairs"] if pair["a"] == pair["b"] == 0]
        assert kin.sentence(check(made), Words()).startswith("No pair of runs shares weights")

    def test_a_report_without_lineage_says_nothing_of_it(self, four: dict[str, bytes]) -> None:
        assert not [name for name in four if "lineage" in name]
        assert "R1" not in four["report.md"].decode()

    def test_it_stays_small_and_says_what_it_left_out(self) -> None:
        html = page(check(document(100, examples=2000)), Words())
        assert len(html.encode()) < LIMIT
        assert Words()("page.shortened") in html

    def test_even_enormous_examples_do_not_make_it_large(self) -> None:
        made = document(30, examples=900)
        for example in made["examples"].values():
            example["text"] = "wörd " * 20_000
        html = page(check(made), Words())
        assert len(html.encode()) < LIMIT

    def test_models_with_one_run_are_named_and_escaped(self) -> None:
        made = document(3, names=["many", "<b>", "once"])
        made["models"][1]["seeds"] = made["models"][2]["seeds"] = [0]
        assert "One run only: &lt;b&gt;, once." in page(check(made), Words())
        assert "One run only: " in plain(zoo.reporting.render(made)["report.md"].decode())
        assert "One run only" not in page(check(document(3)), Words())

    def test_without_examples_nothing_of_them_is_in_any_file(self) -> None:
        made = document(content=None)
        files = zoo.reporting.render(made)
        assert not [
            name for name, content in files.items() if re.search(rb"A film so dull|image/png;base64,\w", content)
        ]
        assert Words()("failures.no_content") in files["index.html"].decode()

    def test_script_data_cannot_end_its_element(self) -> None:
        value = ["</script><!--", "&amp;", "\u2028\u2029", "\ud800"]
        text = script_json(value)
        assert not set(text) & set("<>&\u2028\u2029")
        assert json.loads(text) == value

    def test_pictures_are_shown_only_when_they_are_base64(self) -> None:
        made = document(content="image")
        first = made["failures"]["every_model_fails"][0]["id"]
        made["examples"][first]["png"] = '"><script>window.hacked=1</script>'
        html = page(check(made), Words())
        assert "data:image/png;base64," in html
        assert "window.hacked" not in html

    def test_the_budgets_only_shrink(self) -> None:
        from zoo.reporting.page import _BUDGETS

        for larger, smaller in pairwise(_BUDGETS):
            assert all(getattr(smaller, field) <= getattr(larger, field) for field in Budget.__dataclass_fields__)


class TestUntrusted:
    def test_no_hostile_markup_in_the_page(self, hostile: dict[str, bytes]) -> None:
        html = hostile["index.html"].decode()
        assert html.count("<script") == 3
        assert "<script>window" not in html
        assert "<img src=x" not in html

    def test_markdown_shows_the_text_and_makes_nothing_of_it(self, hostile: dict[str, bytes]) -> None:
        from markdown_it import MarkdownIt

        tokens = MarkdownIt("commonmark", {"linkify": False}).enable("table").parse(hostile["report.md"].decode())
        inline = [child for token in tokens for child in token.children or []]
        assert {token.content for token in [*tokens, *inline] if token.type.startswith("html")} <= {"<br>"}
        assert not [token for token in inline if token.type == "link_open"]
        assert {token.attrs["src"] for token in inline if token.type == "image"} <= {
            f"figures/{name.removeprefix('figures/')}" for name in hostile if name.startswith("figures/")
        }
        rows = [token for token in tokens if token.type == "tr_open"]
        assert len(rows) > 20
        shown = "".join(token.content for token in inline if token.type == "text")
        assert "</script><script>window.hacked=3</script>" in shown
        assert "a|b`c`*d*[e](http://example.invalid) # heading" in shown

    def test_svg_is_well_formed_and_holds_text_only(self, hostile: dict[str, bytes]) -> None:
        drawn = [name for name in hostile if name.endswith(".svg")]
        assert len(drawn) == 9
        for name in drawn:
            root = ElementTree.fromstring(hostile[name])
            tags = {element.tag.rpartition("}")[2] for element in root.iter()}
            assert tags <= {
                "svg",
                "g",
                "path",
                "text",
                "rect",
                "line",
                "defs",
                "linearGradient",
                "stop",
                "clipPath",
                "tspan",
            }
            assert not [
                key for element in root.iter() for key in element.attrib if key.startswith("on") or "href" in key
            ]

    def test_no_cell_of_a_table_begins_a_formula(self, hostile: dict[str, bytes]) -> None:
        for name in hostile:
            if not name.endswith(".csv"):
                continue
            rows = list(csv.reader(io.StringIO(hostile[name].decode())))
            assert len({len(row) for row in rows}) == 1, name
            starts = {
                cell
                for row in rows
                for cell in row
                if cell[:1] in ("=", "+", "@", "\t", "\r") or re.match(r"-(?![\d.])", cell)
            }
            assert not starts

    def test_no_name_becomes_part_of_an_expression(self) -> None:
        import vl_convert

        made = check(document(len(HOSTILE), names=[f"N{index}('); //{name}" for index, name in enumerate(HOSTILE)]))
        for figure in figures(made, Words()).values():
            compiled = vl_convert.vegalite_to_vega({**painted(figure.spec), "width": 300, "height": 300})
            assert not [text for text in expressions(compiled) if re.search(r"N\d+\(", text)]


def expressions(value: Any, key: str = "") -> list[str]:
    """Every text of a Vega specification that Vega parses as an expression."""
    if isinstance(value, dict):
        return [text for name, item in value.items() for text in expressions(item, name)]
    if isinstance(value, list):
        return [text for item in value for text in expressions(item, key)]
    return (
        [value] if key in ("expr", "signal", "test", "update", "init", "labelExpr") and isinstance(value, str) else []
    )


class TestTables:
    def test_numbers_are_those_of_the_document(self, four: dict[str, bytes]) -> None:
        made = document()
        rows = list(csv.DictReader(io.StringIO(four["tables/pairs.csv"].decode())))
        missing = {"both_wrong_agreement", "shared_wrong_answers"}
        assert len(rows) == sum(len(pair["measures"].keys() - missing) for pair in made["pairs"])
        row = next(row for row in rows if (row["a"], row["b"], row["measure"]) == ("mlp", "cnn", "kinship"))
        kinship = made["pairs"][1]["measures"]["kinship"]
        assert float(row["value"]) == kinship["value"]
        assert int(row["n"]) == kinship["n"]

    def test_an_undefined_number_is_an_empty_cell_beside_its_reason(self) -> None:
        made = document()
        made["pairs"][1]["measures"]["kinship"] = undefined("always right")
        rows = csv.DictReader(io.StringIO(zoo.reporting.render(made)["tables/pairs.csv"].decode()))
        row = next(row for row in rows if row["measure"] == "kinship")
        assert (row["value"], row["reason"]) == ("", "always right")

    def test_the_headline_has_a_table(self, four: dict[str, bytes]) -> None:
        rows = list(csv.DictReader(io.StringIO(four["tables/headline.csv"].decode())))
        assert [(row["number"], float(row["value"])) for row in rows] == [
            ("effective_models", 1.6), ("joint_failure", 2.1), ("recipe_diversity", 1.4),
        ]  # fmt: skip


class TestWrite:
    def test_a_report_replaces_a_report_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        folder = tmp_path / "deep" / "report"
        first = zoo.reporting.write(document(), folder)
        (folder / "figures" / "speed.svg").write_text("old")
        zoo.reporting.write(document(1), folder)
        assert first == folder / "index.html"
        assert os.listdir(folder.parent) == ["report"]
        assert sorted(os.listdir(folder)) == ["figures", "index.html", "report.json", "report.md", "tables"]
        assert not (folder / "figures" / "speed.svg").exists()
        assert stat.S_IMODE(folder.stat().st_mode) & 0o500 == 0o500
        assert json.loads((folder / "report.json").read_text("utf-8")) == document(1)

    def test_the_same_document_gives_the_same_bytes(self, four: dict[str, bytes]) -> None:
        assert zoo.reporting.render(document()) == four

    def test_a_folder_with_other_things_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(RequestError, match="no part of a report: thesis"):
            zoo.reporting.write(document(1), tmp_path)
        assert os.listdir(tmp_path) == ["thesis.tex"]

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="is a file where a folder is needed"):
            zoo.reporting.write(document(1), tmp_path / "file" / "report")

    def test_a_wrong_document_touches_nothing(self, tmp_path: Path) -> None:
        zoo.reporting.write(document(1), tmp_path / "report")
        before = (tmp_path / "report" / "report.json").read_bytes()
        with pytest.raises(ValueError, match="schema_version is missing"):
            zoo.reporting.write({}, tmp_path / "report")
        assert (tmp_path / "report" / "report.json").read_bytes() == before
