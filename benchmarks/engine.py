"""How many training steps a second the engine takes for K networks trained as one, beside other ways to do the same work in one run.

    python -m benchmarks.engine                          # writes benchmarks/results/engine.json
    python -m benchmarks.engine --rounds 5 --runs 1 100

The work: K independent 2-5-5-5-5-5-1 ReLU networks on two circles (500 points, drawn anew each epoch for each network), batch 32, SGD with
momentum, binary cross-entropy; one thread. A model-step is one step of one network. Every contender runs in a process of its own, in turns;
compiling and building are left out of the rate. JAX and Keras are measured where they are installed: pip install jax keras.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "engine.json"
SIZES = [2, 5, 5, 5, 5, 5, 1]
SAMPLES, BATCH, RATE, MOMENTUM = 500, 32, 0.01, 0.9
STEPS = math.ceil(SAMPLES / BATCH)  # an epoch
Epochs = Callable[[int], None]  # trains all networks for so many epochs


def evengrad_engine(count: int, record: int = 0) -> Epochs:
    """Ours; `record` is the number of steps between records of every layer's gradient."""
    from evengrad.lab.data import load
    from evengrad.lab.engine.fit import fit
    from evengrad.lab.engine.losses import LOSSES
    from evengrad.lab.engine.optimizers import SGD
    from evengrad.lab.engine.plan import Plan, Samples
    from evengrad.lab.engine.runs import Runs
    from evengrad.lab.models import mlp

    split = load("two_circles")
    runs = Runs([mlp(SIZES, "relu", "he_uniform", seed=k) for k in range(count)])
    samples = Samples(x=split.x_train, y=split.y_train)
    optimizers = (SGD(lr=RATE, momentum=MOMENTUM),) * count

    def train(epochs: int) -> None:
        how = {"loss": LOSSES["bce"], "optimizers": optimizers, "seeds": tuple(range(count)), "epochs": epochs, "batch_size": BATCH}
        fit(runs, samples, Plan(**how, record_every=record))

    return train


def evengrad_recorded(count: int) -> Epochs:
    """Ours, with the gradient of every layer of every run recorded at every step."""
    return evengrad_engine(count, record=1)


def torch_loop(count: int) -> Epochs:
    """One network after the other, plain torch."""
    import torch

    from evengrad.lab.data import load
    from evengrad.lab.models import mlp

    split = load("two_circles")
    x, y = split.x_train, split.y_train.float()[:, None]
    networks = [mlp(SIZES, "relu", "he_uniform", seed=k) for k in range(min(count, 4))]  # the rate does not depend on how many follow
    loss_fn = torch.nn.BCEWithLogitsLoss()
    steppers = [torch.optim.SGD(n.parameters(), RATE, MOMENTUM) for n in networks]

    def train(epochs: int) -> None:
        for network, optimizer in zip(networks, steppers, strict=True):
            for _ in range(epochs):
                for places in torch.randperm(SAMPLES).split(BATCH):
                    optimizer.zero_grad()
                    loss_fn(network(x[places]), y[places]).backward()
                    optimizer.step()

    train.networks = len(networks)  # type: ignore[attr-defined]
    return train


def torch_vmap(count: int) -> Epochs:
    """torch.func: vmap over the gradient of the stacked networks."""
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap

    from evengrad.lab.data import load
    from evengrad.lab.models import mlp

    split = load("two_circles")
    x, y = split.x_train, split.y_train.float()[:, None]
    networks = [mlp(SIZES, "relu", "he_uniform", seed=k) for k in range(count)]
    weights, _ = stack_module_state(networks)  # type: ignore[arg-type]
    weights = {k: v.detach() for k, v in weights.items()}
    speed = {k: torch.zeros_like(v) for k, v in weights.items()}

    def loss(w: dict[str, torch.Tensor], xb: torch.Tensor, yb: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(functional_call(networks[0], w, (xb,)), yb)

    slopes = vmap(grad(loss))

    def train(epochs: int) -> None:
        for _ in range(epochs):
            order = torch.stack([torch.randperm(SAMPLES) for _ in range(count)])
            for places in order.split(BATCH, dim=1):
                found = slopes(weights, x[places], y[places])
                for name, w in weights.items():
                    speed[name].mul_(MOMENTUM).add_(found[name])
                    w.sub_(speed[name], alpha=RATE)

    return train


def jax_scan(count: int) -> Epochs:
    """JAX: jit of a scan over the steps of an epoch, vmapped over networks."""
    import jax
    import numpy as np
    from jax import numpy as jnp

    from evengrad.lab.data import load
    from evengrad.lab.models import mlp

    split = load("two_circles")
    x, y = jnp.asarray(split.x_train.numpy()), jnp.asarray(split.y_train.numpy(), jnp.float32)[:, None]
    networks = [mlp(SIZES, "relu", "he_uniform", seed=k) for k in range(count)]
    weights = [jnp.asarray(np.stack(p)) for p in zip(*[[q.detach().numpy() for q in n.parameters()] for n in networks], strict=True)]

    def loss(w: Any, xb: Any, yb: Any) -> Any:
        h = xb
        for i in range(0, len(w), 2):
            h = h @ w[i].T + w[i + 1]
            h = jax.nn.relu(h) if i < len(w) - 2 else h
        return jnp.mean(jnp.maximum(h, 0) - h * yb + jnp.log1p(jnp.exp(-jnp.abs(h))))

    def step(state: Any, places: Any) -> Any:
        w, v = state
        found = jax.grad(loss)(w, x[places], y[places])
        v = [MOMENTUM * a + g for a, g in zip(v, found, strict=True)]
        return ([a - RATE * b for a, b in zip(w, v, strict=True)], v), None

    def epoch(state: Any, key: Any) -> Any:
        order = jax.random.permutation(key, SAMPLES)
        whole = SAMPLES // BATCH * BATCH
        state, _ = jax.lax.scan(step, state, order[:whole].reshape(-1, BATCH))
        return step(state, order[whole:])[0]  # the last, smaller batch

    run = jax.jit(jax.vmap(epoch))
    state = [(weights, [jnp.zeros_like(w) for w in weights])]
    keys = [jax.random.key(0)]

    def train(epochs: int) -> None:
        for _ in range(epochs):
            keys[0], now = jax.random.split(keys[0])
            state[0] = run(state[0], jax.random.split(now, count))
        jax.block_until_ready(state[0])

    return train


def keras_torch_fit(count: int) -> Epochs:
    """Keras 3 on torch: `model.fit`, one network after the other."""
    import keras

    from evengrad.lab.data import load

    split = load("two_circles")
    x, y = split.x_train.numpy(), split.y_train.numpy()
    hidden = [keras.layers.Dense(n, activation="relu", kernel_initializer="he_uniform") for n in SIZES[1:-1]]
    network = keras.Sequential([keras.layers.Input((2,)), *hidden, keras.layers.Dense(1, activation="sigmoid")])
    network.compile(loss="binary_crossentropy", optimizer=keras.optimizers.SGD(RATE, MOMENTUM))

    def train(epochs: int) -> None:
        network.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)

    train.networks = 1  # type: ignore[attr-defined]
    return train


CONTENDERS: dict[str, tuple[Callable[[int], Epochs], str]] = {  # what builds it, what must be installed
    "evengrad": (evengrad_engine, "torch"),
    "evengrad, gradients recorded at every step": (evengrad_recorded, "torch"),
    "torch.func vmap": (torch_vmap, "torch"),
    "JAX vmap, scan, jit": (jax_scan, "jax"),
    "torch loop": (torch_loop, "torch"),
    "Keras on torch, fit": (keras_torch_fit, "keras"),
}
ONE_BY_ONE = {"torch loop", "Keras on torch, fit"}  # their rate does not depend on the number of networks: measured once a round


def rate(name: str, count: int, seconds: float) -> dict[str, float]:
    """Trains for about so long and returns model-steps a second, and the seconds before the first epoch was done."""
    started = time.perf_counter()
    train = CONTENDERS[name][0](count)
    networks = getattr(train, "networks", count)
    train(1)
    first = time.perf_counter() - started
    epochs, taken = 1, 0.0
    while taken < seconds:
        started = time.perf_counter()
        train(epochs)
        taken = time.perf_counter() - started
        done = networks * epochs * STEPS / taken
        epochs = max(epochs + 1, int(epochs * min(8.0, 1.2 * seconds / taken)))
    return {"model_steps_per_second": done, "first_epoch_seconds": first}


def apart(name: str, count: int, seconds: float) -> dict[str, float]:
    """`rate` in a process of its own, with one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    xla = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "KERAS_BACKEND": "torch"}
    command = [sys.executable, "-m", "benchmarks.engine", "--one", name, "--runs", str(count), "--seconds", str(seconds)]
    pinned = ["taskset", "-c", "0", *command] if Path("/usr/bin/taskset").exists() else command
    done = subprocess.run(pinned, env=os.environ | one | xla, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(rate(args.one, args.runs[0], args.seconds)))
        return
    here = [name for name, (_, needs) in CONTENDERS.items() if importlib.util.find_spec(needs)]
    table: dict[str, dict[str, Any]] = {}
    alone = [{name: apart(name, 1, args.seconds) for name in here if name in ONE_BY_ONE} for _ in range(args.rounds)]
    for count in args.runs:
        rounds = [{name: apart(name, count, args.seconds) for name in here if name not in ONE_BY_ONE} | once for once in alone]
        for name in here:
            rates = [r[name]["model_steps_per_second"] for r in rounds]
            ours = [r["evengrad"]["model_steps_per_second"] for r in rounds]
            table.setdefault(name, {})[str(count)] = {
                "model_steps_per_second": round(statistics.median(rates)),
                "evengrad_is_faster_by": round(statistics.median(o / r for o, r in zip(ours, rates, strict=True)), 2),
                "first_epoch_seconds": round(statistics.median(r[name]["first_epoch_seconds"] for r in rounds), 2),
            }
            print(f"{count:>5}  {name:<45} {table[name][str(count)]}", flush=True)
    import torch

    command = f"python -m benchmarks.engine --rounds {args.rounds} --seconds {args.seconds:g}"
    found = {"command": command, "rounds": args.rounds, "torch": torch.__version__, "load": os.getloadavg()[0]}
    args.output.write_text(json.dumps(found | {"contenders": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
