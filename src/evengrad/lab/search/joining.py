"""A built experiment -> what it takes to train it beside others as one network, or why that cannot be."""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.nn import functional as F

from evengrad.lab.engine.losses import LOSSES, RunsLoss
from evengrad.lab.engine.optimizers import OPTIMIZERS, Optimizer, optimizer
from evengrad.rig import Rig
from evengrad.trace.batch import Batch, Loss
from evengrad.training import Experiment

_CLIPS = {"clip_norm": "max_norm", "clip_value": "clip_value"}
_NO_MATTER = {
    "params",
    "foreach",
    "fused",
    "capturable",
    "differentiable",
    "decoupled_weight_decay",
}  # of groups: the update stays the same
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class CannotJoinError(Exception):
    """Why a training cannot share a network with others: the rest of a sentence that begins with `it`."""


@dataclass(frozen=True)
class Joined:
    """One training of many.

    Attributes:
        rig: The experiment, built.
        optimizer: Its optimizer as plain numbers.
        clips: Thresholds of clipping by `norm` and by `value`, infinite for none.
        shape: What must be equal for trainings that share a network.
    """

    rig: Rig
    optimizer: Optimizer
    clips: tuple[float, float]
    shape: Hashable


def join(experiment: Experiment, rig: Rig, batch: Batch) -> Joined:
    """Looks whether a training can be one of many in a network.

    Args:
        experiment: The experiment.
        rig: The experiment, built.
        batch: Its first batch.

    Raises:
        CannotJoinError: if not, and why.
    """
    for part in ("train_step", "scheduler"):
        if getattr(experiment, part) is not None:
            raise CannotJoinError(f"has a {part} of its own")
    if not isinstance(batch.inputs, Tensor) or not isinstance(batch.targets, Tensor):
        raise CannotJoinError("takes other inputs and targets than one tensor each")
    model = rig.model
    parameters = list(model.parameters())
    if any(getattr(m, hooks) for m in model.modules() for hooks in _HOOKS):
        raise CannotJoinError("has hooks on its modules")
    if not all(p.requires_grad for p in parameters):
        raise CannotJoinError("has frozen parameters")
    if len({(p.dtype, p.device) for p in parameters}) > 1:
        raise CannotJoinError("has parameters of several types or on several devices")
    if parameters[0].device.type == "cpu" and any(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules()):
        raise CannotJoinError("has convolutions, which are not faster together on a CPU")
    assert rig.optimizer is not None  # build gave one
    clips = _clips(experiment, rig.optimizer)
    plain = _plain(rig.optimizer, parameters)
    return Joined(rig, plain, clips, (_structure(model), plain.shape(), experiment.batch_size))


def loss_of(loss_fn: Loss, output: Tensor, targets: Tensor, *, known: bool) -> RunsLoss:
    """Returns the user's loss for many runs: one of ours where it is the same, else the user's own, mapped over the runs.

    Args:
        loss_fn: The user's.
        output: What one network answers (batch, ...).
        targets: The targets of that batch.
        known: Whether all labels have been seen, so that none can be one to ignore.
    """
    name = _plain_losses().get(loss_fn) if inspect.isfunction(loss_fn) or inspect.isbuiltin(loss_fn) else _plain_module(loss_fn)
    labels = not targets.is_floating_point()
    fits = {
        "cross_entropy": labels and known and output.dim() == 2 and targets.dim() == 1,
        "bce": output.shape == targets.shape and not labels,
        "mse": output.shape == targets.shape and not labels,
    }
    return LOSSES[name] if name is not None and fits[name] else MappedLoss(loss_fn)


class MappedLoss(RunsLoss):
    """The user's own loss, for each run apart by `torch.func.vmap`."""

    name = "own"

    def __init__(self, loss_fn: Loss) -> None:
        self._both = vmap(grad_and_value(loss_fn), randomness="different")
        self._value = vmap(loss_fn, randomness="different")

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean as the only answer (runs, 1)."""
        return self.mean(outputs, targets).unsqueeze(1)

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What the user's loss says of each run (runs,)."""
        found: Tensor = self._value(outputs, targets)
        return found.reshape(-1)

    def slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Its gradient."""
        found: Tensor = self._both(outputs, targets)[0]
        return found


def _plain_losses() -> dict[Any, str]:
    return {F.cross_entropy: "cross_entropy", F.binary_cross_entropy_with_logits: "bce", F.mse_loss: "mse"}


def _plain_module(loss_fn: Loss) -> str | None:
    """The name of a loss module that has torch's default settings."""
    settings = ("reduction", "ignore_index", "label_smoothing", "weight", "pos_weight")
    for usual, name in ((nn.CrossEntropyLoss(), "cross_entropy"), (nn.BCEWithLogitsLoss(), "bce"), (nn.MSELoss(), "mse")):
        if type(loss_fn) is type(usual) and all(_same(getattr(loss_fn, s, None), getattr(usual, s, None)) for s in settings):
            return name
    return None


def _same(a: Any, b: Any) -> bool:
    return a is b or (not isinstance(a, Tensor) and a == b)


def _clips(experiment: Experiment, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    found = [p for p in experiment.repairs if p.remedy in _CLIPS]
    kinds = [p.remedy for p in found]
    if len(optimizer._optimizer_step_pre_hooks) != len(found) or optimizer._optimizer_step_post_hooks:
        raise CannotJoinError("has hooks on its optimizer")
    if kinds not in ([], ["clip_norm"], ["clip_value"], ["clip_norm", "clip_value"]):
        raise CannotJoinError(f"clips several times: {', '.join(kinds)}")
    limits = {p.remedy: float(p.options[_CLIPS[p.remedy]]) for p in found}
    return limits.get("clip_norm", float("inf")), limits.get("clip_value", float("inf"))


def _plain(found: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> Optimizer:
    kind = type(found)
    if kind.__name__ not in OPTIMIZERS or kind is not getattr(torch.optim, kind.__name__):
        raise CannotJoinError(f"trains with {kind.__name__}; together can be {', '.join(OPTIMIZERS)}")
    settings = [{k: v for k, v in group.items() if k not in _NO_MATTER} for group in found.param_groups]
    if any(group != settings[0] for group in settings) or {id(p) for g in found.param_groups for p in g["params"]} != set(
        map(id, parameters)
    ):
        raise CannotJoinError("has groups of parameters with numbers of their own, or parameters without an optimizer")
    numbers = dict(settings[0])
    if betas := numbers.pop("betas", None):
        numbers |= {"beta1": betas[0], "beta2": betas[1]}
    usual = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    ours = {
        name: v if isinstance(v, bool) else float(v)
        for name, v in numbers.items()
        if name in OPTIMIZERS[kind.__name__].__dataclass_fields__
    }
    for name in numbers.keys() - ours.keys():
        if numbers[name] != usual.get(name):
            raise CannotJoinError(f"trains with {kind.__name__}({name}={numbers[name]})")
    return optimizer(kind.__name__, **ours)


def _structure(model: nn.Module) -> Hashable:
    """Equal for networks that one forward serves: every module's kind and settings, every parameter's shape, not the rates of dropouts."""
    modules = tuple((name, type(m), _settings(m)) for name, m in model.named_modules())
    return modules, tuple((name, p.shape) for name, p in model.named_parameters())


def _settings(module: nn.Module) -> Hashable:
    free = {"training", "p"} if isinstance(module, nn.modules.dropout._DropoutNd) else {"training"}
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and name not in free}
    return tuple((name, _comparable(value)) for name, value in own.items())


def _comparable(value: Any) -> Hashable:
    """The value, or a text that differs where it may."""
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value  # type: ignore[no-any-return]
