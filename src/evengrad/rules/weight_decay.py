"""OPT014: weight decay or dropout is so strong that little is left to learn with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names
from evengrad.signals.curves import progress
from evengrad.types import Evidence, Facts, Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class WeightDecay(Rule):
    """Weights shrink towards zero faster than the gradient builds them up, or dropout takes away nearly all that a layer says.

    Attributes:
        max_shrink: Share of its norm at the beginning below which a layer's weights have collapsed (median over layers).
        max_dropout: Largest healthy dropout rate, in [0, 1].
        max_learnt: Share of the loss that is gone in a run that suffers no harm.
        max_penalty: Largest healthy gradient that a loop adds to shrink weights, in gradients of the loss.
        max_noise: Largest healthy share of noise in the variance of the output over samples, in [0, 1].
        max_taken: Largest healthy share of the weights that a loop takes at each step behind the optimizer, in [0, 1].

    Reference: Krogh & Hertz 1991, A simple weight decay; Srivastava et al. 2014, Dropout, sec. 7.3 (0.5 to 0.8 is kept).
    """

    code: ClassVar[str] = "OPT014"
    symptom: ClassVar[str | None] = "loss_stuck"
    title: ClassVar[str] = "regularisation is too strong"
    causes: ClassVar[tuple[str, ...]] = ("over_regularized",)
    needs: ClassVar[tuple[str, ...]] = ("weight_norm", "curves.loss")
    signal: ClassVar[tuple[str, str]] = ("kept_weight", "of the norm")
    helps: ClassVar[str] = "a smaller weight_decay (1e-4 for SGD, 1e-2 for AdamW are usual); dropout of at most 0.5"
    max_shrink: float = 0.5
    max_dropout: float = 0.6
    max_learnt: float = 0.5
    max_taken: float = 0.005
    max_noise: float = 0.9
    max_penalty: float = 1.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        ran, last = progress(trace), len(trace.steps) - 1
        if (ran is None and "behind_ratio" not in trace.columns) or (ran is not None and ran.learnt > self.max_learnt):
            return
        found = self._shrunk(trace) or self._behind(trace) or self._penalised(trace) or self._dropped(trace) or self._noisy(trace)
        if found is not None:
            message, evidence, where = found
            made = self.finding(trace, "warning", message, evidence=(evidence,), where=where, at=(0, last))
            yield replace(made, cause="over_regularized")

    def value(self, trace: Trace) -> float:
        kept = _kept(trace)
        return float(np.median(kept)) if len(kept) else float("nan")

    def _shrunk(self, trace: Trace) -> tuple[str, Evidence, tuple[str, ...]] | None:
        decay = float((trace.facts.optimizer or {}).get("weight_decay") or 0.0)
        kept = self.value(trace)
        by_hand, taken = trace.column("behind_shrink"), trace.column("behind_ratio")
        at_once = np.isfinite(by_hand[0]).any() and float(np.nanmedian(np.where(by_hand[0] > 0.9, taken[0], 0.0))) > self.max_shrink
        cut = at_once or bool(np.isfinite(by_hand).any() and float(np.nanmedian(by_hand)) > 0.9)
        if not (decay > 0 or cut) or not kept < self.max_shrink:
            return None
        what = f"weight_decay {decay:g}" if decay > 0 else "taken by the loop"
        message = f"weights shrink to {kept:.2g} of their norm at the beginning ({what}): that outweighs the gradient"
        evidence = Evidence(signal="kept_weight", value=kept, relation="<", threshold=self.max_shrink, unit="of the norm")
        return message, evidence, names(trace, deep_rows(trace))

    def _behind(self, trace: Trace) -> tuple[str, Evidence, tuple[str, ...]] | None:
        """What the user's own step takes from the weights, after the optimizer and in the direction of zero."""
        ratio, shrink = (trace.column(name).astype(np.float64) for name in ("behind_ratio", "behind_shrink"))
        taken = ratio[shrink > 0.9]
        if not len(taken) or len(taken) < 0.5 * np.isfinite(ratio).sum() or not float(np.median(taken)) > self.max_taken:
            return None
        share = float(np.median(taken))
        message = f"the loop itself takes {share:.2%} of the weights at each step, after the optimizer: {1 / share:.0f} steps leave a third"
        evidence = Evidence(signal="behind_ratio", value=share, relation=">", threshold=self.max_taken, unit="of the weights", where="loop")
        return message, evidence, ("loop",)

    def _noisy(self, trace: Trace) -> tuple[str, Evidence, tuple[str, ...]] | None:
        """Two passes of one batch that have less in common than their noise."""
        noise = float((trace.facts.head or {}).get("noise", 0.0))
        if not noise > self.max_noise:
            return None
        message = (
            f"{noise:.0%} of what tells the answers of a batch apart is noise of training mode: the same batch again has other answers"
        )
        return message, Evidence(signal="noise", value=noise, relation=">", threshold=self.max_noise, unit="of the variance"), ("loop",)

    def _penalised(self, trace: Trace) -> tuple[str, Evidence, tuple[str, ...]] | None:
        """A penalty that the user's step adds, larger than the gradient of the loss itself."""
        ratio, shrink = (trace.column(name).astype(np.float64) for name in ("extra_ratio", "extra_shrink"))
        added = ratio[(shrink > 0.9) & np.isfinite(ratio)]
        if not len(added) or len(added) < 0.5 * np.isfinite(shrink).sum() or not float(np.median(added)) > self.max_penalty:
            return None
        times = float(np.median(added))
        message = f"the loop adds a gradient that shrinks the weights, ×{times:.3g} as large as that of the loss: a penalty outweighs it"
        evidence = Evidence(
            signal="extra_ratio", value=times, relation=">", threshold=self.max_penalty, unit="of the gradient", where="loop"
        )
        return message, evidence, ("loop",)

    def _dropped(self, trace: Trace) -> tuple[str, Evidence, tuple[str, ...]] | None:
        found = [d for d in (trace.facts.modules or {}).get("dropouts", ()) if d.get("training", True)]
        strong = [d for d in found if d.get("p", 0.0) > self.max_dropout]
        if not strong:
            return None
        worst = max(strong, key=lambda d: float(d["p"]))
        more = f"; {len(strong)} dropouts are above {self.max_dropout:g}" if len(strong) > 1 else ""
        message = f"dropout {worst['name']} takes away {worst['p']:.0%} of what passes it{more}"
        evidence = Evidence(signal="dropout", value=float(worst["p"]), relation=">", threshold=self.max_dropout, unit="of units")
        return message, evidence, ("loop",)

    @classmethod
    def examples(cls) -> Examples:
        def net(end: float, *, decay: float = 1.0, learnt: float = 0.1, p: float = 0.5) -> Trace:
            modules = {"dropouts": [{"name": "1", "p": p, "training": True}]}
            facts = Facts(optimizer={"weight_decay": decay}, modules=modules)
            made = synthetic.chain(3, steps=4, weight_norm=np.geomspace(1.0, end, 4)[:, None], facts=facts)
            return synthetic.run(made, loss=np.linspace(1.0, 1.0 - learnt, 40))

        def noisy(share: float) -> Trace:
            return synthetic.run(synthetic.chain(3, steps=4, weight_norm=1.0, facts=Facts(head={"noise": share})), loss=np.ones(40))

        def penalty(ratio: float, shrink: float = 0.97) -> Trace:
            made = synthetic.chain(3, steps=4, weight_norm=1.0, extra_ratio=ratio, extra_shrink=shrink)
            return synthetic.run(made, loss=np.ones(40))

        def at_once(share: float) -> Trace:
            """Cut to a length at the first step, and kept there."""
            columns: dict[str, Any] = {"behind_ratio": [[share], [0.01], [0.01], [0.01]], "behind_shrink": [[1.0], [0.6], [0.6], [0.6]]}
            made = synthetic.chain(3, steps=4, weight_norm=[[1.0], [1 - share], [1 - share], [1 - share]], **columns)
            return synthetic.run(made, loss=np.ones(40))

        def by_hand(ratio: float, shrink: float = 1.0) -> Trace:
            made = synthetic.chain(3, steps=4, weight_norm=1.0, behind_ratio=ratio, behind_shrink=shrink)
            return synthetic.run(made, loss=np.linspace(1.0, 0.9, 40))

        return Examples(
            sick=(
                net(1e-3),
                net(0.45),
                net(1.0, p=0.9),
                net(1.0, p=0.65),
                by_hand(0.1),
                by_hand(0.006),
                noisy(0.95),
                penalty(4.0),
                at_once(0.55),
            ),
            healthy=(
                at_once(0.45),
                net(0.6),
                net(0.1, decay=0.0),
                net(0.1, learnt=0.9),
                net(1.0, p=0.6),
                net(1.0, p=0.9, learnt=0.9),
                by_hand(0.004),
                noisy(0.8),
                penalty(0.8),
                penalty(4.0, 0.2),
                by_hand(0.1, 0.1),
            ),
        )


def _kept(trace: Trace) -> Series:
    """Norm of each layer's weights at the end over that at the beginning."""
    norms = trace.column("weight_norm").astype(np.float64)[:, deep_rows(trace)]
    if len(norms) < 2:
        return np.zeros(0)
    first, last = norms[0], norms[-1]
    usable = np.isfinite(first) & np.isfinite(last) & (first > 0)
    out: Series = last[usable] / first[usable]
    return out
