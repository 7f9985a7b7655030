"""What the network is made of: DeepCrime's changes of layers (Humbatova 2021), and depth, memory and attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.faults.base import Program
from benchmarks.faults.edits import ACTIVATIONS, swapped
from benchmarks.faults.fourth.networks import is_of
from benchmarks.faults.fourth.planting import FADING, FLAT, LARGE, UNSTABLE
from benchmarks.faults.sixth.networks import Autoencoder, Layers, ResidualLayers, ResNet, Vgg
from benchmarks.faults.sixth.planting import edited, options, planted, sizes
from benchmarks.faults.sixth.sequences import Attention, Recurrent
from evengrad.lab.data import Split

DEAD = (*FADING, "dead_relu", "generalization_failure")
FORGETS = ("vanishing_gradient", "loss_stuck", "plateau", "slow_convergence", "exploding_gradient", "constant_output",
           "generalization_failure", "overfitting")  # fmt: skip
SHARP = (*UNSTABLE, "overfitting", "generalization_failure")


def _padded(length: int) -> Callable[[Program], Program]:
    """Pads each sequence behind its end, to the length of the longest, and reads the last output."""

    def edit(split: Split, seed: int) -> Split:
        def longer(x: Tensor) -> Tensor:
            return torch.cat([x, torch.zeros(len(x), length, *x.shape[2:], dtype=x.dtype)], 1)

        return replace(split, x_train=longer(split.x_train), x_test=longer(split.x_test))

    return lambda program: program.with_data(edit)


def _same(make: type[nn.Module]) -> Callable[[Program], Program]:
    return edited(swapped((*ACTIVATIONS, nn.Softmax), lambda old: make()))


def _softmaxes(program: Program) -> Program:
    return program.edited(swapped(ACTIVATIONS, lambda old: nn.Softmax(1)))


_LAYERS = ("layers",)
_NORMS = ("layers", "optimizer", "norms")
_BN = is_of(Layers, Vgg, ResNet)
OPERATORS = (
    planted("sigmoids-in-a-deep-stack", "bad_hidden_activation", _same(nn.Sigmoid),
            ("digits-plain-14",), FADING, _LAYERS),
    planted("softmax-in-hidden-layers", "bad_hidden_activation", _softmaxes, ("houses-sgd",), FADING,
            _LAYERS),
    planted("activations-left-out", "missing_activation", options(act=None), ("houses",), (*FLAT, *UNSTABLE),
            _LAYERS, fits=is_of(Layers)),
    planted("activations-made-linear", "missing_activation", _same(nn.Identity), ("rings-tanh",), (*FLAT, *UNSTABLE), _LAYERS),
    planted("batch-norm-left-out", "missing_normalization_layer", options(norm=False), ("digits-bn-12", "clothes-bn-16"),
            (*LARGE, *FADING), _NORMS, fits=_BN),
    planted("skips-left-out", "too_deep_no_skip", options(skip=False), ("residual-layers",), (*FADING, *LARGE), _LAYERS,
            fits=is_of(ResidualLayers, ResNet)),
    planted("forty-layers-of-tanh", "too_deep_no_skip", sizes(196, *[60] * 40, 10), ("clothes-tanh-10",), (*FADING, *LARGE), _LAYERS,
            fits=is_of(Layers)),
    planted("three-units-a-layer", "too_narrow_relu", sizes(64, *[3] * 14, 10), ("digits-plain-14",), DEAD, _LAYERS, fits=is_of(Layers),
            also=("capacity_too_small",)),
    planted("layers-of-two", "too_narrow_relu", sizes(2, 2, 2, 2, 2, 3), ("rings",), DEAD, _LAYERS, fits=is_of(Layers),
            also=("capacity_too_small",)),
    planted("one-unit-in-a-layer", "capacity_too_small", sizes(8, 1, 1), ("houses",), FLAT, _LAYERS, fits=is_of(Layers)),
    planted("code-of-one-number", "capacity_too_small", options(code=1), ("pixels-code",), FLAT, _LAYERS, fits=is_of(Autoencoder)),
    planted("padded-behind-the-end", "long_memory", _padded(80), ("flag-gru",), FORGETS, ("layers", "inputs"),
            fits=is_of(Recurrent)),
    planted("truncated-to-five-steps", "long_memory", options(cut=5), ("flag-gru",), FORGETS, ("layers", "loop"), fits=is_of(Recurrent),
            also=("frozen_params",)),
    planted("randn-for-queries-and-keys", "attention_logits", options(std=1.0, scale=1.0), ("cards-attention",), SHARP, _LAYERS,
            fits=is_of(Attention), also=("bad_init_large",)),
    planted("temperature-of-0.01", "attention_logits", options(scale=100.0), ("cards-attention",), SHARP, _LAYERS,
            fits=is_of(Attention)),
)  # fmt: skip
