"""What the page about reports tells to run, runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_about_reports_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / "report.md").read_text(encoding="utf-8"), re.DOTALL))
    names: dict[str, object] = {}
    exec(code, names)
    assert {p.name for p in tmp_path.iterdir()} == {"gradient.pdf", "report.png"}
    assert "<iframe" in names["report"]._repr_html_()  # type: ignore[attr-defined]
