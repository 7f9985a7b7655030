"""Chunks are computed in processes of their own with the same result; a process that ends, however it ends, costs its chunk and no more."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import evengrad
import evengrad as eg
from evengrad.errors import EvengradError, ForwardError, InputError
from evengrad.lab import workers
from evengrad.lab.factors import build
from evengrad.lab.running import Plan, Progress, find

Computed = Callable[[], list[list[str]]]
Walk = Callable[..., Plan]


def test_workers_get_the_same_rows_on_one_thread_each(walk: Walk, computed: Computed, tmp_path: Path) -> None:
    here = walk().run()
    computed()
    told: list[Progress] = []
    apart = walk().run(workers=2, store=tmp_path / "s", progress=told.append)
    assert apart.rows == here.rows
    lines = computed()
    assert {line[2] for line in lines} == {"1"}
    assert str(os.getpid()) not in {line[3] for line in lines}
    assert [p.done for p in told] == [0, 1, 2, 3, 4, 5, 6]
    assert multiprocessing.active_children() == []


def test_cells_whose_time_is_measured_have_the_machine_to_themselves(
    walk: Walk, computed: Computed, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = walk()
    monkeypatch.setattr(plan.kind, "timed", ("distance",))
    plan.run(workers=2)
    assert {line[3] for line in computed()} == {str(os.getpid())}


def test_an_error_in_a_worker_names_its_cell_and_what_else_was_done_is_kept(walk: Walk, computed: Computed) -> None:
    with pytest.raises(ForwardError, match="raised ZeroDivisionError at stride 2, seed 1: the walker fell") as error:
        walk(fault="raise").run(workers=2)
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    assert multiprocessing.active_children() == []
    done = {tuple(line[:2]) for line in computed()}
    with pytest.raises(ForwardError):
        walk(fault="raise").run()
    again = {tuple(line[:2]) for line in computed()}
    assert ("2", "1") in done & again
    assert len(done & again) <= 2  # the one that failed, and perhaps the one that ran beside it


def test_a_worker_that_dies_names_its_cell(walk: Walk) -> None:
    with pytest.raises(EvengradError, match=r"the worker that computed stride 2, seed 1 of the study 'random-walk' died"):
        walk(fault="die").run(workers=2)
    assert multiprocessing.active_children() == []


def test_a_file_that_changed_under_way_is_noticed(own: Callable[..., Path]) -> None:
    study = build(find(str(own())), {})
    portable = workers._portable(study)
    assert workers._in_worker(portable, study.cells()[:1])[0][0].seed == 0
    own(("[-1, 1]", "[-1, 1, 1]"))
    with pytest.raises(InputError, match="was changed while it ran"):
        workers._in_worker(portable, study.cells()[:1])


# ---------------------------------------------------------------- a run in a process of its own, ended from outside


SCRIPT = """
import signal
import sys
import evengrad as eg

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a background job begin deaf to Ctrl-C
    tell = lambda p: print(p.note or p.done, flush=True)
    eg.study(sys.argv[1], fault="hang").run(workers=int(sys.argv[2]), progress=tell)
    print("finished", flush=True)
"""


@pytest.fixture
def hanging(own: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Starts a run, and returns it when it computes the cell that hangs."""
    started: list[subprocess.Popen[str]] = []
    file, script = own(), tmp_path / "script.py"
    script.write_text(SCRIPT)

    def start(count: int) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(Path(evengrad.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "error", str(script), str(file), str(count)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        started.append(process)
        wait_for(lambda: "2 1 " in _read(tmp_path / "computed"))
        wait_for(lambda: count == 1 or _read(tmp_path / "computed").count("\n") == 6)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with any workers that it left behind
        process.communicate()


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_loses_its_running_chunk_at_most(
    hanging: Callable[[int], subprocess.Popen[str]], own: Callable[..., Path], computed: Computed, tmp_path: Path, count: int
) -> None:
    process = hanging(count)
    wait_for(lambda: _rows_kept() >= (4 if count == 1 else 5))
    process.kill()
    process.wait()
    before = computed()
    for pid in {int(line[3]) for line in before} - {process.pid}:
        wait_for(lambda pid=pid: not _runs(pid))  # type: ignore[misc]  # workers end with their parent
    (tmp_path / "go").touch()
    plan = eg.study(str(own()), fault="hang")
    resumed = plan.run()
    assert {tuple(line[:2]) for line in computed()} == ({("2", "1"), ("2", "2")} if count == 1 else {("2", "1")})
    assert resumed.rows == plan.run(store=tmp_path / "other").rows


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_is_interrupted_ends_its_workers_and_says_how_to_go_on(
    hanging: Callable[[int], subprocess.Popen[str]], computed: Computed, count: int
) -> None:
    process = hanging(count)
    kept = 4 if count == 1 else 5
    wait_for(lambda: _rows_kept() >= kept)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=120)
    assert out.splitlines()[-1] == f"stopped: {kept} of 6 cells are there; run it again, and it goes on from them"
    assert err.count("Traceback") == 1  # the script's own KeyboardInterrupt, none of its workers'
    assert "KeyboardInterrupt" in err
    for pid in {int(line[3]) for line in computed()}:
        assert not _runs(pid)


@pytest.mark.slow
def test_workers_leave_the_answer_to_ctrl_c_to_the_run(
    hanging: Callable[[int], subprocess.Popen[str]], computed: Computed, tmp_path: Path
) -> None:
    process = hanging(2)
    for pid in {int(line[3]) for line in computed()}:
        os.kill(pid, signal.SIGINT)
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=120)
    assert (out.splitlines()[-1], err) == ("finished", "")


def wait_for(done: Callable[[], bool]) -> None:
    """Waits until something is so, for a minute at most."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _rows_kept() -> int:
    import sqlite3

    database = sqlite3.connect(Path(os.environ["EVENGRAD_STORE"]) / "studies.sqlite")
    try:
        return int(database.execute("SELECT count(*) FROM rows").fetchone()[0])
    finally:
        database.close()


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
