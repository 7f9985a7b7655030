"""EXP001: the gradient grows by the same factor at each layer on its way to the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names, place, sick_span
from evengrad.signals import Slope, relative_profile, slopes
from evengrad.types import Evidence, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class ExplodingGradient(Rule):
    """The gradient gains decades between the output and the first layers, so no learning rate suits them all.

    Rows with a norm after them, or on a residual branch, are not judged: batch-normed networks explode at initialisation by
    about 1.2 a layer (Yang et al. 2019) and train, since a normed layer's step is relative to its weights.

    Attributes:
        max_gained_decades: Largest healthy gain between the last and the first comparable layer, in decades.
        error_decades: Gain from which it is an error.

    Reference: Pascanu, Mikolov & Bengio 2013; Schoenholz et al. 2017.
    """

    code: ClassVar[str] = "EXP001"
    symptom: ClassVar[str | None] = "exploding_gradient"
    title: ClassVar[str] = "the gradient explodes along depth"
    causes: ClassVar[tuple[str, ...]] = ("bad_init_large", "input_not_normalized", "lr_too_high", "no_grad_clip")
    needs: ClassVar[tuple[str, ...]] = ("grad_out_norm",)
    signal: ClassVar[tuple[str, str]] = ("gradient_gain", "a layer")
    helps: ClassVar[str] = (
        "an initialiser that matches the activation (Glorot, He, LeCun, orthogonal); a norm before each activation; clipping by norm"
    )
    max_gained_decades: float = 2.25
    error_decades: float = 3.75

    def check(self, trace: Trace) -> Iterator[Finding]:
        span = sick_span(trace, lambda i: (s := self._worst(trace, i)) is not None and s.total >= self.max_gained_decades)
        worst = self._worst(trace, span[1]) if span else None
        if span is not None and worst is not None:
            severity = "error" if worst.total >= self.error_decades else "warning"
            message, evidence = self._message(trace, worst, span[1]), self._evidence(worst)
            yield self.finding(trace, severity, message, evidence=evidence, where=names(trace, worst.rows), at=span)

    def value(self, trace: Trace) -> float:
        worst = self._worst(trace, len(trace.steps) - 1)
        return float("nan") if worst is None else worst.gain

    def _worst(self, trace: Trace, index: int) -> Slope | None:
        open_slopes = [s for s in slopes(trace, index=index, whole=True) if not _gated(trace, s)]
        return max(open_slopes, key=lambda s: s.total, default=None)

    def _evidence(self, slope: Slope) -> tuple[Evidence, ...]:
        limit = 10 ** (self.max_gained_decades / max(1, len(slope.rows) - 1))
        return (
            Evidence(signal="gradient_gain", value=slope.gain, relation=">", threshold=limit, unit="a layer"),
            Evidence(signal="gained_decades", value=slope.total, relation=">", threshold=self.max_gained_decades, unit="decades"),
        )

    def _message(self, trace: Trace, slope: Slope, index: int) -> str:
        profile = relative_profile(trace, index=index)
        deep = [i for i in deep_rows(trace) if profile[i] > 0]
        return (
            f"the gradient is multiplied by {slope.gain:.2g} at each layer on its way down "
            f"({slope.decades:+.2f} decades, R² {slope.r2:.2f}): "
            f"{place(trace, deep[0])} receives {profile[deep[0]]:.1e} times what layer {trace.layers[deep[-1]].depth} gets"
        )

    @classmethod
    def examples(cls) -> Examples:
        normed = {"norm": "batch_norm"}
        return Examples(
            sick=(
                synthetic.chain(20, grad_out_norm=synthetic.geometric(20, 3.0)),
                synthetic.chain(20, grad_out_norm=synthetic.geometric(20, 1.33)),  # near miss: 2.35 decades
            ),
            healthy=(
                synthetic.chain(20, grad_out_norm=synthetic.geometric(20, 1.2)),  # near miss: 1.5 decades
                synthetic.chain(30, grad_out_norm=synthetic.geometric(30, 1.3), layer=normed),
                synthetic.chain(20, grad_out_norm=synthetic.geometric(20, 1.0, last=1e6)),  # large everywhere: a matter of the rate
            ),
        )


def _gated(trace: Trace, slope: Slope) -> bool:
    rows = [trace.layers[i] for i in slope.rows]
    return 2 * sum(row.norm != "none" or row.residual for row in rows) >= len(rows)
