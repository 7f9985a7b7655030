"""Every discovered sink takes the same made-up run: hostile names, values that are zero, not finite or not seen, no layer, very many."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from evengrad import sinks, synthetic
from evengrad.errors import InputError, UnknownNameError
from evengrad.sinks import Sink, discovered, resolved
from evengrad.types import Event, Floats, Layer, Trace

NAMES = (
    "net.0",
    "",
    "a/b/../c",
    "<script>alert(1)</script>",
    'x,y;"z"|w',
    "new\nline\r\t",
    "emoji 🔥 漢字",
    "half \ud800 pair",
    "=1+1",
    "net.0 ",
)
EVERY = pytest.mark.parametrize("name", sorted(discovered()))


def trace(names: tuple[str, ...]) -> Trace:
    made = synthetic.chain(len(names))
    return replace(made, layers=tuple(replace(layer, name=name) for layer, name in zip(made.layers, names, strict=True)))


def frames(layers: int, steps: int = 6) -> Iterator[tuple[int, dict[str, Floats], dict[str, float]]]:
    """A column that grows bad, one that comes late, one that is never seen; a loss that ends as NaN; steps with points alone."""
    for step in range(steps):
        gradient = np.logspace(-40, 3, layers, dtype=np.float32) if layers else np.zeros(0, np.float32)
        gradient[: step // 2] = (np.nan, 0, np.inf)[step % 3]
        columns = {"grad_abs_mean": gradient, "dead_fraction": np.full(layers, np.nan, np.float32)}
        if step > 2:
            columns |= {"update_norm": np.full(layers, np.inf, np.float32), "weight_norm": np.zeros(layers, np.float32)}
        yield 10 * step, columns, {"loss": (2.0, np.inf, np.nan)[step % 3]}
        yield 10 * step + 1, {}, {"lr/<x>\n": 0.1, "val_loss": -0.0}


def feed(sink: Sink, seen: Trace, steps: int = 6) -> None:
    sink.open(seen.run, seen.layers)
    for step, columns, points in frames(len(seen.layers), steps):
        sink.write(step, columns, points)
        for layer in seen.layers[:12] if columns else ():
            sink.histogram(step, "gradients", layer, *HISTOGRAMS[step // 10 % len(HISTOGRAMS)])
            sink.histogram(step, "weights", layer, *HISTOGRAMS[0])
    sink.event(Event(step=3, kind="clip", message='net.0\'s norm, "31", was\ncut to <1> 🔥 \ud800'))
    sink.close(seen)


HISTOGRAMS = (
    (np.array([3.0, 0.0, 1.0]), np.array([-1.0, 0.0, 1.0, 2.0])),
    (np.zeros(3), np.zeros(4)),
    (np.full(3, np.nan), np.full(4, np.nan)),
    (np.zeros(0), np.zeros(1)),
    (np.array([1.0, 2.0]), np.array([-np.inf, 0.0, np.inf])),
)


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_the_sinks_are_found() -> None:
    assert {"csv", "parquet", "tensorboard"} <= set(discovered())
    assert sinks.CSV is discovered()["csv"]


@EVERY
@pytest.mark.parametrize("layers", [NAMES, (), ("only",)], ids=["hostile", "none", "one"])
def test_takes_any_run(name: str, layers: tuple[str, ...], tmp_path: Path) -> None:
    feed(discovered()[name](tmp_path), trace(layers))
    assert files(tmp_path)
    assert all(files(tmp_path).values())
    assert not [x for x in files(tmp_path) if x.endswith((".part", ".copy"))]


@EVERY
def test_a_run_that_never_started_leaves_nothing(name: str, tmp_path: Path) -> None:
    sink = discovered()[name](tmp_path / "run")
    sink.close(trace(()))
    assert not (tmp_path / "run").exists()


@EVERY
def test_closes_twice(name: str, tmp_path: Path) -> None:
    sink = discovered()[name](tmp_path)
    feed(sink, trace(NAMES))
    before = files(tmp_path)
    sink.close(trace(NAMES))
    assert files(tmp_path) == before


@EVERY
def test_a_second_run_leaves_the_first_alone(name: str, tmp_path: Path) -> None:
    feed(discovered()[name](tmp_path), trace(NAMES))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    feed(discovered()[name](tmp_path), trace(NAMES))
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(files(tmp_path)) == 2 * len(before)


@EVERY
def test_folders_of_any_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "Läufe #1, 50% <b>" / "a b\tc"
    feed(discovered()[name](str(folder)), trace(NAMES))
    assert files(folder)


@EVERY
def test_ten_thousand_layers_are_quick(name: str, tmp_path: Path) -> None:
    sink, seen = discovered()[name](tmp_path), trace(tuple(f"net.{i}" for i in range(10_000)))
    feed(sink, seen, steps=1)  # imports
    began = time.process_time()
    feed(discovered()[name](tmp_path), seen, steps=10)
    assert time.process_time() - began < 3  # about 0.4 s; ten sampled steps of four columns


@EVERY
def test_needs_no_torch(name: str, tmp_path: Path) -> None:
    code = f"""
import sys
from evengrad import sinks, synthetic
sink, trace = sinks.discovered()[{name!r}]({str(tmp_path)!r}), synthetic.chain(3)
sink.open(trace.run, trace.layers)
sink.write(0, {{"grad_abs_mean": trace.column("x")[0] * 0}}, {{"loss": 1.0}})
sink.close(trace)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_names_and_sinks_are_resolved(tmp_path: Path) -> None:
    own = sinks.CSV(tmp_path / "own")
    made = resolved(("csv", own, "tensorboard"), tmp_path)
    assert [type(x).__name__ for x in made] == ["CSV", "CSV", "TensorBoard"]
    assert made[1] is own
    assert made[0].directory == made[2].directory == tmp_path
    assert resolved(()) == []


def test_without_a_folder_each_run_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (made,) = resolved(("csv",))
    assert made.directory.parent == Path("runs")
    assert list(tmp_path.iterdir()) == []


def test_wrong_sinks_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no sink is called 'tensorbord'\. Did you mean 'tensorboard'"):
        resolved(("tensorbord",))
    with pytest.raises(InputError, match=r"got 'csv'\. Write sinks=\('csv',\)"):
        resolved("csv")
    with pytest.raises(InputError, match="got CSV"):
        resolved((sinks.CSV,))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="sinks are given as a tuple"):
        resolved(sinks.CSV(tmp_path))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("tensorboard", "tensorboard.compat.proto.event_pb2", "tensorboard"), ("parquet", "pyarrow.parquet", "parquet")],
)
def test_a_missing_package_is_named_before_training(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'evengrad\[{extra}\]'"):
        resolved((name,), tmp_path)


def test_a_sink_of_ones_own_needs_three_methods(tmp_path: Path) -> None:
    class Counting(Sink):
        name: ClassVar[str] = "counting"
        count = 0

        def open(self, run: object, layers: tuple[Layer, ...]) -> None: ...

        def write(self, step: int, columns: object, points: object) -> None:
            self.count += 1

        def close(self, trace: Trace) -> None: ...

    sink = Counting(tmp_path)
    feed(sink, trace(NAMES))
    assert sink.count == 12
