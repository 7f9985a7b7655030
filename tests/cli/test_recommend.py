"""`evengrad recommend`, as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FILE = """
import torch
from torch import nn
import evengrad as eg

draw = torch.Generator().manual_seed(0)
x = torch.randn(32, 6, generator=draw)
y = (x[:, 0] + x[:, 1] > 0).long()

def model():
    torch_layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Linear(8, 2)]
    return nn.Sequential(*torch_layers)

experiment = eg.Experiment(
    model, (x, y), nn.CrossEntropyLoss(), lambda m: torch.optim.SGD(m.parameters(), 0.001), epochs=4, batch_size=32
)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    return tmp_path


@pytest.mark.usefixtures("here")
def test_shows_the_verdict_the_order_and_the_code(cli: Callable[..., Any]) -> None:
    done = cli("recommend", "net.py", "--seeds", "2")
    assert done.code == 0
    assert "net.py:experiment: 54 options" in done.out
    assert "keep it as it is" in done.out or "change it to" in done.out
    for words in ("tried on 2 seeds", "as it is", "what matters in the first short trials:", "rate: ", "textbook", "selu"):
        assert words in done.out
    assert "54 options; the network as it is trains first" in done.err
    assert "to the end on 2 seeds" in done.err


@pytest.mark.usefixtures("here")
def test_prints_one_document_and_nothing_else(cli: Callable[..., Any]) -> None:
    done = cli("recommend", "net.py:experiment", "--json", "--seeds", "1", "--keep", "kept.jsonl")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert document["schema"] == "evengrad/recommendation/1"
    assert document["name"] == "net.py:experiment"
    assert {r["factors"]["norm"] for r in document["rows"]} == {"as it is"}  # it has a norm
    assert Path("kept.jsonl").is_file()


@pytest.mark.usefixtures("here")
def test_a_budget_of_nothing_ends_at_once_and_says_so(cli: Callable[..., Any]) -> None:
    done = cli("recommend", "net.py", "--max-seconds", "0")
    assert done.code == 0
    assert "not decided: the time was over" in done.out


@pytest.mark.usefixtures("here")
def test_a_name_that_is_not_there_is_refused(cli: Callable[..., Any]) -> None:
    done = cli("recommend", "net.py:experimnt")
    assert done.code == 2
    assert "Did you mean 'experiment'?" in done.err


@pytest.mark.parametrize("option", ["--seeds", "--workers"])
@pytest.mark.usefixtures("here")
def test_none_of_what_is_needed_is_refused(cli: Callable[..., Any], option: str) -> None:
    assert cli("recommend", "net.py", option, "0").code == 2
