"""model and inputs -> the singular values from input to output, by products with the Jacobian, which is never formed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from evengrad.errors import InputError
from evengrad.trace.batch import Batch, call
from evengrad.trace.capture import tensors_in
from evengrad.trace.isolation import untouched
from evengrad.types import Series

MAX_SAMPLES = 8
Product = Callable[[Series], Series]


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """Singular values of the Jacobian from input to output; of several samples the mean, rank by rank.

    Attributes:
        largest: float64 (k,), the largest singular values, descending.
        error_bound: float64 (k,), how far each may lie from the nearest singular value, the worst of the samples; 0 where `exact`.
        median: Median over all min(shape) singular values; an estimate unless `exact`.
        smallest: Smallest singular value that was seen; not below the true one. Values under `largest[0]` times the resolution of the
            model's numbers (1.2e-7 for float32) are rounding; a model and inputs in float64 resolve more.
        exact: True if there were steps enough to see every singular value.
        shape: (outputs, inputs) of the Jacobian of one sample.
        samples: Number of samples, each taken alone.
    """

    largest: Series
    error_bound: Series
    median: float
    smallest: float
    exact: bool
    shape: tuple[int, int]
    samples: int

    @property
    def condition(self) -> float:
        """Largest over smallest singular value, infinite if the smallest is zero; a lower bound unless `exact`."""
        return float(self.largest[0] / self.smallest) if self.smallest > 0 else float("inf")


@dataclass(frozen=True)
class _Jacobian:
    """The Jacobian at one point: `forward(v)` is J v, `backward(u)` is u J."""

    shape: tuple[int, int]
    forward: Product
    backward: Product
    eps: float


def jacobian_spectrum(model: nn.Module, inputs: Any, *, k: int = 10, steps: int = 30, seed: int = 0) -> Spectrum:
    """Measures how the network stretches and squeezes small changes of its input on their way to the output.

    A network whose singular values lie near 1 passes signals forward and gradients backward at any depth; values that shrink or grow
    with depth are vanishing and exploding gradients seen whole. Golub-Kahan-Lanczos bidiagonalisation with full reorthogonalisation needs
    only products with the Jacobian: one pass through the network a sample, two or three backward a step. The model runs in eval mode and
    is left as it was, to the bit.

    Args:
        model: Any module whose first output tensor is differentiable in its inputs.
        inputs: A tensor, or a tuple or mapping of tensors, whose first axis counts samples (a tensor with one axis is one sample). Of more
            than 8 samples, 8 that are evenly spread are taken, each alone. Only floating-point tensors are varied.
        k: Number of largest singular values wanted; fewer come back if the Jacobian has fewer.
        steps: Lanczos steps; min(outputs, inputs) of them or more give every singular value exactly.
        seed: Seed of the start vector, and of torch's generators.

    Raises:
        InputError: if no input is floating-point, the output does not depend on it, an operation has no second derivative, or the
            Jacobian has entries that are not finite.
        ForwardError: if the model raises.

    Example:
        >>> spectrum = jacobian_spectrum(nn.Linear(3, 2, bias=False), torch.zeros(1, 3))
        >>> spectrum.shape, spectrum.exact
        ((2, 3), True)

    Reference: Pennington, Schoenholz & Ganguli 2017, https://arxiv.org/abs/1711.04735; Golub & Kahan 1965.
    """
    if k < 1 or steps < 1:
        raise InputError(f"k and steps must be at least 1; got k={k}, steps={steps}")
    found = []
    with untouched(model, seed=seed), _twice_differentiable(model):
        model.eval()
        for sample in _samples(inputs):
            found.append(_singular_values(_jacobian(model, sample), k, steps, np.random.default_rng(seed)))
    return Spectrum(
        largest=np.mean([f.largest for f in found], axis=0),
        error_bound=np.max([f.error_bound for f in found], axis=0),
        median=float(np.mean([f.median for f in found])),
        smallest=float(np.mean([f.smallest for f in found])),
        exact=found[0].exact,
        shape=found[0].shape,
        samples=len(found),
    )


@contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Keeps to kernels that have second derivatives: fused attention and cuDNN's recurrent nets have none."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if recurrent:
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


def _samples(inputs: Any) -> Iterator[Any]:
    if isinstance(inputs, Tensor) and inputs.dim() < 2:
        yield inputs
        return
    count = Batch(inputs).samples
    if not count:
        raise InputError("the batch holds no sample; give at least one")
    for i in np.unique(np.linspace(0, count - 1, min(count, MAX_SAMPLES)).round().astype(int)):
        yield _map(inputs, partial(_one, i=int(i), count=count))


def _one(tensor: Tensor, *, i: int, count: int) -> Tensor:
    return tensor[i : i + 1] if tensor.dim() and tensor.shape[0] == count else tensor


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Applies a function to every tensor in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _map(item, function) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_map(item, function) for item in value)
    return value


def _jacobian(model: nn.Module, inputs: Any) -> _Jacobian:
    varied = [t.detach() for t in tensors_in(inputs) if t.is_floating_point()]
    if not varied:
        kinds = ", ".join(str(t.dtype).removeprefix("torch.") for t in tensors_in(inputs)) or type(inputs).__name__
        raise InputError(
            f"the Jacobian needs floating-point inputs; got {kinds}. For token ids, give the part of the model behind the embedding "
            f"and what the embedding returns"
        )
    point = torch.cat([t.reshape(-1) for t in varied]).requires_grad_()
    # copies, not the leaf itself: the model may work in place
    parts = iter([part.reshape(t.shape).to(t.dtype, copy=True) for part, t in zip(_cut(point, varied), varied, strict=True)])
    output = call(model, _map(inputs, lambda t: next(parts) if t.is_floating_point() else t))
    first = next((t for t in tensors_in(output) if t.is_floating_point()), None)
    if first is None:
        raise InputError("the model's output holds no floating-point tensor: it has no Jacobian")
    return _products(first.reshape(-1), point)


def _cut(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
    ends = np.cumsum([t.numel() for t in like])
    return [flat[end - t.numel() : end] for t, end in zip(like, ends.tolist(), strict=True)]


def _products(output: Tensor, point: Tensor) -> _Jacobian:
    """Builds both products from one pass: u J by reverse mode, and J v as the derivative of u J in u, by reverse mode again."""
    dual = torch.zeros_like(output, requires_grad=True)
    pulled = torch.autograd.grad(output, point, dual, create_graph=True, allow_unused=True)[0] if output.requires_grad else None
    if pulled is None:
        raise InputError("the first output tensor does not depend on the floating-point inputs: its Jacobian is zero")
    shape, eps = (output.numel(), point.numel()), float(torch.finfo(point.dtype).eps)
    if not pulled.requires_grad:  # such as sign(x): flat everywhere
        return _Jacobian(shape, lambda _: np.zeros(shape[0]), lambda _: np.zeros(shape[1]), eps)

    def product(of: Tensor, at: Tensor, vector: Series) -> Series:
        try:
            found = torch.autograd.grad(of, at, torch.from_numpy(vector).to(of), retain_graph=True)[0]
        except RuntimeError as error:
            raise InputError(
                f"an operation of the model has no second derivative, which products with the Jacobian need: {error}"
            ) from error
        return _array(found)

    return _Jacobian(shape, lambda v: product(pulled, dual, v), lambda u: product(output, point, u), eps)


def _array(tensor: Tensor) -> Series:
    array: Series = tensor.detach().double().cpu().numpy()
    if not np.isfinite(array).all():
        raise InputError("the Jacobian has entries that are NaN or infinite; check the inputs, or try model.double() and double inputs")
    return array


def _singular_values(jacobian: _Jacobian, k: int, steps: int, random: np.random.Generator) -> Spectrum:
    size = min(jacobian.shape)
    steps = min(size, max(steps, k))
    images, left, beta = _bidiagonalise(jacobian if jacobian.shape[0] >= jacobian.shape[1] else _transposed(jacobian), steps, random)
    w, sigma, s = np.linalg.svd(images, full_matrices=False)
    exact = steps == size
    bound = np.zeros(steps) if exact else np.abs(beta * (left[:, -1] @ w))
    return Spectrum(
        largest=sigma[:k],
        error_bound=bound[:k],
        median=float(np.median(sigma)) if exact else _weighted_median(sigma, s[:, 0] ** 2),
        smallest=float(sigma[-1]),
        exact=exact,
        shape=jacobian.shape,
        samples=1,
    )


def _transposed(jacobian: _Jacobian) -> _Jacobian:
    return _Jacobian(jacobian.shape[::-1], jacobian.backward, jacobian.forward, jacobian.eps)


def _bidiagonalise(a: _Jacobian, steps: int, random: np.random.Generator) -> tuple[Series, Series, float]:
    """Runs Golub-Kahan-Lanczos: the images A V of an orthonormal basis V, an orthonormal basis U of them, and the last beta.

    Where a Krylov space is exhausted (a Jacobian with equal singular values, or with a null space) it goes on from a new random vector, so
    that every singular value is seen as often as it occurs. The singular values of A V are those of the bidiagonal matrix, also then.
    """
    basis, images, left = np.zeros((a.shape[1], steps)), np.zeros((a.shape[0], steps)), np.zeros((a.shape[0], steps))
    following, beta, largest = random.standard_normal(a.shape[1]), 0.0, 0.0
    for j in range(steps):
        v = _orthogonal(following, basis[:, :j])
        basis[:, j] = v / np.linalg.norm(v)
        images[:, j] = a.forward(basis[:, j])
        u = _orthogonal(images[:, j], left[:, :j])
        alpha, beta = float(np.linalg.norm(u)), 0.0
        largest = max(largest, float(np.linalg.norm(images[:, j])))
        if alpha > 10 * a.eps * largest:
            left[:, j] = u / alpha
            following = _orthogonal(a.backward(left[:, j]), basis[:, : j + 1])
            beta = float(np.linalg.norm(following))
        if beta <= 10 * a.eps * largest:
            beta, following = 0.0, random.standard_normal(a.shape[1])
    return images, left, beta


def _orthogonal(vector: Series, basis: Series) -> Series:
    for _ in range(2):  # twice is enough (Giraud et al. 2005)
        vector = vector - basis @ (basis.T @ vector)
    return vector


def _weighted_median(values: Series, weights: Series) -> float:
    """Returns the median of the density that Lanczos' nodes and weights stand for (stochastic Lanczos quadrature)."""
    order = np.argsort(values)
    logs, weights = np.log(np.maximum(values[order], np.finfo(float).tiny)), weights[order] / weights.sum()
    return float(np.exp(np.interp(0.5, np.cumsum(weights) - weights / 2, logs)))
