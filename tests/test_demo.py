"""`evengrad demo`, end to end: two networks that do not train, found, explained, fixed and proved on real data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import evengrad
from evengrad.cli import demo
from evengrad.cli.demo import run, sigmoid_fashion, tanh_circles
from evengrad.report.html import write_many
from evengrad.training import Experiment, build, first_batch, metric_name

REMOTE = re.compile(r"""(?:src|href)\s*=\s*["'](?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import|fetch\(|XMLHttpRequest""")


@pytest.mark.slow
def test_the_demo_fixes_both_networks_and_writes_its_report(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": str(Path(evengrad.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from evengrad.cli import main; main()", "demo", "--seeds", "2", "-o", "x.html"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    page = tmp_path / "x.html"
    assert f"report: {page}" in done.stdout.splitlines()
    assert done.stdout.count("\nFixed: ") == 2
    html = page.read_text(encoding="utf-8")
    assert html.lower().startswith("<!doctype html>")
    assert not REMOTE.search(html)
    assert "Fashion-MNIST: 20 sigmoid layers" in html
    assert "two circles: 5 tanh layers" in html
    assert len(html) < 2_000_000
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.html"]


def test_a_demonstration_of_one_seed_on_less_data_tells_the_same_story(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full, circles = sigmoid_fashion(), tanh_circles()
    small = replace(full, data=tuple(part[:1500] for part in full.data), validation=tuple(part[:500] for part in full.validation), epochs=4)
    monkeypatch.setattr(demo, "sigmoid_fashion", lambda: small)
    monkeypatch.setattr(demo, "tanh_circles", lambda: replace(circles, epochs=40))
    lines: list[str] = []
    reports = run(seeds=1, progress=lines.append)
    assert [r.verdict for r in reports] == ["fixed", "fixed"]
    assert reports[0].causes[0] == "bad_hidden_activation"
    assert reports[1].causes == ("bad_init_large",)
    assert [f.code for f in reports[0].findings][:1] == ["VAN001"]
    assert [f.code[:3] for f in reports[1].findings if f.effect_of is None] == ["INI"]
    assert {line.partition(":")[0] for line in lines} == {"Fashion-MNIST", "two circles"}
    page = write_many(reports, "a small demo", tmp_path / "small.html").read_text(encoding="utf-8")
    assert page.count("<article") == 2
    assert not REMOTE.search(page)
    assert all(json.loads(r.to_json())["verdict"] == "fixed" for r in reports)


@pytest.mark.parametrize(("made", "layers", "shape"), [(sigmoid_fashion, 20, (128, 784)), (tanh_circles, 6, (32, 2))])
def test_the_demos_networks_are_what_their_names_say(made: Callable[[], Experiment], layers: int, shape: tuple[int, int]) -> None:
    experiment = made()
    rig = build(experiment)
    assert sum(isinstance(m, torch.nn.Linear) for m in rig.model.modules()) == layers
    assert tuple(first_batch(rig).inputs.shape) == shape
    assert metric_name(experiment) == "accuracy"
    assert experiment.validation is not None
