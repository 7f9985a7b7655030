"""a perceptron, a framework -> the same training there, and model-steps a second of processor time.

python -m evengrad.lab.frameworks keras "digits 64-64" 1 0 1.0
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evengrad.errors import EvengradError, InputError, unknown
from evengrad.lab.data import Split, load
from evengrad.lab.engine.evaluate import evaluate
from evengrad.lab.engine.fit import fit
from evengrad.lab.engine.losses import runs_loss
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.engine.plan import Plan, Samples
from evengrad.lab.engine.runs import Runs
from evengrad.lab.models import MLP

BATCH, RATE, MOMENTUM = 32, 0.01, 0.9
LEARNING = 10  # epochs before the clock starts: what is done once is done, and the loss can be compared


@dataclass(frozen=True)
class Trainer:
    """A training in some framework.

    Attributes:
        train: Trains every network for so many epochs.
        loss: Returns the first network's mean loss over the training samples.
    """

    train: Callable[[int], object]
    loss: Callable[[], float]


@dataclass(frozen=True)
class Work:
    """What is trained: a ReLU perceptron (Glorot uniform), batches of 32 drawn anew each epoch, SGD 0.01 with momentum 0.9.

    Attributes:
        split: The data; two classes are told by one logit, more by one each.
        hidden: Units of the hidden layers.
    """

    split: Split
    hidden: tuple[int, ...]

    @staticmethod
    def parsed(text: str) -> Work:
        """Reads `digits 64-64`: a data set of vectors, and the units of the hidden layers.

        Raises:
            UnknownNameError: if there is no such data set.
            InputError: if the text is not of that form.
        """
        match text.split():
            case [data, units] if all(part.isdigit() for part in units.split("-")):
                return Work(load(data), tuple(map(int, units.split("-"))))
        raise InputError(f"work is written as a data set and the units of hidden layers, such as 'digits 64-64'; got {text!r}")

    @property
    def outputs(self) -> int:
        """Logits."""
        return 1 if len(self.split.classes) == 2 else len(self.split.classes)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.split.x_train) // BATCH)

    def network(self, seed: int) -> torch.nn.Sequential:
        """Returns the perceptron in torch."""
        features = self.split.x_train.shape[1]
        return MLP(inputs=features, outputs=self.outputs, widths=self.hidden, initialiser="glorot_uniform").build(seed)


def evengrad_engine(work: Work, networks: int, seed: int) -> Trainer:
    """Ours, all networks as one."""
    samples = Samples(x=work.split.x_train, y=work.split.y_train)
    seeds = tuple(range(seed * networks, (seed + 1) * networks))
    runs, loss = Runs([work.network(s) for s in seeds]), runs_loss("auto", samples.y, work.outputs)
    optimizers = (SGD(lr=RATE, momentum=MOMENTUM),) * networks

    def train(epochs: int) -> None:
        fit(runs, samples, Plan(loss=loss, optimizers=optimizers, seeds=seeds, epochs=epochs, batch_size=BATCH))

    return Trainer(train, lambda: float(evaluate(runs, samples, loss)["loss"][0]))


def torch_loop(work: Work, networks: int, seed: int) -> Trainer:
    """Plain torch, one network after the other."""
    x, y = work.split.train
    targets = y.float()[:, None] if work.outputs == 1 else y
    loss_fn = torch.nn.BCEWithLogitsLoss() if work.outputs == 1 else torch.nn.CrossEntropyLoss()
    modules = [work.network(seed * networks + k) for k in range(networks)]
    optimizers = [torch.optim.SGD(module.parameters(), RATE, MOMENTUM) for module in modules]
    generator = torch.Generator().manual_seed(seed)

    def train(epochs: int) -> None:
        for module, optimizer in zip(modules, optimizers, strict=True):
            for _ in range(epochs):
                for places in torch.randperm(len(x), generator=generator).split(BATCH):
                    optimizer.zero_grad()
                    loss_fn(module(x[places]), targets[places]).backward()
                    optimizer.step()

    return Trainer(train, lambda: _mean_loss(modules[0](x).detach(), y))


def keras_fit(work: Work, networks: int, seed: int) -> Trainer:
    """Keras 3: `model.fit`, one network after the other."""
    keras = importlib.import_module("keras")
    keras.utils.set_random_seed(seed)
    x, y = (part.numpy() for part in work.split.train)
    kind = keras.losses.BinaryCrossentropy if work.outputs == 1 else keras.losses.SparseCategoricalCrossentropy

    def model() -> Any:
        hidden = [keras.layers.Dense(units, activation="relu") for units in work.hidden]  # Glorot uniform is its default
        built = keras.Sequential([keras.layers.Input((x.shape[1],)), *hidden, keras.layers.Dense(work.outputs)])
        built.compile(loss=kind(from_logits=True), optimizer=keras.optimizers.SGD(RATE, MOMENTUM))
        return built

    models = [model() for _ in range(networks)]

    def train(epochs: int) -> None:
        for one in models:
            one.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)

    return Trainer(train, lambda: _mean_loss(torch.from_numpy(models[0].predict(x, verbose=0)), work.split.y_train))


def sklearn_fit(work: Work, networks: int, seed: int) -> Trainer:
    """scikit-learn: `MLPClassifier.fit`, one network after the other."""
    network = importlib.import_module("sklearn.neural_network")
    x, y = (part.numpy() for part in work.split.train)
    how: dict[str, Any] = {"solver": "sgd", "alpha": 0.0, "batch_size": BATCH, "learning_rate_init": RATE, "momentum": MOMENTUM}
    how |= {"nesterovs_momentum": False, "warm_start": True, "tol": 0.0, "n_iter_no_change": 10**9}
    models = [network.MLPClassifier(work.hidden, random_state=seed * networks + k, **how) for k in range(networks)]

    def train(epochs: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that it ends where it is told to
            for one in models:
                one.set_params(max_iter=epochs).fit(x, y)

    return Trainer(train, lambda: float(-np.log(models[0].predict_proba(x)[np.arange(len(y)), y]).mean()))


FRAMEWORKS: dict[str, tuple[Callable[[Work, int, int], Trainer], str]] = {  # name -> (how, the package that it takes)
    "evengrad": (evengrad_engine, "torch"),
    "torch": (torch_loop, "torch"),
    "keras": (keras_fit, "keras"),
    "scikit-learn": (sklearn_fit, "sklearn"),
}


def installed(framework: str) -> bool:
    """Whether a framework is there.

    Raises:
        UnknownNameError: if it is none of `FRAMEWORKS`.
    """
    if framework not in FRAMEWORKS:
        raise unknown("framework", framework, FRAMEWORKS)
    return importlib.util.find_spec(FRAMEWORKS[framework][1]) is not None


def measure(framework: str, work: Work, networks: int, seed: int, seconds: float) -> dict[str, float]:
    """Trains for some epochs, then for about so long on the clock.

    Returns:
        `loss` of the first network after the first epochs, `model_steps_per_second` of processor time (a model-step is one step of one
        network), and `start_seconds` until the first epoch was done.
    """
    started = time.process_time()
    trainer = FRAMEWORKS[framework][0](work, networks, seed)
    trainer.train(1)
    start = time.process_time() - started
    trainer.train(LEARNING - 1)
    loss, epochs, taken = trainer.loss(), 1, 0.0
    while taken < seconds:
        started = time.process_time()
        trainer.train(epochs)
        taken = time.process_time() - started
        rate = networks * epochs * work.steps / taken
        epochs = max(epochs + 1, int(epochs * min(8.0, 1.2 * seconds / taken)))
    return {"loss": loss, "model_steps_per_second": rate, "start_seconds": start}


def measure_apart(framework: str, work: str, networks: int, seed: int, seconds: float) -> dict[str, float]:
    """`measure` in a process of its own, with one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-m", __name__, framework, work, str(networks), str(seed), str(seconds)]
    done = subprocess.run(command, env={"KERAS_BACKEND": "torch", **os.environ, **one}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EvengradError(f"{framework} failed at {work!r}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _mean_loss(logits: Tensor, y: Tensor) -> float:
    return float(runs_loss("auto", y, logits.shape[-1]).mean(logits[None], y[None]))


if __name__ == "__main__":
    name, text, count, number, limit = sys.argv[1:]
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(measure(name, Work.parsed(text), int(count), int(number), float(limit))) + "\n")
