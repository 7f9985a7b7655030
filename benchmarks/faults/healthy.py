"""Programs, usual and unusual, that do well -> runs on which nothing must be reported.

    python -m benchmarks.faults.healthy [--workers 2]     # checks the floors

Every base program with two seeds, and programs that look odd and are fine. Each must come to the floor of its data, or to its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

import evengrad as eg
from benchmarks.faults import steps
from benchmarks.faults.base import Program, score
from benchmarks.faults.edits import frozen, in_precision
from benchmarks.faults.fifth import healthy as fifth
from benchmarks.faults.fourth import healthy as fourth
from benchmarks.faults.held_out import healthy as held_out
from benchmarks.faults.pretrained import Pretrained
from benchmarks.faults.programs import PROGRAMS, program, warm_up
from benchmarks.faults.sixth import healthy as sixth
from evengrad.lab.data import Split

SEEDS = (0, 1)
_pretrained = Pretrained(program, seed=100)
FLOORS = {  # accuracy, or share of variance explained, on the test set
    "digits": 0.85, "fashion_mnist": 0.65, "wine": 0.9, "breast_cancer": 0.93, "two_circles": 0.88, "moons": 0.93, "spirals": 0.9,
    "blobs": 0.9, "friedman": 0.85, "waves": 0.85, "energy": 0.85, "adding": 0.9, "copy_memory": 0.95,
} | held_out.FLOORS | fourth.FLOORS | fifth.FLOORS | sixth.FLOORS  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Healthy:
    """A program, the seed, and the score that says it is well.

    Attributes:
        name: `healthy/program/seed`.
        program: The program.
        seed: Its seed.
        floor: The least score.
    """

    name: str
    program: Program
    seed: int
    floor: float

    @property
    def half(self) -> str:
        """The half that it belongs to."""
        return self.program.half

    @property
    def file(self) -> str:
        """The stem of its files in the cache."""
        return self.name.replace("/", "--")


@cache
def runs() -> dict[str, Healthy]:
    """Returns every healthy run, by name."""
    made = [_run(p, seed, FLOORS[p.data().name]) for p in PROGRAMS.values() for seed in SEEDS]
    odd = (*_unusual(), *held_out.unusual(), *fourth.unusual(), *fifth.unusual(), *sixth.unusual())
    made += [_run(p, seed, floor) for p, floor in odd for seed in SEEDS]
    return {run.name: run for run in made}


def _run(p: Program, seed: int, floor: float) -> Healthy:
    return Healthy(name=f"healthy/{p.name}/{seed}", program=p, seed=seed, floor=floor)


def _unusual() -> list[tuple[Program, float]]:
    """Programs that look odd and are fine; the first of each pair is for tuning, the second for the report."""
    found: list[tuple[Program, float]] = []
    for what, change, pair, floors in _ODDITIES:
        for name, floor in zip(pair, floors, strict=True):
            base = program(name)
            found.append((change(base).having(name=f"{what}--{name}"), floor))
    return found


def _tuned(p: Program) -> Program:
    """Fine-tuning: from a trained network, at a hundredth of the rate."""
    return _pretrained(p).having(lr=p.lr / 100, epochs=4, schedule=None)


def _backbone(p: Program) -> Program:
    """A trained network whose head alone learns, the rest is frozen."""
    names = [name for name, _ in p.net.build(0).named_parameters()]
    kept = set(names[-2:])
    return _pretrained(p).edited(frozen(lambda name: name in kept)).having(epochs=5)


def _sparse(p: Program) -> Program:
    """Biases below zero: far more than half of the units are off for a sample, none for all."""

    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        for name, q in model.named_parameters():
            if name.endswith("bias") and len(q) > 10:
                q.fill_(-0.4)
        return model

    return p.edited(edit)


def _unbalanced(split: Split, seed: int) -> Split:
    """Keeps a tenth of the classes from the second on in training; a test on all."""
    keep = (split.y_train == 0) | (torch.arange(len(split.y_train)) % 6 == 0)
    return Split(name=split.name, classes=split.classes, x_train=split.x_train[keep], y_train=split.y_train[keep], x_test=split.x_test,
                 y_test=split.y_test)  # fmt: skip


def _noisy_targets(split: Split, seed: int) -> Split:
    random = torch.Generator().manual_seed(3)
    parts = [y + 0.9 * torch.randn(y.shape, generator=random) for y in (split.y_train, split.y_test)]
    return Split(name=split.name, classes=(), x_train=split.x_train, y_train=parts[0], x_test=split.x_test, y_test=parts[1])


def _steady(p: Program) -> Program:
    return p.having(schedule=warm_up(0.15))


def _smoothed(p: Program) -> Program:
    return p.having(loss=nn.CrossEntropyLoss(label_smoothing=0.1))


_ODDITIES: tuple[tuple[str, Callable[[Program], Program], tuple[str, str], tuple[float, float]], ...] = (
    ("fine-tuned", _tuned, ("mlp-relu", "lstm-rows"), (0.93, 0.7)),
    ("frozen-backbone", _backbone, ("conv", "deep-tanh20"), (0.7, 0.7)),
    ("sparse", _sparse, ("mlp-relu", "mlp-gelu"), (0.88, 0.7)),
    ("large-batch", lambda p: p.having(batch_size=512, epochs=5 * p.epochs), ("mlp-tanh", "mlp-dropout"), (0.7, 0.88)),
    ("bfloat16", lambda p: p.edited(in_precision(torch.bfloat16)), ("mlp-relu", "mlp-gelu"), (0.88, 0.68)),
    ("converged", lambda p: p.having(epochs=3 * p.epochs), ("mlp-relu", "conv-mean"), (0.93, 0.93)),
    ("trained-on", lambda p: _pretrained(p).having(schedule=None), ("residual", "cancer"), (0.93, 0.93)),
    ("no-validation", lambda p: p.having(validated=False), ("conv-bn", "energy"), (0.85, 0.85)),
    ("heavy-dropout", lambda p: p.with_net(dropout=0.5).having(epochs=2 * p.epochs), ("mlp-relu", "mlp-dropout"), (0.88, 0.88)),
    ("smoothed-labels", _smoothed, ("gru-rows", "residual-conv"), (0.65, 0.88)),
    ("weight-decay-of-0.1", lambda p: p.having(optimizer="adamw", lr=2e-3, options={"weight_decay": 0.1}, schedule=None),
     ("pre-norm", "conv-strided-bn"), (0.85, 0.7)),
    ("warm-up", _steady, ("deep-relu", "deep-ln"), (0.8, 0.85)),
    ("clipped-at-times", lambda p: p.having(train_step=steps.clipped(2.0)), ("selu", "deep-elu"), (0.85, 0.7)),
    ("accumulating", lambda p: p.having(train_step=steps.accumulating(4)), ("mlp-tanh", "blobs"), (0.7, 0.9)),
    ("autocast", lambda p: p.having(train_step=steps.autocast), ("conv", "mlp-gelu"), (0.65, 0.7)),
    ("unbalanced", lambda p: p.with_data(_unbalanced).having(epochs=3 * p.epochs), ("circles", "moons-tanh"), (0.8, 0.85)),
    ("noise-floor", lambda p: p.with_data(_noisy_targets).having(epochs=p.epochs // 2), ("friedman", "energy"), (0.35, 0.35)),
    ("early-epochs", lambda p: p.having(epochs=3), ("conv-bn", "mlp-gelu"), (0.7, 0.65)),
    ("own-step", lambda p: p.having(train_step=steps.plain), ("friedman", "waves-huber"), (0.85, 0.85)),
    ("inputs-in-0-1", lambda p: p.with_data(_unit_range), ("conv", "mlp-gelu"), (0.6, 0.65)),
    ("huge-width", lambda p: p.with_net(width=512), ("mlp-relu", "moons"), (0.9, 0.9)),
    ("residual-plain", lambda p: p.with_net(norm="layer"), ("residual", "residual-rezero"), (0.88, 0.7)),
)  # fmt: skip


def _unit_range(split: Split, seed: int) -> Split:
    low, high = split.x_train.min(), split.x_train.max()
    return Split(name=split.name, classes=split.classes, x_train=(split.x_train - low) / (high - low), y_train=split.y_train,
                 x_test=(split.x_test - low) / (high - low), y_test=split.y_test)  # fmt: skip


def _one(name: str) -> tuple[str, float, float]:
    torch.set_num_threads(1)
    run = runs()[name]
    result = eg.train(run.program.experiment(), seed=run.seed)
    return name, score(result.model, run.program.split(), run.program.metric), run.floor


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    wanted = [name for name in runs() if not arguments.only or any(o in name for o in arguments.only)]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for name, found, floor in pool.map(_one, wanted):
            print(f"{'ok ' if found >= floor else 'BAD'} {name}: {found:.3f} (floor {floor})", flush=True)


if __name__ == "__main__":
    main()
