"""the gradient of each layer at each sampled step -> a picture of layers by steps, as a PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evengrad.sinks.font import HEIGHT, WIDTH, dots
from evengrad.types import Floats, Series

Image = npt.NDArray[np.uint8]  # (height, width, 3)
Color = tuple[int, int, int]

ZERO, NOT_FINITE, UNSEEN = (0, 0, 0), (194, 24, 139), (196, 202, 213)
_RAMP = np.array(
    [(255, 243, 199), (251, 208, 116), (224, 112, 26), (122, 44, 2)], np.float64
)  # pale is weak; told apart without red or green
_PAPER, _INK, _SOFT = (255, 255, 255), (29, 35, 48), (93, 102, 118)
_ROWS, _STEPS = 160, 240  # of the picture; beyond, neighbouring rows are pooled and steps thinned out
_WIDTH, _TALL, _SIZE, _GAP = 432, 320, 2, 8  # of the plot and its letters, pixels: TensorBoard shows half of it, every second pixel
_LINE, _SCALE = HEIGHT * _SIZE, 112  # height of a line, width of the scale
_NAME = 12  # letters of a layer's name


class Heatmap:
    """Collects a value a layer and sampled step in bounded memory (150 KB), and draws it on a logarithmic scale.

    Args:
        layers: Names of the layers, the first one at the bottom of the picture.
        title: Heading.
    """

    def __init__(self, layers: Sequence[str], title: str) -> None:
        self._title = title
        count = len(layers)
        self._starts = np.arange(min(count, _ROWS)) * count // max(1, min(count, _ROWS))
        self._names = [layers[i] for i in self._starts.tolist()]
        self._steps: list[int] = []
        self._values: list[Floats] = []

    def add(self, step: int, column: Floats) -> None:
        """Adds the values (L,) of a step: 0 is exactly zero, infinity not finite, NaN not seen."""
        self._steps.append(step)
        self._values.append(self._pooled(column))
        if len(self._steps) > _STEPS:
            del self._steps[1:-20:2], self._values[1:-20:2]

    def draw(self) -> Image | None:
        """Returns the picture, or None where there is nothing to show."""
        if not self._values or not len(self._names):
            return None
        values = np.stack(self._values).astype(np.float64)  # (steps, rows)
        low, high = _range(values)
        row = max(2, min(_TALL // len(self._names), max(32, 96 // len(self._names))))
        tall = row * len(self._names)
        names = [name if len(name) <= _NAME else "…" + name[1 - _NAME :] for name in self._names]
        named = range(0, len(names), -(-(_LINE + _GAP) // row))
        left, top = max(_wide(names[i]) for i in named) + 2 * _GAP, _LINE + 2 * _GAP
        states = _states(values)
        size = (top + tall + (_LINE + _GAP) * (2 if states else 1) + _GAP, left + _WIDTH + _SCALE)
        image = np.full((*size, 3), _PAPER, np.uint8)

        cells = colours(values, low, high).swapaxes(0, 1)[::-1]  # (rows, steps, 3), the first layer last
        across = np.arange(_WIDTH) * len(self._steps) // _WIDTH
        image[top : top + tall, left : left + _WIDTH] = np.repeat(cells, row, 0)[:, across]
        _write(image, self._title, left, _GAP, color=_INK)
        for i in named:
            _write(image, names[i], left - _GAP - _wide(names[i]), top + tall - i * row - (row + 7 * _SIZE) // 2)
        _write_steps(image, self._steps, left, top + tall + _GAP)
        _write_scale(image, (low, high), (left + _WIDTH + 2 * _GAP, top, tall))
        _write_states(image, states, left, top + tall + _LINE + 2 * _GAP)
        return image

    def _pooled(self, column: Floats) -> Floats:
        """Of neighbours the worst is kept: not finite, then exactly zero, then the weakest."""
        if not len(self._starts):
            return np.zeros(0, np.float32)
        weakest: Floats = np.fmin.reduceat(column, self._starts)
        weakest[np.logical_or.reduceat(np.isinf(column), self._starts)] = np.inf
        return weakest


def colours(values: Series, low: float, high: float) -> Image:
    """Returns the colour of each value: a ramp from `low` to `high` decades, and colours of their own for zero, not finite and not seen."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.clip((np.log10(values) - low) / (high - low), 0, 1)
    stops = np.linspace(0, 1, len(_RAMP))
    out = np.stack([np.interp(place, stops, _RAMP[:, c]) for c in range(3)], -1)
    out[values == 0], out[np.isinf(values)], out[np.isnan(values)] = ZERO, NOT_FINITE, UNSEEN
    return out.round().astype(np.uint8)


def png(image: Image) -> bytes:
    """Returns the picture as a PNG file."""
    height, width, _ = image.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], 1)  # a filter of 0 before each line
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)


def _range(values: Series) -> tuple[float, float]:
    """Whole decades around the values, at least two, so that noise does not look like a trend."""
    seen = np.log10(values[np.isfinite(values) & (values > 0)])
    if not len(seen):
        return -2.0, 0.0
    high = float(np.ceil(seen.max()))
    return min(high - 2, float(np.floor(seen.min()))), high


def _write(image: Image, text: str, x: int, y: int, *, color: Color = _SOFT) -> None:
    ink = dots(text, _SIZE)[:, : max(0, image.shape[1] - x)]
    image[y : y + len(ink), x : x + ink.shape[1]][ink] = color


def _wide(text: str) -> int:
    return len(text) * WIDTH * _SIZE


def _write_steps(image: Image, steps: Sequence[int], left: int, y: int) -> None:
    longest = _wide(f"{steps[-1]:,}") + 4 * _GAP
    count = max(2, min(len(steps), _WIDTH // longest, 7))
    for place in np.linspace(0, len(steps) - 1, count).round().astype(int) if len(steps) > 1 else [0]:
        text = f"step {steps[0]:,}" if place == 0 else f"{steps[place]:,}"
        x = left + round((place + 0.5) * _WIDTH / len(steps))
        first, last = left, left + _WIDTH - _wide(text)
        _write(image, text, min(last, max(first, x - _wide(text) // 2)), y)


def _write_scale(image: Image, decades: tuple[float, float], box: tuple[int, int, int]) -> None:
    (low, high), (x, top, tall) = decades, box
    ramp = colours(10.0 ** np.linspace(high, low, tall)[:, None], low, high)
    image[top : top + tall, x : x + 14] = ramp
    every = -(-int((high - low) * (_LINE + _GAP)) // tall)
    for decade in range(int(high), int(low) - 1, -every):
        y = top + round((high - decade) / (high - low) * (tall - 1))
        image[y, x + 14 : x + 18] = _SOFT
        _write(image, f"1e{decade}", x + 22, min(top + tall - 7 * _SIZE, max(top, y - 7 * _SIZE // 2)))


def _states(values: Series) -> list[tuple[Color, str]]:
    found = ((values == 0, ZERO, "exactly zero"), (np.isinf(values), NOT_FINITE, "not finite"), (np.isnan(values), UNSEEN, "not seen"))
    return [(color, word) for seen, color, word in found if seen.any()]


def _write_states(image: Image, states: Sequence[tuple[Color, str]], x: int, y: int) -> None:
    """Says what the colours beside the scale mean."""
    side = 7 * _SIZE
    for color, word in states:
        image[y : y + side, x : x + side] = color
        _write(image, word, x + side + _GAP, y)
        x += side + 3 * _GAP + _wide(word)
