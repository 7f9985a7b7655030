"""model, batch and loss -> the loss as a function of the parameters, in float64, with what rounding does to it."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from evengrad.errors import InputError
from evengrad.trace.batch import Loss, call, scalar_loss
from evengrad.trace.capture import tensors_in

TOLERANCE = 1e-4  # a wrong formula is off by far more, differences in float64 by far less
STEPS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)  # of the parameter's RMS, or of 1 if that is larger; shorter ones step over fewer kinks
COARSE_TOLERANCE = 1e-2
COARSE_STEPS = (1e-2, 1e-3)  # for models that round to 32 bits or fewer on their way
PROBES = 5  # evaluations that measure how far rounding moves the loss
SAFETY = 10  # over the largest movement seen


@dataclass(frozen=True)
class Difference:
    """Slopes to the left and to the right of the point at one step, and how far rounding may have moved them."""

    left: float
    right: float
    noise: float

    @property
    def slope(self) -> float:
        """The central difference."""
        return (self.left + self.right) / 2

    @property
    def gap(self) -> float:
        """How far both sides differ."""
        return abs(self.right - self.left)

    def off(self, slope: float) -> float:
        """Returns the relative difference to another slope."""
        return abs(self.slope - slope) / max(abs(self.slope), abs(slope)) if self.slope != slope else 0.0


@dataclass(frozen=True)
class Ladder:
    """Steps to try, from long to short.

    Attributes:
        steps: As shares of the parameter's scale.
        tolerance: The relative difference that they must reach.
        noise: How far rounding alone may move the loss.
        spread: How far rounding alone may move each entry of the gradient: far at a kink.
    """

    steps: tuple[float, ...]
    tolerance: float
    noise: float
    spread: dict[str, Tensor]


class PerturbedLoss:
    """The loss as a function of the parameters: the same generators and buffers at every evaluation.

    Attributes:
        gradients: What back-propagation says of each trainable parameter; zero where the loss does not depend on it.
        ladders: Steps to try: in float64, then, for a model that rounds more coarsely on its way, longer ones.
    """

    def __init__(self, twin: nn.Module, inputs: Any, targets: Any, loss_fn: Loss | None, *, seed: int) -> None:
        device = next((p.device for p in twin.parameters()), torch.device("cpu"))
        self._parameters = {name: p for name, p in twin.named_parameters() if p.requires_grad}
        self._buffers = [(b, b.detach().clone()) for b in twin.buffers()]
        self._model, self._seed = twin, seed
        self._inputs, self._targets = _double(inputs, device), _double(targets, device)
        self._loss_fn = copy.deepcopy(loss_fn).double() if isinstance(loss_fn, nn.Module) else loss_fn
        with _RoundingSeen() as rounding:
            loss = self._evaluate()
        self._base = float(loss.detach())
        if not math.isfinite(self._base):
            raise InputError(f"the loss is {self._base}: a gradient can be checked only where the loss is finite")
        self.gradients = self._gradients(loss)
        self._require_repeatable()
        self.ladders = [self._ladder(STEPS, TOLERANCE, torch.float64)]
        if rounding.coarse is not None:
            self.ladders.append(self._ladder(COARSE_STEPS, COARSE_TOLERANCE, rounding.coarse))

    def difference(self, name: str, direction: Tensor, step: float, noise: float) -> Difference:
        """Returns the slopes of the loss on both sides along `direction` in one parameter."""
        parameter = self._parameters[name]
        before = parameter.detach().clone()
        step *= _scale(before)
        values = []
        for signed in (-step, step):
            _write(parameter, before + signed * direction)
            values.append(float(self._evaluate().detach()))
        _write(parameter, before)
        left, right = values
        return Difference((self._base - left) / step, (right - self._base) / step, noise / step)

    def _ladder(self, steps: tuple[float, ...], tolerance: float, dtype: torch.dtype) -> Ladder:
        """Moves every parameter by rounding alone, and looks how far the loss and the gradient move."""
        eps, generator = torch.finfo(dtype).eps, torch.Generator().manual_seed(self._seed)
        before = [p.detach().clone() for p in self._parameters.values()]
        largest, spread = eps * abs(self._base), {name: torch.zeros_like(g) for name, g in self.gradients.items()}
        for _ in range(PROBES):
            for p, value in zip(self._parameters.values(), before, strict=True):
                signs = torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1
                _write(p, value + 2 * eps * _scale(value) * signs)
            loss = self._evaluate()
            largest = max(largest, abs(float(loss.detach()) - self._base))
            for name, nearby in self._gradients(loss).items():
                spread[name] = torch.maximum(spread[name], (nearby - self.gradients[name]).abs())
        for p, value in zip(self._parameters.values(), before, strict=True):
            _write(p, value)
        return Ladder(steps, tolerance, SAFETY * largest, spread)

    def _gradients(self, loss: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss, list(self._parameters.values()), allow_unused=True)
        named = zip(self._parameters.items(), found, strict=True)
        return {name: torch.zeros_like(p) if g is None else g.detach() for (name, p), g in named}

    def _require_repeatable(self) -> None:
        if (again := float(self._evaluate().detach())) != self._base:
            raise InputError(
                f"the loss differs between two evaluations on the same batch ({self._base:.9g}, then {again:.9g}), although every "
                f"generator was seeded alike: there is no derivative to compare with. Make the model deterministic first"
            )

    def _evaluate(self) -> Tensor:
        random.seed(self._seed)
        np.random.seed(self._seed)
        torch.manual_seed(self._seed)
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        output = call(self._model, _clone(self._inputs))
        return scalar_loss(output, self._targets, self._loss_fn or _projection_of(output))


def double_twin(model: nn.Module) -> nn.Module:
    """Returns a copy in float64, on the same device if that has float64.

    Raises:
        InputError: if the model cannot be copied.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise InputError(
            f"the model cannot be copied ({type(error).__name__}: {error}); gradient_check works on a copy in float64"
        ) from error
    if any(p.device.type == "mps" for p in twin.parameters()):  # has no float64
        twin = twin.cpu()
    return twin.double()


@contextmanager
def default_float64() -> Iterator[None]:
    """Lets tensors that a forward pass creates be float64 like everything else."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _RoundingSeen(TorchFunctionMode):
    """Notes whether any operation rounded to fewer than 64 bits."""

    coarse: torch.dtype | None = None

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tensors_in(output):
            if tensor.is_floating_point() and tensor.dtype != torch.float64:
                self.coarse = tensor.dtype
        return output


def _write(parameter: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(value)


def _scale(value: Tensor) -> float:
    return max(1.0, float(value.square().mean().sqrt()))


def _projection_of(output: Any) -> Loss | None:
    """Returns a fixed random projection in float64, or None where the output brings its own loss."""
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, Tensor):
        return None

    def projection(output: Any, _targets: Any) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        parts = [(t * torch.randn(t.shape, generator=generator).to(t)).sum() for t in tensors_in(output) if t.requires_grad]
        return torch.stack(parts).sum() if parts else torch.zeros(())

    return projection


def _double(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, torch.float64 if value.is_floating_point() else value.dtype)
    if isinstance(value, Mapping):
        return {k: _double(v, device) for k, v in value.items()}
    return tuple(_double(v, device) for v in value) if isinstance(value, (tuple, list)) else value


def _clone(value: Any) -> Any:
    """Copies, so that a model that works in place meets the same inputs every time."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {k: _clone(v) for k, v in value.items()}
    return tuple(_clone(v) for v in value) if isinstance(value, (tuple, list)) else value
