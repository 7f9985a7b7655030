"""A rule -> its page: what it means, how a sick and a healthy network look, why it happens, what helps."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from evengrad.report.markup import Markup, el, join, prose
from evengrad.report.numbers import number
from evengrad.rules import Rule, discovered
from evengrad.serve.frame import page
from evengrad.types import Series, Trace

_MOST = 48  # bars of a picture


def rules_page() -> str:
    """Returns the list of everything that is looked for."""
    rows = [
        el(
            "tr",
            el("th", el("a", code, href=f"/rules/{code}"), scope="row", class_="whole"),
            el("td", rule.title),
            el("td", _words(rule.symptom or "structure"), class_="soft"),
        )
        for code, rule in discovered().items()
    ]
    head = el("tr", *(el("th", word, scope="col") for word in ("code", "what it looks for", "symptom")))
    table = el("div", el("table", el("thead", head), el("tbody", *rows)), class_="scroll card")
    return page("Rules", join(el("h1", "What is looked for"), el("p", f"{len(rows)} rules", class_="meta"), table), place="rules")


def rule_page(rule: type[Rule]) -> str:
    """Returns the page of one rule, made from its docstring, its thresholds and its examples."""
    doc = inspect.getdoc(rule) or ""
    told, _, reference = doc.partition("Reference:")
    story = told.partition("Attributes:")[0].strip()
    made, examples = rule(), rule.examples()
    example = next(made.check(examples.sick[0]), None) if examples.sick else None
    thresholds = [(f.name.replace("_", " "), f"{getattr(made, f.name)!r}") for f in fields(made)]
    facts = [
        ("causes", ", ".join(map(_words, rule.causes))),
        ("what helps", rule.helps),
        ("decided by", f"{_words(rule.signal[0])} ({rule.signal[1]})" if rule.signal[1] else _words(rule.signal[0])),
        ("needs", ", ".join(_words(need.rpartition(".")[2]) for need in rule.needs)),
        ("source", " ".join(reference.split())),
    ]
    listed = [join(el("dt", term), el("dd", prose(text))) for term, text in facts if text]
    listed += [join(el("dt", f"threshold: {name}"), el("dd", value)) for name, value in thresholds]
    play = el("p", el("a", "See it in the playground", href=f"/play?preset={rule.symptom}"), class_="after") if rule.symptom else None
    body = join(
        el("h1", f"{rule.code} · {rule.title}"),
        el("p", _words(rule.symptom or "structure"), class_="meta"),
        el("div", *(el("p", prose(" ".join(part.split()))) for part in story.split("\n\n")), class_="card telling"),
        el("h2", "What it says", class_="head") if example is not None else None,
        el("div", el("p", prose(example.message)), class_="card") if example is not None else None,
        _pictures(made, examples.sick[:1], examples.healthy),
        el("h2", "Why, and what helps", class_="head"),
        el("div", el("dl", *listed), play, class_="card looked"),
    )
    return page(rule.code, body, place="rules")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _pictures(rule: Rule, sick: Sequence[Trace], healthy: Sequence[Trace]) -> Markup | None:
    """Draws the first thing that the rule needs and that looks different in a healthy network, on one axis."""
    for need in rule.needs:
        for other in healthy if sick else ():
            bad, good = _series(sick[0], need), _series(other, need)
            if bad is not None and good is not None and len(bad) > 1 and not np.array_equal(bad, good, equal_nan=True):
                along = "over the steps" if need.startswith("curves.") else "by layer, input first"
                axis = _axis(np.concatenate((bad, good)))
                title = (
                    f"{_words(need.rpartition('.')[2])}, {along}, from {number(axis[0])} to {number(axis[1])}{' (logarithmic)' * axis[2]}"
                )
                drawn = [el("figure", el("figcaption", w), _bars(v, axis, f"{w}: {title}")) for w, v in (("sick", bad), ("healthy", good))]
                return join(
                    el("h2", "How it looks", class_="head"),
                    el("div", el("div", *drawn, class_="halves"), el("p", title, class_="meta"), class_="card"),
                )
    return None


def _series(trace: Trace, need: str) -> Series | None:
    kind, _, name = need.rpartition(".")
    if kind == "curves":
        return trace.curves[name].values if name in trace.curves else None
    if kind or name not in trace.columns:
        return None
    seen = trace.column(name).astype(np.float64)
    seen = seen[~np.isnan(seen).all(1)]
    return seen[-1] if len(seen) else None


def _axis(values: Series) -> tuple[float, float, bool]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0, False
    positive = finite[finite > 0]
    if len(positive) and finite.min() >= 0 and positive.max() > 30 * positive.min():
        return float(positive.min()), float(positive.max()), True
    return min(0.0, float(finite.min())), max(float(finite.max()), 1e-30), False


def _bars(values: Series, axis: tuple[float, float, bool], label: str) -> Markup:
    parts = np.array_split(values, min(len(values), _MOST))
    width = 100 / len(parts)
    bars = [_bar(float(part.mean()), axis, 100 * i / len(parts) + 0.07 * width, 0.86 * width) for i, part in enumerate(parts)]
    return el("svg", *bars, class_="bars mini", role="img", aria_label=label)


def _bar(value: float, axis: tuple[float, float, bool], x: float, width: float) -> Markup:
    low, high, logarithmic = axis
    where = {"x": f"{x:.2f}%", "width": f"{width:.2f}%"}
    if not np.isfinite(value):
        return el("rect", **where, y="0", height="100%", class_="nan" if np.isinf(value) else "unseen")
    if logarithmic and value <= 0:
        return el("rect", **where, y="93%", height="7%", class_="zero")
    share = np.log(value / low) / np.log(high / low) if logarithmic else (value - low) / (high - low)
    height = 3 + 97 * min(1.0, max(0.0, float(share)))
    return el("rect", **where, y=f"{100 - height:.2f}%", height=f"{height:.2f}%", rx="2", class_="c4")
