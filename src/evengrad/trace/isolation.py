"""a model -> the same model, to the bit, after whatever ran inside the `with`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module, *, seed: int | None = None) -> Iterator[None]:
    """Restores mode, buffers and every random generator on exit; inside, torch's generators start from `seed`.

    Gradients and parameters are the caller's to leave alone: gradients are taken with `torch.autograd.grad`.
    """
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules]
    buffers = [(m, name, b, b.detach().clone()) for m in modules for name, b in m._buffers.items() if b is not None]
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with generators_restored(model, seed=seed), eager():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, name, tensor, value in buffers:
                tensor.copy_(value)
                module._buffers[name] = tensor


@contextmanager
def generators_restored(model: nn.Module, *, seed: int | None = None) -> Iterator[None]:
    """Restores the state of torch's generators on the CPU and on the model's devices; inside they start from `seed`."""
    tensors = [*model.parameters(), *model.buffers()]
    devices = sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        if seed is not None:  # torch.manual_seed would queue a call, with its stack, for a CUDA that is not there
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
        yield


@contextmanager
def eager() -> Iterator[None]:
    """Runs compiled parts of a model as plain Python, so that they can be seen."""
    with ExitStack() as stack:
        if hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
