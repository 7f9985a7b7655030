"""A batched chain of linear layers and activations -> every run's gradients, by a backward pass of our own.

Autograd's bookkeeping costs more than the arithmetic of small networks. Here each layer is one batched matrix product forward and two
backward, written straight into the gradient buffer, and activations work in place where their derivative can be had from their value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.lab.engine.layers import RunsLinear
from evengrad.lab.engine.losses import RunsLoss

_aten = torch.ops.aten
_TINY = 400  # multiplications under which torch's batched product is a plain loop on a CPU, several times slower than sums of outer ones
_SELU = (1.6732632423543772, 1.0507009873554805)  # alpha, scale: Klambauer et al. 2017


@dataclass(frozen=True)
class Elementwise:
    """An activation: `forward(z) -> h`, and `backward(grad, kept) -> grad of z`, where `kept` is h, or z where h does not tell."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    keeps_input: bool = False


def elementwise(module: nn.Module) -> Elementwise | None:
    """Returns how to pass this activation, or None where that is left to autograd."""
    match module:
        case nn.Tanh():
            return Elementwise(torch.tanh_, _aten.tanh_backward)
        case nn.Sigmoid():
            return Elementwise(torch.sigmoid_, _aten.sigmoid_backward)
        case nn.ReLU():
            return Elementwise(torch.relu_, lambda g, h: _aten.threshold_backward(g, h, 0))
        case nn.LeakyReLU(negative_slope=slope) if slope > 0:
            return Elementwise(lambda z: F.leaky_relu_(z, slope), lambda g, h: _aten.leaky_relu_backward(g, h, slope, True))
        case nn.ELU(alpha=alpha) if alpha > 0:
            return Elementwise(lambda z: F.elu_(z, alpha), lambda g, h: _aten.elu_backward(g, alpha, 1, 1, True, h))
        case nn.SELU():
            return Elementwise(torch.selu_, lambda g, h: _aten.elu_backward(g, *_SELU, 1, True, h))
        case nn.GELU(approximate=how):
            return Elementwise(lambda z: F.gelu(z, approximate=how), lambda g, z: _aten.gelu_backward(g, z, approximate=how), True)
        case nn.SiLU():
            return Elementwise(F.silu, _aten.silu_backward, True)
        case nn.Mish():
            return Elementwise(F.mish, _aten.mish_backward, True)
    return None


class Chain:
    """Linear, (activation,) linear, ... with weights (runs, out, in): forward and backward for all runs at once.

    Inside, the batch is the last axis: for small layers the products are three times as fast as with features last.
    """

    def __init__(self, layers: list[tuple[RunsLinear, Elementwise | None]]) -> None:
        self._layers = layers

    @staticmethod
    def of(module: nn.Module) -> Chain | None:
        """Reads a batched `nn.Sequential`; None if anything in it is neither linear nor an activation with a derivative known here."""
        if type(module) is not nn.Sequential:
            return None
        layers: list[tuple[RunsLinear, Elementwise | None]] = []
        for part in module:
            if isinstance(part, RunsLinear):
                layers.append((part, None))
            elif (known := elementwise(part)) is not None and layers and layers[-1][1] is None:
                layers[-1] = (layers[-1][0], known)
            else:
                return None
        return Chain(layers) if layers else None

    @torch.no_grad()
    def gradients(self, x: Tensor, y: Tensor, loss: RunsLoss) -> Tensor:
        """Writes every parameter's gradient into its `.grad` and returns the outputs (runs, batch, outputs); x is (runs, batch, inputs)."""
        inputs, kept = [], []
        h = x.mT.contiguous()  # (runs, features, batch)
        for layer, activation in self._layers:
            inputs.append(h)
            z = product(layer.weight, h) if layer.bias is None else product(layer.weight, h, layer.bias.unsqueeze(2))
            h = z if activation is None else activation.forward(z)
            kept.append(z if activation is not None and activation.keeps_input else h)
        outputs = h.mT.contiguous()
        slope = loss.slope(outputs, y).mT
        for i in range(len(self._layers) - 1, -1, -1):
            layer, activation = self._layers[i]
            if activation is not None:
                slope = activation.backward(slope, kept[i])
            torch.bmm(slope, inputs[i].mT, out=layer.weight.grad)
            if layer.bias is not None:
                torch.sum(slope, 2, out=layer.bias.grad)
            if i:
                slope = product(layer.weight.mT, slope)
        return outputs


def product(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """Returns a @ b (+ plus) for each run: (runs, m, k) @ (runs, k, n), plus (runs, m, 1)."""
    m, k, n = a.shape[1], a.shape[2], b.shape[2]
    if m * k * n >= _TINY or a.is_cuda:
        return torch.bmm(a, b) if plus is None else torch.baddbmm(plus, a, b)
    if m == 1 and k > 1:
        z = (a.mT * b).sum(1, keepdim=True)
        return z if plus is None else z.add_(plus)
    z = a[:, :, :1] * b[:, :1] if plus is None else torch.addcmul(plus, a[:, :, :1], b[:, :1])
    for i in range(1, k):
        z.addcmul_(a[:, :, i : i + 1], b[:, i : i + 1])
    return z
