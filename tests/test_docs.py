"""What the page about causes tells to run, runs."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_about_causes_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "causes.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(block, {})
