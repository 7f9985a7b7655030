"""Report -> one HTML file that loads nothing: styles, script and data are inside, and its policy forbids the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evengrad.report.document import document, put
from evengrad.report.markup import Markup, el
from evengrad.report.report import Report
from evengrad.report.sections import article
from evengrad.report.troubles import counted
from evengrad.report.view import View, view

EXPLAINED = "explained"  # where `evengrad explain --all -o explained` puts its pages


def render(report: Report, *, pages: str | None = None) -> str:
    """Returns the page of one report; `pages` is the address of the folder that `evengrad explain --all` wrote, if findings are to link."""
    shown = view(report)
    return document(f"{shown.title} · evengrad", el("main", article(shown, report.trace, 1, level=1, pages=pages)))


def write(report: Report, path: str | Path) -> Path:
    """Writes the page of one report as UTF-8 and returns its path; findings link to a folder `explained` that lies beside it."""
    beside = Path(path).parent / EXPLAINED
    return put(render(report, pages=f"{EXPLAINED}/" if (beside / "index.html").is_file() else None), path)


def render_many(reports: Sequence[Report], title: str) -> str:
    """Returns one page with a section for each report, and links to them at the top."""
    shown = [view(r) for r in reports]
    links = [el("li", _link(v, r, n)) for n, (v, r) in enumerate(zip(shown, reports, strict=True), 1)]
    head = el("header", el("h1", title), el("nav", el("ol", *links), aria_label="reports"), class_="many")
    articles = [article(v, r.trace, n, level=2) for n, (v, r) in enumerate(zip(shown, reports, strict=True), 1)]
    return document(f"{title} · evengrad", el("main", head, *articles))


def write_many(reports: Sequence[Report], title: str, path: str | Path) -> Path:
    """Writes the page of several reports as UTF-8 and returns its path."""
    return put(render_many(reports, title), path)


def _link(shown: View, report: Report, number: int) -> Markup:
    state = f"{report.verdict.replace('_', ' ')}, {shown.verdict.figure}" if shown.trials else counted(shown.findings)
    return el("a", el("span", class_=f"light {shown.verdict.tone}"), el("b", shown.title), el("span", state), href=f"#report-{number}")
