"""Batch norms folded into the layers before them: equal outputs, whatever the code looks like, and none that must not be."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies.fold import fold_batchnorm


class Block(nn.Module):
    """A residual block, with a convolution on the way around where the width changes."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, padding=1, groups=2), nn.BatchNorm2d(out, affine=False)
        self.around = nn.Sequential(nn.Conv2d(width, out, 1), nn.BatchNorm2d(out)) if width != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.around(x))


class Dynamic(nn.Module):
    """Control flow that depends on data: torch.fx cannot trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        self.na, self.nb = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.na(self.a(x)).relu()
        if x.mean() > -10:
            x = F.relu(self.nb(self.b(x)))
        return self.out(x.mean((2, 3)))


class Twice(nn.Module):
    """One convolution that runs twice, one whose output goes elsewhere, too, and a norm behind nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.both, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.n1, self.n2, self.n3, self.n4 = (nn.BatchNorm2d(3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.n1(self.twice(x)).relu() + self.twice(x)
        y = self.both(x)
        x = self.n2(y).relu() + y
        return self.n4(self.last(self.n3(x)))


class Shared(nn.Module):
    """A weight that the forward uses again as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(self.layer(x)).relu(), self.layer.weight)


def resnet() -> nn.Module:
    stem = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*stem, Block(8, 8), Block(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh())


def transposed() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose1d(6, 4, 2, groups=2))[:3]


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv1d(6, 8, 3), nn.BatchNorm1d(8), nn.Unflatten(1, (2, 4)), nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # model, shape of a sample, norms
    "resnet": (resnet, (3, 12, 12), 6),
    "mlp": (mlp, (6,), 2),
    "dynamic": (Dynamic, (3, 9, 9), 2),
    "transposed": (transposed, (3, 5, 5), 1),
    "sequences": (volumes, (6, 9), 2),
}


def used(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """A model whose norms have seen data, and fresh inputs."""
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    for _ in range(5):
        model(3 * torch.randn(16, *shape) + 1)
    return model, torch.randn(32, *shape)


def norms(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def error(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


@pytest.mark.parametrize("name", MODELS)
def test_every_norm_is_folded_and_outputs_are_equal(name: str) -> None:
    make, shape, count = MODELS[name]
    model, x = used(make, shape)
    state = copy.deepcopy(model.state_dict())
    assert len(norms(model)) == count
    folded = fold_batchnorm(model, x[:2])
    assert norms(folded) == []
    assert folded.evengrad_unfolded == {}
    assert not any(module.training for module in folded.modules())
    assert error(folded(x), model.eval()(x)) < 1e-5
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"dynamic"}))
def test_inputs_are_not_needed_where_fx_can_trace(name: str) -> None:
    model, x = used(*MODELS[name][:2])
    folded = fold_batchnorm(model)
    assert norms(folded) == []
    assert error(folded(x), model.eval()(x)) < 1e-5


def test_a_model_that_fx_cannot_trace_asks_for_inputs() -> None:
    with pytest.raises(InputError, match=r"give inputs to call it with: fold_batchnorm\(model, batch\)"):
        fold_batchnorm(Dynamic())


@pytest.mark.parametrize("given", [True, False], ids=["call", "fx"])
def test_what_others_depend_on_is_left_and_named(given: bool) -> None:
    model, x = used(Twice, (3, 4, 4))
    folded = fold_batchnorm(model, x if given else None)
    assert folded.evengrad_unfolded == {
        "n1": "twice runs 2 times",
        "n2": "both feeds something else, too",
        "n3": "no linear or convolutional layer right before it",
    }
    assert norms(folded) == ["n1", "n2", "n3"]
    assert error(folded(x), model.eval()(x)) < 1e-5


@pytest.mark.parametrize("given", [True, False], ids=["call", "fx"])
def test_a_weight_that_is_used_again_is_left(given: bool) -> None:
    model, x = used(Shared, (6,))
    folded = fold_batchnorm(model, x if given else None)
    assert error(folded(x), model.eval()(x)) < 1e-5
    assert folded.evengrad_unfolded == {"norm": "layer runs 2 times"}


def test_a_norm_over_the_steps_of_a_sequence_is_no_norm_of_units() -> None:
    model, x = used(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), (8, 6))
    folded = fold_batchnorm(model, x)
    assert folded.evengrad_unfolded == {"1": "0 puts out sequences, whose steps it norms"}
    assert error(folded(x), model.eval()(x)) < 1e-6


def test_norms_that_evaluation_cannot_fold_are_named() -> None:
    class Custom(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight.tanh(), self.bias)

    layers = [nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False), Custom(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)]
    model, x = used(lambda: nn.Sequential(*layers, nn.BatchNorm1d(6), nn.ConvTranspose1d(6, 6, 1, groups=2), nn.BatchNorm1d(6))[:6], (6,))
    nn.utils.parametrizations.weight_norm(model[4])
    folded = fold_batchnorm(model, x)
    assert list(folded.evengrad_unfolded) == ["1", "3", "5"]
    assert folded.evengrad_unfolded["1"] == "it has no running statistics"
    assert error(folded(x), model.eval()(x)) < 1e-6


def test_the_copy_can_be_trained_saved_and_called_in_half_precision_types() -> None:
    model, x = used(mlp, (6,))
    folded = fold_batchnorm(model.double(), x.double())
    assert {p.dtype for p in folded.parameters()} == {torch.float64}
    folded(x.double()).sum().backward()
    assert all(p.grad is not None for p in folded.parameters())
    again = mlp()
    assert set(folded.state_dict()) <= set(again.state_dict()) | {"3.bias"}
