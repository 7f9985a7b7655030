"""torch layer -> the same layer of many networks: parameters (runs, *shape), input (runs, batch, *sample).

Layouts of weights stay torch's own, with the runs axis in front; `stack` puts parameters and buffers in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.lab.models.axes import lift
from evengrad.lab.models.hashing import HashAlphaDropout, HashDropout, HashRReLU


class RunsLayer(nn.Module):
    """Takes over a layer's settings (`in_features`, `eps`, `stride` ...), but not its parameters and buffers."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.__dict__.update({name: value for name, value in vars(layer).items() if not name.startswith("_")})
        self._kind = type(layer)

    def extra_repr(self) -> str:
        return self._kind.extra_repr(self)


class RunsLinear(RunsLayer):
    """weight (runs, out, in), bias (runs, out) or None; x (runs, batch, ..., in)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() > 3:
            z = self.forward(x.flatten(1, -2))
            return z.view(*x.shape[:-1], -1)
        if self.bias is None:
            return torch.bmm(x, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.mT)


class RunsEmbedding(RunsLayer):
    """weight (runs, words, features); x (runs, batch, ...) whole numbers. One lookup in all tables laid end to end."""

    padding_idx: int | None

    def forward(self, x: Tensor) -> Tensor:
        start = torch.arange(0, self.weight[..., 0].numel(), self.weight.shape[1], device=x.device)
        found = F.embedding(x + lift(start, x), self.weight.flatten(0, 1))
        if self.padding_idx is None:
            return found
        padding = (x == self.padding_idx).unsqueeze(-1)
        return torch.where(padding, found.detach(), found)  # as in torch, a padding's row has a value and no gradient


def in_channels(x: Tensor) -> Tensor:
    """(runs, batch, channels, ...) -> (batch, runs * channels, ...): no copy behind another layer that was run this way."""
    return x.transpose(0, 1).flatten(1, 2)


def out_of_channels(x: Tensor, runs: int) -> Tensor:
    """(batch, runs * channels, ...) -> (runs, batch, channels, ...)."""
    return x.view(len(x), runs, -1, *x.shape[2:]).transpose(0, 1)


class RunsConv(RunsLayer):
    """weight (runs, out, in / groups, k...); x (runs, batch, in, ...): one convolution with runs times the groups."""

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str | tuple[int, ...]
    groups: int
    padding_mode: str

    def __init__(self, layer: nn.modules.conv._ConvNd) -> None:
        super().__init__(layer)
        self._convolve: Callable[..., Tensor] = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
        self._around = layer._reversed_padding_repeated_twice

    def forward(self, x: Tensor) -> Tensor:
        runs, padding, h = len(x), self.padding, in_channels(x)
        if self.padding_mode != "zeros":
            h, padding = F.pad(h, self._around, self.padding_mode), 0  # type: ignore[assignment]
        bias = None if self.bias is None else self.bias.flatten()
        z = self._convolve(h, self.weight.flatten(0, 1), bias, self.stride, padding, self.dilation, runs * self.groups)
        return out_of_channels(z, runs)


class RunsChannelwise(nn.Module):
    """A layer without parameters that treats each channel apart, such as a pool."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return out_of_channels(self.layer(in_channels(x)), len(x))


class RunsBatchNorm(RunsLayer):
    """weight, bias, running_mean, running_var (runs, channels); x (runs, batch, channels, ...): statistics of each run apart."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    momentum: float | None
    eps: float

    def forward(self, x: Tensor) -> Tensor:
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # a cumulative average
                momentum = 1 / float(self.num_batches_tracked[0])
        training = self.training or self.running_mean is None
        mean, var, weight, bias = (None if v is None else v.view(-1) for v in (self.running_mean, self.running_var, self.weight, self.bias))
        return out_of_channels(F.batch_norm(in_channels(x), mean, var, weight, bias, training, momentum, self.eps), len(x))


class RunsLayerNorm(RunsLayer):
    """Layer and RMS norm: weight, bias (runs, *normalized_shape); x (runs, batch, ..., *normalized_shape)."""

    normalized_shape: tuple[int, ...]
    eps: float | None

    def forward(self, x: Tensor) -> Tensor:
        own = len(self.normalized_shape)
        if self._kind is nn.RMSNorm:
            h = F.rms_norm(x, self.normalized_shape, None, self.eps)
            return h if self.weight is None else h * lift(self.weight, x, own)
        return _affine(F.layer_norm(x, self.normalized_shape, None, None, cast(float, self.eps)), self.weight, self.bias, own)


class RunsGroupNorm(RunsLayer):
    """weight, bias (runs, channels); x (runs, batch, channels, ...)."""

    num_groups: int
    eps: float

    def forward(self, x: Tensor) -> Tensor:
        h = F.group_norm(x.flatten(0, 1), self.num_groups, None, None, self.eps).view(x.shape)
        places = x.dim() - 3
        weight, bias = (None if v is None else v.view(*v.shape, *[1] * places) for v in (self.weight, self.bias))
        return _affine(h, weight, bias, 1 + places)


def _affine(h: Tensor, weight: Tensor | None, bias: Tensor | None, axes: int) -> Tensor:
    if weight is None:
        return h
    if bias is None:
        return h * lift(weight, h, axes)
    return torch.addcmul(lift(bias, h, axes), h, lift(weight, h, axes))


class RunsPReLU(RunsLayer):
    """weight (runs, 1) or (runs, channels); x (runs, batch, channels, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        slope = self.weight.view(len(x), 1, -1, *[1] * (x.dim() - 3))
        return torch.where(x > 0, x, x * slope)


def runs_layer(layer: nn.Module) -> nn.Module | None:
    """Returns the layer as it is run for many networks at once, still without parameters; None if there is no such form of it."""
    kind = type(layer)
    if getattr(layer, "max_norm", None) is not None or getattr(layer, "dim", 0) is None:
        return None  # an embedding that changes its own weights; a softmax whose axis goes by the number of axes
    if kind in _LAYERS:
        return _LAYERS[kind](layer)
    if kind in _CHANNELWISE:
        return RunsChannelwise(layer)
    return None


def hashed(layer: nn.Module) -> nn.Module:
    """Returns the layer, or one whose random numbers are a hash where torch's come from the global generator, so from what ran before."""
    kind = type(layer)
    return _HASHED[kind](layer) if kind in _HASHED else layer


def _behind_runs(dim: int) -> int:
    return dim if dim < 0 else dim + 1


_LAYERS: dict[type, Callable[..., nn.Module]] = {
    nn.Linear: RunsLinear,
    nn.Embedding: RunsEmbedding,
    nn.Conv1d: RunsConv,
    nn.Conv2d: RunsConv,
    nn.BatchNorm1d: RunsBatchNorm,
    nn.BatchNorm2d: RunsBatchNorm,
    nn.LayerNorm: RunsLayerNorm,
    nn.RMSNorm: RunsLayerNorm,
    nn.GroupNorm: RunsGroupNorm,
    nn.PReLU: RunsPReLU,
    nn.Flatten: lambda layer: nn.Flatten(_behind_runs(layer.start_dim), _behind_runs(layer.end_dim)),
    nn.Softmax: lambda layer: nn.Softmax(_behind_runs(layer.dim)),
    nn.LogSoftmax: lambda layer: nn.LogSoftmax(_behind_runs(layer.dim)),
}
_CHANNELWISE = (
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
_HASHED: dict[type, Callable[..., nn.Module]] = {
    nn.Dropout: lambda layer: HashDropout(layer.p),
    nn.AlphaDropout: lambda layer: HashAlphaDropout(layer.p),
    nn.RReLU: lambda layer: HashRReLU(layer.lower, layer.upper),
}
