"""What the network is made of: activations, norms, skips and sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.faults.base import Program
from benchmarks.faults.edits import ACTIVATIONS, swapped
from benchmarks.faults.fifth.networks import Dense, Gated, Normed, NormedDense, NormedImages, NormedSignals, Skips
from benchmarks.faults.fifth.planting import edited, planted
from benchmarks.faults.fifth.sequences import Cards, Patches
from benchmarks.faults.fourth.networks import is_of, with_options
from benchmarks.faults.fourth.planting import FADING, FLAT, LARGE, UNSTABLE
from evengrad.lab.models import MLP

HIDDEN = (*ACTIVATIONS, nn.LeakyReLU, nn.Mish)
DEAD = (*FADING, "dead_relu", "generalization_failure")
NORMED = is_of(NormedDense, NormedSignals, NormedImages)


class Square(nn.Module):
    """x * x."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x


class Bell(nn.Module):
    """A radial basis: near to 1 at 0, and 0 far out."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-3 * x * x)


class MeanOverUnits(nn.Module):
    """One number a sample: the mean over the wrong axis."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(-1, keepdim=True)


def _activation(new: Callable[[nn.Module], nn.Module]) -> Callable[[Program], Program]:
    return edited(swapped(HIDDEN, new))


def _options(**options: Any) -> Callable[[Program], Program]:
    return lambda program: with_options(program, **options)


def _fused(model: nn.Module) -> nn.Module:
    """Makes one of each convolution and its norm, as before deployment."""
    assert isinstance(model, Normed)
    for i, (layer, norm) in enumerate(zip(model.layers, model.norms, strict=True)):
        model.layers[i] = fuse_conv_bn_eval(layer.eval(), norm.eval())  # type: ignore[type-var, arg-type]
        model.norms[i] = nn.Identity()
    return model.train()


def _depth_and_width(program: Program) -> Program:
    return program.with_net(depth=program.net.width, width=program.net.depth)  # type: ignore[attr-defined]


def _bottlenecks(program: Program) -> Program:
    net: Any = program.net
    return program.with_net(widths=tuple(net.width if i % 2 == 0 else 2 for i in range(net.depth)))


def _rank_one(linear: nn.Module) -> nn.Module:
    assert isinstance(linear, nn.Linear)
    return nn.Sequential(nn.Linear(linear.in_features, 1, bias=False), nn.Linear(1, linear.out_features))


def _mean_before_head(model: nn.Module) -> nn.Module:
    assert isinstance(model, nn.Sequential)
    modules = list(model)
    head = modules[-1]
    assert isinstance(head, nn.Linear)
    return nn.Sequential(*modules[:-1], MeanOverUnits(), nn.Linear(1, head.out_features))


def _is_mlp(program: Program) -> bool:
    return isinstance(program.net, MLP)


_LAYERS = ("layers",)
_NORMS = ("layers", "optimizer", "norms")
_SKIPS = ("skips-16", "skips-tanh-18")
OPERATORS = (
    planted("tanhshrink-for-tanh", "bad_hidden_activation", _activation(lambda old: nn.Tanhshrink()), ("motions-tanh-14",),
            FADING, _LAYERS, fits=_is_mlp),
    planted("squares", "bad_hidden_activation", _activation(lambda old: Square()), ("motions-leaky-15",), LARGE, _LAYERS,
            fits=_is_mlp),
    planted("bell-curves", "bad_hidden_activation", _activation(lambda old: Bell()), ("motions-leaky-15", "motions-elu-11"),
            (*FADING, *UNSTABLE, "overfitting", "generalization_failure"), _LAYERS, fits=_is_mlp, also=("init_activation_mismatch",)),
    planted("activated-before-the-first-layer", "missing_activation", _options(at="first"), ("bands-dense", "phase-dense"),
            (*FLAT, *UNSTABLE), _LAYERS, fits=is_of(Dense)),
    planted("gates-not-used", "missing_activation", _options(gate=False), ("credit", "scurve-gated"), (*FLAT, *UNSTABLE), _LAYERS,
            fits=is_of(Gated)),
    planted("norm-behind-the-first-alone", "missing_normalization_layer", _options(norms="first"),
            ("motions-bn", "glyphs-bn"), LARGE, _NORMS, fits=NORMED),
    planted("norms-fused-for-inference", "missing_normalization_layer", edited(_fused), ("motions-bn",), LARGE, _NORMS,
            fits=is_of(NormedSignals, NormedImages)),
    planted("norms-in-eval-mode-alone", "missing_normalization_layer", _options(norms="eval"), ("motions-bn",),
            (*LARGE, "train_eval_gap", "generalization_failure", "overfitting"), _NORMS, fits=NORMED, also=("bn_stats",)),
    planted("factor-at-the-input", "too_deep_no_skip", _options(skip="scaled"), _SKIPS, (*FADING, *LARGE), _LAYERS, fits=is_of(Skips)),
    planted("input-s-name-given-away", "too_deep_no_skip", _options(skip="overwritten"), _SKIPS, (*FADING, *LARGE), _LAYERS,
            fits=is_of(Skips), also=("bad_init_large",)),
    planted("depth-for-width", "too_deep_no_skip", _depth_and_width, ("motions-tanh-14",), (*FADING, *LARGE), _LAYERS,
            fits=_is_mlp),
    planted("as-wide-as-the-classes", "too_narrow_relu", lambda p: p.with_net(width=p.net.outputs),  # type: ignore[attr-defined]
            ("soil-13", "glyphs-clipped"), DEAD, _LAYERS, fits=_is_mlp, also=("capacity_too_small",)),
    planted("bottlenecks-of-two", "too_narrow_relu", _bottlenecks, ("soil-13", "glyphs-clipped"), DEAD, _LAYERS, fits=_is_mlp,
            also=("capacity_too_small",)),
    planted("factors-of-rank-one", "capacity_too_small", edited(swapped((nn.Linear,), _rank_one)), ("glyphs-dense", "yinyang"),
            FLAT, _LAYERS),
    planted("mean-over-units", "capacity_too_small", edited(_mean_before_head), ("glyphs-mlp",), FLAT, _LAYERS, fits=_is_mlp),
    planted("attention-of-width-one", "capacity_too_small", _options(width=1), ("flashcards",), FLAT, _LAYERS, fits=is_of(Cards)),
    planted("heads-of-one-number", "capacity_too_small", _options(width=2), ("rows-heads",), FLAT, _LAYERS, fits=is_of(Patches)),
)  # fmt: skip
