"""INI001: the scale of the weights does not suit the activation, and the error adds up along depth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, place
from evengrad.signals.scale import matching_rms, matching_scheme
from evengrad.types import Evidence, Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class InitializerMismatch(Rule):
    """Weights are so much larger or smaller than the matching initialiser makes them that the signal changes by decades.

    One layer at half the matching scale is harmless, twenty are six decades: what is judged is the sum over a trunk. Layers with
    a norm behind them do not count, since a norm undoes the scale. Weights with a mean far from zero are judged too:
    uniform(0, 1) drives every unit the same way.

    Attributes:
        max_decades: Largest healthy sum of log10(scale / matching scale) along a trunk.
        max_mean_ratio: Largest healthy |mean| / RMS of a layer's weights, in [0, 1].

    Reference: Glorot & Bengio 2010; He et al. 2015; Klambauer et al. 2017.
    """

    code: ClassVar[str] = "INI001"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "the initialiser does not match the activation"
    causes: ClassVar[tuple[str, ...]] = ("init_activation_mismatch", "bad_init_large", "bad_init_small", "constant_init")
    needs: ClassVar[tuple[str, ...]] = ("weight_norm", "weight_mean")
    signal: ClassVar[tuple[str, str]] = ("scale_decades", "decades")
    helps: ClassVar[str] = "evengrad.initialize_(model): Glorot before tanh and logistic, He before ReLU and ELU, LeCun before SELU"
    max_decades: float = 2.0
    max_mean_ratio: float = 0.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        if trace.steps[0] != 0:
            return
        ratios, means = self._ratios(trace), self._means(trace)
        total = float(np.nansum(ratios))
        shifted = [i for i in np.argsort(-np.nan_to_num(means)) if means[i] > self.max_mean_ratio]
        if shifted:
            row = int(shifted[0])
            share = f"mean {self._mean(trace, row):+.2g}, {means[row]:.0%} of their RMS"
            message = f"the weights of {place(trace, row)} have {share}: every unit is driven the same way"
            evidence = Evidence(
                signal="mean_ratio", value=float(means[row]), relation=">", threshold=self.max_mean_ratio, where=trace.layers[row].name
            )
            where = tuple(trace.layers[i].name for i in shifted)
            yield self.finding(trace, "warning", message, evidence=(evidence,), where=where, at=(0, 0))
        elif abs(total) > self.max_decades:
            rows = [int(i) for i in np.argsort(-np.abs(np.nan_to_num(ratios))) if np.isfinite(ratios[i]) and ratios[i] * total > 0]
            typical = 10 ** float(np.nanmedian(ratios[rows]))
            layer = trace.layers[rows[0]]
            message = (
                f"weights before {layer.activation} have ×{typical:.2g} the scale that {matching_scheme(layer.activation)} gives "
                f"({len(rows)} layers, {total:+.1f} decades together)"
            )
            evidence = Evidence(signal="scale_decades", value=abs(total), relation=">", threshold=self.max_decades, unit="decades")
            where = tuple(trace.layers[i].name for i in rows)
            yield self.finding(trace, "warning", message, evidence=(evidence,), where=where, at=(0, 0))

    def value(self, trace: Trace) -> float:
        means = self._means(trace)
        if np.nanmax(means, initial=0) > self.max_mean_ratio:
            return float(np.nanmax(means))
        return float(abs(np.nansum(self._ratios(trace))))

    def _ratios(self, trace: Trace) -> Series:
        """log10(RMS / matching RMS) of each hidden row on the longest trunk that no norm follows (L,)."""
        out = np.full(len(trace.layers), np.nan)
        deep = deep_rows(trace)
        for i in deep[:-1]:
            layer = trace.layers[i]
            rms = float(trace.column("weight_norm")[0, i]) / math.sqrt(max(1, layer.fan_in * layer.fan_out))
            target = matching_rms(layer)
            if layer.kind == "linear" and layer.norm == "none" and not layer.residual and target is not None and rms > 0:
                out[i] = math.log10(rms / target)
        return out

    def _means(self, trace: Trace) -> Series:
        """|mean| / RMS of the weights of each row (L,)."""
        out = np.full(len(trace.layers), np.nan)
        for i in deep_rows(trace):
            layer = trace.layers[i]
            rms = float(trace.column("weight_norm")[0, i]) / math.sqrt(max(1, layer.fan_in * layer.fan_out))
            if layer.kind == "linear" and layer.fan_in * layer.fan_out >= 16 and rms > 0:  # fewer weights have a mean by chance
                out[i] = abs(self._mean(trace, i)) / rms
        return out

    def _mean(self, trace: Trace, row: int) -> float:
        return float(trace.column("weight_mean")[0, row])

    @classmethod
    def examples(cls) -> Examples:
        relu = {"activation": "relu"}

        def net(depth: int, scale: float, mean: float = 0.0) -> Trace:
            return synthetic.chain(depth, layer=relu, weight_norm=scale * math.sqrt(2 * 64), weight_mean=mean)  # He: RMS sqrt(2 / 64)

        return Examples(
            sick=(net(20, 1 / 6**0.5), net(10, 1.8), net(3, 3.3, mean=0.5)),
            healthy=(net(5, 1 / 6**0.5), net(10, 1.5), net(20, 1.0), net(3, 1.0, mean=0.01)),
        )
