"""OPT017: the loop takes a step for many batches, or many steps for one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import MIN_STEPS, thrives
from evengrad.types import Evidence, Facts, Finding, Trace

_MANY = 50  # times as many samples as a batch has


@dataclass(frozen=True, kw_only=True)
class StepsABatch(Rule):
    """The user's own loop calls the optimizer so rarely that few steps are taken, or after a handful of samples each.

    Calls of the model and the optimizer are counted inside the loop. A loop that gathers gradients of a few batches on purpose takes
    steps enough; one that is cut into pieces to save memory, and steps after each, has the noise of that few samples in every step.

    Attributes:
        max_batches: Most batches a step, if the planned steps are few.
        few_steps: Steps of the optimizer under which a run is short.
        max_steps: Most steps a batch that are no mistake.
        tiny_batch: Samples of a batch, out of at least fifty times as many, that are too few.
        few_samples: Samples of a piece under which a step is mostly noise.

    Reference: Goyal et al. 2017, Accurate, large minibatch SGD; Masters & Luschi 2018, Revisiting small batch training.
    """

    code: ClassVar[str] = "OPT017"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "steps are not taken once a batch"
    causes: ClassVar[tuple[str, ...]] = ("undertrained", "batch_too_small")
    needs: ClassVar[tuple[str, ...]] = ("facts.loop",)
    signal: ClassVar[tuple[str, str]] = ("optimizer_steps", "a batch")
    helps: ClassVar[str] = "optimizer.step() once for as many samples as the rate was chosen for, and zero_grad() after it"
    max_batches: float = 3.0
    few_steps: int = 100
    max_steps: float = 1.5
    few_samples: int = 8
    tiny_batch: int = 4

    def check(self, trace: Trace) -> Iterator[Finding]:
        loop, taken = trace.facts.loop or {}, self.value(trace)
        piece, planned = float(loop.get("piece", np.nan)), float(loop.get("steps") or np.nan)
        name, unit = self.signal
        if taken < 1 / self.max_batches and (taken * planned < self.few_steps or not taken):
            cause, relation, limit = "undertrained", "<", 1 / self.max_batches
            told = f"one for {1 / taken:.0f} batches" if taken else "none yet"
            few = f"{taken * planned:.0f} in the {planned:.0f} batches that are planned"
            message = f"the optimizer takes {taken:.2g} steps a batch ({told}): {few}"
            if not taken and len(trace.curves["loss"].values if "loss" in trace.curves else ()) < 2 * self.max_batches:
                return  # the first step may come yet
        elif taken > self.max_steps and piece <= self.few_samples:
            cause, relation, limit = "batch_too_small", ">", self.max_steps
            message = f"the optimizer takes {taken:.2g} steps a batch, each after {piece:.0f} of its {trace.run.samples} samples"
        elif self._tiny(trace):
            cause, relation, limit = "batch_too_small", "<=", float(self.tiny_batch)
            name, unit, taken = "batch_size", "samples", float(trace.run.samples)
            message = f"each step sees {taken:.0f} of {loop['samples']:,} samples: what it follows is mostly their noise"
        else:
            return
        evidence = Evidence(signal=name, value=taken, relation=relation, threshold=limit, unit=unit, where="loop")
        severity = "note" if thrives(trace) else "warning"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=("loop",), at=(0, len(trace.steps) - 1))
        yield replace(found, cause=cause)

    def _tiny(self, trace: Trace) -> bool:
        """True if batches are of a few samples out of many, and the run has begun."""
        samples = (trace.facts.loop or {}).get("samples") or 0
        begun = "loss" in trace.curves and len(trace.curves["loss"].values) >= MIN_STEPS
        return trace.run.samples <= self.tiny_batch and samples >= _MANY * trace.run.samples and begun

    def value(self, trace: Trace) -> float:
        """Steps of the optimizer a batch, as they were counted; one where the loop is no one's own."""
        return float((trace.facts.loop or {}).get("optimizer_steps", 1.0))

    @classmethod
    def examples(cls) -> Examples:
        def net(taken: float, *, loss: Any = None, **loop: float) -> Trace:
            made = synthetic.chain(3, facts=Facts(loop={"optimizer_steps": taken, "piece": 64.0, "steps": 800, **loop}))
            return synthetic.run(made, loss=np.full(40, 1.0) if loss is None else loss)

        def small(samples: int) -> Trace:
            made = net(1.0, samples=1000)
            return replace(made, run=replace(made.run, samples=samples))

        return Examples(
            sick=(net(1 / 48), net(0.1), net(32.0, piece=2.0), net(2.0, piece=8.0), small(1), small(4)),
            healthy=(net(1.0), net(0.34), net(0.25), net(2.0), net(1.0, piece=2.0), net(1.4, piece=2.0), small(5)),
        )
