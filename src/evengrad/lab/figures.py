"""measured arrays -> pictures: the kinds that studies share, in one style that reads on paper and without colour vision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError
from evengrad.lab.study import quantile
from evengrad.report.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

INK, SOFT, LINE, CARD = "#1d2330", "#5d6676", "#e4e2dc", "#ffffff"
PALETTE = ("#0b6bcb", "#d95f0e", "#1b7f4b", "#c2188b", "#5d6676", "#a15c00", "#6baed6", "#20242c")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))  # so that lines differ without colour, too
_DEPTHS = ("#0c2f5e", "#2f7ab8", "#e0701a", "#f2b56b")  # lighter with depth: the order survives in grey
_SHADES = ("#f7f6f2", "#9cc3e4", "#2f7ab8", "#0c2f5e")
_SIDES = ("#8fbce6", "#f7f6f2", "#f3b183")
_SIZE = 9
_WRITTEN_CELLS = 300


def panels(count: int = 1, *, columns: int = 3, title: str = "", size: tuple[float, float] | None = None) -> tuple[Figure, list[Axes]]:
    """Returns a figure with `count` empty panels, at most `columns` beside each other; no pyplot, no global state.

    Args:
        count: Number of panels, at least 1.
        columns: Panels in a line.
        title: Heading over all.
        size: Width and height of one panel, inches.

    Raises:
        InputError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures are drawn with matplotlib, which is not installed: pip install 'evengrad[figures]'") from error
    columns = min(columns, count)
    lines = -(-count // columns)
    width, height = size or ((6.8, 3.8) if count == 1 else (3.6, 2.9))
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained", facecolor=CARD)
    axes = [figure.add_subplot(lines, columns, i + 1) for i in range(count)]
    for ax in axes:
        ax.set_facecolor(CARD)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(SOFT)
        ax.tick_params(which="both", colors=SOFT, labelsize=_SIZE - 1)
        ax.grid(color=LINE, linewidth=0.8)
        ax.set_axisbelow(True)
    if title:
        figure.suptitle(title, fontsize=_SIZE + 2, color=INK)
    return figure, axes


def label(ax: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Writes a panel's heading and the names of its axes."""
    if title:
        ax.set_title(title, fontsize=_SIZE, color=INK, loc="left")
    if x:
        ax.set_xlabel(x, fontsize=_SIZE, color=SOFT)
    if y:
        ax.set_ylabel(y, fontsize=_SIZE, color=SOFT)


def legend(ax: Axes, **options: Any) -> None:
    """Names a panel's lines, where there is most room."""
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=_SIZE - 1, labelcolor=INK, **options)


def curves(ax: Axes, lines: Mapping[str, tuple[Array, Array]], *, log: bool = False, marks: Mapping[str, float] | None = None) -> None:
    """Draws for each arm the median over seeds as a line, and what lies between the 10% and 90% quantiles as a band.

    Args:
        ax: Panel.
        lines: Name of the arm -> (x (n,), y (seeds, n)); x may be epochs or steps, as well as a factor such as depth.
        log: Logarithmic y axis; what is not positive is left out.
        marks: Name -> published number, drawn as a dotted horizontal line.
    """
    for i, (name, (x, y)) in enumerate(lines.items()):
        if not y.size:
            continue
        known = np.where(np.isfinite(y) & ((y > 0) | (not log)), y, np.nan)
        low, middle, high = (np.array([quantile(column, q) for column in known.T]) for q in (0.1, 0.5, 0.9))
        color = PALETTE[i % len(PALETTE)]
        marker = "o" if len(x) <= 20 else ""
        ax.plot(x, middle, color=color, linestyle=DASHES[i % len(DASHES)], linewidth=1.6, marker=marker, markersize=3.5, label=name)
        if len(y) > 1:
            ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    for name, value in (marks or {}).items():
        ax.axhline(value, color=INK, linestyle=":", linewidth=1)
        ax.annotate(name, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=_SIZE - 2, color=INK)
    if log:
        ax.set_yscale("log")
    legend(ax)


def gradients(ax: Axes, steps: Array, values: Array, *, layers: Sequence[str] = ()) -> None:
    """Draws the classic picture: the mean magnitude of each layer's gradient over training, first layers dark and last ones light.

    Args:
        ax: Panel.
        steps: Epochs or steps (n,).
        values: (n, layers), or (seeds, n, layers), of which the median over seeds is drawn. Zero has no place on the logarithmic axis.
        layers: Names of the layers; numbers without.
    """
    over_seeds = values if values.ndim == 3 else values[None]
    middle = np.apply_along_axis(quantile, 0, over_seeds, 0.5) if over_seeds.size else np.empty((0, 0))
    shown = np.where(np.isfinite(middle) & (middle > 0), middle, np.nan)
    if np.isnan(shown).all():
        ax.text(
            0.5, 0.5, "exactly zero in every layer" if middle.size else "nothing measured", transform=ax.transAxes, ha="center", color=SOFT
        )
        return
    count, colors = shown.shape[1], ramp(_DEPTHS)
    names = layers or [f"layer {i + 1}" for i in range(count)]
    few = {*range(count)} if count <= 3 else {0, count // 2, count - 1}
    for i in range(count):
        marker = "o" if len(steps) == 1 else ""
        ax.plot(steps, shown[:, i], color=colors(i / max(1, count - 1)), linewidth=1.3, marker=marker, label=names[i] if i in few else None)
    ax.set_yscale("log")
    label(ax, y="mean |gradient|")
    legend(ax)


def heatmap(
    ax: Axes, values: Array, *, rows: Sequence[Any], columns: Sequence[Any], low: float | None = None, high: float | None = None
) -> None:
    """Draws a grid of numbers as shades, with each number written in its cell; what was not measured stays empty.

    Args:
        ax: Panel.
        values: (rows, columns); NaN where there is nothing.
        rows: Names of the rows, from the top.
        columns: Names of the columns.
        low: Number of the lightest shade; None for the least.
        high: Number of the darkest; None for the greatest.
    """
    known = np.where(np.isfinite(values), values, np.nan)
    finite = known[~np.isnan(known)]
    low = low if low is not None else float(finite.min(initial=np.inf)) if finite.size else 0.0
    high = high if high is not None else float(finite.max(initial=-np.inf)) if finite.size else 1.0
    image = ax.imshow(known, cmap=ramp(_SHADES), vmin=low, vmax=high, aspect="auto")
    ax.set_xticks(range(len(columns)), [str(c) for c in columns])
    ax.set_yticks(range(len(rows)), [str(r) for r in rows])
    ax.grid(False)
    ax.tick_params(length=0)
    if known.size > _WRITTEN_CELLS:
        ax.get_figure().colorbar(image, ax=ax).ax.tick_params(colors=SOFT, labelsize=_SIZE - 1)  # type: ignore[union-attr]
        return
    for (i, j), value in np.ndenumerate(values):
        dark = np.isfinite(value) and value - low > 0.5 * (high - low)
        text = number(float(value)) if np.isfinite(value) else "–" if np.isnan(value) else "∞"
        ax.text(j, i, text, ha="center", va="center", fontsize=_SIZE - 2, color=CARD if dark else INK)


def distributions(ax: Axes, groups: Mapping[str, Array], *, published: Mapping[str, float] | None = None) -> None:
    """Draws every seed as a dot, an arm a line, the median as a bar and the published single run as a diamond.

    Args:
        ax: Panel; its x axis is the value.
        groups: Name of the arm -> one number a seed (seeds,), from the top.
        published: Name of the arm -> published number.
    """
    for place, (name, values) in enumerate(groups.items()):
        known = np.sort(values[np.isfinite(values)])
        offsets = 0.11 * (np.arange(len(known)) * 2 % 5 - 2)  # neighbours apart, the same in every drawing
        ax.plot(known, place + offsets, "o", color=PALETTE[0], alpha=0.55, markersize=4, markeredgewidth=0, clip_on=False)
        if known.size:
            ax.vlines(float(np.median(known)), place - 0.35, place + 0.35, color=INK, linewidth=2)
        if published and name in published:
            told = "published single run" if name == next(iter(published)) else None
            ax.plot(published[name], place, "D", color=PALETTE[1], markersize=7, markerfacecolor="none", markeredgewidth=1.6, label=told)
    ax.set_yticks(range(len(groups)), list(groups))
    ax.set_ylim(len(groups) - 0.4, -0.6)
    ax.grid(False, axis="y")
    legend(ax)


def boundary(ax: Axes, share: Array, box: Array, *, x: Array | None = None, y: Array | None = None) -> None:
    """Draws what a network decides over the plane, and the points on top.

    Args:
        ax: Panel.
        share: Probability of class 1 on a grid (down the second feature from its lowest, along the first), in [0, 1].
        box: Left, right, bottom and top of the grid.
        x: Points (n, 2).
        y: Their classes (n,), 0 or 1.
    """
    left, right, bottom, top = (float(v) for v in box)
    across, up = np.linspace(left, right, share.shape[1]), np.linspace(bottom, top, share.shape[0])
    finite = np.nan_to_num(share, nan=0.5)
    ax.contourf(across, up, finite, levels=np.linspace(0, 1, 11), cmap=ramp(_SIDES))
    if finite.min() < 0.5 < finite.max():
        ax.contour(across, up, finite, levels=[0.5], colors=INK, linewidths=1.2)
    if x is not None and y is not None:
        for kind, (color, marker) in enumerate(((PALETTE[0], "o"), (PALETTE[1], "^"))):
            own = x[y == kind]
            ax.plot(own[:, 0], own[:, 1], marker, color=color, markersize=2.5, markeredgewidth=0, linestyle="")
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
    ax.grid(False)


def trajectory(
    ax: Axes,
    f: Callable[[Array, Array], Array],
    paths: Mapping[str, Array],
    *,
    box: tuple[float, float, float, float],
    minimum: tuple[float, float] | None = None,
) -> None:
    """Draws the paths of optimizers over the contours of a function of two numbers.

    Args:
        ax: Panel.
        f: The function, of two arrays of one shape.
        paths: Name of the optimizer -> points (steps + 1, 2); a path ends where it leaves the numbers.
        box: Left, right, bottom and top of the panel.
        minimum: Marked with a cross.
    """
    left, right, bottom, top = box
    across, up = np.meshgrid(np.linspace(left, right, 160), np.linspace(bottom, top, 160))
    heights = f(across, up)
    levels = np.unique(np.quantile(heights, np.linspace(0.01, 0.95, 14)))  # as many lines near a flat minimum as on a steep wall
    ax.contour(across, up, heights, levels=levels, colors=[LINE], linewidths=0.9)
    for i, (name, path) in enumerate(paths.items()):
        known = path[: int(np.argmin(np.append(np.isfinite(path).all(1), False)))]
        color = PALETTE[i % len(PALETTE)]
        ax.plot(
            known[:, 0], known[:, 1], color=color, linestyle=DASHES[i % len(DASHES)], linewidth=1.3, marker="o", markersize=2.5, label=name
        )
    if minimum is not None:
        ax.plot(*minimum, marker="+", color=INK, markersize=10, markeredgewidth=1.6)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.grid(False)
    legend(ax)


def ramp(colors: Sequence[str]) -> Colormap:
    """Returns a continuous scale through these colours."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("evengrad", list(colors))
