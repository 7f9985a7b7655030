"""SearchResult -> a self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from evengrad.lab.pictures import picture
from evengrad.lab.search.result import SearchResult
from evengrad.lab.search.table import account, table, verdict
from evengrad.lab.sheet import figure, page, put, section
from evengrad.report.markup import Markup, el, prose
from evengrad.report.numbers import plural, seconds


def write(result: SearchResult, path: str | Path) -> Path:
    """Writes the page, whole or not at all, and returns its path."""
    target = Path(path)
    put(target, render(result).encode("utf-8", "replace"))
    return target


def render(result: SearchResult) -> str:
    """Returns the HTML page: the best, what to change, the table, pictures."""
    title = f"Search of {result.name or 'an experiment'}"
    said = [el("p", prose(verdict(result)), class_="answer"), *(el("p", prose(line), class_="note") for line in account(result))]
    parts = [
        el("h1", title),
        el("p", f"{plural(len(result.trials), 'trial')}, seed {result.seed}, {seconds(result.seconds)}", class_="meta"),
        el("section", el("div", *said), class_="verdict"),
        *section("What to change", el("pre", result.patch or "nothing")),
        *section("Best trials", _table(result)),
        *section("Pictures", *(figure(picture(caption, draw())) for caption, draw in result.figures.items())),
    ]
    return page(f"{title} · evengrad", el("main", *parts))


def _table(result: SearchResult) -> Markup:
    header, lines = table(result)
    head = el("thead", el("tr", *(el("th", name, scope="col") for name in header)))
    body = el("tbody", *(el("tr", *(el("td", cell) for cell in line)) for line in lines))
    return el("div", el("table", head, body), class_="scroll")
