"""The page in a real browser: it runs under its own policy, answers the pointer and the keyboard, asks the network for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from evengrad.report.html import write, write_many

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as api:
        started = api.chromium.launch(executable_path=str(CHROMIUM), args=[*ARGS, "--disable-sync"])
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


@pytest.mark.parametrize("name", ["check", "fixed", "nothing_helped", "healthy", "run", "hostile", "hostile_run"])
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
    page.locator(".planes button", has_text="dead").click()
    assert "dead" in said.inner_text()
    page.locator(".curves button", has_text="loss").click()
    assert "loss" in said.inner_text()


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
