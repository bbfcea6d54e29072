"""Untrusted text in Markdown: shown as it is, on one line, with no more backslashes than that takes.

Only what could begin or end markup is escaped, in CommonMark and in what code hosts add to it: tables, strikethrough,
mathematics and links out of bare addresses.
"""

from __future__ import annotations

import re

from zoo.reporting.words import clean

_ANYWHERE = re.compile(
    r"""
    (?P<char>
        [`*~$|]                                       # code, emphasis, strikethrough, mathematics, cells of a table
      | \\(?=[!-/:-@\[-`{-~]|$)                       # a backslash counts before punctuation alone
      | (?<![^\W_])_+ | _+(?![^\W_])                  # within a word an underscore is no emphasis
      | <(?=[A-Za-z/!?]|$) | (?<=\S)>                  # a tag, or an address in angle brackets
      | &(?=\#?[A-Za-z0-9]+;)                         # an entity
      | \](?=[\[(:]|$)                                # the end of the text of a link, or of its definition
      | (?<=[\w.+-])@(?=\w)                           # an address of mail
      | (?<=www)\.                                    # addresses of the web; so is the next
      | (?<=http):(?=//) | (?<=https):(?=//) | (?<=ftp):(?=//) | (?<=mailto): | (?<=xmpp):
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_AT_THE_START = re.compile(
    r"""
      (?P<char> [-+](?=\s|$|-|\+) | > | \#{1,6}(?=\s|$) | \[(?=[ xX]\]) )   # lists, rules, quotes, titles, tasks
    | (?P<number> \d{1,9} ) (?P<dot> [.)] ) (?=\s|$)                        # numbered lists
    """,
    re.VERBOSE,
)
_END_OF_A_TITLE = re.compile(r"(?<=\s)(#+)$")


def escape(text: str) -> str:
    """Markdown that shows exactly this text, on one line: at the start of a line, in a title, in a sentence, in an item
    of a list or in a cell of a table. White space is collapsed and misleading characters are made visible (`clean`).
    What stands next to it is a space, or punctuation that is no markup."""
    text = clean(text)
    start, at = "", 0
    if found := _AT_THE_START.match(text):
        at = found.end()
        start = f"{found['number']}\\{found['dot']}" if found["number"] else f"\\{found['char']}"
    parts = [start]
    for one in _ANYWHERE.finditer(text, at):
        parts += [text[at : one.start()], *(f"\\{char}" for char in one["char"])]
        at = one.end()
    return _END_OF_A_TITLE.sub(r"\\\1", "".join([*parts, text[at:]]))
