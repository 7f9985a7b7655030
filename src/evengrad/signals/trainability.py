"""Trace -> probability that some learning rate trains this network."""

from __future__ import annotations

from evengrad.types import Trace


def trainability(trace: Trace) -> float | None:
    """Placeholder until calibrated."""
    return None
