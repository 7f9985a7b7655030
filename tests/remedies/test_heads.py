"""Heads and losses that do not fit each other: the repair trains, is undone to the bit, and is offered only where it was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.judge import judge
from evengrad.recording import trace_of
from evengrad.remedies import Remedy, discovered
from evengrad.rig import Rig
from evengrad.rules import discovered as rules
from evengrad.training import Experiment, build, first_batch, train
from evengrad.types import Finding, Proposal, Trace
from tests.remedies.contract import keeps_the_contract, stepped

RULES = [rule() for rule in rules().values()]
X = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
CLASSES = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
BINARY = (X[:, 0] + X[:, 1] > 0).long()
NUMBERS = X[:, :1] - 2 * X[:, 1:2]


class FunctionalHead(nn.Module):
    """The same activation behind the hidden layer and behind the output, in the model's own forward."""

    def __init__(self, activation: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.hidden, self.out, self.activation = nn.Linear(6, 16), nn.Linear(16, width), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.out(self.activation(self.hidden(x))))


def net(*behind: nn.Module, width: int = 3) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, width), *behind)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def experiment(model: Callable[[], nn.Module], y: Tensor, loss_fn: Any, *, epochs: int = 10) -> Experiment:
    return Experiment(model, (X, y), loss_fn, sgd, batch_size=32, epochs=epochs, metric="loss", maximize=False)


def finding(cause: str) -> Finding:
    return Finding(code="ARC002", symptom=None, severity="error", message="1", cause=cause)


def proposals(name: str, cause: str, trace: Trace) -> list[Proposal]:
    return list(discovered()[name]().propose(finding(cause), trace))


def seen(given: Experiment) -> Trace:
    rig = build(given)
    return trace_of(rig, first_batch(rig))


def by_hand(z: Tensor, y: Tensor) -> Tensor:
    return -z.softmax(1).log().gather(1, y[:, None]).mean()


def unsqueezed(z: Tensor, y: Tensor) -> Tensor:
    return ((z - y) ** 2).mean()


def twice(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.softmax(1), y)


def as_numbers(z: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(z, F.one_hot(y, 3).float())


def negative(z: Tensor, y: Tensor) -> Tensor:
    return -F.cross_entropy(z, y)


def sharp_by_hand(z: Tensor, y: Tensor) -> Tensor:
    return by_hand(400 * z, y)


SICK = {  # what is wrong -> experiment, remedy, cause, option
    "softmax before cross-entropy": (experiment(net(nn.Softmax(1)), CLASSES, nn.CrossEntropyLoss()), "drop", "redundant", "identity"),
    "sigmoid before its loss": (
        experiment(net(nn.Sigmoid(), width=1), BINARY[:, None].float(), nn.BCEWithLogitsLoss()),
        "drop",
        "redundant",
        "identity",
    ),
    "ReLU before cross-entropy": (experiment(net(nn.ReLU()), CLASSES, nn.CrossEntropyLoss()), "drop", "wrong", "identity"),
    "tanh before far numbers": (experiment(net(nn.Tanh(), width=1), NUMBERS, nn.MSELoss()), "drop", "wrong", "identity"),
    "ReLU twice, as a call": (experiment(lambda: FunctionalHead(F.relu, 1), NUMBERS, nn.MSELoss()), "drop", "wrong", "identity"),
    "logits before nll": (experiment(net(), CLASSES, nn.NLLLoss()), "add", "wrong", "log_softmax"),
    "softmax before nll": (experiment(net(nn.Softmax(1)), CLASSES, nn.NLLLoss()), "add", "wrong", "log_softmax"),
    "softmax over one unit": (experiment(net(nn.Softmax(1), width=1), BINARY[:, None].float(), nn.BCELoss()), "add", "wrong", "sigmoid"),
    "sigmoid before counts": (experiment(net(nn.Sigmoid(), width=1), NUMBERS.abs(), nn.MSELoss()), "add", "wrong", "softplus"),
    "squares on class labels": (experiment(net(), CLASSES, as_numbers), "replace_loss", "wrong_loss", "cross_entropy"),
    "nll on logits": (experiment(net(), CLASSES, nn.NLLLoss()), "replace_loss", "wrong_loss", "cross_entropy"),
    "all pairs": (experiment(net(width=1), NUMBERS[:, 0], unsqueezed), "replace_loss", "wrong_loss", "mse"),
    "log of softmax": (experiment(net(), CLASSES, sharp_by_hand), "replace_loss", "unstable_loss", "cross_entropy"),
    "a sum": (experiment(net(), CLASSES, nn.CrossEntropyLoss(reduction="sum")), "replace_loss", "loss_reduction", "mean"),
    "minus": (experiment(net(), CLASSES, negative), "replace_loss", "sign_error", "negated"),
    "softmax in the loss": (experiment(net(), CLASSES, twice), "replace_loss", "redundant", "cross_entropy"),
}
NAMES = {"drop": "drop_output_activation", "add": "add_output_activation"}
CAUSES = {"redundant": "redundant_output_activation", "wrong": "wrong_output_activation"}


def patient(case: str) -> tuple[Experiment, Remedy, Proposal, Trace]:
    given, name, cause, option = SICK[case]
    trace = seen(given)
    found = proposals(NAMES.get(name, name), CAUSES.get(cause, cause), trace)
    chosen = next(p for p in found if option in {p.options.get("new"), p.options.get("loss")})
    return given, discovered()[chosen.remedy](), chosen, trace


@pytest.mark.parametrize("case", SICK)
def test_keeps_the_contract_of_remedies(case: str) -> None:
    given, remedy, proposal, _ = patient(case)
    rig = build(given)
    batch = first_batch(rig)
    if case != "log of softmax":  # whose first step makes NaN of all weights
        stepped(rig, batch)
    keeps_the_contract(remedy, rig, batch, proposal)


@pytest.mark.parametrize("case", SICK)
def test_the_fault_is_gone_and_training_learns_what_it_could_not(case: str) -> None:
    given, _, proposal, _ = patient(case)
    repaired = given.repaired([proposal])
    after = judge(seen(repaired), RULES).findings
    assert not [f for f in after if f.cause == proposal.cause and f.severity != "note"]
    metric = _right if given.data[1].dtype == torch.int64 else _error
    sick, well = (metric(train(e).model, given.data[1]) for e in (given, repaired))
    assert well < 0.12
    if case not in {"squares on class labels", "ReLU before cross-entropy"}:  # these learn in spite of it, given time
        assert well < sick or case == "a sum"


def _right(model: nn.Module, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(X).argmax(1) != y).float().mean())


def _error(model: nn.Module, y: Tensor) -> float:
    with torch.no_grad():
        said = model(X)
        if y.shape != said.shape:
            y = y.reshape(said.shape)
        if {0.0, 1.0} == set(y.unique().tolist()):
            return float(((said > (0.5 if said.min() >= 0 and said.max() <= 1 else 0)).float() != y).float().mean())
        return float(F.mse_loss(said, y) / y.var())


def test_a_rule_names_the_cause_that_they_are_offered_for() -> None:
    for case, cause in (("minus", "sign_error"), ("softmax before nll", "wrong_output_activation"), ("all pairs", "wrong_loss")):
        assert cause in {f.cause for f in judge(seen(SICK[case][0]), RULES).findings}


@pytest.mark.parametrize("cause", ["wrong_loss", "unstable_loss", "loss_reduction", "sign_error", *CAUSES.values()])
@pytest.mark.parametrize(
    "given",
    [
        experiment(net(), CLASSES, nn.CrossEntropyLoss()),
        experiment(net(nn.LogSoftmax(1)), CLASSES, nn.NLLLoss()),
        experiment(net(nn.Sigmoid(), width=1), BINARY[:, None].float(), nn.BCELoss()),
        experiment(net(width=1), BINARY[:, None].float(), nn.BCEWithLogitsLoss()),
        experiment(net(width=1), NUMBERS, nn.SmoothL1Loss()),
    ],
    ids=["classes", "log-softmax", "shares", "logits", "numbers"],
)
def test_a_head_that_fits_its_loss_is_left_alone(given: Experiment, cause: str) -> None:
    trace = seen(given)
    assert not [p for name in ("drop_output_activation", "add_output_activation", "replace_loss") for p in proposals(name, cause, trace)]


def test_the_hidden_activation_stays_where_the_output_has_the_same_one() -> None:
    given, remedy, proposal, _ = patient("ReLU twice, as a call")
    rig = build(given)
    remedy.apply(rig, proposal)
    model = rig.model
    assert isinstance(model, FunctionalHead)
    assert torch.equal(model(X), model.out(F.relu(model.hidden(X))))


def test_losses_by_name_agree_with_torch() -> None:
    from evengrad.remedies.replace_loss import Fitted

    z, y = torch.randn(8, 3, 5), torch.randint(3, (8, 5))
    assert torch.equal(Fitted("cross_entropy")(z, y.reshape(8, 1, 5)), F.cross_entropy(z, y))
    torch.testing.assert_close(Fitted("log_likelihood")(z.softmax(1), y), F.cross_entropy(z, y))
    one, two = z[:, 0, 0], y[:, 0] % 2
    assert torch.equal(Fitted("bce_with_logits")(one[:, None], two), F.binary_cross_entropy_with_logits(one, two.float()))
    sure = torch.tensor([[1.0, 0.0]])
    assert torch.isfinite(Fitted("log_likelihood")(sure, torch.tensor([1])))


def test_what_cannot_be_mended_by_a_loss_is_not_offered_one() -> None:
    trace = seen(experiment(net(width=1), CLASSES, lambda z, y: F.mse_loss(z[:, 0], y.float())))  # three classes, one unit
    assert proposals("replace_loss", "wrong_loss", trace) == []


def test_a_rig_without_a_loss_says_what_is_missing() -> None:
    rig = build(SICK["minus"][0])
    with pytest.raises(InputError, match="needs a loss_fn to replace; give"):
        discovered()["replace_loss"]().apply(Rig(rig.model), Proposal(remedy="replace_loss", options={"loss": "mse"}))
