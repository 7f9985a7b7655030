"""How quick is the local page? A real Chromium before `evengrad serve`: live views, the list, the playground's slider, a very large run.

    python -m benchmarks.page                    # writes benchmarks/results/page.json
    python -m benchmarks.page --only list slider

`live`: seconds from a step of a real training to its number on the page (of the oldest step that each renewal brings), alone and with 19
other views open. `list`: milliseconds of an answer with 1,000 runs in the folder, before and after they were read. `slider`: milliseconds
from a move of the playground's slider to its pictures, 20 layers of 64. `large`: a run of 10,000 layers and 10,000 steps: seconds to its
first picture, milliseconds that a move of the pointer takes and from a click to the exact numbers of a cell.
Needs Chromium at /usr/bin/chromium and the extras that `make setup` installs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from benchmarks.browser import ARGS, CHROMIUM, TRAINING
from evengrad.store import RunFile
from evengrad.types import Layer, Run

RESULTS = Path(__file__).parent / "results" / "page.json"
VIEWS, RUNS, MOVES = 20, 1000, 40
MOVE = """() => {
  const canvas = document.querySelector("canvas.heat"), box = canvas.getBoundingClientRect(), began = performance.now();
  for (let i = 0; i < 100; i++)
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 3 * i, clientY: box.top + i, bubbles: true }));
  return (performance.now() - began) / 100;
}"""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Runs `evengrad serve` over a folder in a process of its own, and gives its address."""
    command = [sys.executable, "-m", "evengrad", "serve", "--store", str(folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(text for text in server.stderr if "http://" in text)
        try:
            yield re.search(r"http://[\d.:]+", line)[0]  # type: ignore[index]
        finally:
            server.terminate()


def until(ready: Callable[[], Any], seconds: float = 120.0) -> float:
    """Waits for something; returns how long, in seconds."""
    began = time.perf_counter()
    while not ready():
        if time.perf_counter() - began > seconds:
            raise TimeoutError(f"nothing came in {seconds} s")
        time.sleep(0.005)
    return time.perf_counter() - began


def fetched(address: str) -> bytes:
    """The body of an answer."""
    with urllib.request.urlopen(address, timeout=120) as answer:
        return bytes(answer.read())


def listed(address: str) -> list[dict[str, Any]]:
    """The runs of the list."""
    return list(json.loads(fetched(f"{address}/api/runs")))


def summary(values: list[float], digits: int) -> dict[str, float]:
    """Median and extremes."""
    return {"median": round(statistics.median(values), digits), "most": round(max(values), digits), "times": len(values)}


def live(page: Any, *, hidden: int, views: int, seconds: float = 20.0) -> dict[str, float]:
    """Seconds that the oldest step of each renewal of a live view had waited."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(served(folder))
        taken, enough = folder / "steps.txt", folder / "enough"
        out = stack.enter_context(taken.open("w"))
        stack.enter_context(subprocess.Popen([sys.executable, "-c", TRAINING, str(folder), str(enough), str(hidden)], stdout=out))
        stack.callback(enough.touch)
        until(lambda: any(row["live"] for row in listed(address)))
        (key,) = (row["id"] for row in listed(address))
        for _ in range(views - 1):
            threading.Thread(target=_follow, args=(f"{address}/runs/{key}",), daemon=True).start()
        page.goto(f"{address}/runs/{key}")
        page.locator(".key .ramp").wait_for()
        time.sleep(3)  # the first steps are dense
        seen: list[tuple[int, float]] = []
        end = time.time() + seconds
        while time.time() < end:
            found = re.search(r"([\d,]+) steps", page.locator(".report .meta").first.inner_text())
            steps = int(found[1].replace(",", "")) if found else 0
            if not seen or steps != seen[-1][0]:
                seen.append((steps, time.time()))
            time.sleep(0.01)
        times = {int(step): float(when) for step, when in map(str.split, taken.read_text().splitlines()[:-1])}
        page.goto("about:blank")
    waits = [now - times[before + 1] for (before, _), (_, now) in itertools.pairwise(seen) if before + 1 in times]
    return summary(waits, 2)


def _follow(address: str) -> None:
    """What a page does: takes the events of a run, and the article after each."""
    with suppress(OSError), urllib.request.urlopen(f"{address}/events", timeout=120) as answer:
        for line in answer:
            if line.startswith(b"data: "):
                fetched(f"{address}/article")


def rows(count: int) -> list[Layer]:
    """Linear layers in a chain."""
    return [
        Layer(
            name=f"net.{i}", kind="linear", depth=i + 1, group=0, trunk=0, fan_in=32, fan_out=32, parameters=1056, weight=f"net.{i}.weight"
        )
        for i in range(count)
    ]


def listing() -> dict[str, float]:
    """Milliseconds until the list of 1,000 runs has arrived."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        falling = (0.24 ** np.arange(12)[::-1]).astype(np.float32)
        with RunFile.create(folder, "one") as file:
            file.write(run=Run(name="one", model="Sequential", parameters=12672, samples=64, verb="watch"), layers=rows(12))
            file.write(frames={0: {"grad_out_norm": falling}}, points={"loss": (list(range(30)), list(np.exp(-np.arange(30) / 5)))})
        for i in range(RUNS - 1):
            shutil.copy(file.path, folder / f"copy-{i}.evengrad")
        with served(folder) as address:
            cold = until(lambda: len(listed(address)) == RUNS)
            until(lambda: all(row["fresh"] for row in listed(address)), 300)
            warm = [until(lambda: listed(address)) for _ in range(20)]
    return {"runs": RUNS, "before they were read": round(1e3 * cold)} | summary([1e3 * t for t in warm], 0)


def slider(page: Any) -> dict[str, float]:
    """Milliseconds, as the page counts them, from a move to the pictures that follow it."""
    taken = []
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as address:
        page.goto(f"{address}/play?depth=20&width=64&activation=relu&initialiser=he_normal")
        body = page.locator("body")
        looks = lambda: int(body.get_attribute("data-looks") or 0)  # noqa: E731
        until(lambda: looks() >= 1)
        for i in range(MOVES):
            before = looks()
            page.locator("#scale").fill(str(round(-1 + 2 * ((7 * i) % MOVES) / MOVES, 2)))
            until(lambda: looks() > before)  # noqa: B023
            taken.append(float(body.get_attribute("data-look")))
        page.goto("about:blank")
    return summary(taken, 0)


def large(page: Any, side: int = 10_000) -> dict[str, Any]:
    """A run of as many layers and sampled steps."""
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RunFile.create(folder, "large") as file:
            file.write(run=Run(name="large", model="M", parameters=side, samples=1, verb="watch"), layers=rows(side))
            for first in range(0, side, 100):
                file.write(
                    frames={s: {"grad_out_norm": draw.lognormal(0, 0.3, side).astype(np.float32)} for s in range(first, first + 100)}
                )
        megabytes = file.path.stat().st_size / 1e6
        with served(folder) as address:
            (key,) = (row["id"] for row in listed(address))
            began = time.perf_counter()
            page.goto(f"{address}/runs/{key}", timeout=300_000)
            page.locator(".key .ramp").wait_for(timeout=300_000)
            first_picture = time.perf_counter() - began
            box, moves = page.locator("canvas.heat").bounding_box(), [page.evaluate(MOVE) for _ in range(5)]
            table, exact = page.locator(".exact"), []
            for i in range(10):
                before = table.inner_text()
                page.mouse.click(box["x"] + box["width"] * (i + 0.5) / 10, box["y"] + box["height"] * (0.9 - i / 12))
                exact.append(until(lambda: table.locator("td").count() > 0 and table.inner_text() != before))  # noqa: B023
            page.goto("about:blank")
    found = {"layers": side, "steps": side, "megabytes": round(megabytes), "seconds to the first picture": round(first_picture, 1)}
    return found | {"milliseconds a move": summary(moves, 2), "milliseconds to exact numbers": summary([1e3 * t for t in exact], 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts: dict[str, Callable[[Any], Any]] = {
        "live": lambda page: {
            "6 hidden layers": live(page, hidden=6, views=1),
            "100 hidden layers": live(page, hidden=100, views=1),
            f"6 hidden layers, {VIEWS} views": live(page, hidden=6, views=VIEWS),
        },
        "list": lambda page: listing(),
        "slider": slider,
        "large": large,
    }
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    found: dict[str, Any] = json.loads(args.output.read_text()) if args.output.exists() else {}
    found |= {"command": "python -m benchmarks.page", "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    with sync_playwright() as api:
        browser = api.chromium.launch(executable_path=str(CHROMIUM), args=ARGS)
        page = browser.new_context(viewport={"width": 1200, "height": 1400}, bypass_csp=True).new_page()
        for name in args.only:
            found[name] = parts[name](page)
            print(name, json.dumps(found[name]), flush=True)
        browser.close()
    args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
