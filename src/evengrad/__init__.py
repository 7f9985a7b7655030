"""Public names, loaded when they are first used: `import evengrad` costs a millisecond and does not import torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evengrad import integrations, lab, remedies, rules, sinks
    from evengrad.examine import check, diagnose
    from evengrad.integrations.testing import assert_trainable
    from evengrad.judge import compare
    from evengrad.lab.running import study
    from evengrad.lab.search import search
    from evengrad.lab.study import Study
    from evengrad.monitor import guards
    from evengrad.monitor.cadence import Cadence
    from evengrad.monitor.guards.base import Guard, TrainingStoppedError
    from evengrad.monitor.monitor import Monitor, watch
    from evengrad.range_test import RateRange, rate_range, sharpness, stability_limit
    from evengrad.recommendation import recommend
    from evengrad.remedies.base import Remedy
    from evengrad.remedies.clipping import clip_adaptive_
    from evengrad.remedies.fold import fold_batchnorm
    from evengrad.remedies.isometry import isometry_
    from evengrad.remedies.lsuv import lsuv_
    from evengrad.remedies.schemes import gain, initialize_
    from evengrad.repair import fix
    from evengrad.report import Report
    from evengrad.rig import Rig
    from evengrad.rules.base import Rule
    from evengrad.sinks.base import Sink
    from evengrad.trace.gradient_check import gradient_check
    from evengrad.trace.jacobian import jacobian_spectrum
    from evengrad.training import Experiment, build, train
    from evengrad.types import Event, Evidence, Finding, Intervention, Layer, Outcome, Proposal, Trace

__version__ = "0.1.0"
__all__ = [
    "Cadence",
    "Event",
    "Evidence",
    "Experiment",
    "Finding",
    "Guard",
    "Intervention",
    "Layer",
    "Monitor",
    "Outcome",
    "Proposal",
    "RateRange",
    "Remedy",
    "Report",
    "Rig",
    "Rule",
    "Sink",
    "Study",
    "Trace",
    "TrainingStoppedError",
    "assert_trainable",
    "build",
    "check",
    "clip_adaptive_",
    "compare",
    "diagnose",
    "fix",
    "fold_batchnorm",
    "gain",
    "gradient_check",
    "guards",
    "initialize_",
    "integrations",
    "isometry_",
    "jacobian_spectrum",
    "lab",
    "lsuv_",
    "rate_range",
    "recommend",
    "remedies",
    "rules",
    "search",
    "sharpness",
    "sinks",
    "stability_limit",
    "study",
    "train",
    "watch",
]

_HOME = {
    "assert_trainable": "evengrad.integrations.testing",
    "check": "evengrad.examine",
    "diagnose": "evengrad.examine",
    "compare": "evengrad.judge",
    "fix": "evengrad.repair",
    "Experiment": "evengrad.training",
    "Rig": "evengrad.rig",
    "build": "evengrad.training",
    "train": "evengrad.training",
    "Cadence": "evengrad.monitor.cadence",
    "Guard": "evengrad.monitor.guards.base",
    "TrainingStoppedError": "evengrad.monitor.guards.base",
    "Monitor": "evengrad.monitor.monitor",
    "watch": "evengrad.monitor.monitor",
    "clip_adaptive_": "evengrad.remedies.clipping",
    "fold_batchnorm": "evengrad.remedies.fold",
    "recommend": "evengrad.recommendation",
    "rate_range": "evengrad.range_test",
    "RateRange": "evengrad.range_test",
    "sharpness": "evengrad.range_test",
    "stability_limit": "evengrad.range_test",
    "isometry_": "evengrad.remedies.isometry",
    "lsuv_": "evengrad.remedies.lsuv",
    "gain": "evengrad.remedies.schemes",
    "initialize_": "evengrad.remedies.schemes",
    "gradient_check": "evengrad.trace.gradient_check",
    "jacobian_spectrum": "evengrad.trace.jacobian",
    "Report": "evengrad.report",
    "Event": "evengrad.types",
    "Evidence": "evengrad.types",
    "Finding": "evengrad.types",
    "Intervention": "evengrad.types",
    "Layer": "evengrad.types",
    "Outcome": "evengrad.types",
    "Proposal": "evengrad.types",
    "Trace": "evengrad.types",
    "Rule": "evengrad.rules.base",
    "Sink": "evengrad.sinks.base",
    "Remedy": "evengrad.remedies.base",
    "search": "evengrad.lab.search",
    "study": "evengrad.lab.running",
    "Study": "evengrad.lab.study",
}
_PACKAGES = {
    "integrations": "evengrad.integrations",
    "lab": "evengrad.lab",
    "remedies": "evengrad.remedies",
    "rules": "evengrad.rules",
    "sinks": "evengrad.sinks",
    "guards": "evengrad.monitor.guards",
}


if not TYPE_CHECKING:  # or else type checkers would take any name for a public one

    def __getattr__(name: str) -> object:
        if name in _PACKAGES:
            return importlib.import_module(_PACKAGES[name])
        if name not in _HOME:
            raise AttributeError(f"module 'evengrad' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
