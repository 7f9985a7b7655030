"""What a search saves: trials stopped by gradient health, by loss, by both or by none; a batch trained as one network or one by one.

    python -m benchmarks.search            # writes benchmarks/results/search.json, about five minutes of one core

Networks: digits, 10 hidden layers of 32 (tanh, ReLU) and 2 (ReLU, the control in which little is sick); SGD, batch 64, 8 epochs. The space:
rate 0.003 to 3, momentum, six initialisers, their scale 0.3 to 3, clipping. With the random sampler all policies see the same trials, so
that `lost` (the best metric with no policy less the best with this one) is what stopping itself costs; with TPE the policies also teach
the sampler. `steps` and `time` (of one core) are shares of what the same seed took without a policy.
"""

from __future__ import annotations

import json
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

import evengrad as eg
from evengrad.lab.data import load
from evengrad.lab.search import Halving, Health, SearchResult, search
from evengrad.lab.search.arms import Arms

RESULTS = Path(__file__).parent / "results" / "search.json"
NETWORKS = {"10 x 32 tanh": (10, nn.Tanh), "10 x 32 relu": (10, nn.ReLU), "2 x 32 relu": (2, nn.ReLU)}
POLICIES: dict[str, dict[str, Any]] = {
    "none": {"health": None, "halving": None},
    "loss": {"health": None, "halving": Halving()},
    "health": {"health": Health(), "halving": None},
    "both": {"health": Health(), "halving": Halving()},
}
SPACE = {
    "lr": (0.003, 3.0, "log"),
    "momentum": (0.0, 0.98),
    "initialiser": ["as built", "auto", "orthogonal", "he_normal", "glorot_normal", "lecun_normal"],
    "init_scale": (0.3, 3.0, "log"),
    "clip_norm": [None, 0.1, 1.0],
}
SEEDS = (0, 1, 2)
TRIALS, BATCH = 64, 32


def experiment(depth: int, activation: type[nn.Module]) -> eg.Experiment:
    split = load("digits")
    sizes = [64, *[32] * depth]

    def model() -> nn.Module:
        hidden = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), activation())]
        return nn.Sequential(*hidden, nn.Linear(32, 10))

    return eg.Experiment(
        model,
        (split.x_train, split.y_train),
        nn.CrossEntropyLoss(),
        lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9),
        validation=(split.x_test, split.y_test),
        epochs=8,
        batch_size=64,
    )


def best(result: SearchResult) -> float:
    return result.best.metric if result.best else 0.0


def policies(name: str, sampler: str) -> list[dict[str, Any]]:
    """A line a policy: medians over seeds, and how often the best trial was kept."""
    held = experiment(*NETWORKS[name])
    found: dict[str, list[tuple[float, float, float]]] = {policy: [] for policy in POLICIES}
    for seed in SEEDS:
        for policy, options in POLICIES.items():
            started = time.process_time()
            result = search(held, SPACE, TRIALS, batch=BATCH, seed=seed, sampler=sampler, storage="memory", **options)
            found[policy].append((result.steps[0], time.process_time() - started, best(result)))
    lines = []
    for policy, runs in found.items():
        pairs = list(zip(runs, found["none"], strict=True))
        lines.append(
            {
                "network": name,
                "sampler": sampler,
                "policy": policy,
                "steps": round(statistics.median(a[0] / b[0] for a, b in pairs), 3),
                "time": round(statistics.median(a[1] / b[1] for a, b in pairs), 3),
                "best": [round(a[2], 4) for a, _ in pairs],
                "lost": [round(b[2] - a[2], 4) for a, b in pairs],
            }
        )
        print(lines[-1], flush=True)
    return lines


def together(name: str) -> dict[str, Any]:
    """The same 32 trials, none stopped: as one network, and one by one through `eg.train`."""
    held = experiment(*NETWORKS[name])
    ratios = []
    for seed in SEEDS:
        started = time.process_time()
        result = search(held, SPACE, 32, batch=32, seed=seed, sampler="random", storage="memory", health=None, halving=None)
        arms, between = Arms(held, seed), time.process_time()
        for one in result.trials:
            eg.train(arms.apply(one.numbers), seed=seed)
        ratios.append((time.process_time() - between) / (between - started))
    line = {"network": name, "trials": 32, "times_faster_together": [round(r, 2) for r in ratios]}
    print(line, flush=True)
    return line


def main() -> None:
    torch.set_num_threads(1)
    eg.train(experiment(2, nn.ReLU))  # imports and first calls are nobody's time
    search(experiment(2, nn.ReLU), SPACE, 4, storage="memory")
    found = {
        "command": "python -m benchmarks.search",
        "torch": torch.__version__,
        "trials": TRIALS,
        "seeds": len(SEEDS),
        "policies": [line for name in NETWORKS for line in policies(name, "random")] + policies("10 x 32 relu", "tpe"),
        "together": [together(name) for name in NETWORKS],
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
