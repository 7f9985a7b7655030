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

_FIRST = 5  # sampled steps that make no median
_WINDOW = 10  # losses before and after a spike


@dataclass(frozen=True, kw_only=True)
class NoClip(Rule):
    """A few batches have a gradient many times the usual size, nothing clips it, and the loss does not recover from what it does.

    A rate that is too high spoils the run from its first steps; here the loss falls until one gradient, of a size not seen before,
    throws the weights off. Clipping by norm takes the few that are like that.

    Attributes:
        min_spike: Smallest ratio of a spike to the median gradient norm before it.
        min_progress: Share of the loss to beat that is gone before the spike: a run that was well until then.
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
    min_spike: float = 5.0
    min_progress: float = 0.15
    max_spike_fraction: float = 0.2
    max_update_ratio: float = 0.1
    min_jump: float = 1.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        own, used, steps = _norms(trace)
        ran = progress(trace)
        if len(own) < 10 or ran is None or ran.thrives:
            return
        ratio = _ratios(own)
        spikes = np.flatnonzero(ratio > self.min_spike)
        if not len(spikes) or len(spikes) > self.max_spike_fraction * len(own) or bool((used[spikes] < 0.5 * own[spikes]).any()):
            return
        least = (1.0 - self.min_progress) * ran.reference
        calm = [i for i in spikes if self._calm(trace, int(steps[i])) and _before(trace, int(steps[i])) < least]
        hurt = [int(i) for i in calm if _jump(trace, int(steps[i])) > self.min_jump]
        if not hurt:
            return
        worst = max(hurt, key=lambda i: float(ratio[i]))
        largest, jump = float(ratio[worst]), _jump(trace, int(steps[worst]))
        message = (
            f"the gradient of step {steps[worst]:,} is ×{largest:.3g} the median before it and is not clipped; the loss is ×{jump:.2g} "
            f"after it; {len(spikes)} of {len(own)} sampled steps are like this"
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
        return float(_ratios(own).max()) if len(own) else float("nan")

    @classmethod
    def examples(cls) -> Examples:
        def net(spike: float, *, used: float = 1.0, after: float = 2.5, many: int = 1, update: float = 1e-3) -> Trace:
            norms = np.ones((20, 1))
            norms[15 : 15 + many] = spike
            made = synthetic.chain(3, steps=20, grad_raw_norm=norms, grad_norm=used * norms, weight_norm=1.0, update_norm=update)
            return synthetic.run(made, loss=np.r_[np.linspace(1.0, 0.5, 16), np.full(24, 0.5 * after)])

        return Examples(
            sick=(net(100.0), net(5.5), net(1e4, after=np.inf)),
            healthy=(
                net(100.0, update=0.11),
                net(4.5),
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


def _ratios(own: Series) -> Series:
    """Each gradient norm over the median of those before it; 1 for the first five."""
    out = np.ones(len(own))
    for i in range(_FIRST, len(own)):
        out[i] = own[i] / np.median(own[:i])
    return out


def _before(trace: Trace, step: int) -> float:
    """The least median loss of ten steps in a row up to a step: how far the run had come; infinite if there are no ten."""
    loss = trace.curves["loss"]
    seen = loss.values[: int(np.searchsorted(loss.steps, step, side="right"))]
    if len(seen) < _WINDOW or not np.isfinite(seen).all():
        return float("inf")
    return float(np.median(np.lib.stride_tricks.sliding_window_view(seen, _WINDOW), axis=1).min())


def _jump(trace: Trace, step: int) -> float:
    """Median loss of the ten steps after a step, or a tenth of the largest, over the median of those up to it; infinite if not finite."""
    loss = trace.curves["loss"]
    at = int(np.searchsorted(loss.steps, step, side="right"))
    before, after = loss.values[max(0, at - _WINDOW) : at], loss.values[at : at + _WINDOW]
    if not len(before) or not len(after) or not np.isfinite(before).all() or not np.median(before) > 0:
        return 0.0
    return float(max(np.median(after), 0.1 * after.max()) / np.median(before)) if np.isfinite(after).all() else float("inf")
