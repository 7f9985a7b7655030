"""What weights start from."""

from __future__ import annotations

from torch import nn
from torch.nn import init

from benchmarks.faults.base import ModelEdit, Operator
from benchmarks.faults.edits import drawn, scaled_weights

LARGE = (
    *("huge_initial_loss", "exploding_gradient", "saturated_activation", "loss_divergence", "nan_or_inf", "dead_relu"),
    *("vanishing_gradient", "loss_stuck", "oscillating_loss", "loss_spike", "slow_convergence", "zero_gradient"),
)
SMALL = ("vanishing_gradient", "signal_collapse", "loss_stuck", "zero_gradient", "plateau", "constant_output", "slow_convergence")
EQUAL = ("identical_units", "zero_gradient", "constant_output", "loss_stuck", "vanishing_gradient", "plateau", "no_parameter_update")


OPERATORS = (
    Operator(
        name="weights-x10", cause="bad_init_large", half="tuning", symptoms=LARGE, places=("layers",),
        on=("mlp-relu", "mlp-tanh", "deep-relu", "conv"), mutate=lambda p: p.edited(scaled_weights(10.0, head=True)),
    ),
    Operator(
        name="standard-normal-weights", cause="bad_init_large", half="reported", symptoms=LARGE, places=("layers",),
        on=("mlp-gelu", "conv-mean", "waves-huber"), mutate=lambda p: p.edited(drawn(init.normal_)),
    ),
    Operator(
        name="normal-of-0.01", cause="bad_init_small", half="tuning", symptoms=SMALL, places=("layers",),
        on=("deep-relu", "deep-tanh", "mlp-tanh"), mutate=lambda p: p.edited(drawn(lambda w: init.normal_(w, 0.0, 0.01))),
        also=("init_activation_mismatch",),
    ),
    Operator(
        name="weights-x0.1", cause="bad_init_small", half="reported", symptoms=SMALL, places=("layers",),
        on=("deep-relu14", "deep-tanh20"), mutate=lambda p: p.edited(scaled_weights(0.1)),
        also=("init_activation_mismatch",),
    ),
    Operator(
        name="all-zero", cause="constant_init", half="tuning", symptoms=EQUAL, places=("layers",),
        on=("mlp-relu", "conv", "friedman"), mutate=lambda p: p.edited(drawn(init.zeros_)),
    ),
    Operator(
        name="all-equal", cause="constant_init", half="reported", symptoms=EQUAL, places=("layers",),
        on=("mlp-gelu", "waves-huber"), mutate=lambda p: p.edited(drawn(lambda w: init.constant_(w, 0.05))),
    ),
    Operator(
        name="torch-default-in-deep-relu", cause="init_activation_mismatch", half="tuning", symptoms=SMALL, places=("layers",),
        on=("deep-relu", "deep-relu16"), mutate=lambda p: p.with_net(initialiser="default"), also=("bad_init_small",),
        fits=lambda p: getattr(p.net, "activation", "") == "relu",
    ),
    Operator(
        name="glorot-in-deep-relu", cause="init_activation_mismatch", half="reported", symptoms=SMALL, places=("layers",),
        on=("deep-relu20", "deep-leaky"), mutate=lambda p: p.with_net(initialiser="glorot_normal"), also=("bad_init_small",),
        fits=lambda p: "relu" in getattr(p.net, "activation", ""),
    ),
    Operator(
        name="selu-torch-default", cause="selu_conditions", half="tuning",
        symptoms=(*SMALL, "saturated_activation"), places=("layers",),
        on=("selu", "selu-long"), mutate=lambda p: p.with_net(initialiser="default"), also=("bad_init_small", "init_activation_mismatch"),
        fits=lambda p: getattr(p.net, "activation", "") == "selu",
    ),
    Operator(
        name="selu-plain-dropout", cause="selu_conditions", half="reported",
        symptoms=(*SMALL, "saturated_activation", "train_eval_gap", "exploding_gradient", "generalization_failure"), places=("layers",),
        on=("selu-deep", "selu-points"), mutate=lambda p: p.edited(_with_dropout(0.3)),
        fits=lambda p: getattr(p.net, "activation", "") == "selu", also=("over_regularized",),
    ),
    Operator(
        name="selu-he", cause="selu_conditions", half="reported",
        symptoms=(*LARGE, "signal_collapse", "plateau"), places=("layers",),
        on=("selu-deep",), mutate=lambda p: p.with_net(initialiser="variance_scaling(3, fan_in, normal)"),
        fits=lambda p: getattr(p.net, "activation", "") == "selu", also=("bad_init_large", "init_activation_mismatch"),
    ),
)  # fmt: skip


def _with_dropout(p: float) -> ModelEdit:
    def edit(model: nn.Module) -> nn.Module:
        modules: list[nn.Module] = []
        for module in model.children():
            modules += [module, nn.Dropout(p)] if isinstance(module, nn.SELU) else [module]
        return nn.Sequential(*modules)

    return edit
