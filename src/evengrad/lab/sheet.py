"""parts of a page -> one HTML file in the look of the reports, which loads nothing and is there whole or not at all."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from evengrad.lab.pictures import Picture
from evengrad.report.markup import Markup, el, escape

_STYLE = """
.answer { font-size: 17px; line-height: 1.45; white-space: pre-line; overflow-wrap: anywhere; }
.question { color: var(--soft); margin-bottom: 6px; }
.scroll { overflow-x: auto; } .scroll th, .scroll td { text-align: left; } .whole { white-space: nowrap; }
figure { margin: 0 0 18px; } figcaption { color: var(--soft); font-size: 13px; margin-bottom: 8px; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; font-size: 13.5px; }
.card pre { margin-top: 12px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(title: str, body: Markup) -> str:
    """Returns the whole HTML document."""
    style = files("evengrad.report").joinpath("page", "page.css").read_text(encoding="utf-8").replace("\r\n", "\n") + _STYLE
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def section(heading: str, *content: Markup) -> list[Markup]:
    """Returns a heading and a card, or nothing where there is no content."""
    return [el("h2", heading, class_="head"), el("div", *content, class_="card")] if content else []


def figure(one: Picture) -> Markup:
    """Returns a picture with its caption."""
    return el("figure", el("figcaption", one.caption), el("img", src=one.uri, alt=one.caption, width=one.width))


def put(target: Path, data: bytes) -> None:
    """Writes a file, and the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(data)
    part.replace(target)  # a file is there whole, or not at all
