"""A state -> looks at it, trainings of it, what is wrong with it, what helps: all that the worker does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from evengrad.changes import proposed
from evengrad.errors import EvengradError, InputError
from evengrad.examine import check_rig
from evengrad.judge import chosen_rules, report_of
from evengrad.recording import Recording
from evengrad.report import Report
from evengrad.report.explained.links import links
from evengrad.report.numbers import plural
from evengrad.report.wording import cause_phrase, change_label
from evengrad.rig import Rig
from evengrad.serve.play import sight
from evengrad.serve.play.network import experiment_of, plain, points
from evengrad.serve.play.state import State
from evengrad.trace.batch import Batch
from evengrad.training import Experiment, build, first_batch, loop_facts, train, validation_of
from evengrad.types import SEVERITIES, Finding, Proposal, Trace

Frame = dict[str, Any]
Pause = Callable[[Callable[[], Report]], None]  # is given what judges the training so far
_SHORT, _SECONDS = 200, 2.5  # steps and seconds of a trial
_TRIED = 4  # changes that are tried where none was named
_BETWEEN = 0.2  # seconds between two frames
_FASTEST = 600.0  # steps a second: faster cannot be watched


class Interrupted(Exception):  # noqa: N818  # ends a training; no error
    """The page asked for something else."""


class Workshop:
    """Holds what was worked out for states; one question at a time."""

    def __init__(self) -> None:
        self._proposals: dict[State, dict[str, Proposal]] = {}
        self._last: tuple[State, Report] | None = None

    def look(self, state: State, *, with_points: bool = False) -> Frame:
        """Measures the network before its first step."""
        rig, batch = self._rig(state)
        found: Frame = {"layers": sight.layers(rig, batch), "parameters": sum(p.numel() for p in rig.model.parameters())}
        return found | ({"points": _points(state)} if with_points else {})

    def train(self, state: State, tell: Callable[[Frame], None], pause: Pause) -> Frame:
        """Trains until it is done, or `pause` raises; `tell` gets frames."""
        experiment = self._experiment(state)
        watcher = _Watcher(state, experiment, tell, pause)
        try:
            result = train(experiment, seed=state.seed, watcher=watcher)
        finally:
            self._last = (state, watcher.report()) if watcher.losses else None
        watcher.show()
        return {"metric": _known(result.metric)}

    def judge(self, state: State, seen: Report | None = None) -> Frame:
        """Says what is wrong, by the rules: before the first step with causes by experiment, and in the training that was watched last."""
        report = self._checked(state)
        if seen is None and self._last is not None and self._last[0] == state:
            seen = self._last[1]
        findings = {f.code: f for f in report.findings}
        proposals = {p.summary: p for p in report.proposals}
        if seen is not None:
            late = [f for f in seen.findings if f.code not in findings]
            findings |= {f.code: f for f in late}
            if seen.trace is not None:
                proposals |= {c.proposal.summary: c.proposal for c in proposed(late, seen.trace)}
        self._proposals.setdefault(plain(state), {}).update(proposals)
        ordered = sorted(findings.values(), key=lambda f: (SEVERITIES.index(f.severity), f.effect_of is not None))
        looked = f"{plural(len(report.checked), 'rule')} before the first step"
        if seen is not None and seen.trace is not None:
            looked += f", {len(seen.checked)} over {plural(len(seen.trace.curves['loss'].steps), 'step')}"
        told = [_finding(f, report.trace) for f in ordered]
        return {"findings": told, "proposals": [_proposal(p, report.trace) for p in proposals.values()], "looked": looked}

    def fix(self, state: State, *, named: str = "") -> Frame:
        """Tries changes by short trainings on the same seed, and chooses the best; with a name, that one alone.

        Raises:
            InputError: if nothing is offered for this state.
        """
        base = plain(state)
        offered = self._offered(base)
        if not offered:
            raise InputError("no rule found anything that a remedy is offered for; train first, then ask again")
        chosen = [self._named(base, named)] if named else list(offered.values())[:_TRIED]
        before = _trial(experiment_of(base), base.seed)
        tried = []
        for proposal in chosen:
            try:
                tried.append((proposal, _trial(experiment_of(base, (proposal,)), base.seed)))
            except EvengradError:  # a change that does not fit this network
                continue
        if not tried:
            raise InputError("none of the changes that are offered fits this network")
        best = max(tried, key=lambda pair: -math.inf if pair[1] is None else pair[1])
        rows = [{"summary": p.summary, "label": change_label(p), "metric": metric, "code": p.code, "risk": p.risk} for p, metric in tried]
        return {
            "before": before,
            "tried": rows,
            "fix": best[0].summary,
            "label": change_label(best[0]),
            "better": (best[1] or 0.0) > (before or 0.0),
        }

    def _rig(self, state: State) -> tuple[Rig, Batch]:
        rig = build(self._experiment(state), state.seed)
        return rig, first_batch(rig)

    def _experiment(self, state: State) -> Experiment:
        return experiment_of(state, (self._named(plain(state), state.fix),) if state.fix else ())

    def _named(self, base: State, summary: str) -> Proposal:
        """The proposal of this summary, or, where numbers in it came out otherwise, one of the same remedy."""
        offered = self._proposals.get(base) or self._offered(base)
        if summary in offered:
            return offered[summary]
        remedy = summary.partition(" ")[0]
        alike = [p for text, p in (offered | self._offered(base)).items() if text.partition(" ")[0] == remedy]
        if not alike:
            raise InputError(f"{summary!r} is not offered for this network; ask what is wrong with it")
        return alike[0]

    def _offered(self, base: State) -> dict[str, Proposal]:
        """What is offered at the start; where that is nothing, what is offered after a short training."""
        if base not in self._proposals or not self._proposals[base]:
            report = self._checked(base)
            found = {p.summary: p for p in report.proposals}
            if not found:
                recorded = self._short(base)
                assert recorded.trace is not None
                found = {c.proposal.summary: c.proposal for c in proposed(recorded.findings, recorded.trace)}
            self._proposals[base] = found
        return self._proposals[base]

    def _checked(self, state: State) -> Report:
        rig, batch = self._rig(state)
        return check_rig(rig, batch, chosen_rules(), name="playground")

    def _short(self, state: State) -> Report:
        experiment = self._experiment(state)
        recording = _recording(experiment)
        result = train(experiment, seed=state.seed, watcher=recording, max_steps=_SHORT)
        return report_of(recording.trace(result.losses), chosen_rules())


class _Watcher:
    """Shows a training as it goes, records it for the rules, and lets the page interrupt."""

    def __init__(self, state: State, experiment: Experiment, tell: Callable[[Frame], None], pause: Pause) -> None:
        self._tell, self._pause = tell, pause
        self._recording = _recording(experiment)
        self._x = points(state.data).x_train
        self._box = sight.box_of(self._x)
        self._began = self._shown = time.monotonic()
        self._test = [torch.as_tensor(points(state.data).x_test), torch.as_tensor(points(state.data).y_test)]
        self._told = 0
        self._latest: tuple[Rig, Batch] | None = None
        self.losses: list[float] = []

    def before(self, rig: Rig, batch: Batch) -> None:
        """Lets the rules see the step."""
        self._recording.before(rig, batch)

    def after(self, rig: Rig, batch: Batch, loss: torch.Tensor) -> None:
        """Shows a frame when it is time for one, and waits where steps are too fast to be seen."""
        self._recording.after(rig, batch, loss)
        self.losses.append(float(loss))
        self._latest = rig, batch
        if time.monotonic() - self._shown >= _BETWEEN or len(self.losses) == 1:
            self._frame(rig, batch)
            self._pause(self.report)
        ahead = self._began + len(self.losses) / _FASTEST - time.monotonic()
        if ahead > 0.01:
            time.sleep(ahead)

    def show(self) -> None:
        """Shows the last frame."""
        if self._latest is not None:
            self._frame(*self._latest)

    def report(self) -> Report:
        """Judges what was recorded so far."""
        return report_of(self._recording.trace(np.array(self.losses)), chosen_rules())

    def _frame(self, rig: Rig, batch: Batch) -> None:
        new = list(range(self._told, len(self.losses)))[-2000:]
        kept = new[:: max(1, len(new) // 60)]
        frame: Frame = {"step": len(self.losses), "steps": kept, "loss": [_known(self.losses[i]) for i in kept]}
        frame |= {"layers": sight.layers(rig, batch), "boundary": sight.boundary(rig, self._box), "accuracy": self._accuracy(rig)}
        self._told, self._shown = len(self.losses), time.monotonic()
        self._tell(frame)

    @torch.no_grad()
    def _accuracy(self, rig: Rig) -> float | None:
        x, y = self._test
        modes = [(module, module.training) for module in rig.model.modules()]
        rig.model.eval()
        try:
            output = rig.model(x)
        finally:
            for module, training in modes:
                module.training = training
        return float((output.argmax(1) == y).float().mean()) if bool(output.isfinite().all()) else None


def _recording(experiment: Experiment) -> Recording:
    return Recording(name="playground", loop=loop_facts(experiment), validation=validation_of(experiment))


def _trial(experiment: Experiment, seed: int) -> float | None:
    return _known(train(experiment, seed=seed, max_steps=_SHORT, max_seconds=_SECONDS).metric)


def _points(state: State) -> Frame:
    split = points(state.data)
    x, y = split.x_train[: state.samples], split.y_train[: state.samples]
    return {"x": [[round(float(v), 4) for v in row] for row in x], "y": [int(v) for v in y], "box": sight.box_of(split.x_train)}


def _finding(finding: Finding, trace: Trace | None) -> Frame:
    kept = {name: getattr(finding, name) for name in ("code", "symptom", "severity", "message", "effect_of")}
    read_on = [{"words": words, "address": f"/rules/{address}"} for words, address in links(finding, trace)[1:]]
    return kept | {"cause": cause_phrase(finding.cause, trace) if finding.cause else "", "links": read_on}


def _proposal(proposal: Proposal, trace: Trace | None) -> Frame:
    cause = cause_phrase(proposal.cause, trace) if proposal.cause else ""
    return {"summary": proposal.summary, "label": change_label(proposal), "cause": cause, "risk": proposal.risk}


def _known(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
