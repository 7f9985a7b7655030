"""Gradients of many runs -> changed weights, with hyperparameters for each run; every update equals torch.optim's, step by step.

An optimizer is plain data: a frozen dataclass whose fields bear torch's names and defaults. Its numbers may differ from run to run in
one batch of networks; what changes the code path (`nesterov`, `centered`, `amsgrad`) may not. Formulae are written as torch.optim's
single-tensor implementations compute them, in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from evengrad.errors import InputError, unknown

Number = float | Tensor  # one for all runs, or float64 (runs, 1)
Hyper = dict[str, Any]  # name -> Number, or a switch
State = dict[str, Tensor]
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """How weights follow their gradients.

    Attributes:
        lr: Learning rate, at least 0.
        weight_decay: L2 penalty (added to the gradient; AdamW shrinks the weights instead), at least 0.
    """

    lr: float = 1e-3
    weight_decay: float = 0.0

    switches: ClassVar[tuple[str, ...]] = ()  # fields that are not numbers: equal for all runs of a batch

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in self.switches:
                continue
            if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise InputError(f"{type(self).__name__}'s {item.name} must be a finite number of at least 0; got {value!r}")

    @property
    def name(self) -> str:
        """torch's name of the class."""
        return type(self).__name__

    def describe(self) -> dict[str, Any]:
        """Returns the name and every field as JSON values."""
        return {"name": self.name, **asdict(self)}

    def shape(self) -> tuple[Any, ...]:
        """Returns what must be equal for runs that share a batch."""
        return (self.name, *(getattr(self, s) for s in self.switches))

    @abstractmethod
    def update(self, w: Tensor, g: Tensor, state: State, hyper: Hyper, step: int) -> None:
        """Changes the weights `w` in place; `g` may be overwritten; `step` counts from 1."""


class Stepper:
    """Steps runs that are trained as one, the k-th by the k-th optimizer.

    Args:
        optimizers: One a run, equal in `shape()`.
        blocks: Pairs of weights and gradients, each a view (n, runs, elements) of the runs' buffers.
        whole: Weights and gradients as one flat pair, used where no number differs between runs.
    """

    def __init__(self, optimizers: Sequence[Optimizer], blocks: Sequence[Pair], whole: Pair) -> None:
        self._kind = optimizers[0]
        if any(o.shape() != self._kind.shape() for o in optimizers):
            raise InputError(f"runs of one batch need one kind of optimizer; got {sorted({str(o.shape()) for o in optimizers})}")
        self._hyper: Hyper = {s: getattr(self._kind, s) for s in self._kind.switches}
        for name in (f.name for f in fields(self._kind) if f.name not in self._kind.switches):
            values = [float(getattr(o, name)) for o in optimizers]
            same = len(set(values)) == 1
            self._hyper[name] = values[0] if same else torch.tensor(values, dtype=torch.float64, device=whole[0].device)[:, None]
        uniform = not any(isinstance(v, Tensor) for v in self._hyper.values())
        self._pairs = [whole] if uniform else list(blocks)
        self._states: list[State] = [{} for _ in self._pairs]
        self._count = 0

    def step(self, lr_factor: float = 1.0) -> None:
        """Takes one step, with every learning rate times `lr_factor`; gradients may be overwritten."""
        self._count += 1
        hyper = self._hyper | {"lr": self._hyper["lr"] * lr_factor}
        for (w, g), state in zip(self._pairs, self._states, strict=True):
            self._kind.update(w, g, state, hyper, self._count)


def _new(state: State, name: str, like: Tensor) -> Tensor:
    """Returns the state called `name`, zero the first time."""
    if name not in state:
        state[name] = torch.zeros_like(like)
    return state[name]


def _used(value: Number) -> bool:
    return isinstance(value, Tensor) or value != 0


def _times(tensor: Tensor, value: Number) -> Tensor:
    return tensor * (value.to(tensor.dtype) if isinstance(value, Tensor) else value)


def _plus(tensor: Tensor, value: Number) -> Tensor:
    """Adds in place."""
    return tensor.add_(value.to(tensor.dtype) if isinstance(value, Tensor) else value)


def _decayed(w: Tensor, g: Tensor, hyper: Hyper) -> Tensor:
    return g.add_(_times(w, hyper["weight_decay"])) if _used(hyper["weight_decay"]) else g


def _descend(w: Tensor, direction: Tensor, rate: Number) -> None:
    if isinstance(rate, Tensor):
        w.addcmul_(direction, rate.to(w.dtype), value=-1)
    else:
        w.add_(direction, alpha=-rate)


def _average(mean: Tensor, value: Tensor, beta: Number) -> Tensor:
    """mean <- beta mean + (1 - beta) value, in place; 1 - beta is taken in double, as torch does."""
    rest = 1 - beta
    return mean.lerp_(value, rest.to(mean.dtype).expand_as(mean) if isinstance(rest, Tensor) else rest)


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Gradient descent, with momentum or Nesterov's accelerated gradient.

    Reference: Polyak 1964; Nesterov 1983 in the form of Sutskever et al. 2013.
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    switches: ClassVar[tuple[str, ...]] = ("nesterov",)

    def update(self, w: Tensor, g: Tensor, state: State, hyper: Hyper, step: int) -> None:
        """v <- momentum v + g; w <- w - lr v."""
        g = _decayed(w, g, hyper)
        if _used(hyper["momentum"]):
            if step == 1:
                velocity = state["momentum"] = g.clone()  # torch's first step is not dampened
            else:
                velocity = _times(state["momentum"], hyper["momentum"]).add_(_times(g, 1 - hyper["dampening"]))
                state["momentum"] = velocity
            g = g + _times(velocity, hyper["momentum"]) if self.nesterov else velocity
        _descend(w, g, hyper["lr"])


@dataclass(frozen=True, kw_only=True)
class Adagrad(Optimizer):
    """Divides by the root of all squared gradients so far. Reference: Duchi, Hazan & Singer 2011."""

    lr: float = 1e-2
    lr_decay: float = 0.0
    eps: float = 1e-10

    def update(self, w: Tensor, g: Tensor, state: State, hyper: Hyper, step: int) -> None:
        """s <- s + g^2; w <- w - lr g / (sqrt(s) + eps)."""
        g = _decayed(w, g, hyper)
        total = _new(state, "sum", g).addcmul_(g, g)
        _descend(w, g / _plus(total.sqrt(), hyper["eps"]), hyper["lr"] / (1 + (step - 1) * hyper["lr_decay"]))


@dataclass(frozen=True, kw_only=True)
class RMSprop(Optimizer):
    """Divides by the root of a moving mean of squared gradients. Reference: Tieleman & Hinton 2012, lecture 6.5."""

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    switches: ClassVar[tuple[str, ...]] = ("centered",)

    def update(self, w: Tensor, g: Tensor, state: State, hyper: Hyper, step: int) -> None:
        """s <- alpha s + (1 - alpha) g^2; w <- w - lr g / (sqrt(s) + eps)."""
        g = _decayed(w, g, hyper)
        second = _average(_new(state, "square", g), g * g, hyper["alpha"])
        if self.centered:
            mean = _average(_new(state, "mean", g), g, hyper["alpha"])
            second = second - mean * mean
        direction = g / _plus(second.sqrt(), hyper["eps"])
        if _used(hyper["momentum"]):
            direction = state["momentum"] = _times(_new(state, "momentum", g), hyper["momentum"]).add_(direction)
        _descend(w, direction, hyper["lr"])


@dataclass(frozen=True, kw_only=True)
class Adadelta(Optimizer):
    """Steps in the units of the weights themselves: no learning rate is needed. Reference: Zeiler 2012."""

    lr: float = 1.0
    rho: float = 0.9
    eps: float = 1e-6

    def update(self, w: Tensor, g: Tensor, state: State, hyper: Hyper, step: int) -> None:
        """The step is g sqrt(mean squared step + eps) / sqrt(mean squared gradient + eps)."""
        g = _decayed(w, g, hyper)
        second = _average(_new(state, "square", g), g * g, hyper["rho"])
        steps = _new(state, "steps", g)
        delta = _plus(steps.clone(), hyper["eps"]).sqrt_().div_(_plus(second.clone(), hyper["eps"]).sqrt_()).mul_(g)
        _average(steps, delta * delta, hyper["rho"])
        _descend(w, delta, hyper["lr"])


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Momentum over the root of a moving mean of squared gradients, both corrected for their start at zero.

    Reference: Kingma & Ba 2015; amsgrad: Reddi, Kale & Kumar 2018.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    amsgrad: bool = False

    switches: ClassVar[tuple[str, ...]] = ("amsgrad",)

    def update(self, w: Tensor, g: Tensor, state: State, hyper: Hyper, step: int) -> None:
        """w <- w - lr m' / (sqrt(v') + eps), where m' and v' are corrected for bias."""
        self._follow(w, _decayed(w, g, hyper), state, hyper, step)

    def _follow(self, w: Tensor, g: Tensor, state: State, hyper: Hyper, step: int) -> None:
        beta1, beta2 = hyper["beta1"], hyper["beta2"]
        first = _average(_new(state, "first", g), g, beta1)
        second = _average(_new(state, "second", g), g * g, beta2)
        if self.amsgrad:
            second = torch.maximum(_new(state, "largest", g), second, out=state["largest"])
        scale = _plus(_times(second.sqrt(), (1 - beta2**step) ** -0.5), hyper["eps"])
        _descend(w, scale.reciprocal_().mul_(first), hyper["lr"] / (1 - beta1**step))


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam whose weight decay shrinks the weights instead of joining the gradient. Reference: Loshchilov & Hutter 2019."""

    weight_decay: float = 1e-2

    def update(self, w: Tensor, g: Tensor, state: State, hyper: Hyper, step: int) -> None:
        """w <- (1 - lr weight_decay) w, then as Adam."""
        w.copy_(_times(w, 1 - hyper["lr"] * hyper["weight_decay"]))
        self._follow(w, g, state, hyper, step)


@dataclass(frozen=True, kw_only=True)
class Adamax(Optimizer):
    """Adam with the largest magnitude in place of the mean square. Reference: Kingma & Ba 2015, sec. 7.1."""

    lr: float = 2e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def update(self, w: Tensor, g: Tensor, state: State, hyper: Hyper, step: int) -> None:
        """u <- max(beta2 u, |g| + eps); w <- w - lr m / (1 - beta1^t) / u."""
        g = _decayed(w, g, hyper)
        first = _average(_new(state, "first", g), g, hyper["beta1"])
        largest = _new(state, "largest", g)
        torch.maximum(_times(largest, hyper["beta2"]), _plus(g.abs(), hyper["eps"]), out=largest)
        _descend(w, first / largest, hyper["lr"] / (1 - hyper["beta1"] ** step))


OPTIMIZERS: dict[str, type[Optimizer]] = {c.__name__: c for c in (SGD, Adagrad, RMSprop, Adadelta, Adam, AdamW, Adamax)}


def optimizer(name: str, **numbers: Any) -> Optimizer:
    """Returns the optimizer that torch calls `name`.

    Raises:
        UnknownNameError: if there is none, or it has no such number.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    known = {f.name for f in fields(OPTIMIZERS[name])}
    for wrong in numbers.keys() - known:
        raise unknown(f"number of {name}", wrong, known)
    return OPTIMIZERS[name](**numbers)
