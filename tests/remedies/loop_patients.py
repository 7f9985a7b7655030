"""An experiment with a fault -> its diagnosis, what a remedy proposes for it, and the contract that the remedy keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.examine import diagnose_run
from evengrad.judge import chosen_rules
from evengrad.remedies import discovered
from evengrad.report import Report
from evengrad.trace.batch import Batch
from evengrad.training import Experiment, build, first_batch
from evengrad.types import Finding, Proposal, Trace
from tests.remedies.contract import keeps_the_contract, stepped


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net(inputs: int = 6, width: int = 16, out: int = 2, depth: int = 1) -> nn.Module:
    hidden = [layer for k in range(depth) for layer in (nn.Linear(inputs if k == 0 else width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, out))


def sgd(rate: float = 0.1, **options: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), rate, **options)


X = normal(512, 6)
Y = (X[:, 0] + X[:, 1] > 0).long()


def experiment(**changes: Any) -> Experiment:
    """A small problem that a plain network solves."""
    plain = Experiment(net, (X, Y), nn.CrossEntropyLoss(), sgd(0.1), epochs=10, batch_size=32)
    return replace(plain, **changes)


def diagnosis(given: Experiment, select: tuple[str, ...] | None = None) -> Report:
    return diagnose_run(given, chosen_rules(None, select, None), causes=False)[0]


def trace_of(given: Experiment) -> Trace:
    trace = diagnosis(given, ("NUM001",)).trace
    assert trace is not None
    return trace


def found(report: Report, cause: str) -> Finding:
    """The finding of that cause."""
    return next(f for f in report.findings if f.cause == cause)


def blamed(cause: str | None, symptom: str | None = None) -> Finding:
    return Finding(code="XXX001", symptom=symptom, severity="error", message="for a test", cause=cause)


def proposals(name: str, finding: Finding, trace: Trace | None) -> list[Proposal]:
    remedy = discovered()[name]()
    assert trace is not None
    assert remedy.treats(finding)
    assert not remedy.diagnostic
    return list(remedy.propose(finding, trace))


def keeps(given: Experiment, proposal: Proposal, *, batch: Batch | None = None) -> None:
    """Asserts the contract on this patient, whose optimizer has a state."""
    rig = build(given)
    batch = first_batch(rig) if batch is None else batch
    with torch.random.fork_rng():
        stepped(rig, batch)
        keeps_the_contract(discovered()[proposal.remedy](), rig, batch, proposal)
