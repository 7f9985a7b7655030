"""A rate that seems too high, and what else would calm the run -> which of them trains best: the cause is what that one removes.

A smaller rate calms whatever shakes. So clipping and norms are tried beside it, from the same weights on the same batches: gradients that
are cut let a run whose rate is right go on at that rate, and one whose rate is wrong no less shaken; norms have to do far better than a
smaller rate, since they let most networks train at most rates.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from evengrad.errors import EvengradError
from evengrad.remedies import discovered
from evengrad.signals.curves import progress
from evengrad.training import Experiment, train
from evengrad.types import Finding, Intervention, Proposal, Series, Trace

_PART, _SHORTEST, _LONGEST = 8, 20, 200  # an eighth of the planned steps
_CUT = 0.3  # norm of all gradients: so small that any run with a wild one is cut
_AS_GOOD = 1.05  # of the loss at the smaller rate
_FAR_BETTER = 0.3
_BETTER = 0.9  # of the loss without any change
_GAIN = 0.1  # of the loss that is to be beaten
_USED = 0.9  # of the gradient: less is clipped already
_PLAIN = {"SGD", "ASGD"}  # others divide by the gradient's size, and a cut changes little


@dataclass(frozen=True)
class Rivals:
    """Trains the first steps again with a smaller rate and with what else would calm a run.

    Attributes:
        experiment: What was trained.
        trace: What it showed.
        seed: The seed that it was trained with.
        until: When no further change is tried, by `time.perf_counter`; without an answer by then nothing is said.
    """

    experiment: Experiment
    trace: Trace
    seed: int
    until: float

    def winner(self, finding: Finding) -> tuple[str | None, list[Intervention]]:
        """Returns the cause whose removal trains best, None where that is the rate that the finding names; and what was tried."""
        levels, tried = dict[str, float](), list[Intervention]()
        for proposal in self._proposals(finding):
            if time.perf_counter() > self.until:
                return None, tried
            level = self._level(proposal)
            levels[proposal.cause] = min(level, levels.get(proposal.cause, math.inf))
            tried.append(self._told(proposal, finding, level))
        rate, way = levels.get("lr_too_high", math.inf), progress(self.trace)
        reference = way.reference if way is not None else math.inf
        best = {cause: level for cause, level in levels.items() if reference - level >= _GAIN * abs(reference)}
        normed = best.get("missing_normalization_layer", math.inf)
        if normed < _FAR_BETTER * min(rate, best.get("no_grad_clip", math.inf)):
            return "missing_normalization_layer", tried
        cut = best.get("no_grad_clip", math.inf)
        if cut <= _AS_GOOD * rate and cut < _BETTER * self._before():
            return "no_grad_clip", tried
        return (None if finding.cause or not rate < _BETTER * self._before() else "lr_too_high"), tried

    def _proposals(self, finding: Finding) -> list[Proposal]:
        trace = self.trace
        rates = list(discovered()["lower_rate"]().propose(replace(finding, symptom="loss_divergence"), trace))
        others: list[Proposal] = []
        if (trace.facts.optimizer or {}).get("name") in _PLAIN and not self._is_clipped():
            others += [replace(p, options={"max_norm": _CUT}, summary=f"clip_norm {_CUT}") for p in _first("clip_norm", finding, trace)]
        if not (trace.facts.modules or {}).get("norms"):
            others += _first("batch_norm", finding, trace)
        return [*others, *rates] if others and rates else []

    def _is_clipped(self) -> bool:
        used, own = self.trace.column("grad_norm"), self.trace.column("grad_raw_norm")
        with np.errstate(all="ignore"):
            kept = used.astype(np.float64) / own
        seen = kept[np.isfinite(kept)]
        return bool(len(seen)) and float(np.median(seen)) < _USED

    def _level(self, proposal: Proposal) -> float:
        """The mean loss over the last quarter of the steps that are trained again; infinite where they do not go well."""
        try:
            return _late(train(self.experiment.repaired([proposal]), seed=self.seed, max_steps=self._steps()).losses)
        except EvengradError:  # a change that the network cannot run with
            return math.inf

    def _steps(self) -> int:
        planned = int((self.trace.facts.loop or {}).get("steps") or len(self.trace.curves["loss"].values))
        return int(np.clip(planned // _PART, _SHORTEST, _LONGEST))

    def _before(self) -> float:
        return _late(self.trace.curves["loss"].values[: self._steps()])

    def _told(self, proposal: Proposal, finding: Finding, level: float) -> Intervention:
        way = progress(self.trace)
        restored = way is not None and way.reference - level >= _GAIN * abs(way.reference)
        return Intervention(
            proposal=proposal,
            cause=proposal.cause,
            code=finding.code,
            signal="loss_of_the_first_steps",
            before=self._before(),
            after=level,
            restored=restored,
            findings=() if restored else (finding.code,),
        )


def _first(name: str, finding: Finding, trace: Trace) -> list[Proposal]:
    return list(discovered()[name]().propose(finding, trace))[:1]


def _late(losses: Series) -> float:
    """The mean over the last quarter; infinite where a loss is not finite."""
    return float(np.mean(losses[-max(1, len(losses) // 4) :])) if np.isfinite(losses).all() else math.inf
