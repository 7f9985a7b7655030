"""How long does LSUV take? eg.lsuv_ (one call of the model) beside the package `lsuv` (calls for each layer), on plain networks.

Both get the same network (linear, ReLU; 64 wide), the same 128 samples and one thread, by turns; medians of the repeats. `off` is the
largest distance of a layer's standard deviation from 1 afterwards. The package must be installed: pip install lsuv==0.3.0

    python -m benchmarks.lsuv
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import lsuv
import torch
from torch import Tensor, nn

from evengrad.remedies.lsuv import lsuv_

RESULTS = Path(__file__).parent / "results" / "lsuv.json"
DEPTHS, WIDTH, SAMPLES, REPEATS = (10, 30, 100), 64, 128, 7


def network(depth: int) -> nn.Sequential:
    """Linear, ReLU, linear, ..."""
    torch.manual_seed(0)
    return nn.Sequential(*(module for _ in range(depth) for module in (nn.Linear(WIDTH, WIDTH), nn.ReLU())))


def package(model: nn.Module, x: Tensor) -> None:
    """The package with its own defaults, but quiet."""
    lsuv.lsuv_with_singlebatch(model, x, verbose=False)


def ours(model: nn.Module, x: Tensor) -> None:
    """One call of the model."""
    lsuv_(model, x)


@torch.no_grad()
def off(model: nn.Sequential, x: Tensor) -> float:
    """Largest distance of a layer's standard deviation from 1."""
    worst = 0.0
    for module in model:
        x = module(x)
        if isinstance(module, nn.Linear):
            worst = max(worst, abs(float(x.std(correction=0)) - 1))
    return worst


def seconds(run: Callable[[nn.Module, Tensor], None], model: nn.Module, x: Tensor) -> float:
    """Times one run."""
    started = time.perf_counter()
    run(model, x)
    return time.perf_counter() - started


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for depth in DEPTHS:
        x = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(1))
        models = {run.__name__: network(depth) for run in (package, ours)}
        times: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(REPEATS):
            for run in (package, ours):
                models[run.__name__] = fresh = network(depth)
                times[run.__name__].append(seconds(run, fresh, x))
        middle = {name: statistics.median(values) for name, values in times.items()}
        rows.append(
            {
                "layers": depth,
                "package_seconds": round(middle["package"], 4),
                "ours_seconds": round(middle["ours"], 4),
                "times_faster": round(middle["package"] / middle["ours"], 1),
                "package_off": round(off(models["package"], x), 4),
                "ours_off": round(off(models["ours"], x), 7),
            }
        )
        print(rows[-1])
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "lsuv": version("lsuv")}
    found = {"command": "python -m benchmarks.lsuv", "width": WIDTH, "samples": SAMPLES, "repeats": REPEATS, **versions, "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
