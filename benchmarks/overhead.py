"""What watching costs: the same training bare and watched, in turns, beside what others log.

    python -m benchmarks.overhead                    # writes benchmarks/results/overhead.json
    python -m benchmarks.overhead --rounds 9 --models mlp
    python -m benchmarks.overhead --processor        # on a machine that is not quiet: processor seconds of the training's own thread

A round is three processes: ours as it is by default, ours at every step, and others, each beside a bare training. In a process every
variant owns a copy of the model and optimizer, built in random order, since where a network lies in memory makes it some percent faster
or slower, and all take turns of a few steps; the control is a second bare one. A ratio is the median over rounds of a variant's seconds
by those of the bare one in its process; beside it are the quartiles.
Turns begin where the default cadence looks into one step of seventeen, as it does on average over the first 1,000. Own share is what the
monitor itself counts in runs of their own, each a process, of 1,000 steps (the MLP's also of 5,000); memory is what it holds at the end.
TensorBoard and Weights & Biases are measured where they are installed: pip install tensorboard wandb. What they do in threads and
processes of their own is in neither clock, unless it holds the training up.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import multiprocessing
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
OTHERS = 16  # steps between two logs of others: ours looks into 60 of the first 1,000


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


# network, inputs, steps before the turns, steps timed in them: multiples of 64, of which others' logs are one in sixteen
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], int, int]] = {
    "mlp": (mlp, lambda: torch.randn(128, 784), 100, 128),
    "cnn": (cnn, lambda: torch.randn(32, 3, 32, 32), 120, 64),
    "transformer": (Transformer, lambda: torch.randint(0, 256, (32, 32)), 120, 64),
}
ALONE = {"mlp": (1000, 1000, 1000, 5000), "cnn": (1000,), "transformer": (1000,)}


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


def processes() -> list[dict[str, Callable[..., Callable[[Tensor], None]]]]:
    """What is measured in each process of a round: everything that is installed. Others log at the same cadence as ours."""
    others = {}
    if importlib.util.find_spec("tensorboard"):
        others[f"TensorBoard histograms, every {OTHERS} steps"] = tensorboard(OTHERS)
    if importlib.util.find_spec("wandb"):
        others[f"wandb.watch(log='all'), every {OTHERS} steps"] = wandb(OTHERS)
    return [
        {"bare": bare, "bare again (control)": bare, "evengrad": watched(), "evengrad, into a file": watched(stored=True)},
        {
            "bare": bare,
            "evengrad, parameters at every step": watched(every=eg.Cadence(parameters=1, layers=10**9)),
            "evengrad, everything at every step": watched(every=1),
            "fused norm at every step": fused_norm,
        },
        {"bare": bare} | others,
    ]


def in_turns(name: str, number: int, seed: int, threads: int, processor: bool) -> dict[str, float]:
    """Seconds a step of one model's variants in one process of a round."""
    torch.set_num_threads(threads)
    clock = time.thread_time if processor else time.perf_counter
    build, inputs, before, block = MODELS[name]
    order, monitors = random.Random(seed), []
    with tempfile.TemporaryDirectory() as folder:
        steps: dict[str, Step] = {}
        known = list(processes()[number].items())
        for variant, attach in order.sample(known, len(known)):
            torch.manual_seed(seed)
            model = build()
            optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
            told = attach(model, optimizer, Path(folder) / str(len(steps)))
            steps[variant] = step_of(model, optimizer, inputs(), told)
            monitors.append(getattr(told, "monitor", None))
            for _ in range(before if variant in ("evengrad", "evengrad, into a file") else OTHERS):
                steps[variant]()
        sums = dict.fromkeys(steps, 0.0)
        for _ in range(block // CHUNK):
            for variant in order.sample(list(steps), len(steps)):
                steps[variant]()  # not timed: what was another's turn is gone from the caches
                began = clock()
                for _ in range(CHUNK):
                    steps[variant]()
                sums[variant] += clock() - began
        for monitor in monitors:
            if monitor is not None:
                monitor.detach()
    return {variant: seconds / block for variant, seconds in sums.items()}


def table(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Ratio to the bare one, its quartiles and milliseconds a step of every variant, from the same process of several rounds."""
    found = {}
    for variant in rounds[0]:
        ratios = [one[variant] / one["bare"] for one in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        found[variant] = {"ratio": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}
        found[variant] |= {"milliseconds_a_step": round(1000 * statistics.median(one[variant] for one in rounds), 3)}
    return found


def alone(name: str, steps: int, threads: int = 1) -> dict[str, Any]:
    """A watched run of its own at the default cadence: what the monitor says that it cost, and what it holds."""
    torch.set_num_threads(threads)
    build, inputs, *_ = MODELS[name]
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    monitor = eg.watch(model, optimizer)
    step = step_of(model, optimizer, inputs(), lambda loss: monitor.observe(loss=loss))
    began = time.perf_counter()
    for _ in range(steps):
        step()
    seconds, share = time.perf_counter() - began, monitor.overhead
    trace = monitor.trace
    held = sum(c.nbytes for c in trace.columns.values()) + sum(c.steps.nbytes + c.values.nbytes for c in trace.curves.values())
    looked = int(np.isfinite(trace.column("out_spread")).any(1).sum())
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    return {
        "steps": steps,
        "own_share": round(share, 4),
        "milliseconds_a_step": round(1000 * seconds / steps, 2),
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
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processor", action="store_true", help="count the thread's processor seconds in place of the clock's")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    command = f"python -m benchmarks.overhead --rounds {args.rounds}{' --processor' * args.processor}"
    about = {"threads": args.threads, "torch": torch.__version__, "models": {}}
    if args.output.exists():
        about["models"] = json.loads(args.output.read_text())["models"]  # of models that are not asked for
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as process:
        for name in args.models:
            numbers = range(len(processes()))
            rounds = [
                [process.apply(in_turns, (name, number, seed, args.threads, args.processor)) for number in numbers]
                for seed in range(args.rounds)
            ]
            tables = [table([one[number] for one in rounds]) for number in numbers]
            found = {variant: each[variant] for one, each in zip(processes(), tables, strict=True) for variant in one}
            found["bare"] = tables[0]["bare"]
            found["evengrad"] |= {"alone": [process.apply(alone, (name, steps, args.threads)) for steps in ALONE[name]]}
            about["models"][name] = {"command": f"{command} --models {name}", "load": os.getloadavg()[0], "variants": found}
            args.output.write_text(json.dumps(about, indent=1) + "\n")
            for variant, row in found.items():
                print(f"{name:<12} {variant:<42} {row}", flush=True)


if __name__ == "__main__":
    main()
