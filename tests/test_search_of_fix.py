"""Sets of changes come in a sensible order, trainings are done once, in parallel and after an end, and what was learned guards a run."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad import synthetic
from evengrad.candidates import alternatives, candidates
from evengrad.errors import EvengradError, InputError
from evengrad.monitor.guards.limits import Limits, learned
from evengrad.parallel import can_fork, each
from evengrad.report import Report
from evengrad.training import Experiment, train
from evengrad.trial import Trainings
from evengrad.types import Curve, Finding, Intervention, Proposal

needs_fork = pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here")


def proposal(remedy: str, cause: str, summary: str = "") -> Proposal:
    return Proposal(remedy=remedy, cause=cause, summary=summary or remedy)


def report(proposals: list[Proposal], causes: tuple[str, ...] = (), tried: tuple[Intervention, ...] = ()) -> Report:
    trace = synthetic.chain(3, grad_norm=1.0)
    found = Finding(code="VAN001", symptom="vanishing_gradient", severity="error", message="1")
    return Report(run=trace.run, findings=(found,), proposals=tuple(proposals), causes=causes, interventions=tried)


def tried(change: Proposal, *, restored: bool) -> Intervention:
    return Intervention(proposal=change, cause=change.cause, code="VAN001", signal="s", before=0.0, after=1.0, restored=restored)


def small(**changes: Any) -> Experiment:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    given: dict[str, Any] = {"epochs": 2, "batch_size": 16} | changes
    return Experiment(
        lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)),
        (x, y),
        nn.CrossEntropyLoss(),
        lambda model: torch.optim.SGD(model.parameters(), 0.1),
        **given,
    )


# ---------------------------------------------------------------- order


def test_what_removes_the_first_cause_comes_first_then_all_causes_together() -> None:
    rate, loss, norm = proposal("lower_rate", "lr_too_high"), proposal("replace_loss", "wrong_loss"), proposal("batch_norm", "other")
    found = candidates(report([norm, rate, loss], ("wrong_loss", "lr_too_high")))
    assert found[:3] == [(loss,), (loss, rate), (rate,)]
    assert found[3] == (norm,)


def test_what_an_intervention_showed_to_work_goes_before_what_was_not_tried_and_what_failed_is_last() -> None:
    failed, untried, works = (proposal("initialize", "c", s) for s in ("failed", "untried", "works"))
    interventions = (tried(failed, restored=False), tried(works, restored=True))
    assert candidates(report([failed, untried, works], ("c",), interventions)) == [(works,), (untried,), (failed,)]


def test_nothing_is_added_twice_nor_a_second_norm() -> None:
    norm, other, rate = proposal("batch_norm", "a"), proposal("layer_norm", "a"), proposal("lower_rate", "b")
    assert candidates(report([norm, other, rate], ("a", "b")), (norm,)) == [(norm, rate)]


def test_other_causes_of_a_finding_are_tried_last_and_where_its_cause_is_named_only_if_all_else_failed() -> None:
    trace = synthetic.chain(3, grad_norm=1.0)
    trace = replace(trace, facts=replace(trace.facts, optimizer={"name": "SGD", "lr": 0.1}, loop={"epochs": 2, "steps": 20}))
    slow = Finding(code="OPT004", symptom="slow_convergence", severity="error", message="1")
    own = proposal("momentum", "lr_too_low")
    told = replace(report([own]), findings=(slow,), trace=trace)
    found = candidates(told)
    assert found[0] == (own,)
    assert {"lr_too_low", "undertrained"} <= {p.cause for (p,) in found[1:]}
    assert alternatives(told) == []
    named = replace(told, findings=(replace(slow, cause="lr_too_low"),), causes=("lr_too_low",))
    assert candidates(named) == [(own,)]
    assert "undertrained" in {p.cause for (p,) in alternatives(named)}
    assert "lr_too_low" not in {p.cause for (p,) in alternatives(named)}


# ---------------------------------------------------------------- trainings


def test_a_training_is_done_once_and_kept_in_a_file(tmp_path: Path) -> None:
    experiment, file = small(), tmp_path / "kept" / "fix.jsonl"
    change = proposal("clip_norm", "no_grad_clip")
    change = replace(change, options={"max_norm": 1e-3})
    first, said = train(experiment, seed=0), []
    before = Trainings(experiment, first, keep=file, progress=said.append).metrics([(), (change,)], [0, 1])
    assert len(said) == 4
    with file.open("a") as held:
        held.write('["cut off')  # as when the process was ended while it wrote
    again = Trainings(experiment, first, keep=file, progress=said.append)
    assert again.metrics([(), (change,)], [0, 1]) == before
    assert len(said) == 4
    assert again.metrics([(change,)], [0], steps=2) != [(before[1][0],)] or len(said) == 5


def test_a_file_of_another_experiment_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "fix.jsonl"
    Trainings(small(), train(small(), seed=0), keep=file)
    content = file.read_bytes()
    other = small(epochs=3)
    with pytest.raises(InputError, match="of another experiment, or of this one before it was changed; give another name"):
        Trainings(other, train(other, seed=0), keep=file)
    assert file.read_bytes() == content
    file.write_text("something else\n")
    with pytest.raises(InputError, match="is no file of kept trainings"):
        Trainings(small(), train(small(), seed=0), keep=file)
    assert file.read_text() == "something else\n"


def test_fix_goes_on_from_the_file_and_finds_the_same(tmp_path: Path) -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    experiment = replace(small(), data=(1e4 * x, (x[:, 0] > 0).long()))
    file = tmp_path / "fix.jsonl"
    result = eg.fix(experiment, seeds=2, keep=file)
    kept = len(file.read_text().splitlines())
    again = eg.fix(experiment, seeds=2, keep=file)
    assert again.verdict == result.verdict
    assert again.chosen == result.chosen
    assert [o.after for o in again.outcomes] == [o.after for o in result.outcomes]
    tasks = [tuple(map(json.dumps, json.loads(line)[:3])) for line in file.read_text().splitlines()[1:]]
    assert len(set(tasks)) == len(set(tasks[: kept - 1]))  # no training was needed that was not kept


@needs_fork
def test_several_trainings_at_a_time_give_the_same_numbers() -> None:
    experiment = small()
    first = train(experiment, seed=0)
    sets = [(), (replace(proposal("clip_norm", "no_grad_clip"), options={"max_norm": 0.01}),)]
    alone = Trainings(experiment, first).metrics(sets, [0, 1, 2])
    assert Trainings(experiment, first, workers=2).metrics(sets, [0, 1, 2]) == alone


@needs_fork
def test_results_of_forked_processes_come_in_order_and_their_errors_are_raised() -> None:
    assert each(lambda n: n * n, [3, 1, 2], workers=2) == [9, 1, 4]
    assert each(lambda n: os.getpid(), [1, 2], workers=2) != [os.getpid()] * 2

    def fails(n: int) -> int:
        raise InputError(f"number {n}") if n == 2 else ZeroDivisionError("one")

    with pytest.raises(InputError, match="number 2"):
        each(fails, [2, 2], workers=2)
    with pytest.raises(EvengradError, match="ZeroDivisionError: one"):
        each(fails, [1, 1], workers=2)
    with pytest.raises(EvengradError, match="ended without a result"):
        each(lambda n: os._exit(1), [1, 2], workers=2)


# ---------------------------------------------------------------- judging and guarding


def test_where_the_loss_is_at_fault_another_one_judges() -> None:
    x = torch.randn(128, 4, generator=torch.Generator().manual_seed(0))
    y = x @ torch.tensor([[1.0], [-1.0], [0.5], [0.0]])

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        return -nn.functional.mse_loss(output, targets)

    experiment = Experiment(
        lambda: nn.Linear(4, 1), (x, y), loss, lambda model: torch.optim.SGD(model.parameters(), 0.05), epochs=12, batch_size=32
    )
    result = eg.fix(experiment, seeds=2)
    assert result.verdict == "fixed"
    best = next(o for o in result.outcomes if o.proposals == result.chosen)
    assert best.metric != "-loss"  # by its own loss, what diverges is best
    assert all(a > -0.1 for a in best.after)


def test_limits_clip_gradients_and_hold_the_rate() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    before = [p.detach().clone() for p in model.parameters()]
    with eg.watch(model, optimizer, guard=Limits(threshold=0.5, max_lr=0.1)) as monitor:
        (1e3 * model(torch.ones(4, 3)).sum()).backward()
        optimizer.step()
    moved = torch.cat([(a - b.detach()).flatten() for a, b in zip(before, model.parameters(), strict=True)])
    assert float(torch.linalg.vector_norm(moved)) == pytest.approx(0.05, rel=1e-4)  # the rate times the norm
    assert [e.kind for e in monitor.trace.events] == ["clip"]


def test_what_a_repaired_run_did_is_its_limit() -> None:
    trace = synthetic.chain(3, grad_norm=1.0)
    steps = np.arange(40)
    curves = {"grad_norm": Curve(steps, np.full(40, 2.0)), "lr": Curve(steps, np.linspace(0.1, 0.3, 40))}
    limits = learned(replace(trace, curves=curves))
    assert limits.max_lr == pytest.approx(0.3)
    assert limits.threshold == pytest.approx(2.0 * 10 ** (3 * 0.25))  # three deviations of at least a quarter of a decade
    assert learned(replace(trace, curves={})).max_lr is None
