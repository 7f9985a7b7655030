"""ARC002: what the model puts out does not fit what the loss takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import progress
from evengrad.types import Evidence, Facts, Finding, Trace

_NUMBERS = {"mse", "l1", "smooth_l1"}
_RANGES = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, np.inf), "relu6": (0.0, 6.0)}
_RANGES |= {"softplus": (0.0, np.inf), "exp": (0.0, np.inf), "hardtanh": (-1.0, 1.0), "hardsigmoid": (0.0, 1.0), "elu": (-1.0, np.inf)}
_BEYOND = 100.0  # times the size of the targets
_UNPAIRED = 1e-5  # relative: rounding of a mean over all pairs
_RESHAPES = {"squeeze", "unsqueeze", "view", "reshape", "flatten", "ravel", "view_as", "reshape_as", "expand_as", "select", "__getitem__"}
_LOSSES = {"cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "l1_loss", "smooth_l1_loss"}
_PARTS = {"__getitem__", "select", "split", "chunk", "unbind", "narrow", "index_select", "tensor_split"}
_ENCODES = {"one_hot", "scatter", "scatter_", "eye", "__getitem__", "index_select", "to", "float", "type", "type_as"}


_SPOILT = {
    "answers": "every answer becomes the targets' mean",
    "order": "each sample gets the answer of another",
    "size": "all answers are three times as large",
    "level": "all answers are two deviations higher",
    "sign": "all answers change their sign",
    "label": "each sample gets the answer of another class",
}


@dataclass(frozen=True)
class Mismatch:
    """A head that does not fit its loss: its cause, what is wrong, and the number that shows it; some networks learn in spite of it."""

    cause: str
    message: str
    evidence: Evidence
    where: str = "head"
    harmless_from: float = np.inf  # share of the loss that is gone in spite of it


@dataclass(frozen=True, kw_only=True)
class HeadAndLoss(Rule):
    """The loss applies an activation of its own, cannot reach the targets through the one before it, or compares other things.

    Cross-entropy takes logits: after a softmax or sigmoid its least value for C classes is log(1 + (C - 1) / e), not 0, and most of
    the gradient is gone. A ReLU, sigmoid or tanh in front of targets outside its range leaves an error that no weights remove. An output
    (N, 1) against targets (N,) compares every sample with every other, and the best answer is their mean.

    Attributes:
        max_outside: Largest healthy distance of a target from what the output's activation reaches, in deviations of the targets.
        max_classes_as_numbers: Most distinct labels that a regression on whole numbers is told about: more are counts or ages.
        max_floor: Largest healthy loss of right answers, as a share of the best constant answer's loss, in [0, 1].
        max_blindness: Largest healthy share of the constant answer's distance that a wrong answer is spared, in [0, 1].
        min_arrives: Smallest healthy share of answers that come to the right class where nothing but the loss moves them, in [0, 1].
        max_softened: Largest healthy least loss of softened targets, as a share of the best constant answer's loss, in [0, 1].

    Reference: Goodfellow, Bengio & Courville 2016, sec. 6.2.2; Bridle 1990 (softmax).
    """

    code: ClassVar[str] = "ARC002"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "the output does not fit the loss"
    causes: ClassVar[tuple[str, ...]] = ("redundant_output_activation", "wrong_output_activation", "wrong_loss", "over_regularized")
    needs: ClassVar[tuple[str, ...]] = ("facts.head", "facts.loss", "facts.targets")
    signal: ClassVar[tuple[str, str]] = ("mismatches", "places")
    helps: ClassVar[str] = (
        "logits into CrossEntropyLoss and BCEWithLogitsLoss; no activation before a loss on numbers; outputs and targets of one shape"
    )
    max_outside: float = 0.5
    max_classes_as_numbers: int = 30
    max_floor: float = 0.25
    max_blindness: float = 0.98
    min_arrives: float = 0.9
    max_softened: float = 0.75

    def check(self, trace: Trace) -> Iterator[Finding]:
        ran = progress(trace)
        for found in self._mismatches(trace):
            well = ran is not None and min(0.9, found.harmless_from) <= ran.learnt <= 1.0  # below zero is no good end
            sure = not np.isfinite(found.harmless_from) or ran is not None
            severity = "note" if well and np.isfinite(found.harmless_from) else "error" if sure and not well else "warning"
            head = (trace.facts.head or {}).get("layer")
            known = head in {layer.name for layer in trace.layers}
            where = (str(head),) if found.where == "head" and known else ("loss",)
            made = self.finding(trace, severity, found.message, evidence=(found.evidence,), where=where, at=(0, len(trace.steps) - 1))
            yield replace(made, cause=found.cause)

    def value(self, trace: Trace) -> float:
        return float(len(list(self._mismatches(trace))))

    def _mismatches(self, trace: Trace) -> Iterator[Mismatch]:
        """The first of these that holds: one mistake often looks like two."""
        head, loss, targets = trace.facts.head or {}, trace.facts.loss or {}, trace.facts.targets or {}
        looks = (_one_unit, _before_logits, _before_log, _broadcast, self._kind, self._led, self._blind, self._floor, self._range)
        yield from [found for look in looks if (found := look(head, loss, targets)) is not None][:1]

    def _kind(self, head: dict[str, Any], loss: dict[str, Any], targets: dict[str, Any]) -> Mismatch | None:
        """A loss for another kind of targets."""
        if loss.get("terms") or _picks(loss):  # each of several takes a part of the targets, and what they are together says nothing
            return None
        op, labels = loss.get("op"), targets.get("labels") or {}
        whole = "int" in str(targets.get("dtype"))
        low, high = float(targets.get("min", 0.0)), float(targets.get("max", 0.0))
        if whole and op in _NUMBERS and 1 < len(labels) <= self.max_classes_as_numbers:
            message = f"{op} compares numbers, but the targets are {len(labels)} class labels: cross-entropy is made for those"
            evidence = Evidence(signal="classes", value=len(labels), relation=">", threshold=1, unit="labels", where="targets")
            return Mismatch("wrong_loss", message, evidence, "loss", harmless_from=0.5)
        if op in {"bce", "bce_with_logits"} and (high > 1 or low < 0) and not _encoded(loss):
            message = f"binary cross-entropy needs targets in [0, 1], but they run from {low:.3g} to {high:.3g}"
            far = max(high, 1.0 - low)
            evidence = Evidence(signal="largest_target", value=far, relation=">", threshold=1.0, where="targets")
            return Mismatch("wrong_loss", message, evidence, "loss")
        if op == "cross_entropy" and "float" in str(targets.get("dtype")) and (high > 1 + 1e-4 or low < -1e-4):
            message = f"cross-entropy needs labels or probabilities, but the targets are numbers from {low:.3g} to {high:.3g}"
            evidence = Evidence(signal="largest_target", value=max(high, 1.0 - low), relation=">", threshold=1.0, where="targets")
            return Mismatch("wrong_loss", message, evidence, "loss")
        return None

    def _led(self, head: dict[str, Any], loss: dict[str, Any], targets: dict[str, Any]) -> Mismatch | None:
        """A loss that takes answers somewhere else, or nowhere: found by letting the answers themselves walk down it."""
        if loss.get("toward_targets", 0.0) < -0.5:
            return None
        if loss.get("endless"):
            message = "answers that are free to move down this loss do not arrive: ×2 the way takes ×2 as much off it, without end"
            evidence = Evidence(signal="endless", value=1.0, relation=">", threshold=0.0, where="loss")
            return Mismatch("wrong_loss", message, evidence, "loss")
        arrives, softened = float(loss.get("arrives", 1.0)), float(loss.get("softened", 0.0))
        if arrives < self.min_arrives:
            message = (
                f"of answers that are free to move, {arrives:.0%} come to the right class down this loss: of the others it asks nothing"
            )
            evidence = Evidence(
                signal="arrives", value=arrives, relation="<", threshold=self.min_arrives, unit="of the answers", where="loss"
            )
            return Mismatch("wrong_loss", message, evidence, "loss")
        if softened > self.max_softened:
            message = (
                f"the least loss of any answer is {softened:.1%} of what the best constant answer loses, and surer ones lose more: targets "
                f"are smoothed until they say next to nothing"
            )
            evidence = Evidence(
                signal="softened", value=softened, relation=">", threshold=self.max_softened, unit="of the constant's loss", where="loss"
            )
            return Mismatch("over_regularized", message, evidence, "loss")
        return None

    def _blind(self, head: dict[str, Any], loss: dict[str, Any], targets: dict[str, Any]) -> Mismatch | None:
        """A loss that is as small for answers that are wrong: found by giving it the targets for answers, and then spoiling them."""
        blind, value = loss.get("blind_to"), float(loss.get("blindness", 0.0))
        if blind is None or not value > self.max_blindness or loss.get("toward_targets", 0.0) < -0.5:
            return None
        message = (
            f"the loss of right answers stays within {1 - value:.0%} of its range if {_SPOILT[blind]}: it does not ask for what is meant"
        )
        evidence = Evidence(signal="blindness", value=value, relation=">", threshold=self.max_blindness, unit="of the range", where="loss")
        return Mismatch("wrong_loss", message, evidence, "loss")

    def _floor(self, head: dict[str, Any], loss: dict[str, Any], targets: dict[str, Any]) -> Mismatch | None:
        """Class labels that no answer within reach gets a small loss for."""
        floor, free, op = float(loss.get("floor", 0.0)), float(loss.get("free_floor", 0.0)), loss.get("op")
        reach = head.get("reach") or (None, None)
        if not floor > self.max_floor or not (targets.get("labels") or str(op).startswith("bce")):
            return None
        evidence = Evidence(
            signal="floor", value=floor, relation=">", threshold=self.max_floor, unit="of the constant's loss", where="loss"
        )
        if free > self.max_floor:
            cause = "redundant_output_activation" if op in {"cross_entropy", "bce_with_logits"} else "wrong_loss"
            message = (
                f"the surest right answers still lose {floor:.0%} of what the best constant answer does: the loss squashes what it is given"
            )
            return Mismatch(cause, message, evidence, "loss", harmless_from=0.9)
        ends = [x for x in reach if x is not None]
        if op not in {"cross_entropy", "bce_with_logits", "other"} or not ends or floor - free < self.max_floor:
            return None
        low, high = ("-∞" if reach[0] is None else f"{reach[0]:.3g}"), ("∞" if reach[1] is None else f"{reach[1]:.3g}")
        message = (
            f"whatever the weights, the output stays within [{low}, {high}]; right answers lose {floor:.0%} of what the best constant "
            f"answer does"
        )
        shares = reach[0] is not None and reach[1] is not None and abs(reach[0]) < 1e-3 and abs(reach[1] - 1) < 1e-3
        logarithms = reach[0] is None and reach[1] is not None and abs(reach[1]) < 1e-3  # of shares
        cause = "redundant_output_activation" if shares or logarithms else "wrong_output_activation"
        return Mismatch(cause, message, evidence, harmless_from=0.9)

    def _range(self, head: dict[str, Any], loss: dict[str, Any], targets: dict[str, Any]) -> Mismatch | None:
        """Targets that the output's activation does not reach."""
        span, std = _span(head), float(targets.get("std") or 0.0)
        compared = loss.get("op") in _NUMBERS or float(loss.get("floor", 0.0)) > self.max_floor
        if not compared or span is None or "float" not in str(targets.get("dtype")) or not std > 0:
            return None
        low, high = float(targets.get("min", 0.0)), float(targets.get("max", 0.0))
        outside = max(span[0] - low, high - span[1]) / std
        if not outside > self.max_outside:
            return None
        reach = f"[{span[0]:.3g}, {span[1]:.3g}]" if np.isfinite(span).all() else f"{span[0]:.3g} and above"
        reach = f"{span[1]:.3g} and below" if np.isinf(span[0]) else reach
        last = _activation(head) if _activation(head) in _RANGES else "something"
        message = f"the output ends in {last}, which reaches {reach}, but the targets run from {low:.3g} to {high:.3g}"
        evidence = Evidence(signal="outside", value=outside, relation=">", threshold=self.max_outside, unit="deviations", where="targets")
        return Mismatch("wrong_output_activation", message, evidence, harmless_from=0.9)

    @classmethod
    def examples(cls) -> Examples:
        labels = {"dtype": "int64", "shape": [128], "min": 0.0, "max": 2.0, "labels": {"0": 40, "1": 44, "2": 44}}
        binary = {"dtype": "float32", "shape": [128, 1], "min": 0.0, "max": 1.0, "mean": 0.5, "std": 0.5}
        numbers = {"dtype": "float32", "shape": [128, 1], "min": -2.1, "max": 2.4, "mean": 0.0, "std": 1.0}
        logits = {"activation": "none", "width": 3, "shape": [128, 3], "min": -1.0, "max": 1.0}
        shares = {"activation": "softmax", "width": 3, "shape": [128, 3], "min": 0.1, "max": 0.8, "row_sum": 1.0}
        one = {"activation": "none", "width": 1, "shape": [128, 1], "min": -1.0, "max": 1.0}

        def net(head: dict[str, Any], op: str, targets: dict[str, Any], *operations: str, **loss: float | str) -> Trace:
            facts = Facts(head={"layer": "4", **head}, loss={"op": op, "operations": list(operations) or [op], **loss}, targets=targets)
            return synthetic.chain(3, facts=facts)

        sigmoid, relu = {**one, "activation": "sigmoid", "min": 0.2, "max": 0.9}, {**one, "activation": "relu", "min": 0.0}
        positive = {**numbers, "min": 0.0, "max": 3.0}
        return Examples(
            sick=(
                net(logits, "cross_entropy", labels, "softmax", "cross_entropy"),
                net(shares, "cross_entropy", labels),
                net({**logits, "activation": "relu", "min": 0.0}, "cross_entropy", labels),
                net(sigmoid, "bce_with_logits", binary),
                net({**shares, "width": 1, "shape": [128, 1], "min": 1.0, "max": 1.0}, "bce", binary),
                net(logits, "nll", labels),
                net(one, "mse", {**numbers, "shape": [128]}),
                net(one, "other", numbers, "reshape", "sub", "square", "mean", pairing=2e-7),
                net(one, "mse", labels, "mse_loss", "squeeze"),
                net(one, "bce_with_logits", {**labels, "shape": [128, 1]}),
                net(sigmoid, "mse", numbers),
                net(relu, "mse", {**numbers, "min": -0.6}),
                net({**one, "reach": [0.0, None], "activation": "unknown"}, "mse", numbers),
                net(one, "other", numbers, blind_to="size", blindness=1.0),
                net(logits, "other", labels, blind_to="label", blindness=0.99),
                net(logits, "cross_entropy", labels, "mul", "cross_entropy", floor=0.6, free_floor=0.6),
                net(one, "other", numbers, endless=1.0),
                net(logits, "cross_entropy", labels, arrives=0.88),
                net(logits, "cross_entropy", labels, arrives=1.0, softened=0.8),
                net({**logits, "reach": [-1.0, 1.0], "activation": "unknown"}, "cross_entropy", labels, floor=0.3, free_floor=0.0),
                net({**one, "reach": [None, 0.0], "activation": "unknown"}, "other", labels, floor=0.4, free_floor=0.0),
            ),
            healthy=(
                net(logits, "cross_entropy", labels),
                net({**logits, "activation": "log_softmax", "max": -0.1}, "nll", labels),
                net({**logits, "activation": "log_softmax", "max": -0.1}, "cross_entropy", labels),
                net(sigmoid, "bce", binary),
                net(one, "mse", {**numbers, "shape": [128]}, "squeeze", "mse_loss", pairing=0.05),
                net(sigmoid, "mse", binary),
                net(relu, "mse", positive),
                net(relu, "mse", {**numbers, "min": -0.4}),
                net({**relu, "reach": [None, None]}, "mse", numbers),
                net(one, "other", numbers, blind_to="size", blindness=0.9),
                net(logits, "cross_entropy", labels, floor=0.5),
                net(logits, "cross_entropy", labels, arrives=0.92, softened=0.7),
                net(logits, "cross_entropy", labels, floor=0.2, free_floor=0.2),
                net(logits, "cross_entropy", numbers, "__getitem__", "long", "cross_entropy", "mse_loss", "add"),  # two tasks
            ),
        )


def _span(head: dict[str, Any]) -> tuple[float, float] | None:
    """What the output reaches: measured, where it was; what its activation reaches, otherwise."""
    reach = head.get("reach")
    if reach is None:
        return _RANGES.get(_activation(head))
    low, high = (-np.inf if reach[0] is None else float(reach[0])), (np.inf if reach[1] is None else float(reach[1]))
    return None if np.isinf(low) and np.isinf(high) else (low, high)


def _activation(head: dict[str, Any]) -> str:
    """The output's activation, believed only where its values agree with it: something else can follow it."""
    name, low, high = str(head.get("activation")), head.get("min"), head.get("max")
    if low is None or high is None:
        return name
    total = head.get("row_sum")
    if total is not None and abs(total - 1.0) < 1e-3 and low >= 0:
        return "softmax"
    if name == "softmax" and total is not None:
        return "unknown"
    span = _RANGES.get(name, (-np.inf, np.inf))
    return name if span[0] - 1e-6 <= low and high <= span[1] + 1e-6 else "unknown"


def _one_unit(head: dict[str, Any], loss: dict[str, Any], targets: dict[str, Any]) -> Mismatch | None:
    """A softmax, or a cross-entropy, over one unit: its answer is 1 whatever the input."""
    op, width = loss.get("op"), int(head.get("width", 0))
    if width != 1 or len(head.get("shape", (0, 0))) != 2:
        return None
    evidence = Evidence(signal="outputs", value=1, relation="<", threshold=2, unit="units")
    if head.get("activation") in {"softmax", "log_softmax"}:
        return Mismatch("wrong_output_activation", f"a {head['activation']} over 1 unit answers the same whatever the input", evidence)
    if op in {"cross_entropy", "nll"} and "log_softmax" not in loss.get("operations", ()):
        return Mismatch("wrong_loss", "cross-entropy over 1 unit is 0 whatever the weights: it needs a unit a class", evidence, "loss")
    return None


def _before_logits(head: dict[str, Any], loss: dict[str, Any], targets: dict[str, Any]) -> Mismatch | None:
    """An activation before a loss that applies its own."""
    op, name = loss.get("op"), _activation(head)
    if op not in {"cross_entropy", "bce_with_logits"}:
        return None
    own = "log-softmax" if op == "cross_entropy" else "sigmoid"
    called = next((word for word in loss.get("operations", ()) if word in {"softmax", "sigmoid"}), None)
    if called is not None:
        evidence = Evidence(signal="activations_in_the_loss", value=1, relation=">", threshold=0, unit="calls", where="loss")
        message = f"the loss calls {called} and then 1 {op}, which applies {own} again"
        return Mismatch("redundant_output_activation", message, evidence, "loss", harmless_from=0.9)
    span = _RANGES.get(name)
    if span is None:
        return None
    low, high = float(head.get("min", span[0])), float(head.get("max", span[1]))
    width = int(head.get("width", 2))
    if name in {"softmax", "sigmoid"}:
        floor = np.log1p((width - 1) / np.e) if op == "cross_entropy" else np.log1p(1 / np.e)
        least = f": the loss of a sure and right answer is {floor:.2f}, not 0"
        message = f"the output ends in {name} (values from {low:.2g} to {high:.2g}), and {op} applies {own} again{least}"
        evidence = Evidence(signal="least_loss", value=float(floor), relation=">", threshold=0.0, where="loss")
        return Mismatch("redundant_output_activation", message, evidence)
    cut = "all values below 0 are cut off" if name.startswith("relu") else f"no logit is beyond {span[1]:g}"
    message = f"the output ends in {name} (values from {low:.2g} to {high:.2g}), and {op} takes logits: {cut}"
    evidence = Evidence(signal="least_logit", value=low, relation=">=", threshold=span[0])
    return Mismatch("wrong_output_activation", message, replace(evidence, threshold=min(low, span[0])), harmless_from=0.9)


def _before_log(head: dict[str, Any], loss: dict[str, Any], targets: dict[str, Any]) -> Mismatch | None:
    """A negative log-likelihood of something that is no log-probability."""
    logs = {"log_softmax", "log", "logsigmoid", "logsumexp"} & set(loss.get("operations", ()))
    high = head.get("max")
    if loss.get("op") != "nll" or logs or high is None or not high > 1e-4:
        return None
    name = _activation(head)
    message = f"nll_loss takes log-probabilities, which are at most 0, but the output reaches {high:.3g} (activation: {name})"
    evidence = Evidence(signal="largest_output", value=float(high), relation=">", threshold=0.0)
    return Mismatch("wrong_loss" if name == "none" else "wrong_output_activation", message, evidence)


def _broadcast(head: dict[str, Any], loss: dict[str, Any], targets: dict[str, Any]) -> Mismatch | None:
    """A loss that compares every answer with every target: shapes that broadcast to all pairs of samples."""
    pairing, reached = loss.get("pairing"), max(abs(head.get("min") or 0.0), abs(head.get("max") or 0.0))
    beyond = reached > _BEYOND * math.hypot(targets.get("mean") or 0.0, targets.get("std") or 0.0) > 0  # any target is as far from these
    if pairing is not None and pairing < _UNPAIRED and not beyond:
        message = f"the loss changes by {pairing:.0e} when every answer gets another sample's target: it does not compare them one by one"
        evidence = Evidence(signal="pairing", value=float(pairing), relation="<", threshold=_UNPAIRED, unit="of the loss", where="loss")
        return Mismatch("wrong_loss", message, evidence, "loss")
    out, wanted, calls = list(head.get("shape", ())), list(targets.get("shape", ())), set(loss.get("operations", ()))
    compares = loss.get("op") in _NUMBERS or (loss.get("op") == "other" and calls & {"sub", "__sub__", "rsub", "__rsub__"})
    if not compares or calls & _RESHAPES or not out or not wanted or out[0] != wanted[0] or out[0] < 2:
        return None
    n = out[0]
    if sorted((out, wanted)) != [[n], [n, 1]]:
        return None
    shapes = f"outputs {tuple(out)} against targets {tuple(wanted)}"
    message = f"{shapes} are compared in all {n * n:,} pairs of samples: the best answer is the targets' mean"
    evidence = Evidence(signal="compared_pairs", value=n * n, relation=">", threshold=n, unit="pairs")
    return Mismatch("wrong_loss", message, evidence, "loss")


def _picks(loss: dict[str, Any]) -> bool:
    """True if several losses are added up, and parts of the targets picked for them."""
    operations = set(loss.get("operations", ()))
    return len(operations & _LOSSES) > 1 and bool(operations & _PARTS)


def _encoded(loss: dict[str, Any]) -> bool:
    """True if the loss makes other targets of those that it is given."""
    return bool(_ENCODES & set(loss.get("operations", ()))) and "one_hot" in loss.get("operations", ())
