"""Logits and weights of an attention are what a calculation by hand says, whoever wrote the attention."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.lab.models.transformer import Transformer
from evengrad.trace.attention import attention
from evengrad.trace.batch import Batch
from evengrad.trace.recorder import measure

SAMPLES, TIME, WIDTH, HEADS = 4, 7, 8, 2


class ByHand(nn.Module):
    """Attention of one head, with a mask that is added or filled in."""

    def __init__(self, mask: str = "none", *, fused: bool = False) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.mask, self.fused = mask, fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, is_causal=self.mask != "none")
        logits = q @ k.transpose(1, 2) / math.sqrt(WIDTH)
        later = torch.ones(TIME, TIME).triu(1)
        if self.mask == "add":
            logits = logits + later * -1e9
        elif self.mask == "fill":
            logits = logits.masked_fill(later.bool(), float("-inf"))
        return logits.softmax(-1) @ v


def data() -> Tensor:
    return torch.randn(SAMPLES, TIME, WIDTH, generator=torch.Generator().manual_seed(1))


def columns(model: nn.Module, x: Tensor) -> dict[str, dict[str, float]]:
    layers = measure(model, Batch(x)).structure.layers
    found = attention(model, Batch(x), layers, 0)
    for column in found.values():
        assert column.shape == (len(layers),)
        assert column.dtype == np.float32
    return {name: {layers[i].name: float(c[i]) for i in np.flatnonzero(~np.isnan(c))} for name, c in found.items()}


def post_norms(model: nn.Module) -> tuple[str, ...]:
    return measure(model, Batch(data()), columns=()).structure.post_norms


@torch.no_grad()
def reference(logits: Tensor, *, causal: bool) -> tuple[float, float]:
    """Largest logit and mean relative entropy of (..., queries, keys)."""
    hidden = torch.ones(logits.shape[-2:]).triu(1).bool() if causal else torch.zeros(logits.shape[-2:]).bool()
    weights = logits.masked_fill(hidden, -math.inf).softmax(-1)
    entropy = -torch.xlogy(weights, weights).sum(-1) / (~hidden).sum(-1).float().log()
    return float(logits.detach().abs().max()), float(entropy[..., 1:].mean() if causal else entropy.mean())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("mask", ["none", "add", "fill"])
def test_attention_by_hand_and_fused_is_seen_at_its_queries(mask: str, fused: bool) -> None:
    torch.manual_seed(0)
    model, x = ByHand(mask, fused=fused), data()
    wanted = reference(model.query(x) @ model.key(x).transpose(1, 2) / math.sqrt(WIDTH), causal=mask != "none")
    found = columns(model, x)
    assert found["logit_abs_max"] == {"query": pytest.approx(wanted[0], rel=1e-4)}
    assert found["attention_entropy"] == {"query": pytest.approx(wanted[1], rel=1e-4)}


@pytest.mark.parametrize("options", [{}, {"need_weights": False}, {"attn_mask": torch.full((TIME, TIME), -1e9).triu(1)}])
def test_module_of_torch_is_seen_at_its_in_proj(options: dict[str, object]) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(x, x, x, **options)[0]

    torch.manual_seed(0)
    model, x = Own(), data()
    z = F.linear(x, model.mix.in_proj_weight, model.mix.in_proj_bias)
    q, k = (part.reshape(SAMPLES, TIME, HEADS, -1).transpose(1, 2) for part in z.chunk(3, -1)[:2])
    wanted = reference(q @ k.transpose(2, 3) / math.sqrt(WIDTH / HEADS), causal="attn_mask" in options)
    found = columns(model, x)
    assert found["logit_abs_max"] == {"mix.in_proj": pytest.approx(wanted[0], rel=1e-4)}
    assert found["attention_entropy"] == {"mix.in_proj": pytest.approx(wanted[1], rel=1e-4)}


def test_transformer_of_the_lab_has_a_value_for_each_block() -> None:
    model = Transformer(inputs=WIDTH, outputs=3, length=TIME, depth=3).build(0)
    found = columns(model, data())
    assert list(found["logit_abs_max"]) == ["2.branch.1.query", "4.branch.1.query", "6.branch.1.query"]
    assert all(0 < v <= 1 for v in found["attention_entropy"].values())


def test_encoder_of_torch_in_eval_mode_is_seen_too() -> None:
    """Outside training it takes one fused operation, in which no logit is seen."""
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True), 2).eval()
    assert len(columns(model, data())["logit_abs_max"]) == 2


def test_normed_queries_belong_to_the_layer_before_the_norm() -> None:
    class Normed(ByHand):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(self.norm(self.query(x)), self.norm(self.key(x)), self.value(x))

    torch.manual_seed(0)
    assert list(columns(Normed(), data())["logit_abs_max"]) == ["query"]


def test_growing_queries_grow_the_logits_and_narrow_the_weights() -> None:
    torch.manual_seed(0)
    model, x = ByHand(), data()
    before = columns(model, x)
    with torch.no_grad():
        model.query.weight.mul_(100)
        model.query.bias.mul_(100)
    after = columns(model, x)
    assert after["logit_abs_max"]["query"] == pytest.approx(100 * before["logit_abs_max"]["query"], rel=1e-3)
    assert after["attention_entropy"]["query"] < 0.3 < before["attention_entropy"]["query"]
    with torch.no_grad():
        model.query.weight.fill_(math.inf)
    layers = measure(ByHand(), Batch(x)).structure.layers
    assert np.isinf(attention(model, Batch(x), layers, 0)["logit_abs_max"]).any()


@pytest.mark.parametrize("softmax", [True, False])
def test_head_with_a_softmax_is_no_attention(softmax: bool) -> None:
    class Attention(nn.Module):  # by name only
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu"):  # its weight is a cast copy
                z = self.head(x)
            return z.float().softmax(-1) if softmax else z.float()

    layers = measure(Attention(), Batch(data())).structure.layers
    assert attention(nn.Sequential(Attention()), Batch(data()), layers, 0) == {}


def test_plain_network_costs_nothing() -> None:
    class Refuses(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("was called")

    assert attention(Refuses(3, 2), Batch(torch.ones(2, 3)), measure(nn.Linear(3, 2), Batch(torch.ones(2, 3))).structure.layers, 0) == {}


def test_nothing_is_changed() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, dropout=0.4, batch_first=True).eval()
    kept, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    layers = measure(model, Batch(data())).structure.layers
    attention(model, Batch(data()), layers, 3)
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norms_behind_the_skips_are_told_from_norms_in_the_branches(norm: str) -> None:
    post, pre = (Transformer(inputs=WIDTH, outputs=3, length=TIME, depth=2, norm=norm, norm_at=at).build(0) for at in ("post", "pre"))
    assert post_norms(post) == ("3", "5", "7", "9")
    assert post_norms(pre) == ()


@pytest.mark.parametrize("first", [True, False])
def test_norms_of_an_encoder_of_torch(first: bool) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True, norm_first=first)
    norms = () if first else tuple(f"layers.{i}.norm{k}" for i in range(2) for k in (1, 2))
    assert post_norms(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)) == norms


def test_norm_written_by_hand_behind_a_skip() -> None:
    class RMSNorm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm = nn.Linear(WIDTH, WIDTH), RMSNorm()

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x + self.inner(x).relu())

    assert post_norms(nn.Sequential(Block(), Block())) == ("0.norm", "1.norm")


def test_batch_norm_of_a_plain_network_is_no_post_norm() -> None:
    assert post_norms(nn.Sequential(nn.Linear(WIDTH, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))) == ()
