"""a model -> the same model, to the bit, after whatever ran inside the `with`."""

from __future__ import annotations

import random
import sys
import warnings
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
    buffers = [(m, {name: (b, None if b is None else b.detach().clone()) for name, b in m._buffers.items()}) for m in modules]
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with generators_restored(model, seed=seed), eager(model):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, held in buffers:
                for name in set(module._buffers.keys()) - set(held):
                    del module._buffers[name]  # the forward pass added it
                for name, (tensor, value) in held.items():
                    module._buffers[name] = tensor
                    if tensor is not None and value is not None:
                        tensor.copy_(value)


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
def eager(model: nn.Module) -> Iterator[None]:
    """Runs compiled parts of a model as plain Python, so that they can be seen."""
    with ExitStack() as stack:
        if any(hasattr(module, "_orig_mod") for module in model.modules()):  # our hooks pass over what is none of the model's modules
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message=".*when there are global hooks on modules", category=UserWarning)
        if "torch._dynamo" in sys.modules and hasattr(
            torch.compiler, "set_stance"
        ):  # without it nothing is compiled; it takes seconds to load
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
