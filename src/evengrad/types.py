"""The values that flow through the house: layers and traces in, findings, proposals and outcomes out (numpy only)."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Hashable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError

T = TypeVar("T")

Floats = npt.NDArray[np.float32]
Series = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]

SEVERITIES = ("error", "warning", "note")  # strongest first
SYMPTOMS = (  # what is told first comes first
    *("nan_or_inf", "exploding_gradient", "vanishing_gradient", "zero_gradient", "signal_collapse", "dead_relu", "saturated_activation"),
    *("loss_divergence", "loss_stuck", "plateau", "slow_convergence", "oscillating_loss", "loss_spike", "constant_output"),
    *("train_eval_gap", "no_parameter_update", "identical_units", "huge_initial_loss", "overfitting", "generalization_failure"),
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One row of a trace: a module that owns a weight, and what follows it.

    Attributes:
        name: Fully qualified module name; a stacked RNN has one row a level (`rnn.l0`), attention `in_proj` and `out_proj`.
        kind: `linear`, `conv`, `conv_transpose`, `rnn`, `lstm`, `gru`, `attention`, `norm`, `prelu`, `embedding` or `unknown`.
        depth: Order in which data meets the row, from 1; None for rows that never enter a slope (norm, PReLU, embedding).
        group: Rows with the same number have equal kind and shape and lie on one trunk; None where depth is None.
        trunk: Rows with the same number have equal kind and lie on one trunk, whatever their shape; None where depth is None.
        fan_in: Inputs that one output element sums over.
        fan_out: Outputs that one input element reaches.
        parameters: Number of parameters the row owns.
        weight: Fully qualified name of its weight parameter.
        bias: Fully qualified name of its bias parameter, or None.
        activation: Canonical name of the activation that follows (`relu`, `tanh`, ...), `none`, or `unknown`.
        activation_options: Options of that activation, such as `{"negative_slope": 0.2}`.
        activation_module: Name of the module in whose forward that activation ran ("" is the model itself), or None.
        norm: `batch_norm`, `layer_norm`, `group_norm`, `instance_norm`, `rms_norm` or `none`: the norm met before the activation.
        norm_module: Name of that norm's module, or None.
        residual: True if the row lies on a branch that is added back to the trunk.
    """

    name: str
    kind: str
    depth: int | None
    group: int | None
    trunk: int | None
    fan_in: int
    fan_out: int
    parameters: int
    weight: str
    bias: str | None = None
    activation: str = "unknown"
    activation_options: dict[str, float] = field(default_factory=dict)
    activation_module: str | None = None
    norm: str = "none"
    norm_module: str | None = None
    residual: bool = False


@dataclass(frozen=True)
class Curve:
    """A scalar at its own steps: `steps` int64 (N,), `values` float64 (N,)."""

    steps: Steps
    values: Series


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was looked at: who, on what, how long.

    Attributes:
        name: What the user calls it, such as `stuck.py:experiment`.
        model: Class name of the model.
        parameters: Number of trainable parameters.
        samples: Samples in the batch.
        seed: Seed of the run.
        device: Device the model ran on.
        seconds: Wall-clock seconds that measuring took.
        verb: `check`, `diagnose`, `fix`, `watch` or `study`.
        unseen: Topic -> why it was not looked at, as far as only the run itself can tell.
    """

    name: str
    model: str
    parameters: int
    samples: int
    seed: int = 0
    device: str = "cpu"
    seconds: float = 0.0
    verb: str = "check"
    unseen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Direct evidence beside the columns; a member that is None makes the rules that need it skipped.

    Attributes:
        inputs: shape, mean, std, min, max, feature_mean_abs_max, feature_std_min, feature_std_max, nonfinite_fraction, feature_axis.
        targets: shape, dtype, min, max, mean, std, samples (looked at), labels (counts, for whole numbers), and how far near inputs have
            like targets: neighbour_agreement beside neighbour_chance (what shuffled targets would give).
        head: layer and activation, and of the output: width, shape, mean, std, min, max, row_sum (of the last axis, where it is constant),
            reach (least and largest value whatever the weights, None for no end) and noise (share of its variance over samples that another
            draw of dropout changes).
        loss: name, value at step 0, reduction, op (`cross_entropy`, `nll`, `bce`, `bce_with_logits`, `mse`, `l1`, `smooth_l1` or `other`),
            operations (torch functions that it calls), terms (where it adds up several of these: op, weight in the whole, and dtype, min,
            max, mean and std of the targets that it gets), baseline (of the best constant answer), batch_growth (the loss of a batch over
            that of its half: 1 for a mean, 2 for a sum), pairing (relative change of the loss when each answer gets another sample's
            target: 0 where it does not compare them one by one), toward_targets (in [-1, 1]: 1 if less loss means answers nearer to the
            targets), what right answers get (floor, free_floor, blind_to, blindness: `trace.loss_probe`), what answers free of any network
            come to (arrives, endless, softened: `trace.free_answers`), and descent (its change along minus its gradient, as a share of
            what the gradient foretells).
        optimizer: name, lr, initial_lr (that a schedule starts from), weight_decay, momentum, dampening, eps, maximize, missing (trainable
            parameters that it does not have), foreign (number of its parameters that the model does not have), frozen (parameters with
            requires_grad off), unowned (number of parameters behind the loss that neither the model nor the optimizer has).
        modules: norms (of each: name, kind, training as the user's step leaves it, momentum, eps, tracks, values: that each channel's
            statistics are taken over), dropouts (name, kind, p, training), dtypes (of the parameters), forget_bias (of LSTM rows),
            post_norms (norms that stand behind a residual addition), between (what lies between rows, asked with noise:
            `trace.between_probe`).
        loop: what training does: standard (no train_step of the user's), scheduler (it has one), samples, batch_size, epochs, steps
            (planned), and accumulated (1 where what a step used beyond the batch's own gradient is what the step before used: gradients
            that are not zeroed); of a user's own step also optimizer_steps and model_calls a batch, piece (samples of a call), and, where
            training goes badly, asked, mismatched, rounded_state, rounded_gradients, overflown and set_back (`trace.step_probe`).
        mode: `train` or `eval`.
        edges: which row feeds which, as pairs of row indices.
    """

    inputs: dict[str, Any] | None = None
    targets: dict[str, Any] | None = None
    head: dict[str, Any] | None = None
    loss: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    modules: dict[str, Any] | None = None
    loop: dict[str, Any] | None = None
    mode: str | None = None
    edges: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened at one step of a training, and is worth a line of the report.

    Attributes:
        step: The step.
        kind: `skip`, `clip`, `rollback` or `stop` (a guard stepped in), `scaler_skip` (GradScaler left the step out), `bad_operation` (the
            first operation that made a value that is not finite) or `fault` (watching itself stopped).
        message: One sentence with its number and place.
        where: Fully qualified module name, where it has a place.
    """

    step: int
    kind: str
    message: str
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Everything that was seen of one run, columnar: a check is a trace of one step, training one of many.

    Attributes:
        run: What was looked at.
        layers: L rows in the order in which data meets them.
        facts: Direct evidence.
        steps: int64 (S,), the sampled steps.
        columns: name -> float32 (S, L), a value a layer and sampled step; NaN where unseen.
        curves: name -> Curve at its own steps (loss, accuracy, lr, grad_norm ...).
        planes: name -> float32 (S, L, K), such as histograms.
        events: What happened once, in order.
    """

    run: Run
    layers: tuple[Layer, ...]
    facts: Facts = field(default_factory=Facts)
    steps: Steps = field(default_factory=lambda: np.zeros(1, np.int64))
    columns: dict[str, Floats] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    planes: dict[str, Floats] = field(default_factory=dict)
    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.steps), len(self.layers))
        for name, column in self.columns.items():
            if column.shape != shape:
                raise InputError(f"column {name!r} has shape {column.shape}; expected (steps, layers) = {shape}")

    def column(self, name: str) -> Floats:
        """Returns the column `name` (S, L), all NaN if it was not recorded."""
        found = self.columns.get(name)
        return np.full((len(self.steps), len(self.layers)), np.nan, np.float32) if found is None else found

    def at(self, step: int) -> Trace:
        """Returns the trace of one sampled step.

        Raises:
            InputError: if that step was not sampled.
        """
        index = np.flatnonzero(self.steps == step)
        if not len(index):
            raise InputError(f"step {step} was not sampled; sampled steps run from {self.steps[0]} to {self.steps[-1]}")
        return self._take(index)

    def until(self, step: int) -> Trace:
        """Returns what was seen before `step`, curves too."""
        seen = self._take(np.flatnonzero(self.steps < step))
        curves = {k: Curve(c.steps[c.steps < step], c.values[c.steps < step]) for k, c in self.curves.items()}
        return replace(seen, curves=curves, events=tuple(e for e in self.events if e.step < step))

    def seen(self, names: Collection[str]) -> Trace:
        """Returns the sampled steps at which each of these columns has a value."""
        if not names:
            return self
        return self.once(("seen", *names), lambda: self._seen(names)) or self

    def _seen(self, names: Collection[str]) -> Trace | None:
        """None for all of them: a trace that held itself would outlive its last user."""
        index = np.flatnonzero(np.logical_and.reduce([*map(self.has, names)]))
        return None if len(index) == len(self.steps) else self._take(index)

    def has(self, name: str) -> npt.NDArray[np.bool_]:
        """Returns at which sampled steps (S,) a column has a value."""
        return self.once(("has", name), lambda: np.asarray(~np.isnan(self.column(name)).all(1)))

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """Returns what `work` makes of this trace, made the first time that this key is asked for: rules ask for the same things."""
        known: dict[Hashable, T] = self.__dict__.setdefault("_known", {})
        if key not in known:
            known[key] = work()
        return known[key]

    def window(self, n: int) -> Trace:
        """Returns the last n sampled steps (all, if there are fewer)."""
        return self._take(np.arange(max(0, len(self.steps) - n), len(self.steps)))

    def _take(self, index: npt.NDArray[np.int64]) -> Trace:
        return replace(
            self,
            steps=self.steps[index],
            columns={k: v[index] for k, v in self.columns.items()},
            planes={k: v[index] for k, v in self.planes.items()},
        )

    def save(self, path: str | Path) -> None:
        """Writes the trace as one compressed .npz file (exact; holds no pickled object)."""
        header: dict[str, Any] = {"run": asdict(self.run), "layers": [asdict(x) for x in self.layers], "facts": asdict(self.facts)}
        header["events"] = [asdict(x) for x in self.events]
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header)), "steps": self.steps}
        arrays |= {f"column/{k}": v for k, v in self.columns.items()} | {f"plane/{k}": v for k, v in self.planes.items()}
        for name, curve in self.curves.items():
            arrays |= {f"curve/{name}/steps": curve.steps, f"curve/{name}/values": curve.values}
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **arrays)

    @staticmethod
    def load(path: str | Path) -> Trace:
        """Reads what `save` wrote.

        Raises:
            InputError: if the file is not a saved trace.
        """
        try:
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {k: file[k] for k in file.files}
            header = json.loads(str(arrays["header"]))
        except (KeyError, ValueError, OSError, BadZipFile) as error:
            raise InputError(f"{path} is not a trace saved by evengrad ({error})") from error
        curves = {k.split("/")[1] for k in arrays if k.startswith("curve/")}
        facts = header["facts"]
        edges = facts.pop("edges", None)
        return Trace(
            run=Run(**header["run"]),
            layers=tuple(Layer(**x) for x in header["layers"]),
            facts=Facts(**facts, edges=None if edges is None else tuple((int(a), int(b)) for a, b in edges)),
            steps=arrays["steps"],
            columns={k.removeprefix("column/"): v for k, v in arrays.items() if k.startswith("column/")},
            planes={k.removeprefix("plane/"): v for k, v in arrays.items() if k.startswith("plane/")},
            curves={k: Curve(arrays[f"curve/{k}/steps"], arrays[f"curve/{k}/values"]) for k in sorted(curves)},
            events=tuple(Event(**x) for x in header.get("events", ())),
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One measured number beside the threshold it crossed: `value relation threshold`, in `unit`, at `where` and `step`."""

    signal: str
    value: float
    relation: str
    threshold: float
    unit: str = ""
    where: str = ""
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule saw: the number and the place, then the consequence.

    Attributes:
        code: Stable code of the rule, such as `VAN001`.
        symptom: A word of the symptom vocabulary, or None where the fault is structural.
        severity: `error`, `warning` or `note`.
        message: One sentence with its number and place.
        evidence: The numbers behind it, the deciding one first.
        where: Fully qualified module names, worst first.
        steps: First and last step at which it was seen.
        cause: A word of the cause vocabulary once an intervention or direct evidence has named it, else None.
        effect_of: Code of the finding that this one follows from, or None where it stands by itself.
    """

    code: str
    symptom: str | None
    severity: str
    message: str
    evidence: tuple[Evidence, ...] = ()
    where: tuple[str, ...] = ()
    steps: tuple[int, int] = (0, 0)
    cause: str | None = None
    effect_of: str | None = None


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A change that a remedy offers, as pure data: it can be stored, applied to a Rig, undone and shown as code.

    Attributes:
        remedy: Name of the remedy that applies it, such as `swap_activation`.
        options: The remedy's own options (JSON values).
        where: Names of the rows it changes; empty means the whole model.
        cause: The cause it would remove, a word of the vocabulary.
        summary: A few words for a table: `swap_activation sigmoid -> tanh (Glorot)`.
        code: What to change in one's own code; lines that start with `-` go, with `+` come.
        needs: What it needs beyond a model (`optimizer`).
        risk: What it may cost, in words.
    """

    remedy: str
    options: dict[str, Any] = field(default_factory=dict)
    where: tuple[str, ...] = ()
    cause: str = ""
    summary: str = ""
    code: str = ""
    needs: tuple[str, ...] = ()
    risk: str = ""


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One proposal tried on a copy with the same batch: what the failing signal was before and after.

    Attributes:
        proposal: What was changed.
        cause: The cause that the change would remove.
        code: Code of the finding whose signal was measured again.
        signal: Name of the deciding signal, such as `gradient_gain`.
        before: Its value before.
        after: Its value after (median over repeats for random changes).
        unit: Unit of both.
        restored: True if the signal came into its healthy range.
        findings: Codes of the findings of that rule's kind that remained.
    """

    proposal: Proposal
    cause: str
    code: str
    signal: str
    before: float
    after: float
    unit: str = ""
    restored: bool = False
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A set of proposals tried by training: the metric of each seed before and after, paired.

    Attributes:
        proposals: What was changed together.
        seeds: The seeds (K,), the same for both sides.
        before: Metric of the unchanged experiment for each seed (K,); a non-finite metric counts as the worst.
        after: Metric with the proposals for each seed (K,).
        metric: Name of the metric.
        maximize: True if larger is better.
        seconds: Wall-clock seconds of the trial.
        findings: Codes of the error findings that remain with the proposals, judged on the first seed.
        verdict: `fixed`, `improved` or `no_better`.
    """

    proposals: tuple[Proposal, ...]
    seeds: tuple[int, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    metric: str = "accuracy"
    maximize: bool = True
    seconds: float = 0.0
    findings: tuple[str, ...] = ()
    verdict: str = "no_better"
