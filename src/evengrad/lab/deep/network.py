"""A kind of layer, depth, seed -> a very deep classifier: logits, and gradients of all layers stretch by stretch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.lab.deep.layers import Layers, Params, linear
from evengrad.lab.engine.losses import LOSSES

Visit = Callable[[slice, Params, Tensor, Tensor], None]
"""Is shown a stretch of layers, from the last to the first: which, gradients, states after each, slopes at each one's output."""


class DeepNet:
    """A frozen linear encoder, many equal layers, a frozen linear readout: only the layers between can learn.

    Weights are float32 draws from one generator, in the order encoder, layers, readout. States are held for the whole depth, or, with
    `recompute`, only where stretches of `stretch` layers begin, and computed again on the way back: a third more time for far less memory.

    Args:
        layers: Kind of layer.
        depth: Number of weight layers between encoder and readout.
        inputs: Features of a sample.
        outputs: Number of classes.
        seed: Names the weights.
        stretch: Layers (or blocks) whose gradients are in memory at a time.
        recompute: Compute states twice rather than hold them.
        device: Where to compute.
        dtype: Number type of weights and states.

    Raises:
        InputError: if the depth cannot be made of such layers.
    """

    def __init__(
        self,
        layers: Layers,
        depth: int,
        *,
        inputs: int,
        outputs: int,
        seed: int = 0,
        stretch: int = 25,
        recompute: bool = False,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if depth < layers.deep or depth % layers.deep:
            raise InputError(
                f"{type(layers).__name__} of {layers.deep} weight layer(s) each cannot make a depth of {depth}; use a multiple"
            )
        generator = torch.Generator().manual_seed(seed)
        self.layers, self.depth, self.count = layers, depth, depth // layers.deep
        self._encoder = layers.encoder(inputs, generator).to(device, dtype).requires_grad_(False)
        self.parameters = {name: w.to(device, dtype) for name, w in layers.draw(self.count, generator).items()}
        self._sample = self._encoder(torch.zeros(1, inputs, device=device, dtype=dtype)).shape[1:]
        features = self._sample.numel()
        self._readout: Tensor = torch.randn(outputs, features, generator=generator).to(device, dtype) / features**0.5
        self._stretches = [slice(i, min(i + stretch, self.count)) for i in range(0, self.count, stretch)]
        self._recompute = recompute
        self._states: Tensor = self._readout.new_empty(0, 0)
        self._starts: Tensor = self._states

    @torch.no_grad()
    def scale_readout(self, x: Tensor) -> None:
        """Rescales the readout so that the logits of `x` (batch, inputs) have an RMS of 1; not where no signal arrives."""
        rms = self.logits(x).double().square().mean().sqrt()  # a square of what float32 still holds must not underflow
        if rms > 0:
            self._readout /= rms

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Returns (batch, outputs) for x (batch, inputs)."""
        self._reserve(len(x))
        state = self._encoder(x)
        for number, part in enumerate(self._stretches):
            if self._recompute:
                self._starts[number, : len(x)] = state
            state = self._run(part, state)
        return torch.mm(state.flatten(1), self._readout.mT)

    @torch.no_grad()
    def gradients(self, x: Tensor, y: Tensor, visit: Visit) -> Tensor:
        """Shows the gradients of the mean cross-entropy, stretch by stretch from the last layer; what it is shown, `visit` may change.

        A stretch's weights are not needed any more once it was visited, so that they may be updated there and then.

        Returns:
            The logits (batch, outputs), of the weights before any visit.
        """
        logits = self.logits(x)
        slope = LOSSES["cross_entropy"].slope(logits.unsqueeze(0), y.unsqueeze(0))[0] @ self._readout
        slope = slope.reshape(len(x), *self._sample)
        for number, part in reversed(list(enumerate(self._stretches))):
            if self._recompute:
                self._run(part, self._starts[number, : len(x)])
            states = self._at(part, len(x))
            slope, gradients, slopes = self.layers.backward(self._of(part), states, slope)
            visit(part, gradients, states[1:], slopes)
        return logits

    @torch.no_grad()
    def plain(self) -> nn.Sequential:
        """Returns the same network in plain torch, the weights copied; encoder and readout take no gradient."""
        body = [self.layers.module({name: w[i] for name, w in self.parameters.items()}) for i in range(self.count)]
        return nn.Sequential(self._encoder, *body, nn.Flatten(), linear(self._readout).requires_grad_(False))

    @property
    def held_bytes(self) -> int:
        """Memory that states take, once a batch was seen."""
        return (self._states.numel() + self._starts.numel()) * self._states.element_size()

    def _of(self, part: slice) -> Params:
        return {name: w[part] for name, w in self.parameters.items()}

    def _at(self, part: slice, batch: int) -> Tensor:
        """Returns where the states of a stretch are, the first one's input included: (layers + 1, batch, ...)."""
        start = 0 if self._recompute else part.start
        return self._states[start : start + part.stop - part.start + 1, :batch]

    def _run(self, part: slice, start: Tensor) -> Tensor:
        """Fills the states of a stretch and returns the last one."""
        states = self._at(part, len(start))
        states[0] = start
        self.layers.forward(self._of(part), states)
        return states[-1]

    def _reserve(self, batch: int) -> None:
        """Makes room for the states of a batch; what is there is kept for the next one."""
        if self._states.shape[1] < batch:
            longest, last = self._stretches[0].stop, self._stretches[-1].stop
            self._states = self._readout.new_empty((longest if self._recompute else last) + 1, batch, *self._sample)
            self._starts = self._readout.new_empty(len(self._stretches) if self._recompute else 0, batch, *self._sample)
