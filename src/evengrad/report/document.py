"""title, body -> one HTML file that loads nothing: styles and script are inside, and its policy forbids the rest."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from evengrad.report.markup import Markup, escape

_PARTS = ("numbers", "colours", "plot", "heat", "page")  # each uses those before it
_START = 'document.querySelectorAll(".report").forEach((one) => start(one));\n'


def document(title: str, body: Markup, *, script: bool = True) -> str:
    """Returns the whole document; without a script its policy allows none."""
    style, code = resource("page.css"), program() + _START if script else ""
    allowed = f" script-src {_hash(code)};" if script else ""
    policy = f"default-src 'none'; style-src {_hash(style)};{allowed} img-src data:; base-uri 'none'; form-action 'none'"
    block = f'<script type="module">{code}</script>\n' if script else ""
    parts = {"policy": policy, "title": escape(title), "style": style, "script": block, "body": body}
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], resource("template.html"))


def put(page: str, path: str | Path) -> Path:
    """Writes a page as UTF-8 and returns its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    part.replace(target)  # a page is there whole, or not at all
    return target


def program() -> str:
    """Returns the script of the pages: it defines `start(article)`, and starts nothing."""
    return "\n".join(resource(f"{part}.js") for part in _PARTS)


@cache
def resource(name: str) -> str:
    """Returns a file of the folder page/ as text."""
    return files("evengrad.report").joinpath("page", name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
