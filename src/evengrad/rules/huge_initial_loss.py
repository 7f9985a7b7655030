"""OPT007: the first loss is far above what a constant answer gets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import baseline, unharmed
from evengrad.types import Evidence, Facts, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class HugeInitialLoss(Rule):
    """Before any training the network is confidently wrong, or the targets are far from anything it answers.

    A fresh network should lose about what a constant answer loses: log C for C balanced classes, the variance for squared error. Targets
    with an offset or a scale of their own make up for it by number: the mean square of the targets beside their variance.

    Attributes:
        max_ratio: Largest healthy first loss, in constant answers' losses; classes.
        max_number_ratio: The same for numbers to come near to.
        max_target_rms: Largest healthy RMS of numbers to come near to, in their own unit.

    Reference: Karpathy 2019, A recipe for training neural networks (verify loss at init).
    """

    code: ClassVar[str] = "OPT007"
    symptom: ClassVar[str | None] = "huge_initial_loss"
    title: ClassVar[str] = "the first loss is huge"
    causes: ClassVar[tuple[str, ...]] = (
        "target_not_scaled",
        "input_not_normalized",
        "bad_init_large",
        "loss_reduction",
        "wrong_loss",
    )
    needs: ClassVar[tuple[str, ...]] = ("facts.loss",)
    signal: ClassVar[tuple[str, str]] = ("initial_loss", "constant answers")
    helps: ClassVar[str] = "standardise targets and inputs; the matching initialiser, with a small or zero head; the mean as reduction"
    scale_dependent: ClassVar[bool] = True
    max_ratio: float = 4.0
    max_number_ratio: float = 10.0
    max_target_rms: float = 30.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        ratio, least = self.value(trace), baseline(trace)
        most = self.max_ratio if self._classes(trace) else self.max_number_ratio
        if not math.isfinite(ratio) or least is None:
            return
        large = None if self._classes(trace) else self._target_rms(trace)
        name, unit = self.signal
        if ratio > most:
            value = float((trace.facts.loss or {})["value"])
            evidence = Evidence(signal=name, value=ratio, relation=">", threshold=most, unit=unit, where="loss")
            message = f"the first loss is {value:.3g}, {ratio:.3g} times the {least:.3g} that a constant answer gets"
        elif large is not None and large > self.max_target_rms:
            evidence = Evidence(signal="target_rms", value=large, relation=">", threshold=self.max_target_rms, where="targets")
            message = f"targets have an RMS of {large:.3g}, where a fresh network answers about 1: the first loss is {least * ratio:.3g}"
        else:
            return
        severity = "note" if unharmed(trace) else "warning"
        made = self.finding(trace, severity, message, evidence=(evidence,), where=("loss",), at=(0, 0))
        yield replace(made, cause=self._cause(trace, ratio, most, large))

    def value(self, trace: Trace) -> float:
        value, least = (trace.facts.loss or {}).get("value"), baseline(trace)
        return float(value) / least if value is not None and least is not None else math.nan

    def _classes(self, trace: Trace) -> bool:
        return (trace.facts.loss or {}).get("op") not in {"mse", "l1", "smooth_l1"}

    def _target_rms(self, trace: Trace) -> float | None:
        facts = trace.facts.targets or {}
        mean, std = facts.get("mean"), facts.get("std")
        return math.hypot(mean, std) if mean is not None and std is not None else None

    def _cause(self, trace: Trace, ratio: float, most: float, rms: float | None) -> str | None:
        """Targets that explain the loss by their size, then inputs that do; an initialiser only shows by experiment."""
        inputs, targets = trace.facts.inputs or {}, trace.facts.targets or {}
        if rms is not None and targets.get("std"):
            by_offset = (rms / targets["std"]) ** 2 > 0.5 * ratio > 0.5 * most
            if rms > self.max_target_rms or by_offset:
                return "target_not_scaled"
        std = inputs.get("feature_std_max") or inputs.get("std") or 1.0
        return "input_not_normalized" if std > 10 or abs(inputs.get("mean", 0.0)) > 10 else None

    @classmethod
    def examples(cls) -> Examples:
        def first(value: float, constant: float, op: str = "cross_entropy", *, mean: float = 0.0, std: float = 1.0) -> Trace:
            targets = {"shape": [64, 1], "mean": mean, "std": std} if op == "mse" else {"shape": [64], "labels": {"0": 5, "1": 5}}
            return synthetic.chain(3, facts=Facts(loss={"value": value, "baseline": constant, "op": op}, targets=targets))

        return Examples(
            sick=(first(40.0, 2.3), first(1e4, 1.0, "mse", mean=100.0), first(2600.0, 2500.0, "mse", std=50.0)),
            healthy=(first(2.6, 2.3), first(7.0, 2.3), first(1.1, 1.0, "mse"), first(2.9e-3, 2.3)),
        )
