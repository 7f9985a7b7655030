"""One call of a model -> each weight scaled just before its operation runs, so that what flows on has the wanted size.

What lies in front is scaled by then, which is why one pass is enough: to see a layer through hooks takes a pass for each.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from evengrad.trace import operations as ops
from evengrad.trace.batch import call
from evengrad.trace.capture import tensors_in
from evengrad.trace.isolation import untouched

_PRODUCTS = ops.LINEAR | ops.CONV | ops.CONV_TRANSPOSE


def spread(output: Tensor) -> Tensor:
    """Returns the standard deviation over all elements, as a double."""
    return output.double().std(correction=0)


def rms(output: Tensor) -> Tensor:
    """Returns the root of the mean square over all elements, as a double."""
    return output.double().square().mean().sqrt()


def rescale_(
    model: nn.Module,
    inputs: Any,
    weights: Iterable[Tensor],
    size: Callable[[Tensor], Tensor] = spread,
    draw: Callable[[Tensor, int], None] | None = None,
) -> None:
    """Divides each of these weights by the `size` of what its operation gives, in one call of the model in train mode.

    A weight that is used several times is scaled where it is used first; one that an embedding has looked up in is left alone; queries,
    keys and values that attention packs in one weight each get a factor of their own. Biases of these operations become zero. Where
    nothing varies, or something is not finite, a weight is left as it is. Mode, buffers and generators are left as they were.

    Args:
        model: Any module.
        inputs: What to call it with.
        weights: Parameters of the model.
        size: What shall become 1.
        draw: `draw(weight, blocks)` fills a weight before it is scaled; `blocks` parts of its first axis are weights of their own.

    Raises:
        ForwardError: if the model raises.
    """
    with untouched(model, seed=0), torch.no_grad():
        model.train()
        with _Rescaling(weights, size, draw):
            call(model, inputs)


class _Rescaling(TorchFunctionMode):
    def __init__(self, weights: Iterable[Tensor], size: Callable[[Tensor], Tensor], draw: Callable[[Tensor, int], None] | None) -> None:
        super().__init__()
        self._waiting = {id(w): w for w in weights if w.dim() > 1}  # holds parts, too: a number must not go to another tensor
        self._size, self._draw = size, draw

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = ops.function_name(func)
        if name == ops.ATTENTION:
            return self._attention(func, args, kwargs)
        operands = list(tensors_in((args, kwargs)))
        weight = next((t for t in operands if id(t) in self._waiting), None)
        if weight is None:
            return func(*args, **kwargs)
        if name in _PRODUCTS:
            biases: list[Tensor] = [t for t in operands if t.dim() == 1 and isinstance(t, nn.Parameter)]
            return self._scaled(lambda: func(*args, **kwargs), weight, biases)
        output = func(*args, **kwargs)
        if name in ops.EMBEDDING:
            del self._waiting[id(weight)]
        else:
            self._follow(weight, output)
        return output

    def _attention(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Its projections run out of sight: queries, keys and values are projected here, to be measured, and then all of it runs."""
        given = inspect.signature(func).bind(*args, **kwargs).arguments
        sources = [given["query"], given["key"], given["value"]]
        packed = self._take(given.get("in_proj_weight"), 3)
        parts = [self._take(given.get(f"{x}_proj_weight"), 1) for x in "qkv"] if packed is None else list(packed.chunk(3))
        _zero(given.get("in_proj_bias"), given.get("out_proj_bias"))
        for source, part in zip(sources, parts, strict=True):
            if part is not None:
                self._divide(part, nn.functional.linear(source, part))
        end = self._take(given.get("out_proj_weight"), 1)
        output = func(*args, **kwargs)
        if end is not None:
            self._divide(end, output[0])
            output = func(*args, **kwargs)
        return output

    def _follow(self, weight: Tensor, output: Any) -> None:
        """Parts of a weight, or its transpose, wait in its place: to scale them is to scale the weight."""
        held = weight.untyped_storage().data_ptr()
        parts = [t for t in tensors_in(output) if t is not weight and t.dim() > 1 and t.untyped_storage().data_ptr() == held]
        if parts:
            del self._waiting[id(weight)]
            self._waiting |= {id(t): t for t in parts}

    def _scaled(self, run: Callable[[], Any], weight: Tensor, biases: list[Tensor]) -> Any:
        self._take(weight, 1)
        _zero(*biases)
        self._divide(weight, run())
        return run()

    def _take(self, weight: Tensor | None, blocks: int) -> Tensor | None:
        """Draws a waiting weight; None if it is not waiting."""
        if weight is None or self._waiting.pop(id(weight), None) is None:
            return None
        if self._draw is not None:
            self._draw(weight, blocks)
        return weight

    def _divide(self, weight: Tensor, output: Tensor) -> None:
        size = self._size(output)
        if bool(size > 0) and bool(size.isfinite()):
            weight.div_(size)


def _zero(*biases: Tensor | None) -> None:
    for bias in biases:
        if bias is not None:
            bias.zero_()
