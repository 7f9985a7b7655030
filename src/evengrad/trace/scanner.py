"""a model, one batch -> the first operation, forward or backward, whose values were not finite though what went in was."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.trace.batch import Batch, Loss, scalar_loss
from evengrad.trace.capture import tensors_in
from evengrad.trace.gradient_scan import GradientScan
from evengrad.trace.isolation import untouched
from evengrad.trace.lineage import Lineage, Origin
from evengrad.trace.nonfinite import BadOperation, range_of
from evengrad.trace.recorder import _gradients_by_backward
from evengrad.trace.value_scan import ValueScan

__all__ = ["BadOperation", "first_bad_operation"]


def first_bad_operation(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    loss_fn: Loss | None = None,
    targets: Any = None,
    rng_state: Mapping[str, Tensor] | None = None,
    seed: int | None = None,
    samples: int | None = None,
) -> BadOperation | None:
    """Replays one call of a model, and its backward, and names the operation where values or gradients stop being finite.

    Only what reaches the outputs, the loss or a parameter's gradient counts: an infinity that a mask writes and softmax takes away is
    no fault, nor is a NaN that `where` leaves behind, unless its gradient comes back. Mode and autocast are those of the caller, and the
    model is left as it was, to the bit.

    Args:
        model: Any module; compiled parts run as plain Python.
        args: Positional arguments of the failing call; they are copied.
        kwargs: Its named arguments.
        loss_fn: `loss_fn(output, targets)`, used if there are targets; else the output's own loss, or a fixed random projection.
        targets: What the loss compares with.
        rng_state: State of the generators before the failing call by device ("cpu", "cuda:0"), so that dropout repeats.
        seed: Seed of the generators where no state is known.
        samples: Number of samples in the batch; None counts them.

    Raises:
        InputError: if the loss is no scalar or does not accept these outputs and targets.
    """
    with untouched(model, seed=seed), _generators(rng_state), torch.enable_grad():
        args, kwargs, targets = _own(tuple(args)), _own(dict(kwargs)), _own(targets)
        return _Replay(model, samples or _samples(args, kwargs, targets)).run(args, kwargs, targets, loss_fn)


class _Replay:
    """One pass of a model, looked at from the inputs to the gradients."""

    def __init__(self, model: nn.Module, samples: int | None) -> None:
        self.model = model
        self.parameters = dict(model.named_parameters())
        self.lineage = Lineage(samples)
        self.graph = GradientScan(model, self.lineage)
        self.scan = ValueScan(model, self.lineage, self.graph)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], targets: Any, loss_fn: Loss | None) -> BadOperation | None:
        broken = self._declare(args, kwargs, targets)
        try:
            with self.scan:
                output = self.model(*args, **kwargs)
            origin = self._after(output, targets, loss_fn if targets is not None else None)
        finally:
            self.graph.close()
        return origin.found if origin else broken

    def _declare(self, args: tuple[Any, ...], kwargs: dict[str, Any], targets: Any) -> BadOperation | None:
        """Looks at what there is before anything runs; returns the first parameter that is not finite."""
        for name, tensor in (*_named_inputs(self.model, args, kwargs), *_named("targets", targets)):
            self.lineage.declare(name, tensor, "inputs")
        broken = [self.lineage.declare(name, p, "parameters") for name, p in self.parameters.items()]
        for name, buffer in self.model.named_buffers():
            self.lineage.declare(name, buffer, "parameters", mask=True)
        return next((origin.found for origin in broken if origin), None)

    def _after(self, output: Any, targets: Any, loss_fn: Loss | None) -> Origin | None:
        """Looks at the outputs, then the loss, then the gradients."""
        bad_output = self.scan.guilty(output)
        learns = any(t.requires_grad for t in tensors_in(output))
        if not learns or (bad_output and loss_fn is None):
            return bad_output
        self.lineage.outputs = range_of(tensors_in(output))
        self.graph.stage = "loss"
        loss = self._loss(output, targets, loss_fn)
        bad_loss = self.scan.guilty(loss, deliberate=True)
        named = [(name, p) for name, p in self.parameters.items() if p.requires_grad]
        if bad_loss or bad_output or not named or not loss.requires_grad:
            return bad_loss or bad_output
        self.graph.stage = "backward"
        found = self._gradients(loss, [p for _, p in named])
        return self.graph.guilty((name, p, g) for (name, p), g in zip(named, found, strict=True))

    def _loss(self, output: Any, targets: Any, loss_fn: Loss | None) -> Tensor:
        if loss_fn is None and _own_loss(output) is None:  # a projection, which must not trip over what a mask wrote
            finite = [torch.where(t.isfinite(), t, 0) for t in tensors_in(output) if t.requires_grad]
            return scalar_loss(finite, None, None)
        with self.scan:
            return scalar_loss(output, targets, loss_fn)

    def _gradients(self, loss: Tensor, parameters: list[Tensor]) -> tuple[Tensor | None, ...]:
        if not self.graph.reentrant:
            return torch.autograd.grad(loss, parameters, allow_unused=True)
        with self.scan:  # blocks run again, and only now is there a graph of them
            return _gradients_by_backward(loss, parameters)


def _own_loss(output: Any) -> Tensor | None:
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return own if isinstance(own, Tensor) else None


@contextmanager
def _generators(state: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Sets generators to a state by device; restores them on exit."""
    devices = [torch.device(name) for name in state or ()]
    with torch.random.fork_rng(devices=[d.index or 0 for d in devices if d.type == "cuda"]):
        for device, value in zip(devices, (state or {}).values(), strict=True):
            if device.type == "cuda":
                torch.cuda.set_rng_state(value, device)
            else:
                torch.set_rng_state(value)
        yield


def _own(value: Any) -> Any:
    """Copies tensors in plain containers: a model can work in place on what it is given."""
    if isinstance(value, Tensor):
        copy = value.detach().clone().requires_grad_(value.requires_grad)
        return copy if value.is_leaf else copy.clone()
    if type(value) is dict:
        return {k: _own(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_own, value))
    return type(value)(map(_own, value)) if type(value) in (list, tuple) else value


def _samples(args: tuple[Any, ...], kwargs: dict[str, Any], targets: Any) -> int | None:
    try:
        return Batch((args, kwargs), targets).samples
    except InputError:  # no tensor with an axis went in
        return None


def _named_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    try:
        given: Mapping[str, Any] = inspect.signature(getattr(model, "_orig_mod", model).forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # a forward written in another language
        given = {"args": args, **kwargs}
    for name, value in given.items():
        yield from _named(name, value)


def _named(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors in a value by what one would write to reach them."""
    if isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from _named(f"{name}[{index}]", item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named(f"{name}[{key!r}]", item)
    else:
        for tensor in tensors_in(value):
            yield name, tensor
