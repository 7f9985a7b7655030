"""a step of the user's own and a batch -> what it gives the loss, and what its gradients and the optimizer's state are made of.

Two steps run on a copy, with the loss and the model looked at from outside: nothing is asked of how the step is written.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.trace.batch import Batch, Loss, mapped
from evengrad.trace.capture import tensors_in
from evengrad.trace.isolation import untouched

TrainStep = Callable[..., Any]
_HALF_BITS = 0x1FFF  # of float32 that float16 has no room for, whatever power of two it is scaled by
_MANY = 64  # numbers that say of what grid they are
_SURE = 0.7  # a sample is told by the nearest of the batch where that is nearer than the second by so much
_DECIDED = 0.8  # share of the samples that have to be


def step_facts(
    train_step: TrainStep | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    loss_fn: Loss | None,
    batch: Batch,
    *,
    seed: int,
) -> dict[str, float]:
    """Describes two steps of the user's own.

    Args:
        train_step: `train_step(model, batch, loss_fn, optimizer) -> loss`, or None for the standard one.
        model: As it was before the first step; it is copied, and so are optimizer and loss.
        optimizer: The model's.
        loss_fn: What the step calls.
        batch: The batch that the steps take.
        seed: Of the generators during the steps.

    Returns:
        `asked`: share of the batch's samples that the loss is asked about; `mismatched`: least share of them, over its calls, that get
        the target of another sample; `rounded_state` and `rounded_gradients`: share of the optimizer's numbers, and of the gradients,
        that need no more bits than float16 has; `overflown`: 1 where gradients are not finite though the loss is; `set_back`: 1 where the
        second step begins with the weights that the first began with. Each where it can be told; empty for a standard step.
    """
    if train_step is None or optimizer is None or loss_fn is None:
        return {}
    try:
        model, optimizer, loss_fn = copy.deepcopy((model, optimizer, loss_fn))
        with warnings.catch_warnings(), untouched(model, seed=seed), torch.enable_grad():
            warnings.simplefilter("ignore")
            return _looked(train_step, model, optimizer, loss_fn, batch)
    except Exception:  # the user's code can raise anything on a copy; nothing is known then
        return {}


def _looked(train_step: Any, model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Any, batch: Batch) -> dict[str, float]:
    inputs: list[Tensor] = []
    asked: list[tuple[Tensor | None, Tensor]] = []  # what the model was given last, and the targets of a call of the loss
    starts: list[list[Tensor]] = []

    def entered(module: nn.Module, args: Any, kwargs: Any) -> None:
        given = next(tensors_in((args, kwargs)), None)
        inputs[:] = [] if given is None else [given.detach()]
        starts.append([p.detach().clone() for p in model.parameters()] if not starts or len(starts) == first_calls else [])

    def compared(*args: Any, **kwargs: Any) -> Any:
        given = list(tensors_in((args, kwargs)))
        if len(given) > 1:
            asked.append((inputs[0] if inputs else None, given[1].detach()))
        return loss_fn(*args, **kwargs)

    first_calls = -1
    told = functools.wraps(loss_fn)(compared) if not isinstance(loss_fn, nn.Module) else _Asked(loss_fn, compared)
    handle = model.register_forward_pre_hook(entered, with_kwargs=True)
    model.train()
    try:
        value = train_step(model, _copied(batch), told, optimizer)
        first_calls, calls = len(starts), list(asked)
        facts = _grids(model, optimizer, bool(torch.as_tensor(value).isfinite().all()))
        after = [p.detach().clone() for p in model.parameters()]
        if not facts.get("overflown"):
            train_step(model, _copied(batch), told, optimizer)
            facts |= _set_back(starts[0], after, starts[first_calls]) if 0 < first_calls < len(starts) else {}
    finally:
        handle.remove()
    return facts | _compared(calls, batch)


class _Asked(nn.Module):
    """A loss that is a module, looked at: whatever else it is asked for, it has."""

    def __init__(self, loss_fn: nn.Module, compared: Any) -> None:
        super().__init__()
        self.loss_fn, self._compared = loss_fn, compared

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compared(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("loss_fn"), name)


def _copied(batch: Batch) -> tuple[Any, Any]:
    return mapped(torch.clone, batch.inputs), mapped(torch.clone, batch.targets)


def _grids(model: nn.Module, optimizer: torch.optim.Optimizer, finite_loss: bool) -> dict[str, float]:
    """What gradients and state are made of behind a step."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None and p.dtype == torch.float32 and not p.grad.is_sparse]
    state = [v for held in optimizer.state.values() for v in held.values() if isinstance(v, Tensor) and v.dim()]
    facts: dict[str, float] = {}
    for name, values in (("rounded_gradients", gradients), ("rounded_state", state)):
        share = _rounded(values)
        if share is not None:
            facts[name] = share
    if finite_loss and any(not bool(g.isfinite().all()) for g in gradients):
        facts["overflown"] = 1.0
    return facts


def _rounded(values: list[Tensor]) -> float | None:
    """The share of finite numbers other than zero that need no more than eleven bits."""
    flat = [v.detach().reshape(-1) for v in values if v.dtype == torch.float32]
    if not flat:
        return None
    every = torch.cat(flat)
    every = every[every.isfinite() & (every != 0)]
    return float((every.view(torch.int32) & _HALF_BITS == 0).float().mean()) if every.numel() >= _MANY else None


def _set_back(began: list[Tensor], after: list[Tensor], again: list[Tensor]) -> dict[str, float]:
    moved = [i for i, (a, b) in enumerate(zip(began, after, strict=True)) if not torch.equal(a, b)]
    return {"set_back": float(all(torch.equal(began[i], again[i]) for i in moved))} if moved and len(again) == len(began) else {}


def _compared(calls: list[tuple[Tensor | None, Tensor]], batch: Batch) -> dict[str, float]:
    wanted, given = next(tensors_in(batch.targets), None), next(tensors_in(batch.inputs), None)
    counts = [len(targets) for _, targets in calls if targets.dim()]
    if wanted is None or not wanted.dim() or not counts or len(wanted) < 2:
        return {}
    facts = {"asked": sum(counts) / len(wanted)}
    if given is not None and len(given) == len(wanted):
        shares = list(_mismatches(calls, given, wanted))
        facts |= {"mismatched": min(shares)} if shares else {}
    return facts


def _mismatches(calls: list[tuple[Tensor | None, Tensor]], given: Tensor, wanted: Tensor) -> Iterator[float]:
    """For each call of the loss, the share of samples that it gets another one's target for; 0 where that cannot be told."""
    rows = given.detach().reshape(len(given), -1)
    right = wanted.detach().reshape(len(wanted), -1).double()
    for inputs, targets in calls:
        found = targets.reshape(len(targets), -1).double() if targets.dim() else targets
        if inputs is None or found.shape != right.shape or inputs.numel() != given.numel():
            yield 0.0
            continue
        if not torch.equal(found.sort(0).values, right.sort(0).values):  # made of them, and not the same in another order
            yield 0.0
            continue
        whose, sure = _nearest(inputs.detach().reshape(len(rows), -1).double(), rows.double())
        wrong = (found != right[whose]).any(1)[sure]
        yield float(wrong.double().mean()) if len(wrong) >= _DECIDED * len(rows) else 0.0


def _nearest(inputs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """For each input the number of the sample of the batch that it is most like, and whether it is far more like it than any other."""
    near = torch.cdist(inputs, rows).topk(2, dim=1, largest=False)
    return near.indices[:, 0], near.values[:, 0] < _SURE * near.values[:, 1]
