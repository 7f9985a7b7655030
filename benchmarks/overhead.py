"""What watching costs: the same training bare and watched, in turns in one run, beside what others log.

    python -m benchmarks.overhead                    # writes benchmarks/results/overhead.json
    python -m benchmarks.overhead --rounds 9 --models mlp
    python -m benchmarks.overhead --processor        # on a machine that is not quiet: processor seconds of the training's own thread

Every variant owns a copy of the model and optimizer; all take turns of a few steps in random order, and a second bare variant is the
control. A ratio is the median over rounds of a variant's seconds by the bare one's seconds of the same round; beside it are the quartiles.
Own share is what the monitor itself counts in runs of their own, of 1,000 steps (the MLP's also of 5,000); memory is what that monitor
holds at its end.
TensorBoard and Weights & Biases are measured where they are installed: pip install tensorboard wandb. What they do in threads and
processes of their own is in neither clock, unless it holds the training up.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import evengrad as eg

RESULTS = Path(__file__).parent / "results" / "overhead.json"
Step = Callable[[], None]
CHUNK = 4  # steps of one turn


class Transformer(nn.Module):
    """Four encoder layers of 128 over 32 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, 128)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(128, 4, 512, batch_first=True), 4, enable_nested_tensor=False)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class Residual(nn.Module):
    """Two convolutions with batch norm, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norms[0](self.first(x)).relu()
        return (self.norms[1](self.second(h)) + self.shortcut(x)).relu()


def mlp() -> nn.Module:
    sizes = [784, 512, 512, 512, 512, 512, 10]
    parts = [p for a, b in itertools.pairwise(sizes) for p in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def cnn() -> nn.Module:
    """ResNet-18 with 16 channels at first, for images of 32 x 32."""
    widths = [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *(Residual(*w) for w in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], int]] = {
    "mlp": (mlp, lambda: torch.randn(128, 784), 60),
    "cnn": (cnn, lambda: torch.randn(32, 3, 32, 32), 12),
    "transformer": (Transformer, lambda: torch.randint(0, 256, (32, 32)), 20),
}


def bare(model: nn.Module, optimizer: torch.optim.Optimizer, _: Path) -> Callable[[Tensor], None]:
    return lambda loss: None


def watched(**options: Any) -> Callable[..., Callable[[Tensor], None]]:
    def attach(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> Callable[[Tensor], None]:
        monitor = eg.watch(model, optimizer, **({"store": folder} if options.pop("stored", False) else {}), **options)

        def observe(loss: Tensor) -> None:
            monitor.observe(loss=loss)

        observe.monitor = monitor  # type: ignore[attr-defined]
        return observe

    return attach


def fused_norm(model: nn.Module, optimizer: torch.optim.Optimizer, _: Path) -> Callable[[Tensor], None]:
    """The cheapest guard there is: one fused norm of all gradients, read at every step."""
    norms: list[float] = []

    def step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        norms.append(float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm([p.grad for p in model.parameters()])))))

    optimizer.register_step_pre_hook(step)
    return lambda loss: None


def tensorboard(every: int) -> Callable[..., Callable[[Tensor], None]]:
    """Histograms of every weight and gradient, as the articles do."""

    def attach(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> Callable[[Tensor], None]:
        from torch.utils.tensorboard import SummaryWriter

        writer, count = SummaryWriter(str(folder)), 0

        def step(loss: Tensor) -> None:
            nonlocal count
            writer.add_scalar("loss", loss.item(), count)
            if count % every == 0:
                for name, p in model.named_parameters():
                    writer.add_histogram(f"weights/{name}", p, count)
                    writer.add_histogram(f"gradients/{name}", p.grad, count)
            count += 1

        return step

    return attach


def wandb(every: int) -> Callable[..., Callable[[Tensor], None]]:
    """`wandb.watch(log="all")`, offline."""

    def attach(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> Callable[[Tensor], None]:
        import wandb as library

        run = library.init(mode="offline", dir=str(folder), project="overhead", settings=library.Settings(silent=True, console="off"))
        library.watch(model, log="all", log_freq=every)
        return lambda loss: run.log({"loss": loss.item()})

    return attach


def variants() -> dict[str, Callable[..., Callable[[Tensor], None]]]:
    """Everything that is installed; others log at the same cadence as ours takes on average: every 14 steps."""
    found = {
        "bare": bare,
        "bare again (control)": bare,
        "evengrad": watched(),
        "evengrad, into a file": watched(stored=True),
        "evengrad, parameters at every step": watched(every=eg.Cadence(parameters=1, layers=10**9)),
        "evengrad, everything at every step": watched(every=1),
        "fused norm at every step": fused_norm,
    }
    if importlib.util.find_spec("tensorboard"):
        found["TensorBoard histograms, every 14 steps"] = tensorboard(14)
        found["TensorBoard histograms, every step"] = tensorboard(1)
    if importlib.util.find_spec("wandb"):
        found["wandb.watch(log='all'), every 14 steps"] = wandb(14)
    return found


def measure(name: str, rounds: int, clock: Callable[[], float], seed: int = 0) -> dict[str, Any]:
    """Times all variants of one model in interleaved blocks."""
    build, inputs, block = MODELS[name]
    order, times, monitors = random.Random(seed), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        steps: dict[str, Step] = {}
        for number, (variant, attach) in enumerate(variants().items()):
            torch.manual_seed(seed)
            model = build()
            optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
            told = attach(model, optimizer, Path(folder) / str(number))
            monitors[variant] = getattr(told, "monitor", None)
            steps[variant] = step_of(model, optimizer, inputs(), told)
            times[variant] = []
        for step in steps.values():  # warm up: the first steps are dense
            for _ in range(60 if name == "mlp" else 30):
                step()
        for _ in range(rounds):
            sums = dict.fromkeys(steps, 0.0)
            for _ in range(block // CHUNK):
                for variant in order.sample(list(steps), len(steps)):
                    steps[variant]()  # what was another's turn is gone from the caches
                    began = clock()
                    for _ in range(CHUNK):
                        steps[variant]()
                    sums[variant] += clock() - began
            for variant, seconds in sums.items():
                times[variant].append(seconds / block)
        for monitor in monitors.values():
            if monitor is not None:
                monitor.detach()
    table = {}
    for variant, own in times.items():
        ratios = [a / b for a, b in zip(own, times["bare"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        table[variant] = {"ratio": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}
        table[variant] |= {"milliseconds_a_step": round(1000 * statistics.median(own), 3)}
    return table


def alone(name: str, steps: int) -> dict[str, Any]:
    """A watched run of its own at the default cadence: what the monitor says that it cost, and what it holds."""
    build, inputs, _ = MODELS[name]
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    monitor = eg.watch(model, optimizer)
    step = step_of(model, optimizer, inputs(), lambda loss: monitor.observe(loss=loss))
    for _ in range(steps):
        step()
    trace = monitor.trace
    held = sum(c.nbytes for c in trace.columns.values()) + sum(c.steps.nbytes + c.values.nbytes for c in trace.curves.values())
    looked = int(np.isfinite(trace.column("out_spread")).any(1).sum())
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    return {
        "steps": steps,
        "own_share": round(monitor.overhead, 4),
        "steps_looked_into": len(trace.steps),
        "with_layers": looked,
        "norms": len(trace.curves["grad_norm"].steps),
        "bytes_held": held,
        "allowed_bytes": max(parameters // 100, 32 * 1024 * len(trace.layers)),
    }


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, told: Callable[[Tensor], None]) -> Step:
    y = torch.arange(len(x)) % 10

    def step() -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        told(loss)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processor", action="store_true", help="count the thread's processor seconds in place of the clock's")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = {}
    for name in args.models:
        found[name] = measure(name, args.rounds, time.thread_time if args.processor else time.perf_counter)
        found[name]["evengrad"] |= {"alone": [alone(name, steps) for steps in ((1000, 5000) if name == "mlp" else (1000,))]}
        for variant, row in found[name].items():
            print(f"{name:<12} {variant:<42} {row}", flush=True)
    command = f"python -m benchmarks.overhead --rounds {args.rounds}{' --processor' * args.processor}"
    about = {"command": command, "rounds": args.rounds, "threads": args.threads, "torch": torch.__version__}
    args.output.write_text(json.dumps(about | {"load": os.getloadavg()[0], "models": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
