"""S1: the tutorial's networks on two circles, each over many seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError
from evengrad.lab import figures
from evengrad.lab.data import load
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.jobs import Data, Job, Trained
from evengrad.lab.models import MLP
from evengrad.lab.published import verdict
from evengrad.lab.study import Arm, Published, Rows, TrainingStudy
from evengrad.report.numbers import number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
SOURCE = "Brownlee 2019, How to Fix the Vanishing Gradients Problem Using the ReLU"
LEARNED = 0.75  # a training accuracy that no straight line reaches on this data
_STORIES = {  # network -> whether the tutorial's single run learnt
    "1 tanh uniform_01": True,
    "5 tanh uniform_01": False,
    "5 relu he_uniform": True,
    "15 relu he_uniform": True,
    "20 relu he_uniform": False,
}


@dataclass(frozen=True, kw_only=True)
class TwoCircles(TrainingStudy):
    """Two circles of 1,000 points (500 to train on), five units a hidden layer, SGD 0.01 with momentum 0.9, batch 32, 500 epochs.

    The tutorial showed one run of each network. Here each is trained from many seeds, with the gradient of every layer recorded.

    Attributes:
        network: Networks as `hidden layers, activation, initialiser`, such as `5 relu he_uniform`.
        width: Units of a hidden layer.
        epochs: Passes over the 500 training points.
        lr: Learning rate.
        momentum: Momentum.
        batch_size: Samples a step.
    """

    name: ClassVar[str] = "two-circles"
    number: ClassVar[str] = "S1"
    question: ClassVar[str] = (
        "Do five tanh layers fail on two circles, and do fifteen ReLU layers learn, as one published run of each says?"
    )
    shown: ClassVar[tuple[str, ...]] = ("train_accuracy", "test_accuracy", "first_gradient", "gradient_ratio")
    published: ClassVar[tuple[Published, ...]] = tuple(
        Published(arm={"network": network}, value=value, number=accuracy, source=SOURCE)
        for network, numbers in {
            "1 tanh uniform_01": (0.816, 0.816),
            "5 tanh uniform_01": (0.530, 0.468),
            "5 relu he_uniform": (0.836, 0.840),
        }.items()
        for value, accuracy in zip(("train_accuracy", "test_accuracy"), numbers, strict=True)
    )

    network: tuple[str, ...] = ("1 tanh uniform_01", "5 tanh uniform_01", "5 relu he_uniform", "15 relu he_uniform", "20 relu he_uniform")
    width: int = 5
    epochs: int = 500
    lr: float = 0.01
    momentum: float = 0.9
    batch_size: int = 32

    @classmethod
    def quick(cls) -> Self:
        """Two networks, three seeds, eight epochs."""
        return cls(network=("1 tanh uniform_01", "5 relu he_uniform"), seeds=3, epochs=8)

    def arms(self) -> Sequence[Arm]:
        """Each network."""
        return [{"network": network} for network in self.network]

    def job(self, arm: Arm, seed: int) -> Job:
        """The first seed keeps what it decides over the plane, early, halfway and at the end."""
        net = parsed(arm["network"], self.width)
        return Job(
            net=net,
            data=Data(name="two_circles"),
            optimizer=SGD(lr=self.lr, momentum=self.momentum),
            seed=seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            evaluate_every=max(1, self.epochs // 100),
            boundary=tuple(sorted({self.epochs // 50, self.epochs // 5, self.epochs})) if seed == 0 else (),
        )

    def extra(self, job: Job, trained: Trained) -> tuple[Mapping[str, float], Mapping[str, Array]]:
        """The first layer's gradient at the start, and what part it is of the last hidden layer's."""
        start = trained.series["grad_abs_mean"][0]
        last = start[-2] if len(start) > 1 else start[-1]
        return {"first_gradient": start[0], "gradient_ratio": start[0] / last if last else np.nan}, {}

    def answer(self, rows: Rows) -> str:
        """Which published stories are luck; then for each network how many seeds learn, and where the published run lies."""
        shares = {n: rows.where(network=n).share("train_accuracy", LEARNED) for n in self.network if rows.where(network=n)}
        luck = [
            f"that {n} {'learns' if _STORIES[n] else 'fails'} ({percent(_do(n, s))} of seeds do)"
            for n, s in shares.items()
            if self._luck(n, s)
        ]
        lead = f"Luck of a single published run: {' and '.join(luck)}" if luck else ""
        lead = lead or f"A training accuracy of {LEARNED} is reached by " + ", ".join(f"{percent(s)} of {n}" for n, s in shares.items())
        return "\n".join([f"{lead}.", *(self._of(n, rows.where(network=n).values("train_accuracy")) for n in shares)])

    def _luck(self, network: str, share: float) -> bool:
        """Whether few seeds do what the published run did."""
        return bool(self.comparable()) and network in _STORIES and _do(network, share) < 0.4

    def _of(self, network: str, values: Array) -> str:
        learned = float(np.mean(values >= LEARNED))
        told = f"{network}: {percent(learned)} of {len(values)} seeds reach {LEARNED} (median {number(float(np.median(values)))})"
        if network in _STORIES and self.comparable():
            agree = _do(network, learned)
            judged = "as most seeds do" if agree >= 0.75 else "luck, as few seeds do" if agree < 0.4 else "as some seeds do"
            told += f"; the published run {'learns' if _STORIES[network] else 'fails'}, {judged}"
        numbers = [p.number for p in self.comparable() if p.arm["network"] == network and p.value == "train_accuracy"]
        return told + "".join(f" ({number(n)}; {verdict(n, values)})" for n in numbers) + "."

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Every seed, the curves, the gradients by layer, the plane."""
        return {
            "Test accuracy of every seed; the published single run is a diamond": lambda: _seeds(self, rows),
            "Training accuracy over epochs": lambda: _curves(rows),
            "Mean gradient of each layer's weights, median over seeds": lambda: _gradients(rows),
            "What the network of the first seed decides over the plane, early, later and at the end": lambda: _planes(rows),
        }


def parsed(network: str, width: int) -> MLP:
    """Returns the network that `5 relu he_uniform` names, for two inputs and one logit.

    Raises:
        InputError: if the text is not a depth, an activation and an initialiser.
    """
    match network.split(maxsplit=2):
        case [depth, activation, initialiser] if depth.isdigit():
            return MLP(inputs=2, outputs=1, depth=int(depth), width=width, activation=activation, initialiser=initialiser)
    raise InputError(f"a network is written as hidden layers, activation, initialiser, such as '5 relu he_uniform'; got {network!r}")


def _do(network: str, learned: float) -> float:
    """The share of seeds that do what the published run did."""
    return learned if _STORIES[network] else 1 - learned


def _seeds(study: TwoCircles, rows: Rows) -> Figure:
    figure, (ax,) = figures.panels()
    published = {p.arm["network"]: p.number for p in study.comparable() if p.value == "test_accuracy"}
    figures.distributions(ax, {n: rows.where(network=n).values("test_accuracy") for n in study.network}, published=published)
    figures.label(ax, x="test accuracy")
    return figure


def _curves(rows: Rows) -> Figure:
    figure, (ax,) = figures.panels()
    arms = {arm["network"]: rows.where(network=arm["network"]) for arm in rows.arms()}
    figures.curves(ax, {name: (own.series("steps")[0], own.series("accuracy")) for name, own in arms.items()})
    figures.label(ax, x="step", y="training accuracy")
    return figure


def _gradients(rows: Rows) -> Figure:
    arms = [arm["network"] for arm in rows.arms()]
    figure, axes = figures.panels(len(arms))
    for ax, network in zip(axes, arms, strict=True):
        own = rows.where(network=network)
        steps, values = own.series("record_steps")[0], own.series("grad_abs_mean")
        figures.gradients(ax, steps, values)
        ax.set_xlim(steps[0], steps[-1])
        zero = percent(float(np.mean(values[:, -1] == 0)))
        figures.label(ax, title=network if zero == "0%" else f"{network}: {zero} of layers end at zero", x="step")
    return figure


def _planes(rows: Rows) -> Figure:
    first = [row for row in rows if "boundary" in row.series]
    split = load("two_circles")
    figure, axes = figures.panels(sum(len(row.series["boundary"]) for row in first), columns=3)
    shots = [(row, i) for row in first for i in range(len(row.series["boundary"]))]
    for ax, (row, i) in zip(axes, shots, strict=True):
        x, y = split.x_train.numpy(), split.y_train.numpy()
        figures.boundary(ax, row.series["boundary"][i], row.series["boundary_box"], x=x, y=y)
        figures.label(ax, title=f"{row.arm['network']}, epoch {int(row.series['boundary_epochs'][i])}")
    return figure
