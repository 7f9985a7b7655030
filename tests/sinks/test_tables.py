"""CSV and Parquet hold what was seen, in columns that pandas users expect; what was flushed survives a kill."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from evengrad import synthetic
from evengrad.errors import InputError
from evengrad.sinks import CSV, Parquet, Sink  # type: ignore[attr-defined]
from evengrad.types import Event, Floats

TRACE = synthetic.chain(3)
TINY = np.float32(1.4e-45)


def column(*values: float) -> Floats:
    return np.array(values, np.float32)


def feed(sink: Sink) -> None:
    sink.open(TRACE.run, TRACE.layers)
    sink.write(0, {"grad_abs_mean": column(0.1, TINY, np.nan)}, {"loss": 2.5})
    sink.write(1, {}, {"loss": float("nan")})
    sink.write(2, {"grad_abs_mean": column(0, np.inf, 1 / 3), "dead_fraction": column(0.5, 0, 1)}, {"val_loss": 1 / 3, "loss": 1})
    sink.event(Event(step=2, kind="clip", message="cut, to 1"))
    sink.write(5, {"dead_fraction": column(0, 0, 0)}, {})
    sink.close(TRACE)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_line_a_layer_and_step(tmp_path: Path) -> None:
    feed(CSV(tmp_path))
    assert (tmp_path / "layers.csv").read_text() == (
        "step,layer,grad_abs_mean,dead_fraction\n"
        "0,0,0.1,\n0,2,1e-45,\n0,4,,\n"  # NaN was not seen
        "2,0,0.0,0.5\n2,2,inf,0.0\n2,4,0.33333334,1.0\n"
        "5,0,,0.0\n5,2,,0.0\n5,4,,0.0\n"
    )
    assert (tmp_path / "curves.csv").read_text() == "step,loss,val_loss\n0,2.5,\n1,nan,\n2,1.0,0.3333333333333333\n"
    assert rows(tmp_path / "events.csv") == [{"step": "2", "kind": "clip", "message": "cut, to 1"}]
    assert sorted(x.name for x in tmp_path.iterdir()) == ["curves.csv", "events.csv", "layers.csv"]


def test_csv_values_read_back_exactly(tmp_path: Path) -> None:
    values = (10 ** np.random.default_rng(0).uniform(-45, 38, 1000)).astype(np.float32)
    trace = synthetic.chain(1000)
    sink = CSV(tmp_path)
    sink.open(trace.run, trace.layers)
    sink.write(0, {"x": values}, {})
    assert np.array_equal(np.array([r["x"] for r in rows(tmp_path / "layers.csv")], np.float32), values)
    sink.close(trace)


@pytest.mark.parametrize("lines", [1, 4, 2**16], ids=["each-line", "few", "all-at-once"])
def test_parquet_has_the_same_tables(tmp_path: Path, lines: int) -> None:
    feed(Parquet(tmp_path, lines=lines))
    layers = pq.read_table(tmp_path / "layers.parquet")
    assert layers["step"].to_pylist() == [0, 0, 0, 2, 2, 2, 5, 5, 5]
    assert layers["layer"].to_pylist() == ["0", "2", "4"] * 3
    assert layers["grad_abs_mean"].to_pylist() == [
        float(np.float32(0.1)),
        float(TINY),
        None,
        0,
        math.inf,
        float(np.float32(1 / 3)),
        None,
        None,
        None,
    ]
    assert layers["dead_fraction"].to_pylist() == [None] * 3 + [0.5, 0, 1, 0, 0, 0]
    assert [str(f.type) for f in layers.schema][2:] == ["float", "float"]
    assert "dictionary" in str(layers.schema.field("layer").type)
    curves = pq.read_table(tmp_path / "curves.parquet")
    assert curves["step"].to_pylist() == [0, 1, 2]
    assert curves["val_loss"].to_pylist() == [None, None, 1 / 3]
    loss = curves["loss"].to_pylist()
    assert (loss[0], loss[2]) == (2.5, 1.0)
    assert math.isnan(loss[1])
    assert pq.read_table(tmp_path / "events.parquet").to_pylist() == [{"step": 2, "kind": "clip", "message": "cut, to 1"}]
    assert sorted(x.name for x in tmp_path.iterdir()) == ["curves.parquet", "events.parquet", "layers.parquet"]


def test_parquet_holds_no_more_than_a_row_group(tmp_path: Path) -> None:
    trace = synthetic.chain(100)
    sink = Parquet(tmp_path, lines=1000)
    sink.open(trace.run, trace.layers)
    for step in range(95):
        sink.write(step, {"x": np.zeros(100, np.float32)}, {})
    sink.close(trace)
    file = pq.ParquetFile(tmp_path / "layers.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [1000] * 9 + [500]
    file.close()


def test_parquet_checks_its_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be at least 1; got 0"):
        Parquet(tmp_path, lines=0)


WRITER = """
import json
import sys
import numpy as np
from evengrad import sinks, synthetic
sink, trace = sinks.discovered()[sys.argv[1]](sys.argv[2], **json.loads(sys.argv[3])), synthetic.chain(50)
sink.open(trace.run, trace.layers)
for step in range(10**9):
    late = {"late": np.ones(50, np.float32)} if step > 9 else {}
    sink.write(step, {"grad_abs_mean": np.full(50, step + 1, np.float32)} | late, {"loss": step})
    print(step, flush=True)
"""


def killed(name: str, folder: Path, **options: int) -> int:
    """Kills a writer in the middle of its work; returns the last step that it had written."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, name, str(folder), json.dumps(options)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 40:
                break
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        return int(rest[-1]) if rest else 40


def test_csv_survives_a_kill(tmp_path: Path) -> None:
    last = killed("csv", tmp_path)
    layers, curves = rows(tmp_path / "layers.csv"), rows(tmp_path / "curves.csv")
    assert len(layers) >= 50 * (last + 1)
    assert len(layers) % 50 == 0
    assert {row["grad_abs_mean"] for row in layers if row["step"] == str(last)} == {str(np.float32(last + 1))}
    assert [float(row["loss"]) for row in curves][: last + 1] == list(range(last + 1))


def test_a_killed_parquet_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    killed("parquet", tmp_path, lines=40)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.parquet.part", "layers.parquet.part"]


def test_tensorboard_survives_a_kill(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    last = killed("tensorboard", tmp_path)
    seen = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    assert [point.value for point in seen.Scalars("mean_gradient/98")][: last + 1] == list(range(1, last + 2))
    assert seen.Images("mean_gradient")  # the picture, too, long before the end
