"""A model and a batch -> rows: what owns a weight, what follows it, what lies on one trunk with it."""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import evengrad as eg
from evengrad.trace.batch import Batch
from evengrad.trace.capture import Capture
from evengrad.trace.recorder import measure
from evengrad.trace.structure import Structure, read_structure
from evengrad.types import Layer

X8 = torch.linspace(-1, 1, 32).reshape(4, 8).cos()
SEQUENCE = torch.linspace(-1, 1, 60).reshape(4, 5, 3).sin()
TOKENS = torch.arange(20).reshape(4, 5) % 11


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def structure(model: nn.Module, inputs: Any) -> Structure:
    return measure(model, Batch(inputs), columns=()).structure


def rows(model: nn.Module, inputs: Any) -> dict[str, Layer]:
    return {layer.name: layer for layer in structure(model, inputs).layers}


def deep(found: dict[str, Layer]) -> list[str]:
    return [layer.name for layer in found.values() if layer.depth is not None]


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


# ---- feed-forward


def test_rows_of_an_mlp_are_its_linear_layers_in_order() -> None:
    found = structure(mlp(8, 16, 16, 16, 3), X8)
    assert [x.name for x in found.layers] == ["0", "2", "4", "6"]
    assert [x.kind for x in found.layers] == ["linear"] * 4
    assert [x.depth for x in found.layers] == [1, 2, 3, 4]
    assert [x.activation for x in found.layers] == ["relu", "relu", "relu", "none"]
    assert [x.activation_module for x in found.layers] == ["1", "3", "5", None]
    assert [(x.fan_in, x.fan_out) for x in found.layers] == [(8, 16), (16, 16), (16, 16), (16, 3)]
    assert [x.parameters for x in found.layers] == [144, 272, 272, 51]
    assert found.layers[0].weight == "0.weight"
    assert found.layers[0].bias == "0.bias"
    assert found.edges == ((0, 1), (1, 2), (2, 3))
    assert found.head == (3,)
    assert found.unused == ()
    assert len({x.trunk for x in found.layers}) == 1
    assert found.layers[1].group == found.layers[2].group
    assert len({x.group for x in found.layers}) == 3


def test_order_is_that_of_the_data_and_not_of_the_definition() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(8, 2), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(torch.tanh(self.first(x)))
            return out

    found = rows(Backwards(), X8)
    assert [(name, x.depth, x.activation) for name, x in found.items()] == [("first", 1, "tanh"), ("last", 2, "none")]
    assert found["first"].activation_module == ""


def test_parameter_that_never_runs_is_unused_and_has_no_row() -> None:
    model = mlp(8, 8, 2)
    model.spare = nn.Linear(3, 3)
    model.forward = lambda x: model[2](model[1](model[0](x)))  # type: ignore[method-assign]
    found = structure(model, X8)
    assert found.unused == ("spare.weight", "spare.bias")
    assert [x.name for x in found.layers] == ["0", "2"]


ACTIVATIONS: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("relu", F.relu),
    ("relu", nn.ReLU(inplace=True)),
    ("relu", lambda x: x.relu_()),
    ("relu", lambda x: x.clamp(min=0)),
    ("relu", lambda x: torch.clamp(x, 0)),
    ("relu", lambda x: torch.clamp_min(x, 0)),
    ("relu6", nn.ReLU6()),
    ("relu6", F.relu6),
    ("relu6", lambda x: x.clamp(0, 6)),
    ("hardtanh", nn.Hardtanh()),
    ("hardtanh", lambda x: x.clamp(-1, 1)),
    ("leaky_relu", nn.LeakyReLU(0.2)),
    ("elu", nn.ELU()),
    ("selu", nn.SELU()),
    ("celu", nn.CELU()),
    ("gelu", nn.GELU()),
    ("gelu_tanh", nn.GELU(approximate="tanh")),
    ("silu", nn.SiLU()),
    ("mish", nn.Mish()),
    ("sigmoid", nn.Sigmoid()),
    ("sigmoid", torch.special.expit),
    ("tanh", torch.tanh),
    ("tanh", lambda x: x.tanh()),
    ("softplus", nn.Softplus()),
    ("softsign", nn.Softsign()),
    ("hardswish", nn.Hardswish()),
    ("hardsigmoid", nn.Hardsigmoid()),
    ("erf", torch.erf),
    ("softmax", nn.Softmax(dim=-1)),
    ("rrelu", nn.RReLU()),
    # by hand
    ("silu", lambda x: x * torch.sigmoid(x)),
    ("silu", lambda x: torch.sigmoid(1.702 * x) * x),
    ("gelu", lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
    ("gelu_tanh", lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))),
    ("mish", lambda x: x * torch.tanh(F.softplus(x))),
    ("hardswish", lambda x: x * F.relu6(x + 3) / 6),
    # without a name
    ("unknown", torch.sin),
    ("unknown", lambda x: torch.maximum(x, torch.zeros_like(x))),
    ("none", lambda x: 2 * x),
]


@pytest.mark.parametrize(("name", "activation"), ACTIVATIONS)
def test_activation_has_its_name_as_module_function_method_and_by_hand(name: str, activation: Callable[[Tensor], Tensor]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(activation(self.a(x)))
            return out

    found = rows(Net(), X8)
    assert (found["a"].activation, found["b"].activation) == (name, "none")


def test_activation_keeps_its_options() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8), nn.ELU(alpha=0.5), nn.Linear(8, 2))
    found = rows(model, X8)
    assert [x.activation_options for x in found.values()] == [{"negative_slope": 0.2}, {"alpha": 0.5}, {}]


def test_gate_on_something_else_is_no_silu() -> None:
    """Squeeze and excite multiplies another tensor by its sigmoid; tanh(a) * sigmoid(b) is a gate of two layers."""

    class Gates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.squeeze, self.a, self.b, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x * torch.sigmoid(self.squeeze(x))
            out: Tensor = self.out(torch.tanh(self.a(x)) * torch.sigmoid(self.b(x)))
            return out

    found = rows(Gates(), X8)
    assert [x.activation for x in found.values()] == ["sigmoid", "tanh", "sigmoid", "none"]


class Nameless(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * (x > 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad * (ctx.saved_tensors[0] > 0)


def test_activation_of_a_custom_autograd_function_is_unknown_and_links_the_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(Nameless.apply(self.a(x)))
            return out

    found = structure(Net(), X8)
    assert [x.activation for x in found.layers] == ["unknown", "none"]
    assert found.edges == ((0, 1),)


def test_prelu_has_a_row_without_depth() -> None:
    found = rows(nn.Sequential(nn.Linear(8, 8), nn.PReLU(8), nn.Linear(8, 2)), X8)
    assert [(x.kind, x.depth, x.activation) for x in found.values()] == [
        ("linear", 1, "prelu"),
        ("prelu", None, "none"),
        ("linear", 2, "none"),
    ]


def test_glu_is_the_activation_of_the_layer_that_feeds_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(F.glu(self.a(x)))
            return out

    found = rows(Net(), X8)
    assert found["a"].activation == "glu"
    assert found["b"].depth == 2


def test_gated_layer_of_swiglu_has_no_activation_and_the_branch_is_residual() -> None:
    class SwiGlu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.down(F.silu(self.gate(x)) * self.up(x))
            return out

    found = rows(SwiGlu(), X8)
    assert [x.activation for x in found.values()] == ["silu", "none", "none"]
    assert all(x.residual for x in found.values())
    assert found["gate"].group != found["up"].group  # side by side, not one after the other


# ---- convolutions, norms, skips


class Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.down = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        y += x if self.down is None else self.down(x)
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.a, self.b, self.c, self.fc = Block(8, 8, 1), Block(8, 16, 2), Block(16, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.b(self.a(F.relu(self.bn(self.stem(x)), inplace=True))))
        out: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return out


def test_resnet_with_functional_in_place_relu_and_downsampling() -> None:
    found = rows(ResNet(), torch.randn(4, 3, 8, 8))
    convolutions = ["stem", "a.conv1", "a.conv2", "b.conv1", "b.conv2", "b.down.0", "c.conv1", "c.conv2"]
    assert deep(found) == [*convolutions, "fc"]
    assert all(found[name].activation == "relu" and found[name].norm == "batch_norm" for name in convolutions)
    assert found["a.conv1"].norm_module == "a.bn1"
    assert found["a.conv2"].norm_module == "a.bn2"
    assert found["b.down.0"].norm_module == "b.down.1"
    assert found["a.conv1"].activation_module == "a"
    assert [name for name in found if found[name].residual] == convolutions[1:]
    assert found["a.bn1"].kind == "norm"
    assert found["a.bn1"].depth is None
    assert found["a.conv1"].group == found["a.conv2"].group != found["stem"].group
    assert found["b.conv2"].group == found["c.conv1"].group == found["c.conv2"].group
    assert {found[name].trunk for name in convolutions} - {found["b.down.0"].trunk} == {found["stem"].trunk}
    assert (found["b.conv1"].fan_in, found["b.conv1"].fan_out) == (72, 144)
    assert found["fc"].activation == found["fc"].norm == "none"


@pytest.mark.parametrize("write", ["out", "iadd", "torch_add", "method"])
def test_skip_is_seen_however_the_addition_is_written(write: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b, self.fc = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.b(torch.tanh(self.a(x)))
            if write == "iadd":
                y += x
            else:
                y = {"out": lambda: x + 0.5 * y, "torch_add": lambda: torch.add(y, x), "method": lambda: y.add_(x)}[write]()
            out: Tensor = self.fc(y)
            return out

    assert [x.residual for x in rows(Net(), X8).values()] == [False, True, True, False]


def test_sum_of_two_equal_branches_is_no_skip() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b, self.fc = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            out: Tensor = self.fc(self.a(x) + self.b(x))
            return out

    found = rows(Net(), X8)
    assert not any(x.residual for x in found.values())
    assert found["a"].trunk != found["b"].trunk


def test_concatenated_skips_keep_the_order_and_are_no_additions() -> None:
    class DenseNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3, padding=1)
            self.layers = nn.ModuleList([nn.Conv2d(4 + 4 * k, 4, 3, padding=1) for k in range(3)])
            self.fc = nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            seen = [F.relu(self.stem(x))]
            for layer in self.layers:
                seen.append(F.relu(layer(torch.cat(seen, 1))))
            out: Tensor = self.fc(torch.cat(seen, 1).mean((2, 3)))
            return out

    found = structure(DenseNet(), torch.randn(4, 1, 8, 8))
    assert [x.name for x in found.layers] == ["stem", "layers.0", "layers.1", "layers.2", "fc"]
    assert not any(x.residual for x in found.layers)
    assert {(0, 1), (0, 2), (1, 2), (0, 3), (2, 3), (0, 4), (3, 4)} <= set(found.edges)
    assert len({x.trunk for x in found.layers[:4]}) == 1


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


def test_unet_is_one_trunk_of_convolutions_with_its_skip_among_the_edges() -> None:
    found = structure(UNet(), torch.randn(4, 1, 8, 8))
    names = [x.name for x in found.layers]
    assert names == ["down1", "down2", "middle", "up", "merge", "out"]
    assert (names.index("down1"), names.index("merge")) in found.edges
    assert (names.index("up"), names.index("merge")) in found.edges
    assert found.layers[3].kind == "conv_transpose"
    assert len({x.trunk for x in found.layers if x.kind == "conv"}) == 1


@pytest.mark.parametrize(
    ("layer", "fans"),
    [
        (nn.Conv2d(4, 12, 3), (36, 108)),
        (nn.Conv2d(4, 12, 3, groups=4), (9, 27)),  # one output sums 9 inputs; one input reaches 3 channels of 9
        (nn.Conv2d(4, 4, 3, groups=4), (9, 9)),  # depthwise
        (nn.Conv2d(4, 8, 1, groups=2), (2, 4)),
        (nn.Conv2d(4, 8, (3, 1), padding="same"), (12, 24)),
        (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), (16, 96)),  # each output position meets a quarter of the kernel
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (18, 27)),
    ],
)
def test_fans_count_what_an_output_sums_and_an_input_reaches(layer: nn.Module, fans: tuple[int, int]) -> None:
    found = next(iter(rows(layer, torch.randn(2, 4, 8, 8)).values()))
    assert (found.fan_in, found.fan_out) == fans


def test_fans_of_a_convolution_are_counted_by_its_own_arithmetic() -> None:
    """Ones everywhere: the middle output is fan_in, and the gradient of the middle input is fan_out."""
    layer = nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False)
    nn.init.ones_(layer.weight)
    x = torch.ones(1, 4, 7, 7, requires_grad=True)
    z = layer(x)
    z.sum().backward()
    found = next(iter(rows(layer, x.detach()).values()))
    assert x.grad is not None
    assert (found.fan_in, found.fan_out) == (int(z[0, 0, 3, 3]), int(x.grad[0, 0, 3, 3]))


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


@pytest.mark.parametrize(
    ("norm", "name"),
    [
        (nn.BatchNorm1d(8), "batch_norm"),
        (nn.LayerNorm(8), "layer_norm"),
        (nn.GroupNorm(2, 8), "group_norm"),
        (nn.RMSNorm(8), "rms_norm"),
        (RMSNorm(8), "rms_norm"),
    ],
)
def test_norm_before_the_activation_is_named_and_has_a_row_without_depth(norm: nn.Module, name: str) -> None:
    found = rows(nn.Sequential(nn.Linear(8, 8), norm, nn.Tanh(), nn.Linear(8, 2)), X8)
    assert (found["0"].norm, found["0"].norm_module, found["0"].activation) == (name, "1", "tanh")
    assert found["1"].kind == "norm"
    assert found["1"].depth is None
    assert found["3"].norm == "none"


def test_norm_behind_the_activation_belongs_to_no_row_before_it() -> None:
    found = rows(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 2)), X8)
    assert found["0"].norm == "none"


# ---- recurrent


class Recurrent(nn.Module):
    def __init__(self, cell: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = cell(3, 6, num_layers=2, batch_first=True, **options)
        self.fc = nn.Linear(6 * (2 if options.get("bidirectional") else 1), 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.rnn(x)[0][:, -1])
        return out


@pytest.mark.parametrize(("cell", "kind", "gates"), [(nn.LSTM, "lstm", 4), (nn.GRU, "gru", 3), (nn.RNN, "rnn", 1)])
def test_stacked_recurrent_network_has_a_row_a_level(cell: type[nn.RNNBase], kind: str, gates: int) -> None:
    found = rows(Recurrent(cell), SEQUENCE)
    assert [(name, x.kind, x.depth) for name, x in found.items()] == [("rnn.l0", kind, 1), ("rnn.l1", kind, 2), ("fc", "linear", 3)]
    assert [x.activation for x in found.values()] == ["tanh", "tanh", "none"]
    assert [(x.fan_in, x.fan_out) for x in found.values()] == [(3 + 6, 6), (6 + 6, 6), (6, 4)]
    assert found["rnn.l0"].parameters == gates * (6 * 3 + 6 * 6 + 12)
    assert found["rnn.l0"].trunk == found["rnn.l1"].trunk != found["fc"].trunk


def test_relu_rnn_is_followed_by_relu() -> None:
    assert rows(Recurrent(nn.RNN, nonlinearity="relu"), SEQUENCE)["rnn.l0"].activation == "relu"


def test_directions_of_a_level_share_its_row() -> None:
    found = rows(Recurrent(nn.LSTM, bidirectional=True), SEQUENCE)
    assert list(found) == ["rnn.l0", "rnn.l1", "fc"]
    assert [x.parameters for x in found.values()] == [2 * 4 * (18 + 36 + 12), 2 * 4 * (72 + 36 + 12), 52]


@pytest.mark.parametrize(("cell", "kind"), [(nn.LSTMCell, "lstm"), (nn.GRUCell, "gru"), (nn.RNNCell, "rnn")])
def test_cell_in_a_loop_is_one_row_with_the_fans_of_a_level(cell: type[nn.Module], kind: str) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.fc = cell(3, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            state = None
            for t in range(x.shape[1]):
                state = self.cell(x[:, t], state)
            out: Tensor = self.fc(state[0] if isinstance(state, tuple) else state)
            return out

    found = structure(Loop(), SEQUENCE)
    assert [(x.name, x.kind, x.depth) for x in found.layers] == [("cell", kind, 1), ("fc", "linear", 2)]
    assert (found.layers[0].fan_in, found.layers[0].fan_out) == (9, 6)
    assert found.layers[0].activation == "tanh"
    assert found.edges == ((0, 1),)


# ---- attention


class Encoder(nn.Module):
    def __init__(self, *, norm_first: bool, batch_first: bool, layers: int = 2) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, norm_first=norm_first, batch_first=batch_first)
        self.encoder, self.fc = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False), nn.Linear(16, 3)
        self.time = 1 if batch_first else 0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.encoder(x).mean(self.time))
        return out


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_encoder_has_projections_as_rows_on_residual_branches(norm_first: bool, batch_first: bool) -> None:
    found = rows(Encoder(norm_first=norm_first, batch_first=batch_first), torch.randn(4, 5, 16))
    names = ["self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2"]
    assert deep(found) == [*(f"encoder.layers.{i}.{name}" for i in range(2) for name in names), "fc"]
    assert all(found[name].residual for name in deep(found)[:-1])
    assert not found["fc"].residual
    first, second = (f"encoder.layers.{i}." for i in range(2))
    assert [found[first + name].kind for name in names] == ["attention", "attention", "linear", "linear"]
    assert [(found[first + name].fan_in, found[first + name].fan_out) for name in names] == [(16, 48), (16, 16), (16, 32), (32, 16)]
    assert all(found[first + name].group == found[second + name].group for name in names)
    assert found[first + "linear1"].activation == "relu"
    assert found[first + "self_attn.in_proj"].parameters == 48 * 17
    assert found[first + "self_attn.out_proj"].bias == first + "self_attn.out_proj.bias"
    assert sum(x.kind == "norm" for x in found.values()) == 4


def test_attention_with_other_widths_of_keys_and_values() -> None:
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.fc = nn.MultiheadAttention(16, 2, kdim=8, vdim=12, batch_first=True), nn.Linear(16, 3)

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out: Tensor = self.fc(self.attention(q, k, v)[0])
            return out

    found = rows(Cross(), (torch.randn(4, 5, 16), torch.randn(4, 6, 8), torch.randn(4, 6, 12)))
    assert list(found) == ["attention.in_proj", "attention.out_proj", "fc"]
    assert found["attention.in_proj"].parameters == 16 * (16 + 8 + 12) + 48


class Conv1D(nn.Module):
    """GPT-2's linear layer: its kernel is laid out [in, out]."""

    def __init__(self, width: int, fan_in: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(0.02 * torch.randn(fan_in, width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 8), nn.Parameter(torch.randn(7, 8))
        self.ln_1, self.c_attn, self.c_proj = nn.LayerNorm(8), Conv1D(24, 8), Conv1D(8, 8)
        self.ln_2, self.c_fc, self.down = nn.LayerNorm(8), Conv1D(32, 8), Conv1D(8, 32)
        self.ln_f, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe[: tokens.shape[1]]
        q, k, v = self.c_attn(self.ln_1(x)).split(8, -1)
        x = x + self.c_proj(F.scaled_dot_product_attention(q, k, v))
        x = x + self.down(F.gelu(self.c_fc(self.ln_2(x))))
        out: Tensor = self.head(self.ln_f(x))
        return out


def test_gpt2_kernels_laid_out_in_out_have_the_right_fans() -> None:
    found = structure(GPT(), TOKENS)
    named = {x.name: (x, axis) for x, axis in zip(found.layers, found.unit_axes, strict=True)}
    for name, fans in {"c_attn": (8, 24), "c_proj": (8, 8), "c_fc": (8, 32), "down": (32, 8)}.items():
        layer, axis = named[name]
        assert (layer.fan_in, layer.fan_out, axis) == (*fans, 1), name
        assert layer.residual
    assert named["c_fc"][0].activation == "gelu"
    assert named["c_attn"][0].activation == "unknown"  # attention itself is no activation


def test_positional_embedding_is_unknown_and_enters_no_slope() -> None:
    found = rows(GPT(), TOKENS)
    assert (found["wpe"].kind, found["wpe"].depth, found["wpe"].group) == ("unknown", None, None)
    assert (found["wte"].kind, found["wte"].depth) == ("embedding", None)


def test_tied_head_has_its_own_row_and_its_parameters_are_counted_once() -> None:
    found = rows(GPT(), TOKENS)
    assert found["head"].weight == found["wte"].weight == "wte.weight"
    assert (found["wte"].parameters, found["head"].parameters) == (88, 0)
    assert found["head"].kind == "linear"
    assert found["head"].depth == len(deep(found))
    model = GPT()
    assert sum(x.parameters for x in rows(model, TOKENS).values()) == sum(p.numel() for p in model.parameters())


# ---- weights in unusual places


def test_control_flow_that_depends_on_data_is_followed() -> None:
    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.a(x))
            out: Tensor = self.c(x) if x.abs().sum() > 1e6 else self.c(torch.relu(self.b(x)))
            return out

    found = rows(Dynamic(), X8)
    assert [(name, x.activation) for name, x in found.items()] == [("a", "tanh"), ("b", "relu"), ("c", "none")]


def test_module_called_three_times_is_one_row() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.a(x))
            for _ in range(3):
                x = torch.relu(self.b(x))
            out: Tensor = self.c(x)
            return out

    found = structure(Shared(), X8)
    assert [x.name for x in found.layers] == ["a", "b", "c"]
    assert [len(found.activations[i]) for i in range(3)] == [1, 3, 0]
    assert found.edges == ((0, 1), (1, 2))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_block_has_its_rows_once_and_in_order(reentrant: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 2)
            self.body = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(checkpoint(self.body, torch.tanh(self.first(x)), use_reentrant=reentrant))
            return out

    found = structure(Net(), X8)
    assert [(x.name, x.activation) for x in found.layers] == [("first", "tanh"), ("body.0", "tanh"), ("body.2", "tanh"), ("last", "none")]
    assert found.edges == ((0, 1), (1, 2), (2, 3))


def test_raw_parameters_are_rows_under_their_own_name() -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b, self.v = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.zeros(6)), nn.Parameter(torch.randn(5, 6))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x @ self.w + self.b) @ self.v.t()

    found = structure(Raw(), X8)
    assert [(x.name, x.kind, x.fan_in, x.fan_out, x.activation, x.parameters) for x in found.layers] == [
        ("w", "linear", 8, 6, "tanh", 54),
        ("v", "linear", 6, 5, "none", 30),
    ]
    assert found.layers[0].bias == "b"
    assert found.unit_axes == (1, 0)


@pytest.mark.parametrize(
    ("equation", "shape", "fans", "axis"),
    [
        ("bi,io->bo", (8, 6), (8, 6), 1),
        ("bi,oi->bo", (6, 8), (8, 6), 0),
        ("bi,iho->bho", (8, 2, 3), (8, 6), 1),
        ("...i,io->...o", (8, 6), (8, 6), 1),
    ],
)
def test_einsum_tells_the_fans_by_its_letters(equation: str, shape: tuple[int, ...], fans: tuple[int, int], axis: int) -> None:
    class Einsum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(shape))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum(equation, x, self.w)

    found = structure(Einsum(), X8)
    assert (found.layers[0].fan_in, found.layers[0].fan_out) == fans
    assert found.unit_axes[0] == axis


def test_bilinear_sums_over_both_inputs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.fc = nn.Bilinear(4, 5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            out: Tensor = self.fc(torch.relu(self.pair(x, y)))
            return out

    found = rows(Net(), (torch.randn(4, 4), torch.randn(4, 5)))
    assert (found["pair"].fan_in, found["pair"].fan_out, found["pair"].activation) == (20, 6, "relu")


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal])
def test_parametrised_weight_is_the_row_of_its_module(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(wrap(nn.Linear(8, 6)), nn.Tanh(), nn.Linear(6, 2))
    found = rows(model, X8)
    assert [(name, x.kind, x.activation) for name, x in found.items()] == [("0", "linear", "tanh"), ("2", "linear", "none")]
    assert (found["0"].fan_in, found["0"].fan_out) == (8, 6)
    assert found["0"].weight.startswith("0.parametrizations.weight.")
    assert found["0"].parameters == sum(p.numel() for p in model[0].parameters())


def test_two_towers_are_two_trunks() -> None:
    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.fc = mlp(8, 8, 8, 8), mlp(8, 8, 8, 8), nn.Linear(16, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            out: Tensor = self.fc(torch.cat((self.left(a), self.right(b)), 1))
            return out

    found = rows(Towers(), (X8, X8))
    left, right = ([x for name, x in found.items() if name.startswith(side)] for side in ("left", "right"))
    assert len({x.group for x in left}) == len({x.group for x in right}) == 1
    assert left[0].group != right[0].group
    assert left[0].trunk != right[0].trunk


# ---- calls and outputs


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


class Returning(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.wrap = nn.Linear(8, 8), nn.Linear(8, 2), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.b(torch.relu(self.a(x))))


@pytest.mark.parametrize(
    "wrap", [lambda y: (y, 3), lambda y: [y], lambda y: {"logits": y}, lambda y: UserDict(logits=y), Output, lambda y: (None, {"x": [y]})]
)
def test_output_can_be_nested_in_any_usual_container(wrap: Callable[[Tensor], Any]) -> None:
    found = structure(Returning(wrap), X8)
    assert found.head == (1,)
    assert [x.activation for x in found.layers] == ["relu", "none"]


@pytest.mark.parametrize("container", [dict, UserDict])
def test_mapping_of_inputs_is_called_by_name(container: Callable[[dict[str, Tensor]], Any]) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, *, x: Tensor, scale: Tensor) -> Tensor:
            out: Tensor = self.b(torch.relu(self.a(x)) * scale)
            return out

    assert list(rows(Named(), container({"x": X8, "scale": torch.ones(4, 1)}))) == ["a", "b"]


def test_clamp_by_a_tensor_is_no_error() -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(torch.clamp(self.a(x), min=torch.zeros(8)))
            return out

    assert list(rows(Clamped(), X8)) == ["a", "b"]


def test_autocast_hides_nothing() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(8, 8, 8, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                out: Tensor = self.net(x)
            return out

    found = rows(Mixed(), X8)
    assert [(name, x.activation) for name, x in found.items()] == [("net.0", "relu"), ("net.2", "relu"), ("net.4", "none")]


def test_wrapper_modules_only_lengthen_the_names() -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Tensor) -> Tensor:
            out: Tensor = self.module(*args)
            return out

    plain, wrapped = structure(mlp(8, 8, 8, 2), X8), structure(Wrapper(Wrapper(mlp(8, 8, 8, 2))), X8)
    assert [f"module.module.{x.name}" for x in plain.layers] == [x.name for x in wrapped.layers]
    assert wrapped.edges == plain.edges


def test_structure_needs_no_numbers() -> None:
    """On the meta device a model of any size has its rows, without memory."""
    with torch.device("meta"):
        model, x = ResNet(), torch.empty(4, 3, 8, 8)
    with Capture(model) as capture:
        capture.inputs(x)
        output = model(x)
    assert read_structure(capture, output).layers == structure(ResNet(), torch.randn(4, 3, 8, 8)).layers


def test_a_known_structure_is_given_back_where_the_call_went_the_same_way() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(self.first(x)) if x.sum() > 0 else self.first(x)
            return out

    model = Forked()

    def seen(x: Tensor, known: Structure | None = None) -> Structure:
        with Capture(model) as capture:
            capture.inputs(x)
            output = model(x)
        return read_structure(capture, output, known)

    both = seen(torch.ones(4, 8))
    assert seen(2 * torch.ones(4, 8), both) is both
    assert [x.name for x in seen(-torch.ones(4, 8), both).layers] == ["first"]


def test_compiled_submodule_is_seen_as_plain_python() -> None:
    """Compiling is lazy and tracing forces eager mode, so nothing is compiled here."""
    model = nn.Sequential(torch.compile(mlp(8, 8, 8), backend="eager"), nn.Linear(8, 2))
    found = rows(model, X8)
    assert [x.kind for x in found.values()] == ["linear"] * 3


def test_check_looks_at_a_compiled_model_under_its_own_names() -> None:
    trace = eg.check(torch.compile(mlp(8, 8, 8, 2), backend="eager"), X8, causes=False).trace
    assert trace is not None
    assert [x.name for x in trace.layers] == ["0", "2", "4"]


def test_torchscript_has_no_rows_and_says_so() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        model = torch.jit.script(mlp(8, 8, 2))
    report = eg.check(model, torch.randn(64, 8), causes=False)
    assert report.trace is not None
    assert report.trace.layers == ()
    assert "structure" in report.skipped
    assert report.findings == ()


def test_an_activation_that_is_computed_and_dropped_follows_nothing() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            torch.tanh(h)
            return self.second(h)

    class Kept(Dropped):
        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            h.relu_()  # in place: its result is h itself
            return self.second(h)

    assert [structure(model, torch.randn(4, 8)).layers[0].activation for model in (Dropped(), Kept())] == ["none", "relu"]
