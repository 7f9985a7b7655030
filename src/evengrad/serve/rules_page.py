"""Name of an explanation -> its page: what findings, activations and initialisers mean, as `evengrad explain` tells it."""

from __future__ import annotations

from evengrad.report.explained import pages
from evengrad.report.markup import Markup, el, join
from evengrad.rules import discovered
from evengrad.serve.frame import page


def rules_page(name: str) -> str | None:
    """Returns a page by its name (`index`, `activations`, `initialisers` or a code), or None where there is none."""
    known = {one.upper(): one for one in pages.names()}.get(name.upper())
    text = None if known is None else pages.page(known)
    if known is None or text is None:
        return None
    body = Markup(text.partition("<main>")[2].rpartition("</main>")[0])
    rule = discovered().get(known)
    symptom = None if rule is None else rule.symptom
    play = el("p", el("a", "See it in the playground", href=f"/play?preset={symptom}"), class_="after") if symptom else None
    return page("Rules" if known == "index" else known, join(body, play), place="rules")
