"""Report -> what a notebook shows: a frame that holds the whole page and lets nothing out."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import evengrad as eg
from evengrad.report.html import render
from evengrad.report.notebook import framed


@pytest.mark.parametrize("name", ["check", "run", "hostile"])
def test_a_report_shows_its_page_in_a_frame(samples: ModuleType, name: str) -> None:
    report = getattr(samples, name)()
    frame = re.fullmatch(r'<iframe sandbox="allow-scripts" title="([^"]*)" style="[^"]*" srcdoc="([^"]*)"></iframe>', report._repr_html_())
    assert frame is not None
    assert html.unescape(frame[2]) == render(report)
    assert "<" not in frame[1]


def test_a_page_that_is_too_large_becomes_its_text() -> None:
    shown = framed("x" * 9_000_000, title="t", otherwise="layer <script>")
    assert shown.startswith("<pre>layer &lt;script&gt;")
    assert "9 MB" in shown
    assert len(shown) < 500


def test_a_study_shows_itself_without_matplotlib(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="studies need torch")
    code = f"""
import html, sys
sys.modules["matplotlib"] = None
import evengrad as eg
result = eg.study("two-circles", seeds=2, epochs=2).run(quick=True, store={str(tmp_path)!r})
shown = html.unescape(result._repr_html_())
assert html.escape(result.answer.splitlines()[0]) in shown
assert "<table" in shown
assert "Pictures" not in shown
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_monitor_shows_what_it_has_seen_so_far() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    with eg.watch(model, torch.optim.SGD(model.parameters(), 0.1), name="<script>") as monitor:
        shown = monitor._repr_html_()
    assert shown.startswith("<iframe sandbox=")
    assert "<script>" not in shown


def test_what_fix_found_out_shows_and_prints_its_report(samples: ModuleType) -> None:
    repair = pytest.importorskip("evengrad.repair")
    report = samples.fixed()
    nothing = {"outcomes": (), "chosen": (), "experiment": None, "changes": None}
    result = repair.FixResult(verdict="fixed", report=report, **nothing)
    assert result._repr_html_() == report._repr_html_()
    assert str(result) == str(report)
