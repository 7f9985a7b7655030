"""Grid of plain MLPs -> one CSV row for each training run -> does this network train?

A *cell* is (data, width, activation, initialiser, depth, seed). It is *trained* when some rate in
`RATES` reaches 90% of the best score on this data, over all its cells, within the budget of steps.

Score is training accuracy, and chance is not subtracted: 90% of the way from chance to the best is
0.825 on two circles, inside the spread of healthy networks (0.80 to 0.86), so that the two seeds of a
cell agree on 89% of the labels; 90% of the best itself is 0.775, between the two peaks of the scores,
and they agree on 94% (digits: 97% either way). This was settled on the calibration sets alone. It needs
data on which the best constant answer stays well below 0.9 of the best, so `chance` (the share of the
commonest class) stands in every row, and `trained(above_chance=True)` is the other definition.

All runs (initialisers x seeds x rates) of one (data, activation, depth) train at once, as stacked weights.

    python -m benchmarks.trainability.labels --data digits circles
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.trainability.data import load
from evengrad.lab.models import mlp

RESULTS = Path(__file__).parents[1] / "results" / "trainability_labels.csv"
CELL = ("data", "width", "activation", "initialiser", "depth", "seed")
COLUMNS = (*CELL, "rate", "steps", "score", "chance", "final_loss", "final_score")

RATES = (1e-1, 1e-2, 1e-3, 1e-4)
SEEDS = (0, 1)
DEPTHS = (1, 2, 4, 8, 16, 30, 50, 100)
BATCH = 64
EVALUATIONS = 4  # evenly spaced; the score is the best of them
EVALUATED = 1000  # samples, at most

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "selu": torch.selu, "gelu": F.gelu, "sigmoid": torch.sigmoid}
INITIALISERS = (
    "default", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform",
    "orthogonal", "uniform_01", "normal_001", "normal_1",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How wide the networks of a data set are and how many steps they get."""

    width: int
    steps: int


BUDGETS = {
    "digits": Budget(width=32, steps=400),
    "circles": Budget(width=16, steps=1000),
    "wine": Budget(width=24, steps=400),
    "moons": Budget(width=20, steps=1000),
    "fashion": Budget(width=64, steps=250),
    "breast_cancer": Budget(width=24, steps=400),
}


def initialisers(activation: str) -> tuple[str, ...]:
    """The ten of the grid; torch's gain is 1 for gelu and sigmoid, where `orthogonal_gain` would be `orthogonal` again."""
    return (*INITIALISERS, "lecun_normal" if activation in ("gelu", "sigmoid") else "orthogonal_gain")


def network(data: str, activation: str, initialiser: str, depth: int, seed: int) -> nn.Sequential:
    """The network of a cell before its first step, with `depth` hidden layers."""
    x, y = load(data)
    return mlp([x.shape[1], *[BUDGETS[data].width] * depth, int(y.max()) + 1], activation, initialiser, seed=seed)


def trained(rows: Iterable[dict[str, str]], *, fraction: float = 0.9, above_chance: bool = False) -> dict[tuple[str, ...], bool]:
    """Whether each cell is trained (definition above); the key holds the CSV's strings in the order of `CELL`."""
    score: dict[tuple[str, ...], float] = {}
    best: dict[str, float] = {}
    floor: dict[str, float] = {}
    for row in rows:
        cell, data, reached = tuple(row[name] for name in CELL), row["data"], float(row["score"])
        score[cell] = max(score.get(cell, 0.0), reached)
        best[data] = max(best.get(data, 0.0), reached)
        floor[data] = float(row["chance"]) if above_chance else 0.0
    bar = {data: floor[data] + fraction * (best[data] - floor[data]) for data in best}
    return {cell: reached >= bar[cell[0]] for cell, reached in score.items()}


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How far each run came (runs,).

    Attributes:
        best: The highest training accuracy of any evaluation, in [0, 1]; 0 if the loss went non-finite.
        final: Training accuracy after the last step, likewise.
        loss: Cross-entropy after the last step, in nats; NaN if it went non-finite on the way.
    """

    best: Tensor
    final: Tensor
    loss: Tensor


class Stack:
    """Many networks of one shape as stacked weights; none touches another's numbers."""

    def __init__(self, networks: Sequence[nn.Sequential], activation: str) -> None:
        layers = zip(*([m for m in net if isinstance(m, nn.Linear)] for net in networks), strict=True)
        stacked = [(torch.stack([m.weight.T for m in row]), torch.stack([m.bias[None] for m in row])) for row in layers]
        self.layers = [(w.detach().requires_grad_(), b.detach().requires_grad_()) for w, b in stacked]
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: Tensor) -> Tensor:
        """Maps inputs (runs, batch, features) to logits (runs, batch, classes)."""
        for i, (w, b) in enumerate(self.layers):
            x = torch.baddbmm(b, self.activation(x) if i else x, w)
        return x

    def parameters(self) -> list[Tensor]:
        return [p for layer in self.layers for p in layer]


def batches(samples: int, steps: int, seed: int) -> Tensor:
    """Indices (steps, batch): a new permutation each epoch, an incomplete last batch left out."""
    generator = torch.Generator().manual_seed(seed)
    size = min(BATCH, samples)
    per_epoch = samples // size
    epochs = [torch.randperm(samples, generator=generator)[: per_epoch * size] for _ in range(-(-steps // per_epoch))]
    return torch.cat(epochs).view(-1, size)[:steps]


def train(stack: Stack, rates: Tensor, order: Tensor, x: Tensor, y: Tensor) -> Scores:
    """Trains all runs by SGD with momentum 0.9, each at its own rate.

    The rate scales the loss instead of the step: for SGD with momentum the two are the same, and one
    optimizer then serves all rates. A run whose loss is once non-finite has failed for good.

    Args:
        stack: The networks, changed in place; runs with the same batch order stand together.
        rates: (runs,).
        order: Indices into `x` (steps, orders, batch); the first runs / orders runs follow the first order.
    """
    steps, orders, _ = order.shape
    repeats = len(rates) // orders
    optimizer = torch.optim.SGD(stack.parameters(), lr=1.0, momentum=0.9, fused=True)
    alive = torch.ones_like(rates, dtype=torch.bool)
    best = torch.zeros_like(rates)
    checkpoints = {steps * (i + 1) // EVALUATIONS for i in range(EVALUATIONS)}
    for step in range(1, steps + 1):
        rows = order[step - 1].repeat_interleave(repeats, 0)  # (runs, batch)
        loss = _losses(stack(x[rows]), y[rows])
        optimizer.zero_grad()
        (rates * loss).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        alive &= loss.detach().isfinite()
        if step in checkpoints:
            accuracy, final = _evaluate(stack, x, y, len(rates))
            alive &= final.isfinite()
            accuracy = accuracy * alive
            best = torch.maximum(best, accuracy)
    return Scores(best=best * alive, final=accuracy, loss=final.where(alive, torch.nan))


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each run: (runs, batch, classes), (runs, batch) -> (runs,)."""
    return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)


@torch.no_grad()
def _evaluate(stack: Stack, x: Tensor, y: Tensor, runs: int) -> tuple[Tensor, Tensor]:
    """Accuracy and loss (runs,) on the training set, or on a fixed 1,000 of its samples."""
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:EVALUATED]
    logits = stack(x[rows].expand(runs, -1, -1))
    y = y[rows].expand(runs, -1)
    return (logits.argmax(-1) == y).to(x.dtype).mean(1), _losses(logits, y)


def measure(data: str, activation: str, depth: int) -> Iterator[dict[str, object]]:
    """Yields a row for each (initialiser, seed, rate) of one activation and depth."""
    budget = BUDGETS[data]
    x, y = load(data)
    runs = list(product(SEEDS, initialisers(activation), RATES))  # seeds outermost: they share a batch order
    drawn = {(s, i): network(data, activation, i, depth, s) for s, i, _ in runs[:: len(RATES)]}
    stack = Stack([drawn[s, i] for s, i, _ in runs], activation)
    order = torch.stack([batches(len(x), budget.steps, s) for s in SEEDS], 1)  # (steps, seeds, batch)
    scores = train(stack, torch.tensor([rate for *_, rate in runs]), order, x, y)
    chance = float(y.bincount().max()) / len(y)
    for i, (seed, initialiser, rate) in enumerate(runs):
        yield {
            "data": data, "width": budget.width, "activation": activation, "initialiser": initialiser,
            "depth": depth, "seed": seed, "rate": rate, "steps": budget.steps,
            "score": round(float(scores.best[i]), 4), "chance": round(chance, 4),
            "final_loss": f"{float(scores.loss[i]):.5g}", "final_score": round(float(scores.final[i]), 4),
        }  # fmt: skip


def check_against_torch(activation: str, steps: int = 20) -> float:
    """The largest difference in any weight between stacked training and `torch.optim.SGD` on each network alone.

    In float64, and at rates at which training is not chaotic, so that only rounding is left.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (150,), generator=generator)
    runs = list(product(SEEDS, ("default", "he_normal"), (1e-2, 1e-3)))
    networks = [mlp([5, 8, 8, 8, 3], activation, initialiser, seed=seed).double() for seed, initialiser, _ in runs]
    orders = {seed: batches(len(x), steps, seed) for seed in SEEDS}
    stack = Stack(networks, activation)
    rates = torch.tensor([rate for *_, rate in runs], dtype=torch.float64)
    train(stack, rates, torch.stack(list(orders.values()), 1), x, y)
    for net, (seed, _, rate) in zip(networks, runs, strict=True):
        optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
        for rows in orders[seed]:
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    pairs = zip(stack.parameters(), Stack(networks, activation).parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def read(path: Path = RESULTS) -> list[dict[str, str]]:
    """The rows measured so far."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Measures what the CSV does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=BUDGETS, default=list(BUDGETS)[:5])
    parser.add_argument("--depths", nargs="+", type=int, default=DEPTHS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # vanishing gradients are full of denormals, a hundred times slower
    done = {(r["data"], r["width"], r["activation"], r["depth"], r["steps"]) for r in read(options.out)}
    for data, depth, activation in product(options.data, options.depths, ACTIVATIONS):
        budget = BUDGETS[data]
        if (data, str(budget.width), activation, str(depth), str(budget.steps)) in done:
            continue
        start = time.perf_counter()
        rows = list(measure(data, activation, depth))
        _append(options.out, rows)
        best = max(float(str(row["score"])) for row in rows)
        print(f"{data} {activation} depth {depth}: best {best:.3f}, {time.perf_counter() - start:.1f} s", flush=True)


def _append(path: Path, rows: Sequence[dict[str, object]]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
