"""Images are moved whole, by no more than asked, and get noise."""

from __future__ import annotations

import pytest
import torch

from evengrad.errors import InputError
from evengrad.lab.augmentation import jittered


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_image_is_moved_as_a_whole_by_every_shift_up_to_the_largest() -> None:
    images = torch.zeros(400, 7, 7)
    images[:, 3, 3], images[:, 3, 4] = 1.0, 2.0
    moved = jittered(images, random(), shift=2, noise=0.0)
    ones, twos = (moved == 1).nonzero(), (moved == 2).nonzero()
    assert len(ones) == len(twos) == 400
    assert torch.equal(twos - ones, torch.tensor([0, 0, 1]).expand(400, 3))
    assert {tuple(place) for place in (ones[:, 1:] - 3).tolist()} == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}


def test_what_comes_in_from_outside_is_zero() -> None:
    moved = jittered(torch.ones(50, 9), random(), shift=1, noise=0.0).view(50, 3, 3)
    assert set(moved.sum((1, 2)).tolist()) <= {4.0, 6.0, 9.0}
    assert len(set(moved.sum((1, 2)).tolist())) == 3


def test_flat_images_are_moved_like_those_with_a_height_and_channels() -> None:
    images = torch.rand(6, 1, 5, 5, generator=random(1))
    flat = jittered(images.flatten(1), random())
    assert torch.equal(flat, jittered(images, random()).flatten(1))
    assert flat.shape == (6, 25)


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    noisy = jittered(torch.zeros(100, 100), random(), shift=0, noise=0.3)
    assert noisy.std().item() == pytest.approx(0.3, rel=0.02)  # 10,000 draws: a standard error of 0.7%
    assert torch.equal(jittered(noisy, random(), shift=0, noise=0.0), noisy)


def test_what_cannot_be_moved_is_refused() -> None:
    with pytest.raises(InputError, match="must be square to be moved; got 10 pixels"):
        jittered(torch.zeros(2, 10), random())
    with pytest.raises(InputError, match="got shift=-1"):
        jittered(torch.zeros(2, 9), random(), shift=-1)
