"""images, generator -> the same images moved by some pixels, with noise: new samples of the same classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from evengrad.errors import InputError


def jittered(images: Tensor, generator: torch.Generator, *, shift: int = 2, noise: float = 0.1) -> Tensor:
    """Returns each image moved by up to `shift` pixels both ways, what comes in from outside being 0, and normal noise on every pixel.

    Args:
        images: (n, height * width) of square images, or (n, ..., height, width).
        generator: Draws the shifts and the noise; on the CPU, so that every device sees the same.
        shift: Largest shift in pixels, at least 0; every one up to it is equally likely.
        noise: Standard deviation of the noise, at least 0.

    Raises:
        InputError: if flat images are not square, or a size is below 0.
    """
    if shift < 0 or noise < 0:
        raise InputError(f"shift and noise are at least 0; got shift={shift}, noise={noise}")
    side = round(images.shape[1] ** 0.5)
    if images.dim() == 2 and side * side != images.shape[1]:
        raise InputError(f"flat images must be square to be moved; got {images.shape[1]} pixels. Give (n, height, width)")
    planes = images.reshape(len(images), -1, *((side, side) if images.dim() == 2 else images.shape[-2:]))
    height, width = planes.shape[-2:]
    by = torch.randint(0, 2 * shift + 1, (2, len(images)), generator=generator).to(images.device)
    down = (by[0, :, None] + torch.arange(height, device=images.device)).view(-1, 1, height, 1)
    across = (by[1, :, None] + torch.arange(width, device=images.device)).view(-1, 1, 1, width)
    samples = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1)
    channels = torch.arange(planes.shape[1], device=images.device).view(1, -1, 1, 1)
    moved = F.pad(planes, [shift] * 4)[samples, channels, down, across].reshape(images.shape)
    return moved + noise * torch.randn(images.shape, generator=generator).to(images) if noise else moved
