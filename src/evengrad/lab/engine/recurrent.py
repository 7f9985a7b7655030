"""torch RNN, LSTM, GRU -> the same levels of many networks: a batched matrix product a step, the input's part of all steps at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from evengrad.lab.engine.layers import RunsLayer

State = tuple[Tensor, ...]  # (h,) or (h, c), each (runs, batch, hidden)


class RunsRecurrent(RunsLayer):
    """`weight_ih_l0` (runs, gates * hidden, in) and so on; x (runs, batch, time, in).

    Returns (runs, batch, time, hidden) and, as torch's own layers, the last state: (runs, levels, batch, hidden), two of them for an LSTM.
    """

    states: ClassVar[int] = 1
    num_layers: int
    hidden_size: int
    mode: str

    def forward(self, x: Tensor, hx: Tensor | State | None = None) -> tuple[Tensor, Tensor | State]:
        runs, batch = x.shape[:2]
        h, last = x.transpose(1, 2), []  # (runs, time, batch, in)
        given = (hx,) if isinstance(hx, Tensor) else hx
        for level in range(self.num_layers):
            start = (x.new_zeros(runs, batch, self.hidden_size),) * self.states if given is None else tuple(s[:, level] for s in given)
            h, state = self._level(h, start, level)
            last.append(state)
        ends = tuple(torch.stack(part, 1) for part in zip(*last, strict=True))
        return h.transpose(1, 2), ends if self.states > 1 else ends[0]

    def _level(self, x: Tensor, state: State, level: int) -> tuple[Tensor, State]:
        w_in, w = getattr(self, f"weight_ih_l{level}"), getattr(self, f"weight_hh_l{level}")
        b_in, b = (getattr(self, f"bias_{part}_l{level}", None) for part in ("ih", "hh"))
        z = _product(x.flatten(1, 2), w_in, b_in if self._apart or b_in is None else b_in + b)
        hidden = []
        for z_t in z.view(*x.shape[:3], -1).unbind(1):  # (runs, batch, gates * hidden)
            state = self._step(z_t, state, w, b)
            hidden.append(state[0])
        return torch.stack(hidden, 1), state

    _apart: ClassVar[bool] = False  # the hidden state's bias cannot be added to the input's

    @abstractmethod
    def _step(self, z: Tensor, state: State, w: Tensor, b: Tensor | None) -> State:
        """One step of one level; z is the input's part (runs, batch, gates * hidden), with both biases if they may be added."""


class RunsRNN(RunsRecurrent):
    """h' = tanh(W x + V h + b), or ReLU in its place (Elman 1990)."""

    def _step(self, z: Tensor, state: State, w: Tensor, b: Tensor | None) -> State:
        z = torch.baddbmm(z, state[0], w.mT)
        return (z.tanh() if self.mode == "RNN_TANH" else z.relu(),)


class RunsLSTM(RunsRecurrent):
    """Gates in torch's order: input, forget, cell, output (Hochreiter & Schmidhuber 1997; Gers et al. 2000)."""

    states: ClassVar[int] = 2

    def _step(self, z: Tensor, state: State, w: Tensor, b: Tensor | None) -> State:
        i, f, g, o = torch.baddbmm(z, state[0], w.mT).chunk(4, -1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class RunsGRU(RunsRecurrent):
    """Gates in torch's order: reset, update, new (Cho et al. 2014, with the reset behind the product, as torch and cuDNN have it)."""

    _apart: ClassVar[bool] = True

    def _step(self, z: Tensor, state: State, w: Tensor, b: Tensor | None) -> State:
        (h,) = state
        r, u, n = _product(h, w, b).chunk(3, -1)
        z_r, z_u, z_n = z.chunk(3, -1)
        update = (z_u + u).sigmoid()
        new = (z_n + (z_r + r).sigmoid() * n).tanh()
        return (new + update * (h - new),)


def _product(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return torch.bmm(x, w.mT) if b is None else torch.baddbmm(b.unsqueeze(1), x, w.mT)


def runs_recurrent(layer: nn.Module) -> RunsRecurrent | None:
    """Returns the batched form of plain, batch-first levels in one direction, without parameters; None for any other module."""
    kind = _KINDS.get(type(layer))
    if kind is None or layer.bidirectional or layer.proj_size or layer.dropout or not layer.batch_first:
        return None
    return kind(layer)


_KINDS: dict[type, Callable[[nn.Module], RunsRecurrent]] = {nn.RNN: RunsRNN, nn.LSTM: RunsLSTM, nn.GRU: RunsGRU}
