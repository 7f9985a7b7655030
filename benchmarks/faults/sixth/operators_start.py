"""What weights start from: DeepCrime's change of weights' initialisation (Humbatova 2021)."""

from __future__ import annotations

from torch.nn import init

from benchmarks.faults.base import Program
from benchmarks.faults.fourth.networks import with_options
from benchmarks.faults.fourth.planting import FADING, LARGE
from benchmarks.faults.sixth.networks import xavier
from benchmarks.faults.sixth.planting import filled, options, planted

EQUAL = ("identical_units", *FADING)


def _is_selu(program: Program) -> bool:
    return "selu" in program.name


def _of_torch(program: Program) -> Program:
    return with_options(program, init=None)


_LAYERS = ("layers",)
OPERATORS = (
    planted("normal-of-deviation-one", "bad_init_large", filled(init.normal_),
            ("digits-plain-14", "pixels-adam"), LARGE, _LAYERS),
    planted("uniform-from-0-to-1", "bad_init_large", filled(init.uniform_), ("digits-sgd",), LARGE, _LAYERS),
    planted("a-hundredth-of-a-normal", "bad_init_small", filled(lambda w: w.normal_().mul_(0.01)),
            ("clothes-tanh-10",), FADING, _LAYERS, also=("init_activation_mismatch",)),
    planted("normal-of-1e-4", "bad_init_small", filled(lambda w: init.normal_(w, 0.0, 1e-4)), ("digits-sgd",),
            FADING, _LAYERS, also=("init_activation_mismatch",)),
    planted("all-zeros", "constant_init", filled(init.zeros_), ("lenet-adam",), EQUAL, _LAYERS),
    planted("all-ones", "constant_init", filled(init.ones_), ("houses",), EQUAL, _LAYERS, also=("bad_init_large",)),
    planted("all-of-0.05", "constant_init", filled(lambda w: init.constant_(w, 0.05)), ("clothes-gelu",), EQUAL, _LAYERS),
    planted("selu-as-torch-draws", "selu_conditions", _of_torch, ("digits-selu-20",), FADING, _LAYERS, fits=_is_selu,
            also=("init_activation_mismatch", "bad_init_small")),
    planted("selu-with-plain-dropout", "selu_conditions", options(drop=0.3), ("digits-selu-20",),
            (*FADING, *LARGE, "train_eval_gap", "generalization_failure"), _LAYERS, fits=_is_selu, also=("over_regularized",)),
    planted("glorot-s-in-deep-relu", "init_activation_mismatch", options(init=xavier), ("digits-plain-14",), FADING,
            _LAYERS, also=("bad_init_small",)),
    planted("torch-s-own-in-deep-relu", "init_activation_mismatch", _of_torch, ("digits-plain-14",), FADING, _LAYERS,
            also=("bad_init_small",)),
)  # fmt: skip
