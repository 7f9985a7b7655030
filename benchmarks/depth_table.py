"""Which remedies make a deep tanh network learn two circles? Share of seeds that reach the bar within the tutorial's own budget.

The patient: hidden layers of 5 or 64 tanh units, all weights drawn from uniform(0, 1), on 500 points; SGD with rate 0.01 and momentum
0.9, batches of 32, 500 epochs = 8,000 steps (Brownlee 2019). A seed counts from the first epoch that ends with a training accuracy of
0.75, which no straight line reaches; training stops there. Remedies are applied by name, as one would take them from a report; `fix` is
what `eg.fix` chooses on the first seed in trainings of an eighth of that budget, without a word from us.

    python -m benchmarks.depth_table [--depths 20 50 100] [--widths 5 64] [--seeds 10] [--remedies isometry fix ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad.lab.data import load
from evengrad.lab.models import MLP
from evengrad.recording import trace_of
from evengrad.remedies import discovered
from evengrad.training import Experiment, build, first_batch, train
from evengrad.types import Finding, Proposal

RESULTS = Path(__file__).parent / "results" / "depth_table.json"
LEARNED = 0.75  # benchmarks and studies agree on it
EPOCHS, BATCH, RATE, MOMENTUM = 500, 32, 0.01, 0.9
FINDING = Finding(code="INI001", symptom="saturated_activation", severity="error", message="", cause="bad_init_large")


def experiment(depth: int, width: int, *, epochs: int = EPOCHS) -> Experiment:
    """Returns the tutorial's network at this depth and width, drawn from uniform(0, 1)."""
    data = load("two_circles")
    return eg.Experiment(
        lambda: MLP(inputs=2, outputs=1, depth=depth, width=width, activation="tanh", initialiser="uniform_01").build(
            int(torch.randint(2**31, ()))
        ),
        (data.x_train.float(), data.y_train.float()),
        _loss,
        lambda model: torch.optim.SGD(model.parameters(), RATE, MOMENTUM),
        metric="accuracy",
        epochs=epochs,
        batch_size=BATCH,
    )


def _loss(output: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(output[:, 0], targets)


class UntilLearned:
    """Ends a training with the epoch in which the training accuracy reaches the bar, and remembers the step."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        self.reached: int | None = None
        self.best = 0.0

    def before(self, rig: eg.Rig, batch: object) -> None:
        """Joins what the rig does after each epoch."""
        if self._ends not in rig.after_epoch:
            rig.after_epoch.append(self._ends)

    def after(self, rig: eg.Rig, batch: object, loss: Tensor) -> None:
        """Sees nothing in a single step."""

    @torch.no_grad()
    def _ends(self, rig: eg.Rig) -> bool:
        accuracy = float(((rig.model(self.x)[:, 0] > 0) == self.y.bool()).float().mean())
        self.best = max(self.best, accuracy)
        if accuracy >= LEARNED:
            self.reached = rig.step
        return accuracy >= LEARNED


def proposals(name: str, given: Experiment) -> list[Proposal]:
    """What the remedies called `name` (joined by +; an option's number behind a colon) propose for the first seed, or what fix chooses."""
    if name == "fix":
        return list(eg.fix(replace(given, epochs=EPOCHS // 8), seeds=1).chosen)
    rig = build(given)
    trace = trace_of(rig, first_batch(rig))
    found = []
    for part in name.split("+") if name != "none" else ():
        remedy, _, option = part.partition(":")
        found.append(list(discovered()[remedy]().propose(FINDING, trace))[int(option or 0)])
    return found


def row(name: str, depth: int, width: int, seeds: int) -> dict[str, object]:
    """Trains every seed with the remedy."""
    given = experiment(depth, width)
    x, y = given.data
    repaired = given.repaired(proposals(name, given))
    reached, best, started = [], [], time.perf_counter()
    for seed in range(seeds):
        watcher = UntilLearned(x, y)
        train(repaired, seed=seed, watcher=watcher)
        reached.append(watcher.reached)
        best.append(round(watcher.best, 3))
    steps = [s for s in reached if s is not None]
    return {
        "remedy": name,
        "proposed": [p.summary for p in repaired.repairs],
        "depth": depth,
        "width": width,
        "share": len(steps) / seeds,
        "steps": reached,
        "median_steps": statistics.median(steps) if steps else None,
        "best_accuracy": best,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--widths", type=int, nargs="+", default=[5, 64])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--remedies", nargs="+", default=["isometry"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    kept = json.loads(given.output.read_text())["rows"] if given.output.exists() else []
    for depth in given.depths:
        for width in given.widths:
            for name in given.remedies:
                made = row(name, depth, width, given.seeds)
                made["command"] = (
                    f"python -m benchmarks.depth_table --depths {depth} --widths {width} --seeds {given.seeds} --remedies {name}"
                )
                print({k: made[k] for k in ("remedy", "depth", "width", "share", "median_steps", "seconds")}, flush=True)
                same = ("remedy", "depth", "width")
                kept = [r for r in kept if any(r[k] != made[k] for k in same)] + [made]
                versions = {"python": sys.version.split()[0], "torch": torch.__version__, "evengrad": eg.__version__}
                rows = sorted(kept, key=lambda r: (r["depth"], r["width"], r["remedy"]))
                found = {"command": "python -m benchmarks.depth_table", "learned": LEARNED, "budget": EPOCHS * 16, **versions, "rows": rows}
                given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
