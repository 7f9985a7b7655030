"""INI001: the scale of the weights does not suit the activation, and the error adds up along depth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names
from evengrad.signals.curves import progress, unharmed
from evengrad.signals.scale import OTHER_SCHEME, matching_rms, matching_scheme, weight_rms
from evengrad.types import Evidence, Finding, Series, Trace

_WEIGHTED = {"linear", "conv"}


@dataclass(frozen=True, kw_only=True)
class InitializerMismatch(Rule):
    """Weights are so much larger or smaller than the matching initialiser makes them that the signal changes by decades.

    One layer at half the matching scale is harmless, twenty are six decades: what is judged is the sum over a trunk. Layers with
    a norm behind them do not count, since a norm undoes the scale.

    Attributes:
        max_decades: Largest sum of log10(scale / matching scale) along a trunk that is not worth a note.
        warning_decades: Sum from which it is a warning: bounded activations make up for less (one trained network in six is
            above two decades, one in a hundred above eleven). Where training thrives it is a note all the same.
        max_factor: Largest typical factor from the matching scale, either way, that is not worth a warning in a run that learns little.
        max_learnt: Share of the loss that is gone in a run that suffers no harm.
        max_other_scheme: Largest factor from the matching scale, either way, that another known initialiser explains.

    Reference: Glorot & Bengio 2010; He et al. 2015; Klambauer et al. 2017.
    """

    code: ClassVar[str] = "INI001"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "the initialiser does not match the activation"
    causes: ClassVar[tuple[str, ...]] = ("init_activation_mismatch", "bad_init_large", "bad_init_small")
    needs: ClassVar[tuple[str, ...]] = ("weight_norm",)
    signal: ClassVar[tuple[str, str]] = ("scale_decades", "decades")
    helps: ClassVar[str] = "evengrad.initialize_(model): Glorot before tanh and logistic, He before ReLU and ELU, LeCun before SELU"
    max_decades: float = 2.0
    warning_decades: float = 11.0
    max_factor: float = 3.0
    max_learnt: float = 0.5
    max_other_scheme: float = OTHER_SCHEME

    def check(self, trace: Trace) -> Iterator[Finding]:
        if trace.steps[0] != 0:
            return
        ran = progress(trace)
        harmed = ran is not None and ran.learnt < self.max_learnt
        ratios = self._ratios(trace, _WEIGHTED if harmed else {"linear"})
        total = float(np.nansum(ratios))
        rows = [int(i) for i in np.argsort(-np.abs(np.nan_to_num(ratios))) if np.isfinite(ratios[i]) and ratios[i] * total > 0]
        if not rows:
            return
        typical = float(np.median(ratios[rows]))
        far = harmed and abs(typical) > math.log10(self.max_factor)
        if abs(total) > self.max_decades or far:
            layer = trace.layers[rows[0]]
            message = (
                f"weights before {layer.activation} have ×{10**typical:.2g} the scale that {matching_scheme(layer.activation)} gives "
                f"({len(rows)} layers, {total:+.1f} decades together)"
            )
            long = Evidence(signal="scale_decades", value=abs(total), relation=">", threshold=self.max_decades, unit="decades")
            each = Evidence(signal="scale_factor", value=10 ** abs(typical), relation=">", threshold=self.max_factor)
            left = self._cause(10**typical) == "init_activation_mismatch" and layer.activation == "selu"  # ARC009 tells what SELU needs
            worth = far or (harmed and not left) or (abs(total) > self.warning_decades and not unharmed(trace))
            evidence = (long,) if abs(total) > self.max_decades else (each,)
            severity = "warning" if worth else "note"
            found = self.finding(trace, severity, message, evidence=evidence, where=names(trace, rows), at=(0, 0))
            yield replace(found, cause=self._cause(10**typical))

    def _cause(self, typical: float) -> str:
        """Initialisers that are in use differ by less than three: He's before tanh, torch's own before ReLU."""
        if 1 / self.max_other_scheme <= typical <= self.max_other_scheme:
            return "init_activation_mismatch"
        return "bad_init_large" if typical > 1 else "bad_init_small"

    def value(self, trace: Trace) -> float:
        return float(abs(np.nansum(self._ratios(trace, {"linear"}))))

    def _ratios(self, trace: Trace, kinds: set[str]) -> Series:
        """log10(RMS / matching RMS) of each hidden row of these kinds on the longest trunk that no norm follows (L,)."""
        out = np.full(len(trace.layers), np.nan)
        deep = deep_rows(trace)
        for i in deep[:-1]:
            layer = trace.layers[i]
            rms = weight_rms(trace, i)
            target = matching_rms(layer)
            if layer.kind in kinds and layer.norm == "none" and not layer.residual and target is not None and 0 < rms < math.inf:
                out[i] = math.log10(rms / target)
        return out

    @classmethod
    def examples(cls) -> Examples:
        relu = {"activation": "relu"}

        def net(depth: int, scale: float) -> Trace:
            return synthetic.chain(depth, layer=relu, weight_norm=scale * math.sqrt(2 * 64))  # He: RMS sqrt(2 / 64)

        stuck, falling = np.full(40, 1.0), np.geomspace(1.0, 0.1, 40)
        return Examples(
            sick=(net(20, 1 / 6**0.5), net(10, 1.8), synthetic.run(net(3, 10.0), loss=stuck), synthetic.run(net(10, 10.0), loss=falling)),
            healthy=(
                net(5, 1 / 6**0.5),
                net(10, 1.5),
                net(20, 1.0),
                synthetic.run(net(3, 10.0), loss=falling),
                synthetic.run(net(3, 2.8), loss=stuck),
            ),
        )
