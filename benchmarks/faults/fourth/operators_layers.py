"""What the network is made of: activations, norms, skips and sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults.base import Program
from benchmarks.faults.edits import ACTIVATIONS, swapped
from benchmarks.faults.fourth.networks import Branches, NormedTower, Pictures, ResidualPictures, Signals, Tower, is_of, with_options
from benchmarks.faults.fourth.planting import FADING, FLAT, LARGE, UNSTABLE, planted
from benchmarks.faults.fourth.sequences import Bag, Code, Factors, Reader
from evengrad.lab.models import MLP

HIDDEN = (*ACTIVATIONS, nn.LeakyReLU)
DEAD = (*FADING, "dead_relu", "generalization_failure")


class Sine(nn.Module):
    """A sine of thirty times its input, without the weights that it wants."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30 * x)


def _activation(new: Callable[[nn.Module], nn.Module]) -> Callable[[Program], Program]:
    return lambda program: program.edited(swapped(HIDDEN, new))


def _options(**options: Any) -> Callable[[Program], Program]:
    return lambda program: with_options(program, **options)


def _multiplied_width(program: Program) -> Program:
    return program.with_net(width=max(1, program.net.width // 32), widths=None)  # type: ignore[attr-defined]


def _is_mlp(program: Program) -> bool:
    return isinstance(program.net, MLP)


_NORMS = ("layers", "optimizer", "norms")
OPERATORS = (
    planted("sine-of-thirty", "bad_hidden_activation", _activation(lambda old: Sine()), ("lines-tanh-13", "wave-10"),
            (*FADING, *LARGE, "overfitting", "generalization_failure"), ("layers",), fits=_is_mlp, also=("init_activation_mismatch",)),
    planted("log-softmax-between-layers", "bad_hidden_activation", _activation(lambda old: nn.LogSoftmax(-1)),
            ("lines-15", "wave-leaky-17"), (*FADING, *LARGE), ("layers",), fits=_is_mlp),
    planted("sigmoid-behind-each-activation", "bad_hidden_activation", _activation(lambda old: nn.Sequential(old, nn.Sigmoid())),
            ("lines-15", "wave-10", "wave-leaky-17"), FADING, ("layers",), fits=_is_mlp),
    planted("what-was-before-handed-on", "missing_activation", _options(slips=True), ("flower-tower", "roll-tower"), (*FLAT, *UNSTABLE),
            ("layers",), fits=is_of(Tower)),
    planted("limits-far-out", "missing_activation", _activation(lambda old: nn.Hardtanh(-1000.0, 1000.0)), ("shells", "hastie"),
            (*FLAT, *UNSTABLE), ("layers",), fits=_is_mlp),
    planted("dropout-in-its-place", "missing_activation", _activation(lambda old: nn.Dropout(0.05)), ("shells", "selu-roll"),
            (*FLAT, *UNSTABLE), ("layers",), fits=_is_mlp),
    planted("flag-for-norms-off", "missing_normalization_layer", _options(norm="off"), ("lines-bn-9", "pulses-bn"), LARGE, _NORMS,
            fits=is_of(NormedTower, Signals, Pictures)),
    planted("norm-s-result-lost", "missing_normalization_layer", _options(norm="lost"), ("lines-bn-9", "pulses-bn", "stripes-bn"), LARGE,
            _NORMS, fits=is_of(NormedTower, Signals, Pictures)),
    planted("skip-by-a-condition-turned-around", "too_deep_no_skip", _options(skip="unequal"),
            ("branches-20", "branches-stripes"), (*FADING, *LARGE), ("layers",),
            fits=is_of(Branches, ResidualPictures)),
    planted("skip-behind-a-gate-of-zero", "too_deep_no_skip", _options(skip="gated"), ("branches-20", "branches-stripes"),
            (*FADING, *LARGE), ("layers",), fits=is_of(Branches)),
    planted("width-multiplier-of-a-32nd", "too_narrow_relu", _multiplied_width, ("lines-15", "wave-10", "stripes-clipped"), DEAD,
            ("layers",), fits=_is_mlp, also=("capacity_too_small",)),
    planted("one-channel-nine-deep", "too_narrow_relu", _options(channels=1), ("stripes-plain-9",), DEAD, ("layers",),
            fits=is_of(Pictures), also=("capacity_too_small",)),
    planted("tower-of-two-units", "too_narrow_relu", _options(widths=(2,) * 10), ("stripes-dropout",), DEAD, ("layers",),
            fits=is_of(Tower), also=("capacity_too_small",)),
    planted("code-of-one", "capacity_too_small", _options(code=1), ("spectra-code", "digits-code"), FLAT, ("layers",), fits=is_of(Code)),
    planted("one-taste", "capacity_too_small", _options(tastes=1), ("ratings",), FLAT, ("layers",), fits=is_of(Factors)),
    planted("words-of-one-number", "capacity_too_small", _options(width=1), ("topics",), FLAT, ("layers",), fits=is_of(Bag)),
    planted("memory-of-two-numbers", "capacity_too_small", _options(hidden=2), ("pulses-rnn", "tides"), FLAT, ("layers",),
            fits=is_of(Reader)),
)  # fmt: skip
