"""What folding batch norms saves: one network evaluated with its norms and folded, in turns in one run; how far outputs differ.

Networks: 784-300-100-10 with a batch norm behind each layer, and ResNet-18 for 32x32 images (He et al. 2016, the CIFAR stem). Each round
calls both in random order, on one thread; times are that thread's processor seconds, which others' work does not lengthen. The speed-up is
the median over rounds of the ratio of a round's two times, with the quartiles beside it.

    python -m benchmarks.folding                     # writes benchmarks/results/folding.json
    python -m benchmarks.folding --rounds 15
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad.remedies.fold import fold_batchnorm

RESULTS = Path(__file__).parent / "results" / "folding.json"
ROUNDS = 41


class Block(nn.Module):
    """Two 3x3 convolutions with norms, and a way around."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        plain = stride == 1 and width == out
        self.around = nn.Identity() if plain else nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, width, h, w) -> (N, out, h / stride, w / stride)."""
        y = self.bn1(self.conv1(x)).relu_()
        return (self.bn2(self.conv2(y)) + self.around(x)).relu_()


def resnet18() -> nn.Module:
    """ResNet-18 with the stem for small images."""
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    blocks = [Block(a, b, 1 if a == b else 2) for a, b in pairwise(widths)]
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def mlp() -> nn.Module:
    """784-300-100-10, a norm behind each layer."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((784, 300, 100, 10)):
        layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


CASES: tuple[tuple[str, Callable[[], nn.Module], tuple[int, ...], int, int], ...] = (  # name, network, input, batch, calls a round
    ("mlp", mlp, (784,), 1, 200),
    ("mlp", mlp, (784,), 128, 60),
    ("resnet18", resnet18, (3, 32, 32), 1, 4),
    ("resnet18", resnet18, (3, 32, 32), 16, 1),
)


def seconds(model: nn.Module, x: Tensor, calls: int) -> float:
    """Processor seconds of one call."""
    started = time.thread_time()
    for _ in range(calls):
        model(x)
    return (time.thread_time() - started) / calls


@torch.no_grad()
def measure(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], batch: int, calls: int, *, rounds: int) -> dict[str, Any]:
    """One row of the results."""
    torch.manual_seed(0)
    model = make().train()
    for _ in range(3):
        model(torch.randn(8, *shape) + 1)  # so that the running statistics are some
    model.eval()
    x = torch.randn(batch, *shape)
    folded = fold_batchnorm(model, x)
    both, order = {"plain": model, "folded": folded}, random.Random(0)
    error = float((folded(x) - model(x)).norm() / model(x).norm())
    times: dict[str, list[float]] = {key: [] for key in both}
    for _ in range(rounds + 2):
        for key in order.sample(sorted(both), 2):
            times[key].append(seconds(both[key], x, calls))
    plain, fast = times["plain"][2:], times["folded"][2:]  # the first two rounds warm up
    quartiles = statistics.quantiles([a / b for a, b in zip(plain, fast, strict=True)], n=4)
    return {
        "network": name,
        "batch": batch,
        "norms": sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()),
        "left": len(folded.evengrad_unfolded),
        "relative_error": float(f"{error:.2g}"),
        "plain_ms": round(1e3 * statistics.median(plain), 4),
        "folded_ms": round(1e3 * statistics.median(fast), 4),
        "speed_up": round(quartiles[1], 3),
        "quartiles": [round(quartiles[0], 3), round(quartiles[2], 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        rows.append(measure(*case, rounds=rounds))
        print(rows[-1])
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "evengrad": eg.__version__}
    found = {"command": "python -m benchmarks.folding", "rounds": rounds, "threads": 1, **versions, "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
