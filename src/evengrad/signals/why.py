"""Trace -> the cause of a bad course, where steps, curves and facts alone tell it; what only an experiment can tell stays open."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection

import numpy as np

from evengrad.signals.curves import loss_factor, progress
from evengrad.signals.steps import TINY_RATE, rose_by, step_ratio, stopped_at
from evengrad.signals.updates import update_ratio
from evengrad.types import Trace

_LOW_RATES = {"SGD": 1e-3, "Adagrad": 5e-4, "Adadelta": 0.05, "ASGD": 1e-3, "Rprop": 5e-4}  # a twentieth of the usual rates
_LOW_RATE = 5e-5  # of Adam and its kin, whose usual rate is 1e-3 (Kingma & Ba 2015)
_LARGE_EPSILON = 1e-2  # beside the root of mean squared gradients: 1e-8 is usual (Kingma & Ba 2015)
STILL = 3e-4  # update ratio under which weights hardly move; 1e-3 is usual (Karpathy 2022)
_TRAINABLE = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "tanh", "softplus", "hardswish"),
    *("none", "softsign"),
}
VIOLENT = 0.3  # update ratio over which a step makes other weights of them


def cause_of(trace: Trace, among: Collection[str], at: int | None = None) -> str | None:
    """Returns the first cause of `among` that direct evidence shows, or None.

    Evidence that leaves no doubt is asked first (a loss that pulls away from the targets, gradients that pile up), the rate last: a rate
    that is too high or too low only names itself where nothing else explains why steps are as they are.

    Args:
        trace: What was seen.
        among: Causes that the finding can have.
        at: Step at which it began; None is the whole run.
    """
    for cause, shown in _EVIDENCE.items():
        if cause in among and shown(trace, at):
            return cause
    return None


def rate_too_high(trace: Trace, at: int | None = None) -> bool:
    """True if steps replaced the weights (`VIOLENT`) by the time it began, though the first pass was healthy and nothing else is odd.

    Weights that a penalty has shrunk, or that began at zero, make any step look large: they do not count.
    """
    if not _first_pass_is_healthy(trace) or _scaled_oddly(trace):
        return False
    ratio, weights = update_ratio(trace), trace.column("weight_norm").astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ratio = np.where((weights >= 0.5 * weights[:1]) & (weights[:1] > 0), ratio, np.nan)
        typical = np.nanmedian(ratio, 1) if ratio.size else np.zeros(0)
    before = typical[trace.steps <= (trace.steps[-1] if at is None else max(at, 20))]
    return bool((before > VIOLENT).any())


def rate_too_low(trace: Trace, at: int | None = None) -> bool:
    """True if the rate is far below the usual for its optimizer and no layer moves (`STILL`) at any step.

    A gradient that is damped, or divided by an epsilon that is larger than itself, has a rate as low.
    """
    facts = trace.facts.optimizer or {}
    rate, ratio = facts.get("lr"), update_ratio(trace)
    rarely = (trace.facts.loop or {}).get("optimizer_steps", 1.0) < 0.6  # steps that gather gradients stand still in between
    if rate is None or not np.isfinite(ratio).any() or rarely or _scaled_oddly(trace):
        return False
    kept = 1.0 - min(1.0, float(facts.get("dampening") or 0.0))  # of a gradient's first step
    divided = kept < 0.1 or float(facts.get("eps") or 0.0) >= _LARGE_EPSILON
    low = divided or rate <= _LOW_RATES.get(str(facts.get("name")), _LOW_RATE)
    return bool(low and np.nanquantile(ratio, 0.5 if divided else 0.9) < STILL)


def is_possible(cause: str, trace: Trace) -> bool:
    """Returns False for a cause of which the facts show that it is not there: a change that helps all the same hides another.

    Inputs that are near enough to mean 0 and deviation 1 are no cause, though standardising them calms whatever shakes.
    """
    if cause == "missing_zero_grad":  # what steps used beyond their own gradient was looked at, and is not the last one again
        return float((trace.facts.loop or {}).get("accumulated", 1.0)) > 0.5
    facts = trace.facts.inputs
    if cause != "input_not_normalized" or not facts:
        return True
    std, high = (float(facts.get(name, 1.0)) for name in ("std", "feature_std_max"))
    mean, offset = abs(float(facts.get("mean", 0.0))), float(facts.get("feature_mean_abs_max", 0.0))
    near = 0.1 <= std <= 4 and mean <= 2 * std and offset <= 4 * max(1.0, std) and high <= 5
    return not near


def odd_activations(trace: Trace) -> bool:
    """True if most hidden layers end in an activation that is not one of those that deep networks are trained with."""
    hidden = [layer for layer in trace.layers[:-1] if layer.depth is not None]
    odd = [layer for layer in hidden if layer.activation not in _TRAINABLE]
    return len(hidden) > 1 and len(odd) > 0.5 * len(hidden)


def _first_pass_is_healthy(trace: Trace) -> bool:
    """True if the loss begins near that of a constant answer: neither the initialiser nor the scale of the data is odd."""
    value, found = (trace.facts.loss or {}).get("value"), progress(trace)
    return found is not None and (value is None or not math.isfinite(value) or value <= 3.0 * abs(found.reference))


def _scaled_oddly(trace: Trace) -> bool:
    inputs, loss = trace.facts.inputs or {}, trace.facts.loss or {}
    mean, std = abs(inputs.get("mean", 0.0)), inputs.get("std", 1.0)
    odd = not (0.05 < std < 10 and mean < 5 * max(std, 1.0)) or _targets_odd(trace, None)
    return odd or (loss.get("batch_growth") or 1.0) > 1.5


def _uphill(trace: Trace, at: int | None) -> bool:
    facts = trace.facts.loss or {}
    return facts.get("toward_targets", 1.0) < -0.5 or _median(trace, "update_agreement") < -0.1 or _median(trace, "grad_agreement") < -0.5


def _piles_up(trace: Trace, at: int | None) -> bool:
    penalty = _median(trace, "extra_shrink", empty=0.0) > 0.9  # what comes on top points to zero weights, and is alike from step to step
    return ((trace.facts.loop or {}).get("accumulated") or 0.0) > 0.5 and not penalty


def _stopped(trace: Trace, at: int | None) -> bool:
    """True if a schedule keeps the rate at zero, stopped it in two thirds of the run, or raised it fivefold before the loss rose."""
    rate = trace.curves.get("lr")
    if rate is not None and len(rate.values) and (trace.facts.loop or {}).get("scheduler"):
        top, meant = float(rate.values.max()), (trace.facts.optimizer or {}).get("initial_lr") or 0.0
        if top == 0 or top < TINY_RATE * 20 * meant:  # a fiftieth of what it is to start from
            return True
    stop, last = stopped_at(trace), int(trace.curves["loss"].steps[-1]) if "loss" in trace.curves else 0
    planned = (trace.facts.loop or {}).get("steps") or last
    return (stop is not None and stop < 0.67 * max(planned, last)) or (at is not None and rose_by(trace, at) > 5.0)


def _rounded_away(trace: Trace, at: int | None) -> bool:
    dtypes = (trace.facts.modules or {}).get("dtypes") or ()
    return any(x in {"float16", "bfloat16"} for x in dtypes) and _median(trace, "unchanged_fraction", empty=0.0) > 0.5


def _clipped_away(trace: Trace, at: int | None) -> bool:
    with np.errstate(all="ignore"):
        kept = trace.column("grad_norm") / trace.column("grad_raw_norm")
    along = _median(trace, "grad_agreement") > 0.9  # a clip keeps the direction; the gradient of another batch has its own
    return bool(along and np.isfinite(kept).any() and np.nanmedian(kept) < 0.02)


def _shrunk(trace: Trace, at: int | None) -> bool:
    """True if a penalty has taken nine tenths of the weights, or dropout nine tenths of the units."""
    facts, weights = trace.facts.optimizer or {}, trace.column("weight_norm").astype(np.float64)
    if any((d.get("p") or 0.0) > 0.75 for d in (trace.facts.modules or {}).get("dropouts", ())):
        return True
    if not facts.get("weight_decay") or len(weights) < 2:
        return False
    with np.errstate(all="ignore"):
        left = weights[-1] / weights[0]
    return bool(np.isfinite(left).any() and np.nanmedian(left) < 0.1)


def _softmax_twice(trace: Trace, at: int | None) -> bool:
    head, loss = trace.facts.head or {}, trace.facts.loss or {}
    total = head.get("row_sum")
    return loss.get("op") == "cross_entropy" and head.get("min", -1.0) >= 0 and total is not None and abs(total - 1.0) < 1e-3


def _targets_odd(trace: Trace, at: int | None) -> bool:
    facts, op = trace.facts.targets or {}, (trace.facts.loss or {}).get("op")
    return op in {"mse", "l1", "smooth_l1"} and math.hypot(facts.get("mean", 0.0), facts.get("std", 0.0)) > 30


def _inputs_odd(trace: Trace, at: int | None) -> bool:
    """True beyond the thresholds of DAT001."""
    facts = trace.facts.inputs or {}
    mean, std = abs(facts.get("mean", 0.0)), facts.get("std", 1.0)
    return bool(facts.get("feature_std_max", 1.0) > 30 or mean > 30 or (std > 0 and mean > 3 * std))


def _frozen(trace: Trace, at: int | None) -> bool:
    """True if no layer has moved at any step though gradients came, or the optimizer holds another model's parameters."""
    moved, grads = trace.column("update_norm"), trace.column("grad_norm")
    still = np.isfinite(moved).any() and not np.nanmax(moved) > 0 and np.isfinite(grads).any() and np.nanmax(grads) > 0
    rate = (trace.facts.optimizer or {}).get("lr")
    return bool(((trace.facts.optimizer or {}).get("foreign") or 0) > 0 or (still and rate != 0))


def _few_to_normalise(trace: Trace, at: int | None) -> bool:
    """True if batch norms take their statistics over one or two samples."""
    norms = (trace.facts.modules or {}).get("norms", ())
    samples = min(trace.run.samples, (trace.facts.loop or {}).get("piece") or trace.run.samples)
    return samples <= 2 and any("BatchNorm" in str(norm.get("kind")) for norm in norms)


def _summed(trace: Trace, at: int | None) -> bool:
    growth, factor = (trace.facts.loss or {}).get("batch_growth") or 1.0, loss_factor(trace) or 1.0
    return not 0.67 < growth < 1.5 or not 0.1 < factor < 10


def _unrelated(trace: Trace, at: int | None) -> bool:
    """True if near inputs have no more like targets than chance gives, though the network takes healthy steps.

    Sequences are left out: what tells them apart is seldom their distance.
    """
    facts, shape = trace.facts.targets or {}, (trace.facts.inputs or {}).get("shape", ())
    agreement, chance = facts.get("neighbour_agreement"), facts.get("neighbour_chance")
    if agreement is None or chance is None or len(shape) == 3:
        return False
    _, ratio = step_ratio(trace)
    seen = ratio[np.isfinite(ratio)]
    moves = not len(seen) or STILL < float(np.median(seen)) < VIOLENT
    return bool(moves and agreement - chance < 2.5 * facts.get("neighbour_error", 0.03))


def _median(trace: Trace, name: str, empty: float = 1.0) -> float:
    column = trace.column(name)
    return float(np.nanmedian(column)) if np.isfinite(column).any() else empty


_EVIDENCE: dict[str, Callable[[Trace, int | None], bool]] = {
    "sign_error": _uphill,
    "frozen_params": _frozen,
    "missing_zero_grad": _piles_up,
    "scheduler_bug": _stopped,
    "low_precision": _rounded_away,
    "over_clipped": _clipped_away,
    "over_regularized": _shrunk,
    "redundant_output_activation": _softmax_twice,
    "target_not_scaled": _targets_odd,
    "input_not_normalized": _inputs_odd,
    "loss_reduction": _summed,
    "batch_too_small": _few_to_normalise,
    "lr_too_low": rate_too_low,
    "lr_too_high": rate_too_high,
    "labels_corrupt": _unrelated,
}
