"""tags with values -> TensorBoard's event file: its own messages and record writer, no torch, no second thread."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np

from evengrad.errors import InputError
from evengrad.sinks.heatmap import Image, png
from evengrad.types import Series

_MESSAGES = ("event", "summary", "histogram", "tensor", "tensor_shape", "types")
Value = Any  # a Summary.Value


class Records:
    """Makes values, and writes those of a step through in one record.

    Raises:
        InputError: if tensorboard is not installed.
    """

    def __init__(self) -> None:
        self._proto, self._records = _modules()
        self._writer: Any = None

    @property
    def is_open(self) -> bool:
        """True between `open` and `close`."""
        return self._writer is not None

    def open(self, directory: Path) -> None:
        """Begins a new file in that folder."""
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = self._records.RecordWriter(_created(directory))
        self._writer.write(self._proto.Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        self._writer.flush()

    def put(self, step: int, values: Sequence[Value]) -> None:
        """Writes values of a step through."""
        if values:
            event = self._proto.Event(wall_time=time.time(), step=step, summary=self._proto.Summary(value=values))
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()
        self._writer = None

    def scalar(self, tag: str, value: float) -> Value:
        """A point of a chart."""
        return self._proto.Summary.Value(tag=tag, simple_value=float(value))

    def image(self, tag: str, image: Image) -> Value:
        """A picture."""
        height, width, _ = image.shape
        encoded = self._proto.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png(image))
        return self._proto.Summary.Value(tag=tag, image=encoded)

    def histogram(self, tag: str, counts: Series, edges: Series) -> Value | None:
        """What lies between finite edges, or None of nothing: TensorBoard's own writer raises on an empty histogram."""
        good = (counts > 0) & np.isfinite(edges[:-1]) & np.isfinite(edges[1:])
        if not good.any():
            return None
        first, last = np.flatnonzero(good)[[0, -1]]
        counts, edges = np.where(good, counts, 0.0)[first : last + 1], edges[first : last + 2]
        middle = edges[:-1] / 2 + edges[1:] / 2  # the values themselves are gone: sums are those of the bins' middles
        histogram = self._proto.HistogramProto(
            min=edges[0],
            max=edges[-1],
            num=counts.sum(),
            sum=(counts * middle).sum(),
            sum_squares=(counts * middle**2).sum(),
            bucket_limit=edges[1:],
            bucket=counts,
        )
        return self._proto.Summary.Value(tag=tag, histo=histogram)

    def text(self, tag: str, text: str) -> Value:
        """A text in Markdown."""
        p = self._proto
        metadata = p.SummaryMetadata(plugin_data=p.SummaryMetadata.PluginData(plugin_name="text"))
        shape = p.TensorShapeProto(dim=[p.TensorShapeProto.Dim(size=1)])
        tensor = p.TensorProto(dtype=p.DT_STRING, string_val=[text.encode()], tensor_shape=shape)
        return p.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _modules() -> tuple[Any, Any]:
    """TensorBoard's messages, and its writer of records; its `EventFileWriter` flushes from a thread of its own, at its own time."""
    names: dict[str, Any] = {}
    try:
        for module in _MESSAGES:
            names |= vars(importlib.import_module(f"tensorboard.compat.proto.{module}_pb2"))
        return SimpleNamespace(**names), importlib.import_module("tensorboard.summary.writer.record_writer")
    except ImportError as error:
        what = "TensorBoard files are written with tensorboard, which is not installed"
        raise InputError(f"{what}: pip install 'evengrad[tensorboard]'") from error


def _created(directory: Path) -> IO[bytes]:
    """Opens a file of a name that TensorBoard reads and that is not there yet."""
    stem = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
    for n in itertools.count():
        with contextlib.suppress(FileExistsError):
            return (directory / f"{stem}.{n}.evengrad").open("xb")
    raise AssertionError
