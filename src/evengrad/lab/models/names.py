"""`name` or `name(option, ...)` -> name and options."""

from __future__ import annotations

import re
from collections.abc import Collection

from evengrad.errors import InputError, unknown

Option = float | str
_NAME = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")


def parse(kind: str, text: str, known: Collection[str]) -> tuple[str, tuple[Option, ...]]:
    """Reads a name that may carry options: `relu`, `leaky_relu(0.2)`, `variance_scaling(2, fan_avg, uniform)`.

    Raises:
        UnknownNameError: if the name is not known; the nearest one is offered.

    Example:
        >>> parse("activation", "leaky_relu(0.2)", {"leaky_relu"})
        ('leaky_relu', (0.2,))
    """
    match = _NAME.fullmatch(text)
    if match is None or match[1] not in known:
        raise unknown(kind, text, known)
    options = () if match[2] is None else tuple(_option(part.strip()) for part in match[2].split(","))
    if "" in options:
        raise InputError(f"an option is missing in the {kind} {text!r}; write {match[1]}(0.1), or {match[1]} alone")
    return match[1], options


def _option(text: str) -> Option:
    try:
        return float(text)
    except ValueError:
        return text
