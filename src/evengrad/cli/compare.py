"""`evengrad compare`: two runs that are kept -> what changed from the first to the second."""

from __future__ import annotations

from evengrad.cli.options import AsJson, console_of
from evengrad.cli.report import Kept
from evengrad.cli.study import Folder


def compare(before: Kept, after: Kept, *, json: AsJson = False, store: Folder = None) -> None:
    """Tell what changed from one run, or report, to another: findings, gradient, loss, what happened on the way."""
    from evengrad.judge import compare
    from evengrad.report.text import ASCII, clean

    found = compare(before, after, directory=store)
    text = found.to_json() if json else clean(str(found))
    print(text.translate(ASCII) if console_of().options.ascii_only else text)
