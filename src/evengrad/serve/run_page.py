"""The list of runs, and one run -> pages."""

from __future__ import annotations

from evengrad.report.markup import Markup, el, join
from evengrad.serve.frame import page, trouble
from evengrad.serve.reports import Shown
from evengrad.serve.shelf import Entry


def runs_page(folder: str, token: str) -> str:
    """Returns the page of the list; its rows come as data, which a script turns into text."""
    titles = (("name", "run"), ("created", "began"), ("steps", "steps"), ("loss", "loss"), ("findings", "findings"))
    heads = [el("th", el("button", word, type="button", data_sort=key), scope="col", class_=f"col-{key}") for key, word in titles]
    table = el(
        "table",
        el("thead", el("tr", el("th", el("span", "pick", class_="hidden"), scope="col"), *heads, el("th", "", scope="col"))),
        el("tbody", id="rows"),
        class_="runs",
    )
    tools = el(
        "div",
        el("label", "Filter ", el("input", id="filter", type="search", placeholder="name, model or code", autocomplete="off")),
        el("label", el("input", id="running", type="checkbox"), " running"),
        el("label", el("input", id="troubled", type="checkbox"), " with findings"),
        el("span", "", id="count", role="status"),
        el("a", "Compare the two picked", id="compare", class_="button", hidden=True),
        el("a", "Trash", id="trash", href="/trash", hidden=True),
        class_="tools",
    )
    empty = el("p", "No run is kept here yet. A training with eg.watch(model, optimizer, store=True) keeps one.", id="empty", hidden=True)
    body = join(
        el("header", el("h1", "Runs"), el("p", folder, class_="meta")),
        tools,
        el("div", el("div", table, class_="scroll"), empty, class_="card"),
        el("p", "", id="said", role="status", class_="meta"),
    )
    return page("Runs", body, place="runs", scripts=("runs.js",), token=token)


def run_page(entry: Entry, shown: Shown | None) -> str:
    """Returns a run's report as a page that follows the run while it is written; None is a report that the page is to ask for."""
    bar = el(
        "div",
        el("span", el("i", class_="pulse"), el("b", "", id="state", role="status"), class_="state"),
        el("a", "Compare with …", href=f"/compare?a={entry.id}"),
        el("a", "Download page", href=f"/runs/{entry.id}/report.html"),
        el("a", "Download JSON", href=f"/runs/{entry.id}/report.json"),
        class_="bar",
    )
    size = entry.version[0] / 2**20
    wait = join(
        el("h1", entry.path.stem), el("p", f"Reading and judging {size:,.0f} MB. This takes a moment.", class_="meta", role="status")
    )
    article = wait if shown is None else Markup(shown.article)
    follow = el("div", article, id="follow", data_id=entry.id, data_stamp=entry.stamp, data_live="yes" if entry.live else "no")
    name = entry.path.stem if shown is None else shown.report.run.name
    return page(name or entry.path.stem, join(bar, follow), place="runs", scripts=("run.js",))


def broken_page(entry: Entry, message: str, *, salvage: bool) -> str:
    """Returns what is shown of a file that cannot be read."""
    rest = (
        None
        if salvage or "salvage" not in message
        else el("p", el("a", "Read what is undamaged", href=f"/runs/{entry.id}?salvage=1"), class_="after")
    )
    note = el("p", "Nothing in the file was executed, and nothing was changed.", class_="meta after")
    return page(entry.path.stem, trouble(entry.path.name, message, note, rest or Markup("")), place="runs")
