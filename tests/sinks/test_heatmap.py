"""The picture of layers by steps: colours that everyone tells apart, bounded memory, the worst of neighbours."""

from __future__ import annotations

import io
import string

import numpy as np
import pytest
from PIL import Image

from evengrad.sinks.font import dots
from evengrad.sinks.heatmap import NOT_FINITE, UNSEEN, ZERO, Heatmap, colours, png

# Machado, Oliveira & Fernandes 2009, table 1, severity 1.0; they act on linear RGB
SIGHTS = {
    "full": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(rgb: np.ndarray, sight: str) -> np.ndarray:
    """sRGB as an eye sees it -> CIE L*a*b*, in which a difference of about 2 is just noticed."""
    x = rgb / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) @ np.array(SIGHTS[sight]).T
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.clip(linear, 0, 1) @ to_xyz.T / (0.9505, 1, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)


@pytest.mark.parametrize("sight", SIGHTS)
def test_special_colours_are_told_apart_from_the_scale(sight: str) -> None:
    ramp = lab(colours(np.logspace(-8, 0, 200), -8, 0), sight)
    special = lab(np.array([ZERO, NOT_FINITE, UNSEEN]), sight)
    for i, one in enumerate(special):
        others = np.concatenate([ramp, np.delete(special, i, 0)])
        assert np.linalg.norm(others - one, axis=1).min() > 15


@pytest.mark.parametrize("sight", SIGHTS)
def test_the_scale_darkens_evenly(sight: str) -> None:
    light = lab(colours(np.logspace(-8, 0, 50), -8, 0), sight)[:, 0]
    assert (np.diff(light) < 0).all()
    assert light[0] - light[-1] > 55


def draw(columns: list[np.ndarray], names: list[str] | None = None) -> np.ndarray:
    heatmap = Heatmap(names or [f"net.{i}" for i in range(len(columns[0]))], "title")
    for step, column in enumerate(columns):
        heatmap.add(step, column.astype(np.float32))
    image = heatmap.draw()
    assert image is not None
    return image


def count(image: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((image == color).all(-1).sum())


@pytest.mark.parametrize("layers", [1, 2, 10, 100, 1000, 10_000])
@pytest.mark.parametrize("steps", [1, 3, 300])
def test_fits_a_card_at_any_size(layers: int, steps: int) -> None:
    image = draw([np.full(layers, 10.0 ** -(step % 7)) for step in range(steps)])
    assert 580 <= image.shape[1] <= 710
    assert 140 <= image.shape[0] <= 420


@pytest.mark.parametrize(("bad", "color"), [(0.0, ZERO), (np.inf, NOT_FINITE)])
def test_one_bad_layer_of_ten_thousand_is_seen(bad: float, color: tuple[int, int, int]) -> None:
    column = np.ones(10_000)
    healthy = count(draw([column]), color)
    column[4321] = bad
    assert count(draw([column]), color) >= healthy + 2 * 432  # a line of two pixels


def test_not_finite_outweighs_zero_and_zero_the_weakest() -> None:
    column = np.ones(1000)
    column[:6] = (0, np.inf, 1e-9, np.nan, 1, 1)
    image = draw([column])
    assert count(image, NOT_FINITE) > 800
    assert count(image, ZERO) < 400


def test_old_steps_are_thinned_out_and_the_newest_kept() -> None:
    heatmap = Heatmap(("a",), "title")
    for step in range(5000):
        heatmap.add(step, np.array([1e-4 if step < 4999 else 0], np.float32))
    image = heatmap.draw()
    assert image is not None
    assert len(heatmap._steps) <= 240
    assert (heatmap._steps[0], heatmap._steps[-20:]) == (0, list(range(4980, 5000)))
    assert count(image, ZERO) >= 96  # a column of one pixel at least, 96 high


def test_noise_does_not_look_like_a_trend() -> None:
    """Two decades at least from end to end of the scale: a tenth of one is a twentieth of the colours."""
    image = draw([np.full(20, 1e-3), np.full(20, 1.25e-3)])
    middle = image[100, 100:500].astype(int)
    assert np.abs(np.diff(middle, axis=0)).sum() < 40


def test_nothing_to_show_is_no_picture() -> None:
    assert Heatmap(("a",), "title").draw() is None
    empty = Heatmap((), "title")
    empty.add(0, np.zeros(0, np.float32))
    assert empty.draw() is None


def test_nothing_finite_is_drawn() -> None:
    image = draw([np.array([0.0, np.inf, np.nan])])
    assert min(count(image, color) for color in (ZERO, NOT_FINITE, UNSEEN)) > 32 * 432


def test_long_and_strange_names_fit() -> None:
    names = ["a" * 500, "漢字🔥", "<script>alert(1)</script>", ""]
    image = draw([np.ones(4)], names)
    assert image.shape[1] <= 710
    assert not np.array_equal(image, draw([np.ones(4)], ["a", "b", "c", "d"]))


def test_is_a_png() -> None:
    image = draw([np.array([1.0, 0.0, 1e-5]), np.array([1.0, np.inf, 1e-5])])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), image)


def test_every_letter_is_itself() -> None:
    letters = string.ascii_letters + string.digits + ".,_-/:|()[]<>=+#… ?"  # the last one stands for all that there is no letter for
    shapes = {letter: dots(letter, 1).tobytes() for letter in letters}
    assert len(set(shapes.values())) == len(letters)
    assert dots("ab", 3).shape == (27, 36)
    assert not dots(" ").any()
