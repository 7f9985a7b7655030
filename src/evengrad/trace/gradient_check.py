"""model, batch and loss -> back-propagation against finite differences, parameter by parameter."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.trace.batch import Loss
from evengrad.trace.isolation import untouched
from evengrad.trace.perturbed_loss import Difference, PerturbedLoss, default_float64, double_twin


@dataclass(frozen=True, kw_only=True)
class ParameterCheck:
    """One parameter: the entry, or the direction through all entries, that agrees least.

    Attributes:
        name: Name of the parameter.
        place: Index of that entry; None if it was the direction through all entries.
        analytic: Derivative by back-propagation.
        numeric: Derivative by central differences.
        relative_error: |analytic - numeric| over the larger of the two; 0 where nothing could be compared.
        ok: True if no place disagrees.
        compared: Number of entries compared, besides the direction.
        kinks: Places where the loss has a kink, so that it has no derivative to compare with (ReLU, max, |x|); not an error.
        unresolved: Places where the derivative is smaller than the rounding of the loss, so that differences cannot confirm it.
    """

    name: str
    place: tuple[int, ...] | None
    analytic: float
    numeric: float
    relative_error: float
    ok: bool
    compared: int
    kinks: int = 0
    unresolved: int = 0

    def __str__(self) -> str:
        place = " along a direction through all entries" if self.place is None else str(list(self.place)) if self.place else ""
        return (
            f"{self.name}{place}: back-propagation gives {self.analytic:.6g}, finite differences {self.numeric:.6g} "
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
        return max(self.parameters, key=lambda p: (not p.ok, p.compared > 0, p.relative_error))

    def __str__(self) -> str:
        wrong, compared = [p for p in self.parameters if not p.ok], sum(p.compared for p in self.parameters)
        if wrong:
            head = f"the gradient of {len(wrong)} of {len(self.parameters)} parameters is wrong, worst at {self.worst}"
        else:
            head = f"back-propagation agrees with finite differences at {compared} entries of {len(self.parameters)} parameters"
            head += f", worst at {self.worst}" * bool(compared)
        kinks, unresolved = sum(p.kinks for p in self.parameters), sum(p.unresolved for p in self.parameters)
        head += f"; not compared: {kinks} places at a kink of the loss" * bool(kinks)
        return head + f"; not compared: {unresolved} places where the gradient is below the rounding of the loss" * bool(unresolved)


def gradient_check(
    model: nn.Module, inputs: Any, targets: Any = None, loss_fn: Loss | None = None, *, entries: int = 50, seed: int = 0
) -> GradientCheck:
    """Compares the gradient of each parameter with central differences of the loss, in float64 on a copy of the model.

    Tells a wrong `backward`, a forgotten `.detach()` or an in-place mistake from a network that merely trains badly. Each parameter is
    moved along one random direction through all of its entries, which sees an error anywhere, and then entry by entry, which says where.
    A place that disagrees is tried again with shorter steps, so that ReLU's kinks raise no alarm. The copy keeps the model's mode; the
    model itself is not run. A gradient that is not the derivative by design is reported too: stop-gradient, straight-through, spectral
    norm in train mode.

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
    twin = double_twin(model)
    with untouched(twin, seed=seed), default_float64(), torch.enable_grad():
        loss = PerturbedLoss(twin, inputs, targets, loss_fn, seed=seed)
        generator = np.random.default_rng(seed)
        checks = [_check(name, loss, entries, generator) for name in loss.gradients]
    return GradientCheck(parameters=tuple(checks))


@dataclass(frozen=True)
class _Comparison:
    place: tuple[int, ...] | None
    analytic: float
    numeric: float
    error: float
    verdict: str  # agrees | kink | unresolved | wrong


def _check(name: str, loss: PerturbedLoss, entries: int, generator: np.random.Generator) -> ParameterCheck:
    gradient = loss.gradients[name]
    signs = torch.from_numpy(np.asarray(generator.choice([-1.0, 1.0], tuple(gradient.shape)))).to(gradient)
    found = [_compare(name, None, signs, loss)]
    for flat in np.sort(generator.permutation(gradient.numel())[:entries]):
        place = tuple(int(i) for i in np.unravel_index(flat, tuple(gradient.shape)))
        direction = torch.zeros_like(gradient)
        direction[place] = 1.0
        found.append(_compare(name, place, direction, loss))
    compared = [c for c in found if c.verdict in {"agrees", "wrong"}]
    worst = max(compared, key=lambda c: (c.verdict == "wrong", c.place is not None, c.error), default=found[0])
    return ParameterCheck(
        name=name,
        place=worst.place,
        analytic=worst.analytic,
        numeric=worst.numeric,
        relative_error=worst.error if compared else 0.0,
        ok=all(c.verdict != "wrong" for c in found),
        compared=sum(c.place is not None for c in compared),
        kinks=sum(c.verdict == "kink" for c in found),
        unresolved=sum(c.verdict == "unresolved" for c in found),
    )


def _compare(name: str, place: tuple[int, ...] | None, direction: Tensor, loss: PerturbedLoss) -> _Comparison:
    """Tries shorter and shorter steps until one agrees; what disagrees at all of them is judged by how it changes with the step."""
    analytic = float((loss.gradients[name] * direction).sum())
    for ladder in loss.ladders:
        tries: list[Difference] = []
        for step in ladder.steps:
            tries.append(loss.difference(name, direction, step, ladder.noise))
            if tries[-1].off(analytic) <= ladder.tolerance:
                return _Comparison(place, analytic, tries[-1].slope, tries[-1].off(analytic), "agrees")
            if abs(tries[0].slope - analytic) <= tries[0].noise:
                break  # shorter steps drown in rounding even more
        verdict = _verdict(tries, analytic, spread=float((ladder.spread[name] * direction.abs()).sum()))
    return _Comparison(place, analytic, tries[0].slope, tries[0].off(analytic), verdict)


def _verdict(tries: list[Difference], analytic: float, *, spread: float) -> str:
    """Judges differences of which none agrees with back-propagation, from the longest step to the shortest."""
    for longer, shorter in pairwise(tries):
        off = abs(longer.slope - analytic)
        if max(abs(longer.slope - shorter.slope), shorter.noise) < 0.1 * off:  # settled, elsewhere than back-propagation
            smooth = shorter.gap < max(0.5 * longer.gap, 0.1 * off)  # the gap between both sides shrinks with the step
            stable = spread < 0.1 * off  # or else rounding decides which side of a kink back-propagation takes
            return "wrong" if smooth and stable else "kink"
    return "unresolved"
