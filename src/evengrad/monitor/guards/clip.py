"""guard="clip": scales gradients down to what is usual in this run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from evengrad.monitor.guards.base import Guard, Situation
from evengrad.types import Event


@dataclass
class Clip(Guard):
    """Clips the global L2 norm at a threshold learned from the run's own norms; a step that is not finite is left out.

    Attributes:
        deviations: Robust standard deviations of log10 norms above the median from which a norm is clipped, to that value.
        threshold: A fixed threshold in place of a learned one.

    Until 20 steps are known nothing is clipped, unless a threshold is given.

    References: Pascanu et al. 2013 (norm clipping); Seetharaman et al. 2020 (AutoClip: thresholds from the norm's own history);
    Kumar et al. 2025 (ZClip: z-scores of the norm).
    """

    name = "clip"
    deviations: float = 3.0
    threshold: float | None = None

    def before(self, at: Situation) -> Event | None:
        if not math.isfinite(at.norm):
            at.drop()
            return Event(step=at.step, kind="skip", message=f"the gradients of step {at.step:,} are not finite: it was left out")
        limit = self.threshold if self.threshold is not None else at.norms.limit(self.deviations)
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(at.gradients))))) / at.scale  # the user may have clipped
        if norm <= limit:
            return None
        torch._foreach_mul_(list(at.gradients), limit / norm)
        return Event(step=at.step, kind="clip", message=f"gradient norm {norm:.3g} clipped to {limit:.3g} at step {at.step:,}")
