"""Trainings with one mistake each -> the rule that names its cause; and what looks like one and is none."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad.examine import diagnose_run
from evengrad.judge import chosen_rules
from evengrad.trace.loss_facts import loss_facts
from evengrad.trace.neighbours import neighbour_agreement
from evengrad.types import Finding

CODES = "ARC NRM DAT002 DAT003 OPT008 OPT01 NUM002 EXP002".split()
Parts = dict[str, Any]


def blobs(samples: int = 384, classes: int = 3, features: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(samples) % classes
    centres = 2 * torch.randn(classes, features, generator=generator)
    return centres[y] + torch.randn(samples, features, generator=generator), y


def curve(samples: int = 384) -> tuple[Tensor, Tensor]:
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(0))
    return x, (torch.sin(2 * x[:, :1]) + x[:, 1:2]) / 1.3


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def sgd(rate: float = 0.1, **options: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), rate, **options)


def classifier(**changed: Any) -> Parts:
    return {"model": lambda: mlp(8, 32, 32, 3), "data": blobs(), "loss_fn": nn.CrossEntropyLoss(), "optimizer": sgd(), **changed}


def regressor(**changed: Any) -> Parts:
    return {"model": lambda: mlp(4, 32, 32, 1), "data": curve(), "loss_fn": nn.MSELoss(), "optimizer": sgd(), **changed}


def found(parts: Parts) -> list[Finding]:
    """Findings of these rules at warning and above."""
    experiment = eg.Experiment(**({"epochs": 8, "batch_size": 32} | parts))
    report, _ = diagnose_run(experiment, chosen_rules(select=CODES), causes=False)
    return [f for f in report.findings if f.severity != "note"]


def step(zero: bool = True, scale: float = 1.0, clip: float | None = None, every: int = 1) -> Callable[..., Tensor]:
    """A training step as people write it, with a mistake or without."""
    count = 0

    def run(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        nonlocal count
        loss: Tensor = scale * loss_fn(model(batch[0]), batch[1])
        (loss / every).backward()
        count += 1
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if count % every == 0:
            optimizer.step()
            if zero:
                optimizer.zero_grad()
        return loss

    return run


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(8, 32), nn.ReLU()), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(0.01 * x).detach())
        return out


def frozen(model: nn.Sequential) -> nn.Sequential:
    for layer in (model[0], model[2]):
        nn.init.normal_(layer.weight, std=1e-3)
        layer.requires_grad_(False)
    return model


def shuffled(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return data[0], data[1][torch.randperm(len(data[1]), generator=torch.Generator().manual_seed(1))]


def log_of_softmax(output: Tensor, labels: Tensor) -> Tensor:
    return -output.softmax(1)[torch.arange(len(labels)), labels].log().mean()


def normed(**options: Any) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32, **options), nn.ReLU(), nn.Linear(32, 3))


def still(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    model.eval()
    return step()(model, batch, loss_fn, optimizer)


def halved(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)


FAULTS: dict[str, tuple[Callable[[], Parts], str, str]] = {
    "softmax before cross-entropy": (
        lambda: classifier(model=lambda: nn.Sequential(mlp(8, 32, 3), nn.Softmax(1))),
        "ARC002",
        "redundant_output_activation",
    ),
    "ReLU before a regression": (
        lambda: regressor(model=lambda: nn.Sequential(mlp(4, 32, 1), nn.ReLU())),
        "ARC002",
        "wrong_output_activation",
    ),
    "outputs against flat targets": (
        lambda: regressor(data=(curve()[0], curve()[1][:, 0]), loss_fn=lambda o, y: (o - y).square().mean()),
        "ARC002",
        "wrong_loss",
    ),
    "no activation": (
        lambda: regressor(model=lambda: mlp(1, 32, 32, 1, activation=nn.Identity), data=(curve()[0][:, :1], curve()[0][:, :1].abs())),
        "ARC001",
        "missing_activation",
    ),
    "narrow": (lambda: classifier(model=lambda: mlp(8, *[3] * 12, 3)), "ARC003", "too_narrow_relu"),
    "detached": (lambda: classifier(model=Detached, optimizer=sgd(1e-3)), "ARC004", "frozen_params"),
    "frozen": (lambda: classifier(model=lambda: frozen(mlp(8, 32, 32, 3))), "OPT008", "frozen_params"),
    "another model's optimizer": (
        lambda: classifier(optimizer=lambda m: torch.optim.SGD(mlp(8, 32, 32, 3).parameters(), 0.1)),
        "OPT008",
        "frozen_params",
    ),
    "no zero_grad": (lambda: regressor(train_step=step(zero=False)), "OPT010", "missing_zero_grad"),
    "minus the loss": (lambda: regressor(loss_fn=lambda o, y: -nn.functional.mse_loss(o, y), optimizer=sgd(1e-3)), "OPT011", "sign_error"),
    "minus in the step": (lambda: classifier(train_step=step(scale=-1.0), optimizer=sgd(1e-3)), "OPT011", "sign_error"),
    "maximize": (lambda: classifier(optimizer=sgd(1e-3, maximize=True)), "OPT011", "sign_error"),
    "clipped to nothing": (lambda: classifier(train_step=step(clip=1e-3)), "OPT012", "over_clipped"),
    "rate halved every two steps": (lambda: classifier(optimizer=sgd(0.02), scheduler=halved), "OPT013", "scheduler_bug"),
    "decay": (lambda: classifier(optimizer=sgd(0.1, weight_decay=1.0)), "OPT014", "over_regularized"),
    "bfloat16": (
        lambda: classifier(
            model=lambda: mlp(8, 32, 32, 3).bfloat16(), data=(blobs()[0].bfloat16(), blobs()[1]), optimizer=sgd(1e-4), epochs=4
        ),
        "OPT015",
        "low_precision",
    ),
    "sum": (lambda: regressor(loss_fn=nn.MSELoss(reduction="sum")), "OPT016", "loss_reduction"),
    "logarithm of a softmax": (
        lambda: classifier(data=(300 * blobs()[0], blobs()[1]), loss_fn=log_of_softmax),
        "NUM002",
        "unstable_loss",
    ),
    "shuffled labels": (lambda: classifier(data=shuffled(blobs()), validation=blobs(96)), "DAT003", "labels_corrupt"),
    "huge targets": (lambda: regressor(data=(curve()[0], 150 + 80 * curve()[1]), optimizer=sgd(1e-3)), "DAT002", "target_not_scaled"),
    "batches of two": (
        lambda: classifier(model=normed, batch_size=2, epochs=1, data=shuffled(blobs()), optimizer=sgd(0.5)),
        "NRM002",
        "batch_too_small",
    ),
    "statistics that never move": (lambda: classifier(model=lambda: normed(momentum=0.0), data=blobs()), "NRM003", "bn_stats"),
    "trained in eval mode": (
        lambda: classifier(model=normed, train_step=still, optimizer=sgd(1e-4)),
        "NRM003",
        "bn_stats",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_mistake_is_named(name: str) -> None:
    make, code, cause = FAULTS[name]
    findings = found(make())
    assert (code, cause) in [(f.code, f.cause) for f in findings]


@pytest.mark.parametrize("name", [n for n in FAULTS if n not in {"shuffled labels", "batches of two"}])
def test_no_other_cause_is_named_first(name: str) -> None:
    make, _, cause = FAULTS[name]
    assert found(make())[0].cause == cause


HEALTHY: dict[str, Callable[[], Parts]] = {
    "classifier": classifier,
    "regressor": regressor,
    "classifier with validation": lambda: classifier(validation=blobs(96)),
    "four batches a step": lambda: classifier(train_step=step(every=4)),
    "a scaled loss": lambda: classifier(train_step=step(scale=1 / 16), optimizer=sgd(1.6)),
    "habitual clipping": lambda: classifier(train_step=step(clip=0.5)),
    "frozen random features": lambda: classifier(
        model=lambda: nn.Sequential(mlp(8, 64, 64).requires_grad_(False), nn.ReLU(), nn.Linear(64, 3))
    ),
    "log-softmax before cross-entropy": lambda: classifier(model=lambda: nn.Sequential(mlp(8, 32, 3), nn.LogSoftmax(1))),
    "squeezed in the loss": lambda: regressor(
        data=(curve()[0], curve()[1][:, 0]), loss_fn=lambda o, y: nn.functional.mse_loss(o.squeeze(1), y)
    ),
    "sum with a rate for it": lambda: regressor(loss_fn=nn.MSELoss(reduction="sum"), optimizer=sgd(0.1 / 32)),
    "batch norm": lambda: classifier(model=normed),
    "cosine": lambda: classifier(scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 96)),
    "linear autoencoder": lambda: regressor(
        model=lambda: mlp(8, 4, 8, activation=nn.Identity), data=(blobs()[0], blobs()[0]), optimizer=sgd(0.02), epochs=4
    ),
    "logistic regression": lambda: classifier(model=lambda: nn.Linear(8, 3)),
    "narrow, and well": lambda: classifier(model=lambda: mlp(8, 6, 3), epochs=20),
    "large targets, and well": lambda: regressor(
        data=(curve()[0], 20 + 15 * curve()[1]), optimizer=lambda m: torch.optim.Adam(m.parameters(), 0.05), epochs=40
    ),
    "strong dropout, and well": lambda: classifier(
        model=lambda: nn.Sequential(nn.Linear(8, 256), nn.ReLU(), nn.Dropout(0.7), nn.Linear(256, 3))
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_training_that_is_well_raises_nothing(name: str) -> None:
    torch.manual_seed(0)
    assert [(f.code, f.message) for f in found(HEALTHY[name]())] == []


def test_place_and_number_are_told() -> None:
    (finding,) = [f for f in found(FAULTS["another model's optimizer"][0]()) if f.code == "OPT008"]
    assert finding.where == ("0", "2", "4")
    assert "6 of its parameters are not the model's" in finding.message


def test_every_broken_condition_of_selu_is_named() -> None:
    def model() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(8, 32), nn.SELU()]
        for _ in range(8):
            layers += [nn.Linear(32, 32), nn.BatchNorm1d(32), nn.SELU()]
        return nn.Sequential(*layers, nn.Linear(32, 3))

    x, y = blobs()
    report = eg.check(model(), 3 * x + 5, y, nn.CrossEntropyLoss(), select=["ARC009"], causes=False)
    (finding,) = report.findings
    for part in ("the scale of LeCun normal", "not 0 and 1", "8 of 9 layers are behind a norm"):
        assert part in finding.message


def test_samples_that_come_again_are_not_their_own_neighbours() -> None:
    x, y = shuffled(blobs(200))
    facts = neighbour_agreement(torch.cat((x, x, x)), torch.cat((y, y, y)))
    assert facts == neighbour_agreement(x, y)
    assert facts["neighbour_agreement"] < 0.5


@pytest.mark.parametrize(
    ("loss_fn", "targets", "pairs"),
    [
        (nn.CrossEntropyLoss(), torch.arange(32) % 3, True),
        (nn.MSELoss(), torch.randn(32, 3, generator=torch.Generator().manual_seed(1)), True),
        (lambda o, y: (o.mean(1)[None] - y[:, :1]).square().mean(), torch.randn(32, 3, generator=torch.Generator().manual_seed(1)), False),
    ],
)
def test_loss_that_does_not_compare_one_by_one_is_told(loss_fn: Any, targets: Tensor, pairs: bool) -> None:
    torch.manual_seed(0)
    facts = loss_facts(loss_fn, 1.0, torch.randn(32, 3), targets)
    assert (facts["pairing"] > 1e-3) == pairs


def test_answers_that_are_all_alike_do_not_tell_whose_targets_they_get() -> None:
    assert "pairing" not in loss_facts(nn.MSELoss(), 1.0, 1 + 1e-4 * torch.randn(32, 3), torch.randn(32, 3))
    assert "pairing" not in loss_facts(nn.CrossEntropyLoss(), 1.0, 1e-12 * torch.randn(32, 3), torch.arange(32) % 3)


def two_tasks(sign: float = 1.0, scale: float = 1.0) -> Parts:
    x, y = blobs()
    targets = torch.stack([y.float(), scale * x[:, 0]], 1)

    def both(output: Tensor, wanted: Tensor) -> Tensor:
        right = nn.functional.cross_entropy(output[:, :3], wanted[:, 0].long())
        return right + sign * nn.functional.mse_loss(output[:, 3], wanted[:, 1])

    return {"model": lambda: mlp(8, 32, 4), "data": (x, targets), "loss_fn": both, "optimizer": sgd(0.02)}


def test_each_of_several_losses_is_judged_by_the_targets_that_it_gets() -> None:
    assert found(two_tasks()) == []
    assert [f.cause for f in found(two_tasks(scale=500.0)) if f.code == "DAT002"] == ["target_not_scaled"]
    assert "sign_error" in [f.cause for f in found(two_tasks(sign=-1.0)) if f.code == "OPT011"]


class Cell(nn.Module):
    """A cell in a loop of its own, whose state is cut from the step before or not."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.cell, self.out, self._cut = nn.GRUCell(2, 16), nn.Linear(16, 3), cut

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 16)
        for now in x.view(len(x), 4, 2).unbind(1):
            state = self.cell(now, state)
            state = state.detach() if self._cut else state
        return self.out(state)  # type: ignore[no-any-return]


def test_a_cell_whose_state_is_detached_forgets_its_past() -> None:
    assert [f.cause for f in found(classifier(model=lambda: Cell(True))) if f.code == "ARC004"] == ["long_memory"]
    assert [f for f in found(classifier(model=lambda: Cell(False))) if f.code == "ARC004"] == []


class Gated(nn.Module):
    """Gates that are computed and not used."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.values, self.out = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        torch.sigmoid(self.gates(x))
        return self.out(self.values(x))  # type: ignore[no-any-return]


def test_what_would_bend_between_layers_and_is_thrown_away_is_an_activation_that_is_missing() -> None:
    told = [f for f in found(classifier(model=Gated, optimizer=sgd(0.001))) if f.code == "ARC004"]
    assert [f.cause for f in told] == ["missing_activation"]
