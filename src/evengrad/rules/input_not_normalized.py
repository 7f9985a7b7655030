"""DAT001: inputs are far from mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import unharmed
from evengrad.types import Evidence, Facts, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class InputNotNormalized(Rule):
    """Inputs are so large, so small or so far from zero that no usual learning rate suits initialisers made for unit scale.

    A common offset does most harm: beyond three standard deviations networks stop training at any rate, while a factor of thirty is
    still made up for by the rate (benchmarks/input_scale.py). Where training thrives it is a note.

    Attributes:
        max_scale: Largest healthy standard deviation of a feature (channel, for images), in its own unit.
        min_scale: Smallest healthy standard deviation of the widest feature.
        max_offset: Largest healthy |mean| of all inputs, in their standard deviations.

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
    max_scale: float = 30.0
    min_scale: float = 0.1
    max_offset: float = 2.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        facts = trace.facts.inputs or {}
        mean, std, low, high = (float(facts.get(k, 0.0)) for k in ("mean", "std", "feature_std_min", "feature_std_max"))
        if facts.get("nonfinite_fraction") or high <= 0 or std <= 0:
            return
        offset = abs(mean) / std
        spread = f"standard deviations of features run from {low:.3g} to {high:.3g}"
        if high > self.max_scale:
            evidence = Evidence(signal="largest_feature", value=high, relation=">", threshold=self.max_scale, where="inputs")
            message = f"inputs are not standardised: {spread}, their mean is {mean:.3g}"
        elif offset > self.max_offset:
            evidence = Evidence(signal="offset", value=offset, relation=">", threshold=self.max_offset, unit="deviations", where="inputs")
            message = f"inputs are far from zero: their mean is {mean:.3g}, {offset:.2g} times their standard deviation of {std:.3g}"
        elif high < self.min_scale:
            evidence = Evidence(signal="widest_feature", value=high, relation="<", threshold=self.min_scale, where="inputs")
            message = f"inputs hardly vary: the widest feature has a standard deviation of {high:.2g}"
        else:
            return
        severity = "note" if unharmed(trace) else "warning"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=("inputs",), at=(0, 0))
        yield replace(found, cause="input_not_normalized")

    def value(self, trace: Trace) -> float:
        return float((trace.facts.inputs or {}).get("feature_std_max", 0.0))

    @classmethod
    def examples(cls) -> Examples:
        def inputs(mean: float, std: float, low: float, high: float) -> Trace:
            facts = {"nonfinite_fraction": 0.0, "mean": mean, "std": std, "feature_std_min": low, "feature_std_max": high}
            return synthetic.chain(3, facts=Facts(inputs=facts))

        return Examples(
            sick=(
                inputs(69.1, 215.7, 0.12, 314.9),
                inputs(3.0, 1.0, 1.0, 1.0),
                inputs(0.0, 0.05, 0.04, 0.06),
            ),  # wine as it is; shifted; tiny
            healthy=(inputs(0.29, 0.35, 0.0, 0.35), inputs(0.5, 0.29, 0.29, 0.29), inputs(0.0, 20.0, 20.0, 25.0)),  # pixels; uniform; large
        )
