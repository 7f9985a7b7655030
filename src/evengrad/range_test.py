"""An experiment, or a rig and a batch -> which learning rates it stands: a range test, and the limit that curvature sets."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.rig import Rig
from evengrad.trace.batch import Batch, call, scalar_loss
from evengrad.trace.isolation import untouched
from evengrad.trace.jacobian import _twice_differentiable
from evengrad.training import Experiment, train
from evengrad.types import Series

_WIDTH = 0.04  # of the test: standard deviation of the weights that smooth the losses
_BLOWN_UP = 4.0  # times what the loss was at first, from which there is nothing left to see
_LEAST_GAIN = 0.02  # of what the loss was at first
_NOISE = 4.0  # standard errors of a smoothed loss; less is noise


@dataclass(frozen=True, kw_only=True, eq=False)
class RateRange:
    """What a range test saw.

    Attributes:
        rates: float64 (N,), the first group's rate at each step, growing by a constant factor.
        losses: float64 (N,), the loss of each step before its update.
        smoothed: float64 (N,), their mean with weights that fall off over four hundredths of the test.
        lowest: The rate at which the smoothed loss is lowest.
        limit: The first rate beyond it at which the smoothed loss is higher than it was at first, beyond what batches differ; infinite
            if there is none up to the highest rate.
        suggested: The rate up to `lowest` at which the smoothed loss falls fastest with the logarithm of the rate; NaN if it never falls
            by a fiftieth and beyond what batches differ (more steps tell more).
    """

    rates: Series
    losses: Series
    smoothed: Series
    lowest: float
    limit: float
    suggested: float


def rate_range(experiment: Experiment, *, seed: int = 0, low: float = 1e-7, high: float = 10.0, steps: int = 100) -> RateRange:
    """Trains once while the rate grows from step to step, until the loss blows up, and suggests a rate.

    Too small a rate leaves the loss where it is, too large a one throws it off; what lies between shows in one short run. The experiment's
    schedule is put aside, groups keep the ratios of their rates, and the experiment itself is left as it was.

    The suggestion is the rate at which the smoothed loss falls fastest, which lies a factor of two to ten under the one at which it is
    lowest: a run of full length meets sharper places than a hundred steps do.

    Args:
        experiment: What to train.
        seed: Seed of the run.
        low: Rate of the first step, above 0.
        high: Rate of the last step, above `low`.
        steps: Number of steps, at least 10.

    Raises:
        InputError: if low, high or steps are out of range, or the optimizer has no learning rate.

    Example:
        >>> eg.rate_range(experiment).suggested

    Reference: Smith 2017, Cyclical learning rates for training neural networks, sec. 3.3, https://arxiv.org/abs/1506.01186.
    """
    if not 0 < low < high < math.inf or steps < 10:
        raise InputError(f"rate_range needs 0 < low < high and at least 10 steps; got low={low!r}, high={high!r}, steps={steps!r}")
    rise = _Rise(np.geomspace(low, high, steps))
    with suppress(_EndedError):
        train(replace(experiment, epochs=steps, scheduler=None), seed=seed, watcher=rise)
    losses = np.array(rise.losses)
    return _read(rise.rates[: len(losses)], losses, _WIDTH * steps)


def _read(rates: Series, losses: Series, width: float) -> RateRange:
    known = np.isfinite(losses)
    smoothed = np.where(known, _smoothed(np.where(known, losses, 0.0), known, width), math.inf)
    begin = slice(max(5, len(losses) // 5))  # rates that change nothing yet: batches differ, and nothing else does
    first, at = float(smoothed[begin].mean()), int(smoothed.argmin())
    noise = _NOISE * float(losses[begin].std()) / math.sqrt(2 * math.sqrt(math.pi) * width)
    over = np.flatnonzero((np.arange(len(losses)) > at) & (smoothed > first + noise))
    slope = np.gradient(smoothed[: at + 1], np.log(rates[: at + 1])) if at > 1 else np.zeros(1)
    gained = first - smoothed[at] > max(_LEAST_GAIN * abs(first), noise)
    return RateRange(
        rates=rates,
        losses=losses,
        smoothed=smoothed,
        lowest=float(rates[at]),
        limit=float(rates[over[0]]) if len(over) else math.inf,
        suggested=float(rates[slope.argmin()]) if gained else math.nan,
    )


def sharpness(rig: Rig, batch: Batch, *, steps: int = 30) -> float:
    """Returns the largest eigenvalue of the Hessian of the loss on one batch, in the parameters that the rig trains.

    Lanczos' iteration with full reorthogonalisation, by products of the Hessian with a vector: two passes backward a step, no matrix is
    formed. The model is left as it was, to the bit; its mode is the one it is in.

    Args:
        rig: Model and loss; with an optimizer, only its parameters count.
        batch: Where to look.
        steps: Lanczos steps at most; fewer where the parameters are fewer.

    Raises:
        InputError: if the loss has no second derivative, or its curvature is not finite.

    Reference: Pearlmutter 1994, Fast exact multiplication by the Hessian; Lanczos 1950.
    """
    wanted = None if rig.optimizer is None else {id(p) for group in rig.optimizer.param_groups for p in group["params"]}
    parameters = [p for p in rig.model.parameters() if p.requires_grad and (wanted is None or id(p) in wanted)]
    if not parameters:
        raise InputError(
            "the rig trains no parameter: there is no curvature to measure. Unfreeze a layer, or give the optimizer the model's"
        )
    with untouched(rig.model, seed=rig.seed), _twice_differentiable(rig.model):
        loss = scalar_loss(call(rig.model, batch.inputs), batch.targets, rig.loss_fn)
        slopes = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        used = [(p, g) for p, g in zip(parameters, slopes, strict=True) if g is not None and g.requires_grad]
        if not used:
            return 0.0  # a loss that is linear in every parameter
        return _largest(partial(_product, used), sum(p.numel() for p, _ in used), steps, np.random.default_rng(rig.seed))


def stability_limit(rig: Rig, batch: Batch, *, steps: int = 30) -> float:
    """Returns the largest rate at which gradient descent does not run away on one batch: 2 (1 + momentum) / sharpness.

    Above it, a step along the most curved direction lands farther from the minimum than it began. It holds for SGD with the momentum of
    the optimizer's first group (Nesterov's is taken for the plain one); optimizers that scale each parameter by itself have other limits.
    Infinite where the loss is nowhere curved upwards.

    Args:
        rig: Model, loss and optimizer.
        batch: Where to look.
        steps: Lanczos steps at most.

    Raises:
        InputError: as `sharpness`.

    Example:
        >>> rig = eg.build(experiment)
        >>> stability_limit(rig, next(rig.batches(0)))

    Reference: LeCun et al. 1998, Efficient BackProp, sec. 4.6; Cohen et al. 2021, Gradient descent on neural networks typically occurs
    at the edge of stability, https://arxiv.org/abs/2103.00065, eq. 1 and app. B.
    """
    momentum = 0.0 if rig.optimizer is None else float(rig.optimizer.param_groups[0].get("momentum") or 0.0)
    most = sharpness(rig, batch, steps=steps)
    return 2 * (1 + momentum) / most if most > 0 else math.inf


class _EndedError(Exception):
    """Ends a training from within a watcher."""


class _Rise:
    """A `Watcher` that sets the rate of each step and ends the training with the last one, or when the loss blows up."""

    def __init__(self, rates: Series) -> None:
        self.rates = rates
        self.losses: list[float] = []
        self._shares: list[float] = []

    def before(self, rig: Rig, batch: Batch) -> None:
        assert rig.optimizer is not None  # build gave one
        rig.scheduler = None  # a repair may have brought one
        rig.after_epoch.clear()
        if not self._shares:
            given = [float(g.get("lr") or 0.0) for g in rig.optimizer.param_groups]
            if "lr" not in rig.optimizer.param_groups[0]:
                raise InputError(f"{type(rig.optimizer).__name__} has no learning rate: there is no range to test")
            self._shares = [rate / given[0] if given[0] else 1.0 for rate in given]
        for group, share in zip(rig.optimizer.param_groups, self._shares, strict=True):
            group["lr"] = float(self.rates[rig.step]) * share

    def after(self, rig: Rig, batch: Batch, loss: Tensor) -> None:
        self.losses.append(float(loss))
        first, last = np.mean(self.losses[:10]), np.mean(self.losses[-5:])
        blown_up = not math.isfinite(self.losses[-1]) or last > first + (_BLOWN_UP - 1) * abs(first)
        if blown_up or len(self.losses) == len(self.rates):
            raise _EndedError


def _smoothed(losses: Series, known: npt.NDArray[np.bool_], width: float) -> Series:
    """Means of what is known with normal weights (the width is their standard deviation, in steps), centred, so that no dip is late."""
    at = np.arange(len(losses))
    weights = np.exp(-0.5 * np.square((at[:, None] - at) / width)) * known
    smoothed: Series = (weights @ losses) / weights.sum(1)
    return smoothed


def _product(used: list[tuple[nn.Parameter, Tensor]], vector: Series) -> Series:
    """The Hessian times a vector, float64 (n,), in the parameters whose gradients are given."""
    ends = np.cumsum([p.numel() for p, _ in used]).tolist()
    parts = [torch.from_numpy(vector[e - p.numel() : e]).to(g).view_as(g) for e, (p, g) in zip(ends, used, strict=True)]
    try:
        found = torch.autograd.grad([g for _, g in used], [p for p, _ in used], parts, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise InputError(f"an operation of the model or the loss has no second derivative, which curvature needs: {error}") from error
    flat = [(torch.zeros_like(p) if h is None else h).detach().double().cpu().reshape(-1) for h, (p, _) in zip(found, used, strict=True)]
    product: Series = torch.cat(flat).numpy()
    if not np.isfinite(product).all():
        raise InputError("the curvature of the loss is NaN or infinite here; check the inputs and the weights")
    return product


def _largest(product: Any, size: int, steps: int, random: np.random.Generator) -> float:
    """The largest eigenvalue of a symmetric matrix, from its products with vectors."""
    basis, images = np.zeros((size, min(steps, size))), np.zeros((size, min(steps, size)))
    following, largest = random.standard_normal(size), 0.0
    for j in range(basis.shape[1]):
        for _ in range(2):  # twice is enough (Giraud et al. 2005)
            following = following - basis[:, :j] @ (basis[:, :j].T @ following)
        norm = float(np.linalg.norm(following))
        if j and norm <= 1e-6 * largest:  # what is left is rounding: the space is exhausted
            basis, images = basis[:, :j], images[:, :j]
            break
        basis[:, j] = following / norm
        images[:, j] = following = product(basis[:, j])
        largest = max(largest, float(np.linalg.norm(following)))
    projected = basis.T @ images
    return float(np.linalg.eigvalsh((projected + projected.T) / 2)[-1])
