"""check: a model and a batch in, a report out, and errors that say what does not fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad.errors import ForwardError, InputError, UnknownNameError

X, Y = torch.linspace(-1, 1, 640).reshape(32, 20).sin(), torch.arange(32) % 3
LOSS = nn.CrossEntropyLoss()


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def sigmoid(depth: int = 20) -> nn.Sequential:
    model = mlp(20, *[64] * (depth - 1), 3, activation=nn.Sigmoid)
    for p in model.parameters():
        nn.init.xavier_normal_(p) if p.dim() > 1 else nn.init.zeros_(p)
    return model


def test_healthy_network_has_no_finding_and_everything_was_looked_at() -> None:
    report = eg.check(mlp(20, 64, 64, 3), torch.randn(64, 20), torch.arange(64) % 3, LOSS)
    assert report.findings == ()
    assert report.causes == ()
    assert {"VAN001", "EXP001", "NUM001", "DAT001", "ACT001"} <= set(report.checked)
    assert "updates" in report.skipped
    assert set(report.checked).isdisjoint(report.skipped)
    assert (report.run.model, report.run.samples, report.run.parameters) == ("Sequential", 64, 5699)
    assert report.run.seconds > 0


def test_cause_of_a_vanishing_gradient_is_found_by_experiment() -> None:
    torch.manual_seed(0)
    report = eg.check(sigmoid(), torch.randn(128, 20), torch.arange(128) % 3, LOSS)
    finding = next(f for f in report.findings if f.code == "VAN001")
    assert finding.severity == "error"
    assert finding.cause == "bad_hidden_activation"
    assert report.causes[0] == "bad_hidden_activation"
    restored = next(i for i in report.interventions if i.restored and i.code == "VAN001")
    assert restored.before < 0.3
    assert restored.after > 0.8
    assert report.proposals


def test_strongest_finding_comes_first() -> None:
    report = eg.check(sigmoid(), 100 + X, Y, LOSS, causes=False)
    severities = [f.severity for f in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert {"VAN001", "DAT001"} <= {f.code for f in report.findings}


def test_same_seed_gives_the_same_report() -> None:
    one, other = (eg.check(sigmoid(6), X, Y, LOSS) for _ in range(2))
    assert replace(one, run=replace(one.run, seconds=0), trace=None) == replace(other, run=replace(other.run, seconds=0), trace=None)


def test_selected_and_ignored_codes() -> None:
    model = sigmoid()
    assert set(eg.check(model, X, Y, LOSS, select=["VAN"], causes=False).checked) == {"VAN001", "VAN002"}
    assert "VAN001" not in eg.check(model, X, Y, LOSS, ignore=["VAN001"], causes=False).checked
    with pytest.raises(UnknownNameError, match="Did you mean 'VAN001'"):
        eg.check(model, X, Y, LOSS, select=["VAN01"])
    with pytest.raises(InputError, match=r"instances of evengrad\.Rule"):
        eg.check(model, X, Y, LOSS, rules=[eg.rules.VanishingGradient])  # type: ignore[list-item]


def test_skipped_rules_say_why() -> None:
    report = eg.check(nn.Sequential(nn.Embedding(11, 8), nn.Flatten(), nn.Linear(40, 3)), torch.arange(20).reshape(4, 5) % 11, causes=False)
    assert "inputs" in report.skipped["DAT001"]
    assert "saturated_fraction" in report.skipped["ACT002"]


class Returning(nn.Module):
    def __init__(self, key: str) -> None:
        super().__init__()
        self.net, self.key = mlp(20, 64, 3), key

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(x)
        return {"logits": logits, self.key: LOSS(logits, labels)} if labels is not None else {"logits": logits}


def test_loss_of_the_model_itself_is_used() -> None:
    model = Returning("loss")
    trace = eg.check(model, {"x": X, "labels": Y}, causes=False).trace
    assert trace is not None
    assert trace.facts.loss is not None
    assert trace.facts.loss["value"] == pytest.approx(LOSS(model.net(X), Y).item(), rel=1e-5)


def test_without_a_loss_gradients_come_from_a_fixed_projection() -> None:
    one, other = (eg.check(mlp(20, 64, 3), X, causes=False, seed=s).trace for s in (0, 1))
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.column("grad_norm"), other.column("grad_norm"))
    assert (one.column("grad_norm") > 0).all()


def test_inputs_come_as_tensor_tuple_mapping_or_array() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(20, 64, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            out: Tensor = self.net(a + b)
            return out

    calls: list[tuple[nn.Module, Any, Any]] = [
        (mlp(20, 64, 3), X, Y),
        (mlp(20, 64, 3), X.double().numpy(), Y.numpy()),
        (Two(), (X, X), Y),
        (Two(), [X, X], Y),
        (Two(), {"a": X, "b": X}, Y),
    ]
    for model, inputs, targets in calls:
        assert eg.check(model, inputs, targets, LOSS, causes=False).run.samples == 32


def test_optimizer_tells_what_it_does_not_hold() -> None:
    model = mlp(20, 64, 3)
    trace = eg.check(model, X, Y, LOSS, optimizer=torch.optim.SGD(model[0].parameters(), 0.1), causes=False).trace
    assert trace is not None
    facts = trace.facts.optimizer or {}
    assert {k: facts[k] for k in ("name", "lr", "missing", "foreign")} == {
        "name": "SGD",
        "lr": 0.1,
        "missing": ["2.weight", "2.bias"],
        "foreign": 0,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": lambda x: x}, "needs an nn.Module; got function"),
        ({"inputs": torch.zeros(0, 20)}, "the batch is empty"),
        ({"inputs": "text"}, "must be a tensor, a tuple or a mapping of tensors; got str"),
        ({"inputs": torch.full((32, 20), float("nan"))}, "every input value is NaN or infinite"),
        ({"model": nn.Sequential(nn.Flatten())}, "no parameter with requires_grad"),
        ({"loss_fn": lambda out, y: out}, r"must be a scalar tensor; got a tensor of shape \(32, 3\)"),
        ({"loss_fn": lambda out, y: 0.5}, "must be a scalar tensor; got a float"),
        ({"loss_fn": lambda out, y: out.detach().sum()}, "the loss has no gradient"),
        ({"targets": Y + 1}, r"Labels run from 1 to 3, but the model has 3 outputs: expected labels in \[0, 2\]"),
        ({"targets": Y[:16]}, "32 samples for 16 targets"),
        ({"targets": None}, "Give targets"),
    ],
)
def test_what_does_not_fit_is_said_with_what_to_do(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"model": mlp(20, 64, 3), "inputs": X, "targets": Y, "loss_fn": LOSS} | change
    with pytest.raises(InputError, match=message):
        eg.check(arguments["model"], arguments["inputs"], arguments["targets"], arguments["loss_fn"])


def test_error_of_the_model_names_the_place_and_keeps_the_traceback() -> None:
    with pytest.raises(ForwardError, match=r"raised RuntimeError in .* for inputs of shape \(32, 7\)") as error:
        eg.check(mlp(20, 64, 3), torch.randn(32, 7), Y, LOSS)
    assert isinstance(error.value.__cause__, RuntimeError)


def test_model_that_cannot_be_copied_is_checked_without_causes() -> None:
    class Uncopiable(nn.Sequential):
        def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
            raise TypeError("no copies")

    report = eg.check(Uncopiable(*sigmoid()), X, Y, LOSS)
    assert "VAN001" in {f.code for f in report.findings}
    assert "no copies" in report.skipped["causes"]
    assert report.interventions == ()


def test_parameters_without_values_are_refused_with_advice() -> None:
    with torch.device("meta"):
        model = mlp(20, 64, 3)
    with pytest.raises(InputError, match=r"0\.weight is on the meta device"):
        eg.check(model, X, Y, LOSS)
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(InputError, match=r"0\.weight has no shape yet .* Run one batch"):
        eg.check(lazy, X, Y, LOSS)
    assert isinstance(lazy[0], nn.LazyLinear)


def test_single_sample_is_enough() -> None:
    assert eg.check(mlp(20, 64, 3), X[:1], Y[:1], LOSS, causes=False).run.samples == 1


def test_thousand_layers_are_checked() -> None:
    model = mlp(*[8] * 1001, activation=nn.Tanh)
    report = eg.check(model, torch.randn(16, 8), causes=False)
    assert report.trace is not None
    assert len(report.trace.layers) == 1000
    assert "VAN001" in {f.code for f in report.findings}


def test_a_loss_class_in_the_place_of_an_instance_is_refused() -> None:
    with pytest.raises(InputError, match=r"write CrossEntropyLoss\(\)"):
        eg.check(nn.Linear(4, 3), torch.randn(8, 4), torch.zeros(8, dtype=torch.int64), nn.CrossEntropyLoss)


def test_a_forward_that_raises_is_placed_in_the_users_own_code() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    with pytest.raises(ForwardError, match=r"in forward \(line \d+\) for inputs of shape \(8, 4\)"):
        eg.check(Wrong(), torch.randn(8, 4))


def test_says_where_the_chance_to_train_is_not_known() -> None:
    report = eg.check(nn.Linear(4, 3), torch.randn(8, 4))
    assert report.trainability is None
    assert "cross-entropy" in report.skipped["chance to train"]
