"""What right answers get of a loss: whether it tells them from wrong ones, and whether the output can give them at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import evengrad as eg
from evengrad.trace.loss_probe import probed

Loss = Callable[[Tensor, Tensor], Tensor]


def _numbers() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(32, 1, generator=random), 2 + torch.randn(32, 1, generator=random)


def _classes() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(48, 5, generator=random), torch.randint(5, (48,), generator=random)


def _probed(loss: Loss, pair: tuple[Tensor, Tensor], op: str = "other", **options: Any) -> dict[str, Any]:
    return probed(loss, *pair, op=op, **options)


@pytest.mark.parametrize(
    ("loss", "blind"),
    [
        (lambda o, y: (o.mean() - y.mean()).square(), "order"),
        (lambda o, y: 1 - F.cosine_similarity(o.flatten(), y.flatten(), dim=0), "size"),
        (lambda o, y: ((o - o.mean()) - (y - y.mean())).square().mean(), "level"),
        (lambda o, y: (o.abs() - y.abs()).square().mean(), "sign"),
        (lambda o, y: (o - y.flatten()).square().mean(), "answers"),
    ],
)
def test_a_loss_that_does_not_compare_numbers_one_by_one_is_told_by_what_it_is_blind_to(loss: Loss, blind: str) -> None:
    assert _probed(loss, _numbers())["blind_to"] == blind


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (F.mse_loss, lambda y: y),
        (F.l1_loss, lambda y: y),
        (F.huber_loss, lambda y: y),
        (lambda o, y: (o - y).cosh().log().mean(), lambda y: y),
        (F.poisson_nll_loss, lambda y: y.abs().round()),
        (lambda o, y: (1 - o * y).clamp(min=0).mean(), lambda y: (y - 2).sign()),
        (lambda o, y: -(y * o.sigmoid().log() + (1 - y) * (1 - o.sigmoid()).log()).mean(), lambda y: (y > 2).float()),
        (lambda o, y: 1 - F.cosine_similarity(o, y, dim=1).mean(), lambda y: torch.cat((y, y.square(), y.sin()), 1)),
    ],
)
def test_losses_of_numbers_are_blind_to_nothing(loss: Loss, target: Callable[[Tensor], Tensor]) -> None:
    answers, numbers = _numbers()
    wanted = target(numbers)
    assert "blind_to" not in _probed(loss, (answers.expand_as(wanted).contiguous(), wanted))


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, y: (o.mean(1) - y).square().mean(),
        lambda o, y: F.binary_cross_entropy_with_logits(o, y.float()[:, None].expand_as(o)),
    ],
)
def test_a_loss_that_does_not_see_which_class_is_right_is_told(loss: Loss) -> None:
    assert _probed(loss, _classes())["blind_to"] == "label"


@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        F.multi_margin_loss,
        lambda o, y: F.cross_entropy(o, y, label_smoothing=0.3),
        lambda o, y: (o.softmax(1) - F.one_hot(y, 5)).square().mean(),
        lambda o, y: -((1 - o.softmax(1).gather(1, y[:, None])) ** 2 * o.log_softmax(1).gather(1, y[:, None])).mean(),
        lambda o, y: F.cross_entropy((F.normalize(o) @ F.normalize(o).mT - 9 * torch.eye(48)) / 0.1, y.roll(0) % 48),
    ],
)
def test_losses_of_classes_are_neither_blind_nor_without_end(loss: Loss) -> None:
    found = _probed(loss, _classes(), "cross_entropy")
    assert found.get("free_floor", 0.0) < 0.05


@pytest.mark.parametrize("squash", [lambda o: o.softmax(1), torch.sigmoid, lambda o: o.tanh() / 2])
def test_a_loss_that_squashes_its_logits_has_a_floor(squash: Callable[[Tensor], Tensor]) -> None:
    found = _probed(lambda o, y: F.cross_entropy(squash(o), y), _classes(), "cross_entropy")
    assert found["free_floor"] > 0.3


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(ignore_index=2),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])),
        lambda o, y: F.cross_entropy(o[y < 4], y[y < 4]),
        lambda o, y: F.cross_entropy(o, y.clamp(max=3)),
    ],
)
def test_a_loss_that_leaves_a_class_out_leads_its_free_answers_nowhere(loss: Loss) -> None:
    assert _probed(loss, _classes(), "cross_entropy")["arrives"] < 0.9


@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        F.multi_margin_loss,
        lambda o, y: F.cross_entropy(o, y, label_smoothing=0.3),
        lambda o, y: F.cross_entropy(o, y, weight=torch.tensor([0.01, 1.0, 5.0, 1.0, 30.0])),
        lambda o, y: (o - F.one_hot(y, 5)).square().sum(1).mean(),
        lambda o, y: 1e-4 * F.cross_entropy(o, y, reduction="sum"),
    ],
)
def test_losses_of_classes_lead_free_answers_to_their_class(loss: Loss) -> None:
    found = _probed(loss, _classes())
    assert found["arrives"] == 1.0
    assert not found.keys() & {"blind_to", "endless", "softened"}


def test_labels_that_are_left_out_on_purpose_are_not_counted() -> None:
    answers, labels = _classes()
    assert _probed(F.cross_entropy, (answers, torch.where(labels == 2, -100, labels)))["arrives"] == 1.0


@pytest.mark.parametrize(
    ("loss", "pair"),
    [
        (lambda o, y: (o.exp() - y * o).mean(), (_numbers()[0], _numbers()[1] - 2)),
        (lambda o, y: -(o * F.one_hot(y, 5)).sum(1).mean(), _classes()),
        (lambda o, y: F.kl_div(o, F.one_hot(y, 5).float(), reduction="batchmean"), _classes()),
    ],
)
def test_a_loss_that_no_answer_is_the_best_of_is_endless(loss: Loss, pair: tuple[Tensor, Tensor]) -> None:
    assert _probed(loss, pair)["endless"] == 1.0


@pytest.mark.parametrize(
    "loss", [F.mse_loss, F.l1_loss, lambda o, y: (o - y).square().mean().log(), lambda o, y: F.poisson_nll_loss(o, y.abs().round())]
)
def test_losses_of_numbers_end(loss: Loss) -> None:
    assert "endless" not in _probed(loss, _numbers())


def test_targets_that_are_smoothed_to_nothing_are_told_by_answers_that_are_too_sure() -> None:
    assert _probed(nn.CrossEntropyLoss(label_smoothing=0.95), _classes(), "cross_entropy")["softened"] > 0.9
    assert "softened" not in _probed(nn.CrossEntropyLoss(label_smoothing=0.2), _classes(), "cross_entropy")


def test_right_answers_are_limited_by_what_the_output_reaches() -> None:
    assert _probed(F.cross_entropy, _classes(), "cross_entropy", reach=(-1.0, 1.0))["floor"] > 0.2
    assert _probed(F.mse_loss, _numbers(), "mse", reach=(0.0, 1.0))["floor"] > 0.5


class _Clamped(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h.clamp(0.0, 1.0)


@pytest.mark.parametrize(
    ("last", "reach"),
    [
        (nn.Identity(), [None, None]),
        (nn.Softplus(), [0.0, None]),
        (_Clamped(), [0.0, 1.0]),
        (nn.Tanh(), [-1.0, 1.0]),
        (nn.Softmax(1), [0.0, 1.0]),
        (nn.LeakyReLU(0.1), [None, None]),
    ],
)
def test_the_reach_of_the_output_is_measured_whatever_it_ends_in(last: nn.Module, reach: list[float | None]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), last)
    before = [p.clone() for p in model.parameters()]
    trace = eg.check(model, torch.randn(16, 4), torch.randn(16, 3), nn.MSELoss()).trace
    assert trace is not None
    assert trace.facts.head is not None
    assert trace.facts.head["reach"] == (pytest.approx(reach) if None not in reach else reach)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not model[2]._forward_hooks


@pytest.mark.parametrize(
    ("loss", "pair"),
    [
        (lambda o, y: -(o - y).square().mean(), _numbers()),
        (lambda o, y: -(o.squeeze(1) - y.squeeze(1)).abs().mean(), _numbers()),
        (lambda o, y: o.log_softmax(1)[torch.arange(len(y)), y].mean(), _classes()),
    ],
)
def test_a_loss_of_the_wrong_sign_is_told_however_it_is_written(loss: Loss, pair: tuple[Tensor, Tensor]) -> None:
    assert _probed(loss, pair) == {"reversed": 1.0}
    assert "reversed" not in _probed(lambda o, y: -loss(o, y), pair)


@pytest.mark.parametrize("loss", [lambda o, y: (o.exp() - y * o).mean(), lambda o, y: (o - y.abs().log()).square().mean()])
def test_answers_in_another_space_are_no_wrong_sign(loss: Loss) -> None:
    assert "reversed" not in _probed(loss, _numbers())
