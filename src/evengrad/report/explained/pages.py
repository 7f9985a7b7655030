"""Code of a rule, `activations`, `initialisers` or `index` -> an HTML page that loads nothing; all of them -> a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from evengrad.report.document import document, put
from evengrad.report.explained.activations import ACTIVATIONS, activation
from evengrad.report.explained.charts import Axes, Line, chart, pair_axes
from evengrad.report.explained.initialisers import DEPTH, DRAWN, INITIALISERS, Initialiser, by_depth
from evengrad.report.explained.links import about, anchor
from evengrad.report.explained.rules import Meaning, cause_words, known, meaning
from evengrad.report.markup import Markup, el, join, prose
from evengrad.report.numbers import factor, number
from evengrad.types import Series

_FAMILIES = {
    "VAN": "Gradients that vanish",
    "EXP": "Gradients that explode",
    "NUM": "Numbers",
    "ACT": "Activations",
    "INI": "Initialisation",
    "OPT": "Optimisation",
    "NRM": "Normalisation",
    "DAT": "Data",
    "ARC": "Architecture",
    "GEN": "Generalisation",
}
_LOOKS = ("one", "two", "three", "four", "five")


def names() -> tuple[str, ...]:
    """Returns the names of all pages."""
    return ("index", "activations", "initialisers", *known())


def page(name: str, *, linked: bool = True) -> str | None:
    """Returns a page as HTML, or None where there is none of that name.

    Args:
        name: Code of a rule, `activations`, `initialisers` or `index`.
        linked: Whether links lead to the other pages, as `VAN001.html` beside it; a page on its own has its neighbours' pictures inside.
    """
    if name == "index":
        return _page("What findings mean", _index(), linked=linked)
    if name == "activations":
        return _page("Activations", _sections(activation_card, ACTIVATIONS, "cards"), linked=linked, lead=_ACTIVATIONS_LEAD)
    if name == "initialisers":
        by_name = {i.name: i for i in INITIALISERS}
        return _page("Initialisers", _sections(lambda n: initialiser_card(by_name[n]), by_name), linked=linked, lead=_INITIALISERS_LEAD)
    found = meaning(name)
    return None if found is None else _page(f"{found.code}: {found.title}", _rule(found, linked=linked), linked=linked)


def write(name: str, path: str | Path) -> Path:
    """Writes one page, with what belongs to it inside, and returns its path.

    Raises:
        KeyError: if there is no page of that name.
    """
    text = page(name, linked=False)
    if text is None:
        raise KeyError(name)
    return put(text, path)


def write_all(folder: str | Path) -> list[Path]:
    """Writes all pages into a folder, linked to each other, and returns their paths."""
    return [put(page(name) or "", Path(folder) / f"{name}.html") for name in names()]


_ACTIVATIONS_LEAD = (
    "The line is the activation, the dashed one its derivative: by it the gradient of an element is multiplied on its way down. Shaded is "
    "where the derivative is under 5% of its maximum: what stands there passes almost nothing."
)
_INITIALISERS_LEAD = (
    f"What theory expects of {DEPTH} wide layers without biases or norms, inputs of unit variance: how much of the difference between two "
    "samples arrives at each layer, and how much of the last layer's gradient. Flat lines train."
)


def activation_card(name: str) -> Markup:
    """Builds the picture of one activation and its numbers."""
    found = activation(name)
    values = np.concatenate([found.value, found.slope])
    low, high = pair_axes(max(-2.0, float(values.min())), min(3.0, float(values.max())), log=False)
    axes = Axes(low=low, high=high, left="−6", right="6", bands=found.flat)
    kept = np.where((found.value >= low) & (found.value <= high), found.value, np.nan)
    lines = [Line(name="φ(x)", look="one", x=found.x, y=kept), Line(name="φ'(x)", look="two", x=found.x, y=found.slope)]
    flat = "flat on both sides: it saturates" if found.both else "flat on one side" if found.flat else "nowhere flat"
    facts = [
        ("largest derivative", number(float(np.abs(found.slope).max()))),
        ("under 5% of it", ", ".join(_stretch(found.x, a, b) for a, b in found.flat) or "nowhere"),
        ("gain that keeps the variance", number(found.gain)),
        ("gradient through a layer of that gain", factor(found.passes)),
    ]
    terms = [join(el("dt", k), el("dd", v)) for k, v in facts]
    return el("div", el("p", flat, class_="note"), chart(name, lines, axes), el("dl", *terms))


def initialiser_card(initialiser: Initialiser) -> Markup:
    """Builds the two pictures of one initialiser: the signal on its way up, the gradient on its way down."""
    found = [by_depth(initialiser, name) for name in DRAWN]
    charts = []
    for title, values in (
        ("signal across samples, relative to the first layer", [f.spread for f in found]),
        ("gradient, relative to the last layer", [f.gradient for f in found]),
    ):
        shown = [np.clip(v, 1e-12, 1e12) for v in values]
        low, high = pair_axes(min(0.1, *(float(v.min()) for v in shown)), max(10.0, *(float(v.max()) for v in shown)), log=True)
        axes = Axes(low=low, high=high, log=True, left="layer 1", right=f"layer {DEPTH}")
        depth = np.arange(1.0, DEPTH + 1)
        lines = [Line(name=f.activation, look=look, x=depth, y=v) for f, look, v in zip(found, _LOOKS, shown, strict=True)]
        charts.append(el("div", el("p", title, class_="note"), chart(f"{initialiser.name}: {title}", lines, axes, table=False)))
    told = el("p", el("b", f"variance {initialiser.formula}"), f" · {initialiser.made_for}", class_="note")
    head = el(
        "tr",
        *(
            el("th", t, scope="col", class_=c)
            for t, c in (("activation", None), ("signal at the end", "n"), ("gradient at the start", "n"))
        ),
    )
    rows = [
        el(
            "tr",
            el("th", f.activation, scope="row"),
            el("td", number(float(f.spread[-1])), class_="n"),
            el("td", number(float(f.gradient[0])), class_="n"),
        )
        for f in found
    ]
    table = el("details", el("summary", "As a table"), el("table", el("thead", head), el("tbody", *rows)))
    return el("div", told, el("div", *charts, class_="pair-of-charts"), table)


def _stretch(x: Series, start: float, end: float) -> str:
    first, last = (number(round(v, 1) + 0.0) for v in (start, end))  # -0.0 + 0.0 is 0.0
    if start <= x[0]:
        return f"below {last}"
    return f"above {first}" if end >= x[-1] else f"{first} to {last}"


def _sections(build: Callable[[str], Markup], of: Iterable[str], class_: str | None = None) -> list[Markup]:
    return [el("div", *(_section(name.replace("_", " "), build(name), key=anchor(name)) for name in of), class_=class_)]


def _section(title: str, *body: Markup | None, key: str | None = None) -> Markup:
    return el("section", el("h2", title, class_="head"), el("div", *body, class_="card lesson"), id=key)


def _rule(found: Meaning, *, linked: bool) -> list[Markup]:
    story = el("div", *(el("p", prose(p)) for p in found.story), class_="story")
    example = el("p", "It says: ", el("q", prose(found.example)), class_="example") if found.example else None
    causes = el("ul", *(el("li", cause_words(c), " ", el("code", c)) for c in found.causes)) if found.causes else None
    rows = [
        el("tr", el("th", el("code", n), scope="row"), el("td", el("code", v), class_="n"), el("td", t)) for n, v, t in found.thresholds
    ]
    head = el("tr", *(el("th", t, scope="col", class_=c) for t, c in (("threshold", None), ("value", "n"), ("meaning", None))))
    facts = [("decided by", found.decided), ("needs", ", ".join(found.needs)), ("source", found.source)]
    terms = [join(el("dt", k), el("dd", v)) for k, v in facts if v]
    parts = [
        story,
        _section("Sick and healthy", found.picture, example) if found.picture or example else None,
        _section("Why it happens, what helps", causes, el("p", el("b", "What helps: "), found.helps, ".")),
        _section(
            "How it is judged",
            el("dl", *terms),
            el("div", el("table", el("thead", head), el("tbody", *rows)), class_="scroll") if rows else None,
        ),
        *_related(found, linked=linked),
    ]
    return [p for p in parts if p is not None]


def _related(found: Meaning, *, linked: bool) -> list[Markup]:
    """Pictures of activations and initialisers, where those can be the cause."""
    kinds = (("activations", "Activations"), ("initialisers", "Initialisers"))
    wanted = [kind for kind, concerned in zip(kinds, about(found.code, None), strict=True) if concerned]
    if linked:
        links = [el("li", el("a", f"{title}, drawn", href=f"{name}.html")) for name, title in wanted]
        return [_section("See also", el("ul", *links))] if links else []
    out = []
    if ("activations", "Activations") in wanted:
        out += [_section(f"Activation: {n}", activation_card(n)) for n in ("sigmoid", "tanh", "relu")]
    if ("initialisers", "Initialisers") in wanted:
        out += [_section(f"Initialiser: {i.name}", initialiser_card(i)) for i in INITIALISERS[:2]]
    return out


def _index() -> list[Markup]:
    families: dict[str, list[str]] = {}
    for code in known():
        families.setdefault(code[:3], []).append(code)
    order = [f for f in _FAMILIES if f in families] + [f for f in families if f not in _FAMILIES]
    drawn = [
        el("li", el("a", t, href=f"{n}.html"), " ", el("span", w, class_="note"))
        for n, t, w in (
            ("activations", "Activations", f"{len(ACTIVATIONS)} of them, with derivative and saturation"),
            ("initialisers", "Initialisers", f"{len(INITIALISERS)} of them, signal and gradient by depth"),
        )
    ]
    parts = [_section("Drawn", el("ul", *drawn))]
    for family in order:
        rows = [el("li", el("a", el("code", c), href=f"{c}.html"), " ", known()[c].title) for c in families[family]]
        parts.append(_section(_FAMILIES.get(family, family), el("ul", *rows)))
    return parts


def _page(title: str, body: list[Markup], *, linked: bool, lead: str = "") -> str:
    links = [
        el("a", t, href=f"{n}.html")
        for n, t in (("index", "All findings"), ("activations", "Activations"), ("initialisers", "Initialisers"))
    ]
    nav = el("nav", *links, aria_label="explanations", class_="crumbs") if linked else None
    head = el("header", nav, el("h1", title), el("p", lead, class_="meta") if lead else None)
    return document(f"{title} · evengrad", el("main", head, *body), script=False)
