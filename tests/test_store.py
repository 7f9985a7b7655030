"""What a file acknowledged is read back to the bit, whatever happens to its writer; a file that is not well says so and stays as it is."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import evengrad
from evengrad import synthetic
from evengrad.errors import InputError, UnknownNameError
from evengrad.store import RunFile, StoreError, default_folder, find_run, list_runs, read_run, writer
from evengrad.store.thinning import give_back, thin
from evengrad.types import Curve, Event, Facts, Layer, Run, Trace

LAYERS = synthetic.chain(3).layers
RUN = Run(name="stuck", model="Sequential", parameters=7, samples=8, seconds=0.1, verb="watch")
SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38, 1 / 3])


def same(a: Any, b: Any) -> bool:
    """Equality to the bit: types, dtypes, shapes, NaN; of mappings without their order."""
    if type(a) is not type(b):
        return False
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


def frame(step: int, layers: int = 3) -> dict[str, Any]:
    """Columns that tell which step they belong to."""
    return {"grad_norm": np.full(layers, step, np.float32), "weight_norm": np.arange(layers, dtype=np.float32) + step}


def put(file: RunFile, step: int) -> None:
    file.write(frames={step: frame(step)}, points={"loss": ([step], [step / 3])}, events=[Event(step=step, kind="skip", message=f"{step}")])


def check_steps(trace: Trace, expected: range) -> None:
    """Every expected step is there, exact, with all that was written with it; at most one more is."""
    assert trace.steps.tolist() in ([*expected], [*expected, expected.stop])
    assert trace.curves["loss"].steps.tolist() == trace.steps.tolist()
    assert trace.curves["loss"].values.tolist() == [s / 3 for s in trace.steps.tolist()]
    assert [e.step for e in trace.events] == trace.steps.tolist()
    for name in ("grad_norm", "weight_norm"):
        np.testing.assert_array_equal(trace.columns[name], np.stack([frame(int(s))[name] for s in trace.steps]))


# ---------------------------------------------------------------- round trip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda x: (
        st.lists(x, max_size=3) | st.lists(x, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=3) | st.integers(), x, max_size=3)
    ),
    max_leaves=6,
)
FACTS = st.none() | st.dictionaries(st.sampled_from(["lr", "shape", "$tuple", "counts"]), JSON, max_size=3)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    depth, width = draw(st.integers(0, 4)), draw(st.integers(1, 3))
    steps = np.array(sorted(draw(st.sets(st.integers(0, 2**62), max_size=6))), np.int64)

    def values(*shape: int) -> Any:
        drawn = rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape)
        return np.where(rng.random(shape) < 0.3, rng.choice(SPECIAL, shape), drawn)

    names = st.lists(st.text(min_size=1, max_size=5), max_size=3, unique=True)
    seen = len(steps) > 0
    lengths = {name: draw(st.integers(0, 5)) for name in draw(names)}
    messages = draw(st.lists(st.text(max_size=9), max_size=3))
    return Trace(
        run=replace(RUN, name=draw(st.text(max_size=9)), seconds=draw(st.floats())),
        layers=tuple(replace(x, name=draw(st.text(max_size=5)), activation_options={"slope": 0.1}) for x in synthetic.chain(depth).layers),
        facts=Facts(inputs=draw(FACTS), loss=draw(FACTS), edges=draw(st.sampled_from([None, (), ((0, 1), (1, 2))]))),
        steps=steps,
        columns={n: values(len(steps), depth).astype(np.float32) for n in draw(names) if seen},
        curves={n: Curve(rng.integers(-5, 2**62, k), values(k).astype(np.float64)) for n, k in lengths.items()},
        planes={n: values(len(steps), depth, width).astype(np.float32) for n in draw(names) if seen},
        events=tuple(Event(step=i, kind="skip", message=text) for i, text in enumerate(messages)),
    )


def write_in_pieces(file: RunFile, trace: Trace, pieces: int) -> None:
    file.write(run=replace(trace.run, name="an earlier one"))
    file.write(run=trace.run, layers=trace.layers, facts=trace.facts)
    for part in np.array_split(np.arange(len(trace.steps)), pieces):
        file.write(frames={int(trace.steps[i]): {k: v[i] for k, v in trace.columns.items()} for i in part})
        file.write(planes={int(trace.steps[i]): {k: v[i] for k, v in trace.planes.items()} for i in part})
    for name, curve in trace.curves.items():
        for part in np.array_split(np.arange(len(curve.steps)), pieces):
            file.write(points={name: (curve.steps[part].tolist(), curve.values[part].tolist())})
    for event in trace.events:
        file.write(events=[event])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trace=traces(), pieces=st.integers(1, 3))
def test_a_trace_comes_back_to_the_bit_however_it_was_written(trace: Trace, pieces: int) -> None:
    with tempfile.TemporaryDirectory() as folder, RunFile.create(Path(folder), "x") as file:
        write_in_pieces(file, trace, pieces)
        assert same(read_run(file.path), trace)
        file.close()
        assert same(read_run(str(file.path)), trace)


def test_a_curve_that_is_written_often_is_few_rows_and_comes_back_whole(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=1000)
    with RunFile.create(tmp_path, "x") as file:
        for step, value in enumerate(values):
            file.write(points={"loss": ([step], [value])})
        with pytest.raises(InputError, match="shape"):  # what is refused leaves the piece as it was
            file.write(points={"loss": ([1000], [0.0]), "lr": ([1], [1.0, 2.0])})
        file.write(points={"loss": ([1000], [7.0])})
    database = sqlite3.connect(file.path)
    (rows,) = database.execute("SELECT count(*) FROM points").fetchone()
    database.close()
    assert rows == 4
    found = read_run(file.path).curves["loss"]
    np.testing.assert_array_equal(found.steps, np.arange(1001))
    np.testing.assert_array_equal(found.values, [*values, 7.0])


def test_a_later_frame_adds_columns_to_its_step_and_replaces_those_of_the_same_name(tmp_path: Path) -> None:
    with RunFile.create(tmp_path, "x") as file:
        file.write(layers=LAYERS, frames={5: {"a": np.ones(3), "b": np.ones(3)}})
        file.write(frames={5: {"b": np.full(3, 2.0), "c": np.ones(3)}, 2: {"a": np.zeros(3)}}, planes={9: {"h": np.ones((3, 4))}})
        trace = read_run(file.path)
    assert trace.steps.tolist() == [2, 5, 9]
    nan = np.full(3, np.nan)
    np.testing.assert_array_equal(trace.columns["a"], [np.zeros(3), np.ones(3), nan])
    np.testing.assert_array_equal(trace.columns["b"], [nan, np.full(3, 2.0), nan])
    np.testing.assert_array_equal(trace.columns["c"], [nan, np.ones(3), nan])
    np.testing.assert_array_equal(trace.planes["h"], [np.full((3, 4), np.nan)] * 2 + [np.ones((3, 4))])


def test_a_run_that_has_only_begun_has_its_name(tmp_path: Path) -> None:
    with RunFile.create(tmp_path, "my run/1") as file:
        trace = read_run(file.path)
    assert (trace.run.name, trace.layers, len(trace.steps)) == ("my run/1", (), 0)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"frames": {4: {"a": np.ones(2)}}}, "'a' of step 4 has shape (2,); expected (3,), a row a layer"),
        ({"frames": {4: {"a": np.ones((3, 2))}}}, "has shape (3, 2); expected (3,)"),
        ({"planes": {4: {"h": np.ones(3)}}}, "has shape (3,); expected (3, 3)"),
        ({"planes": {4: {"h": np.ones((3, 2))}, 5: {"h": np.ones((3, 4))}}}, "'h' of step 4 has shape (3, 2); expected (3, 4)"),
        ({"points": {"loss": ([1, 2], [0.5])}}, "curve 'loss' has steps of shape (2,) and values of shape (1,)"),
        ({"layers": LAYERS[:2]}, "the run has 3 layers; got 2"),
        ({"facts": Facts(loss={"name": {1, 2}})}, "got something else"),
    ],
    ids=["too few", "a plane", "a column", "two widths", "curve", "layers", "facts"],
)
def test_what_does_not_fit_is_refused_and_nothing_of_it_written(tmp_path: Path, what: Any, message: str) -> None:
    with RunFile.create(tmp_path, "x") as file:
        file.write(layers=LAYERS)
        put(file, 0)
        begun = {"events": [Event(step=9, kind="skip", message="")], "frames": {9: {"new": np.ones(3)}}, "points": {"new": ([9], [9.0])}}
        with pytest.raises(InputError) as error:
            file.write(**(begun | what))
        assert message in str(error.value)
        put(file, 1)
        check_steps(read_run(file.path), range(2))
        file.write(frames={2: {"new": np.ones(3)}}, points={"new": ([2], [3.0])})
        trace = read_run(file.path)
    assert trace.columns["new"][:, 0].tolist()[2:] == [1.0]
    assert trace.curves["new"].steps.tolist() == [2]


def test_a_plane_keeps_its_width_over_the_run(tmp_path: Path) -> None:
    with RunFile.create(tmp_path, "x") as file:
        file.write(layers=LAYERS, planes={4: {"h": np.ones((3, 2))}})
        with pytest.raises(InputError, match=r"'h' of step 5 has shape \(3, 4\); expected \(3, 2\)"):
            file.write(planes={5: {"h": np.ones((3, 4))}})
        assert read_run(file.path).planes["h"].shape == (1, 3, 2)


def test_columns_before_the_layers_are_refused(tmp_path: Path) -> None:
    with RunFile.create(tmp_path, "x") as file, pytest.raises(InputError, match="give layers= with the first columns, or before"):
        file.write(frames={0: frame(0)})


# ---------------------------------------------------------------- names and folders


def test_a_taken_name_gets_a_number_and_nothing_is_written_over(tmp_path: Path) -> None:
    for number in range(3):
        with RunFile.create(tmp_path / "new" / "folder", "stuck") as file:
            file.write(run=replace(RUN, seed=number))
    names = ("stuck", "stuck-2", "stuck-3")
    assert [read_run(tmp_path / "new" / "folder" / f"{name}.evengrad").run.seed for name in names] == [0, 1, 2]
    before = file.path.read_bytes()
    with pytest.raises(StoreError, match="a file is there already"):
        RunFile(file.path)
    assert file.path.read_bytes() == before


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "...", "ü" * 300, "a\0b", "x:y*?", ".hidden", "café au lait"])
def test_any_name_gives_a_file_in_the_folder_and_is_found_again(tmp_path: Path, name: str) -> None:
    with RunFile.create(tmp_path / "in", name) as file:
        assert file.path.parent == tmp_path / "in"
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert [p for p in (tmp_path / "in").iterdir() if not p.name.startswith(".")] == [file.path]
    assert list_runs(tmp_path / "in")[0].name == name
    if name:
        assert find_run(name, tmp_path / "in") == file.path


def test_runs_are_listed_newest_first_also_those_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_runs(tmp_path / "nowhere") == []
    for created, name in ((3e9, "b"), (2e9, "a"), (4e9, "a")):
        monkeypatch.setattr(time, "time", lambda created=created: created)
        RunFile.create(tmp_path, name).close()
    (tmp_path / "broken.evengrad").write_bytes(b"SQLite format 3\0 and then no more")
    os.utime(tmp_path / "broken.evengrad", (2.5e9, 2.5e9))
    (tmp_path / "studies.sqlite").touch()
    found = [(run.path.stem, run.name, run.created) for run in list_runs(tmp_path)]
    assert found == [("a-2", "a", 4e9), ("b", "b", 3e9), ("broken", "broken", 2.5e9), ("a", "a", 2e9)]


def test_a_run_is_found_by_path_file_or_name(tmp_path: Path) -> None:
    for name in ("one.py:experiment", "two"):
        RunFile.create(tmp_path, name).close()
    for asked in ("two", "two.evengrad", str(tmp_path / "two.evengrad")):
        assert find_run(asked, tmp_path) == tmp_path / "two.evengrad"
    for asked in ("one.py:experiment", "one.py_experiment"):
        assert find_run(asked, tmp_path).name == "one.py_experiment.evengrad"


def test_a_name_that_several_runs_bear_is_said_to_be_ambiguous(tmp_path: Path) -> None:
    for _ in range(2):
        RunFile.create(tmp_path, "stuck").close()
    with pytest.raises(
        InputError, match=r"2 runs in .* are called 'stuck', newest first: stuck-2\.evengrad .*, stuck\.evengrad .* Give one"
    ):
        find_run("stuck", tmp_path)
    assert find_run("stuck-2", tmp_path).name == "stuck-2.evengrad"
    assert find_run("stuck.evengrad", tmp_path).name == "stuck.evengrad"


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="there is no run in"):
        find_run("stuck", tmp_path)
    RunFile.create(tmp_path, "stuck").close()
    for number in range(15):  # the nearest is named, however old
        RunFile.create(tmp_path, f"other{number:02}").close()
    with pytest.raises(UnknownNameError, match=r"no run is called 'stuk'\. Did you mean 'stuck'\?"):
        find_run("stuk", tmp_path)
    with pytest.raises(UnknownNameError):
        find_run("x" * 5000, tmp_path)


def test_the_folder_is_the_environments_else_with_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVENGRAD_STORE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("EVENGRAD_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_folder() == tmp_path / "data" / "evengrad"


# ---------------------------------------------------------------- processes that die, readers that look on

LOOP = """
import itertools, sys, time
from pathlib import Path
import numpy as np
from evengrad import synthetic
from evengrad.store import RunFile
from evengrad.types import Event
file = RunFile.create(Path(sys.argv[1]), "x", max_bytes=int(sys.argv[2]))
file.write(layers=synthetic.chain(3).layers)
for step in itertools.count():
    columns = {"grad_norm": np.full(3, step), "weight_norm": np.arange(3) + step}
    file.write(frames={step: columns}, points={"loss": ([step], [step / 3])}, events=[Event(step=step, kind="skip", message=f"{step}")])
    print(step, flush=True)
    time.sleep(float(sys.argv[3]))
"""
NO_LOG = """
import sqlite3
connect = sqlite3.connect
class Refusing(sqlite3.Connection):
    def execute(self, sql, *values):
        if "WAL" in sql:
            raise sqlite3.OperationalError("locking protocol")
        return super().execute(sql, *values)
sqlite3.connect = lambda *a, **k: connect(*a, factory=Refusing, **k)
"""


def start(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PYTHONPATH": str(Path(evengrad.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def killed(folder: Path, after: int, delay: float = 0.0, *, code: str = LOOP, max_bytes: int = 2**30) -> int:
    """Runs the loop until `after` lines have come, waits, kills it with signal 9, and returns the number of acknowledged steps."""
    process = start(code, str(folder), str(max_bytes), "0")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after)]
    time.sleep(delay)
    process.kill()
    rest = process.stdout.read()  # what was printed and not yet read is acknowledged, too
    _, err = process.communicate(timeout=60)
    assert "Error" not in err, err
    return len(lines) + rest.count("\n")


@pytest.mark.parametrize("after", [1, 2, 5, 19, 60, 200, 500, 900])
def test_every_acknowledged_row_survives_a_kill(tmp_path: Path, after: int) -> None:
    acknowledged = killed(tmp_path, after, delay=after % 7 * 1e-3)
    assert acknowledged >= after
    path = tmp_path / "x.evengrad"
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if not p.name.endswith("-shm")}  # a lock file, without content of its own
    assert len(before) == 2  # the file and its log
    check_steps(read_run(path), range(acknowledged))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if not p.name.endswith("-shm")} == before


@pytest.mark.parametrize("after", [3, 40])
def test_a_kill_leaves_a_valid_file_without_a_write_ahead_log_too(tmp_path: Path, after: int) -> None:
    acknowledged = killed(tmp_path, after, code=NO_LOG + LOOP)
    assert not (tmp_path / "x.evengrad-wal").exists()
    check_steps(read_run(tmp_path / "x.evengrad"), range(acknowledged))


@pytest.mark.parametrize("after", [1000, 1501, 2203])
def test_a_kill_while_the_file_is_thinned_leaves_its_ends(tmp_path: Path, after: int) -> None:
    acknowledged = killed(tmp_path, after, delay=after % 5 * 1e-3, max_bytes=100_000)
    trace = read_run(tmp_path / "x.evengrad")
    steps = trace.steps.tolist()
    assert steps[:20] == [*range(20)]
    assert steps[-1] in (acknowledged - 1, acknowledged)
    assert steps[-20:] == [*range(steps[-1] - 19, steps[-1] + 1)]
    assert len(steps) < acknowledged
    np.testing.assert_array_equal(trace.columns["grad_norm"][:, 0], trace.steps)


@pytest.mark.parametrize(("code", "pause"), [(LOOP, 0), (NO_LOG + LOOP, 0.02)], ids=["log", "no log"])
def test_a_run_is_read_while_it_is_written(tmp_path: Path, code: str, pause: float) -> None:
    process = start(code, str(tmp_path), str(2**30), str(pause))  # without a log readers and the writer take turns
    try:
        assert process.stdout is not None
        process.stdout.readline()
        seen = [0]
        while len(seen) < 15 or seen[-1] < seen[1] + 10:
            assert process.poll() is None, process.communicate()[1]
            trace = read_run(tmp_path / "x.evengrad")
            check_steps(trace, range(len(trace.steps)))  # one moment: nothing half written
            seen.append(len(trace.steps))
        assert seen == sorted(seen)
        assert [run.name for run in list_runs(tmp_path)] == ["x"]
    finally:
        process.kill()
        process.communicate()


def test_closing_leaves_one_file_also_where_a_reader_looks_on(tmp_path: Path) -> None:
    file = RunFile.create(tmp_path, "x")
    file.write(layers=LAYERS)
    put(file, 0)
    reader = sqlite3.connect(file.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM frames").fetchone()
    file.close()
    reader.close()
    check_steps(read_run(file.path), range(1))
    with RunFile.create(tmp_path / "other", "y") as other:
        other.write(layers=LAYERS)
        put(other, 0)
    other.close()
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["y.evengrad"]


def test_a_fork_that_ends_leaves_the_run_to_its_parent(tmp_path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from evengrad import synthetic
        from evengrad.store import RunFile, StoreError, read_run
        file = RunFile.create(Path(sys.argv[1]), "x")
        file.write(layers=synthetic.chain(3).layers, points={"loss": ([0], [0.0])})
        if not os.fork():
            try:
                file.write(points={"loss": ([7], [7.0])})
            except StoreError as error:
                print(error, flush=True)
            file.close()
            os._exit(0)
        os.wait()
        file.write(points={"loss": ([1], [1.0])})
        file.close()
        print(read_run(file.path).curves["loss"].steps.tolist())
    """
    said, steps = finished(start(code, str(tmp_path))).splitlines()
    assert "another process opened it" in said
    assert steps == "[0, 1]"


# ---------------------------------------------------------------- places that cannot be written, or only read


@pytest.mark.parametrize(
    "folder", [Path("/proc/nowhere"), Path(__file__), Path(__file__) / "below"], ids=["system", "file", "below a file"]
)
def test_a_folder_that_cannot_be_written_is_said(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be written to .* Give another folder"):
        RunFile.create(folder, "x")


@pytest.mark.parametrize("way", ["deleted", "replaced"])
def test_a_file_that_is_gone_is_said_at_the_next_write(tmp_path: Path, way: str) -> None:
    with RunFile.create(tmp_path, "x") as file:
        file.write(layers=LAYERS)
        put(file, 0)
        file.path.rename(tmp_path / "moved")
        if way == "replaced":
            file.path.touch()
        with pytest.raises(StoreError, match=r"No such file|another file has taken its place"):
            put(file, 1)


def test_a_closed_file_is_not_written(tmp_path: Path) -> None:
    file = RunFile.create(tmp_path, "x")
    file.close()
    with pytest.raises(StoreError, match="closed"):
        put(file, 0)


def test_a_lock_of_another_program_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_PATIENCE", 0.05)
    with RunFile.create(tmp_path, "x") as file:
        file.write(layers=LAYERS)
        put(file, 0)
        other = sqlite3.connect(file.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            put(file, 1)
        other.close()
        put(file, 1)
        check_steps(read_run(file.path), range(2))


@pytest.mark.parametrize("prelude", ["", NO_LOG], ids=["log", "no log"])
def test_a_full_disk_is_said_and_what_was_acknowledged_is_kept(tmp_path: Path, prelude: str) -> None:
    code = """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from evengrad import synthetic
        from evengrad.store import RunFile, StoreError, read_run
        folder, layers, done = Path(sys.argv[1]), synthetic.chain(1000).layers, []
        file = RunFile.create(folder, "x")
        file.write(layers=layers)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, resource.RLIM_INFINITY))
        try:
            for step in range(10**6):
                file.write(frames={step: {"grad_norm": np.full(1000, step)}})
                done.append(step)
        except StoreError as error:
            print(error)
        print(read_run(file.path).columns["grad_norm"][:, 500].tolist() == done, len(done) > 20)
        try:
            file.write(frames={step: {"grad_norm": np.full(1000, step)}} | {-s: {"x": np.zeros(1000)} for s in range(1, 1000)})
        except StoreError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        try:
            RunFile.create(folder, "y")
        except StoreError as error:
            print(error, not list(folder.glob("y*")))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        file.write(frames={step: {"grad_norm": np.full(1000, step)}})
        file.close()
        print(read_run(file.path).columns["grad_norm"][:, 500].tolist() == [*done, step])
    """
    first, intact, second, third, after = finished(start(prelude + textwrap.dedent(code), str(tmp_path))).splitlines()
    assert third.endswith("True")  # what was begun is gone
    for said in (first, second, third):
        assert "cannot be written to" in said
        assert "what was written before is kept" in said
    assert (intact, after) == ("True True", "True")


@pytest.fixture
def locked_folder() -> Iterator[Callable[[Path], Path]]:
    """Copies a folder to where it may be read by anyone and written by no one."""
    with tempfile.TemporaryDirectory() as made:
        top = Path(made)
        top.chmod(0o755)

        def copied(source: Path) -> Path:
            target = shutil.copytree(source, top / "locked")
            for path in target.iterdir():
                path.chmod(0o444)
            target.chmod(0o555)
            return Path(target)

        yield copied
        (top / "locked").chmod(0o755)


@pytest.mark.parametrize("state", ["closed", "not closed", "killed", "killed, then copied", "killed without a log"])
def test_a_run_is_read_where_nothing_can_be_written(tmp_path: Path, locked_folder: Callable[[Path], Path], state: str) -> None:
    source = tmp_path / "source"
    if state.startswith("killed"):
        steps = killed(source, 50, code=NO_LOG + LOOP if state.endswith("without a log") else LOOP)
        if state.endswith("copied"):
            (source / "x.evengrad-shm").unlink()
    else:
        file, steps = RunFile.create(source, "x"), 5
        file.write(layers=LAYERS)
        for step in range(5):
            put(file, step)
        file.close() if state == "closed" else file._database.close()
    folder = locked_folder(source)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    code = """
        import os, sys
        from evengrad.store import RunFile, StoreError, read_run
        from pathlib import Path
        if not os.getuid():
            os.setgroups([]), os.setgid(65534), os.setuid(65534)  # root may write anywhere
        try:
            RunFile.create(Path(sys.argv[1]), "new")
        except StoreError as error:
            print("Permission denied" in str(error))
        print(read_run(f"{sys.argv[1]}/x.evengrad").steps.tolist())
    """
    refused, found = finished(start(code, str(folder), cwd="/")).splitlines()
    assert refused == "True"
    assert found in (str([*range(steps)]), str([*range(steps + 1)]))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


# ---------------------------------------------------------------- size


def test_a_large_run_is_thinned_to_its_bound_and_keeps_its_ends(tmp_path: Path) -> None:
    bound, count = 100_000, 4000
    with RunFile.create(tmp_path, "x", max_bytes=bound) as file:
        file.write(layers=LAYERS, points={"val_loss": (range(500), range(500))})
        file.write(points={"val_loss": (range(500, 900), range(500, 900))})
        sizes = []
        for step in range(count):
            file.write(frames={step: frame(step)}, points={"loss": ([2 * step, 2 * step + 1], [step / 3, -step])})
            sizes.append((file.size, file.path.stat().st_size))
        trace = read_run(file.path)
    assert max(max(pair) for pair in sizes) <= bound
    assert file.path.stat().st_size <= bound
    assert len([1 for (a, _), (b, _) in pairwise(sizes) if b < a]) > 1  # space was given back, more than once
    steps = trace.steps.tolist()
    assert steps[:20] == [*range(20)]
    assert steps[-20:] == [*range(count - 20, count)]
    assert 40 < len(steps) < count
    np.testing.assert_array_equal(trace.columns["weight_norm"], np.stack([frame(s)["weight_norm"] for s in steps]))
    curve = trace.curves["loss"]
    assert curve.steps[:20].tolist() == [*range(20)]
    assert curve.steps[-20:].tolist() == [*range(2 * count - 20, 2 * count)]
    assert (np.diff(curve.steps) > 0).all()
    assert trace.curves["val_loss"].values.tolist() == [*range(900)]  # not long
    np.testing.assert_array_equal(curve.values, np.where(curve.steps % 2, -(curve.steps // 2), curve.steps // 2 / 3))


def test_what_may_not_be_thinned_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth, passes = 300, []
    monkeypatch.setattr(writer, "thin", lambda database: passes.append(0) or thin(database))
    with RunFile.create(tmp_path, "x", max_bytes=100_000) as file:
        file.write(run=RUN, layers=synthetic.chain(depth).layers)
        assert file.size > 100_000
        for step in range(100):
            file.write(frames={step: {"grad_norm": np.full(depth, step)}}, events=[Event(step=step, kind="skip", message="m" * 50)])
        trace = read_run(file.path)
    assert {*range(20), *range(80, 100)} <= set(trace.steps.tolist())
    assert len(trace.steps) < 100
    assert len(trace.events) == 100
    assert 0 < len(passes) < 50  # not at every write


def test_space_is_given_back_in_a_few_strides(tmp_path: Path) -> None:
    with RunFile.create(tmp_path, "x") as file:
        file.write(layers=LAYERS, planes={step: {"h": np.ones((3, 2000))} for step in range(500)})
        file._database.execute("DELETE FROM frames")
        statements: list[str] = []
        file._database.set_trace_callback(statements.append)
        give_back(file._database)
        assert 0 < sum("incremental_vacuum" in x for x in statements) < 5  # each waits for the disk
        assert file._database.execute("PRAGMA freelist_count").fetchone() == (0,)


def test_a_damaged_curve_is_not_thinned_away(tmp_path: Path) -> None:
    with RunFile.create(tmp_path, "x", max_bytes=60_000) as file:
        file.write(layers=LAYERS, points={"old": (range(2000), range(2000))})
        spoil(file.path, "UPDATE points SET crc = crc + 1")
        for step in range(600):
            put(file, step)
        with pytest.raises(InputError, match=r"pieces of curves \(old\)"):
            read_run(file.path)


# ---------------------------------------------------------------- files that are not well


def spoil(path: Path, *statements: str) -> None:
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of 30 steps."""
    with RunFile.create(tmp_path, "x") as file:
        file.write(run=RUN, layers=LAYERS, facts=Facts(mode="train"))
        for step in range(30):
            put(file, step)
    return file.path


BIT = "CAST(substr(data, 1, 2) || x'55' || substr(data, 4) AS BLOB)"


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (f"UPDATE frames SET data = {BIT} WHERE id IN (4, 8)", "2 of 30 frames (step 3, step 7)"),
        ("UPDATE frames SET data = x'ff' || 'text that is none' WHERE id = 4", "1 of 30 frames (step 3)"),
        ("UPDATE frames SET step = 99 WHERE id = 4", "1 of 30 frames (step 99)"),
        ("UPDATE frames SET data = substr(data, 1, 8)", "30 of 30 frames (step 0, step 1, step 2, step 3, step 4 and 25 more)"),
        ("UPDATE frames SET data = NULL WHERE 0", ""),
        (f"UPDATE points SET data = {BIT} WHERE id = 1", "1 of 1 pieces of curves (loss)"),
        (f"UPDATE events SET data = {BIT} WHERE id = 9", "1 of 30 events (number 9)"),
        (f"UPDATE layouts SET data = {BIT} WHERE id = 1", "1 of 2 layouts (number 1) and 30 of 30 frames"),
        ("UPDATE about SET crc = 5 WHERE key = 'facts'", "1 of 5 headers (facts)"),
        ("UPDATE about SET data = 'text' WHERE key = 'run'", "1 of 5 headers (run)"),
    ],
)
def test_damage_is_named_and_counted_and_salvage_leaves_it_out(run: Path, statement: str, says: str) -> None:
    whole = read_run(run)
    spoil(run, statement)
    before = run.read_bytes()
    if not says:
        assert same(read_run(run), whole)
        return
    with pytest.raises(InputError) as error:
        read_run(run)
    assert f"is damaged: {says}" in str(error.value)
    assert "--salvage" in str(error.value)
    trace = read_run(run, salvage=True)
    assert trace.events[-1].kind == "fault"
    assert says in trace.events[-1].message
    known = dict(zip(whole.steps.tolist(), whole.columns["grad_norm"], strict=True))
    for step, values in zip(trace.steps.tolist(), trace.columns.get("grad_norm", ()), strict=False):
        np.testing.assert_array_equal(values, known[step])
    assert run.read_bytes() == before


def test_no_flipped_byte_or_cut_changes_what_is_read(run: Path, tmp_path: Path) -> None:
    whole, data = read_run(run), run.read_bytes()
    draw, copy = np.random.default_rng(0), tmp_path / "copy.evengrad"
    known = dict(zip(whole.steps.tolist(), whole.columns["grad_norm"].tolist(), strict=True))
    refused = 0
    for trial in range(400):
        spoilt = bytearray(data)
        if trial % 4 == 0:
            del spoilt[int(draw.integers(0, len(data))) :]
        else:
            spoilt[int(draw.integers(0, len(data) if trial % 2 else 400))] ^= int(draw.integers(1, 256))
        copy.write_bytes(spoilt)
        try:
            assert same(read_run(copy), whole), trial
        except InputError:
            refused += 1
        try:
            trace = read_run(copy, salvage=True)
        except InputError:
            trace = replace(whole, steps=whole.steps[:0], columns={})
        for step, values in zip(trace.steps.tolist(), trace.columns.get("grad_norm", ()), strict=False):
            assert values.tolist() == known[step], trial
        assert copy.read_bytes() == spoilt
    assert refused > 150
    assert {p.name for p in tmp_path.iterdir()} == {"x.evengrad", "copy.evengrad"}


def test_salvage_reaches_what_lies_behind_a_damaged_page(tmp_path: Path) -> None:
    with RunFile.create(tmp_path, "x") as file:
        file.write(run=RUN, layers=LAYERS)
        for step in range(400):
            put(file, step)
    data = bytearray(file.path.read_bytes())
    pages = [at for at in range(4096, len(data), 4096) if data[at] == 13 and b"loss" not in data[at : at + 4096]]  # 13: rows of a table
    middle = pages[len(pages) // 2]
    data[middle : middle + 4096] = b"\x99" * 4096
    file.path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_run(file.path)
    trace = read_run(file.path, salvage=True)
    assert "a part that cannot be reached" in trace.events[-1].message
    assert len(trace.steps) + len(trace.curves["loss"].steps) + len(trace.events) > 800
    assert trace.steps[-1] == 399


def other_program(path: Path) -> None:
    path.unlink()
    spoil(path, "CREATE TABLE recipes (cake TEXT)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_program, "is another program's database: expected a stored run"),
        (lambda path: spoil(path, "PRAGMA user_version = 99"), "has schema 99; this evengrad reads up to 1: install a newer one"),
        (lambda path: path.write_bytes(b""), "is empty: expected a stored run"),
        (lambda path: path.write_bytes(b"step,loss\n" * 100), "is not a stored run: expected an SQLite file, got b'step,loss"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "is not a stored run"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "is damaged, or cut short"),
        (
            lambda path: spoil(path, "CREATE TRIGGER t AFTER INSERT ON frames BEGIN DELETE FROM frames; END"),
            "does not have the tables of a run",
        ),
        (
            lambda path: spoil(path, "DROP TABLE events", "CREATE VIEW events AS SELECT 1 AS id, 2 AS crc, 3 AS data"),
            "does not have the tables",
        ),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read: Is a directory"),
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
    ],
    ids=["foreign", "newer", "empty", "text", "header cut", "cut", "trigger", "view", "folder", "missing"],
)
def test_a_file_that_is_no_run_is_refused_and_left_as_it_is(run: Path, change: Callable[[Path], object], message: str) -> None:
    change(run)
    before = [(p.name, p.read_bytes() if p.is_file() else None) for p in run.parent.iterdir()]
    for salvage in (False, True):
        with pytest.raises(InputError) as error:
            read_run(run, salvage=salvage)
        assert message in str(error.value)
    assert [(p.name, p.read_bytes() if p.is_file() else None) for p in run.parent.iterdir()] == before


def test_fields_that_this_version_does_not_know_are_left_out(run: Path) -> None:
    whole = read_run(run)
    later = writer.packed(
        {"name": "stuck", "model": "Sequential", "parameters": 7, "samples": 8, "seconds": 0.1, "verb": "watch", "new": 1}
    )
    database = sqlite3.connect(run)
    database.execute("UPDATE about SET crc = ?, data = ? WHERE key = 'run'", writer.checked(later, "run"))
    database.commit()
    database.close()
    assert same(read_run(run), whole)


def test_a_run_that_fits_its_checksums_but_makes_no_sense_is_refused(run: Path) -> None:
    database = sqlite3.connect(run)
    database.execute("UPDATE about SET crc = ?, data = ? WHERE key = 'layers'", writer.checked(writer.packed([{"name": 5}]), "layers"))
    database.commit()
    database.close()
    with pytest.raises(InputError, match="does not hold a run"):
        read_run(run)


def test_the_store_needs_no_torch() -> None:
    assert finished(start("import sys, evengrad.store; print('torch' in sys.modules)")).strip() == "False"


def test_numbers_are_numbers_that_json_keeps(tmp_path: Path) -> None:
    facts = Facts(loss={"value": np.float64(0.1), "nan": math.nan}, optimizer={"lr": np.float32(0.5), "counts": {0: (1, -math.inf)}})
    with RunFile.create(tmp_path, "x") as file:
        file.write(
            facts=facts, layers=[Layer(name="a", kind="linear", depth=1, group=0, trunk=0, fan_in=1, fan_out=1, parameters=1, weight="w")]
        )
        back = read_run(file.path).facts
    assert same(back, Facts(loss={"value": 0.1, "nan": math.nan}, optimizer={"lr": 0.5, "counts": {0: (1, -math.inf)}}))
