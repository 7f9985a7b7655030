"""Reports as they were: words of the page and of the terminal, kept as files. EVENGRAD_GOLDEN=1 writes them anew; look at the change."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

from evengrad.report.html import render
from evengrad.report.text import plain

GOLDEN = Path(__file__).parent / "golden"


def words(page: str) -> str:
    """The page's text, a line an element, without the rules' own explanations, which change with the rules."""
    body = page.partition("<body>")[2]
    body = re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
    body = re.sub(r'<div class="lesson">.*?(?=</details></div></div>|</details><p class="read-on">)', "", body, flags=re.DOTALL)
    lines = (html.unescape(part).strip() for part in re.sub(r"<[^>]+>", "\n", body).split("\n"))
    return "\n".join(line for line in lines if line) + "\n"


@pytest.mark.parametrize("name", ["check", "fixed", "fixed_run", "nothing_helped", "healthy", "run"])
@pytest.mark.parametrize("kind", ["page", "text"])
def test_a_report_reads_as_before(samples: ModuleType, name: str, kind: str) -> None:
    report = getattr(samples, name)()
    found = words(render(report)) if kind == "page" else plain(report)
    path = GOLDEN / f"{name}.{kind}.txt"
    if os.environ.get("EVENGRAD_GOLDEN"):
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text("utf-8"), f"{path.name} differs: look at the change, then write it anew with EVENGRAD_GOLDEN=1"
