"""Untrusted text in Markdown, as an independent reader of it (markdown-it) shows it."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from zoo.reporting.escaping import escape
from zoo.reporting.markdown import table
from zoo.reporting.words import clean

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
MARKUP = list("\\`*_{}[]()<>#+-.!|~@:&^=\"'$;/ \n\t0123456789ax×模")
PIECES = ["http://a.b", "https://", "www.a.b", "a@b.de", "mailto:a@b.de", "&lt;", "&#60;", "<b>", "<!--", "](x)", "![",
          "1. ", "- ", "# ", "---", "***", "===", "> ", "```", "~~a~~", "[a]: b", "[ ] ", "rotten_tomatoes", "__a__",
          "| a |",          " |---| ", "<br>", "\\", "a * b", "$x$", "C:\\dir\\file"]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(MARKUP), st.sampled_from(PIECES)), max_size=14).map("".join)
HARDEST = ["1.", "- a", "-", "--- ", "# a #", "a #", "#", "\\|", "\\\\|", "a\\", "[x] a", "[a](b)", "<",
           "&lt;", "+ +", "a_b_c", "_a_", "a_ b", "1) x", "-1.5", "=", ">", "$a$", "x@y.z", "]", "](",
           "a|b`c`*d*[e](http://a.b)\n# f"]  # fmt: skip


def shown(tokens: list[Token]) -> str:
    """The text of a block, without markup; ValueError where there is any but text."""
    (inline,) = [token for token in tokens if token.type == "inline"]
    if kinds := {token.type for token in inline.children or []} - {"text"}:
        raise ValueError(f"{kinds} in {inline.content!r}")
    return "".join(token.content for token in inline.children or [])


def kinds(tokens: list[Token]) -> list[str]:
    return [token.type for token in tokens if token.type.endswith("_open")]


def hardest(test):
    for text in HARDEST:
        test = example(text=text)(test)
    return test


@hardest
@settings(max_examples=500)
@given(text=texts)
def test_a_line_a_title_and_an_item_show_the_text_itself(text: str) -> None:
    wanted = clean(text)
    if not wanted:
        return
    for before, blocks in (("", ["paragraph_open"]), ("## ", ["heading_open"]),
                           ("- ", ["bullet_list_open", "list_item_open", "paragraph_open"])):  # fmt: skip
        tokens = READER.parse(before + escape(text))
        assert kinds(tokens) == blocks
        assert shown(tokens) == wanted


@hardest
@settings(max_examples=300)
@given(text=texts)
def test_between_words_and_beside_another_text_it_stays_itself(text: str) -> None:
    own, escaped = clean(text), escape(text)
    assert shown(READER.parse(f"a {escaped} b")) == f"a {own} b"
    if own:
        assert shown(READER.parse(f"{escaped} {escaped}")) == f"{own} {own}"
    (inline,) = [
        token for token in READER.parse(f"**a** {escaped} ({escaped}), {escaped}: b") if token.type == "inline"
    ]
    marked = [token.type for token in inline.children or [] if token.type != "text"]
    assert marked == ["strong_open", "strong_close"]


@settings(max_examples=300)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
@example([("a|b", "\\|"), ("\n|", "`|`")])
def test_a_table_stays_a_table_with_the_texts_in_its_cells(rows: list[tuple[str, str]]) -> None:
    text = table([escape(one) for one in rows[0]], [[escape(cell) for cell in row] for row in rows[1:]])
    tokens = READER.parse(text)
    assert tokens[0].type == "table_open"
    assert kinds(tokens).count("tr_open") == len(rows)
    assert {token.type for token in tokens if not token.type.startswith(("t", "inline"))} == set()
    cells = [token for token in tokens if token.type == "inline"]
    assert ["".join(child.content for child in cell.children or []) for cell in cells] == [
        clean(cell) for row in rows for cell in row
    ]
    assert {child.type for cell in cells for child in cell.children or []} <= {"text"}


@pytest.mark.parametrize(
    "address", ["http://a.b", "HTTPS://a.b/c", "www.a.b", "ftp://a.b", "a.c+d@e.fg", "mailto:a@b.de"]
)
def test_code_hosts_make_no_link_of_an_address(address: str) -> None:
    """The extended autolinks of GitHub's Markdown: what they look for is interrupted by a backslash."""
    assert not re.search(r"(?i)(https?|ftp)://|www\.|(mailto|xmpp):|[\w.+-]@\w", escape(address))


@pytest.mark.parametrize(
    "plain",
    [
        "rotten_tomatoes",
        "5 models count as 1.9 (1.8–2.0) independent ones: p = 0.03, n = 12",
        "p < 0.001, p ≤ .05, p > 0.99",
        "cnn, seed 0",
        "hidden=[512], dropout=0.5",
        'it isn\'t, "quoted"; a/b + c^2 & d {e}',
        "-4.4 (-6.7 to -2.3)",
        "C:\\dir\\file",
        "R&D #3!",
    ],
)
def test_what_is_no_markup_stays_without_backslashes(plain: str) -> None:
    assert escape(plain) == plain
