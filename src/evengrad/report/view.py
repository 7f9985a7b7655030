"""Report -> what to show: every sentence, number and order; the renderers only lay it out."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from evengrad.report import wording
from evengrad.report.events import Happenings, happenings
from evengrad.report.numbers import number, percent, plural, quantity, seconds
from evengrad.report.planes import Plane, alike, planes
from evengrad.report.profile import Profile, gradient_word, layer_count, profile
from evengrad.report.report import Report
from evengrad.report.trials import Trials, score, trials
from evengrad.report.troubles import FindingView, finding_views
from evengrad.types import Curve, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer in one sentence: tone `good`, `warn` or `bad`, and the one number to remember with its caption."""

    tone: str
    headline: str
    detail: str
    figure: str = ""
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Idea:
    """A change worth trying that has not been tried by training."""

    label: str
    summary: str
    why: str
    code: str
    risk: str


@dataclass(frozen=True, kw_only=True)
class PatchLine:
    """One line of code; `kind` is `add`, `del` or `context`."""

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything that a rendering shows, in order."""

    title: str
    header: str
    meta: tuple[str, ...]
    verdict: Verdict
    profile: Profile | None
    planes: tuple[Plane, ...]
    curves: dict[str, Curve]
    after: Trace | None  # measured with the changes, if over several steps as before
    planes_after: tuple[Plane, ...]
    curves_after: dict[str, Curve]
    findings: tuple[FindingView, ...]
    happened: tuple[Happenings, ...]
    trainability: str
    trials: Trials | None
    ideas: tuple[Idea, ...]
    patch: tuple[PatchLine, ...]
    clean: str
    skipped: tuple[tuple[str, str], ...]
    next: str


def view(report: Report) -> View:
    """Works out what a report shows."""
    before = planes(report.trace) if report.trace is not None else ()
    after = report.after if report.after is not None and len(report.after.steps) > 1 and before else None
    before, later = alike(before, planes(after)) if after is not None else (before, ())
    return View(
        title=report.run.name or report.run.model,
        header=", ".join(_header(report)),
        meta=_meta(report),
        verdict=_verdict(report),
        profile=profile(report),
        planes=before,
        curves=dict(report.trace.curves) if report.trace is not None else {},
        after=after if later else None,
        planes_after=later,
        curves_after=dict(after.curves) if after is not None and later else {},
        findings=finding_views(report),
        happened=happenings(report.trace),
        trainability=_trainability(report),
        trials=trials(report),
        ideas=() if report.outcomes else tuple(_ideas(report)),
        patch=patch_lines(report.patch),
        clean=_clean(report),
        skipped=skipped(report.skipped),
        next=_next(report),
    )


def steps_taken(trace: Trace) -> int:
    """Returns how many steps a run had, by its curves and its sampled steps."""
    ends = [int(steps[-1]) + 1 for steps in (trace.steps, *(c.steps for c in trace.curves.values())) if len(steps)]
    return max(ends, default=0)


def patch_lines(patch: str) -> tuple[PatchLine, ...]:
    """Splits a patch into lines with their kind; file headers of a diff are context."""
    kinds = {"+": "add", "-": "del"}
    lines = patch.expandtabs(4).strip("\n").split("\n") if patch.strip() else []
    return tuple(PatchLine(kind="context" if x.startswith(("+++", "---")) else kinds.get(x[:1], "context"), text=x) for x in lines)


def skipped(reasons: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Groups what was not looked at by its reason: (`OPT001, OPT002`, `no step was taken`)."""
    groups: dict[str, list[str]] = {}
    for topic, reason in reasons.items():
        groups.setdefault(reason, []).append(topic)
    return tuple((", ".join(topics), reason) for reason, topics in groups.items())


def _header(report: Report) -> list[str]:
    run, trace = report.run, report.trace
    parts = [plural(layer_count(trace), "layer")] if trace is not None else []
    if trace is not None and len(trace.steps) > 1:
        parts.append(f"{plural(steps_taken(trace), 'step')} ({len(trace.steps)} looked into), batches of {run.samples}")
    elif run.samples:
        parts.append(f"one batch of {run.samples}")
    if report.outcomes:
        parts.append(f"{plural(len(report.outcomes), 'change')} tried on {plural(_seeds(report), 'seed')}")
    return [*parts, seconds(run.seconds)] if run.seconds else parts


def _meta(report: Report) -> tuple[str, ...]:
    run, facts = report.run, report.trace.facts if report.trace is not None else None
    optimizer = (facts.optimizer or {}) if facts is not None else {}
    rate = optimizer.get("lr")
    head = _header(report)
    name = (
        [str(optimizer["name"]) + (f", rate {number(float(rate))}" if isinstance(rate, int | float) else "")] if "name" in optimizer else []
    )
    parts = [*head[:1], plural(run.parameters, "parameter"), *name, *head[1:], f"seed {run.seed}"]
    return tuple(parts if run.device == "cpu" else [*parts, run.device])


def _seeds(report: Report) -> int:
    return max((len(o.seeds) for o in report.outcomes), default=0)


def _verdict(report: Report) -> Verdict:
    if report.verdict and report.outcomes:
        return _trial_verdict(report)
    standing = [f for f in report.findings if f.severity != "note" and f.effect_of is None]
    if not standing:
        return _healthy(report)
    first = report.causes[:1]
    worst = next((f for f in standing if f.cause in first and f.symptom), standing[0])  # what the others follow from
    cause = worst.cause or (report.causes[0] if report.causes else None)
    brought = [f for f in report.findings if f.effect_of == worst.code]
    severe = any(f.severity == "error" for f in (worst, *brought))
    worst = worst if worst.symptom else next((f for f in brought if f.symptom), worst)  # a root that shows itself in what it brings about
    clause, chance = wording.symptom_clause(worst.symptom), report.trainability
    if chance is not None and chance < 0.2 and severe:
        headline = f"This network is unlikely to train: {clause}."
    elif chance is not None and chance > 0.8:
        headline = f"This network can train, but {clause}."
    else:
        headline = f"This network has a {'fault' if severe else 'weakness'}: {clause}."
    detail = gradient_word(report, worst) or wording.sentence(worst.message)
    detail += f" Cause: {wording.cause_phrase(cause, report.trace)}." if cause else ""
    tone = "bad" if severe else "warn"
    return Verdict(tone=tone, headline=headline, detail=detail, **_chance(report, worst))


def _trainability(report: Report) -> str:
    if report.trainability is None:
        return ""
    return percent(report.trainability) + (", before any change" if report.outcomes else "")


def _chance(report: Report, worst: Finding | None) -> dict[str, str]:
    """The number to remember: the chance to train, else what decided the worst finding."""
    if report.trainability is not None:
        return {"figure": percent(report.trainability), "caption": "chance to train at some rate"}
    if worst is None or not worst.evidence:
        return {}
    first = worst.evidence[0]
    figure, layer = quantity(first.signal, first.value), " a layer"
    words = first.signal.replace("_", " ") + (layer if figure.endswith(layer) else f", {first.where}" if first.where else "")
    return {"figure": figure.removesuffix(layer), "caption": words}


def _healthy(report: Report) -> Verdict:
    rules = plural(len(report.checked), "rule")
    headline = "No fault found."
    notes = f" but {plural(len(report.findings), 'note')}, below" if report.findings else ""
    word = gradient_word(report, None)
    detail = f"{rules} looked and found nothing{notes}. {word} {_progress(report)}".strip()
    return Verdict(tone="good", headline=headline, detail=detail, **_chance(report, None))


def _progress(report: Report) -> str:
    """What the loss did, so that no fault found is not read as training well."""
    loss = report.trace.curves.get("loss") if report.trace is not None else None
    if loss is None or len(loss.values) < 2 or not np.isfinite(loss.values).all():
        return ""
    few = max(1, len(loss.values) // 10)
    first, last = (number(float(part.mean())) for part in (loss.values[:few], loss.values[-few:]))
    return f"The loss went from {first} to {last} over {len(loss.values):,} steps."


def _trial_verdict(report: Report) -> Verdict:
    table = trials(report)
    if table is None:
        return _healthy(report)
    base, best = table.rows[0], next((r for r in table.rows[1:] if r.chosen), max(table.rows[1:], key=lambda r: r.rank))
    seeds = f"median of {plural(_seeds(report), 'seed')}"
    change = wording.together(report.chosen) if report.chosen else best.label
    before, after = score(table.metric, base.median), score(table.metric, best.median)
    cause = f" Cause: {wording.cause_phrase(report.causes[0], report.trace)}." if report.causes else ""
    if report.verdict == "nothing_helped":
        tried = f"{plural(len(report.outcomes), 'change')} tried on {plural(_seeds(report), 'seed')}"
        detail = f"{tried}; the best, {best.label}, reaches {table.metric} {after} against {before}.{cause}"
        caption = f"best {table.metric}, {seeds}"
        return Verdict(tone="bad", headline="Nothing that was tried helps.", detail=detail, figure=after, caption=caption)
    fixed = report.verdict == "fixed"
    left = "" if fixed or not best.findings else f" Still there: {best.findings}."
    detail = f"{wording.sentence(f'{table.metric} {before} → {after}, {seeds}')}{cause}{left}"
    headline = f"{'Fixed' if fixed else 'Better, not yet healthy'}: {change}."
    caption = f"{table.metric}, {before} before"
    return Verdict(tone="good" if fixed else "warn", headline=headline, detail=detail, figure=after, caption=caption)


def _ideas(report: Report) -> list[Idea]:
    """What removes a root cause; everything that was proposed where nothing does."""
    named = [p for p in report.proposals if p.cause in report.causes]
    return [
        Idea(
            label=wording.change_label(p),
            summary=wording.arrows(p.summary or p.remedy),
            why=wording.cause_phrase(p.cause, report.trace) if p.cause else "",
            code=p.code,
            risk=p.risk,
        )
        for p in named or report.proposals
    ]


def _clean(report: Report) -> str:
    found = {f.code for f in report.findings}
    clean = [code for code in report.checked if code not in found]
    return f"{plural(len(clean), 'rule')} ({', '.join(clean)})" if clean else ""


def _next(report: Report) -> str:
    name = report.run.name
    target = name if re.fullmatch(r"[\w./\\-]+\.py:\w+", name) else ""
    sick = any(f.severity != "note" for f in report.findings)
    if not sick or report.run.verb not in {"check", "diagnose"}:
        return ""
    return f"evengrad fix {target}" if target else "eg.fix(experiment)"
