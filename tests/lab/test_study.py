"""A study computes each cell once, whatever stops it, and says what is wrong with what it was given."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import evengrad as eg
from evengrad.errors import EvengradError, ForwardError, InputError, UnknownNameError
from evengrad.lab import memory
from evengrad.lab.factors import build, command, parse
from evengrad.lab.memory import available
from evengrad.lab.running import Plan, Progress, _Teller, find
from evengrad.lab.study import Cell, Row, Rows, Study, quantile

Computed = Callable[[], list[list[str]]]
Walk = Callable[..., Plan]


# ---------------------------------------------------------------- running


def test_a_run_has_a_row_for_each_cell_in_order(walk: Walk) -> None:
    result = walk().run()
    assert [(row.arm, row.seed) for row in result.rows] == [({"stride": s}, seed) for s in (1.0, 2.0) for seed in range(3)]
    assert result.rows[4].values["distance"] == 2 * result.rows[1].values["distance"]
    assert result.answer.startswith("stride 1: ")
    assert (result.run.computed, result.run.quick, result.run.study) == (6, False, "random-walk")


def test_running_twice_is_free_and_equal(walk: Walk, computed: Computed) -> None:
    first = walk().run()
    assert len(computed()) == 6
    second = walk().run()
    assert computed() == []
    assert second.rows == first.rows
    assert second.run.computed == 0


def test_without_resuming_all_is_computed_again_and_equal(walk: Walk, computed: Computed) -> None:
    first = walk().run()
    computed()
    second = walk().run(resume=False)
    assert len(computed()) == 6
    assert second.rows == first.rows


def test_only_what_is_new_is_computed(walk: Walk, computed: Computed) -> None:
    walk(stride=1.0).run()
    computed()
    result = walk(stride=(1.0, 2.0), seeds=4).run()
    assert sorted(line[:2] for line in computed()) == [["1", "3"], ["2", "0"], ["2", "1"], ["2", "2"], ["2", "3"]]
    assert len(result.rows) == 8


def test_another_size_shares_no_rows(walk: Walk, computed: Computed) -> None:
    walk().run()
    computed()
    walk(steps=17).run()
    assert len(computed()) == 6


def test_quick_is_the_quick_size_with_the_factors_that_were_given(walk: Walk) -> None:
    result = walk(stride=3).run(quick=True)
    assert [(row.arm, row.seed) for row in result.rows] == [({"stride": 3.0}, 0), ({"stride": 3.0}, 1)]
    assert len(result.rows[0].series["path"]) == 4
    assert result.run.quick


def test_a_stopped_run_goes_on_from_the_chunks_that_were_done(walk: Walk, computed: Computed, tmp_path: Path) -> None:
    told: list[Progress] = []
    plan = walk(group=2, fault="interrupt")
    with pytest.raises(KeyboardInterrupt):
        plan.run(progress=told.append)
    assert [line[:2] for line in computed()] == [["1", "0"], ["1", "1"], ["1", "2"], ["2", "0"], ["2", "1"]]
    assert told[-1].note == "stopped: 4 of 6 cells are there; run it again, and it goes on from them"
    (tmp_path / "go").touch()
    resumed = plan.run()
    assert [line[:2] for line in computed()] == [["2", "1"], ["2", "2"]]  # the chunk that was begun was dropped
    assert resumed.rows == plan.run(store=tmp_path / "other").rows


def test_what_was_done_before_an_error_is_kept(walk: Walk, computed: Computed) -> None:
    with pytest.raises(ForwardError):
        walk(fault="raise").run()
    assert len(computed()) == 5
    with pytest.raises(ForwardError):
        walk(fault="raise").run()
    assert [line[:2] for line in computed()] == [["2", "1"]]


def test_a_corrupted_row_is_computed_again_not_trusted(walk: Walk, computed: Computed, tmp_path: Path) -> None:
    first = walk().run(store=tmp_path / "s")
    computed()
    database = sqlite3.connect(tmp_path / "s" / "studies.sqlite")
    (payload,) = database.execute("SELECT payload FROM rows WHERE address = ?", [first.run.addresses[4]]).fetchone()
    spoiled = payload.replace(b'"seed": 1', b'"seed": 2')
    database.execute("UPDATE rows SET payload = ? WHERE address = ?", [spoiled, first.run.addresses[4]])
    database.commit()
    database.close()
    assert spoiled != payload
    second = walk().run(store=tmp_path / "s")
    assert [line[:2] for line in computed()] == [["2", "1"]]
    assert second.rows == first.rows
    walk().run(store=tmp_path / "s")
    assert computed() == []


def test_a_chunk_that_lost_a_row_is_computed_as_a_whole(walk: Walk, computed: Computed, tmp_path: Path) -> None:
    first = walk(group=4).run(store=tmp_path / "s")
    computed()
    database = sqlite3.connect(tmp_path / "s" / "studies.sqlite")
    database.execute("DELETE FROM rows WHERE address = ?", [first.run.addresses[1]])
    database.commit()
    database.close()
    assert walk(group=4).run(store=tmp_path / "s").rows == first.rows
    assert len(computed()) == 4


def test_chunks_are_computed_on_one_thread_which_is_undone_afterwards(walk: Walk, computed: Computed) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        walk().run()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert {line[2] for line in computed()} == {"1"}


def test_progress_counts_cells_and_begins_from_what_is_there(walk: Walk) -> None:
    walk(stride=1.0, seeds=2, group=2).run()
    told: list[Progress] = []
    walk(seeds=2, group=2).run(progress=told.append)
    assert [(p.done, p.total) for p in told] == [(2, 4), (4, 4)]
    assert [p.left for p in told] == [None, 0]


def test_the_time_left_goes_by_what_a_cell_takes_and_by_how_many_work() -> None:
    told: list[Progress] = []
    teller = _Teller(told.append, 100)
    teller.begin(found=20, workers=2)
    teller.add(10, seconds=5.0)
    teller.add(30, seconds=5.0)
    assert [p.left for p in told] == [None, 17.5, 5.0]


def test_where_nothing_can_be_kept_the_run_goes_on_and_says_so(walk: Walk) -> None:
    told: list[Progress] = []
    result = walk().run(store="/proc/nowhere", progress=told.append)
    assert len(result.rows) == 6
    assert [p.note for p in told if p.note] != []
    assert "nothing is kept" in next(p.note for p in told if p.note)


# ---------------------------------------------------------------- what a study may get wrong


def test_an_error_of_the_study_names_its_cell_and_has_it_as_cause(walk: Walk) -> None:
    with pytest.raises(ForwardError, match=r"study 'random-walk' raised ZeroDivisionError at stride 2, seed 1: the walker fell") as error:
        walk(fault="raise").run()
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    with pytest.raises(ForwardError, match="at a chunk of 2 cells, stride 2, seed 0 to stride 2, seed 1"):
        walk(fault="raise", group=2, seeds=2).run()


def test_an_input_error_of_the_study_stays_one(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = walk()

    def refuse(self: Study, cells: list[Cell]) -> list[Row]:
        raise InputError("no data")

    monkeypatch.setattr(plan.kind, "compute", refuse)
    with pytest.raises(InputError, match="study 'random-walk', stride 1, seed 0: no data"):
        plan.run()


@pytest.mark.parametrize(
    ("method", "returned", "message"),
    [
        ("arms", [{"a": 1}, {"a": 1}], r"has an arm twice: \{\"a\":1\}"),
        ("arms", [], "has no arms with these factors"),
        ("arms", [{"a": {1, 2}.__iter__}], "made of JSON values"),
        ("groups", [], "must return each of the 6 cells once"),
        ("compute", [], "must return a Row for each of 1 cells; got 0"),
    ],
)
def test_a_study_that_breaks_a_rule_is_told_which(
    walk: Walk, monkeypatch: pytest.MonkeyPatch, method: str, returned: object, message: str
) -> None:
    plan = walk()
    monkeypatch.setattr(plan.kind, method, lambda *_: returned)
    with pytest.raises(EvengradError, match=message):
        plan.run()


def test_workers_are_at_least_one(walk: Walk) -> None:
    with pytest.raises(InputError, match="workers must be at least 1; got 0"):
        walk().run(workers=0)


# ---------------------------------------------------------------- memory


def test_a_chunk_that_is_too_large_for_memory_is_refused_before_it_is_computed(
    walk: Walk, computed: Computed, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = walk()
    monkeypatch.setattr(plan.kind, "memory", lambda self, cells: 2**60)
    with pytest.raises(InputError, match=r"too large for memory: .* up to 1 cells at once needs about 1073741824.0 GiB, .* GiB are free"):
        plan.run()
    assert computed() == []


def test_there_are_only_as_many_workers_as_fit(kind: type[Study], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "memory", lambda self, cells: cells[0].seed * 100)
    monkeypatch.setattr(memory, "available", lambda device: 350)
    study = kind()
    chunks = [[Cell({"stride": 1.0}, seed)] for seed in (0, 1, 2)]
    assert [memory.fitting(study, chunks, workers) for workers in (1, 2, 3, 4)] == [1, 2, 3, 4]
    monkeypatch.setattr(memory, "available", lambda device: 250)
    assert memory.fitting(study, chunks, 4) == 1
    monkeypatch.setattr(memory, "available", lambda device: None)
    assert memory.fitting(study, chunks, 4) == 4


def test_free_memory_is_what_the_system_says_within_the_containers_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:      50 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert available() == 50 * 1024
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 1000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available() == 50 * 1024
    (tmp_path / "memory.max").write_text("10000\n")
    assert available() == 7000
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "missing")
    assert available() is None


# ---------------------------------------------------------------- factors


def test_one_value_in_place_of_several_is_that_one(kind: type[Study]) -> None:
    assert build(kind, {"stride": 3}) == build(kind, {"stride": (3.0,)}) == build(kind, {"stride": [3.0]})
    assert isinstance(vars(build(kind, {"stride": 3}))["stride"][0], float)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"stride": "long"}, "stride takes one or more of float; got 'long'"),
        ({"stride": ()}, r"stride takes one or more of float; got \(\)"),
        ({"stride": (1.0, None)}, "stride takes one or more of float"),
        ({"steps": 1.5}, "steps takes int; got 1.5"),
        ({"steps": True}, "steps takes int; got True"),
        ({"steps": (1, 2)}, r"steps takes int; got \(1, 2\)"),
        ({"fault": 3}, "fault takes str; got 3"),
        ({"seeds": 0}, "seeds must be at least 1; got 0"),
    ],
)
def test_a_value_of_another_type_is_refused(kind: type[Study], factors: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(kind, factors)


def test_an_unknown_factor_is_refused_with_the_nearest(kind: type[Study]) -> None:
    with pytest.raises(UnknownNameError, match=r"no factor of the study 'random-walk' is called 'strides'. Did you mean 'stride'\?"):
        build(kind, {"strides": 3})


def test_an_unknown_study_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no study is called 'no-such-study'"):
        eg.study("no-such-study")


def test_a_factor_is_looked_at_before_anything_runs(own: Callable[..., Path]) -> None:
    with pytest.raises(UnknownNameError, match="'strid'"):
        eg.study(str(own()), strid=1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("activation=tanh,leaky_relu(0.2),elu(1.0, 2.0)", ("tanh", "leaky_relu(0.2)", "elu(1.0, 2.0)")),
        ("activation=relu", ("relu",)),
        ("depth=1, 2,5", (1, 2, 5)),
        ("rate=1e-3,0.1", (0.001, 0.1)),
        ("lr=3", 3.0),
        ("word=a=b", "a=b"),
        ("word=none", "none"),
        ("flag=no", False),
        ("flag=True", True),
        ("patience=none", None),
        ("patience=3", 3),
        ("maybe=none", None),
        ("maybe=1,2", (1, 2)),
    ],
)
def test_text_is_read_by_the_type_of_its_field(own: Callable[..., Path], text: str, value: object) -> None:
    kind = _many_fields(own)
    name = text.partition("=")[0]
    assert parse(kind, [text]) == {name: value}
    assert getattr(build(kind, {name: value}), name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth", "expected NAME=VALUE, such as seeds=5; got 'depth'"),
        ("depth=", "depth takes one or more of int; got ''"),
        ("depth=1,,2", "depth takes one or more of int; got '1,,2'"),
        ("flag=maybe", "flag takes bool; got 'maybe'"),
        ("patience=soon", "patience takes none or int; got 'soon'"),
        ("detph=1", "Did you mean 'depth'"),
    ],
)
def test_text_that_cannot_be_read_is_refused(own: Callable[..., Path], text: str, message: str) -> None:
    with pytest.raises(EvengradError) as error:
        parse(_many_fields(own), [text])
    assert message in str(error.value)


def test_the_command_gets_the_same_study_again(kind: type[Study]) -> None:
    study = replace(kind.quick(), stride=(1.0, 3.0), steps=7)  # type: ignore[call-arg]
    typed = command(study, quick=True)
    assert study.source is not None
    assert typed == f"evengrad study run {study.source.path} --quick --set stride=1.0,3.0 --set steps=7"
    sets = [word for word in typed.split() if "=" in word]
    assert build(kind, parse(kind, sets), quick=True) == study
    assert command(kind(), quick=False) == f"evengrad study run {study.source.path}"


# ---------------------------------------------------------------- a user's own file


def test_a_file_with_one_study_is_a_study(own: Callable[..., Path]) -> None:
    result = eg.study(str(own()), stride=1).run(quick=True)
    assert result.rows.arms() == [{"stride": 1.0}]


SECOND = "        return figure\n\n\nclass Longer(RandomWalk):\n    name = 'longer'\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("class RandomWalk(Study)", "class RandomWalk")], "holds no complete studies; expected one class that extends evengrad.Study"),
        ([("    def answer", "    def reply")], "holds no complete studies; RandomWalk lacks answer; expected one"),
        ([("    name = ", "    title = ")], "RandomWalk has no 'name'"),
        ([("@dataclass(frozen=True, kw_only=True)\n", "")], "RandomWalk is no dataclass; write @dataclass"),
        ([("        return figure\n", SECOND)], "2 complete studies (RandomWalk, Longer)"),
    ],
    ids=["none", "incomplete", "no name", "no dataclass", "two"],
)  # fmt: skip
def test_a_file_without_exactly_one_study_is_refused(own: Callable[..., Path], changes: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(InputError) as error:
        find(str(own(*changes)))
    assert message in str(error.value)


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"there is no file 'nowhere.py'; expected the name of a study \(evengrad study list\) or a file"):
        find("nowhere.py")


def test_a_file_that_raises_has_its_error_as_cause(own: Callable[..., Path]) -> None:
    with pytest.raises(ForwardError, match=r"walk\.py raised ModuleNotFoundError while it was loaded") as error:
        find(str(own(("import torch", "import torsh"))))
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


WORDS = [
    ("How far does a random walk get?", "Where does it go?"),
    ("A walker goes one stride", "A walker strides"),
    ("median('distance'):g}", "median('distance'):.3f}"),
    ("stride: tuple[float, ...] = (1.0, 2.0)", "stride: tuple[float, ...] = (1.0, 2.0)  # feet"),
    ("seeds: int = 3", "seeds: int = 2"),
    ("number=4.0", "number=5.0"),
]
MEANING = [
    ("[-1, 1]", "[-1, 1, 1]"),
    ("default_rng(cell.seed)", "default_rng(cell.seed + 1)"),
    ("import time", "import time as clock, time"),
]


@pytest.mark.parametrize("change", WORDS, ids=lambda c: c[1])
def test_other_words_or_defaults_in_ones_file_cost_nothing(own: Callable[..., Path], computed: Computed, change: tuple[str, str]) -> None:
    eg.study(str(own())).run()
    computed()
    eg.study(str(own(change, name="changed.py"))).run()
    assert computed() == []


@pytest.mark.parametrize("change", MEANING, ids=lambda c: c[1])
def test_other_code_in_ones_file_is_computed_anew(own: Callable[..., Path], computed: Computed, change: tuple[str, str]) -> None:
    eg.study(str(own())).run()
    computed()
    eg.study(str(own(change, name="changed.py"))).run()
    assert len(computed()) == 6


# ---------------------------------------------------------------- rows


def test_rows_are_picked_by_arm_and_read_by_name() -> None:
    rows = Rows(
        Row({"depth": d, "norm": n}, seed, {"a": d + seed}, {"s": np.arange(d + seed)})
        for d in (1, 2)
        for n in ("x", "y")
        for seed in (0, 1)
    )
    assert len(rows.where(depth=1)) == 4
    assert rows.where(depth=1, norm="y").arms() == [{"depth": 1, "norm": "y"}]
    assert rows.where(depth=3) == ()
    assert rows.where(width=3) == ()
    assert rows.where(depth=2, norm="x").values("a").tolist() == [2, 3]
    assert rows.where(depth=2, norm="x").median("a") == 2.5
    assert rows.where(depth=2).series("s").tolist() == [[0, 1]] * 4
    assert [len(own) for _, own in rows.by_arm()] == [2, 2, 2, 2]
    assert rows.share("a", at_least=2) == 0.75
    assert np.isnan(rows.where(depth=3).share("a", at_least=2))
    assert np.isnan(rows.where(depth=3).median("a"))
    assert rows.where(depth=3).series("s").shape == (0, 0)


def test_quantiles_leave_out_nan_and_do_not_lie_between_a_number_and_infinity() -> None:
    assert quantile([1, 2, np.nan, 3], 0.5) == 2
    assert quantile([1, 2, np.inf, np.inf], 0.5) == 2
    assert quantile([1, np.inf, np.inf], 0.5) == np.inf
    assert np.isnan(quantile([np.nan], 0.5))


def _many_fields(own: Callable[..., Path]) -> type[Study]:
    fields = """    group: int = 1
    activation: tuple[str, ...] = ("relu",)
    depth: tuple[int, ...] = (1,)
    rate: tuple[float, ...] = (0.1,)
    lr: float = 0.1
    word: str = ""
    flag: bool = False
    patience: int | None = None
    maybe: tuple[int, ...] | None = None
"""
    return find(str(own(("    group: int = 1\n", fields))))
