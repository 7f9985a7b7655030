"""Runs in the trash -> a page on which each can be restored."""

from __future__ import annotations

import time
from collections.abc import Sequence

from evengrad.report.markup import Markup, el, join
from evengrad.serve.frame import page
from evengrad.serve.shelf import Entry
from evengrad.store import StoredRun


def trash_page(found: Sequence[tuple[Entry, StoredRun]], token: str) -> str:
    """Returns the page; each run goes back under its name, or under another one if that was taken meanwhile."""
    titles = (("run", None), ("began", None), ("size", "n"), ("", None))
    head = el("tr", *(el("th", word, scope="col", class_=kind) for word, kind in titles))
    table = el("table", el("thead", head), el("tbody", *(_row(*one) for one in found)), class_="runs")
    empty = el("p", "The trash is empty.")
    body = join(
        el(
            "header",
            el("h1", "Trash"),
            el("p", "Nothing is removed from here; the files lie in the folder trash, beside the runs.", class_="meta"),
        ),
        el("div", el("div", table, class_="scroll") if found else empty, class_="card after"),
        el("p", "", id="said", role="status", class_="meta"),
    )
    return page("Trash", body, place="runs", scripts=("trash.js",), token=token)


def _row(entry: Entry, run: StoredRun) -> Markup:
    file = el("div", entry.path.name, class_="soft file") if entry.path.stem != run.name else None
    button = el("button", "Restore", type="button", class_="quiet", data_id=entry.id, aria_label=f"restore {run.name}")
    return el(
        "tr",
        el("th", el("b", run.name), file, scope="row", class_="col-name"),
        el("td", time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created)), class_="whole soft"),
        el("td", f"{entry.version[0] / 2**20:,.1f} MB", class_="n"),
        el("td", button, class_="n"),
    )
