"""A plain step in place of the user's tells faults of the loop from those of the network, and names them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.examine import diagnose_run
from evengrad.remedies.standard_step import StandardStep
from evengrad.rig import Rig
from evengrad.training import Experiment, build, train
from evengrad.types import Finding, Proposal

X = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + X[:, 1] > 0).long()
STUCK = Finding(code="OPT002", symptom="loss_stuck", severity="error", message="1")


def never_zeroed(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()


def uphill(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    (-loss).backward()
    optimizer.step()


def clipped(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-5)
    optimizer.step()


def penalised(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    (loss + 2.0 * sum(p.abs().sum() for p in model.parameters())).backward()
    optimizer.step()


def zeroed_too_early(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()


def evaluating(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    model.eval()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def experiment(change: Any) -> Experiment:
    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        inputs, targets = batch
        loss: Tensor = loss_fn(model(inputs), targets)
        change(model, loss, optimizer)
        return loss

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))

    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), 0.1)

    return Experiment(network, (X, Y), nn.CrossEntropyLoss(), sgd, epochs=4, batch_size=32, train_step=None if change is None else step)


def proposals(given: Experiment) -> list[Proposal]:
    trace = diagnose_run(given, [], causes=False)[0].trace
    assert trace is not None
    return list(StandardStep().propose(STUCK, trace))


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (never_zeroed, "missing_zero_grad"),
        (uphill, "sign_error"),
        (penalised, "over_regularized"),
        (clipped, "over_clipped"),
        (zeroed_too_early, "frozen_params"),
        (evaluating, "bn_stats"),
    ],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_restores_training_and_names_what_the_step_did(step: Any, cause: str) -> None:
    given = experiment(step)
    (proposal,) = proposals(given)
    assert proposal.cause == cause
    plain, repaired = train(experiment(None)), train(given.repaired([proposal]))
    assert repaired.losses.tolist() == plain.losses.tolist()


def test_a_standard_loop_is_left_alone() -> None:
    assert proposals(experiment(None)) == []


def test_undo_puts_the_step_and_the_modes_back() -> None:
    rig = build(experiment(evaluating))
    rig.model.eval()
    own = rig.train_step
    undo = StandardStep().apply(rig, Proposal(remedy="standard_step"))
    assert (rig.train_step, rig.model.training) == (None, True)
    undo()
    assert (rig.train_step, rig.model.training) == (own, False)
    with pytest.raises(InputError, match="standard_step needs an optimizer; give"):
        StandardStep().apply(Rig(rig.model), Proposal(remedy="standard_step"))
