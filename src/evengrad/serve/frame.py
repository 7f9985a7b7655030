"""title and body -> a page of the server: its head, its navigation, its scripts."""

from __future__ import annotations

from evengrad.report.markup import Markup, el, join

_PLACES = (
    ("runs", "/", "Runs"),
    ("compare", "/compare", "Compare"),
    ("studies", "/studies", "Studies"),
    ("play", "/play", "Playground"),
    ("rules", "/rules/index.html", "Rules"),
)


def page(title: str, body: Markup, *, place: str = "", scripts: tuple[str, ...] = (), token: str = "") -> str:
    """Returns a whole page.

    Args:
        title: What the window is called.
        body: What stands in `main`.
        place: Which entry of the navigation it belongs to.
        scripts: Names of files in static/.
        token: What scripts send with a change; left out where nothing can be changed.
    """
    links = [el("a", word, href=to, aria_current="page" if key == place else None) for key, to, word in _PLACES]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width,initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="evengrad-token", content=token) if token else None,
        el("title", f"{title} · evengrad"),
        el("link", rel="icon", href="/static/icon.svg"),
        el("link", rel="stylesheet", href="/static/report.css"),
        el("link", rel="stylesheet", href="/static/serve.css"),
        *(el("script", type="module", src=f"/static/{name}") for name in scripts),
    )
    nav = el("nav", el("a", "evengrad", href="/", class_="brand"), *links, class_="top", aria_label="pages")
    skip = el("a", "to the content", href="#content", class_="skip")
    return "<!doctype html>" + el("html", head, el("body", skip, nav, el("main", body, id="content", tabindex="-1")), lang="en")


def trouble(title: str, message: str, *more: Markup) -> Markup:
    """Returns what stands in the place of a page that cannot be shown."""
    return join(
        el("h1", title),
        el("div", el("div", el("p", "This cannot be shown.", class_="headline"), el("p", message, class_="detail")), class_="verdict bad"),
        *more,
    )
