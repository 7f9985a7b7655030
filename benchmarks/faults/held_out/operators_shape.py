"""What the network is made of, and what it ends in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.faults.base import ModelEdit, Operator, Program
from benchmarks.faults.edits import ACTIVATIONS, ending, swapped
from benchmarks.faults.held_out.programs import changed, is_own, losing
from evengrad.lab.models import MLP

FADING = (
    *("vanishing_gradient", "saturated_activation", "loss_stuck", "plateau", "slow_convergence", "signal_collapse", "constant_output"),
    "zero_gradient",
)
FLAT = ("loss_stuck", "plateau", "slow_convergence")
UNNORMED = (
    *("loss_divergence", "nan_or_inf", "exploding_gradient", "oscillating_loss", "dead_relu", "vanishing_gradient", "loss_stuck"),
    *("signal_collapse", "slow_convergence", "loss_spike", "plateau", "constant_output", "huge_initial_loss", "zero_gradient"),
)
DEEP = (*FADING, "exploding_gradient", "dead_relu", "loss_divergence", "nan_or_inf", "oscillating_loss", "loss_spike")
DEAD = ("dead_relu", "zero_gradient", "constant_output", "loss_stuck", "signal_collapse", "vanishing_gradient", "plateau",
        "slow_convergence")  # fmt: skip
HEAD = (
    *("loss_stuck", "zero_gradient", "dead_relu", "saturated_activation", "plateau", "constant_output", "vanishing_gradient"),
    *("slow_convergence", "no_parameter_update"),
)


class Sign(nn.Module):
    """-1 or 1: a step."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.sign(h)


class Clamp(nn.Module):
    """Cuts to [0, 1]."""

    def forward(self, h: Tensor) -> Tensor:
        return h.clamp(0.0, 1.0)


def _activation(new: type[nn.Module]) -> ModelEdit:
    return swapped(ACTIVATIONS, lambda old: new())


def _softmax_in_the_loss(program: Program) -> Program:
    loss = program.loss
    return losing(program, lambda output, targets: loss(output.softmax(1), targets))


def _sigmoid_in_the_loss(program: Program) -> Program:
    loss = program.loss
    return losing(program, lambda output, targets: loss(output.sigmoid(), targets))


def _widths(program: Program, *widths: int) -> Program:
    return program.with_net(widths=widths, depth=len(widths))


def _linear_models(program: Program) -> bool:
    return isinstance(program.net, MLP)


def _numbers(program: Program) -> bool:
    return not program.data().classes


OPERATORS = (
    Operator(
        name="hard-sigmoid-in-a-deep-net", cause="bad_hidden_activation", half="held_out", symptoms=FADING, places=("layers",),
        on=("deep-silu9", "deep-tanh11", "selu14"), mutate=lambda p: p.edited(_activation(nn.Hardsigmoid)), fits=_linear_models,
    ),
    Operator(
        name="sign-for-an-activation", cause="bad_hidden_activation", half="held_out", symptoms=(*FADING, "no_parameter_update"),
        places=("layers",), on=("selu-rings", "deep-tanh11"), mutate=lambda p: p.edited(_activation(Sign)), fits=_linear_models,
        also=("frozen_params",),
    ),
    Operator(
        name="shrinking-activation", cause="bad_hidden_activation", half="held_out", symptoms=(*FADING, "dead_relu"), places=("layers",),
        on=("deep-tanh11", "selu14"), mutate=lambda p: p.edited(_activation(nn.Softshrink)), fits=_linear_models,
    ),
    Operator(
        name="activation-called-and-not-assigned", cause="missing_activation", half="held_out", symptoms=FLAT, places=("layers",),
        on=("own-checkers", "own-chirp"), mutate=lambda p: changed(p, forgets=True), fits=is_own,
    ),
    Operator(
        name="leaky-slope-of-one", cause="missing_activation", half="held_out",
        symptoms=(*FLAT, "loss_divergence", "nan_or_inf", "exploding_gradient", "oscillating_loss"), places=("layers",),
        on=("ripples", "crescents", "selu-rings"), mutate=lambda p: p.edited(swapped(ACTIVATIONS, lambda old: nn.LeakyReLU(1.0))),
    ),
    Operator(
        name="norms-made-and-not-called", cause="missing_normalization_layer", half="held_out", symptoms=UNNORMED,
        places=("layers", "optimizer", "norms"),
        on=("own-conv-bn", "own-normed-14"), mutate=lambda p: changed(p, normed=False), fits=is_own,
    ),
    Operator(
        name="input-not-added", cause="too_deep_no_skip", half="held_out", symptoms=DEEP, places=("layers",),
        on=("own-blocks", "own-blocks-24"), mutate=lambda p: changed(p, skip=False), fits=is_own,
    ),
    Operator(
        name="thirty-convolutions", cause="too_deep_no_skip", half="held_out", symptoms=DEEP, places=("layers",),
        on=("own-deep-conv",), mutate=lambda p: changed(p, depth=30), fits=is_own,
    ),
    Operator(
        name="seventy-hidden-layers", cause="too_deep_no_skip", half="held_out", symptoms=DEEP, places=("layers",),
        on=("own-list", "deep-silu9"), mutate=lambda p: changed(p, depth=70) if is_own(p) else p.with_net(depth=70),
    ),
    Operator(
        name="tapers-to-one-unit", cause="too_narrow_relu", half="held_out", symptoms=DEAD, places=("layers",),
        on=("garments-adagrad", "deep-relu13"), mutate=lambda p: _widths(p, 64, 32, 16, 8, 4, 2, 1), fits=_linear_models,
        also=("capacity_too_small",),
    ),
    Operator(
        name="two-channels-twelve-deep", cause="too_narrow_relu", half="held_out", symptoms=DEAD, places=("layers",),
        on=("own-deep-conv",), mutate=lambda p: changed(p, channels=2, depth=12), fits=is_own, also=("capacity_too_small",),
    ),
    Operator(
        name="two-units-in-a-list", cause="too_narrow_relu", half="held_out", symptoms=DEAD, places=("layers",),
        on=("own-list",), mutate=lambda p: changed(p, width=2, depth=12), fits=is_own, also=("capacity_too_small",),
    ),
    Operator(
        name="two-hidden-units", cause="capacity_too_small", half="held_out", symptoms=(*FLAT, "dead_relu"), places=("layers",),
        on=("own-checkers", "own-chirp"), mutate=lambda p: changed(p, width=2), fits=is_own,
    ),
    Operator(
        name="state-of-one", cause="capacity_too_small", half="held_out", symptoms=FLAT, places=("layers",),
        on=("own-rnn-rows", "own-packed"), mutate=lambda p: changed(p, hidden=1), fits=is_own,
    ),
    Operator(
        name="one-unit-in-the-middle", cause="capacity_too_small", half="held_out", symptoms=FLAT, places=("layers",),
        on=("clouds", "ripples"), mutate=lambda p: _widths(p, 40, 1, 40), fits=_linear_models,
    ),
    Operator(
        name="softplus-on-signed-targets", cause="wrong_output_activation", half="held_out", symptoms=HEAD,
        places=("head", "loss", "targets"),
        on=("flight", "own-gru", "own-chirp"), mutate=lambda p: p.edited(ending(nn.Softplus)), fits=_numbers,
    ),
    Operator(
        name="clamped-to-0-1", cause="wrong_output_activation", half="held_out", symptoms=HEAD, places=("head", "loss", "targets"),
        on=("ripples", "own-flight"), mutate=lambda p: p.edited(ending(Clamp)), fits=_numbers,
    ),
    Operator(
        name="softmax-in-the-loss", cause="redundant_output_activation", half="held_out", symptoms=HEAD, places=("head", "loss"),
        on=("deep-tanh11", "own-deep-conv", "digits-mish"), mutate=_softmax_in_the_loss, fits=lambda p: len(p.data().classes) > 2,
    ),
    Operator(
        name="softmax-in-forward", cause="redundant_output_activation", half="held_out", symptoms=HEAD, places=("head", "loss"),
        on=("own-conv-digits",), mutate=lambda p: changed(p, softmax=True), fits=is_own,
    ),
    Operator(
        name="sigmoid-in-the-loss", cause="redundant_output_activation", half="held_out", symptoms=HEAD, places=("head", "loss"),
        on=("crescents",), mutate=_sigmoid_in_the_loss, fits=lambda p: len(p.data().classes) == 2,
        also=("wrong_output_activation",),
    ),
)  # fmt: skip
