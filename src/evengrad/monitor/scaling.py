"""GradScaler and fused optimizers -> what gradients are multiplied by, and which steps are left out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch


class LossScale:
    """Follows the scale of a loss in mixed precision.

    Args:
        scaler: The GradScaler, or None.

    Attributes:
        known: True if there is a GradScaler.
        value: What the gradients of the coming backward pass are multiplied by.
        unknown: True if they may be, by a scaler that was not given.
    """

    def __init__(self, scaler: Any) -> None:
        self.value, self.unknown = 1.0, False
        self._scaler, self.known = scaler, scaler is not None

    def see(self, casts: Collection[torch.dtype]) -> float:
        """Reads the scale before a forward pass under these casts; returns what it was multiplied by: below 1 after a step was left out."""
        self.unknown = self._scaler is None and torch.float16 in casts
        if self._scaler is None or not self._scaler.is_enabled():
            return 1.0
        before, self.value = self.value, float(self._scaler.get_scale())
        return self.value / before


def left_scale(optimizer: torch.optim.Optimizer) -> float:
    """Returns what a fused optimizer will divide its gradients by itself."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)


def left_out(optimizer: torch.optim.Optimizer) -> bool:
    """True if a fused optimizer was told by a GradScaler that a gradient is not finite: it will not step."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and float(found) > 0
