"""From findings to files: one document in, a folder that people and programs can read out.

Nothing here computes a statistic: what the report says is in the document (`zoo.reporting.schema`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.reporting.replacing import DOCUMENT, MARKDOWN, PAGE, replace, restore
from zoo.store import disk
from zoo.store.places import require_apart

__all__ = ["DOCUMENT", "MARKDOWN", "PAGE", "render", "restore", "write"]

ELSEWHERE = "out=… (in a sweep reports_dir=…)"
"""How another folder for reports is chosen."""


def write(document: Mapping[str, Any], folder: str | Path, language: str = "en") -> Path:
    """Write a report: index.html, report.md with figures/*.svg, report.json and tables/*.csv.

    document: findings as `zoo.reporting.schema.Document` has them; folder: made, or replaced when it holds a report;
    language: of the texts, `en` or `zh`. Returns the path of the page. The folder changes in one step: nobody sees
    half a report. Raises ValueError when the document has not the form of the schema, ConfigError for a language there
    is no catalogue of, RequestError when the folder holds something else, StoreError when it cannot be written.
    """
    target = Path(folder)
    with disk.chosen_with(ELSEWHERE):
        require_apart(target)
        parts = render(document, language)
        with disk.writing(target):
            replace(parts, target)
    return target / PAGE


def render(document: Mapping[str, Any], language: str = "en") -> dict[str, bytes]:
    """The files of a report by their path within it, without writing any. Raises as `write` does."""
    from zoo.reporting.figures import figures, svg
    from zoo.reporting.markdown import markdown
    from zoo.reporting.page import page
    from zoo.reporting.schema import check
    from zoo.reporting.tables import tables
    from zoo.reporting.words import Words

    checked, words = check(document), Words(language)
    charts = figures(checked, words)
    texts = {
        PAGE: page(checked, words, charts),
        MARKDOWN: markdown(checked, words, charts),
        DOCUMENT: json.dumps(checked, ensure_ascii=False, allow_nan=False, indent=1) + "\n",
        **{f"figures/{name}.svg": svg(figure) for name, figure in charts.items()},
        **{f"tables/{name}": text for name, text in tables(checked).items()},
    }
    # Half of a surrogate pair may come out of a damaged data file, and no encoding has it.
    return {name: text.encode("utf-8", "replace") for name, text in texts.items()}
