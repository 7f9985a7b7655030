"""Findings that only training shows, and changes -> the first steps trained again with each change, and what became of the fault."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from evengrad.changes import Change, intervention, verdict
from evengrad.errors import EvengradError
from evengrad.recording import Recording
from evengrad.rules import Rule
from evengrad.signals.curves import progress
from evengrad.training import Experiment, train
from evengrad.types import Finding, Intervention, Series, Trace

_LONGEST = 200  # steps
_PART = 8  # a fault of the whole curve is looked at over an eighth of it
_GAIN = 0.1  # of the loss that is to be beaten: a change that gains less has not brought learning about
_BETTER = 0.75  # of the loss without the change


class Replays:
    """Trains again, once with each change in the order of least change, until one restores each finding or the budget is spent.

    Args:
        experiment: What was trained.
        rules: Rules by code.
        trace: What it showed.
        seed: The seed that it was trained with.
        seconds: Wall-clock budget.
    """

    def __init__(self, experiment: Experiment, rules: Mapping[str, Rule], trace: Trace, *, seed: int, seconds: float) -> None:
        self._experiment, self._rules, self._trace, self._seed = experiment, rules, trace, seed
        self._until = time.perf_counter() + seconds
        self.skipped: dict[str, str] = {}

    def tried(self, findings: Sequence[Finding], changes: Sequence[Change]) -> list[Intervention]:
        """Returns an intervention for each change that was tried for each of these findings."""
        found: list[Intervention] = []
        beyond = [f for f in findings if not self._of_curve(f) and f.steps[0] >= _LONGEST]
        if beyond:
            self.skipped["causes of late faults"] = f"training again up to step {min(f.steps[0] for f in beyond):,} would take too long"
        findings = [f for f in findings if f not in beyond]
        for change in changes:
            restored = {i.code for i in found if i.restored}
            open_ = [f for f in findings if f in change.findings and f.code not in restored]
            if not open_:
                continue
            if time.perf_counter() > self._until:
                self.skipped["some changes"] = "training again with each of them would have taken longer than the budget"
                break
            found += self._replayed(change, open_)
        return found

    def _replayed(self, change: Change, findings: Sequence[Finding]) -> list[Intervention]:
        horizon = max(self._horizon(f) for f in findings)
        watched = [f for f in findings if not self._of_curve(f)]
        recording = Recording(dense=0, growth=1.3) if watched else None
        try:
            result = train(self._experiment.repaired([change.proposal]), seed=self._seed, watcher=recording, max_steps=horizon)
        except EvengradError:  # a change that the network cannot run with was tried, and failed
            return [intervention([change], self._rules[f.code], self._trace, [(math.nan, False)]) for f in findings]
        out = []
        for finding in findings:
            rule = self._rules[finding.code]
            if recording is not None and finding in watched:
                seen = verdict(rule, recording.trace(result.losses).until(self._horizon(finding)))
                out.append(intervention([change], rule, self._trace, [seen]))
            else:
                out.append(self._by_loss(change, finding, result.losses))
        return out

    def _by_loss(self, change: Change, finding: Finding, losses: Series) -> Intervention:
        """The loss at the end of the replay, beside the loss that was there after as many steps."""
        before, after = (_last(values[: len(losses)]) for values in (self._trace.curves["loss"].values, losses))
        way = progress(self._trace)
        reference = way.reference if way is not None else float(losses[0])
        gained = math.isfinite(after) and reference - after >= _GAIN * abs(reference)
        restored = gained and not after > _BETTER * before  # what was not finite is no better than anything
        return Intervention(
            proposal=change.proposal,
            cause=change.proposal.cause,
            code=finding.code,
            signal=f"loss_after_{len(losses)}_steps",
            before=before,
            after=after,
            restored=restored,
            findings=() if restored else (finding.code,),
        )

    def _of_curve(self, finding: Finding) -> bool:
        return "curves.loss" in self._rules[finding.code].needs

    def _horizon(self, finding: Finding) -> int:
        if self._of_curve(finding):
            return int(np.clip(len(self._trace.curves["loss"].values) // _PART, 20, _LONGEST))
        return min(_LONGEST, 2 * finding.steps[0] + 50)


def _last(values: Series) -> float:
    """The mean over the last quarter of the steps."""
    return float(np.mean(values[-max(1, len(values) // 4) :]))
