"""network as data, seeds -> trained networks: all layers at once, or grown layer by layer and then fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt
from torch import Tensor, nn

from evengrad.lab.data import Split
from evengrad.lab.engine.evaluate import evaluate
from evengrad.lab.engine.fit import fit
from evengrad.lab.engine.losses import LOSSES
from evengrad.lab.engine.optimizers import Optimizer
from evengrad.lab.engine.plan import Plan, Samples
from evengrad.lab.engine.runs import Runs
from evengrad.lab.models import MLP
from evengrad.lab.models.greedy import grow, hidden_state, stages

Array = npt.NDArray[Any]
Networks = Sequence[nn.Module]


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A classifier's runs, trained together, each way with the same number of steps; layers start from the same weights each way.

    Attributes:
        net: The deep network; its inputs are one number of features.
        data: What it learns.
        seeds: One a run: weights and order of samples.
        optimizers: One a run.
        epochs: Passes over the data for each layer.
        tuning: Passes with all layers at the end.
        batch_size: Samples a step.
        stages: Test accuracy (runs,) after each layer was added.

    Reference: Bengio, Lamblin, Popovici & Larochelle 2007, Greedy layer-wise training of deep networks.
    """

    net: MLP
    data: Split
    seeds: tuple[int, ...]
    optimizers: tuple[Optimizer, ...]
    epochs: int
    tuning: int
    batch_size: int = 32
    stages: list[Array] = field(default_factory=list)

    def at_once(self) -> Networks:
        """Trains all layers together."""
        return self._classifiers([self.net.build(seed) for seed in self.seeds], self.net.depth * self.epochs + self.tuning)

    def supervised(self) -> Networks:
        """Adds a layer at a time under the head and trains these two towards the labels; then all layers."""
        trained: Networks = []
        for net in stages(self.net):
            trained = self._classifiers(self._deeper(net, trained), self.epochs, _hidden(trained))
            self.stages.append(self.accuracy(trained, *self.data.test))
        return self._classifiers(trained, self.tuning)

    def autoencoder(self) -> Networks:
        """Adds a layer at a time under a decoder and trains these two towards the network's inputs; then all layers under a new head.

        After each stage a head is trained on top, to see what the layers are worth; that is no part of the training.
        """
        coders: Networks = []
        for net in stages(self.net):
            coders = self._coders(self._deeper(replace(net, outputs=self.data.x_train.shape[1]), coders), _hidden(coders))
            heads = self._classifiers(self._grown(net, coders), self.epochs, _hidden(coders))
            self.stages.append(self.accuracy(heads, *self.data.test))
        return self._classifiers(self._grown(self.net, coders), self.tuning)

    def accuracy(self, networks: Networks, x: Tensor, y: Tensor) -> Array:
        """Returns the share of right answers of each run (runs,)."""
        found = evaluate(Runs(networks), Samples(x=x, y=y), LOSSES["cross_entropy"])["accuracy"]
        return found.numpy()

    def _deeper(self, net: MLP, trained: Networks) -> Networks:
        """One more layer, new, under the head of before; at first all is new."""
        if not trained:
            return [net.build(seed) for seed in self.seeds]
        deeper = self._grown(net, trained)
        for new, old in zip(deeper, trained, strict=True):
            _head(new).load_state_dict(_head(old).state_dict())
        return deeper

    def _grown(self, net: MLP, trained: Networks) -> Networks:
        return [grow(net, network, seed) for network, seed in zip(trained, self.seeds, strict=True)]

    def _classifiers(self, networks: Networks, epochs: int, resting: tuple[str, ...] = ()) -> Networks:
        plan = Plan(
            loss=LOSSES["cross_entropy"],
            optimizers=self.optimizers,
            seeds=self.seeds,
            epochs=epochs,
            batch_size=self.batch_size,
            frozen=resting,
        )
        return _fitted(networks, Samples(x=self.data.x_train, y=self.data.y_train), plan)

    def _coders(self, networks: Networks, resting: tuple[str, ...]) -> Networks:
        """Half the squared distance is what falls: the mean over features, at a rate that makes up for it."""
        x = self.data.x_train
        rates = tuple(replace(o, lr=o.lr * x.shape[1] / 2) for o in self.optimizers)
        plan = Plan(loss=LOSSES["mse"], optimizers=rates, seeds=self.seeds, epochs=self.epochs, batch_size=self.batch_size, frozen=resting)
        return _fitted(networks, Samples(x=x, y=x), plan)


def _fitted(networks: Networks, samples: Samples, plan: Plan) -> Networks:
    runs = Runs(networks)
    fit(runs, samples, plan)
    return [runs.network(k) for k in range(runs.count)]


def _hidden(trained: Networks) -> tuple[str, ...]:
    return tuple(hidden_state(trained[0])) if trained else ()


def _head(network: nn.Module) -> nn.Module:
    return list(network.children())[-1]
