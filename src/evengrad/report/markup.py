"""names, attributes, children -> HTML in which everything is escaped unless it is markup already."""

from __future__ import annotations

import html
import json
import re
from typing import Any

VOID = {"br", "img", "meta", "rect", "line", "circle", "input", "path"}


class Markup(str):
    """Text that is HTML already; any other string is escaped on its way in."""

    __slots__ = ()


def el(name: str, /, *children: str | None, **attributes: str | float | bool | None) -> Markup:
    """Builds an element.

    Args:
        name: Tag name.
        *children: Text (escaped) or markup; None is left out.
        **attributes: `class_` and `for_` lose their underscore, others turn `_` into `-`; None and False are left out.
    """
    pairs = "".join(_attribute(k, v) for k, v in attributes.items() if v is not None and v is not False)
    if name in VOID:
        return Markup(f"<{name}{pairs}{'/' if name in {'rect', 'line', 'circle', 'path'} else ''}>")
    return Markup(f"<{name}{pairs}>{join(*children)}</{name}>")


def join(*parts: str | None) -> Markup:
    """Puts text and markup one after the other; text is escaped."""
    return Markup("".join(p if isinstance(p, Markup) else escape(p) for p in parts if p is not None))


def escape(text: str) -> Markup:
    """Escapes text for element content and attributes, and shows control characters."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return Markup(html.escape(shown, quote=True))


def prose(text: str) -> Markup:
    """Escapes text in which no line breaks inside a number such as `2.8e-12`."""
    return Markup(re.sub(r"\d[\d.]*e-\d+", r'<span class="num">\g<0></span>', escape(text)))


def data_block(value: Any) -> Markup:
    """Builds a block of JSON that no content can leave: `<`, `>` and `&` are written as escapes."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(f'<script type="application/json" class="data">{text}</script>')


def _attribute(name: str, value: str | float | bool) -> str:
    key = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {key}"
    return f' {key}="{escape(value if isinstance(value, str) else f"{value:g}")}"'
