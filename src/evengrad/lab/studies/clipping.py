"""S6: gradients clipped by value, by norm and not at all, on a recurrent network whose gradients explode."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from evengrad.errors import InputError
from evengrad.lab import figures
from evengrad.lab.clipping import Watched, clipped, suggested
from evengrad.lab.data import load
from evengrad.lab.engine.evaluate import evaluate
from evengrad.lab.engine.fit import fit
from evengrad.lab.engine.losses import LOSSES
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.engine.plan import Clip, Plan, Samples
from evengrad.lab.models.recurrent import Recurrent
from evengrad.lab.study import Arm, Cell, Row, Rows, Study
from evengrad.report.numbers import number, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
LOSS = LOSSES["cross_entropy"]
KINDS = ("norm", "value")
WON = 0.01
GUESS = math.log(10)  # loss of who gives ten classes equal odds
FAILED = 0.99 * GUESS


@dataclass(frozen=True, kw_only=True)
class Clipping(Study):
    """A plain recurrent network reads Fashion-MNIST row by row: 28 steps of 28 pixels, orthogonal weights, SGD with momentum.

    A threshold is a number, or is suggested by what is measured: `norm p90` is the 90th percentile of the gradient's norm over the first
    steps without clipping, `value p90` that of its largest element; what is not finite is left out, and where nothing is, nothing is
    clipped. The best threshold is the one with the best accuracy on validation images that are held out; what is told is the accuracy on
    the test images. A run has failed that ends no better than guessing.

    About 6 minutes on one core.

    Attributes:
        activation: tanh or relu.
        lr: Learning rates.
        clip: `none`, or `value` or `norm` and a threshold: a number or a percentile such as `p50`.
        hidden: Units.
        epochs: Passes over the training images.
        validation: Of the 5,000 training images, how many are held out to choose thresholds by.
        momentum: Momentum.
        batch_size: Samples a step.
        measured: Steps whose gradients suggest a threshold.
        chunk: Number of networks that are trained as one.
    """

    name: ClassVar[str] = "clipping"
    number: ClassVar[str] = "S6"
    question: ClassVar[str] = (
        "Where a recurrent network's gradients explode, is it better to clip them by value or by norm, and at which threshold?"
    )
    shown: ClassVar[tuple[str, ...]] = (
        "threshold",
        "clipped_fraction",
        "train_loss",
        "val_accuracy",
        "test_accuracy",
        "failed",
        "diverged",
    )

    activation: tuple[str, ...] = ("tanh", "relu")
    lr: tuple[float, ...] = (0.01, 0.1)
    clip: tuple[str, ...] = (
        *("none", "norm 0.01", "norm 0.1", "norm 1", "norm 10", "norm 100", "norm p50", "norm p90"),
        *("value 0.0001", "value 0.001", "value 0.01", "value 0.1", "value 1", "value p50", "value p90"),
    )
    hidden: int = 48
    epochs: int = 4
    validation: int = 1000
    momentum: float = 0.9
    batch_size: int = 64
    measured: int = 50
    chunk: int = 32
    seeds: int = 12

    @classmethod
    def quick(cls) -> Self:
        """One network and rate, four ways to clip, two seeds, one pass with large batches."""
        clip = ("none", "norm 1", "norm p90", "value 0.01")
        return cls(activation=("relu",), lr=(0.1,), clip=clip, hidden=16, epochs=1, batch_size=250, measured=5, seeds=2)

    def arms(self) -> Sequence[Arm]:
        """The grid."""
        return [{"activation": phi, "lr": lr, "clip": clip} for phi in self.activation for lr in self.lr for clip in self.clip]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Networks of one activation that are clipped in one way are trained together."""
        parts: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            parts.setdefault((cell.arm["activation"], parsed(cell.arm["clip"])[0]), []).append(cell)
        return [own[i : i + self.chunk] for own in parts.values() for i in range(0, len(own), self.chunk)]

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Measures the first steps without clipping, then trains from the start."""
        kind, data = parsed(cells[0].arm["clip"])[0], load("fashion_rows")
        (x, y), held = data.train, self.validation
        if not 0 < held < len(x):
            raise InputError(f"validation must leave images to train on: expected 1 to {len(x) - 1}; got {held}")
        (x, y), validation = (x[held:], y[held:]), Samples(x=x[:held], y=y[:held])
        few = (torch.arange(self.measured * self.batch_size) % len(x)).expand(len(cells), -1)
        first, _ = self._trained(cells, Samples(x=x, y=y, index=few), 1)
        thresholds = [threshold(cell.arm["clip"], sizes) for cell, sizes in zip(cells, first.sizes(kind), strict=True)]
        clips = tuple(Clip(kind=kind, threshold=t) for t in thresholds) if kind != "none" else ()
        runs, losses = self._trained(cells, Samples(x=x, y=y), self.epochs, clips)
        sets = {"train_": Samples(x=x, y=y), "val_": validation, "test_": Samples(x=data.x_test, y=data.y_test)}
        ends = {name: value for prefix, samples in sets.items() for name, value in evaluate(runs, samples, LOSS, prefix).items()}
        seen = {"first": first.sizes("norm"), "size": runs.sizes(kind), "loss": losses.T}
        return [
            self._row(cell, thresholds[k], {name: float(v[k]) for name, v in ends.items()}, {name: v[k] for name, v in seen.items()})
            for k, cell in enumerate(cells)
        ]

    def _trained(self, cells: Sequence[Cell], samples: Samples, epochs: int, clips: tuple[Clip, ...] = ()) -> tuple[Watched, Array]:
        """Trains every cell's network; returns the runs, and the loss of every step (steps, runs)."""
        runs = Watched([self._net(cell.arm["activation"]).build(cell.seed) for cell in cells])
        plan = Plan(
            loss=LOSS,
            optimizers=tuple(SGD(lr=cell.arm["lr"], momentum=self.momentum) for cell in cells),
            seeds=tuple(cell.seed for cell in cells),
            epochs=epochs,
            batch_size=self.batch_size,
            clips=clips,
            evaluate_every=1,
        )
        return runs, np.stack(fit(runs, samples, plan).curves["loss"])

    def _net(self, activation: str) -> Recurrent:
        sizes = {"inputs": 28, "outputs": 10, "hidden": self.hidden}
        return Recurrent(**sizes, cell="rnn", activation=activation, initialiser="orthogonal")

    @staticmethod
    def _row(cell: Cell, limit: float, ends: dict[str, float], seen: dict[str, Array]) -> Row:
        known = seen["size"][~np.isnan(seen["size"])]  # up to where a run that diverges has no gradient any more
        values = {
            **ends,
            "threshold": limit,
            "first_norm": suggested(seen["first"], 50),
            "clipped_fraction": math.nan if math.isnan(limit) else float(np.mean(known > limit)),
            "failed": float(not ends["train_loss"] < FAILED),
            "diverged": float(not math.isfinite(ends["train_loss"])),
        }
        return Row(cell.arm, cell.seed, values, {name: seen[name].astype(np.float32) for name in ("size", "loss")})

    def answer(self, rows: Rows) -> str:
        """Which kind wins at its best threshold, then each setting; the published range; what clipping does to a direction."""
        told = [_of_setting(rows.where(activation=phi, lr=lr), f"{phi} at rate {number(lr)}") for phi, lr in _settings(rows)]
        return "\n".join(filter(None, [_of_kinds(rows), *told, _of_published(rows), _of_direction()]))

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Accuracy, failures and clipped steps over thresholds, and the gradients themselves."""
        suggested = (
            "; dotted: thresholds suggested by the median of the first steps" if any("p50" in a["clip"] for a in rows.arms()) else ""
        )
        return {
            f"Test accuracy by threshold, median and 10% to 90% of seeds{suggested}": lambda: _over_thresholds(
                rows, "test_accuracy", "test accuracy"
            ),
            "Share of seeds that end no better than guessing": lambda: _over_thresholds(rows, "failed", "share of seeds"),
            "Share of steps whose gradient was clipped": lambda: _over_thresholds(rows, "clipped_fraction", "share of steps"),
            "Norm of the gradient at each step without clipping": lambda: _norms(rows.where(clip="none")),
        }


def parsed(clip: str) -> tuple[str, str]:
    """Returns how `norm 1`, `value p90` or `none` clips, and the threshold's text.

    Raises:
        InputError: for any other text.
    """
    match clip.split():
        case ["none"]:
            return "none", ""
        case ["norm" | "value" as kind, str(text)] if re.fullmatch(r"p?\d+(\.\d+)?(e-?\d+)?", text):
            return kind, text
    raise InputError(f"a way to clip is 'none', or 'norm' or 'value' and a threshold, such as 'norm 1' or 'value p90'; got {clip!r}")


def threshold(clip: str, sizes: Array) -> float:
    """Returns the threshold that a way to clip names, or suggests from the sizes of the first steps' gradients; NaN for none."""
    _, text = parsed(clip)
    return suggested(sizes, float(text[1:])) if text.startswith("p") else float(text or "nan")


def _settings(rows: Rows) -> list[tuple[str, float]]:
    return list(dict.fromkeys((arm["activation"], arm["lr"]) for arm in rows.arms()))


def _by_threshold(rows: Rows, kind: str) -> dict[float, Rows]:
    """The rows of each threshold that was given as a number, ascending."""
    found = {}
    for arm, own in rows.by_arm():
        own_kind, text = parsed(arm["clip"])
        if own_kind == kind and not text.startswith("p"):
            found[float(text)] = own
    return dict(sorted(found.items()))


def _of_kinds(rows: Rows) -> str:
    """Who is better at the best threshold, setting by setting; what becomes of suggested thresholds."""
    best = [[_best(rows.where(activation=phi, lr=lr), kind)[1] for kind in KINDS] for phi, lr in _settings(rows)]
    gains = [by_value - by_norm for by_norm, by_value in best if not math.isnan(by_norm + by_value)]
    if not gains:
        return ""
    better = ", ".join(f"by {kind} in {sum(sign * g > WON for g in gains)}" for kind, sign in zip(KINDS, (-1, 1), strict=True))
    told = (
        f"At the threshold that is best on validation images, clipping is better (by over {number(WON)} test accuracy) {better} of "
        f"{plural(len(gains), 'setting')}."
    )
    failed = {kind: rows.where(clip=f"{kind} p50").values("failed") for kind in KINDS}
    ends = [f"{int(v.sum())} of {plural(len(v), 'run')} by {kind}" for kind, v in failed.items() if len(v)]
    return told + (f" At the median that the first steps suggest, {' and '.join(ends)} fail." if ends else "")


def _best(rows: Rows, kind: str) -> tuple[float, float]:
    """The threshold of the best median validation accuracy, and the median test accuracy there; NaN of none."""
    tried = _by_threshold(rows, kind)
    best = max(tried, key=lambda t: tried[t].median("val_accuracy"), default=math.nan)
    return best, tried[best].median("test_accuracy") if tried else math.nan


def _of_setting(rows: Rows, name: str) -> str:
    none, told = rows.where(clip="none"), []
    for kind in KINDS:
        tried, (best, _) = _by_threshold(rows, kind), _best(rows, kind)
        if tried:
            fine = [number(t) for t, own in tried.items() if not own.values("failed").any()]
            where = f"no seed fails at {', '.join(fine)}" if fine else "seeds fail at each threshold"
            told.append(f"by {kind} {_ends(tried[best])} at the best threshold, {number(best)} ({where})")
        for arm, own in rows.by_arm():
            if arm["clip"].startswith(f"{kind} p"):
                told.append(f"by {arm['clip']} of the first steps ({number(own.median('threshold'))}) {_ends(own)}")
    return f"{name}, test accuracy: " + "; ".join([*([f"{_ends(none)} without clipping"] if none else []), *told]) + "."


def _ends(rows: Rows) -> str:
    failed = int(rows.values("failed").sum())
    return f"{number(rows.median('test_accuracy'))}" + (f" with {failed} of {plural(len(rows), 'seed')} failing" if failed else "")


def _of_published(rows: Rows) -> str:
    inside = [
        row for row in rows if parsed(row.arm["clip"])[0] == "norm" and 0.5 <= row.values["threshold"] / row.values["first_norm"] <= 10
    ]
    if not inside:
        return ""
    fine = sum(not row.values["failed"] for row in inside)
    return (
        "Published: thresholds of half to ten times the average norm still converge (Pascanu, Mikolov & Bengio 2013); here "
        f"{fine} of {plural(len(inside), 'run')} with half to ten times the median norm of the first steps end better than guessing."
    )


def _of_direction() -> str:
    """What clipping at 1 makes of (0.9, 100)."""
    start = np.array([0.9, 100.0])
    by_value, by_norm = (clipped(start, kind, 1.0) for kind in reversed(KINDS))
    told = [f"({', '.join(number(float(g)) for g in v)}), turned by {_angle(start, v):.0f}°" for v in (by_value, by_norm)]
    return f"Clipped at 1, a gradient (0.9, 100) becomes by value {told[0]}, and by norm {told[1]}."


def _angle(a: Array, b: Array) -> float:
    return math.degrees(math.acos(min(1.0, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))))


def _over_thresholds(rows: Rows, name: str, y: str) -> Figure:
    settings = _settings(rows)
    figure, axes = figures.panels(len(settings), columns=2, size=(4.6, 2.6))
    for ax, (phi, lr) in zip(axes, settings, strict=True):
        own, lines = rows.where(activation=phi, lr=lr), {}
        for kind in KINDS:
            tried = _by_threshold(own, kind)
            values = [v.values(name) for v in tried.values()]
            if values:
                shown = np.stack(values, 1) if name != "failed" else np.mean(values, 1)[None]
                lines[f"by {kind}"] = (np.array(list(tried)), shown)
        none = own.where(clip="none")
        level = float(np.mean(none.values(name))) if name == "failed" else none.median(name)
        figures.curves(ax, lines, marks={} if math.isnan(level) else {"no clipping": level})
        for kind, color in zip(KINDS, figures.PALETTE, strict=False):
            if not math.isnan(at := own.where(clip=f"{kind} p50").median("threshold")) and name == "test_accuracy":
                ax.axvline(at, color=color, linestyle=":", linewidth=1.2)
        ax.set_xscale("log")
        if name != "test_accuracy":
            ax.set_ylim(-0.04, 1.04)
        figures.label(ax, title=f"{phi}, rate {number(lr)}", x="threshold", y=y)
    return figure


def _norms(rows: Rows) -> Figure:
    settings = _settings(rows)
    figure, axes = figures.panels(max(1, len(settings)), columns=2, size=(4.6, 2.4))
    for ax, (phi, lr) in zip(axes, settings, strict=False):
        sizes = rows.where(activation=phi, lr=lr).series("size")
        figures.curves(ax, {"median of seeds": (np.arange(1, sizes.shape[1] + 1), sizes)}, log=True)
        figures.label(ax, title=f"{phi}, rate {number(lr)}", x="step", y="norm of the gradient")
    return figure
