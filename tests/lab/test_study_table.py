"""What is said of a study's numbers: medians and spread, where a published number lies, how two runs differ."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import evengrad as eg
from evengrad.errors import EvengradError, InputError
from evengrad.lab.comparison import compared, higher
from evengrad.lab.published import position, verdict
from evengrad.lab.recall import last_full, number_of, recall
from evengrad.lab.rows import Store
from evengrad.lab.running import Plan
from evengrad.lab.study import Row, Rows, Study
from evengrad.lab.table import summarised, table

Walk = Callable[..., Plan]
SEEDS = np.linspace(0.50, 0.73, 24)  # 24 numbers, 0.01 apart


# ---------------------------------------------------------------- published numbers


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0.80, "not reached by any of 24 seeds"),
        (0.73, "luck: only 4% of 24 seeds get there"),
        (0.69, "luck: only 21% of 24 seeds get there"),
        (0.68, "typical: 25% of 24 seeds get there"),
        (0.60, "typical: 58% of 24 seeds get there"),
        (0.55, "typical: 79% of 24 seeds get there"),
        (0.54, "bad luck: 79% of 24 seeds do better"),
        (0.50, "bad luck: 96% of 24 seeds do better"),
        (0.40, "every seed does better"),
    ],
)
def test_a_published_number_is_typical_or_luck_by_the_share_of_seeds_that_get_there(number: float, words: str) -> None:
    assert verdict(number, SEEDS) == words


def test_where_less_is_better_fewer_steps_are_luck() -> None:
    assert verdict(10, [20, 30, 40, 50], higher_is_better=False) == "not reached by any of 4 seeds"
    assert verdict(20, [20, 30, 40, 50, 60], higher_is_better=False) == "luck: only 1 of 5 seeds get there"
    assert verdict(60, [20, 30, 40, 50], higher_is_better=False) == "every seed does better"


def test_numbers_that_round_to_the_published_one_are_the_same() -> None:
    assert verdict(0.836, [0.8358] * 30) == "typical: 100% of 30 seeds get there"
    assert verdict(0.836, [0.8358] * 30, rounding=1e-5) == "not reached by any of 30 seeds"


def test_a_run_that_failed_counts_as_one_that_does_not_get_there() -> None:
    assert verdict(0.5, [math.nan] * 9 + [0.9]) == "luck: only 1 of 10 seeds get there"
    assert position(0.5, [math.nan] * 9 + [0.9]) == "90th percentile of 10 seeds"


def test_nothing_measured_says_nothing() -> None:
    assert verdict(0.5, []) == position(0.5, []) == "not measured here"
    assert verdict(0.5, [0.4]) == "not reached by the one seed"
    assert verdict(0.5, [0.6]) == "the one seed does better"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0.735, "above all 24 seeds"),
        (0.725, "96th percentile of 24 seeds"),
        (0.52, "10th percentile of 24 seeds"),  # two below, itself half: 2.5 of 24
        (0.505, "4th percentile of 24 seeds"),
        (0.4, "below all 24 seeds"),
    ],
)
def test_the_place_of_a_number_among_the_seeds(number: float, words: str) -> None:
    assert position(number, SEEDS) == words


@pytest.mark.parametrize(("rank", "ending"), [(1, "st"), (2, "nd"), (3, "rd"), (11, "th"), (12, "th"), (22, "nd"), (50, "th")])
def test_percentiles_are_ordinal_numbers(rank: int, ending: str) -> None:
    assert position(rank - 0.5, range(100)).startswith(f"{rank}{ending} percentile")


# ---------------------------------------------------------------- the table


def test_the_table_has_an_arm_a_line_and_the_published_number_beside_its_value(walk: Walk) -> None:
    found = walk().run().table
    assert found.header == ["stride", "seeds", "distance", "published"]
    lines = list(found.texts())
    distances = walk().run().rows.where(stride=1.0).values("distance")
    low, middle, high = np.quantile(distances, [0.1, 0.5, 0.9])
    assert lines[0] == ["1", "3", f"{middle:g} [{low:.3g}, {high:.3g}]", f"4, {position(4.0, distances)}"]
    assert lines[1][0] == "2"
    assert lines[1][3] == ""


def test_published_numbers_stand_beside_the_full_size_only(walk: Walk) -> None:
    assert "published" in walk(seeds=2, stride=(1.0, 5.0)).run().table.header
    assert "published" not in walk(steps=4).run().table.header
    assert "published" not in walk().run(quick=True).table.header


def test_a_value_that_some_seeds_lack_says_how_many_have_it(kind: type[Study], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "shown", ("distance", "missing"))
    rows = Rows(Row({"stride": 2.0}, seed, {"distance": v}) for seed, v in enumerate((1.0, math.nan, 3.0)))
    (line,) = table(kind(), rows).texts()
    assert line == ["2", "3", "2 [1.2, 2.8] (2 seeds)", "–"]


def test_arms_with_other_factors_leave_the_rest_blank(kind: type[Study]) -> None:
    rows = Rows([Row({"depth": 2, "stride": 0.5}, 0, {"distance": 1.0}), Row({"norm": "batch", "depth": 3}, 0, {"distance": math.inf})])
    found = table(kind(), rows)
    assert found.header == ["depth", "stride", "norm", "seeds", "distance"]
    assert [line[:3] for line in found.texts()] == [["2", "0.5", ""], ["3", "", "batch"]]
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))[1]["values"]["distance"]["median"] is None


def test_a_summary_is_the_median_with_the_outer_tenths() -> None:
    found = summarised(np.arange(101.0))
    assert (found.seeds, found.low, found.median, found.high) == (101, 10, 50, 90)
    assert str(summarised(np.array([2.5]))) == "2.5"


def test_the_document_of_a_result_is_plain_json(walk: Walk) -> None:
    document = json.loads(walk().run().to_json())
    assert set(document) == {"study", "number", "question", "answer", "factors", "quick", "table", "run", "rows"}
    assert document["factors"]["stride"] == [1.0, 2.0]
    assert len(document["rows"]) == 6
    assert document["table"][0]["values"]["distance"]["published"][0]["number"] == 4.0
    assert "rows" not in json.loads(walk().run().to_json(rows=False))


# ---------------------------------------------------------------- finished runs


def test_a_finished_run_is_shown_without_running(walk: Walk, computed: Callable[[], list[list[str]]]) -> None:
    first, second = walk().run(), walk(steps=3).run()
    computed()
    for name, run in (("random-walk", second), ("random-walk@1", first), ("random-walk@2", second)):
        again = recall(name)
        assert (again.rows, vars(again.study), again.answer) == (run.rows, vars(run.study), run.answer)
    assert computed() == []


def test_a_run_is_found_in_another_store_and_by_its_file(walk: Walk, own: Callable[..., Path], tmp_path: Path) -> None:
    result = walk().run(store=tmp_path / "s")
    assert recall(f"{tmp_path / 's'}:random-walk").rows == result.rows
    assert recall("random-walk", tmp_path / "s").rows == result.rows
    assert recall(str(own()), tmp_path / "s").rows == result.rows


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("random-wlk", "no finished run is called 'random-wlk'. Did you mean 'random-walk'?"),
        ("random-walk@3", "'random-walk' has 2 finished runs; expected random-walk@1 to random-walk@2, got 'random-walk@3'"),
        ("random-walk@0", "got 'random-walk@0'"),
        ("random-walk@last", "got 'random-walk@last'"),
        ("/nowhere:random-walk", "there is no finished run of 'random-walk' in '/nowhere/studies.sqlite'. To run it: evengrad study run"),
    ],
)
def test_a_run_that_is_not_there_is_refused(walk: Walk, reference: str, message: str) -> None:
    walk().run()
    walk().run()
    with pytest.raises(EvengradError) as error:
        recall(reference)
    assert message in str(error.value)


def test_a_run_whose_rows_are_gone_says_how_to_get_them_again(walk: Walk, tmp_path: Path) -> None:
    import sqlite3

    walk().run(store=tmp_path / "s")
    database = sqlite3.connect(tmp_path / "s" / "studies.sqlite")
    database.execute("DELETE FROM rows WHERE rowid = 1")
    database.commit()
    database.close()
    with pytest.raises(InputError, match="1 of 6 rows of that run are damaged or gone; to compute them again: evengrad study run"):
        recall("random-walk", tmp_path / "s")


def test_a_run_of_a_study_that_has_other_factors_now_is_refused(walk: Walk, own: Callable[..., Path]) -> None:
    walk().run()
    own(("steps: int = 16", "paces: int = 16"))
    with pytest.raises(
        InputError, match=r"'random-walk' was changed since that run: no factor .* is called 'steps'.* To run it again: evengrad"
    ):
        recall("random-walk")


def test_pages_are_written_of_full_runs_of_studies_that_ship(walk: Walk, kind: type[Study], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evengrad.lab.recall.discovered", lambda: {"random-walk": kind})
    monkeypatch.setattr("evengrad.lab.recall.find", lambda name: kind)
    monkeypatch.setattr(kind, "source", None)
    Plan(kind, {"steps": 3}).run()
    Plan(kind, {}).run(quick=True)
    with Store() as store:
        assert last_full(store) == []
    full = Plan(kind, {}).run()
    Plan(kind, {"seeds": 1}).run()
    assert Plan(kind, {}).run().run.computed == 0  # it would tell how long it took to find what was there
    with Store() as store:
        (found,) = last_full(store)
    assert (found.rows, found.run.computed) == (full.rows, 6)


def test_studies_are_in_the_order_of_their_numbers() -> None:
    class Numbered:
        def __init__(self, number: str, name: str) -> None:
            self.number, self.name = number, name

    studies = [Numbered(n, name) for n, name in (("", "b"), ("S10", "x"), ("", "a"), ("S9", "y"), ("S1", "z"))]
    assert [s.number or s.name for s in sorted(studies, key=number_of)] == ["S1", "S9", "S10", "a", "b"]  # type: ignore[arg-type]


# ---------------------------------------------------------------- two runs side by side


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [([1, 2], [3, 4], 1.0), ([3, 4], [1, 2], 0.0), ([1, 2], [1, 2], 0.5), ([1, 1], [1, 2], 0.75), ([1, math.nan], [math.inf], 1.0)],
)
def test_the_share_of_pairs_in_which_the_second_is_higher(first: list[float], second: list[float], share: float) -> None:
    assert higher(np.array(first, float), np.array(second, float)) == share


def test_the_share_is_nothing_where_nothing_was_measured() -> None:
    assert math.isnan(higher(np.array([math.nan]), np.array([1.0])))


def test_two_runs_are_compared_by_the_arms_that_both_have(walk: Walk) -> None:
    found = compared(walk().run(), walk(steps=64, stride=(2.0, 3.0)).run(), ("a", "b"))
    assert [(line.arm, line.value) for line in found.lines] == [({"stride": 2.0}, "distance")]
    line = found.lines[0]
    assert line.difference == line.second.median - line.first.median
    assert found.factors == {"stride": ((1.0, 2.0), (2.0, 3.0)), "steps": (16, 64)}
    (text,) = found.texts()
    assert text[:2] == ["stride 2", "distance"]
    assert text[-1].endswith("of pairs")
    assert json.loads(found.to_json())["lines"][0]["arm"] == {"stride": 2.0}


def test_runs_without_a_common_arm_cannot_be_compared(walk: Walk) -> None:
    with pytest.raises(InputError, match="the two runs have no arm in common: a has stride 1 …: distance; b has stride 3"):
        compared(walk(stride=1).run(), walk(stride=3).run(), ("a", "b"))


def test_the_public_names_are_there() -> None:
    assert callable(eg.study)
    assert eg.Study is Study
