"""`evengrad search`, as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evengrad.cli.search import parsed
from evengrad.errors import InputError

FILE = """
import torch
from torch import nn
import evengrad as eg

draw = torch.Generator().manual_seed(0)
x = torch.randn(96, 4, generator=draw)
y = (x[:, 0] * x[:, 1] > 0).long()

def model(width=8):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))

experiment = eg.Experiment(
    model, (x, y), nn.CrossEntropyLoss(), lambda m: torch.optim.SGD(m.parameters(), 0.003), epochs=8, batch_size=32
)
other = eg.Experiment(
    model, (x, y), nn.CrossEntropyLoss(), lambda m: torch.optim.NAdam(m.parameters(), 0.01), epochs=2, batch_size=32
)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENGRAD_STORE", str(tmp_path / "store"))
    return tmp_path


@pytest.mark.usefixtures("here")
def test_shows_the_best_numbers_as_code_and_is_quiet_beside(cli: Callable[..., Any]) -> None:
    done = cli("search", "net.py", "--trials", "12", "--batch", "6")
    assert done.code == 0
    assert done.err == ""
    assert "with the best of 12 trials" in done.out or "nothing beat the experiment" in done.out
    for words in (
        "as it is",
        "steps were taken",
        "what to change:",
        "torch.optim.SGD(model.parameters(), lr=",
        "matters:",
        "trials are kept in",
    ):
        assert words in done.out


def test_the_same_command_goes_on_from_what_is_kept(cli: Callable[..., Any], here: Path) -> None:
    options = ("search", "net.py:experiment", "--space", "lr=0.01:1:log", "--space", "width=4,8", "--json")
    first = json.loads(cli(*options, "--trials", "4").out)
    then = json.loads(cli(*options, "--trials", "8").out)
    assert [t["numbers"] for t in then["trials"][:4]] == [t["numbers"] for t in first["trials"]]
    assert len(then["trials"]) == 8
    assert {t["numbers"]["width"] for t in then["trials"]} == {4, 8}
    assert first["storage"] == then["storage"]
    assert Path(first["storage"]).parent == here / "store" / "searches"
    assert len(json.loads(cli(*options, "--trials", "2", "--no-resume").out)["trials"]) == 2


def test_writes_a_page_and_pictures(cli: Callable[..., Any], here: Path) -> None:
    done = cli(
        "search", "net.py", "--trials", "8", "--storage", "kept.journal", "--prune", "none", "-o", "report.html", "--figures", "pictures"
    )
    assert done.code == 0
    assert "report: " in done.err
    assert "<img" in (here / "report.html").read_text(encoding="utf-8")
    assert {p.stem for p in (here / "pictures").iterdir()} == {"what-matters", "the-metric-over-each-number"}
    assert (here / "kept.journal").exists()
    assert not (here / "store").exists()


@pytest.mark.usefixtures("here")
def test_says_what_was_trained_one_at_a_time_and_why(cli: Callable[..., Any]) -> None:
    done = cli("search", "net.py:other", "--trials", "3", "--storage", "memory", "--prune", "none")
    assert done.code == 0
    assert "3 of 3 trials were trained one at a time, since the experiment trains with NAdam" in done.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--space", "momemtum=0:0.9"), "Did you mean 'momentum'"),
        (("--space", "lr=1:0.1"), "is empty: low must be below high"),
        (("--space", "lr"), "--space takes NAME=LOW:HIGH"),
        (("--space", "lr=a:b"), "with numbers for LOW and HIGH"),
        (("--space", "lr=1:2:linear"), "--space takes NAME=LOW:HIGH"),
        (("--space", "lr=1:2", "--space", "lr=1:3"), "twice"),
        (("--prune", "gradient"), "no way to prune is called 'gradient'"),
        (("--sampler", "tpo"), "Did you mean 'tpe'"),
        (("--device", "warp"), "device 'warp' cannot be used"),
        (("--storage", "."), "is a folder"),
        (("-o", "no/where.html"), "there is no folder"),
    ],
)
@pytest.mark.usefixtures("here")
def test_wrong_options_end_with_2_and_a_sentence(cli: Callable[..., Any], options: tuple[str, ...], told: str) -> None:
    done = cli("search", "net.py", *options)
    assert done.code == 2
    assert told in done.err
    assert done.out == ""


def test_ranges_and_choices_are_read_from_the_command_line() -> None:
    assert parsed(None) is None
    found = parsed(["lr=1e-4:1:log", "width=16,32", "phi=tanh", "clip_norm=none,0.5", "bias=true,false", "momentum=0:0.99"])
    assert found == {
        "lr": (1e-4, 1, "log"),
        "width": [16, 32],
        "phi": ["tanh"],
        "clip_norm": [None, 0.5],
        "bias": [True, False],
        "momentum": (0, 0.99),
    }
    with pytest.raises(InputError, match="NAME=LOW:HIGH"):
        parsed(["=1:2"])
