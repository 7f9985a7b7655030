"""Code of a rule -> what it means: its story, a sick and a healthy picture, causes, what helps, thresholds and source."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from evengrad.report.explained.charts import Axes, Line, chart, pair_axes
from evengrad.report.explained.series import Pair, axis, differences, pairs
from evengrad.report.markup import Markup, el, prose
from evengrad.report.wording import CAUSES
from evengrad.types import Series


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """A rule in words and one picture.

    Attributes:
        code: Its code.
        title: What it looks for.
        story: Paragraphs.
        picture: Sick and healthy, drawn, or as a table of words; None where the two differ in nothing that can be shown.
        example: A message, as it reads.
        causes: Words of the vocabulary.
        helps: What helps.
        decided: The deciding signal and its unit.
        needs: What it needs to be judged.
        thresholds: (name, value, meaning).
        source: Where it comes from.
    """

    code: str
    title: str
    story: tuple[str, ...]
    picture: Markup | None
    example: str
    causes: tuple[str, ...]
    helps: str
    decided: str
    needs: tuple[str, ...]
    thresholds: tuple[tuple[str, str, str], ...]
    source: str


def known() -> dict[str, Any]:
    """Returns the rules by code. They are found by the name of their package, since they are built upon what reports are built upon."""
    found: dict[str, Any] = import_module("evengrad.rules").discovered()
    return found


@cache
def meaning(code: str) -> Meaning | None:
    """Works out what a rule means, or None where no rule has that code."""
    rule = known().get(code)
    if rule is None:
        return None
    doc = inspect.getdoc(rule) or ""
    story, _, reference = doc.partition("Reference:")
    story, _, attributes = story.partition("Attributes:")
    made, examples = rule(), rule.examples()
    finding = next(made.check(examples.sick[0]), None)
    told = _told(attributes)
    return Meaning(
        code=code,
        title=rule.title,
        story=tuple(" ".join(p.split()) for p in story.strip().split("\n\n")),
        picture=_picture(made, examples),
        example=finding.message if finding is not None else "",
        causes=tuple(rule.causes),
        helps=rule.helps,
        decided=f"{rule.signal[0].replace('_', ' ')} ({rule.signal[1]})",
        needs=tuple(rule.needs),
        thresholds=tuple((f.name, repr(getattr(made, f.name)), told.get(f.name, "")) for f in fields(made)),
        source=" ".join(reference.split()),
    )


def summary(code: str) -> Markup | None:
    """Builds what a report folds under a finding: the story's first paragraphs, the picture, what helps and the source."""
    found = meaning(code)
    if found is None:
        return None
    parts = [*(el("p", prose(p)) for p in found.story[:2]), found.picture, el("p", el("b", "What helps: "), found.helps, ".")]
    source = el("p", f"Source: {found.source}", class_="note") if found.source else None
    return el("div", *parts, source, class_="lesson")


def cause_words(cause: str) -> str:
    """Returns a cause as a sentence says it."""
    return CAUSES.get(cause, cause.replace("_", " "))


def _picture(rule: Any, examples: Any) -> Markup | None:
    for pair in pairs(rule.needs, examples.sick[0], examples.healthy):
        if np.isfinite(pair.sick).any() and np.isfinite(pair.healthy).any():
            return _lines(pair)
    rows = differences(examples.sick[0], examples.healthy)
    if not rows:
        return None
    head = el("tr", *(el("th", t, scope="col") for t in ("", "sick", "healthy")))
    body = [el("tr", el("th", what, scope="row"), el("td", bad, class_="bad"), el("td", good, class_="good")) for what, bad, good in rows]
    return el("div", el("table", el("thead", head), el("tbody", *body)), class_="scroll")


def _lines(pair: Pair) -> Markup:
    low, high, log = axis((pair.sick, pair.healthy))
    bottom, top = pair_axes(low, high, log)
    words = {"by layer, input first": ("input", "output"), "from first to last": ("first", "last")}
    left, right = words.get(pair.along, ("first step", "last step"))
    axes = Axes(low=bottom, high=top, log=log, left=left, right=right)
    name = f"{pair.name.replace('_', ' ')} {pair.along}"
    drawn = chart(name, [_line("sick", "bad", pair.sick), _line("healthy", "good", pair.healthy)], axes)
    return el("div", el("p", name, class_="note"), drawn)


def _line(name: str, look: str, values: Series) -> Line:
    y = np.asarray(values, np.float64)
    return Line(name=name, look=look, x=np.linspace(0.0, 1.0, len(y)) if len(y) > 1 else np.array([0.5]), y=y)


def _told(attributes: str) -> dict[str, str]:
    """The `Attributes:` of a docstring -> name: meaning."""
    out: dict[str, str] = {}
    last = ""
    for line in attributes.strip("\n").splitlines():
        name, colon, rest = line.strip().partition(":")
        if colon and name.isidentifier():
            last = name
            out[last] = rest.strip()
        elif last:
            out[last] += " " + line.strip()
    return out
