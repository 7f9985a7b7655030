"""Experiment -> the smallest set of changes that provably works: proposals -> paired trials over seeds -> verdict and patch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from evengrad.errors import InputError
from evengrad.examine import diagnose_run, errors
from evengrad.judge import chosen_rules
from evengrad.remedies import discovered
from evengrad.report import Report
from evengrad.rules import Rule
from evengrad.training import Experiment
from evengrad.trial import middle, run_seeds, trial
from evengrad.types import Finding, Outcome, Proposal, Trace

_CANDIDATES = 4  # single changes that are tried by training
_NEARLY_BEST = 0.9  # share of the best gain at which a smaller change is preferred


@dataclass(frozen=True, kw_only=True)
class FixResult:
    """What `fix` found out.

    Attributes:
        verdict: `fixed` (no error finding left and the metric better on every seed), `improved` (better on every seed),
            `nothing_helped` or `nothing_wrong`.
        report: The report, with trials, patch and the measurements after.
        outcomes: Every set of changes that was tried, per seed.
        chosen: The smallest set that works; empty if nothing helped.
        experiment: The original with the chosen repairs.
        patch: What to change in one's own code.
    """

    verdict: str
    report: Report
    outcomes: tuple[Outcome, ...]
    chosen: tuple[Proposal, ...]
    experiment: Experiment
    patch: str

    @property
    def fixed(self) -> bool:
        """True if the verdict is `fixed`."""
        return self.verdict == "fixed"


def fix(
    experiment: Experiment,
    *,
    seeds: int | Sequence[int] = 3,
    max_seconds: float | None = None,
    max_remedies: int = 3,
    rules: Sequence[Rule] | None = None,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    progress: Callable[[str], None] | None = None,
    name: str = "",
) -> FixResult:
    """Diagnoses the experiment, tries what the findings call for by training on paired seeds, and keeps the smallest set that works.

    Single changes come first, those that restored the signal in an intervention before the others; only if none works are changes
    added to the best one. The experiment itself is left as it is.

    Args:
        experiment: What to fix.
        seeds: Number of seeds, or the seeds.
        max_seconds: Wall-clock budget; no new trial starts after it.
        max_remedies: Largest number of changes in a set.
        rules: Rules with thresholds of one's own.
        select: Codes, or beginnings of codes, to look for.
        ignore: Codes, or beginnings of codes, to leave out.
        progress: Called with a line of text before each training.
        name: What the report calls the experiment.

    Raises:
        InputError: if there is no seed, or max_remedies is under 1.

    Example:
        >>> result = eg.fix(experiment)
        >>> print(result.verdict, result.patch)
    """
    chosen_seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen_seeds or max_remedies < 1:
        raise InputError(f"fix needs at least one seed and max_remedies >= 1; got seeds={seeds!r}, max_remedies={max_remedies}")
    deadline = None if max_seconds is None else time.perf_counter() + max_seconds
    judged = chosen_rules(rules, select, ignore)
    search = _Search(experiment, chosen_seeds, judged, deadline=deadline, say=progress or (lambda _line: None), name=name)
    if not errors(search.report.findings, "warning"):
        return search.result("nothing_wrong", None)
    search.try_singles()
    best = search.best()
    while best is not None and best.verdict != "fixed" and len(best.proposals) < max_remedies:
        grown = search.try_adding(best)
        if grown is best:
            break
        best = grown
    return search.result("nothing_helped" if best is None else best.verdict, best)


class _Search:
    """The trials of one call of `fix`."""

    def __init__(
        self,
        experiment: Experiment,
        seeds: tuple[int, ...],
        rules: list[Rule],
        *,
        deadline: float | None,
        say: Callable[[str], None],
        name: str,
    ) -> None:
        self.experiment, self.seeds, self.rules, self.name = experiment, seeds, rules, name
        self._deadline, self._say, self._started = deadline, say, time.perf_counter()
        self.outcomes: list[Outcome] = []
        self._after: dict[tuple[str, ...], tuple[Trace | None, tuple[Finding, ...]]] = {}
        self._say(f"looking at every layer while seed {seeds[0]} trains")
        self.report, watched = diagnose_run(experiment, rules, seed=seeds[0], name=name)
        self._first_metric = watched.metric
        self._before: tuple[float, ...] | None = None

    def try_singles(self) -> None:
        """Tries the best proposals one by one."""
        for proposal in self.report.proposals[:_CANDIDATES]:
            if self._late():
                return
            self._try((proposal,))

    def try_adding(self, best: Outcome) -> Outcome:
        """Tries changes of other kinds on top of the best outcome (two norms do not go together); returns the best of all."""
        kinds = {name: remedy.change for name, remedy in discovered().items()}
        held = {kinds[p.remedy] for p in best.proposals}
        for proposal in self.report.proposals:
            if kinds[proposal.remedy] in held or self._late():
                continue
            self._try((*best.proposals, proposal))
            if self.outcomes[-1].verdict == "fixed":
                break
        return self.best() or best

    def best(self) -> Outcome | None:
        """The smallest set among those that reach nearly the best median: fixed before improved; None if nothing improved."""
        for verdict in ("fixed", "improved"):
            found = [o for o in self.outcomes if o.verdict == verdict]
            if found:
                start = middle(found[0].before, self.experiment.maximize)
                ends = [middle(o.after, self.experiment.maximize) for o in found]
                if not math.isfinite(start):  # it diverged: count from the worst that did not
                    start = min(ends) if self.experiment.maximize else max(ends)
                gains = [abs(end - start) for end in ends]
                near = [o for o, gain in zip(found, gains, strict=True) if not gain < _NEARLY_BEST * max(gains)]
                return min(near, key=lambda o: len(o.proposals))
        return None

    def result(self, verdict: str, best: Outcome | None) -> FixResult:
        """Puts everything together."""
        chosen = best.proposals if best else ()
        after = self._after.get(tuple(p.summary for p in chosen), (None, ()))[0]
        patch = "\n".join(f"# {p.summary}\n{p.code}" for p in chosen)
        run = replace(self.report.run, verb="fix", seconds=time.perf_counter() - self._started)
        proved = {p.cause for p in chosen}  # of several causes, the one whose removal was proved by training comes first
        causes = tuple(sorted(self.report.causes, key=lambda cause: cause not in proved))
        report = replace(self.report, run=run, causes=causes, outcomes=tuple(self.outcomes), chosen=chosen, verdict=verdict)
        report = replace(report, patch=patch, after=after)
        return FixResult(
            verdict=verdict,
            report=report,
            outcomes=report.outcomes,
            chosen=chosen,
            experiment=self.experiment.repaired(chosen),
            patch=patch,
        )

    def _try(self, proposals: tuple[Proposal, ...]) -> None:
        outcome = trial(self.experiment, proposals, self.seeds, self._baseline(), progress=self._say)
        if outcome.verdict == "improved":
            self._say(f"{' + '.join(p.summary for p in proposals)}: looking at every layer again")
            report, _ = diagnose_run(self.experiment.repaired(proposals), self.rules, seed=self.seeds[0], causes=False, name=self.name)
            self._after[tuple(p.summary for p in proposals)] = (report.trace, report.findings)
            left = tuple(dict.fromkeys(f.code for f in errors(report.findings)))
            outcome = replace(outcome, findings=left, verdict="improved" if left else "fixed")
        self.outcomes.append(outcome)

    def _baseline(self) -> tuple[float, ...]:
        if self._before is None:
            rest = run_seeds(self.experiment, self.seeds[1:], progress=self._say, label="unchanged")
            self._before = (self._first_metric, *rest)
        return self._before

    def _late(self) -> bool:
        return self._deadline is not None and time.perf_counter() > self._deadline
