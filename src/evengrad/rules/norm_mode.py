"""NRM003: batch norm in the wrong mode, or with running statistics that evaluation cannot use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import progress
from evengrad.types import Evidence, Facts, Finding, Trace

_LATE = 4  # evaluations at the end of the run that are compared


@dataclass(frozen=True, kw_only=True)
class NormMode(Rule):
    """Batch norm trains with the statistics of the batch and is evaluated with running ones; mixing these up makes two networks of one.

    What decides is measured: the same weights on the same batch lose far more in evaluation mode than in training mode. A momentum near
    zero never learns the statistics, one near one forgets all but the last batch (Keras and PyTorch count it from opposite ends). Batch
    norms that the training step itself leaves in evaluation mode normalise nothing; with frozen parameters that is fine-tuning.

    Attributes:
        max_gap: Largest healthy extra loss in evaluation mode, as a share of what there is to learn.
        min_learnt: Share of the loss that has to be gone in training mode, for the gap to be the norms' doing.
        min_momentum: Smallest momentum that follows the statistics within a usual run.
        max_left: Largest healthy share of the running statistics that the planned steps leave of their beginning, in [0, 1].
        max_small_batch: Largest batch whose statistics are too noisy to average, whatever the momentum.
        max_momentum: Largest momentum that averages over more than the last batch or two.

    Reference: Ioffe & Szegedy 2015, alg. 2; Wu & Johnson 2021, Rethinking "Batch" in BatchNorm.
    """

    code: ClassVar[str] = "NRM003"
    symptom: ClassVar[str | None] = "train_eval_gap"
    title: ClassVar[str] = "batch norm in the wrong mode"
    causes: ClassVar[tuple[str, ...]] = ("bn_stats", "batch_too_small")
    needs: ClassVar[tuple[str, ...]] = ("facts.modules",)
    signal: ClassVar[tuple[str, str]] = ("eval_gap", "of the loss")
    helps: ClassVar[str] = "model.train() before training and model.eval() before evaluating; momentum=0.1; track_running_stats=True"
    max_gap: float = 0.25
    min_learnt: float = 0.1
    min_momentum: float = 0.005
    max_left: float = 0.2
    max_momentum: float = 0.9
    max_small_batch: int = 4

    def check(self, trace: Trace) -> Iterator[Finding]:
        norms = _batch_norms(trace)
        if not norms:
            return
        found, last = progress(trace), len(trace.steps) - 1
        gap = self.value(trace) if found is not None and found.learnt > self.min_learnt else np.nan
        still = [n for n in norms if not n.get("training", True) and not _frozen(trace, n["name"])]
        if np.isfinite(gap) and gap > self.max_gap:
            message = f"the same batch loses {gap:.0%} more in evaluation mode than in training mode: {self._why(norms)}"
            evidence = Evidence(signal="eval_gap", value=gap, relation=">", threshold=self.max_gap, unit="of the loss")
            severity = "warning"
        elif (left := self._unreached(trace, norms)) > self.max_left:
            message = (
                f"with momentum {_least(norms):g} the running statistics of {len(norms)} batch norms still are {left:.0%} "
                f"their beginning after all steps that are planned: evaluation mode divides by what was never measured"
            )
            evidence = Evidence(signal="beginning_left", value=left, relation=">", threshold=self.max_left, unit="of the statistics")
            severity = "note" if (found is None or found.thrives) and not gap > 0.1 else "warning"
        elif still and trace.facts.loop is not None:
            message = (
                f"{len(still)} of {len(norms)} batch norms are in evaluation mode while they are trained: they use running statistics that "
                f"no step updates"
            )
            evidence = Evidence(signal="norms_in_eval_mode", value=len(still), relation=">", threshold=0, unit="norms")
            severity = "note" if found is None or found.thrives else "warning"
            norms = still
        else:
            return
        made = self.finding(trace, severity, message, evidence=(evidence,), where=_places(trace, norms), at=(0, last))
        yield replace(made, cause="batch_too_small" if trace.run.samples <= self.max_small_batch else "bn_stats")

    def _unreached(self, trace: Trace, norms: list[dict[str, Any]]) -> float:
        """Share of the running statistics that is left of 0 and 1 after the planned steps."""
        steps = (trace.facts.loop or {}).get("steps")
        momenta = [n["momentum"] for n in norms if isinstance(n.get("momentum"), (int, float)) and n.get("training", True)]
        return (1 - min(momenta)) ** steps if steps and momenta and min(momenta) < self.min_momentum else 0.0

    def value(self, trace: Trace) -> float:
        """Extra loss in evaluation mode over the last evaluations, as a share of the loss to beat; NaN where none was seen."""
        train, evaluated, found = trace.curves.get("loss"), trace.curves.get("eval_loss"), progress(trace)
        if train is None or evaluated is None or found is None or len(evaluated.steps) < 2 * _LATE or not found.reference > 0:
            return float("nan")
        steps = evaluated.steps[-_LATE:]
        at = np.searchsorted(train.steps, steps)
        if at[-1] >= len(train.values):
            return float("nan")
        return float(np.median(evaluated.values[-_LATE:] - train.values[at]) / found.reference)

    def _why(self, norms: list[dict[str, Any]]) -> str:
        """The most telling number of the norms."""
        momenta = [n["momentum"] for n in norms if isinstance(n.get("momentum"), (int, float))]
        least, most = min(momenta, default=0.1), max(momenta, default=0.1)
        if least < self.min_momentum:
            return f"with momentum {least:g} the running statistics of {len(norms)} batch norms hardly move from 0 and 1"
        if most > self.max_momentum:
            return f"with momentum {most:g} the running statistics of {len(norms)} batch norms are those of the last batch"
        return f"the running statistics of {len(norms)} batch norms are not those of the batches"

    @classmethod
    def examples(cls) -> Examples:
        def net(gap: float, *, momentum: float = 0.1, training: bool = True, loop: bool = True) -> Trace:
            norm = {"name": "1", "kind": "BatchNorm1d", "training": training, "momentum": momentum, "tracks": True}
            facts = Facts(modules={"norms": [norm]}, loop={"standard": True} if loop else None)
            made = synthetic.chain(3, layer={"norm": "batch_norm", "norm_module": "1"}, facts=facts)
            loss = np.r_[np.geomspace(1.0, 0.8, 80), np.full(80, 0.8)]
            steps = np.arange(0, 160, 10)
            return synthetic.run(made, loss=loss, eval_loss=(steps, loss[steps] + gap))

        return Examples(
            sick=(net(0.3), net(5.0, momentum=0.0), net(1.0, momentum=0.99), net(0.0, training=False)),
            healthy=(net(0.2), net(0.0), net(0.0, momentum=0.0), net(0.0, training=False, loop=False)),
        )


def _batch_norms(trace: Trace) -> list[dict[str, Any]]:
    return [n for n in (trace.facts.modules or {}).get("norms", ()) if "BatchNorm" in str(n.get("kind"))]


def _frozen(trace: Trace, name: str) -> bool:
    return any(parameter.startswith(f"{name}.") for parameter in (trace.facts.optimizer or {}).get("frozen", ()))


def _places(trace: Trace, norms: list[dict[str, Any]]) -> tuple[str, ...]:
    """The norms' rows, else the rows before them."""
    known = {layer.name for layer in trace.layers}
    behind = {layer.norm_module: layer.name for layer in trace.layers if layer.norm_module is not None}
    return tuple(dict.fromkeys(n["name"] if n["name"] in known else behind.get(n["name"], "loop") for n in norms))


def _least(norms: list[dict[str, Any]]) -> float:
    return min((n["momentum"] for n in norms if isinstance(n.get("momentum"), (int, float))), default=0.1)
