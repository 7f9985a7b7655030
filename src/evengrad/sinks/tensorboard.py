"""A watched training -> TensorBoard: curves, gradients and weights of the layers, and a picture of all layers over all steps."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from evengrad.errors import InputError
from evengrad.signals import update_ratio
from evengrad.sinks.base import Sink, clean, label
from evengrad.sinks.heatmap import Heatmap
from evengrad.sinks.records import Records, Value
from evengrad.types import Event, Floats, Layer, Run, Series, Trace

_GRADIENT, _TAG = "grad_abs_mean", "mean_gradient"
_LISTED = 1000  # layers in the text


class TensorBoard(Sink):
    """An event file for `tensorboard --logdir` of its folder or of one above, written through at every step.

    - `loss`, `lr`, `grad_norm` …: the curves, by their names.
    - `mean_gradient/<layer>`: mean magnitude of the gradient of a layer's weights, the classic picture. `update_ratio/<layer>`: the size of
      a step relative to the weights. Other columns are `<column>/<layer>`.
    - `gradients/<layer>`, `weights/<layer>`: histograms, named as most users of `add_histogram` do. Keras wrote `<layer>/kernel_0_grad` and
      `<layer>/kernel_0`; but TensorBoard groups by what stands before the first slash, so that all layers of a kind lie together here and
      each in a group of its own there. A tag holds scalars or histograms, not both; hence `mean_gradient` beside `gradients`.
    - `mean_gradient`: a picture of all layers by all steps, which TensorBoard itself has no view for.
    - `layers`, `events`: text.

    Args:
        directory: Folder of the event file.
        columns: Columns that get a chart a layer; `update_ratio` is worked out.
        layers: Layers that get charts and histograms, evenly spread where there are more (the browser is slow beyond some hundreds); None
            for all. The picture always has all.
        every: Sampled steps between two versions of the picture, at least 1; a quarter of those seen, once that is more.

    Raises:
        InputError: if tensorboard is not installed, or a number is out of range.
    """

    name: ClassVar[str] = "tensorboard"

    def __init__(
        self,
        directory: str | Path,
        *,
        columns: tuple[str, ...] = (_GRADIENT, "update_ratio", "dead_fraction", "saturated_fraction"),
        layers: int | None = 200,
        every: int = 25,
    ) -> None:
        super().__init__(directory)
        for what, value in (("layers", layers), ("every", every)):
            if value is not None and value < 1:
                raise InputError(f"TensorBoard's {what} must be at least 1; got {value!r}")
        self._columns, self._most, self._every = columns, layers, every
        self._records = Records()
        self._trace = Trace(run=Run(name="", model="", parameters=0, samples=0), layers=())
        self._charts: dict[int, str] = {}  # rows that have some -> their names
        self._names: frozenset[str] = frozenset()
        self._picture = Heatmap((), "")
        self._samples, self._shown, self._due, self._last = 0, 0, every, 0

    def open(self, run: Run, layers: tuple[Layer, ...]) -> None:
        names = [label(layer) for layer in layers]
        self._trace = Trace(run=run, layers=layers)
        self._charts = {row: names[row] for row in _spread(len(layers), self._most or len(layers))}
        self._names = frozenset(self._charts.values())
        self._picture = Heatmap(names, "mean |gradient| of each layer")
        self._records.open(self.directory)
        self._records.put(0, [self._records.text("layers", _listed(layers, len(self._charts)))])

    def write(self, step: int, columns: Mapping[str, Floats], points: Mapping[str, float]) -> None:
        self._last = step
        values = [self._records.scalar(clean(name), value) for name, value in points.items()]
        for name in self._columns if columns else ():
            column = self._update_ratio(columns) if name == "update_ratio" else columns.get(name)
            tag = _TAG if name == _GRADIENT else clean(name)
            seen = {} if column is None else {row: float(column[row]) for row in self._charts if not np.isnan(column[row])}
            values += [self._records.scalar(f"{tag}/{self._charts[row]}", value) for row, value in seen.items()]
        if _GRADIENT in columns:
            self._picture.add(step, columns[_GRADIENT])
            self._samples += 1
            if self._samples >= self._due:
                values += self._drawn()
        self._records.put(step, values)

    def histogram(self, step: int, kind: str, layer: Layer, counts: Series, edges: Series) -> None:
        if label(layer) in self._names:
            value = self._records.histogram(f"{kind}/{label(layer)}", np.asarray(counts, np.float64), np.asarray(edges, np.float64))
            self._records.put(step, [value] if value is not None else [])

    def event(self, event: Event) -> None:
        text = f"step {event.step:,}, {_escaped(event.kind)}: {_escaped(event.message)}"
        self._records.put(event.step, [self._records.text("events", text)])

    def close(self, trace: Trace) -> None:
        if self._records.is_open:
            self._records.put(self._last, self._drawn())
            self._records.close()

    def _update_ratio(self, columns: Mapping[str, Floats]) -> Series | None:
        needed = {name: columns[name][None] for name in ("update_norm", "weight_norm") if name in columns}
        return update_ratio(Trace(run=self._trace.run, layers=self._trace.layers, columns=needed))[0] if len(needed) == 2 else None

    def _drawn(self) -> list[Value]:
        if self._shown == self._samples:
            return []
        self._shown, self._due = self._samples, self._samples + max(self._every, self._samples // 4)
        image = self._picture.draw()
        return [] if image is None else [self._records.image(_TAG, image)]


def _spread(count: int, most: int) -> list[int]:
    """At most that many rows, first and last among them."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, most))}) if count else []


def _listed(layers: tuple[Layer, ...], charts: int) -> str:
    """A table of the layers, in Markdown."""
    lines = [
        f"Charts of {charts:,} of {len(layers):,} layers; the picture has all.",
        "",
        "| | layer | kind | in, out | activation |",
        "|-|-|-|-|-|",
    ]
    for i, layer in enumerate(layers[:_LISTED], 1):
        cells = (label(layer), layer.kind, f"{layer.fan_in}, {layer.fan_out}", layer.activation)
        lines.append(f"| {i} | {' | '.join(map(_escaped, cells))} |")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    return html.escape(re.sub(r"([\\`*_\[\]|#])", r"\\\1", clean(text)), quote=False)
