"""Report -> HTML: one inert file with everything in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from evengrad import synthetic
from evengrad.report import Report
from evengrad.report.explained.links import links
from evengrad.report.explained.pages import page as page_of
from evengrad.report.explained.pages import write_all
from evengrad.report.html import render, render_many, write, write_many
from evengrad.rules import discovered

NAMES = ("check", "fixed", "fixed_run", "nothing_helped", "healthy", "run", "hostile", "hostile_run")
VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """Counts elements, keeps attributes, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", NAMES)
def test_page_is_well_formed_and_loads_nothing(samples: ModuleType, name: str) -> None:
    page = Page(render(getattr(samples, name)()))
    for tag, attributes in page.tags:
        assert tag not in {"img", "link", "iframe", "object", "embed", "base"}
        assert not {"src", "style", "onclick", "onerror", "onload"} & set(attributes)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_policy_allows_exactly_the_style_and_script_inside(samples: ModuleType) -> None:
    text = render(samples.run())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    for tag in ("style", 'script type="module"'):
        inside = re.search(rf"<{tag}>(.*?)</{tag.split()[0]}>", text, re.S)
        assert inside is not None
        assert base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode() in policy[1]


@pytest.mark.parametrize("name", ["hostile", "hostile_run"])
def test_names_are_inert(samples: ModuleType, name: str) -> None:
    text = render(getattr(samples, name)())
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "\x1b" not in text
    assert "{{ body }}" in text or name == "hostile_run"
    assert text.count("<script") == text.count("</script>")


def test_embedded_data_is_exact(samples: ModuleType) -> None:
    text = render(samples.hostile_run())
    block = re.search(r'<script type="application/json" class="data">(.*?)</script>', text, re.S)
    assert block is not None
    assert "<" not in block[1]
    data = json.loads(block[1])
    (picture,) = data["pictures"]
    values = np.frombuffer(base64.b64decode(picture["planes"][0]["values"]), "<f4").reshape(len(picture["steps"]), len(picture["layers"]))
    assert (values[100, :2] == 0).all()
    assert np.isinf(values[-1]).all()
    assert "<script>alert(1)</script>" in picture["layers"][0]


def test_the_words_are_on_the_page(samples: ModuleType) -> None:
    text = render(samples.fixed())
    for part in (
        "Fixed: sigmoid → tanh (Glorot).",
        "84.1%",
        "What works, tried on 5 seeds",
        "×0.24 a layer",
        "1 of 5 not finite",
        "Also works",
        "In your code",
        "no step was taken",
        "seed 4",
    ):
        assert part in text
    assert "<canvas" not in text  # one step: a profile, not a map with one column
    assert "<canvas" in render(samples.run())


def test_every_picture_has_a_name_and_a_table(samples: ModuleType) -> None:
    for name in ("fixed", "run"):
        page = Page(render(getattr(samples, name)()))
        pictures = [a for tag, a in page.tags if tag in {"svg", "canvas"}]
        assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in pictures)
        assert sum(tag == "details" for tag, _ in page.tags) >= 2


def test_before_and_after_share_one_scale_of_colours(samples: ModuleType) -> None:
    text = render(samples.fixed_run())
    block = re.search(r'<script type="application/json" class="data">(.*?)</script>', text, re.S)
    assert block is not None
    data = json.loads(block[1])
    assert [p["label"] for p in data["pictures"]] == ["before", "after"]
    before, after = ({p["key"]: p for p in picture["planes"]} for picture in data["pictures"])
    assert before["gradient"]["reach"] == after["gradient"]["reach"]
    assert (before["gradient"]["zero"], after["gradient"]["zero"]) == (True, False)
    assert [line["name"] for line in data["curves"][0]["lines"]] == ["before", "after"]
    assert "before: gradient that reaches each layer" in text  # in the tables, too
    assert "after: gradient that reaches each layer" in text


def test_findings_link_to_the_pages_that_lie_beside(samples: ModuleType, tmp_path: Path) -> None:
    alone = write(samples.check(), tmp_path / "r.html").read_text("utf-8")
    assert "Read on" not in alone
    write_all(tmp_path / "explained")
    page = Page(write(samples.check(), tmp_path / "r.html").read_text("utf-8"))
    targets = [str(a["href"]) for tag, a in page.tags if tag == "a"]
    assert "explained/activations.html#sigmoid" in targets
    for target in targets:
        file, _, place = target.partition("#")
        assert (tmp_path / file).is_file()
        assert not place or f'id="{place}"' in (tmp_path / file).read_text("utf-8")


@pytest.mark.parametrize("code", sorted(discovered()))
@pytest.mark.parametrize("activation", ["sigmoid", "leaky_relu", "selu", "none", "learned"])
def test_every_rule_links_to_places_that_there_are(samples: ModuleType, code: str, activation: str) -> None:
    found = replace(samples.check().findings[0], code=code, cause=None)
    trace = samples.trace(activation=activation)
    (first, *more) = links(found, trace)
    assert first == (f"{code} explained", f"{code}.html")
    for words, address in more:
        file, _, place = address.partition("#")
        assert words
        assert not place or f'id="{place}"' in (page_of(file.removesuffix(".html")) or "")


def test_a_page_stays_small(samples: ModuleType) -> None:
    assert len(render(samples.run()).encode()) < 300_000
    long = synthetic.chain(3000, steps=2, grad_out_norm=np.geomspace(1e-9, 1, 3000))
    assert len(render(Report(run=long.run, trace=long)).encode()) < 1_000_000


def test_a_page_with_every_finding_there_is_stays_small(samples: ModuleType) -> None:
    base = samples.fixed()
    every = tuple(replace(base.findings[0], code=code) for code in discovered())
    page = render(replace(base, findings=every))
    assert len(page.encode()) < 300_000
    assert page.count("means, sick and healthy") == len(every)


def test_a_finding_of_an_unknown_rule_has_no_lesson(samples: ModuleType) -> None:
    base = samples.check()
    page = render(replace(base, findings=(replace(base.findings[0], code="XYZ999"),)))
    assert "XYZ999" in page
    assert "sick and healthy" not in page


def test_counts_of_the_table_add_up(samples: ModuleType) -> None:
    report = samples.run(steps=1203, every=1, depth=700)  # more of both than a page has cells
    values = report.trace.columns["grad_out_norm"]
    table = render(report).partition("<caption>gradient that")[2].partition("</table>")[0]
    rows = [re.findall(r"<td class=\"n\">([^<]*)</td>", row) for row in table.split("<tr>")[1:]]
    zeros, infinite = ([int(r[i].split()[0].replace(",", "")) for r in rows if r and r[i] != "–"] for i in (4, 5))
    assert sum(zeros) == (values == 0).sum()
    assert sum(infinite) == np.isinf(values).sum()


def test_many_reports_make_one_page(samples: ModuleType, tmp_path: Path) -> None:
    reports = [samples.check(), samples.run(), samples.fixed()]
    path = write_many(reports, "Three <networks>", tmp_path / "new" / "all.html")
    page = Page(path.read_text("utf-8"))
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["#report-1", "#report-2", "#report-3"]
    assert sum(tag == "article" for tag, _ in page.tags) == 3
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    assert "Three &lt;networks&gt;" in render_many(reports, "Three <networks>")


def test_write_returns_its_path(samples: ModuleType, tmp_path: Path) -> None:
    path = write(samples.check(), str(tmp_path / "r.html"))
    assert path.read_text("utf-8") == render(samples.check())
    lone = replace(samples.check().run, name="a\ud800b")  # a lone surrogate cannot be written as it is
    write(replace(samples.check(), run=lone), tmp_path / "s.html").read_text("utf-8")


def test_reporting_needs_no_torch() -> None:
    modules = "text, evengrad.report.json, evengrad.report.html, evengrad.report.view"
    code = f"import evengrad.report.{modules}; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
