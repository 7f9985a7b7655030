"""(seed, step, layer, element) -> random numbers without a generator.

A run's masks then depend neither on the runs beside it, nor on the device, nor on what else was drawn: a network trained in a batch of
many sees the masks it would see alone.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.errors import InputError
from evengrad.lab.models.axes import lift

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # the odd number next to 2^64 / golden ratio, as a signed integer
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
_LEVELS = 2**16  # a word of 64 bits gives four elements 16 bits each
_ALPHA = -1.7580993408473766  # SELU's value far to the left, -scale * alpha: Klambauer et al. 2017


def mix(x: Tensor) -> Tensor:
    """Scrambles 64-bit integers in place, one to one: SplitMix64's finaliser (Steele, Lea & Flood 2014, variant 13 of Stafford)."""
    for shift, factor in _ROUNDS:
        x ^= (x >> shift) & (1 << (64 - shift)) - 1  # torch's shift carries the sign along
        x *= factor
    x ^= (x >> 31) & (1 << 33) - 1
    return x


class Keyed(nn.Module):
    """A module whose random numbers are a hash of what `set_step` said last.

    Before that, a key is drawn from torch's default generator at each call, so that the module serves in any training loop.

    Attributes:
        key: Hash of (seed, step, layer), int64: () for one network, (runs,) for many.
    """

    trailing_axes: ClassVar[bool] = True
    key: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)
        self.stepped = False

    def bits(self, x: Tensor) -> Tensor:
        """Returns a uniform int16 for each element of `x`, the same for one network and for that network among many."""
        key = self.key if self.stepped else torch.randint_like(self.key, -(2**62), 2**62)
        count = math.prod(x.shape[key.dim() :])
        words = torch.arange(-(-count // 4), device=x.device).mul_(_GOLDEN) + key.unsqueeze(-1)
        return mix(words).view(torch.int16)[..., :count].reshape(x.shape)


def set_step(module: nn.Module, seeds: Tensor | int, step: int) -> None:
    """Says which random numbers the module's dropouts (and random slopes) use from now on.

    Args:
        module: One network, or many stacked.
        seeds: Seed of the run, or int64 (runs,) for stacked ones.
        step: Number of the step.

    Raises:
        InputError: if `seeds` is not one number for each run.
    """
    layers = [m for m in module.modules() if isinstance(m, Keyed)]
    if not layers:
        return
    shape, where = layers[0].key.shape, layers[0].key.device
    seed = torch.as_tensor(seeds, dtype=torch.int64, device=where)
    if seed.shape != shape:
        raise InputError(f"seeds must be one for each run, shape {tuple(shape)}; got shape {tuple(seed.shape)}")
    key = mix(mix(seed + _GOLDEN) + step)
    numbers = torch.arange(1, len(layers) + 1, device=where).view(-1, *[1] * seed.dim())
    for layer, own in zip(layers, mix(key + numbers), strict=True):
        layer.key, layer.stepped = own, True


class HashDropout(Keyed):
    """Inverted dropout: in training, zeroes elements with probability `p` and multiplies the others by 1 / (1 - p).

    Reference: Srivastava et al. 2014.
    """

    cut: Tensor

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise InputError(f"dropout's p is a probability in [0, 1); got {p}")
        self.register_buffer("cut", torch.tensor(min(round(p * _LEVELS), _LEVELS - 1), dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.noise(x) if self.training else x

    def noise(self, x: Tensor) -> Tensor:
        """Returns what training multiplies `x` by: 0 or 1 / (1 - p); p in steps of 2^-16, of which this is the exact inverse."""
        return self.kept(x).to(x.dtype).mul_(_LEVELS / (_LEVELS - lift(self.cut, x)).to(x.dtype))

    def kept(self, x: Tensor) -> Tensor:
        """Returns where `x` stays (bool)."""
        return self.bits(x) >= lift(self.cut - _LEVELS // 2, x).to(torch.int16)

    def extra_repr(self) -> str:
        return f"p={self.cut.flatten()[0].item() / _LEVELS:.4g}"


class HashAlphaDropout(HashDropout):
    """Dropout for SELU networks: dropped elements take SELU's leftmost value, then mean and variance are restored.

    Reference: Klambauer et al. 2017, sec. "New dropout technique".
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        p = lift(self.cut, x).to(x.dtype) / _LEVELS
        a = ((1 - p) * (1 + p * _ALPHA**2)) ** -0.5
        return a * torch.where(self.kept(x), x, _ALPHA) - a * _ALPHA * p


class HashRReLU(Keyed):
    """Leaky ReLU whose slope is random in training, uniform in [lower, upper], and their mean in evaluation (Xu et al. 2015)."""

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        super().__init__()
        self.lower, self.upper = lower, upper

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.leaky_relu(x, (self.lower + self.upper) / 2)
        share = (self.bits(x).to(x.dtype) + (_LEVELS + 1) / 2) / _LEVELS
        return torch.where(x > 0, x, x * (self.lower + (self.upper - self.lower) * share))

    def extra_repr(self) -> str:
        return f"{self.lower:.4g}, {self.upper:.4g}"
