"""Experiment -> the smallest set of changes that provably works: proposals -> paired trials over seeds -> verdict and patch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evengrad.candidates import alternatives, candidates
from evengrad.errors import InputError
from evengrad.examine import diagnose_run, errors
from evengrad.judge import chosen_rules
from evengrad.monitor.guards import Guard
from evengrad.monitor.guards.limits import learned
from evengrad.patching import Patch, patch_of
from evengrad.report import Report
from evengrad.rig import Rig
from evengrad.rules import Rule
from evengrad.training import Experiment, evaluate
from evengrad.trial import Trainings, described, judged, middle, worth
from evengrad.types import Outcome, Proposal

_NEARLY_BEST = 0.8  # share of the best gain at which a smaller change is preferred
_FINALISTS = 2  # sets that short trials leave for a whole training
_SHORT = (8, 4)  # parts of a training that the rounds of short trials take
_FEWEST = 50  # steps of a short trial

Set = tuple[Proposal, ...]


@dataclass(frozen=True, kw_only=True)
class FixResult:
    """What `fix` found out.

    Attributes:
        verdict: `fixed` (no error finding left and the metric better on every seed), `improved` (better on every seed),
            `nothing_helped` or `nothing_wrong`.
        report: The report, with trials, patch and the measurements after.
        outcomes: Every set of changes that was trained to the end, per seed; those that came no further on the first seed alone.
        chosen: The smallest set that works; empty if nothing helped.
        experiment: The original with the chosen repairs.
        changes: What to change in one's own files; `evengrad.patching.write` does so.
        first_seconds: Seconds until the first set that works was known, on one seed; NaN if none is.
        guard: For `watch(guard=...)`: clips at the largest gradient norm that is usual in the repaired training, and holds its rate; None
            where nothing was repaired.
    """

    verdict: str
    report: Report
    outcomes: tuple[Outcome, ...]
    chosen: tuple[Proposal, ...]
    experiment: Experiment
    changes: Patch
    first_seconds: float = math.nan
    guard: Guard | None = None

    @property
    def patch(self) -> str:
        """What to change in one's own code."""
        return self.changes.text

    @property
    def fixed(self) -> bool:
        """True if the verdict is `fixed`."""
        return self.verdict == "fixed"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def __str__(self) -> str:
        return str(self.report)


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
    live: Callable[[Report], None] | None = None,
    keep: str | Path | None = None,
    workers: int = 1,
    name: str = "",
    source: tuple[Path, str] | None = None,
) -> FixResult:
    """Diagnoses the experiment, tries what the findings call for by training on paired seeds, and keeps the smallest set that works.

    The best change for the first root cause is trained at once, to the end. The others are tried for an eighth of a training, the better
    half of them for a quarter, and the best two to the end. What works best is diagnosed in its turn, and proved on the other seeds. Where
    the loss is both the metric and at fault, all are judged by the loss that replaces it. Where nothing helps, what other causes of the
    same findings call for is tried. Where errors are left, what they call for is added; at the end, every change that the gain does not
    need is taken out again. The experiment itself is left as it is.

    Args:
        experiment: What to fix.
        seeds: Number of seeds, or the seeds.
        max_seconds: Wall-clock budget; no new trial starts after it.
        max_remedies: Largest number of changes in a set.
        rules: Rules with thresholds of one's own.
        select: Codes, or beginnings of codes, to look for.
        ignore: Codes, or beginnings of codes, to leave out.
        progress: Called with a line of text before each training.
        live: Called with the report so far whenever an outcome is new.
        keep: File in which finished trainings are kept: a call that was ended goes on from there.
        workers: Trainings at a time, each in a process of its own; 1 where processes cannot be forked or a GPU is in use.
        name: What the report calls the experiment.
        source: The file that makes the experiment, and its name there, so that the patch can be tried out; None looks at the text of the
            files that its functions stand in.

    Raises:
        InputError: if there is no seed, or max_remedies or workers is under 1, or the file is of another experiment.

    Example:
        >>> result = eg.fix(experiment)
        >>> print(result.verdict, result.patch)

    Reference: Jamieson & Talwalkar 2016 (successive halving).
    """
    chosen_seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen_seeds or max_remedies < 1 or workers < 1:
        raise InputError(
            f"fix needs at least one seed and max_remedies >= 1; got seeds={seeds!r}, max_remedies={max_remedies}, workers={workers}"
        )
    search = _Search(
        experiment,
        chosen_seeds,
        chosen_rules(rules, select, ignore),
        until=math.inf if max_seconds is None else time.perf_counter() + max_seconds,
        say=progress or (lambda _line: None),
        tell=live or (lambda _report: None),
        name=name,
    )
    if not errors(search.report.findings, "warning"):
        return search.result("nothing_wrong", None, source)
    search.prepare(None if keep is None else Path(keep), workers)
    best = search.round(candidates(search.report, largest=max_remedies), None)
    base = best or search.closest(None)
    if base is None:
        base = best = search.round(alternatives(search.report), None)
    while base is not None and base.verdict != "fixed" and len(base.proposals) < max_remedies:
        grown = search.round(candidates(search.reports[described(base.proposals)], base.proposals, largest=max_remedies), best)
        base = grown if grown is not best else search.closest(base) if best is None else None
        best = grown
    best = search.smallest(best)
    return search.result("nothing_helped" if best is None else best.verdict, best, source)


@dataclass
class _Search:
    """The trials of one call of `fix`."""

    experiment: Experiment
    seeds: tuple[int, ...]
    rules: list[Rule]
    until: float
    say: Callable[[str], None]
    tell: Callable[[Report], None]
    name: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)  # of the first seed, by what was changed
    first_seconds: float = math.nan

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.say(f"looking at every layer while seed {self.seeds[0]} trains")
        self.report, first = diagnose_run(self.experiment, self.rules, seed=self.seeds[0], name=self.name)
        self.judged = judged(self.experiment, self.report)
        self._first = first if self.judged is self.experiment else replace(first, metric=evaluate(self.judged, Rig(first.model)))

    def prepare(self, keep: Path | None, workers: int) -> None:
        """Makes ready for trials."""
        self._trainings = Trainings(self.judged, self._first, keep=keep, workers=workers, progress=self.say)
        self._trainings.know((), self.seeds[0], self._first.metric)

    def round(self, sets: Sequence[Set], before: Outcome | None) -> Outcome | None:
        """Tries sets of changes and returns the best outcome that was proved; `before` if none is better."""
        tried = [self._tried(sets[0])] if sets and not self._late() else []
        for proposals in self._halved(sets[1:]):
            if not self._late():
                tried.append(self._tried(proposals))
        looked: list[Outcome] = []
        for outcome in sorted(tried, key=lambda o: -worth(o.after[0], o.maximize)):
            if outcome.verdict != "no_better" and not (looked and (self._late() or looked[-1].verdict == "fixed")):
                looked.append(self._looked(outcome))
        proved = [] if before is None else [before]
        for outcome in sorted(looked, key=lambda o: o.verdict != "fixed"):
            if not proved or not (self._late() or proved[-1].verdict == "fixed"):
                proved.append(self._proved(outcome))
        return self._best([o for o in proved if o.verdict != "no_better"])

    def closest(self, base: Outcome | None) -> Outcome | None:
        """The outcome with fewer errors left than `base` and with it: of several faults, one alone may better nothing but itself."""
        most = len(errors(self.report.findings)) if base is None else len(base.findings)
        held = () if base is None else base.proposals
        grown = [o for o in self.outcomes.values() if len(o.proposals) > len(held) and all(p in o.proposals for p in held)]
        found = [o for o in map(self._looked, grown) if len(o.findings) < most]
        return min(found, key=lambda o: (len(o.findings), len(o.proposals)), default=None)

    def smallest(self, best: Outcome | None) -> Outcome | None:
        """Takes out every change that the verdict and the gain do not need."""
        for proposal in best.proposals if best is not None else ():
            assert best is not None
            fewer = tuple(p for p in best.proposals if p is not proposal)
            if fewer and not self._late():
                without = self._tried(fewer)
                without = without if without.verdict == "no_better" else self._looked(without)
                if without.verdict == best.verdict:
                    without = self._proved(without)
                    best = self._best([best, without]) if without.verdict == best.verdict else best
        return best

    def result(self, verdict: str, best: Outcome | None, source: tuple[Path, str] | None) -> FixResult:
        """Puts everything together."""
        chosen = best.proposals if best else ()
        after = self.reports[described(chosen)].trace if chosen else None
        file, name = source or (None, "experiment")
        changes = patch_of(self.experiment, chosen, name=name, file=file)
        run = replace(self.report.run, verb="fix", seconds=time.perf_counter() - self.started)
        proved = {p.cause for p in chosen}  # of several causes, the one whose removal was proved by training comes first
        causes = tuple(sorted(self.report.causes, key=lambda cause: cause not in proved))
        report = replace(self.report, run=run, causes=causes, outcomes=tuple(self.outcomes.values()), chosen=chosen, verdict=verdict)
        report = replace(report, patch=changes.text, after=after)
        return FixResult(
            verdict=verdict,
            report=report,
            outcomes=report.outcomes,
            chosen=chosen,
            experiment=self.experiment.repaired(chosen),
            changes=changes,
            first_seconds=self.first_seconds,
            guard=None if after is None else learned(after),
        )

    def _halved(self, sets: Sequence[Set]) -> list[Set]:
        """Short trials, each round on a seed of its own: the better half goes on, until as many are left as are trained to the end."""
        left, steps = list(sets), len(self._first.losses)
        if len(left) <= _FINALISTS:
            return left
        for number, part in enumerate(_SHORT):
            if self._late():
                break
            seed, enough = self.seeds[number % len(self.seeds)], max(_FINALISTS, len(left) // 2)
            found = self._trainings.metrics(left, [seed], steps=max(min(steps, _FEWEST), math.ceil(steps / part)))
            ranked = sorted(range(len(left)), key=lambda i: -worth(found[i][0], self.experiment.maximize))
            left = [left[i] for i in ranked[:enough]]
        return left[:_FINALISTS]

    def _tried(self, proposals: Set) -> Outcome:
        """Trains to the end on the first seed."""
        if described(proposals) not in self.outcomes:
            self._told(self._trainings.outcome(proposals, self.seeds[:1]))
        outcome = self.outcomes[described(proposals)]
        if outcome.verdict != "no_better" and math.isnan(self.first_seconds):
            self.first_seconds = time.perf_counter() - self.started
            self.say(f"works: {described(proposals)}")
        return outcome

    def _looked(self, outcome: Outcome) -> Outcome:
        """Trains once more on the first seed, with every layer looked at, so that the errors that are left are known, and their causes."""
        what = described(outcome.proposals)
        if what in self.reports:
            return outcome
        self.say(f"{what}: looking at every layer while seed {self.seeds[0]} trains")
        began = time.perf_counter()
        self.reports[what] = diagnose_run(self.judged.repaired(outcome.proposals), self.rules, seed=self.seeds[0], name=self.name)[0]
        return self._told(replace(outcome, seconds=outcome.seconds + time.perf_counter() - began))

    def _proved(self, outcome: Outcome) -> Outcome:
        """Compares on all seeds."""
        if len(outcome.seeds) == len(self.seeds):
            return outcome
        found = self._trainings.outcome(outcome.proposals, self.seeds)
        return self._told(replace(found, seconds=outcome.seconds + found.seconds))

    def _told(self, outcome: Outcome) -> Outcome:
        what = described(outcome.proposals)
        left = tuple(dict.fromkeys(f.code for f in errors(self.reports[what].findings))) if what in self.reports else ()
        verdict = outcome.verdict if outcome.verdict == "no_better" or what not in self.reports else "improved" if left else "fixed"
        self.outcomes[what] = replace(outcome, findings=left, verdict=verdict)
        self.tell(replace(self.report, outcomes=tuple(self.outcomes.values())))
        return self.outcomes[what]

    def _best(self, found: Sequence[Outcome]) -> Outcome | None:
        """The smallest set among those that reach nearly the best median: fixed before improved; None if there is none."""
        for verdict in ("fixed", "improved"):
            among = [o for o in found if o.verdict == verdict]
            if among:
                start = middle(among[0].before, self.experiment.maximize)
                ends = [middle(o.after, self.experiment.maximize) for o in among]
                if not math.isfinite(start):  # it diverged: count from the worst that did not
                    start = min(ends) if self.experiment.maximize else max(ends)
                gains = [abs(end - start) for end in ends]
                near = [o for o, gain in zip(among, gains, strict=True) if not gain < _NEARLY_BEST * max(gains)]
                return min(near, key=lambda o: len(o.proposals))
        return None

    def _late(self) -> bool:
        return time.perf_counter() > self.until
