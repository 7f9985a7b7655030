"""S13: what each of SELU's conditions is worth: all kept, then broken one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from evengrad.lab import figures
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.jobs import Data, Job, Trained, run_jobs
from evengrad.lab.models import ACTIVATIONS, MLP
from evengrad.lab.models.drawing import Drawer
from evengrad.lab.models.hashing import HashAlphaDropout, HashDropout, set_step
from evengrad.lab.study import Arm, Cell, Published, Row, Rows, Study
from evengrad.report.numbers import number, percent, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
SOURCE = "Klambauer et al. 2017, theorem 1: the fixed point"
HARMLESS = 0.02  # test accuracy: seven of the 360 test images
_KEPT = "nothing"
_DROPOUTS = ("alpha dropout", "plain dropout")
_PARTS = ("initialiser", "inputs and dropout", "structure", "activation")


@dataclass(frozen=True, kw_only=True)
class PlainDropout(MLP):
    """An MLP that drops units of SELU layers to zero, as if they were ReLU's."""

    kind: ClassVar[str] = "mlp with plain dropout"

    def drawn(self, draw: Drawer) -> nn.Sequential:
        network = super().drawn(draw)
        for i, part in enumerate(network):
            if isinstance(part, HashAlphaDropout):
                network[i] = HashDropout(self.dropout)
        return network


@dataclass(frozen=True, kw_only=True)
class SeluConditions(Study):
    """Self-normalising networks on scikit-learn's digits: plain dense SELU layers, LeCun's initialiser, standardised inputs.

    Each condition is broken alone. Every network is trained at each of a few learning rates, by SGD with momentum, and the one with the
    best training accuracy counts. Mean and variance are those of what each layer passes on, over units and 512 training images, before and
    after training. About five minutes on one core.

    Attributes:
        broken: `nothing`; `alpha dropout` (all conditions kept, with dropout) and `plain dropout`; `raw inputs` (pixels in [0, 1]); `skips`
            around every layer; `batch norm`, `layer norm`; another activation or initialiser by its name.
        depth: Hidden layers.
        lr: Learning rates to choose from.
        width: Units of a hidden layer.
        dropout: Share of units that is dropped in the two networks with dropout.
        epochs: Passes over the 1,437 training images.
        momentum: Momentum.
        batch_size: Samples a step.
    """

    name: ClassVar[str] = "selu-conditions"
    number: ClassVar[str] = "S13"
    question: ClassVar[str] = (
        "Which of SELU's conditions matter: what does breaking each one do to mean, variance and accuracy in deep networks?"
    )
    shown: ClassVar[tuple[str, ...]] = ("mean_start", "variance_start", "mean_end", "variance_end", "test_accuracy")
    published: ClassVar[tuple[Published, ...]] = (
        Published(arm={"broken": _KEPT}, value="mean_start", number=0, source=SOURCE),
        Published(arm={"broken": _KEPT}, value="variance_start", number=1, source=SOURCE),
    )

    broken: tuple[str, ...] = (
        *("nothing", "glorot_normal", "he_normal", "default", "raw inputs", "alpha dropout", "plain dropout"),
        *("skips", "batch norm", "layer norm", "elu", "relu", "tanh"),
    )
    depth: tuple[int, ...] = (8, 16, 32)
    lr: tuple[float, ...] = (0.01, 0.003, 0.001, 0.0003)
    width: int = 48
    dropout: float = 0.05
    epochs: int = 10
    momentum: float = 0.9
    batch_size: int = 32
    seeds: int = 5

    @classmethod
    def quick(cls) -> Self:
        """Four networks of six layers, one rate, two seeds, two epochs."""
        return cls(broken=("nothing", "he_normal", "plain dropout", "skips"), depth=(6,), lr=(0.01,), epochs=2, seeds=2)

    def arms(self) -> Sequence[Arm]:
        """What is broken x depth."""
        return [{"broken": broken, "depth": depth} for broken, depth in product(self.broken, self.depth)]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """All seeds of an arm are trained together."""
        return [[*cells[i : i + self.seeds]] for i in range(0, len(cells), self.seeds)]

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Trains every network at every rate."""
        jobs, rates = [self._job(c, lr) for c in cells for lr in self.lr], len(self.lr)
        trained = run_jobs(jobs, keep=True)
        return [self._row(c, trained[i * rates : (i + 1) * rates]) for i, c in enumerate(cells)]

    def _job(self, cell: Cell, lr: float) -> Job:
        return Job(
            net=self.network(**cell.arm),
            data=Data(name="digits", options=(("standardize", cell.arm["broken"] != "raw inputs"),)),
            optimizer=SGD(lr=lr, momentum=self.momentum),
            seed=cell.seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            evaluate_every=0,
            record=0,
        )

    def network(self, broken: str, depth: int) -> MLP:
        """Returns the network in which this is broken.

        Raises:
            UnknownNameError: if it is neither one of these conditions nor an activation or initialiser.
        """
        kind = PlainDropout if broken == "plain dropout" else MLP
        net = kind(inputs=64, outputs=10, depth=depth, width=self.width, activation="selu", initialiser="lecun_normal")
        match broken.split():
            case ["nothing"] | ["raw", "inputs"]:
                return net
            case ["skips"]:
                return replace(net, residual=True)
            case [norm, "norm"]:
                return replace(net, norm=norm)
            case [_, "dropout"]:
                return replace(net, dropout=self.dropout)
        return replace(net, activation=broken) if part_of(broken) == "activation" else replace(net, initialiser=broken)

    def _row(self, cell: Cell, trained: Sequence[Trained]) -> Row:
        best = max(trained, key=lambda t: t.values["train_accuracy"])
        assert best.network is not None  # asked for by keep
        x = best.job.data.split().x_train[:512]
        series = moments(best.job.net.build(cell.seed), x, cell.seed, "start") | moments(best.network, x, cell.seed, "end")
        values = {name: float(own[-1]) for name, own in series.items()}
        values |= {name: best.values[name] for name in ("train_accuracy", "test_accuracy")} | {"lr": best.job.optimizer.lr}
        return Row(cell.arm, cell.seed, values, series)

    def answer(self, rows: Rows) -> str:
        """The deepest networks, from the one that loses least to the one that loses most."""
        deep = max((arm["depth"] for arm in rows.arms()), default=0)
        found = {arm["broken"]: own for arm, own in rows.where(depth=deep).by_arm()}
        accuracy = {broken: own.median("test_accuracy") for broken, own in found.items()}
        ordered = sorted((b for b in found if b != _KEPT), key=lambda b: -accuracy[b])
        told = [f"{deep} layers, medians of {plural(self.seeds, 'seed')}; mean and variance are the last hidden layer's before training."]
        if _KEPT in found:
            told += [f"All conditions kept: {_told(found[_KEPT])} (fixed point: 0 and 1, Klambauer et al. 2017)."]
        if ordered:
            told += ["One broken or added: " + "; ".join(f"{broken} {_told(found[broken])}" for broken in ordered) + "."]
        if ordered and _KEPT in found:
            harmless = [b for b in ordered if accuracy[b] >= accuracy[_KEPT] - HARMLESS]
            worst = f"{ordered[-1]} ({number(accuracy[ordered[-1]])})"
            listed = ", ".join(harmless) or "none of them"
            told.insert(
                0,
                f"Of {number(accuracy[_KEPT])} test accuracy in {deep} layers most is lost with {worst}; at most {HARMLESS} with {listed}.",
            )
        if found.keys() >= {*_DROPOUTS}:
            told += [
                f"Alpha dropout keeps the variance, but at {percent(self.dropout)} only {percent(signal_kept(self.dropout))} of it is "
                f"the signal's behind each layer, against {percent(1 - self.dropout)} behind plain dropout."
            ]
        return "\n".join(told)

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Variance and mean by layer of the deepest networks, accuracy by depth; what is broken, part by part."""
        deep = max(arm["depth"] for arm in rows.arms())
        own, at = rows.where(depth=deep), f"of what each of {deep} layers passes on (0: the inputs)"
        return {
            f"Variance {at}, before training": lambda: self._by_layer(own, "variance_start"),
            f"Variance {at}, after training": lambda: self._by_layer(own, "variance_end"),
            f"Mean {at}, before training": lambda: self._by_layer(own, "mean_start"),
            f"Mean {at}, after training": lambda: self._by_layer(own, "mean_end"),
            "Test accuracy by depth at the best learning rate": lambda: self._by_depth(rows),
        }

    def _by_layer(self, rows: Rows, name: str) -> Figure:
        found = {arm["broken"]: own.series(name) for arm, own in rows.by_arm()}
        fixed_point = 1 if name.startswith("variance") else 0
        lines = {b: (np.arange(y.shape[1]), y) for b, y in found.items()}
        return self._panels(lines, "layer", name.partition("_")[0], log=fixed_point == 1, marks={"fixed point": fixed_point})

    def _by_depth(self, rows: Rows) -> Figure:
        lines = {}
        for broken in self.broken:
            found = {arm["depth"]: own.values("test_accuracy") for arm, own in rows.where(broken=broken).by_arm()}
            if found:
                lines[broken] = (np.array([*found]), np.stack([*found.values()], axis=1))
        return self._panels(lines, "hidden layers", "test accuracy")

    def _panels(self, lines: Mapping[str, tuple[Array, Array]], x: str, y: str, **options: Any) -> Figure:
        figure, axes = figures.panels(len(_PARTS), columns=2, size=(4.6, 3.0))
        for ax, part in zip(axes, _PARTS, strict=True):
            figures.curves(ax, {b: line for b, line in lines.items() if b == _KEPT or part_of(b) == part}, **options)
            figures.label(ax, title=part, x=x, y=y)
        return figure


def part_of(broken: str) -> str:
    """Returns which of a network's parts is changed."""
    if broken.partition("(")[0] in ACTIVATIONS:
        return "activation"
    if broken == "skips" or broken.endswith(" norm"):
        return "structure"
    return "inputs and dropout" if broken in {"raw inputs", *_DROPOUTS} else "initialiser"


@torch.no_grad()
def moments(network: nn.Module, x: Tensor, seed: int, when: str) -> dict[str, Array]:
    """Returns `mean_<when>` and `variance_<when>` (depth + 1,) of what each linear layer is given, with dropout on: the inputs first."""
    given: list[Tensor] = []
    hooks = [m.register_forward_pre_hook(lambda _, args: given.append(args[0])) for m in network.modules() if isinstance(m, nn.Linear)]
    set_step(network, seed, 0)
    network.train()(x)
    for hook in hooks:
        hook.remove()
    mean, variance = (np.array([float(f(h.double())) for h in given]) for f in (torch.mean, lambda h: h.var(correction=0)))
    return {f"mean_{when}": mean, f"variance_{when}": variance}


def signal_kept(p: float) -> float:
    """Returns the share of the variance behind alpha dropout that comes from the signal: cov^2 / var of units of mean 0 and variance 1."""
    q, lowest = 1 - p, -1.7580993408473766  # SELU's value far to the left
    return q / (1 + lowest**2 * p)


def _told(rows: Rows) -> str:
    mean, variance, accuracy = (number(rows.median(name)) for name in ("mean_start", "variance_start", "test_accuracy"))
    return f"mean {mean}, variance {variance}, test accuracy {accuracy}"
