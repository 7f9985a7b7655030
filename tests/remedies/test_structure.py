"""Patients of the remedies that change a network's structure: the fault is gone, training works, undo is exact to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.judge import judge
from evengrad.recording import trace_of
from evengrad.remedies import discovered
from evengrad.remedies.weight_standardization import standardised
from evengrad.rig import Rig
from evengrad.rules import discovered as rules
from evengrad.trace.attention import attention
from evengrad.trace.batch import Batch
from evengrad.training import Experiment, build, evaluate, first_batch, train
from evengrad.types import Finding, Proposal, Trace
from tests.remedies.contract import keeps_the_contract, output, stepped

RULES = [rule() for rule in rules().values()]
DRAW = torch.Generator().manual_seed(0)
X = torch.randn(256, 6, generator=DRAW)
IN_A_RING = (X[:, :2].norm(dim=1) > 1.2).long()
IMAGES = torch.randn(32, 2, 8, 8, generator=DRAW)
BRIGHT = (IMAGES[:, 0].mean((1, 2)) > IMAGES[:, 1].mean((1, 2))).long()
SEQUENCES = torch.randn(64, 40, 3, generator=DRAW)
FIRST = (SEQUENCES[:, 0, 0] > 0).long()


def chain(*widths: int, between: Callable[[int], list[nn.Module]] = lambda n: [nn.ReLU()]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), *between(n_out)]
    return nn.Sequential(*layers[: -len(between(1))] if between(1) else layers)


class Deep(nn.Module):
    """Thirty functional ReLU layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(6, 16), nn.Linear(16, 2)
        self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(30)])

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.out(x)


class HeldInEval(nn.Module):
    """Keeps its batch norm in evaluation mode, as code for fine-tuning does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16, momentum=1e-4), nn.ReLU(), nn.Linear(16, 2))

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.net[1].eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.rnn, self.out = layer, nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


class Attends(nn.Module):
    """Queries and keys fifty times too large."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(12, 2, batch_first=True), nn.Linear(12, 2)
        self.embed = nn.Linear(3, 12)
        with torch.no_grad():
            self.attention.in_proj_weight[:24] *= 50

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))


class ByHand(nn.Module):
    """Attention written out, with queries three hundred times too large; in one projection or in three."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(3, 12), nn.Linear(12, 2)
        self.qkv = nn.Linear(12, 36) if packed else None
        self.query, self.key, self.value = (nn.Identity() if packed else nn.Linear(12, 12) for _ in range(3))
        with torch.no_grad():
            (self.query.weight if self.qkv is None else self.qkv.weight[:12]).mul_(300)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (self.query(x), self.key(x), self.value(x)) if self.qkv is None else self.qkv(x).chunk(3, -1)
        return self.out(((q @ k.mT / 12**0.5).softmax(-1) @ v).mean(1))


def convolutional(norm: bool = False) -> nn.Module:
    behind: list[nn.Module] = [nn.BatchNorm2d(8)] if norm else []
    return nn.Sequential(nn.Conv2d(2, 8, 3), *behind, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))


def selu(n: int) -> list[nn.Module]:
    return [nn.BatchNorm1d(n), nn.SELU(), nn.Dropout(0.1)]


def experiment(model: Callable[[], nn.Module], x: Tensor = X, y: Tensor = IN_A_RING, *, lr: float = 0.05, **options: Any) -> Experiment:
    def adam(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr, momentum=0.9)

    return Experiment(model, (x, y), nn.CrossEntropyLoss(), adam, **{"batch_size": 32, "epochs": 2, **options})


PATIENTS = {  # case -> experiment, remedy, cause or code
    "linear": (experiment(lambda: chain(6, 16, 16, 2, between=lambda n: [])), "insert_activation", "missing_activation"),
    "deep": (experiment(Deep, lr=0.02), "residual", "too_deep_no_skip"),
    "deep, learned": (experiment(Deep, lr=0.02), "skip_init", "too_deep_no_skip"),
    "selu": (experiment(lambda: chain(6, 24, 24, 24, 24, 24, 2, between=selu), 20 * X + 5), "selu_conversion", "selu_conditions"),
    "held in eval": (experiment(HeldInEval, 20 * X + 5), "norm_mode", "bn_stats"),
    "narrow": (experiment(lambda: chain(6, 2, 2, 2, 2)), "wider", "too_narrow_relu"),
    "no hidden layer": (experiment(lambda: nn.Sequential(nn.Linear(6, 2))), "hidden_layer", "capacity_too_small"),
    "narrow with norms": (
        experiment(lambda: chain(6, 4, 4, 2, between=lambda n: [nn.BatchNorm1d(n), nn.Tanh()])),
        "wider",
        "capacity_too_small",
    ),
    "kernels": (experiment(convolutional, IMAGES, BRIGHT), "weight_standardization", "missing_normalization_layer"),
    "vectors": (experiment(lambda: chain(6, 16, 16, 2)), "rms_norm", "missing_normalization_layer"),
    "images": (experiment(convolutional, IMAGES, BRIGHT), "group_norm", "missing_normalization_layer"),
    "few images": (experiment(lambda: convolutional(True), IMAGES, BRIGHT, batch_size=2), "group_norm", "batch_too_small"),
    "few vectors": (
        experiment(lambda: chain(6, 8, 8, 2, between=lambda n: [nn.BatchNorm1d(n), nn.ReLU()]), batch_size=2),
        "group_norm",
        "batch_too_small",
    ),
    "bias": (experiment(lambda: convolutional(True), IMAGES, BRIGHT), "drop_bias", "NRM001"),
    "loud attention": (experiment(Attends, SEQUENCES, FIRST), "attention_scale", "attention_logits"),
    "loud queries": (experiment(lambda: ByHand(False), SEQUENCES, FIRST), "attention_scale", "attention_logits"),
    "loud rows of one": (experiment(lambda: ByHand(True), SEQUENCES, FIRST), "attention_scale", "attention_logits"),
    "lstm": (experiment(lambda: Recurrent(nn.LSTM(3, 12, batch_first=True)), SEQUENCES, FIRST), "memory", "long_memory"),
    "gru": (experiment(lambda: Recurrent(nn.GRU(3, 12, 2, batch_first=True)), SEQUENCES, FIRST), "memory", "long_memory"),
    "gated": (experiment(lambda: Recurrent(nn.RNN(3, 12, 2, batch_first=True)), SEQUENCES, FIRST), "gated", "long_memory"),
    "rnn": (experiment(lambda: Recurrent(nn.RNN(3, 12, batch_first=True)), SEQUENCES, FIRST), "memory", "long_memory"),
    "relu rnn": (
        experiment(lambda: Recurrent(nn.RNN(3, 12, nonlinearity="relu", batch_first=True)), SEQUENCES, FIRST),
        "memory",
        "long_memory",
    ),
}


def finding(word: str) -> Finding:
    code, cause = (word, None) if word.isupper() else ("XXX001", word)
    return Finding(code=code, symptom=None, severity="warning", message="1", cause=cause)


def seen(given: Experiment) -> Trace:
    rig = build(given)
    return looked(rig, first_batch(rig))


def looked(rig: Rig, batch: Batch) -> Trace:
    """One measured pass, with what attention does."""
    trace = trace_of(rig, batch)
    logits = attention(rig.model, batch, trace.layers, 0)
    return replace(trace, columns=trace.columns | {name: column[None] for name, column in logits.items()})


def proposals(case: str, trace: Trace | None = None) -> list[Proposal]:
    given, name, word = PATIENTS[case]
    remedy = discovered()[name]()
    assert remedy.treats(finding(word))
    return list(remedy.propose(finding(word), seen(given) if trace is None else trace))


@pytest.mark.parametrize("case", PATIENTS)
def test_keeps_the_contract_of_remedies(case: str) -> None:
    given, name, _ = PATIENTS[case]
    rig = build(given)
    batch = first_batch(rig)
    rig.model.train()
    stepped(rig, batch)
    found = proposals(case, looked(rig, batch))
    assert 1 <= len(found) <= 3
    for proposal in found:
        keeps_the_contract(discovered()[name](), rig, batch, proposal)


@pytest.mark.parametrize("case", PATIENTS)
def test_the_changed_network_trains_from_the_first_step(case: str) -> None:
    given = PATIENTS[case][0]
    for proposal in proposals(case):
        losses = train(given.repaired([proposal]), max_steps=8).losses
        assert torch.isfinite(torch.as_tensor(losses)).all()


@pytest.mark.parametrize("case", ["linear", "selu", "few vectors", "bias", "loud attention", "loud queries"])
def test_the_rule_that_named_the_fault_finds_it_no_more(case: str) -> None:
    given, _, word = PATIENTS[case]

    def told(trace: Trace) -> list[str]:
        return [f.code for f in judge(trace, RULES).findings if word in {f.cause, f.code}]

    assert told(seen(given))
    for proposal in proposals(case):
        assert not told(seen(given.repaired([proposal])))


def accuracy(given: Experiment, seed: int = 0) -> float:
    result = train(given, seed=seed)
    return evaluate(given, Rig(result.model, loss_fn=given.loss_fn))


@pytest.mark.parametrize(("case", "epochs"), [("linear", 25), ("deep", 25), ("deep, learned", 25), ("narrow", 40), ("held in eval", 12)])
def test_what_did_not_learn_learns(case: str, epochs: int) -> None:
    given = replace(PATIENTS[case][0], epochs=epochs)
    sick = accuracy(given)
    well = [accuracy(given.repaired([proposal])) for proposal in proposals(case)]
    assert min(well) > 0.9
    assert not sick > min(well) - 0.15  # NaN where it diverged


def test_skips_keep_the_gradient_of_thirty_layers() -> None:
    given = PATIENTS["deep"][0]

    def first_gradient(experiment: Experiment) -> float:
        rig = build(experiment)
        batch = first_batch(rig)
        assert rig.loss_fn is not None
        rig.loss_fn(rig.model(batch.inputs), batch.targets).backward()
        return float(rig.model.get_parameter("first.weight").grad.norm())  # type: ignore[union-attr]

    assert first_gradient(given) < 1e-9
    assert first_gradient(given.repaired(proposals("deep")[:1])) > 1e-4


def test_skip_init_begins_as_a_network_of_two_layers() -> None:
    rig = build(PATIENTS["deep, learned"][0].repaired(proposals("deep, learned")))
    model = rig.model
    assert isinstance(model, Deep)
    assert torch.equal(model(X), model.out(F.relu(model.first(X))))
    assert all(layer.evengrad_alpha.grad is None and layer.evengrad_alpha == 0 for layer in model.layers)


def test_weights_are_standardised_while_the_layer_runs_and_the_parameter_stays() -> None:
    rig = build(PATIENTS["kernels"][0])
    names, first = list(rig.model.state_dict()), rig.model[0]
    weight = first.weight
    discovered()["weight_standardization"]().apply(rig, proposals("kernels")[0])
    kernel = standardised(weight)
    torch.testing.assert_close(kernel.mean((1, 2, 3)), torch.zeros(8), atol=1e-6, rtol=0)
    torch.testing.assert_close(kernel.square().sum((1, 2, 3)), torch.ones(8), atol=1e-3, rtol=0)
    assert torch.equal(first(IMAGES), F.conv2d(IMAGES, kernel, first.bias))
    assert first.weight is weight
    assert list(rig.model.state_dict()) == names
    with pytest.raises(RuntimeError):
        first(IMAGES[:, :1])
    assert first.weight is weight
    first(IMAGES).sum().backward()
    assert weight.grad is not None


def test_a_dropped_bias_changes_nothing_that_the_network_says() -> None:
    rig = build(PATIENTS["bias"][0])
    batch = first_batch(rig)
    before = output(rig, batch)
    discovered()["drop_bias"]().apply(rig, proposals("bias")[0])
    torch.testing.assert_close(output(rig, batch), before)
    assert rig.model[0].bias is None


def test_norms_in_the_place_of_batch_norms_are_the_same_for_any_batch() -> None:
    rig = build(PATIENTS["few images"][0].repaired(proposals("few images")))
    torch.testing.assert_close(rig.model(IMAGES)[:2], rig.model(IMAGES[:2]))
    assert isinstance(rig.model[1], nn.GroupNorm)


@pytest.mark.parametrize("case", ["loud attention", "loud queries", "loud rows of one"])
def test_logits_come_down_to_what_unit_variance_gives(case: str) -> None:
    found = proposals(case)
    trace = seen(PATIENTS[case][0].repaired(found))
    assert 0.5 < np.nanmax(trace.column("logit_abs_max")) < 6  # biases are no part of the logits' growth
    model = build(PATIENTS[case][0].repaired(found)).model
    norms = [float(model.get_parameter(p["weight"]).detach()[slice(*p["rows"])].norm()) for p in found[0].options["attentions"][0]["parts"]]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_gates_that_keep_a_memory_are_open() -> None:
    for case, kept in (("lstm", 39), ("gru", 39)):
        rig = build(PATIENTS[case][0].repaired(proposals(case)[:1]))
        model = rig.model
        assert isinstance(model, Recurrent)
        bias = model.rnn.bias_ih_l0 + model.rnn.bias_hh_l0
        torch.testing.assert_close(bias[12:24].exp(), torch.full((12,), float(kept)))
    for case in ("rnn", "relu rnn"):
        model = build(PATIENTS[case][0].repaired(proposals(case))).model
        assert isinstance(model, Recurrent)
        weight = model.rnn.weight_hh_l0.detach()
        torch.testing.assert_close(weight @ weight.T, torch.eye(12), atol=1e-5, rtol=0)
        assert torch.equal(weight, torch.eye(12)) == (case == "relu rnn")


def test_a_gated_layer_remembers_what_a_plain_one_forgets() -> None:
    given = experiment(lambda: Recurrent(nn.RNN(3, 12, batch_first=True)), SEQUENCES, FIRST)
    (proposal,) = discovered()["gated"]().propose(finding("long_memory"), seen(given))

    def share_of_the_first_step(model: nn.Module) -> float:
        x = SEQUENCES.clone().requires_grad_()
        (pull,) = torch.autograd.grad(model(x).square().sum(), x)
        return float(pull[:, 0].norm() / pull.norm())

    plain, gated = build(given).model, build(given.repaired([proposal])).model
    assert isinstance(gated, Recurrent)
    assert isinstance(gated.rnn, nn.GRU)
    assert share_of_the_first_step(plain) < 1e-6
    assert share_of_the_first_step(gated) > 0.03


def test_what_no_plane_parts_is_parted_by_a_hidden_layer() -> None:
    inside = (X.norm(dim=1) < X.norm(dim=1).median()).long()
    given = experiment(lambda: nn.Sequential(nn.Linear(6, 2)), X, inside, lr=0.02, epochs=60)
    one, two = discovered()["hidden_layer"]().propose(finding("capacity_too_small"), seen(given))
    assert train(given).metric < 0.7
    assert train(given.repaired([one])).metric > 0.85
    assert train(given.repaired([two])).metric > 0.85


def test_a_forward_that_counts_on_the_old_width_is_refused_and_left_as_it_was() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(self.a(x)).view(-1, 2))

    given = experiment(Counts)
    rig = build(given)
    state = copy.deepcopy(rig.model.state_dict())
    (proposal,) = discovered()["wider"]().propose(finding("capacity_too_small"), seen(given))
    with pytest.raises(InputError, match="cannot run with wider layers"):
        discovered()["wider"]().apply(rig, proposal)
    assert all(torch.equal(value, state[name]) for name, value in rig.model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "model", "word"),
    [
        ("insert_activation", lambda: chain(6, 16, 16, 2), "missing_activation"),
        ("residual", lambda: chain(6, 16, 16, 2), "too_deep_no_skip"),
        ("selu_conversion", lambda: chain(6, 16, 2), "selu_conditions"),
        ("norm_mode", lambda: chain(6, 8, 2, between=lambda n: [nn.BatchNorm1d(n), nn.ReLU()]), "bn_stats"),
        ("wider", lambda: nn.Sequential(nn.Linear(6, 2)), "capacity_too_small"),
        ("hidden_layer", lambda: chain(6, 16, 2), "capacity_too_small"),
        ("group_norm", lambda: chain(6, 16, 2), "batch_too_small"),
        ("drop_bias", lambda: chain(6, 16, 2), "NRM001"),
        ("attention_scale", lambda: chain(6, 16, 2), "attention_logits"),
        ("memory", lambda: chain(6, 16, 2), "long_memory"),
        ("gated", lambda: chain(6, 16, 2), "long_memory"),
    ],
)
def test_nothing_is_offered_to_a_network_that_it_does_not_fit(name: str, model: Callable[[], nn.Module], word: str) -> None:
    assert list(discovered()[name]().propose(finding(word), seen(experiment(model)))) == []
