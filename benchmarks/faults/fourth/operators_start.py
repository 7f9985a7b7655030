"""What weights start from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import init

from benchmarks.faults.base import ModelEdit, Program
from benchmarks.faults.edits import drawn, scaled_named, weights
from benchmarks.faults.fourth.planting import FADING, LARGE, planted

EQUAL = ("identical_units", *FADING)


def _fan_in(w: Tensor) -> int:
    return w[0].numel()


def _std(std: Callable[[Tensor], float]) -> Callable[[Program], Program]:
    """Returns a mutation that draws every weight with this deviation."""
    return _drawn(lambda w: init.normal_(w, 0.0, std(w)))


def _drawn(fill: Callable[[Tensor], object]) -> Callable[[Program], Program]:
    return lambda program: program.edited(drawn(fill))


def _body(fill: Callable[[Tensor], object]) -> Callable[[Program], Program]:
    """Returns a mutation that draws every weight but the head's."""

    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        for _, p in weights(model)[:-1]:
            fill(p)
        return model

    return lambda program: program.edited(edit)


def _one_row(w: Tensor) -> Tensor:
    row = torch.randn_like(w[:1]) * (2 / _fan_in(w)) ** 0.5
    return w.copy_(row.expand_as(w))  # a row is drawn, and copied into a matrix


@torch.no_grad()
def _by_depth(model: nn.Module) -> nn.Module:
    """Scales as networks with skips do; this one has none."""
    found = weights(model)
    for _, p in found[:-1]:
        p.mul_((2 * len(found)) ** -0.5)
    return model


def _biases(value: float) -> ModelEdit:
    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        for name, p in model.named_parameters():
            if "bias" in name:
                p.fill_(value)
        return model

    return edit


def _activation(name: str) -> Callable[[Program], bool]:
    return lambda program: name in getattr(program.net, "activation", "")


_LAYERS = ("layers",)
_SELU = ("bad_init_large", "init_activation_mismatch")
OPERATORS = (
    planted("rand-for-randn", "bad_init_large", _drawn(init.uniform_), ("wave-10", "figures-plain", "roll-tower"), LARGE, _LAYERS),
    planted("channels-alone-counted", "bad_init_large", _std(lambda w: (2 / w.shape[1]) ** 0.5), ("stripes-plain-9", "figures-plain"),
            LARGE, _LAYERS),
    planted("fraction-upside-down", "bad_init_large", _std(lambda w: (_fan_in(w) / 2) ** 0.5), ("hastie", "shells", "arm"), LARGE,
            _LAYERS),
    planted("bound-of-one-over-n", "bad_init_small", _drawn(lambda w: init.uniform_(w, -1 / _fan_in(w), 1 / _fan_in(w))),
            ("lines-15", "wave-10", "lines-tanh-13"), FADING, _LAYERS, also=("init_activation_mismatch",)),
    planted("scaled-by-depth-without-skips", "bad_init_small", lambda p: p.edited(_by_depth), ("lines-15", "wave-leaky-17"), FADING,
            _LAYERS, also=("init_activation_mismatch", "too_deep_no_skip")),
    planted("pixels-counted-too", "bad_init_small", _std(lambda w: (2 / (_fan_in(w) * 36)) ** 0.5), ("stripes-plain-9",), FADING, _LAYERS,
            also=("init_activation_mismatch",)),
    planted("one-row-for-all-units", "constant_init", _drawn(_one_row), ("stripes-dropout", "figures-plain", "hastie"), EQUAL, _LAYERS),
    planted("embeddings-of-zeros", "constant_init",
            lambda p: p.edited(scaled_named("people.weight", 0.0), scaled_named("films.weight", 0.0)), ("ratings",), EQUAL, _LAYERS,
            also=("bad_init_small",)),
    planted("selu-with-tanh-s-gain", "selu_conditions", _body(lambda w: init.xavier_normal_(w, 5 / 3)),
            ("selu-lines-22", "selu-stripes-16"), (*LARGE, "signal_collapse"), _LAYERS, also=_SELU, fits=_activation("selu")),
    planted("selu-orthogonal-by-half", "selu_conditions", _body(lambda w: init.orthogonal_(w, 0.5)),
            ("selu-lines-22", "selu-stripes-16"), (*FADING, *LARGE), _LAYERS, also=("bad_init_small", "init_activation_mismatch"),
            fits=_activation("selu")),
    planted("gain-of-selu-for-relu", "init_activation_mismatch", _drawn(lambda w: init.kaiming_normal_(w, nonlinearity="selu")),
            ("lines-15", "wave-leaky-17"), FADING, _LAYERS, also=("bad_init_small",), fits=_activation("relu")),
    planted("lecun-s-for-relu", "init_activation_mismatch", _std(lambda w: _fan_in(w) ** -0.5), ("lines-15",), FADING,
            _LAYERS, also=("bad_init_small",), fits=_activation("relu")),
)  # fmt: skip
