"""a model with attention and a batch -> how large its logits are, and how spread its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from evengrad.trace.batch import Batch, call, mapped
from evengrad.trace.capture import tensors_in
from evengrad.trace.isolation import untouched
from evengrad.types import Floats, Layer

COLUMNS = ("logit_abs_max", "attention_entropy")
_SIGNS = ("attn", "attention", "query", "qkv", "q_proj", "to_q", "transformer")  # what a module that attends is called
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}
_SOFTMAX = {"_softmax", "_safe_softmax"}
_MASKS = {"add", "add_", "sub", "sub_", "where", "masked_fill", "masked_fill_"}  # what may hide keys: logits are those before it
_SCALES = {"mul", "mul_", "div", "div_", "tanh", "tanh_", "_to_copy", "clone", "neg"}
_VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "permute", "transpose", "unsqueeze", "squeeze", "detach", "alias"}
_MASKED = 1e3  # a mask that is added moves a logit further than that


def attention(model: nn.Module, batch: Batch, layers: Sequence[Layer], seed: int) -> dict[str, Floats]:
    """Measures every attention in one forward pass without gradients, in train mode; leaves the model as it was, to the bit.

    An attention is the softmax of a product of two values, neither of which is a weight: that of `nn.MultiheadAttention`, of
    `scaled_dot_product_attention` and of one written by hand. It belongs to the row whose output the queries are: `in_proj`, or the
    linear layer of the queries.

    Args:
        model: Any module.
        batch: What to call it with.
        layers: Rows of the model.
        seed: Seed of torch's generators during the pass.

    Returns:
        Two columns, float32 (L,), NaN for rows that attend to nothing: `logit_abs_max`, the largest magnitude of a logit, scaled as the
        softmax gets it and before any mask (infinite where one is not finite); `attention_entropy`, the mean over queries of the entropy of
        their weights over the logarithm of the number of keys that they see, in [0, 1]. Empty where the model has no attention: at no cost
        if nothing in it bears a name of one.
    """
    if not _may_attend(model, layers):
        return {}
    watch = _Logits(model, layers)
    with untouched(model, seed=seed), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), watch:
        model.train()
        call(model, mapped(torch.clone, batch.inputs))
    if not watch.seen:
        return {}
    host = torch.stack([torch.stack((largest, entropy)).cpu() for _, largest, entropy in watch.seen]).double().numpy()
    found = {name: np.full(len(layers), np.nan, np.float32) for name in COLUMNS}
    for row in {row for row, _, _ in watch.seen}:
        calls = host[[k for k, (r, _, _) in enumerate(watch.seen) if r == row]]
        found["logit_abs_max"][row] = calls[:, 0].max()
        found["attention_entropy"][row] = calls[:, 1].mean()
    return found


def _may_attend(model: nn.Module, layers: Sequence[Layer]) -> bool:
    if any(layer.kind == "attention" for layer in layers):
        return True
    named = (f"{name.rpartition('.')[2]} {type(module).__name__}".lower() for name, module in model.named_modules())
    return any(sign in name for name in named for sign in _SIGNS)


class _Logits(TorchDispatchMode):
    """Follows each value to the row that made it, each product of two values to its softmax.

    Attributes:
        seen: For each softmax its row, the largest logit and the entropy of its weights, on the device.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[int, Tensor, Tensor]] = []
        rows = {layer.weight: i for i, layer in enumerate(layers)}
        self._weights: dict[int, int | None] = {id(p): rows.get(name) for name, p in model.named_parameters()}
        self._rows: dict[int, int] = {}  # value -> the row it comes from
        self._logits: dict[int, tuple[int, Tensor]] = {}  # value -> the row of the queries behind it, and the logits before any mask
        self._keep: list[Tensor] = []  # numbers of tensors that are gone can come again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        operands = list(tensors_in((args, kwargs or {})))
        results = list(tensors_in(output))
        if operands and results:
            self._keep += results
            self._follow(func.overloadpacket.__name__, args, operands, results)
        return output

    def _follow(self, name: str, args: Any, operands: list[Tensor], results: list[Tensor]) -> None:
        values = [t for t in operands if id(t) not in self._weights]
        if not values:  # a weight transposed, or cast
            self._weights.update({id(t): self._weights[id(operands[0])] for t in results})
        elif name in _SOFTMAX and id(args[0]) in self._logits:
            self._measure(*self._logits[id(args[0])], args[0], results[0], int(args[1]))
        else:
            row = self._row_of(name, operands, values)
            if row is not None:
                self._rows.update({id(t): row for t in results})
            self._follow_logits(name, args, values, results[0])

    def _row_of(self, name: str, operands: list[Tensor], values: list[Tensor]) -> int | None:
        own = [self._weights[id(t)] for t in operands if id(t) in self._weights and t.dim() > 1]
        if own and own[-1] is not None and (name in _PRODUCTS or "conv" in name or "linear" in name):
            return own[-1]
        return next((self._rows[id(t)] for t in values if id(t) in self._rows), None)

    def _follow_logits(self, name: str, args: Any, values: list[Tensor], result: Tensor) -> None:
        factors = [a for a in args if isinstance(a, Tensor)][-2:]
        if name in _PRODUCTS and len(factors) == 2 and not any(id(f) in self._weights for f in factors):
            row = self._rows.get(id(factors[0]), self._rows.get(id(factors[1])))
            if row is not None:
                plain = torch.bmm(*factors) if name == "baddbmm" and isinstance(args[0], Tensor) else result  # a mask was added at once
                self._logits[id(result)] = (row, plain)
                self._keep.append(plain)
            return
        before = next((self._logits[id(t)] for t in values if id(t) in self._logits), None)
        if before is not None and name in _VIEWS | _SCALES:
            self._logits[id(result)] = (before[0], result)
        elif before is not None and name in _MASKS:
            self._logits[id(result)] = before

    def _measure(self, row: int, logits: Tensor, masked: Tensor, weights: Tensor, axis: int) -> None:
        logits, masked, weights = logits.float(), masked.float(), weights.float()
        seen = (masked - logits).abs() < _MASKED if logits.shape == masked.shape else torch.isfinite(masked)
        sound = torch.isfinite(logits).all()
        logits = logits.where(seen, 0) if logits.shape == seen.shape else logits
        keys = seen.sum(axis)
        entropy = -torch.special.xlogy(weights, weights).sum(axis) / keys.clamp_min(2).float().log()
        entropy = entropy[keys > 1].clamp(0, 1).mean()  # NaN where every query sees a single key
        self.seen.append((row, torch.where(sound, logits.abs().amax(), torch.inf), entropy))
