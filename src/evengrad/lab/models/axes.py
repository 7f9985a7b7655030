"""parameter of one network, or of many stacked -> the shape that broadcasts against activations.

A network alone sees (batch, *sample), many at once see (runs, batch, *sample), and every parameter of theirs has the runs axis in front.
"""

from __future__ import annotations

from torch import Tensor


def lift(parameter: Tensor, h: Tensor, axes: int = 0) -> Tensor:
    """Returns the parameter so that it broadcasts against the trailing axes of `h`, with the runs axis in front if it has one.

    Args:
        parameter: As the network declared it, with `axes` axes, or (runs, *those).
        h: (batch, *sample) or (runs, batch, *sample).
        axes: Axes of the parameter of one network.
    """
    if parameter.dim() == axes:
        return parameter
    return parameter.view(parameter.shape[0], *[1] * (h.dim() - 1 - axes), *parameter.shape[1:])


def scale(alpha: Tensor, h: Tensor) -> Tensor:
    """Returns `h` times a learned number: alpha () with h (batch, ...), or alpha (runs,) with h (runs, batch, ...)."""
    return lift(alpha, h) * h
