"""What docs/sinks.md tells to run, runs."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "sinks.md"


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    (run,) = (folder for folder in (tmp_path / "runs").iterdir() if folder.name != "worst")
    written = {re.sub(r"\.tfevents\..*", "", path.name) for path in run.iterdir()}
    assert {"layers.csv", "curves.csv", "layers.parquet", "curves.parquet", "events.out"} <= written
    with (run / "curves.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["loss"]] == [str(step) for step in range(100)]
    assert re.fullmatch(r"0 \d+", (tmp_path / "runs" / "worst" / "worst.txt").read_text())  # one step, the name of a layer
