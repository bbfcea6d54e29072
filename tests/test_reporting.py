"""The files of a report: their form, their texts, and that nothing untrusted gets out of its place in any of them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from reporting_documents import HOSTILE, answered, benched, document, related, undefined_everywhere, unrelated

import zoo.reporting
from zoo.errors import ConfigError, RequestError, StoreError
from zoo.reporting import kin, story
from zoo.reporting.figures import figures, painted
from zoo.reporting.markdown import markdown
from zoo.reporting.page import LIMIT, Budget, page, script_json
from zoo.reporting.schema import check, describe, number, undefined
from zoo.reporting.words import Words, catalogue, clean, languages, translations

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
            (("schema_version",), 2, "schema_version is 2, and 1 is understood"),
            (("map", "leaf_order"), [0], "document.map.leaf_order should be 4 entries, or none"),
            (("answer", "surprise"), 1, "document.answer has a field 'surprise'"),
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
        made["answer"]["effective"] = number((low + high) / 2, low, high, 400, caution)
        made["left_out"] *= 101
        yield made
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
        pair["verdicts"] = {"derived": pair["run_pairs"]}
    yield crowded
    yield from (unrelated(document(), tested) for tested in (None, 5, 0))
    yield from (document(content="image"), document(10), document(1), document(2, seeds=1), undefined_everywhere())


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

        names = {found.name for found in vars(core).values() if isinstance(found, type) and hasattr(found, "source")}
        assert len(names) > 10
        assert {name for name in names if f"measures.{name}" not in catalogue("zh")} == set()

    def test_chinese_is_written_throughout(self) -> None:
        made = zoo.reporting.render(document(names=["甲", "乙", "丙", "丁"]), "zh")
        text = made["report.md"].decode()
        assert "**4 个模型的表现相当于 1.6 \\(1.5–1.7\\) 个独立模型。**" in text
        assert '<html lang="zh-Hans">' in made["index.html"].decode()
        english = {text for key, text in catalogue("en").items() if len(text) > 12}
        assert not [sentence for sentence in english if sentence in text]

    def test_reasons_are_translated_with_what_stands_in_them(self) -> None:
        words = Words("zh")
        said = words.reason("from a random sample of 5 of 9 examples; a model is never wrong")
        assert said == "取自 9 个样本中随机抽取的 5 个; 有一个模型从不出错"
        assert words.reason("something nobody foresaw") == "something nobody foresaw"

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

    def test_an_unknown_language_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(ConfigError, match=r"language=de\. Written: en, zh\."):
            Words("de")

    def test_placeholders_in_values_stay_as_they_are(self) -> None:
        assert "{b} and {0}" in Words()("answer.least_alike", a="{b}", b="{0}", kinship="0.1")


class TestWords:
    @pytest.mark.parametrize(
        ("given", "style", "said"),
        [
            (number(0.412, 0.35, 0.468), "plain", "0.41\u00a0(0.35–0.47)"),
            (number(-0.1, -0.2, 0.0), "plain", "−0.10\u00a0(−0.20 to 0.00)"),
            (number(0.8214, 0.8031, 0.8387), "percent", "82.1 %\u00a0(80.3–83.9)"),
            (number(-0.001), "plain", "0.00"),
            (undefined("0/0"), "plain", "—"),
        ],
    )
    def test_numbers_read_as_people_write_them(self, given: Any, style: str, said: str) -> None:
        assert Words().number(given, style) == said

    def test_misleading_characters_become_visible(self) -> None:
        assert clean("a\u202eb\n\tc\x00\ud800") == "a�b c��"

    def test_names_stay_distinct_when_they_are_shortened(self) -> None:
        made = document(3, names=["x" * 80 + "1", "x" * 80 + "2", "__proto__"])
        shown = story.names(check(made))
        assert len(set(shown)) == 3
        assert max(map(len, shown)) < 70
        assert "__proto__" not in shown


class TestAnswer:
    @pytest.mark.parametrize(
        ("effective", "sentence"),
        [
            (number(1.6, 1.4, 1.9, 9), "4 models behave like 1.6\u00a0(1.4–1.9) independent ones."),
            (number(1.04, 1.01, 1.06, 9), "4 models behave like 1.04\u00a0(1.01–1.06) independent ones."),
            (
                undefined("one run"),
                "The evidence does not suffice to say how many independent models these 4 amount to.",
            ),
        ],
    )
    def test_the_headline(self, effective: Any, sentence: str) -> None:
        made = document()
        made["answer"]["effective"] = effective
        assert story.headline(check(made), Words()) == sentence

    @pytest.mark.parametrize(
        ("low", "high", "judged"),
        [
            (1.1, 1.5, "almost as one model"),
            (3.6, 4.0, "almost independently"),
            (1.2, 3.9, "too wide"),
            (2, 3, "good part"),
        ],
    )
    def test_the_judgement_follows_the_interval_not_the_estimate(self, low: float, high: float, judged: str) -> None:
        made = document()
        made["answer"]["effective"] = number((low + high) / 2, low, high, 400)
        assert judged in story.verdict(check(made), Words())[0]

    def test_without_an_answer_the_reason_is_said(self) -> None:
        assert "The reason: needs two seeds of each model." in story.verdict(check(document(2, seeds=1)), Words())


class TestPage:
    def test_it_holds_all_sections_and_no_address(self, four: dict[str, bytes]) -> None:
        html = four["index.html"].decode()
        ids = re.findall(r'<section id="(\w+)"', html)
        assert ids == [
            "leaderboard",
            "pairs",
            "map",
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
        assert "Speeds that differ by no more than 3.0 % share a rank" in cost
        assert cost.count("### Measured together") == 3
        assert cost.count("figures/speed.svg") == 1
        assert "Not to be compared with the numbers above\\: measured on other hardware" in cost
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

    def test_shared_weights_are_said_first_and_shown_in_table_tree_and_csv(self) -> None:
        made = zoo.reporting.render(related(document()))
        text = made["report.md"].decode()
        said = text.index("Shared weights\\: mlp and cnn\\: derived \\(2 of 9 pairs of runs\\); mlp and transformer")
        assert text.index("4 models behave like") < said < text.index("Most alike are")
        section = text[text.index("## Shared weights") : text.index("## Failing together")]
        assert "runs of mlp among each other\\: copy \\(1 of 3 pairs of runs\\) – all its runs" in section
        assert "p \\= 10⁻³⁰" in section
        assert section.count("figures/lineage.svg") == 1
        assert "| mlp, seed 0<br>mlp, seed 1 | copy | Every number is the other" in section
        assert section.index("### Pairs of runs that share weights") < section.index("### Family tree")
        assert "the run keeps no weights" in section
        assert "R2: inputs that no training moved" in text
        tree = made["figures/lineage.svg"].decode()
        places = [tree.index(f"mlp, seed {seed}") for seed in (0, 1, 2)]
        assert places == sorted(places)
        assert tree.count('stroke-dasharray="4,3"') == 2  # of the arc whose direction is a heuristic alone
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
            (None, "No pair of different models shares weights, as far as weights can tell (54 pairs of runs tested"),
            (5, "No pair of different models that could be tested shares weights, as far as weights can tell (5 of 54"),
            (0, "could not be tested: No tensor of the one has a counterpart in the other."),
        ],
    )
    def test_without_shared_weights_that_is_said_last_and_there_is_no_tree(self, tested: int | None, said: str) -> None:
        made = check(unrelated(document(), tested))
        assert said in kin.verdict(made, Words())[-1]
        assert "lineage" not in figures(made, Words())
        assert Words()("lineage.no_tree") in page(made, Words())

    def test_what_is_so_by_construction_is_told_last_and_a_models_own_runs_in_the_section_alone(self) -> None:
        made = unrelated(document(), None)
        start = "all its runs started from one checkpoint: a common ancestor by construction"
        for pair in made["lineage"]["pairs"]:
            if (pair["a"], pair["b"]) in ((0, 0), (0, 1)):
                pair |= {"verdicts": {"common ancestor": pair["run_pairs"]}, "note": start}
        told = kin.verdict(check(made), Words())
        assert told[-1].startswith("Shared weights: mlp and cnn: common ancestor (9 of 9 pairs of runs) – all its")
        assert "among each other" not in told[-1]
        assert "runs of mlp among each other: common ancestor" in kin.sentence(check(made), Words())
        made["lineage"]["pairs"][1]["note"] = None
        assert kin.verdict(check(made), Words())[0] == told[-1].replace(f" – {start}", "")

    def test_answers_that_are_alike_are_said_first_and_shown_in_table_and_csv(self) -> None:
        made = zoo.reporting.render(answered(document()))
        text = made["report.md"].decode()
        said = text.index(
            "Answers more alike than those of independent trainings on the same data\\: runs of cnn among"
        )
        assert text.index("4 models behave like") < said < text.index("Most alike are")
        section = text[text.index("## Shared weights") : text.index("## Failing together")]
        assert "so it decides nothing" in section
        assert "Errors repeated, at most" in section
        assert "| 62.5 % \\(47.0–75.8\\) of 40 |" in section.replace("\u00a0", " ")
        assert "### Pairs of runs that answer more alike than independent trainings" in section
        assert "| behaviourally derived | Their answers are more alike than 19 same\\-data" in section.replace(
            "-", "\\-"
        )
        assert "\\(B1\\)\\: heuristic, 62.5 % \\(47.0–75.8\\), n \\= 40" in section.replace("\u00a0", " ")
        assert (
            "\\(B2\\)\\: conformal, p \\= 0.05, corrected 0.05, score 0.800, n \\= 400, against 19 references"
            in section
        )
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
            (4, "have at most 4, and 19 are the fewest with which a pair alone can reach p ≤ 0.05."),
            (
                50,
                "For one of so many pairs to stand out, 1,439 would be needed; a pair named beforehand is tested alone",
            ),
        ],
    )
    def test_what_answers_could_tell_is_said_in_the_section_alone(self, references: int | None, said: str) -> None:
        made = answered(document(), references=references)
        made["lineage"]["pairs"][4] |= {"verdicts": {"undetermined": 9}, "strongest": None}
        told = kin.answers(check(made), Words())
        assert said in told[0]
        assert told[0] not in kin.verdict(check(made), Words())
        why = kin.why(made["lineage"]["pairs"][4], Words())
        assert ("Answers have no references: it is unknown" in why) == (references is None)

    def test_a_document_of_before_answers_were_compared_reads_as_it_did(self) -> None:
        made = zoo.reporting.render(related(document()))
        text = made["report.md"].decode()
        assert "This rests on the stored weights alone" in text
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
        assert "第一个的错误答案中第二个也给出的 \\(B1\\)" in section
        assert "40 个中的 62.5 %" in section

    def test_one_model_alone_is_told_of_its_own_runs(self) -> None:
        made = unrelated(document(), None)
        made["lineage"]["pairs"] = [pair for pair in made["lineage"]["pairs"] if pair["a"] == pair["b"] == 0]
        assert kin.verdict(check(made), Words())[-1].startswith("No pair of runs shares weights")

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
        assert "One run only: " in zoo.reporting.render(made)["report.md"].decode()
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
        assert len(rows) == sum(len(pair["measures"]) for pair in made["pairs"])
        row = next(row for row in rows if (row["a"], row["b"], row["measure"]) == ("mlp", "cnn", "kinship"))
        kinship = made["pairs"][1]["measures"]["kinship"]
        assert float(row["value"]) == kinship["value"]
        assert int(row["n"]) == kinship["n"]

    def test_an_undefined_number_is_an_empty_cell_beside_its_reason(self, four: dict[str, bytes]) -> None:
        rows = csv.DictReader(io.StringIO(four["tables/pairs.csv"].decode()))
        row = next(row for row in rows if row["measure"] == "both_wrong_agreement")
        assert (row["value"], row["reason"]) == ("", "of two classes, two wrong answers are always the same")


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
