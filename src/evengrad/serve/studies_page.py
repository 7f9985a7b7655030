"""Finished runs of studies -> pages: the list, and one run with each arm's distribution over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evengrad.lab.rows import Run
from evengrad.lab.study import Arm, Rows, described, written
from evengrad.report.markup import Markup, el, join
from evengrad.report.numbers import number, plural, seconds
from evengrad.report.pictures import box
from evengrad.report.trials import Trial
from evengrad.serve.frame import page, trouble
from evengrad.serve.play.presets import STUDIES
from evengrad.serve.studies import Finished, quartiles

_FIRST = ("test_accuracy", "accuracy", "val_accuracy", "test_loss", "loss")  # what is shown unless something else is asked for
_MOST_ARMS = 400
_PLAYED = {preset.key for preset in STUDIES}


def studies_page(found: Sequence[Finished], message: str = "") -> str:
    """Returns the list of finished runs, or what is wrong with the file that keeps them."""
    if message:
        return page("Studies", trouble("Studies", message), place="studies")
    rows = [
        el(
            "tr",
            el("th", el("a", one.run.study, href=f"/studies/{one.number}"), scope="row"),
            el("td", _moment(one.run)),
            el("td", "quick" if one.run.quick else "full"),
            el("td", f"{len(one.run.addresses):,}", class_="n"),
            el("td", _seconds(one.run), class_="n"),
        )
        for one in found
    ]
    titles = (("study", None), ("finished", None), ("size", None), ("cells", "n"), ("took", "n"))
    head = el("tr", *(el("th", word, scope="col", class_=kind) for word, kind in titles))
    table = el("div", el("table", el("thead", head), el("tbody", *rows)), class_="scroll")
    empty = el("p", "No study has been run into this folder yet: ", el("code", "evengrad study run six-activations --quick"))
    return page("Studies", join(el("h1", "Studies"), el("div", table if rows else empty, class_="card after")), place="studies")


def study_page(one: Finished, rows: Rows, value: str) -> str:
    """Returns one run: a distribution over seeds for each arm, of the value that was asked for."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    chosen = value if value in names else next((n for n in _FIRST if n in names), names[0] if names else "")
    tabs = [
        el("a", name.replace("_", " "), href=f"/studies/{one.number}?value={name}", aria_current="true" if name == chosen else None)
        for name in names
        if name.replace("_", "").isalnum()
    ]
    lost = len(one.run.addresses) - len(rows)
    facts = [(str(k), written(v)) for k, v in one.run.fields.items()]
    facts += [("machine", str(one.run.machine)), ("command", str(one.run.command))]
    body = join(
        el("h1", one.run.study),
        el(
            "p",
            f"{_seconds(one.run)}, finished {_moment(one.run)} UTC" + (f" · {plural(lost, 'row')} damaged or gone" if lost else ""),
            *((" · ", el("a", "in the playground", href=f"/play?preset={one.run.study}")) if one.run.study in _PLAYED else ()),
            class_="meta",
        ),
        el(
            "div",
            el("div", el("p", "Working out what it says …", class_="detail")),
            id="answer",
            class_="verdict answer",
            data_number=str(one.number),
            aria_live="polite",
            aria_busy="true",
        ),
        el("nav", *tabs, class_="tabs values", aria_label="value"),
        el("div", _distributions(rows, chosen) if chosen else el("p", "It has no rows."), class_="card"),
        el("h2", "How it was run", class_="head"),
        el("div", el("dl", *(join(el("dt", k), el("dd", v)) for k, v in facts)), class_="card looked"),
    )
    return page(one.run.study, body, place="studies", scripts=("study.js",))


def _distributions(rows: Rows, value: str) -> Markup:
    arms = rows.by_arm()[:_MOST_ARMS]
    everything = np.concatenate([part.values(value) for _, part in arms]) if arms else np.zeros(0)
    span = quartiles(everything)
    low, high = (span[0], span[4]) if span is not None else (0.0, 1.0)
    scale = el("div", el("span", number(low)), el("span", "each dot one seed"), el("span", number(high)), class_="scale")
    titles: list[tuple[str, str | None]] = [("arm", None), ("median", "n"), ("min – max", "n"), (scale, "wide")]
    head = el("tr", *(el("th", title, scope="col", class_=kind) for title, kind in titles))
    body = [_arm(arm, part.values(value), low, high) for arm, part in arms]
    return el("div", el("table", el("thead", head), el("tbody", *body), class_="trials"), class_="scroll")


def _arm(arm: Arm, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], low: float, high: float) -> Markup:
    reach = (high - low) or 1.0
    spread = quartiles(values)
    finite = values[np.isfinite(values)]
    failed = len(values) - len(finite)
    drawn = Trial(
        label=described(arm),
        seeds=(),
        values=(),
        median=math.nan if spread is None else spread[2],
        low=math.nan if spread is None else spread[0],
        high=math.nan if spread is None else spread[4],
        failed=failed,
        findings="",
        chosen=False,
        rank=0.0,
        dots=tuple((float(v) - low) / reach for v in finite),
        box=() if spread is None else tuple((x - low) / reach for x in spread),
    )
    texts = ("–", "–") if spread is None else (number(spread[2]), f"{number(spread[0])} – {number(spread[4])}")
    bad = el("span", f" {failed} of {len(values)} not finite", class_="failed") if failed else None
    return el(
        "tr",
        el("th", described(arm) or "all", scope="row"),
        el("td", texts[0], class_="n"),
        el("td", texts[1], bad, class_="n"),
        el("td", box(drawn), class_="wide"),
    )


def _moment(run: Run) -> str:
    return str(run.finished)[:16].replace("T", " ")


def _seconds(run: Run) -> str:
    return seconds(float(run.seconds)) if isinstance(run.seconds, int | float) else ""
