"""Networks for sequences and words as tutorials write them; options turn a network into one with a mistake in its own code."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

CELLS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Recurrent(nn.Module):
    """A recurrent layer of PyTorch, and a head on its last output.

    Args:
        inputs: Features of a step, or the size of an embedding.
        cell: `lstm`, `gru` or `rnn`.
        words: Size of a vocabulary, where steps are words.
        cut: By mistake only so many last steps pass a gradient on; 0 for all of them.
    """

    def __init__(self, inputs: int, outputs: int, *, hidden: int = 32, cell: str = "lstm", words: int = 0, cut: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, inputs) if words else nn.Identity()
        self.rnn = CELLS[cell](inputs, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, outputs)
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        state = None
        if self.cut:
            with torch.no_grad():
                state = self.rnn(h[:, : -self.cut])[1]
            h = h[:, -self.cut :]
        out: Tensor = self.fc(self.rnn(h, state)[0][:, -1])
        return out


class Encoder(nn.Module):
    """PyTorch's own encoder with learnt places, and a head on the mean."""

    def __init__(  # noqa: PLR0917
        self, inputs: int, length: int, outputs: int, depth: int = 2, width: int = 32, heads: int = 4, *, first: bool = True
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, length, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=first)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        for p in self.encoder.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(self.embed(x) + self.position).mean(1))
        return out


class Attention(nn.Module):
    """Attention of one head that is written out; the last row is read.

    Args:
        scale: What scores are multiplied by; None for one over the root of the width.
        std: What queries and keys are drawn with; 0 leaves what PyTorch draws.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int = 32, scale: float | None = None, std: float = 0.0) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(inputs, width) for _ in range(3))
        self.ff = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, outputs))
        if std:
            nn.init.normal_(self.query.weight, std=std)
            nn.init.normal_(self.key.weight, std=std)
        self.scale = 1 / math.sqrt(width) if scale is None else scale

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x[:, -1:]) @ self.key(x).transpose(1, 2) * self.scale
        out: Tensor = self.ff((torch.softmax(scores, -1) @ self.value(x))[:, 0])
        return out
