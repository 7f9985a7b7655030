"""a loss, outputs and targets -> whether it tells right answers from wrong ones, and how little loss right answers can have.

Nothing is asked of how a loss is written: it is called with the targets themselves for answers, and with answers that are wrong in one way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from evengrad.trace.batch import Loss
from evengrad.trace.free_answers import freed

Reach = tuple[float, float]
EVERYTHING: Reach = (-math.inf, math.inf)
_SURE = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # how far right answers stand above the others, in logits
_FAR = (1.0, 10.0)  # standard deviations by which answers are off
_SETTLED = 0.01  # a loss that falls no further from 8 to 32 logits has an end of its own
_OF_CLASSES = {"cross_entropy", "nll", "bce", "bce_with_logits"}
_FEW = 8  # samples that say enough
_SOFT = 0.75  # of the constant answer's loss: a tenth of label smoothing leaves a quarter
_ARRIVED = 0.95  # share of the samples
_MANY = 1_000_000  # answers whose walk would take too long


def probed(loss_fn: Loss, answers: Tensor, wanted: Tensor, *, op: str, reach: Reach = EVERYTHING) -> dict[str, float | str]:
    """Describes a loss by what right answers get of it.

    Args:
        loss_fn: `loss_fn(output, targets) -> scalar`.
        answers: What the network puts out (n, ...).
        wanted: The targets: class labels, or numbers, as many as answers.
        op: Kind of the loss, as `loss_facts` names it.
        reach: What the output can reach at all, whatever the weights.

    Returns:
        `floor`: least loss of right answers within reach, as a share of what the best constant answer loses (0 for most losses);
        `free_floor`: the same without the limits of the output, given where the loss falls no further for surer answers;
        `blind_to`: a change that makes right answers wrong and leaves the loss as it is (`order`, `size`, `level`, `sign`, `label`);
        `blindness`: by how much less than the constant answer's distance the loss changes, 1 is not at all;
        `reversed`: 1 where right answers get more loss than all that are wrong, the more so the further these are off;
        `arrives`: share of samples whose right class the loss leads free answers to (`free_answers`), given where labels are one a sample;
        `endless`: 1 where free answers lose less and less without end, in proportion to the way that they go;
        `softened`: least loss as a share of the best constant answer's, where surer answers than those of this loss lose more.
        Empty where targets are of another kind.
    """
    if len(answers) < _FEW or not bool(answers.isfinite().all()):
        return {}
    with torch.no_grad():
        if wanted.is_floating_point() and not _shares(wanted, op):
            numbers = wanted.numel() == answers.numel() and len(wanted) == len(answers) and op not in _OF_CLASSES
            return _of_numbers(loss_fn, answers, wanted, reach) if numbers else {}
        hot = _one_hot(answers, wanted)
        return {} if hot is None else _of_classes(loss_fn, answers, wanted, hot, reach)


def _of_numbers(loss_fn: Loss, answers: Tensor, wanted: Tensor, reach: Reach) -> dict[str, float | str]:
    right = wanted.to(answers.dtype).reshape(answers.shape)
    spread, middle = right.std(0).mean(), right.mean(0, keepdim=True)
    if not bool(spread > 0):
        return {}

    def loss(found: Tensor) -> float:
        return float(loss_fn(found.contiguous(), wanted))

    best, constant = loss(right), loss(middle.expand_as(right) + 1e-3 * spread * _noise(right))
    gap = constant - best
    if not (math.isfinite(best) and math.isfinite(constant)):
        return {}
    moved = right.roll(max(1, len(right) // 3), 0)
    away = [[loss(right + sign * far * spread) for far in _FAR] for sign in (-1.0, 1.0)]
    if all(best > near > further for near, further in away) and best > max(constant, loss(moved)):
        return {"reversed": 1.0}
    if reach == EVERYTHING and answers.numel() <= _MANY and _open(answers):
        walk = freed(loss_fn, answers, wanted, scale=max(float(spread), float((answers - right).square().mean().sqrt())))
        if walk is not None and walk.endless:
            return {"endless": 1.0}
    if gap <= 1e-6 * abs(constant):  # answers in another space (a logarithm of the rate), or all pairs of samples are compared
        mixed = loss(moved)
        blind = abs(mixed - best) <= 1e-5 * max(abs(best), abs(constant)) and bool((moved - right).norm() > 0.5 * (right - middle).norm())
        return {"blind_to": "answers", "blindness": 1.0} if blind else {}
    changed = {"order": moved, "sign": -right}
    if right[0].numel() == 1 and len(right.unique()) > 2:  # directions of vectors, and signs of two classes, can be all that is asked for
        changed |= {"size": 3.0 * right, "level": right + 2 * spread}
    for name in sorted(changed):
        rise, differs = (loss(changed[name]) - best) / gap, float((changed[name] - right).norm() / (right - middle).norm())
        if differs > 0.5 and math.isfinite(rise) and abs(rise) < 0.02:
            return {"blind_to": name, "blindness": 1.0 - abs(rise)}
    return {"floor": (loss(right.clamp(*reach)) - best) / gap} if reach != EVERYTHING else {}


def _of_classes(loss_fn: Loss, answers: Tensor, wanted: Tensor, hot: Tensor, reach: Reach) -> dict[str, float | str]:
    def loss(found: Tensor) -> float:
        return float(loss_fn(found.to(answers.dtype).clamp(*reach).contiguous(), wanted))

    def free(found: Tensor) -> float:
        return float(loss_fn(found.to(answers.dtype).contiguous(), wanted))

    domain = _domain(answers)
    if domain != "logits":
        reach = EVERYTHING  # what sums to 1 has its ends from that
    rights, moved = list(_right(domain, hot)), hot.roll(max(1, len(hot) // 3), 0)
    wrongs = [list(_right(domain, other)) for other in (_others(hot), moved)]
    constant = _least(free(answers.new_full(answers.shape, c)) for c in _levels(domain, hot))
    best = _least(map(loss, rights))
    facts, led = _led(loss_fn, answers, wanted, hot) if domain == "logits" and reach == EVERYTHING else ({}, math.inf)
    if not (math.isfinite(best) and math.isfinite(constant)) or constant == 0:
        return facts
    if min(map(loss, rights)) > constant > max(loss(x) for found in wrongs for x in found):
        return {"reversed": 1.0}
    best = min(best, led)
    gap = constant - best
    softened = best / constant if domain == "logits" and best > 0 else 0.0
    if softened > _SOFT and float(facts.get("arrives", 0.0)) > _ARRIVED and loss(rights[-1]) > constant:
        return facts | {"softened": softened}
    mistaken = max(_least(map(loss, found)) for found in wrongs)  # a loss of who is alike does not see which class is which
    told = float((moved != hot).float().mean()) * hot[0].numel() > 0.2
    if gap <= 0.02 * abs(constant) or (told and mistaken - best <= 0.02 * abs(gap)):
        return facts | {"blind_to": "label", "blindness": 1.0}
    if best >= 0 and constant > 0:
        facts["floor"] = best / constant
        frees = [free(x) for x in rights]
        if domain == "logits" and all(map(math.isfinite, frees)) and abs(frees[-1] - frees[-3]) < _SETTLED * constant:
            facts["free_floor"] = min(frees) / constant
    return facts


def _led(loss_fn: Loss, answers: Tensor, wanted: Tensor, hot: Tensor) -> tuple[dict[str, float | str], float]:
    """What free answers come to, and the loss that they have then: infinite where they are not free or nothing can be said of them.

    A loss of who is alike does not care which class is which, and leads answers to none.
    """
    if answers.numel() > _MANY or wanted.dim() != 1 or answers.dim() != 2 or answers.shape[1] < 2 or not _open(answers):
        return {}, math.inf
    walk = freed(loss_fn, answers, wanted, scale=max(1.0, float(answers.abs().max()) / 4))
    if walk is None:
        return {}, math.inf
    facts: dict[str, float | str] = {"endless": 1.0} if walk.endless else {}
    renamed = float(loss_fn(walk.answers.roll(1, 1), wanted))
    if abs(renamed - walk.after) > 1e-5 * max(abs(renamed), abs(walk.after)):
        facts["arrives"] = float((walk.answers.argmax(1) == hot.argmax(1))[wanted >= 0].float().mean())
    return facts, (walk.after if not walk.endless and float(facts.get("arrives", 0.0)) > _ARRIVED else math.inf)


def _open(answers: Tensor) -> bool:
    """True if nothing says that answers end on one side."""
    return bool((answers > 0).any()) and bool((answers < 0).any())


def _levels(domain: str, hot: Tensor) -> tuple[float, ...]:
    return (0.0,) if domain == "logits" else (1.0 / hot.shape[1],) if domain == "shares" else (-math.log(hot.shape[1]),)


def _right(domain: str, hot: Tensor) -> Iterator[Tensor]:
    """Answers that are right, surer and surer."""
    if domain == "logits":
        yield from (sure * (2 * hot - 1) for sure in _SURE)
        return
    for rest in (0.1, 1e-2, 1e-4):
        shares = hot * (1 - rest) + rest / hot.shape[1]
        yield shares if domain == "shares" else shares.log()


def _domain(answers: Tensor) -> str:
    """`shares` that sum to 1, their logarithms (`logs`), or `logits`."""
    if answers.dim() < 2 or answers.shape[1] < 2:
        return "logits"
    for name, values in (("shares", answers), ("logs", answers.exp())):
        if bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-3).all()):
            return name
    return "logits"


def _one_hot(answers: Tensor, wanted: Tensor) -> Tensor | None:
    """1 where the right class is, in the shape of the answers; None where labels are of another kind."""
    if wanted.numel() == answers.numel():  # one unit for two classes
        if wanted.numel() != answers.numel() or not bool(((wanted == 0) | (wanted == 1)).all()):
            return None
        return wanted.reshape(answers.shape).to(answers.dtype)
    if (
        wanted.is_floating_point()
        or wanted.dim() != answers.dim() - 1
        or wanted.shape[0] != answers.shape[0]
        or int(wanted.max()) >= answers.shape[1]
    ):
        return None
    hot = torch.zeros_like(answers)
    return hot.scatter_(1, wanted.clamp_min(0).long().unsqueeze(1), 1.0)


def _others(hot: Tensor) -> Tensor:
    """The next class in place of the right one."""
    return hot.roll(1, 1) if hot.dim() > 1 and hot.shape[1] > 1 else 1 - hot


def _shares(wanted: Tensor, op: str) -> bool:
    return op.startswith("bce") and bool(((wanted == 0) | (wanted == 1)).all())


def _least(values: Iterator[float]) -> float:
    return min((v for v in values if math.isfinite(v)), default=math.nan)


def _noise(like: Tensor) -> Tensor:
    """A fixed pattern, so that no generator is touched and no answers are all equal."""
    return torch.arange(like.numel(), dtype=torch.float32, device=like.device).mul(12.9898).sin().to(like.dtype).reshape(like.shape)
