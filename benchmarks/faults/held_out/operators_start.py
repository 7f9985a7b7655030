"""What weights start from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import init

from benchmarks.faults.base import ModelEdit, Operator, Program
from benchmarks.faults.edits import drawn, weights

LARGE = (
    *("huge_initial_loss", "exploding_gradient", "saturated_activation", "loss_divergence", "nan_or_inf", "dead_relu", "plateau"),
    *("vanishing_gradient", "loss_stuck", "oscillating_loss", "loss_spike", "slow_convergence", "zero_gradient"),
)
SMALL = ("vanishing_gradient", "signal_collapse", "loss_stuck", "zero_gradient", "plateau", "constant_output", "slow_convergence")
EQUAL = ("identical_units", "zero_gradient", "constant_output", "loss_stuck", "vanishing_gradient", "plateau", "no_parameter_update",
         "signal_collapse", "slow_convergence")  # fmt: skip


def _fan_in(w: Tensor) -> int:
    return w[0].numel()


def _drawn_body(fill: Callable[[Tensor], object]) -> ModelEdit:
    """Returns an edit that fills every weight but the head's."""

    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        for _, p in weights(model)[:-1]:
            fill(p)
        return model

    return edit


def _activation(*names: str) -> Callable[[Program], bool]:
    return lambda program: any(n in str(getattr(program.net, "activation", "")) for n in names)


OPERATORS = (
    Operator(
        name="uniform-of-one", cause="bad_init_large", half="held_out", symptoms=LARGE, places=("layers",),
        on=("deep-silu9", "own-deep-conv", "garments-adagrad"), mutate=lambda p: p.edited(drawn(lambda w: init.uniform_(w, -1.0, 1.0))),
    ),
    Operator(
        name="orthogonal-times-6", cause="bad_init_large", half="held_out", symptoms=LARGE, places=("layers",),
        on=("deep-tanh11", "conv-elu"), mutate=lambda p: p.edited(_drawn_body(lambda w: init.orthogonal_(w, 6.0))),
    ),
    Operator(
        name="variance-taken-for-the-deviation", cause="bad_init_small", half="held_out", symptoms=SMALL, places=("layers",),
        on=("deep-relu18", "deep-tanh11", "own-deep-conv"),
        mutate=lambda p: p.edited(drawn(lambda w: init.normal_(w, 0.0, 2 / _fan_in(w)))),
        also=("init_activation_mismatch",),
    ),
    Operator(
        name="language-model-s-0.02", cause="bad_init_small", half="held_out", symptoms=SMALL, places=("layers",),
        on=("deep-silu9", "deep-relu13"), mutate=lambda p: p.edited(drawn(lambda w: init.trunc_normal_(w, std=0.02))),
        also=("init_activation_mismatch",),
    ),
    Operator(
        name="averaging-weights", cause="constant_init", half="held_out", symptoms=EQUAL, places=("layers",),
        on=("own-conv-digits", "garments-adagrad", "ripples"),
        mutate=lambda p: p.edited(drawn(lambda w: init.constant_(w, 1 / _fan_in(w)))),
    ),
    Operator(
        name="hidden-layers-of-zeros", cause="constant_init", half="held_out", symptoms=EQUAL, places=("layers",),
        on=("own-flight", "deep-tanh11", "own-checkers"), mutate=lambda p: p.edited(_drawn_body(init.zeros_)),
    ),
    Operator(
        name="selu-uniform-from-zero-up", cause="selu_conditions", half="held_out", symptoms=(*LARGE, "signal_collapse"),
        places=("layers",), on=("selu14", "selu-rings"),
        mutate=lambda p: p.edited(_drawn_body(lambda w: init.uniform_(w, 0.0, (3 / _fan_in(w)) ** 0.5))), fits=_activation("selu"),
        also=("bad_init_large", "init_activation_mismatch"),
    ),
    Operator(
        name="selu-truncated-0.05", cause="selu_conditions", half="held_out", symptoms=(*SMALL, "saturated_activation"),
        places=("layers",), on=("selu14",), mutate=lambda p: p.edited(_drawn_body(lambda w: init.trunc_normal_(w, std=0.05))),
        fits=_activation("selu"), also=("bad_init_small", "init_activation_mismatch"),
    ),
    Operator(
        name="slope-of-one-told-to-he", cause="init_activation_mismatch", half="held_out", symptoms=SMALL, places=("layers",),
        on=("deep-prelu20",), mutate=lambda p: p.edited(drawn(lambda w: init.kaiming_normal_(w, a=1.0))),
        fits=_activation("relu"), also=("bad_init_small",),
    ),
    Operator(
        name="sigmoid-s-gain-for-silu", cause="init_activation_mismatch", half="held_out", symptoms=SMALL, places=("layers",),
        on=("deep-silu9",), mutate=lambda p: p.edited(drawn(lambda w: init.xavier_normal_(w, init.calculate_gain("sigmoid")))),
        fits=_activation("silu"), also=("bad_init_small",),
    ),
    Operator(
        name="linear-s-gain-for-relu-convolutions", cause="init_activation_mismatch", half="held_out", symptoms=SMALL, places=("layers",),
        on=("own-deep-conv",), mutate=lambda p: p.edited(drawn(lambda w: init.xavier_uniform_(w, 0.7))), also=("bad_init_small",),
    ),
)  # fmt: skip
