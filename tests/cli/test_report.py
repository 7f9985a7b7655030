"""`evengrad report` and `evengrad compare`: what is kept is judged and shown again, without torch."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evengrad as eg
from evengrad import synthetic
from evengrad.judge import chosen_rules, recall, report_of
from evengrad.report import Report
from evengrad.store import RunFile
from evengrad.types import Event, Facts, Trace

Run = Callable[..., Any]  # fixtures `cli` and `shell`: arguments -> code, out, err
FACTS = Facts(mode="train", inputs={"shape": [64, 6], "mean": 9.0, "std": 9.0, "feature_mean_abs_max": 9.0, "feature_std_min": 0.1})
SKIPS = tuple(Event(step=i, kind="skip", message=f"norm {i} <script>") for i in range(5))


def trace(gain: float = 0.3, name: str = "stuck") -> Trace:
    columns = {"grad_norm": 1.0, "weight_norm": 1.0, "update_norm": 1e-3, "grad_out_abs_max": 1.0}
    made = synthetic.chain(20, steps=10, facts=FACTS, grad_out_norm=synthetic.geometric(20, gain), **columns)
    return replace(made, run=replace(made.run, name=name, verb="watch"), events=SKIPS)


def stored(folder: Path, gain: float = 0.3, name: str = "stuck") -> Path:
    made = trace(gain, name)
    with RunFile.create(folder, name) as file:
        file.write(run=made.run, layers=made.layers, facts=made.facts, events=made.events)
        file.write(frames={int(s): {k: v[i] for k, v in made.columns.items()} for i, s in enumerate(made.steps)})
        file.write(points={"loss": (range(100), np.linspace(2, 0.3, 100))})
    return file.path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a sick and a healthy run, and an empty folder to work in."""
    stored(tmp_path / "store")
    stored(tmp_path / "store", 1.0, "healthy")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("EVENGRAD_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


# ---------------------------------------------------------------- report


def test_a_stored_run_is_shown_by_its_name_or_path(cli: Run, store: Path) -> None:
    done = cli("report", "stuck")
    assert (done.code, done.err) == (0, "")
    assert "ERROR VAN001" in done.out
    assert "skip: 5 times, steps 0 to 4" in done.out
    assert cli("report", str(store / "stuck.evengrad")).out == done.out
    assert cli("report", "stuck", "--store", str(store)).out == done.out
    assert "VAN001  " not in cli("report", "healthy").out


def test_every_kind_of_file_gives_the_report_of_its_trace(cli: Run, store: Path) -> None:
    whole = report_of(trace(), chosen_rules())
    trace().save("saved.npz")
    Path("report.json").write_text(whole.to_json(), encoding="utf-8")
    for file in ("saved.npz", "report.json"):
        assert cli("report", file, "--json").out.strip() == whole.to_json()


def test_a_report_of_before_is_shown_as_it_is(cli: Run, store: Path) -> None:
    tried = replace(report_of(trace(), chosen_rules()), causes=("bad_hidden_activation",), verdict="nothing_wrong", trainability=0.25)
    Path("report.json").write_text(tried.to_json(), encoding="utf-8")
    back = Report.from_json(cli("report", "report.json", "--json").out)
    assert (back.causes, back.verdict, back.trainability) == (tried.causes, tried.verdict, tried.trainability)


@pytest.mark.parametrize("kind", ["stored", "saved.npz", "report.json"])
def test_select_and_ignore_choose_the_findings(cli: Run, store: Path, kind: str) -> None:
    trace().save("saved.npz")
    Path("report.json").write_text(report_of(trace(), chosen_rules()).to_json(), encoding="utf-8")
    run = "stuck" if kind == "stored" else kind

    def codes(*options: str) -> set[str]:
        return {f["code"] for f in json.loads(cli("report", run, "--json", *options).out)["findings"]}

    every = codes()
    assert {"VAN001", "INI001"} <= every
    assert codes("--select", "VAN") == {"VAN001"}
    assert codes("--ignore", "VAN") == every - {"VAN001"}


def test_the_page_is_written_and_text_goes_to_stdout(cli: Run, store: Path) -> None:
    done = cli("report", "stuck", "-o", "r.html")
    assert done.err.strip() == f"report: {Path('r.html').resolve()}"
    page = Path("r.html").read_text(encoding="utf-8")
    assert "VAN001" in page
    assert "norm 0 &lt;script&gt;" in page
    assert "VAN001" in done.out


@pytest.mark.parametrize(("kind", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_figures_are_drawn(cli: Run, store: Path, kind: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    done = cli("report", "stuck", f"--{kind}", f"figures.{kind}")
    assert done.err.strip() == f"figures: {Path(f'figures.{kind}').resolve()}"
    assert Path(f"figures.{kind}").read_bytes().startswith(begins)
    assert "VAN001" in done.out


def test_a_figure_of_another_kind_is_refused(cli: Run, store: Path) -> None:
    done = cli("report", "stuck", "--png", "figures.jpg")
    assert done.code == 2
    assert "does not end with .png" in done.err
    assert cli("report", "stuck", "--svg", "nowhere/figures.svg").code == 2


def test_json_reads_back_as_the_report(cli: Run, store: Path) -> None:
    report = Report.from_json(cli("report", "stuck", "--json").out)
    assert report.run.name == "stuck"
    assert report.trace is not None
    assert report.trace.events == SKIPS
    np.testing.assert_array_equal(report.trace.columns["grad_out_norm"], trace().columns["grad_out_norm"])


def test_a_damaged_run_is_shown_as_far_as_it_is_whole_when_that_is_asked_for(cli: Run, store: Path) -> None:
    database = sqlite3.connect(store / "stuck.evengrad")
    database.execute("UPDATE frames SET crc = crc + 1 WHERE step = 4")
    database.commit()
    database.close()
    done = cli("report", "stuck")
    assert done.code == 2
    assert "is damaged: 1 of 10 frames (step 4)" in done.err
    done = cli("report", "stuck", "--salvage")
    assert done.code == 0
    assert "the file of this run is damaged; left out: 1 of 10 frames (step 4)" in " ".join(done.out.split())


def test_a_run_that_has_only_begun_is_shown(cli: Run, store: Path) -> None:
    RunFile.create(store, "begun").close()
    with RunFile.create(store, "layers") as file:
        file.write(layers=trace().layers, facts=FACTS)
    for name in ("begun", "layers"):
        done = cli("report", name, "-o", "r.html")
        assert done.code == 0
        assert cli("report", name, "--json").code == 0


# ---------------------------------------------------------------- compare


def test_two_stored_runs_are_compared(cli: Run, store: Path) -> None:
    done = cli("compare", "stuck", "healthy")
    assert (done.code, done.err) == (0, "")
    lines = {" ".join(line.split()) for line in done.out.splitlines()}
    assert {"gone VAN001", "new none", "gradient a layer ×0.30 → ×1.00", "steps 100 → 100", "skip 5 → 5 times"} <= lines
    assert done.out.strip() == str(eg.compare("stuck", store / "healthy.evengrad"))
    RunFile.create(store.parent / "other", "begun").close()
    assert "gradient a layer ? → ?" in " ".join(cli("compare", "begun", "begun", "--store", str(store.parent / "other")).out.split())
    found = json.loads(cli("compare", "stuck", "healthy", "--json").out)
    assert found["gone"] == ["VAN001"]
    assert found["events"] == {"skip": [5, 5]}


def test_a_kind_of_event_cannot_colour_the_terminal(cli: Run, store: Path) -> None:
    with RunFile.create(store, "evil") as file:
        file.write(events=[Event(step=0, kind="\x1b[31m", message="")])
    shown = [cli("compare", "evil", "stuck"), cli("report", "evil")]
    assert all(done.code == 0 and "[31m" in done.out and "\x1b" not in done.out for done in shown)


def test_a_terminal_without_unicode_gets_ascii(shell: Run, store: Path) -> None:
    code = "import sys; sys.stdout.reconfigure(encoding='ascii')\nfrom evengrad.cli import main; main()"
    assert "gradient a layer  x0.30 > x1.00" in shell("compare", "stuck", "healthy", code=code).out


def test_a_run_is_compared_with_a_report(cli: Run, store: Path) -> None:
    Path("report.json").write_text(report_of(trace(1.0), chosen_rules()).to_json(), encoding="utf-8")
    assert "VAN001" in cli("compare", "report.json", "stuck").out.splitlines()[1]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ("stuk", "no run is called 'stuk'. Did you mean 'stuck'?"),
        ("text.txt", "Give a stored run, a trace saved as .npz, or a report's JSON"),
        ("bytes.bin", "Give a stored run, a trace saved as .npz, or a report's JSON"),
        ("cut.npz", "is cut short: it begins, but does not end, like a saved trace"),
        ("other.npz", "is not a trace saved by evengrad"),
        ("cut.json", "the report ends in the middle"),
        ("empty.evengrad", "is empty: expected a stored run"),
        ("text.evengrad", "is not a stored run: expected an SQLite file"),
        ("other.db", "is another program's database"),
    ],
)
def test_what_is_no_run_ends_with_two(cli: Run, store: Path, run: str, says: str) -> None:
    trace().save("whole.npz")
    Path("text.txt").write_text("step,loss\n", encoding="utf-8")
    Path("bytes.bin").write_bytes(bytes(range(256)))
    Path("cut.npz").write_bytes(Path("whole.npz").read_bytes()[:2000])
    np.savez("other.npz", a=np.ones(3))
    Path("cut.json").write_text(report_of(trace(), chosen_rules()).to_json()[:900], encoding="utf-8")
    Path("empty.evengrad").touch()
    Path("text.evengrad").write_text("no run " * 40, encoding="utf-8")
    Path("other.db").write_bytes((store / "stuck.evengrad").read_bytes()[:60] + bytes(100))
    for arguments in (("report", run), ("compare", "stuck", run)):
        done = cli(*arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: ")
        assert says in done.err


def test_a_name_of_several_runs_and_bad_places_end_with_two(cli: Run, store: Path) -> None:
    stored(store)
    done = cli("report", "stuck")
    assert done.code == 2
    assert "2 runs in" in done.err
    assert cli("report", "healthy", "-o", "nowhere/r.html").code == 2
    assert cli("report", "healthy", "--select", "XYZ").code == 2
    assert cli("report", "healthy", "--store", str(store / "none")).code == 2


def test_recall_finds_runs_in_the_folder_that_is_given(store: Path, tmp_path: Path) -> None:
    stored(tmp_path / "other", 1.0)
    assert {f.code for f in recall("stuck").findings} > {f.code for f in recall("stuck", directory=tmp_path / "other").findings}
