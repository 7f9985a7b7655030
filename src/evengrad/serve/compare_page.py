"""Two runs -> a page with both side by side: what changed, the losses on one axis, the gradients by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from evengrad.report import pictures
from evengrad.report.compare import Pair, compared
from evengrad.report.markup import Markup, data_block, el, join
from evengrad.report.numbers import factor, number, percent
from evengrad.report.planes import thin
from evengrad.report.profile import profile
from evengrad.report.report import Report
from evengrad.report.view import view
from evengrad.serve.frame import page

Choice = tuple[str, str]  # id, name
_CURVES = ("loss", "val_loss", "accuracy", "grad_norm")


def compare_page(choices: Sequence[Choice], first: str, second: str, reports: tuple[Report, Report] | None, message: str = "") -> str:
    """Returns the page.

    Args:
        choices: Id and name of each run.
        first: Id of the run on the left, or "".
        second: Id of the run on the right, or "".
        reports: Both reports, if both were chosen and can be read.
        message: What is wrong with the choice, or "".
    """
    form = el(
        "form",
        el("label", "Before ", _select("a", choices, first)),
        el("label", "After ", _select("b", choices, second)),
        el("button", "Compare", type="submit", class_="button"),
        action="/compare",
        method="get",
        class_="tools",
    )
    hint = el("p", message or "Choose two runs.", class_="meta") if reports is None else None
    links = (f"/runs/{first}", f"/runs/{second}")
    body = join(el("h1", "Compare two runs"), form, hint, _both(reports, links) if reports is not None else None)
    return page("Compare", body, place="compare", scripts=("compare.js",) if reports is not None else ())


def _select(name: str, choices: Sequence[Choice], chosen: str) -> Markup:
    options = [el("option", label, value=key, selected=key == chosen) for key, label in choices]
    return el("select", el("option", "…", value=""), *options, name=name, required=True)


def _both(reports: tuple[Report, Report], links: tuple[str, str]) -> Markup:
    curves = [_curve(name, reports) for name in _CURVES]
    shown = [c for c in curves if c is not None]
    data = data_block({"curves": shown})
    drawn = [el("figure", el("figcaption", str(c["name"])), el("div", class_="plot", data_curve=str(c["name"]))) for c in shown]
    return join(
        el("div", *_sides(reports, links), class_="halves"),
        el("h2", "What changed", class_="head"),
        el("div", _table(reports), class_="card"),
        el("h2", "On one axis", class_="head") if drawn else None,
        el("div", _key(reports), el("div", *drawn, class_="halves"), _ends(reports), data, class_="card", id="curves") if drawn else None,
    )


def _ends(reports: tuple[Report, Report]) -> Markup:
    """The curves' first, lowest, highest and last values, for who cannot see them."""
    rows = []
    for name in _CURVES:
        for report in reports:
            curve = None if report.trace is None else report.trace.curves.get(name)
            if curve is None or not len(curve.values):
                continue
            finite = curve.values[abs(curve.values) < float("inf")]
            ends = [curve.values[0], *((finite.min(), finite.max()) if len(finite) else (math.nan, math.nan)), curve.values[-1]]
            cells = [el("td", number(float(v)) if math.isfinite(v) else "not finite", class_="n") for v in ends]
            rows.append(el("tr", el("th", f"{name.replace('_', ' ')}, {report.run.name}", scope="row"), *cells))
    titles = (("curve", None), ("first", "n"), ("lowest", "n"), ("highest", "n"), ("last", "n"))
    head = el("tr", *(el("th", word, scope="col", class_=kind) for word, kind in titles))
    table = el("div", el("table", el("thead", head), el("tbody", *rows)), class_="scroll")
    return el("details", el("summary", "As a table"), table)


def _key(reports: tuple[Report, Report]) -> Markup:
    names = [el("i", class_="swatch"), reports[0].run.name, el("i", class_="swatch second"), reports[1].run.name]
    return el("p", *names, class_="meta")


def _sides(reports: tuple[Report, Report], links: tuple[str, str]) -> list[Markup]:
    """Both verdicts, and the gradients by layer before the first step, on one axis."""
    drawn = profile(replace(reports[0], after=reports[1].trace))
    strips: list[Markup | None] = [None, None]
    if drawn is not None and len(drawn.strips) == 2:
        strips = [join(el("p", s.slope, class_="slope"), pictures.strip(drawn, s)) for s in drawn.strips]
    return [_side(*side) for side in zip(reports, links, strips, strict=True)]


def _side(report: Report, link: str, strip: Markup | None) -> Markup:
    shown = view(report)
    head = el("div", el("p", el("a", shown.title, href=link), class_="headline"), el("p", shown.verdict.headline, class_="detail"))
    codes = ", ".join(dict.fromkeys(f.code for f in report.findings)) or "none"
    return el("section", el("div", head, class_=f"verdict {shown.verdict.tone}"), el("p", f"findings: {codes}", class_="meta"), strip)


def _table(reports: tuple[Report, Report]) -> Markup:
    found = compared(*reports)
    sides = (reports[0].run.name or "before", reports[1].run.name or "after")
    rows = [
        ("findings gone", ", ".join(found.gone) or "none", ""),
        ("findings new", "", ", ".join(found.new) or "none"),
        ("findings kept", ", ".join(found.kept) or "none", ""),
    ]
    numbers: list[tuple[str, Pair, Callable[[float], str]]] = [
        ("gradient a layer", found.gradient_gain, factor),
        ("could it train?", found.trainability, percent),
        ("steps", found.steps, lambda n: f"{n:,}"),
        ("final loss", found.final_loss, number),
        ("largest grad norm", found.largest_grad_norm, number),
        ("clipped", found.clipped_fraction, percent),
    ]
    rows += [(word, _said(pair[0], form), _said(pair[1], form)) for word, pair, form in numbers if pair != (None, None)]
    rows += [(kind, f"{a:,} times", f"{b:,} times") for kind, (a, b) in found.events.items()]
    head = el("tr", el("th", "", scope="col"), *(el("th", side, scope="col") for side in sides))
    body = [el("tr", el("th", word, scope="row"), el("td", a), el("td", b)) for word, a, b in rows]
    return el("div", el("table", el("thead", head), el("tbody", *body), class_="changed"), class_="scroll")


def _said(value: float | None, form: Callable[[float], str]) -> str:
    return "?" if value is None else form(value)


def _curve(name: str, reports: tuple[Report, Report]) -> dict[str, object] | None:
    lines = []
    for report in reports:
        curve = None if report.trace is None else report.trace.curves.get(name)
        steps, values = ((), ()) if curve is None else thin(curve.steps, curve.values)
        lines.append({"steps": [int(s) for s in steps], "values": [_finite(float(v)) for v in values]})
    return {"name": name.replace("_", " "), "lines": lines} if any(line["steps"] for line in lines) else None


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if abs(value) < float("inf") else None
