"""A fault that only training shows is trained for again with each change, as far as the budget goes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from evengrad import examine
from evengrad.changes import proposed
from evengrad.examine import diagnose_run
from evengrad.intervene import Bench, add_causes
from evengrad.judge import chosen_rules
from evengrad.recording import Recording
from evengrad.replays import Replays
from evengrad.report import Report
from evengrad.training import Experiment, again, train
from evengrad.types import Finding, Trace

X = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + X[:, 1] > 0).long()
RULES = {rule.code: rule for rule in chosen_rules()}


def experiment(lr: float) -> Experiment:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))

    return Experiment(network, (X, Y), nn.CrossEntropyLoss(), lambda m: torch.optim.SGD(m.parameters(), lr), epochs=20, batch_size=32)


def traced(given: Experiment) -> Trace:
    trace = diagnose_run(given, [], causes=False)[0].trace
    assert trace is not None
    return trace


def stuck(step: int = 0, code: str = "OPT002", symptom: str = "loss_stuck") -> Finding:
    return Finding(code=code, symptom=symptom, severity="error", message="1", steps=(step, step))


def tried(given: Experiment, finding: Finding, steps: int = 1000, until: float = math.inf) -> tuple[list[tuple[str, bool]], dict[str, str]]:
    trace = traced(given)
    replays = Replays(given, RULES, trace, seed=0, steps=steps, until=until)
    found = replays.tried([finding], proposed([finding], trace))
    return [(i.cause, i.restored) for i in found], replays.skipped


def test_the_first_change_that_brings_learning_about_ends_the_search() -> None:
    found, skipped = tried(experiment(3e-3), stuck())
    assert found[-1] == ("lr_too_low", True)
    assert ("lr_too_high", False) in found
    assert not any(restored for _, restored in found[:-1])
    assert skipped == {}


def test_nothing_is_tried_beyond_the_budget_and_the_report_says_so() -> None:
    for budget in ({"steps": 0}, {"until": 0.0}):
        found, skipped = tried(experiment(3e-3), stuck(), **budget)
        assert found == []
        assert "budget" in skipped["some changes"]


def test_a_change_begun_within_the_budget_of_steps_is_the_last() -> None:
    found, skipped = tried(experiment(3e-3), stuck(), steps=1)
    assert len(found) == 1
    assert "budget" in skipped["some changes"]


def test_a_fault_later_than_a_replay_reaches_is_not_called_restored() -> None:
    found, skipped = tried(experiment(0.1), stuck(250, "ACT001", "dead_relu"))
    assert found == []
    assert "step 250" in skipped["causes of late faults"]


def test_the_loss_after_as_many_steps_is_what_counts() -> None:
    trace = traced(experiment(3e-3))
    replays = Replays(experiment(3e-3), RULES, trace, seed=0, steps=1000, until=math.inf)
    found = replays.tried([stuck()], proposed([stuck()], trace))
    steps = len(trace.curves["loss"].values) // 8
    assert {i.signal for i in found} == {f"loss_after_{steps}_steps"}
    assert found[-1].before == float(np.mean(trace.curves["loss"].values[:steps][-(steps // 4) :]))
    assert found[-1].after < 0.75 * found[-1].before


def one_bad_batch(count: int = 1) -> Experiment:
    """A training in which the batch of step 100 (and of some after it) is a thousand times too large, and nobody clips."""
    batches = [(X[i], Y[i]) for i in (torch.arange(32) + 32 * k for k in range(8))]
    order = [batches[k % 8] for k in range(160)]
    for k in range(100, 100 + count):
        order[k] = (1000 * order[k][0], 1 - order[k][1])

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))

    def adam(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), 0.01)

    return Experiment(network, lambda: iter(order), nn.CrossEntropyLoss(), adam, epochs=1)


def recorded(given: Experiment) -> tuple[Recording, Trace]:
    recording = Recording(loop={})
    result = train(given, watcher=recording)
    return recording, recording.trace(result.losses)


def test_the_steps_around_a_jump_are_met_again_from_a_snapshot() -> None:
    recording, trace = recorded(one_bad_batch())
    snapshot = recording.snapshot
    assert snapshot is not None
    assert snapshot.jump == 100
    assert 0 < snapshot.step <= 96
    losses = again(one_bad_batch(), snapshot, [], seed=0)
    np.testing.assert_array_equal(losses, trace.curves["loss"].values[snapshot.step : snapshot.step + len(losses)])
    assert snapshot.step + len(losses) > 110


def test_a_change_is_judged_by_how_far_the_loss_still_jumps() -> None:
    given = one_bad_batch()
    recording, trace = recorded(given)
    spike = stuck(100, "OPT006", "loss_spike")
    replays = Replays(given, RULES, trace, seed=0, steps=1000, until=math.inf, snapshot=recording.snapshot)
    found = replays.tried([spike], proposed([spike], trace))
    assert found
    assert {i.signal for i in found} == {"highest_loss"}
    assert {i.proposal.remedy for i in found} <= {"lower_rate", "clip_norm", "clip_value"}
    assert all(i.before == trace.curves["loss"].values[90:].max() for i in found)


def test_a_calm_run_leaves_no_snapshot() -> None:
    recording, _ = recorded(experiment(0.1))
    assert recording.snapshot is None


def test_a_diagnosis_hands_the_steps_around_the_jump_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Bench] = []

    def looked_at(report: Report, bench: Bench) -> Report:
        seen.append(bench)
        return add_causes(report, bench)

    monkeypatch.setattr(examine, "add_causes", looked_at)
    report = diagnose_run(one_bad_batch(12), list(RULES.values()))[0]
    assert report.findings
    (bench,) = seen
    assert bench.snapshot is not None
    assert bench.snapshot.jump == 100
    assert {i.signal for i in report.interventions} == {"highest_loss"}
