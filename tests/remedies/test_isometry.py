"""A plain network of any depth trains after one change, and all of that change comes off again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.lab.data import load
from evengrad.recording import trace_of
from evengrad.remedies.isometry import Isometry, isometry_
from evengrad.rig import Rig
from evengrad.trace.batch import call
from evengrad.training import Experiment, build, first_batch, train
from evengrad.types import Finding, Proposal
from tests.remedies.contract import keeps_the_contract, stepped

LARGE = Finding(code="INI001", symptom="saturated_activation", severity="error", message="", cause="bad_init_large")


def tutorials(depth: int = 20, width: int = 5, act: Callable[[], nn.Module] = nn.Tanh) -> nn.Module:
    """The tutorial's network on two circles: all weights from uniform(0, 1)."""
    sizes = [2, *[width] * depth]
    model = nn.Sequential(*(m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), act())), nn.Linear(width, 1))
    for p in model.parameters():
        nn.init.uniform_(p) if p.dim() > 1 else nn.init.zeros_(p)
    return model


class Functional(nn.Module):
    """The same head and tail, but activations are functions and the readout's answer passes one, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(2, 8), nn.Linear(8, 1)
        self.hidden = nn.ModuleList(nn.Linear(8, 8) for _ in range(16))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.out(x)


class Convolutions(nn.Module):
    """Sixteen 3 x 3 convolutions with ReLU between a stem and a linear readout."""

    def __init__(self) -> None:
        super().__init__()
        convs = [nn.Conv2d(2, 8, 3, padding=1)] + [nn.Conv2d(8, 8, 3, padding=1) for _ in range(16)]
        self.body, self.out = nn.Sequential(*(m for c in convs for m in (c, nn.ReLU()))), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x).mean((2, 3)))


def loss(output: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output[:, 0], targets)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    return torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.005}], 0.01)


def halving(step: int) -> float:
    return 0.5 ** (step / 1000)


def schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, halving)


def experiment(model: Callable[[], nn.Module] = tutorials, **options: Any) -> Experiment:
    data = load("two_circles")
    x, y = data.x_train.float(), data.y_train.float()
    if model is Convolutions:
        x = x[:, :, None, None].expand(-1, -1, 6, 6).contiguous()
    return Experiment(model, (x, y), loss, sgd, **{"metric": "accuracy", "batch_size": 32, "epochs": 40, **options})


def proposed(given: Experiment, finding: Finding = LARGE) -> list[Proposal]:
    rig = build(given)
    return list(Isometry().propose(finding, trace_of(rig, first_batch(rig))))


PATIENTS: dict[str, Callable[[], nn.Module]] = {
    "tanh": tutorials,
    "sigmoid": lambda: tutorials(16, 8, nn.Sigmoid),
    "functional": Functional,
    "convolutional": Convolutions,
}


@pytest.mark.parametrize("name", PATIENTS)
def test_keeps_the_contract(name: str) -> None:
    given = experiment(PATIENTS[name], scheduler=schedule)
    (proposal,) = proposed(given)
    rig = build(given)
    batch = first_batch(rig)
    stepped(rig, batch)
    keeps_the_contract(Isometry(), rig, batch, proposal)


def test_twenty_layers_that_did_not_learn_do() -> None:
    given = experiment()
    (proposal,) = proposed(given)
    plain, repaired = train(given, seed=1), train(given.repaired([proposal]), seed=1)
    assert plain.metric < 0.6
    assert repaired.metric > 0.7
    assert repaired.losses[-50:].mean() < 0.62 < plain.losses[-50:].mean()  # 0.69 is chance


@pytest.mark.parametrize("name", PATIENTS)
def test_signals_and_gradients_keep_their_length_through_all_layers(name: str) -> None:
    given = experiment(PATIENTS[name])
    rig = build(given)
    batch = first_batch(rig)
    (proposal,) = proposed(given)
    Isometry().apply(rig, proposal)
    trace = trace_of(rig, batch)
    rows = [i for i, x in enumerate(trace.layers) if x.name in proposal.where]
    gradients = trace.column("grad_out_norm")[0, rows]
    assert gradients.min() > gradients.max() / 8  # tanh takes as a power of depth, zero padding a little at each border
    assert all(trace.layers[i].activation == "tanh" for i in rows)
    assert float(call(rig.model, batch.inputs).detach().square().mean()) == pytest.approx(1.0, abs=1e-3)


def test_hidden_biases_rest_the_first_one_learns_and_the_rate_falls_with_depth() -> None:
    given = experiment(lambda: tutorials(25, 5), scheduler=schedule)
    (proposal,) = proposed(given)
    rig = build(given.repaired([proposal]))
    biases = {name: p for name, p in rig.model.named_parameters() if name.endswith("bias")}
    assert [p.requires_grad for p in biases.values()] == [True, *[False] * 24, True]
    assert not any(p.any() for name, p in biases.items() if name != "0.bias")
    assert rig.optimizer is not None
    assert [g["lr"] for g in rig.optimizer.param_groups] == pytest.approx([0.1 / 25, 0.05 / 25])
    assert [g["momentum"] for g in rig.optimizer.param_groups] == [0.9, 0.9]
    assert rig.scheduler.base_lrs == pytest.approx([0.1 / 25, 0.05 / 25])
    joint = torch.cat([rig.model.get_parameter("0.weight"), biases["0.bias"][:, None]], 1).detach()
    torch.testing.assert_close(joint.mT @ joint, 5 / 3 * torch.eye(3), rtol=0, atol=1e-5)  # 3 inputs, one of them constant, to 5 units


def test_a_resting_bias_does_not_move_even_where_momentum_had_set_it_going() -> None:
    given = experiment()
    (proposal,) = proposed(given)
    rig = build(given)
    batch = first_batch(rig)
    stepped(rig, batch)
    undo = Isometry().apply(rig, proposal)
    assert rig.optimizer is not None
    rig.optimizer.step()
    assert not rig.model.get_parameter("4.bias").any()
    undo()
    assert rig.model.get_parameter("4.bias").grad is not None


def test_the_patch_tells_all_of_it() -> None:
    (tanh,) = proposed(experiment())
    (sigmoid,) = proposed(experiment(PATIENTS["sigmoid"]))
    assert tanh.cause == "bad_init_large"
    assert tanh.code.splitlines()[1:] == ["-lr=0.01", "+lr=0.005, momentum=0.9"]
    assert tanh.code.startswith("+eg.isometry_(model, inputs)")
    assert sigmoid.code.splitlines()[:2] == ["-nn.Sigmoid()", "+nn.Tanh()"]
    (adam,) = proposed(replace(experiment(), optimizer=lambda m: torch.optim.Adam(m.parameters(), 3e-3)))
    assert adam.code.splitlines()[1:] == ["-lr=0.003", "+lr=0.001"]


@pytest.mark.parametrize(
    "model",
    [
        lambda: tutorials(10),  # not deep
        lambda: nn.Sequential(nn.LayerNorm(2), tutorials(20)),
        lambda: nn.Sequential(*(nn.Linear(2, 2) for _ in range(20)), nn.Linear(2, 1)),  # no activation
        lambda: nn.Sequential(*(m for i in range(20) for m in (nn.Linear(2 + i, 3 + i), nn.Tanh())), nn.Linear(22, 1)),  # no equal widths
    ],
    ids=["shallow", "normed", "linear", "widening"],
)
def test_other_networks_are_left_alone(model: Callable[[], nn.Module]) -> None:
    assert proposed(experiment(model)) == []


def test_residual_networks_are_left_alone() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.hidden, self.out = nn.Linear(2, 5), nn.ModuleList(nn.Linear(5, 5) for _ in range(20)), nn.Linear(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for layer in self.hidden:
                x = x + torch.tanh(layer(x))
            return self.out(x)

    assert proposed(experiment(Skips)) == []
    with pytest.raises(InputError, match=r"isometry_ takes a chain of linear layers or convolutions, .*; Skips is none"):
        isometry_(Skips(), torch.randn(4, 2))


def test_the_function_does_what_the_remedy_does_to_a_model() -> None:
    given = experiment()
    (proposal,) = proposed(given)
    rig = build(given)
    model = isometry_(build(given).model, first_batch(rig).inputs, seed=rig.seed)
    Isometry().apply(rig, proposal)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in rig.model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in rig.model.parameters()]


def test_a_proposal_for_another_model_is_refused_and_leaves_no_trace() -> None:
    (proposal,) = proposed(experiment())
    rig = build(experiment(lambda: tutorials(15)))
    before = {k: v.clone() for k, v in rig.model.state_dict().items()}
    with pytest.raises(InputError, match="another model"):
        Isometry().apply(rig, proposal)
    assert all(torch.equal(v, before[k]) for k, v in rig.model.state_dict().items())
    with pytest.raises(InputError, match="isometry needs a batch of data"):
        Isometry().apply(Rig(tutorials()), proposal)
