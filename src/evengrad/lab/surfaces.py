"""a function of two numbers, optimizers, starts -> the paths they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evengrad.lab.engine.optimizers import Optimizer, Stepper

LOST = 1e20  # a height from which nothing comes back


@dataclass(frozen=True)
class Surface:
    """A function to go down on.

    Attributes:
        f: The function, of two tensors or two arrays of one shape.
        formula: How it is written.
        start: Where it is usually started from.
        minimum: A point where it is least.
        box: Left, right, bottom and top of what is worth drawing.
        steps: Number of steps that tell optimizers apart.
    """

    f: Callable[[Any, Any], Any]
    formula: str
    start: tuple[float, float]
    minimum: tuple[float, float]
    box: tuple[float, float, float, float]
    steps: int

    def height(self, points: Tensor) -> Tensor:
        """Returns how far above the minimum points (..., 2) are, at least 0; infinite from `LOST` on."""
        height = self.f(points[..., 0], points[..., 1]) - self.f(*self.minimum)
        return torch.where(height < LOST, height.clamp_min(0), torch.inf)

    def starts(self, seeds: Sequence[int], spread: float) -> Tensor:
        """Returns a start for each seed, float64 (seeds, 2): the usual one for seed 0, for others its numbers times 1 + spread * normal."""
        draws = [torch.randn(2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
        away = torch.stack([spread * draw if seed else torch.zeros_like(draw) for seed, draw in zip(seeds, draws, strict=True)])
        return torch.tensor(self.start, dtype=torch.float64) * (1 + away)


def descend(surface: Surface, starts: Tensor, optimizers: Sequence[Optimizer], steps: int) -> Tensor:
    """Returns the path of each optimizer, float64 (runs, steps + 1, 2); they go down side by side, as runs of one batch.

    Args:
        surface: What they go down on.
        starts: Where, float64 (runs, 2).
        optimizers: One a run, equal in `shape()`.
        steps: How many steps they take.
    """
    points = starts.unsqueeze(0).clone()  # a block of one parameter: (1, runs, 2)
    slopes = torch.zeros_like(points)
    stepper = Stepper(optimizers, [(points, slopes)], (points, slopes))
    path = [starts]
    for _ in range(steps):
        at = points[0].clone().requires_grad_()
        slopes[0] = torch.autograd.grad(surface.f(at[:, 0], at[:, 1]).sum(), at)[0]
        stepper.step()
        path.append(points[0].clone())
    return torch.stack(path, 1)


SURFACES = {
    "bowl": Surface(lambda x, y: 0.1 * x**2 + 2 * y**2, "0.1 x1² + 2 x2²", (-5.0, -2.0), (0.0, 0.0), (-5.8, 2.5, -3.0, 3.0), 20),
    "saddle": Surface(
        lambda x, y: x**2 - y**2 + y**4 / 4, "x1² − x2² + x2⁴ / 4", (-1.5, 0.001), (0.0, 2**0.5), (-1.9, 1.1, -0.7, 2.3), 100
    ),
    "rosenbrock": Surface(
        lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        "(1 − x1)² + 100 (x2 − x1²)²",
        (-1.2, 1.0),
        (1.0, 1.0),
        (-2.0, 2.0, -1.0, 3.0),
        500,
    ),
    "beale": Surface(
        lambda x, y: (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2,
        "(1.5 − x1 + x1 x2)² + (2.25 − x1 + x1 x2²)² + (2.625 − x1 + x1 x2³)²",
        *((1.0, 1.5), (3.0, 0.5), (-1.0, 4.5, -1.5, 2.5), 300),
    ),
}  # of the last two, Rosenbrock 1960 and Beale 1958, the start of Rosenbrock is his own
