"""A Keras optimizer -> torch's own with the same settings, or the steps that it takes in `fit` as those of a torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.monitor.guards.base import TrainingStoppedError


class Steps(torch.optim.Optimizer):
    """The steps of a compiled model's Keras optimizer, seen as those of a torch optimizer, so that hooks fire around each.

    Args:
        model: A compiled Keras model.
        loss: Called with the loss of each batch, before its backward pass.

    Raises:
        InputError: if the model is not compiled.
    """

    def __init__(self, model: Any, loss: Callable[[Tensor], None]) -> None:
        optimizer = getattr(model, "optimizer", None)
        if optimizer is None:
            raise InputError("the Keras model has no optimizer; call model.compile(optimizer=..., loss=...) before fit")
        super().__init__([v.value for v in model.trainable_variables], {"lr": float(optimizer.learning_rate)})
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._variables: list[Any] = []
        self._clips = not getattr(optimizer, "gradient_accumulation_steps", None) and optimizer.loss_scale_factor is None
        self._original = {"apply": optimizer.apply, "scale_loss": optimizer.scale_loss}
        optimizer.__dict__.update(apply=self._applied, scale_loss=self._scaled)

    def detach(self) -> None:
        """Gives the Keras optimizer its own methods back."""
        for name in self._original:
            self._optimizer.__dict__.pop(name, None)

    def _scaled(self, loss: Tensor) -> Any:
        self._loss(loss)
        return self._original["scale_loss"](loss)

    def _applied(self, grads: Iterable[Tensor | None], variables: Iterable[Any] | None = None) -> None:
        """Stands in for `apply`: clips as Keras would, lets the hooks see what is used, and puts the raw gradients back."""
        self._variables = list(self._model.trainable_variables if variables is None else variables)
        raw = list(grads)
        used = self._optimizer._clip_gradients(raw) if self._clips else raw
        for group in self.param_groups:
            group["lr"] = float(self._optimizer.learning_rate)
        for variable, gradient in zip(self._variables, used, strict=True):
            variable.value.grad = gradient
        try:
            self.step()
        except TrainingStoppedError:
            self._model.stop_training = True
        for variable, gradient in zip(self._variables, raw, strict=True):
            variable.value.grad = gradient

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Has Keras take the step, with the gradients as the hooks left them; a guard that drops them leaves the step out."""
        grads = [v.value.grad for v in self._variables]
        if all(g is None for g in grads):
            return
        if self._clips:
            self._optimizer.__dict__["_clip_gradients"] = _as_they_are
        try:
            self._original["apply"](grads, self._variables)
        finally:
            self._optimizer.__dict__.pop("_clip_gradients", None)


def _as_they_are(grads: Any) -> Any:
    return grads


def torch_optimizer(optimizer: Any, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Makes torch's optimizer of the same kind and settings; clipvalue, clipnorm and global_clipnorm cut its gradients before each step.

    A schedule becomes its first rate. Rounding apart, SGD, Adagrad, Adadelta and RMSprop take the same steps; Adam and its kin place
    epsilon differently.

    Args:
        optimizer: A Keras optimizer.
        parameters: What it is to train.

    Raises:
        InputError: if torch has none of this kind.
    """
    kind, held = type(optimizer).__name__, list(parameters)
    made = _KINDS.get(kind)
    if made is None:
        raise InputError(f"torch has no optimizer like Keras's {kind}; expected one of {', '.join(_KINDS)}. Give Experiment one of torch's")
    decay = optimizer.weight_decay or 0.0
    found = made(held, optimizer, float(optimizer.learning_rate))
    if decay and kind != "AdamW":  # Keras decays weights apart from gradients, as AdamW does
        found.register_step_pre_hook(partial(_decay, decay=decay))
    for limit, cut in ((optimizer.clipnorm, _clip_each), (optimizer.global_clipnorm, _clip_all), (optimizer.clipvalue, _clip_values)):
        if limit:
            found.register_step_pre_hook(partial(cut, limit=float(limit)))
            break
    return found


_KINDS: dict[str, Callable[[list[nn.Parameter], Any, float], torch.optim.Optimizer]] = {
    "SGD": lambda p, o, lr: torch.optim.SGD(p, lr, momentum=o.momentum, nesterov=bool(o.nesterov and o.momentum)),
    "Adam": lambda p, o, lr: torch.optim.Adam(p, lr, (o.beta_1, o.beta_2), o.epsilon, amsgrad=o.amsgrad),
    "AdamW": lambda p, o, lr: torch.optim.AdamW(p, lr, (o.beta_1, o.beta_2), o.epsilon, o.weight_decay or 0.0, amsgrad=o.amsgrad),
    "Adamax": lambda p, o, lr: torch.optim.Adamax(p, lr, (o.beta_1, o.beta_2), o.epsilon),
    "Nadam": lambda p, o, lr: torch.optim.NAdam(p, lr, (o.beta_1, o.beta_2), o.epsilon),
    "RMSprop": lambda p, o, lr: torch.optim.RMSprop(p, lr, o.rho, o.epsilon, momentum=o.momentum, centered=o.centered),
    "Adagrad": lambda p, o, lr: torch.optim.Adagrad(p, lr, initial_accumulator_value=o.initial_accumulator_value, eps=o.epsilon),
    "Adadelta": lambda p, o, lr: torch.optim.Adadelta(p, lr, o.rho, o.epsilon),
}


def _decay(optimizer: torch.optim.Optimizer, _args: object, _kwargs: object, *, decay: float) -> None:
    with torch.no_grad():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.mul_(1.0 - decay * group["lr"])


def _clip_each(optimizer: torch.optim.Optimizer, _args: object, _kwargs: object, *, limit: float) -> None:
    for parameter in _parameters(optimizer):
        nn.utils.clip_grad_norm_(parameter, limit)


def _clip_all(optimizer: torch.optim.Optimizer, _args: object, _kwargs: object, *, limit: float) -> None:
    nn.utils.clip_grad_norm_(_parameters(optimizer), limit)


def _clip_values(optimizer: torch.optim.Optimizer, _args: object, _kwargs: object, *, limit: float) -> None:
    nn.utils.clip_grad_value_(_parameters(optimizer), limit)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
