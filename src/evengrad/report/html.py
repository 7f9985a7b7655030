"""Report -> one HTML file that loads nothing: styles, script and data are inside, and its policy forbids the rest."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from evengrad.report.markup import Markup, el, escape
from evengrad.report.report import Report
from evengrad.report.sections import article
from evengrad.report.troubles import counted
from evengrad.report.view import View, view


def render(report: Report) -> str:
    """Returns the page of one report."""
    shown = view(report)
    return _page(f"{shown.title} · evengrad", el("main", article(shown, report.trace, 1, level=1)))


def write(report: Report, path: str | Path) -> Path:
    """Writes the page of one report as UTF-8 and returns its path."""
    return _write(render(report), path)


def render_many(reports: Sequence[Report], title: str) -> str:
    """Returns one page with a section for each report, and links to them at the top."""
    shown = [view(r) for r in reports]
    links = [el("li", _link(v, r, n)) for n, (v, r) in enumerate(zip(shown, reports, strict=True), 1)]
    head = el("header", el("h1", title), el("nav", el("ol", *links), aria_label="reports"), class_="many")
    articles = [article(v, r.trace, n, level=2) for n, (v, r) in enumerate(zip(shown, reports, strict=True), 1)]
    return _page(f"{title} · evengrad", el("main", head, *articles))


def write_many(reports: Sequence[Report], title: str, path: str | Path) -> Path:
    """Writes the page of several reports as UTF-8 and returns its path."""
    return _write(render_many(reports, title), path)


def _link(shown: View, report: Report, number: int) -> Markup:
    state = f"{report.verdict.replace('_', ' ')}, {shown.verdict.figure}" if shown.trials else counted(shown.findings)
    return el("a", el("span", class_=f"light {shown.verdict.tone}"), el("b", shown.title), el("span", state), href=f"#report-{number}")


def _page(title: str, body: Markup) -> str:
    style, script = _resource("page.css"), _resource("page.js")
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; base-uri 'none'; form-action 'none'"
    parts = {"policy": policy, "title": escape(title), "style": style, "script": script, "body": body}
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], _resource("template.html"))


@cache
def _resource(name: str) -> str:
    return files("evengrad.report").joinpath("page", name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _write(page: str, path: str | Path) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    part.replace(target)  # a page is there whole, or not at all
    return target
