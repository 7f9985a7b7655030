"""S3: six activations in one convolutional network, over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy.typing as npt

from evengrad.lab import figures
from evengrad.lab.comparison import higher
from evengrad.lab.engine.optimizers import Adam
from evengrad.lab.engine.plan import Clip
from evengrad.lab.jobs import Data, Job, Trained
from evengrad.lab.models import CNN
from evengrad.lab.study import Arm, Rows, TrainingStudy
from evengrad.report.numbers import number, percent, plural
from evengrad.signals.scale import matching_scheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
_LAYERS = ("convolution 1", "convolution 2", "dense", "head")


@dataclass(frozen=True, kw_only=True)
class SixActivations(TrainingStudy):
    """Convolutions of 32 and 64 channels, pool, dropout, 128 dense units, dropout, on Fashion-MNIST; Adam, gradients clipped by value.

    The comparison that Hansen 2019 (Activation functions explained) drew on digits from one run each, here from several seeds. Weights
    are drawn by the initialiser that matches the activation; SELU has alpha dropout. The full size takes 50 minutes on one core, half of
    that with two workers; `full=False` takes the 5,000 images that come along, three seconds an epoch of one network.

    Attributes:
        activation: Activation of the convolutions and the dense layer.
        full: All 60,000 images to train on, which must be installed or downloaded, in place of 5,000.
        samples: So many of them, drawn by the seed; none for all.
        validation: Share of them that is held out.
        epochs: Passes over the rest.
        batch_size: Samples a step.
        lr: Adam's learning rate.
        clip: Largest magnitude of an element of the gradient.
        evaluations: How often an epoch accuracy, loss and gradients are looked at.
        evaluate_samples: Validation images that are looked at.
    """

    name: ClassVar[str] = "six-activations"
    number: ClassVar[str] = "S3"
    question: ClassVar[str] = (
        "Which of six activations learns fastest and ends best in a small convolutional network, and is the order more than luck?"
    )
    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "test_loss", "steps_to_target", "gradient_ratio")

    activation: tuple[str, ...] = ("sigmoid", "relu", "elu", "leaky_relu(0.2)", "selu", "gelu")
    full: bool = True
    samples: int | None = None
    validation: float = 0.2
    epochs: int = 2
    batch_size: int = 128
    lr: float = 0.001
    clip: float = 0.5
    target: float = 0.8
    evaluations: int = 4
    evaluate_samples: int = 1000
    seeds: int = 5

    @classmethod
    def quick(cls) -> Self:
        """Two activations on 120 images, two seeds, two epochs."""
        sizes: dict[str, Any] = {"full": False, "samples": 120, "batch_size": 32, "target": 0.2, "evaluations": 1, "evaluate_samples": 24}
        return cls(activation=("relu", "selu"), epochs=2, seeds=2, **sizes)

    def arms(self) -> Sequence[Arm]:
        """Each activation."""
        return [{"activation": phi} for phi in self.activation]

    @property
    def _per_epoch(self) -> int:
        images = self.samples or (60_000 if self.full else 5_000)
        return math.ceil((images - round(self.validation * images)) / self.batch_size)

    def job(self, arm: Arm, seed: int) -> Job:
        """Looks at accuracy, loss and gradients several times an epoch."""
        phi, every = arm["activation"], max(1, round(self._per_epoch / self.evaluations))
        return Job(
            net=CNN(inputs=(1, 28, 28), outputs=10, activation=phi, initialiser=matching_scheme(phi.partition("(")[0])),
            data=Data(
                name="fashion_mnist",
                options=(("flat", False), ("full", self.full)),
                samples=self.samples,
                validation=self.validation,
            ),
            optimizer=Adam(lr=self.lr),
            seed=seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            clip=Clip(kind="value", threshold=self.clip),
            target=self.target,
            evaluate_steps=every,
            evaluate_samples=self.evaluate_samples,
            record_steps=every,
        )

    def extra(self, job: Job, trained: Trained) -> tuple[Mapping[str, float], Mapping[str, Array]]:
        """The first convolution's mean gradient over the dense layer's, before training; where evaluations are, in epochs."""
        start = trained.series["grad_abs_mean"][0]
        return {"gradient_ratio": start[0] / start[-2] if start[-2] else math.nan}, {"epochs": trained.series["steps"] / self._per_epoch}

    def answer(self, rows: Rows) -> str:
        """The activations in the order of their test accuracy, how sure the order is, and who is first at the target."""
        found = {arm["activation"]: own for arm, own in rows.by_arm()}
        accuracy = {phi: own.values("test_accuracy") for phi, own in found.items()}
        ordered = sorted(found, key=lambda phi: -found[phi].median("test_accuracy"))
        listed = ", ".join(f"{phi} {number(found[phi].median('test_accuracy'))}" for phi in ordered)
        told = [f"Test accuracy after {plural(self.epochs, 'epoch')}, median of {plural(self.seeds, 'seed')}: {listed}."]
        if len(ordered) > 1:
            told += [
                self._of_order(accuracy[ordered[0]], accuracy[phi], ordered[0], phi) for phi in dict.fromkeys((ordered[1], ordered[-1]))
            ]
        steps = {phi: own.median("steps_to_target") for phi, own in found.items()}
        quick = ", ".join(f"{phi} {number(n)}" for phi, n in sorted(steps.items(), key=lambda item: item[1]) if not math.isnan(n))
        told.append(f"Steps to a validation accuracy of {self.target}: {quick or 'not reached'}.")
        weakest = min(found, key=lambda phi: found[phi].median("gradient_ratio"))
        ratio = number(found[weakest].median("gradient_ratio"))
        told.append(
            f"Before training the first convolution's mean gradient is smallest against the dense layer's with {weakest}: {ratio} of it."
        )
        return "\n".join(told)

    def _of_order(self, best: Array, other: Array, first: str, second: str) -> str:
        share = higher(other, best)
        doubt = "" if share >= 0.9 and len(best) > 1 else ", so their order is not sure"
        return f"{first} is above {second} in {percent(share)} of pairs of seeds{doubt}."

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Accuracy and loss over epochs, every seed, gradients by layer."""
        return {
            "Accuracy and loss over epochs, median and 10-90% of seeds; training is measured with dropout": lambda: _curves(rows),
            "Test accuracy of every seed": lambda: _seeds(rows),
            "Mean gradient of each layer's weights, median over seeds": lambda: _gradients(rows),
        }


def _curves(rows: Rows) -> Figure:
    figure, axes = figures.panels(4, columns=2, size=(4.6, 3.1))
    names = {"accuracy": "training accuracy", "val_accuracy": "validation accuracy", "loss": "training loss", "val_loss": "validation loss"}
    for ax, (name, words) in zip(axes, names.items(), strict=True):
        figures.curves(
            ax, {arm["activation"]: (own.series("epochs")[0], own.series(name)) for arm, own in rows.by_arm()}, log="loss" in name
        )
        figures.label(ax, x="epoch", y=words)
    return figure


def _seeds(rows: Rows) -> Figure:
    figure, (ax,) = figures.panels()
    figures.distributions(ax, {arm["activation"]: own.values("test_accuracy") for arm, own in rows.by_arm()})
    figures.label(ax, x="test accuracy")
    return figure


def _gradients(rows: Rows) -> Figure:
    arms = rows.by_arm()
    figure, axes = figures.panels(len(arms))
    for ax, (arm, own) in zip(axes, arms, strict=True):
        figures.gradients(ax, own.series("record_steps")[0], own.series("grad_abs_mean"), layers=_LAYERS)
        figures.label(ax, title=arm["activation"], x="step")
    return figure
