"""a page -> what Jupyter shows of it: a frame of its own, so that no style leaks in or out."""

from __future__ import annotations

import html

from evengrad.report.report import Report

_HEIGHT, _LARGEST = 720, 8_000_000  # pixels; bytes above which a notebook would become slow, and the text is shown instead


def shown(report: Report) -> str:
    """Returns the HTML that a report, or what has one, shows in a notebook: its page in a frame."""
    from evengrad.report.html import render

    return framed(render(report), title=f"evengrad: {report.run.name or report.run.model}", otherwise=str(report))


def framed(page: str, *, title: str, otherwise: str = "", height: int = _HEIGHT) -> str:
    """Returns a whole HTML page inside a frame: its script runs, but reaches neither the notebook nor its storage.

    Args:
        page: The whole document; it must load nothing.
        title: Name of the frame, for who cannot see it.
        otherwise: Text that is shown in place of a page that is too large for a notebook.
        height: Pixels; the frame can be drawn larger at its corner.
    """
    if len(page) > _LARGEST and otherwise:
        size = f"the page of this report has {len(page) / 1e6:.0f} MB: write it with .to_html(path)"
        return f"<pre>{html.escape(otherwise)}\n{size}</pre>"
    style = f"width:100%;height:{height}px;border:0;resize:vertical;overflow:auto"
    return f'<iframe sandbox="allow-scripts" title="{html.escape(title)}" style="{style}" srcdoc="{html.escape(page)}"></iframe>'
