"""Explanations: pictures agree with torch and with closed forms; every rule has a page; pages are inert and need no torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from evengrad.report.explained import pages
from evengrad.report.explained.activations import ACTIVATIONS, activation, derivative
from evengrad.report.explained.initialisers import INITIALISERS, by_depth
from evengrad.report.explained.rules import meaning, summary
from evengrad.rules import discovered
from evengrad.trace.stats import SATURATION

BY_NAME = {i.name: i for i in INITIALISERS}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_curves_and_derivatives_are_torchs(name: str) -> None:
    x = np.linspace(-5.9, 5.9, 60) + 0.0137  # away from kinks
    wide = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    phi = torch.erf if name == "erf" else getattr(functional, name)
    out = phi(wide)
    (slope,) = torch.autograd.grad(out.sum(), wide)
    np.testing.assert_allclose(ACTIVATIONS[name](x), out.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(derivative(ACTIVATIONS[name], x), slope.numpy(), atol=1e-8)  # central differences


@pytest.mark.parametrize("name", SATURATION)
def test_the_shaded_region_is_what_is_counted_as_saturated(name: str) -> None:
    found = activation(name)
    assert found.both
    assert abs(found.flat[-1][0] - SATURATION[name]) < 0.06  # a step of the drawing is 0.05


def test_gains_are_the_known_ones() -> None:
    assert activation("relu").gain == pytest.approx(2**0.5, rel=1e-3)
    assert activation("tanh").gain == pytest.approx(1.5925, rel=1e-3)
    assert activation("selu").gain == pytest.approx(1.0, rel=1e-3)
    assert activation("relu").passes == pytest.approx(1.0, rel=2e-3)  # the kink at zero


def test_he_keeps_relu_and_glorot_halves_it() -> None:
    he, glorot = (by_depth(BY_NAME[name], "relu", 10) for name in ("he", "glorot"))
    np.testing.assert_allclose(he.gradient, 1.0, rtol=0.02)
    np.testing.assert_allclose(glorot.gradient, 2.0 ** (-np.arange(9, -1, -1) / 2), rtol=0.02)


@pytest.mark.parametrize(("name", "phi"), [("tanh", torch.tanh), ("relu", torch.relu), ("gelu", functional.gelu)])
@pytest.mark.parametrize("scheme", ["glorot", "he", "torch default"])
def test_theory_is_what_a_wide_network_does(name: str, phi: object, scheme: str) -> None:
    generator, width, depth = torch.Generator().manual_seed(0), 1500, 5
    theory = by_depth(BY_NAME[scheme], name, depth)
    h, spreads, outs = torch.randn(64, width, generator=generator), [], []
    for _ in range(depth):
        weight = torch.randn(width, width, generator=generator) * (BY_NAME[scheme].variance / width) ** 0.5
        z = (h @ weight.T).requires_grad_()
        outs.append(z)
        h = phi(z)  # type: ignore[operator]
        spreads.append(float(z.detach().std(0).square().mean().sqrt()))
    gradients = torch.autograd.grad(outs[-1], outs, torch.randn(outs[-1].shape, generator=generator))
    sizes = np.array([float(g.square().mean().sqrt()) for g in gradients])
    np.testing.assert_allclose(np.array(spreads) / spreads[0], theory.spread, rtol=0.1)  # 1,500 units, 64 samples
    np.testing.assert_allclose(sizes / sizes[-1], theory.gradient, rtol=0.1)


@pytest.mark.parametrize("code", discovered())
def test_every_rule_has_a_page_with_its_words_and_a_picture(code: str) -> None:
    found, text = meaning(code), pages.page(code)
    assert found is not None
    assert text is not None
    assert found.story
    assert found.picture is not None
    assert found.example
    assert all(f"<code>{n}</code>" in text for n, _, _ in found.thresholds)
    assert all(told for _, _, told in found.thresholds)
    assert "<script" not in text
    assert re.search(r" (src|style|on\w+)=", text) is None


def test_all_pages_link_to_pages_that_are_there(tmp_path: Path) -> None:
    written = pages.write_all(tmp_path / "new")
    names = {p.name for p in written}
    assert len(names) == len(discovered()) + 3
    for path in written:
        assert set(re.findall(r'href="([^"]+)"', path.read_text("utf-8"))) <= names


def test_a_single_page_has_its_pictures_inside_and_no_links(tmp_path: Path) -> None:
    text = pages.write("VAN001", tmp_path / "van.html").read_text("utf-8")
    assert "href" not in text
    assert "Activation: sigmoid" in text
    assert "Initialiser: glorot" in text
    assert len(text) < 100_000
    with pytest.raises(KeyError):
        pages.write("VAN999", tmp_path / "no.html")


def test_what_is_no_rule_has_no_meaning() -> None:
    assert meaning("XYZ999") is None
    assert summary("XYZ999") is None
    assert pages.page("XYZ999") is None


def test_pages_need_no_torch() -> None:
    code = "from evengrad.report.explained import pages; import sys; pages.page('VAN001'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
