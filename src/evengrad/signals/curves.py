"""Curves -> how training went: the way that the loss made, and whether it still makes any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evengrad.types import Series, Trace

MIN_STEPS = 10  # fewer losses are no curve
_PARTS = 20
_FEW = 16  # targets whose spread says little of all of them
_NOT_NEGATIVE = {"cross_entropy", "nll", "bce", "bce_with_logits", "mse", "l1", "smooth_l1"}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a loss came, each number a mean over a twentieth of the run.

    Attributes:
        start: At the beginning: the mean of the first hundredth.
        best: The lowest.
        end: At the end; infinite if the last losses are not finite.
        reference: What to beat: the loss of the best constant answer where it is known, the start otherwise.
        learnt: Share of the reference that is gone at the end: 0 has learnt nothing, 1 everything; negative is worse than at first.
        regained: Share of the way from the reference down to the best that the loss has come back by the end.
        learnable: Share of the reference that near inputs with like targets explain, 1 where that is not known: noise cannot be learnt.
        sound: False if less loss is no better answer: it pulls away from the targets, falls without end for answers that are free to move,
            or is below zero where its kind cannot be.
    """

    start: float
    best: float
    end: float
    reference: float
    learnt: float
    regained: float = 0.0
    learnable: float = 1.0
    sound: bool = True

    @property
    def thrives(self) -> bool:
        """True if half of what can be learnt is, and it has not come back: what is odd about the network does it no harm."""
        return bool(self.sound and self.learnt >= 0.5 * max(self.learnable, 0.4) and self.regained <= 0.25)


def progress(trace: Trace) -> Progress | None:
    """Returns how far the loss came, or None where it was not seen for long enough.

    A loss that begins below the constant answer (a network trained before, a head that knows the targets' mean) is measured from the
    constant answer: what it has learnt, it has. A loss that falls below zero (a negative log-likelihood) is measured in units of where it
    began.
    """
    return trace.once("progress", lambda: _progress(trace))


def _progress(trace: Trace) -> Progress | None:
    loss = trace.curves.get("loss")
    if loss is None or len(loss.values) < MIN_STEPS:
        return None
    means = smoothed(loss.values)
    finite = means[np.isfinite(means)]
    start = _start(loss.values)
    if not len(finite) or not math.isfinite(start):
        return None
    best, end = float(finite.min()), float(means[-1])
    end = end if np.isfinite(end) else np.inf
    constant = baseline(trace)
    reference = start if constant is None else constant
    learnt = (reference - end) / abs(reference) if reference else float(np.sign(start - end))
    regained = (end - best) / (reference - best) if reference > best else 0.0 if end <= best else np.inf
    return Progress(
        start=start,
        best=best,
        end=end,
        reference=reference,
        learnt=learnt,
        regained=regained,
        learnable=learnable(trace),
        sound=_sound(trace, best, abs(reference)),
    )


def thrives(trace: Trace) -> bool:
    """True if the loss was seen and training went well."""
    found = progress(trace)
    return found is not None and found.thrives


def unharmed(trace: Trace) -> bool:
    """True if training went about as well as the data allow: a fault that is there for certain does it no harm.

    Half of what can be learnt, which `thrives` asks for, is enough to doubt a sign of a fault, not to forgive one: seven tenths of the loss
    have to be gone, or 85% of what can be learnt where that is known.
    """
    found = progress(trace)
    return found is not None and found.thrives and found.learnt >= (0.85 * found.learnable if found.learnable < 1 else 0.7)


def mastered(trace: Trace) -> float:
    """Returns how many validation samples are answered right, of what near inputs with like labels let expect: 0 is chance, 1 is all.

    Answers are given in evaluation mode, so that dropout, which keeps the training loss up, takes nothing from them. NaN where unknown.
    """
    seen, facts = trace.curves.get("val_accuracy"), trace.facts.targets or {}
    agreement, chance = facts.get("neighbour_agreement"), facts.get("neighbour_chance")
    if seen is None or not len(seen.values) or not facts.get("labels") or agreement is None or chance is None or agreement <= chance:
        return math.nan
    return float((seen.values[-1] - chance) / (agreement - chance))


def baseline(trace: Trace) -> float | None:
    """Returns the loss of the best constant answer, or None where it is not known or not positive.

    The facts have it from the first batch. Where plain targets of more samples were counted, those say it better: the variance of 32
    numbers is off by a quarter, and two labels say nothing.
    """
    facts, targets = trace.facts.loss or {}, trace.facts.targets or {}
    found, shape = float(facts.get("baseline") or 0.0), targets.get("shape") or (0, 0)
    known = math.isfinite(found) and found > 0
    op, counted = facts.get("op"), 0.0
    classes = op == "cross_entropy" or (op in {"bce", "bce_with_logits"} and set(targets.get("labels") or ()) == {"0", "1"})
    if classes and len(shape) == 1 and targets.get("labels"):
        counted = entropy(list(targets["labels"].values()))
    elif op == "mse" and math.prod(shape[1:]) == 1:
        counted = float(targets.get("std", 0.0)) ** 2
    is_mean = abs((facts.get("batch_growth") or 1.0) - 1.0) < 0.05
    if counted > 0 and is_mean and (not known or shape[0] < _FEW or 0.5 < counted / found < 2):
        return counted
    return found if known else None


def loss_factor(trace: Trace) -> float | None:
    """Returns how many times the usual loss of its kind this one is, told by what the best constant answer gets; None where unknown.

    The mean cross-entropy of the best constant answer is the entropy of the labels, its mean squared error the variance of the targets.
    """
    facts, targets = trace.facts.loss or {}, trace.facts.targets or {}
    found, counts = float(facts.get("baseline") or 0.0), (targets.get("labels") or {}).values()
    if facts.get("op") in {"cross_entropy", "nll"} and len(targets.get("shape") or ()) == 1 and counts:
        usual = entropy(list(counts))
    else:
        usual = float(targets.get("std") or 0.0) ** 2 if facts.get("op") == "mse" else 0.0
    return found / usual if found > 0 and usual > 0 and math.isfinite(found) else None


def entropy(counts: Sequence[float]) -> float:
    """Returns the entropy of shares in nats: the cross-entropy of the best constant answer."""
    shares = np.array([count for count in counts if count > 0], np.float64)
    shares /= shares.sum()
    return float(-(shares * np.log(shares)).sum())


def learnable(trace: Trace) -> float:
    """Returns the share of the constant answer's loss that can be learnt as far as nearest neighbours tell, in [0, 1]; 1 if they do not.

    For classes, the least error that the neighbours' disagreement allows bounds the loss from below (Cover & Hart 1967, theorem 1; the
    entropy of an error spread over the other classes). For numbers, it is the correlation of neighbours. Nor can more be learnt than
    the loss leaves of right answers: smoothed labels have a floor.
    """
    return min(_by_neighbours(trace), 1.0 - _smoothed_floor(trace))


def _smoothed_floor(trace: Trace) -> float:
    """The least loss of right answers as a share of the constant's, where it lies at answers of some size and surer ones lose more.

    A loss that falls on to an end of its own (`free_floor`), or outputs that end somewhere, are a fault and no floor of the data.
    """
    facts, head = trace.facts.loss or {}, trace.facts.head or {}
    open_ended = "reach" in head and all(end is None for end in head["reach"] or (0.0,))
    return float(np.clip(facts.get("floor", 0.0), 0.0, 0.75)) if open_ended and "free_floor" not in facts and "arrives" in facts else 0.0


def _by_neighbours(trace: Trace) -> float:
    facts, op = trace.facts.targets or {}, (trace.facts.loss or {}).get("op")
    agreement, chance, error = (facts.get(f"neighbour_{x}") for x in ("agreement", "chance", "error"))
    if agreement is None or chance is None or agreement - chance < 4 * (error or 0.0):
        return 1.0
    if op in {"mse", "l1", "smooth_l1"}:
        return float(np.clip(agreement, 0.0, 1.0))
    counts = list((facts.get("labels") or {}).values())
    classes, constant = len(counts), entropy(counts) if counts else 0.0
    if op not in {"cross_entropy", "nll"} or classes < 2 or constant <= 0:
        return 1.0
    most = (classes - 1) / classes
    wrong = most * (1.0 - math.sqrt(max(0.0, 1.0 - (1.0 - agreement) / most)))
    floor = sum(-p * math.log(p) for p in (wrong, 1.0 - wrong) if p > 0) + wrong * math.log(classes - 1)
    return float(np.clip(1.0 - floor / constant, 0.0, 1.0))


def _sound(trace: Trace, best: float, scale: float) -> bool:
    facts = trace.facts.loss or {}
    impossible = facts.get("op") in _NOT_NEGATIVE and best < -1e-3 * scale
    return not impossible and not facts.get("endless") and facts.get("toward_targets", 1.0) >= -0.5


def mode_gap(trace: Trace, late: int = 3) -> float:
    """Returns how much more the same batch and weights lose in evaluation than in training mode, as a share of the loss to beat.

    The median of the last evaluations; NaN where there are none.
    """
    loss, evaluated, found = trace.curves.get("loss"), trace.curves.get("eval_loss"), progress(trace)
    if loss is None or evaluated is None or found is None or not found.reference:
        return math.nan
    _, mine, theirs = np.intersect1d(loss.steps, evaluated.steps, return_indices=True)
    gaps = (evaluated.values[theirs] - loss.values[mine])[-late:] / abs(found.reference)
    return float(np.median(gaps)) if len(gaps) and np.isfinite(gaps).all() else math.nan


def _start(values: Series) -> float:
    """The mean of the first hundredth; the first loss, where the first steps already threw it far off."""
    first = values[: max(3, len(values) // 100)]
    first = first[np.isfinite(first)]
    if not len(first):
        return math.nan
    return float(first[0] if first.mean() > 3 * abs(first[0]) else first.mean())


def smoothed(values: Series, parts: int = _PARTS) -> Series:
    """Returns the means of equal parts of a curve, float64 (parts,)."""
    each, longer = divmod(len(values), min(parts, len(values)))
    sizes = np.repeat([each + 1, each], [longer, min(parts, len(values)) - longer])
    means: Series = np.add.reduceat(values, np.cumsum(sizes) - sizes) / sizes
    return means


def trend(values: Series) -> float:
    """Returns Mann and Kendall's z of a curve: how far its parts rise (> 0) or fall (< 0) beyond what order by chance gives.

    It compares ranks of the means of at most twenty parts, so no noise of whatever distribution moves it; a curve without trend is
    beyond 3.1 (either side) in 2 of 1,000 draws (tests/signals/test_curves.py).

    Reference: Mann 1945; Kendall 1975.
    """
    means = smoothed(values)
    n = len(means)
    if n < 4 or not np.isfinite(means).all():
        return 0.0
    score = float(np.sign(means[None, :] - means[:, None])[np.triu_indices(n, 1)].sum())
    return float(score - np.sign(score)) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)


def seen_share(trace: Trace) -> float:
    """Returns the share of the planned steps whose losses were seen, in [0, 1]; where no plan is known, 200 losses are taken for a run."""
    loss, planned = trace.curves.get("loss"), (trace.facts.loop or {}).get("steps")
    return 0.0 if loss is None else min(1.0, len(loss.values) / (planned or 200))


def late_pace(values: Series) -> float | None:
    """Returns the share of all that a loss gained which it gained in its last half, or None where it does not fall there beyond chance.

    Beyond chance is z < -3.1 over the last half (`trend`); over the whole of a run of under a hundred steps, whose halves are too short,
    if the last half fell by more than four standard errors too.
    """
    if len(values) < MIN_STEPS or not np.isfinite(values).all():
        return None
    half = len(values) // 2
    means = smoothed(values)
    middle = float(np.median(means[len(means) // 2 - 1 : len(means) // 2 + 2]))
    fall, late = float(means[0] - means[-1]), middle - float(means[-1])
    short = (
        len(values) < 100
        and trend(values) < -3.1
        and float(values[half - half // 2 : half].mean() - values[-(half // 2) :].mean())
        > (4 * noise(values) * math.sqrt(2 / max(1, half // 2)))
    )
    return late / fall if fall > 0 and (short or trend(values[half:]) < -3.1) else None


def falls_on(trace: Trace) -> float | None:
    """Returns the larger `late_pace` of the training losses and of the validation loss, which is of the same samples each time."""
    found = [late_pace(trace.curves[name].values) for name in ("loss", "val_loss") if name in trace.curves]
    return max((pace for pace in found if pace is not None), default=None)


def noise(values: Series) -> float:
    """Returns the standard deviation of a curve's steps about its course, from the differences of neighbours (robust to outliers)."""
    steps = np.diff(values[np.isfinite(values)])
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2.0)) if len(steps) > 1 else 0.0
