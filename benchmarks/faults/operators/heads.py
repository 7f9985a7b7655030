"""What comes out, and what the loss expects."""

from __future__ import annotations

from torch import nn

from benchmarks.faults.base import Operator
from benchmarks.faults.edits import ending

HEAD = (
    *("loss_stuck", "zero_gradient", "dead_relu", "saturated_activation", "plateau", "constant_output", "vanishing_gradient"),
    *("slow_convergence", "no_parameter_update"),
)

OPERATORS = (
    Operator(
        name="relu-on-the-output", cause="wrong_output_activation", half="tuning", symptoms=HEAD, places=("head", "loss"),
        on=("friedman", "waves", "deep-relu"), mutate=lambda p: p.edited(ending(nn.ReLU)),
    ),
    Operator(
        name="softmax-of-one-unit", cause="wrong_output_activation", half="tuning", symptoms=HEAD, places=("head", "loss"),
        on=("cancer-logit", "moons-sigmoid"), mutate=lambda p: p.edited(ending(lambda: nn.Softmax(-1))),
        fits=lambda p: getattr(p.net, "outputs", 0) == 1,
    ),
    Operator(
        name="sigmoid-on-a-regression", cause="wrong_output_activation", half="reported", symptoms=HEAD, places=("head", "loss", "targets"),
        on=("energy", "waves-huber"), mutate=lambda p: p.edited(ending(nn.Sigmoid)),
        fits=lambda p: not p.data().classes,
    ),
    Operator(
        name="softmax-before-cross-entropy", cause="redundant_output_activation", half="tuning", symptoms=HEAD, places=("head", "loss"),
        on=("mlp-tanh", "wine", "deep-relu", "conv-bn"), mutate=lambda p: p.edited(ending(lambda: nn.Softmax(-1))),
        fits=lambda p: len(p.data().classes) > 1,
    ),
    Operator(
        name="sigmoid-before-a-loss-with-logits", cause="redundant_output_activation", half="reported", symptoms=HEAD,
        places=("head", "loss"), also=("wrong_output_activation",),
        on=("moons", "moons-tanh"), mutate=lambda p: p.edited(ending(nn.Sigmoid)), fits=lambda p: getattr(p.net, "outputs", 0) == 1,
    ),
    Operator(
        name="sigmoid-before-cross-entropy", cause="redundant_output_activation", half="reported", symptoms=HEAD, places=("head", "loss"),
        on=("deep-elu", "conv-mean"), mutate=lambda p: p.edited(ending(nn.Sigmoid)), also=("wrong_output_activation",),
        fits=lambda p: len(p.data().classes) > 1,
    ),
)  # fmt: skip
