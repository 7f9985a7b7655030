"""The page in a real browser: lists, follows a real training, compares, plays; without a message, without a request elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.browser import ARGS, CHROMIUM, TRAINING
from evengrad.monitor.outlets import SHORTEST
from evengrad.serve.live import POLL
from evengrad.store import RunFile
from evengrad.types import Layer, Run
from tests.report.test_browser import playwright
from tests.serve.conftest import keep_run, served

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as api:
        started = api.chromium.launch(executable_path=str(CHROMIUM), args=ARGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    keep_run(folder, "sigmoid")
    keep_run(folder, "tanh", gain=0.97, loss=0.01)
    keep_run(folder, "<script>alert(1)</script>", layer="<img src=x onerror=alert(1)>")
    (folder / "foreign.evengrad").write_bytes(b"MZ" * 200)
    return folder


@pytest.fixture(scope="module")
def base(runs: Path) -> Iterator[str]:
    with served(runs) as address:
        yield address


@pytest.fixture
def page(browser: Any, base: str) -> Iterator[Any]:
    """A window; at the end there must have been no message, no error, no dialog and no request elsewhere."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, base_url=base)
    made, trouble = context.new_page(), []
    made.on("console", lambda m: trouble.append(m.text))
    made.on("pageerror", lambda e: trouble.append(f"{e} {e.stack}"))
    made.on("dialog", lambda d: (trouble.append(d.message), d.dismiss()))
    made.on("request", lambda r: trouble.append(r.url) if not r.url.startswith(base) else None)
    made.on("response", lambda r: trouble.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    yield made
    folder = os.environ.get("EVENGRAD_SCREENSHOTS")
    if folder:
        name = re.sub(r"\W+", "-", os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].rpartition(" ")[0]).strip("-")
        made.screenshot(path=Path(folder, f"{name}.png"), full_page=True)
    assert trouble == []
    context.close()


def wait(page: Any, ready: Callable[[], Any], seconds: float = 40.0) -> None:
    """Waits in Python: the policy forbids what would evaluate text in the page."""
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, page.locator("body").inner_text()[:2000]
        page.wait_for_timeout(50)


def drawn(page: Any) -> None:
    """Waits until a report's picture is drawn: from then on it answers."""
    wait(page, lambda: page.locator(".key .ramp").count() == 1)


def test_the_list_is_filtered_and_sorted(page: Any) -> None:
    page.goto("/")
    wait(page, lambda: page.locator(".mark.bad").count() >= 2 and "…" not in page.locator("#rows").inner_text())
    assert page.locator("#rows tr").count() >= 4
    page.locator("#filter").fill("van001 sig")
    assert page.locator("#rows tr").count() == 1
    assert "q=van001" in page.url
    page.reload()
    wait(page, lambda: page.locator("#rows tr").count() == 1)
    page.locator("#filter").fill("")
    page.get_by_role("button", name="run", exact=True).click()
    names = [text.lower() for text in page.locator("#rows th a").all_inner_texts()]
    assert names == sorted(names)
    page.locator("#troubled").check()
    assert "tanh" not in page.locator("#rows").inner_text()


def test_names_are_text(page: Any) -> None:
    page.goto("/")
    wait(page, lambda: page.locator("#rows tr").count() >= 4)
    page.get_by_role("link", name="<script>alert(1)</script>").click()
    assert page.locator("h1").inner_text() == "<script>alert(1)</script>"
    drawn(page)
    page.locator("canvas.heat").hover()
    wait(page, lambda: "onerror" in page.locator(".read").inner_text())


def test_two_picked_runs_are_compared(page: Any) -> None:
    page.goto("/")
    wait(page, lambda: page.locator("#rows tr").count() >= 4)
    page.get_by_label("pick sigmoid for comparison").check()
    page.get_by_label("pick tanh for comparison").check()
    page.get_by_role("link", name="Compare the two picked").click()
    wait(page, lambda: page.locator("#curves path.second").count() == 1)
    assert "VAN001" in page.locator("table.changed").inner_text()


def test_a_foreign_file_says_so(page: Any) -> None:
    page.goto("/")
    wait(page, lambda: page.locator("#rows tr").count() >= 4)
    page.get_by_role("link", name="foreign").click()
    assert "not a stored run" in page.locator("main").inner_text()


def test_a_run_goes_to_the_trash_after_a_second_press(page: Any, runs: Path) -> None:
    keep_run(runs, "unwanted")
    page.goto("/")
    button = page.get_by_role("button", name="delete unwanted")
    wait(page, lambda: button.count() == 1)
    button.click()
    assert (runs / "unwanted.evengrad").exists()
    button.click()
    wait(page, lambda: not (runs / "unwanted.evengrad").exists())
    wait(page, lambda: "trash" in page.locator("#said").inner_text())
    assert (runs / "trash" / "unwanted.evengrad").exists()
    page.get_by_role("link", name="Trash (1)").click()
    page.wait_for_load_state()
    page.get_by_role("button", name="restore unwanted").click()
    wait(page, lambda: "is back" in page.locator("#said").inner_text())
    assert (runs / "unwanted.evengrad").exists()
    page.get_by_role("link", name="Open it").click()
    drawn(page)
    page.goto("/")
    wait(page, lambda: button.count() == 1)
    button.click()
    button.click()
    page.get_by_role("button", name="Restore it").click()  # at once
    wait(page, (runs / "unwanted.evengrad").exists)


def test_a_real_training_is_followed(page: Any, runs: Path, tmp_path: Path) -> None:
    enough = tmp_path / "enough"
    with subprocess.Popen([sys.executable, "-c", TRAINING, str(runs), str(enough), "6"]):
        try:
            page.goto("/")
            wait(page, lambda: page.locator(".mark.live").count() == 1)
            page.get_by_role("link", name="live", exact=True).click()
            drawn(page)
            follow = page.locator("#follow")
            page.get_by_role("tab", name="spread").click()
            first = page.locator(".report .meta").first.inner_text()
            wait(page, lambda: int(follow.get_attribute("data-renewed") or 0) >= 3)
            assert page.locator(".report .meta").first.inner_text() != first
            assert page.get_by_role("tab", name="spread").get_attribute("aria-selected") == "true"
            assert "followed live" in page.locator("#state").inner_text()
        finally:
            enough.touch()
    wait(page, lambda: page.locator("#state").inner_text() == "not running")


def test_a_view_comes_back_with_its_server(browser: Any, tmp_path: Path) -> None:
    path = keep_run(tmp_path, "patient")
    with served(tmp_path) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_role("link", name="patient", exact=True).click()
        drawn(page)
    wait(page, lambda: "trying again" in page.locator("#state").inner_text())
    keep_run(tmp_path, "other", steps=77).rename(path)  # written to meanwhile
    with served(tmp_path, int(address.rpartition(":")[2])):
        wait(page, lambda: "77 steps" in page.locator(".report .meta").first.inner_text())
        assert page.locator("#state").inner_text() == "not running"
        page.close()


def test_what_a_step_waits_for_is_half_a_second_at_most() -> None:
    assert SHORTEST + POLL <= 0.5  # the rest of the second is for reading, drawing and a busy machine


def test_a_choice_outlives_a_renewal(page: Any, runs: Path) -> None:
    layers = [
        Layer(name=f"n.{i}", kind="linear", depth=i + 1, group=0, trunk=0, fan_in=4, fan_out=4, parameters=20, weight="w") for i in range(5)
    ]
    frame = {"grad_out_norm": np.geomspace(0.1, 1, 5).astype(np.float32)}
    with RunFile.create(runs, "growing") as file:
        file.write(run=Run(name="growing", model="M", parameters=1, samples=1, verb="watch"), layers=layers, frames={0: frame, 1: frame})
        page.goto("/")
        wait(page, lambda: page.get_by_role("link", name="growing").count() == 1)
        page.get_by_role("link", name="growing").click()
        canvas, read, follow = page.locator("canvas.heat"), page.locator(".read"), page.locator("#follow")
        drawn(page)
        canvas.click(position={"x": 5, "y": 5})
        wait(page, lambda: "layer 5 (n.4)" in page.locator(".said").first.inner_text())
        told = read.inner_text()
        page.wait_for_timeout(500)
        for step in (2, 3):
            count = follow.get_attribute("data-renewed")
            file.write(frames={step: frame})
            wait(page, lambda: follow.get_attribute("data-renewed") != count)  # noqa: B023
            assert page.locator(".ends.run").inner_text().endswith(f"step {step}")
            assert "layer 5 (n.4)" in page.locator(".said").first.inner_text()
            assert read.inner_text() == told


def test_exact_numbers_are_shown_where_cells_stand_for_several(page: Any, runs: Path) -> None:
    steps, layers = 3000, 6
    rows = [
        Layer(name=f"n.{i}", kind="linear", depth=i + 1, group=0, trunk=0, fan_in=4, fan_out=4, parameters=20, weight="w")
        for i in range(layers)
    ]
    values = np.exp(np.random.default_rng(0).normal(0, 0.3, (steps, layers))).astype(np.float32)
    values[1501, 2] = 1e-9  # the worst of its cell
    with RunFile.create(runs, "long") as file:
        frames = {step: {"grad_out_norm": value} for step, value in enumerate(values)}
        file.write(run=Run(name="long", model="M", parameters=1, samples=1, verb="watch"), layers=rows, frames=frames)
    page.goto("/")
    wait(page, lambda: page.get_by_role("link", name="long", exact=True).count() == 1)
    page.get_by_role("link", name="long", exact=True).click()
    canvas = page.locator("canvas.heat")
    drawn(page)
    box = canvas.bounding_box()
    middle = (box["x"] + box["width"] * 500.5 / 1000, box["y"] + box["height"] * 3.5 / 6)  # steps 1,500 to 1,502, layer 3
    page.mouse.move(*middle)
    assert page.locator(".read").inner_text().startswith("steps 1,500 to 1,502 · layer 3 (n.2) · ")
    page.mouse.click(*middle)
    wait(page, lambda: page.locator(".exact table").is_visible())
    cells = page.locator(".exact td").all_inner_texts()
    for text, ratio in zip(cells, values[1500:1503, 2] / values[1500:1503, -1], strict=True):
        assert float(text.replace("\N{MINUS SIGN}", "-")) == pytest.approx(ratio, rel=0.06)
    assert page.locator(".exact td.worst").inner_text() == cells[1]
    assert page.locator(".said.along").inner_text().startswith("step 1,501: gradient along depth")
    canvas.focus()
    for _ in range(4):
        page.keyboard.press("+")
    wait(page, lambda: "steps" not in page.locator(".ends.run").inner_text())  # cells are single steps now
    page.mouse.move(middle[0] + 3, middle[1])
    assert re.match(r"step 1,[45]\d\d · layer", page.locator(".read").inner_text())
    page.keyboard.press("Escape")
    assert page.locator(".ends.run").inner_text().split("\n")[-1] == "steps 2,997 to 2,999"


def test_the_playground_from_slider_to_fix(page: Any) -> None:
    page.goto("/play?depth=20&width=64&activation=relu&initialiser=he_normal")
    looks = lambda: int(page.locator("body").get_attribute("data-looks") or 0)  # noqa: E731
    wait(page, lambda: looks() >= 1, 90)
    for value, word in (("-0.6", "vanishing"), ("0", "healthy"), ("0.6", "exploding")):
        count = looks()
        page.locator("#scale").fill(value)
        wait(page, lambda: looks() > count)  # noqa: B023
        assert page.locator("#word").inner_text() == word
    assert "scale=3.98" in page.url
    page.locator("#preset").select_option("vanishing_gradient")
    wait(page, lambda: page.locator("#word").inner_text() == "vanishing")
    page.get_by_role("button", name="Train").click()
    wait(page, lambda: int(page.locator("body").get_attribute("data-step") or 0) > 20)
    page.get_by_role("button", name="What is wrong?").click()
    wait(page, lambda: "VAN001" in page.locator("#answer").inner_text())
    page.get_by_role("button", name="Fix it").click()
    wait(page, lambda: page.locator("#answer tr.chosen").count() == 1, 90)
    assert page.locator("#answer-head").inner_text().startswith("Fixed")
    wait(page, lambda: page.locator("#word").inner_text() == "healthy")
    wait(page, lambda: page.locator("#gradient path.second").count() == 1)
    assert "fix=" in page.url
    wait(page, lambda: page.locator("#train").inner_text() == "Stop")
    page.get_by_role("button", name="Stop").click()
    page.reload()
    wait(page, lambda: page.locator("#word").inner_text() == "healthy", 90)


def test_a_rule_leads_to_its_symptom_in_the_playground(page: Any) -> None:
    page.goto("/rules/VAN001")
    page.get_by_role("link", name="See it in the playground").click()
    wait(page, lambda: page.locator("#word").inner_text() == "vanishing", 90)
    assert page.locator("#preset").input_value() == "vanishing_gradient"


def test_the_keyboard_is_enough(page: Any) -> None:
    page.goto("/")
    wait(page, lambda: page.locator("#rows tr").count() >= 4)
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "to the content"
    page.keyboard.press("/")
    page.keyboard.type("sigmoid")
    wait(page, lambda: page.locator("#rows tr").count() == 1)
    while page.locator(":focus").inner_text() != "sigmoid":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    drawn(page)
    page.locator(".planes button").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".planes [aria-selected=true]").inner_text() == "spread"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["/", "/compare", "/studies", "/rules", "/rules/VAN001", "/play", "/trash"])
def test_pages_fit_a_phone_in_light_and_dark(page: Any, address: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 380, "height": 800})
    page.goto(address)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 21, 27)") is (scheme == "dark")
