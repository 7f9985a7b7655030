"""Report or Trace -> matplotlib figures for a paper: one call each, no pyplot, no global state."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evengrad.errors import InputError, unknown
from evengrad.report import trials as tried
from evengrad.report.planes import Plane, alike, planes
from evengrad.report.profile import Profile, profile
from evengrad.report.pyramid import grid
from evengrad.report.report import Report
from evengrad.types import Curve, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, NOT_FINITE, ZERO = "#1d2330", "#5d6676", "#e4e2dc", "#c2188b", "#20242c"
BLUE, ORANGE = "#0b6bcb", "#d95f0e"
_DIVERGING = ("#0c2f5e", "#2f7ab8", "#eceae5", "#e0701a", "#7a2c02")  # the page's own; tells its ends apart without colour vision
_SIZE = 9
_WIDTH, _RIGHT, _TOP, _BOTTOM = 5.4, 0.7, 0.32, 0.68  # inches of a panel, and around it


def gradient_by_layer(report: Report) -> Figure:
    """Draws the gradient that reaches each layer relative to the last, before and, after a fix, after.

    Raises:
        InputError: if no gradient was recorded, or matplotlib is not installed.

    Example:
        >>> from evengrad.report import figures
        >>> figures.gradient_by_layer(eg.check(model, inputs)).savefig("gradient.pdf")
    """
    found = profile(report)
    if found is None:
        raise InputError("no gradient was recorded, so there is none to draw: expected a report of a check, a diagnosis or a run")
    figure, (ax,) = _panels([2.7])
    _gradient(ax, found)
    return figure


def heatmap(report: Report | Trace, signal: str = "gradient") -> Figure:
    """Draws layers by steps: `gradient`, `spread`, `update / weight`, `dead` or `saturated`; zero and not finite have their own colours.

    Of a fix there are two, before and after, on one scale of colours.

    Raises:
        InputError: if the run has no such signal, or matplotlib is not installed.
    """
    maps = _maps(report)
    if not maps:
        raise InputError("nothing was measured by layer and step: expected a report with a trace")
    found = [one for one in maps if one[1].key == signal]
    if not found:
        raise unknown("signal", signal, {plane.key for _, plane, _ in maps})
    figure, axes = _panels([3.3 if len(found) == 1 else 2.6] * len(found))
    for ax, one in zip(axes, found, strict=True):
        _heat(ax, *one)
    return figure


def loss(report: Report | Trace) -> Figure:
    """Draws the loss over the steps, of training and of validation, or before and after a fix; a cross marks where it is not finite.

    Raises:
        InputError: if no loss was seen, or matplotlib is not installed.
    """
    curves = _losses(report)
    if not curves:
        raise InputError("no loss was seen: give it to the monitor with monitor.observe(loss=loss)")
    figure, (ax,) = _panels([2.7])
    _loss(ax, curves)
    return figure


def trials(report: Report) -> Figure:
    """Draws what was tried by training: a line a change, a dot a seed, a bar for the median.

    Raises:
        InputError: if nothing was tried, or matplotlib is not installed.
    """
    table = tried.trials(report)
    if table is None:
        raise InputError("nothing was tried by training: expected the report of a fix")
    figure, (ax,) = _panels([_height(table)], _room(table))
    _trials(ax, table)
    return figure


def overview(report: Report) -> Figure:
    """Draws all that the report has: the gradient by layer, the run by layer and step, the loss, what was tried.

    Raises:
        InputError: if it has nothing to draw, or matplotlib is not installed.
    """
    trace, found, table = report.trace, profile(report), tried.trials(report)
    parts: list[tuple[float, Any]] = []
    if found is not None:
        parts.append((2.4, lambda ax: _gradient(ax, found)))
    if trace is not None and len(trace.steps) > 1:
        maps = _maps(report)
        order = list(dict.fromkeys(plane.key for _, plane, _ in maps))
        maps.sort(key=lambda one: order.index(one[1].key))  # before and after, one below the other
        parts += [(2.6, lambda ax, one=one: _heat(ax, *one)) for one in maps]
    if (curves := _losses(report)) and len(next(iter(curves.values())).steps) > 1:
        parts.append((2.2, lambda ax: _loss(ax, curves)))
    if table is not None:
        parts.append((_height(table), lambda ax: _trials(ax, table)))
    if not parts:
        raise InputError("this report has nothing to draw: expected measurements by layer, a loss or trials")
    figure, axes = _panels([height for height, _ in parts], _room(table))
    for ax, (_, draw) in zip(axes, parts, strict=True):
        draw(ax)
    return figure


def save(report: Report, path: str | Path, *, dpi: int = 150) -> Path:
    """Writes `overview` as a file; its ending tells the kind: .png, .svg, .pdf. The same report gives the same bytes."""
    figure = overview(report)
    from matplotlib import rc_context

    target = Path(path)
    metadata = {".svg": {"Date": None}, ".png": {"Software": None}, ".pdf": {"CreationDate": None}}.get(target.suffix.lower())
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "evengrad"}):
        figure.savefig(target, dpi=dpi, metadata=metadata)
    return target


def _maps(report: Report | Trace) -> list[tuple[str, Plane, Trace]]:
    """Pairs signals with the run that they are of; of a fix over several steps, before and after on one scale."""
    trace = report.trace if isinstance(report, Report) else report
    if trace is None:
        return []
    before, after = planes(trace), report.after if isinstance(report, Report) else None
    if after is None or len(after.steps) < 2 or len(trace.steps) < 2:
        return [("", plane, trace) for plane in before]
    before, later = alike(before, planes(after))
    keys = {plane.key for plane in before}
    return [("before", p, trace) for p in before] + [("after", p, after) for p in later if p.key in keys]


def _losses(report: Report | Trace) -> dict[str, Curve]:
    """Names the curves that share an axis: two at most."""
    trace = report.trace if isinstance(report, Report) else report
    if trace is None or "loss" not in trace.curves:
        return {}
    after = report.after if isinstance(report, Report) else None
    if after is not None and "loss" in after.curves:
        return {"before": trace.curves["loss"], "after": after.curves["loss"]}
    return {name.replace("_", " "): trace.curves[name] for name in ("loss", "val_loss") if name in trace.curves}


def _gradient(ax: Axes, found: Profile) -> None:
    bottom = 10.0**found.low
    for row, colour, look in zip(found.strips, (BLUE, ORANGE), ("o-", "s--"), strict=False):
        x = np.arange(1, len(row.bars) + 1)
        values = [10.0**b.decades if b.state == "value" else math.nan for b in row.bars]
        name = f"{row.label}  {row.slope.partition(' (')[0]}".strip()
        ax.plot(x, values, look, color=colour, markersize=3.5, linewidth=1.4, label=name or None)
        for state, mark, shade, y in (("zero", "o", ZERO, bottom), ("nan", "x", NOT_FINITE, 10.0**found.high)):
            at = [k for k, b in zip(x, row.bars, strict=True) if b.state == state]
            if at:
                word = {"zero": "exactly zero", "nan": "not finite"}[state]
                ax.plot(at, [y] * len(at), mark, color=shade, clip_on=False, linestyle="", label=word)
    ax.set_yscale("log")
    ax.set_ylim(10.0**found.low, 1.6 * 10.0**found.high)
    ax.axhline(1.0, color=SOFT, linewidth=0.8, linestyle=(0, (3, 3)))
    _label(ax, "gradient that reaches each layer, relative to the last", f"{found.first} … {found.last}", "")
    ax.locator_params(axis="x", integer=True)
    _legend(ax, loc="upper left", bbox_to_anchor=(0, -0.26), ncols=2)


def _heat(ax: Axes, label: str, plane: Plane, trace: Trace) -> None:
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    values = plane.values.T.astype(np.float64)
    shown = np.where(np.isfinite(values), values, np.nan)
    box = (0.0, float(values.shape[1]), 0.5, len(trace.layers) + 0.5)  # a column a cell: sampled steps lie closer at first
    colours, low, high = list(_DIVERGING[2:]), 0.0, 1.0
    if plane.scale == "log":
        with np.errstate(divide="ignore"):
            shown = np.log10(np.where(shown > 0, shown, np.nan))
        colours, low, high = list(_DIVERGING), plane.centre - plane.reach, plane.centre + plane.reach
    options: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": box, "interpolation": "nearest"}
    ax.imshow(shown, cmap=LinearSegmentedColormap.from_list("evengrad", colours), vmin=low, vmax=high, **options)
    states = [("not finite", np.isinf(values), NOT_FINITE)] + ([("exactly zero", values == 0, ZERO)] if plane.scale == "log" else [])
    for name, mask, colour in states:
        if mask.any():
            ax.imshow(np.where(mask, 1.0, np.nan), cmap=ListedColormap([colour]), **options)
            ax.plot([], [], "s", color=colour, label=name)
    ax.set_xlim(box[0], box[1])
    ax.set_ylim(box[2], box[3])
    ax.grid(False)
    _scale(ax, plane, colours, (low, high))
    _label(ax, f"{label}: {plane.title}".removeprefix(": "), "sampled step", "layer, input at the bottom")
    marked = np.unique(np.linspace(0, values.shape[1] - 1, 7).round().astype(int))
    begins = grid(len(trace.steps), len(trace.layers)).steps
    ax.set_xticks(marked + 0.5, labels=[f"{int(trace.steps[begins[i]]):,}" for i in marked])
    ax.locator_params(axis="y", integer=True)
    _legend(ax, loc="upper right", bbox_to_anchor=(1, -0.1), ncols=2)


def _scale(ax: Axes, plane: Plane, colours: list[str], span: tuple[float, float]) -> None:
    """Draws the colours beside a heatmap; matplotlib's own bar is clipped by a path whose name in a file changes from run to run."""
    from matplotlib.colors import LinearSegmentedColormap

    bar = ax.inset_axes((1.02, 0, 0.025, 1))
    ramp = np.linspace(0, 1, 256)[:, None]
    bar.imshow(ramp, cmap=LinearSegmentedColormap.from_list("evengrad", colours), origin="lower", aspect="auto", extent=(0, 1, *span))
    bar.set_xticks([])
    bar.yaxis.tick_right()
    if plane.scale == "log":
        ticks = np.unique(np.linspace(*span, 5).round())
        bar.set_yticks(list(ticks), labels=[f"1e{int(t)}" if abs(t) > 2 else f"{10.0**t:g}" for t in ticks])
    else:
        bar.set_yticks([0, 0.5, 1], labels=["0%", "50%", "100%"])
    bar.tick_params(colors=SOFT, labelsize=_SIZE - 1)
    bar.spines[:].set_visible(False)


def _loss(ax: Axes, curves: dict[str, Curve]) -> None:
    looks: tuple[tuple[str, Any], ...] = ((BLUE, "-"), (ORANGE, (0, (5, 2))))
    for (name, curve), (colour, dashes) in zip(curves.items(), looks, strict=False):
        broken = ~np.isfinite(curve.values)
        shown = np.where(broken, np.nan, curve.values)
        ax.plot(curve.steps, shown, color=colour, linestyle=dashes, linewidth=1.4, label=name)
        if broken.any():
            at, top = curve.steps[broken], ax.get_xaxis_transform()
            look: dict[str, Any] = {"color": NOT_FINITE, "markersize": 4, "clip_on": False, "label": "not finite"}
            ax.plot(at, np.ones(len(at)), "x", transform=top, **look)
    _label(ax, "loss", "step", "")
    _legend(ax)


def _trials(ax: Axes, table: tried.Trials) -> None:
    for place, row in enumerate(table.rows):
        values = np.sort([v for v in row.values if math.isfinite(v)])
        colour = BLUE if row.chosen or place == 0 else SOFT
        ax.plot(
            values,
            place + 0.09 * (np.arange(len(values)) * 2 % 3 - 1),
            "o",
            color=colour,
            alpha=0.7,
            markersize=4,
            markeredgewidth=0,
            clip_on=False,
        )
        if math.isfinite(row.median):
            ax.vlines(row.median, place - 0.3, place + 0.3, color=INK, linewidth=2)
        if row.failed:
            ax.annotate(
                f"{row.failed} not finite",
                (1, place),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="center",
                fontsize=_SIZE - 2,
                color=NOT_FINITE,
            )
    ax.set_yticks(range(len(table.rows)), [("✓ " if r.chosen else "") + r.label for r in table.rows])
    ax.set_ylim(len(table.rows) - 0.4, -0.6)
    ax.set_xlim(table.low, table.high)
    ax.grid(False, axis="y")
    _label(ax, f"what was tried, {table.seeds} seed{'s' * (table.seeds != 1)}", table.metric, "")


def _panels(heights: list[float], left: float = 0.75) -> tuple[Figure, list[Axes]]:
    """Returns a figure with panels of these heights (inches) below each other, on one left edge; `left` is the room for names.

    Places are fixed: a layout that is solved for differs in its last digits from run to run, and with it names inside an SVG.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("figures are drawn with matplotlib, which is not installed: pip install 'evengrad[figures]'") from error
    total, wide = sum(heights), _WIDTH + left + _RIGHT
    figure = Figure(figsize=(wide, total), facecolor="white")
    bottoms = [total - sum(heights[: i + 1]) + _BOTTOM for i in range(len(heights))]
    axes = [
        figure.add_axes((left / wide, bottom / total, _WIDTH / wide, (height - _BOTTOM - _TOP) / total))
        for bottom, height in zip(bottoms, heights, strict=True)
    ]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(SOFT)
        ax.tick_params(which="both", colors=SOFT, labelsize=_SIZE - 1)
        ax.grid(color=LINE, linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def _room(table: tried.Trials | None) -> float:
    """Inches that the names of changes need, if there are any."""
    return 0.75 if table is None else min(3.2, max(0.75, 0.3 + 0.066 * max(len(row.label) for row in table.rows)))


def _height(table: tried.Trials) -> float:
    return 1.15 + 0.3 * len(table.rows)


def _label(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=_SIZE + 1, color=INK, loc="left")
    ax.set_xlabel(x, fontsize=_SIZE, color=SOFT)
    ax.set_ylabel(y, fontsize=_SIZE, color=SOFT)


def _legend(ax: Axes, **options: Any) -> None:
    if ax.get_legend_handles_labels()[1]:
        ax.legend(**({"frameon": False, "fontsize": _SIZE - 1, "labelcolor": INK} | options))
