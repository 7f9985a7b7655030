"""The page in a real browser: it runs under its own policy, answers the pointer and the keyboard, asks the network for nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.browser import ARGS, CHROMIUM
from evengrad.report.explained.pages import write_all
from evengrad.report.html import write, write_many

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as api:
        started = api.chromium.launch(executable_path=str(CHROMIUM), args=ARGS)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Opens a file; at the end there must have been no message, no error and no request but for files."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page, trouble = context.new_page(), []
    page.on("console", lambda m: trouble.append(m.text))
    page.on("pageerror", lambda e: trouble.append(str(e)))
    page.on("dialog", lambda d: (trouble.append(d.message), d.dismiss()))
    page.on("request", lambda r: trouble.append(r.url) if not r.url.startswith("file://") else None)

    def go(path: Path) -> Any:
        page.goto(path.as_uri())
        return page

    yield go
    assert trouble == []
    context.close()


@pytest.mark.parametrize("name", ["check", "fixed", "fixed_run", "nothing_helped", "healthy", "run", "hostile", "hostile_run"])
def test_page_opens_without_a_message_and_fits_a_phone(samples: ModuleType, visit: Any, tmp_path: Path, name: str) -> None:
    page = visit(write(getattr(samples, name)(), tmp_path / "r.html"))
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.locator("article").count() == 1


def test_hovering_reads_a_cell(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    page = visit(write(samples.run(), tmp_path / "r.html"))
    box = page.locator("canvas.heat").bounding_box()
    read = page.locator(".read")
    before = read.inner_text()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    assert read.inner_text() != before
    assert read.inner_text() == "step 0 · layer 12 (net.22) · 1 of the last layer"
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] - 3)
    assert read.inner_text().endswith("layer 1 (net.0) · exactly zero")
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 3)
    assert read.inner_text().endswith("not finite")


def test_clicking_a_layer_shows_its_history(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    page = visit(write(samples.run(), tmp_path / "r.html"))
    said = page.locator(".said").first
    assert "loss 2.3 → not finite" in said.inner_text()
    box = page.locator("canvas.heat").bounding_box()
    page.mouse.click(box["x"] + 40, box["y"] + box["height"] - 3)
    assert said.inner_text().startswith("layer 1 (net.0): gradient")
    assert page.locator(".curves [aria-selected=true]").inner_text() == "layer and step"
    along = page.locator(".said.along")
    assert along.inner_text().startswith("step 32: gradient along depth")
    assert page.locator(".plot.along svg").get_attribute("aria-label") == "step 32 over the layers"
    page.locator(".planes button", has_text="dead").click()
    assert "dead" in along.inner_text()
    assert "dead" in said.inner_text()
    page.locator(".curves button", has_text="loss").click()
    assert "loss" in said.inner_text()
    assert not along.is_visible()


def test_the_keyboard_does_what_the_pointer_does(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    page = visit(write(samples.run(), tmp_path / "r.html"))
    page.locator(".planes button").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".planes [aria-selected=true]").inner_text() == "spread"
    page.keyboard.press("Tab")
    for key in ("Home", "ArrowUp", "ArrowUp", "ArrowRight"):
        page.keyboard.press(key)
    assert page.locator(".read").inner_text().startswith("step 4 · layer 3 (net.4)")
    page.keyboard.press("Enter")
    assert page.locator(".said").first.inner_text().startswith("layer 3 (net.4): spread")


def test_before_and_after_are_read_at_one_place(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    page = visit(write(samples.fixed_run(), tmp_path / "r.html"))
    first, second = page.locator("canvas.heat").nth(0), page.locator("canvas.heat").nth(1)
    assert first.bounding_box()["y"] == second.bounding_box()["y"]  # side by side, layer beside layer
    untouched = second.screenshot()
    box = first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] - 3)
    assert re.fullmatch(
        r"step 432 · layer 1 \(net\.0\) · before exactly zero · after 1 of the last layer", page.locator(".read").inner_text()
    )
    page.mouse.click(box["x"] + 40, box["y"] + 40)
    assert page.locator(".plot.time path.second").count() == 1
    assert page.locator(".plot.along path.second").count() == 1
    assert "before" in page.locator(".said.along").inner_text()
    assert second.screenshot() != untouched  # the same place is marked there
    page.locator(".curves button", has_text="loss").first.click()
    assert "after 2.3 → 0.01" in page.locator(".said").first.inner_text()


def test_colours_follow_the_scheme(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    page = visit(write(samples.run(), tmp_path / "r.html"))
    light = page.locator("canvas.heat").screenshot()
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)  # for the repaint; the page's policy forbids wait_for_function, which evaluates text
    assert page.locator("canvas.heat").screenshot() != light


def test_sections_of_one_page_do_not_mix(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    page = visit(write_many([samples.run(), samples.hostile_run()], "Two", tmp_path / "two.html"))
    second = page.locator("#report-2")
    second.locator("canvas.heat").click(position={"x": 5, "y": 5})
    assert second.locator(".said").first.inner_text().startswith("layer 12")
    assert "loss" in page.locator("#report-1 .said >> nth=0").inner_text()


def test_dragging_and_keys_zoom(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    page = visit(write(samples.run(), tmp_path / "r.html"))
    box, ends = page.locator("canvas.heat").bounding_box(), page.locator(".ends.run")
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 60, steps=4)
    page.mouse.up()
    assert ends.inner_text().split("\n")[0] == "step 80"
    assert page.locator(".curves [aria-selected=true]").inner_text() == "loss"  # to zoom is not to pin
    page.locator(".key button", has_text="show all").click()
    assert "input at the bottom" in ends.inner_text()
    page.locator("canvas.heat").focus()
    page.keyboard.press("Home")
    page.keyboard.press("+")
    assert ends.inner_text().split("\n")[-1] == "step 236"
    page.keyboard.press("End")  # the view follows
    assert ends.inner_text().split("\n")[-1] == "step 476"
    page.keyboard.press("Escape")
    assert ends.inner_text().split("\n")[0] == "step 0"


def test_a_run_of_many_layers_and_steps_is_one_picture(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    report = samples.run(steps=3000, every=1, depth=1500)
    path = write(report, tmp_path / "r.html")
    assert path.stat().st_size < 12_000_000
    page = visit(path)
    page.locator(".key .ramp").wait_for()
    page.set_viewport_size({"width": 1100, "height": 1600})  # the whole picture in sight
    box, read = page.locator("canvas.heat").bounding_box(), page.locator(".read")
    page.mouse.move(box["x"] + box["width"] - 0.4, box["y"] + 30)
    assert read.inner_text().startswith("steps 2,997 to 2,999 · layer 1")
    assert read.inner_text().endswith(" · not finite")
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] - 0.4)
    assert "layer 1 (net.0) to layer 3" in read.inner_text()
    assert read.inner_text().endswith("exactly zero")
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    assert re.search(r"layer \d+ \(net\.\d+\) · \S+ to \S+ of the last layer$", read.inner_text())
    page.mouse.click(box["x"] + 50, box["y"] + 50)
    assert page.locator(".plot.time .band").count() == 1


def test_what_is_printed_from_the_dark_is_light(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    page = visit(write(samples.run(), tmp_path / "r.html"))
    page.emulate_media(media="print", color_scheme="light")
    page.wait_for_timeout(300)
    look, drawn = "getComputedStyle(document.querySelector('.head')).color", "document.querySelector('canvas.heat').toDataURL()"
    ink, picture = page.evaluate(look), page.evaluate(drawn)
    page.emulate_media(media="screen", color_scheme="dark")
    page.wait_for_timeout(300)
    assert page.evaluate(look) != ink
    assert page.evaluate(drawn) != picture
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_timeout(300)
    assert page.evaluate(look) == ink
    assert page.evaluate(drawn) == picture


def test_the_page_prints_whole(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    page = visit(write(samples.fixed(), tmp_path / "r.html"))
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('.tall')).maxHeight") == "none"
    assert page.pdf(path=str(tmp_path / "r.pdf")).startswith(b"%PDF")


def test_a_finding_tells_what_it_means(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    page = visit(write(samples.check(), tmp_path / "r.html"))
    lesson = page.locator("summary", has_text="What VAN001 means")
    lesson.focus()
    page.keyboard.press("Enter")
    assert page.locator(".lesson .chart").first.is_visible()
    assert "What helps" in page.locator(".lesson").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(samples: ModuleType, visit: Any, tmp_path: Path, scheme: str) -> None:
    page = visit(write(samples.fixed(), tmp_path / "r.html"))
    page.emulate_media(color_scheme=scheme)
    names = ("ink", "soft", "accent", "bad", "warn", "good")
    colours = {n: page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{n}')") for n in (*names, "card", "bg")}
    for name in names:
        for ground in ("card", "bg"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)  # WCAG 2.1 AA for text


def contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour.strip()[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["VAN001", "activations", "initialisers", "index"])
def test_explanations_open_and_fit_a_phone(visit: Any, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "explain"
    write_all(folder)
    page = visit(folder / f"{name}.html")
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    page.locator("nav a", has_text="Activations").click()
    assert page.locator("h1").inner_text() == "Activations"


def test_a_notebook_shows_the_page_in_its_own_frame(samples: ModuleType, visit: Any, tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><meta charset='utf-8'><p id='own'>mine</p>{samples.run()._repr_html_()}", encoding="utf-8")
    page = visit(notebook)
    frame = page.frame_locator("iframe")
    frame.locator(".key .ramp").wait_for()
    frame.locator("canvas.heat").click(position={"x": 5, "y": 5})
    assert frame.locator(".said").first.inner_text().startswith("layer 12")
    assert page.evaluate("getComputedStyle(document.getElementById('own')).fontSize") == "16px"  # the page's 15px stay inside
