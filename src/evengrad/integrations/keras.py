"""A Keras model's own `fit` -> a monitor; a compiled Keras model -> an Experiment. Keras 3 on the torch backend; extra `keras`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.batches import batches_of
from evengrad.errors import InputError
from evengrad.monitor.monitor import Monitor, watch
from evengrad.trace.batch import call
from evengrad.training import Experiment

try:
    import keras
except ImportError as error:
    raise InputError("watching Keras needs keras, which is not installed: pip install 'evengrad[keras]'") from error

from evengrad.integrations.keras_optimizers import Steps, torch_optimizer

__all__ = ["Watch", "experiment", "torch_optimizer"]


class Watch(keras.callbacks.Callback):  # type: ignore[misc, unused-ignore]
    """Watches `model.fit`: raw gradients, true updates and what flows through the layers, the loss of each batch, metrics of each epoch.

    Gradients are seen as autograd left them, before clipvalue, clipnorm or global_clipnorm, and again as the optimizer uses them. With
    gradient accumulation each batch counts as a step. The training does not change by a bit; a guard that stops it ends `fit`.

    Args:
        **options: What `eg.watch` takes: `name`, `every`, `guard`, `store`, `sinks`, `live`, `rules`, `select`, `ignore`.

    Attributes:
        monitor: The monitor of the last `fit`; `watch.monitor.report()` judges it, also while it trains.

    Raises:
        InputError: at the beginning of `fit`, if an option does not fit or the model is not on the torch backend.

    Example:
        >>> watch = eg.integrations.keras.Watch()
        >>> model.fit(x, y, callbacks=[watch])
        >>> print(watch.monitor.report())
    """

    monitor: Monitor

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._steps: Steps | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins to watch."""
        self.detach()
        self._steps = Steps(self.model, lambda loss: self.monitor.observe(loss=loss))
        try:
            self.monitor = watch(self.model, self._steps, **self._options)
        except BaseException:
            self.detach()
            raise

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Takes the metrics of an epoch; Keras's `loss` is a running mean, and the loss of each batch is known already."""
        values = {k: float(v) for k, v in (logs or {}).items() if k != "loss" and isinstance(v, (int, float))}
        if values:
            self.monitor.observe(**values)

    def on_train_end(self, logs: Any = None) -> None:
        """Ends the watch."""
        self.detach()

    def detach(self) -> None:
        """Ends the watch, also of a `fit` that raised; can be called twice."""
        if self._steps is not None:
            self._steps.detach()
            self._steps = None
            if hasattr(self, "monitor"):
                self.monitor.detach()


def experiment(build: Callable[[], Any], data: Any, *, validation: Any = None, **options: Any) -> Experiment:
    """Makes an Experiment of a function that returns a compiled Keras model: its loss, and its optimizer as torch's, clipping included.

    Args:
        build: Returns a compiled model; called anew for every seed.
        data: What Experiment takes: `(x, y)`, a Dataset, or a function that returns batches.
        validation: Data to judge on, in any of those forms.
        **options: Further options of Experiment: `epochs`, `batch_size`, `metric` … Classifiers are judged by accuracy, others by the loss.

    Raises:
        InputError: if the model is not compiled with one loss, or torch has no such optimizer.

    Example:
        >>> def build():
        ...     model = keras.Sequential([keras.Input((2,)), Dense(5, activation="tanh"), Dense(1, activation="sigmoid")])
        ...     model.compile(loss="binary_crossentropy", optimizer=SGD(learning_rate=0.01, momentum=0.9, clipvalue=1.0))
        ...     return model
        >>> result = eg.fix(eg.integrations.keras.experiment(build, (x, y), epochs=100, batch_size=32))
    """
    loss = _loss_of(build())
    if loss.threshold is not None:
        options.setdefault("metric", _Accuracy(validation if validation is not None else data, loss.threshold))
    return Experiment(build, data, loss, _optimizer_of, validation=validation, **{"batch_size": 32} | options)


def _optimizer_of(model: Any) -> torch.optim.Optimizer:
    return torch_optimizer(model.optimizer, model.parameters())


def _loss_of(model: Any) -> _Loss:
    loss = getattr(model, "loss", None)
    if loss is None or isinstance(loss, (list, tuple, dict)):
        got = "none" if loss is None else f"a {type(loss).__name__}"
        raise InputError(f"expected a model compiled with one loss; got {got}. Call model.compile(loss=..., optimizer=...) in the function")
    return _Loss(keras.losses.get(loss))


class _Loss(nn.Module):
    """A Keras loss, called as torch's are; `threshold` tells the second class from the first, None for what is no classifier."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.of = loss
        name = str(getattr(loss, "name", None) or getattr(loss, "__name__", ""))
        logits = bool(getattr(loss, "from_logits", getattr(loss, "_fn_kwargs", {}).get("from_logits", False)))
        self.threshold = (0.0 if logits else 0.5) if "crossentropy" in name or "CrossEntropy" in name else None

    def forward(self, output: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch."""
        if output.dim() == targets.dim() + 1 and output.shape[-1] == 1:
            targets = targets[..., None]
        found: Tensor = self.of(targets, output)
        return found if not found.dim() else found.mean()


class _Accuracy:
    """Share of right answers over data: the largest output, or an only output beyond the threshold."""

    __name__ = "accuracy"

    def __init__(self, data: Any, threshold: float) -> None:
        self._batches, self._threshold = batches_of(data, 1024, 0), threshold

    def __call__(self, model: nn.Module) -> float:
        right = count = 0
        device = next(model.parameters()).device
        with torch.no_grad():
            for batch in (b.to(device) for b in self._batches(0)):
                output, labels = call(model, batch.inputs), batch.targets
                wide = output.dim() > 1 and output.shape[-1] > 1
                answers = output.argmax(-1) if wide else output.flatten() > self._threshold
                labels = labels.argmax(-1) if wide and labels.shape == output.shape else labels  # one-hot
                right += int((answers.flatten() == labels.flatten()).sum())
                count += answers.numel()
        return right / count
