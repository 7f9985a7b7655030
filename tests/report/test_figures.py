"""Figures for papers: each draws the report's own numbers; the same report gives the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from evengrad.errors import InputError, UnknownNameError
from evengrad.report import Report

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from evengrad.report import figures


def test_the_gradient_before_and_after_is_drawn(samples: ModuleType) -> None:
    (ax,) = figures.gradient_by_layer(samples.fixed()).axes
    before, after = (line.get_ydata() for line in ax.get_lines()[:2])
    assert before[0] == pytest.approx(1.6e-12, rel=0.1)
    assert after[0] > 0.3
    assert ax.get_yscale() == "log"


@pytest.mark.parametrize("signal", ["gradient", "spread", "update / weight", "dead"])
def test_a_heatmap_has_a_cell_for_each_layer_and_step(samples: ModuleType, signal: str) -> None:
    images = figures.heatmap(samples.run(), signal).axes[0].get_images()
    assert images[0].get_array().shape == (12, 120)
    counts = {"gradient": 6 * 12 + 44 + 24}.get(signal, 0)  # steps that broke, and two layers that fell silent before them
    assert sum(int(np.isfinite(np.ma.filled(i.get_array(), np.nan)).sum()) for i in images[1:]) == counts


def test_a_heatmaps_ticks_are_the_steps_of_their_columns(samples: ModuleType) -> None:
    base = samples.run(steps=5)
    steps = np.array([0, 1, 2, 10, 500])
    ax = figures.heatmap(replace(base.trace, steps=steps)).axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2", "10", "500"]
    assert list(ax.get_xticks()) == [0.5, 1.5, 2.5, 3.5, 4.5]


def test_loss_and_trials_are_drawn(samples: ModuleType) -> None:
    lines = {line.get_label(): line for line in figures.loss(samples.run()).axes[0].get_lines()}
    assert len(lines["not finite"].get_xdata()) == 20
    labels = [t.get_text() for t in figures.trials(samples.fixed()).axes[0].get_yticklabels()]
    assert labels == ["nothing", "new initialisation (He)", "✓ sigmoid → tanh (Glorot)", "batch norm before each activation"]


def test_a_fix_is_drawn_before_and_after_on_one_scale(samples: ModuleType) -> None:
    first, second = (ax for ax in figures.heatmap(samples.fixed_run()).axes if ax.get_images() and ax.get_title(loc="left"))
    assert first.get_title(loc="left").startswith("before: ")
    assert second.get_title(loc="left").startswith("after: ")
    assert first.get_images()[0].get_clim() == second.get_images()[0].get_clim()
    labels = [line.get_label() for line in figures.loss(samples.fixed_run()).axes[0].get_lines()]
    assert labels == ["before", "not finite", "after"]
    titles = [ax.get_title(loc="left") for ax in figures.overview(samples.fixed_run()).axes]
    assert [t.partition(":")[0] for t in titles if ":" in t] == ["before", "after"] * 4


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_report_gives_the_same_file(samples: ModuleType, tmp_path: Path, kind: str) -> None:
    one, two = (figures.save(samples.run(), tmp_path / f"{i}.{kind}").read_bytes() for i in "ab")
    assert one == two


def test_what_is_not_there_is_said(samples: ModuleType) -> None:
    empty = Report(run=samples.check().run)
    for draw in (figures.gradient_by_layer, figures.heatmap, figures.loss, figures.trials, figures.overview):
        with pytest.raises(InputError):
            draw(empty)
    with pytest.raises(UnknownNameError, match="Did you mean 'gradient'"):
        figures.heatmap(samples.run(), "gradent")
