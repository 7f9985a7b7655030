"""few labelled images, a method -> networks trained on them, the runs of several seeds at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.errors import unknown
from evengrad.lab.augmentation import jittered
from evengrad.lab.data import Split, few_index
from evengrad.lab.data.split import legacy_random
from evengrad.lab.engine.evaluate import evaluate
from evengrad.lab.engine.fit import Probe, fit
from evengrad.lab.engine.losses import LOSSES
from evengrad.lab.engine.optimizers import Optimizer
from evengrad.lab.engine.plan import Plan, Samples
from evengrad.lab.engine.runs import Runs
from evengrad.lab.models import MLP
from evengrad.lab.models.greedy import grow
from evengrad.lab.transfer import apart, discriminative, of_first_layers, pseudo_labels

METHODS = ("scratch", "augmented", "pseudo-labelled", "frozen", "first layer frozen", "fine-tuned", "discriminative")
TRANSFERRED = METHODS[3:]


@dataclass(frozen=True, kw_only=True)
class FewLabels:
    """Half of the classes of an image data set, drawn by each seed, of which some images have labels.

    Methods: `scratch` trains on the labelled images alone. `augmented` moves them and adds noise, anew at each epoch. `pseudo-labelled`
    trains on them for half of the steps, and then in rounds also on the other images of the classes, under the labels that the network
    gives them. The others start from a network trained on all images of the other classes, with a new head: `frozen` trains the head
    alone, `first layer frozen` all but that layer, `fine-tuned` everything, `discriminative` lower layers slower.

    Attributes:
        data: Flat, square images with as many of each class.
        seeds: One a run.
        widths: Units of the hidden layers (ReLU, He normal).
        steps: Steps on the new classes, whatever the method.
        pretraining: Passes over the other classes.
        optimizer: The optimizer.
        batch_size: Samples a step at most.
        rounds: How often the network labels anew.
        shift: Pixels that an image is moved by at most.
        noise: Standard deviation of the noise on pixels.
        ratio: Learning rate of a layer over that of the layer below.
    """

    data: Split
    seeds: tuple[int, ...]
    widths: tuple[int, ...]
    steps: int
    pretraining: int
    optimizer: Optimizer
    batch_size: int = 64
    rounds: int = 3
    shift: int = 1
    noise: float = 0.1
    ratio: float = 2.6

    def ends(self, method: str, labelled: int) -> list[dict[str, float]]:
        """Trains every seed by a method on `labelled` images; returns train_ and test_ accuracy and loss of each.

        Raises:
            UnknownNameError: if there is no such method.
        """
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        runs, drawn = Runs(self._start(method)), self._drawn(labelled)
        x, y = (taken(t, drawn) for t in self._new)
        samples, network = apart(x.clone(), y), runs.network(0)
        if method == "pseudo-labelled":
            self._fit(runs, samples, self.steps // 2)
            self._label(runs, x, y, drawn)
        elif method == "augmented":
            self._fit(runs, samples, self.steps, self._jitter(samples, x))
        else:
            resting = {"frozen": len(self.widths), "first layer frozen": 1}.get(method, 0)
            rates = discriminative(network, self.ratio) if method == "discriminative" else ()
            self._fit(runs, samples, self.steps, frozen=of_first_layers(network, resting), rates=rates)
        loss = LOSSES["cross_entropy"]
        found = evaluate(runs, apart(x, y), loss, "train_") | evaluate(runs, self._test, loss, "test_")
        return [{name: float(v[k]) for name, v in found.items()} for k in range(runs.count)]

    @cached_property
    def _rank(self) -> Tensor:
        """Each run's order of the classes (runs, classes): the first half is known, the second new."""
        return torch.stack([torch.from_numpy(legacy_random(seed).permutation(len(self.data.classes))) for seed in self.seeds])

    @cached_property
    def _new(self) -> tuple[Tensor, Tensor]:
        return self._half(*self.data.train, new=True)

    @cached_property
    def _test(self) -> Samples:
        return apart(*self._half(*self.data.test, new=True))

    def _half(self, x: Tensor, y: Tensor, *, new: bool) -> tuple[Tensor, Tensor]:
        """Each run's samples of one half of the classes, with targets from 0."""
        half = self._rank.shape[1] // 2
        ranks = self._rank[:, y]
        places = torch.stack([((r >= half) == new).nonzero()[:, 0] for r in ranks])
        return x[places], ranks.gather(1, places) - half * new

    @cached_property
    def _net(self) -> MLP:
        return MLP(inputs=self.data.x_train.shape[1], outputs=self._rank.shape[1] // 2, widths=self.widths, initialiser="he_normal")

    @cached_property
    def _trained(self) -> list[nn.Module]:
        """Networks that know the other classes."""
        runs, samples = Runs([self._net.build(seed) for seed in self.seeds]), apart(*self._half(*self.data.train, new=False))
        self._fit(runs, samples, self.pretraining * math.ceil(samples.count / self.batch_size))
        return [runs.network(k) for k in range(runs.count)]

    def _start(self, method: str) -> list[nn.Module]:
        if method not in TRANSFERRED:
            return [self._net.build(seed) for seed in self.seeds]
        return [grow(self._net, network, seed) for network, seed in zip(self._trained, self.seeds, strict=True)]

    def _drawn(self, labelled: int) -> Tensor:
        """Places of the labelled images among those of the new classes (runs, labelled)."""
        return torch.stack([torch.from_numpy(few_index(y, labelled, seed)) for y, seed in zip(self._new[1], self.seeds, strict=True)])

    def _fit(self, runs: Runs, samples: Samples, steps: int, probe: Probe | None = None, **options: Any) -> None:
        plan = Plan(
            loss=LOSSES["cross_entropy"],
            optimizers=(self.optimizer,) * runs.count,
            seeds=self.seeds,
            epochs=max(1, round(steps / math.ceil(samples.count / self.batch_size))),
            batch_size=self.batch_size,
            **options,
        )
        fit(runs, samples, plan, probe=probe)

    def _jitter(self, samples: Samples, x: Tensor) -> Probe:
        """Moves every run's images anew, before the first epoch and after each."""

        def probe(runs: Runs, epoch: int, step: int) -> None:
            for k, seed in enumerate(self.seeds):
                random = torch.Generator().manual_seed(seed * 1_000_003 + 500_000 + epoch)  # not the one that orders the epoch
                samples.x[samples.index[k]] = jittered(x[k], random, shift=self.shift, noise=self.noise)  # type: ignore[index]

        return probe

    def _label(self, runs: Runs, x: Tensor, y: Tensor, drawn: Tensor) -> None:
        """In rounds: labels images that have no label, then trains on as many of these as of the others."""
        steps = (self.steps - self.steps // 2) // self.rounds
        half = max(1, steps * self.batch_size // 2)
        bare = torch.ones(self._new[1].shape, dtype=torch.bool).scatter_(1, drawn, False)
        rest = bare.nonzero()[:, 1].view(runs.count, -1)
        for turn in range(self.rounds):
            order = [torch.randperm(rest.shape[1], generator=torch.Generator().manual_seed(s * 1_000_003 + turn)) for s in self.seeds]
            others = taken(self._new[0], rest.gather(1, torch.stack(order)[:, :half]))
            again = torch.arange(others.shape[1]) % x.shape[1]
            both = torch.cat((x[:, again], others), 1), torch.cat((y[:, again], pseudo_labels(runs, others)), 1)
            self._fit(runs, apart(*both), steps)


def taken(t: Tensor, places: Tensor) -> Tensor:
    """Returns each run's own places: t (runs, n, ...), places (runs, m)."""
    return t[torch.arange(len(t)).unsqueeze(1), places]
