"""EXP002: rare gradients, many times the usual, throw the weights off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import progress
from evengrad.signals.updates import update_ratio
from evengrad.types import Evidence, Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class NoClip(Rule):
    """A few batches have a gradient many times the usual size, nothing clips it, and the loss does not recover from what it does.

    A rate that is too high makes all gradients grow; here nearly all of them stay as they are. Clipping by norm takes the few that
    are not.

    Attributes:
        min_spike: Smallest ratio of a spike to the median gradient norm of the run.
        max_spike_fraction: Largest share of the sampled steps that spikes make up: more are no exceptions, in [0, 1].
        max_update_ratio: Largest relative change of the weights in the steps before a spike, at which they were still calm.
        min_jump: Smallest factor by which the loss is higher after a spike than before.

    Reference: Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks; Huang et al. 2025, SPAM (50 times).
    """

    code: ClassVar[str] = "EXP002"
    symptom: ClassVar[str | None] = "loss_spike"
    title: ClassVar[str] = "rare large gradients are not clipped"
    causes: ClassVar[tuple[str, ...]] = ("no_grad_clip",)
    needs: ClassVar[tuple[str, ...]] = ("grad_norm", "grad_raw_norm", "curves.loss")
    signal: ClassVar[tuple[str, str]] = ("spike_ratio", "of the median")
    helps: ClassVar[str] = "torch.nn.utils.clip_grad_norm_ at the 90th percentile of the gradients' norms, before optimizer.step()"
    min_spike: float = 20.0
    max_spike_fraction: float = 0.2
    max_update_ratio: float = 0.05
    min_jump: float = 1.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        own, used, steps = _norms(trace)
        ran = progress(trace)
        if len(own) < 20 or ran is None or ran.thrives:
            return
        ratio = own / np.median(own)
        spikes = np.flatnonzero(ratio > self.min_spike)
        if not len(spikes) or len(spikes) > self.max_spike_fraction * len(own) or bool((used[spikes] < 0.5 * own[spikes]).any()):
            return
        calm = [i for i in spikes if i and self._calm(trace, int(steps[i]))]
        hurt = [int(i) for i in calm if _jump(trace, int(steps[i])) > self.min_jump]
        if not hurt:
            return
        worst = max(hurt, key=lambda i: float(ratio[i]))
        largest, jump = float(ratio[worst]), _jump(trace, int(steps[worst]))
        message = (
            f"the gradient of step {steps[worst]:,} is ×{largest:.3g} the median, nothing clips it, and the loss is ×{jump:.2g} after it; "
            f"{len(spikes)} of {len(own)} sampled steps are like this"
        )
        evidence = Evidence(signal="spike_ratio", value=largest, relation=">", threshold=self.min_spike, unit="of the median", where="loop")
        at = int(np.searchsorted(trace.steps, steps[worst]))
        found = self.finding(trace, "warning", message, evidence=(evidence,), where=("loop",), at=(at, at))
        yield replace(found, cause="no_grad_clip")

    def _calm(self, trace: Trace, step: int) -> bool:
        """True if the steps before were of a usual size: weights that already ran away make large gradients by themselves."""
        before = update_ratio(trace)[trace.steps < step][-3:]
        seen = before[np.isfinite(before)]
        return not len(seen) or float(np.median(seen)) <= self.max_update_ratio

    def value(self, trace: Trace) -> float:
        own, _, _ = _norms(trace)
        return float(own.max() / np.median(own)) if len(own) else float("nan")

    @classmethod
    def examples(cls) -> Examples:
        def net(spike: float, *, used: float = 1.0, after: float = 2.0, many: int = 1, update: float = 1e-3) -> Trace:
            norms = np.ones((20, 1))
            norms[15 : 15 + many] = spike
            made = synthetic.chain(3, steps=20, grad_raw_norm=norms, grad_norm=used * norms, weight_norm=1.0, update_norm=update)
            return synthetic.run(made, loss=np.r_[np.ones(16), np.full(24, after)])

        return Examples(
            sick=(net(100.0), net(21.0), net(1e4, after=np.inf)),
            healthy=(
                net(100.0, update=0.1),
                net(19.0),
                net(100.0, used=0.01),
                net(100.0, after=0.3),
                net(100.0, after=1.2),
                net(100.0, many=5),
            ),
        )


def _norms(trace: Trace) -> tuple[Series, Series, Any]:
    """Norm over all layers of the batch's own gradient and of the used one, and the steps, where both are finite and not zero."""
    used, own = (np.sqrt(np.nansum(np.square(trace.column(c).astype(np.float64)), axis=1)) for c in ("grad_norm", "grad_raw_norm"))
    usable = np.isfinite(used) & np.isfinite(own) & (own > 0)
    return own[usable], used[usable], trace.steps[usable]


def _jump(trace: Trace, step: int) -> float:
    """Loss over the twenty steps after a step over that of the twenty steps up to it; infinite if it is not finite."""
    loss = trace.curves["loss"]
    at = int(np.searchsorted(loss.steps, step, side="right"))
    before, after = loss.values[max(0, at - 20) : at], loss.values[at : at + 20]
    if not len(before) or not len(after) or not np.isfinite(before).all() or not np.median(before) > 0:
        return 0.0
    return float(np.median(after) / np.median(before)) if np.isfinite(after).all() else float("inf")
