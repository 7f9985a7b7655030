"""Runs and data -> trained runs and what was seen on the way: one loop for all runs of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from evengrad.batches import epoch_order
from evengrad.errors import InputError
from evengrad.lab.engine.evaluate import Best, Tally, evaluate
from evengrad.lab.engine.optimizers import Stepper
from evengrad.lab.engine.plan import History, Plan, Samples
from evengrad.lab.engine.record import Recorder
from evengrad.lab.engine.runs import Runs
from evengrad.lab.models.parts import set_step

Probe = Callable[[Runs, int, int], bool | None]


def fit(runs: Runs, train: Samples, plan: Plan, *, validation: Samples | None = None, probe: Probe | None = None) -> History:
    """Trains all runs together; a run's result depends on its own seed, weights and optimizer, and on how many runs there are.

    Args:
        runs: Networks to train, in place.
        train: What to train on.
        plan: How.
        validation: What evaluations and early stopping look at.
        probe: `probe(runs, epoch, step)`, called before the first epoch and after each; True ends the training.

    Returns:
        What was recorded. A run that diverges goes on as NaN and disturbs no other.
    """
    if len(plan.optimizers) != runs.count or len(plan.seeds) != runs.count:
        raise InputError(f"{runs.count} runs need as many optimizers and seeds; got {len(plan.optimizers)} and {len(plan.seeds)}")
    if plan.patience is not None and (validation is None or not plan.evaluate_every):
        raise InputError("early stopping needs validation samples and evaluate_every above 0")
    history, stepper = History(), Stepper(plan.optimizers, [b.flat for b in runs.blocks], (runs.flat, runs.grad))
    keeper = Best(runs, plan.patience) if plan.patience is not None else None
    tally, recorder = Tally(plan.loss), Recorder(runs, plan, history)
    seeds = torch.tensor(plan.seeds, device=runs.device)
    rates = [(runs.module.get_parameter(n).data, r) for n, r in (dict.fromkeys(plan.frozen, 0.0) | dict(plan.rates)).items()]
    per_epoch = math.ceil(train.count / plan.batch_size)
    total, step = plan.epochs * per_epoch, 0
    runs.module.train()
    if probe is not None:
        probe(runs, 0, 0)
    for epoch in range(plan.epochs):
        order = torch.stack([epoch_order(train.count, seed, epoch) for seed in plan.seeds]).to(runs.device)
        for chosen in order.split(plan.batch_size, dim=1):
            x, y = train.batch(runs.count, chosen)
            set_step(runs.module, seeds, step)
            outputs = runs.gradients(x, y, plan.loss)
            recorder.see(x, y, step)
            if plan.evaluate_every:
                tally.add(outputs, y)
            _shape_gradients(runs, plan)
            before = [w.clone() for w, _ in rates]
            stepper.step(plan.schedule.factor(step, total))
            for (w, rate), old in zip(rates, before, strict=True):
                torch.lerp(old, w, rate, out=w)  # every optimizer's step is proportional to its rate
            step += 1
            if plan.evaluate_every and (step % plan.evaluate_every == 0 or step == total):
                history.steps.append(step)
                seen = tally.means() | ({} if validation is None else evaluate(runs, validation, plan.loss, "val_"))
                history.add(history.curves, seen)
                if keeper is not None and keeper.see(seen["val_loss"], step):
                    break
        if probe is not None and probe(runs, epoch + 1, step):
            break
        if keeper is not None and keeper.over:
            break
    recorder.close()
    history.stopped_at = np.full(runs.count, step, np.int64) if keeper is None else keeper.restore()
    return history


def _shape_gradients(runs: Runs, plan: Plan) -> None:
    """Adds the L1 penalty and clips, each run by its own numbers."""
    if any(plan.l1):
        weight = torch.tensor(plan.l1, device=runs.device).view(-1, 1)
        for block in runs.recorded:
            w, g = block.flat
            g.add_(w.sign() * weight)
    if not plan.clips:
        return
    limit = torch.tensor([c.threshold for c in plan.clips], device=runs.device)
    if plan.clips[0].kind == "value":
        for block in runs.blocks:
            g = block.flat[1]
            g.copy_(torch.minimum(torch.maximum(g, -limit.view(-1, 1)), limit.view(-1, 1)))
        return
    norms = torch.stack([torch.linalg.vector_norm(b.flat[1], dim=(0, 2)) for b in runs.blocks])
    scale = (limit / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp_max(1.0)  # as torch.nn.utils.clip_grad_norm_
    for block in runs.blocks:
        block.flat[1].mul_(scale.view(-1, 1))
