"""SearchResult -> pictures: what matters, and the metric over each number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evengrad.lab.figures import INK, PALETTE, SOFT, label, legend, panels
from evengrad.lab.search.space import Axis, Choice, Range
from evengrad.lab.search.space import label as named
from evengrad.lab.search.table import written
from evengrad.lab.search.watch import COMPLETE, DIVERGED, HEALTH, LOSS
from evengrad.report.numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from evengrad.lab.search.result import SearchResult, Tried

_GONE = {HEALTH: ("stopped by health", PALETTE[1]), DIVERGED: ("diverged", PALETTE[3])}


def figures(result: SearchResult) -> Mapping[str, Callable[[], Figure]]:
    """Returns the pictures of a result by caption, drawn when they are called; none of what cannot be told."""
    found: dict[str, Callable[[], Figure]] = {}
    if importance := result.importance():
        found["What matters"] = lambda: _importance(importance)
    if result.ranked:
        found["The metric over each number"] = lambda: _slices(result, list(importance) or list(result.space))
    return found


def _importance(shares: Mapping[str, float]) -> Figure:
    figure, (ax,) = panels(1, size=(6.8, 0.9 + 0.32 * len(shares)))
    places = range(len(shares))
    ax.barh(places, list(shares.values()), color=PALETTE[0], height=0.6)
    for place, share in zip(places, shares.values(), strict=True):
        ax.annotate(percent(share), (share, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    ax.set_yticks(places, [_words(name) for name in shares])
    ax.set_ylim(len(shares) - 0.4, -0.6)
    ax.set_xlim(0, 1.12 * max(shares.values()))
    ax.grid(False, axis="y")
    label(ax, x="share of the metric's variance")
    return figure


def _slices(result: SearchResult, names: list[str]) -> Figure:
    figure, axes = panels(len(names))
    for i, (ax, name) in enumerate(zip(axes, names, strict=True)):
        _slice(ax, result, name)
        label(ax, x=_words(name), y=_words(result.metric) if i % 3 == 0 else "")
    legend(axes[0], loc="best")
    return figure


def _slice(ax: Axes, result: SearchResult, name: str) -> None:
    """Trials that came to their end at their metric; those stopped by loss at their last one; the others at the panel's worse edge."""
    axis = result.space[name]
    _scale(ax, axis)
    ended = [t for t in result.trials if t.how == COMPLETE]
    ax.plot(_places(ended, name, axis), [t.metric for t in ended], "o", color=PALETTE[0], alpha=0.6, markersize=4, markeredgewidth=0)
    behind = [t for t in result.trials if t.how == LOSS and t.rungs]
    if behind:
        last = [t.rungs[max(t.rungs)] for t in behind]
        ax.plot(_places(behind, name, axis), last, "x", color=SOFT, alpha=0.6, markersize=4, label="stopped by loss")
    edge = -0.02 if result.maximize else 1.02
    for how, (words, color) in _GONE.items():
        gone = [t for t in result.trials if t.how == how]
        if gone:
            style: dict[str, Any] = {"color": color, "markersize": 7, "clip_on": False, "label": words}
            ax.plot(_places(gone, name, axis), [edge] * len(gone), "|", transform=ax.get_xaxis_transform(), **style)
    best = result.ranked[:1]
    mark: dict[str, Any] = {"color": INK, "markersize": 7, "markerfacecolor": "none", "markeredgewidth": 1.6, "label": "best"}
    ax.plot(_places(best, name, axis), [t.metric for t in best], "D", **mark)


def _scale(ax: Axes, axis: Axis) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    if isinstance(axis, Choice):
        ax.set_xticks(range(len(axis.values)), [written(v) for v in axis.values], rotation=30, ha="right")
        ax.set_xlim(-0.5, len(axis.values) - 0.5)
    elif isinstance(axis, Range) and axis.log:
        ax.set_xscale("log")
        narrow = axis.low > 0 and axis.high < 30 * axis.low
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if narrow else (1.0,)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{axis.value(value):g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        if axis.low == 0:
            ax.xaxis.set_major_locator(FixedLocator([axis.draw(0.0), *(axis.high * 10.0**-k for k in (4, 2, 0))]))


def _places(trials: Sequence[Tried], name: str, axis: Axis) -> list[float]:
    """Where trials stand on the panel's x axis; those of one choice beside each other, the same in every drawing."""
    values = [t.numbers[name] for t in trials]
    if not isinstance(axis, Choice):
        return [float(axis.draw(v)) for v in values]
    labels = [named(v) for v in axis.values]
    return [labels.index(named(v)) + 0.13 * (t.number * 2 % 5 - 2) for t, v in zip(trials, values, strict=True)]


def _words(name: str) -> str:
    return name.replace("_", " ")
