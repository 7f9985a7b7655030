"""The size of a step relative to the weights."""

from __future__ import annotations

import numpy as np

from evengrad import synthetic
from evengrad.signals import update_ratio


def test_divides_the_change_by_the_weights() -> None:
    found = update_ratio(synthetic.chain(3, steps=2, update_norm=[[0.1, 0.2, 0.3], [1.0, 1.0, 0.0]], weight_norm=2.0))
    np.testing.assert_allclose(found, [[0.05, 0.1, 0.15], [0.5, 0.5, 0.0]], rtol=1e-6)  # float32 columns


def test_says_nothing_where_weights_are_zero_or_no_step_was_seen() -> None:
    assert np.isnan(update_ratio(synthetic.chain(2, update_norm=1.0, weight_norm=[0.0, 0.0]))).all()
    assert np.isnan(update_ratio(synthetic.chain(2, weight_norm=1.0))).all()
