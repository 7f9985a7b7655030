"""Networks as users write them, functional calls and all; options turn a network into one with a mistake in its own code."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from evengrad.lab.models import Net

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Own(Net):
    """A network of someone's own.

    Attributes:
        make: Makes it, from torch's seed.
    """

    kind: ClassVar[str] = "own"
    make: partial[nn.Module]

    def build(self, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make()

    def but(self, **options: Any) -> Own:
        """Returns the network with these options changed."""
        return Own(make=partial(self.make, **options))


def own(kind: type[nn.Module], **options: Any) -> Own:
    """Returns a network of this class."""
    return Own(make=partial(kind, **options))


def he(model: nn.Module) -> None:
    """He's initialisation of all matrices and kernels."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Plain(nn.Module):
    """Three linear layers, called one by one."""

    def __init__(self, inputs: int, outputs: int, width: int = 32, act: Activation = F.relu, forgets: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, width)
        self.fc3 = nn.Linear(width, outputs)
        he(self)
        self.act, self.forgets = act, forgets

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if self.forgets:
            self.act(x)
        else:
            x = self.act(x)
        x = self.fc2(x)
        if self.forgets:
            self.act(x)
        else:
            x = self.act(x)
        out: Tensor = self.fc3(x)
        return out


class Listed(nn.Module):
    """A network whose hidden layers are kept in a list: `nn.ModuleList`, or by mistake Python's own."""

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 4, plain_list: bool = False) -> None:
        super().__init__()
        layers = [nn.Linear(inputs if i == 0 else width, width) for i in range(depth)]
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.layers: Any = layers if plain_list else nn.ModuleList(layers)
        self.out = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        out: Tensor = self.out(x)
        return out


class Normed(nn.Module):
    """Linear, batch norm, ReLU, many times; by mistake the norms are made and never called."""

    def __init__(self, inputs: int, outputs: int, width: int = 48, depth: int = 7, normed: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs if i == 0 else width, width) for i in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(depth))
        self.head = nn.Linear(width, outputs)
        he(self)
        self.normed = normed

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = layer(x)
            x = F.relu(norm(x) if self.normed else x)
        out: Tensor = self.head(x)
        return out


class ConvNet(nn.Module):
    """Convolutions with batch norm and pooling by functions, and two linear layers.

    Args:
        channels: Of the first convolution; the second has twice as many.
        normed: False forgets to call the norms.
        blocked: True computes the features under `no_grad`.
        softmax: True ends in a softmax.
    """

    def __init__(
        self, outputs: int, size: int, *, channels: int = 8, normed: bool = True, blocked: bool = False, softmax: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(2 * channels)
        self.conv3 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(2 * channels)
        self.fc1 = nn.Linear(2 * channels * (size // 4) ** 2, 32)
        self.fc2 = nn.Linear(32, outputs)
        he(self)
        self.normed, self.blocked, self.softmax = normed, blocked, softmax

    def features(self, x: Tensor) -> Tensor:
        h = self.conv1(x)
        h = F.max_pool2d(F.relu(self.bn1(h) if self.normed else h), 2)
        h = self.conv2(h)
        h = F.relu(self.bn2(h) if self.normed else h)
        h = self.conv3(h)
        h = F.relu(self.bn3(h) if self.normed else h)
        return F.max_pool2d(h, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(not self.blocked and torch.is_grad_enabled()):
            h = self.features(x)
        h = torch.flatten(h, 1)
        out: Tensor = self.fc2(F.relu(self.fc1(h)))
        return F.softmax(out, dim=1) if self.softmax else out


class DeepConv(nn.Module):
    """A stack of convolutions of one size without norms, and a mean over the image.

    Args:
        channels: Of every convolution.
        depth: Convolutions.
    """

    def __init__(self, outputs: int, channels: int = 16, depth: int = 5) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(1 if i == 0 else channels, channels, 3, padding=1) for i in range(depth))
        self.head = nn.Linear(channels * 4, outputs)
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        x = F.adaptive_avg_pool2d(x, 2).flatten(1)
        out: Tensor = self.head(x)
        return out


class Block(nn.Module):
    """A residual block; by mistake the input is not added."""

    def __init__(self, width: int, skip: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return x + h if self.skip else h


class Blocks(nn.Module):
    """Many residual blocks."""

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 12, skip: bool = True) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, skip) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.norm(x))
        return out


class Packed(nn.Module):
    """An LSTM over packed sequences, read at the last step of each; by mistake at the last step of the padding."""

    def __init__(self, outputs: int, hidden: int = 32, packed: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, hidden, batch_first=True)
        self.out = nn.Linear(hidden, outputs)
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        if self.packed:
            lengths = x[..., 1].sum(1).long().clamp(min=1).cpu()
            _, (h, _) = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
            out: Tensor = self.out(h[-1])
            return out
        states, _ = self.lstm(x)
        out = self.out(states[:, -1])
        return out


class LastState(nn.Module):
    """A recurrent layer, and a linear one on its last state."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 32, cell: str = "gru", **options: Any) -> None:
        super().__init__()
        kind = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[cell]
        self.rnn = kind(inputs, hidden, batch_first=True, **options)
        if cell == "rnn":
            nn.init.orthogonal_(self.rnn.weight_hh_l0)
        self.fc = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.rnn(x)
        out: Tensor = self.fc(states[:, -1, :])
        return out


class Encoder(nn.Module):
    """torch's own encoder layers over rows, with learnt places, and their mean."""

    def __init__(
        self, inputs: int, length: int, outputs: int, *, width: int = 32, depth: int = 2, heads: int = 4, norm_first: bool = True
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        for p in self.encoder.parameters():  # the layers are copies of one: draw each anew
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(self.embed(x) + self.place)
        out: Tensor = self.head(h.mean(1))
        return out


class Tokens(nn.Module):
    """Embedded tokens, `nn.MultiheadAttention` and a residual addition."""

    def __init__(self, vocabulary: int, outputs: int, width: int = 24, heads: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 48)
        self.fc2 = nn.Linear(48, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        q = self.norm1(h)
        h = h + self.attention(q, q, q, need_weights=False)[0]
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm2(h).mean(1))))
        return out


class Written(nn.Module):
    """Attention written out, read at the last row; scores are divided by the root of the width, or by mistake multiplied by `scale`."""

    def __init__(self, inputs: int, length: int, outputs: int, width: int = 32, scale: float | None = None) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.place = nn.Parameter(0.1 * torch.randn(length, width))
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, outputs)
        self.scale = 1 / math.sqrt(width) if scale is None else scale

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.place
        n = self.norm(h)
        scores = self.query(n) @ self.key(n).transpose(1, 2) * self.scale
        h = h + torch.softmax(scores, -1) @ self.value(n)
        h = h + self.fc2(F.relu(self.fc1(h)))
        out: Tensor = self.head(h[:, -1])
        return out
