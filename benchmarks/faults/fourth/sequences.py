"""Networks for sequences, tokens, tables and codes; options turn a network into one with a mistake in its own code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Reader(nn.Module):
    """A recurrent layer over numbers or embedded words, read at its last state."""

    def __init__(
        self, outputs: int, *, inputs: int = 1, hidden: int = 32, cell: str = "gru", vocabulary: int = 0, orthogonal: bool = False
    ) -> None:  # fmt: skip
        super().__init__()
        kind: Any = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[cell]
        self.words = nn.Embedding(vocabulary, inputs) if vocabulary else nn.Identity()
        self.cells = kind(inputs, hidden, batch_first=True)
        if orthogonal:
            nn.init.orthogonal_(self.cells.weight_hh_l0)
        self.decide = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cells(self.words(x))
        out: Tensor = self.decide(states[:, -1])
        return out


class Loop(nn.Module):
    """A recurrence written out, with a ReLU and a matrix that starts near the identity."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 40) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, hidden)
        self.again = nn.Linear(hidden, hidden, bias=False)
        nn.init.eye_(self.again.weight)
        self.leave = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), self.again.in_features, dtype=x.dtype)
        for step in x.unbind(1):
            h = F.relu(self.enter(step) + self.again(h))
        out: Tensor = self.leave(h)
        return out


class Finder(nn.Module):
    """Attention of the last row to all, written out; scores are divided by the root of the width, or by mistake times `factor`.

    Args:
        factor: What scores are multiplied by.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 32, factor: float | None = None) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.before = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key = nn.Linear(width, width, bias=False)
        self.to_value = nn.Linear(width, width, bias=False)
        self.after = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * width)
        self.decide = nn.Linear(2 * width, outputs)
        self.factor = width**-0.5 if factor is None else factor

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        n = self.before(h)
        scores = self.to_query(n[:, -1:]) @ self.to_key(n).transpose(1, 2)
        found = torch.softmax(self.factor * scores, -1) @ self.to_value(n)
        h = self.after(h[:, -1] + found[:, 0])
        out: Tensor = self.decide(F.relu(self.wide(h)))
        return out


class Heads(nn.Module):
    """Words or rows, places, blocks of several heads written out with a norm in front, and a mean.

    Args:
        factor: What scores are multiplied by, in place of one through the root of a head's width.
    """

    def __init__(
        self, outputs: int, length: int, *, inputs: int = 0, vocabulary: int = 0, width: int = 32, heads: int = 4, depth: int = 2,
        factor: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.words: nn.Module = nn.Embedding(vocabulary, width) if vocabulary else nn.Linear(inputs, width)
        self.places = nn.Parameter(0.1 * torch.randn(length, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.join = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.mlps = nn.ModuleList(nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)) for _ in range(depth))
        self.decide = nn.Linear(width, outputs)
        self.heads, self.factor = heads, (width // heads) ** -0.5 if factor is None else factor

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x) + self.places
        for i, (qkv, join, mlp) in enumerate(zip(self.qkv, self.join, self.mlps, strict=True)):
            parts = qkv(self.norms[2 * i](h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            weights = torch.softmax(self.factor * parts[0] @ parts[1].transpose(-1, -2), -1)
            h = h + join((weights @ parts[2]).transpose(1, 2).flatten(2))
            h = h + mlp(self.norms[2 * i + 1](h))
        out: Tensor = self.decide(self.norms[-1](h).mean(1))
        return out


class PostNorm(nn.Module):
    """Encoder blocks of `nn.MultiheadAttention` with a norm behind each addition."""

    def __init__(self, inputs: int, length: int, outputs: int, *, width: int = 28, depth: int = 6, heads: int = 2) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.places = nn.Parameter(0.1 * torch.randn(length, width))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(depth))
        self.mlps = nn.ModuleList(nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.decide = nn.Linear(width, outputs)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x) + self.places
        for i, (attention, mlp) in enumerate(zip(self.attentions, self.mlps, strict=True)):
            h = self.norms[2 * i](h + attention(h, h, h, need_weights=False)[0])
            h = self.norms[2 * i + 1](h + mlp(h))
        out: Tensor = self.decide(h.mean(1))
        return out


class Mixer(nn.Module):
    """Rows and columns are mixed in turn by small networks of their own."""

    def __init__(self, rows: int, inputs: int, outputs: int, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.over_rows = nn.ModuleList(nn.Sequential(nn.Linear(rows, 24), nn.GELU(), nn.Linear(24, rows)) for _ in range(depth))
        self.over_width = nn.ModuleList(nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width)) for _ in range(depth))
        self.decide = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for i, (rows, width) in enumerate(zip(self.over_rows, self.over_width, strict=True)):
            h = h + rows(self.norms[2 * i](h).transpose(1, 2)).transpose(1, 2)
            h = h + width(self.norms[2 * i + 1](h))
        out: Tensor = self.decide(h.mean(1))
        return out


class Factors(nn.Module):
    """Tastes of people times tastes of films, and what each is liked on average."""

    def __init__(self, people: int, films: int, tastes: int = 6) -> None:
        super().__init__()
        self.people, self.films = nn.Embedding(people, tastes), nn.Embedding(films, tastes)
        self.person_bias, self.film_bias = nn.Embedding(people, 1), nn.Embedding(films, 1)
        for module in (self.people, self.films, self.person_bias, self.film_bias):
            nn.init.normal_(module.weight, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        person, film = x[:, 0], x[:, 1]
        together = (self.people(person) * self.films(film)).sum(1, keepdim=True)
        out: Tensor = together + self.person_bias(person) + self.film_bias(film)
        return out


class Bag(nn.Module):
    """The mean of embedded words, and two linear layers."""

    def __init__(self, vocabulary: int, outputs: int, width: int = 24) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(vocabulary, width, mode="mean")
        self.fc = nn.Linear(width, 32)
        self.out = nn.Linear(32, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(F.relu(self.fc(self.bag(x))))
        return out


class Mixed(nn.Module):
    """Numbers beside embedded categories, which are the last two columns."""

    def __init__(self, numbers: int, outputs: int, kinds: tuple[int, int] = (8, 5), width: int = 48, drop: float = 0.1) -> None:
        super().__init__()
        self.first, self.second = nn.Embedding(kinds[0], 4), nn.Embedding(kinds[1], 3)
        self.body = nn.Sequential(
            nn.Linear(numbers + 7, width), nn.ReLU(), nn.Dropout(drop), nn.Linear(width, width), nn.ReLU(), nn.Dropout(drop)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        kinds = x[:, -2:].long()
        out: Tensor = self.head(self.body(torch.cat([x[:, :-2], self.first(kinds[:, 0]), self.second(kinds[:, 1])], 1)))
        return out


class Code(nn.Module):
    """An auto-encoder: down to a code and up again."""

    def __init__(self, features: int, width: int = 32, code: int = 6, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, width), act(), nn.Linear(width, code))
        self.decoder = nn.Sequential(nn.Linear(code, width), act(), nn.Linear(width, features))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out
