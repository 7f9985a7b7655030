"""VAN001: the gradient shrinks by the same factor at each layer on its way to the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names, place, sick_span
from evengrad.signals import Slope, relative_profile, slopes
from evengrad.types import Evidence, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class VanishingGradient(Rule):
    """The gradient loses decades between the output and the first layers, so these do not learn.

    What decides is the total change along comparable layers, not an absolute size: a network whose gradient is small everywhere
    trains with a larger rate, one whose first layer gets a thousandth of what the last gets does not. The norm of each sample's
    gradient is used, since its value a weight would also fall in healthy networks that change their width.

    Attributes:
        max_lost_decades: Largest healthy loss between the last and the first comparable layer, in decades.
        error_decades: Loss from which it is an error.

    Reference: Hochreiter 1991; Bengio, Simard & Frasconi 1994; Glorot & Bengio 2010.
    """

    code: ClassVar[str] = "VAN001"
    symptom: ClassVar[str | None] = "vanishing_gradient"
    title: ClassVar[str] = "the gradient vanishes along depth"
    causes: ClassVar[tuple[str, ...]] = (
        "bad_hidden_activation",
        "bad_init_small",
        "bad_init_large",
        "missing_normalization_layer",
        "too_deep_no_skip",
    )
    needs: ClassVar[tuple[str, ...]] = ("grad_out_norm",)
    signal: ClassVar[tuple[str, str]] = ("gradient_gain", "a layer")
    helps: ClassVar[str] = (
        "an initialiser that matches the activation; tanh, ReLU or SELU in place of the logistic; a norm; residual connections"
    )
    max_lost_decades: float = 2.25
    error_decades: float = 3.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        span = sick_span(trace, lambda i: (s := self._worst(trace, i)) is not None and s.total <= -self.max_lost_decades)
        worst = self._worst(trace, span[1]) if span else None
        if span is not None and worst is not None:
            severity = "error" if worst.total <= -self.error_decades else "warning"
            message, evidence = self._message(trace, worst, span[1]), self._evidence(worst)
            yield self.finding(trace, severity, message, evidence=evidence, where=names(trace, (*worst.zero_rows, *worst.rows)), at=span)

    def value(self, trace: Trace) -> float:
        worst = self._worst(trace, len(trace.steps) - 1)
        return float("nan") if worst is None else worst.gain

    def _worst(self, trace: Trace, index: int) -> Slope | None:
        return min(slopes(trace, index=index, whole=True), key=lambda s: s.total, default=None)

    def _evidence(self, slope: Slope) -> tuple[Evidence, ...]:
        limit = 10 ** (-self.max_lost_decades / max(1, len(slope.rows) - 1))
        return (
            Evidence(signal="gradient_gain", value=slope.gain, relation="<", threshold=limit, unit="a layer"),
            Evidence(signal="lost_decades", value=-slope.total, relation=">", threshold=self.max_lost_decades, unit="decades"),
        )

    def _message(self, trace: Trace, slope: Slope, index: int) -> str:
        profile = relative_profile(trace, index=index)
        deep = deep_rows(trace)
        first, last = next(i for i in deep if profile[i] > 0), next(i for i in reversed(deep) if profile[i] > 0)
        text = (
            f"the gradient is multiplied by {slope.gain:.2g} at each layer on its way down "
            f"({slope.decades:+.2f} decades, R² {slope.r2:.2f}): "
            f"{place(trace, first)} receives {profile[first]:.1e} of what layer {trace.layers[last].depth} gets"
        )
        zeros = len(slope.zero_rows)
        return f"{text}; {zeros} layer{'s' * (zeros > 1)} below receive exactly zero (underflow)" if zeros else text

    @classmethod
    def examples(cls) -> Examples:
        return Examples(
            sick=(
                synthetic.chain(20, grad_out_norm=synthetic.geometric(20, 0.24)),
                synthetic.chain(6, grad_out_norm=synthetic.geometric(6, 0.25)),  # near miss: 3.0 decades in five steps
            ),
            healthy=(
                synthetic.chain(20, grad_out_norm=synthetic.geometric(20, 1.02)),
                synthetic.chain(4, grad_out_norm=synthetic.geometric(4, 0.3)),  # near miss: 1.6 decades in three steps
                synthetic.chain(20, grad_out_norm=synthetic.geometric(20, 1.0, last=1e-12)),  # small everywhere: a matter of the rate
            ),
        )
