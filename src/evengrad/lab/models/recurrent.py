"""sizes and choices -> recurrent network: levels of one cell, then a head on the last step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import init

from evengrad.errors import InputError
from evengrad.lab.models.base import Net
from evengrad.lab.models.drawing import Drawer
from evengrad.lab.models.initialisers import initialiser as named_initialiser

_CELLS: dict[str, tuple[Callable[..., nn.RNNBase], int]] = {"rnn": (nn.RNN, 1), "lstm": (nn.LSTM, 4), "gru": (nn.GRU, 3)}  # and gates


class LastStep(nn.Module):
    """Recurrent levels, then a head on the last step: (..., time, features) -> (..., outputs)."""

    trailing_axes: ClassVar[bool] = True

    def __init__(self, cells: nn.RNNBase, head: nn.Linear) -> None:
        super().__init__()
        self.cells = cells
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.cells(x)
        return self.head(h[..., -1, :])  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Recurrent(Net):
    """RNN, LSTM or GRU over (batch, time, inputs), and a linear head on the last step.

    Attributes:
        inputs: Features of a step.
        outputs: Classes, or numbers it answers with.
        cell: rnn, lstm or gru.
        hidden: Units of a level.
        levels: Levels on top of each other.
        activation: tanh or relu, of an rnn.
        initialiser: default is torch's own, uniform in +-1/sqrt(hidden) with biases. irnn is the identity for hidden weights and a
            deviation of 0.001 for input weights (Le, Jaitly & Hinton 2015). Any other name draws each gate's two matrices by it.
        init_scale: Factor on every weight but the head's.
        forget_bias: Sum of an LSTM's two forget biases at first; 1 keeps memories from the start (Jozefowicz et al. 2015). None leaves
            what the initialiser says.
    """

    kind: ClassVar[str] = "recurrent"
    per_run: ClassVar[frozenset[str]] = Net.per_run | {"forget_bias"}
    inputs: int
    outputs: int
    cell: str = "lstm"
    hidden: int = 32
    levels: int = 1
    activation: str = "tanh"
    initialiser: str = "default"
    init_scale: float = 1.0
    forget_bias: float | None = None

    def __post_init__(self) -> None:
        self._at_least(1, "inputs", "outputs", "hidden", "levels")
        self._one_of("cell", *_CELLS)
        self._one_of("activation", *(("tanh", "relu") if self.cell == "rnn" else ("tanh",)))
        if self.initialiser != "irnn":
            named_initialiser(self.initialiser)
        if self.initialiser == "irnn" and self.cell != "rnn":
            raise InputError(f"irnn initialises a plain rnn; got the cell {self.cell!r}")
        if self.forget_bias is not None and self.cell != "lstm":
            raise InputError(f"only an lstm has a forget bias; got the cell {self.cell!r}")

    def build(self, seed: int) -> LastStep:
        named = "default" if self.initialiser == "irnn" else self.initialiser
        draw = Drawer.seeded(named, self.activation, self.init_scale, seed)
        kind, gates = _CELLS[self.cell]
        options = {"nonlinearity": self.activation} if self.cell == "rnn" else {}
        cells = kind(self.inputs, self.hidden, self.levels, batch_first=True, device="meta", **options).to_empty(device="cpu")
        for name, p in cells.named_parameters():
            self._draw(name, p.detach(), gates, draw)
        if self.forget_bias is not None:
            for name, p in cells.named_parameters():
                if name.startswith("bias"):
                    p.detach()[self.hidden : 2 * self.hidden] = self.forget_bias if "_ih_" in name else 0.0
        return LastStep(cells, draw.linear(self.hidden, self.outputs, head=True))

    def _draw(self, name: str, p: Tensor, gates: int, draw: Drawer) -> None:
        if self.initialiser == "default":
            init.uniform_(p, -(self.hidden**-0.5), self.hidden**-0.5, generator=draw.generator)
        elif name.startswith("bias"):
            init.zeros_(p)
        elif self.initialiser != "irnn":
            for gate in p.chunk(gates):
                draw.weight(gate)
            return
        elif "_hh_" in name:
            init.eye_(p)
        else:
            init.normal_(p, 0.0, 0.001, generator=draw.generator)
        if name.startswith("weight"):
            p.mul_(self.init_scale)
