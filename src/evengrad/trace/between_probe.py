"""a model and a batch -> what lies between each layer and the next, asked with noise: how much it passes on, and whether it bends it.

Nothing is asked of how it is written, nor of the weights: each layer's output is replaced by standard normal noise, and the next layer's
input is looked at.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.errors import EvengradError
from evengrad.trace.batch import Batch, call, mapped
from evengrad.trace.isolation import untouched
from evengrad.types import Layer

_PLAIN = {"linear", "conv", "conv_transpose"}


def between(
    model: nn.Module, batch: Batch, layers: Sequence[Layer], edges: Sequence[tuple[int, int]], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Returns, for each plain layer that alone feeds another plain one, `name` and what the way between makes of standard normal noise.

    `bend` is by how much the gradient's way back differs from sample to sample, as a share of itself: 0 for whatever is linear, about 0.7
    for a ReLU. Where both ends have as many numbers, `passes` is the root mean square of a gradient behind the way to one before it
    (0.7 for a ReLU, 0.2 for a sigmoid, 1 for nothing), and `size` that of the next layer's input (0.7, 0.5 and 1). Evaluation mode: dropout
    and batches have no part in it. Empty where the model cannot be run like this.
    """
    sources = Counter(b for _, b in edges)  # what is added to something else is not judged alone
    pairs = [(a, b) for a, b in edges if sources[b] == 1 and _is_plain(layers, a) and _is_plain(layers, b)]
    modules = dict(model.named_modules())
    owners = {i: modules.get(layers[i].weight.rpartition(".")[0]) for pair in pairs for i in pair}
    noise: dict[int, Tensor] = {}
    inputs: dict[int, Tensor] = {}
    often: set[int] = set()
    handles = []

    def replaced(row: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if not isinstance(output, Tensor) or not output.is_floating_point() or row in noise:
                often.add(row)
                return None
            drawn = torch.randn(output.shape, generator=torch.Generator().manual_seed(row)).to(output)
            noise[row] = drawn.requires_grad_()
            return noise[row].clone()  # an activation can work in place

        return hook

    def read(row: int) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            if args and isinstance(args[0], Tensor):
                inputs[row] = args[0]

        return hook

    for row in {a for a, _ in pairs}:
        owner = owners[row]
        handles += [] if owner is None else [owner.register_forward_hook(replaced(row))]
    for row in {b for _, b in pairs}:
        owner = owners[row]
        handles += [] if owner is None else [owner.register_forward_pre_hook(read(row))]
    try:
        with untouched(model, seed=seed), torch.enable_grad():
            model.eval()
            call(model, mapped(torch.clone, batch.inputs))
            return [made for a, b in pairs if a not in often for made in _looked(layers[a].name, noise.get(a), inputs.get(b))]
    except (EvengradError, RuntimeError):
        return []
    finally:
        for handle in handles:
            handle.remove()


def _looked(name: str, noise: Tensor | None, behind: Tensor | None) -> list[dict[str, Any]]:
    if noise is None or behind is None or not behind.requires_grad or len(noise) != len(behind) or len(noise) < 2:
        return []
    asked = torch.randn(behind.shape[1:], generator=torch.Generator().manual_seed(0)).to(behind).expand_as(behind)
    (back,) = torch.autograd.grad(behind, noise, asked, retain_graph=True, allow_unused=True)
    if back is None or not bool(back.isfinite().all()):
        return []
    size = float(back.square().mean().sqrt())
    if not size:
        return []
    found: dict[str, Any] = {"name": name, "bend": float(back.var(0, correction=0).mean().sqrt()) / size}
    if behind.numel() == noise.numel():
        found |= {"passes": size / float(asked.square().mean().sqrt()), "size": float(behind.detach().square().mean().sqrt())}
    return [found] if all(isinstance(v, str) or math.isfinite(v) for v in found.values()) else []


def _is_plain(layers: Sequence[Layer], row: int) -> bool:
    return row < len(layers) and layers[row].kind in _PLAIN
