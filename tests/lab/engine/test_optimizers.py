"""Every optimizer equals torch.optim's, run by run, step by step."""

from __future__ import annotations

import pytest
import torch

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab.engine.optimizers import OPTIMIZERS, SGD, Adam, Optimizer, Stepper, optimizer

CASES = [  # three runs each, with numbers of their own
    ("SGD", [{"lr": 0.1}, {"lr": 0.01}, {"lr": 0.3}]),
    ("SGD", [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.5, "dampening": 0.3}, {"lr": 0.2, "weight_decay": 0.1}]),
    ("SGD", [{"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"lr": 0.02, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}] * 2),
    ("Adagrad", [{}, {"lr": 0.3, "lr_decay": 0.1}, {"lr": 0.1, "weight_decay": 0.1, "eps": 1e-3}]),
    ("RMSprop", [{}, {"lr": 0.1, "alpha": 0.9, "momentum": 0.9}, {"weight_decay": 0.1, "eps": 1e-3}]),
    ("RMSprop", [{"centered": True}, {"centered": True, "lr": 0.1, "alpha": 0.9}, {"centered": True, "momentum": 0.5}]),
    ("Adadelta", [{}, {"lr": 0.5, "rho": 0.95}, {"eps": 1e-3, "weight_decay": 0.1}]),
    ("Adam", [{}, {"lr": 0.1, "beta1": 0.5, "beta2": 0.9}, {"lr": 0.01, "eps": 1e-2, "weight_decay": 0.1}]),
    ("Adam", [{"amsgrad": True}, {"amsgrad": True, "lr": 0.1, "beta2": 0.5}]),
    ("AdamW", [{}, {"lr": 0.1, "weight_decay": 0.3}, {"lr": 0.01, "beta1": 0.0}]),
    ("Adamax", [{}, {"lr": 0.1, "beta1": 0.5}, {"weight_decay": 0.1}]),
]


def torch_twin(ours: Optimizer, weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    options = {k: v for k, v in ours.describe().items() if k not in {"name", "beta1", "beta2"}}
    if hasattr(ours, "beta1"):
        options["betas"] = (ours.beta1, ours.beta2)
    return getattr(torch.optim, ours.name)(weights, **options)


def both(kinds: list[Optimizer], steps: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (runs, 7) after some steps: ours trained as one, torch's one by one."""
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(len(kinds), 7, generator=draw, dtype=dtype)
    slopes = torch.randn(steps, len(kinds), 7, generator=draw, dtype=dtype)
    slopes[:, :, 3] *= 1e-6  # where eps matters
    flat = torch.cat((start[:, :4].reshape(-1), start[:, 4:].reshape(-1)))  # two blocks: (1, runs, 4) and (1, runs, 3)
    grad = torch.zeros_like(flat)
    cut = 4 * len(kinds)

    def views(t: torch.Tensor) -> list[torch.Tensor]:
        return [t[:cut].view(1, len(kinds), 4), t[cut:].view(1, len(kinds), 3)]

    stepper = Stepper(kinds, list(zip(views(flat), views(grad), strict=True)), (flat, grad))
    singles = [[torch.nn.Parameter(row[:4].clone()), torch.nn.Parameter(row[4:].clone())] for row in start]
    twins = [torch_twin(kind, weights) for kind, weights in zip(kinds, singles, strict=True)]
    for slope in slopes:
        for view, part in zip(views(grad), (slope[:, :4], slope[:, 4:]), strict=True):
            view[0].copy_(part)
        stepper.step()
        for row, weights, twin in zip(slope, singles, twins, strict=True):
            weights[0].grad, weights[1].grad = row[:4].clone(), row[4:].clone()
            twin.step()
    ours = torch.cat([v[0] for v in views(flat)], dim=1)
    return ours, torch.stack([torch.cat([w.detach() for w in weights]) for weights in singles])


@pytest.mark.parametrize(("name", "numbers"), CASES)
@pytest.mark.parametrize("same", [False, True])
def test_equals_torch_step_by_step(name: str, numbers: list[dict[str, float]], same: bool) -> None:
    kinds = [optimizer(name, **(numbers[-1] if same else n)) for n in numbers]
    for steps in (1, 2, 50):
        ours, theirs = both(kinds, steps, torch.float64)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)  # double: only the order of a few operations differs


@pytest.mark.parametrize(("name", "numbers"), CASES)
def test_equals_torch_in_single_precision(name: str, numbers: list[dict[str, float]]) -> None:
    ours, theirs = both([optimizer(name, **n) for n in numbers], 50, torch.float32)
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)  # fifty roundings of numbers of order 1


def test_every_optimizer_is_in_the_table() -> None:
    assert {name for name, _ in CASES} == set(OPTIMIZERS)


def test_adams_first_second_moment_is_a_tenth_of_the_gradient_at_beta_09() -> None:
    """The corrected moments make the first step lr * sign(g), whatever the betas."""
    ours, _ = both([Adam(lr=0.1, beta1=0.9, eps=0.0), Adam(lr=0.1, beta1=0.5, eps=0.0)], 1, torch.float64)
    start = torch.randn(2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close((ours - start).abs(), torch.full((2, 7), 0.1, dtype=torch.float64))


def test_refuses_numbers_that_cannot_be() -> None:
    with pytest.raises(InputError, match="SGD's lr must be a finite number of at least 0; got -1"):
        SGD(lr=-1)
    with pytest.raises(UnknownNameError, match="Did you mean 'Adam'"):
        optimizer("Adm")
    with pytest.raises(UnknownNameError, match="Did you mean 'momentum'"):
        optimizer("SGD", momentun=0.9)


def test_refuses_kinds_that_cannot_share_a_batch() -> None:
    flat = torch.zeros(4)
    with pytest.raises(InputError, match="one kind of optimizer"):
        Stepper([SGD(lr=0.1, nesterov=True, momentum=0.9), SGD(lr=0.1)], [(flat.view(1, 2, 2), flat.view(1, 2, 2))], (flat, flat))
