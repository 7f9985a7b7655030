"""Recurrent networks and attention."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from benchmarks.faults.base import Operator, Program
from benchmarks.faults.held_out import data
from benchmarks.faults.held_out.networks import Encoder
from benchmarks.faults.held_out.programs import changed, is_own

FORGETS = (
    *("vanishing_gradient", "loss_stuck", "plateau", "slow_convergence", "exploding_gradient", "constant_output"),
    *("generalization_failure", "overfitting"),
)
SHARP = (
    *("saturated_activation", "vanishing_gradient", "zero_gradient", "loss_stuck", "plateau", "slow_convergence", "oscillating_loss"),
    *("exploding_gradient", "overfitting", "loss_spike", "generalization_failure", "loss_divergence"),
)


def _unpacked(program: Program) -> Program:
    return changed(program, packed=False).having(data=partial(data.shapes, 120))


def _pixel_by_pixel(program: Program) -> Program:
    return changed(program, inputs=1).having(data=data.digit_pixels)


def _wide_projections(std: float) -> partial[nn.Module]:
    return partial(_drawn_wide, std=std)


@torch.no_grad()
def _drawn_wide(model: nn.Module, std: float) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            module.in_proj_weight[: 2 * module.embed_dim].normal_(0.0, std)
    return model


def _of(*kinds: type[nn.Module]) -> partial[bool]:
    return partial(_is_of, kinds=kinds)


def _is_of(program: Program, kinds: tuple[type[nn.Module], ...]) -> bool:
    return is_own(program) and program.net.make.func in kinds  # type: ignore[attr-defined]


OPERATORS = (
    Operator(
        name="padding-read-as-the-end", cause="long_memory", half="held_out", symptoms=FORGETS, places=("layers", "inputs"),
        on=("own-packed",), mutate=_unpacked, fits=is_own,
    ),
    Operator(
        name="pixel-by-pixel", cause="long_memory", half="held_out", symptoms=FORGETS, places=("layers", "inputs"),
        on=("own-rnn-rows",), mutate=_pixel_by_pixel, fits=is_own,
    ),
    Operator(
        name="sign-shown-150-steps-before", cause="long_memory", half="held_out", symptoms=FORGETS, places=("layers", "inputs"),
        on=("own-rnn-signal",), mutate=lambda p: p.having(data=data.signal(150)), fits=is_own,
    ),
    Operator(
        name="projections-drawn-wide", cause="attention_logits", half="held_out", symptoms=SHARP, places=("layers",),
        on=("own-encoder", "own-encoder-post"), mutate=lambda p: p.edited(_wide_projections(4.0)),
        fits=_of(Encoder), also=("bad_init_large",),
    ),
    Operator(
        name="temperature-of-a-thousandth", cause="attention_logits", half="held_out", symptoms=SHARP, places=("layers",),
        on=("own-attention",), mutate=lambda p: changed(p, scale=1000.0), fits=is_own,
    ),
)  # fmt: skip
