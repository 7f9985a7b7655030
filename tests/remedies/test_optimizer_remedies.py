"""Adam, momentum and weight decay: the optimizer is another one, and everything that hung on it follows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from evengrad.errors import InputError
from evengrad.remedies import discovered
from evengrad.rig import Rig
from evengrad.training import build, first_batch, train
from evengrad.types import Proposal
from tests.remedies.contract import snapshot, stepped
from tests.remedies.loop_patients import X, blamed, diagnosis, experiment, found, keeps, net, proposals, sgd, trace_of
from tests.remedies.test_each import SCHEDULES

UNEVEN = X * torch.logspace(-1.3, 0.0, 6)  # a narrow valley: features of very different size
SLOW = experiment(data=(UNEVEN, (UNEVEN[:, 0] > 0).long()), optimizer=sgd(0.03))


# ---------------------------------------------------------------- minimize


def test_an_optimizer_that_maximizes_is_turned_round() -> None:
    uphill = experiment(optimizer=sgd(0.1, maximize=True))
    (made,) = proposals("minimize", blamed("sign_error"), trace_of(uphill))
    assert train(uphill.repaired([made])).losses.tolist() == train(experiment(optimizer=sgd(0.1))).losses.tolist()
    assert proposals("minimize", blamed("sign_error"), trace_of(experiment(optimizer=sgd(0.1)))) == []
    keeps(uphill, made)


# ---------------------------------------------------------------- adam


def test_adam_learns_where_gradient_descent_is_slow() -> None:
    made = proposals("adam", blamed(None, "slow_convergence"), trace_of(SLOW))
    assert [p.options["lr"] for p in made] == [1e-3, 1e-2]
    assert train(SLOW).metric < 0.7
    assert train(SLOW.repaired(made[1:])).metric > 0.9
    for proposal in made:
        keeps(SLOW, proposal)


def test_adam_is_torchs_adam() -> None:
    made = experiment(repairs=(Proposal(remedy="adam", options={"lr": 3e-3}),))
    theirs = experiment(optimizer=lambda m: torch.optim.Adam(m.parameters(), 3e-3))
    assert train(made).losses.tolist() == train(theirs).losses.tolist()


def test_groups_keep_their_ratios_and_their_decay() -> None:
    def groups(model: nn.Module) -> torch.optim.Optimizer:
        first, *rest = model.parameters()
        return torch.optim.SGD([{"params": [first], "lr": 0.2, "weight_decay": 1e-3}, {"params": rest}], lr=0.1, momentum=0.9)

    rig = build(experiment(optimizer=groups, repairs=(Proposal(remedy="adam", options={"lr": 1e-3}),)))
    assert rig.optimizer is not None
    assert [(len(g["params"]), g["lr"], g["weight_decay"]) for g in rig.optimizer.param_groups] == [(1, 1e-3, 1e-3), (3, 5e-4, 0)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.filterwarnings("error")
def test_the_schedule_follows_and_comes_back(schedule: str) -> None:
    def rates(change: bool, *, undone: bool = False) -> list[float]:
        rig = build(experiment(optimizer=sgd(0.2, momentum=0.9), scheduler=SCHEDULES[schedule]))
        if change:
            undo = discovered()["adam"]().apply(rig, Proposal(remedy="adam", options={"lr": 1e-3}))
            if undone:
                undo()
        seen = []
        for _ in range(8):
            assert rig.optimizer is not None
            seen.append(float(rig.optimizer.param_groups[0]["lr"]))
            stepped(rig, first_batch(rig))
        return seen

    plain = rates(False)
    start = build(experiment(optimizer=sgd(0.2, momentum=0.9), scheduler=SCHEDULES[schedule])).optimizer
    assert start is not None
    factor = 1e-3 / start.param_groups[0]["initial_lr"]
    assert rates(True) == pytest.approx([factor * r for r in plain], rel=1e-9)
    assert rates(True, undone=True) == plain


def test_clipping_that_was_there_stays_and_goes_with_its_undo() -> None:
    rig = build(experiment())
    states, undos = [], []
    for proposal in (Proposal(remedy="clip_norm", options={"max_norm": 1e-9}), Proposal(remedy="adam", options={"lr": 1e-3})):
        states.append(snapshot(rig))
        undos.append(discovered()[proposal.remedy]().apply(rig, proposal))
    before = copy.deepcopy(rig.model.state_dict())
    stepped(rig, first_batch(rig))
    assert isinstance(rig.optimizer, torch.optim.Adam)
    moved = max(float((before[k] - v).abs().max()) for k, v in rig.model.state_dict().items())
    assert moved < 2e-4  # an unclipped first step of Adam is one rate, 1e-3, long; 1e-9 is under its epsilon
    rig.model.load_state_dict(before)
    while undos:
        undos.pop()()
        assert snapshot(rig) == states.pop()


def test_an_adaptive_optimizer_is_left_alone() -> None:
    assert proposals("adam", blamed(None, "plateau"), trace_of(experiment(optimizer=lambda m: torch.optim.Adam(m.parameters())))) == []
    assert proposals("adam", blamed("labels_corrupt", "plateau"), trace_of(experiment())) == []


def test_sparse_embeddings_and_a_rate_of_zero_are_refused_in_words() -> None:
    change = Proposal(remedy="adam", options={"lr": 1e-3})
    sparse = nn.Embedding(3, 2, sparse=True)
    with pytest.raises(InputError, match="sparse=True"):
        discovered()["adam"]().apply(Rig(sparse, torch.optim.SGD(sparse.parameters(), 0.1)), change)
    with pytest.raises(InputError, match="above zero"):
        discovered()["adam"]().apply(Rig(sparse, torch.optim.SGD(sparse.parameters(), 0.0)), change)


# ---------------------------------------------------------------- momentum


def test_momentum_speeds_up_what_is_slow() -> None:
    slow = experiment(optimizer=sgd(0.003), epochs=4)
    (made,) = proposals("momentum", blamed("lr_too_low", "slow_convergence"), trace_of(slow))
    before, after = train(slow), train(slow.repaired([made]))
    assert after.losses[-1] < 0.92 * before.losses[-1]
    keeps(slow, made)
    assert proposals("momentum", blamed(None, "plateau"), trace_of(experiment(optimizer=sgd(0.1, momentum=0.5)))) == []


def test_momentum_is_torchs() -> None:
    changed = experiment(repairs=(Proposal(remedy="momentum", options={"momentum": 0.9}),))
    assert train(changed).losses.tolist() == train(experiment(optimizer=sgd(0.1, momentum=0.9))).losses.tolist()
    rig = Rig(net(), torch.optim.Adam(net().parameters()))
    with pytest.raises(InputError, match="another one"):
        discovered()["momentum"]().apply(rig, Proposal(remedy="momentum", options={"momentum": 0.9}))


# ---------------------------------------------------------------- decay


def test_less_decay_lets_weights_grow_again() -> None:
    held = experiment(optimizer=sgd(0.1, weight_decay=0.5))
    report = diagnosis(held, ("OPT014",))
    made = proposals("less_decay", found(report, "over_regularized"), report.trace)
    assert [p.options["weight_decay"] for p in made] == [1e-4, 0.0]
    for proposal in made:
        repaired = held.repaired([proposal])
        assert not diagnosis(repaired, ("OPT014",)).findings
        assert train(held).metric < 0.9 < train(repaired).metric
        keeps(held, proposal)
    assert proposals("less_decay", blamed("over_regularized"), trace_of(experiment())) == []


def test_decay_added_before_the_step_is_adamws_on_matrices_alone() -> None:
    change = Proposal(remedy="add_decay", options={"weight_decay": 0.3})
    ours = experiment(optimizer=lambda m: torch.optim.Adam(m.parameters(), 1e-2), repairs=(change,))

    def theirs(model: nn.Module) -> torch.optim.Optimizer:
        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.3},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, 1e-2)

    pairs = zip(train(ours).model.parameters(), train(experiment(optimizer=theirs)).model.parameters(), strict=True)
    for ours_p, theirs_p in pairs:
        torch.testing.assert_close(ours_p, theirs_p, rtol=1e-4, atol=1e-5)  # float32 rounding over 160 steps


def test_added_decay_keeps_weights_smaller_where_a_run_overfits() -> None:
    given = experiment()
    made = proposals("add_decay", blamed(None, "overfitting"), trace_of(given))
    norms = [sum(float(p.detach().norm()) for p in train(e).model.parameters()) for e in (given, given.repaired(made[1:]))]
    assert norms[1] < 0.95 * norms[0]
    keeps(given, made[0])
