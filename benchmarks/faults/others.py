"""A trace -> what the published thresholds of other tools say of it."""
from __future__ import annotations
from typing import Any
from evengrad.types import Trace


def verdicts(trace: Trace, meta: dict[str, Any]) -> dict[str, Any]:
    """Returns for each tool whether it fires and which causes it names."""
    return {"score below 0.6": {"fired": meta["score"] < 0.6, "names_causes": False, "causes": []}}
