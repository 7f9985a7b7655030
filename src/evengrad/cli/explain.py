"""A rule -> its page in words, from its docstring, fields and examples."""

from __future__ import annotations

import inspect
from dataclasses import fields

from evengrad.rules import Rule


def explanation(rule: type[Rule]) -> str:
    """Returns what the rule means, why it happens, what helps, its thresholds and an example of what it says."""
    doc = inspect.getdoc(rule) or ""
    story, _, reference = doc.partition("Reference:")
    story = story.partition("Attributes:")[0].strip()
    made = rule()
    thresholds = [f"  {f.name} = {getattr(made, f.name)!r}" for f in fields(made)]
    sick = next(made.check(rule.examples().sick[0]), None)
    example = [] if sick is None else ["", "for example", f"  {sick.message}"]
    return "\n".join(
        [
            f"{rule.code}: {rule.title}",
            "",
            story,
            *example,
            "",
            f"causes      {', '.join(rule.causes)}",
            f"what helps  {rule.helps}",
            f"decided by  {rule.signal[0]} ({rule.signal[1]})",
            f"needs       {', '.join(rule.needs)}",
            "thresholds",
            *thresholds,
            *(["", f"source      {' '.join(reference.split())}"] if reference else []),
        ]
    )
