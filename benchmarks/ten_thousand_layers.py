"""Ten thousand layers: seconds, steps and memory until 90% of the digits are right, beside plain torch on the same weights and batches.

    python -m benchmarks.ten_thousand_layers           # writes benchmarks/results/ten_thousand_layers.json

Every run is a process of its own. `stacked` is what the study does (evengrad.lab.deep), `plain` is nn.Sequential, autograd and
torch.optim.SGD; for the convolutional network, whose states are large, both come with states held and with states computed twice
(torch.utils.checkpoint, 100 segments). Seconds are those of the steps alone; CPU seconds tell how much of them other work took.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint_sequential

from evengrad.lab.data import load
from evengrad.lab.deep import DeepNet, Descent, centred
from evengrad.lab.deep.training import batches, steps_to
from evengrad.lab.studies.ten_thousand_layers import RECIPES, TenThousandLayers

RESULTS = Path(__file__).parent / "results" / "ten_thousand_layers.json"
STUDY = TenThousandLayers()
SEGMENTS = 100
WAYS = {
    "tanh": ("stacked", "plain"),
    "conv": ("stacked, recomputed", "plain, checkpointed", "stacked", "plain"),
    "fixup": ("stacked", "plain"),
}
Step = Callable[[Tensor, Tensor], Tensor]


def stacked(net: DeepNet, lr: float) -> Step:
    descent = Descent(net, lr=lr, momentum=STUDY.momentum)
    return lambda x, y: descent.step(x, y)[0]


def plain(net: DeepNet, lr: float, *, checkpointed: bool) -> Step:
    """The usual loop."""
    model = net.plain()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, momentum=STUDY.momentum)

    def forward(x: Tensor) -> Tensor:
        if not checkpointed:
            return model(x)
        hidden = checkpoint_sequential(model[1:-2], SEGMENTS, model[0](x).requires_grad_(), use_reentrant=False)
        return model[-2:](hidden)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        logits = forward(x)
        F.cross_entropy(logits, y).backward()
        optimizer.step()
        return logits.detach()

    return step


def one(network: str, way: str, depth: int, seed: int) -> dict[str, Any]:
    """Trains until the target is reached, in this process."""
    data, recipe = centred(load("digits")), RECIPES[network]
    lr = STUDY.c / depth if recipe.lr_falls else STUDY.fixup_lr
    net = DeepNet(recipe.layers(STUDY, depth), depth, inputs=64, outputs=10, seed=seed, recompute="recomputed" in way or "plain" in way)
    order = batches(len(data.y_train), STUDY.batch_size, seed)
    index = next(order)
    net.scale_readout(data.x_train[index])
    step = stacked(net, lr) if "stacked" in way else plain(net, lr, checkpointed="checkpointed" in way)
    if "plain" in way:
        del net
    accuracies: list[float] = []
    wall, cpu = time.perf_counter(), time.process_time()
    while not (steps := steps_to(accuracies, STUDY.target)) > 0 and len(accuracies) < 60:
        x, y = data.x_train[index], data.y_train[index]
        accuracies.append(float((step(x, y).argmax(1) == y).double().mean()))
        index = next(order)
    return {
        "steps": steps,
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "last_five_batches": round(sum(accuracies[-5:]) / 5, 4),
    }


def apart(network: str, way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same in a fresh process, with the load average before and after."""
    command = [sys.executable, "-m", "benchmarks.ten_thousand_layers", "--one", network, way]
    command += ["--depth", str(arguments.depth), "--threads", str(arguments.threads), "--seed", str(arguments.seed)]
    before = os.getloadavg()[0]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": str(arguments.threads)})
    return json.loads(done.stdout) | {"load": [round(before, 2), round(os.getloadavg()[0], 2)]}


def compared(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians of each way, and how many times the plain way takes what the stacked one does."""
    found: dict[str, Any] = {}
    for way, each in runs.items():
        found[way] = {name: statistics.median(r[name] for r in each) for name in each[0] if name != "load"}
        found[way]["load"] = [r["load"] for r in each]
    for ours in [way for way in runs if way.startswith("stacked")]:
        theirs = ours.replace("stacked", "plain").replace("recomputed", "checkpointed")
        for name in ("seconds", "cpu_seconds", "peak_rss_gb"):
            ratios = [b[name] / a[name] for a, b in zip(runs[ours], runs[theirs], strict=True)]
            found[ours][f"{name}_of_plain"] = round(statistics.median(ratios), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--depth", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "WAY"), help="run this one here and print what was found")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        print(json.dumps(one(*arguments.one, arguments.depth, arguments.seed)))
        return
    found: dict[str, Any] = {
        "command": "python -m benchmarks.ten_thousand_layers",
        "torch": torch.__version__,
        "threads": arguments.threads,
        "cores": os.cpu_count(),
        "depth": arguments.depth,
        "batch": STUDY.batch_size,
    }
    for network in arguments.networks:
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS[network]}
        for _ in range(arguments.rounds):
            for way, each in runs.items():
                each.append(apart(network, way, arguments))
                print(network, way, json.dumps(each[-1]), flush=True)
        found[network] = compared(runs)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
