"""What `check` costs, in training steps of the same model on the same batch, side by side in one run.

    python -m benchmarks.check_cost                    # writes benchmarks/results/check_cost.json

A healthy network has nothing to intervene on; the sick ones (inputs of 0 to 255 into a normed residual network, a residual network
without norms and with weights far too small, twenty logistic layers) show what looking for causes costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import evengrad as eg
from evengrad.lab.models import mlp

RESULTS = Path(__file__).parent / "results" / "check_cost.json"


class Block(nn.Module):
    """The basic block of He et al. 2016, with or without norm."""

    def __init__(self, inside: int, outside: int, stride: int, normed: bool) -> None:
        super().__init__()
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d if normed else lambda _: nn.Identity()
        self.conv1, self.norm1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), norm(outside)
        self.conv2, self.norm2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), norm(outside)
        self.skip = nn.Sequential() if stride == 1 else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), norm(outside))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(h)) + self.skip(x))


def resnet18(*, normed: bool = True) -> nn.Sequential:
    """ResNet-18 for 32 x 32 images: 11.2 million parameters."""
    stem: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64) if normed else nn.Identity(), nn.ReLU()]
    plan = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    blocks = [Block(*sizes, normed) for sizes in plan]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def cases(batch: int) -> dict[str, tuple[nn.Module, Tensor]]:
    """Models and inputs."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, 32, 32)
    weak = resnet18(normed=False)
    with torch.no_grad():
        for p in weak.parameters():
            p.mul_(0.05)
    return {
        "ResNet-18, healthy": (resnet18(), images),
        "ResNet-18, inputs 0 to 255": (resnet18(), images * 64 + 128),
        "ResNet-18 without norms, weights x 0.05": (weak, images),
        "MLP 20 x 64, ReLU He": (mlp([784, *[64] * 19, 10], "relu", "he_normal", seed=0), torch.randn(128, 784)),
        "MLP 20 x 64, sigmoid": (mlp([784, *[64] * 19, 10], "sigmoid", seed=0), torch.randn(128, 784)),
    }


def once(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure(model: nn.Module, x: Tensor, rounds: int) -> dict[str, Any]:
    """Times a step and both kinds of check in turns; returns medians and the median of the ratios of each turn."""
    y, loss_fn = torch.arange(len(x)) % 10, nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()

    def check(causes: bool) -> eg.Report:
        return eg.check(model, x, y, loss_fn, causes=causes)

    step(), check(True)
    rows = []
    for _ in range(rounds):
        train = statistics.median(once(step) for _ in range(3))
        rows.append((train, once(lambda: check(False)), once(lambda: check(True))))
    report = check(True)
    median = [statistics.median(column) for column in zip(*rows, strict=True)]
    return {
        "step_ms": round(1e3 * median[0], 2),
        "check_ms": round(1e3 * median[1], 1),
        "check_with_causes_ms": round(1e3 * median[2], 1),
        "check_in_steps": round(statistics.median(b / a for a, b, _ in rows), 2),
        "check_with_causes_in_steps": round(statistics.median(c / a for a, _, c in rows), 2),
        "findings": [f.code for f in report.findings],
        "interventions": len({i.proposal.summary for i in report.interventions}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found: dict[str, Any] = {
        "command": "python -m benchmarks.check_cost",
        "torch": torch.__version__,
        "threads": arguments.threads,
        "batch of images": arguments.batch,
    }
    for name, (model, x) in cases(arguments.batch).items():
        found[name] = measure(model, x, arguments.rounds)
        print(name, json.dumps(found[name]), flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
