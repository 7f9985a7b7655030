"""Real networks -> codes: what must be flagged, and what must not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import evengrad as eg
from evengrad.judge import chosen_rules, judge
from evengrad.recording import trace_of
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.types import Finding

SAMPLES = 128
Draw = Callable[[Tensor], Any]
Case = tuple[nn.Module, Tensor, Tensor | None, Any]
CROSS_ENTROPY = nn.CrossEntropyLoss()


def judged(case: Case, **options: Any) -> dict[str, Finding]:
    model, x, y, loss = case
    trace = trace_of(Rig(model, None, loss, **options), Batch(x, y))
    return {f.code: f for f in judge(trace, chosen_rules()).findings}


def initialised(model: nn.Module, draw: Draw, bias: Draw = nn.init.zeros_) -> nn.Module:
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            draw(module.weight)
            if module.bias is not None:
                bias(module.bias)
    return model


def he(model: nn.Module) -> nn.Module:
    return initialised(model, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"))


def glorot(model: nn.Module) -> nn.Module:
    return initialised(model, nn.init.xavier_normal_)


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU, norm: type[nn.Module] | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), *([norm(fan_out)] if norm else []), activation()]
    return nn.Sequential(*layers[: -2 if norm else -1])


def classified(model: nn.Module, *shape: int, classes: int = 3, samples: int = SAMPLES) -> Case:
    return model, torch.randn(samples, *shape), torch.arange(samples) % classes, CROSS_ENTROPY


def reconstructed(model: nn.Module, *shape: int, samples: int = SAMPLES) -> Case:
    x = torch.randn(samples, *shape)
    return model, x, x, nn.MSELoss()


class Encoder(nn.Module):
    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, norm_first=norm_first, batch_first=True)
        self.encoder, self.fc = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.encoder(x).mean(1))
        return out


class Last(nn.Module):
    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.fc = cell(8, 32, num_layers=2, batch_first=True), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.rnn(x)[0][:, -1])
        return out


class Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.down = nn.Conv2d(channels, width, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.down(x))


def resnet() -> nn.Module:
    blocks = [Block(8, 8, 1), Block(8, 8, 1), Block(8, 16, 2), Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1)]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)
    )


def pooled_cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((3, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU(), *([nn.MaxPool2d(2)] if fan_in == fan_out else [])]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4, 3))


def lenet(activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), activation(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), activation(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), activation(), nn.Linear(120, 84), activation(), nn.Linear(84, 3)),
    )


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.up, self.merge, self.out = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.down1(x))
        b = F.relu(self.middle(F.relu(self.down2(F.max_pool2d(a, 2)))))
        out: Tensor = self.out(F.relu(self.merge(torch.cat((self.up(b), a), 1))))
        return out


HEALTHY: dict[str, Callable[[], Case]] = {
    "taper": lambda: classified(he(mlp(1024, 512, 256, 128, 64, 32, 10)), 1024),
    "autoencoder": lambda: reconstructed(glorot(mlp(784, 256, 64, 16, 64, 256, 784, activation=nn.Tanh)), 784),
    "pooled CNN": lambda: classified(he(pooled_cnn()), 3, 16, 16, samples=32),
    "pre-norm Transformer": lambda: classified(Encoder(True), 10, 32, samples=32),
    "post-norm Transformer": lambda: classified(Encoder(False), 10, 32, samples=32),
    "30 batch-normed ReLU layers": lambda: classified(he(mlp(20, *[64] * 30, 3, norm=nn.BatchNorm1d)), 20),
    "50 batch-normed ReLU layers": lambda: classified(he(mlp(20, *[64] * 50, 3, norm=nn.BatchNorm1d)), 20),
    "ResNet": lambda: classified(resnet(), 3, 16, 16, samples=32),
    "LSTM": lambda: classified(Last(nn.LSTM), 30, 8),
    "GRU": lambda: classified(Last(nn.GRU), 30, 8),
    "LeNet tanh": lambda: classified(lenet(nn.Tanh), 1, 28, 28, samples=32),
    "LeNet ReLU": lambda: classified(lenet(nn.ReLU), 1, 28, 28, samples=32),
    "U-Net": lambda: reconstructed(UNet(), 1, 16, 16, samples=32),
    "20 tanh layers, Glorot": lambda: classified(glorot(mlp(20, *[64] * 20, 3, activation=nn.Tanh)), 20),
    "20 ReLU layers, He": lambda: classified(he(mlp(20, *[64] * 20, 3)), 20),
    "5 narrow tanh layers, Glorot": lambda: classified(glorot(mlp(2, *[5] * 5, 3, activation=nn.Tanh)), 2),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_network_has_no_error_and_no_gradient_finding(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    found = judged(HEALTHY[name]())
    assert not [code for code in found if code.startswith(("VAN", "EXP", "NUM"))]
    assert not [f for f in found.values() if f.severity == "error"]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SELU, nn.SiLU, nn.ELU])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_shallow_network_as_torch_makes_it_has_no_finding(depth: int, activation: type[nn.Module]) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        assert judged(classified(mlp(20, *[64] * (depth - 1), 3, activation=activation), 20)) == {}


def changed(model: nn.Sequential, change: Callable[[nn.Sequential], Any]) -> nn.Sequential:
    with torch.no_grad():
        change(model)
    return model


def scaled(case: Case, factor: float) -> Case:
    model, x, y, loss = case
    return model, factor * x, y, loss


SICK: dict[str, tuple[Callable[[], Case], set[str]]] = {
    "20 sigmoid layers": (lambda: classified(glorot(mlp(20, *[64] * 20, 3, activation=nn.Sigmoid)), 20), {"VAN001", "ACT003"}),
    "6 sigmoid layers, Glorot": (lambda: classified(glorot(mlp(20, *[64] * 5, 3, activation=nn.Sigmoid)), 20), {"VAN001"}),
    "6 sigmoid layers, torch": (lambda: classified(mlp(20, *[64] * 5, 3, activation=nn.Sigmoid), 20), {"VAN001"}),
    "5 sigmoid layers, torch": (lambda: classified(mlp(20, *[64] * 4, 3, activation=nn.Sigmoid), 20), {"VAN001"}),
    "30 ReLU layers, torch": (lambda: classified(mlp(20, *[64] * 29, 3), 20), {"VAN001", "ACT003", "INI001"}),
    "20 ReLU layers, N(0, 1)": (lambda: classified(initialised(mlp(20, *[64] * 19, 3), nn.init.normal_), 20), {"EXP001", "INI001"}),
    "dead": (lambda: classified(changed(mlp(20, 64, 64, 64, 3), lambda m: m[2].bias.fill_(-100)), 20), {"ACT001", "VAN002"}),
    "saturated": (lambda: scaled(classified(mlp(20, 64, 64, 3, activation=nn.Tanh), 20), 1000), {"ACT002", "DAT001"}),
    "copies": (lambda: classified(initialised(mlp(20, 64, 64, 3), lambda w: nn.init.constant_(w, 0.1)), 20), {"INI002", "INI003"}),
    "NaN": (lambda: classified(changed(mlp(20, 64, 64, 64, 3), lambda m: m[4].weight[0, 0].fill_(float("nan"))), 20), {"NUM001"}),
    "bytes": (
        lambda: (*classified(mlp(20, 64, 64, 3), 20)[:1], 255 * torch.rand(128, 20), torch.arange(128) % 3, CROSS_ENTROPY),
        {"DAT001"},
    ),
    "uniform(0, 1)": (lambda: classified(initialised(mlp(2, *[5] * 5, 3, activation=nn.Tanh), nn.init.uniform_), 2), {"INI003"}),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SICK)
def test_sick_network_is_flagged(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    make, codes = SICK[name]
    assert codes <= set(judged(make()))


ERRORS = {
    "20 sigmoid layers": "VAN001",
    "30 ReLU layers, torch": "VAN001",
    "20 ReLU layers, N(0, 1)": "EXP001",
    "dead": "ACT001",
    "NaN": "NUM001",
}


@pytest.mark.parametrize(("name", "code"), ERRORS.items())
def test_network_that_cannot_train_is_an_error(name: str, code: str) -> None:
    torch.manual_seed(0)
    assert judged(SICK[name][0]())[code].severity == "error"


def test_place_of_a_fault_is_named() -> None:
    torch.manual_seed(0)
    found = judged(SICK["NaN"][0]())
    assert list(found) == ["NUM001"]  # what follows from it is not told again
    assert found["NUM001"].where[0] == "4"
    assert "layer 3 of 4 (4)" in found["NUM001"].message
    dead = judged(SICK["dead"][0]())
    assert dead["ACT001"].where == ("2",)
    assert dead["VAN002"].where == ("0", "2")


def test_deeper_networks_are_not_healthier() -> None:
    """A sum along depth can only grow: no depth between two flagged ones is passed over."""
    losses = []
    for depth in range(3, 9):
        torch.manual_seed(0)
        found = judged(classified(mlp(20, *[64] * (depth - 1), 3, activation=nn.Sigmoid), 20))
        losses.append(found["VAN001"].evidence[1].value if "VAN001" in found else 0.0)
    assert losses == sorted(losses)
    assert losses[-1] > 4


def test_gradient_of_a_deep_sigmoid_network_falls_by_what_theory_says() -> None:
    torch.manual_seed(0)
    evidence = judged(SICK["20 sigmoid layers"][0]())["VAN001"].evidence[0]
    assert evidence.value == pytest.approx(0.0561**0.5, rel=0.05)  # sqrt(chi_1) of the mean field, at width 64


SCALES = [name for name in (*HEALTHY, *SICK) if name not in {"NaN", "50 batch-normed ReLU layers", "GRU", "LeNet ReLU"}]


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("name", SCALES)
def test_findings_do_not_depend_on_the_scale_of_the_loss(name: str, factor: float) -> None:
    make = HEALTHY[name] if name in HEALTHY else SICK[name][0]
    torch.manual_seed(0)
    model, x, y, loss = make()
    plain, other = judged((model, x, y, loss)), judged((model, x, y, lambda out, target: factor * loss(out, target)))
    assert {k: f.severity for k, f in other.items()} == {k: f.severity for k, f in plain.items()}


@pytest.mark.parametrize("name", ["20 sigmoid layers", "dead", "saturated", "uniform(0, 1)", "taper", "autoencoder", "ResNet"])
def test_findings_do_not_depend_on_the_order_of_the_samples(name: str) -> None:
    make = HEALTHY[name] if name in HEALTHY else SICK[name][0]
    torch.manual_seed(0)
    model, x, y, loss = make()
    order = torch.randperm(len(x))
    assert y is not None
    assert set(judged((model, x[order], y[order], loss))) == set(judged((model, x, y, loss)))


@pytest.mark.parametrize("name", ["20 sigmoid layers", "30 ReLU layers, torch", "dead", "saturated", "taper", "autoencoder", "LSTM"])
def test_findings_do_not_depend_on_the_size_of_the_batch(name: str) -> None:
    make = HEALTHY[name] if name in HEALTHY else SICK[name][0]
    torch.manual_seed(0)
    model, x, y, loss = make()
    assert y is not None
    assert set(judged((model, x[:64], y[:64], loss))) == set(judged((model, x, y, loss)))


def test_double_precision_is_judged_like_single() -> None:
    torch.manual_seed(0)
    model, x, y, loss = SICK["20 sigmoid layers"][0]()
    single = judged((model, x, y, loss))
    assert set(judged((model.double(), x.double(), y, loss))) == set(single)


def test_thresholds_of_ones_own_are_heard() -> None:
    torch.manual_seed(0)
    model, x, y, loss = SICK["6 sigmoid layers, Glorot"][0]()
    report = eg.check(model, x, y, loss, rules=[eg.rules.VanishingGradient(max_lost_decades=9)], select=["VAN"], causes=False)
    assert report.findings == ()
