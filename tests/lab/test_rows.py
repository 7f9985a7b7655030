"""A row is read as it was written, or not at all; the store is never harmed, and never stands in the way."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import evengrad
from evengrad.errors import InputError
from evengrad.lab.packing import address, checked, packed, unpacked
from evengrad.lab.rows import Run, Store
from evengrad.lab.study import Cell, Row, Study
from evengrad.store import default_folder

SERIES = {
    "float64": np.array([0.1, np.nan, -np.inf, 5e-324]),
    "float32": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
    "int64": np.array([[[-1]]]),
    "bool": np.array([True, False]),
    "scalar": np.array(3.5),
    "empty": np.empty((0, 4)),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "big endian": np.array([1.5, 2.5], ">f8"),
}
ROW = checked(
    Cell({"depth": 5, "activation": "tanh"}, 3), Row({"activation": "tanh", "depth": 5}, 3, {"a": 0.1, "b": np.nan, "c": np.inf}, SERIES)
)
RUN = Run(
    study="walk", file="", quick=True, fields={"seeds": 3}, addresses=["x"], finished="2030-01-01T00:00:00+00:00", seconds=1.5,
    computed=1, machine="m", versions={"torch": "9"}, command="evengrad study run walk",
)  # fmt: skip


def test_a_row_comes_back_to_the_bit_in_every_dtype() -> None:
    back = unpacked(packed(ROW))
    assert back == ROW
    assert list(back.arm) == ["depth", "activation"]
    for name, array in SERIES.items():
        assert back.series[name].dtype == array.dtype.newbyteorder("=")
        assert back.series[name].shape == array.shape
        assert not back.series[name].flags.writeable
        assert not ROW.series[name].flags.writeable


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"arm": {"depth": 6}}, {"values": ROW.values | {"a": 0.2}}, {"values": {"a": 0.1}}, {"series": {}}], ids=str
)
def test_rows_that_differ_are_not_equal(change: dict[str, object]) -> None:
    assert replace(ROW, **change) != ROW  # type: ignore[arg-type]
    assert replace(ROW, arm={"activation": "tanh", "depth": 5}) == ROW


def test_what_is_stored_is_found_by_address_and_by_nothing_else(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put("walk", {"x": ROW, "y": replace(ROW, seed=4)})
        assert store.find(["x", "z"]) == {"x": ROW}
    with Store(tmp_path) as store:
        many = [f"z{i}" for i in range(2000)]
        assert store.find([*many, "y", "x"]) == {"x": ROW, "y": replace(ROW, seed=4)}


def test_a_stored_row_is_replaced(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put("walk", {"x": ROW})
        store.put("walk", {"x": replace(ROW, values={})})
        assert store.find(["x"])["x"].values == {}


@pytest.mark.parametrize("place", [0, 4, 60, -1])
def test_a_row_with_one_flipped_bit_is_not_there(tmp_path: Path, place: int) -> None:
    with Store(tmp_path) as store:
        store.put("walk", {"x": ROW, "y": ROW})
    database = sqlite3.connect(tmp_path / "studies.sqlite")
    payload = bytearray(database.execute("SELECT payload FROM rows WHERE address = 'x'").fetchone()[0])
    payload[place] ^= 1
    database.execute("UPDATE rows SET payload = ? WHERE address = 'x'", [bytes(payload)])
    database.commit()
    database.close()
    with Store(tmp_path) as store:
        assert list(store.find(["x", "y"])) == ["y"]


def test_a_row_under_another_ones_address_is_not_there(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put("walk", {"x": ROW})
    database = sqlite3.connect(tmp_path / "studies.sqlite")
    database.execute("UPDATE rows SET address = 'y'")
    database.commit()
    database.close()
    with Store(tmp_path) as store:
        assert store.find(["y"]) == {}


def test_runs_come_back_oldest_first_and_by_study(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add(RUN)
        store.add(replace(RUN, seconds=2.5))
        store.add(replace(RUN, study="other"))
        assert store.runs("walk") == [RUN, replace(RUN, seconds=2.5)]
        assert store.studies() == ["other", "walk"]


def test_looking_into_a_store_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with Store(tmp_path / "new", create=False) as store:
        assert (store.find(["x"]), store.runs("walk"), store.studies()) == ({}, [], [])
    assert not (tmp_path / "new").exists()


def test_the_store_is_in_the_environments_folder_else_with_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVENGRAD_STORE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("EVENGRAD_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_folder() == tmp_path / "data" / "evengrad"
    monkeypatch.setenv("XDG_DATA_HOME", "")
    assert default_folder() == Path.home() / ".local" / "share" / "evengrad"


def test_a_store_may_be_open_several_times(tmp_path: Path) -> None:
    with Store(tmp_path) as one, Store(tmp_path) as other:
        one.put("walk", {"x": ROW})
        assert other.find(["x"]) == {"x": ROW}
        other.put("walk", {"y": ROW})
        assert len(one.find(["x", "y"])) == 2


# ---------------------------------------------------------------- stores that are not well


def foreign(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE recipes (cake TEXT)")
    database.commit()
    database.close()


def newer(path: Path) -> None:
    Store(path.parent).__exit__()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"not a database, but long enough for a header" * 40), "is damaged, or not a database"),
        (foreign, "is another program's database"),
        (newer, "has schema 99, expected 1"),
    ],
    ids=["a text file", "another program's", "a later version's"],
)
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(tmp_path: Path, spoil: object, message: str) -> None:
    path = tmp_path / "studies.sqlite"
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"{message}.*it was left as it is.*[Gg]ive another store"):
        Store(tmp_path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["studies.sqlite"]


def test_a_damaged_page_is_said_not_trusted(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put("walk", {f"{i:064}": ROW for i in range(200)})
    path = tmp_path / "studies.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x99" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"), Store(tmp_path) as store:
        store.find([f"{i:064}" for i in range(200)])


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"a file is in its way\. Give a folder"):
        Store(tmp_path / "file")
    with pytest.raises(InputError, match=r"a file is in its way\. Give a folder"):
        Store(tmp_path / "file" / "below")


def test_where_nothing_can_be_made_nothing_is_kept_and_that_is_said_once() -> None:
    told: list[str] = []
    with Store(Path("/proc/nowhere"), told.append) as store:  # not even root makes a folder there
        store.put("walk", {"x": ROW})
        store.add(RUN)
        assert store.find(["x"]) == {}
    assert len(told) == 1
    assert "nothing is kept: '/proc/nowhere/studies.sqlite' cannot be written" in told[0]


def test_a_full_disk_ends_the_keeping_not_the_run(tmp_path: Path) -> None:
    code = """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from evengrad.lab.rows import Store
        from evengrad.lab.study import Row
        small, large = Row({}, 0, {"a": 1.0}), Row({}, 1, {}, {"s": np.zeros(10**6)})
        with Store(Path(sys.argv[1]), print) as store:
            store.put("walk", {"small": small})
            resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, resource.RLIM_INFINITY))
            store.put("walk", {"large": large})
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            store.put("walk", {"more": small})
            print(sorted(store.find(["small", "large", "more"])))
        with Store(Path(sys.argv[1]), print) as store:
            store.put("walk", {"more": small})
            print(sorted(store.find(["small", "large", "more"])))
    """
    environment = os.environ | {"PYTHONPATH": str(Path(evengrad.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said, first, second = done.stdout.splitlines()
    assert said.startswith("nothing is kept: ")
    assert (first, second) == ("['small']", "['more', 'small']")


# ---------------------------------------------------------------- addresses


def test_an_address_is_made_of_what_decides_a_rows_numbers(kind: type[Study]) -> None:
    def of(size: int = 1, seed: int = 0, stride: float = 1.0, place: int = 0, **fields: object) -> str:
        return address(kind(**fields), Cell({"stride": stride}, seed), size, place)

    same = of()
    assert of(seeds=7) == same
    assert of(steps=17) != same
    assert of(seed=1) != same
    assert of(2) != same
    assert of(2) != of(2, place=1)
    assert of(stride=2.0) != same


def test_factors_are_not_part_of_an_address_but_through_the_arm(kind: type[Study]) -> None:
    cell = Cell({"stride": 1.0}, 0)
    assert address(kind(stride=(1.0,)), cell, 1) == address(kind(stride=(1.0, 5.0)), cell, 1)  # type: ignore[call-arg]


def test_another_version_of_a_study_has_other_addresses(kind: type[Study], monkeypatch: pytest.MonkeyPatch) -> None:
    before = address(kind(), Cell({"stride": 1.0}, 0), 1)
    monkeypatch.setattr(kind, "version", 2)
    assert address(kind(), Cell({"stride": 1.0}, 0), 1) != before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (None, "must return a Row for each cell, in order; expected one for depth 5, activation tanh, seed 3, got None"),
        (replace(ROW, seed=4), "must return a Row for each cell"),
        (replace(ROW, values={"a": "high"}), "the values of a Row are numbers; got {'a': 'high'}"),
        (replace(ROW, series={"s": np.array(["high"])}), "'s' has dtype <U4"),
    ],
    ids=["no row", "another seed", "text", "array of text"],
)
def test_what_is_not_a_row_of_the_cell_is_refused(row: object, message: str) -> None:
    with pytest.raises(InputError) as error:
        checked(Cell(ROW.arm, 3), row)
    assert message in str(error.value)
