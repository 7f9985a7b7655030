"""`evengrad study` as its users meet it: what is printed where, and the exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evengrad.lab.studies import discovered

Run = Callable[..., Any]  # fixtures `cli` and `shell`: arguments -> code, out, err

COINS = '''
from dataclasses import dataclass

import numpy as np

from evengrad.lab.figures import distributions, panels
from evengrad.lab.study import Published, Row, Study


@dataclass(frozen=True, kw_only=True)
class Coins(Study):
    """Throws coins."""

    name = "coins"
    question = "How many heads?"
    shown = ("heads",)
    published = (Published(arm={"coin": "fair"}, value="heads", number=10.0, source="Bernoulli 1713"),)

    coin: tuple[str, ...] = ("fair", "bent(0.2, 0.8)")
    throws: int = 20
    seeds: int = 5
    fault: bool = False

    @classmethod
    def quick(cls):
        return cls(seeds=2, throws=4)

    def arms(self):
        return [{"coin": coin} for coin in self.coin]

    def compute(self, cells):
        if self.fault:
            {}["heads"]
        return [Row(c.arm, c.seed, {"heads": np.random.default_rng(c.seed).binomial(self.throws, 0.5)}) for c in cells]

    def answer(self, rows):
        return f"About {rows.median('heads'):g} of {self.throws}."

    def figures(self, rows):
        return {"Heads": lambda: self.draw(rows)}

    def draw(self, rows):
        figure, (ax,) = panels()
        distributions(ax, {arm["coin"]: own.values("heads") for arm, own in rows.by_arm()})
        return figure
'''


@pytest.fixture
def coins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own study in the current directory, and a store of this test's own."""
    monkeypatch.setenv("EVENGRAD_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coins.py").write_text(COINS, encoding="utf-8")
    return tmp_path


def table(out: str) -> list[list[str]]:
    """The lines of the table, cell by cell."""
    return [re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if re.search(r"\S\s{2,}\S", line)]


def test_the_list_names_every_study_with_its_question_and_last_run(cli: Run, coins: Path) -> None:
    name = min(discovered().values(), key=lambda kind: int(kind.number[1:])).name
    done = cli("study", "list", "--json")
    assert done.code == 0
    lines = json.loads(done.out)
    assert {line["name"] for line in lines} == set(discovered())
    assert lines[0]["name"] == name
    assert all(line["cells"] > 0 and line["question"].endswith("?") for line in lines)
    assert lines[0]["last_run"] == ""
    assert not (coins / "store").exists()  # looking makes nothing
    assert name in cli("study", "list").out


def test_a_run_prints_question_answer_and_table(cli: Run, coins: Path) -> None:
    done = cli("study", "run", "coins.py", "--workers", "1")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "How many heads?"
    assert re.fullmatch(r"About \d+ of 20.", lines[2])
    header, fair, bent = table(done.out)[:3]
    assert header == ["coin", "seeds", "heads", "published"]
    assert fair[:2] == ["fair", "5"]
    assert fair[3].startswith("10, ")
    assert bent[0] == "bent(0.2, 0.8)"


def test_options_reach_the_study(cli: Run, coins: Path) -> None:
    options = ("--quick", "--set", "coin=fair,bent(0.1, 0.9)", "--set", "throws=7", "--seeds", "3")
    document = json.loads(cli("study", "run", "coins.py", *options, "--json").out)
    assert document["factors"] == {"seeds": 3, "coin": ["fair", "bent(0.1, 0.9)"], "throws": 7, "fault": False}
    assert len(document["rows"]) == 6
    assert document["quick"]


def test_json_is_all_that_is_printed(cli: Run, coins: Path) -> None:
    done = cli("study", "run", "coins.py", "--quick", "--json")
    assert json.loads(done.out)["study"] == "coins"
    assert done.err == ""


def test_a_second_run_computes_nothing_unless_told_to(cli: Run, coins: Path) -> None:
    def computed(*options: str) -> int:
        return int(json.loads(cli("study", "run", "coins.py", "--quick", "--json", *options).out)["run"]["computed"])

    assert [computed(), computed(), computed("--no-resume"), computed("--store", "other")] == [4, 0, 4, 4]


def test_a_page_and_pictures_are_written_where_they_were_asked_for(cli: Run, coins: Path) -> None:
    done = cli("study", "run", "coins.py", "--quick", "-o", "page.html")
    assert done.err.strip() == f"page: {(coins / 'page.html').resolve()}"
    assert "How many heads?" in (coins / "page.html").read_text(encoding="utf-8")
    done = cli("study", "show", "coins", "-o", "again.html", "--figures", "drawn")
    assert (coins / "again.html").read_bytes() == (coins / "page.html").read_bytes()
    assert [file.name for file in (coins / "drawn").iterdir()] == ["heads.svg"]


def test_a_run_is_shown_again_in_the_same_words(cli: Run, coins: Path) -> None:
    first = cli("study", "run", "coins.py", "--workers", "1").out
    cli("study", "run", "coins.py", "--quick")
    assert cli("study", "show", "coins@1").out == first
    assert cli("study", "show", "coins.py@1").out == first
    assert "of 4." in cli("study", "show", "coins").out
    shown = json.loads(cli("study", "show", "coins", "--json").out)
    assert shown["quick"]


def test_two_runs_are_put_side_by_side(cli: Run, coins: Path) -> None:
    cli("study", "run", "coins.py", "--workers", "1")
    cli("study", "run", "coins.py", "--workers", "1", "--set", "throws=60", "--store", "other")
    done = cli("study", "compare", "coins", "other:coins")
    assert done.code == 0
    assert done.out.splitlines()[0] == "throws: 20 in coins, 60 in other:coins"
    assert table(done.out)[0] == ["arm", "value", "coins", "other:coins", "difference", "second higher in"]
    assert table(done.out)[1][0] == "coin fair"
    assert table(done.out)[1][-1] == "100% of pairs"
    document = json.loads(cli("study", "compare", "coins", "other:coins", "--json").out)
    assert document["factors"] == {"throws": [20, 60]}
    assert len(document["lines"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "no-such-study"], "no study is called 'no-such-study'"),
        (["run", "nowhere.py"], "there is no file 'nowhere.py'"),
        (["run", "coins.py", "--set", "throw=3"], "Did you mean 'throws'?"),
        (["run", "coins.py", "--set", "throws=many"], "throws takes int; got 'many'"),
        (["run", "coins.py", "--set", "throws"], "expected NAME=VALUE"),
        (["run", "coins.py", "--chunk", "8"], "no factor of the study 'coins' is called 'chunk'"),
        (["run", "coins.py", "--device", "cpu"], "no factor of the study 'coins' is called 'device'"),
        (["run", "coins.py", "-o", "nowhere/page.html"], "there is no folder 'nowhere'"),
        (["run", "coins.py", "--store", "coins.py"], "a file is in its way. Give a folder"),
        (["show", "coins"], "there is no finished run of 'coins'"),
        (["compare", "coins", "coins"], "there is no finished run of 'coins'"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_ends_with_2_and_a_sentence(cli: Run, coins: Path, arguments: list[str], message: str) -> None:
    done = cli("study", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (coins / "store" / "studies.sqlite").exists() or arguments[0] != "run"


def test_an_error_in_ones_own_study_shows_its_line_and_its_cell(cli: Run, coins: Path) -> None:
    done = cli("study", "run", "coins.py", "--quick", "--set", "fault=yes")
    assert done.code == 2
    assert '{}["heads"]' in done.err
    assert "evengrad/lab" not in done.err
    assert "error: study 'coins' raised KeyError at coin fair, seed 0: 'heads'" in done.err


def test_an_error_while_ones_own_file_is_loaded_shows_its_line(cli: Run, coins: Path) -> None:
    (coins / "coins.py").write_text("import nowhere_at_all\n" + COINS)
    done = cli("study", "run", "coins.py")
    assert done.code == 2
    assert "import nowhere_at_all" in done.err
    assert "ModuleNotFoundError" in done.err


def test_where_nothing_can_be_kept_the_result_is_shown_and_that_is_said(cli: Run, coins: Path) -> None:
    done = cli("study", "run", "coins.py", "--quick", "--store", "/proc/nowhere", "--json")
    assert done.code == 0
    assert len(json.loads(done.out)["rows"]) == 4
    assert done.err.startswith("nothing is kept: '/proc/nowhere/studies.sqlite' cannot be written")


def test_a_study_runs_in_processes_of_its_own_from_the_command_line(shell: Run, coins: Path) -> None:
    done = shell("study", "run", "coins.py", "--workers", "2", cwd=coins)
    assert done.code == 0, done.err
    assert done.out.startswith("How many heads?")


def test_interrupted_it_says_how_to_go_on_and_ends_with_130(cli: Run, coins: Path) -> None:
    (coins / "coins.py").write_text(COINS.replace('{}["heads"]', "raise KeyboardInterrupt"))
    done = cli("study", "run", "coins.py", "--quick", "--set", "fault=yes")
    assert done.code == 130
    assert done.err.splitlines() == ["stopped: 0 of 4 cells are there; run it again, and it goes on from them"]


def test_progress_is_a_line_every_few_seconds_where_there_is_no_terminal(cli: Run, coins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("study", "run", "coins.py", "--workers", "1").err == ""
    monkeypatch.setattr("evengrad.cli.study._SECONDS_BETWEEN_LINES", 0.0)
    done = cli("study", "run", "coins.py", "--workers", "1", "--no-resume")
    assert re.fullmatch(r"(\d of 10 cells, about [\d.]+ s left\n){9}", done.err)


def test_progress_is_a_bar_on_a_terminal(cli: Run, coins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    done = cli("study", "run", "coins.py", "--workers", "1")
    assert "10 of 10 cells" in done.err
    assert "left" in done.err


def test_help_shows_what_each_command_takes(cli: Run) -> None:
    for command in ("list", "run", "show", "compare"):
        done = cli("study", command, "--help")
        assert done.code == 0
        assert "--store" in done.out
    assert all(f" {command} " in cli("study", "--help").out for command in ("list", "run", "show", "compare"))
