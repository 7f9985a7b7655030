"""S11: plain recurrent networks, LSTMs and GRUs over 50 to 400 steps: who learns how far, and what gradient comes through."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError, unknown
from evengrad.lab import figures
from evengrad.lab.data import Split, load
from evengrad.lab.engine.fit import fit
from evengrad.lab.engine.losses import runs_loss
from evengrad.lab.engine.optimizers import Adam
from evengrad.lab.engine.plan import Clip, Plan
from evengrad.lab.engine.runs import Runs
from evengrad.lab.models.recurrent import Recurrent
from evengrad.lab.published import verdict
from evengrad.lab.study import Arm, Cell, Published, Row, Rows, Study, quantile
from evengrad.lab.until_learned import UntilLearned
from evengrad.report.numbers import number, percent, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
NETWORKS: dict[str, dict[str, Any]] = {
    "rnn": {"cell": "rnn"},
    "rnn orthogonal": {"cell": "rnn", "initialiser": "orthogonal"},
    "irnn": {"cell": "rnn", "activation": "relu", "initialiser": "irnn"},
    "lstm forget 0": {"cell": "lstm", "forget_bias": 0.0},
    "lstm forget 1": {"cell": "lstm", "forget_bias": 1.0},
    "gru": {"cell": "gru"},
}
TASKS = ("adding", "recall")
LEARNED_LOSS, LEARNED_ACCURACY = 0.05, 0.9
VANISHED = 1e-6  # of the last part's gradient
ZEROS = 1e-55  # lower end of the axis: there is room for zeros below the smallest float32, 1e-45
EPOCH = 50  # steps between looks at the test sequences
SEQUENCES = 4000  # to train on; then they come again


@dataclass(frozen=True, kw_only=True)
class RnnLstm(Study):
    """Two tasks whose answer is told at the end of a sequence; Adam, gradients clipped to norm 1.

    `adding`: the sum of two marked numbers, one of them in the first half (Hochreiter & Schmidhuber 1997); learned at a mean squared error
    of 0.05, where answering 1 always gives 0.167. `recall`: one of eight symbols, shown at the first step (the copy task of Arjovsky et
    al. 2016 with one symbol); learned at an accuracy of 0.9. A run ends when it has learned its task, or after `steps`. Each network has
    the rate of a few that served it best over 100 steps, where it learns there.

    About 9 minutes on one core.

    Attributes:
        task: `adding` and `recall`.
        length: Steps of a sequence.
        network: Networks as `name at rate`; names are `rnn` (tanh, torch's initialiser), `rnn orthogonal`, `irnn` (ReLU, identity),
            `lstm forget 0`, `lstm forget 1` (its bias) and `gru`.
        hidden: Units.
        steps: Training steps at most, in fifties.
        batch_size: Sequences a step.
        tested: Test sequences.
        chunk: Number of networks that are trained as one.
    """

    name: ClassVar[str] = "rnn-lstm"
    number: ClassVar[str] = "S11"
    question: ClassVar[str] = "Over how many steps do plain recurrent networks, LSTMs and GRUs learn, and does their first gradient tell?"
    shown: ClassVar[tuple[str, ...]] = ("learned", "sequences", "test_loss", "gradient_ratio", "gradient_ratio_end", "zero_fraction")
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            arm={"task": "adding", "length": 100, "network": "lstm forget 0 at 0.05"},
            value="sequences",
            number=74_000,
            source="Hochreiter & Schmidhuber 1997, experiment 4 (one sequence a step, no forget gate, a stricter criterion)",
        ),
    )

    task: tuple[str, ...] = TASKS
    length: tuple[int, ...] = (50, 100, 200, 400)
    network: tuple[str, ...] = (
        *("rnn at 0.001", "rnn orthogonal at 0.001", "irnn at 0.0001"),
        *("lstm forget 0 at 0.05", "lstm forget 1 at 0.05", "gru at 0.05"),
    )
    hidden: int = 32
    steps: int = 800
    batch_size: int = 16
    tested: int = 128
    chunk: int = 16
    seeds: int = 4

    @classmethod
    def quick(cls) -> Self:
        """One task, two short lengths, three small networks, two seeds, 100 steps."""
        network = ("rnn at 0.001", "rnn orthogonal at 0.001", "lstm forget 1 at 0.05")
        return cls(task=("recall",), length=(5, 10), network=network, hidden=8, steps=100, batch_size=8, tested=32, seeds=2)

    def __post_init__(self) -> None:
        for task in self.task:
            if task not in TASKS:
                raise unknown("task", task, TASKS)
        for network in self.network:
            parsed(network)

    def arms(self) -> Sequence[Arm]:
        """The grid."""
        return [{"task": task, "length": n, "network": network} for task in self.task for n in self.length for network in self.network]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Networks of one cell on one task and length are trained together."""
        parts: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in cells:
            options = parsed(cell.arm["network"])[0]
            parts.setdefault((cell.arm["task"], cell.arm["length"], options["cell"], options.get("activation")), []).append(cell)
        return [own[i : i + self.chunk] for own in parts.values() for i in range(0, len(own), self.chunk)]

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Trains the cells' networks as one, until all have learned."""
        task, part = cells[0].arm["task"], EPOCH * self.batch_size
        data = sequences(task, cells[0].arm["length"], max(part, SEQUENCES), self.tested)
        inputs, outputs, goal = (2, 1, ("loss", LEARNED_LOSS)) if task == "adding" else (10, 8, ("accuracy", LEARNED_ACCURACY))
        chosen = [parsed(cell.arm["network"]) for cell in cells]
        nets = [Recurrent(inputs=inputs, outputs=outputs, hidden=self.hidden, **options) for options, _ in chosen]
        runs = Runs([net.build(cell.seed) for net, cell in zip(nets, cells, strict=True)])
        plan = Plan(
            loss=runs_loss("auto", data.y_train, outputs),
            optimizers=tuple(Adam(lr=rate) for _, rate in chosen),
            seeds=tuple(cell.seed for cell in cells),
            epochs=math.ceil(self.steps / EPOCH),
            batch_size=self.batch_size,
            clips=(Clip(kind="norm", threshold=1.0),) * len(cells),
        )
        watch = UntilLearned(data, plan.loss, runs.count, part=part, goal=goal)
        fit(runs, watch.samples, plan, probe=watch)
        watch.finish(runs)
        return [self._row(cell, watch.epochs[k], *watch.end(k)) for k, cell in enumerate(cells)]

    def _row(self, cell: Cell, epochs: float, values: dict[str, float], series: dict[str, Array]) -> Row:
        values |= {
            "sequences": epochs * EPOCH * self.batch_size if values["learned"] else math.nan,
            "gradient_ratio": _ratio(series["gradient_start"]),
            "gradient_ratio_end": _ratio(series["gradient_end"]),
            "zero_fraction": float(series["zeros_start"][0]),
            "diverged": float(not math.isfinite(values["test_loss"])),
        }
        return Row(cell.arm, cell.seed, values, series)

    def answer(self, rows: Rows) -> str:
        """How far each network gets, the published number of sequences, and whether the gradient at the start foretells it."""
        told = [self._of_task(rows.where(task=task), task) for task in self.task]
        told += [_of_published(rows, p) for p in self.comparable()]
        return "\n".join(filter(None, [*told, _of_gradients(rows), _of_zeros(rows), _of_divergence(rows)]))

    def _of_task(self, rows: Rows, task: str) -> str:
        reaches = {network: _reach(rows.where(network=network)) for network in _networks(rows)}
        if not reaches:
            return ""
        least = min(arm["length"] for arm in rows.arms())
        ordered = sorted(reaches, key=lambda network: -reaches[network])
        far = [f"{network} over {reaches[network]} steps" for network in ordered if reaches[network]]
        none = [network for network in ordered if not reaches[network]]
        within = f"{task}, within {self.steps * self.batch_size:,} sequences: "
        return within + "; ".join([*far, *([f"not over {least} steps: {', '.join(none)}"] if none else [])]) + "."

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Who learns how far, and the gradient through time before and after."""
        longest = max((arm["length"] for arm in rows.arms()), default=0)
        drawn = {
            "Share of seeds that learn": lambda: self._shares(rows),
        }
        for when, words in (("start", "before training"), ("end", "at the end of training")):
            caption = f"Gradient at each part of a sequence of {longest} steps {words}, over that at its last part; ticks: exactly zero"
            drawn[caption] = partial(self._gradients, rows.where(length=longest), when)
        return drawn

    def _shares(self, rows: Rows) -> Figure:
        figure, axes = figures.panels(max(1, len(_tasks(rows))), columns=2, size=(4.6, 2.8))
        lengths, names = sorted({arm["length"] for arm in rows.arms()}), _networks(rows)
        for ax, task in zip(axes, _tasks(rows), strict=False):
            grid = [[_mean(rows.where(task=task, network=name, length=n).values("learned")) for n in lengths] for name in names]
            figures.heatmap(ax, np.array(grid), rows=names, columns=lengths, low=0.0, high=1.0)
            figures.label(ax, title=task, x="steps of a sequence")
        return figure

    def _gradients(self, rows: Rows, when: str) -> Figure:
        figure, axes = figures.panels(max(1, len(_tasks(rows))), columns=2, size=(4.6, 3.2))
        for ax, task in zip(axes, _tasks(rows), strict=False):
            for i, network in enumerate(_networks(rows)):
                sizes, zeros = (rows.where(task=task, network=network).series(f"{name}_{when}") for name in ("gradient", "zeros"))
                if not sizes.size:
                    continue
                middle, gone = np.median(sizes, 0), np.median(zeros, 0) == 1
                time, share = (np.arange(len(middle)) + 0.5) / len(middle), middle / middle[-1] if middle[-1] else np.nan * middle
                color, dashes = figures.PALETTE[i % len(figures.PALETTE)], figures.DASHES[i % len(figures.DASHES)]
                ax.plot(time, np.where(share > 0, share, np.nan), color=color, linestyle=dashes, linewidth=1.5, label=network)
                ax.plot(time[gone], np.full(gone.sum(), 0.02 + 0.03 * i), "|", color=color, transform=ax.get_xaxis_transform())
            ax.set_yscale("log")
            ax.set_ylim(bottom=ZEROS)
            figures.label(ax, title=task, x="time, as a share of the sequence", y="gradient over that of the last part")
        figures.legend(axes[-1], loc="center left", bbox_to_anchor=(1, 0.5))
        return figure


def parsed(network: str) -> tuple[dict[str, Any], float]:
    """Returns the options of `Recurrent` and the learning rate that `lstm forget 1 at 0.05` names.

    Raises:
        UnknownNameError: if there is no such network.
        InputError: if there is no rate.
    """
    name, _, rate = network.partition(" at ")
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    try:
        return NETWORKS[name], float(rate)
    except ValueError:
        raise InputError(f"a network is written as name and learning rate, such as 'gru at 0.05'; got {network!r}") from None


def sequences(task: str, length: int, n: int, tested: int) -> Split:
    """Returns `n` sequences of `length` steps to train on, and some to test on; those of `recall` have 3 steps at least."""
    if task == "adding":
        return load("adding", length=length, n=n, n_test=tested)
    return load("copy_memory", delay=length - 2, length=1, n=n, n_test=tested, every_step=False)


def _ratio(gradient: Array) -> float:
    """What the first part of a sequence gets over what the last gets, NaN where that is nothing."""
    return float(gradient[0] / gradient[-1]) if gradient[-1] > 0 else math.nan


def _tasks(rows: Rows) -> list[str]:
    return list(dict.fromkeys(arm["task"] for arm in rows.arms()))


def _networks(rows: Rows) -> list[str]:
    return list(dict.fromkeys(arm["network"] for arm in rows.arms()))


def _learned(row: Row) -> bool:
    return row.values["learned"] == 1


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan


def _reach(rows: Rows) -> int:
    """The greatest length that most seeds learn, 0 for none."""
    return max((arm["length"] for arm, own in rows.by_arm() if own.values("learned").mean() > 0.5), default=0)


def _of_published(rows: Rows, p: Published) -> str:
    values = rows.where(**p.arm).values(p.value)
    if not len(values):
        return ""
    known = values[~np.isnan(values)]
    here = (
        f"a median of {number(float(np.median(known)))} in {len(known)} of {plural(len(values), 'seed')}" if len(known) else "none learns"
    )
    start = (
        f"{p.arm['network']}, adding over {p.arm['length']} steps: published {number(p.number)} sequences (Hochreiter & Schmidhuber 1997)"
    )
    return f"{start}, here {here}; {verdict(p.number, values, higher_is_better=False)}."


def _of_gradients(rows: Rows) -> str:
    """How many learn of those whose gradient vanishes at first, and of those whose does not."""
    vanished, kept = ([row for row in rows if (row.values["gradient_ratio"] >= VANISHED) is kind] for kind in (False, True))
    if not vanished:
        return ""
    learned = [row.values["gradient_ratio_end"] for row in vanished if row.values["learned"]]
    later = f" (by then it gets {number(quantile(learned, 0.5))} of it, median)" if learned else ""
    others = f"; of the other {len(kept)}, {sum(row.values['learned'] == 1 for row in kept)}" if kept else ""
    return (
        f"Of {plural(len(vanished), 'run')} in which the first 32nd of a sequence gets less than {number(VANISHED)} of the gradient that "
        f"the last gets before training, {len(learned)} learn{later}{others}."
    )


def _of_zeros(rows: Rows) -> str:
    """Whose gradients are exactly zero at the first part of a sequence."""
    longest = max((arm["length"] for arm in rows.arms()), default=0)
    found = rows.where(length=longest)
    gone = {network: _mean(found.where(network=network).values("zero_fraction")) for network in _networks(found)}
    named = [f"{network} ({percent(share)})" for network, share in gone.items() if share > 0]
    told = f"Over {longest} steps the gradient there is exactly zero, less than the smallest float, in {', '.join(named)}."
    return told if named else ""


def _of_divergence(rows: Rows) -> str:
    """Who ended without a finite loss."""
    gone = [row for row in rows if row.values["diverged"]]
    named = ", ".join(dict.fromkeys(f"{row.arm['network']} ({row.arm['task']} over {row.arm['length']} steps)" for row in gone))
    return f"{plural(len(gone), 'run')} diverged: {named}." if gone else ""
