"""TensorBoard reads back what was seen, under tags that do not clash, and a picture of all layers by all steps."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evengrad import synthetic
from evengrad.errors import InputError
from evengrad.sinks import TensorBoard  # type: ignore[attr-defined]
from evengrad.sinks.heatmap import NOT_FINITE, UNSEEN, ZERO
from evengrad.types import Event, Floats, Layer, Trace


def column(*values: float) -> Floats:
    return np.array(values, np.float32)


def opened(folder: Path, rows: int | tuple[Layer, ...] = 3, **options: Any) -> tuple[Any, Trace]:
    trace = synthetic.chain(rows) if isinstance(rows, int) else replace(synthetic.chain(len(rows)), layers=rows)
    sink = TensorBoard(folder, **options)
    sink.open(trace.run, trace.layers)
    return sink, trace


def read(folder: Path) -> Any:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0, "tensors": 0}).Reload()


def points(seen: Any, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in seen.Scalars(tag)]


def test_curves_and_layers_are_scalars(tmp_path: Path) -> None:
    sink, trace = opened(tmp_path)
    sink.write(0, {"grad_abs_mean": column(0.5, np.nan, 0), "grad_norm": column(1, 1, 1)}, {"loss": 2.5, "lr": 0.1})
    sink.write(1, {}, {"loss": float("nan")})
    sink.write(2, {"grad_abs_mean": column(0.25, np.inf, 1)}, {})
    sink.close(trace)
    seen = read(tmp_path)
    assert sorted(seen.Tags()["scalars"]) == ["loss", "lr", "mean_gradient/0", "mean_gradient/2", "mean_gradient/4"]
    assert points(seen, "mean_gradient/0") == [(0, 0.5), (2, 0.25)]
    assert points(seen, "mean_gradient/2") == [(2, float("inf"))]  # NaN was not seen
    assert points(seen, "mean_gradient/4") == [(0, 0), (2, 1)]
    (first, second) = points(seen, "loss")
    assert first == (0, 2.5)
    assert second[0] == 1
    assert np.isnan(second[1])


def test_columns_are_chosen_and_the_update_ratio_worked_out(tmp_path: Path) -> None:
    sink, trace = opened(tmp_path, columns=("update_ratio", "out_spread"))
    seen = {
        "update_norm": column(0.002, 1, np.inf),
        "weight_norm": column(2, 0, 1),
        "out_spread": column(1, 2, 3),
        "grad_abs_mean": column(1, 1, 1),
    }
    sink.write(7, seen, {})
    sink.write(8, {"update_norm": column(1, 1, 1)}, {})
    sink.close(trace)
    found = read(tmp_path)
    assert points(found, "update_ratio/0") == [(7, pytest.approx(0.001))]
    assert points(found, "update_ratio/4") == [(7, float("inf"))]
    assert points(found, "out_spread/2") == [(7, 2)]
    assert not {"update_ratio/2", "mean_gradient/0"} & set(found.Tags()["scalars"])  # a ratio to zero; a column not asked for


@pytest.mark.parametrize(("most", "expected"), [(None, 500), (200, 200), (1, 1)])
def test_charts_are_spread_over_the_layers_and_the_picture_has_all(tmp_path: Path, most: int | None, expected: int) -> None:
    sink, trace = opened(tmp_path, 500, layers=most)
    sink.write(0, {"grad_abs_mean": np.ones(500, np.float32)}, {})
    for layer in trace.layers:
        sink.histogram(0, "weights", layer, np.ones(1), np.arange(2.0))
    sink.close(trace)
    seen = read(tmp_path)
    rows = sorted(int(tag.split("/")[1]) // 2 for tag in seen.Tags()["scalars"])
    assert len(rows) == expected
    assert rows[0] == 0
    assert rows[-1] == (499 if expected > 1 else 0)
    assert max(np.diff(rows), default=0) <= 3
    assert len(seen.Tags()["histograms"]) == expected
    assert seen.Tags()["images"] == ["mean_gradient"]
    assert f"Charts of {expected} of 500 layers" in text(seen, "layers")[0]


def test_histograms_hold_counts_and_edges(tmp_path: Path) -> None:
    sink, trace = opened(tmp_path)
    sink.histogram(4, "gradients", trace.layers[0], np.array([0, 1, 0, 3, 0]), np.array([-3.0, -2, -1, 0, 1, 2]))
    sink.histogram(4, "weights", trace.layers[2], np.array([5, 2, 4]), np.array([-np.inf, -1, 1, np.inf]))
    sink.close(trace)
    seen = read(tmp_path)
    (event,) = seen.Histograms("gradients/0")
    found = event.histogram_value
    assert event.step == 4
    assert (found.min, found.max, found.num) == (-2, 1, 4)
    assert (found.sum, found.sum_squares) == (-1.5 + 3 * 0.5, 1.5**2 + 3 * 0.5**2)
    counted = [(limit, n) for limit, n in zip(found.bucket_limit, found.bucket, strict=True) if n]
    assert counted == [(-1, 1), (1, 3)]
    assert seen.Histograms("weights/4")[0].histogram_value.num == 2


def test_an_empty_histogram_does_not_kill_the_run(tmp_path: Path) -> None:
    sink, trace = opened(tmp_path)
    for counts, edges in ((np.zeros(3), np.arange(4.0)), (np.full(3, np.nan), np.full(4, np.nan)), (np.zeros(0), np.zeros(0))):
        sink.histogram(0, "gradients", trace.layers[0], counts, edges)
    sink.write(1, {"grad_abs_mean": column(np.nan, np.nan, np.nan)}, {"loss": 1.0})
    sink.close(trace)
    seen = read(tmp_path)
    assert seen.Tags()["histograms"] == []
    assert points(seen, "loss") == [(1, 1)]


def test_no_tag_is_two_things(tmp_path: Path) -> None:
    sink, trace = opened(tmp_path)
    sink.write(0, {"grad_abs_mean": column(1, 1, 1)}, {"loss": 1.0})
    for kind in ("gradients", "weights"):
        sink.histogram(0, kind, trace.layers[0], np.ones(1), np.arange(2.0))
    sink.event(Event(step=0, kind="clip", message="cut"))
    sink.close(trace)
    tags = read(tmp_path).Tags()
    names = [name for kind in ("scalars", "histograms", "images", "tensors") for name in tags[kind]]
    assert len(names) == len(set(names))
    assert {"mean_gradient", "layers", "events", "gradients/0", "weights/0"} <= set(names)


def text(seen: Any, tag: str) -> list[str]:
    return [event.tensor_proto.string_val[0].decode() for event in seen.Tensors(tag)]


def test_text_is_not_read_as_markup(tmp_path: Path) -> None:
    layer = synthetic.chain(1).layers[0]
    sink, trace = opened(tmp_path, (replace(layer, name="<script>a|b`c*d_e"), replace(layer, name="x\ny")))
    sink.event(Event(step=1200, kind="clip", message="net<b> it's #1"))
    sink.close(trace)
    seen = read(tmp_path)
    listed = text(seen, "layers")[0].splitlines()
    assert listed[4] == r"| 1 | &lt;script&gt;a\|b\`c\*d\_e | linear | 64, 64 | tanh |"
    assert listed[5].startswith("| 2 | x�y |")
    assert text(seen, "events") == [r"step 1,200, clip: net&lt;b&gt; it's \#1"]


def test_names_with_slashes_keep_their_chart(tmp_path: Path) -> None:
    layer = synthetic.chain(1).layers[0]
    names = ("a/b", "<script>", "", "漢 字", "new\nline")
    sink, trace = opened(tmp_path, tuple(replace(layer, name=name) for name in names))
    sink.write(0, {"grad_abs_mean": column(1, 2, 3, 4, 5)}, {})
    sink.close(trace)
    seen = read(tmp_path)
    tags = ["mean_gradient/a/b", "mean_gradient/<script>", "mean_gradient/model", "mean_gradient/漢 字", "mean_gradient/new�line"]
    assert [points(seen, tag) for tag in tags] == [[(0, float(i))] for i in range(1, 6)]


def test_the_picture_shows_layers_by_steps(tmp_path: Path) -> None:
    sink, trace = opened(tmp_path, 4)
    for step in (0, 10):
        sink.write(step, {"grad_abs_mean": column(0, 1e-3, np.nan, np.inf if step else 1e-6)}, {})
    sink.close(trace)
    (image,) = read(tmp_path).Images("mean_gradient")
    pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert pixels.shape == (image.height, image.width, 3)
    assert image.step == 10
    left, right, top, bottom = 0, 1, 2, 3
    zero, bad, unseen = (box(pixels, color) for color in (ZERO, NOT_FINITE, UNSEEN))
    assert zero[bottom] > unseen[bottom] > bad[bottom]  # the first layer lies at the bottom
    assert zero[left] == unseen[left]
    assert zero[right] == unseen[right] == bad[right]
    assert 2 * (bad[left] - zero[left]) == zero[right] - zero[left]  # the second of two steps
    assert {b[bottom] - b[top] for b in (zero, bad, unseen)} == {32}


def box(pixels: Any, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The block of that colour: left, right, top, bottom; letters and the legend are narrower."""
    lies = (pixels == color).all(-1)
    rows = np.flatnonzero(lies.sum(1) > 100)
    columns = np.flatnonzero(lies[rows[len(rows) // 2]])
    return columns[0], columns[-1] + 1, rows[0], rows[-1] + 1


def test_the_picture_comes_again_and_ever_more_rarely(tmp_path: Path) -> None:
    sink, trace = opened(tmp_path, every=10)
    for step in range(200):
        sink.write(step, {"grad_abs_mean": column(1, 2, 3)}, {"loss": 1.0})
    sink.close(trace)
    steps = [image.step for image in read(tmp_path).Images("mean_gradient")]
    assert steps[:4] == [9, 19, 29, 39]
    assert steps[-1] == 199
    assert steps == sorted(set(steps))
    assert len(steps) < 15


def test_the_picture_is_not_written_twice(tmp_path: Path) -> None:
    sink, trace = opened(tmp_path, every=10)
    for step in range(20):
        sink.write(step, {"grad_abs_mean": column(1, 2, 3)}, {})
    sink.write(25, {}, {"loss": 1.0})
    sink.close(trace)
    assert [image.step for image in read(tmp_path).Images("mean_gradient")] == [9, 19]


def test_steps_without_columns_draw_nothing(tmp_path: Path) -> None:
    sink, trace = opened(tmp_path, every=1)
    sink.write(0, {}, {"loss": 1.0})
    sink.close(trace)
    assert read(tmp_path).Tags()["images"] == []


@pytest.mark.parametrize("options", [{"layers": 0}, {"every": 0}, {"layers": -3}])
def test_checks_its_options(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"must be at least 1; got {next(iter(options.values()))}"):
        TensorBoard(tmp_path, **options)


def test_every_step_is_flushed(tmp_path: Path) -> None:
    sink, trace = opened(tmp_path)
    sink.write(0, {}, {"loss": 1.0})
    assert points(read(tmp_path), "loss") == [(0, 1)]
    sink.close(trace)
