"""A rig and a batch -> what the page draws: signals by layer, shares, the boundary in the plane."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import torch

from evengrad.recording.one_pass import trace_of
from evengrad.rig import Rig
from evengrad.signals import gradient_gain
from evengrad.trace.batch import Batch
from evengrad.types import Floats, Trace

_COLUMNS = frozenset({"grad_out_norm", "out_spread", "dead_fraction", "saturated_fraction"})
GRID = 48  # cells along each side of the plane
_STEEP, _FAR = 0.13, 2.25  # decades a layer, and decades in all, beyond which first layers learn otherwise than last ones


def layers(rig: Rig, batch: Batch) -> dict[str, Any]:
    """Measures one pass; hidden layers and the head, input first; None where a value is not finite."""
    trace = trace_of(rig, batch, columns=_COLUMNS, facts=False)
    gain = gradient_gain(trace)
    rows = [i for i, layer in enumerate(trace.layers) if layer.depth is not None]
    found = {
        "spread": _told(trace.column("out_spread")[0, rows]),
        "gradient": _told(trace.column("grad_out_norm")[0, rows]),
        "dead": _told(trace.column("dead_fraction")[0, rows]),
        "saturated": _told(trace.column("saturated_fraction")[0, rows]),
    }
    return {**found, "gain": None if gain is None or not math.isfinite(gain) else gain, "word": word(trace, gain)}


def word(trace: Trace, gain: float | None) -> str:
    """Says in a word how the gradient goes from layer to layer."""
    norms = trace.column("grad_out_norm")[0]
    known = norms[~np.isnan(norms)]
    if np.isinf(known).any():
        return "not finite"
    if len(known) and (known == 0).any():
        return "exactly zero"
    if gain is None:
        return "too shallow to tell"
    decades, rows = math.log10(gain) if gain > 0 else -math.inf, len(known)
    if abs(decades) <= _STEEP and abs(decades) * (rows - 1) <= _FAR:
        return "healthy"
    return "vanishing" if decades < 0 else "exploding"


@torch.no_grad()
def boundary(rig: Rig, box: tuple[float, float, float, float]) -> dict[str, str]:
    """Asks the network about a grid over the plane: the class of each cell and how sure it is, a byte each, top row first."""
    left, right, bottom, top = box
    down, across = torch.meshgrid(torch.linspace(top, bottom, GRID), torch.linspace(left, right, GRID), indexing="ij")
    modes = [(module, module.training) for module in rig.model.modules()]
    rig.model.eval()
    try:
        share = rig.model(torch.stack((across, down), -1).reshape(-1, 2)).softmax(-1).nan_to_num(0.0)
    finally:
        for module, training in modes:
            module.training = training
    least = 1 / share.shape[-1]
    sure, kind = share.max(-1)
    certain = ((sure - least) / (1 - least)).clamp(0, 1)
    return {"kind": _bytes(kind), "sure": _bytes(255 * certain)}


def box_of(x: torch.Tensor) -> tuple[float, float, float, float]:
    """Returns left, right, bottom and top of a square around the points."""
    low, high = x.amin(0), x.amax(0)
    centre, reach = (high + low) / 2, 0.55 * float((high - low).max())
    return float(centre[0] - reach), float(centre[0] + reach), float(centre[1] - reach), float(centre[1] + reach)


def _bytes(values: torch.Tensor) -> str:
    return base64.b64encode(values.to(torch.uint8).numpy().tobytes()).decode()


def _told(column: Floats) -> list[float | None]:
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in column]
