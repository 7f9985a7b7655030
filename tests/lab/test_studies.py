"""What every study keeps: it runs in seconds, twice with equal rows, answers with a number and can be drawn."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evengrad.lab.pictures import picture
from evengrad.lab.result import StudyResult
from evengrad.lab.running import Plan, find
from evengrad.lab.studies import discovered
from evengrad.lab.study import Rows, Study

EXAMPLE = Path(__file__).parents[2] / "docs" / "studies" / "own.md"
NAMES = sorted(discovered())


@pytest.fixture(params=[*NAMES, "the example of docs/studies/own.md"])
def any_study(request: pytest.FixtureRequest, tmp_path: Path) -> type[Study]:
    """Every study that is found, and the one that the documentation shows."""
    if request.param in NAMES:
        return discovered()[request.param]
    (text,) = re.findall(r"```python\n(.*?)```", EXAMPLE.read_text(encoding="utf-8"), flags=re.S)
    (tmp_path / "my_own_study.py").write_text(text, encoding="utf-8")
    return find(str(tmp_path / "my_own_study.py"))


def test_a_study_keeps_the_contract(any_study: type[Study], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(any_study, {})
    first = plan.run(quick=True)
    assert first.rows
    assert len(first.rows) == len(first.study.cells())
    again = plan.run(quick=True, resume=False)
    assert _untimed(again) == _untimed(first), "the same cells gave other rows: is something drawn without the cell's seed, or timed?"
    assert json.loads(json.dumps([dict(row.arm) for row in first.rows])) == [row.arm for row in first.rows]
    _is_told(first.study, first.rows)
    assert json.loads(first.to_json())["answer"] == first.answer

    def computes(*_: object) -> None:
        raise AssertionError("computed a second time")

    monkeypatch.setattr(any_study, "compute", computes)
    assert plan.run(quick=True).rows == again.rows


def _untimed(result: StudyResult) -> Rows:
    timed = result.study.timed
    return Rows(replace(row, values={k: v for k, v in row.values.items() if k not in timed}) for row in result.rows)


def _is_told(study: Study, rows: Rows) -> None:
    """Answer, table and pictures, of all rows and of the first arm alone: a run may leave out any arm."""
    assert re.search(r"\d", study.answer(rows)), "an answer without a number"
    for part in (rows, rows.by_arm()[0][1]):
        assert study.answer(part), "no answer where arms are missing"
        for caption, draw in study.figures(part).items():
            assert picture(caption, draw()).data
    assert study.figures(rows), "a study without a picture"
    assert all(np.isfinite(rows.values(name)).any() for name in study.shown), "a value that is shown was never measured"


@pytest.mark.parametrize("name", NAMES)
def test_a_study_that_ships_says_what_it_is(name: str) -> None:
    kind = discovered()[name]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert re.fullmatch(r"S\d+", kind.number)
    assert kind.question.endswith("?")
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")  # the dataclass's own
    arms = kind().arms()
    assert len({json.dumps(arm, sort_keys=True) for arm in arms}) == len(arms)
    for published in kind.published:
        assert published.value in kind.shown
        assert any(published.arm.items() <= arm.items() for arm in arms), f"no arm is {published.arm}"
        assert published.source


def test_no_two_studies_have_one_number() -> None:
    numbers = [kind.number for kind in discovered().values()]
    assert len(set(numbers)) == len(numbers)
