"""The structure of a network, once it has been seen -> the rows of the trace and their weights."""

from __future__ import annotations

from torch import Tensor, nn

from evengrad.monitor.gauges import Gauge
from evengrad.trace.structure import Structure
from evengrad.types import Layer


class Rows:
    """Rows of a watched network; unknown until one call of it was looked at."""

    structure: Structure
    gauge: Gauge
    weights: tuple[Tensor, ...] = ()
    signature: tuple[tuple[str, str], ...] = ()

    def __init__(self, core: nn.Module) -> None:
        self._core = core

    @property
    def known(self) -> bool:
        """True once the structure has been read."""
        return hasattr(self, "structure")

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The rows, in the order in which data meets them."""
        return self.structure.layers

    def read(self, structure: Structure, signature: tuple[tuple[str, str], ...]) -> None:
        """Takes the structure of the first call that was looked at, and what ran in it."""
        parameters = dict(self._core.named_parameters())
        self.structure, self.signature = structure, signature
        self.weights = tuple(parameters[layer.weight] for layer in structure.layers)
        self.gauge = Gauge(self.weights)
