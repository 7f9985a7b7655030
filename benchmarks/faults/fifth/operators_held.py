"""What is held back: by regularisation, by parameters that do not learn, by statistics that are not the data's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.fifth.networks import NormedDense, NormedImages, NormedSignals
from benchmarks.faults.fifth.planting import edited, is_classes, is_standard, planted, stepping
from benchmarks.faults.fourth.networks import is_of, with_options
from benchmarks.faults.fourth.planting import HELD, LARGE, LOOP, STILL, UNSTABLE, WHERE

Optimizer = torch.optim.Optimizer
GAP = ("train_eval_gap", "generalization_failure", "overfitting", *UNSTABLE, "huge_initial_loss")


def _answers_penalised(program: Program) -> Program:
    loss = program.loss
    return program.having(loss=lambda output, targets: loss(output, targets) + 10 * output.square().mean())


def pulled_to_the_start(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Keeps weights near to where they began, as for fine-tuning (Li 2018); these were drawn."""
    began = optimizer.__dict__.setdefault("_began", [p.detach().clone() for p in model.parameters()])
    x, y = batch
    optimizer.zero_grad()
    far = torch.stack([(p - q).square().sum() for p, q in zip(model.parameters(), began, strict=True)]).sum()
    loss: Tensor = loss_fn(model(x), y) + 3.0 * far
    loss.backward()
    optimizer.step()
    return loss


def erased_all_over(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Erases random patches of each sample until next to nothing is left."""
    x, y = batch
    return steps.plain(model, (x * (torch.rand_like(x) < 0.03), y), loss_fn, optimizer)


def zeroed_before_the_step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Backward, zeros, step."""
    x, y = batch
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss


def step_not_called(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Names the step and does not call it."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    optimizer.step  # noqa: B018
    return loss


def loss_made_anew(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Makes a tensor of the loss's number, so that backward runs without an error, and reaches nothing."""
    x, y = batch
    optimizer.zero_grad()
    loss = torch.tensor(loss_fn(model(x), y).item(), requires_grad=True)
    loss.backward()
    optimizer.step()
    return loss


def first_weights_loaded(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Loads the checkpoint inside the loop over batches."""
    kept = optimizer.__dict__.setdefault("_kept", {name: value.clone() for name, value in model.state_dict().items()})
    model.load_state_dict(kept)
    return steps.plain(model, batch, loss_fn, optimizer)


def class_by_class(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Sends the samples of each class through the network by themselves, as real and made ones are."""
    x, y = batch
    optimizer.zero_grad()
    parts = [(x[y == k], y[y == k]) for k in range(int(y.max()) + 1) if int((y == k).sum()) > 1]
    loss: Tensor = loss_fn(torch.cat([model(part) for part, _ in parts]), torch.cat([labels for _, labels in parts]))
    loss.backward()
    optimizer.step()
    return loss


def _norms(**options: Any) -> Any:
    return lambda program: with_options(program, **options)


_NORMED = is_of(NormedDense, NormedSignals, NormedImages)
_STILL = ("layers", *LOOP, "loss")
OPERATORS = (
    planted("inputs-dropped-by-0.97", "over_regularized", edited(lambda model: nn.Sequential(nn.Dropout(0.97), model)),
            ("glyphs-mlp",), HELD, ("layers", "inputs")),
    planted("answers-penalised", "over_regularized", _answers_penalised, ("soil",), HELD, (*WHERE, "head")),
    planted("pulled-to-the-start", "over_regularized", stepping(pulled_to_the_start), ("credit",), HELD, (*WHERE, "layers"),
            fits=is_standard),
    planted("erased-all-over", "over_regularized", stepping(erased_all_over), ("motions-heads",), HELD, (*WHERE, "inputs"),
            fits=is_standard),
    planted("zeroed-before-the-step", "frozen_params", stepping(zeroed_before_the_step), ("motions-bn",), STILL, _STILL,
            fits=is_standard),
    planted("step-without-parentheses", "frozen_params", stepping(step_not_called), ("phase",), STILL, _STILL,
            fits=is_standard),
    planted("loss-made-anew", "frozen_params", stepping(loss_made_anew), ("trips",), STILL, _STILL, fits=is_standard),
    planted("checkpoint-loaded-in-the-loop", "frozen_params", stepping(first_weights_loaded), ("glyphs-dense",), STILL,
            _STILL, fits=is_standard),
    planted("one-norm-for-all-layers", "bn_stats", _norms(norms="one"), ("motions-bn", "glyphs-bn"), GAP,
            ("norms", "layers"), fits=_NORMED),
    planted("functional-norm-as-by-default", "bn_stats", _norms(norms="functional"), ("motions-bn",), (*GAP, *LARGE), ("norms", "layers"),
            fits=_NORMED, also=("missing_normalization_layer",)),
    planted("class-by-class", "bn_stats", stepping(class_by_class), ("motions-bn", "glyphs-bn"), GAP, ("norms", "loop"),
            fits=lambda p: _NORMED(p) and is_classes(p)),
)  # fmt: skip
