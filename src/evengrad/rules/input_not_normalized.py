"""DAT001: inputs are far from mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.types import Evidence, Facts, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class InputNotNormalized(Rule):
    """Features are so large, so small or so far from zero that initialisers and learning rates made for unit scale do not fit.

    Attributes:
        max_feature: Largest healthy mean or standard deviation of a feature (channel, for images), in its own unit.
        min_feature: Smallest healthy standard deviation of the widest feature.

    Reference: LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, sec. 4.3.
    """

    code: ClassVar[str] = "DAT001"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "inputs are not standardised"
    causes: ClassVar[tuple[str, ...]] = ("input_not_normalized",)
    needs: ClassVar[tuple[str, ...]] = ("facts.inputs",)
    signal: ClassVar[tuple[str, str]] = ("largest_feature", "in the input's unit")
    helps: ClassVar[str] = (
        "subtract each feature's mean and divide by its standard deviation (training data's); or a batch norm as first layer"
    )
    max_feature: float = 5.0
    min_feature: float = 0.01

    def check(self, trace: Trace) -> Iterator[Finding]:
        facts = trace.facts.inputs or {}
        mean, low, high = (float(facts.get(k, 0.0)) for k in ("feature_mean_abs_max", "feature_std_min", "feature_std_max"))
        if facts.get("nonfinite_fraction") or high == 0:
            return
        if max(mean, high) > self.max_feature:
            evidence = Evidence(signal="largest_feature", value=max(mean, high), relation=">", threshold=self.max_feature, where="inputs")
            message = (
                f"inputs are not standardised: standard deviations of features run from {low:.3g} to {high:.3g}, means up to {mean:.3g}"
            )
            yield self.finding(trace, "warning", message, evidence=(evidence,), where=("inputs",), at=(0, 0))
        elif high < self.min_feature:
            evidence = Evidence(signal="widest_feature", value=high, relation="<", threshold=self.min_feature, where="inputs")
            message = f"inputs hardly vary: the widest feature has a standard deviation of {high:.2g}"
            yield self.finding(trace, "warning", message, evidence=(evidence,), where=("inputs",), at=(0, 0))

    def value(self, trace: Trace) -> float:
        facts = trace.facts.inputs or {}
        return max(float(facts.get("feature_mean_abs_max", 0.0)), float(facts.get("feature_std_max", 0.0)))

    @classmethod
    def examples(cls) -> Examples:
        def inputs(mean: float, low: float, high: float) -> Trace:
            facts = {"nonfinite_fraction": 0.0, "feature_mean_abs_max": mean, "feature_std_min": low, "feature_std_max": high}
            return synthetic.chain(3, facts=Facts(inputs=facts))

        return Examples(
            sick=(inputs(746.9, 0.12, 314.9), inputs(0.0, 6.0, 6.0), inputs(0.0, 1e-3, 5e-3)),
            healthy=(inputs(0.29, 0.0, 0.35), inputs(0.0, 1.0, 1.0), inputs(4.5, 4.5, 4.5)),
        )
