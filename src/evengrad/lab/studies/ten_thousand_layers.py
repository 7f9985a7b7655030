"""S14: ten thousand layers without batch norm, three ways that train and four that do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from evengrad.errors import unknown
from evengrad.lab import figures
from evengrad.lab.data import load
from evengrad.lab.deep import DeepNet, DeepRun, FixupBlocks, Layers, TanhConv, TanhLinear, centred, train
from evengrad.lab.study import Arm, Cell, Floats, Row, Rows, Study
from evengrad.report.numbers import number, percent, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = 200  # layers in a picture
_BESIDE = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
_SIGNALS = {
    "out_spread": "spread over samples after the layer",
    "grad_rms": "RMS of the weights' gradient",
    "grad_out_norm": "gradient norm of a sample at the output",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to build and train a very deep network.

    Attributes:
        words: What it is.
        layers: The study's sizes and the depth -> kind of layer.
        lr_falls: Whether the learning rate is divided by the depth.
        recompute: Whether states are computed twice rather than held.
    """

    words: str
    layers: Callable[[TenThousandLayers, int], Layers]
    lr_falls: bool = True
    recompute: bool = False


def _plain(words: str, **options: Any) -> Recipe:
    return Recipe(words=f"plain tanh, {words}", layers=lambda sizes, _: TanhLinear(width=sizes.width, **options))


RECIPES = {
    "tanh": _plain("orthogonal"),
    "conv": Recipe(
        words="tanh CNN, delta-orthogonal",
        layers=lambda sizes, depth: TanhConv(channels=sizes.channels, scale=sizes.conv_input * (2 * depth) ** -0.5),
        recompute=True,
    ),
    "fixup": Recipe(words="residual, Fixup", layers=lambda sizes, _: FixupBlocks(width=sizes.width), lr_falls=False),
    "gaussian": _plain("Gaussian of variance 1/width", scheme="lecun_normal"),
    "glorot": _plain("Glorot uniform", scheme="glorot_uniform"),
    "default": _plain("torch's default", scheme="default"),
    "gain_5/3": _plain("orthogonal with gain 5/3", gain=5 / 3),
}


@dataclass(frozen=True, kw_only=True)
class TenThousandLayers(Study):
    """Networks of 10,000 layers on scikit-learn's digits (1,437 to train on), without batch norm: about fifteen minutes of one core.

    Encoder and readout are drawn and frozen, and there are no biases: only the deep part learns. Pixels are centred and all together of
    unit RMS, the readout is scaled so that the first batch's logits have unit RMS. What failed without it: a readout of its own scale,
    since tanh layers leave a signal of 1/sqrt(2 x depth) however large it was; a rate that does not fall with depth (for Fixup: one
    that does); trained biases and scalars, whose gradients outgrow those of the weights; pixels that are not centred, which need up to
    half as many steps more. In a delta-orthogonal network nothing mixes positions at first, so that tanh leaves each position the same
    norm and blows up those at the border, where all digits are alike: at 10,000 layers and unit RMS, 20 steps were too few, which an
    input near the scale that is left mends. Batches of 48 samples are too noisy for these rates with some seeds. Controls are treated
    alike; Glorot's variance is the Gaussian's here, since layers are square.

    Attributes:
        network: Which of `RECIPES`.
        depth: Weight layers between encoder and readout.
        width: Units of a fully connected layer.
        channels: Channels of a convolution, on 4 x 4 positions.
        steps: Steps of SGD with momentum.
        batch_size: Samples a step.
        c: Learning rate times depth, of the networks without skips.
        conv_input: RMS of the convolutional network's first state, in units of 1/sqrt(2 x depth).
        fixup_lr: Learning rate of the residual network, at any depth.
        momentum: Momentum.
        target: Accuracy that counts as trained: of the last five batches together, and at the end of all training samples.
        device: Device to train on, such as `cpu` or `cuda`.

    Reference: Pennington, Schoenholz & Ganguli 2017 (dynamical isometry, https://arxiv.org/abs/1711.04735); Xiao et al. 2018 (10,000
    convolutions, https://arxiv.org/abs/1806.05393); Zhang, Dauphin & Ma 2019 (Fixup, https://arxiv.org/abs/1901.09321).
    """

    name: ClassVar[str] = "ten-thousand-layers"
    number: ClassVar[str] = "S14"
    question: ClassVar[str] = "Can a network of 10,000 layers be trained without batch norm, on two CPU cores, and what does it take?"
    shown: ClassVar[tuple[str, ...]] = ("steps_to_target", "train_accuracy", "test_accuracy", "signal_depth", "gradient_depth")

    network: tuple[str, ...] = tuple(RECIPES)
    depth: tuple[int, ...] = (10_000,)
    width: int = 64
    channels: int = 16
    steps: int = 25
    batch_size: int = 96
    c: float = 0.2
    conv_input: float = 6.0
    fixup_lr: float = 0.1
    momentum: float = 0.9
    target: float = 0.9
    device: str = "cpu"
    seeds: int = 3

    @classmethod
    def quick(cls) -> Self:
        """60 layers, two seeds, fewer steps."""
        return cls(depth=(60,), steps=18, seeds=2)

    def arms(self) -> Sequence[Arm]:
        """Each network at each depth."""
        return [{"network": network, "depth": depth} for network, depth in product(self.network, self.depth)]

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Trains one network after the other."""
        data = centred(load("digits"), self.device)
        rows = []
        for cell in cells:
            recipe, depth = _recipe(cell.arm["network"]), cell.arm["depth"]
            net = DeepNet(
                recipe.layers(self, depth),
                depth,
                inputs=data.x_train.shape[1],
                outputs=len(data.classes),
                seed=cell.seed,
                recompute=recipe.recompute,
                device=self.device,
            )
            run = train(
                net,
                data,
                lr=self.c / depth if recipe.lr_falls else self.fixup_lr,
                momentum=self.momentum,
                batch_size=self.batch_size,
                steps=self.steps,
                target=self.target,
                seed=cell.seed,
                record=(0, self.steps - 1),
            )
            rows.append(Row(cell.arm, cell.seed, self._values(run, net.layers.deep), _series(run)))
        return rows

    def memory(self, cells: Sequence[Cell]) -> int:
        """Weights, their velocity, and the states that are held."""
        most: int = max(cell.arm["depth"] for cell in cells)
        weights = max(self.width**2, 9 * self.channels**2)
        return 4 * most * (2 * weights + self.batch_size * self.width) + 400 * 2**20  # 4 bytes a number; torch and data

    def _values(self, run: DeepRun, deep: int) -> dict[str, float]:
        spread, slope = run.signals["out_spread"][0], run.signals["grad_out_norm"][0]
        return {
            "trained": float(run.steps_to_target > 0 and run.train_accuracy >= self.target),
            "steps_to_target": run.steps_to_target,
            "train_accuracy": run.train_accuracy,
            "test_accuracy": run.test_accuracy,
            "signal_depth": float(deep * reached(spread)),
            "gradient_depth": float(deep * reached(slope[::-1])),
        }

    def answer(self, rows: Rows) -> str:
        """Which networks train at which depth, and where the others lose signal or gradient."""
        told = [self._of_depth(depth, rows.where(depth=depth)) for depth in dict.fromkeys(arm["depth"] for arm in rows.arms())]
        return "\n".join([*told, "Only the layers between a frozen encoder and a frozen readout learn, so this is not the readout's work."])

    def _of_depth(self, depth: int, rows: Rows) -> str:
        parts = {RECIPES[arm["network"]].words: own for arm, own in rows.by_arm()}
        good = {words: own.median("steps_to_target") for words, own in parts.items() if own.share("trained", 1) > 0.5}
        steps = "".join(f"; {words}, in {number(n)} steps" for words, n in good.items())
        head = f"At {depth:,} layers, {len(good)} of {plural(len(parts), 'network')} reach {percent(self.target)} in most seeds{steps}."
        return "\n".join([head, *(f"{words}: {self._of_network(own, depth)}." for words, own in parts.items())])

    def _of_network(self, rows: Rows, depth: int) -> str:
        count = f"{int(rows.values('trained').sum())} of {plural(len(rows), 'seed')}"
        accuracies = f"training {percent(rows.median('train_accuracy'), 1)}, test {percent(rows.median('test_accuracy'), 1)}"
        return f"{count}, {accuracies}; {_lost(rows, depth) or _kept(rows)}"

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Signal and gradient by layer for each depth, and the training."""
        found: dict[str, Callable[[], Figure]] = {}
        for depth in dict.fromkeys(arm["depth"] for arm in rows.arms()):
            own = rows.where(depth=depth)
            found[f"{depth:,} layers before the first step: a line ends where what it shows is zero or not finite"] = _by_layer(own, 0)
            found[f"{depth:,} layers at the last step"] = _by_layer(own, -1)
            found[f"{depth:,} layers: training"] = lambda own=own: self._training(own)  # type: ignore[misc]
        return found

    def _training(self, rows: Rows) -> Figure:
        figure, (ax,) = figures.panels()
        lines = {RECIPES[arm["network"]].words: own.series("accuracy") for arm, own in rows.by_arm()}
        figures.curves(ax, {name: (np.arange(1, y.shape[1] + 1), y) for name, y in lines.items()})
        figures.label(ax, x="step", y="accuracy on the step's batch")
        figures.legend(ax, **_BESIDE)
        ax.axhline(self.target, color=figures.INK, linestyle=":", linewidth=1)
        return figure


def reached(values: Floats) -> int:
    """Returns how many layers in a row, from the first on, have a value that is finite and not zero."""
    alive = np.isfinite(values) & (values != 0)
    return len(values) if alive.all() else int(np.argmin(alive))


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise unknown("network", name, RECIPES)
    return RECIPES[name]


def _series(run: DeepRun) -> dict[str, Floats]:
    signals = {name: values.astype(np.float32) for name, values in run.signals.items()}
    return {"accuracy": run.accuracies, "loss": run.losses, "recorded": np.array(run.recorded), **signals}


def _kept(rows: Rows) -> str:
    """Says what signal and gradient are at both ends before the first step, medians over seeds."""
    first, last = (number(float(np.median(rows.series("out_rms")[:, 0, layer]))) for layer in (0, -1))
    bottom, top = (number(float(np.median(rows.series("grad_rms")[:, 0, layer]))) for layer in (0, -1))
    return (
        f"the signal goes from an RMS of {first} after the first layer to {last} after the last, "
        f"the weights' gradient from {top} in the last layer to {bottom} in the first"
    )


def _lost(rows: Rows, depth: int) -> str:
    """Says where signal and gradient end; nothing if they do not."""
    signal, gradient = int(rows.median("signal_depth")), int(rows.median("gradient_depth"))
    told = [f"the signal is exactly zero after {signal:,} layers"] if signal < depth else []
    if gradient < depth:
        slopes = rows.series("grad_out_norm")[:, 0, 0]
        kind = "exactly zero" if (slopes == 0).any() else "not finite"
        told.append(f"the gradient is {kind} from {gradient:,} layers below the output on")
    return " and ".join(told)


def _by_layer(rows: Rows, record: int) -> Callable[[], Figure]:
    def draw() -> Figure:
        figure, axes = figures.panels(len(_SIGNALS), columns=2, size=(4.4, 3.0))
        for ax, (name, words) in zip(axes, _SIGNALS.items(), strict=True):
            lines = {}
            for arm, own in rows.by_arm():
                values = own.series(name)
                shown = np.unique(np.linspace(0, values.shape[2] - 1, _DRAWN).astype(int))
                lines[RECIPES[arm["network"]].words] = ((shown + 1) * arm["depth"] / values.shape[2], values[:, record, shown])
            figures.curves(ax, lines, log=True)
            figures.label(ax, title=words, x="layer")
            if (named := ax.get_legend()) is not None:
                named.remove()
        figures.legend(axes[-1], **_BESIDE)
        if (named := axes[-1].get_legend()) is not None:
            named.set_in_layout(False)  # it stands in the fourth place, which is empty
        return figure

    return draw
