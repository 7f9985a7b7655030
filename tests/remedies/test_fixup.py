"""Residual networks without norms begin as their trunk, whatever their number of branches, and train."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.recording import trace_of
from evengrad.remedies.fixup import Fixup, branches
from evengrad.remedies.schemes import traced
from evengrad.rig import Rig
from evengrad.training import Experiment, build, first_batch, train
from evengrad.types import Finding, Proposal
from tests.remedies.contract import keeps_the_contract, stepped

LARGE = Finding(code="EXP001", symptom="exploding_gradient", severity="error", message="", cause="missing_normalization_layer")


class Block(nn.Module):
    """x + W2 relu(W1 x); a projection on the trunk where the width changes; an activation before the addition if `closed`."""

    def __init__(self, width: int, out: int = 0, *, closed: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.closed = nn.Linear(width, width), nn.Linear(width, out or width), closed
        self.trunk = nn.Linear(width, out) if out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        return self.trunk(x) + (F.relu(y) if self.closed else y)


class Single(nn.Module):
    """x + relu(W x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.layer(x))


class Attends(nn.Module):
    """x + o(softmax(q k) v), written by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.o(torch.softmax(self.q(x) @ self.k(x).mT, -1) @ self.v(x))


def network(blocks: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), *(Block(16) for _ in range(blocks)), nn.Linear(16, 2))


class ConvBlock(nn.Module):
    """Two convolutions, an activation behind the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.b(F.relu(self.a(x))))


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *(ConvBlock() for _ in range(3)), nn.Flatten(), nn.Linear(64, 2))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.05, 0.9)


def experiment(model: Callable[[], nn.Module] = network, shape: tuple[int, ...] = (8,)) -> Experiment:
    x = torch.randn(256, *shape, generator=torch.Generator().manual_seed(0))
    y = (x.flatten(1)[:, 0] * x.flatten(1)[:, 1] > 0).long()
    return Experiment(model, (x, y), nn.CrossEntropyLoss(), sgd, batch_size=64, epochs=30)


def proposed(given: Experiment) -> list[Proposal]:
    rig = build(given)
    return list(Fixup().propose(LARGE, trace_of(rig, first_batch(rig))))


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (lambda: nn.Sequential(nn.Linear(8, 8), Block(8), Block(8)), (8,), [("1.a", "1.b", 2), ("2.a", "2.b", 2)]),
        (lambda: nn.Sequential(Block(8), Block(8), nn.Linear(8, 2)), (8,), [("0.a", "0.b", 2), ("1.a", "1.b", 2)]),
        (
            lambda: nn.Sequential(Block(8), Block(8, 6), Block(6), nn.ReLU(), nn.Linear(6, 2)),
            (8,),
            [(f"{i}.a", f"{i}.b", 2) for i in range(3)],
        ),
        (lambda: nn.Sequential(nn.Linear(8, 8), Single(8), Single(8), nn.Linear(8, 2)), (8,), [("1.layer", 1), ("2.layer", 1)]),
        (
            lambda: nn.Sequential(nn.Linear(8, 8), Attends(8), Block(8), nn.Linear(8, 2)),
            (3, 8),
            [("1.q", "1.k", "1.v", "1.o", 2), ("2.a", "2.b", 2)],
        ),
        (lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), (8,), []),
    ],
    ids=["stem", "bare", "projection", "single", "attention", "plain"],
)
def test_branches_are_told_from_the_trunk(
    model: Callable[[], nn.Module], shape: tuple[int, ...], expected: list[tuple[object, ...]]
) -> None:
    structure = traced(model(), torch.zeros(2, *shape))
    found = branches(structure.layers, structure.edges)
    assert [(*(x.name for x in b.inner), b.end.name, b.length) for b in found] == expected


@pytest.mark.parametrize("option", [0, 1])
@pytest.mark.parametrize(("model", "shape"), [(network, (8,)), (convolutional, (2, 4, 4))], ids=["linear", "convolutional"])
def test_keeps_the_contract(model: Callable[[], nn.Module], shape: tuple[int, ...], option: int) -> None:
    given = experiment(model, shape)
    rig = build(given)
    batch = first_batch(rig)
    proposal = proposed(given)[option]
    stepped(rig, batch)
    keeps_the_contract(Fixup(), rig, batch, proposal)


def test_branches_end_in_zeros_and_begin_with_he_over_the_root_of_their_number() -> None:
    given = experiment(lambda: nn.Sequential(nn.Linear(8, 128), *(Block(128) for _ in range(4)), nn.Linear(128, 2)))
    fixup, zeros = proposed(given)
    rig = build(given)
    drawn = {k: v.clone() for k, v in rig.model.state_dict().items()}
    undo = Fixup().apply(rig, fixup)
    for i in range(1, 5):
        assert not rig.model.get_parameter(f"{i}.b.weight").any()
        inner = rig.model.get_parameter(f"{i}.a.weight").detach().double()
        assert float(inner.square().mean()) == pytest.approx(2 / 128 / 4, rel=5 * (2 / inner.numel()) ** 0.5)  # L^(-1/2) on the deviation
    assert torch.equal(rig.model.get_parameter("0.weight"), drawn["0.weight"])
    undo()
    Fixup().apply(rig, zeros)
    assert torch.equal(rig.model.get_parameter("2.a.weight"), drawn["2.a.weight"])
    assert not rig.model.get_parameter("2.b.weight").any()


def test_a_network_that_explodes_begins_as_its_trunk_and_learns() -> None:
    def loud() -> nn.Module:
        model = network(40)
        for p in model.parameters():
            if p.dim() > 1:
                nn.init.kaiming_normal_(p)
        return model

    given = experiment(loud)
    repaired = given.repaired(proposed(given)[:1])
    plain, better = train(given, max_steps=60), train(repaired, max_steps=60)
    assert not plain.metric > 0.6  # NaN counts
    assert better.metric > 0.85
    trace = trace_of(rig := build(repaired), first_batch(rig))
    rows = [i for i, x in enumerate(trace.layers) if x.name.endswith(".b")]
    gradients = trace.column("grad_out_norm")[0, rows]
    assert gradients.max() == pytest.approx(gradients.min(), rel=1e-4)


@pytest.mark.parametrize("model", [lambda: Single(16), lambda: Block(16, closed=True)], ids=["one layer", "closed"])
def test_ends_that_could_never_leave_zero_are_drawn_small(model: Callable[[], nn.Module]) -> None:
    given = experiment(lambda: nn.Sequential(nn.Linear(8, 16), *(model() for _ in range(9)), nn.Linear(16, 2)))
    for proposal in proposed(given):
        rig = build(given.repaired([proposal]))
        ends = [p for name, p in rig.model.named_parameters() if name.endswith(("b.weight", "layer.weight"))]
        before = [p.detach().clone() for p in ends]
        stepped(rig, first_batch(rig))
        assert all(not torch.equal(p, q) for p, q in zip(ends, before, strict=True))
        assert all(0.2 < float(p.square().mean().sqrt()) / (2 / 16 / 9) ** 0.5 < 5 for p in before)


def test_networks_without_branches_or_with_norms_are_left_alone() -> None:
    assert proposed(experiment(lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)))) == []
    assert proposed(experiment(lambda: nn.Sequential(nn.Linear(8, 16), Block(16), nn.LayerNorm(16), Block(16), nn.Linear(16, 2)))) == []


def test_a_proposal_for_another_model_is_refused_and_leaves_no_trace() -> None:
    given = experiment(lambda: network(4))
    rig = build(experiment(lambda: network(2)))
    before = {k: v.clone() for k, v in rig.model.state_dict().items()}
    for proposal in proposed(given):
        with pytest.raises(InputError, match="another model"):
            Fixup().apply(rig, proposal)
        assert all(torch.equal(v, before[k]) for k, v in rig.model.state_dict().items())
    with pytest.raises(InputError, match="fixup needs a batch of data"):
        Fixup().apply(Rig(network(4)), proposal)
