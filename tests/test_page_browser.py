"""The page in a real browser: hostile strings, charts, hover, click, keyboard, accessibility, sizes and speed."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from reporting_documents import HOSTILE, answered, benched, document, related, undefined_everywhere, warned

from zoo.reporting.page import LIMIT, page
from zoo.reporting.schema import check, undefined
from zoo.reporting.words import Words

playwright_api = pytest.importorskip("playwright.sync_api")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHARTS = ["cost", "dendrogram", "diversity", "failures", "layers", "map", "pairs"]


@dataclass
class Visit:
    """An open page, and everything it should not have done. busy: processor seconds of its thread until it was ready,
    which other work on the machine hardly changes; waited: seconds on the clock."""

    page: Any
    busy: float
    waited: float
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with playwright_api.sync_playwright() as playwright:
        if program is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium: install one, e.g. apt-get install chromium, or playwright install chromium")
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


Make = Callable[..., Path]


@pytest.fixture(scope="module")
def made(folder: Path) -> Make:
    """`made(name, document, language)`: the file of the page, written once."""

    def write(name: str, content: dict[str, Any], language: str = "en") -> Path:
        path = folder / f"{name}.html"
        if not path.exists():
            path.write_text(page(check(content), Words(language)), "utf-8", "replace")
        return path

    return write


@pytest.fixture(scope="module")
def hostile(made: Make) -> Path:
    content = document(len(HOSTILE), names=list(HOSTILE), hostile=HOSTILE[2])
    return made("hostile", answered(benched(content, HOSTILE[2]), HOSTILE[2]))


@pytest.fixture(scope="module")
def four(made: Make) -> Path:
    return made("four", document())


@contextmanager
def opened(browser: Any, path: Path, scheme: str = "light", width: int = 1180, scripts: bool = True) -> Iterator[Visit]:
    """The page, once its charts are drawn; scripts: whether the reader allows them."""
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, java_script_enabled=scripts
    )
    complaints: list[str] = []
    tab = context.new_page()
    tab.on("console", lambda message: complaints.append(f"console {message.type}: {message.text}"))
    tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    tab.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    tab.on(
        "request",
        lambda request: complaints.append(request.url) if request.url.startswith(("http", "ws", "ftp")) else None,
    )
    tools = context.new_cdp_session(tab)
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})
    begun = time.perf_counter()
    tab.goto(path.as_uri())
    if scripts:
        tab.wait_for_selector("html[data-ready]", timeout=20_000)
    waited = time.perf_counter() - begun
    known = {metric["name"]: metric["value"] for metric in tools.send("Performance.getMetrics")["metrics"]}
    try:
        yield Visit(tab, known["TaskDuration"], waited, complaints)
    finally:
        context.close()


def shadowed(box: Any) -> tuple[bool, bool]:
    """Whether the left and the right edge of what scrolls are darker, or in the dark lighter, than the ground next to
    them, seen in a row of pixels below all text and above the last line."""
    from PIL import Image

    box.scroll_into_view_if_needed()
    shot = Image.open(io.BytesIO(box.screenshot())).convert("L")
    row = [shot.getpixel((x, shot.height - 5)) for x in range(shot.width)]
    # Not the last pixels: a width that is no whole number of them leaves a line of shadow when all is scrolled.
    return abs(row[1] - row[60]) > 20, abs(row[-4] - row[-61]) > 20


def drawn(visit: Visit) -> list[str]:
    """The names of the charts that hold a picture with marks in it."""
    return sorted(
        visit.page.evaluate(
            """() => [...document.querySelectorAll('.chart')].filter((chart) => {
                const svg = chart.querySelector('svg');
                if (svg) return svg.querySelectorAll('path, text').length > 5 && svg.clientHeight > 50;
                const canvas = chart.querySelector('canvas');
                if (!canvas) return false;
                const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
                return new Set(pixels).size > 20;
            }).map((chart) => chart.id.slice('chart-'.length))"""
        )
    )


def cell(visit: Visit, key: str) -> Any:
    """The heatmap's cell of a pair of models, as `a,b`."""
    position = visit.page.evaluate(
        """(key) => [...document.querySelectorAll('#chart-pairs svg path')]
            .findIndex((path) => path.__data__ && path.__data__.datum && path.__data__.datum.key === key)""",
        key,
    )
    assert position >= 0
    return visit.page.locator("#chart-pairs svg path").nth(position)


class TestHostile:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_no_script_runs_no_request_leaves_and_all_charts_are_drawn(
        self, browser: Any, hostile: Path, scheme: str
    ) -> None:
        with opened(browser, hostile, scheme) as visit:
            assert visit.page.evaluate("window.hacked") is None
            assert drawn(visit) == sorted([*CHARTS, "lineage", "speed"])
            cell(visit, "0,2").hover(force=True)
            assert "<script>window.hacked=1</script>" in visit.page.locator(".tip").inner_text()
            cell(visit, "1,2").click(force=True)
            for select in ("measure", "grid"):
                visit.page.locator(f"#{select}").select_option(index=1)
            visit.page.wait_for_timeout(300)
            assert visit.page.evaluate("window.hacked") is None
            assert visit.page.locator("script").count() == 3
            assert visit.page.locator("img").count() == 0
            assert visit.complaints == []

    def test_the_policy_stops_a_script_even_if_one_got_in(self, browser: Any, four: Path) -> None:
        with opened(browser, four) as visit:
            visit.page.evaluate(
                """() => {
                    const script = document.createElement('script');
                    script.textContent = 'window.hacked = 1';
                    document.body.append(script);
                    const image = document.createElement('img');
                    image.src = 'http://example.invalid/x.png';
                    document.body.append(image);
                }"""
            )
            visit.page.wait_for_timeout(200)
            assert visit.page.evaluate("window.hacked") is None
            assert len([text for text in visit.complaints if "Content Security Policy" in text]) >= 2

    def test_names_are_shown_as_they_are(self, browser: Any, hostile: Path) -> None:
        with opened(browser, hostile) as visit:
            shown = visit.page.locator("#leaderboard tbody").inner_text()
            assert "{{7*7}}${7*7}{% raw %}{model}" in shown
            assert "🦊🦊 ünïcödé 模型" in shown


class TestLooking:
    def test_hover_tells_all_measures_of_the_pair(self, browser: Any, four: Path) -> None:
        with opened(browser, four) as visit:
            assert not visit.page.locator(".tip").is_visible()
            cell(visit, "0,1").hover(force=True)
            said = visit.page.locator(".tip").inner_text()
            assert "mlp – cnn" in said
            assert all(title in said for title in ("Kinship", "Error consistency κ", "Agreement", "n = 400"))
            visit.page.mouse.move(2, 2)
            assert not visit.page.locator(".tip").is_visible()

    def test_click_fills_the_lists_of_examples(self, browser: Any, four: Path) -> None:
        with opened(browser, four) as visit:
            cell(visit, "1,3").click(force=True)
            panel = visit.page.locator("#pair")
            assert panel.locator("h3").inner_text() == "cnn – bert"
            assert panel.locator("ul.examples li").count() == 24
            assert "They answer differently" in panel.inner_text()
            assert "Both are wrong" in panel.inner_text()
            assert visit.page.locator("#first").input_value() == "1"
            assert visit.complaints == []

    def test_the_keyboard_reaches_every_pair(self, browser: Any, four: Path) -> None:
        with opened(browser, four) as visit:
            visit.page.locator("#first").focus()
            visit.page.keyboard.press("Home")
            visit.page.keyboard.press("Tab")
            assert visit.page.evaluate("document.activeElement.id") == "second"
            visit.page.keyboard.press("End")
            assert visit.page.locator("#pair h3").inner_text() == "mlp – bert"
            visit.page.locator("#second").press("Home")
            assert visit.page.locator("#pair h3").inner_text() == "Replicas of mlp"

    def test_another_measure_redraws_the_heatmap(self, browser: Any, four: Path) -> None:
        with opened(browser, four) as visit:
            before = visit.page.locator("#chart-pairs svg").inner_html()
            visit.page.locator("#measure").select_option(label="Disagreement")
            visit.page.wait_for_function(
                "document.querySelector('#chart-pairs svg').textContent.includes('Disagreement')"
            )
            assert visit.page.locator("#chart-pairs svg").inner_html() != before
            assert "Disagreement" in (visit.page.locator("#chart-pairs").get_attribute("aria-label") or "")

    def test_a_study_of_one_run_a_model_offers_its_measures_and_says_once_what_it_lacks(
        self, browser: Any, made: Make
    ) -> None:
        with opened(browser, made("once", document(12, seeds=1))) as visit:
            offered = visit.page.locator("#measure option").all_inner_texts()
            assert "Excess error correlation" in offered
            assert "Kinship" not in offered
            chosen = visit.page.locator("#measure").evaluate("(select) => select.selectedOptions[0].textContent")
            assert chosen == "Error correlation φ"
            assert drawn(visit) == CHARTS
            text = visit.page.locator("body").inner_text()
            assert text.count("Every model has one run") == 1
            assert text.count("needs two runs of every model, and each has one") == 1
            assert "two runs or more" not in text
            cell(visit, "0,1").click(force=True)
            assert "two runs or more" not in visit.page.locator("#pair").inner_text()
            assert visit.complaints == []

    def test_a_reason_is_said_once_for_all_measures_of_a_pair_that_it_concerns(self, browser: Any, made: Make) -> None:
        content = document()
        for name in ("kinship", "excess_kinship"):
            content["pairs"][1]["measures"][name] = undefined("always right")
        with opened(browser, made("reason", content)) as visit:
            cell(visit, "0,1").click(force=True)
            assert visit.page.locator("#pair").inner_text().count("always right") == 1
            assert visit.page.locator("#pair th", has_text="Kinship, Excess kinship").count() == 1

    def test_warnings_stand_in_the_first_view_right_below_the_two_sentences(self, browser: Any, made: Make) -> None:
        with opened(browser, made("warned", warned(document(5)))) as visit:
            for caution in visit.page.locator(".caution").all()[:3]:
                assert caution.bounding_box()["y"] < 900
            places = visit.page.evaluate(
                "() => ['h1', '.second', '.caution', '.verdict p:not(.second):not(.caution)', '.tiles']"
                ".map((name) => document.querySelector(name).getBoundingClientRect().top)"
            )
            assert places == sorted(places)

    def test_another_scheme_redraws_the_charts(self, browser: Any, four: Path) -> None:
        with opened(browser, four) as visit:
            assert visit.page.evaluate("document.documentElement.dataset.charts") == "light"
            visit.page.emulate_media(color_scheme="dark")
            visit.page.wait_for_selector('html[data-charts="dark"]')
            visit.page.wait_for_function("document.querySelector('#chart-map svg').innerHTML.includes('#79b3f0')")
            assert visit.complaints == []

    def test_images_are_shown_small(self, browser: Any, made: Make) -> None:
        with opened(browser, made("images", document(content="image"))) as visit:
            image = visit.page.locator("#failures img").first
            assert image.evaluate("(image) => image.naturalWidth") == 14
            assert visit.complaints == []


class TestReaders:
    @pytest.mark.parametrize(
        ("name", "scheme"), [("four", "light"), ("hostile", "dark"), ("undefined", "dark"), ("one", "light")]
    )
    def test_axe_finds_nothing(self, browser: Any, made: Make, hostile: Path, name: str, scheme: str) -> None:
        contents = {
            "four": document,
            "hostile": document,
            "undefined": undefined_everywhere,
            "one": lambda: document(1),
        }
        path = hostile if name == "hostile" else made(name, contents[name]())
        with opened(browser, path, scheme) as visit:
            visit.page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
            visit.page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))
            found = visit.page.evaluate("axe.run(document)")
            told = [(rule["id"], [node["html"][:200] for node in rule["nodes"][:3]]) for rule in found["violations"]]
            assert told == []
            assert len(found["passes"]) > 20

    @pytest.mark.parametrize("width", [320, 390])
    def test_a_phone_need_not_scroll_sideways(self, browser: Any, hostile: Path, four: Path, width: int) -> None:
        for path in (four, hostile):
            with opened(browser, path, width=width) as visit:
                assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
                assert drawn(visit) == (CHARTS if path == four else sorted([*CHARTS, "lineage", "speed"]))

    @pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
    @pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
    def test_what_is_wider_than_its_room_says_that_it_scrolls(
        self, browser: Any, hostile: Path, made: Make, width: int, scheme: str, scripts: bool
    ) -> None:
        wide = made("wide", answered(benched(document())))
        scrolling = 0
        for path in (hostile, wide):
            with opened(browser, path, scheme, width, scripts) as visit:
                visit.page.evaluate(
                    "document.querySelectorAll('details').forEach((details) => { details.open = true; })"
                )
                assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
                for box in visit.page.locator(".scroll, .chart").all():
                    if not scripts and not box.locator(".fit").count():
                        continue  # a chart that is not drawn
                    wider = box.evaluate("(box) => box.scrollWidth > box.clientWidth")
                    scrolling += wider
                    sign = box.locator(".wider").bounding_box()
                    assert sign is not None
                    assert (sign["width"] > 100 and sign["height"] > 12) == wider, box.get_attribute("aria-label")
                    assert sign["height"] < 30
                    if wider:
                        assert box.locator(".wider").evaluate("(line) => line.scrollWidth <= line.clientWidth")
                        for caption in box.locator("caption").all():  # to be read without scrolling
                            assert caption.evaluate("(caption) => caption.clientWidth") <= width
                        assert shadowed(box) == (False, True)
                        box.evaluate("(box) => { box.scrollLeft = 1e6; }")
                        assert shadowed(box) == (True, False)
                        moved = box.locator(".wider").bounding_box()
                        assert moved is not None
                        assert moved["x"] == pytest.approx(sign["x"], abs=1)  # the line stays in sight
                    elif box.get_attribute("class") == "scroll":  # a chart may have marks there
                        assert shadowed(box) == (False, False), box.get_attribute("aria-label")
                outside = visit.page.evaluate(
                    """(width) => [...document.querySelectorAll('main *, header *')].filter((part) =>
                        !part.parentElement.closest('.scroll, .chart') && part.getBoundingClientRect().right > width + 1
                        && part.checkVisibility()).map((part) => part.outerHTML.slice(0, 80))""",
                    width,
                )
                assert outside == []
        assert scrolling > (10 if width == 390 else 1)

    def test_it_prints(self, browser: Any, four: Path) -> None:
        with opened(browser, four, scheme="dark") as visit:
            printed = visit.page.pdf()
            assert printed.startswith(b"%PDF")
            visit.page.emulate_media(media="print")
            assert (
                visit.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
                == "rgb(255, 255, 255)"
            )
            assert not visit.page.locator("nav").is_visible()

    def test_chinese_says_so_to_the_browser(self, browser: Any, made: Make) -> None:
        with opened(browser, made("zh", document(), "zh")) as visit:
            assert visit.page.locator("html").get_attribute("lang") == "zh-Hans"
            assert "个相互独立的模型" in visit.page.locator("h1").inner_text()
            assert drawn(visit) == CHARTS
            assert visit.complaints == []


class TestScale:
    @pytest.mark.parametrize(
        ("name", "content", "charts"),
        [
            ("one", lambda: document(1), ["failures"]),
            ("two", lambda: document(2, seeds=1), ["cost", "dendrogram", "diversity", "failures", "layers", "pairs"]),
            ("undefined", undefined_everywhere, []),
            ("benched", lambda: benched(document()), sorted([*CHARTS, "speed"])),
            ("related", lambda: related(document()), sorted([*CHARTS, "lineage"])),
            ("answered", lambda: answered(document()), sorted([*CHARTS, "lineage"])),
        ],
    )
    def test_little_evidence_has_a_sensible_page(
        self, browser: Any, made: Make, name: str, content: Callable[[], dict[str, Any]], charts: list[str]
    ) -> None:
        with opened(browser, made(name, content())) as visit:
            assert drawn(visit) == charts
            assert visit.complaints == []
            text = visit.page.locator("body").inner_text()
            assert not [word for word in ("undefined", "NaN", "null", "None", "Infinity") if word in text.split()]

    def test_a_hundred_models_take_two_seconds_of_the_processor_at_most(self, browser: Any, made: Make) -> None:
        path = made("hundred", document(100, examples=2000))
        assert path.stat().st_size < LIMIT
        busy, waited = [], []
        for _ in range(3):
            with opened(browser, path) as visit:
                busy.append(visit.busy)
                waited.append(visit.waited)
                assert drawn(visit) == CHARTS
                assert visit.complaints == []
        assert 0 < min(busy) < 2
        assert min(waited) < 5  # on a machine that does other work at the same time
