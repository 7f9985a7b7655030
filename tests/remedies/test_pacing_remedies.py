"""Warm-up, schedules, longer training and larger batches: each where a run calls for it, and with what follows for the schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evengrad import synthetic
from evengrad.errors import InputError
from evengrad.remedies import discovered
from evengrad.remedies.larger_batch import joined
from evengrad.remedies.pacing import Paced
from evengrad.remedies.smaller_batch import cut
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.training import build, first_batch, train
from evengrad.types import Facts, Proposal, Trace
from tests.remedies.contract import stepped
from tests.remedies.loop_patients import X, Y, blamed, diagnosis, experiment, found, keeps, net, normal, proposals, sgd, trace_of

Schedule = Callable[[torch.optim.Optimizer], Any]


def cosine(steps: int) -> Schedule:
    return lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def rates_of(schedule: Schedule | None, changes: list[Proposal], steps: int) -> list[float]:
    """The first group's rate at each step."""
    rig = build(experiment(scheduler=schedule, repairs=tuple(changes)))
    assert rig.optimizer is not None
    seen = []
    for _ in range(steps):
        seen.append(float(rig.optimizer.param_groups[0]["lr"]))
        stepped(rig, first_batch(rig))
    return seen


# ---------------------------------------------------------------- warmup


class PostNorm(nn.Module):
    """Residual blocks with the norm behind the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.out = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(self.first(x[:, None])).mean(1))


def test_a_warm_up_takes_the_finding_of_its_absence_away() -> None:
    given = experiment(model=PostNorm, optimizer=lambda m: torch.optim.Adam(m.parameters(), 2e-3), epochs=2)
    report = diagnosis(given, ("ARC007",))
    made = proposals("warmup", found(report, "no_warmup"), report.trace)
    assert [p.options["steps"] for p in made] == [10, 3]  # of 32 that are planned
    assert not diagnosis(given.repaired(made[:1]), ("ARC007",)).findings
    keeps(given, made[0])


@pytest.mark.parametrize("scheduled", [False, True])
def test_the_rate_rises_evenly_and_the_schedule_starts_behind_it(scheduled: bool) -> None:
    schedule = cosine(10) if scheduled else None
    plain = rates_of(schedule, [], 8)
    seen = rates_of(schedule, [Proposal(remedy="warmup", options={"steps": 4})], 11)
    assert seen[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert seen[3:] == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("scheduled", [False, True])
def test_the_code_of_a_warm_up_gives_the_same_rates(scheduled: bool) -> None:
    made = proposals("warmup", blamed("no_warmup"), trace_of(experiment(scheduler=cosine(200) if scheduled else None)))[0]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    scope = {"torch": torch, "optimizer": optimizer, "scheduler": cosine(200)(optimizer) if scheduled else None}
    lines = [line[1:] for line in made.code.splitlines() if line.startswith("+") and "step()" not in line]
    exec("\n".join(lines), scope)
    seen = []
    for _ in range(60):
        seen.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scope["scheduler"].step()
    assert seen == pytest.approx(rates_of(cosine(200) if scheduled else None, [made], 60), rel=1e-9)


def test_a_lower_rate_under_a_warm_up_is_lower_all_along() -> None:
    warm = Proposal(remedy="warmup", options={"steps": 4})
    lower = Proposal(remedy="lower_rate", options={"factor": 0.1})
    plain = rates_of(cosine(10), [warm], 9)
    assert rates_of(cosine(10), [warm, lower], 9) == pytest.approx([0.1 * r for r in plain], rel=1e-9)


def test_a_warmed_up_schedule_goes_on_from_its_saved_state() -> None:
    change = Proposal(remedy="warmup", options={"steps": 4})
    rigs = [build(experiment(scheduler=cosine(10), repairs=(change,))) for _ in range(2)]
    for _ in range(6):
        stepped(rigs[0], first_batch(rigs[0]))
    for part in ("optimizer", "scheduler"):
        getattr(rigs[1], part).load_state_dict(getattr(rigs[0], part).state_dict())
    for rig in rigs:
        stepped(rig, first_batch(rig))
    assert rigs[0].optimizer.param_groups[0]["lr"] == rigs[1].optimizer.param_groups[0]["lr"]  # type: ignore[union-attr]


# ---------------------------------------------------------------- schedules


def collapsing(optimizer: torch.optim.Optimizer) -> Any:
    """A schedule for epochs that is stepped after each batch."""
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)


@pytest.mark.parametrize("name", ["constant_rate", "cosine_rate"])
def test_another_schedule_takes_the_finding_of_a_broken_one_away_and_training_works(name: str) -> None:
    given = experiment(scheduler=collapsing)
    report = diagnosis(given, ("OPT013",))
    (made,) = proposals(name, found(report, "scheduler_bug"), report.trace)
    repaired = given.repaired([made])
    assert not diagnosis(repaired, ("OPT013",)).findings
    assert train(given).metric < 0.9 < train(repaired).metric
    keeps(given, made)


def test_the_constant_rate_is_the_one_that_was_given() -> None:
    whole_numbers: Schedule = lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: step // 100)  # noqa: E731
    assert rates_of(whole_numbers, [], 3) == [0.0, 0.0, 0.0]
    assert rates_of(whole_numbers, [Proposal(remedy="constant_rate")], 3) == [0.1, 0.1, 0.1]


def test_a_cosine_falls_from_the_given_rate_to_zero() -> None:
    seen = rates_of(None, [Proposal(remedy="cosine_rate", options={"steps": 8})], 9)
    assert seen == pytest.approx([0.05 * (1 + np.cos(np.pi * k / 8)) for k in range(9)], abs=1e-12)


def test_a_loss_that_swings_under_a_constant_rate_gets_a_falling_one() -> None:
    plain = trace_of(experiment())
    assert [p.cause for p in proposals("cosine_rate", blamed(None, "oscillating_loss"), plain)] == ["lr_too_high"]
    assert proposals("cosine_rate", blamed("missing_zero_grad", "oscillating_loss"), plain) == []
    assert proposals("cosine_rate", blamed(None, "oscillating_loss"), trace_of(experiment(scheduler=cosine(160)))) == []


# ---------------------------------------------------------------- train_longer


def test_a_run_that_was_too_short_is_longer_and_comes_further() -> None:
    given = experiment(epochs=1, optimizer=sgd(0.02), batch_size=64)
    report = diagnosis(given)
    made = proposals("train_longer", found(report, "undertrained"), report.trace)
    assert [p.options["factor"] for p in made] == [63, 252]  # 500 steps in place of 8, and four times as many
    before, after = train(given), train(given.repaired(made[:1]))
    assert len(after.losses) == 63 * len(before.losses)
    assert after.metric > 0.95 > before.metric
    keeps(given, made[0])
    rig = build(given)
    undo = discovered()["train_longer"]().apply(rig, made[0])
    assert rig.epochs == 63
    undo()
    assert rig.epochs == 1


def test_a_run_of_many_steps_is_four_times_as_long_and_then_sixteen() -> None:
    made = proposals("train_longer", blamed("undertrained"), trace_of(experiment()))  # 160 steps
    assert [p.options["factor"] for p in made] == [4, 16]


def test_a_schedule_is_stretched_over_the_longer_run() -> None:
    plain = rates_of(cosine(10), [], 10)
    seen = rates_of(cosine(10), [Proposal(remedy="train_longer", options={"factor": 4})], 40)
    assert seen[::4] == plain
    assert seen == [rate for rate in plain for _ in range(4)]


@pytest.mark.parametrize("pace", [1 / 3, 0.25, 1.0, 2.5, 4.0])
def test_a_pace_is_kept_exactly(pace: float) -> None:
    class Count:
        steps = 0

        def step(self) -> None:
            self.steps += 1

    count = Count()
    schedule = Paced(count, pace)
    for k in range(1, 61):
        schedule.step()
        assert count.steps == int(k * pace + 1e-9)


def test_a_long_run_is_not_made_sixteen_times_as_long() -> None:
    made = proposals("train_longer", blamed("undertrained"), trace_of(experiment(epochs=100)))
    assert [p.options["factor"] for p in made] == [4]


# ---------------------------------------------------------------- smaller_batch


def test_large_batches_are_cut_into_more_steps_and_learn_more() -> None:
    given = experiment(epochs=2, optimizer=sgd(0.05), batch_size=256)
    (made,) = proposals("smaller_batch", blamed("undertrained"), trace_of(given))
    before, after = train(given), train(given.repaired([made]))
    assert len(after.losses) == 8 * len(before.losses)
    assert after.metric > before.metric + 0.05
    assert proposals("smaller_batch", blamed("undertrained"), trace_of(experiment(batch_size=64))) == []
    keeps(given, made)


def test_parts_of_a_batch_hold_each_sample_once_along_either_axis() -> None:
    x, hidden, fixed = torch.arange(10.0).reshape(5, 2), torch.arange(15).reshape(3, 5), torch.zeros(7)
    parts = list(cut(lambda _epoch: iter([Batch((x, hidden, fixed), x[:, 0])]), 4, 0))
    assert [p.samples for p in parts] == [2, 3]
    assert torch.equal(torch.cat([p.inputs[0] for p in parts]), x)
    assert torch.equal(torch.cat([p.inputs[1] for p in parts], 1), hidden)
    assert all(p.inputs[2] is fixed for p in parts)
    assert torch.equal(torch.cat([p.targets for p in parts]), x[:, 0])


# ---------------------------------------------------------------- larger_batch


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


def test_larger_batches_take_the_finding_of_tiny_ones_away() -> None:
    given = experiment(model=normed, batch_size=2, epochs=1, data=(X[:128], Y[:128]))
    report = diagnosis(given, ("NRM002",))
    made = proposals("larger_batch", found(report, "batch_too_small"), report.trace)
    assert [(p.options["factor"], p.options["epochs"]) for p in made] == [(16, 4), (8, 4)]
    assert not diagnosis(given.repaired(made[:1]), ("NRM002",)).findings
    assert len(train(given.repaired(made[:1])).losses) == 4 * 4
    rig = build(given)
    undo = discovered()["larger_batch"]().apply(rig, made[0])
    assert first_batch(rig).samples == 32
    undo()
    assert (first_batch(rig).samples, rig.epochs) == (2, 1)


def test_large_batches_are_left_alone() -> None:
    assert proposals("larger_batch", blamed("batch_too_small"), trace_of(experiment(batch_size=64))) == []


@pytest.mark.parametrize(("count", "sizes"), [(12, [6, 6]), (13, [6, 7]), (5, [5]), (17, [6, 11]), (2, [2])])
def test_batches_are_joined_in_order_and_none_is_small(count: int, sizes: list[int]) -> None:
    def source(epoch: int) -> Any:
        return (Batch({"a": torch.tensor([[float(k)]])}, torch.tensor([k + 100 * epoch])) for k in range(count))

    batches = list(joined(source, 6, 1))
    assert [b.samples for b in batches] == sizes
    assert torch.cat([b.targets for b in batches]).tolist() == [k + 100 for k in range(count)]
    assert torch.cat([b.inputs["a"] for b in batches])[:, 0].tolist() == list(range(count))


def test_sequences_whose_first_axis_is_time_are_joined_along_samples() -> None:
    def source(epoch: int) -> Any:
        return (Batch(normal(5, 2, 3, seed=k), torch.tensor([k, k])) for k in range(2))

    (batch,) = joined(source, 2, 0)
    assert batch.inputs.shape == (5, 4, 3)


def test_batches_of_different_shapes_are_refused_in_words() -> None:
    def source(epoch: int) -> Any:
        return (Batch(normal(2, 3 + k), torch.tensor([0, 1])) for k in range(2))

    with pytest.raises(InputError, match="cannot be joined"):
        list(joined(source, 2, 0))


def test_a_schedule_is_fitted_to_the_steps_that_remain() -> None:
    plain = rates_of(cosine(16), [], 16)
    seen = rates_of(cosine(16), [Proposal(remedy="larger_batch", options={"factor": 4, "epochs": 2})], 8)
    assert seen == plain[::2]


def test_what_needs_an_optimizer_says_so() -> None:
    for name, options in (("warmup", {"steps": 2}), ("constant_rate", {}), ("cosine_rate", {"steps": 2})):
        with pytest.raises(InputError, match=f"{name} needs an optimizer; give"):
            discovered()[name]().apply(Rig(net()), Proposal(remedy=name, options=options))


def test_nothing_is_proposed_without_the_evidence() -> None:
    bare: Trace = replace(synthetic.chain(3), facts=Facts())
    for name, cause in (("warmup", "no_warmup"), ("constant_rate", "scheduler_bug"), ("cosine_rate", "scheduler_bug")):
        assert proposals(name, blamed(cause), bare) == []
    assert proposals("train_longer", blamed("undertrained"), bare) == []
