"""Networks for sequences, words and patches; options turn a network into one with a mistake in its own code."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Words(nn.Module):
    """Embedded words, an LSTM, and a head on its last state."""

    def __init__(self, vocabulary: int, outputs: int, size: int = 12, hidden: int = 28) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, size)
        self.lstm = nn.LSTM(size, hidden, batch_first=True)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        _, (last, _) = self.lstm(self.table(x))
        out: Tensor = self.out(last[-1])
        return out


class Cells(nn.Module):
    """A cell that is called step by step.

    Args:
        cell: `gru`, or `rnn` with tanh whose matrix starts orthogonal.
        cut: By mistake the state is detached every so many steps.
        keep: By mistake so much of the state is kept at each step, and the rest is lost.
    """

    def __init__(self, inputs: int, outputs: int, *, hidden: int = 28, cell: str = "gru", cut: int = 0, keep: float = 1.0) -> None:
        super().__init__()
        self.cell: nn.GRUCell | nn.RNNCell = nn.GRUCell(inputs, hidden) if cell == "gru" else nn.RNNCell(inputs, hidden)
        if cell == "rnn":
            nn.init.orthogonal_(self.cell.weight_hh)
        self.out = nn.Linear(hidden, outputs)
        self.hidden, self.cut, self.keep = hidden, cut, keep

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), self.hidden, dtype=x.dtype)
        for t in range(x.shape[1]):
            h = self.keep * self.cell(x[:, t], h)
            if self.cut and (t + 1) % self.cut == 0:
                h = h.detach()
        out: Tensor = self.out(h)
        return out


class Cards(nn.Module):
    """The last row asks the others by the cosine of its key with theirs, times a factor that is learnt as its logarithm.

    Args:
        logarithm: What the factor's logarithm starts from.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 24, logarithm: float = math.log(6)) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(inputs, width, bias=False), nn.Linear(inputs, width, bias=False)
        self.value = nn.Linear(inputs, width)
        self.logarithm = nn.Parameter(torch.tensor(logarithm))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        q, k = F.normalize(self.query(x[:, -1:]), dim=-1), F.normalize(self.key(x[:, :-1]), dim=-1)
        shares = torch.softmax(self.logarithm.exp() * q @ k.transpose(1, 2), -1)
        out: Tensor = self.mlp((shares @ self.value(x[:, :-1]))[:, 0])
        return out


class Patches(nn.Module):
    """Patches or rows with learnt places, blocks with norms in front, and a mean, or the last row.

    Args:
        slope: How much less a patch counts for each step that it is farther away; 0 for not at all.
        factor: What embeddings are multiplied by.
        normed: False leaves out the norms in front of attention.
        last: The last row is read in place of the mean.
    """

    def __init__(
        self, inputs: int, length: int, outputs: int, *, width: int = 24, heads: int = 2, depth: int = 2, slope: float = 0.0,
        factor: float = 1.0, normed: bool = True, last: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.places = nn.Parameter(0.3 * torch.randn(length, width))
        self.before = nn.ModuleList(nn.LayerNorm(width) if normed else nn.Identity() for _ in range(depth))
        self.between = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.queries = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.keys = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.values = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.joins = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.wides = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.narrows = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth))
        self.end = nn.LayerNorm(width)
        self.out = nn.Linear(width, outputs)
        far = (torch.arange(length)[:, None] - torch.arange(length)[None]).abs().float()
        self.register_buffer("bias", -slope * far)
        self.heads, self.factor, self.last = heads, factor, last

    def attend(self, h: Tensor, i: int) -> Tensor:
        """Attention of block i over (samples, places, width)."""
        q, k, v = (made[i](h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for made in (self.queries, self.keys, self.values))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + self.bias
        return self.joins[i]((torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        h = self.factor * (self.embed(x) + self.places)
        for i in range(len(self.queries)):
            h = h + self.attend(self.before[i](h), i)
            h = h + self.narrows[i](F.gelu(self.wides[i](self.between[i](h))))
        h = self.end(h)
        out: Tensor = self.out(h[:, -1] if self.last else h.mean(1))
        return out


class Posted(nn.Module):
    """Blocks with norms behind each addition, as they were first published, read at a row of their own."""

    def __init__(self, inputs: int, length: int, outputs: int, *, width: int = 30, depth: int = 6, heads: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.places = nn.Parameter(0.1 * torch.randn(length + 1, width))
        self.start = nn.Parameter(0.1 * torch.randn(width))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.join = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.wide = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.narrow = nn.ModuleList(nn.Linear(3 * width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.out = nn.Linear(width, outputs)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.start.expand(len(x), 1, -1), self.embed(x)], 1) + self.places
        for i, (qkv, join) in enumerate(zip(self.qkv, self.join, strict=True)):
            q, k, v = qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            shares = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)
            h = self.norms[2 * i](h + join((shares @ v).transpose(1, 2).flatten(2)))
            h = self.norms[2 * i + 1](h + self.narrow[i](F.relu(self.wide[i](h))))
        out: Tensor = self.out(h[:, 0])
        return out
