"""Pictures are drawn of what was measured, without global state; what was not measured is left out, not drawn as something."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams

from evengrad.errors import InputError
from evengrad.lab.figures import boundary, curves, distributions, gradients, heatmap, label, panels, trajectory
from evengrad.lab.pictures import picture

X = np.arange(30)


def test_panels_are_laid_out_in_lines() -> None:
    figure, axes = panels(5, columns=3, title="all of it")
    assert len(axes) == len(figure.axes) == 5
    assert figure.get_figwidth() == 3 * 3.6
    assert figure.get_suptitle() == "all of it"
    assert len(panels(1)[1]) == 1


def test_drawing_leaves_no_global_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    before = [rcParams[name] for name in ("svg.fonttype", "svg.hashsalt", "font.size", "axes.edgecolor")]
    figure, (ax,) = panels()
    curves(ax, {"a": (X, np.ones((3, 30)))})
    label(ax, title="t", x="x", y="y")
    picture("p", figure)
    assert "matplotlib.pyplot" not in sys.modules
    assert [rcParams[name] for name in ("svg.fonttype", "svg.hashsalt", "font.size", "axes.edgecolor")] == before


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"pip install 'evengrad\[figures\]'"):
        panels()


def test_a_curve_is_the_median_within_the_outer_tenths() -> None:
    y = np.arange(11.0)[:, None] + X
    _, (ax,) = panels()
    curves(ax, {"tanh": (X, y), "nothing": (X, np.empty((0, 0)))}, marks={"published": 3.0})
    line, mark = ax.lines
    assert np.array_equal(line.get_ydata(), 5.0 + X)
    assert line.get_label() == "tanh"
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (1.0, 9.0 + X[-1])
    assert list(mark.get_ydata()) == [3.0, 3.0]  # type: ignore[arg-type]


def test_a_curve_leaves_out_what_is_not_finite_or_has_no_logarithm() -> None:
    y = np.array([[1.0, np.inf, -1.0], [3.0, 2.0, 0.0]])
    _, (ax,) = panels()
    curves(ax, {"loss": (np.arange(3), y)}, log=True)
    assert np.array_equal(ax.lines[0].get_ydata(), [2.0, 2.0, np.nan], equal_nan=True)  # type: ignore[arg-type]
    assert ax.get_yscale() == "log"


def test_gradients_are_a_line_a_layer_darkest_first() -> None:
    values = np.exp(-np.arange(8.0)) * np.ones((2, 30, 1))
    _, (ax,) = panels()
    gradients(ax, X, values)
    assert [line.get_ydata()[0] for line in ax.lines] == pytest.approx(np.exp(-np.arange(8.0)))  # type: ignore[index]
    lightness = [np.dot(line.get_color()[:3], (0.2126, 0.7152, 0.0722)) for line in ax.lines]  # type: ignore[arg-type,index]
    assert lightness == sorted(lightness)
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["layer 1", "layer 5", "layer 8"]


def test_gradients_that_are_zero_are_said_to_be() -> None:
    figure, (dead, none, some) = panels(3)
    gradients(dead, X, np.zeros((30, 3)))
    gradients(none, X, np.empty((0, 0)))
    gradients(some, X, np.array([0.0, 1.0]) * np.ones((30, 2)), layers=["first", "last"])
    assert [ax.texts[0].get_text() for ax in (dead, none)] == ["exactly zero in every layer", "nothing measured"]
    assert np.isnan(some.lines[0].get_ydata()).all()  # type: ignore[arg-type]
    picture("zeros", figure)


def test_a_heatmap_writes_each_number_readable_on_its_shade() -> None:
    _, (ax,) = panels()
    heatmap(ax, np.array([[0.1, 0.9], [np.nan, np.inf]]), rows=["a", "b"], columns=[1, 2])
    texts = {text.get_text(): text.get_color() for text in ax.texts}
    assert list(texts) == ["0.1", "0.9", "–", "∞"]
    assert texts["0.9"] != texts["0.1"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]


def test_a_heatmap_too_fine_for_numbers_has_a_scale() -> None:
    figure, (ax,) = panels()
    heatmap(ax, np.arange(400.0).reshape(20, 20), rows=range(20), columns=range(20))
    assert not ax.texts
    assert len(figure.axes) == 2


def test_every_finite_seed_is_a_dot_and_the_published_run_a_diamond() -> None:
    _, (ax,) = panels()
    distributions(ax, {"a": np.array([0.1, 0.2, np.nan, 0.4]), "b": np.array([])}, published={"a": 0.3})
    dots, diamond = ax.lines[0], ax.lines[1]
    assert list(dots.get_xdata()) == [0.1, 0.2, 0.4]  # type: ignore[arg-type]
    assert list(diamond.get_xdata()) == [0.3]  # type: ignore[arg-type]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    assert "published single run" in {text.get_text() for text in ax.get_legend().get_texts()}


def test_a_boundary_is_where_both_classes_are_as_likely() -> None:
    across = np.linspace(-1, 1, 21) * np.ones((21, 1))
    figure, (ax, flat, lost) = panels(3)
    box = np.array([-1, 1, -1, 1])
    boundary(ax, 1 / (1 + np.exp(-4 * (across - 0.5))), box, x=np.zeros((4, 2)), y=np.array([0, 0, 1, 1]))
    edge = [path for c in ax.collections for path in c.get_paths() if len(path) and np.allclose(path.vertices[:, 0], 0.5, atol=0.01)]
    assert edge
    assert [len(line.get_xdata()) for line in ax.lines] == [2, 2]  # type: ignore[arg-type]
    boundary(flat, np.full((4, 4), 0.2), box)
    boundary(lost, np.full((4, 4), np.nan), box)
    picture("boundaries", figure)


def test_a_path_ends_where_it_leaves_the_numbers() -> None:
    path = np.array([[0.0, 0.0], [1.0, 1.0], [np.nan, 1.0], [2.0, 2.0]])
    figure, (ax,) = panels()
    trajectory(ax, lambda a, b: 0.1 * a**2 + 2 * b**2, {"sgd": path, "whole": path[:2]}, box=(-2, 2, -2, 2), minimum=(0, 0))
    assert [len(line.get_xdata()) for line in ax.lines] == [2, 2, 1]  # type: ignore[arg-type]
    picture("paths", figure)


def test_a_picture_is_the_smaller_file_and_the_same_bytes_each_time() -> None:
    def draw(points: int) -> Any:
        figure, (ax,) = panels()
        curves(ax, {"a": (np.arange(points), np.sin(np.arange(points) * 1.0)[None])})
        return figure

    few, many = picture("few", draw(10)), picture("many", draw(60_000))
    assert (few.kind, many.kind) == ("svg", "png")
    assert few.data.startswith(b"<?xml")
    assert many.data.startswith(b"\x89PNG")
    assert picture("few", draw(10)).data == few.data
    assert few.uri.startswith("data:image/svg+xml;base64,")


@pytest.mark.parametrize(
    ("caption", "name"),
    [("Mean |gradient| of each layer", "mean-gradient-of-each-layer.svg"), ("../..", "figure.svg"), ("a" * 99, "a" * 60 + ".svg")],
)
def test_a_picture_has_a_plain_file_name(caption: str, name: str) -> None:
    assert picture(caption, panels()[0]).name == name
