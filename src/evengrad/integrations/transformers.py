"""A Transformers Trainer's `train` -> a monitor. Extra `transformers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from evengrad.errors import InputError
from evengrad.integrations.steps import Steps
from evengrad.monitor.monitor import Monitor, watch

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise InputError("watching Transformers needs transformers, which is not installed: pip install 'evengrad[transformers]'") from error


class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Watches `trainer.train`: gradients before clipping and as they are used, updates, what flows through the layers, and the loss.

    The Trainer clips at `max_grad_norm` (1 unless told otherwise) before any event of its own, so gradients are taken at the end of
    each backward pass, and again as the optimizer uses them. A guard that stops the training ends `train`.

    Args:
        **options: What `eg.watch` takes: `name`, `every`, `guard`, `store`, `sinks`, `live`, `rules`, `select`, `ignore`.

    Attributes:
        monitor: The monitor of the last `train`; `watch.monitor.report()` judges it, also while it trains.

    Example:
        >>> watch = eg.integrations.transformers.Watch()
        >>> Trainer(model, arguments, train_dataset=data, callbacks=[watch]).train()
        >>> print(watch.monitor.report())
    """

    monitor: Monitor

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._undo: list[Callable[[], None]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any) -> None:
        """Begins to watch."""
        self._detach()

        def stop() -> None:
            control.should_training_stop = True

        steps = Steps(getattr(optimizer, "optimizer", optimizer), stop)  # accelerate's wrapper has no hooks
        self._undo = [steps.detach]
        try:
            self.monitor = watch(model, steps, **self._options)
        except BaseException:
            self._detach()
            raise
        shares = args.gradient_accumulation_steps

        def returned(module: Any, inputs: Any, options: dict[str, Any], output: Any) -> None:
            loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
            if module.training and isinstance(loss, Tensor) and loss.numel() == 1:
                whole = shares if options.get("num_items_in_batch") is not None else 1  # then each is divided by the items of the step
                self.monitor.observe(loss=loss.detach() * whole)

        self._undo += [model.register_forward_hook(returned, with_kwargs=True).remove, self.monitor.detach]

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Takes the metrics of an evaluation: `eval_loss` becomes `val_loss`."""
        found = {k.replace("eval_", "val_", 1): v for k, v in (metrics or {}).items() if k.startswith("eval_") and isinstance(v, float)}
        found = {k: v for k, v in found.items() if not k.endswith(("_runtime", "_per_second"))}
        if self._undo and found:
            self.monitor.observe(**found)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the watch."""
        self._detach()

    def _detach(self) -> None:
        while self._undo:
            self._undo.pop()()
