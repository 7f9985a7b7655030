"""What the network is made of."""

from __future__ import annotations

from torch import nn

from benchmarks.faults.base import Operator, Program
from benchmarks.faults.edits import ACTIVATIONS, NORMS, Unused, swapped
from evengrad.lab.models import MLP
from evengrad.lab.models.parts import Skip

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
DEAD = ("dead_relu", "zero_gradient", "constant_output", "loss_stuck", "signal_collapse", "vanishing_gradient", "plateau")


def _no_skips(model: nn.Module) -> nn.Module:
    def opened(child: nn.Module) -> nn.Module:
        assert isinstance(child, Skip)
        return child.branch

    return swapped((Skip,), opened)(model)


def _linear_models(program: Program) -> bool:
    return isinstance(program.net, MLP)


OPERATORS = (
    Operator(
        name="logistic-in-a-deep-net", cause="bad_hidden_activation", half="tuning", symptoms=FADING, places=("layers",),
        on=("deep-relu", "deep-tanh", "selu"), mutate=lambda p: p.with_net(activation="sigmoid", initialiser="glorot_normal"),
        fits=_linear_models,
    ),
    Operator(
        name="softmax-between-layers", cause="bad_hidden_activation", half="reported", symptoms=FADING, places=("layers",),
        on=("deep-elu", "deep-tanh20"), mutate=lambda p: p.with_net(activation="softmax"), fits=_linear_models,
    ),
    Operator(
        name="no-activation", cause="missing_activation", half="tuning", symptoms=FLAT, places=("layers",),
        on=("circles", "spirals", "waves"), mutate=lambda p: p.with_net(activation="linear"), fits=_linear_models,
    ),
    Operator(
        name="activation-unused", cause="missing_activation", half="reported",
        symptoms=(*FLAT, "loss_divergence", "nan_or_inf", "exploding_gradient"),
        places=("layers",),
        on=("spirals-tanh", "energy"), mutate=lambda p: p.edited(swapped(ACTIVATIONS, Unused)),
    ),
    Operator(
        name="no-batch-norm", cause="missing_normalization_layer", half="tuning", symptoms=UNNORMED, places=("layers", "optimizer"),
        on=("deep-bn", "residual-bn", "conv-bn"), mutate=lambda p: p.with_net(norm="none"),
        fits=lambda p: getattr(p.net, "norm", "none") != "none",
    ),
    Operator(
        name="norms-skipped", cause="missing_normalization_layer", half="reported", symptoms=UNNORMED, places=("layers", "optimizer"),
        on=("deep-ln", "bn-after", "residual-conv"), mutate=lambda p: p.edited(swapped(NORMS, lambda norm: nn.Identity())),
        fits=lambda p: getattr(p.net, "norm", "none") != "none",
    ),
    Operator(
        name="five-times-as-deep", cause="too_deep_no_skip", half="tuning", symptoms=DEEP, places=("layers",),
        on=("deep-relu", "deep-tanh"), mutate=lambda p: p.with_net(depth=p.net.depth * 5),  # type: ignore[attr-defined]
        fits=_linear_models,
    ),
    Operator(
        name="skips-taken-out", cause="too_deep_no_skip", half="reported", symptoms=DEEP, places=("layers",),
        on=("residual-30", "residual-25"), mutate=lambda p: p.edited(_no_skips), fits=lambda p: p.kind == "residual",
    ),
    Operator(
        name="two-units-a-layer", cause="too_narrow_relu", half="tuning", symptoms=DEAD, places=("layers",),
        on=("deep-relu", "deep-relu16"), mutate=lambda p: p.with_net(width=2), fits=_linear_models,
    ),
    Operator(
        name="three-units-and-deeper", cause="too_narrow_relu", half="reported", symptoms=DEAD, places=("layers",),
        on=("deep-relu14", "deep-relu24"), mutate=lambda p: p.with_net(width=3, depth=24), fits=_linear_models,
    ),
    Operator(
        name="one-hidden-unit", cause="capacity_too_small", half="tuning", symptoms=FLAT, places=("layers",),
        on=("spirals", "circles", "friedman"), mutate=lambda p: p.with_net(depth=1, width=1), fits=_linear_models,
    ),
    Operator(
        name="no-hidden-layer", cause="capacity_too_small", half="reported", symptoms=FLAT, places=("layers",),
        on=("spirals-tanh", "waves-huber"), mutate=lambda p: p.with_net(depth=0), fits=_linear_models,
    ),
)  # fmt: skip
