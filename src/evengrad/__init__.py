"""Public names, loaded when they are first used: `import evengrad` costs a millisecond and does not import torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evengrad import lab, remedies, rules
    from evengrad.examine import check, diagnose
    from evengrad.lab.running import study
    from evengrad.lab.search import search
    from evengrad.lab.study import Study
    from evengrad.remedies.base import Remedy
    from evengrad.remedies.schemes import gain, initialize_
    from evengrad.repair import fix
    from evengrad.report import Report
    from evengrad.report.compare import compare
    from evengrad.rig import Rig
    from evengrad.rules.base import Rule
    from evengrad.trace.gradient_check import gradient_check
    from evengrad.trace.jacobian import jacobian_spectrum
    from evengrad.training import Experiment, build, train
    from evengrad.types import Evidence, Finding, Intervention, Layer, Outcome, Proposal, Trace

__version__ = "0.1.0"
__all__ = [
    "Evidence",
    "Experiment",
    "Finding",
    "Intervention",
    "Layer",
    "Outcome",
    "Proposal",
    "Remedy",
    "Report",
    "Rig",
    "Rule",
    "Study",
    "Trace",
    "build",
    "check",
    "compare",
    "diagnose",
    "fix",
    "gain",
    "gradient_check",
    "initialize_",
    "jacobian_spectrum",
    "lab",
    "remedies",
    "rules",
    "search",
    "study",
    "train",
]

_HOME = {
    "check": "evengrad.examine",
    "diagnose": "evengrad.examine",
    "compare": "evengrad.report.compare",
    "fix": "evengrad.repair",
    "Experiment": "evengrad.training",
    "Rig": "evengrad.rig",
    "build": "evengrad.training",
    "train": "evengrad.training",
    "gain": "evengrad.remedies.schemes",
    "initialize_": "evengrad.remedies.schemes",
    "gradient_check": "evengrad.trace.gradient_check",
    "jacobian_spectrum": "evengrad.trace.jacobian",
    "Report": "evengrad.report",
    "Evidence": "evengrad.types",
    "Finding": "evengrad.types",
    "Intervention": "evengrad.types",
    "Layer": "evengrad.types",
    "Outcome": "evengrad.types",
    "Proposal": "evengrad.types",
    "Trace": "evengrad.types",
    "Rule": "evengrad.rules.base",
    "Remedy": "evengrad.remedies.base",
    "search": "evengrad.lab.search",
    "study": "evengrad.lab.running",
    "Study": "evengrad.lab.study",
}
_PACKAGES = {"lab", "remedies", "rules"}


if not TYPE_CHECKING:  # or else type checkers would take any name for a public one

    def __getattr__(name: str) -> object:
        if name in _PACKAGES:
            return importlib.import_module(f"evengrad.{name}")
        if name not in _HOME:
            raise AttributeError(f"module 'evengrad' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
