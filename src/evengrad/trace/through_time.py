"""a recurrent model and a batch -> how much of the loss's gradient reaches each stretch of time, and an LSTM's forget biases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from evengrad.trace import operations as ops
from evengrad.trace.batch import Batch, Loss, call, mapped, scalar_loss
from evengrad.trace.capture import level_of
from evengrad.trace.isolation import untouched
from evengrad.trace.recorder import stored
from evengrad.types import Floats, Layer, Series

BINS = 32
_KINDS = frozenset({"rnn", "lstm", "gru"})


def through_time(model: nn.Module, batch: Batch, loss_fn: Loss | None, layers: Sequence[Layer], seed: int) -> Floats | None:
    """Measures the gradient at the inputs of every recurrent row along time, in a pass of its own; leaves the model as it was.

    The norm of each sample's gradient at each step is averaged over samples, and over the steps of one of 32 equal stretches of time, from
    the first step to the last. Sequences of fewer steps repeat theirs. Steps that a loop in Python takes one by one count in their order.

    Args:
        model: Any module; it runs in train mode.
        batch: What to call it with.
        loss_fn: As in `measure`.
        layers: Rows of the model.
        seed: Seed of torch's generators during the pass.

    Returns:
        float32 (L, 32), NaN for rows that are not recurrent, that read packed sequences, or whose inputs no gradient reaches; None, at no
        cost, where no row is recurrent.
    """
    rows = {layer.weight: i for i, layer in enumerate(layers) if layer.kind in _KINDS}
    if not rows:
        return None
    found = np.full((len(layers), BINS), np.nan, np.float32)
    with untouched(model, seed=seed), torch.enable_grad():
        model.train()
        watch = _Inputs({id(p): rows[name] for name, p in model.named_parameters() if name in rows})
        with watch:
            output = call(model, mapped(torch.clone, batch.inputs))  # a model can work in place on what it is given
        try:
            loss = scalar_loss(output, batch.targets, loss_fn)
            gradients = torch.autograd.grad(loss, [x for _, x, _ in watch.seen], allow_unused=True) if watch.seen else ()
        except RuntimeError:  # a reentrant checkpoint refuses autograd.grad
            return found
    steps: dict[int, list[Tensor]] = {}
    for (row, _, time_axis), gradient in zip(watch.seen, gradients, strict=True):
        if gradient is not None:
            steps.setdefault(row, []).append(_norms(gradient, time_axis))
    for row, norms in steps.items():
        binned = _stretches(torch.cat(norms).cpu().numpy())
        found[row] = [stored(float(v), "grad_through_time") for v in binned]
    return found


def forget_bias(model: nn.Module) -> dict[str, float]:
    """Returns the mean forget-gate bias of each LSTM row, both of its bias vectors added; of two directions, the lower.

    A gate that starts at sigmoid(0) = 0.5 forgets a thousandfold within ten steps; a bias of 1 keeps memories from the start (Gers,
    Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015).
    """
    found: dict[str, float] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.LSTMCell):
            biases = {"": [module.bias_ih, module.bias_hh]} if module.bias else {"": []}
        elif isinstance(module, nn.LSTM):
            biases = {f"l{k}{way}": [] for k in range(module.num_layers) for way in ("", "_reverse")[: 1 + module.bidirectional]}
            for key, held in biases.items():
                held += [getattr(module, f"bias_{part}_{key}") for part in ("ih", "hh") if module.bias]
        else:
            continue
        for key, held in biases.items():
            row = ".".join(part for part in (name, level_of(key) if key else "") if part) or "weight_ih"
            value = sum(float(b.detach()[module.hidden_size : 2 * module.hidden_size].mean()) for b in held)
            found[row] = min(value, found.get(row, value))
    return found


class _Inputs(TorchFunctionMode):
    """Keeps the inputs of each recurrent call: its row, the tensor that has a gradient, and its axis of time (None: one step)."""

    def __init__(self, rows: dict[int, int]) -> None:
        super().__init__()
        self.seen: list[tuple[int, Tensor, int | None]] = []
        self._rows = rows

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = ops.function_name(func)
        if name in ops.RECURRENT and not kwargs:
            if name.endswith("_cell"):
                return func(self._kept(args[0], args[2:4], None), *args[1:])
            if isinstance(args[2], (list, tuple)):  # a packed sequence has its weights one place further on
                return self._by_level(func, args)
        return func(*args, **(kwargs or {}))

    def _by_level(self, func: Callable[..., Any], args: Any) -> Any:
        """Runs the levels of one call one after the other, since only so is there a tensor between them."""
        x, state, weights, biased, levels, dropout, training, two_ways, batch_first = args
        parts = state if isinstance(state, (list, tuple)) else (state,)
        ways, count = 1 + two_ways, len(weights) // levels
        ends: list[Sequence[Tensor]] = []
        for k in range(levels):
            own = [part[k * ways : (k + 1) * ways] for part in parts]
            used = list(weights[k * count : (k + 1) * count])
            x = self._kept(x, used, 1 if batch_first else 0)
            with nullcontext() if levels == 1 else torch.backends.cudnn.flags(enabled=False):  # cuDNN warns of weights that lie apart
                x, *end = func(x, own if len(own) > 1 else own[0], used, biased, 1, 0.0, training, two_ways, batch_first)
            ends.append(end)
            x = F.dropout(x, dropout, training) if k + 1 < levels else x
        return (x, *(torch.cat(together) for together in zip(*ends, strict=True)))

    def _kept(self, x: Tensor, weights: Sequence[Tensor], time_axis: int | None) -> Tensor:
        row = next((self._rows[id(w)] for w in weights if id(w) in self._rows), None)
        if row is None:
            return x
        x = x.clone() if x.requires_grad else x.detach().clone().requires_grad_()  # our own: nobody changes it in place
        self.seen.append((row, x, time_axis))
        return x


def _norms(gradient: Tensor, time_axis: int | None) -> Tensor:
    """Returns for each step the mean over samples of the gradient's norm, float64 (time,): a square of 1e-30 is zero in single."""
    wide = gradient.double() if time_axis is None else gradient.double().movedim(time_axis, 0)
    norms: Tensor = torch.linalg.vector_norm(wide, dim=-1)
    return norms.mean().reshape(1) if time_axis is None else norms.reshape(len(norms), -1).mean(1)


def _stretches(norms: Series) -> Series:
    """Returns the means of 32 equal stretches of time; with fewer steps, each is repeated."""
    if len(norms) < BINS:
        return norms[np.arange(BINS) * len(norms) // BINS]
    return np.array([part.mean() for part in np.array_split(norms, BINS)])
