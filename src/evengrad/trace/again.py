"""a model and a batch, once more -> how much of its output is noise, and whether the loss falls where the gradient points."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from evengrad.errors import EvengradError
from evengrad.trace.batch import Batch, Loss, call, mapped, scalar_loss
from evengrad.trace.capture import tensors_in
from evengrad.trace.isolation import untouched
from evengrad.trace.structure import Structure

_STEP = 1e-3  # of a weight's norm
_NEARER, _ALIKE = 4.0, 2.0  # a second, smaller step; factor between what both tell
_SEEN = 1e-4  # of the loss: a smaller change is rounding


def noise_share(model: nn.Module, batch: Batch, *, seed: int) -> float | None:
    """Returns the share of the output's variance over samples that another draw of dropout and other noise changes, in [0, 1].

    None where it cannot be told: outputs that are not finite, equal for all samples, or no single tensor.
    """
    outputs = []
    try:
        with torch.no_grad():
            for k in range(2):
                with untouched(model, seed=seed + k):
                    model.train()
                    outputs.append(next(tensors_in(call(model, mapped(torch.clone, batch.inputs))), None))
    except (EvengradError, RuntimeError):
        return None
    first, second = outputs
    if first is None or second is None or first.shape != second.shape or first.dim() < 2 or not first.is_floating_point():
        return None
    apart = float((first - second).float().square().mean()) / 2
    spread = float(first.float().var(0, correction=0).mean())
    return None if not math.isfinite(apart) or not spread > 0 else min(1.0, apart / spread)


def unowned(model: nn.Module, batch: Batch, loss_fn: Loss | None, optimizer: torch.optim.Optimizer | None, *, seed: int) -> int:
    """Returns how many numbers the loss depends on that are parameters and yet neither the model's nor the optimizer's.

    Layers in a plain list are like that: they run, nobody moves them, and `state_dict` does not hold them.
    """
    known = {id(p) for p in model.parameters()}
    known |= set() if optimizer is None else {id(p) for group in optimizer.param_groups for p in group["params"]}
    try:
        with untouched(model, seed=seed), torch.enable_grad():
            model.train()
            loss = scalar_loss(call(model, mapped(torch.clone, batch.inputs)), batch.targets, loss_fn)
    except (EvengradError, RuntimeError):
        return 0
    stack, seen, leaves = [loss.grad_fn], set(), {}
    while stack:
        function = stack.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        leaf = getattr(function, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in known:
            leaves[id(leaf)] = leaf.numel()
        stack.extend(source for source, _ in function.next_functions)
    return sum(leaves.values())


def descent(
    model: nn.Module, batch: Batch, loss_fn: Loss | None, structure: Structure, gradients: Mapping[str, Tensor], *, seed: int
) -> float | None:
    """Returns by how much the loss falls along minus its gradient, as a share of what the gradient foretells: 1 is right, -1 is uphill.

    Asked of the first layer, behind everything that the gradient comes through. None where that gradient is too small to tell,
    or an uphill one is another at a smaller distance.
    """
    parameters = dict(model.named_parameters(remove_duplicate=True))
    first = next((layer.weight for layer in structure.layers if layer.depth is not None and layer.weight in gradients), None)
    weight, gradient = parameters.get(first or ""), gradients.get(first or "")
    if weight is None or gradient is None or gradient.is_sparse or len(structure.layers) < 2:
        return None
    size = float(gradient.norm())
    if not math.isfinite(size) or not size:
        return None
    step = _STEP * float(weight.detach().norm()) / size
    before = weight.detach().clone()

    def share(step: float) -> float | None:
        values = []
        for side in (-1.0, 1.0):
            with untouched(model, seed=seed), torch.enable_grad():
                model.train()
                with torch.no_grad():
                    weight.copy_(before + side * step * gradient)
                values.append(float(scalar_loss(call(model, mapped(torch.clone, batch.inputs)), batch.targets, loss_fn).detach()))
        foretold = 2 * step * size * size
        if not all(map(math.isfinite, values)) or foretold < _SEEN * max(map(abs, values)):
            return None
        return (values[1] - values[0]) / foretold

    try:
        found = share(step)
        if found is None or found > 0:
            return found
        nearer = share(step / _NEARER)  # a loss with jumps climbs one by chance; a gradient that is turned around is so at any distance
        return found if nearer is not None and nearer < 0 and _ALIKE * nearer < found < nearer / _ALIKE else None
    except (EvengradError, RuntimeError):
        return None
    finally:
        with torch.no_grad():
            weight.copy_(before)
