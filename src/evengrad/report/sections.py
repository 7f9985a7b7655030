"""View -> the sections of a page, top to bottom; layout only, every word comes from the view."""

from __future__ import annotations

from evengrad.report import pictures
from evengrad.report.events import Happenings
from evengrad.report.explained.rules import summary
from evengrad.report.layers import layer_table
from evengrad.report.markup import Markup, el, join, prose
from evengrad.report.profile import Profile
from evengrad.report.run import over_the_run
from evengrad.report.trials import Trial, Trials, score, spread
from evengrad.report.troubles import FindingView
from evengrad.report.view import Idea, PatchLine, Verdict, View, patch_lines
from evengrad.types import Trace


def article(shown: View, trace: Trace | None, number: int, *, level: int, pages: str | None = None) -> Markup:
    """Builds one report.

    Args:
        shown: What it says.
        trace: The measurements before any change.
        number: Makes ids unique on a page of several.
        level: Level of its own heading.
        pages: Address of the folder with the pages of `evengrad explain --all`, to which findings link; None without such pages.
    """
    happened = "Over the run" if shown.after is None else "Over the run, before and after"
    several = trace is not None and len(trace.steps) > 1
    parts = [
        el("header", el(f"h{level}", shown.title, class_="title"), el("p", " · ".join(shown.meta), class_="meta")),
        _verdict(shown.verdict),
        _section("Gradient that reaches each layer, relative to the last", _profile(shown.profile), level) if shown.profile else None,
        _section(happened, over_the_run(shown, trace), level) if trace is not None and (several or shown.curves) else None,
        _section("Layer by layer", layer_table(shown, trace), level) if trace is not None and shown.planes and not several else None,
        _section("Findings", el("div", *(_finding(f, pages) for f in shown.findings), class_="card"), level) if shown.findings else None,
        _section("What happened on the way", _happened(shown.happened), level) if shown.happened else None,
        _section(_trials_title(shown.trials), _trials(shown.trials), level) if shown.trials else None,
        _section("Worth trying", el("div", *map(_idea, shown.ideas), class_="card"), level) if shown.ideas else None,
        _section("In your code", _patch(shown.patch), level) if shown.patch else None,
        _section("What was looked at, and what was not", _looked(shown), level) if shown.clean or shown.skipped or shown.next else None,
    ]
    return el("article", *parts, id=f"report-{number}", class_="report")


def _section(title: str, body: Markup, level: int) -> Markup:
    return el("section", el(f"h{level + 1}", title, class_="head"), body)


def _verdict(verdict: Verdict) -> Markup:
    words = el("div", el("p", verdict.headline, class_="headline"), el("p", prose(verdict.detail), class_="detail"))
    figure = el("div", el("div", verdict.figure, class_="figure"), el("div", verdict.caption, class_="caption")) if verdict.figure else None
    return el("div", words, figure, class_=f"verdict {verdict.tone}")


def _profile(profile: Profile) -> Markup:
    blocks = []
    for row in profile.strips:
        caption = el("p", el("b", row.label) if row.label else None, " " if row.label else None, row.slope, class_="slope")
        blocks.append(join(caption, pictures.strip(profile, row), pictures.gains(row)))
    ends = el("div", el("span", f"input · {profile.first}"), el("span", f"{profile.last} · loss"), class_="ends")
    states = {b.state for s in profile.strips for b in s.bars}
    marks = [el("span", el("i", class_=s), word) for s, word in (("zero", "exactly zero"), ("nan", "not finite")) if s in states]
    legend = el("div", *marks, class_="legend") if marks else None
    head = el(
        "tr",
        el("th", "layer", scope="col"),
        el("th", f"kind {profile.strips[0].label}" if len(profile.strips) > 1 else "kind", scope="col"),
        *(el("th", f"{title} {s.label}".strip(), scope="col", class_="n") for s in profile.strips for title in ("gradient", "gain")),
    )
    bars = list(zip(*(s.bars for s in profile.strips), strict=False))
    rows = [
        el(
            "tr",
            el("th", group[0].label, scope="row"),
            el("td", group[0].kind),
            *(el("td", text, class_="n") for b in group for text in (b.text, b.gain_text)),
        )
        for group in bars
    ]
    table = el("details", el("summary", "As a table"), el("div", el("table", el("thead", head), el("tbody", *rows)), class_="scroll"))
    return el("div", *blocks, ends, legend, table, class_="card")


def _finding(finding: FindingView, pages: str | None) -> Markup:
    head = el("div", el("div", finding.severity.upper(), class_="sev"), el("div", finding.code, class_="code"))
    lines = [el("div", e) for e in finding.evidence]
    places = el("div", f"where: {finding.where}") if finding.where else None
    numbers = el("div", *lines, places, class_="evidence") if lines or places else None
    cause = el("b", f"Cause: {finding.cause}. ") if finding.cause else None
    proof = prose(f"On a copy, same batch: {finding.proof}.") if finding.proof else None
    why = el("p", cause, proof, class_="why") if cause or proof else None
    also = el("p", el("b", "Also works: "), "; ".join(finding.also), ".", class_="why") if finding.also else None
    effects = [el("li", prose(effect)) for effect in finding.brings]
    brings = join(el("p", el("b", "What follows from it"), class_="why"), el("ul", *effects, class_="why")) if effects else None
    meaning = summary(finding.code)
    lesson = el("details", el("summary", f"What {finding.code} means, sick and healthy"), meaning) if meaning else None
    told = el("div", el("div", prose(finding.message)), numbers, why, also, brings, lesson, _read_on(finding, pages))
    return el("div", head, told, class_=f"finding {finding.severity}")


def _read_on(finding: FindingView, pages: str | None) -> Markup | None:
    if pages is None or not finding.links:
        return None
    return el("p", "Read on: ", *(el("a", words, href=f"{pages}{address}") for words, address in finding.links), class_="read-on")


def _happened(groups: tuple[Happenings, ...]) -> Markup:
    items = []
    for group in groups:
        summary = el("dd", group.summary) if group.summary else None
        told = (el("dd", el("b", step), " ", prose(message)) for step, message in group.told)
        items.append(join(el("dt", group.kind), summary, *told))
    return el("div", el("dl", *items), class_="card looked")


def _trials_title(trials: Trials) -> str:
    works = any(row.chosen for row in trials.rows)
    seeds = f"{trials.seeds} seed{'s' if trials.seeds != 1 else ''}"
    return f"What works, tried on {seeds}" if works else f"What was tried, on {seeds}"


def _trials(trials: Trials) -> Markup:
    low, high = score(trials.metric, trials.low), score(trials.metric, trials.high)
    scale = el("div", el("span", low), el("span", "each dot one seed"), el("span", high), class_="scale")
    titles = [("change", ""), (f"{trials.metric}, median", "n"), ("min – max", "n"), (scale, "wide"), ("errors left", "")]
    head = el("tr", *(el("th", t, scope="col", class_=c or None) for t, c in titles))
    rows = [_trial(trials, row) for row in trials.rows]
    seeds = trials.rows[0].seeds
    exact_head = el("tr", el("th", "change", scope="col"), *(el("th", f"seed {s}", scope="col", class_="n") for s in seeds))
    exact = [
        el(
            "tr",
            el("th", r.label, scope="row"),
            *(el("td", score(trials.metric, v), class_="n") for v in r.values),
            el("td", "") if not r.values else None,
        )
        for r in trials.rows
    ]
    table = el("details", el("summary", "Each seed"), el("div", el("table", el("thead", exact_head), el("tbody", *exact)), class_="scroll"))
    return el("div", el("div", el("table", el("thead", head), el("tbody", *rows), class_="trials"), class_="scroll"), table, class_="card")


def _trial(trials: Trials, row: Trial) -> Markup:
    failed = el("span", f" {row.failed} of {len(row.values)} not finite", class_="failed") if row.failed else None
    label = join("✓ " if row.chosen else None, row.label)
    return el(
        "tr",
        el("th", label, scope="row"),
        el("td", score(trials.metric, row.median), class_="n"),
        el("td", spread(trials.metric, row), failed, class_="n"),
        el("td", pictures.box(row), class_="wide"),
        el("td", row.findings),
        class_="chosen" if row.chosen else None,
    )


def _idea(idea: Idea) -> Markup:
    notes = "; ".join(x for x in (f"against {idea.why}" if idea.why else "", f"cost: {idea.risk}" if idea.risk else "") if x)
    code = el("details", el("summary", "code"), _patch(patch_lines(idea.code))) if idea.code else None
    return el("div", el("b", idea.label), el("span", notes, class_="note") if notes else None, code, class_="idea")


def _patch(lines: tuple[PatchLine, ...]) -> Markup:
    return el(
        "pre", *(join(el("span", line.text or " ", class_=line.kind), "\n") for line in lines), tabindex="0", aria_label="code to change"
    )


def _looked(shown: View) -> Markup:
    rows = [("looked at and clean", [shown.clean])] if shown.clean else []
    rows += [("not looked at", [f"{what} ({why})" for what, why in shown.skipped])] if shown.skipped else []
    items = [join(el("dt", term), *(el("dd", text) for text in texts)) for term, texts in rows]
    command = join(el("dt", "next"), el("dd", el("code", shown.next))) if shown.next else None
    return el("div", el("dl", *items, command), class_="card looked")
