"""What is held back: by regularisation, by parameters that do not learn, by statistics that are not the data's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.edits import frozen, swapped
from benchmarks.faults.fourth.networks import ByHand, NormedTower, Pictures, Signals, Tower, is_of, with_options
from benchmarks.faults.fourth.planting import HELD, LARGE, STILL, UNSTABLE, WHERE, is_classes, is_standard, planted

Optimizer = torch.optim.Optimizer
GAP = ("train_eval_gap", "generalization_failure", "overfitting", *UNSTABLE, "huge_initial_loss")


def _keep_probability(dropout: nn.Module) -> nn.Module:
    assert isinstance(dropout, nn.Dropout)
    return nn.Dropout(0.95)  # what is to be kept, as another library counts


def renormed(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Keeps the weights of each unit within a length of a tenth."""
    loss = steps.plain(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.copy_(p.renorm(2, 0, 0.1))
    return loss


def penalised(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Adds the squares of all weights, with a tenth where 1e-4 was meant."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y) + 0.1 * torch.stack([p.square().sum() for p in model.parameters()]).sum()
    loss.backward()
    optimizer.step()
    return loss


def _head_alone(program: Program) -> Program:
    """Freezes all but the last layer, as for a trained network; this one is not."""
    names = [name for name, _ in program.net.build(0).named_parameters()]
    kept = set(names[-2:])
    return program.edited(frozen(lambda name: name in kept))


def _norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


def norms_frozen(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Keeps norms in eval mode from the first step, as for fine-tuning; their statistics are still 0 and 1."""
    for norm in _norms(model):
        norm.eval()
    return steps.plain(model, batch, loss_fn, optimizer)


def blanks_passed(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Draws the network's graph with an input of zeros after each step, in training mode."""
    loss = steps.plain(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for _ in range(8):
            model(torch.zeros_like(batch[0]))
    return loss


def buffers_averaged(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Averages buffers over steps, as weights may be, and loads the average."""
    kept = optimizer.__dict__.setdefault("_average", [b.clone() for b in model.buffers() if b.is_floating_point()])
    loss = steps.plain(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for average, b in zip(kept, (b for b in model.buffers() if b.is_floating_point()), strict=True):
            average.lerp_(b, 0.001)
            b.copy_(average)
    return loss


def _stepping(step: Any) -> Callable[[Program], Program]:
    return lambda program: program.having(train_step=step)


def _smoothed(program: Program) -> Program:
    return program.having(loss=nn.CrossEntropyLoss(label_smoothing=0.99))


_NORMED = is_of(NormedTower, Pictures, Signals)
_ALL = ("lines-bn-9", "pulses-bn", "stripes-bn")
OPERATORS = (
    planted("smoothing-of-0.99", "over_regularized", _smoothed, ("lines-15", "wave-leaky-17"), HELD, (*WHERE, "targets"),
            fits=is_classes),
    planted("probability-of-keeping", "over_regularized", lambda p: p.edited(swapped((nn.Dropout,), _keep_probability)),
            ("stripes-dropout", "churn"), HELD, ("layers",)),
    planted("renormed-to-a-tenth", "over_regularized", _stepping(renormed), ("figures-plain", "wave-10", "arm"), HELD,
            (*WHERE, "layers"), fits=is_standard),
    planted("penalty-of-a-tenth", "over_regularized", _stepping(penalised), ("hastie", "pulses-rnn"), HELD, (*WHERE, "layers"),
            fits=is_standard),
    planted("matrices-not-parameters", "frozen_params", lambda p: with_options(p, parameters=False), ("flower-by-hand",), STILL,
            ("layers", "optimizer"), fits=is_of(ByHand)),
    planted("untrained-backbone-frozen", "frozen_params", _head_alone, ("lines-tanh-13", "wave-10", "figures-plain"), STILL,
            ("layers", "optimizer")),
    planted("through-numpy", "frozen_params", lambda p: with_options(p, numpy=True), ("roll-tower", "flower-tower"), STILL,
            ("layers", "loop", "optimizer"), fits=is_of(Tower)),
    planted("norms-frozen-from-the-start", "bn_stats", _stepping(norms_frozen), _ALL, (*GAP, *LARGE), ("norms", "loop"), fits=_NORMED,
            also=("missing_normalization_layer",)),
    planted("zeros-to-draw-the-graph", "bn_stats", _stepping(blanks_passed), _ALL[1:], GAP, ("norms", "loop"), fits=_NORMED),
    planted("buffers-averaged-with-weights", "bn_stats", _stepping(buffers_averaged), _ALL[1:], GAP, ("norms", "loop"), fits=_NORMED),
)  # fmt: skip
