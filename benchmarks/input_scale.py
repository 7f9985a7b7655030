"""How far from mean 0 and deviation 1 may inputs be? Trains networks on digits, scaled and shifted, and fits DAT001's thresholds.

Networks: 2 and 4 hidden layers of 32, ReLU with He and tanh with Glorot, two seeds; SGD with momentum .9 at four rates, 400 steps. A
network counts as trained if some rate reaches 90% of the best score; `usable_rates` is the mean number of the four rates that do.
The thresholds are the largest factor and the largest offset, and the smallest factor, at which at least 90% still train.

    python -m benchmarks.input_scale
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import torch

from benchmarks.trainability.data import load
from benchmarks.trainability.labels import BATCH, RATES, Stack, batches, train
from evengrad.lab.models import mlp

RESULTS = Path(__file__).parent / "results" / "input_scale.json"
FACTORS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
OFFSETS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
STEPS = 400
NETWORKS = tuple(product((("relu", "he_normal"), ("tanh", "glorot_normal")), (2, 4)))
SEEDS = (0, 1)


def scores(factor: float, offset: float) -> torch.Tensor:
    """Training accuracy (networks * seeds, rates) on inputs `factor * x + offset`, x standardised digits."""
    x, y = load("digits")
    x = factor * x + offset
    rows = []
    for (activation, initialiser), depth in NETWORKS:
        nets = [mlp([64, *[32] * depth, 10], activation, initialiser, seed=seed) for seed in SEEDS for _ in RATES]
        found = train(Stack(nets, activation), torch.tensor(RATES * len(SEEDS)), batches(len(x), STEPS, 0)[:, None], x, y)
        rows.append(torch.as_tensor(found.best).reshape(len(SEEDS), len(RATES)))
    return torch.cat(rows)


def main() -> None:
    torch.set_num_threads(1)
    cases = [("factor", f, scores(f, 0.0)) for f in FACTORS] + [("offset", o, scores(1.0, o)) for o in OFFSETS]
    bar = 0.9 * max(float(s.max()) for _, _, s in cases)
    rows = [
        {
            "kind": kind,
            "value": value,
            "trained": round(float((s >= bar).any(1).float().mean()), 3),
            "usable_rates": round(float((s >= bar).float().sum(1).mean()), 2),
        }
        for kind, value, s in cases
    ]
    good = {kind: [r["value"] for r in rows if r["kind"] == kind and r["trained"] >= 0.9] for kind in ("factor", "offset")}
    found = {
        "command": "python -m benchmarks.input_scale",
        "bar": round(bar, 4),
        "batch": BATCH,
        "largest_factor": max(good["factor"]),
        "smallest_factor": min(good["factor"]),
        "largest_offset": max(good["offset"], default=None),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        print(row)
    print({k: v for k, v in found.items() if k != "rows"})


if __name__ == "__main__":
    main()
