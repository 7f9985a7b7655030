"""model, batch and loss -> back-propagation against finite differences, parameter by parameter."""

from __future__ import annotations

import copy
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
from evengrad.trace.isolation import untouched

TOLERANCE = 1e-4  # a wrong formula is off by far more, float64 differences by far less
STEPS = (1e-5, 1e-6, 1e-7, 1e-8)  # of the parameter's RMS, or of 1 if that is larger; shorter ones step over fewer kinks
COARSE_STEPS = (1e-3, 1e-2)  # for models that round to 32 bits or fewer on their way
COARSE_TOLERANCE = 1e-2
ROUNDING = 20  # units in the last place of the loss that one evaluation may be off by


@dataclass(frozen=True, kw_only=True)
class ParameterCheck:
    """One parameter: the entry, or the direction through all entries, that agrees least.

    Attributes:
        name: Name of the parameter.
        place: Index of that entry; None if it was the direction through all entries.
        analytic: Derivative by back-propagation.
        numeric: Derivative by central differences.
        relative_error: |analytic - numeric| beyond rounding, over the larger of the two.
        ok: True if no place disagrees.
        checked: Number of entries tried, besides the direction.
        kinks: Places where the loss has a kink, so that it has no derivative to compare with (ReLU, max, |x|); not an error.
        unresolved: Places where the derivative is smaller than the rounding of the loss, so that differences cannot confirm it.
    """

    name: str
    place: tuple[int, ...] | None
    analytic: float
    numeric: float
    relative_error: float
    ok: bool
    checked: int
    kinks: int = 0
    unresolved: int = 0

    def __str__(self) -> str:
        where = f"{self.name}{list(self.place)}" if self.place else (self.name if self.place is None else f"{self.name}[]")
        along = " along a direction through all entries" if self.place is None else ""
        return (
            f"{where}{along}: back-propagation gives {self.analytic:.6g}, finite differences {self.numeric:.6g} "
            f"(relative error {self.relative_error:.1e})"
        )


@dataclass(frozen=True, kw_only=True)
class GradientCheck:
    """What every parameter's gradient was compared with.

    Attributes:
        parameters: One result for each trainable parameter, in the model's order.
    """

    parameters: tuple[ParameterCheck, ...]

    @property
    def ok(self) -> bool:
        """True if back-propagation agrees with finite differences everywhere it could be compared."""
        return all(p.ok for p in self.parameters)

    @property
    def worst(self) -> ParameterCheck:
        """The parameter whose gradient agrees least."""
        return max(self.parameters, key=lambda p: (not p.ok, p.relative_error))

    def __str__(self) -> str:
        entries = sum(p.checked for p in self.parameters)
        wrong = [p for p in self.parameters if not p.ok]
        if wrong:
            head = f"the gradient of {len(wrong)} of {len(self.parameters)} parameters is wrong, worst at {self.worst}"
        else:
            head = f"back-propagation agrees with finite differences at {entries} entries of {len(self.parameters)} parameters; worst at {self.worst}"
        kinks, unresolved = sum(p.kinks for p in self.parameters), sum(p.unresolved for p in self.parameters)
        tail = [f"{kinks} at a kink of the loss"] * bool(kinks) + [f"{unresolved} too small to confirm"] * bool(unresolved)
        return head + (f"; {', '.join(tail)}" if tail else "")


def gradient_check(
    model: nn.Module, inputs: Any, targets: Any = None, loss_fn: Loss | None = None, *, entries: int = 50, seed: int = 0
) -> GradientCheck:
    """Compares the gradient of each parameter with central differences of the loss, in float64 on a copy of the model.

    Tells a wrong `backward`, a forgotten `.detach()` or an in-place mistake from a network that merely trains badly. Each parameter is
    moved along one random direction through all of its entries, which sees an error anywhere, and then entry by entry, which says where.
    A place that disagrees is tried again with shorter steps, so that ReLU's kinks raise no alarm. The copy keeps the model's mode; the
    model itself is not run.

    Args:
        model: Any module; parameters without `requires_grad` are left out.
        inputs: What to call it with, as in `check`: a tensor, a tuple or a mapping.
        targets: What the loss compares with.
        loss_fn: `loss_fn(output, targets)`, a scalar; None uses the output's own `.loss`, or a fixed random projection.
        entries: Entries tried of each parameter; all, if it has fewer.
        seed: Seed of the choice, and of the generators (dropout) at each evaluation.

    Raises:
        InputError: if the loss is no scalar, has no gradient, is not finite or differs from one evaluation to the next, or if the model
            cannot be copied.
        ForwardError: if the model raises.

    Example:
        >>> gradient_check(nn.Linear(3, 2), torch.ones(4, 3), torch.zeros(4, 2), nn.functional.mse_loss).ok
        True
    """
    if entries < 0:
        raise InputError(f"entries must not be negative; got {entries}")
    twin = _double_twin(model)
    with untouched(twin, seed=seed), _default_float64(), torch.enable_grad():
        loss = _Loss(twin, inputs, targets, loss_fn, seed)
        gradients, base = loss.gradients()
        if loss() != base:
            raise InputError(
                f"the loss differs between two evaluations on the same batch ({base:.17g}, then {loss():.17g}), although every generator "
                f"was seeded alike: there is no derivative to compare with. Make the model deterministic first"
            )
        generator = np.random.default_rng(seed)
        with torch.no_grad():
            checks = [_check(name, p, gradients[name], loss, entries, generator) for name, p in loss.parameters.items()]
    return GradientCheck(parameters=tuple(checks))


def _double_twin(model: nn.Module) -> nn.Module:
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise InputError(f"the model cannot be copied ({type(error).__name__}: {error}); gradient_check works on a copy in float64") from error
    if any(p.device.type == "mps" for p in twin.parameters()):  # has no float64
        twin = twin.cpu()
    return twin.double()


@contextmanager
def _default_float64() -> Iterator[None]:
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


class _Loss:
    """The loss as a function of the parameters: the same generators and buffers at every evaluation."""

    def __init__(self, model: nn.Module, inputs: Any, targets: Any, loss_fn: Loss | None, seed: int) -> None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.eps = float(torch.finfo(torch.float64).eps)
        self.coarse_eps: float | None = None
        self._model, self._seed = model, seed
        self._inputs, self._targets = _double(inputs, device), _double(targets, device)
        self._loss_fn = loss_fn
        self._buffers = [(b, b.detach().clone()) for b in model.buffers()]

    def __call__(self) -> float:
        with torch.enable_grad():  # a model may differentiate inside its forward pass
            return float(self._evaluate().detach())

    def gradients(self) -> tuple[dict[str, Tensor], float]:
        """Returns what back-propagation says, zero where the loss does not depend on a parameter, and the loss."""
        with _RoundingSeen() as rounding:
            loss = self._evaluate()
        if not bool(loss.isfinite()):
            raise InputError(f"the loss is {float(loss.detach())}: a gradient can be checked only where the loss is finite")
        if rounding.coarse is not None:
            self.coarse_eps = float(torch.finfo(rounding.coarse).eps)
        found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        zipped = zip(self.parameters.items(), found, strict=True)
        return {name: torch.zeros_like(p) if g is None else g.detach() for (name, p), g in zipped}, float(loss.detach())

    def _evaluate(self) -> Tensor:
        random.seed(self._seed)
        np.random.seed(self._seed)
        torch.manual_seed(self._seed)
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        output = call(self._model, _clone(self._inputs))
        return scalar_loss(output, self._targets, self._loss_fn or _projection_of(output))


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


@dataclass(frozen=True)
class _Comparison:
    numeric: float
    error: float
    verdict: str  # agrees | kink | unresolved | wrong


def _check(name: str, parameter: Tensor, gradient: Tensor, loss: _Loss, entries: int, generator: np.random.Generator) -> ParameterCheck:
    signs = torch.from_numpy(generator.choice([-1.0, 1.0], tuple(parameter.shape))).to(parameter)
    found: list[tuple[tuple[int, ...] | None, float, _Comparison]] = []
    analytic = float((gradient * signs).sum())
    found.append((None, analytic, _compare(parameter, signs, analytic, loss)))
    chosen = np.sort(generator.permutation(parameter.numel())[:entries])
    for flat in chosen:
        place = tuple(int(i) for i in np.unravel_index(flat, tuple(parameter.shape)))
        direction = torch.zeros_like(parameter)
        direction[place] = 1.0
        analytic = float(gradient[place])
        found.append((place, analytic, _compare(parameter, direction, analytic, loss)))
    verdicts = [comparison.verdict for _, _, comparison in found]
    compared = [f for f in found if f[2].verdict in {"agrees", "wrong"}] or found
    place_, analytic, comparison = max(compared, key=lambda f: (f[2].verdict == "wrong", f[0] is not None, f[2].error))
    return ParameterCheck(
        name=name,
        place=place_,
        analytic=analytic,
        numeric=comparison.numeric,
        relative_error=comparison.error,
        ok="wrong" not in verdicts,
        checked=len(chosen),
        kinks=verdicts.count("kink"),
        unresolved=verdicts.count("unresolved"),
    )


def _compare(parameter: Tensor, direction: Tensor, analytic: float, loss: _Loss) -> _Comparison:
    """Compares at shorter and shorter steps; the first that agrees, or that shows why it cannot, decides."""
    scale = max(1.0, float(parameter.square().mean().sqrt()))
    tries = [_differences(parameter, direction, step * scale, loss, loss.eps) for step in STEPS]
    ...
    raise NotImplementedError
