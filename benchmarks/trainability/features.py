"""Cells of the grid -> the signals that `check` measures on them before the first step, one CSV row each.

python -m benchmarks.trainability.features --data digits circles
"""

from __future__ import annotations

import argparse
import csv
from itertools import product
from pathlib import Path

import torch
from torch import nn

from benchmarks.trainability.data import load
from benchmarks.trainability.labels import ACTIVATIONS, BUDGETS, DEPTHS, SEEDS, initialisers, network
from evengrad.recording import trace_of
from evengrad.rig import Rig
from evengrad.rules import discovered
from evengrad.signals.depth import slopes
from evengrad.signals.trainability import FEATURES, features
from evengrad.trace.batch import Batch

RESULTS = Path(__file__).parents[1] / "results" / "trainability_features.csv"
CELL = ("data", "width", "activation", "initialiser", "depth", "seed")
EXTRA = ("gradient_total", "spread_total", "max_dead", "max_saturated", "scale_decades", "mean_ratio")
SAMPLES = 256


def measure_cell(data: str, activation: str, initialiser: str, depth: int, seed: int) -> dict[str, object]:
    """Measures one network on one batch of `SAMPLES` samples."""
    x, y = load(data)
    pick = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:SAMPLES]
    trace = trace_of(Rig(network(data, activation, initialiser, depth, seed), loss_fn=nn.CrossEntropyLoss()), Batch(x[pick], y[pick]))
    totals = [next((s.total for s in slopes(trace, name, whole=True)), 0.0) for name in ("grad_out_norm", "out_spread")]
    worst = [float(trace.column(name)[0][:-1].max(initial=0.0)) for name in ("dead_fraction", "saturated_fraction")]
    cell = dict(zip(CELL, (data, BUDGETS[data].width, activation, initialiser, depth, seed), strict=True))
    weights = [discovered()[code]().value(trace) for code in ("INI001", "INI003")]
    return cell | (features(trace) or {}) | dict(zip(EXTRA, [*totals, *worst, *weights], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", nargs="+", default=list(BUDGETS), choices=list(BUDGETS))
    wanted = parser.parse_args().data
    torch.set_num_threads(1)
    with RESULTS.open("w", newline="") as file:
        out = csv.DictWriter(file, [*CELL, *FEATURES, *EXTRA])
        out.writeheader()
        for data, activation in product(wanted, ACTIVATIONS):
            for initialiser, depth, seed in product(initialisers(activation), DEPTHS, SEEDS):
                out.writerow(
                    {
                        k: f"{v:.6g}" if isinstance(v, float) else v
                        for k, v in measure_cell(data, activation, initialiser, depth, seed).items()
                    }
                )


if __name__ == "__main__":
    main()
