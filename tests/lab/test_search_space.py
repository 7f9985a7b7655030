"""What a user writes about numbers -> axes, experiments with these numbers, and the change as code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import evengrad as eg
from evengrad.errors import InputError, UnknownNameError
from evengrad.lab.search.arms import Arms
from evengrad.lab.search.space import Choice, Range, axis
from evengrad.types import Proposal


def data() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(96, 5, generator=draw)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def model(width: int = 8, activation: type[nn.Module] = nn.Tanh) -> nn.Module:
    return nn.Sequential(nn.Linear(5, width), activation(), nn.Linear(width, width), activation(), nn.Linear(width, 2))


def experiment(**changes: Any) -> eg.Experiment:
    parts: dict[str, Any] = {"optimizer": lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9)} | changes
    return eg.Experiment(
        parts.pop("model", model),
        data(),
        nn.CrossEntropyLoss(),
        parts.pop("optimizer"),
        metric="loss",
        maximize=False,
        epochs=2,
        batch_size=32,
        **parts,
    )


@given(st.floats(1e-4, 9e3))
def test_what_is_tried_has_three_digits_and_stays_in_its_range(draw: float) -> None:
    found = Range(1e-4, 9e3, True).value(draw)
    assert found == pytest.approx(draw, rel=5.1e-3)
    assert 1e-4 <= found <= 9e3
    assert float(f"{found:.3g}") == found


def test_a_logarithmic_range_from_zero_includes_zero_itself() -> None:
    decay = axis("weight_decay", (0, 0.1, "log"))
    assert decay.value(decay.draw(0.0)) == 0.0
    assert decay.value(2e-6) == 2e-6
    assert 0 < decay.distribution().low < 1e-6


def test_whole_ends_make_whole_numbers() -> None:
    width = axis("width", (4, 64, "log"))
    assert type(width.value(width.draw(7))) is int
    assert not width.holds(7.5)
    assert width.holds(64)


def test_choices_go_by_their_names_where_they_are_no_plain_values() -> None:
    kinds = axis("activation", [nn.ReLU, nn.Tanh])
    assert kinds.describe() == {"choices": ["ReLU", "Tanh"]}
    assert kinds.value("Tanh") is nn.Tanh
    assert axis("clip_norm", [None, 1.0]).value(None) is None


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ((1.0, 1.0), "is empty: low must be below high"),
        ((2, 1, "log"), "is empty"),
        ((-1.0, 1.0, "log"), "low must be above 0, or 0 to include zero"),
        ((0.1, math.nan), "between two finite numbers"),
        ((0.1, "1"), "between two finite numbers"),
        ((0.1, 1.0, "linear"), "must be (low, high), (low, high, 'log') or a list"),
        (0.1, "must be (low, high), (low, high, 'log') or a list"),
        ([], "has no choices"),
        ([1, 2, 1], "has a choice twice"),
    ],
)
def test_a_range_of_another_form_says_what_was_expected(written: Any, told: str) -> None:
    with pytest.raises(InputError) as raised:
        axis("lr", written)
    assert told in str(raised.value)
    assert "'lr'" in str(raised.value)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'momentum'.*activation.*width"):
        Arms(experiment()).space({"momemtum": (0.0, 0.9)})


@pytest.mark.parametrize(
    "space",
    [{"lr": (-1.0, 1.0)}, {"init_scale": [0.0]}, {"clip_norm": (0.0, 1.0)}, {"batch_size": [16.5]}, {"initialiser": ["he"]}, {}],
)
def test_numbers_that_cannot_be_are_refused(space: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Arms(experiment()).space(space)


def test_the_usual_space_lies_around_the_experiments_own_numbers_and_holds_them() -> None:
    for optimizer, names in (
        (lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9), {"lr", "momentum", "weight_decay"}),
        (lambda m: torch.optim.AdamW(m.parameters(), 1e-3), {"lr", "beta1", "beta2", "weight_decay"}),
    ):
        arms = Arms(experiment(optimizer=optimizer))
        space = arms.space(None)
        assert set(space) == names | {"initialiser", "init_scale", "clip_norm"}
        assert all(found.holds(arms.own[name]) for name, found in space.items())
        low, high = space["lr"].ends()
        assert high / low == pytest.approx(900, rel=0.05)  # both ends have two digits


def test_what_the_patch_says_is_what_was_tried() -> None:
    numbers = {"lr": 0.03, "momentum": 0.5, "initialiser": "orthogonal", "init_scale": 1.3, "clip_norm": 0.2, "width": 6, "batch_size": 16}
    arms = Arms(experiment())
    assert arms.patch(numbers).splitlines() == [
        "-model(width=8)",
        "+model(width=6)",
        '+eg.initialize_(model, "orthogonal")',
        "+with torch.no_grad():",
        "+    for weight in model.parameters():",
        "+        if weight.dim() > 1:",
        "+            weight.mul_(1.3)",
        "-torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)",
        "+torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.5)",
        "-batch_size=32",
        "+batch_size=16",
        " loss.backward()",
        "+torch.nn.utils.clip_grad_norm_(model.parameters(), 0.2)",
        " optimizer.step()",
    ]

    def typed() -> nn.Module:
        net = eg.initialize_(model(width=6), "orthogonal", inputs=data()[0][:4])
        with torch.no_grad():
            for weight in net.parameters():
                if weight.dim() > 1:
                    weight.mul_(1.3)
        return net

    def step(net: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = loss_fn(net(batch[0]), batch[1])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.2)
        optimizer.step()
        return loss

    by_hand = eg.Experiment(
        typed,
        data(),
        nn.CrossEntropyLoss(),
        lambda m: torch.optim.SGD(m.parameters(), lr=0.03, momentum=0.5),
        metric="loss",
        maximize=False,
        epochs=2,
        batch_size=16,
        train_step=step,
    )
    assert eg.train(arms.apply(numbers), seed=3).losses.tolist() == eg.train(by_hand, seed=3).losses.tolist()


def test_the_experiments_own_numbers_change_nothing() -> None:
    arms = Arms(experiment())
    own = {name: arms.own[name] for name in arms.space(None)}
    assert arms.patch(own) == ""
    assert eg.train(arms.apply(own)).metric == eg.train(arms.experiment).metric


def test_rates_of_groups_keep_their_ratio() -> None:
    def groups(m: nn.Module) -> torch.optim.Optimizer:
        first, *rest = m.parameters()
        return torch.optim.SGD([{"params": [first], "weight_decay": 0.1}, {"params": rest, "lr": 0.01}], 0.1)

    found = eg.build(Arms(experiment(optimizer=groups)).apply({"lr": 0.5, "weight_decay": 0.2})).optimizer
    assert found is not None
    assert [g["lr"] for g in found.param_groups] == pytest.approx([0.5, 0.05])
    assert [g["weight_decay"] for g in found.param_groups] == [0.2, 0]


def test_an_optimizer_is_a_choice_and_brings_its_own_numbers() -> None:
    arms = Arms(experiment())
    arms.space({"optimizer": ["SGD", "Adam"], "beta1": (0.5, 0.9), "lr": (1e-3, 1.0, "log")})
    found = eg.build(arms.apply({"optimizer": "Adam", "beta1": 0.7, "momentum": 0.3, "lr": 0.02})).optimizer
    assert isinstance(found, torch.optim.Adam)
    assert (found.param_groups[0]["lr"], found.param_groups[0]["betas"]) == (0.02, (0.7, 0.999))
    assert "+torch.optim.Adam(model.parameters(), lr=0.02)" in arms.patch({"optimizer": "Adam", "lr": 0.02})
    with pytest.raises(UnknownNameError, match="Did you mean 'Adam'"):
        arms.space({"optimizer": ["Adem"]})


def test_clipping_that_is_there_already_is_replaced() -> None:
    clip = Proposal(remedy="clip_norm", options={"max_norm": 5.0}, summary="clip_norm 5")
    arms = Arms(experiment(repairs=(clip,)))
    assert arms.own["clip_norm"] == 5.0
    assert [p.options for p in arms.apply({"clip_norm": 1.0}).repairs] == [{"max_norm": 1.0}]
    assert arms.apply({"clip_norm": None}).repairs == ()
    assert "initialiser" not in arms.space(None)  # repairs may draw weights themselves


def test_choices_of_classes_are_written_by_name() -> None:
    assert "+model(activation=ReLU)" in Arms(experiment()).patch({"activation": nn.ReLU})
    assert isinstance(Arms(experiment()).space({"activation": [nn.ReLU, nn.Tanh]})["activation"], Choice)
