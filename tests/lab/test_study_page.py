"""The page of a study loads nothing and lets nothing in; the Markdown page has its pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from evengrad.lab import page
from evengrad.lab.running import Plan
from evengrad.lab.study import Published, Study

Walk = Callable[..., Plan]
EVIL = '<script>alert(1)</script> & "quotes" | pipe `tick` [link](x) \x00'


class Reader(HTMLParser):
    """Lists tags and attributes, and looks that each tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def evil(kind: type[Study], monkeypatch: pytest.MonkeyPatch) -> type[Study]:
    """The study, with signs of HTML and Markdown wherever its author can put text."""
    for name in ("question", "number"):
        monkeypatch.setattr(kind, name, EVIL)
    monkeypatch.setattr(kind, "answer", lambda self, rows: EVIL)
    monkeypatch.setattr(kind, "arms", lambda self: [{EVIL: EVIL}])
    monkeypatch.setattr(kind, "compute", lambda self, cells: [page_row(cell) for cell in cells])
    monkeypatch.setattr(kind, "published", (Published(arm={EVIL: EVIL}, value="distance", number=1.0, source=EVIL),))
    monkeypatch.setattr(kind, "figures", lambda self, rows: {EVIL: _empty})
    return kind


def page_row(cell: Any) -> Any:
    from evengrad.lab.study import Row

    return Row(cell.arm, cell.seed, {"distance": float(cell.seed)})


def _empty() -> Any:
    from evengrad.lab.figures import panels

    return panels()[0]


def test_the_page_tells_question_answer_numbers_pictures_and_what_made_them(walk: Walk, tmp_path: Path) -> None:
    result = walk().run()
    path = result.to_html(tmp_path / "page.html")
    read = Reader(path.read_text(encoding="utf-8"))
    assert read.open == []
    for text in (result.study.question, result.answer, "random-walk", "a wall", result.run.command, result.run.machine, "torch"):
        assert text in read.text
    images = [attributes for tag, attributes in read.tags if tag == "img"]
    assert [i["alt"] for i in images] == ["distance <over> steps"]
    assert images[0]["src"].startswith("data:image/")  # type: ignore[union-attr]
    assert [p.name for p in tmp_path.glob("*page*")] == ["page.html"]  # no leftover of the writing


def test_the_page_loads_nothing_and_runs_nothing(walk: Walk) -> None:
    text = page.render(walk().run())
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert " style=" not in text  # the policy would drop it


def test_text_of_a_study_stays_text_on_the_page(evil: type[Study]) -> None:
    text = page.render(Plan(evil, {}).run())
    read = Reader(text)
    assert read.open == []
    assert not {"script", "a"} & {tag for tag, _ in read.tags}
    assert "\x00" not in text
    assert read.text.count("<script>alert(1)</script>") >= 6


def test_text_of_a_study_stays_text_in_markdown(evil: type[Study], tmp_path: Path) -> None:
    path = page.write_docs(Plan(evil, {}).run(), tmp_path)
    text = path.read_text(encoding="utf-8")
    fenced = re.sub(r"```\n.*?\n```", "", text, flags=re.S)
    assert not re.search(r"(?<!\\)<script", fenced)
    assert not re.search(r"(?<!\\)\[link(?<!\\)\]", fenced)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_the_documents_page_has_its_pictures_beside_it(walk: Walk, tmp_path: Path) -> None:
    result = walk().run()
    path = page.write_docs(result, tmp_path / "studies")
    text = path.read_text(encoding="utf-8")
    assert path.name == "random-walk.md"
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", text)
    assert (path.parent / picture).is_file()
    assert picture == "img/random-walk-distance-over-steps.svg"
    assert f"> {result.answer}" in text
    assert "| stride | seeds | distance | published |" in text
    assert [page.write_docs(result, tmp_path / "studies").read_text(encoding="utf-8")] == [text]


def test_the_index_has_every_question_and_answer_with_a_link(walk: Walk, tmp_path: Path) -> None:
    result = walk().run()
    text = page.write_index([result], tmp_path).read_text(encoding="utf-8")
    assert "## [random-walk](random-walk.md)" in text
    assert f"\n{result.study.question}\n\n> {result.answer}\n" in text


def test_a_quick_run_says_that_it_is_one(walk: Walk) -> None:
    assert "quick size, 2 arms, 2 seeds each, 4 cells" in page.render(walk().run(quick=True))
    assert "quick size" not in page.render(walk().run())


def test_what_was_found_in_the_store_is_told_apart_from_what_was_computed(walk: Walk) -> None:
    assert "had been computed" not in page.facts(walk().run())["time"]
    assert page.facts(walk(seeds=4).run())["time"].endswith("for 2 cells; 6 cells had been computed before")
