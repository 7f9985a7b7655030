"""StudyResult -> a self-contained HTML page, or Markdown and pictures for the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evengrad.lab.pictures import Picture, picture
from evengrad.lab.result import StudyResult
from evengrad.lab.sheet import figure, page, put, section
from evengrad.lab.study import described, written
from evengrad.report.markup import Markup, el, join, prose
from evengrad.report.numbers import number, plural, seconds


def write(result: StudyResult, path: str | Path) -> Path:
    """Writes the page as UTF-8, whole or not at all, and returns its path."""
    target = Path(path)
    put(target, render(result).encode("utf-8", "replace"))
    return target


def render(result: StudyResult, *, drawn: bool = True) -> str:
    """Returns the HTML page of a result: question, answer, table, pictures (unless `drawn` is False), and what made them."""
    title = _title(result)
    answer = el(
        "section",
        el("div", el("p", result.study.question, class_="question"), el("p", prose(result.answer), class_="answer")),
        class_="verdict",
    )
    parts = [
        el("h1", title),
        el("p", _meta(result), class_="meta"),
        answer,
        *section("Table", _html_table(result), el("p", _note(result), class_="note")),
        *section("Pictures", *(figure(p) for p in (pictures(result) if drawn else ()))),
        *section("Published", *_html_published(result)),
        *section(
            "How it was run", el("dl", *(join(el("dt", k), el("dd", v)) for k, v in facts(result).items())), el("pre", result.run.command)
        ),
    ]
    return page(f"{title} · evengrad", el("main", *parts))


def write_docs(result: StudyResult, folder: str | Path) -> Path:
    """Writes `NAME.md` into a folder and its pictures into `img/` beside it, and returns the page's path."""
    target = Path(folder) / f"{result.study.name}.md"
    drawn = [(f"img/{result.study.name}-{p.name}", p) for p in pictures(result)]
    for place, one in drawn:
        put(target.parent / place, one.data)
    put(target, _markdown(result, drawn).encode())
    return target


def write_index(results: Sequence[StudyResult], folder: str | Path) -> Path:
    """Writes `README.md` into the folder of the documentation's pages: each study's question and answer, and returns its path."""
    lines = [
        "# Studies",
        "",
        "Each page was written from the study's last full run; `evengrad study run NAME` runs it on your machine.",
        "",
    ]
    for result in results:
        lines += [
            f"## [{_md(_title(result))}]({result.study.name}.md)",
            "",
            _md(result.study.question),
            "",
            _quoted(result.answer.partition("\n")[0]),
            "",
        ]
    lines += ["A study of your own is one file: [own.md](own.md).", ""]
    target = Path(folder) / "README.md"
    put(target, "\n".join(lines).encode())
    return target


def write_pictures(result: StudyResult, folder: str | Path) -> Iterator[Path]:
    """Writes each picture of a result into a folder, and yields its path."""
    for one in pictures(result):
        path = Path(folder) / one.name
        put(path, one.data)
        yield path


def pictures(result: StudyResult) -> Iterator[Picture]:
    """Draws the figures of a result, one after the other."""
    return (picture(caption, draw()) for caption, draw in result.figures.items())


def facts(result: StudyResult) -> dict[str, str]:
    """Returns how a result came about: factors, time, machine, versions, in words."""
    run, found = result.run, len(result.rows) - result.run.computed
    before = f"; {plural(found, 'cell')} had been computed before" if found else ""
    return {name: written(value) for name, value in run.fields.items()} | {
        "time": f"{seconds(run.seconds)} for {plural(run.computed, 'cell')}{before}",
        "finished": run.finished,
        "machine": run.machine,
        "versions": ", ".join(f"{k} {v}" for k, v in run.versions.items()),
    }


def _markdown(result: StudyResult, drawn: list[tuple[str, Picture]]) -> str:
    table = result.table
    lines = [f"# {_md(_title(result))}", "", _md(result.study.question), "", _quoted(result.answer), ""]
    lines += [_md_line(table.header), _md_line(["---"] * len(table.header)), *map(_md_line, table.texts()), "", _md(_note(result)), ""]
    for place, one in drawn:
        lines += [f"## {_md(one.caption)}", "", f"![{_md(one.caption)}]({place})", ""]
    if comparisons := list(_published(result)):
        lines += ["## Published", "", *(f"- {_md(c)}" for c in comparisons), ""]
    lines += ["## How it was run", "", "```", result.run.command, "```", "", *(f"- {k}: {_md(v)}" for k, v in facts(result).items()), ""]
    return "\n".join(lines)


def _title(result: StudyResult) -> str:
    return f"{result.study.number} · {result.study.name}".removeprefix(" · ")


def _meta(result: StudyResult) -> str:
    arms = len(result.rows.arms())
    size = "quick size, " if result.run.quick else ""
    return f"{size}{plural(arms, 'arm')}, {plural(result.study.seeds, 'seed')} each, {plural(len(result.rows), 'cell')}"


def _note(result: StudyResult) -> str:
    return f"Median [10%, 90% quantile] over {plural(result.study.seeds, 'seed')}."


def _published(result: StudyResult) -> Iterator[str]:
    for arm, _, summaries in result.table.lines:
        for name, summary in zip(result.table.values, summaries, strict=True):
            for one, where in summary.published:
                claim = f"{described(arm)}: {name.replace('_', ' ')} {number(one.number)} ({one.source})"
                yield f"{claim}, {where}; median here {number(summary.median)}"


def _html_table(result: StudyResult) -> Markup:
    table = result.table
    head = el("thead", el("tr", *(el("th", name, scope="col") for name in table.header)))
    body = el(
        "tbody",
        *(
            el(
                "tr",
                *(el("td", cell, class_=None if name == "published" else "whole") for name, cell in zip(table.header, line, strict=True)),
            )
            for line in table.texts()
        ),
    )
    return el("div", el("table", head, body), class_="scroll")


def _html_published(result: StudyResult) -> Iterator[Markup]:
    yield from (el("p", prose(line)) for line in _published(result))


def _quoted(text: str) -> str:
    return "\n>\n".join(f"> {_md(line)}".rstrip() for line in text.splitlines())  # a paragraph a line


def _md_line(cells: list[str]) -> str:
    return f"| {' | '.join(cell if set(cell) == {'-'} else _md(cell) for cell in cells)} |"


def _md(text: Any) -> str:
    """Escapes what Markdown or HTML would take for a sign of theirs."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
