"""Open views are told of a write at once, and end with the server."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from evengrad.serve.shelf import Shelf
from evengrad.store import RunFile
from tests.serve.conftest import keep_run, served

VIEWS = 20


class View(threading.Thread):
    """An open page: takes events, and the article after each."""

    def __init__(self, base: str, key: str) -> None:
        super().__init__()
        self.base, self.key = f"{base}/runs/{key}", key
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.shown: list[float] = []
        self.opened = threading.Event()

    def run(self) -> None:
        with urllib.request.urlopen(f"{self.base}/events", timeout=60) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    self.events.append((time.monotonic(), json.loads(line[6:])))
                    if not self.events[-1][1]:
                        return  # the run is gone
                    with urllib.request.urlopen(f"{self.base}/article", timeout=60) as article:
                        article.read()
                    self.shown.append(time.monotonic())
                    self.opened.set()


def test_twenty_open_views_are_told_of_each_write(tmp_path: Path) -> None:
    finished = keep_run(tmp_path, "before")
    with served(tmp_path) as base, RunFile.create(tmp_path, "growing") as file:
        file.write(points={"loss": ([0], [1.0])})
        entries = Shelf(tmp_path).entries().values()
        key = next(e.id for e in entries if e.path != finished)
        views = [View(base, key) for _ in range(VIEWS)]
        for view in views:
            view.start()
        assert all(view.opened.wait(30) for view in views)
        time.sleep(1)  # so that all are at rest
        count = [len(view.events) for view in views]
        began = time.monotonic()
        file.write(points={"loss": ([1], [0.5])})
        while any(len(view.shown) <= n for view, n in zip(views, count, strict=True)) and time.monotonic() < began + 30:
            time.sleep(0.02)
        told = [len(view.shown) > n for view, n in zip(views, count, strict=True)]
        with urllib.request.urlopen(f"{base}/api/runs", timeout=30) as answer:
            rows = {row["name"]: row for row in json.load(answer)}
    assert rows["growing"]["live"]
    assert not rows["before"]["live"]
    assert all(view.events[0][1]["live"] for view in views)
    assert all(told)
    for view in views:
        view.join(timeout=10)
        assert not view.is_alive()  # the streams ended with the server


def test_a_view_is_told_that_its_run_is_gone(tmp_path: Path) -> None:
    path = keep_run(tmp_path, "short")
    with served(tmp_path) as base:
        view = View(base, next(iter(Shelf(tmp_path).entries())))
        view.start()
        assert view.opened.wait(30)
        path.unlink()
        view.join(timeout=10)
        assert not view.is_alive()
    assert view.events[0][1]["live"] is False


def test_a_run_whose_process_was_killed_is_not_live_for_ever(tmp_path: Path) -> None:
    import os

    path = keep_run(tmp_path, "killed")
    log = path.with_name(path.name + "-wal")
    log.touch()
    assert next(iter(Shelf(tmp_path).entries().values())).live
    for file in (path, log):
        os.utime(file, (time.time() - 60, time.time() - 60))
    assert not next(iter(Shelf(tmp_path).entries().values())).live
