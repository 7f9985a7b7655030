"""Checking leaves everything as it was, to the bit: also when the model raises, and when causes are looked for."""

from __future__ import annotations

import copy
import io
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

import evengrad as eg
from evengrad.errors import EvengradError, ForwardError
from evengrad.trace.batch import Batch
from evengrad.trace.recorder import measure


class Net(nn.Module):
    """Every kind of state that a forward pass can change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6))
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Sigmoid())
        self.fc, self.raises = nn.Linear(6, 3), False
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("cache", None)

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.count, Tensor)
        self.count += 1
        self.cache = x.detach().mean()
        self.register_buffer("late", torch.ones(3))
        random.random()
        np.random.random()
        x = self.drop(torch.relu_(self.bn(self.conv(x)))).mean((2, 3))
        x = self.body(torch.relu(self.spectral(x)))
        if self.raises:
            raise ValueError("no")
        out: Tensor = self.fc(x)
        return out


def make() -> tuple[Net, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Net()
    model.train()
    model.bn.eval()  # modes are mixed on purpose
    model.body[1].eval()
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    model.fc.weight.requires_grad_(False)
    x = torch.randn(16, 2, 8, 8)
    return model, x, torch.arange(16) % 3


HOOKS = [name for name in vars(nn.Module()) if "hook" in name]
GLOBAL_HOOKS = [name for name in vars(torch_module) if name.startswith("_global") and "hook" in name]


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that can be compared; tensors by identity and by value."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        "identity": {name: id(t) for name, t in tensors.items()},
        "values": {name: t.detach().clone() for name, t in tensors.items()},
        "gradients": {name: None if p.grad is None else (id(p.grad), p.grad.clone()) for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "buffers": {name: list(m._buffers) for name, m in model.named_modules()},
        "modes": {name: m.training for name, m in model.named_modules()},
        "modules": {name: id(m) for name, m in model.named_modules()},
        "hooks": {name: {h: list(getattr(m, h)) for h in HOOKS if hasattr(getattr(m, h), "__len__")} for name, m in model.named_modules()},
        "tensor hooks": {name: p._backward_hooks for name, p in model.named_parameters()},
        "global hooks": {name: len(h) for name in GLOBAL_HOOKS if hasattr(h := getattr(torch_module, name), "__len__")},
        "keys": {name: sorted(vars(m)) for name, m in model.named_modules()},
        "generators": [torch.get_rng_state(), random.getstate(), np.random.get_state()],
        "modes of torch": [len(_get_current_function_mode_stack()), torch.is_grad_enabled(), torch.get_default_dtype()],
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def assert_untouched(before: dict[str, Any], model: nn.Module) -> None:
    after = state(model)
    for key, value in before.items():
        assert same(value, after[key]), key


VERBS: dict[str, Callable[[nn.Module, Tensor, Tensor], Any]] = {
    "measure": lambda model, x, y: measure(model, Batch(x, y), nn.CrossEntropyLoss()),
    "check": lambda model, x, y: eg.check(model, x, y, nn.CrossEntropyLoss(), causes=False),
    "check with causes": lambda model, x, y: eg.check(model, x, y, nn.CrossEntropyLoss(), causes=True),
    "projection": lambda model, x, y: eg.check(model, x, causes=False),
}


@pytest.mark.parametrize("verb", VERBS)
def test_everything_is_as_it_was(verb: str) -> None:
    model, x, y = make()
    before, kept = state(model), x.clone()
    VERBS[verb](model, x, y)
    assert_untouched(before, model)
    assert torch.equal(x, kept)
    assert x.grad is None
    assert not x.requires_grad


def test_causes_were_really_looked_for() -> None:
    """Else the test above would say nothing about interventions."""
    model, x, y = make()
    for layer in (model.body[0], model.body[2], model.body[4]):
        nn.init.constant_(layer.weight, 3.0)
    before = state(model)
    report = eg.check(model, x, y, nn.CrossEntropyLoss())
    assert report.interventions
    assert_untouched(before, model)


@pytest.mark.parametrize("verb", VERBS)
def test_everything_is_as_it_was_when_the_model_raises(verb: str) -> None:
    model, x, y = make()
    model.raises = True
    before = state(model)
    with pytest.raises(ForwardError) as error:
        VERBS[verb](model, x, y)
    assert isinstance(error.value.__cause__, ValueError)
    assert_untouched(before, model)


@pytest.mark.parametrize(
    "loss", [lambda out, y: out, lambda out, y: 1.0, lambda out, y: out[:, 7].sum(), lambda out, y: out.detach().sum()]
)
def test_everything_is_as_it_was_when_the_loss_does_not_fit(loss: Callable[[Tensor, Tensor], Any]) -> None:
    model, x, y = make()
    before = state(model)
    with pytest.raises(EvengradError):
        eg.check(model, x, y, loss)
    assert_untouched(before, model)


def test_everything_is_as_it_was_when_the_users_code_is_interrupted() -> None:
    class Interrupt(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    model = nn.Sequential(nn.Linear(4, 4), Interrupt())
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        eg.check(model, torch.randn(2, 4))
    before["generators"] = state(model)["generators"]  # randn above drew from torch's
    assert_untouched(before, model)


def test_everything_is_as_it_was_with_a_reentrant_checkpoint() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.c(checkpoint(self.b, self.a(x), use_reentrant=True))
            return out

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, out: Tensor, _: Any) -> Tensor:
            return (self.scale * out).square().mean()

    model, loss, x = Net(), Loss(), torch.randn(8, 4, requires_grad=True)
    model.a.weight.grad = torch.ones(4, 4)
    before, kept = state(model), model.a.weight.grad
    eg.check(model, x, None, loss)
    assert_untouched(before, model)
    assert model.a.weight.grad is kept
    assert x.grad is None
    assert loss.scale.grad is None


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)])
def test_optimizer_keeps_its_state_and_takes_no_step(optimizer: Callable[[Any], torch.optim.Optimizer]) -> None:
    model, x, y = make()
    steps = optimizer(model.parameters())
    nn.CrossEntropyLoss()(model(x), y).backward()
    steps.step()
    before, kept = state(model), copy.deepcopy(steps.state_dict())
    eg.check(model, x, y, nn.CrossEntropyLoss(), optimizer=steps)
    assert same(kept, steps.state_dict())
    assert_untouched(before, model)


def test_model_can_still_be_copied_pickled_saved_and_exported() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 2)), torch.randn(16, 4)
    pickled = pickle.dumps(model)
    eg.check(model, x, torch.arange(16) % 2, nn.CrossEntropyLoss())
    assert pickle.dumps(model) == pickled
    copy.deepcopy(model)
    torch.save(model, io.BytesIO())
    torch.export.export(model.eval(), (x,))


def test_training_goes_on_as_if_nothing_had_been_checked() -> None:
    def train(check: bool) -> list[Tensor]:
        model, x, y = make()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, momentum=0.9)
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(model(x), y).backward()
            if check:
                eg.check(model, x, y, nn.CrossEntropyLoss(), optimizer=optimizer)
            optimizer.step()
        return [p.detach().clone() for p in model.parameters()]

    assert same(train(check=True), train(check=False))


def test_batch_is_not_changed_by_a_model_that_works_in_place() -> None:
    """The model's own in-place work on its input is the user's; a second pass of ours must see the same input."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(x.mul_(1000.0))
            return out

    model, x = InPlace(), torch.randn(8, 4)
    kept = x.clone()
    eg.check(model, x)
    assert torch.equal(x, kept)


def test_users_own_hooks_stay_and_are_called() -> None:
    model, x, y = make()
    calls: list[str] = []
    model.fc.register_forward_hook(lambda *_: calls.append("forward"))
    model.fc.register_full_backward_hook(lambda *_: calls.append("backward"))
    before = state(model)
    measure(model, Batch(x, y), nn.CrossEntropyLoss())
    assert calls == ["forward", "backward"]
    assert_untouched(before, model)
