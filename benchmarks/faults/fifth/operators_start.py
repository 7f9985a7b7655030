"""What weights start from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import init

from benchmarks.faults.base import Program
from benchmarks.faults.edits import drawn, weights
from benchmarks.faults.fifth.planting import changing, edited, planted
from benchmarks.faults.fifth.sequences import Cards
from benchmarks.faults.fourth.networks import is_of
from benchmarks.faults.fourth.planting import FADING, LARGE

EQUAL = ("identical_units", *FADING)


def _fan_in(w: Tensor) -> int:
    return w[0].numel()


def _drawn(fill: Callable[[Tensor], object]) -> Callable[[Program], Program]:
    return lambda program: program.edited(drawn(fill))


def _body(fill: Callable[[Tensor], object]) -> Callable[[Program], Program]:
    """Returns a mutation that draws every weight but the head's."""

    def change(model: nn.Module) -> None:
        for _, p in weights(model)[:-1]:
            fill(p)

    return edited(changing(change))


def _biases(std: float) -> Callable[[Program], Program]:
    def change(model: nn.Module) -> None:
        for name, p in model.named_parameters():
            if "bias" in name:
                p.normal_(0.0, std)

    return edited(changing(change))


def _spaced(w: Tensor) -> None:
    bound = (3 / _fan_in(w)) ** 0.5
    w.copy_(torch.linspace(-bound, bound, _fan_in(w)).reshape(w[:1].shape).expand_as(w))


def _repeated(model: nn.Module) -> None:
    """Widens a network of two units a layer by copies of them, as is done with one that is trained, without noise."""
    for _, p in weights(model)[:-1]:
        p.copy_(p[:2].repeat(-(-len(p) // 2), *[1] * (p.dim() - 1))[: len(p)])


def _no_questions(model: nn.Module) -> None:
    assert isinstance(model, Cards)
    for linear in (model.query, model.key):
        init.zeros_(linear.weight)


def _of_length(w: Tensor) -> None:
    w.mul_(0.4 / w.flatten(1).norm(dim=1).reshape(-1, *[1] * (w.dim() - 1)))


def _root_twice(w: Tensor) -> None:
    init.xavier_normal_(w)
    w.div_(_fan_in(w) ** 0.5)


def _sparse(w: Tensor) -> None:
    init.sparse_(w, 0.9)  # and a deviation of 0.01, if none is given


def _activation(*names: str) -> Callable[[Program], bool]:
    return lambda program: any(name in getattr(program.net, "activation", "") for name in names)


_LAYERS = ("layers",)
_SMALL = ("init_activation_mismatch",)
_IS_SELU = _activation("selu")
OPERATORS = (
    planted("mean-for-the-deviation", "bad_init_large", _drawn(lambda w: init.normal_(w, 0.02)),
            ("glyphs-conv-8", "phase-dense"), LARGE, _LAYERS),
    planted("biases-of-thirty", "bad_init_large", _biases(30.0), ("bands-dense",), LARGE, _LAYERS),
    planted("signs-for-weights", "bad_init_large", _drawn(lambda w: w.normal_().sign_()), ("motions-elu-11",), LARGE, _LAYERS),
    planted("gain-of-a-policy-s-head", "bad_init_small", _drawn(lambda w: init.orthogonal_(w, 0.01)), ("motions-tanh-14",),
            FADING, _LAYERS, also=_SMALL),
    planted("sparse-as-by-default", "bad_init_small", _drawn(_sparse), ("motions-leaky-15",), FADING, _LAYERS, also=_SMALL),
    planted("root-divided-by-twice", "bad_init_small", _drawn(_root_twice), ("glyphs-conv-8", "motions-elu-11"), FADING, _LAYERS,
            also=_SMALL),
    planted("evenly-spaced-rows", "constant_init", _drawn(_spaced), ("glyphs-dense", "glyphs-conv-8"), EQUAL, _LAYERS),
    planted("queries-and-keys-of-zeros", "constant_init", edited(changing(_no_questions)), ("flashcards",), EQUAL, _LAYERS,
            fits=is_of(Cards)),
    planted("widened-by-repeating", "constant_init", edited(changing(_repeated)), ("glyphs-mlp",), EQUAL, _LAYERS,
            also=("capacity_too_small",)),
    planted("selu-with-wild-biases", "selu_conditions", _biases(4.0), ("selu-soil-24", "selu-motions-18"),
            (*LARGE, "signal_collapse"), _LAYERS, fits=_IS_SELU, also=("bad_init_large",)),
    planted("selu-rows-of-length-0.4", "selu_conditions", _body(_of_length), ("selu-soil-24", "selu-motions-18"), FADING, _LAYERS,
            fits=_IS_SELU, also=("bad_init_small", *_SMALL)),
    planted("siren-s-bound", "init_activation_mismatch", _drawn(lambda w: init.uniform_(w, -(c := (6 / _fan_in(w)) ** 0.5 / 30), c)),
            ("soil-13", "motions-leaky-15"), FADING, _LAYERS, fits=_activation("relu"), also=("bad_init_small",)),
    planted("gain-upside-down", "init_activation_mismatch", _drawn(lambda w: init.normal_(w, 0.0, (0.5 / _fan_in(w)) ** 0.5)),
            ("soil-13",), FADING, _LAYERS, fits=_activation("relu"), also=("bad_init_small",)),
    planted("torch-s-own-in-deep-tanh", "init_activation_mismatch", lambda p: p.with_net(initialiser="default"), ("motions-tanh-14",),
            FADING, _LAYERS, fits=_activation("tanh"), also=("bad_init_small",)),
)  # fmt: skip
