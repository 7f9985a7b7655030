"""What is held back: by regularisation, by parameters that do not learn, by statistics that are not the data's."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.edits import frozen
from benchmarks.faults.fourth.networks import is_of, with_options
from benchmarks.faults.fourth.planting import HELD, LARGE, LOOP, STILL, UNSTABLE, WHERE
from benchmarks.faults.sixth.networks import Layers, ResNet, Vgg
from benchmarks.faults.sixth.planting import edited, is_standard, options, planted, stepping

Optimizer = torch.optim.Optimizer
GAP = ("train_eval_gap", "generalization_failure", "overfitting", *UNSTABLE, "huge_initial_loss")


def _penalty_of_weights(program: Program) -> Program:
    """An L1 penalty whose weight is far too large."""

    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        loss: Tensor = loss_fn(model(x), y) + 0.05 * torch.stack([p.abs().sum() for p in model.parameters()]).sum()
        loss.backward()
        optimizer.step()
        return loss

    return program.having(train_step=step)


def _of_a_copy(model: nn.Module) -> Iterable[nn.Parameter]:
    return copy.deepcopy(model).parameters()  # the optimizer was made of the model before it was built anew


def _first_alone(model: nn.Module) -> Iterable[nn.Parameter]:
    return list(model.parameters())[:2]  # a list of layers that is no ModuleList would give no more


def evaluated_after_an_epoch(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Calls `model.eval()` to validate behind the first epoch (28 batches), and never `model.train()` again."""
    taken = optimizer.__dict__.setdefault("_taken", [0])
    taken[0] += 1
    if taken[0] > 28:
        model.eval()
    return steps.plain(model, batch, loss_fn, optimizer)


def evaluated_all_along(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Trains in eval mode from the first step on."""
    model.eval()
    return steps.plain(model, batch, loss_fn, optimizer)


def in_a_no_grad(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Computes features within `torch.no_grad()`, as for a backbone that was trained."""
    assert isinstance(model, nn.Sequential)
    x, y = batch
    optimizer.zero_grad()
    with torch.no_grad():
        for module in list(model)[:-1]:
            x = module(x)
    loss: Tensor = loss_fn(model[-1](x), y)
    loss.backward()
    optimizer.step()
    return loss


def _momentum(value: float) -> Any:
    return lambda program: with_options(program, momentum=value)


_NORMED = is_of(Layers, Vgg, ResNet)
_IS_LAYERS = is_of(Layers)
_STILL = ("layers", *LOOP, "loss")
_NORM = ("norms", "layers")
OPERATORS = (
    planted("weight-decay-of-0.5", "over_regularized", lambda p: p.with_options(weight_decay=0.5),
            ("digits-sgd",), HELD, WHERE),
    planted("ninety-five-percent-dropped", "over_regularized", options(drop=0.95), ("pixels-adam",), HELD, ("layers",),
            fits=_IS_LAYERS),
    planted("a-large-l1-penalty", "over_regularized", _penalty_of_weights, ("cancer-bce",), HELD, (*WHERE, "layers"),
            fits=is_standard),
    planted("optimizer-of-the-model-before", "frozen_params", lambda p: p.having(trained=_of_a_copy), ("demand",), STILL,
            _STILL),
    planted("first-layer-given-alone", "frozen_params", lambda p: p.having(trained=_first_alone), ("clothes-plain-20",), STILL,
            _STILL),
    planted("all-but-the-head-frozen", "frozen_params", edited(frozen(lambda name: name.startswith(("fc", "28", "head")))),
            ("digits-plain-14",), STILL, _STILL),
    planted("features-within-no-grad", "frozen_params", stepping(in_a_no_grad), ("houses",), STILL, _STILL,
            fits=_IS_LAYERS),
    planted("eval-mode-after-an-epoch", "bn_stats", stepping(evaluated_after_an_epoch), ("digits-bn-12",), (*GAP, *LARGE),
            ("norms", "layers", "loop"), fits=_NORMED, also=("missing_normalization_layer",)),
    planted("eval-mode-all-along", "bn_stats", stepping(evaluated_all_along), ("digits-bn-12",), (*GAP, *LARGE),
            ("norms", "layers", "loop"), fits=_NORMED, also=("missing_normalization_layer",)),
    planted("momentum-the-other-way-around", "bn_stats", _momentum(1e-3), ("resnet",), GAP, _NORM, fits=_NORMED),
)  # fmt: skip
