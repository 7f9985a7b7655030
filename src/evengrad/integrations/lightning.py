"""A Lightning Trainer's `fit` -> a monitor. Extra `lightning`; works with `lightning` and with `pytorch-lightning`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.integrations.steps import Steps
from evengrad.monitor.monitor import Monitor, watch

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _callback() -> Any:
    """The base class of the package that the user has imported, or else of the one that is installed."""
    for name in [p for p in _PACKAGES if p in sys.modules] or _PACKAGES:
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            continue
    raise InputError("watching Lightning needs lightning, which is not installed: pip install 'evengrad[lightning]'")


class Watch(_callback()):  # type: ignore[misc]
    """Watches `trainer.fit`: gradients before clipping and as they are used, updates, what flows through the layers, and the loss.

    Steps are counted as the optimizer takes them: with `accumulate_grad_batches` the losses of one step are averaged. A guard that stops
    the training ends `fit`.

    Args:
        **options: What `eg.watch` takes: `name`, `every`, `guard`, `store`, `sinks`, `live`, `rules`, `select`, `ignore`.

    Attributes:
        monitor: The monitor of the last `fit`; `watch.monitor.report()` judges it, also while it trains.

    Example:
        >>> watch = eg.integrations.lightning.Watch()
        >>> Trainer(callbacks=[watch], gradient_clip_val=1.0).fit(module, loader)
        >>> print(watch.monitor.report())
    """

    monitor: Monitor

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._undo: list[Callable[[], None]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begins to watch."""
        self._detach()

        def stop() -> None:
            trainer.should_stop = True

        steps = [Steps(optimizer, stop) for optimizer in trainer.optimizers]
        self._undo = [one.detach for one in steps]
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        model = type(type(pl_module).__name__, (_TrainingStep,), {})(pl_module)
        self._undo.append(model.detach)
        try:
            self.monitor = watch(model, steps, scaler=scaler, **self._options)
        except BaseException:
            self._detach()
            raise
        self._undo.append(self.monitor.detach)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Takes the loss of a batch; Lightning has divided it by the batches of a step."""
        if self._undo and loss.numel() == 1:
            self.monitor.observe(loss=loss.detach() * (trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Takes the metrics of a validation: those whose name begins with `val`."""
        if self._undo:
            found = {k.replace("/", "_").replace("valid_", "val_"): v for k, v in trainer.callback_metrics.items() if k.startswith("val")}
            if found:
                self.monitor.observe(**{k: float(v) for k, v in found.items()})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Ends the watch."""
        self._detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Ends the watch of a `fit` that raised."""
        self._detach()

    def _detach(self) -> None:
        while self._undo:
            self._undo.pop()()


class _TrainingStep(nn.Module):
    """A module's `training_step` as a model of the module's own parts: what it calls, users decide, but it is what a batch goes through."""

    owner: Any
    step: Any
    counts: bool

    def __init__(self, module: Any) -> None:
        super().__init__()
        parts = {name: vars(module)[name] for name in ("_modules", "_parameters", "_buffers")}
        vars(self).update(parts, owner=module, step=module.training_step, counts=False)
        vars(module)["training_step"] = self._called

    def _called(self, *args: Any, **kwargs: Any) -> Any:
        vars(self)["counts"] = True
        try:
            return self(*args, **kwargs)
        finally:
            vars(self)["counts"] = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Takes the step; one that is run again, to find what went wrong in it, logs nothing."""
        if self.counts:
            return self.step(*args, **kwargs)
        vars(self.owner).update(log=_nothing, log_dict=_nothing)
        try:
            return self.step(*args, **kwargs)
        finally:
            vars(self.owner).pop("log")
            vars(self.owner).pop("log_dict")

    def detach(self) -> None:
        """Gives the module its own method back."""
        vars(self.owner).pop("training_step", None)


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass
