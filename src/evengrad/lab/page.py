"""StudyResult -> a self-contained HTML page, or Markdown and pictures for the documentation."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from evengrad.lab.pictures import Picture, picture
from evengrad.lab.result import StudyResult
from evengrad.lab.study import described, written
from evengrad.report.markup import Markup, el, escape, join, prose
from evengrad.report.numbers import number, plural, seconds

_STYLE = """
.answer { font-size: 17px; line-height: 1.45; white-space: pre-line; overflow-wrap: anywhere; }
.question { color: var(--soft); margin-bottom: 6px; }
.scroll { overflow-x: auto; } .scroll th, .scroll td { text-align: left; } .whole { white-space: nowrap; }
figure { margin: 0 0 18px; } figcaption { color: var(--soft); font-size: 13px; margin-bottom: 8px; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; font-size: 13.5px; }
.card pre { margin-top: 12px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


def write(result: StudyResult, path: str | Path) -> Path:
    """Writes the page as UTF-8, whole or not at all, and returns its path."""
    target = Path(path)
    _put(target, render(result).encode("utf-8", "replace"))
    return target


def render(result: StudyResult) -> str:
    """Returns the HTML page of a result: question, answer, table, pictures, and what made them."""
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
        *_section("Table", _html_table(result), el("p", _note(result), class_="note")),
        *_section("Pictures", *(_html_picture(p) for p in pictures(result))),
        *_section("Published", *_html_published(result)),
        *_section(
            "How it was run", el("dl", *(join(el("dt", k), el("dd", v)) for k, v in facts(result).items())), el("pre", result.run.command)
        ),
    ]
    return _page(f"{title} · evengrad", el("main", *parts))


def write_docs(result: StudyResult, folder: str | Path) -> Path:
    """Writes `NAME.md` into a folder and its pictures into `img/` beside it, and returns the page's path."""
    target = Path(folder) / f"{result.study.name}.md"
    drawn = [(f"img/{result.study.name}-{p.name}", p) for p in pictures(result)]
    for place, one in drawn:
        _put(target.parent / place, one.data)
    _put(target, _markdown(result, drawn).encode())
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
        lines += [f"## [{_md(_title(result))}]({result.study.name}.md)", "", _md(result.study.question), "", _quoted(result.answer), ""]
    lines += ["A study of your own is one file: [own.md](own.md).", ""]
    target = Path(folder) / "README.md"
    _put(target, "\n".join(lines).encode())
    return target


def write_pictures(result: StudyResult, folder: str | Path) -> Iterator[Path]:
    """Writes each picture of a result into a folder, and yields its path."""
    for one in pictures(result):
        path = Path(folder) / one.name
        _put(path, one.data)
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


def _section(heading: str, *content: Markup) -> list[Markup]:
    return [el("h2", heading, class_="head"), el("div", *content, class_="card")] if content else []


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


def _html_picture(one: Picture) -> Markup:
    return el("figure", el("figcaption", one.caption), el("img", src=one.uri, alt=one.caption, width=one.width))


def _html_published(result: StudyResult) -> Iterator[Markup]:
    yield from (el("p", prose(line)) for line in _published(result))


def _quoted(text: str) -> str:
    return "\n".join(f"> {_md(line)}".rstrip() for line in text.splitlines())


def _md_line(cells: list[str]) -> str:
    return f"| {' | '.join(cell if set(cell) == {'-'} else _md(cell) for cell in cells)} |"


def _md(text: Any) -> str:
    """Escapes what Markdown or HTML would take for a sign of theirs."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def _page(title: str, body: Markup) -> str:
    style = files("evengrad.report").joinpath("page", "page.css").read_text(encoding="utf-8").replace("\r\n", "\n") + _STYLE
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def _put(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(data)
    part.replace(target)  # a file is there whole, or not at all
