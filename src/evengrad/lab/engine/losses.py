"""Outputs of many runs and their targets -> each run's mean loss, its gradient at the outputs, and who was right."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn import functional as F

from evengrad.errors import unknown


class RunsLoss(ABC):
    """A loss that keeps runs apart; `outputs` are (runs, batch, ..., outputs), `targets` (runs, batch, ...)."""

    name: str

    @abstractmethod
    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of each answer (runs, answers), differentiable."""

    @abstractmethod
    def slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the gradient of each run's mean loss at its outputs, shaped as they are."""

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Returns a mask (runs, answers) of right answers, or None where there is no such thing."""
        return None

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns each run's mean loss (runs,)."""
        return self.each(outputs, targets).mean(1)


class BinaryCrossEntropy(RunsLoss):
    """One logit for each answer, targets in [0, 1]: softplus(z) - y z."""

    name = "bce"

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `torch.nn.functional.binary_cross_entropy_with_logits`."""
        z = outputs.flatten(1)
        return F.binary_cross_entropy_with_logits(z, targets.flatten(1).to(z.dtype), reduction="none")

    def slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(sigmoid(z) - y) / n."""
        return (outputs.sigmoid() - targets.reshape(outputs.shape)).div_(outputs[0].numel())

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The logit's sign decides."""
        return (outputs.flatten(1) > 0) == (targets.flatten(1) > 0.5)


class CrossEntropy(RunsLoss):
    """Logits on the last axis, integer labels: log-sum-exp(z) - z[label]."""

    name = "cross_entropy"

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `torch.nn.functional.cross_entropy`."""
        z, labels = outputs.flatten(1, -2), targets.flatten(1).long()
        return z.logsumexp(-1) - z.gather(-1, labels.unsqueeze(-1)).squeeze(-1)

    def slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(softmax(z) - one-hot) / n."""
        z, labels = outputs.flatten(1, -2), targets.flatten(1).long().unsqueeze(-1)
        slope = z.softmax(-1)
        slope.scatter_add_(-1, labels, slope.new_full((), -1.0).expand(labels.shape))
        return slope.div_(z.shape[1]).reshape(outputs.shape)

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The largest logit decides."""
        return outputs.flatten(1, -2).argmax(-1) == targets.flatten(1)


class MeanSquaredError(RunsLoss):
    """Squared error, a mean over all outputs."""

    name = "mse"

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(z - y)^2."""
        return (outputs.flatten(1) - targets.flatten(1).to(outputs.dtype)).square()

    def slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """2 (z - y) / n."""
        return (outputs - targets.reshape(outputs.shape)).mul_(2 / outputs[0].numel())


LOSSES: dict[str, RunsLoss] = {loss.name: loss for loss in (BinaryCrossEntropy(), CrossEntropy(), MeanSquaredError())}


def runs_loss(name: str, targets: Tensor, outputs: int) -> RunsLoss:
    """Returns the loss called `name`; `auto` is bce for one output and labels, cross_entropy for more, mse for float targets.

    Raises:
        UnknownNameError: for another name.
    """
    if name == "auto":
        name = "mse" if targets.is_floating_point() else "bce" if outputs == 1 else "cross_entropy"
    if name not in LOSSES:
        raise unknown("loss", name, ("auto", *LOSSES))
    return LOSSES[name]
