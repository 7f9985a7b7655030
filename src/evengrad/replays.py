"""Findings that only training shows, and changes -> some steps trained again with each change, and what became of the fault."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from evengrad.changes import Change, intervention, verdict
from evengrad.errors import EvengradError
from evengrad.recording import Recording, Snapshot
from evengrad.remedies.base import CLIP, RATE
from evengrad.rules import Rule
from evengrad.signals.curves import progress
from evengrad.training import Experiment, again, train
from evengrad.types import Finding, Intervention, Series, Trace

_LONGEST = 200  # steps
_PART = 8  # a fault of the whole curve is looked at over an eighth of it
_GAIN = 0.1  # of the loss that is to be beaten: a change that gains less has not brought learning about
_BETTER = 0.75  # of the loss without the change
_LATE = 50  # steps after which a jump is none of the beginning
_SUDDEN = {"loss_spike", "loss_divergence", "nan_or_inf", "exploding_gradient"}  # what a snapshot is kept for
_BEFORE, _CALM, _JUMP = 32, 0.25, 3.0  # losses before a jump; share of its height, and multiple of the usual loss, that are none


class Replays:
    """Trains again, once with each change in the order of least change, until one restores each finding or the budget is spent.

    Args:
        experiment: What was trained.
        rules: Rules by code.
        trace: What it showed.
        seed: The seed that it was trained with.
        steps: Budget: no change is tried once so many steps were trained again.
        until: When no further change is tried, by `time.perf_counter`.
        snapshot: The training shortly before its loss jumped, and the batches since, or None.
    """

    def __init__(
        self,
        experiment: Experiment,
        rules: Mapping[str, Rule],
        trace: Trace,
        *,
        seed: int,
        steps: int,
        until: float,
        snapshot: Snapshot | None = None,
    ) -> None:
        self._experiment, self._rules, self._trace, self._seed = experiment, rules, trace, seed
        self._snapshot = snapshot if snapshot is not None and snapshot.step > 0 else None
        self._left, self._until = steps, until
        self.skipped: dict[str, str] = {}

    def tried(self, findings: Sequence[Finding], changes: Sequence[Change]) -> list[Intervention]:
        """Returns an intervention for each change that was tried for each of these findings."""
        found: list[Intervention] = []
        beyond = [f for f in findings if not self._of_curve(f) and not self._kept(f) and f.steps[0] >= _LONGEST]
        if beyond:
            self.skipped["causes of late faults"] = f"training again up to step {min(f.steps[0] for f in beyond):,} would take too long"
        findings = [f for f in findings if f not in beyond]
        if any(self._came_late(f) for f in findings):  # a run that was well until then: rare gradients are asked of before the rate
            changes = sorted(changes, key=lambda c: RATE - 0.5 if c.remedy.change == CLIP else c.remedy.change)
        for change in changes:
            restored = {i.code for i in found if i.restored}
            open_ = [f for f in findings if f in change.findings and f.code not in restored]
            if not open_:
                continue
            if self._left <= 0 or time.perf_counter() > self._until:
                self.skipped["some changes"] = "training again with each of them would have taken longer than the budget"
                break
            kept = [f for f in open_ if self._kept(f)]
            if kept and not change.remedy.shows_at_once:  # what changes the loop; other changes would undo what was learnt
                found += self._rewound(change, kept)
            rest = [f for f in open_ if f not in kept]
            found += self._replayed(change, rest) if rest else []
        return found

    def _rewound(self, change: Change, findings: Sequence[Finding]) -> list[Intervention]:
        """Takes the steps around the jump again from the snapshot, and compares how far the loss jumps."""
        assert self._snapshot is not None  # findings are only kept with one
        losses, start = self._trace.curves["loss"].values, self._snapshot.step
        try:
            after = again(self._experiment, self._snapshot, [change.proposal], seed=self._seed)
        except EvengradError:
            after = np.full(len(self._snapshot.batches), math.nan)
        self._left -= len(after)
        usual = float(np.median(losses[max(0, start - _BEFORE) : start + 1]))
        before_top, after_top = _top(losses[start : start + len(after)]), _top(after)
        calm = usual + _CALM * (before_top - usual) if math.isfinite(before_top) else _JUMP * abs(usual)
        restored = after_top <= calm
        return [
            Intervention(
                proposal=change.proposal,
                cause=change.proposal.cause,
                code=finding.code,
                signal="highest_loss",
                before=before_top,
                after=after_top,
                restored=restored,
                findings=() if restored else (finding.code,),
            )
            for finding in findings
        ]

    def _came_late(self, finding: Finding) -> bool:
        """True if the loss jumped after it had made way for fifty steps or more."""
        loss, way = self._trace.curves["loss"], progress(self._trace)
        if finding.symptom not in _SUDDEN or finding.steps[0] < _LATE or way is None:
            return False
        seen = loss.values[: int(np.searchsorted(loss.steps, finding.steps[0]))]
        least = float(np.median(np.lib.stride_tricks.sliding_window_view(seen, 10), axis=1).min()) if len(seen) >= 10 else math.inf
        return least < (1 - _GAIN) * way.reference

    def _kept(self, finding: Finding) -> bool:
        """True if the finding is about the jump that a snapshot was kept for."""
        if self._snapshot is None or self._snapshot.jump is None or finding.symptom not in _SUDDEN:
            return False
        return self._snapshot.step <= finding.steps[0] <= self._snapshot.step + len(self._snapshot.batches)

    def _replayed(self, change: Change, findings: Sequence[Finding]) -> list[Intervention]:
        horizon = max(self._horizon(f) for f in findings)
        self._left -= horizon
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
            part = int(np.clip(len(self._trace.curves["loss"].values) // _PART, 20, _LONGEST))
            swings = finding.symptom == "oscillating_loss"  # which has to come up again before it can be gone
            return min(_LONGEST, max(part, finding.steps[0] + part)) if swings else part
        return min(_LONGEST, 2 * finding.steps[0] + 50)


def _top(values: Series) -> float:
    return float(values.max()) if np.isfinite(values).all() else math.inf


def _last(values: Series) -> float:
    """The mean over the last quarter of the steps."""
    return float(np.mean(values[-max(1, len(values) // 4) :]))
