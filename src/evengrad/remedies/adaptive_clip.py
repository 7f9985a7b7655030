"""clip_layer, agc, autoclip, zclip: gradients cut by a measure of their own layer, unit or history."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.clip_gradient import healthy_norms, suggested
from evengrad.remedies.clipping import DeviationClip, LayerClip, PercentileClip, UnitClip
from evengrad.remedies.pacing import optimizer_of
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace

_KNOWN = 6  # sampled steps without which a run has no history


@dataclass(frozen=True, kw_only=True)
class _Clip(Remedy):
    """Cuts gradients in an optimizer step-pre-hook of its own."""

    causes: ClassVar[tuple[str, ...]] = ("no_grad_clip",)
    change: ClassVar[int] = base.CLIP
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False

    @abstractmethod
    def hook(self, rig: Rig, options: dict[str, Any]) -> Callable[..., None]:
        """Returns the hook that cuts by a proposal's options."""

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return optimizer_of(rig, self.name).register_step_pre_hook(self.hook(rig, proposal.options)).remove

    def proposal(self, summary: str, options: dict[str, Any], code: str) -> Proposal:
        """Returns the proposal whose code stands between backward and step."""
        lines = f" loss.backward()\n{code}\n optimizer.step()"
        return Proposal(remedy=self.name, options=options, cause="no_grad_clip", summary=summary, code=lines, needs=("optimizer",))


@dataclass(frozen=True, kw_only=True)
class ClipLayer(_Clip):
    """Scales the gradient of each parameter down to a norm of its own: one wild layer no longer takes the step from all others.

    Reference: Pascanu, Mikolov & Bengio 2013 (the norm of all gradients); Keras' clipnorm is this one.
    """

    name: ClassVar[str] = "clip_layer"
    title: ClassVar[str] = "gradients clipped by the norm of each layer"

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        if trace.facts.optimizer is not None:
            limit = suggested(trace, finding, "layer")
            code = f"+for p in model.parameters():\n+    torch.nn.utils.clip_grad_norm_([p], {limit:g})"
            yield self.proposal(f"clip_layer {limit:g}", {"max_norm": limit}, code)

    def hook(self, rig: Rig, options: dict[str, Any]) -> Callable[..., None]:
        return LayerClip(float(options["max_norm"]))


@dataclass(frozen=True, kw_only=True)
class AGC(_Clip):
    """Clips each unit's gradient to a share of the norm of its weights, on all but the last layer.

    Attributes:
        clipping: Largest gradient norm of a unit, in norms of its weights.

    Reference: Brock, De, Smith & Simonyan 2021, https://arxiv.org/abs/2102.06171.
    """

    name: ClassVar[str] = "agc"
    title: ClassVar[str] = "gradients clipped by the size of the weights"
    clipping: float = 0.01

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        if trace.facts.optimizer is not None:
            head = (trace.facts.head or {}).get("layer")
            code = f"+evengrad.clip_adaptive_(model.parameters(), {self.clipping:g})"
            yield self.proposal(f"agc {self.clipping:g}", {"clipping": self.clipping, "head": head}, code)

    def hook(self, rig: Rig, options: dict[str, Any]) -> Callable[..., None]:
        head = options.get("head")
        spared = frozenset(id(p) for n, p in rig.model.named_parameters() if head and n.rpartition(".")[0] == head)
        return UnitClip(float(options["clipping"]), spared)


@dataclass(frozen=True, kw_only=True)
class AutoClip(_Clip):
    """Clips the norm to a percentile of all norms so far, so that the threshold follows the training.

    Attributes:
        percentile: The percentile, in [0, 100].

    Reference: Seetharaman, Wichern, Pardo & Le Roux 2020, https://arxiv.org/abs/2007.14469 (10 is best there).
    """

    name: ClassVar[str] = "autoclip"
    title: ClassVar[str] = "gradients clipped at a percentile of their norms"
    percentile: float = 10.0

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        if trace.facts.optimizer is not None and len(healthy_norms(trace, None)) >= _KNOWN:
            code = (
                "+norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))  # norms = [] before the loop\n"
                f"+torch.nn.utils.clip_grad_norm_(model.parameters(), float(numpy.percentile(norms, {self.percentile:g})))"
            )
            yield self.proposal(f"autoclip at the {self.percentile:g}th percentile", {"percentile": self.percentile}, code)

    def hook(self, rig: Rig, options: dict[str, Any]) -> Callable[..., None]:
        return PercentileClip(float(options["percentile"]))


@dataclass(frozen=True, kw_only=True)
class ZClip(_Clip):
    """Clips norms that lie too many standard deviations above their running mean, and leaves all others as they are.

    Attributes:
        limit: Standard deviations above the mean from which a norm is clipped.
        steps: Steps over which mean and deviation are learnt before anything is clipped.

    Reference: Kumar, Owen, Chowdhury & Güra 2025, https://arxiv.org/abs/2504.02507.
    """

    name: ClassVar[str] = "zclip"
    title: ClassVar[str] = "spikes of the gradient's norm clipped"
    limit: float = 2.5
    steps: int = 25

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        known = healthy_norms(trace, finding)
        if trace.facts.optimizer is None or len(known) < _KNOWN or finding.steps[0] <= self.steps:
            return  # the trouble came before anything would be clipped
        code = (
            "+norm = float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]))\n"
            f"+z = (norm - mean) / std  # running mean and deviation of the norms, learnt over {self.steps} steps\n"
            f"+if z > {self.limit:g}:\n+    torch.nn.utils.clip_grad_norm_(model.parameters(), mean + {self.limit**2:g} / z * std)"
        )
        yield self.proposal(f"zclip at {self.limit:g} deviations", {"limit": self.limit, "steps": self.steps}, code)

    def hook(self, rig: Rig, options: dict[str, Any]) -> Callable[..., None]:
        return DeviationClip(float(options["limit"]), int(options["steps"]))
